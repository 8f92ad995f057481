"""Time stamps: when a packet came or went. Documentation/networking/timestamping.rst"""

from __future__ import annotations

import enum
import struct
import sys
import time
from typing import ClassVar

from .. import _cmsg
from ._base import Option, StructMessage, constant, families, form, member, option, register
from ._net import OnInterface

__all__ = [
    "J1939Stats",
    "TcpStats",
    "Timestamp",
    "Timestamping",
    "TimestampingFlags",
    "TimestampingId",
    "TimestampingPacketInfo",
    "TimestampingRequest",
    "TxTime",
]

_STAMPED = families(
    "AF_UNIX", "AF_INET", "AF_INET6", "AF_PACKET", "AF_CAN", "AF_BLUETOOTH", "AF_NFC", "AF_KEY",
    "AF_MCTP", "AF_IEEE802154", "AF_ATMPVC", "AF_ATMSVC", "AF_RXRPC", "AF_RDS",
)  # fmt: skip
_SENT = families("AF_INET", "AF_INET6", "AF_PACKET", "AF_CAN", "AF_BLUETOOTH")
_IP = families("AF_INET", "AF_INET6")


class TimestampingFlags(enum.IntFlag, boundary=enum.KEEP):
    """SOF_TIMESTAMPING_*: what is stamped, and what is reported. linux/net_tstamp.h"""

    TX_HARDWARE = constant("SOF_TIMESTAMPING_TX_HARDWARE")
    TX_SOFTWARE = constant("SOF_TIMESTAMPING_TX_SOFTWARE")
    RX_HARDWARE = constant("SOF_TIMESTAMPING_RX_HARDWARE")
    RX_SOFTWARE = constant("SOF_TIMESTAMPING_RX_SOFTWARE")
    SOFTWARE = constant("SOF_TIMESTAMPING_SOFTWARE")
    SYS_HARDWARE = constant("SOF_TIMESTAMPING_SYS_HARDWARE")
    RAW_HARDWARE = constant("SOF_TIMESTAMPING_RAW_HARDWARE")
    OPT_ID = constant("SOF_TIMESTAMPING_OPT_ID")
    TX_SCHED = constant("SOF_TIMESTAMPING_TX_SCHED")
    TX_ACK = constant("SOF_TIMESTAMPING_TX_ACK")
    OPT_CMSG = constant("SOF_TIMESTAMPING_OPT_CMSG")
    OPT_TSONLY = constant("SOF_TIMESTAMPING_OPT_TSONLY")
    OPT_STATS = constant("SOF_TIMESTAMPING_OPT_STATS")
    OPT_PKTINFO = constant("SOF_TIMESTAMPING_OPT_PKTINFO")
    OPT_TX_SWHW = constant("SOF_TIMESTAMPING_OPT_TX_SWHW")
    BIND_PHC = constant("SOF_TIMESTAMPING_BIND_PHC")
    OPT_ID_TCP = constant("SOF_TIMESTAMPING_OPT_ID_TCP")
    OPT_RX_FILTER = constant("SOF_TIMESTAMPING_OPT_RX_FILTER")
    TX_COMPLETION = constant("SOF_TIMESTAMPING_TX_COMPLETION")


_Flags = TimestampingFlags
_RECEIVED = _Flags.RX_SOFTWARE | _Flags.RX_HARDWARE | _Flags.SOFTWARE | _Flags.RAW_HARDWARE

# struct so_timestamping: the flags, and (Linux 5.13) the clock that BIND_PHC names.
_STAMPING_SIZE = 8


