"""Random calls through `socket` and through cmsgx, on twins of sockets, must give the same answers.

Also a command:

    python tests/test_differential.py [CALLS [SEED]]

Each call is a line of Python, evaluated once for each twin: with `socket`'s own methods, and with
cmsgx as functions, as methods of cmsgx.socket, or under install().  Compared are the result, the
class and errno of an exception, the contents of the buffers, the files that were received and
whether they are close-on-exec, and the number of open descriptors.  A difference is printed as the
shortest list of calls that shows it.

What may differ is what docs/design.md promises to do otherwise, and stands in class Stock and in
run():

- with a timeout cmsgx tries first and then waits, `socket` waits first; and no try of cmsgx blocks,
  even if somebody made the descriptor blocking;
- send_fds honours flags and address, and takes objects with fileno(); recv_fds honours its flags;
- the name of a host is no address for a number;
- recv_fds has room for what the socket's options add, and never gives more than maxfds;
- with musl `socket` sends 1 KiB of control data at most, and neither sends nor sees a last message
  without a payload;
- types that bring a method of their own, and families that C does not know, are served by the
  method of the type: there it is all as with `socket`, but for the room of recv_fds.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import fcntl
import os
import random
import re
import resource
import select
import shutil
import socket
import struct
import sys
import sysconfig
import tempfile
import termios
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from support import lengths

import cmsgx

CALLS = int(os.environ.get("CMSGX_FUZZ_CALLS", "20000"))
SEED = int(os.environ.get("CMSGX_FUZZ_SEED", "1"))
STEPS = 40  # calls on one set of sockets

IS_MUSL = "linux-musl" in str(sysconfig.get_config_var("MULTIARCH"))
# Its sendmsg() copies to the stack; its CMSG_NXTHDR() passes over a header that is the last.
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
    """How the sockets of both twins are made."""

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
    """Nothing to compare, and the twins have not sent the same: the round is over."""


class Index:
    def __index__(self) -> int:
        return 5


class Holder:
    """An object that has a descriptor, and no more than that."""

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
    """LookupError where socket.sendmsg() lets an iterator's own error through. Later releases hide
    any behind a TypeError; then that has to be the error, for both to say the same."""

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
    """One twin: its sockets, and the functions that the calls find by their names."""

    def __init__(self, setup: Setup, files: list[int], folder: str) -> None:
        self.setup = setup
        self.files = files
        self.limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.kept: list[Any] = []
        self.inheritable = True
        self.a, self.b = make_sockets(setup.kind, folder, self.tag)
        for sock, timeout in zip((self.a, self.b), setup.timeouts, strict=True):
            # Without a timeout it is the kernel that ends the wait, on both sides alike.
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
        """Marks what a call shall write into."""
        self.kept.append(buffers)
        return buffers

    def tight(self, sock: Any, room: int) -> Any:
        """Lets the call on sock open that many descriptors and no more."""
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
        """The outcome of one call in a form that can be compared, and an exception's message."""
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
            address = "a name by the kernel"  # SO_PASSCRED gives one to a sender without
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
        """What a received descriptor is.  It is closed."""
        status = os.fstat(number)
        inheritable = os.get_inheritable(number)
        os.close(number)
        if inheritable != self.inheritable:
            return f"inheritable is {inheritable}"
        return status.st_dev, status.st_ino


CALLED = ("sendmsg", "recvmsg", "recvmsg_into", "send_fds", "recv_fds")


class Number(NamedTuple):
    """Stands for the bare number of a socket, on the side that has no functions for one."""

    sock: socket.socket


class Stock(Side):
    """What cmsgx must do, said with the methods of _socket.socket."""

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
            trial = None if blocking else 0  # nobody knows of a timeout
        elif timeout is None:
            return method(sock, *args, **kwargs)
        elif timeout > 0 and not blocking and not self.used_up_by_one_call:
            try:
                return method(sock, *args, **kwargs)
            except TimeoutError:
                pass  # poll() said no, but a try may say something else
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
        # With MSG_TRUNC, socket returns what lies behind the buffer for a longer datagram.
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
    """Whether there was one: in its place the kernel may have put a negative errno."""
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
    """The bytes that now stand in the buffers of a call."""
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


