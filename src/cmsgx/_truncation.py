"""What is raised for a message that lacks something."""

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
    """Called by C with a message that lacks something; its descriptors are closed already."""
    if not misses:
        here = len(message.data)
        raise DataTruncatedError(
            errno.EMSGSIZE,
            f"the datagram was longer than the buffer, {_counted(here, 'byte')} of it "
            f"{'is' if here == 1 else 'are'} here; receive with a larger bufsize, or with "
            "on_truncation='keep'",
            message,
        )
    # How many were sent the kernel does not tell.
    what = f"{_counted(delivered, 'descriptor')} arrived, room was for {asked}"
    if full:
        # Not by the resource module: with a full table nothing can be imported.
        limit = os.sysconf("SC_OPEN_MAX")
        raise FdLimitError(
            errno.EMFILE,
            f"{what}: the descriptor table is full, with {limit} open and RLIMIT_NOFILE at "
            f"{limit}; raise the limit, or close some",
            message,
        )
    if withheld:
        raise FdLimitError(
            errno.EMFILE,
            f"{what}; others were withheld: limit or security module",
            message,
        )
    raise ControlTruncatedError(
        errno.EMSGSIZE,
        f"{what}: other control data took some of it; where an option was switched on meanwhile, "
        "call refresh()",
        message,
    )
