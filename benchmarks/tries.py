"""The rows of tries that receive: most find nothing, so a round of those is one look."""

import socket
from collections.abc import Callable
from itertools import repeat
from typing import Any

from one_message import descriptors
from worlds import BATCH, SOCKET, WITH, Loop, Row, World, cmsgx


def socket_nothing(world: World) -> Loop:
    receive, flags = world.rx.recvmsg, socket.MSG_DONTWAIT

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            try:
                receive(1, 512, flags)
            except BlockingIOError:
                continue
            raise AssertionError("something was there")

    return loop


def exception_nothing(world: World) -> Loop:
    receive = cmsgx.Receiver(world.rx, world.size).receive

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            try:
                receive(timeout=0)
            except BlockingIOError:
                continue
            raise AssertionError("something was there")

    return loop


def try_nothing(make: Callable[[World], Any]) -> Callable[[World], Loop]:
    def runner(world: World) -> Loop:
        try_receive = make(world).try_receive

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                assert try_receive() is None

        return loop

    return runner


def try_fds(world: World) -> Loop:
    tx, fds, data, send = world.tx, world.fds, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, 1, fds=len(fds))

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, fds=fds)
            with rx.try_receive() as m:
                m.fds  # noqa: B018

    return loop


def is_end(world: World) -> Loop:
    world.tx.send(b"")
    rx = cmsgx.Receiver(world.rx, 1)
    is_end, message = rx.is_end, rx.receive()

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            assert is_end(message) is False

    return loop


def row(
    name: str, floor: str, runners: dict[str, Callable[[World], Loop]], world: Callable[[], World]
) -> Row:
    def is_there() -> bool:
        return hasattr(getattr(cmsgx, "Receiver", None), "try_receive")

    return Row(name, floor, world, runners, is_there=is_there)


def packets() -> World:
    return World(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))


def try_rows() -> list[Row]:
    nothing: dict[str, Callable[[World], Loop]] = {
        SOCKET: socket_nothing,
        WITH: try_nothing(lambda world: cmsgx.Receiver(world.rx, world.size)),
        BATCH: try_nothing(lambda world: cmsgx.BatchReceiver(world.rx, 64, 2048)),
    }
    return [
        row("nothing there, tried", "nothing", nothing, packets),
        row("nothing there, an exception", "nothing", {WITH: exception_nothing}, packets),
        row("a descriptor, tried", "rights", {WITH: try_fds}, descriptors(1).world),
        row("is_end, asked", "nothing", {WITH: is_end}, packets),
    ]
