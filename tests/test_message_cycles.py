"""Message: cycles that the garbage collector has to find."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from support import Pair, need_classes_that_go, open_files, unregistered

import cmsgx
from cmsgx import kinds


class Buffer(bytearray):
    """A buffer that can refer to what is received into it."""

    it: Any


def own_kind() -> Any:
    """A user-defined kind that can refer to the message that contains it; the caller has to
    unregister it."""
    kind: Any = type("Own", (kinds.StructMessage,), {"__slots__": ()})
    return kinds.register(kind, level=-5, type=0x7E60, layout=(("x", 0, "i"),), size=4)


def raised_by(receiver: Any) -> Exception:
    with pytest.raises(cmsgx.DataTruncatedError) as caught:
        receiver.receive()
    return caught.value


FROM_RECEIVER: dict[str, Callable[[Any], Any]] = {
    "Receiver": lambda rx: rx,
    "Message": lambda rx: rx.receive(),
    "Message, looked at": lambda rx: (msg := rx.receive(), msg.data, msg.address, msg.control)[0],
    "Message, the last of a loop": lambda rx: (next(iter(rx)), rx)[1],
    "MessageFds": lambda rx: rx.receive().fds,
    "iterator of MessageFds": lambda rx: iter(rx.receive().fds),
    "method": lambda rx: rx.receive().take_all,
    "error": raised_by,
}
FROM_INTO: dict[str, Callable[[Any], Any]] = {
    **FROM_RECEIVER,
    "View": lambda rx: rx.receive().view,
    "slice of a View": lambda rx: rx.receive().view[1:2],
    "memoryview": lambda rx: memoryview(rx.receive().view)[1:],
    "iterator of a View": lambda rx: iter(rx.receive().view),
    "Segments": lambda rx: rx.receive().segments,
    "iterator of Segments": lambda rx: iter(rx.receive().segments),
}
FROM_BATCHES: dict[str, Callable[[Any], Any]] = {
    "BatchReceiver": lambda rx: rx,
    "Batch": lambda rx: rx.receive(),
    "Batch, looked at": lambda rx: (batch := rx.receive(), batch[:])[0],
    "Batch, the last of a loop": lambda rx: (next(iter(rx)), rx)[1],
    "Message of a Batch": lambda rx: rx.receive()[1],
    "iterator of a Batch": lambda rx: iter(rx.receive()),
}


@pytest.fixture
def queued(packets: Pair) -> Pair:
    """With three messages in the queue, longer than most buffers here."""
    for _ in range(3):
        packets[0].send(b"data, and more")
    return packets


def is_gone(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("name", FROM_INTO)
def test_a_cycle_through_the_buffers_of_the_caller_is_collected(
    queued: Pair, name: str, buffers: int
) -> None:
    into = [Buffer(6) for _ in range(buffers)]
    keeps = "raise" if name == "error" else "keep"
    if buffers > 1 and "egments" in name:
        into = into[:1]  # several segments are refused
    receiver = cmsgx.Receiver(queued[1], into=into, on_truncation=keeps)  # type: ignore[arg-type]
    into[-1].it = FROM_INTO[name](receiver)
    reference = weakref.ref(into[0])
    del receiver, into
    assert is_gone(reference)


@pytest.mark.parametrize("name", [*FROM_RECEIVER, *FROM_BATCHES])
def test_a_cycle_through_a_kind_that_was_wanted_is_collected(queued: Pair, name: str) -> None:
    need_classes_that_go()
    more: Any = {} if name == "error" else {"on_truncation": "keep"}
    with unregistered():
        kind = own_kind()
        if name in FROM_BATCHES:
            kind.it = FROM_BATCHES[name](cmsgx.BatchReceiver(queued[1], 2, 10, want=[kind]))
        else:
            kind.it = FROM_RECEIVER[name](cmsgx.Receiver(queued[1], 10, want=[kind], **more))
    reference = weakref.ref(kind)
    del kind
    assert is_gone(reference)


@pytest.mark.parametrize("make", [cmsgx.Receiver, partial(cmsgx.BatchReceiver, count=2)])
def test_a_cycle_through_what_a_receiver_reads_is_collected(queued: Pair, make: Any) -> None:
    class Referring:
        it: Any

        def fileno(self) -> int:
            return queued[1].fileno()

    sock = Referring()
    sock.it = make(sock, bufsize=10)
    reference = weakref.ref(sock)
    del sock
    assert is_gone(reference)


def test_a_cycle_gives_back_the_descriptors_that_are_in_it(stream: Pair) -> None:
    buffer = Buffer(10)
    with open_files(8) as files:
        receiver = cmsgx.Receiver(stream[1], into=buffer, fds=8)
        cmsgx.send(stream[0], b"x", fds=files)
        message = receiver.receive()
    first = message.fds[0]
    buffer.it = message
    reference = weakref.ref(buffer)
    del message, receiver, buffer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert is_gone(reference)
    assert any("7 descriptors" in str(warning.message) for warning in caught)
    first.close()


@pytest.mark.parametrize("name", [name for name in (*FROM_INTO, *FROM_BATCHES) if name != "error"])
def test_what_is_held_elsewhere_outlives_the_cycle(queued: Pair, name: str) -> None:
    """The garbage collector sees each reference once: no buffer is freed while it is used."""
    need_classes_that_go()
    buffer = Buffer(10)
    with unregistered():
        kind = own_kind()
        held: Any
        if name in FROM_BATCHES:
            held = FROM_BATCHES[name](cmsgx.BatchReceiver(queued[1], 2, 10, want=[kind]))
            references = [weakref.ref(kind)]
        else:
            receiver = cmsgx.Receiver(queued[1], into=buffer, want=[kind], on_truncation="keep")
            held = FROM_INTO[name](receiver)
            references = [weakref.ref(buffer)]
            del receiver
    kind.it = buffer.it = held
    del kind, buffer
    for _ in range(3):
        assert [is_gone(reference) for reference in references] == [False]
    if isinstance(held, cmsgx.Message):
        assert held.data == b"data, and "
    if isinstance(held, (cmsgx.View, memoryview)):
        assert bytes(held) in b"data, and "
    assert repr(held)
    del held
    assert [is_gone(reference) for reference in references] == [True]


def test_what_can_be_in_no_cycle_is_not_tracked(queued: Pair) -> None:
    """Otherwise each message would cost the garbage collector's bookkeeping."""
    buffer = Buffer(10)
    into = cmsgx.Receiver(queued[1], into=buffer, on_truncation="keep")
    traced: list[Any] = [into.receive()]
    traced += [traced[0].fds, traced[0].view, traced[0].segments, iter(traced[0].segments)]
    assert [gc.is_tracked(one) for one in traced] == [True] * 5
    del traced, into
    queued[0].send(b"data")
    message = cmsgx.Receiver(queued[1], 100, want=[cmsgx.Credentials, cmsgx.PidFd]).receive()
    plain: list[Any] = [
        message,
        message.fds,
        message.view,
        message.segments,
        iter(message.segments),
    ]
    assert [gc.is_tracked(one) for one in plain] == [False] * 5
    assert not gc.is_tracked(message[cmsgx.Credentials])
    queued[0].send(b"data")
    batch = cmsgx.BatchReceiver(queued[1], 2, 100).receive()
    assert [gc.is_tracked(one) for one in (batch, batch[0])] == [False] * 2


def test_the_collector_may_run_at_any_time(queued: Pair) -> None:
    """Half created, in use, or returned: it visits only complete objects."""
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            with unregistered():
                kind = own_kind()
                buffer = Buffer(5)
                receiver = cmsgx.Receiver(
                    queued[1], into=[buffer, Buffer(9)], want=[kind], on_truncation="keep"
                )
                queued[0].send(b"data")
                message = receiver.receive()
                buffer.it = [message, message.fds, message.data, message.view, receiver]
                kind.it = [kind(1), cmsgx.BatchReceiver(queued[1], 1, 1, want=[kind])]
                receiver.refresh()
    finally:
        gc.set_threshold(*threshold)
