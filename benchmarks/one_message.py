"""The rows of one message at a time."""

import os
import socket
import struct
from collections.abc import Callable, Mapping
from itertools import islice, repeat
from typing import Any

from worlds import DROPIN, FOR, SOCKET, WITH, Loop, Row, World, cmsgx, unix_pair

# Descriptors each way, and their close ----------------------------------------------------------


def socket_fds(world: World) -> Loop:
    tx, rx, fds, count, data = world.tx, world.rx, world.fds, len(world.fds), [world.data]
    send, receive, close = socket.send_fds, socket.recv_fds, os.close

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, fds)
            for fd in receive(rx, 1, count)[1]:
                close(fd)

    return loop


def dropin_fds(world: World) -> Loop:
    tx, rx, fds, count, data = world.tx, world.rx, world.fds, len(world.fds), [world.data]
    send, receive, close = cmsgx.send_fds, cmsgx.recv_fds, os.close

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, fds)
            for fd in receive(rx, 1, count)[1]:
                close(fd)

    return loop


def with_fds(world: World) -> Loop:
    tx, fds, data, send = world.tx, world.fds, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, 1, fds=len(fds))

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, fds=fds)
            with rx.receive() as m:
                m.fds  # noqa: B018

    return loop


def for_fds(world: World) -> Loop:
    tx, fds, data, send = world.tx, world.fds, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, 1, fds=len(fds))

    def loop(rounds: int) -> None:
        send(tx, data, fds=fds)
        for m in islice(rx, rounds - 1):
            m.fds  # noqa: B018
            send(tx, data, fds=fds)
        with next(rx) as m:
            m.fds  # noqa: B018

    return loop


def descriptors(
    count: int, at_most: Mapping[str, float] | None = None, faster: float | None = None
) -> Row:
    return Row(
        name=f"{count} descriptor{'s' if count > 1 else ''}",
        floor="rights",
        world=lambda: World(unix_pair(), fds=count),
        runners={SOCKET: socket_fds, DROPIN: dropin_fds, WITH: with_fds, FOR: for_fds},
        at_most=at_most or {},
        faster=faster,
        peer="rights",
    )


# Credentials each way, decoded ------------------------------------------------------------------


def credentials_world() -> World:
    world = World(unix_pair())
    world.rx.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return world


def tuple_credentials(module: Any) -> Callable[[World], Loop]:
    def make(world: World) -> Loop:
        layout = struct.Struct("3i")
        level, kind = socket.SOL_SOCKET, socket.SCM_CREDENTIALS
        own = layout.pack(os.getpid(), os.getuid(), os.getgid())
        tx, rx, data, unpack = world.tx, world.rx, [world.data], layout.unpack
        control = [(level, kind, own)]
        room = socket.CMSG_SPACE(layout.size)
        send, receive = module.sendmsg, module.recvmsg

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                send(tx, data, control)
                for at, what, payload in receive(rx, 1, room)[1]:
                    if at == level and what == kind:
                        unpack(payload)[0]

        return loop

    return make


def with_credentials(world: World) -> Loop:
    tx, data, send, kind = world.tx, world.data, cmsgx.send, cmsgx.Credentials
    control = (kind(os.getpid(), os.getuid(), os.getgid()),)
    rx = cmsgx.Receiver(world.rx, 1, want=[kind])

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, control=control)
            with rx.receive() as m:
                m[kind].pid  # noqa: B018

    return loop


def for_credentials(world: World) -> Loop:
    tx, data, send, kind = world.tx, world.data, cmsgx.send, cmsgx.Credentials
    control = (kind(os.getpid(), os.getuid(), os.getgid()),)
    rx = cmsgx.Receiver(world.rx, 1, want=[kind])

    def loop(rounds: int) -> None:
        send(tx, data, control=control)
        for m in islice(rx, rounds - 1):
            m[kind].pid  # noqa: B018
            send(tx, data, control=control)
        with next(rx) as m:
            m[kind].pid  # noqa: B018

    return loop


# Plain data -------------------------------------------------------------------------------------


def tuple_plain(module: Any) -> Callable[[World], Loop]:
    def make(world: World) -> Loop:
        tx, rx, data, size = world.tx, world.rx, [world.data], world.size
        send, receive = module.sendmsg, module.recvmsg

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                send(tx, data)
                receive(rx, size)

        return loop

    return make


def tuple_into(module: Any) -> Callable[[World], Loop]:
    def make(world: World) -> Loop:
        tx, rx, data, into = world.tx, world.rx, [world.data], [bytearray(world.size)]
        send, receive = module.sendmsg, module.recvmsg_into

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                send(tx, data)
                receive(rx, into)

        return loop

    return make


def with_plain(world: World) -> Loop:
    tx, data, send = world.tx, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, world.size)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data)
            with rx.receive() as m:
                m.data  # noqa: B018

    return loop


def for_plain(world: World) -> Loop:
    tx, data, send = world.tx, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, world.size)

    def loop(rounds: int) -> None:
        send(tx, data)
        for m in islice(rx, rounds - 1):
            m.data  # noqa: B018
            send(tx, data)
        with next(rx) as m:
            m.data  # noqa: B018

    return loop


