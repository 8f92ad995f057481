"""Deadline: what the argument `timeout` of a call means, and what is left of it."""

from __future__ import annotations

import errno
import gc
import os
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from support import Pair

import cmsgx
from cmsgx import _cmsg, _deadline
from cmsgx._deadline import Deadline, own_timeout, with_own


class OtherTimeout(socket.socket):
    """C reads the timeout where socket.socket keeps it, whatever a class says."""

    def gettimeout(self) -> float | None:
        return 5.0


FORMS: list[tuple[str, Callable[[socket.socket], Any]]] = [
    ("int", lambda sock: sock.fileno()),
    ("Fd", lambda sock: cmsgx.Fd(os.dup(sock.fileno()))),
    ("fileno", lambda sock: SimpleNamespace(fileno=sock.fileno, gettimeout=lambda: 5.0)),
]


@pytest.mark.parametrize("own", [None, 0.0, 2.5])
def test_the_default_is_the_timeout_of_the_socket(stream: Pair, own: float | None) -> None:
    with OtherTimeout(fileno=os.dup(stream[0].fileno())) as other:
        for sock in (stream[0], other):
            sock.settimeout(own)
            assert own_timeout(sock) == own
            assert Deadline.of(sock, ...).seconds == own
            assert Deadline.of(sock, 7).seconds == 7
            assert with_own(sock, ...) == (... if own is None else own)
            assert [with_own(sock, given) for given in (7, 0, None)] == [7, 0, None]


@pytest.mark.parametrize(("name", "form"), FORMS, ids=[name for name, _ in FORMS])
@pytest.mark.parametrize("is_blocking", [True, False])
def test_what_has_no_timeout_of_its_own_waits_where_the_file_blocks(
    stream: Pair, name: str, form: Callable[[socket.socket], Any], is_blocking: bool
) -> None:
    stream[0].setblocking(is_blocking)
    thing = form(stream[0])
    assert own_timeout(thing) is ...
    assert [with_own(thing, given) for given in (..., 7, None)] == [..., 7, None]
    assert Deadline.of(thing, ...).seconds == (None if is_blocking else 0)
    assert Deadline.of(thing, 7).seconds == 7
    assert Deadline.of(thing, None).seconds is None
    if name == "Fd":
        thing.close()
        with pytest.raises(OSError, match="sock: <Fd closed>"):
            Deadline.of(thing, ...)


@pytest.mark.parametrize("timeout", [..., None, 0, 7])
def test_a_green_socket_never_waits(monkeypatch: pytest.MonkeyPatch, timeout: Any) -> None:
    monkeypatch.setattr(_cmsg, "check_socket", lambda sock: True)
    assert Deadline.of(0, timeout).seconds == 0


@pytest.mark.parametrize("is_green", [True, False])
def test_a_wrong_timeout_is_refused_even_if_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, is_green: bool
) -> None:
    monkeypatch.setattr(_cmsg, "check_socket", lambda sock: is_green)
    with pytest.raises(ValueError, match="timeout: -1; seconds that are not negative"):
        Deadline.of(0, -1)
    with pytest.raises(TypeError, match="timeout: a number of seconds, or None, is needed"):
        Deadline.of(0, "1")  # type: ignore[arg-type]


def test_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(_deadline, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    endless, at_once, later = Deadline(None), Deadline(0), Deadline(3)

    assert (endless.remaining(), endless.left(), endless.timeout()) == (None, None, None)
    assert (later.remaining(), later.left(), later.timeout()) == (3, 3, 3)
    # A call may still try, but not wait.
    assert (at_once.remaining(), at_once.timeout()) == (0, 0)
    with pytest.raises(BlockingIOError) as caught:
        at_once.left()
    assert at_once.raised(caught.value)
    assert caught.value.errno == errno.EAGAIN

    clock[0] = 102.5
    assert later.left() == 0.5
    assert not later.raised(caught.value)
    for clock[0] in (103.0, 200.0):
        assert later.remaining() == 0
        for ask in (later.left, later.timeout):
            with pytest.raises(TimeoutError, match=r"^timed out$") as over:
                ask()
            assert later.raised(over.value)
            assert not later.raised(caught.value)
    assert endless.left() is None


def test_an_error_is_not_part_of_a_cycle() -> None:
    class Watched(Deadline):
        pass

    gc.disable()
    try:
        deadline = Watched(0)
        gone = weakref.ref(deadline)
        with suppress(BlockingIOError):
            deadline.left()
        del deadline
        assert gone() is None
    finally:
        gc.enable()
