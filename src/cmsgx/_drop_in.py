"""Replacements for the functions of the socket module: as functions, as a class, or patched in."""

from __future__ import annotations

import _socket
import array
import fcntl
import functools
import operator
import os
import socket as _stdlib
import sys
from _thread import RLock
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import _cmsg
from ._fds import Fd

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from ._cmsg import _Address, _Control, _Received
    from ._fds import FileDescriptors

__all__ = ["fromfd", "install", "socket", "socketpair", "uninstall"]


def library_class(cls: Any) -> Any:
    """The standard library's socket class among the bases of `cls`, or None if it is not one.

    The class that stands as socket.socket may derive from it, as those of PySocks and pytest-socket
    do. Those of gevent and eventlet hold a socket instead.
    """
    mro = getattr(cls, "__mro__", ())
    return mro[mro.index(_socket.socket) - 1] if _socket.socket in mro[1:] else None


# What stood there when this was imported: a later patch does not affect the sockets made here.
_is_green: Final = library_class(_stdlib.socket) is None
_kept_socketpair: Final = _stdlib.socketpair
_kept_fromfd: Final = _stdlib.fromfd


class socket(_stdlib.socket):
    """socket.socket with the calls of cmsgx as methods; accept() returns a cmsgx.socket."""

    __slots__ = ()

    if TYPE_CHECKING:  # the types of each method

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
            fds: FileDescriptors,
            flags: int = 0,
            address: _Address | None = None,
        ) -> int: ...
        def recv_fds(
            self, bufsize: int, maxfds: int, flags: int = 0, *, cloexec: bool = True
        ) -> tuple[bytes, list[int], int, Any]: ...
        def accept(self) -> tuple[socket, Any]: ...

    elif _is_green:  # then it inherits methods that are green too

        def send_fds(self, *args, **kwargs):
            """cmsgx.send_fds() with the sendmsg() of this socket"""
            return _cmsg.send_fds(self, *args, **kwargs)

        def recv_fds(self, *args, **kwargs):
            """cmsgx.recv_fds() with the recvmsg() of this socket"""
            return _cmsg.recv_fds(self, *args, **kwargs)

        if hasattr(_stdlib.socket, "accept"):

            def accept(self):
                """accept() -> (cmsgx.socket, address): accept(2)"""
                accepted, address = super().accept()
                return _ours(accepted), address

    else:
        sendmsg = _cmsg.method(_cmsg.sendmsg)
        recvmsg = _cmsg.method(_cmsg.recvmsg)
        recvmsg_into = _cmsg.method(_cmsg.recvmsg_into)
        send_fds = _cmsg.method(_cmsg.send_fds)
        recv_fds = _cmsg.method(_cmsg.recv_fds)

        def accept(self):
            """accept() -> (cmsgx.socket, address): accept(2)"""
            fd, (_, address) = _cmsg.own_result(Fd, self._accept)
            # Never a subclass, as in socket.accept(): its constructor may take other arguments.
            with fd:
                accepted = _socket_of(fd, self.family, self.type, self.proto)
            # As in socket.accept(): a listener with a timeout is non-blocking, and the accepted
            # socket may inherit that.
            if _stdlib.getdefaulttimeout() is None and self.gettimeout():
                accepted.setblocking(True)
            return accepted, address


def socketpair(
    family: int | None = None, type: int = _stdlib.SOCK_STREAM, proto: int = 0
) -> tuple[socket, socket]:
    """socket.socketpair() that returns cmsgx.socket objects: socketpair(2)"""
    if _is_green:
        pair = _kept_socketpair(family, type, proto)
        return _ours(pair[0]), _ours(pair[1])
    made_of = int(_stdlib.AF_UNIX if family is None else family), type, proto
    raw = _socket.socketpair(*made_of)
    first, second = [_cmsg.own_result(Fd, each.detach)[0] for each in raw]
    with first, second:
        return _socket_of(first, *made_of), _socket_of(second, *made_of)


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """socket.fromfd() that returns a cmsgx.socket; it owns a duplicate of `fd`, still yours."""
    if _is_green:
        return _ours(_kept_fromfd(fd, family, type, proto))
    with _cmsg.own_result(Fd, functools.partial(_socket.dup, fd))[0] as duplicate:
        return _socket_of(duplicate, family, type, proto)


def _ours(sock: Any) -> socket:
    # The object changes its class, so that the descriptor never has two owners.
    sock.__class__ = socket
    ours: socket = sock
    return ours


