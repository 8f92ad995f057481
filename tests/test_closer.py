"""The background closer: what is handed over, how long that takes, and how much may wait."""

from __future__ import annotations

import _socket
import errno
import gc
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from closing import ALARM, STALLED
from support import (
    close_pair,
    eventually,
    is_open,
    open_files,
    run_python,
    stalled_socket,
    unix_pair,
)

import cmsgx
from cmsgx import _cmsg

# Ways to close ----------------------------------------------------------------------------------


@contextmanager
def nothing_blocks(others: int = 0) -> Iterator[int]:
    """A descriptor whose close(2) blocks until the end of the `with`, for the caller to give away:
    if the caller's thread closed it, it would come here too late. This many others wait in its
    row."""
    with stalled_socket() as (number, release):
        yield number
        gc.collect()
        assert _cmsg.closer_counts()[0] == 1 + others, "it was closed in this thread"
        release()
        assert cmsgx.wait_closed(30) == 0
    assert _cmsg.closer_counts() == (0, 0)


RECEIVERS: dict[str, Callable[[Any, int], Any]] = {
    "Receiver": lambda sock, fds: cmsgx.Receiver(sock, 9, fds=fds, close="background").receive(),
    "a loop": lambda sock, fds: next(cmsgx.Receiver(sock, 9, fds=fds, close="background")),
    "receive": lambda sock, fds: cmsgx.receive(sock, 9, fds=fds, close="background"),
    "BatchReceiver": lambda sock, fds: cmsgx.BatchReceiver(
        sock, 4, 9, fds=fds, close="background"
    ).receive()[0],
}


def look_and_drop(message: cmsgx.Message) -> None:
    assert message.fds[0].check(kind="socket")


def look_and_close(message: cmsgx.Message) -> None:
    look_and_drop(message)
    message.close()


def take_and_close(message: cmsgx.Message) -> None:
    message.take(0).close()


def take_and_leave(message: cmsgx.Message) -> None:
    with message.take(0):
        pass


def take_and_drop(message: cmsgx.Message) -> None:
    message.take_all().clear()


def duplicate(message: cmsgx.Message) -> None:
    fd = message.take(0)
    copy = fd.dup()
    fd.close()
    assert cmsgx.wait_closed(30) == 0
    copy.close()


WAYS: dict[str, Callable[[cmsgx.Message], None]] = {
    "close": lambda message: message.close(),
    "with": lambda message: message.__exit__(None, None, None),
    "dropped": lambda message: None,
    "looked at, dropped": look_and_drop,
    "looked at, closed": look_and_close,
    "taken, closed": take_and_close,
    "taken, with": take_and_leave,
    "taken, dropped": take_and_drop,
    "duplicated": duplicate,
}


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_background_receiver_closes_nothing_in_the_thread_of_the_caller(
    receiver: str, way: str
) -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with nothing_blocks() as number:
        cmsgx.send(pair[0], b"x", fds=[number])
        os.close(number)
        WAYS[way](RECEIVERS[receiver](pair[1], 1))
    close_pair(pair)


@pytest.mark.parametrize("asked", [0, 1])
@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_surplus_is_closed_in_the_background_and_not_by_the_kernel(
    receiver: str, asked: int
) -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with open_files(1) as files, nothing_blocks(asked) as number:
        cmsgx.send(pair[0], b"x", fds=[*files * asked, number])
        os.close(number)
        message = RECEIVERS[receiver](pair[1], asked)
        assert (len(message.fds), message.closed_fds, message.truncated) == (asked, 1, True)
        assert _cmsg.closer_counts() == (1, 1 + asked)
        message.close()
    close_pair(pair)


def test_what_an_error_leaves_is_closed_in_the_background() -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with nothing_blocks() as number:
        cmsgx.send(pair[0], b"more than there is room for", fds=[number])
        os.close(number)
        with pytest.raises(cmsgx.errors.DataTruncatedError):
            RECEIVERS["Receiver"](pair[1], 1)
    close_pair(pair)


def test_the_step_of_a_loop_closes_in_the_background() -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with nothing_blocks() as number:
        cmsgx.send(pair[0], b"1", fds=[number])
        cmsgx.send(pair[0], b"2")
        os.close(number)
        loop = iter(cmsgx.Receiver(pair[1], 9, fds=1, close="background"))
        assert [next(loop).data, next(loop).data] == [b"1", b"2"]
    close_pair(pair)


