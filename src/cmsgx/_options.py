"""Switching kinds of control messages on, and setting the options back."""

from __future__ import annotations

import errno
import socket as _socket
import sys
from types import TracebackType
from typing import TYPE_CHECKING, NoReturn, SupportsIndex

from . import _cmsg
from ._asked import Asked, ask, name_of
from ._plan import switch_on
from ._setting import NOT_THERE, need_family
from .kinds._base import Kind
from .kinds._row import Option

# No generator expressions here: see _asked.py.
if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike

_INT = 4


def get_int(sock: FileDescriptorLike, level: int, name: int) -> int:
    value = _cmsg.getsockopt(sock, level, name, _INT)
    return int.from_bytes(value, sys.byteorder, signed=True)


def set_int(sock: FileDescriptorLike, level: int, name: int, value: int) -> None:
    _cmsg.setsockopt(sock, level, name, value.to_bytes(_INT, sys.byteorder, signed=True))


def family_of(sock: FileDescriptorLike) -> int:
    """AF_* of the socket, as the kernel reports it."""
    return _cmsg.getfamily(sock)


def type_of(sock: FileDescriptorLike) -> int:
    """SOCK_* of the socket, as the kernel reports it."""
    return get_int(sock, _cmsg.SOL_SOCKET, _cmsg.SO_TYPE)


def need_unix(sock: FileDescriptorLike, what: str) -> None:
    need_family(family_of(sock), frozenset({_socket.AF_UNIX}), what)


