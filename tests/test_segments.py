"""Segmentation offload: send_segments, UdpSegment, and message.segments."""

from __future__ import annotations

import enum
import errno
import gc
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from batches import LARGE, udp_pair
from segments import UDP_GRO, UDP_SEGMENT, drain, numbered, numbers, send_plainly
from support import unix_pair

import cmsgx
from cmsgx import _cmsg, _deadline, _segments, kinds

FAMILIES = (socket.AF_INET, socket.AF_INET6)


@pytest.fixture(scope="module", autouse=True)
def kernel_has_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        except OSError as error:
            pytest.skip(f"UDP_SEGMENT, UDP_GRO: {error}")


# Received ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("count", "size", "last"), [(2, 1, 1), (3, 10, 4), (64, 1000, 1000),
                                                     (45, 1400, 1), (10, 6540, 6539)])  # fmt: skip
def test_datagrams_that_were_joined(family: int, count: int, size: int, last: int) -> None:
    with udp_pair(family) as (one, two):
        rx = cmsgx.Receiver(two, 65536, want=[kinds.UdpGro])
        data = (bytes([n]) * size for n in range(count - 1))
        whole = b"".join(data) + b"z" * last
        control = kinds.UdpSegment(size)
        assert cmsgx.send(one, whole, control=control, address=two.getsockname()) == len(whole)
        with rx.receive() as msg:
            segments: Any = msg.segments
            assert msg[kinds.UdpGro].size == size
            assert len(segments) == count
            assert segments.size == size
            expected = [whole[at : at + size] for at in range(0, len(whole), size)]
            assert [bytes(one) for one in segments] == expected
            assert [bytes(segments[n]) for n in range(count)] == expected
            assert len(segments[-1]) == last
            assert segments[-count] == expected[0]
            for index in (count, -count - 1):
                with pytest.raises(IndexError):
                    segments[index]
            assert repr(segments) == f"<Segments, {count} of {size} bytes>"
            assert type(segments) is cmsgx.Segments
            assert type(segments[0]) is cmsgx.View
            match segments:
                case [first, *_]:
                    assert first == expected[0]
                case _:
                    pytest.fail("it does not match a sequence pattern")


@pytest.mark.parametrize("data", [b"", b"x", b"alone"])
@pytest.mark.parametrize("want", [(), (kinds.UdpGro,)])
def test_a_datagram_that_came_alone_is_one_segment(data: bytes, want: tuple[Any, ...]) -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.Receiver(two, 100, want=want)
        cmsgx.send(one, data, address=two.getsockname())
        with rx.receive() as msg:
            assert len(msg.segments) == 1
            assert [bytes(segment) for segment in msg.segments] == [data]
            assert bytes(msg.segments[0]) == data
            assert msg.segments.size == len(data)


def test_segments_of_any_message() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right:
        left.send(b"data")
        assert [bytes(one) for one in cmsgx.receive(right, 10).segments] == [b"data"]


def test_views_of_segments_outlive_message_and_receiver() -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.Receiver(two, 65536, want=[kinds.UdpGro])
        kept: list[Any] = []
        for turn in range(20):
            data = bytes(range(turn, turn + 30))
            cmsgx.send(one, data, control=kinds.UdpSegment(10), address=two.getsockname())
            msg = rx.receive()
            kept.append((msg.segments if turn % 2 else list(msg.segments), data))
            iterator = iter(msg.segments)
            del msg
        del rx
        gc.collect()
        for segments, data in kept:
            assert [bytes(one) for one in segments] == [data[:10], data[10:20], data[20:]]
        assert b"".join(map(bytes, iterator)) == kept[-1][1]
        with pytest.raises(StopIteration):
            next(iterator)


def test_a_buffer_that_is_too_small_cuts_the_last() -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.Receiver(two, 25, want=[kinds.UdpGro], on_truncation="keep")
        cmsgx.send(one, bytes(range(50)), control=kinds.UdpSegment(10), address=two.getsockname())
        with rx.receive() as msg:
            assert msg.truncated
            assert [len(segment) for segment in msg.segments] == [10, 10, 5]
        rx = cmsgx.Receiver(two, 7, want=[kinds.UdpGro], on_truncation="keep")
        cmsgx.send(one, bytes(range(50)), control=kinds.UdpSegment(10), address=two.getsockname())
        segments = rx.receive().segments
        assert [bytes(segment) for segment in segments] == [bytes(range(7))]
        assert (len(segments), segments.size) == (1, 7)


