"""send_all: all of it, once, within one deadline, and what an error says and keeps."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from batches import handling, of_handlers, raising
from native import Shim, under_shim
from pairs import fill, new_pair
from support import (
    Pair,
    open_files,
    run_python,
)

import cmsgx


@pytest.mark.parametrize("shape", ["one buffer", "many buffers"])
@pytest.mark.parametrize("timeout", [None, 60.0])
def test_send_all_sends_all(stream: Pair, shape: str, timeout: float | None) -> None:
    """Without a timeout the kernel does everything in one call, with a timeout it accepts parts."""
    stream[0].settimeout(timeout)
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    payload = os.urandom(300_000)
    data: Any = payload
    if shape == "many buffers":
        data = [payload[at : at + 3_333] for at in range(0, len(payload), 3_333)]
    with open_files(2) as files:
        thread = threading.Thread(
            target=cmsgx.send_all, args=(stream[0], data), kwargs={"fds": files}
        )
        thread.start()
        got, fds = b"", 0
        while len(got) < len(payload):
            with cmsgx.receive(stream[1], 50_000, fds=10) as msg:
                got += msg.data
                fds += len(msg.fds)
        thread.join()
    assert got == payload
    assert fds == 2


def test_send_all_takes_more_buffers_than_one_call(stream: Pair) -> None:
    cmsgx.send_all(stream[0], [b"a"] * 3000)
    got = b""
    while len(got) < 3000:
        got += cmsgx.receive(stream[1], 4000, timeout=60).data
    assert got == b"a" * 3000


@pytest.mark.parametrize("data", [b"", [], [b"", b""]], ids=repr)
def test_send_all_of_nothing(stream: Pair, data: Any) -> None:
    cmsgx.send_all(stream[0], data)
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[1], 1, timeout=0)


@pytest.mark.parametrize(
    ("own", "arguments", "error"),
    [
        (None, {"timeout": 0.2}, TimeoutError),
        (0.2, {}, TimeoutError),
        (3600, {"timeout": 0.2}, TimeoutError),
        (0, {}, BlockingIOError),
        (None, {"timeout": 0}, BlockingIOError),
    ],
    ids=str,
)
def test_send_all_that_fails_says_how_much_was_sent(
    stream: Pair, own: float | None, arguments: dict[str, Any], error: type[OSError]
) -> None:
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stream[0].settimeout(own)
    payload = os.urandom(1_000_000)
    start = time.monotonic()
    with open_files(1) as files, pytest.raises(error) as caught:
        cmsgx.send_all(stream[0], payload, fds=files, **arguments)
    elapsed = time.monotonic() - start
    assert error is BlockingIOError or elapsed >= 0.2
    sent = caught.value.sent  # type: ignore[attr-defined]
    assert 0 < sent < len(payload)
    got, fds = b"", 0
    while len(got) < sent:
        with cmsgx.receive(stream[1], 100_000, fds=5) as msg:
            got += msg.data
            fds += len(msg.fds)
    assert got == payload[:sent]
    assert fds == 1
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[1], 1, timeout=0)


def test_send_all_has_one_deadline_for_all_of_it(stream: Pair) -> None:
    """A peer that reads a little now and then does not extend it."""
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    stop = threading.Event()

    def trickle() -> None:
        while not stop.wait(0.05):
            with suppress(BlockingIOError):
                stream[1].recv(4000, socket.MSG_DONTWAIT)

    thread = threading.Thread(target=trickle)
    thread.start()
    start = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        cmsgx.send_all(stream[0], bytes(10_000_000), timeout=0.4)
    elapsed = time.monotonic() - start
    stop.set()
    thread.join()
    assert elapsed >= 0.4
    assert caught.value.sent > 0  # type: ignore[attr-defined]


def test_send_all_waits_for_what_is_left_of_its_time(
    stream: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call for less than the previous one."""
    stream[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    data = bytes(200_000)
    timeouts: list[float] = []

    class Watched:
        def __init__(self, *arguments: Any, **more: Any) -> None:
            self.prepared = cmsgx.PreparedSend(*arguments, **more)

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *_: object) -> None:
            self.prepared.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.prepared, name)

        def _send(self, timeout: float) -> Any:
            timeouts.append(timeout)
            return self.prepared._send(timeout)

    monkeypatch.setattr("cmsgx._sync.PreparedSend", Watched)
    thread = threading.Thread(target=cmsgx.send_all, args=(stream[0], data), kwargs={"timeout": 60})
    thread.start()
    assert len(stream[1].recv(len(data), socket.MSG_WAITALL)) == len(data)
    thread.join()
    assert len(timeouts) > 1
    assert all(next < last for last, next in itertools.pairwise(timeouts))


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_send_all_never_makes_several_messages_of_one(kind: int) -> None:
    with new_pair(kind) as (left, right):
        with pytest.raises(OSError, match="1025 buffers; one call takes 1024") as caught:
            cmsgx.send_all(left, [b"x"] * 1025)
        assert caught.value.errno == errno.EMSGSIZE
        assert caught.value.sent == 0  # type: ignore[attr-defined]
        cmsgx.send_all(left, [b"x"] * 1024 + [b""] * 5)
        assert right.recv(2000) == b"x" * 1024
        with pytest.raises(BlockingIOError):
            right.recv(1, socket.MSG_DONTWAIT)


