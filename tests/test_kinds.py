"""Kinds of control messages: properties that all of them have, and decode()."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import socket
import struct
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from support import Pair, content, is_open, need_classes_that_go, open_files, unregistered
from user_kinds import SOL_SOCKET, ZERO, Every, Stamp, TimeToLive, fresh, register_all

import cmsgx
from cmsgx import kinds

# User-defined kinds, registered for the tests of this file --------------------------------------


@pytest.fixture(autouse=True)
def user_kinds() -> Iterator[None]:
    """Registers them in place of the kinds that have their numbers; unregisters them at the end."""
    with unregistered(kinds.Timestamp, kinds.Ttl, kinds.Tos):
        register_all()
        yield


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
        with pytest.raises(TypeError, match="owned only once"):
            duplicate(unowned)
    if duplicate in (copy.copy, copy.deepcopy):
        assert duplicate(rights) is rights
    else:
        with pytest.raises(TypeError, match="owned only once"):
            duplicate(rights)
    # Rights made for sending hold numbers, and keep them.
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
    with pytest.raises(ValueError, match="already"):
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


# Cycles -----------------------------------------------------------------------------------------


def in_a_cycle(name: str) -> Any:
    """A kind that refers to itself, removed from the table; returns the only reference to it."""
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
    """They live as long as it does, and an object that is only bytes refers to nothing else."""
    for row in kinds._table.rows():
        if row.kind.__module__.startswith("cmsgx.") and hasattr(row.kind, "_restore"):
            record = row.kind._restore(bytes(row.kind._codec.min_size), 0)
            assert not gc.is_tracked(record), row.kind
    assert not gc.is_tracked(kinds.IPAddress("::1"))
    assert gc.is_tracked(in_a_cycle("instance").it)
