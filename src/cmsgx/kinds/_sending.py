"""What a send with control messages says where it is refused: by this package, or by the kernel."""

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
    """AF_* as the headers have it."""
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
    """The kind that takes the place of that form where a packet is of IPv4."""
    for row in rows():
        for other in row.formats:
            if other.is_ipv4 and (other.level, other.type) == (wire.level, wire.type):
                name: str = row.kind.__name__
                return name
    return None


def _sent_formats(row: Row) -> list[WireFormat]:
    return [wire for wire in row.formats if wire.direction != "receive"]


# What has to read it, as a send says where that is something else: what does, and what was found.
_READERS: dict[Reader, tuple[str, str]] = {
    "UDP": ("sent by UDP sockets", "of {protocol}"),
    "TCP": ("sent over a stream by TCP without kTLS", "of {protocol}"),
    "kTLS": (
        'sent by sockets with kTLS (TCP_ULP "tls", and TLS_TX)',
        "of {protocol} without it",
    ),
    "SCTP": ("sent by SCTP sockets", "of {protocol}"),
    "no header": (
        "sent where the kernel makes the IP header",
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
    """IPPROTO_* as the headers have it; 0 is the one that the type has."""
    protocol = protocol or _DEFAULT_PROTOCOLS.get(type, 0)
    for name, value in vars(_socket).items():
        if name.startswith("IPPROTO_") and value == protocol:
            return name
    return f"IPPROTO_* {protocol}"


def refusal(
    kind: Any, family: int, peer: int, type: int, protocol: int, readers: int
) -> NotSupportedError:
    """What is raised for a kind that such a socket does not send.

    `peer` is AF_INET or AF_INET6, by what the packet is, or -1; `readers` has a bit for each of
    READERS: whether that reads what the socket sends.
    """
    formats = _sent_formats(row_of(next(base for base in kind.__mro__ if _is_registered(base))))
    ways = [way_of(wire) for wire in formats]
    name = kind.__name__
    loss = "the kernel would drop it without an error, or refuse it"
    # By the type before the packet: where no packet of the socket takes it, no other kind helps.
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
            remedy = "; what all of a stream goes with is set by setsockopt(2)"
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
    """Whether an option of the socket says the same for all that it sends."""
    return way_of(wire).is_by_peer or (wire.level, wire.type) in _OPTIONS


def _is_registered(kind: Any) -> bool:
    try:
        row_of(kind)
    except (TypeError, NotSupportedError):
        return False
    return True


def note_needs(error: OSError, items: list[tuple[int, int, bytes]], family: int) -> None:
    """Adds a note to the error of a send that says what went, and what each needs.

    To EINVAL and EPERM; to others of what they may be about: ENODEV and ENETUNREACH of an interface
    or a source address, EIO of segments.
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
                text += f" (or {other}, which goes as that with a packet of IPv4)"
            if row.needs:
                text += f" needs {row.needs}"
        if text not in said:
            said.append(text)
    if said:
        error.add_note(f"sent with {'; '.join(said)}")
