"""Where a wire format can be sent: on which sockets, and with which packets."""

from __future__ import annotations

import socket as _socket
from typing import Literal, NamedTuple, TypeAlias, get_args

from .. import _cmsg
from ._row import WireFormat, number

# For each level, the types of IP sockets that read what is sent at it. Others drop it without an
# error: TCP drops a Ttl, UDP the type of a TLS record.
_DATAGRAM_OR_RAW = frozenset({_socket.SOCK_DGRAM, _socket.SOCK_RAW})
# 10 is SOCK_PACKET, whose packets always have the mark and priority of the socket.
_ANY_PACKET = _DATAGRAM_OR_RAW | {10}
_SENT_BY: dict[int, frozenset[int]] = {
    value: types
    for name, types in {
        "SOL_IP": _DATAGRAM_OR_RAW,
        "SOL_IPV6": _DATAGRAM_OR_RAW,
        "SOL_UDP": frozenset({_socket.SOCK_DGRAM}),
        "SOL_TCP": frozenset({_socket.SOCK_STREAM}),
        "SOL_TLS": frozenset({_socket.SOCK_STREAM}),
        "SOL_SCTP": frozenset({_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET}),
        "SOL_DCCP": frozenset({6}),  # SOCK_DCCP
    }.items()
    if (value := getattr(_cmsg, name, None)) is not None
}


Reader: TypeAlias = Literal["", "UDP", "TCP", "kTLS", "SCTP", "no header", "header"]
"""What has to read the control message, if the socket's family and type do not decide that:
codec.h, in the same order."""


READERS: tuple[Reader, ...] = get_args(Reader)
_BY_ANY: Reader = ""
_READERS: dict[str, Reader] = {"SOL_UDP": "UDP", "SOL_TLS": "kTLS", "SOL_SCTP": "SCTP"}
_READER: dict[int, Reader] = {
    getattr(_cmsg, name): reader for name, reader in _READERS.items() if hasattr(_cmsg, name)
}


# For these the level is not enough. Nearly all datagram and raw sockets read those of SOL_SOCKET,
# but of the streams only TCP reads some; and a header that the packet brings is not changed.
_KINDS_READ_BY: tuple[tuple[str, str, frozenset[int], Reader], ...] = (
    ("SOL_SOCKET", "SO_MARK", _DATAGRAM_OR_RAW, ""),
    ("SOL_SOCKET", "SO_PRIORITY", _DATAGRAM_OR_RAW, ""),
    ("SOL_SOCKET", "SCM_TXTIME", _ANY_PACKET, ""),
    ("SOL_SOCKET", "SCM_TS_OPT_ID", _ANY_PACKET, ""),
    ("SOL_SOCKET", "SO_TIMESTAMPING_OLD", frozenset(), "TCP"),
    ("SOL_SOCKET", "SO_TIMESTAMPING_NEW", frozenset(), "TCP"),
    ("SOL_SOCKET", "SCM_DEVMEM_DMABUF", frozenset({_socket.SOCK_STREAM}), "TCP"),
    ("SOL_IP", "IP_TTL", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IP", "IP_TOS", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IP", "IP_PROTOCOL", frozenset({_socket.SOCK_RAW}), "header"),
    ("SOL_IPV6", "IPV6_HOPLIMIT", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_2292HOPLIMIT", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_TCLASS", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_DONTFRAG", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_HOPOPTS", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_2292HOPOPTS", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_DSTOPTS", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_2292DSTOPTS", _DATAGRAM_OR_RAW, "no header"),
    ("SOL_IPV6", "IPV6_RTHDRDSTOPTS", _DATAGRAM_OR_RAW, "no header"),
)


_READ_BY: dict[tuple[int, int], tuple[frozenset[int], Reader]] = {
    (_at, _what): (types, reader)
    for level, name, types, reader in _KINDS_READ_BY
    if (_at := number(level)) is not None and (_what := number(name)) is not None
}


IP_FAMILIES = frozenset({_socket.AF_INET, _socket.AF_INET6})
# At these levels, only a packet of that IP version reads the control message.
_PACKET_LEVELS: dict[int, int] = {
    value: family
    for name, family in {"SOL_IP": _socket.AF_INET, "SOL_IPV6": _socket.AF_INET6}.items()
    if (value := getattr(_cmsg, name, None)) is not None
}


def may_have(family: int, type: int, level: int) -> bool:
    """Whether a socket can have options of that level: TCP has none of UDP."""
    types = _SENT_BY.get(level)
    is_transport = family in IP_FAMILIES and level not in _PACKET_LEVELS
    return not (is_transport and types) or type in types


class Way(NamedTuple):
    """Where a wire format can be sent."""

    over: frozenset[int]
    """AF_* of the socket; empty for any."""
    by: frozenset[int]
    """SOCK_* of the socket; empty for any."""
    reader: Reader = ""
    is_by_peer: bool = False
    """`over` is the family of the packet: an AF_INET6 socket sends IPv4 to a mapped address."""


def way_of(wire: WireFormat) -> Way:
    """Where the wire format can be sent. If it names no families, the kernel decides."""
    if not wire.families & IP_FAMILIES:
        return Way(wire.families, frozenset())
    by, reader = _READ_BY.get(
        (wire.level, wire.type),
        (_SENT_BY.get(wire.level, frozenset()), _READER.get(wire.level, _BY_ANY)),
    )
    packet = _PACKET_LEVELS.get(wire.level)
    if packet is None:
        return Way(wire.families, by, reader)
    return Way(wire.families - IP_FAMILIES | {packet}, by, reader, True)
