"""Helpers of the tests of ZeroCopySender."""

from __future__ import annotations

import itertools
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import cmsgx
from cmsgx import kinds

MSG_ZEROCOPY = 0x4000000

ZEROCOPY, COPIED = 5, 1
LAST = 2**32 - 1
SIZE = 20_000


@contextmanager
def tcp(
    make: Callable[..., socket.socket] = socket.socket, receive_buffer: int = 1 << 20
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection on loopback."""
    with make(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with make(socket.AF_INET, socket.SOCK_STREAM) as left:
            left.connect(listener.getsockname())
            with listener.accept()[0] as right:
                left.settimeout(60)
                yield left, right


@contextmanager
def stalled(
    make: Callable[..., socket.socket] = socket.socket,
) -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """A connection whose receiver is full, so that new sends stay in flight; also how many bytes
    are ahead of them."""
    with tcp(make, 4096) as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ahead = left.send(bytes(60_000))
        assert ahead == 60_000
        yield left, right, ahead


@contextmanager
def udp(
    family: int = socket.AF_INET, host: str = "127.0.0.1"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket(family, socket.SOCK_DGRAM) as left:
        right = socket.socket(family, socket.SOCK_DGRAM)
        with right:
            right.bind((host, 0))
            right.settimeout(60)
            left.settimeout(60)
            left.connect(right.getsockname())
            yield left, right


def send_until_it_fails(
    sender: cmsgx.ZeroCopySender, buffer: bytes | bytearray, timeout: float
) -> tuple[int, OSError]:
    """The number of bytes that were sent before the error, and the error."""
    sent = 0
    while True:
        try:
            sent += sender.send(buffer, timeout=timeout)
        except OSError as error:
            return sent, error.with_traceback(None)


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    sock.settimeout(60)
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more
        data += more
    return data


def can_resize(buffer: bytearray) -> bool:
    """Whether it is not exported."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1]
    return True


def completion(first: int, last: int, code: int = 0) -> kinds.ZeroCopyCompletion:
    """As if the kernel had reported it."""
    error = kinds.ExtendedError.unpack(
        struct.pack("=IBBBxII", 0, ZEROCOPY, 0, code, first, last) + bytes(16)
    )
    return kinds.ZeroCopyCompletion(cast(Any, None), error)


def kernel_id(sock: socket.socket) -> int:
    """The id of one more send, made without the sender."""
    cmsgx.send(sock, b"1", flags=MSG_ZEROCOPY, timeout=60)
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(60_000)
    [report] = cmsgx.receive_errors(sock)
    assert isinstance(report, kinds.ZeroCopyCompletion)
    return report.last


def reads_of(sender: cmsgx.ZeroCopySender) -> Callable[[], int]:
    """How often it checks the error queue from now on, which it does instead of waiting."""
    count = itertools.count()
    receive = sender._receive

    def counting() -> Any:
        next(count)
        return receive()

    sender._receive = counting
    return lambda: next(count)
