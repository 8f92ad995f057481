"""What a kind of control message is, and the table that holds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from .. import _cmsg

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Direction: TypeAlias = Literal["send", "receive", "both"]
Buffer: TypeAlias = "ReadableBuffer"
"""What is bytes-like."""

K = TypeVar("K", bound=type)


class ControlMessage(_cmsg.Record):
    """The base of every kind: a small immutable object, equal only within its class.

    `level` and `type` are those of struct cmsghdr, cmsg(3). pack() gives the payload, unpack()
    makes one from a payload; neither needs a socket.
    """

    __slots__ = ()

    level: int
    type: int


@dataclass(frozen=True, slots=True)
class Option:
    """The socket option that makes the kernel attach a kind: setsockopt(2)."""

    level: int
    name: int
    text: str
    """Its name in the headers."""
    room: int
    """The largest payload that it brings, in bytes."""
    since: str | None = None
    """The first Linux release that has it, where that was verified."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    kind: Any
    level: int
    type: int
    direction: Direction
    families: frozenset[int]
    option: Option | None


_by_number: dict[tuple[int, int], Any] = {}
_rows: dict[Any, Row] = {}


def register(
    kind: K,
    *,
    level: int,
    type: int,
    layout: tuple[tuple[str, int, str], ...] | None = None,
    size: int | None = None,
    direction: Direction = "both",
    families: frozenset[int] = frozenset(),
    option: Option | None = None,
    extra: str | None = None,
) -> K:
    """Makes a subclass of ControlMessage the kind of (level, type), and returns it.

    layout     (field, offset in bytes, format) for each of its `__slots__`, where C shall pack and
               unpack it; a format is one of bBhHiIqQ as in `struct`, native, or P: an i where 0
               stands for None. None: the class has pack() and unpack() of its own.
    size       the payload in bytes, with `layout`
    families   the AF_* of the sockets it travels over; empty for any
    option     what enable() sets for it
    extra      one more slot, that is None when made and no part of the payload

    ValueError where that level and type, or that class, is registered already.
    """
    if kind in _rows:
        raise ValueError(f"{kind.__name__} is registered already")
    if (level, type) in _by_number:
        raise ValueError(f"({level}, {type}) is {_by_number[level, type].__name__} already")
    record: Any = kind
    if issubclass(kind, _cmsg.Record):
        if layout is None:
            names = tuple(getattr(kind, "__slots__", ()))
            layout = tuple((name, 0, "O") for name in names if name != extra)
            size = None
        record.level = level
        record.type = type
        record._codec = _cmsg.Codec(kind, level, type, -1 if size is None else size, layout, extra)
    _rows[kind] = Row(kind, level, type, direction, families, option)
    _by_number[level, type] = kind
    return kind


def row_of(kind: Any) -> Row:
    """TypeError for what is no registered kind."""
    try:
        return _rows[kind]
    except (KeyError, TypeError):
        raise TypeError(f"{kind!r} is not a kind of control message") from None


def rows() -> tuple[Row, ...]:
    """The whole table."""
    return tuple(_rows.values())


def lookup(level: int, type: int) -> Callable[..., Any] | None:
    return _by_number.get((level, type))
