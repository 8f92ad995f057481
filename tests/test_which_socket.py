"""Which socket a call uses: overridden methods, and objects that are not sockets."""

from __future__ import annotations

import _socket
import asyncio.trsock
import errno
import functools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from attempts import fails
from overriding import METHODS, patched
from support import Pair, abstract_name, installed, open_files, run_python

import cmsgx

RAW = _socket.socket
needs_passcred = pytest.mark.skipif(
    not hasattr(socket, "SO_PASSCRED"), reason="this system has no SO_PASSCRED"
)


@contextmanager
def pair_of(cls: Any) -> Iterator[tuple[Any, Any]]:
    """Two connected streams, objects of this class."""
    first, second = socket.socketpair()
    with (
        first,
        second,
        cls(fileno=os.dup(first.fileno())) as a,
        cls(fileno=os.dup(second.fileno())) as b,
    ):
        yield a, b


# Methods do the work themselves -----------------------------------------------------------------


def overriding(base: type, how: str, calls: list[str]) -> Any:
    """A class that counts calls, and calls the base method in one of these ways."""

    def method(name: str) -> Any:
        def counted(self: Any, *args: Any) -> Any:
            calls.append(name)
            below = (
                getattr(super(cls, self), name)
                if how == "super"
                else functools.partial(getattr(base, name), self)
            )
            return below(*args)

        return counted

    cls = type("Counted", (base,), {name: method(name) for name in METHODS})
    return cls


def use(cls: Any, calls: list[str]) -> None:
    with pair_of(cls) as (first, second):
        assert first.sendmsg([b"hello"]) == 5
        assert second.recvmsg(10)[0] == b"hello"
        assert first.sendmsg([b"hello"], [], 0) == 5
        assert second.recvmsg_into([bytearray(10)])[0] == 5
    assert calls == ["sendmsg", "recvmsg", "sendmsg", "recvmsg_into"]


@pytest.mark.parametrize("how", ["super", "name of the base"])
@pytest.mark.parametrize("base", [cmsgx.socket, socket.socket], ids=["cmsgx.socket", "install()"])
def test_an_override_reaches_the_method_below(base: type, how: str) -> None:
    calls: list[str] = []
    cls = overriding(base, how, calls)  # before install(), which it then finds in the base class
    with installed():
        use(cls, calls)


@pytest.mark.parametrize("cls", [socket.socket, cmsgx.socket])
def test_a_tracer_over_the_methods_keeps_what_does_the_work(cls: Any) -> None:
    calls: list[str] = []

    def traced(name: str) -> Any:
        kept = getattr(cls, name)

        def call(self: Any, *args: Any) -> Any:
            calls.append(name)
            return kept(self, *args)

        return call

    with installed(), patched(cls, **{name: traced(name) for name in METHODS}):
        use(cls, calls)


def test_methods_that_pass_descriptors_do_not_call_back() -> None:
    calls: list[str] = []
    cls = overriding(cmsgx.socket, "super", calls)
    with pair_of(cls) as (first, second), open_files(1) as files:
        first.send_fds([b"x"], files)
        _, [number], _, _ = second.recv_fds(1, 1)
        os.close(number)
        assert calls == []
        cmsgx.send_fds(first, [b"x"], files)  # the functions do
        _, [number], _, _ = cmsgx.recv_fds(second, 1, 1)
        os.close(number)
    assert calls == ["sendmsg", "recvmsg"]


