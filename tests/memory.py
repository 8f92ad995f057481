"""Allocations that fail, one after the other."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

P = TypeVar("P")
T = TypeVar("T")


def without(
    at: int | None, call: Callable[[P], T], argument: P
) -> tuple[T | None, Exception | None]:
    """Calls that while the allocation with that number fails, none for None: (result, error).

    Pythons without _testcapi cannot be asked for it.
    """
    try:
        testcapi: Any = importlib.import_module("_testcapi")
    except ImportError as error:
        pytest.skip(f"import _testcapi: {error}")
    if at is not None:
        testcapi.set_nomemory(at, at + 1)
    try:
        try:
            result = call(argument)
        finally:  # before anything of this function needs memory
            testcapi.remove_mem_hooks()
    except Exception as error:
        return None, error
    return result, None


def each_allocation_fails(call: Callable[[], T], most: int = 1000) -> Iterator[T | None]:
    """Calls that once with memory, which fills caches; then the first allocation fails, and so on.

    Yields what it returned, or None where it ran out of memory. Ends when three calls in a row have
    not. Free-threaded builds and Pythons without _testcapi cannot be asked.
    """
    try:
        testcapi: Any = importlib.import_module("_testcapi")
    except ImportError as error:
        pytest.skip(f"import _testcapi: {error}")
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
            # CPython's own, where it has no memory for the exception.
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
