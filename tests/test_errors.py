"""The error tree: what comes from the kernel is an OSError with its errno."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support import HEADER, Pair, open_fds, open_files, run_python

import cmsgx
from cmsgx import _truncation, errors

TREE = {
    cmsgx.CmsgError: (Exception,),
    cmsgx.ControlTruncatedError: (cmsgx.CmsgError, OSError),
    cmsgx.FdLimitError: (cmsgx.ControlTruncatedError,),
    cmsgx.DataTruncatedError: (cmsgx.CmsgError, OSError),
    cmsgx.TooManyFdsError: (cmsgx.CmsgError, ValueError),
    cmsgx.MalformedControlError: (cmsgx.CmsgError, ValueError),
    cmsgx.NotSupportedError: (cmsgx.CmsgError, OSError),
    cmsgx.ClosedError: (cmsgx.CmsgError, OSError),
    cmsgx.BrokenError: (cmsgx.CmsgError, OSError),
    cmsgx.LimitError: (cmsgx.BrokenError,),
}


@pytest.mark.parametrize(("error", "bases"), TREE.items())
def test_the_tree(error: type[Exception], bases: tuple[type, ...]) -> None:
    assert set(bases) < set(error.__mro__)
    assert error.__doc__
    assert getattr(errors, error.__name__) is getattr(cmsgx, error.__name__) is error
    assert sorted(errors.__all__) == sorted(one.__name__ for one in TREE)
    if error is not cmsgx.FdLimitError:
        assert not issubclass(cmsgx.ControlTruncatedError, error) or error in (
            cmsgx.ControlTruncatedError,
            cmsgx.CmsgError,
        )


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (cmsgx.NotSupportedError(errno.EOPNOTSUPP, "why"), errno.EOPNOTSUPP),
        (cmsgx.ClosedError("why"), errno.EBADF),
        (cmsgx.BrokenError("why", b"par"), errno.EPROTO),
        (cmsgx.LimitError("why", b"par"), errno.EPROTO),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_and_its_copies_say_what_the_errno_is_and_why(error: OSError, number: int) -> None:
    for one in error, copy.copy(error), pickle.loads(pickle.dumps(error)):
        assert type(one) is type(error)
        assert one.errno == number
        assert str(one) == f"[Errno {number}] {os.strerror(number)}: why"
        assert getattr(one, "partial", None) == getattr(error, "partial", None)
    assert cmsgx.BrokenError("why").partial == b""


def test_a_truncated_datagram_keeps_what_fitted() -> None:
    pair = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pair[0], pair[1], open_files(2) as files:
        rx = cmsgx.Receiver(pair[1], 3, fds=2, want=[cmsgx.Credentials])
        cmsgx.send(pair[0], b"12345", fds=files)
        before = open_fds()
        with pytest.raises(cmsgx.DataTruncatedError, match="3 bytes of it arrived") as caught:
            rx.receive()
        assert open_fds() == before
        assert caught.value.errno == errno.EMSGSIZE
        assert caught.value.strerror is not None
        assert caught.value.strerror.startswith(os.strerror(errno.EMSGSIZE))
        msg = caught.value.message
        assert msg.data == b"123"
        assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        assert msg.closed
        assert msg.truncated
        with pytest.raises(ValueError, match="closed"):
            msg.take(0)


# The number of descriptors that fit into the space that credentials take with their padding: 4, or
# 3 if there is no padding.
COUNT = (socket.CMSG_SPACE(12) - HEADER) // 4


def room_was_taken(pair: Pair, **arguments: Any) -> cmsgx.Receiver:
    """A Receiver whose space for descriptors is taken completely by another option."""
    rx = cmsgx.Receiver(pair[1], 10, fds=COUNT, **arguments)
    assert socket.CMSG_LEN(4 * COUNT) == socket.CMSG_SPACE(12)
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    return rx


def test_missing_descriptors_raise(pair: Pair) -> None:
    rx = room_was_taken(pair)
    with open_files(COUNT) as files:
        cmsgx.send(pair[0], b"data", fds=files)
        before = open_fds()
        with pytest.raises(
            cmsgx.ControlTruncatedError,
            match=f": no descriptors arrived, with space for {COUNT}: other control data",
        ) as caught:
            rx.receive()
        assert open_fds() == before
    assert type(caught.value) is cmsgx.ControlTruncatedError
    assert caught.value.errno == errno.EMSGSIZE
    assert caught.value.message.data == b"data"
    assert caught.value.message.closed
    assert caught.value.message.truncated
    assert caught.value.message.closed_fds is None
    assert caught.value.message[cmsgx.Credentials] == cmsgx.Credentials()
    assert cmsgx.Credentials() in caught.value.message.control


@pytest.mark.parametrize("delivered", [0, 1, 2, 9])
def test_what_did_not_fit_was_not_withheld(pair: Pair, delivered: int) -> None:
    """Also if the last one that fitted fills the buffer to its end."""
    room = (socket.CMSG_SPACE(12) + 4 * delivered) // 4
    rx = cmsgx.Receiver(pair[1], 10, fds=room)
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with open_files(delivered + 5) as files:
        cmsgx.send(pair[0], b"data", fds=files)
        with pytest.raises(
            cmsgx.ControlTruncatedError,
            match=f": {delivered or 'no'} descriptors? arrived, with space for {room}: ",
        ) as caught:
            rx.receive()
    assert type(caught.value) is cmsgx.ControlTruncatedError
    assert "took part of the control buffer" in str(caught.value)


def test_keep_gives_the_message_instead(pair: Pair) -> None:
    rx = room_was_taken(pair, on_truncation="keep")
    with open_files(COUNT) as files:
        cmsgx.send(pair[0], b"data", fds=files)
    with rx.receive() as msg:
        assert msg.truncated
        assert msg.data == b"data"
        assert len(msg.fds) == 0


def test_the_limit_is_named() -> None:
    code = """
