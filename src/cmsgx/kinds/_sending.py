"""The errors of a send whose control messages are refused, by this package or by the kernel."""

from __future__ import annotations

import errno
import socket as _socket
from collections.abc import Callable, Iterable
from typing import Any

from .. import _cmsg
from ..errors import NotSupportedError
from ._mixins import OnInterface
from ._row import Row, WireFormat, number
from ._table import lookup_sent, row_of, rows
from ._way import IP_FAMILIES, READERS, Reader, Way, way_of


def family_name(family: int) -> str:
    """AF_* as in the headers."""
    if family in set(_socket.AddressFamily):
        return _socket.AddressFamily(family).name
    for name in dir(_cmsg):
        if name.startswith("AF_") and getattr(_cmsg, name) == family:
            return name
    return f"AF_* {family}"


_PACKET = 10
_OLD_TYPES = {6: "SOCK_DCCP", _PACKET: "SOCK_PACKET"}


def type_name(type: int) -> str:
    if type in _OLD_TYPES:
        return _OLD_TYPES[type]
    return _socket.SocketKind(type).name if type in set(_socket.SocketKind) else f"SOCK_* {type}"


def _version(family: int) -> str:
    return "IPv4" if family == _socket.AF_INET else "IPv6"


def _sorted_names(numbers: Iterable[int], name: Callable[[int], str]) -> str:
    return " and ".join(map(name, sorted(numbers)))


def _of_both(wire: WireFormat) -> str | None:
    """The name of the kind that is sent in this wire format if the packet is IPv4."""
    for row in rows():
        for other in row.formats:
            if other.is_ipv4 and (other.level, other.type) == (wire.level, wire.type):
                name: str = row.kind.__name__
                return name
    return None


def _sent_formats(row: Row) -> list[WireFormat]:
    return [wire for wire in row.formats if wire.direction != "receive"]


# For the error if the wrong thing would read it: what has to read it, and what was found instead.
_READERS: dict[Reader, tuple[str, str]] = {
    "UDP": ("sent by UDP sockets", "of {protocol}"),
    "TCP": ("sent over a stream by TCP without kTLS", "of {protocol}"),
    "kTLS": (
        'sent by sockets with kTLS (TCP_ULP "tls", and TLS_TX)',
        "of {protocol} without it",
    ),
    "SCTP": ("sent by SCTP sockets", "of {protocol}"),
    "no header": (
        "sent if the kernel makes the IP header",
        "whose packets bring their own (IP_HDRINCL)",
    ),
    "header": (
        "sent by raw sockets whose packets bring their own IP header (IP_HDRINCL)",
        "whose header the kernel makes",
    ),
}
_OPTIONS = {
    (number("SOL_SOCKET"), number(name)) for name in ("SO_MARK", "SO_PRIORITY")
}  # fmt: skip
_DEFAULT_PROTOCOLS: dict[int, int] = {
    _socket.SOCK_STREAM: _socket.IPPROTO_TCP, _socket.SOCK_DGRAM: _socket.IPPROTO_UDP,
}  # fmt: skip


def _protocol_name(protocol: int, type: int) -> str:
    """IPPROTO_* as in the headers; 0 stands for the default protocol of the type."""
    protocol = protocol or _DEFAULT_PROTOCOLS.get(type, 0)
    for name, value in vars(_socket).items():
        if name.startswith("IPPROTO_") and value == protocol:
            return name
    return f"IPPROTO_* {protocol}"


def refusal(
    kind: Any, family: int, peer: int, type: int, protocol: int, readers: int
) -> NotSupportedError:
    """The error for a kind that such a socket does not send.

    `peer` is the family of the packet, AF_INET or AF_INET6, or -1. `readers` has one bit for each
    of READERS, set if that reads what the socket sends.
    """
    formats = _sent_formats(row_of(next(base for base in kind.__mro__ if _is_registered(base))))
    ways = [way_of(wire) for wire in formats]
    name = kind.__name__
    loss = "the kernel would drop it without an error, or refuse it"
    # Type before packet: if no packet of this socket can take it, no other kind helps.
    in_family = [way for way in ways if _is_over(way, family)]
    by_type = [way for way in in_family if not way.by or type in way.by]
    read = [way for way in by_type if readers >> READERS.index(way.reader) & 1]
    remedy = ""
    if not in_family:
        over = frozenset[int]().union(*[way.over for way in ways])
        text = (
            f"{name} is sent over {_sorted_names(over, family_name)} sockets; over this one, "
            f"{family_name(family)}, {loss}"
        )
    elif not by_type:
        types = frozenset[int]().union(*[way.by for way in in_family])
        if family in IP_FAMILIES:
            types -= {_PACKET}
        text = (
            f"{name} is sent by {_sorted_names(types, type_name)} sockets; by this one, "
            f"{type_name(type)}, {loss}"
        )
        is_stream = type in (_socket.SOCK_STREAM, _socket.SOCK_SEQPACKET)
        if is_stream and any(_is_option(wire) for wire in formats):
            remedy = "; to set it for the whole stream, use setsockopt(2)"
    elif not read:
        reader, found = _READERS[by_type[0].reader]
        found = found.format(protocol=_protocol_name(protocol, type))
        text = f"{name} is {reader}; by this one, {found}, {loss}"
        if by_type[0].reader == "kTLS":
            remedy = ", and send the data as plain text"
    else:
        over = frozenset[int]().union(*[way.over for way in read])
        text = (
            f"{name} goes with {_sorted_names(over, _version)} packets; with this one, of "
            f"{_version(peer)}, {loss}"
        )
        other = _of_both(formats[0])
        if other is not None and other != name:
            remedy = f"; {other} goes with both"
    return NotSupportedError(errno.EOPNOTSUPP, f"control: {text}{remedy}")


def _is_over(way: Way, family: int) -> bool:
    return not way.over or family in way.over or (way.is_by_peer and family in IP_FAMILIES)


def _is_option(wire: WireFormat) -> bool:
    """Whether a socket option can set the same for everything that is sent."""
    return way_of(wire).is_by_peer or (wire.level, wire.type) in _OPTIONS


def _is_registered(kind: Any) -> bool:
    try:
        row_of(kind)
    except (TypeError, NotSupportedError):
        return False
    return True


def note_needs(error: OSError, items: list[tuple[int, int, bytes]], family: int) -> None:
    """Adds a note to the error of a send: which control messages it had, and what they need.

    For EINVAL and EPERM all of them; for other errors those that may be the cause: an interface or
    source address for ENODEV and ENETUNREACH, segments for EIO.
    """
    said: list[str] = []
    for level, type, _ in items:
        kind = lookup_sent(level, type, family)
        if error.errno not in (errno.EINVAL, errno.EPERM):
            is_of_udp = level == number("SOL_UDP")
            if kind is None or not (
                is_of_udp if error.errno == errno.EIO else issubclass(kind, OnInterface)
            ):
                continue
        if kind is None:
            text = f"({level}, {type})"
        else:
            row = row_of(kind)
            text = kind.__name__
            other = _of_both(WireFormat(level, type))
            if other is not None:
                text += f" (or {other}, which is sent as that in an IPv4 packet)"
            if row.needs:
                text += f" needs {row.needs}"
        if text not in said:
            said.append(text)
    if said:
        error.add_note(f"sent with {'; '.join(said)}")
