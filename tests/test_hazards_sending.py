"""docs/hazards.md, part D: which message a descriptor belongs to, and how much of it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from drop_ins import received
from native import Shim, under_shim
from support import Pair, close_pair, content, open_fds, open_files, run_python, unix_pair

import cmsgx


def in_child(function: str, *arguments: object, **more: Any) -> str:
    """Calls a function of this file in a separate process; returns what it printed."""
    code = f"import test_hazards_sending as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, **more)


# D2: a partial send -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["one buffer", "buffers of odd sizes"])
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_D2_descriptors_are_sent_once_however_the_bytes_are_split(
    stream: Pair, kind: str, timeout: float | None
) -> None:
    sender, receiver = stream
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    sender.settimeout(timeout)
    payload = random.Random(1).randbytes(1_000_000)
    data: Any = payload
    if kind != "one buffer":
        data = [payload[at : at + 777] for at in range(0, len(payload), 777)]
    got: list[tuple[int, list[str]]] = []

    def receive() -> None:
        rx = cmsgx.Receiver(receiver, 65536, fds=253)
        at = 0
        while at < len(payload):
            with rx.receive() as msg:
                assert payload.startswith(msg.data, at)
                got.append((at, [content(fd) for fd in msg.fds]))
                at += msg.nbytes

    thread = threading.Thread(target=receive)
    thread.start()
    with open_files(3) as files:
        cmsgx.send_all(sender, data, fds=files)
    thread.join()
    assert len(got) > 3, "it was sent in one piece, so this test showed nothing"
    assert got[0] == (0, ["0", "1", "2"])
    assert not any(fds for _, fds in got[1:])


def test_D2_control_is_sent_once_too(stream: Pair) -> None:
    sender, receiver = stream
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    sender.settimeout(60)  # so that each try sends a part
    with open_files(1) as files:
        thread = threading.Thread(
            target=cmsgx.send_all,
            args=(sender, bytes(200_000)),
            kwargs={"control": [cmsgx.Rights(files)]},
        )
        thread.start()
        got = fds = 0
        while got < 200_000:
            with cmsgx.receive(receiver, 65536, fds=253) as msg:
                got += msg.nbytes
                fds += len(msg.fds)
        thread.join()
    assert fds == 1


# D3: descriptors without a byte -------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", [], [b""], (b"", bytearray())], ids=repr)
@pytest.mark.parametrize("by", ["fds", "control"])
@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
@pytest.mark.parametrize("form", ["socket", "int", "Fd"])
def test_D3_no_byte_on_a_stream_is_refused(
    stream: Pair, data: Any, by: str, call: Callable[..., object], form: str
) -> None:
    with open_files(1) as files, contextlib.ExitStack() as stack:
        sock: Any = stream[0]
        if form == "int":
            sock = sock.fileno()
        elif form == "Fd":
            sock = stack.enter_context(cmsgx.Fd(os.dup(sock.fileno())))
        arguments: Any = {"fds": files} if by == "fds" else {"control": cmsgx.Rights(files)}
        with pytest.raises(ValueError, match="at least one byte"):
            call(sock, data, **arguments)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
def test_D3_elsewhere_it_arrives(kind: int, call: Callable[..., object]) -> None:
    pair = unix_pair(kind)
    with open_files(1) as files:
        call(pair[0], b"", fds=files)
    with cmsgx.receive(pair[1], 10, fds=1) as msg:
        assert (msg.nbytes, content(msg.fds[0])) == (0, "0")
    close_pair(pair)


def test_D3_the_drop_ins_are_as_in_socket(stream: Pair) -> None:
    assert cmsgx.send_fds(stream[0], [b""], [0]) == 0
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[1], 1, fds=1, timeout=0)


# D4: another family -------------------------------------------------------------------------------


@contextlib.contextmanager
def tcp() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        first = socket.create_connection(listener.getsockname())
        second = listener.accept()[0]
    with first, second:
        yield first, second


@pytest.mark.parametrize("by", ["fds", "control", "both"])
@pytest.mark.parametrize("call", [cmsgx.send, cmsgx.send_all], ids=["send", "send_all"])
@pytest.mark.parametrize("form", ["socket", "int", "Fd"])
def test_D4_descriptors_over_tcp_are_refused(
    by: str, call: Callable[..., object], form: str
) -> None:
    with tcp() as (first, second), open_files(2) as files, contextlib.ExitStack() as stack:
        sock: Any = first
        if form == "int":
            sock = first.fileno()
        elif form == "Fd":
            sock = stack.enter_context(cmsgx.Fd(os.dup(first.fileno())))
        arguments: dict[str, Any] = {}
        if by != "control":
            arguments["fds"] = files[:1]
        if by != "fds":
            arguments["control"] = [cmsgx.Rights(files[1:])]
        with pytest.raises(cmsgx.NotSupportedError, match="AF_UNIX") as caught:
            call(sock, b"data", **arguments)
        assert caught.value.errno == errno.EOPNOTSUPP
        second.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.recv(1)
        call(sock, b"data")
        assert cmsgx.receive(second, 10, timeout=60).data == b"data"


@pytest.mark.parametrize(
    ("family", "kind", "address"),
    [
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9)),
        (socket.AF_INET6, socket.SOCK_DGRAM, ("::1", 9)),
        (socket.AF_NETLINK, socket.SOCK_RAW, None),
    ],
)
def test_D4_and_over_every_other_family(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as sock:
        with pytest.raises(cmsgx.NotSupportedError):
            cmsgx.send(sock, b"x", fds=[0], address=address)
        if family == socket.AF_INET:
            with pytest.raises((cmsgx.NotSupportedError, ValueError)):
                cmsgx.send(sock, b"x", fds=[0], address=("localhost", 9))


# D5: empty or at the end --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_D5_an_empty_message_with_descriptors_is_not_the_end(kind: int) -> None:
    sender, receiver = unix_pair(kind)
    rx = cmsgx.Receiver(receiver, 10, fds=2)
    with open_files(2) as files:
        cmsgx.send(sender, b"", fds=files)
        cmsgx.send(sender, b"", fds=files[:1])
    sender.close()
    ways: tuple[tuple[int, Callable[[], cmsgx.Message]], ...] = (
        (2, rx.receive),
        (1, lambda: cmsgx.receive(receiver, 10, fds=2)),
    )
    for count, receive in ways:
        with receive() as msg:
            assert msg.eof is False
            assert msg.nbytes == 0
            assert len(msg.fds) == count
    if kind == socket.SOCK_SEQPACKET:
        assert rx.receive().eof is None
        assert list(rx) == []
    receiver.close()


def test_D5_an_empty_message_whose_descriptors_nobody_wants_is_closed() -> None:
    sender, receiver = unix_pair(socket.SOCK_SEQPACKET)
    before = open_fds()
    cmsgx.send(sender, b"", fds=[0])
    with cmsgx.receive(receiver, 10) as msg:
        assert msg.eof is not True
        assert msg.closed_fds == 1
    assert open_fds() == before
    close_pair((sender, receiver))


# D6: half a message -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 4095, 4096, 4097, 65536])
@pytest.mark.parametrize("by", ["receive", "Receiver", "into", "two buffers"])
def test_D6_a_truncated_datagram_raises_and_closes(kind: int, size: int, by: str) -> None:
    sender, receiver = unix_pair(kind)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    payload = random.Random(size).randbytes(size)

    def receive(room: int) -> cmsgx.Message:
        if by == "receive":
            return cmsgx.receive(receiver, room, fds=2)
        if by == "Receiver":
            return cmsgx.Receiver(receiver, room, fds=2).receive()
        if by == "into":
            return cmsgx.Receiver(receiver, into=bytearray(room), fds=2).receive()
        parts = [bytearray(room // 2), bytearray(room - room // 2)]
        return cmsgx.Receiver(receiver, into=parts, fds=2).receive()

    with open_files(2) as files:
        for room in (size - 1, size, size + 1):
            cmsgx.send(sender, payload, fds=files)
            before = open_fds()
            if room < size:
                with pytest.raises(cmsgx.DataTruncatedError) as caught:
                    receive(room)
                assert caught.value.message.data == payload[:room]
            else:
                with receive(room) as msg:
                    assert msg.data == payload
                    assert len(msg.fds) == 2
                    assert not msg.truncated
            assert open_fds() == before
    close_pair((sender, receiver))


def test_D6_more_than_a_stream_buffer_holds_is_not_truncation(stream: Pair) -> None:
    with open_files(1) as files:
        cmsgx.send(stream[0], b"12345", fds=files)
    with cmsgx.receive(stream[1], 2, fds=1) as msg:
        assert (msg.data, msg.truncated, len(msg.fds)) == (b"12", False, 1)
    with cmsgx.receive(stream[1], 10, fds=1) as msg:
        assert (msg.data, len(msg.fds)) == (b"345", 0)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_D6_the_drop_ins_set_the_flag(kind: int) -> None:
    sender, receiver = unix_pair(kind)
    ways: tuple[Callable[[], tuple[Any, ...]], ...] = (
        lambda: cmsgx.recvmsg(receiver, 2, 24),
        lambda: cmsgx.recvmsg_into(receiver, [bytearray(2)], 24),
        lambda: cmsgx.recv_fds(receiver, 2, 1),
    )
    with open_files(1) as files:
        for receive in ways:
            cmsgx.send(sender, b"12345", fds=files)
            answer = receive()
            assert answer[2] & socket.MSG_TRUNC
            number = received(answer)
            assert content(number) == "0"
            os.close(number)
    close_pair((sender, receiver))


# D7: a batch that stops half way ------------------------------------------------------------------

INJECTED = ("EPERM", "ENOBUFS", "ENOMEM", "ETOOMANYREFS", "ECONNREFUSED", "EAGAIN", "EIO", "EBADF")


def arrived(sock: cmsgx.socket) -> list[tuple[bytes, list[str]]]:
    """Each message that is there, and the content of its descriptors."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            with cmsgx.receive(sock, 100, fds=9, timeout=0) as msg:
                found.append((msg.data, [content(fd) for fd in msg.fds]))
    return found


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("by", ["number", "Fd"])
def test_D7_a_bad_descriptor_at_each_index(index: int, by: str) -> None:
    """The messages before it were sent, the result says so, and the next call gets the error. Every
    descriptor keeps the owner that it had, and no other is closed."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    with left, right, open_files(6) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        messages: list[Any] = [(str(i).encode(), [files[i], owners[i + 1]]) for i in range(5)]
        bad: Any = os.dup(0)
        os.close(bad)
        if by == "Fd":
            bad = cmsgx.Fd(os.dup(0))
            bad.close()
        messages[index] = (b"bad", [files[0], bad])
        before = open_fds()
        rest = messages
        if index > 0:
            sent = cmsgx.send_batch(left, messages)
            assert sent == index
            rest = messages[sent:]
        with pytest.raises(OSError, match=r"fds\[1\]") as caught:
            cmsgx.send_batch(left, rest)
        assert caught.value.errno == errno.EBADF
        assert open_fds() == before
        expected = [(str(i).encode(), [str(i), str(i + 1)]) for i in range(index)]
        assert arrived(right) == expected
        # And the messages after it can be sent.
        assert cmsgx.send_batch(left, rest[1:]) == 4 - index
        assert arrived(right) == [
            (str(i).encode(), [str(i), str(i + 1)]) for i in range(index + 1, 5)
        ]
        for i, owner in enumerate(owners):
            assert content(owner) == str(i)
            owner.close()


def injected() -> None:
    """Each error at each index, each time followed by a call with the rest."""
    shim = Shim()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    left.setblocking(False)
    with open_files(6) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        messages: list[Any] = [(str(i).encode(), [files[i], owners[i]]) for i in range(6)]
        before = open_fds()
        for name, index in itertools.product(INJECTED, range(6)):
            error = getattr(errno, name)
            shim.fail_send(index, error)
            at = 0
            if index > 0:
                at = cmsgx.send_batch(left, messages)
                assert at == index, name
                shim.fail_send(0, error)
            with pytest.raises(OSError, match=r"\[Errno") as caught:
                cmsgx.send_batch(left, messages[at:])
            assert caught.value.errno == error
            assert cmsgx.send_batch(left, messages[at:]) == 6 - at
            assert arrived(right) == [(str(i).encode(), [str(i)] * 2) for i in range(6)]
            assert open_fds() == before
    print("done")


def test_D7_each_error_at_each_index() -> None:
    assert in_child("injected", env=under_shim()).strip() == "done"


# D8: plain reads ----------------------------------------------------------------------------------


def stream_reader(sock: socket.socket) -> bytes:
    async def read() -> bytes:
        copy = socket.socket(fileno=os.dup(sock.fileno()))
        reader, writer = await asyncio.open_unix_connection(sock=copy)
        data = await reader.read(10)
        writer.close()
        await writer.wait_closed()
        return data

    return asyncio.run(read())


@pytest.mark.parametrize(
    "read",
    [
        lambda sock: sock.recv(10),
        lambda sock: os.read(sock.fileno(), 10),
        lambda sock: sock.recvmsg(10)[0],
        lambda sock: cmsgx.recvmsg(sock, 10)[0],
        stream_reader,
    ],
    ids=["recv", "read", "socket.recvmsg", "recvmsg", "asyncio"],
)
def test_D8_a_plain_read_silently_drops_descriptors(
    stream: Pair, read: Callable[[socket.socket], bytes]
) -> None:
    """There is no guard; the docstrings say so."""
    for call in (cmsgx.receive, cmsgx.Receiver):
        words = " ".join((call.__doc__ or "").split())
        assert re.search(
            r"Read (a|the) socket .*only (by these calls|through this object): recv\(\)", words
        )
        assert "the kernel silently drops" in words
    reader, writer = os.pipe()
    cmsgx.send(stream[0], b"data", fds=[writer])
    os.close(writer)
    before = open_fds()
    assert read(stream[1]) == b"data"
    assert open_fds() == before
    assert os.read(reader, 1) == b""  # the other end is no longer open anywhere
    os.close(reader)
