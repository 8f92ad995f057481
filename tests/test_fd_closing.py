"""Fd: closed while another thread uses it, and a close(2) that blocks."""

from __future__ import annotations

import errno
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import pytest
from owners import SEALS, memfd, new_fd
from support import close_pair, eventually, gives_up_the_gil, is_open, stuck_in_close, unix_pair

import cmsgx
from cmsgx import _fds
from cmsgx._deadline import Deadline

# Closed meanwhile ---------------------------------------------------------------------------------


def contents(fd: cmsgx.Fd) -> bytes:
    with fd.map() as mapping:
        return mapping[:]


def own_pidfd() -> cmsgx.PidFd:
    return cmsgx.PidFd(os.pidfd_open(os.getpid()))


def wait_no_longer(pidfd: cmsgx.PidFd) -> str:
    try:
        return str(pidfd.wait(0))
    except TimeoutError as error:
        return str(error)


def new_socket() -> cmsgx.Fd:
    left, right = socket.socketpair()
    left.close()
    return cmsgx.Fd(right.detach())


def family_of_socket(fd: cmsgx.Fd) -> int:
    with fd.socket() as sock:
        return sock.family


def reduced(fd: cmsgx.Fd) -> bytes:
    with cmsgx.Fd(_fds.reduce_fd(fd)[1][1]) as duplicate:
        return os.pread(duplicate.fileno(), 100, 0)


def default_deadline(fd: cmsgx.Fd) -> float | None:
    return Deadline.of(fd, ...).left()


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (memfd, lambda fd: fd.check(kind="memfd", access="r", seals=SEALS, size=7)),
        (memfd, contents),
        (memfd, reduced),
        (memfd, lambda fd: fd.open("rb", 0).close()),
        (own_pidfd, lambda pidfd: pidfd.pid),
        (own_pidfd, lambda pidfd: pidfd.send_signal(0)),
        (own_pidfd, wait_no_longer),
        (new_socket, family_of_socket),
        (new_socket, cmsgx.peer_credentials),
        (new_socket, default_deadline),
        (new_socket, lambda fd: cmsgx.Receiver(fd, 100, want=[cmsgx.Credentials]).sock is fd),
    ],
    ids=["check", "map", "reduce", "open", "pid", "send_signal", "wait", "socket",
         "peer_credentials", "deadline", "Receiver"],
)  # fmt: skip
def test_what_is_closed_in_the_middle_of_a_call_is_not_another_file_there(
    make: Callable[[], Any], use: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is closed at each call of a C function in turn, and its number, if it is free, is given to
    another file. The call must either never notice, or say that the Fd is closed."""
    monkeypatch.setattr(reduction, "DupFd", os.dup)
    with make() as fd:
        expected = use(fd)
    with new_fd() as stranger:
        for calls in range(1, 1000):
            left = calls
            taken = None

            def close_then(frame: object, event: str, function: object) -> None:
                nonlocal left, taken
                if event == "c_call":
                    left -= 1
                    if left == 0:
                        fd.close()  # noqa: B023
                        if not is_open(number):  # noqa: B023
                            taken = os.dup2(stranger.fileno(), number)  # noqa: B023

            fd = make()
            number = fd.fileno()
            failure: Exception | None = None
            sys.setprofile(close_then)
            try:
                assert use(fd) == expected
            except (OSError, ValueError) as error:
                failure = error
            finally:
                sys.setprofile(None)
                was_closed = fd.closed
                fd.close()
                if taken is not None:
                    os.close(taken)
            if failure is not None:
                assert was_closed
                assert getattr(failure, "errno", errno.EBADF) == errno.EBADF
                assert re.search("closed>|owns no descriptor", str(failure))
            if left > 0:
                break
        assert 1 < calls < 999


# close(2) that blocks ---------------------------------------------------------------------------


def by_collection(number: int) -> None:
    fd = cmsgx.Fd(number)
    with pytest.warns(ResourceWarning):
        del fd


def as_message(number: int, **arguments: Any) -> None:
    pair = unix_pair()
    cmsgx.send(pair[0], b"x", fds=[number])
    os.close(number)
    with cmsgx.receive(pair[1], 1, **arguments):
        pass
    close_pair(pair)


def as_surplus_of_a_drop_in(number: int) -> None:
    pair = unix_pair()
    cmsgx.send(pair[0], b"x", fds=[number])
    os.close(number)
    cmsgx.recv_fds(pair[1], 1, 0)
    close_pair(pair)


WAYS_TO_CLOSE: dict[str, Callable[[int], None]] = {
    "Fd.close": lambda number: cmsgx.Fd(number).close(),
    "Fd collected": by_collection,
    "Message": lambda number: as_message(number, fds=1),
    "surplus": as_message,
    "surplus of recv_fds": as_surplus_of_a_drop_in,
}


@pytest.mark.parametrize("way", WAYS_TO_CLOSE)
def test_close_releases_the_gil(way: str) -> None:
    with stuck_in_close() as (number, let_go):
        assert gives_up_the_gil(lambda: WAYS_TO_CLOSE[way](number), let_go)


def test_an_fd_given_to_the_background_owns_nothing() -> None:
    fd = new_fd()
    number = fd.fileno()
    fd.close_in_background()
    assert fd.closed
    cmsgx.close_in_background(fd)  # closed: nothing to do
    assert eventually(lambda: not is_open(number))


@pytest.mark.parametrize("wrong", [2**32, -1, True, 1.0, None], ids=repr)
def test_background_refuses_what_is_not_a_descriptor(wrong: Any) -> None:
    reader, writer = os.pipe()
    try:
        number = wrong + reader if wrong == 2**32 else wrong
        with pytest.raises((TypeError, ValueError, OverflowError)):
            cmsgx.close_in_background(number)
        time.sleep(0.05)
        assert is_open(reader)
    finally:
        os.close(reader)
        os.close(writer)


def test_close_reports_what_the_kernel_reports() -> None:
    fd = new_fd()
    os.close(fd.fileno())
    with pytest.raises(OSError, match=r"close of descriptor \d+") as caught:
        fd.close()
    assert caught.value.errno == errno.EBADF
    assert fd.closed
