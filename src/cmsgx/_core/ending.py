"""How one direction of a connection ends for good."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..errors import ClosedError

_Failure: TypeAlias = "tuple[Callable[[], Exception], BaseException | None]"


class Ending:
    """Once it was closed or broke, each call raises that."""

    __slots__ = ("_failure",)

    def __init__(self) -> None:
        # Makes the exception, which is another one each time; and its cause.
        self._failure: _Failure | None = None

    def check(self) -> None:
        """Raises what ended this for good: ClosedError after close(), or what broke it."""
        if self._failure is not None:
            make, cause = self._failure
            raise make() from cause

    def close(self) -> None:
        """Drops what it holds, and closes those descriptors. All that follows is ClosedError."""
        self._failure = (lambda: ClosedError("the connection is closed"), None)
        self._drop()

    def _drop(self) -> None:
        """Lets go of all that it holds."""
        raise NotImplementedError
