"""The rows of making receivers, as a server does for each connection: a round makes one.

Its socket has been asked for the same before, so this is what a further one costs.  The floor is
one empty receive.
"""

import socket
from collections.abc import Callable
from itertools import repeat
from typing import Any

from worlds import BATCH, WITH, Loop, Row, World, cmsgx


def making(make: Callable[[Any], Any], *, restored: bool = False) -> Callable[[World], Loop]:
    def runner(world: World) -> Loop:
        rx = world.rx

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                make(rx)

        def loop_with(rounds: int) -> None:
            for _ in repeat(None, rounds):
                with make(rx):
                    pass

        return loop_with if restored else loop

    return runner


def pair_of(family: int, kind: int) -> Callable[[], World]:
    def world() -> World:
        if family == socket.AF_UNIX:
            return World(socket.socketpair(family, kind))
        return World((socket.socket(family, kind), socket.socket(family, kind)))

    return world


def udp(sock: Any) -> Any:
    return cmsgx.Receiver(sock, 2048, want=[cmsgx.kinds.PacketInfo, cmsgx.kinds.Timestamp])


def udp_batches(sock: Any) -> Any:
    want = [cmsgx.kinds.PacketInfo, cmsgx.kinds.Timestamp]
    return cmsgx.BatchReceiver(sock, 16, 2048, want=want)


def ipv6(sock: Any) -> Any:
    return cmsgx.Receiver(sock, 2048, want=[cmsgx.kinds.PacketInfo6])


def seqpacket(sock: Any) -> Any:
    return cmsgx.Receiver(sock, 2048, fds=4, want=[cmsgx.Credentials, cmsgx.PidFd])


def stream(sock: Any) -> Any:
    return cmsgx.Receiver(sock, 2048, fds=4)


def errors(sock: Any) -> Any:
    return cmsgx.ErrorReceiver(sock, want=[cmsgx.kinds.ExtendedError])


def enabled(sock: Any) -> Any:
    return cmsgx.enable(sock, cmsgx.kinds.PacketInfo, cmsgx.kinds.Timestamp)


def receiver_rows() -> list[Row]:
    dgram = pair_of(socket.AF_INET, socket.SOCK_DGRAM)
    rows: list[tuple[str, Callable[[], World], dict[str, Callable[[World], Loop]]]] = [
        ("UDP", dgram, {WITH: making(udp), BATCH: making(udp_batches)}),
        ("UDP, restored", dgram, {WITH: making(udp, restored=True)}),
        ("UDP over IPv6", pair_of(socket.AF_INET6, socket.SOCK_DGRAM), {WITH: making(ipv6)}),
        ("seqpacket", pair_of(socket.AF_UNIX, socket.SOCK_SEQPACKET), {WITH: making(seqpacket)}),
        ("stream", pair_of(socket.AF_UNIX, socket.SOCK_STREAM), {WITH: making(stream)}),
        ("error queue", dgram, {WITH: making(errors)}),
        ("enable()", dgram, {WITH: making(enabled)}),
    ]
    return [
        Row(
            f"a receiver made, {name}" if name != "enable()" else "enable(), UDP",
            "nothing", world, runners, is_there=lambda: hasattr(cmsgx, "ErrorReceiver"),
        )
        for name, world, runners in rows
    ]  # fmt: skip
