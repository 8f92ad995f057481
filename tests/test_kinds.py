"""Kinds: small immutable objects, one class for each control message."""

from __future__ import annotations

import copy
import gc
import ipaddress
import os
import pickle
import socket
import struct
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast, get_args

import pytest
from support import (
    Pair,
    content,
    is_open,
    need_classes_that_go,
    open_fds,
    open_files,
    run_python,
    unix_pair,
    unregistered,
)

import cmsgx
from cmsgx import kinds

SOL_SOCKET = 1
SO_TIMESTAMPNS = 35
IP_TTL, IP_RECVTTL = 2, 12
WORD = struct.calcsize("@l")  # of the kernel's old struct timespec


# Kinds of a user, registered for the tests of this file -----------------------------------------


class Stamp(kinds.StructMessage):
    """SCM_TIMESTAMPNS with a layout of C fields."""

    __slots__ = ()
    nanoseconds: int
    seconds: int


class TimeToLive(kinds.ControlMessage):
    """IP_TTL, which packs itself."""

    __slots__ = ("hops",)
    hops: int

    def pack(self) -> bytes:
        return struct.pack("=i", self.hops)

    @classmethod
    def unpack(cls, data: Any, /) -> TimeToLive:
        return cls(*struct.unpack("=i", data))


class Every(kinds.StructMessage):
    """One field of each format."""

    __slots__ = ()


FORMATS = {
    "b": ("b", 0),
    "u1": ("B", 1),
    "h": ("h", 2),
    "u2": ("H", 4),
    "i": ("i", 8),
    "u4": ("I", 12),
    "q": ("q", 16),
    "u8": ("Q", 24),
    "p": ("P", 32),
}
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
ZERO = dict.fromkeys(FORMATS, 0)


class Picky(kinds.ControlMessage):
    """Its decoder fails."""

    __slots__ = ("value",)

    def pack(self) -> bytes:
        raise ZeroDivisionError("pack")

    @classmethod
    def unpack(cls, data: Any, /) -> Picky:
        raise ZeroDivisionError("unpack")


@pytest.fixture(autouse=True)
def user_kinds() -> Iterator[None]:
    """Registers them, in the place of what has their numbers; takes them out again."""
    with unregistered(kinds.Timestamp, kinds.Ttl, kinds.Tos):
        register_all()
        yield


def register_all() -> None:
    kinds.register(
        Stamp,
        level=SOL_SOCKET,
        type=SO_TIMESTAMPNS,
        layout=tuple(
            (name, at, {4: "i", 8: "q"}[WORD])
            for name, at in (("seconds", 0), ("nanoseconds", WORD))
        ),
        size=2 * WORD,
        direction="receive",
        families=frozenset({socket.AF_UNIX, socket.AF_INET}),
        option=kinds.Option(SOL_SOCKET, SO_TIMESTAMPNS, "SO_TIMESTAMPNS", 2 * WORD),
    )
    kinds.register(
        TimeToLive,
        level=socket.IPPROTO_IP,
        type=IP_TTL,
        families=frozenset({socket.AF_INET}),
        option=kinds.Option(socket.IPPROTO_IP, IP_RECVTTL, "IP_RECVTTL", 4),
    )
    kinds.register(
        Every,
        level=SOL_SOCKET,
        type=0x7E00,
        layout=tuple((name, offset, code) for name, (code, offset) in FORMATS.items()),
        size=36,
    )


def fields_of(kind: Any) -> tuple[str, ...]:
    names: tuple[str, ...] = kind._codec.fields
    return names


ONE_OF_EACH: list[tuple[Any, Callable[[], Any], str]] = [
    (cmsgx.Rights, lambda: cmsgx.Rights([0, 1]), "Rights(fds=(0, 1))"),
    (
        cmsgx.Credentials,
        lambda: cmsgx.Credentials(1, 2, 3),
        "Credentials(pid=1, uid=2, gid=3)",
    ),
    (
        cmsgx.Credentials,
        lambda: cmsgx.Credentials(pid=None, uid=2, gid=3),
        "Credentials(pid=None, uid=2, gid=3)",
    ),
    (cmsgx.SecurityLabel, lambda: cmsgx.SecurityLabel(b"label"), "SecurityLabel(label=b'label')"),
    (
        cmsgx.Unknown,
        lambda: cmsgx.Unknown(1, 99, b"data"),
        "Unknown(level=1, type=99, data=b'data')",
    ),
    (cmsgx.PeerCredentials, lambda: cmsgx.PeerCredentials(1, 2, 3), "PeerCredentials("),
    (Stamp, lambda: Stamp(seconds=1, nanoseconds=2), "Stamp(seconds=1, nanoseconds=2)"),
    (TimeToLive, lambda: TimeToLive(64), "TimeToLive(hops=64)"),
    (Every, lambda: Every(**{**ZERO, "p": 7}), "Every(b=0"),
]
EACH = pytest.mark.parametrize(
    ("kind", "make", "text"), ONE_OF_EACH, ids=[row[2].split("(")[0] for row in ONE_OF_EACH]
)


