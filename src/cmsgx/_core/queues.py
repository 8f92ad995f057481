"""Streams for protocols that count: bytes and descriptors, each in the order in which they came."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias

from .._arguments import as_fds, as_int, as_view
from .._cmsg import MSG_TRUNC
from ..errors import BrokenError, LimitError
from .arrivals import NOTHING, Arrivals, append_result, close_each
from .parcels import Parcel

if TYPE_CHECKING:
    from .._arguments import Buffer
    from .._fds import Fd
    from ..errors import ControlTruncatedError, DataTruncatedError


class Rest(Parcel):
    """What was left over by reads that took a part of what came. Its attributes are a message's."""

    __slots__ = ()

    eof = False
    truncated = False
    closed_fds = 0
    control = ()
    flags = 0
    address = None
    sender = None

    @property
    def nbytes(self) -> int:
        return len(self.data)

    @property
    def view(self) -> bytes:
        return self.data


class _Batch(NamedTuple):
    """The descriptors of one read."""

    first: int  # the place of the first byte of that read in the stream
    end: int  # and the place after its last one
    lists: list[list[Fd]]  # all in one of them

    def fds(self) -> list[Fd]:
        return [fd for some in self.lists for fd in some]

    def was_read(self, to: int) -> bool:
        """Whether it came before this place. What came with no bytes goes with those after it."""
        return self.first < to and self.end <= to


_State: TypeAlias = "tuple[int, int, int, bytes | bytearray, tuple[_Batch, ...]]"
"""The place after the last byte that came, and after the last one that was read. The place of the
first byte that is kept; the bytes from there on, of which those after the last one that came do not
count. The descriptors that were not taken."""


