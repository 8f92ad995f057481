"""Waiting with a timeout: no loop around poll(2) that spins, no unnecessary call."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from attempts import fails
from native import Shim, under_shim
from support import run_python, unix_pair

import cmsgx
from cmsgx import _cmsg, kinds

linux = pytest.mark.skipif(
    not hasattr(_cmsg, "MSG_ERRQUEUE"), reason="this system has no error queue"
)
# Each call waits this long, of which the sleeps take 1, 2, 4, 8, 10, 10, ... ms.
SECONDS = 0.04
# Two calls of poll(2) for each sleep, and 16 in a row before the first. A loop that spins makes
# thousands.
MOST_POLLS = 80


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_waiting as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=120, env=env)


def limited(call: Callable[[], Any]) -> float:
    """How long it waited; it has to raise TimeoutError."""
    start = time.monotonic()
    try:
        call()
    except TimeoutError:
        return time.monotonic() - start
    raise AssertionError("it did not wait")


@contextmanager
def stamped() -> Iterator[socket.socket]:
    """A connected UDP socket with a time stamp unread on its error queue."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        sink.bind(("127.0.0.1", 0))
        sock.connect(sink.getsockname())
        flags = kinds.TimestampingFlags
        asked = flags.TX_SOFTWARE | flags.OPT_TSONLY | flags.OPT_ID
        cmsgx.enable(sock, kinds.Timestamping.option(asked))
        sock.send(b"x")
        yield sock


@contextmanager
def full_queue() -> Iterator[tuple[socket.socket, socket.socket, bytes]]:
    """A datagram socket, another whose queue is full, and its name."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reader,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        reader.bind("")
        path = reader.getsockname()
        with suppress(BlockingIOError):
            while True:
                cmsgx.send(sock, b"x", address=path, timeout=0)
        yield sock, reader, path


def few_polls(calls: dict[str, Callable[[], Any]]) -> None:
    shim = Shim()
    for name, call in calls.items():
        shim.reset()
        assert limited(call) >= SECONDS, name
        assert 0 < shim.polls() < MOST_POLLS, (name, shim.polls())


def receives_with_a_stamp_unread() -> None:
    with stamped() as sock:
        receiver, batches = cmsgx.Receiver(sock, 100), cmsgx.BatchReceiver(sock, 4, 100)
        sock.settimeout(SECONDS)
        few_polls(
            {
                "receive": lambda: cmsgx.receive(sock, 100),
                "receive, timeout=": lambda: cmsgx.receive(sock, 100, timeout=SECONDS),
                "Receiver": receiver.receive,
                "Receiver, loop": lambda: next(receiver),
                "BatchReceiver": batches.receive,
                "BatchReceiver, loop": lambda: next(batches),
                "recvmsg": lambda: cmsgx.recvmsg(sock, 100),
                "recvmsg_into": lambda: cmsgx.recvmsg_into(sock, [bytearray(9)]),
                "recv_fds": lambda: cmsgx.recv_fds(sock, 100, 1),
            }
        )


def tcp_with_a_completion_unread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer = listener.accept()[0]
    with sock, peer:
        sender = cmsgx.ZeroCopySender(sock)
        sender.send(bytes(50000))
        sender.release()

        def fill(send: Callable[..., Any], data: Any = bytes(1 << 16)) -> Callable[[], None]:
            def call() -> None:
                while True:
                    send(sock, data)

            return call

        sock.settimeout(SECONDS)
        few_polls(
            {
                "receive": lambda: cmsgx.receive(sock, 100),
                "send": fill(cmsgx.send),
                "send_all": fill(cmsgx.send_all),
                "send_batch": fill(cmsgx.send_batch, [bytes(1 << 16)]),
                "sendmsg": fill(cmsgx.sendmsg, [bytes(1 << 16)]),
            }
        )


def sends_to_a_full_queue() -> None:
    with full_queue() as (sock, _reader, path):
        sock.settimeout(SECONDS)
        few_polls(
            {
                "send": lambda: cmsgx.send(sock, b"x", address=path),
                "send, timeout=": lambda: cmsgx.send(sock, b"x", address=path, timeout=SECONDS),
                "send_batch": lambda: cmsgx.send_batch(sock, [(b"x", (), (), path)]),
                "sendmsg": lambda: cmsgx.sendmsg(sock, [b"x"], (), 0, path),
                "send_fds": lambda: cmsgx.send_fds(sock, [b"x"], [0], 0, path),
            }
        )


def receives_with_data_that_the_flags_leave_out() -> None:
    """poll(2) reports what was asked for, again and again."""
    with stamped() as sock:
        sock.setsockopt(socket.SOL_SOCKET, _cmsg.SO_TIMESTAMPING, 0)
        assert len(list(cmsgx.receive_errors(sock))) == 1
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.1", 0))
            sock.connect(peer.getsockname())
            peer.sendto(b"x", sock.getsockname())
            flags = _cmsg.MSG_ERRQUEUE
            sock.settimeout(SECONDS)
            few_polls(
                {
                    "recvmsg": lambda: cmsgx.recvmsg(sock, 9, 99, flags),
                    "receive": lambda: cmsgx.receive(sock, 9, flags=flags),
                    "ErrorReceiver": cmsgx.ErrorReceiver(sock).receive,
                    "receive_errors": lambda: next(cmsgx.receive_errors(sock, timeout=SECONDS)),
                }
            )
            # It is not even checked: one call waits until the end.
            shim = Shim()
            shim.reset()
            limited(cmsgx.ErrorReceiver(sock).receive)
            assert shim.polls() <= 2


def waits_for_errors_while_one_is_pending() -> None:
    """poll(2) reports POLLERR for an error that is in SO_ERROR, and not on the error queue."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 1))
        sock.send(b"x")
        few_polls(
            {
                "ErrorReceiver": lambda: cmsgx.ErrorReceiver(sock).receive(timeout=SECONDS),
                "receive_errors": lambda: next(cmsgx.receive_errors(sock, timeout=SECONDS)),
                "Fd": lambda: cmsgx.ErrorReceiver(sock.fileno()).receive(timeout=SECONDS),
            }
        )
        # It is left to the call that it is for.
        with fails(errno.ECONNREFUSED):
            sock.send(b"x")


