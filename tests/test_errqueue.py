"""The error queue of real sockets: errors, time stamps and completions, as the kernel has them."""

from __future__ import annotations

import copy
import dataclasses
import errno
import itertools
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from attempts import fails
from batches import Interrupt, handling, interrupt
from namespaces import Chain, Namespace, needs_ipv6
from support import eventually, until_it_waits

import cmsgx
from cmsgx import _errqueue, kinds
from cmsgx.kinds import TimestampingFlags as Flags
from cmsgx.kinds._reports import report_of

R = TypeVar("R", bound=kinds.ErrorReport)
T = TypeVar("T")

START = time.time_ns()
# Where only a privileged process could listen.
CLOSED = 1
MAPPED = "::ffff:127.0.0.1"
LOOPBACK = [
    pytest.param(socket.AF_INET, "127.0.0.1", id="IPv4"),
    pytest.param(socket.AF_INET6, "::1", id="IPv6", marks=needs_ipv6),
]
LOOPBACK_AND_MAPPED = [
    *LOOPBACK,
    pytest.param(socket.AF_INET6, MAPPED, id="mapped", marks=needs_ipv6),
]
FAMILIES = [
    pytest.param(socket.AF_INET, id="IPv4"),
    pytest.param(socket.AF_INET6, id="IPv6", marks=needs_ipv6),
]

SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW = 37, 65
MSG_ZEROCOPY = 0x4000000
SO_TXTIME = 61
IP_MTU_DISCOVER, IP_PMTUDISC_DO, IPV6_MTU_DISCOVER = 10, 2, 23
ETH_P_IP = 0x0800


def is_ready(sock: socket.socket, seconds: float = 5.0) -> bool:
    """Whether poll(2) says POLLERR, which nobody asks for."""
    poll = select.poll()
    poll.register(sock, 0)
    return poll.poll(seconds * 1000) == [(sock.fileno(), select.POLLERR)]


def collect(sock: socket.socket, count: int = 1) -> list[kinds.ErrorReport]:
    """That many reports, which may come one by one; and no more."""
    found: list[kinds.ErrorReport] = []
    while len(found) < count and is_ready(sock):
        found += cmsgx.receive_errors(sock)
    assert len(found) == count
    return found


def one(sock: socket.socket, kind: type[R]) -> R:
    """The only report that there is."""
    [report] = collect(sock)
    assert type(report) is kind
    return report


@contextmanager
def udp(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        yield sock


@contextmanager
def refused(count: int) -> Iterator[socket.socket]:
    """A socket with that many ICMP errors on its queue, for packets numbered from 0."""
    with udp() as sock:
        for i in range(count):
            # The error before is pending, which the send would fail with.
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            sock.sendto(bytes([i]), ("127.0.0.1", CLOSED + i))
        yield sock


# ICMP -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), LOOPBACK_AND_MAPPED)
def test_icmp(family: int, host: str) -> None:
    is_icmp6 = host == "::1"
    with udp(family) as sock:
        sock.sendto(b"what was sent", (host, CLOSED))
        report = one(sock, kinds.IcmpError)
    assert report.errno == errno.ECONNREFUSED
    assert report.version == (6 if is_icmp6 else 4)
    assert (report.icmp_type, report.icmp_code) == ((1, 4) if is_icmp6 else (3, 3))
    assert report.offender is not None
    assert report.offender[:2] == (host, 0)
    assert report.destination is not None
    assert report.destination[:2] == (host, CLOSED)
    assert report.destination.family == family
    assert report.payload == report.message.data == b"what was sent"
    assert report.mtu is None
    assert report.extensions == ()
    assert not report.has_broken_extensions
    assert report.error == report.message[kinds.ExtendedError]
    assert isinstance(report.error.error, ConnectionRefusedError)
    assert repr(report).startswith(
        f"IcmpError(errno=111, icmp_type={report.icmp_type}, icmp_code={report.icmp_code}, "
        f"offender=('{host}', 0"
    )
    assert "mtu" not in repr(report)


def test_other_control_messages_come_with_it() -> None:
    with udp() as sock:
        cmsgx.enable(sock, kinds.Timestamp, kinds.PacketInfo)
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        report = one(sock, kinds.IcmpError)
    stamp = report.message[kinds.Timestamp].nanoseconds
    assert_now(stamp)
    assert kinds.PacketInfo in report.message


def test_nothing_is_queued_unasked() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert not is_ready(sock, 0.05)
        assert list(cmsgx.receive_errors(sock)) == []


def test_a_refused_connection_queues_nothing() -> None:
    with socket.socket() as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        with pytest.raises(ConnectionRefusedError):
            sock.connect(("127.0.0.1", CLOSED))
        assert list(cmsgx.receive_errors(sock)) == []


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    """Two routers on the way, and a last link that takes less than the others."""
    with Chain(links=3, mtu=1400) as chain:
        yield chain


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_a_router_on_the_way(chain: Chain, family: int, hops: int) -> None:
    limit = kinds.HopLimit(hops) if family == socket.AF_INET6 else kinds.Ttl(hops)
    target = chain.address(family, 3)
    with chain.spaces[0].socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        cmsgx.send(sock, b"probe", control=limit, address=(target, CLOSED))
        report = one(sock, kinds.IcmpError)
    assert report.offender is not None
    assert report.offender[0] == chain.address(family, hops)
    assert report.destination is not None
    assert report.destination[0] == target
    time_exceeded, unreachable = (3, 1) if family == socket.AF_INET6 else (11, 3)
    assert report.icmp_type == (unreachable if hops == 3 else time_exceeded)
    assert report.errno == (errno.ECONNREFUSED if hops == 3 else errno.EHOSTUNREACH)


@pytest.mark.parametrize("family", FAMILIES)
def test_too_long_for_a_link_on_the_way(chain: Chain, family: int) -> None:
    with chain.spaces[0].socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        do_not_fragment(sock)
        sock.connect((chain.address(family, 3), CLOSED))
        sock.send(bytes(1420))
        report: kinds.IcmpError | kinds.LocalError = one(sock, kinds.IcmpError)
        assert report.errno == errno.EMSGSIZE
        assert report.mtu == 1400
        assert "mtu=1400" in repr(report)
        # From now on it is known here.
        with fails(errno.EMSGSIZE):
            sock.send(bytes(1420))
        report = one(sock, kinds.LocalError)
        assert report.mtu == 1400


@contextmanager
def lost_on_the_way(chain: Chain, family: int) -> Iterator[socket.socket]:
    """A TCP socket that could not connect, as its packets went no farther than the first router."""
    with chain.spaces[0].socket(family, socket.SOCK_STREAM) as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        sock.settimeout(60)
        with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
            sock.connect((chain.address(family, 3), 80))
        yield sock


@pytest.mark.parametrize("as_what", ["socket", "int"])
@pytest.mark.parametrize("family", FAMILIES)
def test_of_tcp(chain: Chain, family: int, as_what: str) -> None:
    """The destination is known, though a stream has no addresses otherwise."""
    with lost_on_the_way(chain, family) as sock:
        # The first SYN's, and maybe that of the next one.
        report, *_ = cmsgx.receive_errors(sock if as_what == "socket" else sock.fileno())
    assert isinstance(report, kinds.IcmpError)
    assert report.destination is not None
    assert report.destination[:2] == (chain.address(family, 3), 80)
    assert report.offender is not None
    assert report.offender[0] == chain.address(family, 1)
    # The TCP header: the ports, and SYN.
    assert report.payload[2:4] == (80).to_bytes(2, "big")
    assert report.payload[13] == 2


@pytest.mark.parametrize("how", ["receive", "Receiver", "BatchReceiver"])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_ways_have_the_destination_too(chain: Chain, family: int, how: str) -> None:
    with lost_on_the_way(chain, family) as sock:
        if how == "receive":
            message = cmsgx.receive(sock, 100, flags=socket.MSG_ERRQUEUE)
        elif how == "Receiver":
            message = cmsgx.Receiver(sock, 100).receive(flags=socket.MSG_ERRQUEUE)
        else:
            message, *_ = cmsgx.BatchReceiver(sock, 4, 100).receive(flags=socket.MSG_ERRQUEUE)
    assert message.address is not None
    assert message.address[:2] == (chain.address(family, 3), 80)


# RFC 4884 -------------------------------------------------------------------------------------

LABELS = b"\x00\x0c\x01\x01" + bytes.fromhex("0001 f140 0002 0001")
INTERFACE = b"\x00\x08\x02\x0a" + bytes.fromhex("0000 0007")


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def extended(objects: bytes, error: int = 0) -> bytes:
    header = struct.pack("!BBH", 2 << 4, 0, 0)
    return struct.pack("!BBH", 2 << 4, 0, checksum(header + objects) ^ error) + objects


def quoted(host: str, source: int, data: bytes) -> bytes:
    """What a router quotes of a datagram to a closed port: 128 bytes, padded."""
    length = 8 + len(data)
    ports = struct.pack("!HHHH", source, CLOSED, length, 0) + data
    if host == "::1":
        address = socket.inet_pton(socket.AF_INET6, host)
        header = struct.pack("!IHBB", 6 << 28, length, 17, 1) + address + address
    else:
        address = socket.inet_aton("127.0.0.1")
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 1, 17, 0)
        header += address + address
        header = header[:10] + checksum(header).to_bytes(2, "big") + header[12:]
    return (header + ports).ljust(128, b"\0")


