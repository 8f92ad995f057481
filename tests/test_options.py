"""enable(): what is switched on, and back to what was before."""

from __future__ import annotations

import errno
import gc
import os
import socket
from contextlib import nullcontext
from typing import Any

import pytest
from support import Pair, open_files, unix_pair, unregistered

import cmsgx

PASSCRED, PASSSEC, PASSPIDFD = 16, 34, 76
OPTIONS = {cmsgx.Credentials: PASSCRED, cmsgx.SecurityLabel: PASSSEC, cmsgx.PidFd: PASSPIDFD}


def states(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(socket.SOL_SOCKET, option) for option in OPTIONS.values()]


@pytest.mark.parametrize(("kind", "option"), OPTIONS.items())
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("end", ["restore", "with", "with, raising"])
def test_sets_and_restores_what_was_before(
    pair: Pair, kind: Any, option: int, before: int, end: str
) -> None:
    sock = pair[1]
    sock.setsockopt(socket.SOL_SOCKET, option, before)
    handle = cmsgx.enable(sock, kind)
    assert sock.getsockopt(socket.SOL_SOCKET, option) == 1
    assert kind.__name__ in repr(handle)
    if end == "restore":
        handle.restore()
    elif end == "with":
        with handle as same:
            assert same is handle
            assert sock.getsockopt(socket.SOL_SOCKET, option) == 1
    else:
        with pytest.raises(ZeroDivisionError), handle:
            raise ZeroDivisionError
    assert sock.getsockopt(socket.SOL_SOCKET, option) == before
    sock.setsockopt(socket.SOL_SOCKET, option, 1 - before)
    handle.restore()
    assert sock.getsockopt(socket.SOL_SOCKET, option) == 1 - before


def test_restores_several_in_turn(stream: Pair) -> None:
    sock = stream[1]
    with cmsgx.enable(sock, *OPTIONS):
        assert states(sock) == [1, 1, 1]
        with cmsgx.enable(sock, cmsgx.PidFd, cmsgx.PidFd):
            pass
        assert states(sock) == [1, 1, 1]
    assert states(sock) == [0, 0, 0]


class Queued(cmsgx.kinds.StructMessage):
    """Its option brings nothing: it is one that a control message of its sender needs."""

    __slots__ = ()


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("is_permanent", [False, True])
def test_what_brings_nothing_is_restored_too(stream: Pair, is_permanent: bool, before: int) -> None:
    """As DCCP's queue policy; SO_TXTIME is the one that stays where nobody had set it before."""
    sock = stream[1]
    option = cmsgx.kinds.Option(
        socket.SOL_SOCKET, socket.SO_PRIORITY, "SO_PRIORITY", 0, value=5, is_permanent=is_permanent
    )
    with unregistered():  # which puts the table back
        cmsgx.kinds.register(
            Queued, level=socket.SOL_SOCKET, type=0x7AAA, layout=(), size=0, option=option
        )
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, before)
        with cmsgx.enable(sock, Queued):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == 5
        after = 5 if is_permanent and not before else before
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY) == after


def test_is_never_undone_by_being_collected(stream: Pair) -> None:
    cmsgx.enable(stream[1], cmsgx.Credentials)
    gc.collect()
    assert states(stream[1]) == [1, 0, 0]


@pytest.mark.parametrize("form", [lambda s: s, lambda s: s.fileno()], ids=["socket", "int"])
def test_of_each_form_of_socket(stream: Pair, form: Any) -> None:
    with cmsgx.enable(form(stream[1]), cmsgx.Credentials):
        assert states(stream[1]) == [1, 0, 0]
    assert states(stream[1]) == [0, 0, 0]


@pytest.mark.parametrize("form", ["socket", "Fd", "int"])
@pytest.mark.parametrize("raises", [False, True])
def test_a_socket_that_is_closed_meanwhile(form: str, raises: bool) -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender:
        number = receiver.detach()
        sock: Any = number
        if form != "int":
            sock = cmsgx.Fd(number) if form == "Fd" else cmsgx.socket(fileno=number)
        handle = cmsgx.enable(sock, cmsgx.Credentials)
        with pytest.raises(ZeroDivisionError) if raises else nullcontext(), handle:
            os.close(number) if form == "int" else sock.close()
            if raises:
                raise ZeroDivisionError
        handle.restore()


