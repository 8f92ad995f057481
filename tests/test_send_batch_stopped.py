"""send_batch: exactly which messages were sent if one fails or the kernel stops."""

from __future__ import annotations

import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from batches import (
    KEEP_BOUNDARIES,
    LARGE,
    Interrupt,
    Whole,
    drain,
    handling,
    new_pair,
    of_handlers,
    raising,
    seen,
    udp_pair,
)
from native import Shim, under_shim
from pairs import fill
from support import (
    Pair,
    close_pair,
    content,
    open_fds,
    open_files,
    run_python,
    unix_pair,
    until_it_waits,
)

import cmsgx
from cmsgx import _cmsg, kinds


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process; returns what it printed."""
    code = f"import test_send_batch_stopped as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=60, env=env)


# What fails in the middle -----------------------------------------------------------------------


def a_closed_fd() -> cmsgx.Fd:
    fd = cmsgx.Fd(os.dup(0))
    fd.close()
    return fd


class Cause(NamedTuple):
    """A message that cannot be sent, and the exception for it."""

    message: Callable[[], Any]
    error: type[BaseException]
    text: str


def not_open() -> int:
    number = os.dup(0)
    os.close(number)
    return number + 500


CAUSES = {
    "a number that is not open": Cause(
        lambda: (b"bad", [0, not_open()]), OSError, r"fds\[1\]: descriptor \d+ is not open"
    ),
    "a closed Fd": Cause(lambda: (b"bad", [0, a_closed_fd()]), OSError, r"fds\[1\]"),
    "too large": Cause(lambda: bytes(10_000_000), OSError, os.strerror(errno.EMSGSIZE)),
    "no such address": Cause(
        lambda: (b"bad", (), (), "/nonexistent/socket"), FileNotFoundError, "No such file"
    ),
    "what the kernel refuses": Cause(
        lambda: (b"bad", (), [(socket.SOL_SOCKET, _cmsg.SCM_CREDENTIALS, b"1")]),
        OSError,
        "Invalid argument",
    ),
    "no data": Cause(
        lambda: 5,
        TypeError,
        "data: a bytes-like object, or an iterable of them, is needed, not int",
    ),
    "text": Cause(lambda: "text", TypeError, "bytes-like"),
    "an empty tuple": Cause(lambda: (), ValueError, "not a tuple of 0"),
    "a tuple of 5": Cause(lambda: (b"",) * 5, ValueError, "not a tuple of 5"),
    "too many descriptors": Cause(
        lambda: (b"bad", [0] * 254), cmsgx.TooManyFdsError, "254 descriptors"
    ),
    "a bool": Cause(lambda: (b"bad", [True]), TypeError, r"fds\[0\]"),
    "a negative number": Cause(lambda: (b"bad", [-1]), ValueError, r"fds\[0\]"),
    "no descriptors": Cause(
        lambda: (b"bad", 5), TypeError, "fds: 5; a descriptor that is a number is given in a list"
    ),
    "no control message": Cause(
        lambda: (b"bad", (), [5]), TypeError, "control: a control message or"
    ),
    "what is only delivered": Cause(
        lambda: (b"bad", (), kinds.UdpGro(5)), ValueError, "the kernel does not accept"
    ),
    "no address": Cause(lambda: (b"bad", (), (), 5), TypeError, "address: an AF_UNIX path"),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    # A SOCK_SEQPACKET has no use for an address: the kernel ignores it.
    [(k, n) for k in KEEP_BOUNDARIES for n in CAUSES if k == socket.SOCK_DGRAM or "such" not in n],
)
def test_it_stops_at_the_first_that_fails(kind: int, name: str) -> None:
    """Wherever that is: those before it were sent, each with its own descriptors; it and those
    after it were not."""
    cause = CAUSES[name]
    with new_pair(kind) as (left, right), open_files(6) as files:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        before = open_fds()
        for index in range(6):
            owners = [cmsgx.Fd(os.dup(number)) for number in files]
            messages: list[Any] = [(str(i).encode(), [owners[i]]) for i in range(6)]
            messages[index] = cause.message()
            if index:
                assert cmsgx.send_batch(left, messages) == index
            # The next call, which gets the rest, reports it.
            messages[index] = cause.message()
            with pytest.raises(cause.error, match=cause.text) as caught:
                cmsgx.send_batch(left, messages[index:])
            error: Any = caught.value
            assert (error.sent, error.sent_bytes) == (0, 0)
            assert drain(right) == [Whole(str(i).encode(), [str(i)]) for i in range(index)]
            for i, owner in enumerate(owners):
                assert content(owner) == str(i)
                owner.close()
            del caught, error
        assert open_fds() == before


@pytest.mark.parametrize("name", ["too large", "a negative number", "a number that is not open"])
@pytest.mark.parametrize("index", [254, 255, 256, 257, 511, 512, 513, 599])
def test_also_where_the_call_is_cut(packets: Pair, name: str, index: int) -> None:
    left, right = packets
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
    messages: list[Any] = [str(i).encode() for i in range(600)]
    messages[index] = CAUSES[name].message()
    assert cmsgx.send_batch(left, messages) == index
    assert [one.data for one in drain(right, 0, 10)] == messages[:index]


def test_which_message_is_wrong_is_noted(packets: Pair) -> None:
    with pytest.raises(ValueError, match="-1 is not a file descriptor") as caught:
        cmsgx.send_batch(packets[0], [(b"x", [-1])])
    assert caught.value.__notes__ == ["in messages[0]"]


@pytest.mark.parametrize("behind", [1, 300])
def test_an_iterator_is_read_once(packets: Pair, behind: int) -> None:
    """A message that failed halfway is not read again, because its iterators are used up."""
    left, right = packets
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
    with open_files(2) as files:
        bad = (b"2", iter([files[0], -1, files[1]]))
        with pytest.raises(ValueError, match="-1 is not a file descriptor") as caught:
            cmsgx.send_batch(left, [b"1", bad, *[b"3"] * behind])
        assert caught.value.sent == 1  # type: ignore[attr-defined]
        assert drain(right) == [Whole(b"1", [])]


def fill_with_bytes(sock: cmsgx.socket) -> None:
    """So that each received message makes space for one more."""
    with suppress(BlockingIOError):
        while True:
            sock.send(b"x", socket.MSG_DONTWAIT)


def reads_once() -> dict[str, tuple[Any, str | None]]:
    """Messages none of which is sent, and how the note begins."""
    return {
        "fds": ([(b"1", iter([0])), b"2"], "messages[0] had an iterator"),
        "control": ([b"1", (b"2", (), iter(()))], "messages[1] had an iterator"),
        "data": ([b"1", (iter([b"2"]),), map(bytes, ())], "messages[1] and others had an iterator"),
        "messages": (iter([b"1", b"2"]), "messages was an iterator"),
        "none": ([b"1", (b"2", [0])], None),
    }


@pytest.mark.parametrize("name", reads_once())
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_iterators_that_were_read_and_not_sent_are_reported(name: str, timeout: float) -> None:
    """Repeating the same messages would send them without their contents."""
    messages, start = reads_once()[name]
    with new_pair(socket.SOCK_DGRAM) as (left, _right):
        fill(left)
        with pytest.raises(BlockingIOError if timeout == 0 else TimeoutError) as caught:
            cmsgx.send_batch(left, messages, timeout=timeout)
        error: Any = caught.value
        assert (error.sent, error.sent_bytes) == (0, 0)
        notes = getattr(error, "__notes__", [])
        assert [note[: len(start or "")] for note in notes] == ([start] if start else [])


@pytest.mark.parametrize("name", reads_once())
def test_a_count_of_what_was_sent_loses_no_iterator(name: str) -> None:
    """If another call could not send the rest unchanged, the error has the count."""
    messages, start = reads_once()[name]
    with new_pair(socket.SOCK_DGRAM) as (left, right):
        fill_with_bytes(left)
        right.recv(1)
        if name in ("fds", "none"):
            # The iterator of the message that was sent is not missed.
            assert cmsgx.send_batch(left, messages, timeout=0) == 1
            return
        with pytest.raises(BlockingIOError) as caught:
            cmsgx.send_batch(left, messages, timeout=0)
        error: Any = caught.value
        assert (error.sent, error.sent_bytes) == (1, 0)
        [note] = error.__notes__
        assert note.startswith(start)


class Raises:
    """Where a descriptor is converted."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def fileno(self) -> int:
        raise self.error


