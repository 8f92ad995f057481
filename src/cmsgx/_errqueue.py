"""Reading the error queue: MSG_ERRQUEUE, recvmsg(2)."""

from __future__ import annotations

import errno
import itertools
import os
from _socket import MSG_DONTWAIT
from _socket import socket as _socket_class
from collections.abc import Iterable, Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from . import _cmsg
from ._arguments import as_int, as_seconds
from ._options import Enabled, as_options, family_of
from ._receiving import Restoring
from .errors import NotSupportedError
from .kinds._error import ExtendedError
from .kinds._reports import report_of
from .kinds._sending import family_name
from .kinds._table import rows

if TYPE_CHECKING:
    from ._fds import FileDescriptorLike
    from ._options import Kind
    from .kinds import ErrorReport

__all__ = ["ErrorReceiver", "receive_errors"]

# The longest packet, and the headers in front of it.
_BUFSIZE = 65 << 10
# The kernel writes the error last, so everything else has to fit before it: of IPv6, four kinds of
# extension headers of 2 KiB each.
_CONTROL_SIZE = 10 << 10
# It never waits in the kernel; but where it is not known, the call would be for ordinary data.
_FLAGS = getattr(_cmsg, "MSG_ERRQUEUE", 0) | MSG_DONTWAIT
_NOTHING = os.strerror(errno.EAGAIN)
# None where the system has no error queue, and so no such kind.
_FAMILIES = frozenset(
    family
    for row in rows()
    if row.kind is ExtendedError
    for wire in row.formats
    for family in wire.families
)


class ErrorReceiver(Restoring):
    """Reads the error queue of `sock` again and again: MSG_ERRQUEUE, ip(7).

    sock     a socket, an Fd, an int, or an object with fileno()
    bufsize  bytes at most of the packet that an entry is about; `message.truncated` says that
             there was more
    want     a kind to switch on, or several, see enable(): ExtendedError for errors,
             Timestamping.option() for time stamps, ExtendedError.option(zerocopy=True) for
             completions. The end of a `with` restores what was switched on,
             once, as the handle of enable() does.

    As receive_errors(), with the memory made once, so that a look at an empty queue costs hardly
    more than its system call: try_receive(). receive() waits. Iterating yields what is there and
    ends when the queue is empty, without waiting; it can be done again.

    NotSupportedError where the socket's family has no error queue. Of two threads that use one at
    once, one gets a RuntimeError. The descriptor stays the caller's, and open.
    """

    __slots__ = ("__weakref__", "_enabled", "_receiver", "_try")

    def __init__(
        self,
        sock: FileDescriptorLike,
        *,
        bufsize: int = _BUFSIZE,
        want: Kind | Iterable[Kind] = (),
    ) -> None:
        self._receiver = reader(sock, bufsize, "ErrorReceiver")
        self._try = self._receiver._try
        self._enabled = Enabled(sock, as_options(want, "want"))
        try:
            self._enabled._set_all()
        except BaseException as error:
            self._enabled._undo(error)
            raise

    @property
    def sock(self) -> FileDescriptorLike:
        """What it receives from."""
        return self._receiver.sock

    def receive(self, *, timeout: float | EllipsisType | None = ...) -> ErrorReport:
        """The next entry of the queue, waited for: one ErrorReport, as receive_errors() has it.

        `timeout` is seconds or None, by default the socket's own; with 0 BlockingIOError says that
        nothing is there, otherwise TimeoutError that the time is up. Of a number, or an object with
        just a fileno(), nothing is waited for unless there is a timeout. Raises what the kernel
        reports, but never the error that an entry is about, nor one that is pending on the socket.
        """
        timeout = _own_timeout(self._receiver.sock, timeout)
        if timeout != 0:
            return _report_of(self._receiver.receive(flags=_FLAGS, timeout=timeout))
        message = self._try(_FLAGS)
        if message is None:
            raise BlockingIOError(errno.EAGAIN, _NOTHING)
        return _report_of(message)

    def try_receive(self) -> ErrorReport | None:
        """The next entry of the queue, or None where it is empty. Waits for nothing."""
        message = self._try(_FLAGS)
        return None if message is None else _report_of(message)

    def __iter__(self) -> Iterator[ErrorReport]:
        return iter(self.try_receive, None)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("cannot copy or pickle an ErrorReceiver")


