"""The tests themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns"}
FILES = sorted(Path(__file__).parent.rglob("*.py"))


def has_clock(text: object) -> bool:
    return isinstance(text, str) and any(f".{name}(" in text for name in CLOCKS)


def is_time_taken(node: ast.expr, names: set[str]) -> bool:
    """Whether it is a difference of two times, or a name for one."""
    if isinstance(node, ast.Name):
        return node.id in names
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Sub):
        return False
    calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return any(isinstance(call, ast.Attribute) and call.attr in CLOCKS for call in calls)


def bounds(source: str) -> Iterator[int]:
    """The lines that assert that something took less than a time."""
    tree = ast.parse(source)
    names = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and is_time_taken(node.value, set())
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assert):
            continue
        for compared in ast.walk(node.test):
            if not isinstance(compared, ast.Compare):
                continue
            sides = [compared.left, *compared.comparators]
            for operator, left, right in zip(compared.ops, sides, sides[1:], strict=False):
                is_bound = (
                    isinstance(operator, ast.Lt | ast.LtE) and is_time_taken(left, names)
                ) or (isinstance(operator, ast.Gt | ast.GtE) and is_time_taken(right, names))
                if is_bound:
                    yield node.lineno


@pytest.mark.parametrize(
    ("line", "is_bound"),
    [
        ("assert time.monotonic() - start < 5", True),
        ("assert 5 > time.perf_counter() - start", True),
        ("assert 0.1 <= time.monotonic() - start < limit", True),
        ("took = time.monotonic() - start\nassert took <= 1", True),
        ("assert time.monotonic() - start >= 0.1", False),
        ("assert 0.1 < time.monotonic() - start", False),
        ("while time.monotonic() < deadline: pass", False),
    ],
)
def test_a_bound_on_time_is_found(line: str, is_bound: bool) -> None:
    assert bool(list(bounds(line))) == is_bound


def test_no_test_bounds_the_time_that_something_takes() -> None:
    """On a busy machine it may take any time. `faulthandler_timeout` stops a test that hangs."""
    found = []
    for path in FILES:
        source = path.read_text(encoding="utf-8")
        if path == Path(__file__) or not has_clock(source):
            continue
        found += [f"{path.name}:{line}" for line in bounds(source)]
        # Code that runs in a separate process is in strings.
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Constant) and has_clock(node.value):
                with suppress(SyntaxError):
                    found += [f"{path.name}:{node.lineno}" for _ in bounds(str(node.value))]
    assert not found
