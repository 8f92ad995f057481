"""Time stamps: when a packet was received or sent. Documentation/networking/timestamping.rst"""

from __future__ import annotations

import enum
import struct
import sys
import time
from typing import Any, ClassVar

from .. import _cmsg
from ._base import StructMessage, member
from ._mixins import OnInterface
from ._register import register
from ._row import (
    ENTRY,
    KindOption,
    Option,
    check_flag,
    check_int,
    constant,
    families,
    option,
    wire_format,
)
from ._table import row_of

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
    """SOF_TIMESTAMPING_*: what gets a time stamp, and what is reported. linux/net_tstamp.h"""

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
_BY_ADAPTER = _Flags.TX_HARDWARE | _Flags.RX_HARDWARE
_BY_KERNEL = (
    _Flags.TX_SOFTWARE | _Flags.RX_SOFTWARE | _Flags.TX_SCHED | _Flags.TX_ACK
    | _Flags.TX_COMPLETION
)  # fmt: skip
_SENT_STAMPS = (
    _Flags.TX_HARDWARE | _Flags.TX_SOFTWARE | _Flags.TX_SCHED | _Flags.TX_ACK
    | _Flags.TX_COMPLETION
)  # fmt: skip
# Flags for which the kernel requires another one, on any socket.
_GOES_WITH = {_Flags.OPT_ID_TCP: _Flags.OPT_ID, _Flags.OPT_STATS: _Flags.OPT_TSONLY}
_NEEDS = {
    _Flags.OPT_ID: "OPT_ID on TCP needs a connected socket",
    _Flags.BIND_PHC: "phc= needs a socket that is bound to a device (SO_BINDTODEVICE), and the "
    "number of one of that device's virtual clocks",
    _Flags.TX_COMPLETION: "TX_COMPLETION needs Linux 6.15",
}


def _needs(flags: TimestampingFlags) -> str:
    found = [text for flag, text in _NEEDS.items() if flag in flags]
    return "; ".join([*found, "the kernel has to know every flag"])


# struct so_timestamping: the flags, and (Linux 5.14) the clock that BIND_PHC names.
_STAMPING_SIZE = 8


