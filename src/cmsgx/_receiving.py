"""What Receiver, BatchReceiver and ErrorReceiver share: options that end with a `with`, and how a
receiver in C is told what to receive."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from . import _cmsg
from ._options import (
    Enabled,
    family_of,
    is_on_for,
    need_fds,
    control_size_for,
    switched_on,
    type_of,
    unique,
)
from .kinds import PidFd

if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike


class Restoring:
    """For what has switched options on: at the end of its `with` they are what they were before.

    RuntimeError for another `with` after that. Each `__init__` catches by itself what interrupts
    it: a signal handler can raise right after the call of a function that would do it, too.
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
    """What the caller of a receiver asked for, whatever else is switched on."""

    fds: int
    want: tuple[Any, ...]
    raises: bool  # where data or descriptors are missing
    in_background: bool


class Configured(Restoring):
    """For a receiver in C, whose configuration follows the options of the socket."""

    __slots__ = ()

    _asked: Asked

    if TYPE_CHECKING:

        def _configure(self, config: _cmsg.ReceiveConfig, /) -> None: ...

    def refresh(self) -> None:
        """Makes room for what others have switched on since."""
        self._configure(configuration(self.sock, self._asked))


def configuration(sock: FileDescriptorLike, asked: Asked) -> _cmsg.ReceiveConfig:
    """For receivers of this socket: what was asked for, and room for all that is switched on."""
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
