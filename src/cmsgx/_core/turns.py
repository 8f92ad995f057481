"""Who may send or receive next, where several tasks want to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

_W = TypeVar("_W")


class Turns(Generic[_W]):
    """A row: first come, first served. Who is the first has the turn, until it leaves.

    wake   called with the one that has the turn now. If it is not waiting, this does nothing.

    Each who enters leaves, whatever happens: also one that is cancelled after it was woken, or
    whose wait was cancelled before it was woken and whose task did not run yet. Then the next is
    woken, so no turn is lost. Not for several threads.
    """

    __slots__ = ("_row", "_wake")

    def __init__(self, wake: Callable[[_W], object]) -> None:
        self._wake = wake
        self._row: dict[_W, None] = {}

    def __len__(self) -> int:
        return len(self._row)

    @property
    def first(self) -> _W | None:
        """Who has the turn."""
        for who in self._row:
            return who
        return None

    def enter(self, who: _W) -> bool:
        """Goes to the end of the row; whether that is the turn at once."""
        self._row[who] = None
        return self.first is who

    def leave(self, who: _W) -> None:
        """Leaves the row, wherever that is in it; does nothing for one that left."""
        had_turn = self.first is who
        self._row.pop(who, None)
        if had_turn:
            self.wake()

    def hand_over(self, who: _W, heir: _W) -> None:
        """Puts another in its place, which has to leave in its stead."""
        self._row = {heir if one is who else one: None for one in self._row}

    def wake(self) -> None:
        """Wakes who has the turn, if anybody waits: something came, or can be sent."""
        first = self.first
        if first is not None:
            self._wake(first)

    def wake_all(self) -> None:
        """Wakes all, to find that the connection is closed."""
        for who in list(self._row):
            self._wake(who)
