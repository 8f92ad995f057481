"""Many datagrams in one message: segmentation offload of UDP."""

from __future__ import annotations

import _socket
import errno
import functools
from collections.abc import Iterable
from contextlib import closing, suppress
from types import EllipsisType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _cmsg
from ._arguments import as_int, as_kinds, as_view
from ._cmsg import send, send_batch_tracked, send_tracked
from ._core.segments import Path, Refusals, SegmentedMessage, SegmentedSend, path_of
from ._core.sends import is_iterator
from ._deadline import Deadline, with_own
from ._options import get_int, type_of
from .errors import NotSupportedError
from .kinds import UdpSegment

if TYPE_CHECKING:
    from ._arguments import Buffer
    from ._fds import FileDescriptorLike
    from .kinds import ControlMessage

__all__ = ["segment_support", "send_segments"]

# UDP_MAX_SEGMENTS since Linux 6.12, and before.
_MANY_SEGMENTS: int = getattr(_cmsg, "UDP_MAX_SEGMENTS", 0)
_MOST_SEGMENTS = _MANY_SEGMENTS // 2
# The largest value of UDP_SEGMENT, which exceeds any MTU.
_LARGEST = 65535

_refusals = Refusals()


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
    return _support(sock, None, (), 1, _own_size(sock))


def _support(
    sock: Any, address: Any, control: tuple[Any, ...], size: int, own_size: int | None
) -> int:
    """segment_support() for segments of `size` bytes on the path to `address`."""
    if own_size is None:
        return 0
    if _refusals.paths(sock) and _refusals.includes(sock, _path(sock, address, control), size):
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


def _path(sock: Any, address: Any, control: tuple[Any, ...]) -> Path:
    peer = getattr(sock, "getpeername", None)
    if address is None and peer is not None:
        with suppress(OSError):  # not connected
            address = peer()
    return path_of(address, control)


def plan(
    sock: FileDescriptorLike,
    data: Buffer,
    size: int,
    control: ControlMessage | Iterable[ControlMessage],
    address: Any,
) -> SegmentedSend:
    """What send_segments() sends, as datagrams that `sock` can take. Nothing is sent here."""
    size = as_int("size", size, minimum=1)
    view = as_view("data", data)
    kinds = as_kinds(control)
    _refuse_other_size(kinds)
    own_size = _own_size(sock)
    most = _support(sock, address, kinds, size, own_size)
    if not most and type_of(sock) == _socket.SOCK_STREAM:
        raise NotSupportedError(
            errno.EOPNOTSUPP,
            "send_segments: this socket is a SOCK_STREAM, which keeps no datagrams apart; "
            "send_all() sends them as one stream of bytes",
        )
    return SegmentedSend(
        view, size, kinds, address,
        most=most, own_size=own_size, is_used_up=is_iterator(control),
    )  # fmt: skip


def remember(sock: Any, send: SegmentedSend) -> None:
    """At the end of a send: notes if the path refused segments, but took the datagrams."""
    number = send.path_refusal
    if number is not None:
        names_size = False
        with suppress(OSError):
            names_size = _kernel().names_size
        path = _path(sock, send.address, send.control)
        _refusals.add(sock, path, send.size, number, names_size=names_size)


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
    `timeout`, in seconds, limits the whole call.
    """
    send = plan(sock, data, size, control, address)
    try:
        timeout = with_own(sock, timeout)
        deadline = None if timeout is ... else Deadline(timeout)
        while step := send.next():
            try:
                limit = ... if deadline is None else deadline.timeout()
            except OSError as error:
                if deadline is None or not deadline.raised(error):
                    raise  # by a signal handler
                send.told(error)
                continue
            if isinstance(step, SegmentedMessage):
                send.told(
                    send_tracked(
                        send.bytes_sent, sock, step.data,
                        control=step.control, address=address, timeout=limit,
                    )
                )  # fmt: skip
            else:
                send.told(send_batch_tracked(send.datagrams_sent, sock, step, timeout=limit))
        remember(sock, send)
        return send.result()
    except BaseException as error:
        # No calls here: after one, a signal handler could raise again.
        error.sent = -(-send.bytes_sent[0] // send.size) + send.datagrams_sent[0]  # type: ignore[attr-defined]
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
