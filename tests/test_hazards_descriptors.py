"""HAZARDS, part A: a received descriptor has exactly one owner at every instant."""

from __future__ import annotations

import array
import contextlib
import errno
import gc
import importlib
import itertools
import os
import random
import re
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import pytest
from memory import need_testcapi
from native import Shim, under_shim
from support import (
    Pair,
    allow_many_descriptors,
    close_pair,
    content,
    eventually,
    is_open,
    lengths,
    open_files,
    run_python,
    unix_pair,
    until_it_waits,
)

import cmsgx
from cmsgx import _cmsg, _fds

COUNTS = (0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 100, 252, 253)
MOST = 253
OPTIONS = ("SO_PASSCRED", "SO_PASSPIDFD", "SO_TIMESTAMPNS", "SO_PASSSEC", "SO_INQ")


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a process of its own."""
    code = f"import test_hazards_descriptors as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


def count_open() -> int:
    """How many descriptors are open here, the one that lists them among them."""
    return len(os.listdir("/proc/self/fd"))


def switch_on(sock: socket.socket, option: str) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, getattr(_cmsg, option), 1)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise
        pytest.skip(f"this kernel has no {option} for this type of socket")


def close_all(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)


# Ways to receive --------------------------------------------------------------------------------


class Got(NamedTuple):
    files: list[str]
    """What the descriptors hold that were handed over."""
    truncated: bool


def by_receive(sock: cmsgx.socket, asked: int) -> Got:
    with cmsgx.receive(sock, 16, fds=asked) as msg:
        return Got([content(fd) for fd in msg.fds], msg.truncated)


def by_receiver(sock: cmsgx.socket, asked: int) -> Got:
    with cmsgx.Receiver(sock, 16, fds=asked).receive() as msg:
        return Got([content(fd) for fd in msg.fds], msg.truncated)


def by_loop(sock: cmsgx.socket, asked: int) -> Got:
    for msg in cmsgx.Receiver(sock, 16, fds=asked):
        with msg:
            return Got([content(fd) for fd in msg.fds], msg.truncated)
    raise AssertionError("nothing came")


def by_recv_fds(sock: cmsgx.socket, asked: int) -> Got:
    _, numbers, flags, _ = cmsgx.recv_fds(sock, 16, asked)
    files = [content(number) for number in numbers]
    close_all(numbers)
    return Got(files, bool(flags & socket.MSG_CTRUNC))


def numbers_in(ancdata: Sequence[tuple[int, int, bytes]]) -> list[int]:
    numbers = array.array("i")
    for level, kind, data in ancdata:
        if level == socket.SOL_SOCKET and kind in (_cmsg.SCM_RIGHTS, _cmsg.SCM_PIDFD):
            numbers.frombytes(data[: len(data) // 4 * 4])
    return [number for number in numbers if number >= 0]


def got_from(ancdata: Sequence[tuple[int, int, bytes]], flags: int) -> Got:
    files = [
        content(number)
        for number in numbers_in([item for item in ancdata if item[1] == _cmsg.SCM_RIGHTS])
    ]
    close_all(numbers_in(ancdata))
    return Got(files, bool(flags & socket.MSG_CTRUNC))


def by_recvmsg(sock: cmsgx.socket, asked: int) -> Got:
    _, ancdata, flags, _ = cmsgx.recvmsg(sock, 16, cmsgx.CMSG_LEN(4 * asked))
    return got_from(ancdata, flags)


def by_recvmsg_into(sock: cmsgx.socket, asked: int) -> Got:
    _, ancdata, flags, _ = cmsgx.recvmsg_into(sock, [bytearray(16)], cmsgx.CMSG_LEN(4 * asked))
    return got_from(ancdata, flags)


TYPED = (by_receive, by_receiver, by_loop)
WAYS = (*TYPED, by_recv_fds, by_recvmsg, by_recvmsg_into)
Way = Callable[[cmsgx.socket, int], Got]
Receives = tuple[Callable[[], cmsgx.Message], ...]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


# A1, A2: truncation -----------------------------------------------------------------------------


@each_way
def test_A1_every_truncation(pair: Pair, way: Way) -> None:
    left, right = pair
    with open_files(MOST) as files:
        before = count_open()
        for sent, asked in itertools.product(COUNTS, COUNTS):
            cmsgx.send(left, b"x", fds=files[:sent])
            got = way(right, asked)
            assert got.files == [str(i) for i in range(min(sent, asked))], (sent, asked)
            assert got.truncated == (sent > asked), (sent, asked)
            assert count_open() == before, (sent, asked)


def test_A1_surplus_is_counted(pair: Pair) -> None:
    left, right = pair
    with open_files(MOST) as files:
        for sent, asked in itertools.product(COUNTS, COUNTS):
            cmsgx.send(left, b"x", fds=files[:sent])
            with cmsgx.receive(right, 16, fds=asked) as msg:
                assert msg.closed_fds == max(0, sent - asked)
            cmsgx.send(left, b"x", fds=files[:sent])
            with cmsgx.Receiver(right, 16, fds=asked).receive() as msg:
                # With room for no more the kernel keeps the surplus out, and does not count.
                assert msg.closed_fds == (None if sent > asked else 0)


@pytest.mark.parametrize("option", OPTIONS)
def test_A1_many_where_one_was_asked_with_an_option(pair: Pair, option: str) -> None:
    """253 sent and 1 asked, with an option on that takes room."""
    left, right = pair
    switch_on(right, option)
    with open_files(MOST) as files:
        before = count_open()
        for way in WAYS:
            cmsgx.send(left, b"x", fds=files)
            got = way(right, 1)
            if way in TYPED or way is by_recv_fds:
                assert got.files == ["0"], way
            assert got.truncated, way
            assert count_open() == before, way


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("sent", [1, 2, MOST])
def test_A1_option_switched_on_behind_its_back(pair: Pair, option: str, sent: int) -> None:
    """What takes the room for a descriptor raises, leaves none open, and refresh() mends it."""
    left, right = pair
    receiver = cmsgx.Receiver(right, 16, fds=1)
    switch_on(right, option)
    with open_files(sent) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        raised = None
        try:
            with receiver.receive() as msg:
                assert [content(fd) for fd in msg.fds] == ["0"]
        except cmsgx.ControlTruncatedError as error:
            raised = error
        if raised is not None:
            assert raised.errno == errno.EMSGSIZE
            assert not isinstance(raised, cmsgx.FdLimitError)
            assert raised.message.data == b"data"
            assert raised.message.closed
            assert "refresh()" in str(raised)
        assert count_open() == before
        receiver.refresh()
        cmsgx.send(left, b"data", fds=files)
        with receiver.receive() as msg:
            assert [content(fd) for fd in msg.fds] == ["0"]
        assert count_open() == before


def test_A1_credentials_take_the_room() -> None:
    left, right = unix_pair()
    with left, right, open_files(2) as files:
        receivers = {keep: cmsgx.Receiver(right, 9, fds=2, on_truncation=keep)
                     for keep in ("raise", "keep")}  # fmt: skip
        right.setsockopt(socket.SOL_SOCKET, _cmsg.SO_PASSCRED, 1)
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        with pytest.raises(
            cmsgx.ControlTruncatedError, match="no descriptors arrived, room was for 2"
        ) as caught:
            receivers["raise"].receive()
        assert caught.value.message.truncated
        cmsgx.send(left, b"data", fds=files)
        with receivers["keep"].receive() as msg:
            assert msg.truncated
            assert msg.closed_fds is None
            assert len(msg.fds) == 0
            assert msg.data == b"data"
        assert count_open() == before


def test_A2_every_limit(pair: Pair) -> None:
    left, right = pair
    with open_files(MOST) as files:
        before = count_open()
        for asked in range(MOST + 1):
            cmsgx.send(left, b"x", fds=files)
            with cmsgx.receive(right, 16, fds=asked) as msg:
                assert len(msg.fds) == asked
            cmsgx.send(left, b"x", fds=files)
            with cmsgx.Receiver(right, 16, fds=asked).receive() as msg:
                assert len(msg.fds) == asked
            cmsgx.send(left, b"x", fds=files)
            numbers = cmsgx.recv_fds(right, 16, asked)[1]
            assert len(numbers) == asked
            close_all(numbers)
            assert count_open() == before, asked


def test_A2_padding_admits_what_the_caller_gets(pair: Pair) -> None:
    """recvmsg() as the caller sizes it: each descriptor that came in is in the result."""
    left, right = pair
    with open_files(20) as files:
        for size in range(80):
            cmsgx.send(left, b"x", fds=files)
            before = count_open()
            _, ancdata, flags, _ = cmsgx.recvmsg(right, 16, size)
            numbers = numbers_in(ancdata)
            assert len(numbers) == max(0, size - cmsgx.CMSG_LEN(0)) // 4
            assert count_open() - before == len(numbers)
            assert flags & socket.MSG_CTRUNC
            close_all(numbers)


# A3: a handler that raises ----------------------------------------------------------------------


class Interrupt(Exception):
    """What the handlers here raise."""


def raise_interrupt(*_: object) -> None:
    raise Interrupt


armed = [False]


def raise_if_armed(*_: object) -> None:
    """A signal may also be handled a little late."""
    if armed[0]:
        raise Interrupt


def storm(way: str, iterations: int) -> None:
    """Receives while a timer goes off somewhere within the call, or just behind it."""
    warnings.simplefilter("ignore", ResourceWarning)
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    right.settimeout(0)
    receiver = cmsgx.Receiver(right, 16, fds=4, want=[cmsgx.PidFd])
    batches = cmsgx.BatchReceiver(right, 4, 16, fds=4, want=[cmsgx.PidFd])
    calls: dict[str, Callable[[], object]] = {
        "receive": lambda: cmsgx.receive(right, 16, fds=4),
        "Receiver": receiver.receive,
        "loop": lambda: next(receiver),
        "list": lambda: list(receiver.receive().fds),
        "take": lambda: receiver.receive().take_all(),
        "batch": batches.receive,
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
        # The longest delay. It finds its length by itself, whatever else the machine does.
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
    """Has a loop let go of the message before."""
    left.send(b"end")
    next(receiver).close()
    left.send(b"end")
    next(batches).close()


@pytest.mark.parametrize("iterations", lengths("CMSGX_SIGNAL_ITERATIONS", 5000, 100_000))
@pytest.mark.parametrize(
    "way",
    ["receive", "Receiver", "loop", "list", "take",
     "batch", "batch loop", "batch list", "batch take"],
)  # fmt: skip
@pytest.mark.slow
def test_A3_signal_storm(way: str, iterations: int) -> None:
    print(in_child("storm", way, iterations // 5))


@each_way
def test_A3_a_handler_that_raises_before_the_call(way: Way) -> None:
    """The handler runs before anything is received: the message is still there."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right, open_files(1) as files:
        right.settimeout(60)
        previous = signal.signal(signal.SIGALRM, raise_interrupt)
        try:
            before = count_open()
            # Again, in case it comes just before the wait.
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
    """At the return of the C function: the result is thrown away by the interpreter."""
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


