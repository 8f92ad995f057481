"""receive_errors, ErrorReceiver: which sockets they read, and when they wait."""

from __future__ import annotations

import copy
import dataclasses
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, TypeVar, cast

import pytest
from batches import Interrupt, handling, interrupt
from errqueue import CLOSED, collect, is_ready, one, refused, stamp, tcp_pair, udp, udp_pair
from namespaces import needs_ipv6
from support import until_it_waits

import cmsgx
from cmsgx import _errqueue, kinds
from cmsgx.kinds import TimestampingFlags as Flags
from cmsgx.kinds._reports import report_of

T = TypeVar("T")


# Never waiting, never losing ----------------------------------------------------------------------


def in_time(function: Callable[[], T], seconds: float = 60.0) -> T:
    """What it returns; AssertionError if it waits."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, "it waited"
    return results[0]


@pytest.mark.parametrize("timeout", [None, 0.0, 3600.0])
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_it_never_waits(kind: int, timeout: float | None) -> None:
    pair = tcp_pair() if kind == socket.SOCK_STREAM else udp_pair(socket.AF_INET, "127.0.0.1")
    with pair as (sock, peer):
        sock.settimeout(timeout)
        assert in_time(lambda: list(cmsgx.receive_errors(sock))) == []
        # It ignores ordinary data.
        if kind == socket.SOCK_STREAM:
            peer.send(b"data")
            assert in_time(lambda: list(cmsgx.receive_errors(sock))) == []
            sock.settimeout(60)
            assert sock.recv(10) == b"data"


@pytest.mark.parametrize("timeout", [None, 3600.0])
def test_it_never_waits_after_the_last(timeout: float | None) -> None:
    with refused(2) as sock:
        sock.settimeout(timeout)
        assert len(in_time(lambda: list(cmsgx.receive_errors(sock)))) == 2


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, None])
def test_limit(limit: int | None) -> None:
    with refused(3) as sock:
        found = [report.payload[0] for report in cmsgx.receive_errors(sock, limit=limit)]
        rest = [report.payload[0] for report in cmsgx.receive_errors(sock)]
    assert found == list(range(3))[:limit]
    assert found + rest == [0, 1, 2]


def test_a_reader_that_stops_loses_nothing() -> None:
    with refused(4) as sock:
        reports = cmsgx.receive_errors(sock)
        assert next(reports).payload == b"\0"
        with closing(cast(Any, reports)):
            pass
        for report in cmsgx.receive_errors(sock):
            assert report.payload == b"\1"
            break
        cmsgx.receive_errors(sock)
        assert [report.payload for report in cmsgx.receive_errors(sock)] == [b"\2", b"\3"]


def test_two_readers_share() -> None:
    with refused(4) as sock:
        one, other = cmsgx.receive_errors(sock), cmsgx.receive_errors(sock)
        payloads = [next(reader).payload for reader in (one, other, other, one)]
        assert payloads == [b"\0", b"\1", b"\2", b"\3"]
        assert list(one) == list(other) == []


def test_an_exhausted_reader_stays_so() -> None:
    with refused(1) as sock:
        reports = cmsgx.receive_errors(sock)
        assert len(list(reports)) == 1
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert list(reports) == []
        assert len(list(cmsgx.receive_errors(sock))) == 1


def test_reports_that_are_kept_do_not_change() -> None:
    with refused(8) as sock:
        reports = list(cmsgx.receive_errors(sock))
    assert [report.payload for report in reports] == [bytes([i]) for i in range(8)]
    ports = [cast(Any, report).destination[1] for report in reports]
    assert ports == [CLOSED + i for i in range(8)]


def test_reports_are_immutable() -> None:
    with refused(1) as sock:
        [report] = cmsgx.receive_errors(sock)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.error = None  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        cast(Any, report).payload = b""
    assert not hasattr(report, "__dict__")
    assert isinstance(report, kinds.ErrorReport)
    assert len({report, report}) == 1


def test_a_short_buffer() -> None:
    with udp() as sock:
        sock.sendto(b"0123456789", ("127.0.0.1", CLOSED))
        [report] = cmsgx.receive_errors(sock, bufsize=4)
        assert isinstance(report, kinds.IcmpError)
        assert report.message.truncated
        assert report.payload == b"0123"
        sock.sendto(b"0123456789", ("127.0.0.1", CLOSED))
        [report] = cmsgx.receive_errors(sock, bufsize=0)
        assert report.payload == b""


def test_a_packet_of_the_largest_size() -> None:
    with udp() as reader, udp() as sock:
        reader.bind(("127.0.0.1", 0))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        stamp(sock, Flags.TX_SCHED)
        sock.sendto(bytes(65507), reader.getsockname())
        report = one(sock, kinds.SentTimestamp)
    assert not report.message.truncated
    assert len(report.payload) >= 65507 + 28


def test_poll_says_when() -> None:
    with udp() as sock:
        assert not is_ready(sock, 0)
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert is_ready(sock)
        list(cmsgx.receive_errors(sock))
        assert not is_ready(sock, 0.05)


# What it reads from -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap",
    [
        lambda sock: sock,
        lambda sock: sock.fileno(),
        lambda sock: cmsgx.fromfd(sock.fileno(), sock.family, sock.type),
        lambda sock: cmsgx.Fd(os.dup(sock.fileno())),
        lambda sock: sock.makefile("rb"),
    ],
    ids=["socket", "int", "cmsgx.socket", "Fd", "fileno()"],
)
def test_what_is_a_sock(wrap: Callable[[socket.socket], Any]) -> None:
    with refused(2) as sock:
        given = wrap(sock)
        try:
            assert [r.payload for r in cmsgx.receive_errors(given)] == [b"\0", b"\1"]
        finally:
            if given is not sock and not isinstance(given, int):
                given.close()


def test_an_fd_that_is_closed_meanwhile() -> None:
    with refused(2) as sock:
        with cmsgx.Fd(os.dup(sock.fileno())) as fd:
            reports = cmsgx.receive_errors(fd)
            next(reports)
        with pytest.raises(OSError, match="closed"):
            next(reports)
        with pytest.raises(OSError, match="closed"):
            cmsgx.receive_errors(fd)
        assert len(list(cmsgx.receive_errors(sock))) == 1


def test_what_is_not_a_socket() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)), open(os.devnull) as file:
        cmsgx.receive_errors(file)
    with pytest.raises(TypeError):
        cmsgx.receive_errors("0")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"limit": -1}, ValueError), ({"bufsize": -1}, ValueError), ({"bufsize": "1"}, TypeError),
     ({"limit": "1"}, TypeError)],
)  # fmt: skip
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception]) -> None:
    """They are raised at once, not with the first report."""
    with udp() as sock, pytest.raises(error):
        cmsgx.receive_errors(sock, **arguments)


def test_a_family_without_an_error_queue(unix_type: socket.SocketKind) -> None:
    """The kernel would return ordinary data, and its descriptors."""
    left, right = socket.socketpair(socket.AF_UNIX, unix_type)
    with left, right:
        cmsgx.send(left, b"data", fds=[0])
        with pytest.raises(cmsgx.NotSupportedError) as caught:
            cmsgx.receive_errors(right)
        assert caught.value.errno == errno.EOPNOTSUPP
        with cmsgx.receive(right, 10, fds=1) as message:
            assert (message.data, len(message.fds)) == (b"data", 1)


def test_netlink_has_no_error_queue() -> None:
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock,
        pytest.raises(cmsgx.NotSupportedError, match="AF_NETLINK sockets"),
    ):
        cmsgx.receive_errors(sock)


def test_data_of_a_socket_that_only_seems_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an older kernel: the reports that it returned are not lost, and no more are taken."""
    monkeypatch.setattr(_errqueue, "_FAMILIES", frozenset([socket.AF_UNIX]))
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        assert list(cmsgx.receive_errors(right)) == []
        left.send(b"one")
        left.send(b"two")
        with pytest.raises(cmsgx.NotSupportedError) as caught:
            list(cmsgx.receive_errors(right))
        assert cast(Any, caught.value).message.data == b"one"
        assert right.recv(10) == b"two"


