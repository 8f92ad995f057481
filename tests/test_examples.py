"""Each program in examples/, run as a user would run it."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import checkout, sets_options_in_time
from namespaces import NO_IPV6, Chain, needs_ipv6

PRINTED = {
    "pass_one.py": "secret: only the parent could open this\n",
    "shared_offset.py": (
        "parent reads: b'first '\n"
        "child reads on: 'second'\n"
        "parent is at byte 12 now, and reads: b' third'\n"
    ),
    "pass_many.py": (
        "child got 253\n"
        "child got 253\n"
        "child got 94\n"
        "their numbers add up to 179700, expected 179700\n"
    ),
    "identity_and_descriptors.py": (
        "parent: my child, my user\nchild read: hello from the parent\n"
    ),
    "traceroute.py": "1 127.0.0.1\n",
    "ttl.py": "near: it had 1 to go\nfar: it had 200 to go\n",
    "answer_from.py": (
        "asked 127.0.0.2, answered from 127.0.0.2\n"
        "asked 127.0.0.3, answered from 127.0.0.3\n"
        "asked ::1, answered from ::1\n"
    ),
    "answer_batch.py": "".join(f"answered from 127.0.0.{n}\n" for n in (2, 3, 4)),
    "receive_time.py": "the kernel had it 0 s ago\n",
    "sent_time.py": "".join(f"datagram {n} left after 0 s\n" for n in range(3)),
}
SHORT = ["ttl.py", "answer_from.py", "traceroute.py", "receive_time.py", "sent_time.py"]
WITH_A_CHILD = [
    "pass_one.py", "shared_offset.py", "pass_many.py", "identity_and_descriptors.py"
]  # fmt: skip
EACH = pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs_ipv6 if name == "answer_from.py" else ()) for name in PRINTED],
)

# Each process counts when it ends: the fork copies the hook.
COUNT_DESCRIPTORS = """
import atexit, gc, os, runpy, sys

def report():
    gc.collect()
    after = set(os.listdir("/proc/self/fd"))
    if len(after) != len(before):
        os.write(2, f"descriptors: {before} before, {after} after\\n".encode())

before = set(os.listdir("/proc/self/fd"))
atexit.register(report)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@EACH
def test_example(name: str) -> None:
    done = run(str(checkout() / "examples" / name))
    assert (done.stdout, done.stderr, done.returncode) == (PRINTED[name], "", 0)


@pytest.mark.slow
@EACH
def test_neither_process_of_an_example_leaks(name: str) -> None:
    done = run("-c", COUNT_DESCRIPTORS, str(checkout() / "examples" / name))
    assert (done.stdout, done.stderr, done.returncode) == (PRINTED[name], "", 0)


def test_a_leak_in_an_example_would_be_seen(tmp_path: Path) -> None:
    leaks = tmp_path / "leaks.py"
    leaks.write_text("import os\nos.fork()\nos.dup(0)\n")
    done = run("-c", COUNT_DESCRIPTORS, str(leaks))
    assert done.stderr.count("descriptors:") == 2, done.stderr


def test_each_example_is_run() -> None:
    there = {path.name for path in (checkout() / "examples").glob("*.py")}
    assert there == set(PRINTED)


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_sets_options_before_packets_come(name: str) -> None:
    sets_options_in_time((checkout() / "examples" / name).read_text())


@pytest.mark.parametrize("name", SHORT)
def test_what_is_shown_first_is_short(name: str) -> None:
    lines = (checkout() / "examples" / name).read_text().splitlines()
    assert len(lines) < 30
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)]
)
@pytest.mark.slow
def test_traceroute(family: int) -> None:
    with Chain(links=3) as chain:
        route = [chain.address(family, n) for n in (1, 2, 3)]
        example = str(checkout() / "examples" / "traceroute.py")
        done = chain.spaces[0].run(lambda: run(example, route[-1]))
    printed = "".join(f"{hops} {router}\n" for hops, router in enumerate(route, 1))
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", 0)


@pytest.mark.slow
def test_traceroute_of_a_router_that_says_nothing() -> None:
    with Chain(links=3) as chain:
        # There is no route back.
        chain.spaces[2].ip("route del 10.9.1.0/24")
        example = str(checkout() / "examples" / "traceroute.py")
        target = chain.address(socket.AF_INET, 2)
        done = chain.spaces[0].run(lambda: run(example, target, "3"))
    assert (done.stdout, done.stderr, done.returncode) == ("1 10.9.1.2\n2 *\n3 *\n", "", 0)


def test_without_packet_info_the_answer_comes_from_elsewhere(tmp_path: Path) -> None:
    """So the example does show something."""
    text = (checkout() / "examples" / "answer_from.py").read_text()
    broken = tmp_path / "answer_from.py"
    broken.write_text(text.replace(" control=source,", "").replace("    source = ", "    _ = "))
    done = run(str(broken))
    if not done.returncode:
        assert "asked 127.0.0.2, answered from 127.0.0.1\n" in done.stdout
    else:
        assert NO_IPV6, done.stderr


@pytest.mark.slow
def test_an_example_fails_with_its_child(tmp_path: Path) -> None:
    for name in WITH_A_CHILD:
        text = (checkout() / "examples" / name).read_text()
        broken = tmp_path / name
        broken.write_text(text.replace("child(theirs)", "os._exit(3)", 1))
        assert "os._exit(3)" in broken.read_text()
        done = run(str(broken))
        assert done.returncode != 0, name
