"""_cmsg.try_send_batch: one try of a batch, which says what was sent and never waits."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

import pytest
from batches import Whole, drain, new_pair
from support import Pair, content, open_files

import cmsgx
from cmsgx import _cmsg

try_send_batch = _cmsg.try_send_batch


def fill_up(sock: cmsgx.socket) -> None:
    """With small messages: each that is taken out makes room for one."""
    with suppress(BlockingIOError):
        while True:
            sock.send(b"x", socket.MSG_DONTWAIT)


def test_what_the_socket_takes_goes_at_once() -> None:
    with new_pair() as (left, right), open_files(2) as files:
        progress = [0, 0]
        messages: list[Any] = [b"one", (b"two", files), ([b"thr", b"ee"], (), (), None)]
        assert try_send_batch(progress, left, messages) is True
        assert progress == [3, 0]
        assert drain(right) == [Whole(b"one", []), Whole(b"two", ["0", "1"]), Whole(b"three", [])]
        assert try_send_batch(progress, left, []) is True
        assert progress == [3, 0]


@pytest.mark.parametrize("form", ["socket", "Fd", "int"])
@pytest.mark.parametrize("timeout", [None, 0, 60])
def test_a_full_socket_is_not_waited_for(form: str, timeout: float | None) -> None:
    """Whatever the timeout of the socket is, and without an exception."""
    with new_pair(socket.SOCK_DGRAM) as (left, right), cmsgx.Fd(os.dup(left.fileno())) as fd:
        fill_up(left)
        left.settimeout(timeout)
        sock: Any = {"socket": left, "Fd": fd, "int": left.fileno()}[form]
        progress = [7, 0]
        assert try_send_batch(progress, sock, [b"1", b"2"]) is False
        assert progress == [7, 0]
        for _ in range(3):
            right.recv(100)
        messages = [str(n).encode() for n in range(9)]
        assert try_send_batch(progress, sock, messages) is False  # but it took three
        assert progress == [10, 0]
        assert [one.data for one in drain(right)][-3:] == [b"0", b"1", b"2"]


def test_what_a_stream_took_of_a_message_is_counted(stream: Pair) -> None:
    left, right = stream
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    right.setblocking(False)
    with open_files(1) as files:
        progress = [0, 0]
        payload = os.urandom(200_000)
        messages: list[Any] = [b"first", (payload, files), b"last"]
        assert try_send_batch(progress, left, messages) is False
        sent, part = progress
        assert sent == 1
        assert 0 < part < len(payload)
        with cmsgx.receive(right, 5, fds=1) as message:
            assert (message.data, len(message.fds)) == (b"first", 0)
        with cmsgx.receive(right, part, fds=1) as message:
            assert content(message.fds[0]) == "0"
            got = message.data
        # Of a message that goes on, the bytes add up.
        while progress[0] < 2:
            before = progress[1]
            done = try_send_batch(progress, left, [payload[before:], b"last"])
            assert done is (progress[0] > 2)
            assert progress[1] > before or progress[0] > 1
            while True:
                try:
                    got += right.recv(1 << 20)
                except BlockingIOError:
                    break
        if progress[0] == 2:
            assert try_send_batch(progress, left, [b"last"[progress[1] :]]) is True
            got += right.recv(100)
        assert progress == [3, 0]
        assert got == payload + b"last"


def test_the_error_of_the_kernel_is_returned(packets: Pair) -> None:
    """Also if some were sent: the number of those is in the list."""
    left, right = packets
    progress = [0, 0]
    refusal = try_send_batch(progress, left, [b"1", b"2", bytes(10_000_000), b"4"])
    assert isinstance(refusal, OSError)
    assert refusal.errno == errno.EMSGSIZE
    assert progress == [2, 0]
    assert [one.data for one in drain(right)] == [b"1", b"2"]
    right.close()
    refusal = try_send_batch(progress, left, [b"1"])
    assert isinstance(refusal, BrokenPipeError)
    assert progress == [2, 0]


def test_what_cannot_be_made_is_raised_by_the_call_that_begins_with_it(packets: Pair) -> None:
    progress = [0, 0]
    messages: Any = [b"1", b"2", 5, b"4"]
    assert try_send_batch(progress, packets[0], messages) is True
    assert progress == [2, 0]
    with pytest.raises(TypeError, match="data: a bytes-like object") as caught:
        try_send_batch(progress, packets[0], messages[2:])
    assert not hasattr(caught.value, "__notes__")  # the caller has no `messages`
    assert progress == [2, 0]


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def fileno(self) -> int:
        raise self.error


@pytest.mark.parametrize("is_full", [False, True])
def test_what_a_fileno_raised_is_never_lost(is_full: bool) -> None:
    """It would not come a second time: so it is raised even if the socket is full before it."""
    error = OSError(errno.EAGAIN, "of Python code, and not of the call")
    with new_pair() as (left, right):
        progress = [0, 0]
        if is_full:
            fill_up(left)
        with pytest.raises(OSError, match="of Python code") as caught:
            try_send_batch(progress, left, [b"1", b"2", (b"3", [Raises(error)])])
        assert caught.value is error
        assert progress == [0 if is_full else 2, 0]
        assert [one.data for one in drain(right)][-2:] == [b"1", b"2"] or is_full


@pytest.mark.parametrize("progress", [None, (0, 0), [0], [0, 0, 0]])
@pytest.mark.parametrize("name", ["try_send_batch", "send_batch_tracked"])
def test_the_list_has_two_ints(packets: Pair, name: str, progress: Any) -> None:
    with pytest.raises(TypeError, match=rf"{name}\(\): the first argument is a list of two ints"):
        getattr(_cmsg, name)(progress, packets[0], [b"x"])
    with pytest.raises(TypeError, match="one int"):
        _cmsg.send_tracked([0, 0], packets[0], b"x")
