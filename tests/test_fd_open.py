"""Fd.open() and Fd.socket()."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import fails
from owners import new_fd
from support import fill_table, in_fork, is_open, open_fds, open_files, run_python

import cmsgx

# Fd.open() --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ({}, "däta\n"),
        ({"mode": "r"}, "däta\n"),
        ({"mode": "r", "encoding": "latin-1"}, "dÃ¤ta\n"),
        ({"mode": "r", "encoding": "ascii", "errors": "replace"}, "d��ta\n"),
        ({"mode": "rb"}, b"d\xc3\xa4ta\n"),
        ({"mode": "rb", "buffering": 0}, b"d\xc3\xa4ta\n"),
        ({"mode": "r+b"}, b"d\xc3\xa4ta\n"),
    ],
    ids=str,
)
def test_open_reads(arguments: dict[str, Any], content: str | bytes) -> None:
    with open_files(1) as [number]:
        os.pwrite(number, "däta\n".encode(), 0)
        fd = cmsgx.Fd(os.dup(number))
        own = fd.fileno()
        arguments = {"encoding": "utf-8", **arguments} if isinstance(content, str) else arguments
        with fd.open(**arguments) as file:
            assert fd.closed
            assert not os.get_inheritable(file.fileno())
            assert file.read() == content
            assert file.fileno() == file.name == own
        assert not is_open(own)


@pytest.mark.parametrize(
    ("mode", "content"), [("w", b"new\n"), ("wb", b"new\n"), ("r+", b"new\n"), ("a", b"0new\n")]
)
def test_open_writes_and_does_not_truncate(mode: str, content: bytes) -> None:
    with open_files(1) as [number]:
        data: Any = "new\n" if "b" not in mode else b"new\n"
        with cmsgx.Fd(os.dup(number)).open(mode) as file:
            file.write(data)
        assert os.pread(number, 10, 0) == content


def test_open_keeps_the_locks_of_the_process_and_of_the_description() -> None:
    """Any close of the file releases the process's locks of fcntl(2): no close is made."""
    code = """
import fcntl, os, sys, tempfile
import cmsgx

def is_locked(lock):
    pid = os.fork()
    if not pid:
        with open(file.name, "r+b") as mine:
            try:
                lock(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

with tempfile.NamedTemporaryFile() as file:
    for lock in (fcntl.lockf, fcntl.flock):
        fd = cmsgx.Fd(os.open(file.name, os.O_RDWR))
        lock(fd.fileno(), fcntl.LOCK_EX)
        before = is_locked(lock)
        with fd.open("r+b"):
            print(before, is_locked(lock))
"""
    assert run_python(code).splitlines() == ["1 1", "1 1"]


def test_open_reads_on_from_the_shared_offset() -> None:
    with open_files(1) as [number]:
        os.pwrite(number, b"0123456789", 0)
        os.lseek(number, 4, os.SEEK_SET)
        with cmsgx.Fd(os.dup(number)).open("rb", 0) as file:
            assert file.read(3) == b"456"
        assert os.lseek(number, 0, os.SEEK_CUR) == 7


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"mode": "bogus"}, ValueError),
        ({"mode": "rw"}, ValueError),
        ({"mode": "r", "encoding": "bogus"}, LookupError),
        ({"mode": "r", "errors": "bogus"}, LookupError),
        ({"mode": "rb", "encoding": "utf-8"}, ValueError),
        ({"mode": "r", "newline": "bogus"}, ValueError),
        ({"mode": "r", "buffering": 0}, ValueError),
        ({"mode": "r", "buffering": "many"}, TypeError),
        ({"mode": 3}, TypeError),
    ],
    ids=str,
)
def test_open_that_fails_keeps_ownership(arguments: dict[str, Any], error: type[Exception]) -> None:
    if "errors" in arguments and not sys.flags.dev_mode:
        arguments = {**arguments, "encoding": "bogus"}  # `errors` is only looked at in dev mode
    with new_fd() as fd:
        number, before = fd.fileno(), open_fds()
        with pytest.raises(error):
            fd.open(**arguments)
        assert fd.fileno() == number
        assert open_fds() == before


def test_open_of_a_directory_keeps_ownership(tmp_path: Path) -> None:
    with cmsgx.Fd(os.open(tmp_path, os.O_RDONLY)) as fd:
        before = open_fds()
        with pytest.raises(IsADirectoryError):
            fd.open()
        assert open_fds() == before


MODES: list[dict[str, Any]] = [
    {"mode": "r", "encoding": "utf-8"},
    {"mode": "r+", "encoding": "utf-8", "newline": ""},
    {"mode": "w", "encoding": "latin-1", "buffering": 1},
    {"mode": "a", "encoding": "utf-8"},
    {"mode": "x", "encoding": "utf-8"},
    {"mode": "rb"},
    {"mode": "rb", "buffering": 0},
    {"mode": "r+b"},
    {"mode": "r+b", "buffering": 0},
    {"mode": "wb", "buffering": 4096},
    {"mode": "ab"},
    {"mode": "xb", "buffering": 0},
]


