"""Helpers of the tests of the hazards: ways to receive, and what they leave open."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from native import Shim
from support import Pair, close_pair, content, is_open, unix_pair

import cmsgx
from cmsgx import _cmsg, _fds

MOST = 253


def count_open() -> int:
    """The number of open descriptors here, including the one that lists them."""
    return len(os.listdir("/proc/self/fd"))


def switch_on(sock: socket.socket, option: str) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, getattr(_cmsg, option), 1)
    except OSError as error:
        if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
            raise
        pytest.skip(f"this kernel has no {option} for this type of socket")


def close_all(numbers: Sequence[int]) -> None:
    for number in numbers:
        os.close(number)


# Ways to receive --------------------------------------------------------------------------------


class Got(NamedTuple):
    files: list[str]
    """The content of the files whose descriptors were returned."""
    truncated: bool


def by_receive(sock: cmsgx.socket, asked: int) -> Got:
    with cmsgx.receive(sock, 16, fds=asked) as msg:
        return Got([content(fd) for fd in msg.fds], msg.truncated)


def by_receiver(sock: cmsgx.socket, asked: int) -> Got:
    with cmsgx.Receiver(sock, 16, fds=asked).receive() as msg:
        return Got([content(fd) for fd in msg.fds], msg.truncated)


def by_loop(sock: cmsgx.socket, asked: int) -> Got:
    for msg in cmsgx.Receiver(sock, 16, fds=asked):
        with msg:
            return Got([content(fd) for fd in msg.fds], msg.truncated)
    raise AssertionError("nothing came")


def by_recv_fds(sock: cmsgx.socket, asked: int) -> Got:
    _, numbers, flags, _ = cmsgx.recv_fds(sock, 16, asked)
    files = [content(number) for number in numbers]
    close_all(numbers)
    return Got(files, bool(flags & socket.MSG_CTRUNC))


def numbers_in(ancdata: Sequence[tuple[int, int, bytes]]) -> list[int]:
    numbers = array.array("i")
    for level, kind, data in ancdata:
        if level == socket.SOL_SOCKET and kind in (_cmsg.SCM_RIGHTS, _cmsg.SCM_PIDFD):
            numbers.frombytes(data[: len(data) // 4 * 4])
    return [number for number in numbers if number >= 0]


def got_from(ancdata: Sequence[tuple[int, int, bytes]], flags: int) -> Got:
    files = [
        content(number)
        for number in numbers_in([item for item in ancdata if item[1] == _cmsg.SCM_RIGHTS])
    ]
    close_all(numbers_in(ancdata))
    return Got(files, bool(flags & socket.MSG_CTRUNC))


def by_recvmsg(sock: cmsgx.socket, asked: int) -> Got:
    _, ancdata, flags, _ = cmsgx.recvmsg(sock, 16, cmsgx.CMSG_LEN(4 * asked))
    return got_from(ancdata, flags)


def by_recvmsg_into(sock: cmsgx.socket, asked: int) -> Got:
    _, ancdata, flags, _ = cmsgx.recvmsg_into(sock, [bytearray(16)], cmsgx.CMSG_LEN(4 * asked))
    return got_from(ancdata, flags)


TYPED = (by_receive, by_receiver, by_loop)

WAYS = (*TYPED, by_recv_fds, by_recvmsg, by_recvmsg_into)

Way = Callable[[cmsgx.socket, int], Got]

Receives = tuple[Callable[[], cmsgx.Message], ...]

each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


class Act(NamedTuple):
    """An action that is interrupted, or runs out of memory, at each possible place."""

    prepare: Callable[[], Any]
    act: Callable[[Any], Any]
    undo: Callable[[Any, Any], object]
    """Takes what was prepared, and the result or None."""


def high_number() -> int:
    """A descriptor whose number is not a cached small int."""
    return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def close_both(fd: cmsgx.Fd, result: Any) -> None:
    """Closes the descriptor once, whoever owns it now."""
    if result is not None:
        result.close()
    fd.close()


def socket_fd() -> cmsgx.Fd:
    left, right = socket.socketpair()
    left.close()
    return cmsgx.Fd(right.detach())


def two_numbers() -> cmsgx.Rights:
    return cmsgx.Rights.unpack(array.array("i", [high_number(), high_number()]).tobytes())


def close_rights(rights: cmsgx.Rights, owners: Any) -> None:
    if owners is None:
        with contextlib.suppress(ValueError):
            owners = rights.own()
    for owner in owners or ():
        owner.close()


def close_each(pair: Pair, _: object) -> None:
    close_pair(pair)


def close_result(_: object, result: Any) -> None:
    if result is not None:
        result.close()


def a_file() -> cmsgx.Fd:
    return cmsgx.Fd(high_number())


class Away:
    """Like multiprocessing's DupFd: detach() gives the number away."""

    def __init__(self) -> None:
        self.number = high_number()

    def detach(self) -> int:
        number, self.number = self.number, -1
        return number


def close_away(away: Away, fd: cmsgx.Fd | None) -> None:
    if fd is not None:
        assert not os.get_inheritable(fd.fileno())
        fd.close()
    if away.number >= 0:
        os.close(away.number)


