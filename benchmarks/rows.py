"""What is measured: one `Row` for each kind of work, with the bar it must reach.

A row names its function in floor.c, says how to make its sockets, and gives for each
implementation a function that takes them (a `World`) and returns a loop: a plain function of
the number of rounds, with everything bound to locals.  Each round sends and then receives on
one thread.
"""

import fcntl
import importlib
import mmap
import os
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice, repeat
from typing import Any

cmsgx: Any
try:
    cmsgx = importlib.import_module("cmsgx")
except ImportError:
    cmsgx = None  # then only `socket` is measured

Loop = Callable[[int], None]

SOCKET, DROPIN, WITH, FOR, BATCH = "socket", "drop-in", "with", "for", "batch"


_open: list[int] = []


def null_descriptors(count: int) -> list[int]:
    """The same for all, so that what is received has low numbers: Python keeps the ints to 256."""
    while len(_open) < count:
        _open.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    return _open[:count]


class World:
    """A pair of sockets and what travels over it; each implementation has its own."""

    def __init__(
        self,
        pair: tuple[socket.socket, socket.socket],
        *,
        size: int = 1,
        fds: int = 0,
        timeout: float | None = None,
    ) -> None:
        self.tx, self.rx = pair
        self.more: list[socket.socket] = []
        self.size = size
        self.data = bytes(size)
        self.fds = null_descriptors(fds)
        self.timeout = timeout
        for sock in pair:
            sock.settimeout(timeout)

    def is_drained(self) -> bool:
        self.rx.setblocking(False)
        with suppress(BlockingIOError):
            self.rx.recv(1)
            return False
        return True

    def close(self) -> None:
        for sock in (self.tx, self.rx, *self.more):
            sock.close()


@dataclass(frozen=True)
class Row:
    name: str
    floor: str  # in floor.c, without its prefix
    world: Callable[[], World]
    runners: Mapping[str, Callable[[World], Loop]]
    at_most: Mapping[str, float] = field(default_factory=dict)  # runner: x plain C
    faster: float | None = None  # the drop-in (or the batch) against socket
    peer: str = ""  # in the libraries of peers.py, without its prefix
    is_there: Callable[[], bool] = lambda: True  # whether cmsgx has what its runners need
    messages: int = 1  # that a round moves


def unix_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


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


# Many messages for one system call: a round is MANY of them, or SEGMENTS -------------------------

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


# Large payloads -----------------------------------------------------------------------------------


def tcp_world() -> World:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tx = socket.create_connection(listener.getsockname())
        rx, _ = listener.accept()
    tx.setsockopt(socket.SOL_SOCKET, 60, 1)  # SO_ZEROCOPY
    return World((tx, rx), size=65536)


def copied(world: World) -> Loop:
    """`socket` has no way to hear of completions: a plain send."""
    tx, rx, data, into = world.tx, world.rx, world.data, bytearray(1 << 17)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            tx.sendall(data)
            got = 0
            while got < len(data):
                got += rx.recv_into(into)

    return loop


def zero_copy(world: World) -> Loop:
    tx = cmsgx.ZeroCopySender(world.tx)
    rx, data, into = world.rx, world.data, bytearray(1 << 17)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            tx.send_all(data)
            got = 0
            while got < len(data):
                got += rx.recv_into(into)
            tx.wait()

    return loop


def socket_memfd(world: World) -> Loop:
    tx, rx, data = world.tx, world.rx, world.data
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            fd = os.memfd_create("row", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.write(fd, data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            socket.send_fds(tx, [b"x"], [fd])
            os.close(fd)
            (fd,) = socket.recv_fds(rx, 1, 1)[1]
            assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            size = os.fstat(fd).st_size
            with mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as content:
                os.close(fd)
                content[::4096]

    return loop


def shared(world: World) -> Loop:
    tx, data, share, send = world.tx, world.data, cmsgx.share, cmsgx.send
    rx = cmsgx.Receiver(world.rx, 1, fds=1)

    def loop(rounds: int) -> None:
        for _ in repeat(None, rounds):
            with share(data) as fd:
                send(tx, b"x", fds=[fd])
            with rx.receive() as m, m.fds[0].map() as content:
                content[::4096]

    return loop


def large_rows() -> list[Row]:
    return [
        Row(
            name="64 KiB over TCP, zero copy",
            floor="zerocopy",
            world=tcp_world,
            runners={SOCKET: copied, WITH: zero_copy},
            is_there=lambda: hasattr(cmsgx, "ZeroCopySender"),
        ),
        Row(
            name="1 MiB by a sealed memfd",
            floor="memfd",
            world=lambda: World(unix_pair(), size=1 << 20),
            runners={SOCKET: socket_memfd, WITH: shared},
            is_there=lambda: hasattr(cmsgx, "share"),
        ),
    ]


def all_rows(constant: Callable[[str], int]) -> list[Row]:
    """The rows in the order of the table; `constant` gives numbers of the C headers."""
    return [
        descriptors(1, {DROPIN: 1.30, WITH: 1.32, FOR: 1.24}, faster=1.30),
        descriptors(4, {DROPIN: 1.30, WITH: 1.18, FOR: 1.18}, faster=1.22),
        descriptors(64, {DROPIN: 1.25, WITH: 0.80, FOR: 0.80}),
        descriptors(253),
        Row(
            name="credentials",
            floor="credentials",
            world=credentials_world,
            runners={
                SOCKET: tuple_credentials(socket.socket),
                DROPIN: tuple_credentials(cmsgx),
                WITH: with_credentials,
                FOR: for_credentials,
            },
            at_most={WITH: 1.37, FOR: 1.27},
        ),
        plain(1024, into=False, faster=1.07),
        plain(1024, into=True, faster=1.07),
        plain(65536, into=False, faster=None),
        plain(65536, into=True, faster=None),
        plain(1024, into=False, timeout=5, faster=1.55),
        plain(1024, into=True, timeout=5, faster=1.55),
        plain(65536, into=False, timeout=5, faster=None),
        plain(65536, into=True, timeout=5, faster=None),
        datagram_row(constant),
        Row(
            name="error queue, empty",
            floor="errors",
            world=udp_world(constant),
            runners={SOCKET: socket_errors, WITH: with_errors, FOR: for_errors},
            is_there=lambda: hasattr(cmsgx, "ErrorReceiver"),
        ),
        *batch_rows(constant),
        *large_rows(),
    ]