def send_time_exceeded(host: str, source: int, data: bytes, extension: bytes) -> None:
    """As a router would that knows RFC 4884."""
    packet = quoted(host, source, data) + extension
    is_ipv6 = host == "::1"
    family, proto = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_ipv6
        else (socket.AF_INET, socket.IPPROTO_ICMP)
    )  # fmt: skip
    # In words of 8 and of 4 bytes; the kernel fills in the checksum of ICMPv6.
    header = struct.pack("!BBHBBH", 3, 0, 0, 16, 0, 0) if is_ipv6 else (
        struct.pack("!BBHBBH", 11, 0, 0, 0, 32, 0)
    )  # fmt: skip
    if not is_ipv6:
        header = header[:2] + checksum(header + packet).to_bytes(2, "big") + header[4:]
    try:
        raw = socket.socket(family, socket.SOCK_RAW, proto)
    except PermissionError as error:
        pytest.skip(f"SOCK_RAW: {error}")
    with raw:
        raw.sendto(header + packet, ("::1" if is_ipv6 else "127.0.0.1", 0))


def extended_error(
    family: int, host: str, extension: bytes, is_asked_for: bool = True, bufsize: int = 65536
) -> kinds.IcmpError:
    with udp(family) as sock:
        if is_asked_for:
            cmsgx.enable(sock, kinds.ExtendedError.option(rfc4884=True))
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
        send_time_exceeded(host, sock.getsockname()[1], b"probe", extension)
        assert is_ready(sock)
        [report] = cmsgx.receive_errors(sock, bufsize=bufsize)
        assert isinstance(report, kinds.IcmpError)
        return report


@pytest.mark.parametrize(("family", "host"), LOOPBACK_AND_MAPPED)
def test_extensions(family: int, host: str) -> None:
    report = extended_error(family, host, extended(LABELS + INTERFACE))
    assert report.extensions == (
        kinds.IcmpExtension(1, 1, LABELS[4:]),
        kinds.IcmpExtension(2, 10, INTERFACE[4:]),
    )
    first = report.extensions[0]
    assert (first.class_num, first.c_type, first.data) == (1, 1, LABELS[4:])
    assert "IcmpExtension(class_num=1, c_type=1" in repr(report)
    assert not report.has_broken_extensions
    # 128 bytes were quoted, of which those of the headers are not given.
    assert report.payload == b"probe".ljust(80 if host == "::1" else 100, b"\0")
    assert report.message.data == report.payload + extended(LABELS + INTERFACE)
    assert report.errno == errno.EHOSTUNREACH


def test_an_extension_header_without_objects() -> None:
    report = extended_error(socket.AF_INET, "127.0.0.1", extended(b""))
    assert report.extensions == ()
    assert report.payload == b"probe".ljust(100, b"\0")


@pytest.mark.parametrize(
    "extension",
    [
        pytest.param(extended(LABELS, error=1), id="checksum"),
        pytest.param(extended(b"\x00\xff\x01\x01" + LABELS[4:]), id="too long"),
        pytest.param(extended(b"\x00\x03\x01\x01" + LABELS[4:]), id="too short"),
    ],
)
def test_broken_extensions(extension: bytes) -> None:
    report = extended_error(socket.AF_INET, "127.0.0.1", extension)
    assert report.has_broken_extensions
    assert report.extensions == ()
    # It may have been data.
    assert report.payload == b"probe".ljust(100, b"\0") + extension


def test_extensions_that_were_not_asked_for() -> None:
    extension = extended(LABELS)
    report = extended_error(socket.AF_INET, "127.0.0.1", extension, is_asked_for=False)
    assert report.extensions == ()
    assert not report.has_broken_extensions
    assert report.payload == b"probe".ljust(100, b"\0") + extension


