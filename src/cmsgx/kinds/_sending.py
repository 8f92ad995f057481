"""What a send with control messages says where it is refused: by this package, or by the kernel."""

from __future__ import annotations

import errno
import socket as _socket
from collections.abc import Callable, Iterable
from typing import Any

from .. import _cmsg
from ..errors import NotSupportedError
from ._base import Form, Row, lookup_sent, row_of, rows, way_of


def family_name(family: int) -> str:
    """AF_* as the headers have it."""
    if family in set(_socket.AddressFamily):
        return _socket.AddressFamily(family).name
    for name in dir(_cmsg):
        if name.startswith("AF_") and getattr(_cmsg, name) == family:
            return name
    return f"AF_* {family}"


def _type_name(type: int) -> str:
    return _socket.SocketKind(type).name if type in set(_socket.SocketKind) else f"SOCK_* {type}"


def _version(family: int) -> str:
    return "IPv4" if family == _socket.AF_INET else "IPv6"


def _sorted_names(numbers: Iterable[int], name: Callable[[int], str]) -> str:
    return " and ".join(map(name, sorted(numbers)))


def _of_both(form: Form) -> str | None:
    """The kind that takes the place of that form where a packet is of IPv4."""
    for row in rows():
        for other in row.forms:
            if other.is_ipv4 and (other.level, other.type) == (form.level, form.type):
                name: str = row.kind.__name__
                return name
    return None


def _sent_forms(row: Row) -> list[Form]:
    return [form for form in row.forms if form.direction != "receive"]


def refusal(kind: Any, family: int, peer: int, type: int) -> NotSupportedError:
    """What is raised for a kind that a socket of that family and type does not send.

    `peer` is AF_INET or AF_INET6, by what the packet is, or -1.
    """
    forms = _sent_forms(row_of(next(base for base in kind.__mro__ if _is_registered(base))))
    ways = [way_of(form) for form in forms]
    name = kind.__name__
    loss = "the kernel would drop it without an error, or refuse it"
    fits = [way for way in ways if not way.over or (peer if way.is_by_peer else family) in way.over]
    remedy = ""
    if fits:
        types = frozenset[int]().union(*[way.by for way in fits])
        text = (
            f"{name} is sent by {_sorted_names(types, _type_name)} sockets; by this one, "
            f"{_type_name(type)}, {loss}"
        )
        if any(way.is_by_peer for way in fits):
            remedy = "; what all of a stream goes with is set by setsockopt(2)"
    elif family in (_socket.AF_INET, _socket.AF_INET6) and any(way.is_by_peer for way in ways):
        over = frozenset[int]().union(*[way.over for way in ways])
        text = (
            f"{name} goes with {_sorted_names(over, _version)} packets; with this one, of "
            f"{_version(peer)}, {loss}"
        )
        other = _of_both(forms[0])
        if other is not None and other != name:
            remedy = f"; {other} goes with both"
    else:
        over = frozenset[int]().union(*[way.over for way in ways])
        text = (
            f"{name} is sent over {_sorted_names(over, family_name)} sockets; over this one, "
            f"{family_name(family)}, {loss}"
        )
    return NotSupportedError(errno.EOPNOTSUPP, f"control: {text}{remedy}")


def _is_registered(kind: Any) -> bool:
    try:
        row_of(kind)
    except (TypeError, NotSupportedError):
        return False
    return True


def note_needs(error: OSError, items: list[tuple[int, int, bytes]], family: int) -> None:
    """Adds a note to the EINVAL or EPERM of a send that says what went, and what each needs."""
    said: list[str] = []
    for level, type, _ in items:
        kind = lookup_sent(level, type, family)
        if kind is None:
            text = f"({level}, {type})"
        else:
            row = row_of(kind)
            text = kind.__name__
            other = _of_both(Form(level, type))
            if other is not None:
                text += f" (or {other}, which goes as that with a packet of IPv4)"
            if row.needs:
                text += f" needs {row.needs}"
        if text not in said:
            said.append(text)
    error.add_note(f"sent with {'; '.join(said)}")


_cmsg.register("refusal", refusal)
_cmsg.register("family_name", family_name)
_cmsg.register("note_needs", note_needs)
