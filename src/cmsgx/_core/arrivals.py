"""What came from a socket and was not used yet, and how the socket ends.

The classes here and those that stand on them change one attribute at a time, and each of these
changes is complete in itself. So an exception that a signal handler raises between any two steps,
or that says that there is no memory, leaves what was there before: the same call again goes on from
there, with no byte and no descriptor lost or used twice. For that, all that changes together is one
tuple, and places in a stream are counted from its beginning.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import starmap
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeAlias, TypeVar

from ..errors import BrokenError, ControlTruncatedError, DataTruncatedError
from .ending import Ending

if TYPE_CHECKING:
    from .._fds import Fd

_T = TypeVar("_T")
_NO_ARGUMENTS: tuple[tuple[()], ...] = ((),)
_Held: TypeAlias = tuple[int, list[Any]]
# In place of a message that was used up. There is always memory for this.
NOTHING: _Held = (0, [])


def append_result(results: list[_T], function: Callable[[], _T]) -> None:
    """Appends what `function` returns; it has to be written in C.

    Then no step of Python is in between, after which a signal handler could raise while nobody but
    the interpreter holds the result. extend() has room for it before it calls.
    """
    results.extend(starmap(function, _NO_ARGUMENTS))


def close_each(fds: list[Fd]) -> None:
    """Closes them, each in its own way, and empties the list."""
    while fds:
        with suppress(OSError):  # it is closed all the same: close(2)
            fds[-1].close()
        fds.pop()


class Received(Protocol):
    """What a stream needs of a Message."""

    @property
    def nbytes(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def flags(self) -> int: ...
    @property
    def fds(self) -> Any: ...
    @property
    def closed_fds(self) -> int | None: ...
    def take_all(self) -> list[Fd]: ...
    def close(self) -> None: ...


class Arrivals(Ending):
    """The message that came last, until it is used; how the stream ends, and what broke it.

    is_end   says of a message without bytes whether it is the end: is_end() of its receiver. It is
             asked once, right after the message came, because the answer changes.

    For one thread at a time. Once it failed, each call raises the same.
    """

    __slots__ = ("_held", "_is_end", "_reset")

    # The first item is how many bytes of the stream were used: where the next message begins.
    _state: tuple[int, *tuple[Any, ...]]

    def __init__(self, is_end: Callable[[Any], bool]) -> None:
        super().__init__()
        self._is_end = is_end
        # Where its first byte is in the stream; and the message, if there is one, and whether it is
        # the end, if that was asked.
        self._held: _Held = NOTHING
        self._reset: ConnectionResetError | None = None

    def pull(self, receive: Callable[[], Any]) -> bool:
        """Gets the next message, unless one is here or the end came; False if there is none yet.

        receive   a try, or a call that waits: a method in C, or functools.partial() of one. It
                  returns a message, or None.

        What it raises passes. ConnectionResetError can come before messages that are queued, over
        SOCK_SEQPACKET and from recvmmsg(2): here it comes after them, and after it the end.
        """
        if self._failure is not None:
            self.check()
        held: _Held = self._held
        while not held[1] or held[1][0] is None:
            held = (self._state[0], [])
            self._held = held
            try:
                append_result(held[1], receive)
            except ConnectionResetError as error:
                if self._reset is None:
                    self._reset = error.with_traceback(None)
                    continue
            except (ControlTruncatedError, DataTruncatedError) as error:
                self._lost(error)
                raise
            break
        message = held[1][0] if held[1] else None
        if message is not None and message.nbytes:
            return True
        is_over = message is None or self.is_at_end
        if is_over and self._reset is not None:
            self._end_by(self._reset)
        return message is not None

    @property
    def is_at_end(self) -> bool:
        """Whether the end came: the peer will send nothing more."""
        here = self._held[1]
        if not here or here[0] is None or here[0].nbytes:
            return False
        if len(here) == 1:
            here.append(self._is_end(here[0]))
        return bool(here[1])

    def _message(self) -> Any:
        """The message that came and was not used up, or None."""
        here = self._held[1]
        return here[0] if here else None

    def _end_by(self, reset: ConnectionResetError) -> NoReturn:
        self._reset = None
        raise reset

    def _lost(self, error: ControlTruncatedError | DataTruncatedError) -> None:
        """The message of `error` has left the queue, and a part of it is lost."""

    def _fail(
        self,
        error: type[BrokenError],
        text: str,
        partial: bytes = b"",
        cause: BaseException | None = None,
    ) -> NoReturn:
        """Breaks it for good: all that it holds is closed."""
        self._failure = (lambda: error(text, partial), cause)
        self._drop()
        raise error(text, partial) from cause

    def _drop(self) -> None:
        message = self._message()
        if message is not None:
            message.close()
        self._held = NOTHING
