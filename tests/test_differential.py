"""Random calls through `socket` and through cmsgx, on twin sets of sockets, must give the same
results.

Also a command:

    python tests/test_differential.py [CALLS [SEED]]

Each call is a line of Python, evaluated once for each twin: with `socket`'s own methods, and with
cmsgx as functions, as methods of cmsgx.socket, or under install().  Compared are the result, the
class and errno of an exception, the contents of the buffers, the files that were received and
whether they are close-on-exec, and the number of open descriptors.  A difference is printed as the
shortest list of calls that shows it.

The results may differ only where docs/design.md promises something else; class Stock of twins.py
and run() implement these differences:

- with a timeout cmsgx tries first and then waits, `socket` waits first; and no try of cmsgx blocks,
  even if somebody made the descriptor blocking;
- send_fds honours flags and address, and accepts objects with fileno(); recv_fds honours its flags;
- a host name is not an address for a socket that is given as a number;
- the control buffer of recv_fds has space for what the socket's options add, and recv_fds never
  returns more than maxfds;
- with musl `socket` sends at most 1 KiB of control data, and neither sends nor sees a last message
  without a payload;
- types with a method of their own, and families that C does not know, are served by the method of
  the type: everything is then as with `socket`, except the control buffer size of recv_fds.
"""

from __future__ import annotations

import _socket
import array
import contextlib
import fcntl
import os
import random
import re
import select
import shutil
import socket
import sys
import tempfile
import termios
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
from random_calls import Author
from support import lengths
from twins import (
    APIS,
    CALLED,
    IS_MUSL,
    KINDS,
    MUSL_REFUSES,
    OPTIONS,
    SO_TIMESTAMP,
    Index,
    Mismatch,
    Ours,
    Parted,
    Setup,
    Stock,
    make_sockets,
    open_descriptors,
)

import cmsgx

CALLS = int(os.environ.get("CMSGX_FUZZ_CALLS", "20000"))
SEED = int(os.environ.get("CMSGX_FUZZ_SEED", "1"))
STEPS = 40  # calls on one set of sockets


# Running them.


class World:
    """A set of twins."""

    def __init__(self, setup: Setup, counts: Counter[str]) -> None:
        self.setup = setup
        self.counts = counts
        self.messages: Counter[tuple[str, str, str]] = Counter()

    def __enter__(self) -> World:
        self.stack = stack = contextlib.ExitStack()
        self.folder = tempfile.mkdtemp(prefix="cmsgx-")
        stack.callback(shutil.rmtree, self.folder)
        with stack:
            self.files = [os.open(os.devnull, os.O_RDONLY), *os.pipe()]
            self.files.append(os.open(self.folder, os.O_RDONLY))
            for number in self.files:
                stack.callback(os.close, number)
            self.stock = Stock(self.setup, self.files, self.folder)
            stack.callback(self.stock.close)
            self.ours = Ours(self.setup, self.files, self.folder)
            stack.callback(self.ours.close)
            if self.setup.patched:
                cmsgx.install(cloexec=self.setup.api == "install")
                stack.callback(cmsgx.uninstall)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def pending(self, name: str) -> bool:
        """Whether there is something to receive; the same on both twins."""
        first, second = (readable(getattr(side, name)) for side in (self.stock, self.ours))
        patience = 200 if self.setup.inet else 0
        while first != second and patience:
            time.sleep(0.0005)
            patience -= 1
            first, second = (readable(getattr(side, name)) for side in (self.stock, self.ours))
        return first[0] != 0

    def run(self, step: str) -> None:
        """One call on both twins."""
        if self.setup.inet:
            self.pending("a")
            self.pending("b")
        code = compile(step, "<step>", "eval")
        self.stock.used_up_by_one_call = "iter(" in step or "failing(" in step
        before = open_descriptors()
        expected, message = self.stock.evaluate(code)
        between = open_descriptors()
        outcome, our_message = self.ours.evaluate(code)
        grown = open_descriptors() - between
        name = step.partition("(")[0]
        self.counts[f"{name} {expected[0]}"] += 1
        if expected[0] == "raised":
            self.messages[f"{name} {expected[1].__name__}", message, our_message] += 1
        elif isinstance(expected[1], tuple) and expected[1][2]:
            self.counts[f"{name} with control messages"] += 1
        if IS_MUSL and expected[:3] in MUSL_REFUSES and expected != outcome:
            raise Parted
        if expected != outcome:
            text = f"socket: {shown(expected)} {message}\ncmsgx:  {shown(outcome)} {our_message}"
            kinds = (part[1:3] if part[0] == "raised" else "" for part in (expected, outcome))
            raise Mismatch(text, f"{name} {' '.join(map(str, kinds))}")
        if grown != between - before:
            text = f"descriptors: socket {between - before:+}, cmsgx {grown:+}"
            raise Mismatch(text, f"{name} {text}")


def readable(sock: socket.socket) -> tuple[int, int]:
    if sock.fileno() < 0:
        return 0, 0
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    events = poll.poll(0)
    waiting = array.array("i", [0])
    with contextlib.suppress(OSError):
        fcntl.ioctl(sock, termios.FIONREAD, waiting)
    return events[0][1] if events else 0, waiting[0]


