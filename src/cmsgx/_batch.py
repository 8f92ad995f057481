"""Many messages per system call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from . import _cmsg
from ._arguments import as_int
from ._names import describe
from ._receiving import Configured
from .kinds import _table

if TYPE_CHECKING:
    from typing import Self

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike, FileDescriptors
    from .kinds import ControlMessage
    from .kinds._base import Kind

__all__ = ["BatchReceiver", "BatchResult", "Outgoing", "OutgoingLike"]


class BatchReceiver(Configured, _cmsg.BatchReceiver):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Receives up to `count` messages from `sock` with each system call: recvmmsg(2).

    sock     a socket, an Fd, an int, or an object with fileno()
    count    maximum number of messages per call
    bufsize  maximum number of data bytes per message
    fds      maximum number of descriptors per message, as for Receiver. Any beyond that are closed
             and counted. A call takes no more messages than fit in the descriptor table, and only
             one if it has to wait without a timeout.
    want     a kind, or several, to switch on: see enable(). `msg[Kind]` finds it in a message.
    close    "background": as for Receiver. A call takes no more messages than fit in the queue of
             the background closer.

    receive() returns a Batch of Messages. `for batch in receiver` yields one batch after another,
    closes what was left in the previous one, and stops at the end of the stream. A call waits for
    the first message only, and takes the others if they are already there. A batch never raises
    because of one message: check its `truncated`. Received data never changes: memory that a
    message or a view still holds is not reused. If two threads use one BatchReceiver at once, one
    of them gets a RuntimeError. The end of `with BatchReceiver(...) as receiver` restores the
    options that it switched on, once, as the handle of enable() does.
    """

    __slots__ = ("_handle",)

    def __init__(
        self,
        sock: FileDescriptorLike,
        count: int,
        bufsize: int,
        *,
        fds: int = 0,
        want: Kind | Iterable[Kind] = (),
        close: Literal["now", "background"] = "now",
    ) -> None:
        is_first = not self._opened
        try:
            found = self._open(sock, count, bufsize, _table.derived, want, fds, "keep", close)
            if found is not True:
                self._finish(found, want, fds, "keep", close)
        except BaseException as error:
            if is_first:
                self._abandon(error)
            raise


_Data: TypeAlias = "Buffer | Iterable[Buffer]"
_Control: TypeAlias = "ControlMessage | Iterable[ControlMessage | tuple[int, int, Buffer]]"


@describe(
    data="The bytes: a bytes-like object, or an iterable of them.",
    fds="The descriptors: an object with fileno(), or an iterable of such objects and numbers.",
    control="The control messages: one, or an iterable of them or of (level, type, data) tuples.",
    address="Where to send it; None for the peer of a connected socket.",
)
class Outgoing(NamedTuple):
    """A message for send_batch(): each field is as the argument of send()."""

    data: _Data
    fds: FileDescriptors = ()
    control: _Control = ()
    address: Any = None


# One tuple type for all lengths: mypy infers nothing from a union of them. An Outgoing matches too.
OutgoingLike: TypeAlias = "Buffer | tuple[_Data, *tuple[Any, ...]]"
"""A message as send_batch() takes it: an Outgoing, a tuple of its first fields (at least the data),
or one buffer. For annotations."""


class BatchResult(int):
    """What send_batch(on_error="skip") returns: an int, the number of messages that were sent.

    skipped  (index, error) for each message that the kernel refused, in order; the error is an
             OSError. All other messages up to `done` were sent.
    done     how many were sent or skipped: `messages[result.done:]` are left.
    """

    _skipped: tuple[tuple[int, OSError], ...]

    def __new__(cls, sent: int, skipped: Iterable[tuple[int, OSError]] = ()) -> Self:
        self = super().__new__(cls, as_int("sent", sent, minimum=0))
        self._skipped = tuple(skipped)
        return self

    @property
    def skipped(self) -> tuple[tuple[int, OSError], ...]:
        """(index, error) for each message that the kernel refused, in order."""
        return self._skipped

    @property
    def done(self) -> int:
        """How many were sent or skipped."""
        return self + len(self.skipped)

    def __repr__(self) -> str:
        return f"BatchResult({int(self)}, skipped={self.skipped!r})"