@pytest.mark.parametrize("size", [100, 103, 107, 115, 116, 119, 123])
def test_extensions_that_the_buffer_cuts(size: int) -> None:
    report = extended_error(socket.AF_INET, "127.0.0.1", extended(LABELS + INTERFACE), bufsize=size)
    assert report.message.truncated
    assert [item.class_num for item in report.extensions] == [1] * (size >= 116)
    assert report.payload == b"probe".ljust(100, b"\0")


# Local errors ---------------------------------------------------------------------------------


def do_not_fragment(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)


@pytest.mark.parametrize("is_connected", [False, True])
@pytest.mark.parametrize(("family", "host"), LOOPBACK)
def test_too_long_for_the_own_link(family: int, host: str, is_connected: bool) -> None:
    with Namespace(mtu=1500) as space, space.socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        do_not_fragment(sock)
        if is_connected:
            sock.connect((host, CLOSED))
        with fails(errno.EMSGSIZE):
            sock.send(bytes(3000)) if is_connected else sock.sendto(bytes(3000), (host, CLOSED))
        report = one(sock, kinds.LocalError)
        # It was raised once, by the call, and is not pending.
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert report.errno == errno.EMSGSIZE
    assert report.mtu == 1500
    assert report.payload == b""
    assert report.error.offender is None
    assert report.destination is not None
    port = CLOSED if is_connected or family == socket.AF_INET6 else 0
    assert report.destination[:2] == (host, port)
    assert repr(report).startswith("LocalError(errno=90, destination=(")


# Transmit time stamps ---------------------------------------------------------------------------


def stamp(sock: socket.socket, flags: Flags, option: int = SO_TIMESTAMPING_OLD) -> None:
    if option == SO_TIMESTAMPING_OLD:
        cmsgx.enable(sock, kinds.Timestamping.option(flags))
    else:
        sock.setsockopt(socket.SOL_SOCKET, option, int(flags | Flags.SOFTWARE))


def assert_now(nanoseconds: int | None) -> None:
    assert nanoseconds is not None
    assert START <= nanoseconds <= time.time_ns()


@pytest.mark.parametrize("option", [SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW])
@pytest.mark.parametrize(("family", "host"), LOOPBACK_AND_MAPPED)
def test_stamps_of_udp(family: int, host: str, option: int) -> None:
    with udp(family) as reader, udp(family) as sock:
        reader.bind((host, 0))
        stamp(sock, Flags.TX_SCHED | Flags.TX_SOFTWARE | Flags.OPT_ID, option)
        for i in range(3):
            sock.sendto(b"packet %d" % i, reader.getsockname())
        reports = collect(sock, 6)
    for i, report in enumerate(reports):
        assert isinstance(report, kinds.SentTimestamp)
        assert report.id == i // 2
        assert report.stage is (kinds.SentStage.SENT if i % 2 else kinds.SentStage.SCHEDULED)
        assert_now(report.software)
        assert report.hardware is None
        assert report.timestamping == report.message[kinds.Timestamping]
        assert report.stats is None
        # The packet as it went, its headers in front.
        assert report.payload.endswith(b"packet %d" % (i // 2))
        assert len(report.payload) >= 20 + 8 + 8
        assert repr(report).startswith(f"SentTimestamp(id={i // 2}, stage=<SentStage.S")


def test_stamps_only() -> None:
    with udp() as sock:
        stamp(sock, Flags.TX_SOFTWARE | Flags.OPT_TSONLY)
        sock.sendto(b"packet", ("127.0.0.1", CLOSED))
        # The ICMP error comes before its cause is reported.
        found = {type(report): report for report in collect(sock, 2)}
    report = found[kinds.SentTimestamp]
    assert report.payload == b""
    assert isinstance(report, kinds.SentTimestamp)
    assert report.id == 0
    assert found[kinds.IcmpError].payload == b"packet"


def test_a_stamp_for_one_packet_by_its_own_id() -> None:
    with udp() as reader, udp() as sock:
        reader.bind(("127.0.0.1", 0))
        address = reader.getsockname()
        stamp(sock, Flags.OPT_ID | Flags.OPT_TSONLY)
        request = kinds.TimestampingRequest(Flags.TX_SOFTWARE)
        cmsgx.send(sock, b"1", address=address)
        try:
            cmsgx.send(sock, b"2", control=[request, kinds.TimestampingId(0xFFFFFFFF)],
                       address=address)  # fmt: skip
        except OSError as error:  # before Linux 6.13
            pytest.skip(f"SCM_TS_OPT_ID: {error}")
        report = one(sock, kinds.SentTimestamp)
    assert report.id == 0xFFFFFFFF


def test_no_times_are_reported() -> None:
    """SOF_TIMESTAMPING_SOFTWARE lacks: the entry comes, the time does not."""
    with udp() as reader, udp() as sock:
        reader.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_OLD, int(Flags.TX_SOFTWARE))
        sock.sendto(b"1", reader.getsockname())
        reports = list(cmsgx.receive_errors(sock))
    for report in reports:
        assert isinstance(report, kinds.SentTimestamp)
        assert (report.timestamping, report.software, report.hardware) == (None, None, None)
        assert repr(report).endswith("stage=<SentStage.SENT: 0>, software=None, hardware=None)")
        assert report.payload.endswith(b"1")
    assert len(reports) == 1


@contextmanager
def tcp_pair(family: int = socket.AF_INET, host: str = "127.0.0.1") -> Iterator[Any]:
    with socket.create_server((host, 0), family=family) as listener:
        sender = socket.create_connection(listener.getsockname()[:2])
        reader = listener.accept()[0]
    with sender, reader:
        yield sender, reader


@pytest.mark.parametrize("as_what", ["socket", "int"])
@pytest.mark.parametrize(("family", "host"), LOOPBACK)
def test_stamps_of_tcp(family: int, host: str, as_what: str) -> None:
    stages = [kinds.SentStage.SCHEDULED, kinds.SentStage.SENT, kinds.SentStage.ACKNOWLEDGED]
    with tcp_pair(family, host) as (sender, reader):
        stamp(
            sender,
            Flags.TX_SCHED | Flags.TX_SOFTWARE | Flags.TX_ACK | Flags.OPT_ID | Flags.OPT_TSONLY
            | Flags.OPT_STATS,
        )  # fmt: skip
        sock = sender if as_what == "socket" else sender.fileno()
        for total in (100, 150):
            sender.send(bytes(total if total == 100 else 50))
            reader.recv(1000)
            found: list[kinds.ErrorReport] = []
            while len(found) < 3 and is_ready(sender):
                found += cmsgx.receive_errors(sock)
            reports = [report for report in found if isinstance(report, kinds.SentTimestamp)]
            assert sorted(report.stage for report in reports) == sorted(stages)
            for report in reports:
                # The offset of the last byte.
                assert report.id == total - 1
                assert_now(report.software)
                assert type(report.stats) is kinds.TcpStats
                assert report.payload == b""
                assert report.stats.values["bytes_sent"] <= total
            [acknowledged] = [r for r in reports if r.stage is kinds.SentStage.ACKNOWLEDGED]
            assert acknowledged.stats is not None
            assert acknowledged.stats.values["bytes_sent"] == total


def test_stamps_without_statistics_have_none() -> None:
    with tcp_pair() as (sender, _):
        stamp(sender, Flags.TX_ACK | Flags.OPT_ID | Flags.OPT_TSONLY)
        sender.send(b"1234")
        report = one(sender, kinds.SentTimestamp)
    assert report.stats is None
    assert (report.id, report.stage) == (3, kinds.SentStage.ACKNOWLEDGED)


@pytest.mark.parametrize("as_what", ["socket", "int"])
def test_stamps_of_frames(as_what: str) -> None:
    with Namespace() as space, space.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("lo", ETH_P_IP))
        stamp(sock, Flags.TX_SOFTWARE | Flags.OPT_ID)
        frame = bytes(12) + b"\x88\xb5" + bytes(50)
        for i in range(2):
            sock.send(frame)
            assert is_ready(sock)
            [report] = cmsgx.receive_errors(sock if as_what == "socket" else sock.fileno())
            assert isinstance(report, kinds.SentTimestamp)
            assert report.id == i
            assert report.stage is kinds.SentStage.SENT
            assert_now(report.software)
            assert report.payload == frame
            assert report.message.address is None


