"""What a row is, and the sockets that it is measured with."""

import importlib
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

cmsgx: Any
try:
    cmsgx = importlib.import_module("cmsgx")
except ImportError:
    cmsgx = None  # then only `socket` is measured

Loop = Callable[[int], None]

SOCKET, DROPIN, WITH, FOR, BATCH = "socket", "drop-in", "with", "for", "batch"

_open: list[int] = []


def null_descriptors(count: int) -> list[int]:
    """The same for all, so that what is received has low numbers: Python keeps the ints to 256."""
    while len(_open) < count:
        _open.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    return _open[:count]


class World:
    """A pair of sockets and what travels over it; each implementation has its own."""

    def __init__(
        self,
        pair: tuple[socket.socket, socket.socket],
        *,
        size: int = 1,
        fds: int = 0,
        timeout: float | None = None,
    ) -> None:
        self.tx, self.rx = pair
        self.more: list[socket.socket] = []
        self.size = size
        self.data = bytes(size)
        self.fds = null_descriptors(fds)
        self.timeout = timeout
        for sock in pair:
            sock.settimeout(timeout)

    def is_drained(self) -> bool:
        self.rx.setblocking(False)
        with suppress(BlockingIOError):
            self.rx.recv(1)
            return False
        return True

    def close(self) -> None:
        for sock in (self.tx, self.rx, *self.more):
            sock.close()


@dataclass(frozen=True)
class Row:
    name: str
    floor: str  # in floor.c, without its prefix
    world: Callable[[], World]
    runners: Mapping[str, Callable[[World], Loop]]
    at_most: Mapping[str, float] = field(default_factory=dict)  # runner: x plain C
    faster: float | None = None  # the drop-in (or the batch) against socket
    peer: str = ""  # in the libraries of peers.py, without its prefix
    is_there: Callable[[], bool] = lambda: True  # whether cmsgx has what its runners need
    messages: int = 1  # that a round moves


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
