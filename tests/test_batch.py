"""BatchReceiver: many messages with one system call, each with its own data, descriptors and
control messages."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batches import KEEP_BOUNDARIES, Whole, new_pair, seen, udp_pair
from namespaces import Namespace, needs_ipv6
from support import Pair, content, eventually, is_open, open_fds, open_files

import cmsgx
from cmsgx import _cmsg, kinds

# Receiving: each message with its own -----------------------------------------------------------


@pytest.mark.parametrize("kind", KEEP_BOUNDARIES)
def test_each_message_with_its_own_data_and_descriptors(kind: int) -> None:
    with new_pair(kind) as (left, right), open_files(8) as files:
        rx = cmsgx.BatchReceiver(right, 8, 100, fds=8)
        for _ in range(3):
            expected = []
            for i in range(8):
                cmsgx.send(left, b"x" * i, fds=files[:i])
                expected.append(Whole(b"x" * i, [str(n) for n in range(i)]))
            with rx.receive() as batch:
                assert seen(batch) == expected
                assert all(type(msg) is cmsgx.Message for msg in batch)
                assert not any(msg.truncated for msg in batch)


def test_a_stream_gives_a_message_for_each_that_carried_descriptors(stream: Pair) -> None:
    with open_files(3) as files:
        for i in range(3):
            cmsgx.send(stream[0], str(i).encode(), fds=[files[i]])
        rx = cmsgx.BatchReceiver(stream[1], 10, 100, fds=1)
        with rx.receive() as batch:
            assert seen(batch) == [Whole(str(i).encode(), [str(i)]) for i in range(3)]
            assert [msg.address for msg in batch] == [None] * 3


def test_credentials_and_pidfds_each_of_its_sender(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 6, 100, want=[cmsgx.Credentials, cmsgx.PidFd])
    uids = range(5) if os.geteuid() == 0 else [os.geteuid()] * 5
    for uid in uids:
        cmsgx.send(left, b"x", control=cmsgx.Credentials(os.getpid(), uid, os.getegid()))
    before = open_fds().keys()
    batches = [rx.receive()]
    while sum(len(batch) for batch in batches) < 5:  # as the descriptor table allows
        batches.append(rx.receive())
    messages = [msg for batch in batches for msg in batch]
    assert [msg[cmsgx.Credentials].uid for msg in messages] == list(uids)
    assert [msg[cmsgx.PidFd].pid for msg in messages] == [os.getpid()] * 5
    with messages[2].take(cmsgx.PidFd) as taken:
        for batch in batches:
            batch.close()
        assert taken.pid == os.getpid()
        assert open_fds().keys() == before | {taken.fileno()}


def test_lengths_are_restored_before_each_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a message without an address, without control data, or with a short address: complete
    ones."""
    monkeypatch.chdir(tmp_path)  # because the path of a socket has at most 107 bytes
    with ExitStack() as stack:
        right = stack.enter_context(cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        files = stack.enter_context(open_files(4))
        right.bind("r")
        rx = cmsgx.BatchReceiver(right, 4, 100, fds=4)
        names = ["", "s", "long" * 20, ""]
        senders = []
        for name in names:
            sender = stack.enter_context(cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            if name:
                sender.bind(name)
            senders.append(sender)
        for turn in range(4):  # each place of the batch gets each of them
            order = [(at + turn) % 4 for at in range(4)]
            for at in order:
                cmsgx.send(senders[at], bytes(at), fds=files[:at], address=right.getsockname())
            with rx.receive() as batch:
                assert [msg.data for msg in batch] == [bytes(at) for at in order]
                assert [len(msg.fds) for msg in batch] == order
                assert [msg.address or "" for msg in batch] == [names[at] for at in order]
                assert not any(msg.flags for msg in batch)


@pytest.mark.parametrize("end", ["close", "dropped"])
@pytest.mark.filterwarnings("ignore:Batch with")
def test_a_batch_of_hundreds_of_descriptors_is_closed(packets: Pair, end: str) -> None:
    """More descriptors than one call closes."""
    with open_files(1) as files:
        for _ in range(2):
            cmsgx.send(packets[0], b"x", fds=files * 200)
        before = open_fds()
        rx = cmsgx.BatchReceiver(packets[1], 2, 1, fds=200)
        batch = rx.receive()
        assert len(open_fds()) == len(before) + 200 * len(batch)
        assert len(batch) == 2, "the table has no room, so this showed nothing"
        if end == "close":
            batch.close()
        del batch
        assert open_fds() == before


def test_a_call_that_fails_changes_no_lengths(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 3, 100, fds=2)
    for _ in range(3):
        with pytest.raises(BlockingIOError):
            rx.receive(timeout=0)
        with pytest.raises(TimeoutError):
            rx.receive(timeout=0.001)
    with open_files(2) as files:
        cmsgx.send(left, b"x", fds=files)
        with rx.receive() as batch:
            assert seen(batch) == [Whole(b"x", ["0", "1"])]


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_each_message_with_its_own_address(family: int) -> None:
    with udp_pair(family) as (one, two):
        rx = cmsgx.BatchReceiver(two, 10, 100)
        others = [cmsgx.socket(family, socket.SOCK_DGRAM) for _ in range(5)]
        for i, sock in enumerate(others):
            cmsgx.send(sock, str(i).encode(), address=two.getsockname())
        with rx.receive() as batch:
            assert [msg.data for msg in batch] == [b"0", b"1", b"2", b"3", b"4"]
            assert [(msg.address or "")[1] for msg in batch] == [
                sock.getsockname()[1] for sock in others
            ]
            answers = [(msg.data * 2, (), (), msg.address) for msg in batch]
        assert cmsgx.send_batch(two, answers) == 5
        for i, sock in enumerate(others):
            assert cmsgx.receive(sock, 10, timeout=60).data == str(i).encode() * 2
            sock.close()
        del one


def test_control_data_of_ip_for_each_message() -> None:
    with udp_pair() as (one, two):
        rx = cmsgx.BatchReceiver(two, 10, 100, want=[kinds.Ttl, kinds.PacketInfo, kinds.Tos])
        address = two.getsockname()
        messages = [(b"x", (), (kinds.Ttl(n), kinds.Tos(4 * n)), address) for n in range(1, 9)]
        assert cmsgx.send_batch(one, messages) == 8
        with rx.receive() as batch:
            assert [msg[kinds.Ttl] for msg in batch] == [kinds.Ttl(n) for n in range(1, 9)]
            assert [msg[kinds.Tos].value for msg in batch] == [4 * n for n in range(1, 9)]
            assert len({msg[kinds.PacketInfo] for msg in batch}) == 1


ASKED_AT: dict[int, list[str]] = {
    socket.AF_INET: ["127.0.0.2", "127.0.0.3", "127.0.0.4"],
    socket.AF_INET6: ["fd09::2", "fd09::3", "fd09::4"],
}


@pytest.mark.parametrize(
    "family", [socket.AF_INET, pytest.param(socket.AF_INET6, marks=needs_ipv6)]
)
@pytest.mark.parametrize("form", ["as it came", "the address alone"])
def test_a_batch_is_answered_from_where_it_was_asked(family: int, form: str) -> None:
    """One message to each address from each of several clients, which are connected to that
    address."""
    kind: Any = kinds.PacketInfo if family == socket.AF_INET else kinds.PacketInfo6
    with Namespace() as space, ExitStack() as stack:
        for host in ASKED_AT[family]:
            if family == socket.AF_INET6:
                space.ip(f"-6 addr add {host}/128 dev lo nodad")
            # An address is usable only some time after it was set.
            assert eventually(partial(space.reaches, family, host))
        server = stack.enter_context(space.socket(family, socket.SOCK_DGRAM))
        server.bind(("", 0))
        port = server.getsockname()[1]
        rx = cmsgx.BatchReceiver(server, 64, 100, want=[kind, kinds.Timestamp])
        clients: list[tuple[socket.socket, str]] = []
        for host in ASKED_AT[family] * 3:
            client = stack.enter_context(space.socket(family, socket.SOCK_DGRAM))
            client.connect((host, port))  # which lets nothing in from other addresses
            client.settimeout(60)
            client.send(f"{host} {len(clients)}".encode())
            clients.append((client, host))
        answered = 0
        while answered < len(clients):
            answers = []
            for msg in rx.receive(timeout=60):
                info = msg[kind]
                if form == "the address alone":
                    four = family == socket.AF_INET
                    info = kind(local=info.local) if four else kind(info.address)
                answers.append((msg.view, (), info, msg.address))
            assert cmsgx.send_batch(server, answers) == len(answers)
            answered += len(answers)
        for number, (client, host) in enumerate(clients):
            data, sender = client.recvfrom(100)
            assert data == f"{host} {number}".encode()
            assert sender[:2] == (host, port)


# What a batch is --------------------------------------------------------------------------------


@pytest.fixture
def batch_of_five(packets: Pair) -> Iterator[cmsgx.Batch]:
    """The messages are b"0" to b"4", each with one descriptor of a file that holds its number."""
    with open_files(5) as files:
        for i in range(5):
            cmsgx.send(packets[0], str(i).encode(), fds=[files[i]])
        with cmsgx.BatchReceiver(packets[1], 9, 100, fds=2).receive() as batch:
            yield batch


def test_a_batch_is_a_sequence(batch_of_five: cmsgx.Batch) -> None:
    batch: Any = batch_of_five
    assert len(batch) == 5
    assert [msg.data for msg in batch] == [b"0", b"1", b"2", b"3", b"4"]
    assert batch[-1].data == b"4"
    assert [msg.data for msg in batch[1:4]] == [b"1", b"2", b"3"]
    assert [msg.data for msg in batch[::-2]] == [b"4", b"2", b"0"]
    assert batch[5:] == ()
    for index in (5, -6, 1 << 70):
        with pytest.raises(IndexError):
            batch[index]
    with pytest.raises(TypeError):
        batch["0"]
    with pytest.raises(ValueError, match="step"):
        batch[::0]
    assert repr(batch) == "<Batch of 5 messages>"
    match batch:
        case [first, *_, last]:
            assert (first.data, last.data) == (b"0", b"4")
        case _:
            pytest.fail("it does not match a sequence pattern")


def test_the_same_messages_each_time(batch_of_five: cmsgx.Batch) -> None:
    first = list(batch_of_five)
    assert list(batch_of_five) == first
    assert list(batch_of_five[:]) == first
    assert batch_of_five[-2] is first[3]
    assert first[2] in batch_of_five


def test_it_is_not_made_by_users() -> None:
    with pytest.raises(TypeError):
        cmsgx.Batch()
    with pytest.raises(TypeError):
        type("Mine", (cmsgx.Batch,), {})


def test_close_closes_what_was_not_taken(batch_of_five: cmsgx.Batch) -> None:
    batch = batch_of_five
    looked_at = batch[1].fds[0]
    taken = batch[2].take(0)
    numbers = [fd.fileno() for msg in batch[:2] for fd in msg.fds]
    assert not batch.closed
    batch.close()
    batch.close()
    assert batch.closed
    assert repr(batch) == "<Batch of 5 messages, closed>"
    assert looked_at.closed
    assert not any(is_open(number) for number in numbers)
    assert content(taken) == "2"
    taken.close()
    for msg in batch:  # including those that are first accessed now
        assert msg.closed
        assert msg.data.isdigit()
        with pytest.raises(ValueError, match="closed"):
            msg.take_all()


def test_a_message_may_be_closed_alone(batch_of_five: cmsgx.Batch) -> None:
    before = len(open_fds())
    with batch_of_five[3] as msg:
        assert content(msg.fds[0]) == "3"
    assert len(open_fds()) == before - 1
    assert not batch_of_five[2].closed
    batch_of_five.close()
    assert len(open_fds()) == before - 5


def test_messages_outlive_batch_and_receiver(packets: Pair) -> None:
    left, right = packets
    with open_files(4) as files:
        for i in range(4):
            cmsgx.send(left, str(i).encode(), fds=[files[i]])
        rx = cmsgx.BatchReceiver(right, 4, 10, fds=1)
        batch = rx.receive()
        kept = list(batch)
        del rx, batch
        gc.collect()
        assert seen(kept) == [Whole(str(i).encode(), [str(i)]) for i in range(4)]
        with kept[0].take(0) as fd:
            for msg in kept:
                msg.close()
            assert content(fd) == "0"


def test_a_batch_outlives_its_receiver(packets: Pair) -> None:
    left, right = packets
    with open_files(2) as files:
        cmsgx.send(left, b"x", fds=files)
        batch = cmsgx.BatchReceiver(right, 4, 10, fds=2).receive()
        gc.collect()
        with batch:
            assert seen(batch) == [Whole(b"x", ["0", "1"])]


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_batch_that_is_dropped_closes_and_warns(packets: Pair, looked_at: bool) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 4, 10, fds=2)
    with open_files(2) as files:
        for _ in range(2):
            cmsgx.send(left, b"x", fds=files)
        before = open_fds()
        text = ("Message with 2" if looked_at else "Batch with 4") + " descriptors was never closed"
        batches = [rx.receive()]
        if looked_at:
            assert [msg.data for msg in batches[0]] == [b"x", b"x"]
        with pytest.warns(ResourceWarning, match=f"^{text}$") as caught:
            batches.clear()
        assert len(caught) == (2 if looked_at else 1)
        assert open_fds() == before


def test_no_warning_where_nothing_is_left(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 4, 10, fds=2)
    with open_files(1) as files:
        for _ in range(3):
            cmsgx.send(left, b"x", fds=files)
        batch = rx.receive()
        batch[0].close()
        for msg in batch[1:]:
            msg.take(0).close()
        del batch, msg
        cmsgx.send(left, b"no descriptor")
        rx.receive()


# Bytes never change -----------------------------------------------------------------------------


def test_bytes_never_change_under_a_reader(packets: Pair) -> None:
    """Views, slices, messages and batches keep their content, whatever arrives later."""
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 4, 64)
    kept: list[tuple[Any, bytes]] = []
    for number in range(60):
        payloads = [bytes([number, i]) * 20 for i in range(4)]
        assert cmsgx.send_batch(left, payloads) == 4
        batch = rx.receive()
        for i, payload in enumerate(payloads):
            # Keeps something different of each: nothing, a slice, a memoryview, the message, all of
            # them.
            if number % 5 == 1:
                kept.append((batch[i].view[3:30], payload[3:30]))
            elif number % 5 == 2:
                kept.append((memoryview(batch[i].view), payload))
            elif number % 5 == 3 and i == 2:
                kept.append((batch[i], payload))
            elif number % 5 == 4 and i == 0:
                kept.append((batch, b"".join(payloads)))
        for one, expected in kept:
            if isinstance(one, cmsgx.Message):
                assert one.view == expected
            elif isinstance(one, cmsgx.Batch):
                assert b"".join(bytes(msg.view) for msg in one) == expected
            else:
                assert bytes(one) == expected
    assert len(kept) == 60 // 5 * (4 + 4 + 1 + 1)