@pytest.mark.parametrize("index", [0, 1, 5, 255, 256, 257, 511, 512])
@pytest.mark.parametrize("error", of_handlers(), ids=repr)
@pytest.mark.parametrize("by", ["fileno", "fds", "control", "data"])
def test_what_other_code_raises_is_raised(index: int, error: Any, by: str) -> None:
    """Once all before it were sent: no later call could report it."""
    with new_pair() as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)

        def raises() -> Iterator[Any]:
            raise error
            yield

        bad: dict[str, Any] = {
            "fileno": (b"bad", [Raises(error)]),
            "fds": (b"bad", raises()),
            "control": (b"bad", (), raises()),
            "data": (raises(),),
        }
        messages: list[Any] = [str(i).encode() for i in range(520)]
        messages[index] = bad[by]
        with pytest.raises(type(error)) as caught:
            cmsgx.send_batch(left, messages)
        assert caught.value is error
        assert (error.sent, error.sent_bytes) == (index, 0)
        assert error.__notes__[-1] == f"in messages[{index}]"
        assert [one.data for one in drain(right, 0, 10)] == messages[:index]


def test_what_other_code_raises_is_raised_though_those_before_fail(packets: Pair) -> None:
    raised = TimeoutError("of a handler")
    with pytest.raises(TimeoutError) as caught:
        cmsgx.send_batch(packets[0], [b"1", bytes(10_000_000), b"2", (b"3", [Raises(raised)])])
    assert caught.value is raised
    error: Any = caught.value
    assert (error.sent, error.sent_bytes) == (1, 0)
    assert drain(packets[1]) == [Whole(b"1", [])]


