"""Message: how it hands out descriptors."""

from __future__ import annotations

import gc
import os
import socket
import warnings
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
from support import (
    Pair,
    content,
    is_open,
    open_fds,
    open_files,
    receive_with,
    run_python,
    stuck_in_close,
)

import cmsgx
from cmsgx import _cmsg

# Taking -----------------------------------------------------------------------------------------


def test_take_moves_ownership(pair: Pair) -> None:
    msg = receive_with(pair, 3)
    with msg:
        second = msg.take(1)
        last = msg.take(-1)
        assert type(second) is cmsgx.Fd
        assert msg.fds[1] is second
        assert [content(fd) for fd in msg.fds] == list("012")  # indexes do not shift
        first = msg.fds[0]
    assert first.closed
    assert [content(second), content(last)] == ["1", "2"]
    second.close()
    last.close()


def test_what_is_not_taken_is_closed_at_the_end_of_the_with(pair: Pair) -> None:
    before = open_fds()
    with receive_with(pair, 5, want=[cmsgx.PidFd]) as msg:
        numbers = [fd.fileno() for fd in msg.fds] + [msg[cmsgx.PidFd].fileno()]
        assert all(map(is_open, numbers))
    assert not any(map(is_open, numbers))
    assert open_fds() == before
    for fd in msg.fds:
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.fileno()


