"""`data` of a large message: the received memory itself, where nobody else can tell."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import socket
import sys
import threading
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from memory import need_testcapi, without, without_other_threads
from native import build, sanitizer
from support import Pair, address_of, run_python, unix_pair, unregistered, until_it_waits
from test_message_cycles import own_kind

import cmsgx

HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
LARGE = 16 << 10
MAPPED = (128 << 10) - 64  # bytes that are not shortened from here on

Receive = Callable[[], cmsgx.Message]


def by_receiver(sock: socket.socket, bufsize: int) -> Receive:
    return cmsgx.Receiver(sock, bufsize).receive


def by_loop(sock: socket.socket, bufsize: int) -> Receive:
    return cmsgx.Receiver(sock, bufsize).__next__


def by_batch(sock: socket.socket, bufsize: int) -> Receive:
    receiver = cmsgx.BatchReceiver(sock, 2, bufsize)
    return lambda: receiver.receive()[0]


def by_one_call(sock: socket.socket, bufsize: int) -> Receive:
    return lambda: cmsgx.receive(sock, bufsize)


WAYS = {
    "Receiver": by_receiver,
    "loop": by_loop,
    "BatchReceiver": by_batch,
    "receive": by_one_call,
}
every_way = pytest.mark.parametrize("way", WAYS)


def pattern(size: int, start: int = 0) -> bytes:
    """Without a period that a shift by a power of two would hide."""
    return (bytes((start + i) % 251 for i in range(251)) * (size // 251 + 1))[:size]


def is_taken(message: cmsgx.Message) -> bool:
    """Whether `data` lies where the message was received: there a view of it is as well."""
    return address_of(message.data) == address_of(message.view)


# Which are taken --------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize(
    ("size", "bufsize", "taken"),
    [
        (LARGE - 1, LARGE - 1, False),
        (LARGE, LARGE, True),
        (LARGE // 2, LARGE, True),
        (LARGE // 2 - 1, LARGE, False),
        (LARGE // 2 + 1, LARGE + 1, True),
        (LARGE // 2, LARGE + 1, False),
        (0, LARGE, False),
        (1, LARGE, False),
        (48 << 10, 64 << 10, True),
        ((64 << 10) - 1, 64 << 10, True),
        (64 << 10, 64 << 10, True),
        (MAPPED - 2, MAPPED - 1, True),
        (MAPPED - 1, MAPPED, not HAS_GIL),
        (MAPPED, MAPPED, True),
    ],
)
def test_data_of_a_large_message_is_the_received_memory(
    packets: Pair, way: str, size: int, bufsize: int, taken: bool
) -> None:
    receive = WAYS[way](packets[1], bufsize)
    for _ in range(2):  # so that the memory holds something else
        packets[0].send(b"\xff" * bufsize)
        receive()
    for start in range(3):
        sent = pattern(size, start)
        packets[0].send(sent)
        message = receive()
        data = message.data
        assert type(data) is bytes
        assert data == sent
        assert hash(data) == hash(sent)
        assert sys.getsizeof(data) == sys.getsizeof(sent)
        assert ctypes.string_at(address_of(data) + size, 1) == b"\0"
        assert message.data is data
        assert bytes(message.view) == sent
        assert is_taken(message) == taken
        if size < 2:
            assert data is (sent + b"-")[:size], "an object that Python has only once"


def test_a_smaller_size_for_one_call_counts_against_the_whole_block(packets: Pair) -> None:
    receiver = cmsgx.Receiver(packets[1], 4 * LARGE)
    for size in (4 * LARGE, LARGE, 2 * LARGE, 2 * LARGE - 1, 3 * LARGE):
        packets[0].send(pattern(size))
        message = receiver.receive(bufsize=size)
        assert message.data == pattern(size)
        assert is_taken(message) == (size >= 2 * LARGE)


def test_data_received_into_buffers_is_a_copy(packets: Pair) -> None:
    into = bytearray(LARGE)
    message = cmsgx.Receiver(packets[1], into=into)
    packets[0].send(pattern(LARGE))
    received = message.receive()
    data = received.data
    into[:] = bytes(LARGE)
    assert data == received.data == pattern(LARGE)


def test_a_peek_and_the_message_that_it_showed_are_apart(packets: Pair) -> None:
    receiver = cmsgx.Receiver(packets[1], LARGE)
    packets[0].send(pattern(LARGE))
    peeked = receiver.receive(flags=socket.MSG_PEEK).data
    received = receiver.receive().data
    assert peeked == received == pattern(LARGE)
    assert address_of(peeked) != address_of(received)


@every_way
def test_bytes_that_the_kernel_did_not_write_are_zero(way: str) -> None:
    """With MSG_TRUNC, TCP counts bytes that it throws away."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as sender,
        closing(cmsgx.socket(fileno=listener.accept()[0].detach())) as sock,
    ):
        receiver = cmsgx.Receiver(sock, LARGE)
        batches = cmsgx.BatchReceiver(sock, 1, LARGE)
        receive: dict[str, Callable[[int], cmsgx.Message]] = {
            "Receiver": lambda flags: receiver.receive(flags=flags),
            "loop": lambda flags: receiver.receive(flags=flags) if flags else next(receiver),
            "BatchReceiver": lambda flags: batches.receive(flags=flags)[0],
            "receive": lambda flags: cmsgx.receive(sock, LARGE, flags=flags),
        }
        for flags in (socket.MSG_WAITALL, socket.MSG_TRUNC | socket.MSG_WAITALL):
            sender.sendall(pattern(LARGE))
            message = receive[way](flags)
            assert message.data == (bytes(LARGE) if flags & socket.MSG_TRUNC else pattern(LARGE))


