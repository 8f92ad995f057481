"""Helpers of the tests of batches."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from support import Pair, close_pair, content, unix_pair

import cmsgx

KEEP_BOUNDARIES = (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
LARGE = 4_000_000  # bytes: the size that a buffer may be set to


@contextmanager
def new_pair(kind: int = socket.SOCK_SEQPACKET) -> Iterator[Pair]:
    sockets = unix_pair(kind)
    try:
        yield sockets
    finally:
        close_pair(sockets)


@contextmanager
def udp_pair(family: int = socket.AF_INET) -> Iterator[Pair]:
    """Two UDP sockets on the loopback address, neither of them connected."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        cmsgx.socket(family, socket.SOCK_DGRAM) as one,
        cmsgx.socket(family, socket.SOCK_DGRAM) as two,
    ):
        for sock in (one, two):
            sock.bind((host, 0))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGE)
            with suppress(PermissionError):
                # SO_RCVBUFFORCE: more than the system allows unprivileged processes.
                sock.setsockopt(socket.SOL_SOCKET, 33, LARGE)
        yield one, two


class Whole(NamedTuple):
    """A message, as a test compares it."""

    data: bytes
    files: list[str]


def seen(messages: cmsgx.Batch | Sequence[cmsgx.Message]) -> list[Whole]:
    return [Whole(msg.data, [content(fd) for fd in msg.fds]) for msg in messages]


def drain(sock: cmsgx.socket, fds: int = 253, bufsize: int = 65536) -> list[Whole]:
    """All messages that are there."""
    rx = cmsgx.BatchReceiver(sock, 16, bufsize, fds=fds)
    found: list[Whole] = []
    with suppress(BlockingIOError):
        while True:
            with rx.receive(timeout=0) as batch:
                if batch[0].eof:
                    break
                found += seen(batch)
    return found


class Interrupt(Exception):
    """The exception that the handlers here raise."""


def interrupt(*_: object) -> None:
    raise Interrupt


def of_handlers() -> list[Exception]:
    """Exceptions that a handler may raise, including some that look like errors of the kernel."""
    own = (OSError(number, "of the handler") for number in (errno.EIO, errno.EAGAIN, errno.ENOBUFS))
    return [Interrupt(), TimeoutError("of the handler"), *own]


def raising(error: BaseException) -> Callable[..., object]:
    """A handler."""

    def handler(*_: object) -> None:
        raise error

    return handler


@contextmanager
def handling(handler: Callable[..., object]) -> Iterator[None]:
    """For SIGALRM."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
