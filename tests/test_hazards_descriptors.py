"""docs/hazards.md, part A: a received descriptor has exactly one owner at every instant."""

from __future__ import annotations

import contextlib
import errno
import gc
import itertools
import os
import socket
import sys
import threading
import time
import warnings

import pytest
from hazards import (
    MOST,
    TYPED,
    WAYS,
    Receives,
    Way,
    a_file,
    by_recv_fds,
    close_all,
    count_open,
    each_way,
    high_number,
    numbers_in,
    switch_on,
)
from native import Shim, under_shim
from support import (
    Pair,
    content,
    eventually,
    is_open,
    lengths,
    open_files,
    run_python,
    unix_pair,
    until_it_waits,
)

import cmsgx
from cmsgx import _cmsg

COUNTS = (0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 100, 252, 253)

OPTIONS = ("SO_PASSCRED", "SO_PASSPIDFD", "SO_TIMESTAMPNS", "SO_PASSSEC", "SO_INQ")


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_hazards_descriptors as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


# A1, A2: truncation -----------------------------------------------------------------------------


@each_way
def test_A1_every_truncation(pair: Pair, way: Way) -> None:
    left, right = pair
    with open_files(MOST) as files:
        before = count_open()
        for sent, asked in itertools.product(COUNTS, COUNTS):
            cmsgx.send(left, b"x", fds=files[:sent])
            got = way(right, asked)
            assert got.files == [str(i) for i in range(min(sent, asked))], (sent, asked)
            assert got.truncated == (sent > asked), (sent, asked)
            assert count_open() == before, (sent, asked)


def test_A1_surplus_is_counted(pair: Pair) -> None:
    left, right = pair
    with open_files(MOST) as files:
        for sent, asked in itertools.product(COUNTS, COUNTS):
            cmsgx.send(left, b"x", fds=files[:sent])
            with cmsgx.receive(right, 16, fds=asked) as msg:
                assert msg.closed_fds == max(0, sent - asked)
            cmsgx.send(left, b"x", fds=files[:sent])
            with cmsgx.Receiver(right, 16, fds=asked).receive() as msg:
                # If there is no space for more, the kernel keeps the surplus out and does not count
                # it.
                assert msg.closed_fds == (None if sent > asked else 0)


@pytest.mark.parametrize("option", OPTIONS)
def test_A1_many_are_sent_and_one_was_asked_for_with_an_option(pair: Pair, option: str) -> None:
    """253 are sent and 1 was asked for, with an option on that takes space."""
    left, right = pair
    switch_on(right, option)
    with open_files(MOST) as files:
        before = count_open()
        for way in WAYS:
            cmsgx.send(left, b"x", fds=files)
            got = way(right, 1)
            if way in TYPED or way is by_recv_fds:
                assert got.files == ["0"], way
            assert got.truncated, way
            assert count_open() == before, way


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("sent", [1, 2, MOST])
def test_A1_option_switched_on_later_by_others(pair: Pair, option: str, sent: int) -> None:
    """If an option takes the space for a descriptor, the call raises and leaves none open, and
    refresh() corrects it."""
    left, right = pair
    receiver = cmsgx.Receiver(right, 16, fds=1)
    switch_on(right, option)
    with open_files(sent) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        raised = None
        try:
            with receiver.receive() as msg:
                assert [content(fd) for fd in msg.fds] == ["0"]
        except cmsgx.ControlTruncatedError as error:
            raised = error
        if raised is not None:
            assert raised.errno == errno.EMSGSIZE
            assert not isinstance(raised, cmsgx.FdLimitError)
            assert raised.message.data == b"data"
            assert raised.message.closed
            assert "refresh()" in str(raised)
        assert count_open() == before
        receiver.refresh()
        cmsgx.send(left, b"data", fds=files)
        with receiver.receive() as msg:
            assert [content(fd) for fd in msg.fds] == ["0"]
        assert count_open() == before


def test_A1_credentials_take_the_space() -> None:
    left, right = unix_pair()
    with left, right, open_files(2) as files:
        receivers = {keep: cmsgx.Receiver(right, 9, fds=2, on_truncation=keep)
                     for keep in ("raise", "keep")}  # fmt: skip
        right.setsockopt(socket.SOL_SOCKET, _cmsg.SO_PASSCRED, 1)
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        with pytest.raises(
            cmsgx.ControlTruncatedError, match="no descriptors arrived, with space for 2"
        ) as caught:
            receivers["raise"].receive()
        assert caught.value.message.truncated
        cmsgx.send(left, b"data", fds=files)
        with receivers["keep"].receive() as msg:
            assert msg.truncated
            assert msg.closed_fds is None
            assert len(msg.fds) == 0
            assert msg.data == b"data"
        assert count_open() == before


