"""RDS: rds(7), rds-rdma(7)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from .._arguments import as_tuple
from ._base import StructMessage, member
from ._mixins import ShownAsMade, numbers, packed_numbers
from ._register import register
from ._row import KindOption, OpenEnum, Option, check_int, constant, families, option
from ._table import row_of

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "RdsAtomicAdd",
    "RdsAtomicCompareSwap",
    "RdsCongestionUpdate",
    "RdsFlags",
    "RdsMaskedAtomicAdd",
    "RdsMaskedAtomicCompareSwap",
    "RdsRdmaArgs",
    "RdsRdmaDestination",
    "RdsRdmaMap",
    "RdsRdmaStatus",
    "RdsReceiveLatency",
    "RdsReceiveStage",
    "RdsStatus",
    "RdsZeroCopyCompletion",
    "RdsZeroCopyCookie",
]

_RDS = families("AF_RDS")


class RdsFlags(enum.IntFlag, boundary=enum.KEEP):
    """RDS_RDMA_*: how an RDMA or atomic operation is done. rds-rdma(7)"""

    READWRITE = constant("RDS_RDMA_READWRITE")
    """Writes to the peer's memory, or lets it write; without it, reads."""
    FENCE = constant("RDS_RDMA_FENCE")
    """Later operations wait until the read is done."""
    INVALIDATE = constant("RDS_RDMA_INVALIDATE")
    """The key is invalidated when the mapping is freed."""
    USE_ONCE = constant("RDS_RDMA_USE_ONCE")
    """The mapping is freed after one use."""
    DONTWAIT = constant("RDS_RDMA_DONTWAIT")
    """The mapping is freed without waiting."""
    NOTIFY_ME = constant("RDS_RDMA_NOTIFY_ME")
    """RdsRdmaStatus reports how it ended."""
    SILENT = constant("RDS_RDMA_SILENT")
    """It is sent without a message."""


class RdsStatus(OpenEnum):
    """RDS_RDMA_*: how an operation ended. rds-rdma(7)"""

    SUCCESS = constant("RDS_RDMA_SUCCESS")
    REMOTE_ERROR = constant("RDS_RDMA_REMOTE_ERROR")
    CANCELED = constant("RDS_RDMA_CANCELED")
    DROPPED = constant("RDS_RDMA_DROPPED")
    OTHER_ERROR = constant("RDS_RDMA_OTHER_ERROR")


class RdsReceiveStage(OpenEnum):
    """RDS_MSG_RX_*: a stage of a message's path through the kernel. linux/rds.h"""

    HDR_TO_DGRAM_START = constant("RDS_MSG_RX_HDR_TO_DGRAM_START")
    DGRAM_REASSEMBLE = constant("RDS_MSG_RX_DGRAM_REASSEMBLE")
    DGRAM_DELIVERED = constant("RDS_MSG_RX_DGRAM_DELIVERED")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_RDMA_ARGS",
    layout="rds_rdma_args",
    direction="send",
    families=_RDS,
    since="2.6.30",
    needs="a transport that has RDMA, and neither RdsRdmaDestination nor RdsRdmaMap beside it",
)
class RdsRdmaArgs(StructMessage):
    """An RDMA read or write that accompanies the message, struct rds_rdma_args: rds-rdma(7).

    The `cookie` that the peer sent names its memory; `remote_address` and `remote_size` (in bytes)
    are a range within that. `local_vector` is the address of an array of `local_count` struct
    rds_iovec. Their memory has to stay valid until an RdsRdmaStatus with this `user_token` arrives.
    EINVAL together with RdsRdmaDestination or RdsRdmaMap.
    """

    __slots__ = ()

    cookie: int = member("cookie", doc="Cookie that names the peer's memory.")
    remote_address: int = member(
        "remote_vec.addr", doc="Start of the range within the memory that `cookie` names."
    )
    remote_size: int = member("remote_vec.bytes", doc="Bytes of the peer's memory.")
    local_vector: int = member("local_vec_addr", doc="Address of the array of struct rds_iovec.")
    local_count: int = member("nr_local", doc="How many struct rds_iovec there are.")
    flags: RdsFlags = member("flags", default=0, convert=RdsFlags, doc="What to do, and how.")
    user_token: int = member("user_token", default=0, doc="Any number; RdsRdmaStatus returns it.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_RDMA_DEST",
    layout="u64",
    families=_RDS,
    unsolicited_size=8,
    since="2.6.30",
)
class RdsRdmaDestination(StructMessage):
    """The cookie that names memory for the peer's RDMA, sent and received: rds-rdma(7).

    It comes from RDS_GET_MR. Received without an option.
    """

    __slots__ = ()

    cookie: int = member(doc="Cookie that names the memory.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_RDMA_MAP",
    layout="rds_get_mr_args",
    direction="send",
    families=_RDS,
    since="2.6.30",
    needs="a transport that has RDMA, and no RdsRdmaArgs beside it",
)
class RdsRdmaMap(StructMessage):
    """Maps memory and tells the peer its cookie, struct rds_get_mr_args: rds-rdma(7).

    `size` bytes at `address`. If `cookie_address` is not 0, the cookie is also written there.
    Arrives as RdsRdmaDestination.
    """

    __slots__ = ()

    address: int = member("vec.addr", doc="Address of the memory.")
    size: int = member("vec.bytes", doc="Size of the memory in bytes.")
    cookie_address: int = member(
        "cookie_addr", default=0, doc="Address to which the cookie is also written; 0: none."
    )
    flags: RdsFlags = member(
        "flags", default=0, convert=RdsFlags, doc="How the memory may be used."
    )


