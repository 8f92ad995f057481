"""The rules of zero copy, without a socket: what is sent how, what is held, and for how long."""

from __future__ import annotations

import errno
import gc
import os
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from zerocopies import COPIED, LAST, MSG_ZEROCOPY, can_resize, completion

import cmsgx
from cmsgx import _cmsg, kinds
from cmsgx._core.zerocopy import SenderBase, Sending

if TYPE_CHECKING:
    from typing import Self

ERRQUEUE = _cmsg.MSG_ERRQUEUE


def sending_of(*buffers: bytes | bytearray) -> Sending:
    return Sending([memoryview(buffer) for buffer in buffers])


def entry(first: int, last: int, code: int = 0, flags: int = ERRQUEUE) -> Any:
    """A message of the error queue."""
    error = completion(first, last, code).error
    return SimpleNamespace(flags=flags, get=lambda kind: error)


class Kernel:
    """The other side of a sender. It answers as it is told, by default with success."""

    def __init__(
        self, max_bytes: int = 1 << 20, max_pending: int = 100, next_id: int = 0, word: str = "keep"
    ) -> None:
        self.sender = SenderBase("sock", max_bytes, max_pending, word, next_id)
        # None at the end of each look. In C, as the real one: no handler raises inside.
        self.queue: deque[Any] = deque([None] * 100)
        self.sender._receive = self.queue.popleft
        self.answers: list[int | OSError] = []
        self.flags: list[int] = []
        self.next_id = next_id
        self.in_flight: dict[int, int] = {}

    def put(self, *entries: Any) -> None:
        self.queue.extendleft([*entries][::-1])

    def complete(self, first: int, last: int, code: int = 0) -> None:
        for id in range(first, last + 1):
            self.in_flight.pop(id, None)
        self.put(entry(first, last, code))

    def call(self, sending: Sending, flags: int) -> OSError | None:
        self.flags += [flags]
        answer = self.answers.pop(0) if self.answers else sending.size
        if isinstance(answer, OSError):
            return answer
        # No calls from here on.
        if flags:
            self.in_flight[self.next_id] = answer
            self.next_id = (self.next_id + 1) % (LAST + 1)
        sending.sent[0] = answer
        return None

    def try_send(self, sending: Sending) -> str | None:
        return self.sender._locked(self.sender._try_send, sending, partial(self.call, sending))

    def send(self, *buffers: bytes | bytearray) -> str | None:
        sending = sending_of(*buffers)
        try:
            return self.try_send(sending)
        finally:
            sending.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Otherwise what is in flight is never freed.
        self.sender.release()

    def check(self) -> None:
        """What the sender holds is what this kernel still reads."""
        held = {id: sending.sent[0] for id, sending in self.sender._in_flight.items()}
        assert held == self.in_flight
        assert self.sender.pending == (len(held), sum(held.values()))
        assert self.sender.next_id == self.next_id


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# What is done next --------------------------------------------------------------------------------


def test_a_send_is_held_until_its_completion() -> None:
    with Kernel() as kernel:
        one, two = bytearray(b"one"), bytearray(b"more")
        assert kernel.send(one, b"12") is None
        assert kernel.send(two) is None
        assert kernel.flags == [MSG_ZEROCOPY] * 2
        kernel.check()
        assert (can_resize(one), can_resize(two)) == (False, False)
        kernel.complete(1, 1)
        assert kernel.sender.reap() == 1
        assert (can_resize(one), can_resize(two)) == (False, True)
        assert kernel.sender.pending == (1, 5)
        assert [bytes(view) for view in kernel.sender.release()] == [b"one", b"12"]
        assert kernel.sender.pending == (0, 0)


def test_an_empty_send_goes_by_copy_and_has_no_id() -> None:
    with Kernel() as kernel:
        assert kernel.send() is None
        assert kernel.send(b"", b"") is None
        assert kernel.flags == [0, 0]
        assert kernel.sender.next_id == 0


@pytest.mark.parametrize(
    ("limits", "size"), [({"max_pending": 2}, 1), ({"max_bytes": 10}, 3)], ids=str
)
def test_too_much_in_flight_waits_for_completions(limits: dict[str, Any], size: int) -> None:
    with Kernel(**limits) as kernel:
        kernel.send(bytes(4))
        kernel.send(bytes(4))
        buffer = bytearray(size)
        assert kernel.send(buffer) == "completions"
        assert can_resize(buffer)
        assert len(kernel.flags) == 2
        kernel.check()
        kernel.complete(0, 0)
        assert kernel.send(buffer) is None  # it looked by itself
        kernel.check()


def test_a_send_above_the_maximum_goes_alone() -> None:
    with Kernel(max_bytes=10) as kernel:
        assert kernel.send(bytes(1000)) is None
        assert kernel.send(b"1") == "completions"


