"""In place of the socket module's functions: as functions, as a class, or patched in."""

from __future__ import annotations

import array
import fcntl
import functools
import operator
import os
import socket as _stdlib
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from . import _cmsg
from ._fds import Fd

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from ._cmsg import _Address, _Control, _Received
    from ._fds import FileDescriptorLike

__all__ = ["fromfd", "install", "socket", "socketpair", "uninstall"]


class socket(_stdlib.socket):
    """socket.socket, with the calls of cmsgx as its methods; accept() returns a cmsgx.socket."""

    __slots__ = ()

    if TYPE_CHECKING:  # where each has its types

        def sendmsg(
            self,
            buffers: Iterable[ReadableBuffer],
            ancdata: Iterable[_Control] = (),
            flags: int = 0,
            address: _Address | None = None,
            /,
        ) -> int: ...
        def recvmsg(
            self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
        ) -> tuple[bytes, list[_Received], int, Any]: ...
        def recvmsg_into(
            self,
            buffers: Iterable[WriteableBuffer],
            ancbufsize: int = 0,
            flags: int = 0,
            /,
        ) -> tuple[int, list[_Received], int, Any]: ...
        def send_fds(
            self,
            buffers: Iterable[ReadableBuffer],
            fds: Iterable[FileDescriptorLike],
            flags: int = 0,
            address: _Address | None = None,
        ) -> int: ...
        def recv_fds(
            self, bufsize: int, maxfds: int, flags: int = 0, *, cloexec: bool = True
        ) -> tuple[bytes, list[int], int, Any]: ...

    else:
        sendmsg = _cmsg.method(_cmsg.sendmsg)
        recvmsg = _cmsg.method(_cmsg.recvmsg)
        recvmsg_into = _cmsg.method(_cmsg.recvmsg_into)
        send_fds = _cmsg.method(_cmsg.send_fds)
        recv_fds = _cmsg.method(_cmsg.recv_fds)

    def accept(self) -> tuple[socket, Any]:
        """accept() -> (cmsgx.socket, address): accept(2)"""
        untyped: Any = self
        owned: tuple[Fd, tuple[int, Any]] = _cmsg.own_result(Fd, untyped._accept)
        # Not of a subclass, as in socket.accept(): its constructor may take other arguments.
        with owned[0] as fd:
            accepted = _socket_of(fd, self.family, self.type, self.proto)
        # As there, too: with a timeout of its own a listener is non-blocking, and so may be what
        # it accepts.
        if _stdlib.getdefaulttimeout() is None and self.gettimeout():
            accepted.setblocking(True)
        return accepted, owned[1][1]


def socketpair(
    family: int | None = None, type: int = _stdlib.SOCK_STREAM, proto: int = 0
) -> tuple[socket, socket]:
    """socket.socketpair(), of cmsgx.socket: socketpair(2)"""
    first, second = _stdlib.socketpair(family, type, proto)
    return _ours(first), _ours(second)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """socket.fromfd(), of cmsgx.socket: a duplicate of `fd`, which stays the caller's."""
    return _ours(_stdlib.fromfd(fd, family, type, proto))


def _ours(sock: Any) -> socket:
    # The object itself changes its class: at no time do two own the descriptor.
    sock.__class__ = socket
    ours: socket = sock
    return ours


def adopt(fd: Fd) -> socket:
    """A socket that owns the descriptor of `fd`; changes no flag of the description."""
    number = fd.fileno()
    family = _cmsg.getfamily(number)
    kind = _option(number, _cmsg.SO_TYPE)
    # Where the system does not tell it, as macOS and NetBSD: that of the type.
    proto = _option(number, _SO_PROTOCOL) if _SO_PROTOCOL is not None else 0
    non_blocking = bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK)
    if non_blocking or _stdlib.getdefaulttimeout() is not None:
        # Told so, the constructor neither asks for the default timeout nor sets O_NONBLOCK.
        kind |= _SOCK_NONBLOCK
    made = _socket_of(fd, family, kind, proto, is_blocking=not non_blocking)
    if made.gettimeout() != (0.0 if non_blocking else None) or not _SOCK_NONBLOCK:
        # macOS cannot be told: what the constructor may have set is put back.
        made.setblocking(not non_blocking)
    return made


def _socket_of(fd: Fd, family: int, type: int, proto: int, *, is_blocking: bool = False) -> socket:
    """Made so that at no time two own the descriptor, or nobody does. `is_blocking`: it has no
    timeout, though `type` says SOCK_NONBLOCK."""
    made: Any = socket.__new__(socket)
    made._io_refs = 0
    made._closed = False
    fd._give_to_socket(made, family, type, proto, is_blocking)
    ours: socket = made
    return ours


_SO_PROTOCOL: int | None = getattr(_stdlib, "SO_PROTOCOL", None)
_SOCK_NONBLOCK: int = getattr(_stdlib, "SOCK_NONBLOCK", 0)


def _option(number: int, name: int) -> int:
    return int.from_bytes(_cmsg.getsockopt(number, _cmsg.SOL_SOCKET, name, 4), sys.byteorder)


# Patched in -----------------------------------------------------------------------------------

_METHODS: Final = ("sendmsg", "recvmsg", "recvmsg_into")
_FUNCTIONS: Final = ("send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE")

# What this process has in place: name -> (what stood there before, what stands there now).
_methods: dict[str, Any] = {}
_functions: dict[str, tuple[Any, Any]] = {}


