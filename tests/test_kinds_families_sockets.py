"""The kinds of each family over real sockets, and their numbers, written out."""

from __future__ import annotations

import inspect
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from families import EACH, RDMA_NOTIFY, RX_TRACE, made_payloads, values, wire_size
from support import OLD_TIME, unregistered
from switches import run_with_a_fake_option

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import _table

# The numbers, written out -----------------------------------------------------------------------

LINUX: dict[str, tuple[int, int, str, int, str]] = {
    # Name: level, type, direction, minimum size in bytes, family.
    "PacketAuxdata": (263, 8, "receive", 20, "AF_PACKET"),
    "NetlinkPacketInfo": (270, 3, "receive", 4, "AF_NETLINK"),
    "NetworkNamespaceId": (270, 8, "receive", 4, "AF_NETLINK"),
    "AlgIv": (279, 2, "send", 4, "AF_ALG"),
    "AlgOperation": (279, 3, "send", 4, "AF_ALG"),
    "AlgAssociatedLength": (279, 4, "send", 4, "AF_ALG"),
    "J1939DestinationAddress": (107, 1, "receive", 1, "AF_CAN"),
    "J1939DestinationName": (107, 2, "receive", 8, "AF_CAN"),
    "J1939Priority": (107, 3, "receive", 1, "AF_CAN"),
    "SctpInit": (132, 0, "send", 8, "AF_INET6"),
    "SctpSendReceiveInfo": (132, 1, "both", 32, "AF_INET6"),
    "SctpSendInfo": (132, 2, "send", 16, "AF_INET6"),
    "SctpReceiveInfo": (132, 3, "receive", 28, "AF_INET6"),
    "SctpNextInfo": (132, 4, "receive", 16, "AF_INET6"),
    "SctpPartialReliability": (132, 5, "send", 8, "AF_INET6"),
    "SctpAuthInfo": (132, 6, "send", 2, "AF_INET6"),
    "SctpDestination4": (132, 7, "send", 4, "AF_INET"),
    "SctpDestination6": (132, 8, "send", 16, "AF_INET6"),
    "DccpPriority": (269, 1, "send", 4, "AF_INET"),
    "BluetoothPacketStatus": (274, 3, "receive", 1, "AF_BLUETOOTH"),
    "BluetoothSequenceNumber": (274, 5, "receive", 2, "AF_BLUETOOTH"),
    "HciDirection": (0, 1, "receive", 4, "AF_BLUETOOTH"),
    "HciTimestamp": (0, 2, "receive", OLD_TIME.size, "AF_BLUETOOTH"),
    "RdsRdmaArgs": (276, 1, "send", 56, "AF_RDS"),
    "RdsRdmaDestination": (276, 2, "both", 8, "AF_RDS"),
    "RdsRdmaMap": (276, 3, "send", 32, "AF_RDS"),
    "RdsRdmaStatus": (276, 4, "receive", RDMA_NOTIFY.size, "AF_RDS"),
    "RdsCongestionUpdate": (276, 5, "receive", 8, "AF_RDS"),
    "RdsAtomicAdd": (276, 6, "send", 72, "AF_RDS"),
    "RdsAtomicCompareSwap": (276, 7, "send", 72, "AF_RDS"),
    "RdsMaskedAtomicAdd": (276, 8, "send", 72, "AF_RDS"),
    "RdsMaskedAtomicCompareSwap": (276, 9, "send", 72, "AF_RDS"),
    "RdsReceiveLatency": (276, 11, "receive", RX_TRACE.size, "AF_RDS"),
    "RdsZeroCopyCookie": (276, 12, "send", 4, "AF_RDS"),
    "RdsZeroCopyCompletion": (276, 13, "receive", 36, "AF_RDS"),
    "RxrpcCallId": (272, 1, "both", struct.calcsize("@L"), "AF_RXRPC"),
    "RxrpcAbort": (272, 2, "both", 4, "AF_RXRPC"),
    "RxrpcAck": (272, 3, "receive", 0, "AF_RXRPC"),
    "RxrpcNetworkError": (272, 5, "receive", 4, "AF_RXRPC"),
    "RxrpcBusy": (272, 6, "receive", 0, "AF_RXRPC"),
    "RxrpcLocalError": (272, 7, "receive", 4, "AF_RXRPC"),
    "RxrpcNewCall": (272, 8, "receive", 0, "AF_RXRPC"),
    "RxrpcExclusiveCall": (272, 10, "send", 0, "AF_RXRPC"),
    "RxrpcUpgradeService": (272, 11, "send", 0, "AF_RXRPC"),
    "RxrpcTxLength": (272, 12, "send", 8, "AF_RXRPC"),
    "RxrpcCallTimeouts": (272, 13, "send", 4, "AF_RXRPC"),
    "RxrpcChargeAccept": (272, 14, "send", 0, "AF_RXRPC"),
    "RxrpcOobId": (272, 15, "both", 8, "AF_RXRPC"),
    "RxrpcChallenged": (272, 16, "receive", 4, "AF_RXRPC"),
    "RxrpcRespond": (272, 17, "send", 0, "AF_RXRPC"),
    "RxrpcResponded": (272, 18, "receive", 0, "AF_RXRPC"),
    "RxrpcAppData": (272, 19, "send", 0, "AF_RXRPC"),
    "IucvTargetClass": (277, 1, "both", 4, "AF_IUCV"),
    "LlcPacketInfo": (268, 9, "receive", 12, "AF_LLC"),
    "LinkQuality": (0, 3, "receive", 1, "AF_IEEE802154"),
    "MisdnTimestamp": (0, 1, "receive", OLD_TIME.size, "AF_ISDN"),
    "TipcReturned": (271, 1, "receive", 8, "AF_TIPC"),
    "TipcReturnedData": (271, 2, "receive", 0, "AF_TIPC"),
    "TipcDestination": (271, 3, "receive", 12, "AF_TIPC"),
}
FAMILIES = {
    "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17, "AF_RDS": 21, "AF_LLC": 26,
    "AF_CAN": 29, "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_IUCV": 32, "AF_RXRPC": 33, "AF_ISDN": 34,
    "AF_IEEE802154": 36, "AF_ALG": 38,
}  # fmt: skip


