"""What no program should do, and must not cause a crash, a leak or the use of a stranger's file."""

from __future__ import annotations

import copy
import copyreg
import ctypes
import gc
import mmap
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from native import skip_where_a_child_cannot_start_threads, under_shim
from support import Pair, content, lengths, open_fds, open_files, run_python, unregistered

import cmsgx
from cmsgx import _cmsg, kinds

# Copies ---------------------------------------------------------------------------------------


@pytest.fixture
def owners(stream: Pair) -> Iterator[dict[str, Any]]:
    """One object of each type whose instances own something, or point into what is owned."""
    left, right = stream
    for _ in range(3):
        cmsgx.send(left, b"data")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        open(os.devnull) as file,
        _cmsg.Descriptor(os.dup(file.fileno())) as descriptor,
        cmsgx.Fd(os.dup(file.fileno())) as fd,
        cmsgx.ZeroCopySender(udp) as sender,
    ):
        udp.bind(("127.0.0.1", 0))
        cmsgx.send(udp, b"x", address=udp.getsockname())
        receiver = cmsgx.Receiver(right, 9)
        message = receiver.receive()
        batches = cmsgx.BatchReceiver(right, 2, 9)
        batch = batches.receive()
        yield {
            "Batch": batch,
            "BatchReceiver": batches,
            "BatchReceiver, private": _cmsg.BatchReceiver(right, 1, 1),
            "Codec": cast(Any, Small)._codec,
            "Descriptor": descriptor,
            "Descriptors": message.fds,
            "Enabled": cmsgx.enable(right),
            "Fd": fd,
            "Field": vars(Small)["x"],
            "Message": message,
            "Message, of a batch": batch[0],
            "Receiver": receiver,
            "Receiver, private": _cmsg.Receiver(right, 1, None),
            "SegmentIterator": iter(message.segments),
            "Segments": message.segments,
            "UnownedPidFd": cmsgx.PidFd.unpack(bytes(4)),
            "View": message.view,
            "ZeroCopySender": sender,
            "method": _cmsg.method(_cmsg.sendmsg),
            "socket": left,
        }


