"""The rows of large payloads."""

import fcntl
import mmap
import os
import socket
from itertools import repeat

from worlds import SOCKET, WITH, Loop, Row, World, cmsgx, unix_pair


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
