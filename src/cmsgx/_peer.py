"""Who is at the other end of a connection, which need not be who sent a message."""

from __future__ import annotations

import array
import errno
from typing import TYPE_CHECKING, Any

from . import _cmsg
from ._arguments import needed, os_error
from ._options import need_unix, set_int
from ._setting import not_supported
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
    """Who connected, listened, or made the socket pair: SO_PEERCRED, unix(7).

    The kernel recorded `pid`, `uid` and `gid` at that time, the effective ids; they are given in
    the namespaces of this process. `pid` is None if the process is not visible here, or if the
    system does not report it. This does not say who writes now: a socket can be inherited or passed
    on, and a privileged program that writes to it does not change these ids. Never equal to
    Credentials, which are those of one message.
    """

    __slots__ = ()

    if not TYPE_CHECKING:
        __signature__ = Signature()

    pid: int | None = member(
        "pid", doc="The process; None if it is not visible here, or the system does not report it."
    )
    uid: int = member("uid", doc="The effective user id of the process.")
    gid: int = member("gid", doc="The effective group id of the process.")


bind(PeerCredentials, (), "peer")


def _option(what: str, name: str) -> int:
    """The number of an option of SOL_SOCKET; NotSupportedError if this system lacks it."""
    found = number(name)
    if found is None:
        raise NotSupportedError(errno.ENOPROTOOPT, f"{what}: this system has no {name}")
    return found


def _no_peer() -> OSError:
    """The error for a socket without a peer, for which Linux gives (0, -1, -1), or ENODATA."""
    return os_error(errno.ENOTCONN, "sock: it has no peer")


def peer_credentials(sock: FileDescriptorLike) -> PeerCredentials:
    """Who connected: SO_PEERCRED, unix(7); LOCAL_PEERCRED or LOCAL_PEEREID on the BSDs and macOS.

    NotSupportedError if the socket is not AF_UNIX; OSError ENOTCONN if it has no peer.
    """
    need_unix(sock, "peer_credentials")
    peer: PeerCredentials = PeerCredentials.unpack(_cmsg.getpeer(sock))
    if peer.pid is None and peer.uid == peer.gid == 0xFFFFFFFF:
        raise _no_peer()
    return peer


def peer_pidfd(sock: FileDescriptorLike) -> PidFd:
    """A PidFd, owned by the caller, of the process that connected: SO_PEERPIDFD, Linux 6.5.

    Unlike a pid, it cannot come to mean another process. NotSupportedError if the kernel lacks the
    option, or the socket is not AF_UNIX; OSError ENOTCONN if it has no peer; ProcessLookupError if
    an older kernel no longer knows the process.
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
            # Older kernels report a process that is gone by EINVAL.
            raise os_error(errno.ESRCH, "peer_pidfd: the process is gone") from None
        raise


def peer_groups(sock: FileDescriptorLike) -> tuple[int, ...]:
    """The supplementary groups of the process that connected: SO_PEERGROUPS, Linux 4.13.

    NotSupportedError if the kernel lacks the option, or the socket is not AF_UNIX; OSError ENOTCONN
    if it has no peer.
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
    """The security label of the process that connected: SO_PEERSEC, unix(7). None if it has none.

    Without the NUL that some security modules append. NotSupportedError if the socket is not
    AF_UNIX.
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
    """Sets whether peers may send descriptors to `sock`: SO_PASSRIGHTS, Linux 6.16.

    If `accept` is False, a peer that tries gets EPERM. Accepted sockets inherit the setting: switch
    it off on the listener, and allow descriptors once the peer has proved who it is. Descriptors
    that are already queued still arrive. NotSupportedError if the kernel lacks the option (then
    receive with fds=0 until that point, so that the kernel drops them), or if the socket is not
    AF_UNIX.
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
