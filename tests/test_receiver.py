"""Receiver: how it is created, and how it receives one message after another."""

from __future__ import annotations

import array
import copy
import gc
import os
import pickle
import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pairs import TIMESTAMPNS, new_pair
from support import (
    Pair,
    content,
    open_fds,
    open_files,
)

import cmsgx
from cmsgx import _cmsg

# Receiver: construction -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({}, TypeError),
        ({"bufsize": 1, "into": bytearray(1)}, TypeError),
        ({"bufsize": -1}, ValueError),
        ({"bufsize": "1"}, TypeError),
        ({"into": b"read-only"}, (TypeError, BufferError)),
        ({"into": [bytearray(1), b"read-only"]}, (TypeError, BufferError)),
        ({"into": 3}, TypeError),
        ({"bufsize": 1, "fds": -1}, ValueError),
        ({"bufsize": 1, "want": [int]}, TypeError),
        ({"bufsize": 1, "want": [cmsgx.Unknown]}, TypeError),
        ({"bufsize": 1, "on_truncation": "?"}, ValueError),
        ({"bufsize": 1, "close": "later"}, ValueError),
    ],
    ids=str,
)
def test_receiver_with_wrong_arguments(
    stream: Pair, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        cmsgx.Receiver(stream[1], **{"want": [cmsgx.Credentials], **arguments})
    assert stream[1].getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 0


def test_receiver_switches_on_what_it_wants(pair: Pair) -> None:
    rx = cmsgx.Receiver(pair[1], 10, want=[cmsgx.Credentials, cmsgx.PidFd, cmsgx.Credentials])
    pair[0].send(b"x")
    with rx.receive() as msg:
        assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        assert msg[cmsgx.PidFd].pid == os.getpid()
    assert rx.sock is pair[1]


def test_receiver_gives_no_pidfd_that_it_did_not_want(pair: Pair) -> None:
    cmsgx.enable(pair[1], cmsgx.PidFd)
    rx = cmsgx.Receiver(pair[1], 10)
    pair[0].send(b"x")
    before = open_fds()
    with rx.receive() as msg:
        assert cmsgx.PidFd not in msg
        assert open_fds() == before


def room_of(rx: cmsgx.Receiver, pair: Pair, sent: int) -> int:
    """How many descriptors the kernel let in: those that are not counted were kept out."""
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
        with rx.receive() as msg:
            return len(msg.fds) + (msg.closed_fds or 0)


@pytest.mark.parametrize("fds", [0, 1, 2, 3, 252, 253])
def test_the_control_size_is_exact_so_the_kernel_keeps_a_surplus_out(pair: Pair, fds: int) -> None:
    rx = cmsgx.Receiver(pair[1], 1, fds=fds)
    assert room_of(rx, pair, 253) == fds
    with open_files(fds + 1 if fds < 253 else fds) as files:
        cmsgx.send(pair[0], b"x", fds=files)
        with rx.receive() as msg:
            assert len(msg.fds) == fds
            assert msg.truncated == (fds < 253)
            assert msg.closed_fds == (None if fds < 253 else 0)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_refresh_makes_space_for_what_others_switched_on(kind: int) -> None:
    with new_pair(kind) as pair:
        rx = cmsgx.Receiver(pair[1], 1, fds=2)
        for option in (16, 76, TIMESTAMPNS):
            pair[1].setsockopt(socket.SOL_SOCKET, option, 1)
        with open_files(2) as files:
            cmsgx.send(pair[0], b"x", fds=files)
            with pytest.raises(cmsgx.ControlTruncatedError, match=r"refresh\(\)"):
                rx.receive()
            rx.refresh()
            cmsgx.send(pair[0], b"x", fds=files)
            with rx.receive() as msg:
                assert len(msg.fds) == 2
                assert cmsgx.Credentials in msg


def test_receiver_reads_what_is_on_when_it_is_made() -> None:
    with new_pair(socket.SOCK_DGRAM) as pair:
        for option in (16, 76, TIMESTAMPNS):
            pair[1].setsockopt(socket.SOL_SOCKET, option, 1)
        rx = cmsgx.Receiver(pair[1], 1, fds=3)
        with open_files(3) as files:
            cmsgx.send(pair[0], b"x", fds=files)
            with rx.receive() as msg:
                assert [content(fd) for fd in msg.fds] == list("012")
                records: list[Any] = list(msg)
                assert {record.type for record in records} >= {1, 2, TIMESTAMPNS}


@pytest.mark.parametrize("setting", ["raise", "keep"])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("by", ["receive", "Receiver"])
def test_on_truncation(setting: Any, kind: int, by: str) -> None:
    with new_pair(kind) as pair, open_files(1) as files:
        cmsgx.send(pair[0], b"12345", fds=files)
        before = open_fds()

        def receive() -> cmsgx.Message:
            if by == "receive":
                return cmsgx.receive(pair[1], 3, fds=1, on_truncation=setting)
            return cmsgx.Receiver(pair[1], 3, fds=1, on_truncation=setting).receive()

        if setting == "raise":
            with pytest.raises(cmsgx.DataTruncatedError) as caught:
                receive()
            msg = caught.value.message
            assert msg.closed
            assert open_fds() == before
        else:
            msg = receive()
            assert content(msg.fds[0]) == "0"
        with msg:
            assert (msg.data, msg.nbytes, msg.truncated) == (b"123", 3, True)
            assert msg.flags & socket.MSG_TRUNC


# ReceiveConfig ----------------------------------------------------------------------------------

REQUIRED: dict[str, Any] = {"fds": 1, "control_size": cmsgx.CMSG_SPACE(8), "want": ()}


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("in_background", [False, True])
def test_one_receive_config_configures_two_receivers(kind: int, in_background: bool) -> None:
    config = _cmsg.ReceiveConfig(
        **REQUIRED, family=socket.AF_UNIX, type=kind, in_background=in_background
    )
    with new_pair(kind) as (sender, receiver), new_pair(kind) as (other_sender, other_receiver):
        one = _cmsg.Receiver(receiver, 10, None)
        one._configure(config)
        other = _cmsg.Receiver(other_receiver, 10, None)
        other._configure(config)
        # A new configuration of one of them is not that of the other.
        one._configure(_cmsg.ReceiveConfig(**{**REQUIRED, "fds": 0}, raise_truncated=False))
        del config
        with open_files(2) as files:
            cmsgx.send(sender, b"one", fds=files[:1])
            cmsgx.send(other_sender, b"other", fds=files[1:])
        with one.receive() as msg, other.receive() as other_msg:
            assert (msg.data, len(msg.fds), msg.closed_fds) == (b"one", 0, 1)
            assert (other_msg.data, content(other_msg.fds[0])) == (b"other", "1")
    cmsgx.wait_closed()


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"]
)
def test_a_receive_config_cannot_be_copied_or_pickled(
    duplicate: Callable[[object], object],
) -> None:
    with pytest.raises(TypeError, match=r"^cannot copy or pickle a ReceiveConfig$"):
        duplicate(_cmsg.ReceiveConfig(**REQUIRED))


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("fds", -1, ValueError),
        ("fds", "1", TypeError),
        ("control_size", -1, ValueError),
        ("control_size", 2**31 - 1, ValueError),
        ("control_size", 2**100, ValueError),
        ("control_size", "1", TypeError),
        ("want", [], TypeError),
        ("family", "AF_UNIX", TypeError),
        ("family", 2**31, OverflowError),
        ("type", 1.0, TypeError),
        ("type", -(2**31) - 1, OverflowError),
    ],
)
def test_a_receive_config_names_a_wrong_argument(
    name: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=rf"^{name}: "):
        _cmsg.ReceiveConfig(**{**REQUIRED, name: value})


