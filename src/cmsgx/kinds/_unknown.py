"""Decoding a payload to its kind; Unknown, for what no kind is registered for."""

from __future__ import annotations

from typing import Any

from .._arguments import Buffer, as_bytes
from ._base import ControlMessage, StructMessage
from ._codec import bind
from ._row import need_int
from ._table import lookup


class Unknown(ControlMessage):
    """A control message for which no kind is registered: its level, type and payload."""

    __slots__ = {  # noqa: RUF023 (the order of the constructor)
        "level": "`cmsg_level`: the protocol, SOL_* or IPPROTO_*.",
        "type": "`cmsg_type`: the number at that level.",
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
        """Always raises TypeError: use Unknown(level, type, data)."""
        raise TypeError("Unknown.unpack() lacks the level and type: use Unknown(level, type, data)")


bind(Unknown, (), None)


def decode(level: int, type: int, data: Buffer, family: int = -1) -> Any:
    """The typed control message for a tuple (level, type, data) from recvmsg().

    `family`, AF_* of the socket, distinguishes kinds with the same numbers: level 0 is IP, but also
    Bluetooth HCI, IEEE 802.15.4 and mISDN. Without a family it is IP.

    Owns no descriptor: the result for SCM_RIGHTS or SCM_PIDFD only holds numbers until you call its
    own(). MalformedControlError if the payload does not match the layout. The result is an Unknown
    if no kind is registered.
    """
    kind = lookup(level, type, family)
    if kind is None:
        return Unknown(level, type, data)
    if issubclass(kind, StructMessage):
        return kind._unpack_as(level, type, data)
    return kind.unpack(data)


def kind_of(family: int, level: int, type: int) -> Any:
    """For C: the kind of a control message in a message."""
    return lookup(level, type, family) or Unknown
