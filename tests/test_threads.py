"""Many threads at once."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    Pair,
    close_pair,
    content,
    eventually,
    gives_up_the_gil,
    open_fds,
    open_files,
    run_all,
    stuck_in_close,
    unix_pair,
    until_it_waits,
)

import cmsgx

THREADS = 8


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("by", ["typed", "drop-in"])
def test_a_socket_shared_by_threads(kind: int, by: str) -> None:
    """Each message arrives once, complete, with its own descriptors."""
    each = 150
    sender, receiver = unix_pair(kind)
    got: Counter[str] = Counter()
    lock = threading.Lock()
    received = threading.Semaphore(0)

    def send(index: int, files: list[int]) -> None:
        for number in range(each):
            data = f"{index} {number}".encode()
            if by == "typed":
                cmsgx.send(sender, data, fds=[files[index]])
            else:
                cmsgx.send_fds(sender, [data], [files[index]])

    def receive() -> None:
        while True:
            with contextlib.ExitStack() as stack:
                if by == "typed":
                    msg = stack.enter_context(cmsgx.receive(receiver, 100, fds=2))
                    data, numbers = msg.data, [fd.fileno() for fd in msg.fds]
                else:
                    data, numbers = cmsgx.recv_fds(receiver, 100, 2)[:2]
                    for number in numbers:
                        stack.callback(os.close, number)
                if data == b"end":
                    return
                assert [content(number) for number in numbers] == [data.decode().split()[0]]
                with lock:
                    got[data.decode()] += 1
                received.release()

    def finish() -> None:
        for _ in range(THREADS // 2 * each):
            assert received.acquire(timeout=60)
        for _ in range(THREADS // 2):
            cmsgx.send(sender, b"end")

    with open_files(THREADS // 2) as files:
        run_all(
            *(lambda index=index: send(index, files) for index in range(THREADS // 2)),
            *[receive] * (THREADS // 2),
            finish,
        )
    assert got == {f"{i} {n}": 1 for i in range(THREADS // 2) for n in range(each)}
    close_pair((sender, receiver))


def test_one_receiver_by_many_threads_is_refused_and_never_confused() -> None:
    """One at a time gets through; the others get RuntimeError, and nothing is lost."""
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    total = 400
    rx = cmsgx.Receiver(receiver, 100, fds=1)
    got: list[tuple[bytes, str]] = []
    refused: list[str] = []

    def send() -> None:
        with open_files(1) as files:
            for number in range(total):
                cmsgx.send(sender, str(number).encode(), fds=files)
                if number == total // 2:  # one waits in the Receiver, and the others find it in use
                    assert eventually(lambda: bool(refused))

    def receive() -> None:
        while len(got) < total:
            try:
                msg = rx.receive(timeout=0.01)
            except RuntimeError as error:
                refused.append(str(error))
                time.sleep(0.0005)
            except TimeoutError:
                pass
            else:
                with msg:
                    got.append((msg.data, content(msg.fds[0])))

    with sender, receiver:
        run_all(send, *[receive] * 4)
    assert sorted(got) == sorted((str(number).encode(), "0") for number in range(total))
    assert refused
    assert all("is in use" in text for text in refused)


def test_one_batch_receiver_by_many_threads_is_refused_and_never_confused() -> None:
    """As with a Receiver: one at a time gets through, and each message comes once."""
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    total = 2000
    rx = cmsgx.BatchReceiver(receiver, 8, 100, fds=1)
    got: list[tuple[bytes, str]] = []
    refused: list[str] = []

    def send() -> None:
        with open_files(1) as files:
            for number in range(0, total, 10):
                messages = [(str(n).encode(), files) for n in range(number, number + 10)]
                sent = 0
                while sent < 10:
                    sent += cmsgx.send_batch(sender, messages[sent:])
                if number == total // 2:  # one waits in the receiver, and the others find it in use
                    assert eventually(lambda: bool(refused))

    def receive() -> None:
        while len(got) < total:
            try:
                batch = rx.receive(timeout=0.01)
            except RuntimeError as error:
                refused.append(str(error))
                time.sleep(0.0005)
            except TimeoutError:
                pass
            else:
                with batch:
                    got.extend((msg.data, content(msg.fds[0])) for msg in batch)

    with sender, receiver:
        run_all(send, *[receive] * 4)
    assert sorted(got) == sorted((str(number).encode(), "0") for number in range(total))
    assert refused
    assert all("is in use" in text for text in refused)


@pytest.mark.parametrize(
    "use",
    [
        lambda rx: rx.receive(),
        lambda rx: rx.receive(timeout=0),
        lambda rx: next(rx),
        lambda rx: list(rx),
        lambda rx: rx.refresh(),
    ],
    ids=["receive", "receive, at once", "next", "loop", "refresh"],
)
def test_a_batch_receiver_that_waits_is_in_use(use: Callable[[Any], object]) -> None:
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.BatchReceiver(receiver, 4, 10)
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.extend(msg.data for msg in rx.receive()))
    with sender, receiver:
        thread.start()
        until_it_waits(thread)
        with pytest.raises(RuntimeError, match="is in use"):
            use(rx)
        sender.send(b"x")
        thread.join()
        assert got == [b"x"]
        sender.send(b"y")
        assert rx.receive()[0].data == b"y"


@contextlib.contextmanager
def slow_to_close(close: Callable[[cmsgx.Batch], object]) -> Iterator[cmsgx.Batch]:
    """A batch of three, while a thread closes descriptors of it; close(2) blocks for one of the
    second message."""
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with pair[0], pair[1], stuck_in_close() as (number, let_go), open_files(2) as files:
        cmsgx.send_batch(pair[0], [(b"0", files[:1]), (b"1", [number]), (b"2", files[1:])])
        os.close(number)
        before = len(open_fds())
        batch = cmsgx.BatchReceiver(pair[1], 4, 10, fds=1).receive()
        assert len(batch[:]) == 3
        thread = threading.Thread(target=close, args=(batch,))
        thread.start()
        until_it_waits(thread)
        assert thread.is_alive(), "it did not block, so this shows nothing"
        try:
            yield batch
        finally:
            let_go()
            thread.join()
        batch.close()
        assert all(message.closed for message in batch)
        assert len(open_fds()) == before - 1  # without the peer's release


def test_a_batch_that_is_being_closed_is_in_use() -> None:
    messages: list[cmsgx.Message] = []

    def close(batch: cmsgx.Batch) -> None:
        messages.extend(batch)
        batch.close()

    with slow_to_close(close) as batch:
        batch.close()  # it is, for a second caller
        uses: list[Callable[[], object]] = [
            lambda: batch[0], lambda: batch[-1:], lambda: list(batch), lambda: messages[0].take(0)
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(RuntimeError, match="is in use"):
                use()


def test_a_batch_with_a_message_in_use_is_closed_completely_or_not_at_all() -> None:
    with slow_to_close(lambda batch: batch[1].close()) as batch:
        with pytest.raises(RuntimeError, match="is in use"):
            batch.close()
        assert [message.closed for message in batch] == [False, True, False]
        assert [content(batch[at].fds[0]) for at in (0, 2)] == ["0", "1"]
        assert not batch.closed


def test_a_batch_by_many_threads() -> None:
    """All see the same messages, and each descriptor is returned once; a clash is a
    RuntimeError."""
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with open_files(16) as files:
        rx = cmsgx.BatchReceiver(pair[1], 16, 10, fds=1)
        for _ in range(20):
            cmsgx.send_batch(pair[0], [(b"x", [number]) for number in files])
            batch = rx.receive()
            got: list[cmsgx.Fd] = []
            found: list[set[int]] = []

            def take(
                batch: cmsgx.Batch = batch,
                got: list[cmsgx.Fd] = got,
                found: list[set[int]] = found,
            ) -> None:
                mine = set()
                for index in range(16):
                    while True:
                        try:
                            message = batch[index]
                            mine.add(id(message))
                            got.append(message.take(0))
                        except RuntimeError:
                            continue
                        except ValueError:
                            pass
                        break
                found.append(mine)

            run_all(*[take] * 4)
            assert [len(mine) for mine in found] == [16] * 4
            assert len(set.union(*found)) == 16
            assert sorted(int(content(fd)) for fd in got) == list(range(16))
            for fd in got:
                fd.close()
            batch.close()
    close_pair(pair)


def test_batches_sent_by_many_threads_over_one_socket() -> None:
    """Each batch is complete and in order, among those of others."""
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    each, rounds = 5, 60
    got: dict[bytes, list[int]] = {}

    def send(name: bytes) -> None:
        with cmsgx.Fd(os.dup(0)) as fd:
            for number in range(0, each * rounds, each):
                messages: list[Any] = [
                    (b"%s %d" % (name, n), [fd]) for n in range(number, number + each)
                ]
                while messages:
                    del messages[: cmsgx.send_batch(sender, messages)]

    def receive() -> None:
        rx = cmsgx.BatchReceiver(receiver, 16, 100, fds=1)
        left = 4 * each * rounds
        while left:
            with rx.receive() as batch:
                left -= len(batch)
                for msg in batch:
                    assert len(msg.fds) == 1
                    name, number = msg.data.split()
                    got.setdefault(name, []).append(int(number))

    names = [b"a", b"b", b"c", b"d"]
    run_all(receive, *(lambda name=name: send(name) for name in names))
    assert got == {name: list(range(each * rounds)) for name in names}
    close_pair((sender, receiver))


def test_the_gil_is_released_while_it_waits(stream: Pair) -> None:
    for timeout in (None, 60.0):
        stream[1].settimeout(timeout)
        received: list[bytes] = []
        assert gives_up_the_gil(
            lambda: received.append(cmsgx.receive(stream[1], 1).data),  # noqa: B023
            lambda: stream[0].send(b"x"),
        )
        assert received == [b"x"]


def test_closing_an_fd_while_it_is_sent(stream: Pair) -> None:
    """close() returns at once; the right file is sent, or none."""
    rounds = 300
    outcomes: Counter[str] = Counter()
    with open_files(2) as [right, wrong]:
        for _ in range(rounds):
            fd = cmsgx.Fd(os.dup(right))
            barrier = threading.Barrier(2)

            def send(fd: cmsgx.Fd = fd, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                try:
                    cmsgx.send(stream[0], b"x", fds=[fd])
                except OSError as error:
                    outcomes["refused" if "fds[0]" in str(error) else repr(error)] += 1
                else:
                    with cmsgx.receive(stream[1], 1, fds=1) as msg:
                        outcomes[content(msg.fds[0])] += 1

            def close(fd: cmsgx.Fd = fd, barrier: threading.Barrier = barrier) -> None:
                barrier.wait()
                fd.close()
                os.close(os.dup(wrong))  # gets the number, if it is free

            run_all(send, close)
            assert fd.closed
    assert outcomes.keys() <= {"0", "refused"}
    assert outcomes.total() == rounds


def test_close_returns_at_once_while_a_send_waits() -> None:
    """And the descriptor is closed when that call returns."""
    sender, receiver = unix_pair()
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(bytes(4096), socket.MSG_DONTWAIT)
    with contextlib.suppress(BlockingIOError):
        while True:
            sender.send(b"x", socket.MSG_DONTWAIT)
    reader, writer = os.pipe()
    fd = cmsgx.Fd(writer)
    thread = threading.Thread(target=cmsgx.send, args=(sender, b"x"), kwargs={"fds": [fd]})
    thread.start()
    until_it_waits(thread)
    fd.close()  # nothing lets the send continue before
    assert fd.closed
    assert os.fstat(writer)  # pinned
    assert thread.is_alive()
    fds = 0
    while fds == 0:
        with cmsgx.receive(receiver, 1 << 20, fds=1) as msg:
            fds = len(msg.fds)
            if fds:
                os.write(msg.fds[0].fileno(), b"still the pipe")
    thread.join()
    assert os.read(reader, 100) == b"still the pipe"
    assert os.read(reader, 100) == b""  # the other end is no longer open anywhere
    os.close(reader)
    close_pair((sender, receiver))


def test_a_wait_that_ends_after_the_close_sends_nothing() -> None:
    """With a timeout the call waits without holding the descriptor: then EBADF, with the index."""
    sender, receiver = unix_pair()
    sender.settimeout(60)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                cmsgx.send(sender, bytes(size), timeout=0)
    fd = cmsgx.Fd(os.open(os.devnull, os.O_RDONLY))
    errors = []

    def send() -> None:
        try:
            cmsgx.send(sender, b"x", fds=[0, fd])
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    until_it_waits(thread)
    number = fd.fileno()
    fd.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    receiver.recv(1 << 20)
    thread.join()
    assert [error.errno for error in errors] == [9]
    assert "fds[1]" in str(errors[0])
    close_pair((sender, receiver))


def test_an_fd_that_is_a_socket_closed_while_it_is_used() -> None:
    for _ in range(100):
        first, second = unix_pair()
        fd = cmsgx.Fd(second.detach())

        def receive(fd: cmsgx.Fd = fd) -> None:
            with contextlib.suppress(OSError):
                while cmsgx.receive(fd, 10).eof is False:
                    pass

        def close(fd: cmsgx.Fd = fd, first: cmsgx.socket = first) -> None:
            first.send(b"x")
            fd.close()
            first.close()

        run_all(receive, close)


@pytest.mark.parametrize("taken", [True, False])
def test_a_message_by_many_threads(taken: bool) -> None:
    """Each descriptor is returned once; a clash is a RuntimeError."""
    pair = unix_pair()
    with open_files(50) as files:
        for _ in range(20):
            cmsgx.send(pair[0], b"x", fds=files)
            msg = cmsgx.receive(pair[1], 1, fds=50)
            got: list[cmsgx.Fd] = []

            def take(msg: cmsgx.Message = msg, got: list[cmsgx.Fd] = got) -> None:
                for index in range(50):
                    while True:
                        try:
                            got.append(msg.take(index) if taken else msg.fds[index])
                        except RuntimeError:
                            continue
                        except ValueError:
                            assert taken
                        break

            run_all(*[take] * 4)
            if taken:
                assert sorted(int(content(fd)) for fd in got) == list(range(50))
            else:
                assert len(got) == 200
                assert len(set(got)) == 50
            msg.close()
            for fd in got:
                fd.close()
    close_pair(pair)


def test_views_are_read_while_more_is_received() -> None:
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.Receiver(receiver, 256)
    views: list[tuple[Any, bytes]] = []
    done = threading.Event()

    def receive() -> None:
        for number in range(600):
            payload = bytes([number % 256]) * 200
            sender.send(payload)
            with rx.receive() as msg:
                views.append((msg.view[10:150], payload[10:150]))
        done.set()

    def look() -> None:
        while not done.is_set():
            for view, expected in views[-20:]:
                assert view == expected
            del views[:-40]

    run_all(receive, look, look)
    for view, expected in views:
        assert view == expected
    close_pair((sender, receiver))


def test_options_and_identity_from_many_threads(stream: Pair) -> None:
    def ask() -> None:
        for _ in range(50):
            assert cmsgx.peer_credentials(stream[0]).pid == os.getpid()
            with cmsgx.peer_pidfd(stream[0]) as pidfd:
                assert pidfd.pid == os.getpid()
            with cmsgx.enable(stream[0], cmsgx.Rights):
                pass

    before = open_fds()
    run_all(*[ask] * THREADS)
    assert open_fds() == before
