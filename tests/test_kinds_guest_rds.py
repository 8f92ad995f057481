"""The kinds of RDS: over TCP between two namespaces, and over a software RDMA adapter.

Each test tries first, and skips with the errno of the attempt.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from attempts import attempt, may_fail
from families import bind, connect, is_since, open_socket, run, sockaddr_in, switch_on
from namespaces import Namespace
from support import Pair, eventually

import cmsgx
from cmsgx import kinds

AF_RDS, SOL_RDS, SOL_SOCKET = 21, 276, 1
SO_RDS_TRANSPORT, RDS_TRANS_TCP, RDS_TRANS_IB = 8, 2, 0
MSG_ZEROCOPY = 0x4000000


def rds(host: str, port: int, transport: int) -> cmsgx.socket:
    sock = open_socket(AF_RDS, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(30)
        with attempt(f"SO_RDS_TRANSPORT {transport}"):
            sock.setsockopt(SOL_RDS, SO_RDS_TRANSPORT, transport)
        with attempt(f"bind to {host}"):
            bind(sock, sockaddr_in(host, port))
    except BaseException:
        sock.close()
        raise
    return sock


@pytest.fixture
def over_tcp() -> Iterator[Pair]:
    """A sender and its receiver, each in a namespace of its own."""
    hosts = ("10.77.0.1", "10.77.0.2")
    open_socket(AF_RDS, socket.SOCK_SEQPACKET).close()
    with Namespace() as left, Namespace() as right:
        there = f"/proc/{os.getpid()}/fd/{right._fd}"
        left.ip(f"link add right type veth peer name left netns {there}")
        for space, name, host in ((left, "right", hosts[0]), (right, "left", hosts[1])):
            space.ip(f"addr add {host}/24 dev {name}")
            space.ip(f"link set {name} up")
        sender = left.run(lambda: rds(hosts[0], 4000, RDS_TRANS_TCP))
        with sender, right.run(lambda: rds(hosts[1], 4001, RDS_TRANS_TCP)) as receiver:
            connect(sender, sockaddr_in(hosts[1], 4001))
            yield sender, receiver


def test_how_long_a_message_took_on_its_way(over_tcp: Pair) -> None:
    sender, receiver = over_tcp
    rx = cmsgx.Receiver(receiver, 100, want=[kinds.RdsReceiveLatency])
    cmsgx.send(sender, b"data")
    msg = rx.receive()
    assert msg.data == b"data"
    latencies = msg[kinds.RdsReceiveLatency].latencies
    assert latencies
    assert all(0 <= time < 30 * 10**9 for time in latencies.values())


def test_when_a_message_of_rds_came(over_tcp: Pair) -> None:
    sender, receiver = over_tcp
    receiver.setsockopt(SOL_SOCKET, 29, 1)
    before = time.time_ns() // 1000 * 1000
    cmsgx.send(sender, b"data")
    stamp = cmsgx.receive(receiver, 100)[kinds.Timestamp]
    assert is_since(before, stamp.nanoseconds)


def test_when_the_memory_of_a_message_is_free_again(over_tcp: Pair) -> None:
    sender, receiver = over_tcp
    switch_on(sender, kinds.RdsZeroCopyCompletion)
    data = bytes(range(256)) * 64
    for cookie in (5, 6):
        cmsgx.send(sender, data, flags=MSG_ZEROCOPY, control=kinds.RdsZeroCopyCookie(cookie))
        assert cmsgx.receive(receiver, len(data)).data == data
    seen: list[int] = []

    def complete() -> bool:
        try:
            msg = cmsgx.receive(sender, 100, timeout=0)
        except BlockingIOError:
            return False
        seen.extend(msg[kinds.RdsZeroCopyCompletion].cookies)
        return len(seen) == 2

    assert eventually(complete, 60), seen
    assert sorted(seen) == [5, 6]


def test_a_port_that_is_no_longer_congested(over_tcp: Pair) -> None:
    sender, receiver = over_tcp
    receiver.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 8192)
    switch_on(sender, kinds.RdsCongestionUpdate)
    sent = 0
    sender.setblocking(False)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            cmsgx.send(sender, bytes(4096))
            sent += 1
        except BlockingIOError:
            pass  # what is in flight has to arrive first
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            break
        time.sleep(0.005)
    for _ in range(sent):
        cmsgx.receive(receiver, 4096)
    assert select.select([sender], [], [], 30)[0]
    update = cmsgx.receive(sender, 100)[kinds.RdsCongestionUpdate]
    # A bit for each port modulo 64.
    assert update.ports >> (4001 % 64) & 1


# Over RDMA --------------------------------------------------------------------------------------


class Memory:
    """Some pages for remote memory access."""

    def __init__(self, size: int) -> None:
        self._raw = ctypes.create_string_buffer(size + 4096)
        self.size = size
        self.address = (ctypes.addressof(self._raw) + 4095) & ~4095

    def read(self, size: int | None = None) -> bytes:
        return ctypes.string_at(self.address, self.size if size is None else size)

    def write(self, data: bytes) -> None:
        ctypes.memmove(self.address, data, len(data))


@pytest.fixture
def over_rdma() -> Iterator[Pair]:
    """Two sockets of one software adapter (rxe), which is looped back to itself."""
    host = "10.78.0.1"
    open_socket(AF_RDS, socket.SOCK_SEQPACKET).close()
    run("ip", "link", "add", "rdma-a", "type", "veth", "peer", "name", "rdma-b")
    try:
        for device in ("rdma-a", "rdma-b"):
            run("ip", "link", "set", device, "up")
        run("ip", "addr", "add", f"{host}/24", "dev", "rdma-a")
        run("rdma", "link", "add", "rxe0", "type", "rxe", "netdev", "rdma-a")
        with rds(host, 5000, RDS_TRANS_IB) as sender, rds(host, 5001, RDS_TRANS_IB) as receiver:
            connect(sender, sockaddr_in(host, 5001))
            connect(receiver, sockaddr_in(host, 5000))
            # The connection has to exist before memory is registered for it.
            for one, other in ((sender, receiver), (receiver, sender)):
                cmsgx.send(one, b"hello")
                with attempt("a first message over RDMA"):
                    assert cmsgx.receive(other, 10).data == b"hello"
            yield sender, receiver
    finally:
        run("ip", "link", "del", "rdma-a")


def test_remote_memory_is_written_and_read(over_rdma: Pair) -> None:
    sender, receiver = over_rdma
    local, remote = Memory(4096), Memory(4096)
    local.write(b"from here")
    remote.write(b"from there")
    _, cookie = grant(receiver, sender, remote)
    vector = struct.pack("=QQ", local.address, 10)
    holder = ctypes.create_string_buffer(vector)
    arguments: dict[str, Any] = {
        "cookie": cookie,
        "remote_address": 0,
        "remote_size": 10,
        "local_vector": ctypes.addressof(holder),
        "local_count": 1,
        "user_token": 77,
    }
    cmsgx.enable(sender, kinds.RdsRdmaStatus)
    write = kinds.RdsFlags.READWRITE | kinds.RdsFlags.NOTIFY_ME
    cmsgx.send(sender, b"done", control=kinds.RdsRdmaArgs(**arguments, flags=write))
    assert cmsgx.receive(receiver, 100).data == b"done"
    assert remote.read(9) == b"from here"
    status = status_of(sender, 30)
    assert status is not None
    assert (status.user_token, status.status) == (77, kinds.RdsStatus.SUCCESS)


def status_of(sock: Any, seconds: float) -> Any:
    """None if no message came in this time: select(2) cannot be relied on here."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([sock], [], [], left)[0]:
            with may_fail(errno.EAGAIN):
                return cmsgx.receive(sock, 100, flags=socket.MSG_DONTWAIT)[kinds.RdsRdmaStatus]
    return None