# What every kind is -----------------------------------------------------------------------------


@EACH
def test_immutable(kind: Any, make: Callable[[], Any], text: str) -> None:
    record = make()
    for name in (*fields_of(kind), "level", "new"):
        with pytest.raises((AttributeError, TypeError)):
            setattr(record, name, 1)
        with pytest.raises((AttributeError, TypeError)):
            delattr(record, name)
    assert record == make()


@EACH
def test_equal_hashable_true_and_readable(kind: Any, make: Callable[[], Any], text: str) -> None:
    assert type(make()) is kind
    assert make() == make()
    assert not make() != make()  # noqa: SIM202
    assert hash(make()) == hash(make())
    assert len({make(), make()}) == 1
    assert bool(make()) is True
    assert not isinstance(make(), tuple)
    assert repr(make()).startswith(text)
    with pytest.raises(TypeError):
        make() < make()  # noqa: B015


@EACH
def test_equal_only_within_one_class(kind: Any, make: Callable[[], Any], text: str) -> None:
    for _, other, other_text in ONE_OF_EACH:
        assert (make() == other()) == (text == other_text)
    for no_kind in (1, None, (1, 2, 3), text, b""):
        assert make() != no_kind


@EACH
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *(
            lambda record, p=protocol: pickle.loads(pickle.dumps(record, p))
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
        ),
    ],
)
def test_copied_and_pickled(
    kind: Any, make: Callable[[], Any], text: str, duplicate: Callable[[Any], Any]
) -> None:
    record = make()
    same = duplicate(record)
    assert type(same) is kind
    assert same == record
    assert repr(same) == repr(record)


@EACH
def test_packed_and_unpacked_without_a_socket(
    kind: Any, make: Callable[[], Any], text: str
) -> None:
    payload = make().pack()
    assert type(payload) is bytes
    if kind is cmsgx.Unknown:
        assert payload == b"data"
        with pytest.raises(TypeError, match="level"):
            kind.unpack(payload)
        return
    for form in (payload, bytearray(payload), memoryview(b"x" + payload)[1:]):
        same = kind.unpack(form)
        assert type(same) is kind
        assert same.pack() == payload
        assert same == make()
    if issubclass(kind, kinds.ControlMessage):
        assert cmsgx.decode(kind.level, kind.type, payload) == make()


@EACH
def test_new_is_strict_about_fields(kind: Any, make: Callable[[], Any], text: str) -> None:
    fields = {name: getattr(make(), name) for name in fields_of(kind)}
    assert kind(**fields) == make()
    with pytest.raises(TypeError):
        kind(**fields, more=1)
    with pytest.raises(TypeError):
        kind(*fields.values(), 1, 2)
    if kind is not cmsgx.Credentials:
        with pytest.raises(TypeError):
            kind()


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


def test_an_address_of_another_family_than_there_is_room_for_is_malformed() -> None:
    payload = struct.pack("=H", socket.AF_INET6) + bytes(14)
    with pytest.raises(cmsgx.MalformedControlError, match="truncated"):
        kinds.OriginalDestination.unpack(payload)


def test_an_address_in_front_of_other_fields_is_no_longer_than_its_place() -> None:
    there: Any = ("2001:db8::7", 9, 0, 0)
    mtu = kinds.PathMtu(there, 1500)
    assert (mtu.destination, mtu.mtu, len(mtu.pack())) == (there, 1500, 32)
    assert kinds.PathMtu.unpack(mtu.pack()) == mtu == kinds.PathMtu(mtu.destination, 1500)
    assert kinds.PathMtu(None, 1500).destination is None
    long = cmsgx.decode(41, 25, ERROR6 + bytes(8), socket.AF_INET6).offender
    with pytest.raises(ValueError, match=r"PathMtu\.destination: 36 bytes; it has 28"):
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

    with pytest.raises(ValueError, match=r"\(1, 2\) is Credentials already"):
        kinds.register(Other, level=SOL_SOCKET, type=2)
    with pytest.raises(TypeError, match="not a registered kind"):
        Other()