@register(
    level="SOL_RDS",
    type="RDS_CMSG_RDMA_STATUS",
    layout="rds_rdma_notify",
    direction="receive",
    families=_RDS,
    option=option("SOL_RDS", "RDS_RECVERR", 0),
    unsolicited_size=16,
    since="2.6.30",
)
class RdsRdmaStatus(StructMessage):
    """How an RDMA or atomic operation with RdsFlags.NOTIFY_ME ended: rds-rdma(7).

    `user_token` is that of the operation. Arrives in a message without data, which has as many as
    fit. enable() sets RDS_RECVERR, which reports failures without NOTIFY_ME too.
    """

    __slots__ = ()

    user_token: int = member("user_token", doc="The `user_token` of the operation.")
    status: RdsStatus = member("status", convert=RdsStatus, doc="How the operation ended.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_CONG_UPDATE",
    layout="u64",
    direction="receive",
    families=_RDS,
    option=option("SOL_RDS", "RDS_CONG_MONITOR", 8, "2.6.30"),
)
class RdsCongestionUpdate(StructMessage):
    """Ports that are no longer congested: RDS_CONG_MONITOR, rds(7).

    Bit N of `ports` stands for each port that is N modulo 64. Arrives in a message without data.
    """

    __slots__ = ()

    ports: int = member(doc="Bit N: ports that are N modulo 64 are no longer congested.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_ATOMIC_FADD",
    layout="rds_atomic_fadd",
    direction="send",
    families=_RDS,
    since="2.6.37",
)
class RdsAtomicAdd(StructMessage):
    """Adds to 64 bits of the peer's memory: RDS_CMSG_ATOMIC_FADD. Linux 2.6.37.

    They are at `remote_address` in the memory that `cookie` names. The previous value is written to
    the 8 bytes at `local_address`, which have to stay valid until RdsRdmaStatus arrives.
    """

    __slots__ = ()

    cookie: int = member("cookie", doc="Cookie that names the peer's memory.")
    local_address: int = member("local_addr", doc="Address of the 8 bytes that get the old value.")
    remote_address: int = member(
        "remote_addr", doc="Place of the 64 bits within the memory that `cookie` names."
    )
    add: int = member("fadd.add", doc="What is added.")
    flags: RdsFlags = member("flags", default=0, convert=RdsFlags, doc="How the operation is done.")
    user_token: int = member("user_token", default=0, doc="Any number; RdsRdmaStatus returns it.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_ATOMIC_CSWP",
    layout="rds_atomic_cswp",
    direction="send",
    families=_RDS,
    since="2.6.37",
)
class RdsAtomicCompareSwap(StructMessage):
    """Sets 64 bits of the peer's memory to `swap` if they equal `compare`: RDS_CMSG_ATOMIC_CSWP.

    Linux 2.6.37. The addresses are those of RdsAtomicAdd.
    """

    __slots__ = ()

    cookie: int = member("cookie", doc="Cookie that names the peer's memory.")
    local_address: int = member("local_addr", doc="Address of the 8 bytes that get the old value.")
    remote_address: int = member(
        "remote_addr", doc="Place of the 64 bits within the memory that `cookie` names."
    )
    compare: int = member("cswp.compare", doc="Value that is expected.")
    swap: int = member("cswp.swap", doc="Value that is written.")
    flags: RdsFlags = member("flags", default=0, convert=RdsFlags, doc="How the operation is done.")
    user_token: int = member("user_token", default=0, doc="Any number; RdsRdmaStatus returns it.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_MASKED_ATOMIC_FADD",
    layout="rds_atomic_m_fadd",
    direction="send",
    families=_RDS,
    since="2.6.37",
)
class RdsMaskedAtomicAdd(StructMessage):
    """RdsAtomicAdd for several numbers in the 64 bits: RDS_CMSG_MASKED_ATOMIC_FADD. Linux 2.6.37.

    There is no carry out of the bits that are set in `nocarry_mask`.
    """

    __slots__ = ()

    cookie: int = member("cookie", doc="Cookie that names the peer's memory.")
    local_address: int = member("local_addr", doc="Address of the 8 bytes that get the old value.")
    remote_address: int = member(
        "remote_addr", doc="Place of the 64 bits within the memory that `cookie` names."
    )
    add: int = member("m_fadd.add", doc="What is added.")
    nocarry_mask: int = member("m_fadd.nocarry_mask", doc="Bits out of which nothing is carried.")
    flags: RdsFlags = member("flags", default=0, convert=RdsFlags, doc="How the operation is done.")
    user_token: int = member("user_token", default=0, doc="Any number; RdsRdmaStatus returns it.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_MASKED_ATOMIC_CSWP",
    layout="rds_atomic_m_cswp",
    direction="send",
    families=_RDS,
    since="2.6.37",
)
class RdsMaskedAtomicCompareSwap(StructMessage):
    """RdsAtomicCompareSwap for some of the 64 bits: RDS_CMSG_MASKED_ATOMIC_CSWP. Linux 2.6.37.

    The bits in `compare_mask` are compared, and those in `swap_mask` are set.
    """

    __slots__ = ()

    cookie: int = member("cookie", doc="Cookie that names the peer's memory.")
    local_address: int = member("local_addr", doc="Address of the 8 bytes that get the old value.")
    remote_address: int = member(
        "remote_addr", doc="Place of the 64 bits within the memory that `cookie` names."
    )
    compare: int = member("m_cswp.compare", doc="Value that is expected.")
    swap: int = member("m_cswp.swap", doc="Value that is written.")
    compare_mask: int = member("m_cswp.compare_mask", doc="Bits that are compared.")
    swap_mask: int = member("m_cswp.swap_mask", doc="Bits that are written.")
    flags: RdsFlags = member("flags", default=0, convert=RdsFlags, doc="How the operation is done.")
    user_token: int = member("user_token", default=0, doc="Any number; RdsRdmaStatus returns it.")


