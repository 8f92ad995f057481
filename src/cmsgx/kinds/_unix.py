"""What travels over AF_UNIX sockets: descriptors and identities. unix(7)"""

from __future__ import annotations

import array
import os
import socket as _socket
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, overload

from .. import _cmsg
from .._fds import Fd, FileDescriptorLike, PidFd
from ..errors import MalformedControlError
from ._base import Buffer, ControlMessage, Option, register

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Credentials", "PidFd", "Rights", "SecurityLabel"]

_UNIX = frozenset({_socket.AF_UNIX})
_UNIX_AND_NETLINK = _UNIX | {_socket.AF_NETLINK} if hasattr(_socket, "AF_NETLINK") else _UNIX


class _Unowned(tuple[int, ...]):
    """Numbers that came out of a buffer: own() takes them over once."""

    tickets: list[bool]


class Rights(ControlMessage):
    """Descriptors, in order: SCM_RIGHTS, unix(7). At most 253 in one message.

    Rights(fds) is for sending, and borrows. In a received message its items are the Fds of
    `msg.fds`, which the message owns. From unpack() they are numbers that nobody owns, until
    own().
    """

    __slots__ = ("fds",)

    fds: tuple[FileDescriptorLike, ...]

    def __new__(cls, fds: Iterable[FileDescriptorLike]) -> Self:
        return super().__new__(cls, fds if isinstance(fds, _Unowned) else tuple(fds))

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
        numbers = (fd if isinstance(fd, int) else fd.fileno() for fd in self.fds)
        return array.array("i", numbers).tobytes()

    @classmethod
    def unpack(cls, data: Buffer, /) -> Self:
        """From a payload, int fd[n]: holds the numbers, and owns none of them."""
        numbers = array.array("i")
        raw = bytes(data)
        if len(raw) % numbers.itemsize:
            raise MalformedControlError(
                f"Rights: {len(raw)} bytes came, which is no multiple of {numbers.itemsize}"
            )
        numbers.frombytes(raw)
        unowned = _Unowned(numbers)
        unowned.tickets = [True]
        return cls(unowned)

    def own(self) -> tuple[Fd, ...]:
        """The Fds that own the descriptors, once; then ValueError."""
        if not isinstance(self.fds, _Unowned):
            raise ValueError(
                "only what unpack() or decode() made can be owned so; a message has take()"
            )
        return Fd._own_all(tuple(self.fds), self.fds.tickets)


class IdMapped:
    """For what has a `uid` and a `gid` that were translated into this user namespace."""

    __slots__ = ()

    uid: int
    gid: int

    @property
    def uid_mapped(self) -> bool | None:
        """Whether `uid` is a user of this user namespace: user_namespaces(7).

        False where it stands for a user that has no id here; None where it may be either, the
        overflow id (65534) being an id like another here.
        """
        return _is_mapped(self.uid, "uid")

    @property
    def gid_mapped(self) -> bool | None:
        """The same for `gid`."""
        return _is_mapped(self.gid, "gid")


def _is_mapped(number: int, which: str) -> bool | None:
    with open(f"/proc/sys/kernel/overflow{which}", encoding="ascii") as file:
        if number != int(file.read()):
            return True
    with open(f"/proc/self/{which}_map", encoding="ascii") as file:
        ranges = [tuple(map(int, line.split())) for line in file]
    return None if any(first <= number < first + count for first, _, count in ranges) else False


class Credentials(ControlMessage, IdMapped):
    """Who sent this message, as the kernel checked it then: SCM_CREDENTIALS, unix(7).

    pid, uid, gid, in the namespaces of this process. `pid` is None where the sender is not
    visible here. Without arguments: one's own, the real ids. Linux attaches the sender's real
    uid and gid, where it gives none itself. A sender with CAP_SYS_ADMIN may give any pid, one
    with CAP_SETUID or CAP_SETGID any uid or gid: then this is what a privileged process asserts.
    A pid can be reused as soon as the process is reaped; PidFd cannot.

    `attached` is False where no credentials were attached, which looks like (None, 65534, 65534):
    data that was queued before SO_PASSCRED was set. It is None where that cannot be told: only a
    PidFd that was asked for too tells it from a nobody of another pid namespace.
    """

    __slots__ = ("attached", "gid", "pid", "uid")

    pid: int | None
    uid: int
    gid: int
    attached: bool | None

    def __new__(cls, pid: int | None = -1, uid: int = -1, gid: int = -1) -> Self:
        return super().__new__(
            cls,
            os.getpid() if pid == -1 else pid or None,
            os.getuid() if uid == -1 else uid,
            os.getgid() if gid == -1 else gid,
        )


class SecurityLabel(ControlMessage):
    """The label of the sender's process by the Linux security module: SCM_SECURITY, unix(7).

    `label` is bytes, without the NUL that some modules append. Only attached where a module that
    has labels (SELinux, Smack) is active.
    """

    __slots__ = ("label",)

    label: bytes

    def __str__(self) -> str:
        return os.fsdecode(self.label)

    def pack(self) -> bytes:
        """The payload: the label."""
        return self.label

    @classmethod
    def unpack(cls, data: Buffer, /) -> Self:
        """From a payload, with or without a NUL behind."""
        return cls(bytes(data).removesuffix(b"\0"))


register(
    Rights,
    level=_cmsg.SOL_SOCKET,
    type=_cmsg.SCM_RIGHTS,
    families=_UNIX,
)
if hasattr(_cmsg, "SCM_CREDENTIALS"):
    register(
        Credentials,
        level=_cmsg.SOL_SOCKET,
        type=_cmsg.SCM_CREDENTIALS,
        size=_cmsg.UCRED_SIZE,
        layout=(
            ("pid", _cmsg.UCRED_PID, "P"),
            ("uid", _cmsg.UCRED_UID, "I"),
            ("gid", _cmsg.UCRED_GID, "I"),
        ),
        extra="attached",
        families=_UNIX_AND_NETLINK,
        option=Option(_cmsg.SOL_SOCKET, _cmsg.SO_PASSCRED, "SO_PASSCRED", 12),
    )
if hasattr(_cmsg, "SCM_SECURITY"):
    register(
        SecurityLabel,
        level=_cmsg.SOL_SOCKET,
        type=_cmsg.SCM_SECURITY,
        direction="receive",
        families=_UNIX_AND_NETLINK,
        option=Option(_cmsg.SOL_SOCKET, _cmsg.SO_PASSSEC, "SO_PASSSEC", 4096),
    )
if hasattr(_cmsg, "SCM_PIDFD"):
    register(
        PidFd,
        level=_cmsg.SOL_SOCKET,
        type=_cmsg.SCM_PIDFD,
        direction="receive",
        families=_UNIX,
        option=Option(_cmsg.SOL_SOCKET, _cmsg.SO_PASSPIDFD, "SO_PASSPIDFD", 4, since="6.5"),
    )

_cmsg.register("Rights", Rights)
_cmsg.register("Credentials", Credentials)
