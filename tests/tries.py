"""Helpers of the tests of sends that are tried: full sockets, and what arrives."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pairs import fill, new_pair
from support import Pair, content, eventually, open_fds

import cmsgx
from cmsgx import _cmsg


def drain(sock: socket.socket) -> bytes:
    """All bytes that are there. The descriptors that came with them are closed."""
    data = b""
    with suppress(BlockingIOError):
        while part := sock.recv(1 << 20, socket.MSG_DONTWAIT):
            data += part
    return data


@contextmanager
def full_pair(kind: int = socket.SOCK_STREAM) -> Iterator[Pair]:
    with new_pair(kind) as pair:
        fill(pair[0])
        yield pair


def files_after(right: cmsgx.socket, before: int) -> tuple[bytes, list[str]]:
    """The data after so many bytes, and the files that came with it."""
    while before:
        before -= len(right.recv(before))
    with cmsgx.receive(right, 1 << 20, fds=cmsgx.MAX_FDS, timeout=0) as message:
        return message.data, [content(fd) for fd in message.fds]


def rest_of(*arguments: Any, **keywords: Any) -> cmsgx.PreparedSend:
    """What send_or_prepare() leaves."""
    prepared = _cmsg.send_or_prepare(*arguments, **keywords)
    assert isinstance(prepared, cmsgx.PreparedSend)
    return prepared


def send_rest(prepared: cmsgx.PreparedSend, right: socket.socket) -> bytes:
    """What arrives while it is tried until it is done."""
    data = b""
    while not prepared.is_done:
        if prepared.try_send() is None:
            data += drain(right)
    return data + drain(right)


class Named:
    """Has a descriptor of its own, which is not an Fd."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


def how_often(file: str) -> int:
    """How many descriptors of a file are open."""
    return sum([f"memfd:{file} " in link for link in open_fds().values()])


def is_busy(prepared: cmsgx.PreparedSend) -> bool:
    try:
        prepared.try_send()
    except RuntimeError:
        return True
    return False


@contextmanager
def waiting(prepared: cmsgx.PreparedSend, right: socket.socket) -> Iterator[None]:
    """With another thread that waits until it can send."""
    thread = threading.Thread(target=prepared._send, args=(...,))
    thread.start()
    try:
        assert eventually(lambda: is_busy(prepared))
        yield
    finally:
        while thread.is_alive():
            drain(right)
            thread.join(0.001)