def shown(outcome: object) -> str:
    text = re.sub(r"(\\x00){9,}", r"\\x00...", repr(outcome))
    return text if len(text) < 1500 else f"{text[:750]} ... {text[-750:]}"


def replay(setup: Setup, steps: Sequence[str]) -> str:
    """The difference at the last of these calls, if there is one."""
    with World(setup, Counter()) as world:
        for position, step in enumerate(steps):
            try:
                world.run(step)
            except Parted:
                return ""
            except Mismatch as mismatch:
                return str(mismatch) if position == len(steps) - 1 else ""
    return ""


def shorten(setup: Setup, steps: list[str]) -> list[str]:
    """The same difference with fewer calls before it."""
    if not replay(setup, steps):
        return steps
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps) - 1:
            shorter = steps[:start] + steps[min(start + size, len(steps) - 1) :]
            if replay(setup, shorter):
                steps = shorter
            else:
                start += size
        size //= 2
    return steps


def usable_kinds() -> list[str]:
    unusable = []
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        unusable.append("6")
    try:
        for sock in make_sockets("netlink", "", ""):
            sock.close()
    except OSError:
        unusable.append("netlink")
    return [kind for kind in KINDS if not kind.endswith(tuple(unusable))]


class Findings(NamedTuple):
    counts: Counter[str]
    messages: Counter[tuple[str, str, str]]
    mismatches: list[str]


def fuzz(calls: int, seed: int, most_mismatches: int = 1) -> Findings:
    """Makes this many calls, and reports one difference of each sort, shortened."""
    findings = Findings(Counter(), Counter(), [])
    kinds = usable_kinds()
    sorts: set[str] = set()
    made = round_number = 0
    while made < calls and len(findings.mismatches) < most_mismatches:
        round_number += 1
        chance = random.Random(f"{seed}/{round_number}")
        waits: tuple[float | None, ...] = (0, 0, 0, 0.001, None)
        kind = kinds[round_number % len(kinds)]
        options = [option for option in OPTIONS if chance.random() < 0.2]
        if kind.startswith("tcp") and SO_TIMESTAMP in options:
            options.remove(SO_TIMESTAMP)  # the kernel adds time stamps to only some segments
        timeouts = (chance.choice(waits), chance.choice(waits))
        setup = Setup(kind, chance.choice(APIS), timeouts, tuple(options))
        author = Author(setup, chance)
        steps: list[str] = []
        with World(setup, findings.counts) as world:
            for _ in range(STEPS):
                name = chance.choice("ab")
                steps.append(author.step(name, world.pending(name)))
                made += 1
                try:
                    world.run(steps[-1])
                except Parted:
                    difference = ""
                    break
                except Mismatch as error:
                    difference = "" if error.sort in sorts else str(error)
                    sorts.add(error.sort)
                    break
            else:
                difference = ""
            findings.messages.update(world.messages)
        if difference:
            steps = shorten(setup, steps)
            difference = replay(setup, steps) or f"Not seen again: {difference}"
            lines = [f"seed {seed}, round {round_number}: {setup}", *steps, difference]
            findings.mismatches.append("\n".join(lines))
    return findings


@pytest.mark.parametrize("calls", lengths("CMSGX_FUZZ_CALLS", 1000, CALLS))
@pytest.mark.slow
def test_same_answers_as_socket(calls: int) -> None:
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        findings = fuzz(calls, SEED)
    assert not findings.mismatches, "\n".join(["", *findings.mismatches])
    assert open_descriptors() == before
    # Enough of the calls succeeded.
    if calls >= 5000:
        for name in CALLED:
            assert findings.counts[f"{name} returned"] > calls / 40
            assert findings.counts[f"{name} raised"] > calls / 200
        for name in ("recvmsg", "recvmsg_into", "recv_fds"):
            assert findings.counts[f"{name} with control messages"] > calls / 200


def test_macros_give_the_same_answers_as_socket() -> None:
    sizes: list[Any] = [*range(600), *(2**power + more for power in range(65) for more in (-50, 0))]
    sizes += [-1, -(2**31), -(2**63), "1", None, 1.5, True, Index(), b""]
    for name in ("CMSG_LEN", "CMSG_SPACE"):
        for size in sizes:
            answers = []
            for function in (getattr(_socket, name), getattr(cmsgx, name)):
                try:
                    answers.append(function(size))
                except Exception as error:
                    answers.append(type(error))
            assert answers[0] == answers[1], f"{name}({size!r}): {answers}"


def main(calls: int = CALLS, seed: int = SEED) -> int:
    start = time.monotonic()
    findings = fuzz(calls, seed, most_mismatches=10)
    for name, count in sorted(findings.counts.items()):
        print(f"{count:8} {name}")
    if "--messages" in sys.argv:
        for (name, stock, ours), count in sorted(findings.messages.items()):
            if stock != ours:
                print(f"{count:8} {name}\n         socket: {stock}\n         cmsgx:  {ours}")
    for mismatch in findings.mismatches:
        print(f"\nMISMATCH {mismatch}")
    print(f"{len(findings.mismatches)} mismatches, {time.monotonic() - start:.1f} s")
    return bool(findings.mismatches)


if __name__ == "__main__":
    sys.exit(main(*map(int, [word for word in sys.argv[1:] if word.isdigit()])))