# Making up calls.


def words(text: str) -> list[str]:
    return text.split()


# What is strange in each place: each word is an expression.
ODD_SIZES = words("-1 2**62 2**63 -(2**63)-1 '1' None 1.5 True Index() b'1' 2**26")
ODD_CONTROL_SIZES = words("-1 2**31 2**63 -(2**63)-1 '1' None 1.5 True Index() b'1' 2**20")
ODD_MAXFDS = words("-1 2**31 2**64 '1' None 1.5 True Index() b'1'")
ODD_FLAGS = words("2**31 -(2**31)-1 '0' None 1.5 True Index()")
ODD_READABLES = words("""
    None 5 'text' [1] Index() 1.5 {1:2} memoryview(b'abcdef')[::2] memoryview(b'abcdef')[::-1]
""")
ODD_READABLE_LISTS = words("""
    None 5 b'ab' 'ab' bytearray(b'a') {} {b'key':1} Index() array('i',[1])
    [b'a']*1024 [b'a']*1025 [b'']*1100
""")
ODD_WRITABLES = words("""
    None 5 'text' b'constant' [1] 1.5 memoryview(b'constant')
    memoryview(bytearray(8))[::2] memoryview(bytearray(8))[::-1]
""")
ODD_WRITABLE_LISTS = words("""
    None 5 bytearray(3) 'ab' {} Index() [b''] [bytearray(1)]*1100
    keep([bytearray(1)]*1024) keep([bytearray(1)]*1025) keep([bytearray(4)]*2)
""")
ODD_DESCRIPTORS = words("""
    None 5 'ab' b'abc' {} Index() [None] ['a'] [1.5] [-1] [2**31] [2**70] [True] [b'a']
    [files[0],-1] [1000000] [files[0],'a'] [files[0]]*253 [files[0]]*254 failing([files[0]])
    [[files[0]]] [Holder(files[0])] [files[0],Holder(files[1])]
""")
ODD_CONTROL = words("""
    None 5 'ab' b'ab' {} Index() [5] [None] ['abc'] [()] [(1,1)] [(1,1,b'',0)] [[1,1,b'']]
    [(1,1,'text')] [(1,1,None)] [('1',1,b'')] [(1,1.5,b'')] [(2**31,1,b'')] [(1,-(2**31)-1,b'')]
    [(Index(),1,b'')] [(1,1,5)] (1,1,b'') [(1,1,memoryview(b'abcdefgh')[::2])] [(-1,-1,b'')]
    failing([(1,1,b'')]) failing([]) [(1,1,b'abc')] [(1,1,array('i',[files[0]]*254))]
    [(1,2,b'short')] [(1,2,credentials),(1,2,credentials)] [(1,99,b'abcd')] [(99,1,b'abcd')]
    [(0,2,b'abcd')] [(1,1,[files[0]])] [(1,1,array('i',[-1]))] [(1,1,array('i',[1000000]))]
    [(1,1,b'')]*300 [(1,1,bytes(2**20))] [(1,4,array('i',[files[0]]))]
""")
ODD_ADDRESSES = words("5 (1,) () [] None '' b'' 'x' {} 1.5")
ODD_UNIX_ADDRESSES = words(r"""
    '/nonexistent/name' b'/nonexistent/name' folder '\0none' b'\0none' 'x'*107 'x'*108 'x'*109
    b'y'*108 'a\0b' '\udcff' bytearray(b'none') memoryview(b'none') ('127.0.0.1',1) '\0'+'x'*107
""")
# HOST stands for the loopback address.  No name is here that somebody could try to resolve.
ODD_INET_ADDRESSES = words(r"""
    (HOST,-1) (HOST,65536) (HOST,'1') (HOST,1.5) (HOST,) [HOST,9] (HOST,2**40) (HOST,None)
    (HOST,0) (HOST,Index()) (HOST,True) (HOST.encode(),9) (bytearray(HOST.encode()),9)
    (HOST,9,0) (HOST,9,0,0) (HOST,9,0,0,0) (HOST,9,-1) (HOST,9,2**20) (HOST,9,0,-1)
    (HOST,9,0,2**32) (HOST,9,'a') (5,9) (None,9) ('a\0b',9)
    ('255.255.255.255',9) ('0.0.0.0',9) ('::ffff:127.0.0.1',9) ('::',9) ('fe80::1',9)
    ('',9) ('a'*64+'.b',9) ('<broadcast>',9)
""")
RECEIVE_FLAGS = words("DONTWAIT PEEK PEEK TRUNC WAITALL OOB ERRQUEUE CMSG_CLOEXEC")
if sys.version_info >= (3, 15):
    # There socket.recvmsg() raises ValueError for a longer datagram with it, and loses that.
    RECEIVE_FLAGS.remove("TRUNC")
