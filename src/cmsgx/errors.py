"""The exceptions of cmsgx. Every error from the kernel is an OSError with its errno.

The built-in ones are raised too: BrokenPipeError, BlockingIOError, TimeoutError, ...
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, TypeVar

from ._names import Dir, publish

if TYPE_CHECKING:
    from ._cmsg import Message

__all__ = [
    "BrokenError",
    "ClosedError",
    "CmsgError",
    "ControlTruncatedError",
    "DataTruncatedError",
    "FdLimitError",
    "LimitError",
    "MalformedControlError",
    "NotSupportedError",
    "TooManyFdsError",
]


class CmsgError(Exception):
    """The base class of the exceptions that cmsgx defines."""


class _NumberedError(CmsgError, OSError):
    """Its text is that of the errno, then the reason."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, f"{os.strerror(number)}: {text}")

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by __init__(), which would add the text of the errno once more.
        return _restored, (type(self), self.args), self.__dict__


_E = TypeVar("_E", bound=_NumberedError)


def _restored(cls: type[_E], args: tuple[Any, ...]) -> _E:
    error = cls.__new__(cls)
    OSError.__init__(error, *args)
    return error


class _TruncatedError(_NumberedError):
    message: Message

    def __init__(self, number: int, text: str, message: Message) -> None:
        super().__init__(number, text)
        self.message = message


class ControlTruncatedError(_TruncatedError):
    """Requested control data did not arrive: MSG_CTRUNC, recvmsg(2). errno EMSGSIZE.

    `message` holds the data, and the control messages that arrived whole; its descriptors are
    already closed.

    It is an OSError, so `except OSError` catches it and its subclass FdLimitError too. Code that
    takes an OSError from a socket for the end of the connection has to catch this one first: the
    socket still works, and the bytes in `message` have left its queue.
    """


class FdLimitError(ControlTruncatedError):
    """The kernel withheld descriptors that the control buffer had space for. errno EMFILE.

    If the descriptor table was full, the text names RLIMIT_NOFILE; otherwise another limit or a
    security module withheld them. An OSError, as ControlTruncatedError is.
    """


class DataTruncatedError(_TruncatedError):
    """A datagram was longer than the buffer: MSG_TRUNC, recvmsg(2). errno EMSGSIZE.

    `message` holds the data that fitted; its descriptors are already closed. An OSError, as
    ControlTruncatedError is.
    """


class TooManyFdsError(CmsgError, ValueError):
    """More descriptors than one message can carry: SCM_MAX_FD, 253 on Linux. unix(7)"""


class MalformedControlError(CmsgError, ValueError):
    """A length in control data does not fit, or a payload does not match the layout of its kind."""


class NotSupportedError(_NumberedError):
    """Not supported by this system, kernel or socket type. errno ENOPROTOOPT or EOPNOTSUPP."""


class ClosedError(_NumberedError):
    """The connection was closed by this program, by close() or aclose(). errno EBADF."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EBADF, text)


class BrokenError(_NumberedError):
    """What came over a connection is not what its protocol needs. errno EPROTO.

    The stream ended too early, or its peer broke the rules for frames or for descriptors. Nothing
    that comes later could be told apart any more, so each later call that reads raises it again.
    `partial` has the bytes that came of what was to be read.
    """

    partial: bytes

    def __init__(self, text: str, partial: bytes = b"") -> None:
        super().__init__(errno.EPROTO, text)
        self.partial = partial


class LimitError(BrokenError):
    """A BrokenError: the peer sent more than the limit that was set here. errno EPROTO."""


__dir__: Dir = publish(globals(), "cmsgx._")
