"""docs/hazards.md, parts B, D and I: fork, exec, whose message a descriptor came with, identity."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import faulthandler
import fcntl
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt
from native import Shim, build, under_shim
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
NOBODY = 65534
IS_ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can be somebody else")


def in_child(function: str, *arguments: object, **more: Any) -> str:
    """Calls a function of this file in a process of its own; what it printed."""
    code = f"import test_hazards_other as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, **more)


@contextlib.contextmanager
def forked(child: Callable[[], object]) -> Iterator[int]:
    """A process that runs that and exits with 0; its pid. Not reaped here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of ours may run
        pid = os.fork()
    if pid == 0:
        status = 70
        try:
            child()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    yield pid


def reap(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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
    """Receives in one thread, spawns in two others; prints how many of the children saw it."""
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
    """So the storm shows something."""
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
        f"{ignored}import test_hazards_other as here; "
        f"here.count_children_that_see({SECRET!r}, {spawns}, {str(program)!r}, {cloexec})"
    )
    return [int(word) for word in run_python(code, timeout=600).split()]


# B3: fork -----------------------------------------------------------------------------------------


def fork_storm(forks: int) -> None:
    """Forks while threads receive and close in background; each child uses all of it too."""
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
                # Three threads take faster than the one closes: what it has not closed yet would
                # fill the table, and the next message find no room.
                assert _cmsg.closer_wait(60) == 0

    # Without the GIL each object has a lock. Where another thread had one at the fork, nobody gives
    # it back in the child, which waits for ever if it needs it: so CPython has it.
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
    """Two processes own the connection; each message goes to one of them, whole."""
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
        with contextlib.suppress(BrokenPipeError):
            SENDS[name](stream[0])

    with forked(child) as pid:
        is_as_in_socket = name in ("sendmsg", "send_fds", "socket.sendmsg")
        assert reap(pid) == (-signal.SIGPIPE if is_as_in_socket else 0)


# D2: a partial send -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one buffer", "buffers of odd sizes"])
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_D2_descriptors_go_once_however_the_bytes_are_split(
    stream: Pair, kind: str, timeout: float | None
) -> None:
    sender, receiver = stream
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    sender.settimeout(timeout)
    payload = random.Random(1).randbytes(1_000_000)
    data: Any = payload
    if kind != "one buffer":
        data = [payload[at : at + 777] for at in range(0, len(payload), 777)]
    got: list[tuple[int, list[str]]] = []

    def receive() -> None:
        rx = cmsgx.Receiver(receiver, 65536, fds=253)
        at = 0
        while at < len(payload):
            with rx.receive() as msg:
                assert payload.startswith(msg.data, at)
                got.append((at, [content(fd) for fd in msg.fds]))
                at += msg.nbytes

    thread = threading.Thread(target=receive)
    thread.start()
    with open_files(3) as files:
        cmsgx.send_all(sender, data, fds=files)
    thread.join()
    assert len(got) > 3, "it went in one piece, so this showed nothing"
    assert got[0] == (0, ["0", "1", "2"])
    assert not any(fds for _, fds in got[1:])


def test_D2_control_goes_once_too(stream: Pair) -> None:
    sender, receiver = stream
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    sender.settimeout(60)  # so that each try takes a part
    with open_files(1) as files:
        thread = threading.Thread(
            target=cmsgx.send_all,
            args=(sender, bytes(200_000)),
            kwargs={"control": [cmsgx.Rights(files)]},
        )
        thread.start()
        got = fds = 0
        while got < 200_000:
            with cmsgx.receive(receiver, 65536, fds=253) as msg:
                got += msg.nbytes
                fds += len(msg.fds)
        thread.join()
    assert fds == 1


# D3: descriptors without a byte -------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", [], [b""], (b"", bytearray())], ids=repr)
@pytest.mark.parametrize("by", ["fds", "control"])
@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
@pytest.mark.parametrize("form", ["socket", "int", "Fd"])
def test_D3_no_byte_on_a_stream_is_refused(
    stream: Pair, data: Any, by: str, call: Callable[..., object], form: str
) -> None:
    with open_files(1) as files, contextlib.ExitStack() as stack:
        sock: Any = stream[0]
        if form == "int":
            sock = sock.fileno()
        elif form == "Fd":
            sock = stack.enter_context(cmsgx.Fd(os.dup(sock.fileno())))
        arguments: Any = {"fds": files} if by == "fds" else {"control": cmsgx.Rights(files)}
        with pytest.raises(ValueError, match="at least one byte"):
            call(sock, data, **arguments)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