@pytest.mark.parametrize("missing", REQUIRED)
def test_a_receive_config_names_its_required_arguments(missing: str) -> None:
    given = {name: value for name, value in REQUIRED.items() if name != missing}
    with pytest.raises(TypeError, match=rf"requires .*\b{missing}="):
        _cmsg.ReceiveConfig(**given)


def test_a_receive_config_names_an_unknown_argument() -> None:
    with pytest.raises(TypeError, match="bufsize"):
        _cmsg.ReceiveConfig(**{**REQUIRED, "bufsize": 1})


# into= ------------------------------------------------------------------------------------------


def test_into_one_buffer(pair: Pair) -> None:
    buffer = bytearray(b"-" * 8)
    rx = cmsgx.Receiver(pair[1], into=buffer)
    pair[0].send(b"first")
    with rx.receive() as msg:
        assert (msg.nbytes, msg.data, bytes(msg.view)) == (5, b"first", b"first")
        assert buffer == b"first---"
    pair[0].send(b"two")
    with rx.receive() as second:
        assert buffer == b"twost---"
        assert second.data == b"two"
        assert msg.data == b"first"  # made on first use


def test_into_several_buffers(pair: Pair) -> None:
    parts: list[Any] = [bytearray(2), array.array("H", [0, 0]), memoryview(bytearray(6))[1:4]]
    rx = cmsgx.Receiver(pair[1], into=parts)
    pair[0].send(b"12345678")
    with rx.receive() as msg:
        assert [bytes(part) for part in parts] == [b"12", b"3456", b"78\0"]
        assert msg.data == b"12345678"
        assert bytes(msg.view) == b"12345678"
    pair[0].send(b"abc")
    with rx.receive() as msg:
        assert msg.data == b"abc"


