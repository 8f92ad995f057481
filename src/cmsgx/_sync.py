"""Sending and receiving, blocking or with a timeout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Literal

from . import _cmsg
from ._cmsg import PreparedSend, note_used_up
from ._core.sends import views_of
from ._deadline import Deadline, with_own
from ._receiving import Configured
from .kinds import _table

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike, FileDescriptors
    from .kinds import ControlMessage
    from .kinds._base import Kind

__all__ = ["Receiver", "send_all"]


class Receiver(Configured, _cmsg.Receiver):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Receives messages from `sock`; buffers and socket options are set up once: recvmsg(2).

    sock           a socket, an Fd, an int, or an object with fileno()
    bufsize        maximum number of data bytes per message; receive(bufsize=) may ask for fewer. Or
    into           a writable buffer, or a sequence of them, to fill instead. It stays yours: the
                   next receive overwrites it.
    fds            maximum number of descriptors per message. Any beyond that are closed and
                   counted. A socket that is not AF_UNIX cannot receive descriptors:
                   NotSupportedError, except for MAX_FDS, which means as many as can come.
    want           a kind, or several, to switch on: see enable(). `msg[Kind]` finds it in a
                   message. Do this before bind(): messages queued earlier lack these kinds.
    on_truncation  "raise", or "keep" to get the message with `truncated` set. This concerns data
                   and descriptors. A control message that was cut, because others switched on
                   more options meanwhile, always sets `truncated`, and raises
                   MalformedControlError when it is looked up.
    close          "background": other threads close whatever the peer sent, even an Fd that you
                   took. Use it for untrusted peers, as what they send can block in close(2). While
                   too many descriptors wait to be closed, nothing more is received: see
                   docs/ownership.md.

    `for msg in receiver` yields one message after another, closes what was left in the previous
    one, and stops at the end of the stream. Received data never changes: memory that a message or
    a view still holds is not reused. If two threads use one Receiver at once, one of them gets a
    RuntimeError. Read the socket only through this object: recv(), read() and the streams of
    asyncio pass no control buffer, so the kernel silently drops descriptors.

    The end of `with Receiver(...) as receiver` restores the options that it switched on, as the
    handle of enable() does: once, and in reverse order if one socket has several handles. It closes
    neither the socket nor a message.
    """

    __slots__ = ("_handle",)

    def __init__(
        self,
        sock: FileDescriptorLike,
        bufsize: int | None = None,
        *,
        fds: int = 0,
        want: Kind | Iterable[Kind] = (),
        into: WriteableBuffer | Sequence[WriteableBuffer] | None = None,
        on_truncation: Literal["raise", "keep"] = "raise",
        close: Literal["now", "background"] = "now",
    ) -> None:
        if (bufsize is None) == (into is None):
            raise TypeError("Receiver: bufsize or into= is needed, and not both")
        is_first = not self._opened
        try:
            found = self._open(
                sock, bufsize or 0, into, _table.derived, want, fds, on_truncation, close
            )
            if found is not True:
                self._finish(found, want, fds, on_truncation, close)
        except BaseException as error:
            if is_first:
                self._abandon(error)
            raise


def send_all(
    sock: FileDescriptorLike,
    data: Buffer | Iterable[Buffer],
    *,
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[ControlMessage] = (),
    timeout: float | EllipsisType | None = ...,
) -> None:
    """Sends all of `data`, with as many calls of sendmsg(2) as that takes.

    The descriptors and control messages are sent once, with the first byte; the descriptors stay
    the caller's. `timeout`, in seconds, limits the whole call. If it raises, the attribute `sent`
    of the exception is the number of bytes that were sent; if that is more than 0, the descriptors
    were sent too. More than 1024 buffers are several calls on a stream, and EMSGSIZE on a socket
    that keeps messages apart.
    """
    timeout = with_own(sock, timeout)
    deadline = Deadline(None if timeout is ... else timeout)
    limit = ... if timeout is ... else deadline.seconds
    views: list[memoryview] = []
    prepared = refusal = None
    try:
        try:
            rest = data if type(data) is bytes else (views := views_of(data))
            with PreparedSend(sock, rest, fds=fds, control=control) as prepared:
                refusal = prepared._send(limit)
                while refusal is None and not prepared.is_done:
                    if deadline.seconds is not None:
                        limit = deadline.timeout()
                    refusal = prepared._send(limit)
                if refusal is not None:
                    raise refusal
        except OSError as error:
            if error is refusal or deadline.raised(error):
                if prepared is not None and prepared.sent:
                    note_used_up(error, data=data)
                else:
                    note_used_up(error, data=data, fds=fds, control=control)
            raise
        finally:
            refusal = None  # its traceback has this frame: a cycle, which would hold the arguments
            for view in views:
                view.release()  # who handles the error can remove from `data` what was sent
    except BaseException as error:
        # No calls here: after one, a signal handler could raise again.
        error.sent = prepared.sent if prepared is not None else 0  # type: ignore[attr-defined]
        raise
