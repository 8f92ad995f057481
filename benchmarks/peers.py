"""The same work by what other languages have: golang.org/x/sys/unix and Rust's nix.

Each is built as a library with a C function, so that it runs in this process and takes turns with
plain C as the others do. Both are there where their toolchain is, and the sources as Debian
packages them: golang-go and golang-golang-x-sys-dev, cargo and librust-nix-dev.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent / "peers"
GO_SOURCES = Path("/usr/share/gocode")
RUST_SOURCES = Path("/usr/share/cargo/registry")

XSYS, NIX = "x/sys", "nix"


def build_xsys(folder: Path) -> Path:
    library = folder / "xsys.so"
    subprocess.run(
        ["go", "build", "-buildmode=c-shared", "-o", library, HERE / "rights.go"],
        env={
            **os.environ,
            "GO111MODULE": "off",
            "GOPATH": str(GO_SOURCES),
            "GOCACHE": str(folder / "go-cache"),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return library


def build_nix(folder: Path) -> Path:
    project = folder / "nix"
    shutil.copytree(HERE / "nix", project)
    settings = project / ".cargo" / "config.toml"
    settings.parent.mkdir()
    settings.write_text(
        '[source.crates-io]\nreplace-with = "debian"\n'
        f'[source.debian]\ndirectory = "{RUST_SOURCES}"\n'
    )
    subprocess.run(
        ["cargo", "build", "--release", "--offline"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    return project / "target" / "release" / "librights.so"


def build_peers(folder: Path) -> dict[str, Path]:
    """The libraries, by name; on standard error why one is not there."""
    recipes: list[tuple[str, str, Path, Callable[[Path], Path]]] = [
        (XSYS, "go", GO_SOURCES / "src/golang.org/x/sys/unix", build_xsys),
        (NIX, "cargo", RUST_SOURCES, build_nix),
    ]
    built = {}
    for name, tool, sources, build in recipes:
        if shutil.which(tool) is None or not sources.exists():
            missing = sources if shutil.which(tool) else tool
            print(f"{name}: left out: there is no {missing}", file=sys.stderr)
            continue
        try:
            built[name] = build(folder)
        except subprocess.CalledProcessError as error:
            print(f"{name}: left out, it cannot be built:\n{error.stderr}", file=sys.stderr)
    return built