def fresh(**body: Any) -> Any:
    return type("Fresh", (kinds.StructMessage,), {"__slots__": (), **body})


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
        with pytest.raises(ValueError, match="layout: it has no 'other'"):
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
        # It left nothing behind.
        kinds.register(kind, **right)
        also = [kinds.WireFormat(SOL_SOCKET, 0x7E26, "foo")]  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="encoding: "):
            kinds.register(fresh(), **{**right, "type": 0x7E25, "other_forms": also})


# How many bytes the layout has that a encoding stands for.
CANONICAL: dict[Any, int] = {
    "integer": 4, "timeval": 8, "timespec": 8, "timeval64": 8, "timespec64": 8, "bintime": 8,
    "stamping": 24, "stamping64": 24, "pktinfo": 20,
}  # fmt: skip
ALL: Any = get_args(kinds._base.Encoding)


def layout_of(size: int, *, open_end: bool = False) -> dict[str, Any]:
    """A layout of so many bytes; with an open end, of at least so many."""
    places = tuple((f"byte{i}", i, "B") for i in range(size))
    return {"layout": (*places, ("rest", size, "t")) if open_end else places, "size": size}


def test_each_transform_is_tried() -> None:
    assert set(ALL) == {"", "without NUL", *CANONICAL}


@pytest.mark.parametrize("where", ["own", "other_forms"])
@pytest.mark.parametrize("direction", ["send", "receive", "both"])
@pytest.mark.parametrize("encoding", CANONICAL)
def test_a_transform_needs_the_layout_that_it_stands_for(
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
            # Any number of bytes is also fewer, and more, than the encoding has.
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
def test_what_leaves_the_payload_as_it_is_goes_with_any_layout(encoding: Any, size: int) -> None:
    with unregistered():
        for open_end in (False, True):
            kind = kinds.register(
                fresh(), level=SOL_SOCKET, type=0x7E42 + open_end, encoding=encoding,
                **layout_of(size, open_end=open_end),
            )  # fmt: skip
            one = kind(*range(1, size + 1), *[b"more"] * open_end)
            assert one.pack() == bytes(range(1, size + 1)) + b"more" * open_end


def test_a_transform_by_the_name_of_a_layout_is_checked_too() -> None:
    class Named(kinds.StructMessage):
        __slots__ = ()

        number: int = kinds.member("value")

    for encoding in CANONICAL.keys() - {"integer"}:
        with unregistered(), pytest.raises(ValueError, match=r"^encoding: "):
            kinds.register(Named, level=SOL_SOCKET, type=0x7E44, layout="int", encoding=encoding)


@pytest.mark.parametrize("encoding", [one for one in ALL if one])
def test_a_class_that_packs_itself_has_no_transform(encoding: Any) -> None:
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
def test_a_form_has_no_size_that_its_transform_does_not_take(
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


def test_a_window_behind_an_open_end_is_read_only_where_it_is_there() -> None:
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
def test_what_is_no_class_of_control_messages_is_not_registered(wrong: Any) -> None:
    with pytest.raises(TypeError, match="not a subclass of ControlMessage"):
        kinds.register(wrong, level=SOL_SOCKET, type=0x7E24)
    with pytest.raises(TypeError, match="not a subclass of ControlMessage"):
        kinds.register(level=SOL_SOCKET, type=0x7E24)(wrong)


def test_all_that_have_the_number_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\) is HciDirection, .*MisdnTimestamp already"):
        kinds.register(fresh(), level=0, type=1, layout=())


# The kinds of the contract ----------------------------------------------------------------------


def test_credentials_are_ones_own() -> None:
    own = cmsgx.Credentials()
    assert (own.pid, own.uid, own.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert own.attached is None
    assert cmsgx.Credentials(uid=7).uid == 7
    assert cmsgx.Credentials.unpack(struct.pack("=iII", 0, 1, 2)).pid is None
    assert cmsgx.Credentials(None, 1, 2).pack() == struct.pack("=iII", 0, 1, 2)
    assert (cmsgx.Credentials.level, cmsgx.Credentials.type) == (SOL_SOCKET, 2)


def test_a_security_label_loses_its_nul() -> None:
    for payload in (b"label", b"label\0"):
        label = cmsgx.SecurityLabel.unpack(payload)
        assert label.label == b"label"
        assert str(label) == "label"
    assert cmsgx.SecurityLabel.unpack(b"").label == b""


def test_rights_are_a_sequence() -> None:
    rights = cmsgx.Rights(iter([3, 4, 5]))
    assert rights.fds == (3, 4, 5)
    assert (len(rights), rights[0], rights[-1], rights[1:]) == (3, 3, 5, (4, 5))
    assert list(rights) == [3, 4, 5]
    assert 4 in rights
    assert bool(cmsgx.Rights([])) is True
    assert rights.pack() == struct.pack("=3i", 3, 4, 5)
    with pytest.raises(ValueError, match="unpack"):
        rights.own()


def test_rights_pack_what_has_a_number(stream: Pair) -> None:
    with cmsgx.Fd(os.open(os.devnull, os.O_RDONLY)) as fd:
        assert cmsgx.Rights([fd, stream[0]]).pack() == struct.pack(
            "=2i", fd.fileno(), stream[0].fileno()
        )


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, *(partial(pickle.dumps, protocol=n) for n in range(6))],
)
def test_what_can_be_owned_once_has_no_second_copy(duplicate: Callable[[Any], Any]) -> None:
    payload = struct.pack("=i", 2**30)
    rights, pidfd = cmsgx.Rights.unpack(payload), cmsgx.PidFd.unpack(payload)
    for unowned in (rights.fds, pidfd):
        with pytest.raises(TypeError, match="owned once"):
            duplicate(unowned)
    if duplicate in (copy.copy, copy.deepcopy):
        assert duplicate(rights) is rights
    else:
        with pytest.raises(TypeError, match="owned once"):
            duplicate(rights)
    # What is for sending is numbers, and stays them.
    assert duplicate(cmsgx.Rights([2**30]))


