"""The functions that replace those of socket."""

from __future__ import annotations

import array
import asyncio.trsock
import errno
import os
import signal
import socket
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attempts import fails
from drop_ins import SCM_RIGHTS, Overriding
from support import UNIX_TYPES, Pair, content, installed, is_open, open_files, run_python

import cmsgx


@pytest.fixture(params=UNIX_TYPES, ids=lambda kind: kind.name)
def plain(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of the standard library's sockets."""
    pair = socket.socketpair(socket.AF_UNIX, request.param)
    yield pair
    for sock in pair:
        sock.close()


# Which socket -----------------------------------------------------------------------------------


class Plain(socket.socket):
    """Overrides none of them."""


class OnlySends(socket.socket):
    def sendmsg(self, *args: Any) -> int:
        raise ZeroDivisionError


class Numbered:
    """Has only a fileno()."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()


class Wrapper:
    """Forwards every attribute, as wrapt's ObjectProxy does."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


PROXIES: list[Callable[[Any], Any]] = [weakref.proxy, Wrapper]


def as_class(kind: type[socket.socket]) -> Callable[[socket.socket], Any]:
    return lambda sock: kind(fileno=os.dup(sock.fileno()))


FORMS: dict[str, Callable[[socket.socket], Any]] = {
    "socket": lambda sock: sock,
    "subclass": as_class(Plain),
    "cmsgx.socket": as_class(cmsgx.socket),
    "subclass that overrides": as_class(Overriding),
    "TransportSocket": asyncio.trsock.TransportSocket,
    "int": lambda sock: sock.fileno(),
    "fileno()": Numbered,
    "wrapper": Wrapper,
    "weakref.proxy": weakref.proxy,
    "Fd": lambda sock: cmsgx.Fd(os.dup(sock.fileno())),
}


@contextmanager
def in_form(name: str, sock: socket.socket) -> Iterator[Any]:
    form = FORMS[name](sock)
    try:
        yield form
    finally:
        is_proxy = isinstance(form, Wrapper | weakref.ProxyType)
        if form is not sock and not is_proxy and hasattr(form, "close"):
            form.close()


@pytest.mark.parametrize("name", FORMS)
def test_each_form_of_socket(plain: tuple[socket.socket, socket.socket], name: str) -> None:
    with (
        in_form(name, plain[0]) as sender,
        in_form(name, plain[1]) as receiver,
        open_files(2) as files,
    ):
        rights = (socket.SOL_SOCKET, SCM_RIGHTS, array.array("i", files))
        assert cmsgx.sendmsg(sender, [b"da", b"ta"], [rights]) == 4
        data, ancdata, flags, _ = cmsgx.recvmsg(receiver, 10, 100)
        assert (data, flags & socket.MSG_CTRUNC) == (b"data", 0)
        [(level, kind, payload)] = ancdata
        assert (level, kind) == (socket.SOL_SOCKET, SCM_RIGHTS)
        numbers = array.array("i", payload).tolist()
        assert [content(number) for number in numbers] == ["0", "1"]
        for number in numbers:
            os.close(number)

        assert cmsgx.send_fds(sender, [b"more"], files) == 4
        data, numbers, flags, _ = cmsgx.recv_fds(receiver, 10, 2)
        assert data == b"more"
        assert [content(number) for number in numbers] == ["0", "1"]
        assert not any(map(os.get_inheritable, numbers))
        for number in numbers:
            os.close(number)

        cmsgx.sendmsg(sender, [b"into"])
        buffers = [bytearray(1), bytearray(9)]
        nbytes, ancdata, flags, _ = cmsgx.recvmsg_into(receiver, buffers)
        assert (nbytes, ancdata, b"".join(buffers)[:4]) == (4, [], b"into")
        if name == "subclass that overrides":
            assert (sender.calls, receiver.calls) == (3, 3)


def test_each_number_of_buffers(packets: Pair) -> None:
    """As many as fit on the stack, and more."""
    for count in range(1, 70):
        data = os.urandom(count)
        assert cmsgx.sendmsg(packets[0], [data[i : i + 1] for i in range(count)]) == count
        buffers = [bytearray(1) for _ in range(count)]
        assert cmsgx.recvmsg_into(packets[1], buffers)[0] == count
        assert b"".join(buffers) == data


def test_typed_calls_refuse_a_type_that_overrides(stream: Pair) -> None:
    for kind, refused in ((Overriding, "sr"), (OnlySends, "s"), (Plain, "")):
        with kind(fileno=os.dup(stream[0].fileno())) as sock:
            for letter, call in (
                ("s", lambda sock=sock: cmsgx.send(sock, b"x")),
                ("s", lambda sock=sock: cmsgx.send_all(sock, b"x")),
                ("r", lambda sock=sock: cmsgx.receive(sock, 1)),
                ("r", lambda sock=sock: cmsgx.Receiver(sock, 1).receive()),
            ):
                stream[1].send(b"x")
                if letter in refused:
                    with pytest.raises(TypeError, match=f"{kind.__name__} has a .* of its own"):
                        call()
                else:
                    call()


def test_a_type_is_looked_at_for_each_function(stream: Pair) -> None:
    with OnlySends(fileno=os.dup(stream[0].fileno())) as sock:
        stream[1].send(b"x")
        assert cmsgx.recvmsg(sock, 1)[0] == b"x"
        with pytest.raises(ZeroDivisionError):
            cmsgx.sendmsg(sock, [b"x"])
        with pytest.raises(ZeroDivisionError):
            cmsgx.send_fds(sock, [b"x"], [0])


def test_a_method_that_is_patched_later_is_called(stream: Pair) -> None:
    class Later(socket.socket):
        pass

    with Later(fileno=os.dup(stream[0].fileno())) as sock:
        cmsgx.sendmsg(sock, [b"x"])
        Later.sendmsg = lambda self, *args: -1  # type: ignore[method-assign]
        assert cmsgx.sendmsg(sock, [b"x"]) == -1


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate, in one file."""
    folder = tmp_path_factory.mktemp("certificate")
    path = folder / "both.pem"
    status = os.system(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        f"-keyout {folder}/key.pem -out {folder}/cert.pem >/dev/null 2>&1 && "
        f"cat {folder}/key.pem {folder}/cert.pem > {path}"
    )
    if status != 0:
        pytest.skip("no openssl command")
    return path


@pytest.mark.parametrize("wrap", [lambda sock: sock, *PROXIES])
def test_no_plain_text_over_tls(certificate: Path, wrap: Callable[[Any], Any]) -> None:
    """SSLSocket's own methods refuse this, and so do the calls."""
    ssl = pytest.importorskip("ssl")  # a Python may be built without
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.load_verify_locations(certificate)
    first, second = socket.socketpair()
    with first, second:
        thread = threading.Thread(
            target=lambda: sockets.append(context.wrap_socket(second, server_side=True))
        )
        sockets: list[Any] = []
        thread.start()
        with trusting.wrap_socket(first, server_hostname="localhost") as client:
            thread.join()
            given = wrap(client)
            with sockets[0] as server:
                for call in (
                    lambda: cmsgx.sendmsg(given, [b"secret"]),
                    lambda: cmsgx.send_fds(given, [b"secret"], [0]),
                    lambda: cmsgx.recvmsg(given, 1),
                    lambda: cmsgx.recvmsg_into(given, [bytearray(1)]),
                    lambda: cmsgx.recv_fds(given, 1, 1),
                ):
                    with pytest.raises(NotImplementedError):
                        call()
                for typed in (
                    lambda: cmsgx.send(given, b"secret"),
                    lambda: cmsgx.send_all(given, b"secret"),
                    lambda: cmsgx.receive(given, 1),
                    lambda: cmsgx.Receiver(given, 1).receive(),
                ):
                    with pytest.raises(TypeError, match=f"{type(given).__name__} has a"):
                        typed()
                client.send(b"x")
                assert server.recv(10) == b"x"


@pytest.mark.parametrize("wrap", PROXIES)
def test_a_proxy_has_the_timeout_of_what_is_below_it(
    stream: Pair, wrap: Callable[[Any], Any]
) -> None:
    given = wrap(stream[1])
    for call in (
        lambda: cmsgx.recvmsg(given, 1),
        lambda: cmsgx.recv_fds(given, 1, 1),
        lambda: socket.recv_fds(given, 1, 1),
    ):
        with installed():
            stream[1].settimeout(0.01)
            with pytest.raises(TimeoutError):
                call()
            stream[1].settimeout(60)
            sender = threading.Timer(0.05, stream[0].send, [b"x"])
            sender.start()
            assert call()[0] == b"x"
            sender.join()


def test_an_int_never_waits_and_a_socket_waits_for_its_timeout() -> None:
    first, second = socket.socketpair()
    with first, second:
        second.settimeout(3600)
        for form in (second.fileno(), Numbered(second)):
            with pytest.raises(BlockingIOError):
                cmsgx.recvmsg(form, 1)
            with pytest.raises(BlockingIOError):
                cmsgx.recv_fds(form, 1, 1)
            with pytest.raises(BlockingIOError):
                cmsgx.recvmsg_into(form, [bytearray(1)])
        second.settimeout(0.1)
        transport = asyncio.trsock.TransportSocket(second)
        with pytest.raises(BlockingIOError):
            cmsgx.recvmsg(transport, 1)


@pytest.mark.parametrize(
    ("sock", "error"),
    [
        (None, TypeError),
        ("3", TypeError),
        (3.0, TypeError),
        (True, TypeError),
        pytest.param(object(), TypeError, id="an object"),
        (2**31, ValueError),
        (1_000_000, OSError),
    ],
    ids=repr,
)
def test_what_is_not_a_socket(sock: Any, error: type[Exception]) -> None:
    for call in (
        lambda: cmsgx.sendmsg(sock, [b"x"]),
        lambda: cmsgx.send_fds(sock, [b"x"], []),
        lambda: cmsgx.recvmsg(sock, 1),
        lambda: cmsgx.recvmsg_into(sock, [bytearray(1)]),
        lambda: cmsgx.recv_fds(sock, 1, 1),
    ):
        with pytest.raises(error):
            call()


@pytest.mark.parametrize(
    "call",
    [
        lambda number: cmsgx.sendmsg(number, [b"x"], [], 0, ("127.0.0.1", 9)),
        lambda number: cmsgx.send_fds(number, [b"x"], [], 0, "path"),
        lambda number: cmsgx.send(number, b"x", address=("127.0.0.1", 9)),
        lambda number: cmsgx.send(number, b"x", fds=[0]),
        lambda number: cmsgx.send_batch(number, [(b"x", [0])]),
    ],
)
def test_a_number_that_is_not_a_socket_is_not_of_another_family(call: Callable[[int], int]) -> None:
    with fails(errno.EBADF):
        call(1_000_000)
    with open(os.devnull) as file, fails(errno.ENOTSOCK):
        call(file.fileno())


def test_a_closed_socket_is_ebadf() -> None:
    closed = socket.socket(socket.AF_UNIX)
    closed.close()
    owned = cmsgx.Fd(os.open(os.devnull, os.O_RDONLY))
    owned.close()
    for sock in (closed, owned):
        for call in (
            lambda sock=sock: cmsgx.sendmsg(sock, [b"x"]),
            lambda sock=sock: cmsgx.recvmsg(sock, 1),
            lambda sock=sock: cmsgx.recv_fds(sock, 1, 1),
            lambda sock=sock: cmsgx.recvmsg(Numbered(sock), 1),
        ):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                call()
            assert caught.value.errno == 9


# Timeouts ---------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[Any], Any]] = {
    "recvmsg": lambda sock: cmsgx.recvmsg(sock, 1)[0],
    "recvmsg_into": lambda sock: cmsgx.recvmsg_into(sock, [bytearray(1)])[0],
    "recv_fds": lambda sock: cmsgx.recv_fds(sock, 1, 1)[0],
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("cleared", [False, True], ids=["", "O_NONBLOCK cleared by a dup"])
@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_timeout(name: str, cleared: bool, timeout: float) -> None:
    first, second = socket.socketpair()
    with first, second:
        second.settimeout(timeout)
        if cleared:
            os.set_blocking(second.fileno(), True)
        rescue = threading.Timer(60, first.send, [b"too late"])
        rescue.start()
        start = time.monotonic()
        with pytest.raises(TimeoutError if timeout else BlockingIOError) as caught:
            CALLS[name](second)
        elapsed = time.monotonic() - start
        rescue.cancel()
        rescue.join()
        assert elapsed >= timeout
        if timeout:
            assert str(caught.value) == "timed out"
        if timeout:
            second.settimeout(60)
            if cleared:
                os.set_blocking(second.fileno(), True)
            timer = threading.Timer(0.02, first.send, [b"x"])
            timer.start()
            assert CALLS[name](second) in (1, b"x")
            timer.join()


def test_a_timeout_of_a_send() -> None:
    first, second = socket.socketpair()
    with first, second:
        first.settimeout(0.05)
        with pytest.raises(TimeoutError):  # noqa: PT012
            for _ in range(1000):
                cmsgx.sendmsg(first, [bytes(4096)])
        with pytest.raises(TimeoutError):
            cmsgx.send_fds(first, [b"x"], [0])


def test_pep_475() -> None:
    ran = []
    before = signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    first, second = socket.socketpair()
    try:
        with first, second:
            for timeout in (None, 5):
                second.settimeout(timeout)
                for call in CALLS.values():
                    timer = threading.Timer(0.1, first.send, [b"x"])
                    timer.start()
                    assert call(second) in (1, b"x")
                    timer.join()
            second.settimeout(0.2)
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                cmsgx.recvmsg(second, 1)
            assert time.monotonic() - start >= 0.2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(ran) > 10


# Audit ------------------------------------------------------------------------------------------


def test_audit_events_are_sockets() -> None:
    code = """
import socket, sys, cmsgx
seen = []
def hook(event, args):
    if event.startswith("socket.sendmsg"):
        seen.append((event, args[0], args[1]))
a, b = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
server, plain = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
server.bind(b"\\0cmsgx-test-audit")
sys.addaudithook(hook)
address = b"\\0cmsgx-test-audit"
for call, expected in [
    (lambda: socket.socket.sendmsg(a, [b"x"]), (a, None)),
    (lambda: cmsgx.sendmsg(a, [b"x"]), (a, None)),
    (lambda: a.sendmsg([b"x"]), (a, None)),
    (lambda: cmsgx.sendmsg(plain, [b"x"], [], 0, address), (plain, address)),
    (lambda: cmsgx.send_fds(plain, [b"x"], [], 0, address), (plain, address)),
    (lambda: cmsgx.send(plain, b"x", address=address), (plain, address)),
    (lambda: cmsgx.send_all(a, b"x"), (a, None)),
]:
    call()
    assert seen == [("socket.sendmsg", *expected)], (seen, expected)
    seen.clear()
def refuse(event, args):
    if event == "socket.sendmsg":
        raise ZeroDivisionError
sys.addaudithook(refuse)
for call in (lambda: cmsgx.sendmsg(a, [b"x"]), lambda: cmsgx.send(a, b"x", fds=[0])):
    try:
        call()
    except ZeroDivisionError:
        pass
    else:
        raise AssertionError
assert [b.recv(10) for _ in range(4)] == [b"x"] * 4
b.setblocking(False)
try:
    b.recv(1)
except BlockingIOError:
    print("as in socket")
for sock in (a, b, plain, server):
    sock.close()
"""
    assert run_python(code).strip() == "as in socket"


# What code that is not ours does with what it is given ------------------------------------------

LISTS = """
import socket, sys, cmsgx

class Clears:
    def __init__(self, items):
        self.items = items

    def __buffer__(self, flags):
        self.items.clear()
        self.kept = [bytearray(100) for _ in range(50)]
        return memoryview(bytearray(10))

# A family whose addresses C leaves to the socket's own method, which would read the list.
left, right = (socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) for _ in range(2))
for sock in (left, right):
    sock.bind((0, 0))
    sock.setblocking(False)
address = right.getsockname()[0], 0
for call in (
    lambda items: cmsgx.recvmsg_into(right, items),
    lambda items: cmsgx.sendmsg(left, items, [], 0, address),
    lambda items: cmsgx.send_fds(left, items, [], 0, address),
    lambda items: cmsgx.send(left, items, address=address),
):
    for _ in range(100):
        items = []
        items += [Clears(items), *[bytearray(5) for _ in range(50)]]
        try:
            call(items)
        except (OSError, RuntimeError):
            pass
print("done")
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no class has a __buffer__() before 3.12")
@pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="this system has no AF_NETLINK")
def test_a_list_that_is_cleared_while_the_own_method_reads_it() -> None:
    assert run_python(LISTS).strip().endswith("done")


def test_a_descriptor_that_cannot_be_closed_leaks_no_other() -> None:
    class Foreign(socket.socket):
        def recvmsg(self, *_: Any) -> Any:
            rights = cmsgx.Rights.unpack(array.array("i", numbers))
            return b"x", [(rights.level, rights.type, rights.pack())], 0, None

    with Foreign(socket.AF_UNIX) as sock:
        numbers = [os.dup(0) for _ in range(4)]
        os.close(numbers[2])
        _data, fds, flags, _ = cmsgx.recv_fds(sock, 10, 1)
        assert fds == numbers[:1]
        assert flags & socket.MSG_CTRUNC
        assert [is_open(number) for number in numbers] == [True, False, False, False]
        os.close(numbers[0])


def test_descriptors_of_what_is_not_understood_are_closed() -> None:
    class Foreign(socket.socket):
        def recvmsg(self, *_: Any) -> Any:
            payloads = (struct.pack("i", numbers[0]), 1, struct.pack("i", numbers[1]))
            return b"x", [(socket.SOL_SOCKET, socket.SCM_RIGHTS, one) for one in payloads], 0, None

    with Foreign(socket.AF_UNIX) as sock:
        numbers = [os.dup(0) for _ in range(2)]
        with pytest.raises(TypeError):
            cmsgx.recv_fds(sock, 10, 1)
        assert not any(is_open(number) for number in numbers)
