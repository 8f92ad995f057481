"""How the code is laid out: tools/layers finds nothing here, and finds each fault that a test
makes."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
if not (ROOT / "tools" / "layers").is_file():
    pytest.skip(f"not in a checkout: there are no tools in {ROOT}", allow_module_level=True)
sys.path.insert(0, str(ROOT / "tools"))  # as for a program that is started there
TOOL = runpy.run_path(str(ROOT / "tools" / "layers"))
RULES: tuple[str, ...] = TOOL["RULES"]
check: Callable[[dict[str, str]], list[Any]] = TOOL["check"]

FD = "int fd_of(int n);\n"
# A tree that breaks no rule.
RIGHT = {
    "src/_cmsgmodule.c": '#include "c/calls/send.h"\nint PyInit__cmsg(void) { return 0; }\n',
    "src/c/calls/send.c": '#include "calls/send.h"\nint\nsend_it(void)\n{\n    return 0;\n}\n',
    "src/c/calls/send.h": '#include "types/fd.h"\nint send_it(void);\n',
    "src/c/types/fd.c": '#include "fd.h"\n#include "plain/walk.h"\nint\nfd_of(int n)\n{\n}\n',
    "src/c/types/fd.h": f"#include <Python.h>\n{FD}",
    "src/c/plain/walk.h": "static inline int walk(void) { return 0; }\n",
    "src/cmsgx/__init__.py": "from . import errors as errors\nfrom ._sync import send\n",
    "src/cmsgx/_sync.py": "from .kinds import Kind\nfrom ._cmsg import send\n",
    "src/cmsgx/kinds/__init__.py": "from ._unix import Kind as Kind\n",
    "src/cmsgx/kinds/_unix.py": "from ..errors import Error\n",
    "src/cmsgx/errors.py": "class Error(Exception): ...\n",
}  # fmt: skip


def found_in(sources: dict[str, str]) -> list[tuple[str, str]]:
    return sorted((finding.rule, finding.offender) for finding in check(sources))


# This tree ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def findings() -> list[Any]:
    found: list[Any] = check(TOOL["from_folder"](ROOT))
    return found


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds(rule: str, findings: list[Any]) -> None:
    assert {one.offender: one.reason for one in findings if one.rule == rule} == {}


def test_each_layer_that_is_declared_is_there() -> None:
    sources = TOOL["from_folder"](ROOT)
    modules = TOOL["modules_of"](sources)
    for names in TOOL["PYTHON_LAYERS"].values():
        for name in names:
            assert TOOL["fnmatch"].filter(modules, name), f"PYTHON_LAYERS: there is no {name}"
    folders = {str(Path(unit).parent) for unit in TOOL["includes"](sources)[0]}
    assert folders == {folder or "." for folder in TOOL["C_LAYERS"]}


def test_the_table_of_the_documents_has_the_layers_that_are_declared() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    section = text.partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    shown = [set(re.findall(r"`([^`]+)`", row.partition(" of ")[0])) for row in rows]
    python = [set(names) for names in TOOL["PYTHON_LAYERS"].values()]
    assert python.pop() == {"_cmsg"}, "the lowest layer, which the rows of C are about"
    assert shown[: len(python)] == python
    units = TOOL["includes"](TOOL["from_folder"](ROOT))[0]
    of_root = {unit for unit in units if "/" not in unit} - {TOOL["FRONT"]}
    c = [{f"{folder}/"} if folder else of_root for folder in TOOL["C_LAYERS"]]
    assert shown[len(python) :] == c


def test_the_documents_name_where_conditions_stand() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for pattern in TOOL["CONDITIONS"]:
        assert f"`{pattern}`" in text, f"CONTRIBUTING.md does not name {pattern}"


def test_the_command_prints_the_layers() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "layers"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    words = [line.split() for line in done.stdout.splitlines()]
    folders = [line[0] for line in words if len(line) == 1 and line[0].startswith("src/c/")]
    assert folders == [f"src/c/{folder}" for folder in TOOL["C_LAYERS"]]
    assert ["__main__", "_cli"] in words


def test_a_commit_is_read_without_a_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip(f"there is no repository in {ROOT}")
    sources = TOOL["from_commit"]("HEAD")
    assert sources.keys() >= {"src/_cmsgmodule.c", "src/cmsgx/__init__.py", "tools/layers"}


def test_an_unknown_commit_is_named() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "layers", "no-such-commit"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "COMMIT: no-such-commit" in done.stderr


# What is made wrong -------------------------------------------------------------------------------


def test_nothing_is_found_in_a_right_tree() -> None:
    assert found_in(RIGHT) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param(
            {
                "src/c/types/fd.h": f'#include "types/message.h"\n{FD}',
                "src/c/types/message.h": '#include "types/fd.h"\n',
            },
            [("circle", "types/fd"), ("circle", "types/message")],
            id="a circle of includes",
        ),
        pytest.param(
            {"src/c/types/fd.h": f'#include "calls/wait.h"\n{FD}', "src/c/calls/wait.h": ""},
            [("upward", "types/fd -> calls/wait")],
            id="an include that points up",
        ),
        pytest.param(
            {"src/c/plain/walk.h": '#  include "../errors.h"\n', "src/c/errors.h": ""},
            [("upward", "plain/walk -> errors")],
            id="a path that goes up",
        ),
        pytest.param(
            {"src/c/types/fd.h": f'#include "fds.h"\n{FD}'},
            [("not there", "types/fd -> fds.h")],
            id="an include of a file that is not there",
        ),
        pytest.param(
            {"src/c/plain/walk.h": "#include <Python.h>\n"},
            [("Python.h", "plain/walk")],
            id="Python.h in plain",
        ),
        pytest.param(
            {"src/c/misc/odd.h": ""},
            [("no layer", "misc/odd")],
            id="a folder of no layer",
        ),
        pytest.param(
            {"src/c/types/pin.c": '#include "types/fd.h"\nstatic int pin;\n'},
            [("no header", "types/pin")],
            id="no header",
        ),
        pytest.param(
            {
                "src/c/types/fd.h": f"{FD}__attribute__((const)) char *\nsend_name(int);\n",
                "src/c/calls/send.c": "int send_it(void) { }\nchar *\nsend_name(int n) { }\n",
            },
            [("declared elsewhere", "calls/send: send_name")],
            id="a function that another header declares",
        ),
        pytest.param(
            {"src/c/calls/recv.c": f"extern {FD}", "src/c/calls/recv.h": ""},
            [("declared elsewhere", "types/fd: fd_of")],
            id="a function that another .c declares",
        ),
        pytest.param(
            {"src/c/types/fd.c": "int fd_of(int n)\n{\n}\nconst int fd_table[2] = {1, 2};\n"},
            [("not declared", "types/fd: fd_table")],
            id="a table that no header declares",
        ),
        pytest.param(
            {"src/c/types/fd.h": f"{FD}extern const int fd_table[];\n"},
            [("not defined", "types/fd: fd_table")],
            id="a header that declares what is not there",
        ),
        *(
            pytest.param(
                {"src/c/types/fd.h": f"{FD}{text}", "src/c/plain/walk.h": text},
                [("two meanings", "look")],
                id=f"{what} in two files",
            )
            for what, text in [
                ("a static function", "static inline int *\nlook(int n)\n{\n}\n"),
                ("a table", 'static const char *const look[] = {"a"};\n'),
                ("a docstring", 'PyDoc_STRVAR(look,\n"look()");\n'),
                ("a type", "typedef struct {\n    int n;\n} look;\n"),
                ("a struct", "struct look {\n    struct { int n; } in;\n};\n"),
            ]
        ),
        pytest.param(
            {"src/c/types/fd.h": f"#ifdef SCM_PIDFD\n{FD}#elif defined(__linux__)\n#endif\n"},
            [
                ("condition", "types/fd.h: #elif defined(__linux__)"),
                ("condition", "types/fd.h: #ifdef SCM_PIDFD"),
            ],
            id="conditions on a system",
        ),
        pytest.param(
            {"src/c/types/fd.h": f"{FD}#  if \\\n    PY_VERSION_HEX >= 1   /* why */\n#endif\n"},
            [("condition", "types/fd.h: #if PY_VERSION_HEX >= 1")],
            id="a condition on a Python version",
        ),
        pytest.param(
            {"src/c/types/fd.h": f"#ifndef FD_H\n#define FD_H\n{FD}#ifndef FD_H\n#endif\n#endif\n"},
            [("condition", "types/fd.h: #ifndef FD_H")],
            id="what looks like a guard",
        ),
        pytest.param(
            {
                "src/c/types/fd.h": f"{FD}#if CMSGX_HAS_FDS\n#endif\n",
                "src/c/plain/walk.h": "#define CMSGX_HAS_FDS 1\n",
            },
            [("condition", "types/fd.h: #if CMSGX_HAS_FDS")],
            id="a feature that another file defines",
        ),
        pytest.param(
            {"src/cmsgx/errors.py": "def name():\n    from ._sync import send\n"},
            [
                *(("circle", name) for name in ("_sync", "errors", "kinds", "kinds._unix")),
                ("upward", "errors -> _sync"),
            ],
            id="a circle of imports, inside a function",
        ),
        pytest.param(
            {"src/cmsgx/kinds/_unix.py": "import importlib\nimportlib.import_module('.._sync')\n",
             "src/cmsgx/_sync.py": ""},
            [("upward", "kinds._unix -> _sync")],
            id="an import that points up, by its name",
        ),
        pytest.param(
            {"src/cmsgx/errors.py": "import cmsgx.kinds\n", "src/cmsgx/kinds/_unix.py": ""},
            [("upward", "errors -> kinds")],
            id="an import that points up, in full",
        ),
        pytest.param(
            {"src/cmsgx/_odd.py": "from . import errors\n"},
            [("no layer", "_odd")],
            id="a module of no layer",
        ),
        pytest.param(
            dict.fromkeys(("tests/c/a.c", "tests/test_a.py", "tools/a"), "\n" * 601),
            [("long file", name) for name in ("tests/c/a.c", "tests/test_a.py", "tools/a")],
            id="long files",
        ),
        pytest.param(
            {"tests/test_a.py": "\n" * 600 + "# no newline"},
            [("long file", "tests/test_a.py")],
            id="a long file whose last line is not ended",
        ),
        pytest.param(
            {"src/odd.c": "static int odd;\n"},
            [("no header", "../odd"), ("no layer", "../odd")],
            id="a C file beside that of the module",
        ),
        pytest.param(
            {"src/c/calls/send.c": 'void f(void) { PyImport_ImportModule("cmsgx._sync"); }\n',
             "src/c/calls/send.h": "void f(void);\n"},
            [("C imports", "calls/send -> cmsgx._sync")],
            id="C that imports Python",
        ),
        pytest.param(
            {"src/cmsgx/_deadline.py": "import time\n",
             "src/cmsgx/_sync.py": "from time import monotonic\n"},
            [("clock", "_sync")],
            id="a second clock",
        ),
        *(
            pytest.param(
                {"src/cmsgx/_core/__init__.py": "", "src/cmsgx/_core/sends.py": f"{line}\n",
                 "src/cmsgx/_deadline.py": ""},
                [("waits", f"_core.sends -> {module}")],
                id=f"the core: {line}",
            )
            for line, module in [
                ("import select", "select"),
                ("from time import monotonic", "time"),
                ("def later():\n    import asyncio.events", "asyncio"),
                ("from .._deadline import Deadline", "_deadline"),
            ]
        ),
    ],
)  # fmt: skip
def test_what_breaks_a_rule_is_found(
    changes: dict[str, str], expected: list[tuple[str, str]]
) -> None:
    assert found_in(RIGHT | changes) == expected


@pytest.mark.parametrize(
    "line",
    [
        "#include <calls/wait.h>",
        '#inc\\\nlude \\\n "calls/wait.h"',
        '#include /* above */ "calls/wait.h"',
        '/* above */ # /**/ include "calls/wait.h" // above',
        '%:include "calls/wait.h"',
    ],
)
def test_an_include_is_seen_however_it_is_written(line: str) -> None:
    changes = {"src/c/types/fd.h": f"{line}\n{FD}", "src/c/calls/wait.h": ""}
    assert found_in(RIGHT | changes) == [("upward", "types/fd -> calls/wait")]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ('#define X "calls/wait.h"\n#include X', "#include X"),
        ('#include_next "calls/wait.h"', '#include_next "calls/wait.h"'),
        ('#import "calls/wait.h"', '#import "calls/wait.h"'),
        ("#  include CAT(a, b)  /* why */", "#include CAT(a, b)"),
    ],
)
def test_an_include_of_what_is_not_read_is_a_fault(line: str, shown: str) -> None:
    sources = RIGHT | {"src/c/types/fd.h": f"{line}\n{FD}", "src/c/calls/wait.h": ""}
    assert found_in(sources) == [("unclear", f"types/fd: {shown}")]


@pytest.mark.parametrize(
    "header", ["structmember.h", "pyconfig.h", "frameobject.h", "cpython/object.h", "datetime.h"]
)
def test_plain_includes_no_header_of_python(header: str) -> None:
    sources = RIGHT | {"src/c/plain/walk.h": f"#include <string.h>\n#include <{header}>\n"}
    assert found_in(sources) == [("Python.h", "plain/walk")]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('__import__("cmsgx._sync")', ["__import__"]),
        ("import builtins\nbuiltins.__import__(name)", ["__import__"]),
        ('exec("from cmsgx import _sync")', ["exec"]),
        (
            "from importlib import import_module as load\nload('cmsgx._sync')",
            ["from importlib import import_module"],
        ),
        ("import importlib\nload = importlib.import_module", ["import_module"]),
        ("import importlib\ngetattr(importlib, 'import_module')", ["'import_module'"]),
        (
            "from pkgutil import resolve_name as f\nf('cmsgx._sync')",
            ["from pkgutil import resolve_name"],
        ),
    ],
)
def test_an_import_of_what_is_not_read_is_a_fault(text: str, shown: list[str]) -> None:
    sources = RIGHT | {"src/cmsgx/errors.py": f"{text}\n"}
    assert found_in(sources) == [("unclear", f"errors: {words}") for words in shown]


@pytest.mark.parametrize(
    "call",
    [
        "import_module('cmsgx._sync')",
        "import_module(name='cmsgx._sync')",
        "import_module('._sync', 'cmsgx')",
        "import_module('._sync', package='cmsgx')",
        "import_module('.._sync', __package__)",
    ],
)
def test_import_module_is_read(call: str) -> None:
    changes = {
        "src/cmsgx/kinds/_unix.py": f"from importlib import import_module\n{call}\n",
        "src/cmsgx/_sync.py": "",
    }
    assert found_in(RIGHT | changes) == [("upward", "kinds._unix -> _sync")]


def test_a_feature_may_be_asked_for() -> None:
    sources = RIGHT | {
        "src/c/compat.h": "#ifdef Py_GIL_DISABLED\n#  define CMSGX_HAS_GIL 0\n#endif\n",
        "src/c/types/fd.h": f"#if CMSGX_HAS_GIL\n{FD}#endif\n#if !CMSGX_HAS_GIL\n#endif\n",
    }
    assert found_in(sources) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("src/c/types/fd.h", f"/* int no(void); */\n#define NO \\\n    int no(void);\n{FD}"),
        ("src/c/types/fd.h", f"typedef int (*no)(int);\nstruct no;\nenum {{ NO = 1 }};\n{FD}"),
        ("src/c/types/fd.h", f'static const char no[] = "int no2(void) {{";\n{FD}'),
        ("src/c/types/fd.c", "int fd_of(int n)\n{\n    if (n) {\n        no(n);\n    }\n}\n"),
        ("src/c/types/fd.h", f"static int walk(void);\ntypedef struct walk walk;\n{FD}"),
        ("src/c/plain/platform.h", "#if A\nstruct no { };\n#else\nstruct no { int n; };\n#endif\n"),
        ("src/c/types/fd.h", f"#ifndef FD_H\n#define FD_H\n{FD}#endif\n"),
        ("src/c/compat.h", "#define CMSGX_HAS_GIL 1\n#if CMSGX_HAS_GIL\n#endif\n"),
        ("src/c/plain/platform.h", "#ifdef __linux__\n#endif\n"),
        ("src/cmsgx/errors.py", "if TYPE_CHECKING:\n    from ._sync import send\n"),
        ("tests/test_a.py", "\n" * 600),
        ("tests/test_a.py", "\n" * 599 + "# no newline"),
        ("src/c/types/fd.h", f'/*\n#include "calls/send.h"\n*/\n{FD}'),
        ("src/c/types/fd.h", f'// \\\n#include "calls/send.h"\n{FD}'),
        ("src/c/types/fd.h", f'static const char no[] = "/*";\n{FD}static int no2 = "*/";\n'),
        ("src/c/types/fd.h", f'static const char no[] = "cmsgx._cmsg";\n{FD}'),
        ("src/c/plain/walk.h", "#include <sys/socket.h>\n#include <string.h>\n"),
    ],
)  # fmt: skip
def test_what_breaks_no_rule_is_not_found(path: str, text: str) -> None:
    assert found_in({**RIGHT, path: text}) == []


def test_a_file_that_cannot_be_read_as_c_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"src/c/types/fd\.c: its braces are not balanced"):
        check(RIGHT | {"src/c/types/fd.c": "int fd_of(int n)\n{\n"})


def test_sources_are_distinguished_from_other_files(tmp_path: Path) -> None:
    files = {
        "tools/a": "#!/usr/bin/env python3\n",
        "tools/b": "#!/bin/sh\n",
        "tests/data/c.csv": "",
        "src/c/d.h": "",
        "build/e.c": "",
        "src/cmsgx/f.pyi": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert set(TOOL["from_folder"](tmp_path)) == {"tools/a", "src/c/d.h"}
