"""FreeBSD, NetBSD, OpenBSD, macOS: kinds that Linux lacks.

Kinds that Linux has too are in the module of their family: Timestamp, PacketInfo, Ttl, HopLimit,
SctpInit, ...
"""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Any

from ._base import StructMessage, member
from ._mixins import OnInterface
from ._register import register
from ._row import constant, families, option, wire_format
from ._sctp_dccp import EVENTS, SctpFlags
from ._udp_tcp import TlsType

if TYPE_CHECKING:
    from ._address import IPMember

__all__ = [
    "ContinuousTicks",
    "DestinationPort",
    "FlowId",
    "FlowType",
    "IpsecFlowInfo",
    "MonotonicTicks",
    "MonotonicTimestamp",
    "NetServiceType",
    "PacketLogReceive",
    "PacketLogSend",
    "ReceiveInterface",
    "RoutingTable",
    "RssBucketId",
    "SctpExtendedReceiveInfo",
    "SocketTrafficClass",
    "SourcePacketInfo",
    "TimestampInfo",
    "TimestampInfoFlags",
    "TlsRecordHeader",
    "WakePacket",
]

_UNIX = families("AF_UNIX")
_IPV4 = families("AF_INET")
_IPV6 = families("AF_INET6")
_IP = _IPV4 | _IPV6
_IS_NETBSD = sys.platform.startswith("netbsd")


# Time of arrival ------------------------------------------------------------------------


@register(
    level="SOL_SOCKET",
    type="SCM_MONOTONIC",
    layout="time",
    encoding="timespec",
    direction="receive",
    families=_UNIX | _IP,
    option=(
        option("SOL_SOCKET", "SO_TIMESTAMP", 16),
        option("SOL_SOCKET", "SO_TS_CLOCK", 0, value=constant("SO_TS_MONOTONIC")),
    ),
    other_forms=[
        wire_format("SOL_SOCKET", "SCM_MONOTONIC", "timespec", direction="send", families=_UNIX)
    ],
)
class MonotonicTimestamp(StructMessage):
    """When the kernel received it, by CLOCK_MONOTONIC: SO_TS_CLOCK, setsockopt(2). FreeBSD.

    `nanoseconds` is an int. It replaces Timestamp, because a socket has only one clock. If one is
    sent over AF_UNIX, the kernel fills in the time of the send.
    """

    __slots__ = ()

    nanoseconds: int | None = member(
        default=None, doc="Time of CLOCK_MONOTONIC in nanoseconds; None if there was none."
    )


class TimestampInfoFlags(enum.IntFlag, boundary=enum.KEEP):
    """ST_INFO_*: what made a time stamp. FreeBSD, sys/socket.h"""

    HW = constant("ST_INFO_HW")
    """The network adapter."""
    HW_HPREC = constant("ST_INFO_HW_HPREC")
    """The network adapter, with a high-precision clock."""


@register(
    level="SOL_SOCKET",
    type="SCM_TIME_INFO",
    layout="sock_timestamp_info",
    direction="receive",
    families=_IP,
    option=option("SOL_SOCKET", "SO_TIMESTAMP", 64),
)
class TimestampInfo(StructMessage):
    """How the time stamp in the same message was made: SCM_TIME_INFO, setsockopt(2). FreeBSD.

    Attached only if the network adapter made the time stamp.
    """

    __slots__ = ()

    flags: TimestampInfoFlags = member(
        "st_info_flags", convert=TimestampInfoFlags, doc="How the time stamp was made, ST_INFO_*."
    )


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMP_MONOTONIC",
    layout="u64",
    direction="receive",
    families=_IP,
    option=option("SOL_SOCKET", "SO_TIMESTAMP_MONOTONIC", 8),
)
class MonotonicTicks(StructMessage):
    """When the kernel received it, in mach_absolute_time(): SCM_TIMESTAMP_MONOTONIC. macOS.

    Not nanoseconds: mach_timebase_info() gives the length of a tick. The clock stops while the
    machine sleeps.
    """

    __slots__ = ()

    ticks: int = member(doc="Time in ticks of mach_absolute_time().")


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMP_CONTINUOUS",
    layout="u64",
    direction="receive",
    families=_IP,
    option=option("SOL_SOCKET", "SO_TIMESTAMP_CONTINUOUS", 8),
)
class ContinuousTicks(StructMessage):
    """When the kernel received it, in mach_continuous_time(): SCM_TIMESTAMP_CONTINUOUS. macOS.

    Like MonotonicTicks, but the clock runs on while the machine sleeps. From a private header.
    """

    __slots__ = ()

    ticks: int = member(doc="Time in ticks of mach_continuous_time().")


