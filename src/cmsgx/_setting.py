"""The options that switch kinds on for the sockets of a family."""

from __future__ import annotations

import errno
from typing import NamedTuple, TypeAlias

from . import _cmsg
from ._asked import Asked, name_of
from .errors import NotSupportedError
from .kinds._row import KindOption, Option
from .kinds._sending import family_name
from .kinds._table import row_of


class Origin(NamedTuple):
    """Why an option is set."""

    asked: KindOption
    option: Option
    is_required: bool


def origins_of(asked: Asked, family: int) -> tuple[Origin, ...]:
    """The options that switch on what was asked for, in the order in which they are set.

    NotSupportedError or TypeError if no option of this family brings one of them.
    """
    for one in asked.options:
        _need_received(one)
    for one in asked.options:
        _need_family_of(one, family)
    origins: list[Origin] = []
    for one in asked.options:
        for step in one.steps:
            origins += _step(one, step, family)
    return tuple(origins)


NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
# The kernel's internal number, which older releases return for SO_ZEROCOPY.
ENOTSUPP: int = getattr(_cmsg, "ENOTSUPP", 0)
# The errors that mean: the option exists, but not with this value.
_REFUSED = (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP)


def not_supported(error: OSError, what: str, option: str, since: str | None) -> NotSupportedError:
    text = f"{what}: this kernel or socket lacks {option}"
    number = error.errno if error.errno in NOT_THERE else errno.EOPNOTSUPP
    return NotSupportedError(number, text + (f" (Linux {since})" if since else ""))


def leave_out(origin: Origin, error: OSError) -> str:
    """The name of an option that the kernel refused, if it may be missing; or raises."""
    asked, option, is_required = origin
    if option.needs and error.errno in _REFUSED:
        error.add_note(f"{name_of(asked)}: {option.needs}")
        raise error
    # EINVAL: the kernel lacks a flag, or this type of socket lacks the option (IP_RECVFRAGSIZE on
    # TCP).
    if error.errno not in (*NOT_THERE, errno.EINVAL, ENOTSUPP):
        raise error
    if is_required:
        raise not_supported(error, name_of(asked), option.text, option.since) from error
    return option.text


# What C is given ----------------------------------------------------------------------------------

_Entry: TypeAlias = tuple[Option | None, int, int, bytes, bytes, bytes, bool]


def setting_entry(option: Option) -> _Entry:
    """For an option that is set, or only noted."""
    on, keep = _values(option)
    return option, option.level, option.name, on, keep, sign_of(option), option.is_permanent


def watched_entry(level: int, name: int, sign: bytes) -> _Entry:
    """For an option that is asked for."""
    return None, level, name, b"", bytes(len(sign)), sign, False


def _step(asked: KindOption, step: tuple[Option, ...], family: int) -> list[Origin]:
    options = [option for option in step if not option.families or family in option.families]
    chosen = [option for option in options if not option.is_watched_only]
    numbers = {(option.level, option.name) for option in chosen}
    # Setting one option can switch off another (SO_TIMESTAMP and SO_TIMESTAMPNS). The other is set
    # again after this one is undone, so it is noted first.
    others = [
        option
        for option in options
        if option.is_watched_only and (option.level, option.name) not in numbers
    ]
    origins = [Origin(asked, option, False) for option in others]
    return origins + [Origin(asked, option, option is chosen[0]) for option in chosen]


def sign_of(option: Option) -> bytes:
    """The bits of its value of which any shows that it is on."""
    if not option.is_mask:
        return b"\xff" * option.size
    return (option.sign or option.on).ljust(option.size, b"\0")[: option.size]


def _values(option: Option) -> tuple[bytes, bytes]:
    """The value to set, empty for an option that is only watched; the bits of the old one that
    stay."""
    if option.is_watched_only:
        return b"", bytes(option.size)
    if not option.is_mask:
        return option.on, bytes(option.size)
    if not option.tail or isinstance(option.value, int):
        return option.on, b"\xff" * option.size
    value = (option.value + option.tail).ljust(option.size, b"\0")[: option.size]
    return value, (b"\xff" * len(option.value)).ljust(option.size, b"\0")[: option.size]


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


def need_family(family: int, families: frozenset[int], what: str) -> None:
    """NotSupportedError if it is none of these."""
    if family not in families:
        names = " and ".join(map(family_name, sorted(families)))
        raise NotSupportedError(
            errno.EOPNOTSUPP,
            f"{what} is for {names} sockets; the family of this one is {family_name(family)}",
        )


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
    what = name_of(asked)
    if options:
        since = f", Linux {options[0].since}" if options[0].since else ""
        what += f" ({options[0].text}{since})"
    need_family(family, frozenset[int]().union(*by_form, *by_option), what)
