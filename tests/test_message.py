"""Message: what one call received, and how control messages are found in it."""

from __future__ import annotations

import gc
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import (
    OLD_TIME,
    Pair,
    close_pair,
    content,
    open_fds,
    open_files,
    receive_with,
    stuck_in_close,
    unix_pair,
    unregistered,
    until_it_waits,
)

import cmsgx

SO_PASSCRED = 16
SO_TIMESTAMPNS = 35


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
    for kind in (cmsgx.Message, cmsgx.View):
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


def test_an_empty_datagram_is_not_eof() -> None:
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
    """Also if it cannot be told from a read of no bytes."""
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
def test_a_read_of_no_bytes_keeps_the_sender_of_what_waits(stream: Pair, fds: int) -> None:
    rx = cmsgx.Receiver(stream[1], 0, fds=1, want=[cmsgx.Credentials, cmsgx.PidFd])
    cmsgx.send(stream[0], b"x", fds=[0] * fds)
    stream[0].shutdown(socket.SHUT_WR)
    with rx.receive() as msg:
        assert msg[cmsgx.Credentials] == cmsgx.Credentials()
        assert msg[cmsgx.PidFd].pid == os.getpid()
        assert len(msg.fds) == fds


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_trunc_passed_by_the_caller_returns_the_full_length(kind: int) -> None:
    pair = unix_pair(kind)
    pair[0].send(b"1234567")
    msg = cmsgx.receive(pair[1], 3, flags=socket.MSG_TRUNC, on_truncation="keep")
    assert (msg.nbytes, msg.data, bytes(msg.view), msg.truncated) == (7, b"123", b"123", True)
    close_pair(pair)


# View -------------------------------------------------------------------------------------------


def test_view_is_a_read_only_bytes_like_object(stream: Pair) -> None:
    stream[0].send(b"0123456789")
    view = cmsgx.receive(stream[1], 100).view
    assert isinstance(view, cmsgx.View)
    assert len(view) == view.nbytes == 10
    assert (view[0], view[-1]) == (ord("0"), ord("9"))
    assert list(view[:3]) == list(b"012")
    assert type(view[2:5]) is cmsgx.View
    assert view[2:5] == b"234"
    assert view[2:5][1:] == b"34"
    assert bytes(view[::-1]) == b"9876543210"
    assert view[20:] == b""
    assert view == b"0123456789"
    assert view == bytearray(b"0123456789")
    # It equals neither a prefix nor an extension.
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
    """A message with two descriptors, credentials, a pidfd and a control message of an unknown
    kind."""
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
def test_what_is_not_a_kind_is_a_type_error(
    full: cmsgx.Message, look_up: Callable[[Any, Any], object], wrong: Any
) -> None:
    with pytest.raises(TypeError, match="not a kind"):
        look_up(full, wrong)


@pytest.mark.parametrize(
    ("kind", "want", "says"),
    [
        (cmsgx.Credentials, [], "not enabled"),
        (cmsgx.PidFd, [cmsgx.Credentials], "not enabled"),
        (cmsgx.SecurityLabel, [cmsgx.SecurityLabel], "although it is enabled"),
        (cmsgx.SecurityLabel, None, "does not enable options"),
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
        with (
            receive() as msg,
            pytest.raises(KeyError, match=f"descriptors.*fds={fds} was requested"),
        ):
            msg[cmsgx.Rights]


def test_a_key_error_says_what_others_switched_on(stream: Pair) -> None:
    cmsgx.enable(stream[1], cmsgx.SecurityLabel)
    stream[0].send(b"x")
    msg = cmsgx.Receiver(stream[1], 10).receive()
    with pytest.raises(KeyError) as caught:
        msg[cmsgx.SecurityLabel]
    assert "not enabled" not in str(caught.value)


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


def test_a_message_without_descriptors_is_dropped_silently(pair: Pair) -> None:
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
        assert thread.is_alive(), "the close did not block, so this test showed nothing"
        let_go()
        thread.join()
    assert msg.closed
