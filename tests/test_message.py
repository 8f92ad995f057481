"""Message: what one receive brought, and who owns its descriptors."""

from __future__ import annotations

import gc
import os
import socket
import struct
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, ClassVar

import pytest
from support import (
    OLD_TIME,
    Pair,
    close_pair,
    content,
    is_open,
    need_classes_that_go,
    open_fds,
    open_files,
    run_python,
    stuck_in_close,
    unix_pair,
    unregistered,
    until_it_waits,
)

import cmsgx
from cmsgx import _cmsg, kinds

SO_PASSCRED = 16
SO_TIMESTAMPNS = 35
NETLINK_NOOP = struct.pack("=IHHII", 16, 1, 5, 1, 0)  # one that asks for an answer


def receive_with(
    pair: Pair, sent: int, *, data: bytes = b"data", want: list[Any] | None = None, **more: Any
) -> cmsgx.Message:
    """A message with that many descriptors, each with its index as content."""
    rx = cmsgx.Receiver(pair[1], 100, want=want or [], **{"fds": sent, **more})
    with open_files(sent) as files:
        cmsgx.send(pair[0], data, fds=files)
    return rx.receive()


# Attributes -------------------------------------------------------------------------------------


def test_attributes_of_a_plain_message(pair: Pair) -> None:
    pair[0].send(b"data")
    msg = cmsgx.receive(pair[1], 100)
    assert msg.data == b"data"
    assert type(msg.data) is bytes
    assert msg.data is msg.data
    assert bytes(msg.view) == b"data"
    assert msg.nbytes == 4
    assert len(msg.fds) == 0
    assert list(msg.fds) == []
    assert msg.control == ()
    assert list(msg) == []
    assert msg.flags & ~socket.MSG_EOR == 0
    assert msg.truncated is False
    assert msg.eof is False
    assert msg.closed_fds == 0
    assert msg.closed is False
    assert repr(msg) == "<Message 4 bytes, 0 descriptors>"
    msg.close()
    assert msg.closed is True
    assert msg.data == b"data"


@pytest.mark.parametrize(
    "name",
    [
        *("data", "view", "nbytes", "fds", "control", "flags", "address", "truncated", "eof"),
        *("closed_fds", "closed"),
    ],
)
def test_attributes_are_read_only(stream: Pair, name: str) -> None:
    stream[0].send(b"x")
    msg = cmsgx.receive(stream[1], 1)
    with pytest.raises((AttributeError, TypeError)):
        setattr(msg, name, None)
    with pytest.raises((AttributeError, TypeError)):
        delattr(msg, name)


def test_only_receiving_makes_one() -> None:
    for kind in (cmsgx.Message, cmsgx.wire.View):
        with pytest.raises(TypeError):
            kind()
        with pytest.raises(TypeError):
            type("Derived", (kind,), {})


def test_always_true_and_no_length(stream: Pair) -> None:
    stream[0].close()
    msg = cmsgx.receive(stream[1], 1)
    assert msg.nbytes == 0
    assert bool(msg) is True
    with pytest.raises(TypeError):
        len(msg)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "bufsize", "eof"),
    [
        (socket.SOCK_STREAM, 10, True),
        (socket.SOCK_STREAM, 0, None),
        (socket.SOCK_SEQPACKET, 10, None),
    ],
)
@pytest.mark.parametrize("by", ["receive", "Receiver", "number"])
def test_eof(kind: int, bufsize: int, eof: bool | None, by: str) -> None:
    pair = unix_pair(kind)
    pair[0].close()
    if by == "Receiver":
        msg = cmsgx.Receiver(pair[1], bufsize).receive()
    else:
        msg = cmsgx.receive(pair[1] if by == "receive" else pair[1].fileno(), bufsize)
    assert msg.nbytes == 0
    assert msg.eof is eof
    assert ("end of stream" in repr(msg)) == (eof is True)
    close_pair(pair)


def test_eof_of_a_tcp_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname()).close()
        with listener.accept()[0] as accepted:
            assert cmsgx.receive(accepted, 10).eof is True


def test_an_empty_datagram_is_no_eof() -> None:
    pair = unix_pair(socket.SOCK_DGRAM)
    pair[0].send(b"")
    msg = cmsgx.receive(pair[1], 10)
    assert (msg.nbytes, msg.data, msg.eof) == (0, b"", False)
    close_pair(pair)


@pytest.mark.parametrize("want", [[], [cmsgx.Credentials], [cmsgx.Credentials, cmsgx.PidFd]])
def test_the_end_of_a_stream_carries_no_credentials(stream: Pair, want: list[Any]) -> None:
    """The kernel invents (0, 0, 0) there: root."""
    rx = cmsgx.Receiver(stream[1], 10, want=want)
    before = open_fds()
    stream[0].shutdown(socket.SHUT_WR)
    msg = rx.receive()
    assert msg.eof is True
    assert cmsgx.Credentials not in msg
    assert cmsgx.PidFd not in msg
    assert msg.control == ()
    assert open_fds() == before
    stream[1].setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
    assert cmsgx.Credentials not in cmsgx.receive(stream[1], 10)


