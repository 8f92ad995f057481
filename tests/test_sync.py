"""send, send_all, receive, Receiver: one message after the other, blocking or with a timeout."""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import gc
import itertools
import os
import signal
import socket
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from batches import handling, of_handlers, raising
from native import Shim, under_shim
from support import (
    Pair,
    close_pair,
    content,
    open_fds,
    open_files,
    run_python,
    unix_pair,
    until_it_waits,
)

import cmsgx

TIMESTAMPNS = 35  # SO_TIMESTAMPNS: attached to messages of AF_UNIX datagram sockets


@contextmanager
def new_pair(kind: int = socket.SOCK_STREAM) -> Iterator[Pair]:
    sockets = unix_pair(kind)
    try:
        yield sockets
    finally:
        close_pair(sockets)


def fill(sock: socket.socket) -> int:
    """Sends until the buffer is full; how many bytes that took. Of a socket without a timeout:
    poll(2) says long before that there is no room."""
    sent = 0
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(size), socket.MSG_DONTWAIT)
    return sent


@contextmanager
def later(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# Data -------------------------------------------------------------------------------------------

DATA: list[tuple[str, Any, bytes]] = [
    ("bytes", b"abc", b"abc"),
    ("bytearray", bytearray(b"abc"), b"abc"),
    ("memoryview", memoryview(b"xabcx")[1:4], b"abc"),
    ("array", array.array("H", [0x6161, 0x6262]), b"aabb"),
    ("list", [b"a", bytearray(b"b"), memoryview(b"c")], b"abc"),
    ("tuple", (b"a", b"", b"bc"), b"abc"),
    ("generator", None, b"abc"),
    ("many", [b"a"] * 100, b"a" * 100),
]


@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
@pytest.mark.parametrize(("data", "expected"), [row[1:] for row in DATA], ids=[r[0] for r in DATA])
def test_data_is_one_buffer_or_several(
    pair: Pair, call: Callable[..., int | None], data: Any, expected: bytes
) -> None:
    if data is None:
        data = (bytes([byte]) for byte in b"abc")
    sent = call(pair[0], data)
    assert sent == (None if call is cmsgx.send_all else len(expected))
    assert cmsgx.receive(pair[1], 1000).data == expected


@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
@pytest.mark.parametrize("data", ["text", 3, None, [1, 2], ["text"], memoryview(b"abcd")[::2]])
def test_data_that_is_no_buffer(stream: Pair, call: Callable[..., int | None], data: Any) -> None:
    with pytest.raises((TypeError, BufferError)):
        call(stream[0], data)


def test_a_received_view_can_be_sent_on(stream: Pair) -> None:
    cmsgx.send(stream[0], b"there and back")
    with cmsgx.receive(stream[1], 100) as msg:
        assert cmsgx.send(stream[1], msg.view[10:]) == 4
    assert cmsgx.receive(stream[0], 100).data == b"back"


@pytest.mark.parametrize("fds", [0, 1, 253])
def test_descriptors_of_each_sort_arrive_in_order(pair: Pair, fds: int) -> None:
    with open_files(fds) as numbers:
        owners = [cmsgx.Fd(os.dup(number)) for number in numbers]
        mixed: list[Any] = [
            owner if index % 2 else number
            for index, (owner, number) in enumerate(zip(owners, numbers, strict=True))
        ]
        assert cmsgx.send(pair[0], b"x", fds=iter(mixed)) == 1
        with cmsgx.receive(pair[1], 1, fds=fds) as msg:
            assert [content(fd) for fd in msg.fds] == [str(index) for index in range(fds)]
            assert not any(os.get_inheritable(fd.fileno()) for fd in msg.fds)
        assert not any(owner.closed for owner in owners)
        for owner in owners:
            owner.close()


@pytest.mark.parametrize("call", ["send", "send_batch", "sendmsg"])
def test_the_first_descriptor_that_is_not_open_is_named(pair: Pair, call: str) -> None:
    calls: dict[str, Callable[[Any, list[int]], object]] = {
        "send": lambda sock, fds: cmsgx.send(sock, b"x", fds=fds),
        "send_batch": lambda sock, fds: cmsgx.send_batch(sock, [(b"x", fds)]),
        "sendmsg": lambda sock, fds: cmsgx.sendmsg(sock, [b"x"], [cmsgx.Rights(fds)]),
    }
    with open_files(1) as files:
        with pytest.raises(OSError, match=r"fds\[1\]: descriptor 1000000 is not open") as caught:
            calls[call](pair[0], [*files, 1_000_000, *files, 1_000_001])
        assert caught.value.errno == errno.EBADF
        # Not where the socket is what is closed.
        pair[0].close()
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            calls[call](pair[0], [*files, 1_000_000])
        assert caught.value.errno == errno.EBADF
        assert "fds[" not in str(caught.value)


@pytest.mark.parametrize("call", ["send", "send_all", "send_batch", "sendmsg", "send_fds"])
def test_a_buffer_that_is_yielded_and_dropped_is_held(packets: Pair, call: str) -> None:
    """What a generator made would be freed, and filled with what is made next."""
    size, count = 3000, 12
    left, right = packets
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)

    def buffers() -> Iterator[Any]:
        for i in range(count):
            yield bytes([i]) * size if i % 2 else bytearray([i]) * size

    calls: dict[str, Callable[[], object]] = {
        "send": lambda: cmsgx.send(left, buffers()),
        "send_all": lambda: cmsgx.send_all(left, buffers()),
        "send_batch": lambda: cmsgx.send_batch(left, ((buffers(), ()) for _ in range(2))),
        "sendmsg": lambda: cmsgx.sendmsg(left, buffers()),
        "send_fds": lambda: cmsgx.send_fds(left, buffers(), []),
    }
    calls[call]()
    for _ in range(2 if call == "send_batch" else 1):
        assert right.recv(1 << 20) == b"".join(bytes([i]) * size for i in range(count))


@pytest.mark.parametrize("more", [0, 1, 10, 200])
def test_descriptors_are_held_no_longer_than_the_call(pair: Pair, more: int) -> None:
    """Also where those of `control` are so many that the room of the first does not do."""
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with open_files(1) as files, cmsgx.Fd(os.dup(files[0])) as fd:
        before = sys.getrefcount(fd)
        control = [cmsgx.Credentials(), cmsgx.Rights(files * more)]
        cmsgx.send(pair[0], b"x", fds=[fd], control=control)
        assert sys.getrefcount(fd) == before
        with cmsgx.receive(pair[1], 1, fds=253) as msg:
            assert [content(one) for one in msg.fds] == ["0"] * (1 + more)
            assert msg[cmsgx.Credentials] == cmsgx.Credentials()


@pytest.mark.parametrize("with_fds", [True, False])
@pytest.mark.parametrize("by", ["send", "send_batch", "receive", "Receiver", "enable"])
def test_pins_are_given_back(by: str, with_fds: bool) -> None:
    """Of the socket's own Fd and of those that are sent, whatever the call comes to; otherwise
    close() would leave them open for good."""
    before = open_fds()
    left, right = socket.socketpair()
    fd, gone, kept = cmsgx.Fd(left.detach()), cmsgx.share(b"gone"), cmsgx.share(b"kept")

    def closing() -> Iterator[Any]:
        gone.close()
        yield from ()

    fds = [kept, kept, gone] if with_fds else []
    calls: dict[str, Callable[[], object]] = {
        # The descriptor is closed once it has been looked at, and before it is pinned.
        "send": lambda: cmsgx.send(fd, b"x", fds=fds, control=closing()),
        "send_batch": lambda: cmsgx.send_batch(fd, [(b"x", fds, closing())]),
        "receive": lambda: cmsgx.receive(fd, 1, timeout=0),
        "Receiver": lambda: cmsgx.Receiver(fd, 1, want=[cmsgx.Credentials]).receive(timeout=0),
        "enable": lambda: cmsgx.enable(fd, cmsgx.kinds.Ttl),
    }
    with suppress(OSError):
        calls[by]()
    for owner in (fd, gone, kept, right):
        owner.close()
    assert open_fds() == before


def test_fds_come_before_the_rights_of_control(pair: Pair) -> None:
    with open_files(5) as files:
        cmsgx.send(
            pair[0],
            b"x",
            fds=files[:2],
            control=[cmsgx.Rights(files[2:3]), cmsgx.Credentials(), cmsgx.Rights(files[3:])],
        )
        with cmsgx.receive(pair[1], 1, fds=5) as msg:
            assert [content(fd) for fd in msg.fds] == list("01234")
            assert len(msg[cmsgx.Rights]) == 5


def test_one_control_message_needs_no_list(pair: Pair) -> None:
    with open_files(1) as files:
        cmsgx.send(pair[0], b"x", control=cmsgx.Rights(files))
        with cmsgx.receive(pair[1], 1, fds=1) as msg:
            assert content(msg.fds[0]) == "0"


class OfItsOwn(socket.socket):
    """Has a sendmsg() that the drop-ins call."""

    def sendmsg(self, *args: Any) -> int:
        return super().sendmsg(*args)


def by_override(sock: socket.socket, fds: Any) -> None:
    with OfItsOwn(fileno=os.dup(sock.fileno())) as overriding:
        cmsgx.send_fds(overriding, [b"x"], fds)


WITH_FDS: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda s, fds: cmsgx.send(s, b"x", fds=fds),
    "send_all": lambda s, fds: cmsgx.send_all(s, b"x", fds=fds),
    "send_batch": lambda s, fds: cmsgx.send_batch(s, [(b"x", fds)]),
    "Outgoing": lambda s, fds: cmsgx.send_batch(s, [cmsgx.Outgoing(b"x", fds)]),
    "Rights": lambda s, fds: cmsgx.send(s, b"x", control=cmsgx.Rights(fds)),
    "Rights, sendmsg": lambda s, fds: cmsgx.sendmsg(s, [b"x"], [cmsgx.Rights(fds)]),
    "send_fds": lambda s, fds: cmsgx.send_fds(s, [b"x"], fds),
    "send_fds, override": by_override,
}


