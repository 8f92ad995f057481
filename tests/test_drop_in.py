"""In place of the socket module's functions: which socket, addresses, timeouts, install()."""

from __future__ import annotations

import array
import asyncio.trsock
import errno
import fcntl
import os
import signal
import socket
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attempts import fails
from support import (
    UNIX_TYPES,
    Pair,
    content,
    installed,
    is_open,
    open_fds,
    open_files,
    run_python,
)

import cmsgx

MSG_CMSG_CLOEXEC = 0x40000000
SO_PASSCRED, SO_PASSPIDFD = 16, 76
SCM_RIGHTS = socket.SCM_RIGHTS


@pytest.fixture(params=UNIX_TYPES, ids=lambda kind: kind.name)
def plain(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A pair of the standard library's sockets."""
    pair = socket.socketpair(socket.AF_UNIX, request.param)
    yield pair
    for sock in pair:
        sock.close()


# Which socket -----------------------------------------------------------------------------------


class Overriding(socket.socket):
    """Has all of them of its own, and counts."""

    calls = 0

    def sendmsg(self, *args: Any) -> int:
        self.calls += 1
        return super().sendmsg(*args)

    def recvmsg(self, *args: Any) -> Any:
        self.calls += 1
        return super().recvmsg(*args)

    def recvmsg_into(self, *args: Any) -> Any:
        self.calls += 1
        return super().recvmsg_into(*args)


class Plain(socket.socket):
    """Overrides none of them."""


class OnlySends(socket.socket):
    def sendmsg(self, *args: Any) -> int:
        raise ZeroDivisionError


class Numbered:
    """Only has a fileno()."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    def fileno(self) -> int:
        return self.sock.fileno()


class Wrapper:
    """Passes on whatever it is asked, as wrapt's ObjectProxy does."""

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
    """Those that there is room for on the stack, and more."""
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
    """SSLSocket's own methods refuse, and so do the calls."""
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
def test_what_is_no_socket(sock: Any, error: type[Exception]) -> None:
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
def test_a_number_that_is_no_socket_is_not_of_another_family(call: Callable[[int], int]) -> None:
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


# Addresses --------------------------------------------------------------------------------------


def unix_names(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    path = str(folder / "socket")
    yield "path", path, path
    yield "bytes", os.fsencode(path), path
    yield "bytearray", bytearray(os.fsencode(path)), path
    yield "memoryview", memoryview(os.fsencode(path)), path
    yield "abstract", b"\0cmsgx-test-drop-in", b"\0cmsgx-test-drop-in"
    yield "abstract str", "\0cmsgx-test-drop-in", b"\0cmsgx-test-drop-in"
    yield "abstract with a NUL", b"\0cmsgx\0test", b"\0cmsgx\0test"
    yield "longest", b"\0" + b"x" * 107, b"\0" + b"x" * 107


def test_unix_addresses(tmp_path: Path) -> None:
    for what, name, expected in unix_names(tmp_path):
        (tmp_path / "socket").unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        ):
            server.bind(bytes(name) if isinstance(name, bytearray | memoryview) else name)
            for sock in (client, client.fileno()):
                cmsgx.sendmsg(sock, [b"x"], [], 0, name)
                assert not cmsgx.recvmsg(server, 1)[3], what
            client.bind(b"\0cmsgx-test-drop-in-client")
            cmsgx.sendmsg(client, [b"x"], [], 0, name)
            for receive in (cmsgx.recvmsg, lambda s, n: cmsgx.recv_fds(s, n, 0)):
                cmsgx.send_fds(client, [b"y"], [], 0, name)
                address = receive(server, 1)[3]
                assert address == b"\0cmsgx-test-drop-in-client"
            assert server.getsockname() == expected


@pytest.mark.parametrize("what", ["unnamed stream", "unnamed dgram"])
def test_unnamed_addresses_are_what_socket_gives(what: str) -> None:
    kind = socket.SOCK_STREAM if what == "unnamed stream" else socket.SOCK_DGRAM
    for pair in (socket.socketpair(socket.AF_UNIX, kind),):
        with pair[0], pair[1]:
            for _ in range(2):
                pair[0].send(b"x")
            assert cmsgx.recvmsg(pair[1], 1)[3] == pair[1].recvmsg(1)[3]


@pytest.mark.parametrize(
    ("family", "host", "more"),
    [
        (socket.AF_INET, "127.0.0.1", ()),
        (socket.AF_INET, "localhost", ()),
        (socket.AF_INET, "", ()),
        (socket.AF_INET, "<broadcast>", ()),
        (socket.AF_INET6, "::1", ()),
        (socket.AF_INET6, "::1", (0,)),
        (socket.AF_INET6, "::1", (0, 0)),
    ],
)
def test_inet_addresses(family: int, host: str, more: tuple[int, ...]) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
        server.bind((loopback, 0))
        client.bind((loopback, 0))
        address = (host, server.getsockname()[1], *more)
        if host == "<broadcast>":
            with pytest.raises(PermissionError):
                cmsgx.sendmsg(client, [b"x"], [], 0, address)
            return
        assert cmsgx.sendmsg(client, [b"x"], [], 0, address) == 1
        assert cmsgx.recvmsg(server, 1)[3] == client.getsockname()
        assert cmsgx.send_fds(client, [b"x"], [], 0, address) == 1
        assert cmsgx.recv_fds(server, 1, 0)[3] == client.getsockname()
        if host == "localhost":
            with pytest.raises(ValueError, match="localhost"):
                cmsgx.sendmsg(client.fileno(), [b"x"], [], 0, address)
            with pytest.raises(ValueError, match="localhost"):
                cmsgx.send_fds(client.fileno(), [b"x"], [], 0, address)


WRONG_ADDRESSES: list[tuple[int, Any]] = [
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, ("127.0.0.1",)),
    (socket.AF_INET, ("127.0.0.1", "80")),
    (socket.AF_INET, ("127.0.0.1", -1)),
    (socket.AF_INET, ("127.0.0.1", 65536)),
    (socket.AF_INET, ("127.0.0.1", 80, 0)),
    (socket.AF_INET, (127, 80)),
    (socket.AF_INET, 3),
    (socket.AF_INET6, ("::1", 80, 2**20)),
    (socket.AF_INET6, ("::1", 80, -1)),
    (socket.AF_INET6, ("::1", 80, 0, 0, 0)),
    (socket.AF_UNIX, 3),
    (socket.AF_UNIX, ("x",)),
    (socket.AF_UNIX, "x" * 200),
    (socket.AF_UNIX, b"\0" + b"x" * 200),
    (socket.AF_UNIX, "em\0bedded"),
    (socket.AF_UNIX, b"em\0bedded"),
]


