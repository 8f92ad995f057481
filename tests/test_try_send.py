"""try_send: one try that never waits; send_or_prepare."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from batches import Interrupt, handling, interrupt
from pairs import fill, new_pair
from support import (
    Pair,
    content,
    open_fds,
    open_files,
)
from tries import (
    drain,
    files_after,
    full_pair,
    rest_of,
    waiting,
)

import cmsgx
from cmsgx import _cmsg

# try_send -----------------------------------------------------------------------------------------


def with_timeout(sock: cmsgx.socket, seconds: float) -> cmsgx.socket:
    sock.settimeout(seconds)
    return sock


SOCKETS: dict[str, Callable[[cmsgx.socket], Any]] = {
    "blocking": lambda sock: sock,
    "non-blocking": lambda sock: with_timeout(sock, 0),
    "with a timeout": lambda sock: with_timeout(sock, 60),
    "an int": lambda sock: sock.fileno(),
    "an Fd": lambda sock: cmsgx.Fd(os.dup(sock.fileno())),
}


@pytest.mark.parametrize("how", SOCKETS)
def test_a_try_never_waits_whatever_the_socket(how: str) -> None:
    with new_pair() as (left, right), open_files(1) as files:
        filled = fill(left)
        sock = SOCKETS[how](left)
        try:
            assert cmsgx.try_send(sock, b"x", fds=files) is None
            assert _cmsg.send_or_prepare(sock, b"") == 0
            with cmsgx.PreparedSend(sock, b"12", fds=files) as prepared:
                assert prepared.try_send() is None
                drain(right)
                assert prepared.try_send() == 2
            assert cmsgx.try_send(sock, [b"3", b"4"], fds=files) == 2
            assert filled > 0
            assert files_after(right, 0) == (b"12", ["0"])
            assert files_after(right, 0) == (b"34", ["0"])
        finally:
            if sock is not left and not isinstance(sock, int):
                sock.close()


def test_a_try_sends_what_fits_and_says_how_much(stream: Pair) -> None:
    data = bytes(10_000_000)
    sent = cmsgx.try_send(stream[0], data)
    assert sent is not None
    assert 0 < sent < len(data)
    assert len(drain(stream[1])) == sent


def test_a_try_takes_all_that_a_send_takes(stream: Pair) -> None:
    with open_files(3) as files, cmsgx.Fd(os.dup(files[2])) as fd:
        assert cmsgx.try_send(stream[0], [b"ab", bytearray(b"c")], fds=[files[0], fd]) == 3
        assert files_after(stream[1], 0) == (b"abc", ["0", "2"])
        assert cmsgx.try_send(stream[0], b"d", control=cmsgx.Rights([files[1]])) == 1
        assert files_after(stream[1], 0) == (b"d", ["1"])


def test_a_try_to_an_address() -> None:
    with (
        cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as right,
        new_pair(socket.SOCK_DGRAM) as (left, _),
    ):
        right.bind("")
        with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as alone:
            assert cmsgx.try_send(alone, b"x", address=right.getsockname()) == 1
            with cmsgx.PreparedSend(alone, b"yz", address=right.getsockname()) as prepared:
                assert prepared.try_send() == 2
        assert [right.recv(9), right.recv(9)] == [b"x", b"yz"]
        assert left.family == socket.AF_UNIX


@pytest.mark.parametrize("call", [cmsgx.try_send, _cmsg.send_or_prepare])
def test_a_try_raises_what_a_send_raises(call: Callable[..., object]) -> None:
    with new_pair() as (left, right):
        right.close()
        with pytest.raises(BrokenPipeError):
            call(left, b"x")
        with open_files(1) as files, pytest.raises(OSError, match=r"fds\[1\]") as caught:
            call(left, b"x", fds=[files[0], 1 << 20])
        assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError, match="sock") as caught:
        call(left, b"x")
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("name", ["data", "fds", "control"])
def test_a_try_reads_nothing_of_an_iterator(stream: Pair, name: str) -> None:
    def never() -> Iterator[Any]:
        raise AssertionError("it was read")
        yield

    arguments: dict[str, Any] = {"data": b"x", name: never()}
    with pytest.raises(TypeError, match=f"^{name}: .*PreparedSend"):
        cmsgx.try_send(stream[0], **arguments)
    assert drain(stream[1]) == b""


def test_a_file_is_one_descriptor_although_it_is_an_iterator(stream: Pair) -> None:
    with open_files(1) as files, open(files[0], "rb", closefd=False) as file:
        assert cmsgx.try_send(stream[0], b"x", fds=file) == 1
    assert files_after(stream[1], 0) == (b"x", ["0"])


def test_a_subclass_that_overrides_send_is_refused() -> None:
    class Loud(socket.socket):
        def send(self, *_: Any) -> int:
            raise AssertionError

    with Loud(socket.AF_UNIX) as sock:
        for call in (cmsgx.try_send, cmsgx.PreparedSend, _cmsg.send_or_prepare):
            with pytest.raises(TypeError, match="Loud"):
                call(sock, b"x")


def test_a_host_name_is_resolved_by_the_constructor_and_by_no_try() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as right,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as left,
    ):
        right.bind(("127.0.0.1", 0))
        address = ("localhost", right.getsockname()[1])
        for call in (cmsgx.try_send, _cmsg.send_or_prepare):
            with pytest.raises(ValueError, match=r"host name.*getaddrinfo"):
                call(left, b"x", address=address)
        with cmsgx.PreparedSend(left, b"x", address=address) as prepared:
            assert prepared.try_send() == 1
        assert right.recv(9) == b"x"


# send_or_prepare, and waiting in C ----------------------------------------------------------------


def test_an_object_is_made_only_if_something_is_left(stream: Pair) -> None:
    with open_files(2) as files:
        assert _cmsg.send_or_prepare(stream[0], iter([b"a", b"b"]), fds=iter(files)) == 2
        assert files_after(stream[1], 0) == (b"ab", ["0", "1"])
        data = os.urandom(1_000_000)
        with rest_of(stream[0], iter([data]), fds=iter(files)) as prepared:
            assert 0 < prepared.sent < len(data)
            with cmsgx.receive(stream[1], 1 << 20, fds=2) as message:
                got = message.data
                assert [content(fd) for fd in message.fds] == ["0", "1"]
            with cmsgx.Receiver(stream[1], 1 << 20, fds=2) as receiver:
                while len(got) < len(data):
                    if not prepared.is_done:
                        prepared.try_send()
                    with receiver.receive() as message:
                        got += message.data
                        assert not message.fds
            assert got == data


def test_what_is_only_borrowed_by_a_send_is_kept(stream: Pair) -> None:
    fill(stream[0])
    prepared = rest_of(stream[0], bytes([65] * 10_000))
    junk = [bytes([66] * 10_000) for _ in range(20)]
    drain(stream[1])
    assert prepared.try_send() == 10_000
    assert drain(stream[1]) == b"A" * 10_000
    assert len(junk) == 20


@pytest.mark.parametrize("count", [1, 9, 300], ids="{} buffers".format)
@pytest.mark.parametrize("fds", [0, 1, 65, 253], ids="{} descriptors".format)
@pytest.mark.parametrize("to", ["", "an address"])
def test_all_that_was_filled_is_moved(count: int, fds: int, to: str) -> None:
    kind = socket.SOCK_DGRAM if to else socket.SOCK_STREAM
    with new_pair(kind) as (left, right), open_files(1) as files:
        fill(left)
        address = None
        if to:
            right.bind("")
            address = right.getsockname()
            left.connect(address)
            fill(left)
        data = [bytes([i % 256]) for i in range(count)]
        with rest_of(left, data, fds=files * fds, address=address) as prepared:
            assert (prepared.sent, prepared.try_send()) == (0, None)
            drain(right)
            assert prepared.try_send() == count
        assert files_after(right, 0) == (b"".join(data), ["0"] * fds)


@pytest.mark.parametrize("has_timeout", [False, True])
def test_waiting_in_c_makes_one_call_and_no_duplicates(has_timeout: bool) -> None:
    with full_pair() as (left, right), open_files(1) as files:
        if has_timeout:
            left.settimeout(60)
        with cmsgx.PreparedSend(left, bytes(1_000_000), fds=files) as prepared:
            before = open_fds()
            with waiting(prepared, right):
                assert open_fds() == before
            # Without a timeout the kernel itself waits until it has taken all.
            assert prepared.sent > 0
            assert prepared.is_done == (not has_timeout)


def test_an_error_of_the_call_is_returned_and_another_is_raised() -> None:
    with full_pair() as (left, right), cmsgx.PreparedSend(left, b"x") as prepared:
        assert isinstance(prepared._send(0), BlockingIOError)
        assert isinstance(prepared._send(0.001), TimeoutError)
        with pytest.raises(ValueError, match="timeout: -1"):
            prepared._send(-1)
        with handling(interrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            with pytest.raises(Interrupt):
                prepared._send(None)
        assert (prepared.sent, prepared.is_done) == (0, False)
        drain(right)
        assert prepared._send(0) is None
        assert prepared.is_done
