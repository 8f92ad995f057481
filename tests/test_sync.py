"""send, receive: one message after another."""

from __future__ import annotations

import array
import errno
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from pairs import TIMESTAMPNS, fill, new_pair
from support import (
    Pair,
    content,
    open_fds,
    open_files,
    until_it_waits,
)

import cmsgx

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
def test_data_that_is_not_a_buffer(
    stream: Pair, call: Callable[..., int | None], data: Any
) -> None:
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
        # Not if the socket is what is closed.
        pair[0].close()
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            calls[call](pair[0], [*files, 1_000_000])
        assert caught.value.errno == errno.EBADF
        assert "fds[" not in str(caught.value)


@pytest.mark.parametrize("call", ["send", "send_all", "send_batch", "sendmsg", "send_fds"])
def test_a_buffer_that_is_yielded_and_dropped_is_held(packets: Pair, call: str) -> None:
    """An object from a generator would be freed, and its memory reused for the next one."""
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
    """Also if `control` has so many that the first array is too small."""
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
    """For the socket's own Fd and for those that are sent, however the call ends; otherwise close()
    would leave them open for good."""
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
def test_a_bare_number_is_not_a_list_of_descriptors(
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
    """Iterable, and declares by Python's own protocols that it is not a descriptor itself."""

    fileno = None

    def __iter__(self) -> Iterator[int]:
        return iter([0])


@pytest.mark.parametrize("by", WITH_FDS)
def test_fileno_that_is_none_is_not_a_fileno(stream: Pair, by: str) -> None:
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


# receive ----------------------------------------------------------------------------------------


def test_receive_asks_and_sets_no_option(stream: Pair) -> None:
    stream[0].send(b"x")
    cmsgx.receive(stream[1], 1)
    for option in (16, 34, 76):  # SO_PASSCRED, SO_PASSSEC, SO_PASSPIDFD
        assert stream[1].getsockopt(socket.SOL_SOCKET, option) == 0


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_receive_has_space_for_all_that_others_switched_on(kind: int) -> None:
    """Options that are on take no space from the descriptors."""
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
def test_each_sort_of_socket_is_accepted(pair: Pair, wrap: Callable[[socket.socket], Any]) -> None:
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
        # Without their knowledge: it does not fit, but it is not a descriptor.
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
