"""Sending without a copy: MSG_ZEROCOPY, Documentation/networking/msg_zerocopy.rst"""

from __future__ import annotations

import errno
import os
import select
import socket as _socket
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import islice
from threading import Lock
from types import EllipsisType, TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    SupportsIndex,
    TypeVar,
)

from . import _cmsg
from ._arguments import as_int, as_kinds, check_word, needed
from ._cmsg import note_used_up, send_tracked
from ._core.sends import views_after, views_of
from ._deadline import Deadline
from ._errqueue import no_error_queue, reader
from ._names import describe
from ._options import ENOTSUPP, get_int, not_supported, set_int
from .kinds._reports import ErrorReport, ZeroCopyCompletion, report_of

if TYPE_CHECKING:
    from typing import Self

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike
    from .kinds import ControlMessage

__all__ = ["Pending", "ZeroCopySender"]

_R = TypeVar("_R")

_FLAG = getattr(_cmsg, "MSG_ZEROCOPY", 0)
_ERRQUEUE = getattr(_cmsg, "MSG_ERRQUEUE", 0)
# One send out of this many looks for completions: the kernel merges those that are queued.
_EVERY = 8
_KEPT_REPORTS = 1024
# Bytes of the packet that another report is about: enough for the extensions of RFC 4884.
_REPORT_SIZE = 2048
_IDS = 1 << 32
# Seconds until a wait looks again: another thread may have taken the completion.
_TURN = 0.5
_NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, ENOTSUPP)

# The result of a try that was not made, because too much is in flight.
_FULL = OSError()

# Buffers that were still in flight when their sender was garbage collected. They are never freed:
# whatever reused that memory could be sent to the peer, and nobody reads the completions any more.
_abandoned: list[tuple[memoryview, ...]] = []


@describe(sends="How many sends are in flight.", bytes="How many bytes they have together.")
class Pending(NamedTuple):
    """What is in flight: the number of sends, and of their bytes."""

    sends: int
    bytes: int


class _Sending:
    """One send and its buffers. `sent[0]` is the number of bytes that were sent, at first 0."""

    __slots__ = ("id", "sent", "views")

    def __init__(self, views: list[memoryview]) -> None:
        self.views = views
        self.sent = [0]
        self.id = -1

    def free(self) -> None:
        for view in self.views:
            view.release()


