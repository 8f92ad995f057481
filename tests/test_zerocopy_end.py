"""ZeroCopySender: how it ends, also in a forked child, and interruptions."""

from __future__ import annotations

import errno
import gc
import os
import resource
import select
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any, cast

import pytest
from batches import handling, of_handlers, raising
from memory import each_allocation_fails, without_other_threads
from namespaces import Namespace
from support import eventually, in_fork, lengths
from zerocopies import (
    LAST,
    MSG_ZEROCOPY,
    SIZE,
    can_resize,
    completion,
    kernel_id,
    read,
    reads_of,
    send_until_it_fails,
    stalled,
    tcp,
    udp,
)

import cmsgx
from cmsgx import kinds
from cmsgx._core import zerocopy

SO_TIMESTAMPING = 37
SOFTWARE, TX_SOFTWARE, OPT_ID, OPT_TSONLY = 1 << 4, 1 << 1, 1 << 7, 1 << 11


# The end ------------------------------------------------------------------------------------------


def test_close_waits() -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, right, ahead):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(buffer)
        drain = threading.Timer(0.2, lambda: read(right, ahead + SIZE))
        drain.start()
        assert sender.close() == ()
        drain.join()
        assert can_resize(buffer)
        assert sender.close() == ()
        with pytest.raises(ValueError, match="closed"):
            sender.send(b"1")


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_close_hands_back_what_is_in_flight(timeout: float) -> None:
    one, two = bytearray(b"1" * SIZE), bytearray(b"2" * SIZE)
    with stalled() as (left, right, ahead):
        sender = cmsgx.ZeroCopySender(left)
        sender.send([one, b"more"])
        sender.send(two)
        views = sender.close(timeout)
        assert [bytes(view[:1]) for view in views] == [b"1", b"m", b"2"]
        assert views[0].obj is one
        assert sender.closed
        assert sender.pending == (0, 0)
        assert not can_resize(one)
        assert read(right, ahead + 2 * SIZE + 4)[ahead:] == one + b"more" + two
        assert sender.reap() == 0
        del views
        assert can_resize(one)


def test_release_continues() -> None:
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        sender.send(b"1" * SIZE)
        [view] = sender.release()
        sender.send(b"2" * SIZE)
        assert sender.pending == (1, SIZE)
        assert read(right, ahead + 2 * SIZE)[ahead:] == bytes(view) + b"2" * SIZE
        sender.wait(60)
        assert sender.next_id == 2


@pytest.mark.parametrize(("timeout", "expected"), [(0, BlockingIOError), (0.1, TimeoutError)])
def test_with_waits_and_says_so(timeout: float, expected: type[Exception]) -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, _, _):
        left.settimeout(timeout)
        with pytest.raises(expected), cmsgx.ZeroCopySender(left) as sender:
            sender.send(buffer)
        assert not sender.closed
        assert not can_resize(buffer)
        assert len(sender.close(0)) == 1


def test_with_that_fails_waits_for_nothing() -> None:
    with stalled() as (left, _, _):
        left.settimeout(None)
        sender = cmsgx.ZeroCopySender(left)
        sender.send(b"1")
        with pytest.raises(LookupError), sender:
            raise LookupError
        assert sender.closed
        assert len(sender.release()) == 1


def test_memory_in_flight_is_kept_when_the_sender_is_collected() -> None:
    buffer = bytearray(SIZE)
    before = len(zerocopy._abandoned)
    with stalled() as (left, _, _):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(buffer)
        senders = [sender]
        del sender
        with pytest.warns(ResourceWarning, match="1 buffers in flight"):
            senders.clear()
        assert not can_resize(buffer)
    [[view]] = zerocopy._abandoned[before:]
    del zerocopy._abandoned[before:], view
    assert can_resize(buffer)


def test_a_collected_sender_looks_once_more() -> None:
    with udp() as (left, _):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(b"1")
        assert sender.pending == (1, 1)
        del sender  # warns about nothing
        gc.collect()


