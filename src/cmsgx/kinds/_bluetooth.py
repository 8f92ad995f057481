"""Bluetooth: net/bluetooth/bluetooth.h and hci_sock.h of the kernel, ng_btsocket(4)."""

from __future__ import annotations

from ._base import StructMessage, member
from ._register import register
from ._row import families, option, wire_format

__all__ = [
    "BluetoothPacketStatus",
    "BluetoothSequenceNumber",
    "HciDirection",
    "HciTimestamp",
]

_BLUETOOTH = families("AF_BLUETOOTH")


@register(
    level="SOL_BLUETOOTH",
    type="BT_SCM_PKT_STATUS",
    layout="u8",
    direction="receive",
    families=_BLUETOOTH,
    option=option("SOL_BLUETOOTH", "BT_PKT_STATUS", 1, "5.9"),
)
class BluetoothPacketStatus(StructMessage):
    """How well an SCO or ISO frame was received: BT_PKT_STATUS. Linux 5.9.

    The Packet_Status_Flag of the Core Specification, volume 4, part E: 0 is good.
    """

    __slots__ = ()

    status: int = member(doc="Packet_Status_Flag of the Core Specification; 0: received correctly.")


@register(
    level="SOL_BLUETOOTH",
    type="BT_SCM_PKT_SEQNUM",
    layout="u16",
    direction="receive",
    families=_BLUETOOTH,
    option=option("SOL_BLUETOOTH", "BT_PKT_SEQNUM", 2, "6.17"),
)
class BluetoothSequenceNumber(StructMessage):
    """The number of an ISO packet in its stream: BT_PKT_SEQNUM. Linux 6.17. Wraps at 2**16."""

    __slots__ = ()

    number: int = member(doc="Number of the packet in its stream, 0 to 65535; wraps.")


@register(
    level="SOL_HCI",
    type="HCI_CMSG_DIR",
    layout="int",
    direction="receive",
    families=_BLUETOOTH,
    option=(
        option("SOL_HCI", "HCI_DATA_DIR", 4, "2.4.6")
        or option("SOL_HCI_RAW", "SO_HCI_RAW_DIRECTION", 4)
        or option("BTPROTO_HCI", "SO_HCI_DIRECTION", 4),
    ),
    other_forms=[
        wire_format("SOL_HCI_RAW", "SCM_HCI_RAW_DIRECTION"),
        wire_format("BTPROTO_HCI", "SCM_HCI_DIRECTION"),
    ],
)
class HciDirection(StructMessage):
    """Whether a frame came from the controller: HCI_DATA_DIR. For raw HCI sockets.

    FreeBSD and NetBSD have it too: SO_HCI_RAW_DIRECTION, SO_HCI_DIRECTION.
    """

    __slots__ = ()

    incoming: bool = member(convert=bool, doc="True if the frame came from the controller.")


@register(
    level="SOL_HCI",
    type="HCI_CMSG_TSTAMP",
    layout="time",
    encoding="timeval",
    direction="receive",
    families=_BLUETOOTH,
    option=option("SOL_HCI", "HCI_TIME_STAMP", 16, "2.4.19"),
)
class HciTimestamp(StructMessage):
    """When a frame passed, by the realtime clock: HCI_TIME_STAMP. For raw HCI sockets.

    `nanoseconds` since the epoch, in whole microseconds (pack() drops the remainder); None if the
    kernel had no time.
    """

    __slots__ = ()

    nanoseconds: int | None = member(
        doc="Time since the epoch in nanoseconds; None if the kernel had none."
    )
