"""docs/hazards.md, part A: a signal handler that raises, wherever it runs."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hazards import IN_PYTHON, TYPED, Way, a_file, close_all, count_open, each_way, high_number
from native import Shim, under_shim
from support import close_pair, eventually, lengths, open_files, run_python, unix_pair

import cmsgx
from cmsgx import _cmsg


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_hazards_handlers as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


# A3: a handler that raises ----------------------------------------------------------------------


class Interrupt(Exception):
    """The exception that the handlers here raise."""


def raise_interrupt(*_: object) -> None:
    raise Interrupt


armed = [False]


def raise_if_armed(*_: object) -> None:
    """A signal may also be handled a little late."""
    if armed[0]:
        raise Interrupt


def storm(way: str, iterations: int) -> None:
    """Receives while a timer expires somewhere within the call, or just after it."""
    warnings.simplefilter("ignore", ResourceWarning)
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    right.settimeout(0)
    receiver = cmsgx.Receiver(right, 16, fds=4, want=[cmsgx.PidFd])
    batches = cmsgx.BatchReceiver(right, 4, 16, fds=4, want=[cmsgx.PidFd])
    calls: dict[str, Callable[[], object]] = {
        "receive": lambda: cmsgx.receive(right, 16, fds=4),
        "Receiver": receiver.receive,
        "try": receiver.try_receive,
        "loop": lambda: next(receiver),
        "list": lambda: list(receiver.receive().fds),
        "take": lambda: receiver.receive().take_all(),
        "batch": batches.receive,
        "batch try": batches.try_receive,
        "batch loop": lambda: next(batches),
        "batch list": lambda: [msg.fds[0] for msg in batches.receive()],
        "batch take": lambda: [msg.take_all() for msg in batches.receive()],
    }
    call = calls[way]
    signal.signal(signal.SIGALRM, raise_if_armed)
    raised = received = 0
    with open_files(2) as files:
        chance = random.Random(1)
        messages = [(b"x", files)] * (3 if "batch" in way else 1)
        before = count_open()
        # The longest delay. It adapts by itself to the load of the machine.
        longest = 20e-6
        for i in range(iterations):
            cmsgx.send_batch(left, messages)
            result = None
            try:
                try:
                    armed[0] = True
                    signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, longest))
                    result = call()
                finally:
                    armed[0] = False
                    signal.setitimer(signal.ITIMER_REAL, 0)
                longest = max(longest / 1.02, 2e-6)
            except Interrupt:
                raised += 1
                longest *= 1.02
            received += result is not None
            del result
            with contextlib.suppress(BlockingIOError):
                while True:
                    right.recv(1)
            if i % 1000 == 0:
                close_last(receiver, batches, left)
                gc.collect()
                assert count_open() == before, (i, raised)
        close_last(receiver, batches, left)
        gc.collect()
        assert count_open() == before, raised
    assert raised > iterations // 100, (raised, iterations)
    assert received > iterations // 100, (received, iterations)
    print(f"{way}: {iterations} iterations, {raised} raised, {received} received, 0 leaked")
    close_pair((left, right))


def close_last(receiver: cmsgx.Receiver, batches: cmsgx.BatchReceiver, left: cmsgx.socket) -> None:
    """Makes a loop drop the previous message."""
    left.send(b"end")
    next(receiver).close()
    left.send(b"end")
    next(batches).close()


@pytest.mark.parametrize("iterations", lengths("CMSGX_SIGNAL_ITERATIONS", 5000, 100_000))
@pytest.mark.parametrize(
    "way",
    ["receive", "Receiver", "try", "loop", "list", "take",
     "batch", "batch try", "batch loop", "batch list", "batch take"],
)  # fmt: skip
@pytest.mark.slow
def test_A3_signal_storm(way: str, iterations: int) -> None:
    print(in_child("storm", way, iterations // 5))


@each_way
def test_A3_a_handler_that_raises_before_the_call(way: Way) -> None:
    """The handler runs before anything is received, so the message is still there."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right, open_files(1) as files:
        right.settimeout(60)
        previous = signal.signal(signal.SIGALRM, raise_interrupt)
        try:
            before = count_open()
            # Repeated, in case it comes just before the wait.
            signal.setitimer(signal.ITIMER_REAL, 0.02, 5)
            with pytest.raises(Interrupt):
                way(right, 1)
            cmsgx.send(left, b"x", fds=files)
            assert way(right, 1).files == ["0"]
            assert count_open() == before
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("way", TYPED, ids=lambda way: way.__name__)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.slow
def test_A3_a_profiler_that_raises(way: Way) -> None:
    """At the return of the C function: the interpreter discards the result."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    raised = 0
    with left, right, open_files(3) as files:
        before = count_open()
        for at in itertools.count():
            events = iter(range(at))

            def profile(
                frame: FrameType, event: str, argument: object, events: Iterator[int] = events
            ) -> None:
                if event == "c_return" and next(events, None) is None:
                    sys.setprofile(None)
                    raise Interrupt

            cmsgx.send(left, b"x", fds=files)
            sys.setprofile(profile)
            try:
                way(right, 3)
            except Interrupt:
                raised += 1
            else:
                break
            finally:
                sys.setprofile(None)
            gc.collect()
            assert count_open() == before
            with contextlib.suppress(BlockingIOError):
                right.recv(1, socket.MSG_DONTWAIT)
    assert raised >= 2


@pytest.mark.parametrize(
    "name",
    # Creating a Receiver takes some thousand instructions.
    [pytest.param(n, marks=pytest.mark.slow) if n == "Receiver, made" else n for n in IN_PYTHON],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_A3_interrupted_at_every_instruction(name: str) -> None:
    """A signal handler can run between any two bytecodes: no descriptor is lost or closed twice."""
    prepare, act, undo = IN_PYTHON[name]
    package = str(Path(cmsgx.__file__).parent)
    before = count_open()
    for at in itertools.count():
        seen = 0

        def trace(frame: FrameType, event: str, argument: object, at: int = at) -> Any:
            nonlocal seen
            file = frame.f_code.co_filename
            frame.f_trace_opcodes = file.startswith(package) or file == socket.__file__
            if event == "opcode":
                if seen == at:
                    sys.settrace(None)
                    raise Interrupt
                seen += 1
            return trace

        prepared = prepare()
        result = None
        sys.settrace(trace)
        try:
            result = act(prepared)
        except Interrupt:
            pass
        finally:
            sys.settrace(None)
        undo(prepared, result)
        del prepared, result
        _cmsg.closer_wait(60)
        assert count_open() == before, f"interrupted at instruction {at}"
        if seen < at:
            break
    assert at > 3


# A13: an interrupted close ----------------------------------------------------------------------


def interrupted_close(name: str) -> None:
    """close() fails with EINTR once the descriptor is gone: it must not be called again."""
    shim = Shim()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    warnings.simplefilter("ignore", ResourceWarning)
    receiver = cmsgx.Receiver(right, 1, fds=3)
    one = cmsgx.Receiver(right, 1, fds=1)
    # Every other number is free, so that the received numbers are not contiguous.
    low = [high_number() for _ in range(12)]
    close_all(low[::2])
    with open_files(0):
        file = os.memfd_create("file")
    open_before = set(map(int, os.listdir("/proc/self/fd")))

    def message(count: int) -> None:
        cmsgx.send(left, b"x", fds=[file] * count)

    def with_block() -> None:
        with a_file():
            pass

    def collected() -> None:
        fd = a_file()
        del fd

    def of_message() -> None:
        message(3)
        receiver.receive().close()

    def of_objects() -> None:
        message(3)
        msg = receiver.receive()
        assert len(list(msg.fds)) == 3
        msg.close()

    def surplus() -> None:
        message(3)
        cmsgx.receive(right, 1, fds=1).close()

    def recv_fds_surplus() -> None:
        message(3)
        cmsgx.recv_fds(right, 1, 0)

    def cut() -> None:
        cmsgx.send(left, b"long", fds=[file] * 3)
        with contextlib.suppress(cmsgx.DataTruncatedError):
            one.receive()

    def background() -> None:
        cmsgx.close_in_background(a_file(), a_file())
        _cmsg.closer_wait(60)

    def pinned_close() -> None:
        fd = a_file()
        shim.delay_send(100)
        thread = threading.Thread(target=cmsgx.send, args=(left, b"x"), kwargs={"fds": [fd]})
        thread.start()
        assert eventually(shim.is_sending)
        fd.close()
        thread.join()
        shim.delay_send(0)
        right.recv(1)

    actions: dict[str, Callable[[], object]] = {
        "Fd.close": lambda: a_file().close(),
        "with": with_block,
        "collected": collected,
        "Message.close": of_message,
        "Message.close, objects": of_objects,
        "surplus": surplus,
        "recv_fds, surplus": recv_fds_surplus,
        "error": cut,
        "background": background,
        "unpinned": pinned_close,
    }
    for times in (1, 2, 5):
        shim.reset()
        shim.interrupt(times)
        actions[name]()
        shim.interrupt(0)
        after = set(map(int, os.listdir("/proc/self/fd")))
        assert after == open_before, (times, after ^ open_before)
        closed = {n: shim.closes(n) for n in range(1000) if shim.closes(n)}
        listing = {n for n, count in closed.items() if n not in open_before}
        assert sum(closed.values()) > 0
        # One close for each descriptor that came and went, however often a number was reused.
        twice = {n: closed[n] for n in listing if closed[n] > opened_at(name, n, closed)}
        assert not twice, (times, twice)


def opened_at(name: str, number: int, closed: dict[int, int]) -> int:
    """How often this number can have been opened: listing /proc opens the lowest free one."""
    lowest = min(closed)
    return 2 if number == lowest else 1


INTERRUPTED = (
    "Fd.close", "with", "collected", "Message.close", "Message.close, objects", "surplus",
    "recv_fds, surplus", "error", "background", "unpinned",
)  # fmt: skip


@pytest.mark.parametrize("name", INTERRUPTED)
@pytest.mark.slow
def test_A13_close_is_never_retried(name: str) -> None:
    in_child("interrupted_close", name, env=under_shim())