def test_two_sets_of_buffers_take_turns(packets: Pair) -> None:
    """The previous batch usually still exists when the next is received: no memory is allocated."""
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 3, 64)
    places = []
    for _ in range(6):
        cmsgx.send_batch(left, [b"a", b"b", b"c"])
        batch = rx.receive()
        places.append(address_of(batch[0].view))
    assert len(set(places)) == 2
    assert places[::2] == places[:1] * 3


class PyBuffer(ctypes.Structure):
    """The beginning of a Py_buffer, and space for the rest."""

    _fields_ = (("buf", ctypes.c_void_p), ("rest", ctypes.c_char * 256))


def address_of(view: object) -> int:
    """The address of the bytes of a read-only buffer."""
    raw = PyBuffer()
    api = ctypes.pythonapi
    assert api.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(raw), 0) == 0
    place = int(raw.buf)
    api.PyBuffer_Release(ctypes.byref(raw))
    return place


# What does not fit ------------------------------------------------------------------------------


def test_truncation_is_of_the_message_and_raises_nothing(packets: Pair) -> None:
    """Short reads, and surplus descriptors, each reported by its own message."""
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 16, 4, fds=2)
    cases = list(itertools.product((0, 3, 4, 5, 400), (0, 1, 2, 3)))
    with open_files(3) as files:
        before = open_fds()
        for chosen in (cases[:10], cases[10:], cases[::2]):
            for size, fds in chosen:
                cmsgx.send(left, b"d" * size, fds=files[:fds])
            with rx.receive() as batch:
                for msg, (size, fds) in zip(batch, chosen, strict=True):
                    assert msg.data == b"d" * min(size, 4)
                    assert [content(fd) for fd in msg.fds] == ["0", "1"][: min(fds, 2)]
                    assert msg.truncated == (size > 4 or fds > 2)
                    assert bool(msg.flags & socket.MSG_TRUNC) == (size > 4)
                    assert bool(msg.flags & socket.MSG_CTRUNC) == (fds > 2)
                    assert msg.closed_fds == (None if fds > 2 else 0)
            assert open_fds() == before


