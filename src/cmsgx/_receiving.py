"""What Receiver, BatchReceiver and ErrorReceiver share: options that are restored at the end of a
`with`, and the configuration of a receiver in C."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _cmsg
from ._options import (
    Enabled,
    control_size_for,
    family_of,
    is_on_for,
    need_fds,
    switched_on,
    type_of,
    unique,
)
from .kinds import PidFd

if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike


class Restoring:
    """For objects that have switched options on: the end of their `with` restores those.

    Another `with` after that is a RuntimeError. Each `__init__` has its own `except`, because a
    signal handler can raise right after the return of a function that would share it.
    """

    __slots__ = ()

    _enabled: Enabled

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


class Asked(NamedTuple):
    """What the caller of a receiver asked for, regardless of what else is switched on."""

    fds: int
    want: tuple[Any, ...]
    raises: bool  # if data or descriptors are missing
    in_background: bool


class Configured(Restoring):
    """For a receiver in C; its configuration depends on the options of the socket."""

    __slots__ = ()

    _asked: Asked

    if TYPE_CHECKING:

        def _configure(self, config: _cmsg.ReceiveConfig, /) -> None: ...

    def refresh(self) -> None:
        """Sizes the control buffer again, for options that others have switched on since."""
        self._configure(configuration(self.sock, self._asked))


def configuration(sock: FileDescriptorLike, asked: Asked) -> _cmsg.ReceiveConfig:
    """What was asked for, and a control buffer large enough for all that is switched on."""
    family = family_of(sock)
    need_fds(family, asked.fds)
    kinds = switched_on(sock, family, asked.want)
    on = [kind for kind in kinds if is_on_for(kind, family, kinds[kind])]
    return _cmsg.ReceiveConfig(
        fds=asked.fds,
        control_size=control_size_for(family, asked.fds, kinds),
        want=unique((*asked.want, *on)),
        family=family,
        type=type_of(sock),
        takes_pidfd=PidFd in asked.want,
        raise_truncated=asked.raises,
        in_background=asked.in_background,
    )
