"""Who owns the descriptors of a frame, and how they are taken from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from arrivals import new_fds
from support import content, stuck_in_close

import cmsgx
from cmsgx._core.frames import Frame


def test_a_frame_owns_its_descriptors_until_they_are_taken() -> None:
    with Frame(b"data", new_fds("a", "b", "c")) as frame:
        assert [content(fd) for fd in frame.fds] == ["a", "b", "c"]
        with frame.take(1) as middle:
            assert middle is frame.fds[1]
            assert [content(fd) for fd in frame.fds] == ["a", "b", "c"]
            with pytest.raises(ValueError, match="descriptor 1 was already taken"):
                frame.take(-2)
        with pytest.raises(IndexError, match=r"take\(3\): 3 descriptors came"):
            frame.take(3)
        with pytest.raises(ValueError, match="take_one: 3 descriptors came"):
            frame.take_one()
        first, last = frame.take_all()
        assert frame.take_all() == []
    assert frame.closed
    assert [content(first), content(last)] == ["a", "c"]
    first.close()
    last.close()
    with pytest.raises(ValueError, match="the frame is closed"):
        frame.take(0)
    assert repr(frame) == "<Frame: closed>"


class Lock(cmsgx.Fd):
    __slots__ = ()

    def __init__(self) -> None:
        raise AssertionError


def test_descriptors_are_taken_as_objects_of_another_class() -> None:
    with Frame(b"", new_fds("a", "b", "c")) as frame:
        locks: list[Lock] = [frame.take(0, fd_class=Lock), *frame.take_all(fd_class=Lock)]
    assert [type(lock) for lock in locks] == [Lock] * 3
    assert [content(lock) for lock in locks] == ["a", "b", "c"]
    assert repr(frame.fds) == "(<Fd taken>, <Fd taken>, <Fd taken>)"
    for lock in locks:
        lock.close()
    with Frame(b"", new_fds("d")) as frame:
        bad: Any
        for bad in int, 3:
            with pytest.raises(TypeError, match="fd_class: a subclass of Fd is needed, not "):
                frame.take_one(fd_class=bad)
        with frame.take_one(fd_class=Lock) as lock:
            assert content(lock) == "d"


def test_descriptors_are_taken_as_numbers_or_not_at_all() -> None:
    frame = Frame(b"", new_fds("a", "b", "c"))
    frame.take(1).close()
    numbers = frame.detach_all()
    assert [content(number) for number in numbers] == ["a", "c"]
    assert frame.detach_all() == []
    for number in numbers:
        os.close(number)
    with Frame(b"", new_fds("d", "e")) as frame:
        frame.fds[1].close()
        for call in frame.detach_all, lambda: frame.take_all(fd_class=Lock):
            with pytest.raises(ValueError, match=": descriptor 1 was closed or given away"):
                call()
        with frame.take(0, fd_class=Lock) as lock:
            assert content(lock) == "d"


@pytest.mark.parametrize("call", [cmsgx.Fd._detach_each, Lock._move_each])
def test_all_are_given_away_or_none(call: Callable[[Any], Any]) -> None:
    one, two, closed = new_fds("a", "b", "c")
    closed.close()
    for fds in (one, two, one), (one, two, closed):
        with pytest.raises(ValueError, match="owns no descriptor"):
            call(fds)
        assert [content(fd) for fd in (one, two)] == ["a", "b"]
    for bad in [one], (one, 3):
        with pytest.raises(TypeError, match=r"^fds(\[1\])?: an? (tuple of Fds|Fd) is needed, not"):
            call(bad)
    one.close()
    two.close()


def test_another_object_closes_in_the_same_way() -> None:
    left, right = cmsgx.socketpair()
    with left, right, stuck_in_close() as (number, let_go):
        cmsgx.send(left, b"x", fds=[number])
        os.close(number)
        with cmsgx.receive(right, 1, fds=1, close="background") as message:
            frame = Frame(b"", message.take_all())
        frame.take_one(fd_class=Lock).close()  # would block for an hour
        assert cmsgx.wait_closed(0) == 1
        let_go()
        assert cmsgx.wait_closed(60) == 0


def test_what_is_left_is_closed_with_its_frame() -> None:
    frame = Frame(b"", new_fds("a"))
    assert repr(frame) == "<Frame: 0 bytes, 1 descriptors>"
    frame.close()
    assert frame.fds[0].closed
    one = Frame(b"", new_fds("b"))
    one.take_one().close()
    one.close()
    given = Frame(b"", new_fds("c"))
    given.fds[0].close()
    for call in given.take_one, given.take_all:
        with pytest.raises(ValueError, match="descriptor 0 was closed or given away: <Fd closed>"):
            call()
