"""docs/hazards.md, part A: SCM_PIDFD, and a full table of descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import re
import resource
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hazards import (
    MOST,
    Receives,
    Way,
    close_all,
    count_open,
    drain,
    each_way,
    numbers_in,
    switch_on,
)
from native import Shim, under_shim
from support import (
    Pair,
    allow_many_descriptors,
    content,
    is_open,
    open_files,
    run_python,
    unix_pair,
    until_it_waits,
)

import cmsgx
from cmsgx import _cmsg


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_hazards_table as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


# A5, A6: SCM_PIDFD ------------------------------------------------------------------------------


@pytest.fixture
def with_pidfd(pair: Pair) -> Pair:
    """A pair whose second socket gets a pidfd with each message."""
    switch_on(pair[1], "SO_PASSPIDFD")
    return pair


@each_way
@pytest.mark.parametrize("sent", [0, 1, 3, MOST])
@pytest.mark.parametrize("asked", [0, 1, 2, MOST])
def test_A5_unasked_pidfds_are_owned_too(with_pidfd: Pair, way: Way, sent: int, asked: int) -> None:
    left, right = with_pidfd
    with open_files(sent) as files:
        before = count_open()
        for _ in range(3):
            cmsgx.send(left, b"x", fds=files)
            way(right, asked)
            assert count_open() == before


def test_A5_taken_or_closed(with_pidfd: Pair) -> None:
    left, right = with_pidfd
    before = count_open()
    receiver = cmsgx.Receiver(right, 1, want=[cmsgx.PidFd])
    cmsgx.send(left, b"x")
    with receiver.receive() as msg:
        assert msg[cmsgx.PidFd].pid == os.getpid()
        assert count_open() == before + 1
    assert count_open() == before
    cmsgx.send(left, b"x")
    with receiver.receive() as msg:
        pidfd = msg.take(cmsgx.PidFd)
        with pytest.raises(ValueError, match="already taken"):
            msg.take(cmsgx.PidFd)
    with pidfd:
        assert pidfd.pid == os.getpid()
        assert not os.get_inheritable(pidfd.fileno())
    assert count_open() == before


def test_A5_every_error_path(with_pidfd: Pair) -> None:
    left, right = with_pidfd
    with open_files(3) as files:
        before = count_open()
        for bufsize in (0, 1, 3):  # a datagram is truncated
            cmsgx.send(left, b"data", fds=files)
            with contextlib.suppress(cmsgx.DataTruncatedError):
                cmsgx.receive(right, bufsize, fds=3).close()
            assert count_open() == before
            drain(right)
        for size in range(0, 120, 2):  # a control buffer is too short
            cmsgx.send(left, b"data", fds=files)
            close_all(numbers_in(cmsgx.recvmsg(right, 4, size)[1]))
            assert count_open() == before


@pytest.mark.parametrize("way", ["receive", "Receiver", "not wanted", "recv_fds", "recvmsg"])
def test_A5_many_messages(way: str) -> None:
    """CMSGX_MESSAGES says how many."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right:
        unwanted = cmsgx.Receiver(right, 1)
        switch_on(right, "SO_PASSPIDFD")
        receiver = cmsgx.Receiver(right, 1, fds=1, want=[cmsgx.PidFd])
        calls: dict[str, Callable[[], object]] = {
            "receive": lambda: cmsgx.receive(right, 1).close(),
            "Receiver": lambda: receiver.receive().close(),
            "not wanted": lambda: unwanted.receive().close(),
            "recv_fds": lambda: cmsgx.recv_fds(right, 1, 1),
            "recvmsg": lambda: close_all(numbers_in(cmsgx.recvmsg(right, 1, 100)[1])),
        }
        before = count_open()
        for _ in range(int(os.environ.get("CMSGX_MESSAGES", "5000"))):
            left.send(b"x")
            calls[way]()
        assert count_open() == before


