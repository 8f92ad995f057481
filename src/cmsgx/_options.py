"""Which kinds of control messages are switched on, and the control buffer that they need."""

from __future__ import annotations

import errno
import socket as _socket
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from . import _cmsg
from ._arguments import as_tuple, needed
from .errors import NotSupportedError
from .kinds._base import ControlMessage, Kind
from .kinds._pidfd import PidFd
from .kinds._row import KindOption, Option
from .kinds._sending import family_name
from .kinds._table import row_of, rows

# No generator expressions here, nor in other code that calls use: CPython 3.12 and 3.13 crash if
# there is no memory for one.
if TYPE_CHECKING:
    from typing import Self

    from ._fds import FileDescriptorLike

_INT = 4
_NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
# The kernel's internal number, which older releases return for SO_ZEROCOPY.
ENOTSUPP: int = getattr(_cmsg, "ENOTSUPP", 0)
# The errors that mean: the option exists, but not with this value.
_REFUSED = (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)


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


def _need_family(family: int, families: frozenset[int], what: str) -> None:
    if family not in families:
        names = " and ".join(map(family_name, sorted(families)))
        raise NotSupportedError(
            errno.EOPNOTSUPP,
            f"{what} is for {names} sockets; the family of this one is {family_name(family)}",
        )


def need_unix(sock: FileDescriptorLike, what: str) -> None:
    _need_family(family_of(sock), frozenset({_socket.AF_UNIX}), what)


def need_fds(family: int, fds: int) -> None:
    """NotSupportedError if no descriptor can come; MAX_FDS means whatever comes, so it passes."""
    if fds and fds < _cmsg.MAX_FDS and family != _socket.AF_UNIX:
        _need_family(family, frozenset({_socket.AF_UNIX}), f"fds={fds}: receiving descriptors")


