"""recv_fds, send_fds, and close-on-exec."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from drop_ins import MSG_CMSG_CLOEXEC, SCM_RIGHTS, Overriding, received
from support import Pair, abstract_name, content, open_fds, open_files

import cmsgx

SO_PASSCRED, SO_PASSPIDFD = 16, 76


# Close-on-exec ----------------------------------------------------------------------------------

RECEIVE_ONE: dict[str, Callable[..., Any]] = {
    "recvmsg": lambda sock, flags=0: cmsgx.recvmsg(sock, 1, 24, flags),
    "recvmsg_into": lambda sock, flags=0: cmsgx.recvmsg_into(sock, [bytearray(1)], 24, flags),
    "recv_fds": lambda sock, flags=0: cmsgx.recv_fds(sock, 1, 1, flags),
    "recv_fds(flags=)": lambda sock, flags=0: cmsgx.recv_fds(sock, 1, 1, flags=flags),
    "method": lambda sock, flags=0: cmsgx.socket.recvmsg(sock, 1, 24, flags),
}


@pytest.mark.parametrize("name", RECEIVE_ONE)
@pytest.mark.parametrize("flags", [0, MSG_CMSG_CLOEXEC])
def test_close_on_exec_is_set_and_shown_only_if_requested(
    stream: Pair, name: str, flags: int
) -> None:
    cmsgx.send_fds(stream[0], [b"x"], [0])
    answer = RECEIVE_ONE[name](stream[1], flags)
    number = received(answer)
    assert fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert answer[2] & MSG_CMSG_CLOEXEC == flags
    os.close(number)


def test_recv_fds_without_close_on_exec(stream: Pair) -> None:
    cmsgx.send_fds(stream[0], [b"x"], [0])
    _, [number], flags, _ = cmsgx.recv_fds(stream[1], 1, 1, cloexec=False)
    assert os.get_inheritable(number)
    assert not flags & MSG_CMSG_CLOEXEC
    os.close(number)
    with pytest.raises(TypeError):
        cmsgx.recv_fds(stream[1], 1, 1, 0, False)  # type: ignore[call-arg]


# recv_fds, send_fds -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [0, 1, 2, 3, 4, 252, 253, 300])
@pytest.mark.parametrize("sent", [0, 1, 2, 3, 253])
@pytest.mark.parametrize("option", [None, SO_PASSCRED, SO_PASSPIDFD])
def test_recv_fds_never_gives_more_than_maxfds(
    stream: Pair, most: int, sent: int, option: int | None
) -> None:
    if option is not None:
        stream[1].setsockopt(socket.SOL_SOCKET, option, 1)
    with open_files(sent) as files:
        cmsgx.send_fds(stream[0], [b"x"], files)
    before = open_fds()
    data, numbers, flags, _ = cmsgx.recv_fds(stream[1], 1, most)
    assert data == b"x"
    assert [content(number) for number in numbers] == [str(i) for i in range(min(sent, most))]
    assert bool(flags & socket.MSG_CTRUNC) == (sent > most)
    for number in numbers:
        os.close(number)
    assert open_fds() == before


class Generous(socket.socket):
    """Asks for a larger control buffer than it was told to."""

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0) -> Any:
        return super().recvmsg(bufsize, 2000, flags)


@pytest.mark.parametrize("kind", [Overriding, Generous])
@pytest.mark.parametrize("most", [0, 1, 10])
@pytest.mark.parametrize("sent", [0, 3])
@pytest.mark.parametrize("option", [None, SO_PASSPIDFD])
def test_recv_fds_neither_over_a_type_with_its_own_recvmsg(
    stream: Pair, kind: type[socket.socket], most: int, sent: int, option: int | None
) -> None:
    if option is not None:
        stream[1].setsockopt(socket.SOL_SOCKET, option, 1)
    with kind(fileno=os.dup(stream[1].fileno())) as sock:
        with open_files(sent) as files:
            cmsgx.send_fds(stream[0], [b"x"], files)
        before = open_fds()
        _, numbers, _, _ = cmsgx.recv_fds(sock, 1, most)
        assert len(numbers) == min(sent, most)
        for number in numbers:
            os.close(number)
        assert open_fds() == before


def test_recv_fds_takes_names_and_flags(stream: Pair) -> None:
    stream[0].send(b"xy")
    peeked = cmsgx.recv_fds(sock=stream[1], bufsize=1, maxfds=0, flags=socket.MSG_PEEK)
    assert peeked[0] == b"x"
    assert stream[1].recv(10) == b"xy"
    with pytest.raises(BlockingIOError):
        cmsgx.recv_fds(stream[1], 1, 0, socket.MSG_DONTWAIT)


class Index:
    """Like a numpy number."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