def a_sender_that_hung_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sock = socket.create_connection(listener.getsockname())
        peer = listener.accept()[0]
    with sock, peer:
        sock.setblocking(False)
        sender = cmsgx.ZeroCopySender(sock, max_bytes=1 << 30)
        with suppress(BlockingIOError):
            while True:
                sender.send(bytes(1 << 16))
        # POLLHUP from now on, and the completions come only when the peer reads.
        sock.shutdown(socket.SHUT_RDWR)
        sender.reap()
        few_polls({"wait": lambda: sender.wait(timeout=SECONDS)})
        sender.release()


@linux
@pytest.mark.parametrize(
    "function",
    [
        "receives_with_a_stamp_unread", "tcp_with_a_completion_unread", "sends_to_a_full_queue",
        "receives_with_data_that_the_flags_leave_out", "waits_for_errors_while_one_is_pending",
        "a_sender_that_hung_up",
    ],
)  # fmt: skip
def test_waiting_does_not_spin(function: str) -> None:
    in_child(function, env=under_shim())


def an_error_that_is_pending() -> None:
    shim = Shim()
    with stamped() as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        closed = other.getsockname()
        other.close()
        sock.connect(closed)

        def refuse() -> None:
            time.sleep(SECONDS)
            sock.send(b"x")

        thread = threading.Thread(target=refuse)
        thread.start()
        with fails(errno.ECONNREFUSED):
            cmsgx.receive(sock, 10, timeout=60)
        thread.join()
        assert shim.polls() < MOST_POLLS


@linux
def test_an_error_that_is_pending_ends_the_wait() -> None:
    in_child("an_error_that_is_pending", env=under_shim())


@linux
def test_data_that_comes_during_a_sleep_is_received() -> None:
    with stamped() as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.connect(sock.getsockname())
        sock.connect(peer.getsockname())
        thread = threading.Timer(SECONDS, peer.send, (b"late",))
        thread.start()
        assert cmsgx.receive(sock, 10, timeout=60).data == b"late"
        thread.join()


