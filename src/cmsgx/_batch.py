"""Many messages for one system call, and many datagrams in one message."""

from __future__ import annotations

import _socket
import errno
import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from . import _cmsg
from ._arguments import as_int, as_kinds, as_view
from ._cmsg import note_used_up, send, send_batch_counted, send_counted
from ._options import Enabled, get_int, kinds_of
from ._sync import configuration
from .kinds import UdpSegment
from .kinds._base import as_options

if TYPE_CHECKING:
    from ._fds import FileDescriptorLike, FileDescriptors
    from .kinds import ControlMessage
    from .kinds._base import Buffer, Kind

__all__ = ["BatchReceiver", "Outgoing", "segment_support", "send_segments"]


class BatchReceiver(_cmsg.BatchReceiver):
    """Receives up to `count` messages of `sock` with each system call: recvmmsg(2).

    sock     a socket, an Fd, an int, or an object with fileno()
    count    messages at most for each call
    bufsize  bytes of data at most for each message
    fds      descriptors at most for each message. A surplus is closed and counted. A call takes
             no more messages than the descriptor table has room for, and one where it has to wait
             without a timeout.
    want     a kind to switch on, or several, see enable(); found in a message by `msg[Kind]`
    close    "background": as for Receiver; a call takes no more messages than the background
             closer has room for

    receive() gives a Batch of Messages; `for batch in receiver` the next and the next,
    closes what was left in the one before, and ends at the end of the stream. The first message is
    waited for, the others are taken as they are there. A batch never raises for one message: see
    its `truncated`. Data that was received never changes: memory that a message or a view still
    holds is not filled again. Of two threads that use one at once, one gets a RuntimeError.
    """

    __slots__ = ("_fds", "_in_background", "_want")

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
        if close not in ("now", "background"):
            raise ValueError(f"close: {close!r}; it is 'now' or 'background'")
        if fds < 0:
            raise ValueError(f"fds: {fds}; it cannot be negative")
        super().__init__(sock, count, bufsize)
        self._fds = fds
        asked = as_options(want, "want")
        self._want = kinds_of(asked)
        self._in_background = close == "background"
        enabled = Enabled(sock, asked)
        try:
            enabled._set_all()
            self.refresh()
        except BaseException as error:
            enabled._undo(error)
            raise

    def refresh(self) -> None:
        """Makes room for what was switched on since, by others."""
        self._configure(
            *configuration(self.sock, self._fds, self._want), False, self._in_background
        )


class Outgoing(NamedTuple):
    """A message for send_batch(): each part as for send()."""

    data: Buffer | Iterable[Buffer]
    fds: FileDescriptors = ()
    control: ControlMessage | Iterable[ControlMessage] = ()
    address: Any = None


# Segmentation offload -----------------------------------------------------------------------------

# What a path says that does not take segments: a device or an xfrm that cannot (EIO), a socket
# without checksums or too many segments (EINVAL), a segment above the MTU (EMSGSIZE).
_REFUSED = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)
# A datagram of segments is one of IP until it is cut.
_MOST_BYTES = 65507
# UDP_MAX_SEGMENTS, and what it is since Linux 6.12.
_MOST_SEGMENTS = 64
_MANY_SEGMENTS = 128

_limits: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


