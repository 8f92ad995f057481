"""User instructions for each message of the rows of run.py, counted by valgrind.

    python benchmarks/instructions.py [--rows PATTERN] [--how WORD,...] [--json FILE]
    python benchmarks/instructions.py --against COMMIT     # or a folder that has cmsgx in it

Counts what the Python that runs it has.  Time on a shared machine wanders by tenths, these numbers
by less than one part in a hundred; what the kernel does is not in them.  With --against the same
loops run with the cmsgx of that commit too, built in a temporary folder; exit status 1 where a row
takes more than --limit percent more than there.
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from fnmatch import fnmatch
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
MESSAGES = 1024  # that the long loop has more than the short one
# Where an object lies decides whether its name and another's meet in a cache or a table of
# Python's, by chance, which makes up to 3 % of a short row.  The least of so many tries counts.
LAYOUTS = 3
C = "plain C"
HOW = (C, "socket", "drop-in", "with", "for", "batch")  # plain C, and the runners of rows.py
OURS = HOW[2:]

Counts = dict[tuple[str, str], float]  # row, how: instructions for each message

# Under valgrind --------------------------------------------------------------------------------


def forked(body: Callable[[], None]) -> int:
    """The pid of a child that ran `body` and has ended; valgrind names its counts by the pid."""
    pid = os.fork()
    if pid:
        if os.waitpid(pid, 0)[1]:
            raise ChildProcessError(pid)
        return pid
    status = 1
    try:
        body()
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def inside(library: str, pattern: str, chosen: list[str], layout: int) -> None:
    """Prints a line for each row and way: messages, then the pids that did few, many and few.

    A child makes its own sockets, so that all start alike, and what differs is the length of the
    loop.  (Their common parent counts on meanwhile.  With a child of few messages before and after
    that cancels out.)
    """
    moved = [bytes(37 * i % 512) for i in range(101 * layout)]
    import ctypes

    import rows
    from run import compiled_loop, raise_descriptor_limit

    raise_descriptor_limit()
    floor = ctypes.CDLL(library)
    gc.collect()
    gc.freeze()
    gc.disable()
    assert len(moved) == 101 * layout
    for row in rows.all_rows(lambda name: int(floor.floor_constant(name.encode()))):
        if pattern not in row.name and not fnmatch(row.name, pattern):
            continue
        ways: dict[str, Any] = {
            C: lambda world, row=row: compiled_loop(floor, f"floor_{row.floor}", world),
            **row.runners,
        }
        for how in HOW:
            if how not in ways or how not in chosen:
                continue
            more = max(MESSAGES // row.messages, 8)

            def run(rounds: int, row: Any = row, make: Any = ways[how]) -> None:
                world = row.world()
                loop = make(world)
                loop(8)
                loop(rounds)

            try:
                few, many, few_again = [forked(partial(run, n)) for n in (8, 8 + more, 8)]
            except ChildProcessError:
                print(f"{row.name}, {how}: left out", file=sys.stderr, flush=True)
                continue
            messages = more * row.messages
            print(row.name, how, messages, few, many, few_again, sep="\t", flush=True)


# Outside ---------------------------------------------------------------------------------------


def counted(path: Path) -> int:
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("summary:"):
                path.unlink()
                return int(line.split()[1])
    raise ValueError(f"{path} has no summary")


class Valgrind:
    """One run of the rows, with the cmsgx that lies in `package`."""

    def __init__(
        self, package: Path, library: Path, pattern: str, chosen: list[str], layout: int
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=library.parent))
        # By a name as long as that of the other run: where things lie in memory depends on it.
        path = self.folder / "package"
        path.symlink_to(package)
        # -S: what site-packages has costs time at the start, and some .pth files start threads.
        # -E would ignore PYTHONHASHSEED, but nothing else is left of the environment.
        self.process = subprocess.Popen(
            [
                "valgrind", "--tool=cachegrind", "--cache-sim=no", "--read-inline-info=no",
                f"--cachegrind-out-file={self.folder}/%p", f"--log-file={self.folder}/log",
                sys.executable, "-S", "-s", "-B",
                str(HERE / "instructions.py"), "--inside", str(library),
                "--rows", pattern, "--how", ",".join(chosen), "--layout", str(layout),
            ],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "LANG": "C.UTF-8",
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": str(path),
            },
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip

    def counts(self) -> Iterator[tuple[str, str, float]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            row, how, messages, *pids = line.rstrip("\n").split("\t")
            few, many, few_again = (counted(self.folder / pid) for pid in pids)
            yield row, how, (many - (few + few_again) / 2) / int(messages)
        if self.process.wait():
            log = (self.folder / "log").read_text(encoding="utf-8", errors="replace")
            raise SystemExit(f"{log}valgrind ended with status {self.process.returncode}")


def build(commit: str, folder: Path) -> Path:
    """A folder that has the cmsgx of that commit; a folder that has one is taken as it is."""
    if (Path(commit) / "cmsgx").is_dir():
        return Path(commit).resolve()
    source, package = folder / "source", folder / "package"
    source.mkdir()
    archive = subprocess.run(
        ["git", "-C", str(PROJECT), "archive", commit], stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive.stdout, check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--target", str(package), str(source)], check=True)
    return package


def tell(row: str, how: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{row + ', ' + how:60}", end="", file=sys.stderr, flush=True)


def as_table(counts: Counts) -> list[list[str]]:
    shown = [how for how in HOW if any(how == other for _, other in counts)]
    table = [["row", *shown]]
    for row in dict.fromkeys(name for name, _ in counts):
        numbers = (counts.get((row, how)) for how in shown)
        table.append([row, *("-" if n is None else f"{n:,.0f}" for n in numbers)])
    return table


def as_comparison(here: Counts, there: Counts, name: str, limit: float) -> list[list[str]]:
    """The last word of a line is empty where all is well."""
    table = [["row", "how", name, "here", "ratio", ""]]
    for row, how in dict.fromkeys((*here, *there)):
        now, before = here.get((row, how)), there.get((row, how))
        ratio = now / before if now and before else None
        word = "MORE" if ratio and ratio > 1 + limit / 100 else "" if now else "MISSING"
        numbers = ("-" if n is None else f"{n:,.0f}" for n in (before, now))
        table.append([row, how, *numbers, "-" if ratio is None else f"{ratio:.3f}", word])
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", metavar="PATTERN", default="*", help="a part of a name or a glob")
    parser.add_argument("--how", metavar="WORD,...", help=f"of: {', '.join(HOW)}")
    parser.add_argument(
        "--against", metavar="COMMIT", help="compares with that; a folder with cmsgx will do, too"
    )
    parser.add_argument("--limit", metavar="PERCENT", type=float, default=3, help="default: 3")
    parser.add_argument("--json", metavar="FILE", help="writes the numbers too")
    parser.add_argument("--inside", metavar="LIBRARY", help=argparse.SUPPRESS)
    parser.add_argument("--layout", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    chosen = options.how.split(",") if options.how else list(OURS if options.against else HOW)
    if wrong := [word for word in chosen if word not in HOW]:
        parser.error(f"--how: {wrong[0]!r} is not one of {', '.join(HOW)}")
    if options.inside:
        inside(options.inside, options.rows, chosen, options.layout)
        return 0

    if not shutil.which("valgrind"):
        parser.error("valgrind is needed, and is not installed (Debian: apt-get install valgrind)")
    found = find_spec("cmsgx")
    if found is None or found.origin is None:
        parser.error(f"{sys.executable} has no cmsgx")
    from run import as_text, build_floor, machine

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_floor(name)
        library = folder / "floor.so"
        packages = [Path(found.origin).parent.parent]
        if options.against:
            packages.append(build(options.against, folder))
        results: list[Counts] = [{} for _ in packages]
        for layout in range(LAYOUTS):
            runs = [Valgrind(one, library, options.rows, chosen, layout) for one in packages]
            try:
                for run, counts in zip(runs, results, strict=True):
                    for row, how, count in run.counts():
                        counts[row, how] = min(count, counts.get((row, how), count))
                        tell(row, how)
            finally:
                for run in runs:
                    with suppress(ProcessLookupError):
                        run.process.kill()
                    run.process.wait()
        if sys.stderr.isatty():
            print(f"\r{'':60}\r", end="", file=sys.stderr, flush=True)
    if not results[0]:
        parser.error(f"no row matches {options.rows!r}")

    print(f"python: {machine()['python']}\nuser instructions for each message\n")
    is_well = True
    if options.against:
        here, there = results
        table = as_comparison(here, there, options.against, options.limit)
        print(as_text(table))
        words = [line[-1] for line in table[1:]]
        is_well = not any(words)
        print(f"\n{words.count('MORE')} of {len(words)} rose by more than {options.limit:g} %")
    else:
        print(as_text(as_table(results[0])))
    if options.json:
        names = ["here", options.against][: len(results)]
        numbers = {
            name: {f"{row}, {how}": count for (row, how), count in counts.items()}
            for name, counts in zip(names, results, strict=True)
        }
        Path(options.json).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    return int(not is_well)


if __name__ == "__main__":
    sys.exit(main())
