"""IPv4: ip(7).

On a dual-stack socket (AF_INET6 with IPv4-mapped peers as well), HopLimit, TrafficClass and
PacketInfo6 serve both families, received and sent. Ttl, Tos and PacketInfo are for IPv4 packets
only: sending one with an IPv6 packet is refused.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from .. import _cmsg
from ._base import StructMessage, member
from ._mixins import OnInterface, WithTrafficClass, source_of_answer
from ._register import register
from ._row import IS_LINUX, families, option, wire_format

if TYPE_CHECKING:
    from ._address import AddressMember, IPMember

__all__ = [
    "Checksum",
    "DestinationAddress",
    "FlowProtocol",
    "FragmentSize",
    "OriginalDestination",
    "PacketInfo",
    "ReceivedOptions",
    "ReturnOptions",
    "Tos",
    "Ttl",
]

# An AF_INET6 socket has these too, if it accepts IPv4.
IP = families("AF_INET", "AF_INET6")
# The BSDs and macOS use the number of the option as the type, and the payload is one byte.
_BY_OPTION = not IS_LINUX
# Size in bytes of a Tos that these systems send; the other BSDs cannot send one.
_TOS = {"freebsd": 1, "darwin": 4}.get(sys.platform.rstrip("0123456789"), 0)

# Not an IPAddress: such an object is not tracked by the garbage collector, and the class that
# holds one would never be collected with its interpreter.
_ANY = bytes(4)
# The struct of NetBSD has only one address, for receiving and for sending.
_HAS_LOCAL = "ipi_spec_dst" in _cmsg.LAYOUTS.get("in_pktinfo", (0, 0, {}))[2]


@register(
    level="SOL_IP",
    type="IP_PKTINFO",
    layout="in_pktinfo",
    families=IP,
    option=(
        # NetBSD has an IP_RECVPKTINFO too: SourcePacketInfo.
        option("SOL_IP", "IP_PKTINFO", 12, "2.2"),
    ),
    needs="a `local` that is an address of this host, and an `interface` that reaches the "
    "destination; either may be left out, as for a packet that came to the broadcast address of a "
    "subnet before the option was set, which reply() cannot tell from an address of this host",
)
class PacketInfo(StructMessage, OnInterface):
    """The interface and address at which an IPv4 packet arrived: IP_PKTINFO, ip(7).

    `interface` is the index of that interface, `destination` the address in the packet's header,
    and `local` the address to answer from (they differ for a broadcast). To send: `local` is the
    source address, `interface` (if not 0) the outgoing interface; `destination` is ignored.

    A server that is bound to all addresses should enable it before bind(), and answer with
    `control=info.reply()`. A packet that was queued before the option was set has 0 as `interface`
    and `local`. If it was sent to the broadcast address of a subnet, the answer fails with
    ENETUNREACH, because reply() cannot tell that address from one of a host: send it again without
    `control=`. Do not send back the object itself: it forces the answer out of the interface on
    which the packet arrived, and with a `local` of 0.0.0.0 the kernel chooses the source address
    instead of using the one that the socket is bound to.
    """

    __slots__ = ()

    interface: int = member("ipi_ifindex", default=0, doc="Index of the interface; sent, 0: any.")
    local: IPMember = member(
        "ipi_spec_dst", default=_ANY, doc="Local address to answer from; sent: the source address."
    )
    destination: IPMember = member(
        "ipi_addr", default=_ANY, doc="Destination address in the header; ignored when sent."
    )

    def reply(self) -> PacketInfo:
        """The `control=` with which to answer this packet from the address that it was sent to.

        That address is `local`. If the packet has none, because it was queued before the option was
        set (or on macOS), it is `destination`. If that is a multicast group or 255.255.255.255, the
        kernel chooses the source address. The broadcast address of a subnet looks like one of a
        host there, and the send fails with ENETUNREACH: enable the kind before bind(), or send
        again without `control=`.

        The interface is left open, because the route back may use another one, unless the address
        is link-local (169.254.0.0/16), which can exist on every interface.
        """
        source = self.local.packed if _HAS_LOCAL else _ANY
        if source == _ANY:
            source = self.destination.packed
        can_be, is_of_link = source_of_answer(source)
        interface = self.interface if can_be and is_of_link else 0
        return _from(interface, source if can_be else _ANY)


def _from(interface: int, source: bytes) -> PacketInfo:
    if _HAS_LOCAL:
        return PacketInfo(interface, source)
    return PacketInfo(interface, destination=source)


@register(
    level="SOL_IP",
    type="IP_RECVTTL" if _BY_OPTION else "IP_TTL",
    layout="int",
    encoding="integer" if _BY_OPTION else "",
    direction="receive" if _BY_OPTION else "both",
    families=IP,
    option=option("SOL_IP", "IP_RECVTTL", 4, "2.2"),
    min_value=1,
    needs="1 to 255",
)
class Ttl(StructMessage):
    """The time to live of an IPv4 packet: IP_TTL, ip(7). 0 to 255; sent, on Linux: 1 to 255.

    If a datagram is sent in parts, with MSG_MORE, the control data of the first part applies.
    """

    __slots__ = ()

    ttl: int = member(bounds=(0, 255), doc="Time to live in hops, 0 to 255; Linux sends 1 to 255.")


@register(
    level="SOL_IP",
    type="IP_RECVTOS" if _BY_OPTION else "IP_TOS",
    layout="int",
    encoding="integer",
    direction="receive" if _BY_OPTION else "both",
    families=IP,
    option=option("SOL_IP", "IP_RECVTOS", 4, "2.2"),
    other_forms=[
        wire_format("SOL_IP", "IP_TOS", "integer", direction="send", size=_TOS) if _TOS else None
    ],
    needs="0 to 255",
)
class Tos(StructMessage, WithTrafficClass):
    """The type of service of an IPv4 packet, DSCP and ECN: IP_TOS, ip(7). 0 to 255."""

    __slots__ = ()

    value: int = member(
        bounds=(0, 255),
        doc="The whole byte, 0 to 255: DSCP in the upper 6 bits, ECN in the lower 2.",
    )


@register(
    level="SOL_IP",
    type="IP_RECVOPTS",
    layout="bytes",
    direction="receive",
    families=IP,
    option=option("SOL_IP", "IP_RECVOPTS", 40, "2.2"),
)
class ReceivedOptions(StructMessage):
    """The options in the header of an IPv4 packet, as they came: IP_RECVOPTS, ip(7)."""

    __slots__ = ()

    options: bytes = member(doc="The IPv4 options as they arrived, at most 40 bytes.")


@register(
    level="SOL_IP",
    type="IP_RETOPTS",
    layout="bytes",
    families=IP,
    option=option("SOL_IP", "IP_RETOPTS", 40, "2.2"),
    needs="options as RFC 791 has them; CAP_NET_RAW for some",
)
class ReturnOptions(StructMessage):
    """The IPv4 options for an answer, with the route filled in: IP_RETOPTS, ip(7).

    To send: the IPv4 options of this packet, at most 40 bytes.
    """

    __slots__ = ()

    # The kernel silently drops any bytes beyond that.
    options: bytes = member(bounds=(0, 40), doc="The IPv4 options of the answer, at most 40 bytes.")


@register(
    level="SOL_IP",
    type="IP_ORIGDSTADDR",
    layout="sockaddr_in",
    direction="receive",
    families=IP,
    option=option("SOL_IP", "IP_RECVORIGDSTADDR", 16, "2.6.29"),
)
class OriginalDestination(StructMessage):
    """Address and port that an IPv4 packet was sent to, before TPROXY: IP_ORIGDSTADDR, ip(7)."""

    __slots__ = ()

    address: AddressMember = member(
        "sockaddr", doc="(host, port) that the packet was sent to before TPROXY."
    )


@register(
    level="SOL_IP",
    type="IP_CHECKSUM",
    layout="u32",
    direction="receive",
    families=IP,
    option=option("SOL_IP", "IP_CHECKSUM", 4, "4.0"),
)
class Checksum(StructMessage):
    """The checksum of an IPv4 packet's payload, computed by the network adapter: IP_CHECKSUM.

    Linux 4.0. Folded to 32 bits, not complemented. Absent if no adapter computed it.
    """

    __slots__ = ()

    checksum: int = member(doc="Sum over the payload, folded to 32 bits and not complemented.")


@register(
    level="SOL_IP",
    type="IP_RECVFRAGSIZE",
    layout="int",
    direction="receive",
    families=IP,
    option=(
        option("SOL_IPV6", "IPV6_RECVFRAGSIZE", 4, "4.10", families=families("AF_INET6")),
        option("SOL_IP", "IP_RECVFRAGSIZE", 4, "4.10"),
    ),
    other_forms=[wire_format("SOL_IPV6", "IPV6_RECVFRAGSIZE", families=families("AF_INET6"))],
)
class FragmentSize(StructMessage):
    """The size of the largest fragment of a datagram: IP_RECVFRAGSIZE. Linux 4.10.

    In bytes; IPv4 and IPv6. Absent if the datagram was not fragmented.
    """

    __slots__ = ()

    size: int = member(doc="Size of the largest fragment in bytes.")


@register(
    level="SOL_IP",
    type="IP_PROTOCOL",
    layout="int",
    direction="send",
    families=families("AF_INET"),
    since="6.4",
    needs="1 to 255, on a raw socket whose packets bring their own header",
)
class FlowProtocol(StructMessage):
    """The protocol number for which a raw packet is routed: IP_PROTOCOL. Linux 6.4.

    For raw sockets whose packets bring their own header (IP_HDRINCL); 1 to 255. The header is not
    changed.
    """

    __slots__ = ()

    protocol: int = member(bounds=(1, 255), doc="Protocol number, IPPROTO_*, 1 to 255.")


@register(
    level="SOL_IP",
    type="IP_RECVDSTADDR",
    layout="in_addr",
    direction="receive",
    families=IP,
    option=option("SOL_IP", "IP_RECVDSTADDR", 4),
    other_forms=[wire_format("SOL_IP", "IP_SENDSRCADDR", direction="send")],
)
class DestinationAddress(StructMessage):
    """The address an IPv4 packet was sent to, on BSD and macOS: IP_RECVDSTADDR, ip(4).

    To send, on BSD: the source address of this packet (IP_SENDSRCADDR). Linux has PacketInfo.
    """

    __slots__ = ()

    address: IPMember = member(doc="IPv4 destination address; sent: the source address.")
