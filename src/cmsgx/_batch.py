"""Many messages for one system call, and many datagrams in one message."""

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
from ._options import Enabled, as_options, get_int, kinds_of, type_of
from ._receiving import Asked, Configured
from .errors import NotSupportedError
from .kinds import Mark, PacketInfo, PacketInfo6, UdpSegment

if TYPE_CHECKING:
    from typing import Self

    from ._arguments import Buffer
    from ._fds import FileDescriptorLike, FileDescriptors
    from ._options import Kind
    from .kinds import ControlMessage

__all__ = [
    "BatchReceiver",
    "BatchResult",
    "Outgoing",
    "OutgoingLike",
    "segment_support",
    "send_segments",
]


class BatchReceiver(Configured, _cmsg.BatchReceiver):
    """Receives up to `count` messages of `sock` with each system call: recvmmsg(2).

    sock     a socket, an Fd, an int, or an object with fileno()
    count    messages at most for each call
    bufsize  bytes of data at most for each message
    fds      descriptors at most for each message, as for Receiver. A surplus is closed and counted.
             A call takes no more messages than the descriptor table has room for, and one where it
             has to wait without a timeout.
    want     a kind to switch on, or several, see enable(); found in a message by `msg[Kind]`
    close    "background": as for Receiver; a call takes no more messages than the background
             closer has room for

    receive() gives a Batch of Messages; `for batch in receiver` the next and the next,
    closes what was left in the one before, and ends at the end of the stream. The first message is
    waited for, the others are taken as they are there. A batch never raises for one message: see
    its `truncated`. Data that was received never changes: memory that a message or a view still
    holds is not filled again. Of two threads that use one at once, one gets a RuntimeError.
    `with BatchReceiver(...) as receiver` restores at its end the options that it switched on,
    once, as the handle of enable() does.
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


class Outgoing(NamedTuple):
    """A message for send_batch(): each part as for send()."""

    data: _Data
    fds: FileDescriptors = ()
    control: _Control = ()
    address: Any = None


# One tuple for all lengths, as mypy infers nothing from a choice of them; an Outgoing is one too.
OutgoingLike: TypeAlias = "Buffer | tuple[_Data, *tuple[Any, ...]]"
"""What a message for send_batch() can be given as: an Outgoing, the parts of one as a tuple, of
which all but the data may be left out, or one buffer. For annotations."""


class BatchResult(int):
    """What send_batch(on_error="skip") returns: how many messages were sent, an int.

    skipped  an (index, error) for each message that the kernel refused, in order: the OSError says
             why. All others up to `done` were sent
    done     how many were sent or skipped, so `messages[result.done:]` is what is left
    """

    _skipped: tuple[tuple[int, OSError], ...]

    def __new__(cls, sent: int, skipped: Iterable[tuple[int, OSError]] = ()) -> Self:
        self = super().__new__(cls, as_int("sent", sent, minimum=0))
        self._skipped = tuple(skipped)
        return self

    @property
    def skipped(self) -> tuple[tuple[int, OSError], ...]:
        """An (index, error) for each message that the kernel refused, in order."""
        return self._skipped

    @property
    def done(self) -> int:
        """How many were sent or skipped."""
        return self + len(self.skipped)

    def __repr__(self) -> str:
        return f"BatchResult({int(self)}, skipped={self.skipped!r})"


# Segmentation offload -----------------------------------------------------------------------------

# What says that a path does not take segments: a device or an xfrm that cannot (EIO), a socket
# without checksums (EINVAL). And what says so of one send: a segment above the MTU of the path
# (EMSGSIZE; EINVAL before Linux 6.14, but for those that were mended).
_OF_PATH = (errno.EIO, errno.EINVAL)
_REFUSED = (*_OF_PATH, errno.EMSGSIZE)
# A datagram of segments is one of IP until it is cut.
_MOST_BYTES = 65507
# UDP_MAX_SEGMENTS, and what it is since Linux 6.12.
_MOST_SEGMENTS = 64
_MANY_SEGMENTS = 128
# The largest that UDP_SEGMENT has, which is above any MTU.
_LARGEST = 65535

# What the kernel finds the way by: to whom, and the control messages that choose it.
_Path: TypeAlias = tuple[Any, tuple[Any, ...]]
_ROUTED_BY = (PacketInfo, PacketInfo6, Mark)
# Of each socket the paths that refused segments, and the least size that was refused there.
_refused: weakref.WeakKeyDictionary[Any, dict[_Path, int]] = weakref.WeakKeyDictionary()
# More are forgotten, and tried again.
_MOST_PATHS = 1024


class _Kernel(NamedTuple):
    """What no option tells."""

    most: int
    """UDP_MAX_SEGMENTS."""
    names_size: bool
    """Whether it says EMSGSIZE where a segment is above the MTU."""


@functools.cache
def _kernel() -> _Kernel:
    """A socket sends itself what tells it; OSError without IPv4, or a loopback device."""
    # The class in C, below whatever stands as socket.socket.
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

        most = _MANY_SEGMENTS if takes(_MANY_SEGMENTS, 1) else _MOST_SEGMENTS
        # The change that brought EMSGSIZE lets this pass, as nothing is cut.
        return _Kernel(most, takes(1, _LARGEST))


def segment_support(sock: FileDescriptorLike) -> int:
    """How many segments one message of this socket may have: UDP_SEGMENT, udp(7).

    0 where the kernel or the socket has no segmentation offload, or the path to the peer that it is
    connected to refused it: see send_segments(). Else 64, or 128 where the kernel takes that: a
    socket of its own tries it on the loopback device, once. Nothing is sent by `sock`, and no
    option of it changed.
    """
    return _most(sock, None, (), 1)


def _most(sock: Any, address: Any, kinds: tuple[Any, ...], size: int) -> int:
    """The same for segments of that size on that path."""
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
        return _kernel().most
    except OSError:
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


def _path(sock: Any, address: Any, kinds: tuple[Any, ...]) -> _Path:
    peer = getattr(sock, "getpeername", None)
    if address is None and peer is not None:
        with suppress(OSError):  # not connected
            address = peer()
    return address, tuple([kind for kind in kinds if isinstance(kind, _ROUTED_BY)])


def _remember(sock: Any, address: Any, kinds: tuple[Any, ...], size: int, number: int) -> None:
    """That the path refused segments of that size, with that errno, and took the datagrams."""
    smallest = size
    with suppress(OSError):  # of the sending that tells
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

    `control` is for each of them, and without a UdpSegment, which `size` stands for: ValueError.
    As many for each system call as the kernel takes. Where it refuses segments, the rest goes by
    send_batch(); no datagram is lost or sent twice. Of a size above the MTU (EMSGSIZE) that says
    nothing of the next call. A path that cannot have them (EIO, EINVAL) is remembered with this
    socket, and what it sends there later goes by send_batch() at once: to the same `address`, or to
    the same peer where none is given, with the same PacketInfo, PacketInfo6 or Mark in `control`.
    Of an int, or of an object without weak references, nothing is remembered.

    No data is one empty datagram. Returns how many datagrams were sent, and raises only where the
    first fails, as send_batch() does, or any where `control` was an iterator, which is used up
    then, or a signal handler raises; then the attribute `sent` of the error is that number.
    NotSupportedError over a SOCK_STREAM, which keeps no datagrams apart. `timeout` is for each
    system call.
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
    in_segments, in_batch = [0], [0]  # bytes, datagrams
    sent = 0
    refusal: OSError | None = None
    try:
        # One datagram alone is none of segments.
        while refusal is None and each > size and len(view) - sent > size:
            refusal = send_tracked(
                in_segments, sock, view[sent : sent + each],
                control=(*kinds, UdpSegment(size)), address=address, **limit,
            )  # fmt: skip
            sent = in_segments[0]
        why = None if refusal is None else refusal.errno
        if why in _REFUSED or (refusal is None and (sent == 0 or sent < len(view))):
            # What goes alone is not cut once more by the option of the socket.
            alone = (*kinds, UdpSegment(0)) if _own_size(sock) else kinds
            rest = [(part, (), alone, address) for part in _cut(view[sent:], size)]
            while True:
                refusal = send_batch_tracked(in_batch, sock, rest[in_batch[0] :], **limit)
                # Where others went, the rest is for another call; unless that cannot have the same.
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
        # No call in here, after which a signal handler could raise once more.
        error.sent = -(-in_segments[0] // size) + in_batch[0]  # type: ignore[attr-defined]
        raise


_WHICH = ("level", "type")


def _refuse_other_size(kinds: tuple[Any, ...]) -> None:
    """ValueError where the datagrams would be of the size that a UdpSegment says, as `size` is not
    looked at then."""
    for kind in kinds:
        parts: Any = kind
        which = parts[:2] if isinstance(kind, tuple) else [getattr(kind, n, 0) for n in _WHICH]
        if tuple(which) == (UdpSegment.level, UdpSegment.type):
            raise ValueError(
                f"control: {kind!r}; send_segments() cuts by `size` alone: leave this out"
            )


def _cut(view: memoryview, size: int) -> Iterator[memoryview]:
    for at in range(0, max(len(view), 1), size):
        yield view[at : at + size]