def test_segments_in_memory_of_ones_own() -> None:
    with udp_pair() as (one, two):
        memory = bytearray(100)
        whole = cmsgx.Receiver(two, into=memory, want=[kinds.UdpGro])
        parts = cmsgx.Receiver(two, into=[bytearray(7), bytearray(93)])
        for rx in (whole, parts):
            cmsgx.send(one, b"aabbc", control=kinds.UdpSegment(2), address=two.getsockname())
            with rx.receive() as msg:
                if rx is whole:
                    assert [bytes(segment) for segment in msg.segments] == [b"aa", b"bb", b"c"]
                else:
                    with pytest.raises(ValueError, match="several buffers"):
                        msg.segments  # noqa: B018


def test_in_a_batch() -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.BatchReceiver(two, 8, 65536, want=[kinds.UdpGro, kinds.Ttl])
        address = two.getsockname()
        messages = [
            (b"aabbc", (), (kinds.UdpSegment(2), kinds.Ttl(7)), address),
            (b"alone", (), kinds.Ttl(8), address),
            (b"123456", (), kinds.UdpSegment(3), address),
        ]
        assert cmsgx.send_batch(one, messages) == 3
        batch = rx.receive()
        assert [[bytes(part) for part in msg.segments] for msg in batch] == [
            [b"aa", b"bb", b"c"], [b"alone"], [b"123", b"456"]
        ]  # fmt: skip
        assert [msg[kinds.Ttl].ttl for msg in batch][:2] == [7, 8]


def test_they_are_not_made_by_users() -> None:
    with pytest.raises(TypeError):
        cmsgx.Segments()
    with pytest.raises(TypeError):
        type("Mine", (cmsgx.Segments,), {})


# Sent -------------------------------------------------------------------------------------------


@contextmanager
def any_sockets() -> Iterator[dict[str, Any]]:
    left, right = unix_pair(socket.SOCK_DGRAM)
    with (
        left,
        right,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as udp6,
        socket.socket() as tcp,
        cmsgx.Fd(os.dup(udp.fileno())) as fd,
    ):
        yield {"udp": udp, "udp6": udp6, "fd": fd, "int": udp.fileno(), "tcp": tcp, "unix": left}


def most_of_kernel() -> int:
    """Found by trying, with a separate socket."""
    with udp_pair() as (one, two):
        tried = {n: send_plainly(one, bytes(n), 1, two.getsockname()) for n in (64, 65, 128, 129)}
    assert tried[64] == 0
    assert tried[129] == errno.EINVAL
    assert tried[65] == tried[128]
    return 64 if tried[128] else 128


def test_support_is_probed() -> None:
    most = most_of_kernel()
    assert most in (64, 128)
    with any_sockets() as sockets:
        found = {name: cmsgx.segment_support(sock) for name, sock in sockets.items()}
        assert found == {"udp": most, "udp6": most, "fd": most, "int": most, "tcp": 0, "unix": 0}
        # None of its options was changed, not even briefly: another thread may be sending.
        for name in ("udp", "udp6"):
            assert sockets[name].getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        cmsgx.segment_support(1 << 20)


def options_set() -> None:
    """Counts the calls of setsockopt(2) that it takes to find out."""
    from test_counters import Counter

    counter = Counter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        cmsgx.segment_support(sock)
        made = counter.of(lambda: cmsgx.segment_support(sock))
        assert made["setsockopt"] == made["sendmsg"] == 0, made
        assert made["getsockopt"] == 1, made


def test_asking_sets_no_option() -> None:
    from test_counters import run_counted

    run_counted("import test_segments; test_segments.options_set()")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 63, 64, 65, 127, 128, 129, 300])
@pytest.mark.parametrize(("size", "last"), [(4, 4), (100, 4), (1400, 1399)])
def test_all_arrive_once_in_order(family: int, count: int, size: int, last: int) -> None:
    with udp_pair(family) as (one, two):
        data = numbered(count, size, last if count else None)
        sent = cmsgx.send_segments(one, data, size, address=two.getsockname())
        got = drain(two)
        assert sent == max(count, 1)  # no data is one empty datagram
        assert b"".join(got) == data
        assert numbers(got) == (list(range(count)) if count else [0])
        assert [len(part) for part in got] == ([size] * (count - 1) + [last] if count else [0])


