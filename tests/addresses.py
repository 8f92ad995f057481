"""Helpers of the tests of addresses."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cmsgx


@contextmanager
def udp_pair(family: int = socket.AF_INET) -> Iterator[tuple[cmsgx.socket, cmsgx.socket]]:
    """Two sockets that are bound but not connected."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        cmsgx.socket(family, socket.SOCK_DGRAM) as server,
        cmsgx.socket(family, socket.SOCK_DGRAM) as client,
    ):
        for sock in (server, client):
            sock.bind((host, 0))
            sock.settimeout(60)
        yield server, client


def asked(server: cmsgx.socket, client: cmsgx.socket) -> cmsgx.Message:
    client.sendto(b"x", server.getsockname())
    return cmsgx.receive(server, 10)


@contextmanager
def of_unix(name: Any) -> Iterator[tuple[cmsgx.socket, Callable[[], object]]]:
    with (
        cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
    ):
        server.bind(b"")
        if name is not None:
            client.bind(name)
        yield server, lambda: client.sendto(b"x", server.getsockname())


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value