@pytest.mark.parametrize(("family", "address"), WRONG_ADDRESSES, ids=repr)
def test_a_wrong_address_is_what_socket_makes_of_it(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        with pytest.raises(Exception) as expected:  # noqa: PT011
            sock.sendmsg([b"x"], [], 0, address)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            cmsgx.sendmsg(sock, [b"x"], [], 0, address)
        assert type(caught.value) is type(expected.value)
        assert getattr(caught.value, "errno", None) == getattr(expected.value, "errno", None)


@pytest.mark.parametrize(
    ("family", "address"),
    [item for item in WRONG_ADDRESSES if "em" not in repr(item)],
    ids=repr,
)
@pytest.mark.parametrize(
    "send",
    [
        lambda sock, address: cmsgx.sendmsg(sock.fileno(), [b"x"], [], 0, address),
        lambda sock, address: cmsgx.send_fds(sock.fileno(), [b"x"], [], 0, address),
        lambda sock, address: cmsgx.send(sock.fileno(), b"x", address=address),
        lambda sock, address: cmsgx.send(sock, b"x", address=address, timeout=1),
        lambda sock, address: cmsgx.send(sock, b"x", address=address, fds=[0]),
    ],
)
def test_a_wrong_address_is_no_host_name_without_a_socket(
    family: int, address: Any, send: Callable[[Any, Any], Any]
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        with pytest.raises(Exception) as expected:  # noqa: PT011
            sock.sendmsg([b"x"], [], 0, address)
        with pytest.raises(Exception, match="address") as caught:
            send(sock, address)
        assert type(caught.value) is type(expected.value)
        assert getattr(caught.value, "errno", None) == getattr(expected.value, "errno", None)
        assert "host name" not in str(caught.value)


@pytest.mark.parametrize("scope", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_what_is_wrong_without_a_socket_is_only_the_host_name(scope: int) -> None:
    address = ("name.invalid", 9, 0, scope)
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="host name to resolve"),
    ):
        cmsgx.sendmsg(sock.fileno(), [b"x"], [], 0, address)


def test_a_family_that_c_leaves_to_the_sockets_own_method_and_converts_for_a_number() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        sock.bind((0, 0))
        noop = struct.pack("=IHHII", 16, 1, 5, 1, 0)  # NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK
        assert cmsgx.sendmsg(sock, [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recvmsg(sock, 1000)[3] == (0, 0)
        assert cmsgx.sendmsg(sock, [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recvmsg(sock.fileno(), 1000)[3] == (0, 0)
        assert cmsgx.sendmsg(sock, [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recv_fds(sock, 1000, 0)[3] == (0, 0)
        for what in (sock, sock.fileno()):
            with pytest.raises(OSError, match="Invalid argument"):
                socket.send_fds(sock, [noop], [])
            with pytest.raises(OSError, match="Invalid argument"):
                cmsgx.send_fds(what, [noop], [], 0, (0, 0))
        assert cmsgx.sendmsg(sock.fileno(), [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recvmsg(sock.fileno(), 1000)[3] == (0, 0)


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


# Close-on-exec ----------------------------------------------------------------------------------


def received(answer: Any) -> int:
    """The one descriptor in what a call returned."""
    if isinstance(answer[1][0], int):
        number: int = answer[1][0]
        return number
    return int.from_bytes(answer[1][0][2][:4], sys.byteorder)


RECEIVE_ONE: dict[str, Callable[..., Any]] = {
    "recvmsg": lambda sock, flags=0: cmsgx.recvmsg(sock, 1, 24, flags),
    "recvmsg_into": lambda sock, flags=0: cmsgx.recvmsg_into(sock, [bytearray(1)], 24, flags),
    "recv_fds": lambda sock, flags=0: cmsgx.recv_fds(sock, 1, 1, flags),
    "recv_fds(flags=)": lambda sock, flags=0: cmsgx.recv_fds(sock, 1, 1, flags=flags),
    "method": lambda sock, flags=0: cmsgx.socket.recvmsg(sock, 1, 24, flags),
}


@pytest.mark.parametrize("name", RECEIVE_ONE)
@pytest.mark.parametrize("flags", [0, MSG_CMSG_CLOEXEC])
def test_close_on_exec_is_set_and_shows_only_to_who_asked(
    stream: Pair, name: str, flags: int
) -> None:
    cmsgx.send_fds(stream[0], [b"x"], [0])
    answer = RECEIVE_ONE[name](stream[1], flags)
    number = received(answer)
    assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert answer[2] & MSG_CMSG_CLOEXEC == flags
    os.close(number)


def test_recv_fds_without_close_on_exec(stream: Pair) -> None:
    cmsgx.send_fds(stream[0], [b"x"], [0])
    _, [number], flags, _ = cmsgx.recv_fds(stream[1], 1, 1, cloexec=False)
    assert os.get_inheritable(number)
    assert not flags & MSG_CMSG_CLOEXEC
    os.close(number)
    with pytest.raises(TypeError):
        cmsgx.recv_fds(stream[1], 1, 1, 0, False)  # type: ignore[call-arg]


# recv_fds, send_fds -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 252, 253, 300])
@pytest.mark.parametrize("sent", [0, 1, 2, 3, 253])
@pytest.mark.parametrize("option", [None, SO_PASSCRED, SO_PASSPIDFD])
def test_recv_fds_never_gives_more_than_maxfds(
    stream: Pair, most: int, sent: int, option: int | None
) -> None:
    if option is not None:
        stream[1].setsockopt(socket.SOL_SOCKET, option, 1)
    with open_files(sent) as files:
        cmsgx.send_fds(stream[0], [b"x"], files)
    before = open_fds()
    data, numbers, flags, _ = cmsgx.recv_fds(stream[1], 1, most)
    assert data == b"x"
    assert [content(number) for number in numbers] == [str(i) for i in range(min(sent, most))]
    assert bool(flags & socket.MSG_CTRUNC) == (sent > most)
    for number in numbers:
        os.close(number)
    assert open_fds() == before


class Generous(socket.socket):
    """Asks for more room than it was told to."""

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        return super().recvmsg(bufsize, 2000, flags)


@pytest.mark.parametrize("kind", [Overriding, Generous])
@pytest.mark.parametrize("most", [0, 1, 10])
@pytest.mark.parametrize("sent", [0, 3])
@pytest.mark.parametrize("option", [None, SO_PASSPIDFD])
def test_recv_fds_neither_over_a_type_with_a_recvmsg_of_its_own(
    stream: Pair, kind: type[socket.socket], most: int, sent: int, option: int | None
) -> None:
    if option is not None:
        stream[1].setsockopt(socket.SOL_SOCKET, option, 1)
    with kind(fileno=os.dup(stream[1].fileno())) as sock:
        with open_files(sent) as files:
            cmsgx.send_fds(stream[0], [b"x"], files)
        before = open_fds()
        _, numbers, _, _ = cmsgx.recv_fds(sock, 1, most)
        assert len(numbers) == min(sent, most)
        for number in numbers:
            os.close(number)
        assert open_fds() == before


def test_recv_fds_takes_names_and_flags(stream: Pair) -> None:
    stream[0].send(b"xy")
    peeked = cmsgx.recv_fds(sock=stream[1], bufsize=1, maxfds=0, flags=socket.MSG_PEEK)
    assert peeked[0] == b"x"
    assert stream[1].recv(10) == b"xy"
    with pytest.raises(BlockingIOError):
        cmsgx.recv_fds(stream[1], 1, 0, socket.MSG_DONTWAIT)


class Index:
    """As a number of numpy."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


def test_send_fds_takes_what_array_takes(stream: Pair) -> None:
    with open_files(2) as files:
        for send in (socket.send_fds, cmsgx.send_fds):
            send(stream[0], [b"x"], list(map(Index, files)))  # type: ignore[arg-type]
            numbers = cmsgx.recv_fds(stream[1], 1, 2)[1]
            assert [content(number) for number in numbers] == ["0", "1"]
            for number in numbers:
                os.close(number)
        for wrong, error in ((2**40, OverflowError), (-1, OSError)):
            with pytest.raises(error):
                cmsgx.send_fds(stream[0], [b"x"], [Index(wrong)])  # type: ignore[list-item]


@pytest.mark.parametrize("form", [bytes, bytearray, lambda data: memoryview(data).cast("i")])
@pytest.mark.parametrize("send", [socket.send_fds, cmsgx.send_fds])
def test_send_fds_takes_packed_numbers(
    stream: Pair, form: Callable[[bytes], Any], send: Callable[..., int]
) -> None:
    with open_files(2) as files:
        send(stream[0], [b"x"], form(array.array("i", files).tobytes()))
        numbers = cmsgx.recv_fds(stream[1], 1, 10)[1]
        assert [content(number) for number in numbers] == ["0", "1"]
        for number in numbers:
            os.close(number)


def test_send_fds_honours_flags_and_address() -> None:
    name = b"\0cmsgx-test-send-fds"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        open_files(1) as files,
    ):
        server.bind(name)
        assert cmsgx.send_fds(client, [b"x"], files, 0, name) == 1
        assert cmsgx.send_fds(client, [b"x"], fds=files, flags=0, address=name) == 1
        for _ in range(2):
            _, [number], _, _ = cmsgx.recv_fds(server, 1, 1)
            assert content(number) == "0"
            os.close(number)
        with pytest.raises(BlockingIOError):  # noqa: PT012
            for _ in range(1000):
                cmsgx.send_fds(client, [b"x"], [], socket.MSG_DONTWAIT, name)
        with pytest.raises(OSError, match="not connected") as caught:
            cmsgx.send_fds(client, [b"x"], files)
        assert caught.value.errno in (107, 89)


def test_send_fds_takes_what_has_a_number(stream: Pair) -> None:
    with (
        open_files(1) as files,
        cmsgx.Fd(os.dup(files[0])) as fd,
        open(os.dup(files[0]), "rb") as file,
    ):
        cmsgx.send_fds(stream[0], [b"x"], (one for one in (files[0], fd, file)))
        cmsgx.sendmsg(stream[0], [b"x"], [cmsgx.Rights([files[0], fd, file])])
        for _ in range(2):
            numbers = cmsgx.recv_fds(stream[1], 1, 10)[1]
            assert [content(number) for number in numbers] == ["0"] * 3
            for number in numbers:
                os.close(number)


def test_too_many_are_the_kernels_einval(stream: Pair) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: cmsgx.send_fds(stream[0], [b"x"], [0] * 254),
        lambda: cmsgx.sendmsg(stream[0], [b"x"], [cmsgx.Rights([0] * 254)]),
        lambda: cmsgx.sendmsg(stream[0], [b"x"], [(1, SCM_RIGHTS, array.array("i", [0] * 254))]),
    )
    for call in calls:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            call()
        assert caught.value.errno == 22


def test_ancdata_may_be_raw_typed_or_both(stream: Pair) -> None:
    stream[1].setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    with open_files(2) as files:
        raw = (socket.SOL_SOCKET, SCM_RIGHTS, array.array("i", files[:1]))
        both: list[Any] = [raw, cmsgx.Credentials(), cmsgx.Rights(files[1:])]
        cmsgx.sendmsg(stream[0], [b"x"], iter(both))
        with cmsgx.receive(stream[1], 1, fds=2) as msg:
            assert [content(fd) for fd in msg.fds] == ["0", "1"]
            assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        with Overriding(fileno=os.dup(stream[0].fileno())) as sock:
            cmsgx.sendmsg(sock, [b"x"], [raw, cmsgx.Credentials()])
            assert sock.calls == 1
        with cmsgx.receive(stream[1], 1, fds=2) as msg:
            assert [content(fd) for fd in msg.fds] == ["0"]


def test_typed_ancdata_of_any_iterable_over_a_type_with_a_sendmsg_of_its_own(
    stream: Pair,
) -> None:
    with Overriding(fileno=os.dup(stream[0].fileno())) as sock, open_files(1) as files:
        cmsgx.sendmsg(sock, [b"x"], (one for one in [cmsgx.Rights(files)]))
    with cmsgx.receive(stream[1], 1, fds=2) as msg:
        assert len(msg.fds) == 1


def test_they_never_raise_for_truncation(stream: Pair) -> None:
    with open_files(3) as files:
        cmsgx.send_fds(stream[0], [b"x"], files)
    _, ancdata, flags, _ = cmsgx.recvmsg(stream[1], 1)
    assert (ancdata, flags & socket.MSG_CTRUNC) == ([], socket.MSG_CTRUNC)


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


# cmsgx.socket -----------------------------------------------------------------------------------


def test_the_class_has_them_as_methods(stream: Pair) -> None:
    first, second = stream
    assert issubclass(cmsgx.socket, socket.socket)
    with open_files(1) as files:
        assert first.sendmsg([b"x"], [cmsgx.Rights(files)]) == 1
        number = received(second.recvmsg(1, 100))
        assert not os.get_inheritable(number)
        os.close(number)
        assert first.send_fds([b"x"], files) == 1
        _, [number], _, _ = second.recv_fds(1, 1)
        assert content(number) == "0"
        os.close(number)
    first.sendmsg([b"y"])
    assert second.recvmsg_into([bytearray(1)])[0] == 1


@pytest.mark.parametrize("default", [None, 5.0])
@pytest.mark.parametrize("own", [None, 0.5, 0.0])
def test_accept_gives_one_too_as_sockets_does(own: float | None, default: float | None) -> None:
    class Derived(cmsgx.socket):
        pass

    class Named(cmsgx.socket):
        def __init__(self, family: int) -> None:
            super().__init__(family)

    answers = []
    for kind in (socket.socket, cmsgx.socket, Derived, Named):
        with kind(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(b"\0cmsgx-test-accept")
            listener.listen()
            client.connect(b"\0cmsgx-test-accept")
            listener.settimeout(own)
            socket.setdefaulttimeout(default)
            try:
                accepted, address = listener.accept()
            finally:
                socket.setdefaulttimeout(None)
            with accepted:
                assert type(accepted) is (socket.socket if kind is socket.socket else cmsgx.socket)
                assert not os.get_inheritable(accepted.fileno())
                answers.append(
                    (
                        address,
                        accepted.family,
                        accepted.type,
                        accepted.gettimeout(),
                        os.get_blocking(accepted.fileno()),
                    )
                )
    assert all(answer == answers[0] for answer in answers)


def test_socketpair_and_fromfd_and_dup() -> None:
    for arguments in ((), (socket.AF_UNIX,), (socket.AF_UNIX, socket.SOCK_DGRAM)):
        first, second = cmsgx.socketpair(*arguments)
        with first, second, cmsgx.fromfd(first.fileno(), first.family, first.type) as third:
            assert {type(sock) for sock in (first, second, third)} == {cmsgx.socket}
            assert third.fileno() != first.fileno()
            third.send(b"x")
            assert second.recv(1) == b"x"
            assert (first.family, first.type) == (second.family, second.type)
            with first.dup() as fourth:
                assert type(fourth) is cmsgx.socket
    with pytest.raises(OSError):  # noqa: PT011
        cmsgx.fromfd(1_000_000, socket.AF_UNIX, socket.SOCK_STREAM)
    with pytest.raises(OSError):  # noqa: PT011
        cmsgx.socketpair(socket.AF_INET)


# install() --------------------------------------------------------------------------------------

PATCHED = ("sendmsg", "recvmsg", "recvmsg_into")
FUNCTIONS = ("send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE")


def patched() -> tuple[list[Any], list[Any]]:
    return (
        [vars(socket.socket).get(name) for name in PATCHED],
        [getattr(socket, name) for name in FUNCTIONS],
    )


def test_install_and_uninstall() -> None:
    before = patched()
    cmsgx.uninstall()
    assert patched() == before
    with installed():
        now = patched()
        assert all(a is not b for a, b in zip(before[0] + before[1], now[0] + now[1], strict=True))
        cmsgx.install()
        assert patched() == now
        for function in (socket.send_fds, socket.recv_fds):
            assert function.__qualname__ == function.__name__
        first, second = socket.socketpair()
        with first, second, open_files(1) as files:
            socket.send_fds(first, [b"x"], files)
            _, [number], flags, _ = socket.recv_fds(second, 1, 1)
            assert content(number) == "0"
            assert not os.get_inheritable(number)
            assert not flags & MSG_CMSG_CLOEXEC
            os.close(number)
            first.sendmsg([b"x"], [(1, 1, array.array("i", files))])
            number = received(second.recvmsg(1, 24))
            assert not os.get_inheritable(number)
            os.close(number)
            assert [method.calls for method in now[0]] == [1, 1, 0]
    assert patched() == before
    cmsgx.uninstall()
    assert patched() == before


def test_install_that_keeps_what_is_inheritable() -> None:
    with installed(cloexec=False):
        kept = patched()
        cmsgx.install(cloexec=False)
        assert patched() == kept
        first, second = socket.socketpair()
        with first, second, open_files(1) as files:
            ways: tuple[Callable[[], int], ...] = (
                lambda: received(second.recvmsg(1, 24)),
                lambda: received(second.recvmsg_into([bytearray(1)], 24)),
                lambda: received(socket.recv_fds(second, 1, 1)),
            )
            for receive in ways:
                socket.send_fds(first, [b"x"], files)
                number = receive()
                assert os.get_inheritable(number)
                os.close(number)
            cmsgx.install()
            socket.send_fds(first, [b"x"], files)
            number = received(second.recvmsg(1, 24))
            assert not os.get_inheritable(number)
            os.close(number)


def test_under_install_the_flags_and_address_are_ignored_as_in_socket() -> None:
    first, second = socket.socketpair()
    with first, second, installed(), open_files(1) as files:
        assert socket.send_fds(first, [b"x"], files, socket.MSG_OOB, b"\0nobody") == 1
        _, [number], _, _ = socket.recv_fds(second, 1, 1, socket.MSG_PEEK)
        assert content(number) == "0"
        os.close(number)
        with pytest.raises(BlockingIOError):
            second.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("name", PATCHED)
@pytest.mark.parametrize("when", ["before", "after"])
def test_install_refuses_where_another_patch_stands(
    monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    clean = patched()

    def other(self: socket.socket, *args: Any) -> None:
        """Somebody else's."""

    if when == "before":
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, name, other)
            standing = patched()
            with pytest.raises(RuntimeError, match=rf"socket\.{name} was patched"):
                cmsgx.install()
            assert patched() == standing
    else:
        with installed(), monkeypatch.context() as patch:
            patch.setattr(socket.socket, name, other)
            standing = patched()
            for call in (cmsgx.install, cmsgx.uninstall):
                with pytest.raises(RuntimeError, match=rf"socket\.{name} was patched"):
                    call()
                assert patched() == standing
    if when == "before":  # monkeypatch leaves an attribute where there was none
        for attribute in PATCHED:
            if attribute in vars(socket.socket):
                delattr(socket.socket, attribute)
    assert patched() == clean


@pytest.mark.parametrize("name", FUNCTIONS)
def test_install_refuses_where_a_function_was_patched(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clean = patched()
    with monkeypatch.context() as patch:
        patch.setattr(socket, name, lambda *args: None)
        with pytest.raises(RuntimeError, match=rf"socket\.{name} was patched"):
            cmsgx.install()
    assert patched() == clean


def test_install_reaches_programs_that_cannot_be_edited() -> None:
    code = """
import cmsgx
cmsgx.install()
import multiprocessing, os, socket
from multiprocessing import reduction
a, b = socket.socketpair()
b.send(b"A")  # the acknowledgement, in advance: from 3.14 on sendfds() waits for it
reduction.sendfds(a, [0])
[fd] = reduction.recvfds(b, 1)
print(os.get_inheritable(fd))
"""
    assert (
        run_python("import warnings; warnings.simplefilter('ignore')\n" + code).strip() == "False"
    )


def test_a_raw_socket_of_the_c_module_is_not_reached_but_served() -> None:
    import _socket

    first, second = socket.socketpair()
    with first, closing(_socket.socket(fileno=second.detach())) as raw, installed():
        first.send(b"x")
        assert cmsgx.recvmsg(raw, 1)[0] == b"x"
        first.send(b"y")
        assert cmsgx.receive(raw, 1).data == b"y"


def test_method_descriptors_bind() -> None:
    assert cmsgx.socket.recvmsg is vars(cmsgx.socket)["recvmsg"]
    first, second = cmsgx.socketpair()
    with first, second:
        bound = second.recvmsg
        assert bound.__self__ is second  # type: ignore[attr-defined]
        first.send(b"x")
        assert bound(1)[0] == b"x"
        assert cmsgx.socket.recvmsg.__name__ == "recvmsg"
        assert "recvmsg" in repr(cmsgx.socket.recvmsg)


def test_nothing_stays_open_after_a_failed_result(stream: Pair) -> None:
    with open_files(2) as files:
        cmsgx.send_fds(stream[0], [b"x"], files)
    before = open_fds()
    with pytest.raises((OverflowError, ValueError)):
        cmsgx.recv_fds(stream[1], 1, -1)
    with pytest.raises(ValueError, match="negative"):
        cmsgx.recv_fds(stream[1], -1, 1)
    assert open_fds() == before
    assert not is_open(1_000_000)
    assert stream[1].recv(1) == b"x"


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
