"""What each error says: which argument it was, what it was given, and what would do."""

from __future__ import annotations

import copy
import errno
import ipaddress
import os
import pickle
import re
import signal
import socket
import sys
import threading
from asyncio.trsock import TransportSocket
from contextlib import ExitStack
from typing import Any

import pytest
from support import unregistered

import cmsgx
from cmsgx import kinds, wire


def told(error: BaseException) -> str:
    """Its text, with the name of the errno in place of what each C library calls it, and N for the
    number of an Fd."""
    if isinstance(error, KeyError):
        return str(error.args[0])
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None:
        name = errno.errorcode[error.errno]
        text = text.removeprefix(f"[Errno {error.errno}] ").removeprefix(os.strerror(error.errno))
        text = f"[{name}] {text.removeprefix(': ')}".rstrip()
    return re.sub(r"(?<=Fd )\d+(?=>)", "N", text)


# The names that the calls below use.


class Overriding(cmsgx.socket):
    def recvmsg(self, *_: Any) -> Any:
        raise AssertionError

    sendmsg = recvmsg


class Awaited:
    def fileno(self) -> int:
        return 0

    async def recvmsg(self, *_: Any) -> Any:
        raise AssertionError


class Scene(dict[str, Any]):
    """Makes what a call names when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(
            cmsgx=cmsgx,
            kinds=kinds,
            wire=wire,
            socket=socket,
            os=os,
            sys=sys,
            copy=copy,
            pickle=pickle,
            ipaddress=ipaddress,
        )
        self._stack = stack
        self["__builtins__"] = {
            name: getattr(__import__("builtins"), name)
            for name in (
                "bytearray",
                "float",
                "int",
                "list",
                "memoryview",
                "next",
                "setattr",
                "True",
                "None",
            )
        }

    def __missing__(self, name: str) -> Any:
        made = getattr(self, f"_make_{name}", None)
        if made is None:
            raise KeyError(name)
        self[name] = made()
        return self[name]

    def _enter(self, thing: Any) -> Any:
        return self._stack.enter_context(thing)

    def _make_pair(self) -> Any:
        left, right = cmsgx.socketpair()
        left.settimeout(20)
        right.settimeout(20)
        return self._enter(left), self._enter(right)

    def _make_sock(self) -> Any:
        return self["pair"][0]

    def _make_udp(self) -> Any:
        udp = self._enter(cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        return udp

    def _make_closed_socket(self) -> Any:
        closed = cmsgx.socket(socket.AF_UNIX)
        closed.close()
        return closed

    def _make_closed_file(self) -> Any:
        with open(os.devnull, encoding="ascii") as closed:
            return closed

    def _make_closed_fd(self) -> Any:
        with cmsgx.Fd(os.dup(0)) as closed:
            return closed

    def _make_fd(self) -> Any:
        return self._enter(cmsgx.Fd(os.open(os.devnull, os.O_RDONLY)))

    def _make_pidfd(self) -> Any:
        return self._enter(cmsgx.PidFd(os.pidfd_open(os.getpid())))

    def _make_not_a_pidfd(self) -> Any:
        return self._enter(cmsgx.PidFd(os.open(os.devnull, os.O_RDONLY)))

    def _make_unconnected(self) -> Any:
        return self._enter(cmsgx.socket(socket.AF_UNIX))

    def _make_memory(self) -> Any:
        return self._enter(cmsgx.share(b"12345"))

    def _make_unsealed(self) -> Any:
        return self._enter(cmsgx.Fd(os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)))

    def _make_message(self) -> Any:
        """With one descriptor, received by receive()."""
        left, right = self["pair"]
        cmsgx.send(left, b"12345", fds=[0])
        message = self._enter(cmsgx.receive(right, 10, fds=1))
        message.fds[0]
        return message

    def _make_plain(self) -> Any:
        """Without any, received by a Receiver that wants SecurityLabel."""
        left, right = self["pair"]
        receiver = cmsgx.Receiver(right, 10, want=[cmsgx.SecurityLabel])
        cmsgx.send(left, b"12345")
        return self._enter(receiver.receive())

    def _make_batch(self) -> Any:
        left, _ = self["pair"]
        receiver = self["batch_receiver"]
        cmsgx.send(left, b"1")
        return self._enter(receiver.receive())

    def _make_batch_receiver(self) -> Any:
        return cmsgx.BatchReceiver(self["pair"][1], 4, 10)

    def _make_receiver(self) -> Any:
        return cmsgx.Receiver(self["pair"][1], 10)

    def _make_uninitialised(self) -> Any:
        return cmsgx.Receiver.__new__(cmsgx.Receiver)

    def _make_uninitialised_batch(self) -> Any:
        return cmsgx.BatchReceiver.__new__(cmsgx.BatchReceiver)

    def _make_refused_pidfd(self) -> Any:
        return (-errno.EMFILE).to_bytes(4, sys.byteorder, signed=True)

    def _make_owned_rights(self) -> Any:
        rights = cmsgx.Rights.unpack(os.dup(0).to_bytes(4, sys.byteorder))
        for fd in rights.own():
            self._enter(fd)
        return rights

    def _make_enabled(self) -> Any:
        return self._enter(cmsgx.enable(self["sock"], cmsgx.Credentials))

    def _make_zero_copy(self) -> Any:
        return self._enter(cmsgx.ZeroCopySender(self["udp"]))

    def _make_closed_zero_copy(self) -> Any:
        self["zero_copy"].close()
        return self["zero_copy"]

    def _make_given_fd(self) -> Any:
        given = cmsgx.Fd(os.dup(0))
        os.close(given.detach())
        return given

    def _make_two(self) -> Any:
        """A message with two descriptors."""
        left, right = self["pair"]
        cmsgx.send(left, b"12345", fds=[0, 0])
        return self._enter(cmsgx.receive(right, 10, fds=2))

    def _make_surplus(self) -> Any:
        """A message with two descriptors, of which one was asked for."""
        left, right = self["pair"]
        cmsgx.send(left, b"12345", fds=[0, 0])
        return self._enter(cmsgx.receive(right, 10, fds=1))

    def _make_taken(self) -> Any:
        self["two"].take(0).close()
        return self["two"]

    def _make_scattered(self) -> Any:
        left, right = self["pair"]
        cmsgx.send(left, b"12345")
        return self._enter(cmsgx.Receiver(right, into=[bytearray(2), bytearray(3)]).receive())

    def _make_scoped(self) -> Any:
        return ipaddress.ip_address("fe80::1%1")

    def _make_udp6(self) -> Any:
        return self._enter(cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM))

    def _make_udp_mapped(self) -> Any:
        mapped = self["udp6"]
        mapped.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mapped.connect(("::ffff:127.0.0.1", self["udp"].getsockname()[1]))
        return mapped

    def _make_datagrams(self) -> Any:
        """The receiving end, with one of 5 bytes."""
        left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._enter(left)
        left.send(b"12345")
        return self._enter(right)

    def _make_overriding(self) -> Any:
        return self._enter(Overriding(socket.AF_UNIX))

    def _make_transport(self) -> Any:
        return TransportSocket(self["sock"])

    def _make_awaited(self) -> Any:
        return Awaited()

    def _make_New(self) -> Any:
        class New(kinds.ControlMessage):
            __slots__ = ()

        New.__qualname__ = "New"
        self._enter(unregistered(New))
        return New

    def _make_Struct(self) -> Any:
        class Struct(kinds.StructMessage):
            __slots__ = ()

        self._enter(unregistered(Struct))
        return Struct

    def _make_packed(self) -> Any:
        class Packed(kinds.ControlMessage):
            __slots__ = ()

            def pack(self) -> Any:
                return 5

        self._enter(unregistered(Packed))
        return kinds.register(Packed, level=900, type=900)()

    def _make_closed_message(self) -> Any:
        message = self["message"]
        message.close()
        return message


# The call, the type of its error, and all that it says.  What CPython says of a wrong number of
# arguments to a function in Python stands here for none of them.
INT_MAX = 2**31 - 1
KINDS_OF_FILES = (
    "'anonymous', 'block', 'character', 'directory', 'epoll', 'eventfd', 'file', 'memfd', 'pidfd', "
    "'pipe', 'socket'"
)
SEALS = "'seal', 'shrink', 'grow', 'write', 'future-write'"
MESSAGES: list[tuple[str, type[BaseException], str]] = [
    # ints
    ("cmsgx.receive(100, sock)", TypeError, "bufsize: an int is needed, not socket"),
    ("cmsgx.receive(sock, None)", TypeError, "bufsize: an int is needed, not NoneType"),
    ("cmsgx.receive(sock, 5.0)", TypeError, "bufsize: an int is needed, not float"),
    ("cmsgx.receive(sock, -1)", ValueError, "bufsize: -1; it cannot be negative"),
    ("cmsgx.receive(sock, 2**31)", ValueError,
     "bufsize: 2147483648; one call brings 2147479552 bytes at most"),
    ("cmsgx.receive(sock, 5, fds='1')", TypeError, "fds: an int is needed, not str"),
    ("cmsgx.receive(sock, 5, fds=-1)", ValueError, "fds: -1; it cannot be negative"),
    ("cmsgx.receive(sock, 5, fds=254)", cmsgx.TooManyFdsError,
     "fds: 254; one message carries 253 at most"),
    ("cmsgx.send(sock, b'x', fds=3)", TypeError,
     "fds: 3; a descriptor that is a number is given in a list: fds=[3]"),
    ("cmsgx.send(sock, b'x', fds=True)", TypeError,
     "fds: True is not a descriptor; descriptors are given in a list: fds=[number]"),
    ("cmsgx.Rights(None)", TypeError,
     "fds: an iterable of descriptors, or an object with fileno(), is needed, not NoneType"),
    ("cmsgx.receive(sock, 5, flags='x')", TypeError, "flags: an int is needed, not str"),
    ("cmsgx.receive(sock, 5, flags=2**33)", OverflowError,
     "flags: 8589934592 does not fit in 32 bits, signed"),
    ("cmsgx.receive(sock, 5, flags=10**5000)", OverflowError,
     "flags: an int does not fit in 32 bits, signed"),
    ("cmsgx.receive(sock, 5, flags=socket.MSG_PEEK, fds=1)", ValueError,
     "flags: each MSG_PEEK makes new descriptors; peek with fds=0"),
    ("cmsgx.recvmsg(100, sock)", TypeError, "bufsize: an int is needed, not socket"),
    ("cmsgx.recvmsg(sock, -5)", ValueError, "bufsize: -5; it cannot be negative"),
    ("cmsgx.recvmsg(sock, 5, '5')", TypeError, "ancbufsize: an int is needed, not str"),
    ("cmsgx.recvmsg(sock, 5, -5)", ValueError, f"ancbufsize: -5; it is 0 to {INT_MAX}"),
    ("cmsgx.recv_fds(sock, 5, '1')", TypeError, "maxfds: an int is needed, not str"),
    ("cmsgx.recv_fds(sock, -5, 1)", ValueError, "bufsize: -5; it cannot be negative"),
    ("cmsgx.recv_fds(sock, 5, -1)", OverflowError,
     f"maxfds: -1; it is 0 to {(INT_MAX - socket.CMSG_LEN(0)) // 4}"),
    ("cmsgx.CMSG_LEN('1')", TypeError, "length: an int is needed, not str"),
    ("cmsgx.CMSG_LEN(-1)", OverflowError,
     f"length: -1; CMSG_LEN() takes 0 to {INT_MAX - socket.CMSG_LEN(0)}"),
    ("cmsgx.BatchReceiver(sock, '5', 5)", TypeError, "count: an int is needed, not str"),
    ("cmsgx.Receiver(sock, 5).receive(bufsize=6)", ValueError,
     "bufsize: 6; this Receiver was made for 5 bytes at most"),
    ("cmsgx.Receiver(sock, into=bytearray(5)).receive(bufsize=6)", ValueError,
     "bufsize: 6; the buffers of into= have 5 bytes"),
    ("cmsgx.BatchReceiver(sock, 0, 5)", ValueError, "count: 0; it is 1 to 1048576"),
    # times
    ("cmsgx.receive(sock, 5, timeout='1')", TypeError,
     "timeout: a number of seconds, or None, is needed, not str"),
    ("cmsgx.receive(sock, 5, timeout=-1)", ValueError,
     "timeout: -1; seconds that are not negative, or None"),
    ("cmsgx.receive(sock, 5, timeout=0.001)", TimeoutError, "timed out"),
    ("cmsgx.wait_closed('1')", TypeError,
     "timeout: a number of seconds, or None, is needed, not str"),
    # words
    ("cmsgx.receive(sock, 5, on_truncation='x')", ValueError,
     "on_truncation: 'x'; it is 'raise' or 'keep'"),
    ("cmsgx.receive(sock, 5, close='x')", ValueError, "close: 'x'; it is 'now' or 'background'"),
    # which arguments there are
    ("cmsgx.receive(sock)", TypeError, "receive() missing required argument 'bufsize' (pos 2)"),
    ("cmsgx.receive(sock, 5, 1)", TypeError,
     "receive() takes at most 2 positional arguments (3 given); by name: fds=, flags=, timeout=, "
     "on_truncation=, close="),
    ("cmsgx.Receiver(sock, 5).receive(5)", TypeError,
     "receive() takes no positional arguments (1 given); by name: bufsize=, flags=, timeout="),
    ("cmsgx.receive(sock, 5, size=1)", TypeError,
     "receive() got an unexpected keyword argument 'size'"),
    ("cmsgx.receive(sock, 5, bufsize=1)", TypeError,
     "receive() got multiple values for argument 'bufsize'"),
    ("cmsgx.sendmsg(sock)", TypeError,
     "sendmsg() takes a socket and 1 to 4 arguments (0 given)"),
    ("cmsgx.recvmsg(sock)", TypeError,
     "recvmsg() takes a socket and 1 to 3 arguments (0 given)"),
    # sock
    ("cmsgx.receive('x', 5)", TypeError,
     "sock: an int, an Fd or an object with fileno() is needed, not str"),
    ("cmsgx.receive(cmsgx.Fd, 5)", TypeError,
     "sock: an int, an Fd or an object with fileno() is needed, not the class Fd"),
    ("cmsgx.receive(2**40, 5)", ValueError, "sock: 1099511627776 is not a file descriptor"),
    ("cmsgx.receive(-1, 5)", OSError, "[EBADF] sock: -1"),
    ("cmsgx.receive(1 << 20, 5)", OSError, "[EBADF] sock: descriptor 1048576 is not open"),
    ("cmsgx.send(1 << 20, b'x')", OSError, "[EBADF] sock: descriptor 1048576 is not open"),
    ("cmsgx.send_batch(1 << 20, [b'x'])", OSError,
     "[EBADF] sock: descriptor 1048576 is not open"),
    ("cmsgx.recvmsg(closed_socket, 5)", OSError, "[EBADF] sock: it is closed"),
    ("cmsgx.sendmsg(closed_socket, [b'x'])", OSError, "[EBADF] sock: it is closed"),
    ("cmsgx.send_fds(closed_socket, [b'x'], [0])", OSError, "[EBADF] sock: it is closed"),
    ("cmsgx.send(closed_socket, b'x')", OSError, "[EBADF] sock: it is closed"),
    ("cmsgx.send(closed_fd, b'x')", OSError, "[EBADF] sock: <Fd closed>"),
    # data
    ("cmsgx.send(sock, 'text')", TypeError,
     "data: a bytes-like object, or an iterable of them, is needed, not str; encode it: "
     "text.encode()"),
    ("cmsgx.send(sock, ['text'])", TypeError,
     "data[0]: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.send(sock, [b'x', 5])", TypeError, "data[1]: a bytes-like object is needed, not int"),
    ("cmsgx.send(sock, 5)", TypeError,
     "data: a bytes-like object, or an iterable of them, is needed, not int"),
    ("cmsgx.send(sock, memoryview(b'abcd')[::2])", BufferError,
     "data: memoryview: underlying buffer is not C-contiguous"),
    ("cmsgx.sendmsg(sock, b'text')", TypeError,
     "buffers: an iterable of bytes-like objects, as [data], is needed, not bytes"),
    ("cmsgx.sendmsg(sock, 5)", TypeError,
     "buffers: an iterable of bytes-like objects, as [data], is needed, not int"),
    ("cmsgx.sendmsg(sock, 'text')", TypeError,
     "buffers[0]: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.recvmsg_into(sock, 5)", TypeError,
     "buffers: an iterable of writable buffers, as [memory], is needed, not int"),
    ("cmsgx.recvmsg_into(sock, bytearray(5))", TypeError,
     "buffers: an iterable of writable buffers, as [memory], is needed, not bytearray"),
    ("cmsgx.recvmsg_into(sock, [b'x'])", TypeError,
     "buffers[0]: a writable bytes-like object, contiguous, is needed, not bytes"),
    ("cmsgx.Receiver(sock, into=5)", TypeError,
     "into: a writable bytes-like object, or a sequence of them, is needed, not int"),
    ("cmsgx.Receiver(sock, into=[5])", TypeError,
     "into[0]: a writable bytes-like object is needed, not int"),
    ("cmsgx.Receiver(sock, into=b'x')", BufferError, "into: Object is not writable."),
    ("cmsgx.send_batch(sock, 5)", TypeError,
     "messages: an iterable of messages is needed, not int"),
    # control
    ("cmsgx.send(sock, b'x', control=5)", TypeError,
     "control: a control message, or an iterable of them, is needed, not int"),
    ("cmsgx.send(sock, b'x', control=cmsgx.Credentials)", TypeError,
     "control: a control message, or an iterable of them, is needed, not the class Credentials"),
    ("cmsgx.send(sock, b'x', control=[5])", TypeError,
     "control: a control message or (level, type, data) is needed, not int"),
    ("cmsgx.send(sock, b'x', control=[(1, 2)])", TypeError,
     "control[0]: (level, type, data) has 3 items, and this has 2"),
    ("cmsgx.send(sock, b'x', control=[(1, '2', b'')])", TypeError,
     "control[0]: type: an int is needed, not str"),
    ("cmsgx.send(sock, b'x', control=[(1, 2, 'x')])", TypeError,
     "control[0]: data: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.sendmsg(sock, [b'x'], 5)", TypeError,
     "ancdata: an iterable of (level, type, data) is needed, not int"),
    ("cmsgx.sendmsg(sock, [b'x'], [5])", TypeError,
     "ancdata[0]: (level, type, data) or a control message is needed, not int"),
    ("cmsgx.Credentials.unpack('x')", TypeError,
     "data: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.SecurityLabel('x')", TypeError,
     "SecurityLabel.label: a bytes-like object is needed, not str"),
    # what came
    ("message[cmsgx.Credentials]", KeyError,
     "no Credentials came with this message: receive() neither sets nor asks for options; "
     "Receiver(want=[Credentials]) switches it on, or enable(sock, Credentials)"),
    ("plain[cmsgx.Credentials]", KeyError,
     "no Credentials came with this message: it was not switched on; "
     "Receiver(want=[Credentials]) switches it on, or enable(sock, Credentials)"),
    ("plain[cmsgx.SecurityLabel]", KeyError,
     "no SecurityLabel came with this message, though it is switched on"),
    ("message.take('0')", TypeError, "take(): an index, or PidFd, is needed, not str"),
    ("message.take(cmsgx.Credentials)", TypeError,
     "take(): an index, or PidFd, is needed, not the class Credentials"),
    ("message.take(5)", IndexError, "take(5): 1 descriptors came with this message"),
    ("message.take()", TypeError,
     "take() takes one positional argument, an index of fds or PidFd (0 given)"),
    ("message.take(0, fd_class=cmsgx.Message)", TypeError,
     "fd_class: a subclass of Fd is needed, not the class cmsgx.Message"),
    ("plain.take_one()", ValueError, "take_one: 0 descriptors came"),
    ("closed_message.detach_all()", ValueError,
     "the message was closed, and with it what was not taken"),
    ("message.fds[5]", IndexError,
     "fds: index out of range, 1 descriptors came with this message"),
    # of functions in Python: the same words
    ("cmsgx.send_all(sock, 'text')", TypeError,
     "data: a bytes-like object, or an iterable of them, is needed, not str; encode it: "
     "text.encode()"),
    ("cmsgx.send_all(sock, [b'x', 5])", TypeError,
     "data[1]: a bytes-like object is needed, not int"),
    ("cmsgx.send_all(sock, memoryview(b'abcd')[::2])", TypeError,
     "data: its bytes are not contiguous; copy them: bytes(...)"),
    ("cmsgx.send_all(sock, b'x', timeout='1')", TypeError,
     "timeout: a number of seconds, or None, is needed, not str"),
    ("cmsgx.send_all(sock, b'x', timeout=-1)", ValueError,
     "timeout: -1; seconds that are not negative, or None"),
    ("cmsgx.send_segments(udp, b'x', '5')", TypeError, "size: an int is needed, not str"),
    ("cmsgx.send_segments(udp, b'x', 0)", ValueError, "size: 0; it is 1 or more"),
    ("cmsgx.send_segments(udp, b'x', 5, control=cmsgx.Credentials)", TypeError,
     "control: a control message, or an iterable of them, is needed, not the class Credentials"),
    ("cmsgx.receive_errors(udp, limit='x')", TypeError, "limit: an int is needed, not str"),
    ("cmsgx.receive_errors(udp, limit=-1)", ValueError, "limit: -1; it cannot be negative"),
    ("cmsgx.ZeroCopySender(sock, max_bytes='x')", TypeError,
     "max_bytes: an int is needed, not str"),
    ("cmsgx.ZeroCopySender(sock, max_pending=0)", ValueError, "max_pending: 0; it is 1 or more"),
    ("cmsgx.ZeroCopySender(sock, next_id=-1)", ValueError, "next_id: -1; it is 0 to 2**32 - 1"),
    ("cmsgx.ZeroCopySender(sock, on_copied='x')", ValueError,
     "on_copied: 'x'; it is 'keep' or 'stop'"),
    ("cmsgx.share('text')", TypeError,
     "data: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("fd.check(size='5')", TypeError, "size: an int is needed, not str"),
    ("fd.check(seals='x')", ValueError, f"seals: 'x'; it is {SEALS} or 'exec'"),
    ("fd.check(seals=1.5)", TypeError,
     f"seals: one of {SEALS}, 'exec', several of them, or F_SEAL_* bits, is needed, not float"),
    ("memory.map(size='5')", TypeError, "size: an int is needed, not str"),
    ("memory.map(size=6)", ValueError, "map: size 6, and <Fd N> has 5 bytes"),
    ("memory.map(seals=())", ValueError,
     "map: seals names none; the weakest is 'shrink', where others may write meanwhile"),
    ("memory.map(seals='exec')", ValueError,
     "map: <Fd N> has no F_SEAL_EXEC: the sender has to add that, as share() does"),
    ("unsealed.map()", ValueError,
     "map: <Fd N> has no F_SEAL_SHRINK, F_SEAL_WRITE: one that shrinks it would end this process "
     "by SIGBUS; the sender has to add that, as share() does"),
    ("fd.map()", ValueError, "map: <Fd N> is not a memfd with seals, as share() makes it"),
    ("fd.check(device='x')", TypeError, "device: an int is needed, not str"),
    ("fd.check(access='x')", ValueError, "access: 'x'; it is 'r', 'w' or 'rw'"),
    ("fd.check(kind='x')", ValueError, f"kind: 'x'; it is {KINDS_OF_FILES} or 'symlink'"),
    ("fd.check(kind=5)", TypeError,
     f"kind: one of {KINDS_OF_FILES}, 'symlink', or an iterable of them, is needed, not int"),
    ("pidfd.wait('1')", TypeError, "timeout: a number of seconds, or None, is needed, not str"),
    ("pidfd.wait(0)", TimeoutError, "timed out"),
    ("pidfd.send_signal('x')", TypeError, "number: an int is needed, not str"),
    ("pidfd.send_signal(9999)", OSError, "[EINVAL] number: 9999 is not a signal"),
    ("not_a_pidfd.send_signal(0)", OSError, "[EBADF] <PidFd N> is not a pidfd"),
    ("not_a_pidfd.wait(0)", OSError, "[EBADF] <PidFd N> is not a pidfd"),
    ("not_a_pidfd.pid", OSError, "[EINVAL] <PidFd N> is not a pidfd"),
    ("cmsgx.peer_credentials(unconnected)", OSError, "[ENOTCONN] sock: it has no peer"),
    ("cmsgx.accept_rights(sock, 'x')", TypeError, "accept: True or False is needed, not str"),
    ("cmsgx.decode('1', 1, b'')", TypeError, "level: an int is needed, not str"),
    ("cmsgx.decode(1, 1, 'x')", TypeError,
     "data: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.Rights(5)", TypeError,
     "fds: 5; a descriptor that is a number is given in a list: fds=[5]"),
    ("kinds.IPAddress(5)", TypeError,
     "IPAddress(): a str, 4 or 16 bytes, or an address of ipaddress, is needed, not int"),
    ("wire.parse(5)", TypeError, "control: a bytes-like object is needed, not int"),
    ("wire.CMSG_NXTHDR(b'', 5)", TypeError, "header: a Header is needed, not int"),
    ("wire.CMSG_DATA(5)", TypeError, "header: a Header is needed, not int"),
    ("wire.parse_multishot(b'', -1, 0)", ValueError, "name_size: -1; it cannot be negative"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), MESSAGES, ids=[row[0] for row in MESSAGES])
def test_an_error_says_which_argument_what_it_was_and_what_would_do(
    call: str, error: type[BaseException], text: str
) -> None:
    with ExitStack() as stack:
        scene = Scene(stack)
        # The names first, whose making may fail by itself.
        code = compile(call, call, "eval")
        for name in code.co_names:
            if hasattr(scene, f"_make_{name}"):
                scene[name]
        with pytest.raises(error) as caught:
            eval(code, scene)
        assert type(caught.value) is error
        assert told(caught.value) == text


@pytest.mark.parametrize("size", [2**60, sys.maxsize - 100])
def test_no_memory_for_the_data_is_told_with_its_size(size: int) -> None:
    left, right = cmsgx.socketpair()
    with left, right, pytest.raises(MemoryError) as caught:
        cmsgx.recvmsg(right, size)
    assert told(caught.value) == f"bufsize: there is no memory for {size} bytes"


def test_in_use_says_by_whom_and_what_would_do() -> None:
    left, right = cmsgx.socketpair()
    refused: list[str] = []

    def handler(*_: object) -> None:
        with pytest.raises(RuntimeError) as caught:
            receiver.receive()
        refused.append(told(caught.value))
        left.send(b"x")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with left, right:
            receiver = cmsgx.Receiver(right, 5)
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            receiver.receive(timeout=60).close()
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert refused == [
        "this Receiver is in use, by another thread or below a signal handler; make one for each "
        "thread"
    ]
