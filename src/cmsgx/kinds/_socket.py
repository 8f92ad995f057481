"""Kinds that are not specific to one protocol: socket(7)."""

from __future__ import annotations

from ._base import StructMessage, member
from ._register import register
from ._row import ENTRY, families, option, wire_format

__all__ = [
    "DevmemDmabuf",
    "DevmemLinear",
    "DevmemSend",
    "Mark",
    "Priority",
    "ReceiveQueueOverflow",
    "WifiStatus",
]

_IP = families("AF_INET", "AF_INET6")
# Families that receive with sock_recv_cmsgs().
_DATAGRAMS = _IP | families(
    "AF_PACKET", "AF_CAN", "AF_BLUETOOTH", "AF_NFC", "AF_KEY", "AF_MCTP", "AF_IEEE802154",
    "AF_ATMPVC", "AF_ATMSVC",
)  # fmt: skip
# Families that send with sock_cmsg_send(), and use what it finds.
_SENT = _IP | families("AF_PACKET", "AF_CAN")


@register(
    level="SOL_SOCKET",
    type="SO_RXQ_OVFL",
    layout="u32",
    direction="receive",
    families=_DATAGRAMS,
    option=option("SOL_SOCKET", "SO_RXQ_OVFL", 4, "2.6.33"),
)
class ReceiveQueueOverflow(StructMessage):
    """How many datagrams the socket has dropped since it was made: SO_RXQ_OVFL, socket(7).

    They were dropped because the receive queue was full. Absent before the first drop; wraps at
    2**32. With UdpGro the kernel counts packets as they were queued, each of which may be many
    coalesced datagrams: `drops` is then the minimum number of lost datagrams.
    """

    __slots__ = ()

    drops: int = member(doc="Datagrams dropped since the socket was made; wraps at 2**32.")


@register(
    level="SOL_SOCKET",
    type="SO_MARK",
    layout="u32",
    direction="receive",
    families=_DATAGRAMS,
    option=option("SOL_SOCKET", "SO_RCVMARK", 4, "5.19"),
    other_forms=[wire_format("SOL_SOCKET", "SO_MARK", direction="send", families=_SENT)],
    needs="CAP_NET_ADMIN or CAP_NET_RAW",
)
class Mark(StructMessage):
    """The firewall mark of this packet: SO_MARK, socket(7).

    Received since Linux 5.19. Datagram and raw sockets can send it, with CAP_NET_ADMIN or
    CAP_NET_RAW (otherwise EPERM). For a stream use setsockopt(SO_MARK).
    """

    __slots__ = ()

    mark: int = member(doc="Firewall mark, 32 bits.")


@register(
    level="SOL_SOCKET",
    type="SO_PRIORITY",
    layout="u32",
    direction="receive",
    families=_DATAGRAMS,
    option=option("SOL_SOCKET", "SO_RCVPRIORITY", 4, "6.14"),
    other_forms=[wire_format("SOL_SOCKET", "SO_PRIORITY", direction="send", families=_SENT)],
    since="6.14",
    needs="Linux 6.14; above 6 CAP_NET_ADMIN or CAP_NET_RAW",
)
class Priority(StructMessage):
    """The queueing priority of this packet: SO_PRIORITY, socket(7). Linux 6.14.

    Datagram and raw sockets can send it; above 6 it needs CAP_NET_ADMIN or CAP_NET_RAW (otherwise
    EPERM). For a stream use setsockopt(SO_PRIORITY).
    """

    __slots__ = ()

    priority: int = member(doc="Queueing priority; above 6 it is privileged.")


@register(
    level="SOL_SOCKET",
    type="SCM_WIFI_STATUS",
    layout="int",
    direction="receive",
    families=families("AF_PACKET", "AF_INET", "AF_INET6"),
    option=option("SOL_SOCKET", "SO_WIFI_STATUS", 4, "3.3", entry=ENTRY),
)
class WifiStatus(StructMessage):
    """Whether a wireless frame was acknowledged: SO_WIFI_STATUS. Linux 3.3.

    On the error queue.
    """

    __slots__ = ()

    acked: bool = member(convert=bool, doc="1 if the frame was acknowledged, else 0.")


@register(
    level="SOL_SOCKET",
    type="SCM_DEVMEM_LINEAR",
    layout="dmabuf_cmsg",
    direction="receive",
    families=_IP,
    since="6.12",
)
class DevmemLinear(StructMessage):
    """Part of a TCP stream, copied to the buffer: SCM_DEVMEM_LINEAR. Linux 6.12.

    `size` is in bytes. In the order of the stream, together with DevmemDmabuf. Only with
    MSG_SOCK_DEVMEM.
    Documentation/networking/devmem.rst
    """

    __slots__ = ()

    size: int = member("frag_size", doc="Bytes that were copied to the buffer.")
    offset: int = member("frag_offset", default=0, doc="Not used by this kind.")
    token: int = member("frag_token", default=0, doc="Not used by this kind.")
    dmabuf: int = member("dmabuf_id", default=0, doc="Not used by this kind.")
    flags: int = member("flags", default=0, doc="Reserved; 0.")


@register(
    level="SOL_SOCKET",
    type="SCM_DEVMEM_DMABUF",
    layout="dmabuf_cmsg",
    direction="receive",
    families=_IP,
    since="6.12",
)
class DevmemDmabuf(StructMessage):
    """Part of a TCP stream, in device memory: SCM_DEVMEM_DMABUF. Linux 6.12.

    `size` bytes at `offset` of the dma-buf `dmabuf`. Give `token` back with
    setsockopt(SO_DEVMEM_DONTNEED). Only with MSG_SOCK_DEVMEM; if the control buffer is too small,
    the kernel fails instead of truncating. Documentation/networking/devmem.rst
    """

    __slots__ = ()

    offset: int = member("frag_offset", doc="Where the piece starts in the dma-buf, in bytes.")
    size: int = member("frag_size", doc="Length of the piece in bytes.")
    token: int = member("frag_token", doc="Number to give back by SO_DEVMEM_DONTNEED.")
    dmabuf: int = member("dmabuf_id", doc="Id of the dma-buf.")
    flags: int = member("flags", default=0, doc="Reserved; 0.")


@register(
    level="SOL_SOCKET",
    type="SCM_DEVMEM_DMABUF",
    layout="u32",
    direction="send",
    families=_IP,
    option=option("SOL_SOCKET", "SO_ZEROCOPY", 0, "4.14"),
    since="6.16",
    needs="TCP on Linux 6.16, SO_ZEROCOPY on the socket, which enable(sock, DevmemSend) sets, the "
    "flag MSG_ZEROCOPY, and a dma-buf that is bound to the device",
)
class DevmemSend(StructMessage):
    """Sends from the dma-buf of that id, with MSG_ZEROCOPY: SCM_DEVMEM_DMABUF. Linux 6.16.

    The addresses of the data are then offsets into it. enable() sets SO_ZEROCOPY, which it needs.
    Documentation/networking/devmem.rst
    """

    __slots__ = ()

    dmabuf: int = member(doc="Id of the dma-buf to send from.")
