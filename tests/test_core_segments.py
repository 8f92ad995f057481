"""The core of send_segments(): what goes next, in which form, and what is remembered. No socket."""

from __future__ import annotations

import errno
import gc
from typing import Any

import pytest

from cmsgx import kinds
from cmsgx._core import segments
from cmsgx._core.segments import Refusals, SegmentedMessage, SegmentedSend, path_of

REFUSALS = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)
WHERE = ("127.0.0.1", 9)


def planned(data: bytes | bytearray, size: int, most: int = 64, **more: Any) -> SegmentedSend:
    given = {"control": (), "address": None, "own_size": 0, **more}
    return SegmentedSend(memoryview(data), size, most=most, **given)


def the(step: Any) -> SegmentedMessage:
    assert isinstance(step, SegmentedMessage)
    return step


class Path:
    """What a kernel does with each step: what arrives, and in which calls."""

    def __init__(self, *, refusal: int = 0, refuses_from: int = 0, takes: int = 1 << 30) -> None:
        self.refusal = refusal
        self.refuses_from = refuses_from  # calls with segments before it refuses them
        self.takes = takes  # datagrams of one batch
        self.datagrams: list[bytes] = []
        self.messages: list[int] = []  # how many datagrams in each message with segments

    def send(self, send: SegmentedSend) -> bool:
        """One call; False at the end."""
        step = send.next()
        if not step:
            return False
        if not isinstance(step, SegmentedMessage):
            for data, fds, _, _ in step[: self.takes]:
                assert fds == ()
                self.datagrams.append(bytes(data))
            went = min(self.takes, len(step))
            send.datagrams_sent[0] += went
            send.told(went == len(step))
            return True
        if self.refusal and len(self.messages) >= self.refuses_from:
            send.told(OSError(self.refusal, "refused"))
            return True
        data, size = bytes(step.data), step.control[-1].size
        self.datagrams += [data[at : at + size] for at in range(0, len(data), size)]
        self.messages.append(-(-len(data) // size))
        send.bytes_sent[0] += len(data)
        send.told(None)
        return True

    def all(self, send: SegmentedSend) -> int:
        while self.send(send):
            pass
        return send.result()


@pytest.mark.parametrize("most", [0, 1, 2, 64, 128])
@pytest.mark.parametrize(
    ("size", "counts"),
    [(1, (0, 1, 2, 63, 64, 65, 129)), (7, (2, 128, 129)), (1400, (1, 2, 46, 47, 93)),
     *[(large, (1, 2, 3)) for large in (32753, 32754, 65507, 65508)]],
)  # fmt: skip
def test_each_datagram_once_and_in_order(most: int, size: int, counts: tuple[int, ...]) -> None:
    for nbytes in [max(0, count * size + more) for count in counts for more in (-1, 0, 1)]:
        data = (bytes(range(251)) * (nbytes // 251 + 1))[:nbytes]
        expected = [data[at : at + size] for at in range(0, nbytes, size)] or [b""]
        path = Path(takes=50)
        assert path.all(planned(data, size, most)) == len(expected)
        assert path.datagrams == expected
        assert all(2 <= joined <= min(most, -(-65507 // size)) for joined in path.messages)
        if most > 1 and nbytes > size and 2 * size <= 65507:
            assert sum(path.messages) >= len(expected) - 1, "only the last may go alone"


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_after_a_refusal_the_rest_goes_one_by_one(refusal: int, calls: int) -> None:
    data = bytes(range(250)) * 40
    path = Path(refusal=refusal, refuses_from=calls)
    send = planned(data, 10)
    assert path.all(send) == 1000
    assert path.datagrams == [data[at : at + 10] for at in range(0, 10_000, 10)]
    assert path.messages == [64] * calls
    assert send.path_refusal == (None if refusal == errno.EMSGSIZE else refusal)


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOBUFS, errno.ECONNREFUSED, errno.EPERM])
@pytest.mark.parametrize("calls", [0, 2])
def test_another_error_ends_it(error: int, calls: int) -> None:
    """It is raised if nothing went, and otherwise the next call meets it again."""
    path = Path(refusal=error, refuses_from=calls)
    send = planned(bytes(10_000), 10)
    if calls:
        assert path.all(send) == 2 * 64
    else:
        with pytest.raises(OSError, match="refused") as caught:
            path.all(send)
        assert caught.value.errno == error
        assert caught.value.sent == 0  # type: ignore[attr-defined]
    assert send.next() == []
    assert send.path_refusal is None


@pytest.mark.parametrize("went", [0, 3])
def test_an_error_of_the_fallback(went: int) -> None:
    """If no datagram goes either, the refusal says nothing of segments."""
    send = planned(bytes(200), 10)
    the(send.next())
    send.told(OSError(errno.EIO, "refused"))
    batch = send.next()
    assert isinstance(batch, list)
    assert len(batch) == 20
    send.datagrams_sent[0] += went
    send.told(OSError(errno.ENETUNREACH, "unreachable"))
    assert send.next() == []
    assert send.path_refusal == (errno.EIO if went else None)
    if went:
        assert send.result() == 3
    else:
        with pytest.raises(OSError, match="unreachable"):
            send.result()


@pytest.mark.parametrize("calls", [0, 1])
def test_an_iterator_that_was_read_makes_each_error_one_to_raise(calls: int) -> None:
    path = Path(refusal=errno.ENOBUFS, refuses_from=calls)
    with pytest.raises(OSError, match="refused") as caught:
        path.all(planned(bytes(10_000), 10, is_used_up=True))
    error: Any = caught.value
    assert error.sent == 64 * calls
    assert [note[:23] for note in error.__notes__] == ["control was an iterator"]
    assert Path().all(planned(bytes(10_000), 10, is_used_up=True)) == 1000


def test_a_socket_that_takes_no_more_is_asked_again() -> None:
    """False: nothing changes, in either form."""
    send = planned(bytes(2000), 10)
    first = the(send.next())
    send.told(False)
    again = the(send.next())
    assert (again.data, again.control) == (first.data, first.control)
    send.told(OSError(errno.EIO, "refused"))
    send.next()
    send.datagrams_sent[0] += 5
    send.told(False)
    batch = send.next()
    assert isinstance(batch, list)
    assert len(batch) == 195
    send.datagrams_sent[0] += 195
    send.told(True)
    assert send.next() == []
    assert send.result() == 200


@pytest.mark.parametrize("own_size", [None, 0, 1, 1400])
def test_the_sockets_own_option_cuts_no_datagram_that_goes_alone(own_size: int | None) -> None:
    control = (kinds.Ttl(9),)
    send = planned(bytes(30), 10, control=control, address=WHERE, own_size=own_size)
    assert the(send.next()).control == (*control, kinds.UdpSegment(10))
    send.told(OSError(errno.EMSGSIZE, "refused"))
    batch = send.next()
    assert isinstance(batch, list)
    alone = (*control, kinds.UdpSegment(0)) if own_size else control
    assert batch == [(bytes(10), (), alone, WHERE)] * 3


def test_nothing_is_copied_and_few_messages_are_made_at_once() -> None:
    data = bytearray(1_000_000)
    send = planned(data, 1, most=0)
    batch = send.next()
    assert isinstance(batch, list)
    assert len(batch) == 1024
    assert {part.obj is data for part, _, _, _ in batch} == {True}
    segment = the(planned(data, 1).next()).data
    assert (len(segment), segment.obj is data) == (64, True)


# What is remembered ------------------------------------------------------------------------------


class Sock:
    """A socket, or what stands for one."""


def test_a_path_is_where_and_by_which_route() -> None:
    route: Any = (kinds.PacketInfo(local="127.0.0.1"), kinds.Mark(3))
    assert path_of(WHERE, (kinds.Ttl(9), *route)) == (WHERE, route)
    assert path_of(None, ()) == (None, ())


@pytest.mark.parametrize(
    ("number", "names_size", "smallest"),
    [
        (errno.EIO, True, 1),
        (errno.EIO, False, 1),
        (errno.EINVAL, True, 1),
        (errno.EINVAL, False, 1000),  # which may be about the MTU
    ],
)
def test_the_sizes_that_a_refusal_is_about(number: int, names_size: bool, smallest: int) -> None:
    refusals, sock, path = Refusals(), Sock(), path_of(WHERE, ())
    assert not refusals.includes(sock, path, 65535)
    refusals.add(sock, path, 1000, number, names_size=names_size)
    found = [refusals.includes(sock, path, size) for size in (1, 999, 1000, 1001, 65535)]
    assert found == [smallest == 1, smallest == 1, True, True, True]
    # The smallest of several; and of no other path and no other socket.
    refusals.add(sock, path, 2000, errno.EINVAL, names_size=False)
    assert refusals.includes(sock, path, 1000)
    assert not refusals.includes(sock, path_of(None, ()), 65535)
    assert not refusals.includes(sock, path_of(WHERE, (kinds.Mark(1),)), 65535)
    assert not refusals.includes(Sock(), path, 65535)


def test_what_is_known_is_bounded_and_goes_with_the_socket() -> None:
    refusals, sock = Refusals(), Sock()
    for port in range(3 * segments._MOST_PATHS):
        path = path_of(("127.0.0.1", port), ())
        refusals.add(sock, path, 10, errno.EIO, names_size=True)
        assert refusals.includes(sock, path, 10)
        assert len(refusals.paths(sock)) <= segments._MOST_PATHS
    assert len(refusals) == 1
    del sock
    gc.collect()
    assert len(refusals) == 0


@pytest.mark.parametrize(("sock", "address"), [(7, WHERE), (Sock(), ["127.0.0.1", 9])])
def test_what_cannot_be_remembered_is_not(sock: Any, address: Any) -> None:
    """An int may be another socket later; an address without a hash is nobody's key."""
    refusals, path = Refusals(), path_of(address, ())
    refusals.add(sock, path, 10, errno.EIO, names_size=True)
    assert not refusals.includes(sock, path, 10)
    assert not refusals.paths(sock)
