"""ZeroCopySender: which buffer is in flight, and when it is free again."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, cast

import pytest
from batches import handling, of_handlers, raising
from memory import each_allocation_fails, without_other_threads
from namespaces import Namespace, needs_ipv6
from support import eventually, fill, in_fork, lengths

import cmsgx
from cmsgx import _zerocopy, kinds

MSG_ZEROCOPY = 0x4000000
SO_ZEROCOPY = 60
SO_TIMESTAMPING = 37
SOFTWARE, TX_SOFTWARE, OPT_ID, OPT_TSONLY = 1 << 4, 1 << 1, 1 << 7, 1 << 11
ZEROCOPY, COPIED = 5, 1
LAST = 2**32 - 1
SIZE = 20_000


@contextmanager
def tcp(
    make: Callable[..., socket.socket] = socket.socket, receive_buffer: int = 1 << 20
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection on loopback."""
    with make(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with make(socket.AF_INET, socket.SOCK_STREAM) as left:
            left.connect(listener.getsockname())
            with listener.accept()[0] as right:
                left.settimeout(60)
                yield left, right


@contextmanager
def stalled(
    make: Callable[..., socket.socket] = socket.socket,
) -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """One whose receiver is full: what is sent now stays in flight. How many bytes are ahead."""
    with tcp(make, 4096) as (left, right):
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        ahead = left.send(bytes(60_000))
        assert ahead == 60_000
        yield left, right, ahead


@contextmanager
def udp(
    family: int = socket.AF_INET, host: str = "127.0.0.1"
) -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.socket(family, socket.SOCK_DGRAM) as left:
        right = socket.socket(family, socket.SOCK_DGRAM)
        with right:
            right.bind((host, 0))
            right.settimeout(60)
            left.settimeout(60)
            left.connect(right.getsockname())
            yield left, right


def send_until_it_fails(
    sender: cmsgx.ZeroCopySender, buffer: bytes | bytearray, timeout: float
) -> tuple[int, OSError]:
    """How many bytes went before, and the error."""
    sent = 0
    while True:
        try:
            sent += sender.send(buffer, timeout=timeout)
        except OSError as error:
            return sent, error.with_traceback(None)


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    sock.settimeout(60)
    while len(data) < size:
        more = sock.recv(size - len(data))
        assert more
        data += more
    return data


def can_resize(buffer: bytearray) -> bool:
    """Whether nobody has it exported."""
    try:
        buffer.append(0)
    except BufferError:
        return False
    del buffer[-1]
    return True


def completion(first: int, last: int, code: int = 0) -> kinds.ZeroCopyCompletion:
    """As if the kernel had said so."""
    error = kinds.ExtendedError.unpack(
        struct.pack("=IBBBxII", 0, ZEROCOPY, 0, code, first, last) + bytes(16)
    )
    return kinds.ZeroCopyCompletion(cast(Any, None), error)


def kernel_id(sock: socket.socket) -> int:
    """The id of one more send, made without the sender."""
    cmsgx.send(sock, b"1", flags=MSG_ZEROCOPY, timeout=60)
    poll = select.poll()
    poll.register(sock, 0)
    assert poll.poll(60_000)
    [report] = cmsgx.receive_errors(sock)
    assert isinstance(report, kinds.ZeroCopyCompletion)
    return report.last


def reads_of(sender: cmsgx.ZeroCopySender) -> Callable[[], int]:
    """How often it looks at the error queue from now on: what it does instead of waiting."""
    count = itertools.count()
    receive = sender._receive

    def counting() -> Any:
        next(count)
        return receive()

    sender._receive = counting
    return lambda: next(count)


# Sending and completions --------------------------------------------------------------------------


def test_tcp() -> None:
    buffer = bytearray(os.urandom(SIZE))
    with tcp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        assert left.getsockopt(socket.SOL_SOCKET, SO_ZEROCOPY) == 1
        assert sender.copied is None
        sent = sender.send(buffer)
        assert read(right, sent) == buffer[:sent]
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert sender.copied is True  # as on any loopback
        assert sender.next_id == 1
        assert not sender.stopped
    assert sender.closed


@pytest.mark.parametrize(
    ("family", "host"),
    [(socket.AF_INET, "127.0.0.1"), pytest.param(socket.AF_INET6, "::1", marks=needs_ipv6)],
)
def test_udp(family: int, host: str) -> None:
    with udp(family, host) as (left, right), cmsgx.ZeroCopySender(left) as sender:
        for i in range(3):
            assert sender.send([bytes([i]) * SIZE, b"end"]) == SIZE + 3
            assert right.recv(1 << 16) == bytes([i]) * SIZE + b"end"
        assert sender.send(b"", address=right.getsockname()) == 0
        assert right.recv(1) == b""
        with socket.socket(family, socket.SOCK_DGRAM) as other:
            other.bind((host, 0))
            sender.send(b"elsewhere", address=other.getsockname())
            assert other.recv(100) == b"elsewhere"
        sender.send(b"segments", control=kinds.UdpSegment(4))
        assert [right.recv(100), right.recv(100)] == [b"segm", b"ents"]
        sender.wait(60)
        assert sender.next_id == kernel_id(left) == 5
        assert sender.pending == (0, 0)


def test_a_buffer_is_exported_until_its_completion() -> None:
    one, two = bytearray(SIZE), bytearray(b"x" * SIZE)
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        assert sender.send(one) == SIZE
        assert sender.send([two, b"more"]) == SIZE + 4
        assert sender.reap() == 0
        assert sender.pending == (2, 2 * SIZE + 4)
        assert not can_resize(one)
        assert not can_resize(two)
        data = read(right, ahead + 2 * SIZE + 4)
        assert data == bytes(ahead) + one + two + b"more"
        sender.wait()
        assert can_resize(one)
        assert can_resize(two)
        assert sender.pending == (0, 0)


def test_a_failed_send_holds_nothing() -> None:
    buffer = bytearray(100)
    with tcp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        left.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            sender.send(buffer)
        assert can_resize(buffer)
        assert sender.pending == (0, 0)
        assert sender.next_id == 0


def test_nothing_at_all_gets_no_id() -> None:
    with tcp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        assert sender.send(b"") == 0
        sender.send_all([])
        sender.send_all(b"1")
        sender.wait(60)
        assert sender.next_id == 1
        assert read(right, 1) == b"1"


def test_an_id_that_udp_gives_to_a_failed_send_is_not_given_again() -> None:
    buffer = bytearray(300)
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        for i in range(3):
            sender.send(b"1")
            assert sender.next_id == 2 * i + 1
            # Too many segments: the kernel notices when all is packed, and the id is spent.
            with pytest.raises(OSError, match="Invalid argument") as caught:
                sender.send(buffer, control=kinds.UdpSegment(1))
            assert caught.value.errno == errno.EINVAL
            del caught
            assert can_resize(buffer)
        sender.send(b"1")
        sender.wait(60)
        assert sender.next_id == 7
        assert kernel_id(left) == 7


def test_send_all() -> None:
    data = os.urandom(3_000_000)
    received: list[bytes] = []
    with tcp() as (left, right), cmsgx.ZeroCopySender(left, max_bytes=100_000) as sender:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 100_000)
        reader = threading.Thread(target=lambda: received.append(read(right, len(data))))
        reader.start()
        sender.send_all([data[:10], b"", bytearray(data[10:])], timeout=60)
        reader.join()
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert sender.next_id > 1
    assert received == [data]


