"""Helpers of the tests of the error queue."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from namespaces import needs_ipv6

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import TimestampingFlags as Flags

R = TypeVar("R", bound=kinds.ErrorReport)

START = time.time_ns()

# A port where only a privileged process could listen.
CLOSED = 1

MAPPED = "::ffff:127.0.0.1"

LOOPBACK = [
    pytest.param(socket.AF_INET, "127.0.0.1", id="IPv4"),
    pytest.param(socket.AF_INET6, "::1", id="IPv6", marks=needs_ipv6),
]

LOOPBACK_AND_MAPPED = [
    *LOOPBACK,
    pytest.param(socket.AF_INET6, MAPPED, id="mapped", marks=needs_ipv6),
]

SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW = 37, 65


def is_ready(sock: socket.socket, seconds: float = 5.0) -> bool:
    """Whether poll(2) reports POLLERR, which need not be requested."""
    poll = select.poll()
    poll.register(sock, 0)
    return poll.poll(seconds * 1000) == [(sock.fileno(), select.POLLERR)]


def collect(sock: socket.socket, count: int = 1) -> list[kinds.ErrorReport]:
    """Exactly this many reports, which may come one by one."""
    found: list[kinds.ErrorReport] = []
    while len(found) < count and is_ready(sock):
        found += cmsgx.receive_errors(sock)
    assert len(found) == count
    return found


def one(sock: socket.socket, kind: type[R]) -> R:
    """The only report that there is."""
    [report] = collect(sock)
    assert type(report) is kind
    return report


@contextmanager
def udp(family: int = socket.AF_INET) -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, kinds.ExtendedError)
        yield sock


@contextmanager
def refused(count: int) -> Iterator[socket.socket]:
    """A socket with this many ICMP errors on its queue, for packets numbered from 0."""
    with udp() as sock:
        for i in range(count):
            # The previous error is pending, and the send would fail with it.
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            sock.sendto(bytes([i]), ("127.0.0.1", CLOSED + i))
        yield sock


def stamp(sock: socket.socket, flags: Flags, option: int = SO_TIMESTAMPING_OLD) -> None:
    if option == SO_TIMESTAMPING_OLD:
        cmsgx.enable(sock, kinds.Timestamping.option(flags))
    else:
        sock.setsockopt(socket.SOL_SOCKET, option, int(flags | Flags.SOFTWARE))


def assert_now(nanoseconds: int | None) -> None:
    assert nanoseconds is not None
    assert START <= nanoseconds <= time.time_ns()


@contextmanager
def tcp_pair(family: int = socket.AF_INET, host: str = "127.0.0.1") -> Iterator[Any]:
    with socket.create_server((host, 0), family=family) as listener:
        sender = socket.create_connection(listener.getsockname()[:2])
        reader = listener.accept()[0]
    with sender, reader:
        yield sender, reader


@contextmanager
def udp_pair(family: int, host: str) -> Iterator[Any]:
    with udp(family) as sender, udp(family) as reader:
        reader.bind((host, 0))
        sender.connect(reader.getsockname())
        yield sender, reader