def test_a_reset_completes_everything() -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, right, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(buffer)
        right.close()  # with unread data: RST
        sender.wait(60)
        assert can_resize(buffer)
        with pytest.raises(ConnectionResetError):
            sender.send(buffer)


@pytest.mark.slow
def test_a_pending_error_is_neither_taken_nor_spun_on() -> None:
    """POLLERR and POLLHUP stay set, and no completion comes: with an id that the kernel never
    reports."""
    with tcp() as (left, right):
        sender = cmsgx.ZeroCopySender(left, next_id=1000)
        sender.send(b"1")
        left.send(b"2")
        right.close()
        poll = select.poll()
        poll.register(left, 0)
        assert poll.poll(60_000)
        reads = reads_of(sender)
        with pytest.raises(TimeoutError):
            sender.wait(0.5)
        assert 0 < reads() < 100
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        sender.release()


@pytest.mark.parametrize("form", ["socket", "Fd", "int"])
def test_a_closed_socket(form: str) -> None:
    with stalled() as (left, _, _):
        owner = left if form == "socket" else cmsgx.Fd(os.dup(left.fileno()))
        sender = cmsgx.ZeroCopySender(owner.fileno() if form == "int" else owner)
        sender.send(b"1")
        owner.close()
        for call in (sender.wait, sender.reap, lambda: sender.send(b"2")):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                call()
            assert caught.value.errno == errno.EBADF
        assert [bytes(view) for view in sender.close()] == [b"1"]
        assert sender.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            cmsgx.ZeroCopySender(left if form == "socket" else owner)


def test_a_number_that_was_reused_by_another_socket() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stalled() as (left, _, _), one, two:
        number = os.dup(left.fileno())
        sender = cmsgx.ZeroCopySender(number)
        sender.send(b"1")
        os.dup2(two.fileno(), number)
        for data in (b"a", b"stranger's"):
            one.send(data)
        with pytest.raises(cmsgx.NotSupportedError, match="no error queue") as caught:
            sender.reap()
        assert cast(Any, caught.value).message.data == b"a"
        assert two.recv(100) == b"stranger's"
        assert sender.pending == (1, 1)
        assert [bytes(view) for view in sender.release()] == [b"1"]
        os.close(number)


@pytest.mark.parametrize("error", of_handlers(), ids=repr)
def test_close_propagates_what_a_handler_raises(error: Exception) -> None:
    with stalled() as (left, _, _), handling(raising(error)):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(b"1")
        # Repeated, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 5)
        with pytest.raises(type(error)) as caught:
            sender.close()
        assert caught.value is error
        assert not sender.closed
        assert len(sender.close(0)) == 1


# A forked child -----------------------------------------------------------------------------------


def left_by_exit(sender: cmsgx.ZeroCopySender) -> None:
    with suppress(LookupError), sender:
        raise LookupError