@pytest.mark.parametrize("size", [20_000, 32_753, 32_754, 65_507])
def test_few_large_ones(size: int) -> None:
    with udp_pair() as (one, two):
        data = numbered(5, size)
        assert cmsgx.send_segments(one, data, size, address=two.getsockname()) == 5
        assert drain(two) == [data[at : at + size] for at in range(0, 5 * size, size)]


def test_control_data_is_sent_with_each() -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.BatchReceiver(two, 300, 100, want=[kinds.Ttl])
        for control in (kinds.Ttl(9), [kinds.Ttl(9)], iter([kinds.Ttl(9)])):
            cmsgx.send_segments(
                one, numbered(200, 50), 50, control=control, address=two.getsockname()
            )
            batch = rx.receive()
            assert len(batch) == 200  # because the receiver has no UDP_GRO
            assert {msg[kinds.Ttl].ttl for msg in batch} == {9}


def test_any_buffer_and_a_connected_socket() -> None:
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        data = numbered(10, 8)
        for form in (bytearray(data), memoryview(data), memoryview(data).cast("I")):
            assert cmsgx.send_segments(one, form, 8) == 10
            assert drain(two) == [data[at : at + 8] for at in range(0, 80, 8)]


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_has_a_byte(size: int) -> None:
    with (
        udp_pair() as (one, _),
        pytest.raises(ValueError, match=f"size: {size}; must be 1 or more"),
    ):
        cmsgx.send_segments(one, b"x", size)


@pytest.mark.parametrize("size", [1.5, 2.0, "1"])
def test_a_size_is_a_whole_number(size: Any) -> None:
    with udp_pair() as (one, _), pytest.raises(TypeError, match="size: an int is needed"):
        cmsgx.send_segments(one, b"x", size)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET])
@pytest.mark.parametrize("data", [b"", b"ab", b"abcdef"])
@pytest.mark.parametrize("form", [lambda sock: sock, socket.socket.fileno])
def test_a_stream_keeps_no_datagrams_apart(family: int, data: bytes, form: Any) -> None:
    with (
        socket.socket(family) as stream,
        pytest.raises(cmsgx.NotSupportedError, match=r"SOCK_STREAM.*send_all"),
    ):
        cmsgx.send_segments(form(stream), data, 2)


class Level(enum.IntEnum):
    UDP = socket.IPPROTO_UDP


@pytest.mark.parametrize("size", [0, 4])
@pytest.mark.parametrize(
    "form",
    [
        lambda other: other,
        lambda other: iter([cmsgx.kinds.Ttl(9), other]),
        lambda other: [(other.level, other.type, other.pack())],
        lambda other: [(Level.UDP, other.type, other.pack())],
        lambda other: (cmsgx.Unknown(other.level, other.type, other.pack()),),
    ],
    ids=["kind", "iterator", "raw", "enum", "Unknown"],
)
def test_another_size_in_control_is_refused(size: int, form: Callable[[Any], Any]) -> None:
    """The kernel would use that one, and the datagrams would have another size than requested."""
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        with pytest.raises(ValueError, match=r"^control: .*`size`"):
            cmsgx.send_segments(one, b"12345678", 2, control=form(kinds.UdpSegment(size)))
        assert drain(two) == []


@pytest.mark.parametrize("data", [b"12", b"12345678"], ids=["alone", "segments"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"control": [cmsgx.kinds.Ttl(9), (1, 2)]},
            r"control[1]: (level, type, data) has 3 items, and this has 2",
        ),
        ({"address": 5}, "address: "),
    ],
    ids=["control", "address"],
)
def test_an_error_names_what_the_caller_gave(
    data: bytes, arguments: dict[str, Any], text: str
) -> None:
    """And neither messages[0], which does not exist, nor a place after what was added."""
    with udp_pair() as (one, _), pytest.raises((TypeError, ValueError)) as caught:
        cmsgx.send_segments(one, data, 2, **arguments)
    assert str(caught.value).startswith(text)
    assert not hasattr(caught.value, "__notes__")


