"""What the table says about a kind: its numbers, the options that bring it, its other forms."""

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
"""How the payload of a form differs from the payload of the kind: encoding.h, in the same order."""


IS_LINUX = sys.platform == "linux"
# The largest payload in bytes: struct sock_extended_err and the address of the offender.
ENTRY = 44


class OpenEnum(enum.IntEnum):
    """An enumeration of the kernel: a value that a later kernel adds becomes a member too."""

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
    """The first Linux release that has it, if that was verified."""
    value: int | bytes = 1
    """The value that switches it on; with `is_mask`, the bits to add to those that are set."""
    is_mask: bool = False
    """Whether the value is a set of flags."""
    sign: bytes = b""
    """With `is_mask`: if any of these bits is set, the option brings the kind. Empty: `value`."""
    tail: bytes = b""
    """With `is_mask`: what replaces the bytes after the flags. Empty: they stay."""
    families: frozenset[int] = frozenset()
    """AF_* of the sockets that have it; empty for any."""
    is_watched_only: bool = False
    """It attaches the kind if something else has set it, but enable() does not set it. Without a
    `control_size` it attaches nothing: the option that enable() sets switches it off, and restoring
    sets it again."""
    size: int = 4
    """Size of the option's value in bytes."""
    is_permanent: bool = False
    """The kernel cannot switch it off again, and the value that it reports while it is off must not
    be set."""
    entry: int = 0
    """Size in bytes of the ExtendedError that comes with it on the error queue."""
    needs: str = ""
    """What this value needs, for the note on the OSError if the kernel refuses it."""

    @property
    def on(self) -> bytes:
        """The value that switches it on, as setsockopt(2) takes it."""
        if isinstance(self.value, int):
            return self.value.to_bytes(self.size, sys.byteorder)
        return self.value.ljust(self.size, b"\0")


@dataclass(frozen=True, slots=True, repr=False)
class KindOption:
    """A kind with a value for its option: what Kind.option() returns, for `want=` and enable().

    Immutable and hashable; equal if kind and value are.
    """

    kind: Any
    """The class."""
    steps: tuple[tuple[Option, ...], ...]
    """The options to set, in order. In each step, the first option for the socket's family has to
    be supported."""
    arguments: str = ""
    """The arguments of option(), as text; empty if it is equivalent to the class."""

    def __repr__(self) -> str:
        return f"{self.kind.__name__}.option({self.arguments})"


@dataclass(frozen=True, slots=True)
class WireFormat:
    """One more level and type as which a kind is received or sent."""

    level: int
    type: int
    encoding: Encoding = ""
    families: frozenset[int] = frozenset()
    """AF_* of the sockets; empty for those of the kind."""
    direction: Direction | None = None
    """None for that of the kind."""
    size: int = 0
    """Size in bytes of the payload that is sent, if the encoding allows several."""
    is_ipv4: bool = False
    """The form of another kind, used if the packet is IPv4."""
    min_value: int | None = None
    """The smallest value that is sent, if the constructor takes smaller ones, which can arrive."""


class Row(NamedTuple):
    """One line of the table."""

    kind: Any
    level: int
    type: int
    direction: Direction
    families: frozenset[int]
    """AF_* of the sockets over which any of its own forms is sent or received; empty for any."""
    options: tuple[Option, ...]
    formats: tuple[WireFormat, ...]
    unsolicited_size: int
    """Size in bytes of a payload that comes without an option; 0 if none does."""
    since: str | None
    needs: str
    """What sending it requires, in words: for the note on EINVAL or EPERM from the kernel."""


ENCODINGS: dict[str, int] = {name: i for i, name in enumerate(get_args(Encoding))}
DIRECTIONS: dict[str, int] = {"receive": 1, "send": 2, "both": 3}


def number(name: int | str) -> int | None:
    """A constant of the C headers by its name; None if this system lacks it."""
    return name if isinstance(name, int) else getattr(_cmsg, name, None)


def constant(name: str) -> int:
    """The same for a flag or an enumerator; 0 if this system lacks it."""
    value: int = getattr(_cmsg, name, 0)
    return value


def families(*names: str) -> frozenset[int]:
    """AF_* numbers by their names; those that this system lacks are omitted."""
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
    """An Option by its names in the headers, or None if this system lacks it."""
    at, what = number(level), number(name)
    return (
        None if at is None or what is None else Option(at, what, name, control_size, since, **more)
    )


def wire_format(level: str, type: str, encoding: Encoding = "", **more: Any) -> WireFormat | None:
    """A WireFormat by its names in the headers, or None if this system lacks it."""
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