# Place of arrival -----------------------------------------------------------------------


@register(
    level="SOL_IP",
    type="IP_RECVIF",
    layout="sockaddr_dl",
    direction="receive",
    families=_IPV4,
    option=option("SOL_IP", "IP_RECVIF", 64),
)
class ReceiveInterface(StructMessage, OnInterface):
    """The interface of an IPv4 packet's arrival, struct sockaddr_dl: IP_RECVIF, ip(4). BSD, macOS.

    `interface` is its index, 0 if the kernel reports none; `link` is its IFT_* of net/if_types.h.
    `data` holds its name, `name_size` bytes, and then its address, `address_size` bytes.
    """

    __slots__ = ()

    interface: int = member(
        "sdl_index", doc="Index of the interface; 0 if the kernel reports none."
    )
    link: int = member("sdl_type", default=0, doc="Type of the interface, IFT_* of net/if_types.h.")
    name_size: int = member(
        "sdl_nlen", default=0, doc="Length in bytes of the name at the start of `data`."
    )
    address_size: int = member(
        "sdl_alen", default=0, doc="Length in bytes of the link-layer address after the name."
    )
    data: bytes = member(
        "sdl_data", default=b"", doc="Name of the interface, then its link-layer address."
    )

    @property
    def name(self) -> str:
        """Its name at that time; empty if the kernel reports none."""
        return self.data[: self.name_size].decode("ascii", "replace")

    @property
    def address(self) -> bytes:
        """Its link-layer address, six bytes for Ethernet; empty if the kernel reports none."""
        return self.data[self.name_size : self.name_size + self.address_size]


@register(
    level="SOL_IP",
    # On macOS it is another name for IP_PKTINFO.
    type="IP_RECVPKTINFO" if _IS_NETBSD else "",
    layout="in_pktinfo",
    direction="receive",
    families=_IPV4,
    option=option("SOL_IP", "IP_RECVPKTINFO", 8),
)
class SourcePacketInfo(StructMessage, OnInterface):
    """The interface and source address of an IPv4 packet: IP_RECVPKTINFO, ip(4). NetBSD.

    PacketInfo has the address that the packet was sent to.
    """

    __slots__ = ()

    interface: int = member(
        "ipi_ifindex", doc="Index of the interface by which the packet arrived."
    )
    source: IPMember = member("ipi_addr", doc="IPv4 source address of the packet.")


@register(
    level="SOL_IP",
    type="IP_RECVDSTPORT",
    layout="be16",
    direction="receive",
    families=_IPV4,
    option=(
        option("SOL_IPV6", "IPV6_RECVDSTPORT", 2, families=_IPV6),
        option("SOL_IP", "IP_RECVDSTPORT", 2, families=_IPV4),
    ),
    other_forms=[wire_format("SOL_IPV6", "IPV6_RECVDSTPORT", families=_IPV6)],
)
class DestinationPort(StructMessage):
    """The port that a datagram was sent to before pf diverted it: IP_RECVDSTPORT, ip(4). OpenBSD.

    IPv6 has it too: IPV6_RECVDSTPORT.
    """

    __slots__ = ()

    port: int = member(doc="Port that the datagram was sent to, before pf diverted it.")


@register(
    level="SOL_IP",
    type="IP_RECVRTABLE",
    layout="u32",
    direction="receive",
    families=_IPV4,
    option=option("SOL_IP", "IP_RECVRTABLE", 4),
)
class RoutingTable(StructMessage):
    """The routing table in which an IPv4 packet arrived: IP_RECVRTABLE, ip(4). OpenBSD."""

    __slots__ = ()

    table: int = member(doc="Number of the routing table in which the packet arrived.")


