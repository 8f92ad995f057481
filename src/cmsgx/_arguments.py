"""Checks of arguments, with the wording of errors that C uses for its own arguments."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from . import _cmsg

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

Buffer: TypeAlias = "ReadableBuffer"
"""A bytes-like object."""


def needed(name: str, what: str, value: object) -> TypeError:
    """The TypeError for an argument: its name, what is needed, and what was given."""
    found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    hint = "; encode it: text.encode()" if isinstance(value, str) and "bytes-like" in what else ""
    return TypeError(f"{name}: {what} is needed, not {found}{hint}")


def _has(value: object, *methods: str) -> bool:
    # A list, not a generator: an exception from a signal handler would leave that for the garbage
    # collector to close, and CPython 3.12 and 3.13 crash if there is no memory to make it.
    return bool([method for method in methods if hasattr(type(value), method)])


def as_int(name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int of at least `minimum`. An exception of its __index__() passes through."""
    if type(value) is int:
        number = value
    elif _has(value, "__index__"):
        number = operator.index(value)
    else:
        raise needed(name, "an int", value)
    if minimum is not None and number < minimum:
        limit = "it cannot be negative" if minimum == 0 else f"must be {minimum} or more"
        raise ValueError(f"{name}: {number}; {limit}")
    return number


def as_fds(fds: Any, name: str = "fds") -> int:
    """The maximum number of descriptors. A bool is refused, as it is when descriptors are sent."""
    if isinstance(fds, bool):
        raise needed(name, "the number of descriptors to accept", fds)
    return as_int(name, fds, minimum=0)


def as_seconds(timeout: Any) -> float | None:
    """`timeout` as a float of seconds, or None for no limit."""
    if timeout is None or (type(timeout) is float and timeout >= 0):
        return timeout
    if not _has(timeout, "__float__", "__index__"):
        raise needed("timeout", "a number of seconds, or None,", timeout)
    seconds = float(timeout)
    if not seconds >= 0:
        raise ValueError(f"timeout: {timeout!r}; seconds that are not negative, or None")
    return seconds


def as_view(name: str, data: Any) -> memoryview:
    """The bytes of a buffer, in place."""
    try:
        return memoryview(data).cast("B")
    except TypeError:
        try:
            memoryview(data)
        except TypeError:
            raise needed(name, "a bytes-like object", data) from None
        raise TypeError(f"{name}: its bytes are not contiguous; copy them: bytes(...)") from None


def as_bytes(data: Any) -> bytes:
    """A copy of the bytes of a payload. Not bytes(data), which takes an int as a length."""
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise needed("data", "a bytes-like object", data) from None


def as_tuple(name: str, what: str, items: Any) -> tuple[Any, ...]:
    """The items of an iterable; `what` describes it in errors."""
    if items.__class__ is not tuple and not _has(items, "__iter__", "__getitem__"):
        raise needed(name, what, items)
    return tuple(items)


def as_kinds(control: Any) -> tuple[Any, ...]:
    """The control messages of a `control` argument: a single one, or an iterable of them."""
    if isinstance(control, _cmsg.Record):
        return (control,)
    return as_tuple("control", "a control message, or an iterable of them,", control)


def check_word(name: str, value: object, words: Iterable[str]) -> None:
    """ValueError unless `value` is one of `words`."""
    *others, last = map(repr, words := tuple(words))
    if value not in words:
        raise ValueError(f"{name}: {value!r}; must be {', '.join(others)} or {last}")


def os_error(number: int, text: str) -> OSError:
    """The OSError subclass of that errno; its message is strerror(3), then the text."""
    return OSError(number, f"{os.strerror(number)}: {text}")
