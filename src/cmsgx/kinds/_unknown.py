"""What no kind is registered for; a payload as the kind that it is of."""

from __future__ import annotations

from typing import Any

from .._arguments import Buffer, as_bytes
from ._base import ControlMessage, StructMessage
from ._codec import bind
from ._row import need_int
from ._table import lookup


class Unknown(ControlMessage):
    """A control message of no registered kind: its level, type and payload, as they came."""

    __slots__ = {  # noqa: RUF023 (the order of the constructor)
        "level": "`cmsg_level`: the protocol, SOL_* or IPPROTO_*.",
        "type": "`cmsg_type`: what it is at that level.",
        "data": "The payload, without header and padding.",
    }
    __match_args__ = ("level", "type", "data")

    data: bytes

    def __new__(cls, level: int, type: int, data: Buffer) -> Unknown:
        need_int("level", level)
        need_int("type", type)
        return super().__new__(cls, level, type, as_bytes(data))

    def pack(self) -> bytes:
        """The payload."""
        return self.data

    @classmethod
    def unpack(cls, data: Buffer, /) -> Unknown:
        """Not without the level and the type: use Unknown(level, type, data)."""
        raise TypeError("Unknown(level, type, data) has to be told its level and type")


bind(Unknown, (), None)


def decode(level: int, type: int, data: Buffer, family: int = -1) -> Any:
    """The typed control message for what recvmsg() gave as (level, type, data).

    `family`, AF_* of the socket, tells apart what has the same numbers: level 0 is that of IP, of
    Bluetooth's HCI, of IEEE 802.15.4 and of mISDN. Without it that is IP.

    Owns no descriptor: Rights and the payload of PidFd hold numbers until their own() is called.
    MalformedControlError where the payload is not of the layout; Unknown for no registered kind.
    """
    kind = lookup(level, type, family)
    if kind is None:
        return Unknown(level, type, data)
    if issubclass(kind, StructMessage):
        return kind._unpack_as(level, type, data)
    return kind.unpack(data)


def kind_of(family: int, level: int, type: int) -> Any:
    """The kind of an item of a message, for C."""
    return lookup(level, type, family) or Unknown
