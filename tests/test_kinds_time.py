"""Time stamps over real sockets: Documentation/networking/timestamping.rst"""

from __future__ import annotations

import errno
import itertools
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import network
import pytest
from attempts import attempt, fails
from network import DGRAM, RAW, SOL_SOCKET, STREAM, V4, V6, Sockets
from support import close_pair, eventually, unix_pair

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import Timestamp, Timestamping, TimestampingRequest

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

Flags = kinds.TimestampingFlags
SO_TIMESTAMPNS_OLD, SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW = 35, 37, 65
SO_TXTIME, SCM_TXTIME, SCM_TS_OPT_ID = 61, 61, 81
RX = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE | SOF_TIMESTAMPING_SOFTWARE
# SO_TIMESTAMP, SO_TIMESTAMPNS and SO_TIMESTAMPING, and each once more for the year 2038.
OLD = (29, 35, 37)
ALL = (29, 35, 37, 63, 64, 65)
VALUES = {37: RX, 65: RX}
SECOND = 1_000_000_000
ETHERTYPE = 0x88B5  # no real protocol: IEEE 802, for experiments


def test_the_flags_are_those_of_the_kernel() -> None:
    assert [int(flag) for flag in Flags] == [1 << bit for bit in range(len(Flags))]
    assert int(Flags.OPT_ID) == 1 << 7
    assert int(Flags.TX_SCHED) == 1 << 8
    assert int(Flags.OPT_TSONLY) == 1 << 11
    assert int(Flags.OPT_RX_FILTER) == 1 << 17


# What was received ------------------------------------------------------------------------------


@contextmanager
def sockets(name: str) -> Iterator[Sockets]:
    """A sender and a receiver that has time stamps."""
    if name in network.PATHS:
        with network.udp(name) as pair:
            yield pair
    elif name.startswith("TCP"):
        with network.tcp(V6 if name.endswith("IPv6") else V4) as pair:
            yield pair
    elif name == "raw":
        with network.open_socket(V4, RAW, 253) as sock, network.open_socket(V4, RAW, 253) as to:
            sock.connect(("127.0.0.1", 0))
            yield sock, to
    elif name == "packet":
        with (
            network.alone(),
            network.open_socket(socket.AF_PACKET, DGRAM) as sender,
            network.open_socket(socket.AF_PACKET, DGRAM) as receiver,
        ):
            receiver.bind(("lo", ETHERTYPE))
            yield sender, receiver
    else:
        pair = unix_pair({"seqpacket": socket.SOCK_SEQPACKET}.get(name, DGRAM))
        for sock in pair:
            sock.settimeout(network.SECONDS)
        yield pair
        close_pair(pair)


def send(name: str, sender: cmsgx.socket, data: bytes = b"x" * 20) -> None:
    if name == "packet":
        sender.sendto(data, ("lo", ETHERTYPE))
    else:
        sender.sendall(data)


INET = [*network.PATHS, "TCP", "TCP over IPv6", "raw"]
PLACES = [*INET, "packet", "dgram", "seqpacket"]


def stamped(name: str, rx: cmsgx.Receiver, sender: cmsgx.socket, kind: Any) -> cmsgx.Message:
    """The first message with this kind: if no socket had asked for time stamps before, the kernel
    takes a while until it adds them to received packets."""
    for _ in range(1000):
        send(name, sender)
        msg = rx.receive()
        assert not msg.truncated
        if kind in msg:
            return msg
        time.sleep(0.001)
    raise AssertionError(f"no {kind.__name__} came")


@pytest.mark.parametrize("name", PLACES)
def test_a_time_stamp_is_of_the_realtime_clock_in_nanoseconds(name: str) -> None:
    with sockets(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=[Timestamp])
        before = time.time_ns()
        msg = stamped(name, rx, sender, Timestamp)
        stamp = msg[Timestamp].nanoseconds
        assert stamp is not None
        assert before <= stamp <= time.time_ns()
        assert msg.control == (Timestamp(stamp),)


@pytest.mark.parametrize("name", [*INET, "packet"])
def test_time_stamps_by_each_clock(name: str) -> None:
    """Loopback has no clock of its own, only the kernel's."""
    with sockets(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=[Timestamping])
        before = time.time_ns()
        msg = stamped(name, rx, sender, Timestamping)
        stamp = msg[Timestamping]
        assert stamp.software is not None
        assert before <= stamp.software <= time.time_ns()
        assert (stamp.transformed, stamp.hardware) == (None, None)
        assert msg.control == (Timestamping(software=stamp.software),)


