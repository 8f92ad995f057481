"""What the table says about a kind: its numbers, the options that bring it, its wire formats."""

from __future__ import annotations

import enum
import socket as _socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, get_args

from .. import _cmsg
from .._arguments import needed
from .._names import describe

if TYPE_CHECKING:
    from typing import Self


Direction: TypeAlias = Literal["send", "receive", "both"]
Encoding: TypeAlias = Literal[
    "", "without NUL", "integer", "timeval", "timespec", "timeval64", "timespec64", "bintime",
    "stamping", "stamping64", "pktinfo",
]  # fmt: skip
"""How the payload of a wire format differs from that of the kind: encoding.h, in the same order."""


IS_LINUX = sys.platform == "linux"
# The largest payload in bytes: struct sock_extended_err and the address of the offender.
ENTRY = sum([_cmsg.LAYOUTS.get(name, (0,))[0] for name in ("sock_extended_err", "sockaddr_in6")])


class OpenEnum(enum.IntEnum):
    """An enumeration of the kernel: a value that a later kernel adds becomes a member too."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        other = int.__new__(cls, value)
        other._name_, other._value_ = f"VALUE_{value}", value
        return other


@describe(
    level="The level of the option: SOL_* or IPPROTO_*.",
    name="The number of the option.",
    text="The name of the option in the headers.",
    control_size="Size in bytes of the largest payload that it makes the kernel attach.",
    since="The first Linux release that has the option; None if that was not verified.",
    value="The value that switches it on. If `is_mask`, the bits to add to those already set.",
    is_mask="Whether its value is a set of flags, to which `value` is added.",
    sign="If `is_mask`: bits, any of which shows that the option is on. Empty: those of `value`.",
    tail="If `is_mask`: what replaces the bytes after the flags. Empty: they are kept.",
    families="AF_* of the sockets that have the option; empty for any.",
    is_watched_only=(
        "Whether enable() only watches it: it attaches the kind if something else has set it. If "
        "`control_size` is 0 it attaches nothing, but what enable() sets switches it off, so "
        "undoing that sets it again."
    ),
    size="Size in bytes of the value of the option.",
    is_permanent=(
        "Whether the kernel cannot switch it off again. The value that it reports while it is off "
        "must not be set."
    ),
    entry="Size in bytes of the ExtendedError payload that comes with it on the error queue.",
    needs="What this value needs, for the note of the OSError if the kernel refuses it.",
)
@dataclass(frozen=True, slots=True)
class Option:
    """The socket option that makes the kernel attach a kind: setsockopt(2)."""

    level: int
    name: int
    text: str
    control_size: int
    since: str | None = None
    value: int | bytes = 1
    is_mask: bool = False
    """Whether the value is a set of flags."""
    sign: bytes = b""
    tail: bytes = b""
    families: frozenset[int] = frozenset()
    is_watched_only: bool = False
    size: int = 4
    is_permanent: bool = False
    entry: int = 0
    needs: str = ""

    @property
    def on(self) -> bytes:
        """The value that switches it on, as setsockopt(2) takes it."""
        if isinstance(self.value, int):
            return self.value.to_bytes(self.size, sys.byteorder)
        return self.value.ljust(self.size, b"\0")


@describe(
    kind="The class.",
    steps=(
        "What to set, in order. Of each step the first option that applies to the socket's family "
        "is required."
    ),
    arguments="The arguments of option() as text; empty if the class alone means the same.",
)
@dataclass(frozen=True, slots=True, repr=False)
class KindOption:
    """A kind with the value of its option: what Kind.option() returns, for `want=` and enable().

    Immutable and hashable; equal if kind and value are equal.
    """

    kind: Any
    steps: tuple[tuple[Option, ...], ...]
    arguments: str = ""

    def __hash__(self) -> int:
        # Hashing all the options takes longer than setting them.
        return hash((self.kind, self.arguments))

    def __repr__(self) -> str:
        return f"{self.kind.__name__}.option({self.arguments})"


@describe(
    level="`cmsg_level`: the protocol, SOL_* or IPPROTO_*.",
    type="`cmsg_type`: what it is at that level.",
    encoding="How the payload differs from the one that the kind holds; empty: not at all.",
    families="AF_* of the sockets that use this wire format; empty: those of the kind.",
    direction="'send', 'receive' or 'both'; None: that of the kind.",
    size="Size in bytes of a payload that is sent, if the encoding does not determine it.",
    is_ipv4="Whether it is the format of an IPv4 kind, which replaces this kind for IPv4 packets.",
    min_value="The minimum value that may be sent, if the kind allows smaller ones for receiving.",
)
@dataclass(frozen=True, slots=True)
class WireFormat:
    """An additional (level, type) under which a kind is received or sent."""

    level: int
    type: int
    encoding: Encoding = ""
    families: frozenset[int] = frozenset()
    direction: Direction | None = None
    size: int = 0
    is_ipv4: bool = False
    min_value: int | None = None


class Row(NamedTuple):
    """One line of the table."""

    kind: Any
    level: int
    type: int
    direction: Direction
    families: frozenset[int]
    """AF_* of the sockets that send or receive any of its own wire formats; empty for any."""
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
        raise ValueError(f"{name}: {value}; must be {minimum} to {maximum}")
    return number


def check_flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise needed(name, "True or False", value)
    return value


INT_MAX = 2**31 - 1