def receive_errors(
    sock: FileDescriptorLike,
    *,
    bufsize: int = _BUFSIZE,
    limit: int | None = None,
    timeout: float | EllipsisType | None = 0,
) -> Iterator[ErrorReport]:
    """Yields what is on the error queue of `sock`, one ErrorReport for each entry: ip(7).

    An IcmpError, a LocalError, a SentTimestamp, a WifiReport, a ZeroCopyCompletion, a TxTimeError
    or an UnknownReport, all of cmsgx.kinds. Ends when the queue is empty, and waits for the first
    entry only, and only with a timeout: poll(2) says POLLERR, unasked, when there is something. Who
    reads a queue often makes an ErrorReceiver of it, once.

    bufsize  bytes at most of the packet that an entry is about; `message.truncated` says that
             there was more
    limit    entries at most: peers can queue as fast as they are read
    timeout  seconds, or None: the first step waits that long, and raises TimeoutError where nothing
             came. `...` is the socket's own. With 0, which is the default, nothing is waited for,
             whatever the timeout of the socket is.

    Each step takes one entry out, so what is not asked for stays queued. What is put there is
    switched on by enable(): ExtendedError for errors, Timestamping.option() for time stamps,
    ExtendedError.option(zerocopy=True) for completions. An ICMP error is pending as well, and the
    next call on the socket fails with it; the kernel takes that back when the entry is read.

    NotSupportedError where the socket's family has no error queue: there, MSG_ERRQUEUE would take
    ordinary data. Where a socket of another family does that, the error has it as `message`.
    """
    if limit is not None:
        limit = as_int("limit", limit, minimum=0)
    timeout = _own_timeout(sock, timeout)
    return _reports(reader(sock, bufsize, "receive_errors"), limit, timeout)


def reader(sock: FileDescriptorLike, bufsize: int, what: str) -> _cmsg.Receiver:
    """A receiver with the room that an entry of the error queue takes."""
    family = family_of(sock)
    if family not in _FAMILIES:
        raise NotSupportedError(
            errno.EOPNOTSUPP, f"{what}: {family_name(family)} sockets have no error queue"
        )
    receiver = _Reader(sock, bufsize, None)
    # Also for SOCK_STREAM the destination is of interest: as if the type were unknown.
    receiver._configure(
        _cmsg.ReceiveConfig(
            fds=0,
            control_size=_CONTROL_SIZE,
            want=(),
            family=family,
            type=-1,
            raise_truncated=False,
        )
    )
    return receiver


class _Reader(_cmsg.Receiver):
    __slots__ = ()


# For its RuntimeError, which names the class.
_Reader.__name__ = "ErrorReceiver"


def no_error_queue(what: str, message: _cmsg.Message) -> NotSupportedError:
    """Of a socket that gave ordinary data instead."""
    error = NotSupportedError(errno.EOPNOTSUPP, f"{what}: this kind of socket has no error queue")
    error.message = message  # type: ignore[attr-defined]
    return error


def _own_timeout(
    sock: FileDescriptorLike, timeout: float | EllipsisType | None
) -> float | EllipsisType | None:
    """What to wait with: that of a socket that blocks is None, where `...` would be one try."""
    if isinstance(timeout, EllipsisType):
        is_socket = isinstance(sock, _socket_class)
        return _socket_class.gettimeout(sock) if is_socket else timeout  # type: ignore[arg-type]
    return as_seconds(timeout)


def _report_of(message: _cmsg.Message) -> ErrorReport:
    if not message.flags & _cmsg.MSG_ERRQUEUE:
        raise no_error_queue("receive_errors", message)
    return report_of(message)


def _reports(
    receiver: _cmsg.Receiver, limit: int | None, timeout: float | EllipsisType | None
) -> Iterator[ErrorReport]:
    wait = timeout != 0
    for _ in itertools.count() if limit is None else range(limit):
        message = receiver.receive(flags=_FLAGS, timeout=timeout) if wait else receiver._try(_FLAGS)
        if message is None:
            return
        wait = False
        yield _report_of(message)
