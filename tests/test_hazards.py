"""docs/hazards.md: each hazard names tests that exist, and each hazard that is cited is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from checkout import checkout

PAGE = "docs/hazards.md"
HAZARD = r"[A-Z]\d{1,2}"
LABELS = ["Goes wrong", "Seen", "cmsgx", "Test"]


@cache
def functions_of(path: Path) -> set[str]:
    """The functions in a test file; none if there is no such file."""
    if not path.is_file():
        return set()
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    return {
        node.name for node in nodes if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def faults_of(page: str, functions: Callable[[str], set[str]]) -> list[str]:
    """The faults of the page; `functions` returns the names of the functions in a file."""
    faults = []
    numbers: dict[str, int] = {}
    part = ""
    for heading, body in re.findall(r"^(##.*)\n((?:(?!##).*\n)*)", page, re.MULTILINE):
        if section := re.fullmatch(r"## ([A-Z]): \S.*", heading):
            part = section[1]
            continue
        hazard = re.fullmatch(rf"### ({HAZARD}): \S.*", heading)
        if hazard is None:
            faults.append(f"{heading!r} is not the heading of a hazard or a part")
            continue
        name = hazard[1]
        numbers[part] = numbers.get(part, 0) + 1
        if name != f"{part}{numbers[part]}":
            faults.append(f"{name} is where {part}{numbers[part]} should be")
        labels = re.findall(r"^- \*\*(.+?)s?\*\*", body, re.MULTILINE)
        if labels != LABELS:
            faults.append(f"{name} has {labels}")
        named = re.findall(r"`(tests/[\w./]+\.py)::(test_\w+)`", body.partition("- **Test")[2])
        if not named:
            faults.append(f"{name} names no test")
        faults += [
            f"{name}: there is no {path}::{function}"
            for path, function in named
            if function not in functions(path)
        ]
    return faults


def cited_in(text: str) -> set[str]:
    """The hazards and parts that a test file cites: `docs/hazards.md, part C`, `parts B, D and I`,
    `docs/hazards.md, F4`, `# A1, A2: ...` above some tests, and the names of tests."""
    one = rf"{HAZARD}|[A-Z]\b"
    patterns = (
        rf"hazards\.md, (?:parts? )?((?:{one})(?:(?:, | and )(?:{one}))*)",
        rf"^# ({HAZARD}(?:, {HAZARD})*): ",
        rf"^(?:async )?def test_({HAZARD}(?:_{HAZARD})*)_",
    )
    lists = [found for pattern in patterns for found in re.findall(pattern, text, re.MULTILINE)]
    return {name for listed in lists for name in re.split("_|, | and ", listed)}


def page() -> str:
    return (checkout() / PAGE).read_text(encoding="utf-8")


def hazards_and_parts() -> set[str]:
    return set(re.findall(rf"^##+ ({HAZARD}|[A-Z]): ", page(), re.MULTILINE))


def where_it_is(fault: str) -> str:
    """The fault, with the file that has the test now if the page names another."""
    folder = checkout()
    name = fault.rpartition("::")[2]
    found = [
        path.relative_to(folder).as_posix()
        for path in folder.glob("tests/**/test_*.py")
        if name in functions_of(path)
    ]
    return f"{fault}; it is in {found}" if found else fault


def test_each_hazard_names_tests_that_exist() -> None:
    faults = faults_of(page(), lambda path: functions_of(checkout() / path))
    assert not faults, "\n".join(map(where_it_is, faults))
    assert sum(len(name) > 1 for name in hazards_and_parts()) >= 48


def test_whatever_a_test_cites_is_a_hazard() -> None:
    files = [
        path for path in (checkout() / "tests").rglob("*.py") if path != Path(__file__).resolve()
    ]
    texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    cited = {name: cited_in(text) for name, text in texts.items()}
    unknown = {name: found - hazards_and_parts() for name, found in cited.items()}
    assert {name: found for name, found in unknown.items() if found} == {}
    assert len(set.union(*cited.values())) > 40, "citations were not recognised"
    assert [name for name, text in texts.items() if "HAZARDS" in text] == [], f"it is {PAGE}"


def test_whatever_a_mutant_cites_is_a_hazard() -> None:
    tools = checkout() / "tools"
    texts = [
        path.read_text(encoding="utf-8") for path in (tools / "mutants", *tools.glob("mutants.d/*"))
    ]
    cited = set(re.findall(rf'(?:Mutant\(|\bname = )"({HAZARD}) ', "\n".join(texts)))
    assert len(cited) > 20, "mutants were not recognised"
    assert cited <= hazards_and_parts()


GOOD = """\
## A: a part

### A1: a hazard

- **Goes wrong** (peer): it does.
- **Seen**: it was.
- **cmsgx**: does something.
- **Test**: `tests/test_x.py::test_a`
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("", "", None),
        ("test_a`", "test_b`", "A1: there is no tests/test_x.py::test_b"),
        ("test_x", "test_y", "A1: there is no tests/test_y.py::test_a"),
        ("`tests/test_x.py::test_a`", "none", "A1 names no test"),
        ("A1", "A2", "A2 is where A1 should be"),
        ("A1", "B1", "B1 is where A1 should be"),
        ("### A1", "### A1: one\n\n- **Test**: none\n\n### A1", "A1 has ['Test']"),
        ("### A1: a", "### A", "'### A hazard' is not the heading of a hazard or a part"),
        ("- **Seen**: it was.\n", "", "A1 has ['Goes wrong', 'cmsgx', 'Test']"),
        ("- **Test**", "- **Tests**", None),
    ],
)  # fmt: skip
def test_a_fault_is_seen(old: str, new: str, fault: str | None) -> None:
    files = {"tests/test_x.py": {"test_a"}}
    faults = faults_of(GOOD.replace(old, new, 1), lambda path: files.get(path, set()))
    assert faults == [] if fault is None else fault in faults


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ('"""docs/hazards.md, part C: x"""', {"C"}),
        ('"""docs/hazards.md, parts B, D and I: A way out"""', {"B", "D", "I"}),
        ('"""docs/hazards.md, F4: without a seal"""', {"F4"}),
        ("x = 1  # see docs/hazards.md, A1 and A10", {"A1", "A10"}),
        ("# A2, A3: a title ----", {"A2", "A3"}),
        ("def test_C1_C3_x() -> None:", {"C1", "C3"}),
        ("# A4 is a size of paper", set()),
        ('"docs/hazards.md", "A1"', set()),
    ],
)
def test_a_citation_is_seen(text: str, cited: set[str]) -> None:
    assert cited_in(text) == cited
