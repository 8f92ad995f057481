"""Sending over a connection: each message whole or not at all, without a socket."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from arrivals import Interrupted, interrupted_after
from support import content, open_fds, open_files

import cmsgx
from cmsgx import _cmsg
from cmsgx._core.departures import Departures, Step
from cmsgx._core.frames import Deframer, steps_of


class Wire:
    """A socket that takes what it is told to: bytes, and descriptors with the first of them."""

    def __init__(self, *takes: int | BaseException) -> None:
        self.takes = list(takes)  # of one try each; then everything
        self.bytes = b""
        self.contents: list[str] = []
        self.control: list[Any] = []
        self.closed: list[Rest] = []

    def take(self, data: bytes, fds: Sequence[Any], control: Sequence[Any]) -> int:
        most = self.takes.pop(0) if self.takes else len(data)
        if isinstance(most, BaseException):
            raise most
        if most:
            self.bytes += data[:most]
            self.contents += [content(fd) for fd in fds]
            self.control += control
        return min(most, len(data))

    def send(self, data: Sequence[Any], *, fds: Any, control: Any) -> Any:
        rest = Rest(self, data, fds, control)
        rest.try_send()
        return rest.sent if rest.is_done else rest


class Rest:
    """A PreparedSend of that socket. It sees a buffer of its caller that changes."""

    def __init__(self, wire: Wire, data: Sequence[Any], fds: Any, control: Any) -> None:
        self.wire, self.data, self.head = wire, data, (fds, control)
        self.sent = 0
        self.is_done = False

    def try_send(self) -> int | None:
        left = b"".join(self.data)[self.sent :]
        gone = self.wire.take(left, *self.head)
        self.sent += gone
        self.is_done = gone == len(left)
        if gone:
            self.head = ((), ())
        return gone or None

    def close(self) -> None:
        self.wire.closed.append(self)


def duplicate(fd: Any) -> cmsgx.Fd:
    return fd.dup() if isinstance(fd, cmsgx.Fd) else cmsgx.Fd(os.dup(fd))


def departures(*takes: int | BaseException) -> tuple[Departures, Wire]:
    wire = Wire(*takes)
    return Departures(wire.send, duplicate), wire


@pytest.fixture
def files() -> Iterator[list[int]]:
    with open_files(600) as numbers:
        yield numbers


CREDENTIALS = cmsgx.Credentials()


@pytest.mark.parametrize("count", [0, 2, 253, 600])
@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_a_message_in_parts_goes_once(count: int, size: int, files: list[int]) -> None:
    out, wire = departures(*[size] * 30)
    steps = steps_of([b"data", b"more"], files[:count], CREDENTIALS)
    whole = b"".join([piece for step in steps for piece in step.data])
    out.begin(steps)
    tries = 1
    while not out.advance():
        tries += 1
        assert out.pending == (len(whole) - len(wire.bytes) if wire.bytes else 0)
    assert wire.bytes == whole
    assert wire.contents == [str(number) for number in range(count)]
    assert wire.control == [CREDENTIALS]
    assert out.pending == 0
    assert tries <= 31
    assert out.advance()


def test_the_next_message_has_to_wait() -> None:
    out, _ = departures(1)
    out.begin(steps_of(b"one"))
    assert not out.advance()
    with pytest.raises(RuntimeError, match="the message before is not sent yet"):
        out.begin(steps_of(b"two"))
    assert out.advance()
    out.begin(steps_of(b"two"))


def test_a_sender_that_gives_up_before_the_first_byte_sends_nothing(files: list[int]) -> None:
    out, wire = departures(0, 0)
    out.begin(steps_of(b"one", files[:1]))
    assert not out.advance()
    assert not out.abandon()
    assert len(wire.closed) == 1
    assert not out.abandon()
    out.begin(steps_of(b"two"))
    finish(out)
    assert wire.bytes == b"\x03" + bytes(7) + b"two"
    assert wire.contents == []


@pytest.mark.parametrize("gone", range(1, 18))
@pytest.mark.parametrize("count", [1, 600])
def test_a_sender_that_gives_up_later_leaves_the_rest(
    gone: int, count: int, files: list[int]
) -> None:
    before = open_fds()
    out, wire = departures(*[1] * gone, 0)
    data = bytearray(b"some data!")
    numbers = [os.dup(fd) for fd in files[:count]]
    out.begin(steps_of(data, numbers, CREDENTIALS))
    while len(wire.bytes) < gone:
        assert not out.advance()
    assert out.abandon()
    data[:] = b"something "
    for number in numbers:
        os.close(number)
    assert out.pending == 18 - gone
    finish(out)
    assert wire.bytes == b"\x0a\0\0\0" + count.to_bytes(2, "little") + b"\0\0some data!"
    assert wire.contents == [str(number) for number in range(count)]
    assert wire.control == [CREDENTIALS]
    assert open_fds() == before


def finish(out: Departures) -> None:
    while not out.advance():
        pass


def broken_pipe() -> OSError:
    return BrokenPipeError(errno.EPIPE, "Broken pipe")


@pytest.mark.parametrize("error", [broken_pipe(), ValueError("fds: closed")], ids=repr)
def test_an_error_before_the_first_byte_breaks_nothing(error: Exception) -> None:
    out, wire = departures(error, 0, error)
    for _ in range(2):
        out.begin(steps_of(b"one"))
        with pytest.raises(type(error)):
            finish(out)
    out.begin(steps_of(b"two"))
    assert out.advance()
    assert wire.bytes.endswith(b"two")
    assert len(wire.closed) == 1


@pytest.mark.parametrize("count", [0, 600])
@pytest.mark.parametrize("is_abandoned", [False, True])
def test_an_error_after_the_first_byte_breaks_sending(
    count: int, is_abandoned: bool, files: list[int]
) -> None:
    before = open_fds()
    out, _ = departures(1, 0, broken_pipe())
    out.begin(steps_of(b"one", files[:count]))
    assert not out.advance()
    if is_abandoned:
        assert out.abandon()
    with pytest.raises(BrokenPipeError):
        finish(out)
    assert open_fds() == before
    calls: list[Callable[[], Any]] = [lambda: out.begin(steps_of(b"two")), out.check, out.advance]
    for call in calls:
        with pytest.raises(
            cmsgx.BrokenError, match=r"send: a message was sent only in part, .*Broken pipe"
        ) as caught:
            call()
        assert type(caught.value.__cause__) is BrokenPipeError
    assert out.pending == 0


@pytest.mark.parametrize("error", [TimeoutError("timed out"), BlockingIOError(), MemoryError()])
def test_after_a_wait_that_was_too_short_it_goes_on(error: Exception) -> None:
    out, wire = departures(2, error)
    out.begin(steps_of(b"one"))
    assert not out.advance()
    with pytest.raises(type(error)):
        out.advance()
    assert out.abandon()
    assert out.advance()
    assert wire.bytes == b"\x03" + bytes(7) + b"one"


def test_what_cannot_be_copied_breaks_sending(files: list[int]) -> None:
    def full(_: object) -> cmsgx.Fd:
        raise OSError(errno.EMFILE, "too many")

    wire = Wire(1, 0)
    out = Departures(wire.send, full)
    out.begin(steps_of(b"one", files))
    assert not out.advance()
    with pytest.raises(OSError, match="too many"):
        out.abandon()
    with pytest.raises(cmsgx.BrokenError, match="too many"):
        out.check()
    assert len(wire.closed) == 1


def test_what_was_copied_before_a_copy_failed_is_closed(files: list[int]) -> None:
    many = (files * 254)[:600]
    left = [3]

    def few(fd: Any) -> cmsgx.Fd:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.EMFILE, "too many")
        return duplicate(fd)

    out = Departures(Wire(1, 0).send, few)
    out.begin(steps_of(b"one", many))
    assert not out.advance()
    before = open_fds()
    with pytest.raises(OSError, match="too many"):
        out.abandon()
    assert open_fds() == before


def test_a_rest_for_which_there_is_no_memory_breaks_sending(
    files: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object) -> None:
        raise MemoryError("no memory")

    out, _ = departures(1, 0)
    out.begin(steps_of(b"one", (files * 254)[:600]))
    assert not out.advance()
    before = open_fds()
    monkeypatch.setattr("cmsgx._core.departures._Message", no_memory)
    with pytest.raises(MemoryError):
        out.abandon()
    assert open_fds() == before
    with pytest.raises(cmsgx.BrokenError, match="no memory"):
        out.check()


def test_another_way_to_go_on() -> None:
    out, wire = departures(1)
    out.begin([Step([b"ab"], (), ()), Step([b"cd"], (), ())])
    tried = []

    def go_on(prepared: Rest) -> None:
        tried.append(prepared.sent)
        prepared.try_send()

    assert not out.advance()
    assert out.advance(go_on)
    assert tried == [1]
    assert wire.bytes == b"abcd"


def test_close_drops_what_is_pending(files: list[int]) -> None:
    before = open_fds()
    out, wire = departures(1, 0)
    out.begin(steps_of(b"one", files))
    assert not out.advance()
    assert out.abandon()
    out.close()
    assert open_fds() == before
    assert len(wire.closed) == 1
    assert out.pending == 0
    for call in out.check, out.advance:
        with pytest.raises(cmsgx.ClosedError):
            call()


def sent_with_interruption(after: int, files: list[int]) -> tuple[int, Wire]:
    out, wire = departures(*[2, 0] * 40)
    with interrupted_after(after) as left:
        for data, count in (b"one", 260), (b"two", 1):
            has_begun = False
            while True:
                try:
                    if not has_begun:
                        out.begin(steps_of(data, files[:count]))
                        has_begun = True
                    if out.advance():
                        break
                except Interrupted:
                    has_begun = has_begun or out._message is not None
    out.close()
    return left[0], wire


@pytest.mark.parametrize("stride", [61, pytest.param(5, marks=pytest.mark.slow)])
def test_a_signal_handler_that_raises_tears_nothing(stride: int, files: list[int]) -> None:
    left, expected = sent_with_interruption(0, files)
    assert left < -500
    for after in range(1, -left + 1, stride):
        _, wire = sent_with_interruption(after, files)
        assert wire.bytes == expected.bytes, after
        assert wire.contents == expected.contents, after


# Over a socket ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_frames_over_a_socket_that_is_full_again_and_again(seed: int, files: list[int]) -> None:
    before = open_fds()
    chance = random.Random(seed)
    left, right = cmsgx.socketpair()
    with left, right:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        receiver = cmsgx.Receiver(right, 5000, fds=253)
        out = Departures(partial(_cmsg.send_or_prepare, left), duplicate)
        deframer = Deframer(receiver.is_end, limit=50000, max_fds=600)
        frames = [
            (chance.randbytes(chance.choice([0, 10, 3000, 50000])), chance.choice([0, 1, 300, 600]))
            for _ in range(6)
        ]
        found = []
        for data, count in frames:
            buffer, numbers = bytearray(data), [os.dup(fd) for fd in files[:count]]
            out.begin(steps_of(buffer, numbers))
            is_kept = False
            while True:
                is_gone = out.advance()
                if not is_kept and (is_gone or (chance.random() < 0.3 and out.abandon())):
                    # Nothing of the caller's is needed any more.
                    is_kept = True
                    buffer[:] = bytes(len(buffer))
                    for number in numbers:
                        os.close(number)
                while deframer.pull(partial(receiver.try_receive, bufsize=chance.randint(1, 5000))):
                    frame = deframer.next_frame()
                    if frame is not None:
                        with frame:
                            found.append((frame.data, [content(fd) for fd in frame.fds]))
                if is_gone:
                    break
        assert found == [(data, [str(number) for number in range(count)]) for data, count in frames]
        receiver = deframer = out = None  # type: ignore[assignment]
    assert open_fds() == before
