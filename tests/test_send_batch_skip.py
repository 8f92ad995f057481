"""send_batch(on_error="skip"): it skips a message that the kernel refuses, and says which it was,
and why."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from batches import (
    KEEP_BOUNDARIES,
    LARGE,
    Interrupt,
    Whole,
    drain,
    handling,
    interrupt,
    new_pair,
    udp_pair,
)
from namespaces import Namespace
from native import Shim, under_shim
from support import Pair, content, open_fds, open_files, run_python, unix_pair
from test_send_batch_stopped import CAUSES, overfull

import cmsgx

NOWHERE = ("127.0.0.1", 1)

# What each errno concerns, if each message has an address of its own.
OF_MESSAGE = {
    "EMSGSIZE", "EINVAL", "EPERM", "EACCES", "EAFNOSUPPORT", "EADDRNOTAVAIL", "EISCONN",
    "EDESTADDRREQ", "ENOTCONN", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH",
    "EHOSTDOWN", "ENETDOWN", "ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPROTO", "EPROTOTYPE",
    "ENOENT", "ENOTDIR", "ELOOP", "ENAMETOOLONG", "ENODEV", "ENXIO", "EIO",
}  # fmt: skip
# Those that ICMP may have left for an earlier packet.
PENDING = {
    "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "EHOSTUNREACH", "EHOSTDOWN", "ENETDOWN", "ENONET",
    "ENOPROTOOPT", "EOPNOTSUPP", "EPROTO", "EACCES", "EMSGSIZE",
}  # fmt: skip
# And if there is one peer for all.
OF_MESSAGE_TO_A_PEER = {
    "EMSGSIZE", "EINVAL", "EPERM", "EACCES", "EAFNOSUPPORT", "EADDRNOTAVAIL", "EISCONN",
}  # fmt: skip
OF_ALL = {
    "EBADF", "ENOTSOCK", "EPIPE", "ESHUTDOWN", "ENOBUFS", "ENOMEM", "ETOOMANYREFS", "EFAULT",
    "ENOSYS", "EMFILE", "ENFILE", "ETIMEDOUT", "ECONNABORTED", "EKEYREJECTED",
}  # fmt: skip


def numbers(names: set[str]) -> set[int]:
    return {getattr(errno, name) for name in names}


def skip(sock: Any, messages: Any, **more: Any) -> cmsgx.BatchResult:
    result = cmsgx.send_batch(sock, messages, on_error="skip", **more)
    assert type(result) is cmsgx.BatchResult
    assert result.done == result + len(result.skipped)
    return result


def reasons(result: cmsgx.BatchResult) -> list[tuple[int, int | None]]:
    return [(index, error.errno) for index, error in result.skipped]


# What the kernel refuses --------------------------------------------------------------------------

REFUSED = {
    "too large": errno.EMSGSIZE,
    "no such address": errno.ENOENT,
    "what the kernel refuses": errno.EINVAL,
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [(k, n) for k in KEEP_BOUNDARIES for n in REFUSED if k == socket.SOCK_DGRAM or "such" not in n],
)
def test_it_skips_what_the_kernel_refuses(kind: int, name: str) -> None:
    """Wherever that is, all others are sent, each once, with its own descriptors."""
    with new_pair(kind) as (left, right), open_files(6) as files:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        before = open_fds()
        for index in range(6):
            owners = [cmsgx.Fd(os.dup(number)) for number in files]
            messages: list[Any] = [(str(i).encode(), [owners[i]]) for i in range(6)]
            messages[index] = CAUSES[name].message()
            result = skip(left, messages)
            assert (result, result.done) == (5, 6)
            [(at, error)] = result.skipped
            assert (at, error.errno) == (index, REFUSED[name])
            assert isinstance(error, CAUSES[name].error)
            others = [i for i in range(6) if i != index]
            assert drain(right) == [Whole(str(i).encode(), [str(i)]) for i in others]
            for i, owner in enumerate(owners):
                assert content(owner) == str(i)
                owner.close()
        assert open_fds() == before


@pytest.mark.parametrize("index", [0, 255, 256, 511, 512, 599])
def test_also_where_the_call_is_cut(index: int) -> None:
    with new_pair() as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        messages: list[Any] = [str(i).encode() for i in range(600)]
        messages[index] = bytes(10_000_000)
        result = skip(left, messages)
        assert (result, reasons(result)) == (599, [(index, errno.EMSGSIZE)])
        del messages[index]
        assert [one.data for one in drain(right, 0, 10)] == messages


def test_many_are_refused_in_a_row() -> None:
    with new_pair() as (left, right):
        long = bytes(10_000_000)
        messages = [long, long, b"1", long, b"2", long, long]
        result = skip(left, messages)
        assert (result, result.done) == (2, 7)
        assert reasons(result) == [(i, errno.EMSGSIZE) for i in (0, 1, 3, 5, 6)]
        assert [one.data for one in drain(right, 0, 10)] == [b"1", b"2"]
        # All of them: it is not an error that none was sent, because each one is reported.
        result = skip(left, [long] * 3)
        assert (result, result.done) == (0, 3)
        assert skip(left, []) == 0


def test_places_that_cannot_be_reached() -> None:
    """Over UDP, in a namespace that has a route only to itself."""
    with (
        closing(Namespace()) as space,
        space.socket(socket.AF_INET, socket.SOCK_DGRAM) as reader,
        space.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
    ):
        reader.bind(("127.0.0.1", 0))
        good = reader.getsockname()
        result = skip(sock, [
            (b"1", (), (), good), (b"x", (), (), ("192.0.2.1", 9)), b"no address",
            (bytes(65508), (), (), good), (b"2", (), (), good), (b"x", (), (), ("192.0.2.2", 9)),
        ])  # fmt: skip
        assert result == 2
        assert reasons(result) == [
            (1, errno.ENETUNREACH), (2, errno.EDESTADDRREQ), (3, errno.EMSGSIZE),
            (5, errno.ENETUNREACH),
        ]  # fmt: skip
        assert [reader.recv(10) for _ in range(2)] == [b"1", b"2"]


def test_an_error_of_a_packet_before_skips_nothing() -> None:
    """ICMP: the error is pending, the next call reports it, and it concerns none of these
    messages."""
    with udp_pair() as (sock, reader):
        good = reader.getsockname()
        for connected in (True, False):
            sock.connect(NOWHERE if connected else good)
            if connected:
                sock.send(b"lost")
                with pytest.raises(ConnectionRefusedError):
                    cmsgx.send_batch(sock, [b"x"])
                sock.send(b"lost again")
            result = skip(sock, [(str(i).encode(), (), (), good) for i in range(3)])
            assert (result, result.skipped) == (3, ())
            assert [reader.recv(10) for _ in range(3)] == [b"0", b"1", b"2"]


def test_a_connection_that_is_not_there_is_not_about_one_message() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    right.close()
    alone = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, alone:
        for sock, error in ((left, BrokenPipeError), (alone, OSError)):
            with pytest.raises(error) as caught:
                skip(sock, [b"1", b"2"])
            assert caught.value.errno == (errno.EPIPE if sock is left else errno.ENOTCONN)
            assert (caught.value.sent, caught.value.skipped) == (0, ())  # type: ignore[attr-defined]


# With falsified system calls ----------------------------------------------------------------------


def in_child(function: str, *arguments: object) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_send_batch_skip as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=60, env=under_shim())


def each_errno(kind: int, family: int) -> None:
    """At each index: what is skipped, what is tried again, and what ends the call."""
    shim = Shim()
    is_datagram = kind == socket.SOCK_DGRAM
    of_message = numbers(OF_MESSAGE if is_datagram else OF_MESSAGE_TO_A_PEER)
    pending = numbers(PENDING) if is_datagram and family == socket.AF_INET else set()
    if is_datagram and family == socket.AF_UNIX:
        pending = {errno.ECONNRESET}
    count = 4
    messages = [str(i).encode() for i in range(count)]
    with udp_pair() if family == socket.AF_INET else new_pair(kind) as (left, right):
        if family == socket.AF_INET:
            left.connect(right.getsockname())
        # EAGAIN makes the call wait, and EINTR makes it try again.
        for number in sorted((*numbers(OF_MESSAGE | OF_ALL), 4242)):
            for index in range(count):
                for times in (1, 2):
                    shim.fail_sends(index, number, times)
                    others = [i for i in range(count) if i != index]
                    skips = {1: number in of_message - pending, 2: number in of_message}[times]
                    if number in of_message and times == 2 and number not in pending:
                        # The second time it is the next message that fails.
                        others = others[: max(index, 0)] + others[index + 1 :]
                    if number in of_message and (skips or times == 1):
                        result = skip(left, messages)
                        if not skips:
                            others = list(range(count))
                        gone = [i for i in range(count) if i not in others]
                        assert reasons(result) == [(i, number) for i in gone], number
                    elif index:
                        result = skip(left, messages)
                        assert (result, result.done, result.skipped) == (index, index, ()), number
                        others = list(range(index))
                    else:
                        with pytest.raises(OSError, match="Errno") as caught:
                            skip(left, messages)
                        assert caught.value.errno == number
                        error: Any = caught.value
                        assert (error.sent, error.sent_bytes, error.skipped) == (0, 0, ())
                        others = []
                    shim.fail_sends(0, 0, 0)
                    found = [one.data for one in drain(right, 0, 10)]
                    assert found == [messages[i] for i in others], (number, index, times)
    print("done")


@pytest.mark.parametrize(
    ("kind", "family"),
    [
        (socket.SOCK_DGRAM, socket.AF_INET),
        (socket.SOCK_DGRAM, socket.AF_UNIX),
        (socket.SOCK_SEQPACKET, socket.AF_UNIX),
    ],
)
@pytest.mark.slow
def test_each_errno_at_each_index(kind: int, family: int) -> None:
    assert in_child("each_errno", int(kind), int(family)).strip() == "done"


def after_a_part() -> None:
    """An error in the middle of a message ends the call: the rest of it cannot be left out."""
    shim = Shim()
    left, right = unix_pair()
    with left, right:
        left.settimeout(60)
        data = bytes(10_000_000)
        shim.fail_send(1, errno.EPERM)
        with pytest.raises(PermissionError) as caught:
            skip(left, [data, b"behind"])
        error: Any = caught.value
        assert (error.sent, error.skipped) == (0, ())
        assert 0 < error.sent_bytes < len(data)
    print("done")


@pytest.mark.slow
def test_a_message_that_was_sent_in_part_is_not_skipped() -> None:
    assert in_child("after_a_part").strip() == "done"


# What is not skipped ------------------------------------------------------------------------------

NOT_SKIPPED = [name for name in CAUSES if name not in REFUSED]


@pytest.mark.parametrize("name", NOT_SKIPPED)
def test_what_cannot_be_made_is_raised(name: str) -> None:
    """As without on_error: when it is the first, and everything before it was sent or skipped."""
    cause = CAUSES[name]
    with new_pair(socket.SOCK_DGRAM) as (left, right):
        messages: list[Any] = [b"1", bytes(10_000_000), b"2", cause.message(), b"3"]
        result = skip(left, messages)
        assert (result, result.done) == (2, 3)
        assert reasons(result) == [(1, errno.EMSGSIZE)]
        # If all before it were skipped, it still does not count as the first.
        messages[:2] = []
        messages[0] = bytes(10_000_000)
        messages[1] = cause.message()
        result = skip(left, messages)
        assert (result, result.done) == (0, 1)
        with pytest.raises(cause.error, match=cause.text) as caught:
            skip(left, [cause.message(), b"3"])
        error: Any = caught.value
        assert (error.sent, error.sent_bytes, error.skipped) == (0, 0, ())
        assert [one.data for one in drain(right, 0, 10)] == [b"1", b"2"]


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_full_buffer_ends_the_call(timeout: float) -> None:
    """Messages that were skipped before are reported, and the rest is sent another time."""
    pair, messages = overfull()
    left, right = pair
    long = bytes(10_000_000)
    batch = [long, messages[0], long, messages[1], messages[2], long]
    result = skip(left, batch, timeout=timeout)
    # The kernel decides whether a second one fits.
    assert 0 < result < 3
    assert result.done < 6
    assert reasons(result)[0] == (0, errno.EMSGSIZE)
    # None of these is sent: the first of the rest waits.
    error_type = TimeoutError if timeout else BlockingIOError
    with pytest.raises(error_type) as caught:
        skip(left, [messages[3]], timeout=timeout)
    assert (caught.value.sent, caught.value.skipped) == (0, ())  # type: ignore[attr-defined]
    # And after one that was skipped it is not an error.
    waits = skip(left, [long, messages[3]], timeout=timeout)
    assert (waits, waits.done) == (0, 1)
    got = [one.data for one in drain(right, 0, 8192)]
    rest = skip(left, batch[result.done :], timeout=timeout)
    while result.done + rest.done < 6:
        got += [one.data for one in drain(right, 0, 8192)]
        more = skip(left, batch[result.done + rest.done :], timeout=timeout)
        rest = cmsgx.BatchResult(rest + more, (*rest.skipped, *more.skipped))
    got += [one.data for one in drain(right, 0, 8192)]
    assert got == messages[:3]
    left.close()
    right.close()


def test_a_signal_is_handled_between_messages_that_are_skipped() -> None:
    """And what was sent until then is reported."""
    long = bytes(10_000_000)
    with new_pair() as (left, right), handling(interrupt):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)

        def messages() -> Iterator[Any]:
            yield b"1"
            yield long
            yield b"2", FileThatRings()
            yield long

        class FileThatRings:
            def __iter__(self) -> Iterator[int]:
                os.kill(os.getpid(), signal.SIGALRM)
                return iter(())

        with pytest.raises(Interrupt) as caught:
            skip(left, messages())
        error: Any = caught.value
        assert error.sent + len(error.skipped) <= 2
        assert len(drain(right, 0, 10)) == error.sent


@pytest.mark.parametrize("form", [list, iter], ids=["list", "iterator"])
def test_iterators_of_what_was_skipped_are_reported(form: Callable[[Any], Any]) -> None:
    with new_pair() as (left, right), open_files(1) as files:
        messages = [(b"1", iter(files)), (bytes(10_000_000), iter(files)), (b"2", files)]
        result = skip(left, form(messages))
        [(index, error)] = result.skipped
        assert (result, index) == (2, 1)
        notes = getattr(error, "__notes__", [])
        if form is list:
            assert [note[: len("messages[1] had an iterator")] for note in notes] == [
                "messages[1] had an iterator"
            ]
        assert drain(right) == [Whole(b"1", ["0"]), Whole(b"2", ["0"])]


def test_a_batch_on_a_stream_is_not_changed_by_it(stream: Pair) -> None:
    left, right = stream
    assert skip(left, [b"one", b"two"]) == 2
    assert right.recv(10) == b"onetwo"


# The result ---------------------------------------------------------------------------------------


def test_without_it_the_result_is_a_plain_int(packets: Pair) -> None:
    assert type(cmsgx.send_batch(packets[0], [b"1"])) is int
    assert type(cmsgx.send_batch(packets[0], [b"1"], on_error="raise")) is int


def test_the_result_is_how_many_were_sent() -> None:
    error = PermissionError(errno.EPERM, "no")
    result = cmsgx.BatchResult(3, [(1, error)])
    assert result == 3
    assert (result.skipped, result.done) == (((1, error),), 4)
    assert dict(result.skipped) == {1: error}
    assert repr(result) == f"BatchResult(3, skipped=((1, {error!r}),))"
    assert f"{result:d}" == "3"
    assert hash(result) == hash(3)
    for again in (copy.copy(result), pickle.loads(pickle.dumps(result))):
        assert type(again) is cmsgx.BatchResult
        assert (again, again.done, again.skipped[0][0]) == (3, 4, 1)
    assert cmsgx.BatchResult(0).skipped == ()
    changed: Any = result
    with pytest.raises(AttributeError):
        changed.skipped = ()
    with pytest.raises(ValueError, match="sent: -1; it cannot be negative"):
        cmsgx.BatchResult(-1)


@pytest.mark.parametrize("word", ["ignore", "", 1, None, True, b"skip"])
def test_on_error_is_one_of_two_words(packets: Pair, word: Any) -> None:
    with pytest.raises(ValueError, match=r"on_error: .*; must be 'raise' or 'skip'"):
        cmsgx.send_batch(packets[0], [b"1"], on_error=word)
    with suppress(BlockingIOError):
        raise AssertionError(packets[1].recv(10, socket.MSG_DONTWAIT))


def test_two_threads_that_skip() -> None:
    """Each has its own result, on one socket."""
    long = bytes(10_000_000)
    results: list[cmsgx.BatchResult] = []
    with new_pair() as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        threads = [
            threading.Thread(target=lambda: results.append(skip(left, [b"1", long] * 20)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [int(result) for result in results] == [20, 20]
        for result in results:
            assert [index for index, _ in result.skipped] == list(range(1, 40, 2))
        assert len(drain(right, 0, 10)) == 40