@pytest.mark.parametrize("how", ["socket", "int", "Receiver", "BatchReceiver"])
def test_frames_can_be_received(how: str) -> None:
    """AF_PACKET refuses the flag that asks for close-on-exec."""
    with Namespace() as space, space.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("lo", 0x88B5))
        frame = bytes(12) + b"\x88\xb5" + bytes(50)
        sock.send(frame)
        if how == "Receiver":
            message = cmsgx.Receiver(sock, 100).receive(timeout=60)
        elif how == "BatchReceiver":
            message, *_ = cmsgx.BatchReceiver(sock, 4, 100).receive(timeout=60)
        else:
            message = cmsgx.receive(sock if how == "socket" else sock.fileno(), 100, timeout=60)
        assert message.data == frame
        assert message.address is not None
        assert message.address.family == socket.AF_PACKET
        into = bytearray(100)
        for received in (
            lambda one: cmsgx.recvmsg(one, 100, 64)[0],
            lambda one: into[: cmsgx.recvmsg_into(one, [into], 64)[0]],
            lambda one: cmsgx.recv_fds(one, 100, 2)[0],
        ):
            sock.send(frame)
            assert received(sock if how == "socket" else sock.fileno()) == frame


# Zero copy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), LOOPBACK)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_completions(kind: int, family: int, host: str) -> None:
    memory = bytes(4096)
    with (
        tcp_pair(family, host) if kind == socket.SOCK_STREAM else udp_pair(family, host) as (
            sender,
            reader,
        )
    ):
        cmsgx.enable(sender, kinds.ExtendedError.option(errors=False, zerocopy=True))
        for _ in range(5):
            sender.send(memory, MSG_ZEROCOPY)
        received = 0
        while received < 5 * len(memory):
            received += len(reader.recv(65536))
        found: list[int] = []
        while len(found) < 5 and is_ready(sender):
            for report in cmsgx.receive_errors(sender):
                assert isinstance(report, kinds.ZeroCopyCompletion)
                assert report.payload == b""
                # Loopback never does without.
                assert report.was_copied
                assert report.count == len(list(report)) == report.last - report.first + 1
                found += report
        assert found == [0, 1, 2, 3, 4]
        # Joined to one, where nothing is read meanwhile.
        for _ in range(3):
            sender.send(memory, MSG_ZEROCOPY)
        received = 0
        while received < 3 * len(memory):
            received += len(reader.recv(65536))
        assert eventually(lambda: is_ready(sender, 0))
        assert [i for report in collect_all(sender, 8) for i in cast(Any, report)] == [5, 6, 7]


@contextmanager
def udp_pair(family: int, host: str) -> Iterator[Any]:
    with udp(family) as sender, udp(family) as reader:
        reader.bind((host, 0))
        sender.connect(reader.getsockname())
        yield sender, reader


def collect_all(sock: socket.socket, end: int) -> list[kinds.ErrorReport]:
    """Completions up to that id."""
    found: list[kinds.ErrorReport] = []
    while not (found and cast(kinds.ZeroCopyCompletion, found[-1]).last == end - 1):
        assert is_ready(sock)
        found += cmsgx.receive_errors(sock)
    return found


def test_completions_are_joined() -> None:
    with udp_pair(socket.AF_INET, "127.0.0.1") as (sender, reader):
        cmsgx.enable(sender, kinds.ExtendedError.option(errors=False, zerocopy=True))
        for _ in range(5):
            sender.send(b"some bytes", MSG_ZEROCOPY)
            reader.recv(100)
        report = one(sender, kinds.ZeroCopyCompletion)
    assert (report.first, report.last, report.count) == (0, 4, 5)
    assert list(report) == [0, 1, 2, 3, 4]
    assert [i for i in range(-1, 7) if i in report] == [0, 1, 2, 3, 4]
    assert "0" not in report
    assert repr(report) == "ZeroCopyCompletion(first=0, last=4, was_copied=True)"


# What cannot be had here: forged ----------------------------------------------------------------


class Forged:
    """What report_of() reads of a Message, from payloads built here."""

    def __init__(
        self,
        *control: tuple[int, int, bytes],
        data: bytes = b"",
        address: Any = None,
        family: int = socket.AF_INET,
    ) -> None:
        self.control = [cmsgx.decode(*one, family) for one in control]
        self.data = data
        self.address = address

    def get(self, kind: type[Any]) -> Any:
        return next((item for item in self.control if type(item) is kind), None)

    def __contains__(self, kind: type[Any]) -> bool:
        return self.get(kind) is not None

    __getitem__ = get


def entry(
    origin: int, number: int = 0, type: int = 0, code: int = 0, info: int = 0, data: int = 0
) -> tuple[int, int, bytes]:
    """struct sock_extended_err, and a sockaddr_in of zeros, as IP_RECVERR."""
    payload = struct.pack("=IBBBBII16x", number, origin, type, code, 0, info, data)
    return (socket.IPPROTO_IP, 11, payload)