@pytest.mark.parametrize(
    "copied",
    [
        copy.copy,
        copy.deepcopy,
        *(partial(pickle.dumps, protocol=n) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
    ids=["copy", "deepcopy", *map(str, range(pickle.HIGHEST_PROTOCOL + 1))],
)
def test_what_owns_something_is_neither_copied_nor_pickled(
    owners: dict[str, Any], copied: Callable[[Any], Any]
) -> None:
    for name, one in owners.items():
        with pytest.raises(TypeError, match=rf"\b{name.partition(',')[0]}\b"):
            copied(one)


# Nothing is of the type Address itself: its two forms have rules of their own.
TYPES = [one for one in vars(_cmsg).values() if isinstance(one, type) and one is not cmsgx.Address]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_no_type_of_c_is_copied_by_the_rules_of_object(kind: type) -> None:
    """By which protocols 0 and 1 of pickle take what has no Python code."""
    own = {name for base in kind.__mro__[:-1] for name in vars(base)}
    assert "__reduce__" in own


def test_a_pickle_by_hand_makes_no_object_without_memory() -> None:
    """As protocol 0 did by itself."""
    for kind in (
        cmsgx.Message, cmsgx.Address, cmsgx.wire.Batch, cmsgx.wire.View, cmsgx.wire.Segments,
        cmsgx.Receiver, cmsgx.Fd, Small, _cmsg.Codec, _cmsg.Field, _cmsg.method,
    ):  # fmt: skip
        with pytest.raises(TypeError):
            copyreg._reconstructor(kind, object, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("state", [-1, 3, 9, 2**31 - 1])
def test_an_attached_state_that_nobody_makes_is_refused(state: int) -> None:
    data = bytes(12)
    for known in range(3):
        record = cmsgx.Credentials._restore(data, known)
        assert record.attached is (None, False, True)[known]
        assert pickle.loads(pickle.dumps(record)).attached is record.attached
    for kind, payload in ((cmsgx.Credentials, data), (Small, bytes(4))):
        with pytest.raises(ValueError, match=rf"attached_state: {state}; it is 0 to 2"):
            kind._restore(payload, state)


@pytest.mark.parametrize("size", [0, 1, 129, 4096])
def test_an_address_of_a_length_that_none_has_is_refused(size: int) -> None:
    packed = socket.AF_INET.to_bytes(2, sys.byteorder).ljust(size, b"x")[:size]
    with pytest.raises(ValueError, match=rf"packed: {size} bytes; an address has 2 to 128"):
        _cmsg.Address._restore(packed, -1)


@pytest.mark.parametrize("size", [2, 3, 8, 16, 27, 127, 128])
def test_an_address_that_a_pickle_made_up_is_read_within_its_bytes(size: int) -> None:
    for family in range(64):
        packed = family.to_bytes(2, sys.byteorder).ljust(size, b"\x7f")
        for proto in (-1, 0, 1, 3, 6, 2**31 - 1):
            address = _cmsg.Address._restore(packed, proto)
            assert address.packed == packed
            assert address.family == family
            assert address == _cmsg.Address._restore(address.packed, -1)
            assert repr(address) == f"<Address {address.value!r}>"
            assert (address.ip is None) == (family not in (socket.AF_INET, socket.AF_INET6))
            assert pickle.loads(pickle.dumps(address)) == address


# Socket options -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, -(2**31), -(2**70), 2**20 + 1, 2**31, 2**32 + 4, 2**70])
def test_a_size_that_no_option_has_is_refused(stream: Pair, size: int) -> None:
    with pytest.raises(ValueError, match=rf"size: {size}; it is 0 to 1048576"):
        _cmsg.getsockopt(stream[0], socket.SOL_SOCKET, socket.SO_TYPE, size)


@pytest.mark.parametrize("size", [0, 1, 4, 5, 2**20])
def test_an_option_is_as_long_as_the_kernel_says(stream: Pair, size: int) -> None:
    kind = int(socket.SOCK_STREAM).to_bytes(4, sys.byteorder)
    got = _cmsg.getsockopt(stream[0], socket.SOL_SOCKET, socket.SO_TYPE, size)
    assert got == kind[:size]


def test_a_value_that_is_longer_than_a_socklen_t_is_refused(stream: Pair) -> None:
    """Its length would have been cut to 4 bytes."""
    with mmap.mmap(-1, 2**20 + 1) as value, pytest.raises(ValueError, match="value: 1048577 bytes"):
        _cmsg.setsockopt(stream[0], socket.SOL_SOCKET, socket.SO_PASSCRED, value)


LONGER = r"""
import socket
from native import Shim
from cmsgx import _cmsg
shim = Shim()
with socket.socket() as sock:
    for claimed in (5, 100, 4096, 2**31 - 1, -1):
        shim.option_length(claimed)
        got = _cmsg.getsockopt(sock, socket.SOL_SOCKET, socket.SO_TYPE, 4)
        assert got == sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE, 4), (claimed, got)
print("done")
"""


@pytest.mark.slow
def test_an_option_is_never_longer_than_its_room() -> None:
    """Where the kernel, or a filter of BPF, tells the whole length."""
    assert run_python(LONGER, env=under_shim()) == "done\n"


# Records and codecs ---------------------------------------------------------------------------

# (level, type) pairs that no kernel delivers; a kind stays registered for good.
LEVEL = 0x7FFF


class Wide:
    __slots__ = tuple("abcdefghijklmnop")


class Small(kinds.StructMessage):
    __slots__ = ()


class Large(kinds.ControlMessage):
    __slots__ = tuple("abcdefgh")


class Wider(kinds.StructMessage):
    __slots__ = ()


kinds.register(Wider, level=LEVEL, type=3, layout=(("x", 0, "q"), ("y", 8, "q")), size=16)
kinds.register(Small, level=LEVEL, type=1, layout=(("x", 0, "i"),), size=4)
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


def test_a_codec_that_shrinks_reads_nothing_behind_the_payload() -> None:
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

ours = [row.kind for row in kinds._base.rows() if row.level == 1 and row.type in (2, 29, 35)]
for mode in sys.argv[1:]:
    with unregistered(*ours):
        run(mode)
    print(mode, flush=True)
"""


def test_a_codec_that_goes_while_it_is_used() -> None:
    """What is freed is filled with a pattern, so that its use shows."""
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
    """The same object, of another class whose instances are laid out alike."""
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
    """Its payload is not that of the class: it is shorter, mostly."""
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
            with pytest.raises(TypeError, match=rf"{kind.__name__} was made as .*{own.__name__}"):
                use()
        hash(made)
        assert made != 1
    finally:
        changed(made, own)
    assert (repr(made), made.pack()) == (text, wire)


def test_a_record_made_by_an_older_codec_goes_as_that(stream: Pair) -> None:
    """A class that was given a codec of a longer payload since."""
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


def test_a_slot_of_another_class_is_no_field() -> None:
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
def test_a_form_that_is_none_is_refused(form: Any) -> None:
    with pytest.raises(ValueError, match="is not a form"):
        _cmsg.Codec(Small, (form,), 4, 4, ())


def test_a_kind_that_registers_itself_anew_while_it_is_decoded() -> None:
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


# Objects that are not finished ----------------------------------------------------------------


def test_a_receiver_that_was_never_initialised(stream: Pair) -> None:
    bare = cmsgx.Receiver.__new__(cmsgx.Receiver)
    with pytest.raises(AttributeError, match="sock"):
        bare.sock  # noqa: B018
    for use in (bare.receive, lambda: next(bare)):
        with pytest.raises(ValueError, match="not initialised"):
            use()
    with pytest.raises((AttributeError, TypeError)):
        bare.refresh()
    bare._configure(0, 0, (), 1, 1, False, True, False)
    with pytest.raises(ValueError, match="not initialised"):
        bare.receive()

    cmsgx.Receiver.__init__(bare, stream[0], 10)
    with pytest.raises(TypeError, match="once"):
        cmsgx.Receiver.__init__(bare, stream[0], 10)


class Buffer(bytearray):
    """One that can be referred to weakly."""


@pytest.mark.parametrize("kind", [_cmsg.Receiver, cmsgx.Receiver])
def test_a_receiver_that_is_initialised_while_its_buffers_are_read(kind: Any, stream: Pair) -> None:
    inner, outer = Buffer(10), Buffer(10)
    kept = [kind.__new__(kind)]

    def initialise(sock: Any, into: Any) -> None:
        if kind is cmsgx.Receiver:
            kept[0].__init__(sock, into=into)
        else:
            kept[0].__init__(sock, 0, into)

    def buffers() -> Iterator[Buffer]:
        initialise(stream[1], inner)
        yield outer

    with pytest.raises(TypeError, match="initialised once"):
        initialise(stream[0], buffers())
    assert kept[0].sock is stream[1]
    outer.append(0)  # nobody exports it
    with pytest.raises(BufferError):
        inner.append(0)
    kept.clear()
    inner.append(0)


def test_a_batch_receiver_that_is_initialised_while_its_arguments_are_read(stream: Pair) -> None:
    receiver = cmsgx.BatchReceiver.__new__(cmsgx.BatchReceiver)

    class Count:
        def __index__(self) -> int:
            _cmsg.BatchReceiver.__init__(receiver, stream[1], 3, 10)
            return 7

    with pytest.raises(TypeError, match="initialised once"):
        cast(Any, _cmsg.BatchReceiver.__init__)(receiver, stream[0], Count(), 10)
    assert (receiver.sock, receiver.count) == (stream[1], 3)


def initialised_at_once(kind: Any, arguments: list[tuple[Any, ...]]) -> tuple[Any, list[int]]:
    """An object that so many threads initialised, and which of them did."""
    made = kind.__new__(kind)
    ready = threading.Barrier(len(arguments))
    winners: list[int] = []

    def initialise(i: int) -> None:
        ready.wait(60)
        with suppress(TypeError, RuntimeError):  # "once", "in use"
            made.__init__(*arguments[i])
            winners.append(i)

    workers = [threading.Thread(target=initialise, args=(i,)) for i in range(len(arguments))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    return made, winners


def test_a_receiver_that_threads_initialise_at_once(stream: Pair) -> None:
    for _ in range(20):
        buffers = [Buffer(10) for _ in range(4)]
        receiver, winners = initialised_at_once(
            _cmsg.Receiver, [(stream[0], 0, buffer) for buffer in buffers]
        )
        assert len(winners) == 1
        assert receiver.sock is stream[0]
        for i, buffer in enumerate(buffers):
            with pytest.raises(BufferError) if i in winners else nullcontext():
                buffer.append(0)


def test_a_batch_receiver_that_threads_initialise_at_once(stream: Pair) -> None:
    for _ in range(20):
        receiver, winners = initialised_at_once(
            _cmsg.BatchReceiver, [(stream[0], count, 1) for count in (1, 2, 3, 4)]
        )
        assert [count - 1 for count in (receiver.count,)] == winners


def test_a_zero_copy_sender_is_initialised_once() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        cmsgx.ZeroCopySender(udp) as sender,
        pytest.raises(TypeError, match="initialised once"),
    ):
        sender.__init__(udp)  # type: ignore[misc]


@pytest.mark.parametrize("size", [-1, -64, -(2**70), 2**31, 2**62, 2**70])
def test_a_room_that_cannot_be_is_refused(stream: Pair, size: int) -> None:
    receiver = cmsgx.Receiver(stream[0], 10)
    with pytest.raises(ValueError, match=f"^control_size: {size}; it is 0 to 2147483646$"):
        receiver._configure(0, size, (), 1, 1, False, True, False)


@pytest.mark.parametrize("size", [2**31 - 4095, 2**62, 2**70])
def test_more_than_one_call_brings_is_refused(stream: Pair, size: int) -> None:
    calls: list[Callable[[], object]] = [
        lambda: cmsgx.Receiver(stream[0], size),
        lambda: cmsgx.BatchReceiver(stream[0], 1, size),
        lambda: cmsgx.receive(stream[0], size, timeout=0),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=f"^bufsize: {size}; one call brings 2147479552 bytes"):
            call()


class Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("function", ctypes.c_void_p))


class Spec(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("basicsize", ctypes.c_int), ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint), ("slots", ctypes.POINTER(Slot)),
    )  # fmt: skip


@pytest.mark.skipif(
    hasattr(sys, "gettotalrefcount"), reason="a debug build of Python ends for such an exporter"
)
def test_an_exporter_that_fails_without_an_error(stream: Pair) -> None:
    """As others do in a race. C that returns NULL without an exception is a SystemError."""
    get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)(
        lambda *_: -1
    )
    slots = (Slot * 2)(Slot(1, ctypes.cast(get_buffer, ctypes.c_void_p)), Slot(0, None))
    # Py_TPFLAGS_DEFAULT is 0 but for what PyType_Ready() adds.
    spec = Spec(b"test_abuse.Exporter", object.__basicsize__, 0, 0, slots)
    make = ctypes.pythonapi.PyType_FromSpec
    make.restype, make.argtypes = ctypes.py_object, [ctypes.POINTER(Spec)]
    data = make(ctypes.byref(spec))()
    calls: dict[str, Callable[[], object]] = {
        "send": lambda: cmsgx.send(stream[0], data),
        "send, several": lambda: cmsgx.send(stream[0], [data]),
        "send, control": lambda: cmsgx.send(stream[0], b"x", control=[(1, 1, data)]),
        "send, address": lambda: cmsgx.send(stream[0], b"x", address=data),
        "send_batch": lambda: cmsgx.send_batch(stream[0], [data]),
        "sendmsg": lambda: cmsgx.sendmsg(stream[0], [data]),
        "Receiver": lambda: cmsgx.Receiver(stream[0], into=data),
        "unpack": lambda: cmsgx.Credentials.unpack(data),
    }
    for name, call in calls.items():
        with pytest.raises(BufferError, match=r"the bytes of this test_abuse\.Exporter"):
            call()
        assert name


# Code that runs while arguments are read ------------------------------------------------------


class Swap:
    """Closes a socket and lets another take its number, at whatever is asked of it first."""

    def __init__(self, sock: socket.socket, other: socket.socket) -> None:
        self.sock, self.other = sock, other
        self.number = -1

    def now(self) -> None:
        if self.number < 0:
            self.number = self.sock.fileno()
            self.sock.close()
            os.dup2(self.other.fileno(), self.number)

    def __iter__(self) -> Iterator[bytearray]:
        self.now()
        yield bytearray(b"secret")

    def __index__(self) -> int:
        self.now()
        return 0

    def __float__(self) -> float:
        self.now()
        return 0.0

    def fileno(self) -> int:
        self.now()
        return self.other.fileno()


@pytest.mark.parametrize(
    "call",
    [
        lambda s, swap: cmsgx.sendmsg(s, swap),
        lambda s, swap: cmsgx.sendmsg(s, [b"secret"], [], swap),
        lambda s, swap: cmsgx.send(s, swap),
        lambda s, swap: cmsgx.send(s, b"secret", fds=[swap]),
        lambda s, swap: cmsgx.send(s, b"secret", timeout=swap),
        lambda s, swap: cmsgx.send_fds(s, swap, []),
        lambda s, swap: cmsgx.send_fds(s, [b"secret"], [swap]),
        lambda s, swap: cmsgx.recvmsg(s, 10, swap),
        lambda s, swap: cmsgx.recvmsg_into(s, swap),
        lambda s, swap: cmsgx.recv_fds(s, 10, swap),
        lambda s, swap: cmsgx.receive(s, 10, fds=swap),
        lambda s, swap: cmsgx.Receiver(s, 10).receive(timeout=swap),
    ],
)
def test_a_socket_closed_by_its_own_arguments_is_not_another_one(
    stream: Pair, call: Callable[[Any, Any], Any]
) -> None:
    ours, peer = socket.socketpair()
    other, stranger = socket.socketpair()
    swap = Swap(ours, other)
    try:
        stranger.send(b"for somebody else")
        stranger.setblocking(False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(ours, swap)
        with pytest.raises(BlockingIOError):
            stranger.recv(10)
        assert other.recv(100) == b"for somebody else"
    finally:
        if swap.number >= 0:
            os.close(swap.number)
        for sock in (ours, peer, other, stranger):
            sock.close()


class Closes:
    """Closes its number when nobody holds it."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number

    def __del__(self) -> None:
        os.close(self.number)


def test_what_a_generator_made_stays_open_until_it_is_sent(stream: Pair) -> None:
    with open_files(3) as numbers:
        made = (Closes(os.dup(number)) for number in numbers)
        cmsgx.send(stream[0], b"x", fds=made)
        rights = (cmsgx.Rights([Closes(os.dup(number))]) for number in numbers)
        cmsgx.send(stream[0], b"y", control=rights)
        for _ in range(2):
            with cmsgx.receive(stream[1], 1, fds=3) as message:
                assert [content(fd) for fd in message.fds] == ["0", "1", "2"]


class Clears:
    """Empties the list that it is in."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def fileno(self) -> int:
        self.items.clear()
        gc.collect()
        return 0

    def __iter__(self) -> Iterator[int]:
        self.fileno()
        return iter(())

    def __getattr__(self, name: str) -> Any:
        self.fileno()
        raise AttributeError(name)


def test_a_list_that_changes_while_it_is_read(stream: Pair) -> None:
    for call in (
        lambda items: cmsgx.send(stream[0], b"x", fds=items),
        lambda items: cmsgx.send_fds(stream[0], [b"x"], items),
        lambda items: cmsgx.sendmsg(stream[0], [b"x"], items),
        lambda items: cmsgx.send(stream[0], b"x", control=items),
        lambda items: cmsgx.sendmsg(stream[0], items),
        lambda items: cmsgx.recvmsg_into(stream[0], items),
        _cmsg.build,
    ):
        items: list[Any] = []
        items += [Clears(items), *(bytearray(3) for _ in range(20))]
        with pytest.raises((RuntimeError, TypeError, OSError)):
            cast(Any, call)(items)


def test_a_receiver_that_is_used_by_its_own_socket(stream: Pair) -> None:
    class Calls:
        receiver: cmsgx.Receiver | None = None

        def fileno(self) -> int:
            if self.receiver is not None:
                self.receiver.receive()
            return stream[1].fileno()

    sock = Calls()
    sock.receiver = cmsgx.Receiver(sock, 10)
    with pytest.raises(RuntimeError, match="in use"):
        sock.receiver.receive()


# Numbers and names ----------------------------------------------------------------------------


@pytest.mark.parametrize("number", [2**32, -1, True, 1.0, "1", None])
def test_the_background_closer_takes_no_other_number(number: Any) -> None:
    with open_files(1) as [victim]:
        wrong = number + victim if number == 2**32 else number
        with pytest.raises((ValueError, TypeError, OverflowError)):
            cmsgx.close_in_background(wrong)
        _cmsg.closer_wait(1)
        assert content(victim) == "0"
        os.fstat(1)


def test_a_host_with_a_nul_is_no_numeric_host() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for call in (
            lambda to: cmsgx.sendmsg(sock, [b"x"], [], 0, to),
            lambda to: cmsgx.send(sock, b"x", address=to),
        ):
            with pytest.raises((TypeError, ValueError), match=r"null|NUL"):
                cast(Any, call)(("127.0.0.1\0.example", 9))


def test_a_level_that_is_no_int_is_refused(stream: Pair) -> None:
    class Odd(kinds.ControlMessage):
        __slots__ = ()

        def pack(self) -> bytes:
            return b""

    cast(Any, Odd)._codec = _cmsg.Codec(Odd, (), -1, -1, ())
    Odd.level = 2**32 + 1
    Odd.type = 1
    with pytest.raises(OverflowError):
        cmsgx.send(stream[0], b"x", control=Odd())


# Destructors ----------------------------------------------------------------------------------


def test_a_subclass_with_a_destructor_still_closes() -> None:
    calls = []

    class Noted(cmsgx.Fd):
        def __del__(self) -> None:
            calls.append(self.closed)

    before = open_fds()
    fd: Noted | None = Noted(os.open("/dev/null", os.O_RDONLY))
    assert not calls
    del fd
    gc.collect()
    assert open_fds() == before
    assert calls[0] is False


HANDLER = """
import gc, os, sys, warnings
import cmsgx
from support import open_fds

kept, unraisable = [], []
sys.unraisablehook = lambda args: unraisable.append(args.exc_type.__name__)
warnings.simplefilter("always")

def fd():
    return cmsgx.Fd(os.open("/dev/null", os.O_RDONLY))

def dropped(handler):
    warnings._showwarnmsg = handler
    before = open_fds()
    one = fd()
    del one
    gc.collect()
    return open_fds().keys() - before.keys()
"""


def test_a_warning_handler_that_raises() -> None:
    run_python(
        HANDLER
        + """
for kind in (KeyboardInterrupt, RuntimeError, ResourceWarning):
    def handler(message):
        raise kind("of the handler")
    assert not dropped(handler)
    assert len(list(map(str, range(3)))) == 3
assert unraisable == ["KeyboardInterrupt", "RuntimeError", "ResourceWarning"], unraisable
try:
    one = fd()
    raise LookupError("first")
except LookupError as error:
    del one
    assert str(error) == "first"
"""
    )


def test_a_warning_handler_that_keeps_closes_or_detaches() -> None:
    run_python(
        HANDLER
        + """
assert not dropped(lambda message: kept.append(message.source))
assert kept[0].closed
kept.clear()
assert not dropped(lambda message: message.source.close())
[number] = dropped(lambda message: kept.append(message.source.detach()))
assert kept == [number]
os.close(number)
assert not unraisable
"""
    )


def test_a_message_dropped_while_its_receiver_works() -> None:
    run_python(
        HANDLER
        + """
import socket
first, second = cmsgx.socketpair()
receiver = cmsgx.Receiver(second, 1, fds=2)
caught = []
def handler(message):
    try:
        receiver.receive()
    except BaseException as error:
        caught.append(type(error).__name__)
warnings._showwarnmsg = handler
before = open_fds()
for _ in range(3):
    cmsgx.send(first, b"x", fds=[0, 1])
second.settimeout(0)
next(receiver).take(0)      # nobody holds it: collected with the message, inside of the next step
next(receiver).take(1)
receiver.receive()
gc.collect()
del receiver
gc.collect()
assert open_fds().keys() == before.keys()
assert caught[0] == "RuntimeError", caught
"""
    )


def test_a_fork_hook_that_hands_over_descriptors() -> None:
    skip_where_a_child_cannot_start_threads()
    run_python(
        """
import gc, os
def hook():     # registered before those of cmsgx, so it runs behind their lock
    gc.collect()
    cmsgx.close_in_background(os.open("/dev/null", os.O_RDONLY))
os.register_at_fork(before=hook, after_in_parent=hook)
import cmsgx
from support import open_fds
import warnings
warnings.simplefilter("ignore")
first, second = cmsgx.socketpair()
receiver = cmsgx.Receiver(second, 1, fds=1, close="background")
before = open_fds()
cmsgx.send(first, b"x", fds=[0])
cycle = [receiver.receive()]
cycle.append(cycle)
del cycle
child = os.fork()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert cmsgx._cmsg.closer_wait(60) == 0
assert open_fds().keys() == before.keys()
""",
        timeout=60,
    )


# Signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["drop-in", "typed", "receiver"])
def test_a_signal_handler_that_closes_the_socket(stream: Pair, kind: str) -> None:
    sock = stream[1]
    sock.settimeout(60)
    receiver = cmsgx.Receiver(sock, 1)
    calls: dict[str, Callable[[], Any]] = {
        "drop-in": lambda: cmsgx.recvmsg(sock, 1),
        "typed": lambda: cmsgx.receive(sock, 1),
        "receiver": receiver.receive,
    }
    before = signal.signal(signal.SIGALRM, lambda number, frame: sock.close())
    try:
        # Again, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.05, 5)
        with pytest.raises(OSError, match="Bad file descriptor"):
            calls[kind]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Everything, at random ------------------------------------------------------------------------

FUZZ = '''
"""Calls at random with arguments at random, some of which do mischief while they are read."""
import faulthandler, gc, os, random, socket, sys, warnings
import cmsgx
from cmsgx import _cmsg, kinds, wire
from support import open_fds

faulthandler.dump_traceback_later(60, exit=True)
warnings.simplefilter("ignore")
sys.unraisablehook = lambda *args: None
socket.setdefaulttimeout(0)
R = random.Random(int(sys.argv[1]))
TYPES = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
depth = 0
pool = []


def mischief():
    global depth
    if depth > 2:
        return
    depth += 1
    try:
        what = R.randrange(8)
        if what == 0:
            gc.collect(0)
        elif what == 1 and pool:
            pool.pop(R.randrange(len(pool)))
        elif what == 2:
            raise R.choice([ValueError, KeyboardInterrupt, MemoryError, OSError])("mischief")
        elif what == 3:
            one = pick()
            if isinstance(one, (socket.socket, cmsgx.Fd, cmsgx.Message)):
                one.close()
        elif what == 4:
            step()
        elif what == 5:
            shared[:] = [] if shared else [pick(), pick()]
    finally:
        depth -= 1


class Evil:
    def __index__(self): mischief(); return R.choice([0, 1, 5, -1, 2**40])
    def __float__(self): mischief(); return R.choice([0.0, -1.0, float("nan")])
    def __bool__(self): mischief(); return R.choice([True, False])
    def __eq__(self, other): mischief(); return R.choice([True, False])
    def __hash__(self): mischief(); return 1
    def __repr__(self): mischief(); return "evil"
    def __iter__(self): mischief(); return iter([pick()])
    def fileno(self): mischief(); return R.choice([0, -1, 9999, "x"])


class Noisy(cmsgx.Fd):
    def __repr__(self): mischief(); return "noisy"
    def __del__(self): mischief()


class Whole(kinds.ControlMessage):
    __slots__ = ("x",)
    @classmethod
    def unpack(cls, data): mischief(); return cls(bytes(data))
    def pack(self): mischief(); return R.choice([b"abcd", b"", None])


for numbers in (1, 29), (1, 35):
    kinds._base._received.pop(numbers, None)
kinds.register(Whole, level=1, type=29)
shared = []
KINDS = [cmsgx.Credentials, cmsgx.PidFd, cmsgx.Rights, cmsgx.SecurityLabel, cmsgx.Unknown, Whole]
PLAIN = [0, 1, -1, 2**31, 2**70, True, None, ..., "raise", "keep", b"data", b"", 1.5, int,
         slice(0, 2), shared, socket.MSG_PEEK, socket.MSG_TRUNC, ("127.0.0.1", 9), "\\0name"]
FUNCTIONS = [cmsgx.sendmsg, cmsgx.send_fds, cmsgx.send, cmsgx.receive, cmsgx.send_all, wire.build,
             wire.parse, cmsgx.CMSG_LEN, cmsgx.decode, cmsgx.enable, cmsgx.peer_pidfd,
             _cmsg.read_header]
SKIP = {"detach", "detach_all", "open", "wait", "send_signal", "_give_to_file", "_give_to_socket",
        "_detach_to_socket", "makefile", "sendfile", "accept", "_accept", "__class__",
        "__reduce__", "__reduce_ex__", "__init__", "__setattr__", "dup", "setblocking",
        "settimeout", "__delattr__", "sendmsg_afalg"}


def pair():
    sockets = R.choice([cmsgx.socketpair, socket.socketpair])(socket.AF_UNIX, R.choice(TYPES))
    keep(sockets[0])
    for option in (16, 29, 76):
        sockets[1].setsockopt(1, option, R.randrange(2))
    return sockets[1]


def make():
    sock = lambda: next((one for one in R.sample(pool, len(pool))
                         if isinstance(one, socket.socket)), None) or pair()
    return R.choice([
        pair, Evil, Evil,
        lambda: R.choice([cmsgx.Fd, Noisy])(os.open("/dev/null", os.O_RDONLY)),
        lambda: cmsgx.Rights([pick() for _ in range(R.randrange(4))]),
        cmsgx.Credentials,
        lambda: Whole(pick()),
        lambda: cmsgx.Unknown(R.randrange(300), R.randrange(50), os.urandom(R.randrange(9))),
        lambda: cmsgx.Receiver(sock(), R.randrange(99), fds=R.randrange(8),
                               want=R.sample(KINDS[:3], R.randrange(3)),
                               on_truncation=R.choice(["raise", "keep"]),
                               close=R.choice(["now", "background"])),
        lambda: cmsgx.Receiver(sock(), into=[bytearray(3), bytearray(7)], fds=R.randrange(8)),
        lambda: cmsgx.Receiver.__new__(cmsgx.Receiver),
        lambda: bytearray(R.randrange(99)),
        lambda: [pick() for _ in range(R.randrange(4))],
        lambda: (pick() for _ in range(R.randrange(4))),
        lambda: (R.randrange(3), R.randrange(3), os.urandom(R.randrange(9))),
    ])()


def keep(one):
    if len(pool) > 50:
        pool.pop(R.randrange(len(pool)))
    pool.append(one)


def pick():
    if pool and R.randrange(2):
        return R.choice(pool)
    if R.randrange(3) == 0:
        return R.choice(PLAIN + KINDS)
    one = make()
    keep(one)
    return one


def likely():
    """What often works, so that there are messages to look at."""
    one = pick()
    if isinstance(one, socket.socket):
        if R.randrange(2):
            fds = [R.choice([0, 0, 0, pick()]) for _ in range(R.randrange(5))]
            cmsgx.send(one, os.urandom(R.randrange(30)), fds=fds)
        else:
            keep(cmsgx.receive(one, 20, fds=R.randrange(6), on_truncation="keep"))
    elif isinstance(one, cmsgx.Receiver):
        keep(R.choice([one.receive, lambda: next(one)])())


def step():
    what = R.randrange(10)
    if what < 4:
        likely()
    elif what < 7:
        arguments = [pick() for _ in range(R.randrange(6))]
        if arguments and not isinstance(arguments[0], int):
            function = R.choice(FUNCTIONS)
            names = [R.choice(["flags", "fds", "control", "address", "on_truncation"])]
            keywords = {name: pick() for name in names if R.randrange(3) == 0}
            if function in (cmsgx.send, cmsgx.receive, cmsgx.send_all):
                keywords["timeout"] = 0
            keep(function(*arguments, **keywords))
    else:
        one = pick()
        if type(one).__module__.partition(".")[0] in ("cmsgx", "__main__"):
            name = R.choice([name for name in dir(type(one)) if name not in SKIP])
            found = getattr(one, name)
            if callable(found):
                if name == "receive":
                    found = found(timeout=0)
                elif name == "recv_fds":
                    numbers = found(10, R.randrange(3))[1]
                    found = [cmsgx.Fd(number) for number in numbers]
                elif isinstance(one, socket.socket) and name.startswith("recvmsg"):
                    return
                else:
                    found = found(*[pick() for _ in range(R.choice([0, 0, 1, 1, 2]))])
            keep(found)


os.chdir(sys.argv[3])  # where bind("keep") makes a socket
before = open_fds()
outcomes = {}
for _ in range(int(sys.argv[2])):
    try:
        step()
    except (RecursionError, StopIteration):
        pass
    except SystemError:
        raise
    except BaseException as error:
        outcomes[type(error).__name__] = outcomes.get(type(error).__name__, 0) + 1
depth = 99  # no more mischief
pool.clear()
shared.clear()
gc.collect()
gc.collect()
_cmsg.closer_wait(60)
after = open_fds()
assert after.keys() == before.keys(), sorted(after.items())
print(len(outcomes))
'''


@pytest.mark.parametrize("calls", lengths("CMSGX_FUZZ_CALLS", 8000, 80_000))
@pytest.mark.slow
def test_random_calls_neither_crash_nor_leak(calls: int, tmp_path: Path) -> None:
    timeout = 60 + calls / 100
    assert int(run_python(FUZZ, "1", str(calls), str(tmp_path), timeout=timeout)) > 5
