"""try_receive() of Receiver and BatchReceiver."""

from __future__ import annotations

import errno
import gc
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from closing import ALARM
from pairs import later, new_pair
from receivers import HAS_FDS, KINDS, RECEIVERS, each_receiver, messages_of, two
from support import Pair, content, in_fork, open_fds, open_files, run_python, until_it_waits

import cmsgx


@pytest.fixture(params=KINDS)
def both(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A connected pair of each kind of socket."""
    with two(request.param) as pair:
        yield pair


@each_receiver
@pytest.mark.parametrize("timeout", [None, 0, 60])
def test_a_try_never_waits_and_returns_none_if_nothing_is_there(
    both: Pair, make: Callable[..., Any], timeout: float | None
) -> None:
    both[1].settimeout(timeout)
    receiver = make(both[1])
    with later(20, lambda: both[0].send(b"it waited")):
        assert receiver.try_receive() is None
    both[0].send(b"one")
    (message,) = messages_of(receiver.try_receive())
    assert message.data == b"one"
    assert receiver.try_receive() is None
    assert both[1].gettimeout() == timeout


@each_receiver
@pytest.mark.parametrize("is_blocking", [True, False])
def test_a_try_of_a_number_whose_mode_is_unknown(
    both: Pair, make: Callable[..., Any], is_blocking: bool
) -> None:
    os.set_blocking(both[1].fileno(), is_blocking)
    with cmsgx.Fd(os.dup(both[1].fileno())) as fd:
        for sock in (both[1].fileno(), fd):
            receiver = make(sock)
            with later(20, lambda: both[0].send(b"it waited")):
                assert receiver.try_receive() is None
            both[0].send(b"x")
            assert [message.data for message in messages_of(receiver.try_receive())] == [b"x"]
            assert os.get_blocking(both[1].fileno()) is is_blocking


@each_receiver
@pytest.mark.parametrize("kind", HAS_FDS)
def test_a_try_finds_what_receive_finds(kind: str, make: Callable[..., Any]) -> None:
    options: dict[str, Any] = {"fds": 2, "want": [cmsgx.Credentials]}
    with two(kind) as (sender, sock), open_files(3) as files:
        receiver = make(sock, **options)
        before = open_fds()
        for way in (receiver.receive, receiver.try_receive):
            cmsgx.send(sender, b"data", fds=files, control=cmsgx.Credentials())
            found = way()
            with found:
                (message,) = messages_of(found)
                assert message.data == b"data"
                assert message[cmsgx.Credentials].pid == os.getpid()
                assert [content(fd) for fd in message.fds] == ["0", "1"]
                assert (message.closed_fds, message.truncated, message.eof) == (None, True, False)
            assert open_fds() == before


@pytest.mark.parametrize("kind", ["dgram", "seqpacket", "udp"])
def test_a_try_of_a_batch_takes_all_that_is_there(kind: str) -> None:
    with two(kind) as (sender, sock):
        receiver = cmsgx.BatchReceiver(sock, 3, 10)
        found = []
        for _ in range(7):
            sender.send(b"x")
        while (batch := receiver.try_receive()) is not None:
            found.append(len(batch))
        assert found == [3, 3, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_try_takes_a_size_for_one_call(kind: str) -> None:
    with two(kind) as (sender, sock):
        receiver = cmsgx.Receiver(sock, 10, on_truncation="keep")
        for size, wanted in ((2, b"01"), (None, b"234"), (0, b""), (10, b"56")):
            sender.send(b"01234" if size == 2 or kind != "stream" else b"56" if size == 0 else b"")
            found = receiver.try_receive(bufsize=size)
            assert found is not None
            assert found.data == (wanted if kind == "stream" else b"01234"[:size])


def test_a_try_receives_into_buffers() -> None:
    with two("dgram") as (sender, sock):
        into = [bytearray(2), bytearray(3)]
        receiver = cmsgx.Receiver(sock, into=into)
        assert receiver.try_receive() is None
        sender.send(b"12345")
        with receiver.try_receive() or receiver.receive() as message:
            assert message.nbytes == 5
        assert into == [b"12", b"345"]
        sender.send(b"ab")
        with receiver.try_receive(bufsize=2) or receiver.receive() as message:
            assert into == [b"ab", b"345"]
        with pytest.raises(ValueError, match="bufsize: 6"):
            receiver.try_receive(bufsize=6)


@each_receiver
def test_a_try_of_the_error_queue(make: Callable[..., Any]) -> None:
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.bind(("127.0.0.1", 0))
            address = gone.getsockname()
        receiver = make(sock, want=[cmsgx.kinds.ExtendedError])
        flags = socket.MSG_ERRQUEUE
        assert receiver.try_receive(flags=flags) is None
        sock.sendto(b"lost", address)
        found = receiver.try_receive(flags=flags)
        (message,) = messages_of(found)
        assert (message.data, message.address) == (b"lost", address)
        assert cmsgx.kinds.ExtendedError in message
        assert receiver.is_end(found) is False
        # That queue and the other one by turns, with the address of each.
        for _ in range(3):
            assert receiver.try_receive(flags=flags) is None
            own = ("127.0.0.1", sock.getsockname()[1])
            sock.sendto(b"", own)
            found = receiver.try_receive()
            (message,) = messages_of(found)
            assert (message.data, message.address, message.eof) == (b"", own, False)
            assert receiver.is_end(found) is False


@each_receiver
def test_errors_of_a_try_are_those_of_receive(make: Callable[..., Any]) -> None:
    with new_pair(socket.SOCK_DGRAM) as (sender, sock):
        receiver, with_fds = make(sock), make(sock, fds=1)
        for call in (with_fds.receive, with_fds.try_receive):
            with pytest.raises(ValueError, match="MSG_PEEK"):
                call(flags=socket.MSG_PEEK)
        sender.send(b"peek")
        (message,) = messages_of(receiver.try_receive(flags=socket.MSG_PEEK))
        assert message.data == b"peek"
        assert len(messages_of(receiver.try_receive())) == 1
        sock.close()
        for call in (receiver.receive, receiver.try_receive, with_fds.try_receive):
            with pytest.raises(OSError, match="sock: it is closed") as caught:
                call()
            assert caught.value.errno == errno.EBADF


@each_receiver
def test_a_try_after_the_close_of_an_fd_or_a_number(make: Callable[..., Any]) -> None:
    with new_pair() as (_, sock):
        fd = cmsgx.Fd(os.dup(sock.fileno()))
        number = os.dup(sock.fileno())
        receivers = [make(fd), make(number)]
        assert [receiver.try_receive() for receiver in receivers] == [None, None]
        fd.close()
        os.close(number)
        for receiver in receivers:
            for call in (receiver.receive, receiver.try_receive):
                with pytest.raises(OSError, match="sock") as caught:
                    call()
                assert caught.value.errno == errno.EBADF


@each_receiver
def test_a_try_raises_a_pending_error_once(make: Callable[..., Any]) -> None:
    with two("udp") as (sender, sock):
        receiver = make(sock)
        sender.close()
        sock.send(b"refused")
        with pytest.raises(ConnectionRefusedError):
            receiver.try_receive()
        assert receiver.try_receive() is None


def test_a_try_raises_for_what_is_missing() -> None:
    with new_pair(socket.SOCK_DGRAM) as (sender, sock), open_files(1) as files:
        before = open_fds()
        cmsgx.send(sender, b"too long", fds=files)
        with pytest.raises(cmsgx.DataTruncatedError):
            cmsgx.Receiver(sock, 3, fds=1).try_receive()
        assert open_fds() == before
        cmsgx.send(sender, b"too long", fds=files)
        with cmsgx.Receiver(sock, 3, fds=1, on_truncation="keep").receive() as message:
            assert message.truncated
        assert open_fds() == before


@each_receiver
def test_two_threads_in_one_receiver(make: Callable[..., Any]) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, sock):
        receiver = make(sock)
        sender.send(b"")
        empty = messages_of(cmsgx.BatchReceiver(sock, 1, 10).receive())[0]
        assert empty.eof is None
        thread = threading.Thread(target=receiver.receive)
        thread.start()
        until_it_waits(thread)
        uses = [receiver.try_receive]
        if isinstance(receiver, cmsgx.Receiver):
            uses.append(lambda: receiver.is_end(empty))
        try:
            for use in uses:
                with pytest.raises(RuntimeError, match="is in use"):
                    use()
        finally:
            sender.send(b"x")
            thread.join()
        assert receiver.try_receive() is None
        if isinstance(receiver, cmsgx.Receiver):
            assert receiver.is_end(empty) is False


@each_receiver
def test_a_try_of_a_socket_that_overrides_a_method(make: Callable[..., Any]) -> None:
    class Secret(cmsgx.socket):
        pass

    with new_pair() as (_, plain), Secret(fileno=os.dup(plain.fileno())) as sock:
        receiver = make(sock)
        assert receiver.try_receive() is None
        Secret.recv = lambda *_: None  # type: ignore[method-assign,assignment]
        with pytest.raises(TypeError, match=r"Secret has a recv\(\)"):
            receiver.try_receive()


@each_receiver
def test_a_try_in_a_child_of_fork(make: Callable[..., Any]) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (sender, sock), open_files(2) as files:
        receiver = make(sock, fds=1)
        assert receiver.try_receive() is None
        cmsgx.send(sender, b"for the parent", fds=files)
        with receiver.try_receive() as found:
            assert content(messages_of(found)[0].fds[0]) == "0"

            def child() -> None:
                assert receiver.try_receive() is None
                cmsgx.send(sender, b"for the child", fds=files[1:])
                with receiver.try_receive() as mine:
                    assert mine is not None
                    (message,) = messages_of(mine)
                    assert (message.data, content(message.fds[0])) == (b"for the child", "1")
                    assert messages_of(found)[0].data == b"for the parent"
                sender.close()

            in_fork(child)
        assert receiver.try_receive() is None


FULL = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
make = {"Receiver": lambda: cmsgx.Receiver(right, 9, fds=60, close="background"),
        "BatchReceiver": lambda: cmsgx.BatchReceiver(right, 4, 9, fds=60, close="background")}
receiver = make[sys.argv[1]]()
assert receiver.try_receive() is None
with support.stalled_socket(240) as (number, release):
    support.send_in_turn(left, b"1", [number, *[0] * 40])
    os.close(number)
    with receiver.try_receive() as found:
        message = found if isinstance(found, cmsgx.Message) else found[0]
        number = message.fds[0].fileno()
    # Its close has begun, and 40 are behind it: more than an eighth of the table.
    assert support.eventually(lambda: not support.is_open(number))
    counts = _cmsg.closer_counts()
    assert counts == (41, 41), counts
    support.send_in_turn(left, b"2", [0] * 20)
    before = support.open_fds()
    for flags in (0, socket.MSG_DONTWAIT):
        assert receiver.try_receive(flags=flags) is None
    assert support.open_fds() == before, "nothing was received"
    assert _cmsg.closer_counts() == counts
    release()
    assert cmsgx.wait_closed() == 0
with receiver.try_receive() as found:
    message = found if isinstance(found, cmsgx.Message) else found[0]
    assert message.data == b"2" and len(message.fds) == 20
assert cmsgx.wait_closed() == 0
assert receiver.try_receive() is None
assert _cmsg.closer_counts() == (0, 0)
print("done")
"""


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_try_finds_nothing_while_too_much_waits_to_be_closed(receiver: str) -> None:
    assert run_python(ALARM + FULL, receiver).strip() == "done"


@each_receiver
@pytest.mark.parametrize("close", ["now", "background"])
def test_messages_of_tries_are_not_leaked(make: Callable[..., Any], close: str) -> None:
    with new_pair(socket.SOCK_DGRAM) as (sender, sock), open_files(1) as files:
        receiver = make(sock, fds=1, close=close)
        for _ in range(3):
            assert receiver.try_receive() is None
            cmsgx.send(sender, b"x", fds=files)
            receiver.try_receive().close()
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(200):
            assert receiver.try_receive() is None
            cmsgx.send(sender, b"x", fds=files)
            receiver.try_receive().close()
        gc.collect()
        assert len(gc.get_objects()) <= before + 20
        assert cmsgx.wait_closed(60) == 0


@pytest.mark.parametrize("seed", range(4))
def test_bytes_of_batches_never_change_whatever_the_calls_between(seed: int) -> None:
    """A call prepares again only what the one before it used."""
    chance = random.Random(seed)
    flags = [0, 0, socket.MSG_PEEK, socket.MSG_TRUNC, socket.MSG_ERRQUEUE]
    with two("udp") as (sender, sock), two("dgram") as other:
        receivers = []
        for pair, fds in (((sender, sock), 0), (other, 1)):
            receiver = cmsgx.BatchReceiver(pair[1], 8, 20, fds=fds)
            receivers.append((receiver, pair, fds, list[bytes]()))
        held: list[tuple[Any, bytes]] = []
        for step in range(400):
            receiver, pair, fds, queue = chance.choice(receivers)
            for _ in range(chance.choice([0, 0, 0, 1, 2, 9]) if len(queue) < 10 else 0):
                queue.append(b"%d " % step * chance.randrange(1, 9))
                cmsgx.send(pair[0], queue[-1], fds=[0] * fds)
            if chance.random() < 0.05:
                receiver.refresh()
            flag = chance.choice(flags if fds == 0 else [0, socket.MSG_TRUNC])
            batch = receiver.try_receive(flags=flag)
            if flag == socket.MSG_ERRQUEUE or not queue:
                assert batch is None
                continue
            assert batch is not None
            if flag == socket.MSG_PEEK:
                assert [message.data for message in batch] == [queue[0][:20]]
                continue
            wanted, queue[:] = queue[:8], queue[8:]
            assert [message.data for message in batch] == [data[:20] for data in wanted]
            for message, data in zip(batch, wanted, strict=True):
                assert message.truncated == (len(data) > 20)
                assert message.nbytes == (len(data) if flag else len(data[:20]))
                assert len(message.fds) == fds
                if pair[0] is sender:
                    assert message.address == sender.getsockname()
                if chance.random() < 0.3:
                    held.append((message.view, data[:20]))
            batch.close()
            del held[: max(0, len(held) - 30)]
            for view, data in held:
                assert view == data


def test_a_stream_and_its_error_queue_by_turns() -> None:
    """Only a message of the error queue comes with an address."""
    with cmsgx.socket(socket.AF_UNIX) as listener, cmsgx.socket(socket.AF_UNIX) as sender:
        for sock in (listener, sender):
            sock.bind("")
        listener.listen()
        sender.connect(listener.getsockname())
        with listener.accept()[0] as sock:
            receiver = cmsgx.BatchReceiver(sock, 4, 1)
            for flags, address in ((socket.MSG_ERRQUEUE, sender.getsockname()), (0, None)):
                assert receiver.try_receive(flags=flags) is None
                sender.send(b"123")  # AF_UNIX ignores that flag
                batch = receiver.try_receive(flags=flags)
                assert [message.address for message in messages_of(batch)] == [address] * 3
                del batch


def test_bytes_that_are_not_written_are_zeros() -> None:
    """With MSG_TRUNC on TCP nothing is written, and older data must not appear in its place."""
    with cmsgx.socket(socket.AF_INET) as listener, cmsgx.socket(socket.AF_INET) as sender:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sender.connect(listener.getsockname())
        with listener.accept()[0] as sock:
            receiver = cmsgx.BatchReceiver(sock, 4, 2)
            for flags, wanted in ((0, b"ss"), (0, b"ss"), (socket.MSG_TRUNC, bytes(2))):
                assert receiver.try_receive() is None
                sender.send(b"s" * 8)
                batch = receiver.receive(flags=flags, timeout=60)
                assert [message.data for message in batch] == [wanted] * 4
                del batch