def test_send_all_says_what_went() -> None:
    buffer = bytearray(3_000_000)
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        with pytest.raises(TimeoutError) as caught:
            sender.send_all(buffer, timeout=0.1)
        sent = cast(Any, caught.value).sent
        assert 0 < sent < len(buffer)
        assert sender.pending.bytes == sent
        read(right, ahead + sent)
        del caught
        sender.wait(60)
        assert can_resize(buffer)


def test_many_buffers() -> None:
    with tcp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        sender.send_all([b"ab"] * 3000)
        assert read(right, 6000) == b"ab" * 3000


# Limits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"max_pending": 2}, {"max_bytes": 2 * SIZE}], ids=str)
@pytest.mark.slow
def test_backpressure(limits: dict[str, Any]) -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left, **limits) as sender:
        for _ in range(2):
            sender.send(buffer)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            sender.send(buffer, timeout=0.1)
        assert time.monotonic() - started >= 0.1
        with pytest.raises(BlockingIOError) as caught:
            sender.send(buffer, timeout=0)
        assert caught.value.errno == errno.EAGAIN
        assert sender.pending == (2, 2 * SIZE)
        drain = threading.Timer(0.2, lambda: read(right, ahead + 2 * SIZE))
        drain.start()
        assert sender.send(buffer, timeout=60) == SIZE
        drain.join()
        read(right, SIZE)


