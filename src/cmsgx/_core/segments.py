"""Data that goes as datagrams of one size: many in one message, or, where that is refused, one by
one."""

from __future__ import annotations

import errno
import weakref
from contextlib import suppress
from typing import Any, TypeAlias

from ..kinds import Mark, PacketInfo, PacketInfo6, UdpSegment
from .sends import Unsent

# Errors that mean a path does not take segments: the device or an xfrm cannot (EIO), or the socket
# sends no checksums (EINVAL). _REFUSED adds the error about one send: a segment exceeds the MTU of
# the path (EMSGSIZE; before Linux 6.14, unless the change was backported, EINVAL).
_OF_PATH = (errno.EIO, errno.EINVAL)
_REFUSED = (*_OF_PATH, errno.EMSGSIZE)
# Until it is split, the data of all segments is one IP datagram.
_MOST_BYTES = 65507


# What paths refused ------------------------------------------------------------------------------

# What the kernel chooses the route by: the destination, and the control messages that matter.
Path: TypeAlias = tuple[Any, tuple[Any, ...]]
_ROUTED_BY = (PacketInfo, PacketInfo6, Mark)
# Beyond this number all paths of a socket are forgotten, and tried again.
_MOST_PATHS = 1024


def path_of(address: Any, control: tuple[Any, ...]) -> Path:
    """The path to `address`, or to the peer, if that is None and the socket is not connected."""
    return address, tuple([kind for kind in control if isinstance(kind, _ROUTED_BY)])


class Refusals:
    """For each socket the paths that refused segments, and the smallest size that each refused.

    A socket is forgotten when it is collected. Of what has no weak references, such as an int, and
    of an address that has no hash, nothing is remembered.
    """

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: weakref.WeakKeyDictionary[Any, dict[Path, int]] = weakref.WeakKeyDictionary()

    def __len__(self) -> int:
        """Of how many sockets something is known."""
        return len(self._of)

    def paths(self, sock: Any) -> dict[Path, int]:
        """What is known of a socket, not to be changed."""
        try:
            return self._of.get(sock, {})
        except TypeError:
            return {}

    def includes(self, sock: Any, path: Path, size: int) -> bool:
        """Whether the path refused segments of `size` bytes, or would because it refused others."""
        try:
            smallest = self.paths(sock).get(path)
        except TypeError:
            return False
        return smallest is not None and size >= smallest

    def add(self, sock: Any, path: Path, size: int, number: int, *, names_size: bool) -> None:
        """After a refusal with the errno `number`, which `path_refusal` of a send gave.

        names_size  whether the kernel reports EMSGSIZE if a segment exceeds the MTU. If not, EINVAL
                    may mean that, and a smaller size is worth a try.
        """
        smallest = 1 if names_size or number == errno.EIO else size
        with suppress(TypeError):
            paths = self._of.setdefault(sock, {})
            if len(paths) >= _MOST_PATHS:
                paths.clear()
            paths[path] = min(smallest, paths.get(path, smallest))


# What goes next ----------------------------------------------------------------------------------


class SegmentedMessage:
    """Many datagrams, which go as one message."""

    __slots__ = ("control", "data")

    def __init__(self, data: memoryview, control: tuple[Any, ...]) -> None:
        self.data = data
        self.control = control


class _Datagrams:
    """The messages of a batch, one for each datagram, which are made when they are looked at."""

    __slots__ = ("_count", "_data", "address", "control", "size")

    def __init__(
        self, data: memoryview, count: int, size: int, control: tuple[Any, ...], address: Any
    ) -> None:
        self._data = data
        self._count = count
        self.size = size
        self.control = control
        self.address = address

    def __getitem__(self, which: slice) -> list[Any]:
        size = self.size
        return [
            (self._data[at * size : at * size + size], (), self.control, self.address)
            for at in range(self._count)[which]
        ]


class SegmentedSend:
    """`data` as datagrams of `size` bytes, each sent once and in order.

    next() says what to send: a SegmentedMessage by one send, or the messages of a batch; nothing at
    the end. The call that does it counts in `bytes_sent` or in `datagrams_sent`, and told() hears
    what came of it. After that result() is the number of datagrams that went.

    control    goes with each datagram; it has no UdpSegment
    most       how many segments a message to `address` may have, 0 if it may have none
    own_size   the value of UDP_SEGMENT of the socket, which would cut a datagram again; None or 0
               if it has none
    is_used_up whether the caller gave the control messages as an iterator
    """

    __slots__ = (
        "_alone", "_data", "_each", "_refusal", "_rest", "_used_up",
        "address", "bytes_sent", "control", "datagrams_sent", "size",
    )  # fmt: skip

    def __init__(
        self,
        data: memoryview,
        size: int,
        control: tuple[Any, ...],
        address: Any,
        *,
        most: int,
        own_size: int | None,
        is_used_up: bool = False,
    ) -> None:
        self._data = data
        self.size = size
        self.control = control
        self.address = address
        self._alone = (*control, UdpSegment(0)) if own_size else control
        self._each = size * min(most, _MOST_BYTES // size)
        self._used_up = [(len(data), "control")] if is_used_up else []
        self._refusal: int | None = None
        self._rest: Unsent | None = None
        self.bytes_sent = [0]
        """How many went in segments."""
        self.datagrams_sent = [0, 0]
        """How many went one by one, as Unsent.progress."""

    @property
    def sent(self) -> int:
        """How many datagrams went."""
        return -(-self.bytes_sent[0] // self.size) + self.datagrams_sent[0]

    @property
    def path_refusal(self) -> int | None:
        """The errno of a refusal to remember: of segments, on a path that took the datagrams."""
        return self._refusal if self._refusal in _OF_PATH and self.datagrams_sent[0] else None

    def next(self) -> SegmentedMessage | list[Any]:
        """What to send now; [] at the end."""
        if self._rest is None:
            at = self.bytes_sent[0]
            left = len(self._data) - at
            if at and not left:
                return []
            # A single datagram needs no segmentation.
            if self._each > self.size < left:
                control = (*self.control, UdpSegment(self.size))
                return SegmentedMessage(self._data[at : at + self._each], control)
            self._rest = self._one_by_one()
        return self._rest.next()

    def _one_by_one(self) -> Unsent:
        """What did not go in segments. No data at all is one datagram."""
        rest = self._data[self.bytes_sent[0] :]
        count = max(1, -(-len(rest) // self.size))
        return Unsent(
            _Datagrams(rest, count, self.size, self._alone, self.address),
            used_up=self._used_up,
            before=self.sent,
            progress=self.datagrams_sent,
        )

    def told(self, outcome: OSError | bool | None) -> None:
        """What came of it, as for Unsent.told()."""
        if self._rest is None:
            if not isinstance(outcome, OSError):
                return
            self._rest = self._one_by_one()
            if outcome.errno in _REFUSED:
                self._refusal = outcome.errno
                return
        self._rest.told(outcome)

    def result(self) -> int:
        """How many datagrams went. As Unsent.result() it raises the error if that is not enough."""
        return self.sent if self._rest is None else self._rest.result()
