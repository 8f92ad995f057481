"""For tests of what this kernel may lack: a protocol family, a module, a device."""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from functools import partial
from typing import Any

import namespaces
import pytest
from attempts import attempt, call
from namespaces import Namespace

import cmsgx


def is_since(before: int, nanoseconds: int | None) -> bool:
    """Whether that is a time between `before` and now."""
    return nanoseconds is not None and before <= nanoseconds <= time.time_ns()


def open_socket(
    family: int, type: int, protocol: int = 0, *, space: Namespace | None = None
) -> cmsgx.socket:
    """A socket that the kernel may not have, in that network namespace."""

    def make() -> cmsgx.socket:
        return cmsgx.socket(family, type, protocol)

    name = socket.AddressFamily(family).name if family in set(socket.AddressFamily) else family
    with attempt(f"socket({name}, {type}, {protocol})"):
        return make() if space is None else space.run(make)


def set_option(sock: Any, level: int, name: int, value: int | bytes, what: str) -> None:
    """An option that the kernel may not have."""
    with attempt(what):
        sock.setsockopt(level, name, value)


def switch_on(sock: Any, *kinds: Any) -> None:
    """enable(), where this kernel has them."""
    try:
        cmsgx.enable(sock, *kinds)
    except cmsgx.NotSupportedError as error:
        pytest.skip(f"[Errno {error.errno}] {error}")


def run(*command: str, space: Namespace | None = None) -> str:
    """The output of a program that sets up a device which the kernel may lack."""
    done = (
        namespaces.run(*command) if space is None else space.run(partial(namespaces.run, *command))
    )
    if done.returncode != 0:
        # Such programs tell the errno by its text alone.
        text = done.stderr.strip().replace("\n", " ")
        number = next((n for n in sorted(errno.errorcode) if text.endswith(os.strerror(n))), None)
        why = f"exit {done.returncode}" if number is None else f"Errno {number}"
        pytest.skip(f"[{why}] {' '.join(command)}: {text}")
    return done.stdout


# Addresses of families that Python has not -------------------------------------------------------


def bind(sock: Any, address: bytes) -> None:
    """bind(2) to a struct sockaddr."""
    call("bind", sock.fileno(), address, len(address))


def connect(sock: Any, address: bytes) -> None:
    """connect(2) to a struct sockaddr."""
    call("connect", sock.fileno(), address, len(address))


def sockaddr_in(host: str, port: int) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
