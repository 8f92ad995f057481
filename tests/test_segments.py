"""Segmentation offload: send_segments, segment_support, UdpSegment, and message.segments."""

from __future__ import annotations

import enum
import errno
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, cast

import pytest
from batches import LARGE, handling, of_handlers, raising, udp_pair
from namespaces import Namespace, ip, needs_ipv6
from native import Shim, under_shim
from network import V4, V6, set_link
from support import TESTS, run_python, unix_pair
from test_hazards_identity import needs_namespaces

import cmsgx
from cmsgx import _batch, kinds, wire

FAMILIES = (socket.AF_INET, socket.AF_INET6)
SO_NO_CHECK = 11
UDP_SEGMENT = 103
UDP_GRO = 104


def each(function: str, cases: list[tuple[int, ...]]) -> None:
    """Calls a function of this file for each of the cases."""
    for case in cases:
        print(function, case)
        globals()[function](*case)
    print("done")


def for_each(function: str, cases: list[tuple[int, ...]]) -> None:
    """The same, in a process under the shim."""
    code = f"import test_segments as here; here.each({function!r}, {cases!r})"
    assert run_python(code, timeout=300, env=under_shim()).endswith("done\n")


@pytest.fixture(scope="module", autouse=True)
def kernel_has_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        except OSError as error:
            pytest.skip(f"UDP_SEGMENT, UDP_GRO: {error}")


def numbered(count: int, size: int, last: int | None = None) -> bytes:
    """That many datagrams, each with its number in front; the last of `last` bytes."""
    parts = [number.to_bytes(4, "big").ljust(size, b".") for number in range(count)]
    if last is not None:
        parts[-1] = parts[-1][:last]
    return b"".join(parts)


def numbers(datagrams: list[bytes]) -> list[int]:
    return [int.from_bytes(one[:4], "big") for one in datagrams]


def drain(sock: cmsgx.socket, want: tuple[Any, ...] = (kinds.UdpGro,)) -> list[bytes]:
    """Each datagram that is there, whether it comes joined with others or not."""
    rx = cmsgx.BatchReceiver(sock, 8, 65536, want=want)
    found: list[bytes] = []
    with suppress(BlockingIOError):
        while True:
            for msg in rx.receive(timeout=0):
                assert not msg.truncated
                found += map(bytes, msg.segments)
    return found


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
            assert type(segments) is wire.Segments
            assert type(segments[0]) is wire.View
            match segments:
                case [first, *_]:
                    assert first == expected[0]
                case _:
                    pytest.fail("it matches no sequence")


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
        wire.Segments()
    with pytest.raises(TypeError):
        type("Mine", (wire.Segments,), {})


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


def send_plainly(sock: cmsgx.socket, data: bytes, size: int, address: Any = None) -> int:
    """0, or the errno of a message with segments, by the socket's own method."""
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]
    try:
        socket.socket.sendmsg(sock, [data], control, 0, *([address] if address else []))
    except OSError as error:
        return error.errno or -1
    return 0


def most_of_kernel() -> int:
    """By trying, with a socket of its own."""
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
        # No option of it was touched, not for a moment: another thread may be sending.
        for name in ("udp", "udp6"):
            assert sockets[name].getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT) == 0
    with pytest.raises(OSError, match="Bad file descriptor"):
        cmsgx.segment_support(1 << 20)


def options_set() -> None:
    """Counts what setsockopt(2) does for an answer."""
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
        assert sent == max(count, 1)  # nothing is one empty datagram
        assert b"".join(got) == data
        assert numbers(got) == (list(range(count)) if count else [0])
        assert [len(part) for part in got] == ([size] * (count - 1) + [last] if count else [0])


@pytest.mark.parametrize("size", [20_000, 32_753, 32_754, 65_507])
def test_few_large_ones(size: int) -> None:
    with udp_pair() as (one, two):
        data = numbered(5, size)
        assert cmsgx.send_segments(one, data, size, address=two.getsockname()) == 5
        assert drain(two) == [data[at : at + size] for at in range(0, 5 * size, size)]


def test_control_data_goes_with_each() -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.BatchReceiver(two, 300, 100, want=[kinds.Ttl])
        for control in (kinds.Ttl(9), [kinds.Ttl(9)], iter([kinds.Ttl(9)])):
            cmsgx.send_segments(
                one, numbered(200, 50), 50, control=control, address=two.getsockname()
            )
            batch = rx.receive()
            assert len(batch) == 200  # as the receiver has no UDP_GRO
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
    with udp_pair() as (one, _), pytest.raises(ValueError, match=f"size: {size}; it is 1 or more"):
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
    """The kernel would take that one, and the datagrams have another size than was asked for."""
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
    """And neither messages[0], which there is not, nor a place behind what was added."""
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


