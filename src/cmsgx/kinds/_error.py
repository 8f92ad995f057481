"""The error queue: what went wrong with a sent packet, or when it was sent. ip(7)"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from .. import _cmsg
from ._base import StructMessage, member
from ._mixins import ShownAsMade, error_of
from ._register import register
from ._row import ENTRY, KindOption, OpenEnum, check_flag, constant, families, option, wire_format
from ._table import row_of

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ErrorOrigin", "ExtendedError", "SentStage"]

_IP = families("AF_INET", "AF_INET6")
_IPV6 = families("AF_INET6")


class ErrorOrigin(OpenEnum):
    """SO_EE_ORIGIN_*: who put an entry on the error queue. linux/errqueue.h"""

    NONE = constant("SO_EE_ORIGIN_NONE")
    LOCAL = constant("SO_EE_ORIGIN_LOCAL")
    ICMP = constant("SO_EE_ORIGIN_ICMP")
    ICMP6 = constant("SO_EE_ORIGIN_ICMP6")
    TIMESTAMPING = constant("SO_EE_ORIGIN_TIMESTAMPING")
    ZEROCOPY = constant("SO_EE_ORIGIN_ZEROCOPY")
    TXTIME = constant("SO_EE_ORIGIN_TXTIME")


class SentStage(OpenEnum):
    """SCM_TSTAMP_*: which stage a packet had reached when its transmit time stamp was taken."""

    SENT = constant("SCM_TSTAMP_SND")
    """The driver passed it to the network adapter, or (hardware) the adapter sent it."""
    SCHEDULED = constant("SCM_TSTAMP_SCHED")
    """It entered the packet scheduler."""
    ACKNOWLEDGED = constant("SCM_TSTAMP_ACK")
    """All of it was acknowledged (TCP)."""
    COMPLETED = constant("SCM_TSTAMP_COMPLETION")
    """The controller reported that it was sent (Bluetooth). Linux 6.15."""


# The options of both IP versions, because an AF_INET6 socket may have an IPv4-mapped peer.
_RFC4884 = (
    option("SOL_IPV6", "IPV6_RECVERR_RFC4884", 0, "5.9", families=_IPV6),
    option("SOL_IP", "IP_RECVERR_RFC4884", 0, "5.9", families=_IP),
)
_ZEROCOPY = (
    option("SOL_SOCKET", "SO_ZEROCOPY", 0, "4.14", families=_IP | families("AF_VSOCK")),
)  # fmt: skip


@register(
    level="SOL_IP",
    type="IP_RECVERR",
    layout="sock_extended_err",
    direction="receive",
    families=_IP | families("AF_RDS"),
    option=(
        option("SOL_IPV6", "IPV6_RECVERR", ENTRY, "2.2", families=_IPV6),
        option("SOL_IP", "IP_RECVERR", ENTRY, "2.2", families=_IP),
        option("SOL_CAN_J1939", "SO_J1939_ERRQUEUE", 16, "5.4", families=families("AF_CAN")),
    ),
    other_forms=[
        wire_format("SOL_IPV6", "IPV6_RECVERR", families=_IPV6),
        wire_format("SOL_PACKET", "PACKET_TX_TIMESTAMP", families=families("AF_PACKET")),
        wire_format("SOL_CAN_RAW", "SCM_CAN_RAW_ERRQUEUE", families=families("AF_CAN")),
        wire_format("SOL_CAN_J1939", "SCM_J1939_ERRQUEUE", families=families("AF_CAN")),
        wire_format("SOL_BLUETOOTH", "BT_SCM_ERROR", families=families("AF_BLUETOOTH")),
        wire_format("SOL_VSOCK", "VSOCK_RECVERR", families=families("AF_VSOCK")),
    ],
)
class ExtendedError(ShownAsMade, StructMessage):
    """An entry of the error queue, struct sock_extended_err: IP_RECVERR, ip(7).

    The meaning of `ee_info`, `ee_data`, `ee_type` and `ee_code` depends on `ee_origin`;
    receive_errors() returns objects with named fields for them. `offender` is the address that sent
    an ICMP error, in the form of `Message.address`; None for any other origin. For TCP, UDP and raw
    sockets; AF_PACKET, CAN, Bluetooth, vsock and RDS have similar entries.
    """

    __slots__ = ()

    _SHOWN = ("ee_errno", "ee_origin", "ee_type", "ee_code", "ee_info", "ee_data", "offender")

    ee_errno: int = member("ee_errno", doc="The errno of the error.")
    ee_origin: ErrorOrigin = member(
        "ee_origin", convert=ErrorOrigin, doc="Where the error comes from."
    )
    ee_type: int = member(
        "ee_type", default=0, doc="Type of the ICMP message, or what `ee_origin` makes of it."
    )
    ee_code: int = member(
        "ee_code", default=0, doc="Code of the ICMP message, or what `ee_origin` makes of it."
    )
    ee_info: int = member(
        "ee_info", default=0, doc="More about the error; its meaning depends on `ee_origin`."
    )
    ee_data: int = member(
        "ee_data", default=0, doc="More about the error; its meaning depends on `ee_origin`."
    )
    _offender: ClassVar[Any] = member(
        "offender", default=None, doc="Address of the node that sent the ICMP error."
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            ee_errno: int,
            ee_origin: int,
            ee_type: int = 0,
            ee_code: int = 0,
            ee_info: int = 0,
            ee_data: int = 0,
            offender: _cmsg.Address | tuple[Any, ...] | None = None,
        ) -> None: ...

    def __new__(
        cls,
        ee_errno: int,
        ee_origin: int,
        ee_type: int = 0,
        ee_code: int = 0,
        ee_info: int = 0,
        ee_data: int = 0,
        offender: _cmsg.Address | tuple[Any, ...] | None = None,
    ) -> Self:
        return super().__new__(
            cls, ee_errno, ee_origin, ee_type, ee_code, ee_info, ee_data, offender
        )

    @classmethod
    def option(
        cls,
        *,
        errors: bool = True,
        rfc4884: bool | None = None,
        zerocopy: bool | None = None,
    ) -> KindOption:
        """Chooses what the kernel queues, for `want=` and enable().

        errors    ICMP and local errors, as for the class: IP_RECVERR, IPV6_RECVERR. False leaves
                  the option unchanged.
        rfc4884   whether an IcmpError has `extensions`: IP_RECVERR_RFC4884, IPV6_RECVERR_RFC4884.
                  Linux 5.9
        zerocopy  whether sends may use MSG_ZEROCOPY, whose completions are queued: SO_ZEROCOPY.
                  Linux 4.14. A ZeroCopySender sets that itself.

        None leaves the option unchanged.
        """
        shown = [] if check_flag("errors", errors) else ["errors=False"]
        steps = [row_of(cls).options] if errors else []
        for name, value, options in (
            ("rfc4884", rfc4884, _RFC4884),
            ("zerocopy", zerocopy, _ZEROCOPY),
        ):
            if value is not None:
                number = int(check_flag(name, value))
                chosen = [replace(one, value=number) for one in options if one is not None]
                steps.append(tuple(chosen))
                shown.append(f"{name}={value}")
        if not steps:
            raise ValueError("errors: False, but nothing else is requested")
        return KindOption(cls, tuple(steps), ", ".join(shown))

    @property
    def offender(self) -> _cmsg.AddressTuple | None:
        """The address that sent the ICMP error; its port is 0."""
        # Over IPv6, the kernel leaves a stale address there for other origins.
        is_icmp = self.ee_origin in (ErrorOrigin.ICMP, ErrorOrigin.ICMP6)
        return self._offender if is_icmp else None

    @property
    def error(self) -> OSError | None:
        """The exception that a call would raise for `ee_errno`; None for 0."""
        return error_of(self.ee_errno) if self.ee_errno else None
