"""RxRPC: Documentation/networking/rxrpc.rst, linux/rxrpc.h"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._base import StructMessage, member
from ._mixins import error_of
from ._register import register
from ._row import families, option

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "RxrpcAbort",
    "RxrpcAck",
    "RxrpcAppData",
    "RxrpcBusy",
    "RxrpcCallId",
    "RxrpcCallTimeouts",
    "RxrpcChallenged",
    "RxrpcChargeAccept",
    "RxrpcExclusiveCall",
    "RxrpcLocalError",
    "RxrpcNetworkError",
    "RxrpcNewCall",
    "RxrpcOobId",
    "RxrpcRespond",
    "RxrpcResponded",
    "RxrpcTxLength",
    "RxrpcUpgradeService",
]

_RXRPC = families("AF_RXRPC")
# It has no payload, but its header needs space in the control buffer.
_HEADER = 1


class _Failed(StructMessage):
    __slots__ = ()

    errno: int

    @property
    def error(self) -> OSError:
        """The exception that a call would raise for `errno`."""
        return error_of(self.errno)


@register(
    level="SOL_RXRPC",
    type="RXRPC_USER_CALL_ID",
    layout="ulong",
    families=_RXRPC,
    unsolicited_size=8,
    since="2.6.22",
    needs="to be there once in each message of a call",
)
class RxrpcCallId(StructMessage):
    """The call that a message belongs to: RXRPC_USER_CALL_ID, rxrpc.rst.

    An unsigned long that the program chooses. Required when sending; received without an option.
    """

    __slots__ = ()

    call: int = member(doc="Number that the program gave the call.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_ABORT",
    layout="u32",
    families=_RXRPC,
    unsolicited_size=4,
    since="2.6.22",
    min_value=1,
    needs="a code that is not 0",
)
class RxrpcAbort(StructMessage):
    """Aborts the call, or (received) says that either side aborted it: RXRPC_ABORT, rxrpc.rst.

    The program chooses `code`, which is unsigned and not 0. Received without an option, as the last
    message of the call.
    """

    __slots__ = ()

    code: int = member(bounds=(0, 2**32 - 1), doc="Abort code of the program, 32 bits; not 0.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_ACK",
    layout="none",
    direction="receive",
    families=_RXRPC,
    unsolicited_size=_HEADER,
    since="2.6.22",
)
class RxrpcAck(StructMessage):
    """The client has received the whole reply: RXRPC_ACK, rxrpc.rst.

    Received by a server, without an option, as the last message of the call.
    """

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_NET_ERROR",
    layout="u32",
    direction="receive",
    families=_RXRPC,
    unsolicited_size=4,
    since="2.6.22",
)
class RxrpcNetworkError(_Failed):
    """The call failed because of a network error: RXRPC_NET_ERROR, rxrpc.rst.

    Received without an option, as the last message of the call.
    """

    __slots__ = ()

    errno: int = member(doc="The errno of the error.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_BUSY",
    layout="none",
    direction="receive",
    families=_RXRPC,
    since="2.6.22",
)
class RxrpcBusy(StructMessage):
    """The server was busy: RXRPC_BUSY. Linux 2.6.22 has the number; current kernels send none."""

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_LOCAL_ERROR",
    layout="u32",
    direction="receive",
    families=_RXRPC,
    unsolicited_size=4,
    since="2.6.22",
)
class RxrpcLocalError(_Failed):
    """The call failed because of a local error: RXRPC_LOCAL_ERROR, rxrpc.rst.

    Received without an option, as the last message of the call.
    """

    __slots__ = ()

    errno: int = member(doc="The errno of the error.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_NEW_CALL",
    layout="none",
    direction="receive",
    families=_RXRPC,
    since="2.6.22",
)
class RxrpcNewCall(StructMessage):
    """A call waits to be accepted: RXRPC_NEW_CALL. Linux 2.6.22; current kernels send none.

    RxrpcChargeAccept replaced it.
    """

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_EXCLUSIVE_CALL",
    layout="none",
    direction="send",
    families=_RXRPC,
    since="4.8",
)
class RxrpcExclusiveCall(StructMessage):
    """The call gets its own connection: RXRPC_EXCLUSIVE_CALL, rxrpc.rst. Linux 4.8."""

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_UPGRADE_SERVICE",
    layout="none",
    direction="send",
    families=_RXRPC,
    since="4.13",
)
class RxrpcUpgradeService(StructMessage):
    """Asks the server for a better service than the one in the address: RXRPC_UPGRADE_SERVICE.

    Linux 4.13. The address of the reply has the service that was chosen. rxrpc.rst
    """

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_TX_LENGTH",
    layout="i64",
    direction="send",
    families=_RXRPC,
    since="4.13",
    needs="the first message of a call",
)
class RxrpcTxLength(StructMessage):
    """The total number of bytes that will be sent: RXRPC_TX_LENGTH, rxrpc.rst. Linux 4.13.

    Send it with the first message of a call; not negative. EINVAL the second time.
    """

    __slots__ = ()

    length: int = member(bounds=(0, 2**63 - 1), doc="Bytes that will be sent in all; not negative.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_SET_CALL_TIMEOUT",
    layout="rxrpc_call_timeouts",
    direction="send",
    families=_RXRPC,
    since="4.15",
)
class RxrpcCallTimeouts(StructMessage):
    """When the kernel gives up a call: RXRPC_SET_CALL_TIMEOUT, rxrpc.rst. Linux 4.15.

    `hard`: after that many seconds in any case. `idle`: after that many milliseconds without a data
    packet. `normal`: after that many milliseconds without any packet of the call; it needs an
    `idle`. None leaves a value unchanged, and so does 0 for `hard`.
    """

    __slots__ = ()

    hard: int = member("hard", doc="Lifetime of the call in seconds; 0 or None: unchanged.")
    idle: int | None = member(
        "idle", default=None, doc="Milliseconds without a data packet; None: unchanged."
    )
    normal: int | None = member(
        "normal", default=None, doc="Milliseconds without any packet of the call; None: unchanged."
    )

    def __new__(cls, hard: int, idle: int | None = None, normal: int | None = None) -> Self:
        if idle is None and normal is not None:
            raise ValueError("RxrpcCallTimeouts: `normal` needs an `idle`")
        return super().__new__(cls, hard, idle, normal)


@register(
    level="SOL_RXRPC",
    type="RXRPC_CHARGE_ACCEPT",
    layout="none",
    direction="send",
    families=_RXRPC,
    since="5.9",
)
class RxrpcChargeAccept(StructMessage):
    """The next incoming call gets the RxrpcCallId sent with this: RXRPC_CHARGE_ACCEPT. Linux 5.9.

    For servers. rxrpc.rst
    """

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_OOB_ID",
    layout="u64",
    families=_RXRPC,
    option=option("SOL_RXRPC", "RXRPC_MANAGE_RESPONSE", 8, "6.16"),
)
class RxrpcOobId(StructMessage):
    """The id of this out-of-band message, or (sent) of the one answered: RXRPC_OOB_ID. Linux 6.16.

    enable() sets RXRPC_MANAGE_RESPONSE, before the socket is bound.
    """

    __slots__ = ()

    id: int = member(doc="Number of the out-of-band message.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_CHALLENGED",
    layout="rxrpc_challenge",
    direction="receive",
    families=_RXRPC,
    option=option("SOL_RXRPC", "RXRPC_MANAGE_RESPONSE", 8, "6.16"),
)
class RxrpcChallenged(StructMessage):
    """The server asks for proof of who calls: RXRPC_CHALLENGED. Linux 6.16.

    It arrives with an RxrpcOobId. `security` is RXRPC_SECURITY_*; for RxGK, `enctype` is the
    Kerberos encryption type. Answer with an RxrpcRespond, or with an RxrpcAbort, and that id.
    """

    __slots__ = ()

    service: int = member("service_id", doc="Id of the service.")
    security: int = member("security_index", doc="Security class, RXRPC_SECURITY_*.")
    enctype: int | None = member(
        "enctype", default=None, doc="Kerberos encryption type; None if `security` is not RxGK."
    )


@register(
    level="SOL_RXRPC",
    type="RXRPC_RESPOND",
    layout="none",
    direction="send",
    families=_RXRPC,
    since="6.16",
)
class RxrpcRespond(StructMessage):
    """Answers an RxrpcChallenged, with its RxrpcOobId: RXRPC_RESPOND. Linux 6.16. With MSG_OOB."""

    __slots__ = ()


@register(
    level="SOL_RXRPC",
    type="RXRPC_RESPONDED",
    layout="bytes",
    direction="receive",
    families=_RXRPC,
    since="6.16",
)
class RxrpcResponded(StructMessage):
    """For a server, what a client's response held: RXRPC_RESPONDED. Linux 6.16 has the number."""

    __slots__ = ()

    data: bytes = member(doc="What the client's response held.")


@register(
    level="SOL_RXRPC",
    type="RXRPC_RESP_RXGK_APPDATA",
    layout="bytes",
    direction="send",
    families=_RXRPC,
    since="6.16",
)
class RxrpcAppData(StructMessage):
    """Application data for the response, after RxrpcRespond: RXRPC_RESP_RXGK_APPDATA.

    For RxGK. Linux 6.16.
    """

    __slots__ = ()

    data: bytes = member(doc="Application data of the response.")
