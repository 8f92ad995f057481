"""BatchReceiver: repeated calls, how long each waits, and what ends them."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from batches import LARGE, Interrupt, Whole, drain, handling, interrupt, new_pair, seen, udp_pair
from native import Shim, under_shim
from pairs import later
from support import (
    HEADER,
    Pair,
    allow_many_descriptors,
    content,
    enter_empty_root,
    fill_table,
    gives_up_the_gil,
    in_fork,
    lengths,
    open_fds,
    open_files,
    run_python,
    stuck_in_close,
    unix_pair,
)

import cmsgx
from cmsgx import _cmsg, kinds


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process; returns what it printed."""
    code = f"import test_batch_calls as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=300, env=env)


# Waiting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 10.0])
@pytest.mark.parametrize("by", ["socket", "argument"])
def test_the_first_is_waited_for_and_no_other(
    packets: Pair, timeout: float | None, by: str
) -> None:
    left, right = packets
    if by == "socket":
        right.settimeout(timeout)
    limit: dict[str, Any] = {"timeout": timeout} if by == "argument" else {}
    rx = cmsgx.BatchReceiver(right, 10, 10)
    start = time.monotonic()
    with later(0.1, lambda: left.send(b"one")):
        batch = rx.receive(**limit)
    assert time.monotonic() - start > 0.05
    assert [msg.data for msg in batch] == [b"one"]


def test_a_trickle_does_not_hold_it(packets: Pair) -> None:
    """The timeout of recvmmsg(2) itself would, because it is checked only between messages."""
    left, right = packets
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.01):
            left.send(b"x")

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        # As many as would take a minute.
        rx = cmsgx.BatchReceiver(right, 6000, 10)
        for timeout in (None, 60):
            assert 1 <= len(rx.receive(timeout=timeout)) < 6000
    finally:
        stop.set()
        thread.join()


def test_time_is_up(packets: Pair) -> None:
    rx = cmsgx.BatchReceiver(packets[1], 10, 10)
    packets[1].settimeout(0.05)
    for limit in ({}, {"timeout": 0.05}):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            rx.receive(**limit)  # type: ignore[arg-type]
        assert time.monotonic() - start > 0.04
    packets[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        rx.receive()
    packets[1].settimeout(60)
    with pytest.raises(BlockingIOError):
        rx.receive(timeout=0)


def test_a_number_is_never_waited_for(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right.fileno(), 10, 10)
    os.set_blocking(right.fileno(), False)
    with pytest.raises(BlockingIOError):
        rx.receive()
    cmsgx.send_batch(left.fileno(), [b"a", b"b"])
    assert [msg.data for msg in rx.receive()] == [b"a", b"b"]
    with pytest.raises(TimeoutError):  # unless it was asked for
        rx.receive(timeout=0.01)


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_handler_that_raises_while_it_waits(packets: Pair, timeout: float | None) -> None:
    """Nothing has come: nothing is lost, and the receiver is unchanged."""
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 10, 10, fds=1)
    with handling(interrupt):
        signal.setitimer(signal.ITIMER_REAL, 0.05, 5)  # again, if it came too early
        with pytest.raises(Interrupt):
            rx.receive(timeout=timeout)
    with open_files(1) as files:
        cmsgx.send(left, b"x", fds=files)
        with rx.receive() as batch:
            assert seen(batch) == [Whole(b"x", ["0"])]


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_handler_that_returns_while_it_waits(packets: Pair, timeout: float | None) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 10, 10)
    with handling(lambda *_: left.send(b"by the handler")):
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert [msg.data for msg in rx.receive(timeout=timeout)] == [b"by the handler"[:10]]


# Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 63, 1024, 1025, 2000])
def test_any_count(packets: Pair, count: int) -> None:
    left, right = packets
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
    messages = [str(i).encode() for i in range(count)]
    assert cmsgx.send_batch(left, messages) == count
    rx = cmsgx.BatchReceiver(right, count, 16)
    assert rx.count == count
    assert [msg.data for msg in rx.receive()] == messages
    with pytest.raises(BlockingIOError):
        rx.receive(timeout=0)


