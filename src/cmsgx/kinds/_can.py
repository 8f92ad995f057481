"""CAN: SAE J1939, Documentation/networking/j1939.rst"""

from __future__ import annotations

from ._base import StructMessage, member
from ._register import register
from ._row import families

__all__ = ["J1939DestinationAddress", "J1939DestinationName", "J1939Priority"]

_CAN = families("AF_CAN")


@register(
    level="SOL_CAN_J1939",
    type="SCM_J1939_DEST_ADDR",
    layout="u8",
    direction="receive",
    families=_CAN,
    unsolicited_size=1,
    since="5.4",
)
class J1939DestinationAddress(StructMessage):
    """The address that a J1939 message was sent to: SCM_J1939_DEST_ADDR. Linux 5.4.

    Attached without an option; absent for a broadcast.
    """

    __slots__ = ()

    address: int = member(doc="J1939 address that the message was sent to, 0 to 253.")


@register(
    level="SOL_CAN_J1939",
    type="SCM_J1939_DEST_NAME",
    layout="u64",
    direction="receive",
    families=_CAN,
    unsolicited_size=8,
    since="5.4",
)
class J1939DestinationName(StructMessage):
    """The NAME that a J1939 message was sent to: SCM_J1939_DEST_NAME. Linux 5.4.

    Attached without an option; absent if the kernel knows none.
    """

    __slots__ = ()

    name: int = member(doc="64-bit NAME of the ECU that the message was sent to.")


@register(
    level="SOL_CAN_J1939",
    type="SCM_J1939_PRIO",
    layout="u8",
    direction="receive",
    families=_CAN,
    unsolicited_size=1,
    since="5.4",
)
class J1939Priority(StructMessage):
    """The priority of a J1939 message, 0 (highest) to 7: SCM_J1939_PRIO. Linux 5.4, no option."""

    __slots__ = ()

    priority: int = member(doc="Priority of the message, 0 (highest) to 7.")
