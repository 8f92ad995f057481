"""Reading the error queue: MSG_ERRQUEUE, recvmsg(2)."""

from __future__ import annotations

import errno
import itertools
import os
from _socket import MSG_DONTWAIT
from collections.abc import Iterable, Iterator
from functools import cache
from types import EllipsisType
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from . import _cmsg
from ._arguments import as_int, as_seconds
from ._asked import ask
from ._deadline import own_timeout
from ._options import family_of
from ._plan import switch_on
from ._receiving import Restoring
from .errors import NotSupportedError
from .kinds._error import ExtendedError
from .kinds._reports import no_error_queue, report_of
from .kinds._sending import family_name
from .kinds._table import rows

if TYPE_CHECKING:
    from ._fds import FileDescriptorLike
    from .kinds import ErrorReport
    from .kinds._base import Kind

__all__ = ["ErrorReceiver", "receive_errors"]

# The longest packet, with the headers before it.
_BUFSIZE = 65 << 10
# The kernel writes the error last, so everything else has to fit before it: over IPv6, four kinds
# of extension headers with 2 KiB each.
_CONTROL_SIZE = 10 << 10
# MSG_ERRQUEUE never waits in the kernel. If the system lacks it, a call would take ordinary data.
_FLAGS = getattr(_cmsg, "MSG_ERRQUEUE", 0) | MSG_DONTWAIT
_NOTHING = os.strerror(errno.EAGAIN)
# Empty if the system has no error queue, and so lacks ExtendedError.
_FAMILIES = frozenset(
    family
    for row in rows()
    if row.kind is ExtendedError
    for wire in row.formats
    for family in wire.families
)


class ErrorReceiver(Restoring):
    """Reads the error queue of `sock`, any number of times: MSG_ERRQUEUE, ip(7).

    sock     a socket, an Fd, an int, or an object with fileno()
    bufsize  maximum number of bytes of the packet that an entry is about; `message.truncated` says
             that there were more
    want     a kind, or several, to switch on: see enable(). ExtendedError for errors,
             Timestamping.option() for time stamps, ExtendedError.option(zerocopy=True) for
             completions. The end of a `with` restores the options, once, as the handle of enable()
             does.

    It does what receive_errors() does, but allocates its memory only once: try_receive() on an
    empty queue costs little more than its system call. receive() waits. Iterating yields the
    entries that are there and stops when the queue is empty, without waiting; it can be repeated.

    NotSupportedError if the socket's family has no error queue. If two threads use one
    ErrorReceiver at once, one of them gets a RuntimeError. The descriptor stays the caller's, and
    open.
    """

    __slots__ = ("__weakref__", "_asked", "_before", "_generation", "_handle", "_receiver", "_try")

    def __init__(
        self,
        sock: FileDescriptorLike,
        *,
        bufsize: int = _BUFSIZE,
        want: Kind | Iterable[Kind] = (),
    ) -> None:
        asked = ask(want, "want")
        self._receiver = reader(sock, bufsize, "ErrorReceiver")
        self._try = self._receiver.try_receive
        self._asked, self._before = asked, []
        self._generation = _cmsg.generation()
        try:
            if asked.options:
                switch_on(asked, sock, self._before)
        except BaseException as error:
            self._enabled._undo(error)
            raise

    @property
    def sock(self) -> FileDescriptorLike:
        """The socket that it reads, as it was given."""
        return self._receiver.sock

    def receive(self, *, timeout: float | EllipsisType | None = ...) -> ErrorReport:
        """Waits for the next entry of the queue, and returns it as an ErrorReport.

        `timeout` is in seconds, or None for no limit; the default is the socket's own. If nothing
        comes in time, TimeoutError, or BlockingIOError with a timeout of 0. An int, or an object
        with only a fileno(), has no timeout of its own: by default it does not wait. It raises
        errors of the call itself, but never one that an entry reports, nor one that is pending on
        the socket.
        """
        timeout = _timeout(self._receiver.sock, timeout)
        if timeout != 0:
            return _report_of(self._receiver.receive(timeout=timeout))
        message = self._try()
        if message is None:
            raise BlockingIOError(errno.EAGAIN, _NOTHING)
        return _report_of(message)

    def try_receive(self) -> ErrorReport | None:
        """The next entry of the queue, or None if the queue is empty. Never waits."""
        message = self._try()
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
    """Yields the entries of the error queue of `sock`, each as an ErrorReport: ip(7).

    Each is an IcmpError, LocalError, SentTimestamp, WifiReport, ZeroCopyCompletion, TxTimeError or
    UnknownReport of cmsgx.kinds. It stops when the queue is empty. It waits for the first entry
    only, and only if it has a timeout: poll(2) always reports POLLERR while there are entries. To
    read a queue often, make an ErrorReceiver once.

    bufsize  maximum number of bytes of the packet that an entry is about; `message.truncated` says
             that there were more
    limit    maximum number of entries: peers can cause new ones as fast as they are read
    timeout  seconds that the first step waits, or None for no limit; TimeoutError if nothing came.
             `...` is the socket's own timeout. The default, 0, never waits, whatever the timeout of
             the socket is.

    Each step takes one entry out; the others stay queued. enable() switches on what the kernel
    queues: ExtendedError for errors, Timestamping.option() for time stamps,
    ExtendedError.option(zerocopy=True) for completions. An ICMP error is also pending on the
    socket, whose next call fails with it; the kernel clears it when the entry is read.

    NotSupportedError if the socket's family has no error queue, as MSG_ERRQUEUE would take ordinary
    data there. If that happens all the same, the error keeps that data in `message`.
    """
    if limit is not None:
        limit = as_int("limit", limit, minimum=0)
    timeout = _timeout(sock, timeout)
    return _reports(reader(sock, bufsize, "receive_errors"), limit, timeout)