@pytest.mark.parametrize("name", LINUX)
def test_numbers_of_linux(name: str) -> None:
    level, type, direction, size, family = LINUX[name]
    kind = getattr(kinds, name)
    row = _table.row_of(kind)
    assert (kind.level, kind.type) == (level, type)
    assert (row.direction, wire_size(kind)) == (direction, size)
    assert FAMILIES[family] in row.families
    if direction != "send":
        decoded = cmsgx.decode(level, type, bytes(size), FAMILIES[family])
        assert decoded == kind.unpack(bytes(size))
    for other in set(FAMILIES.values()) - row.families:
        assert _table.lookup(level, type, other) is not kind


@pytest.mark.parametrize(
    ("family", "type", "kind"),
    [
        ("AF_INET", 1, "Tos"), ("AF_INET", 2, "Ttl"), ("AF_BLUETOOTH", 1, "HciDirection"),
        ("AF_BLUETOOTH", 2, "HciTimestamp"), ("AF_ISDN", 1, "MisdnTimestamp"),
        ("AF_IEEE802154", 3, "LinkQuality"), ("AF_INET6", 3, "SecurityLabel"),
    ],
)  # fmt: skip
def test_level_0_is_distinguished_by_the_family(family: str, type: int, kind: str) -> None:
    assert _table.lookup(0, type, FAMILIES[family]) is getattr(kinds, kind)
    assert _table.lookup(0, type, socket.AF_UNIX) is None


def test_without_a_family_level_0_is_that_of_ip() -> None:
    assert cmsgx.decode(0, 1, b"\1") == kinds.Tos(1)
    assert cmsgx.decode(0, 2, struct.pack("=i", 64)) == kinds.Ttl(64)
    assert cmsgx.decode(0, 3, b"label") == cmsgx.SecurityLabel(b"label")
    stats = cmsgx.decode(1, 54, b"", family=FAMILIES["AF_CAN"])
    assert (type(stats), type(cmsgx.decode(1, 54, b""))) == (kinds.J1939Stats, kinds.TcpStats)


# Real sockets -----------------------------------------------------------------------------------

NETLINK_ROUTE, NETLINK_KOBJECT_UEVENT = 0, 15
ETH_P_ALL = 3
AF_RDS, AF_LLC, AF_BLUETOOTH, AF_RXRPC, AF_ISDN, AF_IEEE802154 = 21, 26, 31, 33, 34, 36
SOCK_DCCP = 6
IPPROTO_SCTP, IPPROTO_DCCP = 132, 33
BTPROTO_HCI = 1