def test_A2_every_limit(pair: Pair) -> None:
    left, right = pair
    with open_files(MOST) as files:
        before = count_open()
        for asked in range(MOST + 1):
            cmsgx.send(left, b"x", fds=files)
            with cmsgx.receive(right, 16, fds=asked) as msg:
                assert len(msg.fds) == asked
            cmsgx.send(left, b"x", fds=files)
            with cmsgx.Receiver(right, 16, fds=asked).receive() as msg:
                assert len(msg.fds) == asked
            cmsgx.send(left, b"x", fds=files)
            numbers = cmsgx.recv_fds(right, 16, asked)[1]
            assert len(numbers) == asked
            close_all(numbers)
            assert count_open() == before, asked


def test_A2_padding_admits_what_the_caller_gets(pair: Pair) -> None:
    """recvmsg() with the buffer size that the caller chose: each descriptor that arrived is in the
    result."""
    left, right = pair
    with open_files(20) as files:
        for size in range(80):
            cmsgx.send(left, b"x", fds=files)
            before = count_open()
            _, ancdata, flags, _ = cmsgx.recvmsg(right, 16, size)
            numbers = numbers_in(ancdata)
            assert len(numbers) == max(0, size - cmsgx.CMSG_LEN(0)) // 4
            assert count_open() - before == len(numbers)
            assert flags & socket.MSG_CTRUNC
            close_all(numbers)


# A9: MSG_PEEK -----------------------------------------------------------------------------------


def test_A9_peek_with_descriptors_is_refused(pair: Pair) -> None:
    left, right = pair
    receiver = cmsgx.Receiver(right, 16, fds=1)
    flags = (0, socket.MSG_DONTWAIT, socket.MSG_TRUNC, socket.MSG_WAITALL)
    with open_files(2) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        for more in flags:
            peek = socket.MSG_PEEK | more
            with pytest.raises(ValueError, match="MSG_PEEK"):
                receiver.receive(flags=peek)
            for asked in (1, MOST):
                with pytest.raises(ValueError, match="MSG_PEEK"):
                    cmsgx.receive(right, 16, fds=asked, flags=peek)
            assert count_open() == before
        with receiver.receive() as msg:
            assert content(msg.fds[0]) == "0"


def test_A9_peek_at_the_data_alone(pair: Pair) -> None:
    left, right = pair
    receiver = cmsgx.Receiver(right, 16)
    with open_files(2) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        for _ in range(5):
            msg = receiver.receive(flags=socket.MSG_PEEK)
            assert msg.data == b"data"
            assert len(msg.fds) == 0
            assert count_open() == before
            msg = cmsgx.receive(right, 16, flags=socket.MSG_PEEK)
            assert msg.data == b"data"
            assert count_open() == before
        with cmsgx.receive(right, 16, fds=2) as msg:
            assert [content(fd) for fd in msg.fds] == ["0", "1"]
        assert count_open() == before


def test_A9_the_drop_ins_are_as_in_socket(pair: Pair) -> None:
    left, right = pair
    with open_files(2) as files:
        before = count_open()
        cmsgx.send(left, b"data", fds=files)
        for receive in (right.recvmsg, lambda *given: cmsgx.recvmsg(right, *given)):
            data, ancdata, _, _ = receive(16, cmsgx.CMSG_LEN(8), socket.MSG_PEEK)
            numbers = numbers_in(ancdata)
            assert (data, len(numbers), count_open()) == (b"data", 2, before + 2)
            close_all(numbers)
        close_all(cmsgx.recv_fds(right, 16, 2)[1])


# A10: one close ---------------------------------------------------------------------------------


def race_to_close(rounds: int) -> None:
    """Of eight threads that close or detach, exactly one succeeds."""
    shim = Shim()
    fds: list[cmsgx.Fd] = []
    won: list[int] = []
    start, end = threading.Barrier(9), threading.Barrier(9)

    def contend(detaches: bool) -> None:
        for _ in range(rounds):
            start.wait()
            with contextlib.suppress(ValueError):
                if detaches:
                    won.append(fds[-1].detach())
                else:
                    fds[-1].close()
            end.wait()

    threads = [threading.Thread(target=contend, args=(i % 2 == 0,)) for i in range(8)]
    sys.setswitchinterval(1e-6)
    for thread in threads:
        thread.start()
    detached = 0
    for _ in range(rounds):
        number = high_number()
        fds[:] = [cmsgx.Fd(number)]
        won.clear()
        shim.reset()
        start.wait()
        end.wait()
        assert fds[0].closed
        assert len(won) + shim.closes(number) == 1, (won, shim.closes(number))
        if won:
            detached += 1
            assert won == [number]
            assert is_open(number)
            os.close(number)
        else:
            assert not is_open(number)
    for thread in threads:
        thread.join()
    print(f"{rounds} rounds, detached in {detached}")