@pytest.mark.parametrize("wrong", [0, 4, 8, None, "text", 1.5])
def test_a_payload_is_bytes(wrong: Any) -> None:
    for call in (
        cmsgx.Rights.unpack,
        cmsgx.PidFd.unpack,
        cmsgx.Credentials.unpack,
        lambda data: cmsgx.Unknown(1, 2, data),
        lambda data: cmsgx.decode(999, 2, data),
    ):
        with pytest.raises(TypeError, match="bytes-like"):
            call(wrong)


def test_level_and_type_are_numbers() -> None:
    for wrong in ("a", None, 1.5, b""):
        for numbers in ((wrong, 2), (2, wrong)):
            calls: list[Any] = [cmsgx.Unknown, cmsgx.decode]
            for call in calls:
                with pytest.raises(TypeError, match="an int is needed"):
                    call(*numbers, b"")


@pytest.mark.parametrize("number", [0xFFFFFFFF, 2**31, 2**31 - 1, 5000])
def test_an_errno_that_there_is_none_of(number: int) -> None:
    error = kinds.ExtendedError(number, 1).error
    assert error is not None
    assert error.errno == number
    assert error.strerror == (os.strerror(number) if number < 2**31 else f"Unknown error {number}")


def test_a_pidfd_that_could_not_be_made_says_so() -> None:
    assert repr(cmsgx.PidFd.unpack(struct.pack("=i", 7))) == "<UnownedPidFd 7>"
    assert repr(cmsgx.PidFd.unpack(struct.pack("=i", -24))) == "<UnownedPidFd, error EMFILE>"
    assert repr(cmsgx.PidFd.unpack(struct.pack("=i", -4999))) == "<UnownedPidFd, error 4999>"


@pytest.mark.parametrize("decode", [cmsgx.Rights.unpack, lambda p: cmsgx.decode(SOL_SOCKET, 1, p)])
def test_unpacked_rights_own_nothing_until_own_once(decode: Callable[[bytes], Any]) -> None:
    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    payload = struct.pack("=3i", *numbers)
    unowned = decode(payload)
    assert type(unowned) is cmsgx.Rights
    assert list(unowned) == numbers
    del unowned
    assert all(map(is_open, numbers))
    unowned = decode(payload)
    fds = unowned.own()
    assert type(fds) is tuple
    assert [fd.fileno() for fd in fds] == numbers
    with pytest.raises(ValueError, match="before"):
        unowned.own()
    for fd in fds:
        fd.close()
    assert not any(map(is_open, numbers))


