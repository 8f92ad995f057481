"""What a kind of control message is, and the table that holds them."""

from __future__ import annotations

import enum
import errno
import socket as _socket
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeAlias,
    TypeVar,
    dataclass_transform,
    get_args,
    overload,
)

from .. import _cmsg
from .._arguments import as_tuple, check_word, needed
from .._fds import PidFd
from ..errors import NotSupportedError

if TYPE_CHECKING:
    from typing import Self

    from _typeshed import ReadableBuffer

Direction: TypeAlias = Literal["send", "receive", "both"]
Buffer: TypeAlias = "ReadableBuffer"
"""What is bytes-like."""
Encoding: TypeAlias = Literal[
    "", "without NUL", "integer", "timeval", "timespec", "timeval64", "timespec64", "bintime",
    "stamping", "stamping64", "pktinfo",
]  # fmt: skip
"""How a form differs from the payload that the kind holds: encoding.h, in that order."""

K = TypeVar("K", bound=type)
# Where an argument has its name.
_Type = type

IS_LINUX = sys.platform == "linux"
# struct sock_extended_err and the address of who sent the error: the most that it takes.
ENTRY = 44


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


_REQUIRED: Any = _Required()


class OpenEnum(enum.IntEnum):
    """An enumeration of the kernel's: a value that a later kernel brings is one too."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        other = int.__new__(cls, value)
        other._name_, other._value_ = f"VALUE_{value}", value
        return other


class Member:
    """What member() noted, until register() makes a Field of it."""

    __slots__ = ("bounds", "convert", "default", "name")

    def __init__(
        self,
        name: str,
        default: Any,
        convert: Callable[[Any], Any] | None,
        bounds: tuple[int, int] | None,
    ) -> None:
        self.name = name
        self.default = default
        self.convert = convert
        self.bounds = bounds


def member(
    name: str = "",
    /,
    *,
    default: Any = _REQUIRED,
    convert: Callable[[Any], Any] | None = None,
    bounds: tuple[int, int] | None = None,
) -> Any:
    """A field of a StructMessage: the member `name` of its C struct.

    Without a name: the only one of its layout. `default` is what the constructor takes where the
    field is not given; `convert` is called with what is read. `bounds` are the least and the most
    that the constructor takes, and a send: of a field of 32 or 64 bits its value, of one that is
    all bytes that follow how many those are. What is decoded may be anything.
    """
    return Member(name, default, convert, bounds)


class Signature:
    """inspect.Signature of a constructor, which is C's, made when somebody asks."""

    def __get__(self, record: object, kind: Any) -> Any:
        import inspect

        if record is not None or "_codec" not in vars(kind):
            raise AttributeError("__signature__")
        for name in ("__new__", "__init__"):
            made = getattr(kind, name)
            if isinstance(made, FunctionType):
                whole = list(inspect.signature(made).parameters.values())
                return inspect.Signature(whole[1:])
        from ._address import IPAddress

        empty: Any = inspect.Parameter.empty
        annotations = inspect.get_annotations(kind)
        parameters: list[inspect.Parameter] = []
        body: dict[str, Any] = kind.__dict__
        codec: _cmsg.Codec | None = kind._codec
        names: Iterable[str] = _public_members_of(kind) if codec is None else codec.fields
        for name in names:
            field: Any = body[name]
            default: Any = getattr(field, "default", empty)
            if isinstance(default, bytes) and getattr(field, "format", "") in ("a", "A"):
                default = IPAddress(default)
            one = inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=empty if default is _REQUIRED else default,
                annotation=annotations.get(name, empty),
            )
            parameters.append(one)
        return inspect.Signature(parameters)


