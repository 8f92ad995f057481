"""send, send_all, receive, Receiver: timeouts, and what is lost if a call is repeated."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pairs import fill, later, new_pair
from support import (
    Pair,
)

import cmsgx

# Timeouts ---------------------------------------------------------------------------------------


def receives(sock: Any, **arguments: Any) -> bytes:
    return cmsgx.receive(sock, 10, **arguments).data


def receives_by_receiver(sock: Any, **arguments: Any) -> bytes:
    return cmsgx.Receiver(sock, 10).receive(**arguments).data


RECEIVES = pytest.mark.parametrize(
    "receive", [receives, receives_by_receiver], ids=["receive", "Receiver"]
)


@RECEIVES
@pytest.mark.parametrize(
    ("own", "arguments", "error", "waits"),
    [
        (0, {}, BlockingIOError, 0.0),
        (0.1, {}, TimeoutError, 0.1),
        (0.1, {"timeout": ...}, TimeoutError, 0.1),
        (None, {"timeout": 0}, BlockingIOError, 0.0),
        (None, {"timeout": 0.05}, TimeoutError, 0.05),
        (None, {"timeout": 1e-9}, TimeoutError, 0.0),
        (3600, {"timeout": 0}, BlockingIOError, 0.0),
        (3600, {"timeout": 0.05}, TimeoutError, 0.05),
        (0, {"timeout": 0.05}, TimeoutError, 0.05),
    ],
    ids=str,
)
def test_timeout_is_the_sockets_own_or_the_one_given(
    pair: Pair,
    receive: Callable[..., bytes],
    own: float | None,
    arguments: dict[str, Any],
    error: type[Exception],
    waits: float,
) -> None:
    pair[1].settimeout(own)
    start = time.monotonic()
    with pytest.raises(error):
        receive(pair[1], **arguments)
    assert time.monotonic() - start >= waits
    pair[0].send(b"data")
    assert receive(pair[1], **arguments) == b"data"


@RECEIVES
@pytest.mark.parametrize("own", [0, 0.05, None])
@pytest.mark.slow
def test_timeout_none_waits_without_end(
    pair: Pair, receive: Callable[..., bytes], own: float | None
) -> None:
    pair[1].settimeout(own)
    with later(0.3, lambda: pair[0].send(b"late")):
        assert receive(pair[1], timeout=None) == b"late"


@pytest.mark.parametrize("own", [0, 0.05, None])
@pytest.mark.slow
def test_send_with_timeout_none_waits_without_end(stream: Pair, own: float | None) -> None:
    filled = fill(stream[0])
    stream[0].settimeout(own)
    with later(0.3, lambda: stream[1].recv(filled)):
        assert cmsgx.send(stream[0], b"late", timeout=None) == 4


@RECEIVES
@pytest.mark.parametrize("timeout", [-1, -0.001, float("nan"), "1", b"1", []], ids=repr)
def test_timeout_that_is_none(receive: Callable[..., bytes], timeout: Any, stream: Pair) -> None:
    with pytest.raises((ValueError, TypeError)):
        receive(stream[1], timeout=timeout)
    with pytest.raises((ValueError, TypeError)):
        cmsgx.send(stream[0], b"x", timeout=timeout)


@RECEIVES
def test_a_timeout_is_rounded_up(stream: Pair, receive: Callable[..., bytes]) -> None:
    """A timeout of 0 is different: BlockingIOError."""
    for timeout in (1e-9, 1e-10, 5e-324):
        with pytest.raises(TimeoutError):
            receive(stream[1], timeout=timeout)


@RECEIVES
def test_a_timeout_that_never_comes_does_not_overflow(
    stream: Pair, receive: Callable[..., bytes]
) -> None:
    # More than 2**31 seconds do not fit into a 32-bit time_t, and 2**32 would be 0 there.
    for timeout in (1e9, 3e9, 2**32, 1e300, float("inf"), sys.maxsize):
        with later(0.02, lambda: stream[0].send(b"x")):
            assert receive(stream[1], timeout=timeout) == b"x"


@RECEIVES
def test_a_number_never_waits_for_a_timeout(stream: Pair, receive: Callable[..., bytes]) -> None:
    stream[1].settimeout(3600)
    with pytest.raises(BlockingIOError):
        receive(stream[1].fileno())


@RECEIVES
@pytest.mark.parametrize("own", [0, 0.2])
def test_o_nonblock_that_a_dup_cleared_does_not_block(
    stream: Pair, receive: Callable[..., bytes], own: float
) -> None:
    stream[1].settimeout(own)
    with cmsgx.Fd(os.dup(stream[1].fileno())) as dup:
        os.set_blocking(dup.fileno(), True)
    with (
        later(20, lambda: stream[0].send(b"too late")),
        pytest.raises(TimeoutError if own else BlockingIOError),
    ):
        receive(stream[1])


def test_o_nonblock_that_a_dup_cleared_does_not_block_a_send(stream: Pair) -> None:
    filled = fill(stream[0])
    stream[0].settimeout(0.1)
    os.set_blocking(stream[0].fileno(), True)
    with later(20, lambda: stream[1].recv(filled)), pytest.raises(TimeoutError):
        cmsgx.send(stream[0], b"x")


@pytest.fixture
def alarm() -> Iterator[list[float]]:
    """SIGALRM every 20 ms; the handler records when it ran."""
    ran: list[float] = []
    before = signal.signal(signal.SIGALRM, lambda *_: ran.append(time.monotonic()))
    signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
    yield ran
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@RECEIVES
@pytest.mark.parametrize("own", [None, 5.0])
@pytest.mark.slow
def test_a_signal_handler_that_returns_is_not_an_error(
    stream: Pair, alarm: list[float], receive: Callable[..., bytes], own: float | None
) -> None:
    stream[1].settimeout(own)
    with later(0.3, lambda: stream[0].send(b"x")):
        assert receive(stream[1]) == b"x"
    assert len(alarm) > 3


@RECEIVES
@pytest.mark.slow
def test_signals_do_not_put_the_deadline_off(
    stream: Pair, alarm: list[float], receive: Callable[..., bytes]
) -> None:
    start = time.monotonic()
    # After that it would end in any case.
    with later(20, lambda: stream[0].send(b"x")), pytest.raises(TimeoutError):
        receive(stream[1], timeout=0.3)
    assert time.monotonic() - start >= 0.3
    assert len(alarm) > 3


@RECEIVES
@pytest.mark.parametrize("own", [None, 30.0])
def test_a_signal_handler_that_raises_ends_the_call(
    stream: Pair, receive: Callable[..., bytes], own: float | None
) -> None:
    def handler(*_: object) -> None:
        raise ZeroDivisionError

    stream[1].settimeout(own)
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1, 5)  # repeated, in case it comes just before the wait
    try:
        with pytest.raises(ZeroDivisionError):
            receive(stream[1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# What can be read only once ---------------------------------------------------------------------

# The call, and those of its arguments that are iterators.
READ_ONCE: dict[str, tuple[Callable[..., Any], list[str]]] = {
    "fds": (lambda s, **t: cmsgx.send(s, b"x", fds=(n for n in [0]), **t), ["fds was an"]),
    "control": (
        lambda s, **t: cmsgx.send(s, b"x", control=iter([cmsgx.Credentials()]), **t),
        ["control was an"],
    ),
    "data": (lambda s, **t: cmsgx.send(s, map(bytes, [b"x"]), **t), ["data was an"]),
    "all": (
        lambda s, **t: cmsgx.send(s, iter([b"x"]), fds=iter([0]), control=iter(()), **t),
        ["data, fds, control were"],
    ),
    "lists": (lambda s, **t: cmsgx.send(s, [b"x"], fds=[0], control=(), **t), []),
    "send_all": (
        lambda s, **t: cmsgx.send_all(s, iter([b"x"]), fds=iter([0]), **t),
        ["data, fds were"],
    ),
    "send_all, lists": (lambda s, **t: cmsgx.send_all(s, [b"x"], fds={0: 0}, **t), []),
    "sendmsg": (
        lambda s, **t: cmsgx.sendmsg(s, iter([b"x"]), iter(())),
        ["buffers, ancdata were"],
    ),
    "sendmsg, lists": (lambda s, **t: cmsgx.sendmsg(s, [b"x"], []), []),
    "send_fds": (lambda s, **t: cmsgx.send_fds(s, [b"x"], iter([0])), ["fds was an"]),
    "send_fds, bytes": (lambda s, **t: cmsgx.send_fds(s, [b"x"], bytes(4)), []),
}


@pytest.mark.parametrize("name", READ_ONCE)
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_iterators_that_are_used_up_are_named(name: str, timeout: float) -> None:
    """A repeated call would send without their contents, and nothing would report it."""
    call, expected = READ_ONCE[name]
    with new_pair(socket.SOCK_DGRAM) as (left, _right):
        fill(left)
        left.settimeout(timeout)
        with pytest.raises(BlockingIOError if timeout == 0 else TimeoutError) as caught:
            call(left)
        notes = getattr(caught.value, "__notes__", [])
        assert len(notes) == len(expected)
        for note, start in zip(notes, expected, strict=True):
            assert note.startswith(start)
            assert "used up" in note
        if "sendmsg" not in name and "send_fds" not in name:
            left.settimeout(60)
            with pytest.raises(BlockingIOError if timeout == 0 else TimeoutError) as caught:
                call(left, timeout=timeout)
            assert len(getattr(caught.value, "__notes__", [])) == len(expected)


class Overriding(cmsgx.socket):
    def sendmsg(self, *args: Any) -> int:
        return super().sendmsg(*args)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s: cmsgx.sendmsg(s, [b"x"], iter(())), ["ancdata was an"]),
        (
            lambda s: cmsgx.sendmsg(s, iter([b"x"]), iter(())),
            ["buffers was an", "ancdata was an"],
        ),
        (lambda s: cmsgx.send_fds(s, [b"x"], iter([0])), ["fds was an"]),
        (lambda s: cmsgx.send_fds(s, [b"x"], [0]), []),
    ],
)
def test_iterators_that_are_used_up_by_an_override_are_named(
    call: Callable[[Any], Any], expected: list[str]
) -> None:
    with new_pair() as (left, _right), Overriding(fileno=left.detach()) as sock:
        fill(sock)
        sock.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            call(sock)
        notes = getattr(caught.value, "__notes__", [])
        assert [note[: len(start)] for note, start in zip(notes, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda s, to: s.sendmsg(iter([b"x"]), iter(()), 0, to), "buffers, ancdata were"),
        (lambda s, to: cmsgx.send(s, iter([b"x"]), control=iter(()), address=to), "data, control"),
        (lambda s, to: cmsgx.send_fds(s, iter([b"x"]), iter(()), 0, to), "buffers, fds were"),
    ],
)
def test_iterators_that_are_used_up_by_a_send_to_a_name_are_named(
    call: Callable[[Any, Any], Any], expected: str
) -> None:
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 0)
        with pytest.raises(PermissionError) as caught:
            call(sock, ("<broadcast>", 9))
        [note] = caught.value.__notes__
        assert note.startswith(expected)


def test_iterators_that_are_used_up_in_part_of_send_all() -> None:
    """The descriptors were sent with the first byte, but not all of the data."""
    with new_pair() as (left, _right):
        left.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            cmsgx.send_all(left, iter([bytes(10_000_000)]), fds=iter([0]))
        assert caught.value.sent > 0  # type: ignore[attr-defined]
        [note] = caught.value.__notes__
        assert note.startswith("data was an iterator")


def test_errors_that_are_found_before_a_call_name_no_iterator(stream: Pair) -> None:
    with pytest.raises(ValueError, match="-1 is not a file descriptor") as caught:
        cmsgx.send(stream[0], b"x", fds=iter([-1]))
    assert not hasattr(caught.value, "__notes__")