SWITCHED: list[tuple[Any, int, int, int]] = [
    (kinds.PacketAuxdata, socket.AF_PACKET, socket.SOCK_RAW, 0),
    (kinds.NetlinkPacketInfo, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE),
    (kinds.NetworkNamespaceId, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE),
    (kinds.SctpReceiveInfo, socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP),
    (kinds.SctpNextInfo, socket.AF_INET6, socket.SOCK_SEQPACKET, IPPROTO_SCTP),
    (kinds.SctpSendReceiveInfo, socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP),
    (kinds.DccpPriority, socket.AF_INET, SOCK_DCCP, IPPROTO_DCCP),
    (kinds.HciDirection, AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI),
    (kinds.HciTimestamp, AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI),
    (kinds.RdsCongestionUpdate, AF_RDS, socket.SOCK_SEQPACKET, 0),
    (kinds.RdsReceiveLatency, AF_RDS, socket.SOCK_SEQPACKET, 0),
    (kinds.RdsZeroCopyCompletion, AF_RDS, socket.SOCK_SEQPACKET, 0),
    (kinds.RxrpcChallenged, AF_RXRPC, socket.SOCK_DGRAM, socket.AF_INET),
    (kinds.LlcPacketInfo, AF_LLC, socket.SOCK_DGRAM, 0),
    (kinds.LinkQuality, AF_IEEE802154, socket.SOCK_DGRAM, 0),
    (kinds.MisdnTimestamp, AF_ISDN, socket.SOCK_DGRAM, 0x21),
]


@contextmanager
def opened(family: int, type: int, protocol: int) -> Iterator[socket.socket]:
    try:
        sock = socket.socket(family, type, protocol)
    except OSError as error:
        pytest.skip(f"socket({family}, {type}, {protocol}): errno {error.errno}, {error.strerror}")
    with sock:
        yield sock


@pytest.mark.parametrize(
    ("kind", "family", "type", "protocol"), SWITCHED, ids=[row[0].__name__ for row in SWITCHED]
)
def test_switched_on_and_off_again(kind: Any, family: int, type: int, protocol: int) -> None:
    (option,) = _table.row_of(kind).options
    # For HCI's the kernel writes one byte; what Python has after it can be anything.
    told = 1 if family == AF_BLUETOOTH else option.size
    with opened(family, type, protocol) as sock:

        def now() -> bytes | None:
            try:
                return sock.getsockopt(option.level, option.name, option.size)[:told]
            except OSError:
                return None  # one that the kernel accepts, but does not report

        before = now()
        try:
            handle = cmsgx.enable(sock, kind)
        except (cmsgx.errors.NotSupportedError, PermissionError) as error:
            pytest.skip(f"{option.text}: errno {error.errno}, {error.strerror}")
        with handle:
            assert before is None or now() != before
        assert now() == before
        # A kind that comes without being switched on has space, and no other option takes it.
        cmsgx.Receiver(sock, 100)


REPORTED_DIFFERENTLY = """
import errno, socket, struct
import cmsgx, switches
from cmsgx import kinds
from cmsgx.kinds import _table

(option,) = _table.row_of(kinds.NetlinkPacketInfo).options


def is_on():
    switches.fake_option(option.level, option.name)
    value = sock.getsockopt(option.level, option.name)
    switches.fake_option(option.level, option.name, get_error=errno.EINVAL)
    return value


def refused(number, call):
    switches.fake_option(option.level, option.name, get_error=number)
    try:
        call()
    except OSError as error:
        assert error.errno == number, error
    else:
        raise AssertionError


with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
    assert not is_on()
    with cmsgx.enable(sock, kinds.NetlinkPacketInfo):
        assert is_on()
    assert not is_on()
    cmsgx.Receiver(sock, 100)
    switches.fake_option(option.level, option.name, get_error=errno.EBADFD)
    cmsgx.Receiver(sock, 100)
    refused(errno.EBADFD, lambda: cmsgx.enable(sock, kinds.NetlinkPacketInfo))
    refused(errno.EBADF, lambda: cmsgx.Receiver(sock, 100))
"""


def test_the_kernel_accepts_an_option_that_it_reports_differently() -> None:
    """As for mISDN: getsockopt(2) has another size, EINVAL. As for HCI: another channel, EBADFD."""
    run_with_a_fake_option(REPORTED_DIFFERENTLY)


@pytest.mark.parametrize("room", [2048, 64])
def test_packet_auxdata_from_the_kernel(room: int) -> None:
    with opened(socket.AF_PACKET, socket.SOCK_RAW, 0) as sniffer:
        cmsgx.enable(sniffer, kinds.PacketAuxdata)
        sniffer.bind(("lo", ETH_P_ALL))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.sendto(bytes(100), sender.getsockname())
            port = struct.pack("!H", sender.getsockname()[1])
        while True:
            data, control, _, _ = sniffer.recvmsg(room, 100)
            if data[34:38] == 2 * port:
                break
        (aux,) = [cmsgx.decode(*one, family=socket.AF_PACKET) for one in control]
        assert type(aux) is kinds.PacketAuxdata
        assert (aux.length, aux.snaplen, aux.mac, aux.net) == (142, 142, 0, 14)
        assert kinds.PacketStatus.VLAN_VALID not in aux.status
        assert (aux.vlan_id, aux.vlan_priority) == (None, None)