LOOSE: dict[str, Callable[[int], object]] = {
    "a number": lambda number: cmsgx.close_in_background(number),
    "an Fd": lambda number: cmsgx.close_in_background(cmsgx.Fd(number)),
    "Fd.close_in_background": lambda number: cmsgx.Fd(number).close_in_background(),
    "a socket": lambda number: cmsgx.close_in_background(socket.socket(fileno=number)),
    "a cmsgx.socket": lambda number: cmsgx.close_in_background(cmsgx.socket(fileno=number)),
    "a socket of C": lambda number: cmsgx.close_in_background(
        _socket.socket(fileno=number)  # type: ignore[arg-type]
    ),
}


@pytest.mark.parametrize("loose", LOOSE)
def test_what_is_handed_over_does_not_block(loose: str) -> None:
    with nothing_blocks() as number:
        LOOSE[loose](number)


def test_a_socket_with_descriptors_queued_on_it_is_closed_in_the_background() -> None:
    pair = unix_pair()
    with nothing_blocks() as number:
        cmsgx.send(pair[0], b"x", fds=[number])
        os.close(number)
        cmsgx.close_in_background(pair[1])
        assert pair[1].fileno() == -1
        assert pair[1]._closed  # type: ignore[attr-defined]
    close_pair(pair)


@pytest.mark.parametrize("how", ["close of what a receiver brought", "close_in_background"])
def test_the_last_use_of_what_is_closed_meanwhile_closes_in_the_background(how: str) -> None:
    """The thread in that system call must not be the one that waits for close(2)."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        reader = listener.accept()[0]
    pair = unix_pair()
    with sender, reader, pair[0], pair[1]:
        fd = cmsgx.Fd(sender.detach())
        if how != "close_in_background":
            cmsgx.send(pair[0], b"x", fds=[fd])
            fd.close()
            fd = RECEIVERS["Receiver"](pair[1], 1).take(0)
        received: list[bytes] = []
        user = threading.Thread(target=lambda: received.append(cmsgx.receive(fd, 9).data))
        user.start()
        time.sleep(0.05)
        number = fd.fileno()
        reserved = _cmsg.closer_counts()[1]
        fd.close() if how != "close_in_background" else fd.close_in_background()
        assert fd.closed
        assert _cmsg.closer_counts() == (0, max(reserved, 1)), "it was used no more"
        reader.send(b"last")
        user.join(30)
        assert received == [b"last"]
        assert cmsgx.wait_closed(30) == 0
        assert not is_open(number)
    assert _cmsg.closer_counts() == (0, 0)


def test_close_now_and_what_is_given_away_do_not_wait_for_the_background() -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    receiver = cmsgx.Receiver(pair[1], 9, fds=6, close="background")
    with stalled_socket() as (number, release), open_files(4) as files, pair[0], pair[1]:
        cmsgx.send(pair[0], b"x", fds=[number, *files, pair[0]])
        os.close(number)
        with receiver.receive() as message:
            fds = message.take_all()
        numbers = [fd.fileno() for fd in fds]
        fds[0].close()
        assert eventually(lambda: not is_open(numbers[0]))  # its close has begun
        fds[1].close()
        assert is_open(numbers[1])  # it waits in the row
        fds[2].close(now=True)
        assert not is_open(numbers[2])
        assert fds[3].detach() == numbers[3]
        os.close(numbers[3])
        with fds[4].open("rb") as file:
            assert file.read() == b"3"
        assert not is_open(numbers[4])
        fds[5].socket().close()
        assert not is_open(numbers[5])
        assert _cmsg.closer_counts() == (2, 2)
        release()
        assert cmsgx.wait_closed(30) == 0
    assert _cmsg.closer_counts() == (0, 0)


def test_close_takes_only_now() -> None:
    with cmsgx.Fd(os.open(os.devnull, os.O_RDONLY)) as fd:
        for wrong in ({"later": True}, {"now": True, "then": 1}):
            with pytest.raises(TypeError):
                fd.close(**wrong)
        with pytest.raises(TypeError):
            fd.close(True)  # type: ignore[call-arg]
        assert not fd.closed


@pytest.mark.parametrize("wrong", ["later", None, 1, b"now"])
def test_receive_says_what_close_may_be(wrong: Any) -> None:
    pair = unix_pair()
    with pytest.raises(ValueError, match=r"close: .*; must be 'now' or 'background'"):
        cmsgx.receive(pair[0], 1, close=wrong)
    close_pair(pair)


def test_what_owns_nothing_is_handed_over_in_vain() -> None:
    sock = socket.socket()
    sock.close()
    fd = cmsgx.Fd(os.open(os.devnull, os.O_RDONLY))
    fd.close()
    cmsgx.close_in_background(sock, fd)
    assert _cmsg.closer_counts() == (0, 0)


@pytest.mark.parametrize(
    "wrong", [socket, "0", 1.0, object()], ids=["module", "str", "float", "object"]
)
def test_what_is_not_a_descriptor_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(TypeError, match="an Fd, a socket object or an int is needed, not"):
        cmsgx.close_in_background(wrong)


def test_a_number_that_is_not_open_is_refused_and_not_closed_later() -> None:
    number = os.open(os.devnull, os.O_RDONLY)
    os.close(number)
    with pytest.raises(OSError, match=f"descriptor: {number} is not open") as caught:
        cmsgx.close_in_background(number)
    assert caught.value.errno == errno.EBADF
    assert _cmsg.closer_counts() == (0, 0)


# Waiting for it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 0, 1e-9, 0.5, 1e300, float("inf")])
def test_wait_closed_takes_each_timeout(timeout: float | None) -> None:
    assert cmsgx.wait_closed(timeout) == 0


@pytest.mark.parametrize("timeout", [-1, -1e-9, float("nan"), -float("inf")])
def test_wait_closed_refuses_what_is_not_a_time(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout: "):
        cmsgx.wait_closed(timeout)


def test_wait_closed_says_how_many_are_left() -> None:
    with stalled_socket() as (number, release):
        cmsgx.close_in_background(number)
        assert cmsgx.wait_closed(0) == 1
        assert cmsgx.wait_closed(0.03) == 1
        later = threading.Timer(0.05, release)
        later.start()
        assert cmsgx.wait_closed() == 0
        later.join()


def test_a_signal_ends_a_wait_that_has_no_end() -> None:
    code = """