@pytest.mark.parametrize("look_first", [True, False])
def test_using_it_after_the_with_is_a_value_error(pair: Pair, look_first: bool) -> None:
    with receive_with(pair, 2, want=[cmsgx.PidFd]) as msg:
        if look_first:
            assert len(list(msg.fds)) == 2
            assert msg[cmsgx.PidFd]
    for use in (
        lambda: msg.take(0),
        lambda: msg.take_all(),
        lambda: msg.take(cmsgx.PidFd),
        lambda: msg.fds[0].fileno(),
        lambda: msg[cmsgx.Rights][1].fileno(),  # type: ignore[union-attr]
        lambda: msg[cmsgx.PidFd].fileno(),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert len(msg.fds) == 2
    assert repr(msg.fds)
    assert repr(msg).endswith("closed>")


def test_take_twice(pair: Pair) -> None:
    with receive_with(pair, 2, want=[cmsgx.PidFd]) as msg:
        fd, pidfd = msg.take(0), msg.take(cmsgx.PidFd)
        with pytest.raises(ValueError, match="descriptor 0 was already taken"):
            msg.take(0)
        with pytest.raises(ValueError, match="descriptor 0 was already taken"):
            msg.take(-2)
        with pytest.raises(ValueError, match="PidFd was already taken"):
            msg.take(cmsgx.PidFd)
        rest = msg.take_all()
        assert [content(one) for one in rest] == ["1"]
        assert msg.take_all() == []
        with pytest.raises(ValueError, match="descriptor 1 was already taken"):
            msg.take(1)
    assert pidfd.pid == os.getpid()
    for one in (fd, pidfd, *rest):
        one.close()


@pytest.mark.parametrize("sent", [0, 1, 2, 3, 253])
def test_take_all(pair: Pair, sent: int) -> None:
    with receive_with(pair, sent) as msg:
        taken = msg.take_all()
    assert type(taken) is list
    assert [content(fd) for fd in taken] == [str(index) for index in range(sent)]
    for fd in taken:
        fd.close()


def test_take_all_leaves_the_pidfd(pair: Pair) -> None:
    with receive_with(pair, 0, want=[cmsgx.PidFd]) as msg:
        assert msg.take_all() == []
        number = msg[cmsgx.PidFd].fileno()
    assert not is_open(number)


@pytest.mark.parametrize(
    ("which", "error"),
    [(2, IndexError), (-3, IndexError), (2**70, IndexError), ("0", TypeError), (None, TypeError)],
    ids=repr,
)
def test_take_what_is_not_there(stream: Pair, which: Any, error: type[Exception]) -> None:
    with receive_with(stream, 2) as msg, pytest.raises(error):
        msg.take(which)


@pytest.mark.parametrize("call", ["take_one", "take_all", "detach_all", "take"])
def test_what_has_no_arguments_or_a_class_takes_no_more(stream: Pair, call: str) -> None:
    with receive_with(stream, 1) as msg:
        for arguments, named in (((1, 2), {}), ((), {"other": 1})):
            with pytest.raises(TypeError, match=call):
                getattr(msg, call)(*arguments, **named)
        assert content(msg.fds[0]) == "0"


# take_one ---------------------------------------------------------------------------------------


def test_take_one_of_one(pair: Pair) -> None:
    with receive_with(pair, 1, want=[cmsgx.PidFd]) as msg:
        fd = msg.take_one()
        assert type(fd) is cmsgx.Fd
        assert msg.fds[0] is fd
        with pytest.raises(ValueError, match="descriptor 0 was already taken"):
            msg.take_one()
    assert content(fd) == "0"
    fd.close()
    with pytest.raises(ValueError, match="the message is closed"):
        msg.take_one()


@pytest.mark.parametrize(
    ("sent", "fds", "text"),
    [
        (0, 1, "0 descriptors came"),
        (0, 0, "0 descriptors came"),
        (2, 2, "2 descriptors came"),
        (253, 253, "253 descriptors came"),
    ],
)
def test_take_one_says_how_many_came(pair: Pair, sent: int, fds: int, text: str) -> None:
    with receive_with(pair, sent, fds=fds) as msg:
        with pytest.raises(ValueError, match=f"take_one: {text}$"):
            msg.take_one()
        assert [content(fd) for fd in msg.fds] == [str(index) for index in range(sent)]


@pytest.mark.parametrize(
    ("sent", "fds", "text"),
    [
        (1, 0, r"1 descriptor came, of which 1 was closed \(fds=0\)"),
        (2, 1, r"2 descriptors came, of which 1 was closed \(fds=1\)"),
        (5, 1, r"5 descriptors came, of which 4 were closed \(fds=1\)"),
    ],
)
def test_take_one_counts_those_that_were_closed(pair: Pair, sent: int, fds: int, text: str) -> None:
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
    with cmsgx.receive(pair[1], 1, fds=fds) as msg:
        with pytest.raises(ValueError, match=f"take_one: {text}"):
            msg.take_one()
        assert [content(fd) for fd in msg.fds] == ["0"] * fds


def test_take_one_knows_that_the_kernel_dropped_some(pair: Pair) -> None:
    with receive_with(pair, 3, fds=1) as msg:
        assert msg.closed_fds is None
        with pytest.raises(
            ValueError,
            match="1 descriptor came, and the kernel dropped an unknown number of others",
        ):
            msg.take_one()
        assert content(msg.fds[0]) == "0"


# detach_all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 1, 4, 5, 253])
@pytest.mark.parametrize("looked_at", [0, 1, 253])
@pytest.mark.parametrize("close", ["now", "background"])
def test_detach_all_gives_numbers(pair: Pair, sent: int, looked_at: int, close: str) -> None:
    with receive_with(pair, sent, close=close) as msg:
        seen = msg.fds[:looked_at]
        numbers = msg.detach_all()
        assert all(fd.closed for fd in seen)
        assert len(msg.fds) == sent
        assert all(fd.closed for fd in msg.fds)
        assert msg.detach_all() == []
        assert msg.take_all() == []
        if sent:
            with pytest.raises(ValueError, match="descriptor 0 was already taken"):
                msg.take(0)
    assert [os.pread(number, 9, 0) for number in numbers] == [b"%d" % at for at in range(sent)]
    for number in numbers:
        assert type(number) is int
        os.close(number)
    assert _cmsg.closer_counts() == (0, 0), "their places in the closer were given back"


def test_detach_all_leaves_what_was_taken_and_the_pidfd(pair: Pair) -> None:
    with receive_with(pair, 3, want=[cmsgx.PidFd]) as msg:
        taken = msg.take(1)
        numbers = msg.detach_all()
        assert [os.pread(number, 9, 0) for number in numbers] == [b"0", b"2"]
        assert content(taken) == "1"
        assert msg[cmsgx.PidFd].pid == os.getpid()
        taken.close()
        for number in numbers:
            os.close(number)
    with pytest.raises(ValueError, match="the message is closed"):
        msg.detach_all()


@pytest.mark.parametrize("close", ["now", "background"])
def test_detach_all_takes_none_where_one_is_gone(pair: Pair, close: str) -> None:
    with receive_with(pair, 3, close=close) as msg:
        first = msg.fds[0]
        msg.fds[1].close()
        with pytest.raises(ValueError, match="detach_all: descriptor 1 was closed or given away"):
            msg.detach_all()
        assert [content(first), content(msg.take(2))] == ["0", "2"]
        msg.fds[2].close()
    assert first.closed
    assert cmsgx.wait_closed(60) == 0


@pytest.mark.parametrize("fd_class", [None, cmsgx.PidFd], ids=["Fd", "fd_class"])
@pytest.mark.parametrize("how", ["close", "detach"])
@pytest.mark.parametrize("call", ["take", "take_one", "take_all"])
@pytest.mark.parametrize("close", ["now", "background"])
def test_what_was_looked_at_and_is_gone_is_not_taken(
    pair: Pair, call: str, how: str, fd_class: Any, close: str
) -> None:
    with receive_with(pair, 1 if call == "take_one" else 3, close=close) as msg:
        at = len(msg.fds) - 1
        number = getattr(msg.fds[at], how)()
        if number is not None:
            os.close(number)
        arguments = (at,) if call == "take" else ()
        for _ in range(2):
            with pytest.raises(
                ValueError, match=f"^{call}: descriptor {at} was closed or given away: <Fd {how}"
            ):
                getattr(msg, call)(*arguments, fd_class=fd_class)
        with_message = list(msg.fds[:at])
        assert [content(fd) for fd in with_message] == ["0", "1"][:at]
    assert all(fd.closed for fd in with_message)  # none was taken
    assert cmsgx.wait_closed(60) == 0


# fd_class= --------------------------------------------------------------------------------------


class WithSlots(cmsgx.Fd):
    __slots__ = ("note",)

    def __init__(self, number: int) -> None:
        raise AssertionError("__init__() is not called")


class WithDict(cmsgx.Fd):
    def __new__(cls, number: int) -> WithDict:
        raise AssertionError("__new__() is not called")


class WithDel(cmsgx.Fd):
    seen: ClassVar[list[bool]] = []

    def __del__(self) -> None:
        self.seen.append(self.closed)
        self.close()


class Meta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the class is not called")


class WithMeta(cmsgx.Fd, metaclass=Meta):
    __slots__ = ()


FD_CLASSES = [WithSlots, WithDict, WithDel, WithMeta, cmsgx.PidFd]


@pytest.mark.parametrize("how", ["take", "take_one", "take_all"])
@pytest.mark.parametrize("look_first", [True, False])
@pytest.mark.parametrize("close", ["now", "background"])
@pytest.mark.parametrize("fd_class", FD_CLASSES)
def test_what_is_taken_is_of_the_class_that_was_asked_for(
    stream: Pair, how: str, look_first: bool, close: str, fd_class: type[cmsgx.Fd]
) -> None:
    with receive_with(stream, 1, close=close) as msg:
        seen = msg.fds[0] if look_first else None
        if how == "take":
            fd = msg.take(0, fd_class=fd_class)
        elif how == "take_one":
            fd = msg.take_one(fd_class=fd_class)
        else:
            [fd] = msg.take_all(fd_class=fd_class)
        assert type(fd) is fd_class
        assert seen is None or seen.closed
        assert msg.fds[0].closed
        assert len(msg.fds) == 1
        with pytest.raises(ValueError, match="descriptor 0 was already taken"):
            msg.take(0)
    assert content(fd) == "0"
    assert os.get_inheritable(fd.fileno()) is False
    if hasattr(fd, "__dict__"):
        fd.of_its_own = 1  # type: ignore[attr-defined]
    fd.close()
    assert cmsgx.wait_closed(60) == 0
    assert _cmsg.closer_counts() == (0, 0)


def test_what_is_taken_as_another_class_is_closed_as_its_receiver_closes(stream: Pair) -> None:
    with stuck_in_close(240) as (number, release):
        receiver = cmsgx.Receiver(stream[1], 1, fds=2, close="background")
        cmsgx.send(stream[0], b"x", fds=[number, number])
        os.close(number)
        with receiver.receive() as msg:
            one, other = msg.take(0, fd_class=WithDict), msg.take_all(fd_class=WithSlots)[0]
        one.close()
        other.close()
        assert _cmsg.closer_counts()[0] >= 1, "it was closed in this thread"
        release()
    assert cmsgx.wait_closed(60) == 0


@pytest.mark.parametrize("given", [None, cmsgx.Fd])
def test_fd_class_of_none_is_fd(stream: Pair, given: Any) -> None:
    with receive_with(stream, 2) as msg:
        fd = msg.take(0, fd_class=given)
        assert type(fd) is cmsgx.Fd
        assert msg.fds[0] is fd
        [other] = msg.take_all(fd_class=given)
        assert msg.fds[1] is other
        fd.close()
        other.close()


@pytest.mark.parametrize("wrong", [int, "Fd", 3, socket.socket, cmsgx.Message], ids=repr)
@pytest.mark.parametrize("how", ["take", "take_one", "take_all"])
def test_fd_class_is_a_subclass_of_fd(stream: Pair, how: str, wrong: Any) -> None:
    arguments = (0,) if how == "take" else ()
    with receive_with(stream, 1) as msg:
        with pytest.raises(TypeError, match="fd_class: a subclass of Fd is needed, not "):
            getattr(msg, how)(*arguments, fd_class=wrong)
        assert content(msg.fds[0]) == "0"


class Peer(cmsgx.PidFd):
    name = "peer"


@pytest.mark.parametrize("look_first", [True, False])
def test_a_pidfd_is_taken_as_a_subclass_of_pidfd(pair: Pair, look_first: bool) -> None:
    with receive_with(pair, 1, want=[cmsgx.PidFd]) as msg:
        if look_first:
            assert msg[cmsgx.PidFd].pid == os.getpid()
        for wrong in (cmsgx.Fd, WithDict):
            with pytest.raises(
                TypeError, match="fd_class: a subclass of PidFd, for a PidFd, is needed, not "
            ):
                msg.take(cmsgx.PidFd, fd_class=wrong)  # type: ignore[type-var]
        peer = msg.take(cmsgx.PidFd, fd_class=Peer)
        with pytest.raises(ValueError, match="PidFd was already taken"):
            msg.take(cmsgx.PidFd)
    assert type(peer) is Peer
    assert (peer.pid, peer.error) == (os.getpid(), None)
    peer.close()


def test_an_fd_that_closes_itself_when_it_is_freed(stream: Pair) -> None:
    WithDel.seen.clear()
    with receive_with(stream, 2) as msg:
        number = msg.take(0, fd_class=WithDel).fileno()
        assert WithDel.seen == [False]
        assert not is_open(number)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            msg.take_all(fd_class=WithDict)
            gc.collect()
        assert any("was never closed" in str(one.message) for one in caught)


def test_a_cycle_through_what_was_taken_is_collected(stream: Pair) -> None:
    """An Fd of the caller's own class can refer to the message, or to its fds."""
    with receive_with(stream, 2) as msg:
        one, other = msg.take_all(fd_class=WithDict)
        for fd in (one, other):
            fd.message, fd.fds = msg, msg.fds  # type: ignore[attr-defined]
            fd.close()
    gone = weakref.ref(one)
    del msg, one, other, fd
    gc.collect()
    assert gone() is None


def test_an_errno_in_place_of_a_pidfd_is_moved_too() -> None:
    code = """
import cmsgx, errno, os, resource
class Peer(cmsgx.PidFd): pass
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, want=[cmsgx.PidFd])
cmsgx.send(a, b"x")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1, hard))
with rx.receive() as msg:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    peer = msg.take(cmsgx.PidFd, fd_class=Peer)
print(type(peer).__name__, peer.closed, errno.errorcode[peer.error])
a.close(); b.close()
"""
    try:
        told = run_python(code)
    except AssertionError as error:
        if "no SO_PASSPIDFD" in str(error):
            pytest.skip("no SO_PASSPIDFD")
        raise
    assert told.split() == ["Peer", "True", "EMFILE"]


def test_fds_is_a_read_only_sequence(stream: Pair) -> None:
    with receive_with(stream, 3) as msg:
        fds = msg.fds
        assert len(fds) == 3
        assert [content(fd) for fd in fds] == list("012")
        assert fds[0] is msg.fds[0]
        assert fds[-1] is fds[2]
        assert fds[1:] == (fds[1], fds[2])
        assert fds == tuple(fds)
        assert fds == list(msg.fds)
        assert fds != ()
        assert fds[1] in fds
        assert "Fd" in repr(fds)
        assert isinstance(fds, Sequence)
        assert (fds.index(fds[2]), fds.count(fds[2]), list(reversed(fds))) == (2, 1, [*fds][::-1])
        assert fds.index(fds[1], 1, -1) == 1
        assert fds.count(3) == 0
        with pytest.raises(ValueError, match="not in tuple"):
            fds.index(fds[0], 1)
        for wrong in (3, -4):
            with pytest.raises(IndexError):
                fds[wrong]
        with pytest.raises(TypeError):
            fds[0] = None  # type: ignore[index]
        with pytest.raises(TypeError):
            del fds[0]  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            fds.append(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("fds", [0, 1])
def test_the_errno_of_a_pidfd_stays_when_the_message_is_closed(fds: int) -> None:
    code = f"""
import cmsgx, errno, os, resource
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, fds={fds}, want=[cmsgx.PidFd])
cmsgx.send(a, b"x", fds=[0] * {fds})
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1 + {fds}, hard))
with rx.receive() as msg:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(errno.errorcode[msg[cmsgx.PidFd].error], len(msg.fds))
a.close(); b.close()
"""
    try:
        told = run_python(code)
    except AssertionError as error:
        if "no SO_PASSPIDFD" in str(error):
            pytest.skip("no SO_PASSPIDFD")
        raise
    assert told.split() == ["EMFILE", str(fds)]


def test_a_descriptor_that_was_closed_by_hand(stream: Pair) -> None:
    before = open_fds()
    with receive_with(stream, 2) as msg:
        msg.fds[0].close()
        os.close(msg.fds[1].detach())
    assert open_fds() == before