SEND_FLAGS = words("DONTWAIT NOSIGNAL OOB EOR CONFIRM DONTROUTE CMSG_CLOEXEC")


class Author:
    """Writes calls, mostly sound ones."""

    def __init__(self, setup: Setup, chance: random.Random) -> None:
        self.setup = setup
        self.chance = chance
        kinds = ("named dgram", "abstract dgram", "udp4", "udp6", "netlink")
        self.unconnected = setup.kind in kinds
        self.oddity = 1

    def odd(self, probability: float = 0.06) -> bool:
        """Whether this argument shall be a strange one: one at most in a call.

        Which of two errors comes first is nobody's contract.
        """
        if self.chance.random() >= probability * self.oddity:
            return False
        self.oddity = 0
        return True

    def any_of(self, *choices: str) -> str:
        return self.chance.choice(choices)

    def step(self, sock: str, pending: bool) -> str:
        """One call on sock; pending says whether there is something to receive."""
        self.oddity = self.chance.choice((0, 1, 1, 1, 1, 1))
        draw = self.chance.random()
        if draw < 0.03:
            return self.other(sock)
        target = sock
        if not self.setup.patched and self.setup.kind != "netlink" and self.chance.random() < 0.06:
            target = self.any_of(f"number({sock})", f"holder({sock})")
        if draw < 0.6 if pending else draw < 0.12:
            name = self.any_of("recvmsg", "recvmsg_into", "recv_fds")
            if not self.setup.inet and self.chance.random() < 0.08:
                target = f"tight({target}, {self.chance.choice((0, 1, 2))})"
        else:
            name = self.any_of("sendmsg", "sendmsg", "send_fds")
        arguments: list[str] = getattr(self, name)(target)
        if self.odd(0.02):
            del arguments[self.chance.randrange(len(arguments)) :]
        if self.odd(0.02):
            more = ("*[0] * 5", "**{'flags': 0}", "**{'unknown': 0}")
            arguments.append(self.any_of(*more, "*[0]" if target == sock else more[0]))
        return f"{name}({', '.join([target, *arguments])})"

    def other(self, sock: str) -> str:
        option = self.chance.choice(OPTIONS)
        return self.any_of(
            f"{sock}.close()",
            f"{sock}.shutdown(socket.SHUT_RD)",
            f"{sock}.shutdown(socket.SHUT_WR)",
            *[f"{sock}.setsockopt(socket.SOL_SOCKET, {option}, 0)"] * 2,
            *(f"{sock}.settimeout({timeout})" for timeout in (0, 0.001, None)),
            *(f"set_blocking({sock}.fileno(), {value})" for value in (True, False)),
        )

    def sendmsg(self, target: str) -> list[str]:
        arguments = [self.buffers(), self.control(), self.flags(SEND_FLAGS), self.address(target)]
        return arguments[: 4 if self.unconnected else self.chance.choice((1, 2, 2, 3, 4))]

    def send_fds(self, target: str) -> list[str]:
        flags, address = self.flags(SEND_FLAGS), self.address(target)
        more = [[f"flags={flags}", f"address={address}"], [flags, address], [flags], []]
        more = more[: 2 if self.unconnected else 4]
        return [self.buffers(), self.descriptors(), *self.chance.choice(more)]

    def recvmsg(self, target: str) -> list[str]:
        arguments = [self.size(), self.control_size(), self.flags(RECEIVE_FLAGS)]
        return arguments[: self.chance.choice((1, 2, 2, 3, 3))]

    def recvmsg_into(self, target: str) -> list[str]:
        arguments = [self.writable_buffers(), self.control_size(), self.flags(RECEIVE_FLAGS)]
        return arguments[: self.chance.choice((1, 2, 2, 3, 3))]

    def recv_fds(self, target: str) -> list[str]:
        maxfds = str(self.chance.choice((0, 1, 1, 2, 2, 3, 4, 5, 10, 252, 253, 254, 1000)))
        if self.odd():
            maxfds = self.any_of(*ODD_MAXFDS)
        arguments = [self.size(), maxfds, self.flags(RECEIVE_FLAGS)]
        arguments = arguments[: self.chance.choice((2, 2, 3))]
        if not self.setup.patched and self.chance.random() < 0.1:
            arguments.append(self.any_of("cloexec=False", "cloexec=True"))
        return arguments

    def size(self) -> str:
        if self.odd():
            return self.any_of(*ODD_SIZES)
        return str(self.chance.choice((0, 1, 2, 3, 10, 64, 100, 1000, 65536, 400000)))

    def control_size(self) -> str:
        if self.odd():
            return self.any_of(*ODD_CONTROL_SIZES)
        count = 4 * self.chance.choice((0, 1, 1, 2, 3, 4, 10, 253))
        return self.any_of(
            "0",
            str(self.chance.randrange(100)),
            str(self.chance.choice((4096, 65536))),
            f"socket.CMSG_LEN({count})",
            f"socket.CMSG_SPACE({count})",
            f"socket.CMSG_SPACE({count}) + socket.CMSG_SPACE(12)",
        )

    def flags(self, names: Sequence[str]) -> str:
        if self.odd():
            return self.any_of(*ODD_FLAGS)
        if self.chance.random() < 0.65:
            return "0"
        if "tcp" in self.setup.kind:  # where it leaves the buffer as it was: not worth comparing
            names = [name for name in names if name != "TRUNC"]
        if "stream" in self.setup.kind and SO_PASSPIDFD in self.setup.options:
            # Asked for 0 bytes of a message with MSG_OOB, Linux 6.18 says EAGAIN after it opened
            # the pidfd, so that each try leaks one: with socket, cmsgx and C alike.
            names = [name for name in names if name != "PEEK"]
        some = self.chance.sample(names, self.chance.choice((1, 1, 2)))
        return " | ".join(f"socket.MSG_{name}" for name in some)

    def readable(self) -> str:
        if self.odd():
            return self.any_of(*ODD_READABLES)
        if not self.setup.inet and self.chance.random() < 0.02:
            return self.any_of("bytes(70000)", "bytes(300000)")
        data = bytes(self.chance.choices(b"abcdef", k=self.chance.choice((0, 1, 2, 5, 20, 100))))
        return self.any_of(
            *[repr(data)] * 4,
            f"bytearray({data!r})",
            f"memoryview({data!r})",
            f"memoryview({data!r})[1:3]",
            "array('i', [1, 2, 3])",
            "array('d', [1.5])",
            "memoryview(array('i', [1, 2, 3]))[1:]",
            "memoryview(bytearray(12)).cast('B', (3, 4))",
        )

    def writable(self) -> str:
        if self.odd():
            return self.any_of(*ODD_WRITABLES)
        size = self.chance.choice((0, 1, 2, 5, 20, 100, 1000, 70000))
        return self.any_of(
            *[f"bytearray({size})"] * 3,
            f"memoryview(bytearray({size}))[1:5]",
            "array('i', [1, 2, 3])",
            "array('d', [1.5])",
            "memoryview(bytearray(12)).cast('B', (3, 4))",
            "memoryview(array('i', [1, 2, 3]))[1:]",
        )

    def iterable(self, inside: str) -> str:
        if self.odd(0.03):
            return f"failing({inside})"
        return self.any_of(*[inside] * 3, f"tuple({inside})", f"iter({inside})")

    def buffers(self) -> str:
        if self.odd():
            return self.any_of(*ODD_READABLE_LISTS)
        items = [self.readable() for _ in range(self.chance.choice((0, 1, 1, 2, 5)))]
        return self.iterable(f"[{', '.join(items)}]")

    def writable_buffers(self) -> str:
        if self.odd():
            return self.any_of(*ODD_WRITABLE_LISTS)
        items = [self.writable() for _ in range(self.chance.choice((0, 1, 1, 2, 5)))]
        return self.iterable(f"keep([{', '.join(items)}])")

    def some_files(self, most: int = 6) -> str:
        count = self.chance.choice((0, 1, 1, 2, 3, most))
        return f"[{', '.join(f'files[{self.chance.randrange(4)}]' for _ in range(count))}]"

    def descriptors(self) -> str:
        if self.odd(0.12):
            return self.any_of(*ODD_DESCRIPTORS)
        files = self.some_files(10)
        return self.any_of(
            *[files] * 3, f"tuple({files})", f"iter({files})", f"array('i', {files})"
        )

    def control(self) -> str:
        if self.odd(0.12):
            return self.any_of(*ODD_CONTROL)
        count = self.chance.choice((0, 0, 1, 1, 1, 2))
        return self.iterable(f"[{', '.join(self.control_message() for _ in range(count))}]")

    def control_message(self) -> str:
        if self.setup.inet:  # IP_TTL and IP_TOS, IPV6_HOPLIMIT and IPV6_TCLASS
            kinds = ("41, 52", "41, 67") if self.setup.kind[-1] == "6" else ("0, 2", "0, 1")
            return f"({self.any_of(*kinds)}, array('i', [{self.chance.randrange(1, 255)}]))"
        if self.chance.random() < 0.2:
            return "(1, 2, credentials)"
        files = f"array('i', {self.some_files()})"
        more = f"bytes({files})", f"memoryview({files})", f"bytes({files}) + b'x'"
        return f"(socket.SOL_SOCKET, socket.SCM_RIGHTS, {self.any_of(files, files, *more)})"

    def address(self, target: str) -> str:
        own, peer = ("A", "B") if target in ("a", "number(a)", "holder(a)") else ("B", "A")
        if not self.odd(0.2):
            return peer if self.unconnected else self.any_of("None", peer, own)
        if self.setup.kind == "netlink":
            return self.any_of(own, *ODD_ADDRESSES, "(0, 0)", "(0, 1)", "(-1, 0)", "(1, 2, 3)")
        if not self.setup.inet:
            return self.any_of(own, *ODD_ADDRESSES, *ODD_UNIX_ADDRESSES)
        address = self.any_of(own, *ODD_ADDRESSES, *ODD_INET_ADDRESSES)
        if "(" in target and (".b'" in address or "'::" in address or "fe80" in address):
            address = own
        return address.replace("HOST", "'::1'" if self.setup.kind[-1] == "6" else "'127.0.0.1'")


