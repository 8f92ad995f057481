"""What cmsgx raises. Everything that comes from the kernel is an OSError with its errno.

Errors that are not named here stay as they are: BrokenPipeError, BlockingIOError, TimeoutError...
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ._names import publish

if TYPE_CHECKING:
    from ._cmsg import Message

__all__ = [
    "CmsgError",
    "ControlTruncatedError",
    "DataTruncatedError",
    "FdLimitError",
    "MalformedControlError",
    "NotSupportedError",
    "TooManyFdsError",
]


class CmsgError(Exception):
    """The base of all errors of cmsgx."""


class _TruncatedError(CmsgError, OSError):
    message: Message

    def __init__(self, number: int, text: str, message: Message) -> None:
        super().__init__(number, f"{os.strerror(number)}: {text}")
        self.message = message


class ControlTruncatedError(_TruncatedError):
    """Control data that was asked for did not arrive: MSG_CTRUNC, recvmsg(2). errno EMSGSIZE.

    `message` holds the data and what arrived whole; its descriptors are closed.

    It is an OSError, so `except OSError` catches it too, and its subclass FdLimitError. A library
    that takes an OSError of a socket for the end of the connection has to catch this one first: the
    socket is as good as before, and the bytes of `message` are read and gone.
    """


class FdLimitError(ControlTruncatedError):
    """The kernel kept descriptors back although there was room for them. errno EMFILE.

    It names RLIMIT_NOFILE where the descriptor table was seen to be full: then as many are in use;
    otherwise a limit or a security module withheld them. An OSError as ControlTruncatedError is.
    """


class DataTruncatedError(_TruncatedError):
    """A datagram was longer than the buffer: MSG_TRUNC, recvmsg(2). errno EMSGSIZE.

    `message` holds the data that fitted; its descriptors are closed. An OSError as
    ControlTruncatedError is.
    """


class TooManyFdsError(CmsgError, ValueError):
    """More descriptors than one message carries: SCM_MAX_FD, 253 on Linux. unix(7)"""


class MalformedControlError(CmsgError, ValueError):
    """Control data whose lengths do not fit, or a payload that is not of its kind's layout."""


class NotSupportedError(CmsgError, OSError):
    """Not supported by this system, kernel or socket type. errno ENOPROTOOPT or EOPNOTSUPP."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(number, f"{os.strerror(number)}: {text}")


__dir__ = publish(globals(), "cmsgx._")
