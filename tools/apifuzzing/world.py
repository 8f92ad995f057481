"""The objects that random operations are about."""

from __future__ import annotations

import array
import collections
import inspect
import mmap
import random
import socket
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cmsgx
from cmsgx import kinds, wire

KINDS: list[Any] = [
    kind for name in kinds.__all__ if inspect.isclass(kind := getattr(kinds, name)) and "level" in dir(kind)
]  # fmt: skip


class Interrupt(BaseException):
    """What the signal handlers raise."""


class _Local(threading.local):
    depth = 0


class World:
    """The objects that operations are about, by category, and the chance that chooses."""

    most = 10
    operate: Callable[[], object]
    """One more operation, for those that are called in the middle of another."""

    def __init__(self) -> None:
        self.chance = random.Random(0)
        self.pools: dict[str, list[Any]] = collections.defaultdict(list)
        self.may_fork = True
        self.is_forked = False
        self._armed = False
        self._local = _Local()

    @property
    def armed(self) -> bool:
        """Whether a signal handler raises now. Handlers run in the main thread only."""
        return self._armed

    @armed.setter
    def armed(self, value: bool) -> None:
        if threading.current_thread() is threading.main_thread():
            self._armed = value

    @property
    def depth(self) -> int:
        """Of calls out of calls, in this thread."""
        return self._local.depth

    @depth.setter
    def depth(self, value: int) -> None:
        self._local.depth = value

    def keep(self, value: Any) -> None:
        """Sorts a result into its pool, or drops it."""
        category = category_of(value)
        if category == "sequence":
            for item in list(value)[:4]:
                self.keep(item)
        elif category:
            if category == "sock":
                with suppress(Exception):  # or a call waits for ever
                    value.settimeout(self.chance.choice((0, 0.0005, 0.001)))
            pool = self.pools[category]
            if len(pool) < self.most:
                pool.append(value)
            else:
                pool[self.chance.randrange(len(pool))] = value

    def pick(self, category: str) -> Any:
        pool = self.pools[category]
        try:
            return pool[self.chance.randrange(len(pool))]
        except (ValueError, IndexError):  # none, or another thread was there first
            return None

    def any_pool(self) -> str:
        return self.chance.choice(list(self.pools) or ["sock"])


def category_of(value: Any) -> str:
    for types_, category in CATEGORIES:
        if isinstance(value, types_):
            return category
    module = type(value).__module__ or ""
    return "thing" if module.startswith("cmsgx") else ""


CATEGORIES: list[tuple[Any, str]] = [
    (socket.socket, "sock"),
    (cmsgx.Fd, "fd"),
    (cmsgx.Message, "message"),
    (wire.Batch, "batch"),
    ((cmsgx.Receiver, cmsgx.BatchReceiver), "receiver"),
    (cmsgx.ZeroCopySender, "sender"),
    (cmsgx.Address, "address"),
    (cmsgx._cmsg.Record, "record"),
    (cmsgx.Outgoing, "outgoing"),
    ((bytes, bytearray, memoryview, wire.View, array.array, mmap.mmap), "buffer"),
    (kinds.ErrorReport, "report"),
    ((tuple, list), "sequence"),
    (types.GeneratorType, "iterator"),
]
WORLD = World()