def test_D3_elsewhere_it_arrives(kind: int, call: Callable[..., object]) -> None:
    pair = unix_pair(kind)
    with open_files(1) as files:
        call(pair[0], b"", fds=files)
    with cmsgx.receive(pair[1], 10, fds=1) as msg:
        assert (msg.nbytes, content(msg.fds[0])) == (0, "0")
    close_pair(pair)


def test_D3_the_drop_ins_are_as_in_socket(stream: Pair) -> None:
    assert cmsgx.send_fds(stream[0], [b""], [0]) == 0
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[1], 1, fds=1, timeout=0)


# D4: another family -------------------------------------------------------------------------------


@contextlib.contextmanager
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second = listener.accept()[0]
    with first, second:
        yield first, second


@pytest.mark.parametrize("by", ["fds", "control", "both"])
@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
@pytest.mark.parametrize("form", ["socket", "int", "Fd"])
def test_D4_descriptors_over_tcp_are_refused(
    by: str, call: Callable[..., object], form: str
) -> None:
    with tcp() as (first, second), open_files(2) as files, contextlib.ExitStack() as stack:
        sock: Any = first
        if form == "int":
            sock = first.fileno()
        elif form == "Fd":
            sock = stack.enter_context(cmsgx.Fd(os.dup(first.fileno())))
        arguments: dict[str, Any] = {}
        if by != "control":
            arguments["fds"] = files[:1]
        if by != "fds":
            arguments["control"] = [cmsgx.Rights(files[1:])]
        with pytest.raises(cmsgx.NotSupportedError, match="AF_UNIX") as caught:
            call(sock, b"data", **arguments)
        assert caught.value.errno == errno.EOPNOTSUPP
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(1)
        call(sock, b"data")
        assert cmsgx.receive(second, 10, timeout=60).data == b"data"