# Running them.


class World:
    """A set of twins."""

    def __init__(self, setup: Setup, tally: Counter[str]) -> None:
        self.setup = setup
        self.tally = tally
        self.messages: Counter[tuple[str, str, str]] = Counter()

    def __enter__(self) -> World:
        self.stack = stack = contextlib.ExitStack()
        self.folder = tempfile.mkdtemp(prefix="cmsgx-")
        stack.callback(shutil.rmtree, self.folder)
        with stack:
            self.files = [os.open(os.devnull, os.O_RDONLY), *os.pipe()]
            self.files.append(os.open(self.folder, os.O_RDONLY))
            for number in self.files:
                stack.callback(os.close, number)
            self.stock = Stock(self.setup, self.files, self.folder)
            stack.callback(self.stock.close)
            self.ours = Ours(self.setup, self.files, self.folder)
            stack.callback(self.ours.close)
            if self.setup.patched:
                cmsgx.install(cloexec=self.setup.api == "install")
                stack.callback(cmsgx.uninstall)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def pending(self, name: str) -> bool:
        """Whether there is something to receive; the same on both twins."""
        first, second = (readable(getattr(side, name)) for side in (self.stock, self.ours))
        patience = 200 if self.setup.inet else 0
        while first != second and patience:
            time.sleep(0.0005)
            patience -= 1
            first, second = (readable(getattr(side, name)) for side in (self.stock, self.ours))
        return first[0] != 0

    def run(self, step: str) -> None:
        """One call on both twins."""
        if self.setup.inet:
            self.pending("a")
            self.pending("b")
        code = compile(step, "<step>", "eval")
        self.stock.used_up_by_one_call = "iter(" in step or "failing(" in step
        before = open_descriptors()
        expected, message = self.stock.evaluate(code)
        between = open_descriptors()
        outcome, our_message = self.ours.evaluate(code)
        grown = open_descriptors() - between
        name = step.partition("(")[0]
        self.tally[f"{name} {expected[0]}"] += 1
        if expected[0] == "raised":
            self.messages[f"{name} {expected[1].__name__}", message, our_message] += 1
        elif isinstance(expected[1], tuple) and expected[1][2]:
            self.tally[f"{name} with control messages"] += 1
        if IS_MUSL and expected[:3] in MUSL_REFUSES and expected != outcome:
            raise Parted
        if expected != outcome:
            text = f"socket: {shown(expected)} {message}\ncmsgx:  {shown(outcome)} {our_message}"
            kinds = (part[1:3] if part[0] == "raised" else "" for part in (expected, outcome))
            raise Mismatch(text, f"{name} {' '.join(map(str, kinds))}")
        if grown != between - before:
            text = f"descriptors: socket {between - before:+}, cmsgx {grown:+}"
            raise Mismatch(text, f"{name} {text}")


