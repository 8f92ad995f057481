"""`data` of a large message against `recvmsg_into` of the socket module.

    python benchmarks/large_data.py [--rounds N] [--size BYTES --bufsize BYTES]

A round sends a message over an AF_UNIX stream and receives it on the same thread; `recvmsg_into`
fills the same bytearray each time, and makes no bytes. Shows medians of the ratios to it, measured
in turn as run.py does, `recvmsg_into` against itself for the noise, and the page faults of each
message.
"""

import argparse
import os
import socket
import statistics
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, repeat

from run import PATIENCE, Runner, Stirrer, as_text, getrusage, machine
from worlds import Loop, World, cmsgx, unix_pair

SIZES = (  # of the message, of the buffer
    (8 << 10, 8 << 10),
    (16 << 10, 16 << 10),
    (32 << 10, 64 << 10),
    (48 << 10, 64 << 10),
    (64 << 10, 64 << 10),
    (192 << 10, 256 << 10),
    (256 << 10, 256 << 10),
)
SENDING_BUFFER = 8 << 20  # so that the largest message fits


class Sized(World):
    def __init__(self, size: int, bufsize: int) -> None:
        super().__init__(unix_pair(), size=size)
        self.bufsize = bufsize
        forced = getattr(socket, "SO_SNDBUFFORCE", 32)
        with suppress(PermissionError):
            self.tx.setsockopt(socket.SOL_SOCKET, forced, SENDING_BUFFER)


def into(world: Sized) -> Loop:
    send, data, receive, buffers = (
        world.tx.send, world.data, world.rx.recvmsg_into, [bytearray(world.bufsize)]
    )  # fmt: skip

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(data)
            receive(buffers)

    return loop


def one_statement(world: Sized) -> Loop:
    send, data, rx = world.tx.send, world.data, cmsgx.Receiver(world.rx, world.bufsize)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(data)
            rx.receive().data  # noqa: B018

    return loop


def with_data(world: Sized) -> Loop:
    send, data, rx = world.tx.send, world.data, cmsgx.Receiver(world.rx, world.bufsize)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(data)
            with rx.receive() as m:
                m.data  # noqa: B018

    return loop


def for_data(world: Sized) -> Loop:
    send, data, rx = world.tx.send, world.data, cmsgx.Receiver(world.rx, world.bufsize)

    def loop(rounds: int) -> None:
        send(data)
        for m in islice(rx, rounds - 1):
            m.data  # noqa: B018
            send(data)
        next(rx).data  # noqa: B018

    return loop


def once_data(world: Sized) -> Loop:
    send, data, sock, size = world.tx.send, world.data, world.rx, world.bufsize
    receive = cmsgx.receive

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(data)
            receive(sock, size).data  # noqa: B018

    return loop


def with_view(world: Sized) -> Loop:
    send, data, rx = world.tx.send, world.data, cmsgx.Receiver(world.rx, world.bufsize)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(data)
            with rx.receive() as m:
                m.view  # noqa: B018

    return loop


WAYS: dict[str, Callable[[Sized], Loop]] = {
    "itself": into,
    "rx.receive().data": one_statement,
    "with": with_data,
    "for": for_data,
    "receive().data": once_data,
    "with, view": with_view,
}


def measure(size: int, bufsize: int, rounds: int) -> list[str]:
    worlds: list[Sized] = []

    def runner(make: Callable[[Sized], Loop]) -> Runner:
        worlds.append(Sized(size, bufsize))
        return Runner(make(worlds[-1]), worlds[-1])

    base = runner(into)
    ways = {name: runner(make) for name, make in WAYS.items()}
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    faults = dict.fromkeys(ways, 0)
    messages = dict.fromkeys(ways, 0)
    times = []
    stirrer = Stirrer()
    for _ in range(PATIENCE * rounds):
        stirrer.stir()
        last, last_is_clean = base.chunk()
        for name, one in ways.items():
            before = getrusage().ru_minflt
            took, is_clean = one.chunk()
            faults[name] += getrusage().ru_minflt - before
            messages[name] += one.rounds
            after, after_is_clean = base.chunk()
            if is_clean and last_is_clean and after_is_clean:
                ratios[name].append(2 * took / (last + after))
                times.append(after)
            last, last_is_clean = after, after_is_clean
        if min(map(len, ratios.values())) >= rounds:
            break
    stirrer.close()
    for world in worlds:
        world.close()
    shown = [
        f"{statistics.median(found):.3f} ({faults[name] / messages[name]:.1f})" if found else "-"
        for name, found in ratios.items()
    ]
    nanoseconds = f"{statistics.median(times):,.0f}" if times else "-"
    return [f"{size:,} in {bufsize:,}", nanoseconds, *shown]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, metavar="N")
    parser.add_argument("--size", type=int, metavar="BYTES")
    parser.add_argument("--bufsize", type=int, metavar="BYTES")
    options = parser.parse_args()
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    about = machine()
    print(", ".join(about[what] for what in ("python", "kernel", "machine")))
    sizes: tuple[tuple[int, int], ...] = SIZES
    if options.size or options.bufsize:
        size = options.size or options.bufsize
        sizes = ((size, options.bufsize or size),)
    table = [["bytes", "recvmsg_into, ns", *(f"{name} (faults)" for name in WAYS)]]
    table += [measure(size, bufsize, options.rounds) for size, bufsize in sizes]
    print(as_text(table))


if __name__ == "__main__":
    main()