def test_more_than_asked_stays_in_the_queue(packets: Pair) -> None:
    cmsgx.send_batch(packets[0], [b"1", b"2", b"3"])
    rx = cmsgx.BatchReceiver(packets[1], 2, 16)
    assert [msg.data for msg in rx.receive()] == [b"1", b"2"]
    assert [msg.data for msg in rx.receive()] == [b"3"]


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"count": 0}, ValueError, "count: 0; must be 1 to"),
    ({"count": -1}, ValueError, "count: -1; must be 1 to"),
    ({"count": 1 << 21}, ValueError, "count: 2097152; must be 1 to"),
    ({"count": 1 << 70}, ValueError, f"count: {1 << 70}; must be 1 to"),
    ({"count": -(1 << 70)}, ValueError, f"count: {-(1 << 70)}; must be 1 to"),
    ({"count": "1"}, TypeError, "count: an int is needed, not str"),
    ({"bufsize": -1}, ValueError, "bufsize: -1; it cannot be negative"),
    ({"bufsize": -(1 << 70)}, ValueError, f"bufsize: {-(1 << 70)}; it cannot be negative"),
    ({"bufsize": (1 << 31) - 4095}, ValueError, "bufsize: 2147479553; one call brings 2147479552"),
    ({"bufsize": sys.maxsize}, ValueError, f"bufsize: {sys.maxsize}; one call brings 2147479552"),
    ({"bufsize": 1 << 62}, ValueError, f"bufsize: {1 << 62}; one call brings 2147479552"),
    ({"bufsize": 1 << 70}, ValueError, f"bufsize: {1 << 70}; one call brings 2147479552"),
    ({"fds": -1}, ValueError, "fds: -1; it cannot be negative"),
    ({"fds": 254}, cmsgx.TooManyFdsError, "fds: 254; one message carries 253 at most"),
    ({"fds": 1 << 40}, cmsgx.TooManyFdsError, f"fds: {1 << 40}; one message carries 253 at most"),
    ({"close": "later"}, ValueError, "close: 'later'; must be 'now' or 'background'"),
    ({"want": [int]}, TypeError, "int"),
    ({"want": [kinds.Ttl]}, cmsgx.NotSupportedError, "Ttl"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), WRONG)
def test_wrong_arguments(
    packets: Pair, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    before = packets[1].getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED)
    with pytest.raises(error, match=text):
        cmsgx.BatchReceiver(
            packets[1], **{"count": 1, "bufsize": 1, "want": [cmsgx.Credentials], **arguments}
        )
    assert packets[1].getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == before


def test_it_is_initialised_once(packets: Pair) -> None:
    raw: Any = _cmsg.BatchReceiver
    with pytest.raises(ValueError, match="was not initialised"):
        raw.__new__(raw).receive()
    rx: Any = cmsgx.BatchReceiver(packets[1], 1, 1)
    with pytest.raises(TypeError, match="initialised only once"):
        rx.__init__(packets[1], 1, 1)
    assert rx.sock is packets[1]
    for wrong in ({"flag": 1}, {"flags": "1"}, {"flags": 1 << 40}, {"timeout": -1}):
        with pytest.raises((TypeError, OverflowError, ValueError)):
            rx.receive(**wrong)
    with pytest.raises(TypeError):
        rx.receive(1)


def test_a_socket_with_its_own_methods_is_refused(packets: Pair) -> None:
    ssl = pytest.importorskip("ssl")  # a Python may be built without
    context = ssl.create_default_context()
    with context.wrap_socket(
        socket.socket(), do_handshake_on_connect=False, server_hostname="localhost"
    ) as wrapped:
        with pytest.raises(TypeError, match="of its own"):
            cmsgx.BatchReceiver(wrapped, 1, 1).receive()
        with pytest.raises(TypeError, match="of its own"):
            cmsgx.send_batch(wrapped, [b"x"])


def test_an_fd_as_socket(packets: Pair) -> None:
    with cmsgx.Fd(os.dup(packets[1].fileno())) as fd:
        rx = cmsgx.BatchReceiver(fd, 2, 10)
        cmsgx.send_batch(packets[0], [b"1", b"2"])
        assert [msg.data for msg in rx.receive()] == [b"1", b"2"]
    with pytest.raises((OSError, ValueError)):
        rx.receive()


def test_a_closed_socket(packets: Pair) -> None:
    rx = cmsgx.BatchReceiver(packets[1], 2, 10)
    packets[1].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        rx.receive()
    with pytest.raises(OSError, match="Bad file descriptor"):
        cmsgx.BatchReceiver(packets[1], 2, 10)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        cmsgx.send_batch(packets[1], [(b"x", [0])])
    assert caught.value.errno == errno.EBADF


# The end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_a_loop_ends_at_the_end(kind: int, count: int) -> None:
    with new_pair(kind) as (left, right), open_files(3) as files:
        for i in range(3):
            cmsgx.send(left, str(i).encode(), fds=[files[i]])
        left.close()
        rx = cmsgx.BatchReceiver(right, count, 10, fds=1)
        got = [seen(batch) for batch in rx]
        expected = [Whole(str(i).encode(), [str(i)]) for i in range(3)]
        assert got == [expected[at : at + count] for at in range(0, 3, count)]
        assert list(rx) == []


