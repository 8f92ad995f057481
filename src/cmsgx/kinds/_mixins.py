"""Properties that kinds of several families share."""

from __future__ import annotations

import enum
import os
import socket as _socket
import struct
from collections.abc import Callable, Iterable
from typing import ClassVar, Literal

__all__ = ["Ecn"]

# The prefix of an IPv4-mapped IPv6 address: RFC 4291 section 2.5.5.2.
_MAPPED = bytes(10) + b"\xff\xff"


class Ecn(enum.IntEnum):
    """Explicit congestion notification, the low two bits of a traffic class: RFC 3168."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


class WithTrafficClass:
    """For kinds whose `value` is a traffic class: RFC 2474, RFC 3168."""

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
    """For kinds that have the index of an `interface`: netdevice(7)."""

    __slots__ = ()

    interface: int

    @property
    def interface_name(self) -> str | None:
        """Its current name; None if the interface no longer exists."""
        try:
            return _socket.if_indextoname(self.interface)
        except (OSError, OverflowError):
            return None


def source_of_answer(asked: bytes) -> tuple[bool, bool]:
    """Whether an answer can have this source address, 4 or 16 bytes, to which a packet was sent;
    and whether the answer has to leave by the interface on which the packet arrived.

    A multicast group or 255.255.255.255 cannot be a source. A link-local address, of a group
    (RFC 4291, RFC 5771) or of a host (RFC 3927), can exist on every interface, and the routing
    table does not say which one is meant. The broadcast address of a subnet looks like a host's.
    """
    if len(asked) == 16 and not asked.startswith(_MAPPED):
        is_group = asked[0] == 0xFF
        is_of_link = (
            asked[1] & 0xF <= 2 if is_group else (asked[0], asked[1] & 0xC0) == (0xFE, 0x80)
        )
        return not is_group, is_of_link
    asked = asked[-4:]
    is_to_all = asked == b"\xff\xff\xff\xff"
    is_group = is_to_all or asked[0] & 0xF0 == 0xE0
    return not is_group, is_to_all or asked.startswith((b"\xa9\xfe", b"\xe0\0\0"))


def error_of(number: int) -> OSError:
    """The exception for that errno, which can be any number because it comes from a payload."""
    try:
        return OSError(number, os.strerror(number))
    except OverflowError:
        return OSError(number, f"Unknown error {number}")


class ShownAsMade:
    """For kinds whose struct has more members than the constructor takes: `_SHOWN` lists those."""

    __slots__ = ()

    _SHOWN: ClassVar[tuple[str, ...]]

    def __repr__(self) -> str:
        shown = [f"{name}={getattr(self, name)!r}" for name in self._SHOWN]
        return f"{type(self).__name__}({', '.join(shown)})"


def numbers(format: Literal["I", "Q"]) -> Callable[[bytes], tuple[int, ...]]:
    """A function for convert= that reads the bytes of an array as numbers; `format` of `struct`."""

    def convert(raw: bytes) -> tuple[int, ...]:
        whole = len(raw) - len(raw) % struct.calcsize(format)
        return tuple(memoryview(raw)[:whole].cast(format))

    return convert


def packed_numbers(format: str, values: Iterable[int], size: int | None = None) -> bytes:
    """The bytes of an array, padded with zeros to `size`. ValueError if it is longer."""
    values = tuple(values)
    try:
        packed = struct.pack(f"={len(values)}{format}", *values)
    except struct.error as error:
        raise OverflowError(f"{values}: {error}") from None
    if size is None:
        return packed
    if len(packed) > size:
        raise ValueError(f"{values}: at most {size // struct.calcsize(format)} are allowed")
    return packed.ljust(size, b"\0")
