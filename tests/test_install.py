"""cmsgx.socket, and install(), which replaces socket's functions with the drop-ins."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from drop_ins import MSG_CMSG_CLOEXEC, received
from support import (
    Pair,
    abstract_name,
    content,
    installed,
    is_open,
    open_fds,
    open_files,
    run_python,
)

import cmsgx

# cmsgx.socket -----------------------------------------------------------------------------------


def test_the_class_has_them_as_methods(stream: Pair) -> None:
    first, second = stream
    assert issubclass(cmsgx.socket, socket.socket)
    with open_files(1) as files:
        assert first.sendmsg([b"x"], [cmsgx.Rights(files)]) == 1
        number = received(second.recvmsg(1, 100))
        assert not os.get_inheritable(number)
        os.close(number)
        assert first.send_fds([b"x"], files) == 1
        _, [number], _, _ = second.recv_fds(1, 1)
        assert content(number) == "0"
        os.close(number)
    first.sendmsg([b"y"])
    assert second.recvmsg_into([bytearray(1)])[0] == 1


@pytest.mark.parametrize("default", [None, 5.0])
@pytest.mark.parametrize("own", [None, 0.5, 0.0])
def test_accept_gives_one_too_as_sockets_does(own: float | None, default: float | None) -> None:
    class Derived(cmsgx.socket):
        pass

    class Named(cmsgx.socket):
        def __init__(self, family: int) -> None:
            super().__init__(family)

    answers = []
    name = abstract_name("accept")
    for kind in (socket.socket, cmsgx.socket, Derived, Named):
        with kind(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
            listener.bind(name)
            listener.listen()
            client.connect(name)
            listener.settimeout(own)
            socket.setdefaulttimeout(default)
            try:
                accepted, address = listener.accept()
            finally:
                socket.setdefaulttimeout(None)
            with accepted:
                assert type(accepted) is (socket.socket if kind is socket.socket else cmsgx.socket)
                assert not os.get_inheritable(accepted.fileno())
                answers.append(
                    (
                        address,
                        accepted.family,
                        accepted.type,
                        accepted.gettimeout(),
                        os.get_blocking(accepted.fileno()),
                    )
                )
    assert all(answer == answers[0] for answer in answers)


def test_socketpair_and_fromfd_and_dup() -> None:
    for arguments in ((), (socket.AF_UNIX,), (socket.AF_UNIX, socket.SOCK_DGRAM)):
        first, second = cmsgx.socketpair(*arguments)
        with first, second, cmsgx.fromfd(first.fileno(), first.family, first.type) as third:
            assert {type(sock) for sock in (first, second, third)} == {cmsgx.socket}
            assert third.fileno() != first.fileno()
            third.send(b"x")
            assert second.recv(1) == b"x"
            assert (first.family, first.type) == (second.family, second.type)
            with first.dup() as fourth:
                assert type(fourth) is cmsgx.socket
    with pytest.raises(OSError):  # noqa: PT011
        cmsgx.fromfd(1_000_000, socket.AF_UNIX, socket.SOCK_STREAM)
    with pytest.raises(OSError):  # noqa: PT011
        cmsgx.socketpair(socket.AF_INET)


# install() --------------------------------------------------------------------------------------

PATCHED = ("sendmsg", "recvmsg", "recvmsg_into")

FUNCTIONS = ("send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE")


def patched() -> tuple[list[Any], list[Any]]:
    return (
        [vars(socket.socket).get(name) for name in PATCHED],
        [getattr(socket, name) for name in FUNCTIONS],
    )


def test_install_and_uninstall() -> None:
    before = patched()
    cmsgx.uninstall()
    assert patched() == before
    with installed():
        now = patched()
        assert all(a is not b for a, b in zip(before[0] + before[1], now[0] + now[1], strict=True))
        cmsgx.install()
        assert patched() == now
        for function in (socket.send_fds, socket.recv_fds):
            assert function.__qualname__ == function.__name__
        first, second = socket.socketpair()
        with first, second, open_files(1) as files:
            socket.send_fds(first, [b"x"], files)
            _, [number], flags, _ = socket.recv_fds(second, 1, 1)
            assert content(number) == "0"
            assert not os.get_inheritable(number)
            assert not flags & MSG_CMSG_CLOEXEC
            os.close(number)
            first.sendmsg([b"x"], [(1, 1, array.array("i", files))])
            number = received(second.recvmsg(1, 24))
            assert not os.get_inheritable(number)
            os.close(number)
            assert [method.calls for method in now[0]] == [1, 1, 0]
    assert patched() == before
    cmsgx.uninstall()
    assert patched() == before


def test_install_that_keeps_what_is_inheritable() -> None:
    with installed(cloexec=False):
        kept = patched()
        cmsgx.install(cloexec=False)
        assert patched() == kept
        first, second = socket.socketpair()
        with first, second, open_files(1) as files:
            ways: tuple[Callable[[], int], ...] = (
                lambda: received(second.recvmsg(1, 24)),
                lambda: received(second.recvmsg_into([bytearray(1)], 24)),
                lambda: received(socket.recv_fds(second, 1, 1)),
            )
            for receive in ways:
                socket.send_fds(first, [b"x"], files)
                number = receive()
                assert os.get_inheritable(number)
                os.close(number)
            cmsgx.install()
            socket.send_fds(first, [b"x"], files)
            number = received(second.recvmsg(1, 24))
            assert not os.get_inheritable(number)
            os.close(number)


def test_under_install_the_flags_and_address_are_ignored_as_in_socket() -> None:
    first, second = socket.socketpair()
    with first, second, installed(), open_files(1) as files:
        assert socket.send_fds(first, [b"x"], files, socket.MSG_OOB, b"\0nobody") == 1
        _, [number], _, _ = socket.recv_fds(second, 1, 1, socket.MSG_PEEK)
        assert content(number) == "0"
        os.close(number)
        with pytest.raises(BlockingIOError):
            second.recv(1, socket.MSG_DONTWAIT)


@pytest.mark.parametrize("name", PATCHED)
@pytest.mark.parametrize("when", ["before", "after"])
def test_install_refuses_if_another_patch_is_in_place(
    monkeypatch: pytest.MonkeyPatch, name: str, when: str
) -> None:
    clean = patched()

    def other(self: socket.socket, *args: Any) -> None:
        """Somebody else's."""

    if when == "before":
        with monkeypatch.context() as patch:
            patch.setattr(socket.socket, name, other)
            standing = patched()
            with pytest.raises(RuntimeError, match=rf"socket\.{name} was patched"):
                cmsgx.install()
            assert patched() == standing
    else:
        with installed(), monkeypatch.context() as patch:
            patch.setattr(socket.socket, name, other)
            standing = patched()
            for call in (cmsgx.install, cmsgx.uninstall):
                with pytest.raises(RuntimeError, match=rf"socket\.{name} was patched"):
                    call()
                assert patched() == standing
    if when == "before":  # monkeypatch leaves an attribute behind that did not exist before
        for attribute in PATCHED:
            if attribute in vars(socket.socket):
                delattr(socket.socket, attribute)
    assert patched() == clean