def test_surplus_that_came_in_is_closed_and_counted(packets: Pair) -> None:
    """If something else leaves space for more than was asked for."""
    left, right = packets
    right.setsockopt(socket.SOL_SOCKET, _cmsg.SO_PASSPIDFD, 1)
    rx = cmsgx.BatchReceiver(right, 5, 4, fds=1)
    with open_files(40) as files:
        before = open_fds()
        sent = [0, 1, 2, 40, 1]
        for count in sent:
            cmsgx.send(left, b"x", fds=files[:count])
        got: list[tuple[int, int | None, bool]] = []
        while len(got) < 5:
            with rx.receive() as batch:
                got += [(len(msg.fds), msg.closed_fds, msg.truncated) for msg in batch]
        assert got == [(min(n, 1), max(n - 1, 0), n > 1) for n in sent]
        assert open_fds() == before


def test_refresh_makes_space_for_what_others_switched_on(packets: Pair) -> None:
    left, right = packets
    rx = cmsgx.BatchReceiver(right, 5, 4, fds=1)
    right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    with open_files(1) as files:
        for is_refreshed in (False, True):
            if is_refreshed:
                rx.refresh()
            for _ in range(2):
                cmsgx.send(left, b"x", fds=files)
            with rx.receive() as batch:
                assert [msg.truncated for msg in batch] == [not is_refreshed] * 2
                assert [len(msg.fds) for msg in batch] == [int(is_refreshed)] * 2
        assert cmsgx.Credentials not in batch[0] or batch[0][cmsgx.Credentials].pid == os.getpid()


