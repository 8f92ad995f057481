"""The codec of a class, with which C reads and packs it: made from its layout and its fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeAlias

from .. import _cmsg
from .._arguments import as_tuple
from ._base import REQUIRED, Member, members_of
from ._row import DIRECTIONS, ENCODINGS, WireFormat
from ._way import READERS, way_of

# By the name in the class body; None for a member that the struct of this system lacks.
_Fields: TypeAlias = dict[str, _cmsg.Field | None]
_PACKAGE = f"{__package__}."


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers if number < 64)


def _packed_format(wire: WireFormat) -> tuple[int, ...]:
    way = way_of(wire)
    return (
        _mask(wire.families),
        wire.level,
        wire.type,
        DIRECTIONS[wire.direction or "both"] | (4 if way.is_by_peer else 0),
        wire.size or (4 if wire.encoding == "integer" else 0),
        ENCODINGS[wire.encoding],
        _mask(way.over),
        _mask(way.by),
        -(2**63) if wire.min_value is None else wire.min_value,
        READERS.index(way.reader),
    )


def _field(spec: Member | None, *place: Any) -> _cmsg.Field:
    if spec is None:
        return _cmsg.Field(*place)
    said: dict[str, Any] = {"convert": spec.convert, "bounds": spec.bounds, "doc": spec.doc}
    if spec.default is not REQUIRED:
        said["default"] = spec.default
    return _cmsg.Field(*place, **said)


def _fields_of(kind: Any, layout: dict[str, tuple[int, str, int]]) -> _Fields:
    """A Field for each member() of the class, from a layout of the C headers."""
    found: _Fields = {}
    for name, spec in members_of(kind).items():
        place = layout.get(spec.name or next(iter(layout)))
        found[name] = None if place is None else _field(spec, name, *place)
    return found


def _fields_at(kind: Any, places: tuple[tuple[str, int, str], ...]) -> _Fields:
    """A Field for each place, with the arguments of the member() of that name."""
    members = members_of(kind)
    found: _Fields = {}
    for place in as_tuple("layout", "an iterable of (name, offset, format)", places):
        if place[0] in found:
            raise ValueError(f"layout: {place[0]!r} appears twice")
        found[place[0]] = _field(members.get(place[0]), *place)
    if missing := members.keys() - found.keys():
        raise ValueError(f"layout: it lacks {', '.join(map(repr, sorted(missing)))}")
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
                # All bytes that follow, so there is no maximum.
                min_size, max_size = max(min_size, field.offset), -1
    is_own = kind.__module__.startswith(_PACKAGE)
    packed = tuple(map(_packed_format, formats))
    codec = _cmsg.Codec(kind, packed, min_size, max_size, tuple(fields), is_own)
    for name, window in windows.items():
        type.__setattr__(kind, name, window)
    type.__setattr__(kind, "_codec", codec)
    set_match_args(kind, codec.fields)
    if codec.min_size >= 0 and not any(field.bounds for field in fields if field.format != "t"):
        for wire in formats:
            if wire.min_value is not None:
                raise ValueError(
                    f"min_value: {wire.min_value}; no member() of {kind.__name__} has bounds"
                )


def set_match_args(kind: Any, fields: Iterable[str]) -> None:
    """For `case Kind(a, b)`: the fields that repr() shows, in the order of the constructor."""
    if "__match_args__" not in vars(kind):
        type.__setattr__(kind, "__match_args__", tuple(getattr(kind, "_SHOWN", fields)))