def reader(sock: FileDescriptorLike, bufsize: int, what: str) -> _cmsg.Receiver:
    """A receiver whose buffers are large enough for an entry of the error queue."""
    family = family_of(sock)
    if family not in _FAMILIES:
        raise NotSupportedError(
            errno.EOPNOTSUPP, f"{what}: {family_name(family)} sockets have no error queue"
        )
    receiver = _Reader(sock, bufsize, None)
    receiver._configure(_config(family, _CONTROL_SIZE))
    return receiver


@cache
def _config(family: int, size: int) -> _cmsg.ReceiveConfig:
    # type=-1, unknown: the destination is wanted for SOCK_STREAM too.
    return _cmsg.ReceiveConfig(
        fds=0,
        control_size=size,
        want=(),
        family=family,
        type=-1,
        raise_truncated=False,
        flags=_FLAGS,
    )


class _Reader(_cmsg.Receiver):
    __slots__ = ()


# The RuntimeError about two threads names the class.
_Reader.__name__ = "ErrorReceiver"


def _timeout(
    sock: FileDescriptorLike, timeout: float | EllipsisType | None
) -> float | EllipsisType | None:
    """The timeout to wait with. Since C tries only once if it is `...`, as MSG_DONTWAIT says, a
    blocking socket needs None. A number has no timeout, and is tried once."""
    return own_timeout(sock) if timeout is ... else as_seconds(timeout)


def _report_of(message: _cmsg.Message) -> ErrorReport:
    if not message.flags & _cmsg.MSG_ERRQUEUE:
        raise no_error_queue("receive_errors", message)
    return report_of(message)


def _reports(
    receiver: _cmsg.Receiver, limit: int | None, timeout: float | EllipsisType | None
) -> Iterator[ErrorReport]:
    wait = timeout != 0
    for _ in itertools.count() if limit is None else range(limit):
        message = receiver.receive(timeout=timeout) if wait else receiver.try_receive()
        if message is None:
            return
        wait = False
        yield _report_of(message)
