"""The error queue of real sockets: errors that came back for a packet."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from attempts import fails
from errqueue import (
    CLOSED,
    LOOPBACK,
    LOOPBACK_AND_MAPPED,
    SO_TIMESTAMPING_NEW,
    SO_TIMESTAMPING_OLD,
    R,
    assert_now,
    is_ready,
    one,
    refused,
    udp,
)
from namespaces import Chain, Namespace, needs_ipv6

import cmsgx
from cmsgx import _errqueue, kinds
from cmsgx.kinds._reports import report_of

FAMILIES = [
    pytest.param(socket.AF_INET, id="IPv4"),
    pytest.param(socket.AF_INET6, id="IPv6", marks=needs_ipv6),
]

IP_MTU_DISCOVER, IP_PMTUDISC_DO, IPV6_MTU_DISCOVER = 10, 2, 23


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
    """Two routers on the way, and a last link with a smaller MTU than the others."""
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
        # From now on the path MTU is known here.
        with fails(errno.EMSGSIZE):
            sock.send(bytes(1420))
        report = one(sock, kinds.LocalError)
        assert report.mtu == 1400


@contextmanager
def lost_on_the_way(chain: Chain, family: int) -> Iterator[socket.socket]:
    """A TCP socket that could not connect, because its packets went no further than the first
    router."""
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
    """The destination is known, although a stream has no addresses otherwise."""
    with lost_on_the_way(chain, family) as sock:
        # The report for the first SYN, and maybe for the next one.
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
    """As a router would that implements RFC 4884."""
    packet = quoted(host, source, data) + extension
    is_ipv6 = host == "::1"
    family, proto = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if is_ipv6
        else (socket.AF_INET, socket.IPPROTO_ICMP)
    )  # fmt: skip
    # In units of 8 and of 4 bytes; the kernel fills in the checksum of ICMPv6.
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
    # 128 bytes were quoted; those of the headers are not returned.
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
        # The call raised it once, and it is not pending.
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert report.errno == errno.EMSGSIZE
    assert report.mtu == 1500
    assert report.payload == b""
    assert report.error.offender is None
    assert report.destination is not None
    port = CLOSED if is_connected or family == socket.AF_INET6 else 0
    assert report.destination[:2] == (host, port)
    assert repr(report).startswith("LocalError(errno=90, destination=(")


# Forged: what this machine cannot produce -------------------------------------------------------


class Forged:
    """What report_of() reads from a Message, with payloads built here."""

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
    """struct sock_extended_err and a sockaddr_in of zeros, as for IP_RECVERR."""
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
    # It has the origin of time stamps.
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
    # A stage that only a later kernel knows is accepted too.
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
    """A message that this kernel would not let through."""
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
    """Its bytes are available anyway."""
    monkeypatch.setattr(_errqueue, "_CONTROL_SIZE", 24)
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
        # This cleared the pending error, and took nothing from the queue.
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
