"""FreeBSD, NetBSD: who sent a message.

On Linux these are Credentials, SecurityLabel and PidFd.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from ._base import StructMessage, member
from ._mixins import ShownAsMade, numbers, packed_numbers
from ._register import register
from ._row import families, option
from ._time import AttributeRun, names_of

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Cmsgcred", "NetlinkSender", "Sockcred", "Sockcred2"]

_UNIX = families("AF_UNIX")
_IS_NETBSD = sys.platform.startswith("netbsd")
# The size in bytes of the groups that a kernel lists at most: CMGROUP_MAX of FreeBSD, NGROUPS_MAX
# of NetBSD; 4 bytes each.
_GROUPS = 16 * 4


class _WithGroups(ShownAsMade, StructMessage):
    """For credentials that end with an array of groups."""

    __slots__ = ()

    _count: ClassVar[Any]
    _groups: ClassVar[Any]

    @property
    def groups(self) -> tuple[int, ...]:
        """The group ids, the effective one first."""
        found: tuple[int, ...] = self._groups[: max(self._count, 0)]
        return found


@register(
    level="SOL_SOCKET",
    type="SCM_CREDS",
    layout="cmsgcred",
    families=_UNIX,
    unsolicited_size=4 * 5 + _GROUPS,
)
class Cmsgcred(_WithGroups):
    """Who sent this message, struct cmsgcred: SCM_CREDS, unix(4). FreeBSD.

    The sender attaches it (`Cmsgcred()` is enough), and the kernel fills it in, so it cannot be
    forged. A receiver that has set LOCAL_CREDS gets a different struct under the same number, which
    is not decoded: use Sockcred2 there.
    """

    __slots__ = ()

    _SHOWN = ("pid", "uid", "euid", "gid", "groups")

    pid: int = member("cmcred_pid", default=0, doc="Process id of the sender.")
    uid: int = member("cmcred_uid", default=0, doc="Real user id of the sender.")
    euid: int = member("cmcred_euid", default=0, doc="Effective user id of the sender.")
    gid: int = member("cmcred_gid", default=0, doc="Real group id of the sender.")
    _count: ClassVar[Any] = member("cmcred_ngroups", doc="How many groups there are.")
    _groups: ClassVar[Any] = member(
        "cmcred_groups", convert=numbers("I"), doc="The groups, with unused places at the end."
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            pid: int = 0,
            uid: int = 0,
            euid: int = 0,
            gid: int = 0,
            groups: Iterable[int] = (),
        ) -> None: ...

    def __new__(
        cls, pid: int = 0, uid: int = 0, euid: int = 0, gid: int = 0, groups: Iterable[int] = ()
    ) -> Self:
        groups = tuple(groups)
        # _groups is not a Field if the class is not registered; then the base class raises.
        packed = packed_numbers("I", groups, getattr(cls._groups, "size", None))
        return super().__new__(cls, pid, uid, euid, gid, len(groups), packed)


@register(
    level="SOL_SOCKET",
    # On FreeBSD it has the number of Cmsgcred; an option of the receiver decides which one it is.
    type="SCM_CREDS" if _IS_NETBSD else "",
    layout="sockcred",
    direction="receive",
    families=_UNIX,
    option=option("SOL_LOCAL", "LOCAL_CREDS", 24 + _GROUPS),
)
class Sockcred(_WithGroups):
    """Who sent this message, struct sockcred: LOCAL_CREDS, unix(4). NetBSD 8.

    The kernel attaches it to each datagram, or once per connection.
    """

    __slots__ = ()

    _SHOWN = ("pid", "uid", "euid", "gid", "egid", "groups")

    pid: int = member("sc_pid", doc="Process id of the sender.")
    uid: int = member("sc_uid", doc="Real user id of the sender.")
    euid: int = member("sc_euid", doc="Effective user id of the sender.")
    gid: int = member("sc_gid", doc="Real group id of the sender.")
    egid: int = member("sc_egid", doc="Effective group id of the sender.")
    _count: ClassVar[Any] = member("sc_ngroups", doc="How many groups there are.")
    _groups: ClassVar[Any] = member(
        "sc_groups", convert=numbers("I"), doc="The supplementary groups."
    )

    if TYPE_CHECKING:

        def __init__(
            self, pid: int, uid: int, euid: int, gid: int, egid: int, groups: Iterable[int] = ()
        ) -> None: ...

    def __new__(
        cls, pid: int, uid: int, euid: int, gid: int, egid: int, groups: Iterable[int] = ()
    ) -> Self:
        groups = tuple(groups)
        packed = packed_numbers("I", groups)
        return super().__new__(cls, pid, uid, euid, gid, egid, len(groups), packed)


@register(
    level="SOL_SOCKET",
    type="SCM_CREDS2",
    layout="sockcred2",
    direction="receive",
    families=_UNIX,
    option=option("SOL_LOCAL", "LOCAL_CREDS_PERSISTENT", 28 + _GROUPS),
)
class Sockcred2(_WithGroups):
    """Who sent this message, struct sockcred2: LOCAL_CREDS_PERSISTENT, unix(4). FreeBSD 13.

    Attached by the kernel to each message. `version` is 0.
    """

    __slots__ = ()

    _SHOWN = ("pid", "uid", "euid", "gid", "egid", "groups", "version")

    version: int = member("sc_version", doc="Version of the struct: 0.")
    pid: int = member("sc_pid", doc="Process id of the sender.")
    uid: int = member("sc_uid", doc="Real user id of the sender.")
    euid: int = member("sc_euid", doc="Effective user id of the sender.")
    gid: int = member("sc_gid", doc="Real group id of the sender.")
    egid: int = member("sc_egid", doc="Effective group id of the sender.")
    _count: ClassVar[Any] = member("sc_ngroups", doc="How many groups there are.")
    _groups: ClassVar[Any] = member(
        "sc_groups", convert=numbers("I"), doc="The supplementary groups."
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            pid: int,
            uid: int,
            euid: int,
            gid: int,
            egid: int,
            groups: Iterable[int] = (),
            version: int = 0,
        ) -> None: ...

    def __new__(
        cls,
        pid: int,
        uid: int,
        euid: int,
        gid: int,
        egid: int,
        groups: Iterable[int] = (),
        version: int = 0,
    ) -> Self:
        groups = tuple(groups)
        packed = packed_numbers("I", groups)
        return super().__new__(cls, version, pid, uid, euid, gid, egid, len(groups), packed)


@register(
    level="SOL_NETLINK",
    type="NETLINK_MSG_INFO",
    layout="bytes",
    direction="receive",
    families=families("AF_NETLINK"),
    option=option("SOL_NETLINK", "NETLINK_MSG_INFO", 16),
)
class NetlinkSender(AttributeRun):
    """Who sent a netlink message: NETLINK_MSG_INFO, netlink(4). FreeBSD 14.

    `values` has "process_id", and "port_id" of its socket; `attributes` is the payload.
    """

    __slots__ = ()

    _NAMES = names_of("NLMSGINFO_ATTR_")

    attributes: bytes = member(doc="The payload: netlink attributes, of which `values` is read.")