class Act(NamedTuple):
    """Something that is interrupted, or short of memory, at each possible place."""

    prepare: Callable[[], Any]
    act: Callable[[Any], Any]
    undo: Callable[[Any, Any], object]
    """(what was prepared, the result or None)"""


def high_number() -> int:
    """A descriptor whose number is no cached small int."""
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def close_both(fd: cmsgx.Fd, result: Any) -> None:
    """Whoever owns it now: closed once."""
    if result is not None:
        result.close()
    fd.close()


def a_memfd() -> cmsgx.Fd:
    """Where nobody has asked yet on which device these are."""
    _fds._device_of_memfds.cache_clear()
    return cmsgx.share(b"x")


def socket_fd() -> cmsgx.Fd:
    left, right = socket.socketpair()
    left.close()
    return cmsgx.Fd(right.detach())


def two_numbers() -> cmsgx.Rights:
    return cmsgx.Rights.unpack(array.array("i", [high_number(), high_number()]).tobytes())


def close_rights(rights: cmsgx.Rights, owners: Any) -> None:
    if owners is None:
        with contextlib.suppress(ValueError):
            owners = rights.own()
    for owner in owners or ():
        owner.close()


def close_unowned_pidfd(unowned: Any, owner: Any) -> None:
    if owner is None:
        with contextlib.suppress(ValueError):
            owner = unowned.own()
    if owner is not None:
        owner.close()


def close_number(fd: cmsgx.Fd, number: int | None) -> None:
    if number is not None:
        os.close(number)
        assert fd.closed
    fd.close()


def close_each(pair: Pair, _: object) -> None:
    close_pair(pair)


def close_result(_: object, result: Any) -> None:
    if result is not None:
        result.close()


def a_file() -> cmsgx.Fd:
    return cmsgx.Fd(high_number())


class Away:
    """As multiprocessing's DupFd: detach() gives the number away."""

    def __init__(self) -> None:
        self.number = high_number()

    def detach(self) -> int:
        number, self.number = self.number, -1
        return number


def close_away(away: Away, fd: cmsgx.Fd | None) -> None:
    if fd is not None:
        assert not os.get_inheritable(fd.fileno())
        fd.close()
    if away.number >= 0:
        os.close(away.number)


def connected() -> tuple[cmsgx.socket, ...]:
    """A listener, and who waits to be accepted."""
    listener, client = (cmsgx.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2))
    listener.bind("")
    listener.listen()
    client.connect(listener.getsockname())
    return listener, client


# What runs as Python code while it holds a descriptor.  Not socketpair(): that of the socket module
# loses one, between a detach() and the socket that takes it over.
IN_PYTHON: dict[str, Act] = {
    "Fd.open": Act(a_file, lambda fd: fd.open("rb"), close_both),
    "Fd.open, text": Act(a_file, lambda fd: fd.open(), close_both),
    "Fd.socket": Act(socket_fd, lambda fd: fd.socket(), close_both),
    "close_in_background": Act(
        a_file, lambda fd: cmsgx.close_in_background(fd), lambda fd, _: fd.close()
    ),
    "Rights.own": Act(two_numbers, lambda rights: rights.own(), close_rights),
    "Receiver, made": Act(
        unix_pair, lambda pair: cmsgx.Receiver(pair[1], 9, fds=1, want=[cmsgx.PidFd]), close_each
    ),
    "share": Act(lambda: None, lambda _: cmsgx.share(b"x"), close_result),
    "accept": Act(
        connected,
        lambda pair: pair[0].accept(),
        lambda pair, result: [sock.close() for sock in (*pair, *(result or ())[:1])],
    ),
    "unpickled": Act(Away, lambda away: _fds._rebuild(cmsgx.Fd, away), close_away),
    "peer_pidfd": Act(
        unix_pair,
        lambda pair: cmsgx.peer_pidfd(pair[0]),
        lambda pair, result: [sock.close() for sock in (*pair, result) if sock is not None],
    ),
}


