"""Who uses whom, for tools/layers: units of C and modules of Python, circles, and what points up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    """What breaks a rule: which rule, and by a name that stays as long as it does; where, or why."""

    rule: str
    offender: str
    reason: str


class Edge(NamedTuple):
    """One unit or module uses another: by which words in which file."""

    target: str
    words: str
    when: str = ""  # or "later": inside a function; or "types": for type checkers alone


Graph = dict[str, list[Edge]]


def components(graph: Graph) -> list[list[str]]:
    """Tarjan's strongly connected components, each after those that it uses."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for target in sorted({edge.target for edge in graph[node] if edge.when != "types"}):
            if target not in order:
                visit(target)
                lowest[node] = min(lowest[node], lowest[target])
            elif target in stack:
                lowest[node] = min(lowest[node], order[target])
        if lowest[node] == order[node]:
            start = stack.index(node)
            found.append(sorted(stack[start:]))
            del stack[start:]

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def circles(graph: Graph) -> list[list[str]]:
    return [component for component in components(graph) if len(component) > 1]


def uses_in(graph: Graph, circle: Iterable[str]) -> list[str]:
    """What makes a circle, in words."""
    members = set(circle)
    return [
        edge.words for name in sorted(members) for edge in graph[name]
        if edge.target in members and edge.when != "types"
    ]  # fmt: skip


def findings_of(graph: Graph, rank: Callable[[str], int | None], what: str) -> Iterator[Finding]:
    """Circles, each unit in one by itself, and what points up."""
    for circle in circles(graph):
        for name in circle:
            yield Finding("circle", name, f"in a circle of {what}: {', '.join(circle)}")
    for name, edges in sorted(graph.items()):
        own = rank(name)
        if own is None:
            yield Finding("no layer", name, "in none of the layers that tools/layers declares")
            continue
        for edge in edges:
            other = rank(edge.target)
            if edge.when != "types" and other is not None and other < own:
                yield Finding("upward", f"{name} -> {edge.target}", f"{edge.words}, which is above it")
