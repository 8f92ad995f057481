"""Sending without a copy: MSG_ZEROCOPY, Documentation/networking/msg_zerocopy.rst"""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Literal

from . import _cmsg
from ._arguments import as_kinds
from ._cmsg import note_used_up, send_tracked
from ._core.sends import views_after, views_of
from ._core.zerocopy import Pending, SenderBase, Sending
from ._deadline import Deadline
from ._errqueue import reader
from ._options import get_int, set_int
from ._setting import ENOTSUPP, not_supported

if TYPE_CHECKING:
    from typing import Self

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike
    from .kinds import ControlMessage

__all__ = ["Pending", "ZeroCopySender"]

# Bytes of the packet that another report is about: enough for the extensions of RFC 4884.
_REPORT_SIZE = 2048
# Seconds until a wait looks again: another thread may have taken the completion.
_TURN = 0.5
_NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, ENOTSUPP)


class ZeroCopySender(SenderBase):
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

    __slots__ = ()

    def __init__(
        self,
        sock: FileDescriptorLike,
        *,
        max_bytes: int = 8 << 20,
        max_pending: int = 1024,
        on_copied: Literal["keep", "stop"] = "keep",
        next_id: int = 0,
    ) -> None:
        super().__init__(sock, max_bytes, max_pending, on_copied, next_id)
        _cmsg.check_socket(sock)  # before an option is set
        was_on = True  # until it is known, so that nothing is reset
        try:
            was_on = self._option() != 0
            self._option(1)
            self._receive = reader(sock, _REPORT_SIZE, "ZeroCopySender").try_receive
        except BaseException:
            if not was_on:  # a failed constructor leaves no option on
                with suppress(OSError):
                    self._option(0)
            raise

    def _option(self, value: int | None = None) -> int:
        """Sets SO_ZEROCOPY if `value` is given; returns its value."""
        try:
            if not hasattr(_cmsg, "MSG_ZEROCOPY"):
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            if value is not None:
                set_int(self.sock, _cmsg.SOL_SOCKET, _cmsg.SO_ZEROCOPY, value)
            return get_int(self.sock, _cmsg.SOL_SOCKET, _cmsg.SO_ZEROCOPY)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            error = OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
            raise not_supported(error, "ZeroCopySender", "SO_ZEROCOPY", "4.14") from None

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
        deadline = Deadline.of(self.sock, timeout)
        sending = Sending(views_of(data))
        self._send(sending, kinds, address, deadline, data=data, control=control)
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
        deadline = Deadline.of(self.sock, timeout)
        views = views_of(data)
        sending = Sending(views_of(views_after(views, 0)))
        try:
            self._send(sending, kinds, None, deadline, data=data, control=control)
            while following := sending.following(views):
                sending = following
                deadline.timeout()  # raises if no time is left
                self._send(sending, (), None, deadline)
        except BaseException as error:
            error.sent = sending.before + sending.sent[0]  # type: ignore[attr-defined]
            raise
        finally:
            for view in views:
                view.release()

    def _send(
        self, sending: Sending, kinds: Any, address: Any, deadline: Deadline, **given: Any
    ) -> None:
        """`given` are arguments that may be iterators, which this send used up."""
        deadline.rounds = 0
        # C must not wait here: its poll(2) would return at once because of completions.
        call = partial(
            send_tracked, sending.sent, self.sock, sending.views,
            control=kinds, address=address, timeout=0,
        )  # fmt: skip
        try:
            while lacking := self._locked(self._try_send, sending, call):
                self._await(select.POLLOUT if lacking == "room" else 0, deadline)
        except OSError as error:
            note_used_up(error, **given)
            raise
        finally:
            sending.end()

    # Waiting ---------------------------------------------------------------------------------

    def wait(self, timeout: float | EllipsisType | None = ...) -> None:
        """Waits until nothing is in flight; TimeoutError after `timeout` seconds.

        The default is the socket's own timeout. If it is 0, BlockingIOError instead.
        """
        self._wait(Deadline.of(self.sock, timeout))

    def close(self, timeout: float | EllipsisType | None = ...) -> tuple[memoryview, ...]:
        """Waits as wait() does, and returns what is still in flight, as release() does.

        An empty tuple means that the kernel is done with every buffer. Running out of time raises
        nothing. The socket stays open; if it is already closed, this does not wait.
        """
        deadline = None
        try:
            if self._in_flight and not self._is_copy():
                deadline = Deadline.of(self.sock, timeout)
                self._wait(deadline)
        except OSError as error:
            # An error that a signal handler raised has to pass through.
            if error.errno != errno.EBADF and (deadline is None or not deadline.raised(error)):
                raise
        self._is_closed = True
        return self.release()

    def _wait(self, deadline: Deadline) -> None:
        self.reap()
        while self._in_flight:
            self._await(0, deadline)

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
        if not self._is_closed and not self._is_copy():
            if error is not None:
                # The caller has to see the original exception.
                with suppress(OSError):
                    self.reap()
            elif self._in_flight:
                self.wait()
        self._is_closed = True