def fill_table(free: int) -> list[int]:
    """Fills the table so that only this many descriptors fit; returns what fills it."""
    filling = []
    soft = 200 + free
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (soft, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    with contextlib.suppress(OSError):
        while True:
            filling.append(os.dup(0))
    for _ in range(free):
        os.close(filling.pop())
    return filling


def pidfd_without_room() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 1, want=[cmsgx.PidFd])
    filling = fill_table(0)

    def failed(pidfd: cmsgx.PidFd) -> None:
        assert pidfd.error == errno.EMFILE
        assert pidfd.closed
        assert "unavailable" in repr(pidfd)
        for use in (pidfd.fileno, lambda: pidfd.pid, pidfd.dup, pidfd.wait, pidfd.detach):
            with pytest.raises(
                ValueError, match="owns no descriptor: the kernel could not create one: "
            ):
                use()
        with pytest.raises(OSError, match=r"fds\[0\]: <PidFd unavailable: [^>]*>$") as caught:
            cmsgx.send(left, b"x", fds=[pidfd])
        assert caught.value.errno == errno.EBADF
        pidfd.close()

    left.send(b"x")
    with receiver.receive() as msg:
        failed(msg[cmsgx.PidFd])
        failed(msg.take(cmsgx.PidFd))
        assert cmsgx.PidFd in msg
    left.send(b"x")
    with cmsgx.receive(right, 1) as msg:
        failed(msg[cmsgx.PidFd])
    left.send(b"x")
    (_, kind, data) = cmsgx.recvmsg(right, 1, 24)[1][0]
    assert kind == _cmsg.SCM_PIDFD
    unowned = cmsgx.decode(socket.SOL_SOCKET, kind, data)
    assert (unowned.number, unowned.error) == (None, errno.EMFILE)
    with pytest.raises(OSError, match="could not make a pidfd") as caught:
        unowned.own()
    assert caught.value.errno == errno.EMFILE
    left.send(b"x")
    assert cmsgx.recv_fds(right, 1, 1)[1] == []
    os.close(filling.pop())
    left.send(b"x")
    with receiver.receive() as msg:
        assert msg[cmsgx.PidFd].error is None
        assert not msg[cmsgx.PidFd].closed
    print("negative closes:", Shim().strangers())


@pytest.mark.slow
def test_A6_the_kernel_could_make_no_pidfd(with_pidfd: Pair) -> None:
    in_child("pidfd_without_room", env=under_shim())


# A7: a full table -------------------------------------------------------------------------------


def full_table() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 16, fds=4)
    keeper = cmsgx.Receiver(right, 16, fds=4, on_truncation="keep")
    raising: Receives = (receiver.receive, lambda: cmsgx.receive(right, 16, fds=4))
    keeping: Receives = (
        keeper.receive,
        lambda: cmsgx.receive(right, 16, fds=4, on_truncation="keep"),
    )
    with open_files(6) as files:
        for free in range(5):
            filling = fill_table(free)
            before = set(range(200 + free)) - {n for n in range(200 + free) if not is_open(n)}
            for sent in range(7):
                missing = free < min(sent, 4)
                for receive in raising:
                    cmsgx.send(left, b"data", fds=files[:sent])
                    if not missing:
                        with receive() as msg:
                            assert len(msg.fds) == min(sent, 4)
                    else:
                        with pytest.raises(cmsgx.FdLimitError, match="RLIMIT_NOFILE") as caught:
                            receive()
                        error = caught.value
                        assert error.errno == errno.EMFILE
                        assert str(200 + free) in str(error)
                        told = re.search(
                            r"(\w+) descriptors? arrived, with space for 4:", str(error)
                        )
                        assert told is not None
                        assert told[1] == str(free or "no")
                        assert error.message.data == b"data"
                        assert error.message.truncated
                        assert error.message.closed_fds is None
                        del error, caught
                    assert {n for n in range(200 + free) if is_open(n)} == before
                for receive in keeping:
                    cmsgx.send(left, b"data", fds=files[:sent])
                    with receive() as msg:
                        assert len(msg.fds) == min(sent, 4, free)
                        assert [content(fd) for fd in msg.fds] == [
                            str(i) for i in range(min(sent, 4, free))
                        ]
                        assert msg.truncated == (sent > min(4, free))
                    assert {n for n in range(200 + free) if is_open(n)} == before
                # The drop-ins report it by the flag.
                cmsgx.send(left, b"data", fds=files[:sent])
                _, numbers, flags, _ = cmsgx.recv_fds(right, 16, 4)
                assert len(numbers) == min(sent, 4, free)
                assert bool(flags & socket.MSG_CTRUNC) == (sent > min(4, free))
                close_all(numbers)
                assert {n for n in range(200 + free) if is_open(n)} == before
            close_all(filling)