class ControlMessage(_cmsg.Record):
    """The base of every kind: a small immutable object, equal only within its class.

    `level` and `type` are those of struct cmsghdr, cmsg(3). pack() gives the payload, unpack()
    makes one from a payload; neither needs a socket.

    A kind that derives from this one directly has its fields in `__slots__`, and packs and
    unpacks itself. StructMessage is for those that C can read.
    """

    __slots__ = ()

    level: int
    type: int

    if not TYPE_CHECKING:
        __signature__ = Signature()

    def pack(self) -> bytes:
        """The payload as the kernel has it, without header or padding: cmsg(3)."""
        raise TypeError(f"{type(self).__name__} does not say how it is packed")

    @classmethod
    def unpack(cls, data: Buffer, /) -> Self:
        """Makes one from a payload (without its header), a bytes-like object."""
        raise TypeError(f"{cls.__name__} does not say how it is unpacked")

    if TYPE_CHECKING:

        @classmethod
        def option(cls) -> KindOption: ...

    else:

        @classmethod
        def option(cls, *values, **named):
            """The kind with the value of its socket option, for `want=` and enable().

            Most options are on or off: for those this is the same as the class. NotSupportedError
            where this system does not have the kind.
            """
            if values or named:
                name = cls.__name__
                raise TypeError(
                    f"{name}.option() takes no value: the option of {name} is on or off, and the "
                    "class alone switches it on"
                )
            return KindOption(cls, (row_of(cls).options,))


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(member,))
class StructMessage(_cmsg.Struct, ControlMessage):
    """A kind whose payload is a C struct: it holds the payload, and its fields are read from it.

    The class body names the fields, `ttl: int = member("...")`; register() gives the layout.
    """

    __slots__ = ()


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
    """Brings the kind where others have set it, but is not what enable() sets. With no
    `control_size` it brings nothing: it is put out by what enable() sets, and set again when that
    is undone."""
    size: int = 4
    """Of the option's value in bytes."""
    is_permanent: bool = False
    """The kernel cannot switch it off again; what it tells of a socket where it is off is not to be
    set."""
    entry: int = 0
    """The payload of the ExtendedError that comes with it on the error queue, in bytes."""
    needs: str = ""
    """What this value needs, for the note of an OSError with which the kernel refuses it."""

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


Kind: TypeAlias = "type[ControlMessage] | type[PidFd] | KindOption"
"""What `want=` and enable() take."""


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


@dataclass(frozen=True, slots=True)
class Row:
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


# (level, type): the kinds that it may be, and the families that tell them apart.
_Table: TypeAlias = dict[tuple[int, int], list[tuple[frozenset[int], Any]]]
_received: _Table = {}
_sent: _Table = {}
_rows: dict[Any, Row] = {}
# The kinds that this system has not.
_left_out: set[Any] = set()

_ENCODINGS: dict[str, int] = {name: i for i, name in enumerate(get_args(Encoding))}

_PACKAGE = f"{__package__}."

_DIRECTIONS: dict[str, int] = {"receive": 1, "send": 2, "both": 3}


def number(name: int | str) -> int | None:
    """A constant of the C headers by its name; None where the platform does not have it."""
    return name if isinstance(name, int) else getattr(_cmsg, name, None)


def constant(name: str) -> int:
    """The same for a flag or an enumerator; 0 where the platform does not have it."""
    value: int = getattr(_cmsg, name, 0)
    return value


def families(*names: str) -> frozenset[int]:
    """AF_* numbers by their names; those that the platform has not are left out."""
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
    """An Option by the names of the headers, or None where the platform does not have it."""
    at, what = number(level), number(name)
    return (
        None if at is None or what is None else Option(at, what, name, control_size, since, **more)
    )


def wire_format(level: str, type: str, encoding: Encoding = "", **more: Any) -> WireFormat | None:
    """A WireFormat by the names of the headers, or None where the platform does not have it."""
    at, what = number(level), number(type)
    return None if at is None or what is None else WireFormat(at, what, encoding, **more)


# The sockets whose protocol reads what is sent at a level, among those of IP. The others drop it
# without an error: TCP a Ttl, UDP the type of a TLS record.
_DATAGRAM_OR_RAW = frozenset({_socket.SOCK_DGRAM, _socket.SOCK_RAW})
# SOCK_PACKET: the socket's own mark and priority are what its packets have.
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
"""What has to read what is sent, where family and type of a socket do not tell it: codec.h, in
that order."""
READERS: tuple[Reader, ...] = get_args(Reader)
_BY_ANY: Reader = ""
_READERS: dict[str, Reader] = {"SOL_UDP": "UDP", "SOL_TLS": "kTLS", "SOL_SCTP": "SCTP"}
_READER: dict[int, Reader] = {
    getattr(_cmsg, name): reader for name, reader in _READERS.items() if hasattr(_cmsg, name)
}
# Of some the level alone does not tell it: nearly all datagram and raw sockets read those of
# SOL_SOCKET, of the streams only TCP some; and a header that is there already stays as it is.
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
# What reads the control messages of these is the version of IP that the packet is of.
_PACKET_LEVELS: dict[int, int] = {
    value: family
    for name, family in {"SOL_IP": _socket.AF_INET, "SOL_IPV6": _socket.AF_INET6}.items()
    if (value := getattr(_cmsg, name, None)) is not None
}


