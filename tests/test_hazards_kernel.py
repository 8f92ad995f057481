"""docs/hazards.md, parts D, F and I: what the kernel decides, and what is left to the program."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import mmap
import os
import random
import resource
import select
import socket
from collections.abc import Callable

import pytest
from hazards import forked, reap
from support import (
    Pair,
    close_pair,
    content,
    eventually,
    in_fork,
    open_fds,
    open_files,
    send_in_turn,
    unix_pair,
)
from test_hazards_identity import NOBODY, become, needs_root

import cmsgx

# D1: bytes without descriptors, and bytes with them, in one read ----------------------------------


def test_D1_descriptors_come_with_a_byte_of_the_message_that_they_were_sent_with(
    stream: Pair,
) -> None:
    """Bytes of earlier messages can be in the same read, bytes of later messages cannot."""
    chance = random.Random(4)
    rx = cmsgx.Receiver(stream[1], 12, fds=2)
    glued = 0
    with open_files(2) as files:
        for _ in range(100):
            spans: list[tuple[int, int]] = []  # of the messages that have descriptors
            data = b""
            for _ in range(chance.randrange(1, 9)):
                part = chance.randbytes(chance.randrange(1, 9))
                has_fds = chance.random() < 0.5
                cmsgx.send(stream[0], part, fds=files if has_fds else [])
                if has_fds:
                    spans.append((len(data), len(data) + len(part)))
                data += part
            at = 0
            while at < len(data):
                with rx.receive(bufsize=chance.randrange(1, 13)) as msg:
                    after = at + msg.nbytes
                    assert msg.data == data[at:after]
                    if msg.fds:
                        assert [content(fd) for fd in msg.fds] == ["0", "1"]
                        start, end = spans.pop(0)
                        assert at <= start < after <= end
                        glued += at < start
                at = after
            assert spans == []
    assert glued > 0, "each came alone, so this test showed nothing"


# I6: a name that somebody else bound first --------------------------------------------------------


@needs_root
def test_I6_peer_credentials_show_who_has_the_name() -> None:
    name = f"\0cmsgx-test-I6-{os.getpid()}"
    ready = unix_pair(socket.SOCK_SEQPACKET)

    def squat() -> None:
        become(NOBODY)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(name)
            listener.listen()
            ready[1].send(b"bound")
            ready[1].recv(9)

    with forked(squat) as pid:
        assert ready[0].recv(9) == b"bound"
        with cmsgx.socket(socket.AF_UNIX) as late, pytest.raises(OSError, match="in use"):
            late.bind(name)
        with cmsgx.socket(socket.AF_UNIX) as client:
            client.connect(name)
            assert cmsgx.peer_credentials(client).uid == NOBODY
        ready[0].send(b"end")
        assert reap(pid) == 0
    close_pair(ready)


# F3: the task that waits is cancelled -------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_F3_a_message_that_nobody_waits_for_any_more_closes_its_descriptors() -> None:
    """A thread received it for a future that was already cancelled: the message is lost."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    received: list[int] = []

    def receive() -> cmsgx.Message:
        message = cmsgx.receive(right, 1, fds=2)
        received.append(len(message.fds))
        return message

    async def cancel_each() -> None:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            waiting = loop.run_in_executor(None, receive)
            await asyncio.sleep(0)
            waiting.cancel()
            with contextlib.suppress(BlockingIOError):
                cmsgx.send(left, b"x", fds=files, timeout=0)
        left.shutdown(socket.SHUT_WR)  # for those that still wait
        await loop.shutdown_default_executor()

    before = open_fds()
    with open_files(2) as files:
        asyncio.run(cancel_each())
    assert open_fds() == before
    assert sum(received) > 0
    close_pair((left, right))