def with_into(world: World) -> Loop:
    tx, data, send = world.tx, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, into=bytearray(world.size))

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data)
            with rx.receive() as m:
                m.nbytes  # noqa: B018

    return loop


def for_into(world: World) -> Loop:
    tx, data, send = world.tx, world.data, cmsgx.send
    rx = cmsgx.Receiver(world.rx, into=bytearray(world.size))

    def loop(rounds: int) -> None:
        send(tx, data)
        for m in islice(rx, rounds - 1):
            m.nbytes  # noqa: B018
            send(tx, data)
        with next(rx) as m:
            m.nbytes  # noqa: B018

    return loop


def plain(size: int, *, into: bool, timeout: float | None = None, faster: float | None) -> Row:
    make = tuple_into if into else tuple_plain
    return Row(
        name=f"{size // 1024} KiB{' into' if into else ''}{'' if timeout is None else ', timeout'}",
        floor="plain",
        world=lambda: World(unix_pair(), size=size, timeout=timeout),
        runners={
            SOCKET: make(socket.socket),
            DROPIN: make(cmsgx),
            WITH: with_into if into else with_plain,
            FOR: for_into if into else for_plain,
        },
        faster=faster,
    )


# A datagram with its time stamp and packet info -------------------------------------------------


def datagram_row(constant: Callable[[str], int]) -> Row:
    stamp, info = constant("SO_TIMESTAMPNS"), constant("IP_PKTINFO")

    def world() -> World:
        rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rx.bind(("127.0.0.1", 0))
        tx.connect(rx.getsockname())
        rx.setsockopt(socket.SOL_SOCKET, stamp, 1)
        rx.setsockopt(socket.IPPROTO_IP, info, 1)
        return World((tx, rx), size=1200)

    def tuples(module: Any) -> Callable[[World], Loop]:
        def make(world: World) -> Loop:
            times, packet = struct.Struct("ll"), struct.Struct("i4s4s")
            of_socket, of_ip = socket.SOL_SOCKET, socket.IPPROTO_IP
            room = socket.CMSG_SPACE(times.size) + socket.CMSG_SPACE(packet.size)
            tx, rx, data, size = world.tx, world.rx, [world.data], world.size
            send, receive = module.sendmsg, module.recvmsg

            def loop(rounds: int) -> None:
                for _ in repeat(None, rounds):
                    send(tx, data)
                    for level, kind, payload in receive(rx, size, room)[1]:
                        if level == of_socket and kind == stamp:
                            seconds, nanoseconds = times.unpack(payload)
                            seconds * 1_000_000_000 + nanoseconds
                        elif level == of_ip and kind == info:
                            packet.unpack(payload)[0]

            return loop

        return make

    def with_kinds(world: World) -> Loop:
        tx, data, send = world.tx, world.data, cmsgx.send
        stamp_kind, info_kind = cmsgx.kinds.Timestamp, cmsgx.kinds.PacketInfo
        rx = cmsgx.Receiver(world.rx, world.size, want=[stamp_kind, info_kind])

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                send(tx, data)
                with rx.receive() as m:
                    m.view  # noqa: B018
                    m[stamp_kind]
                    m[info_kind]

        return loop

    def for_kinds(world: World) -> Loop:
        tx, data, send = world.tx, world.data, cmsgx.send
        stamp_kind, info_kind = cmsgx.kinds.Timestamp, cmsgx.kinds.PacketInfo
        rx = cmsgx.Receiver(world.rx, world.size, want=[stamp_kind, info_kind])

        def loop(rounds: int) -> None:
            send(tx, data)
            for m in islice(rx, rounds - 1):
                m.view  # noqa: B018
                m[stamp_kind]
                m[info_kind]
                send(tx, data)
            with next(rx) as m:
                m.view  # noqa: B018
                m[stamp_kind]
                m[info_kind]

        return loop

    return Row(
        name="datagram, stamp + info",
        floor="datagram",
        world=world,
        runners={
            SOCKET: tuples(socket.socket),
            DROPIN: tuples(cmsgx),
            WITH: with_kinds,
            FOR: for_kinds,
        },
        at_most={WITH: 1.25},
        is_there=lambda: hasattr(getattr(cmsgx, "kinds", None), "PacketInfo"),
    )


# The error queue, of which most looks find nothing: a round is one look ---------------------------


def socket_errors(world: World) -> Loop:
    rx, flags = world.rx, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT

    def loop(rounds: int) -> None:
        receive = rx.recvmsg
        for _ in repeat(None, rounds):
            try:
                receive(1, 512, flags)
            except BlockingIOError:
                continue
            raise AssertionError("it is not empty")

    return loop


def with_errors(world: World) -> Loop:
    receive = cmsgx.ErrorReceiver(world.rx).try_receive

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            assert receive() is None

    return loop


def for_errors(world: World) -> Loop:
    receiver = cmsgx.ErrorReceiver(world.rx)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            for _ in receiver:
                raise AssertionError("it is not empty")

    return loop
