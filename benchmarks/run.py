"""Plain C, `socket` and cmsgx at the same work, in turn, in one run.

    python benchmarks/run.py [--rows PATTERN] [--quick] [--markdown] [--json FILE] [--publish]

Runs with any Python that has cmsgx (or not: then only C and `socket` are measured), and needs a C
compiler.  Where Go or Rust are, what they have is measured too: peers.py.  README.md beside this
file says how to read the table.
"""

import argparse
import ctypes
import errno
import json
import math
import os
import platform
import random
import resource
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import chart
from peers import NIX, XSYS, build_peers
from rows import all_rows
from worlds import BATCH, DROPIN, FOR, SOCKET, WITH, Loop, Row, World, cmsgx

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
CHUNK = 2_500_000  # ns that one implementation runs before the next has its turn
ROUNDS = 50
QUICK_ROUNDS = 12
ENOUGH = 5  # pairs without a context switch, below which no ratio is shown
PATIENCE = 4  # times the rounds, at most, where context switches spoil them
MAX_FDS = 253
RUNNERS = {
    SOCKET: "socket/C",
    XSYS: "x/sys/C",
    NIX: "nix/C",
    DROPIN: "drop-in/C",
    WITH: "typed with/C",
    FOR: "typed for/C",
    BATCH: "batch/C",
}


# The floor --------------------------------------------------------------------------------------