def test_a_closed_socket() -> None:
    with udp_pair() as (one, _), cmsgx.Fd(os.dup(one.fileno())) as fd:
        one.close()
        fd.close()
        for sock in (one, fd):
            for call in (
                partial(cmsgx.segment_support, sock),
                partial(cmsgx.send_segments, sock, bytes(30), 10),
            ):
                with pytest.raises(OSError, match="Bad file descriptor") as caught:
                    call()
                assert caught.value.errno == errno.EBADF


def test_over_a_socket_without_segments() -> None:
    left, right = unix_pair(socket.SOCK_DGRAM)
    with left, right:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        data = numbered(300, 10, 7)
        assert cmsgx.send_segments(left, data, 10) == 300
        assert b"".join(drain(right, ())) == data
        right.close()
        with pytest.raises(ConnectionRefusedError) as caught:
            cmsgx.send_segments(left, data, 10)
        assert caught.value.sent == 0  # type: ignore[attr-defined]


def test_what_cannot_be_sent_at_all() -> None:
    with udp_pair() as (one, _), pytest.raises(PermissionError) as caught:
        cmsgx.send_segments(one, numbered(3, 10), 10, address=("255.255.255.255", 9))
    assert caught.value.sent == 0  # type: ignore[attr-defined]


# One deadline -----------------------------------------------------------------------------------


def count_timeouts(monkeypatch: pytest.MonkeyPatch, seconds: float = 0) -> list[Any]:
    """The timeout that each call with segments is given; each then takes that long."""
    given: list[Any] = []
    call = _cmsg.send_tracked

    def send_tracked(*arguments: Any, timeout: Any, **more: Any) -> Any:
        given.append(timeout)
        result = call(*arguments, timeout=timeout, **more)
        time.sleep(seconds)
        return result

    monkeypatch.setattr(_segments, "send_tracked", send_tracked)
    return given


@pytest.mark.parametrize("is_of_socket", [False, True])
def test_one_deadline_for_all_calls(monkeypatch: pytest.MonkeyPatch, is_of_socket: bool) -> None:
    given = count_timeouts(monkeypatch)
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        if is_of_socket:
            one.settimeout(600)
        limit: Any = {} if is_of_socket else {"timeout": 600}
        assert cmsgx.send_segments(one, numbered(300, 10), 10, **limit) == 300
        assert len(given) >= 3
        assert 600 >= given[0] > given[1] > given[2] > 0


@pytest.mark.parametrize(("timeout", "expected"), [(..., ...), (None, None), (0, 0)])
def test_a_call_without_a_deadline(
    monkeypatch: pytest.MonkeyPatch, timeout: Any, expected: Any
) -> None:
    given = count_timeouts(monkeypatch)
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        for sock in (one, one.fileno()):
            assert cmsgx.send_segments(sock, numbered(300, 10), 10, timeout=timeout) == 300
        assert set(given) == {expected}


def test_when_time_is_up_it_returns_what_went(monkeypatch: pytest.MonkeyPatch) -> None:
    """And raises if the rest cannot be given again, because an iterator was read."""
    given = count_timeouts(monkeypatch, 0.02)
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        most = cmsgx.segment_support(one)
        data = numbered(300, 10)
        assert cmsgx.send_segments(one, data, 10, timeout=0.01) == most
        with pytest.raises(TimeoutError) as caught:
            cmsgx.send_segments(one, data, 10, control=iter([kinds.Ttl(9)]), timeout=0.01)
        assert caught.value.sent == most  # type: ignore[attr-defined]
        assert caught.value.__notes__[0].startswith("control was an iterator")
        assert len(given) == 2
        assert numbers(drain(two)) == 2 * list(range(most))


@pytest.mark.parametrize("error", [TimeoutError("of a handler"), OSError(errno.EIO, "of one")])
def test_a_handler_in_place_of_the_deadline(
    monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """It is neither the end of the time, nor a refusal of the kernel."""

    def timeout(_: object) -> float:
        raise error

    monkeypatch.setattr(_deadline.Deadline, "timeout", timeout)
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        with pytest.raises(type(error)) as caught:
            cmsgx.send_segments(one, numbered(300, 10), 10, timeout=60)
        assert caught.value is error
        assert error.sent == 0  # type: ignore[attr-defined]
        assert not hasattr(error, "sent_bytes")