class ZeroCopySender:
    """Sends with MSG_ZEROCOPY, and holds each buffer until the kernel is done with it.

    sock         a TCP, UDP or VSOCK socket, an Fd, an int, or an object with fileno(). SO_ZEROCOPY
                 is set, and stays set.
    max_bytes    maximum number of bytes in flight; a larger send goes alone
    max_pending  maximum number of sends in flight
    on_copied    "stop" sends without MSG_ZEROCOPY once the kernel reports that it copied the data
                 anyway, as it does on loopback: that costs more than a plain send. "keep" goes on.
    next_id      how many sends with MSG_ZEROCOPY this socket has made before, modulo 2**32

    A buffer in flight is exported, so a bytearray cannot be resized. Its bytes could be changed,
    but must not be: the new ones may be sent. Immutable bytes are safe. Zero copy pays off for
    buffers of about 10 KB or more; send smaller ones with a plain send.

    Every eighth send looks for completions, and so does each send that finds too much in flight;
    reap() does so at once. Completions arrive on the error queue. Nothing else may read that queue,
    unless it passes what it read to acknowledge(). Other entries go to `reports`, a deque that you
    empty with popleft(); `lost_reports` counts the oldest ones, dropped when it was full.

    Threads may share a sender; a signal handler must not use it. Close it before the socket. The
    end of a `with` waits until nothing is in flight, for as long as the socket's timeout allows;
    after that TimeoutError or BlockingIOError. After such an error, or if another exception ends
    the `with` (which then does not wait), the buffers are still held: release() or
    close(timeout=0) hands them over. If the sender is garbage collected, memory in flight is never
    freed, with a ResourceWarning. A child of fork() has a copy, which can only be closed or
    dropped: completions belong to the process that made the sender, and a call that would take
    them raises RuntimeError.
    """

    # The values are what help() says about the public ones.
    __slots__ = {
        **dict.fromkeys((
            "__weakref__", "_arrived", "_bytes", "_generation", "_in_flight", "_is_closed",
            "_is_copied", "_is_green", "_is_sure", "_lock", "_next_id", "_receive", "_stops",
            "_unsettled",
        )),
        "sock": "The socket that it sends on, as it was given.",
        "max_bytes": "Maximum number of bytes in flight; a larger send goes alone.",
        "max_pending": "Maximum number of sends in flight.",
        "reports": "A deque of error queue entries that are not completions: use popleft().",
        "lost_reports": "How many of the oldest reports were dropped because `reports` was full.",
    }  # fmt: skip

    def __init__(
        self,
        sock: FileDescriptorLike,
        *,
        max_bytes: int = 8 << 20,
        max_pending: int = 1024,
        on_copied: Literal["keep", "stop"] = "keep",
        next_id: int = 0,
    ) -> None:
        if hasattr(self, "_in_flight"):
            # A second time it would forget buffers that the kernel still reads.
            raise TypeError("a ZeroCopySender can be initialised only once")
        check_word("on_copied", on_copied, ("keep", "stop"))
        max_bytes = as_int("max_bytes", max_bytes, minimum=1)
        max_pending = as_int("max_pending", max_pending, minimum=1)
        next_id = as_int("next_id", next_id)
        if not 0 <= next_id < _IDS:
            raise ValueError(f"next_id: {next_id}; must be 0 to 2**32 - 1")
        self._is_green = _cmsg.check_socket(sock)  # before an option is set
        self._in_flight: dict[int, _Sending] = {}
        self.sock: FileDescriptorLike = sock
        self.max_bytes: int = max_bytes
        self.max_pending: int = max_pending
        self.reports: deque[ErrorReport] = deque(maxlen=_KEPT_REPORTS)
        self.lost_reports: int = 0
        self._next_id = next_id
        self._bytes = 0
        self._is_copied: bool | None = None
        self._stops = on_copied == "stop"
        self._is_closed = False
        self._unsettled: _Sending | None = None
        # Whether _next_id is certain to be the id that the kernel assigns next.
        self._is_sure = True
        self._arrived: list[_cmsg.Message] = []
        self._lock = Lock()
        self._generation = _cmsg.generation()
        was_on = True  # until it is known, so that nothing is reset
        try:
            was_on = self._option() != 0
            self._option(1)
            self._receive: Callable[[], _cmsg.Message | None] = partial(
                reader(sock, _REPORT_SIZE, "ZeroCopySender").receive,
                flags=_ERRQUEUE | _socket.MSG_DONTWAIT, timeout=0,
            )  # fmt: skip
        except BaseException:
            if not was_on:  # a failed constructor leaves no option on
                with suppress(OSError):
                    self._option(0)
            raise

    def _option(self, value: int | None = None) -> int:
        """Sets SO_ZEROCOPY if `value` is given; returns its value."""
        try:
            if not _FLAG:
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            if value is not None:
                set_int(self.sock, _cmsg.SOL_SOCKET, _cmsg.SO_ZEROCOPY, value)
            return get_int(self.sock, _cmsg.SOL_SOCKET, _cmsg.SO_ZEROCOPY)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            error = OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            raise not_supported(error, "ZeroCopySender", "SO_ZEROCOPY", "4.14") from None

    # What there is ---------------------------------------------------------------------------

    @property
    def pending(self) -> Pending:
        """(sends, bytes) in flight, as of the last look for completions."""
        return Pending(len(self._in_flight), self._bytes)

    @property
    def copied(self) -> bool | None:
        """Whether the kernel copied the bytes of a send anyway; None if none is complete."""
        return self._is_copied

    @property
    def stopped(self) -> bool:
        """Whether it now sends without MSG_ZEROCOPY: see on_copied."""
        return self._stops and bool(self._is_copied)

    @property
    def next_id(self) -> int:
        """The id of the next send: the number of sends before it, modulo 2**32."""
        return self._next_id

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    # Sending ---------------------------------------------------------------------------------

    def send(
        self,
        data: Buffer | Iterable[Buffer],
        *,
        control: ControlMessage | Iterable[ControlMessage] = (),
        address: Any = None,
        timeout: float | EllipsisType | None = ...,
    ) -> int:
        """Sends `data`, one buffer or several; returns the number of bytes sent: sendmsg(2).

        On a stream that may be fewer than given, even if the socket blocks; all buffers are held
        anyway. It waits for space in the send buffer of the socket, and for completions if the
        maximum is in flight: `timeout` seconds at most, by default the socket's own. If the kernel
        has no memory for completions, or RLIMIT_MEMLOCK is reached (ENOBUFS), it waits until
        nothing is in flight, and then sends without MSG_ZEROCOPY.
        """
        kinds = as_kinds(control)
        deadline = self._deadline(timeout)
        sending = _Sending(views_of(data))
        try:
            self._send(sending, kinds, address, deadline)
        except OSError as error:
            note_used_up(error, data=data, control=control)
            raise
        return sending.sent[0]

    def send_all(
        self,
        data: Buffer | Iterable[Buffer],
        *,
        control: ControlMessage | Iterable[ControlMessage] = (),
        timeout: float | EllipsisType | None = ...,
    ) -> None:
        """Sends all of `data`, with as many sends as that takes.

        The control messages are sent once, with the first byte. `timeout`, in seconds, limits the
        whole call. If it raises, the attribute `sent` of the exception is the number of bytes that
        were sent.
        """
        kinds = as_kinds(control)
        deadline = self._deadline(timeout)
        views = views_of(data)
        total = sum([view.nbytes for view in views])
        before = 0
        sending = _Sending(views_of(views_after(views, 0)))
        try:
            try:
                self._send(sending, kinds, None, deadline)
            except OSError as error:
                note_used_up(error, data=data, control=control)
                raise
            while before + sending.sent[0] < total:
                deadline.timeout()  # raises if no time is left
                following = _Sending(views_of(views_after(views, before + sending.sent[0])))
                # No calls between these: after one, a signal handler could raise.
                before, sending = before + sending.sent[0], following
                self._send(sending, (), None, deadline)
        except BaseException as error:
            error.sent = before + sending.sent[0]  # type: ignore[attr-defined]
            raise
        finally:
            for view in views:
                view.release()

    def _send(
        self, sending: _Sending, control: tuple[Any, ...], address: Any, deadline: Deadline
    ) -> None:
        try:
            self._send_or_wait(sending, control, address, deadline)
        finally:
            if sending.id < 0 or not sending.sent[0]:
                sending.free()

    def _send_or_wait(
        self, sending: _Sending, control: tuple[Any, ...], address: Any, deadline: Deadline
    ) -> None:
        size = sum([view.nbytes for view in sending.views])
        must_copy = False
        deadline.rounds = 0
        # C must not wait here: its poll(2) would return at once because of completions.
        call = partial(
            send_tracked, sending.sent, self.sock, sending.views,
            control=control, address=address, timeout=0,
        )  # fmt: skip
        while True:
            if self._is_closed:
                raise ValueError("send: the ZeroCopySender is closed")
            self._refuse_copy()
            # An empty send uses up an id over UDP, but not over TCP (tcp_sendmsg_locked() in
            # net/ipv4/tcp.c), so it goes without MSG_ZEROCOPY.
            if must_copy or not size or self.stopped:
                sending.id = -1
                refusal = call()
            else:
                refusal = self._locked(self._try, sending, size, partial(call, flags=_FLAG))
            if refusal is None:
                return
            if refusal is not _FULL and not isinstance(refusal, BlockingIOError):
                if refusal.errno != errno.ENOBUFS or must_copy:
                    raise refusal
                if self.reap():
                    continue
                must_copy = not self._in_flight
                if must_copy:
                    continue
            self._await(select.POLLOUT if isinstance(refusal, BlockingIOError) else 0, deadline)

    def _locked(self, function: Callable[..., _R], *arguments: Any) -> _R:
        self._refuse_copy()
        return _cmsg.with_lock(self._lock, partial(function, *arguments))

    def _try(
        self, sending: _Sending, size: int, call: Callable[[], OSError | None]
    ) -> OSError | None:
        """One try, with the lock held: None, the error, or _FULL if too much is in flight."""
        self._settle()
        if not self._is_sure or self._next_id % _EVERY == 0 or self._is_full(size):
            self._take_completions()
        if self.stopped or self._is_full(size):
            return _FULL
        sending.id = self._next_id
        self._unsettled = sending
        self._in_flight[sending.id] = sending
        try:
            # C sets `sending.sent`: no signal handler can raise between that and the system call.
            return call()
        finally:
            self._settle()

    def _is_full(self, size: int) -> bool:
        count = len(self._in_flight)
        return count >= self.max_pending or (count > 0 and self._bytes + size > self.max_bytes)

    def _settle(self) -> None:
        """Counts the last send, or forgets it if it failed; also after an interruption.

        Here, as in _complete(), no call stands between two changes that belong together: a signal
        handler could raise there.
        """
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

    # Completions -----------------------------------------------------------------------------

    def reap(self) -> int:
        """Frees the buffers of completed sends, without waiting; returns the number of sends."""
        return self._locked(self._take_completions)

    def acknowledge(self, report: ErrorReport) -> int:
        """Takes a report that other code read from the error queue, as with receive_errors().

        Returns how many sends it completes. A report that is not a completion goes to `reports`.
        """
        return self._locked(self._take_settled, report)

    def wait(self, timeout: float | EllipsisType | None = ...) -> None:
        """Waits until nothing is in flight; TimeoutError after `timeout` seconds.

        The default is the socket's own timeout. If it is 0, BlockingIOError instead.
        """
        self._wait(self._deadline(timeout))

    def _wait(self, deadline: Deadline) -> None:
        self.reap()
        while self._in_flight:
            self._await(0, deadline)

    def release(self) -> tuple[memoryview, ...]:
        """Returns the buffers in flight, in order, and forgets them.

        The caller now has to keep them, unchanged, because the kernel may still read them. Only the
        error queue shows when it is done. A socket that is closed with SO_LINGER at 0 seconds drops
        what it has not sent.
        """
        return self._give_up() if self._is_copy() else self._locked(self._give_up)

    def _is_copy(self) -> bool:
        """Whether fork() made it: then its lock may be held by a thread that no longer exists."""
        return _cmsg.generation() != self._generation

    def _refuse_copy(self) -> None:
        if self._is_copy():
            raise RuntimeError(
                "this ZeroCopySender is a copy made by fork(), which can only be closed or "
                "released: the completions belong to the process that made it. To send here, make "
                f"a new one, with next_id={self._next_id} if the other process sends no more"
            )

    def _give_up(self) -> tuple[memoryview, ...]:
        self._settle()
        views = tuple([view for sending in self._in_flight.values() for view in sending.views])
        self._in_flight = {}
        self._bytes = 0
        return views

    def close(self, timeout: float | EllipsisType | None = ...) -> tuple[memoryview, ...]:
        """Waits as wait() does, and returns what is still in flight, as release() does.

        An empty tuple means that the kernel is done with every buffer. Running out of time raises
        nothing. The socket stays open; if it is already closed, this does not wait.
        """
        deadline = None
        try:
            if self._in_flight and not self._is_copy():
                deadline = self._deadline(timeout)
                self._wait(deadline)
        except OSError as error:
            # An error that a signal handler raised has to pass through.
            if error.errno != errno.EBADF and (deadline is None or error is not deadline.error):
                raise
        self._is_closed = True
        return self.release()

    def _take_completions(self) -> int:
        self._settle()
        count = 0
        is_empty = False
        while not is_empty:
            try:
                # In C, so that each message taken off the queue is in the list before a signal
                # handler can raise. One by one: `sock` may be a number that now belongs to another
                # socket, whose messages are not ours.
                self._arrived += islice(iter(self._receive, None), 1)
            except BlockingIOError:
                is_empty = True
            while self._arrived:
                message = self._arrived[0]
                if not message.flags & _ERRQUEUE:
                    del self._arrived[0]
                    raise no_error_queue("ZeroCopySender", message)
                count += self._take(report_of(message))
                del self._arrived[0]
        self._is_sure = True
        return count

    def _take_settled(self, report: Any) -> int:
        if not isinstance(report, ErrorReport):
            raise needed("report", "an ErrorReport", report)
        self._settle()
        return self._take(report)

    def _take(self, report: ErrorReport) -> int:
        if isinstance(report, ZeroCopyCompletion):
            return self._complete(report)
        if len(self.reports) == self.reports.maxlen:
            self.lost_reports += 1
        self.reports += (report,)
        return 0

    def _complete(self, report: ZeroCopyCompletion) -> int:
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
            self._is_copied = bool(self._is_copied) or report.was_copied
        for id in done:
            sending = in_flight[id]
            rest = self._bytes - sending.sent[0]  # first, because it can fail for lack of memory
            del in_flight[id]
            self._bytes = rest
            sending.free()
        return len(done)

    # Waiting ---------------------------------------------------------------------------------

    def _deadline(self, timeout: float | EllipsisType | None) -> Deadline:
        return Deadline.of(self.sock, timeout, is_green=self._is_green)

    def _await(self, events: int, deadline: Deadline) -> None:
        """Waits for one of `events` or a completion; may return earlier."""
        left = deadline.left()
        found, deadline.rounds = _cmsg.wait_for(
            self.sock, events, _TURN if left is None else min(left, _TURN), deadline.rounds
        )
        if found & select.POLLNVAL:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        # POLLERR means that the queue has an entry, or that an error is pending on the socket. We
        # must not take that error, so poll(2) reports it again each time.
        if self.reap():
            deadline.rounds = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_closed or self._is_copy():
            self._is_closed = True
            return
        if error is None:
            if self._in_flight:
                self.wait()
            self._is_closed = True
            return
        # The caller has to see the original exception.
        with suppress(OSError):
            self.reap()
        self._is_closed = True

    def __del__(self) -> None:
        if not getattr(self, "_in_flight", None) or self._is_copy():
            return
        with suppress(OSError):
            self.reap()
        if views := self.release():
            _abandoned.append(views)
            warnings.warn(
                f"garbage collected with {len(views)} buffers in flight: {self!r}",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"cannot copy or pickle a {type(self).__name__}: the kernel reads the buffers it holds"
        )

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else f"{len(self._in_flight)} in flight"
        return f"<ZeroCopySender of {self.sock!r}: {state}, {self._bytes} bytes>"
