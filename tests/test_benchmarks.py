"""The programs in `benchmarks` that other tools rely on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import checkout

import cmsgx


def count(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = checkout() / "benchmarks" / "instructions.py"
    command = [sys.executable, str(program), "--rows", "1 descriptor", "--how", "with", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("valgrind"), reason="valgrind is not installed")
def test_instructions_are_the_same_for_the_same_code_and_a_rise_is_reported(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    package = str(Path(cmsgx.__file__).parent.parent)
    # The same on both sides, which is more than 1 % less.
    done = count("--against", package, "--limit=-1", "--json", str(numbers))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 1 rose by more than -1 %" in done.stdout
    here, there = json.loads(numbers.read_text(encoding="utf-8")).values()
    assert here.keys() == there.keys() == {"1 descriptor, with"}
    (one,), (other,) = here.values(), there.values()
    assert one > 1000
    assert one / other == pytest.approx(1, abs=0.01)

    assert count("--against", package).returncode == 0