def _stamping(
    control_size: int,
    since: str,
    flags: TimestampingFlags,
    sign: TimestampingFlags,
    entry: int = 0,
    **more: Any,
) -> tuple[Option | None, ...]:
    """Adds flags to SO_TIMESTAMPING. A socket has one bit for all its time stamps: whether they use
    the 64-bit (post-2038) format. Setting this option clears it: SOCK_TSTAMP_NEW in
    sock_set_timestamping(), net/core/sock.c."""
    return (
        option(
            "SOL_SOCKET", "SO_TIMESTAMPING", control_size, since, entry=entry,
            value=int(flags).to_bytes(4, sys.byteorder), size=_STAMPING_SIZE, is_mask=True,
            sign=int(sign).to_bytes(4, sys.byteorder), **more,
        ),
        # Linux also reports SO_TIMESTAMPNS_NEW under the old name SO_TIMESTAMP_NEW: sk_getsockopt()
        # in net/core/sock.c does not look at SOCK_RCVTSTAMPNS there.
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
    encoding="timespec" if hasattr(_cmsg, "SO_TIMESTAMPNS_OLD") else "timeval",
    direction="receive",
    families=_STAMPED,
    option=(
        option("SOL_SOCKET", "SO_TIMESTAMPNS", 32, "2.6.22")
        or option("SOL_SOCKET", "SO_TIMESTAMP", 16),
        # Switching one on switches the others off: __sock_set_timestamps() in net/core/sock.c. The
        # kernel reports each only under its own name, except SO_TIMESTAMPNS_NEW: see _stamping().
        option("SOL_SOCKET", "SO_TIMESTAMPNS_OLD", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMPNS_NEW", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMP_OLD", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMP_NEW", 32, is_watched_only=True),
        option("SOL_SOCKET", "SO_TIMESTAMPING_NEW", 0, is_watched_only=True, size=_STAMPING_SIZE),
    ),
    other_forms=[
        wire_format("SOL_SOCKET", "SO_TIMESTAMP_OLD", "timeval"),
        wire_format("SOL_SOCKET", "SO_TIMESTAMPNS_NEW", "timespec64"),
        wire_format("SOL_SOCKET", "SO_TIMESTAMP_NEW", "timeval64"),
        wire_format("SOL_SOCKET", "SCM_REALTIME", "timespec"),
        wire_format("SOL_SOCKET", "SCM_BINTIME", "bintime"),
        # FreeBSD accepts one over AF_UNIX, and fills in the time: unp_internalize() in
        # sys/kern/uipc_usrreq.c.
        wire_format(
            "SOL_SOCKET",
            "SCM_TIMESTAMP",
            "timeval",
            direction="send",
            families=families("AF_UNIX"),
        )
        if hasattr(_cmsg, "SCM_REALTIME")
        else None,
    ],
)
class Timestamp(StructMessage):
    """When the kernel received the message, by its realtime clock: SO_TIMESTAMPNS, socket(7).

    `nanoseconds` since the epoch, an int; None if the kernel had no time. enable() requests
    nanoseconds, in a format that on 32-bit systems ends in 2038; every format is understood:
    SCM_TIMESTAMP (microseconds) and SCM_TIMESTAMPNS, each with 32 or 64 bits. Enable it before
    bind(): a packet that was queued earlier may get the time at which it is read.
    """

    __slots__ = ()

    nanoseconds: int | None = member(
        doc="Time since the epoch in nanoseconds; None if the kernel had none."
    )


@register(
    level="SOL_SOCKET",
    type="SO_TIMESTAMPING_OLD",
    layout="stamping",
    encoding="stamping",
    direction="receive",
    families=_STAMPED,
    option=_stamping(48, "2.6.30", _RECEIVED, _RECEIVED, ENTRY),
    other_forms=[wire_format("SOL_SOCKET", "SO_TIMESTAMPING_NEW", "stamping64")],
)
class Timestamping(StructMessage):
    """When a packet was received, or (on the error queue) sent, by two clocks: SCM_TIMESTAMPING.

    `software` is the time of the kernel's realtime clock, `hardware` that of the network adapter's
    clock, each an int of nanoseconds, or None; `transformed` is None on all current kernels.
    enable() requests both receive times. Request transmit time stamps with Timestamping.option()
    and the TX_* of TimestampingFlags, or for one packet with a TimestampingRequest, and read them
    with receive_errors().
    """

    __slots__ = ()

    software: int | None = member(
        "software",
        default=None,
        doc="Time of the kernel's realtime clock in ns since the epoch, or None.",
    )
    transformed: int | None = member(
        "transformed", default=None, doc="Not used by current kernels: None."
    )
    hardware: int | None = member(
        "hardware",
        default=None,
        doc="Time of the network adapter's own clock in nanoseconds, or None.",
    )

    @classmethod
    def option(cls, flags: int | None = None, *, phc: int | None = None) -> KindOption:
        """Chooses what gets a time stamp, and how that is reported: SO_TIMESTAMPING.

        The result is for `want=` and enable().

        flags  TimestampingFlags: TX_* and RX_* say what gets a time stamp, OPT_* how it is
               reported. None: the receive time of both clocks, as for the class.
        phc    the number of the virtual hardware clock to use: BIND_PHC. Linux 5.14

        The flags that report time stamps are added: SOFTWARE for those of the kernel, RAW_HARDWARE
        for those of an adapter, and both, if no flag stamps anything because a TimestampingRequest
        will.
        Flags that the socket already has stay; if OPT_ID was on, its count continues. `phc`
        replaces the clock that was bound.

        ValueError for a flag that does not exist, or that needs another one that is missing.
        enable() raises NotSupportedError for TX_* on a socket whose family has no transmit times,
        such as AF_UNIX.
        """
        row_of(cls)
        if flags is None and phc is None:
            return super().option()
        chosen = _RECEIVED
        if flags is not None:
            chosen = TimestampingFlags(check_int("flags", flags, 1, 2**32 - 1))
        if phc is None and _Flags.BIND_PHC in chosen:
            raise ValueError("flags: BIND_PHC needs phc=, the number of the clock")
        for flag, other in _GOES_WITH.items():
            if flag in chosen and other not in chosen:
                raise ValueError(f"flags: {flag.name} needs {other.name}")
        shown = [str(chosen.name or int(chosen))] if flags is not None else []
        more: dict[str, Any] = {}
        if phc is not None:
            more["tail"] = check_int("phc", phc, 0, 2**31 - 1).to_bytes(4, sys.byteorder)
            shown.append(f"phc={phc}")
            chosen |= _Flags.BIND_PHC
        is_stamping = chosen & (_BY_KERNEL | _BY_ADAPTER)
        if chosen & _BY_KERNEL or not is_stamping:
            chosen |= _Flags.SOFTWARE
        if chosen & _BY_ADAPTER or not is_stamping:
            chosen |= _Flags.RAW_HARDWARE
        if chosen & _SENT_STAMPS:
            # sock_set_timestamping() in net/core/sock.c accepts these flags for every family, but
            # the others have no transmit times.
            more["families"] = _SENT
        options = _stamping(48, "2.6.30", chosen, chosen, ENTRY, needs=_needs(chosen), **more)
        step = tuple([one for one in options if one is not None])
        return KindOption(cls, (step,), ", ".join(shown))


@register(
    level="SOL_SOCKET",
    type="SO_TIMESTAMPING_OLD",
    layout="u32",
    direction="send",
    families=_SENT,
    other_forms=[wire_format("SOL_SOCKET", "SO_TIMESTAMPING_NEW", direction="send")],
    since="4.7",
    needs="flags that are all TX_*; the others, such as OPT_ID, are set on the socket: "
    "enable(sock, Timestamping.option(flags))",
)
class TimestampingRequest(StructMessage):
    """Requests the transmit time of this one packet: the TX_* of TimestampingFlags. Linux 4.7.

    The answer arrives on the error queue: receive_errors(). For it to contain a time and an id,
    call enable(sock, Timestamping.option(TimestampingFlags.OPT_ID)): SOFTWARE, RAW_HARDWARE and the
    OPT_* are flags of the socket, and one of those in a request is EINVAL. Among stream sockets
    only TCP supports it, without kTLS; MPTCP does not.
    """

    __slots__ = ()

    flags: TimestampingFlags = member(
        convert=TimestampingFlags, doc="TX_* of TimestampingFlags: which time stamps are taken."
    )


@register(
    level="SOL_SOCKET",
    type="SCM_TS_OPT_ID",
    layout="u32",
    direction="send",
    families=families("AF_INET", "AF_INET6", "AF_PACKET"),
    since="6.13",
    needs="Linux 6.13, and OPT_ID on the socket: "
    "enable(sock, Timestamping.option(TimestampingFlags.OPT_ID))",
)
class TimestampingId(StructMessage):
    """The id by which the transmit time stamp of this packet is reported: SCM_TS_OPT_ID.

    Replaces the packet count that OPT_ID reports. For datagram and raw sockets; EINVAL without
    OPT_ID: enable(sock, Timestamping.option(TimestampingFlags.OPT_ID)). Linux 6.13.
    """

    __slots__ = ()

    id: int = member(doc="Id that is reported with the time stamp, 32 bits.")


_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 1)
# The kernel cuts larger numbers to 8 bits.
_CLOCKS: int = getattr(_cmsg, "MAX_CLOCKS", 0)
_CLOCK_NAMES = {
    value: name
    for name, value in vars(time).items()
    if name.startswith("CLOCK_") and isinstance(value, int)
}


