"""Fields of a kind: member() and its arguments."""

from __future__ import annotations

import inspect
import pydoc
import socket
import struct
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from support import unregistered
from user_kinds import FORMATS, SOL_SOCKET, ZERO, Every, fresh, register_all

import cmsgx
from cmsgx import _cmsg, kinds
from cmsgx.kinds._base import members_of

# User-defined kinds, registered for the tests of this file --------------------------------------

BOUNDS = {
    "b": (-(2**7), 2**7 - 1),
    "u1": (0, 2**8 - 1),
    "h": (-(2**15), 2**15 - 1),
    "u2": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u4": (0, 2**32 - 1),
    "q": (-(2**63), 2**63 - 1),
    "u8": (0, 2**64 - 1),
    "p": (-(2**31), 2**31 - 1),
}


@pytest.fixture(autouse=True)
def user_kinds() -> Iterator[None]:
    """Registers them in place of the kinds that have their numbers; unregisters them at the end."""
    with unregistered(kinds.Timestamp, kinds.Ttl, kinds.Tos):
        register_all()
        yield


# Fields -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_bounds_of_each_format(name: str) -> None:
    code, offset = FORMATS[name]
    low, high = BOUNDS[name]
    for value in (low, high, 0, 1):
        record = Every(**{**ZERO, name: value})
        packed = struct.pack("=i" if code == "P" else f"={code}", value)
        assert record.pack()[offset : offset + len(packed)] == packed
        back = getattr(Every.unpack(record.pack()), name)
        assert back == (None if code == "P" and value == 0 else value)
    for value in (low - 1, high + 1, 2**64, -(2**64)):
        with pytest.raises(OverflowError, match=rf"Every\.{name}: -?\d+ does not fit"):
            Every(**{**ZERO, name: value})
    for wrong in (True, 1.0, "1", b"1", *([] if code == "P" else [None])):
        with pytest.raises(TypeError, match=rf"Every\.{name}: an int is needed"):
            Every(**{**ZERO, name: wrong})


@pytest.mark.parametrize("length", [0, 1, 11, 13, 16])
def test_a_payload_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(cmsgx.MalformedControlError, match=f"Credentials: {length} bytes") as caught:
        cmsgx.Credentials.unpack(bytes(length))
    assert ("truncated" in str(caught.value)) == (length < 12)


ERROR = kinds.ExtendedError(111, 2, offender=("192.0.2.7", 9)).pack()
ERROR6 = kinds.ExtendedError(111, 3, offender=("2001:db8::7", 9, 0, 0)).pack()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("whole", [ERROR, ERROR6], ids=["IPv4", "IPv6"])
def test_a_socket_address_that_was_cut_is_malformed(whole: bytes, family: int) -> None:
    where = (0, 11) if family == socket.AF_INET else (41, 25)
    assert cmsgx.decode(*where, whole, family).offender is not None
    assert cmsgx.decode(*where, whole[:16], family).offender is None
    for length in range(17, len(whole)):
        with pytest.raises(cmsgx.MalformedControlError, match=rf"{length} bytes .*\(truncated\)"):
            cmsgx.decode(*where, whole[:length], family)


def test_an_address_of_a_family_that_does_not_fit_is_malformed() -> None:
    payload = struct.pack("=H", socket.AF_INET6) + bytes(14)
    with pytest.raises(cmsgx.MalformedControlError, match="truncated"):
        kinds.OriginalDestination.unpack(payload)


def test_an_address_before_other_fields_is_not_longer_than_its_place() -> None:
    there: Any = ("2001:db8::7", 9, 0, 0)
    mtu = kinds.PathMtu(there, 1500)
    assert (mtu.destination, mtu.mtu, len(mtu.pack())) == (there, 1500, 32)
    assert kinds.PathMtu.unpack(mtu.pack()) == mtu == kinds.PathMtu(mtu.destination, 1500)
    assert kinds.PathMtu(None, 1500).destination is None
    long = cmsgx.decode(41, 25, ERROR6 + bytes(8), socket.AF_INET6).offender
    with pytest.raises(ValueError, match=r"PathMtu\.destination: 36 bytes; its size is 28"):
        kinds.PathMtu(long, 1500)


def test_padding_is_packed_as_zero() -> None:
    packed = Every(**dict.fromkeys(FORMATS, 1)).pack()
    assert packed[6:8] == b"\0\0"


@pytest.mark.parametrize(
    ("layout", "size", "error"),
    [
        ((("value", 0, "i"),), 3, ValueError),
        ((("value", 1, "i"),), 4, ValueError),
        ((("value", -1, "i"),), 4, ValueError),
        ((("value", 0, "z"),), 4, ValueError),
        ((("value", 0),), 4, TypeError),
        ((("value", 0, "ii"),), 8, TypeError),
    ],
    ids=str,
)
def test_a_layout_that_does_not_fit_is_refused(
    layout: Any, size: int, error: type[Exception]
) -> None:
    class Wrong(kinds.StructMessage):
        __slots__ = ()

    with pytest.raises(error):
        kinds.register(Wrong, level=SOL_SOCKET, type=0x7E01, layout=layout, size=size)