def test_own_that_fails_owns_none() -> None:
    numbers = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    os.close(numbers[1])
    unowned = cmsgx.Rights.unpack(struct.pack("=3i", *numbers))
    for _ in range(2):
        with pytest.raises(OSError, match=f"{numbers[1]} is not open"):
            unowned.own()
        assert is_open(numbers[0])
        assert is_open(numbers[2])
    os.dup2(numbers[0], numbers[1])
    for fd in unowned.own():
        fd.close()
    assert not any(map(is_open, numbers))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_rights_of_a_broken_length_are_malformed(length: int) -> None:
    with pytest.raises(cmsgx.MalformedControlError, match=f"Rights: {length} bytes"):
        cmsgx.Rights.unpack(bytes(length))


def test_a_pidfd_is_exempt() -> None:
    unowned = cmsgx.decode(SOL_SOCKET, 4, struct.pack("=i", -24))
    assert type(unowned) is not cmsgx.PidFd
    assert unowned.error == 24
    assert repr(unowned)


# decode() in an existing loop -------------------------------------------------------------------


def test_decode_lets_an_existing_loop_adopt_one_line(stream: Pair) -> None:
    stream[1].setsockopt(SOL_SOCKET, 16, 1)
    with open_files(2) as files:
        cmsgx.send(stream[0], b"x", fds=files)
    _, ancdata, _, _ = socket.socket.recvmsg(stream[1], 10, 1000)
    found = {type(one): one for one in (cmsgx.decode(*item) for item in ancdata)}
    assert found[cmsgx.Credentials] == cmsgx.Credentials()
    first, second = found[cmsgx.Rights].own()
    assert [content(first), content(second)] == ["0", "1"]
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("level", "number"), [(99, 99), (SOL_SOCKET, 0x7F00), (-1, -1), (2**31 - 1, 0)]
)
def test_decode_of_what_is_not_registered(level: int, number: int) -> None:
    for data in (b"", b"data", bytearray(b"data"), memoryview(b"data")):
        unknown = cmsgx.decode(level, number, data)
        assert type(unknown) is cmsgx.Unknown
        assert (unknown.level, unknown.type, unknown.data) == (level, number, bytes(data))


# User kinds over real sockets -------------------------------------------------------------------


@pytest.mark.parametrize("by", ["receive", "Receiver"])
def test_a_kind_of_a_user_is_received(by: str) -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender, receiver:
        rx = cmsgx.Receiver(receiver, 10, fds=1, want=[Stamp, cmsgx.Credentials])
        with open_files(1) as files:
            cmsgx.send(sender, b"x", fds=files)
        with rx.receive() if by == "Receiver" else cmsgx.receive(receiver, 10, fds=1) as msg:
            assert Stamp in msg
            stamp: Any = msg[Stamp]
            assert type(stamp) is Stamp
            assert stamp.seconds > 1_600_000_000
            assert stamp in msg.control
            assert msg.get_all(Stamp) == (stamp,)
            assert cmsgx.Unknown not in msg
            assert content(msg.fds[0]) == "0"


def test_a_kind_of_a_user_is_sent_and_received() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        rx = cmsgx.Receiver(server, 10, want=[TimeToLive])
        sends: tuple[Callable[[], int], ...] = (
            lambda: cmsgx.send(client, b"x", control=TimeToLive(7), address=server.getsockname()),
            lambda: cmsgx.sendmsg(client, [b"x"], [TimeToLive(7)], 0, server.getsockname()),
            lambda: cmsgx.sendmsg(
                client, [b"x"], [(0, IP_TTL, struct.pack("=i", 7))], 0, server.getsockname()
            ),
        )
        for send in sends:
            send()
            assert rx.receive()[TimeToLive] == TimeToLive(7)
        with pytest.raises(OSError, match="Invalid argument"):
            cmsgx.send(client, b"x", control=TimeToLive(300), address=server.getsockname())


def test_a_decoder_that_fails_raises_at_look_up_and_loses_nothing() -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender, receiver:
        before = open_fds()
        unpack = Stamp.__dict__.get("unpack")
        assert unpack is None
        rx = cmsgx.Receiver(receiver, 10, fds=1, want=[Stamp, cmsgx.Credentials])
        with open_files(1) as files:
            cmsgx.send(sender, b"data", fds=files)
        with rx.receive() as msg:
            with pytest.raises(ZeroDivisionError):
                cmsgx.send(sender, b"y", control=failing(Picky))
            assert msg.data == b"data"
            assert msg[cmsgx.Credentials] == cmsgx.Credentials()
            assert content(msg.fds[0]) == "0"
        assert open_fds() == before


def failing(kind: type[Picky]) -> Picky:
    """Registers it late: what came before is decoded by it from then on."""
    kinds.register(kind, level=SOL_SOCKET, type=0x7E03)
    return kind(1)