def adopt(fd: Fd) -> socket:
    """A socket that takes over the descriptor of `fd`. It changes no flag of the open file
    description, except that a green socket makes it non-blocking.
    """
    with fd._pinned() as number:
        family = _cmsg.getfamily(number)
        kind = _option(number, _cmsg.SO_TYPE)
        # 0, the default of the type, if the system does not report it, as on macOS and NetBSD.
        proto = _option(number, _SO_PROTOCOL) if _SO_PROTOCOL is not None else 0
        non_blocking = bool(fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK)
        if _is_green:
            green = socket(family, kind, proto, number)
            try:
                fd._detach_to_socket()
            except ValueError:
                green.detach()  # another thread has closed `fd`, which takes effect after the pin
                raise
            if non_blocking:
                green.setblocking(False)
            return green
    if non_blocking or _stdlib.getdefaulttimeout() is not None:
        # With this flag the constructor neither uses the default timeout nor sets O_NONBLOCK.
        kind |= _SOCK_NONBLOCK
    made = _socket_of(fd, family, kind, proto, is_blocking=not non_blocking)
    if made.gettimeout() != (0.0 if non_blocking else None) or not _SOCK_NONBLOCK:
        # macOS lacks the flag, so this undoes what the constructor may have set.
        made.setblocking(not non_blocking)
    return made


def _socket_of(fd: Fd, family: int, type: int, proto: int, *, is_blocking: bool = False) -> socket:
    """A socket from `fd`, made so that the descriptor has exactly one owner at every instant.
    `is_blocking`: it has no timeout, although `type` has SOCK_NONBLOCK."""
    made: Any = socket.__new__(socket)
    made._io_refs = 0
    made._closed = False
    _cmsg.give_to_socket(fd, made, family, type, proto, is_blocking)
    ours: socket = made
    return ours


_SO_PROTOCOL: int | None = getattr(_stdlib, "SO_PROTOCOL", None)
_SOCK_NONBLOCK: int = getattr(_stdlib, "SOCK_NONBLOCK", 0)


def _option(number: int, name: int) -> int:
    return int.from_bytes(_cmsg.getsockopt(number, _cmsg.SOL_SOCKET, name, 4), sys.byteorder)


# Patched in -----------------------------------------------------------------------------------

_Place: TypeAlias = "tuple[Any, str]"  # a class or a module, and the name of an attribute
_NOTHING: Final = object()


def _functions(cloexec: bool) -> dict[str, Any]:
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
    return {
        "send_fds": send_fds,
        "recv_fds": recv_fds,
        "CMSG_LEN": _cmsg.CMSG_LEN,
        "CMSG_SPACE": _cmsg.CMSG_SPACE,
    }


# By `cloexec`: the attributes of socket.socket, as functions that become methods, and of socket.
_METHODS: Final[dict[bool, dict[str, Any]]] = {
    True: {
        "sendmsg": _cmsg.sendmsg,
        "recvmsg": _cmsg.recvmsg,
        "recvmsg_into": _cmsg.recvmsg_into,
    },
    False: {
        "sendmsg": _cmsg.sendmsg,
        "recvmsg": _cmsg.recvmsg_inheritable,
        "recvmsg_into": _cmsg.recvmsg_into_inheritable,
    },
}
_FUNCTIONS: Final = {cloexec: _functions(cloexec) for cloexec in (True, False)}
_ALL_FUNCTIONS: Final = (*_FUNCTIONS[True].values(), *_FUNCTIONS[False].values())

# What stood in each place before install(). The places themselves show whether ours stands there
# now, so after an interrupted call the next one knows what is left to do.
_before: dict[_Place, Any] = {}
# Two threads at once could lose what stood there. A child of fork() starts with a free lock, as the
# thread that held it may not exist there.
_lock: Any = RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)


def install(*, cloexec: bool = True) -> None:
    """Replaces the calls of the socket module with those of cmsgx, for programs you cannot edit.

    From then on received descriptors are close-on-exec; with cloexec=False they stay inheritable.
    recv_fds() loses no descriptor because of SO_PASSCRED and the like, and closes surplus
    descriptors, and a pidfd that nobody asked for. Calling it again with the same `cloexec` does
    nothing. It cannot change `_socket.socket`, nor names that were imported before (`from socket
    import send_fds`). RuntimeError if another patch is in place, or if socket.socket is the class
    of gevent or eventlet. If it raises, nothing has changed.
    """
    _alone(functools.partial(_install, bool(cloexec)))


def _install(cloexec: bool) -> None:
    cls = library_class(_stdlib.socket)
    if cls is None:
        there: Any = _stdlib.socket
        name = f"{there.__module__}.{getattr(there, '__qualname__', there)}"
        raise RuntimeError(
            f"socket.socket is {name}, which is not derived from the standard library's class: "
            "nothing was installed; the functions of cmsgx accept its sockets without it"
        )
    functions: dict[_Place, Any] = {
        **{(cls, name): function for name, function in _METHODS[cloexec].items()},
        **{(_stdlib, name): function for name, function in _FUNCTIONS[cloexec].items()},
    }
    _refuse_other_patches(functions)
    wanted: dict[_Place, Any] = {}
    for place, function in functions.items():
        here = _standing(place)
        if not _is_ours(here):
            _before[place] = here
        elif function is getattr(here, "__wrapped__", here):
            continue
        wanted[place] = _cmsg.method(function) if place[0] is cls else function
    _change(wanted)


def uninstall() -> None:
    """Undoes install(). RuntimeError if another patch was applied over it."""
    _alone(_uninstall)


def _uninstall() -> None:
    _refuse_other_patches(_before)
    _change({place: before for place, before in _before.items() if _is_ours(_standing(place))})
    _before.clear()


