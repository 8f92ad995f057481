"""The versions of the linters are in pyproject.toml, and nowhere else."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from checkout import checkout

# Where commands install or run them.
PLACES = (".pre-commit-config.yaml", ".ci", ".github", "tools", "CONTRIBUTING.md", "README.md")
# Packages that a pre-commit hook installs itself.
OWN_VERSIONS = r"^\s*(?:rev|additional_dependencies):"


def linters() -> list[str]:
    """The requirements, without pytest, which is needed only for its types."""
    project = tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = [*extras["lint"], *extras["analyse"]]
    return [one for one in found if not one.startswith("pytest")]


def versions_in(text: str, names: Iterable[str]) -> list[str]:
    """The lines that require a version of one of them."""
    pattern = rf"\b(?:{'|'.join(map(re.escape, names))})\s*[=~<>!]=\s*[\w.*]+|{OWN_VERSIONS}"
    return [found[0].strip() for found in re.finditer(pattern, text, re.MULTILINE)]


def test_each_has_one_version() -> None:
    assert [one for one in linters() if not re.fullmatch(r"[\w-]+==\d+(\.\d+)+", one)] == []


def test_no_other_file_has_one() -> None:
    names = [one.partition("==")[0] for one in linters()]
    files: list[Path] = []
    for place in PLACES:
        path = checkout() / place
        files += path.rglob("*") if path.is_dir() else [path]
    found = {
        str(path.relative_to(checkout())): versions
        for path in files
        if path.is_file() and path.suffix != ".pyc"
        if (versions := versions_in(path.read_text(encoding="utf-8", errors="replace"), names))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pip install 'ruff==0.1'", ["ruff==0.1"]),
        ("pip install ruff~=0.1 other==2", ["ruff~=0.1"]),
        ('        additional_dependencies: ["ruff"]', ["additional_dependencies:"]),
        ("    rev: v0.1", ["rev:"]),
        ("ruff check . && other==1", []),
    ],
)
def test_a_version_is_seen(text: str, expected: list[str]) -> None:
    assert versions_in(text, ["ruff", "mypy"]) == expected