@pytest.mark.parametrize("name", ["dgram", "seqpacket"])
def test_over_unix_the_second_comes_with_the_first_only(name: str) -> None:
    with sockets(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=[Timestamping])
        send(name, sender)
        assert rx.receive().control == ()
        rx = cmsgx.Receiver(receiver, 100, want=[Timestamping, Timestamp])
        send(name, sender)
        msg = rx.receive()
        assert msg[Timestamping].software == msg[Timestamp].nanoseconds is not None


def test_a_unix_stream_has_none() -> None:
    pair = unix_pair(STREAM)
    rx = cmsgx.Receiver(pair[1], 100, want=[Timestamp, Timestamping])
    pair[0].sendall(b"x")
    msg = rx.receive()
    assert msg.control == ()
    with pytest.raises(KeyError, match="although it is enabled"):
        msg[Timestamp]
    close_pair(pair)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *itertools.product(["IPv4", "IPv6", "TCP", "packet"], ALL),
        *itertools.product(["dgram", "seqpacket"], [29, 35, 63, 64]),
    ],
)
def test_each_of_the_six_encodings_is_the_same_kind(number: int, name: str) -> None:
    """As if another program had switched it on; the bytes are decoded here according to the
    headers."""
    kind: Any = Timestamping if number in VALUES else Timestamp
    with sockets(name) as (sender, receiver):
        receiver.setsockopt(SOL_SOCKET, number, VALUES.get(number, 1))
        rx = cmsgx.Receiver(receiver, 100)
        before = time.time_ns()
        msg = stamped(name, rx, sender, kind)
        assert [type(one) for one in msg.control] == [kind]
        stamp: Any = msg[kind]
        found = stamp.software if kind is Timestamping else stamp.nanoseconds
        now = time.time_ns()
        # In microseconds it is truncated.
        unit = 1000 if number in (29, 63) else 1
        assert before - before % unit <= found <= now
        assert found % unit == 0
        # Looked up in the buffer, or decoded separately.
        send(name, sender)
        ancdata = receiver.recvmsg(100, 200)[1]
        # If `socket` itself receives for this family, a libc with a longer time_t adds another.
        level, type_, payload = ancdata[0]
        assert len(ancdata) == 1 or name == "packet"
        assert (level, type_) == (SOL_SOCKET, number)
        # The old ones have the kernel's long, even if a program's time_t is longer.
        layout = struct.Struct(
            f"@{6 if kind is Timestamping else 2}{'l' if number in OLD else 'q'}"
        )
        pairs = layout.unpack(payload)
        assert cmsgx.decode(level, type_, payload) == kind(pairs[0] * SECOND + pairs[1] * unit)


def test_both_come_together() -> None:
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=[Timestamp, Timestamping])
        msg = stamped("IPv4", rx, sender, Timestamping)
        assert msg[Timestamping].software == msg[Timestamp].nanoseconds


