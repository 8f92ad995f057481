"""What receive_errors() yields: entries of the error queue, with named fields. ip(7)"""

from __future__ import annotations

import errno
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

from .._names import describe
from ..errors import MalformedControlError, NotSupportedError
from ._error import ErrorOrigin, ExtendedError, SentStage
from ._row import OpenEnum, constant
from ._socket import WifiStatus
from ._time import J1939Stats, TcpStats, Timestamping

if TYPE_CHECKING:
    from .. import _cmsg

__all__ = [
    "ErrorReport",
    "IcmpError",
    "IcmpExtension",
    "LocalError",
    "SentTimestamp",
    "TxTimeError",
    "TxTimeFailure",
    "UnknownReport",
    "WifiReport",
    "ZeroCopyCompletion",
]

_U32 = 1 << 32


class TxTimeFailure(OpenEnum):
    """SO_EE_CODE_TXTIME_*: why the qdisc etf dropped a packet. linux/errqueue.h"""

    INVALID_PARAMETER = constant("SO_EE_CODE_TXTIME_INVALID_PARAM")
    """It had no time, or a time of a different clock."""
    MISSED = constant("SO_EE_CODE_TXTIME_MISSED")
    """Its time had passed."""


@describe(
    class_num="The class of the object, which says what `c_type` and `data` mean.",
    c_type="The type of the object within its class.",
    data="The bytes of the object, without its header of 4 bytes.",
)
@dataclass(frozen=True, slots=True)
class IcmpExtension:
    """An object that a router added to an ICMP error: RFC 4884 section 7.

    `class_num` and `c_type` say what `data` is: (1, 1) an MPLS label stack (RFC 4950), 2 the
    interfaces (RFC 5837).
    """

    class_num: int
    c_type: int
    data: bytes