def test_what_cannot_be_restored_does_not_hide_what_was_raised(
    stream: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise PermissionError(1, "no more")

    handle = cmsgx.enable(stream[1], cmsgx.Credentials)
    monkeypatch.setattr(cmsgx._cmsg, "setsockopt", fail)
    with pytest.raises(ZeroDivisionError) as caught, handle:
        raise ZeroDivisionError
    assert "no more" in caught.value.__notes__[0]


def test_what_cannot_be_restored_is_raised(stream: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = cmsgx.enable(stream[1], cmsgx.Credentials)

    def fail(*_: Any) -> None:
        raise PermissionError(1, "no more")

    monkeypatch.setattr(cmsgx._cmsg, "setsockopt", fail)
    with pytest.raises(PermissionError, match="no more"), handle:
        pass


def test_of_an_fd(stream: Pair) -> None:
    with (
        cmsgx.Fd(os.dup(stream[1].fileno())) as fd,
        cmsgx.enable(fd, cmsgx.Credentials),
    ):
        assert states(stream[1]) == [1, 0, 0]


def test_rights_need_no_option(stream: Pair) -> None:
    with cmsgx.enable(stream[1], cmsgx.Rights):
        assert states(stream[1]) == [0, 0, 0]
    with cmsgx.enable(stream[1]):
        assert states(stream[1]) == [0, 0, 0]


@pytest.mark.parametrize("wrong", [int, cmsgx.Unknown, cmsgx.Fd, "Credentials", None, 16, []])
def test_what_is_no_kind_is_a_type_error(stream: Pair, wrong: Any) -> None:
    with pytest.raises(TypeError, match="not a kind"):
        cmsgx.enable(stream[1], cmsgx.Credentials, wrong)
    assert states(stream[1]) == [0, 0, 0]


def test_not_supported_says_what_was_tried(stream: Pair) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        with pytest.raises(cmsgx.NotSupportedError) as caught:
            cmsgx.enable(sock, cmsgx.PidFd)
        assert caught.value.errno in (92, 95)
        for part in ("PidFd", "SO_PASSPIDFD", "Linux 6.5"):
            assert part in str(caught.value)


class Missing(cmsgx.kinds.StructMessage):
    """A kind whose option no kernel has."""

    __slots__ = ()


cmsgx.kinds.register(
    Missing,
    level=socket.SOL_SOCKET,
    type=0x7ABC,
    layout=(),
    size=0,
    families=frozenset({socket.AF_UNIX}),
    option=cmsgx.kinds.Option(socket.SOL_SOCKET, 0x7ABC, "SO_MISSING", 4, since="9.9"),
)


@pytest.mark.parametrize("before", [0, 1])
def test_changes_nothing_where_one_is_not_supported(pair: Pair, before: int) -> None:
    sock = pair[1]
    sock.setsockopt(socket.SOL_SOCKET, PASSCRED, before)
    with pytest.raises(cmsgx.NotSupportedError, match=r"Missing.*SO_MISSING.*Linux 9\.9") as caught:
        cmsgx.enable(sock, cmsgx.Credentials, cmsgx.SecurityLabel, Missing, cmsgx.PidFd)
    assert caught.value.errno == 92
    assert states(sock) == [before, 0, 0]
    with pytest.raises(cmsgx.NotSupportedError):
        cmsgx.Receiver(sock, 1, want=[cmsgx.Credentials, Missing])
    assert states(sock) == [before, 0, 0]


def test_other_errors_stay_as_they_are() -> None:
    text = os.strerror(errno.ENOTSOCK)
    with open(os.devnull) as file, pytest.raises(OSError, match=text) as caught:
        cmsgx.enable(file, cmsgx.Credentials)
    assert not isinstance(caught.value, cmsgx.CmsgError)


# Room -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fds", [0, 1, 252])
@pytest.mark.parametrize("sent", [0, 1, 253])
def test_a_surplus_takes_no_room_from_the_pidfd(pair: Pair, fds: int, sent: int) -> None:
    """The kernel writes it behind the descriptors."""
    rx = cmsgx.Receiver(pair[1], 1, fds=fds, want=[cmsgx.PidFd, cmsgx.Credentials])
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
    with rx.receive() as msg:
        assert len(msg.fds) == min(fds, sent)
        assert msg[cmsgx.PidFd].pid == os.getpid()
        assert msg[cmsgx.Credentials].pid == os.getpid()
        assert msg.closed_fds == max(0, sent - fds)


@pytest.mark.parametrize("option", [29, 35, 16, 76, 34])
def test_each_option_has_its_room(option: int) -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, option, 1)
        rx = cmsgx.Receiver(receiver, 1, fds=253)
        with open_files(253) as files:
            cmsgx.send(sender, b"x", fds=files)
        with rx.receive() as msg:
            assert len(msg.fds) == 253
            assert not msg.truncated
