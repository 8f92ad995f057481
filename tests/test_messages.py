"""What each error says: which argument it was, what its value was, and what would be accepted."""

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
from messages import all_messages
from support import TESTS, unregistered

import cmsgx
from cmsgx import _truncation, kinds, wire


def told(error: BaseException) -> str:
    """Its text, with the name of the errno instead of each C library's text for it, and N for the
    number of an open descriptor."""
    text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
    if isinstance(error, OSError) and error.errno is not None:
        name = errno.errorcode[error.errno]
        text = text.removeprefix(f"[Errno {error.errno}] ").removeprefix(os.strerror(error.errno))
        name = "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else name
        text = f"[{name}] {text.removeprefix(': ')}".rstrip()
    text = "\n".join([text, *getattr(error, "__notes__", ())])
    text = re.sub(r"\b(?:tests\.)?test_messages\.", "", text)
    return re.sub(r"(?<=Fd )\d+(?=>)|(?<=descriptor )\d{1,3}(?= is not)", "N", text)


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
    """Creates an object that a call names when it is first used."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(
            cmsgx=cmsgx,
            kinds=kinds,
            wire=wire,
            _truncation=_truncation,
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
                "__import__",
                "range",
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

    def _make_restored(self) -> Any:
        handle = cmsgx.enable(self["udp"], kinds.Ttl)
        handle.restore()
        return handle

    def _make_dgram(self) -> Any:
        self["udp"].sendto(b"x", self["udp"].getsockname())
        return self._enter(cmsgx.Receiver(self["udp"], 10).receive())

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

    def _make_copied_zero_copy(self) -> Any:
        """As if this were a child of the process that created it."""
        sender = self["zero_copy"]
        generation = sender._generation
        sender._generation -= 1
        self._stack.callback(setattr, sender, "_generation", generation)
        return sender

    def _make_Raw(self) -> Any:
        class Raw(kinds.StructMessage):
            __slots__ = ()

            raw: bytes = kinds.member("raw")

        self._enter(unregistered(Raw))
        layout: Any = [("raw", 0, "s", 4)]
        return kinds.register(Raw, level=900, type=900, layout=layout, size=4)

    def _make_Raw_unregistered(self) -> Any:
        class Raw(kinds.StructMessage):
            __slots__ = ()

            raw: bytes = kinds.member("raw")

        self._enter(unregistered(Raw))
        return Raw

    def _make_identified(self) -> Any:
        """A message that brought a PidFd."""
        left, right = self["pair"]
        try:
            receiver = cmsgx.Receiver(right, 10, want=cmsgx.PidFd)
        except cmsgx.NotSupportedError as error:
            pytest.skip(str(error))
        cmsgx.send(left, b"12345")
        return self._enter(receiver.receive())

    def _make_Missing(self) -> Any:
        class Missing(kinds.StructMessage):
            __slots__ = ()

            nothing: int = kinds.member("nothing")

        self._enter(unregistered(Missing))
        return Missing

    def _make_error_receiver(self) -> Any:
        return cmsgx.ErrorReceiver(self["udp"])

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

    def _make_tcp(self) -> Any:
        return self._enter(cmsgx.socket(socket.AF_INET))

    def _make_udp6(self) -> Any:
        return self._enter(cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM))

    def _make_udp_mapped(self) -> Any:
        mapped = self["udp6"]
        mapped.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mapped.connect(("::ffff:127.0.0.1", self["udp"].getsockname()[1]))
        return mapped

    def _make_datagrams(self) -> Any:
        """The receiving end, with a message of 5 bytes in the queue."""
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

    def _make_zeros(self) -> Any:
        return bytes(4)

    def _make_closed_number(self) -> Any:
        return (1 << 20).to_bytes(4, sys.byteorder)

    def _make_taken_by_number(self) -> Any:
        """A message whose second descriptor was closed through `fds`."""
        self["two"].fds[1].close()
        return self["two"]

    def _make_given(self) -> Any:
        """A message whose first descriptor was given away through `fds`."""
        os.close(self["two"].fds[0].detach())
        return self["two"]

    def _make_closed_mapping(self) -> Any:
        with self["empty_memory"].map() as mapping:
            return mapping

    def _make_empty_memory(self) -> Any:
        return self._enter(cmsgx.share(b""))

    def _make_write_only(self) -> Any:
        memory = self["memory"]
        return self._enter(cmsgx.Fd(os.open(f"/proc/self/fd/{memory.fileno()}", os.O_WRONLY)))

    def _make_closed_message(self) -> Any:
        message = self["message"]
        message.close()
        return message


# The call, the type of its error, and its complete text. CPython's errors about a wrong number of
# arguments to a Python function are not listed here.
INT_MAX = 2**31 - 1
OPEN_MAX = os.sysconf("SC_OPEN_MAX")
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
    ("cmsgx.receive(sock, 5, fds=True)", TypeError,
     "fds: the number of descriptors to accept is needed, not bool"),
    ("cmsgx.Receiver(sock, 5, fds=True)", TypeError,
     "fds: the number of descriptors to accept is needed, not bool"),
    ("cmsgx.BatchReceiver(sock, 5, 5, fds=True)", TypeError,
     "fds: the number of descriptors to accept is needed, not bool"),
    ("cmsgx.receive(sock, 5, fds=-1)", ValueError, "fds: -1; it cannot be negative"),
    ("cmsgx.receive(sock, 5, fds=254)", cmsgx.TooManyFdsError,
     "fds: 254; one message carries 253 at most"),
    ("cmsgx.send(sock, b'x', fds=3)", TypeError,
     "fds: 3; a descriptor that is a number is given in a list: fds=[3]"),
    ("cmsgx.send(sock, b'x', fds=True)", TypeError,
     "fds: True is not a descriptor; descriptors are given in a list: fds=[number]"),
    ("cmsgx.send(sock, b'x', fds=b'12345678')", TypeError,
     "fds: an iterable of descriptors, or an object with fileno(), is needed, not bytes; give "
     "packed numbers as memoryview(data).cast('i')"),
    ("cmsgx.Rights(None)", TypeError,
     "fds: an iterable of descriptors, or an object with fileno(), is needed, not NoneType"),
    ("cmsgx.receive(sock, 5, flags='x')", TypeError, "flags: an int is needed, not str"),
    ("cmsgx.receive(sock, 5, flags=2**33)", OverflowError,
     "flags: 8589934592 does not fit in 32 bits, signed"),
    ("cmsgx.receive(sock, 5, flags=10**5000)", OverflowError,
     "flags: an int does not fit in 32 bits, signed"),
    ("cmsgx.receive(sock, 5, flags=socket.MSG_PEEK, fds=1)", ValueError,
     "flags: each MSG_PEEK installs new descriptors; peek with fds=0"),
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
    ("cmsgx.send(sock, [b'x'] * 3000)", OSError,
     "[EMSGSIZE] data: 3000 buffers; one call takes 1024 at most"),
    ("cmsgx.sendmsg(sock, [b'x'] * 3000)", OSError,
     "[EMSGSIZE] buffers: 3000 buffers; one call takes 1024 at most"),
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
    ("cmsgx.send_batch(sock, [b'x'], on_error='no')", ValueError,
     "on_error: 'no'; it is 'raise' or 'skip'"),
    ("cmsgx.send_batch(sock, 5)", TypeError,
     "messages: a list of messages is needed, not int"),
    ("cmsgx.send_batch(sock, 'x')", TypeError,
     "messages: a list of messages is needed, not str; encode it, and give it in a list: "
     "[text.encode()]"),
    ("cmsgx.send_batch(sock, b'x')", TypeError,
     "messages: a list of messages is needed, not bytes; give it in a list: [data]"),
    ("cmsgx.send_batch(sock, cmsgx.Outgoing(b'x'))", TypeError,
     "messages: a list of messages is needed, not one message, an Outgoing; give it in a list: "
     "[message]"),
    ("cmsgx.send_batch(sock, (b'x', [0]))", TypeError,
     "messages: a list of messages is needed, not one message, a tuple; give it in a list: "
     "[message]"),
    # control
    ("cmsgx.send(sock, b'x', control=5)", TypeError,
     "control: a control message, or an iterable of them, is needed, not int"),
    ("cmsgx.send(sock, b'x', control=cmsgx.Credentials)", TypeError,
     "control: a control message, or an iterable of them, is needed, not the class Credentials"),
    ("cmsgx.send(sock, b'x', control=(0, 2, b'1234'))", TypeError,
     "control: a control message or (level, type, data) is needed, not int; "
     "one (level, type, data) is given in a list"),
    ("cmsgx.send(sock, b'x', control=[5])", TypeError,
     "control: a control message or (level, type, data) is needed, not int; "
     "one (level, type, data) is given in a list"),
    ("cmsgx.send(sock, b'x', control=[(1, 2)])", TypeError,
     "control[0]: (level, type, data) has 3 items, and this has 2"),
    ("cmsgx.send(sock, b'x', control=[(1, '2', b'')])", TypeError,
     "control[0]: type: an int is needed, not str"),
    ("cmsgx.send(sock, b'x', control=[(1, 2, 'x')])", TypeError,
     "control[0]: data: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.sendmsg(sock, [b'x'], 5)", TypeError,
     "ancdata: an iterable of (level, type, data) is needed, not int; "
     "one (level, type, data) is given in a list"),
    ("cmsgx.sendmsg(sock, [b'x'], [5])", TypeError,
     "ancdata[0]: (level, type, data) or a control message is needed, not int; "
     "one (level, type, data) is given in a list"),
    ("cmsgx.Credentials.unpack('x')", TypeError,
     "data: a bytes-like object is needed, not str; encode it: text.encode()"),
    ("cmsgx.SecurityLabel('x')", TypeError,
     "SecurityLabel.label: a bytes-like object is needed, not str"),
    # what was received
    ("message[cmsgx.Credentials]", KeyError,
     "no Credentials came with this message: receive() neither sets nor asks for options; "
     "Receiver(want=[Credentials]) switches it on, or enable(sock, Credentials)"),
    ("plain[cmsgx.Credentials]", KeyError,
     "no Credentials came with this message: it was not switched on; "
     "Receiver(want=[Credentials]) switches it on, or enable(sock, Credentials)"),
    ("plain[cmsgx.SecurityLabel]", KeyError,
     "no SecurityLabel came with this message, though it is switched on"),
    ("dgram[cmsgx.Credentials]", KeyError,
     "no Credentials came with this message: sockets of this family do not bring it"),
    ("dgram[cmsgx.PidFd]", KeyError,
     "no PidFd came with this message: sockets of this family do not bring it"),
    ("plain[kinds.Ttl]", KeyError,
     "no Ttl came with this message: sockets of this family do not bring it"),
    ("plain[kinds.Ttl.option()]", TypeError,
     "Ttl.option() is for want= and enable(): give the class here, Ttl"),
    ("plain[kinds.SentTimestamp]", TypeError,
     "SentTimestamp is not a kind of control message: receive_errors() yields it, and "
     "enable(sock, Timestamping.option(flags)) asks for it"),
    ("cmsgx.ErrorReceiver(udp, want=kinds.IcmpError)", TypeError,
     "IcmpError is not a kind of control message: receive_errors() yields it, and "
     "enable(sock, ExtendedError) asks for it"),
    ("cmsgx.enable(udp, kinds.WifiReport)", TypeError,
     "WifiReport is not a kind of control message: receive_errors() yields it, and "
     "enable(sock, WifiStatus) asks for it"),
    ("cmsgx.enable(udp, kinds.ZeroCopyCompletion)", TypeError,
     "ZeroCopyCompletion is not a kind of control message: receive_errors() yields it, and "
     "enable(sock, ExtendedError.option(zerocopy=True)) asks for it"),
    ("cmsgx.enable(udp, kinds.TxTimeError)", TypeError,
     "TxTimeError is not a kind of control message: receive_errors() yields it, and "
     "enable(sock, TxTime.option(clock, report_errors=True)) asks for it"),
    ("cmsgx.enable(udp, [kinds.Ttl])", TypeError,
     "enable: a kind of control message is needed, not list; give them one by one: "
     "enable(sock, *kinds)"),
    ("kinds.Ttl.option(3)", TypeError,
     "Ttl.option() takes no value: the option of Ttl is on or off, and the class alone "
     "switches it on"),
    ("kinds.UdpGro.option(value=1)", TypeError,
     "UdpGro.option() takes no value: the option of UdpGro is on or off, and the class alone "
     "switches it on"),
    ("kinds.RdsReceiveLatency.option(1)", TypeError,
     "stages: an iterable of RdsReceiveStage is needed, not int"),
    ("kinds.RdsReceiveLatency.option([1, 1])", ValueError,
     "stages: [1, 1]; give each once"),
    ("restored.__enter__()", RuntimeError,
     "Ttl: the options were restored, and are not switched on again by another `with`; call "
     "enable() again, or make another receiver"),
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
     "the message was closed, and with it what was not taken; take() comes before that"),
    ("message.fds[5]", IndexError,
     "fds: index out of range, 1 descriptors came with this message"),
    # from Python functions: the same wording
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
    ("cmsgx.send_segments(udp, b'x', 1, control=kinds.UdpSegment(4))", ValueError,
     "control: UdpSegment(size=4); send_segments() cuts by `size` alone: leave this out"),
    ("cmsgx.send_segments(sock, b'x', 1)", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] send_segments: this socket is a SOCK_STREAM, which keeps no datagrams apart; "
     "send_all() sends them as one stream of bytes"),
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
    ("fd.check(size=-1)", ValueError, "size: -1; it cannot be negative"),
    ("fd.check(path='/etc/shadow')", TypeError,
     "path: True or False, whether O_PATH descriptors will do, is needed, not str"),
    ("cmsgx.share(b'x', name=3)", TypeError, "name: a str is needed, not int"),
    ("cmsgx.share(b'x', name='x' * 250)", ValueError, "name: 250 bytes; it has 249 at most"),
    ("memory.map(seals=b'write')", TypeError,
     f"seals: one of {SEALS}, 'exec', several of them, or F_SEAL_* bits, is needed, not bytes"),
    ("cmsgx.BatchResult('x')", TypeError, "sent: an int is needed, not str"),
    ("closed_mapping.read()", ValueError,
     "mmap closed or invalid"),
    ("cmsgx.BatchResult(-1)", ValueError, "sent: -1; it cannot be negative"),
    ("pickle.dumps(empty_memory.map())", TypeError,
     "an EmptyMapping cannot be copied or pickled, nor can an mmap.mmap"),
    ("fd.check(seals='x')", ValueError, f"seals: 'x'; it is {SEALS} or 'exec'"),
    ("fd.check(seals=1.5)", TypeError,
     f"seals: one of {SEALS}, 'exec', several of them, or F_SEAL_* bits, is needed, not float"),
    ("memory.map(size='5')", TypeError, "size: an int is needed, not str"),
    ("memory.map(size=6)", ValueError, "map: size 6, and <Fd N> has 5 bytes"),
    ("memory.map(seals=())", ValueError,
     "map: seals names none; the weakest is 'shrink', where others may write meanwhile"),
    ("memory.map(seals='exec')", ValueError,
     "map: <Fd N> has no F_SEAL_EXEC: the sender has to add that, as share() does"),
    ("unsealed.map(seals='grow')", ValueError,
     "map: <Fd N> has no F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE: one that shrinks it would end "
     "this process by SIGBUS; the sender has to add that, as share() does"),
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
    # other messages in the sources
    ("cmsgx.close_in_background('x')", TypeError,
     "descriptor: an Fd, a socket object or an int is needed, not str\nin descriptors[0]"),
    ("cmsgx.close_in_background(1 << 20)", OSError,
     "[EBADF] descriptor: 1048576 is not open\nin descriptors[0]"),
    ("cmsgx.close_in_background(closed_fd, 'x')", TypeError,
     "descriptor: an Fd, a socket object or an int is needed, not str\n"
     "in descriptors[1]: those before it were handed over"),
    ("cmsgx.close_in_background(-1)", ValueError,
     "descriptor: -1 is not a file descriptor\nin descriptors[0]"),
    ("batch[5]", IndexError,
     "batch index out of range"),
    ("uninitialised.receive()", ValueError,
     "the Receiver was not initialised: a subclass calls super().__init__()"),
    ("uninitialised_batch.receive()", ValueError,
     "the BatchReceiver was not initialised: a subclass calls super().__init__()"),
    ("cmsgx.BatchReceiver.__init__(batch_receiver, sock, 1, 5)", TypeError,
     "a BatchReceiver is initialised once"),
    ("cmsgx.Receiver.__init__(receiver, sock, 5)", TypeError,
     "a Receiver is initialised once"),
    ("kinds.ControlMessage()", TypeError,
     "ControlMessage is not a registered kind of control message: see cmsgx.kinds.register"),
    ("kinds.Ttl('x')", TypeError,
     "Ttl.ttl: an int is needed, not str"),
    ("kinds.Mark(2**40)", OverflowError,
     "Mark.mark: 1099511627776 does not fit in 32 bits, unsigned"),
    ("kinds.Ttl(2**40)", ValueError,
     "Ttl.ttl: 1099511627776; it is 0 to 255"),
    ("kinds.ReturnOptions(b'x' * 41)", ValueError,
     "ReturnOptions.options: 41 bytes; its size is 0 to 40"),
    ("kinds.HopByHopOptions(b'x' * 9)", ValueError,
     "HopByHopOptions.header: 9 bytes; a header has 8, and 8 for each that its second byte counts"),
    ("cmsgx.decode(0, 1, b'xx')", cmsgx.MalformedControlError,
     "Tos: 2 bytes received; expected 1 or 4 (truncated)"),
    ("cmsgx.send(udp, b'x', control=kinds.Ttl(0), address=udp.getsockname())", ValueError,
     "control: Ttl(ttl=0) is not sent with IPv4 packets: ttl is 1 to 255 there"),
    ("cmsgx.send(udp, b'x', control=kinds.FlowInfo(0))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: FlowInfo goes with IPv6 packets; with this one, of IPv4, the kernel "
     "would drop it without an error, or refuse it"),
    ("cmsgx.send(udp_mapped, b'x', control=kinds.FlowInfo(0))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: FlowInfo goes with IPv6 packets; with this one, of IPv4, the kernel "
     "would drop it without an error, or refuse it"),
    ("cmsgx.send(udp6, b'x', control=kinds.Ttl(1), address=('::1', 9))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: Ttl goes with IPv4 packets; with this one, of IPv6, the kernel would "
     "drop it without an error, or refuse it; HopLimit goes with both"),
    ("cmsgx.send(sock, b'x', control=kinds.HopLimit(1))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: HopLimit is sent over AF_INET and AF_INET6 sockets; over this one, "
     "AF_UNIX, the kernel would drop it without an error, or refuse it"),
    ("cmsgx.send(udp, b'x', control=kinds.SctpSendInfo())", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: SctpSendInfo is sent by SOCK_STREAM and SOCK_SEQPACKET sockets; by "
     "this one, SOCK_DGRAM, the kernel would drop it without an error, or refuse it"),
    ("cmsgx.send(tcp, b'x', control=kinds.Mark(1))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: Mark is sent by SOCK_DGRAM and SOCK_RAW sockets; by this one, "
     "SOCK_STREAM, the kernel would drop it without an error, or refuse it; what all of a stream "
     "goes with is set by setsockopt(2)"),
    ("cmsgx.send(tcp, b'x', control=kinds.TlsRecordType(21))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] control: TlsRecordType is sent by sockets with kTLS (TCP_ULP \"tls\", and "
     "TLS_TX); by this one, of IPPROTO_TCP without it, the kernel would drop it without an error, "
     "or refuse it, and send the data as plain text"),
    ("cmsgx.receive(udp, 5, fds=1)", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] fds=1: what brings descriptors is of AF_UNIX sockets; this one's family is "
     "AF_INET"),
    ("cmsgx.Receiver(udp, 5, fds=1)", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] fds=1: what brings descriptors is of AF_UNIX sockets; this one's family is "
     "AF_INET"),
    ("kinds.Ttl(1, 2)", TypeError,
     "Ttl() takes 1 fields (2 given)"),
    ("kinds.Ttl()", TypeError,
     "Ttl() is missing field 'ttl'"),
    ("kinds.Ttl(1, ttl=1)", TypeError,
     "Ttl() got multiple values for field 'ttl'"),
    ("kinds.Ttl(hops=1)", TypeError,
     "Ttl() has no field 'hops'"),
    ("kinds.PacketInfo(1, '::1')", ValueError,
     "PacketInfo.local: '::1' is not an IPv4 address"),
    ("kinds.PacketInfo(1, 'x')", ValueError,
     "'x' is not an IP address"),
    ("kinds.PacketInfo(1, b'x')", ValueError,
     "b'x'; an address has 4 or 16 bytes"),
    ("kinds.IPAddress('x')", ValueError,
     "'x' is not an IP address"),
    ("kinds.IPAddress(b'xx')", ValueError,
     "b'xx'; an address has 4 or 16 bytes"),
    ("kinds.IPAddress(scoped)", ValueError,
     "IPv6Address('fe80::1%1'): no control message has an address and its scope in one; give "
     "the address without the scope '1', and that as the interface"),
    ("kinds.Credentials.unpack(b'x')", cmsgx.MalformedControlError,
     "Credentials: 1 bytes received; expected 12 (truncated)"),
    ("setattr(kinds.Ttl(1), 'ttl', 2)", AttributeError,
     "Ttl is immutable: cannot set 'ttl'"),
    ("kinds.Unknown(1, 2, b'').unpack(b'x')", TypeError,
     "Unknown(level, type, data) has to be told its level and type"),
    ("kinds.Ttl.unpack(b'xx')", cmsgx.MalformedControlError,
     "Ttl: 2 bytes received; expected 4 (truncated)"),
    ("kinds.Ttl.unpack(b'x' * 9)", cmsgx.MalformedControlError,
     "Ttl: 9 bytes received; expected 4"),
    ("cmsgx.Rights.unpack(b'xxx')", cmsgx.MalformedControlError,
     "Rights: 3 bytes received, which is not a multiple of 4"),
    ("cmsgx.PidFd.unpack(b'x')", cmsgx.MalformedControlError,
     "PidFd: 1 bytes received; expected 4"),
    ("cmsgx.PidFd.unpack(refused_pidfd).own()", OSError,
     "[EMFILE] the kernel could make no pidfd for the sender"),
    ("cmsgx.Rights([0]).own()", ValueError,
     "only what unpack() or decode() made can be owned so; a message has take()"),
    ("owned_rights.own()", ValueError,
     "own() was already called: the descriptors have an owner"),
    ("copy.copy(owned_rights.fds)", TypeError,
     "unowned descriptors can be owned once: they are neither copied nor pickled"),
    ("copy.copy(fd)", TypeError,
     "Fd has one owner: use dup() for a second descriptor"),
    ("pickle.dumps(fd)", TypeError,
     "Fd cannot be pickled: send it over a socket, or by multiprocessing"),
    ("pickle.dumps(message)", TypeError,
     "cannot copy or pickle a Message"),
    ("pickle.dumps(receiver)", TypeError,
     "cannot copy or pickle a Receiver"),
    ("pickle.dumps(enabled)", TypeError,
     "cannot copy or pickle an Enabled: what it undoes is undone once"),
    ("pickle.dumps(zero_copy)", TypeError,
     "cannot copy or pickle a ZeroCopySender: the kernel reads the buffers it holds"),
    ("cmsgx.send(sock, b'x', fds=[closed_file])", ValueError,
     "fds[0]: <_io.TextIOWrapper name='/dev/null' mode='r' encoding='ascii'> has no file "
     "descriptor (closed?)"),
    ("cmsgx.send(sock, b'x', fds=[closed_socket])", OSError,
     "[EBADF] fds[0]: <cmsgx.socket [closed] fd=-1, family=1, type=1, proto=0>"),
    ("cmsgx.send(sock, b'x', fds=[closed_fd])", OSError,
     "[EBADF] fds[0]: <Fd closed>"),
    ("cmsgx.send(sock, b'x', fds=[-1])", ValueError,
     "fds[0]: -1 is not a file descriptor"),
    ("cmsgx.send(sock, b'x', fds=[True])", TypeError,
     "fds[0]: an int, an Fd or an object with fileno() is needed, not bool"),
    ("cmsgx.send(sock, b'x', fds=['1'])", TypeError,
     "fds[0]: an int, an Fd or an object with fileno() is needed, not str"),
    ("cmsgx.send(sock, b'x', fds=[1 << 20])", OSError,
     "[EBADF] fds[0]: descriptor 1048576 is not open"),
    ("cmsgx.send(sock, b'x', fds=[0] * 254)", cmsgx.TooManyFdsError,
     "fds: 254 descriptors; one message carries 253 at most, so send several"),
    ("cmsgx.send(sock, b'x', fds=None)", TypeError,
     "fds: an iterable of descriptors, or an object with fileno(), is needed, not NoneType"),
    ("cmsgx.send(sock, b'', fds=[0])", ValueError,
     "data: descriptors need at least one byte on a stream; with none the kernel drops them "
     "without an error"),
    ("cmsgx.send(sock, b'', control=cmsgx.Credentials())", ValueError,
     "data: control messages need at least one byte on a stream; with none the kernel drops them "
     "without an error"),
    ("cmsgx.sendmsg(sock, [], [cmsgx.Rights([0])])", ValueError,
     "buffers: descriptors need at least one byte on a stream; with none the kernel drops them "
     "without an error"),
    ("cmsgx.send(udp, b'x', fds=[0])", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] fds: descriptors travel over AF_UNIX sockets only; over another family the "
     "kernel drops them without an error"),
    ("cmsgx.send_fds(sock, [b'x'], [2**40])", OverflowError,
     "fds[0]: 1099511627776 is not a file descriptor"),
    ("cmsgx.send_fds(sock, [b'x'], 5)", TypeError,
     "fds: 5; a descriptor that is a number is given in a list: fds=[5]"),
    ("cmsgx.send_fds(sock, [b'x'], b'xxx')", ValueError,
     "fds: 3 bytes; that is not a multiple of 4"),
    ("cmsgx.Fd('5')", TypeError,
     "Fd() takes over a descriptor number (an int), not str; use detach() of an object that "
     "owns one"),
    ("cmsgx.Fd(cmsgx.Fd)", TypeError,
     "Fd() takes over a descriptor number (an int), not type; use detach() of an object that "
     "owns one"),
    ("cmsgx.Fd(-1)", ValueError,
     "number: -1 is not a file descriptor"),
    ("cmsgx.Fd(1 << 20)", OSError,
     "[EBADF] number: 1048576 is not open"),
    ("cmsgx.Fd()", TypeError,
     "Fd() missing required argument 'number' (pos 1)"),
    ("fd.socket()", OSError,
     "[ENOTSOCK] sock: descriptor N is not a socket"),
    ("closed_fd.fileno()", ValueError,
     "Fd owns no descriptor: it was closed"),
    ("closed_fd.check()", ValueError,
     "Fd owns no descriptor: it was closed"),
    ("closed_fd.detach()", ValueError,
     "Fd owns no descriptor: it was closed"),
    ("given_fd.fileno()", ValueError,
     "Fd owns no descriptor: detach() gave it away, as a number"),
    ("cmsgx.receive(fd, 5)", OSError,
     "[ENOTSOCK] sock: descriptor N is not a socket"),
    ("message[5]", TypeError,
     "5 is not a kind of control message"),
    ("message[int]", TypeError,
     "<class 'int'> is not a kind of control message"),
    ("plain[cmsgx.Rights]", KeyError,
     "no descriptors came with this message; fds=0 was asked"),
    ("plain.take(cmsgx.PidFd)", KeyError,
     "no PidFd came with this message; Receiver(want=[PidFd]) asks for it"),
    ("message.get()", TypeError,
     "get() takes 1 or 2 arguments (0 given)"),
    ("message.take(0).close() or message.take(0)", ValueError,
     "descriptor 0 was taken before"),
    ("closed_message.take(0)", ValueError,
     "the message was closed, and with it what was not taken; take() comes before that"),
    ("closed_message.take_all()", ValueError,
     "the message was closed, and with it what was not taken; take() comes before that"),
    ("message.take(0, fd_class=int)", TypeError,
     "fd_class: a subclass of Fd is needed, not the class int"),
    ("message.segments[5]", IndexError,
     "segment index out of range"),
    ("scattered.segments", ValueError,
     "segments: the data lies in several buffers (into=), which segments would cross"),
    ("message.view[99]", IndexError,
     "view index out of range"),
    ("cmsgx.Receiver(sock)", TypeError,
     "Receiver: bufsize or into= is needed, and not both"),
    ("cmsgx.Receiver(sock, 5, into=bytearray(5))", TypeError,
     "Receiver: bufsize or into= is needed, and not both"),
    ("cmsgx.Receiver(sock, 5, fds='1')", TypeError,
     "fds: an int is needed, not str"),
    ("cmsgx.Receiver(sock, 5, close='x')", ValueError,
     "close: 'x'; it is 'now' or 'background'"),
    ("cmsgx.Receiver(sock, 5, on_truncation='x')", ValueError,
     "on_truncation: 'x'; it is 'raise' or 'keep'"),
    ("cmsgx.Receiver(sock, 5, want=[5])", TypeError,
     "want: a kind of control message is needed, not int"),
    ("cmsgx.Receiver(sock, 5, want=5)", TypeError,
     "want: a kind of control message, or an iterable of them, is needed, not int"),
    ("cmsgx.BatchReceiver(sock, 1, 5, fds='1')", TypeError,
     "fds: an int is needed, not str"),
    ("cmsgx.enable(sock, 5)", TypeError,
     "enable: a kind of control message is needed, not int"),
    ("cmsgx.enable(sock, kinds.Ttl)", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] Ttl (IP_RECVTTL, Linux 2.2) is of AF_INET and AF_INET6 sockets; this one's "
     "family is AF_UNIX"),
    ("cmsgx.enable(sock, kinds.UdpSegment)", TypeError,
     "UdpSegment is only sent, never received: there is nothing to switch on; it goes with a send, "
     "as control=UdpSegment(size)"),
    ("cmsgx.socket.sendmsg()", TypeError,
     "unbound method sendmsg() needs a socket"),
    ("cmsgx.socket.sendmsg(5, [b'x'])", TypeError,
     "method 'sendmsg' of sockets doesn't apply to a 'int' object"),
    ("cmsgx.socket.sendmsg(sock, data=5)", TypeError,
     "sendmsg() takes no keyword arguments"),
    ("sock.sendmsg([b'x'], flags=1)", TypeError,
     "sendmsg() takes no keyword arguments"),
    ("cmsgx.send(sock, b'x', control=kinds.UdpGro(5))", ValueError,
     "control: the kernel does not accept UdpGro, it only delivers it"),
    ("cmsgx.send(sock, b'x', control=cmsgx.SecurityLabel(b'x'))", ValueError,
     "control: the kernel does not accept SecurityLabel, it only delivers it"),
    ("cmsgx.send(udp_mapped, b'x', control=kinds.PacketInfo6('::1', 0))", ValueError,
     "control: PacketInfo6(address=IPAddress('::1'), interface=0) goes over IPv4, but its "
     "address is IPv6"),
    ("cmsgx.send(sock, b'x', control=cmsgx.Rights)", TypeError,
     "control: a control message, or an iterable of them, is needed, not the class Rights"),
    ("cmsgx.send(sock.fileno(), b'x', address=5)", TypeError,
     "address: an AF_UNIX path is str or bytes-like, not int"),
    ("cmsgx.send_batch(sock, [()])", ValueError,
     "a message is (data, fds, control, address), the last three optional, not a tuple of "
     "0\nin messages[0]"),
    ("cmsgx.send(transport, b'x')", TypeError,
     "sock: a transport reads and writes this socket; pass its fileno() if you know that it "
     "is idle"),
    ("cmsgx.receive(awaited, 5)", TypeError,
     "sock: Awaited has a recvmsg() of its own, which would be bypassed; pass "
     "the plain socket below it, or its .fileno() if that is what you mean"),
    ("cmsgx.recvmsg(awaited, 5)", TypeError,
     "sock: the recvmsg() of Awaited is a coroutine; await that, or pass its "
     ".fileno()"),
    ("list(cmsgx.receive_errors(sock))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] receive_errors: AF_UNIX sockets have no error queue"),
    ("kinds.register(int, level=1, type=900)", TypeError,
     "<class 'int'> is not a subclass of ControlMessage"),
    ("kinds.register(kinds.Ttl, level=1, type=900)", ValueError,
     "Ttl is registered already"),
    ("kinds.register(New, level=900, type=900, layout='struct in_pktinfo', direction='x')",
     ValueError,
     "direction: 'x'; it is 'receive', 'send' or 'both'"),
    ("kinds.register(New, level='x'*3, type=900)()", cmsgx.NotSupportedError,
     "[ENOPROTOOPT] New: not supported on this system"),
    ("kinds.register(New, level=900, type='1', size=-1)", ValueError,
     "size: -1; it is 0 to 2147483647"),
    ("kinds.register(New, level=900, type=900, encoding='x')", ValueError,
     "encoding: 'x'; it is '', 'without NUL', 'integer', 'timeval', 'timespec', 'timeval64', "
     "'timespec64', 'bintime', 'stamping', 'stamping64' or 'pktinfo'"),
    ("kinds.register(New, level=900, type=900)().pack()", TypeError,
     "New does not say how it is packed"),
    ("New.unpack(b'')", TypeError,
     "New does not say how it is unpacked"),
    ("kinds.RxrpcCallTimeouts(1, normal=1)", ValueError,
     "RxrpcCallTimeouts: without `idle` there can be no `normal`"),
    ("cmsgx.peer_credentials(udp)", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] peer_credentials is of AF_UNIX sockets; this one's family is AF_INET"),
    ("cmsgx.ZeroCopySender.__init__(zero_copy, udp)", TypeError,
     "a ZeroCopySender is initialised once"),
    ("zero_copy.acknowledge(5)", TypeError,
     "report: an ErrorReport is needed, not int"),
    ("wire.parse(b'\\xff' * 40)", cmsgx.MalformedControlError,
     "the control message at byte 0 has a length of 18446744073709551615, which does not fit "
     "in 40 bytes"),
    ("wire.parse_multishot(5, 0, 0)", TypeError,
     "buffer: a bytes-like object is needed, not int"),
    ("wire.parse_multishot(b'', 'x', 0)", TypeError,
     "name_size: an int is needed, not str"),
    ("wire.parse_multishot(b'', 0, 'x')", TypeError,
     "control_size: an int is needed, not str"),
    ("wire.parse_multishot(b'x', 0, 0)", cmsgx.MalformedControlError,
     "1 bytes, which is too short for a header of 16 bytes, a name of 0 and control data of 0"),
    ("wire.parse_multishot(b'\\xff' * 100, 0, 0)", cmsgx.MalformedControlError,
     "4294967295 bytes of control data, for which the request had no room if it was 0"),
    ("copy.copy(kinds.Rights.unpack(zeros).fds)", TypeError,
     "unowned descriptors can be owned once: they are neither copied nor pickled"),
    ("copy.copy(cmsgx.PidFd.unpack(zeros))", TypeError,
     "UnownedPidFd can be owned once: it is neither copied nor pickled"),
    ("kinds.Rights.unpack(closed_number).own()", OSError,
     "[EBADF] number 0: 1048576 is not open"),
    ("cmsgx.receive(overriding, 5)", TypeError,
     "sock: Overriding has a recvmsg() of its own, which would be bypassed; "
     "pass the plain socket below it, or its .fileno() if that is what you mean"),
    ("closed_zero_copy.send(b'x')", ValueError,
     "send: the ZeroCopySender is closed"),
    ("message[kinds.Ttl(1)]", TypeError,
     "Ttl(ttl=1) is one control message, and not a kind: give the class, Ttl"),
    ("batch['x']", TypeError,
     "index: an int or a slice is needed, not str"),
    ("message.fds['x']", TypeError,
     "index: an int or a slice is needed, not str"),
    ("message.view['x']", TypeError,
     "index: an int or a slice is needed, not str"),
    ("surplus.take_one()", ValueError,
     "take_one: 2 descriptors came, of which 1 was closed (fds=1)"),
    ("taken.take(0)", ValueError,
     "descriptor 0 was taken before"),
    ("taken_by_number.detach_all()", ValueError,
     "detach_all: descriptor 1 was closed or given away: <Fd closed>"),
    ("taken_by_number.take(1)", ValueError,
     "take: descriptor 1 was closed or given away: <Fd closed>"),
    ("given.take_all()", ValueError,
     "take_all: descriptor 0 was closed or given away: <Fd detached>"),
    ("identified[cmsgx.PidFd].close() or identified.take(cmsgx.PidFd)", ValueError,
     "take: the PidFd was closed or given away: <PidFd closed>"),
    ("given.detach_all()", ValueError,
     "detach_all: descriptor 0 was closed or given away: <Fd detached>"),
    ("cmsgx.receive(datagrams, 2)", cmsgx.DataTruncatedError,
     "[EMSGSIZE] the datagram was longer than the buffer, 2 bytes of it are here; receive with "
     "a larger bufsize, or with on_truncation='keep'"),
    ("kinds.register(New, level=1, type=2)", ValueError,
     "(1, 2) is Credentials already"),
    ("kinds.register(New, level=2**40, type=1)", ValueError,
     "level: 1099511627776; it is -2147483648 to 2147483647"),
    ("kinds.register(Struct, level=900, type=900, layout='in_pktinfo', encoding='stamping')",
     ValueError,
     "encoding: 'stamping' stands for a layout of 24 bytes, and that of Struct has 12"),
    ("kinds.register(New, level=900, type=900, encoding='timeval')", ValueError,
     "encoding: 'timeval'; New packs and unpacks itself, so it can have none"),
    ("cmsgx.send(sock, b'x', control=[packed])", TypeError,
     "pack(): a bytes-like object is needed, not int"),
    ("cmsgx.send_batch(sock, [(b'x', (), (), None, 1)])", ValueError,
     "a message is (data, fds, control, address), the last three optional, not a tuple of "
     "5\nin messages[0]"),
    ("kinds.TcpInfo if 0 else kinds.UdpSegment(1, 2, 3)", TypeError,
     "UdpSegment() takes 1 fields (3 given)"),
    ("message.get_all(5)", TypeError,
     "5 is not a kind of control message"),
    ("5 in message", TypeError,
     "5 is not a kind of control message"),
    ("cmsgx.send(udp, b'x', control=cmsgx.Rights([0]))", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] fds: descriptors travel over AF_UNIX sockets only; over another family the "
     "kernel drops them without an error"),
    ("memory.map().seek(-1)", ValueError,
     "seek out of range"),
    ("empty_memory.map()['x']", TypeError,
     "byte indices must be integers or slices, not str"),
    ("empty_memory.map()[0]", IndexError,
     "index out of range"),
    ("empty_memory.map().read_byte()", ValueError,
     "read byte out of range"),
    ("empty_memory.map().seek(1)", ValueError,
     "seek out of range"),
    ("write_only.map()", ValueError,
     "map: <Fd N> cannot be read"),
    ("cmsgx.receive(cmsgx.PidFd, 1)", TypeError,
     "sock: an int, an Fd or an object with fileno() is needed, not the class PidFd"),
    ("kinds.TlsRecordType(300)", OverflowError,
     "TlsRecordType.record: 300 does not fit in 8 bits, unsigned"),
    ("udp.recvmsg_into([b'x'])", TypeError,
     "buffers[0]: a writable bytes-like object, contiguous, is needed, not bytes"),
    ("kinds.StructMessage()", TypeError,
     "StructMessage is not a registered kind of control message: see cmsgx.kinds.register"),
    ("cmsgx.Receiver(sock, 5, want=cmsgx.Unknown)", TypeError,
     "<class 'cmsgx.kinds.Unknown'> is not a kind of control message"),
    ("kinds.AlgIv(b'x').unpack(b'xx')", cmsgx.MalformedControlError,
     "AlgIv: 2 bytes received; expected 4 (truncated)"),
    ("_truncation.raise_truncated(message, 3, 1, 0, 0, 0)", cmsgx.DataTruncatedError,
     "[EMSGSIZE] the datagram was longer than the buffer, 5 bytes of it are here; receive with a "
     "larger bufsize, or with on_truncation='keep'"),
    ("_truncation.raise_truncated(message, 3, 1, 1, 0, 0)", cmsgx.ControlTruncatedError,
     "[EMSGSIZE] 1 descriptor arrived, room was for 3: other control data took some of it; where "
     "an option was switched on meanwhile, call refresh()"),
    ("_truncation.raise_truncated(message, 3, 1, 1, 1, 0)", cmsgx.FdLimitError,
     "[EMFILE] 1 descriptor arrived, room was for 3: the descriptor table is full, with "
     f"{OPEN_MAX} open and RLIMIT_NOFILE at {OPEN_MAX}; raise the limit, or close some"),
    ("_truncation.raise_truncated(message, 3, 1, 1, 0, 1)", cmsgx.FdLimitError,
     "[EMFILE] 1 descriptor arrived, room was for 3; others were withheld: limit or security "
     "module"),
    ("copied_zero_copy.send(b'x')", RuntimeError,
     "this ZeroCopySender is the copy that a fork made: it can be closed and released; the "
     "completions are for the process that made it. Make a new one to send here, with next_id=0 "
     "where the other process sends no more"),
    ("cmsgx.ZeroCopySender(sock, max_pending='x')", TypeError,
     "max_pending: an int is needed, not str"),
    ("cmsgx.ZeroCopySender(sock, next_id='x')", TypeError, "next_id: an int is needed, not str"),
    ("cmsgx.Receiver(sock, 5, want=5)", TypeError,
     "want: a kind of control message, or an iterable of them, is needed, not int"),
    ("cmsgx.Receiver(sock, 5, want=kinds.Ttl(1))", TypeError,
     "want: Ttl(ttl=1) is one control message, and not a kind: give the class, Ttl, or "
     "Ttl.option(...) where its option has a value"),
    ("cmsgx.enable(udp, kinds.TxTime.option(1), kinds.TxTime.option(2))", ValueError,
     "enable: TxTime.option(CLOCK_MONOTONIC) and TxTime.option(CLOCK_PROCESS_CPUTIME_ID); "
     "SO_TXTIME has one value"),
    ("kinds.ExtendedError.option(errors=False)", ValueError,
     "errors: False, and nothing else is asked for"),
    ("kinds.RdsReceiveLatency.option([])", ValueError,
     "stages: []; one RdsReceiveStage at least is needed"),
    ("kinds.Timestamping.option(1 << 15)", ValueError,
     "flags: BIND_PHC needs phc=, the number of the clock"),
    ("kinds.RdsReceiveLatency({0: 1, 1: 1, 2: 1, 3: 1})", ValueError,
     "(0, 1, 2, 3): there is room for 3 at most"),
    ("Raw(b'x')", ValueError, "Raw.raw: 1 bytes; its size is 4"),
    ("cmsgx.send(sock, b'x', control=[cmsgx.Rights])", TypeError,
     "control: a control message or (level, type, data) is needed, not the class Rights"),
    ("kinds.AlgIv(5)", TypeError, "iv: a bytes-like object is needed, not int"),
    ("kinds.AlgIv.unpack(kinds.AlgIv(b'xyz').pack()[:-1])", cmsgx.MalformedControlError,
     "AlgIv: a vector of 3 bytes, and 2 came (truncated)"),
    ("kinds.PathMtu(5, 5)", ValueError,
     "PathMtu.destination: 5; a numeric (host, port), or (host, port, flowinfo, scope), or an "
     "Address"),
    ("kinds.register(New, level=900, type=900, size=-1)", ValueError,
     "size: -1; it is 0 to 2147483647"),
    ("kinds.register(Struct, level=900, type=900, layout=[('a', 0, 'i'), ('a', 4, 'i')])",
     ValueError, "layout: 'a' is there twice"),
    ("kinds.register(Missing, level=900, type=900, layout=[('a', 0, 'i')])", ValueError,
     "layout: it has no 'nothing'"),
    # addresses
    ("cmsgx.Address(2, cmsgx.Address(10, ('::1', 5)))", ValueError,
     "value: <Address ('::1', 5, 0, 0)> is of the family AF_INET6, not AF_INET"),
    ("cmsgx.Address(250, 5)", ValueError,
     "family: 250; the socket module has no addresses of that family, so value has to be "
     "(250, bytes), not 5"),
    ("cmsgx.Address(2, ('127.0.0.1', '5'))", TypeError,
     "address: ('127.0.0.1', '5'); an AF_INET address is (host, port), the port from 0 to "
     "65535"),
    ("cmsgx.Address(2, ('\\udcff', 5))", TypeError,
     "address: ('\\udcff', 5); '\\udcff' is not the name of a host"),
    ("cmsgx.Address(2, ('a\\0b', 5))", TypeError,
     "address: ('a\\x00b', 5); a host cannot contain NUL"),
    ("cmsgx.Address(10, ('<broadcast>', 5))", OSError,
     "address: IPv6 has no broadcast"),
    ("cmsgx.Address(17, ('nosuchinterface', 5))", OSError,
     "[ENODEV] address: ('nosuchinterface', 5); there is no such interface"),
    ("cmsgx.Address(17, ('lo', 5, 0, 0, b'123456789'))", ValueError,
     "address: ('lo', 5, 0, 0, b'123456789'); a hardware address has at most 8 bytes"),
    ("cmsgx.Address(29, ('lo',), proto=77)", OSError,
     "address: CAN protocol 77 has no addresses"),
    ("cmsgx.Address(29, ('a' * 20,), proto=1)", OSError,
     "address: ('aaaaaaaaaaaaaaaaaaaa',); an interface name has at most 15 bytes"),
    ("cmsgx.Address(31, ('x', 1), proto=0)", OSError,
     "address: ('x', 1); a Bluetooth address is \"XX:XX:XX:XX:XX:XX\""),
    ("cmsgx.Address(31, ('x', 1), proto=77)", OSError,
     "address: ('x', 1); unknown Bluetooth protocol"),
    ("cmsgx.Address(31, ('x', 1))", OSError,
     "address: ('x', 1); the Bluetooth protocol is needed: give proto="),
    ("kinds.IPAddress.__class__('Own', (kinds.IPAddress,), {})", TypeError,
     "Own: IPAddress cannot be subclassed; hold one in an attribute"),
    ("cmsgx.Address(2**40, ('a', 1))", OverflowError,
     "family: 1099511627776 does not fit in 32 bits, signed"),
    ("cmsgx.Address('AF_INET', ('a', 1))", TypeError,
     "family: an int is needed, not str"),
    ("cmsgx.Address(29, ('',), proto=2**31)", OverflowError,
     "proto: 2147483648 does not fit in 32 bits, signed"),
    ("cmsgx.Address(29, ('',), proto='CAN_RAW')", TypeError,
     "proto: an int is needed, not str"),
    ("cmsgx.Address._restore(b'x', -1)", ValueError,
     "packed: 1 bytes; an address has 2 to 128"),
    ("cmsgx.Address(1, 5)", TypeError,
     "address: an AF_UNIX path is str or bytes-like, not int"),
    ("pickle.dumps(error_receiver)", TypeError,
     "cannot copy or pickle an ErrorReceiver"),
    ("cmsgx.receive_errors(udp, timeout='x')", TypeError,
     "timeout: a number of seconds, or None, is needed, not str"),
    ("cmsgx.ErrorReceiver(sock)", cmsgx.NotSupportedError,
     "[EOPNOTSUPP] ErrorReceiver: AF_UNIX sockets have no error queue"),
    ("cmsgx.send(sock.fileno(), b'x', address='/' * 120)", OSError,
     f"address: {'/' * 120!r}; AF_UNIX path too long: at most 107 bytes"),
    ("cmsgx.send(udp.fileno(), b'x', address=5)", TypeError,
     "address: 5; an AF_INET address is (host, port), the port from 0 to 65535"),
    ("cmsgx.send(udp.fileno(), b'x', address=('127.0.0.1', 70000))", OverflowError,
     "address: ('127.0.0.1', 70000); an AF_INET address is (host, port), the port from 0 to "
     "65535"),
    ("cmsgx.send(udp6.fileno(), b'x', address=('::1', 5, -1))", OverflowError,
     "address: ('::1', 5, -1); an AF_INET6 address is (host, port, flowinfo=0, scope_id=0), "
     "the port from 0 to 65535, flowinfo up to 1048575"),
    ("cmsgx.send(udp.fileno(), b'x', address=('localhost', 5))", ValueError,
     "address: ('localhost', 5) is a host name to resolve, or of a family that needs a "
     "socket object; give that in place of its number"),
    ("cmsgx.send(udp.fileno(), b'x', address=('::1', 9))", ValueError,
     "address: ('::1', 9) is of AF_INET6, but the socket is of AF_INET"),
    ("cmsgx.send_batch(udp6.fileno(), [(b'x', (), (), ('127.0.0.1', 9))])", ValueError,
     "address: ('127.0.0.1', 9) is of AF_INET, but the socket is of AF_INET6\nin messages[0]"),
    # user-defined kinds
    ("kinds.register(Raw_unregistered, level=900, type=900, layout=[('raw', 0, 's', 4)])",
     ValueError,
     "Raw: <Field raw at 0, s> is outside the layout, which has 0 bytes"),
    ("kinds.register(Struct, level=900, type=900, layout=[('a', 0, 'z')])", ValueError,
     "field 'a': invalid layout: offset 0, format 'z', size 0"),
    ("kinds.register(Struct, level=9, type=9, layout=[(f'{i}', i, 'B') for i in range(99)])",
     ValueError, "fields: 99; 32 at most"),
    ("kinds.register(Struct, level=900, type=900, layout=5)", TypeError,
     "layout: an iterable of (name, offset, format) is needed, not int"),
    ("kinds.register(Struct, level=9, type=9, "
     "other_forms=[kinds.WireFormat(9, 8, 'integer', size=3)], layout=[('a', 0, 'i')])", ValueError,
     "Struct: (0, 9, 8, 3, 3, 2, 0, 0, -9223372036854775808, 0) is not a form: size: 3; it is "
     "1, 2 or 4 for 'integer', and not to be chosen for another encoding"),
    ("kinds.register(Struct, level=900, type=900, other_forms=[5], "
     "layout=[('a', 0, 'i')])", TypeError,
     "other_forms: a WireFormat is needed, not int"),
    ("identified.take(cmsgx.PidFd).close() or identified.take(cmsgx.PidFd)", ValueError,
     "the PidFd was taken before"),
    ("identified.take(cmsgx.PidFd, fd_class=cmsgx.Fd)", TypeError,
     "fd_class: a subclass of PidFd, for a PidFd, is needed, not the class Fd"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), MESSAGES, ids=[row[0] for row in MESSAGES])
def test_an_error_says_which_argument_what_it_was_and_what_would_do(
    call: str, error: type[BaseException], text: str
) -> None:
    with ExitStack() as stack:
        scene = Scene(stack)
        # The names first, because creating them may fail.
        code = compile(call, call, "eval")
        for name in code.co_names:
            if hasattr(scene, f"_make_{name}"):
                scene[name]
        with pytest.raises(error) as caught:
            eval(code, scene)
        assert type(caught.value) is error
        assert told(caught.value) == text


# Messages that take more than a call to provoke: the test file that does it, and some words of the
# message that a test there looks for.
ELSEWHERE = {
    "Enabled is what enable(sock, *kinds) returns: call that":
        ("test_public_names.py", "Enabled is what enable"),
    "cmsgx._cmsg was not bound to the Python layer: import cmsgx, which does that":
        ("test_bind.py", "not bound to the Python layer"),
    "bind: C takes nothing that is named {}": ("test_bind.py", "C takes nothing that is named"),
    "bind: missing: {}": ("test_bind.py", "bind: missing"),
    "bind: each object is given by its name": ("test_bind.py", "each object is given by its name"),
    "bind: this was done, and is done once": ("test_bind.py", "this was done, and is done once"),
    "bufsize: there is no memory for {} bytes": ("test_messages.py", "there is no memory for"),
    "this {} is in use by another thread, or by code that a signal handler interrupted; make one "
    "for each thread":
        ("test_messages.py", "make one for each"),
    "this {} is in use by another thread, or by code that a signal handler interrupted; use it in "
    "one thread at a time": ("test_threads.py", "is in use"),
    "{} descriptors wait for the background closer, too many for more to be received":
        ("test_closer.py", "wait for the background closer"),
    "timed out: {} descriptors wait for the background closer":
        ("test_closer.py", "wait for the background closer"),
    "{}.{}: its length changed while it was read, from {} to {}":
        ("test_abuse_records.py", "its length changed"),
    "min_value: {}; no member() of {} has bounds": ("test_route.py", "no member"),
    "sent with {}": ("test_route.py", "sent with"),
    "this {} was created as {}: its class was changed": ("test_abuse_records.py", "was created as"),
    "{}: Address cannot be subclassed": ("test_address_raw.py", "cannot be subclassed"),
    "{}[{}]: too many system calls use {}": ("test_fork.py", "too many system calls"),
    "{}: too many system calls use {}": ("test_fork.py", "too many system calls"),
    "take_one: {} {} here, and the kernel dropped others, uncounted":
        ("test_message_fds.py", "dropped others"),
    "messages was an iterator, which is used up now, with all that was not sent; give a list or a "
    "tuple": ("test_send_batch_stopped.py", "messages was an iterator"),
    "messages[{}]{} had an iterator, which is used up now: the same message again would go without "
    "what was in it; give a list or a tuple": ("test_send_batch_stopped.py", "had an iterator"),
    "a signal handler called install() or uninstall() in the middle of one of them: call it once "
    "that is done": ("test_which_socket_installed.py", "middle of one of them"),
    "{}.{} was patched by something else: {}; take that out first":
        ("test_which_socket_installed.py", "patched by something"),
    "map: size {}, and {} has pages of {} bytes, which are mapped whole":
        ("test_memfd.py", "pages of"),
    "{} could not be restored": ("test_options.py", "could not be restored"),
    "{} could not be restored: {}": ("test_options.py", "could not be restored"),
    "and {}": ("test_options.py", "could not be restored"),
}  # fmt: skip

# Messages that no test can provoke, with the reason.
_PRIVATE = "a function or an argument that no public one gets wrong"
_OTHER_SYSTEM = "on another system only"
_RACE = "another thread has to act between two machine instructions"
_KERNEL = "the kernel has to do what this one does not"
UNMET = {
    "name: a str is needed, not {}": _PRIVATE,
    "doc: a str or None is needed, not {}": _PRIVATE,
    "bounds: (min_value, max_value) is needed, not {}": _PRIVATE,
    "field {}: bounds {} are not (min_value, max_value) of a format that has them": _PRIVATE,
    "__signature__": _PRIVATE,
    "field {} is not of a {}": _PRIVATE,
    "{}: field {} must be one of its __slots__": _PRIVATE,
    "{} is not a Field": _PRIVATE,
    "{}: {} is not a form": _PRIVATE,
    "min_size: {}; it is more than max_size: {}": _PRIVATE,
    "numbers: an int is needed, not {}": _PRIVATE,
    "numbers{}: a {}bytes-like object is needed, not {}": _PRIVATE,
    "fds{}: a {}bytes-like object is needed, not {}": _PRIVATE,
    "method() takes no keyword arguments": _PRIVATE,
    "method(): {} is not a method of a socket": _PRIVATE,
    "type: a subclass of FdBase is needed, not {}": _PRIVATE,
    "{} returned {}, which is not a descriptor": _PRIVATE,
    "control_size: {}; it is 0 to {}": _PRIVATE,
    "config{}: a ReceiveConfig is needed, not {}": _PRIVATE,
    "ReceiveConfig() is missing one of fds=, control_size= and want=": _PRIVATE,
    "IPAddress has no codec of its own": _PRIVATE,
    "attached_state: {}; it is 0 to {}": _PRIVATE,
    "{}(): the first argument is a list of one int": _PRIVATE,
    "value: {} bytes; {} at most": _PRIVATE,
    "call_foreign() takes a name and a socket": _PRIVATE,
    "read_header() takes a buffer and an offset": _PRIVATE,
    "offset: an int is needed, not {}": _PRIVATE,
    "offset: it cannot be negative": _PRIVATE,
    "seals: an int is needed, not {}": "what has no __index__() is told otherwise before",
    "take(): an int is needed, not {}": "only with an __index__() that raises, which is shown",
    "encoding: '{}'; not available on this system": _OTHER_SYSTEM,
    "control: this system accepts no other control message along with descriptors; send it in a "
    "message of its own": _OTHER_SYSTEM,
    "{}: this system has no {}": _OTHER_SYSTEM,
    "share: this system has no memfd_create(2) with seals": _OTHER_SYSTEM,
    "parse_multishot: this system has no io_uring": _OTHER_SYSTEM,
    "the bytes of this {} cannot be had; does another thread change it?": _RACE,
    "the list of buffers changed while it was read": _RACE,
    "the list of fds changed while it was read": _RACE,
    "{}: descriptor {} is not here": _RACE,
    "{} owns no descriptor: the kernel could not create one: {}": "takes a table that is full",
    "memfd_create(2) of {}": "takes a table that is full",
    "detach_all: the kernel gave no descriptor {}": "takes a table that is full",
    "{}: a memfd is told by comparing it with a new one, for which there is no room":
        "takes a table that is full",
    "{}: check: whether it is one of {} only /proc/self/fd/{} tells": "takes no /proc",
    "close of descriptor {}": _KERNEL,
    "dup of descriptor {}": _KERNEL,
    "poll(2) failed, so an empty message cannot be told from the end; call receive() instead of "
    "the loop": _KERNEL,
    "the control data that arrived is malformed: a length in it does not fit; what it carried was "
    "closed": _KERNEL,
    "{}: this kind of socket has no error queue": _KERNEL,
    "peer_pidfd: the process is gone": "Linux before 6.15",
    "_socket.socket.{} is not the expected method": "another _socket than CPython's",
    "_socket.socket.{} is not the expected member": "another _socket than CPython's",
    "{}: {} buffers; that is too many": "takes 2**31 buffers",
    "buffers: {}; that is too many": "takes 2**31 buffers",
    "{}: an item of {} bytes is too large": "takes 2 GiB of control data",
    "{}: the items are too large together": "takes 2 GiB of control data",
    "socket.socket is {}, which is not derived from the standard library's class: nothing was "
    "installed; the functions of cmsgx take its sockets as they are":
        "with gevent or eventlet: tests/interop/test_green.py",
    "control{}: Rights with its descriptors is needed, not {}": "a Rights that cannot be iterated",
    "{}: {} bytes; {} at most": _PRIVATE,
    "address: {} was resolved to {}": "what getaddrinfo() does not do",
    "address: only the socket's own sendmsg() can convert {}, and that takes neither fds= nor "
    "timeout=": "of a family that neither the socket module nor cmsgx knows",
    "Unknown error {}": "a text that stands for an errno",
}  # fmt: skip


def rows() -> list[str]:
    """The texts of the rows, line by line, without the errno."""
    texts = [text.partition("] ")[2] if text[:2] == "[E" else text for _, _, text in MESSAGES]
    return [line for text in texts for line in text.split("\n")]


def test_each_message_of_the_sources_has_a_row() -> None:
    """Or a test elsewhere, or a reason why there cannot be one."""
    told_of = rows()
    lacking = [
        f"{message.place}: {message.text}"
        for message in all_messages()
        if not any(message.says(text) for text in told_of)
        and message.text not in ELSEWHERE
        and message.text not in UNMET
    ]
    assert lacking == []


def test_what_has_no_row_is_in_the_sources() -> None:
    there = {message.text for message in all_messages()}
    assert [text for text in [*ELSEWHERE, *UNMET] if text not in there] == []


@pytest.mark.parametrize(("text", "place"), ELSEWHERE.items())
def test_what_is_told_elsewhere_is_looked_for_there(text: str, place: tuple[str, str]) -> None:
    file, words = place
    assert words in text or text == "and {}"
    assert words in (TESTS / file).read_text(encoding="utf-8")


def test_no_memory_for_the_data_is_told_with_its_size() -> None:
    size = sys.maxsize - 100
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
        "this Receiver is in use by another thread, or by code that a signal handler interrupted; "
        "make one for each thread"
    ]