def test_enabling_can_be_undone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with cmsgx.enable(sock, kinds.ExtendedError):
            sock.sendto(b"1", ("127.0.0.1", CLOSED))
            assert len(collect(sock)) == 1
        sock.sendto(b"1", ("127.0.0.1", CLOSED))
        assert list(cmsgx.receive_errors(sock)) == []


# Waiting ------------------------------------------------------------------------------------------

Waiter = Callable[[Any], list[kinds.ErrorReport]]

BY_ITERATOR = pytest.param(
    lambda sock: list(cmsgx.receive_errors(sock, timeout=60)), id="receive_errors"
)

BY_RECEIVER = pytest.param(
    lambda sock: [cmsgx.ErrorReceiver(sock).receive(timeout=60)], id="ErrorReceiver"
)


def refuse(sock: socket.socket, payload: bytes) -> None:
    """Puts an error on its queue, for a packet to a closed port."""
    sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    sock.sendto(payload, ("127.0.0.1", CLOSED))


def waited_for(sock: socket.socket, wait: Callable[[], list[kinds.ErrorReport]]) -> list[bytes]:
    """The payloads of the reports that a wait returns which begins with an empty queue."""
    found: list[kinds.ErrorReport] = []
    thread = threading.Thread(target=lambda: found.extend(wait()), daemon=True)
    thread.start()
    until_it_waits(thread)
    assert not found
    refuse(sock, b"late")
    thread.join(60)
    return [report.payload for report in found]