@pytest.mark.parametrize("want", [[cmsgx.Credentials], [cmsgx.Credentials, cmsgx.PidFd]])
@pytest.mark.parametrize(
    ("room", "flags", "eof"),
    [
        ({"bufsize": 0}, 0, None),
        ({"into": []}, 0, None),
        ({"bufsize": 10}, socket.MSG_ERRQUEUE, True),
        ({"into": [bytearray(10)]}, socket.MSG_ERRQUEUE, True),
    ],
)
@pytest.mark.parametrize("by", ["receive", "Receiver"])
def test_the_end_of_a_stream_carries_none_whatever_is_asked(
    stream: Pair, want: list[Any], room: dict[str, Any], flags: int, eof: bool | None, by: str
) -> None:
    """Also where it cannot be told from a read of no bytes."""
    before = open_fds()
    rx = cmsgx.Receiver(stream[1], want=want, **room)
    stream[0].shutdown(socket.SHUT_WR)
    for _ in range(2):
        msg = (
            rx.receive(flags=flags)
            if by == "Receiver"
            else cmsgx.receive(stream[1], room.get("bufsize", 0), flags=flags)
        )
        assert msg.eof is (eof if by == "Receiver" or "bufsize" in room else None)
        assert cmsgx.Credentials not in msg
        assert cmsgx.PidFd not in msg
        assert msg.control == ()
    assert open_fds() == before


@pytest.mark.parametrize("fds", [0, 1])
def test_a_read_of_no_bytes_keeps_who_sent_what_waits(stream: Pair, fds: int) -> None:
    rx = cmsgx.Receiver(stream[1], 0, fds=1, want=[cmsgx.Credentials, cmsgx.PidFd])
    cmsgx.send(stream[0], b"x", fds=[0] * fds)
    stream[0].shutdown(socket.SHUT_WR)
    with rx.receive() as msg:
        assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        assert msg[cmsgx.PidFd].pid == os.getpid()
        assert len(msg.fds) == fds


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_trunc_passed_by_the_caller_tells_the_full_length(kind: int) -> None:
    pair = unix_pair(kind)
    pair[0].send(b"1234567")
    msg = cmsgx.receive(pair[1], 3, flags=socket.MSG_TRUNC, on_truncation="keep")
    assert (msg.nbytes, msg.data, bytes(msg.view), msg.truncated) == (7, b"123", b"123", True)
    close_pair(pair)


# View -------------------------------------------------------------------------------------------


def test_view_is_a_read_only_bytes_like_object(stream: Pair) -> None:
    stream[0].send(b"0123456789")
    view = cmsgx.receive(stream[1], 100).view
    assert isinstance(view, cmsgx.wire.View)
    assert len(view) == view.nbytes == 10
    assert (view[0], view[-1]) == (ord("0"), ord("9"))
    assert list(view[:3]) == list(b"012")
    assert type(view[2:5]) is cmsgx.wire.View
    assert view[2:5] == b"234"
    assert view[2:5][1:] == b"34"
    assert bytes(view[::-1]) == b"9876543210"
    assert view[20:] == b""
    assert view == b"0123456789"
    assert view == bytearray(b"0123456789")
    # Neither the start of it nor what goes on.
    for other in (b"x", b"", b"01234567", b"0123456789\0", b"0123456788"):
        assert view != other
        assert not view == other  # noqa: SIM201
    assert view != "0123456789"
    assert hash(view) == hash(b"0123456789")
    assert view.tobytes() == bytes(view) == b"0123456789"
    assert memoryview(view).readonly
    assert b"".join([view, view[:1]]) == b"01234567890"
    assert int.from_bytes(view[:2], "big") == 0x3031
    assert repr(view) == "<View of 10 bytes>"
    for wrong in (10, -11):
        with pytest.raises(IndexError):
            view[wrong]
    with pytest.raises(TypeError):
        view["x"]  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        view[0] = 1  # type: ignore[index, unused-ignore]


# Looking up -------------------------------------------------------------------------------------


@pytest.fixture
def full() -> Iterator[cmsgx.Message]:
    """A message with two descriptors, credentials, a pidfd and one of an unknown kind."""
    pair = unix_pair(socket.SOCK_DGRAM)
    pair[1].setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    with (
        receive_with(pair, 2, want=[cmsgx.Credentials, cmsgx.PidFd]) as msg,
        unregistered(cmsgx.kinds.Timestamp),
    ):
        yield msg
    close_pair(pair)


def test_look_up_by_kind(full: cmsgx.Message) -> None:
    for kind in (cmsgx.Rights, cmsgx.Credentials, cmsgx.PidFd, cmsgx.Unknown):
        assert kind in full
        assert type(full[kind]) is kind
        assert type(full.get(kind)) is kind
        assert [type(one) for one in full.get_all(kind)] == [kind]
    assert cmsgx.SecurityLabel not in full
    assert full.get(cmsgx.SecurityLabel) is None
    assert full.get(cmsgx.SecurityLabel, "default") == "default"
    assert full.get_all(cmsgx.SecurityLabel) == ()
    assert full[cmsgx.Credentials] == cmsgx.Credentials()
    unknown = full[cmsgx.Unknown]
    assert (unknown.level, unknown.type, len(unknown.data)) == (1, SO_TIMESTAMPNS, OLD_TIME.size)


def test_iterating_yields_the_control_messages(full: cmsgx.Message) -> None:
    assert sorted(type(record).__name__ for record in full) == [
        *("Credentials", "PidFd", "Rights", "Unknown")
    ]
    assert tuple(full) == full.control
    assert type(full.control) is tuple


def test_rights_shows_the_same_objects(full: cmsgx.Message) -> None:
    rights = full[cmsgx.Rights]
    assert rights.fds == tuple(full.fds)
    assert all(a is b for a, b in zip(rights, full.fds, strict=True))
    assert full.get_all(cmsgx.Rights)[0][1] is full.fds[1]
    assert full[cmsgx.PidFd] is full[cmsgx.PidFd]
    record = next(one for one in full if isinstance(one, cmsgx.Rights))
    assert record[0] is full.fds[0]


