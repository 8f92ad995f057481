"""A socket or a descriptor is closed while another thread uses it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support import Pair, is_in_call, is_open, run_all, thread_in

import cmsgx


@pytest.fixture(autouse=True)
def switch_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


# Closed while another thread uses it --------------------------------------------------------------


@pytest.mark.parametrize("is_blocking", [True, False], ids=["in recvmsg", "in poll"])
@pytest.mark.parametrize("many", [False, True], ids=["Receiver", "BatchReceiver"])
def test_an_fd_closed_while_a_thread_waits_for_it_is_closed_when_that_call_returns(
    is_blocking: bool, many: bool, packets: Pair
) -> None:
    """So that its number cannot belong to another file there. Whether the last message is the end
    is then unknown: a closed socket cannot be asked."""
    left, right = packets
    os.set_blocking(right.fileno(), is_blocking)
    fd = cmsgx.Fd(right.detach())
    number = fd.fileno()
    receiver: Any = cmsgx.BatchReceiver(fd, 1, 10) if many else cmsgx.Receiver(fd, 10)
    identity: list[int] = []
    raised: list[OSError] = []

    def receive() -> None:
        identity.append(threading.get_native_id())
        try:
            next(receiver) if is_blocking else receiver.receive(timeout=None)
        except OSError as error:
            raised.append(error)

    # The first argument of poll(2) is an array, with as many items as the second says.
    arguments = (number,) if is_blocking else (None, 1)
    with thread_in(receive, lambda: bool(identity) and is_in_call(identity[0], *arguments)):
        fd.close()
        assert fd.closed
        assert is_open(number)
        left.send(b"")
    assert not is_open(number)
    assert [error.errno for error in raised] == [errno.EBADF]


def test_a_pidfd_closed_while_a_thread_waits_for_it_is_closed_when_the_process_ends() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
    pidfd = cmsgx.PidFd(os.pidfd_open(pid))
    number = pidfd.fileno()
    identity: list[int] = []
    waited: list[int | None] = []

    def wait() -> None:
        identity.append(threading.get_native_id())
        waited.append(pidfd.wait())

    with thread_in(wait, lambda: bool(identity) and is_in_call(identity[0], None, 1)):
        pidfd.close()
        assert is_open(number)
        os.kill(pid, signal.SIGKILL)
    assert waited == [-signal.SIGKILL]
    assert not is_open(number)


@pytest.mark.slow
def test_a_signal_is_sent_to_no_process_that_got_the_number() -> None:
    """While one thread opens and closes, and others send."""
    victim, target = [
        subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE)
        for command in ("echo; exec sleep 600", "trap '' USR1; echo; exec sleep 600")
    ]
    for process in (victim, target):
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
    current = [cmsgx.PidFd(os.pidfd_open(target.pid))]
    sent = 0
    is_over = False

    def send() -> None:
        nonlocal sent
        while not is_over:
            with contextlib.suppress(ValueError):
                current[0].send_signal(signal.SIGUSR1)
                sent += 1

    def reopen() -> None:
        nonlocal is_over
        while sent < 200_000 and victim.poll() is None:
            current[0] = pidfd = cmsgx.PidFd(os.pidfd_open(target.pid))
            time.sleep(0)
            pidfd.close()
            with cmsgx.PidFd(os.pidfd_open(victim.pid)):
                time.sleep(0)
        is_over = True

    with current[0], victim, target:
        try:
            run_all(reopen, send, send)
            assert victim.poll() is None
        finally:
            victim.kill()
            target.kill()
