"""Twins of sockets, one for `socket` and one for cmsgx, and the calls that each has of its own."""

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import os
import resource
import socket
import struct
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import cmsgx

IS_MUSL = "linux-musl" in str(sysconfig.get_config_var("MULTIARCH"))
# Its sendmsg() copies to the stack; its CMSG_NXTHDR() skips a header at the end of the buffer.
MUSL_REFUSES = (("raised", OSError, errno.ENOMEM), ("raised", RuntimeError, None))

CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0x40000000)
SCM_CREDENTIALS = 2
SCM_PIDFD = 4
SO_PASSCRED = 16
SO_TIMESTAMP = 29
SO_PASSPIDFD = 76
OPTIONS = (SO_PASSCRED, SO_TIMESTAMP, SO_PASSPIDFD)
KINDS = (
    *("stream", "dgram", "seqpacket", "named stream", "named dgram", "abstract dgram"),
    *("udp4", "udp6", "connected udp4", "tcp4", "tcp6", "netlink"),
)
APIS = ("function", "class", "install", "inheritable", "foreign")

Address = Any
Call = Callable[..., Any]


class Setup(NamedTuple):
    """How the sockets of both twins are created."""

    kind: str
    api: str
    timeouts: tuple[float | None, float | None]
    options: tuple[int, ...]

    @property
    def inet(self) -> bool:
        return self.kind[-1] in "46"

    @property
    def patched(self) -> bool:
        return self.api in ("install", "inheritable")


class Mismatch(AssertionError):
    """The twins differ."""

    def __init__(self, text: str, sort: str) -> None:
        super().__init__(text)
        self.sort = sort


class Parted(Exception):
    """There is nothing to compare, and the twins have not sent the same data: the round is over."""


class Index:
    def __index__(self) -> int:
        return 5


class Holder:
    """An object that has a descriptor, and nothing else."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Foreign(socket.socket):
    """A socket type that brings its own methods: cmsgx must call these."""

    def sendmsg(self, *args: Any) -> int:
        return super().sendmsg(*args)

    def recvmsg(self, *args: Any) -> Any:
        return super().recvmsg(*args)

    def recvmsg_into(self, *args: Any) -> Any:
        return super().recvmsg_into(*args)


def failing(items: Sequence[object]) -> Iterator[object]:
    yield from items
    raise ITERATOR_ERROR("from the iterator")


def shown_error() -> type[Exception]:
    """LookupError, if socket.sendmsg() lets an iterator's own error through. Later releases hide
    any error behind a TypeError; then that has to be the error, so that both raise the same."""

    def broken() -> Iterator[bytes]:
        yield b""
        raise LookupError

    left, right = socket.socketpair()
    with left, right:
        try:
            left.sendmsg(broken())
        except (LookupError, TypeError) as error:
            return type(error)
    raise AssertionError("no error at all")


ITERATOR_ERROR = shown_error()


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# The two sides.


class Side:
    """One twin: its sockets, and the functions that the calls look up by name."""

    def __init__(self, setup: Setup, files: list[int], folder: str) -> None:
        self.setup = setup
        self.files = files
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.kept: list[Any] = []
        self.inheritable = True
        self.a, self.b = make_sockets(setup.kind, folder, self.tag)
        for sock, timeout in zip((self.a, self.b), setup.timeouts, strict=True):
            # Without a timeout the kernel ends the wait, on both sides alike.
            wait = struct.pack("ll", 0, 1000)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            for option in setup.options:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, option, 1)
            sock.settimeout(timeout)
        names = {sock.getsockname(): label for sock, label in ((self.a, "A"), (self.b, "B"))}
        self.labels = {name: label for name, label in names.items() if name}
        self.scope: dict[str, Any] = {
            **{
                name: getattr(self, name)
                for name in ("a", "b", "keep", "number", "holder", "tight")
            },
            **{name: getattr(self, name) for name in CALLED},
            "A": self.a.getsockname(),
            "B": self.b.getsockname(),
            "files": files,
            "folder": folder,
            "array": array.array,
            "failing": failing,
            "Index": Index,
            "Holder": Holder,
            "socket": socket,
            "set_blocking": os.set_blocking,
            "credentials": struct.pack("3i", os.getpid(), os.getuid(), os.getgid()),
        }

    tag = ""
    sendmsg: Call
    recvmsg: Call
    recvmsg_into: Call
    send_fds: Call
    recv_fds: Call

    def keep(self, buffers: Any) -> Any:
        """Marks a buffer that a call should write to."""
        self.kept.append(buffers)
        return buffers

    def tight(self, sock: Any, room: int) -> Any:
        """Lets the call on sock open only this many descriptors."""
        lowest = os.dup(self.files[0])
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + room, self.limits[1]))
        return sock

    def number(self, sock: socket.socket) -> Any:
        raise NotImplementedError

    def holder(self, sock: socket.socket) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.a.close()
        self.b.close()

    def evaluate(self, code: Any) -> tuple[tuple[Any, ...], str]:
        """The result of one call in a form that can be compared, and an exception's message."""
        self.kept.clear()
        self.inheritable = True
        message = ""
        outcome: tuple[Any, ...]
        try:
            try:
                result = eval(code, self.scope)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, self.limits)
        except Exception as error:
            outcome = ("raised", type(error), getattr(error, "errno", None))
            message = str(error)
        else:
            outcome = ("returned", self.comparable(result))
        return (*outcome, *(contents(buffers) for buffers in self.kept)), message

    def comparable(self, result: Any) -> object:
        if not isinstance(result, tuple):
            return result
        data, control, flags, address = result
        if isinstance(control, list) and all(isinstance(item, int) for item in control):
            items: list[object] = [self.identify(number) for number in control]
        else:
            items = [self.control_message(*item) for item in control]
            while IS_MUSL and len(control) > 1 and control[-1][2] == b"":
                control.pop()
                items.pop()
        address = self.labels.get(address, address)
        if isinstance(address, bytes) and len(address) == 6:
            address = "a name by the kernel"  # SO_PASSCRED gives a name to a sender without one
        return type(data), data, items, type(flags), flags, address

    def control_message(self, level: int, kind: int, data: bytes) -> object:
        assert type(data) is bytes
        content: object = data
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i", data[: len(data) - len(data) % 4])
            content = [self.identify(number) for number in numbers]
        elif level == socket.SOL_SOCKET and kind == SCM_PIDFD and len(data) == 4:
            content = "a pidfd" if close_pidfd(data) else data
        elif level == socket.SOL_SOCKET and kind == SO_TIMESTAMP:
            content = len(data)
        return level, kind, content

    def identify(self, number: int) -> object:
        """A description of a received descriptor, which is closed."""
        status = os.fstat(number)
        inheritable = os.get_inheritable(number)
        os.close(number)
        if inheritable != self.inheritable:
            return f"inheritable is {inheritable}"
        return status.st_dev, status.st_ino


