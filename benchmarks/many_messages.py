"""The rows of many messages for one system call: a round is MANY of them, or SEGMENTS."""

import socket
import struct
from collections.abc import Callable
from itertools import cycle, islice, repeat
from typing import Any

from one_message import socket_fds
from worlds import BATCH, FOR, SOCKET, WITH, Loop, Row, World, cmsgx

MANY = 64
STRANGERS = 4096  # more peers than anything remembers
SEGMENTS = 50


def udp_world(constant: Callable[[str], int], *options: str) -> Callable[[], World]:
    def world() -> World:
        rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        rx.bind(("127.0.0.1", 0))
        tx.connect(rx.getsockname())
        for name in options:
            level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_IP
            rx.setsockopt(
                socket.IPPROTO_UDP if name.startswith("UDP_") else level, constant(name), 1
            )
        return World((tx, rx), size=1200)

    return world


def each_datagram(constant: Callable[[str], int]) -> Callable[[World], Loop]:
    """`socket`, one by one."""

    def make(world: World) -> Loop:
        stamp, info = constant("SO_TIMESTAMPNS"), constant("IP_PKTINFO")
        times, packet = struct.Struct("ll"), struct.Struct("i4s4s")
        room = socket.CMSG_SPACE(times.size) + socket.CMSG_SPACE(packet.size)
        tx, rx, data, size = world.tx, world.rx, [world.data], world.size
        send, receive = socket.socket.sendmsg, socket.socket.recvmsg

        def loop(rounds: int) -> None:
            for _ in repeat(None, rounds):
                for _ in repeat(None, MANY):
                    send(tx, data)
                for _ in repeat(None, MANY):
                    for level, kind, payload in receive(rx, size, room)[1]:
                        if level == socket.SOL_SOCKET and kind == stamp:
                            seconds, nanoseconds = times.unpack(payload)
                            seconds * 1_000_000_000 + nanoseconds
                        elif level == socket.IPPROTO_IP and kind == info:
                            packet.unpack(payload)[0]

        return loop

    return make


def batch_datagrams(world: World) -> Loop:
    tx, messages, send = world.tx, [world.data] * MANY, cmsgx.send_batch
    stamp, info = cmsgx.kinds.Timestamp, cmsgx.kinds.PacketInfo
    rx = cmsgx.BatchReceiver(world.rx, MANY, world.size, want=[stamp, info])

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, messages)
            for m in rx.receive():
                m.view  # noqa: B018

    return loop


def batch_decoded(world: World) -> Loop:
    tx, messages, send = world.tx, [world.data] * MANY, cmsgx.send_batch
    stamp, info = cmsgx.kinds.Timestamp, cmsgx.kinds.PacketInfo
    rx = cmsgx.BatchReceiver(world.rx, MANY, world.size, want=[stamp, info])

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, messages)
            for m in rx.receive():
                m.view  # noqa: B018
                m[stamp]
                m[info]

    return loop


def batch_descriptors(world: World) -> Loop:
    tx, send = world.tx, cmsgx.send_batch
    messages = [(world.data, world.fds)] * MANY
    rx = cmsgx.BatchReceiver(world.rx, MANY, 1, fds=1)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, messages)
            with rx.receive() as batch:
                for m in batch:
                    m.fds  # noqa: B018

    return loop


def socket_each_descriptor(world: World) -> Loop:
    one = socket_fds(world)
    return lambda rounds: one(rounds * MANY)


def socket_segments(world: World) -> Loop:
    tx, rx, data, size = world.tx, world.rx, world.data, world.size
    send, receive = socket.socket.send, socket.socket.recvfrom

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            for _ in repeat(None, SEGMENTS):
                send(tx, data)
            for _ in repeat(None, SEGMENTS):
                receive(rx, size)

    return loop


def joined(world: World) -> tuple[Any, ...]:
    control = (cmsgx.kinds.UdpSegment(world.size),)
    rx = cmsgx.Receiver(world.rx, 65536, want=[cmsgx.kinds.UdpGro])
    return world.tx, world.data * SEGMENTS, control, rx, cmsgx.send


def with_segments(world: World) -> Loop:
    tx, data, control, rx, send = joined(world)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, control=control)
            with rx.receive() as m:
                m.segments  # noqa: B018

    return loop


def for_segments(world: World) -> Loop:
    tx, data, control, rx, send = joined(world)

    def loop(rounds: int) -> None:
        send(tx, data, control=control)
        for m in islice(rx, rounds - 1):
            m.segments  # noqa: B018
            send(tx, data, control=control)
        next(rx).segments  # noqa: B018

    return loop


def with_touched_segments(world: World) -> Loop:
    tx, data, control, rx, send = joined(world)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, data, control=control)
            with rx.receive() as m:
                for segment in m.segments:
                    segment[0]

    return loop


def for_touched_segments(world: World) -> Loop:
    tx, data, control, rx, send = joined(world)

    def loop(rounds: int) -> None:
        send(tx, data, control=control)
        for m in islice(rx, rounds - 1):
            for segment in m.segments:
                segment[0]
            send(tx, data, control=control)
        for segment in next(rx).segments:
            segment[0]

    return loop


def answering(world: World) -> Any:
    """What both ways to answer use: sockets, messages, send_batch, kinds, server and client."""
    kinds = cmsgx.kinds
    info, tos, stamp = kinds.PacketInfo, kinds.Tos, kinds.Timestamp
    server = cmsgx.BatchReceiver(world.rx, MANY, world.size, want=[info, tos, stamp])
    client = cmsgx.BatchReceiver(world.tx, MANY, world.size)
    messages = [world.data] * MANY
    return world.tx, world.rx, messages, cmsgx.send_batch, info, tos, stamp, server, client


