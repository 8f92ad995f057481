"""A child of fork does not inherit anything that a thread of its parent would have to release."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest
from support import (
    Pair,
    in_fork,
    is_in_call,
    is_open,
    lingering_socket,
    run_python,
    thread_in,
    unix_pair,
)

import cmsgx
from cmsgx import _cmsg

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads


def is_in_use(use: Callable[[], object]) -> bool:
    try:
        use()
    except RuntimeError as error:
        return "in use" in str(error)
    except BlockingIOError:
        return False
    return False


# Marks of what is in use --------------------------------------------------------------------------


def use_receiver(receiver: cmsgx.Receiver) -> None:
    receiver.refresh()
    with receiver.receive() as message:
        assert message.data == b"for the child"
        assert len(message.fds) == 1
    with next(receiver) as message:
        assert message.data == b"and the next"
    assert receiver.try_receive() is None


def use_batch_receiver(receiver: cmsgx.BatchReceiver) -> None:
    receiver.refresh()
    with receiver.receive() as batch:
        assert [message.data for message in batch] == [b"for the child", b"and the next"]
    assert receiver.try_receive() is None


@pytest.mark.parametrize(
    ("make", "use"),
    [
        (lambda sock: cmsgx.Receiver(sock, 100, fds=1), use_receiver),
        (lambda sock: cmsgx.BatchReceiver(sock, 8, 100, fds=1), use_batch_receiver),
    ],
    ids=["Receiver", "BatchReceiver"],
)
def test_a_child_receives_by_what_a_thread_of_the_parent_is_in(
    packets: Pair, make: Callable[[Any], Any], use: Callable[[Any], None]
) -> None:
    left, right = packets
    receiver = make(right)

    def child() -> None:
        cmsgx.send(left, b"for the child", fds=[0])
        cmsgx.send(left, b"and the next")
        use(receiver)

    with thread_in(receiver.receive, lambda: is_in_use(lambda: receiver.receive(timeout=0))):
        # The parent's thread waits for the same socket, and would take what the child sends, so the
        # child gets a socket of its own under that number.
        own = unix_pair(left.type)

        def child_with_its_own() -> None:
            for old, new in zip((left, right), own, strict=True):
                os.dup2(new.fileno(), old.fileno())
            child()

        try:
            in_fork(child_with_its_own)
        finally:
            for sock in own:
                sock.close()
            cmsgx.send(left, b"for the parent")


def close_and_read_message(message: cmsgx.Message) -> None:
    assert message.data == b"1"
    message.close()
    assert message.closed
    assert [fd.closed for fd in message.fds] == [True]


def close_and_read_batch(batch: Any) -> None:
    close_and_read_message(batch[0])
    batch.close()


@pytest.mark.parametrize(
    ("receive", "probe", "use"),
    [
        (
            lambda sock: cmsgx.receive(sock, 10, fds=1),
            lambda message: message.data,
            close_and_read_message,
        ),
        (
            lambda sock: cmsgx.BatchReceiver(sock, 2, 10, fds=1).receive(),
            lambda batch: batch[0],
            close_and_read_batch,
        ),
    ],
    ids=["Message", "Batch"],
)
def test_a_child_uses_what_a_thread_of_the_parent_is_closing(
    stream: Pair,
    receive: Callable[[Any], Any],
    probe: Callable[[Any], object],
    use: Callable[[Any], None],
) -> None:
    left, right = stream
    with ExitStack() as lingers:
        number = lingers.enter_context(lingering_socket(30))
        cmsgx.send(left, b"1", fds=[number])
        os.close(number)
        received = receive(right)
        with thread_in(received.close, lambda: is_in_use(lambda: probe(received))):
            in_fork(lambda: use(received))
            lingers.close()


class Callback:
    """A timeout that runs a function when C converts it, in the middle of a call."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function

    def __float__(self) -> float:
        self.function()
        return 0.0


def test_a_thread_that_forks_in_the_middle_of_a_call_is_in_it_in_the_child_too() -> None:
    """And in the child of that child; in no other process."""
    code = """
import os, sys, threading, warnings, cmsgx
from test_fork import Callback, is_in_use
warnings.simplefilter("ignore", DeprecationWarning)     # fork of a process with threads

left, right = cmsgx.socketpair()
receiver = cmsgx.Receiver(right, 1)
child = None

def fork():
    global child
    for _ in range(2):
        child = os.fork()
        if child:
            break
    refused = []
    use = lambda: refused.append(is_in_use(receiver.refresh))
    use()
    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert refused == [True, True], refused

try:
    receiver.receive(timeout=Callback(fork))
    sys.exit("nothing was sent")
except BlockingIOError:
    pass
assert not is_in_use(receiver.refresh)
os.write(1, b"as it should be\\n")     # at once, beside those of the others
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_python(code).splitlines() == ["as it should be"] * 3


def test_of_several_threads_in_a_call_only_the_one_that_forks_is_in_it_in_the_child() -> None:
    code = """
import os, sys, threading, warnings, cmsgx
from support import in_fork
from test_fork import Callback, is_in_use
warnings.simplefilter("ignore", DeprecationWarning)     # fork of a process with threads

pairs = [cmsgx.socketpair() for _ in range(2)]
mine, other = [cmsgx.Receiver(right, 1) for left, right in pairs]
inside, release = threading.Event(), threading.Event()

def hold():
    inside.set()
    release.wait(60)

def receive(receiver, function):
    try:
        receiver.receive(timeout=Callback(function))
    except BlockingIOError:
        pass

