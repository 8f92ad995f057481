"""Misuse that no program should attempt, and that must not cause a crash, a leak or the use of a
stranger's file."""

from __future__ import annotations

import copy
import copyreg
import ctypes
import mmap
import os
import pickle
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, cast

import pytest
from abuse import Small
from native import under_shim
from support import Pair, content, open_files, run_python

import cmsgx
from cmsgx import _cmsg, kinds

# Copies ---------------------------------------------------------------------------------------


@pytest.fixture
def owners(stream: Pair) -> Iterator[dict[str, Any]]:
    """One object of each type whose instances own something, or point into something that is
    owned."""
    left, right = stream
    for _ in range(3):
        cmsgx.send(left, b"data")
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        open(os.devnull) as file,
        _cmsg.FdBase(os.dup(file.fileno())) as descriptor,
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
            "FdBase": descriptor,
            "MessageFds": message.fds,
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


# No object has the type Address itself: its two forms have their own rules.
TYPES = [one for one in vars(_cmsg).values() if isinstance(one, type) and one is not cmsgx.Address]


@pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.__name__)
def test_no_type_of_c_is_copied_by_the_rules_of_object(kind: type) -> None:
    """Protocols 0 and 1 of pickle use it for objects without Python code."""
    own = {name for base in kind.__mro__[:-1] for name in vars(base)}
    assert "__reduce__" in own


def test_a_pickle_by_hand_makes_no_object_without_memory() -> None:
    """As protocol 0 did without it."""
    for kind in (
        cmsgx.Message, cmsgx.Address, cmsgx.Batch, cmsgx.View, cmsgx.Segments,
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
        with pytest.raises(ValueError, match=rf"attached_state: {state}; must be 0 to 2"):
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
    with pytest.raises(ValueError, match=rf"size: {size}; must be 0 to 1048576"):
        _cmsg.getsockopt(stream[0], socket.SOL_SOCKET, socket.SO_TYPE, size)


@pytest.mark.parametrize("size", [0, 1, 4, 5, 2**20])
def test_an_option_is_as_long_as_the_kernel_says(stream: Pair, size: int) -> None:
    kind = int(socket.SOCK_STREAM).to_bytes(4, sys.byteorder)
    got = _cmsg.getsockopt(stream[0], socket.SOL_SOCKET, socket.SO_TYPE, size)
    assert got == kind[:size]


def test_a_value_that_is_longer_than_a_socklen_t_is_refused(stream: Pair) -> None:
    """Its length would have been truncated to 4 bytes."""
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
def test_an_option_is_never_longer_than_its_buffer() -> None:
    """If the kernel, or a BPF filter, returns the whole length."""
    assert run_python(LONGER, env=under_shim()) == "done\n"


# Objects that are not finished ----------------------------------------------------------------


def test_a_receiver_that_was_never_initialised(stream: Pair) -> None:
    bare = cmsgx.Receiver.__new__(cmsgx.Receiver)
    with pytest.raises(AttributeError, match="sock"):
        bare.sock  # noqa: B018
    uses: list[Callable[[], object]] = [bare.receive, lambda: next(bare)]
    for use in uses:
        with pytest.raises(ValueError, match="not initialised"):
            use()
    with pytest.raises((AttributeError, TypeError)):
        bare.refresh()
    bare._configure(_cmsg.ReceiveConfig(fds=0, control_size=0, want=(), family=1, type=1))
    with pytest.raises(ValueError, match="not initialised"):
        bare.receive()

    cmsgx.Receiver.__init__(bare, stream[0], 10)
    with pytest.raises(TypeError, match="once"):
        cmsgx.Receiver.__init__(bare, stream[0], 10)


class Buffer(bytearray):
    """A bytearray that can be weakly referenced."""


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

    with pytest.raises(TypeError, match="initialised only once"):
        initialise(stream[0], buffers())
    assert kept[0].sock is stream[1]
    outer.append(0)  # it is not exported
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

    with pytest.raises(TypeError, match="initialised only once"):
        cast(Any, _cmsg.BatchReceiver.__init__)(receiver, stream[0], Count(), 10)
    assert (receiver.sock, receiver.count) == (stream[1], 3)


def initialised_at_once(kind: Any, arguments: list[tuple[Any, ...]]) -> tuple[Any, list[int]]:
    """An object that this many threads initialised, and the results of those that did."""
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
        pytest.raises(TypeError, match="initialised only once"),
    ):
        sender.__init__(udp)  # type: ignore[misc]


@pytest.mark.parametrize("size", [-1, -64, -(2**70), 2**31, 2**62, 2**70])
def test_an_impossible_control_buffer_size_is_refused(stream: Pair, size: int) -> None:
    receiver = cmsgx.Receiver(stream[0], 10)
    with pytest.raises(ValueError, match=f"^control_size: {size}; must be 0 to 2147483646$"):
        receiver._configure(
            _cmsg.ReceiveConfig(fds=0, control_size=size, want=(), family=1, type=1)
        )


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
    """As other threads do in a race. C code that returns NULL without an exception causes a
    SystemError."""
    get_buffer = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)(
        lambda *_: -1
    )
    slots = (Slot * 2)(Slot(1, ctypes.cast(get_buffer, ctypes.c_void_p)), Slot(0, None))
    # Py_TPFLAGS_DEFAULT is 0 except for what PyType_Ready() adds.
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


def test_a_host_with_a_nul_is_not_a_numeric_host() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for call in (
            lambda to: cmsgx.sendmsg(sock, [b"x"], [], 0, to),
            lambda to: cmsgx.send(sock, b"x", address=to),
        ):
            with pytest.raises((TypeError, ValueError), match=r"null|NUL"):
                cast(Any, call)(("127.0.0.1\0.example", 9))


def test_a_level_that_is_not_an_int_is_refused(stream: Pair) -> None:
    class Odd(kinds.ControlMessage):
        __slots__ = ()

        def pack(self) -> bytes:
            return b""

    cast(Any, Odd)._codec = _cmsg.Codec(Odd, (), -1, -1, ())
    Odd.level = 2**32 + 1
    Odd.type = 1
    with pytest.raises(OverflowError):
        cmsgx.send(stream[0], b"x", control=Odd())
