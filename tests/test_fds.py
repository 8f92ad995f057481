"""cmsgx.Fd, PidFd and the background closer: one owner for each descriptor."""

from __future__ import annotations

import copy
import errno
import fcntl
import gc
import math
import operator
import os
import pickle
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt, fails
from support import (
    close_pair,
    enter_empty_root,
    eventually,
    fill_table,
    gives_up_the_gil,
    in_fork,
    is_open,
    open_fds,
    open_files,
    run_python,
    stuck_in_close,
    unix_pair,
)

import cmsgx
from cmsgx import _cmsg, _fds

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
F_SEAL_FUTURE_WRITE = 0x10
# _IOWR(0xff, 11, struct pidfd_info), of 64 bytes.
PIDFD_GET_INFO = 0xC040FF0B


@pytest.mark.parametrize("result", [-1, 2**31, 2**70, None, "3", True, (), (None,), (-1, "x"), 3.0])
def test_only_a_descriptor_is_owned(result: Any) -> None:
    with pytest.raises(TypeError, match="is not a descriptor"):
        _cmsg.own_result(cmsgx.Fd, lambda: result)
    for wrong in (int, object, cmsgx.Message):
        with pytest.raises(TypeError, match="a subclass of Descriptor"):
            _cmsg.own_result(wrong, lambda: result)  # type: ignore[type-var]
    with pytest.raises(ZeroDivisionError):
        _cmsg.own_result(cmsgx.Fd, lambda: 1 // 0)


def test_what_is_owned_is_of_its_class_and_its_result_is_there() -> None:
    for cls in (cmsgx.Fd, cmsgx.PidFd):
        number = os.memfd_create("x")
        fd, result = _cmsg.own_result(cls, partial(tuple, [number, "more"]))
        with fd:
            assert type(fd) is cls
            assert fd.fileno() == number
            assert result == (number, "more")


def new_fd() -> cmsgx.Fd:
    return cmsgx.Fd(os.open(os.devnull, os.O_RDWR))


def identity(number: int) -> tuple[int, int]:
    status = os.fstat(number)
    return status.st_dev, status.st_ino


# Fd: life ---------------------------------------------------------------------------------------


def test_owns_and_closes() -> None:
    with open_files(1) as [number]:
        fd = cmsgx.Fd(os.dup(number))
        taken = fd.fileno()
        assert not fd.closed
        fd.close()
        fd.close()
        assert fd.closed
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.fileno()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(taken)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (True, TypeError),
        ("3", TypeError),
        (3.0, TypeError),
        (None, TypeError),
        pytest.param(sys.stdin, TypeError, id="a file"),
        (-1, ValueError),
        (2**31, ValueError),
        (2**32, ValueError),
        (2**70, ValueError),
        (1_000_000, OSError),
    ],
    ids=repr,
)
def test_takes_over_what_is_open_only(number: Any, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        cmsgx.Fd(number)
    if error is OSError:
        assert caught.value.errno == errno.EBADF  # type: ignore[attr-defined]


USES: list[Callable[[cmsgx.Fd], object]] = [
    cmsgx.Fd.fileno,
    cmsgx.Fd.detach,
    cmsgx.Fd.dup,
    cmsgx.Fd.open,
    cmsgx.Fd.socket,
    cmsgx.Fd.check,
    cmsgx.Fd.map,
    cmsgx.Fd.__enter__,
]


def end_its_with(fd: cmsgx.Fd) -> None:
    with fd:
        pass


def close_it_with_a_pin(fd: cmsgx.Fd) -> None:
    with fd._pinned():
        fd.close()


def detach_it_with_a_pin(fd: cmsgx.Fd) -> None:
    with fd._pinned():
        os.close(fd.detach())


def close_it_in_the_background(fd: cmsgx.Fd) -> None:
    fd.close_in_background()
    assert cmsgx.wait_closed(60) == 0


def give_it_to_the_background_with_a_pin(fd: cmsgx.Fd) -> None:
    with fd._pinned():
        fd.close_in_background()
    assert cmsgx.wait_closed(60) == 0


# How it goes, what repr() says then, and what an error says.
GOING: dict[str, tuple[Callable[[cmsgx.Fd], object], str, str]] = {
    "close": (cmsgx.Fd.close, "closed", "it was closed"),
    "close(now)": (lambda fd: fd.close(now=True), "closed", "it was closed"),
    "with": (end_its_with, "closed", "it was closed"),
    "close, pinned": (close_it_with_a_pin, "closed", "it was closed"),
    "background": (
        close_it_in_the_background,
        "closed in the background",
        "close_in_background() took it",
    ),
    "background, pinned": (
        give_it_to_the_background_with_a_pin,
        "closed in the background",
        "close_in_background() took it",
    ),
    "detach": (
        lambda fd: os.close(fd.detach()),
        "detached",
        "detach() gave it away, as a number",
    ),
    "detach, pinned": (detach_it_with_a_pin, "detached", "detach() gave it away, as a number"),
    "open": (
        lambda fd: fd.open("rb").close(),
        "opened",
        "open() gave it to a file object; use that, or dup() before open()",
    ),
    "socket": (
        lambda fd: fd.socket().close(),
        "made a socket",
        "socket() gave it to a socket; use that, or dup() before socket()",
    ),
}


@pytest.mark.parametrize("how", GOING)
def test_one_that_owns_nothing_says_how_its_number_went(how: str) -> None:
    go, word, sentence = GOING[how]
    left, right = unix_pair()
    with left, right:
        fd = cmsgx.Fd(os.dup(right.fileno())) if how == "socket" else new_fd()
        go(fd)
        assert fd.closed
        assert repr(fd) == f"<Fd {word}>"
        fd.close()  # which is not the first
        assert repr(fd) == f"<Fd {word}>"
        for use in USES:
            with pytest.raises(ValueError, match=re.escape(f"Fd owns no descriptor: {sentence}")):
                use(fd)
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            cmsgx.send(left, b"1", fds=[0, fd])
        assert f"fds[1]: <Fd {word}>" in str(caught.value)
        assert sentence in str(caught.value) or word == "closed"
        with pytest.raises(OSError, match="Bad file descriptor") as caught:
            cmsgx.receive(fd, 1)
        assert f"sock: <Fd {word}>" in str(caught.value)


@pytest.mark.parametrize("end", ["with", "next step", "close", "batch"])
@pytest.mark.parametrize("looked_at", [True, False], ids=["looked at", "not looked at"])
def test_one_that_was_closed_with_its_message_names_take(end: str, looked_at: bool) -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right, open_files(1) as numbers:
        for _ in range(2):
            cmsgx.send(left, b"1", fds=numbers)
        message: cmsgx.Message
        if end == "batch":
            with cmsgx.BatchReceiver(right, 1, 1, fds=1).receive() as batch:
                message = batch[0]
                assert not looked_at or message.fds[0].fileno() > 0
        elif end == "next step":
            receiver = cmsgx.Receiver(right, 1, fds=1)
            message = next(iter(receiver))
            assert not looked_at or message.fds[0].fileno() > 0
            next(iter(receiver)).close()
            message.close()
        else:
            message = cmsgx.receive(right, 1, fds=1)
            assert not looked_at or message.fds[0].fileno() > 0
            if end == "close":
                message.close()
            else:
                with message:
                    pass
        fd = message.fds[0]
        assert repr(fd) == "<Fd closed with its message>"
        for use in USES:
            with pytest.raises(ValueError, match=r"it was closed with its message, .*take\(\) it"):
                use(fd)
        with pytest.raises(OSError, match=r"take\(\) it from the message before that"):
            cmsgx.send(left, b"1", fds=[fd])


class OwnFd(cmsgx.Fd):
    __slots__ = ()


@pytest.mark.parametrize("looked_at", [True, False], ids=["looked at", "not looked at"])
@pytest.mark.parametrize("how", ["fd_class", "detach_all"])
def test_one_that_was_taken_otherwise_says_so(how: str, looked_at: bool) -> None:
    left, right = unix_pair()
    with left, right, open_files(1) as numbers:
        cmsgx.send(left, b"1", fds=numbers)
        with cmsgx.receive(right, 1, fds=1) as message:
            assert not looked_at or message.fds[0].fileno() > 0
            if how == "fd_class":
                owner: cmsgx.Fd = message.take(0, fd_class=OwnFd)
            else:
                owner = cmsgx.Fd(*message.detach_all())
            fd = message.fds[0]
            with owner:
                assert fd.closed
                assert repr(fd) == "<Fd taken>"
                for use in USES:
                    with pytest.raises(ValueError, match="it was taken from its message"):
                        use(fd)
        assert repr(fd) == repr(message.fds[0]) == "<Fd taken>"


def test_what_was_closed_before_it_is_taken_says_how() -> None:
    left, right = unix_pair()
    with left, right, open_files(1) as numbers:
        cmsgx.send(left, b"1", fds=numbers * 2)
        with cmsgx.receive(right, 1, fds=2) as message:
            os.close(message.fds[0].detach())
            with pytest.raises(ValueError, match=r"descriptor 0 .*: <Fd detached>"):
                message.take(0, fd_class=OwnFd)
            message.fds[1].close()
            with pytest.raises(ValueError, match=r"descriptor 1 .*: <Fd closed>"):
                message.take(1)
            with pytest.raises(ValueError, match=r"descriptor 0 .*: <Fd detached>"):
                message.detach_all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_child_says_how_the_number_of_its_parent_went() -> None:
    fd = new_fd()
    pin = fd._pinned()
    os.close(fd.detach())

    def in_child() -> None:
        assert repr(fd) == "<Fd detached>"
        fd.close()
        assert repr(fd) == "<Fd detached>"

    in_fork(in_child)
    del pin
    assert repr(fd) == "<Fd detached>"


def test_with_closes_also_when_it_raises() -> None:
    fd = new_fd()
    number = fd.fileno()
    with pytest.raises(ZeroDivisionError), fd as inside:  # noqa: PT012
        assert inside is fd
        raise ZeroDivisionError
    assert fd.closed
    assert not is_open(number)


def test_dup_is_a_second_owner_of_the_same_description() -> None:
    with open_files(1) as [number], cmsgx.Fd(os.dup(number)) as first, first.dup() as second:
        assert type(second) is cmsgx.Fd
        assert not os.get_inheritable(second.fileno())
        os.lseek(first.fileno(), 7, os.SEEK_SET)
        assert os.lseek(second.fileno(), 0, os.SEEK_CUR) == 7
        first.close()
        assert is_open(second.fileno())


def test_detach_gives_the_number_away_once() -> None:
    fd = new_fd()
    number = fd.fileno()
    assert fd.detach() == number
    del fd
    gc.collect()
    assert is_open(number)
    os.close(number)


def test_collected_open_warns_and_closes() -> None:
    fd = new_fd()
    number = fd.fileno()
    with pytest.warns(ResourceWarning, match=rf"<Fd {number}> was never closed"):
        del fd
    assert not is_open(number)


@pytest.mark.parametrize("give_away", ["close", "detach"])
@pytest.mark.slow
def test_of_many_threads_one_gets_it(give_away: str) -> None:
    for _ in range(50):
        fd = new_fd()
        number = fd.fileno()
        barrier = threading.Barrier(8)
        got: list[object] = []

        def use(fd: cmsgx.Fd = fd, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            with suppress(ValueError):
                got.append(getattr(fd, give_away)())  # noqa: B023

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if give_away == "detach":
            assert got == [number]
            os.close(number)
        else:
            assert got == [None] * 8
            assert not is_open(number)


def test_equal_by_identity_and_no_number() -> None:
    with open_files(1) as [number], cmsgx.Fd(os.dup(number)) as one, one.dup() as other:
        assert one == one
        assert one != other
        number_of_one: Any = one.fileno()
        assert one != number_of_one
        assert len({one, other, one}) == 2
        converters: tuple[Any, ...] = (operator.index, int, os.fstat, os.close, range)
        for convert in converters:
            with pytest.raises(TypeError):
                convert(one)


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda function: function.__name__
)
@pytest.mark.parametrize("kind", [cmsgx.Fd, cmsgx.PidFd])
def test_neither_copied_nor_pickled(
    duplicate: Callable[[object], object], kind: type[cmsgx.Fd]
) -> None:
    with kind(os.open(os.devnull, os.O_RDWR)) as fd, pytest.raises(TypeError, match=kind.__name__):
        duplicate(fd)


def test_repr_says_what_it_owns() -> None:
    with new_fd() as fd:
        assert repr(fd) == f"<Fd {fd.fileno()}>"
    assert repr(fd) == "<Fd closed>"


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
    """fcntl(2) takes those of the process with any close of the file: none is made."""
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
    use(make_one())  # what it imports, it imports here

    def in_child() -> None:
        fill_table()
        use(fd)

    with fd:
        in_fork(in_child)


@pytest.mark.parametrize("arguments", MODES, ids=str)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_open_needs_no_room_in_the_table(arguments: dict[str, Any]) -> None:
    def use(fd: cmsgx.Fd) -> None:
        number = fd.fileno()
        with fd.open(**arguments) as file:
            assert file.fileno() == number
        assert not is_open(number)

    in_full_table(use, lambda: cmsgx.Fd(os.memfd_create("file")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_socket_needs_no_room_in_the_table() -> None:
    def use(fd: cmsgx.Fd) -> None:
        number = fd.fileno()
        with fd.socket() as made:
            assert made.fileno() == number
        assert not is_open(number)

    in_full_table(use, lambda: cmsgx.Fd(socket.socket().detach()))


def test_open_that_fails_at_its_last_step_keeps_ownership() -> None:
    """As where a hook refuses it: first what only uses the number is made, then it owns it."""
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
    """close() comes while the file is made: then there is none, and the number is closed."""
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
    """socket.setdefaulttimeout(), taken back at the end."""
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


def test_socket_of_what_is_none_keeps_ownership() -> None:
    with new_fd() as fd:
        number, before = fd.fileno(), open_fds()
        with fails(errno.ENOTSOCK):
            fd.socket()
        assert fd.fileno() == number
        assert open_fds() == before


# Fd.check() -------------------------------------------------------------------------------------


def make(what: str, path: Path, stack: ExitStack) -> cmsgx.Fd:
    """A descriptor of that kind; what else it needs goes on the stack."""
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


KINDS: dict[str, set[Any]] = {
    "file": {"file"},
    "file, to read": {"file"},
    "file, to append": {"file"},
    "directory": {"directory"},
    "socket": {"socket"},
    "pipe": {"pipe"},
    "fifo": {"pipe"},
    "/dev/null": {"character"},
    "tty": {"character"},
    "memfd": {"memfd", "file"},
    "memfd, sealed": {"memfd", "file"},
    "pidfd": {"pidfd", "anonymous"},
    "eventfd": {"eventfd", "anonymous"},
    "epoll": {"epoll", "anonymous"},
}
ALL_KINDS: tuple[Any, ...] = (
    *("file", "directory", "socket", "pipe", "character", "block", "symlink"),
    *("memfd", "pidfd", "eventfd", "epoll", "anonymous"),
)


@pytest.mark.parametrize("what", KINDS)
def test_check_tells_kinds_apart(what: str, tmp_path: Path) -> None:
    with ExitStack() as stack, make(what, tmp_path, stack) as fd:
        assert {kind for kind in ALL_KINDS if fd.check(kind=kind)} == KINDS[what]
        assert fd.check()
        assert fd.check(kind=ALL_KINDS)
        assert not fd.check(kind=set(ALL_KINDS) - KINDS[what])
        assert fd.check(device=os.fstat(fd.fileno()).st_dev)
        assert not fd.check(device=os.fstat(fd.fileno()).st_dev + 1)


def kinds_that_cannot_be_told(fd: cmsgx.Fd) -> set[Any]:
    found: set[Any] = set()
    for kind in ALL_KINDS:
        try:
            fd.check(kind=kind)
        except FileNotFoundError as error:
            if f"whether it is one of ['{kind}'] only /proc/self/fd/" not in str(error):
                raise
            found.add(kind)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_check_tells_kinds_apart_in_a_chroot_or_says_that_it_cannot(tmp_path: Path) -> None:
    with ExitStack() as stack:
        made = {}
        for what in KINDS:
            (tmp_path / what.replace("/", "-")).mkdir()
            made[what] = make(what, tmp_path / what.replace("/", "-"), stack)
            stack.enter_context(made[what])

        def child() -> None:
            enter_empty_root(tmp_path / "empty")
            for what, fd in made.items():
                unknown = kinds_that_cannot_be_told(fd)
                expected = {"eventfd", "epoll"} if what in ("eventfd", "epoll") else set()
                assert unknown == expected, (what, unknown)
                told = {k for k in ALL_KINDS if k not in unknown and fd.check(kind=k)}
                assert told == KINDS[what] - unknown, (what, told)
                assert fd.check(kind=ALL_KINDS)

        in_fork(child)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_check_with_a_full_table_says_so_only_where_it_needs_a_descriptor() -> None:
    with cmsgx.Fd(os.memfd_create("plain")) as fd:

        def child() -> None:
            _fds._device_of_memfds.cache_clear()
            fill_table()
            assert fd.check(kind="file")
            assert fd.check(kind=["memfd", "file"])
            for other in set(ALL_KINDS) - {"memfd", "file"}:
                assert not fd.check(kind=other)
            with pytest.raises(OSError, match="a memfd is told by") as caught:
                fd.check(kind="memfd")
            assert caught.value.errno == errno.EMFILE
            os.close(0)
            assert fd.check(kind="memfd")
            os.dup(1)
            assert fd.check(kind="memfd")

        in_fork(child)


@pytest.mark.parametrize(("what", "kind"), [("file, O_PATH", "file"), ("symlink", "symlink")])
def test_check_refuses_o_path_unless_it_will_do(what: str, kind: Any, tmp_path: Path) -> None:
    modes: tuple[Any, ...] = ("r", "w", "rw")
    with ExitStack() as stack, make(what, tmp_path, stack) as fd:
        assert not fd.check()
        assert not fd.check(kind=kind)
        assert fd.check(kind=kind, path=True)
        assert {k for k in ALL_KINDS if fd.check(kind=k, path=True)} == {kind}
        for access in modes:
            assert not fd.check(access=access, path=True)


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        ("file", {"r", "w", "rw"}),
        ("file, to read", {"r"}),
        ("file, to append", {"w"}),
        ("pipe", {"r"}),
        ("/dev/null", {"w"}),
        ("socket", {"r", "w", "rw"}),
    ],
)
def test_check_access(what: str, allowed: set[str], tmp_path: Path) -> None:
    modes: tuple[Any, ...] = ("r", "w", "rw")
    with ExitStack() as stack, make(what, tmp_path, stack) as fd:
        assert {access for access in modes if fd.check(access=access)} == allowed


def test_check_seals_and_size(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sealed = stack.enter_context(make("memfd, sealed", tmp_path, stack))
        assert sealed.check(kind="memfd", seals=SEALS, size=4096)
        assert sealed.check(seals=fcntl.F_SEAL_SHRINK, size=1)
        assert not sealed.check(seals=SEALS | F_SEAL_FUTURE_WRITE)
        assert not sealed.check(size=4097)
    with cmsgx.Fd(os.memfd_create("plain")) as plain:
        assert not plain.check(seals=fcntl.F_SEAL_SHRINK)
        assert not plain.check(size=1)
        assert plain.check(size=0)
    with cmsgx.Fd(os.open(tmp_path / "file", os.O_RDONLY)) as file:
        assert file.check(size=5)
        assert not file.check(size=6)
        assert not file.check(seals=fcntl.F_SEAL_SHRINK)


def test_a_file_that_is_named_like_a_memfd_is_none(tmp_path: Path) -> None:
    """The link in /proc shows a path; only a memfd's begins with /memfd: ."""
    (tmp_path / "memfd:x").mkdir()
    (tmp_path / "memfd:x" / "anon_inode:[pidfd]").touch()
    with cmsgx.Fd(os.open(tmp_path / "memfd:x" / "anon_inode:[pidfd]", os.O_RDWR)) as fd:
        assert not fd.check(kind="memfd")
        assert not fd.check(kind="pidfd")
        assert fd.check(kind="file")


def test_a_file_of_an_unmounted_file_system_is_no_memfd(tmp_path: Path) -> None:
    """Its path is that of its file system alone, as a memfd's is."""
    code = """
import ctypes, os, sys
import cmsgx
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        print("refused:", name, os.strerror(ctypes.get_errno()))
        sys.exit()

CLONE_NEWNS, CLONE_NEWUSER, MS_REC_PRIVATE, MNT_DETACH = 0x20000, 0x10000000, 0x44000, 2
user, group = os.geteuid(), os.getegid()
call("unshare", CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
if user:
    # A tmpfs has no files of users that its namespace does not know.
    maps = {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
call("mount", None, b"/", None, MS_REC_PRIVATE, None)
there = sys.argv[1].encode()
for name in ("memfd:x", "gone"):
    call("mount", b"none", there, b"tmpfs", 0, None)
    fd = cmsgx.Fd(os.open(there + b"/memfd:x", os.O_RDWR | os.O_CREAT))
    if name == "gone":
        os.unlink(there + b"/memfd:x")
    call("umount2", there, MNT_DETACH)
    link = os.readlink(f"/proc/self/fd/{fd.fileno()}")
    print(link.startswith("/memfd:x"), fd.check(kind="memfd"), fd.check(kind="file"))
    fd.close()
"""
    told = run_python(code, str(tmp_path))
    if told.startswith("refused"):
        pytest.skip(told)
    assert told.splitlines() == ["True False True"] * 2


@pytest.mark.parametrize("shift", [0, 21, 30])
def test_a_memfd_of_huge_pages_is_one(shift: int) -> None:
    with attempt("huge pages"):
        number = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | shift << 26)
    with cmsgx.Fd(number) as fd:
        assert fd.check(kind="memfd")


@pytest.mark.parametrize("arguments", [{"kind": "bogus"}, {"access": "x"}], ids=str)
def test_check_refuses_a_word_that_it_does_not_know(arguments: dict[str, Any]) -> None:
    with new_fd() as fd, pytest.raises(ValueError, match=next(iter(arguments))):
        fd.check(**arguments)


# Closed meanwhile ---------------------------------------------------------------------------------


def memfd(content: bytes = b"content") -> cmsgx.Fd:
    with cmsgx.share(content) as fd:
        return fd.dup()


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
    with cmsgx.Fd(_fds._reduce(fd)[1][1]) as duplicate:
        return os.pread(duplicate.fileno(), 100, 0)


def default_deadline(fd: cmsgx.Fd) -> float | None:
    # Of a socket that has no MSG_ZEROCOPY, so that the rest of it cannot be made.
    sender = object.__new__(cmsgx.ZeroCopySender)
    sender.sock = fd
    sender._is_green = False
    return sender._deadline(...).left()


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
         "peer_credentials", "ZeroCopySender", "Receiver"],
)  # fmt: skip
def test_what_is_closed_in_the_middle_of_a_call_is_not_another_file_there(
    make: Callable[[], Any], use: Callable[[Any], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed at each call of a C function in turn, and its number, if it is free, given to another
    file: the call either never sees that, or says that the Fd is closed."""
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


# multiprocessing --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.slow
def test_multiprocessing_passes_one_to_a_new_process(method: str) -> None:
    code = """
import multiprocessing, os, sys, cmsgx, support
context = multiprocessing.get_context(sys.argv[1])
r, w = os.pipe()
with cmsgx.Fd(w) as fd:
    process = context.Process(target=support.write_and_close, args=(fd, b"from the child"))
    process.start()
    assert not fd.closed
process.join()
assert process.exitcode == 0, process.exitcode
print(os.read(r, 100).decode())
"""
    assert run_python(code, method).strip() == "from the child"


def test_multiprocessing_sends_one_through_a_connection() -> None:
    code = """
import multiprocessing, os, cmsgx
a, b = multiprocessing.Pipe()
with cmsgx.Fd(os.memfd_create("x")) as fd:
    os.write(fd.fileno(), b"content")
    a.send(("some", fd))
    word, other = b.recv()
    assert type(other) is cmsgx.Fd and other.fileno() != fd.fileno()
    with other:
        assert not os.get_inheritable(other.fileno())
        print(word, os.pread(other.fileno(), 100, 0).decode())
with cmsgx.PidFd(os.pidfd_open(os.getpid())) as pidfd:
    a.send(pidfd)
    with b.recv() as other:
        assert type(other) is cmsgx.PidFd and other.pid == os.getpid()
"""
    assert run_python(code).strip() == "some content"


# PidFd ------------------------------------------------------------------------------------------


def child(command: str) -> tuple[int, cmsgx.PidFd]:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
    return pid, cmsgx.PidFd(os.pidfd_open(pid))


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
        raise AssertionError("it waits")

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
    """Whether the kernel has PIDFD_GET_INFO, asked without cmsgx."""
    try:
        fcntl.ioctl(pidfd.fileno(), PIDFD_GET_INFO, bytearray(64))
    except OSError:
        # Some processors have another number.
        return _cmsg.pidfd_pid(pidfd.fileno()) is not None
    return True


def as_older_kernels(number: int) -> None:
    """Of _cmsg.pidfd_pid(): that they have no PIDFD_GET_INFO."""


@pytest.mark.parametrize("is_told", [True, False], ids=["PIDFD_GET_INFO", "fdinfo"])
def test_pid_is_asked_of_the_kernel_or_read_in_proc(
    is_told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cmsgx.PidFd(os.pidfd_open(os.getpid())) as own:
        if is_told and not tells_the_pid(own):
            pytest.skip("this kernel has no PIDFD_GET_INFO")
        if is_told:
            monkeypatch.setattr(_fds, "_pid_in_proc", pytest.fail)
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


def test_pid_of_what_is_no_pidfd() -> None:
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
    with pytest.raises(OSError, match="no pidfd") as caught:
        unowned.own()
    assert caught.value.errno == errno.EMFILE


@pytest.mark.parametrize("payload", [b"", b"123", b"12345"])
def test_pidfd_from_a_payload_of_another_size(payload: bytes) -> None:
    with pytest.raises(cmsgx.MalformedControlError, match=f"{len(payload)} bytes"):
        cmsgx.PidFd.unpack(payload)


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
def test_close_gives_up_the_gil(way: str) -> None:
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
def test_background_refuses_what_is_no_descriptor(wrong: Any) -> None:
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
