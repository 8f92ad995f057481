"""send_batch: many messages with one system call."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from batches import KEEP_BOUNDARIES, Interrupt, drain, handling, interrupt, new_pair, udp_pair
from pairs import fill, later
from support import Pair, content, open_files, run_python, until_it_waits

import cmsgx
from cmsgx import kinds

# One message instead of a list of them -----------------------------------------------------------


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    "message",
    [
        cmsgx.Outgoing(b"abc"),
        cmsgx.Outgoing([b"abc"], [0]),
        (b"abc", [0]),
        (b"abc", (0,)),
        (bytearray(b"abc"), [0], ()),
        (b"abc", ()),
        (b"abc", [], kinds.Ttl(3)),
        (b"abc", [], [kinds.Ttl(3)]),
        (b"abc", (), (), "/nowhere"),
        b"abc",
        b"",
        bytearray(b"abc"),
        memoryview(b"abc"),
        "abc",
    ],
)
def test_one_message_is_not_taken_for_a_list_of_its_parts(on_error: Any, message: Any) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (left, right):
        with pytest.raises(TypeError, match=r"^messages: a list of messages .* list: \["):
            cmsgx.send_batch(left, message, on_error=on_error)
        assert drain(right, 0) == []


def test_one_message_with_an_fd_is_not_taken_for_a_list_of_its_parts() -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        messages: Any
        for messages in ((b"abc", fd), (b"abc", [fd]), (b"abc", (fd, fd))):
            with pytest.raises(TypeError, match="not one message, a tuple; give it in a list"):
                cmsgx.send_batch(left, messages)
        assert drain(right, 0) == []


@pytest.mark.parametrize(
    ("messages", "sent"),
    [
        ((b"abc", [b"x"]), [b"abc", b"x"]),
        ((b"abc", (b"x", [])), [b"abc", b"x"]),
        ((b"abc", []), [b"abc", b""]),
        (([b"abc"], b"x"), [b"abc", b"x"]),
        ((cmsgx.Outgoing(b"abc"), b"x"), [b"abc", b"x"]),
        ((b"a", b"b", b"c", b"d", b"e"), [b"a", b"b", b"c", b"d", b"e"]),
        ((), []),
    ],
    ids=repr,
)
def test_a_tuple_of_messages_is_a_list_of_them(messages: Any, sent: list[bytes]) -> None:
    with new_pair(socket.SOCK_DGRAM) as (left, right):
        assert cmsgx.send_batch(left, messages) == len(sent)
        assert [one.data for one in drain(right, 0)] == sent


# Sending: each message with its own -------------------------------------------------------------


def forms() -> list[tuple[Any, bytes]]:
    return [
        (b"data", b"data"),
        (bytearray(b"data"), b"data"),
        (memoryview(b"-data-")[1:5], b"data"),
        ([b"da", bytearray(b"t"), memoryview(b"a")], b"data"),
        (b"", b""),
        ([], b""),
        ((b"data",), b"data"),
        ((b"data", (), (), None), b"data"),
        (([b"da", b"ta"],), b"data"),
        ((iter([b"da", b"ta"]),), b"data"),
        (cmsgx.Outgoing(b"data"), b"data"),
        (cmsgx.Outgoing([b"d"] * 20), b"d" * 20),
    ]


@pytest.mark.parametrize("kind", KEEP_BOUNDARIES)
def test_each_form_of_a_message(kind: int) -> None:
    with new_pair(kind) as (left, right):
        assert cmsgx.send_batch(left, [form for form, _ in forms()]) == len(forms())
        assert [one.data for one in drain(right)] == [data for _, data in forms()]
        assert cmsgx.send_batch(left, (form for form, _ in forms())) == len(forms())
        assert [one.data for one in drain(right)] == [data for _, data in forms()]


def test_descriptors_in_each_way(packets: Pair) -> None:
    left, right = packets
    with open_files(70) as files, cmsgx.Fd(os.dup(files[1])) as fd, open(os.dup(files[2])) as file:
        messages: list[Any] = [
            (b"numbers", files[:3]),
            cmsgx.Outgoing(b"an owner", [fd]),
            (b"a file", (file,)),
            (b"kind", (), cmsgx.Rights([files[3]])),
            (b"both", [files[4]], [cmsgx.Rights([fd, file])]),
            (b"iterator", iter([files[5], fd])),
            (b"many", [*files, fd]),
            b"none",
        ]
        assert cmsgx.send_batch(left, messages) == 8
        assert [one.files for one in drain(right)] == [
            ["0", "1", "2"], ["1"], ["2"], ["3"], ["4", "1", "2"], ["5", "1"],
            [*map(str, range(70)), "1"], [],
        ]  # fmt: skip
        assert content(fd) == "1"
        assert not file.closed


def test_nothing_to_send(packets: Pair) -> None:
    assert cmsgx.send_batch(packets[0], []) == 0
    assert cmsgx.send_batch(packets[0], iter(())) == 0
    with pytest.raises(BlockingIOError):
        cmsgx.receive(packets[1], 1, timeout=0)


def test_messages_has_to_be_iterable(packets: Pair) -> None:
    send_batch: Any = cmsgx.send_batch
    for arguments in ((packets[0],), (packets[0], 5), (packets[0], [b"x"], 0), ()):
        with pytest.raises(TypeError):
            send_batch(*arguments)
    with pytest.raises(TypeError, match="unexpected keyword"):
        send_batch(packets[0], [b"x"], flag=1)
    with pytest.raises(ZeroDivisionError) as caught:
        send_batch(packets[0], (b"x" if n else 1 // n for n in (1, 0)))
    assert not hasattr(caught.value, "sent")
    with pytest.raises(BlockingIOError):
        cmsgx.receive(packets[1], 1, timeout=0)


def test_to_many_addresses(tmp_path: Path) -> None:
    """AF_UNIX names, abstract names, and a received Address."""
    with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.bind(str(tmp_path / "sender"))
        names: list[Any] = [str(tmp_path / "a"), bytes(tmp_path / "b"), b"\0cmsgx-batch", ""]
        receivers = []
        for name in names:
            receivers.append(cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            receivers[-1].bind(name)
        targets = [sock.getsockname() for sock in receivers]
        assert cmsgx.send_batch(
            sender, [(str(i).encode(), (), (), name) for i, name in enumerate(targets)] * 2
        ) == 8  # fmt: skip
        for i, sock in enumerate(receivers):
            batch = cmsgx.BatchReceiver(sock, 4, 10).receive(timeout=60)
            assert [msg.data for msg in batch] == [str(i).encode()] * 2
            assert {msg.address for msg in batch} == {str(tmp_path / "sender")}
            answer = [(f"from {i}".encode(), (), (), msg.address) for msg in batch]
            assert cmsgx.send_batch(sock, answer) == 2
            sock.close()
        assert [one.data for one in drain(sender)] == [
            f"from {i}".encode() for i in range(4) for _ in range(2)
        ]


def test_each_kind_in_the_form_of_its_address() -> None:
    """To an IPv4-mapped address the kernel accepts the form of IPv4, and ignores the other."""
    with (
        cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender,
        udp_pair(socket.AF_INET) as (four, _),
        udp_pair(socket.AF_INET6) as (six, _),
    ):
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        targets = [("::ffff:127.0.0.1", four.getsockname()[1]), six.getsockname()]
        rx4 = cmsgx.BatchReceiver(four, 4, 10, want=[kinds.Ttl])
        rx6 = cmsgx.BatchReceiver(six, 4, 10, want=[kinds.HopLimit])
        messages = [(b"x", (), (kinds.HopLimit(9 + n),), targets[n % 2]) for n in range(4)]
        assert cmsgx.send_batch(sender, messages) == 4
        assert [msg[kinds.Ttl].ttl for msg in rx4.receive()] == [9, 11]
        assert [msg[kinds.HopLimit].hops for msg in rx6.receive()] == [10, 12]


def test_flags_are_passed(packets: Pair) -> None:
    fill(packets[0])
    with pytest.raises(BlockingIOError):
        cmsgx.send_batch(packets[0], [b"x"], flags=socket.MSG_DONTWAIT)


def test_each_message_is_audited(packets: Pair) -> None:
    code = """
