"""What the table says of a kind: its numbers, the options that bring it, its other forms."""

from __future__ import annotations

import enum
import socket as _socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from .. import _cmsg
from .._arguments import needed

if TYPE_CHECKING:
    from typing import Self


Direction: TypeAlias = Literal["send", "receive", "both"]
Encoding: TypeAlias = Literal[
    "", "without NUL", "integer", "timeval", "timespec", "timeval64", "timespec64", "bintime",
    "stamping", "stamping64", "pktinfo",
]  # fmt: skip
"""How a form differs from the payload that the kind holds: encoding.h, in that order."""


IS_LINUX = sys.platform == "linux"
# struct sock_extended_err and the address of who sent the error: the most that it takes.
ENTRY = 44


class OpenEnum(enum.IntEnum):
    """An enumeration of the kernel's: a value that a later kernel adds is a member too."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        other = int.__new__(cls, value)
        other._name_, other._value_ = f"VALUE_{value}", value
        return other


@dataclass(frozen=True, slots=True)
class Option:
    """The socket option that makes the kernel attach a kind: setsockopt(2)."""

    level: int
    name: int
    text: str
    """Its name in the headers."""
    control_size: int
    """The largest payload that it brings, in bytes."""
    since: str | None = None
    """The first Linux release that has it, where that was verified."""
    value: int | bytes = 1
    """What switches it on; with `is_mask`, the bits that are added to those that are set."""
    is_mask: bool = False
    sign: bytes = b""
    """With `is_mask`: bits, any of which shows that it brings the kind; empty, those of `value`."""
    tail: bytes = b""
    """With `is_mask`: what replaces the bytes after the bits; empty, those are kept."""
    families: frozenset[int] = frozenset()
    """AF_* of the sockets that take it; empty for any."""
    is_watched_only: bool = False
    """Attaches the kind if something else has set it, but enable() does not set it. With no
    `control_size` it attaches nothing: what enable() sets switches it off, and undoing that sets
    it again."""
    size: int = 4
    """Of the option's value in bytes."""
    is_permanent: bool = False
    """The kernel cannot switch it off again, and its value while it is off must not be set."""
    entry: int = 0
    """The payload of the ExtendedError that comes with it on the error queue, in bytes."""
    needs: str = ""
    """What this value needs, for the note of the OSError if the kernel refuses it."""

    @property
    def on(self) -> bytes:
        """What switches it on, as setsockopt(2) takes it."""
        if isinstance(self.value, int):
            return self.value.to_bytes(self.size, sys.byteorder)
        return self.value.ljust(self.size, b"\0")


@dataclass(frozen=True, slots=True, repr=False)
class KindOption:
    """A kind with the value of its option: what Kind.option() makes, for `want=` and enable().

    Immutable and hashable; equal where kind and value are.
    """

    kind: Any
    """The class."""
    steps: tuple[tuple[Option, ...], ...]
    """What is set, in order. Of each step, the first that is for the socket's family has to be
    there."""
    arguments: str = ""
    """Those of option() that give it its value, as text; empty where it is that of the class."""

    def __repr__(self) -> str:
        return f"{self.kind.__name__}.option({self.arguments})"


@dataclass(frozen=True, slots=True)
class WireFormat:
    """One more level and type that a kind comes or goes as."""

    level: int
    type: int
    encoding: Encoding = ""
    families: frozenset[int] = frozenset()
    """Empty: those of the kind."""
    direction: Direction | None = None
    """None: that of the kind."""
    size: int = 0
    """Of the payload that is sent, in bytes, where the encoding leaves it open."""
    is_ipv4: bool = False
    """That of another kind, which this one takes the place of where a packet is of IPv4."""
    min_value: int | None = None
    """The least value that is sent, where the constructor takes less, as that can arrive."""


class Row(NamedTuple):
    """One line of the table."""

    kind: Any
    level: int
    type: int
    direction: Direction
    families: frozenset[int]
    """AF_* of the sockets that any form of its own travels over; empty for any."""
    options: tuple[Option, ...]
    formats: tuple[WireFormat, ...]
    unsolicited_size: int
    """The payload that comes without being asked for, in bytes; 0 for none."""
    since: str | None
    needs: str
    """What a send of it asks for, in words, where a kernel refuses it by EINVAL or EPERM."""


ENCODINGS: dict[str, int] = {name: i for i, name in enumerate(get_args(Encoding))}
DIRECTIONS: dict[str, int] = {"receive": 1, "send": 2, "both": 3}


def number(name: int | str) -> int | None:
    """A constant of the C headers by its name; None if the platform lacks it."""
    return name if isinstance(name, int) else getattr(_cmsg, name, None)


def constant(name: str) -> int:
    """The same for a flag or an enumerator; 0 if the platform lacks it."""
    value: int = getattr(_cmsg, name, 0)
    return value


def families(*names: str) -> frozenset[int]:
    """AF_* numbers by their names; those that the platform lacks are omitted."""
    return frozenset(
        value
        for name in names
        for value in [getattr(_cmsg, name, getattr(_socket, name, None))]
        if value is not None
    )


def option(
    level: str,
    name: str,
    control_size: int,
    since: str | None = None,
    **more: Any,
) -> Option | None:
    """An Option by the names of the headers, or None if the platform lacks it."""
    at, what = number(level), number(name)
    return (
        None if at is None or what is None else Option(at, what, name, control_size, since, **more)
    )


def wire_format(level: str, type: str, encoding: Encoding = "", **more: Any) -> WireFormat | None:
    """A WireFormat by the names of the headers, or None if the platform lacks it."""
    at, what = number(level), number(type)
    return None if at is None or what is None else WireFormat(at, what, encoding, **more)


def need_int(name: str, value: object) -> int:
    if not isinstance(value, int):
        raise needed(name, "an int", value)
    return value


def check_int(name: str, value: object, minimum: int, maximum: int) -> int:
    if not minimum <= (number := need_int(name, value)) <= maximum:
        raise ValueError(f"{name}: {value}; it is {minimum} to {maximum}")
    return number


def check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise needed(name, "True or False", value)
    return value


INT_MAX = 2**31 - 1