def test_the_group_of_a_netlink_message() -> None:
    with opened(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sock:
        rx = cmsgx.Receiver(sock, 4096, want=[kinds.NetlinkPacketInfo])
        sock.bind((0, 1))
        with opened(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sender:
            try:
                sender.sendto(b"to all", (0, 1))
            except OSError as error:
                pytest.skip(f"sendto a group: errno {error.errno}, {error.strerror}")
            sender.sendto(b"to one", (sock.getsockname()[0], 0))
        found = {}
        for message in rx:
            found[message.data] = message[kinds.NetlinkPacketInfo].group
            if message.data == b"to one":
                break
        assert (found[b"to all"], found[b"to one"]) == (1, 0)


# Positions ----------------------------------------------------------------------------------------

ALL_KINDS = [
    kind
    for name in (*kinds.__all__, "Rights", "Credentials", "SecurityLabel")
    for kind in [getattr(kinds, name)]
    if isinstance(kind, type)
    and issubclass(kind, kinds.ControlMessage)
    and kind not in (kinds.ControlMessage, kinds.StructMessage)
]
EACH_OF_ALL = pytest.mark.parametrize(
    "kind", dict.fromkeys(ALL_KINDS), ids=lambda kind: str(kind.__name__)
)


@EACH_OF_ALL
def test_the_signature_has_the_fields_in_order(kind: Any) -> None:
    """Including those that this system lacks."""
    signature = inspect.signature(kind)
    assert tuple(signature.parameters) == kind.__match_args__
    assert signature.return_annotation is signature.empty
    for parameter in signature.parameters.values():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert parameter.annotation is not parameter.empty, parameter


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (kinds.Ttl, "(ttl: 'int')"),
        (kinds.UdpSegment, "(size: 'int')"),
        (kinds.RxrpcAck, "()"),
        (cmsgx.Credentials, "(pid: 'int | None' = -1, uid: 'int' = -1, gid: 'int' = -1)"),
        (cmsgx.Rights, "(fds: 'FileDescriptors')"),
        (cmsgx.Unknown, "(level: 'int', type: 'int', data: 'Buffer')"),
        (
            kinds.PacketInfo6,
            "(address: 'IPMember' = IPAddress('::'), interface: 'int' = 0)",
        ),
    ],
)
def test_a_signature(kind: Any, text: str) -> None:
    assert str(inspect.signature(kind)) == text


def test_what_is_not_a_kind_has_no_signature_of_one() -> None:
    for other in (kinds.Ttl(1), kinds.ControlMessage, kinds.StructMessage):
        assert not hasattr(other, "__signature__")


@EACH
def test_fields_match_by_their_position(kind: Any) -> None:
    record = kind.unpack(next(made_payloads(kind, 1)))
    names = [f"v{i}" for i in range(len(kind.__match_args__))]
    scope: dict[str, Any] = {"record": record, "Kind": kind}
    source = f"match record:\n case Kind({', '.join(names)}): found = ({', '.join(names)},)"
    exec(source.replace("(,)", "()"), scope)
    assert scope["found"] == tuple(values(record).values())


def test_case_ttl() -> None:
    def told(message: Any) -> str:
        match message:
            case kinds.Ttl(ttl) if ttl > 100:
                return "near"
            case kinds.Ttl(ttl):
                return f"{ttl} hops left"
            case cmsgx.Credentials(_, uid, _):
                return f"of {uid}"
            case cmsgx.Rights((first, *_)):
                return f"descriptor {first}"
            case cmsgx.Unknown(level, _, data):
                return f"{level}: {data!r}"
            case _:
                return ""

    messages = [
        kinds.Ttl(255), kinds.Ttl(7), cmsgx.Credentials(1, 5, 6), cmsgx.Rights([3, 4]),
        cmsgx.Unknown(1, 2, b"x"), kinds.HopLimit(7),
    ]  # fmt: skip
    assert [told(one) for one in messages] == [
        "near", "7 hops left", "of 5", "descriptor 3", "1: b'x'", "",
    ]  # fmt: skip


def test_a_class_may_match_as_it_says() -> None:
    class Own(kinds.StructMessage):
        __slots__ = ()
        __match_args__ = ("second", "first")

        first: int = kinds.member()
        second: int = kinds.member()

    class Slots(kinds.ControlMessage):
        __slots__ = ("one", "two")

    with unregistered():
        layout = (("first", 0, "i"), ("second", 4, "i"))
        kinds.register(Own, level=7777, type=1, layout=layout, size=8)
        kinds.register(Slots, level=7777, type=2)
        assert Own.__match_args__ == ("second", "first")
        assert cast("Any", Slots).__match_args__ == ("one", "two")
        match Own(1, 2):
            case Own(2, 1):
                pass
            case other:
                raise AssertionError(other)
        assert str(inspect.signature(Slots)) == "(one, two)"
        assert list(inspect.signature(Own).parameters) == ["first", "second"]
