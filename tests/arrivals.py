"""What _core needs of a message, without a socket: reads that a test makes up."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import cmsgx


class Read:
    """What one recvmsg(2) brought, as a Message shows it."""

    def __init__(
        self,
        data: bytes = b"",
        fds: Iterable[cmsgx.Fd] = (),
        *,
        closed_fds: int | None = 0,
        flags: int = 0,
    ) -> None:
        self.data = data
        self.nbytes = len(data)
        self.fds = list(fds)
        self.closed_fds = closed_fds
        self.flags = flags
        self.closed = False
        self._left = list(self.fds)

    def take_all(self) -> list[cmsgx.Fd]:
        if self.closed:
            raise ValueError("the message is closed")
        taken, self._left = self._left, []
        return taken

    def close(self) -> None:
        self.closed = True
        while self._left:
            self._left.pop().close()


def is_end(read: Any) -> bool:
    return not read.nbytes


class Queue:
    """A socket: what was put here comes, one at a time, then None. An exception is raised."""

    def __init__(self, *reads: Read | BaseException | None) -> None:
        self.reads = deque(reads)

    def receive(self) -> Any:
        if not self.reads:
            return None
        read = self.reads.popleft()
        if isinstance(read, BaseException):
            raise read
        return read

    def close(self) -> None:
        for read in self.reads:
            if isinstance(read, Read):
                read.close()


def new_fds(*names: object) -> list[cmsgx.Fd]:
    """An Fd for each name: a memfd that holds it as text."""
    fds = []
    for name in names:
        fds.append(cmsgx.Fd(os.memfd_create(f"file-{name}")))
        os.pwrite(fds[-1].fileno(), str(name).encode(), 0)
    return fds


class Interrupted(BaseException):
    """What a signal handler raises."""


@contextmanager
def interrupted_after(steps: int) -> Iterator[list[int]]:
    """Raises Interrupted once, at a step of the interpreter within _core, like a signal handler.

    Yields a list with the number of steps that are left until then.
    """
    left = [steps]

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if "/_core/" not in frame.f_code.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted
        return trace

    before = sys.gettrace()
    # CPython 3.12 looks for this when settrace() is called, in any frame.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        yield left
    finally:
        sys.settrace(before)
