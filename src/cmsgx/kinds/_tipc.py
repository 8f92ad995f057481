"""TIPC: tipc(7)."""

from __future__ import annotations

from ._base import StructMessage, member
from ._register import register
from ._row import OpenEnum, constant, families, option

__all__ = ["TipcDestination", "TipcError", "TipcReturned", "TipcReturnedData"]

_TIPC = families("AF_TIPC")


class TipcError(OpenEnum):
    """Why a message came back: TIPC_ERR_*, linux/tipc.h"""

    OK = constant("TIPC_OK")
    NO_NAME = constant("TIPC_ERR_NO_NAME")
    """Nothing is bound to the service address."""
    NO_PORT = constant("TIPC_ERR_NO_PORT")
    """There is no such socket."""
    NO_NODE = constant("TIPC_ERR_NO_NODE")
    """The node cannot be reached."""
    OVERLOAD = constant("TIPC_ERR_OVERLOAD")
    """The receiver's queue is full."""
    CONN_SHUTDOWN = constant("TIPC_CONN_SHUTDOWN")
    """The peer has shut the connection down."""


@register(
    level="SOL_TIPC",
    type="TIPC_ERRINFO",
    layout="tipc_errinfo",
    direction="receive",
    families=_TIPC,
    option=option("SOL_TIPC", "TIPC_DEST_DROPPABLE", 0, value=0),
    unsolicited_size=8,
    since="2.6.18",
)
class TipcReturned(StructMessage):
    """Why a sent message was returned: TIPC_ERRINFO, tipc(7).

    `length` is the length of its data in bytes; TipcReturnedData has the data. Attached without an
    option, to a message without data. On a SOCK_DGRAM socket nothing is returned unless enable()
    has cleared TIPC_DEST_DROPPABLE.
    """

    __slots__ = ()

    error: TipcError = member(
        "errcode", convert=TipcError, doc="Why the message came back, TIPC_ERR_*."
    )
    length: int = member("datalen", default=0, doc="Length of the returned data in bytes.")


@register(
    level="SOL_TIPC",
    type="TIPC_RETDATA",
    layout="bytes",
    direction="receive",
    families=_TIPC,
    # MAX_FORWARD_SIZE of net/tipc/msg.c.
    unsolicited_size=1024,
    since="2.6.18",
)
class TipcReturnedData(StructMessage):
    """The data of a returned message, with TipcReturned: TIPC_RETDATA, tipc(7).

    At most its first 1024 bytes.
    """

    __slots__ = ()

    data: bytes = member(doc="The returned data, at most 1024 bytes.")


@register(
    level="SOL_TIPC",
    type="TIPC_DESTNAME",
    layout="tipc_destname",
    direction="receive",
    families=_TIPC,
    unsolicited_size=12,
    since="2.6.18",
)
class TipcDestination(StructMessage):
    """The service address that a message was sent to: TIPC_DESTNAME, tipc(7).

    `service` is the type of the service, `lower` and `upper` the range of its instances: equal
    except for a multicast. Attached without an option; absent for a message to a socket address.
    """

    __slots__ = ()

    service: int = member("type", doc="Type of the service.")
    lower: int = member("lower", doc="First instance of the range.")
    upper: int = member(
        "upper", doc="Last instance of the range; equal to `lower` unless multicast."
    )