@pytest.mark.parametrize("wrong", [int, object, 3, "Credentials", None, cmsgx.Fd])
@pytest.mark.parametrize(
    "look_up",
    [
        lambda msg, kind: msg[kind],
        lambda msg, kind: msg.get(kind),
        lambda msg, kind: msg.get_all(kind),
        lambda msg, kind: kind in msg,
    ],
    ids=["[]", "get", "get_all", "in"],
)
def test_what_is_no_kind_is_a_type_error(
    full: cmsgx.Message, look_up: Callable[[Any, Any], object], wrong: Any
) -> None:
    with pytest.raises(TypeError, match="not a kind"):
        look_up(full, wrong)


@pytest.mark.parametrize(
    ("kind", "want", "says"),
    [
        (cmsgx.Credentials, [], "not switched on"),
        (cmsgx.PidFd, [cmsgx.Credentials], "not switched on"),
        (cmsgx.SecurityLabel, [cmsgx.SecurityLabel], "though it is switched on"),
        (cmsgx.SecurityLabel, None, "neither sets nor asks for options"),
        (cmsgx.kinds.AlgIv, [], "only sent, never received"),
        (cmsgx.kinds.AlgIv, None, "only sent, never received"),
    ],
)
def test_a_key_error_names_the_kind_and_says_whether_it_was_switched_on(
    stream: Pair, kind: Any, want: list[Any] | None, says: str
) -> None:
    stream[0].send(b"x")
    rx = None if want is None else cmsgx.Receiver(stream[1], 10, want=want)
    with cmsgx.receive(stream[1], 10) if rx is None else rx.receive() as msg:
        with pytest.raises(KeyError, match=f"{kind.__name__}.*{says}"):
            msg[kind]
        with pytest.raises(KeyError, match="PidFd"):
            msg.take(cmsgx.PidFd)


@pytest.mark.parametrize("fds", [0, 3])
def test_a_key_error_says_how_many_descriptors_were_asked_for(stream: Pair, fds: int) -> None:
    rx = cmsgx.Receiver(stream[1], 10, fds=fds)
    ways: tuple[Callable[[], cmsgx.Message], ...] = (
        rx.receive,
        lambda: cmsgx.receive(stream[1], 10, fds=fds),
    )
    for receive in ways:
        stream[0].send(b"x")
        with receive() as msg, pytest.raises(KeyError, match=f"descriptors.*fds={fds} was asked"):
            msg[cmsgx.Rights]


def test_a_key_error_tells_what_others_switched_on(stream: Pair) -> None:
    cmsgx.enable(stream[1], cmsgx.SecurityLabel)
    stream[0].send(b"x")
    msg = cmsgx.Receiver(stream[1], 10).receive()
    with pytest.raises(KeyError) as caught:
        msg[cmsgx.SecurityLabel]
    assert "not switched on" not in str(caught.value)


def test_decoding_leaves_the_message_as_it_was(full: cmsgx.Message) -> None:
    assert full[cmsgx.Credentials] is not full[cmsgx.Credentials]
    assert full[cmsgx.Credentials] == full[cmsgx.Credentials]
    full.close()
    assert full[cmsgx.Credentials] == cmsgx.Credentials()
    assert cmsgx.Credentials in full


def test_control_data_stays_when_descriptors_are_closed(full: cmsgx.Message) -> None:
    full.close()
    assert cmsgx.Unknown in full
    assert full[cmsgx.Unknown].type == SO_TIMESTAMPNS
    assert full.get_all(cmsgx.Unknown)
    assert cmsgx.Credentials() in full.control
    assert cmsgx.Credentials() in list(full)


# Taking -----------------------------------------------------------------------------------------


def test_take_moves_ownership(pair: Pair) -> None:
    msg = receive_with(pair, 3)
    with msg:
        second = msg.take(1)
        last = msg.take(-1)
        assert type(second) is cmsgx.Fd
        assert msg.fds[1] is second
        assert [content(fd) for fd in msg.fds] == list("012")  # indexes do not shift
        first = msg.fds[0]
    assert first.closed
    assert [content(second), content(last)] == ["1", "2"]
    second.close()
    last.close()


def test_what_is_not_taken_is_closed_at_the_end_of_the_with(pair: Pair) -> None:
    before = open_fds()
    with receive_with(pair, 5, want=[cmsgx.PidFd]) as msg:
        numbers = [fd.fileno() for fd in msg.fds] + [msg[cmsgx.PidFd].fileno()]
        assert all(map(is_open, numbers))
    assert not any(map(is_open, numbers))
    assert open_fds() == before
    for fd in msg.fds:
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.fileno()