def _traces(stages: Iterable[int]) -> Option | None:
    """The option with a struct rds_rx_trace_so: the number of stages, and their numbers."""
    some = tuple(stages)
    value = bytes([len(some), *some])
    return option("SOL_RDS", "SO_RDS_MSG_RXPATH_LATENCY", 32, "4.11", value=value)


@register(
    level="SOL_RDS",
    type="RDS_CMSG_RXPATH_LATENCY",
    layout="rds_cmsg_rx_trace",
    direction="receive",
    families=_RDS,
    option=_traces(RdsReceiveStage),
)
class RdsReceiveLatency(ShownAsMade, StructMessage):
    """How long a message took to pass through the kernel: SO_RDS_MSG_RXPATH_LATENCY. Linux 4.11.

    `latencies` maps each stage to nanoseconds. enable() requests all stages,
    RdsReceiveLatency.option() some of them.
    """

    __slots__ = ()

    _SHOWN = ("latencies",)

    _count: ClassVar[Any] = member("rx_traces", doc="How many stages there are.")
    _stages: ClassVar[Any] = member("rx_trace_pos", convert=tuple, doc="Numbers of the stages.")
    _times: ClassVar[Any] = member(
        "rx_trace", convert=numbers("Q"), doc="Nanoseconds of each stage."
    )

    if TYPE_CHECKING:

        def __init__(self, latencies: Mapping[int, int]) -> None: ...

    def __new__(cls, latencies: Mapping[int, int]) -> Self:
        return super().__new__(
            cls,
            len(latencies),
            packed_numbers("B", latencies, cls._stages.size),
            packed_numbers("Q", latencies.values(), cls._times.size),
        )

    @classmethod
    def option(cls, stages: Iterable[int] | None = None) -> KindOption:
        """Chooses the stages that are timed, for `want=` and enable(): SO_RDS_MSG_RXPATH_LATENCY.

        `stages` are members of RdsReceiveStage, each once, in the order in which `latencies` will
        have them; None means all. This replaces the previous setting.
        """
        row_of(cls)
        if stages is None:
            return super().option()
        given = as_tuple("stages", "an iterable of RdsReceiveStage", stages)
        some = [check_int("stages", stage, 0, len(RdsReceiveStage) - 1) for stage in given]
        if not some:
            raise ValueError(f"stages: {some}; one RdsReceiveStage at least is needed")
        if len(set(some)) < len(some):
            raise ValueError(f"stages: {some}; give each once")
        names = ", ".join([RdsReceiveStage(stage).name for stage in some])
        one = _traces(some)
        return KindOption(cls, () if one is None else ((one,),), f"[{names}]")

    @property
    def latencies(self) -> dict[RdsReceiveStage, int]:
        """The nanoseconds of each stage."""
        stages: tuple[int, ...] = self._stages[: self._count]
        return {
            RdsReceiveStage(stage): time for stage, time in zip(stages, self._times, strict=False)
        }


