"""What is switched on for a socket, and the control buffer that it needs."""

from __future__ import annotations

import socket as _socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from . import _cmsg
from ._asked import Asked
from ._setting import (
    leave_out,
    need_family,
    origins_of,
    setting_entry,
    sign_of,
    watched_entry,
)
from .kinds._pidfd import PidFd
from .kinds._row import Option, Row
from .kinds._table import row_of, rows
from .kinds._way import may_have

if TYPE_CHECKING:
    from ._fds import FileDescriptorLike

# No generator expressions here: see _asked.py.

_INT = 4
# Level and name of an option, and the bits of which any shows that it is on.
_Question: TypeAlias = tuple[int, int, bytes]
# How many configurations a plan keeps. Most have one; each of them is for another set of options
# that others have switched on.
_MOST = 32


class Plan:
    """What was asked for, and what that means for a family and type of socket.

    A plan holds nothing of a socket, so all that ask for the same share one.
    """

    __slots__ = ("_asked", "_family", "_origins", "_places", "_rows", "_type", "options")

    def __init__(self, asked: Asked, key: int) -> None:
        self._asked = asked
        self._family, self._type = key >> 4, key & 0xF
        self._origins = origins_of(asked, self._family)
        self._rows, self._places = _candidates(asked, self._family, self._type)
        self.options = _cmsg.Options(
            tuple([setting_entry(one.option) for one in self._origins]),
            tuple([watched_entry(*question) for question in self._places]),
        )

    def leave_out(self, refused: tuple[int, OSError]) -> str:
        """The name of an option that the kernel refused and that may be missing; or raises."""
        return leave_out(self._origins[refused[0]], refused[1])

    def configure(self, states: bytes) -> _cmsg.ReceiveConfig:
        """The configuration for these states of the watched options: with a control buffer large
        enough for all that is switched on."""
        family, asked = self._family, self._asked
        if asked.fds < _cmsg.MAX_FDS and asked.fds and family != _socket.AF_UNIX:
            what = f"fds={asked.fds}: receiving descriptors"
            need_family(family, frozenset({_socket.AF_UNIX}), what)
        known = self.kinds(states)
        on = [kind for kind in known if is_on_for(kind, family, known[kind])]
        config = _cmsg.ReceiveConfig(
            fds=asked.fds,
            control_size=control_size_for(family, asked.fds, known),
            want=tuple(dict.fromkeys([*asked.kinds, *on])),
            family=family,
            type=self._type,
            takes_pidfd=PidFd in asked.kinds,
            raise_truncated=asked.raises,
            in_background=asked.in_background,
        )
        configs = self.options.configs
        if len(configs) >= _MOST:
            configs.clear()
        configs[states] = config
        return config

    def _is_on(self, question: _Question, states: bytes) -> int:
        place = self._places[question]
        return states[place // 8] >> place % 8 & 1

    def kinds(self, states: bytes) -> dict[Any, tuple[Option, ...]]:
        """The kinds that the kernel now attaches, whoever asked for them, with their options."""
        found: dict[Any, tuple[Option, ...]] = {}
        for row, options in self._rows:
            on = [option for option, question in options
                  if question is None or self._is_on(question, states)]  # fmt: skip
            if on or row.unsolicited_size:
                found[row.kind] = tuple(on)
        return found


def plan_for(asked: Asked, key: int) -> Plan:
    """For the sockets of a family and type, which are the key: Options.key()."""
    plan: Plan | None = asked.details.get(key)
    if plan is None:
        plan = asked.details[key] = Plan(asked, key)
    # Each time: a signal handler that raised may have kept an earlier call from it.
    asked.plans[key] = plan.options
    return plan


_Noted: TypeAlias = list[tuple[Option, bytes, bytes]]


def switch_on(asked: Asked, sock: FileDescriptorLike, noted: _Noted) -> tuple[str, ...]:
    """Sets the options of what was asked for, each noted before it is set; the names of those that
    were left out."""
    plan = plan_for(asked, _cmsg.Options.key(sock))
    left_out: list[str] = []
    refused = plan.options.set(sock, noted, 0)
    while refused is not None:
        left_out.append(plan.leave_out(refused))
        refused = plan.options.set(sock, noted, refused[0] + 1)
    return tuple(left_out)


def complete(
    asked: Asked, sock: FileDescriptorLike, noted: _Noted, found: Any, start: int = 0
) -> _cmsg.ReceiveConfig:
    """The configuration of a receiver, from what Options.configuration() found: usually it is that.
    Sockets that answer alike share one. With SET_NOTHING for `start` no option is set."""
    while type(found) is not _cmsg.ReceiveConfig:
        plan = plan_for(asked, found if isinstance(found, int) else _cmsg.Options.key(sock))
        if isinstance(found, bytes):
            return plan.configure(found)
        if isinstance(found, tuple):
            place, error = cast("tuple[int, OSError]", found)
            plan.leave_out((place, error))
            start = place + 1
        found = _cmsg.Options.configuration(sock, asked.plans, noted, start)
    return found


SET_NOTHING = 2**31 - 1


# For each row the options that attach its kind, and what has to be asked; None: it is on.
_Candidates: TypeAlias = list[tuple[Row, list[tuple[Option, _Question | None]]]]


def _candidates(asked: Asked, family: int, type: int) -> tuple[_Candidates, dict[_Question, int]]:
    """What can be switched on for the sockets of a family and type, and the place of each question.

    What was asked for counts as on even if the kernel does not report it (SO_INQ), so the kernel is
    not asked about it.
    """
    found: _Candidates = []
    questions: set[_Question] = set()
    for row in rows():
        if row.families and family not in row.families:
            continue
        options: list[tuple[Option, _Question | None]] = []
        for option in row.options:
            if option.families and family not in option.families:
                continue
            if row.kind in asked.kinds and not option.is_watched_only:
                options.append((option, None))
            elif not may_have(family, type, option.level):
                continue
            elif option.control_size or not option.is_watched_only:
                question = (option.level, option.name, sign_of(option))
                options.append((option, question))
                questions.add(question)
        found.append((row, options))
    # In this order one getsockopt(2) does for several kinds that share a word of flags.
    return found, {question: i for i, question in enumerate(sorted(questions, key=_order))}


def _order(question: _Question) -> tuple[int, int, int]:
    level, name, sign = question
    return level, name, len(sign)


_IPV6 = getattr(_cmsg, "SOL_IPV6", None)


def is_on_for(kind: Any, family: int, options: Iterable[Option]) -> bool:
    """Whether these options bring the kind with every packet: an option of IPv4 brings a kind of
    IPv6 only with packets of IPv4-mapped peers."""
    if family != getattr(_socket, "AF_INET6", None) or row_of(kind).level != _IPV6:
        return True
    return _IPV6 in [option.level for option in options]


# The kernel writes these after the descriptors, so surplus descriptors would take their space:
# scm_recv_unix() in net/core/scm.c, unix_stream_read_generic() in net/unix/af_unix.c.
_AFTER_RIGHTS = {
    getattr(_cmsg, name) for name in ("SO_PASSPIDFD", "SO_INQ") if hasattr(_cmsg, name)
}


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
