"""What is shipped: the files in the sdist, and in the wheel that is built from it."""

from __future__ import annotations

import email
import email.message
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from checkout import checkout

import cmsgx

pytestmark = pytest.mark.slow

VERSION = cmsgx.__version__
EXTENSION = "cmsgx/_cmsg" + str(sysconfig.get_config_var("EXT_SUFFIX"))
# Files that building, testing and checking create, and files that belong to version control.
NOT_SOURCES = (
    ".git", ".gitattributes", ".github", ".gitignore", ".venv*", ".*_cache", "__pycache__",
    "*.py[cod]", "*.so", "*.egg-info", "*.gcda", "*.gcno", "build", "dist", ".coverage*",
    ".hypothesis",
)  # fmt: skip
AT_THE_TOP = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md", "SECURITY.md",
    "pyproject.toml", "setup.py",
}  # fmt: skip
FOLDERS = {".ci", "benchmarks", "docs", "examples", "src", "tests", "tools"}


class Built(NamedTuple):
    sources: Path
    sdist: set[str]
    wheel: set[str]
    wheel_path: Path
    metadata: email.message.Message


def build(command: str, source: Path, out: Path) -> Path:
    """Runs one hook of the build backend, as pip does."""
    code = f"import sys; from setuptools import build_meta as b; b.{command}(sys.argv[1])"
    # A plain build, without the sanitizers of this one, and without optimisation, because only
    # names matter here.
    plain = {
        name: value
        for name, value in os.environ.items()
        if name != "LD_PRELOAD" and not name.startswith("CMSGX_")
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(out)],
        cwd=source, capture_output=True, text=True, check=False, timeout=600,
        env={**plain, "CFLAGS": plain.get("CFLAGS", "") + " -O0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.iterdir()
    return path


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def needs_backend(root: Path) -> None:
    with open(root / "pyproject.toml", "rb") as file:
        [requirement] = tomllib.load(file)["build-system"]["requires"]
    least = int(re.fullmatch(r"setuptools>=(\d+)", requirement)[1])  # type: ignore[index]
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip(f"{requirement} is not installed: it comes with the extra `test`")
    found = importlib.metadata.version("setuptools")
    if int(found.partition(".")[0]) < least:
        pytest.skip(f"setuptools {found} is installed, {requirement} comes with the extra `test`")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = checkout()
    needs_backend(root)
    work = tmp_path_factory.mktemp("packaging")
    sources = work / "sources"
    shutil.copytree(root, sources, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    for path in sources.iterdir():
        # Other files that happen to be there are not shipped.
        if path.name not in AT_THE_TOP | FOLDERS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    before = files_below(sources)

    (work / "sdist").mkdir()
    sdist = build("build_sdist", sources, work / "sdist")
    assert sdist.name == f"cmsgx-{VERSION}.tar.gz"
    with tarfile.open(sdist) as archive:
        # Python 3.11 before 3.11.4 has no filters, and extractall() has no argument for them.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(work / "unpacked")
    [unpacked] = (work / "unpacked").iterdir()
    assert unpacked.name == f"cmsgx-{VERSION}"
    in_sdist = files_below(unpacked)

    (work / "wheel").mkdir()
    wheel = build("build_wheel", unpacked, work / "wheel")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = archive.read(f"cmsgx-{VERSION}.dist-info/METADATA").decode()
    for made in files_below(sources) - before:
        (sources / made).unlink()
    return Built(sources, in_sdist, in_wheel, wheel, email.message_from_string(metadata))


def difference(found: Iterable[str], expected: Iterable[str]) -> dict[str, list[str]]:
    return {
        "missing": sorted(set(expected) - set(found)),
        "surplus": sorted(set(found) - set(expected)),
    }


NONE: dict[str, list[str]] = {"missing": [], "surplus": []}


def test_files_of_the_sdist(built: Built) -> None:
    made = {
        "PKG-INFO",
        "setup.cfg",
        *(
            f"src/cmsgx.egg-info/{name}"
            for name in (
                "PKG-INFO", "SOURCES.txt", "dependency_links.txt", "entry_points.txt",
                "requires.txt", "top_level.txt",
            )
        ),
    }  # fmt: skip
    assert difference(built.sdist, files_below(built.sources) | made) == NONE


def test_lines_end_in_lf_alone(built: Built) -> None:
    # .gitattributes ensures it on a commit; for a file that is shipped uncommitted nothing else
    # does.
    files = [built.sources / name for name in files_below(built.sources)]
    assert [path for path in files if b"\r\n" in path.read_bytes()] == []


def test_the_sdist_has_what_it_is_for(built: Built) -> None:
    # The tree that the test above compares with contains such files itself.
    assert built.sdist >= AT_THE_TOP | {
        "src/_cmsgmodule.c", "src/c/plain/walk.c", "src/c/plain/walk.h", "src/c/compat.h",
        "src/cmsgx/py.typed", "src/cmsgx/_cmsg.pyi", "tests/conftest.py", "tests/c/shim.c",
        "docs/reference.md", "examples/pass_one.py", "benchmarks/floor.c", "tools/suite", ".ci/run",
    }  # fmt: skip


def test_files_of_the_wheel(built: Built) -> None:
    package = built.sources / "src" / "cmsgx"
    modules = {f"cmsgx/{path}" for path in files_below(package) if path.endswith(".py")}
    info = f"cmsgx-{VERSION}.dist-info"
    expected = {
        *modules,
        "cmsgx/py.typed",
        "cmsgx/_cmsg.pyi",
        EXTENSION,
        *(
            f"{info}/{name}"
            for name in (
                "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
                "top_level.txt",
            )
        ),
    }  # fmt: skip
    assert difference(built.wheel, expected) == NONE


def test_the_wheel_has_what_it_is_for(built: Built) -> None:
    modules = (
        "__init__", "__main__", "_cli/__init__", "_cli/demo", "_drop_in", "_fds", "_options",
        "_peer", "_sync", "_version", "errors", "kinds/__init__", "kinds/_base", "wire",
    )  # fmt: skip
    assert built.wheel >= {f"cmsgx/{name}.py" for name in modules}
    assert [name for name in built.wheel if name.endswith((".c", ".h"))] == []


def test_the_wheel_is_of_this_interpreter(built: Built) -> None:
    free_threaded = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
    debug = "d" if sysconfig.get_config_var("Py_DEBUG") else ""
    python = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    tag = f"{python}-{python}{free_threaded}{debug}-linux_"
    assert built.wheel_path.name.startswith(f"cmsgx-{VERSION}-{tag}")


def test_what_was_built_in_another_way_is_not_used_again(built: Built) -> None:
    """As with sanitizers: a plain build afterwards is a plain one, and the next one changes
    nothing."""

    def build_once(**switches: str) -> Path:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("CMSGX_")}
        subprocess.run(
            [sys.executable, "-W", "ignore", "setup.py", "-q", "build"],
            cwd=built.sources, env={**environment, "CFLAGS": "-O0", **switches},
            check=True, capture_output=True, timeout=600,
        )  # fmt: skip
        [made] = (built.sources / "build").glob(f"lib*/{EXTENSION}")
        return made

    try:
        assert b"__gcov_" in build_once(CMSGX_COVERAGE="1").read_bytes()
        plain = build_once()
        assert b"__gcov_" not in plain.read_bytes()
        before = plain.stat().st_mtime_ns
        assert build_once().stat().st_mtime_ns == before
        assert b"__gcov_" in build_once(CMSGX_COVERAGE="1").read_bytes()
    finally:
        shutil.rmtree(built.sources / "build", ignore_errors=True)


def test_the_wheel_works(built: Built, tmp_path: Path) -> None:
    with zipfile.ZipFile(built.wheel_path) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import cmsgx\n"
        "assert cmsgx.__file__.startswith(sys.argv[1])\n"
        "left, right = cmsgx.socketpair()\n"
        "cmsgx.send(left, b'1', fds=[0])\n"
        "print(cmsgx.__version__, len(cmsgx.receive(right, 1, fds=1).fds))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"{VERSION} 1\n", done.stderr


def test_metadata(built: Built) -> None:
    metadata = built.metadata
    assert metadata["Name"] == "cmsgx"
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in (metadata.get_all("Classifier") or [])
    readme = (built.sources / "README.md").read_text()
    assert str(metadata.get_payload()).strip() == readme.strip()


def test_it_requires_nothing(built: Built) -> None:
    required = built.metadata.get_all("Requires-Dist") or []
    assert [one for one in required if "extra ==" not in one] == []


def test_the_command(built: Built) -> None:
    with zipfile.ZipFile(built.wheel_path) as archive:
        text = archive.read(f"cmsgx-{VERSION}.dist-info/entry_points.txt").decode()
    assert text.split() == ["[console_scripts]", "cmsgx", "=", "cmsgx.__main__:main"]


def test_the_version_is_in_one_place() -> None:
    root = checkout()
    files = [root / "pyproject.toml", root / "setup.py", *(root / "src").rglob("*.[chp]*")]
    sources = [path for path in files if path.suffix in (".toml", ".py", ".pyi", ".c", ".h")]
    found = [path.name for path in sources if re.search(rf'["\']{VERSION}["\']', path.read_text())]
    assert found == ["_version.py"]


def test_the_changelog_begins_with_this_version() -> None:
    text = (checkout() / "CHANGELOG.md").read_text()
    found = re.search(r"^## \[(.*?)\] - (\d{4}-\d\d-\d\d|Unreleased)$", text, re.MULTILINE)
    assert found is not None
    assert found[1] == VERSION


def test_the_installed_version_is_that() -> None:
    assert importlib.metadata.version("cmsgx") == VERSION