def interrupted_behind(zero_copy: bool, which: int) -> None:
    """A handler raises right after a system call that sent."""
    error: Any = of_handlers()[which]
    shim = Shim()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as left:
        left.connect(listener.getsockname())
        with listener.accept()[0] as right, handling(raising(error)):
            left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
            right.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
            left.settimeout(60)
            sender = cmsgx.ZeroCopySender(left) if zero_copy else None
            send_all = partial(cmsgx.send_all, left) if sender is None else sender.send_all
            shim.delay_send(200)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            # Less than RLIMIT_MEMLOCK, above which nothing is sent without a copy.
            with pytest.raises(type(error)) as caught:
                send_all([bytes(10), bytes(1_000_000)])
            shim.delay_send(0)
            assert caught.value is error
            if sender is not None:
                assert 0 < error.sent == sender.pending.bytes
                sender.release()
            left.shutdown(socket.SHUT_WR)
            arrived = 0
            while more := right.recv(1 << 16):
                arrived += len(more)
            assert 0 < error.sent == arrived < 1_000_000
    print("done")


@pytest.mark.parametrize("zero_copy", [False, True])
@pytest.mark.parametrize("which", range(len(of_handlers())))
@pytest.mark.slow
def test_send_all_counts_what_was_sent_before_a_handler_raised(zero_copy: bool, which: int) -> None:
    code = f"import test_send_all as here; here.interrupted_behind({zero_copy}, {which})"
    assert run_python(code, env=under_shim()).strip() == "done"


class Watched(bytearray):
    """Can be referred to weakly."""


FAILURES: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "time is up": (TimeoutError, {"timeout": 0.01}),
    "EAGAIN": (BlockingIOError, {"timeout": 0}),
    "hung up": (BrokenPipeError, {}),
    "wrong fds": (TypeError, {"fds": ["x"]}),
}


@pytest.mark.parametrize(
    "give", [lambda data: data, lambda data: [data, b"x"], lambda data: iter([data])]
)
@pytest.mark.parametrize("how", FAILURES)
def test_send_all_that_fails_keeps_nothing(
    stream: Pair, how: str, give: Callable[[Any], Any]
) -> None:
    """What was sent can be removed from the data at once, and no cycle holds it."""
    kind, arguments = FAILURES[how]
    data = Watched(1_000_000)
    gone = weakref.ref(data)
    if how == "hung up":
        stream[1].close()
    gc.disable()
    try:
        try:
            cmsgx.send_all(stream[0], give(data), **arguments)
        except kind as error:
            sent = error.sent  # type: ignore[attr-defined]
            assert (sent > 0) is (how in ("time is up", "EAGAIN"))
            del data[:sent]
        assert len(data) == 1_000_000 - sent
        del data
        assert gone() is None
    finally:
        gc.enable()


def test_send_all_of_wrong_data_sent_nothing(stream: Pair) -> None:
    with pytest.raises(TypeError, match=r"data\[1\]") as caught:
        cmsgx.send_all(stream[0], [b"x", "x"])  # type: ignore[list-item]
    assert caught.value.sent == 0  # type: ignore[attr-defined]


def test_send_all_that_sent_nothing_says_so(stream: Pair) -> None:
    fill(stream[0])
    with open_files(1) as files, pytest.raises(TimeoutError) as caught:
        cmsgx.send_all(stream[0], b"x", fds=files, timeout=0.05)
    assert caught.value.sent == 0  # type: ignore[attr-defined]


def test_send_all_with_a_number_never_waits(stream: Pair) -> None:
    stream[0].setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        cmsgx.send_all(stream[0].fileno(), bytes(10_000_000))
    assert caught.value.sent > 0  # type: ignore[attr-defined]


def test_send_all_waits_without_end_where_timeout_is_none(stream: Pair) -> None:
    stream[0].settimeout(0.05)
    received: list[bytes] = []

    def read_slowly() -> None:
        time.sleep(0.3)
        with suppress(OSError):
            while sum(map(len, received)) < 1_000_000:
                received.append(stream[1].recv(100_000) or bytes(1_000_000))

    thread = threading.Thread(target=read_slowly)
    thread.start()
    try:
        cmsgx.send_all(stream[0], bytes(1_000_000), timeout=None)
    finally:
        stream[0].close()
        thread.join()