def test_a_keyboard_interrupt_is_not_taken_for_a_bad_message(packets: Pair) -> None:
    class Meddler:
        def fileno(self) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        cmsgx.send_batch(packets[0], [b"1", b"2", (b"3", [Meddler()])])
    assert caught.value.sent == 0  # type: ignore[attr-defined]
    assert drain(packets[1]) == []


def test_descriptors_over_another_family_are_refused() -> None:
    with udp_pair() as (one, two):
        address = two.getsockname()
        with pytest.raises(cmsgx.NotSupportedError, match="AF_UNIX"):
            cmsgx.send_batch(one, [(b"x", [0], (), address)])
        assert cmsgx.send_batch(one, [(b"1", (), (), address), (b"x", [0], (), address)]) == 1
        assert drain(two, 0) == [Whole(b"1", [])]
        with pytest.raises(ValueError, match="host name to resolve"):
            cmsgx.send_batch(one.fileno(), [(b"x", (), (), ("localhost", 9))])


def test_descriptors_without_a_byte_are_refused_on_a_stream(stream: Pair) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        cmsgx.send_batch(stream[0], [(b"", [0])])
    assert cmsgx.send_batch(stream[0], [b"1", (b"", [0])]) == 1


def test_errors_of_the_path() -> None:
    """Over UDP: an unreachable network at each index."""
    with udp_pair() as (one, two):
        good = two.getsockname()
        for index in range(4):
            messages = [(str(i).encode(), (), (), good) for i in range(4)]
            messages[index] = (b"bad", (), (), ("255.255.255.255", 9))  # without SO_BROADCAST
            if index:
                assert cmsgx.send_batch(one, messages) == index
            with pytest.raises(PermissionError):
                cmsgx.send_batch(one, messages[index:])
            assert [msg.data for msg in drain(two, 0)] == [str(i).encode() for i in range(index)]


# The kernel stops, or waits ---------------------------------------------------------------------


