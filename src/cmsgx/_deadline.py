"""How long a call that takes several tries may wait: the one clock of the Python code."""

from __future__ import annotations

import errno
import os
import time
from _socket import socket as _socket_class
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from . import _cmsg
from ._arguments import as_seconds

if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike


def own_timeout(sock: FileDescriptorLike) -> float | EllipsisType | None:
    """The timeout of a socket object, as C reads it.

    An Fd, an int and an object with only fileno() have none: `...`, which C takes too.
    """
    # By its type, as a proxy of a socket only claims to be one.
    is_socket = issubclass(type(sock), _socket_class)
    return _socket_class.gettimeout(sock) if is_socket else ...  # type: ignore[arg-type]


def with_own(
    sock: FileDescriptorLike, timeout: float | EllipsisType | None
) -> float | EllipsisType | None:
    """The argument `timeout` of a call that C makes in several parts, each of which may wait: the
    socket's own in place of `...`, so that one Deadline limits them all.

    It stays `...` where the socket has none. Not None: such a call waits only if O_NONBLOCK does
    not forbid it.
    """
    if timeout is not ...:
        return timeout
    own = own_timeout(sock)
    return ... if own is None else own


class Deadline:
    """`seconds` from now; None for no limit, 0 if the call may not wait."""

    __slots__ = ("_raised", "_until", "rounds", "seconds")

    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds = as_seconds(seconds)
        # The last argument of _cmsg.wait_for().
        self.rounds = 0
        # The id() of what left() has raised. Not the exception itself, which has a traceback that
        # refers to this object: a cycle, which would keep all arguments of the call alive.
        self._raised: int | None = None
        self._until = None if seconds is None else time.monotonic() + seconds

    @classmethod
    def of(cls, sock: FileDescriptorLike, timeout: float | EllipsisType | None) -> Self:
        """What the argument `timeout` of a call on `sock` means; `...` is the socket's own.

        What has no timeout of its own waits if a system call on it would: O_NONBLOCK decides. A
        green socket never waits here, because that would stop all greenlets.
        """
        if _cmsg.check_socket(sock):
            if timeout is not ...:
                as_seconds(timeout)  # wrong even if nothing waits
            return cls(0)
        if timeout is ...:
            timeout = own_timeout(sock)
        if timeout is ...:
            with _cmsg.borrow(sock) as number:
                timeout = None if os.get_blocking(number) else 0
        return cls(timeout)

    def remaining(self) -> float | None:
        """Seconds left, 0 if there are none; None for no limit."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())

    def left(self) -> float | None:
        """The same, but if none are left: BlockingIOError if it may not wait, else TimeoutError."""
        left = self.remaining()
        if left == 0:
            raise self._time_is_up()
        return left

    def _time_is_up(self) -> OSError:
        error: OSError
        if self.seconds:
            error = TimeoutError("timed out")
        else:
            error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        self._raised = id(error)
        return error

    def raised(self, error: BaseException) -> bool:
        """Whether this is what left() raised, and not what a signal handler raised meanwhile."""
        return id(error) == self._raised

    def timeout(self) -> float | None:
        """The time left, for a call that takes a timeout: 0 only if it may not wait at all."""
        return self.left() if self.seconds else self.seconds
