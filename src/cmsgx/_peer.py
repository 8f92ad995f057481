"""Who is at the other end: who connected, which is not who sent a message."""

from __future__ import annotations

import array
import errno
from typing import TYPE_CHECKING, Any

from . import _cmsg
from ._arguments import needed, os_error
from ._options import need_unix, not_supported, set_int
from .errors import NotSupportedError
from .kinds._base import Signature, member
from .kinds._codec import bind
from .kinds._row import number
from .kinds._unix import IdMapped

if TYPE_CHECKING:
    from ._fds import FileDescriptorLike
    from .kinds._pidfd import PidFd

__all__ = [
    "PeerCredentials",
    "accept_rights",
    "peer_credentials",
    "peer_groups",
    "peer_pidfd",
    "peer_security",
]


class PeerCredentials(_cmsg.Struct, IdMapped):
    """Who connected, or listened, or made the pair: SO_PEERCRED, unix(7). Fixed at that time.

    pid, uid, gid, in the namespaces of this process; `pid` is None where it is not visible here,
    and where the system does not tell it.
    The uid and gid are the effective ones of that time. It says nothing of who writes now: a
    socket can be inherited, or passed on, and a privileged program that writes to it lends it
    nothing here. Never equal to Credentials, which are of one message.
    """

    __slots__ = ()

    if not TYPE_CHECKING:
        __signature__ = Signature()

    pid: int | None = member("pid")
    uid: int = member("uid")
    gid: int = member("gid")


bind(PeerCredentials, (), "peer")


def _option(what: str, name: str) -> int:
    """The number of an option of SOL_SOCKET; NotSupportedError where the system has none."""
    found = number(name)
    if found is None:
        raise NotSupportedError(errno.ENOPROTOOPT, f"{what}: this system has no {name}")
    return found


def _no_peer() -> OSError:
    """For what Linux answers with (None, -1, -1), or with ENODATA."""
    return os_error(errno.ENOTCONN, "sock: it has no peer")


def peer_credentials(sock: FileDescriptorLike) -> PeerCredentials:
    """Who connected: SO_PEERCRED, unix(7). LOCAL_PEERCRED or LOCAL_PEEREID where that is it.

    NotSupportedError on a socket that is not AF_UNIX; OSError ENOTCONN on one without a peer.
    """
    need_unix(sock, "peer_credentials")
    peer: PeerCredentials = PeerCredentials.unpack(_cmsg.getpeer(sock))
    if peer.pid is None and peer.uid == peer.gid == 0xFFFFFFFF:
        raise _no_peer()
    return peer


def peer_pidfd(sock: FileDescriptorLike) -> PidFd:
    """A PidFd of who connected, which the caller owns: SO_PEERPIDFD, Linux 6.5.

    Unlike a pid it cannot come to mean another process. NotSupportedError where the kernel has it
    not, and on a socket that is not AF_UNIX; OSError ENOTCONN on one without a peer;
    ProcessLookupError where an older kernel no longer knows that process.
    """
    need_unix(sock, "peer_pidfd")
    name = _option("peer_pidfd", "SO_PEERPIDFD")
    try:
        return _cmsg.getsockopt_pidfd(sock, _cmsg.SOL_SOCKET, name)
    except OSError as error:
        if error.errno == errno.ENOPROTOOPT:
            raise not_supported(error, "peer_pidfd", "SO_PEERPIDFD", "6.5") from None
        if error.errno == errno.ENODATA:
            raise _no_peer() from None
        if error.errno == errno.EINVAL:
            # What older releases say of it.
            raise os_error(errno.ESRCH, "peer_pidfd: the process is gone") from None
        raise


def peer_groups(sock: FileDescriptorLike) -> tuple[int, ...]:
    """The supplementary groups of who connected: SO_PEERGROUPS, Linux 4.13.

    NotSupportedError where the kernel does not have it, and on a socket that is not AF_UNIX;
    OSError ENOTCONN on one without a peer.
    """
    need_unix(sock, "peer_groups")
    name = _option("peer_groups", "SO_PEERGROUPS")
    size = 64 * _GID
    while True:
        try:
            data = _cmsg.getsockopt(sock, _cmsg.SOL_SOCKET, name, size)
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:
                raise not_supported(error, "peer_groups", "SO_PEERGROUPS", "4.13") from None
            if error.errno == errno.ENODATA:
                raise _no_peer() from None
            if error.errno != errno.ERANGE or size > _MOST_GROUPS * _GID:
                raise
            size *= 4
        else:
            return tuple(array.array("I", data))


_GID = 4
_MOST_GROUPS = 65536  # NGROUPS_MAX


def peer_security(sock: FileDescriptorLike) -> bytes | None:
    """The security label of who connected: SO_PEERSEC, unix(7). None where there is none.

    NotSupportedError on a socket that is not AF_UNIX.
    """
    need_unix(sock, "peer_security")
    name = number("SO_PEERSEC")
    size = 256
    while name is not None:
        try:
            data = _cmsg.getsockopt(sock, _cmsg.SOL_SOCKET, name, size)
        except OSError as error:
            if error.errno == errno.ENOPROTOOPT:
                return None
            if error.errno != errno.ERANGE or size > 65536:
                raise
            size *= 4
        else:
            return data.removesuffix(b"\0")
    return None


def accept_rights(sock: FileDescriptorLike, accept: bool) -> None:
    """Whether peers may queue descriptors on `sock`: SO_PASSRIGHTS, Linux 6.16.

    With False a peer that tries gets EPERM. An accepted socket inherits it, so set it on the
    listener, and allow descriptors once the peer has proved who it is; what is queued already
    still arrives. NotSupportedError where the kernel does not have it, and on a socket that is not
    AF_UNIX: there, receive with fds=0 until then, which has them dropped.
    """
    need_unix(sock, "accept_rights")
    name = _option("accept_rights", "SO_PASSRIGHTS")
    given: Any = accept
    if not isinstance(given, int):
        raise needed("accept", "True or False", given)
    try:
        set_int(sock, _cmsg.SOL_SOCKET, name, bool(accept))
    except OSError as error:
        if error.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise not_supported(error, "accept_rights", "SO_PASSRIGHTS", "6.16") from None
        raise