import signal
def interrupt(*_):
    raise InterruptedError("by a signal")
signal.signal(signal.SIGALRM, interrupt)
cmsgx.close_in_background(number)
signal.setitimer(signal.ITIMER_REAL, 0.1)
try:
    cmsgx.wait_closed(float("inf"))
except InterruptedError:
    print("interrupted", flush=True)
os._exit(0)
"""
    assert run_python(ALARM + STALLED + code).strip() == "interrupted"


# How much may wait ------------------------------------------------------------------------------

# The table has 256 places, so 32 may wait; the row of one receiver is stuck, with 41 in it.
FULL = (
    STALLED
    + """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
receiver = cmsgx.Receiver(right, 9, fds=60, close="background")
support.send_in_turn(left, b"1", [number, *[0] * 40])
os.close(number)
with receiver.receive() as message:
    number = message.fds[0].fileno()
assert support.eventually(lambda: not support.is_open(number))     # its close has begun
assert _cmsg.closer_counts() == (41, 41)
before = support.open_fds()
for _ in range(10):
    support.send_in_turn(left, b"2", [0] * 20)
def refused(error, receive):
    try:
        receive()
    except error as caught:
        return "41 descriptors are waiting for the background closer" in str(caught)
"""
)


def test_while_too_much_waits_a_receiver_takes_nothing_more() -> None:
    code = """
dontwait = socket.MSG_DONTWAIT
assert refused(BlockingIOError, lambda: receiver.receive(timeout=0))
receiver.refresh()      # what is stuck is its own still
assert refused(BlockingIOError, lambda: receiver.receive(timeout=0))
assert refused(BlockingIOError, lambda: receiver.receive(flags=dontwait))
assert refused(BlockingIOError, lambda: receiver.receive(timeout=3, flags=dontwait))
assert refused(TimeoutError, lambda: receiver.receive(timeout=0.05))
by_number = cmsgx.Receiver(right.fileno(), 9, close="background")
right.settimeout(0.05)
assert refused(TimeoutError, receiver.receive)
right.setblocking(False)
assert refused(BlockingIOError, receiver.receive)
assert refused(BlockingIOError, lambda: next(receiver))
right.settimeout(None)
assert support.open_fds() == before, "nothing more was received"
assert _cmsg.closer_counts() == (41, 41)
threading.Timer(0.1, release).start()
got = [receiver.receive().data for _ in range(10)]     # it waits as long as it takes
assert got == [b"2"] * 10
assert cmsgx.wait_closed() == 0
print(_cmsg.closer_counts())
"""
    assert run_python(ALARM + FULL + code).strip() == "(0, 0)"


def test_a_refusal_says_how_many_waited_then_and_not_how_many_do_now() -> None:
    code = """