def install(*, cloexec: bool = True) -> None:
    """Puts the calls of cmsgx in place of socket's, for programs that cannot be edited.

    Received descriptors are close-on-exec from then on; with cloexec=False they stay inheritable.
    recv_fds() loses none to SO_PASSCRED and the like, and closes a surplus and a pidfd that nobody
    asked for. Does nothing where that is installed already. It cannot reach `_socket.socket`, nor
    names that were imported before (`from socket import send_fds`). RuntimeError where another
    patch stands.
    """
    receive: tuple[Any, Any] = (
        (_cmsg.recvmsg, _cmsg.recvmsg_into)
        if cloexec
        else (_cmsg.recvmsg_inheritable, _cmsg.recvmsg_into_inheritable)
    )
    methods = dict(zip(_METHODS, (_cmsg.sendmsg, *receive), strict=True))

    def send_fds(
        sock: Any, buffers: Iterable[Any], fds: Iterable[Any], flags: int = 0, address: Any = None
    ) -> int:
        # The standard library ignores flags and address, and programs rely on it.
        return _cmsg.send_fds(sock, buffers, fds)

    def recv_fds(
        sock: Any, bufsize: int, maxfds: int, flags: int = 0
    ) -> tuple[bytes, list[int], int, Any]:
        return _cmsg.recv_fds(sock, bufsize, maxfds, cloexec=cloexec)

    for function in (send_fds, recv_fds):
        function.__qualname__ = function.__name__
    functions = dict(
        zip(_FUNCTIONS, (send_fds, recv_fds, _cmsg.CMSG_LEN, _cmsg.CMSG_SPACE), strict=True)
    )
    _refuse_other_patches()
    if _methods:
        if _methods["recvmsg"].__wrapped__ is methods["recvmsg"]:
            return
        uninstall()
    for name, function in methods.items():
        _methods[name] = _cmsg.method(function)
        setattr(_stdlib.socket, name, _methods[name])
    for name, made in functions.items():
        _functions[name] = (getattr(_stdlib, name), made)
        setattr(_stdlib, name, made)


def uninstall() -> None:
    """Takes out what install() put in. RuntimeError where another patch was put over it."""
    if not _methods:
        return
    _refuse_other_patches()
    for name in _METHODS:
        delattr(_stdlib.socket, name)
        del _methods[name]
    for name in _FUNCTIONS:
        setattr(_stdlib, name, _functions.pop(name)[0])


def _refuse_other_patches() -> None:
    for name in _METHODS:
        if vars(_stdlib.socket).get(name) is not _methods.get(name):
            raise RuntimeError(
                f"socket.socket.{name} was patched by something else: "
                f"{vars(_stdlib.socket).get(name)!r}; take that out first"
            )
    for name in _FUNCTIONS:
        here = getattr(_stdlib, name)
        expected = _functions[name][1] if name in _functions else _ORIGINALS[name]
        if here is not expected:
            raise RuntimeError(
                f"socket.{name} was patched by something else: {here!r}; take that out first"
            )


def _original(name: str) -> Any:
    """As the standard library made it, also where it was patched before this import."""
    import _socket

    here = getattr(_stdlib, name)
    if hasattr(_socket, name):
        return getattr(_socket, name)
    return here if getattr(here, "__module__", None) == "socket" else None


_ORIGINALS: Final = {name: _original(name) for name in _FUNCTIONS}


def _recvmsg_foreign(
    name: str, sock: Any, first: Any, ancbufsize: int, flags: int = 0
) -> tuple[Any, list[tuple[int, int, bytes]], int, Any]:
    """recvmsg() or recvmsg_into() of a type that brings its own, with close-on-exec."""
    flags = operator.index(flags)
    unasked = _cmsg.MSG_CMSG_CLOEXEC & ~flags
    if getattr(sock, "family", _stdlib.AF_UNIX) != _stdlib.AF_UNIX:
        unasked = 0  # no other brings descriptors, and some refuse the flag
    result, ancdata, msg_flags, address = getattr(sock, name)(first, ancbufsize, flags | unasked)
    if not _cmsg.MSG_CMSG_CLOEXEC:
        # macOS: as soon as they are known; C does it right after its own calls.
        for level, kind, payload in ancdata:
            if level == _cmsg.SOL_SOCKET and kind == _cmsg.SCM_RIGHTS:
                for number in _numbers_in(payload):
                    os.set_inheritable(number, False)
    return result, ancdata, msg_flags & ~unasked, address


def _numbers_in(payload: bytes) -> array.array[int]:
    numbers = array.array("i")
    numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return numbers


def _recv_fds_foreign(
    sock: Any, bufsize: int, maxfds: int, flags: int, cloexec: int
) -> tuple[bytes, list[int], int, Any]:
    """recv_fds() over a type that brings a recvmsg() of its own."""
    receive = sock.recvmsg if not cloexec else functools.partial(_recvmsg_foreign, "recvmsg", sock)
    data, ancdata, msg_flags, address = receive(bufsize, _cmsg.CMSG_LEN(maxfds * 4), flags)
    fds = array.array("i")
    unasked = array.array("i")
    for level, kind, payload in ancdata:
        if level == _cmsg.SOL_SOCKET and kind in _CARRY_DESCRIPTORS:
            numbers = fds if kind == _cmsg.SCM_RIGHTS else unasked
            numbers += _numbers_in(payload)
    if len(fds) > maxfds:
        unasked += fds[maxfds:]
        msg_flags |= _cmsg.MSG_CTRUNC
    for number in unasked:
        if number >= 0:
            os.close(number)
    return data, fds[:maxfds].tolist(), msg_flags, address


_CARRY_DESCRIPTORS = {
    getattr(_cmsg, name) for name in ("SCM_RIGHTS", "SCM_PIDFD") if hasattr(_cmsg, name)
}


_cmsg.register("recvmsg_foreign", _recvmsg_foreign)
_cmsg.register("recv_fds_foreign", _recv_fds_foreign)
_cmsg.register("socket", _stdlib.socket)