def grant(owner: Any, other: Any, memory: Memory) -> tuple[int, int]:
    """Gives the other end access to this memory; returns its cookie, as the owner has it and as it
    arrived."""
    cookie = ctypes.c_uint64()
    control = kinds.RdsRdmaMap(
        address=memory.address,
        size=memory.size,
        cookie_address=ctypes.addressof(cookie),
        flags=kinds.RdsFlags.READWRITE,
    )
    cmsgx.send(owner, b"yours", control=control)
    msg = cmsgx.receive(other, 100)
    assert msg.data == b"yours"
    return cookie.value, msg[kinds.RdsRdmaDestination].cookie


def test_a_destination_of_remote_memory_is_sent(over_rdma: Pair) -> None:
    sender, receiver = over_rdma
    remote = Memory(4096)
    cookie, arrived = grant(receiver, sender, remote)
    assert cookie == arrived
    cmsgx.send(receiver, b"x", control=kinds.RdsRdmaDestination(cookie))
    assert cmsgx.receive(sender, 10)[kinds.RdsRdmaDestination].cookie == cookie


@pytest.mark.parametrize(
    ("make", "after"),
    [
        (lambda **more: kinds.RdsAtomicAdd(add=5, **more), 105),
        (lambda **more: kinds.RdsAtomicCompareSwap(compare=100, swap=9, **more), 9),
        (lambda **more: kinds.RdsMaskedAtomicAdd(add=5, nocarry_mask=0, **more), 105),
        (
            lambda **more: kinds.RdsMaskedAtomicCompareSwap(
                compare=100, swap=9, compare_mask=2**64 - 1, swap_mask=2**64 - 1, **more
            ),
            9,
        ),
    ],
    ids=["add", "swap", "masked add", "masked swap"],
)
def test_an_atomic_operation_on_remote_memory(over_rdma: Pair, make: Any, after: int) -> None:
    sender, receiver = over_rdma
    local, remote = Memory(4096), Memory(4096)
    remote.write((100).to_bytes(8, "little"))
    _, cookie = grant(receiver, sender, remote)
    operation = make(
        cookie=cookie,
        local_address=local.address,
        remote_address=0,
        flags=kinds.RdsFlags.NOTIFY_ME,
        user_token=78,
    )
    assert cmsgx.send(sender, b"", control=operation) == 0
    status = status_of(sender, 3)
    if status is None:
        # The kernel accepted it; this software adapter does not complete it.
        assert int.from_bytes(remote.read(8), "little") == 100
        return
    assert (status.user_token, status.status) == (78, kinds.RdsStatus.SUCCESS)
    assert int.from_bytes(local.read(8), "little") == 100
    assert int.from_bytes(remote.read(8), "little") == after
