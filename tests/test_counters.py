"""One system call for each message, and memory only for what is returned: measured by counting.

Each path runs in a separate process, under tests/c/count.c: some rounds to warm up, then 200, then
400. Only what the additional 200 made is looked at, so the cost of arming the counters is not
included.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import itertools
import json
import os
import socket
import struct
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from native import build, sanitizer
from support import run_python

import cmsgx

Loop = Callable[[int], None]

WARM_UP = 100
ROUNDS = 200
SIZE = 600  # bytes: more than 512, above which Python uses malloc and not its own pool
ALLOCATIONS = ("malloc", "calloc", "realloc")
HAS_GIL = not sysconfig.get_config_var("Py_GIL_DISABLED")

# Before 3.14, the interpreter itself makes two in a `with`, the bound __enter__ and __exit__.
WITH = 2


class World:
    """A pair of sockets, and descriptors to send whose copies get contiguous numbers."""

    def __init__(self, timeout: float | None) -> None:
        self.tx, self.rx = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for sock in (self.tx, self.rx):
            sock.settimeout(timeout)
        self.fds = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
        self.fillers = [os.dup(0)]
        while self.fillers[-1] < max(self.fds):  # a lower number that was free
            self.fillers.append(os.dup(0))

    def close(self) -> None:
        for number in self.fds + self.fillers:
            os.close(number)
        self.tx.close()
        self.rx.close()


@dataclass(frozen=True)
class Work:
    """What is repeated. `calls`: all the system calls of one round. `large`: the exact number of
    allocations above 512 bytes. `objects`: the maximum number of allocations of any size, if each
    object of Python is an allocation; a comment after it lists them."""

    make: Callable[[World], Loop]
    calls: dict[str, int]
    large: int
    objects: int


PATHS: dict[str, Work] = {}


def path(
    name: str, *, large: int = 0, objects: int, calls: dict[str, int]
) -> Callable[[Callable[[World], Loop]], Callable[[World], Loop]]:
    def add(make: Callable[[World], Loop]) -> Callable[[World], Loop]:
        PATHS[name] = Work(make, calls, large, objects)
        return make

    return add


def repeat(rounds: int) -> itertools.repeat[bool]:
    """Not range(): it would create an int for each round."""
    return itertools.repeat(True, rounds)


# The drop-in functions --------------------------------------------------------------------------


# data, the number that sendmsg returns
@path("recvmsg", calls={"send": 1, "recvmsg": 1}, large=1, objects=2)
def recvmsg(world: World) -> Loop:
    tx, rx, data = world.tx, world.rx, [bytes(SIZE)]

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.sendmsg(tx, data)
            cmsgx.recvmsg(rx, SIZE)

    return loop


# data, which is made short afterwards; two numbers
@path("short recvmsg", calls={"send": 1, "recvmsg": 1}, large=2, objects=3)
def short_recvmsg(world: World) -> Loop:
    tx, rx, data = world.tx, world.rx, [bytes(SIZE)]

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.sendmsg(tx, data)
            cmsgx.recvmsg(rx, 65536)

    return loop


# data, the number that sendmsg returns
@path("methods", calls={"send": 1, "recvmsg": 1}, large=1, objects=2)
def methods(world: World) -> Loop:
    tx, rx, data = world.tx, world.rx, [bytes(SIZE)]

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            tx.sendmsg(data)
            rx.recvmsg(SIZE)

    return loop


# two numbers
@path("recvmsg_into", calls={"send": 1, "recvmsg": 1}, objects=2)
def recvmsg_into(world: World) -> Loop:
    tx, rx, data, into = world.tx, world.rx, [bytes(SIZE)], [bytearray(SIZE)]

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.sendmsg(tx, data)
            cmsgx.recvmsg_into(rx, into)

    return loop


def fds_path(count: int) -> None:
    # data, the list's items, the iterator of our own loop
    @path(
        f"send_fds, recv_fds, {count}",
        calls={"sendmsg": 1, "recvmsg": 1, "close": count},
        objects=3,
    )
    def drop_in_fds(world: World) -> Loop:
        tx, rx, data, fds = world.tx, world.rx, [b"x"], world.fds[:count]

        def loop(rounds: int) -> None:
            for _ in repeat(rounds):
                cmsgx.send_fds(tx, data, fds)
                for number in cmsgx.recv_fds(rx, 1, count)[1]:
                    os.close(number)

        return loop


# Typed ------------------------------------------------------------------------------------------


# data, the number that send returns
@path("with", calls={"send": 1, "recvmsg": 1}, large=1, objects=WITH + 2)
def in_with(world: World) -> Loop:
    tx, data = world.tx, bytes(SIZE)
    receiver = cmsgx.Receiver(world.rx, SIZE)

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send(tx, data)
            with receiver.receive() as msg:
                msg.data  # noqa: B018

    return loop


# the view, the number that send returns
@path("with, a view", calls={"send": 1, "recvmsg": 1}, objects=WITH + 2)
def view_in_with(world: World) -> Loop:
    tx, data = world.tx, bytes(SIZE)
    receiver = cmsgx.Receiver(world.rx, SIZE)

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send(tx, data)
            with receiver.receive() as msg:
                msg.view  # noqa: B018

    return loop


# data, the number that send returns
@path("for", calls={"send": 1, "recvmsg": 1}, large=1, objects=2)
def in_for(world: World) -> Loop:
    tx, data = world.tx, bytes(SIZE)
    receiver = cmsgx.Receiver(world.rx, SIZE)

    def loop(rounds: int) -> None:
        left = repeat(rounds - 1)
        cmsgx.send(tx, data)
        for msg in receiver:
            msg.data  # noqa: B018
            if not next(left, False):
                break
            cmsgx.send(tx, data)

    return loop


def empty_try_path(name: str, make: Callable[[cmsgx.socket], Any], **calls: int) -> None:
    count = int("batch" in name)  # the Batch, which has space for each message

    @path(f"an empty try, {name}", calls=calls, large=0, objects=count)
    def empty_try(world: World) -> Loop:
        try_receive = make(world.rx).try_receive

        def loop(rounds: int) -> None:
            for _ in repeat(rounds):
                assert try_receive() is None

        return loop


empty_try_path("one", lambda rx: cmsgx.Receiver(rx, 9, fds=1), recvmsg=1)
empty_try_path("batch", lambda rx: cmsgx.BatchReceiver(rx, 9, 9), recvmmsg=1)
# ppoll: it is cheaper than asking how full the table is.
empty_try_path("batch, fd", lambda r: cmsgx.BatchReceiver(r, 9, 9, fds=1), recvmmsg=1, ppoll=1)


# two numbers
@path("with, into=", calls={"send": 1, "recvmsg": 1}, objects=WITH + 2)
def into_in_with(world: World) -> Loop:
    tx, data = world.tx, bytes(SIZE)
    receiver = cmsgx.Receiver(world.rx, into=bytearray(SIZE))

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send(tx, data)
            with receiver.receive() as msg:
                msg.nbytes  # noqa: B018

    return loop


def typed_fds_paths(count: int) -> None:
    calls = {"sendmsg": 1, "recvmsg": 1, "close" if count == 1 else "syscall:close_range": 1}

    # msg.fds
    @path(f"with, {count} fds", calls=calls, objects=WITH + 1)
    def fds_in_with(world: World) -> Loop:
        tx, fds = world.tx, world.fds[:count]
        receiver = cmsgx.Receiver(world.rx, 1, fds=count)

        def loop(rounds: int) -> None:
            for _ in repeat(rounds):
                cmsgx.send(tx, b"x", fds=fds)
                with receiver.receive() as msg:
                    msg.fds  # noqa: B018

        return loop

    # msg.fds
    @path(f"for, {count} fds", calls=calls, objects=1)
    def fds_in_for(world: World) -> Loop:
        tx, fds = world.tx, world.fds[:count]
        receiver = cmsgx.Receiver(world.rx, 1, fds=count)

        def loop(rounds: int) -> None:
            left = repeat(rounds - 1)
            cmsgx.send(tx, b"x", fds=fds)
            for msg in receiver:
                msg.fds  # noqa: B018
                if not next(left, False):
                    break
                cmsgx.send(tx, b"x", fds=fds)
            msg.close()

        return loop


# msg.fds, the Fd
@path("with, Fd", calls={"sendmsg": 1, "recvmsg": 1, "close": 1}, objects=WITH + 2)
def fd_in_with(world: World) -> Loop:
    tx, fds = world.tx, world.fds[:1]
    receiver = cmsgx.Receiver(world.rx, 1, fds=1)

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send(tx, b"x", fds=fds)
            with receiver.receive() as msg:
                msg.fds[0].fileno()

    return loop


def credentials() -> cmsgx.Credentials:
    return cmsgx.Credentials(os.getpid(), os.getuid(), os.getgid())


# the Credentials, its pid
@path("with, credentials", calls={"sendmsg": 1, "recvmsg": 1}, objects=WITH + 2)
def credentials_in_with(world: World) -> Loop:
    tx, control = world.tx, (credentials(),)
    receiver = cmsgx.Receiver(world.rx, 1, want=[cmsgx.Credentials])

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send(tx, b"x", control=control)
            with receiver.receive() as msg:
                msg[cmsgx.Credentials].pid  # noqa: B018

    return loop


# the Credentials, its pid
@path("for, credentials", calls={"sendmsg": 1, "recvmsg": 1}, objects=2)
def credentials_in_for(world: World) -> Loop:
    tx, control = world.tx, (credentials(),)
    receiver = cmsgx.Receiver(world.rx, 1, want=[cmsgx.Credentials])

    def loop(rounds: int) -> None:
        left = repeat(rounds - 1)
        cmsgx.send(tx, b"x", control=control)
        for msg in receiver:
            msg[cmsgx.Credentials].pid  # noqa: B018
            if not next(left, False):
                break
            cmsgx.send(tx, b"x", control=control)

    return loop


# msg.fds; and what a Receiver keeps for the next call: the buffer, what was asked for
@path("receive()", calls={"sendmsg": 1, "recvmsg": 1, "close": 1}, objects=WITH + 3)
def one_shot(world: World) -> Loop:
    tx, rx, fds = world.tx, world.rx, world.fds[:1]

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send(tx, b"x", fds=fds)
            with cmsgx.receive(rx, 1, fds=1) as msg:
                msg.fds  # noqa: B018

    return loop


# Batches: a round is BATCH messages, and the counts are for the whole round -----------------------

# 32, or 64 if a pointer has 4 bytes: with one pointer for each message an allocation is below 512
# bytes, with two above.
BATCH = 256 // struct.calcsize("P")
# In send_batch: a tuple of the messages, and the memory for the kernel's structs, which is large.
# In receive: the Batch, which has two pointers for each message, and is large too. In a loop over
# it: the iterator, and what ends it, an IndexError and its text.
SENT, SENT_LARGE, RECEIVED, LOOP = 2, 1, 1, 3


def both(calls: dict[str, int]) -> dict[str, int]:
    return {"sendmmsg": 1, "recvmmsg": 1, **calls}


@path(
    "batch, with, views", calls=both({}), large=SENT_LARGE + RECEIVED,
    objects=SENT + RECEIVED + LOOP + WITH,
)  # fmt: skip
def views_of_batch_in_with(world: World) -> Loop:
    tx, data = world.tx, [bytes(SIZE)] * BATCH
    receiver = cmsgx.BatchReceiver(world.rx, BATCH, SIZE)

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send_batch(tx, data)
            with receiver.receive() as batch:
                for msg in batch:
                    msg.view  # noqa: B018

    return loop


# data of each
@path(
    "batch, for, data", calls=both({}), large=SENT_LARGE + RECEIVED + BATCH,
    objects=SENT + RECEIVED + LOOP + BATCH,
)  # fmt: skip
def data_of_batch_in_for(world: World) -> Loop:
    tx, data = world.tx, [bytes(SIZE)] * BATCH
    receiver = cmsgx.BatchReceiver(world.rx, BATCH, SIZE)

    def loop(rounds: int) -> None:
        left = repeat(rounds - 1)
        cmsgx.send_batch(tx, data)
        for batch in receiver:
            for msg in batch:
                msg.data  # noqa: B018
            if not next(left, False):
                break
            cmsgx.send_batch(tx, data)

    return loop


# nothing else: the messages are not looked at
@path("batch, just received", calls=both({}), large=SENT_LARGE + RECEIVED, objects=SENT + RECEIVED)
def batch_alone(world: World) -> Loop:
    tx, data = world.tx, [bytes(SIZE)] * BATCH
    receiver = cmsgx.BatchReceiver(world.rx, BATCH, SIZE)

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send_batch(tx, data)
            batch = receiver.receive()
        del batch

    return loop


# All are closed by one call. msg.fds of each
@path(
    "batch, with, fds", calls=both({"syscall:close_range": 1}), large=SENT_LARGE + RECEIVED,
    objects=SENT + RECEIVED + LOOP + WITH + BATCH,
)  # fmt: skip
def fds_of_batch_in_with(world: World) -> Loop:
    tx = world.tx
    messages = [(b"x", world.fds[n : n + 1]) for n in range(BATCH)]
    receiver = cmsgx.BatchReceiver(world.rx, BATCH, 1, fds=1)

    def loop(rounds: int) -> None:
        for _ in repeat(rounds):
            cmsgx.send_batch(tx, messages)
            with receiver.receive() as batch:
                for msg in batch:
                    msg.fds  # noqa: B018

    return loop


# the Credentials of each, its pid
@path(
    "batch, for, credentials", calls=both({}), large=SENT_LARGE + RECEIVED,
    objects=SENT + RECEIVED + LOOP + 2 * BATCH,
)  # fmt: skip
def credentials_of_batch_in_for(world: World) -> Loop:
    tx, messages = world.tx, [(b"x", (), credentials())] * BATCH
    receiver = cmsgx.BatchReceiver(world.rx, BATCH, 1, want=[cmsgx.Credentials])

    def loop(rounds: int) -> None:
        left = repeat(rounds - 1)
        cmsgx.send_batch(tx, messages)
        for batch in receiver:
            for msg in batch:
                msg[cmsgx.Credentials].pid  # noqa: B018
            if not next(left, False):
                break
            cmsgx.send_batch(tx, messages)

    return loop


for number in (1, 4, 64):
    fds_path(number)
    typed_fds_paths(number)


# In the process that is counted -----------------------------------------------------------------


@dataclass
class Counter:
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.library = ctypes.PyDLL(None)  # not CDLL, which releases the GIL
        self.library.count_read.restype = ctypes.c_long
        self.library.count_name.restype = ctypes.c_char_p
        while name := self.library.count_name(len(self.names)):
            self.names.append(name.decode())

    def of(self, work: Callable[[], object]) -> dict[str, int]:
        self.library.count_reset()
        self.library.count_arm()
        work()
        self.library.count_disarm()
        return {name: self.library.count_read(name.encode()) for name in self.names}


def count_paths(timeout: float | None) -> None:
    """Prints the counts of ROUNDS rounds of each path, as JSON."""
    counter = Counter()
    made = {}
    for name, one in PATHS.items():
        world = World(timeout)
        loop = one.make(world)
        loop(WARM_UP)
        gc.collect()
        gc.disable()
        once = counter.of(lambda loop=loop: loop(ROUNDS))  # type: ignore[misc]
        twice = counter.of(lambda loop=loop: loop(2 * ROUNDS))  # type: ignore[misc]
        gc.enable()
        made[name] = {name: twice[name] - once[name] for name in once}
        world.close()
    print(json.dumps(made))


def count_waiting() -> None:
    """Prints the counts of two calls that time out, as JSON: the drop-in and the typed one."""
    counter = Counter()
    world = World(0.02)
    made = []
    for work in (
        lambda: cmsgx.recvmsg(world.rx, 1),
        lambda: cmsgx.Receiver(world.rx, 1).receive(),
    ):

        def one(work: Callable[[], object] = work) -> None:
            with pytest.raises(TimeoutError):
                work()

        made.append(counter.of(one))
    world.close()
    print(json.dumps(made))


# The tests --------------------------------------------------------------------------------------


def run_counted(code: str, *arguments: str, allocator: str = "default") -> str:
    if (found := sanitizer()) is not None:
        pytest.skip(f"{found} has an allocator that cannot be counted")
    library = build("count.so", "-O2", "-shared", "-fPIC", "count.c", "-ldl")
    others = os.environ.get("LD_PRELOAD", "")
    # Also if the suite itself runs with another allocator, or with a checking one.
    env = {
        "LD_PRELOAD": f"{library} {others}".strip(),
        "PYTHONMALLOC": allocator,
        "PYTHONDEVMODE": "",
        "PYTHONTRACEMALLOC": "",
    }
    return run_python(f"import test_counters as here; {code}", *arguments, timeout=300, env=env)


@functools.cache
def counted(timeout: float | None, allocator: str) -> dict[str, dict[str, int]]:
    code = f"here.count_paths({timeout!r})"
    made: dict[str, dict[str, int]] = json.loads(run_counted(code, allocator=allocator))
    return made


def pool() -> str:
    return "pymalloc" if HAS_GIL else "default"


@pytest.mark.parametrize("timeout", [None, 5.0], ids=["no timeout", "timeout"])
@pytest.mark.parametrize("name", PATHS)
def test_each_message_is_one_system_call(name: str, timeout: float | None) -> None:
    made = counted(timeout, pool())[name]
    expected = dict(PATHS[name].calls)
    expected["syscall"] = expected.get("syscall:close_range", 0)
    expected["closed"] = expected["syscall"] + expected.get("close", 0)
    assert expected.keys() <= made.keys()
    assert {
        counter: number
        for counter, number in made.items()
        if number != 0 and counter not in (*ALLOCATIONS, "free")
    } == {counter: ROUNDS * number for counter, number in expected.items() if number != 0}


@pytest.mark.parametrize("timeout", [None, 5.0], ids=["no timeout", "timeout"])
@pytest.mark.parametrize("name", PATHS)
def test_large_memory_is_only_for_what_is_returned(name: str, timeout: float | None) -> None:
    made = counted(timeout, pool())[name]
    large = sum(made[counter] for counter in ALLOCATIONS)
    # A call of malloc that the interpreter makes occasionally does not count as one for each
    # message.
    assert large <= ROUNDS * PATHS[name].large + ROUNDS // 100, made
    if HAS_GIL:  # otherwise Python does not call malloc(3)
        assert large >= ROUNDS * PATHS[name].large, f"it does not count: {made}"


@pytest.mark.skipif(not HAS_GIL, reason="a free-threaded Python does not use malloc(3)")
@pytest.mark.skipif(
    hasattr(sys, "gettotalrefcount"), reason="a debug build of Python keeps no free objects"
)
@pytest.mark.parametrize("timeout", [None, 5.0], ids=["no timeout", "timeout"])
@pytest.mark.parametrize("name", PATHS)
def test_any_memory_is_only_for_what_is_returned(name: str, timeout: float | None) -> None:
    """With PYTHONMALLOC=malloc each object is a counted allocation."""
    made = counted(timeout, "malloc")[name]
    allocations = sum(made[counter] for counter in ALLOCATIONS)
    assert allocations <= ROUNDS * PATHS[name].objects + ROUNDS // 100, made


def test_what_has_to_wait_polls_once() -> None:
    for made in json.loads(run_counted("here.count_waiting()")):
        assert (made["recvmsg"], made["ppoll"], made["poll"]) == (1, 1, 0), made