def forge(kind: type[R], *control: Any, **more: Any) -> R:
    report = report_of(cast(Any, Forged(*control, **more)))
    assert type(report) is kind
    return report


@pytest.mark.parametrize(
    ("first", "last", "ids"),
    [
        (7, 7, [7]),
        (0xFFFFFFFE, 1, [0xFFFFFFFE, 0xFFFFFFFF, 0, 1]),
        (0xFFFFFFFF, 0xFFFFFFFF, [0xFFFFFFFF]),
        (0xFFFFFFFF, 0, [0xFFFFFFFF, 0]),
    ],
)
def test_completions_wrap(first: int, last: int, ids: list[int]) -> None:
    report = forge(kinds.ZeroCopyCompletion, entry(5, info=first, data=last))
    assert (report.first, report.last) == (first, last)
    assert report.count == len(ids)
    assert list(report) == ids
    assert all(i in report for i in ids)
    for outside in ((first - 1) % 2**32, (last + 1) % 2**32, first + 2**32, -1):
        assert outside not in report
    assert not report.was_copied


def test_completions_of_all_ids() -> None:
    report = forge(kinds.ZeroCopyCompletion, entry(5, info=1, data=0, code=1))
    assert report.count == 2**32
    assert list(itertools.islice(report, 3)) == [1, 2, 3]
    assert 0 in report
    assert report.was_copied


@pytest.mark.parametrize(
    ("number", "code", "reason"), [(errno.EINVAL, 1, "INVALID_PARAMETER"),
                                   (errno.ECANCELED, 2, "MISSED")],
)  # fmt: skip
def test_txtime(number: int, code: int, reason: str) -> None:
    txtime = 0x1789ABCD_FEDCBA98
    report = forge(
        kinds.TxTimeError,
        entry(6, number=number, code=code, info=txtime & 0xFFFFFFFF, data=txtime >> 32),
        data=b"frame",
    )
    assert report.txtime == txtime
    assert report.errno == number
    assert report.reason is kinds.TxTimeFailure[reason]
    assert report.payload == b"frame"
    assert repr(report) == (
        f"TxTimeError(errno={number}, reason={kinds.TxTimeFailure(code)!r}, txtime={txtime})"
    )


@pytest.mark.parametrize("acked", [True, False])
def test_wifi(acked: bool) -> None:
    status = (socket.SOL_SOCKET, 41, struct.pack("=i", acked))
    # Its origin is that of time stamps.
    report = forge(kinds.WifiReport, status, entry(4, errno.ENOMSG), data=b"frame")
    assert report.acked is acked
    assert report.payload == b"frame"
    assert repr(report) == f"WifiReport(acked={acked})"


def test_a_hardware_time_stamp() -> None:
    times = (socket.SOL_SOCKET, SO_TIMESTAMPING_OLD, struct.pack("=qqqqqq", 0, 0, 0, 0, 5, 7))
    if struct.calcsize("l") == 4:
        times = (socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, times[2])
    report = forge(kinds.SentTimestamp, times, entry(4, errno.ENOMSG, info=9, data=3))
    assert (report.software, report.hardware) == (None, 5 * 10**9 + 7)
    # A stage that a later kernel brings is one, too.
    assert report.stage == 9
    assert report.id == 3


def test_emsgsize_that_is_not_about_an_mtu() -> None:
    """J1939_XTP_ABORT_TOO_BIG: a transfer, and no path."""
    payload = struct.pack("=IBBBBII", errno.EMSGSIZE, 1, 0, 0, 0, 1, 0)
    report = forge(kinds.LocalError, (107, 4, payload), family=socket.AF_CAN)
    assert report.errno == errno.EMSGSIZE
    assert report.mtu is None
    assert report.destination is None


def test_how_far_a_j1939_transfer_is() -> None:
    payload = struct.pack("=IBBBBII", errno.ENOMSG, 4, 0, 0, 0, 1, 5)
    # struct nlattr: J1939_NLA_BYTES_ACKED.
    stats = (socket.SOL_SOCKET, 54, struct.pack("=HHI", 8, 1, 1785))
    report = forge(kinds.SentTimestamp, stats, (107, 4, payload), family=socket.AF_CAN)
    assert (report.id, report.stage) == (5, kinds.SentStage.SCHEDULED)
    assert type(report.stats) is kinds.J1939Stats
    assert report.stats.values == {"bytes_acked": 1785}


@pytest.mark.parametrize(
    ("number", "info", "mtu"),
    [(errno.EMSGSIZE, 1400, 1400), (errno.EMSGSIZE, 0, None), (errno.EPROTO, 24, None)],
    ids=["MTU", "a router that does not say", "where the parameter is that it dislikes"],
)
def test_what_the_info_is(number: int, info: int, mtu: int | None) -> None:
    report = forge(kinds.IcmpError, entry(2, number, info=info), address=("127.0.0.1", 1))
    assert report.mtu == mtu


@pytest.mark.parametrize("size", range(4))
def test_an_extension_without_an_end(size: int) -> None:
    """Which this kernel would not let through."""
    at = int.from_bytes(struct.pack("=HBx", 5, 0), sys.byteorder)
    extension = b"\x20\0\0\0" + struct.pack("!HBB", size, 1, 1) + bytes(8)
    report = forge(kinds.IcmpError, entry(2, data=at), data=b"probe" + extension)
    assert report.extensions == ()
    assert report.payload == b"probe"


@pytest.mark.parametrize("origin", [0, 7, 255])
def test_another_origin(origin: int) -> None:
    report = forge(kinds.UnknownReport, entry(origin, number=5), data=b"what came")
    assert report.error is not None
    assert report.error.ee_origin == origin
    assert report.payload == b"what came"
    assert repr(report) == f"UnknownReport(error={report.error!r})"


def test_an_entry_that_says_nothing() -> None:
    report = forge(kinds.UnknownReport, data=b"what came")
    assert report.error is None
    assert report.payload == b"what came"