@pytest.mark.parametrize("wait", [BY_ITERATOR, BY_RECEIVER])
@pytest.mark.parametrize("as_what", ["socket", "Fd", "int"])
@pytest.mark.parametrize("own", [None, 0.0])
def test_a_timeout_waits_for_the_first_entry(wait: Waiter, as_what: str, own: float | None) -> None:
    """Whatever the socket's own timeout is, and whatever the socket is given as."""
    with udp() as sock, cmsgx.Fd(os.dup(sock.fileno())) as fd:
        sock.settimeout(own)
        given = {"socket": sock, "Fd": fd, "int": sock.fileno()}[as_what]
        assert waited_for(sock, lambda: wait(given)) == [b"late"]


@pytest.mark.parametrize("own", [None, 60.0])
def test_the_timeout_of_the_socket_is_that_of_an_error_receiver(own: float | None) -> None:
    with udp() as sock:
        sock.settimeout(own)
        receiver = cmsgx.ErrorReceiver(sock)
        assert waited_for(sock, lambda: [receiver.receive()]) == [b"late"]
        late = waited_for(sock, lambda: list(cmsgx.receive_errors(sock, timeout=...)))
        assert late == [b"late"]


@pytest.mark.parametrize("count", [1, 3])
def test_it_waits_for_no_more_than_the_first_entry(count: int) -> None:
    with refused(count) as sock:
        found = in_time(lambda: list(cmsgx.receive_errors(sock, timeout=None)))
        assert len(found) == count
    with refused(count) as sock:
        assert in_time(lambda: cmsgx.ErrorReceiver(sock).receive(timeout=None)).payload == b"\0"


def test_ordinary_data_does_not_end_the_wait() -> None:
    with udp_pair(socket.AF_INET, "127.0.0.1") as (sock, peer):
        cmsgx.enable(sock, kinds.ExtendedError)
        peer.sendto(b"data", sock.getsockname())
        receiver = cmsgx.ErrorReceiver(sock)
        with pytest.raises(TimeoutError):
            receiver.receive(timeout=0.01)
        assert sock.recv(10) == b"data"


