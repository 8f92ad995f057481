"""What sanitizers find in the C code alone, and that a sanitized build checks for all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import checkout
from native import SOURCES, build
from test_packaging import needs_backend
from test_walk import SANITIZERS, run, sanitized


@pytest.mark.slow
def test_every_form_of_a_time_at_its_edges() -> None:
    sanitized()  # which skips if there is none
    # A 32-bit time has a smaller range: only overflows are checked for there.
    run(build("encodings", "-D_GNU_SOURCE", *SANITIZERS, "encodings.c"))


# Records its arguments, and creates its output files, empty.
COMPILER = """#!/bin/sh
printf '%s\\n' "$*" >>"$CMSGX_COMMANDS"
while [ $# -gt 0 ]; do
    [ "$1" = -o ] && : >"$2"
    shift
done
"""


def flags_of_a_sanitized_build(folder: Path) -> list[str]:
    """The arguments that setup.py and this Python pass to the compiler for a plain C file."""
    compiler = folder / "cc"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment |= {
        "CC": str(compiler),
        "LDSHARED": f"{compiler} -shared",
        "CMSGX_COMMANDS": str(folder / "commands"),
        "CMSGX_SANITIZE": "1",
    }
    done = subprocess.run(
        [
            sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext",
            "--build-temp", str(folder / "temp"), "--build-lib", str(folder / "lib"),
        ],
        cwd=checkout(), capture_output=True, text=True, check=False, timeout=120, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [command] = [
        line.split()
        for line in (folder / "commands").read_text().splitlines()
        if " -c src/c/plain/encoding.c " in line
    ]
    at = command.index("-c")
    assert command[at + 2] == "-o"
    return command[:at] + command[at + 4 :]


@pytest.mark.slow
def test_a_sanitized_build_catches_an_overflow(tmp_path: Path) -> None:
    """Python's own flags, which make overflows wrap, come first."""
    sanitized()
    needs_backend(checkout())
    flags = flags_of_a_sanitized_build(tmp_path)
    program = build("overflow", *flags, f"-I{SOURCES}", "overflow.c")
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [program], capture_output=True, text=True, env=environment, check=False, timeout=60
    )
    assert done.returncode != 0, done.stdout
    assert "signed integer overflow: 2147483647 + 1" in done.stderr


def test_overflow_wraps_without_sanitizers() -> None:
    assert run(build("wraps", "-fwrapv", "overflow.c")) == f"{-(2**31)}\n"