_CLOCK_NEEDS = "a clock other than CLOCK_MONOTONIC needs CAP_NET_ADMIN"


def _txtime(clock: int, flags: int, needs: str = "") -> Option | None:
    """SO_TXTIME with a struct sock_txtime: the clock and the flags."""
    value = clock.to_bytes(4, sys.byteorder) + flags.to_bytes(4, sys.byteorder)
    return option(
        "SOL_SOCKET", "SO_TXTIME", 0, "4.19",
        value=value, size=8, is_permanent=True, entry=ENTRY, needs=needs,
    )  # fmt: skip


@register(
    level="SOL_SOCKET",
    type="SCM_TXTIME",
    layout="u64",
    direction="send",
    families=families("AF_INET", "AF_INET6", "AF_PACKET", "AF_CAN"),
    # CLOCK_MONOTONIC, which the fq qdisc uses. A socket without the option reports CLOCK_REALTIME,
    # which only a privileged process can set.
    option=_txtime(_MONOTONIC, 0),
    since="4.19",
    needs="SO_TXTIME on the socket: enable(sock, TxTime), or TxTime.option(clock) there",
)
class TxTime(StructMessage):
    """When to send this packet, in nanoseconds of the clock of SO_TXTIME. Linux 4.19.

    enable() sets SO_TXTIME with CLOCK_MONOTONIC, for the qdisc fq. For etf choose another clock:
    enable(sock, TxTime.option(time.CLOCK_TAI)). Without such a qdisc the packet is sent at once.
    For datagram and raw sockets; EINVAL if SO_TXTIME is not set. Linux cannot unset the option, so
    restore() restores only the clock and flags that were set before.
    """

    __slots__ = ()

    nanoseconds: int = member(doc="When to send, in nanoseconds of the clock of SO_TXTIME.")

    @classmethod
    def option(
        cls, clock: int | None = None, *, deadline_mode: bool = False, report_errors: bool = False
    ) -> KindOption:
        """Chooses the clock of the times, for `want=` and enable(): SO_TXTIME.

        clock          a CLOCK_* of `time`; None means CLOCK_MONOTONIC. Any other needs
                       CAP_NET_ADMIN, and has to be the clock of the qdisc.
        deadline_mode  whether the packet may be sent earlier: the time is then a deadline
        report_errors  whether receive_errors() reports dropped packets, each as a TxTimeError

        A socket has one clock: this replaces the previous setting, flags included.
        """
        row_of(cls)
        number = _MONOTONIC if clock is None else check_int("clock", clock, 0, _CLOCKS - 1)
        shown = [] if clock is None else [_CLOCK_NAMES.get(number, str(number))]
        flags = 0
        for name, value in (("deadline_mode", deadline_mode), ("report_errors", report_errors)):
            if check_flag(name, value):
                flags |= constant(f"SOF_TXTIME_{name.upper()}")
                shown.append(f"{name}=True")
        if not shown:
            return super().option()
        one = _txtime(number, flags, _CLOCK_NEEDS)
        return KindOption(cls, () if one is None else ((one,),), ", ".join(shown))


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMPING_PKTINFO",
    layout="scm_ts_pktinfo",
    direction="receive",
    families=families("AF_INET", "AF_INET6", "AF_PACKET"),
    option=_stamping(
        16,
        "4.13",
        _Flags.OPT_PKTINFO | _Flags.RX_HARDWARE | _Flags.RAW_HARDWARE,
        _Flags.OPT_PKTINFO,
    ),
)
class TimestampingPacketInfo(StructMessage, OnInterface):
    """The interface of a packet with a hardware time stamp: SCM_TIMESTAMPING_PKTINFO. Linux 4.13.

    `interface` is the index of the adapter itself, even if that is part of a bridge or a bond;
    `length` is the length of the packet at layer 2, in bytes.
    """

    __slots__ = ()

    interface: int = member("if_index", doc="Index of the network adapter itself.")
    length: int = member("pkt_length", doc="Length of the packet at layer 2 in bytes.")