@pytest.mark.parametrize("look_first", [True, False])
def test_using_it_after_the_with_is_a_value_error(pair: Pair, look_first: bool) -> None:
    with receive_with(pair, 2, want=[cmsgx.PidFd]) as msg:
        if look_first:
            assert len(list(msg.fds)) == 2
            assert msg[cmsgx.PidFd]
    for use in (
        lambda: msg.take(0),
        lambda: msg.take_all(),
        lambda: msg.take(cmsgx.PidFd),
        lambda: msg.fds[0].fileno(),
        lambda: msg[cmsgx.Rights][1].fileno(),  # type: ignore[union-attr]
        lambda: msg[cmsgx.PidFd].fileno(),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert len(msg.fds) == 2
    assert repr(msg.fds)
    assert repr(msg).endswith("closed>")


def test_take_twice(pair: Pair) -> None:
    with receive_with(pair, 2, want=[cmsgx.PidFd]) as msg:
        fd, pidfd = msg.take(0), msg.take(cmsgx.PidFd)
        with pytest.raises(ValueError, match="descriptor 0 was taken before"):
            msg.take(0)
        with pytest.raises(ValueError, match="descriptor 0 was taken before"):
            msg.take(-2)
        with pytest.raises(ValueError, match="PidFd was taken before"):
            msg.take(cmsgx.PidFd)
        rest = msg.take_all()
        assert [content(one) for one in rest] == ["1"]
        assert msg.take_all() == []
        with pytest.raises(ValueError, match="descriptor 1 was taken before"):
            msg.take(1)
    assert pidfd.pid == os.getpid()
    for one in (fd, pidfd, *rest):
        one.close()


@pytest.mark.parametrize("sent", [0, 1, 2, 3, 253])
def test_take_all(pair: Pair, sent: int) -> None:
    with receive_with(pair, sent) as msg:
        taken = msg.take_all()
    assert type(taken) is list
    assert [content(fd) for fd in taken] == [str(index) for index in range(sent)]
    for fd in taken:
        fd.close()


def test_take_all_leaves_the_pidfd(pair: Pair) -> None:
    with receive_with(pair, 0, want=[cmsgx.PidFd]) as msg:
        assert msg.take_all() == []
        number = msg[cmsgx.PidFd].fileno()
    assert not is_open(number)


@pytest.mark.parametrize(
    ("which", "error"),
    [(2, IndexError), (-3, IndexError), (2**70, IndexError), ("0", TypeError), (None, TypeError)],
    ids=repr,
)
def test_take_what_is_not_there(stream: Pair, which: Any, error: type[Exception]) -> None:
    with receive_with(stream, 2) as msg, pytest.raises(error):
        msg.take(which)


@pytest.mark.parametrize("call", ["take_one", "take_all", "detach_all", "take"])
def test_what_has_no_arguments_or_a_class_takes_no_more(stream: Pair, call: str) -> None:
    with receive_with(stream, 1) as msg:
        for arguments, named in (((1, 2), {}), ((), {"other": 1})):
            with pytest.raises(TypeError, match=call):
                getattr(msg, call)(*arguments, **named)
        assert content(msg.fds[0]) == "0"


# take_one ---------------------------------------------------------------------------------------


def test_take_one_of_one(pair: Pair) -> None:
    with receive_with(pair, 1, want=[cmsgx.PidFd]) as msg:
        fd = msg.take_one()
        assert type(fd) is cmsgx.Fd
        assert msg.fds[0] is fd
        with pytest.raises(ValueError, match="descriptor 0 was taken before"):
            msg.take_one()
    assert content(fd) == "0"
    fd.close()
    with pytest.raises(ValueError, match="the message was closed"):
        msg.take_one()


@pytest.mark.parametrize(
    ("sent", "fds", "text"),
    [
        (0, 1, "0 descriptors came"),
        (0, 0, "0 descriptors came"),
        (2, 2, "2 descriptors came"),
        (253, 253, "253 descriptors came"),
    ],
)
def test_take_one_says_how_many_came(pair: Pair, sent: int, fds: int, text: str) -> None:
    with receive_with(pair, sent, fds=fds) as msg:
        with pytest.raises(ValueError, match=f"take_one: {text}$"):
            msg.take_one()
        assert [content(fd) for fd in msg.fds] == [str(index) for index in range(sent)]


@pytest.mark.parametrize(
    ("sent", "fds", "text"),
    [
        (1, 0, r"1 descriptor came, of which 1 was closed \(fds=0\)"),
        (2, 1, r"2 descriptors came, of which 1 was closed \(fds=1\)"),
        (5, 1, r"5 descriptors came, of which 4 were closed \(fds=1\)"),
    ],
)
def test_take_one_counts_those_that_were_closed(pair: Pair, sent: int, fds: int, text: str) -> None:
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
    with cmsgx.receive(pair[1], 1, fds=fds) as msg:
        with pytest.raises(ValueError, match=f"take_one: {text}"):
            msg.take_one()
        assert [content(fd) for fd in msg.fds] == ["0"] * fds


def test_take_one_knows_that_the_kernel_dropped_some(pair: Pair) -> None:
    with receive_with(pair, 3, fds=1) as msg:
        assert msg.closed_fds is None
        with pytest.raises(ValueError, match="1 descriptor is here, and the kernel dropped others"):
            msg.take_one()
        assert content(msg.fds[0]) == "0"


# detach_all -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [0, 1, 4, 5, 253])
@pytest.mark.parametrize("looked_at", [0, 1, 253])
@pytest.mark.parametrize("close", ["now", "background"])
def test_detach_all_gives_numbers(pair: Pair, sent: int, looked_at: int, close: str) -> None:
    with receive_with(pair, sent, close=close) as msg:
        seen = msg.fds[:looked_at]
        numbers = msg.detach_all()
        assert all(fd.closed for fd in seen)
        assert len(msg.fds) == sent
        assert all(fd.closed for fd in msg.fds)
        assert msg.detach_all() == []
        assert msg.take_all() == []
        if sent:
            with pytest.raises(ValueError, match="descriptor 0 was taken before"):
                msg.take(0)
    assert [os.pread(number, 9, 0) for number in numbers] == [b"%d" % at for at in range(sent)]
    for number in numbers:
        assert type(number) is int
        os.close(number)
    assert _cmsg.closer_counts() == (0, 0), "their places in the closer were given back"


def test_detach_all_leaves_what_was_taken_and_the_pidfd(pair: Pair) -> None:
    with receive_with(pair, 3, want=[cmsgx.PidFd]) as msg:
        taken = msg.take(1)
        numbers = msg.detach_all()
        assert [os.pread(number, 9, 0) for number in numbers] == [b"0", b"2"]
        assert content(taken) == "1"
        assert msg[cmsgx.PidFd].pid == os.getpid()
        taken.close()
        for number in numbers:
            os.close(number)
    with pytest.raises(ValueError, match="the message was closed"):
        msg.detach_all()


@pytest.mark.parametrize("close", ["now", "background"])
def test_detach_all_takes_none_where_one_is_gone(pair: Pair, close: str) -> None:
    with receive_with(pair, 3, close=close) as msg:
        first = msg.fds[0]
        msg.fds[1].close()
        with pytest.raises(ValueError, match="detach_all: descriptor 1 was closed or given away"):
            msg.detach_all()
        assert [content(first), content(msg.take(2))] == ["0", "2"]
        msg.fds[2].close()
    assert first.closed
    assert cmsgx.wait_closed(60) == 0


@pytest.mark.parametrize("fd_class", [None, cmsgx.PidFd], ids=["Fd", "fd_class"])
@pytest.mark.parametrize("how", ["close", "detach"])
@pytest.mark.parametrize("call", ["take", "take_one", "take_all"])
@pytest.mark.parametrize("close", ["now", "background"])
def test_what_was_looked_at_and_is_gone_is_not_taken(
    pair: Pair, call: str, how: str, fd_class: Any, close: str
) -> None:
    with receive_with(pair, 1 if call == "take_one" else 3, close=close) as msg:
        at = len(msg.fds) - 1
        number = getattr(msg.fds[at], how)()
        if number is not None:
            os.close(number)
        arguments = (at,) if call == "take" else ()
        for _ in range(2):
            with pytest.raises(
                ValueError, match=f"^{call}: descriptor {at} was closed or given away: <Fd {how}"
            ):
                getattr(msg, call)(*arguments, fd_class=fd_class)
        with_message = list(msg.fds[:at])
        assert [content(fd) for fd in with_message] == ["0", "1"][:at]
    assert all(fd.closed for fd in with_message)  # none was taken
    assert cmsgx.wait_closed(60) == 0


# fd_class= --------------------------------------------------------------------------------------


class WithSlots(cmsgx.Fd):
    __slots__ = ("note",)

    def __init__(self, number: int) -> None:
        raise AssertionError("__init__() is not called")


class WithDict(cmsgx.Fd):
    def __new__(cls, number: int) -> WithDict:
        raise AssertionError("__new__() is not called")


class WithDel(cmsgx.Fd):
    seen: ClassVar[list[bool]] = []

    def __del__(self) -> None:
        self.seen.append(self.closed)
        self.close()


class Meta(type):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the class is not called")


class WithMeta(cmsgx.Fd, metaclass=Meta):
    __slots__ = ()


FD_CLASSES = [WithSlots, WithDict, WithDel, WithMeta, cmsgx.PidFd]


@pytest.mark.parametrize("how", ["take", "take_one", "take_all"])
@pytest.mark.parametrize("look_first", [True, False])
@pytest.mark.parametrize("close", ["now", "background"])
@pytest.mark.parametrize("fd_class", FD_CLASSES)
def test_what_is_taken_is_of_the_class_that_was_asked_for(
    stream: Pair, how: str, look_first: bool, close: str, fd_class: type[cmsgx.Fd]
) -> None:
    with receive_with(stream, 1, close=close) as msg:
        seen = msg.fds[0] if look_first else None
        if how == "take":
            fd = msg.take(0, fd_class=fd_class)
        elif how == "take_one":
            fd = msg.take_one(fd_class=fd_class)
        else:
            [fd] = msg.take_all(fd_class=fd_class)
        assert type(fd) is fd_class
        assert seen is None or seen.closed
        assert msg.fds[0].closed
        assert len(msg.fds) == 1
        with pytest.raises(ValueError, match="descriptor 0 was taken before"):
            msg.take(0)
    assert content(fd) == "0"
    assert os.get_inheritable(fd.fileno()) is False
    if hasattr(fd, "__dict__"):
        fd.of_its_own = 1  # type: ignore[attr-defined]
    fd.close()
    assert cmsgx.wait_closed(60) == 0
    assert _cmsg.closer_counts() == (0, 0)


def test_what_is_taken_as_another_class_is_closed_as_its_receiver_closes(stream: Pair) -> None:
    with stuck_in_close(240) as (number, release):
        receiver = cmsgx.Receiver(stream[1], 1, fds=2, close="background")
        cmsgx.send(stream[0], b"x", fds=[number, number])
        os.close(number)
        with receiver.receive() as msg:
            one, other = msg.take(0, fd_class=WithDict), msg.take_all(fd_class=WithSlots)[0]
        one.close()
        other.close()
        assert _cmsg.closer_counts()[0] >= 1, "it was closed in this thread"
        release()
    assert cmsgx.wait_closed(60) == 0


@pytest.mark.parametrize("given", [None, cmsgx.Fd])
def test_fd_class_of_none_is_fd(stream: Pair, given: Any) -> None:
    with receive_with(stream, 2) as msg:
        fd = msg.take(0, fd_class=given)
        assert type(fd) is cmsgx.Fd
        assert msg.fds[0] is fd
        [other] = msg.take_all(fd_class=given)
        assert msg.fds[1] is other
        fd.close()
        other.close()


@pytest.mark.parametrize("wrong", [int, "Fd", 3, socket.socket, cmsgx.Message], ids=repr)
@pytest.mark.parametrize("how", ["take", "take_one", "take_all"])
def test_fd_class_is_a_subclass_of_fd(stream: Pair, how: str, wrong: Any) -> None:
    arguments = (0,) if how == "take" else ()
    with receive_with(stream, 1) as msg:
        with pytest.raises(TypeError, match="fd_class: a subclass of Fd is needed, not "):
            getattr(msg, how)(*arguments, fd_class=wrong)
        assert content(msg.fds[0]) == "0"


class Peer(cmsgx.PidFd):
    name = "peer"


@pytest.mark.parametrize("look_first", [True, False])
def test_a_pidfd_is_taken_as_a_subclass_of_pidfd(pair: Pair, look_first: bool) -> None:
    with receive_with(pair, 1, want=[cmsgx.PidFd]) as msg:
        if look_first:
            assert msg[cmsgx.PidFd].pid == os.getpid()
        for wrong in (cmsgx.Fd, WithDict):
            with pytest.raises(
                TypeError, match="fd_class: a subclass of PidFd, for a PidFd, is needed, not "
            ):
                msg.take(cmsgx.PidFd, fd_class=wrong)  # type: ignore[type-var]
        peer = msg.take(cmsgx.PidFd, fd_class=Peer)
        with pytest.raises(ValueError, match="PidFd was taken before"):
            msg.take(cmsgx.PidFd)
    assert type(peer) is Peer
    assert (peer.pid, peer.error) == (os.getpid(), None)
    peer.close()


def test_an_fd_that_closes_itself_when_it_goes(stream: Pair) -> None:
    WithDel.seen.clear()
    with receive_with(stream, 2) as msg:
        number = msg.take(0, fd_class=WithDel).fileno()
        assert WithDel.seen == [False]
        assert not is_open(number)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            msg.take_all(fd_class=WithDict)
            gc.collect()
        assert any("was never closed" in str(one.message) for one in caught)


def test_a_cycle_through_what_was_taken_is_collected(stream: Pair) -> None:
    """An Fd of a class of the caller's can refer to the message, or to its fds."""
    with receive_with(stream, 2) as msg:
        one, other = msg.take_all(fd_class=WithDict)
        for fd in (one, other):
            fd.message, fd.fds = msg, msg.fds  # type: ignore[attr-defined]
            fd.close()
    gone = weakref.ref(one)
    del msg, one, other, fd
    gc.collect()
    assert gone() is None


def test_an_errno_in_place_of_a_pidfd_goes_along() -> None:
    code = """
import cmsgx, errno, os, resource
class Peer(cmsgx.PidFd): pass
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, want=[cmsgx.PidFd])
cmsgx.send(a, b"x")
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1, hard))
with rx.receive() as msg:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    peer = msg.take(cmsgx.PidFd, fd_class=Peer)
print(type(peer).__name__, peer.closed, errno.errorcode[peer.error])
a.close(); b.close()
"""
    try:
        told = run_python(code)
    except AssertionError as error:
        if "no SO_PASSPIDFD" in str(error):
            pytest.skip("no SO_PASSPIDFD")
        raise
    assert told.split() == ["Peer", "True", "EMFILE"]


def test_fds_is_a_read_only_sequence(stream: Pair) -> None:
    with receive_with(stream, 3) as msg:
        fds = msg.fds
        assert len(fds) == 3
        assert [content(fd) for fd in fds] == list("012")
        assert fds[0] is msg.fds[0]
        assert fds[-1] is fds[2]
        assert fds[1:] == (fds[1], fds[2])
        assert fds == tuple(fds)
        assert fds == list(msg.fds)
        assert fds != ()
        assert fds[1] in fds
        assert "Fd" in repr(fds)
        assert isinstance(fds, Sequence)
        assert (fds.index(fds[2]), fds.count(fds[2]), list(reversed(fds))) == (2, 1, [*fds][::-1])
        assert fds.index(fds[1], 1, -1) == 1
        assert fds.count(3) == 0
        with pytest.raises(ValueError, match="not in tuple"):
            fds.index(fds[0], 1)
        for wrong in (3, -4):
            with pytest.raises(IndexError):
                fds[wrong]
        with pytest.raises(TypeError):
            fds[0] = None  # type: ignore[index]
        with pytest.raises(TypeError):
            del fds[0]  # type: ignore[attr-defined]
        with pytest.raises(AttributeError):
            fds.append(1)  # type: ignore[attr-defined]


@pytest.mark.parametrize("fds", [0, 1])
def test_the_errno_of_a_pidfd_stays_when_the_message_is_closed(fds: int) -> None:
    code = f"""
import cmsgx, errno, os, resource
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, fds={fds}, want=[cmsgx.PidFd])
cmsgx.send(a, b"x", fds=[0] * {fds})
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 1 + {fds}, hard))
with rx.receive() as msg:
    pass
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(errno.errorcode[msg[cmsgx.PidFd].error], len(msg.fds))
a.close(); b.close()
"""
    try:
        told = run_python(code)
    except AssertionError as error:
        if "no SO_PASSPIDFD" in str(error):
            pytest.skip("no SO_PASSPIDFD")
        raise
    assert told.split() == ["EMFILE", str(fds)]


def test_a_descriptor_that_was_closed_by_hand(stream: Pair) -> None:
    before = open_fds()
    with receive_with(stream, 2) as msg:
        msg.fds[0].close()
        os.close(msg.fds[1].detach())
    assert open_fds() == before


# Outside a `with` -------------------------------------------------------------------------------


def test_outside_a_with_an_fd_lives_as_long_as_somebody_holds_it(pair: Pair) -> None:
    with open_files(1) as files:
        cmsgx.send(pair[0], b"x", fds=files)
    fds = cmsgx.receive(pair[1], 1, fds=1).fds
    gc.collect()
    assert content(fds[0]) == "0"
    fd = fds[0]
    del fds
    gc.collect()
    assert content(fd) == "0"
    fd.close()


def test_outside_a_with_one_statement_works(pair: Pair) -> None:
    with open_files(2) as files:
        cmsgx.send(pair[0], b"x", fds=files)
    first, second = cmsgx.receive(pair[1], 1, fds=2).fds
    assert [content(first), content(second)] == ["0", "1"]
    first.close()
    second.close()


def test_rights_keep_their_fds_alive(pair: Pair) -> None:
    rights = receive_with(pair, 2)[cmsgx.Rights]
    gc.collect()
    assert [content(fd) for fd in rights] == ["0", "1"]  # type: ignore[arg-type]
    for fd in rights:
        fd.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("looked_at", [0, 1, 3])
def test_a_message_that_is_dropped_closes_what_nobody_holds(pair: Pair, looked_at: int) -> None:
    before = open_fds()
    msg = receive_with(pair, 3)
    held = [msg.fds[index] for index in range(looked_at)]
    if looked_at < 3:
        with pytest.warns(ResourceWarning, match=f"{3 - looked_at} descriptors was never closed"):
            del msg
    else:
        del msg
    assert len(open_fds()) == len(before) + looked_at
    for fd in held:
        fd.close()
    assert open_fds() == before


def test_a_message_without_descriptors_is_dropped_in_silence(pair: Pair) -> None:
    pair[0].send(b"x")
    cmsgx.receive(pair[1], 1)


# Surplus and truncation -------------------------------------------------------------------------


@pytest.mark.parametrize("fds", [0, 1, 4])
@pytest.mark.parametrize("sent", [1, 2, 5, 253])
def test_a_surplus_is_closed_and_counted_and_no_error(pair: Pair, fds: int, sent: int) -> None:
    with open_files(sent) as files:
        cmsgx.send(pair[0], b"x", fds=files)
        before = open_fds()
        with cmsgx.receive(pair[1], 1, fds=fds) as msg:
            surplus = max(0, sent - fds)
            assert [content(fd) for fd in msg.fds] == [str(i) for i in range(min(sent, fds))]
            assert msg.truncated == (surplus > 0)
            assert msg.closed_fds == surplus
            assert len(open_fds()) == len(before) + len(msg.fds)
            assert msg.data == b"x"
        assert open_fds() == before


def test_what_the_kernel_dropped_is_not_counted(pair: Pair) -> None:
    with receive_with(pair, 5, fds=2) as msg:
        assert (len(msg.fds), msg.truncated, msg.closed_fds) == (2, True, None)
        assert msg.flags & socket.MSG_CTRUNC
        assert repr(msg) == "<Message 4 bytes, 2 descriptors, truncated>"


# Two threads at once ----------------------------------------------------------------------------


def test_a_message_used_by_two_threads_at_once_raises(stream: Pair) -> None:
    with stuck_in_close() as (number, let_go):
        cmsgx.send(stream[0], b"x", fds=[number])
        os.close(number)
        msg = cmsgx.receive(stream[1], 1, fds=1)
        thread = threading.Thread(target=msg.close)
        thread.start()
        until_it_waits(thread)
        with pytest.raises(RuntimeError, match="is in use"):
            msg.take(0)
        assert thread.is_alive(), "the close did not block, so this showed nothing"
        let_go()
        thread.join()
    assert msg.closed


# Cycles -----------------------------------------------------------------------------------------


class Buffer(bytearray):
    """One that can refer to what is received into it."""

    it: Any


def own_kind() -> Any:
    """A kind of the user's, which can refer to what it is in; to be taken out of the table."""
    kind: Any = type("Own", (kinds.StructMessage,), {"__slots__": ()})
    return kinds.register(kind, level=-5, type=0x7E60, layout=(("x", 0, "i"),), size=4)


def raised_by(receiver: Any) -> Exception:
    with pytest.raises(cmsgx.DataTruncatedError) as caught:
        receiver.receive()
    return caught.value


FROM_RECEIVER: dict[str, Callable[[Any], Any]] = {
    "Receiver": lambda rx: rx,
    "Message": lambda rx: rx.receive(),
    "Message, looked at": lambda rx: (msg := rx.receive(), msg.data, msg.address, msg.control)[0],
    "Message, the last of a loop": lambda rx: (next(iter(rx)), rx)[1],
    "Descriptors": lambda rx: rx.receive().fds,
    "iterator of Descriptors": lambda rx: iter(rx.receive().fds),
    "method": lambda rx: rx.receive().take_all,
    "error": raised_by,
}
FROM_INTO: dict[str, Callable[[Any], Any]] = {
    **FROM_RECEIVER,
    "View": lambda rx: rx.receive().view,
    "slice of a View": lambda rx: rx.receive().view[1:2],
    "memoryview": lambda rx: memoryview(rx.receive().view)[1:],
    "iterator of a View": lambda rx: iter(rx.receive().view),
    "Segments": lambda rx: rx.receive().segments,
    "iterator of Segments": lambda rx: iter(rx.receive().segments),
}
FROM_BATCHES: dict[str, Callable[[Any], Any]] = {
    "BatchReceiver": lambda rx: rx,
    "Batch": lambda rx: rx.receive(),
    "Batch, looked at": lambda rx: (batch := rx.receive(), batch[:])[0],
    "Batch, the last of a loop": lambda rx: (next(iter(rx)), rx)[1],
    "Message of a Batch": lambda rx: rx.receive()[1],
    "iterator of a Batch": lambda rx: iter(rx.receive()),
}


@pytest.fixture
def letters(packets: Pair) -> Pair:
    """With three messages that are there, longer than what most here take."""
    for _ in range(3):
        packets[0].send(b"data, and more")
    return packets


def is_gone(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None


@pytest.mark.parametrize("buffers", [1, 2])
@pytest.mark.parametrize("name", FROM_INTO)
def test_a_cycle_through_the_buffers_of_the_caller_is_collected(
    letters: Pair, name: str, buffers: int
) -> None:
    into = [Buffer(6) for _ in range(buffers)]
    keeps = "raise" if name == "error" else "keep"
    if buffers > 1 and "egments" in name:
        into = into[:1]  # segments of several are refused
    receiver = cmsgx.Receiver(letters[1], into=into, on_truncation=keeps)  # type: ignore[arg-type]
    into[-1].it = FROM_INTO[name](receiver)
    reference = weakref.ref(into[0])
    del receiver, into
    assert is_gone(reference)


@pytest.mark.parametrize("name", [*FROM_RECEIVER, *FROM_BATCHES])
def test_a_cycle_through_a_kind_that_was_wanted_is_collected(letters: Pair, name: str) -> None:
    need_classes_that_go()
    more: Any = {} if name == "error" else {"on_truncation": "keep"}
    with unregistered():
        kind = own_kind()
        if name in FROM_BATCHES:
            kind.it = FROM_BATCHES[name](cmsgx.BatchReceiver(letters[1], 2, 10, want=[kind]))
        else:
            kind.it = FROM_RECEIVER[name](cmsgx.Receiver(letters[1], 10, want=[kind], **more))
    reference = weakref.ref(kind)
    del kind
    assert is_gone(reference)


@pytest.mark.parametrize("make", [cmsgx.Receiver, partial(cmsgx.BatchReceiver, count=2)])
def test_a_cycle_through_what_a_receiver_reads_is_collected(letters: Pair, make: Any) -> None:
    class Referring:
        it: Any

        def fileno(self) -> int:
            return letters[1].fileno()

    sock = Referring()
    sock.it = make(sock, bufsize=10)
    reference = weakref.ref(sock)
    del sock
    assert is_gone(reference)


def test_a_cycle_gives_back_the_descriptors_that_are_in_it(stream: Pair) -> None:
    buffer = Buffer(10)
    with open_files(8) as files:
        receiver = cmsgx.Receiver(stream[1], into=buffer, fds=8)
        cmsgx.send(stream[0], b"x", fds=files)
        message = receiver.receive()
    first = message.fds[0]
    buffer.it = message
    reference = weakref.ref(buffer)
    del message, receiver, buffer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert is_gone(reference)
    assert any("7 descriptors" in str(warning.message) for warning in caught)
    first.close()


@pytest.mark.parametrize("name", [name for name in (*FROM_INTO, *FROM_BATCHES) if name != "error"])
def test_what_is_held_elsewhere_outlives_the_cycle(letters: Pair, name: str) -> None:
    """The collector sees each reference once: nobody's buffer is let go while it is used."""
    need_classes_that_go()
    buffer = Buffer(10)
    with unregistered():
        kind = own_kind()
        held: Any
        if name in FROM_BATCHES:
            held = FROM_BATCHES[name](cmsgx.BatchReceiver(letters[1], 2, 10, want=[kind]))
            references = [weakref.ref(kind)]
        else:
            receiver = cmsgx.Receiver(letters[1], into=buffer, want=[kind], on_truncation="keep")
            held = FROM_INTO[name](receiver)
            references = [weakref.ref(buffer)]
            del receiver
    kind.it = buffer.it = held
    del kind, buffer
    for _ in range(3):
        assert [is_gone(reference) for reference in references] == [False]
    if isinstance(held, cmsgx.Message):
        assert held.data == b"data, and "
    if isinstance(held, (cmsgx.wire.View, memoryview)):
        assert bytes(held) in b"data, and "
    assert repr(held)
    del held
    assert [is_gone(reference) for reference in references] == [True]


def test_what_can_be_in_no_cycle_is_not_tracked(letters: Pair) -> None:
    """Each message would cost the collector's bookkeeping otherwise."""
    buffer = Buffer(10)
    into = cmsgx.Receiver(letters[1], into=buffer, on_truncation="keep")
    traced: list[Any] = [into.receive()]
    traced += [traced[0].fds, traced[0].view, traced[0].segments, iter(traced[0].segments)]
    assert [gc.is_tracked(one) for one in traced] == [True] * 5
    del traced, into
    letters[0].send(b"data")
    message = cmsgx.Receiver(letters[1], 100, want=[cmsgx.Credentials, cmsgx.PidFd]).receive()
    plain: list[Any] = [
        message,
        message.fds,
        message.view,
        message.segments,
        iter(message.segments),
    ]
    assert [gc.is_tracked(one) for one in plain] == [False] * 5
    assert not gc.is_tracked(message[cmsgx.Credentials])
    letters[0].send(b"data")
    batch = cmsgx.BatchReceiver(letters[1], 2, 100).receive()
    assert [gc.is_tracked(one) for one in (batch, batch[0])] == [False] * 2


def test_the_collector_may_run_at_any_time(letters: Pair) -> None:
    """Half made, or used, or given back: what it visits is whole."""
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for _ in range(50):
            with unregistered():
                kind = own_kind()
                buffer = Buffer(5)
                receiver = cmsgx.Receiver(
                    letters[1], into=[buffer, Buffer(9)], want=[kind], on_truncation="keep"
                )
                letters[0].send(b"data")
                message = receiver.receive()
                buffer.it = [message, message.fds, message.data, message.view, receiver]
                kind.it = [kind(1), cmsgx.BatchReceiver(letters[1], 1, 1, want=[kind])]
                receiver.refresh()
    finally:
        gc.set_threshold(*threshold)
