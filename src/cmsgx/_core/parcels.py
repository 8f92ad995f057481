"""Data and the descriptors that came with it, once they no longer belong to one message."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, SupportsIndex, cast

from .arrivals import close_each

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from .._fds import Fd


class Parcel:
    """Owns descriptors as a Message does: what is not taken is closed with it.

    The indexes of the others stay the same when one is taken.
    """

    __slots__ = ("_left", "closed", "data", "fds")

    def __init__(self, data: bytes, fds: Sequence[Fd]) -> None:
        self.data = data
        """The bytes."""
        self.fds = tuple(fds)
        """The descriptors, in the order in which they were sent."""
        self.closed = False
        """Whether close() was called, or the `with` ended."""
        # None in place of those that were taken.
        self._left: list[Fd | None] = [*fds]

    def take(self, which: SupportsIndex, /) -> Fd:
        """Moves one descriptor to the caller."""
        index = operator.index(which)
        try:
            fd = self._left[index]
        except IndexError:
            raise IndexError(f"take({index}): {_came(len(self.fds))}") from None
        if fd is None or fd.closed or self.closed:
            self._need_here("take", index % len(self.fds))
        self._left[index] = None
        return cast("Fd", fd)

    def take_one(self) -> Fd:
        """Moves the only descriptor to the caller; ValueError unless exactly one came."""
        if len(self.fds) != 1:
            raise ValueError(f"take_one: {_came(len(self.fds))}")
        return self.take(0)

    def take_all(self) -> list[Fd]:
        """Moves all that were not taken yet to the caller, or none if one of them is gone."""
        taken = []
        for index, fd in enumerate(self._left):
            if fd is not None:
                self._need_here("take_all", index)
                taken.append(fd)
        self._left = [None] * len(self.fds)
        return taken

    def close(self) -> None:
        """Closes the descriptors that were not taken."""
        self.closed = True
        if self._left:
            close_each([fd for fd in self._left if fd is not None])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.data)} bytes, {len(self.fds)} descriptors"
        return f"<{type(self).__name__}: {state}>"

    def _need_here(self, call: str, index: int) -> None:
        if self.closed:
            name = type(self).__name__.lower()
            raise ValueError(
                f"the {name} is closed, and so are the descriptors that were not taken"
            )
        fd = self._left[index]
        if fd is None:
            raise ValueError(f"descriptor {index} was already taken")
        if fd.closed and not fd._error:
            raise ValueError(f"{call}: descriptor {index} was closed or given away: {fd!r}")


def _came(count: int) -> str:
    return f"{count} descriptor came" if count == 1 else f"{count} descriptors came"
