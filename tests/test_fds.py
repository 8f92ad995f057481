"""Fd: one owner for each descriptor."""

from __future__ import annotations

import copy
import errno
import gc
import operator
import os
import pickle
import re
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from owners import new_fd
from support import in_fork, is_open, open_files, run_python, unix_pair

import cmsgx
from cmsgx import _cmsg


@pytest.mark.parametrize("result", [-1, 2**31, 2**70, None, "3", True, (), (None,), (-1, "x"), 3.0])
def test_only_a_descriptor_is_owned(result: Any) -> None:
    with pytest.raises(TypeError, match="is not a descriptor"):
        _cmsg.own_result(cmsgx.Fd, lambda: result)
    for wrong in (int, object, cmsgx.Message):
        with pytest.raises(TypeError, match="a subclass of FdBase"):
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


# How it is given away, what repr() says then, and what an error says.
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
def test_one_that_owns_nothing_says_why(how: str) -> None:
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
def test_a_child_says_what_became_of_its_parents_number() -> None:
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


def test_equal_by_identity_and_not_a_number() -> None:
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