@pytest.mark.parametrize("by", WITH_FDS)
def test_a_file_is_one_descriptor_and_its_lines_are_not_read(
    stream: Pair, by: str, tmp_path: Any
) -> None:
    path = tmp_path / "two lines"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        WITH_FDS[by](stream[0], file)
        assert file.tell() == 0
        assert next(file) == "one\n"
        with cmsgx.receive(stream[1], 1, fds=2) as msg, msg.take_one().open() as got:
            assert os.path.sameopenfile(got.fileno(), file.fileno())


@pytest.mark.parametrize("by", WITH_FDS)
@pytest.mark.parametrize("sort", ["Fd", "socket"])
def test_what_has_fileno_is_one_descriptor(stream: Pair, by: str, sort: str) -> None:
    with cmsgx.Fd(os.open(os.devnull, os.O_RDONLY)) as fd, socket.socket() as sock:
        WITH_FDS[by](stream[0], fd if sort == "Fd" else sock)
        with cmsgx.receive(stream[1], 1, fds=2) as msg:
            assert msg.fds[0].check(kind="character" if sort == "Fd" else "socket")
            assert len(msg.fds) == 1


class Index:
    def __index__(self) -> int:
        return 3


@pytest.mark.parametrize("by", WITH_FDS)
@pytest.mark.parametrize(
    ("number", "text"),
    [
        (3, r"fds: 3; .* in a list: fds=\[3\]"),
        (True, "fds: True is not a descriptor; .* in a list"),
        (Index(), "fds: <.*; .* in a list"),
        (None, "fds: an iterable of descriptors, or .* is needed, not NoneType"),
        (1.5, "fds: an iterable of descriptors, or .* is needed, not float"),
    ],
    ids=["int", "bool", "index", "None", "float"],
)
def test_a_number_by_itself_is_no_list_of_descriptors(
    stream: Pair, by: str, number: Any, text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        WITH_FDS[by](stream[0], number)
    stream[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        stream[1].recv(1)


TYPED: dict[str, Callable[[socket.socket, Any], object]] = {
    "send": lambda s, fds: cmsgx.send(s, b"x", fds=fds),
    "send_all": lambda s, fds: cmsgx.send_all(s, b"x", fds=fds),
    "send_batch": lambda s, fds: cmsgx.send_batch(s, [cmsgx.Outgoing(b"x", fds)]),
    "Rights": lambda s, fds: cmsgx.send(s, b"x", control=cmsgx.Rights(fds)),
}


def signed_bytes(data: bytes) -> memoryview:
    return memoryview(data).cast("b")


@pytest.mark.parametrize("by", TYPED)
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, signed_bytes])
def test_packed_numbers_are_not_sent_as_one_descriptor_for_each_byte(
    stream: Pair, by: str, form: Callable[[bytes], Any]
) -> None:
    packed = array.array("i", [0]).tobytes()
    with pytest.raises(TypeError, match=r"^fds: .* is needed, not .*\.cast\('i'\)"):
        TYPED[by](stream[0], form(packed))
    for numbers in (array.array("i", [0]), memoryview(packed).cast("i")):
        TYPED[by](stream[0], numbers)
        with cmsgx.receive(stream[1], 1, fds=cmsgx.MAX_FDS) as msg:
            assert len(msg.fds) == 1


class Numbers:
    """Iterable, and says as Python's own protocols have it that it is no descriptor itself."""

    fileno = None

    def __iter__(self) -> Iterator[int]:
        return iter([0])


@pytest.mark.parametrize("by", WITH_FDS)
def test_fileno_that_is_none_is_no_fileno(stream: Pair, by: str) -> None:
    with pytest.raises(TypeError, match=r"^fds\[1\]: .* is needed, not Numbers"):
        WITH_FDS[by](stream[0], [0, Numbers()])
    WITH_FDS[by](stream[0], Numbers())
    with cmsgx.receive(stream[1], 1, fds=2) as msg:
        assert len(msg.fds) == 1
    with pytest.raises(TypeError, match=r"^sock: .* is needed, not Numbers"):
        cmsgx.send(Numbers(), b"x")  # type: ignore[arg-type]


@pytest.mark.parametrize("by", ["send", "send_batch", "send_fds"])
def test_a_file_that_could_not_be_sent_is_not_called_used_up(by: str) -> None:
    with new_pair(socket.SOCK_DGRAM) as (left, _right), open(os.devnull, encoding="ascii") as file:
        fill(left)
        left.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            WITH_FDS[by](left, file)
        assert not [note for note in getattr(caught.value, "__notes__", ()) if "used up" in note]


# What would lose descriptors is refused ---------------------------------------------------------


class Closed:
    def fileno(self) -> int:
        raise ValueError("I/O operation on closed file")


def closed_fd() -> cmsgx.Fd:
    fd = cmsgx.Fd(os.open(os.devnull, os.O_RDONLY))
    fd.close()
    return fd


BAD_DESCRIPTORS: list[tuple[Any, type[Exception]]] = [
    (True, TypeError),
    ("0", TypeError),
    (None, TypeError),
    (0.0, TypeError),
    (object(), TypeError),
    (-1, ValueError),
    (2**31, ValueError),
    (2**70, ValueError),
    (Closed(), ValueError),
    (closed_fd(), OSError),
    (1_000_000, OSError),
]