class ByteStream(Arrivals):
    """Messages as they come, or the bytes in them, in whatever pieces the reader needs.

    max_queued   how many descriptors may wait to be taken

    A read that needs more than is here takes nothing and returns None; after a pull() it is made
    again. It breaks for good if the stream ends inside a read, the limit of a read is reached,
    or a descriptor would be missing in the order.
    """

    __slots__ = ("_looked", "_state", "max_queued", "wanted")

    def __init__(self, is_end: Callable[[Any], bool], *, max_queued: int = 64) -> None:
        super().__init__(is_end)
        self.max_queued = as_fds(max_queued, "max_queued")
        self.wanted = 0
        """How many more bytes the read needs, at least, that returned None; 0: any message."""
        self._state: _State = (0, 0, 0, b"", ())
        # A separator, and the place before which none begins.
        self._looked = (b"", 0)

    @property
    def buffered(self) -> int:
        """How many bytes were taken in for a read, and not read."""
        return self._state[0] - self._state[1]

    def next_message(self) -> Any:
        """What is left over from reads, with its descriptors; else the message that came, or None.

        The end is a message too: each pull() gets another one.
        """
        if self._failure is not None:
            self.check()
        self.wanted = 0
        came, read, _, _, batches = self._state
        if came == read:
            message = self._message()
            self._held = NOTHING
            return message
        fds = [fd for batch in batches if not batch.was_read(read) for fd in batch.fds()]
        rest = Rest(self._bytes(came - read), fds)
        self._read(came, tuple([batch for batch in batches if batch.was_read(read)]))
        return rest

    def read_exactly(self, n: int) -> bytes | None:
        """The next n bytes."""
        if self._failure is not None:
            self.check()
        n = as_int("n", n, minimum=0)
        while (missing := n - self._state[0] + self._state[1]) > 0:
            self.wanted = missing
            if not self._take_in():
                if self.is_at_end:
                    self._fail_at_end(f"read_exactly: {n} bytes are needed")
                return None
        return self._read_on(n)

    def read_until(self, separator: Buffer, limit: int) -> bytes | None:
        """The bytes up to this separator, and the separator: at most `limit` bytes together."""
        if self._failure is not None:
            self.check()
        wanted = as_view("separator", separator).tobytes()
        if not wanted:
            raise ValueError("separator: it is empty; at least 1 byte is needed")
        limit = as_int("limit", limit, minimum=len(wanted))
        while True:
            came, read, start, kept, _ = self._state
            looked = self._looked[1] if self._looked[0] == wanted else 0
            at = kept.find(wanted, max(read, looked) - start, min(came, read + limit) - start)
            if at >= 0:
                return self._read_on(start + at + len(wanted) - read)
            if came - read >= limit:
                self._fail(
                    LimitError,
                    f"read_until: {wanted!r} is not in the next {limit} bytes, the limit",
                    self._bytes(limit),
                )
            self._looked = (wanted, max(read, came - len(wanted) + 1))
            self.wanted = 1
            if not self._take_in():
                if self.is_at_end:
                    self._fail_at_end(f"read_until: {wanted!r} is needed")
                return None

    def take_fds(self, n: int) -> list[Fd]:
        """The first n of the descriptors that came with bytes that were read, or none of them."""
        if self._failure is not None:
            self.check()
        n = as_fds(n, "n")
        came, read, start, kept, batches = self._state
        found: list[Fd] = []
        used = 0
        while used < len(batches) and len(found) < n and batches[used].first < read:
            found += batches[used].fds()
            used += 1
        if len(found) < n:
            raise BrokenError(
                f"take_fds: {n} are needed, and {len(found)} came with the bytes that were read"
            )
        taken, left = found[:n], batches[used:]
        if len(found) > n:
            left = (batches[used - 1]._replace(lists=[found[n:]]), *left)
        self._state = (came, read, start, kept, left)
        return taken

    def _fail_at_end(self, need: str) -> NoReturn:
        here = self.buffered
        self._fail(BrokenError, f"{need}, and the stream ended after {here}", self._bytes(here))

    def _take_in(self) -> bool:
        """Moves the message that came to the bytes and descriptors that are kept.

        False if there is none, or only the end.
        """
        message = self._message()
        if message is None or self.is_at_end:
            return False
        came, read, start, kept, batches = self._state
        if came == self._held[0]:
            if message.flags & MSG_TRUNC:
                self._break_read(BrokenError, "stream: a message was longer than the buffer")
            if message.closed_fds != 0:
                self._break_read(
                    LimitError, f"stream: one read brought more than {len(message.fds)} descriptors"
                )
            if len(message.fds):
                batches = self._take_over(message)
            if came == read:
                start, kept = came, message.data
            else:
                if not isinstance(kept, bytearray):
                    kept = bytearray(kept)
                del kept[came - start :]
                kept += message.data
            self._state = (came + message.nbytes, read, start, kept, batches)
        message.close()
        self._held = NOTHING
        return True

    def _take_over(self, message: Any) -> tuple[_Batch, ...]:
        """The batches, with one for this message, which owns its descriptors from now on."""
        came, read, start, kept, batches = self._state
        end = came + message.nbytes
        if not batches or batches[-1][:2] != (came, end):
            batches = (*batches, _Batch(came, end, []))
            self._state = (came, read, start, kept, batches)
        try:
            append_result(batches[-1].lists, message.take_all)
        except OSError as error:
            self._break_read(BrokenError, f"stream: {error.strerror}", error)
        queued = sum([len(fds) for batch in batches for fds in batch.lists])
        if queued > self.max_queued:
            self._break_read(
                LimitError,
                f"stream: {queued} descriptors wait to be taken; max_queued is {self.max_queued}",
            )
        return batches

    def _bytes(self, n: int) -> bytes:
        _, read, start, kept, _ = self._state
        at = read - start
        if type(kept) is bytes:
            return kept[at : at + n]
        return bytes(memoryview(kept)[at : at + n])

    def _read_on(self, n: int) -> bytes:
        data = self._bytes(n)
        self.wanted = 0
        self._read(self._state[1] + n, self._state[4])
        return data

    def _read(self, to: int, batches: tuple[_Batch, ...]) -> None:
        """The bytes before this place were read; they are forgotten once they are half of all."""
        came, _, start, kept, _ = self._state
        if 2 * (to - start) >= came - start:
            start, kept = to, kept[to - start : came - start]
        self._state = (came, to, start, kept, batches)

    def _lost(self, error: ControlTruncatedError | DataTruncatedError) -> None:
        # Who asked for a message gets the error, and in it the message.
        if self.wanted:
            self._break_read(BrokenError, f"stream: {error.strerror}", error)

    def _break_read(
        self, error: type[BrokenError], text: str, cause: BaseException | None = None
    ) -> NoReturn:
        """Breaks it during a read, because what came next is not whole."""
        self._fail(error, text, self._bytes(self.buffered), cause)

    def _drop(self) -> None:
        super()._drop()
        for batch in self._state[4]:
            for fds in batch.lists:
                close_each(fds)
        self._state = (0, 0, 0, b"", ())
