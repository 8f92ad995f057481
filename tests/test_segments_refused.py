"""Segmentation offload: what a path refuses, and segment_support."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest
from batches import handling, of_handlers, raising, udp_pair
from namespaces import Namespace, ip, needs_ipv6
from native import Shim, under_shim
from network import V4, V6, set_link
from segments import UDP_GRO, UDP_SEGMENT, drain, numbered, numbers, send_plainly
from support import TESTS, run_python, unix_pair
from test_hazards_identity import needs_namespaces

import cmsgx
from cmsgx import _segments, kinds
from cmsgx._core import segments

SO_NO_CHECK = 11


def each(function: str, cases: list[tuple[int, ...]]) -> None:
    """Calls a function of this file for each of the cases."""
    for case in cases:
        print(function, case)
        globals()[function](*case)
    print("done")


def for_each(function: str, cases: list[tuple[int, ...]]) -> None:
    """The same, in a process under the shim."""
    code = f"import test_segments_refused as here; here.each({function!r}, {cases!r})"
    assert run_python(code, timeout=300, env=under_shim()).endswith("done\n")


@pytest.fixture(scope="module", autouse=True)
def kernel_has_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.getsockopt(socket.IPPROTO_UDP, UDP_SEGMENT)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
        except OSError as error:
            pytest.skip(f"UDP_SEGMENT, UDP_GRO: {error}")


# What a path refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["socket", "Fd", "int"])
def test_without_checksums_it_falls_back(form: str) -> None:
    """EINVAL: sent with a batch, each datagram once."""
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
        # It is remembered, but not for a number, which may later be another socket.
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
        # Each larger than a datagram can be; a control message that the kernel does not accept.
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
        # With path MTU discovery the datagrams themselves are too large, so no fallback helps.
        one.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DO)
        with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)) as caught:
            cmsgx.send_segments(one, numbered(30, 1400), 1400)
        assert caught.value.errno == errno.EMSGSIZE
        assert drain(two) == []
        assert cmsgx.segment_support(one) == before
        # Data that fits is still sent in segments.
        assert cmsgx.send_segments(one, numbered(30, 1200), 1200) == 30
        assert numbers(drain(two)) == list(range(30))
        # Without it each datagram may be fragmented, but segments still may not.
        one.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, DONT)
        assert send_plainly(one, bytes(5600), 1400) in (errno.EMSGSIZE, errno.EINVAL)
        assert cmsgx.send_segments(one, numbered(200, 1400, 9), 1400) == 200
        assert numbers(drain(two)) == list(range(200))
        assert cmsgx.segment_support(one) == before
        assert cmsgx.send_segments(one, numbered(50, 1400), 1400) == 50
        assert numbers(drain(two)) == list(range(50))
    print("done")


def test_above_the_mtu_it_falls_back() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import test_segments_refused as t; "
    code += "t.small_mtu()"
    flags = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    done = subprocess.run(
        [*needs_namespaces(*flags), sys.executable, "-W", "error", "-c", code, str(TESTS)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "done", done.stderr


def refused_by_device(error: int) -> None:
    """As from a device or an xfrm that cannot do it, at the first of several calls or later."""
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
    """How many datagrams came together."""
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
    """EMSGSIZE concerns only that send: shorter ones are sent in segments, and long ones once the
    MTU allows."""
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
    """EIO and EINVAL are remembered for the destination, or for the peer, and for no other."""
    shim = Shim()
    with udp_pair() as (one, two), udp_socket("127.0.0.2") as other:
        most = cmsgx.segment_support(one)
        to = [sock.getsockname() for sock in (two, other)]
        rx = [wait_for(sock) for sock in (two, other)]
        ways = [kinds.PacketInfo(local="127.0.0.1"), kinds.Mark(0)]

        def send(at: int, control: Any = ()) -> int:
            """How many came together: 10 or 1."""
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
        # Nor for another route there; a kind that does not change the route has no effect.
        assert [send(0, way) for way in ways] == [10, 10]
        assert send(0, kinds.Ttl(9)) == 1
        shim.refuse_segments(error)
        assert send(0, ways[0]) == 1
        shim.refuse_segments(0)
        assert [send(0, way) for way in ways] == [1, 10]
        # The same path, by connect().
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
    """Before Linux 6.14 a segment above the MTU is EINVAL: a shorter one is tried with segments
    again."""
    shim = Shim()
    kernel = _segments._kernel()._replace(names_size=False)
    cast(Any, _segments)._kernel = lambda: kernel
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
        # A device that cannot do it is a different case.
        shim.refuse_segments(errno.EIO)
        assert send(100) == 1
        shim.refuse_segments(0)
        assert send(1) == 1
        assert cmsgx.segment_support(one) == 0


def refused_by_each() -> None:
    """The memory for a socket does not grow with the number of its peers."""
    shim = Shim()
    shim.refuse_segments(errno.EIO)
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for port in range(1, segments._MOST_PATHS + 300):
            address = ("127.0.0.1", port)
            with suppress(ConnectionRefusedError):
                cmsgx.send_segments(sock, b"12", 1, address=address)
        known = _segments._refusals.paths(sock)
        assert 0 < len(known) <= segments._MOST_PATHS
        del known
    del sock
    gc.collect()
    assert not len(_segments._refusals)


@pytest.mark.slow
def test_a_segment_too_long_for_an_older_kernel_is_not_held_against_shorter_ones() -> None:
    for_each("refused_for_its_size", [()])


@pytest.mark.slow
def test_what_is_remembered_of_paths_is_bounded() -> None:
    for_each("refused_by_each", [()])


def refused_later(calls: int, error: int) -> None:
    """The path changes in the middle: the rest is sent with a batch, nothing twice."""
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
    """The number that the batch sent is reported too."""
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
def test_an_iterator_that_is_used_up_is_reported(room: int, control: Any) -> None:
    """Another call would send the rest without its contents."""
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
def test_a_handler_that_raises_says_what_was_sent(error: Any) -> None:
    """While the call waits for a full socket. An errno of the handler's exception is not taken for
    the kernel's."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    gc.collect()  # otherwise the handler may run in a finaliser that an earlier test left
    with left, right, handling(raising(error)):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        # Repeated, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 5)
        with pytest.raises(type(error)) as caught:
            cmsgx.send_segments(left, numbered(1000, 100), 100)
        assert caught.value is error
        sent = error.sent
        assert 0 < sent < 1000
        assert numbers(drain(right, ())) == list(range(sent))


def interrupted_behind(which: int, refusal: int) -> None:
    """A handler raises right after a system call that sent: with segments, or in the fallback."""
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
    """Both the datagrams sent in segments and those sent with the batch are reported."""
    shim = Shim()
    error: Any = of_handlers()[which]
    with udp_pair() as (one, two), handling(raising(error)):
        one.connect(two.getsockname())
        most = cmsgx.segment_support(one)
        shim.refuse_segments_after(1, errno.EIO)
        shim.delay_send(40)  # each: one with segments, and the first of the batch
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


def test_a_wrong_argument_says_that_nothing_was_sent() -> None:
    with udp_pair() as (one, _), pytest.raises(OverflowError) as caught:
        cmsgx.send_segments(one.fileno(), numbered(3, 10), 10, address=("127.0.0.1", 70000))
    assert caught.value.sent == 0  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_handler_that_raises_after_a_call_that_sent() -> None:
    cases = itertools.product(range(len(of_handlers())), (0, errno.EIO))
    for_each("interrupted_behind", list(cases))