# The bytes never change -------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("size", [LARGE, 3 * LARGE // 4, LARGE // 4])
def test_data_never_changes(packets: Pair, way: str, size: int) -> None:
    """Whether or not its message, a view, or the receiver exist when the next messages come."""
    receive = WAYS[way](packets[1], LARGE)
    kept: list[tuple[int, bytes, int, Any]] = []
    for start in range(12):
        packets[0].send(pattern(size, start))
        message = receive()
        data = message.data
        beside = [None, message, message.view, message.view[5:-5], memoryview(message.view)][
            start % 5
        ]
        kept.append((start, data, hash(data), beside))
        del message
    del receive
    gc.collect()
    for start, data, hashed, beside in kept:
        assert data == pattern(size, start)
        assert hash(pattern(size, start)) == hashed
        if beside is not None:
            view = beside.view if isinstance(beside, cmsgx.Message) else beside
            assert bytes(view) in data
            assert len(bytes(view)) >= size - 10


@every_way
def test_a_view_of_what_was_taken_outlives_everything_else(packets: Pair, way: str) -> None:
    receive = WAYS[way](packets[1], LARGE)
    packets[0].send(pattern(LARGE))
    message = receive()
    assert len(message.data) == LARGE
    part = message.view[100:200]
    del message, receive
    packets[0].send(pattern(LARGE, 1))
    assert cmsgx.receive(packets[1], LARGE).data == pattern(LARGE, 1)
    gc.collect()
    assert bytes(part) == pattern(LARGE)[100:200]


@pytest.mark.parametrize("attribute", ["view", "segments"])
@pytest.mark.parametrize("size", [LARGE, LARGE - 1])
def test_what_a_view_shows_stays_where_it_is(packets: Pair, attribute: str, size: int) -> None:
    """Shortening the block could move it."""
    packets[0].send(pattern(size))
    message = cmsgx.Receiver(packets[1], LARGE).receive()
    shown: Any = getattr(message, attribute)
    view = shown[0] if attribute == "segments" else shown
    before = address_of(view)
    assert is_taken(message) == (size == LARGE or not HAS_GIL)
    assert address_of(message.view) == before
    assert view == message.data == pattern(size)


def test_a_view_that_is_gone_counts_too(packets: Pair) -> None:
    """Its address may still be known to a call that it was given to."""
    packets[0].send(pattern(LARGE - 1))
    message = cmsgx.Receiver(packets[1], LARGE).receive()
    assert len(message.view) == LARGE - 1
    assert is_taken(message) is not HAS_GIL


def check_where_it_moves() -> None:
    """In a process where realloc() moves what it shortens."""
    moved = ctypes.PyDLL(None).moving_count
    moved.restype = ctypes.c_size_t
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    for name, make in WAYS.items():
        receive = make(right, LARGE)
        for start in range(5):
            sent = pattern(LARGE - 1, start)
            left.send(sent)
            message = receive()
            before = moved()
            assert message.data == sent
            assert moved() > before, f"{name}: nothing moved, so this showed nothing"
            assert bytes(message.view) == sent
            assert bytes(message.segments[0]) == sent
            assert is_taken(message)
    left.close()
    right.close()


@pytest.mark.slow  # compiles a library, and starts a process
@pytest.mark.skipif(not HAS_GIL, reason="there the block is not shortened")
def test_views_follow_a_block_that_moves() -> None:
    if (found := sanitizer()) is not None:
        pytest.skip(f"{found} has a realloc() of its own, which moves what it shortens too")
    library = build("moving.so", "-O2", "-shared", "-fPIC", "moving.c", "-ldl")
    others = os.environ.get("LD_PRELOAD", "")
    env = {"LD_PRELOAD": f"{library} {others}".strip(), "PYTHONMALLOC": "", "PYTHONDEVMODE": ""}
    run_python("import test_message_data as here; here.check_where_it_moves()", env=env)


