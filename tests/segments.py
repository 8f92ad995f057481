"""Helpers of the tests of segmentation offload."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from typing import Any

import cmsgx
from cmsgx import kinds

UDP_SEGMENT = 103
UDP_GRO = 104


def numbered(count: int, size: int, last: int | None = None) -> bytes:
    """This many datagrams, each beginning with its number; the last has `last` bytes."""
    parts = [number.to_bytes(4, "big").ljust(size, b".") for number in range(count)]
    if last is not None:
        parts[-1] = parts[-1][:last]
    return b"".join(parts)


def numbers(datagrams: list[bytes]) -> list[int]:
    return [int.from_bytes(one[:4], "big") for one in datagrams]


def drain(sock: cmsgx.socket, want: tuple[Any, ...] = (kinds.UdpGro,)) -> list[bytes]:
    """Each datagram that is there, whether it is coalesced with others or not."""
    rx = cmsgx.BatchReceiver(sock, 8, 65536, want=want)
    found: list[bytes] = []
    with suppress(BlockingIOError):
        while True:
            for msg in rx.receive(timeout=0):
                assert not msg.truncated
                found += map(bytes, msg.segments)
    return found


def send_plainly(sock: cmsgx.socket, data: bytes, size: int, address: Any = None) -> int:
    """0, or the errno of a message with segments, by the socket's own method."""
    control = [(socket.IPPROTO_UDP, UDP_SEGMENT, size.to_bytes(2, sys.byteorder))]
    try:
        socket.socket.sendmsg(sock, [data], control, 0, *([address] if address else []))
    except OSError as error:
        return error.errno or -1
    return 0