@describe(
    message="The Message that it came in: its bytes, its control messages.",
    error="The ExtendedError of that message; None if it could not be decoded.",
)
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ErrorReport:
    """The base class of what receive_errors() yields: one entry of a socket's error queue.

    `message` is the whole message, with its bytes and control messages. `error` is the
    ExtendedError among them. `payload` is the bytes of the packet that the entry is about.
    """

    message: _cmsg.Message
    error: ExtendedError | None

    _SHOWN: ClassVar[tuple[str, ...]] = ("error",)
    _ALWAYS: ClassVar[tuple[str, ...]] = ()
    """Of those, the ones that are shown even if they are None."""
    _ASKED_BY: ClassVar[str] = "ExtendedError"
    """What enable() takes so that the kernel queues it."""

    @property
    def payload(self) -> bytes:
        """The bytes of the packet that the entry is about."""
        return self.message.data

    def __repr__(self) -> str:
        values = [(name, getattr(self, name)) for name in self._SHOWN]
        shown = [
            f"{name}={value!r}"
            for name, value in values
            if value not in (None, ()) or name in self._ALWAYS
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Failure(ErrorReport):
    """A packet did not reach its destination."""

    error: ExtendedError

    @property
    def errno(self) -> int:
        """The errno with which a call on a connected socket would fail."""
        return self.error.ee_errno

    @property
    def destination(self) -> _cmsg.AddressTuple | None:
        """The address that the packet was sent to, as `Message.address`."""
        address: _cmsg.AddressTuple | None = self.message.address
        return address

    @property
    def mtu(self) -> int | None:
        """The largest packet that would have passed, in bytes, if it was too long."""
        # EMSGSIZE has another meaning for J1939, which names no destination.
        if self.errno != errno.EMSGSIZE or self.destination is None:
            return None
        return self.error.ee_info or None


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IcmpError(_Failure):
    """An ICMP or ICMPv6 error that came back for a packet: IP_RECVERR, IPV6_RECVERR. ip(7)

    `errno` is what the kernel translates it to; `version`, 4 or 6, says how to read `icmp_type` and
    `icmp_code`; `offender` is the address of the router or host that sent it; `destination` is the
    address that the packet was sent to; `payload` is the start of its data, as much as the error
    quoted (on TCP with the TCP header); `mtu` is in bytes if the packet was too long, else None;
    `extensions` are those of RFC 4884, if ExtendedError.option(rfc4884=True) requested them.

    Anyone on the path can forge one: it proves only that its sender has seen the packet.
    """

    _SHOWN = ("errno", "icmp_type", "icmp_code", "offender", "destination", "mtu", "extensions")

    @property
    def version(self) -> int:
        """4 for ICMP, including that about an IPv4-mapped address; 6 for ICMPv6."""
        return 6 if self.error.ee_origin == ErrorOrigin.ICMP6 else 4

    @property
    def icmp_type(self) -> int:
        """The type of the ICMP error, whose meaning depends on `version`."""
        return self.error.ee_type

    @property
    def icmp_code(self) -> int:
        """The code of the ICMP error within its type."""
        return self.error.ee_code

    @property
    def offender(self) -> _cmsg.AddressTuple | None:
        """The address that sent the error; its port is 0."""
        return self.error.offender

    @property
    def payload(self) -> bytes:
        """What the error quoted of the packet, without the extensions."""
        return self.message.data[: self._extended_at]

    @property
    def has_broken_extensions(self) -> bool:
        """Whether there are extensions whose checksum or lengths are wrong.

        They stay in `payload`, because the kernel may have mistaken other bytes for extensions.
        """
        return bool(self._rfc4884[1] & constant("SO_EE_RFC4884_FLAG_INVALID"))

    @property
    def extensions(self) -> tuple[IcmpExtension, ...]:
        """The objects of RFC 4884, in order."""
        at = self._extended_at
        return () if at is None else tuple(_extensions(self.message.data, at))

    @property
    def _rfc4884(self) -> tuple[int, int]:
        """Offset of the extensions, 0 for none, and the flags: struct sock_ee_data_rfc4884."""
        at, flags = struct.unpack("=HBx", self.error.ee_data.to_bytes(4, sys.byteorder))
        return at, flags

    @property
    def _extended_at(self) -> int | None:
        return None if self.has_broken_extensions else self._rfc4884[0] or None


def _extensions(data: bytes, at: int) -> Iterator[IcmpExtension]:
    """The objects after the header of 4 bytes at `at`, up to where the data was cut off."""
    at += 4
    while at + 4 <= len(data):
        size, class_num, c_type = struct.unpack_from("!HBB", data, at)
        if size < 4 or at + size > len(data):
            return
        yield IcmpExtension(class_num, c_type, data[at + 4 : at + size])
        at += size


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LocalError(_Failure):
    """A local error, because of which a packet was not sent: IP_RECVERR. ip(7)

    `errno` is the error. `destination` is the address that it was to be sent to; over IPv4 it has
    no port if the socket is not connected. For EMSGSIZE, `mtu` is the MTU of the path in bytes,
    headers included. A failed J1939 transfer is a LocalError too, without a destination.
    """

    _SHOWN = ("errno", "destination", "mtu")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SentTimestamp(ErrorReport):
    """When a packet was sent: Timestamping.option(), Documentation/networking/timestamping.rst

    `id`, with TimestampingFlags.OPT_ID, counts datagrams from 0, or is the one that a
    TimestampingId chose; on TCP it is the offset in the stream of the last byte concerned. It wraps
    at 2**32. `stage` is how far the packet had got. `software` and `hardware` are nanoseconds of
    the two clocks. One of them is None, and both are if no flag reports them (SOFTWARE,
    RAW_HARDWARE). `stats` are the TcpStats of that moment (J1939Stats on a J1939 socket), if
    OPT_STATS requested them. `payload` is the whole packet, with the headers that it had by then;
    empty with OPT_TSONLY.
    """

    error: ExtendedError

    _ASKED_BY = "Timestamping.option(flags)"
    _SHOWN = ("id", "stage", "software", "hardware")
    # A missing time is shown, too: it says that nothing reports it.
    _ALWAYS = ("software", "hardware")

    @property
    def id(self) -> int:
        """The id of the packet; 0 without OPT_ID."""
        return self.error.ee_data

    @property
    def stage(self) -> SentStage:
        """The stage that the packet had reached."""
        return SentStage(self.error.ee_info)

    @property
    def timestamping(self) -> Timestamping | None:
        """The control message with the times; None if SO_TIMESTAMPING reports none."""
        return self.message.get(Timestamping)

    @property
    def software(self) -> int | None:
        """The time of the kernel's realtime clock, in nanoseconds since the epoch; or None."""
        times = self.timestamping
        return None if times is None else times.software

    @property
    def hardware(self) -> int | None:
        """The time of the network adapter's clock, in nanoseconds; or None."""
        times = self.timestamping
        return None if times is None else times.hardware

    @property
    def stats(self) -> TcpStats | J1939Stats | None:
        """The state of the connection, if OPT_STATS requested it."""
        return self.message.get(TcpStats) or self.message.get(J1939Stats)

    @property
    def payload(self) -> bytes:
        """The packet, headers included; empty with OPT_TSONLY."""
        # The kernel also puts the statistics into the data.
        return b"" if self.stats is not None else self.message.data


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class WifiReport(ErrorReport):
    """Whether a wireless frame arrived: SO_WIFI_STATUS. `payload` is that frame.

    `acked` is whether the receiver acknowledged it.
    """

    error: ExtendedError

    _ASKED_BY = "WifiStatus"
    _SHOWN = ("acked",)

    @property
    def acked(self) -> bool:
        """Whether the receiver acknowledged it."""
        return self.message[WifiStatus].acked


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ZeroCopyCompletion(ErrorReport):
    """The kernel is done with memory that was sent with MSG_ZEROCOPY: msg_zerocopy.rst

    MSG_ZEROCOPY requires ExtendedError.option(zerocopy=True), or a ZeroCopySender. Each such send
    on the socket has an id, counted from 0. This report covers `count` of them, from `first` to
    `last`, both included. Iterating yields the ids, and `id in report` tests for one. Ids wrap at
    2**32, so `last` may be less than `first`. If `was_copied`, the kernel copied the data anyway,
    as it does on loopback; a send without MSG_ZEROCOPY would have been cheaper.
    """

    error: ExtendedError

    _ASKED_BY = "ExtendedError.option(zerocopy=True)"
    _SHOWN = ("first", "last", "was_copied")

    @property
    def first(self) -> int:
        """The id of the first send that is complete."""
        return self.error.ee_info

    @property
    def last(self) -> int:
        """The id of the last send that is complete."""
        return self.error.ee_data

    @property
    def count(self) -> int:
        """How many sends are complete."""
        return (self.last - self.first) % _U32 + 1

    @property
    def was_copied(self) -> bool:
        """Whether the kernel copied the bytes of any of them."""
        return bool(self.error.ee_code & constant("SO_EE_CODE_ZEROCOPY_COPIED"))

    def __iter__(self) -> Iterator[int]:
        # Not a generator: CPython 3.12 and 3.13 crash if there is no memory for one.
        end = self.first + self.count
        return chain(range(self.first, min(end, _U32)), range(end - _U32))

    def __contains__(self, id: object) -> bool:
        return isinstance(id, int) and 0 <= id < _U32 and (id - self.first) % _U32 < self.count


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TxTimeError(ErrorReport):
    """A packet with a TxTime that was dropped instead of sent: TxTime.option(report_errors=True).

    `txtime` is that time, in nanoseconds of the clock of SO_TXTIME; `reason` is a TxTimeFailure;
    `errno` is EINVAL or ECANCELED. `payload` is the packet, headers included. The qdisc etf sends
    these reports.
    """

    error: ExtendedError

    _ASKED_BY = "TxTime.option(clock, report_errors=True)"
    _SHOWN = ("errno", "reason", "txtime")

    @property
    def errno(self) -> int:
        """EINVAL or ECANCELED."""
        return self.error.ee_errno

    @property
    def reason(self) -> TxTimeFailure:
        """Why it was dropped."""
        return TxTimeFailure(self.error.ee_code)

    @property
    def txtime(self) -> int:
        """When it should have left, in nanoseconds."""
        return self.error.ee_data * _U32 + self.error.ee_info


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class UnknownReport(ErrorReport):
    """An entry whose origin has no class here; `error` is None if it could not be decoded.

    `message` has everything that it contained.
    """


_BY_ORIGIN: dict[int, type[ErrorReport]] = {
    ErrorOrigin.LOCAL: LocalError,
    ErrorOrigin.ICMP: IcmpError,
    ErrorOrigin.ICMP6: IcmpError,
    ErrorOrigin.TIMESTAMPING: SentTimestamp,
    ErrorOrigin.ZEROCOPY: ZeroCopyCompletion,
    ErrorOrigin.TXTIME: TxTimeError,
}


def report_of(message: _cmsg.Message) -> ErrorReport:
    """The report for a message received with MSG_ERRQUEUE. Never raises because of its content."""
    try:
        error = message.get(ExtendedError)
    except MalformedControlError:
        error = None
    if error is None:
        return UnknownReport(message, None)
    # Both have the same origin; the second control message distinguishes them.
    if error.ee_origin == ErrorOrigin.TIMESTAMPING and WifiStatus in message:
        return WifiReport(message, error)
    return _BY_ORIGIN.get(error.ee_origin, UnknownReport)(message, error)


def no_error_queue(what: str, message: _cmsg.Message) -> NotSupportedError:
    """The error for a socket that gave ordinary data instead."""
    error = NotSupportedError(errno.EOPNOTSUPP, f"{what}: this kind of socket has no error queue")
    error.message = message  # type: ignore[attr-defined]
    return error
