"""Helpers of tests about the rest of a checkout: documents, examples, the build."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

__all__ = ["checkout", "python_blocks", "sets_options_in_time"]


def checkout() -> Path:
    """The folder of the project; skips if the tests were copied away from it."""
    folder = Path(__file__).resolve().parents[1]
    if not (folder / "pyproject.toml").is_file():
        pytest.skip(f"not in a checkout: there is no pyproject.toml in {folder}")
    return folder


def python_blocks(text: str) -> list[tuple[int, str]]:
    """Each Python block in a Markdown document, with the number of the line before it."""
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start()) + 1, block[1]) for block in found]


def sets_options_in_time(code: str) -> None:
    """The code enables kinds before the socket is bound, and answers with reply().

    Readers copy the order of the lines too.
    """
    options = re.search(r"want=|\benable\(", code)
    binds = re.search(r"\.bind\(", code)
    if options and binds:
        assert options.start() < binds.start(), code[binds.start() : options.end()]
    if "PacketInfo" in code and "address=" in code:
        assert re.search(r"PacketInfo6?\]\.reply\(\)|\.reply\(\), address=", code), code
