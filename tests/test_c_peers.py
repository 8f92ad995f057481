"""cmsgx exchanges messages with a program in plain C, which uses libc's macros, in both directions:
c/peer.c."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from native import build
from support import Pair, content, open_files

import cmsgx

COUNTS = (0, 1, 2, 3, 252, 253)
DATA = [b"one ", b"two ", b"three"]
PLACES = ("none", "first", "last")

each_count = pytest.mark.parametrize("count", COUNTS)
each_place = pytest.mark.parametrize("place", PLACES)


def start(sock: socket.socket, *arguments: object) -> subprocess.Popen[str]:
    """The C program at the other end."""
    words = [arguments[0], sock.fileno(), *arguments[1:]]
    return subprocess.Popen(
        [str(build("peer", "-O1", "-g", "peer.c")), *map(str, words)],
        pass_fds=[sock.fileno()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(peer: subprocess.Popen[str]) -> str:
    output, errors = peer.communicate(timeout=30)
    assert peer.returncode == 0, errors
    return output.strip()


@contextmanager
def marked_files(count: int) -> Iterator[list[int]]:
    with open_files(count) as files:
        for index, file in enumerate(files):
            os.pwrite(file, f"py-{index}".encode(), 0)
        yield files


# From C -----------------------------------------------------------------------------------------

Received = tuple[bytes, list[str], "tuple[int | None, int, int] | None"]


def by_receiver(sock: cmsgx.socket, count: int, wants: bool) -> Received:
    want = [cmsgx.Credentials] if wants else []
    with cmsgx.Receiver(sock, 100, fds=count, want=want).receive() as msg:
        who = msg.get(cmsgx.Credentials)
        assert not msg.truncated
        return (
            msg.data,
            [content(fd) for fd in msg.fds],
            None if who is None else (who.pid, who.uid, who.gid),
        )


def by_receive(sock: cmsgx.socket, count: int, wants: bool) -> Received:
    with cmsgx.receive(sock, 100, fds=count) as msg:
        who = msg[cmsgx.Credentials] if wants else None
        return (
            msg.data,
            [content(fd) for fd in msg.fds],
            None if who is None else (who.pid, who.uid, who.gid),
        )


def by_recvmsg(sock: cmsgx.socket, count: int, wants: bool) -> Received:
    room = cmsgx.CMSG_SPACE(12) + cmsgx.CMSG_SPACE(4 * count)
    data, ancdata, flags, _ = cmsgx.recvmsg(sock, 100, room)
    assert not flags & socket.MSG_CTRUNC
    return read_ancdata(data, ancdata)


def by_recvmsg_into(sock: cmsgx.socket, count: int, wants: bool) -> Received:
    room = cmsgx.CMSG_SPACE(12) + cmsgx.CMSG_SPACE(4 * count)
    buffers = [bytearray(5), bytearray(100)]
    size, ancdata, flags, _ = cmsgx.recvmsg_into(sock, buffers, room)
    assert not flags & socket.MSG_CTRUNC
    return read_ancdata(b"".join(buffers)[:size], ancdata)


def by_recv_fds(sock: cmsgx.socket, count: int, wants: bool) -> Received:
    data, numbers, flags, _ = cmsgx.recv_fds(sock, 100, count)
    assert not flags & socket.MSG_CTRUNC
    return data, contents_of(numbers), None


def read_ancdata(data: bytes, ancdata: list[tuple[int, int, bytes]]) -> Received:
    files: list[str] = []
    who = None
    for level, kind, payload in ancdata:
        decoded = cmsgx.decode(level, kind, payload)
        if isinstance(decoded, cmsgx.Credentials):
            who = (decoded.pid, decoded.uid, decoded.gid)
        else:
            assert isinstance(decoded, cmsgx.Rights)
            for fd in decoded.own():
                with fd:
                    files.append(content(fd))
    return data, files, who


def contents_of(numbers: list[int]) -> list[str]:
    files = [content(number) for number in numbers]
    for number in numbers:
        os.close(number)
    return files


Reader = Callable[[cmsgx.socket, int, bool], Received]


@each_count
@each_place
@pytest.mark.parametrize(
    "reader", [by_receiver, by_receive, by_recvmsg, by_recvmsg_into, by_recv_fds],
    ids=lambda reader: reader.__name__,
)  # fmt: skip
def test_from_c(pair: Pair, count: int, place: str, reader: Reader) -> None:
    here, there = pair
    wants = place != "none"
    if wants:
        cmsgx.enable(here, cmsgx.Credentials)
    peer = start(there, "send", count, place)
    here.settimeout(30)
    data, files, who = reader(here, count, wants)
    finish(peer)
    assert data == b"one two three"
    assert files == [f"c-{index}" for index in range(count)]
    if reader is not by_recv_fds:
        assert who == ((peer.pid, os.getuid(), os.getgid()) if wants else None)


# To C -------------------------------------------------------------------------------------------

Sender = Callable[[cmsgx.socket, list[int], list[cmsgx.Credentials], bool], object]


def by_send(
    sock: cmsgx.socket, fds: list[int], who: list[cmsgx.Credentials], first: bool
) -> object:
    return cmsgx.send(sock, DATA, fds=fds, control=who)


def by_send_control(
    sock: cmsgx.socket, fds: list[int], who: list[cmsgx.Credentials], first: bool
) -> object:
    rights = [cmsgx.Rights(fds)] if fds else []
    return cmsgx.send(sock, DATA, control=[*who, *rights] if first else [*rights, *who])


def by_send_all(
    sock: cmsgx.socket, fds: list[int], who: list[cmsgx.Credentials], first: bool
) -> object:
    cmsgx.send_all(sock, DATA, fds=fds, control=who)
    return 13


def by_sendmsg(
    sock: cmsgx.socket, fds: list[int], who: list[cmsgx.Credentials], first: bool
) -> object:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, cmsgx.Rights(fds).pack())] if fds else []
    return cmsgx.sendmsg(sock, DATA, [*who, *rights] if first else [*rights, *who])


def by_send_fds(
    sock: cmsgx.socket, fds: list[int], who: list[cmsgx.Credentials], first: bool
) -> object:
    return cmsgx.send_fds(sock, DATA, fds)


@each_count
@each_place
@pytest.mark.parametrize(
    "sender", [by_send, by_send_control, by_send_all, by_sendmsg, by_send_fds],
    ids=lambda sender: sender.__name__,
)  # fmt: skip
def test_to_c(pair: Pair, count: int, place: str, sender: Sender) -> None:
    here, there = pair
    who = [] if place == "none" or sender is by_send_fds else [cmsgx.Credentials()]
    with marked_files(count) as files:
        # Credentials that are not given explicitly are attached if the receiver asked for them
        # before.
        if place != "none":
            cmsgx.enable(there, cmsgx.Credentials)
        assert sender(here, files, who, place == "first") == 13
    printed = finish(start(there, "receive", count, place))
    expected = f"{os.getpid()} {os.getuid()} {os.getgid()}" if place != "none" else "none"
    assert printed == expected


# There and back ---------------------------------------------------------------------------------


@each_count
def test_echoed_by_c(pair: Pair, count: int) -> None:
    here, there = pair
    peer = start(there, "echo")
    here.settimeout(30)
    with open_files(count) as files:
        cmsgx.send(here, b"there and back", fds=files)
        # A datagram socket does not report that its peer has ended, so wait for that first.
        finish(peer)
        with cmsgx.receive(here, 100, fds=253) as msg:
            assert msg.data == b"there and back"
            assert [content(fd) for fd in msg.fds] == [str(index) for index in range(count)]
            assert all(not os.get_inheritable(fd.fileno()) for fd in msg.fds)