def test_an_entry_that_was_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes are there all the same."""
    monkeypatch.setattr(_errqueue, "_ROOM", 24)
    with refused(1) as sock:
        assert is_ready(sock)
        [report] = cmsgx.receive_errors(sock)
    assert type(report) is kinds.UnknownReport
    assert report.error is None
    assert report.message.truncated
    assert report.payload == b"\0"


# The pending error ------------------------------------------------------------------------------


def test_the_pending_error_stays_where_nothing_is_read() -> None:
    with refused(1) as sock:
        assert is_ready(sock)
        assert list(cmsgx.receive_errors(sock, limit=0)) == []
        cmsgx.receive_errors(sock)
        with pytest.raises(ConnectionRefusedError):
            sock.sendto(b"1", ("127.0.0.1", CLOSED))
        # That took the pending error, and nothing from the queue.
        assert one(sock, kinds.IcmpError).payload == b"\0"


def test_reading_the_queue_takes_the_pending_error() -> None:
    with refused(2) as sock:
        first, second = cmsgx.receive_errors(sock)
        assert (first.payload, second.payload) == (b"\0", b"\1")
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert one(sock, kinds.IcmpError).payload == b"1"


def test_the_pending_error_is_that_of_the_next_entry() -> None:
    with refused(3) as sock:
        [_] = cmsgx.receive_errors(sock, limit=1)
        with pytest.raises(ConnectionRefusedError):
            sock.sendto(b"1", ("127.0.0.1", CLOSED))


# Never waiting, never losing ----------------------------------------------------------------------


def in_time(function: Callable[[], T], seconds: float = 60.0) -> T:
    """What it returns; AssertionError where it waits."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it waits"
    return results[0]


@pytest.mark.parametrize("timeout", [None, 0.0, 3600.0])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_it_never_waits(kind: int, timeout: float | None) -> None:
    pair = tcp_pair() if kind == socket.SOCK_STREAM else udp_pair(socket.AF_INET, "127.0.0.1")
    with pair as (sock, peer):
        sock.settimeout(timeout)
        assert in_time(lambda: list(cmsgx.receive_errors(sock))) == []
        # Ordinary data is none of its business.
        if kind == socket.SOCK_STREAM:
            peer.send(b"data")
            assert in_time(lambda: list(cmsgx.receive_errors(sock))) == []
            sock.settimeout(60)
            assert sock.recv(10) == b"data"


@pytest.mark.parametrize("timeout", [None, 3600.0])
def test_it_never_waits_behind_the_last(timeout: float | None) -> None:
    with refused(2) as sock:
        sock.settimeout(timeout)
        assert len(in_time(lambda: list(cmsgx.receive_errors(sock)))) == 2


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, None])
def test_limit(limit: int | None) -> None:
    with refused(3) as sock:
        found = [report.payload[0] for report in cmsgx.receive_errors(sock, limit=limit)]
        rest = [report.payload[0] for report in cmsgx.receive_errors(sock)]
    assert found == list(range(3))[:limit]
    assert found + rest == [0, 1, 2]


def test_a_reader_that_stops_loses_nothing() -> None:
    with refused(4) as sock:
        reports = cmsgx.receive_errors(sock)
        assert next(reports).payload == b"\0"
        with closing(cast(Any, reports)):
            pass
        for report in cmsgx.receive_errors(sock):
            assert report.payload == b"\1"
            break
        cmsgx.receive_errors(sock)
        assert [report.payload for report in cmsgx.receive_errors(sock)] == [b"\2", b"\3"]


def test_two_readers_share() -> None:
    with refused(4) as sock:
        one, other = cmsgx.receive_errors(sock), cmsgx.receive_errors(sock)
        payloads = [next(reader).payload for reader in (one, other, other, one)]
        assert payloads == [b"\0", b"\1", b"\2", b"\3"]
        assert list(one) == list(other) == []


def test_an_exhausted_reader_stays_so() -> None:
    with refused(1) as sock:
        reports = cmsgx.receive_errors(sock)
        assert len(list(reports)) == 1
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert list(reports) == []
        assert len(list(cmsgx.receive_errors(sock))) == 1


def test_reports_that_are_kept_do_not_change() -> None:
    with refused(8) as sock:
        reports = list(cmsgx.receive_errors(sock))
    assert [report.payload for report in reports] == [bytes([i]) for i in range(8)]
    ports = [cast(Any, report).destination[1] for report in reports]
    assert ports == [CLOSED + i for i in range(8)]


def test_reports_are_immutable() -> None:
    with refused(1) as sock:
        [report] = cmsgx.receive_errors(sock)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.error = None  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        cast(Any, report).payload = b""
    assert not hasattr(report, "__dict__")
    assert isinstance(report, kinds.ErrorReport)
    assert len({report, report}) == 1


def test_a_short_buffer() -> None:
    with udp() as sock:
        sock.sendto(b"0123456789", ("127.0.0.1", CLOSED))
        [report] = cmsgx.receive_errors(sock, bufsize=4)
        assert isinstance(report, kinds.IcmpError)
        assert report.message.truncated
        assert report.payload == b"0123"
        sock.sendto(b"0123456789", ("127.0.0.1", CLOSED))
        [report] = cmsgx.receive_errors(sock, bufsize=0)
        assert report.payload == b""


def test_a_packet_of_the_largest_size() -> None:
    with udp() as reader, udp() as sock:
        reader.bind(("127.0.0.1", 0))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        stamp(sock, Flags.TX_SCHED)
        sock.sendto(bytes(65507), reader.getsockname())
        report = one(sock, kinds.SentTimestamp)
    assert not report.message.truncated
    assert len(report.payload) >= 65507 + 28


def test_poll_says_when() -> None:
    with udp() as sock:
        assert not is_ready(sock, 0)
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert is_ready(sock)
        list(cmsgx.receive_errors(sock))
        assert not is_ready(sock, 0.05)


# What it reads from -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sock: sock,
        lambda sock: sock.fileno(),
        lambda sock: cmsgx.fromfd(sock.fileno(), sock.family, sock.type),
        lambda sock: cmsgx.Fd(os.dup(sock.fileno())),
        lambda sock: sock.makefile("rb"),
    ],
    ids=["socket", "int", "cmsgx.socket", "Fd", "fileno()"],
)
def test_what_is_a_sock(wrap: Callable[[socket.socket], Any]) -> None:
    with refused(2) as sock:
        given = wrap(sock)
        try:
            assert [r.payload for r in cmsgx.receive_errors(given)] == [b"\0", b"\1"]
        finally:
            if given is not sock and not isinstance(given, int):
                given.close()


def test_an_fd_that_is_closed_meanwhile() -> None:
    with refused(2) as sock:
        with cmsgx.Fd(os.dup(sock.fileno())) as fd:
            reports = cmsgx.receive_errors(fd)
            next(reports)
        with pytest.raises(OSError, match="closed"):
            next(reports)
        with pytest.raises(OSError, match="closed"):
            cmsgx.receive_errors(fd)
        assert len(list(cmsgx.receive_errors(sock))) == 1


