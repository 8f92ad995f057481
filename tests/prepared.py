"""Sockets, messages and owners that are created before the calls whose allocations fail."""

from __future__ import annotations

import array
import os
import socket
import sys
from contextlib import ExitStack, suppress
from typing import Any

import cmsgx
from cmsgx import kinds, wire


def nothing(stack: ExitStack) -> None:
    return None


def a_pair(stack: ExitStack, kind: int = socket.SOCK_SEQPACKET) -> tuple[Any, Any]:
    left, right = cmsgx.socketpair(socket.AF_UNIX, kind)
    for sock in (left, right):
        stack.callback(sock.close)
        sock.settimeout(60)
    return left, right


def a_stream(stack: ExitStack) -> tuple[Any, Any]:
    return a_pair(stack, socket.SOCK_STREAM)


def a_queue(stack: ExitStack) -> tuple[Any, Any]:
    """A pair with more messages in the queue than are received here."""
    left, right = a_pair(stack)
    for _ in range(6):
        cmsgx.send(left, b"data", fds=[0, 0, 0], control=cmsgx.Credentials())
    return left, right


def a_full_pair(stack: ExitStack) -> tuple[Any, Any]:
    left, right = a_stream(stack)
    while cmsgx.try_send(left, bytes(4096)) is not None:
        pass
    return left, right


def a_prepared_send(stack: ExitStack) -> Any:
    """Half sent."""
    left, _ = a_stream(stack)
    prepared = cmsgx.PreparedSend(left, [b"1", bytes(1_000_000)], fds=[0, left])
    stack.callback(prepared.close)
    prepared.try_send()
    return prepared


def send_in_parts(left: Any, right: Any, data: bytes) -> None:
    """With a PreparedSend. It is closed if the memory does not suffice."""
    with cmsgx.PreparedSend(left, data, fds=[0, left]) as prepared:
        while not prepared.is_done:
            prepared.try_send()
            right.recv(1_000_000)


def a_udp_pair(stack: ExitStack) -> tuple[Any, Any]:
    pair = [cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for sock in pair:
        stack.callback(sock.close)
        sock.settimeout(60)
        sock.bind(("127.0.0.1", 0))
    pair[0].connect(pair[1].getsockname())
    return pair[0], pair[1]


def a_number(stack: ExitStack) -> int:
    return os.dup(0)


def a_receiver(stack: ExitStack) -> cmsgx.Receiver:
    want = [cmsgx.Credentials, cmsgx.PidFd]
    return cmsgx.Receiver(a_queue(stack)[1], 16, fds=2, want=want, on_truncation="keep")


def a_batch_receiver(stack: ExitStack) -> cmsgx.BatchReceiver:
    return cmsgx.BatchReceiver(a_queue(stack)[1], 2, 16, fds=2, want=[cmsgx.Credentials])


def a_message(stack: ExitStack) -> cmsgx.Message:
    return stack.enter_context(a_receiver(stack).receive())


def an_empty_message() -> cmsgx.Message:
    """It looks like the end of a SOCK_SEQPACKET."""
    left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        left.send(b"")
        return cmsgx.receive(right, 16)


EMPTY = an_empty_message()


def a_batch(stack: ExitStack) -> cmsgx.Batch:
    return stack.enter_context(a_batch_receiver(stack).receive())


def a_datagram(stack: ExitStack) -> cmsgx.Message:
    left, right = a_udp_pair(stack)
    cmsgx.send(left, b"datagram")
    return cmsgx.receive(right, 100)


def an_address(stack: ExitStack) -> cmsgx.Address:
    address = a_datagram(stack).sender
    assert address is not None
    return address


def a_file(stack: ExitStack) -> cmsgx.Fd:
    return stack.enter_context(cmsgx.share(b"content"))


def a_socket_fd(stack: ExitStack) -> cmsgx.Fd:
    return stack.enter_context(cmsgx.Fd(a_pair(stack)[0].detach()))


def a_pidfd(stack: ExitStack) -> cmsgx.PidFd:
    return stack.enter_context(cmsgx.PidFd(os.pidfd_open(os.getpid())))


def a_sender(stack: ExitStack) -> cmsgx.ZeroCopySender:
    sender = cmsgx.ZeroCopySender(a_udp_pair(stack)[0])
    stack.callback(sender.release)
    sender.send(b"x" * 1000)
    return sender


def unowned_rights(stack: ExitStack) -> Any:
    numbers = array.array("i", [os.dup(0), os.dup(0)])
    rights = cmsgx.Rights.unpack(numbers.tobytes())

    def close() -> None:
        # Their present owner has closed them.
        with suppress(ValueError):
            for fd in rights.own():
                fd.close()

    stack.callback(close)
    return rights


def owned(result: Any) -> Any:
    for fd in result or ():
        fd.close()


def a_report(stack: ExitStack) -> Any:
    """With a second one for a repeated call."""
    # Not connected: an error would be delivered to a socket that is connected to its origin.
    sock = stack.enter_context(cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM))
    cmsgx.enable(sock, kinds.ExtendedError)
    for payload in (b"1", b"2"):
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        sock.sendto(payload, ("127.0.0.1", 1))
    return sock


def installed(stack: ExitStack) -> None:
    stack.callback(cmsgx.uninstall)
    cmsgx.install()


CONTROL = wire.build([cmsgx.Credentials(), cmsgx.Unknown(1, 2000, b"data")])


def a_header(stack: ExitStack) -> Any:
    return wire.CMSG_FIRSTHDR(CONTROL)


def a_multishot(stack: ExitStack) -> wire.Multishot:
    numbers = (16, len(CONTROL), 4, 0)
    header = b"".join([number.to_bytes(4, sys.byteorder) for number in numbers])
    name = socket.AF_INET.to_bytes(2, sys.byteorder).ljust(16, b"\0")
    return wire.parse_multishot(header + name + CONTROL + b"data", 16, len(CONTROL))


MESSAGES: list[Any] = [
    b"one",
    (b"two", [0, 0]),
    cmsgx.Outgoing([b"3", b"4"], [0], cmsgx.Credentials()),
]
CREDENTIALS = cmsgx.Credentials(1, 2, 3)
CREDENTIALS_OWN = cmsgx.Credentials()
