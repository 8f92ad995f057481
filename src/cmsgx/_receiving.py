"""What Receiver, BatchReceiver and ErrorReceiver share: options that are restored at the end of a
`with`, and the configuration of a receiver in C."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from . import _cmsg
from ._options import Enabled
from ._plan import SET_NOTHING, complete

if TYPE_CHECKING:
    from typing import Self

    from ._asked import Asked
    from ._fds import FileDescriptorLike
    from .kinds._row import Option


class Restoring:
    """For objects that have switched options on: the end of their `with` restores those.

    Another `with` after that is a RuntimeError. Each `__init__` has its own `except`, because a
    signal handler can raise right after the return of a function that would share it.
    """

    __slots__ = ()

    _asked: Asked
    _before: list[tuple[Option, bytes, bytes]]
    _generation: int
    _handle: Enabled | None

    # Inline in each __init__, as it runs for each connection of a server:
    #     self._asked, self._before = ask(...), []
    #     self._generation, self._handle = _cmsg.generation(), None

    @property
    def _enabled(self) -> Enabled:
        """The handle. It is made when it is needed, as most receivers restore nothing."""
        handle = self._handle
        if handle is None:
            handle = Enabled(self.sock, self._asked)
            handle._before, handle._generation = self._before, self._generation
            self._handle = handle  # type: ignore[misc]  # a slot of the subclasses
        return handle

    if TYPE_CHECKING:

        @property
        def sock(self) -> FileDescriptorLike: ...

    def __enter__(self) -> Self:
        self._enabled.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._enabled.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.sock!r}>"


class Configured(Restoring):
    """For a receiver in C; its configuration depends on the options of the socket."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _configure(self, config: _cmsg.ReceiveConfig, /) -> None: ...

    def refresh(self) -> None:
        """Sizes the control buffer again, for options that others have switched on since."""
        sock, asked = self.sock, self._asked.renewed()
        found = _cmsg.Options.configuration(sock, asked.plans, [], SET_NOTHING)
        self._configure(complete(asked, sock, [], found, SET_NOTHING))
