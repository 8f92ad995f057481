"""UDP, TCP and kTLS: udp(7), tcp(7), Documentation/networking/tls.rst."""

from __future__ import annotations

from ._base import StructMessage, member
from ._register import register
from ._row import IS_LINUX, OpenEnum, constant, families, option, wire_format

__all__ = ["TcpInq", "TlsRecordType", "TlsType", "UdpGro", "UdpSegment"]

_IP = families("AF_INET", "AF_INET6")


@register(
    level="SOL_UDP",
    type="UDP_SEGMENT",
    layout="u16",
    direction="send",
    families=_IP,
    since="4.18",
    needs="UDP, not UDP-Lite, at most 64 segments (128 since Linux 6.12), each with its headers "
    "within the MTU, and checksums that are not switched off (SO_NO_CHECK)",
)
class UdpSegment(StructMessage):
    """Splits the data into datagrams of `size` bytes, the last maybe shorter: UDP_SEGMENT, udp(7).

    Linux 4.18. At most 64 datagrams (128 since 6.12), 65507 bytes in all; `size` with the headers
    has to fit in the MTU. For UDP sockets; UDP-Lite refuses it (EIO).
    """

    __slots__ = ()

    size: int = member(doc="Size in bytes of each datagram but the last, 1 to 65507.")


@register(
    level="SOL_UDP",
    type="UDP_GRO",
    layout="int",
    direction="receive",
    families=_IP,
    option=option("SOL_UDP", "UDP_GRO", 4, "5.0"),
)
class UdpGro(StructMessage):
    """The data is coalesced datagrams of `size` bytes, the last maybe shorter: UDP_GRO, udp(7).

    Linux 5.0. Absent when the datagram was not coalesced. Use a buffer of 64 KiB: what does not fit
    is lost. If the receive queue is full, coalesced datagrams are dropped together, and
    ReceiveQueueOverflow counts them as one.
    """

    __slots__ = ()

    size: int = member(doc="Size in bytes of each datagram but the last.")


@register(
    level="SOL_TCP",
    type="TCP_CM_INQ",
    layout="int",
    direction="receive",
    families=_IP,
    option=option("SOL_TCP", "TCP_INQ", 4, "4.18"),
)
class TcpInq(StructMessage):
    """Bytes left in the receive queue; 1 at the end of the stream: TCP_INQ. Linux 4.18."""

    __slots__ = ()

    nbytes: int = member(doc="Bytes that are still queued; 1 at the end of the stream.")


class TlsType(OpenEnum):
    """The type of a TLS record: RFC 8446 section 5.1."""

    CHANGE_CIPHER_SPEC = constant("TLS_RECORD_TYPE_CHANGE_CIPHER_SPEC")
    ALERT = constant("TLS_RECORD_TYPE_ALERT") or constant("TLS_RLTYPE_ALERT")
    HANDSHAKE = constant("TLS_RECORD_TYPE_HANDSHAKE") or constant("TLS_RLTYPE_HANDSHAKE")
    APPLICATION_DATA = constant("TLS_RECORD_TYPE_DATA") or constant("TLS_RLTYPE_APP")
    HEARTBEAT = constant("TLS_RECORD_TYPE_HEARTBEAT")
    TLS12_CID = constant("TLS_RECORD_TYPE_TLS12_CID")
    ACK = constant("TLS_RECORD_TYPE_ACK")


@register(
    level="SOL_TLS",
    type="TLS_GET_RECORD_TYPE",
    layout="u8",
    direction="receive",
    families=_IP,
    unsolicited_size=1,
    other_forms=[
        wire_format("SOL_TLS" if IS_LINUX else "SOL_TCP", "TLS_SET_RECORD_TYPE", direction="send"),
    ],
    since="4.17",
    needs="a socket whose sending side is kTLS (TLS_TX), and no MSG_MORE",
)
class TlsRecordType(StructMessage):
    """The type of a record of kTLS, received and sent: TLS_GET_RECORD_TYPE, TLS_SET_RECORD_TYPE.

    Each receive from a socket with TLS_RX returns records of one type. Data that is sent without a
    TlsRecordType is application data; with one, MSG_MORE is not allowed. FreeBSD can send it too,
    but receives a TlsRecordHeader. Without kTLS (TLS_TX), sending one is refused, because the data
    would go out as plain text.
    """

    __slots__ = ()

    record: TlsType = member(
        convert=TlsType, doc="Type of the TLS record, 0 to 255; 23: application data."
    )
