"""ZeroCopySender: which buffers are in flight, and when they are free again."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest
from namespaces import needs_ipv6
from support import fill
from zerocopies import (
    COPIED,
    LAST,
    SIZE,
    can_resize,
    completion,
    kernel_id,
    read,
    reads_of,
    send_until_it_fails,
    stalled,
    tcp,
    udp,
)

import cmsgx
from cmsgx import kinds

SO_ZEROCOPY = 60


# Sending and completions --------------------------------------------------------------------------


def test_tcp() -> None:
    buffer = bytearray(os.urandom(SIZE))
    with tcp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        assert left.getsockopt(socket.SOL_SOCKET, SO_ZEROCOPY) == 1
        assert sender.copied is None
        sent = sender.send(buffer)
        assert read(right, sent) == buffer[:sent]
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert sender.copied is True  # as on any loopback connection
        assert sender.next_id == 1
        assert not sender.stopped
    assert sender.closed


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6)],
)
def test_udp(family: int, host: str) -> None:
    with udp(family, host) as (left, right), cmsgx.ZeroCopySender(left) as sender:
        for i in range(3):
            assert sender.send([bytes([i]) * SIZE, b"end"]) == SIZE + 3
            assert right.recv(1 << 16) == bytes([i]) * SIZE + b"end"
        assert sender.send(b"", address=right.getsockname()) == 0
        assert right.recv(1) == b""
        with socket.socket(family, socket.SOCK_DGRAM) as other:
            other.bind((host, 0))
            sender.send(b"elsewhere", address=other.getsockname())
            assert other.recv(100) == b"elsewhere"
        sender.send(b"segments", control=kinds.UdpSegment(4))
        assert [right.recv(100), right.recv(100)] == [b"segm", b"ents"]
        sender.wait(60)
        assert sender.next_id == kernel_id(left) == 5
        assert sender.pending == (0, 0)


def test_a_buffer_is_exported_until_its_completion() -> None:
    one, two = bytearray(SIZE), bytearray(b"x" * SIZE)
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        assert sender.send(one) == SIZE
        assert sender.send([two, b"more"]) == SIZE + 4
        assert sender.reap() == 0
        assert sender.pending == (2, 2 * SIZE + 4)
        assert not can_resize(one)
        assert not can_resize(two)
        data = read(right, ahead + 2 * SIZE + 4)
        assert data == bytes(ahead) + one + two + b"more"
        sender.wait()
        assert can_resize(one)
        assert can_resize(two)
        assert sender.pending == (0, 0)


def test_a_failed_send_holds_nothing() -> None:
    buffer = bytearray(100)
    with tcp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            sender.send(buffer)
        assert can_resize(buffer)
        assert sender.pending == (0, 0)
        assert sender.next_id == 0


def test_nothing_at_all_gets_no_id() -> None:
    with tcp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        assert sender.send(b"") == 0
        sender.send_all([])
        sender.send_all(b"1")
        sender.wait(60)
        assert sender.next_id == 1
        assert read(right, 1) == b"1"


def test_an_id_that_udp_gives_to_a_failed_send_is_not_given_again() -> None:
    buffer = bytearray(300)
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        for i in range(3):
            sender.send(b"1")
            assert sender.next_id == 2 * i + 1
            # Too many segments: the kernel notices only after everything is packed, and the id is
            # used up.
            with pytest.raises(OSError, match="Invalid argument") as caught:
                sender.send(buffer, control=kinds.UdpSegment(1))
            assert caught.value.errno == errno.EINVAL
            del caught
            assert can_resize(buffer)
        sender.send(b"1")
        sender.wait(60)
        assert sender.next_id == 7
        assert kernel_id(left) == 7


def test_send_all() -> None:
    data = os.urandom(3_000_000)
    received: list[bytes] = []
    with tcp() as (left, right), cmsgx.ZeroCopySender(left, max_bytes=100_000) as sender:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        reader = threading.Thread(target=lambda: received.append(read(right, len(data))))
        reader.start()
        sender.send_all([data[:10], b"", bytearray(data[10:])], timeout=60)
        reader.join()
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert sender.next_id > 1
    assert received == [data]


def test_send_all_says_what_was_sent() -> None:
    buffer = bytearray(3_000_000)
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        with pytest.raises(TimeoutError) as caught:
            sender.send_all(buffer, timeout=0.1)
        sent = cast(Any, caught.value).sent
        assert 0 < sent < len(buffer)
        assert sender.pending.bytes == sent
        read(right, ahead + sent)
        del caught
        sender.wait(60)
        assert can_resize(buffer)


def test_many_buffers() -> None:
    with tcp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        sender.send_all([b"ab"] * 3000)
        assert read(right, 6000) == b"ab" * 3000


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"max_pending": 2}, {"max_bytes": 2 * SIZE}], ids=str)
@pytest.mark.slow
def test_backpressure(limits: dict[str, Any]) -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left, **limits) as sender:
        for _ in range(2):
            sender.send(buffer)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            sender.send(buffer, timeout=0.1)
        assert time.monotonic() - started >= 0.1
        with pytest.raises(BlockingIOError) as caught:
            sender.send(buffer, timeout=0)
        assert caught.value.errno == errno.EAGAIN
        assert sender.pending == (2, 2 * SIZE)
        drain = threading.Timer(0.2, lambda: read(right, ahead + 2 * SIZE))
        drain.start()
        assert sender.send(buffer, timeout=60) == SIZE
        drain.join()
        read(right, SIZE)


def test_completions_that_are_there_free_space() -> None:
    with udp() as (left, right), cmsgx.ZeroCopySender(left, max_pending=1) as sender:
        for _ in range(5):
            assert sender.send(b"1", timeout=0) == 1
            assert right.recv(1) == b"1"


def test_a_send_above_max_bytes_is_sent_alone() -> None:
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left, max_bytes=10) as sender:
        assert sender.send(bytes(SIZE)) == SIZE
        with pytest.raises(BlockingIOError):
            sender.send(b"1", timeout=0)
        read(right, ahead + SIZE)
        assert sender.send(b"1") == 1
        read(right, 1)


@pytest.mark.slow
def test_a_full_socket_is_waited_for() -> None:
    with stalled() as (left, right, _), cmsgx.ZeroCopySender(left) as sender:
        assert type(send_until_it_fails(sender, bytes(SIZE), 0)[1]) is BlockingIOError
        # The receiver's kernel may still have accepted some.
        assert type(send_until_it_fails(sender, bytes(SIZE), 0.3)[1]) is TimeoutError
        reads = reads_of(sender)
        with pytest.raises(TimeoutError):
            sender.send(bytes(SIZE), timeout=0.5)
        assert 0 < reads() < 100
        sent = sender.pending.bytes
        drain = threading.Timer(0.1, lambda: read(right, sent))
        drain.start()
        assert sender.send(b"1", timeout=60) == 1
        drain.join()
        sender.release()


@pytest.mark.parametrize("is_blocking", [True, False])
def test_an_int_waits_where_it_blocks(is_blocking: bool) -> None:
    with stalled() as (left, right, ahead):
        left.setblocking(is_blocking)
        with cmsgx.ZeroCopySender(left.fileno(), max_pending=1) as sender:
            sender.send(b"1")
            drain = threading.Timer(0.2, lambda: read(right, ahead + 1))
            if is_blocking:
                drain.start()
                sender.send(b"2")
                drain.join()
            else:
                with pytest.raises(BlockingIOError):
                    sender.send(b"2")
                read(right, ahead + 1)
            sender.wait(60)


# Completions in any order -------------------------------------------------------------------------


@pytest.fixture
def waiting() -> Iterator[tuple[cmsgx.ZeroCopySender, list[bytearray]]]:
    """Five buffers in flight, with ids across the wrap: LAST - 1, LAST, 0, 1, 2."""
    with stalled() as (left, _, _):
        sender = cmsgx.ZeroCopySender(left, next_id=LAST - 1)
        buffers = [bytearray(1000 + i) for i in range(5)]
        for buffer in buffers:
            sender.send(buffer)
        assert sender.next_id == 3
        yield sender, buffers
        sender.release()


@pytest.mark.parametrize(
    ("ranges", "free"),
    [
        ([(LAST - 1, LAST - 1)], [0]),
        ([(2, 2), (LAST, LAST)], [1, 4]),
        ([(LAST, 1)], [1, 2, 3]),
        ([(LAST - 1, 2)], [0, 1, 2, 3, 4]),
        ([(1, 2), (0, 0), (LAST - 1, LAST)], [0, 1, 2, 3, 4]),
        ([(LAST, LAST), (LAST, LAST)], [1]),  # a second time
        ([(100, LAST - 2)], []),  # from before this sender
        ([(LAST - 1000, LAST)], [0, 1]),
        ([(LAST - 2**31 + 10, 2)], [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_completions_in_any_order_and_across_the_wrap(
    waiting: tuple[cmsgx.ZeroCopySender, list[bytearray]],
    ranges: list[tuple[int, int]],
    free: list[int],
) -> None:
    sender, buffers = waiting
    done = sum(sender.acknowledge(completion(*each)) for each in ranges)
    assert done == len(free)
    assert [i for i, buffer in enumerate(buffers) if can_resize(buffer)] == free
    left = [len(buffer) for i, buffer in enumerate(buffers) if i not in free]
    assert sender.pending == (len(left), sum(left))
    assert sender.next_id == 3
    assert sender.copied is (False if free else None)


def test_an_id_across_the_wrap_that_was_spent_is_left_out() -> None:
    with stalled() as (left, _, _):
        sender = cmsgx.ZeroCopySender(left, next_id=LAST)
        assert sender.acknowledge(completion(LAST, 0)) == 0
        assert sender.next_id == 1
        assert sender.copied is None


# The kernel copied after all ----------------------------------------------------------------------


@pytest.mark.parametrize("on_copied", ["keep", "stop"])
def test_on_copied(on_copied: Any) -> None:
    buffer = bytearray(SIZE)
    with udp() as (left, right), cmsgx.ZeroCopySender(left, on_copied=on_copied) as sender:
        sender.send(buffer)
        sender.wait(60)
        assert sender.copied is True
        assert sender.stopped is (on_copied == "stop")
        assert sender.send(buffer) == SIZE
        assert [len(right.recv(1 << 16)) for _ in range(2)] == [SIZE, SIZE]
        sender.wait(60)
        assert sender.next_id == (1 if sender.stopped else 2)
        assert kernel_id(left) == sender.next_id


def test_the_send_that_finds_out_that_it_stops_neither_fails_nor_waits() -> None:
    with udp() as (left, right), cmsgx.ZeroCopySender(left, on_copied="stop") as sender:
        left.settimeout(0)
        while not sender.stopped:
            assert sender.send(b"1") == 1
            assert right.recv(100) == b"1"
        sender.wait(60)
        assert sender.next_id == kernel_id(left)
        left.settimeout(60)


def test_it_can_stop_with_sends_in_flight(
    waiting: tuple[cmsgx.ZeroCopySender, list[bytearray]],
) -> None:
    sender, buffers = waiting
    sender.acknowledge(completion(0, 0, COPIED))
    assert sender.copied is True
    sender.acknowledge(completion(1, 1))
    assert sender.copied is True
    assert not can_resize(buffers[0])


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"max_bytes": 0}, {"max_pending": 0}, {"on_copied": "maybe"}, {"next_id": -1},
     {"next_id": 2**32}],
    ids=str,
)  # fmt: skip
def test_arguments(arguments: dict[str, Any]) -> None:
    with udp() as (left, _), pytest.raises(ValueError, match=next(iter(arguments))):
        cmsgx.ZeroCopySender(left, **arguments)


@pytest.mark.parametrize("name", ["max_bytes", "max_pending", "next_id"])
@pytest.mark.parametrize("value", [1.5, 2.0, "1"])
def test_fractions(name: str, value: object) -> None:
    text = f"{name}: an int is needed"
    with udp() as (left, _), pytest.raises(TypeError, match=text):
        cmsgx.ZeroCopySender(left, **cast(Any, {name: value}))


def test_what_is_not_a_report() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        with pytest.raises(TypeError, match="report: an ErrorReport is needed, not int"):
            sender.acknowledge(cast(Any, 5))
        assert not sender.reports


def test_not_supported() -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(cmsgx.NotSupportedError, match="SO_ZEROCOPY") as caught:
        cmsgx.ZeroCopySender(left)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_what_is_not_a_buffer() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        for wrong in ("text", 1, [1]):
            with pytest.raises(TypeError):
                sender.send(cast(Any, wrong))
        for send in (sender.send, sender.send_all):
            with pytest.raises(TypeError, match="contiguous"):
                send(memoryview(b"abcd")[::2])
        with pytest.raises(ValueError, match="timeout"):
            sender.send(b"1", timeout=-1)
        assert sender.pending == (0, 0)
        with suppress(BlockingIOError):
            sender.wait(0)


def test_repr() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left.fileno()) as sender:
        sender.send(b"12")
        assert repr(sender) == f"<ZeroCopySender of {left.fileno()}: 1 in flight, 2 bytes>"
        assert sender.close(5) == ()
        assert repr(sender) == f"<ZeroCopySender of {left.fileno()}: closed, 0 bytes>"


@pytest.mark.parametrize("name", ["send", "send_all"])
def test_iterators_that_are_used_up_are_named(name: str) -> None:
    with tcp() as (left, _right), cmsgx.ZeroCopySender(left) as sender:
        left.settimeout(0)
        call = getattr(sender, name)
        fill(left)
        for data, control, start in (
            (iter([bytes(1 << 20)]), (), "data was an iterator"),
            (iter([bytes(1 << 20)]), iter(()), "data, control were iterators"),
            ([bytes(1 << 20)], (), None),
        ):
            with pytest.raises(BlockingIOError) as caught:
                call(data, control=control, timeout=0)
            notes = getattr(caught.value, "__notes__", [])
            assert [note[: len(start or "")] for note in notes] == ([start] if start else [])