def test_the_end_of_a_stream_is_one_message() -> None:
    with new_pair(socket.SOCK_STREAM) as (left, right):
        rx = cmsgx.BatchReceiver(right, 8, 10)
        left.send(b"x")
        left.close()
        first, second = rx.receive(), rx.receive()
        assert [msg.data for msg in first] == [b"x"]
        assert [(msg.data, msg.eof) for msg in second] == [(b"", True)]
        assert first[0].eof is False


def test_a_loop_closes_what_was_left(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 2, 10, fds=1)
    with open_files(1) as files:
        before = len(open_fds())
        for _ in range(5):
            cmsgx.send(left, b"x", fds=files)
        cmsgx.send(left, b"end")
        for batch in rx:
            assert len(open_fds()) == before + sum(len(msg.fds) for msg in batch)
            if batch[-1].data == b"end":
                break
            assert len(batch) == 2
        batch.close()
        assert len(open_fds()) == before


def test_an_empty_message_with_others_after_it_is_not_the_end(packets: Pair) -> None:
    """Even though the peer has gone, what was received is returned."""
    left, right = packets
    with open_files(1) as files:
        cmsgx.send_batch(left, [b"", (b"x", files), b"", (b"", files)])
        left.close()
        rx = cmsgx.BatchReceiver(right, 16, 10, fds=1)
        got = [seen(batch) for batch in rx]
        assert got == [[Whole(b"", []), Whole(b"x", ["0"]), Whole(b"", []), Whole(b"", ["0"])]]


def hung_up_behind(*sizes: int) -> None:
    """The peer goes right after the call, which saw no end."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    messages = [bytes(size) for size in sizes]
    cmsgx.send_batch(left, messages)
    shim.hang_up(left.fileno())
    got = [[msg.data for msg in batch] for batch in cmsgx.BatchReceiver(right, 4, 10)]
    assert got == [messages]
    print("done")


@pytest.mark.parametrize("sizes", [(1, 0, 0), (0,), (0, 0), (0, 1, 0)])
@pytest.mark.slow
def test_empty_messages_before_the_end_is_read_are_not_the_end(sizes: tuple[int, ...]) -> None:
    assert in_child("hung_up_behind", *sizes, env=under_shim()).strip() == "done"


@pytest.mark.parametrize("by", ["name", "credentials"])
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_empty_messages_that_name_their_sender_are_not_the_end(
    tmp_path: Path, by: str, count: int
) -> None:
    """Whatever comes after them: the end has no sender."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left,
    ):
        listener.bind(str(tmp_path / "listener"))
        cmsgx.enable(listener, *([cmsgx.Credentials] if by == "credentials" else []))
        listener.listen()
        if by == "name":
            left.bind(str(tmp_path / "left"))
        left.connect(str(tmp_path / "listener"))
        right = listener.accept()[0]
        with right:
            cmsgx.send_batch(left, [b"x", b"", b""])
            left.close()
            rx = cmsgx.BatchReceiver(
                right, count, 10, want=[cmsgx.Credentials] if by == "credentials" else []
            )
            got = [msg for batch in rx for msg in batch]
            assert [(msg.data, msg.eof) for msg in got] == [
                (b"x", False), (b"", False), (b"", False)
            ]  # fmt: skip


def test_empty_datagrams_are_not_the_end() -> None:
    with udp_pair() as (one, two):
        cmsgx.send_batch(one, [(b"", (), (), two.getsockname())] * 3)
        rx = cmsgx.BatchReceiver(two, 16, 10)
        batch = next(iter(rx))
        assert [(msg.data, msg.eof) for msg in batch] == [(b"", False)] * 3


def test_an_error_after_messages_belongs_to_the_next_call() -> None:
    with new_pair(socket.SOCK_STREAM) as (left, right), open_files(1) as files:
        right.send(b"never read")
        for _ in range(2):
            cmsgx.send(left, b"x", fds=files)
        left.close()
        rx = cmsgx.BatchReceiver(right, 16, 10, fds=1)
        got: list[Whole] = []
        errors: list[OSError] = []
        while not errors:
            try:
                with rx.receive() as batch:
                    got += seen(batch)
            except ConnectionResetError as error:
                errors.append(error)
        # If the kernel reports the error first, what was sent comes after it.
        got += drain(right)
        assert got == [Whole(b"x", ["0"])] * 2


# Descriptors from strangers ---------------------------------------------------------------------


