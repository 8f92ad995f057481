"""Streams for protocols that count, without a socket."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from arrivals import Interrupted, Queue, Read, interrupted_after, is_end, new_fds
from memory import need_testcapi, without_other_threads
from support import Pair, content, open_fds, open_files

import cmsgx
from cmsgx._core.queues import ByteStream, Rest


def read(stream: ByteStream, queue: Queue, call: Callable[[], Any]) -> Any:
    """The result of a read of the stream, which gets what it needs from the queue."""
    while (result := call()) is None:
        assert stream.pull(queue.receive), "the read needs more than there is"
    return result


def take(stream: ByteStream, n: int) -> list[str]:
    contents = []
    for fd in stream.take_fds(n):
        with fd:
            contents.append(content(fd))
    return contents


# Bytes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(1, 12))
def test_bytes_in_pieces_of_any_size(cut: int) -> None:
    whole = b"abc\n\nde\r\nfgh"
    pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    queue, stream = Queue(*[Read(piece) for piece in pieces]), ByteStream(is_end)
    assert read(stream, queue, lambda: stream.read_exactly(0)) == b""
    assert read(stream, queue, lambda: stream.read_exactly(2)) == b"ab"
    assert read(stream, queue, lambda: stream.read_until(b"\n", 10)) == b"c\n"
    assert read(stream, queue, lambda: stream.read_until(bytearray(b"\n"), 1)) == b"\n"
    assert read(stream, queue, lambda: stream.read_until(b"\r\n", 4)) == b"de\r\n"
    assert read(stream, queue, lambda: stream.read_exactly(3)) == b"fgh"
    assert stream.buffered == 0


@pytest.mark.parametrize("seed", range(20))
def test_random_reads_of_a_stream_with_descriptors(seed: int) -> None:
    chance = random.Random(seed)
    whole = bytes(chance.choices(b"ab;", k=200))
    reads: list[Read] = []
    names, firsts, at = list[str](), list[int](), 0
    while at < len(whole):
        size = chance.randint(1, 9)
        new = [f"{at}-{number}" for number in range(chance.choice([0, 0, 1, 3]))]
        names += new
        firsts += [at] * len(new)
        reads.append(Read(whole[at : at + size], new_fds(*new)))
        at += size
    queue, stream = Queue(*reads), ByteStream(is_end, max_queued=200)
    got, taken = b"", list[str]()
    while len(got) < len(whole):
        n = min(chance.randint(0, 20), len(whole) - len(got))
        if chance.random() < 0.5 and b";" in whole[len(got) :]:
            got += read(stream, queue, lambda: stream.read_until(b";", 200))
            assert got.endswith(b";")
        elif chance.random() < 0.2 and stream.buffered:
            rest = stream.next_message()
            got += rest.data
            taken += [content(fd) for fd in rest.fds]
            rest.close()
        else:
            got += read(stream, queue, lambda n=n: stream.read_exactly(n))  # type: ignore[misc]
        assert got == whole[: len(got)]
        here = len([first for first in firsts if first < len(got)]) - len(taken)
        with pytest.raises(cmsgx.BrokenError, match=f"{here} came"):
            stream.take_fds(here + 1)
        if chance.random() < 0.5:
            taken += take(stream, chance.randint(0, here))
    taken += take(stream, len(names) - len(taken))
    assert sorted(taken) == sorted(names)


def test_a_separator_is_looked_for_only_in_what_is_new() -> None:
    class Counting(bytearray):
        looked = 0

        def find(self, *args: Any) -> int:
            type(self).looked += args[2] - args[1]
            return super().find(*args)

    stream, queue = ByteStream(is_end), Queue()
    for _ in range(1000):
        queue.reads.append(Read(b"a"))
        assert stream.read_until(b"end", 10000) is None
        assert stream.pull(queue.receive)
        if type(stream._state[3]) is bytearray:
            stream._state = (*stream._state[:3], Counting(stream._state[3]), ())
    queue.reads.append(Read(b"end"))
    assert read(stream, queue, lambda: stream.read_until(b"end", 10000)) == b"a" * 1000 + b"end"
    assert Counting.looked < 6 * 1003


def test_another_separator_is_looked_for_in_all_that_is_there() -> None:
    stream, queue = ByteStream(is_end), Queue(Read(b"a;b,c"))
    assert stream.pull(queue.receive)
    assert stream.read_until(b"!", 100) is None
    assert stream.read_until(b",", 100) == b"a;b,"
    assert stream.read_until(b"!", 100) is None
    assert stream.wanted == 1


def test_a_read_that_was_not_finished_takes_nothing() -> None:
    stream, queue = ByteStream(is_end), Queue(Read(b"ab"), Read(b"cd"))
    assert stream.read_exactly(3) is None
    assert stream.wanted == 3
    stream.pull(queue.receive)
    assert stream.read_exactly(3) is None
    assert stream.wanted == 1
    assert stream.read_until(b"b", 2) == b"ab"
    assert read(stream, queue, lambda: stream.read_exactly(2)) == b"cd"


def test_bytes_that_were_read_do_not_stay_in_memory() -> None:
    stream, queue = ByteStream(is_end), Queue(Read(bytes(10)))
    read(stream, queue, lambda: stream.read_exactly(5))
    for _ in range(100):
        queue.reads.append(Read(bytes(1000)))
        for n in (1, 998, 1):
            read(stream, queue, lambda n=n: stream.read_exactly(n))  # type: ignore[misc]
        assert len(stream._state[3]) < 3000


# Descriptors --------------------------------------------------------------------------------------


def test_descriptors_come_in_order_with_the_bytes_that_were_read() -> None:
    queue = Queue(Read(b"ab", new_fds("a", "b")), Read(b"c"), Read(b"d", new_fds("d")))
    stream = ByteStream(is_end)
    with pytest.raises(cmsgx.BrokenError, match="take_fds: 1 are needed, and 0 came") as caught:
        stream.take_fds(1)
    assert caught.value.errno == errno.EPROTO
    read(stream, queue, lambda: stream.read_exactly(1))
    assert take(stream, 1) == ["a"]
    stream.pull(queue.receive)
    assert stream.read_exactly(4) is None
    stream.pull(queue.receive)
    assert stream.read_exactly(99) is None  # all is here, and a part of it is read
    assert stream.read_exactly(2) == b"bc"
    with pytest.raises(cmsgx.BrokenError, match="2 are needed, and 1 came"):
        stream.take_fds(2)
    read(stream, queue, lambda: stream.read_exactly(1))
    assert take(stream, 2) == ["b", "d"]
    assert stream.take_fds(0) == []


def test_what_is_left_over_is_a_message_with_its_descriptors() -> None:
    queue = Queue(
        Read(b"a", new_fds("a")), Read(b"bcd", new_fds("b", "c")), Read(b"ef"), Read(b"g"), Read()
    )
    stream = ByteStream(is_end)
    read(stream, queue, lambda: stream.read_exactly(2))
    with stream.next_message() as rest:
        assert type(rest) is Rest
        assert (rest.data, rest.nbytes, rest.view) == (b"cd", 2, b"cd")
        assert [content(fd) for fd in rest.fds] == ["b", "c"]
        assert (rest.eof, rest.truncated, rest.closed_fds, rest.control) == (False, False, 0, ())
    assert take(stream, 1) == ["a"]
    assert stream.next_message() is None
    assert stream.pull(queue.receive)
    assert stream.next_message().data == b"ef"
    assert read(stream, queue, lambda: stream.read_exactly(1)) == b"g"
    for _ in range(2):
        assert stream.pull(queue.receive)
        queue.reads.append(Read())
        assert stream.is_at_end
        assert stream.next_message().nbytes == 0
    stream.close()


def test_one_descriptor_is_taken_without_a_look_at_the_others() -> None:
    def steps_of_taking_one(queued: int) -> int:
        stream = ByteStream(is_end, max_queued=queued)
        queue = Queue(*[Read(b"x", new_fds(at)) for at in range(queued)])
        read(stream, queue, lambda: stream.read_exactly(queued))
        with interrupted_after(1 << 30) as left:
            [fd] = stream.take_fds(1)
        fd.close()
        stream.close()
        return (1 << 30) - left[0]

    assert steps_of_taking_one(40) == steps_of_taking_one(2)


def test_descriptors_without_bytes_go_with_the_bytes_after_them() -> None:
    def some() -> tuple[ByteStream, Queue]:
        reads = Read(b"", new_fds("a")), Read(b"", new_fds("b")), Read(b"cd", new_fds("c"))
        return ByteStream(lambda _: False), Queue(*reads)

    stream, queue = some()
    while stream.read_exactly(3) is None and stream.pull(queue.receive):
        pass
    with stream.next_message() as rest:
        assert (rest.data, [content(fd) for fd in rest.fds]) == (b"cd", ["a", "b", "c"])
    stream, queue = some()
    assert read(stream, queue, lambda: stream.read_exactly(1)) == b"c"
    assert take(stream, 2) == ["a", "b"]
    with stream.next_message() as rest:
        assert (rest.data, [content(fd) for fd in rest.fds]) == (b"d", ["c"])


def test_descriptors_that_were_not_taken_are_closed() -> None:
    before = open_fds()
    queue = Queue(Read(b"ab", new_fds("a", "b")), Read(b"c", new_fds("c")))
    stream = ByteStream(is_end)
    read(stream, queue, lambda: stream.read_exactly(1))
    assert take(stream, 1) == ["a"]
    stream.pull(queue.receive)
    stream.close()
    assert open_fds() == before
    for call in (lambda: stream.read_exactly(1), lambda: stream.read_until(b"x", 1),
                 lambda: stream.take_fds(0), stream.next_message,
                 lambda: stream.pull(queue.receive)):  # fmt: skip
        with pytest.raises(cmsgx.ClosedError, match="the connection is closed"):
            call()


# What breaks it -----------------------------------------------------------------------------------

Case = tuple[list[Any], Callable[[ByteStream], Any], type[cmsgx.BrokenError], str, bytes]
BREAKING: dict[str, Case] = {
    "the end inside": (
        [("ab", ""), ("", "")], lambda stream: stream.read_exactly(3), cmsgx.BrokenError,
        "read_exactly: 3 bytes are needed, and the stream ended after 2", b"ab",
    ),
    "the end at once": (
        [("", "")], lambda stream: stream.read_exactly(3), cmsgx.BrokenError,
        "read_exactly: 3 bytes are needed, and the stream ended after 0", b"",
    ),
    "the end before a separator": (
        [("ab", "ab"), ("", "")], lambda stream: stream.read_until(b";", 9), cmsgx.BrokenError,
        "read_until: b';' is needed, and the stream ended after 2", b"ab",
    ),
    "a separator beyond the limit": (
        [("ab", "ab"), ("c;", "c")], lambda stream: stream.read_until(b";", 3), cmsgx.LimitError,
        "read_until: b';' is not in the next 3 bytes, the limit", b"abc",
    ),
    "a separator that ends beyond the limit": (
        [("ab\r\n", "")], lambda stream: stream.read_until(b"\r\n", 3), cmsgx.LimitError,
        "read_until: b'\\r\\n' is not in the next 3 bytes, the limit", b"ab\r",
    ),
    "too many descriptors queued": (
        [("a", "abc"), ("b", "d"), ("c", "ef")], lambda stream: stream.read_exactly(4),
        cmsgx.LimitError, "stream: 6 descriptors wait to be taken; max_queued is 5", b"ab",
    ),
    "a descriptor without room": (
        [("a", "ab", 1)], lambda stream: stream.read_exactly(1), cmsgx.LimitError,
        "stream: one read brought more than 2 descriptors", b"",
    ),
    "some descriptors without room": (
        [("a", "ab", None)], lambda stream: stream.read_until(b"a", 1), cmsgx.LimitError,
        "stream: one read brought more than 2 descriptors", b"",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("reads", "call", "error", "text", "part"), BREAKING.values(), ids=BREAKING
)
def test_what_breaks_a_stream_for_good(
    reads: list[Any],
    call: Callable[[ByteStream], Any],
    error: type[cmsgx.BrokenError],
    text: str,
    part: bytes,
) -> None:
    before = open_fds()
    queue = Queue(*[
        Read(data.encode(), new_fds(*names), closed_fds=(more or [0])[0])
        for data, names, *more in reads
    ])  # fmt: skip
    stream = ByteStream(is_end, max_queued=5)
    with pytest.raises(error) as caught:
        read(stream, queue, lambda: call(stream))
    assert open_fds() == before
    again = []
    for other in (lambda: call(stream), stream.next_message, lambda: stream.take_fds(0)):
        with pytest.raises(error) as later:
            other()
        again.append(later.value)
    for one in caught.value, *again:
        assert type(one) is error
        assert str(one).endswith(f": {text}")
        assert one.partial == part
    queue.close()


def test_lost_descriptors_break_a_read_and_no_message() -> None:
    error = cmsgx.FdLimitError(errno.EMFILE, "no descriptors arrived", Read(b"b"))  # type: ignore[arg-type]
    stream, queue = ByteStream(is_end), Queue(Read(b"a", new_fds("a")), error, Read(b"c"), error)
    assert read(stream, queue, lambda: stream.read_exactly(1)) == b"a"
    assert stream.next_message() is None
    with pytest.raises(cmsgx.FdLimitError):
        stream.pull(queue.receive)
    assert read(stream, queue, lambda: stream.read_exactly(1)) == b"c"
    assert stream.read_exactly(1) is None
    with pytest.raises(cmsgx.BrokenError, match=r"stream: .*no descriptors arrived") as caught:
        stream.pull(queue.receive)
    assert caught.value.__cause__ is error
    with pytest.raises(cmsgx.BrokenError, match="no descriptors arrived"):
        stream.take_fds(1)


@pytest.mark.parametrize("mode", ["raise", "keep"])
def test_a_message_that_was_cut_breaks_a_read(packets: Pair, mode: Any) -> None:
    sender, receiving = packets
    receiver = cmsgx.Receiver(receiving, 4, on_truncation=mode)
    stream = ByteStream(receiver.is_end)
    for data in b"ab", b"cdef and more", b"next":
        sender.send(data)

    def read_all() -> None:
        while stream.read_exactly(6) is None:
            assert stream.pull(receiver.try_receive)

    for _ in range(2):
        with pytest.raises(cmsgx.BrokenError, match="longer than the buffer") as caught:
            read_all()
        assert caught.value.partial == b"ab"


def test_a_message_that_was_cut_is_a_message(packets: Pair) -> None:
    sender, receiving = packets
    receiver = cmsgx.Receiver(receiving, 4)
    stream = ByteStream(receiver.is_end)
    sender.send(b"too long")
    sender.send(b"next")
    with pytest.raises(cmsgx.DataTruncatedError):
        stream.pull(receiver.try_receive)
    while (data := stream.read_exactly(4)) is None:
        assert stream.pull(receiver.try_receive)
    assert data == b"next"


def test_a_reset_comes_after_the_messages_and_before_the_end() -> None:
    reset = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
    stream = ByteStream(is_end)
    queue = Queue(reset, Read(b"one"), Read(b"two"), Read(), Read())
    for expected in b"one", b"two":
        assert stream.pull(queue.receive)
        assert stream.next_message().data == expected
    with pytest.raises(ConnectionResetError):
        stream.pull(queue.receive)
    for _ in range(2):
        assert stream.pull(queue.receive)
        assert stream.is_at_end
        assert stream.next_message().nbytes == 0


ROWS: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda stream: stream.read_exactly(-1), ValueError, "n: -1; it cannot be negative"),
    (lambda stream: stream.read_exactly("1"), TypeError, "n: an int is needed, not str"),
    (lambda stream: stream.read_until(b"", 1), ValueError,
     "separator: it is empty; at least 1 byte is needed"),
    (lambda stream: stream.read_until("x", 1), TypeError,
     "separator: a bytes-like object is needed, not str; encode it: text.encode()"),
    (lambda stream: stream.read_until(b"\r\n", 1), ValueError, "limit: 1; must be 2 or more"),
    (lambda stream: stream.take_fds(-1), ValueError, "n: -1; it cannot be negative"),
    (lambda stream: ByteStream(is_end, max_queued=-1), ValueError,
     "max_queued: -1; it cannot be negative"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), ROWS, ids=[row[2] for row in ROWS])
def test_arguments_that_cannot_be(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call(ByteStream(is_end))
    assert str(caught.value) == text


# Interrupted --------------------------------------------------------------------------------------


def results_of_reads(after: int) -> tuple[int, list[Any]]:
    """What a program gets that goes on after an exception of a signal handler at this step."""
    reads = [("ab;", "ab"), ("c", ""), ("defg", "c"), ("hi;j", ""), ("k", "d"), ("lm", "ef")]
    queue = Queue(*[Read(data.encode(), new_fds(*names)) for data, names in reads])
    stream = ByteStream(is_end)

    def message() -> Any:
        got = stream.next_message()
        if got is None:
            return None
        with got:
            return got.data, [content(fd) for fd in got.fds]

    calls: list[Callable[[], Any]] = [
        lambda: stream.read_exactly(2), lambda: stream.read_until(b";", 9),
        lambda: take(stream, 1), lambda: stream.read_exactly(3), lambda: take(stream, 2),
        lambda: stream.read_until(b";", 9), lambda: stream.read_exactly(3), message,
        lambda: take(stream, 1),
    ]  # fmt: skip
    results = []
    with interrupted_after(after) as left:
        for call in calls:
            result = None
            before = stream._state
            while result is None:
                try:
                    result = call()
                    if result is None:
                        stream.pull(queue.receive)
                except Interrupted:
                    now = stream._state
                    counts = [sum([len(batch.fds()) for batch in s[4]]) for s in (before, now)]
                    if now[1] > before[1] or counts[1] < counts[0]:
                        result = "lost"  # on its way from the call to its caller
            results.append(result)
    stream.close()
    return left[0], results


@without_other_threads
def test_a_read_for_which_there_is_no_memory_can_be_made_again() -> None:
    testcapi = need_testcapi()
    failures = 0
    for at in range(150):
        before = open_fds()
        reads = [("ab;", "ab"), ("c", ""), ("defg", "c"), ("hi;j", ""), ("k", "d")]
        queue = Queue(*[Read(data.encode(), new_fds(*names)) for data, names in reads])
        stream = ByteStream(is_end)
        calls: list[Callable[[], Any]] = [
            partial(stream.read_exactly, 2), partial(stream.read_until, b";", 9),
            partial(stream.take_fds, 1), partial(stream.read_exactly, 3),
            partial(stream.take_fds, 2), partial(stream.read_until, b";", 9),
            partial(stream.read_exactly, 2),
        ]  # fmt: skip
        results: list[Any] = [None] * len(calls)
        number = 0
        testcapi.set_nomemory(at, at + 1)
        try:
            while number < 7:
                try:
                    results[number] = calls[number]()
                    if results[number] is None:
                        stream.pull(queue.receive)
                    else:
                        number += 1
                except MemoryError:
                    failures += 1
        finally:
            testcapi.remove_mem_hooks()
        fds = [*results[2], *results[4]]
        assert [content(fd) for fd in fds] == ["a", "b", "c"], at
        del results[2], results[3]
        assert results == [b"ab", b";", b"cde", b"fghi;", b"jk"], at
        while fds:
            fds.pop().close()
        stream.close()
        assert open_fds() == before, at
    assert failures > 50


@pytest.mark.parametrize("stride", [127, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_handler_that_raises_tears_nothing(stride: int) -> None:
    left, expected = results_of_reads(0)
    assert expected == [
        b"ab", b";", ["a"], b"cde", ["b", "c"], b"fghi;", b"jkl", (b"m", ["e", "f"]), ["d"]
    ]  # fmt: skip
    assert left < -1000
    losses = 0
    for after in range(1, -left + 1, stride):
        before = open_fds()
        results = results_of_reads(after)[1]
        lost = results.count("lost")
        assert lost <= 1, after
        losses += lost
        assert [
            wanted if got == "lost" else got for got, wanted in zip(results, expected, strict=True)
        ] == expected, after
        assert open_fds() == before, after
    assert losses < -left // stride // 5


# Over a socket ------------------------------------------------------------------------------------


def test_a_receiver_of_cmsgx_brings_what_a_stream_needs() -> None:
    left, right = cmsgx.socketpair()
    with left, right, open_files(3) as files:
        receiver = cmsgx.Receiver(right, 1000, fds=16)
        stream = ByteStream(lambda message: message.eof is True)
        cmsgx.send(left, b"plain;")
        cmsgx.send(left, b"two;one;rest", fds=files)
        left.close()
        lines: list[bytes] = []
        while len(lines) < 3:
            line = stream.read_until(b";", 100)
            if line is None:
                stream.pull(receiver.receive)
            else:
                lines.append(line)
        assert lines == [b"plain;", b"two;", b"one;"]
        assert take(stream, 2) == ["0", "1"]
        with stream.next_message() as rest:
            assert rest.data == b"rest"
            assert [content(fd) for fd in rest.fds] == ["2"]
        assert stream.pull(receiver.receive)
        assert stream.next_message().eof


def test_a_reset_over_seqpacket_comes_after_what_was_queued() -> None:
    left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right, open_files(1) as files:
        receiver = cmsgx.Receiver(right, 1000, fds=1)
        stream = ByteStream(receiver.is_end)
        right.send(b"never read")
        cmsgx.send(left, b"", fds=files)  # empty, and yet not the end
        cmsgx.send(left, b"")
        cmsgx.send(left, b"last")
        assert stream.pull(receiver.try_receive)
        left.close()
        got: list[Any] = []
        with pytest.raises(ConnectionResetError):
            drain(stream, receiver, got)
        assert got == [(b"", ["0"]), (b"", []), (b"last", [])]
        for _ in range(2):
            assert stream.pull(receiver.try_receive)
            assert stream.is_at_end
            stream.next_message().close()


def test_whether_a_message_is_the_end_is_asked_at_once_and_once() -> None:
    asked = []
    answers = [False, True]

    def ask(message: Read) -> bool:
        asked.append(message)
        return answers[len(asked) - 1]

    reads = [Read(), Read(b"x"), Read()]
    stream, queue = ByteStream(ask), Queue(*reads)
    for one, count, last in zip(reads, (1, 1, 2), (False, False, True), strict=True):
        assert stream.pull(queue.receive)
        assert len(asked) == count
        assert stream.is_at_end == last
        assert stream.pull(queue.receive)
        assert stream.next_message() is one
    assert asked == [reads[0], reads[2]]


def drain(stream: ByteStream, receiver: cmsgx.Receiver, got: list[Any]) -> None:
    while stream.pull(receiver.try_receive) and not stream.is_at_end:
        with stream.next_message() as message:
            got.append((message.data, [content(fd) for fd in message.fds]))