def test_F3_a_wait_for_readiness_that_is_cancelled_loses_nothing() -> None:
    """The message is received only once somebody is there to take it."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 10, fds=1)

    def set_once(ready: asyncio.Future[None]) -> None:
        if not ready.done():
            ready.set_result(None)

    async def readable() -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(right, set_once, ready)
        try:
            await ready
        finally:
            loop.remove_reader(right)

    async def cancel_each() -> None:
        for number in range(20):
            waiting = asyncio.ensure_future(readable())
            await asyncio.sleep(0)
            cmsgx.send(left, str(number).encode(), fds=files)
            if number % 2:
                await asyncio.sleep(0)  # its result is there, but it has not run yet
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await waiting
            await readable()
            with receiver.receive(timeout=0) as msg:
                assert msg.data == str(number).encode()
                assert content(msg.fds[0]) == "0"

    with left, right, open_files(1) as files:
        asyncio.run(cancel_each())


# F5: too many descriptors in flight ---------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_F5_too_many_in_flight_is_an_error_and_the_sender_keeps_them() -> None:
    def child() -> None:
        if os.geteuid() == 0:
            become(NOBODY)  # root may have as many as it likes
        left, right = unix_pair()
        with open_files(10) as files:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
            before = open_fds()
            sent = 0
            error = None
            while error is None and sent < 100:
                try:
                    cmsgx.send(left, b"x", fds=files, timeout=0)
                    sent += 1
                except OSError as raised:
                    error = raised.errno
            assert error == errno.ETOOMANYREFS
            assert open_fds() == before
            for _ in range(sent):
                with cmsgx.receive(right, 1, fds=10, timeout=0) as msg:
                    assert [content(fd) for fd in msg.fds] == list("0123456789")
            send_in_turn(left, b"x", files)
            with cmsgx.receive(right, 1, fds=10, timeout=0) as msg:
                assert len(msg.fds) == 10

    in_fork(child)


# F6: sockets that are queued on each other --------------------------------------------------------


def is_readable(number: int) -> bool:
    """Closing a socket of the family makes the kernel look for unreachable ones."""
    close_pair(unix_pair())
    return bool(select.select([number], [], [], 0)[0])


def test_F6_what_is_queued_in_a_cycle_is_freed_with_it() -> None:
    reader, writer = os.pipe()
    for _ in range(50):
        first, second = unix_pair()
        cmsgx.send(first, b"x", fds=[first, second, writer])
        cmsgx.send(second, b"x", fds=[first, second, writer])
        close_pair((first, second))
    os.close(writer)
    assert eventually(lambda: is_readable(reader))
    assert os.read(reader, 1) == b""  # the other end is no longer open anywhere
    os.close(reader)


def test_F6_a_socket_that_brings_itself_is_owned_as_any_other(pair: Pair) -> None:
    before = open_fds()
    cmsgx.send(pair[0], b"x", fds=[pair[1], pair[0]])
    with cmsgx.receive(pair[1], 1, fds=2) as msg:
        assert os.path.sameopenfile(msg.fds[0].fileno(), pair[1].fileno())
        cmsgx.send(msg.fds[1], b"by the other way", fds=msg.fds)
    with cmsgx.receive(pair[1], 100, fds=1) as msg:
        assert (msg.data, msg.closed_fds) == (b"by the other way", 1)
    assert open_fds() == before


# F8: memory that cannot be written ----------------------------------------------------------------


def receives(sock: cmsgx.socket, into: mmap.mmap) -> dict[str, Callable[[], object]]:
    return {
        "Receiver": cmsgx.Receiver(sock, into=into, fds=2).receive,
        "recvmsg_into": lambda: cmsgx.recvmsg_into(sock, [into], 1000),
    }


@pytest.mark.parametrize("way", ["Receiver", "recvmsg_into"])
def test_F8_memory_that_cannot_be_written_leaves_no_descriptor(pair: Pair, way: str) -> None:
    """Only the data cannot be delivered: the control buffer is never the caller's."""
    libc = ctypes.CDLL(None, use_errno=True)
    into = mmap.mmap(-1, mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(into))
    receive = receives(pair[1], into)[way]
    with open_files(2) as files:
        cmsgx.send(pair[0], b"data", fds=files)
        before = open_fds()
        assert libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 0) == 0
        with pytest.raises(OSError, match="Bad address") as caught:
            receive()
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        assert libc.mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, writable) == 0
        assert caught.value.errno == errno.EFAULT
        assert open_fds() == before
    del receive
    into.close()
