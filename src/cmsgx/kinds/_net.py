"""What kinds of several families have in common."""

from __future__ import annotations

import enum
import os
import socket as _socket
import struct
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

__all__ = ["Ecn"]


class Ecn(enum.IntEnum):
    """Explicit congestion notification, the low two bits of a traffic class: RFC 3168."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


class WithTrafficClass:
    """For what has a `value` that is a traffic class: RFC 2474, RFC 3168."""

    __slots__ = ()

    value: int

    @property
    def dscp(self) -> int:
        """The differentiated services code point, the high six bits."""
        return self.value >> 2

    @property
    def ecn(self) -> Ecn:
        """The low two bits: whether a router on the way was congested."""
        return Ecn(self.value & 3)


class OnInterface:
    """For what has the index of an `interface`: netdevice(7)."""

    __slots__ = ()

    interface: int

    @property
    def interface_name(self) -> str | None:
        """Its name, as it is now; None where there is no such interface any more."""
        try:
            return _socket.if_indextoname(self.interface)
        except (OSError, OverflowError):
            return None


def error_of(number: int) -> OSError:
    """The exception of that errno, whatever number a payload has there."""
    try:
        return OSError(number, os.strerror(number))
    except OverflowError:
        return OSError(number, f"Unknown error {number}")


class ShownAsMade:
    """For what has more in its struct than the constructor takes: `_SHOWN` is what that takes."""

    __slots__ = ()

    _SHOWN: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self._SHOWN]
        return f"{type(self).__name__}({', '.join(shown)})"


def numbers(format: Literal["I", "Q"]) -> Callable[[bytes], tuple[int, ...]]:
    """What makes numbers of the bytes of an array, for convert=. `format` as in `struct`."""

    def convert(raw: bytes) -> tuple[int, ...]:
        whole = len(raw) - len(raw) % struct.calcsize(format)
        return tuple(memoryview(raw)[:whole].cast(format))

    return convert


def packed_numbers(format: str, values: Iterable[int], size: int | None = None) -> bytes:
    """The bytes of an array, with zeros behind up to `size`. ValueError for more than that."""
    values = tuple(values)
    try:
        packed = struct.pack(f"={len(values)}{format}", *values)
    except struct.error as error:
        raise OverflowError(f"{values}: {error}") from None
    if size is None:
        return packed
    if len(packed) > size:
        raise ValueError(f"{values}: at most {size // struct.calcsize(format)}")
    return packed.ljust(size, b"\0")
