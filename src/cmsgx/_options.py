"""Which control messages are switched on, and the room that they need."""

from __future__ import annotations

import errno
import socket as _socket
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from . import _cmsg
from .errors import NotSupportedError
from .kinds._base import Option, Row, row_of, rows

# No generator expression runs in here, nor in the rest of what calls use: CPython 3.12 and 3.13
# crash where there is no memory for one.
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
    return _cmsg.getfamily(sock)


def type_of(sock: FileDescriptorLike) -> int:
    """SOCK_* of the socket, asked of the kernel."""
    return get_int(sock, _cmsg.SOL_SOCKET, _cmsg.SO_TYPE)


def _family_name(family: int) -> str:
    if family in set(_socket.AddressFamily):
        return _socket.AddressFamily(family).name
    for name in dir(_cmsg):
        if name.startswith("AF_") and getattr(_cmsg, name) == family:
            return name
    return str(family)


def _need_family(family: int, families: frozenset[int], what: str) -> None:
    if family not in families:
        names = " and ".join(map(_family_name, sorted(families)))
        raise NotSupportedError(
            errno.EOPNOTSUPP,
            f"{what} is of {names} sockets; this one's family is {_family_name(family)}",
        )


def need_unix(sock: FileDescriptorLike, what: str) -> None:
    _need_family(family_of(sock), frozenset({_socket.AF_UNIX}), what)


def _need_family_of(row: Row, family: int) -> None:
    """Raises where that family has not the kind: its option's number is another option there.

    A family that a form names and no option does gets the kind unasked.
    """
    options = [option for option in row.options if not option.is_watched_only]
    by_form = [form.families for form in row.forms]
    by_option = [option.families for option in options]
    named = by_form if all(by_form) else by_option
    if not named or not all(named):
        return
    what: str = row.kind.__name__
    if options:
        since = f", Linux {options[0].since}" if options[0].since else ""
        what += f" ({options[0].text}{since})"
    _need_family(family, frozenset[int]().union(*by_form, *by_option), what)


def not_supported(error: OSError, what: str, option: str, since: str | None) -> NotSupportedError:
    text = f"{what}: this kernel or socket has no {option}"
    number = error.errno if error.errno in _NOT_THERE else errno.EOPNOTSUPP
    return NotSupportedError(number, text + (f" (Linux {since})" if since else ""))


class Enabled:
    """What enable() did, to be undone: by restore(), or at the end of its `with`.

    kinds     what was enabled
    left_out  the names of the options that this kernel or socket does not have, where a kind has
              several and the first was set: IP_RECVTTL, say, on a raw IPv6 socket

    The end of a `with` does nothing for a socket that was closed in it.
    """

    __slots__ = ("_before", "_sock", "kinds", "left_out")

    def __init__(self, sock: FileDescriptorLike, kinds: tuple[Any, ...]) -> None:
        self._sock = sock
        self.kinds: tuple[Any, ...] = kinds
        self.left_out: tuple[str, ...] = ()
        self._before: list[tuple[Option, bytes]] = []

    # What fails or is interrupted in here has to be undone by who calls it, by _undo(): it has
    # this object before the first option is set, and each option is noted before it is.

    def _set_all(self) -> None:
        kind_rows = [row_of(kind) for kind in self.kinds]
        family = family_of(self._sock) if self.kinds else -1
        for row in kind_rows:
            _need_family_of(row, family)
        for kind in self.kinds:
            self._enable(kind, family)

    def _set(self, option: Option) -> None:
        before = _read(self._sock, option)
        after = option.on[: len(before)]
        if option.is_mask:
            after = bytes([old | new for old, new in zip(before, after, strict=True)])
        is_noted = any(before) or not option.is_permanent
        if is_noted:
            self._before.append((option, before))
        try:
            _cmsg.setsockopt(self._sock, option.level, option.name, after)
        except OSError as error:
            # A signal handler may have raised it once the option was set: TimeoutError is one, too.
            is_of_kernel = error.errno is not None
            if is_noted and is_of_kernel and _read(self._sock, option) == before:
                self._before.pop()
            raise

    def _enable(self, kind: Any, family: int) -> None:
        options = [
            option
            for option in row_of(kind).options
            if not option.families or family in option.families
        ]
        others = [option for option in options if option.is_watched_only]
        # Where setting one puts out another (SO_TIMESTAMP and SO_TIMESTAMPNS), that one is set
        # again after this one is undone: the first of them last.
        self._before += [
            (option, _read(self._sock, option)) for option in others if _is_on(self._sock, option)
        ]
        is_first = True
        for option in options:
            if option.is_watched_only:
                continue
            try:
                self._set(option)
            except OSError as error:
                # EINVAL: a flag that this kernel has not, or an option that this type of socket
                # has not (IP_RECVFRAGSIZE on TCP).
                if error.errno not in (*_NOT_THERE, errno.EINVAL):
                    raise
                if is_first:
                    raise not_supported(error, kind.__name__, option.text, option.since) from error
                self.left_out += (option.text,)
            is_first = False

    def restore(self) -> None:
        """Sets the options to what they were before. Does nothing the second time.

        What cannot be set stops none of the others, is tried again by the next restore(), and is
        raised in the end: the first OSError, with notes that name its option and the others.
        """
        first: OSError | None = None
        left: list[tuple[Option, bytes]] = []
        for entry in reversed(self._before):
            option, value = entry
            try:
                _cmsg.setsockopt(self._sock, option.level, option.name, value)
            except OSError as error:
                if error.errno == errno.EBADF:  # closed: nothing is left to restore
                    self._before = []
                    raise
                left.append(entry)
                if first is None:
                    first = error
                    error.add_note(f"{option.text} could not be restored")
                else:
                    first.add_note(f"{option.text} could not be restored: {error}")
            else:
                # What is put out where one before it is restored later has to be set again.
                if left and option.is_watched_only:
                    left.append(entry)
        self._before = left[::-1]
        if first is not None:
            raise first

    def _undo(self, error: BaseException) -> None:
        """restore() while `error` is raised, which gets a note of what could not be restored."""
        try:
            self.restore()
        except OSError as failure:
            if failure.errno != errno.EBADF:
                notes = getattr(failure, "__notes__", ())  # none on what a signal handler raised
                error.add_note(f"and {'; '.join([*notes, str(failure)])}")

    def __enter__(self) -> Self:
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
        raise TypeError("cannot copy or pickle an Enabled: what it undoes is undone once")

    def __repr__(self) -> str:
        names = ", ".join([kind.__name__ for kind in self.kinds])
        return f"<Enabled {names}{' without ' * bool(self.left_out)}{', '.join(self.left_out)}>"