def test_A7_table_full() -> None:
    in_child("full_table")


def withheld_by_another() -> None:
    """As a security module does: no descriptors, MSG_CTRUNC, and the table has free places."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    receiver = cmsgx.Receiver(right, 16, fds=2)
    with open_files(2) as files:
        before = count_open()
        calls: Receives = (receiver.receive, lambda: cmsgx.receive(right, 16, fds=2))
        for receive in calls:
            cmsgx.send(left, b"data", fds=files)
            shim.mode("withheld")
            with pytest.raises(cmsgx.FdLimitError, match="security module withheld") as e:
                receive()
            shim.mode("")
            assert "RLIMIT_NOFILE" not in str(e.value)
            assert e.value.message.data == b"data"
            del e
        assert count_open() == before


def test_A7_withheld_by_another() -> None:
    in_child("withheld_by_another", env=under_shim())


def flapping_limit(messages: int) -> None:
    """The limit changes repeatedly: each loss is an exception."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(right, 16, fds=20)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    chance = random.Random(2)
    lost = 0
    with open_files(20) as files:
        before = count_open()
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        for _ in range(messages):
            count = chance.randrange(21)
            cmsgx.send(left, b"x", fds=files[:count])
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + chance.randrange(30), hard))
            try:
                with receiver.receive() as msg:
                    assert len(msg.fds) == count
            except cmsgx.FdLimitError:
                lost += 1
        allow_many_descriptors()
        assert count_open() == before
    assert 0 < lost < messages
    print(f"{messages} messages, {lost} raised")


def test_A7_flapping_limit() -> None:
    in_child("flapping_limit", 5000)


# A8: a full table, in a batch -------------------------------------------------------------------


def kept_of(batch: cmsgx.Batch, each: int) -> list[int]:
    """The number of descriptors of each message; one that lacks some says so."""
    for msg in batch:
        assert msg.truncated == (len(msg.fds) < each)
        assert msg.closed_fds == (None if msg.truncated else 0)
        assert [content(fd) for fd in msg.fds] == [str(i) for i in range(len(msg.fds))]
    return [len(msg.fds) for msg in batch]


def full_table_in_a_batch() -> None:
    """Five messages of ten descriptors each, and free places for some of them."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 5, 16, fds=10)
    messages: list[Any]
    with open_files(10) as files:
        messages = [(str(i).encode(), files) for i in range(5)]
        for free in range(61):
            filling = fill_table(free)
            before = {n for n in range(200 + free) if is_open(n)}
            for is_kept in (False, True):
                assert cmsgx.send_batch(left, messages) == 5
                got: list[list[int]] = []
                batches = []
                data = b""
                while sum(map(len, got)) < 5:
                    batch = rx.receive(timeout=0)
                    got.append(kept_of(batch, 10))
                    data += b"".join(msg.data for msg in batch)
                    batches.append(batch)
                    if not is_kept:
                        batch.close()
                assert data == b"01234"
                # Only a call that takes one message may find too few free places for it.
                assert all(len(part) == 1 or part == [10] * len(part) for part in got), (free, got)
                flat = [count for part in got for count in part]
                if is_kept:
                    assert sum(flat) == min(free, 50)
                    assert flat == sorted(flat, reverse=True)
                else:
                    assert flat == [min(free, 10)] * 5
                    assert max(map(len, got)) <= max(free // 10, 1)
                if free == 25 and is_kept:
                    assert got == [[10, 10], [5], [0], [0]]
                for batch in batches:
                    batch.close()
                assert {n for n in range(200 + free) if is_open(n)} == before
            close_all(filling)
    print("done")


def test_A8_a_batch_stops_before_the_table_is_full() -> None:
    assert in_child("full_table_in_a_batch").strip() == "done"


def filled_while_it_waits(timeout: float | None, by: str) -> None:
    """The free places are counted when something has come."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 5, 16, fds=10)
    right.settimeout(timeout)
    limit: dict[str, Any] = {"timeout": timeout} if by == "argument" else {}
    results: list[list[int]] = []

    def receive() -> None:
        got = 0
        while got < 5:
            with rx.receive(**limit) as batch:
                results.append(kept_of(batch, 10))
                got += len(batch)

    with open_files(10) as files:
        thread = threading.Thread(target=receive)
        thread.start()
        until_it_waits(thread)
        filling = fill_table(25)
        assert cmsgx.send_batch(left, [(b"x", files)] * 5) == 5
        thread.join()
        # At most two at once, because no more fit.
        assert [n for part in results for n in part] == [10] * 5, results
        assert max(map(len, results)) <= 2
        close_all(filling)
    print("done")


