"""Zero copy: what is in flight, what a completion frees, and when to copy or to wait.

Documentation/networking/msg_zerocopy.rst. A signal handler may raise wherever Python code calls
something. So no call stands between two changes that belong together, and what the kernel did is
noted in C, before Python code can run again: in `sent` of a Sending, and in `_arrived`.
"""

from __future__ import annotations

import errno
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, SupportsIndex, TypeVar

from .. import _cmsg
from .._arguments import as_int, check_word, needed
from .._names import describe
from ..kinds._reports import ErrorReport, ZeroCopyCompletion, no_error_queue, report_of
from .sends import views_after, views_of

if TYPE_CHECKING:
    from .._fds import FileDescriptorLike

_R = TypeVar("_R")
_Call = Callable[..., OSError | None]

_FLAG = getattr(_cmsg, "MSG_ZEROCOPY", 0)
_ERRQUEUE = getattr(_cmsg, "MSG_ERRQUEUE", 0)
# One send out of this many looks for completions: the kernel merges those that are queued.
_EVERY = 8
_KEPT_REPORTS = 1024
_IDS = 1 << 32

# Buffers that were still in flight when their sender was garbage collected. They are never freed:
# whatever reused that memory could be sent to the peer, and nobody reads the completions any more.
_abandoned: list[tuple[memoryview, ...]] = []


@describe(sends="How many sends are in flight.", bytes="How many bytes they have together.")
class Pending(NamedTuple):
    """What is in flight: the number of sends, and of their bytes."""

    sends: int
    bytes: int


class Sending:
    """One send and its buffers. `sent[0]` is the number of bytes that were sent, at first 0.

    `before` is how many bytes of the same data went with earlier sends.
    """

    __slots__ = ("before", "id", "must_copy", "sent", "size", "views")

    def __init__(self, views: list[memoryview], before: int = 0) -> None:
        self.views = views
        self.size = sum([view.nbytes for view in views])
        self.before = before
        self.sent = [0]
        self.id = -1  # no id without MSG_ZEROCOPY
        # An empty send uses up an id over UDP, but not over TCP: tcp_sendmsg_locked() in
        # net/ipv4/tcp.c.
        self.must_copy = not self.size

    def following(self, views: list[memoryview]) -> Sending | None:
        """The next send of `views`: what is left, as much as one call takes; None if all went."""
        before = self.before + self.sent[0]
        rest = views_after(views, before)
        return Sending(views_of(rest), before) if rest else None

    def end(self) -> None:
        """After the last try: frees the buffers, unless the kernel may read them."""
        if self.id < 0 or not self.sent[0]:
            self.free()

    def free(self) -> None:
        for view in self.views:
            view.release()