def _read(sock: FileDescriptorLike, option: Option) -> bytes:
    """The option's value; zeros where the kernel takes it, but does not tell it (SO_INQ), or tells
    it in another size (MISDN_TIME_STAMP).
    """
    try:
        return _cmsg.getsockopt(sock, option.level, option.name, option.size)
    except OSError as error:
        if error.errno in (*_NOT_THERE, errno.EINVAL):
            return bytes(option.size)
        raise


def enable(sock: FileDescriptorLike, *kinds: type[ControlMessage] | type[PidFd]) -> Enabled:
    """Makes the kernel attach these kinds to what `sock` receives: setsockopt(2).

    Returns a handle that restores what was before, by restore() or at the end of its `with`; not
    when it is collected.

    Enable before bind(), as does a Receiver with `want=` that is made before it: what was queued
    earlier comes without the kind, or with another value in it (PacketInfo with zeros, see
    PacketInfo.reply(); Timestamp may have the time at which it is read). An accepted socket
    inherits the options of the listener: enable them there before listen(), or what is queued
    before accept() carries none. On an AF_INET6 socket a kind of IPv6 is enabled for IPv4-mapped
    peers too.

    NotSupportedError where the kernel, or the family of the socket, does not have a kind. Whatever
    it raises, no option stays changed; one that could not be set back is named in a note. Where a
    kind has several options, `left_out` of the handle names those that the socket does not have.
    """
    enabled = Enabled(sock, kinds)
    try:
        enabled._set_all()
        return enabled  # here: no signal handler runs between this and the caller
    except BaseException as error:
        enabled._undo(error)
        raise


def _is_on(sock: FileDescriptorLike, option: Option) -> bool:
    try:
        value = _cmsg.getsockopt(sock, option.level, option.name, option.size)
    except OSError as error:
        # EBADFD: of HCI, a socket of another channel than the raw one.
        if error.errno in (*_NOT_THERE, errno.EINVAL, getattr(errno, "EBADFD", None)):
            return False
        raise
    if option.is_mask:
        value = bytes([now & bit for now, bit in zip(value, option.on, strict=False)])
    return any(value)


# The kernel writes these behind the descriptors, where a surplus of those would push them out.
_BEHIND_RIGHTS = {
    getattr(_cmsg, name) for name in ("SO_PASSPIDFD", "SO_INQ") if hasattr(_cmsg, name)
}


def switched_on(
    sock: FileDescriptorLike, family: int, wanted: Iterable[Any] = ()
) -> dict[Any, tuple[Option, ...]]:
    """The kinds that the kernel attaches now, whoever asked for them, and their options.

    Those of `wanted`, which were set just now, also where the kernel does not tell them.
    """
    wanted = frozenset(wanted)
    found: dict[Any, tuple[Option, ...]] = {}
    for row in rows():
        if row.families and family not in row.families:
            continue
        options = [
            option
            for option in row.options
            if (option.room or not option.is_watched_only)
            and (not option.families or family in option.families)
            and (_is_on(sock, option) or (row.kind in wanted and not option.is_watched_only))
        ]
        if options or row.always:
            found[row.kind] = tuple(options)
    return found


def room_for(family: int, fds: int, known: Mapping[Any, Iterable[Option]]) -> int:
    """The size of the control buffer for `fds` descriptors and all that is switched on.

    Exactly CMSG_LEN(4 * fds) where that is nothing: the kernel keeps a surplus out then.
    """
    options = [option for some in known.values() for option in some]
    others = 0
    for option in options:
        others += _cmsg.CMSG_SPACE(option.room)
    for kind in known:
        if always := row_of(kind).always:
            others += _cmsg.CMSG_SPACE(always)
    if family != _socket.AF_UNIX:
        return others
    if not _BEHIND_RIGHTS.isdisjoint([option.name for option in options]):
        return others + _cmsg.CMSG_SPACE(_INT * _cmsg.MAX_FDS)
    # More are refused where they are told, and not here for the size.
    return others + (_cmsg.CMSG_LEN(_INT * min(fds, _cmsg.MAX_FDS)) if fds else 0)


def unique(kinds: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(kinds))
