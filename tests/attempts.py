"""Attempts that a kernel may refuse: the test is then skipped, and the reason contains the
errno."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

_libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: Any) -> None:
    """A libc function that returns a negative number on failure, with errno."""
    if getattr(_libc, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def refused(number: int, what: str) -> NoReturn:
    """Skips the test: `what` was tried, and failed with this errno."""
    pytest.skip(f"[Errno {number}] {what}: {os.strerror(number)}")


@contextmanager
def attempt(what: str, *errors: int) -> Iterator[None]:
    """The body may fail with one of these errnos, or with any if none is given; the test is then
    skipped."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (errors and error.errno not in errors):
            raise
        refused(error.errno, what)


@contextmanager
def fails(*errors: int) -> Iterator[None]:
    """The body has to fail with one of these errnos."""
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is looked at)
        yield
    assert caught.value.errno in errors


@contextmanager
def may_fail(*errors: int) -> Iterator[None]:
    """The body may fail with one of these errnos, and the test continues."""
    try:
        yield
    except OSError as error:
        if error.errno not in errors:
            raise