@pytest.mark.parametrize(
    "name",
    # A Receiver is made by some thousand instructions.
    [pytest.param(n, marks=pytest.mark.slow) if n == "Receiver, made" else n for n in IN_PYTHON],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_A3_interrupted_at_every_instruction(name: str) -> None:
    """Between any two bytecodes a signal handler can run: no descriptor is lost or closed twice."""
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


# A4: no memory ----------------------------------------------------------------------------------


def queued(pair: Pair, files: list[int]) -> Pair:
    cmsgx.send(pair[0], b"data", fds=files, control=[cmsgx.Credentials()])
    return pair


def close_owned_numbers(_: object, result: Any) -> None:
    if result is not None:
        close_all(numbers_in(result[1]))


def close_listed(_: object, result: Any) -> None:
    if result is not None:
        close_all(result[1])


def received(pair: Pair, files: list[int]) -> cmsgx.Message:
    queued(pair, files)
    return cmsgx.Receiver(
        pair[1], 16, fds=20, want=[cmsgx.Credentials, cmsgx.PidFd]
    ).receive()  # fmt: skip


def batch_received(pair: Pair, files: list[int]) -> cmsgx.wire.Batch:
    for _ in range(3):
        queued(pair, files)
    return cmsgx.BatchReceiver(pair[1], 4, 16, fds=20, want=[cmsgx.Credentials]).receive()


def close_batch(batch: cmsgx.wire.Batch, result: Any) -> None:
    for owner in result if isinstance(result, list) else ():
        if isinstance(owner, cmsgx.Fd):
            owner.close()
    batch.close()


def close_message(message: cmsgx.Message, result: Any) -> None:
    for owner in result if isinstance(result, list) else [result]:
        if isinstance(owner, cmsgx.Fd):
            owner.close()
    message.close()


def short_of_memory(pair: Pair, files: list[int]) -> dict[str, dict[str, Act]]:
    """Every call that has to do with descriptors, by group.

    Without a list literal: where it gets no memory for one, free-threaded CPython 3.13 crashes.
    """
    right = pair[1]
    plain = cmsgx.Receiver(right, 16, fds=20, want=[cmsgx.Credentials, cmsgx.PidFd])
    small = cmsgx.Receiver(right, 2, fds=20, want=[cmsgx.Credentials, cmsgx.PidFd])
    owners = [cmsgx.Fd(os.dup(files[0])) for _ in range(3)]
    buffers = [b"x"] * 20
    many: list[int | cmsgx.Fd] = [*owners, *files, *([files[0]] * 60)]

    def from_queue(act: Callable[[Pair], Any], undo: Callable[[Any, Any], object]) -> Act:
        return Act(lambda: queued(pair, files), act, undo)

    def of_message(act: Callable[[Any], Any]) -> Act:
        return Act(lambda: received(pair, files), act, close_message)

    def sending(act: Callable[[Any], Any]) -> Act:
        return Act(lambda: pair, act, lambda _, __: None)

    def batch_from_queue(act: Callable[[Pair], Any]) -> Act:
        return Act(lambda: queued(queued(queued(pair, files), files), files), act, close_result)

    def of_batch(act: Callable[[Any], Any]) -> Act:
        return Act(lambda: batch_received(pair, files), act, close_batch)

    batches = cmsgx.BatchReceiver(right, 4, 16, fds=20, want=[cmsgx.Credentials])
    cut = cmsgx.BatchReceiver(right, 2, 2, fds=2)
    in_background = cmsgx.BatchReceiver(right, 4, 16, fds=2, close="background")
    letters: list[Any] = [
        (b"x", owners), b"y", (b"z", many, cmsgx.Credentials()), ([b"x"] * 20, files)
    ]  # fmt: skip
    wrong: list[Any] = [*letters, (b"bad", [-1])]

    return {
        "receive": {
            "receive": from_queue(lambda p: cmsgx.receive(p[1], 16, fds=20), close_result),
            "receive, less": from_queue(lambda p: cmsgx.receive(p[1], 16, fds=2), close_result),
            "receive, cut": from_queue(lambda p: cmsgx.receive(p[1], 2, fds=2), close_result),
            "Receiver": from_queue(lambda p: plain.receive(), close_result),
            "Receiver, cut": from_queue(lambda p: small.receive(), close_result),
            "Receiver, new": from_queue(
                lambda p: cmsgx.Receiver(p[1], 16, fds=20).receive(), close_result
            ),
            "loop": from_queue(lambda p: next(plain), close_result),
            "recv_fds": from_queue(
                lambda p: cmsgx.recv_fds(p[1], 16, 20),
                close_listed,
            ),
            "recv_fds, less": from_queue(
                lambda p: cmsgx.recv_fds(p[1], 16, 2),
                close_listed,
            ),
            "recvmsg": from_queue(lambda p: cmsgx.recvmsg(p[1], 16, 500), close_owned_numbers),
            "recvmsg, large": from_queue(
                lambda p: cmsgx.recvmsg(p[1], 2000, 5000), close_owned_numbers
            ),
            "recvmsg_into": from_queue(
                lambda p: cmsgx.recvmsg_into(p[1], (bytearray(9),) * 20, 500), close_owned_numbers
            ),
        },
        "send": {
            "send": sending(lambda p: cmsgx.send(p[0], b"x", fds=owners)),
            "send, many": sending(lambda p: cmsgx.send(p[0], buffers, fds=many)),
            "send, Rights": sending(
                lambda p: cmsgx.send(p[0], b"x", control=(cmsgx.Rights(many), cmsgx.Credentials()))
            ),
            "send_all": sending(lambda p: cmsgx.send_all(p[0], b"x", fds=many)),
            "send_fds": sending(lambda p: cmsgx.send_fds(p[0], buffers, many)),
            "sendmsg": sending(lambda p: cmsgx.sendmsg(p[0], (b"x",), (cmsgx.Rights(owners),))),
        },
        "batch": {
            "BatchReceiver": batch_from_queue(lambda _: batches.receive()),
            "BatchReceiver, cut": batch_from_queue(lambda _: cut.receive()),
            "BatchReceiver, background": batch_from_queue(lambda _: in_background.receive()),
            "BatchReceiver, new": batch_from_queue(
                lambda p: cmsgx.BatchReceiver(p[1], 4, 16, fds=20).receive()
            ),
            "batch loop": batch_from_queue(lambda _: next(batches)),
            "batch[1]": of_batch(lambda batch: batch[1]),
            "batch[:]": of_batch(lambda batch: batch[:]),
            "tuple(batch)": of_batch(lambda batch: tuple(batch)),
            "batch[0].fds[0]": of_batch(lambda batch: batch[0].fds[0]),
            "batch[-1].take_all": of_batch(lambda batch: batch[-1].take_all()),
            "repr(batch)": of_batch(lambda batch: repr(batch)),
            "batch.close": of_batch(lambda batch: batch.close()),
            "segments": of_batch(lambda batch: tuple(batch[0].segments)),
            "send_batch": sending(lambda p: cmsgx.send_batch(p[0], letters)),
            "send_batch, a bad one": sending(lambda p: cmsgx.send_batch(p[0], wrong)),
        },
        "message": {
            "fds": of_message(lambda msg: msg.fds),
            "fds[0]": of_message(lambda msg: msg.fds[0]),
            "list(fds)": of_message(lambda msg: list(msg.fds)),
            "repr(fds)": of_message(lambda msg: repr(msg.fds)),
            "take(0)": of_message(lambda msg: msg.take(0)),
            "take_all": of_message(lambda msg: msg.take_all()),
            "take(PidFd)": of_message(lambda msg: msg.take(cmsgx.PidFd)),
            "[Rights]": of_message(lambda msg: msg[cmsgx.Rights]),
            "get_all(Rights)": of_message(lambda msg: msg.get_all(cmsgx.Rights)),
            "[PidFd]": of_message(lambda msg: msg[cmsgx.PidFd]),
            "[Credentials]": of_message(lambda msg: msg[cmsgx.Credentials]),
            "control": of_message(lambda msg: msg.control),
            "iteration": of_message(lambda msg: tuple(msg)),
            "data": of_message(lambda msg: msg.data),
            "view": of_message(lambda msg: msg.view[1:]),
            "address": of_message(lambda msg: msg.address),
            "close": of_message(lambda msg: msg.close()),
        },
        "Fd": {
            # Not accept(): that of _socket loses one where it has no memory for the address.
            **{name: act for name, act in IN_PYTHON.items() if name != "accept"},
            "Fd": Act(
                high_number,
                lambda number: cmsgx.Fd(number),
                lambda number, fd: os.close(number) if fd is None else fd.close(),
            ),
            "dup": Act(a_file, lambda fd: fd.dup(), close_both),
            "detach": Act(a_file, lambda fd: fd.detach(), close_number),
            "fileno": Act(a_file, lambda fd: fd.fileno(), lambda fd, _: fd.close()),
            "close": Act(a_file, lambda fd: fd.close(), lambda fd, _: fd.close()),
            "check": Act(a_file, lambda fd: fd.check(kind="file"), lambda fd, _: fd.close()),
            "check, of a memfd": Act(
                a_memfd,
                lambda fd: fd.check(kind="memfd"),
                lambda fd, _: fd.close(),
            ),
            "PidFd.unpack.own": Act(
                lambda: cmsgx.PidFd.unpack(high_number().to_bytes(4, sys.byteorder)),
                lambda unowned: unowned.own(),
                close_unowned_pidfd,
            ),
        },
    }


def drain(sock: cmsgx.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)


# Python functions with a handler: where no memory is left at all, CPython itself loops for ever at
# the entry of one (3.11: it wants an int for the stack there) or crashes (3.13).
HANDLERS = {
    "send_all", "Receiver, new", "BatchReceiver, new", "check", "check, of a memfd", *IN_PYTHON
}  # fmt: skip


# Without the GIL PyList_New() of CPython 3.13 frees, where it has no memory, what a list before it
# had: str.split() alone crashes it. So what makes lists is left out there, in C or in Python.
MAKES_LISTS = {"recv_fds", "recv_fds, less", *HANDLERS}
HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def fail_allocations(group: str) -> None:
    """Lets each allocation fail in turn, alone and with all behind it."""
    testcapi = importlib.import_module("_testcapi")
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None
    allow_many_descriptors()
    low = [high_number() for _ in range(280)]
    gc.collect()
    gc.freeze()  # what is there already need not be looked at each time
    pair = unix_pair(socket.SOCK_SEQPACKET)
    failures = 0
    with open_files(10) as files:
        for name, (prepare, act, undo) in short_of_memory(pair, files)[group].items():
            # Once with memory: what fills a cache is not in question here.
            prepared = prepare()
            with contextlib.suppress(cmsgx.DataTruncatedError):
                undo(prepared, act(prepared))
            del prepared
            if name in MAKES_LISTS and not HAS_GIL:
                continue
            for alone in (True, False):
                if not alone and name in HANDLERS:
                    continue
                points = clean = start = 0
                while clean < 3:
                    drain(pair[1])
                    _cmsg.closer_wait(60)
                    gc.collect()
                    before = count_open()
                    prepared = prepare()
                    result = None
                    failed = False
                    testcapi.set_nomemory(start, start + 1 if alone else 0)
                    try:
                        result = act(prepared)
                    except MemoryError:
                        failed = True
                    except RuntimeError as error:
                        # What CPython says of a buffered file.
                        if "can't allocate read lock" not in str(error):
                            raise
                        failed = True
                    except cmsgx.DataTruncatedError as error:
                        error.message = None  # type: ignore[assignment]
                    except SystemError as error:
                        # CPython's own: code in Python alone gets it, too.
                        if "exception" not in str(error):
                            raise
                        failed = True
                    finally:
                        testcapi.remove_mem_hooks()
                    undo(prepared, result)
                    del prepared, result
                    gc.collect()
                    _cmsg.closer_wait(60)
                    after = count_open()
                    assert after == before, f"{name}: {after - before} after allocation {start}"
                    points += failed
                    clean = 0 if failed else clean + 1
                    start += 1
                print(f"{name}, {'alone' if alone else 'all from there'}: {points} of {start - 3}")
                failures += points
    assert failures > 0
    close_all(low)


@pytest.mark.parametrize("group", ["receive", "send", "batch", "message", "Fd"])
@pytest.mark.slow
def test_A4_each_allocation_fails_in_turn(group: str) -> None:
    need_testcapi()
    print(in_child("fail_allocations", group))


# A5, A6: SCM_PIDFD ------------------------------------------------------------------------------


@pytest.fixture
def with_pidfd(pair: Pair) -> Pair:
    """A pair whose second socket gets a pidfd with each message."""
    switch_on(pair[1], "SO_PASSPIDFD")
    return pair


@each_way
@pytest.mark.parametrize("sent", [0, 1, 3, MOST])
@pytest.mark.parametrize("asked", [0, 1, 2, MOST])
def test_A5_unasked_pidfds_are_owned_too(with_pidfd: Pair, way: Way, sent: int, asked: int) -> None:
    left, right = with_pidfd
    with open_files(sent) as files:
        before = count_open()
        for _ in range(3):
            cmsgx.send(left, b"x", fds=files)
            way(right, asked)
            assert count_open() == before


def test_A5_taken_or_closed(with_pidfd: Pair) -> None:
    left, right = with_pidfd
    before = count_open()
    receiver = cmsgx.Receiver(right, 1, want=[cmsgx.PidFd])
    cmsgx.send(left, b"x")
    with receiver.receive() as msg:
        assert msg[cmsgx.PidFd].pid == os.getpid()
        assert count_open() == before + 1
    assert count_open() == before
    cmsgx.send(left, b"x")
    with receiver.receive() as msg:
        pidfd = msg.take(cmsgx.PidFd)
        with pytest.raises(ValueError, match="taken before"):
            msg.take(cmsgx.PidFd)
    with pidfd:
        assert pidfd.pid == os.getpid()
        assert not os.get_inheritable(pidfd.fileno())
    assert count_open() == before


def test_A5_every_error_path(with_pidfd: Pair) -> None:
    left, right = with_pidfd
    with open_files(3) as files:
        before = count_open()
        for bufsize in (0, 1, 3):  # a datagram is cut
            cmsgx.send(left, b"data", fds=files)
            with contextlib.suppress(cmsgx.DataTruncatedError):
                cmsgx.receive(right, bufsize, fds=3).close()
            assert count_open() == before
            drain(right)
        for size in range(0, 120, 2):  # a control buffer is too short
            cmsgx.send(left, b"data", fds=files)
            close_all(numbers_in(cmsgx.recvmsg(right, 4, size)[1]))
            assert count_open() == before


@pytest.mark.parametrize("way", ["receive", "Receiver", "not wanted", "recv_fds", "recvmsg"])
def test_A5_many_messages(way: str) -> None:
    """CMSGX_MESSAGES says how many."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right:
        unwanted = cmsgx.Receiver(right, 1)
        switch_on(right, "SO_PASSPIDFD")
        receiver = cmsgx.Receiver(right, 1, fds=1, want=[cmsgx.PidFd])
        calls: dict[str, Callable[[], object]] = {
            "receive": lambda: cmsgx.receive(right, 1).close(),
            "Receiver": lambda: receiver.receive().close(),
            "not wanted": lambda: unwanted.receive().close(),
            "recv_fds": lambda: cmsgx.recv_fds(right, 1, 1),
            "recvmsg": lambda: close_all(numbers_in(cmsgx.recvmsg(right, 1, 100)[1])),
        }
        before = count_open()
        for _ in range(int(os.environ.get("CMSGX_MESSAGES", "5000"))):
            left.send(b"x")
            calls[way]()
        assert count_open() == before


def fill_table(free: int) -> list[int]:
    """Leaves room for that many descriptors; what fills it."""
    filling = []
    soft = 200 + free
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    with contextlib.suppress(OSError):
        while True:
            filling.append(os.dup(0))
    for _ in range(free):
        os.close(filling.pop())
    return filling


def pidfd_without_room() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 1, want=[cmsgx.PidFd])
    filling = fill_table(0)

    def failed(pidfd: cmsgx.PidFd) -> None:
        assert pidfd.error == errno.EMFILE
        assert pidfd.closed
        assert "unavailable" in repr(pidfd)
        for use in (pidfd.fileno, lambda: pidfd.pid, pidfd.dup, pidfd.wait, pidfd.detach):
            with pytest.raises(
                ValueError, match="owns no descriptor: the kernel could make none: "
            ):
                use()
        with pytest.raises(OSError, match=r"fds\[0\]: <PidFd unavailable: [^>]*>$") as caught:
            cmsgx.send(left, b"x", fds=[pidfd])
        assert caught.value.errno == errno.EBADF
        pidfd.close()

    left.send(b"x")
    with receiver.receive() as msg:
        failed(msg[cmsgx.PidFd])
        failed(msg.take(cmsgx.PidFd))
        assert cmsgx.PidFd in msg
    left.send(b"x")
    with cmsgx.receive(right, 1) as msg:
        failed(msg[cmsgx.PidFd])
    left.send(b"x")
    (_, kind, data) = cmsgx.recvmsg(right, 1, 24)[1][0]
    assert kind == _cmsg.SCM_PIDFD
    unowned = cmsgx.decode(socket.SOL_SOCKET, kind, data)
    assert (unowned.number, unowned.error) == (None, errno.EMFILE)
    with pytest.raises(OSError, match="no pidfd") as caught:
        unowned.own()
    assert caught.value.errno == errno.EMFILE
    left.send(b"x")
    assert cmsgx.recv_fds(right, 1, 1)[1] == []
    os.close(filling.pop())
    left.send(b"x")
    with receiver.receive() as msg:
        assert msg[cmsgx.PidFd].error is None
        assert not msg[cmsgx.PidFd].closed
    print("negative closes:", Shim().strangers())


@pytest.mark.slow
def test_A6_the_kernel_could_make_no_pidfd(with_pidfd: Pair) -> None:
    in_child("pidfd_without_room", env=under_shim())


# A7: a full table -------------------------------------------------------------------------------


def full_table() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 16, fds=4)
    keeper = cmsgx.Receiver(right, 16, fds=4, on_truncation="keep")
    raising: Receives = (receiver.receive, lambda: cmsgx.receive(right, 16, fds=4))
    keeping: Receives = (
        keeper.receive,
        lambda: cmsgx.receive(right, 16, fds=4, on_truncation="keep"),
    )
    with open_files(6) as files:
        for free in range(5):
            filling = fill_table(free)
            before = set(range(200 + free)) - {n for n in range(200 + free) if not is_open(n)}
            for sent in range(7):
                missing = free < min(sent, 4)
                for receive in raising:
                    cmsgx.send(left, b"data", fds=files[:sent])
                    if not missing:
                        with receive() as msg:
                            assert len(msg.fds) == min(sent, 4)
                    else:
                        with pytest.raises(cmsgx.FdLimitError, match="RLIMIT_NOFILE") as caught:
                            receive()
                        error = caught.value
                        assert error.errno == errno.EMFILE
                        assert str(200 + free) in str(error)
                        told = re.search(r"(\w+) descriptors? arrived, room was for 4:", str(error))
                        assert told is not None
                        assert told[1] == str(free or "no")
                        assert error.message.data == b"data"
                        assert error.message.truncated
                        assert error.message.closed_fds is None
                        del error, caught
                    assert {n for n in range(200 + free) if is_open(n)} == before
                for receive in keeping:
                    cmsgx.send(left, b"data", fds=files[:sent])
                    with receive() as msg:
                        assert len(msg.fds) == min(sent, 4, free)
                        assert [content(fd) for fd in msg.fds] == [
                            str(i) for i in range(min(sent, 4, free))
                        ]
                        assert msg.truncated == (sent > min(4, free))
                    assert {n for n in range(200 + free) if is_open(n)} == before
                # The drop-ins tell by the flag.
                cmsgx.send(left, b"data", fds=files[:sent])
                _, numbers, flags, _ = cmsgx.recv_fds(right, 16, 4)
                assert len(numbers) == min(sent, 4, free)
                assert bool(flags & socket.MSG_CTRUNC) == (sent > min(4, free))
                close_all(numbers)
                assert {n for n in range(200 + free) if is_open(n)} == before
            close_all(filling)


def test_A7_table_full() -> None:
    in_child("full_table")


def withheld_by_another() -> None:
    """As a security module does: no descriptors, MSG_CTRUNC, and the table has room."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    receiver = cmsgx.Receiver(right, 16, fds=2)
    with open_files(2) as files:
        before = count_open()
        calls: Receives = (receiver.receive, lambda: cmsgx.receive(right, 16, fds=2))
        for receive in calls:
            cmsgx.send(left, b"data", fds=files)
            shim.mode("withheld")
            with pytest.raises(cmsgx.FdLimitError, match="withheld: limit or security module") as e:
                receive()
            shim.mode("")
            assert "RLIMIT_NOFILE" not in str(e.value)
            assert e.value.message.data == b"data"
            del e
        assert count_open() == before


def test_A7_withheld_by_another() -> None:
    in_child("withheld_by_another", env=under_shim())


def flapping_limit(messages: int) -> None:
    """The limit comes and goes: each loss is an exception."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 16, fds=20)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    chance = random.Random(2)
    lost = 0
    with open_files(20) as files:
        before = count_open()
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        for _ in range(messages):
            count = chance.randrange(21)
            cmsgx.send(left, b"x", fds=files[:count])
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + chance.randrange(30), hard))
            try:
                with receiver.receive() as msg:
                    assert len(msg.fds) == count
            except cmsgx.FdLimitError:
                lost += 1
        allow_many_descriptors()
        assert count_open() == before
    assert 0 < lost < messages
    print(f"{messages} messages, {lost} raised")


def test_A7_flapping_limit() -> None:
    in_child("flapping_limit", 5000)


# A8: a full table, in a batch -------------------------------------------------------------------


def kept_of(batch: cmsgx.wire.Batch, each: int) -> list[int]:
    """How many descriptors each message has; one that lacks some says so."""
    for msg in batch:
        assert msg.truncated == (len(msg.fds) < each)
        assert msg.closed_fds == (None if msg.truncated else 0)
        assert [content(fd) for fd in msg.fds] == [str(i) for i in range(len(msg.fds))]
    return [len(msg.fds) for msg in batch]


def full_table_in_a_batch() -> None:
    """Five messages of ten descriptors each, and room for some of them."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 5, 16, fds=10)
    messages: list[Any]
    with open_files(10) as files:
        messages = [(str(i).encode(), files) for i in range(5)]
        for free in range(61):
            filling = fill_table(free)
            before = {n for n in range(200 + free) if is_open(n)}
            for is_kept in (False, True):
                assert cmsgx.send_batch(left, messages) == 5
                got: list[list[int]] = []
                batches = []
                data = b""
                while sum(map(len, got)) < 5:
                    batch = rx.receive(timeout=0)
                    got.append(kept_of(batch, 10))
                    data += b"".join(msg.data for msg in batch)
                    batches.append(batch)
                    if not is_kept:
                        batch.close()
                assert data == b"01234"
                # Only a call that takes one message may find too little room for it.
                assert all(len(part) == 1 or part == [10] * len(part) for part in got), (free, got)
                flat = [count for part in got for count in part]
                if is_kept:
                    assert sum(flat) == min(free, 50)
                    assert flat == sorted(flat, reverse=True)
                else:
                    assert flat == [min(free, 10)] * 5
                    assert max(map(len, got)) <= max(free // 10, 1)
                if free == 25 and is_kept:
                    assert got == [[10, 10], [5], [0], [0]]
                for batch in batches:
                    batch.close()
                assert {n for n in range(200 + free) if is_open(n)} == before
            close_all(filling)
    print("done")


def test_A8_a_batch_stops_before_the_table_is_full() -> None:
    assert in_child("full_table_in_a_batch").strip() == "done"


def filled_while_it_waits(timeout: float | None, by: str) -> None:
    """What there is room for is looked at when something has come."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 5, 16, fds=10)
    right.settimeout(timeout)
    limit: dict[str, Any] = {"timeout": timeout} if by == "argument" else {}
    results: list[list[int]] = []

    def receive() -> None:
        got = 0
        while got < 5:
            with rx.receive(**limit) as batch:
                results.append(kept_of(batch, 10))
                got += len(batch)

    with open_files(10) as files:
        thread = threading.Thread(target=receive)
        thread.start()
        until_it_waits(thread)
        filling = fill_table(25)
        assert cmsgx.send_batch(left, [(b"x", files)] * 5) == 5
        thread.join()
        # At most two at once, as there is room for no more.
        assert [n for part in results for n in part] == [10] * 5, results
        assert max(map(len, results)) <= 2
        close_all(filling)
    print("done")


@pytest.mark.parametrize("timeout", [20.0, None])
@pytest.mark.parametrize("by", ["socket", "argument"])
@pytest.mark.slow
def test_A8_also_where_it_is_filled_while_it_waits(timeout: float | None, by: str) -> None:
    assert in_child("filled_while_it_waits", timeout, by).strip() == "done"


def test_A8_what_does_not_block_does_not_wait(packets: Pair) -> None:
    """Though the socket object says that it would."""
    os.set_blocking(packets[1].fileno(), False)
    for sock in (packets[1], packets[1].fileno()):
        with pytest.raises(BlockingIOError):
            cmsgx.BatchReceiver(sock, 5, 16, fds=10).receive()


def pidfds_in_a_batch() -> None:
    """What others send besides must not take the room of the pidfds, which tell who they are."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 8, 16, want=[cmsgx.PidFd])
    with open_files(1) as files:
        filling = fill_table(600)
        for _ in range(3):
            got = sent = 0
            while got < 8:
                # RLIMIT_NOFILE can bound what is in flight, too.
                if sent < 8:
                    sent += cmsgx.send_batch(left, [(b"x", files * MOST)] * (8 - sent))
                with rx.receive(timeout=0) as batch:
                    assert [msg[cmsgx.PidFd].error for msg in batch] == [None] * len(batch)
                    assert [msg.closed_fds for msg in batch] == [MOST] * len(batch)
                    got += len(batch)
        close_all(filling)
    print("done")


@pytest.mark.slow
def test_A8_pidfds_have_room_whatever_else_is_sent(with_pidfd: Pair) -> None:
    assert in_child("pidfds_in_a_batch").strip() == "done"


def flapping_limit_of_batches(messages: int) -> None:
    """The limit comes and goes: each loss shows at its message."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 16, 16, fds=20)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    chance = random.Random(2)
    lost = whole = 0
    with open_files(20) as files:
        before = count_open()
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        while lost + whole < messages:
            counts = [chance.randrange(21) for _ in range(8)]
            allow_many_descriptors()
            cmsgx.send_batch(left, [(b"x", files[:count]) for count in counts])
            while counts:
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + chance.randrange(99), hard))
                with rx.receive(timeout=0) as batch:
                    for msg in batch:
                        is_whole = len(msg.fds) == counts.pop(0)
                        assert msg.truncated != is_whole
                        lost += not is_whole
                        whole += is_whole
        allow_many_descriptors()
        assert count_open() == before
    assert lost > 0
    assert whole > 0
    print(f"{messages} messages, {lost} said to be truncated")


def test_A8_flapping_limit() -> None:
    in_child("flapping_limit_of_batches", 20_000)


# A9: MSG_PEEK -----------------------------------------------------------------------------------


def test_A9_peek_with_descriptors_is_refused(pair: Pair) -> None:
    left, right = pair
    receiver = cmsgx.Receiver(right, 16, fds=1)
    flags = (0, socket.MSG_DONTWAIT, socket.MSG_TRUNC, socket.MSG_WAITALL)
    with open_files(2) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        for more in flags:
            peek = socket.MSG_PEEK | more
            with pytest.raises(ValueError, match="MSG_PEEK"):
                receiver.receive(flags=peek)
            for asked in (1, MOST):
                with pytest.raises(ValueError, match="MSG_PEEK"):
                    cmsgx.receive(right, 16, fds=asked, flags=peek)
            assert count_open() == before
        with receiver.receive() as msg:
            assert content(msg.fds[0]) == "0"


def test_A9_peek_at_the_data_alone(pair: Pair) -> None:
    left, right = pair
    receiver = cmsgx.Receiver(right, 16)
    with open_files(2) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        for _ in range(5):
            msg = receiver.receive(flags=socket.MSG_PEEK)
            assert msg.data == b"data"
            assert len(msg.fds) == 0
            assert count_open() == before
            msg = cmsgx.receive(right, 16, flags=socket.MSG_PEEK)
            assert msg.data == b"data"
            assert count_open() == before
        with cmsgx.receive(right, 16, fds=2) as msg:
            assert [content(fd) for fd in msg.fds] == ["0", "1"]
        assert count_open() == before


# A10: one close ---------------------------------------------------------------------------------


def race_to_close(rounds: int) -> None:
    """Of eight threads that close or detach, exactly one does."""
    shim = Shim()
    fds: list[cmsgx.Fd] = []
    won: list[int] = []
    start, end = threading.Barrier(9), threading.Barrier(9)

    def contend(detaches: bool) -> None:
        for _ in range(rounds):
            start.wait()
            with contextlib.suppress(ValueError):
                if detaches:
                    won.append(fds[-1].detach())
                else:
                    fds[-1].close()
            end.wait()

    threads = [threading.Thread(target=contend, args=(i % 2 == 0,)) for i in range(8)]
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    detached = 0
    for _ in range(rounds):
        number = high_number()
        fds[:] = [cmsgx.Fd(number)]
        won.clear()
        shim.reset()
        start.wait()
        end.wait()
        assert fds[0].closed
        assert len(won) + shim.closes(number) == 1, (won, shim.closes(number))
        if won:
            detached += 1
            assert won == [number]
            assert is_open(number)
            os.close(number)
        else:
            assert not is_open(number)
    for thread in threads:
        thread.join()
    print(f"{rounds} rounds, detached in {detached}")


@pytest.mark.parametrize("rounds", lengths("CMSGX_RACES", 200, 2000))
def test_A10_close_and_detach_by_eight_threads(rounds: int) -> None:
    in_child("race_to_close", rounds, env=under_shim())


def test_A10_close_is_idempotent() -> None:
    fd = a_file()
    number = fd.fileno()
    fd.close()
    again = high_number()
    assert again == number
    for _ in range(3):
        fd.close()
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.fileno()
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.detach()
    del fd
    gc.collect()
    assert is_open(again)
    os.close(again)


def test_A10_taken_and_closed_once(pair: Pair) -> None:
    """The message, the taker and the collector: one close."""
    left, right = pair
    with open_files(3) as files:
        cmsgx.send(left, b"x", fds=files)
        with cmsgx.receive(right, 1, fds=3) as msg:
            kept = msg.fds[1]
            numbers = [fd.fileno() for fd in msg.fds]
            taken = msg.take(0)
            with pytest.raises(ValueError, match="taken before"):
                msg.take(0)
        assert kept.closed
        assert not taken.closed
        strangers = [high_number(), high_number()]
        assert sorted(strangers) == numbers[1:]
        msg.close()
        kept.close()
        del msg, kept
        gc.collect()
        assert all(map(is_open, strangers))
        taken.close()
        close_all(strangers)


def number_zero() -> None:
    os.close(0)
    assert os.open("/dev/null", os.O_RDONLY) == 0
    os.close(0)
    here, there = unix_pair(socket.SOCK_SEQPACKET)
    if here.fileno() == 0:
        here.detach()
        here = cmsgx.socket(fileno=os.dup(0))
        os.close(0)
    with open_files(0):
        file = os.memfd_create("zero")
        if file == 0:
            file = os.dup(0)
            os.close(0)
        os.pwrite(file, b"zero", 0)
    receiver = cmsgx.Receiver(there, 1, fds=1)
    calls: Receives = (receiver.receive, lambda: cmsgx.receive(there, 1, fds=1))
    for receive in calls:
        cmsgx.send(here, b"x", fds=[file])
        with receive() as msg:
            assert msg.fds[0].fileno() == 0
            assert not msg.fds[0].closed
            assert content(msg.fds[0]) == "zero"
        assert not is_open(0)
        cmsgx.send(here, b"x", fds=[file])
        receive().close()
        assert not is_open(0)
    cmsgx.send(here, b"x", fds=[file] * 3)
    assert receiver.receive().take(0).detach() == 0
    fd = cmsgx.Fd(0)
    cmsgx.send(here, b"x", fds=[fd, 0])
    fd.close()
    assert not is_open(0)
    data, numbers, _, _ = cmsgx.recv_fds(there, 1, 1)
    assert (data, numbers) == (b"x", [0])
    os.close(0)
    # A surplus that is number 0 is closed, too.
    other = os.dup(file)
    os.close(other)
    cmsgx.send(here, b"x", fds=[file])
    assert cmsgx.recv_fds(there, 1, 0)[1] == []
    assert not is_open(0)
    cmsgx.send(here, b"x", fds=[file])
    fd = cmsgx.receive(there, 1, fds=1).take(0)
    assert fd.fileno() == 0
    duplicate = fd.dup()
    with fd.open("rb") as opened:
        assert opened.fileno() >= 0
        assert opened.read() == b"zero"
    assert fd.closed
    duplicate.close()


def test_A10_number_zero() -> None:
    in_child("number_zero")


# A11: the right file ----------------------------------------------------------------------------


class Slot:
    """An Fd that other threads replace, by one of the same number as often as can be."""

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.fd = self.make(tag)

    @staticmethod
    def make(tag: int) -> cmsgx.Fd:
        fd = cmsgx.Fd(os.memfd_create("tagged"))
        os.pwrite(fd.fileno(), str(tag).encode(), 0)
        return fd


@pytest.mark.slow
def test_A11_no_wrong_file_goes_out() -> None:
    """Threads close and reopen what is being sent; CMSGX_SENDS says how often."""
    sends = int(os.environ.get("CMSGX_SENDS", "60000"))
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    tags = itertools.count()
    slots = [(0, Slot.make(0))]
    stop = threading.Event()
    counts = {"right": 0, "wrong": 0, "closed": 0}

    def replace() -> None:
        while not stop.is_set():
            time.sleep(2e-5)
            tag = next(tags)
            old = slots[0][1]
            old.close()
            slots[0] = (tag, Slot.make(tag))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=replace) for _ in range(2)]
    with left, right, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for thread in threads:
            thread.start()
        try:
            for _ in range(sends):
                tag, fd = slots[0]
                try:
                    cmsgx.send(left, str(tag).encode(), fds=[fd])
                except OSError as error:
                    if error.errno != errno.EBADF or "fds[0]" not in str(error):
                        raise
                    counts["closed"] += 1
                    continue
                with cmsgx.receive(right, 32, fds=1) as msg:
                    is_right = content(msg.fds[0]).encode() == msg.data
                    counts["right" if is_right else "wrong"] += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        slots.clear()
        gc.collect()
    print(counts)
    assert counts["wrong"] == 0
    assert counts["right"] > 0


def pinned() -> None:
    """The system call is slow, and meanwhile another thread closes what it sends."""
    shim = Shim()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim.delay_send(300)
    errors: list[BaseException] = []

    def send(fd: cmsgx.Fd) -> None:
        try:
            cmsgx.send(left, b"x", fds=[fd])
        except BaseException as error:
            errors.append(error)

    for _ in range(4):
        fd = Slot.make(1)
        number = fd.fileno()
        thread = threading.Thread(target=send, args=(fd,))
        thread.start()
        assert eventually(shim.is_sending)
        fd.close()
        assert shim.is_sending(), "close() waited"
        assert fd.closed
        other = Slot.make(2)
        assert other.fileno() != number, "the number was given away while it was being sent"
        thread.join()
        assert not errors
        assert not is_open(number)
        with cmsgx.receive(right, 1, fds=1) as msg:
            assert content(msg.fds[0]) == "1"
        other.close()


def test_A11_pinned_for_the_system_call() -> None:
    in_child("pinned", env=under_shim())


@pytest.mark.parametrize("reuse", [True, False], ids=["number reused", "closed"])
def test_A11_a_retry_after_close_raises(stream: Pair, reuse: bool) -> None:
    """While it waits for room, the Fd is closed, and its number perhaps taken by another file."""
    left, right = stream
    full = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            full += left.send(bytes(65536), socket.MSG_DONTWAIT)
    left.settimeout(60)
    errors: list[OSError] = []
    first = Slot.make(0)
    fd = Slot.make(1)
    number = fd.fileno()

    def send() -> None:
        try:
            cmsgx.send(left, b"x", fds=[first, fd])
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    until_it_waits(thread)
    fd.close()
    assert not is_open(number)
    other = Slot.make(2) if reuse else None
    assert other is None or other.fileno() == number
    while full > 0:
        full -= len(right.recv(65536))
    thread.join()
    assert [error.errno for error in errors] == [errno.EBADF]
    assert "fds[1]" in str(errors[0])
    left.send(b"end")
    with cmsgx.receive(right, 9, fds=2) as msg:
        assert msg.data == b"end"
        assert len(msg.fds) == 0
    first.close()
    if other is not None:
        other.close()


@pytest.mark.parametrize("index", [0, 1, 5])
def test_A11_a_closed_owner_is_named(pair: Pair, index: int) -> None:
    left, _ = pair
    with open_files(6) as files:
        fds: list[int | cmsgx.Fd] = list(files)
        closed = cmsgx.Fd(os.dup(files[0]))
        closed.close()
        fds[index] = closed
        for send in (
            lambda: cmsgx.send(left, b"x", fds=fds),
            lambda: cmsgx.send(left, b"x", control=cmsgx.Rights(fds)),
            lambda: cmsgx.send_all(left, b"x", fds=fds),
            lambda: cmsgx.send_fds(left, [b"x"], fds),
        ):
            with pytest.raises(OSError, match=rf"fds\[{index}\]") as caught:
                send()
            assert caught.value.errno == errno.EBADF


# A13: an interrupted close ----------------------------------------------------------------------


def apart(sock: cmsgx.socket, count: int) -> list[int]:
    """Sends that many, to be received at numbers with gaps: closed one by one."""
    with open_files(count) as files:
        cmsgx.send(sock, b"x", fds=files)
    return []


def interrupted_close(name: str) -> None:
    """close() fails with EINTR once the descriptor is gone: it must not be called again."""
    shim = Shim()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    warnings.simplefilter("ignore", ResourceWarning)
    receiver = cmsgx.Receiver(right, 1, fds=3)
    one = cmsgx.Receiver(right, 1, fds=1)
    # Every other number is free, so that what arrives is no contiguous run.
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
        # One close for each descriptor that came and went, however often a number came again.
        twice = {n: closed[n] for n in listing if closed[n] > opened_at(name, n, closed)}
        assert not twice, (times, twice)


def opened_at(name: str, number: int, closed: dict[int, int]) -> int:
    """How often that number can have been opened: listing /proc opens the lowest free one."""
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
