"""Objects whose special methods do what no program should, in the middle of a call."""

from __future__ import annotations

import array
import gc
import math
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import cmsgx

from apifuzzing.world import WORLD, Interrupt

DEPTH = 3  # of calls out of calls


def on_signal(number: int, frame: object) -> None:
    if WORLD.armed:
        raise Interrupt


def close_something() -> None:
    thing = WORLD.pick(WORLD.any_pool())
    close = getattr(thing, "close", None) or getattr(thing, "release", None)
    if close is not None and not isinstance(thing, cmsgx.ZeroCopySender):
        close()


def drop_something() -> None:
    WORLD.pools[WORLD.any_pool()].clear()


def resize_something() -> None:
    buffer = WORLD.pick("buffer")
    if isinstance(buffer, bytearray):
        buffer.clear() if WORLD.chance.random() < 0.5 else buffer.extend(bytes(5000))


def call_again() -> None:
    WORLD.operate()


def send_signal() -> None:
    signal.raise_signal(signal.SIGUSR1)


def set_a_limit() -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(os.listdir("/proc/self/fd")) + WORLD.chance.randrange(4)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(low, soft[1]), soft[1]))


def lift_the_limit() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))


def change_a_class() -> None:
    one, other = WORLD.pick(WORLD.any_pool()), WORLD.pick(WORLD.any_pool())
    if not isinstance(one, socket.socket):  # one without its __del__ is no finding
        one.__class__ = type(other)


MISCHIEF: list[tuple[int, Callable[[], object]]] = [
    (6, close_something), (2, drop_something), (3, resize_something), (4, call_again),
    (1, gc.collect), (4, send_signal), (2, lambda: time.sleep(0)), (1, change_a_class),
]  # fmt: skip
_WEIGHTS = [weight for weight, _ in MISCHIEF]
_MISCHIEF = [act for _, act in MISCHIEF]

ODD: tuple[Any, ...] = (None, -1, 1 << 70, "text", b"", 1.5, [], object())


def strike(value: Any, odd: tuple[Any, ...] = ODD) -> Any:
    """What a hostile method does before it gives what it is asked for, or something else."""
    chance = WORLD.chance
    if WORLD.depth < DEPTH:
        WORLD.depth += 1
        try:
            with suppress(Exception):
                chance.choices(_MISCHIEF, _WEIGHTS)[0]()
        finally:
            WORLD.depth -= 1
    luck = chance.random()
    if luck < 0.1:
        raise chance.choice((ValueError, OSError, MemoryError, StopIteration, Interrupt, RuntimeError))
    return value if luck < 0.85 else chance.choice(odd)


# None of which waits for long.
ODD_TIMES: tuple[Any, ...] = (-1, 0, "text", b"", math.nan, [], object())


class Hostile:
    """Stands for `value` where a special method is asked; each strikes first."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value

    def __index__(self) -> int:
        return strike(self.value if isinstance(self.value, int) else 1)  # type: ignore[no-any-return]

    __int__ = __index__

    def __len__(self) -> int:
        # Not some gigabytes, which tuple() makes room for beforehand.
        value = self.value if isinstance(self.value, int) else 1
        return strike(value if value < 1000 or value > 1 << 60 else 5)  # type: ignore[no-any-return]

    def __float__(self) -> float:
        return strike(0.001, ODD_TIMES)  # type: ignore[no-any-return]

    def fileno(self) -> int:
        number = self.value if isinstance(self.value, int) else -1
        if isinstance(self.value, (socket.socket, cmsgx.Fd)):
            with suppress(ValueError):
                number = self.value.fileno()
        return strike(number)  # type: ignore[no-any-return]

    def gettimeout(self) -> float:
        return strike(0.001, ODD_TIMES)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Any]:
        items = list(self.value) if isinstance(self.value, (list, tuple)) else [self.value]
        items = strike(items)
        return (strike(item) for item in items) if isinstance(items, list) else items

    def __getitem__(self, key: Any) -> Any:
        return strike(self.value)

    def __repr__(self) -> str:
        return strike("<Hostile>")  # type: ignore[no-any-return]

    __str__ = __repr__

    def __hash__(self) -> int:
        return strike(7)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return strike(True)  # type: ignore[no-any-return]

    def __bool__(self) -> bool:
        return strike(True)  # type: ignore[no-any-return]

    def __buffer__(self, flags: int) -> memoryview:  # asked from Python 3.12 on
        raw = self.value if isinstance(self.value, (bytes, bytearray)) else bytearray(64)
        return strike(memoryview(raw))  # type: ignore[no-any-return]

    def __release_buffer__(self, view: memoryview) -> None:
        with suppress(Exception, Interrupt):
            strike(None)

    def __del__(self) -> None:
        if WORLD.chance.random() < 0.05:
            with suppress(BaseException):
                strike(None)


class HostileBytes(bytearray):
    __len__ = Hostile.__len__
    __iter__ = Hostile.__iter__
    value = b"hostile"

    def __buffer__(self, flags: int) -> memoryview:
        with suppress(Exception):
            strike(None)
        return super().__buffer__(flags)


class HostileArray(array.array):  # type: ignore[type-arg]
    __len__ = Hostile.__len__
    __iter__ = Hostile.__iter__
    value = b"hostile"


class HostileTuple(tuple):  # type: ignore[type-arg]
    __slots__ = ()
    __len__ = Hostile.__len__
    __iter__ = Hostile.__iter__
    __hash__ = Hostile.__hash__
    value = 3


class HostileList(list):  # type: ignore[type-arg]
    """That is emptied while it is looked through."""

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            yield item
            if strike(1) == 1:
                self.clear()


class HostileInt(int):
    __index__ = Hostile.__index__
    __repr__ = Hostile.__repr__
    __hash__ = Hostile.__hash__
    value = 1


class HostileSocket(cmsgx.socket):
    """With overrides that call super(), as a program's may."""

    __slots__ = ()

    def recvmsg(self, *args: Any) -> Any:
        strike(None)
        return super().recvmsg(*args)

    def sendmsg(self, *args: Any) -> Any:
        strike(None)
        return super().sendmsg(*args)

    def gettimeout(self) -> float:
        strike(None)
        return 0.001


def nested(value: Any, depth: int = 2000) -> Any:
    for _ in range(depth):
        value = [value]
    return value
