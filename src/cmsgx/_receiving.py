"""What Receiver, BatchReceiver and ErrorReceiver share: options that are restored at the end of a
`with`, and the configuration of a receiver in C."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _cmsg
from ._asked import ask
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

    if TYPE_CHECKING:
        _asked: Asked
        # Each option, the value before, and the value that was set.
        _before: list[tuple[Option, bytes, bytes]]
        # The process that set them.
        _generation: int
        _handle: Enabled

    @property
    def _enabled(self) -> Enabled:
        """The handle. It is made when it is needed, as most receivers restore nothing."""
        try:
            return self._handle
        except AttributeError:
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
    """For a receiver in C; its configuration depends on the options of the socket.

    _open() does all if the same was asked for before. What remains is done here.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def _opened(self) -> bool: ...
        def _configure(self, config: _cmsg.ReceiveConfig, /) -> None: ...

    def _finish(self, found: Any, want: Any, fds: Any, on_truncation: Any, close: Any) -> None:
        """What _open() found missing: None, or what Options.configuration() returned."""
        asked = ask(want, "want", fds, on_truncation, close)
        self._asked = asked  # type: ignore[misc]  # a member in C
        if found is None:
            found = _cmsg.Options.configuration(self.sock, asked.plans, self._before, 0)
        self._configure(complete(asked, self.sock, self._before, found))

    def _abandon(self, error: BaseException) -> None:
        """Undoes what was set, while `error` is being raised by __init__()."""
        if self._opened and self._before:
            self._enabled._undo(error)

    def refresh(self) -> None:
        """Sizes the control buffer again, for options that others have switched on since."""
        sock, asked = self.sock, self._asked.renewed()
        found = _cmsg.Options.configuration(sock, asked.plans, [], SET_NOTHING)
        self._configure(complete(asked, sock, [], found, SET_NOTHING))