def as_option(kind: Any, argument: str) -> KindOption:
    """The KindOption for a kind; one that is given is returned as it is.

    NotSupportedError for a kind that this system lacks, TypeError for anything else, which names
    the caller's `argument`.
    """
    if isinstance(kind, KindOption):
        return kind
    if isinstance(kind, (ControlMessage, PidFd)):
        name = type(kind).__name__
        value = "" if isinstance(kind, PidFd) else (
            f", or {name}.option(...) if its option has a value"
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
    """What as_options() returns."""

    __slots__ = ()


def as_options(kinds: Any, argument: str) -> Asked:
    """One or more kinds, each once. Those with a value come last, so that their values prevail."""
    if isinstance(kinds, (type, KindOption, ControlMessage, PidFd, str, bytes)):
        kinds = (kinds,)
    several = as_tuple(argument, "a kind of control message, or an iterable of them,", kinds)
    given = [as_option(kind, argument) for kind in several]
    chosen = [*dict.fromkeys([one for one in given if one.arguments])]
    if len(chosen) > 1:
        _check_agreement(chosen, argument)
    # The key is the class: hashing all the options takes longer than setting them.
    plain = {one.kind: one for one in given if not one.arguments}
    return Asked((*plain.values(), *chosen))


def _check_agreement(chosen: list[KindOption], argument: str) -> None:
    """ValueError for two values of one option: the second would silently replace the first."""
    values: dict[tuple[int, int], tuple[bytes, KindOption]] = {}
    for one in chosen:
        for option in [option for step in one.steps for option in step]:
            value = option.tail if option.is_mask else option.on
            if option.is_watched_only or not value:
                continue
            first = values.setdefault((option.level, option.name), (value, one))
            if first[0] != value:
                raise ValueError(
                    f"{argument}: {first[1]!r} and {one!r}; {option.text} can have only one value"
                )


def _need_received(asked: KindOption) -> None:
    """TypeError for a kind that is only sent, so that no option switches it on."""
    kind = asked.kind
    row = row_of(kind)
    if row.direction == "send" and not row.options:
        fields = ", ".join(getattr(kind, "__match_args__", ()))
        raise TypeError(
            f"{kind.__name__} is only sent, never received: there is nothing to switch on; pass it "
            f"to a send, as control={kind.__name__}({fields})"
        )


def _name(asked: KindOption) -> str:
    return repr(asked) if asked.arguments else asked.kind.__name__


def _need_family_of(asked: KindOption, family: int) -> None:
    """NotSupportedError if the family lacks the kind: its option number has another meaning there.

    A family that is named by a wire format, but by no option, gets the kind without an option, and
    so cannot set a value of it.
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
    text = f"{what}: this kernel or socket lacks {option}"
    number = error.errno if error.errno in _NOT_THERE else errno.EOPNOTSUPP
    return NotSupportedError(number, text + (f" (Linux {since})" if since else ""))


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
        return tuple([one if one.arguments else one.kind for one in self._asked])

    # If these methods fail or are interrupted, their caller has to call _undo(). It holds this
    # object before the first option is set, and each option is noted before it is set.

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
            # It may come from a signal handler after the option was set: TimeoutError, for one, is
            # an OSError too.
            is_of_kernel = error.errno is not None
            if is_noted and is_of_kernel and _read(self._sock, option) == before:
                self._before.pop()
            raise

    def _enable(self, asked: KindOption, step: tuple[Option, ...], family: int) -> None:
        options = [option for option in step if not option.families or family in option.families]
        others = [option for option in options if option.is_watched_only]
        # Setting one option can switch off another (SO_TIMESTAMP and SO_TIMESTAMPNS). The other is
        # set again after this one is undone, so it is noted first.
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
                # EINVAL: the kernel lacks a flag, or this type of socket lacks the option
                # (IP_RECVFRAGSIZE on TCP).
                if error.errno not in (*_NOT_THERE, errno.EINVAL, ENOTSUPP):
                    raise
                if is_first:
                    raise not_supported(error, _name(asked), option.text, option.since) from error
                self.left_out += (option.text,)
            is_first = False

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
        if self._is_restored and self._asked:
            names = ", ".join(map(_name, self._asked))
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
        names = ", ".join([_name(asked) for asked in self._asked]) or "nothing"
        return f"<Enabled {names}{' without ' * bool(self.left_out)}{', '.join(self.left_out)}>"


def _added(option: Option, before: bytes) -> bytes:
    """The value to set for an option that has the value `before`."""
    after = option.on[: len(before)]
    if option.is_mask:
        after = bytes([old | new for old, new in zip(before, after, strict=True)])
        if option.tail and isinstance(option.value, bytes):
            after = (after[: len(option.value)] + option.tail)[: len(before)]
    return after


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
        if error.errno in (*_NOT_THERE, errno.EINVAL):
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
    enabled = Enabled(sock, as_options(kinds, "enable"))
    try:
        enabled._set_all()
        return enabled  # inside `try`: no signal handler runs between this and the caller
    except BaseException as error:
        enabled._undo(error)
        raise


def _is_on(sock: FileDescriptorLike, option: Option) -> bool:
    try:
        value = _cmsg.getsockopt(sock, option.level, option.name, option.size)
    except OSError as error:
        # EBADFD: an HCI socket that is not bound to HCI_CHANNEL_RAW, net/bluetooth/hci_sock.c.
        if error.errno in (*_NOT_THERE, errno.EINVAL, getattr(errno, "EBADFD", None)):
            return False
        raise
    if option.is_mask:
        bits = option.sign or option.on
        value = bytes([now & bit for now, bit in zip(value, bits, strict=False)])
    return any(value)


# The kernel writes these after the descriptors, so surplus descriptors would take their space:
# scm_recv_unix() in net/core/scm.c, unix_stream_read_generic() in net/unix/af_unix.c.
_AFTER_RIGHTS = {
    getattr(_cmsg, name) for name in ("SO_PASSPIDFD", "SO_INQ") if hasattr(_cmsg, name)
}


def switched_on(
    sock: FileDescriptorLike, family: int, wanted: Iterable[Any] = ()
) -> dict[Any, tuple[Option, ...]]:
    """The kinds that the kernel now attaches, whoever asked for them, with their options.

    Kinds in `wanted` were just switched on, and count even if the kernel does not report them.
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
    """Whether these options bring the kind with every packet: an option of IPv4 brings a kind of
    IPv6 only with packets of IPv4-mapped peers."""
    if family != getattr(_socket, "AF_INET6", None) or row_of(kind).level != _IPV6:
        return True
    return any(option.level == _IPV6 for option in options)


def control_size_for(family: int, fds: int, known: Mapping[Any, Iterable[Option]]) -> int:
    """The size of the control buffer, in bytes, for `fds` descriptors and all that is switched on.

    Exactly CMSG_LEN(4 * fds) if nothing is switched on: then no surplus descriptor fits.
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
    # Others refuse more than MAX_FDS; it is not an error here.
    return others + (_cmsg.CMSG_LEN(_INT * min(fds, _cmsg.MAX_FDS)) if fds else 0)


def kinds_of(asked: Iterable[KindOption]) -> tuple[Any, ...]:
    """The classes, each once."""
    return unique([one.kind for one in asked])


def unique(kinds: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(kinds))
