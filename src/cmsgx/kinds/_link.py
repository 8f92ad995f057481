"""Link layers, and protocols other than IP: LLC, IEEE 802.15.4, ISDN, IUCV."""

from __future__ import annotations

from ._base import StructMessage, member
from ._mixins import OnInterface
from ._register import register
from ._row import families, option

__all__ = ["IucvTargetClass", "LinkQuality", "LlcPacketInfo", "MisdnTimestamp"]


@register(
    level="SOL_LLC",
    type="LLC_OPT_PKTINFO",
    layout="llc_pktinfo",
    direction="receive",
    families=families("AF_LLC"),
    option=option("SOL_LLC", "LLC_OPT_PKTINFO", 12, "2.6.34"),
)
class LlcPacketInfo(StructMessage, OnInterface):
    """Where a packet of IEEE 802.2 came in, and to which address: LLC_OPT_PKTINFO. Linux 2.6.34.

    `interface` is the index of the interface, `sap` the service access point, and `mac` the 6-byte
    address that it was sent to. linux/llc.h
    """

    __slots__ = ()

    interface: int = member(
        "lpi_ifindex", doc="Index of the interface by which the packet arrived."
    )
    sap: int = member("lpi_sap", doc="Service access point that it was sent to.")
    mac: bytes = member("lpi_mac", doc="MAC address that it was sent to, 6 bytes.")


@register(
    level="SOL_IEEE802154",
    type="WPAN_WANTLQI",
    layout="u8",
    direction="receive",
    families=families("AF_IEEE802154"),
    option=option("SOL_IEEE802154", "WPAN_WANTLQI", 1, "4.19"),
)
class LinkQuality(StructMessage):
    """How well a frame of IEEE 802.15.4 was received: WPAN_WANTLQI. Linux 4.19.

    The link quality indication, 0 (worst) to 255. For datagram sockets.
    """

    __slots__ = ()

    lqi: int = member(doc="Link quality indication, 0 (worst) to 255 (best).")


@register(
    level="SOL_MISDN",
    type="MISDN_TIME_STAMP",
    layout="time",
    encoding="timeval",
    direction="receive",
    families=families("AF_ISDN"),
    option=option("SOL_MISDN", "MISDN_TIME_STAMP", 16, "2.6.27"),
)
class MisdnTimestamp(StructMessage):
    """When a message of mISDN arrived, by the realtime clock: MISDN_TIME_STAMP. Linux 2.6.27.

    `nanoseconds` since the epoch, in whole microseconds (pack() drops the remainder); None if the
    kernel had no time.
    """

    __slots__ = ()

    nanoseconds: int | None = member(
        doc="Time since the epoch in nanoseconds; None if the kernel had none."
    )


@register(
    level="SOL_IUCV",
    type="SCM_IUCV_TRGCLS",
    layout="u32",
    families=families("AF_IUCV"),
    unsolicited_size=4,
    since="2.6.31",
    needs="to be the only one in its message",
)
class IucvTargetClass(StructMessage):
    """The target class of a message between guests of z/VM: SCM_IUCV_TRGCLS. Linux 2.6.31.

    Attached without an option. To send: at most one per message, otherwise EINVAL.
    """

    __slots__ = ()

    target_class: int = member(doc="Target class of the message; 32 bits.")