def test_a_registration_that_failed_leaves_the_number_free() -> None:
    class Wrong(kinds.StructMessage):
        __slots__ = ()

    with pytest.raises(ValueError, match="layout"):
        kinds.register(Wrong, level=SOL_SOCKET, type=0x7E02, layout=(("value", 0, "i"),), size=1)
    assert type(cmsgx.decode(SOL_SOCKET, 0x7E02, b"1234")) is cmsgx.Unknown


def test_a_number_has_one_kind() -> None:
    class Other(kinds.ControlMessage):
        __slots__ = ()

    with pytest.raises(ValueError, match=r"\(1, 2\) is already Credentials"):
        kinds.register(Other, level=SOL_SOCKET, type=2)
    with pytest.raises(TypeError, match="not a registered kind"):
        Other()


@pytest.mark.parametrize("size", [None, 0, 1, 4])
@pytest.mark.parametrize(
    ("layout", "least"),
    [((("rest", 0, "t"),), 0), ((("first", 0, "B"), ("rest", 1, "t")), 1)],
    ids=["alone", "behind"],
)
def test_all_that_follows_is_of_any_length(layout: Any, least: int, size: int | None) -> None:
    least = max(least, size or 0)
    with unregistered():
        kind = kinds.register(fresh(), level=SOL_SOCKET, type=0x7E20, layout=layout, size=size)
        for length in (0, 1, 4, 5, 1000):
            payload = bytes(range(251))[:length] * (1 if length < 1000 else 4)
            if len(payload) < least:
                with pytest.raises(cmsgx.MalformedControlError, match="truncated"):
                    kind.unpack(payload)
                continue
            one = kind.unpack(payload)
            assert one.rest == payload[len(layout) - 1 :]
            assert kind(*[getattr(one, name) for name, *_ in layout]) == one
            assert cmsgx.decode(SOL_SOCKET, 0x7E20, payload) == one
            assert one.pack() == payload


def test_a_layout_by_places_honours_the_members() -> None:
    with unregistered():
        kind = kinds.register(
            fresh(a=kinds.member(default=-7, convert=abs), b=kinds.member()),
            level=SOL_SOCKET, type=0x7E21, layout=(("a", 0, "i"), ("b", 4, "i")), size=8,
        )  # fmt: skip
        assert kind(b=2).a == 7
        assert kind(b=2).pack() == struct.pack("=ii", -7, 2)
        with pytest.raises(TypeError, match="is missing field 'b'"):
            kind()
        with pytest.raises(ValueError, match="layout: it lacks 'other'"):
            kinds.register(
                fresh(other=kinds.member()), level=SOL_SOCKET, type=0x7E22,
                layout=(("a", 0, "i"),), size=4,
            )  # fmt: skip


def test_a_class_whose_registration_failed_can_be_registered_after_all() -> None:
    kind = fresh(a=kinds.member(default=5))
    with unregistered():
        with pytest.raises(ValueError, match="layout"):
            kinds.register(kind, level=SOL_SOCKET, type=0x7E23, layout=(("a", 2, "i"),), size=4)
        kinds.register(kind, level=SOL_SOCKET, type=0x7E23, layout=(("a", 0, "i"),), size=4)
        assert kind().pack() == struct.pack("=i", 5)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"direction": "sideways"}, ValueError),
        ({"direction": None}, ValueError),
        ({"encoding": "foo"}, ValueError),
        ({"encoding": []}, ValueError),
        ({"families": "AF_INET"}, TypeError),
        ({"families": {"AF_INET"}}, TypeError),
        ({"families": {100}}, ValueError),
        ({"level": None}, TypeError),
        ({"level": 2**40}, ValueError),
        ({"type": 1.5}, TypeError),
        ({"size": -4}, ValueError),
        ({"size": 2**40}, ValueError),
        ({"size": "4"}, TypeError),
        ({"unsolicited_size": -5}, ValueError),
        ({"unsolicited_size": None}, TypeError),
    ],
    ids=str,
)
def test_a_wrong_argument_of_register_is_named(wrong: Any, error: type[Exception]) -> None:
    right: dict[str, Any] = {
        "level": SOL_SOCKET,
        "type": 0x7E24,
        "layout": (("a", 0, "i"),),
        "size": 4,
    }
    kind = fresh()
    with unregistered():
        with pytest.raises(error, match=rf"^{next(iter(wrong))}: "):
            kinds.register(kind, **{**right, **wrong})
        # It left nothing registered.
        kinds.register(kind, **right)
        also = [kinds.WireFormat(SOL_SOCKET, 0x7E26, "foo")]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="encoding: "):
            kinds.register(fresh(), **{**right, "type": 0x7E25, "other_forms": also})