def _alone(function: Callable[[], None]) -> None:
    if _lock._is_owned():
        raise RuntimeError(
            "a signal handler called install() or uninstall() while one of them was running: call "
            "it after that has returned"
        )
    _cmsg.with_lock(_lock, function)


def _standing(place: _Place) -> Any:
    attributes: Mapping[str, Any] = place[0].__dict__
    return attributes.get(place[1], _NOTHING)


def _is_ours(value: Any) -> bool:
    for function in _ALL_FUNCTIONS:
        if value is function:
            return True
    return isinstance(value, _cmsg.method)


def _is_sockets_own(place: _Place, value: Any) -> bool:
    """Whether it is the standard library's original, whoever put it there."""
    owner, name = place
    if owner is not _stdlib:
        return value is _NOTHING or value is vars(_socket.socket)[name]
    in_c = getattr(_socket, name, _NOTHING)
    return value is in_c or getattr(value, "__globals__", None) is vars(_stdlib)


def _refuse_other_patches(places: Iterable[_Place]) -> None:
    for place in places:
        here = _standing(place)
        if not _is_ours(here) and not _is_sockets_own(place, here):
            owner, name = place
            where = "socket" if owner is _stdlib else "socket.socket"
            raise RuntimeError(
                f"{where}.{name} was patched by something else: {here!r}; undo that first"
            )


def _change(wanted: dict[_Place, Any]) -> None:
    """Makes all of these changes, or none."""
    before = {place: _standing(place) for place in wanted}
    try:
        _put(wanted)
    except BaseException:
        _put(before)
        raise


def _put(values: dict[_Place, Any]) -> None:
    steps = [
        functools.partial(delattr, *place)
        if value is _NOTHING
        else functools.partial(setattr, *place, value)
        for place, value in values.items()
        if _standing(place) is not value
    ]
    # The loop runs in C: no signal handler or trace function runs between two steps.
    tuple(map(operator.call, steps))


def recvmsg_foreign(
    name: str, sock: Any, first: Any, ancbufsize: int, flags: int = 0
) -> tuple[Any, list[tuple[int, int, bytes]], int, Any]:
    """recvmsg() or recvmsg_into() of a socket type with its own, made close-on-exec."""
    flags = operator.index(flags)
    unasked = _cmsg.MSG_CMSG_CLOEXEC & ~flags
    if getattr(sock, "family", _stdlib.AF_UNIX) != _stdlib.AF_UNIX:
        unasked = 0  # other families carry no descriptors, and some refuse the flag
    result, ancdata, msg_flags, address = _cmsg.call_foreign(
        name, sock, first, ancbufsize, flags | unasked
    )
    if not _cmsg.MSG_CMSG_CLOEXEC:
        # macOS lacks the flag: as soon as the numbers are known, as C does after its own calls.
        for level, kind, payload in ancdata:
            if level == _cmsg.SOL_SOCKET and kind == _cmsg.SCM_RIGHTS:
                for number in _numbers_in(payload):
                    os.set_inheritable(number, False)
    return result, ancdata, msg_flags & ~unasked, address


def _numbers_in(payload: bytes) -> array.array[int]:
    numbers = array.array("i")
    numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return numbers


def recv_fds_through(
    method: Any, sock: Any, bufsize: int, maxfds: int, flags: int, cloexec: int
) -> tuple[bytes, list[int], int, Any]:
    """recv_fds() with `method`, a recvmsg(); if None, with the one that the socket's type has."""
    receive = method or functools.partial(
        recvmsg_foreign if cloexec else _cmsg.call_foreign, "recvmsg"
    )
    given = (flags,) if flags else ()  # as socket calls it
    data, ancdata, msg_flags, address = receive(sock, bufsize, _CONTROL_SIZE, *given)
    try:
        fds = array.array("i")
        unasked = array.array("i")
        for level, kind, payload in ancdata:
            if level == _cmsg.SOL_SOCKET and kind in _CARRY_DESCRIPTORS:
                numbers = fds if kind == _cmsg.SCM_RIGHTS else unasked
                numbers += _numbers_in(payload)
        if len(fds) > maxfds:
            unasked += fds[maxfds:]
            msg_flags |= _cmsg.MSG_CTRUNC
        result = data, fds[:maxfds].tolist(), msg_flags, address
    except BaseException:
        for level, kind, payload in ancdata:
            if level == _cmsg.SOL_SOCKET and kind in _CARRY_DESCRIPTORS:
                with suppress(TypeError):  # this payload may be what failed
                    _cmsg.close_each(payload)
        raise
    _cmsg.close_each(unasked)
    return result


# As in C: space for all descriptors that can come, and for what else the kernel attaches.
_CONTROL_SIZE = _cmsg.CMSG_SPACE(_cmsg.MAX_FDS * 4) + 512
_CARRY_DESCRIPTORS = {
    getattr(_cmsg, name) for name in ("SCM_RIGHTS", "SCM_PIDFD") if hasattr(_cmsg, name)
}
