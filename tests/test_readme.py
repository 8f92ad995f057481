"""The documents: their Python code runs and prints what they say, and their commands and links
work."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import checkout, python_blocks, sets_options_in_time

FOLDER = Path(__file__).resolve().parents[1]


def documents() -> list[str]:
    if not (FOLDER / "pyproject.toml").is_file():
        return ["README.md"]  # for which checkout() skips the test
    patterns = ("*.md", "docs/*.md", "benchmarks/*.md")
    found = (path for pattern in patterns for path in FOLDER.glob(pattern))
    return sorted(path.relative_to(FOLDER).as_posix() for path in found)


def blocks() -> Iterator[Any]:
    for name in DOCUMENTS:
        path = FOLDER / name
        text = path.read_text() if path.is_file() else "```python\n```"
        for line, code in python_blocks(text):
            yield pytest.param(name, line, code, id=f"{name}:{line}")


DOCUMENTS = documents()

DEMO = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/cmsgx demo"
TESTS = (
    "python3 -m venv .venv && .venv/bin/pip install '.[test]' && .venv/bin/python -m pytest -n 2"
)


@pytest.mark.parametrize(("name", "line", "code"), list(blocks()))
def test_python(name: str, line: int, code: str) -> None:
    checkout()
    # The output of each line is in the comment after it.
    expected = re.findall(r"^\s*print\(.*\)  # (.*)$", code, re.MULTILINE)
    assert expected, "it shows nothing"
    assert code.count("print(") == len(expected), "each print needs its output after it"
    done = subprocess.run(
        # A debug build shows these warnings; the examples leave closing to the end of the process.
        [sys.executable, "-W", "ignore::ResourceWarning", "-c", code],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "cmsgx.errors.NotSupportedError" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == expected


@pytest.mark.parametrize(("name", "line", "code"), list(blocks()))
def test_python_sets_options_before_packets_come(name: str, line: int, code: str) -> None:
    sets_options_in_time(code)


def readme() -> str:
    return (checkout() / "README.md").read_text()


@pytest.mark.parametrize(("marker", "command"), [("demo-command", DEMO), ("test-command", TESTS)])
def test_commands_can_be_found(marker: str, command: str) -> None:
    # .ci/run takes them from there.
    [block] = re.findall(
        rf"^<!-- {marker} -->\n```sh\n(.*?)^```$", readme(), re.MULTILINE | re.DOTALL
    )
    assert block == command + "\n"


def test_readme_has_an_example_of_each() -> None:
    text = readme()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    with_python = {section.partition("\n")[0] for section in sections if python_blocks(section)}
    assert with_python == {
        "In place of socket's functions", "Typed", "Ownership", "Credentials",
        "Any control message", "Many at once",
    }  # fmt: skip
    assert "<!-- speed-table -->" in text
    assert "```sh\npython benchmarks/run.py --publish\n```" in text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = checkout() / name
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith("https://"):
            assert (document.parent / target.partition("#")[0]).exists(), target


def test_every_document_is_found() -> None:
    checkout()
    assert {
        "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/ownership.md",
        "docs/drop-in.md", "docs/identity.md", "docs/reference.md", "docs/decisions.md",
        "docs/hazards.md", "docs/platforms.md", "docs/design.md", "benchmarks/README.md",
    } <= set(DOCUMENTS)  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_document_is_reached_from_the_readme(name: str) -> None:
    assert name == "README.md" or f"]({name})" in readme()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_that_are_named_exist(name: str) -> None:
    folder = checkout()
    text = (folder / name).read_text()
    for path in re.findall(r"`((?:src|tests|docs|tools|examples|benchmarks)/[\w./-]+)`", text):
        assert (folder / path).exists(), path
