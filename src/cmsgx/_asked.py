"""What enable() and the receivers are asked for: kinds, and how many descriptors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import _cmsg
from ._arguments import as_fds, as_tuple, check_word, needed
from .kinds import _table
from .kinds._base import ControlMessage
from .kinds._pidfd import PidFd
from .kinds._row import KindOption
from .kinds._table import row_of

# No generator expressions here, nor in other code that calls use: CPython 3.12 and 3.13 crash if
# there is no memory for one.

# How many different requests are remembered. A program has a few.
_MOST = 128


class Asked:
    """What enable() or a receiver was asked for. It never changes, and is shared."""

    __slots__ = (
        "details", "fds", "in_background", "kinds", "options", "plans", "raises", "version",
    )  # fmt: skip

    def __init__(
        self, options: tuple[KindOption, ...], fds: int, raises: bool, in_background: bool
    ) -> None:
        self.version: dict[Any, Any] = _table.derived
        """Of the table of kinds: what the plans are made from."""
        self.options: tuple[KindOption, ...] = options
        """Each once; those with a value come last, so that their values prevail."""
        self.kinds: tuple[Any, ...] = tuple(dict.fromkeys([one.kind for one in options]))
        """The classes, each once."""
        self.fds: int = fds
        self.raises: bool = raises
        """Whether a receive raises if data or descriptors are missing."""
        self.in_background: bool = in_background
        """Whether the descriptors are closed in the background."""
        # For each family and type of socket so far what this means there, for C and in full: see
        # _plan.py. No lock: whoever comes second makes an equal one.
        self.plans: dict[int, _cmsg.Options] = {}
        self.details: dict[int, Any] = {}

    def renewed(self) -> Asked:
        """The same for the table of kinds that there is now."""
        if self.version is _table.derived:
            return self
        return Asked(self.options, self.fds, self.raises, self.in_background)


def ask(
    want: Any, argument: str, fds: Any = 0, on_truncation: Any = "raise", close: Any = "now"
) -> Asked:
    """Checks the arguments of a receiver, or of enable(): `want` is one kind or several, from the
    caller's `argument`.

    What it returns is kept for the next call with the same arguments, and for the receivers in C,
    which look there themselves: see _open().
    """
    derived = _table.derived
    several = tuple(want) if type(want) in (list, tuple) else _several(want, argument)
    fds = as_fds(fds)
    key = (fds, on_truncation, close, *several)
    try:
        # An object of another class can equal a kind, and has to be refused.
        if key in derived and not [one for one in several if not _can_be_kind(one)]:
            known: Asked = derived[key][0]
            return known
    except (KeyError, TypeError):  # another thread has emptied it; one of them has no hash
        pass
    made = _make(several, argument, fds, on_truncation, close)
    if len(derived) >= _MOST:
        derived.clear()
    derived[key] = (made, made.plans, key)
    return made


def _can_be_kind(one: object) -> bool:
    return issubclass(type(one), (type, KindOption))


def _several(want: Any, argument: str) -> tuple[Any, ...]:
    if isinstance(want, (type, KindOption, ControlMessage, PidFd, str, bytes)):
        return (want,)
    return as_tuple(argument, "a kind of control message, or an iterable of them,", want)


def _make(kinds: tuple[Any, ...], argument: str, fds: int, on_truncation: Any, close: Any) -> Asked:
    check_word("on_truncation", on_truncation, ("raise", "keep"))
    check_word("close", close, ("now", "background"))
    given = [as_option(kind, argument) for kind in kinds]
    chosen = [*dict.fromkeys([one for one in given if one.arguments])]
    if len(chosen) > 1:
        _check_agreement(chosen, argument)
    plain = {one.kind: one for one in given if not one.arguments}
    options = (*plain.values(), *chosen)
    return Asked(options, fds, on_truncation == "raise", close == "background")


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


def name_of(asked: KindOption) -> str:
    return repr(asked) if asked.arguments else asked.kind.__name__
