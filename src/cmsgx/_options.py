"""Which control messages are switched on, and the room that they need."""

from __future__ import annotations

import errno
import socket as _socket
import sys
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import _cmsg
from .errors import NotSupportedError
from .kinds._base import Option, row_of, rows

if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike
    from .kinds import ControlMessage, PidFd

_INT = 4
_NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


def get_int(sock: FileDescriptorLike, level: int, name: int) -> int:
    value = _cmsg.getsockopt(sock, level, name, _INT)
    return int.from_bytes(value, sys.byteorder, signed=True)


def set_int(sock: FileDescriptorLike, level: int, name: int, value: int) -> None:
    _cmsg.setsockopt(sock, level, name, value.to_bytes(_INT, sys.byteorder, signed=True))


def family_of(sock: FileDescriptorLike) -> int:
    """AF_* of the socket, asked of the kernel."""
    if hasattr(_cmsg, "SO_DOMAIN"):
        return get_int(sock, _cmsg.SOL_SOCKET, _cmsg.SO_DOMAIN)
    return int(getattr(sock, "family", -1))


def type_of(sock: FileDescriptorLike) -> int:
    """SOCK_* of the socket, asked of the kernel."""
    return get_int(sock, _cmsg.SOL_SOCKET, _cmsg.SO_TYPE)


def need_unix(sock: FileDescriptorLike, what: str) -> None:
    family = family_of(sock)
    if family != _socket.AF_UNIX:
        raise NotSupportedError(
            errno.EOPNOTSUPP, f"{what} is of AF_UNIX sockets; this one's family is {family}"
        )


def not_supported(error: OSError, what: str, option: str, since: str | None) -> NotSupportedError:
    text = f"{what}: this kernel or socket has no {option}"
    return NotSupportedError(
        error.errno or errno.ENOPROTOOPT, text + (f" (Linux {since})" if since else "")
    )


class Enabled:
    """What enable() did, to be undone: by restore(), or at the end of its `with`."""

    __slots__ = ("_before", "_sock", "kinds")

    def __init__(self, sock: FileDescriptorLike, kinds: tuple[Any, ...]) -> None:
        self._sock = sock
        self.kinds = kinds
        self._before: list[tuple[Option, int]] = []

    def _set(self, kind: Any, option: Option) -> None:
        try:
            before = get_int(self._sock, option.level, option.name)
            set_int(self._sock, option.level, option.name, 1)
        except OSError as error:
            if error.errno in _NOT_THERE:
                raise not_supported(error, kind.__name__, option.text, option.since) from None
            raise
        self._before.append((option, before))

    def restore(self) -> None:
        """Sets the options to what they were before. Does nothing the second time."""
        while self._before:
            option, value = self._before.pop()
            set_int(self._sock, option.level, option.name, value)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.restore()

    def __repr__(self) -> str:
        return f"<Enabled {', '.join(kind.__name__ for kind in self.kinds)}>"


def enable(sock: FileDescriptorLike, *kinds: type[ControlMessage] | type[PidFd]) -> Enabled:
    """Makes the kernel attach these kinds to what `sock` receives: setsockopt(2).

    Returns a handle that restores what was before, by restore() or at the end of its `with`; not
    when it is collected. An accepted socket inherits the options of the listener: enable them
    there before listen(), or what is queued before accept() carries none.

    NotSupportedError where the kernel has a kind not, and then no option is changed.
    """
    options = [(kind, row_of(kind).option) for kind in kinds]
    enabled = Enabled(sock, kinds)
    try:
        for kind, option in options:
            if option is not None:
                enabled._set(kind, option)
    except BaseException:
        enabled.restore()
        raise
    return enabled


def _is_on(sock: FileDescriptorLike, option: Option) -> bool:
    try:
        return get_int(sock, option.level, option.name) != 0
    except OSError as error:
        if error.errno in _NOT_THERE:
            return False
        raise


# Attached by AF_UNIX, but of no kind here: the room for each still has to be there.
_TIME_STAMPS = [
    Option(_cmsg.SOL_SOCKET, getattr(_cmsg, name), name, 64)
    for name in ("SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_TIMESTAMPING")
    if hasattr(_cmsg, name)
]
# Linux 6.18 sets SO_INQ but does not tell it: there its message may be cut, which is no loss.
# The kernel writes these behind the descriptors, where a surplus of those would push them out.
_BEHIND_RIGHTS = {
    getattr(_cmsg, name) for name in ("SO_PASSPIDFD", "SO_INQ") if hasattr(_cmsg, name)
}
_INQ = [Option(_cmsg.SOL_SOCKET, _cmsg.SO_INQ, "SO_INQ", 4)] if hasattr(_cmsg, "SO_INQ") else []

# Other families carry no descriptors, so there is nothing to keep out by a narrow room.
_OTHER_FAMILIES = 4096


def switched_on(sock: FileDescriptorLike, family: int) -> dict[Any, Option]:
    """The kinds that the kernel attaches now, whoever asked for them, and their options."""
    return {
        row.kind: row.option
        for row in rows()
        if row.option and (not row.families or family in row.families) and _is_on(sock, row.option)
    }


def room_for(sock: FileDescriptorLike, family: int, fds: int, known: Iterable[Option]) -> int:
    """The size of the control buffer for `fds` descriptors and all that is switched on.

    Exactly CMSG_LEN(4 * fds) where that is nothing: the kernel keeps a surplus out then.
    """
    if family != _socket.AF_UNIX:
        return _OTHER_FAMILIES
    options = [*known, *(option for option in (*_TIME_STAMPS, *_INQ) if _is_on(sock, option))]
    others = sum([_cmsg.CMSG_SPACE(option.room) for option in options])
    if not _BEHIND_RIGHTS.isdisjoint([option.name for option in options]):
        return others + _cmsg.CMSG_SPACE(_INT * _cmsg.MAX_FDS)
    return others + (_cmsg.CMSG_LEN(_INT * fds) if fds else 0)


def unique(kinds: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(kinds))