def readable(sock: socket.socket) -> tuple[int, int]:
    if sock.fileno() < 0:
        return 0, 0
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    events = poll.poll(0)
    waiting = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(sock, termios.FIONREAD, waiting)
    return events[0][1] if events else 0, waiting[0]


def shown(outcome: object) -> str:
    text = re.sub(r"(\\x00){9,}", r"\\x00...", repr(outcome))
    return text if len(text) < 1500 else f"{text[:750]} ... {text[-750:]}"


def replay(setup: Setup, steps: Sequence[str]) -> str:
    """What differs at the last of these calls, if something does."""
    with World(setup, Counter()) as world:
        for position, step in enumerate(steps):
            try:
                world.run(step)
            except Parted:
                return ""
            except Mismatch as mismatch:
                return str(mismatch) if position == len(steps) - 1 else ""
    return ""


def shorten(setup: Setup, steps: list[str]) -> list[str]:
    """The same difference with fewer calls before it."""
    if not replay(setup, steps):
        return steps
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps) - 1:
            shorter = steps[:start] + steps[min(start + size, len(steps) - 1) :]
            if replay(setup, shorter):
                steps = shorter
            else:
                start += size
        size //= 2
    return steps


def usable_kinds() -> list[str]:
    unusable = []
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        unusable.append("6")
    try:
        for sock in make_sockets("netlink", "", ""):
            sock.close()
    except OSError:
        unusable.append("netlink")
    return [kind for kind in KINDS if not kind.endswith(tuple(unusable))]


