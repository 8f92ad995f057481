"""Data and the descriptors that came with it, once they no longer belong to one message."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar, overload

from .._arguments import needed
from .._fds import Fd
from .arrivals import close_each

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

_F = TypeVar("_F", bound=Fd)


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

    @overload
    def take(self, which: SupportsIndex, /, *, fd_class: None = None) -> Fd: ...
    @overload
    def take(self, which: SupportsIndex, /, *, fd_class: type[_F]) -> _F: ...
    def take(self, which: SupportsIndex, /, *, fd_class: type[Fd] | None = None) -> Fd:
        """Moves one descriptor to the caller.

        With `fd_class=` it is an object of this subclass of Fd, whose __init__() is not called; the
        one in `fds` owns nothing then.
        """
        _need_class(fd_class)
        index = operator.index(which)
        try:
            fd = self._left[index]
        except IndexError:
            raise IndexError(f"take({index}): {_came(len(self.fds))}") from None
        if fd is None or fd.closed or self.closed:
            fd = self._here("take", index % len(self.fds))
        if fd_class is not None:
            [fd] = fd_class._move_each((fd,))
        self._left[index] = None
        return fd

    @overload
    def take_one(self, *, fd_class: None = None) -> Fd: ...
    @overload
    def take_one(self, *, fd_class: type[_F]) -> _F: ...
    def take_one(self, *, fd_class: type[Fd] | None = None) -> Fd:
        """Moves the only descriptor to the caller; ValueError unless exactly one came."""
        if len(self.fds) != 1:
            raise ValueError(f"take_one: {_came(len(self.fds))}")
        return self.take(0, fd_class=fd_class)

    @overload
    def take_all(self, *, fd_class: None = None) -> list[Fd]: ...
    @overload
    def take_all(self, *, fd_class: type[_F]) -> list[_F]: ...
    def take_all(self, *, fd_class: Any = None) -> Any:
        """Moves all that were not taken yet to the caller, or none if one of them is gone."""
        _need_class(fd_class)
        none_left: list[Fd | None] = [None] * len(self.fds)
        taken = self._all("take_all")
        if fd_class is not None:
            taken = fd_class._move_each(tuple(taken))
        self._left = none_left
        return taken

    def detach_all(self) -> list[int]:
        """The numbers of all that were not taken yet, which only the caller closes now; or none."""
        none_left: list[Fd | None] = [None] * len(self.fds)
        numbers = Fd._detach_each(tuple(self._all("detach_all")))
        self._left = none_left
        return numbers

    def close(self) -> None:
        """Closes the descriptors that were not taken."""
        self.closed = True
        rest = [fd for fd in self._left if fd is not None]
        if rest:
            close_each(rest)

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

    def _all(self, call: str) -> list[Fd]:
        return [self._here(call, index) for index, fd in enumerate(self._left) if fd is not None]

    def _here(self, call: str, index: int) -> Fd:
        """The descriptor; ValueError if it was taken, or is gone in another way."""
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
        return fd


def _need_class(fd_class: Any) -> None:
    given: object = fd_class
    if given is not None and not (isinstance(given, type) and issubclass(given, Fd)):
        raise needed("fd_class", "a subclass of Fd", fd_class)


def _came(count: int) -> str:
    return f"{count} descriptor came" if count == 1 else f"{count} descriptors came"