import re, resource, socket, sys
import cmsgx
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))      # so that more than 8 may not wait
sys.setswitchinterval(1e-6)
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
receiver = cmsgx.Receiver(right, 9, fds=9, close="background")
for _ in range(2000):
    support.send_in_turn(left, b"1", [0] * 9)
    cmsgx.send(left, b"2")
    receiver.receive(timeout=60).close()
    try:
        receiver.receive(timeout=0)
    except BlockingIOError as error:
        waiting = int(re.search(r"(\\d+) descriptors are waiting", str(error))[1])
        assert waiting > 8, error
        receiver.receive(timeout=60)
"""
    run_python(ALARM + code)


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_a_family_that_brings_no_descriptors_has_nothing_to_do_with_the_closer(
    receiver: str,
) -> None:
    counts = []
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sock.bind(("127.0.0.1", 0))

        def look_and_send() -> None:
            counts.append(_cmsg.closer_counts())
            sender.sendto(b"x", sock.getsockname())

        later = threading.Timer(0.05, look_and_send)
        later.start()
        assert RECEIVERS[receiver](sock, 0).data == b"x"
        later.join()
    assert counts == [(0, 0)]


def test_a_wait_for_the_closer_can_be_interrupted() -> None:
    code = """
import signal
def interrupt(*_):
    raise InterruptedError("by a signal")
signal.signal(signal.SIGALRM, interrupt)
for receive in (receiver.receive, lambda: receiver.receive(timeout=25)):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        receive()
    except InterruptedError:
        print("interrupted")
release()
assert cmsgx.wait_closed() == 0
"""
    assert run_python(ALARM + FULL + code).split() == ["interrupted"] * 2


def test_what_is_stuck_stops_its_own_receiver_only() -> None:
    """One peer cannot stop the receivers of others until it has filled half of the table."""
    code = """
one, other = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
others = cmsgx.Receiver(other, 9, fds=2, close="background")
for _ in range(30):
    cmsgx.send(one, b"3", fds=[0, 0])
    with others.receive(timeout=60) as message:
        assert message.data == b"3"
    cmsgx.send(one, b"4")
    assert cmsgx.receive(other, 9, timeout=0, close="background").data == b"4"
assert support.eventually(lambda: _cmsg.closer_counts()[0] == 41)
assert refused(BlockingIOError, lambda: receiver.receive(timeout=0))
print("went on")
release()
assert cmsgx.wait_closed() == 0
"""
    assert run_python(ALARM + FULL + code).strip() == "went on"


@pytest.mark.slow
def test_no_peer_fills_the_table_with_what_waits() -> None:
    """No more waits than an eighth of the table plus what one message brings."""
    code = """
most = 0
def flood():
    for _ in range(60):
        support.send_in_turn(left, b"2", [0] * 20)
threading.Thread(target=flood, daemon=True).start()
threading.Timer(0.2, release).start()
for _ in range(70):
    with receiver.receive(timeout=60):
        most = max(most, len(support.open_fds()) - len(before))
assert cmsgx.wait_closed(20) == 0
print(most < 128)
"""
    assert run_python(ALARM + FULL + code).strip() == "True"


@pytest.mark.slow
def test_a_batch_takes_no_more_than_the_closer_has_space_for() -> None:
    """It continues, with at least one message, if the limit is below what one message can bring."""
    code = """
import resource, socket
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), hard))
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
receiver = cmsgx.BatchReceiver(right, 8, 9, fds=1, close="background")
for _ in range(5):
    support.send_in_turn(left, b"x", [0] * 200)
sizes = []
while sum(sizes) < 5:
    with receiver.receive(timeout=60) as batch:
        sizes.append(len(batch))
        assert all(message.closed_fds == 199 for message in batch)
print(*sizes)
"""
    assert run_python(ALARM + code, "1024").split() == ["1"] * 5
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip(f"a limit of 4096 descriptors cannot be set: {hard} are allowed")
    # An eighth of 4096 is enough for two.
    assert max(map(int, run_python(ALARM + code, "4096").split())) == 2
