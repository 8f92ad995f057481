"""Which control messages are switched on, and the room that they need."""

from __future__ import annotations

import errno
import socket as _socket
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeAlias

from . import _cmsg
from ._arguments import as_tuple, needed
from .errors import NotSupportedError
from .kinds._base import ControlMessage
from .kinds._pidfd import PidFd
from .kinds._row import KindOption, Option
from .kinds._sending import family_name
from .kinds._table import row_of, rows

# No generator expression runs in here, nor in the rest of what calls use: CPython 3.12 and 3.13
# crash where there is no memory for one.
if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike

Kind: TypeAlias = "type[ControlMessage] | type[PidFd] | KindOption"
"""What `want=` and enable() take."""

_INT = 4
_NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
# The kernel's internal number, which older releases return for SO_ZEROCOPY.
_ENOTSUPP = 524
# What says that an option is there, and not with that value.
_REFUSED = (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)


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


def _need_family(family: int, families: frozenset[int], what: str) -> None:
    if family not in families:
        names = " and ".join(map(family_name, sorted(families)))
        raise NotSupportedError(
            errno.EOPNOTSUPP,
            f"{what} is of {names} sockets; this one's family is {family_name(family)}",
        )


def need_unix(sock: FileDescriptorLike, what: str) -> None:
    _need_family(family_of(sock), frozenset({_socket.AF_UNIX}), what)


def need_fds(family: int, fds: int) -> None:
    """NotSupportedError if `fds` asks for some and none can come; MAX_FDS takes whatever comes."""
    if fds and fds < _cmsg.MAX_FDS and family != _socket.AF_UNIX:
        _need_family(family, frozenset({_socket.AF_UNIX}), f"fds={fds}: what brings descriptors")


def as_option(kind: Any, argument: str) -> KindOption:
    """A kind, or what its option() gave, as the latter. `argument` is the caller's, for an error.

    NotSupportedError for a kind that this system lacks, TypeError for what is not a kind.
    """
    if isinstance(kind, KindOption):
        return kind
    if isinstance(kind, (ControlMessage, PidFd)):
        name = type(kind).__name__
        value = "" if isinstance(kind, PidFd) else (
            f", or {name}.option(...) where its option has a value"
        )  # fmt: skip
        raise TypeError(
            f"{argument}: {kind!r} is a control message, not a kind: pass its class, {name}{value}"
        )
    if not isinstance(kind, type):
        error = needed(argument, "a kind of control message", kind)
        if argument == "enable" and isinstance(kind, Iterable):
            error = TypeError(f"{error}; give them one by one: enable(sock, *kinds)")
        raise error
    return KindOption(kind, (row_of(kind).options,))


class Asked(tuple[KindOption, ...]):
    """What as_options() made of an argument."""

    __slots__ = ()


def as_options(kinds: Any, argument: str) -> Asked:
    """One kind or many, each once: those last whose option was given a value, for that to stand."""
    if isinstance(kinds, (type, KindOption, ControlMessage, PidFd, str, bytes)):
        kinds = (kinds,)
    several = as_tuple(argument, "a kind of control message, or an iterable of them,", kinds)
    given = [as_option(kind, argument) for kind in several]
    chosen = [*dict.fromkeys([one for one in given if one.arguments])]
    if len(chosen) > 1:
        _check_agreement(chosen, argument)
    # By the class: the hash of all that is set takes longer than to set it.
    plain = {one.kind: one for one in given if not one.arguments}
    return Asked((*plain.values(), *chosen))


def _check_agreement(chosen: list[KindOption], argument: str) -> None:
    """ValueError for two values of one option: the second would undo the first in silence."""
    values: dict[tuple[int, int], tuple[bytes, KindOption]] = {}
    for one in chosen:
        for option in [option for step in one.steps for option in step]:
            value = option.tail if option.is_mask else option.on
            if option.is_watched_only or not value:
                continue
            first = values.setdefault((option.level, option.name), (value, one))
            if first[0] != value:
                raise ValueError(
                    f"{argument}: {first[1]!r} and {one!r}; {option.text} has one value"
                )


def _need_received(asked: KindOption) -> None:
    """TypeError for what no option switches on, as it is only sent."""
    kind = asked.kind
    row = row_of(kind)
    if row.direction == "send" and not row.options:
        fields = ", ".join(getattr(kind, "__match_args__", ()))
        raise TypeError(
            f"{kind.__name__} is only sent, never received: there is nothing to switch on; it goes "
            f"with a send, as control={kind.__name__}({fields})"
        )


def _name(asked: KindOption) -> str:
    return repr(asked) if asked.arguments else asked.kind.__name__


def _need_family_of(asked: KindOption, family: int) -> None:
    """Raises if that family lacks the kind: the number of its option means another option there.

    A family that a form names and no option does gets the kind without one, but no value of it.
    """
    row = row_of(asked.kind)
    by_form = [wire.families for wire in row.formats]
    _need_family_of_step(asked, row.options, by_form, family)
    for step in asked.steps:
        if step != row.options:
            _need_family_of_step(asked, step, [], family)