def look(*expected):
    assert [is_in_use(mine.refresh), is_in_use(other.refresh)] == list(expected)

def in_child():
    # Of a grandchild that another thread makes, neither is used by anybody: also where that thread
    # lies where the other one lay in the parent.
    looked = []
    thread = threading.Thread(target=lambda: looked.append(in_fork(lambda: look(False, False))))
    thread.start()
    thread.join()
    assert len(looked) == 1
    look(True, False)
    print("as it should be", flush=True)

thread = threading.Thread(target=receive, args=(other, hold))
thread.start()
inside.wait(60)
receive(mine, lambda: (look(True, True), in_fork(in_child)))
release.set()
thread.join()
look(False, False)
"""
    assert run_python(code).splitlines() == ["as it should be"]


# Pins ---------------------------------------------------------------------------------------------


def end_by_with(fd: cmsgx.Fd) -> None:
    with fd:
        pass


def end_in_background(fd: cmsgx.Fd) -> None:
    fd.close_in_background()
    assert _cmsg.closer_wait(30) == 0


@contextmanager
def pinned_by_a_thread(fd: cmsgx.Fd) -> Iterator[None]:
    inside, release = threading.Event(), threading.Event()

    def hold() -> None:
        with fd._pinned():
            inside.set()
            release.wait(60)

    with thread_in(hold, inside.is_set):
        try:
            yield
        finally:
            release.set()


@pytest.mark.parametrize("end", [cmsgx.Fd.close, end_by_with, end_in_background])
def test_a_child_closes_what_a_thread_of_the_parent_has_pinned(
    end: Callable[[cmsgx.Fd], None],
) -> None:
    fd = cmsgx.Fd(os.memfd_create("pinned"))
    number = fd.fileno()

    def child() -> None:
        assert not fd.closed
        end(fd)
        assert fd.closed
        assert not is_open(number)

    with pinned_by_a_thread(fd):
        in_fork(child)
        fd.close()
        assert is_open(number)
    assert not is_open(number)


def test_a_child_closes_what_waits_for_a_thread_of_the_parent() -> None:
    fd = cmsgx.Fd(os.memfd_create("pinned"))
    number = fd.fileno()

    def child() -> None:
        assert fd.closed
        assert is_open(number)
        fd.close()
        assert not is_open(number)
        # Only once: the number may belong to another file by now.
        assert os.dup2(0, number) == number
        fd.close()
        assert is_open(number)

    with pinned_by_a_thread(fd):
        fd.close()
        in_fork(child)
    assert not is_open(number)


def test_a_child_closes_what_is_being_sent_by_a_thread_of_the_parent(stream: Pair) -> None:
    left, right = stream
    left.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            cmsgx.send(left, bytes(1 << 16))
    left.setblocking(True)
    fd = cmsgx.Fd(os.memfd_create("sent"))
    number = fd.fileno()
    identity: list[int] = []

    def send() -> None:
        identity.append(threading.get_native_id())
        cmsgx.send(left, b"1", fds=[fd])

    def child() -> None:
        fd.close()
        assert not is_open(number)

    with thread_in(send, lambda: bool(identity) and is_in_call(identity[0], left.fileno())):
        in_fork(child)
        is_here = False
        while not is_here:
            with cmsgx.receive(right, 1 << 20, fds=1) as message:
                is_here = len(message.fds) == 1
    fd.close()


def test_a_pin_of_the_parent_takes_none_off_in_the_child() -> None:
    fd = cmsgx.Fd(os.memfd_create("pinned"))
    number = fd.fileno()
    pin = fd._pinned()

    def child() -> None:
        with fd._pinned() as same:
            assert same == number
            with pin:
                fd.close()
            assert is_open(number)
        assert not is_open(number)

    in_fork(child)
    with pin:
        fd.close()
        assert is_open(number)
    assert not is_open(number)


def test_a_pin_ends_once_and_with_its_object() -> None:
    fd = cmsgx.Fd(os.memfd_create("pinned"))
    number = fd.fileno()
    other = fd._pinned()
    with (pin := fd._pinned()) as pinned:
        assert pinned == number
    with pin:
        pass
    del pin
    fd.close()
    assert is_open(number)
    del other
    assert not is_open(number)
    with pytest.raises(ValueError, match="owns no descriptor"):
        fd._pinned()


def test_more_pins_than_can_be_counted_are_an_error(stream: Pair) -> None:
    sock = stream[0]
    with cmsgx.Fd(os.memfd_create("pinned")) as fd:
        pins = [fd._pinned() for _ in range((1 << 17) - 1)]
        for use in (fd._pinned, fd.dup, lambda: cmsgx.send(sock, b"1", fds=[fd])):
            with pytest.raises(OSError, match="too many system calls use <Fd") as caught:
                use()
            assert caught.value.errno == errno.EBUSY
        pins.pop()
        fd.dup().close()
        del pins
        number = fd.fileno()
    assert not is_open(number)


# What Python keeps --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_generation_differs_in_each_child_and_is_counted_once_for_all_interpreters() -> None:
    code = """
import os
from test_interpreters import OWN_GIL
exec(OWN_GIL)
import cmsgx
from cmsgx._cmsg import generation
assert generation() == 1
for interpreter in [make(), make()]:
    run(interpreter, "import cmsgx; assert cmsgx._cmsg.generation() == 1")
    destroy(interpreter)    # with one, CPython 3.11 and 3.12 themselves crash or hang in a child
for expected in (2, 3):
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert generation() == expected, generation()
"""
    run_python(code)