@register(
    level="SOL_RDS",
    type="RDS_CMSG_ZCOPY_COOKIE",
    layout="u32",
    direction="send",
    families=_RDS,
    option=option("SOL_SOCKET", "SO_ZEROCOPY", 0, "4.17"),
    since="4.17",
    needs="the flag MSG_ZEROCOPY, and SO_ZEROCOPY on the socket: enable(sock, RdsZeroCopyCookie)",
)
class RdsZeroCopyCookie(StructMessage):
    """A number for a message that is sent with MSG_ZEROCOPY: RDS_CMSG_ZCOPY_COOKIE. Linux 4.17.

    RdsZeroCopyCompletion reports that its memory is free again. Enabling either kind sets
    SO_ZEROCOPY, which MSG_ZEROCOPY needs.
    """

    __slots__ = ()

    cookie: int = member(doc="Any number, 32 bits; RdsZeroCopyCompletion returns it.")


@register(
    level="SOL_RDS",
    type="RDS_CMSG_ZCOPY_COMPLETION",
    layout="rds_zcopy_cookies",
    direction="receive",
    families=_RDS,
    option=option("SOL_SOCKET", "SO_ZEROCOPY", 36, "4.17"),
)
class RdsZeroCopyCompletion(ShownAsMade, StructMessage):
    """The cookies of messages whose memory the kernel is done with: RdsZeroCopyCookie. Linux 4.17.

    At most 8 of them. Arrives with an ordinary receive, not on the error queue.
    """

    __slots__ = ()

    _SHOWN = ("cookies",)

    _count: ClassVar[Any] = member("num", doc="How many cookies there are.")
    _cookies: ClassVar[Any] = member(
        "cookies", convert=numbers("I"), doc="The cookies, with unused places at the end."
    )

    if TYPE_CHECKING:

        def __init__(self, cookies: Iterable[int]) -> None: ...

    def __new__(cls, cookies: Iterable[int]) -> Self:
        cookies = tuple(cookies)
        return super().__new__(cls, len(cookies), packed_numbers("I", cookies, cls._cookies.size))

    @property
    def cookies(self) -> tuple[int, ...]:
        """The cookies of the messages, each as in its RdsZeroCopyCookie."""
        found: tuple[int, ...] = self._cookies[: self._count]
        return found