def test_what_does_not_go_at_all() -> None:
    with udp_pair() as (one, _), pytest.raises(PermissionError) as caught:
        cmsgx.send_segments(one, numbered(3, 10), 10, address=("255.255.255.255", 9))
    assert caught.value.sent == 0  # type: ignore[attr-defined]


# What a path refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["socket", "Fd", "int"])
def test_without_checksums_it_falls_back(form: str) -> None:
    """EINVAL: by a batch, each datagram once."""
    with udp_pair() as (one, two), cmsgx.Fd(os.dup(one.fileno())) as fd:
        one.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        one.connect(two.getsockname())
        assert send_plainly(one, bytes(30), 10) == errno.EINVAL
        sock: Any = {"socket": one, "Fd": fd, "int": one.fileno()}[form]
        before = cmsgx.segment_support(sock)
        assert before >= 64
        for _ in range(2):
            assert cmsgx.send_segments(sock, numbered(300, 10, 5), 10) == 300
            assert numbers(drain(two)) == list(range(300))
        # It is remembered, though not of a number, which is another socket's tomorrow.
        assert cmsgx.segment_support(sock) == (before if form == "int" else 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            assert cmsgx.segment_support(other) == before


def test_an_object_without_weak_references_is_forgotten() -> None:
    class Slotted:
        __slots__ = ("sock",)

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def fileno(self) -> int:
            return self.sock.fileno()

    with udp_pair() as (one, two):
        one.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        one.connect(two.getsockname())
        slotted = Slotted(one)
        before = cmsgx.segment_support(slotted)
        assert cmsgx.send_segments(slotted, numbered(30, 10), 10) == 30
        assert numbers(drain(two)) == list(range(30))
        assert cmsgx.segment_support(slotted) == before > 0


def test_a_datagram_that_is_refused_itself_says_nothing_of_segments() -> None:
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        before = cmsgx.segment_support(one)
        # Each larger than a datagram can be; a control message that the kernel does not take.
        bad = [(socket.IPPROTO_IP, socket.IP_TTL, b"1")]
        for data, size, control in (
            (bytes(200_000), 70_000, ()),
            (bytes(70_000), 70_000, ()),
            (bytes(30), 10, bad),
        ):
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                cmsgx.send_segments(one, data, size, control=control)  # type: ignore[arg-type]
            assert caught.value.errno in (errno.EMSGSIZE, errno.EINVAL)
            assert caught.value.sent == 0  # type: ignore[attr-defined]
        assert cmsgx.segment_support(one) == before
        assert drain(two) == []


@pytest.mark.parametrize("own", [1, 3, 10, 2000])
@pytest.mark.parametrize("count", [1, 2, 65, 129, 300])
@pytest.mark.parametrize("falls_back", [False, True])
def test_the_sockets_own_option_cuts_nothing(own: int, count: int, falls_back: bool) -> None:
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        if falls_back:
            one.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        one.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, own)
        for last in (10, 7):
            assert cmsgx.send_segments(one, numbered(count, 10, last), 10) == count
            got = drain(two)
            assert numbers(got) == list(range(count))
            assert [len(part) for part in got] == [10] * (count - 1) + [last]
        assert one.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT) == own