SHORT = [
    (kind, number, room)
    for kind, numbers, count in ((Timestamp, (29, 35, 63, 64), 2), (Timestamping, (37, 65), 6))
    for number in numbers
    for size in [count * struct.calcsize("@l" if number in OLD else "@q")]
    for room in sorted({0, 1, 4, size // 3, size // 2, size - 1})
]


@pytest.mark.parametrize(("kind", "number", "room"), SHORT)
def test_a_short_control_buffer_is_reported(kind: Any, number: int, room: int) -> None:
    with network.udp("IPv4") as (sender, receiver):
        receiver.setsockopt(SOL_SOCKET, number, VALUES.get(number, 1))
        stamped("IPv4", cmsgx.Receiver(receiver, 100), sender, kind)
        sender.send(b"x")
        _, ancdata, flags, _ = cmsgx.recvmsg(receiver, 100, cmsgx.CMSG_LEN(room))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, type_, len(payload)) == (SOL_SOCKET, number, room)
        with pytest.raises(cmsgx.MalformedControlError, match="truncated") as caught:
            cmsgx.decode(level, type_, payload)
        assert f"{kind.__name__}: {room} bytes received; expected" in str(caught.value)


# enable(), and back -----------------------------------------------------------------------------

BEFORE = [
    (),
    *((number,) for number in ALL),
    (29, 37), (35, 37), (63, 65), (64, 65), (35, 65), (64, 37),
]  # fmt: skip


def states(sock: socket.socket) -> list[bytes | int]:
    return [network.get_bytes(sock, SOL_SOCKET, number, 8) for number in ALL]


@pytest.mark.parametrize("before", BEFORE, ids=str)
@pytest.mark.parametrize(
    "wanted",
    [
        *([kind] for kind in (Timestamp, Timestamping, kinds.TimestampingPacketInfo)),
        *itertools.permutations([Timestamp, Timestamping, kinds.TcpStats]),
    ],
    ids=lambda wanted: "+".join(kind.__name__ for kind in wanted),
)
def test_what_was_before_comes_back(before: tuple[int, ...], wanted: Any) -> None:
    """One bit for all of the socket's time stamps selects their form, and two of the options switch
    each other off."""
    with network.open_socket(V4, STREAM if kinds.TcpStats in wanted else DGRAM) as sock:
        for number in before:
            sock.setsockopt(SOL_SOCKET, number, VALUES.get(number, 1))
        was = states(sock)
        with cmsgx.enable(sock, *wanted):
            if Timestamp in wanted:
                assert sock.getsockopt(SOL_SOCKET, SO_TIMESTAMPNS_OLD) == 1
            if Timestamping in wanted:
                flags = sock.getsockopt(SOL_SOCKET, SO_TIMESTAMPING_OLD)
                assert flags & RX == RX
        assert states(sock) == was


@pytest.mark.parametrize("flags", [1 << 7 | 1 << 11, RX, 1 << 14, 0x7F], ids=hex)
@pytest.mark.parametrize("kind", [Timestamping, kinds.TimestampingPacketInfo])
def test_flags_are_added_to_those_that_were_set(kind: Any, flags: int) -> None:
    with network.open_socket(V4) as sock:
        sock.setsockopt(SOL_SOCKET, SO_TIMESTAMPING_OLD, flags)
        added = {
            Timestamping: 1 << 2 | 1 << 3 | 1 << 4 | 1 << 6,
            kinds.TimestampingPacketInfo: 1 << 13 | 1 << 2 | 1 << 6,
        }[kind]
        with cmsgx.enable(sock, kind):
            assert sock.getsockopt(SOL_SOCKET, SO_TIMESTAMPING_OLD) == flags | added
        assert sock.getsockopt(SOL_SOCKET, SO_TIMESTAMPING_OLD) == flags


def test_the_interface_of_a_hardware_stamp_is_asked_for() -> None:
    """This field needs an adapter with a clock: here the rest comes, but not this."""
    wanted = [kinds.TimestampingPacketInfo, Timestamping, Timestamp]
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=wanted)
        msg = stamped("IPv4", rx, sender, Timestamping)
        assert msg[Timestamping].hardware is None
        with pytest.raises(KeyError, match=r"TimestampingPacketInfo .*although it is enabled"):
            msg[kinds.TimestampingPacketInfo]


# When it was sent -------------------------------------------------------------------------------


def reported(sock: cmsgx.socket, count: int) -> list[cmsgx.Message]:
    """This many entries of the error queue."""
    found: list[cmsgx.Message] = []

    def more() -> bool:
        try:
            found.append(cmsgx.receive(sock, 2000, flags=socket.MSG_ERRQUEUE, timeout=0))
        except BlockingIOError:
            return False
        return len(found) == count

    assert eventually(more), f"{len(found)} of {count}"
    return found


def error_queue_is_empty(sock: cmsgx.socket) -> bool:
    try:
        cmsgx.receive(sock, 2000, flags=socket.MSG_ERRQUEUE, timeout=0)
    except BlockingIOError:
        return True
    return False


