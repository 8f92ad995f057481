"""How the rows of run.py scale with threads, each with sockets of its own.

    python benchmarks/threads.py [--threads N] [--rows PATTERN]

Meant for a free-threaded Python: with the GIL, one thread's work after a system call waits for the
other's. Exit status 1 where such a Python misses a bar. Prints how many times the work of one
thread N threads do in the same time, by cmsgx and, where its function keeps nothing between
threads, by plain C: the kernel has locks of its own, as that of the descriptor table.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from fnmatch import fnmatch

import rows
from run import as_text, build_floor, cell, compiled_loop, machine, raise_descriptor_limit
from worlds import BATCH, DROPIN, WITH, Loop, Row, World

SECONDS = 0.1  # that one measurement takes
PAIRS = 15
# Of two threads.
AT_LEAST = {
    ("64 datagrams, a view of each", BATCH): 1.6,
    ("64 datagrams, stamp + info of each", BATCH): 1.6,
}
# Those of floor.c that work in memory of their own.
SCALES_IN_C = ("plain", "rights", "credentials", "datagram", "each_rights")


def run_together(loops: list[Loop], rounds: int) -> float:
    """Seconds from when all could start until the last was done."""
    start = threading.Barrier(len(loops) + 1)

    def body(loop: Loop) -> None:
        start.wait()
        loop(rounds)

    threads = [threading.Thread(target=body, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    start.wait()
    before = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - before


def scaling(row: Row, make: Callable[[World], Loop], count: int) -> tuple[float, float]:
    """ns for a round of one thread, and how much more `count` of them do in that time."""
    worlds = [row.world() for _ in range(count)]
    loops = [make(world) for world in worlds]
    rounds = 16
    while run_together(loops[:1], rounds) < SECONDS / 2:
        rounds *= 2
    alone, ratios = [], []
    for _ in range(PAIRS):
        one = run_together(loops[:1], rounds)
        ratios.append(count * one / run_together(loops, rounds))
        alone.append(one / rounds * 1e9)
    del loops
    for world in worlds:
        world.close()
    return statistics.median(alone), statistics.median(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--rows", metavar="PATTERN", default="*")
    options = parser.parse_args()
    raise_descriptor_limit()
    for name, value in machine().items():
        print(f"{name}: {value}")
    has_missed = False
    table = [["row", "how", "one thread, ns", f"{options.threads} threads", "plain C"]]
    with tempfile.TemporaryDirectory() as folder:
        library = build_floor(folder)
        for row in rows.all_rows(lambda name: int(library.floor_constant(name.encode()))):
            if options.rows not in row.name and not fnmatch(row.name, options.rows):
                continue
            in_c = "-"
            if row.floor in SCALES_IN_C:

                def floor(world: World, name: str = f"floor_{row.floor}") -> Loop:
                    return compiled_loop(library, name, world)

                in_c = f"{scaling(row, floor, options.threads)[1]:.2f}"
            for how in (DROPIN, WITH, BATCH):
                if how in row.runners:
                    alone, times = scaling(row, row.runners[how], options.threads)
                    bar = AT_LEAST.get((row.name, how)) if options.threads == 2 else None
                    is_reached = bar is None or round(times, 2) >= bar
                    has_missed |= not is_reached
                    shown = cell(times, "≥", bar, is_reached)
                    table.append([row.name, how, f"{alone:,.0f}", shown, in_c])
    print()
    print(as_text(table))
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    return int(has_missed and not has_gil)


if __name__ == "__main__":
    sys.exit(main())