@pytest.mark.parametrize("timeout", [20.0, None])
@pytest.mark.parametrize("by", ["socket", "argument"])
@pytest.mark.slow
def test_A8_also_if_it_is_filled_while_it_waits(timeout: float | None, by: str) -> None:
    assert in_child("filled_while_it_waits", timeout, by).strip() == "done"


def test_A8_what_does_not_block_does_not_wait(packets: Pair) -> None:
    """Even though the socket object says that it would."""
    os.set_blocking(packets[1].fileno(), False)
    for sock in (packets[1], packets[1].fileno()):
        with pytest.raises(BlockingIOError):
            cmsgx.BatchReceiver(sock, 5, 16, fds=10).receive()


def pidfds_in_a_batch() -> None:
    """Descriptors that others send must not take the places of the pidfds, which identify the
    senders."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 8, 16, want=[cmsgx.PidFd])
    with open_files(1) as files:
        filling = fill_table(600)
        for _ in range(3):
            got = sent = 0
            while got < 8:
                # RLIMIT_NOFILE can also limit what is in flight.
                if sent < 8:
                    sent += cmsgx.send_batch(left, [(b"x", files * MOST)] * (8 - sent))
                with rx.receive(timeout=0) as batch:
                    assert [msg[cmsgx.PidFd].error for msg in batch] == [None] * len(batch)
                    assert [msg.closed_fds for msg in batch] == [MOST] * len(batch)
                    got += len(batch)
        close_all(filling)
    print("done")


@pytest.mark.slow
def test_A8_pidfds_have_space_whatever_else_is_sent(with_pidfd: Pair) -> None:
    assert in_child("pidfds_in_a_batch").strip() == "done"


def flapping_limit_of_batches(messages: int) -> None:
    """The limit changes repeatedly: each loss is reported by its message."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(right, 16, 16, fds=20)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    chance = random.Random(2)
    lost = whole = 0
    with open_files(20) as files:
        before = count_open()
        used = max(int(name) for name in os.listdir("/proc/self/fd"))
        while lost + whole < messages:
            counts = [chance.randrange(21) for _ in range(8)]
            allow_many_descriptors()
            cmsgx.send_batch(left, [(b"x", files[:count]) for count in counts])
            while counts:
                resource.setrlimit(resource.RLIMIT_NOFILE, (used + chance.randrange(99), hard))
                with rx.receive(timeout=0) as batch:
                    for msg in batch:
                        is_whole = len(msg.fds) == counts.pop(0)
                        assert msg.truncated != is_whole
                        lost += not is_whole
                        whole += is_whole
        allow_many_descriptors()
        assert count_open() == before
    assert lost > 0
    assert whole > 0
    print(f"{messages} messages, {lost} said to be truncated")


def test_A8_flapping_limit() -> None:
    in_child("flapping_limit_of_batches", 20_000)