@pytest.mark.parametrize("own", [None, 0.0, 60.0])
def test_nothing_there_is_an_error_of_receive_only(own: float | None) -> None:
    with udp() as sock:
        sock.settimeout(own)
        receiver = cmsgx.ErrorReceiver(sock)
        for given in (sock, sock.fileno()):
            assert list(cmsgx.receive_errors(given)) == []
            assert list(cmsgx.receive_errors(given, timeout=0)) == []
            with pytest.raises(TimeoutError, match="timed out"):
                list(cmsgx.receive_errors(given, timeout=0.001))
        assert receiver.try_receive() is None
        assert list(receiver) == []
        with pytest.raises(TimeoutError, match="timed out"):
            receiver.receive(timeout=0.001)
        with pytest.raises(BlockingIOError) as caught:
            receiver.receive(timeout=0)
        assert caught.value.errno == errno.EAGAIN
        # A number has no timeout, so it does not wait.
        with pytest.raises(BlockingIOError):
            in_time(lambda: outcome(cmsgx.ErrorReceiver(sock.fileno()).receive))()
        if own == 0:
            with pytest.raises(BlockingIOError):
                receiver.receive()


def outcome(call: Callable[[], Any]) -> Callable[[], Any]:
    """What was returned or raised, for another thread to use."""
    try:
        result = call()
    except OSError as error:
        raised = error

        def again() -> Any:
            raise raised

        return again
    return lambda: result


@pytest.mark.parametrize("timeout", [-1, -0.5, float("nan"), "1", b"", [1]])
def test_what_is_not_a_timeout_raises_at_once(timeout: Any) -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        for call in (partial(cmsgx.receive_errors, sock), receiver.receive):
            with pytest.raises((ValueError, TypeError), match="timeout"):
                call(timeout=timeout)


def test_a_wait_handles_signals() -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        reports = cmsgx.receive_errors(sock, timeout=60)
        for wait in (partial(receiver.receive, timeout=60), partial(next, reports)):
            with handling(interrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                with pytest.raises(Interrupt):
                    wait()
        # A handler that raises nothing does not end the wait.
        with handling(lambda *_: refuse(sock, b"of the handler")):
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            assert receiver.receive(timeout=60).payload == b"of the handler"


def test_an_fd_that_is_closed_during_the_wait() -> None:
    """The wait pins it: no other file gets its number before the wait has ended."""
    with udp() as sock:
        fd = cmsgx.Fd(os.dup(sock.fileno()))
        receiver = cmsgx.ErrorReceiver(fd)

        def wait() -> list[kinds.ErrorReport]:
            try:
                return [receiver.receive(timeout=60)]
            finally:
                with pytest.raises(OSError, match="closed"):
                    receiver.receive(timeout=60)

        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(outcome(wait)), daemon=True)
        thread.start()
        until_it_waits(thread)
        fd.close()
        refuse(sock, b"late")
        thread.join(60)
        # poll(2) still has it; the try after it does not.
        with pytest.raises(OSError, match="closed"):
            found[0]()
        assert len(list(cmsgx.receive_errors(sock))) == 1


# Allocated once -----------------------------------------------------------------------------------


def test_an_error_receiver_gives_the_same_reports() -> None:
    with refused(4) as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        found = [receiver.receive(), receiver.receive(timeout=0), receiver.try_receive()]
        found += receiver
        assert all(type(report) is kinds.IcmpError for report in found)
        assert [cast(Any, report).payload for report in found] == [bytes([i]) for i in range(4)]
        assert [cast(Any, report).destination[1] for report in found] == [
            CLOSED + i for i in range(4)
        ]


def test_an_error_receiver_is_iterated_again() -> None:
    with refused(2) as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        first = iter(receiver)
        assert len(list(first)) == 2
        refuse(sock, b"later")
        assert list(first) == []
        assert [report.payload for report in receiver] == [b"later"]
        assert list(receiver) == []


def test_reports_of_an_error_receiver_are_kept() -> None:
    """Its memory is not reused while a report has it."""
    with refused(8) as sock:
        reports = list(cmsgx.ErrorReceiver(sock))
    assert [report.payload for report in reports] == [bytes([i]) for i in range(8)]


