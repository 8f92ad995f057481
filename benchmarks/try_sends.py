"""The rows of sends that are tried: over a full socket, where a round is one try, and over one that
takes all, beside send()."""

import socket
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import Any

from worlds import SOCKET, WITH, Loop, Row, World, cmsgx, unix_pair


class FullWorld(World):
    """Nothing can be sent, which stays so."""

    def __init__(self) -> None:
        super().__init__(unix_pair())
        for size in (4096, 1):
            with suppress(BlockingIOError):
                while True:
                    self.tx.send(bytes(size), socket.MSG_DONTWAIT)

    def is_drained(self) -> bool:
        return True


def refused(world: World) -> Loop:
    send, data, flags = world.tx.send, world.data, socket.MSG_DONTWAIT

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            try:
                send(data, flags)
            except BlockingIOError:
                continue
            raise AssertionError("something was sent")

    return loop


def tried(world: World) -> Loop:
    try_send, tx, data = cmsgx.try_send, world.tx, world.data

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            assert try_send(tx, data) is None

    return loop


def tried_again(world: World) -> Loop:
    def loop(rounds: int) -> None:
        with cmsgx.PreparedSend(world.tx, world.data) as prepared:
            try_send = prepared.try_send
            for _ in repeat(None, rounds):
                assert try_send() is None

    return loop


def left(world: World) -> Loop:
    send, tx, data = cmsgx._cmsg.send_or_prepare, world.tx, world.data

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data).close()

    return loop


def sent_by(name: str) -> Callable[[World], Loop]:
    def make(world: World) -> Loop:
        send: Any = getattr(cmsgx, name, None) or getattr(cmsgx._cmsg, name)
        tx, data, receive, size = world.tx, world.data, world.rx.recv, world.size

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                send(tx, data)
                receive(size)

        return loop

    return make


def prepared_and_sent(world: World) -> Loop:
    prepare = cmsgx.PreparedSend
    tx, data, receive, size = world.tx, world.data, world.rx.recv, world.size

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            prepare(tx, data).try_send()
            receive(size)

    return loop


def row(
    name: str, floor: str, world: Callable[[], World], runners: dict[str, Callable[[World], Loop]]
) -> Row:
    return Row(name, floor, world, runners, is_there=lambda: hasattr(cmsgx, "PreparedSend"))


def small() -> World:
    return World(unix_pair(), size=64)


def try_send_rows() -> list[Row]:
    return [
        row("a full socket, tried", "full", FullWorld, {SOCKET: refused, WITH: tried}),
        row("a full socket, tried again", "full", FullWorld, {WITH: tried_again}),
        row("a full socket, the rest kept", "full", FullWorld, {WITH: left}),
        *[
            row(f"sent by {name}", "plain", small, {WITH: sent_by(name)})
            for name in ("send", "try_send", "send_or_prepare", "send_all")
        ],
        row("sent by a PreparedSend", "plain", small, {WITH: prepared_and_sent}),
    ]
