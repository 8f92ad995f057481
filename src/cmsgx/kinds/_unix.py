"""AF_UNIX sockets: descriptors and identities. unix(7)"""

from __future__ import annotations

import array
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NoReturn, SupportsIndex, overload

from .. import _cmsg
from .._arguments import Buffer, as_bytes
from .._fds import Fd, FileDescriptorLike, FileDescriptors
from ..errors import MalformedControlError
from ._base import ControlMessage, StructMessage, member
from ._pidfd import PidFd
from ._register import register
from ._row import IS_LINUX, families, option, wire_format

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Credentials", "Inq", "PidFd", "Rights", "SecurityLabel"]

_UNIX = families("AF_UNIX")
_UNIX_AND_MORE = families("AF_UNIX", "AF_NETLINK", "AF_BLUETOOTH")
_IP = families("AF_INET", "AF_INET6")


class _Unowned(tuple[int, ...]):
    """Numbers read from a buffer: own() takes them over, once."""

    tickets: list[bool]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "unowned descriptors can be owned only once: they cannot be copied or pickled"
        )


class Rights(ControlMessage):
    """Descriptors, in order: SCM_RIGHTS, unix(7). At most 253 in one message.

    Rights(fds) is for sending: `fds` is an iterable of descriptors, or one object with fileno(),
    and the caller keeps owning them. In a received message its items are the Fds of `msg.fds`,
    which the message owns. From unpack() they are numbers that nobody owns, until own().
    """

    __slots__ = {"fds": "The descriptors, in order: numbers, or objects with fileno()."}
    __match_args__ = ("fds",)

    fds: tuple[FileDescriptorLike, ...]

    def __new__(cls, fds: FileDescriptors) -> Self:
        return super().__new__(cls, fds if isinstance(fds, _Unowned) else _cmsg.listed_fds(fds))

    def __len__(self) -> int:
        return len(self.fds)

    @overload
    def __getitem__(self, index: int, /) -> FileDescriptorLike: ...
    @overload
    def __getitem__(self, index: slice, /) -> tuple[FileDescriptorLike, ...]: ...
    def __getitem__(
        self, index: int | slice, /
    ) -> FileDescriptorLike | tuple[FileDescriptorLike, ...]:
        return self.fds[index]

    def __iter__(self) -> Iterator[FileDescriptorLike]:
        return iter(self.fds)

    def __bool__(self) -> bool:
        return True

    def pack(self) -> bytes:
        """The payload: int fd[n]."""
        numbers = [fd if isinstance(fd, int) else fd.fileno() for fd in self.fds]
        return array.array("i", numbers).tobytes()

    @classmethod
    def unpack(cls, data: Buffer, /) -> Self:
        """Makes one from a payload, int fd[n]. It holds the numbers, but owns none of them."""
        numbers = array.array("i")
        raw = as_bytes(data)
        if len(raw) % numbers.itemsize:
            raise MalformedControlError(
                f"Rights: {len(raw)} bytes received, which is not a multiple of {numbers.itemsize}"
            )
        numbers.frombytes(raw)
        unowned = _Unowned(numbers)
        unowned.tickets = [True]
        return cls(unowned)

    def own(self) -> tuple[Fd, ...]:
        """Fds that own the descriptors. A second call is a ValueError."""
        if not isinstance(self.fds, _Unowned):
            raise ValueError(
                "only the result of unpack() or decode() can be owned; for a message use take()"
            )
        return Fd._own_all(tuple(self.fds), self.fds.tickets)


class IdMapped:
    """For kinds whose `uid` and `gid` are translated into this user namespace."""

    __slots__ = ()

    uid: int
    gid: int

    @property
    def uid_mapped(self) -> bool | None:
        """Whether `uid` is the id of a user in this user namespace: user_namespaces(7).

        False if it stands for a user without an id here. None if that is unknown: the overflow id
        (65534) is also an ordinary id here, or /proc, which shows that, cannot be read.
        """
        return _is_mapped(self.uid, "uid")

    @property
    def gid_mapped(self) -> bool | None:
        """The same for `gid`."""
        return _is_mapped(self.gid, "gid")