@pytest.mark.parametrize("name", ["recv_fds", "recvmsg", "recvmsg_into"])
def test_nor_do_those_of_a_family_that_c_does_not_know(name: str) -> None:
    """There the method of the C class is called, below all others."""
    if not hasattr(socket, "AF_NETLINK"):
        pytest.skip("this system has no AF_NETLINK")
    calls: list[str] = []
    with overriding(cmsgx.socket, "super", calls)(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        sock.setblocking(False)
        arguments: dict[str, tuple[Any, ...]] = {
            "recv_fds": (1, 1), "recvmsg": (1,), "recvmsg_into": ([bytearray(1)],),
        }  # fmt: skip
        with pytest.raises(BlockingIOError):
            getattr(cmsgx.socket, name)(sock, *arguments[name])
    assert calls == []


@pytest.mark.parametrize("name", [*METHODS, "send_fds", "recv_fds"])
def test_a_method_takes_sockets_only(name: str) -> None:
    method = getattr(cmsgx.socket, name)
    for wrong in (3, None, cmsgx.Fd(os.dup(0)), asyncio.trsock.TransportSocket):
        with pytest.raises(TypeError, match=f"{name}' of sockets doesn't apply to a"):
            method(wrong, 1, 1)
        if isinstance(wrong, cmsgx.Fd):
            wrong.close()
    with pytest.raises(TypeError, match="needs a socket"):
        method()


def test_a_method_without_keywords_refuses_them(stream: Pair) -> None:
    for name in METHODS:
        with pytest.raises(TypeError, match=rf"{name}\(\) takes no keyword arguments"):
            getattr(stream[0], name)([], flags=0)


# Functions look at the type ---------------------------------------------------------------------

TYPED: dict[str, Callable[[Any], object]] = {
    "send": lambda sock: cmsgx.send(sock, b"x"),
    "send_all": lambda sock: cmsgx.send_all(sock, b"x"),
    "send_batch": lambda sock: cmsgx.send_batch(sock, [b"x"]),
    "receive": lambda sock: cmsgx.receive(sock, 1),
    "Receiver": lambda sock: cmsgx.Receiver(sock, 1),
    "BatchReceiver": lambda sock: cmsgx.BatchReceiver(sock, 1, 1),
}
SENDING = ("send", "send_all", "send_batch")


@pytest.mark.parametrize("call", TYPED)
@pytest.mark.parametrize(
    "overridden", ["send", "sendmsg", "recv", "recvmsg", "recvmsg_into", "sendto"]
)
@pytest.mark.parametrize("base", [cmsgx.socket, socket.socket])
def test_typed_calls_refuse_what_they_would_bypass(base: Any, overridden: str, call: str) -> None:
    cls = type("Secret", (base,), {overridden: lambda *args: 1})
    counts = set(SENDING) if overridden in ("send", "sendmsg") else set()
    if overridden in ("recv", "recvmsg"):
        counts = TYPED.keys() - set(SENDING)
    with pair_of(cls) as (sock, peer):
        RAW.send(peer, b"x")
        if call in counts:
            with pytest.raises(TypeError, match=rf"Secret has a {overridden}\(\) of its own"):
                TYPED[call](sock)
            assert RAW.recv(sock, 2, socket.MSG_DONTWAIT) == b"x"  # nothing was taken
        else:
            TYPED[call](sock)


@pytest.mark.parametrize("receiver", [
    lambda sock, **more: cmsgx.Receiver(sock, 1, **more),
    lambda sock, **more: cmsgx.BatchReceiver(sock, 1, 1, **more),
], ids=["Receiver", "BatchReceiver"])  # fmt: skip
def test_a_receiver_is_refused_before_it_sets_an_option(receiver: Any) -> None:
    class Secret(socket.socket):
        def recv(self, *args: Any) -> Any: ...

    with pair_of(Secret) as (sock, _):
        with pytest.raises(TypeError, match=r"Secret has a recv\(\) of its own"):
            receiver(sock, want=[cmsgx.Credentials])
        assert sock.getsockopt(socket.SOL_SOCKET, 16) == 0  # SO_PASSCRED


@pytest.mark.parametrize("name", ["send", "recv"])
def test_a_sender_without_copies_is_refused_before_it_sets_an_option(name: str) -> None:
    cls: Any = type("Secret", (socket.socket,), {name: lambda *args: 1})
    with cls(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(TypeError, match=rf"Secret has a {name}\(\) of its own"):
            cmsgx.ZeroCopySender(sock)
        assert sock.getsockopt(socket.SOL_SOCKET, 60) == 0  # SO_ZEROCOPY


def test_typed_calls_work_below_what_is_on_the_class_itself(stream: Pair) -> None:
    """A tracer's function, or blockbuster's: each socket has it, and no TLS is bypassed."""
    seen: list[str] = []

    def watching(name: str) -> Any:
        kept = getattr(socket.socket, name)

        def watch(self: Any, *args: Any) -> Any:
            seen.append(name)
            return kept(self, *args)

        return watch

    class Below(socket.socket):
        pass

    names = ("send", "recv", *METHODS)
    with patched(socket.socket, **{name: watching(name) for name in names}):
        for cls in (socket.socket, Below, cmsgx.socket):
            with pair_of(cls) as (first, second):
                for name in SENDING:
                    TYPED[name](first)
                assert cmsgx.receive(second, 1).data == b"x"
                assert cmsgx.Receiver(second, 1).receive().data == b"x"
                assert cmsgx.BatchReceiver(second, 1, 1).receive()[0].data == b"x"
        assert seen == []
        with pair_of(Below) as (first, second), open_files(1) as files:
            cmsgx.sendmsg(first, [b"x"])
            cmsgx.send_fds(first, [b"x"], files)
            cmsgx.recvmsg(second, 1)
            os.close(cmsgx.recv_fds(second, 1, 1)[1][0])
        assert seen == ["sendmsg", "sendmsg", "recvmsg", "recvmsg"]
        seen.clear()
        cmsgx.sendmsg(stream[0], [b"x"])  # its method is not the one of socket.socket
        assert seen == []


@needs_passcred
@pytest.mark.parametrize("cloexec", [True, False])
@pytest.mark.parametrize("by", ["an override", "a tracer", "a wrapper"])
def test_recv_fds_has_space_for_what_else_is_switched_on_whoever_receives(
    by: str, cloexec: bool
) -> None:
    """In a buffer for only maxfds, credentials come first, and the kernel drops the descriptors."""

    class Wrapper:
        def __init__(self, sock: socket.socket) -> None:
            self.fileno, self.recvmsg = sock.fileno, sock.recvmsg

    cls: Any = socket.socket
    if by == "an override":
        recvmsg = socket.socket.recvmsg
        cls = type("Below", (socket.socket,), {"recvmsg": lambda *args: recvmsg(*args)})
    with pair_of(cls) as (first, second), ExitStack() as stack:
        if by == "a tracer":
            kept = socket.socket.recvmsg
            stack.enter_context(patched(socket.socket, recvmsg=lambda *args: kept(*args)))
        second.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        sock = Wrapper(second) if by == "a wrapper" else second
        for sent in (1, 3):
            cmsgx.send(first, b"x", fds=[0] * sent)
            data, fds, flags, _ = cmsgx.recv_fds(sock, 1, 1, cloexec=cloexec)
            assert (data, len(fds)) == (b"x", 1)
            assert bool(flags & socket.MSG_CTRUNC) == (sent > 1)
            assert os.get_inheritable(fds[0]) != cloexec
            os.close(fds[0])


@pytest.mark.parametrize("cls", [socket.socket, cmsgx.socket])
def test_typed_calls_work_below_a_tracer_on_either_class(cls: Any) -> None:
    for name in ("send", "sendmsg", "recv", "recvmsg"):
        with patched(cls, **{name: lambda *args: -1}), pair_of(cls) as (first, second):
            assert cmsgx.send(first, b"x") == 1
            assert cmsgx.receive(second, 1).data == b"x"


def test_a_class_that_changes_is_looked_at_again() -> None:
    class Later(socket.socket):
        pass

    with pair_of(Later) as (first, second):
        for _ in range(3):
            cmsgx.send(first, b"x")
            cmsgx.sendmsg(first, [b"x"])
            with patched(Later, sendmsg=lambda *args: -1):
                assert cmsgx.sendmsg(first, [b"x"]) == -1
                with pytest.raises(TypeError, match="of its own"):
                    cmsgx.send(first, b"x")
        assert second.recv(100) == b"x" * 6


def test_more_classes_than_are_cached() -> None:
    plain = [type(f"Plain{i}", (socket.socket,), {}) for i in range(20)]
    other = [type(f"Other{i}", (socket.socket,), {"sendmsg": lambda *args: -1}) for i in range(20)]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(abstract_name("which-socket"))
        for cls in (*plain, *other, *plain, *other):
            with cls(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                result = cmsgx.sendmsg(sock, [b"x"], [], 0, abstract_name("which-socket"))
                assert result == (1 if cls in plain else -1)
                if result == 1:
                    assert receiver.recv(1) == b"x"


# Loops end --------------------------------------------------------------------------------------

LOOPS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "sendmsg": ("sendmsg", lambda sock: cmsgx.sendmsg(sock, [b"x"])),
    "sendmsg of kinds": ("sendmsg", lambda sock: cmsgx.sendmsg(sock, [b"x"], [cmsgx.Rights([0])])),
    "send_fds": ("sendmsg", lambda sock: cmsgx.send_fds(sock, [b"x"], [0])),
    "recvmsg": ("recvmsg", lambda sock: cmsgx.recvmsg(sock, 1)),
    "recvmsg with room": ("recvmsg", lambda sock: cmsgx.recvmsg(sock, 1, 100)),
    "recv_fds": ("recvmsg", lambda sock: cmsgx.recv_fds(sock, 1, 1)),
    "recv_fds, inheritable": ("recvmsg", lambda sock: cmsgx.recv_fds(sock, 1, 1, cloexec=False)),
    "recvmsg_into": ("recvmsg_into", lambda sock: cmsgx.recvmsg_into(sock, [bytearray(1)])),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("base", [socket.socket, object], ids=["below socket.socket", "a wrapper"])
def test_a_method_that_calls_itself_by_a_function_gets_a_note_how_to_end_it(
    base: type, loop: str
) -> None:
    name, call = LOOPS[loop]
    cls: Any = type("Endless", (base,), {name: lambda self, *args: call(self)})
    sock = cls()
    with pytest.raises(RecursionError) as caught:
        call(sock)
    [note] = caught.value.__notes__
    assert f"super().{name}(...)" in note
    assert f"cmsgx.{name}(self, ...)" in note
    if base is not object:
        sock.close()


LOOP_IN_C = """
import functools, socket, sys, threading
import cmsgx
function, arguments = {
    "sendmsg": (cmsgx.sendmsg, ([b"x"],)), "recvmsg": (cmsgx.recvmsg, (1,)),
    "recvmsg_into": (cmsgx.recvmsg_into, ([bytearray(1)],)),
}[sys.argv[1]]
class Endless(socket.socket):
    pass
# No frame of Python between one call and the next: what is called is a partial object.
setattr(Endless, sys.argv[1], property(lambda self: functools.partial(function, self)))
def run():
    with Endless() as sock:
        try:
            function(sock, *arguments)
        except RecursionError as error:
            print(*error.__notes__)
run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
"""


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_without_a_frame_of_python_ends_too(name: str) -> None:
    lines = run_python(LOOP_IN_C, name).splitlines()
    assert len(lines) == 2
    assert all(f"super().{name}" in line for line in lines)


def test_another_error_gets_no_note() -> None:
    class Failing(socket.socket):
        def sendmsg(self, *args: Any) -> int:
            raise ZeroDivisionError

    with Failing() as sock, pytest.raises(ZeroDivisionError) as caught:
        cmsgx.sendmsg(sock, [b"x"])
    assert not hasattr(caught.value, "__notes__")


# Objects of other kinds -------------------------------------------------------------------------


class Numbered:
    """Has a fileno(), and nothing else."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Awaited:
    """Its methods are coroutines, like those of trio's and curio's sockets."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def fileno(self) -> int:
        return self._sock.fileno()

    async def sendmsg(self, *args: Any) -> int:
        return self._sock.sendmsg(*args)

    async def recvmsg(self, *args: Any) -> Any:
        return self._sock.recvmsg(*args)

    async def recvmsg_into(self, *args: Any) -> Any:
        return self._sock.recvmsg_into(*args)


DROP_INS: dict[str, Callable[[Any], object]] = {
    "sendmsg": lambda sock: cmsgx.sendmsg(sock, [b"x"]),
    "send_fds": lambda sock: cmsgx.send_fds(sock, [b"x"], [0]),
    "recvmsg": lambda sock: cmsgx.recvmsg(sock, 1),
    "recvmsg with room": lambda sock: cmsgx.recvmsg(sock, 1, 100),
    "recv_fds": lambda sock: cmsgx.recv_fds(sock, 1, 1),
    "recv_fds, inheritable": lambda sock: cmsgx.recv_fds(sock, 1, 1, cloexec=False),
    "recvmsg_into": lambda sock: cmsgx.recvmsg_into(sock, [bytearray(1)]),
}


@pytest.mark.parametrize("call", [*DROP_INS.values(), *TYPED.values()], ids=[*DROP_INS, *TYPED])
def test_a_socket_of_coroutines_is_refused_by_name(stream: Pair, call: Any) -> None:
    with pytest.raises(TypeError, match=r"test_which_socket\.Awaited.*\.fileno\(\)"):
        call(Awaited(stream[0]))


@pytest.mark.parametrize("call", TYPED.values(), ids=TYPED)
def test_the_socket_of_a_transport_is_refused(stream: Pair, call: Any) -> None:
    transport = asyncio.trsock.TransportSocket(stream[0])
    with pytest.raises(
        TypeError, match=r"a transport reads and writes this socket; pass its fileno\(\)"
    ):
        call(transport)
    cmsgx.send(transport.fileno(), b"x")
    assert stream[1].recv(1) == b"x"


@pytest.mark.parametrize("call", [*DROP_INS.values(), *TYPED.values()], ids=[*DROP_INS, *TYPED])
@pytest.mark.parametrize("number", [-1, -5, -(2**70)])
def test_a_negative_number_is_a_closed_socket(number: int, call: Any) -> None:
    with fails(errno.EBADF):
        call(number)
    if number > -(2**31):
        with fails(errno.EBADF):
            call(Numbered(number))


@pytest.mark.parametrize("call", [*DROP_INS.values(), *TYPED.values()], ids=[*DROP_INS, *TYPED])
@pytest.mark.parametrize("make", [int, type("Number", (int,), {})], ids=["int", "subclass"])
@pytest.mark.parametrize("number", [2**31, 2**70])
def test_a_number_that_is_too_large_is_not_a_descriptor(number: int, make: Any, call: Any) -> None:
    with pytest.raises(ValueError, match=f"sock: {number} is not a file descriptor"):
        call(make(number))


@pytest.mark.parametrize("number", [-1, 2**31, 2**70, -(2**70)])
def test_for_a_subclass_of_int_the_index_is_given_too(stream: Pair, number: int) -> None:
    bad = type("Number", (int,), {})(number)
    with pytest.raises(ValueError, match=rf"fds\[1\]: {number} is not a file descriptor"):
        cmsgx.send(stream[0], b"x", fds=[0, bad])


def test_a_negative_fileno_among_descriptors_is_ebadf_with_its_index(stream: Pair) -> None:
    closed = socket.socket()
    closed.close()
    for bad in (closed, Numbered(-1)):
        for call in (
            functools.partial(cmsgx.send, stream[0], b"x", fds=[0, bad]),
            functools.partial(cmsgx.send, stream[0], b"x", control=cmsgx.Rights([0, bad])),
            functools.partial(cmsgx.send_batch, stream[0], [(b"x", [0, bad])]),
            functools.partial(cmsgx.send_fds, stream[0], [b"x"], [0, bad]),
        ):
            with pytest.raises(OSError, match=r"fds\[1\]") as caught:
                call()
            assert caught.value.errno == errno.EBADF
    with pytest.raises(ValueError, match=r"fds\[1\]: -1"):
        cmsgx.send(stream[0], b"x", fds=[0, -1])


def test_a_fileno_that_raises_says_what_it_raised(stream: Pair) -> None:
    class Broken:
        def fileno(self) -> int:
            raise TypeError("of its own")

    with pytest.raises(TypeError, match="of its own"):
        cmsgx.send(stream[0], b"x", fds=[Broken()])