def connected() -> tuple[cmsgx.socket, ...]:
    """A listener, and a client that waits to be accepted."""
    listener, client = (cmsgx.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(2))
    listener.bind("")
    listener.listen()
    client.connect(listener.getsockname())
    return listener, client


# Actions that run Python code while they hold a descriptor. socketpair() is not among them: the
# socket module's own loses one, between a detach() and the socket that takes it over.
IN_PYTHON: dict[str, Act] = {
    "Fd.open": Act(a_file, lambda fd: fd.open("rb"), close_both),
    "Fd.open, text": Act(a_file, lambda fd: fd.open(), close_both),
    "Fd.socket": Act(socket_fd, lambda fd: fd.socket(), close_both),
    "close_in_background": Act(
        a_file, lambda fd: cmsgx.close_in_background(fd), lambda fd, _: fd.close()
    ),
    "Rights.own": Act(two_numbers, lambda rights: rights.own(), close_rights),
    "Receiver, made": Act(
        unix_pair, lambda pair: cmsgx.Receiver(pair[1], 9, fds=1, want=[cmsgx.PidFd]), close_each
    ),
    "share": Act(lambda: None, lambda _: cmsgx.share(b"x"), close_result),
    "accept": Act(
        connected,
        lambda pair: pair[0].accept(),
        lambda pair, result: [sock.close() for sock in (*pair, *(result or ())[:1])],
    ),
    "unpickled": Act(Away, lambda away: _fds._rebuild(cmsgx.Fd, away), close_away),
    "peer_pidfd": Act(
        unix_pair,
        lambda pair: cmsgx.peer_pidfd(pair[0]),
        lambda pair, result: [sock.close() for sock in (*pair, result) if sock is not None],
    ),
}


def queued(pair: Pair, files: list[int]) -> Pair:
    cmsgx.send(pair[0], b"data", fds=files, control=[cmsgx.Credentials()])
    return pair


def received(pair: Pair, files: list[int]) -> cmsgx.Message:
    queued(pair, files)
    return cmsgx.Receiver(
        pair[1], 16, fds=20, want=[cmsgx.Credentials, cmsgx.PidFd]
    ).receive()  # fmt: skip


def drain(sock: cmsgx.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.recv(1, socket.MSG_DONTWAIT)


@contextlib.contextmanager
def forked(child: Callable[[], object]) -> Iterator[int]:
    """Forks a process that runs `run` and exits with 0; returns its pid. It is not reaped here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # our threads may be running
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


SCM_RIGHTS = socket.SCM_RIGHTS

SOL_SOCKET = socket.SOL_SOCKET


class Liar:
    """A pair of sockets under the shim, and the reaction of a call to what it forged."""

    def __init__(self) -> None:
        self.shim = Shim()
        self.left, self.right = unix_pair(socket.SOCK_SEQPACKET)
        self.right.setsockopt(SOL_SOCKET, _cmsg.SO_PASSPIDFD, 1)
        self.wide = cmsgx.Receiver(self.right, 16, fds=4, want=[cmsgx.PidFd])
        self.narrow = cmsgx.Receiver(self.right, 16, fds=1, on_truncation="keep")

    def typed(self) -> dict[str, Callable[[], cmsgx.Message]]:
        return {
            "receive": lambda: cmsgx.receive(self.right, 16, fds=4),
            "receive, none": lambda: cmsgx.receive(self.right, 16),
            "Receiver": self.wide.receive,
            "Receiver, narrow": self.narrow.receive,
            "loop": lambda: next(self.wide),
        }

    def drop_ins(self) -> dict[str, Callable[[], Any]]:
        return {
            "recvmsg": lambda: cmsgx.recvmsg(self.right, 16, 400),
            "recvmsg, large": lambda: cmsgx.recvmsg(self.right, 16, 4000),
            "recvmsg_into": lambda: cmsgx.recvmsg_into(self.right, [bytearray(9)], 400),
            "recv_fds": lambda: cmsgx.recv_fds(self.right, 16, 4),
            "recv_fds, one": lambda: cmsgx.recv_fds(self.right, 16, 1),
        }

    def call(self, mode: str, files: list[int], function: Callable[[], Any]) -> Any:
        """The result, or the exception. A close of a number that was not delivered counts as a
        stranger's."""
        cmsgx.send(self.left, b"data", fds=files)
        self.shim.mode(mode)
        try:
            with self.shim.guard():
                return function()
        except (cmsgx.CmsgError, RuntimeWarning) as error:
            error.__traceback__ = None
            return error
        finally:
            self.shim.mode("")

    def close(self, result: Any) -> None:
        """Closes what a call returned."""
        if isinstance(result, cmsgx.Message):
            with self.shim.guard():
                result.close()
        elif isinstance(result, tuple):
            items = result[1]
            numbers = numbers_in(items) if items and isinstance(items[0], tuple) else items
            for number in dict.fromkeys(numbers):
                if self.shim.is_delivered(number) and is_open(number):
                    os.close(number)
