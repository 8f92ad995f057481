"""Pidfds: descriptors that refer to a process, as the kernel attaches them. SCM_PIDFD"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from multiprocessing import reduction
from typing import NoReturn, SupportsIndex

from .. import _cmsg
from .._arguments import as_bytes, as_int, os_error
from .._deadline import Deadline
from .._fds import Fd, reduce_fd
from ..errors import MalformedControlError
from ._row import KindOption
from ._table import row_of


class PidFd(Fd):
    """Owns a pidfd, which refers to one process for good; a pid can be reused. pidfd_open(2)

    As a control message (SCM_PIDFD, Linux 6.5) it refers to the process that sent the message, or
    to the one that a sender with CAP_SYS_ADMIN named in its credentials. If the kernel could not
    make one, because the descriptor table of this process was full, which a peer can cause, it owns
    nothing, and `error` is the errno. The sender is then unknown: refuse the message.
    """

    __slots__ = ()

    @classmethod
    def option(cls) -> KindOption:
        """The same as the class, for `want=` and enable(): its option has no value."""
        return KindOption(cls, (row_of(cls).options,))

    @property
    def error(self) -> int | None:
        """The errno that arrived in place of a descriptor, or None."""
        return self._error or None

    @property
    def pid(self) -> int | None:
        """Its pid in this namespace; None if it is not visible here, was reaped, or is unknown.

        From PIDFD_GET_INFO, Linux 6.13. On older kernels it is read from /proc, if that is mounted
        and a descriptor is free: proc_pid_fdinfo(5)
        """
        with self._pinned() as number:
            pid = _cmsg.pidfd_pid(number)
            return (_pid_in_proc(self, number) if pid is None else pid) or None

    def send_signal(self, number: int) -> None:
        """Sends a signal: pidfd_send_signal(2). ProcessLookupError if the process has ended."""
        number = as_int("number", number)
        with self._pinned() as pidfd:
            try:
                signal.pidfd_send_signal(pidfd, number)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise os_error(errno.EINVAL, f"number: {number} is not a signal") from None
                if error.errno == errno.EBADF:
                    raise os_error(errno.EBADF, f"{self!r} is not a pidfd") from None
                raise

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended; TimeoutError after `timeout` seconds. waitid(2)

        A child of this process is reaped, and its exit status returned as subprocess does it
        (negative for a signal). For any other process the result is None. If another thread closes
        the PidFd meanwhile, this goes on waiting for the same process, and the descriptor is closed
        when it returns.
        """
        deadline = Deadline(timeout)
        with self._pinned() as number:
            poll = select.poll()
            poll.register(number, select.POLLIN)
            left = deadline.remaining()
            while not poll.poll(_milliseconds(left)):
                if left == 0:
                    raise TimeoutError("timed out")
                left = deadline.remaining()
            try:
                result = os.waitid(os.P_PIDFD, number, os.WEXITED)
            except ChildProcessError:
                return None
            except OSError as error:
                if error.errno in (errno.EBADF, errno.EINVAL):
                    raise os_error(error.errno, f"{self!r} is not a pidfd") from None
                raise
        if result is None:
            return None
        exited = result.si_code == os.CLD_EXITED
        return result.si_status if exited else -result.si_status

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, /) -> UnownedPidFd:
        """Makes an UnownedPidFd from a payload of SCM_PIDFD; it owns nothing until own()."""
        return UnownedPidFd(data)


def _pid_in_proc(pidfd: PidFd, number: int) -> int | None:
    try:
        if os.readlink("/proc/self") != str(os.getpid()):
            return None  # /proc, and the numbers in it, belong to another pid namespace
        with open(f"/proc/self/fdinfo/{number}", encoding="ascii") as info:
            lines = [line.split() for line in info]
    except OSError:
        return None
    for line in lines:
        if line[:1] == ["Pid:"]:
            return max(0, int(line[1]))
    raise os_error(errno.EINVAL, f"{pidfd!r} is not a pidfd")


def _milliseconds(seconds: float | None) -> float | None:
    # The longest wait that poll(2) takes; for a longer one it is called again.
    return None if seconds is None else min(seconds * 1000, 0x7FFFFFFF)


class UnownedPidFd:
    """The payload of SCM_PIDFD: a number that nobody owns yet, or an errno."""

    # The values are what help() says about the public ones.
    __slots__ = {
        "_tickets": None,
        "error": "The errno that arrived in place of a descriptor, or None.",
        "number": "The number of the descriptor; None if an errno arrived in its place.",
    }

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        raw = as_bytes(data)
        if len(raw) != 4:
            raise MalformedControlError(f"PidFd: {len(raw)} bytes received; expected 4")
        value = int.from_bytes(raw, sys.byteorder, signed=True)
        self.number: int | None = value if value >= 0 else None
        self.error: int | None = -value if value < 0 else None
        self._tickets = [True]

    def own(self) -> PidFd:
        """The PidFd that owns it. A second call is a ValueError. OSError if an errno arrived."""
        if self.number is None:
            assert self.error is not None
            raise os_error(self.error, "the kernel could not make a pidfd for the sender")
        return PidFd._own_all((self.number,), self._tickets)[0]

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("UnownedPidFd can be owned only once: it cannot be copied or pickled")

    def __repr__(self) -> str:
        if self.error is not None:
            return f"<UnownedPidFd, error {errno.errorcode.get(self.error, self.error)}>"
        return f"<UnownedPidFd {self.number}>"


reduction.register(PidFd, reduce_fd)