# The size in bytes of the layout that each encoding stands for.
CANONICAL: dict[Any, int] = {
    "integer": 4, "timeval": 8, "timespec": 8, "timeval64": 8, "timespec64": 8, "bintime": 8,
    "stamping": 24, "stamping64": 24, "pktinfo": 20,
}  # fmt: skip
ALL: Any = get_args(kinds._row.Encoding)


def layout_of(size: int, *, open_end: bool = False) -> dict[str, Any]:
    """A layout of this many bytes; with an open end, of at least this many."""
    places = tuple((f"byte{i}", i, "B") for i in range(size))
    return {"layout": (*places, ("rest", size, "t")) if open_end else places, "size": size}


def test_each_encoding_is_tried() -> None:
    assert set(ALL) == {"", "without NUL", *CANONICAL}


@pytest.mark.parametrize("where", ["own", "other_forms"])
@pytest.mark.parametrize("direction", ["send", "receive", "both"])
@pytest.mark.parametrize("encoding", CANONICAL)
def test_an_encoding_needs_the_layout_that_it_stands_for(
    encoding: Any, direction: Any, where: str
) -> None:
    right = CANONICAL[encoding]
    said: dict[str, Any] = {"level": SOL_SOCKET, "type": 0x7E40, "direction": direction}
    said["encoding" if where == "own" else "other_forms"] = (
        encoding if where == "own" else [kinds.WireFormat(SOL_SOCKET, 0x7E41, encoding)]
    )
    kind = fresh()
    with unregistered():
        for size in (0, 1, right - 1, right + 1):
            with pytest.raises(ValueError, match=rf"^encoding: '{encoding}' .* {right} bytes"):
                kinds.register(kind, **said, **layout_of(size))
        for size in (0, right, right + 1):
            # An open end also allows fewer, and more, bytes than the encoding has.
            with pytest.raises(ValueError, match=r"^encoding: .* or more$"):
                kinds.register(kind, **said, **layout_of(size, open_end=True))
        kinds.register(kind, **said, **layout_of(right))
        one = kind(*range(1, right + 1))
        there = kind.unpack(one.pack())
        # A bintime is rounded.
        assert len(there.pack()) == len(one.pack())
        assert len(cmsgx.wire.build([there])) == cmsgx.CMSG_SPACE(len(one.pack()))


@pytest.mark.parametrize("encoding", ["", "without NUL"])
@pytest.mark.parametrize("size", [0, 1, 24])
def test_an_encoding_that_keeps_the_payload_accepts_any_layout(encoding: Any, size: int) -> None:
    with unregistered():
        for open_end in (False, True):
            kind = kinds.register(
                fresh(), level=SOL_SOCKET, type=0x7E42 + open_end, encoding=encoding,
                **layout_of(size, open_end=open_end),
            )  # fmt: skip
            one = kind(*range(1, size + 1), *[b"more"] * open_end)
            assert one.pack() == bytes(range(1, size + 1)) + b"more" * open_end


def test_an_encoding_with_the_name_of_a_layout_is_checked_too() -> None:
    class Named(kinds.StructMessage):
        __slots__ = ()

        number: int = kinds.member("value")

    for encoding in CANONICAL.keys() - {"integer"}:
        with unregistered(), pytest.raises(ValueError, match=r"^encoding: "):
            kinds.register(Named, level=SOL_SOCKET, type=0x7E44, layout="int", encoding=encoding)


@pytest.mark.parametrize("encoding", [one for one in ALL if one])
def test_a_class_that_packs_itself_has_no_encoding(encoding: Any) -> None:
    kind = type("Own", (kinds.ControlMessage,), {"__slots__": ("value",)})
    with unregistered(), pytest.raises(ValueError, match=r"^encoding: .*packs and unpacks itself"):
        kinds.register(kind, level=SOL_SOCKET, type=0x7E45, encoding=encoding)


@pytest.mark.parametrize(
    ("encoding", "size", "error"),
    [
        ("integer", 3, ValueError),
        ("integer", 8, ValueError),
        ("integer", -1, ValueError),
        ("integer", 2**40, ValueError),
        ("integer", "4", TypeError),
        ("", 4, ValueError),
        ("without NUL", 4, ValueError),
    ],
)
def test_a_wire_format_has_no_size_that_its_encoding_does_not_take(
    encoding: Any, size: Any, error: type[Exception]
) -> None:
    form = kinds.WireFormat(SOL_SOCKET, 0x7E47, encoding, size=size)
    with unregistered(), pytest.raises(error, match="size: "):
        kinds.register(
            fresh(),
            level=SOL_SOCKET,
            type=0x7E46,
            layout=(("x", 0, "i"),),
            size=4,
            other_forms=[form],
        )