def test_into_one_buffer_many_times(stream: Pair) -> None:
    """Together 2**32 bytes, which is 0 in a size_t of 32 bits."""
    rx = cmsgx.Receiver(stream[1], into=[bytearray(4 << 20)] * 1024)
    stream[0].send(b"data")
    with rx.receive() as msg:
        assert (msg.nbytes, msg.data) == (4, b"data")


def test_into_keeps_the_buffers_from_being_resized(stream: Pair) -> None:
    buffer = bytearray(8)
    rx = cmsgx.Receiver(stream[1], into=buffer)
    with pytest.raises(BufferError):
        buffer.append(1)
    del rx
    buffer.append(1)


class Buffer(bytearray):
    """A buffer that can refer to other objects."""

    receiver: cmsgx.Receiver


@pytest.mark.parametrize("used", ["not", "once", "in a loop", "in a loop that stopped"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_receiver_and_its_buffers_can_be_a_cycle(stream: Pair, used: str, count: int) -> None:
    buffers = [Buffer(4) for _ in range(count)]
    rx = cmsgx.Receiver(stream[1], into=buffers)
    held = None
    for buffer in buffers:
        buffer.receiver = rx
    if used != "not":
        stream[0].send(b"data")
    if used == "once":
        held = rx.receive().view
        assert held == b"data"
    elif used != "not":
        for msg in rx:
            assert msg.data == b"data"
            if used == "in a loop that stopped":
                break
            stream[0].shutdown(socket.SHUT_WR)
        del msg
    gone = [weakref.ref(buffer) for buffer in buffers]
    del buffers, buffer, rx
    gc.collect()
    if held is not None and count == 1:
        # The view refers to the buffer itself.
        assert gone[0]() is not None
        assert held == b"data"
        del held
        gc.collect()
    assert [one() for one in gone] == [None] * count


def test_into_with_descriptors_and_kinds(pair: Pair) -> None:
    buffer = bytearray(4)
    rx = cmsgx.Receiver(pair[1], into=buffer, fds=1, want=[cmsgx.Credentials])
    with open_files(1) as files:
        cmsgx.send(pair[0], b"data", fds=files)
        with rx.receive() as msg:
            assert buffer == b"data"
            assert content(msg.fds[0]) == "0"
            assert msg[cmsgx.Credentials].pid == os.getpid()


# A smaller size for one call --------------------------------------------------------------------


@pytest.mark.parametrize("sort", ["bufsize", "into", "into, several"])
def test_a_header_says_how_many_bytes_follow(stream: Pair, sort: str) -> None:
    into: Any = {
        "bufsize": None, "into": bytearray(100), "into, several": [bytearray(5) for _ in range(20)],
    }[sort]  # fmt: skip
    rx = cmsgx.Receiver(stream[1], None if into else 100, into=into, fds=1)
    bodies = [b"first", b"the second one", b"", b"x" * 96]
    with open_files(len(bodies)) as files:
        for body, fd in zip(bodies, files, strict=True):
            cmsgx.send(stream[0], len(body).to_bytes(4, "big") + body, fds=[fd])
    stream[0].close()
    for index, body in enumerate(bodies):
        with rx.receive(bufsize=4) as header:
            assert header.nbytes == len(header.data) == len(bytes(header.view)) == 4
            assert not header.truncated
            size = int.from_bytes(header.data, "big")
            assert content(header.fds[0]) == str(index)
        # Objects that are held keep their bytes and their length.
        view = header.view if sort == "bufsize" else header.data
        if size:
            with rx.receive(bufsize=size) as msg:
                assert (msg.data, msg.eof, len(msg.fds)) == (body, False, 0)
        assert bytes(view) == len(body).to_bytes(4, "big")
    with rx.receive(bufsize=1) as msg:
        assert (msg.data, msg.eof) == (b"", True)


def test_no_bytes_of_a_stream_come_with_the_descriptors_of_what_waits(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 10, fds=1)
    with open_files(1) as files:
        cmsgx.send(stream[0], b"data", fds=files)
    with rx.receive(bufsize=0) as msg:
        assert (msg.data, msg.eof) == (b"", None)
        assert content(msg.fds[0]) == "0"
    with rx.receive() as msg:
        assert (msg.data, len(msg.fds)) == (b"data", 0)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, [b"--", b"", b"---", b"----"]),
        (1, [b"1-", b"", b"---", b"----"]),
        (2, [b"12", b"", b"---", b"----"]),
        (4, [b"12", b"", b"34-", b"----"]),
        (8, [b"12", b"", b"345", b"678-"]),
        (9, [b"12", b"", b"345", b"6789"]),
        (None, [b"12", b"", b"345", b"6789"]),
    ],
)
def test_a_smaller_size_fills_no_more_of_the_buffers(
    stream: Pair, size: int | None, expected: list[bytes]
) -> None:
    parts = [bytearray(b"-" * count) for count in (2, 0, 3, 4)]
    rx = cmsgx.Receiver(stream[1], into=parts)
    stream[0].send(b"123456789")
    with rx.receive(bufsize=size) as msg:
        assert parts == expected
        assert msg.data == b"123456789"[:size]
    if size != 9 and size is not None:
        with rx.receive() as rest:
            assert rest.data == b"123456789"[size:]


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("size", [0, 3])
def test_a_datagram_longer_than_the_size_of_one_call_is_truncated(
    kind: int, size: int, into: bool
) -> None:
    with new_pair(kind) as (left, right):
        made: dict[str, Any] = {"into": bytearray(10)} if into else {"bufsize": 10}
        raising, keeping = (
            cmsgx.Receiver(right, **made, on_truncation="raise"),
            cmsgx.Receiver(right, **made, on_truncation="keep"),
        )
        for _ in range(3):
            left.send(b"12345678")
        with pytest.raises(cmsgx.DataTruncatedError, match=f"{size or 'no'} bytes of it") as caught:
            raising.receive(bufsize=size)
        assert caught.value.message.data == b"12345678"[:size]
        with keeping.receive(bufsize=size, flags=socket.MSG_TRUNC) as msg:
            assert (msg.truncated, msg.nbytes, msg.data) == (True, 8, b"12345678"[:size])
            assert bytes(msg.view) == b"12345678"[:size]
        with raising.receive() as msg:
            assert (msg.truncated, msg.data) == (False, b"12345678")