def test_a_failing_decoder_of_a_received_message() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS

        class Tos(kinds.ControlMessage):
            __slots__ = ("value",)

            @classmethod
            def unpack(cls, data: Any, /) -> Any:
                raise ZeroDivisionError

        kinds.register(Tos, level=socket.IPPROTO_IP, type=1, families=frozenset({socket.AF_INET}))
        rx = cmsgx.Receiver(server, 10, want=[TimeToLive])
        cmsgx.send(client, b"data", address=server.getsockname())
        msg = rx.receive()
        assert Tos in msg
        for look_up in (
            lambda: msg[Tos],
            lambda: msg.get(Tos),
            lambda: msg.get_all(Tos),
            lambda: msg.control,
            lambda: list(msg),
        ):
            with pytest.raises(ZeroDivisionError):
                look_up()
        assert msg[TimeToLive].hops > 0
        assert msg.data == b"data"


def test_unknown_can_be_sent_on() -> None:
    """Nothing is dropped: what is not known can be passed through."""
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        rx = cmsgx.Receiver(server, 10, want=[TimeToLive])
        ttl = cmsgx.Unknown(0, IP_TTL, (9).to_bytes(4, sys.byteorder))
        cmsgx.send(client, b"x", control=[ttl], address=server.getsockname())
        assert rx.receive()[TimeToLive] == TimeToLive(9)
        with pytest.raises(OSError, match="Invalid argument"):
            cmsgx.send(
                client, b"x", control=cmsgx.Unknown(0, 9999, b""), address=server.getsockname()
            )


def test_names_of_kinds_say_where_they_are_documented() -> None:
    for name in kinds.__all__:
        assert getattr(kinds, name).__module__ in ("cmsgx", "cmsgx.kinds")


# IP addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1"])
def test_an_ip_address_is_made_of_what_means_one(text: str) -> None:
    ip = ipaddress.ip_address(text)
    address = kinds.IPAddress(text)
    for same in (ip, ip.packed, bytearray(ip.packed), address):
        made = kinds.IPAddress(same)
        assert type(made) is kinds.IPAddress
        assert (made, hash(made)) == (address, hash(address))
    assert (str(address), address.ip, address.packed) == (text, ip, ip.packed)
    assert (address.version, address.is_unspecified) == (ip.version, ip.is_unspecified)
    assert repr(address) == f"IPAddress('{text}')"
    assert pickle.loads(pickle.dumps(address)) == address
    assert address != kinds.IPAddress(bytes(15) + b"\7")
    assert address != text


# Each length of hexadecimal text that the hash is made of, and a sign bit.
ADDRESSES = [
    "0.0.0.0", "0.0.0.1", "0.1.0.0", "10.0.0.1", "192.0.2.1", "255.255.255.255", "127.0.0.1",
    "::", "::1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1", "ff02::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
]  # fmt: skip


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_ip_address_is_formatted_like_that_of_ipaddress(text: str) -> None:
    ours, theirs = kinds.IPAddress(text), ipaddress.ip_address(text)
    for spec in ("b", "n", "x", "X", "#b", "#x", "#X", "_b", "_x", "#_n"):
        assert format(ours, spec) == format(theirs, spec)
    for spec in ("", "s", ">45s", "^45s", "*<45s", ">45", "*^45", ".4"):
        assert format(ours, spec) == format(str(ours), spec)
    assert f"{ours:>45}" == str(ours).rjust(45)
    for wrong in ("d", "08b", "f"):
        with pytest.raises((TypeError, ValueError)):
            format(ours, wrong)


def test_an_ip_address_is_not_subclassed() -> None:
    with pytest.raises(TypeError, match="Own: IPAddress cannot be subclassed"):
        type("Own", (kinds.IPAddress,), {})


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_ip_address_equals_and_hashes_like_that_of_ipaddress(text: str) -> None:
    ours: Any = kinds.IPAddress(text)
    theirs: Any = ipaddress.ip_address(text)
    assert ours == theirs
    assert theirs == ours
    assert (ours != theirs, theirs != ours) == (False, False)
    assert hash(ours) == hash(theirs)
    assert {theirs: "found"}[ours] == {ours: "found"}[theirs] == "found"
    assert len({ours, theirs}) == 1
    for other in map(ipaddress.ip_address, ADDRESSES):
        assert (ours == other, ours != other) == (theirs == other, theirs != other)
        assert (other == ours, other != ours) == (other == theirs, other != theirs)


