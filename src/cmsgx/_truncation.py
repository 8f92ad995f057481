"""The errors for a message from which data or descriptors are missing."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from .errors import ControlTruncatedError, DataTruncatedError, FdLimitError

if TYPE_CHECKING:
    from ._cmsg import Message


def _counted(count: int, thing: str) -> str:
    return f"{count or 'no'} {thing}{'' if count == 1 else 's'}"


def raise_truncated(
    message: Message, asked: int, delivered: int, misses: int, full: int, withheld: int
) -> None:
    """Called by C for such a message; its descriptors are already closed."""
    if not misses:
        here = len(message.data)
        raise DataTruncatedError(
            errno.EMSGSIZE,
            f"the datagram was longer than the buffer: {_counted(here, 'byte')} of it "
            "arrived; receive with a larger bufsize, or with on_truncation='keep'",
            message,
        )
    # The kernel does not report how many were sent.
    what = f"{_counted(delivered, 'descriptor')} arrived, with space for {asked}"
    if full:
        # Not with the resource module: nothing can be imported while the table is full.
        limit = os.sysconf("SC_OPEN_MAX")
        raise FdLimitError(
            errno.EMFILE,
            f"{what}: the descriptor table is full, with {limit} open and RLIMIT_NOFILE at "
            f"{limit}; raise the limit, or close some of them",
            message,
        )
    if withheld:
        raise FdLimitError(
            errno.EMFILE,
            f"{what}; a limit or a security module withheld others",
            message,
        )
    raise ControlTruncatedError(
        errno.EMSGSIZE,
        f"{what}: other control data took part of the control buffer; if an option was switched on "
        "meanwhile, call refresh()",
        message,
    )
