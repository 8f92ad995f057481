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
# Where an argument has its name.
_Type = type
# The codec has a bit for each.
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
    """Makes a subclass of ControlMessage the kind of (level, type), and returns it.

    Without a class, a decorator of one.

    level, type  of struct cmsghdr, or their names in the C headers
    layout       of a StructMessage: (field, offset in bytes, format) for each field. A format is
                 one of bBhHiIqQ as in `struct`, native; n or N: 16 or 32 bits in network order;
                 P: an i where 0 stands for None; T: a q of nanoseconds, likewise; a or A: an
                 IPv4 or IPv6 address; t: all bytes that follow. A name: a layout of the C
                 headers, which the member()s of the class name. Neither: the class has pack() and
                 unpack() of its own.
    size         the payload in bytes, with `layout`; with a t, at least
    families     the AF_* of the sockets it travels over, by number; empty for any
    option       what enable() sets for it; the first of several is the one that has to be there
    encoding     how the payload differs from the layout, whose bytes are then exactly an int
                 ("integer"), one or three times 64 bits (times), or a struct in6_pktinfo
    other_forms  further WireFormats in which it is received or sent
    unsolicited_size
                 bytes of payload that come without an option
    since        the first Linux release that has it, where that was verified
    min_value    the least value that is sent, where the `bounds` of its member() let in less
    needs        what a send of it asks for, in words, for the error of a kernel that refuses it

    A send refuses a kind over other `families`, as most kernels drop it there without an error; a
    level of IP, TCP, UDP, SCTP or TLS also over a socket of another type, and one of IPv4 or IPv6
    (SOL_IP, SOL_IPV6) where the packet is of the other: an AF_INET6 socket sends IPv4 to an
    IPv4-mapped address. What names no families goes over any.

    ValueError where that level and type, or that class, is registered already; TypeError if the
    class is not one of control messages. A name that the platform lacks leaves the class
    unregistered: NotSupportedError if it is made or switched on, and no message has one.
    """
    if kind is None:
        return partial(
            register, level=level, type=type, layout=layout, size=size, direction=direction,
            families=families, option=option, encoding=encoding, other_forms=other_forms,
            unsolicited_size=unsolicited_size, since=since, min_value=min_value, needs=needs,
        )  # fmt: skip
    if _table.is_registered(kind):
        raise ValueError(f"{kind.__name__} is registered already")
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
        # C tells it by this from a class that nobody registered.
        type.__setattr__(kind, "_codec", None)
        set_match_args(kind, public_members_of(kind))
    return kind