@pytest.mark.parametrize("rounds", lengths("CMSGX_RACES", 200, 2000))
def test_A10_close_and_detach_by_eight_threads(rounds: int) -> None:
    in_child("race_to_close", rounds, env=under_shim())


def test_A10_close_is_idempotent() -> None:
    fd = a_file()
    number = fd.fileno()
    fd.close()
    again = high_number()
    assert again == number
    for _ in range(3):
        fd.close()
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.fileno()
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.detach()
    del fd
    gc.collect()
    assert is_open(again)
    os.close(again)


def test_A10_taken_and_closed_once(pair: Pair) -> None:
    """The message, the taker and the garbage collector: one close."""
    left, right = pair
    with open_files(3) as files:
        cmsgx.send(left, b"x", fds=files)
        with cmsgx.receive(right, 1, fds=3) as msg:
            kept = msg.fds[1]
            numbers = [fd.fileno() for fd in msg.fds]
            taken = msg.take(0)
            with pytest.raises(ValueError, match="already taken"):
                msg.take(0)
        assert kept.closed
        assert not taken.closed
        strangers = [high_number(), high_number()]
        assert sorted(strangers) == numbers[1:]
        msg.close()
        kept.close()
        del msg, kept
        gc.collect()
        assert all(map(is_open, strangers))
        taken.close()
        close_all(strangers)


def number_zero() -> None:
    os.close(0)
    assert os.open("/dev/null", os.O_RDONLY) == 0
    os.close(0)
    here, there = unix_pair(socket.SOCK_SEQPACKET)
    if here.fileno() == 0:
        here.detach()
        here = cmsgx.socket(fileno=os.dup(0))
        os.close(0)
    with open_files(0):
        file = os.memfd_create("zero")
        if file == 0:
            file = os.dup(0)
            os.close(0)
        os.pwrite(file, b"zero", 0)
    receiver = cmsgx.Receiver(there, 1, fds=1)
    calls: Receives = (receiver.receive, lambda: cmsgx.receive(there, 1, fds=1))
    for receive in calls:
        cmsgx.send(here, b"x", fds=[file])
        with receive() as msg:
            assert msg.fds[0].fileno() == 0
            assert not msg.fds[0].closed
            assert content(msg.fds[0]) == "zero"
        assert not is_open(0)
        cmsgx.send(here, b"x", fds=[file])
        receive().close()
        assert not is_open(0)
    cmsgx.send(here, b"x", fds=[file] * 3)
    assert receiver.receive().take(0).detach() == 0
    fd = cmsgx.Fd(0)
    cmsgx.send(here, b"x", fds=[fd, 0])
    fd.close()
    assert not is_open(0)
    data, numbers, _, _ = cmsgx.recv_fds(there, 1, 1)
    assert (data, numbers) == (b"x", [0])
    os.close(0)
    # A surplus descriptor with number 0 is closed too.
    other = os.dup(file)
    os.close(other)
    cmsgx.send(here, b"x", fds=[file])
    assert cmsgx.recv_fds(there, 1, 0)[1] == []
    assert not is_open(0)
    cmsgx.send(here, b"x", fds=[file])
    fd = cmsgx.receive(there, 1, fds=1).take(0)
    assert fd.fileno() == 0
    duplicate = fd.dup()
    with fd.open("rb") as opened:
        assert opened.fileno() >= 0
        assert opened.read() == b"zero"
    assert fd.closed
    duplicate.close()


def test_A10_number_zero() -> None:
    in_child("number_zero")


# A11: the right file ----------------------------------------------------------------------------


class Slot:
    """An Fd that other threads replace, as often as possible by one with the same number."""

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.fd = self.make(tag)

    @staticmethod
    def make(tag: int) -> cmsgx.Fd:
        fd = cmsgx.Fd(os.memfd_create("tagged"))
        os.pwrite(fd.fileno(), str(tag).encode(), 0)
        return fd


