"""register(): what makes a class a kind of control message."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, overload

from .. import _cmsg
from .._arguments import check_word, needed
from . import _table
from ._base import ControlMessage, public_members_of
from ._codec import bind, set_match_args
from ._pidfd import PidFd
from ._row import (
    DIRECTIONS,
    ENCODINGS,
    INT_MAX,
    Direction,
    Encoding,
    Option,
    Row,
    WireFormat,
    check_int,
    number,
)

K = TypeVar("K", bound=type)
# The builtin, which the parameter `type` shadows.
_Type = type
# The codec keeps one bit per family.
_FAMILIES = 64


def _check_format(wire: WireFormat) -> None:
    """TypeError or ValueError that names what is wrong."""
    for name in ("level", "type"):
        check_int(name, getattr(wire, name), -INT_MAX - 1, INT_MAX)
    check_word("encoding", wire.encoding, ENCODINGS)
    check_int("size", wire.size, 0, INT_MAX)
    if wire.direction is not None:
        check_word("direction", wire.direction, DIRECTIONS)
    for family in wire.families:
        check_int("families", family, 0, _FAMILIES - 1)


@overload
def register(
    kind: K,
    *,
    level: int | str,
    type: int | str,
    layout: str | tuple[tuple[str, int, str], ...] | None = None,
    size: int | None = None,
    direction: Direction = "both",
    families: Iterable[int] = frozenset(),
    option: Option | Iterable[Option | None] | None = None,
    encoding: Encoding = "",
    other_forms: Iterable[WireFormat | None] = (),
    unsolicited_size: int = 0,
    since: str | None = None,
    min_value: int | None = None,
    needs: str = "",
) -> K: ...


@overload
def register(
    *,
    level: int | str,
    type: int | str,
    layout: str | tuple[tuple[str, int, str], ...] | None = None,
    size: int | None = None,
    direction: Direction = "both",
    families: Iterable[int] = frozenset(),
    option: Option | Iterable[Option | None] | None = None,
    encoding: Encoding = "",
    other_forms: Iterable[WireFormat | None] = (),
    unsolicited_size: int = 0,
    since: str | None = None,
    min_value: int | None = None,
    needs: str = "",
) -> Callable[[K], K]: ...


def register(
    kind: Any = None,
    *,
    level: int | str,
    type: int | str,
    layout: str | tuple[tuple[str, int, str], ...] | None = None,
    size: int | None = None,
    direction: Direction = "both",
    families: Iterable[int] = frozenset(),
    option: Option | Iterable[Option | None] | None = None,
    encoding: Encoding = "",
    other_forms: Iterable[WireFormat | None] = (),
    unsolicited_size: int = 0,
    since: str | None = None,
    min_value: int | None = None,
    needs: str = "",
) -> Any:
    """Makes a subclass of ControlMessage the kind for (level, type), and returns it.

    Without `kind`, returns a class decorator.

    level, type  cmsg_level and cmsg_type, or their names in the C headers
    layout       for a StructMessage: (field, offset in bytes, format) for each field. A format is
                 one of bBhHiIqQ as in `struct`, native; n or N: 16 or 32 bits in network order;
                 P: an i in which 0 means None; T: a q of nanoseconds in which 0 means None;
                 a or A: an IPv4 or IPv6 address; t: all bytes that follow. Or the name of a layout
                 of the C headers, whose members the member()s of the class name. Without a layout,
                 the class defines pack() and unpack().
    size         size of the payload in bytes, with `layout`; the minimum if there is a t
    direction    "send", "receive" or "both"
    families     AF_* numbers of the sockets it is for; empty for any
    option       what enable() sets for it; of several, the first one is mandatory
    encoding     how the payload differs from the layout, whose bytes are then exactly an int
                 ("integer"), one or three times 64 bits (times), or a struct in6_pktinfo
    other_forms  more WireFormats in which it is received or sent
    unsolicited_size
                 size in bytes of a payload that comes without an option
    since        the first Linux release that has it, if that was verified
    min_value    minimum value that may be sent, if `bounds` allows smaller ones for receiving
    needs        what sending it requires, in words, for the note on the error if a kernel refuses

    A send refuses a kind on a socket whose family is not in `families`, because most kernels would
    drop it without an error. For the levels of IP, TCP, UDP, SCTP and TLS it also refuses sockets
    of the wrong type, and for SOL_IP and SOL_IPV6 packets of the other IP version: an AF_INET6
    socket sends IPv4 to an IPv4-mapped address. Without `families` there is no restriction.

    ValueError if that level and type, or that class, is already registered; TypeError if the class
    does not derive from ControlMessage. If this system lacks one of the names, the class stays
    unregistered: no message has it, and using it raises NotSupportedError.
    """
    if kind is None:
        return partial(
            register, level=level, type=type, layout=layout, size=size, direction=direction,
            families=families, option=option, encoding=encoding, other_forms=other_forms,
            unsolicited_size=unsolicited_size, since=since, min_value=min_value, needs=needs,
        )  # fmt: skip
    if _table.is_registered(kind):
        raise ValueError(f"{kind.__name__} is already registered")
    if not isinstance(kind, _Type) or not issubclass(kind, (ControlMessage, PidFd)):
        raise TypeError(f"{kind!r} is not a subclass of ControlMessage")
    check_word("direction", direction, DIRECTIONS)
    check_int("unsolicited_size", unsolicited_size, 0, INT_MAX)
    if size is not None:
        check_int("size", size, 0, INT_MAX)
    for name, value in (("level", level), ("type", type)):
        if not isinstance(value, str):
            check_int(name, value, -INT_MAX - 1, INT_MAX)
    families = frozenset(families)
    at, what = number(level), number(type)
    if isinstance(layout, str) and layout not in _cmsg.LAYOUTS:
        return _mark_unsupported(kind)
    given: tuple[Any, ...] = tuple(other_forms)
    for one in given:
        if one is not None and not isinstance(one, WireFormat):
            raise needed("other_forms", "a WireFormat", one)
    formats: list[WireFormat] = [one for one in given if one is not None]
    if at is not None and what is not None:
        formats.insert(0, WireFormat(at, what, encoding, families, direction, min_value=min_value))
    if not formats:
        return _mark_unsupported(kind)
    formats = [
        replace(one, families=one.families or families, direction=one.direction or direction)
        for one in formats
    ]
    for one in formats:
        _check_format(one)
    received = [one for one in formats if one.direction != "send"]
    sent = [one for one in formats if one.direction != "receive" and not one.is_ipv4]
    is_own = [one for one in formats if not one.is_ipv4]
    _table.check_free([one for one in received if one in is_own], sent)
    if issubclass(kind, _cmsg.Record):
        record: Any = kind
        bind(kind, tuple(formats), layout, size)
        record.level, record.type = formats[0].level, formats[0].type
    options = (option,) if isinstance(option, Option) else tuple(option or ())
    nowhere: frozenset[int] = frozenset()
    some_families = [one.families for one in is_own]
    row = Row(
        kind,
        formats[0].level,
        formats[0].type,
        "both" if received and sent else "receive" if received else "send",
        nowhere.union(*some_families) if all(some_families) else nowhere,
        tuple([one for one in options if one is not None]),
        tuple(formats),
        unsolicited_size,
        since,
        needs,
    )
    _table.add(row, [one for one in received if one in is_own], sent)
    return kind


def _mark_unsupported(kind: K) -> K:
    _table.add_unsupported(kind)
    if issubclass(kind, _cmsg.Record):
        # This lets C distinguish it from an unregistered class.
        type.__setattr__(kind, "_codec", None)
        set_match_args(kind, public_members_of(kind))
    return kind