@pytest.mark.parametrize("kind", KEEP_BOUNDARIES)
def test_peeking_is_at_one_message(kind: int) -> None:
    with new_pair(kind) as (left, right):
        cmsgx.send_batch(left, [b"1", b"2", b"3"])
        rx = cmsgx.BatchReceiver(right, 10, 10)
        for _ in range(2):
            assert [msg.data for msg in rx.receive(flags=socket.MSG_PEEK)] == [b"1"]
        assert [msg.data for msg in rx.receive()] == [b"1", b"2", b"3"]
        with pytest.raises(ValueError, match="MSG_PEEK"):
            cmsgx.BatchReceiver(right, 10, 10, fds=1).receive(flags=socket.MSG_PEEK)


def test_the_length_that_was_can_be_asked_for() -> None:
    with udp_pair() as (one, two):
        cmsgx.send_batch(one, [(bytes(size), (), (), two.getsockname()) for size in (3, 30, 0)])
        batch = cmsgx.BatchReceiver(two, 4, 10).receive(flags=socket.MSG_TRUNC)
        assert [msg.nbytes for msg in batch] == [3, 30, 0]
        assert [msg.data for msg in batch] == [bytes(3), bytes(10), b""]


def test_what_tcp_discards_shows_no_other_bytes() -> None:
    """With MSG_TRUNC on TCP nothing is written to the buffer, and its old content must not appear
    either."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = cmsgx.socket()
        client.connect(listener.getsockname())
        with client, listener.accept()[0] as server:
            rx = cmsgx.BatchReceiver(client, 2, 6)
            server.sendall(b"secret")
            assert rx.receive()[0].data == b"secret"
            for _ in range(3):
                server.sendall(b"thrown")
                assert rx.receive(flags=socket.MSG_TRUNC)[0].data == bytes(6)
