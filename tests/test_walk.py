"""src/c/plain/walk.c alone, without an interpreter: tests/c/fuzz_walk.c."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from native import build
from support import lengths

SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def built(*flags: str) -> Path:
    return build(f"fuzz_walk{'-'.join(flags)[:20].replace('=', '')}", *flags, "fuzz_walk.c")


def run(program: Path, *arguments: str) -> str:
    # The sanitizer's runtime has to be loaded first, so nothing is preloaded.
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def sanitized() -> Path:
    try:
        program = built(*SANITIZERS)
        run(program, "0")  # with musl it may be built, but find no runtime
        return program
    except AssertionError as error:
        pytest.skip(f"the C compiler has no sanitizers here: {error}")


@pytest.mark.parametrize("count", lengths("CMSGX_WALKS", 50_000, 1_000_000))
def test_C1_C3_random_control_buffers(count: int) -> None:
    """Structured inputs, at each alignment, under ASan and UBSan."""
    printed = run(sanitized(), str(count))
    print(printed)
    assert "cut 0" not in printed
    assert "broken 0" not in printed


@pytest.mark.parametrize("count", lengths("CMSGX_WALKS", 50_000, 300_000))
@pytest.mark.slow
def test_C1_without_sanitizers(count: int) -> None:
    run(built("-O2"), str(count), "2")