def test_an_ip_address_hashes_like_that_of_ipaddress_whatever_its_bits() -> None:
    for size in (4, 16):
        for _ in range(500):
            packed = os.urandom(size)
            theirs = ipaddress.ip_address(packed)
            assert hash(kinds.IPAddress(packed)) == hash(theirs), theirs


def test_an_ip_address_differs_from_one_with_more_to_it() -> None:
    """A scope, or a network: as the address of ipaddress that it stands for differs from them."""
    near: Any = kinds.IPAddress("fe80::1")
    local: Any = kinds.IPAddress("127.0.0.1")
    for ours, theirs in (
        (near, ipaddress.ip_address("fe80::1%1")),
        (near, ipaddress.ip_address("fe80::1%eth0")),
        (near, ipaddress.ip_interface("fe80::1/128")),
        (local, ipaddress.ip_interface("127.0.0.1/32")),
        (local, ipaddress.ip_network("127.0.0.1/32")),
        (local, ipaddress.ip_address("::ffff:127.0.0.1")),
        (local, "127.0.0.1"),
        (local, 0x7F000001),
        (local, None),
    ):
        assert ours != theirs
        assert theirs != ours
        assert len({ours, theirs}) == 2
    with pytest.raises(TypeError, match="not supported between"):
        local < ipaddress.ip_address("127.0.0.2")  # noqa: B015


@pytest.mark.parametrize("make", [kinds.IPAddress, kinds.PacketInfo6])
def test_the_scope_of_an_ip_address_is_not_lost(make: Any) -> None:
    with pytest.raises(ValueError, match="without the scope 'eth0'") as caught:
        make(ipaddress.ip_address("fe80::1%eth0"))
    assert "IPv6Address('fe80::1%eth0')" in str(caught.value)
    assert make(ipaddress.ip_address("fe80::1"))


def test_comparing_an_ip_address_imports_nothing() -> None:
    """The module ipaddress is large, and in a chroot it is not there."""
    code = """
import sys
import cmsgx.kinds
four, six = map(cmsgx.kinds.IPAddress, ("127.0.0.1", "::1"))
assert four != six and four != "127.0.0.1" and not four == None
assert {four: 4, six: 6}.get("127.0.0.1") is None
assert "ipaddress" not in sys.modules
sys.modules["ipaddress"] = None  # as it is where importing it is forbidden
assert four != six and four != "127.0.0.1"
"""
    run_python(code)


@pytest.mark.parametrize("wrong", ["", "localhost", "1.2.3", "::g", b"", b"12345", bytes(17)])
def test_what_is_no_ip_address_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        kinds.IPAddress(wrong)
    assert repr(wrong) in str(caught.value)
    with pytest.raises(TypeError):
        kinds.IPAddress(cast(Any, 1))


def test_a_field_takes_an_address_of_its_version_only() -> None:
    info = kinds.PacketInfo(1, "192.0.2.1")
    assert info == kinds.PacketInfo(1, ipaddress.IPv4Address("192.0.2.1"))
    assert info.local == kinds.IPAddress("192.0.2.1")
    with pytest.raises(ValueError, match=r"PacketInfo\.local: .* is not an IPv4 address"):
        kinds.PacketInfo(1, "::1")
    with pytest.raises(ValueError, match=r"PacketInfo6\.address: .* is not an IPv6 address"):
        kinds.PacketInfo6("192.0.2.1")


def test_interfaces_have_names_on_demand() -> None:
    name = socket.if_nameindex()[0]
    assert kinds.PacketInfo(name[0]).interface_name == name[1]
    assert kinds.PacketInfo(2**31 - 1).interface_name is None


@pytest.mark.parametrize("origin", range(8))
def test_only_an_icmp_error_has_an_offender(origin: int) -> None:
    left = kinds.ExtendedError(90, origin, offender=("2001:db8::7", 0, 0, 0))
    for error in (left, cmsgx.decode(41, 25, left.pack(), socket.AF_INET6)):
        assert (error.offender is not None) == (origin in (2, 3))
        assert ("2001:db8::7" in repr(error)) == (origin in (2, 3))
    assert left != kinds.ExtendedError(90, origin)


def test_open_enumerations_take_what_a_later_kernel_brings() -> None:
    error = kinds.ExtendedError.unpack(struct.pack("=IBBBBII", 1, 200, 0, 0, 0, 0, 0))
    assert error.ee_origin == 200
    assert "200" in repr(error)
    assert error.offender is None
    assert error.error is not None
    assert (kinds.Tos(0xBB).dscp, kinds.Tos(0xBB).ecn) == (0x2E, kinds.Ecn.CE)