def test_data_of_a_message_that_has_not_arrived_is_empty() -> None:
    """The garbage collector shows it: a signal handler or another thread may ask it for data."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with unregistered():
        receiver = cmsgx.Receiver(right, LARGE, want=[own_kind()])
        left.send(pattern(LARGE))
        assert receiver.receive().nbytes == LARGE
        received: list[bytes] = []
        thread = threading.Thread(target=lambda: received.append(bytes(receiver.receive().view)))
        thread.start()
        until_it_waits(thread)
        early = [
            each for each in gc.get_objects()
            if isinstance(each, cmsgx.Message) and each.nbytes in (0, LARGE)
        ]  # fmt: skip
        data = [each.data for each in early]
        left.send(pattern(LARGE, 1))
        thread.join()
    left.close()
    right.close()
    assert received == [pattern(LARGE, 1)]
    assert data == [b""]


def test_threads_that_read_one_message(packets: Pair) -> None:
    """One of two that read `data` at once may be refused; nobody sees anything else than what was
    received."""
    receiver = cmsgx.Receiver(packets[1], LARGE)
    sent = pattern(LARGE - 1)
    wrong: list[object] = []
    rounds, threads = 30, 4
    gate = threading.Barrier(threads + 1, timeout=60)
    message: cmsgx.Message

    def read(own: int) -> None:
        for _ in range(rounds):
            gate.wait()
            try:
                seen = message.data if own % 2 else bytes(message.view)
            except RuntimeError:
                seen = sent
            if seen != sent or bytes(message.view) != sent:
                wrong.append(seen)
            gate.wait()

    workers = [threading.Thread(target=read, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    for _ in range(rounds):
        packets[0].send(sent)
        message = receiver.receive()
        gate.wait()
        gate.wait()
    for worker in workers:
        worker.join()
    assert wrong == []


# Memory -----------------------------------------------------------------------------------------


def traced(work: Callable[[], object]) -> tuple[int, int]:
    """(bytes that it allocated and are held, the most there were meanwhile)"""
    tracemalloc.start()
    try:
        result = work()
        held, most = tracemalloc.get_traced_memory()
        del result
        return held, most
    finally:
        tracemalloc.stop()


@every_way
@pytest.mark.skipif(not HAS_GIL, reason="there the block is not shortened")
def test_what_is_cut_off_is_given_back(packets: Pair, way: str) -> None:
    count, size = 20, 2 * LARGE
    receive = WAYS[way](packets[1], 4 * LARGE)

    def work() -> list[bytes]:
        kept = []
        for start in range(count):
            packets[0].send(pattern(size, start))
            kept.append(receive().data)
        return kept

    work()
    held, _ = traced(work)
    assert held < count * (size + 1024) + 3 * 4 * LARGE


@every_way
def test_data_needs_no_second_block(packets: Pair, way: str) -> None:
    receive = WAYS[way](packets[1], 4 * LARGE)
    for _ in range(4):
        packets[0].send(bytes(4 * LARGE))
        receive()
    packets[0].send(bytes(4 * LARGE))
    message = receive()
    assert traced(lambda: message.data)[1] < 4096


@pytest.mark.parametrize("way", ["Receiver", "loop", "BatchReceiver"])
def test_an_idle_receiver_holds_no_more_than_its_blocks(packets: Pair, way: str) -> None:
    def work() -> object:
        receive = WAYS[way](packets[1], 4 * LARGE)
        for start in range(10):
            packets[0].send(pattern(4 * LARGE, start))
            receive()
        return receive

    def touched() -> object:
        receive = WAYS[way](packets[1], 4 * LARGE)
        for start in range(10):
            packets[0].send(pattern(4 * LARGE, start))
            assert receive().data == pattern(4 * LARGE, start)
        return receive

    for _ in range(2):  # the first time fills caches
        plain, with_data = traced(work)[0], traced(touched)[0]
    assert with_data < plain + 4096


@every_way
@without_other_threads
def test_without_memory_nothing_is_lost(way: str) -> None:
    need_testcapi()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    right.settimeout(0)
    receive = WAYS[way](right, LARGE)
    for size in (LARGE, LARGE - 1, LARGE // 4):
        for step in itertools.count():
            sent = pattern(size, step)
            left.send(sent)
            message, error = without(step // 2, lambda _: receive(), None)
            if message is None:
                assert isinstance(error, MemoryError)
                message = receive()
            for at in (step % 2, None):
                data, error = without(at, lambda message: message.data, message)
                assert data == sent or isinstance(error, MemoryError)
                assert bytes(message.view) == sent or at is not None
            assert data == message.data == sent
            if step > 40:
                break
    left.close()
    right.close()


@without_other_threads
def test_a_block_that_cannot_be_shortened_stays_as_it_is() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    left.send(pattern(LARGE - 1))
    message = cmsgx.Receiver(right, LARGE).receive()
    if HAS_GIL:
        data, error = without(0, lambda message: message.data, message)
        assert data is None
        assert isinstance(error, MemoryError)
        others = [b"\xff" * size for size in (LARGE, LARGE // 2)]  # where it was, if it was freed
        assert len(others) == 2
    assert message.data == pattern(LARGE - 1)
    assert is_taken(message)
    left.close()
    right.close()
