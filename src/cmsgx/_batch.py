"""Many messages per system call, and many datagrams in one message."""

from __future__ import annotations

import _socket
import errno
import functools
import weakref
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from . import _cmsg
from ._arguments import as_fds, as_int, as_kinds, as_view, check_word
from ._cmsg import note_used_up, send, send_batch_tracked, send_tracked
from ._names import describe
from ._options import Enabled, as_options, get_int, kinds_of, type_of
from ._receiving import Asked, Configured
from .errors import NotSupportedError
from .kinds import Mark, PacketInfo, PacketInfo6, UdpSegment

if TYPE_CHECKING:
    from typing import Self

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike, FileDescriptors
    from .kinds import ControlMessage
    from .kinds._base import Kind

__all__ = [
    "BatchReceiver",
    "BatchResult",
    "Outgoing",
    "OutgoingLike",
    "segment_support",
    "send_segments",
]


class BatchReceiver(Configured, _cmsg.BatchReceiver):
    """Receives up to `count` messages from `sock` with each system call: recvmmsg(2).

    sock     a socket, an Fd, an int, or an object with fileno()
    count    maximum number of messages per call
    bufsize  maximum number of data bytes per message
    fds      maximum number of descriptors per message, as for Receiver. Any beyond that are closed
             and counted. A call takes no more messages than fit in the descriptor table, and only
             one if it has to wait without a timeout.
    want     a kind, or several, to switch on: see enable(). `msg[Kind]` finds it in a message.
    close    "background": as for Receiver. A call takes no more messages than fit in the queue of
             the background closer.

    receive() returns a Batch of Messages. `for batch in receiver` yields one batch after another,
    closes what was left in the previous one, and stops at the end of the stream. A call waits for
    the first message only, and takes the others if they are already there. A batch never raises
    because of one message: check its `truncated`. Received data never changes: memory that a
    message or a view still holds is not reused. If two threads use one BatchReceiver at once, one
    of them gets a RuntimeError. The end of `with BatchReceiver(...) as receiver` restores the
    options that it switched on, once, as the handle of enable() does.
    """

    __slots__ = ("_asked", "_enabled")

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
        check_word("close", close, ("now", "background"))
        fds = as_fds(fds)
        super().__init__(sock, count, bufsize)
        options = as_options(want, "want")
        self._asked = Asked(fds, kinds_of(options), False, close == "background")
        self._enabled = Enabled(sock, options)
        try:
            self._enabled._set_all()
            self.refresh()
        except BaseException as error:
            self._enabled._undo(error)
            raise


_Data: TypeAlias = "Buffer | Iterable[Buffer]"
_Control: TypeAlias = "ControlMessage | Iterable[ControlMessage | tuple[int, int, Buffer]]"


@describe(
    data="The bytes: a bytes-like object, or an iterable of them.",
    fds="The descriptors: an object with fileno(), or an iterable of such objects and numbers.",
    control="The control messages: one, or an iterable of them or of (level, type, data) tuples.",
    address="Where to send it; None for the peer of a connected socket.",
)
class Outgoing(NamedTuple):
    """A message for send_batch(): each field is as the argument of send()."""

    data: _Data
    fds: FileDescriptors = ()
    control: _Control = ()
    address: Any = None


# One tuple type for all lengths: mypy infers nothing from a union of them. An Outgoing matches too.
OutgoingLike: TypeAlias = "Buffer | tuple[_Data, *tuple[Any, ...]]"
"""A message as send_batch() takes it: an Outgoing, a tuple of its first fields (at least the data),
or one buffer. For annotations."""


class BatchResult(int):
    """What send_batch(on_error="skip") returns: an int, the number of messages that were sent.

    skipped  (index, error) for each message that the kernel refused, in order; the error is an
             OSError. All other messages up to `done` were sent.
    done     how many were sent or skipped: `messages[result.done:]` are left.
    """

    _skipped: tuple[tuple[int, OSError], ...]

    def __new__(cls, sent: int, skipped: Iterable[tuple[int, OSError]] = ()) -> Self:
        self = super().__new__(cls, as_int("sent", sent, minimum=0))
        self._skipped = tuple(skipped)
        return self

    @property
    def skipped(self) -> tuple[tuple[int, OSError], ...]:
        """(index, error) for each message that the kernel refused, in order."""
        return self._skipped

    @property
    def done(self) -> int:
        """How many were sent or skipped."""
        return self + len(self.skipped)

    def __repr__(self) -> str:
        return f"BatchResult({int(self)}, skipped={self.skipped!r})"


