"""Receiver: its loop, and the memory that it keeps for the next message."""

from __future__ import annotations

import itertools
import socket
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from pairs import new_pair
from support import (
    Pair,
    address_of,
    content,
    open_fds,
    open_files,
)

import cmsgx

# One-shot receive: what it keeps for the next ----------------------------------------------------


@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(), reason="a free-threaded Python keeps none"
)
def test_receive_does_not_allocate_a_control_buffer_each_time(stream: Pair) -> None:
    """It has space for everything that can come, some 8 KB; allocating it each time took a fifth of
    the call."""

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
    """Neither its data nor its size, nor the requested sizes."""
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


# The loop ---------------------------------------------------------------------------------------


def test_for_ends_at_the_end_of_a_stream(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 3)
    stream[0].send(b"abcdefgh")
    stream[0].close()
    assert [msg.data for msg in rx] == [b"abc", b"def", b"gh"]
    assert list(rx) == []


def test_for_continues_after_a_shutdown_that_left_data(stream: Pair) -> None:
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
def test_for_continues_after_an_empty_message_of_a_peer_that_has_gone(
    fds: int, behind: bytes
) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, receiver), open_files(1) as files:
        rx = cmsgx.Receiver(receiver, 10, fds=1)
        sender.send(b"")
        cmsgx.send(sender, behind, fds=files[:fds])
        sender.close()
        found = [(msg.data, len(msg.fds)) for msg in rx]
        # An empty message without a descriptor cannot be told from the end.
        assert found == ([(b"", 0), (behind, fds)] if behind or fds else [])
        assert list(rx) == []


def test_an_empty_seqpacket_with_a_descriptor_is_not_the_end() -> None:
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
def test_a_loop_that_stops_halfway_leaks_nothing(pair: Pair, keeps: str) -> None:
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


def test_a_loop_drops_the_previous_message(packets: Pair) -> None:
    for _ in range(3):
        packets[0].send(b"x")
    rx = cmsgx.Receiver(packets[1], 1)
    plain = rx.receive()
    first = next(rx)
    assert sys.getrefcount(first) == sys.getrefcount(plain) + 1
    second = next(rx)
    assert sys.getrefcount(first) == sys.getrefcount(plain)
    assert sys.getrefcount(second) == sys.getrefcount(plain) + 1


@pytest.mark.parametrize("batch", [False, True])
def test_a_loop_reuses_the_buffer_of_the_previous_message(packets: Pair, batch: bool) -> None:
    """The loop lets go of that message before it receives the next one."""
    loop: Any = cmsgx.BatchReceiver(packets[1], 1, 10) if batch else cmsgx.Receiver(packets[1], 10)
    addresses = set()
    for _ in range(3):
        packets[0].send(b"x")
        step = next(loop)
        addresses.add(address_of((step[0] if batch else step).view))
        del step
    assert len(addresses) == 1


def test_views_outlive_receiver_socket_and_message() -> None:
    with new_pair() as (sender, receiver):
        sender.send(b"still here")
        rx = cmsgx.Receiver(receiver, 100)
        view = memoryview(rx.receive().view)[6:]
        del rx
    assert bytes(view) == b"here"
    assert view.readonly
