"""The same heart of the drop-in functions built twice, with the full API and with the limited API
of 3.11, against plain C, in turn, in one run.

    python benchmarks/abi/run.py [--rounds N] [--headers FOLDER] [--markdown]

Runs with any CPython that has its headers, and needs a C compiler; cmsgx itself is not needed.
The limited form is built with 3.11's headers where they are found. Measured as ../README.md says.
"""

import argparse
import importlib.util
import os
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from run import build_floor, compiler, floor_loop, getrusage, machine, median, show  # noqa: E402
from worlds import Loop, World, unix_pair  # noqa: E402

SOURCES = HERE.parents[1] / "src"
LIMITED = "-DPy_LIMITED_API=0x030b0000"

# `full again` is a copy of the same file: what two equal things differ by in this run.
FULL, AGAIN, ABI3, BY_NAME = "full", "full again", "abi3", "abi3, by name"
FORMS = {FULL: (), AGAIN: (), ABI3: (LIMITED,), BY_NAME: (LIMITED, "-DBY_NAME")}


# The forms --------------------------------------------------------------------------------------


def headers_of_3_11() -> str:
    """The folder with the Python.h of 3.11, or that of the running Python."""
    own = sysconfig.get_path("include")
    beside = Path(sys.base_prefix).parent.glob("3.11.*/include/python3.11")
    for folder in [*sorted(beside), Path("/usr/include/python3.11")]:
        if sys.version_info[:2] != (3, 11) and (folder / "Python.h").exists():
            return str(folder)
    return own