@register(
    level="SOL_IP",
    type="IP_IPSECFLOWINFO",
    layout="u32",
    families=_IPV4,
    option=option("SOL_IP", "IP_IPSECFLOWINFO", 4),
)
class IpsecFlowInfo(StructMessage):
    """The IPsec flow of a datagram, received and sent: IP_IPSECFLOWINFO, ip(4). OpenBSD."""

    __slots__ = ()

    flow: int = member(doc="Id of the IPsec flow.")


def _flow(name: str, switch: str) -> dict[str, Any]:
    """The arguments of register() for three kinds that FreeBSD has for both IPv4 and IPv6."""
    return {
        "level": "SOL_IP",
        "type": f"IP_{name}",
        "layout": "u32",
        "families": _IPV4,
        "option": (
            option("SOL_IPV6", f"IPV6_{switch}", 4, families=_IPV6),
            option("SOL_IP", f"IP_{switch}", 4, families=_IPV4),
        ),
        "other_forms": [
            wire_format("SOL_IPV6", f"IPV6_{name}", families=_IPV6, direction="receive")
        ],
    }


@register(**_flow("FLOWID", "RECVFLOWID"))
class FlowId(StructMessage):
    """The hash by which the network adapter identifies a flow: IP_FLOWID, ip(4). FreeBSD.

    IPv4 and IPv6; sent over IPv4 only.
    """

    __slots__ = ()

    id: int = member(doc="Hash of the flow, made by the network adapter; 32 bits.")


@register(**_flow("FLOWTYPE", "RECVFLOWID"))
class FlowType(StructMessage):
    """What a FlowId was computed from, M_HASHTYPE_*: IP_FLOWTYPE, ip(4). FreeBSD, sys/mbuf.h

    IPv4 and IPv6; sent over IPv4 only.
    """

    __slots__ = ()

    hash_type: int = member(doc="What the hash covers, M_HASHTYPE_* of sys/mbuf.h.")


@register(**_flow("RSSBUCKETID", "RECVRSSBUCKETID"))
class RssBucketId(StructMessage):
    """The bucket of receive side scaling that a packet fell into: IP_RSSBUCKETID, ip(4). FreeBSD.

    Only in kernels with `options RSS`. IPv4 and IPv6; sent over IPv4 only.
    """

    __slots__ = ()

    bucket: int = member(doc="Number of the receive side scaling bucket.")


# Sending --------------------------------------------------------------------------------


@register(
    level="SOL_SOCKET",
    type="SO_TRAFFIC_CLASS",
    layout="int",
    families=_IP,
    option=option("SOL_SOCKET", "SO_RECV_TRAFFIC_CLASS", 4),
)
class SocketTrafficClass(StructMessage):
    """The class of service of a packet, SO_TC_*, received and sent. macOS, private header."""

    __slots__ = ()

    value: int = member(doc="Class of service, SO_TC_*.")


@register(
    level="SOL_SOCKET",
    type="SO_NET_SERVICE_TYPE",
    layout="int",
    direction="send",
    families=_IP,
)
class NetServiceType(StructMessage):
    """The service that this packet is for, NET_SERVICE_TYPE_*: SO_NET_SERVICE_TYPE. macOS."""

    __slots__ = ()

    value: int = member(doc="Service type, NET_SERVICE_TYPE_*.")


@register(
    level="SOL_SOCKET",
    type="SO_RECV_WAKE_PKT",
    layout="int",
    direction="receive",
    families=_IP,
    option=option("SOL_SOCKET", "SO_RECV_WAKE_PKT", 4),
)
class WakePacket(StructMessage):
    """Whether this packet woke the machine: SO_RECV_WAKE_PKT. macOS, private header."""

    __slots__ = ()

    wake: bool = member(convert=bool, doc="True if this packet woke the machine.")


@register(
    level="SOL_SOCKET",
    type="SCM_MPKL_SEND_INFO",
    layout="so_mpkl_send_info",
    direction="send",
    families=_IP,
)
class PacketLogSend(StructMessage):
    """What the system's packet log records about this data: SCM_MPKL_SEND_INFO. macOS.

    `uuid` is 16 bytes. From a private header; for TCP.
    """

    __slots__ = ()

    uuid: bytes = member("mpkl_uuid", doc="UUID, 16 bytes.")
    protocol: int = member("mpkl_proto", default=0, doc="Protocol number, IPPROTO_*.")


