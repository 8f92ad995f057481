"""The code has every promised name: tests/data/promised.txt"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from support import TESTS

from cmsgx import wire

PROMISES = Path(TESTS) / "data" / "promised.txt"
# Objects without a public name of their own.
OBJECTS = {
    "Header": wire.Header,
}
ANY = object()


class Promise(NamedTuple):
    line: str
    name: str
    parameters: inspect.Signature | None
    bases: tuple[str, ...]


def signature_of(text: str) -> inspect.Signature:
    """The signature for `(a, /, b=0, *, c=ANY)`. Only literals in it are evaluated."""
    definition = ast.parse(f"def f({text}): ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    arguments = definition.args

    def default(node: ast.expr | None) -> Any:
        if node is None:
            return inspect.Parameter.empty
        return ANY if isinstance(node, ast.Name) else ast.literal_eval(node)

    plain = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    places: list[Any] = [inspect.Parameter.POSITIONAL_ONLY] * len(arguments.posonlyargs)
    places += [inspect.Parameter.POSITIONAL_OR_KEYWORD] * len(arguments.args)
    found = [
        inspect.Parameter(one.arg, place, default=default(node))
        for one, place, node in zip(plain, places, [*missing, *arguments.defaults], strict=True)
    ]
    if arguments.vararg is not None:
        found.append(inspect.Parameter(arguments.vararg.arg, inspect.Parameter.VAR_POSITIONAL))
    found += [
        inspect.Parameter(one.arg, inspect.Parameter.KEYWORD_ONLY, default=default(node))
        for one, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return inspect.Signature(found)


def read(text: str) -> dict[str, list[Promise]]:
    sections: dict[str, list[Promise]] = {}
    section: list[Promise] = []
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            name, _, bases = line.partition(" < ")
            name, bracket, rest = name.partition("(")
            parameters = signature_of(rest.removesuffix(")")) if bracket else None
            section.append(Promise(line, name, parameters, tuple(filter(None, bases.split(", ")))))
    return sections


SECTIONS = read(PROMISES.read_text(encoding="utf-8"))


def find(name: str) -> Any:
    """The object with this name; None if it exists only on instances; or LookupError."""
    first, *rest = name.split(".")
    value: Any = OBJECTS.get(first) or importlib.import_module(first)
    at = first
    for part in rest:
        at = f"{at}.{part}"
        if isinstance(value, ModuleType) and not hasattr(value, part):
            try:
                value = importlib.import_module(at)
            except ModuleNotFoundError:
                raise LookupError(f"there is no {at}") from None
        elif hasattr(value, part):
            value = getattr(value, part)
        elif any(part in getattr(base, "__annotations__", ()) for base in value.__mro__):
            value = None
        else:
            raise LookupError(f"{at.rpartition('.')[0]} has no {part}")
    return value


def parameters_of(name: str, value: Any) -> list[inspect.Parameter]:
    """The parameters that a caller passes: without `self`."""
    parameters = list(inspect.signature(value).parameters.values())
    owner = find(name.rpartition(".")[0]) if "." in name else None
    is_bound = not inspect.isclass(owner) or inspect.isclass(value) or inspect.ismethod(value)
    is_bound = is_bound or getattr(value, "__self__", None) is not None
    return parameters if is_bound else parameters[1:]


def lacks(promise: Promise) -> list[str]:
    """What the code lacks of the promise."""
    try:
        value = find(promise.name)
        bases = [find(base) if "." in base else getattr(builtins, base) for base in promise.bases]
    except LookupError as error:
        return [str(error)]
    wrong = [
        f"{promise.name} is not below {base.__name__}"
        for base in bases
        if not issubclass(value, base)
    ]
    if promise.parameters is None:
        return wrong
    given = {one.name: one for one in parameters_of(promise.name, value)}
    in_order = [one for one in given.values() if one.kind != inspect.Parameter.KEYWORD_ONLY]
    for index, one in enumerate(promise.parameters.parameters.values()):
        if one.kind == inspect.Parameter.KEYWORD_ONLY:
            there = given.get(one.name)
        else:
            there = in_order[index] if index < len(in_order) else None
        wrong += compare(promise.name, one, there)
    promised = promise.parameters.parameters
    places = sum(one.kind != inspect.Parameter.KEYWORD_ONLY for one in promised.values())
    wrong += [
        f"{promise.name} cannot be called without {one.name}"
        for one in given.values()
        if one.default is inspect.Parameter.empty
        and one.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        and one.name not in promised
        and one not in in_order[:places]
    ]
    return wrong


def compare(name: str, one: inspect.Parameter, there: inspect.Parameter | None) -> list[str]:
    if there is None:
        return [f"{name} has no parameter {one.name}"]
    if one.kind == inspect.Parameter.POSITIONAL_ONLY:
        if there.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
            return [f"{name}: {one.name} is not taken by its place"]
    elif (there.name, there.kind) != (one.name, one.kind):
        return [f"{name}: {there.name} ({there.kind.description}) in place of {one}"]
    if one.default is inspect.Parameter.empty:
        is_right = True  # callers that pass it are not affected by a default
    elif one.default is ANY:
        is_right = there.default is not inspect.Parameter.empty
    else:
        is_right = there.default == one.default
    return [] if is_right else [f"{name}: the default of {one.name} is {there.default!r}"]


@pytest.mark.parametrize("promise", SECTIONS["present"], ids=lambda promise: promise.line)
def test_what_is_promised_is_there(promise: Promise) -> None:
    assert lacks(promise) == []


@pytest.mark.parametrize("promise", SECTIONS["planned"], ids=lambda promise: promise.line)
def test_what_is_planned_is_not_there_yet(promise: Promise) -> None:
    assert lacks(promise) != [], "it exists: move its line to [present]"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("cmsgx.nothing", "there is no cmsgx.nothing"),
        ("cmsgx.Fd.nothing()", "cmsgx.Fd has no nothing"),
        ("cmsgx.nothing.send", "there is no cmsgx.nothing"),
        ("cmsgx.Fd < Exception", "cmsgx.Fd is not below Exception"),
        ("cmsgx.share(data, *, nothing=1)", "cmsgx.share has no parameter nothing"),
        (
            "cmsgx.send(data, sock)",
            "cmsgx.send: sock (positional or keyword) in place of data",
        ),
        (
            "cmsgx.receive(sock, bufsize, fds=0)",
            "cmsgx.receive has no parameter fds",
        ),
        ("cmsgx.receive(sock, bufsize, *, fds=1)", "cmsgx.receive: the default of fds is 0"),
        ("cmsgx.receive(sock)", "cmsgx.receive cannot be called without bufsize"),
        ("cmsgx.share(data, name='x')", "cmsgx.share: the default of name is 'cmsgx'"),
        ("cmsgx.Fd.close(*, now=True)", "cmsgx.Fd.close: the default of now is False"),
        ("cmsgx.sendmsg(s, b, a=(), /)", ""),
    ],
)
def test_a_lack_is_seen(line: str, text: str) -> None:
    (promise,) = read(f"[present]\n{line}")["present"]
    found = lacks(promise)
    assert (found[0] if found else "") == text


def test_no_name_is_promised_twice() -> None:
    lines = [promise.line for section in SECTIONS.values() for promise in section]
    assert len(set(lines)) == len(lines)