def build(folder: str, name: str, headers: str) -> Any:
    """The form `name`, compiled and imported."""
    place = Path(folder) / name.replace(" ", "-")
    place.mkdir()
    library = place / "heart.so"
    if name == AGAIN:
        shutil.copy(Path(folder) / FULL / "heart.so", library)
    else:
        flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG", "-Wall", "-fvisibility=hidden"]
        flags += [f"-I{SOURCES / 'c'}", f"-I{headers}"]
        sources = [str(HERE / "heart.c"), str(SOURCES / "c/plain/walk.c")]
        subprocess.run(
            [*compiler(), *flags, "-shared", "-fPIC", *FORMS[name], "-o", str(library), *sources],
            check=True,
        )
    loader = ExtensionFileLoader("heart", str(library))
    spec = importlib.util.spec_from_file_location("heart", library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


# The rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    name: str
    floor: str  # in ../floor.c
    world: Callable[[], World]
    make: Callable[[Any, World], Loop]


def receiving(room: int) -> Callable[[Any, World], Loop]:
    """A sendmsg(2) that is nearly plain C, and the recvmsg that is measured."""

    def make(heart: Any, world: World) -> Loop:
        tx, rx, data = world.tx.fileno(), world.rx, world.data
        put, receive = heart.put, heart.recvmsg
        assert put(tx, data) is None
        assert receive(rx, room) == (data, [], 0, None)

        def loop(rounds: int) -> None:
            for _ in range(rounds):
                put(tx, data)
                receive(rx, room)

        return loop

    return make


def as_a_method(heart: Any, world: World) -> Loop:
    class Patched(socket.socket):
        recvmsg = heart.method(heart.recvmsg)

    tx, data, put, size = world.tx.fileno(), world.data, heart.put, world.size
    rx = Patched(fileno=world.rx.detach())
    world.rx = rx
    assert put(tx, data) is None
    assert rx.recvmsg(size) == (data, [], 0, None)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            put(tx, data)
            rx.recvmsg(size)

    return loop


def descriptors(heart: Any, world: World) -> Loop:
    tx, rx, fds, count, data = world.tx, world.rx, world.fds, len(world.fds), [world.data]
    send, receive, close = heart.send_fds, heart.recv_fds, os.close
    assert send(tx, data, fds) == 1
    got = receive(rx, 1, count)
    assert (got[0], len(got[1]), got[2:]) == (world.data, count, (0, None)), got
    for fd in got[1]:
        close(fd)

    def loop(rounds: int) -> None:
        for _ in range(rounds):
            send(tx, data, fds)
            for fd in receive(rx, 1, count)[1]:
                close(fd)

    return loop


KIB = 1024
ROWS = [
    Row("64 KiB received", "plain", lambda: World(unix_pair(), size=64 * KIB), receiving(64 * KIB)),
    Row("1 KiB into 64 KiB", "plain", lambda: World(unix_pair(), size=KIB), receiving(64 * KIB)),
    Row("48 KiB into 64", "plain", lambda: World(unix_pair(), size=48 * KIB), receiving(64 * KIB)),
    Row("1 KiB received", "plain", lambda: World(unix_pair(), size=KIB), receiving(KIB)),
    Row("the same, as a method", "plain", lambda: World(unix_pair(), size=KIB), as_a_method),
    Row("1 descriptor", "rights", lambda: World(unix_pair(), fds=1), descriptors),
    Row(
        "1 descriptor, timeout",
        "rights",
        lambda: World(unix_pair(), fds=1, timeout=5),
        descriptors,
    ),
]


# Measuring --------------------------------------------------------------------------------------

CHUNK = 700_000  # ns: shorter than in ../run.py, for machines that are shared
PATIENCE = 30.0  # s for each row, where context switches spoil it


class Runner:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.rounds = 100
        fastest = min(self.chunk()[0] for _ in range(20))
        self.rounds = max(1, round(CHUNK / fastest))

    def chunk(self) -> tuple[float, bool]:
        """ns for each round, and whether nothing else had the processor meanwhile."""
        loop, rounds, clock, usage = self.loop, self.rounds, time.perf_counter_ns, getrusage
        before = usage().ru_nivcsw
        start = clock()
        loop(rounds)
        end = clock()
        return (end - start) / rounds, usage().ru_nivcsw == before


@dataclass
class Result:
    row: Row
    floors: list[float] = field(default_factory=list)
    to_c: dict[str, list[float]] = field(default_factory=dict)
    to_full: dict[str, list[float]] = field(default_factory=dict)
    spoilt: int = 0


def measure(row: Row, library: Any, hearts: dict[str, Any], rounds: int) -> Result:
    result = Result(row, to_c={name: [] for name in hearts}, to_full={name: [] for name in hearts})
    worlds = {name: row.world() for name in ("C", *hearts)}
    floor = Runner(floor_loop(library, row.floor, worlds["C"]))
    runners = {name: Runner(row.make(heart, worlds[name])) for name, heart in hearts.items()}
    names = list(runners)
    last, last_is_clean = floor.chunk()
    end = time.monotonic() + PATIENCE
    number = 0
    while min(map(len, result.to_full.values())) < rounds and time.monotonic() < end:
        ratios = {}
        number += 1
        # Another one begins each time, so that what follows what makes no difference.
        for name in names[number % len(names) :] + names[: number % len(names)]:
            took, is_clean = runners[name].chunk()
            after, after_is_clean = floor.chunk()
            if is_clean and last_is_clean and after_is_clean:
                ratios[name] = 2 * took / (last + after)
                result.to_c[name].append(ratios[name])
                result.floors.append(after)
            else:
                result.spoilt += 1
            last, last_is_clean = after, after_is_clean
        if FULL in ratios:
            for name, ratio in ratios.items():
                result.to_full[name].append(ratio / ratios[FULL])
    for world in worlds.values():
        assert world.is_drained(), row.name
        world.close()
    return result


def cells(result: Result) -> list[str]:
    def ratio(values: list[float]) -> str:
        middle = median(values)
        return "-" if middle is None else f"{middle:.3f}"

    others = [name for name in FORMS if name != FULL]
    floor = f"{statistics.median(result.floors):,.0f}" if result.floors else "-"
    return [
        result.row.name,
        floor,
        *(ratio(result.to_c[name]) for name in (FULL, ABI3)),
        *(ratio(result.to_full[name]) for name in others),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=150, help="pairs for each row")
    parser.add_argument("--headers", default=headers_of_3_11(), help="for the limited form")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    options = parser.parse_args()

    with suppress(OSError):  # not root
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    with tempfile.TemporaryDirectory() as folder:
        library = build_floor(folder)
        own = sysconfig.get_path("include")
        hearts = {
            name: build(folder, name, options.headers if LIMITED in flags else own)
            for name, flags in FORMS.items()
        }
        results = [measure(row, library, hearts, options.rounds) for row in ROWS]
    for name, value in machine().items():
        print(f"{name}: {value}")
    print(f"limited form: headers of {options.headers}\n")
    header = ["row", "plain C, ns", "full/C", "abi3/C"]
    header += [f"{name}/full" for name in FORMS if name != FULL]
    show([header, *map(cells, results)], options.markdown)
    kept = min(len(ratios) for result in results for ratios in result.to_full.values())
    spoilt = sum(result.spoilt for result in results)
    print(f"\n{kept} pairs or more for each; {spoilt} dropped (context switches)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