def test_a_full_queue_accepts_the_message_once_there_is_space() -> None:
    with full_queue() as (sock, reader, path):
        thread = threading.Timer(SECONDS, reader.recv, (10,))
        thread.start()
        assert cmsgx.send(sock, b"late", address=path, timeout=60) == 4
        thread.join()


def test_a_signal_is_handled_during_a_sleep() -> None:
    class Heard(Exception):
        pass

    def hear(*_: object) -> None:
        raise Heard

    before = signal.signal(signal.SIGALRM, hear)
    try:
        with full_queue() as (sock, _reader, path):
            signal.setitimer(signal.ITIMER_REAL, SECONDS)
            with pytest.raises(Heard):
                cmsgx.send(sock, b"x", address=path, timeout=60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_wait_for() -> None:
    left, right = unix_pair()
    with left, right:
        number, readable = right.fileno(), 1
        assert _cmsg.wait_for(number, readable, 0.001, 0) == (0, 0)
        left.send(b"x")
        found, rounds = _cmsg.wait_for(number, readable, None, 3)
        assert found == readable
        assert rounds in (0, 4)
        with pytest.raises(ValueError, match="timeout: -1"):
            _cmsg.wait_for(number, readable, -1, 0)


# Without the right to open anything, RLIMIT_NOFILE 0: poll(2) is refused ------------------------


def without_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def loops_without_poll() -> None:
    ends = []
    for kind in (socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
        for count in (None, 1, 4):
            left, right = unix_pair(kind)
            receiver: Any = (
                cmsgx.Receiver(right, 10)
                if count is None
                else cmsgx.BatchReceiver(right, count, 10)
            )
            cmsgx.send(left, b"one")
            ends.append((kind, left, receiver))
    without_descriptors()
    for kind, left, receiver in ends:
        found = []
        for item in receiver:
            messages = [item] if isinstance(item, cmsgx.Message) else item
            found += [message.data for message in messages]
            if found == [b"one"] and kind == socket.SOCK_SEQPACKET:
                # Two that look like the end, but are not.
                cmsgx.send(left, b"")
                cmsgx.send(left, b"")
            elif len(found) == 1 or found[-1] == b"":
                if len(found) == 3:
                    cmsgx.send(left, b"two")
                    left.close()
                elif kind == socket.SOCK_STREAM:
                    left.close()
            assert len(found) < 10
        expected = [b"one", b"", b"", b"two"] if kind == socket.SOCK_SEQPACKET else [b"one"]
        assert found == expected, (receiver, found)


@linux
def test_a_loop_ends_where_poll_is_refused() -> None:
    in_child("loops_without_poll")


def waits_without_poll() -> None:
    left, right = unix_pair()
    thread = threading.Timer(SECONDS, left.send, (b"late",))
    thread.start()
    without_descriptors()
    assert cmsgx.receive(right, 10, timeout=60).data == b"late"
    thread.join()
    few_polls({"receive": lambda: cmsgx.receive(right, 10, timeout=SECONDS)})
    with suppress(BlockingIOError):
        while True:
            cmsgx.send(left, bytes(1 << 16), timeout=0)
    few_polls({"send": lambda: cmsgx.send(left, bytes(1 << 16), timeout=SECONDS)})


@linux
def test_a_call_waits_where_poll_is_refused() -> None:
    in_child("waits_without_poll", env=under_shim())


# Under a filter of system calls -----------------------------------------------------------------

# The system calls that a prepared call may use, and those that the interpreter needs.
ALLOWED = {
    "x86_64": {
        "recvmsg": 47, "sendmsg": 46, "recvmmsg": 299, "sendmmsg": 307, "close": 3, "poll": 7,
        "ppoll": 271,
        "write": 1, "exit_group": 231, "exit": 60, "futex": 202, "brk": 12, "mmap": 9, "munmap": 11,
        "mremap": 25, "mprotect": 10, "madvise": 28, "rt_sigprocmask": 14, "rt_sigreturn": 15,
        "sched_yield": 24, "clock_gettime": 228, "gettid": 186, "getpid": 39, "getrandom": 318,
    },
    "aarch64": {
        "recvmsg": 212, "sendmsg": 211, "recvmmsg": 243, "sendmmsg": 269, "close": 57, "ppoll": 73,
        "write": 64, "exit_group": 94, "exit": 93, "futex": 98, "brk": 214, "mmap": 222,
        "munmap": 215, "mremap": 216, "mprotect": 226, "madvise": 233, "rt_sigprocmask": 135,
        "rt_sigreturn": 139, "sched_yield": 124, "clock_gettime": 113, "gettid": 178,
        "getpid": 172, "getrandom": 278,
    },
}  # fmt: skip
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
KILL, REFUSE = 0x80000000, 0x00050000 | errno.EPERM


def allow_only(numbers: list[int], otherwise: int) -> None:
    """A filter for this process, from now on: seccomp(2)."""
    load, equal, answer = 0x20, 0x15, 0x06
    program = [(load, 0, 0, 0)]
    program += [(equal, len(numbers) - i, 0, number) for i, number in enumerate(numbers)]
    program += [(answer, 0, 0, otherwise), (answer, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    room = ctypes.create_string_buffer(code)
    form = struct.pack("HP", len(program), ctypes.addressof(room))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in (
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(form), 0, 0),
    ):
        if libc.prctl(*arguments) < 0:
            raise OSError(ctypes.get_errno(), "prctl")


class Prepared:
    """Sockets, receivers, and waits that time out."""

    def __init__(self) -> None:
        self.left, right = unix_pair(socket.SOCK_STREAM)
        self.receiver = cmsgx.Receiver(right, 10, fds=3)
        self.sender, right = unix_pair(socket.SOCK_DGRAM)
        self.batches = cmsgx.BatchReceiver(right, 4, 10)
        self.packets, right = unix_pair(socket.SOCK_SEQPACKET)
        self.packet_receiver = cmsgx.Receiver(right, 10)
        self.stack = ExitStack()
        self.stamps = cmsgx.Receiver(self.stack.enter_context(stamped()), 10)
        self.full, _, self.path = self.stack.enter_context(full_queue())

    def use(self, is_refused: bool) -> None:
        limited(lambda: self.receiver.receive(timeout=SECONDS))
        limited(lambda: self.batches.receive(timeout=SECONDS))
        limited(lambda: self.stamps.receive(timeout=SECONDS))
        limited(lambda: cmsgx.send(self.full, b"x", address=self.path, timeout=SECONDS))
        # Several in a row are closed by close_range(2), or one by one if that is refused.
        for count in (1, 3) if is_refused else (1,):
            assert cmsgx.send(self.left, b"fds", fds=[0] * count) == 3
            with self.receiver.receive() as message:
                assert len(message.fds) == count
        assert cmsgx.send_batch(self.sender, [b"one", b"two"]) == 2
        assert [message.data for message in self.batches.receive()] == [b"one", b"two"]
        cmsgx.send(self.left, b"last", fds=[0])
        self.left.close()
        assert [message.data for message in self.receiver] == [b"last"]
        if is_refused:
            # Whether anything is queued after an empty packet is asked with ioctl(2), and then with
            # a peek.
            self.packets.close()
            assert list(self.packet_receiver) == []


def prepared_calls(is_refused: bool, *left_out: str) -> None:
    """Twice: first without the filter, so that late imports are done."""
    first, second = Prepared(), Prepared()
    first.use(is_refused)
    names = ALLOWED[platform.machine()]
    numbers = [number for name, number in names.items() if name not in left_out]
    allow_only(numbers, REFUSE if is_refused else KILL)
    second.use(is_refused)
    if is_refused:
        with fails(errno.EPERM):
            os.getcwd()
    print("done", flush=True)
    os._exit(0)


@linux
@pytest.mark.skipif(
    platform.machine() not in ALLOWED or struct.calcsize("P") != 8,
    reason=f"no numbers of system calls for {platform.machine()} here",
)
@pytest.mark.parametrize(
    "arguments", [(True,), (False,), (True, "ppoll")], ids=["refused", "killed", "no ppoll"]
)
@pytest.mark.slow
def test_prepared_calls_need_few_system_calls(arguments: tuple[Any, ...]) -> None:
    """With a filter that refuses all others, or that kills the process for them."""
    if "ppoll" in arguments and "poll" not in ALLOWED[platform.machine()]:
        pytest.skip("this processor has no poll(2) but ppoll(2)")
    assert in_child("prepared_calls", *arguments).strip() == "done"
