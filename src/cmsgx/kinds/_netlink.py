"""Netlink: netlink(7)."""

from __future__ import annotations

from ._base import StructMessage, member
from ._register import register
from ._row import families, option

__all__ = ["NetlinkPacketInfo", "NetworkNamespaceId"]

_NETLINK = families("AF_NETLINK")


@register(
    level="SOL_NETLINK",
    type="NETLINK_PKTINFO",
    layout="nl_pktinfo",
    direction="receive",
    families=_NETLINK,
    option=option("SOL_NETLINK", "NETLINK_PKTINFO", 4, "2.6.14"),
)
class NetlinkPacketInfo(StructMessage):
    """The multicast group that a message was sent to: NETLINK_PKTINFO, netlink(7).

    Its number, not a mask; 0 for a message to this socket alone.
    """

    __slots__ = ()

    group: int = member("group", doc="Number of the multicast group; 0: unicast.")


@register(
    level="SOL_NETLINK",
    type="NETLINK_LISTEN_ALL_NSID",
    layout="int",
    direction="receive",
    families=_NETLINK,
    option=option("SOL_NETLINK", "NETLINK_LISTEN_ALL_NSID", 4, "4.2"),
)
class NetworkNamespaceId(StructMessage):
    """The network namespace of an event: NETLINK_LISTEN_ALL_NSID, netlink(7). Linux 4.2.

    `nsid` is its id in this socket's namespace; absent for an event of that namespace itself.
    Enabling it brings the events of every namespace with an id, and needs CAP_NET_BROADCAST
    (otherwise EPERM).
    """

    __slots__ = ()

    nsid: int = member(doc="Id of the network namespace, as the socket's own namespace numbers it.")
