"""The core of sends: what is left of messages, of which some went, or one in part."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterable
from typing import Any

import pytest
from batches import KEEP_BOUNDARIES, Whole, drain, new_pair, seen
from support import Pair, content, open_files

import cmsgx
from cmsgx import _cmsg, kinds
from cmsgx._core.sends import Unsent, rest_of

WHERE = ("127.0.0.1", 9)


def refusal(number: int = errno.ENOBUFS) -> OSError:
    return OSError(number, "refused")


def went(unsent: Unsent, count: int, part: int = 0) -> None:
    """As a call of C counts them."""
    unsent.progress[0] += count
    unsent.progress[1] = part if count else unsent.progress[1] + part


# Without a socket --------------------------------------------------------------------------------


def test_what_went_is_not_given_again() -> None:
    messages = [str(n).encode() for n in range(10)]
    unsent = Unsent.of(messages)
    assert unsent.next() == messages
    went(unsent, 4)
    unsent.told(False)
    assert unsent.next() == messages[4:]
    went(unsent, 6)
    unsent.told(True)
    assert unsent.next() == []
    assert unsent.result() == unsent.sent == 10
    assert Unsent.of([]).next() == []
    assert Unsent.of([]).result() == 0


@pytest.mark.parametrize("sent", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "data", [b"abcdefg", bytearray(b"abcdefg"), [b"ab", b"", b"cde", b"fg"], (b"abc", b"defg")]
)
def test_the_rest_of_a_message_has_no_descriptors(data: Any, sent: int) -> None:
    """They went with the first byte, and so did the control messages."""
    alone = [data] if not isinstance(data, tuple) else []
    for message in (*alone, (data,), (data, [0]), cmsgx.Outgoing(data, [0], kinds.Ttl(9), WHERE)):
        views, fds, control, *address = rest_of(message, sent)
        assert b"".join(views) == b"abcdefg"[sent:]
        assert (fds, control) == ((), ())
        assert address == ([WHERE] if isinstance(message, cmsgx.Outgoing) else [])


def test_a_message_that_went_in_part_goes_on_where_it_stopped() -> None:
    unsent = Unsent.of([b"first", (b"abcdefgh", [0]), b"last"])
    went(unsent, 1, 3)
    unsent.told(False)
    assert (unsent.sent, unsent.sent_bytes) == (1, 3)
    rest, last = unsent.next()
    assert (b"".join(rest[0]), *rest[1:]) == (b"defgh", (), ())
    assert last == b"last"
    # Its bytes add up, until it is over.
    went(unsent, 0, 2)
    unsent.told(False)
    assert b"".join(unsent.next()[0][0]) == b"fgh"
    went(unsent, 1, 1)
    unsent.told(False)
    assert [b"".join(part[0]) for part in unsent.next()] == [b"ast"]
    went(unsent, 1)
    unsent.told(True)
    assert unsent.next() == []
    assert unsent.result() == 3


def test_many_messages_are_looked_at_in_parts() -> None:
    """A call that takes ten of a million does not copy the others."""
    messages = [b"x"] * 5000
    unsent = Unsent.of(messages)
    total = 0
    while part := unsent.next():
        assert len(part) <= 1024
        total += len(part)
        went(unsent, len(part))
        unsent.told(True)
    assert total == unsent.result() == 5000


@pytest.mark.parametrize("outcome", [True, None])
def test_a_call_that_stops_at_a_wrong_message_ends_it(outcome: bool | None) -> None:
    """A call of its own, with the rest, says what is wrong with that message."""
    unsent = Unsent.of([b"1", b"2", 5, b"4"])
    unsent.next()
    went(unsent, 2)
    unsent.told(outcome)
    assert unsent.next() == []
    assert unsent.result() == 2
    # But not if an iterator was read: the caller cannot give the rest.
    unsent = Unsent.of(iter([b"1", 5]))
    unsent.next()
    went(unsent, 1)
    unsent.told(outcome)
    assert unsent.next() == [5]


CASES: dict[str, tuple[Any, int, int, str | None]] = {
    # what is sent, messages and bytes that went, what a note names if the error is raised
    "none went": ([b"1", b"2"], 0, 0, ""),
    "some went": ([b"1", b"2"], 1, 0, None),
    "a part went": ([b"1", b"23"], 1, 1, ""),
    "an iterator": (lambda: iter([b"1", b"2"]), 1, 0, "messages"),
    "data of the rest": (lambda: [b"1", (iter([b"2"]),)], 1, 0, "messages[1]"),
    "fds of the rest": (lambda: [b"1", (b"2", iter([0]))], 1, 0, "messages[1]"),
    "control of the rest": (lambda: [b"1", (b"2", (), iter([kinds.Ttl(1)]))], 1, 0, "messages[1]"),
    "data of what went": (lambda: [(iter([b"1"]),), b"2"], 1, 0, None),
    "data of both": (lambda: [(iter([b"1"]),), iter([b"2"])], 0, 0, "messages[0]"),
    "a file": (lambda: [b"1", (b"2", open(os.devnull))], 1, 0, None),  # noqa: SIM115
}


@pytest.mark.parametrize("case", CASES)
def test_an_error_is_raised_where_a_number_is_not_enough(case: str) -> None:
    made, count, part, noted = CASES[case]
    messages = made() if callable(made) else made
    unsent = Unsent.of(messages)
    unsent.next()
    went(unsent, count, part)
    error = refusal()
    unsent.told(error)
    assert unsent.next() == []
    if noted is None:
        assert unsent.result() == count
    else:
        with pytest.raises(OSError, match="refused") as caught:
            unsent.result()
        assert caught.value is error
        assert (error.sent, error.sent_bytes) == (count, part)  # type: ignore[attr-defined]
        notes = getattr(error, "__notes__", [])
        assert [note.partition(" was an iterator")[0] for note in notes] == [noted] * bool(noted)
    if case == "a file":
        messages[1][1].close()


def test_iterators_are_read_once_and_a_file_is_not_read() -> None:
    def parts() -> Iterable[bytes]:
        yield b"a"
        yield b"b"

    with open(os.devnull, "rb") as file:
        control = kinds.Ttl(9)
        unsent = Unsent.of(iter([(parts(), iter([0]), iter([control]), WHERE), (b"x", file)]))
        for _ in range(2):
            message, other = unsent.next()
            assert [bytes(view) for view in message[0]] == [b"a", b"b"]
            assert message[1:] == ((0,), (control,), WHERE)
            assert other == (b"x", file)


@pytest.mark.parametrize(
    "messages", [None, 5, "text", b"data", (b"data", [0]), cmsgx.Outgoing(b"data")]
)
def test_what_is_no_list_of_messages_is_refused_as_by_send_batch(messages: Any) -> None:
    with new_pair() as (left, _), pytest.raises(TypeError) as expected:
        cmsgx.send_batch(left, messages)
    with pytest.raises(TypeError) as caught:
        Unsent.of(messages)
    assert str(caught.value) == str(expected.value)


def test_messages_that_went_by_other_means_count() -> None:
    unsent = Unsent([b"1", b"2"], before=7)
    unsent.next()
    went(unsent, 1)
    unsent.told(refusal())
    assert unsent.result() == 8
    unsent = Unsent([b"1"], before=7)
    unsent.told(refusal())
    assert unsent.result() == 7


# Over sockets ------------------------------------------------------------------------------------


def run(sock: cmsgx.socket, messages: Any, before_wait: Any) -> int:
    """A waiter, as each of them drives it."""
    unsent = Unsent.of(messages)
    while some := unsent.next():
        outcome = _cmsg.try_send_batch(unsent.progress, sock, some)
        unsent.told(outcome)
        if outcome is False:
            before_wait()
            assert select.select([], [sock], [], 60)[1], "not writable for a minute"
    return unsent.result()


@pytest.mark.parametrize("kind", KEEP_BOUNDARIES)
@pytest.mark.parametrize("form", [list, iter])
def test_all_arrive_once_with_their_descriptors(kind: int, form: Any) -> None:
    with new_pair(kind) as (left, right), open_files(3) as files:
        left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        messages = [(str(n).encode(), [files[n % 3]]) for n in range(300)]
        got: list[Whole] = []
        assert run(left, form(messages), lambda: got.extend(drain(right))) == 300
        got += drain(right)
        assert got == [Whole(str(n).encode(), [str(n % 3)]) for n in range(300)]


def test_a_stream_gets_each_byte_once_and_descriptors_with_the_first(stream: Pair) -> None:
    left, right = stream
    left.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    got: list[Whole] = []
    receiver = cmsgx.Receiver(right, 30_000, fds=2)

    def read() -> None:
        try:
            while True:
                with receiver.receive(timeout=0) as message:
                    got.extend(seen([message]))
        except BlockingIOError:
            pass

    with open_files(2) as files:
        parts = [os.urandom(50_000), b"", os.urandom(7), os.urandom(90_000)]
        messages = [
            (parts[0], files[:1]),
            [parts[1], parts[2]],
            (iter([parts[3][:1], parts[3][1:]]), iter(files[1:])),
        ]
        assert run(left, messages, read) == 3
        read()
    assert b"".join(one.data for one in got) == b"".join(parts)
    assert [name for one in got for name in one.files] == ["0", "1"]
    # A message brings its descriptors together with its first byte.
    seen_bytes = 0
    for one in got:
        if one.files == ["1"]:
            assert seen_bytes <= 50_007 < seen_bytes + len(one.data)
        seen_bytes += len(one.data)


def test_an_error_after_some_is_met_again(packets: Pair) -> None:
    left, right = packets
    messages = [b"1", bytes(10_000_000), b"3"]
    assert run(left, messages, None) == 1
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)) as caught:
        run(left, messages[1:], None)
    assert (caught.value.sent, caught.value.sent_bytes) == (0, 0)  # type: ignore[attr-defined]
    assert drain(right) == [Whole(b"1", [])]
    assert run(left, [b"1", (b"", "wrong"), b"3"], None) == 1
    with pytest.raises(TypeError):
        run(left, [(b"", "wrong"), b"3"], None)


def test_descriptors_stay_the_callers(packets: Pair) -> None:
    left, right = packets
    with open_files(1) as files, cmsgx.Fd(os.dup(files[0])) as owner:
        assert run(left, [(b"x", owner), (b"y", [owner])], None) == 2
        assert content(owner) == "0"
        assert [one.files for one in drain(right)] == [["0"], ["0"]]
