"""Pairs of sockets, a full pair, and actions that happen a little later."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from support import (
    Pair,
    close_pair,
    unix_pair,
)

TIMESTAMPNS = 35  # SO_TIMESTAMPNS: attached to messages of AF_UNIX datagram sockets


@contextmanager
def new_pair(kind: int = socket.SOCK_STREAM) -> Iterator[Pair]:
    sockets = unix_pair(kind)
    try:
        yield sockets
    finally:
        close_pair(sockets)


def fill(sock: socket.socket) -> int:
    """Sends until the buffer is full; returns how many bytes that took. `sock` must not have a
    timeout: poll(2) reports a full buffer long before sends fail."""
    sent = 0
    for size in (4096, 1):
        with suppress(BlockingIOError):
            while True:
                sent += sock.send(bytes(size), socket.MSG_DONTWAIT)
    return sent


@contextmanager
def later(seconds: float, action: Callable[[], object]) -> Iterator[None]:
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