def _overflow_id(which: str) -> int:
    """The id that stands for all those without an id in this user namespace: user_namespaces(7)."""
    try:
        with open(f"/proc/sys/kernel/overflow{which}", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534  # the kernel's default


# Read once, not for each message: later there may be no /proc.
_OVERFLOW_IDS = {"uid": _overflow_id("uid"), "gid": _overflow_id("gid")}
_cmsg.set_overflow_ids(_OVERFLOW_IDS["uid"], _OVERFLOW_IDS["gid"])


def _is_mapped(number: int, which: Literal["uid", "gid"]) -> bool | None:
    # Only Linux translates ids, and only to the overflow id.
    if not IS_LINUX or number != _OVERFLOW_IDS[which]:
        return True
    try:
        with open(f"/proc/self/{which}_map", encoding="ascii") as file:
            ranges = [tuple(map(int, line.split())) for line in file]
    except OSError:
        return None  # no /proc, or no free descriptor to read it with
    return None if any(first <= number < first + count for first, _, count in ranges) else False


@register(
    level="SOL_SOCKET",
    type="SCM_CREDENTIALS",
    layout="ucred",
    direction="receive",
    families=_UNIX_AND_MORE,
    option=option("SOL_SOCKET", "SO_PASSCRED", 12, "2.2"),
    other_forms=[
        wire_format(
            "SOL_SOCKET", "SCM_CREDENTIALS",
            direction="send", families=families("AF_UNIX", "AF_NETLINK"),
        ),
    ],
    needs="one's own pid, uid and gid; CAP_SYS_ADMIN for another pid, CAP_SETUID for another uid, "
    "CAP_SETGID for another gid; ids that the user namespace has",
)  # fmt: skip
class Credentials(StructMessage, IdMapped):
    """Who sent this message, as the kernel checked it then: SCM_CREDENTIALS, unix(7).

    `pid`, `uid` and `gid` are given in the namespaces of this process. `pid` is None if the sender
    is not visible here. Credentials() without arguments has your own pid and real ids. If the
    sender passes none, Linux attaches its real uid and gid. A sender with CAP_SYS_ADMIN may pass
    any pid, and one with CAP_SETUID or CAP_SETGID any uid or gid: then this is only what a
    privileged process asserts. A pid can be reused as soon as the process is reaped; a PidFd
    cannot.

    `attached` is False if no credentials were attached, because the data was queued before
    SO_PASSCRED was set; they then look like (None, 65534, 65534). It is None if that is unknown:
    only a PidFd, if you request that too, distinguishes it from the user nobody in another pid
    namespace.
    """

    __slots__ = ()

    pid: int | None = member(
        "pid", default=-1, doc="Process id of the sender; None if it is not visible here."
    )
    uid: int = member("uid", default=-1, doc="User id of the sender.")
    gid: int = member("gid", default=-1, doc="Group id of the sender.")

    def __new__(cls, pid: int | None = -1, uid: int = -1, gid: int = -1) -> Self:
        return super().__new__(
            cls,
            os.getpid() if pid == -1 else pid or None,
            os.getuid() if uid == -1 else uid,
            os.getgid() if gid == -1 else gid,
        )

    @property
    def attached(self) -> bool | None:
        """Whether credentials were attached at all; None if that is unknown."""
        return (None, False, True)[self._attached_state]


@register(
    level="SOL_SOCKET",
    type="SCM_SECURITY",
    layout="bytes",
    encoding="without NUL",
    direction="receive",
    families=_UNIX_AND_MORE,
    option=(
        option("SOL_SOCKET", "SO_PASSSEC", 4096, "2.6.18", families=_UNIX_AND_MORE),
        option("SOL_IP", "IP_PASSSEC", 4096, "2.6.17", families=_IP),
    ),
    other_forms=[wire_format("SOL_IP", "SCM_SECURITY", "without NUL", families=_IP)],
)
class SecurityLabel(StructMessage):
    """The label that the Linux security module gave the sender's process: SCM_SECURITY, unix(7).

    `label` is bytes, without the NUL that some modules append. Attached only if a module with
    labels (SELinux, Smack) is active. For an IPv4 packet it is the label of the packet, from
    labeled IPsec or NetLabel: IP_PASSSEC, ip(7).
    """

    __slots__ = ()

    label: bytes = member(doc="The label, without a trailing NUL.")

    def __str__(self) -> str:
        return os.fsdecode(self.label)


register(
    Rights,
    level="SOL_SOCKET",
    type="SCM_RIGHTS",
    families=_UNIX,
    needs="at most 253 descriptors, none of io_uring, and a receiver that takes them: "
    "SO_PASSRIGHTS",
)
register(
    PidFd,
    level="SOL_SOCKET",
    type="SCM_PIDFD",
    direction="receive",
    families=_UNIX,
    option=option("SOL_SOCKET", "SO_PASSPIDFD", 4, "6.5"),
)


@register(
    level="SOL_SOCKET",
    type="SCM_INQ",
    layout="int",
    direction="receive",
    families=_UNIX,
    option=option("SOL_SOCKET", "SO_INQ", 4, "6.17"),
)
class Inq(StructMessage):
    """The number of bytes still queued after this message: SO_INQ, Linux 6.17.

    On SOCK_STREAM sockets only.
    """

    __slots__ = ()

    nbytes: int = member(doc="Bytes that are still queued.")