@pytest.mark.slow
def test_A11_no_wrong_file_is_sent() -> None:
    """Threads close and reopen what is being sent; CMSGX_SENDS says how often."""
    sends = int(os.environ.get("CMSGX_SENDS", "60000"))
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    tags = itertools.count()
    slots = [(0, Slot.make(0))]
    stop = threading.Event()
    counts = {"right": 0, "wrong": 0, "closed": 0}

    def replace() -> None:
        while not stop.is_set():
            time.sleep(2e-5)
            tag = next(tags)
            old = slots[0][1]
            old.close()
            slots[0] = (tag, Slot.make(tag))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=replace) for _ in range(2)]
    with left, right, warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for thread in threads:
            thread.start()
        try:
            for _ in range(sends):
                tag, fd = slots[0]
                try:
                    cmsgx.send(left, str(tag).encode(), fds=[fd])
                except OSError as error:
                    if error.errno != errno.EBADF or "fds[0]" not in str(error):
                        raise
                    counts["closed"] += 1
                    continue
                with cmsgx.receive(right, 32, fds=1) as msg:
                    is_right = content(msg.fds[0]).encode() == msg.data
                    counts["right" if is_right else "wrong"] += 1
        finally:
            stop.set()
            for thread in threads:
                thread.join()
            sys.setswitchinterval(interval)
        slots.clear()
        gc.collect()
    print(counts)
    assert counts["wrong"] == 0
    assert counts["right"] > 0


def pinned() -> None:
    """The system call is slow, and meanwhile another thread closes a descriptor that it sends."""
    shim = Shim()
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    shim.delay_send(300)
    errors: list[BaseException] = []

    def send(fd: cmsgx.Fd) -> None:
        try:
            cmsgx.send(left, b"x", fds=[fd])
        except BaseException as error:
            errors.append(error)

    for _ in range(4):
        fd = Slot.make(1)
        number = fd.fileno()
        thread = threading.Thread(target=send, args=(fd,))
        thread.start()
        assert eventually(shim.is_sending)
        fd.close()
        assert shim.is_sending(), "close() waited"
        assert fd.closed
        other = Slot.make(2)
        assert other.fileno() != number, "the number was reused while it was being sent"
        thread.join()
        assert not errors
        assert not is_open(number)
        with cmsgx.receive(right, 1, fds=1) as msg:
            assert content(msg.fds[0]) == "1"
        other.close()


def test_A11_pinned_for_the_system_call() -> None:
    in_child("pinned", env=under_shim())


@pytest.mark.parametrize("reuse", [True, False], ids=["number reused", "closed"])
def test_A11_a_retry_after_close_raises(stream: Pair, reuse: bool) -> None:
    """While it waits for buffer space, the Fd is closed, and another file may get its number."""
    left, right = stream
    full = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            full += left.send(bytes(65536), socket.MSG_DONTWAIT)
    left.settimeout(60)
    errors: list[OSError] = []
    first = Slot.make(0)
    fd = Slot.make(1)
    number = fd.fileno()

    def send() -> None:
        try:
            cmsgx.send(left, b"x", fds=[first, fd])
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    until_it_waits(thread)
    fd.close()
    assert not is_open(number)
    other = Slot.make(2) if reuse else None
    assert other is None or other.fileno() == number
    while full > 0:
        full -= len(right.recv(65536))
    thread.join()
    assert [error.errno for error in errors] == [errno.EBADF]
    assert "fds[1]" in str(errors[0])
    left.send(b"end")
    with cmsgx.receive(right, 9, fds=2) as msg:
        assert msg.data == b"end"
        assert len(msg.fds) == 0
    first.close()
    if other is not None:
        other.close()


@pytest.mark.parametrize("index", [0, 1, 5])
def test_A11_a_closed_owner_is_named(pair: Pair, index: int) -> None:
    left, _ = pair
    with open_files(6) as files:
        fds: list[int | cmsgx.Fd] = list(files)
        closed = cmsgx.Fd(os.dup(files[0]))
        closed.close()
        fds[index] = closed
        for send in (
            lambda: cmsgx.send(left, b"x", fds=fds),
            lambda: cmsgx.send(left, b"x", control=cmsgx.Rights(fds)),
            lambda: cmsgx.send_all(left, b"x", fds=fds),
            lambda: cmsgx.send_fds(left, [b"x"], fds),
        ):
            with pytest.raises(OSError, match=rf"fds\[{index}\]") as caught:
                send()
            assert caught.value.errno == errno.EBADF