@pytest.mark.parametrize(
    ("place", "size"),
    [
        (("x", 0, "q"), 4),
        (("x", 4, "B"), 4),
        (("x", 2**31 - 1, "B"), 4),
        (("x", 2**40, "B"), 4),
        (("x", 0, "s", 5), 4),
        (("x", 0, "s", 2**40), 4),
        (("x", 0, "A"), 15),
        (("x", 0, "S", 16), 15),
    ],
    ids=str,
)
def test_a_window_does_not_reach_out_of_the_payload(place: Any, size: int) -> None:
    with unregistered(), pytest.raises(ValueError, match="layout"):
        kinds.register(fresh(), level=SOL_SOCKET, type=0x7E48, layout=(place,), size=size)


def test_a_window_after_an_open_end_is_read_only_if_it_is_there() -> None:
    with unregistered():
        kind = kinds.register(
            fresh(), level=SOL_SOCKET, type=0x7E49, layout=(("rest", 0, "t"), ("late", 40, "q"))
        )
        assert kind(b"short").late is None
        assert kind.unpack(bytes(47)).late is None
        assert kind.unpack(bytes(range(48))).late == struct.unpack("=q", bytes(range(40, 48)))[0]
        assert kind(b"", 7).pack() == bytes(40) + struct.pack("=q", 7)


def test_families_are_any_set_of_numbers() -> None:
    sets: list[Any] = [[socket.AF_INET], {socket.AF_INET}, iter([socket.AF_INET])]
    for families in sets:
        with unregistered():
            kind = kinds.register(
                fresh(), level=SOL_SOCKET, type=0x7E24, layout=(), families=families
            )
            assert type(cmsgx.decode(SOL_SOCKET, 0x7E24, b"", socket.AF_INET)) is kind
            assert type(cmsgx.decode(SOL_SOCKET, 0x7E24, b"", socket.AF_UNIX)) is cmsgx.Unknown


@pytest.mark.parametrize("wrong", [5, "Ttl", int, object, cmsgx.Fd, kinds.Ttl(3)])
def test_what_is_not_a_class_of_control_messages_is_not_registered(wrong: Any) -> None:
    with pytest.raises(TypeError, match="not a subclass of ControlMessage"):
        kinds.register(wrong, level=SOL_SOCKET, type=0x7E24)
    with pytest.raises(TypeError, match="not a subclass of ControlMessage"):
        kinds.register(level=SOL_SOCKET, type=0x7E24)(wrong)


def test_all_that_have_the_number_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\) is already HciDirection, .*MisdnTimestamp"):
        kinds.register(fresh(), level=0, type=1, layout=())


# What a field says about itself -----------------------------------------------------------------


def declared_fields() -> Iterator[Any]:
    """(kind, name) of each field, also of the kinds that this system does not have."""
    for name in kinds.__all__:
        kind = getattr(kinds, name)
        if isinstance(kind, type) and issubclass(kind, kinds.ControlMessage):
            codec = vars(kind).get("_codec")
            names = members_of(kind) if codec is None else codec.fields
            for field in names:
                yield pytest.param(kind, field, id=f"{kind.__name__}.{field}")


@pytest.mark.parametrize(("kind", "name"), [*declared_fields()])
def test_each_field_says_what_it_is(kind: Any, name: str) -> None:
    spec = members_of(kind).get(name)
    doc = inspect.getdoc(vars(kind)[name]) if spec is None else spec.doc
    assert doc, "member(doc=...), or a dict as __slots__"
    assert doc[-1] == "."
    assert doc[0].isupper() or doc[0] in "0123456789`(" or doc.split()[0].endswith("_*:"), doc


def test_help_shows_what_each_field_is() -> None:
    text = pydoc.plain(pydoc.render_doc(kinds.PacketInfo))
    for name in ("interface", "local", "destination"):
        doc = inspect.getdoc(getattr(kinds.PacketInfo, name))
        assert doc
        assert doc in text


def test_the_docstring_is_that_of_the_field() -> None:
    assert _cmsg.Field("a", 0, "i", doc="In metres.").__doc__ == "In metres."
    assert _cmsg.Field("a", 0, "i").__doc__ is None
    with pytest.raises(TypeError, match="doc: a str or None is needed, not int"):
        _cmsg.Field("a", 0, "i", doc=3)  # type: ignore[arg-type]


def test_a_users_field_says_what_it_is() -> None:
    kind = fresh(a=kinds.member(doc="In metres."), b=kinds.member())
    kinds.register(
        kind, level=SOL_SOCKET, type=0x7E2D, layout=(("a", 0, "i"), ("b", 4, "i")), size=8
    )
    assert inspect.getdoc(kind.a) == "In metres."
    assert inspect.getdoc(kind.b) is None