@register(
    level="SOL_SOCKET",
    type="SCM_MPKL_RECV_INFO",
    layout="so_mpkl_recv_info",
    direction="receive",
    families=_IP,
    option=option("SOL_SOCKET", "SO_MPKL_SEND_INFO", 8),
)
class PacketLogReceive(StructMessage):
    """What the system's packet log records about this data: SCM_MPKL_RECV_INFO. macOS.

    `sequence` is the number of the TCP segment. From a private header.
    """

    __slots__ = ()

    sequence: int = member("mpkl_seq", doc="Sequence number of the TCP segment.")
    protocol: int = member("mpkl_proto", default=0, doc="Protocol number, IPPROTO_*.")


@register(
    level="SOL_TCP",
    type="TLS_GET_RECORD",
    layout="tls_get_record",
    direction="receive",
    families=_IP,
    unsolicited_size=6,
)
class TlsRecordHeader(StructMessage):
    """The header of a kTLS record, struct tls_get_record: TLS_GET_RECORD, ktls(4). FreeBSD 13.

    `length` is the length of the data in bytes. Each receive from a socket with TCP_RXTLS_ENABLE
    returns one record. Linux has TlsRecordType instead; FreeBSD sends that one too.
    """

    __slots__ = ()

    record: TlsType = member("tls_type", convert=TlsType, doc="Type of the TLS record.")
    major: int = member("tls_vmajor", doc="Major version of the TLS record.")
    minor: int = member("tls_vminor", doc="Minor version of the TLS record.")
    length: int = member("tls_length", doc="Length of the data in bytes.")


@register(
    level="SOL_SCTP",
    type="SCTP_EXTRCV",
    layout="sctp_extrcvinfo",
    direction="receive",
    families=_IP,
    option=(EVENTS, option("SOL_SCTP", "SCTP_USE_EXT_RCVINFO", 0)),
)
class SctpExtendedReceiveInfo(StructMessage):
    """SctpSendReceiveInfo with facts about the next message: RFC 6458 section 5.3.3. FreeBSD.

    The RFC prefers SctpNextInfo. It replaces SctpSendReceiveInfo. `next_flags` has
    SCTP_NEXT_MSG_AVAIL if there is a next message; `key` is valid if `key_valid` is not 0. The
    other fields are those of SctpSendReceiveInfo.
    """

    __slots__ = ()

    stream: int = member("sinfo_stream", doc="Number of the stream.")
    ssn: int = member("sinfo_ssn", default=0, doc="Number of the message in its stream.")
    flags: SctpFlags = member(
        "sinfo_flags", default=0, convert=SctpFlags, doc="Flags of the message, SCTP_*."
    )
    ppid: int = member(
        "sinfo_ppid", default=0, doc="Payload protocol id, its bytes as they lie in memory."
    )
    context: int = member(
        "sinfo_context",
        default=0,
        doc="Number that the program gave; it comes back if a send fails.",
    )
    lifetime: int = member(
        "sinfo_timetolive",
        default=0,
        doc="Milliseconds after which the message is given up; 0: never. Sent only.",
    )
    tsn: int = member("sinfo_tsn", default=0, doc="Transmission sequence number of the message.")
    cumulative_tsn: int = member(
        "sinfo_cumtsn",
        default=0,
        doc="The last transmission sequence number that arrived in order.",
    )
    association: int = member(
        "sinfo_assoc_id", default=0, doc="Id of the association; of one-to-many sockets."
    )
    next_flags: int = member(
        "serinfo_next_flags",
        default=0,
        doc="SCTP_NEXT_MSG_*; SCTP_NEXT_MSG_AVAIL: another message waits.",
    )
    next_stream: int = member("serinfo_next_stream", default=0, doc="Stream of the next message.")
    next_association: int = member(
        "serinfo_next_aid", default=0, doc="Association of the next message."
    )
    next_length: int = member(
        "serinfo_next_length", default=0, doc="Length of the next message in bytes."
    )
    next_ppid: int = member(
        "serinfo_next_ppid",
        default=0,
        doc="Payload protocol id of the next message, its bytes as they came.",
    )
    key: int = member(
        "sinfo_keynumber", default=0, doc="Number of the shared key; valid if `key_valid`."
    )
    key_valid: int = member("sinfo_keynumber_valid", default=0, doc="Not 0 if `key` is valid.")