def test_what_is_no_socket() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)), open(os.devnull) as file:
        cmsgx.receive_errors(file)
    with pytest.raises(TypeError):
        cmsgx.receive_errors("0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"limit": -1}, ValueError), ({"bufsize": -1}, ValueError), ({"bufsize": "1"}, TypeError),
     ({"limit": "1"}, TypeError)],
)  # fmt: skip
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    """Are said at once, not with the first report."""
    with udp() as sock, pytest.raises(error):
        cmsgx.receive_errors(sock, **arguments)


def test_a_family_without_an_error_queue(unix_type: socket.SocketKind) -> None:
    """The kernel would give ordinary data, and the descriptors in it."""
    left, right = socket.socketpair(socket.AF_UNIX, unix_type)
    with left, right:
        cmsgx.send(left, b"data", fds=[0])
        with pytest.raises(cmsgx.NotSupportedError) as caught:
            cmsgx.receive_errors(right)
        assert caught.value.errno == errno.EOPNOTSUPP
        with cmsgx.receive(right, 10, fds=1) as message:
            assert (message.data, len(message.fds)) == (b"data", 1)


def test_netlink_has_no_error_queue() -> None:
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock,
        pytest.raises(cmsgx.NotSupportedError, match="AF_NETLINK sockets"),
    ):
        cmsgx.receive_errors(sock)


def test_data_of_a_socket_that_only_seems_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of an older kernel: what it gave is not lost, and no more is taken."""
    monkeypatch.setattr(_errqueue, "_FAMILIES", frozenset([socket.AF_UNIX]))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        assert list(cmsgx.receive_errors(right)) == []
        left.send(b"one")
        left.send(b"two")
        with pytest.raises(cmsgx.NotSupportedError) as caught:
            list(cmsgx.receive_errors(right))
        assert cast(Any, caught.value).message.data == b"one"
        assert right.recv(10) == b"two"


def test_enabling_can_be_undone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with cmsgx.enable(sock, kinds.ExtendedError):
            sock.sendto(b"1", ("127.0.0.1", CLOSED))
            assert len(collect(sock)) == 1
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert list(cmsgx.receive_errors(sock)) == []


# Waiting ------------------------------------------------------------------------------------------

Waiter = Callable[[Any], list[kinds.ErrorReport]]
BY_ITERATOR = pytest.param(
    lambda sock: list(cmsgx.receive_errors(sock, timeout=60)), id="receive_errors"
)
BY_RECEIVER = pytest.param(
    lambda sock: [cmsgx.ErrorReceiver(sock).receive(timeout=60)], id="ErrorReceiver"
)


def refuse(sock: socket.socket, payload: bytes) -> None:
    """Puts an error on its queue, of a packet to a closed port."""
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    sock.sendto(payload, ("127.0.0.1", CLOSED))


def waited_for(sock: socket.socket, wait: Callable[[], list[kinds.ErrorReport]]) -> list[bytes]:
    """The payloads of what a wait gives, that begins with nothing there."""
    found: list[kinds.ErrorReport] = []
    thread = threading.Thread(target=lambda: found.extend(wait()), daemon=True)
    thread.start()
    until_it_waits(thread)
    assert not found
    refuse(sock, b"late")
    thread.join(60)
    return [report.payload for report in found]


@pytest.mark.parametrize("wait", [BY_ITERATOR, BY_RECEIVER])
@pytest.mark.parametrize("as_what", ["socket", "Fd", "int"])
@pytest.mark.parametrize("own", [None, 0.0])
def test_a_timeout_waits_for_the_first_entry(wait: Waiter, as_what: str, own: float | None) -> None:
    """Whatever the socket's own is, and whatever it is given as."""
    with udp() as sock, cmsgx.Fd(os.dup(sock.fileno())) as fd:
        sock.settimeout(own)
        given = {"socket": sock, "Fd": fd, "int": sock.fileno()}[as_what]
        assert waited_for(sock, lambda: wait(given)) == [b"late"]


@pytest.mark.parametrize("own", [None, 60.0])
def test_the_timeout_of_the_socket_is_that_of_an_error_receiver(own: float | None) -> None:
    with udp() as sock:
        sock.settimeout(own)
        receiver = cmsgx.ErrorReceiver(sock)
        assert waited_for(sock, lambda: [receiver.receive()]) == [b"late"]
        late = waited_for(sock, lambda: list(cmsgx.receive_errors(sock, timeout=...)))
        assert late == [b"late"]


@pytest.mark.parametrize("count", [1, 3])
def test_it_waits_for_no_more_than_the_first_entry(count: int) -> None:
    with refused(count) as sock:
        found = in_time(lambda: list(cmsgx.receive_errors(sock, timeout=None)))
        assert len(found) == count
    with refused(count) as sock:
        assert in_time(lambda: cmsgx.ErrorReceiver(sock).receive(timeout=None)).payload == b"\0"


def test_ordinary_data_does_not_end_the_wait() -> None:
    with udp_pair(socket.AF_INET, "127.0.0.1") as (sock, peer):
        cmsgx.enable(sock, kinds.ExtendedError)
        peer.sendto(b"data", sock.getsockname())
        receiver = cmsgx.ErrorReceiver(sock)
        with pytest.raises(TimeoutError):
            receiver.receive(timeout=0.01)
        assert sock.recv(10) == b"data"


@pytest.mark.parametrize("own", [None, 0.0, 60.0])
def test_nothing_there_is_an_error_of_receive_only(own: float | None) -> None:
    with udp() as sock:
        sock.settimeout(own)
        receiver = cmsgx.ErrorReceiver(sock)
        for given in (sock, sock.fileno()):
            assert list(cmsgx.receive_errors(given)) == []
            assert list(cmsgx.receive_errors(given, timeout=0)) == []
            with pytest.raises(TimeoutError, match="timed out"):
                list(cmsgx.receive_errors(given, timeout=0.001))
        assert receiver.try_receive() is None
        assert list(receiver) == []
        with pytest.raises(TimeoutError, match="timed out"):
            receiver.receive(timeout=0.001)
        with pytest.raises(BlockingIOError) as caught:
            receiver.receive(timeout=0)
        assert caught.value.errno == errno.EAGAIN
        # A number has no timeout, and so does not wait.
        with pytest.raises(BlockingIOError):
            in_time(lambda: outcome(cmsgx.ErrorReceiver(sock.fileno()).receive))()
        if own == 0:
            with pytest.raises(BlockingIOError):
                receiver.receive()


