"""Allocations that fail, one after the other."""

from __future__ import annotations

import functools
import importlib
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import pytest
from support import in_fork

P = TypeVar("P")
Q = ParamSpec("Q")
T = TypeVar("T")


# Free-threaded CPython 3.13 does not survive this: it frees the items of such a list twice.
_PROBE = """
import _testcapi
kept = []
for number in range(300):
    [number, number, number, number, number, number]
    _testcapi.set_nomemory(0, 1)
    try:
        [number, number, 7, 8, 9, 10]
    except MemoryError:
        pass
    finally:
        _testcapi.remove_mem_hooks()
    kept += [[number] * 6, [number] * 6]
"""


@functools.cache
def _why_not() -> str | None:
    """Why no allocation can be made to fail here, found by trying; None if one can."""
    try:
        importlib.import_module("_testcapi")
    except ImportError as error:
        return f"import _testcapi: {error}"
    done = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, check=False)
    if done.returncode:
        return f"a list that gets no memory ends this CPython: exit status {done.returncode}"
    return None


def need_testcapi() -> Any:
    if reason := _why_not():
        pytest.skip(reason)
    return importlib.import_module("_testcapi")


def without_other_threads(test: Callable[Q, None]) -> Callable[Q, None]:
    """Runs the test in a child of fork. Otherwise a thread of xdist's could get the failing
    allocations, and the worker would end. Skips if no allocation can be made to fail."""

    @functools.wraps(test)
    def run(*args: Q.args, **kwargs: Q.kwargs) -> None:
        need_testcapi()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork while there are threads
            in_fork(lambda: test(*args, **kwargs))

    return run


def without(
    at: int | None, call: Callable[[P], T], argument: P
) -> tuple[T | None, Exception | None]:
    """Calls `call` while the allocation with this number fails (none for None); returns (result,
    error).

    A Python without _testcapi cannot do this.
    """
    testcapi = need_testcapi()
    if at is not None:
        testcapi.set_nomemory(at, at + 1)
    try:
        try:
            result = call(argument)
        finally:  # before this function itself needs memory
            testcapi.remove_mem_hooks()
    except Exception as error:
        return None, error
    return result, None


def each_allocation_fails(call: Callable[[], T], most: int = 1000) -> Iterator[T | None]:
    """Calls `call` once with memory, which fills caches; then again with the first allocation
    failing, then the second, and so on.

    Yields what it returned, or None if it ran out of memory. Ends after three calls in a row that
    did not run out. Not possible on free-threaded builds and on Pythons without _testcapi.
    """
    testcapi = need_testcapi()
    yield call()
    enough = at = 0
    while enough < 3:
        assert at < most
        result: T | None = None
        testcapi.set_nomemory(at, at + 1)
        try:
            result = call()
        except MemoryError:
            enough = 0
        except SystemError as error:
            # CPython's own error, if it has no memory for the exception.
            if "exception" not in str(error):
                raise
            enough = 0
        else:
            enough += 1
        finally:
            testcapi.remove_mem_hooks()
        yield result
        at += 1
    assert at > 3, "no allocation failed"
