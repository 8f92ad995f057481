"""PreparedSend: a send that is tried until all of it has gone."""

from __future__ import annotations

import copy
import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from pairs import new_pair
from support import (
    Pair,
    content,
    open_files,
)
from tries import (
    drain,
    files_after,
    full_pair,
    rest_of,
    send_rest,
)

import cmsgx
from cmsgx import _cmsg


def test_it_can_be_tried_until_all_has_gone() -> None:
    data: list[Any] = [os.urandom(300_000), b"", bytearray(os.urandom(300_001)), memoryview(b"end")]
    with new_pair() as (left, right), cmsgx.PreparedSend(left, data) as prepared:
        assert (prepared.sent, prepared.is_done) == (0, False)
        first = prepared.try_send()
        assert first == prepared.sent
        assert not prepared.is_done
        assert f"{first} of 600004 bytes sent>" in repr(prepared)
        assert prepared.try_send() is None
        assert prepared.sent == first
        assert send_rest(prepared, right) == b"".join(data)
        assert (prepared.sent, prepared.is_done) == (600_004, True)
        assert repr(prepared) == f"<PreparedSend of {left!r}: 600004 of 600004 bytes sent>"
        with pytest.raises(ValueError, match="is done: all of its 600004 bytes were sent"):
            prepared.try_send()
    with pytest.raises(ValueError, match="is done"):
        prepared.try_send()


@pytest.mark.parametrize("data", [b"", [], [b"", b""]])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_nothing_to_send_is_done_after_one_try(kind: int, data: Any) -> None:
    with new_pair(kind) as (left, right), cmsgx.PreparedSend(left, data) as prepared:
        assert not prepared.is_done
        assert prepared.try_send() == 0
        assert prepared.is_done
        assert prepared.sent == 0
        if kind == socket.SOCK_SEQPACKET:
            assert right.recv(9, socket.MSG_DONTWAIT) == b""


def test_iterators_are_read_once_by_the_constructor() -> None:
    with full_pair() as (left, right), open_files(2) as files:
        read: list[Any] = []

        def told(items: list[Any]) -> Iterator[Any]:
            for item in items:
                read.append(item)
                yield item

        with cmsgx.PreparedSend(
            left,
            told([b"a", b"b"]),
            fds=told([files[1]]),
            control=told([cmsgx.Rights([files[0]])]),
        ) as prepared:
            assert read == [files[1], cmsgx.Rights([files[0]]), b"a", b"b"]
            assert prepared.try_send() is prepared.try_send() is None
            drain(right)
            assert prepared.try_send() == 2
        assert len(read) == 4
        assert files_after(right, 0) == (b"ab", ["1", "0"])


def test_the_audit_event_is_raised_once(stream: Pair) -> None:
    events: list[Any] = []
    is_on = [True]

    def hook(name: str, args: Any) -> None:
        if is_on and name == "socket.sendmsg":
            events.append(args)

    sys.addaudithook(hook)
    with cmsgx.PreparedSend(stream[0], bytes(1_000_000), address=None) as prepared:
        prepared.try_send()
        prepared.try_send()
    is_on.clear()
    assert events == [(stream[0], None)]


def test_descriptors_and_control_messages_go_once_with_the_first_byte() -> None:
    with full_pair(socket.SOCK_STREAM) as (left, right), open_files(2) as files:
        right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        data = bytes(range(256)) * 4000
        me = cmsgx.Credentials()
        with cmsgx.PreparedSend(left, data, fds=files, control=me) as prepared:
            assert prepared.try_send() is None
            drain(right)
            found: list[tuple[bytes, list[str]]] = []
            with cmsgx.Receiver(right, 1 << 20, fds=4, want=cmsgx.Credentials) as receiver:
                while not prepared.is_done:
                    if prepared.try_send() is None:
                        with receiver.receive() as message:
                            found.append((message.data, [content(fd) for fd in message.fds]))
                            assert message[cmsgx.Credentials] == me
                with suppress(BlockingIOError):
                    while True:
                        with receiver.receive(timeout=0) as message:
                            found.append((message.data, [content(fd) for fd in message.fds]))
        assert b"".join([part for part, _ in found]) == data
        assert [files for _, files in found if files] == [["0", "1"]]
        assert found[0][1] == ["0", "1"]
        assert len(found) > 2


def test_closed_it_cannot_be_tried_and_still_says_what_was_sent(stream: Pair) -> None:
    prepared = cmsgx.PreparedSend(stream[0], bytes(10_000_000))
    sent = prepared.try_send()
    prepared.close()
    prepared.close()
    assert (prepared.sent, prepared.is_done) == (sent, False)
    assert repr(prepared).endswith(f"{sent} of 10000000 bytes sent, closed>")
    with pytest.raises(ValueError, match=f"was closed, when {sent} of 10000000 bytes were sent"):
        prepared.try_send()
    with pytest.raises(ValueError, match="was closed"):
        prepared._send(None)
    assert len(drain(stream[1])) == sent
    assert stream[0].send(b"x") == 1  # the socket is open


def test_a_try_that_fails_can_be_repeated() -> None:
    """ECONNREFUSED, of an earlier datagram."""
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as right:
        right.bind(("127.0.0.1", 0))
        address = right.getsockname()
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as left:
        left.connect(address)
        with cmsgx.PreparedSend(left, [b"12", b"3"]) as prepared:
            left.send(b"x")
            with pytest.raises(ConnectionRefusedError):
                prepared.try_send()
            assert (prepared.sent, prepared.is_done) == (0, False)
            with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as right:
                right.bind(address)
                assert prepared.try_send() == 3
                assert right.recv(9) == b"123"


# More buffers than one call takes -----------------------------------------------------------------


@pytest.mark.parametrize("empty", [0, 3000], ids=["", "empty ones first"])
def test_a_stream_takes_more_buffers_than_one_call(empty: int) -> None:
    with new_pair() as (left, right), open_files(1) as files:
        data = [b""] * empty + [bytes([i % 256]) for i in range(2500)]
        with cmsgx.PreparedSend(left, data, fds=files) as prepared:
            assert [prepared.try_send() for _ in range(3)] == [1024, 1024, 452]
            assert prepared.is_done
        whole, names = files_after(right, 0)
        assert (whole + drain(right), names) == (b"".join(data), ["0"])
        with rest_of(left, data) as prepared:
            assert prepared.sent == 1024
            assert send_rest(prepared, right) == b"".join(data)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_another_socket_does_not(kind: int) -> None:
    with new_pair(kind) as (left, right):
        data = [b"x"] * 1025
        with cmsgx.PreparedSend(left, data) as prepared:
            for call in (
                lambda: cmsgx.try_send(left, data),
                lambda: _cmsg.send_or_prepare(left, data),
                prepared.try_send,
            ):
                with pytest.raises(OSError, match="1025 buffers; one call takes 1024") as caught:
                    call()
                assert caught.value.errno == errno.EMSGSIZE
        with cmsgx.PreparedSend(left, [b"x"] * 1024) as prepared:
            assert prepared.try_send() == 1024
        assert right.recv(2000) == b"x" * 1024


# What it is not -----------------------------------------------------------------------------------


def test_it_can_be_neither_copied_nor_subclassed(stream: Pair) -> None:
    with cmsgx.PreparedSend(stream[0], b"x") as prepared:
        with pytest.raises(TypeError, match="PreparedSend"):
            copy.copy(prepared)
        kind: Any = cmsgx.PreparedSend
        with pytest.raises(TypeError):
            type("Sub", (kind,), {})
        with pytest.raises(TypeError):
            object.__new__(kind)