@dataclass(frozen=True, slots=True)
class Way:
    """Where a form is sent."""

    over: frozenset[int]
    """AF_* of the socket; empty for any."""
    by: frozenset[int]
    """SOCK_* of the socket; empty for any."""
    reader: Reader = ""
    is_by_peer: bool = False
    """`over` is about the packet: an AF_INET6 socket sends one of IPv4 to a mapped address."""


def way_of(wire: WireFormat) -> Way:
    """Where that form is sent. What names no families is for the kernel to judge."""
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


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers if number < 64)


def _packed_format(wire: WireFormat) -> tuple[int, ...]:
    way = way_of(wire)
    return (
        _mask(wire.families),
        wire.level,
        wire.type,
        _DIRECTIONS[wire.direction or "both"] | (4 if way.is_by_peer else 0),
        wire.size or (4 if wire.encoding == "integer" else 0),
        _ENCODINGS[wire.encoding],
        _mask(way.over),
        _mask(way.by),
        -(2**63) if wire.min_value is None else wire.min_value,
        READERS.index(way.reader),
    )


# Of a name in the class body; None for what this platform's struct has not.
_Fields: TypeAlias = dict[str, _cmsg.Field | None]


def _members_of(kind: Any) -> dict[str, Member]:
    body: dict[str, Any] = kind.__dict__
    return {name: spec for name, spec in body.items() if isinstance(spec, Member)}


def _public_members_of(kind: Any) -> list[str]:
    return [name for name in _members_of(kind) if not name.startswith("_")]


def _field(spec: Member | None, *place: Any) -> _cmsg.Field:
    if spec is None:
        return _cmsg.Field(*place)
    said: dict[str, Any] = {"convert": spec.convert, "bounds": spec.bounds}
    if spec.default is not _REQUIRED:
        said["default"] = spec.default
    return _cmsg.Field(*place, **said)


def _fields_of(kind: Any, layout: dict[str, tuple[int, str, int]]) -> _Fields:
    """A Field for each member() of the class, by a layout of the C headers."""
    found: _Fields = {}
    for name, spec in _members_of(kind).items():
        place = layout.get(spec.name or next(iter(layout)))
        found[name] = None if place is None else _field(spec, name, *place)
    return found


def _fields_at(kind: Any, places: tuple[tuple[str, int, str], ...]) -> _Fields:
    """A Field for each place, with what a member() of that name says."""
    members = _members_of(kind)
    found: _Fields = {}
    for place in as_tuple("layout", "an iterable of (name, offset, format)", places):
        if place[0] in found:
            raise ValueError(f"layout: {place[0]!r} is there twice")
        found[place[0]] = _field(members.get(place[0]), *place)
    if missing := members.keys() - found.keys():
        raise ValueError(f"layout: it has no {', '.join(map(repr, sorted(missing)))}")
    return found


def bind(
    kind: Any,
    formats: tuple[WireFormat, ...],
    layout: str | tuple[tuple[str, int, str], ...] | None,
    size: int | None = None,
) -> None:
    """Gives the class its codec, and its fields their places."""
    windows: _Fields = {}
    if not issubclass(kind, _cmsg.Struct):
        slots = [name for name in getattr(kind, "__slots__", ()) if name != "__weakref__"]
        min_size = max_size = -1
        fields = [_cmsg.Field(name, 0, "O") for name in slots]
    else:
        if isinstance(layout, str):
            min_size, max_size, places = _cmsg.LAYOUTS[layout]
            windows = _fields_of(kind, places)
        else:
            min_size = max_size = size or 0
            windows = _fields_at(kind, layout or ())
        fields = [field for field in windows.values() if field is not None]
        for field in fields:
            if field.format == "t" and not isinstance(layout, str):
                # All that follows: any number of bytes.
                min_size, max_size = max(min_size, field.offset), -1
    is_own = kind.__module__.startswith(_PACKAGE)
    packed = tuple(map(_packed_format, formats))
    codec = _cmsg.Codec(kind, packed, min_size, max_size, tuple(fields), is_own)
    for name, window in windows.items():
        type.__setattr__(kind, name, window)
    type.__setattr__(kind, "_codec", codec)
    _set_match_args(kind, codec.fields)
    if codec.min_size >= 0 and not any(field.bounds for field in fields if field.format != "t"):
        for wire in formats:
            if wire.min_value is not None:
                raise ValueError(
                    f"min_value: {wire.min_value}; no member() of {kind.__name__} has bounds"
                )