def _stamping(room: int, since: str, flags: TimestampingFlags) -> tuple[Option | None, ...]:
    """Adds flags to SO_TIMESTAMPING. One bit of the socket says for all its time stamps whether
    they come in the form for the year 2038, and this clears it."""
    return (
        option(
            "SOL_SOCKET", "SO_TIMESTAMPING", room, since,
            value=int(flags).to_bytes(4, sys.byteorder), size=_STAMPING_SIZE, is_mask=True,
        ),
        # Linux tells SO_TIMESTAMPNS_NEW by the other name too.
        option("SOL_SOCKET", "SO_TIMESTAMPNS_NEW", 0, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMP_NEW", 0, is_watched_only=True),
        option(
            "SOL_SOCKET", "SO_TIMESTAMPING_NEW", 0, is_watched_only=True, size=_STAMPING_SIZE
        ),
    )  # fmt: skip


@register(
    level="SOL_SOCKET",
    type="SO_TIMESTAMPNS_OLD" if hasattr(_cmsg, "SO_TIMESTAMPNS_OLD") else "SCM_TIMESTAMP",
    layout="time",
    transform="timespec" if hasattr(_cmsg, "SO_TIMESTAMPNS_OLD") else "timeval",
    # FreeBSD takes one over AF_UNIX, and fills it in.
    direction="both" if hasattr(_cmsg, "SCM_REALTIME") else "receive",
    families=_STAMPED,
    option=(
        option("SOL_SOCKET", "SO_TIMESTAMPNS", 32, "2.6.22")
        or option("SOL_SOCKET", "SO_TIMESTAMP", 16),
        # The kernel has them out of one another. It tells each only by its own name, besides
        # SO_TIMESTAMPNS_NEW, which SO_TIMESTAMP_NEW tells too.
        option("SOL_SOCKET", "SO_TIMESTAMPNS_OLD", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMPNS_NEW", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMP_OLD", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMP_NEW", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMPING_NEW", 0, is_watched_only=True, size=_STAMPING_SIZE),
    ),
    also=[
        form("SOL_SOCKET", "SO_TIMESTAMP_OLD", "timeval"),
        form("SOL_SOCKET", "SO_TIMESTAMPNS_NEW", "timespec64"),
        form("SOL_SOCKET", "SO_TIMESTAMP_NEW", "timeval64"),
        form("SOL_SOCKET", "SCM_REALTIME", "timespec"),
        form("SOL_SOCKET", "SCM_BINTIME", "bintime"),
    ],
)
class Timestamp(StructMessage):
    """When the kernel received it, by the realtime clock: SO_TIMESTAMPNS, socket(7).

    `nanoseconds` since the epoch, int; None where the kernel had no time. enable() asks for
    nanoseconds, in a form that with 32 bits goes up to 2038, and whichever form comes is read:
    SCM_TIMESTAMP (microseconds) or SCM_TIMESTAMPNS, for the time after that or not. Enable it
    before bind(): a packet that was queued earlier may have the time at which it is read.
    """

    __slots__ = ()

    nanoseconds: int | None = member()


@register(
    level="SOL_SOCKET",
    type="SO_TIMESTAMPING_OLD",
    layout="stamping",
    transform="stamping",
    direction="receive",
    families=_STAMPED,
    option=_stamping(48, "2.6.30", _RECEIVED),
    also=[form("SOL_SOCKET", "SO_TIMESTAMPING_NEW", "stamping64")],
)
class Timestamping(StructMessage):
    """When it came, or (on the error queue) went, by each clock that stamped it: SCM_TIMESTAMPING.

    `software` by the kernel's realtime clock, `hardware` by the network adapter's own, each in
    nanoseconds, int, or None; `transformed` is None on any kernel of today. enable() asks for the
    receive time by both. What went is asked for by TimestampingFlags.TX_*, in setsockopt(2) or
    for one packet by a TimestampingRequest.
    """

    __slots__ = ()

    software: int | None = member("software", default=None)
    transformed: int | None = member("transformed", default=None)
    hardware: int | None = member("hardware", default=None)


@register(
    level="SOL_SOCKET",
    type="SO_TIMESTAMPING_OLD",
    layout="u32",
    direction="send",
    families=_SENT,
    also=[form("SOL_SOCKET", "SO_TIMESTAMPING_NEW", direction="send")],
    since="4.7",
)
class TimestampingRequest(StructMessage):
    """Asks when this one packet goes: the TX_* of TimestampingFlags. Linux 4.7.

    The answer comes on the error queue: receive_errors(). What is reported (SOFTWARE,
    RAW_HARDWARE) is up to SO_TIMESTAMPING.
    """

    __slots__ = ()

    flags: TimestampingFlags = member(convert=TimestampingFlags)


@register(
    level="SOL_SOCKET",
    type="SCM_TS_OPT_ID",
    layout="u32",
    direction="send",
    families=families("AF_INET", "AF_INET6", "AF_PACKET"),
    since="6.13",
)
class TimestampingId(StructMessage):
    """The id by which the transmit time stamp of this packet is reported: SCM_TS_OPT_ID.

    Instead of the count of packets that OPT_ID reports. EINVAL without OPT_ID, and on TCP.
    """

    __slots__ = ()

    id: int = member()


@register(
    level="SOL_SOCKET",
    type="SCM_TXTIME",
    layout="u64",
    direction="send",
    families=families("AF_INET", "AF_INET6", "AF_PACKET", "AF_CAN"),
    # struct sock_txtime: the clock, CLOCK_MONOTONIC as the qdisc fq has it; and flags. A socket
    # without it tells CLOCK_REALTIME, and to set that takes a capability.
    option=option(
        "SOL_SOCKET", "SO_TXTIME", 0, "4.19",
        value=getattr(time, "CLOCK_MONOTONIC", 1).to_bytes(4, sys.byteorder), size=8,
        is_permanent=True,
    ),
    since="4.19",
)  # fmt: skip
class TxTime(StructMessage):
    """When it shall go, in nanoseconds of the clock of SO_TXTIME. Linux 4.19.

    enable() sets SO_TXTIME with CLOCK_MONOTONIC, which the qdisc fq takes; etf wants CLOCK_TAI,
    set by setsockopt(2). Without such a qdisc the packet goes at once. EINVAL where SO_TXTIME is
    not set. Linux cannot unset it: restore() gives back the clock that another had set, no more.
    """

    __slots__ = ()

    nanoseconds: int = member()


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMPING_PKTINFO",
    layout="scm_ts_pktinfo",
    direction="receive",
    families=families("AF_INET", "AF_INET6", "AF_PACKET"),
    option=_stamping(16, "4.13", _Flags.OPT_PKTINFO | _Flags.RX_HARDWARE | _Flags.RAW_HARDWARE),
)
class TimestampingPacketInfo(StructMessage, OnInterface):
    """Where a packet with a hardware time stamp came in: SCM_TIMESTAMPING_PKTINFO. Linux 4.13.

    `interface` is the index of the adapter itself, also behind a bridge or a bond; `length` that
    of the packet at layer 2, in bytes.
    """

    __slots__ = ()

    interface: int = member("if_index")
    length: int = member("pkt_length")


