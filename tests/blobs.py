"""Helpers of the tests of control messages outside recvmsg(2)."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from native import build

from cmsgx import wire

IPPROTO_IP, IPPROTO_IPV6 = 0, 41
IP_TOS, IP_TTL, IP_PKTINFO, IP_PKTOPTIONS, IP_RECVTTL, IP_RECVTOS = 1, 2, 8, 9, 12, 13
LOOPBACK = socket.if_nametoindex("lo")


def headers(control: bytes) -> list[tuple[int, int, int]]:
    """The level, type and payload bytes of each."""
    found = []
    header = wire.CMSG_FIRSTHDR(control)
    while header is not None:
        found.append((header.level, header.type, wire.CMSG_DATA(header).nbytes))
        header = wire.CMSG_NXTHDR(control, header)
    return found


class Filled(NamedTuple):
    """A buffer that io_uring filled."""

    res: int
    memory: bytes


@contextmanager
def multishot(
    sock: socket.socket, name_size: int, control_size: int, size: int, count: int = 1
) -> Iterator[tuple[int, list[Filled]]]:
    """Receives this many messages with c/multishot.c, and keeps their descriptors open; yields its
    pid and the filled buffers."""
    program = subprocess.Popen(
        [str(build("multishot", "-O1", "-g", "multishot.c"))]
        + [str(word) for word in (sock.fileno(), name_size, control_size, size, count)],
        pass_fds=[sock.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(count)]
        if lines[0].startswith("refused: "):
            pytest.skip(lines[0].strip())
        found = [line.split() for line in lines if line]
        assert len(found) == count, "see its stderr"
        yield program.pid, [Filled(int(res), bytes.fromhex(text)) for res, text in found]
        program.stdin.close()
        assert program.wait(30) == 0


def make(
    name: bytes, control: bytes, payload: bytes, name_size: int, control_size: int, **header: int
) -> bytes:
    """A buffer as the kernel fills it; what it does not write is 0xaa."""
    values = {"namelen": len(name), "controllen": len(control), "payloadlen": len(payload)}
    values.update({"flags": 0}, **header)
    return (
        struct.pack("=4I", *values.values())
        + name[:name_size].ljust(name_size, b"\xaa")
        + control.ljust(control_size, b"\xaa")
        + payload
    )
