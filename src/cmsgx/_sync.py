"""Sending and receiving, blocking or with a timeout."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

from . import _cmsg
from ._arguments import as_fds, as_seconds, as_tuple, as_view, check_word, needed
from ._cmsg import note_used_up, send_tracked
from ._options import Enabled, as_options, kinds_of
from ._receiving import Asked, Configured

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike, FileDescriptors
    from ._options import Kind
    from .kinds import ControlMessage

__all__ = ["Receiver", "send_all"]


class Receiver(Configured, _cmsg.Receiver):
    """Receives messages of `sock`: the memory, the room and the options, made once.

    sock           a socket, an Fd, an int, or an object with fileno()
    bufsize        bytes of data at most for each message, of which receive(bufsize=) may ask for
                   less; or
    into           a writable buffer, or a sequence of them, that is filled instead. It is yours:
                   the next receive writes over it.
    fds            descriptors at most for each message. A surplus is closed and counted. Over a
                   socket that is not AF_UNIX none can come: NotSupportedError, but for MAX_FDS,
                   which is as many as can come
    want           a kind to switch on, or several, see enable(); found in a message by `msg[Kind]`.
                   Of a socket that is not bound yet: what was queued before comes without them
    on_truncation  "raise", or "keep" to get the message with `truncated` set: about descriptors and
                   data. A control message that was cut, as others switched on more meanwhile, shows
                   as `truncated` in any case, and raises MalformedControlError when it is looked up
    close          "background": whatever the peer sent is closed by other threads, also an Fd that
                   was taken: for peers that are not trusted, as what they send can block in
                   close(2). While too much waits there nothing more is received: see
                   docs/ownership.md

    `for msg in receiver` yields message after message, closes what was left in the one before, and
    ends at the end of the stream. Data that was received never changes: memory that a message or
    a view still holds is not filled again. Of two threads that use one Receiver at once, one gets
    a RuntimeError. Read the socket by this only: recv(), read() and the streams of asyncio make no
    room for descriptors, and the kernel drops them without a sign.

    `with Receiver(...) as receiver` restores at its end the options that it switched on, as the
    handle of enable() does: once, and in the reverse order where there are several of one socket.
    It closes neither the socket nor a message.
    """

    __slots__ = ("_asked", "_enabled")

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
        check_word("on_truncation", on_truncation, ("raise", "keep"))
        check_word("close", close, ("now", "background"))
        fds = as_fds(fds)
        super().__init__(sock, bufsize or 0, into)
        options = as_options(want, "want")
        self._asked = Asked(fds, kinds_of(options), on_truncation == "raise", close == "background")
        self._enabled = Enabled(sock, options)
        try:
            self._enabled._set_all()
            self.refresh()
        except BaseException as error:
            self._enabled._undo(error)
            raise


def send_all(
    sock: FileDescriptorLike,
    data: Buffer | Iterable[Buffer],
    *,
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[ControlMessage] = (),
    timeout: float | EllipsisType | None = ...,
) -> None:
    """Sends all of `data`, in as many calls as it takes: sendmsg(2).

    The descriptors and the control messages go once, with the first byte. `timeout` is for all of
    it. Where it raises, the attribute `sent` of the error is the number of bytes that were sent:
    with more than 0, the descriptors went with them.
    """
    if timeout is ...:
        gettimeout = getattr(sock, "gettimeout", None)
        seconds: float | None = gettimeout() if gettimeout is not None else None
        limit: dict[str, Any] = {}
    else:
        seconds = as_seconds(timeout)
        limit = {"timeout": seconds}
    deadline = time.monotonic() + seconds if seconds else None
    rest = views_of(data)
    total = sum([view.nbytes for view in rest])
    progress = [0]
    try:
        refusal = send_tracked(progress, sock, rest[:_IOV_MAX], fds=fds, control=control, **limit)
        while refusal is None and progress[0] < total:
            if deadline is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    refusal = TimeoutError("timed out")
                    break
                limit = {"timeout": left}
            refusal = send_tracked(progress, sock, views_after(rest, progress[0]), **limit)
        if refusal is not None:
            note_used_up(refusal, data=data)
            raise refusal
    except BaseException as error:
        error.sent = progress[0]  # type: ignore[attr-defined]
        raise


def views_of(data: Any) -> list[memoryview]:
    items: Any = data
    if type(data) is not list and type(data) is not tuple:
        try:
            view = memoryview(data)
        except TypeError:
            what = "a bytes-like object, or an iterable of them,"
            if isinstance(data, str):
                raise needed("data", what, data) from None
            items = as_tuple("data", what, data)
        else:
            return [as_view("data", view)]
    try:
        return [memoryview(item).cast("B") for item in items]
    except TypeError:
        return [as_view(f"data[{index}]", item) for index, item in enumerate(items)]


def views_after(views: list[memoryview], sent: int) -> list[memoryview]:
    rest: list[memoryview] = []
    for view in views:
        if sent >= view.nbytes:
            sent -= view.nbytes
        else:
            rest.append(view[sent:])
            sent = 0
    # IOV_MAX: more would be refused.
    return rest[:_IOV_MAX]


_IOV_MAX = 1024
