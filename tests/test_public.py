"""Each public name has what a public name needs; a failure says which one lacks what."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import pydoc
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import GetSetDescriptorType, MethodDescriptorType
from typing import Any

import pytest
from checkout import checkout
from public_names import CALLABLES, CLASSES, MODULES, PUBLIC, of_a_family
from support import TESTS, run_python

import cmsgx
import cmsgx.errors
import cmsgx.kinds
import cmsgx.wire
from cmsgx import kinds, wire
from cmsgx.kinds._base import Member

MOST_AT_THE_TOP = 70


# What there is --------------------------------------------------------------------------------


def test_the_top_is_small() -> None:
    assert len(cmsgx.__all__) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_has_no_name_twice(module: str) -> None:
    names = sys.modules[module].__all__
    assert len(set(names)) == len(names)
    private = [name for name in names if name.startswith("_") and name != "__version__"]
    assert private == []


@pytest.mark.parametrize("module", MODULES)
def test_nothing_public_is_left_out_of_all(module: str) -> None:
    found = {
        name
        for name, value in vars(sys.modules[module]).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    }
    assert found <= set(sys.modules[module].__all__)


def test_public_modules_come_with_the_package() -> None:
    # In a fresh process, because here everything was imported.
    run_python(f"import cmsgx; {', '.join(MODULES)}")


def test_other_modules_are_private() -> None:
    public = {"cmsgx.asyncio", "cmsgx.trio", "cmsgx.__main__", *MODULES}
    wrong = [
        module.name
        for module in pkgutil.walk_packages(cmsgx.__path__, "cmsgx.")
        if module.name not in public
        and not any(part.startswith("_") for part in module.name.split("."))
    ]
    assert wrong == []


def test_the_top_module_only_re_exports() -> None:
    source = Path(cmsgx.__file__).read_text()
    kinds = {type(node) for node in ast.walk(ast.parse(source))}
    defines = {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda}
    assert kinds & defines == set()
    imported = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(cmsgx.__all__) <= imported


def test_each_object_says_where_it_is() -> None:
    wrong = {
        name: f"{value.__module__}.{value.__qualname__}"
        for name, value in CALLABLES.items()
        if value.__module__ not in MODULES
        or getattr(sys.modules[value.__module__], value.__qualname__, None) is not value
    }
    assert wrong == {}


# What each has --------------------------------------------------------------------------------


def own_docstring(value: Any) -> str:
    """Neither the docstring of its base class, nor one that a dataclass generated."""
    text = inspect.cleandoc(value.__doc__ or "")
    if inspect.isclass(value) and text == inspect.cleandoc(value.__mro__[1].__doc__ or ""):
        return ""
    return "" if text.startswith(f"{value.__name__}(") else text


def test_each_has_a_docstring() -> None:
    lacking = [name for name, value in CALLABLES.items() if len(own_docstring(value).split()) < 4]
    assert lacking == []


def test_each_method_and_property_has_a_docstring() -> None:
    lacking = {
        f"{name}.{member}"
        for name, cls in CLASSES.items()
        for base in cls.__mro__
        if base.__module__.startswith("cmsgx")
        for member, value in vars(base).items()
        if not member.startswith("_")
        and (callable(value) or isinstance(value, property | classmethod | GetSetDescriptorType))
        and not (getattr(cls, member).__doc__ or "").strip()
    }
    assert lacking == set()


def test_the_ends_of_a_with_have_a_docstring() -> None:
    lacking = {
        f"{name}.{member}"
        for name, cls in CLASSES.items()
        for base in cls.__mro__
        if base.__module__.startswith("cmsgx")
        for member in ("__enter__", "__exit__")
        if type(vars(base).get(member)) is MethodDescriptorType
        and not (inspect.getdoc(getattr(cls, member)) or "").strip()
    }
    assert lacking == set()


def fields() -> dict[str, str | None]:
    """What help() says about each public field: slots, properties and so on, but not methods."""
    found: dict[str, str | None] = {}
    for name, cls in CLASSES.items():
        for base in cls.__mro__:
            for member, value in vars(base).items():
                if member.startswith("_") or not base.__module__.startswith("cmsgx"):
                    continue
                if isinstance(value, Member):  # of a kind that this platform lacks
                    found.setdefault(f"{name}.{member}", value.doc)
                elif inspect.isdatadescriptor(value):
                    found.setdefault(f"{name}.{member}", inspect.getdoc(value))
    return found


def test_each_field_has_a_docstring_of_its_own() -> None:
    lacking = [
        name
        for name, text in fields().items()
        if len((text or "").split()) < 2 or (text or "").startswith("Alias for field")
    ]
    assert lacking == []


@pytest.mark.parametrize("cls", [wire.Header, wire.Multishot, kinds.Option, kinds.IcmpError])
def test_help_shows_what_a_field_is(cls: type) -> None:
    text = pydoc.plain(pydoc.render_doc(cls))
    shown = [doc for name, doc in fields().items() if f".{cls.__name__}." in name]
    assert len(shown) > 3
    assert [doc for doc in shown if (doc or "").split("\n")[0] not in text] == []


def test_peer_credentials_have_a_signature() -> None:
    parameters = inspect.signature(cmsgx.PeerCredentials).parameters
    assert list(parameters) == ["pid", "uid", "gid"]


def documented() -> dict[str, str]:
    """Each heading of docs/reference.md that is a name, and the signature after it."""
    text = (checkout() / "docs" / "reference.md").read_text()
    return dict(re.findall(r"^### `(cmsgx[\w.]*\.\w+)(\(.*\))?`\n\n[\w`]", text, re.MULTILINE))


def test_the_page_of_kinds_is_what_the_table_says() -> None:
    tool = [sys.executable, str(checkout() / "tools" / "kinds"), "--check"]
    assert subprocess.run(tool, check=False).returncode == 0, "run tools/kinds"


def in_reference(name: str) -> str | None:
    """The name under which it is documented: a name can be public in two modules."""
    same = (other for other in documented() if PUBLIC.get(other) is PUBLIC[name])
    return next(same, None)


def test_each_has_a_paragraph_in_the_reference() -> None:
    assert [name for name in PUBLIC if not in_reference(name) and name not in of_a_family()] == []


def test_the_reference_has_nothing_else_and_nothing_twice() -> None:
    names = list(documented())
    assert set(names) <= set(PUBLIC)
    objects = [id(PUBLIC[name]) for name in names]
    assert len(set(objects)) == len(objects)


# Their constructors are not part of the interface.
NOT_MADE_BY_USERS = (
    cmsgx.Batch, cmsgx.Enabled, cmsgx.Message, cmsgx.MessageFds, cmsgx.Segments, cmsgx.View,
    cmsgx.wire.Header, cmsgx.wire.Multishot,
    cmsgx.AddressTuple, cmsgx.EmptyMapping, cmsgx.Pending, cmsgx.kinds.UnownedPidFd,
)  # fmt: skip


def expected_signature(value: Any) -> str:
    if not callable(value) or value in NOT_MADE_BY_USERS or issubclass_of(value, BaseException):
        return ""
    if value in (cmsgx.kinds.ControlMessage, cmsgx.kinds.StructMessage):
        return ""
    if issubclass_of(value, cmsgx.PeerCredentials, cmsgx.SecurityLabel):
        return f"({', '.join(value._codec.fields)})"
    signature = inspect.signature(value)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return text.replace("=Ellipsis", "=...").replace(repr(socket.SOCK_STREAM), "SOCK_STREAM")


def issubclass_of(value: Any, *classes: type) -> bool:
    return inspect.isclass(value) and issubclass(value, classes)


def test_signatures_in_the_reference() -> None:
    written = documented()
    expected = {name: expected_signature(PUBLIC[name]) for name in written}
    assert written == expected


def test_some_test_mentions_each() -> None:
    # Files about all names do not test any of them.
    about_all = {Path(__file__).name, "public_names.py", "exercises.py", "exercises_of_kinds.py"}
    tests = "\n".join(
        path.read_text() for path in TESTS.rglob("*.py") if path.name not in about_all
    )
    words = set(re.findall(r"\w+", tests))
    # Kinds are tested by their rows: test_catalogue.py, test_kinds_families.py.
    unmentioned = {name for name in PUBLIC if name.rpartition(".")[2] not in words}
    assert unmentioned - of_a_family() == set()
