"""The messages in the sources, each of which needs a row in test_messages.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from checkout import checkout


class Source(NamedTuple):
    """A message as written in the source: its text, with {} for each part that is filled in."""

    text: str
    place: str

    def says(self, text: str) -> bool:
        """Whether the text is this message, filled in."""
        parts = map(re.escape, self.text.split("{}"))
        # The prefix of a message about an item of an argument: "control[0]: ".
        before = r"(?:\w+\[\d+\]: )?"
        return re.fullmatch(before + ".*".join(parts), text, re.DOTALL) is not None


# C -----------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""
    (?P<comment> /\*.*?\*/ | //[^\n]* )
  | (?P<string> "(?:[^"\\]|\\.)*" )
  | (?P<character> '(?:[^'\\]|\\.)*' )
  | (?P<word> [A-Za-z_]\w* )
  | (?P<other> \S )
    """,
    re.DOTALL | re.VERBOSE,
)
_DEFINE = re.compile(r'^\#\s*define\s+(\w+)\s+("(?:[^"\\]|\\.)*")\s*$', re.MULTILINE)
# d, s, zd, .200s, ... as PyErr_Format() accepts them.
_FILLED = re.compile(r"%(?:\.?\d+)?(?:ll|l|z)?[a-zA-Z]")

# For each argument a list of the texts that it may be, such as both branches of a conditional
# expression.
_Arguments = list[list[str]]


def _of(index: int) -> Callable[[_Arguments], list[str]]:
    return lambda arguments: [_FILLED.sub("{}", text) for text in arguments[index]]


def _needed(name: int, needed: int) -> Callable[[_Arguments], list[str]]:
    return lambda arguments: [
        f"{one}{{}}: {what} is needed, not {{}}"
        for one in arguments[name]
        for what in arguments[needed]
    ]


def _named(name: int, what: str) -> Callable[[_Arguments], list[str]]:
    return lambda arguments: [f"{one}{what} is needed, not {{}}" for one in arguments[name]]


_IN_C: dict[str, Callable[[_Arguments], list[str]]] = {
    "PyErr_Format": _of(1),
    "PyErr_SetString": _of(1),
    "cmsgx_raise_errno": _of(1),
    "cmsgx_raise_not_supported": _of(2),
    "cmsgx_add_note": _of(0),
    "cmsgx_raise_needed": _needed(0, 2),
    "cmsgx_sequence": _needed(1, 2),
    "cmsgx_as_int": _named(1, ": an int"),
    "cmsgx_as_size": _named(1, ": an int"),
    "cmsgx_as_nearest": _named(1, ": an int"),
    "cmsgx_as_buffer": _named(1, "{}: a {}bytes-like object"),
}


def _tokens(source: str) -> Iterator[tuple[str, str, int]]:
    """(kind, text, line), without comments and preprocessor lines; a macro that stands for a text
    is replaced by the text."""
    texts = dict(_DEFINE.findall(source))
    code = re.sub(
        r"^\#(?:[^\n\\]|\\.)*",
        lambda m: "\n" * m[0].count("\n"),
        source,
        flags=re.MULTILINE | re.DOTALL,
    )
    line, at = 1, 0
    for match in _TOKEN.finditer(code):
        line += code.count("\n", at, match.start())
        at = match.start()
        kind = str(match.lastgroup)
        if kind == "word" and match[0] in texts:
            yield "string", texts[match[0]], line
        elif kind != "comment":
            yield kind, match[0], line


def _arguments(tokens: list[tuple[str, str, int]], start: int) -> _Arguments:
    """The arguments of the call whose opening bracket is at this place."""
    arguments: _Arguments = [[]]
    depth = 0
    was_string = False
    for kind, text, _ in tokens[start:]:
        if text in "([{" and kind == "other":
            depth += 1
        elif text in ")]}" and kind == "other":
            depth -= 1
            if depth == 0:
                break
        elif text == "," and depth == 1:
            arguments.append([])
        elif kind == "string":
            value = ast.literal_eval(text)
            if was_string:
                arguments[-1][-1] += value
            else:
                arguments[-1].append(value)
        was_string = kind == "string"
    return arguments


def in_c(path: Path) -> Iterator[Source]:
    tokens = list(_tokens(path.read_text(encoding="utf-8")))
    for index, (kind, text, line) in enumerate(tokens):
        if kind == "word" and text in _IN_C and tokens[index + 1][1] == "(":
            arguments = _arguments(tokens, index + 1)
            if len(arguments) > 1 or text == "cmsgx_add_note":
                for message in _IN_C[text](arguments):
                    yield Source(message, f"{path.name}:{line}")


# Python ------------------------------------------------------------------------------------------


def _text_of(node: ast.expr) -> str | None:
    """The text of a literal, with {} for each part that is filled in; None if it is not a
    literal."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [_text_of(part) if isinstance(part, ast.Constant) else "{}" for part in node.values]
        return "".join(map(str, parts))
    return None


def _in_call(call: ast.Call) -> str | None:
    name = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    texts = [text for node in call.args if (text := _text_of(node)) is not None]
    if not texts:
        return None
    if name == "needed" and isinstance(call.func, ast.Name):
        name, what = (_text_of(node) or "{}" for node in call.args[:2])
        return f"{name}: {what} is needed, not {{}}"
    if name == "as_int":
        return f"{texts[0]}: an int is needed, not {{}}"
    if name == "as_view":
        return f"{texts[0]}: a bytes-like object is needed, not {{}}"
    if name == "as_tuple":
        name, what = (_text_of(node) or "{}" for node in call.args[:2])
        return f"{name}: {what} is needed, not {{}}"
    if name == "check_word":
        return f"{texts[0]}: {{}}; must be {{}}"
    if name in ("_fail", "_break_read"):
        return texts[0]
    if name in ("os_error", "add_note") or name.endswith("Error"):
        return texts[-1]
    return None


def in_python(path: Path) -> Iterator[Source]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (text := _in_call(node)) is not None:
            yield Source(text, f"{path.name}:{node.lineno}")


def all_messages() -> list[Source]:
    source = checkout() / "src"
    found: list[Source] = []
    for path in sorted([*source.glob("*.c"), *source.glob("c/**/*.[ch]")]):
        found += in_c(path)
    for path in sorted((source / "cmsgx").rglob("*.py")):
        if path.parent.name != "_cli":
            found += in_python(path)
    return found
