"""docs/hazards.md, part B: exec, fork and SIGPIPE."""

from __future__ import annotations

import array
import contextlib
import faulthandler
import fcntl
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hazards import forked, reap
from native import build
from support import (
    Pair,
    close_pair,
    content,
    eventually,
    is_open,
    open_fds,
    open_files,
    run_python,
    unix_pair,
)

import cmsgx
from cmsgx import _cmsg

SPAWNS = int(os.environ.get("CMSGX_SPAWNS", "2000"))  # 10^4 for a release

FORKS = int(os.environ.get("CMSGX_FORKS", "100"))

SECRET = "cmsgx-secret"


def in_child(function: str, *arguments: object, **more: Any) -> str:
    """Calls a function of this file in a separate process; returns what it printed."""
    code = f"import test_hazards_processes as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, **more)


# B1: received descriptors are close-on-exec -----------------------------------------------------


def numbers_of(ancdata: Any) -> list[int]:
    return [number for item in ancdata for number in array.array("i", item[2])]


def detached(msg: cmsgx.Message) -> list[int]:
    with msg:
        return [fd.detach() for fd in msg.take_all()]


RECEIVE: dict[str, Callable[[Any], list[int]]] = {
    "recvmsg": lambda sock: numbers_of(cmsgx.recvmsg(sock, 1, 1000)[1]),
    "recvmsg_into": lambda sock: numbers_of(cmsgx.recvmsg_into(sock, [bytearray(1)], 1000)[1]),
    "recv_fds": lambda sock: cmsgx.recv_fds(sock, 1, 10)[1],
    "socket.recvmsg": lambda sock: numbers_of(sock.recvmsg(1, 1000)[1]),
    "socket.recv_fds": lambda sock: list(sock.recv_fds(1, 10)[1]),
    "receive": lambda sock: detached(cmsgx.receive(sock, 1, fds=10)),
    "receive, by number": lambda sock: detached(cmsgx.receive(sock.fileno(), 1, fds=10)),
    "Receiver": lambda sock: detached(cmsgx.Receiver(sock, 1, fds=10).receive()),
    "for": lambda sock: detached(next(iter(cmsgx.Receiver(sock, 1, fds=10)))),
    "BatchReceiver": lambda sock: detached(cmsgx.BatchReceiver(sock, 2, 1, fds=10).receive()[0]),
}


@pytest.mark.parametrize("way", RECEIVE)
@pytest.mark.parametrize("is_installed", [False, True], ids=["", "under install()"])
def test_B1_received_descriptors_are_close_on_exec(
    pair: Pair, way: str, is_installed: bool
) -> None:
    with open_files(3) as files:
        for number in files:
            os.set_inheritable(number, True)
        cmsgx.send(pair[0], b"x", fds=files)
    if is_installed:
        cmsgx.install()
    try:
        numbers = RECEIVE[way](pair[1])
    finally:
        cmsgx.uninstall()
    assert len(numbers) == 3
    for number in numbers:
        assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        os.close(number)


def test_B1_whatever_else_makes_a_descriptor_too(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 1, fds=1, want=[cmsgx.PidFd])
    with open_files(1) as files:
        cmsgx.send(stream[0], b"x", fds=files)
    with rx.receive() as msg, msg.fds[0].dup() as dup, msg.take(0).open() as file:
        made: list[Any] = [msg[cmsgx.PidFd], dup, file, cmsgx.peer_pidfd(stream[0])]
        assert not any(os.get_inheritable(one.fileno()) for one in made)
        for one in made:
            one.close()


# B2: and there is no instant at which they are not ----------------------------------------------


