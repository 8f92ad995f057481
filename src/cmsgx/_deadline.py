"""How long a call that takes several tries may wait."""

from __future__ import annotations

import errno
import os
import time

from ._arguments import as_seconds


class Deadline:
    """`seconds` from now; None for no limit, 0 if the call may not wait."""

    __slots__ = ("_seconds", "_until", "error", "rounds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds = as_seconds(seconds)
        # The last argument of _cmsg.wait_for().
        self.rounds = 0
        # What left() has raised.
        self.error: OSError | None = None
        self._until = None if seconds is None else time.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left. If none: BlockingIOError if it may not wait, else TimeoutError."""
        if self._until is None:
            return None
        if self._seconds == 0:
            self.error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
            raise self.error
        left = self._until - time.monotonic()
        if left <= 0:
            self.error = TimeoutError("timed out")
            raise self.error
        return left

    def timeout(self) -> float | None:
        """The time left, for a call that takes a timeout."""
        return 0 if self._seconds == 0 else self.left()
