"""What several test files need."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import cmsgx

TESTS = Path(__file__).parent
UNIX_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)

Pair: TypeAlias = "tuple[cmsgx.socket, cmsgx.socket]"


def open_fds() -> dict[int, str]:
    """The open descriptors of this process: number -> what /proc says it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # the directory that was listed
    return found


def unix_pair(kind: int = socket.SOCK_STREAM) -> Pair:
    return cmsgx.socketpair(socket.AF_UNIX, kind)


def close_pair(pair: Pair) -> None:
    for sock in pair:
        sock.close()


@contextmanager
def open_files(count: int) -> Iterator[list[int]]:
    """That many descriptors of files that tell themselves apart: each is a memfd that holds its
    index as text."""
    numbers: list[int] = []
    try:
        for index in range(count):
            numbers.append(os.memfd_create(f"file-{index}"))
            os.pwrite(numbers[-1], str(index).encode(), 0)
        yield numbers
    finally:
        for number in numbers:
            os.close(number)


def content(fd: int | cmsgx.Fd) -> str:
    """What a file of open_files() holds."""
    return os.pread(fd if isinstance(fd, int) else fd.fileno(), 64, 0).decode()


def run_python(
    code: str, *arguments: str, timeout: float = 60, env: dict[str, str] | None = None
) -> str:
    """Runs code in a process of its own, with this file's folder on its path; its output.

    AssertionError, with all that it printed, where it fails.
    """
    environment = {**os.environ, **(env or {})}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(TESTS), environment.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, timeout=timeout, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