def test_completions_that_are_there_make_room() -> None:
    with udp() as (left, right), cmsgx.ZeroCopySender(left, max_pending=1) as sender:
        for _ in range(5):
            assert sender.send(b"1", timeout=0) == 1
            assert right.recv(1) == b"1"


def test_a_send_above_max_bytes_goes_alone() -> None:
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left, max_bytes=10) as sender:
        assert sender.send(bytes(SIZE)) == SIZE
        with pytest.raises(BlockingIOError):
            sender.send(b"1", timeout=0)
        read(right, ahead + SIZE)
        assert sender.send(b"1") == 1
        read(right, 1)


@pytest.mark.slow
def test_a_full_socket_is_waited_for() -> None:
    with stalled() as (left, right, _), cmsgx.ZeroCopySender(left) as sender:
        assert type(send_until_it_fails(sender, bytes(SIZE), 0)[1]) is BlockingIOError
        # The receiver's kernel may still have taken some.
        assert type(send_until_it_fails(sender, bytes(SIZE), 0.3)[1]) is TimeoutError
        reads = reads_of(sender)
        with pytest.raises(TimeoutError):
            sender.send(bytes(SIZE), timeout=0.5)
        assert 0 < reads() < 100
        sent = sender.pending.bytes
        drain = threading.Timer(0.1, lambda: read(right, sent))
        drain.start()
        assert sender.send(b"1", timeout=60) == 1
        drain.join()
        sender.release()


@pytest.mark.parametrize("is_blocking", [True, False])
def test_an_int_waits_where_it_blocks(is_blocking: bool) -> None:
    with stalled() as (left, right, ahead):
        left.setblocking(is_blocking)
        with cmsgx.ZeroCopySender(left.fileno(), max_pending=1) as sender:
            sender.send(b"1")
            drain = threading.Timer(0.2, lambda: read(right, ahead + 1))
            if is_blocking:
                drain.start()
                sender.send(b"2")
                drain.join()
            else:
                with pytest.raises(BlockingIOError):
                    sender.send(b"2")
                read(right, ahead + 1)
            sender.wait(60)


# Completions in any order -------------------------------------------------------------------------


@pytest.fixture
def waiting() -> Iterator[tuple[cmsgx.ZeroCopySender, list[bytearray]]]:
    """Five buffers in flight, with ids across the wrap: LAST - 1, LAST, 0, 1, 2."""
    with stalled() as (left, _, _):
        sender = cmsgx.ZeroCopySender(left, next_id=LAST - 1)
        buffers = [bytearray(1000 + i) for i in range(5)]
        for buffer in buffers:
            sender.send(buffer)
        assert sender.next_id == 3
        yield sender, buffers
        sender.release()