def _need_family_of_step(
    asked: KindOption, step: tuple[Option, ...], by_form: list[frozenset[int]], family: int
) -> None:
    options = [option for option in step if not option.is_watched_only]
    by_option = [option.families for option in options]
    named = by_form if by_form and all(by_form) else by_option
    if not named or not all(named):
        return
    what = _name(asked)
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

    kinds     what was enabled: each class, or what Kind.option() gave, with a value last
    left_out  the names of the options that this kernel or socket does not have, where a kind has
              several and the first was set: IP_RECVTTL, say, on a raw IPv6 socket

    Handles on one socket, those of a Receiver included, are restored in the reverse of the order
    in which they were made: each gives back what was there when it was made. A handle is good for
    one `with`: to enter it once it was restored is a RuntimeError. In a child of fork() it restores
    nothing, as the socket is the parent's too.

    The end of a `with` does nothing for a socket that was closed in it; restore() raises OSError
    (EBADF) then.
    """

    __slots__ = ("_asked", "_before", "_generation", "_is_restored", "_sock", "left_out")

    def __init__(self, sock: FileDescriptorLike, asked: Asked, /) -> None:
        if type(asked) is not Asked:
            raise TypeError("Enabled is what enable(sock, *kinds) returns: call that")
        self._sock = sock
        self._asked = asked
        self._generation = _cmsg.generation()
        self._is_restored = False
        self.left_out: tuple[str, ...] = ()
        # Each option, what it was before, and what it was set to.
        self._before: list[tuple[Option, bytes, bytes]] = []

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What was enabled: each class, or what Kind.option() gave."""
        return tuple([one if one.arguments else one.kind for one in self._asked])

    # What fails or is interrupted in here has to be undone by who calls it, by _undo(): it has
    # this object before the first option is set, and each option is noted before it is.

    def _set_all(self) -> None:
        for asked in self._asked:
            _need_received(asked)
        family = family_of(self._sock) if self._asked else -1
        for asked in self._asked:
            _need_family_of(asked, family)
        for asked in self._asked:
            for step in asked.steps:
                self._enable(asked, step, family)

    def _set(self, option: Option) -> None:
        before = _read(self._sock, option)
        after = _added(option, before)
        is_noted = any(before) or not option.is_permanent
        if is_noted:
            self._before.append((option, before, after))
        try:
            _cmsg.setsockopt(self._sock, option.level, option.name, after)
        except OSError as error:
            # A signal handler may have raised it once the option was set: TimeoutError is one, too.
            is_of_kernel = error.errno is not None
            if is_noted and is_of_kernel and _read(self._sock, option) == before:
                self._before.pop()
            raise

    def _enable(self, asked: KindOption, step: tuple[Option, ...], family: int) -> None:
        options = [option for option in step if not option.families or family in option.families]
        others = [option for option in options if option.is_watched_only]
        # Where setting one puts out another (SO_TIMESTAMP and SO_TIMESTAMPNS), that one is set
        # again after this one is undone: the first of them last.
        for option in others:
            if _is_on(self._sock, option):
                value = _read(self._sock, option)
                self._before.append((option, value, value))
        is_first = True
        for option in options:
            if option.is_watched_only:
                continue
            try:
                self._set(option)
            except OSError as error:
                if option.needs and error.errno in _REFUSED:
                    error.add_note(f"{_name(asked)}: {option.needs}")
                    raise
                # EINVAL: a flag that this kernel lacks, or an option that this type of socket
                # lacks (IP_RECVFRAGSIZE on TCP).
                if error.errno not in (*_NOT_THERE, errno.EINVAL, _ENOTSUPP):
                    raise
                if is_first:
                    raise not_supported(error, _name(asked), option.text, option.since) from error
                self.left_out += (option.text,)
            is_first = False

    def restore(self) -> None:
        """Sets the options to what they were before. Does nothing the second time.

        Of an option that is a word of flags, those that this handle added are cleared: what others
        added meanwhile stays.

        What cannot be set stops none of the others, is tried again by the next restore(), and is
        raised in the end: the first OSError, with notes that name its option and the others. Of a
        socket that is closed it is EBADF, and nothing is left to be tried again.

        In a child of fork() it does nothing: the options are those of the parent's socket.
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
                # One before it that is restored later switches it off: it has to be set again.
                if left and option.is_watched_only:
                    left.append(entry)
        self._before = left[::-1]
        if first is not None:
            raise first
        self._is_restored = True

    def _undo(self, error: BaseException) -> None:
        """restore() while `error` is raised, which gets a note of what could not be restored."""
        try:
            self.restore()
        except OSError as failure:
            if failure.errno != errno.EBADF:
                notes = getattr(failure, "__notes__", ())  # none on what a signal handler raised
                error.add_note(f"and {'; '.join([*notes, str(failure)])}")

    def __enter__(self) -> Self:
        if self._is_restored and self._asked:
            names = ", ".join(map(_name, self._asked))
            raise RuntimeError(
                f"{names}: the options were restored, and are not switched on again by another "
                "`with`; call enable() again, or make another receiver"
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
        raise TypeError("cannot copy or pickle an Enabled: what it undoes is undone once")

    def __repr__(self) -> str:
        names = ", ".join([_name(asked) for asked in self._asked]) or "nothing"
        return f"<Enabled {names}{' without ' * bool(self.left_out)}{', '.join(self.left_out)}>"


def _added(option: Option, before: bytes) -> bytes:
    """What an option is set to that has the value `before`."""
    after = option.on[: len(before)]
    if option.is_mask:
        after = bytes([old | new for old, new in zip(before, after, strict=True)])
        if option.tail and isinstance(option.value, bytes):
            after = (after[: len(option.value)] + option.tail)[: len(before)]
    return after


def _removed(sock: FileDescriptorLike, option: Option, before: bytes, after: bytes) -> bytes:
    """What flags are set back to that were set from `before` to `after`."""
    now = _read(sock, option)
    value = bytes([n & ~(a & ~b) for n, a, b in zip(now, after, before, strict=False)])
    if option.tail and isinstance(option.value, bytes):
        value = value[: len(option.value)] + before[len(option.value) :]
    return value


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


def enable(sock: FileDescriptorLike, *kinds: Kind) -> Enabled:
    """Makes the kernel attach these kinds to what `sock` receives: setsockopt(2).

    Where the option of a kind has a value, Kind.option(value) is that kind with it: flags are added
    to those that the socket has, another value replaces what it has, and both are restored. Two
    values for one option are a ValueError, an instance instead of a class is a TypeError.

    Returns a handle that restores what was before, by restore() or at the end of its `with`; not
    when it is collected. Handles on one socket are restored in the reverse of the order in which
    they were made: the first one would switch off what the second still wants, and the second then
    set what it had found.

    Enable before bind(), as does a Receiver with `want=` that is made before it: what was queued
    earlier comes without the kind, or with another value in it (PacketInfo with zeros, see
    PacketInfo.reply(); Timestamp may have the time at which it is read). An accepted socket
    inherits the options of the listener: enable them there before listen(), or what is queued
    before accept() carries none. On an AF_INET6 socket a kind of IPv6 is enabled for IPv4-mapped
    peers too.

    NotSupportedError where the kernel, or the family of the socket, does not have a kind;
    TypeError for one that is only sent, and needs no option for that. Where the kernel refuses a
    value, a note of the OSError says what it needs. Whatever it raises, no option stays changed;
    one that could not be set back is named in a note. Where a kind has several options, `left_out`
    of the handle names those that the socket does not have.
    """
    enabled = Enabled(sock, as_options(kinds, "enable"))
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
        bits = option.sign or option.on
        value = bytes([now & bit for now, bit in zip(value, bits, strict=False)])
    return any(value)


# The kernel writes these after the descriptors, where a surplus of those would push them out.
_AFTER_RIGHTS = {
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
            if (option.control_size or not option.is_watched_only)
            and (not option.families or family in option.families)
            and (_is_on(sock, option) or (row.kind in wanted and not option.is_watched_only))
        ]
        if options or row.unsolicited_size:
            found[row.kind] = tuple(options)
    return found


_IPV6 = getattr(_cmsg, "SOL_IPV6", None)


def is_on_for(kind: Any, family: int, options: Iterable[Option]) -> bool:
    """Whether those options bring the kind for each packet: one of IPv4 brings a kind of IPv6 with
    the packets of IPv4-mapped peers only."""
    if family != getattr(_socket, "AF_INET6", None) or row_of(kind).level != _IPV6:
        return True
    return any(option.level == _IPV6 for option in options)


def control_size_for(family: int, fds: int, known: Mapping[Any, Iterable[Option]]) -> int:
    """The size of the control buffer for `fds` descriptors and all that is switched on.

    Exactly CMSG_LEN(4 * fds) where that is nothing: the kernel keeps a surplus out then.
    """
    options = [option for some in known.values() for option in some]
    others = 0
    for option in options:
        others += _cmsg.CMSG_SPACE(option.control_size)
        if option.entry and family != _socket.AF_UNIX:  # which has no error queue
            others += _cmsg.CMSG_SPACE(option.entry)
    for kind in known:
        if unsolicited_size := row_of(kind).unsolicited_size:
            others += _cmsg.CMSG_SPACE(unsolicited_size)
    if family != _socket.AF_UNIX:
        return others
    if not _AFTER_RIGHTS.isdisjoint([option.name for option in options]):
        return others + _cmsg.CMSG_SPACE(_INT * _cmsg.MAX_FDS)
    # More are refused where they are told, and not here for the size.
    return others + (_cmsg.CMSG_LEN(_INT * min(fds, _cmsg.MAX_FDS)) if fds else 0)


def kinds_of(asked: Iterable[KindOption]) -> tuple[Any, ...]:
    """The classes, each once."""
    return unique([one.kind for one in asked])


def unique(kinds: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(kinds))