def outcome(call: Callable[[], Any]) -> Callable[[], Any]:
    """What was returned or raised, for another thread to have."""
    try:
        result = call()
    except OSError as error:
        raised = error

        def again() -> Any:
            raise raised

        return again
    return lambda: result


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), "1", b"", [1]])
def test_what_is_no_timeout_is_said_at_once(timeout: Any) -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        for call in (partial(cmsgx.receive_errors, sock), receiver.receive):
            with pytest.raises((ValueError, TypeError), match="timeout"):
                call(timeout=timeout)


def test_a_wait_hears_signals() -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        reports = cmsgx.receive_errors(sock, timeout=60)
        for wait in (partial(receiver.receive, timeout=60), partial(next, reports)):
            with handling(interrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                with pytest.raises(Interrupt):
                    wait()
        # One that raises nothing is waited past.
        with handling(lambda *_: refuse(sock, b"of the handler")):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert receiver.receive(timeout=60).payload == b"of the handler"


def test_an_fd_that_is_closed_during_the_wait() -> None:
    """The wait has it pinned: its number is not another file's before it has ended."""
    with udp() as sock:
        fd = cmsgx.Fd(os.dup(sock.fileno()))
        receiver = cmsgx.ErrorReceiver(fd)

        def wait() -> list[kinds.ErrorReport]:
            try:
                return [receiver.receive(timeout=60)]
            finally:
                with pytest.raises(OSError, match="closed"):
                    receiver.receive(timeout=60)

        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(outcome(wait)), daemon=True)
        thread.start()
        until_it_waits(thread)
        fd.close()
        refuse(sock, b"late")
        thread.join(60)
        # poll(2) has it still; the try after it does not.
        with pytest.raises(OSError, match="closed"):
            found[0]()
        assert len(list(cmsgx.receive_errors(sock))) == 1


# Made once ----------------------------------------------------------------------------------------


def test_an_error_receiver_gives_the_same_reports() -> None:
    with refused(4) as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        found = [receiver.receive(), receiver.receive(timeout=0), receiver.try_receive()]
        found += receiver
        assert all(type(report) is kinds.IcmpError for report in found)
        assert [cast(Any, report).payload for report in found] == [bytes([i]) for i in range(4)]
        assert [cast(Any, report).destination[1] for report in found] == [
            CLOSED + i for i in range(4)
        ]


def test_an_error_receiver_is_iterated_again() -> None:
    with refused(2) as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        first = iter(receiver)
        assert len(list(first)) == 2
        refuse(sock, b"later")
        assert list(first) == []
        assert [report.payload for report in receiver] == [b"later"]
        assert list(receiver) == []


def test_reports_of_an_error_receiver_are_kept() -> None:
    """Its memory is not filled again while a report has it."""
    with refused(8) as sock:
        reports = list(cmsgx.ErrorReceiver(sock))
    assert [report.payload for report in reports] == [bytes([i]) for i in range(8)]


def test_an_error_receiver_has_the_length_that_it_was_given() -> None:
    with refused(0) as sock:
        sock.sendto(b"0123456789", ("127.0.0.1", CLOSED))
        report = cmsgx.ErrorReceiver(sock, bufsize=4).try_receive()
        assert report is not None
        assert (report.payload, report.message.truncated) == (b"0123", True)


@pytest.mark.parametrize(("family", "option"), [
    pytest.param(socket.AF_INET, (socket.IPPROTO_IP, 11), id="IP_RECVERR"),
    pytest.param(socket.AF_INET6, (socket.IPPROTO_IPV6, 25), id="IPV6_RECVERR", marks=needs_ipv6),
])  # fmt: skip
def test_with_restores_what_an_error_receiver_switched_on(
    family: int, option: tuple[int, int]
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        with cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError]) as receiver:
            assert sock.getsockopt(*option) == 1
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            sock.sendto(b"1", (host, CLOSED))
            assert receiver.receive(timeout=60).payload == b"1"
        assert sock.getsockopt(*option) == 0
        with cmsgx.enable(sock, kinds.ExtendedError):
            with cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError]):
                pass
            assert sock.getsockopt(*option) == 1
        # Without a `with`, and without being asked, nothing is changed.
        cmsgx.ErrorReceiver(sock)
        assert sock.getsockopt(*option) == 0


def test_what_an_error_receiver_cannot_switch_on_leaves_nothing_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(cmsgx.NotSupportedError):
            cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError, cmsgx.Credentials])
        assert sock.getsockopt(socket.IPPROTO_IP, 11) == 0


def test_two_threads_with_one_error_receiver() -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        thread = threading.Thread(target=lambda: outcome(partial(receiver.receive, timeout=60)))
        thread.start()
        until_it_waits(thread)
        for call in (receiver.receive, receiver.try_receive, lambda: list(receiver)):
            with pytest.raises(RuntimeError, match="ErrorReceiver"):
                call()
        refuse(sock, b"1")
        thread.join(60)
        assert receiver.try_receive() is None


def test_an_error_receiver_where_there_is_no_error_queue() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.send(b"data")
        with pytest.raises(cmsgx.NotSupportedError, match="ErrorReceiver: AF_UNIX sockets "):
            cmsgx.ErrorReceiver(right)
        assert right.recv(10) == b"data"


def test_an_error_receiver_says_what_it_reads_and_is_not_copied() -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        assert receiver.sock is sock
        assert repr(receiver) == f"<ErrorReceiver of {sock!r}>"
        with pytest.raises(TypeError, match="cannot copy or pickle"):
            copy.copy(receiver)


@pytest.mark.parametrize("how", ["Receiver", "receive", "BatchReceiver"])
def test_other_ways_wait_for_the_error_queue_too(how: str) -> None:
    """And not for data."""
    with udp() as sock:
        flags = socket.MSG_ERRQUEUE
        wait: Callable[[], Any] = {
            "receive": lambda: [cmsgx.receive(sock, 99, flags=flags, timeout=60)],
            "Receiver": lambda: [cmsgx.Receiver(sock, 99).receive(flags=flags, timeout=60)],
            "BatchReceiver": lambda: cmsgx.BatchReceiver(sock, 4, 99).receive(
                flags=flags, timeout=60
            ),
        }[how]
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"to myself", sock.getsockname())

        def found() -> list[Any]:
            return [report_of(message) for message in wait()]

        assert waited_for(sock, found) == [b"late"]


def test_a_try_that_finds_nothing_leaves_no_bytes_behind() -> None:
    """What is not zeroed again is what nobody wrote to: in between there are reports."""
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        for number in range(6):
            assert receiver.try_receive() is None
            refuse(sock, bytes([number]))
            report = receiver.try_receive()
            assert report is not None
            assert report.payload == bytes([number])
            assert len(report.message.control) == 1
            del report
