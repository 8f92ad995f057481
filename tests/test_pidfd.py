"""PidFd: it owns a pidfd, and names one process."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from owners import child
from support import enter_empty_root, fill_table, in_fork, is_open

import cmsgx
from cmsgx import _cmsg
from cmsgx.kinds import _pidfd

# _IOWR(0xff, 11, struct pidfd_info), of 64 bytes.
PIDFD_GET_INFO = 0xC040FF0B


# PidFd ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9)])
def test_pidfd_waits_for_a_child_and_reaps_it(command: str, status: int) -> None:
    pid, pidfd = child(command)
    with pidfd:
        assert pidfd.error is None
        assert pidfd.wait(60) == status
        assert pidfd.pid is None
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, 0)
        with pytest.raises(ProcessLookupError):
            pidfd.send_signal(signal.SIGTERM)
        assert pidfd.wait() is None


def test_pidfd_signals_and_times_out() -> None:
    pid, pidfd = child("exec sleep 60")
    with pidfd:
        assert pidfd.pid == pid
        for timeout in (0, 0.1):
            start = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out"):
                pidfd.wait(timeout)
            assert time.monotonic() - start >= timeout
        pidfd.send_signal(signal.SIGTERM)
        assert pidfd.wait() == -signal.SIGTERM


@pytest.mark.parametrize("timeout", [math.nan, -1, -math.inf])
def test_pidfd_wait_refuses_a_time_that_would_never_be_up(timeout: float) -> None:
    def too_late(number: int, frame: object) -> None:
        raise AssertionError("it waited")

    before = signal.signal(signal.SIGALRM, too_late)
    with cmsgx.PidFd(os.pidfd_open(os.getpid())) as pidfd:
        signal.alarm(20)
        try:
            with pytest.raises(ValueError, match=f"timeout: {timeout}"):
                pidfd.wait(timeout)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("timeout", [1e7, 1e300, math.inf])
def test_pidfd_waits_longer_than_poll_can(timeout: float) -> None:
    _, pidfd = child("exit 3")
    with pidfd:
        assert pidfd.wait(timeout) == 3


def test_pidfd_waits_for_a_stranger() -> None:
    reader, writer = os.pipe()
    with open(reader) as lines:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1)]
        starter = os.posix_spawn(
            "/bin/sh", ["sh", "-c", "sleep 0.3 & echo $!"], os.environ, file_actions=actions
        )
        os.close(writer)
        pid = int(lines.readline())
    with cmsgx.PidFd(os.pidfd_open(pid)) as pidfd:
        os.waitpid(starter, 0)
        assert pidfd.pid == pid
        assert pidfd.wait(30) is None


def test_pidfd_wait_survives_a_signal_handler() -> None:
    _, pidfd = child("exec sleep 0.4")
    ran = []
    before = signal.signal(signal.SIGALRM, lambda *_: ran.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    try:
        with pidfd:
            assert pidfd.wait(20) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ran


def tells_the_pid(pidfd: cmsgx.PidFd) -> bool:
    """Whether the kernel has PIDFD_GET_INFO, found without cmsgx."""
    try:
        fcntl.ioctl(pidfd.fileno(), PIDFD_GET_INFO, bytearray(64))
    except OSError:
        # Some processors have a different number.
        return _cmsg.pidfd_pid(pidfd.fileno()) is not None
    return True


def as_older_kernels(number: int) -> None:
    """The errnos by which _cmsg.pidfd_pid() says that there is no PIDFD_GET_INFO."""


@pytest.mark.parametrize("is_told", [True, False], ids=["PIDFD_GET_INFO", "fdinfo"])
def test_pid_is_asked_of_the_kernel_or_read_in_proc(
    is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cmsgx.PidFd(os.pidfd_open(os.getpid())) as own:
        if is_told and not tells_the_pid(own):
            pytest.skip("this kernel has no PIDFD_GET_INFO")
        if is_told:
            monkeypatch.setattr(_pidfd, "_pid_in_proc", pytest.fail)
        else:
            monkeypatch.setattr(_cmsg, "pidfd_pid", as_older_kernels)
        assert own.pid == os.getpid()
    pid, pidfd = child("exit 0")
    with pidfd:
        select.select([pidfd.fileno()], [], [], 60)
        assert pidfd.pid == pid  # not reaped yet
        os.waitpid(pid, 0)
        assert pidfd.pid is None


@pytest.mark.parametrize(
    "leave", [enter_empty_root, lambda _: fill_table()], ids=["chroot", "full"]
)
@pytest.mark.parametrize("is_told", [True, False], ids=["PIDFD_GET_INFO", "fdinfo"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_pidfd_needs_no_proc_and_no_other_descriptor(
    leave: Callable[[Path], None], is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_told:
        monkeypatch.setattr(_cmsg, "pidfd_pid", as_older_kernels)
    pid, pidfd = child("exec sleep 60")
    with pidfd:
        is_told = is_told and tells_the_pid(pidfd)

        def in_child() -> None:
            leave(tmp_path / "empty")
            assert pidfd.pid == (pid if is_told else None)
            with pytest.raises(TimeoutError):
                pidfd.wait(0)
            pidfd.send_signal(signal.SIGKILL)
            assert pidfd.wait(20) is None  # a child of the parent
            assert pidfd.check(kind="pidfd")

        in_fork(in_child)
        assert pidfd.wait(20) == -signal.SIGKILL


def test_pid_of_what_is_not_a_pidfd() -> None:
    with cmsgx.PidFd(os.open(os.devnull, os.O_RDONLY)) as wrong:
        with pytest.raises(OSError, match="is not a pidfd"):
            _ = wrong.pid
        with pytest.raises(OSError):  # noqa: PT011
            wrong.send_signal(0)


def test_pidfd_is_an_fd() -> None:
    with cmsgx.PidFd(os.pidfd_open(os.getpid())) as pidfd:
        assert isinstance(pidfd, cmsgx.Fd)
        assert pidfd.check(kind="pidfd")
        with pidfd.dup() as second:
            assert type(second) is cmsgx.PidFd
            assert second.pid == os.getpid()
            assert second != pidfd


def test_pidfd_from_a_payload_is_owned_once() -> None:
    number = os.pidfd_open(os.getpid())
    unowned = cmsgx.PidFd.unpack(number.to_bytes(4, sys.byteorder))
    assert (unowned.number, unowned.error) == (number, None)
    assert is_open(number)
    with unowned.own() as pidfd:
        assert pidfd.pid == os.getpid()
        with pytest.raises(ValueError, match="own"):
            unowned.own()


def test_pidfd_from_a_payload_that_is_an_errno() -> None:
    unowned = cmsgx.PidFd.unpack((-errno.EMFILE).to_bytes(4, sys.byteorder, signed=True))
    assert (unowned.number, unowned.error) == (None, errno.EMFILE)
    with pytest.raises(OSError, match="not make a pidfd") as caught:
        unowned.own()
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize("payload", [b"", b"123", b"12345"])
def test_pidfd_from_a_payload_of_another_size(payload: bytes) -> None:
    with pytest.raises(cmsgx.MalformedControlError, match=f"{len(payload)} bytes"):
        cmsgx.PidFd.unpack(payload)