import cmsgx, os, resource, support
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, fds=4)
cmsgx.send(a, b"data", fds=[0] * 4)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
limit = max(support.open_fds()) + 3
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
used = [os.dup(0) for _ in range(limit - len(os.listdir("/proc/self/fd")) - 1)]
try:
    rx.receive()
except cmsgx.FdLimitError as error:
    print(error.errno, f"RLIMIT_NOFILE at {limit}" in str(error), error.message.data)
a.close(); b.close()
"""
    assert run_python(code).split() == [str(errno.EMFILE), "True", "b'data'"]


def test_a_full_table_is_reported_without_an_import() -> None:
    code = """
import cmsgx, os, sys
assert "resource" not in sys.modules
a, b = cmsgx.socketpair()
cmsgx.send(a, b"data", fds=[0])
used = []
try:
    while True:
        used.append(os.dup(0))
except OSError:
    pass
try:
    cmsgx.receive(b, 100, fds=1)
except cmsgx.FdLimitError as error:
    caught = error
for fd in used:
    os.close(fd)
print(caught, caught.message.data)
a.close(); b.close()
"""
    told = run_python(code)
    assert "table is full, with " in told
    assert told.endswith("b'data'\n")


@pytest.mark.parametrize("withheld", [0, 1])
@pytest.mark.parametrize("full", [0, 1])
@pytest.mark.parametrize("misses", [0, 1])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_which_error_says_what_is_missing(
    stream: Pair, count: int, misses: int, full: int, withheld: int
) -> None:
    """Truncated data, a full table, withheld descriptors, and space that other control data
    took."""
    cmsgx.send(stream[0], b"data")
    message = cmsgx.receive(stream[1], 4)
    with pytest.raises(cmsgx.CmsgError) as caught:
        _truncation.raise_truncated(message, 3, count, misses, full, withheld)
    error: Any = caught.value
    assert error.message is message
    if not misses:
        assert type(error) is cmsgx.DataTruncatedError
        assert "4 bytes of it arrived" in str(error)
    elif full or withheld:
        assert type(error) is cmsgx.FdLimitError
        assert error.errno == errno.EMFILE
        # It does not mention a limit that was not seen.
        limit = os.sysconf("SC_OPEN_MAX")
        told = f"is full, with {limit} open and RLIMIT_NOFILE at {limit}"
        assert (told in str(error)) == bool(full)
        assert ("a limit or a security module withheld" in str(error)) == (not full)
    else:
        assert type(error) is cmsgx.ControlTruncatedError
        assert error.errno == errno.EMSGSIZE
        assert "took part of the control buffer" in str(error)
    if misses:
        counted = ["no descriptors", "1 descriptor", "2 descriptors"][count]
        assert f": {counted} arrived, with space for 3" in str(error)


def test_what_is_said_about_a_truncated_datagram_is_what_is_here() -> None:
    pair = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pair[0], pair[1]:
        cmsgx.send(pair[0], b"12345")
        with pytest.raises(cmsgx.DataTruncatedError, match="1 byte of it arrived"):
            cmsgx.receive(pair[1], 1, flags=socket.MSG_TRUNC)


@pytest.mark.parametrize("fds", [1, 2, 4])
def test_the_end_of_a_stream_misses_nothing(stream: Pair, fds: int) -> None:
    """Although there was no space for credentials, which were switched on meanwhile: nobody sent
    them."""
    rx = cmsgx.Receiver(stream[1], 10, fds=fds)
    stream[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    stream[0].close()
    msg = rx.receive()
    assert (msg.eof, msg.truncated, msg.closed_fds) == (True, False, 0)
    assert list(rx) == []


def test_truncation_of_the_descriptor_free_part_raises_for_nobody(pair: Pair) -> None:
    """fds=0 never raises for descriptors."""
    ways: tuple[Callable[[], cmsgx.Message], ...] = (
        cmsgx.Receiver(pair[1], 10).receive,
        lambda: cmsgx.receive(pair[1], 10),
    )
    for receive in ways:
        with open_files(3) as files:
            cmsgx.send(pair[0], b"x", fds=files)
        with receive() as msg:
            assert msg.truncated
            assert len(msg.fds) == 0


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (lambda: cmsgx.NotSupportedError(errno.ENOPROTOOPT, "what"), errno.ENOPROTOOPT),
        (lambda: cmsgx.NotSupportedError(errno.EOPNOTSUPP, "what"), errno.EOPNOTSUPP),
    ],
)
def test_not_supported_has_its_errno(make: Any, number: int) -> None:
    error = make()
    assert error.errno == number
    assert str(error) == f"[Errno {number}] {os.strerror(number)}: what"


def test_names_say_where_they_are_documented() -> None:
    for error in TREE:
        assert error.__module__ in ("cmsgx", "cmsgx.errors")
