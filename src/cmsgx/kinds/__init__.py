"""Every kind of control message, and the table of them.

A kind is a class: what the kernel calls a level and a type, and a layout. `msg[Kind]` finds it in
a message, `want=[Kind]` switches it on, `control=[Kind(...)]` sends it.
"""

from __future__ import annotations

from typing import Any

from .. import _cmsg
from .._arguments import Buffer, as_bytes
from . import (
    _alg,
    _bluetooth,
    _bsd,
    _bsd_senders,
    _can,
    _error,
    _ip,
    _ipv6,
    _link,
    _mixins,
    _netlink,
    _packet,
    _rds,
    _reports,
    _rxrpc,
    _sctp_dccp,
    _socket,
    _time,
    _tipc,
    _udp_tcp,
    _unix,
)
from ._address import IPAddress
from ._alg import *
from ._base import ControlMessage, StructMessage, member
from ._bluetooth import *
from ._bsd import *
from ._bsd_senders import *
from ._can import *
from ._codec import bind
from ._error import *
from ._ip import *
from ._ipv6 import *
from ._link import *
from ._mixins import *
from ._netlink import *
from ._packet import *
from ._rds import *
from ._register import register
from ._reports import *
from ._row import KindOption, Option, WireFormat, need_int
from ._rxrpc import *
from ._sctp_dccp import *
from ._socket import *
from ._table import lookup, not_a_kind
from ._time import *
from ._tipc import *
from ._udp_tcp import *
from ._unix import *

__all__ = [
    "ControlMessage",
    "IPAddress",
    "KindOption",
    "Option",
    "StructMessage",
    "Unknown",
    "WireFormat",
    "decode",
    "member",
    "register",
]
__all__ += _alg.__all__
__all__ += _bluetooth.__all__
__all__ += _bsd.__all__
__all__ += _bsd_senders.__all__
__all__ += _can.__all__
__all__ += _error.__all__
__all__ += _ip.__all__
__all__ += _ipv6.__all__
__all__ += _link.__all__
__all__ += _mixins.__all__
__all__ += _netlink.__all__
__all__ += _packet.__all__
__all__ += _rds.__all__
__all__ += _reports.__all__
__all__ += _rxrpc.__all__
__all__ += _sctp_dccp.__all__
__all__ += _socket.__all__
__all__ += _time.__all__
__all__ += _tipc.__all__
__all__ += _udp_tcp.__all__
__all__ += _unix.__all__


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


def _kind_of(family: int, level: int, type: int) -> Any:
    return lookup(level, type, family) or Unknown


_cmsg.register("Unknown", Unknown)
_cmsg.register("decode", _kind_of)
_cmsg.register("not_a_kind", not_a_kind)

# Where the documentation has them.
for _object in [globals()[name] for name in __all__]:
    if _object.__module__.startswith("cmsgx."):
        _object.__module__ = __name__