CALLED = ("sendmsg", "recvmsg", "recvmsg_into", "send_fds", "recv_fds")


class Number(NamedTuple):
    """Stands for the bare number of a socket, on the side that has no functions for numbers."""

    sock: socket.socket


class Stock(Side):
    """What cmsgx must do, expressed with the methods of _socket.socket."""

    tag = "s"

    def number(self, sock: socket.socket) -> Number:
        if sock.fileno() < 0:
            raise LookupError("closed")
        return Number(sock)

    holder = number

    def by_own_method(self, target: Any) -> bool:
        """Whether cmsgx calls the method of the type."""
        other = self.setup.api == "foreign" or self.setup.kind == "netlink"
        return other and not isinstance(target, Number)

    def call(self, method: Call, target: Any, *args: Any, **kwargs: Any) -> Any:
        sock = target.sock if isinstance(target, Number) else target
        timeout = sock.gettimeout()
        if sock.fileno() < 0 or self.by_own_method(target):
            return method(sock, *args, **kwargs)
        blocking = os.get_blocking(sock.fileno())
        trial: float | None = 0
        if isinstance(target, Number):
            trial = None if blocking else 0  # nothing has a timeout
        elif timeout is None:
            return method(sock, *args, **kwargs)
        elif timeout > 0 and not blocking and not self.used_up_by_one_call:
            try:
                return method(sock, *args, **kwargs)
            except TimeoutError:
                pass  # poll() reported nothing, but a try may have another result
        sock.settimeout(trial)
        try:
            return method(sock, *args, **kwargs)
        except BlockingIOError:
            if timeout and not isinstance(target, Number):
                raise TimeoutError("timed out") from None
            raise
        finally:
            sock.settimeout(timeout)
            os.set_blocking(sock.fileno(), blocking)

    used_up_by_one_call = False

    def received(self, flags: object = 0, *, cloexec: bool = False) -> None:
        self.inheritable = not (cloexec or (isinstance(flags, int) and flags & CLOEXEC))

    def sendmsg(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        return self.call(_socket.socket.sendmsg, sock, *args, **kwargs)

    def recvmsg(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        self.received(*args[2:3])
        data, *others = self.call(_socket.socket.recvmsg, sock, *args, **kwargs)
        # With MSG_TRUNC, socket returns memory after the end of the buffer for a longer datagram.
        return data[: args[0]], *others

    def recvmsg_into(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        self.received(*args[2:3])
        return self.call(_socket.socket.recvmsg_into, sock, *args, **kwargs)

    def send_fds(
        self, sock: Any, buffers: Any, fds: Any, flags: Any = 0, address: Address = None
    ) -> Any:
        if self.setup.patched:
            flags, address = 0, None
        if isinstance(fds, list):
            fds = [fd.fileno() if isinstance(fd, Holder) else fd for fd in fds]
        numbers = array.array("i", fds)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)
        return self.sendmsg(sock, buffers, [rights], flags, address)

    def recv_fds(
        self, sock: Any, bufsize: Any, maxfds: Any, flags: Any = 0, *, cloexec: bool = True
    ) -> Any:
        if self.setup.patched:
            flags = 0
        maxfds = 5 if isinstance(maxfds, Index) else maxfds
        room = socket.CMSG_LEN(maxfds * 4)
        plain = sock.sock if isinstance(sock, Number) else sock
        crowded = plain.fileno() >= 0 and any(
            option_is_on(plain, option) for option in self.setup.options
        )
        if crowded:
            room = max(room, socket.CMSG_SPACE(253 * 4)) + 512
        data, control, msg_flags, address = self.recvmsg(sock, bufsize, room, flags)
        fds = array.array("i")
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content)
            elif level == socket.SOL_SOCKET and kind == SCM_PIDFD:
                close_pidfd(content)
        for surplus in fds[maxfds:]:
            os.close(surplus)
            msg_flags |= int(socket.MSG_CTRUNC)
        return data, list(fds[:maxfds]), msg_flags, address


class Ours(Side):
    """cmsgx."""

    tag = "c"

    def __init__(self, setup: Setup, files: list[int], folder: str) -> None:
        super().__init__(setup, files, folder)
        if setup.api in ("class", "foreign"):
            socket_type = cmsgx.socket if setup.api == "class" else Foreign
            for name in ("a", "b"):
                sock = getattr(self, name)
                ours = socket_type(fileno=sock.detach())
                ours.settimeout(setup.timeouts[name == "b"])
                setattr(self, name, ours)
                self.scope[name] = ours

    def number(self, sock: socket.socket) -> int:
        if sock.fileno() < 0:
            raise LookupError("closed")
        return sock.fileno()

    def holder(self, sock: socket.socket) -> Holder:
        return Holder(self.number(sock))

    def function(self, name: str, sock: Any) -> Call:
        if self.setup.api in ("function", "foreign") or not isinstance(sock, socket.socket):
            function: Call = getattr(cmsgx, name)
            return lambda *args, **kwargs: function(sock, *args, **kwargs)
        method: Call = getattr(sock, name)
        return method

    def received(self, sock: Any, flags: object = 0, *, cloexec: bool = True) -> None:
        kept = self.setup.api == "inheritable" and isinstance(sock, socket.socket)
        asked = isinstance(flags, int) and flags & CLOEXEC
        self.inheritable = not asked and (kept or not cloexec)

    def sendmsg(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        return self.function("sendmsg", sock)(*args, **kwargs)

    def recvmsg(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        self.received(sock, *args[2:3])
        return self.function("recvmsg", sock)(*args, **kwargs)

    def recvmsg_into(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        self.received(sock, *args[2:3])
        return self.function("recvmsg_into", sock)(*args, **kwargs)

    def send_fds(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        module: Any = socket if self.setup.patched else cmsgx
        return module.send_fds(sock, *args, **kwargs)

    def recv_fds(self, sock: Any, *args: Any, **kwargs: Any) -> Any:
        module: Any = socket if self.setup.patched else cmsgx
        self.received(
            sock, *([] if self.setup.patched else args[2:3]), cloexec=kwargs.get("cloexec", True)
        )
        return module.recv_fds(sock, *args, **kwargs)


def close_pidfd(content: bytes) -> bool:
    """Closes the pidfd, if there was one: the kernel may have delivered a negative errno
    instead."""
    number: int = struct.unpack("i", content)[0]
    if number >= 0:
        os.close(number)
    return number >= 0


def option_is_on(sock: socket.socket, option: int) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, option))
    except OSError:
        return False


def contents(buffers: Any) -> object:
    """The current bytes in the buffers of a call."""
    if isinstance(buffers, (list, tuple)):
        return [contents(item) for item in buffers]
    try:
        return memoryview(buffers).tobytes()
    except TypeError:
        return None


def make_sockets(kind: str, folder: str, tag: str) -> tuple[socket.socket, socket.socket]:
    """Two sockets of one kind that can talk to each other."""
    name = kind.split()[-1]
    if kind in ("stream", "dgram", "seqpacket"):
        return socket.socketpair(socket.AF_UNIX, getattr(socket, f"SOCK_{name.upper()}"))
    if kind == "netlink":
        family = socket.AF_NETLINK
        names: list[Address] = [(0, 0), (0, 0)]
    elif kind.startswith(("named", "abstract")):
        family = socket.AF_UNIX
        start = "\0" if kind.startswith("abstract") else ""
        names = [f"{start}{folder}/{tag}{end}" for end in "ab"]
    else:
        family = socket.AF_INET6 if name.endswith("6") else socket.AF_INET
        names = [("::1" if name.endswith("6") else "127.0.0.1", 0)] * 2
    stream = name in ("stream", "tcp4", "tcp6")
    sort = socket.SOCK_STREAM if stream else socket.SOCK_DGRAM
    protocol = 2 if kind == "netlink" else 0  # NETLINK_USERSOCK
    a, b = (socket.socket(family, sort, protocol) for _ in "ab")
    a.bind(names[0])
    b.bind(names[1])
    if stream:
        b.listen(1)
        a.connect(b.getsockname())
        listener, b = b, b.accept()[0]
        listener.close()
        if family != socket.AF_UNIX:
            for sock in (a, b):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    elif kind.startswith("connected"):
        a.connect(b.getsockname())
        b.connect(a.getsockname())
    return a, b