@pytest.mark.parametrize("form", ["kind", SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW])
@pytest.mark.parametrize("name", ["IPv4", "IPv6", "from mapped", "raw", "packet"])
def test_one_packet_is_stamped_when_it_is_sent(name: str, form: Any) -> None:
    with sockets(name) as (sender, _):
        to: Any = {"address": ("lo", ETHERTYPE)} if name == "packet" else {}
        cmsgx.enable(sender, Timestamping.option(Flags.OPT_TSONLY))
        cmsgx.send(sender, b"not asked for" * 5, **to)
        request: Any = TimestampingRequest(Flags.TX_SOFTWARE)
        if form != "kind":
            request = cmsgx.Unknown(SOL_SOCKET, form, struct.pack("=I", 1 << 1))
        before = time.time_ns()
        cmsgx.send(sender, b"asked for" * 5, control=request, **to)
        (msg,) = reported(sender, 1)
        assert msg.data == b""
        sent = msg[Timestamping].software
        assert sent is not None
        assert before <= sent <= time.time_ns()
        assert msg[kinds.ExtendedError].ee_origin == kinds.ErrorOrigin.TIMESTAMPING
        assert msg[kinds.ExtendedError].ee_info == kinds.SentStage.SENT
        assert error_queue_is_empty(sender)


def test_each_stage_is_stamped_that_is_asked_for() -> None:
    with network.udp("IPv4") as (sender, _):
        cmsgx.enable(sender, Timestamping.option(Flags.SOFTWARE))
        request = TimestampingRequest(Flags.TX_SCHED | Flags.TX_SOFTWARE)
        cmsgx.send(sender, b"data", control=request)
        first, second = reported(sender, 2)
        stages = [msg[kinds.ExtendedError].ee_info for msg in (first, second)]
        assert stages == [kinds.SentStage.SCHEDULED, kinds.SentStage.SENT]
        # Without OPT_TSONLY the whole packet comes back with it.
        assert first.data.endswith(b"data")
        times = [msg[Timestamping].software for msg in (first, second)]
        assert times[0] is not None
        assert times[1] is not None
        assert times[0] <= times[1]


@pytest.mark.parametrize("family", [V4, V6])
def test_an_acknowledgement_is_stamped(family: int) -> None:
    with network.tcp(family) as (client, server):
        cmsgx.enable(client, Timestamping.option(Flags.OPT_TSONLY))
        cmsgx.send(client, b"data", control=TimestampingRequest(Flags.TX_ACK))
        assert server.recv(10) == b"data"
        (msg,) = reported(client, 1)
        assert msg[kinds.ExtendedError].ee_info == kinds.SentStage.ACKNOWLEDGED
        assert msg[Timestamping].software is not None


@pytest.mark.parametrize(
    "flags", [Flags.RX_SOFTWARE, Flags.OPT_ID, Flags.SOFTWARE, Flags(1 << 30)], ids=repr
)
def test_a_request_has_only_flags_of_what_is_sent(flags: Any) -> None:
    with network.udp("IPv4") as (sender, _):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            cmsgx.send(sender, b"x", control=TimestampingRequest(flags | Flags.TX_SOFTWARE))
        assert caught.value.errno == errno.EINVAL
        [note] = caught.value.__notes__
        assert "TimestampingRequest needs flags that are all TX_*" in note
        assert "enable(sock, Timestamping.option(flags))" in note


@pytest.mark.parametrize("name", ["IPv4", "IPv6", "raw", "packet"])
def test_the_id_of_a_stamp_can_be_chosen(name: str) -> None:
    with sockets(name) as (sender, _):
        to: Any = {"address": ("lo", ETHERTYPE)} if name == "packet" else {}
        cmsgx.enable(sender, Timestamping.option(Flags.OPT_TSONLY | Flags.OPT_ID))
        request = TimestampingRequest(Flags.TX_SOFTWARE)
        data = b"x" * 20
        control = [request, kinds.TimestampingId(0xABCDEF)]
        if name == "IPv4":
            with attempt("SCM_TS_OPT_ID", errno.EINVAL):
                cmsgx.send(sender, data, control=control)
        else:
            test_the_id_of_a_stamp_can_be_chosen("IPv4")  # skips if the kernel lacks it
            cmsgx.send(sender, data, control=control, **to)
        cmsgx.send(sender, data, control=request, **to)
        cmsgx.send(sender, data, control=[kinds.TimestampingId(2**32 - 1), request], **to)
        ids = [msg[kinds.ExtendedError].ee_data for msg in reported(sender, 3)]
        assert ids[::2] == [0xABCDEF, 2**32 - 1]
        if name != "raw":  # where the kernel continues with the one that was chosen last
            assert ids[1] in (0, 1), "the count of packets"