def test_a_full_socket_holds_nothing_and_the_same_send_can_be_tried_again() -> None:
    with Kernel() as kernel:
        kernel.answers = [os_error(errno.EAGAIN), os_error(errno.EAGAIN), 3]
        buffer = bytearray(5)
        sending = sending_of(buffer)
        for _ in range(2):
            assert kernel.try_send(sending) == "room"
            kernel.check()
        assert kernel.try_send(sending) is None
        sending.end()
        assert sending.sent == [3]
        kernel.check()
        assert not can_resize(buffer)


def test_without_memory_for_completions_it_waits_for_them_and_then_copies() -> None:
    refused = os_error(errno.ENOBUFS)
    with Kernel() as kernel:
        kernel.send(b"12")
        kernel.send(b"345")

        kernel.answers = [refused]
        assert kernel.send(b"6") == "completions"
        kernel.check()

        # One was completed meanwhile: it tries again before it waits.
        kernel.complete(0, 0)
        kernel.flags, kernel.answers = [], [refused, refused]
        assert kernel.send(b"6") == "completions"
        assert kernel.flags == [MSG_ZEROCOPY] * 2
        kernel.check()

        # Nothing is in flight: by copy. There ENOBUFS is an error like any other.
        kernel.complete(1, 1)
        assert kernel.sender.reap() == 1
        kernel.flags, kernel.answers = [], [refused, 1]
        assert kernel.send(b"6") is None
        assert kernel.flags == [MSG_ZEROCOPY, 0]
        kernel.check()
        kernel.answers = [refused, refused]
        with pytest.raises(OSError, match="No buffer space") as caught:
            kernel.send(b"7")
        assert caught.value is refused
        kernel.check()


@pytest.mark.parametrize("number", [errno.EPIPE, errno.EINVAL, errno.EBADF])
def test_an_error_holds_nothing(number: int) -> None:
    with Kernel() as kernel:
        kernel.answers = [os_error(number)]
        buffer = bytearray(5)
        with pytest.raises(OSError, match=os.strerror(number)):
            kernel.send(buffer)
        assert can_resize(buffer)
        kernel.check()


@pytest.mark.parametrize("before", [1, 7])
def test_once_the_kernel_copied_it_stops_at_once(before: int) -> None:
    """Also if it is the send itself that finds that out: it neither waits nor fails."""
    with Kernel(word="stop") as kernel:
        for _ in range(before):
            kernel.send(b"1")
        kernel.complete(0, before - 1, COPIED)
        if before == 1:
            assert kernel.sender.reap() == 1
            assert kernel.sender.stopped
        for _ in range(9 - before):
            assert kernel.send(b"2") is None
        assert kernel.sender.stopped
        assert kernel.flags[-1] == 0
        kernel.flags = []
        queue = len(kernel.queue)
        assert kernel.send(b"3") is None
        assert kernel.flags == [0]
        assert len(kernel.queue) == queue, "it looked for completions, although it makes none"


def test_every_eighth_send_looks_for_completions() -> None:
    with Kernel() as kernel:
        for number in range(17):
            kernel.complete(number, number)
            kernel.in_flight = {}
            kernel.queue.clear()
            kernel.queue.append(None)
            kernel.send(b"1")
            assert len(kernel.queue) == (0 if number % 8 == 0 else 1)


def test_a_closed_one_sends_nothing_more() -> None:
    with Kernel() as kernel:
        kernel.sender._is_closed = True
        with pytest.raises(ValueError, match="closed"):
            kernel.send(b"1")
        assert kernel.flags == []


# What is left -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[], [0], [5], [3, 0, 4], [1] * 1100], ids=lambda s: len(s))
@pytest.mark.parametrize("most", [7, 700, 10_000])
def test_a_send_of_everything_goes_on_after_the_last_byte(sizes: list[int], most: int) -> None:
    data = [os.urandom(size) for size in sizes]
    views = [memoryview(part) for part in data]
    sent = b""
    sending: Sending | None = Sending([])
    while following := sending.following(views):  # type: ignore[union-attr]
        sending = following
        assert sending.before == len(sent)
        assert 0 < len(sending.views) <= 1024
        took = min(most, sending.size)
        sent += b"".join(sending.views)[:took]
        sending.sent[0] = took
        sending.end()
        sending.free()  # its views are its own
    assert sent == b"".join(data)


# The queue ----------------------------------------------------------------------------------------


def test_other_entries_are_kept_and_the_oldest_counted_when_they_are_too_many() -> None:
    with Kernel() as kernel:
        most = kernel.sender.reports.maxlen
        assert most
        report = kinds.UnknownReport(entry(0, 0), None)
        for _ in range(most + 3):
            assert kernel.sender.acknowledge(report) == 0
        assert len(kernel.sender.reports) == most
        assert kernel.sender.lost_reports == 3


def test_data_of_another_socket_completes_nothing_and_is_not_kept() -> None:
    with Kernel() as kernel:
        kernel.send(b"1")
        stranger = entry(0, 0, flags=0)
        kernel.put(stranger)
        with pytest.raises(cmsgx.NotSupportedError, match="no error queue") as caught:
            kernel.sender.reap()
        assert caught.value.message is stranger  # type: ignore[attr-defined]
        kernel.check()
        assert kernel.sender.reap() == 0


