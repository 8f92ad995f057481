"""IPv6: ipv6(7), RFC 3542.

On a dual-stack socket (AF_INET6 with IPv4-mapped peers as well), HopLimit, TrafficClass and
PacketInfo6 serve both families, received and sent: with an IPv4 packet they are sent in the form of
Ttl, Tos and PacketInfo, because the kernel silently ignores the form of IPv6 there. The others are
for IPv6 packets only: sending one with an IPv4 packet is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import _cmsg
from .._arguments import Buffer
from ._base import StructMessage, member
from ._ip import IP
from ._mixins import OnInterface, WithTrafficClass, source_of_answer
from ._register import register
from ._row import IS_LINUX, families, option, wire_format

if TYPE_CHECKING:
    from typing import Self

    from ._address import AddressMember, IPMember

__all__ = [
    "DestinationOptions",
    "DontFragment",
    "FlowInfo",
    "HopByHopOptions",
    "HopLimit",
    "NextHop",
    "OriginalDestination6",
    "PacketInfo6",
    "PathMtu",
    "PreferTemporaryAddress",
    "RoutingDestinationOptions",
    "RoutingHeader",
    "TrafficClass",
    "UseMinimumMtu",
]

_IPV6 = families("AF_INET6")
# Not an IPAddress: such an object is not tracked by the garbage collector, and the class that
# holds one would never be collected with its interpreter.
_ANY = bytes(16)
# The largest header whose length one byte can hold, in units of 8 bytes.
_HEADER = 2048
_WHOLE = "a whole header, a multiple of 8 bytes, whose second byte says its length"
# One before a routing header, and one after it.
_TWO_HEADERS = _HEADER + _cmsg.CMSG_SPACE(_HEADER)


@register(
    level="SOL_IPV6",
    type="IPV6_PKTINFO",
    layout="in6_pktinfo",
    families=_IPV6,
    option=(
        option("SOL_IPV6", "IPV6_RECVPKTINFO", 20, "2.6.14", families=_IPV6),
        option("SOL_IPV6", "IPV6_2292PKTINFO", 20, families=_IPV6, is_watched_only=True),
        # For an IPv4-mapped peer, an AF_INET6 socket reports it in the form of IPv6.
        option("SOL_IP", "IP_PKTINFO", 12, families=families("AF_INET")) if IS_LINUX else None,
    ),
    other_forms=[
        wire_format("SOL_IPV6", "IPV6_2292PKTINFO"),
        wire_format("SOL_IP", "IP_PKTINFO", "pktinfo", families=IP, is_ipv4=True)
        if IS_LINUX
        else None,
    ],
    needs="an `address` that is one of this host, and an `interface` that reaches the destination: "
    "not 0 for a link-local one, nor other than its scope_id",
)
class PacketInfo6(StructMessage, OnInterface):
    """The interface and address at which a packet arrived: IPV6_PKTINFO, RFC 3542.

    `address` is the destination in the packet's header, `interface` the index of that interface. To
    send: `address` is the source address, `interface` (if not 0) the outgoing interface.

    A server that is bound to all addresses should enable it before bind(), and answer with
    `control=info.reply()`. Do not send back the object itself: if the packet was sent to a group,
    that is refused with EINVAL; otherwise it forces the answer out of the interface on which the
    packet arrived. A packet from an IPv4-mapped peer that was queued before the option was set has
    0 as `interface`. If IPv4 hosts reach the server by the broadcast address of a subnet, enable
    PacketInfo too, and answer with `(msg.get(PacketInfo) or msg[PacketInfo6]).reply()`: here that
    address looks like one of a host, and sending from it fails with ENETUNREACH.
    """

    __slots__ = ()

    address: IPMember = member(
        "ipi6_addr", default=_ANY, doc="IPv6 destination address; sent: the source address."
    )
    interface: int = member("ipi6_ifindex", default=0, doc="Index of the interface; sent, 0: any.")

    def reply(self) -> PacketInfo6:
        """The `control=` with which to answer this packet from the address that it was sent to.

        That address is `address`. If it is a multicast group or 255.255.255.255, the kernel chooses
        the source address. The interface is left open, because the route back may use another one,
        unless the address or group is valid on one link only (fe80::/10, ff02::/16, 169.254.0.0/16,
        224.0.0.0/24, 255.255.255.255), so that it can exist on every interface.
        """
        source = self.address.packed
        can_be, is_of_link = source_of_answer(source)
        return PacketInfo6(source if can_be else _ANY, self.interface if is_of_link else 0)


@register(
    level="SOL_IPV6",
    type="IPV6_HOPLIMIT",
    layout="int",
    families=_IPV6,
    option=(
        option("SOL_IPV6", "IPV6_RECVHOPLIMIT", 4, "2.6.14", families=_IPV6),
        option("SOL_IPV6", "IPV6_2292HOPLIMIT", 4, families=_IPV6, is_watched_only=True),
        option("SOL_IP", "IP_RECVTTL", 4, families=IP) if IS_LINUX else None,
    ),
    other_forms=[
        wire_format("SOL_IPV6", "IPV6_2292HOPLIMIT"),
        wire_format("SOL_IP", "IP_TTL", families=IP, is_ipv4=True, min_value=1)
        if IS_LINUX
        else None,
    ],
)
class HopLimit(StructMessage):
    """The hop limit of a packet: IPV6_HOPLIMIT, RFC 3542.

    To send: 0 to 255, or -1 for the default; over IPv4 1 to 255. If a datagram is sent in parts,
    with MSG_MORE, the control data of the first part applies.
    """

    __slots__ = ()

    hops: int = member(bounds=(-1, 255), doc="Hop limit, 0 to 255; sent, -1: the default.")


@register(
    level="SOL_IPV6",
    type="IPV6_TCLASS",
    layout="int",
    families=_IPV6,
    option=(
        option("SOL_IPV6", "IPV6_RECVTCLASS", 4, "2.6.14", families=_IPV6),
        option("SOL_IP", "IP_RECVTOS", 4, families=IP) if IS_LINUX else None,
    ),
    other_forms=[
        wire_format("SOL_IP", "IP_TOS", "integer", families=IP, is_ipv4=True) if IS_LINUX else None
    ],
)
class TrafficClass(StructMessage, WithTrafficClass):
    """The traffic class of a packet, DSCP and ECN: IPV6_TCLASS, RFC 3542. 0 to 255."""

    __slots__ = ()

    value: int = member(
        bounds=(0, 255),
        doc="The whole byte, 0 to 255: DSCP in the upper 6 bits, ECN in the lower 2.",
    )


@register(
    level="SOL_IPV6",
    type="IPV6_FLOWINFO",
    layout="be32",
    families=_IPV6,
    option=option("SOL_IPV6", "IPV6_FLOWINFO", 4, "2.2.7"),
    needs="a flow label of 0, or one that the socket has by IPV6_FLOWLABEL_MGR",
)
class FlowInfo(StructMessage):
    """Traffic class and flow label, as in the header: IPV6_FLOWINFO. Linux 2.2.7.

    Absent if both are 0. To send: the label has to be one that the socket may use; the traffic
    class is taken from TrafficClass or from the socket.
    """

    __slots__ = ()

    # The kernel drops the upper 4 bits, which are the version in a header.
    value: int = member(
        bounds=(0, 0xFFFFFFF),
        doc="Traffic class (8 bits) and flow label (20 bits), 0 to 0xFFFFFFF.",
    )

    @property
    def label(self) -> int:
        """The flow label, the low 20 bits: RFC 6437."""
        return self.value & 0xFFFFF

    @property
    def traffic_class(self) -> int:
        """The traffic class, the 8 bits above the flow label."""
        return self.value >> 20 & 0xFF


class _Header(StructMessage):
    __slots__ = ()

    header: bytes

    def __new__(cls, header: Buffer) -> Self:
        # The kernel silently drops what follows the length that a header gives.
        view = memoryview(header).cast("B")
        if len(view) < 8 or len(view) != 8 * (view[1] + 1):
            raise ValueError(
                f"{cls.__name__}.header: {len(view)} bytes; a header has 8 bytes, plus 8 times its "
                "second byte"
            )
        return super().__new__(cls, header)


@register(
    level="SOL_IPV6",
    type="IPV6_HOPOPTS",
    layout="bytes",
    families=_IPV6,
    option=(
        option("SOL_IPV6", "IPV6_RECVHOPOPTS", _HEADER, "2.6.14"),
        option("SOL_IPV6", "IPV6_2292HOPOPTS", _HEADER, is_watched_only=True),
    ),
    other_forms=[wire_format("SOL_IPV6", "IPV6_2292HOPOPTS")],
    needs=f"CAP_NET_RAW, and {_WHOLE}, once in a message",
)
class HopByHopOptions(_Header):
    """The hop-by-hop options header, whole: IPV6_HOPOPTS, RFC 3542.

    A multiple of 8 bytes. To send: at most one per message; it needs CAP_NET_RAW (otherwise EPERM).
    """

    __slots__ = ()

    header: bytes = member(doc="The whole extension header; a multiple of 8 bytes.")


@register(
    level="SOL_IPV6",
    type="IPV6_DSTOPTS",
    layout="bytes",
    families=_IPV6,
    option=(
        option("SOL_IPV6", "IPV6_RECVDSTOPTS", _TWO_HEADERS, "2.6.14"),
        option("SOL_IPV6", "IPV6_2292DSTOPTS", _TWO_HEADERS, is_watched_only=True),
    ),
    other_forms=[wire_format("SOL_IPV6", "IPV6_2292DSTOPTS")],
    needs=f"CAP_NET_RAW, and {_WHOLE}",
)
class DestinationOptions(_Header):
    """A destination options header, whole: IPV6_DSTOPTS, RFC 3542. A message may have several."""

    __slots__ = ()

    header: bytes = member(doc="The whole extension header; a multiple of 8 bytes.")


@register(
    level="SOL_IPV6",
    type="IPV6_RTHDR",
    layout="bytes",
    families=_IPV6,
    option=(
        option("SOL_IPV6", "IPV6_RECVRTHDR", _HEADER, "2.6.14"),
        option("SOL_IPV6", "IPV6_2292RTHDR", _HEADER, is_watched_only=True),
    ),
    other_forms=[wire_format("SOL_IPV6", "IPV6_2292RTHDR")],
    needs=f"a kernel that sends its type (2 only, with mobile IPv6), and {_WHOLE}",
)
class RoutingHeader(_Header):
    """A routing header, whole: IPV6_RTHDR, RFC 3542.

    Linux sends only type 2, and only with mobile IPv6; otherwise EINVAL.
    """

    __slots__ = ()

    header: bytes = member(doc="The whole extension header; a multiple of 8 bytes.")


@register(
    level="SOL_IPV6",
    type="IPV6_RTHDRDSTOPTS",
    layout="bytes",
    direction="send",
    families=_IPV6,
    since="2.6.14",
    needs=f"CAP_NET_RAW, and {_WHOLE}",
)
class RoutingDestinationOptions(_Header):
    """A destination options header before a routing header, whole: IPV6_RTHDRDSTOPTS, RFC 3542.

    Arrives as DestinationOptions. Silently dropped if there is no routing header.
    """

    __slots__ = ()

    header: bytes = member(doc="The whole extension header; a multiple of 8 bytes.")


@register(
    level="SOL_IPV6",
    type="IPV6_DONTFRAG",
    layout="int",
    direction="send",
    families=_IPV6,
    since="2.6.35",
)
class DontFragment(StructMessage):
    """Whether a datagram that is too long fails, with EMSGSIZE: IPV6_DONTFRAG, RFC 3542. 0 or 1."""

    __slots__ = ()

    dont: int = member(bounds=(0, 1), doc="1: fail with EMSGSIZE; 0: fragment.")


@register(
    level="SOL_IPV6",
    type="IPV6_ORIGDSTADDR",
    layout="sockaddr_in6",
    direction="receive",
    families=_IPV6,
    option=option("SOL_IPV6", "IPV6_RECVORIGDSTADDR", 28, "2.6.37"),
)
class OriginalDestination6(StructMessage):
    """Address and port that a packet was sent to, before TPROXY: IPV6_ORIGDSTADDR.

    Not attached for an IPv4-mapped peer: see OriginalDestination.
    """

    __slots__ = ()

    address: AddressMember = member(
        "sockaddr", doc="(host, port, flowinfo, scope_id) before TPROXY."
    )


@register(
    level="SOL_IPV6",
    type="IPV6_PATHMTU",
    layout="ip6_mtuinfo",
    direction="receive",
    families=_IPV6,
    option=option("SOL_IPV6", "IPV6_RECVPATHMTU", 32, "2.6.35"),
)
class PathMtu(StructMessage):
    """The path MTU in bytes, after a datagram exceeded it: IPV6_PATHMTU, RFC 3542.

    On Linux only if DontFragment or IPV6_DONTFRAG prevented fragmentation. It arrives in a message
    of its own without data, from an ordinary receive; poll(2) does not announce it. `destination`
    is the destination of that datagram.
    """

    __slots__ = ()

    destination: _cmsg.AddressTuple | None = member("address", doc="Where the datagram was to go.")
    mtu: int = member("mtu", doc="Path MTU in bytes.")


@register(
    level="SOL_IPV6",
    # Linux defines the number, but does not accept such a message.
    type="" if IS_LINUX else "IPV6_NEXTHOP",
    layout="sockaddr_in6",
    direction="send",
    families=_IPV6,
)
class NextHop(StructMessage):
    """The next hop of this packet, on BSD and macOS: IPV6_NEXTHOP, RFC 3542. Privileged."""

    __slots__ = ()

    address: AddressMember = member("sockaddr", doc="Address of the next hop.")


@register(level="SOL_IPV6", type="IPV6_USE_MIN_MTU", layout="int", direction="send", families=_IPV6)
class UseMinimumMtu(StructMessage):
    """Whether to send 1280 bytes at most, BSD and macOS: IPV6_USE_MIN_MTU, RFC 3542. -1, 0 or 1."""

    __slots__ = ()

    use: int = member(
        bounds=(-1, 1), doc="1: always; 0: never; -1: for multicast only, the default."
    )


@register(
    level="SOL_IPV6", type="IPV6_PREFER_TEMPADDR", layout="int", direction="send", families=_IPV6
)
class PreferTemporaryAddress(StructMessage):
    """Whether to prefer a temporary source address, on BSD and macOS: IPV6_PREFER_TEMPADDR.

    0 or 1; -1 for the system's default.
    """

    __slots__ = ()

    prefer: int = member(
        bounds=(-1, 1), doc="1: prefer temporary addresses; 0: do not; -1: system default."
    )
