"""The table of kinds: the kind for each level and type, and what was declared about each kind."""

from __future__ import annotations

import errno
import socket as _socket
from collections.abc import Iterable
from typing import Any, TypeAlias

from ..errors import NotSupportedError
from ._row import KindOption, Row, WireFormat

# (level, type): the kinds that it may be, and the families that distinguish them.
_Table: TypeAlias = dict[tuple[int, int], list[tuple[frozenset[int], Any]]]
_received: _Table = {}
_sent: _Table = {}
_rows: dict[Any, Row] = {}
# The kinds that this system does not support.
_unsupported: set[Any] = set()
# What others have derived from the table. It is another dict whenever the table has changed, so
# what it holds is never outdated, and it tells the versions apart.
derived: dict[Any, Any] = {}


def is_registered(kind: Any) -> bool:
    return kind in _rows


def check_free(received: Iterable[WireFormat], sent: Iterable[WireFormat]) -> None:
    """ValueError if another kind already has one of these."""
    for table, formats in ((_received, received), (_sent, sent)):
        for wire in formats:
            _check_free(table, wire)


def _check_free(table: _Table, wire: WireFormat) -> None:
    found = [
        other.__name__
        for others, other in table.get((wire.level, wire.type), ())
        if not others or not wire.families or others & wire.families
    ]
    if found:
        raise ValueError(f"({wire.level}, {wire.type}) is already {', '.join(found)}")


def add(row: Row, received: Iterable[WireFormat], sent: Iterable[WireFormat]) -> None:
    """Adds a kind, by the wire formats that are its own."""
    _rows[row.kind] = row
    for table, formats in ((_received, received), (_sent, sent)):
        for wire in formats:
            table.setdefault((wire.level, wire.type), []).append((wire.families, row.kind))
    changed()


def changed() -> None:
    global derived
    derived = {}


def add_unsupported(kind: Any) -> None:
    """Notes a kind that this system does not support."""
    _unsupported.add(kind)


def row_of(kind: Any) -> Row:
    """NotSupportedError for a kind that this system lacks, TypeError for what is not a kind."""
    try:
        return _rows[kind]
    except (KeyError, TypeError):
        if isinstance(kind, type) and kind in _unsupported:
            raise NotSupportedError(
                errno.ENOPROTOOPT, f"{kind.__name__}: not supported on this system"
            ) from None
        raise TypeError(not_a_kind(kind)) from None


def not_a_kind(kind: Any) -> str:
    """The error text for what is not a kind; if possible, it names what to use instead."""
    if isinstance(kind, KindOption):
        return f"{kind!r} is for want= and enable(): give the class here, {kind.kind.__name__}"
    # A report of the error queue.
    asked = getattr(kind, "_ASKED_BY", "") if isinstance(kind, type) else ""
    if asked:
        return (
            f"{kind.__name__} is not a kind of control message: receive_errors() yields it, and "
            f"enable(sock, {asked}) asks for it"
        )
    return f"{kind!r} is not a kind of control message"


def rows() -> tuple[Row, ...]:
    """The whole table."""
    return tuple(_rows.values())


def lookup(level: int, type: int, family: int = -1) -> Any:
    """The kind for (level, type) on a socket of that family, or None.

    Without a family, the kind of IP, or else the first that was registered. Kinds that are received
    come before kinds that are sent.
    """
    kind = _look_up(_received, level, type, family)
    return lookup_sent(level, type, family) if kind is None else kind


def lookup_sent(level: int, type: int, family: int = -1) -> Any:
    """The same, but only for kinds that are sent."""
    return _look_up(_sent, level, type, family)


def _look_up(table: _Table, level: int, type: int, family: int) -> Any:
    found = table.get((level, type), ())
    if family < 0 and len(found) > 1:
        found = sorted(found, key=lambda entry: _socket.AF_INET not in entry[0])
    for some, kind in found:
        if family < 0 or not some or family in some:
            return kind
    return None