class InFlight:
    """The sends of one socket that the kernel may still read from, and the id of the next."""

    __slots__ = ("_bytes", "_copied", "_in_flight", "_is_sure", "_next_id", "_unsettled")

    def __init__(self, next_id: int) -> None:
        self._in_flight: dict[int, Sending] = {}
        self._bytes = 0
        self._copied: bool | None = None
        self._next_id = next_id
        # Whether that is certain to be the id that the kernel assigns next.
        self._is_sure = True
        # The send that is being made, or was made but not counted yet.
        self._unsettled: Sending | None = None

    @property
    def pending(self) -> Pending:
        """(sends, bytes) in flight, as of the last look for completions."""
        return Pending(len(self._in_flight), self._bytes)

    @property
    def copied(self) -> bool | None:
        """Whether the kernel copied the bytes of a send anyway; None if none is complete."""
        return self._copied

    @property
    def next_id(self) -> int:
        """The id of the next send: the number of sends before it, modulo 2**32."""
        return self._next_id

    def _send_next(self, sending: Sending, call: _Call) -> OSError | None:
        sending.id = self._next_id
        self._unsettled = sending
        self._in_flight[sending.id] = sending
        try:
            return call(flags=_FLAG)
        finally:
            self._settle()

    def _settle(self) -> None:
        """Counts the last send, or forgets it if it failed; also after an interruption."""
        sending = self._unsettled
        if sending is None:
            return
        if sending.sent[0]:
            next_id = (sending.id + 1) % _IDS
            self._bytes += sending.sent[0]
            self._next_id = next_id
            self._unsettled = None
        else:
            # UDP may have used up an id for a send that failed late; a completion will show it.
            # __ip_append_data() in net/ipv4/ip_output.c gives it back only if it fails itself.
            self._is_sure = False
            self._in_flight.pop(sending.id, None)
            self._unsettled = None

    def _complete(self, report: ZeroCopyCompletion) -> int:
        """Frees what the kernel is done with: how many sends."""
        in_flight = self._in_flight
        if report.count <= len(in_flight):
            done = [id for id in report if id in in_flight]
        else:
            done = [id for id in in_flight if id in report]
        # An id beyond _next_id: the kernel gave it to a send that failed later.
        next_id = (report.last + 1) % _IDS
        if 0 < (next_id - self._next_id) % _IDS < _IDS // 2:
            self._next_id = next_id
        if done:
            self._copied = bool(self._copied) or report.was_copied
        for id in done:
            sending = in_flight[id]
            rest = self._bytes - sending.sent[0]  # first, because it can fail for lack of memory
            del in_flight[id]
            self._bytes = rest
            sending.free()
        return len(done)

    def _give_up(self) -> tuple[memoryview, ...]:
        """The buffers in flight, in order. They are the caller's from now on."""
        self._settle()
        views = tuple([view for sending in self._in_flight.values() for view in sending.views])
        self._in_flight = {}
        self._bytes = 0
        return views