def test_send_fds_takes_what_array_takes(stream: Pair) -> None:
    with open_files(2) as files:
        for send in (socket.send_fds, cmsgx.send_fds):
            send(stream[0], [b"x"], list(map(Index, files)))  # type: ignore[arg-type]
            numbers = cmsgx.recv_fds(stream[1], 1, 2)[1]
            assert [content(number) for number in numbers] == ["0", "1"]
            for number in numbers:
                os.close(number)
        for wrong, error in ((2**40, OverflowError), (-1, OSError)):
            with pytest.raises(error):
                cmsgx.send_fds(stream[0], [b"x"], [Index(wrong)])  # type: ignore[list-item]


@pytest.mark.parametrize("form", [bytes, bytearray, lambda data: memoryview(data).cast("i")])
@pytest.mark.parametrize("send", [socket.send_fds, cmsgx.send_fds])
def test_send_fds_takes_packed_numbers(
    stream: Pair, form: Callable[[bytes], Any], send: Callable[..., int]
) -> None:
    with open_files(2) as files:
        send(stream[0], [b"x"], form(array.array("i", files).tobytes()))
        numbers = cmsgx.recv_fds(stream[1], 1, 10)[1]
        assert [content(number) for number in numbers] == ["0", "1"]
        for number in numbers:
            os.close(number)


def test_send_fds_honours_flags_and_address() -> None:
    name = abstract_name("send-fds")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        open_files(1) as files,
    ):
        server.bind(name)
        assert cmsgx.send_fds(client, [b"x"], files, 0, name) == 1
        assert cmsgx.send_fds(client, [b"x"], fds=files, flags=0, address=name) == 1
        for _ in range(2):
            _, [number], _, _ = cmsgx.recv_fds(server, 1, 1)
            assert content(number) == "0"
            os.close(number)
        with pytest.raises(BlockingIOError):  # noqa: PT012
            for _ in range(1000):
                cmsgx.send_fds(client, [b"x"], [], socket.MSG_DONTWAIT, name)
        with pytest.raises(OSError, match="not connected") as caught:
            cmsgx.send_fds(client, [b"x"], files)
        assert caught.value.errno in (107, 89)


def test_send_fds_takes_what_has_a_number(stream: Pair) -> None:
    with (
        open_files(1) as files,
        cmsgx.Fd(os.dup(files[0])) as fd,
        open(os.dup(files[0]), "rb") as file,
    ):
        cmsgx.send_fds(stream[0], [b"x"], (one for one in (files[0], fd, file)))
        cmsgx.sendmsg(stream[0], [b"x"], [cmsgx.Rights([files[0], fd, file])])
        for _ in range(2):
            numbers = cmsgx.recv_fds(stream[1], 1, 10)[1]
            assert [content(number) for number in numbers] == ["0"] * 3
            for number in numbers:
                os.close(number)


def test_too_many_are_the_kernels_einval(stream: Pair) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: cmsgx.send_fds(stream[0], [b"x"], [0] * 254),
        lambda: cmsgx.sendmsg(stream[0], [b"x"], [cmsgx.Rights([0] * 254)]),
        lambda: cmsgx.sendmsg(stream[0], [b"x"], [(1, SCM_RIGHTS, array.array("i", [0] * 254))]),
    )
    for call in calls:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            call()
        assert caught.value.errno == 22


def test_ancdata_may_be_raw_typed_or_both(stream: Pair) -> None:
    stream[1].setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    with open_files(2) as files:
        raw = (socket.SOL_SOCKET, SCM_RIGHTS, array.array("i", files[:1]))
        both: list[Any] = [raw, cmsgx.Credentials(), cmsgx.Rights(files[1:])]
        cmsgx.sendmsg(stream[0], [b"x"], iter(both))
        with cmsgx.receive(stream[1], 1, fds=2) as msg:
            assert [content(fd) for fd in msg.fds] == ["0", "1"]
            assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        with Overriding(fileno=os.dup(stream[0].fileno())) as sock:
            cmsgx.sendmsg(sock, [b"x"], [raw, cmsgx.Credentials()])
            assert sock.calls == 1
        with cmsgx.receive(stream[1], 1, fds=2) as msg:
            assert [content(fd) for fd in msg.fds] == ["0"]


def test_typed_ancdata_of_any_iterable_over_a_type_with_its_own_sendmsg(
    stream: Pair,
) -> None:
    with Overriding(fileno=os.dup(stream[0].fileno())) as sock, open_files(1) as files:
        cmsgx.sendmsg(sock, [b"x"], (one for one in [cmsgx.Rights(files)]))
    with cmsgx.receive(stream[1], 1, fds=2) as msg:
        assert len(msg.fds) == 1


def test_they_never_raise_for_truncation(stream: Pair) -> None:
    with open_files(3) as files:
        cmsgx.send_fds(stream[0], [b"x"], files)
    _, ancdata, flags, _ = cmsgx.recvmsg(stream[1], 1)
    assert (ancdata, flags & socket.MSG_CTRUNC) == ([], socket.MSG_CTRUNC)