def small_mtu() -> None:
    """On a loopback device with an MTU of 1280, in a network namespace of its own."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, 0x8922, struct.pack("16si12x", b"lo", 1280))  # SIOCSIFMTU
        flags = struct.pack("16sh14x", b"lo", 0x49)  # IFF_UP, _LOOPBACK, _RUNNING
        fcntl.ioctl(sock, 0x8914, flags)  # SIOCSIFFLAGS
    IP_MTU_DISCOVER, DONT, DO = 10, 0, 2
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        before = cmsgx.segment_support(one)
        # With path MTU discovery the datagrams themselves are too large: no fallback helps.
        one.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)) as caught:
            cmsgx.send_segments(one, numbered(30, 1400), 1400)
        assert caught.value.errno == errno.EMSGSIZE
        assert drain(two) == []
        assert cmsgx.segment_support(one) == before
        # What fits goes in segments all the same.
        assert cmsgx.send_segments(one, numbered(30, 1200), 1200) == 30
        assert numbers(drain(two)) == list(range(30))
        # Without it each may be fragmented, but segments still may not.
        one.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DONT)
        assert send_plainly(one, bytes(5600), 1400) in (errno.EMSGSIZE, errno.EINVAL)
        assert cmsgx.send_segments(one, numbered(200, 1400, 9), 1400) == 200
        assert numbers(drain(two)) == list(range(200))
        assert cmsgx.segment_support(one) == before
        assert cmsgx.send_segments(one, numbered(50, 1400), 1400) == 50
        assert numbers(drain(two)) == list(range(50))
    print("done")


def test_above_the_mtu_it_falls_back() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_segments as t; t.small_mtu()"
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    done = subprocess.run(
        [*needs_namespaces(*flags), sys.executable, "-W", "error", "-c", code, str(TESTS)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "done", done.stderr


def refused_by_device(error: int) -> None:
    """As a device or an xfrm says it that cannot, at the first of several calls or later."""
    shim = Shim()
    shim.refuse_segments(0)
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        assert cmsgx.segment_support(one) >= 64
        assert cmsgx.send_segments(one, numbered(300, 10), 10) == 300
        assert numbers(drain(two)) == list(range(300))
        shim.refuse_segments(error)
        for _ in range(3):
            assert cmsgx.send_segments(one, numbered(300, 10, 7), 10) == 300
            got = drain(two)
            assert numbers(got) == list(range(300))
            assert len(got[-1]) == 7
        assert shim.refusals() == 1, "it was tried again"
        assert cmsgx.segment_support(one) == 0


@pytest.mark.slow
def test_a_device_that_cannot() -> None:
    for_each("refused_by_device", [(errno.EIO,), (errno.EINVAL,)])


def joined(rx: cmsgx.Receiver) -> int:
    """How many datagrams came at once."""
    with rx.receive() as msg:
        return len(msg.segments)


def wait_for(sock: cmsgx.socket) -> cmsgx.Receiver:
    sock.settimeout(60)
    return cmsgx.Receiver(sock, 65536, want=[kinds.UdpGro])


@pytest.mark.parametrize("family", [V4, pytest.param(V6, marks=needs_ipv6)])
@pytest.mark.parametrize("is_connected", [True, False])
def test_one_segment_that_is_too_long_is_not_held_against_the_next(
    family: int, is_connected: bool
) -> None:
    """EMSGSIZE is of that send: shorter ones go in segments, and long ones once the MTU allows."""
    with Namespace(mtu=1280) as network, network.entered(), udp_pair(family) as (one, two):
        to = two.getsockname()
        if is_connected:
            one.connect(to)
        send = partial(cmsgx.send_segments, one, address=None if is_connected else to)
        rx = wait_for(two)
        before = cmsgx.segment_support(one)
        assert before >= 64
        for _ in range(2):
            assert send(bytes(5000), 1000) == 5
            assert joined(rx) == 5
            assert send(bytes(5600), 1400) == 4
            assert [joined(rx) for _ in range(4)] == [1] * 4
            assert cmsgx.segment_support(one) == before
        set_link("lo", mtu=65536)
        assert send(bytes(5600), 1400) == 4
        assert joined(rx) == 4


def test_a_destination_with_a_small_mtu_is_not_held_against_others() -> None:
    with Namespace() as network, network.entered(), udp_pair() as (one, _):
        ip("route", "add", "local", "127.0.0.3", "dev", "lo", "table", "local", "mtu", "1280")
        with udp_socket("127.0.0.3") as narrow, udp_socket("127.0.0.2") as wide:
            receivers = [(narrow, wait_for(narrow), [1] * 4), (wide, wait_for(wide), [4])]
            for sock, rx, parts in 2 * receivers:
                to = sock.getsockname()
                assert cmsgx.send_segments(one, bytes(5600), 1400, address=to) == 4
                assert [joined(rx) for _ in parts] == parts


def udp_socket(host: str) -> cmsgx.socket:
    sock = cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def refused_on_a_path(error: int) -> None:
    """EIO and EINVAL are remembered of the destination, or of the peer, and of no other."""
    shim = Shim()
    with udp_pair() as (one, two), udp_socket("127.0.0.2") as other:
        most = cmsgx.segment_support(one)
        to = [sock.getsockname() for sock in (two, other)]
        rx = [wait_for(sock) for sock in (two, other)]
        ways = [kinds.PacketInfo(local="127.0.0.1"), kinds.Mark(0)]

        def send(at: int, control: Any = ()) -> int:
            """How many came at once: 10 or 1."""
            assert cmsgx.send_segments(one, bytes(100), 10, control=control, address=to[at]) == 10
            found = joined(rx[at])
            assert found == 10 or [joined(rx[at]) for _ in range(9)] == [1] * 9
            return found

        shim.refuse_segments(error)
        assert send(0) == 1
        assert shim.refusals() == 1
        shim.refuse_segments(0)
        assert [send(0), send(1), send(0), send(1)] == [1, 10, 1, 10]
        assert cmsgx.segment_support(one) == most
        # Nor of another way there; what is no way changes nothing.
        assert [send(0, way) for way in ways] == [10, 10]
        assert send(0, kinds.Ttl(9)) == 1
        shim.refuse_segments(error)
        assert send(0, ways[0]) == 1
        shim.refuse_segments(0)
        assert [send(0, way) for way in ways] == [1, 10]
        # The same path by connect().
        one.connect(to[0])
        to[0] = None
        assert send(0) == 1
        assert cmsgx.segment_support(one) == 0
        to[0], to[1] = to[1], None
        one.connect(to[0])
        assert send(1) == 10
        assert cmsgx.segment_support(one) == most


def test_a_refusal_is_remembered_of_its_path_only() -> None:
    for_each("refused_on_a_path", [(errno.EIO,), (errno.EINVAL,)])


def refused_for_its_size() -> None:
    """Before Linux 6.14 a segment above the MTU is EINVAL: a shorter one is tried again."""
    shim = Shim()
    kernel = _batch._kernel()._replace(names_size=False)
    cast(Any, _batch)._kernel = lambda: kernel
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        rx = wait_for(two)
        most = cmsgx.segment_support(one)

        def send(size: int) -> int:
            assert cmsgx.send_segments(one, bytes(4 * size), size) == 4
            found = joined(rx)
            assert found == 4 or [joined(rx) for _ in range(3)] == [1] * 3
            return found

        shim.refuse_segments(errno.EINVAL)
        assert send(1400) == 1
        shim.refuse_segments(0)
        assert [send(size) for size in (1400, 1000, 1401, 1399)] == [1, 4, 1, 4]
        shim.refuse_segments(errno.EINVAL)
        assert send(500) == 1
        assert send(1400) == 1
        assert shim.refusals() == 1
        shim.refuse_segments(0)
        assert [send(size) for size in (500, 499)] == [1, 4]
        assert cmsgx.segment_support(one) == most
        # A device that cannot is another matter.
        shim.refuse_segments(errno.EIO)
        assert send(100) == 1
        shim.refuse_segments(0)
        assert send(1) == 1
        assert cmsgx.segment_support(one) == 0


def refused_by_each() -> None:
    """What is remembered of a socket does not grow with the number of its peers."""
    shim = Shim()
    shim.refuse_segments(errno.EIO)
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in range(1, _batch._MOST_PATHS + 300):
            address = ("127.0.0.1", port)
            with suppress(ConnectionRefusedError):
                cmsgx.send_segments(sock, b"12", 1, address=address)
        known = _batch._refused[sock]
        assert 0 < len(known) <= _batch._MOST_PATHS
        del known
    del sock
    gc.collect()
    assert not _batch._refused


@pytest.mark.slow
def test_a_segment_too_long_for_an_older_kernel_is_not_held_against_shorter_ones() -> None:
    for_each("refused_for_its_size", [()])


@pytest.mark.slow
def test_what_is_remembered_of_paths_is_bounded() -> None:
    for_each("refused_by_each", [()])


def refused_later(calls: int, error: int) -> None:
    """The path changes in the middle: the rest goes by a batch, nothing twice."""
    shim = Shim()
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        most = cmsgx.segment_support(one)
        count = 4 * most
        shim.refuse_segments_after(calls, error)
        sent = cmsgx.send_segments(one, numbered(count, 10), 10)
        got = numbers(drain(two))
        if error in (errno.EIO, errno.EINVAL, errno.EMSGSIZE):
            assert sent == count
            assert cmsgx.segment_support(one) == (most if error == errno.EMSGSIZE else 0)
        else:
            assert sent == calls * most
            assert cmsgx.segment_support(one) == most
        assert got == list(range(sent))
        assert shim.refusals() == 1


def test_a_path_that_changes() -> None:
    errors = (errno.EIO, errno.EMSGSIZE, errno.ENOBUFS, errno.ENETUNREACH)
    for_each("refused_later", list(itertools.product((1, 2, 3), errors)))


def fallback_that_fails(after: int) -> None:
    """Of the batch, too, it is told how many went."""
    shim = Shim()
    with udp_pair() as (one, two):
        one.connect(two.getsockname())
        shim.refuse_segments(errno.EIO)
        shim.fail_send(after, errno.ENETUNREACH)
        if after == 0:
            with pytest.raises(OSError, match="unreachable") as caught:
                cmsgx.send_segments(one, numbered(20, 10), 10)
            assert caught.value.sent == 0  # type: ignore[attr-defined]
            assert cmsgx.segment_support(one) > 0  # it helped nothing
        else:
            assert cmsgx.send_segments(one, numbered(20, 10), 10) == after
            assert cmsgx.segment_support(one) == 0
        assert numbers(drain(two)) == list(range(after))


def test_a_fallback_that_fails() -> None:
    for_each("fallback_that_fails", [(0,), (1,), (7,), (19,)])


@pytest.mark.parametrize("room", [0, 2])
@pytest.mark.parametrize("control", [iter, list])
def test_an_iterator_that_is_used_up_is_told(room: int, control: Any) -> None:
    """Another call would send the rest without what was in it."""
    left, right = unix_pair(socket.SOCK_DGRAM)
    with left, right:
        with suppress(BlockingIOError):
            while True:
                left.send(b"x", socket.MSG_DONTWAIT)
        for _ in range(room):
            right.recv(1)

        def call() -> int:
            return cmsgx.send_segments(left, b"12345", 1, control=control([]), timeout=0)

        if room and control is list:
            assert call() == room
            return
        with pytest.raises(BlockingIOError) as caught:
            call()
        assert caught.value.sent == room  # type: ignore[attr-defined]
        notes = getattr(caught.value, "__notes__", [])
        assert [note[:23] for note in notes] == ["control was an iterator"] * (control is iter)


@pytest.mark.parametrize("error", of_handlers(), ids=repr)
def test_a_handler_that_raises_tells_what_went(error: Any) -> None:
    """While a full socket is waited for. No errno of it is taken for the kernel's."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    gc.collect()  # or the handler runs in what an earlier test has left to be finalised
    with left, right, handling(raising(error)):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        # Again, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 5)
        with pytest.raises(type(error)) as caught:
            cmsgx.send_segments(left, numbered(1000, 100), 100)
        assert caught.value is error
        sent = error.sent
        assert 0 < sent < 1000
        assert numbers(drain(right, ())) == list(range(sent))


