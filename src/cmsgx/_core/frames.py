"""Frames: messages with descriptors in a stream of bytes. docs/frames.md has the format."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from .._arguments import as_fds, as_int, as_kinds
from .._cmsg import MAX_FDS, listed_fds
from ..errors import BrokenError, LimitError, TooManyFdsError
from ..kinds import Rights
from .arrivals import NOTHING, Arrivals, append_result, close_each
from .departures import Step
from .parcels import Parcel
from .sends import IOV_MAX, views_of

if TYPE_CHECKING:
    from .._arguments import Buffer
    from .._fds import Fd, FileDescriptors
    from ..errors import ControlTruncatedError, DataTruncatedError
    from ..kinds import ControlMessage

_HEADER = struct.Struct("<IHH")
_MOST_BYTES = (1 << 32) - 1
# Each byte of the header can carry as many as one message, so a frame without data can have them.
MOST_FDS = _HEADER.size * MAX_FDS


class Frame(Parcel):
    """One message of a FramedConnection: its data, and the descriptors that were sent with it.

    It owns the descriptors: those that are not taken are closed at the end of its `with`, or by
    close().
    """

    __slots__ = ()


# Sending ------------------------------------------------------------------------------------------


def steps_of(
    data: Buffer | Iterable[Buffer],
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[ControlMessage] = (),
) -> list[Step]:
    """How a frame is sent: the data in place, and each descriptor once.

    The control messages go with the first byte. The descriptors of a Rights among them come after
    those of `fds`, and are counted with them.
    """
    # bytes are the most common, and need no view.
    views: list[Any] = [data] if type(data) is bytes else views_of(data)
    size = sum(map(len, views))
    if size > _MOST_BYTES:
        raise ValueError(f"data: {size} bytes; a frame has at most {_MOST_BYTES}")
    numbers = listed_fds(fds)
    others: tuple[Any, ...] = ()
    if control != ():
        every = as_kinds(control)
        for kind in every:
            if isinstance(kind, Rights):
                numbers += kind.fds
        others = tuple([kind for kind in every if not isinstance(kind, Rights)])
    if len(numbers) > MOST_FDS:
        raise TooManyFdsError(f"fds: {len(numbers)} descriptors; a frame has at most {MOST_FDS}")
    header = _HEADER.pack(size, len(numbers), 0)
    if len(numbers) <= MAX_FDS and len(views) < IOV_MAX:
        return [Step([header, *views], numbers, others)]
    # One byte of the header for each that cannot be the last with descriptors.
    steps: list[Step] = []
    while len(numbers) > MAX_FDS:
        steps.append(Step([header[:1]], numbers[:MAX_FDS], ()))
        header, numbers = header[1:], numbers[MAX_FDS:]
    rest = [header, *views]
    steps.append(Step(rest[:IOV_MAX], numbers, ()))
    starts = range(IOV_MAX, len(rest), IOV_MAX)
    steps += [Step(rest[start : start + IOV_MAX], (), ()) for start in starts]
    steps[0] = steps[0]._replace(control=others)
    return steps


# Receiving ----------------------------------------------------------------------------------------


class Deframer(Arrivals):
    """Cuts what is received from a stream into frames, and gives each its own descriptors.

    limit     the longest data of a frame, in bytes
    max_fds   the most descriptors of a frame

    Descriptors belong to the frame that has the last byte of the read that brought them: the kernel
    ends a read within the bytes of the sendmsg(2) that it takes descriptors from. It breaks for
    good, with all descriptors closed, when the peer does what the format does not allow.
    """

    __slots__ = ("_data", "_state", "limit", "max_fds")

    def __init__(
        self, is_end: Callable[[Any], bool], *, limit: int = 1 << 20, max_fds: int = 16
    ) -> None:
        super().__init__(is_end)
        self.limit = as_int("limit", limit, minimum=0)
        self.max_fds = as_fds(max_fds, "max_fds")
        if self.max_fds > MOST_FDS:
            raise ValueError(f"max_fds: {max_fds}; must be 0 to {MOST_FDS}")
        # How many bytes of the stream were used. Of the frame that has begun: what came of its
        # header, how many bytes of its data came, and its descriptors, if any, as one list.
        self._state: tuple[int, bytes, int, list[list[Fd]]] = (0, b"", 0, [])
        # Its data; bytes beyond that number do not count.
        self._data = bytearray()

    @property
    def room(self) -> int:
        """How many descriptors one read has to have room for: fds= of its receiver.

        A read takes those of one sendmsg(2) only. What there is no room for breaks the stream.
        """
        return min(self.max_fds, MAX_FDS)

    @property
    def wanted(self) -> int:
        """How many bytes complete what has begun: the header of a frame, or its data."""
        _, header, size, _ = self._state
        if len(header) < _HEADER.size:
            return _HEADER.size - len(header)
        return int(_HEADER.unpack(header)[0]) - size

    def next_frame(self) -> Frame | None:
        """The next frame; None if that needs another pull(), and at the end."""
        if self._failure is not None:
            self.check()
        start, here = self._held
        message = here[0] if here else None
        if message is None:
            return None
        end = message.nbytes
        if not end and self.is_at_end:
            self._need_whole(None)
            return None
        at = self._state[0] - start
        if at < end:
            return self._cut(message, start, at, end)
        message.close()
        self._held = NOTHING
        return None

    def _cut(self, message: Any, start: int, at: int, end: int) -> Frame | None:
        """Uses the message from this byte to the end of a frame, or to its own end."""
        _, header, size, fds = self._state
        came: bytes = message.data
        if len(header) < _HEADER.size:
            begin = at
            at = min(at + _HEADER.size - len(header), end)
            header += came[begin:at]
        data, count = None, -1
        if len(header) == _HEADER.size:
            length, count, reserved = _HEADER.unpack(header)
            if reserved or length > self.limit or count > self.max_fds:
                self._refuse(length, count, reserved)
            begin = at
            at = min(at + length - size, end)
            if at - begin == length:
                data = came[begin:at]
            elif at > begin:
                del self._data[size:]
                self._data += came[begin:at]
                size += at - begin
                if size == length:
                    data = bytes(self._data)
        if at == end:
            self._take(message, fds)
        here = len(fds[0]) if fds else 0
        if here != count and (data is not None or here > (self.max_fds if count < 0 else count)):
            self._fail_by_count(here, count)
        frame = None
        state: tuple[int, bytes, int, list[list[Fd]]]
        kept = self._data
        if data is None:
            state = (start + at, header, size, fds)
        else:
            frame = Frame(data, fds[0] if fds else ())
            state = (start + at, b"", 0, [])
            if size:
                kept = bytearray()
        # From here on nothing fails, or the frame would be lost.
        self._state = state
        self._data = kept
        if at == end:
            message.close()
            self._held = NOTHING
        return frame

    def _refuse(self, length: int, count: int, reserved: int) -> NoReturn:
        if reserved:
            self._fail(
                BrokenError, f"frame: its header ends with {reserved:#06x}, and not with 0x0000"
            )
        if length > self.limit:
            self._fail(LimitError, f"frame: {length} bytes; the limit is {self.limit}")
        self._fail(LimitError, f"frame: {count} descriptors; max_fds is {self.max_fds}")

    def _take(self, message: Any, fds: list[list[Fd]]) -> None:
        """Takes over the descriptors of a message; none for one from which they were taken."""
        if message.closed_fds != 0:
            self._fail(
                LimitError,
                f"frame: one read brought more than {len(message.fds)} descriptors; "
                f"max_fds is {self.max_fds}",
            )
        if len(message.fds):
            try:
                append_result(fds, message.take_all)
            except OSError as error:
                self._fail(BrokenError, f"frame: {error.strerror}", cause=error)
            if len(fds) > 1:
                fds[:] = [[fd for some in fds for fd in some]]

    def _fail_by_count(self, came: int, count: int) -> NoReturn:
        if count < 0:
            self._fail(
                LimitError,
                f"frame: {came} descriptors came with its header; max_fds is {self.max_fds}",
            )
        self._fail(
            BrokenError,
            f"frame: its header announces {count} descriptors, and {came} came with it",
        )

    def _need_whole(self, reset: ConnectionResetError | None) -> None:
        """Breaks it if the stream ends inside a frame."""
        _, header, size, _ = self._state
        if header:
            where = (
                f"{size} of the {_HEADER.unpack(header)[0]} bytes of its data"
                if len(header) == _HEADER.size
                else f"{len(header)} of the {_HEADER.size} bytes of its header"
            )
            how = "the stream ended" if reset is None else "the connection was reset"
            self._fail(
                BrokenError, f"frame: {how} after {where}", bytes(self._data[:size]), cause=reset
            )

    def _end_by(self, reset: ConnectionResetError) -> NoReturn:
        self._need_whole(reset)
        self._failure = (partial(ConnectionResetError, *reset.args), None)
        self._drop()
        raise reset

    def _lost(self, error: ControlTruncatedError | DataTruncatedError) -> None:
        self._fail(BrokenError, f"frame: {error.strerror}", cause=error)

    def _drop(self) -> None:
        super()._drop()
        for fds in self._state[3]:
            close_each(fds)
        self._state = (0, b"", 0, [])
        self._data = bytearray()