def test_the_size_of_one_call_is_not_that_of_the_next(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 5)
    stream[0].send(b"123456789abcdef")
    stream[0].close()
    assert [rx.receive(bufsize=size).data for size in (1, 5, None)] == [b"1", b"23456", b"789ab"]
    assert rx.receive(bufsize=1).data == b"c"
    assert [msg.data for msg in rx] == [b"def"]


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (11, ValueError, "bufsize: 11; .* 10 bytes"),
        (2**70, ValueError, "bufsize: 1180591620717411303424; one call brings"),
        (-1, ValueError, "bufsize: -1; it cannot be negative"),
        ("1", TypeError, "bufsize: an int is needed, not str"),
        (1.0, TypeError, "bufsize: an int is needed, not float"),
    ],
)
@pytest.mark.parametrize("into", [False, True])
def test_a_size_that_the_receiver_was_not_made_for(
    stream: Pair, size: Any, error: type[Exception], text: str, into: bool
) -> None:
    rx = cmsgx.Receiver(stream[1], None if into else 10, into=bytearray(10) if into else None)
    stream[0].send(b"data")
    with pytest.raises(error, match=text):
        rx.receive(bufsize=size)
    assert rx.receive(bufsize=10).data == b"data"


# with Receiver(...) -----------------------------------------------------------------------------

SO_PASSCRED = 16

MAKE_RECEIVER: list[Callable[[Any, list[Any]], Any]] = [
    lambda sock, want: cmsgx.Receiver(sock, 10, want=want),
    lambda sock, want: cmsgx.BatchReceiver(sock, 2, 10, want=want),
]


@pytest.mark.parametrize("make", MAKE_RECEIVER, ids=["Receiver", "BatchReceiver"])
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("raises", [False, True])
def test_the_end_of_the_with_restores_what_was_switched_on(
    pair: Pair, make: Callable[[Any, list[Any]], Any], before: int, raises: bool
) -> None:
    sock = pair[1]

    def is_on() -> int:
        return sock.getsockopt(socket.SOL_SOCKET, SO_PASSCRED)

    sock.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, before)
    with suppress(LookupError):
        with make(sock, [cmsgx.Credentials]) as receiver:
            assert is_on() == 1
            with make(sock, [cmsgx.Credentials]):
                pass
            assert is_on() == 1, "it was on before the inner one"
            pair[0].send(b"x")
            got = receiver.receive()
            assert cmsgx.Credentials in (got if isinstance(got, cmsgx.Message) else got[0])
            if raises:
                raise LookupError
        assert not raises
    assert is_on() == before
    sock.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    with pytest.raises(RuntimeError, match="Credentials: the options were restored"), receiver:
        pass
    pair[0].send(b"x")
    receiver.receive().close()  # it is used like any other buffer
    assert is_on() == 1, "it is restored once"


@pytest.mark.parametrize("make", MAKE_RECEIVER, ids=["Receiver", "BatchReceiver"])
@pytest.mark.parametrize("want", [[], [cmsgx.Credentials]], ids=["none", "one"])
def test_a_socket_that_was_closed_in_the_with_needs_no_restoring(
    make: Callable[[Any, list[Any]], Any], want: list[Any]
) -> None:
    with new_pair() as (_left, right):
        with make(right, want):
            right.close()
        assert right.fileno() == -1