# Segmentation offload -----------------------------------------------------------------------------

# Errors that mean a path does not take segments: the device or an xfrm cannot (EIO), or the socket
# sends no checksums (EINVAL). _REFUSED adds the error about one send: a segment exceeds the MTU of
# the path (EMSGSIZE; before Linux 6.14, unless the change was backported, EINVAL).
_OF_PATH = (errno.EIO, errno.EINVAL)
_REFUSED = (*_OF_PATH, errno.EMSGSIZE)
# Until it is split, the data of all segments is one IP datagram.
_MOST_BYTES = 65507
# UDP_MAX_SEGMENTS since Linux 6.12, and before.
_MANY_SEGMENTS: int = getattr(_cmsg, "UDP_MAX_SEGMENTS", 0)
_MOST_SEGMENTS = _MANY_SEGMENTS // 2
# The largest value of UDP_SEGMENT, which exceeds any MTU.
_LARGEST = 65535

# What the kernel chooses the route by: the destination, and the control messages that matter.
_Path: TypeAlias = tuple[Any, tuple[Any, ...]]
_ROUTED_BY = (PacketInfo, PacketInfo6, Mark)
# For each socket: the paths that refused segments, and the smallest size that each refused.
_refused: weakref.WeakKeyDictionary[Any, dict[_Path, int]] = weakref.WeakKeyDictionary()
# Beyond this number all are forgotten, and tried again.
_MOST_PATHS = 1024


class _Kernel(NamedTuple):
    """What no socket option reports."""

    max_segments: int
    """UDP_MAX_SEGMENTS."""
    names_size: bool
    """Whether it reports EMSGSIZE if a segment exceeds the MTU."""


@functools.cache
def _kernel() -> _Kernel:
    """Found out by a socket that sends to itself. OSError without IPv4 or a loopback device."""
    # The class in C: socket.socket may have been replaced.
    with closing(_socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)) as probe:
        probe.bind(("127.0.0.1", 0))

        def takes(nbytes: int, size: int) -> bool:
            control = UdpSegment(size)
            try:
                send(probe, bytes(nbytes), control=control, address=probe.getsockname())
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                return False
            return True

        max_segments = _MANY_SEGMENTS if takes(_MANY_SEGMENTS, 1) else _MOST_SEGMENTS
        # Kernels that report EMSGSIZE accept this, because one byte is not split.
        return _Kernel(max_segments, takes(1, _LARGEST))


def segment_support(sock: FileDescriptorLike) -> int:
    """The maximum number of segments in one message of this socket: UDP_SEGMENT, udp(7).

    0 if the kernel or the socket lacks segmentation offload, or if the path to the connected peer
    has refused it: see send_segments(). Otherwise 64, or 128 if the kernel allows that, which a
    separate socket tests once on the loopback device. `sock` sends nothing, and none of its options
    changes.
    """
    return _most(sock, None, (), 1)


def _most(sock: Any, address: Any, kinds: tuple[Any, ...], size: int) -> int:
    """segment_support() for segments of `size` bytes on the path to `address`."""
    try:
        paths = _refused.get(sock)
    except TypeError:  # an int, or an object without weak references
        paths = None
    if paths:
        with suppress(TypeError):  # an address that has no hash
            if size >= paths.get(_path(sock, address, kinds), _LARGEST + 1):
                return 0
    if _own_size(sock) is None:
        return 0
    try:
        return _kernel().max_segments
    except OSError:
        return _MOST_SEGMENTS


def _own_size(sock: FileDescriptorLike) -> int | None:
    """The segment size set by the socket's own option; 0 if unset, None if it lacks the option."""
    if not hasattr(_cmsg, "UDP_SEGMENT"):
        return None
    try:
        return get_int(sock, _cmsg.SOL_UDP, _cmsg.UDP_SEGMENT)
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise


def _path(sock: Any, address: Any, kinds: tuple[Any, ...]) -> _Path:
    peer = getattr(sock, "getpeername", None)
    if address is None and peer is not None:
        with suppress(OSError):  # not connected
            address = peer()
    return address, tuple([kind for kind in kinds if isinstance(kind, _ROUTED_BY)])


