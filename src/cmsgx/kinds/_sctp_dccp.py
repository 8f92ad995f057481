"""SCTP and DCCP: RFC 6458, sctp(7)."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from .. import _cmsg
from ._base import StructMessage, member
from ._register import register
from ._row import OpenEnum, constant, families, option

if TYPE_CHECKING:
    from ._address import IPMember

__all__ = [
    "DccpPriority",
    "SctpAuthInfo",
    "SctpDestination4",
    "SctpDestination6",
    "SctpFlags",
    "SctpInit",
    "SctpNextInfo",
    "SctpPartialReliability",
    "SctpPolicy",
    "SctpReceiveInfo",
    "SctpSendInfo",
    "SctpSendReceiveInfo",
]

_IP = families("AF_INET", "AF_INET6")
# struct sctp_event_subscribe has one byte per event, sctp_data_io_event first. Linux accepts and
# returns as many as fit, FreeBSD only all of them.
EVENTS = option(
    "SOL_SCTP",
    "SCTP_EVENTS",
    128,
    "2.4.23",
    value=b"\1",
    is_mask=True,
    size=_cmsg.LAYOUTS.get("sctp_event_subscribe", (1,))[0],
)


class SctpFlags(enum.IntFlag, boundary=enum.KEEP):
    """How an SCTP message is sent, or was received: RFC 6458 section 5.3.2. linux/sctp.h

    On Linux the flags of SctpSendReceiveInfo and SctpSendInfo also contain a SctpPolicy.
    """

    UNORDERED = constant("SCTP_UNORDERED")
    """Not in the order of its stream."""
    ADDR_OVER = constant("SCTP_ADDR_OVER")
    """To the address of this call, not the primary one."""
    ABORT = constant("SCTP_ABORT")
    """Ends the association at once."""
    SACK_IMMEDIATELY = constant("SCTP_SACK_IMMEDIATELY")
    """Asks the peer to acknowledge it without delay."""
    SENDALL = constant("SCTP_SENDALL")
    """To each association of the socket."""
    PR_SCTP_ALL = constant("SCTP_PR_SCTP_ALL")
    """The policy holds for the association."""
    EOF = constant("SCTP_EOF")
    """Ends the association when all is sent."""
    NOTIFICATION = constant("SCTP_NOTIFICATION")
    """It is an event, not a message from the peer."""


class SctpPolicy(OpenEnum):
    """When an SCTP message is abandoned: RFC 7496. linux/sctp.h"""

    NONE = constant("SCTP_PR_SCTP_NONE")
    """Never."""
    TTL = constant("SCTP_PR_SCTP_TTL")
    """After that many milliseconds."""
    RTX = constant("SCTP_PR_SCTP_RTX")
    """After that many retransmissions."""
    PRIO = constant("SCTP_PR_SCTP_PRIO")
    """If there is no space for one with a higher priority (a lower number)."""


@register(
    level="SOL_SCTP",
    type="SCTP_INIT",
    layout="sctp_initmsg",
    direction="send",
    families=_IP,
    since="2.4.23",
    needs="a one-to-many socket, and a send that makes the association",
)
class SctpInit(StructMessage):
    """How the association that this send makes starts, struct sctp_initmsg: RFC 6458 section 5.3.1.

    `streams` outbound streams, at most `max_streams` inbound ones; the INIT is sent up to
    `max_attempts` times, at most `max_timeout` milliseconds apart. 0 means the socket's default.
    For one-to-many sockets.
    """

    __slots__ = ()

    streams: int = member(
        "sinit_num_ostreams", default=0, doc="Number of outbound streams; 0: the socket's default."
    )
    max_streams: int = member(
        "sinit_max_instreams",
        default=0,
        doc="Largest number of inbound streams; 0: the socket's default.",
    )
    max_attempts: int = member(
        "sinit_max_attempts",
        default=0,
        doc="How often INIT is sent at most; 0: the socket's default.",
    )
    max_timeout: int = member(
        "sinit_max_init_timeo",
        default=0,
        doc="Longest time between two INITs in ms; 0: the socket's default.",
    )


@register(
    level="SOL_SCTP",
    type="SCTP_SNDRCV",
    layout="sctp_sndrcvinfo",
    families=_IP,
    option=EVENTS,
    needs="a stream and an association that are there, flags of SctpFlags, and no SctpSendInfo "
    "beside it",
)
class SctpSendReceiveInfo(StructMessage):
    """How a message is sent, or was received, struct sctp_sndrcvinfo: RFC 6458 section 5.3.2.

    The RFC prefers SctpSendInfo and SctpReceiveInfo. To send: only `stream`, `flags`, `ppid`,
    `context`, `lifetime` (in milliseconds, 0 for ever) and `association` matter. Received: `ssn` is
    its number in the stream, `tsn` its transmission sequence number, `cumulative_tsn` the last one
    that arrived in order. `ppid` is opaque: its bytes are sent as they lie in memory, so a number
    that IANA has assigned, which is sent in network order, is socket.htonl(number). enable() sets
    sctp_data_io_event of SCTP_EVENTS.
    """

    __slots__ = ()

    stream: int = member("sinfo_stream", default=0, doc="Number of the stream.")
    ssn: int = member("sinfo_ssn", default=0, doc="Number of the message in its stream.")
    flags: SctpFlags = member(
        "sinfo_flags", default=0, convert=SctpFlags, doc="Flags of the message, SCTP_*."
    )
    ppid: int = member(
        "sinfo_ppid", default=0, doc="Payload protocol id, its bytes as they lie in memory."
    )
    context: int = member(
        "sinfo_context",
        default=0,
        doc="Number that the program gave; it comes back if a send fails.",
    )
    lifetime: int = member(
        "sinfo_timetolive",
        default=0,
        doc="Milliseconds after which the message is given up; 0: never. Sent only.",
    )
    tsn: int = member("sinfo_tsn", default=0, doc="Transmission sequence number of the message.")
    cumulative_tsn: int = member(
        "sinfo_cumtsn",
        default=0,
        doc="The last transmission sequence number that arrived in order.",
    )
    association: int = member(
        "sinfo_assoc_id", default=0, doc="Id of the association; of one-to-many sockets."
    )


@register(
    level="SOL_SCTP",
    type="SCTP_SNDINFO",
    layout="sctp_sndinfo",
    direction="send",
    families=_IP,
    since="3.17",
    needs="a stream and an association that are there, flags of SctpFlags, and no "
    "SctpSendReceiveInfo beside it",
)
class SctpSendInfo(StructMessage):
    """How this message is sent, struct sctp_sndinfo: RFC 6458 section 5.3.4. Linux 3.17.

    `ppid` is opaque: its bytes are sent as they lie in memory, so a number that IANA has assigned,
    which is sent in network order, is socket.htonl(number). `context` comes back if the send fails;
    `association` is for one-to-many sockets.
    """

    __slots__ = ()

    stream: int = member("snd_sid", default=0, doc="Number of the stream.")
    flags: SctpFlags = member(
        "snd_flags", default=0, convert=SctpFlags, doc="Flags of the message, SCTP_*."
    )
    ppid: int = member(
        "snd_ppid", default=0, doc="Payload protocol id, its bytes as they lie in memory."
    )
    context: int = member(
        "snd_context", default=0, doc="Number that the program gave; it comes back if a send fails."
    )
    association: int = member(
        "snd_assoc_id", default=0, doc="Id of the association; of one-to-many sockets."
    )


@register(
    level="SOL_SCTP",
    type="SCTP_RCVINFO",
    layout="sctp_rcvinfo",
    direction="receive",
    families=_IP,
    option=option("SOL_SCTP", "SCTP_RECVRCVINFO", 28, "3.17"),
)
class SctpReceiveInfo(StructMessage):
    """How this message was received, struct sctp_rcvinfo: RFC 6458 section 5.3.5. Linux 3.17.

    `ssn` is its number in the stream, `tsn` its transmission sequence number, `cumulative_tsn` the
    last one that arrived in order. `ppid` has the bytes that the peer sent: socket.ntohl(ppid) is a
    number that IANA has assigned, which is sent in network order.
    """

    __slots__ = ()

    stream: int = member("rcv_sid", doc="Number of the stream.")
    ssn: int = member("rcv_ssn", default=0, doc="Number of the message in its stream.")
    flags: SctpFlags = member(
        "rcv_flags", default=0, convert=SctpFlags, doc="Flags of the message, SCTP_*."
    )
    ppid: int = member(
        "rcv_ppid", default=0, doc="Payload protocol id, its bytes as they lie in memory."
    )
    tsn: int = member("rcv_tsn", default=0, doc="Transmission sequence number of the message.")
    cumulative_tsn: int = member(
        "rcv_cumtsn", default=0, doc="The last transmission sequence number that arrived in order."
    )
    context: int = member(
        "rcv_context",
        default=0,
        doc="Number that the program set for the association, SCTP_CONTEXT.",
    )
    association: int = member(
        "rcv_assoc_id", default=0, doc="Id of the association; of one-to-many sockets."
    )


@register(
    level="SOL_SCTP",
    type="SCTP_NXTINFO",
    layout="sctp_nxtinfo",
    direction="receive",
    families=_IP,
    option=option("SOL_SCTP", "SCTP_RECVNXTINFO", 16, "3.17"),
)
class SctpNextInfo(StructMessage):
    """Facts about the next message, struct sctp_nxtinfo: RFC 6458 section 5.3.6. Linux 3.17.

    `length` is the number of bytes of it that have arrived. Absent if no message is waiting. `ppid`
    is as in SctpReceiveInfo.
    """

    __slots__ = ()

    stream: int = member("nxt_sid", doc="Number of the stream.")
    flags: SctpFlags = member(
        "nxt_flags", default=0, convert=SctpFlags, doc="Flags of the message, SCTP_*."
    )
    ppid: int = member(
        "nxt_ppid", default=0, doc="Payload protocol id, its bytes as they lie in memory."
    )
    length: int = member("nxt_length", default=0, doc="Bytes of the message that have arrived.")
    association: int = member(
        "nxt_assoc_id", default=0, doc="Id of the association; of one-to-many sockets."
    )


@register(
    level="SOL_SCTP",
    type="SCTP_PRINFO",
    layout="sctp_prinfo",
    direction="send",
    families=_IP,
    since="4.17",
    needs="one of SctpPolicy",
)
class SctpPartialReliability(StructMessage):
    """When this message is abandoned, struct sctp_prinfo: RFC 6458 section 5.3.7. Linux 4.17.

    The meaning of `value` depends on the policy.
    """

    __slots__ = ()

    policy: SctpPolicy = member(
        "pr_policy", convert=SctpPolicy, doc="SCTP_PR_SCTP_*: when the message is given up."
    )
    value: int = member(
        "pr_value",
        default=0,
        doc="What the policy counts: for TTL milliseconds, for RTX retransmissions.",
    )


@register(
    level="SOL_SCTP",
    type="SCTP_AUTHINFO",
    layout="sctp_authinfo",
    direction="send",
    families=_IP,
    since="4.17",
    needs="the number of a key that the association has",
)
class SctpAuthInfo(StructMessage):
    """The number of the shared key that authenticates this message: RFC 6458 section 5.3.8.

    Linux 4.17.
    """

    __slots__ = ()

    key: int = member("auth_keynumber", doc="Number of the shared key, 0 to 65535.")


@register(
    level="SOL_SCTP",
    type="SCTP_DSTADDRV4",
    layout="in_addr",
    direction="send",
    families=_IP,
    since="4.17",
)
class SctpDestination4(StructMessage):
    """One more IPv4 address of the peer, for the association that this send makes: RFC 6458.

    Section 5.3.9; several may be given. Linux 4.17.
    """

    __slots__ = ()

    address: IPMember = member(doc="IPv4 address of the peer.")


@register(
    level="SOL_SCTP",
    type="SCTP_DSTADDRV6",
    layout="in6_addr",
    direction="send",
    families=_IP,
    since="4.17",
)
class SctpDestination6(StructMessage):
    """One more IPv6 address of the peer, for the association that this send makes: RFC 6458.

    Section 5.3.10; several may be given. Linux 4.17.
    """

    __slots__ = ()

    address: IPMember = member(doc="IPv6 address of the peer.")


@register(
    level="SOL_DCCP",
    type="DCCP_SCM_PRIORITY",
    layout="u32",
    direction="send",
    families=_IP,
    option=option(
        "SOL_DCCP", "DCCP_SOCKOPT_QPOLICY_ID", 0, "2.6.38",
        value=constant("DCCPQ_POLICY_PRIO"),
    ),
    since="2.6.38",
    needs="the policy DCCPQ_POLICY_PRIO on the socket: enable(sock, DccpPriority)",
)  # fmt: skip
class DccpPriority(StructMessage):
    """The priority of a DCCP packet in the send queue: DCCP_SCM_PRIORITY. Linux 2.6.38 to 6.15.

    Higher priorities are sent first. enable() sets the policy that uses them, DCCPQ_POLICY_PRIO;
    call it before the socket is connected. With any other policy, sending one is EINVAL.
    """

    __slots__ = ()

    priority: int = member(doc="Priority in the send queue; higher goes first.")