class Enabled:
    """What enable() returns: restores the options, by restore() or at the end of its `with`.

    kinds     what was enabled: classes, or results of Kind.option(); those with a value come last
    left_out  names of options that this kernel or socket lacks, if a kind has several and the first
              was set: for example IP_RECVTTL on a raw IPv6 socket

    Restore the handles of one socket, including those of receivers, in the reverse of the order in
    which they were made: each brings back the values that it found. A handle works for one `with`;
    entering it after it was restored is a RuntimeError. In a child of fork() it restores nothing,
    because the parent shares the socket.

    If the socket was closed inside the `with`, its end does nothing; restore() raises OSError
    (EBADF) then.
    """

    # The value is what help() says about the public one.
    __slots__ = {
        **dict.fromkeys(("_asked", "_before", "_generation", "_is_restored", "_sock")),
        "left_out": "Names of the options of these kinds that this kernel or socket lacks.",
    }

    def __init__(self, sock: FileDescriptorLike, asked: Asked, /) -> None:
        if type(asked) is not Asked:
            raise TypeError("Enabled is what enable(sock, *kinds) returns: call that")
        self._sock = sock
        self._asked = asked
        self._generation = _cmsg.generation()
        self._is_restored = False
        self.left_out: tuple[str, ...] = ()
        # For each option: the value before, and the value that was set.
        self._before: list[tuple[Option, bytes, bytes]] = []

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What was enabled: classes, or results of Kind.option()."""
        return tuple([one if one.arguments else one.kind for one in self._asked.options])

    def restore(self) -> None:
        """Sets the options back to their previous values. Does nothing the second time.

        If an option is a set of flags, only those that this handle added are cleared; flags that
        others added meanwhile stay.

        If an option cannot be set, the others still are; then the first OSError is raised, with
        notes that name its option and any others that failed. The next restore() tries those again.
        If the socket is closed, the error is EBADF, and there is nothing to try again.

        In a child of fork() it does nothing, because the parent shares the socket.
        """
        if self._generation != _cmsg.generation():
            return
        first: OSError | None = None
        left: list[tuple[Option, bytes, bytes]] = []
        for entry in reversed(self._before):
            option, before, after = entry
            try:
                value = _removed(self._sock, option, before, after) if option.is_mask else before
                _cmsg.setsockopt(self._sock, option.level, option.name, value)
            except OSError as error:
                if error.errno == errno.EBADF:  # closed: nothing is left to restore
                    self._before = []
                    self._is_restored = True
                    raise
                left.append(entry)
                if first is None:
                    first = error
                    error.add_note(f"{option.text} could not be restored")
                else:
                    first.add_note(f"{option.text} could not be restored: {error}")
            else:
                # An option that is still to be restored will switch this one off again.
                if left and option.is_watched_only:
                    left.append(entry)
        self._before = left[::-1]
        if first is not None:
            raise first
        self._is_restored = True

    def _undo(self, error: BaseException) -> None:
        """restore() while `error` is being raised: it gets a note of what could not be restored."""
        try:
            self.restore()
        except OSError as failure:
            if failure.errno != errno.EBADF:
                notes = getattr(failure, "__notes__", ())  # no notes if a signal handler raised it
                error.add_note(f"and {'; '.join([*notes, str(failure)])}")

    def __enter__(self) -> Self:
        if self._is_restored and self._asked.options:
            names = ", ".join(map(name_of, self._asked.options))
            raise RuntimeError(
                f"{names}: the options were restored, and another `with` does not switch them on "
                "again; call enable() again, or make another receiver"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._undo(error)
            return
        try:
            self.restore()
        except OSError as failure:
            if failure.errno != errno.EBADF:
                raise

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("cannot copy or pickle an Enabled: it restores options only once")

    def __repr__(self) -> str:
        names = ", ".join(map(name_of, self._asked.options)) or "nothing"
        return f"<Enabled {names}{' without ' * bool(self.left_out)}{', '.join(self.left_out)}>"


def _removed(sock: FileDescriptorLike, option: Option, before: bytes, after: bytes) -> bytes:
    """The value that takes back the flags that `after` added to `before`."""
    now = _read(sock, option)
    value = bytes([n & ~(a & ~b) for n, a, b in zip(now, after, before, strict=False)])
    if option.tail and isinstance(option.value, bytes):
        value = value[: len(option.value)] + before[len(option.value) :]
    return value


def _read(sock: FileDescriptorLike, option: Option) -> bytes:
    """The option's value; zeros if the kernel can set it, but does not report it (SO_INQ), or
    reports it in another size (MISDN_TIME_STAMP).
    """
    try:
        return _cmsg.getsockopt(sock, option.level, option.name, option.size)
    except OSError as error:
        if error.errno in (*NOT_THERE, errno.EINVAL):
            return bytes(option.size)
        raise


def enable(sock: FileDescriptorLike, *kinds: Kind) -> Enabled:
    """Makes the kernel attach these kinds to what `sock` receives: setsockopt(2).

    If the option of a kind has a value, pass Kind.option(value) in place of the class. Flags are
    added to those that the socket has; any other value replaces the old one. Both are restored. Two
    values for one option are a ValueError, an instance instead of a class is a TypeError.

    Returns a handle that restores the previous values, by restore() or at the end of its `with`,
    but not when it is garbage collected. Restore the handles of one socket in the reverse of the
    order in which they were made. Otherwise the first switches off what the second still needs, and
    the second then brings back what it had found.

    Enable kinds before bind(); so does a Receiver with `want=` that is made before bind(). What was
    queued earlier comes without the kind, or with a wrong value in it (zeros in PacketInfo, see
    PacketInfo.reply(); in Timestamp perhaps the time at which it is read). An accepted socket
    inherits the options of the listener: enable them there before listen(), or what is queued
    before accept() lacks them. On an AF_INET6 socket, a kind of IPv6 is enabled for IPv4-mapped
    peers too.

    NotSupportedError if the kernel or the family of the socket lacks a kind; TypeError for one that
    is only sent, which needs no option. If the kernel refuses a value, a note on the OSError says
    what the value needs. Whatever it raises, no option stays changed; a note names one that could
    not be restored. If a kind has several options, `left_out` of the handle names those that the
    socket lacks.
    """
    enabled = Enabled(sock, ask(kinds, "enable"))
    # Each option is noted in the handle before it is set, so whatever interrupts this is undone.
    try:
        if kinds:
            enabled.left_out = switch_on(enabled._asked, sock, enabled._before)
        return enabled  # inside `try`: no signal handler runs between this and the caller
    except BaseException as error:
        enabled._undo(error)
        raise
