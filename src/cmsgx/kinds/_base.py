"""The base classes of kinds of control messages, and member(), which declares their fields."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, dataclass_transform

from .. import _cmsg
from ._address import IPAddress
from ._pidfd import PidFd
from ._row import KindOption
from ._table import row_of

if TYPE_CHECKING:
    from typing import Self

    from .._arguments import Buffer


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Any = _Required()


class Member:
    """The arguments of member(), until register() makes a Field from them."""

    __slots__ = ("bounds", "convert", "default", "doc", "name")

    def __init__(
        self,
        name: str,
        default: Any,
        convert: Callable[[Any], Any] | None,
        bounds: tuple[int, int] | None,
        doc: str | None,
    ) -> None:
        self.name = name
        self.default = default
        self.convert = convert
        self.bounds = bounds
        self.doc = doc


def member(
    name: str = "",
    /,
    *,
    default: Any = REQUIRED,
    convert: Callable[[Any], Any] | None = None,
    bounds: tuple[int, int] | None = None,
    doc: str | None = None,
) -> Any:
    """A field of a StructMessage: the member `name` of its C struct.

    Without a name, it is the only member of its layout. `default` is the value that the constructor
    uses if the field is not given; `convert` is applied to the value when it is read. `bounds` are
    the minimum and maximum that the constructor and a send accept: of the value, for a field of 32
    or 64 bits; of the number of bytes, for a field that takes all bytes that follow. Decoding
    accepts any value. `doc` describes the field for help(): its unit and range.
    """
    return Member(name, default, convert, bounds, doc)


def members_of(kind: Any) -> dict[str, Member]:
    body: dict[str, Any] = kind.__dict__
    return {name: spec for name, spec in body.items() if isinstance(spec, Member)}


def public_members_of(kind: Any) -> list[str]:
    return [name for name in members_of(kind) if not name.startswith("_")]


class Signature:
    """The inspect.Signature of a constructor in C, made when it is asked for."""

    def __get__(self, record: object, kind: Any) -> Any:
        import inspect

        if record is not None or "_codec" not in vars(kind):
            raise AttributeError("__signature__")
        for name in ("__new__", "__init__"):
            made = getattr(kind, name)
            if isinstance(made, FunctionType):
                whole = list(inspect.signature(made).parameters.values())
                return inspect.Signature(whole[1:])

        empty: Any = inspect.Parameter.empty
        annotations = inspect.get_annotations(kind)
        parameters: list[inspect.Parameter] = []
        body: dict[str, Any] = kind.__dict__
        codec: _cmsg.Codec | None = kind._codec
        names: Iterable[str] = public_members_of(kind) if codec is None else codec.fields
        for name in names:
            field: Any = body[name]
            default: Any = getattr(field, "default", empty)
            if isinstance(default, bytes) and getattr(field, "format", "") in ("a", "A"):
                default = IPAddress(default)
            one = inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=empty if default is REQUIRED else default,
                annotation=annotations.get(name, empty),
            )
            parameters.append(one)
        return inspect.Signature(parameters)


class ControlMessage(_cmsg.Record):
    """The base class of every kind: small immutable objects, equal only within one class.

    `level` and `type` are those of struct cmsghdr, cmsg(3). pack() returns the payload, unpack()
    makes an object from a payload; neither needs a socket.

    A kind that derives from ControlMessage directly has its fields in `__slots__`, and defines
    pack() and unpack(). If the payload is a C struct, derive from StructMessage instead.
    """

    __slots__ = ()

    level: int
    type: int

    if not TYPE_CHECKING:
        __signature__ = Signature()

    def pack(self) -> bytes:
        """The payload in the kernel's layout, without header or padding: cmsg(3)."""
        raise TypeError(f"{type(self).__name__} does not say how it is packed")

    @classmethod
    def unpack(cls, data: Buffer, /) -> Self:
        """Makes an object from a payload, a bytes-like object without the header."""
        raise TypeError(f"{cls.__name__} does not say how it is unpacked")

    if TYPE_CHECKING:

        @classmethod
        def option(cls) -> KindOption: ...

    else:

        @classmethod
        def option(cls, *values, **named):
            """The kind together with a value for its socket option, for `want=` and enable().

            Most options are just on or off; then this is equivalent to the class. NotSupportedError
            if this system lacks the kind.
            """
            if values or named:
                name = cls.__name__
                raise TypeError(
                    f"{name}.option() takes no value: the option of {name} is on or off, and the "
                    "class alone switches it on"
                )
            return KindOption(cls, (row_of(cls).options,))


Kind: TypeAlias = type[ControlMessage] | type[PidFd] | KindOption
"""What `want=` and enable() take: the class of a kind, or what its option() returns."""


@dataclass_transform(eq_default=False, frozen_default=True, field_specifiers=(member,))
class StructMessage(_cmsg.Struct, ControlMessage):
    """A kind whose payload is a C struct. It holds the payload, and reads its fields from that.

    The class body declares the fields, `ttl: int = member("...")`; register() gives the layout.
    """

    __slots__ = ()