def test_what_was_taken_off_the_queue_is_looked_at_even_if_the_next_look_fails() -> None:
    with Kernel() as kernel:
        kernel.send(b"1")
        kernel.sender._arrived = [entry(0, 0)]  # as after an interruption

        def closed() -> Any:
            raise os_error(errno.EBADF)

        kernel.sender._receive = closed
        with pytest.raises(OSError, match="Bad file"):
            kernel.sender.reap()
        assert kernel.sender.pending == (0, 0)


# Any order, and interruptions ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_answers_and_completions(seed: int) -> None:
    """The buffers that are held are always those of which the kernel has not reported the end."""
    chance = random.Random(seed)
    start = chance.choice([0, LAST - 20, 2**31 - 10])
    with Kernel(max_bytes=500, max_pending=chance.choice([1, 5, 50]), next_id=start) as kernel:
        buffers: dict[int, bytearray] = {}
        for _ in range(200):
            kind = chance.randrange(10)
            if kind < 5:
                buffer = bytearray(chance.randrange(1, 50))
                id = kernel.next_id
                kernel.answers = [chance.randrange(1, len(buffer) + 1)]
                if kernel.send(buffer) is None:
                    buffers[id] = buffer
                else:
                    assert can_resize(buffer)
            elif kind == 5:
                kernel.answers = [os_error(errno.EAGAIN)]
                assert kernel.send(b"12") in ("room", "completions")
            elif kind == 6:
                # UDP: it fails late, so its id is used up, and completed without having been sent.
                kernel.answers = [os_error(errno.EINVAL)]
                with suppress(OSError):
                    assert kernel.send(b"12") == "completions"
                if not kernel.answers:
                    spent = kernel.next_id
                    kernel.next_id = (spent + 1) % (LAST + 1)
                    kernel.put(entry(spent, spent))
            elif kernel.in_flight:
                ids = list(kernel.in_flight)
                first = chance.choice(ids)
                last = ids[chance.randrange(ids.index(first), len(ids))]
                if last < first:  # across the wrap
                    ids = [id for id in ids if id >= first or id <= last]
                else:
                    ids = [id for id in ids if first <= id <= last]
                for id in ids:
                    del kernel.in_flight[id]
                kernel.put(entry(first, last))
            kernel.answers = []
            if chance.randrange(4) == 0:
                kernel.queue += [None] * 10
                kernel.sender.reap()
                kernel.check()
                for id, buffer in list(buffers.items()):
                    assert can_resize(buffer) == (id not in kernel.in_flight)
                    if id not in kernel.in_flight:
                        del buffers[id]


class Interrupted(Exception):
    pass


@pytest.fixture
def without_gc() -> Iterator[None]:
    """Finalisers of objects that others left must not be interrupted."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def interrupted_at(number: int, act: Callable[[], object]) -> bool:
    """Whether Interrupted came out: raised at the numberth place where something is called or
    returns, which is where a signal handler runs."""
    left = number

    def count(frame: object, event: str, function: object) -> None:
        nonlocal left
        left -= 1
        if left == 0 and function is not sys.setprofile:
            raise Interrupted

    sys.setprofile(count)
    try:
        act()
    except Interrupted:
        return True
    finally:
        sys.setprofile(None)
    return left <= 0


@pytest.mark.usefixtures("without_gc")
@pytest.mark.parametrize("answer", [5, 3, errno.EAGAIN, errno.EPIPE, errno.ENOBUFS])
def test_an_interruption_anywhere_loses_nothing(answer: int) -> None:
    for number in range(1, 10_000):
        with Kernel(next_id=LAST - 6) as kernel:
            buffers = [bytearray(5) for _ in range(7)]
            for buffer in buffers:
                kernel.send(buffer)
            assert kernel.next_id == 0
            ids = [*kernel.in_flight]
            del kernel.in_flight[ids[0]], kernel.in_flight[ids[6]], kernel.in_flight[ids[3]]
            # Its id is a multiple of eight, so it looks for completions first.
            kernel.put(entry(ids[0], ids[0]), entry(ids[6], ids[6]), entry(ids[3], ids[3]))
            buffer = bytearray(5)
            kernel.answers = [answer if answer < 6 else os_error(answer)]

            def act(kernel: Kernel = kernel, buffer: bytearray = buffer) -> None:
                try:
                    kernel.send(buffer)
                    kernel.sender.reap()
                except OSError:
                    pass

            was_interrupted = interrupted_at(number, act)
            is_locked = kernel.sender._lock.locked()
            if is_locked:
                kernel.sender._lock.release()
            assert not is_locked
            kernel.sender.reap()
            kernel.sender.reap()
            kernel.check()
            assert [can_resize(each) for each in buffers] == [
                id not in kernel.in_flight for id in ids
            ]
            if not was_interrupted:
                assert number > 50
                return