@pytest.mark.parametrize(
    ("family", "kind", "address"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9)),
        (socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 9)),
        (socket.AF_NETLINK, socket.SOCK_RAW, None),
    ],
)
def test_D4_and_over_each_other_family(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        with pytest.raises(cmsgx.NotSupportedError):
            cmsgx.send(sock, b"x", fds=[0], address=address)
        if family == socket.AF_INET:
            with pytest.raises((cmsgx.NotSupportedError, ValueError)):
                cmsgx.send(sock, b"x", fds=[0], address=("localhost", 9))


# D5: empty or at the end --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_D5_an_empty_message_with_descriptors_is_no_end(kind: int) -> None:
    sender, receiver = unix_pair(kind)
    rx = cmsgx.Receiver(receiver, 10, fds=2)
    with open_files(2) as files:
        cmsgx.send(sender, b"", fds=files)
        cmsgx.send(sender, b"", fds=files[:1])
    sender.close()
    ways: tuple[tuple[int, Callable[[], cmsgx.Message]], ...] = (
        (2, rx.receive),
        (1, lambda: cmsgx.receive(receiver, 10, fds=2)),
    )
    for count, receive in ways:
        with receive() as msg:
            assert msg.eof is False
            assert msg.nbytes == 0
            assert len(msg.fds) == count
    if kind == socket.SOCK_SEQPACKET:
        assert rx.receive().eof is None
        assert list(rx) == []
    receiver.close()


def test_D5_an_empty_message_whose_descriptors_nobody_wants_is_closed() -> None:
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    before = open_fds()
    cmsgx.send(sender, b"", fds=[0])
    with cmsgx.receive(receiver, 10) as msg:
        assert msg.eof is not True
        assert msg.closed_fds == 1
    assert open_fds() == before
    close_pair((sender, receiver))


# D6: half a message -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 4095, 4096, 4097, 65536])
@pytest.mark.parametrize("by", ["receive", "Receiver", "into", "two buffers"])
def test_D6_a_cut_datagram_raises_and_closes(kind: int, size: int, by: str) -> None:
    sender, receiver = unix_pair(kind)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    payload = random.Random(size).randbytes(size)

    def receive(room: int) -> cmsgx.Message:
        if by == "receive":
            return cmsgx.receive(receiver, room, fds=2)
        if by == "Receiver":
            return cmsgx.Receiver(receiver, room, fds=2).receive()
        if by == "into":
            return cmsgx.Receiver(receiver, into=bytearray(room), fds=2).receive()
        parts = [bytearray(room // 2), bytearray(room - room // 2)]
        return cmsgx.Receiver(receiver, into=parts, fds=2).receive()

    with open_files(2) as files:
        for room in (size - 1, size, size + 1):
            cmsgx.send(sender, payload, fds=files)
            before = open_fds()
            if room < size:
                with pytest.raises(cmsgx.DataTruncatedError) as caught:
                    receive(room)
                assert caught.value.message.data == payload[:room]
            else:
                with receive(room) as msg:
                    assert msg.data == payload
                    assert len(msg.fds) == 2
                    assert not msg.truncated
            assert open_fds() == before
    close_pair((sender, receiver))


def test_D6_more_than_a_stream_buffer_takes_is_no_truncation(stream: Pair) -> None:
    with open_files(1) as files:
        cmsgx.send(stream[0], b"12345", fds=files)
    with cmsgx.receive(stream[1], 2, fds=1) as msg:
        assert (msg.data, msg.truncated, len(msg.fds)) == (b"12", False, 1)
    with cmsgx.receive(stream[1], 10, fds=1) as msg:
        assert (msg.data, len(msg.fds)) == (b"345", 0)


# D7: a batch that stops half way ------------------------------------------------------------------

INJECTED = ("EPERM", "ENOBUFS", "ENOMEM", "ETOOMANYREFS", "ECONNREFUSED", "EAGAIN", "EIO", "EBADF")


def arrived(sock: cmsgx.socket) -> list[tuple[bytes, list[str]]]:
    """Each message that is there, and what its descriptors hold."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            with cmsgx.receive(sock, 100, fds=9, timeout=0) as msg:
                found.append((msg.data, [content(fd) for fd in msg.fds]))
    return found


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("by", ["number", "Fd"])
def test_D7_a_bad_descriptor_at_each_index(index: int, by: str) -> None:
    """Those in front of it went, that is told, and the next call hears of the error. Whoever had a
    descriptor before has it still, and no other is closed."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right, open_files(6) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        messages: list[Any] = [(str(i).encode(), [files[i], owners[i + 1]]) for i in range(5)]
        bad: Any = os.dup(0)
        os.close(bad)
        if by == "Fd":
            bad = cmsgx.Fd(os.dup(0))
            bad.close()
        messages[index] = (b"bad", [files[0], bad])
        before = open_fds()
        rest = messages
        if index > 0:
            sent = cmsgx.send_batch(left, messages)
            assert sent == index
            rest = messages[sent:]
        with pytest.raises(OSError, match=r"fds\[1\]") as caught:
            cmsgx.send_batch(left, rest)
        assert caught.value.errno == errno.EBADF
        assert open_fds() == before
        expected = [(str(i).encode(), [str(i), str(i + 1)]) for i in range(index)]
        assert arrived(right) == expected
        # And what is behind it can go.
        assert cmsgx.send_batch(left, rest[1:]) == 4 - index
        assert arrived(right) == [
            (str(i).encode(), [str(i), str(i + 1)]) for i in range(index + 1, 5)
        ]
        for i, owner in enumerate(owners):
            assert content(owner) == str(i)
            owner.close()


def injected() -> None:
    """Each error at each index, and at each the rest again."""
    shim = Shim()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    left.setblocking(False)
    with open_files(6) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        messages: list[Any] = [(str(i).encode(), [files[i], owners[i]]) for i in range(6)]
        before = open_fds()
        for name, index in itertools.product(INJECTED, range(6)):
            error = getattr(errno, name)
            shim.fail_send(index, error)
            at = 0
            if index > 0:
                at = cmsgx.send_batch(left, messages)
                assert at == index, name
                shim.fail_send(0, error)
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                cmsgx.send_batch(left, messages[at:])
            assert caught.value.errno == error
            assert cmsgx.send_batch(left, messages[at:]) == 6 - at
            assert arrived(right) == [(str(i).encode(), [str(i)] * 2) for i in range(6)]
            assert open_fds() == before
    print("done")


def test_D7_each_error_at_each_index() -> None:
    assert in_child("injected", env=under_shim()).strip() == "done"


# D8: plain reads ----------------------------------------------------------------------------------


def stream_reader(sock: socket.socket) -> bytes:
    async def read() -> bytes:
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        reader, writer = await asyncio.open_unix_connection(sock=copy)
        data = await reader.read(10)
        writer.close()
        await writer.wait_closed()
        return data

    return asyncio.run(read())


@pytest.mark.parametrize(
    "read",
    [
        lambda sock: sock.recv(10),
        lambda sock: os.read(sock.fileno(), 10),
        lambda sock: sock.recvmsg(10)[0],
        lambda sock: cmsgx.recvmsg(sock, 10)[0],
        stream_reader,
    ],
    ids=["recv", "read", "socket.recvmsg", "recvmsg", "asyncio"],
)
def test_D8_a_plain_read_drops_descriptors_in_silence(
    stream: Pair, read: Callable[[socket.socket], bytes]
) -> None:
    """No guard: the docstrings tell it."""
    for call in (cmsgx.receive, cmsgx.Receiver):
        assert call.__doc__ is not None
        assert "recv()" in call.__doc__
    reader, writer = os.pipe()
    cmsgx.send(stream[0], b"data", fds=[writer])
    os.close(writer)
    before = open_fds()
    assert read(stream[1]) == b"data"
    assert open_fds() == before
    assert os.read(reader, 1) == b""  # nobody has the other end any more
    os.close(reader)


# I1: who connected, who sent ----------------------------------------------------------------------


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def received_from(
    sender: Callable[[cmsgx.socket], object],
    want: list[Any] | None = None,
) -> tuple[cmsgx.Message, int, Pair]:
    """A message that a child sent, and the child's pid, which is reaped."""
    pair = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.Receiver(pair[1], 100, want=[cmsgx.Credentials] if want is None else want)
    with forked(lambda: sender(pair[0])) as pid:
        assert reap(pid) == 0
    return rx.receive(), pid, pair


@needs_root
def test_I1_the_peer_is_who_connected_and_the_sender_is_who_wrote() -> None:
    def write(sock: cmsgx.socket) -> None:
        become(NOBODY)
        sock.send(b"x")

    msg, child, pair = received_from(write)
    sender = msg[cmsgx.Credentials]
    peer = cmsgx.peer_credentials(pair[1])
    assert (sender.pid, sender.uid, sender.gid) == (child, NOBODY, NOBODY)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert sender != peer
    close_pair(pair)


def test_I1_two_types_that_never_compare_equal(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 1, want=[cmsgx.Credentials])
    stream[0].send(b"x")
    sender, peer = rx.receive()[cmsgx.Credentials], cmsgx.peer_credentials(stream[1])
    assert (sender.pid, sender.uid, sender.gid) == (peer.pid, peer.uid, peer.gid)
    assert sender != peer
    assert peer != sender
    assert not isinstance(sender, cmsgx.PeerCredentials)
    assert not isinstance(peer, cmsgx.Credentials)
    for kind in (cmsgx.Credentials, cmsgx.PeerCredentials):
        assert kind.__doc__ is not None


# I2: a privileged sender may forge ----------------------------------------------------------------


@needs_root
def test_I2_a_privileged_sender_may_forge() -> None:
    """No guard: the docstring tells it."""
    for word in ("CAP_SYS_ADMIN", "CAP_SETUID", "asserts"):
        assert word in (cmsgx.Credentials.__doc__ or "")

    forged = cmsgx.Credentials(1, 1234, 4321)
    with attempt("credentials of another process", errno.EPERM):
        left, right = unix_pair(socket.SOCK_DGRAM)
        with left, right:
            cmsgx.send(left, b"x", control=forged)
    msg, _, pair = received_from(lambda sock: cmsgx.send(sock, b"x", control=forged))
    assert msg[cmsgx.Credentials] == forged
    close_pair(pair)

    def as_nobody(sock: cmsgx.socket) -> None:
        become(NOBODY)
        for who in (forged, cmsgx.Credentials(pid=1), cmsgx.Credentials(uid=0)):
            with pytest.raises(PermissionError):
                cmsgx.send(sock, b"forged", control=who)
        cmsgx.send(sock, b"true", control=cmsgx.Credentials())

    msg, child, pair = received_from(as_nobody)
    assert msg.data == b"true"
    assert msg[cmsgx.Credentials] == cmsgx.Credentials(child, NOBODY, NOBODY)
    close_pair(pair)


# I3: credentials that were never attached ---------------------------------------------------------


@pytest.mark.parametrize("want", [[cmsgx.Credentials], [cmsgx.Credentials, cmsgx.PidFd]])
def test_I3_what_was_queued_before_carries_none(pair: Pair, want: list[Any]) -> None:
    pair[0].send(b"early")
    rx = cmsgx.Receiver(pair[1], 100, want=want)
    with rx.receive() as msg:
        who = msg[cmsgx.Credentials]
        assert (who.pid, who.uid, who.gid) == (None, NOBODY, NOBODY)
        assert who.attached is (False if cmsgx.PidFd in want else None)
        assert cmsgx.PidFd not in msg
    pair[0].send(b"late")
    with rx.receive() as msg:
        who = msg[cmsgx.Credentials]
        assert (who.pid, who.uid) == (os.getpid(), os.getuid())
        assert who.attached is True


def test_I3_asked_by_nobody_they_are_not_there(pair: Pair) -> None:
    pair[0].send(b"x")
    with cmsgx.Receiver(pair[1], 10).receive() as msg:
        with pytest.raises(KeyError, match="Credentials"):
            msg[cmsgx.Credentials]
        assert cmsgx.Credentials not in msg


def test_I3_one_shot_receive_cannot_tell(pair: Pair) -> None:
    pair[0].send(b"early")
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    assert cmsgx.receive(pair[1], 10)[cmsgx.Credentials].attached is None


def needs_namespaces(*flags: str) -> list[str]:
    """The command that runs one in new namespaces."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare command")
    command = [unshare, *flags]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no namespaces here: {done.stderr}")
    return command


def run_apart(flags: list[str], code: str, *passed: int, **more: Any) -> str:
    """Runs code in new namespaces; `passed` are descriptors, whose numbers are its arguments."""
    done = subprocess.run(
        [*needs_namespaces(*flags), sys.executable, "-c", code, *map(str, passed)],
        pass_fds=passed, capture_output=True, text=True, check=False, timeout=60, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output: str = done.stdout
    return output


# I4: namespaces -----------------------------------------------------------------------------------

PID_NAMESPACE = ["--pid", "--fork", "--mount-proc"]
USER_NAMESPACE = ["--user", "--map-root-user"]
SHOW = """
import cmsgx, os, sys
number = int(sys.argv[1])
want = [cmsgx.Credentials, cmsgx.PidFd]
rx = cmsgx.Receiver(number, 10, want=want)
os.write(number, b"ready")
with rx.receive() as msg:
    who = msg[cmsgx.Credentials]
    peer = cmsgx.peer_credentials(number)
    print(who.pid, who.uid, who.uid_mapped, who.gid_mapped, who.attached)
    print(peer.pid, peer.uid, peer.uid_mapped, peer.gid_mapped)
    print(msg[cmsgx.PidFd].pid)
    with cmsgx.peer_pidfd(number) as pidfd:
        print(pidfd.pid)
"""


def seen_from(flags: list[str], write: Callable[[cmsgx.socket], object]) -> list[str]:
    """What a receiver in other namespaces sees of a writer here."""
    pair = unix_pair(socket.SOCK_SEQPACKET)

    def answer() -> None:
        if pair[0].recv(10) == b"ready":
            write(pair[0])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        return run_apart(flags, SHOW, pair[1].fileno()).splitlines()
    finally:
        pair[0].shutdown(socket.SHUT_RDWR)
        thread.join()
        close_pair(pair)


@needs_root
def test_I4_a_pid_that_is_not_visible_is_none_and_never_0() -> None:
    who, peer, pidfd, peer_pidfd = seen_from(PID_NAMESPACE, lambda sock: sock.send(b"x"))
    assert who.split() == ["None", "0", "True", "True", "True"]
    assert peer.split() == ["None", "0", "True", "True"]
    assert pidfd == peer_pidfd == "None"


@needs_root
def test_I4_the_proc_of_another_pid_namespace_does_not_deceive() -> None:
    """As in a chroot, or in a new namespace before /proc is mounted anew."""
    flags = ["--pid", "--fork"]
    _, _, pidfd, peer_pidfd = seen_from(flags, lambda sock: sock.send(b"x"))
    assert pidfd == peer_pidfd == "None"


@needs_root
def test_I4_an_id_that_is_not_mapped_says_so() -> None:
    def as_another(sock: cmsgx.socket) -> None:
        def child() -> None:
            become(1234)
            sock.send(b"x")

        with forked(child) as pid:
            assert reap(pid) == 0

    who, peer, *_ = seen_from(USER_NAMESPACE, as_another)
    assert who.split()[1:] == [str(NOBODY), "False", "False", "True"]
    assert peer.split() == [str(os.getpid()), "0", "True", "True"]


@needs_root
def test_I4_a_real_nobody_of_another_pid_namespace_is_told_from_none_at_all() -> None:
    """Both come as (0, 65534, 65534): the pidfd tells."""

    def as_nobody(sock: cmsgx.socket) -> None:
        def child() -> None:
            become(NOBODY)
            sock.send(b"x")

        with forked(child) as pid:
            assert reap(pid) == 0

    who, *_ = seen_from(PID_NAMESPACE, as_nobody)
    assert who.split() == ["None", str(NOBODY), "None", "None", "True"]


@needs_root
def test_I4_a_sender_in_a_namespace_below_is_seen_with_its_pid_here() -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        rx = cmsgx.Receiver(pair[1], 100, want=[cmsgx.Credentials, cmsgx.PidFd])
        code = "import os, sys; os.write(int(sys.argv[1]), str(os.getpid()).encode())"
        run_apart(PID_NAMESPACE, code, pair[0].fileno())
        with rx.receive() as msg:
            assert msg.data == b"1"
            assert msg[cmsgx.Credentials].pid not in (None, 0, 1)


# I5: a pid can be another's -----------------------------------------------------------------------


def test_I5_a_reaped_sender_is_nobody_else() -> None:
    msg, child, pair = received_from(lambda sock: sock.send(b"x"), [cmsgx.Credentials, cmsgx.PidFd])
    with msg:
        who = msg[cmsgx.Credentials]
        assert who.pid == child  # the number, of a process that is no more
        assert who.attached is True
        pidfd = msg[cmsgx.PidFd]
        if pidfd.error is None:
            assert pidfd.pid is None
            assert pidfd.wait(60) is None
            with pytest.raises(ProcessLookupError):
                pidfd.send_signal(signal.SIGKILL)
        else:  # kernels before 6.16
            assert pidfd.closed
    close_pair(pair)


def spawn_with_pid(pid: int) -> int | None:
    """A sleeping process with that pid, if it can be had: in the process table, it comes next."""
    for _ in range(50):
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1), encoding="ascii")
        except OSError:
            return None
        child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        if child == pid:
            return child
        os.kill(child, signal.SIGKILL)
        reap(child)
    return None


@needs_root
def test_I5_a_pid_that_was_reused_deceives_and_the_pidfd_does_not() -> None:
    msg, child, pair = received_from(lambda sock: sock.send(b"x"), [cmsgx.Credentials, cmsgx.PidFd])
    again = spawn_with_pid(child)
    try:
        if again is None:
            pytest.skip("the pid could not be had again")
        with msg:
            assert msg[cmsgx.Credentials].pid == again
            pidfd = msg[cmsgx.PidFd]
            if pidfd.error is None:
                assert pidfd.pid != again
                with pytest.raises(ProcessLookupError):
                    pidfd.send_signal(signal.SIGKILL)
        assert os.waitpid(again, os.WNOHANG) == (0, 0)  # lives on
    finally:
        msg.close()
        if again is not None:
            os.kill(again, signal.SIGKILL)
            reap(again)
        close_pair(pair)


# I7: descriptors of strangers ---------------------------------------------------------------------


@pytest.fixture
def passrights(stream: Pair) -> None:
    """Skips where the kernel has no SO_PASSRIGHTS."""
    try:
        cmsgx.accept_rights(stream[1], True)
    except cmsgx.NotSupportedError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("passrights")
def test_I7_strangers_cannot_queue_descriptors(pair: Pair) -> None:
    sender, receiver = pair
    with open_files(1) as files:
        cmsgx.send(sender, b"before", fds=files)
        cmsgx.accept_rights(receiver, False)
        sends: tuple[Callable[[], object], ...] = (
            lambda: cmsgx.send(sender, b"x", fds=files),
            lambda: cmsgx.send_fds(sender, [b"x"], files),
            lambda: socket.send_fds(sender, [b"x"], files),
        )
        for send in sends:
            with pytest.raises(PermissionError):
                send()
        sender.send(b"plain")
        with cmsgx.receive(receiver, 6, fds=1) as msg:  # what is queued already still arrives
            assert (msg.data, content(msg.fds[0])) == (b"before", "0")
        with cmsgx.receive(receiver, 10, fds=1) as msg:
            assert (msg.data, len(msg.fds)) == (b"plain", 0)
        cmsgx.accept_rights(receiver, True)
        cmsgx.send(sender, b"after", fds=files)
        with cmsgx.receive(receiver, 10, fds=1) as msg:
            assert len(msg.fds) == 1


@pytest.mark.usefixtures("passrights")
@pytest.mark.parametrize("form", [lambda sock: sock, lambda sock: sock.fileno()])
def test_I7_an_accepted_socket_inherits_it(form: Callable[[socket.socket], Any]) -> None:
    name = b"\0cmsgx-test-I7"
    with cmsgx.socket(socket.AF_UNIX) as listener, cmsgx.socket(socket.AF_UNIX) as client:
        listener.bind(name)
        cmsgx.accept_rights(form(listener), False)
        listener.listen()
        client.connect(name)
        with pytest.raises(PermissionError):  # before accept() already
            cmsgx.send(client, b"x", fds=[0])
        accepted, _ = listener.accept()
        with accepted:
            with pytest.raises(PermissionError):
                cmsgx.send(client, b"x", fds=[0])
            cmsgx.accept_rights(accepted, True)
            cmsgx.send(client, b"x", fds=[0])
            with cmsgx.receive(accepted, 1, fds=1) as msg:
                assert len(msg.fds) == 1


def without_passrights() -> None:
    first, second = cmsgx.socketpair()
    try:
        cmsgx.accept_rights(second, False)
    except cmsgx.NotSupportedError as error:
        print(error.errno, error)
    # What the docstring tells to do there:
    cmsgx.send(first, b"x", fds=[0])
    before = open_fds()
    with cmsgx.Receiver(second, 10, fds=0).receive() as msg:
        assert len(msg.fds) == 0
    assert open_fds() == before
    close_pair((first, second))


def test_I7_where_the_kernel_lacks_it() -> None:
    library = build("no_passrights.so", "-shared", "-fPIC", "no_passrights.c", "-ldl")
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    output = in_child("without_passrights", env={"LD_PRELOAD": preload})
    number, text = output.split(maxsplit=1)
    assert int(number) == errno.ENOPROTOOPT
    for part in ("accept_rights", "SO_PASSRIGHTS", "Linux 6.16"):
        assert part in text


def test_I7_fds_0_drops_them_where_nothing_else_helps(pair: Pair) -> None:
    """Until the peer has proved who it is."""
    before = open_fds()
    cmsgx.send(pair[0], b"x", fds=[0] * 253)
    rx = cmsgx.Receiver(pair[1], 10)
    with rx.receive() as msg:
        assert msg.data == b"x"
        assert len(msg.fds) == 0
        assert msg.truncated
        assert open_fds() == before