def names_of(prefix: str) -> dict[int, str]:
    return {
        getattr(_cmsg, name): name.removeprefix(prefix).lower()
        for name in dir(_cmsg)
        if name.startswith(prefix)
    }


class AttributeRun(StructMessage):
    """A run of struct nlattr, netlink(7), each of which is one number."""

    __slots__ = ()

    _NAMES: ClassVar[dict[int, str]] = {}

    attributes: bytes

    @property
    def values(self) -> dict[str, int]:
        """Each number by its name; by its number, as text, where it has none here."""
        found: dict[str, int] = {}
        payload = self.attributes
        at = 0
        while at + 4 <= len(payload):
            size, number = struct.unpack_from("=HH", payload, at)
            value = payload[at + 4 : at + size]
            if size < 4 or len(value) < size - 4:
                break
            if value:
                name = self._NAMES.get(number, str(number))
                found[name] = int.from_bytes(value, sys.byteorder)
            at += (size + 3) & ~3
        return found

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values})"


_STATS_ON = _Flags.OPT_STATS | _Flags.OPT_TSONLY | _Flags.TX_ACK | _Flags.SOFTWARE


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMPING_OPT_STATS",
    layout="bytes",
    direction="receive",
    families=families("AF_INET", "AF_INET6"),
    option=_stamping(512, "4.10", _STATS_ON),
)
class TcpStats(AttributeRun):
    """How a TCP connection was doing when a transmit time stamp was taken: OPT_STATS, Linux 4.10.

    `values` has them by the names of TCP_NLA_* in linux/tcp.h: "busy" (microseconds), "snd_cwnd"
    (segments), "min_rtt" and "srtt" (microseconds), "bytes_sent", ...; `attributes` is the payload.
    On the error queue. enable() asks for them with each acknowledgement.
    """

    __slots__ = ()

    _NAMES = names_of("TCP_NLA_")

    attributes: bytes = member()


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMPING_OPT_STATS",
    layout="bytes",
    direction="receive",
    families=families("AF_CAN"),
    option=_stamping(128, "5.4", _STATS_ON),
)
class J1939Stats(AttributeRun):
    """How far a J1939 transfer has come: `values` has J1939_NLA_* by name, linux/can/j1939.h.

    "bytes_acked", "total_size", "pgn", "src_addr", ... On the error queue.
    """

    __slots__ = ()

    _NAMES = names_of("J1939_NLA_")

    attributes: bytes = member()