def interrupted_behind(which: int, refusal: int) -> None:
    """A handler raises right behind a system call that sent: of segments, or of the fallback."""
    shim = Shim()
    error: Any = of_handlers()[which]
    with udp_pair() as (one, two), handling(raising(error)):
        one.connect(two.getsockname())
        most = cmsgx.segment_support(one)
        shim.refuse_segments(refusal)
        shim.delay_send(200)
        data = numbered(2 * most, 10)
        gc.collect()
        raised = pytest.raises(type(error))
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with raised as caught:
            cmsgx.send_segments(one, data, 10)
        shim.delay_send(0)
        assert caught.value is error
        got = numbers(drain(two))
        assert got == list(range(error.sent))
        assert len(got) in (most, 2 * most)
        assert cmsgx.segment_support(one) == most


def interrupted_in_the_fallback(which: int) -> None:
    """What went in segments and what went by the batch are both told."""
    shim = Shim()
    error: Any = of_handlers()[which]
    with udp_pair() as (one, two), handling(raising(error)):
        one.connect(two.getsockname())
        most = cmsgx.segment_support(one)
        shim.refuse_segments_after(1, errno.EIO)
        shim.delay_send(40)  # each: one of segments, and the first of the batch
        signal.setitimer(signal.ITIMER_REAL, 0.06)
        with pytest.raises(type(error)) as caught:
            cmsgx.send_segments(one, numbered(8 * most, 10), 10)
        shim.delay_send(0)
        assert caught.value is error
        got = numbers(drain(two))
        assert got == list(range(error.sent))
        assert len(got) >= most


@pytest.mark.slow
def test_a_handler_that_raises_in_the_fallback() -> None:
    for_each("interrupted_in_the_fallback", [(0,), (2,)])


def test_a_wrong_argument_tells_that_nothing_went() -> None:
    with udp_pair() as (one, _), pytest.raises(OverflowError) as caught:
        cmsgx.send_segments(one.fileno(), numbered(3, 10), 10, address=("127.0.0.1", 70000))
    assert caught.value.sent == 0  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_handler_that_raises_behind_a_call_that_sent() -> None:
    cases = itertools.product(range(len(of_handlers())), (0, errno.EIO))
    for_each("interrupted_behind", list(cases))
