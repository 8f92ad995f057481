"""For tests of what this kernel may lack: a protocol family, a module, a device.

Each attempt skips the test where the kernel refuses it, with the errno of what was attempted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from namespaces import Namespace

import cmsgx

__all__ = [
    "attempt",
    "bind",
    "connect",
    "fails",
    "is_since",
    "may_fail",
    "open_socket",
    "run",
    "set_option",
    "sockaddr_in",
    "switch_on",
]

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def attempt(what: str, *errors: int) -> Iterator[None]:
    """What is tried in there may fail with one of those errno, or with any."""
    try:
        yield
    except OSError as error:
        if errors and error.errno not in errors:
            raise
        pytest.skip(f"[Errno {error.errno}] {what}: {error.strerror}")


@contextmanager
def fails(*errors: int) -> Iterator[None]:
    """What is called in there has to fail with one of those errno."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise
    else:
        pytest.fail(f"did not fail with one of the errno {errors}")


@contextmanager
def may_fail(*errors: int) -> Iterator[None]:
    """What is called in there may fail with one of those errno."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise


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
    try:
        if space is None:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        else:
            done = space.command(*command)
    except FileNotFoundError as error:
        pytest.skip(f"[Errno {error.errno}] {command[0]}: {error.strerror}")
    if done.returncode != 0:
        # Such programs tell the errno by its text alone.
        text = done.stderr.strip().replace("\n", " ")
        number = next((n for n in sorted(errno.errorcode) if text.endswith(os.strerror(n))), None)
        why = f"exit {done.returncode}" if number is None else f"Errno {number}"
        pytest.skip(f"[{why}] {' '.join(command)}: {text}")
    return done.stdout


# Addresses of families that Python has not -------------------------------------------------------


def _call(function: Any, sock: Any, address: bytes) -> None:
    if function(sock.fileno(), address, len(address)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def bind(sock: Any, address: bytes) -> None:
    """bind(2) to a struct sockaddr."""
    _call(_libc.bind, sock, address)


def connect(sock: Any, address: bytes) -> None:
    """connect(2) to a struct sockaddr."""
    _call(_libc.connect, sock, address)


def sockaddr_in(host: str, port: int) -> bytes:
    """struct sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton(host))