def test_an_id_needs_the_option_and_a_datagram() -> None:
    """And the error says so: its note names everything that is needed."""
    chosen = kinds.TimestampingId(1)
    with network.udp("IPv4") as (sender, _):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            cmsgx.send(sender, b"x", control=chosen)
        assert caught.value.errno == errno.EINVAL
        [note] = caught.value.__notes__
        advice = "enable(sock, Timestamping.option(TimestampingFlags.OPT_ID))"
        assert advice in note
        names = {**vars(cmsgx), **vars(kinds), "sock": sender}
        eval(advice, names)
        with attempt("SCM_TS_OPT_ID", errno.EINVAL):  # before Linux 6.13
            cmsgx.send(sender, b"x", control=[TimestampingRequest(Flags.TX_SOFTWARE), chosen])
        [report] = cmsgx.receive_errors(sender)
        assert isinstance(report, kinds.SentTimestamp)
        assert report.id == 1
        assert report.software is not None
    with network.tcp() as (client, _):
        cmsgx.enable(client, Timestamping.option(Flags.OPT_ID))
        with pytest.raises(cmsgx.NotSupportedError, match="sent by SOCK_DGRAM and SOCK_RAW"):
            cmsgx.send(client, b"x", control=chosen)


def test_how_a_connection_was_doing() -> None:
    with network.tcp() as (client, server), cmsgx.enable(client, kinds.TcpStats):
        client.sendall(b"x" * 1000)
        assert len(server.recv(2000)) == 1000
        (msg,) = reported(client, 1)
        assert msg[kinds.ExtendedError].ee_info == kinds.SentStage.ACKNOWLEDGED
        values = msg[kinds.TcpStats].values
        assert values["bytes_sent"] == 1000
        assert values["data_segs_out"] == 1
        assert values["bytes_retrans"] == 0
        assert values["snd_cwnd"] > 0
        assert 0 < values["min_rtt"] < 10_000_000
        assert values["ttl"] == 64
        assert all(not name.isdecimal() for name in values)
        assert "'bytes_sent': 1000" in repr(msg[kinds.TcpStats])


# When it should be sent -------------------------------------------------------------------------


def txtime(sock: socket.socket) -> tuple[int, ...]:
    return struct.unpack("=iI", sock.getsockopt(SOL_SOCKET, SO_TXTIME, 8))


@pytest.mark.parametrize("name", ["IPv4", "IPv6", "raw", "packet"])
def test_a_time_to_send_is_accepted_once_there_is_a_clock(name: str) -> None:
    with sockets(name) as (sender, receiver):
        to: Any = {"address": ("lo", ETHERTYPE)} if name == "packet" else {}
        when = kinds.TxTime(time.monotonic_ns())
        with fails(errno.EINVAL):
            cmsgx.send(sender, b"x" * 20, control=when, **to)
        with cmsgx.enable(sender, kinds.TxTime):
            assert txtime(sender) == (time.CLOCK_MONOTONIC, 0)
            cmsgx.send(sender, b"x" * 20, control=when, **to)
            assert receiver.recv(100).endswith(b"x" * 20)
        for wrong in (b"", bytes(4), bytes(9)):
            with fails(errno.EINVAL):
                control = cmsgx.Unknown(SOL_SOCKET, SCM_TXTIME, wrong)
                cmsgx.send(sender, b"x", control=control, **to)


def test_a_clock_that_another_chose_comes_back() -> None:
    with network.open_socket(V4) as sock:
        other = struct.pack("=iI", 11, 1)  # CLOCK_TAI, SOF_TXTIME_DEADLINE_MODE
        with attempt("SO_TXTIME with CLOCK_TAI", errno.EPERM):
            sock.setsockopt(SOL_SOCKET, SO_TXTIME, other)
        with cmsgx.enable(sock, kinds.TxTime):
            assert txtime(sock) == (time.CLOCK_MONOTONIC, 0)
        assert txtime(sock) == (11, 1)


def test_a_clock_needs_no_capability_to_be_given_up() -> None:
    """Linux cannot switch it off, and the value that it reports for a socket without it cannot be
    set."""
    with network.open_socket(V4) as sock, network.without_capabilities():
        with cmsgx.enable(sock, kinds.TxTime):
            assert txtime(sock) == (time.CLOCK_MONOTONIC, 0)
        with fails(errno.EPERM):
            sock.setsockopt(SOL_SOCKET, SO_TXTIME, bytes(8))