class Findings(NamedTuple):
    tally: Counter[str]
    messages: Counter[tuple[str, str, str]]
    mismatches: list[str]


def fuzz(calls: int, seed: int, most_mismatches: int = 1) -> Findings:
    """Makes that many calls, and tells one difference of each sort, shortened."""
    findings = Findings(Counter(), Counter(), [])
    kinds = usable_kinds()
    sorts: set[str] = set()
    made = round_number = 0
    while made < calls and len(findings.mismatches) < most_mismatches:
        round_number += 1
        chance = random.Random(f"{seed}/{round_number}")
        waits: tuple[float | None, ...] = (0, 0, 0, 0.001, None)
        kind = kinds[round_number % len(kinds)]
        options = [option for option in OPTIONS if chance.random() < 0.2]
        if kind.startswith("tcp") and SO_TIMESTAMP in options:
            options.remove(SO_TIMESTAMP)  # the kernel stamps some segments and others not
        timeouts = (chance.choice(waits), chance.choice(waits))
        setup = Setup(kind, chance.choice(APIS), timeouts, tuple(options))
        author = Author(setup, chance)
        steps: list[str] = []
        with World(setup, findings.tally) as world:
            for _ in range(STEPS):
                name = chance.choice("ab")
                steps.append(author.step(name, world.pending(name)))
                made += 1
                try:
                    world.run(steps[-1])
                except Parted:
                    difference = ""
                    break
                except Mismatch as error:
                    difference = "" if error.sort in sorts else str(error)
                    sorts.add(error.sort)
                    break
            else:
                difference = ""
            findings.messages.update(world.messages)
        if difference:
            steps = shorten(setup, steps)
            difference = replay(setup, steps) or f"Not seen again: {difference}"
            lines = [f"seed {seed}, round {round_number}: {setup}", *steps, difference]
            findings.mismatches.append("\n".join(lines))
    return findings


