"""The names that the calls of test_messages.py use, and how error messages are compared."""

from __future__ import annotations

import copy
import errno
import ipaddress
import os
import pickle
import re
import socket
import sys
from asyncio.trsock import TransportSocket
from contextlib import ExitStack
from typing import Any

import pytest
from support import unregistered

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
    text = re.sub(r"\b(?:tests\.)?scenes\.", "", text)
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