@functools.cache
def _most_of_kernel() -> int:
    """UDP_MAX_SEGMENTS, which no option tells: a socket sends itself as many as it may be."""
    # The class in C, below whatever stands as socket.socket.
    with closing(_socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        try:
            send(probe, bytes(_MANY_SEGMENTS), control=UdpSegment(1), address=probe.getsockname())
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _MOST_SEGMENTS
    return _MANY_SEGMENTS


def segment_support(sock: FileDescriptorLike) -> int:
    """How many segments one message of this socket may have: UDP_SEGMENT, udp(7).

    0 where the kernel or the socket has no segmentation offload, or a path of this socket has
    refused it before: see send_segments(). Else 64, or 128 where the kernel takes that: a socket of
    its own tries it on the loopback device, once. Nothing is sent by `sock`, and no option of it
    changed.
    """
    known = _known(sock)
    if known is not None:
        return known
    if _own_size(sock) is None:
        return 0
    try:
        return _most_of_kernel()
    except OSError:  # no IPv4, no loopback device
        return _MOST_SEGMENTS


def _own_size(sock: FileDescriptorLike) -> int | None:
    """What the socket's option cuts everything into, 0 for nothing; None where there is none."""
    if not hasattr(_cmsg, "UDP_SEGMENT"):
        return None
    try:
        return get_int(sock, _cmsg.SOL_UDP, _cmsg.UDP_SEGMENT)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise


def _known(sock: Any) -> int | None:
    try:
        return _limits.get(sock)
    except TypeError:  # an int, or an object without weak references
        return None


def _remember(sock: Any, most: int) -> None:
    with suppress(TypeError):
        _limits[sock] = most


def send_segments(
    sock: FileDescriptorLike,
    data: Buffer,
    size: int,
    *,
    control: ControlMessage | Iterable[ControlMessage] = (),
    address: Any = None,
    timeout: float | EllipsisType | None = ...,
) -> int:
    """Sends `data` as datagrams of `size` bytes, the last maybe shorter: UDP_SEGMENT, udp(7).

    As many for each system call as the kernel takes. Where the path refuses segments (EIO, EINVAL,
    EMSGSIZE) the rest goes by send_batch(); no datagram is lost or sent twice. If it goes, all
    that this socket sends later goes so too (that of an int, or of an object without weak
    references, is forgotten). No data is one empty datagram. Returns how many datagrams were sent,
    and raises only where the first fails, as send_batch() does, or any where `control` was an
    iterator, which is used up then, or a signal handler raises; then the attribute `sent` of the
    error is that number. `timeout` is for each system call.
    """
    size = as_int("size", size, least=1)
    view = as_view("data", data)
    kinds = as_kinds(control)
    limit: dict[str, Any] = {} if timeout is ... else {"timeout": timeout}
    each = size * min(segment_support(sock), _MOST_BYTES // size)
    in_segments, in_batch = [0], [0]  # bytes, datagrams
    sent = 0
    refusal: OSError | None = None
    try:
        # One datagram alone is none of segments.
        while refusal is None and each > size and len(view) - sent > size:
            refusal = send_counted(
                in_segments, sock, view[sent : sent + each],
                control=(UdpSegment(size), *kinds), address=address, **limit,
            )  # fmt: skip
            sent = in_segments[0]
        is_refused = refusal is not None and refusal.errno in _REFUSED
        if is_refused or (refusal is None and (sent == 0 or sent < len(view))):
            if _own_size(sock):
                # Or what goes alone would be cut once more.
                kinds = (UdpSegment(0), *kinds)
            rest = [(part, (), kinds, address) for part in _cut(view[sent:], size)]
            while True:
                refusal = send_batch_counted(in_batch, sock, rest[in_batch[0] :], **limit)
                # Where others went, the rest is for another call; unless that cannot have the same.
                is_done = refusal is not None or in_batch[0] == len(rest)
                if is_done or not isinstance(control, Iterator):
                    break
            if is_refused and in_batch[0]:
                _remember(sock, 0)
        done = -(-sent // size) + in_batch[0]
        if refusal is not None and (not done or isinstance(control, Iterator)):
            note_used_up(refusal, control=control)
            raise refusal
        return done
    except BaseException as error:
        # No call in here, after which a signal handler could raise once more.
        error.sent = -(-in_segments[0] // size) + in_batch[0]  # type: ignore[attr-defined]
        raise


def _cut(view: memoryview, size: int) -> Iterator[memoryview]:
    for at in range(0, max(len(view), 1), size):
        yield view[at : at + size]