def names_of(prefix: str) -> dict[int, str]:
    return {
        getattr(_cmsg, name): name.removeprefix(prefix).lower()
        for name in dir(_cmsg)
        if name.startswith(prefix)
    }


class AttributeRun(StructMessage):
    """A sequence of struct nlattr, netlink(7), each with one number."""

    __slots__ = ()

    _NAMES: ClassVar[dict[int, str]] = {}

    attributes: bytes

    @property
    def values(self) -> dict[str, int]:
        """The values by name; the key of an unknown attribute is its number, as text."""
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
    option=_stamping(512, "4.10", _STATS_ON, _Flags.OPT_STATS, ENTRY),
)
class TcpStats(AttributeRun):
    """The state of a TCP connection when a transmit time stamp was taken: OPT_STATS, Linux 4.10.

    `values` maps the names of TCP_NLA_* in linux/tcp.h to numbers: "busy" (microseconds),
    "snd_cwnd" (segments), "min_rtt" and "srtt" (microseconds), "bytes_sent", ...; `attributes` is
    the payload. On the error queue. enable() requests them for each acknowledgement.
    """

    __slots__ = ()

    _NAMES = names_of("TCP_NLA_")

    attributes: bytes = member(doc="The payload: netlink attributes, of which `values` is read.")


@register(
    level="SOL_SOCKET",
    type="SCM_TIMESTAMPING_OPT_STATS",
    layout="bytes",
    direction="receive",
    families=families("AF_CAN"),
    option=_stamping(128, "5.4", _STATS_ON, _Flags.OPT_STATS, ENTRY),
)
class J1939Stats(AttributeRun):
    """How far a J1939 transfer has got: `values` maps J1939_NLA_* of linux/can/j1939.h to numbers.

    "bytes_acked", "total_size", "pgn", "src_addr", ... On the error queue.
    """

    __slots__ = ()

    _NAMES = names_of("J1939_NLA_")

    attributes: bytes = member(doc="The payload: netlink attributes, of which `values` is read.")