@pytest.mark.parametrize("calls", lengths("CMSGX_FUZZ_CALLS", 1000, CALLS))
@pytest.mark.slow
def test_same_answers_as_socket(calls: int) -> None:
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        findings = fuzz(calls, SEED)
    assert not findings.mismatches, "\n".join(["", *findings.mismatches])
    assert open_descriptors() == before
    # The calls were not in vain.
    if calls >= 5000:
        for name in CALLED:
            assert findings.tally[f"{name} returned"] > calls / 40
            assert findings.tally[f"{name} raised"] > calls / 200
        for name in ("recvmsg", "recvmsg_into", "recv_fds"):
            assert findings.tally[f"{name} with control messages"] > calls / 200


def test_macros_give_the_same_answers_as_socket() -> None:
    sizes: list[Any] = [*range(600), *(2**power + more for power in range(65) for more in (-50, 0))]
    sizes += [-1, -(2**31), -(2**63), "1", None, 1.5, True, Index(), b""]
    for name in ("CMSG_LEN", "CMSG_SPACE"):
        for size in sizes:
            answers = []
            for function in (getattr(_socket, name), getattr(cmsgx, name)):
                try:
                    answers.append(function(size))
                except Exception as error:
                    answers.append(type(error))
            assert answers[0] == answers[1], f"{name}({size!r}): {answers}"


def main(calls: int = CALLS, seed: int = SEED) -> int:
    start = time.monotonic()
    findings = fuzz(calls, seed, most_mismatches=10)
    for name, count in sorted(findings.tally.items()):
        print(f"{count:8} {name}")
    if "--messages" in sys.argv:
        for (name, stock, ours), count in sorted(findings.messages.items()):
            if stock != ours:
                print(f"{count:8} {name}\n         socket: {stock}\n         cmsgx:  {ours}")
    for mismatch in findings.mismatches:
        print(f"\nMISMATCH {mismatch}")
    print(f"{len(findings.mismatches)} mismatches, {time.monotonic() - start:.1f} s")
    return bool(findings.mismatches)


if __name__ == "__main__":
    sys.exit(main(*map(int, [word for word in sys.argv[1:] if word.isdigit()])))