@pytest.mark.parametrize(
    ("ranges", "free"),
    [
        ([(LAST - 1, LAST - 1)], [0]),
        ([(2, 2), (LAST, LAST)], [1, 4]),
        ([(LAST, 1)], [1, 2, 3]),
        ([(LAST - 1, 2)], [0, 1, 2, 3, 4]),
        ([(1, 2), (0, 0), (LAST - 1, LAST)], [0, 1, 2, 3, 4]),
        ([(LAST, LAST), (LAST, LAST)], [1]),  # a second time
        ([(100, LAST - 2)], []),  # before it was ours
        ([(LAST - 1000, LAST)], [0, 1]),
        ([(LAST - 2**31 + 10, 2)], [0, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_completions_in_any_order_and_across_the_wrap(
    waiting: tuple[cmsgx.ZeroCopySender, list[bytearray]],
    ranges: list[tuple[int, int]],
    free: list[int],
) -> None:
    sender, buffers = waiting
    done = sum(sender.acknowledge(completion(*each)) for each in ranges)
    assert done == len(free)
    assert [i for i, buffer in enumerate(buffers) if can_resize(buffer)] == free
    left = [len(buffer) for i, buffer in enumerate(buffers) if i not in free]
    assert sender.pending == (len(left), sum(left))
    assert sender.next_id == 3
    assert sender.copied is (False if free else None)


def test_an_id_across_the_wrap_that_was_spent_is_left_out() -> None:
    with stalled() as (left, _, _):
        sender = cmsgx.ZeroCopySender(left, next_id=LAST)
        assert sender.acknowledge(completion(LAST, 0)) == 0
        assert sender.next_id == 1
        assert sender.copied is None


# The kernel copied after all ----------------------------------------------------------------------


@pytest.mark.parametrize("on_copied", ["keep", "stop"])
def test_on_copied(on_copied: Any) -> None:
    buffer = bytearray(SIZE)
    with udp() as (left, right), cmsgx.ZeroCopySender(left, on_copied=on_copied) as sender:
        sender.send(buffer)
        sender.wait(60)
        assert sender.copied is True
        assert sender.stopped is (on_copied == "stop")
        assert sender.send(buffer) == SIZE
        assert [len(right.recv(1 << 16)) for _ in range(2)] == [SIZE, SIZE]
        sender.wait(60)
        assert sender.next_id == (1 if sender.stopped else 2)
        assert kernel_id(left) == sender.next_id


def test_it_can_stop_with_sends_in_flight(
    waiting: tuple[cmsgx.ZeroCopySender, list[bytearray]],
) -> None:
    sender, buffers = waiting
    sender.acknowledge(completion(0, 0, COPIED))
    assert sender.copied is True
    sender.acknowledge(completion(1, 1))
    assert sender.copied is True
    assert not can_resize(buffers[0])


# The end ------------------------------------------------------------------------------------------


def test_close_waits() -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, right, ahead):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(buffer)
        drain = threading.Timer(0.2, lambda: read(right, ahead + SIZE))
        drain.start()
        assert sender.close() == ()
        drain.join()
        assert can_resize(buffer)
        assert sender.close() == ()
        with pytest.raises(ValueError, match="closed"):
            sender.send(b"1")


@pytest.mark.parametrize("timeout", [0, 0.1])
def test_close_hands_back_what_is_in_flight(timeout: float) -> None:
    one, two = bytearray(b"1" * SIZE), bytearray(b"2" * SIZE)
    with stalled() as (left, right, ahead):
        sender = cmsgx.ZeroCopySender(left)
        sender.send([one, b"more"])
        sender.send(two)
        views = sender.close(timeout)
        assert [bytes(view[:1]) for view in views] == [b"1", b"m", b"2"]
        assert views[0].obj is one
        assert sender.closed
        assert sender.pending == (0, 0)
        assert not can_resize(one)
        assert read(right, ahead + 2 * SIZE + 4)[ahead:] == one + b"more" + two
        assert sender.reap() == 0
        del views
        assert can_resize(one)


def test_release_goes_on() -> None:
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        sender.send(b"1" * SIZE)
        [view] = sender.release()
        sender.send(b"2" * SIZE)
        assert sender.pending == (1, SIZE)
        assert read(right, ahead + 2 * SIZE)[ahead:] == bytes(view) + b"2" * SIZE
        sender.wait(60)
        assert sender.next_id == 2


@pytest.mark.parametrize(("timeout", "expected"), [(0, BlockingIOError), (0.1, TimeoutError)])
def test_with_waits_and_says_so(timeout: float, expected: type[Exception]) -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, _, _):
        left.settimeout(timeout)
        with pytest.raises(expected), cmsgx.ZeroCopySender(left) as sender:
            sender.send(buffer)
        assert not sender.closed
        assert not can_resize(buffer)
        assert len(sender.close(0)) == 1


def test_with_that_fails_waits_for_nothing() -> None:
    with stalled() as (left, _, _):
        left.settimeout(None)
        sender = cmsgx.ZeroCopySender(left)
        sender.send(b"1")
        with pytest.raises(LookupError), sender:
            raise LookupError
        assert sender.closed
        assert len(sender.release()) == 1


def test_memory_in_flight_is_kept_when_the_sender_is_collected() -> None:
    buffer = bytearray(SIZE)
    before = len(_zerocopy._abandoned)
    with stalled() as (left, _, _):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(buffer)
        senders = [sender]
        del sender
        with pytest.warns(ResourceWarning, match="1 buffers in flight"):
            senders.clear()
        assert not can_resize(buffer)
    [[view]] = _zerocopy._abandoned[before:]
    del _zerocopy._abandoned[before:], view
    assert can_resize(buffer)


def test_a_collected_sender_looks_once_more() -> None:
    with udp() as (left, _):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(b"1")
        assert sender.pending == (1, 1)
        del sender  # warns of nothing
        gc.collect()


def test_a_reset_completes_everything() -> None:
    buffer = bytearray(SIZE)
    with stalled() as (left, right, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(buffer)
        right.close()  # with unread data: RST
        sender.wait(60)
        assert can_resize(buffer)
        with pytest.raises(ConnectionResetError):
            sender.send(buffer)


@pytest.mark.slow
def test_a_pending_error_is_neither_taken_nor_spun_on() -> None:
    """POLLERR and POLLHUP stay, and no completion comes: with an id that the kernel never gives."""
    with tcp() as (left, right):
        sender = cmsgx.ZeroCopySender(left, next_id=1000)
        sender.send(b"1")
        left.send(b"2")
        right.close()
        poll = select.poll()
        poll.register(left, 0)
        assert poll.poll(60_000)
        reads = reads_of(sender)
        with pytest.raises(TimeoutError):
            sender.wait(0.5)
        assert 0 < reads() < 100
        assert left.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET
        sender.release()


@pytest.mark.parametrize("form", ["socket", "Fd", "int"])
def test_a_closed_socket(form: str) -> None:
    with stalled() as (left, _, _):
        owner = left if form == "socket" else cmsgx.Fd(os.dup(left.fileno()))
        sender = cmsgx.ZeroCopySender(owner.fileno() if form == "int" else owner)
        sender.send(b"1")
        owner.close()
        for call in (sender.wait, sender.reap, lambda: sender.send(b"2")):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                call()
            assert caught.value.errno == errno.EBADF
        assert [bytes(view) for view in sender.close()] == [b"1"]
        assert sender.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            cmsgx.ZeroCopySender(left if form == "socket" else owner)


def test_a_number_that_is_another_sockets_by_now() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with stalled() as (left, _, _), one, two:
        number = os.dup(left.fileno())
        sender = cmsgx.ZeroCopySender(number)
        sender.send(b"1")
        os.dup2(two.fileno(), number)
        for data in (b"a", b"stranger's"):
            one.send(data)
        with pytest.raises(cmsgx.NotSupportedError, match="no error queue") as caught:
            sender.reap()
        assert cast(Any, caught.value).message.data == b"a"
        assert two.recv(100) == b"stranger's"
        assert sender.pending == (1, 1)
        assert [bytes(view) for view in sender.release()] == [b"1"]
        os.close(number)


@pytest.mark.parametrize("error", of_handlers(), ids=repr)
def test_close_lets_what_a_handler_raises_through(error: Exception) -> None:
    with stalled() as (left, _, _), handling(raising(error)):
        sender = cmsgx.ZeroCopySender(left)
        sender.send(b"1")
        # Again, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.1, 5)
        with pytest.raises(type(error)) as caught:
            sender.close()
        assert caught.value is error
        assert not sender.closed
        assert len(sender.close(0)) == 1


# A forked child -----------------------------------------------------------------------------------


def left_by_exit(sender: cmsgx.ZeroCopySender) -> None:
    with suppress(LookupError), sender:
        raise LookupError


@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize(
    "leave",
    [
        cmsgx.ZeroCopySender.__del__,
        cmsgx.ZeroCopySender.close,
        cmsgx.ZeroCopySender.release,
        left_by_exit,
        lambda sender: sender.__exit__(None, None, None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_child_leaves_the_completions(
    leave: Callable[[cmsgx.ZeroCopySender], object], is_locked: bool
) -> None:
    buffer = bytearray(SIZE)
    before = len(_zerocopy._abandoned)
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(buffer)

        def child() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                leave(sender)
            assert len(_zerocopy._abandoned) == before

        if is_locked:
            with sender._lock:
                in_fork(child)
        else:
            in_fork(child)
        assert sender.pending == (1, SIZE)
        sender.wait(60)
        assert can_resize(buffer)


@pytest.mark.parametrize("is_locked", [False, True])
@pytest.mark.parametrize(
    "use",
    [
        lambda sender: sender.send(b"1"),
        lambda sender: sender.send(b""),
        lambda sender: sender.send_all([b"1", b"2"]),
        lambda sender: sender.reap(),
        lambda sender: sender.wait(1),
        lambda sender: sender.acknowledge(None),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_a_child_is_told_that_the_completions_are_not_its_own(
    use: Callable[[cmsgx.ZeroCopySender], object], is_locked: bool
) -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(bytearray(SIZE))

        def child() -> None:
            with pytest.raises(RuntimeError, match=r"copy that a fork made.* next_id=1 "):
                use(sender)
            assert len(sender.close()) == 1

        with sender._lock if is_locked else nullcontext():
            in_fork(child)
        sender.wait(60)


# ENOBUFS ------------------------------------------------------------------------------------------


def with_little_locked_memory() -> None:
    """As a user whom nobody else is, and whose pinned memory nobody else counts."""
    user = 200_000 + os.getpid()
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (64 << 10, 64 << 10))
    with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
        # Nothing is in flight, so nothing can be waited for.
        with pytest.raises(OSError, match="No buffer space") as caught:
            cmsgx.send(left, bytes(100_000), flags=MSG_ZEROCOPY)
        assert caught.value.errno == errno.ENOBUFS
        assert sender.send(bytes(100_000)) == 100_000
        assert sender.pending == (0, 0)
        assert sender.next_id == 0

        buffer = bytearray(SIZE)
        sent, error = send_until_it_fails(sender, buffer, 0.2)
        sent += ahead + 100_000
        assert type(error) is TimeoutError
        count = sender.pending.sends
        assert 1 <= count <= 3
        threading.Timer(0.2, lambda: read(right, sent)).start()
        assert sender.send(buffer, timeout=60) == SIZE
        assert sender.next_id == count + 1
        read(right, SIZE)
        sender.wait(60)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
@pytest.mark.slow
def test_enobufs_for_locked_memory() -> None:
    in_fork(with_little_locked_memory)


def test_enobufs_for_the_memory_of_options() -> None:
    with Namespace() as space:
        try:
            space.write("/proc/sys/net/core/optmem_max", "4096")
        except OSError as why:
            pytest.skip(f"optmem_max of a namespace: {why}")
        with stalled(space.socket) as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
            sent = ahead
            error = None
            while error is None:
                try:
                    sent += sender.send(b"1", timeout=0.1)
                except TimeoutError as why:
                    error = why
                # Else the kernel makes one of two sends: the first of these ends the packet that
                # the send went into, and the second is in one of its own.
                for _ in range(2):
                    sent += left.send(b"2", socket.MSG_EOR)
            count = sender.pending.sends
            assert 1 <= count <= 20
            # It was no other limit.
            with pytest.raises(OSError, match="No buffer space"):
                cmsgx.send(left, b"1", flags=MSG_ZEROCOPY)
            drain = threading.Timer(0.2, lambda: read(right, sent))
            drain.start()
            assert sender.send(b"1", timeout=60) == 1
            drain.join()
            sender.wait(60)
            assert sender.next_id == count + 1


# What else is on the error queue ------------------------------------------------------------------


def test_other_reports_are_kept() -> None:
    with udp() as (left, right), cmsgx.ZeroCopySender(left) as sender:
        cmsgx.enable(left, kinds.ExtendedError)
        left.setsockopt(
            socket.SOL_SOCKET, SO_TIMESTAMPING, SOFTWARE | TX_SOFTWARE | OPT_ID | OPT_TSONLY
        )
        for _ in range(3):
            sender.send(b"1")
        closed = right.getsockname()
        right.close()
        sender.send(b"2", address=closed)
        assert eventually(lambda: sender.reap() >= 0 and len(sender.reports) == 5)
        sender.wait(60)
        assert sender.next_id == 4
        stamps = [each for each in sender.reports if isinstance(each, kinds.SentTimestamp)]
        errors = [each for each in sender.reports if isinstance(each, kinds.IcmpError)]
        assert [stamp.id for stamp in stamps] == [0, 1, 2, 3]
        assert [(each.errno, each.payload) for each in errors] == [(errno.ECONNREFUSED, b"2")]
        assert sender.lost_reports == 0
        assert sender.reports.popleft() is not None


def test_reports_that_nobody_takes_are_counted() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        most = sender.reports.maxlen
        assert most is not None
        report = kinds.UnknownReport(cast(Any, None), None)
        for _ in range(most + 3):
            assert sender.acknowledge(report) == 0
        assert len(sender.reports) == most
        assert sender.lost_reports == 3


def test_reports_that_others_read() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        sender.send(b"1")
        done = sum(sender.acknowledge(each) for each in cmsgx.receive_errors(left))
        assert done == 1
        assert sender.pending == (0, 0)


# Interruptions and threads ------------------------------------------------------------------------


class Interrupted(Exception):
    pass


class Interruptions:
    """Raises Interrupted wherever Python can, again and again; counts."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Interruptions:
        # What it calls when something goes that another test has left is nothing to interrupt.
        gc.collect()
        gc.disable()
        self._before = signal.signal(signal.SIGALRM, self._raise)
        return self

    def _raise(self, *_: object) -> None:
        raise Interrupted

    def run(self, step: Callable[[], bool], times: int) -> None:
        """Takes that step until it says False, and is interrupted; again and again."""
        for _ in range(times):
            try:
                # Once: nothing raises from where this was caught to the next time.
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + (self.count % 97) * 1e-6)
                self._until_it_fires(step)
            except Interrupted:
                self.count += 1

    # A function, as the jump back of a loop is not always within the try that the loop is in.
    @staticmethod
    def _until_it_fires(step: Callable[[], bool]) -> None:
        while step():
            pass
        time.sleep(1)

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)
        gc.enable()


@pytest.mark.parametrize("times", lengths("CMSGX_INTERRUPTIONS", 200, 10_000))
def test_an_interruption_loses_no_completion(times: int) -> None:
    with (
        Interruptions() as interruptions,
        udp() as (left, _),
        cmsgx.ZeroCopySender(left, max_pending=8) as sender,
    ):
        interruptions.run(lambda: sender.send([b"x" * 100, b"y"]) == 101, times)
        assert interruptions.count == times
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert kernel_id(left) == sender.next_id


@pytest.mark.parametrize("times", lengths("CMSGX_INTERRUPTIONS", 50, 2500))
def test_an_interruption_loses_no_send(times: int) -> None:
    with Interruptions() as interruptions:
        for _ in range(4):
            with stalled() as (left, right, ahead), cmsgx.ZeroCopySender(left) as sender:
                left.settimeout(0)

                def step(sender: cmsgx.ZeroCopySender = sender) -> bool:
                    try:
                        return sender.send(b"x" * 100) > 0
                    except BlockingIOError:
                        return False

                interruptions.run(step, times)
                right.settimeout(60)
                count, size = sender.pending
                assert 0 < count == sender.next_id
                left.shutdown(socket.SHUT_WR)
                arrived = 0
                while more := right.recv(1 << 16):
                    arrived += len(more)
                assert arrived == ahead + size
                left.settimeout(60)
        assert interruptions.count == 4 * times


@pytest.mark.parametrize("name", ["send", "reap", "acknowledge", "release"])
@without_other_threads
def test_a_failed_allocation_keeps_neither_the_lock_nor_a_buffer(name: str) -> None:
    """With the lock held for ever, close() and everything else would never return."""
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        data = (b"x" * 100, b"y")
        report = completion(LAST - 1, LAST - 1)
        act: dict[str, Callable[[], Any]] = {
            "send": lambda: sender.send(data),
            "reap": sender.reap,
            "acknowledge": lambda: sender.acknowledge(report),
            "release": sender.release,
        }
        for _ in each_allocation_fails(act[name]):
            is_locked = sender._lock.locked()
            if is_locked:  # or the end of the test would wait for ever
                sender._lock.release()
            assert not is_locked
            in_flight = sum(sending.sent[0] for sending in sender._in_flight.values())
            assert sender.pending.bytes == in_flight
            if name != "send":
                sender.send(data)
        sender.wait(60)
        assert sender.pending == (0, 0)
        assert kernel_id(left) == sender.next_id


def test_threads_take_turns() -> None:
    count, threads = 300, 4
    with udp() as (left, _), cmsgx.ZeroCopySender(left, max_pending=3) as sender:

        def body() -> None:
            for _ in range(count):
                sender.send(bytes(5000), timeout=60)

        running = [threading.Thread(target=body) for _ in range(threads)]
        for each in running:
            each.start()
        for each in running:
            each.join()
        sender.wait(60)
        assert sender.next_id == count * threads == kernel_id(left)


# Arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [{"max_bytes": 0}, {"max_pending": 0}, {"on_copied": "maybe"}, {"next_id": -1},
     {"next_id": 2**32}],
    ids=str,
)  # fmt: skip
def test_arguments(arguments: dict[str, Any]) -> None:
    with udp() as (left, _), pytest.raises(ValueError, match=next(iter(arguments))):
        cmsgx.ZeroCopySender(left, **arguments)


@pytest.mark.parametrize("name", ["max_bytes", "max_pending", "next_id"])
@pytest.mark.parametrize("value", [1.5, 2.0, "1"])
def test_fractions(name: str, value: object) -> None:
    text = f"{name}: an int is needed"
    with udp() as (left, _), pytest.raises(TypeError, match=text):
        cmsgx.ZeroCopySender(left, **cast(Any, {name: value}))


def test_what_is_no_report() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        with pytest.raises(TypeError, match="report: an ErrorReport is needed, not int"):
            sender.acknowledge(cast(Any, 5))
        assert not sender.reports


def test_not_supported() -> None:
    left, right = socket.socketpair()
    with left, right, pytest.raises(cmsgx.NotSupportedError, match="SO_ZEROCOPY") as caught:
        cmsgx.ZeroCopySender(left)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_what_is_no_buffer() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left) as sender:
        for wrong in ("text", 1, [1]):
            with pytest.raises(TypeError):
                sender.send(cast(Any, wrong))
        for send in (sender.send, sender.send_all):
            with pytest.raises(TypeError, match="contiguous"):
                send(memoryview(b"abcd")[::2])
        with pytest.raises(ValueError, match="timeout"):
            sender.send(b"1", timeout=-1)
        assert sender.pending == (0, 0)
        with suppress(BlockingIOError):
            sender.wait(0)


def test_repr() -> None:
    with udp() as (left, _), cmsgx.ZeroCopySender(left.fileno()) as sender:
        sender.send(b"12")
        assert repr(sender) == f"<ZeroCopySender of {left.fileno()}: 1 in flight, 2 bytes>"
        assert sender.close(5) == ()
        assert repr(sender) == f"<ZeroCopySender of {left.fileno()}: closed, 0 bytes>"


@pytest.mark.parametrize("name", ["send", "send_all"])
def test_iterators_that_are_used_up_are_named(name: str) -> None:
    with tcp() as (left, _right), cmsgx.ZeroCopySender(left) as sender:
        left.settimeout(0)
        call = getattr(sender, name)
        fill(left)
        for data, control, start in (
            (iter([bytes(1 << 20)]), (), "data was an iterator"),
            (iter([bytes(1 << 20)]), iter(()), "data, control were iterators"),
            ([bytes(1 << 20)], (), None),
        ):
            with pytest.raises(BlockingIOError) as caught:
                call(data, control=control, timeout=0)
            notes = getattr(caught.value, "__notes__", [])
            assert [note[: len(start or "")] for note in notes] == ([start] if start else [])
