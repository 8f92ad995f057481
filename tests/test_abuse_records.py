"""Misuse of records and codecs that no program should attempt."""

from __future__ import annotations

import gc
import pickle
import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
from abuse import LEVEL, Small
from support import Pair, run_python, unregistered

import cmsgx
from cmsgx import _cmsg, kinds


class Wide:
    __slots__ = tuple("abcdefghijklmnop")


class Large(kinds.ControlMessage):
    __slots__ = tuple("abcdefgh")


class Wider(kinds.StructMessage):
    __slots__ = ()


kinds.register(Wider, level=LEVEL, type=3, layout=(("x", 0, "q"), ("y", 8, "q")), size=16)

kinds.register(Large, level=LEVEL, type=2)


@pytest.mark.parametrize(
    "use",
    [hash, pickle.dumps, lambda c: c.pack(), lambda c: c == cmsgx.Unknown(1, 2, b"3")],
    ids=["hash", "pickle", "pack", "compare"],
)
def test_a_field_that_was_deleted_is_an_error(use: Callable[[Any], Any]) -> None:
    record = cmsgx.Unknown(1, 2, b"3")
    vars(cmsgx.Unknown)["data"].__delete__(record)
    with pytest.raises(AttributeError, match="data"):
        use(record)


def test_a_record_without_a_field_is_not_sent(stream: Pair) -> None:
    record = cmsgx.Unknown(1, 2, b"3")
    vars(cmsgx.Unknown)["data"].__delete__(record)
    with pytest.raises(AttributeError, match="data"):
        cmsgx.send(stream[0], b"data", control=record)


@pytest.mark.parametrize("kind", [Small, Large])
def test_the_codec_of_another_class_reads_nothing(kind: Any) -> None:
    record = Small(1) if kind is Small else Large(*range(8))
    text = repr(record)
    own, other = kind._codec, cast(Any, Large if kind is Small else Small)._codec
    try:
        kind._codec = other
        with pytest.raises(TypeError, match="not a registered kind"):
            repr(record)
        with pytest.raises(TypeError, match="not a registered kind"):
            kind(1)
        hash(Small(1)) if kind is Large else Small._restore
    finally:
        kind._codec = own
    assert repr(record) == text


def test_a_codec_that_shrinks_reads_nothing_after_the_payload() -> None:
    """An instance that is shorter than its class's fields."""
    own = cast(Any, Small)._codec
    try:
        cast(Any, Small)._codec = _cmsg.Codec(Small, (), 0, 0, ())
        assert cast(Any, Small)().x is None
    finally:
        cast(Any, Small)._codec = own
    field: Any = vars(Small)["x"]
    for stranger in (1, b"data", object(), Large(*range(8))):
        with pytest.raises(TypeError, match="field"):
            field.__get__(stranger)
    assert field.__get__(cmsgx.Credentials(7, 8, 9)) == 7
    assert field.__get__(None, Small) is field


