"""Every kind of control message, and the table of them.

A kind is a class for one level and type of the kernel, with the layout of the payload. `msg[Kind]`
finds it in a message, `want=[Kind]` switches it on, `control=[Kind(...)]` sends it.
"""

from __future__ import annotations

from .._names import Dir, publish
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
from ._base import ControlMessage, Kind, StructMessage, member
from ._bluetooth import *
from ._bsd import *
from ._bsd_senders import *
from ._can import *
from ._error import *
from ._ip import *
from ._ipv6 import *
from ._link import *
from ._mixins import *
from ._netlink import *
from ._packet import *
from ._pidfd import UnownedPidFd
from ._rds import *
from ._register import register
from ._reports import *
from ._row import KindOption, Option, WireFormat
from ._rxrpc import *
from ._sctp_dccp import *
from ._socket import *
from ._time import *
from ._tipc import *
from ._udp_tcp import *
from ._unix import *
from ._unknown import Unknown, decode

__all__ = [
    "ControlMessage",
    "IPAddress",
    "Kind",
    "KindOption",
    "Option",
    "StructMessage",
    "Unknown",
    "UnownedPidFd",
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

__dir__: Dir = publish(globals(), "cmsgx.")