def stops_after(most: int) -> None:
    """A sendmmsg(2) that sends fewer than it is given, each time."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim = Shim()
    shim.send_max(most)
    with open_files(10) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        messages = [(str(i).encode(), [owners[i]]) for i in range(10)]
        assert cmsgx.send_batch(left, messages) == 10
        assert drain(right) == [Whole(str(i).encode(), [str(i)]) for i in range(10)]
        for owner in owners:
            owner.close()
    print("done")


@pytest.mark.parametrize("most", [1, 2, 3, 9])
@pytest.mark.slow
def test_a_kernel_that_stops_halfway(most: int) -> None:
    assert in_child("stops_after", most, env=under_shim()).strip() == "done"


def overfull(kind: int = socket.SOCK_SEQPACKET, size: int = 8192) -> tuple[Pair, list[bytes]]:
    """A pair, and messages of which one fits at a time."""
    left, right = unix_pair(kind)
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    messages = [bytes([65 + i]) * size for i in range(6)]
    assert left.send(messages[0], socket.MSG_DONTWAIT) == size
    with pytest.raises(BlockingIOError):
        left.send(messages[1], socket.MSG_DONTWAIT)
    right.recv(size)
    return (left, right), messages


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_what_has_to_wait_is_sent_later(timeout: float | None) -> None:
    pair, messages = overfull()
    left, right = pair
    left.settimeout(timeout)
    got: list[Whole] = []

    def receive() -> None:
        rx = cmsgx.BatchReceiver(right, 4, 8192, fds=1)
        while len(got) < 6:
            time.sleep(0.02)
            with rx.receive() as batch:
                got.extend(seen(batch))

    thread = threading.Thread(target=receive)
    with open_files(6) as files:
        thread.start()
        assert cmsgx.send_batch(left, [(data, [files[i]]) for i, data in enumerate(messages)]) == 6
        thread.join()
    assert got == [Whole(data, [str(i)]) for i, data in enumerate(messages)]
    close_pair(pair)


def test_time_is_up_for_all_of_it() -> None:
    pair, messages = overfull()
    left, right = pair
    with open_files(6) as files:
        start = time.monotonic()
        batch = [(data, [files[i]]) for i, data in enumerate(messages)]
        sent = cmsgx.send_batch(left, batch, timeout=0.1)
        assert 0 < sent < 6
        assert time.monotonic() - start > 0.08
        with pytest.raises(TimeoutError) as caught:
            cmsgx.send_batch(left, batch[sent:], timeout=0.05)
        assert caught.value.sent == 0  # type: ignore[attr-defined]
        with pytest.raises(BlockingIOError):
            cmsgx.send_batch(left, batch[sent:], timeout=0)
        assert drain(right) == [Whole(messages[i], [str(i)]) for i in range(sent)]
    close_pair(pair)


def test_each_wait_takes_from_the_time_for_all() -> None:
    """The receiver takes one after another, and each single wait is far below the timeout."""
    pair, messages = overfull()
    left, right = pair
    count = 40
    is_over = threading.Event()

    def receive() -> None:
        while not is_over.wait(0.01):
            with suppress(BlockingIOError):
                right.recv(8192, socket.MSG_DONTWAIT)

    thread = threading.Thread(target=receive)
    thread.start()
    sent = cmsgx.send_batch(left, messages[:1] * count, timeout=0.06)
    is_over.set()
    thread.join()
    assert 0 < sent < count
    close_pair(pair)


def test_without_blocking_it_sends_what_fits() -> None:
    pair, messages = overfull()
    left, right = pair
    left.setblocking(False)
    at = 0
    while at < 6:
        try:
            at += cmsgx.send_batch(left, messages[at:])
        except BlockingIOError:
            assert len(drain(right)) > 0
    close_pair(pair)


def with_handler(kind: str) -> None:
    """A signal arrives while the kernel waits after the first message, without a timeout."""
    pair, messages = overfull()
    left, right = pair
    got: list[Whole] = []
    calls = []

    def handler(*_: object) -> None:
        calls.append(True)
        if kind == "OSError":
            raise TimeoutError("of the handler")
        if kind == "raises":
            raise Interrupt
        got.extend(drain(right))
        if len(got) < len(messages):
            signal.setitimer(signal.ITIMER_REAL, 0.02)

    expected = TimeoutError if kind == "OSError" else Interrupt
    with open_files(6) as files, handling(handler):
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        batch = [(data, [owners[i]]) for i, data in enumerate(messages)]
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        if kind == "returns":
            assert cmsgx.send_batch(left, batch) == 6
            signal.setitimer(signal.ITIMER_REAL, 0)
            got += drain(right)
            assert len(calls) > 1
            sent = 6
        else:
            with pytest.raises(expected) as caught:
                cmsgx.send_batch(left, batch)
            if kind == "OSError":
                assert str(caught.value) == "of the handler"
            error: Any = caught.value
            assert error.sent_bytes == 0
            sent = error.sent
            got = drain(right)
            assert 0 < sent < 6
        assert got == [Whole(messages[i], [str(i)]) for i in range(sent)]
        for owner in owners:
            owner.close()
    print("done")


@pytest.mark.parametrize("kind", ["returns", "raises", "OSError"])
@pytest.mark.slow
def test_a_signal_in_the_middle(kind: str) -> None:
    """The handler runs, whatever the kernel has sent before; in a process that can be killed."""
    assert in_child("with_handler", kind).strip() == "done"


@pytest.mark.parametrize("which", range(len(of_handlers())))
@pytest.mark.slow
def test_a_signal_is_handled_although_nothing_waits(which: int) -> None:
    assert in_child("long_batch", which, env=under_shim()).strip() == "done"


def long_batch(which: int) -> None:
    """In a call of many system calls, during the first of which it arrives; in order, none
    twice."""
    error: Any = of_handlers()[which]
    shim = Shim()
    with new_pair() as (left, right), handling(raising(error)):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LARGE)
        messages = [str(i).encode() for i in range(2000)]
        shim.delay_send(100)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(type(error)) as caught:
            cmsgx.send_batch(left, messages)
        shim.delay_send(0)
        assert caught.value is error
        assert error.sent_bytes == 0
        assert 0 < error.sent < 1000
        assert [one.data for one in drain(right, 0, 10)] == messages[: error.sent]
    print("done")


@pytest.mark.parametrize("form", [list, iter])
@pytest.mark.parametrize("closed", range(6))
def test_an_fd_that_is_closed_while_it_waits(closed: int, form: Callable[[Any], Any]) -> None:
    """A descriptor that was sent may be closed; one that was not ends the batch before it."""
    pair, messages = overfull()
    left, right = pair
    left.settimeout(60)
    with open_files(6) as files:
        owners = [cmsgx.Fd(os.dup(number)) for number in files]
        batch = [(data, form([owners[i]])) for i, data in enumerate(messages)]
        results: list[Any] = []

        def send() -> None:
            try:
                results.append(cmsgx.send_batch(left, batch))
            except OSError as error:
                results.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        until_it_waits(thread)  # the first is in the queue, the second waits
        owners[closed].close()
        got: list[Whole] = []
        while thread.is_alive():
            got += drain(right)
            thread.join(0.01)
        got += drain(right)
        expected = 6 if closed == 0 else closed
        if form is list or closed == 0:
            assert results == [expected]
        else:
            # Repeating the same messages would send them without their descriptors.
            assert [(error.errno, error.sent) for error in results] == [(errno.EBADF, closed)]
            assert f"messages[{closed}]" in results[0].__notes__[-1]
        assert got == [Whole(messages[i], [str(i)]) for i in range(expected)]
        for owner in owners:
            owner.close()
    close_pair(pair)


def test_an_fd_of_the_first_that_is_closed_while_it_waits() -> None:
    pair, messages = overfull()
    left, right = pair
    left.settimeout(60)
    assert cmsgx.send_batch(left, messages[:5], timeout=0) >= 1
    fd = cmsgx.Fd(os.dup(0))
    errors: list[Any] = []

    def send() -> None:
        try:
            cmsgx.send_batch(left, [(messages[0], [0, fd]), messages[1]])
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    until_it_waits(thread)
    fd.close()
    while thread.is_alive():
        drain(right)
        thread.join(0.01)
    assert [(error.errno, error.sent) for error in errors] == [(errno.EBADF, 0)]
    assert "fds[1]" in str(errors[0])
    assert drain(right) == []
    close_pair(pair)