GONE = r"""
import gc, socket, sys
import cmsgx
from cmsgx import _cmsg, kinds
from cmsgx.kinds import ControlMessage, StructMessage, member
from support import unregistered

left = []

def drop(*_):
    "Takes the codec off the class, as anybody can: it was the one reference."
    if "_codec" in vars(K):
        type.__delattr__(K, "_codec")
    gc.collect()
    left.append([bytes(size) for size in range(48, 320, 8)])
    return 7

class Value:
    packed = property(lambda self: drop() and b"abcd")

class Buffer:
    def __buffer__(self, flags):
        drop()
        return memoryview(b"abcdefgh")

class Shown:
    def __repr__(self):
        drop()
        return "shown"

class Meta(type(ControlMessage)):
    def __eq__(self, other):
        drop()
        self.__name__ = "Renamed" * 9
        return self is other
    __hash__ = type.__hash__

class Pair(ControlMessage):
    __slots__ = ("a", "b")

class Plain(StructMessage):
    __slots__ = ()
    a: int = member(convert=drop)
    b: int = member()

class Own(ControlMessage):
    __slots__ = ("a",)
    @classmethod
    def unpack(cls, data):
        drop()
        return object()

def struct(*layout, size=None):
    return kinds.register(type("Fresh", (StructMessage,), {"__slots__": ()}), level=900, type=1,
                          layout=layout, size=size)

def received():
    "Credentials and a time stamp."
    one, other = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        for option in (socket.SO_PASSCRED, 29):
            other.setsockopt(socket.SOL_SOCKET, option, 1)
        one.send(b"x")
        return cmsgx.receive(other, 1)

def run(mode):
    global K
    if mode == "address":
        K = struct(("a", 0, "a"), ("b", 4, "i"), size=8)
        one = K(a=Value(), b=2)
        K._codec = left[0]
    elif mode == "buffer":
        K = struct(("b", 0, "i"), ("a", 4, "t"))
        assert K(b=2, a=Buffer()).pack() == bytes([2, 0, 0, 0]) + b"abcdefgh"
    elif mode == "unpack":
        K = struct(("b", 0, "i"), ("a", 4, "t"))
        assert K.unpack(Buffer()).pack() == b"abcdefgh"
    elif mode == "fields":
        K = kinds.register(Plain, level=900, type=1, layout=(("a", 0, "i"), ("b", 4, "i")), size=8)
        one = K(1, 2)
        own = K._codec
        K._codec = _cmsg.Codec(K, (), 8, 8, (vars(K)["a"], vars(K)["b"]))
        del own
        assert repr(one) == "Plain(a=7, b=2)"
    elif mode == "slots":
        K = kinds.register(Pair, level=900, type=1)
        assert repr(K(Shown(), 2)) == "Pair(a=shown, b=2)"
    elif mode == "name":
        K = kinds.register(Pair, level=900, type=1)
        class Renames:
            def __repr__(self):
                K.__name__ = "Other" * 50
                return "renames"
        assert repr(K(Renames(), 2)).endswith("(a=renames, b=2)")
    elif mode == "missing":
        K = kinds.register(Meta("K", (Own,), {"__slots__": ()}), level=900, type=1)
        one, other = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with one, other:
            receiver = cmsgx.Receiver(other, 1, want=[cmsgx.PidFd])
            one.send(b"x")
            try:
                receiver.receive()[K]
            except KeyError as error:
                assert "no " + "Renamed" * 9 + " came" in str(error), error
    else:
        others = [kinds.WireFormat(1, 29), kinds.WireFormat(1, 35)]
        K = kinds.register(Own, level=1, type=2, other_forms=others)
        message = received()
        if mode == "get_all":
            assert len(message.get_all(K)) == 2
        elif mode == "first":
            assert type(message[K]) is object
        elif mode == "control":
            kinds_of = [type(one) for one in message.control]
            assert kinds_of == [object, cmsgx.Unknown], kinds_of
        elif mode == "iterate":
            assert len(list(message)) == 2

ours = [row.kind for row in kinds._table.rows() if row.level == 1 and row.type in (2, 29, 35)]
for mode in sys.argv[1:]:
    with unregistered(*ours):
        run(mode)
    print(mode, flush=True)
"""


def test_a_codec_that_is_freed_while_it_is_used() -> None:
    """Freed memory is filled with a pattern, so that its use is detected."""
    modes = [
        "address",
        "fields",
        "slots",
        "name",
        "missing",
        "get_all",
        "first",
        "control",
        "iterate",
    ]
    if sys.version_info >= (3, 12):
        modes += ["buffer", "unpack"]
    assert run_python(GONE, *modes, env={"PYTHONMALLOC": "debug"}).split() == modes


def changed(record: Any, kind: Any) -> Any:
    """The same object, but of another class whose instances have the same layout."""
    vars(object)["__class__"].__set__(record, kind)
    assert type(record) is kind
    return record


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        (kinds.Ttl(1), kinds.Timestamping),
        (kinds.Ttl(1), kinds.PacketInfo6),
        (kinds.SecurityLabel.unpack(b""), kinds.Timestamp),
        (Small(1), Wider),
    ],
    ids=lambda one: getattr(one, "__name__", type(one).__name__),
)
def test_a_record_whose_class_was_changed_is_refused(made: Any, kind: Any, stream: Pair) -> None:
    """Its payload is not the one of the class: usually it is shorter."""
    own = type(made)
    text, wire = repr(made), made.pack()
    field = vars(kind)[kind._codec.fields[0]]
    try:
        changed(made, kind)
        uses: list[Callable[[], Any]] = [
            lambda: made.pack(),
            lambda: cmsgx.wire.build(made),
            lambda: cmsgx.wire.build([made]),
            lambda: cmsgx.send(stream[0], b"x", control=made),
            lambda: cmsgx.send(stream[0], b"x", control=[made]),
            lambda: cmsgx.sendmsg(stream[0], [b"x"], [made]),
            lambda: cmsgx.send_batch(stream[0], [(b"x", (), made)]),
            lambda: field.__get__(made),
            lambda: repr(made),
            lambda: pickle.dumps(made),
            lambda: made.__reduce__(),
        ]
        for use in uses:
            with pytest.raises(
                TypeError, match=rf"{kind.__name__} was created as .*{own.__name__}"
            ):
                use()
        hash(made)
        assert made != 1
    finally:
        changed(made, own)
    assert (repr(made), made.pack()) == (text, wire)