@pytest.mark.parametrize(("bad", "error"), BAD_DESCRIPTORS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("by", ["fds", "Rights"])
@pytest.mark.parametrize("index", [0, 2])
def test_a_bad_descriptor_is_named_by_its_index(
    stream: Pair, bad: Any, error: type[Exception], by: str, index: int
) -> None:
    with open_files(3) as files:
        fds: list[Any] = [*files[:index], bad, *files[index:]]
        arguments: dict[str, Any] = {"fds": fds} if by == "fds" else {"control": cmsgx.Rights(fds)}
        with pytest.raises(error, match=rf"fds\[{index}\]") as caught:
            cmsgx.send(stream[0], b"x", **arguments)
        if error is OSError:
            assert caught.value.errno == 9  # type: ignore[attr-defined]


def raw_rights(fds: list[int]) -> list[tuple[int, int, Any]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def unknown_rights(fds: list[int]) -> list[Any]:
    return [cmsgx.Unknown(*raw_rights(fds)[0][:2], array.array("i", fds).tobytes())]


# The calls that send typed control messages, with no byte of data.
EMPTY: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda sock, control: cmsgx.send(sock, b"", control=control),
    "send of a list": lambda sock, control: cmsgx.send(sock, [b"", b""], control=control),
    "send of a number": lambda sock, control: cmsgx.send(sock.fileno(), b"", control=control),
    "send_all": lambda sock, control: cmsgx.send_all(sock, b"", control=control),
    "send_batch": lambda sock, control: cmsgx.send_batch(sock, [(b"", (), control)]),
    "sendmsg": lambda sock, control: cmsgx.sendmsg(sock, [], control),
    "sendmsg, the method": lambda sock, control: sock.sendmsg([b""], control),
}


@contextmanager
def tcp_pair() -> Iterator[tuple[cmsgx.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = cmsgx.socket()
        near.connect(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


@pytest.mark.parametrize("by", EMPTY)
@pytest.mark.parametrize(
    "kind",
    [cmsgx.Credentials(), cmsgx.Rights([0]), cmsgx.Unknown(1, 2, cmsgx.Credentials().pack())],
)
def test_what_a_stream_would_drop_with_no_byte_is_refused(stream: Pair, by: str, kind: Any) -> None:
    with pytest.raises(ValueError, match="at least one byte on a stream"):
        EMPTY[by](stream[0], [kind])
    assert EMPTY[by](stream[0], []) in (0, 1, None)


@pytest.mark.parametrize("by", EMPTY)
def test_what_tcp_would_drop_with_no_byte_is_refused(by: str) -> None:
    with tcp_pair() as (left, _):
        with pytest.raises(ValueError, match="at least one byte on a stream"):
            EMPTY[by](left, [cmsgx.Unknown(socket.SOL_TCP, 99, bytes(4))])
        # What may be the message itself is the kernel's affair: this is the type of a TLS record.
        with suppress(OSError):
            EMPTY[by](left, [cmsgx.Unknown(282, 1, b"\x15")])


@pytest.mark.parametrize("by", EMPTY)
@pytest.mark.parametrize("sort", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_an_empty_datagram_carries_control_messages(by: str, sort: int) -> None:
    with new_pair(sort) as (left, right):
        EMPTY[by](left, [cmsgx.Rights([0])])
        with cmsgx.receive(right, 1, fds=1) as msg:
            assert (msg.data, len(msg.fds)) == (b"", 1)


@pytest.mark.parametrize("by", ["sendmsg", "sendmsg, the method"])
def test_raw_control_data_goes_as_with_socket(stream: Pair, by: str) -> None:
    assert EMPTY[by](stream[0], raw_rights([0])) == 0


@pytest.mark.parametrize("make", [raw_rights, unknown_rights])
def test_raw_rights_are_looked_at_as_fds_are(
    stream: Pair, make: Callable[[list[int]], Any]
) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        cmsgx.send(stream[0], b"", control=make([0]))
    with pytest.raises(cmsgx.TooManyFdsError, match="254"):
        cmsgx.send(stream[0], b"x", fds=[0], control=make([0] * 253))
    with pytest.raises(OSError, match=r"fds\[1\]: descriptor 1000000 is not open"):
        cmsgx.send(stream[0], b"x", fds=[0], control=make([1_000_000]))
    with pytest.raises(ValueError, match="multiple"):
        cmsgx.send(stream[0], b"x", control=[(1, 1, b"123")])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inet,
        pytest.raises(cmsgx.NotSupportedError, match="AF_UNIX"),
    ):
        cmsgx.send(inet, b"x", control=make([0]), address=("127.0.0.1", 9))
    with open_files(3) as files:
        cmsgx.send(stream[0], b"x", fds=files[:1], control=make(files[1:]))
        with cmsgx.receive(stream[1], 1, fds=3) as msg:
            assert [content(fd) for fd in msg.fds] == list("012")


def test_too_many_descriptors(pair: Pair) -> None:
    with pytest.raises(cmsgx.TooManyFdsError, match=r"254 descriptors.* 253"):
        cmsgx.send(pair[0], b"x", fds=[0] * 254)
    with pytest.raises(cmsgx.TooManyFdsError, match=r"254 descriptors.* 253"):
        cmsgx.send(pair[0], b"x", fds=[0] * 200, control=cmsgx.Rights([0] * 54))
    with pytest.raises(cmsgx.TooManyFdsError, match="253"):
        cmsgx.receive(pair[1], 1, fds=254)
    with pytest.raises(cmsgx.TooManyFdsError, match="253"):
        cmsgx.Receiver(pair[1], 1, fds=254)
    with pytest.raises(ValueError, match="fds"):
        cmsgx.receive(pair[1], 1, fds=-1)


@pytest.mark.parametrize("wrong", [cmsgx.PidFd, cmsgx.Credentials, 3, b"x", "x", [3], [None]])
def test_control_that_is_none(stream: Pair, wrong: Any) -> None:
    with pytest.raises(TypeError, match="control"):
        cmsgx.send(stream[0], b"x", control=wrong)


# send_all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["one buffer", "many buffers"])
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_send_all_sends_all(stream: Pair, shape: str, timeout: float | None) -> None:
    """Without a timeout the kernel does all of it in one call, with one it takes parts."""
    stream[0].settimeout(timeout)
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    payload = os.urandom(300_000)
    data: Any = payload
    if shape == "many buffers":
        data = [payload[at : at + 3_333] for at in range(0, len(payload), 3_333)]
    with open_files(2) as files:
        thread = threading.Thread(
            target=cmsgx.send_all, args=(stream[0], data), kwargs={"fds": files}
        )
        thread.start()
        got, fds = b"", 0
        while len(got) < len(payload):
            with cmsgx.receive(stream[1], 50_000, fds=10) as msg:
                got += msg.data
                fds += len(msg.fds)
        thread.join()
    assert got == payload
    assert fds == 2


def test_send_all_takes_more_buffers_than_one_call(stream: Pair) -> None:
    cmsgx.send_all(stream[0], [b"a"] * 3000)
    got = b""
    while len(got) < 3000:
        got += cmsgx.receive(stream[1], 4000, timeout=60).data
    assert got == b"a" * 3000


@pytest.mark.parametrize("data", [b"", [], [b"", b""]], ids=repr)
def test_send_all_of_nothing(stream: Pair, data: Any) -> None:
    cmsgx.send_all(stream[0], data)
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[1], 1, timeout=0)


@pytest.mark.parametrize(
    ("own", "arguments", "error"),
    [
        (None, {"timeout": 0.2}, TimeoutError),
        (0.2, {}, TimeoutError),
        (3600, {"timeout": 0.2}, TimeoutError),
        (0, {}, BlockingIOError),
        (None, {"timeout": 0}, BlockingIOError),
    ],
    ids=str,
)
def test_send_all_that_fails_says_how_much_went(
    stream: Pair, own: float | None, arguments: dict[str, Any], error: type[OSError]
) -> None:
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream[0].settimeout(own)
    payload = os.urandom(1_000_000)
    start = time.monotonic()
    with open_files(1) as files, pytest.raises(error) as caught:
        cmsgx.send_all(stream[0], payload, fds=files, **arguments)
    elapsed = time.monotonic() - start
    assert error is BlockingIOError or elapsed >= 0.2
    sent = caught.value.sent  # type: ignore[attr-defined]
    assert 0 < sent < len(payload)
    got, fds = b"", 0
    while len(got) < sent:
        with cmsgx.receive(stream[1], 100_000, fds=5) as msg:
            got += msg.data
            fds += len(msg.fds)
    assert got == payload[:sent]
    assert fds == 1
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[1], 1, timeout=0)


def test_send_all_has_one_deadline_for_all_of_it(stream: Pair) -> None:
    """A peer that takes a little now and then does not make it longer."""
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            with suppress(BlockingIOError):
                stream[1].recv(4000, socket.MSG_DONTWAIT)

    thread = threading.Thread(target=trickle)
    thread.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        cmsgx.send_all(stream[0], bytes(10_000_000), timeout=0.4)
    elapsed = time.monotonic() - start
    stop.set()
    thread.join()
    assert elapsed >= 0.4
    assert caught.value.sent > 0  # type: ignore[attr-defined]


def test_send_all_waits_for_what_is_left_of_its_time(
    stream: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call for less than the one before."""
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(200_000)
    timeouts: list[float] = []
    sync: Any = cmsgx._sync
    call = sync.send_counted

    def send_counted(*arguments: Any, timeout: float, **more: Any) -> Any:
        timeouts.append(timeout)
        return call(*arguments, timeout=timeout, **more)

    monkeypatch.setattr(sync, "send_counted", send_counted)
    thread = threading.Thread(target=cmsgx.send_all, args=(stream[0], data), kwargs={"timeout": 60})
    thread.start()
    assert len(stream[1].recv(len(data), socket.MSG_WAITALL)) == len(data)
    thread.join()
    assert len(timeouts) > 1
    assert all(next < last for last, next in itertools.pairwise(timeouts))


def interrupted_behind(zero_copy: bool, which: int) -> None:
    """A handler raises right behind a system call that sent."""
    error: Any = of_handlers()[which]
    shim = Shim()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as left:
        left.connect(listener.getsockname())
        with listener.accept()[0] as right, handling(raising(error)):
            left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
            right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
            left.settimeout(60)
            sender = cmsgx.ZeroCopySender(left) if zero_copy else None
            send_all = partial(cmsgx.send_all, left) if sender is None else sender.send_all
            shim.delay_send(200)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            # Less than RLIMIT_MEMLOCK, over which nothing is sent without a copy.
            with pytest.raises(type(error)) as caught:
                send_all([bytes(10), bytes(1_000_000)])
            shim.delay_send(0)
            assert caught.value is error
            if sender is not None:
                assert 0 < error.sent == sender.pending.bytes
                sender.release()
            left.shutdown(socket.SHUT_WR)
            arrived = 0
            while more := right.recv(1 << 16):
                arrived += len(more)
            assert 0 < error.sent == arrived < 1_000_000
    print("done")


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("which", range(len(of_handlers())))
@pytest.mark.slow
def test_send_all_counts_what_went_before_a_handler_raised(zero_copy: bool, which: int) -> None:
    code = f"import test_sync as here; here.interrupted_behind({zero_copy}, {which})"
    assert run_python(code, env=under_shim()).strip() == "done"


def test_send_all_that_sent_nothing_says_so(stream: Pair) -> None:
    fill(stream[0])
    with open_files(1) as files, pytest.raises(TimeoutError) as caught:
        cmsgx.send_all(stream[0], b"x", fds=files, timeout=0.05)
    assert caught.value.sent == 0  # type: ignore[attr-defined]


def test_send_all_with_a_number_never_waits(stream: Pair) -> None:
    stream[0].setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        cmsgx.send_all(stream[0].fileno(), bytes(10_000_000))
    assert caught.value.sent > 0  # type: ignore[attr-defined]


def test_send_all_waits_without_end_where_timeout_is_none(stream: Pair) -> None:
    stream[0].settimeout(0.05)
    received: list[bytes] = []

    def read_slowly() -> None:
        time.sleep(0.3)
        with suppress(OSError):
            while sum(map(len, received)) < 1_000_000:
                received.append(stream[1].recv(100_000) or bytes(1_000_000))

    thread = threading.Thread(target=read_slowly)
    thread.start()
    try:
        cmsgx.send_all(stream[0], bytes(1_000_000), timeout=None)
    finally:
        stream[0].close()
        thread.join()


# Timeouts ---------------------------------------------------------------------------------------


def receives(sock: Any, **arguments: Any) -> bytes:
    return cmsgx.receive(sock, 10, **arguments).data


def receives_by_receiver(sock: Any, **arguments: Any) -> bytes:
    return cmsgx.Receiver(sock, 10).receive(**arguments).data


RECEIVES = pytest.mark.parametrize(
    "receive", [receives, receives_by_receiver], ids=["receive", "Receiver"]
)


@RECEIVES
@pytest.mark.parametrize(
    ("own", "arguments", "error", "waits"),
    [
        (0, {}, BlockingIOError, 0.0),
        (0.1, {}, TimeoutError, 0.1),
        (0.1, {"timeout": ...}, TimeoutError, 0.1),
        (None, {"timeout": 0}, BlockingIOError, 0.0),
        (None, {"timeout": 0.05}, TimeoutError, 0.05),
        (None, {"timeout": 1e-9}, TimeoutError, 0.0),
        (3600, {"timeout": 0}, BlockingIOError, 0.0),
        (3600, {"timeout": 0.05}, TimeoutError, 0.05),
        (0, {"timeout": 0.05}, TimeoutError, 0.05),
    ],
    ids=str,
)
def test_timeout_is_the_sockets_own_or_the_one_given(
    pair: Pair,
    receive: Callable[..., bytes],
    own: float | None,
    arguments: dict[str, Any],
    error: type[Exception],
    waits: float,
) -> None:
    pair[1].settimeout(own)
    start = time.monotonic()
    with pytest.raises(error):
        receive(pair[1], **arguments)
    assert time.monotonic() - start >= waits
    pair[0].send(b"data")
    assert receive(pair[1], **arguments) == b"data"


@RECEIVES
@pytest.mark.parametrize("own", [0, 0.05, None])
@pytest.mark.slow
def test_timeout_none_waits_without_end(
    pair: Pair, receive: Callable[..., bytes], own: float | None
) -> None:
    pair[1].settimeout(own)
    with later(0.3, lambda: pair[0].send(b"late")):
        assert receive(pair[1], timeout=None) == b"late"


@pytest.mark.parametrize("own", [0, 0.05, None])
@pytest.mark.slow
def test_send_with_timeout_none_waits_without_end(stream: Pair, own: float | None) -> None:
    filled = fill(stream[0])
    stream[0].settimeout(own)
    with later(0.3, lambda: stream[1].recv(filled)):
        assert cmsgx.send(stream[0], b"late", timeout=None) == 4


@RECEIVES
@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "1", b"1", []], ids=repr)
def test_timeout_that_is_none(receive: Callable[..., bytes], timeout: Any, stream: Pair) -> None:
    with pytest.raises((ValueError, TypeError)):
        receive(stream[1], timeout=timeout)
    with pytest.raises((ValueError, TypeError)):
        cmsgx.send(stream[0], b"x", timeout=timeout)


@RECEIVES
def test_a_timeout_is_rounded_up(stream: Pair, receive: Callable[..., bytes]) -> None:
    """None at all is another thing: BlockingIOError."""
    for timeout in (1e-9, 1e-10, 5e-324):
        with pytest.raises(TimeoutError):
            receive(stream[1], timeout=timeout)


@RECEIVES
def test_a_timeout_that_never_comes_is_no_overflow(
    stream: Pair, receive: Callable[..., bytes]
) -> None:
    # More than 2**31 seconds do not fit into a time_t of 32 bits, 2**32 would be none there.
    for timeout in (1e9, 3e9, 2**32, 1e300, float("inf"), sys.maxsize):
        with later(0.02, lambda: stream[0].send(b"x")):
            assert receive(stream[1], timeout=timeout) == b"x"


@RECEIVES
def test_a_number_never_waits_for_a_timeout(stream: Pair, receive: Callable[..., bytes]) -> None:
    stream[1].settimeout(3600)
    with pytest.raises(BlockingIOError):
        receive(stream[1].fileno())


@RECEIVES
@pytest.mark.parametrize("own", [0, 0.2])
def test_o_nonblock_that_a_dup_cleared_does_not_block(
    stream: Pair, receive: Callable[..., bytes], own: float
) -> None:
    stream[1].settimeout(own)
    with cmsgx.Fd(os.dup(stream[1].fileno())) as dup:
        os.set_blocking(dup.fileno(), True)
    with (
        later(20, lambda: stream[0].send(b"too late")),
        pytest.raises(TimeoutError if own else BlockingIOError),
    ):
        receive(stream[1])


def test_o_nonblock_that_a_dup_cleared_does_not_block_a_send(stream: Pair) -> None:
    filled = fill(stream[0])
    stream[0].settimeout(0.1)
    os.set_blocking(stream[0].fileno(), True)
    with later(20, lambda: stream[1].recv(filled)), pytest.raises(TimeoutError):
        cmsgx.send(stream[0], b"x")


@pytest.fixture
def alarm() -> Iterator[list[float]]:
    """SIGALRM every 20 ms; the handler notes when it ran."""
    ran: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    yield ran
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@RECEIVES
@pytest.mark.parametrize("own", [None, 5.0])
@pytest.mark.slow
def test_a_signal_handler_that_returns_is_no_error(
    stream: Pair, alarm: list[float], receive: Callable[..., bytes], own: float | None
) -> None:
    stream[1].settimeout(own)
    with later(0.3, lambda: stream[0].send(b"x")):
        assert receive(stream[1]) == b"x"
    assert len(alarm) > 3


@RECEIVES
@pytest.mark.slow
def test_signals_do_not_put_the_deadline_off(
    stream: Pair, alarm: list[float], receive: Callable[..., bytes]
) -> None:
    start = time.monotonic()
    # Later than that it would come to an end all the same.
    with later(20, lambda: stream[0].send(b"x")), pytest.raises(TimeoutError):
        receive(stream[1], timeout=0.3)
    assert time.monotonic() - start >= 0.3
    assert len(alarm) > 3


@RECEIVES
@pytest.mark.parametrize("own", [None, 30.0])
def test_a_signal_handler_that_raises_ends_the_call(
    stream: Pair, receive: Callable[..., bytes], own: float | None
) -> None:
    def handler(*_: object) -> None:
        raise ZeroDivisionError

    stream[1].settimeout(own)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 5)  # again, in case it comes just before the wait
    try:
        with pytest.raises(ZeroDivisionError):
            receive(stream[1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# receive ----------------------------------------------------------------------------------------


def test_receive_asks_and_sets_no_option(stream: Pair) -> None:
    stream[0].send(b"x")
    cmsgx.receive(stream[1], 1)
    for option in (16, 34, 76):  # SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD
        assert stream[1].getsockopt(socket.SOL_SOCKET, option) == 0


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_receive_has_room_for_all_that_others_switched_on(kind: int) -> None:
    """What is switched on takes no room from the descriptors."""
    with new_pair(kind) as pair, open_files(253) as files:
        for option in (16, 34, 76, TIMESTAMPNS):
            pair[1].setsockopt(socket.SOL_SOCKET, option, 1)
        cmsgx.send(pair[0], b"x", fds=files)
        with cmsgx.receive(pair[1], 1, fds=253) as msg:
            assert len(msg.fds) == 253
            assert not msg.truncated
            assert msg[cmsgx.Credentials].pid == os.getpid()
            assert msg[cmsgx.PidFd].pid == os.getpid()
            assert msg[cmsgx.kinds.Timestamp].nanoseconds


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"bufsize": -1}, ValueError),
        ({"bufsize": "1"}, TypeError),
        ({"bufsize": 1, "fds": "1"}, TypeError),
        ({"bufsize": 1, "on_truncation": "ignore"}, ValueError),
        ({"bufsize": 1, "on_truncation": None}, ValueError),
        ({"bufsize": 1, "fds": 1, "flags": socket.MSG_PEEK}, ValueError),
        ({"bufsize": 1, "colour": 1}, TypeError),
        ({}, TypeError),
    ],
    ids=str,
)
def test_receive_with_wrong_arguments(
    stream: Pair, arguments: dict[str, Any], error: type[Exception]
) -> None:
    stream[0].send(b"x")
    with pytest.raises(error):
        cmsgx.receive(stream[1], **arguments)
    with pytest.raises(TypeError):
        cmsgx.receive(stream[1], 1, 1)  # type: ignore[call-arg]
    assert stream[1].recv(10) == b"x"


def test_peeking_at_data_is_allowed(pair: Pair) -> None:
    with open_files(1) as files:
        cmsgx.send(pair[0], b"abc", fds=files)
        before = open_fds()
        rx = cmsgx.Receiver(pair[1], 10)
        for _ in range(3):
            assert cmsgx.receive(pair[1], 10, flags=socket.MSG_PEEK).data == b"abc"
            assert rx.receive(flags=socket.MSG_PEEK).data == b"abc"
            assert open_fds() == before
        with cmsgx.receive(pair[1], 10, fds=1) as msg:
            assert content(msg.fds[0]) == "0"


def closed_socket() -> cmsgx.socket:
    sock = cmsgx.socket()
    sock.close()
    return sock


@pytest.mark.parametrize(
    "call",
    [
        lambda sock: cmsgx.receive(sock, 1),
        lambda sock: cmsgx.send(sock, b"x"),
        lambda sock: cmsgx.Receiver(sock, 1),
        lambda sock: cmsgx.enable(sock, cmsgx.Credentials),
    ],
)
def test_a_closed_socket_is_ebadf(call: Callable[[Any], object]) -> None:
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        call(closed_socket())
    assert caught.value.errno == 9


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sock: sock,
        lambda sock: sock.fileno(),
        lambda sock: cmsgx.Fd(os.dup(sock.fileno())),
        lambda sock: open(os.dup(sock.fileno()), "r+b", 0),  # noqa: SIM115
    ],
    ids=["socket", "int", "Fd", "file"],
)
def test_each_sort_of_socket_will_do(pair: Pair, wrap: Callable[[socket.socket], Any]) -> None:
    sender, receiver = wrap(pair[0]), wrap(pair[1])
    try:
        with open_files(1) as files:
            assert cmsgx.send(sender, b"x", fds=files) == 1
            cmsgx.send_all(sender, b"y")
            with cmsgx.Receiver(receiver, 1, fds=1, want=[cmsgx.Credentials]).receive() as msg:
                assert content(msg.fds[0]) == "0"
            with cmsgx.receive(receiver, 1, fds=1) as msg:
                assert msg.data == b"y"
    finally:
        for sock in (sender, receiver):
            if not isinstance(sock, int):
                sock.close()


# Receiver: construction -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, TypeError),
        ({"bufsize": 1, "into": bytearray(1)}, TypeError),
        ({"bufsize": -1}, ValueError),
        ({"bufsize": "1"}, TypeError),
        ({"into": b"read-only"}, (TypeError, BufferError)),
        ({"into": [bytearray(1), b"read-only"]}, (TypeError, BufferError)),
        ({"into": 3}, TypeError),
        ({"bufsize": 1, "fds": -1}, ValueError),
        ({"bufsize": 1, "want": [int]}, TypeError),
        ({"bufsize": 1, "want": [cmsgx.Unknown]}, TypeError),
        ({"bufsize": 1, "on_truncation": "?"}, ValueError),
        ({"bufsize": 1, "close": "later"}, ValueError),
    ],
    ids=str,
)
def test_receiver_with_wrong_arguments(
    stream: Pair, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        cmsgx.Receiver(stream[1], **{"want": [cmsgx.Credentials], **arguments})
    assert stream[1].getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 0


def test_receiver_switches_on_what_it_wants(pair: Pair) -> None:
    rx = cmsgx.Receiver(pair[1], 10, want=[cmsgx.Credentials, cmsgx.PidFd, cmsgx.Credentials])
    pair[0].send(b"x")
    with rx.receive() as msg:
        assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        assert msg[cmsgx.PidFd].pid == os.getpid()
    assert rx.sock is pair[1]


def test_receiver_gives_no_pidfd_that_it_did_not_want(pair: Pair) -> None:
    cmsgx.enable(pair[1], cmsgx.PidFd)
    rx = cmsgx.Receiver(pair[1], 10)
    pair[0].send(b"x")
    before = open_fds()
    with rx.receive() as msg:
        assert cmsgx.PidFd not in msg
        assert open_fds() == before


def room_of(rx: cmsgx.Receiver, pair: Pair, sent: int) -> int:
    """How many descriptors the kernel let in: what is not counted was kept out."""
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
        with rx.receive() as msg:
            return len(msg.fds) + (msg.closed_fds or 0)


@pytest.mark.parametrize("fds", [0, 1, 2, 3, 252, 253])
def test_the_room_is_exact_so_the_kernel_keeps_a_surplus_out(pair: Pair, fds: int) -> None:
    rx = cmsgx.Receiver(pair[1], 1, fds=fds)
    assert room_of(rx, pair, 253) == fds
    with open_files(fds + 1 if fds < 253 else fds) as files:
        cmsgx.send(pair[0], b"x", fds=files)
        with rx.receive() as msg:
            assert len(msg.fds) == fds
            assert msg.truncated == (fds < 253)
            assert msg.closed_fds == (None if fds < 253 else 0)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_refresh_makes_room_for_what_others_switched_on(kind: int) -> None:
    with new_pair(kind) as pair:
        rx = cmsgx.Receiver(pair[1], 1, fds=2)
        for option in (16, 76, TIMESTAMPNS):
            pair[1].setsockopt(socket.SOL_SOCKET, option, 1)
        with open_files(2) as files:
            cmsgx.send(pair[0], b"x", fds=files)
            with pytest.raises(cmsgx.ControlTruncatedError, match=r"refresh\(\)"):
                rx.receive()
            rx.refresh()
            cmsgx.send(pair[0], b"x", fds=files)
            with rx.receive() as msg:
                assert len(msg.fds) == 2
                assert cmsgx.Credentials in msg


def test_receiver_reads_what_is_on_when_it_is_made() -> None:
    with new_pair(socket.SOCK_DGRAM) as pair:
        for option in (16, 76, TIMESTAMPNS):
            pair[1].setsockopt(socket.SOL_SOCKET, option, 1)
        rx = cmsgx.Receiver(pair[1], 1, fds=3)
        with open_files(3) as files:
            cmsgx.send(pair[0], b"x", fds=files)
            with rx.receive() as msg:
                assert [content(fd) for fd in msg.fds] == list("012")
                records: list[Any] = list(msg)
                assert {record.type for record in records} >= {1, 2, TIMESTAMPNS}


@pytest.mark.parametrize("setting", ["raise", "keep"])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("by", ["receive", "Receiver"])
def test_on_truncation(setting: Any, kind: int, by: str) -> None:
    with new_pair(kind) as pair, open_files(1) as files:
        cmsgx.send(pair[0], b"12345", fds=files)
        before = open_fds()

        def receive() -> cmsgx.Message:
            if by == "receive":
                return cmsgx.receive(pair[1], 3, fds=1, on_truncation=setting)
            return cmsgx.Receiver(pair[1], 3, fds=1, on_truncation=setting).receive()

        if setting == "raise":
            with pytest.raises(cmsgx.DataTruncatedError) as caught:
                receive()
            msg = caught.value.message
            assert msg.closed
            assert open_fds() == before
        else:
            msg = receive()
            assert content(msg.fds[0]) == "0"
        with msg:
            assert (msg.data, msg.nbytes, msg.truncated) == (b"123", 3, True)
            assert msg.flags & socket.MSG_TRUNC


# into= ------------------------------------------------------------------------------------------


def test_into_one_buffer(pair: Pair) -> None:
    buffer = bytearray(b"-" * 8)
    rx = cmsgx.Receiver(pair[1], into=buffer)
    pair[0].send(b"first")
    with rx.receive() as msg:
        assert (msg.nbytes, msg.data, bytes(msg.view)) == (5, b"first", b"first")
        assert buffer == b"first---"
    pair[0].send(b"two")
    with rx.receive() as second:
        assert buffer == b"twost---"
        assert second.data == b"two"
        assert msg.data == b"first"  # made on first use


def test_into_several_buffers(pair: Pair) -> None:
    parts: list[Any] = [bytearray(2), array.array("H", [0, 0]), memoryview(bytearray(6))[1:4]]
    rx = cmsgx.Receiver(pair[1], into=parts)
    pair[0].send(b"12345678")
    with rx.receive() as msg:
        assert [bytes(part) for part in parts] == [b"12", b"3456", b"78\0"]
        assert msg.data == b"12345678"
        assert bytes(msg.view) == b"12345678"
    pair[0].send(b"abc")
    with rx.receive() as msg:
        assert msg.data == b"abc"


def test_into_one_buffer_many_times(stream: Pair) -> None:
    """Together 2**32 bytes, which a size_t of 32 bits counts as none."""
    rx = cmsgx.Receiver(stream[1], into=[bytearray(4 << 20)] * 1024)
    stream[0].send(b"data")
    with rx.receive() as msg:
        assert (msg.nbytes, msg.data) == (4, b"data")


def test_into_keeps_the_buffers_from_being_resized(stream: Pair) -> None:
    buffer = bytearray(8)
    rx = cmsgx.Receiver(stream[1], into=buffer)
    with pytest.raises(BufferError):
        buffer.append(1)
    del rx
    buffer.append(1)


class Buffer(bytearray):
    """One that can refer to others."""

    receiver: cmsgx.Receiver


@pytest.mark.parametrize("used", ["not", "once", "in a loop", "in a loop that stopped"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_receiver_and_its_buffers_can_be_a_cycle(stream: Pair, used: str, count: int) -> None:
    buffers = [Buffer(4) for _ in range(count)]
    rx = cmsgx.Receiver(stream[1], into=buffers)
    held = None
    for buffer in buffers:
        buffer.receiver = rx
    if used != "not":
        stream[0].send(b"data")
    if used == "once":
        held = rx.receive().view
        assert held == b"data"
    elif used != "not":
        for msg in rx:
            assert msg.data == b"data"
            if used == "in a loop that stopped":
                break
            stream[0].shutdown(socket.SHUT_WR)
        del msg
    gone = [weakref.ref(buffer) for buffer in buffers]
    del buffers, buffer, rx
    gc.collect()
    if held is not None and count == 1:
        # The view is of the buffer itself.
        assert gone[0]() is not None
        assert held == b"data"
        del held
        gc.collect()
    assert [one() for one in gone] == [None] * count


def test_into_with_descriptors_and_kinds(pair: Pair) -> None:
    buffer = bytearray(4)
    rx = cmsgx.Receiver(pair[1], into=buffer, fds=1, want=[cmsgx.Credentials])
    with open_files(1) as files:
        cmsgx.send(pair[0], b"data", fds=files)
        with rx.receive() as msg:
            assert buffer == b"data"
            assert content(msg.fds[0]) == "0"
            assert msg[cmsgx.Credentials].pid == os.getpid()


# One-shot receive: what it keeps for the next ----------------------------------------------------


@pytest.mark.skipif(not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="keeps none there")
def test_receive_allocates_no_room_for_control_data_each_time(stream: Pair) -> None:
    """It is for all that can come, some 8 KB; made anew each time it took a fifth of the call."""

    def peak_of_one() -> int:
        stream[0].send(b"data")
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        cmsgx.receive(stream[1], 4, fds=cmsgx.MAX_FDS).close()
        return tracemalloc.get_traced_memory()[1] - before

    tracemalloc.start()
    try:
        peak_of_one()
        assert peak_of_one() < 2048
    finally:
        tracemalloc.stop()


def test_receive_keeps_nothing_of_the_call_before(pair: Pair) -> None:
    """Neither its data nor its size, nor what was asked for."""
    held = []
    for count, fds, setting in itertools.product((1, 3), (0, 1, 3), ("keep", "raise")):
        with open_files(count) as files:
            cmsgx.send(pair[0], b"%d" % count * 300 * count, fds=files)
        msg = cmsgx.receive(pair[1], 1000, fds=fds, on_truncation=setting)  # type: ignore[arg-type]
        assert len(msg.fds) == min(count, fds)
        assert [content(fd) for fd in msg.fds] == [str(index) for index in range(len(msg.fds))]
        msg.close()
        held.append((msg.view, count))
        pair[0].send(b"next")
        assert cmsgx.receive(pair[1], 1000).data == b"next"
    for view, count in held:
        assert bytes(view) == b"%d" % count * 300 * count
    for setting in ("raise", "keep", "raise"):
        cmsgx.send(pair[0], b"x")
        assert cmsgx.receive(pair[1], 1000, on_truncation=setting).nbytes == 1  # type: ignore[arg-type]


def test_receive_of_sockets_of_each_family_by_turns(stream: Pair) -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
    ):
        right.bind(("127.0.0.1", 0))
        left.connect(right.getsockname())
        for _ in range(3):
            left.send(b"12345")
            with pytest.raises(cmsgx.DataTruncatedError):
                cmsgx.receive(right, 3)
            left.send(b"12345")
            assert cmsgx.receive(right, 3, on_truncation="keep").truncated
            left.send(b"")
            assert cmsgx.receive(right, 3).eof is False
            stream[0].send(b"12345")
            assert cmsgx.receive(stream[1], 3).data == b"123"
            assert cmsgx.receive(stream[1].fileno(), 3).data == b"45"


# A smaller size for one call --------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["bufsize", "into", "into, several"])
def test_a_header_says_how_many_bytes_follow(stream: Pair, sort: str) -> None:
    into: Any = {
        "bufsize": None, "into": bytearray(100), "into, several": [bytearray(5) for _ in range(20)],
    }[sort]  # fmt: skip
    rx = cmsgx.Receiver(stream[1], None if into else 100, into=into, fds=1)
    bodies = [b"first", b"the second one", b"", b"x" * 96]
    with open_files(len(bodies)) as files:
        for body, fd in zip(bodies, files, strict=True):
            cmsgx.send(stream[0], len(body).to_bytes(4, "big") + body, fds=[fd])
    stream[0].close()
    for index, body in enumerate(bodies):
        with rx.receive(bufsize=4) as header:
            assert header.nbytes == len(header.data) == len(bytes(header.view)) == 4
            assert not header.truncated
            size = int.from_bytes(header.data, "big")
            assert content(header.fds[0]) == str(index)
        # What is held keeps its bytes and its length.
        view = header.view if sort == "bufsize" else header.data
        if size:
            with rx.receive(bufsize=size) as msg:
                assert (msg.data, msg.eof, len(msg.fds)) == (body, False, 0)
        assert bytes(view) == len(body).to_bytes(4, "big")
    with rx.receive(bufsize=1) as msg:
        assert (msg.data, msg.eof) == (b"", True)


def test_no_bytes_of_a_stream_come_with_the_descriptors_of_what_waits(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 10, fds=1)
    with open_files(1) as files:
        cmsgx.send(stream[0], b"data", fds=files)
    with rx.receive(bufsize=0) as msg:
        assert (msg.data, msg.eof) == (b"", None)
        assert content(msg.fds[0]) == "0"
    with rx.receive() as msg:
        assert (msg.data, len(msg.fds)) == (b"data", 0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, [b"--", b"", b"---", b"----"]),
        (1, [b"1-", b"", b"---", b"----"]),
        (2, [b"12", b"", b"---", b"----"]),
        (4, [b"12", b"", b"34-", b"----"]),
        (8, [b"12", b"", b"345", b"678-"]),
        (9, [b"12", b"", b"345", b"6789"]),
        (None, [b"12", b"", b"345", b"6789"]),
    ],
)
def test_a_smaller_size_fills_no_more_of_the_buffers(
    stream: Pair, size: int | None, expected: list[bytes]
) -> None:
    parts = [bytearray(b"-" * count) for count in (2, 0, 3, 4)]
    rx = cmsgx.Receiver(stream[1], into=parts)
    stream[0].send(b"123456789")
    with rx.receive(bufsize=size) as msg:
        assert parts == expected
        assert msg.data == b"123456789"[:size]
    if size != 9 and size is not None:
        with rx.receive() as rest:
            assert rest.data == b"123456789"[size:]


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("size", [0, 3])
def test_a_datagram_longer_than_the_size_of_one_call_is_truncated(
    kind: int, size: int, into: bool
) -> None:
    with new_pair(kind) as (left, right):
        made: dict[str, Any] = {"into": bytearray(10)} if into else {"bufsize": 10}
        raising, keeping = (
            cmsgx.Receiver(right, **made, on_truncation="raise"),
            cmsgx.Receiver(right, **made, on_truncation="keep"),
        )
        for _ in range(3):
            left.send(b"12345678")
        with pytest.raises(cmsgx.DataTruncatedError, match=f"{size or 'no'} bytes of it") as caught:
            raising.receive(bufsize=size)
        assert caught.value.message.data == b"12345678"[:size]
        with keeping.receive(bufsize=size, flags=socket.MSG_TRUNC) as msg:
            assert (msg.truncated, msg.nbytes, msg.data) == (True, 8, b"12345678"[:size])
            assert bytes(msg.view) == b"12345678"[:size]
        with raising.receive() as msg:
            assert (msg.truncated, msg.data) == (False, b"12345678")


def test_the_size_of_one_call_is_not_that_of_the_next(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 5)
    stream[0].send(b"123456789abcdef")
    stream[0].close()
    assert [rx.receive(bufsize=size).data for size in (1, 5, None)] == [b"1", b"23456", b"789ab"]
    assert rx.receive(bufsize=1).data == b"c"
    assert [msg.data for msg in rx] == [b"def"]


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (11, ValueError, "bufsize: 11; .* 10 bytes"),
        (2**70, ValueError, "bufsize: 1180591620717411303424; one call brings"),
        (-1, ValueError, "bufsize: -1; it cannot be negative"),
        ("1", TypeError, "bufsize: an int is needed, not str"),
        (1.0, TypeError, "bufsize: an int is needed, not float"),
    ],
)
@pytest.mark.parametrize("into", [False, True])
def test_a_size_that_the_receiver_was_not_made_for(
    stream: Pair, size: Any, error: type[Exception], text: str, into: bool
) -> None:
    rx = cmsgx.Receiver(stream[1], None if into else 10, into=bytearray(10) if into else None)
    stream[0].send(b"data")
    with pytest.raises(error, match=text):
        rx.receive(bufsize=size)
    assert rx.receive(bufsize=10).data == b"data"


# As many descriptors as can come ----------------------------------------------------------------


def test_max_fds_is_as_many_as_can_come(pair: Pair) -> None:
    assert cmsgx.MAX_FDS == 253
    rx = cmsgx.Receiver(pair[1], 1, fds=cmsgx.MAX_FDS)
    for count in (0, 1, 253):
        for by in (rx.receive, partial(cmsgx.receive, pair[1], 1, fds=cmsgx.MAX_FDS)):
            cmsgx.send(pair[0], b"x", fds=[0] * count)
            with by() as msg:
                assert len(msg.fds) == count
                assert not msg.truncated


@pytest.mark.parametrize("flags", [0, socket.MSG_PEEK])
def test_max_fds_is_none_over_another_family(flags: int) -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
    ):
        right.bind(("127.0.0.1", 0))
        left.connect(right.getsockname())
        right.settimeout(60)
        rx = cmsgx.Receiver(right, 10, fds=cmsgx.MAX_FDS)
        batches = cmsgx.BatchReceiver(right, 2, 10, fds=cmsgx.MAX_FDS)
        # Behind their back: what comes of it has no room, but it is no descriptor.
        for option in (8, 12, 13, 20):  # IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR
            right.setsockopt(socket.SOL_IP, option, 1)
        for _ in range(4):
            left.send(b"x")
        with rx.receive(flags=flags) as msg:
            assert (msg.data, len(msg.fds), msg.truncated) == (b"x", 0, True)
        with batches.receive(flags=flags) as batch:
            assert batch[0].data == b"x"
        with cmsgx.receive(right, 10, fds=cmsgx.MAX_FDS, flags=flags) as msg:
            assert (msg.data, len(msg.fds), len(msg.control)) == (b"x", 0, 4)


# with Receiver(...) -----------------------------------------------------------------------------

SO_PASSCRED = 16
MAKE_RECEIVER: list[Callable[[Any, list[Any]], Any]] = [
    lambda sock, want: cmsgx.Receiver(sock, 10, want=want),
    lambda sock, want: cmsgx.BatchReceiver(sock, 2, 10, want=want),
]


@pytest.mark.parametrize("make", MAKE_RECEIVER, ids=["Receiver", "BatchReceiver"])
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("raises", [False, True])
def test_the_end_of_the_with_restores_what_was_switched_on(
    pair: Pair, make: Callable[[Any, list[Any]], Any], before: int, raises: bool
) -> None:
    sock = pair[1]

    def is_on() -> int:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSCRED)

    sock.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, before)
    with suppress(LookupError):
        with make(sock, [cmsgx.Credentials]) as receiver:
            assert is_on() == 1
            with make(sock, [cmsgx.Credentials]):
                pass
            assert is_on() == 1, "it was on before the inner one"
            pair[0].send(b"x")
            got = receiver.receive()
            assert cmsgx.Credentials in (got if isinstance(got, cmsgx.Message) else got[0])
            if raises:
                raise LookupError
        assert not raises
    assert is_on() == before
    sock.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    with pytest.raises(RuntimeError, match="Credentials: the options were restored"), receiver:
        pass
    pair[0].send(b"x")
    receiver.receive().close()  # it is used like any other
    assert is_on() == 1, "it is restored once"


@pytest.mark.parametrize("make", MAKE_RECEIVER, ids=["Receiver", "BatchReceiver"])
@pytest.mark.parametrize("want", [[], [cmsgx.Credentials]], ids=["none", "one"])
def test_a_socket_that_was_closed_in_the_with_needs_no_restoring(
    make: Callable[[Any, list[Any]], Any], want: list[Any]
) -> None:
    with new_pair() as (_left, right):
        with make(right, want):
            right.close()
        assert right.fileno() == -1


# The loop ---------------------------------------------------------------------------------------


def test_for_ends_at_the_end_of_a_stream(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 3)
    stream[0].send(b"abcdefgh")
    stream[0].close()
    assert [msg.data for msg in rx] == [b"abc", b"def", b"gh"]
    assert list(rx) == []


def test_for_goes_on_after_a_shutdown_that_left_data(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 10)
    stream[0].send(b"rest")
    stream[0].shutdown(socket.SHUT_WR)
    assert [msg.data for msg in rx] == [b"rest"]


@pytest.mark.parametrize("want", [[], [cmsgx.Credentials]], ids=["plain", "with credentials"])
@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_for_yields_empty_messages_and_ends_at_the_end_of_a_seqpacket(
    want: list[Any], how: str
) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=want)
        for data in (b"one", b"", b"three"):
            sender.send(data)
        loop = iter(rx)
        assert [next(loop).data for _ in range(3)] == [b"one", b"", b"three"]
        if how == "close":
            sender.close()
        else:
            sender.shutdown(socket.SHUT_WR)
        assert list(loop) == []


@pytest.mark.parametrize("fds", [0, 1])
@pytest.mark.parametrize("behind", [b"last", b""])
def test_for_goes_on_behind_an_empty_message_of_who_has_gone(fds: int, behind: bytes) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, receiver), open_files(1) as files:
        rx = cmsgx.Receiver(receiver, 10, fds=1)
        sender.send(b"")
        cmsgx.send(sender, behind, fds=files[:fds])
        sender.close()
        found = [(msg.data, len(msg.fds)) for msg in rx]
        # An empty message without a descriptor cannot be told from the end.
        assert found == ([(b"", 0), (behind, fds)] if behind or fds else [])
        assert list(rx) == []


def test_an_empty_seqpacket_with_a_descriptor_is_no_end() -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, receiver), open_files(1) as files:
        rx = cmsgx.Receiver(receiver, 10, fds=1)
        cmsgx.send(sender, b"", fds=files)
        sender.close()
        assert [[content(fd) for fd in msg.fds] for msg in rx] == [["0"]]


def test_for_yields_empty_datagrams() -> None:
    with new_pair(socket.SOCK_DGRAM) as (sender, receiver):
        for data in (b"", b"", b"last"):
            sender.send(data)
        rx = cmsgx.Receiver(receiver, 10)
        assert [msg.data for msg in itertools.islice(rx, 3)] == [b"", b"", b"last"]


def test_for_uses_the_timeout_of_the_socket(pair: Pair) -> None:
    pair[1].settimeout(0.05)
    rx = cmsgx.Receiver(pair[1], 10)
    pair[0].send(b"x")
    assert next(rx).data == b"x"
    with pytest.raises(TimeoutError):
        next(rx)


def test_for_closes_the_message_before(pair: Pair) -> None:
    rx = cmsgx.Receiver(pair[1], 1, fds=2)
    with open_files(2) as files:
        for _ in range(3):
            cmsgx.send(pair[0], b"x", fds=files)
        before = open_fds()
        messages: list[cmsgx.Message] = []
        taken: list[cmsgx.Fd] = []
        for msg in itertools.islice(rx, 3):
            assert all(old.closed for old in messages)
            assert not msg.closed
            messages.append(msg)
            taken.append(msg.take(1))
            assert len(open_fds()) == len(before) + len(taken) + 1
        assert [content(fd) for fd in taken] == ["1"] * 3
        with pytest.raises(ValueError, match="closed"):
            messages[0].fds[0].fileno()
        messages[2].close()
        for fd in taken:
            fd.close()
        assert open_fds() == before


@pytest.mark.parametrize("keeps", ["the message", "nothing"])
def test_a_loop_that_stops_half_way_leaks_nothing(pair: Pair, keeps: str) -> None:
    with open_files(2) as files:
        before = open_fds()
        rx = cmsgx.Receiver(pair[1], 1, fds=2)
        cmsgx.send(pair[0], b"x", fds=files)
        msg = next(rx)
        if keeps == "nothing":
            del msg
            with pytest.warns(ResourceWarning, match="Message with 2 descriptors"):
                del rx
        else:
            del rx
            msg.close()
        assert open_fds() == before


# Bytes never change under a reader --------------------------------------------------------------


@pytest.mark.parametrize(
    "hold",
    [
        lambda msg: msg,
        lambda msg: msg.view,
        lambda msg: msg.view[:],
        lambda msg: msg.view[1:-1][0:-1],
        lambda msg: memoryview(msg.view),
        lambda msg: memoryview(msg.view)[2:],
        lambda msg: memoryview(msg.view)[::3],
        lambda msg: msg.data,
    ],
    ids=[
        *("message", "view", "slice", "slice of a slice"),
        *("memoryview", "slice of a memoryview", "every third", "data"),
    ],
)
@pytest.mark.parametrize("by", ["receive", "for"])
def test_bytes_never_change_under_a_reader(hold: Callable[[cmsgx.Message], Any], by: str) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 64)
        held: list[tuple[Any, bytes]] = []

        def look(msg: cmsgx.Message) -> None:
            thing = hold(msg)
            held.append((thing, as_bytes(thing)))

        for number in range(40):
            sender.send(bytes([number]) * 50)
            if by == "receive":
                with rx.receive() as msg:
                    look(msg)
            else:
                for msg in rx:
                    look(msg)
                    break
            if number % 7 == 3:
                del held[::2]
        for thing, then in held:
            assert as_bytes(thing) == then
        assert len({then for _, then in held}) == len(held)


def as_bytes(thing: Any) -> bytes:
    return bytes(thing.view if isinstance(thing, cmsgx.Message) else thing)


def test_a_loop_that_holds_nothing_needs_no_more_memory(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 1 << 20)
    starts: set[int | None] = set()
    for _ in range(20):
        stream[0].send(b"x" * 100)
        with rx.receive() as msg:
            starts.add(address_of(msg.view))
    assert len(starts) <= 3


def test_a_loop_lets_go_of_the_message_before(packets: Pair) -> None:
    for _ in range(3):
        packets[0].send(b"x")
    rx = cmsgx.Receiver(packets[1], 1)
    plain = rx.receive()
    first = next(rx)
    assert sys.getrefcount(first) == sys.getrefcount(plain) + 1
    second = next(rx)
    assert sys.getrefcount(first) == sys.getrefcount(plain)
    assert sys.getrefcount(second) == sys.getrefcount(plain) + 1


def address_of(view: cmsgx.wire.View | bytes) -> int | None:
    # A read-only buffer has no from_buffer(): PyObject_GetBuffer is asked itself.
    raw = (ctypes.c_void_p * 32)()  # larger than a Py_buffer, which begins with the address
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(raw), 0)
    start = raw[0]
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))
    return start


def test_views_outlive_receiver_socket_and_message() -> None:
    with new_pair() as (sender, receiver):
        sender.send(b"still here")
        rx = cmsgx.Receiver(receiver, 100)
        view = memoryview(rx.receive().view)[6:]
        del rx
    assert bytes(view) == b"here"
    assert view.readonly


# Two threads at once ----------------------------------------------------------------------------


def test_a_receiver_used_by_two_threads_at_once_raises(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 10)
    got = []
    thread = threading.Thread(target=lambda: got.append(rx.receive().data))
    thread.start()
    until_it_waits(thread)
    for use in (rx.receive, rx.refresh, lambda: next(iter(rx))):
        with pytest.raises(RuntimeError, match="is in use"):
            use()
    stream[0].send(b"x")
    thread.join()
    assert got == [b"x"]
    stream[0].send(b"y")
    assert rx.receive().data == b"y"


# Typed sends never raise SIGPIPE, addresses -----------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM])
@pytest.mark.parametrize("server_type", ["cmsgx.socket", "int"])
def test_answering_costs_no_text(kind: int, server_type: str) -> None:
    with cmsgx.socket(socket.AF_INET, kind) as server, cmsgx.socket(socket.AF_INET, kind) as client:
        server.bind(("127.0.0.1", 0))
        client.bind(("127.0.0.1", 0))
        end: Any = server if server_type == "cmsgx.socket" else server.fileno()
        cmsgx.send(client, b"question", address=server.getsockname())
        msg = cmsgx.receive(end, 100)
        assert msg.address == client.getsockname()
        assert cmsgx.send(end, b"answer", address=msg.address) == 6
        assert cmsgx.receive(client, 100).data == b"answer"


@pytest.mark.parametrize("name", [b"\0cmsgx-test-sync-abstract", "path", b"path"])
def test_unix_addresses(name: Any, tmp_path: Any) -> None:
    if name in ("path", b"path"):
        path = str(tmp_path / "socket")
        name = path if name == "path" else os.fsencode(path)
    with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name)
        with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, open_files(1) as files:
            cmsgx.send(client, b"x", fds=files, address=name)
            with cmsgx.receive(server, 10, fds=1) as msg:
                assert content(msg.fds[0]) == "0"
                assert msg.address is None or msg.address == ""
            client.bind(b"\0cmsgx-test-sync-client")
            cmsgx.send(client, b"x", address=server.getsockname())
            msg = cmsgx.receive(server, 10)
            assert msg.address == b"\0cmsgx-test-sync-client"
            cmsgx.send(server, b"back", address=msg.address)
            assert cmsgx.receive(client, 10).data == b"back"


@pytest.mark.parametrize("label", [0, 1, 0xFFFFF])
def test_each_flow_label_is_an_address_of_c(label: int) -> None:
    """Also for a number, which has no method that could take it instead."""
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        address = ("::1", sock.getsockname()[1], label, 0)
        for end in (sock, sock.fileno()):
            assert cmsgx.send(end, b"x", address=address) == 1
            assert cmsgx.sendmsg(end, [b"y"], (), 0, address) == 1
        for wrong in (-1, 0x100000):
            with pytest.raises(OverflowError):
                cmsgx.send(sock.fileno(), b"x", address=(*address[:2], wrong, 0))


@pytest.mark.parametrize("call", ["send", "sendmsg", "send_fds"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_is_no_address_of_ip_goes_nowhere(family: int, call: str) -> None:
    """A port that would wrap, and a host that would end at its NUL."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with cmsgx.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
        calls: dict[str, Callable[[Any], int]] = {
            "send": lambda address: cmsgx.send(sock.fileno(), b"x", address=address),
            "sendmsg": lambda address: cmsgx.sendmsg(sock.fileno(), [b"x"], (), 0, address),
            "send_fds": lambda address: cmsgx.send_fds(sock.fileno(), [b"x"], [], 0, address),
        }
        assert calls[call]((host, port)) == 1
        assert sock.recv(1) == b"x"
        for wrong in ((host, port + 65536), (host, -1), (f"{host}\0x", port), (f"{host}\0", port)):
            with pytest.raises((OverflowError, TypeError)):
                calls[call](wrong)
        with pytest.raises(BlockingIOError):
            sock.recv(1, socket.MSG_DONTWAIT)


def test_the_scope_of_an_address_is_passed_on() -> None:
    """Through another device than there is, a packet comes to the same as by socket."""
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))

        def outcome(send: Callable[[Any], object], scope: int) -> object:
            try:
                return send(("fe80::1", sock.getsockname()[1], 0, scope))
            except OSError as error:
                return error.errno

        for scope in (0, socket.if_nametoindex("lo"), 2**31 - 1):
            expected = outcome(partial(sock.sendto, b"x"), scope)
            assert outcome(lambda to: cmsgx.send(sock, b"x", address=to), scope) == expected


@pytest.mark.parametrize("name", ["send", "receive", "Receiver", "BatchReceiver", "send_batch"])
def test_flags_are_an_int_of_c(pair: Pair, name: str) -> None:
    rx, batches = cmsgx.Receiver(pair[1], 1), cmsgx.BatchReceiver(pair[1], 2, 1)
    calls: dict[str, Callable[[int], object]] = {
        "send": lambda flags: cmsgx.send(pair[0], b"x", flags=flags),
        "send_batch": lambda flags: cmsgx.send_batch(pair[0], [b"x"], flags=flags),
        "receive": lambda flags: cmsgx.receive(pair[1], 1, flags=flags),
        "Receiver": lambda flags: rx.receive(flags=flags),
        "BatchReceiver": lambda flags: batches.receive(flags=flags),
    }
    cmsgx.send(pair[0], b"x")
    for wrong in (2**31, 2**32, -(2**31) - 1, 2**70):
        with pytest.raises(OverflowError):
            calls[name](wrong)
    assert pair[1].recv(2, socket.MSG_DONTWAIT) == b"x"
    with pytest.raises(BlockingIOError):
        pair[1].recv(1, socket.MSG_DONTWAIT)


def test_an_argument_that_is_given_twice(stream: Pair) -> None:
    call: Any = cmsgx.send
    with pytest.raises(TypeError, match="multiple values for argument 'data'"):
        call(stream[0], b"x", data=b"y")
    with pytest.raises(TypeError, match="multiple values for argument 'sock'"):
        call(stream[0], b"x", sock=stream[0])
    with pytest.raises(BlockingIOError):
        stream[1].recv(1, socket.MSG_DONTWAIT)


def test_a_host_name_is_resolved_by_the_socket() -> None:
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            address = ("localhost", server.getsockname()[1])
            assert cmsgx.send(client, b"x", address=address) == 1
            assert cmsgx.receive(server, 10).data == b"x"
            with pytest.raises(ValueError, match="localhost"):
                cmsgx.send(client.fileno(), b"x", address=address)


def test_a_peer_that_is_gone_stays_a_plain_error(stream: Pair) -> None:
    stream[1].close()
    for call in (cmsgx.send, cmsgx.send_all):
        with pytest.raises(BrokenPipeError) as caught:
            call(stream[0], b"x")
        assert type(caught.value) is BrokenPipeError


def test_flags_are_passed_on(stream: Pair) -> None:
    fill(stream[0])
    with pytest.raises(BlockingIOError):
        cmsgx.send(stream[0], b"x", flags=socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[0], 1, flags=socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        cmsgx.Receiver(stream[0], 1).receive(flags=socket.MSG_DONTWAIT)


def test_a_listener_hands_its_options_to_what_it_accepts() -> None:
    """What is queued between accept() and Receiver carries credentials, if enabled in time."""
    with cmsgx.socket(socket.AF_UNIX) as listener:
        listener.bind(b"\0cmsgx-test-sync-listener")
        cmsgx.enable(listener, cmsgx.Credentials)
        listener.listen()
        with cmsgx.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            client.send(b"early")
            accepted, _ = listener.accept()
            with accepted, cmsgx.receive(accepted, 10) as msg:
                assert msg[cmsgx.Credentials] == cmsgx.Credentials()


def test_nothing_is_left_behind_in_a_new_process() -> None:
    code = """
import cmsgx, socket, os
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, fds=1)
cmsgx.send(a, b"x", fds=[0])
with rx.receive() as msg:
    print(msg.data.decode(), len(msg.fds))
a.close(); b.close()
"""
    assert run_python(code).split() == ["x", "1"]


def test_close_on_exec_is_set(pair: Pair) -> None:
    with open_files(1) as files:
        os.set_inheritable(files[0], True)
        cmsgx.send(pair[0], b"x", fds=files)
        with cmsgx.Receiver(pair[1], 1, fds=1).receive() as msg:
            assert fcntl.fcntl(msg.fds[0].fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert not msg.flags & 0x40000000


# What can be read once only ---------------------------------------------------------------------

# The call, and the arguments of it that are iterators.
READ_ONCE: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "fds": (lambda s, **t: cmsgx.send(s, b"x", fds=(n for n in [0]), **t), ["fds was an"]),
    "control": (
        lambda s, **t: cmsgx.send(s, b"x", control=iter([cmsgx.Credentials()]), **t),
        ["control was an"],
    ),
    "data": (lambda s, **t: cmsgx.send(s, map(bytes, [b"x"]), **t), ["data was an"]),
    "all": (
        lambda s, **t: cmsgx.send(s, iter([b"x"]), fds=iter([0]), control=iter(()), **t),
        ["data, fds, control were"],
    ),
    "lists": (lambda s, **t: cmsgx.send(s, [b"x"], fds=[0], control=(), **t), []),
    "send_all": (
        lambda s, **t: cmsgx.send_all(s, iter([b"x"]), fds=iter([0]), **t),
        ["fds was an", "data was an"],
    ),
    "send_all, lists": (lambda s, **t: cmsgx.send_all(s, [b"x"], fds={0: 0}, **t), []),
    "sendmsg": (
        lambda s, **t: cmsgx.sendmsg(s, iter([b"x"]), iter(())),
        ["buffers, ancdata were"],
    ),
    "sendmsg, lists": (lambda s, **t: cmsgx.sendmsg(s, [b"x"], []), []),
    "send_fds": (lambda s, **t: cmsgx.send_fds(s, [b"x"], iter([0])), ["fds was an"]),
    "send_fds, bytes": (lambda s, **t: cmsgx.send_fds(s, [b"x"], bytes(4)), []),
}


@pytest.mark.parametrize("name", READ_ONCE)
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_iterators_that_are_used_up_are_named(name: str, timeout: float) -> None:
    """A call that is made again would send without what they had, and nobody would be told."""
    call, expected = READ_ONCE[name]
    with new_pair(socket.SOCK_DGRAM) as (left, _right):
        fill(left)
        left.settimeout(timeout)
        with pytest.raises(BlockingIOError if timeout == 0 else TimeoutError) as caught:
            call(left)
        notes = getattr(caught.value, "__notes__", [])
        assert len(notes) == len(expected)
        for note, start in zip(notes, expected, strict=True):
            assert note.startswith(start)
            assert "used up" in note
        if "sendmsg" not in name and "send_fds" not in name:
            left.settimeout(60)
            with pytest.raises(BlockingIOError if timeout == 0 else TimeoutError) as caught:
                call(left, timeout=timeout)
            assert len(getattr(caught.value, "__notes__", [])) == len(expected)


class Overriding(cmsgx.socket):
    def sendmsg(self, *args: Any) -> int:
        return super().sendmsg(*args)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s: cmsgx.sendmsg(s, [b"x"], iter(())), ["ancdata was an"]),
        (
            lambda s: cmsgx.sendmsg(s, iter([b"x"]), iter(())),
            ["buffers was an", "ancdata was an"],
        ),
        (lambda s: cmsgx.send_fds(s, [b"x"], iter([0])), ["fds was an"]),
        (lambda s: cmsgx.send_fds(s, [b"x"], [0]), []),
    ],
)
def test_iterators_that_are_used_up_by_an_override_are_named(
    call: Callable[[Any], Any], expected: list[str]
) -> None:
    with new_pair() as (left, _right), Overriding(fileno=left.detach()) as sock:
        fill(sock)
        sock.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            call(sock)
        notes = getattr(caught.value, "__notes__", [])
        assert [note[: len(start)] for note, start in zip(notes, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s, to: s.sendmsg(iter([b"x"]), iter(()), 0, to), "buffers, ancdata were"),
        (lambda s, to: cmsgx.send(s, iter([b"x"]), control=iter(()), address=to), "data, control"),
        (lambda s, to: cmsgx.send_fds(s, iter([b"x"]), iter(()), 0, to), "buffers, fds were"),
    ],
)
def test_iterators_that_are_used_up_by_a_send_to_a_name_are_named(
    call: Callable[[Any, Any], Any], expected: str
) -> None:
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 0)
        with pytest.raises(PermissionError) as caught:
            call(sock, ("<broadcast>", 9))
        [note] = caught.value.__notes__
        assert note.startswith(expected)


def test_iterators_that_are_used_up_in_part_of_send_all() -> None:
    """The descriptors went with the first byte, the data did not."""
    with new_pair() as (left, _right):
        left.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            cmsgx.send_all(left, iter([bytes(10_000_000)]), fds=iter([0]))
        assert caught.value.sent > 0  # type: ignore[attr-defined]
        [note] = caught.value.__notes__
        assert note.startswith("data was an iterator")


def test_errors_that_are_found_before_a_call_name_no_iterator(stream: Pair) -> None:
    with pytest.raises(ValueError, match="-1 is not a file descriptor") as caught:
        cmsgx.send(stream[0], b"x", fds=iter([-1]))
    assert not hasattr(caught.value, "__notes__")
