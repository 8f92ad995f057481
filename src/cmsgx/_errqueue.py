"""Reading the error queue: MSG_ERRQUEUE, recvmsg(2)."""

from __future__ import annotations

import errno
import itertools
import socket as _socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import _cmsg
from ._arguments import as_int
from ._options import family_of
from .errors import NotSupportedError
from .kinds._base import rows
from .kinds._error import ExtendedError
from .kinds._reports import report_of

if TYPE_CHECKING:
    from ._fds import FileDescriptorLike
    from .kinds import ErrorReport

__all__ = ["receive_errors"]

# The longest packet, and the headers in front of it.
_BUFSIZE = 65 << 10
# The kernel writes the error last, so everything else has to fit before it: of IPv6, four kinds of
# extension headers of 2 KiB each.
_ROOM = 10 << 10
_FLAGS = getattr(_cmsg, "MSG_ERRQUEUE", 0)
# None where the system has no error queue, and so no such kind.
_FAMILIES = frozenset(
    family
    for row in rows()
    if row.kind is ExtendedError
    for form in row.forms
    for family in form.families
)


def receive_errors(
    sock: FileDescriptorLike, *, bufsize: int = _BUFSIZE, limit: int | None = None
) -> Iterator[ErrorReport]:
    """Yields what is on the error queue of `sock`, one ErrorReport for each entry: ip(7).

    An IcmpError, a LocalError, a SentTimestamp, a WifiReport, a ZeroCopyCompletion, a TxTimeError
    or an UnknownReport, all of cmsgx.kinds. Ends when the queue is empty, and never waits, whatever
    the timeout of the socket is: poll(2) says POLLERR, unasked, when there is something.

    bufsize  bytes at most of the packet that an entry is about; `message.truncated` says that
             there was more
    limit    entries at most: peers can queue as fast as they are read

    Each step takes one entry out, so what is not asked for stays queued. What is put there is
    switched on by enable(): ExtendedError for errors, Timestamping.option() for time stamps,
    ExtendedError.option(zerocopy=True) for completions. An ICMP error is pending as well, and the
    next call on the socket fails with it; the kernel takes that back when the entry is read.

    NotSupportedError where the socket's family has no error queue: there, MSG_ERRQUEUE would take
    ordinary data. Where a socket of another family does that, the error has it as `message`.
    """
    if limit is not None:
        limit = as_int("limit", limit, least=0)
    return _reports(reader(sock, bufsize), limit)


def reader(sock: FileDescriptorLike, bufsize: int) -> _cmsg.Receiver:
    """A receiver with the room that an entry of the error queue takes."""
    family = family_of(sock)
    if family not in _FAMILIES:
        raise NotSupportedError(
            errno.EOPNOTSUPP, f"receive_errors: sockets of family {family} have no error queue"
        )
    receiver = _cmsg.Receiver(sock, bufsize, None)
    # Also for SOCK_STREAM the destination is of interest: as if the type were unknown.
    receiver._configure(0, _ROOM, (), family, -1, False, False, False)
    return receiver


def no_error_queue(what: str, message: _cmsg.Message) -> NotSupportedError:
    """Of a socket that gave ordinary data instead."""
    error = NotSupportedError(errno.EOPNOTSUPP, f"{what}: this kind of socket has no error queue")
    error.message = message  # type: ignore[attr-defined]
    return error


def _reports(receiver: _cmsg.Receiver, limit: int | None) -> Iterator[ErrorReport]:
    for _ in itertools.count() if limit is None else range(limit):
        try:
            message = receiver.receive(flags=_FLAGS | _socket.MSG_DONTWAIT, timeout=0)
        except BlockingIOError:
            return
        if not message.flags & _FLAGS:
            raise no_error_queue("receive_errors", message)
        yield report_of(message)
