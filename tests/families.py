"""Helpers of tests that need a protocol family, a module or a device that this kernel may lack."""

from __future__ import annotations

import errno
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import namespaces
import pytest
from attempts import attempt, call
from namespaces import Namespace
from support import OLD_TIME

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import _ipv6, _table


def is_since(before: int, nanoseconds: int | None) -> bool:
    """Whether it is a time between `before` and now."""
    return nanoseconds is not None and before <= nanoseconds <= time.time_ns()


def open_socket(
    family: int, type: int, protocol: int = 0, *, space: Namespace | None = None
) -> cmsgx.socket:
    """A socket that the kernel may not support, in this network namespace."""

    def make() -> cmsgx.socket:
        return cmsgx.socket(family, type, protocol)

    name = socket.AddressFamily(family).name if family in set(socket.AddressFamily) else family
    with attempt(f"socket({name}, {type}, {protocol})"):
        return make() if space is None else space.run(make)


def set_option(sock: Any, level: int, name: int, value: int | bytes, what: str) -> None:
    """Sets an option that the kernel may not support."""
    with attempt(what):
        sock.setsockopt(level, name, value)


def switch_on(sock: Any, *kinds: Any) -> None:
    """enable(); skips if this kernel lacks one of the kinds."""
    try:
        cmsgx.enable(sock, *kinds)
    except cmsgx.NotSupportedError as error:
        pytest.skip(f"[Errno {error.errno}] {error}")


def run(*command: str, space: Namespace | None = None) -> str:
    """The output of a program that sets up a device that the kernel may lack."""
    done = (
        namespaces.run(*command) if space is None else space.run(partial(namespaces.run, *command))
    )
    if done.returncode != 0:
        # Such programs report the errno only as text.
        text = done.stderr.strip().replace("\n", " ")
        number = next((n for n in sorted(errno.errorcode) if text.endswith(os.strerror(n))), None)
        why = f"exit {done.returncode}" if number is None else f"Errno {number}"
        pytest.skip(f"[{why}] {' '.join(command)}: {text}")
    return done.stdout


# Addresses of families that Python lacks ---------------------------------------------------------


def bind(sock: Any, address: bytes) -> None:
    """bind(2) to a struct sockaddr."""
    call("bind", sock.fileno(), address, len(address))


def connect(sock: Any, address: bytes) -> None:
    """connect(2) to a struct sockaddr."""
    call("connect", sock.fileno(), address, len(address))


def sockaddr_in(host: str, port: int) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))


# Without those that other tests in this process have registered.
ROWS = tuple(row for row in _table.rows() if row.kind.__module__.startswith("cmsgx"))
STRUCTS = [row.kind for row in ROWS if issubclass(row.kind, kinds.StructMessage)]
EACH = pytest.mark.parametrize("kind", STRUCTS, ids=[kind.__name__ for kind in STRUCTS])

SIGNED = {"b": 8, "h": 16, "i": 32, "q": 64, "P": 32, "T": 64}

# The content of a payload: the number of OLD_TIMEs, and the nanoseconds in a unit of the second
# number.
TIMES = {"timeval": (1, 1000), "timespec": (1, 1), "stamping": (3, 1)}
SIZES = {"integer": 4, "timeval": OLD_TIME.size, "timespec": OLD_TIME.size, "timeval64": 16,
         "timespec64": 16, "stamping": 3 * OLD_TIME.size, "stamping64": 48,
         "pktinfo": 12}  # fmt: skip
# Seconds before and after 1970, over the range of a long.
SECONDS = min(2**32, 2 ** (8 * struct.calcsize("@l") - 1))


def own_form(kind: Any) -> Any:
    """The form that unpack() reads, and pack() writes."""
    return _table.row_of(kind).formats[0]


def fields_of(kind: Any) -> list[Any]:
    return [vars(kind)[name] for name in kind._codec.fields]


def shown(kind: Any) -> tuple[str, ...]:
    """What the constructor takes."""
    names: tuple[str, ...] = getattr(kind, "_SHOWN", kind._codec.fields)
    return names


def values(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in shown(type(record))}


def wire_size(kind: Any) -> int:
    """The size in bytes of the smallest payload that unpack() accepts."""
    encoding = own_form(kind).encoding
    return SIZES.get(encoding, max(int(kind._codec.min_size), 0))


def is_fixed(kind: Any) -> bool:
    return own_form(kind).encoding in SIZES or kind._codec.min_size == kind._codec.max_size


def payload(kind: Any, rng: random.Random) -> bytes:
    """A random payload that survives the round trip through the kind unchanged."""
    encoding = own_form(kind).encoding
    if encoding in TIMES:
        count, unit = TIMES[encoding]
        return b"".join(
            OLD_TIME.pack(rng.randrange(-SECONDS, SECONDS), rng.randrange(10**9 // unit))
            for _ in range(count)
        )
    size = wire_size(kind)
    if not is_fixed(kind):
        most = kind._codec.max_size
        size = rng.randint(size, most if 0 <= most < 64 else size + 40)
    data = bytearray(rng.randbytes(size))
    for field in fields_of(kind):
        if field.format == "S" and size > field.offset:
            # For the others, not every length is valid for an address.
            families = [b"\0\0"]
            if size - field.offset >= 16:
                families.append(struct.pack("=H", socket.AF_INET))
            data[field.offset : field.offset + 2] = rng.choice(families)
    if kind is kinds.AlgIv:
        data[:4] = struct.pack("=I", size - 4)
    if encoding == "without NUL" and data[-1:] == b"\0":
        data[-1] = 1
    return bytes(data)


def made_payloads(kind: Any, count: int) -> Iterator[bytes]:
    """Those with values that a constructor accepts."""
    rng = random.Random(kind.__name__)
    for _ in range(count):
        data = bytearray(payload(kind, rng))
        for field in fields_of(kind):
            if field.bounds and field.format != "t":
                value = rng.randint(*field.bounds)
                order = "big" if field.format in "nN" else sys.byteorder
                data[field.offset : field.offset + field.size] = value.to_bytes(
                    field.size, order, signed=field.format in SIGNED
                )
            elif field.bounds:
                del data[field.offset + field.bounds[1] :]
        if issubclass(kind, _ipv6._Header):
            words = rng.randrange(4)
            data[:] = bytes([0, words]) + rng.randbytes(8 * words + 6)
        yield bytes(data)


# struct rds_rdma_notify and struct rds_cmsg_rx_trace: i386 aligns their 64-bit members to 4 bytes.
RDMA_NOTIFY = struct.Struct("@Qi0Q")
RX_TRACE = struct.Struct("@4B3Q")
