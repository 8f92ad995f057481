"""What is wrong with an argument, in the same words that C uses for its arguments."""

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
    """For an argument of the wrong type: its name, what is needed in its place, and what it was."""
    found = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    hint = "; encode it: text.encode()" if isinstance(value, str) and "bytes-like" in what else ""
    return TypeError(f"{name}: {what} is needed, not {found}{hint}")


def _has(value: object, *methods: str) -> bool:
    # Not a generator, which a signal handler's exception would leave to be closed by the collector,
    # and which CPython 3.12 and 3.13 do not survive where there is no memory to make it.
    return bool([method for method in methods if hasattr(type(value), method)])


def as_int(name: str, value: Any, minimum: int | None = None) -> int:
    """`value` as an int, of at least `least`. What its __index__() raises is left as it is."""
    if not _has(value, "__index__"):
        raise needed(name, "an int", value)
    number = operator.index(value)
    if minimum is not None and number < minimum:
        limit = "it cannot be negative" if minimum == 0 else f"it is {minimum} or more"
        raise ValueError(f"{name}: {number}; {limit}")
    return number


def as_fds(fds: Any) -> int:
    """How many descriptors may come. A bool is refused, as it is where descriptors are sent."""
    if isinstance(fds, bool):
        raise needed("fds", "the number of descriptors to accept", fds)
    return as_int("fds", fds, minimum=0)


def as_seconds(timeout: Any) -> float | None:
    """`timeout`, checked."""
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
    """The bytes of a payload, copied; not by bytes(), which takes a number for a length."""
    try:
        return memoryview(data).tobytes()
    except TypeError:
        raise needed("data", "a bytes-like object", data) from None


def as_tuple(name: str, what: str, items: Any) -> tuple[Any, ...]:
    """The items of an iterable; `what` it is, in words."""
    if not _has(items, "__iter__", "__getitem__"):
        raise needed(name, what, items)
    return tuple(items)


def as_kinds(control: Any) -> tuple[Any, ...]:
    """What a `control` argument stands for: one control message, or those of an iterable."""
    if isinstance(control, _cmsg.Record):
        return (control,)
    return as_tuple("control", "a control message, or an iterable of them,", control)


def check_word(name: str, value: object, words: Iterable[str]) -> None:
    """ValueError unless it is one of these."""
    *others, last = map(repr, words := tuple(words))
    if value not in words:
        raise ValueError(f"{name}: {value!r}; it is {', '.join(others)} or {last}")


def os_error(number: int, text: str) -> OSError:
    """Of the class that stands for that errno, with what strerror(3) says before the text."""
    return OSError(number, f"{os.strerror(number)}: {text}")