class Job(ctypes.Structure):
    _fields_ = (
        ("tx", ctypes.c_int),
        ("rx", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("fd_count", ctypes.c_int),
        ("size", ctypes.c_size_t),
        ("fds", ctypes.c_int * MAX_FDS),
    )


def compiler() -> list[str]:
    return shlex.split(os.environ.get("CC", "cc"))


def build_floor(folder: str) -> ctypes.CDLL:
    library = f"{folder}/floor.so"
    command = [*compiler(), "-O2", "-std=gnu11", "-Wall", "-shared", "-fPIC"]
    subprocess.run([*command, "-o", library, str(HERE / "floor.c")], check=True)
    return ctypes.CDLL(library)


def compiled_loop(library: ctypes.CDLL, name: str, world: World) -> Loop:
    function = library[name]
    function.argtypes = (ctypes.POINTER(Job), ctypes.c_long)
    job = Job(
        tx=world.tx.fileno(),
        rx=world.rx.fileno(),
        flags=0 if world.timeout is None else socket.MSG_DONTWAIT,
        fd_count=len(world.fds),
        size=world.size,
        fds=(ctypes.c_int * MAX_FDS)(*world.fds),
    )
    pointer = ctypes.pointer(job)

    def loop(rounds: int) -> None:
        error = function(pointer, rounds)
        if error:
            raise OSError(error, f"{name}: {errno.errorcode.get(error, error)}")

    return loop


# Measuring --------------------------------------------------------------------------------------


class Runner:
    """One implementation of a row, run in chunks of equal time."""

    def __init__(self, loop: Loop, world: World) -> None:
        self.loop = loop
        self.world = world
        self.rounds = 1
        self.chunk()
        while (took := self.chunk()[0] * self.rounds) < CHUNK / 4:
            self.rounds *= 2
        self.rounds = max(1, round(self.rounds * CHUNK / took))

    def chunk(self) -> tuple[float, bool]:
        """ns for each round, and whether nothing else had the processor meanwhile."""
        loop, rounds, clock, usage = self.loop, self.rounds, time.perf_counter_ns, getrusage
        before = usage().ru_nivcsw
        start = clock()
        loop(rounds)
        end = clock()
        return (end - start) / rounds, usage().ru_nivcsw == before


class Stirrer:
    """Moves the boundaries of the memory pools before each round.

    At an unlucky fill each message crosses one both ways until something else moves it, seconds
    later: the kernel counts socket buffers by the page (300 ns, for C too) and gives an empty slab
    back, Python an empty arena (microseconds). So each round leaves other messages in a queue, and
    other objects in the heap.
    """

    def __init__(self) -> None:
        self.tx, self.rx = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.rx.setblocking(False)
        self.random = random.Random(1)
        self.held: list[bytes] = []

    def stir(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.rx.recv(1)
        size = self.random.randrange
        for _ in range(size(1, 8)):
            self.tx.send(bytes(size(1, 3500)))
        self.held = [bytes(size(1, 1500)) for _ in range(size(1, 1000))]

    def close(self) -> None:
        self.tx.close()
        self.rx.close()


def getrusage() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_THREAD)


@dataclass
class Result:
    row: Row
    floor_ns: float = 0.0
    ratios: dict[str, list[float]] = field(default_factory=dict)  # runner: x plain C, each pair
    faster: list[float] = field(default_factory=list)  # socket against the drop-in or the batch
    noise: list[float] = field(default_factory=list)  # C against C
    spoilt: int = 0  # pairs dropped for a context switch

    def ratio(self, runner: str) -> float | None:
        return median(self.ratios.get(runner, []))

    def times_faster(self) -> float | None:
        return median(self.faster)


def median(values: list[float]) -> float | None:
    """None where context switches left too few to say anything."""
    return statistics.median(values) if len(values) >= ENOUGH else None


def measure(row: Row, library: ctypes.CDLL, peers: dict[str, ctypes.CDLL], rounds: int) -> Result:
    result = Result(row)
    worlds: list[World] = []
    row.world().close()  # opens what all share
    open_before = len(os.listdir("/proc/self/fd"))

    def runner(make: Callable[[World], Loop]) -> Runner:
        worlds.append(row.world())
        return Runner(make(worlds[-1]), worlds[-1])

    has_cmsgx = cmsgx is not None and row.is_there()
    floor = runner(lambda world: compiled_loop(library, f"floor_{row.floor}", world))
    runners: dict[str, Runner] = {}
    for name, peer in peers.items() if row.peer else ():
        runners[name] = runner(partial(compiled_loop, peer, f"peer_{row.peer}"))
    for name, make in row.runners.items():
        if name != SOCKET and not has_cmsgx:
            continue
        try:
            runners[name] = runner(make)
        except AttributeError as error:
            print(f"{row.name}, {name}: left out, {error}", file=sys.stderr)
    result.ratios = {name: [] for name in runners}

    floors: list[float] = []
    stirrer = Stirrer()
    for _ in range(PATIENCE * rounds):
        this_round = {}
        stirrer.stir()
        last, last_is_clean = floor.chunk()
        for name, one in runners.items():
            took, is_clean = one.chunk()
            after, after_is_clean = floor.chunk()
            if is_clean and last_is_clean and after_is_clean:
                this_round[name] = 2 * took / (last + after)
                result.ratios[name].append(this_round[name])
                result.noise.append(after / last)
                floors.append(after)
            else:
                result.spoilt += 1
            last, last_is_clean = after, after_is_clean
        ours = next((one for one in (DROPIN, BATCH, FOR) if one in this_round), None)
        if SOCKET in this_round and ours:
            result.faster.append(this_round[SOCKET] / this_round[ours])
        if min(map(len, result.ratios.values())) >= rounds and (
            SOCKET not in runners or len(runners) == 1 or len(result.faster) >= rounds
        ):
            break
    result.floor_ns = statistics.median(floors) if floors else float("nan")

    stirrer.close()
    for world in worlds:
        if not world.is_drained():
            raise AssertionError(f"{row.name}: data was left in a socket")
        world.close()
    del floor, runners
    if len(os.listdir("/proc/self/fd")) != open_before:
        raise AssertionError(f"{row.name}: descriptors were leaked")
    return result


# The table --------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    model = platform.processor() or platform.machine()
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    version = subprocess.run(
        [*compiler(), "--version"], capture_output=True, text=True, check=True
    ).stdout.splitlines()[0]
    return {
        "machine": f"{model}, {os.cpu_count()} CPUs, {platform.machine()}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}, "
        f"GIL {'on' if has_gil else 'off'}",
        "compiler": version,
        "cmsgx": getattr(cmsgx, "__version__", "?") if cmsgx is not None else "not installed",
    }


def reached(result: Result) -> dict[str, bool]:
    """The bars of the row, by runner ("faster" for that one), and whether they were reached."""
    bars = {}
    for name, bar in result.row.at_most.items():
        ratio = result.ratio(name)
        if ratio is not None:
            bars[name] = round(ratio, 2) <= bar
    times = result.times_faster()
    if times is not None and result.row.faster is not None:
        bars["faster"] = round(times, 2) >= result.row.faster
    return bars


def cell(value: float | None, relation: str, bar: float | None, is_reached: bool) -> str:
    if value is None:
        return "-"
    if bar is None:
        return f"{value:.2f}"
    return f"{value:.2f} ({relation}{bar:.2f} {'ok' if is_reached else 'MISSED'})"


def header(shown: list[str]) -> list[str]:
    return ["row", "plain C, ns", "C/C", *(RUNNERS[name] for name in shown), "socket/cmsgx"]


def cells(result: Result, shown: list[str]) -> list[str]:
    bars = reached(result)
    row = result.row
    line = [row.name, "-" if math.isnan(result.floor_ns) else f"{result.floor_ns:,.0f}"]
    if len(result.noise) >= ENOUGH:
        low, middle, high = statistics.quantiles(result.noise, n=4)
        line.append(f"{middle:.2f} ±{(high - low) / 2:.2f}")
    else:
        line.append("-")
    return [
        *line,
        *(
            cell(result.ratio(name), "≤", row.at_most.get(name), bars.get(name, False))
            for name in shown
        ),
        cell(result.times_faster(), "≥", row.faster, bars.get("faster", False)),
    ]


def as_markdown(table: list[list[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in table]
    lines.insert(1, "|---|" + "---:|" * (len(table[0]) - 1))
    return "\n".join(lines)


def as_text(table: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = []
    for line in table:
        rest = (text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))
        lines.append("  ".join([line[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def publish(numbers: dict[str, Any], table: list[list[str]]) -> None:
    """Puts the table into the project's README, and the chart beside it."""
    for name, palette in chart.PALETTES.items():
        picture = PROJECT / "docs" / f"speed-{name}.svg"
        picture.write_text(chart.draw(numbers, palette), encoding="utf-8")
    readme = PROJECT / "README.md"
    about = ", ".join(numbers[what] for what in ("python", "kernel", "machine"))
    before, start, rest = readme.read_text(encoding="utf-8").partition("<!-- speed-table -->\n")
    _, end, after = rest.partition("<!-- /speed-table -->\n")
    if not start or not end:
        raise SystemExit(f"{readme} has no place for the table")
    shown = f"{about}.\n\n{as_markdown(table)}\n"
    readme.write_text(before + start + shown + end + after, encoding="utf-8")


def as_json(result: Result) -> dict[str, Any]:
    def spread(values: list[float]) -> dict[str, float] | None:
        if len(values) < 2:
            return None
        low, middle, high = statistics.quantiles(values, n=4)
        return {"median": middle, "lower_quartile": low, "upper_quartile": high, "n": len(values)}

    return {
        "row": result.row.name,
        "floor_ns": result.floor_ns,
        "noise": spread(result.noise),
        "to_c": {name: spread(values) for name, values in result.ratios.items()},
        "faster_than_socket": spread(result.faster),
        "bars": {
            **{name: {"at_most": bar} for name, bar in result.row.at_most.items()},
            **({} if result.row.faster is None else {"faster": {"at_least": result.row.faster}}),
        },
        "reached": reached(result),
        "spoilt_pairs": result.spoilt,
    }


def raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft != resource.RLIM_INFINITY and soft < enough:
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rows", metavar="PATTERN", default="*", help="a part of a name, or a glob"
    )
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds for each row")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--json", metavar="FILE", help="writes the numbers too, with quartiles")
    parser.add_argument(
        "--publish", action="store_true", help="the table into README.md, the chart into docs"
    )
    options = parser.parse_args()

    raise_descriptor_limit()
    with suppress(PermissionError):
        # So that others on the machine interrupt fewer chunks.
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    about = machine()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        library = build_floor(folder)
        peers = {name: ctypes.CDLL(str(path)) for name, path in build_peers(Path(folder)).items()}
        for peer in peers.values():
            peer.peer_rights(ctypes.byref(Job()), ctypes.c_long(0))  # waits until it is ready
        chosen = [
            row
            for row in all_rows(lambda name: int(library.floor_constant(name.encode())))
            if options.rows in row.name or fnmatch(row.name, options.rows)
        ]
        for row in chosen:
            if sys.stderr.isatty():
                print(f"\r{row.name:40}", end="", file=sys.stderr, flush=True)
            rounds = QUICK_ROUNDS if options.quick else ROUNDS
            results.append(measure(row, library, peers, rounds))
        if sys.stderr.isatty():
            print(f"\r{'':40}\r", end="", file=sys.stderr, flush=True)
    if not results:
        parser.error(f"no row matches {options.rows!r}")

    for name, value in about.items():
        print(f"{name}: {value}", end="  \n" if options.markdown else "\n")
    print()
    shown = [name for name in RUNNERS if any(name in result.ratios for result in results)]
    table = [header(shown), *(cells(result, shown) for result in results)]
    print(as_markdown(table) if options.markdown else as_text(table))
    bars = [is_reached for result in results for is_reached in reached(result).values()]
    spoilt = sum(result.spoilt for result in results)
    print(f"\n{sum(bars)} of {len(bars)} bars reached; {spoilt} pairs dropped (context switches)")
    numbers = {**about, "rows": [as_json(result) for result in results]}
    if options.publish:
        publish(numbers, table)
    if options.json:
        Path(options.json).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