def _remember(sock: Any, address: Any, kinds: tuple[Any, ...], size: int, number: int) -> None:
    """Notes that the path refused segments of `size` with that errno, but took the datagrams."""
    smallest = size
    with suppress(OSError):  # from _kernel()
        if number == errno.EIO or _kernel().names_size:
            smallest = 1
    with suppress(TypeError):
        paths = _refused.setdefault(sock, {})
        if len(paths) >= _MOST_PATHS:
            paths.clear()
        path = _path(sock, address, kinds)
        paths[path] = min(smallest, paths.get(path, smallest))


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

    `control` goes with each datagram. It may not contain a UdpSegment, because `size` takes its
    place: ValueError. Each system call sends as many datagrams as the kernel allows. If it refuses
    segments, send_batch() sends the rest; no datagram is lost or sent twice. A refusal because
    `size` exceeds the MTU (EMSGSIZE) does not affect the next call. A path that cannot take
    segments (EIO, EINVAL) is remembered for this socket, and later calls use send_batch() there at
    once. Two calls use the same path if they have the same `address` (or connected peer) and the
    same PacketInfo, PacketInfo6 or Mark in `control`. Nothing is remembered for an int, or for an
    object that does not support weak references.

    Empty data is one empty datagram. Returns the number of datagrams that were sent. It raises
    only if the first fails, as send_batch() does; if any fails and `control` was an iterator, which
    is now consumed; or if a signal handler raises. The attribute `sent` of the exception is then
    that number. NotSupportedError on a SOCK_STREAM socket, which does not keep datagrams apart.
    `timeout`, in seconds, applies to each system call.
    """
    size = as_int("size", size, minimum=1)
    view = as_view("data", data)
    kinds = as_kinds(control)
    _refuse_other_size(kinds)
    limit: dict[str, Any] = {} if timeout is ... else {"timeout": timeout}
    each = size * min(_most(sock, address, kinds, size), _MOST_BYTES // size)
    if not each and type_of(sock) == _socket.SOCK_STREAM:
        raise NotSupportedError(
            errno.EOPNOTSUPP,
            "send_segments: this socket is a SOCK_STREAM, which keeps no datagrams apart; "
            "send_all() sends them as one stream of bytes",
        )
    in_segments, in_batch = [0], [0, 0]  # bytes; datagrams, and bytes of the next one
    sent = 0
    refusal: OSError | None = None
    try:
        # A single datagram needs no segmentation.
        while refusal is None and each > size and len(view) - sent > size:
            refusal = send_tracked(
                in_segments, sock, view[sent : sent + each],
                control=(*kinds, UdpSegment(size)), address=address, **limit,
            )  # fmt: skip
            sent = in_segments[0]
        why = None if refusal is None else refusal.errno
        if why in _REFUSED or (refusal is None and (sent == 0 or sent < len(view))):
            # The socket's own option must not split these datagrams again.
            alone = (*kinds, UdpSegment(0)) if _own_size(sock) else kinds
            rest = [(part, (), alone, address) for part in _cut(view[sent:], size)]
            while True:
                refusal = send_batch_tracked(in_batch, sock, rest[in_batch[0] :], **limit)
                # If some were sent, the caller sends the rest with another call, except when
                # `control` was an iterator and is consumed.
                is_done = refusal is not None or in_batch[0] == len(rest)
                if is_done or not isinstance(control, Iterator):
                    break
            if why in _OF_PATH and in_batch[0]:
                _remember(sock, address, kinds, size, why)
        done = -(-sent // size) + in_batch[0]
        if refusal is not None and (not done or isinstance(control, Iterator)):
            note_used_up(refusal, control=control)
            raise refusal
        return done
    except BaseException as error:
        # No calls here: after one, a signal handler could raise again.
        error.sent = -(-in_segments[0] // size) + in_batch[0]  # type: ignore[attr-defined]
        raise


_WHICH = ("level", "type")


def _refuse_other_size(kinds: tuple[Any, ...]) -> None:
    """ValueError if `control` has a UdpSegment: its size would apply instead of `size`."""
    for kind in kinds:
        parts: Any = kind
        which = parts[:2] if isinstance(kind, tuple) else [getattr(kind, n, 0) for n in _WHICH]
        if tuple(which) == (UdpSegment.level, UdpSegment.type):
            raise ValueError(
                f"control: {kind!r}; send_segments() splits by `size` alone: leave this out"
            )


def _cut(view: memoryview, size: int) -> Iterator[memoryview]:
    for at in range(0, max(len(view), 1), size):
        yield view[at : at + size]