def count_children_that_see(secret_sent: str, spawns: int, program: str, cloexec: int) -> None:
    """Receives in one thread, spawns in two others; prints how many of the children had the
    descriptor."""
    first, second = cmsgx.socketpair()
    stop = threading.Event()
    secret = os.memfd_create(secret_sent)
    seen = []

    def send() -> None:
        while not stop.is_set():
            cmsgx.send(first, b"x", fds=[secret])

    def receive() -> None:
        rx = cmsgx.Receiver(second, 1, fds=1)
        while not stop.is_set():
            if not cloexec:
                for number in cmsgx.recv_fds(second, 1, 1, cloexec=False)[1]:
                    os.close(number)
                continue
            with rx.receive():
                pass
            with cmsgx.receive(second, 1, fds=1) as msg:
                msg.take(0).close()
            for number in cmsgx.recv_fds(second, 1, 1)[1]:
                os.close(number)

    def spawn(count: int) -> None:
        for _ in range(count):
            pid = os.posix_spawn(program, [program, secret_sent], {})
            status = reap(pid)
            assert status in (0, 1), status
            seen.append(status)

    threads = [threading.Thread(target=target, daemon=True) for target in (send, receive)]
    spawners = [threading.Thread(target=spawn, args=(spawns // 2,)) for _ in range(2)]
    for thread in threads + spawners:
        thread.start()
    for thread in spawners:
        thread.join()
    stop.set()
    first.shutdown(socket.SHUT_RDWR)
    print(len(seen), sum(seen))


@pytest.mark.slow
def test_B2_no_child_of_a_spawn_storm_sees_one() -> None:
    program = build("scan", "scan.c")
    output = run_storm(SPAWNS, program, 1)
    assert output == [SPAWNS, 0]


@pytest.mark.slow
def test_B2_without_it_they_are_seen() -> None:
    """So the storm does show something."""
    program = build("scan", "scan.c")
    for _ in range(10):
        spawned, seen = run_storm(300, program, 0)
        assert spawned == 300
        if seen:
            return
    pytest.fail("no child saw a descriptor that was inheritable")


def run_storm(spawns: int, program: Path, cloexec: int) -> list[int]:
    ignored = "import threading; threading.excepthook = lambda *_: None; "  # at the shutdown
    code = (
        f"{ignored}import test_hazards_processes as here; "
        f"here.count_children_that_see({SECRET!r}, {spawns}, {str(program)!r}, {cloexec})"
    )
    return [int(word) for word in run_python(code, timeout=600).split()]


# B3: fork -----------------------------------------------------------------------------------------


def fork_storm(forks: int) -> None:
    """Forks while threads receive and the background closer closes; each child uses all of it
    too."""
    warnings.simplefilter("ignore", DeprecationWarning)
    before = open_fds()
    stop = threading.Event()
    pairs = [unix_pair(socket.SOCK_SEQPACKET) for _ in range(3)]
    null = os.open(os.devnull, os.O_RDONLY)
    received = [0] * len(pairs)
    errors: list[BaseException] = []

    def exchange(*arguments: Any) -> None:
        try:
            exchange_until_it_stops(*arguments)
        except BaseException as error:
            errors.append(error)

    def exchange_until_it_stops(index: int, sender: cmsgx.socket, receiver: cmsgx.socket) -> None:
        rx = cmsgx.Receiver(
            receiver, 10, fds=4, want=[cmsgx.PidFd, cmsgx.Credentials], close="background"
        )
        while not stop.is_set():
            cmsgx.send(sender, b"x", fds=[null] * 4)
            with rx.receive() as msg:
                assert msg[cmsgx.PidFd].error is None
                cmsgx.close_in_background(msg.take(0))
                received[index] += 1
            if received[index] % 10 == 0:
                # Three threads receive faster than the one closes: the descriptors that are not
                # closed yet would fill the table, and the next message would not fit.
                assert _cmsg.closer_wait(60) == 0

    # Without the GIL each object has a lock. If another thread held one at the fork, nothing
    # releases it in the child, which waits for ever if it needs it: CPython has this limitation.
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    stuck = 0

    def in_the_child() -> None:
        # A deadlock ends it, and is shown.
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
        signal.alarm(120 if has_gil else 10)
        with contextlib.closing(pairs[0][0]):
            mine = unix_pair()
            rx = cmsgx.Receiver(mine[1], 10, fds=4, close="background")
            for _ in range(3):
                cmsgx.send(mine[0], b"x", fds=[null] * 4)
                with rx.receive() as msg:
                    taken = msg.take(0)
                    number = taken.fileno()
                    taken.close_in_background()
            assert eventually(lambda: not is_open(number))

    threads = [
        threading.Thread(target=exchange, args=(index, *pair)) for index, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(forks):
            with forked(in_the_child) as pid:
                status = reap(pid)
                stuck += status == -signal.SIGALRM
                assert status == 0 or (status == -signal.SIGALRM and not has_gil)
        assert stuck <= forks // 10
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for pair in pairs:
        close_pair(pair)
    os.close(null)
    assert not errors, errors
    assert all(received)
    assert eventually(lambda: open_fds().keys() == before.keys())
    print("done")


@pytest.mark.slow
def test_B3_fork_storm_with_receiving_threads_and_the_background_closer() -> None:
    assert in_child("fork_storm", FORKS).strip() == "done"


def test_B3_a_forked_child_shares_no_receiver_state(stream: Pair) -> None:
    """Two processes own the connection; each message goes to one of them, complete."""
    rx = cmsgx.Receiver(stream[1], 1, fds=1)
    back = unix_pair(socket.SOCK_SEQPACKET)

    def child() -> None:
        with rx.receive() as msg:
            cmsgx.send(back[0], msg.data, fds=msg.fds)

    with open_files(2) as files:
        with forked(child) as pid:
            cmsgx.send(stream[0], b"1", fds=files[:1])
            with cmsgx.receive(back[1], 1, fds=1) as msg:
                assert (msg.data, content(msg.fds[0])) == (b"1", "0")
            assert reap(pid) == 0
        cmsgx.send(stream[0], b"2", fds=files[1:])
        with rx.receive() as msg:
            assert (msg.data, content(msg.fds[0])) == (b"2", "1")
    close_pair(back)


# B4: SIGPIPE --------------------------------------------------------------------------------------

SENDS: dict[str, Callable[[Any], object]] = {
    "send": lambda sock: cmsgx.send(sock, b"x"),
    "send to a number": lambda sock: cmsgx.send(sock.fileno(), b"x"),
    "send with descriptors": lambda sock: cmsgx.send(sock, b"x", fds=[0]),
    "send of several buffers": lambda sock: cmsgx.send(sock, [b"x", b"y"]),
    "send with control": lambda sock: cmsgx.send(sock, b"x", control=cmsgx.Credentials()),
    "send with a timeout": lambda sock: cmsgx.send(sock, b"x", timeout=1),
    "send_all": lambda sock: cmsgx.send_all(sock, b"x"),
    "send_all of much": lambda sock: cmsgx.send_all(sock, bytes(1 << 20), fds=[0]),
    "sendmsg": lambda sock: cmsgx.sendmsg(sock, [b"x"]),
    "send_fds": lambda sock: cmsgx.send_fds(sock, [b"x"], [0]),
    "socket.sendmsg": lambda sock: socket.socket.sendmsg(sock, [b"x"]),
}


@pytest.mark.parametrize("name", SENDS)
def test_B4_typed_sends_never_raise_sigpipe(stream: Pair, name: str) -> None:
    stream[1].close()

    def child() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        with pytest.raises(BrokenPipeError):
            SENDS[name](stream[0])

    with forked(child) as pid:
        is_as_in_socket = name in ("sendmsg", "send_fds", "socket.sendmsg")
        assert reap(pid) == (-signal.SIGPIPE if is_as_in_socket else 0)