def _check_free(table: _Table, wire: WireFormat) -> None:
    found = [
        other.__name__
        for others, other in table.get((wire.level, wire.type), ())
        if not others or not wire.families or others & wire.families
    ]
    if found:
        raise ValueError(f"({wire.level}, {wire.type}) is {', '.join(found)} already")


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


_INT_MAX = 2**31 - 1
# The codec has a bit for each.
_FAMILIES = 64


def _check_format(wire: WireFormat) -> None:
    """TypeError or ValueError that names what is wrong."""
    for name in ("level", "type"):
        check_int(name, getattr(wire, name), -_INT_MAX - 1, _INT_MAX)
    check_word("encoding", wire.encoding, _ENCODINGS)
    check_int("size", wire.size, 0, _INT_MAX)
    if wire.direction is not None:
        check_word("direction", wire.direction, _DIRECTIONS)
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
    other_forms  the WireFormats that it comes or goes as besides
    unsolicited_size
                 bytes of payload that come without an option
    since        the first Linux release that has it, where that was verified
    min_value    the least value that is sent, where the `bounds` of its member() let in less
    needs        what a send of it asks for, in words, for the error of a kernel that refuses it

    A send refuses a kind over other `families`, as most kernels drop it there without an error; a
    level of IP, TCP, UDP, SCTP or TLS also over a socket of another type, and one of IPv4 or IPv6
    (SOL_IP, SOL_IPV6) where the packet is of the other: an AF_INET6 socket sends IPv4 to an
    IPv4-mapped address. What names no families goes over any.

    ValueError where that level and type, or that class, is registered already; TypeError where the
    class is none of control messages. A name that the platform has not leaves the class
    unregistered: NotSupportedError where it is made or switched on, and no message has one.
    """
    if kind is None:
        return partial(
            register, level=level, type=type, layout=layout, size=size, direction=direction,
            families=families, option=option, encoding=encoding, other_forms=other_forms,
            unsolicited_size=unsolicited_size, since=since, min_value=min_value, needs=needs,
        )  # fmt: skip
    if kind in _rows:
        raise ValueError(f"{kind.__name__} is registered already")
    if not isinstance(kind, _Type) or not issubclass(kind, (ControlMessage, PidFd)):
        raise TypeError(f"{kind!r} is not a subclass of ControlMessage")
    check_word("direction", direction, _DIRECTIONS)
    check_int("unsolicited_size", unsolicited_size, 0, _INT_MAX)
    if size is not None:
        check_int("size", size, 0, _INT_MAX)
    for name, value in (("level", level), ("type", type)):
        if not isinstance(value, str):
            check_int(name, value, -_INT_MAX - 1, _INT_MAX)
    families = frozenset(families)
    at, what = number(level), number(type)
    if isinstance(layout, str) and layout not in _cmsg.LAYOUTS:
        return _leave_out(kind)
    given: tuple[Any, ...] = tuple(other_forms)
    for one in given:
        if one is not None and not isinstance(one, WireFormat):
            raise needed("other_forms", "a WireFormat", one)
    formats: list[WireFormat] = [one for one in given if one is not None]
    if at is not None and what is not None:
        formats.insert(0, WireFormat(at, what, encoding, families, direction, min_value=min_value))
    if not formats:
        return _leave_out(kind)
    formats = [
        replace(one, families=one.families or families, direction=one.direction or direction)
        for one in formats
    ]
    for one in formats:
        _check_format(one)
    received = [one for one in formats if one.direction != "send"]
    sent = [one for one in formats if one.direction != "receive" and not one.is_ipv4]
    is_own = [one for one in formats if not one.is_ipv4]
    for table, some in ((_received, received), (_sent, sent)):
        for one in some:
            if one in is_own:
                _check_free(table, one)
    if issubclass(kind, _cmsg.Record):
        record: Any = kind
        bind(kind, tuple(formats), layout, size)
        record.level, record.type = formats[0].level, formats[0].type
    options = (option,) if isinstance(option, Option) else tuple(option or ())
    nowhere: frozenset[int] = frozenset()
    some_families = [one.families for one in is_own]
    _rows[kind] = Row(
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
    for table, some in ((_received, received), (_sent, sent)):
        for one in some:
            if one in is_own:
                table.setdefault((one.level, one.type), []).append((one.families, kind))
    return kind


def _set_match_args(kind: Any, fields: Iterable[str]) -> None:
    """`case Kind(a, b)`: the fields in the order of the constructor, which is what repr() shows."""
    if "__match_args__" not in vars(kind):
        type.__setattr__(kind, "__match_args__", tuple(getattr(kind, "_SHOWN", fields)))


def _leave_out(kind: K) -> K:
    _left_out.add(kind)
    if issubclass(kind, _cmsg.Record):
        # C tells it by this from a class that nobody registered.
        type.__setattr__(kind, "_codec", None)
        _set_match_args(kind, _public_members_of(kind))
    return kind


def row_of(kind: Any) -> Row:
    """NotSupportedError for a kind that this system has not, TypeError for what is no kind."""
    try:
        return _rows[kind]
    except (KeyError, TypeError):
        if isinstance(kind, type) and kind in _left_out:
            raise NotSupportedError(
                errno.ENOPROTOOPT, f"{kind.__name__}: not supported on this system"
            ) from None
        raise TypeError(not_a_kind(kind)) from None


def not_a_kind(kind: Any) -> str:
    """What to say of what is no kind: what would do in its place, where that can be told."""
    if isinstance(kind, KindOption):
        return f"{kind!r} is for want= and enable(): give the class here, {kind.kind.__name__}"
    # A report of the error queue.
    asked = getattr(kind, "_ASKED_BY", "") if isinstance(kind, type) else ""
    if asked:
        return (
            f"{kind.__name__} is not a kind of control message: receive_errors() yields it, and "
            f"enable(sock, {asked}) asks for it"
        )
    return f"{kind!r} is not a kind of control message"


_cmsg.register("not_a_kind", not_a_kind)


def as_option(kind: Any, argument: str) -> KindOption:
    """A kind, or what its option() gave, as the latter. `argument` is the caller's, for an error.

    NotSupportedError for a kind that this system has not, TypeError for what is no kind.
    """
    if isinstance(kind, KindOption):
        return kind
    if isinstance(kind, (ControlMessage, PidFd)):
        name = type(kind).__name__
        value = "" if isinstance(kind, PidFd) else (
            f", or {name}.option(...) where its option has a value"
        )  # fmt: skip
        raise TypeError(
            f"{argument}: {kind!r} is one control message, and not a kind: give the class, {name}"
            f"{value}"
        )
    if not isinstance(kind, type):
        error = needed(argument, "a kind of control message", kind)
        if argument == "enable" and isinstance(kind, Iterable):
            error = TypeError(f"{error}; give them one by one: enable(sock, *kinds)")
        raise error
    return KindOption(kind, (row_of(kind).options,))


def as_options(kinds: Any, argument: str) -> tuple[KindOption, ...]:
    """One kind or many, each once: those last whose option was given a value, for that to stand."""
    if isinstance(kinds, (type, KindOption, ControlMessage, PidFd, str, bytes)):
        kinds = (kinds,)
    several = as_tuple(argument, "a kind of control message, or an iterable of them,", kinds)
    given = [as_option(kind, argument) for kind in several]
    chosen = [*dict.fromkeys([one for one in given if one.arguments])]
    if len(chosen) > 1:
        _check_agreement(chosen, argument)
    # By the class: the hash of all that is set takes longer than to set it.
    plain = {one.kind: one for one in given if not one.arguments}
    return (*plain.values(), *chosen)


def _check_agreement(chosen: list[KindOption], argument: str) -> None:
    """ValueError for two values of one option: the second would undo the first in silence."""
    values: dict[tuple[int, int], tuple[bytes, KindOption]] = {}
    for one in chosen:
        for option in [option for step in one.steps for option in step]:
            value = option.tail if option.is_mask else option.on
            if option.is_watched_only or not value:
                continue
            first = values.setdefault((option.level, option.name), (value, one))
            if first[0] != value:
                raise ValueError(
                    f"{argument}: {first[1]!r} and {one!r}; {option.text} has one value"
                )


def rows() -> tuple[Row, ...]:
    """The whole table."""
    return tuple(_rows.values())


def lookup(level: int, type: int, family: int = -1) -> Any:
    """The kind that (level, type) of a socket of that family is; None for none.

    Without a family that of IP, else the first that was registered; one that is received before
    one that is sent.
    """
    kind = _look_up(_received, level, type, family)
    return lookup_sent(level, type, family) if kind is None else kind


def lookup_sent(level: int, type: int, family: int = -1) -> Any:
    """The same of what is sent."""
    return _look_up(_sent, level, type, family)


def _look_up(table: _Table, level: int, type: int, family: int) -> Any:
    found = table.get((level, type), ())
    if family < 0 and len(found) > 1:
        found = sorted(found, key=lambda entry: _socket.AF_INET not in entry[0])
    for some, kind in found:
        if family < 0 or not some or family in some:
            return kind
    return None
