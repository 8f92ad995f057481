"""The C code of the tests: programs and preloaded libraries in tests/c."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent / "c"
INCLUDES = SOURCES.parents[1] / "src" / "c"


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cmsgx-c-")


def _compiler() -> list[str]:
    """Python's own compiler, if it is here: a preloaded library has to use the same C library."""
    own = shlex.split(sysconfig.get_config_var("CC") or "")
    for command in (own, ["cc"], ["gcc"], ["clang"]):
        if command and shutil.which(command[0]):
            return command
    pytest.skip("no C compiler: neither Python's own nor cc, gcc or clang is on PATH")


@functools.cache
def build(target: str, *arguments: str) -> Path:
    """Compiles sources of tests/c, with warnings as errors; only once in a run."""
    path = Path(_folder().name) / target
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{INCLUDES}"]
    done = subprocess.run(
        [*_compiler(), *flags, "-o", str(path), *arguments],
        cwd=SOURCES, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def sanitizer() -> str | None:
    """The name of a sanitizer in this process that has an allocator of its own."""
    maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    for name in ("asan", "tsan"):
        if f"lib{name}.so" in maps:
            return name
    return "asan" if "address-sanitizer" in str(sysconfig.get_config_var("CONFIG_ARGS")) else None


@functools.cache
def _child_hangs() -> bool:
    program = build("thread_after_fork", "-fsanitize=address", "-pthread", "thread_after_fork.c")
    done = subprocess.run([program], capture_output=True, check=False, timeout=600)
    assert done.returncode in {0, 1}, done.stderr
    return done.returncode == 1


def skip_where_a_child_cannot_start_threads() -> None:
    """AddressSanitizer's runtime can hang there, on a lock that a thread of the parent held."""
    if sanitizer() == "asan" and _child_hangs():
        pytest.skip("AddressSanitizer: a thread that was started after fork() did not return")


def preloaded(name: str, *sources: str) -> dict[str, str]:
    """The environment of a process with a library made of these sources."""
    library = build(f"{name}.so", "-O1", "-shared", "-fPIC", *sources, "-ldl")
    others = os.environ.get("LD_PRELOAD", "")
    return {
        "LD_PRELOAD": f"{library} {others}".strip(),
        "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
    }


def under_shim(mode: str = "") -> dict[str, str]:
    """The environment of a process in which tests/c/shim.c watches system calls and can falsify
    their results."""
    return {**preloaded("shim", "shim.c", "shim_receiving.c"), "CMSGX_SHIM_MODE": mode}


def under_reluctance(mode: str = "") -> dict[str, str]:
    """The environment of a process in which tests/c/reluctant.c refuses each call at first, or
    moves one byte at a time."""
    return {**preloaded("reluctant", "reluctant.c"), "CMSGX_RELUCTANT": mode}


class Shim:
    """For a process that was started with under_shim(): the functions that shim.c exports, without
    `shim_`."""

    def __init__(self) -> None:
        # Not CDLL, which releases the GIL and saves errno.
        self._library = ctypes.PyDLL(None)
        for name in (
            "closes", "dirty", "strangers", "receives", "polls", "delivered", "leaked", "captured",
            "refusals",
        ):  # fmt: skip
            getattr(self._library, f"shim_{name}").restype = ctypes.c_long
        for name in ("fail_send", "refuse_segments_after"):
            getattr(self._library, f"shim_{name}").argtypes = [ctypes.c_long, ctypes.c_int]
        self._library.shim_fail_sends.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_int]
        self._library.shim_mode.argtypes = [ctypes.c_char_p]
        self._library.shim_seed.argtypes = [ctypes.c_uint64]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, f"shim_{name}")

    def mode(self, mode: str) -> None:
        self._library.shim_mode(mode.encode())

    def captured(self) -> bytes:
        """The control data of the last sendmsg()."""
        room = ctypes.create_string_buffer(8192)
        size = self._library.shim_captured(room, len(room))
        return room.raw[:size]

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Closes of descriptors that were not delivered are counted separately."""
        self._library.shim_guard(1)
        try:
            yield
        finally:
            self._library.shim_guard(0)


class Reluctant:
    """For a process that was started with under_reluctance(): see reluctant.c."""

    COUNTED = ("again", "interrupted", "shortened", "alone", "lies")

    def __init__(self) -> None:
        self._library = ctypes.PyDLL(None)
        self._library.reluctant_mode.argtypes = [ctypes.c_char_p]
        self._library.reluctant_count.argtypes = [ctypes.c_char_p]
        self._library.reluctant_count.restype = ctypes.c_long

    def count(self, *names: str) -> int:
        """How often it was in the way since the mode was set."""
        return sum([self._library.reluctant_count(name.encode()) for name in names or self.COUNTED])

    @contextmanager
    def mode(self, mode: str) -> Iterator[None]:
        self._library.reluctant_mode(mode.encode())
        try:
            yield
        finally:
            self._library.reluctant_mode(b"")

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing is in the way meanwhile: for what the other side does."""
        self._library.reluctant_pause(1)
        try:
            yield
        finally:
            self._library.reluctant_pause(0)