def test_a_record_made_by_an_older_codec_is_sent_by_it(stream: Pair) -> None:
    """A class that was later given the codec of a longer payload."""
    own = cast(Any, Small)._codec
    record = Small(7)
    try:
        cast(Any, Small)._codec = _cmsg.Codec(Small, ((0, LEVEL, 9, 3, 0, 3),), 8, 8, ())
        assert cmsgx.wire.build(record)[-8:-4] == record.pack()
    finally:
        cast(Any, Small)._codec = own


def test_what_changes_its_length_while_it_is_read_makes_no_record() -> None:
    class Fickle(kinds.StructMessage):
        __slots__ = ()

    rest = bytearray(b"rest")

    class Address:
        @property
        def packed(self) -> bytes:
            rest.extend(b"more")
            return b"abcd"

    with unregistered():
        kinds.register(Fickle, level=LEVEL, type=5, layout=(("rest", 4, "t"), ("ip", 0, "a")))
        with pytest.raises(ValueError, match="rest: its length changed while it was read"):
            cast(Any, Fickle)(rest, Address())


def test_a_kind_has_no_more_fields_than_can_be_given() -> None:
    names = tuple(f"f{i}" for i in range(33))
    with unregistered(), pytest.raises(ValueError, match="fields: 33; 32 at most"):
        kinds.register(
            type("Many", (kinds.ControlMessage,), {"__slots__": names}), level=LEVEL, type=6
        )


def test_a_class_without_its_codec_makes_nothing() -> None:
    class Bare(kinds.ControlMessage):
        __slots__ = ("x",)

    for make in (kinds.ControlMessage, _cmsg.Record, Bare):
        with pytest.raises(TypeError, match="not a registered kind"):
            make()
    with pytest.raises(TypeError):
        Bare.unpack(b"")


def test_a_slot_of_another_class_is_not_a_field() -> None:
    class Borrowed(kinds.ControlMessage):
        __slots__ = ()
        p = vars(Wide)["p"]

    with pytest.raises(TypeError, match="__slots__"):
        _cmsg.Codec(Borrowed, (), -1, -1, (_cmsg.Field("p", 0, "O"),))


@pytest.mark.parametrize(
    ("size", "field"),
    [(4, ("x", 0, "O")), (4, ("x", 1, "i")), (4, ("x", -1, "b")), (4, ("x", 0, "z"))],
)
def test_a_layout_that_does_not_fit_is_refused(size: int, field: tuple[str, int, str]) -> None:
    with pytest.raises(ValueError, match="layout"):
        _cmsg.Codec(Small, (), size, size, (_cmsg.Field(*field),))


@pytest.mark.parametrize(
    "form", [(0, 1, 2, 3, 0, 99), (0, 1, 2, 3, 0, -1), (0, 1, 2, 3, -4, 0), (0, 1, 2, 3, 3, 2)]
)
def test_a_wrong_form_is_refused(form: Any) -> None:
    with pytest.raises(ValueError, match="is not a wire format"):
        _cmsg.Codec(Small, (form,), 4, 4, ())


def test_a_kind_that_registers_itself_again_while_it_is_decoded() -> None:
    class Fickle(kinds.ControlMessage):
        __slots__ = ("data",)

        @classmethod
        def unpack(cls, data: Any, /) -> Fickle:
            cast(Any, cls)._codec = own_codec(cls)
            gc.collect()
            return cls(bytes(data))

    def own_codec(cls: Any) -> Any:
        form = (0, 1, 29, 3, 0, 0)
        return _cmsg.Codec(cls, (form,), -1, -1, (_cmsg.Field("data", 0, "O"),))

    cast(Any, Fickle)._codec = own_codec(Fickle)
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with first, second:
        second.setsockopt(socket.SOL_SOCKET, 29, 1)  # SO_TIMESTAMP
        first.send(b"x")
        message = cmsgx.receive(second, 1)
        for _ in range(100):
            assert len(message.get_all(Fickle)) == 1
