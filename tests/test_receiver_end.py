"""is_end() of Receiver and BatchReceiver."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from errqueue import tcp_pair
from receivers import HAS_END, KINDS, each_receiver, messages_of, two
from support import content, open_files

import cmsgx

# What is sent, and how the sender ends.
SCENES: dict[str, tuple[list[bytes], str]] = {
    "data": ([b"data"], ""),
    "data, then hung up": ([b"data"], "hung up"),
    "empty": ([b""], ""),
    "two empty": ([b"", b""], ""),
    "empty, data": ([b"", b"data"], ""),
    "empty, data, then hung up": ([b"", b"data"], "hung up"),
    "empty, then hung up": ([b""], "hung up"),
    "hung up": ([], "hung up"),
    "shut down": ([], "shut down"),
    "ten, then hung up": ([b""] * 10, "hung up"),
}


def play(sender: socket.socket, scene: str) -> None:
    sent, end = SCENES[scene]
    for data in sent:
        sender.send(data)
    if end == "hung up":
        sender.close()
    elif end == "shut down":
        sender.shutdown(socket.SHUT_WR)


@each_receiver
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("want", [[], [cmsgx.Credentials]], ids=["plain", "with credentials"])
@pytest.mark.parametrize("kind", KINDS)
def test_is_end_says_what_the_loop_does(
    kind: str, want: list[Any], scene: str, make: Callable[..., Any]
) -> None:
    if kind == "udp":
        want = []
    found: list[list[Any]] = [[], [], []]
    for way, steps in enumerate(found):
        with two(kind) as pair:
            pair[1].settimeout(0)
            receiver = make(pair[1], want=want)
            play(pair[0], scene)
            for _ in range(15):
                try:
                    if way == 0:
                        step = next(receiver, None)
                        if step is None:
                            steps.append("end")
                            break
                    else:
                        step = receiver.receive() if way == 1 else receiver.try_receive()
                        if step is None:
                            raise BlockingIOError
                        if receiver.is_end(step):
                            steps.append("end")
                            break
                    steps.append([message.data for message in messages_of(step)])
                except (BlockingIOError, ConnectionRefusedError):
                    steps.append("nothing")
                    break
    assert found[0] == found[1] == found[2]
    if kind in HAS_END:
        assert (found[0][-1] == "end") is bool(SCENES[scene][1])
    else:
        assert "end" not in found[0]


@each_receiver
@pytest.mark.parametrize("kind", HAS_END)
def test_the_end_comes_at_each_try(kind: str, make: Callable[..., Any]) -> None:
    with two(kind) as (sender, sock):
        receiver = make(sock)
        sender.close()
        for _ in range(3):
            found = receiver.try_receive()
            assert [message.data for message in messages_of(found)] == [b""]
            assert receiver.is_end(found) is True
        assert list(receiver) == []


@each_receiver
def test_an_empty_message_with_a_descriptor_is_not_the_end(make: Callable[..., Any]) -> None:
    with two("seqpacket") as (sender, sock), open_files(1) as files:
        receiver = make(sock, fds=1)
        cmsgx.send(sender, b"", fds=files)
        sender.close()
        with receiver.try_receive() as found:
            assert receiver.is_end(found) is False
            assert [content(fd) for fd in messages_of(found)[0].fds] == ["0"]
        assert receiver.is_end(receiver.try_receive()) is True


def hang_up(sender: socket.socket, sock: socket.socket) -> None:
    sender.close()
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    assert poll.poll(60_000)


@pytest.mark.parametrize(("has_more", "has_hung_up"), [(True, False), (True, True), (False, True)])
@pytest.mark.parametrize("pair", [partial(two, "stream"), tcp_pair], ids=["AF_UNIX", "TCP"])
def test_a_read_of_no_bytes_from_a_stream(
    pair: Callable[[], Any], has_more: bool, has_hung_up: bool
) -> None:
    with pair() as (sender, sock):
        receiver = cmsgx.Receiver(sock, 10)
        sender.send(b"more")
        if has_hung_up:
            hang_up(sender, sock)
        if not has_more:
            assert receiver.receive().data == b"more"
        message = receiver.try_receive(bufsize=0)
        assert message is not None
        assert message.eof is None
        assert receiver.is_end(message) is (has_hung_up and not has_more)


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_of_no_bytes_from_a_stream(count: int) -> None:
    with two("stream") as (sender, sock):
        receiver = cmsgx.BatchReceiver(sock, count, 0)
        sender.send(b"more")
        sender.close()
        batch = receiver.receive()
        assert (len(batch), receiver.is_end(batch)) == (count, False)
        assert sock.recv(9) == b"more"
        batch = receiver.receive()
        assert (len(batch), receiver.is_end(batch)) == (1, True)


@pytest.mark.parametrize("pair", [partial(two, "stream"), tcp_pair], ids=["AF_UNIX", "TCP"])
@pytest.mark.parametrize(
    "made",
    [lambda sock: cmsgx.Receiver(sock, 0), lambda sock: cmsgx.BatchReceiver(sock, 3, 0)],
    ids=["Receiver", "BatchReceiver"],
)
def test_a_loop_of_reads_of_no_bytes_stops_when_the_peer_has_hung_up(
    pair: Callable[[], Any], made: Callable[[Any], Any]
) -> None:
    """It would never reach the bytes that are left, which are there for another read."""
    with pair() as (sender, sock):
        sender.send(b"more")
        hang_up(sender, sock)
        assert list(itertools.islice(made(sock), 9)) == []
        assert sock.recv(9) == b"more"


def test_the_socket_is_asked_when_is_end_is_called() -> None:
    with two("seqpacket") as (sender, sock):
        receiver = cmsgx.Receiver(sock, 10)
        sender.send(b"")
        message = receiver.receive()
        assert receiver.is_end(message) is False
        sender.send(b"another")
        sender.close()
        assert receiver.is_end(message) is False
        assert receiver.receive().data == b"another"
        # By now it looks like the end, which is why the docstring says when to ask.
        assert receiver.is_end(message) is True
        assert message.eof is None


def test_is_end_of_a_batch_is_what_was_found_when_it_was_received() -> None:
    with two("seqpacket") as (sender, sock), two("stream") as (spare, _):
        receiver = cmsgx.BatchReceiver(sock, 4, 10)
        sender.send(b"")
        batch = receiver.receive()
        sender.close()
        end = receiver.receive()
        sock.close()
        for other in (receiver, cmsgx.BatchReceiver(spare, 1, 1)):
            assert other.is_end(batch) is False
            assert other.is_end(end) is True
        batch.close()
        assert receiver.is_end(batch=batch) is False


@pytest.mark.parametrize("kind", ["stream", "seqpacket"])
def test_is_end_of_the_message_of_another_receiver(kind: str) -> None:
    """What is known of the message is true for each receiver; else its own socket is asked."""
    with two(kind) as (sender, sock), two("seqpacket") as (_, other_sock):
        receiver, other = cmsgx.Receiver(sock, 10), cmsgx.Receiver(other_sock, 10)
        sender.send(b"data")
        assert other.is_end(receiver.receive()) is False
        sender.close()
        end = receiver.receive()
        assert receiver.is_end(message=end) is True
        assert other.is_end(end) is (kind == "stream")
        assert other.is_end(cmsgx.receive(sock, 10)) is (kind == "stream")
        assert receiver.is_end(cmsgx.BatchReceiver(sock, 4, 10).receive()[0]) is True


@pytest.mark.parametrize("how", ["socket", "Fd", "number"])
def test_is_end_of_a_closed_socket(how: str) -> None:
    with two("seqpacket") as (sender, sock):
        number = os.dup(sock.fileno())
        fd = cmsgx.Fd(number)
        forms: dict[str, Any] = {"socket": sock, "Fd": fd, "number": number}
        receiver = cmsgx.Receiver(forms[how], 10)
        sender.send(b"")
        sender.send(b"data")
        empty, data = receiver.receive(), receiver.receive()
        assert receiver.is_end(empty) is False
        fd.close()
        sock.close()
        with pytest.raises(OSError, match="sock") as caught:
            receiver.is_end(empty)
        assert caught.value.errno == errno.EBADF
        assert receiver.is_end(data) is False, "the socket is not needed"


@each_receiver
def test_is_end_of_anything_else(make: Callable[..., Any]) -> None:
    with two("dgram") as (sender, sock):
        receiver = make(sock)
        sender.send(b"x")
        sender.send(b"x")
        others = [cmsgx.receive(sock, 1), cmsgx.BatchReceiver(sock, 1, 1).receive()]
        wrong = others[isinstance(receiver, cmsgx.Receiver)]
        for value in (wrong, None, b"", 1):
            with pytest.raises(TypeError, match="is needed, not"):
                receiver.is_end(value)