@pytest.mark.parametrize("arguments", MODES, ids=str)
def test_open_makes_what_open_makes_of_a_number(arguments: dict[str, Any]) -> None:
    with open_files(1) as [number]:
        own = os.dup(number)
        with (
            open(number, closefd=False, **arguments) as plain,
            cmsgx.Fd(own).open(**arguments) as file,
        ):
            layers: list[list[Any]] = []
            for one in (file, plain):
                below = getattr(one, "buffer", one)
                layers.append([one, below, getattr(below, "raw", below)])
            for ours, theirs in zip(*layers, strict=True):
                assert type(ours) is type(theirs)
                for name in ("mode", "encoding", "errors", "newlines", "line_buffering"):
                    assert getattr(ours, name, None) == getattr(theirs, name, None)
                for name in ("readable", "writable", "seekable", "isatty", "tell"):
                    assert getattr(ours, name)() == getattr(theirs, name)()
            assert layers[0][2].closefd
            assert file.name == own
            if file.writable():
                data: Any = "new" if hasattr(file, "encoding") else b"new"
                assert file.write(data) == 3
            elif file.readable():
                assert file.read() == ("0" if hasattr(file, "encoding") else b"0")
        assert not is_open(own)
        expected = {"r": b"0", "a": b"0new"}.get(arguments["mode"].rstrip("b"), b"new")
        assert os.pread(number, 9, 0) == expected


def in_full_table(use: Callable[[cmsgx.Fd], None], make_one: Callable[[], cmsgx.Fd]) -> None:
    fd = make_one()
    use(make_one())  # its imports happen here

    def in_child() -> None:
        fill_table()
        use(fd)

    with fd:
        in_fork(in_child)


@pytest.mark.parametrize("arguments", MODES, ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_open_needs_no_free_place_in_the_table(arguments: dict[str, Any]) -> None:
    def use(fd: cmsgx.Fd) -> None:
        number = fd.fileno()
        with fd.open(**arguments) as file:
            assert file.fileno() == number
        assert not is_open(number)

    in_full_table(use, lambda: cmsgx.Fd(os.memfd_create("file")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_socket_needs_no_free_place_in_the_table() -> None:
    def use(fd: cmsgx.Fd) -> None:
        number = fd.fileno()
        with fd.socket() as made:
            assert made.fileno() == number
        assert not is_open(number)

    in_full_table(use, lambda: cmsgx.Fd(socket.socket().detach()))


def test_open_that_fails_at_its_last_step_keeps_ownership() -> None:
    """As if a hook refused it: an object that only uses the number is created first, and then owns
    it."""
    code = """
import os, sys
import cmsgx

def hook(event, args):
    if event == "open" and args[0] == number:
        calls.append(args)
        if len(calls) == refused:
            raise PermissionError

fd = cmsgx.Fd(os.memfd_create("file"))
number = fd.fileno()
sys.addaudithook(hook)
for refused in (1, 2):
    calls = []
    try:
        fd.open("r", encoding="utf-8")
    except PermissionError:
        print(len(calls), fd.fileno() == number, os.fstat(number).st_size)
calls, refused = [], 0
with fd.open("rb") as file:
    print(fd, file.fileno() == number)
"""
    assert run_python(code).splitlines() == ["1 True 0", "2 True 0", "<Fd opened> True"]


def test_open_and_a_close_by_another_thread_close_once() -> None:
    """close() comes while the file is created: there is no file then, and the number is closed."""
    with open_files(1) as [number]:
        fd = cmsgx.Fd(os.dup(number))
        own = fd.fileno()

        def close_then(frame: object, event: str, argument: object) -> None:
            if event == "c_call" and argument is open:
                fd.close()

        sys.setprofile(close_then)
        try:
            with pytest.raises(ValueError, match="owns no descriptor: it was closed"):
                fd.open("rb")
        finally:
            sys.setprofile(None)
        assert not is_open(own)


# Fd.socket() ------------------------------------------------------------------------------------

ADDRESS_TYPES = [
    (socket.AF_UNIX, socket.SOCK_STREAM),
    (socket.AF_UNIX, socket.SOCK_DGRAM),
    (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    (socket.AF_INET, socket.SOCK_STREAM),
    (socket.AF_INET, socket.SOCK_DGRAM),
    (socket.AF_INET6, socket.SOCK_DGRAM),
    (socket.AF_NETLINK, socket.SOCK_RAW),
]


@pytest.fixture
def default_timeout() -> Iterator[Callable[[float | None], None]]:
    """socket.setdefaulttimeout(), restored at the end."""
    yield socket.setdefaulttimeout
    socket.setdefaulttimeout(None)


@pytest.mark.parametrize(("family", "kind"), ADDRESS_TYPES)
@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "O_NONBLOCK"])
@pytest.mark.parametrize("default", [None, 0.0, 5.0], ids=lambda t: f"default timeout {t}")
def test_socket_changes_no_flag_of_the_shared_description(
    family: int,
    kind: int,
    is_blocking: bool,
    default: float | None,
    default_timeout: Callable[[float | None], None],
) -> None:
    with socket.socket(family, kind) as original:
        original.setblocking(is_blocking)
        flags = fcntl.fcntl(original, fcntl.F_GETFL)
        default_timeout(default)
        fd = cmsgx.Fd(os.dup(original.fileno()))
        number = fd.fileno()
        with fd.socket() as made:
            assert fd.closed
            assert fcntl.fcntl(original, fcntl.F_GETFL) == flags
            assert type(made) is cmsgx.socket
            assert made.fileno() == number
            assert (made.family, made.type, made.proto) == (
                family,
                kind,
                original.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL),
            )
            assert made.gettimeout() == (None if is_blocking else 0.0)
        assert fcntl.fcntl(original, fcntl.F_GETFL) == flags
        assert not is_open(number)


def test_socket_of_what_is_not_a_socket_keeps_ownership() -> None:
    with new_fd() as fd:
        number, before = fd.fileno(), open_fds()
        with fails(errno.ENOTSOCK):
            fd.socket()
        assert fd.fileno() == number
        assert open_fds() == before
