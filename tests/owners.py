"""Helpers of the tests of Fd and PidFd."""

from __future__ import annotations

import fcntl
import os
import select
import socket
from contextlib import ExitStack, closing
from pathlib import Path

import cmsgx

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def new_fd() -> cmsgx.Fd:
    return cmsgx.Fd(os.open(os.devnull, os.O_RDWR))


def make(what: str, path: Path, stack: ExitStack) -> cmsgx.Fd:
    """A descriptor of this kind; whatever else it needs is put on the stack."""
    (path / "file").write_bytes(b"12345")
    os.symlink("file", path / "link")
    match what:
        case "file":
            return cmsgx.Fd(os.open(path / "file", os.O_RDWR))
        case "file, to read":
            return cmsgx.Fd(os.open(path / "file", os.O_RDONLY))
        case "file, to append":
            return cmsgx.Fd(os.open(path / "file", os.O_WRONLY | os.O_APPEND))
        case "file, O_PATH":
            return cmsgx.Fd(os.open(path / "file", os.O_PATH))
        case "directory":
            return cmsgx.Fd(os.open(path, os.O_RDONLY))
        case "socket":
            return cmsgx.Fd(socket.socket().detach())
        case "pipe":
            reader, writer = os.pipe()
            stack.callback(os.close, writer)
            return cmsgx.Fd(reader)
        case "fifo":
            os.mkfifo(path / "fifo")
            return cmsgx.Fd(os.open(path / "fifo", os.O_RDWR))
        case "/dev/null":
            return cmsgx.Fd(os.open("/dev/null", os.O_WRONLY))
        case "tty":
            main, other = os.openpty()
            stack.callback(os.close, main)
            return cmsgx.Fd(other)
        case "symlink":
            return cmsgx.Fd(os.open(path / "link", os.O_PATH | os.O_NOFOLLOW))
        case "memfd":
            return cmsgx.Fd(os.memfd_create("plain"))
        case "memfd, sealed":
            fd = cmsgx.Fd(os.memfd_create("sealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
            os.ftruncate(fd.fileno(), 4096)
            fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, SEALS)
            return fd
        case "pidfd":
            return cmsgx.Fd(os.pidfd_open(os.getpid()))
        case "eventfd":
            return cmsgx.Fd(os.eventfd(0))
        case "epoll":
            with closing(select.epoll()) as epoll:
                return cmsgx.Fd(os.dup(epoll.fileno()))
    raise AssertionError(what)


def memfd(content: bytes = b"content") -> cmsgx.Fd:
    with cmsgx.share(content) as fd:
        return fd.dup()


def child(command: str) -> tuple[int, cmsgx.PidFd]:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
    return pid, cmsgx.PidFd(os.pidfd_open(pid))