class SenderBase(InFlight):
    """What each ZeroCopySender does between two waits. A subclass waits, and makes the calls:

    `_receive()` takes the next entry of the error queue, or returns None; it never waits.
    """

    # The values are what help() says about the public ones.
    __slots__ = {
        **dict.fromkeys((
            "__weakref__", "_arrived", "_generation", "_is_closed", "_lock", "_receive", "_stops",
        )),
        "sock": "The socket that it sends on, as it was given.",
        "max_bytes": "Maximum number of bytes in flight; a larger send goes alone.",
        "max_pending": "Maximum number of sends in flight.",
        "reports": "A deque of error queue entries that are not completions: use popleft().",
        "lost_reports": "How many of the oldest reports were dropped because `reports` was full.",
    }  # fmt: skip

    _receive: Callable[[], _cmsg.Message | None]

    def __init__(
        self, sock: Any, max_bytes: int, max_pending: int, on_copied: str, next_id: int
    ) -> None:
        if hasattr(self, "_in_flight"):
            # A second time it would forget buffers that the kernel still reads.
            raise TypeError("a ZeroCopySender can be initialised only once")
        check_word("on_copied", on_copied, ("keep", "stop"))
        self.max_bytes: int = as_int("max_bytes", max_bytes, minimum=1)
        self.max_pending: int = as_int("max_pending", max_pending, minimum=1)
        next_id = as_int("next_id", next_id)
        if not 0 <= next_id < _IDS:
            raise ValueError(f"next_id: {next_id}; must be 0 to 2**32 - 1")
        self.sock: FileDescriptorLike = sock
        self.reports: deque[ErrorReport] = deque(maxlen=_KEPT_REPORTS)
        self.lost_reports: int = 0
        self._stops = on_copied == "stop"
        self._is_closed = False
        self._arrived: list[_cmsg.Message] = []  # off the error queue, and not yet looked at
        self._lock = Lock()
        self._generation = _cmsg.generation()
        super().__init__(next_id)

    @property
    def stopped(self) -> bool:
        """Whether it now sends without MSG_ZEROCOPY: see on_copied."""
        return self._stops and bool(self._copied)

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    # Sending ---------------------------------------------------------------------------------

    def _try_send(self, sending: Sending, call: _Call) -> Literal["room", "completions"] | None:
        """One try, which never waits: None if it was sent, else what to wait for before another.

        `call(flags=...)` makes it, as send_tracked() does: it sets `sending.sent`, or returns the
        error, which is raised here if no waiting helps. Who waits for room in the send buffer waits
        for completions too, because poll(2) reports both. Call it, as _look(), with the lock held.
        """
        if self._is_closed:
            raise ValueError("send: the ZeroCopySender is closed")
        self._settle()
        if not (sending.must_copy or self.stopped) and (
            not self._is_sure or self._next_id % _EVERY == 0 or self._is_full(sending.size)
        ):
            self._look()
        while True:
            if sending.must_copy or self.stopped:
                sending.id = -1
                refusal = call(flags=0)
            elif self._is_full(sending.size):
                return "completions"
            else:
                refusal = self._send_next(sending, call)
            if refusal is None:
                return None
            if isinstance(refusal, BlockingIOError):
                return "room"
            if refusal.errno != errno.ENOBUFS or sending.must_copy:
                raise refusal
            # There is no memory for completions, or RLIMIT_MEMLOCK is reached.
            if not self._look():
                if self._in_flight:
                    return "completions"
                sending.must_copy = True

    def _is_full(self, size: int) -> bool:
        count = len(self._in_flight)
        return count >= self.max_pending or (count > 0 and self._bytes + size > self.max_bytes)

    # Completions -----------------------------------------------------------------------------

    def reap(self) -> int:
        """Frees the buffers of completed sends, without waiting; returns the number of sends."""
        return self._locked(self._look)

    def acknowledge(self, report: ErrorReport) -> int:
        """Takes a report that other code read from the error queue, as with receive_errors().

        Returns how many sends it completes. A report that is not a completion goes to `reports`.
        """
        return self._locked(self._take, report)

    def _look(self) -> int:
        self._settle()
        count = 0
        while True:
            if not self._arrived:
                # In C, so that each message taken off the queue is in the list before a signal
                # handler can raise. One by one: `sock` may be a number that now belongs to another
                # socket, whose messages are not ours.
                self._arrived += islice(iter(self._receive, None), 1)
            if not self._arrived:
                self._is_sure = True
                return count
            message = self._arrived[0]
            if not message.flags & _ERRQUEUE:
                del self._arrived[0]
                raise no_error_queue("ZeroCopySender", message)
            count += self._take(report_of(message))
            del self._arrived[0]

    def _take(self, report: Any) -> int:
        self._settle()
        if isinstance(report, ZeroCopyCompletion):
            return self._complete(report)
        if not isinstance(report, ErrorReport):
            raise needed("report", "an ErrorReport", report)
        if len(self.reports) == self.reports.maxlen:
            self.lost_reports += 1
        self.reports += (report,)
        return 0

    def _locked(self, function: Callable[..., _R], *arguments: Any) -> _R:
        if self._is_copy():
            raise RuntimeError(
                "this ZeroCopySender is a copy made by fork(), which can only be closed or "
                "released: the completions belong to the process that made it. To send here, make "
                f"a new one, with next_id={self._next_id} if the other process sends no more"
            )
        return _cmsg.with_lock(self._lock, partial(function, *arguments))

    def _is_copy(self) -> bool:
        """Whether fork() made it: then its lock may be held by a thread that no longer exists."""
        return _cmsg.generation() != self._generation

    # The end ---------------------------------------------------------------------------------

    def release(self) -> tuple[memoryview, ...]:
        """Returns the buffers in flight, in order, and forgets them.

        The caller now has to keep them, unchanged, because the kernel may still read them. Only the
        error queue shows when it is done. A socket that is closed with SO_LINGER at 0 seconds drops
        what it has not sent.
        """
        return self._give_up() if self._is_copy() else self._locked(self._give_up)

    def __del__(self) -> None:
        if not getattr(self, "_in_flight", None) or self._is_copy():
            return
        with suppress(OSError):
            self.reap()
        if views := self.release():
            _abandoned.append(views)
            text = f"garbage collected with {len(views)} buffers in flight: {self!r}"
            warnings.warn(text, ResourceWarning, stacklevel=2, source=self)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"cannot copy or pickle a {type(self).__name__}: the kernel reads the buffers it holds"
        )

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._in_flight)} in flight"
        return f"<ZeroCopySender of {self.sock!r}: {state}, {self._bytes} bytes>"