def test_an_error_receiver_has_the_length_that_it_was_given() -> None:
    with refused(0) as sock:
        sock.sendto(b"0123456789", ("127.0.0.1", CLOSED))
        report = cmsgx.ErrorReceiver(sock, bufsize=4).try_receive()
        assert report is not None
        assert (report.payload, report.message.truncated) == (b"0123", True)


@pytest.mark.parametrize(("family", "option"), [
    pytest.param(socket.AF_INET, (socket.IPPROTO_IP, 11), id="IP_RECVERR"),
    pytest.param(socket.AF_INET6, (socket.IPPROTO_IPV6, 25), id="IPV6_RECVERR", marks=needs_ipv6),
])  # fmt: skip
def test_with_restores_what_an_error_receiver_switched_on(
    family: int, option: tuple[int, int]
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        with cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError]) as receiver:
            assert sock.getsockopt(*option) == 1
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
            sock.sendto(b"1", (host, CLOSED))
            assert receiver.receive(timeout=60).payload == b"1"
        assert sock.getsockopt(*option) == 0
        with cmsgx.enable(sock, kinds.ExtendedError):
            with cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError]):
                pass
            assert sock.getsockopt(*option) == 1
        # Without a `with` and without `want`, nothing is changed.
        cmsgx.ErrorReceiver(sock)
        assert sock.getsockopt(*option) == 0


def test_what_an_error_receiver_cannot_switch_on_leaves_nothing_on() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        with pytest.raises(cmsgx.NotSupportedError):
            cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError, cmsgx.Credentials])
        assert sock.getsockopt(socket.IPPROTO_IP, 11) == 0


def test_two_threads_with_one_error_receiver() -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        thread = threading.Thread(target=lambda: outcome(partial(receiver.receive, timeout=60)))
        thread.start()
        until_it_waits(thread)
        for call in (receiver.receive, receiver.try_receive, lambda: list(receiver)):
            with pytest.raises(RuntimeError, match="ErrorReceiver"):
                call()
        refuse(sock, b"1")
        thread.join(60)
        assert receiver.try_receive() is None


def test_an_error_receiver_where_there_is_no_error_queue() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.send(b"data")
        with pytest.raises(cmsgx.NotSupportedError, match="ErrorReceiver: AF_UNIX sockets "):
            cmsgx.ErrorReceiver(right)
        assert right.recv(10) == b"data"


def test_an_error_receiver_says_what_it_reads_and_is_not_copied() -> None:
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        assert receiver.sock is sock
        assert repr(receiver) == f"<ErrorReceiver of {sock!r}>"
        with pytest.raises(TypeError, match="cannot copy or pickle"):
            copy.copy(receiver)


@pytest.mark.parametrize("how", ["Receiver", "receive", "BatchReceiver"])
def test_other_ways_wait_for_the_error_queue_too(how: str) -> None:
    """And it does not wait for data."""
    with udp() as sock:
        flags = socket.MSG_ERRQUEUE
        wait: Callable[[], Any] = {
            "receive": lambda: [cmsgx.receive(sock, 99, flags=flags, timeout=60)],
            "Receiver": lambda: [cmsgx.Receiver(sock, 99).receive(flags=flags, timeout=60)],
            "BatchReceiver": lambda: cmsgx.BatchReceiver(sock, 4, 99).receive(
                flags=flags, timeout=60
            ),
        }[how]
        sock.bind(("127.0.0.1", 0))
        sock.sendto(b"to myself", sock.getsockname())

        def found() -> list[Any]:
            return [report_of(message) for message in wait()]

        assert waited_for(sock, found) == [b"late"]


def test_a_try_that_finds_nothing_leaves_no_bytes_in_the_buffer() -> None:
    """Only memory that was not written is not zeroed again: there are reports in between."""
    with udp() as sock:
        receiver = cmsgx.ErrorReceiver(sock)
        for number in range(6):
            assert receiver.try_receive() is None
            refuse(sock, bytes([number]))
            report = receiver.try_receive()
            assert report is not None
            assert report.payload == bytes([number])
            assert len(report.message.control) == 1
            del report