@pytest.mark.parametrize("name", FUNCTIONS)
def test_install_refuses_where_a_function_was_patched(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    clean = patched()
    with monkeypatch.context() as patch:
        patch.setattr(socket, name, lambda *args: None)
        with pytest.raises(RuntimeError, match=rf"socket\.{name} was patched"):
            cmsgx.install()
    assert patched() == clean


def test_install_reaches_programs_that_cannot_be_edited() -> None:
    code = """
import cmsgx
cmsgx.install()
import multiprocessing, os, socket
from multiprocessing import reduction
a, b = socket.socketpair()
b.send(b"A")  # the acknowledgement, in advance: from 3.14 on sendfds() waits for it
reduction.sendfds(a, [0])
[fd] = reduction.recvfds(b, 1)
print(os.get_inheritable(fd))
"""
    assert (
        run_python("import warnings; warnings.simplefilter('ignore')\n" + code).strip() == "False"
    )


def test_a_raw_socket_of_the_c_module_is_not_reached_but_served() -> None:
    import _socket

    first, second = socket.socketpair()
    with first, closing(_socket.socket(fileno=second.detach())) as raw, installed():
        first.send(b"x")
        assert cmsgx.recvmsg(raw, 1)[0] == b"x"
        first.send(b"y")
        assert cmsgx.receive(raw, 1).data == b"y"


def test_method_descriptors_bind() -> None:
    assert cmsgx.socket.recvmsg is vars(cmsgx.socket)["recvmsg"]
    first, second = cmsgx.socketpair()
    with first, second:
        bound = second.recvmsg
        assert bound.__self__ is second  # type: ignore[attr-defined]
        first.send(b"x")
        assert bound(1)[0] == b"x"
        assert cmsgx.socket.recvmsg.__name__ == "recvmsg"
        assert "recvmsg" in repr(cmsgx.socket.recvmsg)


def test_nothing_stays_open_after_a_failed_result(stream: Pair) -> None:
    with open_files(2) as files:
        cmsgx.send_fds(stream[0], [b"x"], files)
    before = open_fds()
    with pytest.raises((OverflowError, ValueError)):
        cmsgx.recv_fds(stream[1], 1, -1)
    with pytest.raises(ValueError, match="negative"):
        cmsgx.recv_fds(stream[1], -1, 1)
    assert open_fds() == before
    assert not is_open(1_000_000)
    assert stream[1].recv(1) == b"x"
