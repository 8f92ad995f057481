"""Packet sockets: packet(7)."""

from __future__ import annotations

import enum

from ._base import StructMessage, member
from ._register import register
from ._row import constant, families, option

__all__ = ["PacketAuxdata", "PacketStatus"]


class PacketStatus(enum.IntFlag, boundary=enum.KEEP):
    """TP_STATUS_*: what is known about a packet and its other fields. linux/if_packet.h"""

    USER = constant("TP_STATUS_USER")
    COPY = constant("TP_STATUS_COPY")
    LOSING = constant("TP_STATUS_LOSING")
    CSUM_NOT_READY = constant("TP_STATUS_CSUMNOTREADY")
    """The checksum is left to the network adapter, and is not in the data."""
    VLAN_VALID = constant("TP_STATUS_VLAN_VALID")
    """There was a VLAN tag."""
    BLK_TMO = constant("TP_STATUS_BLK_TMO")
    VLAN_TPID_VALID = constant("TP_STATUS_VLAN_TPID_VALID")
    """Its protocol is known too. Linux 3.14."""
    CSUM_VALID = constant("TP_STATUS_CSUM_VALID")
    """The kernel or the adapter has verified the checksum."""
    GSO_TCP = constant("TP_STATUS_GSO_TCP")
    TS_SOFTWARE = constant("TP_STATUS_TS_SOFTWARE")
    TS_SYS_HARDWARE = constant("TP_STATUS_TS_SYS_HARDWARE")
    TS_RAW_HARDWARE = constant("TP_STATUS_TS_RAW_HARDWARE")


@register(
    level="SOL_PACKET",
    type="PACKET_AUXDATA",
    layout="tpacket_auxdata",
    direction="receive",
    families=families("AF_PACKET"),
    option=option("SOL_PACKET", "PACKET_AUXDATA", 20, "2.6.21"),
)
class PacketAuxdata(StructMessage):
    """Facts that a packet's data does not show, struct tpacket_auxdata: PACKET_AUXDATA, packet(7).

    `length` is the length of the packet on the wire, `snaplen` how much of it a filter kept, `mac`
    and `net` are the offsets of the link and network headers, all in bytes. A VLAN tag is removed
    from the data and given here.
    """

    __slots__ = ()

    status: PacketStatus = member(
        "tp_status", convert=PacketStatus, doc="Flags of the packet, TP_STATUS_*."
    )
    length: int = member("tp_len", doc="Length of the packet on the wire in bytes.")
    snaplen: int = member("tp_snaplen", doc="Bytes of it that were captured.")
    mac: int = member("tp_mac", default=0, doc="Offset of the link-layer header in bytes.")
    net: int = member("tp_net", default=0, doc="Offset of the network header in bytes.")
    vlan_tci: int = member(
        "tp_vlan_tci",
        default=0,
        doc="VLAN tag control information; valid if `status` has VLAN_VALID.",
    )
    vlan_tpid: int = member(
        "tp_vlan_tpid", default=0, doc="VLAN protocol id; valid if `status` has VLAN_TPID_VALID."
    )

    @property
    def vlan_id(self) -> int | None:
        """The number of its VLAN, 0 to 4095: IEEE 802.1Q; None if it had no tag."""
        return self.vlan_tci & 0xFFF if self.status & PacketStatus.VLAN_VALID else None

    @property
    def vlan_priority(self) -> int | None:
        """Its priority code point, 0 to 7; None if it had no tag."""
        return self.vlan_tci >> 13 if self.status & PacketStatus.VLAN_VALID else None

    @property
    def vlan_protocol(self) -> int | None:
        """The tag's ETHERTYPE (0x8100, 0x88a8); None if it had no tag, or the type is not known."""
        return self.vlan_tpid if self.status & PacketStatus.VLAN_TPID_VALID else None