import sys, socket, cmsgx
events = []
sys.addaudithook(lambda name, args: events.append(args[1]) if name == "socket.sendmsg" else None)
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
with left, right:
    assert cmsgx.send_batch(left, [b"1", (b"2",), b"3"]) == 3
print(events)
"""
    assert run_python(code).strip() == "[None, None, None]"


def test_buffers_stay_as_they_are_until_they_are_sent(packets: Pair) -> None:
    """Code that runs while the batch is read can neither shorten a buffer nor remove a message."""
    data = bytearray(b"data")
    messages: list[Any] = []
    refused = []

    class Meddler:
        def fileno(self) -> int:
            messages.clear()
            try:
                data.clear()
            except BufferError:
                refused.append(True)
            return 0

    messages[:] = [data, (b"x", [Meddler()]), b"behind"]
    assert cmsgx.send_batch(packets[0], messages) == 3
    assert [one.data for one in drain(packets[1], fds=1)] == [b"data", b"x", b"behind"]
    assert refused
    data.clear()  # and then it is free again


def test_no_sigpipe(stream: Pair) -> None:
    stream[1].close()
    with handling_pipe() as calls, pytest.raises(BrokenPipeError):
        cmsgx.send_batch(stream[0], [b"x", b"y"])
    assert calls == []


@contextmanager
def handling_pipe() -> Iterator[list[int]]:
    calls: list[int] = []
    before = signal.signal(signal.SIGPIPE, lambda number, _: calls.append(number))
    try:
        yield calls
    finally:
        signal.signal(signal.SIGPIPE, before)


# Streams ----------------------------------------------------------------------------------------


class Read(NamedTuple):
    """A read of a stream that brought a descriptor."""

    start: int
    end: int
    file: str


def received_stream(sock: cmsgx.socket, size: int, pause: float = 0.0) -> list[Read]:
    """Reads that many bytes."""
    found: list[Read] = []
    rx = cmsgx.BatchReceiver(sock, 4, 3000, fds=8)
    at = 0
    while at < size:
        time.sleep(pause)
        with rx.receive() as batch:
            for msg in batch:
                found += [Read(at, at + msg.nbytes, content(fd)) for fd in msg.fds]
                at += msg.nbytes
    assert at == size
    return found


def check_reads(reads: list[Read], starts: Sequence[int]) -> None:
    """Each descriptor came once, in order, with a read that has the first byte of its message: the
    kernel joins the tail of the previous message with it."""
    assert [read.file for read in reads] == [str(i) for i in range(len(starts))]
    for read, start in zip(reads, starts, strict=True):
        assert read.start <= start < read.end


@pytest.mark.parametrize("timeout", [None, 20.0])
@pytest.mark.parametrize("buffers", [False, True])
def test_a_stream_gets_each_byte_and_each_descriptor_once(
    stream: Pair, timeout: float | None, buffers: bool
) -> None:
    left, right = stream
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    left.settimeout(timeout)
    sizes = [1, 10_000, 1, 2, 100_000, 5, 30_000]
    starts = list(itertools.accumulate(sizes, initial=0))
    results: list[list[Read]] = []
    thread = threading.Thread(
        target=lambda: results.append(received_stream(right, starts[-1], 0.001))
    )
    thread.start()
    with open_files(len(sizes)) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        messages: list[Any] = []
        for i, size in enumerate(sizes):
            data = bytes(size)
            parts: Any = data
            if buffers:
                parts = [b"", *(data[at : at + 777] for at in range(0, size, 777)), b""]
            messages.append((parts, [owners[i]]))
        assert cmsgx.send_batch(left, messages) == len(sizes)
        for owner in owners:
            owner.close()
    thread.join()
    [reads] = results
    check_reads(reads, starts[:-1])


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_a_stream_that_takes_part_of_a_message(timeout: float) -> None:
    """The error says what was sent, in whole messages and bytes; the rest can be sent, without
    descriptors."""
    with new_pair(socket.SOCK_STREAM) as (left, right), open_files(3) as files:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        payload = os.urandom(300_000)
        messages = [(b"small", files[:1]), (payload, files[1:2]), (b"behind", files[2:])]
        with pytest.raises(TimeoutError if timeout else BlockingIOError) as caught:
            cmsgx.send_batch(left, messages, timeout=timeout)
        error: Any = caught.value
        assert error.sent == 1
        assert 0 < error.sent_bytes < len(payload)
        got: list[Read] = []
        thread = threading.Thread(
            target=lambda: got.extend(received_stream(right, 5 + len(payload) + 6))
        )
        thread.start()
        left.settimeout(None)
        cmsgx.send_batch(left, [payload[error.sent_bytes :], *messages[2:]])
        thread.join()
        check_reads(got, [0, 5, 5 + len(payload)])


def test_a_stream_that_is_closed_by_the_other_side() -> None:
    with new_pair(socket.SOCK_STREAM) as (left, right), open_files(1) as files:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        left.settimeout(60)
        with later(0.1, right.close), pytest.raises((BrokenPipeError, ConnectionResetError)) as e:
            cmsgx.send_batch(left, [b"small", (bytes(300_000), files), b"behind"])
        error: Any = e.value
        assert error.sent == 1
        assert 0 < error.sent_bytes < 300_000


def test_the_rest_is_sent_although_the_descriptor_is_closed() -> None:
    """It was sent with the first byte."""
    with new_pair(socket.SOCK_STREAM) as (left, right), open_files(2) as files:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        left.settimeout(60)
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        results: list[int] = []
        thread = threading.Thread(
            target=lambda: results.append(
                cmsgx.send_batch(left, [(bytes(100_000), owners[:1]), (b"x", owners[1:])])
            )
        )
        thread.start()
        until_it_waits(thread)
        owners[0].close()
        check_reads(received_stream(right, 100_001), [0, 100_000])
        thread.join()
        assert results == [2]
        owners[1].close()


def test_a_signal_in_the_middle_of_a_stream() -> None:
    with new_pair(socket.SOCK_STREAM) as (left, right), handling(interrupt):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        # Repeated, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 5)
        with pytest.raises(Interrupt) as caught:
            cmsgx.send_batch(left, [b"small", bytes(300_000)])
        error: Any = caught.value
        assert error.sent == 1
        left.close()
        got = b"".join(one.data for one in drain(right, 0))
        assert len(got) == 5 + error.sent_bytes
