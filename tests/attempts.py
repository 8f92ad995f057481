"""What a test tries and a kernel may refuse: it is skipped, for a reason that holds the errno."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A function of libc whose result is negative where it fails, with errno."""
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def refused(number: int, what: str) -> NoReturn:
    """Skips: `what` was tried, and failed with that errno."""
    pytest.skip(f"[Errno {number}] {what}: {os.strerror(number)}")


@contextmanager
def attempt(what: str, *errors: int) -> Iterator[None]:
    """What is tried in there may fail with one of those errno, or with any: it skips then."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (errors and error.errno not in errors):
            raise
        refused(error.errno, what)


@contextmanager
def fails(*errors: int) -> Iterator[None]:
    """What is called in there has to fail with one of those errno."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is looked at)
        yield
    assert caught.value.errno in errors


@contextmanager
def may_fail(*errors: int) -> Iterator[None]:
    """What is called in there may fail with one of those errno, and the test goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise
