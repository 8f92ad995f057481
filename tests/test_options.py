"""enable(): what is switched on, and how it is restored."""

from __future__ import annotations

import errno
import gc
import os
import socket
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dis import opname
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from memory import each_allocation_fails, without_other_threads
from support import Pair, open_files, unix_pair, unregistered
from switches import (
    OPTIONS,
    PASSCRED,
    PASSPIDFD,
    PASSSEC,
    run_with_a_fake_option,
    states,
)

import cmsgx
from cmsgx import _cmsg, _plan, kinds


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
    """Its option brings nothing: it is needed by a control message that the socket sends."""

    __slots__ = ()


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("is_permanent", [False, True])
def test_what_brings_nothing_is_restored_too(stream: Pair, is_permanent: bool, before: int) -> None:
    """As for DCCP's queue policy; SO_TXTIME stays on if nobody had set it before."""
    sock = stream[1]
    option = cmsgx.kinds.Option(
        socket.SOL_SOCKET, socket.SO_PRIORITY, "SO_PRIORITY", 0, value=5, is_permanent=is_permanent
    )
    with unregistered():  # which restores the table
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


def failing(patch: pytest.MonkeyPatch, *options: int) -> None:
    """The kernel has no memory for these."""
    setsockopt = _cmsg.setsockopt

    def fail(sock: Any, level: int, name: int, value: bytes) -> None:
        if name in options:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        setsockopt(sock, level, name, value)

    patch.setattr(_cmsg, "setsockopt", fail)


@pytest.mark.parametrize("end", ["restore", "with", "with, raising"])
@pytest.mark.parametrize("name", ["SO_PASSCRED", "SO_PASSSEC", "SO_PASSPIDFD"])
def test_one_that_cannot_be_restored_stops_no_other_and_is_tried_again(
    stream: Pair, monkeypatch: pytest.MonkeyPatch, name: str, end: str
) -> None:
    option = getattr(_cmsg, name)
    handle = cmsgx.enable(stream[1], *OPTIONS)
    with monkeypatch.context() as patch:
        failing(patch, option)
        with pytest.raises(ZeroDivisionError if end == "with, raising" else OSError) as caught:  # noqa: PT012
            if end == "restore":
                handle.restore()
            else:
                with handle:
                    1 / (end == "with")
        for _ in range(2):
            assert states(stream[1]) == [int(one == option) for one in OPTIONS.values()]
            with pytest.raises(OSError, match="Cannot allocate memory"):
                handle.restore()
    [note] = caught.value.__notes__
    assert f"{name} could not be restored" in note
    handle.restore()
    assert states(stream[1]) == [0, 0, 0]
    stream[1].setsockopt(socket.SOL_SOCKET, option, 1)
    handle.restore()
    assert stream[1].getsockopt(socket.SOL_SOCKET, option) == 1


def test_several_that_cannot_be_restored_are_all_named(
    stream: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = cmsgx.enable(stream[1], *OPTIONS)
    with monkeypatch.context() as patch:
        failing(patch, PASSCRED, PASSPIDFD)
        with pytest.raises(OSError, match="Cannot allocate memory") as caught:
            handle.restore()
    assert caught.value.errno == errno.ENOMEM
    assert caught.value.__notes__ == [
        "SO_PASSPIDFD could not be restored",
        "SO_PASSCRED could not be restored: [Errno 12] Cannot allocate memory",
    ]
    assert states(stream[1]) == [1, 0, 1]
    handle.restore()
    assert states(stream[1]) == [0, 0, 0]


def test_what_a_later_restore_switches_off_is_set_again(
    stream: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SO_TIMESTAMP and SO_TIMESTAMPNS exclude each other, and switching one off switches off
    both."""
    sock = stream[1]
    sock.setsockopt(socket.SOL_SOCKET, 29, 1)
    before = [sock.getsockopt(socket.SOL_SOCKET, option) for option in (29, 35)]
    handle = cmsgx.enable(sock, kinds.Timestamp)
    with monkeypatch.context() as patch:
        failing(patch, 35)
        with pytest.raises(OSError, match="Cannot allocate memory"):
            handle.restore()
    handle.restore()
    assert [sock.getsockopt(socket.SOL_SOCKET, option) for option in (29, 35)] == before


@pytest.mark.parametrize("number", [37, 65], ids=["SO_TIMESTAMPING_OLD", "SO_TIMESTAMPING_NEW"])
def test_flags_are_set_again_if_others_have_set_them(stream: Pair, number: int) -> None:
    """Both options share a word; what arrives depends on which was set last, so enable() sets its
    own, and brings back the other."""
    sock = stream[1]
    asked = kinds.Timestamping.option(kinds.TimestampingFlags.RX_SOFTWARE)
    on = kinds.TimestampingFlags.RX_SOFTWARE | kinds.TimestampingFlags.SOFTWARE
    sock.setsockopt(socket.SOL_SOCKET, number, on)
    is_new = [sock.getsockopt(socket.SOL_SOCKET, 65)]
    with cmsgx.enable(sock, asked):
        assert sock.getsockopt(socket.SOL_SOCKET, 65) == 0
        assert sock.getsockopt(socket.SOL_SOCKET, 37) == on
    assert [sock.getsockopt(socket.SOL_SOCKET, 65)] == is_new
    assert sock.getsockopt(socket.SOL_SOCKET, 37) == on


def test_enable_that_fails_names_what_could_not_be_set_back(
    stream: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch_off: list[bytes] = []
    setsockopt = _cmsg.setsockopt

    def fail(sock: Any, level: int, name: int, value: bytes) -> None:
        if name == PASSCRED and not any(value):
            switch_off.append(value)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        setsockopt(sock, level, name, value)

    monkeypatch.setattr(_cmsg, "setsockopt", fail)
    for call in (
        lambda: cmsgx.enable(stream[1], cmsgx.Credentials, cmsgx.SecurityLabel, Missing),
        lambda: cmsgx.Receiver(stream[1], 1, want=[cmsgx.Credentials, Missing]),
    ):
        stream[1].setsockopt(socket.SOL_SOCKET, PASSCRED, 0)
        with pytest.raises(cmsgx.NotSupportedError, match="Missing") as caught:
            call()
        assert caught.value.__notes__ == [
            "and SO_PASSCRED could not be restored; [Errno 12] Cannot allocate memory"
        ]
        assert states(stream[1]) == [1, 0, 0]
    assert len(switch_off) == 2


class Interrupt(BaseException):
    """An exception that a signal handler raises."""


class TimeIsUp(TimeoutError):
    """And this one, which is an OSError, as errors from the kernel are."""


def follows_a_look_for_signals(frame: FrameType) -> bool:
    """CPython checks for signals at the start of a function, in each round of a loop, and after a
    call."""
    code, at = frame.f_code.co_code, frame.f_lasti - 2
    while at > 0 and opname[code[at]] == "CACHE":
        at -= 2
    return at < 0 or opname[code[at]].startswith(("RESUME", "CALL", "JUMP_BACKWARD"))


def receiver_of(sock: cmsgx.socket) -> cmsgx.Receiver:
    return cmsgx.Receiver(sock, 1, fds=1, want=OPTIONS)


def batch_receiver_of(sock: cmsgx.socket) -> cmsgx.BatchReceiver:
    return cmsgx.BatchReceiver(sock, 2, 1, fds=1, want=OPTIONS)


def enabled_for(sock: cmsgx.socket) -> Any:
    return cmsgx.enable(sock, *OPTIONS)


each_way_to_enable = pytest.mark.parametrize(
    "make",
    [enabled_for, receiver_of, batch_receiver_of],
    ids=["enable", "Receiver", "BatchReceiver"],
)


@each_way_to_enable
@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("raised", [Interrupt, TimeIsUp])
def test_interrupted_at_each_instruction_no_option_stays_changed(
    stream: Pair,
    make: Callable[[cmsgx.socket], Any],
    before: int,
    raised: type[Interrupt | TimeIsUp],
) -> None:
    """By a signal handler that raises."""
    sock = stream[1]
    package = str(Path(cmsgx.__file__).parent)
    untraced = {"switched_on", "_is_on", "rows", "row_of"}  # of the whole table, for each kind
    sock.setsockopt(socket.SOL_SOCKET, PASSCRED, before)
    at = 0
    while True:
        seen = 0

        def trace(frame: FrameType, event: str, argument: object, at: int = at) -> Any:
            nonlocal seen
            code = frame.f_code
            if not code.co_filename.startswith(package) or code.co_name in untraced:
                return None
            frame.f_trace_opcodes = True
            if event == "opcode" and follows_a_look_for_signals(frame):
                if seen == at:
                    sys.settrace(None)
                    raise raised
                seen += 1
            return trace

        made = None
        sys.settrace(trace)
        try:
            made = make(sock)
        except raised:
            pass
        finally:
            sys.settrace(None)
        if made is not None and seen < at:
            break
        if made is None:
            assert states(sock) == [before, 0, 0], f"interrupted at instruction {at}"
        for option in OPTIONS.values():
            sock.setsockopt(socket.SOL_SOCKET, option, before if option == PASSCRED else 0)
        at += 1
    assert at > 10


@each_way_to_enable
@without_other_threads
def test_a_failed_allocation_leaves_no_option_changed(
    stream: Pair, make: Callable[[cmsgx.socket], Any]
) -> None:
    for made in each_allocation_fails(lambda: make(stream[1])):
        assert states(stream[1]) == ([1, 1, 1] if made is not None else [0, 0, 0])
        for option in OPTIONS.values():
            stream[1].setsockopt(socket.SOL_SOCKET, option, 0)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("fds", [-1, 254, 2**70])
@pytest.mark.parametrize("name", ["Receiver", "BatchReceiver"])
def test_a_receiver_that_is_not_made_leaves_no_option_changed(
    pair: Pair, name: str, fds: int, before: int
) -> None:
    sock = pair[1]
    sock.setsockopt(socket.SOL_SOCKET, PASSCRED, before)
    make: Any = cmsgx.Receiver if name == "Receiver" else partial(cmsgx.BatchReceiver, count=2)
    with pytest.raises((ValueError, OverflowError)):  # TooManyFdsError is a ValueError
        make(sock, bufsize=10, fds=fds, want=OPTIONS)
    assert states(sock) == [before, 0, 0]


class Split(kinds.StructMessage):
    """A kind with two options, of which no kernel has the second."""

    __slots__ = ()


# The kernel knows no such option, or not this flag of it.
LACKING: list[tuple[int, int, str]] = [(0x7ABC, 1, "SO_MISSING"), (37, 1 << 31, "SO_TIMESTAMPING")]


@pytest.mark.parametrize(("number", "value", "name"), LACKING, ids=["ENOPROTOOPT", "EINVAL"])
def test_a_second_option_that_is_not_there_is_named(
    stream: Pair, number: int, value: int, name: str
) -> None:
    options = [
        kinds.Option(socket.SOL_SOCKET, PASSCRED, "SO_PASSCRED", 12),
        kinds.Option(socket.SOL_SOCKET, number, name, 4, value=value),
        kinds.Option(socket.SOL_SOCKET, PASSSEC, "SO_PASSSEC", 0),
    ]
    with unregistered():  # which restores the table
        kinds.register(
            Split, level=socket.SOL_SOCKET, type=0x7AAB, layout=(), size=0, option=options
        )
        with cmsgx.enable(stream[1], Split) as handle:
            assert states(stream[1]) == [1, 1, 0]
            assert handle.left_out == (name,)
            assert repr(handle) == f"<Enabled Split without {name}>"
        assert states(stream[1]) == [0, 0, 0]
        for _ in range(2):
            with cmsgx.Receiver(stream[1], 1, want=Split):
                assert states(stream[1]) == [1, 1, 0]
            assert states(stream[1]) == [0, 0, 0]
    assert cmsgx.enable(stream[1]).left_out == ()


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
def test_what_is_not_a_kind_is_a_type_error(stream: Pair, wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"not a kind|a kind of control message is needed"):
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


FIRST_OPTION = """
import errno, os, socket, sys
import cmsgx, switches

sock = cmsgx.socketpair()[1]
error = int(sys.argv[1])
switches.fake_option(socket.SOL_SOCKET, switches.PASSCRED, set_error=error)
for call in (
    lambda: cmsgx.enable(sock, cmsgx.SecurityLabel, cmsgx.Credentials),
    lambda: cmsgx.Receiver(sock, 1, want=[cmsgx.SecurityLabel, cmsgx.Credentials]),
):
    try:
        call()
    except cmsgx.NotSupportedError as caught:
        assert "SO_PASSCRED" in str(caught), caught
        is_told = error in (errno.EOPNOTSUPP, errno.ENOPROTOOPT)
        assert caught.errno == (error if is_told else errno.EOPNOTSUPP), caught
        assert caught.__cause__.errno == error
    else:
        raise AssertionError
    assert switches.states(sock) == [0, 0, 0]
"""


@pytest.mark.parametrize("error", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT, 524])
def test_what_a_first_option_says_is_not_supported(error: int) -> None:
    """EINVAL means a wrong flag or type of socket, and is not an errno of a NotSupportedError;
    ENOTSUPP is what older kernels return for SO_ZEROCOPY."""
    run_with_a_fake_option(FIRST_OPTION, str(error))


# Room -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fds", [0, 1, 4, 253])
def test_space_for_descriptors_is_only_for_families_that_bring_them(fds: int) -> None:
    assert _plan.control_size_for(socket.AF_INET, fds, {}) == 0
    exact = socket.CMSG_LEN(4 * fds) if fds else 0
    assert _plan.control_size_for(socket.AF_UNIX, fds, {}) == exact


@pytest.mark.parametrize("fds", [0, 1, 252])
@pytest.mark.parametrize("sent", [0, 1, 253])
def test_a_surplus_takes_no_space_from_the_pidfd(pair: Pair, fds: int, sent: int) -> None:
    """The kernel writes it after the descriptors."""
    rx = cmsgx.Receiver(pair[1], 1, fds=fds, want=[cmsgx.PidFd, cmsgx.Credentials])
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
    with rx.receive() as msg:
        assert len(msg.fds) == min(fds, sent)
        assert msg[cmsgx.PidFd].pid == os.getpid()
        assert msg[cmsgx.Credentials].pid == os.getpid()
        assert msg.closed_fds == max(0, sent - fds)


@pytest.mark.parametrize("option", [29, 35, 16, 76, 34])
def test_each_option_has_its_space(option: int) -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.setsockopt(socket.SOL_SOCKET, option, 1)
        rx = cmsgx.Receiver(receiver, 1, fds=253)
        with open_files(253) as files:
            cmsgx.send(sender, b"x", fds=files)
        with rx.receive() as msg:
            assert len(msg.fds) == 253
            assert not msg.truncated
