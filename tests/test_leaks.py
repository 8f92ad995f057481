"""No public name leaks descriptors, memory or references, and a leak is detected."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import sys
import weakref
from collections.abc import Callable

import pytest
from exercises import LEAK_TESTS
from exercises_of_kinds import registering
from public_names import CALLABLES
from support import open_fds

import cmsgx

N = 200


# How a leak is seen -----------------------------------------------------------------------------


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def _find_mallinfo() -> Callable[[], _Mallinfo] | None:
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):  # not glibc 2.33 or later
        return None
    found.restype = _Mallinfo
    function: Callable[[], _Mallinfo] = found
    return function


_mallinfo = _find_mallinfo()


def holdings() -> dict[str, int]:
    """What this process uses, by each measure that is available."""
    for _ in range(3):
        gc.collect()
    assert cmsgx.wait_closed(60) == 0  # what still waits to be closed is not leaked
    found = {"descriptors": len(open_fds()), "blocks": sys.getallocatedblocks()}
    if _mallinfo is not None:
        # What C allocated without Python's allocator, in units no larger than the smallest leaked
        # block.
        found["malloc"] = _mallinfo().uordblks // 24
    if hasattr(sys, "gettotalrefcount"):
        found["references"] = sys.gettotalrefcount()
    return found


def growth(exercise: Callable[[], object], times: int = N) -> dict[str, int]:
    """What it leaves behind, by each measure, with warm caches."""
    for _ in range(times // 4):
        exercise()
    before = holdings()
    for _ in range(times):
        exercise()
    after = holdings()
    return {name: after[name] - before[name] for name in before}


def leaks(exercise: Callable[[], object]) -> dict[str, int]:
    """What grew in every run. Random growth does not repeat itself."""
    for _ in range(5):
        grown = growth(exercise)
        # A single additional descriptor is a leak; the use of memory varies a little.
        found = {
            name: count
            for name, count in grown.items()
            if (count != 0 if name == "descriptors" else count >= N * 3 // 4)
        }
        if not found:
            break
    return found


def test_each_has_a_leak_test() -> None:
    assert {name for name, value in CALLABLES.items() if value not in LEAK_TESTS} == set()


def test_leak_tests_are_of_public_names() -> None:
    assert set(LEAK_TESTS) <= set(CALLABLES.values())


def is_a_class_freed() -> bool:
    class Plain:
        pass

    reference = weakref.ref(Plain)
    del Plain
    gc.collect()
    return reference() is None


@pytest.mark.parametrize("exercise", list(dict.fromkeys(LEAK_TESTS.values())))
def test_leaks_nothing(exercise: Callable[[], object]) -> None:
    if exercise is registering and not is_a_class_freed():
        pytest.skip("an empty class that was dropped still exists: classes are immortal here")
    assert leaks(exercise) == {}


# The checker, checked ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_leaked_descriptor_is_seen() -> None:
    kept: list[int] = []
    runs = itertools.count()
    try:
        assert "descriptors" in leaks(
            lambda: kept.append(os.dup(0)) if next(runs) % 100 == 0 else None
        )
    finally:
        for number in kept:
            os.close(number)


@pytest.mark.slow
def test_a_leaked_object_is_seen() -> None:
    if not sys.getallocatedblocks():
        pytest.skip("sys.getallocatedblocks() counts nothing: PYTHONMALLOC=malloc")
    kept: list[object] = []
    assert "blocks" in leaks(lambda: kept.append(object()))


def test_a_leaked_cycle_is_none() -> None:
    def cycle() -> None:
        items: list[object] = []
        items.append(items)

    assert leaks(cycle) == {}


@pytest.mark.slow
def test_memory_that_c_leaks_is_seen() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    kept: list[int] = []
    before = _mallinfo().uordblks if _mallinfo is not None else 0
    block = libc.malloc(ctypes.c_size_t(4096))
    counts = _mallinfo is not None and _mallinfo().uordblks > before
    libc.free(ctypes.c_void_p(block))
    if not counts:
        pytest.skip("mallinfo2() counts nothing: not glibc's malloc")
    try:
        assert "malloc" in leaks(lambda: kept.append(libc.malloc(ctypes.c_size_t(20))))
    finally:
        for address in kept:
            libc.free(ctypes.c_void_p(address))


def test_a_leaked_reference_is_seen() -> None:
    if not hasattr(sys, "gettotalrefcount"):
        pytest.skip("sys.gettotalrefcount: only a debug build has it")
    kept: list[object] = []
    one = object()
    assert "references" in leaks(lambda: kept.append(one))
