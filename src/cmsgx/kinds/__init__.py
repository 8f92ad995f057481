"""Every kind of control message, and the table of them.

A kind is a class: what the kernel calls a level and a type, and a layout. `msg[Kind]` finds it in
a message, `want=[Kind]` switches it on, `control=[Kind(...)]` sends it.
"""

from __future__ import annotations

from typing import Any

from .. import _cmsg
from ._base import Buffer, ControlMessage, Option, lookup, register
from ._unix import Credentials, PidFd, Rights, SecurityLabel

__all__ = [
    "ControlMessage",
    "Credentials",
    "Option",
    "PidFd",
    "Rights",
    "SecurityLabel",
    "Unknown",
    "decode",
    "register",
]


class Unknown(ControlMessage):
    """A control message of no registered kind: its level, type and payload, as they came."""

    __slots__ = ("data", "level", "type")

    data: bytes

    def __new__(cls, level: int, type: int, data: Buffer) -> Unknown:
        return super().__new__(cls, level, type, bytes(data))

    def pack(self) -> bytes:
        """The payload."""
        return self.data

    @classmethod
    def unpack(cls, data: Buffer, /) -> Unknown:
        """Not without the level and the type: use Unknown(level, type, data)."""
        raise TypeError("Unknown(level, type, data) has to be told its level and type")


type.__setattr__(
    Unknown,
    "_codec",
    _cmsg.Codec(Unknown, -1, -1, -1, (("level", 0, "O"), ("type", 0, "O"), ("data", 0, "O"))),
)


def decode(level: int, type: int, data: Buffer) -> Any:
    """The typed control message for what recvmsg() gave as (level, type, data).

    Owns no descriptor: Rights and the payload of PidFd hold numbers until their own() is called.
    MalformedControlError where the payload is not of the layout; Unknown for no registered kind.
    """
    kind = lookup(level, type)
    return Unknown(level, type, data) if kind is None else kind.unpack(data)  # type: ignore[attr-defined]


def _kind_of(family: int, level: int, type: int) -> Any:
    return lookup(level, type) or Unknown


_cmsg.register("Unknown", Unknown)
_cmsg.register("decode", _kind_of)

# Where the documentation has them.
for _object in [globals()[name] for name in __all__]:
    if _object.__module__.startswith("cmsgx."):
        _object.__module__ = __name__
