"""Helpers of the tests of enable()."""

from __future__ import annotations

import ctypes
import os
import socket

from native import build
from support import run_python

import cmsgx

PASSCRED, PASSSEC, PASSPIDFD = 16, 34, 76

OPTIONS = {cmsgx.Credentials: PASSCRED, cmsgx.SecurityLabel: PASSSEC, cmsgx.PidFd: PASSPIDFD}


def states(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(socket.SOL_SOCKET, option) for option in OPTIONS.values()]


# An option of another kernel ----------------------------------------------------------------------


def run_with_a_fake_option(code: str, *arguments: str) -> str:
    """Runs code in a process in which fake_option() works."""
    library = build("options.so", "-O1", "-shared", "-fPIC", "options.c", "-ldl")
    others = os.environ.get("LD_PRELOAD", "")
    return run_python(code, *arguments, env={"LD_PRELOAD": f"{others} {library}".strip()})


def fake_option(
    level: int, name: int, *, get_error: int = 0, set_error: int = 0, value: bytes = b""
) -> None:
    """From now on that option has this value, whatever the socket, or these errors."""
    ctypes.CDLL(None).fake_option(level, name, get_error, set_error, value, len(value))


def fake_value() -> bytes:
    room = ctypes.create_string_buffer(16)
    size: int = ctypes.CDLL(None).fake_value(room)
    return room.raw[:size]