def test_closed_in_the_background(packets: Pair) -> None:
    """A descriptor from a peer can block in close(2), but not in this thread."""
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 4, 10, fds=1, close="background")
    with stuck_in_close() as (number, let_go):
        cmsgx.send_batch(left, [(b"1", [number]), b"2"])
        os.close(number)
        counts: list[int] = []
        while len(counts) < 2:  # one batch, if the table has space for all that could come
            with rx.receive() as batch:
                counts += [len(msg.fds) for msg in batch]
        assert counts == [1, 0]
        let_go()
        assert _cmsg.closer_wait(60) == 0


def test_the_gil_is_released_to_close(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 4, 10, fds=1)
    with stuck_in_close() as (number, let_go):
        cmsgx.send_batch(left, [(b"1", [number]), b"2"])
        os.close(number)
        assert gives_up_the_gil(rx.receive().close, let_go)


MALFORMED = ("rights-len=0", f"rights-len={HEADER - 1}", "rights-len=past", "rights-len=max")


def malformed_at(mode: str) -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    rx = cmsgx.BatchReceiver(right, 5, 10, fds=2)
    with open_files(2) as files:
        before = open_fds()
        for index in range(5):
            cmsgx.send_batch(left, [(str(i).encode(), files[:1]) for i in range(5)])
            shim.mode(mode)
            shim.at(index)
            batch = rx.receive()
            shim.mode("")
            assert len(batch) == 5
            for i, msg in enumerate(batch):
                assert msg.data == str(i).encode()
                assert msg.truncated == (i == index)
                assert msg.closed_fds == (None if i == index else 0)
                assert [content(fd) for fd in msg.fds] == ([] if i == index else ["0"])
                assert cmsgx.Rights in msg or i == index
            batch.close()
            assert open_fds() == before
    print("done")


@pytest.mark.parametrize("mode", MALFORMED)
@pytest.mark.slow
def test_a_malformed_message_is_closed_and_said_to_be_truncated(mode: str) -> None:
    assert in_child("malformed_at", mode, env=under_shim()).strip() == "done"


def lies(count: int) -> None:
    """Any forged control data, at each place of a batch."""
    allow_many_descriptors()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    size = 3  # for which a table of 1024 has space, whatever comes
    rx = cmsgx.BatchReceiver(right, size, 10, fds=3, want=[cmsgx.PidFd])
    with open_files(6) as files:
        before = open_fds()
        for seed in range(count):
            at = seed % size
            shim.seed(seed)
            shim.at(at)
            # None of the other descriptors is closed, although a forged number could name one.
            counts = [(seed + i) % (7 if i == at else 4) for i in range(size)]
            cmsgx.send_batch(left, [(b"x", files[:number]) for number in counts])
            shim.mode("random")
            with shim.guard(), rx.receive() as batch:
                for i, msg in enumerate(batch):
                    with suppress(cmsgx.MalformedControlError):
                        list(msg)
                    assert len(msg.fds) <= 3 if i == at else len(msg.fds) == counts[i]
            shim.mode("")
            del batch, msg
            assert shim.leaked() == 0, seed
            assert shim.strangers() == 0, seed
            shim.forget()
        assert open_fds() == before
    assert shim.dirty() == 0
    print("done")


@pytest.mark.parametrize("count", lengths("CMSGX_LIES", 400, 4000))
def test_random_falsified_lengths_in_a_batch(count: int) -> None:
    assert in_child("lies", count, env=under_shim()).strip() == "done"


def zeroed() -> None:
    """Buffers are zero before the kernel writes, whatever was in them."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    rx = cmsgx.BatchReceiver(right, 4, 10, fds=20, want=[cmsgx.Credentials])
    with open_files(20) as files:
        for turn in range(8):
            for i in range(4):
                cmsgx.send(left, b"x", fds=files[: (turn * 5 + i * 7) % 21])
            with rx.receive() as batch:
                assert len(batch) == 4
    assert shim.receives() == 32
    assert shim.dirty() == 0
    print("done")


def test_control_buffers_are_zeroed() -> None:
    assert in_child("zeroed", env=under_shim()).strip() == "done"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_batch_with_descriptors_is_not_smaller_in_a_chroot(packets: Pair, tmp_path: Path) -> None:
    """Without /proc the free space in the table is counted in another way."""
    left, right = packets
    for number in range(8):
        cmsgx.send(left, bytes([number]), fds=[0])
    receiver = cmsgx.BatchReceiver(right, 8, 10, fds=1)

    def child() -> None:
        enter_empty_root(tmp_path / "empty")
        with receiver.receive() as batch:
            assert len(batch) == 8
            assert all(len(message.fds) == 1 for message in batch)
        # And not larger than the free space in the table.
        for number in range(8):
            cmsgx.send(left, bytes([number]), fds=[0])
        fill_table(but=7)
        with receiver.receive() as batch:
            assert 0 < len(batch) < 8
            assert not any(message.truncated for message in batch)

    in_fork(child)