@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize(
    "leave",
    [
        cmsgx.ZeroCopySender.__del__,
        cmsgx.ZeroCopySender.close,
        cmsgx.ZeroCopySender.release,
        left_by_exit,
        lambda sender: sender.__exit__(None, None, None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_child_leaves_the_completions(
    leave: Callable[[cmsgx.ZeroCopySender], object], is_locked: bool
) -> None:
    buffer = bytearray(SIZE)
    before = len(zerocopy._abandoned)
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(buffer)

        def child() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                leave(sender)
            assert len(zerocopy._abandoned) == before

        if is_locked:
            with sender._lock:
                in_fork(child)
        else:
            in_fork(child)
        assert sender.pending == (1, SIZE)
        sender.wait(60)
        assert can_resize(buffer)


@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize(
    "use",
    [
        lambda sender: sender.send(b"1"),
        lambda sender: sender.send(b""),
        lambda sender: sender.send_all([b"1", b"2"]),
        lambda sender: sender.reap(),
        lambda sender: sender.wait(1),
        lambda sender: sender.acknowledge(None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_child_gets_an_error_that_the_completions_are_not_its_own(
    use: Callable[[cmsgx.ZeroCopySender], object], is_locked: bool
) -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(bytearray(SIZE))

        def child() -> None:
            with pytest.raises(RuntimeError, match=r"copy made by fork\(\).* next_id=1 "):
                use(sender)
            assert len(sender.close()) == 1

        with sender._lock if is_locked else nullcontext():
            in_fork(child)
        sender.wait(60)


# ENOBUFS ------------------------------------------------------------------------------------------


def with_little_locked_memory() -> None:
    """As a user id that nothing else uses, so that no other process's pinned memory counts."""
    user = 200_000 + os.getpid()
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        # Nothing is in flight, so there is nothing to wait for.
        with pytest.raises(OSError, match="No buffer space") as caught:
            cmsgx.send(left, bytes(100_000), flags=MSG_ZEROCOPY)
        assert caught.value.errno == errno.ENOBUFS
        assert sender.send(bytes(100_000)) == 100_000
        assert sender.pending == (0, 0)
        assert sender.next_id == 0

        buffer = bytearray(SIZE)
        sent, error = send_until_it_fails(sender, buffer, 0.2)
        sent += ahead + 100_000
        assert type(error) is TimeoutError
        count = sender.pending.sends
        assert 1 <= count <= 3
        threading.Timer(0.2, lambda: read(right, sent)).start()
        assert sender.send(buffer, timeout=60) == SIZE
        assert sender.next_id == count + 1
        read(right, SIZE)
        sender.wait(60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
@pytest.mark.slow
def test_enobufs_for_locked_memory() -> None:
    in_fork(with_little_locked_memory)


def test_enobufs_for_the_memory_of_options() -> None:
    with Namespace() as space:
        try:
            space.write("/proc/sys/net/core/optmem_max", "4096")
        except OSError as why:
            pytest.skip(f"optmem_max of a namespace: {why}")
        with stalled(space.socket) as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
            sent = ahead
            error = None
            while error is None:
                try:
                    sent += sender.send(b"1", timeout=0.1)
                except TimeoutError as why:
                    error = why
                # Otherwise the kernel joins two sends: the first of these ends the packet that the
                # send was added to, and the second is in a packet of its own.
                for _ in range(2):
                    sent += left.send(b"2", socket.MSG_EOR)
            count = sender.pending.sends
            assert 1 <= count <= 20
            # It was not another limit.
            with pytest.raises(OSError, match="No buffer space"):
                cmsgx.send(left, b"1", flags=MSG_ZEROCOPY)
            drain = threading.Timer(0.2, lambda: read(right, sent))
            drain.start()
            assert sender.send(b"1", timeout=60) == 1
            drain.join()
            sender.wait(60)
            assert sender.next_id == count + 1


# What else is on the error queue ------------------------------------------------------------------


def test_other_reports_are_kept() -> None:
    with udp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        cmsgx.enable(left, kinds.ExtendedError)
        left.setsockopt(
            socket.SOL_SOCKET, SO_TIMESTAMPING, SOFTWARE | TX_SOFTWARE | OPT_ID | OPT_TSONLY
        )
        for _ in range(3):
            sender.send(b"1")
        closed = right.getsockname()
        right.close()
        sender.send(b"2", address=closed)
        assert eventually(lambda: sender.reap() >= 0 and len(sender.reports) == 5)
        sender.wait(60)
        assert sender.next_id == 4
        stamps = [each for each in sender.reports if isinstance(each, kinds.SentTimestamp)]
        errors = [each for each in sender.reports if isinstance(each, kinds.IcmpError)]
        assert [stamp.id for stamp in stamps] == [0, 1, 2, 3]
        assert [(each.errno, each.payload) for each in errors] == [(errno.ECONNREFUSED, b"2")]
        assert sender.lost_reports == 0
        assert sender.reports.popleft() is not None


def test_reports_that_nobody_takes_are_counted() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        most = sender.reports.maxlen
        assert most is not None
        report = kinds.UnknownReport(cast(Any, None), None)
        for _ in range(most + 3):
            assert sender.acknowledge(report) == 0
        assert len(sender.reports) == most
        assert sender.lost_reports == 3


def test_reports_that_others_read() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(b"1")
        done = sum(sender.acknowledge(each) for each in cmsgx.receive_errors(left))
        assert done == 1
        assert sender.pending == (0, 0)


# Interruptions and threads ------------------------------------------------------------------------


class Interrupted(Exception):
    pass


class Interruptions:
    """Raises Interrupted wherever Python can, repeatedly; counts the exceptions."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Interruptions:
        # Finalisers of objects that another test left must not be interrupted.
        gc.collect()
        gc.disable()
        self._before = signal.signal(signal.SIGALRM, self._raise)
        return self

    def _raise(self, *_: object) -> None:
        raise Interrupted

    def run(self, step: Callable[[], bool], times: int) -> None:
        """Repeats the step until it returns False, while it is interrupted again and again."""
        for _ in range(times):
            try:
                # Only once: nothing raises between the place where this was caught and the next
                # time.
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + (self.count % 97) * 1e-6)
                self._until_it_fires(step)
            except Interrupted:
                self.count += 1

    # A function, because the backward jump of a loop is not always within the try around the loop.
    @staticmethod
    def _until_it_fires(step: Callable[[], bool]) -> None:
        while step():
            pass
        time.sleep(1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        gc.enable()


@pytest.mark.parametrize("times", lengths("CMSGX_INTERRUPTIONS", 200, 10_000))
def test_an_interruption_loses_no_completion(times: int) -> None:
    with (
        Interruptions() as interruptions,
        udp() as (left, _),
        cmsgx.ZeroCopySender(left, max_pending=8) as sender,
    ):
        interruptions.run(lambda: sender.send([b"x" * 100, b"y"]) == 101, times)
        assert interruptions.count == times
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert kernel_id(left) == sender.next_id


@pytest.mark.parametrize("times", lengths("CMSGX_INTERRUPTIONS", 50, 2500))
def test_an_interruption_loses_no_send(times: int) -> None:
    with Interruptions() as interruptions:
        for _ in range(4):
            with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
                left.settimeout(0)

                def step(sender: cmsgx.ZeroCopySender = sender) -> bool:
                    try:
                        return sender.send(b"x" * 100) > 0
                    except BlockingIOError:
                        return False

                interruptions.run(step, times)
                right.settimeout(60)
                count, size = sender.pending
                assert 0 < count == sender.next_id
                left.shutdown(socket.SHUT_WR)
                arrived = 0
                while more := right.recv(1 << 16):
                    arrived += len(more)
                assert arrived == ahead + size
                left.settimeout(60)
        assert interruptions.count == 4 * times


@pytest.mark.parametrize("name", ["send", "reap", "acknowledge", "release"])
@without_other_threads
def test_a_failed_allocation_keeps_neither_the_lock_nor_a_buffer(name: str) -> None:
    """With the lock held for ever, close() and everything else would never return."""
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        data = (b"x" * 100, b"y")
        report = completion(LAST - 1, LAST - 1)
        act: dict[str, Callable[[], Any]] = {
            "send": lambda: sender.send(data),
            "reap": sender.reap,
            "acknowledge": lambda: sender.acknowledge(report),
            "release": sender.release,
        }
        for _ in each_allocation_fails(act[name]):
            is_locked = sender._lock.locked()
            if is_locked:  # otherwise the end of the test would wait for ever
                sender._lock.release()
            assert not is_locked
            in_flight = sum(sending.sent[0] for sending in sender._in_flight.values())
            assert sender.pending.bytes == in_flight
            if name != "send":
                sender.send(data)
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert kernel_id(left) == sender.next_id


def test_threads_take_turns() -> None:
    count, threads = 300, 4
    with udp() as (left, _), cmsgx.ZeroCopySender(left, max_pending=3) as sender:

        def body() -> None:
            for _ in range(count):
                sender.send(bytes(5000), timeout=60)

        running = [threading.Thread(target=body) for _ in range(threads)]
        for each in running:
            each.start()
        for each in running:
            each.join()
        sender.wait(60)
        assert sender.next_id == count * threads == kernel_id(left)