def test_members_and_forms_declare_a_kind() -> None:
    class Declared(kinds.StructMessage):
        __slots__ = ()

        number: int = kinds.member("value", default=3, convert=abs)

    other = kinds.WireFormat(SOL_SOCKET, 0x7E11, "integer")
    with unregistered():
        kinds.register(Declared, level=SOL_SOCKET, type=0x7E10, layout="int", other_forms=[other])
        assert Declared().number == 3
        assert Declared(-4).number == 4
        assert Declared(-4).pack() == struct.pack("=i", -4)
        assert cmsgx.decode(SOL_SOCKET, 0x7E10, struct.pack("=i", 5)) == Declared(5)
        assert cmsgx.decode(SOL_SOCKET, 0x7E11, b"\5") == Declared(5)
    assert type(cmsgx.decode(SOL_SOCKET, 0x7E10, bytes(4))) is cmsgx.Unknown


# Cycles -----------------------------------------------------------------------------------------


def in_a_cycle(name: str) -> Any:
    """A kind that refers to itself, out of the table again; the one reference to it."""
    body: dict[str, Any] = {"__slots__": ()}

    def convert(value: Any) -> Any:
        return value

    layout: Any = {"layout": (("x", 0, "i"),), "size": 4}
    base: Any = kinds.StructMessage
    if name == "converter of a field":
        body["x"] = kinds.member(convert=convert)
    elif name == "default of a field":
        body["x"] = kinds.member(default=convert)
    elif "slots" in name:
        base, layout, body = kinds.ControlMessage, {}, {"__slots__": ("x", "y")}
    elif name == "instance with a __dict__":
        body = {}
    with unregistered():
        kind: Any = kinds.register(type("Own", (base,), body), level=-5, type=0x7E61, **layout)
        if name in ("instance", "instance with a __dict__", "instance of two"):
            kind.it = kind(1)
        elif name == "instance that was unpacked":
            kind.it = kind.unpack(bytes(4))
        elif name == "instance that was decoded":
            kind.it = cmsgx.decode(-5, 0x7E61, bytes(4))
            assert type(kind.it) is kind
        elif name == "instances in containers":
            kind.it = {kind(1): [kind(2), (kind(3), {kind(4)})]}
        elif name == "copy of an instance":
            kind.it = [copy.deepcopy(kind(1)), kind._restore(bytes(4), 0)]
        elif name == "instance with slots":
            kind.it = kind(1, 2)
        elif name == "value in slots":
            kind.it = kind([kind], None)
        elif name == "method of an instance":
            kind.it = kind(1).pack
        elif name == "codec":
            kind.it = kind._codec
        elif "field" in name:
            vars(convert)["kind"] = kind
        if name == "instance of two":
            other: Any = kinds.register(fresh(), level=-5, type=0x7E62, layout=())
            other.it, kind.other = kind(2), other()
    return kind


@pytest.mark.parametrize(
    "name",
    [
        "instance", "instance that was unpacked", "instance that was decoded", "instance of two",
        "instances in containers", "copy of an instance", "instance with slots", "value in slots",
        "instance with a __dict__", "method of an instance", "codec", "converter of a field",
        "default of a field",
    ],
)  # fmt: skip
def test_a_kind_in_a_cycle_is_collected(name: str) -> None:
    need_classes_that_go()
    kind = in_a_cycle(name)
    reference = weakref.ref(kind)
    gc.collect()
    assert reference() is kind
    held = vars(kind).get("it")
    del kind
    gc.collect()
    # An instance holds its class.
    assert (reference() is None) == (held is None)
    del held
    gc.collect()
    assert reference() is None


def test_rights_in_a_cycle_are_collected() -> None:
    class Referring:
        it: Any

        def fileno(self) -> int:
            return 0

    one = Referring()
    one.it = cmsgx.Rights([one])
    reference = weakref.ref(one)
    del one
    gc.collect()
    assert reference() is None


def test_the_kinds_of_the_package_cost_the_collector_nothing() -> None:
    """They live as long as it does, and what is bytes only refers to nothing else."""
    for row in kinds._base.rows():
        if row.kind.__module__.startswith("cmsgx.") and hasattr(row.kind, "_restore"):
            record = row.kind._restore(bytes(row.kind._codec.min_size), 0)
            assert not gc.is_tracked(record), row.kind
    assert not gc.is_tracked(kinds.IPAddress("::1"))
    assert gc.is_tracked(in_a_cycle("instance").it)
