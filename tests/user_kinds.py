"""User-defined kinds, registered for the tests."""

from __future__ import annotations

import socket
import struct
from typing import Any

from cmsgx import kinds

SOL_SOCKET = 1
SO_TIMESTAMPNS = 35
IP_TTL, IP_RECVTTL = 2, 12
WORD = struct.calcsize("@l")  # the kernel's old struct timespec


# Kinds of a user ----------------------------------------------------------------------------------


class Stamp(kinds.StructMessage):
    """SCM_TIMESTAMPNS with a layout of C fields."""

    __slots__ = ()
    nanoseconds: int
    seconds: int


class TimeToLive(kinds.ControlMessage):
    """IP_TTL, as a kind that packs itself."""

    __slots__ = ("hops",)
    hops: int

    def pack(self) -> bytes:
        return struct.pack("=i", self.hops)

    @classmethod
    def unpack(cls, data: Any, /) -> TimeToLive:
        return cls(*struct.unpack("=i", data))


class Every(kinds.StructMessage):
    """One field of each format."""

    __slots__ = ()


FORMATS = {
    "b": ("b", 0),
    "u1": ("B", 1),
    "h": ("h", 2),
    "u2": ("H", 4),
    "i": ("i", 8),
    "u4": ("I", 12),
    "q": ("q", 16),
    "u8": ("Q", 24),
    "p": ("P", 32),
}

ZERO = dict.fromkeys(FORMATS, 0)


def register_all() -> None:
    kinds.register(
        Stamp,
        level=SOL_SOCKET,
        type=SO_TIMESTAMPNS,
        layout=tuple(
            (name, at, {4: "i", 8: "q"}[WORD])
            for name, at in (("seconds", 0), ("nanoseconds", WORD))
        ),
        size=2 * WORD,
        direction="receive",
        families=frozenset({socket.AF_UNIX, socket.AF_INET}),
        option=kinds.Option(SOL_SOCKET, SO_TIMESTAMPNS, "SO_TIMESTAMPNS", 2 * WORD),
    )
    kinds.register(
        TimeToLive,
        level=socket.IPPROTO_IP,
        type=IP_TTL,
        families=frozenset({socket.AF_INET}),
        option=kinds.Option(socket.IPPROTO_IP, IP_RECVTTL, "IP_RECVTTL", 4),
    )
    kinds.register(
        Every,
        level=SOL_SOCKET,
        type=0x7E00,
        layout=tuple((name, offset, code) for name, (code, offset) in FORMATS.items()),
        size=36,
    )


def fresh(**body: Any) -> Any:
    return type("Fresh", (kinds.StructMessage,), {"__slots__": (), **body})