def answer(world: World) -> Loop:
    tx, rx, messages, send, info, tos, stamp, server, client = answering(world)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, messages)
            batch = server.receive()
            for m in batch:
                m[tos]
                m[stamp]
            send(rx, [(m.view, (), m[info], m.address) for m in batch])
            client.receive()

    return loop


def answered_by_sender(world: World) -> Loop:
    tx, rx, messages, send, info, tos, stamp, server, client = answering(world)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            send(tx, messages)
            batch = server.receive()
            for m in batch:
                m[tos]
                m[stamp]
            send(rx, [(m.view, (), m[info], m.sender) for m in batch])
            client.receive()

    return loop


def crowd(world: World, peers: int) -> Callable[[], object]:
    """What sends a batch to the server and takes the answers to the one before: as many peers,
    each with an address of its own, MANY in a batch, all of them in turn."""
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.bind(("0.0.0.0", 0))
    world.more.append(client)
    name, info = world.rx.getsockname(), cmsgx.kinds.PacketInfo
    messages = [
        (
            world.data,
            (),
            info(local=f"127.{1 + i // 250 // 250}.{i // 250 % 250}.{i % 250 + 1}"),
            name,
        )
        for i in range(peers)
    ]
    turns = cycle([messages[at : at + MANY] for at in range(0, peers, MANY)])
    receiver, send = cmsgx.BatchReceiver(client, MANY, world.size), cmsgx.send_batch
    send(client, next(turns))
    received = [world.rx.recv(world.size) for _ in range(MANY)]
    send(world.rx, [(data, (), (), client.getsockname()) for data in received])

    def turn() -> None:
        receiver.receive()
        send(client, next(turns))

    return turn


def answered_to(peers: int, attribute: str) -> Callable[[World], Loop]:
    def make(world: World) -> Loop:
        kinds = cmsgx.kinds
        info, tos, stamp, send = kinds.PacketInfo, kinds.Tos, kinds.Timestamp, cmsgx.send_batch
        server = cmsgx.BatchReceiver(world.rx, MANY, world.size, want=[info, tos, stamp])
        rx, turn = world.rx, crowd(world, peers)

        def by_address(rounds: int) -> None:
            for _ in repeat(None, rounds):
                turn()
                batch = server.receive()
                for m in batch:
                    m[tos]
                    m[stamp]
                send(rx, [(m.view, (), m[info], m.address) for m in batch])

        def by_sender(rounds: int) -> None:
            for _ in repeat(None, rounds):
                turn()
                batch = server.receive()
                for m in batch:
                    m[tos]
                    m[stamp]
                send(rx, [(m.view, (), m[info], m.sender) for m in batch])

        return by_address if attribute == "address" else by_sender

    return make


def batch_rows(constant: Callable[[str], int]) -> list[Row]:
    stamped = udp_world(constant, "SO_TIMESTAMPNS", "IP_PKTINFO")
    answering = udp_world(constant, "SO_TIMESTAMPNS", "IP_PKTINFO", "IP_RECVTOS")
    has_batches = lambda: hasattr(cmsgx, "BatchReceiver")  # noqa: E731
    return [
        Row(
            name="64 datagrams, a view of each",
            floor="batch_view",
            world=stamped,
            runners={SOCKET: each_datagram(constant), BATCH: batch_datagrams},
            at_most={BATCH: 1.08},
            is_there=has_batches,
            messages=MANY,
        ),
        Row(
            name="64 datagrams, stamp + info of each",
            floor="batch_datagram",
            world=stamped,
            runners={SOCKET: each_datagram(constant), BATCH: batch_decoded},
            is_there=has_batches,
            messages=MANY,
        ),
        Row(
            name="64 datagrams, C by one call for each",
            floor="each_datagram",
            world=stamped,
            runners={BATCH: batch_decoded},
            at_most={BATCH: 1.00},
            is_there=has_batches,
            messages=MANY,
        ),
        Row(
            name="64 messages with 1 descriptor",
            floor="each_rights",
            world=lambda: World(socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM), fds=1),
            runners={SOCKET: socket_each_descriptor, BATCH: batch_descriptors},
            at_most={BATCH: 0.80},
            is_there=has_batches,
            messages=MANY,
        ),
        Row(
            name="50 segments",
            floor="segments",
            world=udp_world(constant, "UDP_GRO"),
            runners={SOCKET: socket_segments, WITH: with_segments, FOR: for_segments},
            at_most={FOR: 1.18},
            faster=25,
            is_there=has_batches,
            messages=SEGMENTS,
        ),
        Row(
            name="50 segments, each touched",
            floor="segments",
            world=udp_world(constant, "UDP_GRO"),
            runners={
                SOCKET: socket_segments,
                WITH: with_touched_segments,
                FOR: for_touched_segments,
            },
            at_most={FOR: 1.42},
            is_there=has_batches,
            messages=SEGMENTS,
        ),
        Row(
            name="64 datagrams answered",
            floor="answer",
            world=answering,
            runners={BATCH: answer},
            at_most={BATCH: 1.15},
            is_there=has_batches,
            messages=MANY,
        ),
        Row(
            name="64 datagrams answered by sender",
            floor="answer",
            world=answering,
            runners={BATCH: answered_by_sender},
            is_there=has_batches,
            messages=MANY,
        ),
        *[
            Row(
                name=f"64 datagrams of {who} answered{' by sender' * (form == 'sender')}",
                floor="answer",
                world=answering,
                runners={BATCH: answered_to(peers, form)},
                is_there=has_batches,
                messages=MANY,
            )
            for who, peers in (("64 peers", MANY), ("strangers", STRANGERS))
            for form in ("address", "sender")
        ],
    ]
