"""The error queue: reports on what was sent, and when."""

from __future__ import annotations

import socket
from typing import Any, cast

import pytest
from errqueue import (
    CLOSED,
    LOOPBACK,
    LOOPBACK_AND_MAPPED,
    SO_TIMESTAMPING_NEW,
    SO_TIMESTAMPING_OLD,
    assert_now,
    collect,
    is_ready,
    one,
    stamp,
    tcp_pair,
    udp,
    udp_pair,
)
from namespaces import Namespace
from support import eventually

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import TimestampingFlags as Flags

MSG_ZEROCOPY = 0x4000000

ETH_P_IP = 0x0800


# Transmit time stamps ---------------------------------------------------------------------------


@pytest.mark.parametrize("option", [SO_TIMESTAMPING_OLD, SO_TIMESTAMPING_NEW])
@pytest.mark.parametrize(("family", "host"), LOOPBACK_AND_MAPPED)
def test_stamps_of_udp(family: int, host: str, option: int) -> None:
    with udp(family) as reader, udp(family) as sock:
        reader.bind((host, 0))
        stamp(sock, Flags.TX_SCHED | Flags.TX_SOFTWARE | Flags.OPT_ID, option)
        for i in range(3):
            sock.sendto(b"packet %d" % i, reader.getsockname())
        reports = collect(sock, 6)
    for i, report in enumerate(reports):
        assert isinstance(report, kinds.SentTimestamp)
        assert report.id == i // 2
        assert report.stage is (kinds.SentStage.SENT if i % 2 else kinds.SentStage.SCHEDULED)
        assert_now(report.software)
        assert report.hardware is None
        assert report.timestamping == report.message[kinds.Timestamping]
        assert report.stats is None
        # The packet as it was sent, beginning with its headers.
        assert report.payload.endswith(b"packet %d" % (i // 2))
        assert len(report.payload) >= 20 + 8 + 8
        assert repr(report).startswith(f"SentTimestamp(id={i // 2}, stage=<SentStage.S")


def test_stamps_only() -> None:
    with udp() as sock:
        stamp(sock, Flags.TX_SOFTWARE | Flags.OPT_TSONLY)
        sock.sendto(b"packet", ("127.0.0.1", CLOSED))
        # The ICMP error arrives before the report about its cause.
        found = {type(report): report for report in collect(sock, 2)}
    report = found[kinds.SentTimestamp]
    assert report.payload == b""
    assert isinstance(report, kinds.SentTimestamp)
    assert report.id == 0
    assert found[kinds.IcmpError].payload == b"packet"


def test_a_stamp_for_one_packet_by_its_own_id() -> None:
    with udp() as reader, udp() as sock:
        reader.bind(("127.0.0.1", 0))
        address = reader.getsockname()
        stamp(sock, Flags.OPT_ID | Flags.OPT_TSONLY)
        request = kinds.TimestampingRequest(Flags.TX_SOFTWARE)
        cmsgx.send(sock, b"1", address=address)
        try:
            cmsgx.send(sock, b"2", control=[request, kinds.TimestampingId(0xFFFFFFFF)],
                       address=address)  # fmt: skip
        except OSError as error:  # before Linux 6.13
            pytest.skip(f"SCM_TS_OPT_ID: {error}")
        report = one(sock, kinds.SentTimestamp)
    assert report.id == 0xFFFFFFFF


def test_no_times_are_reported() -> None:
    """Without SOF_TIMESTAMPING_SOFTWARE the entry comes, but not the time."""
    with udp() as reader, udp() as sock:
        reader.bind(("127.0.0.1", 0))
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_OLD, int(Flags.TX_SOFTWARE))
        sock.sendto(b"1", reader.getsockname())
        reports = list(cmsgx.receive_errors(sock))
    for report in reports:
        assert isinstance(report, kinds.SentTimestamp)
        assert (report.timestamping, report.software, report.hardware) == (None, None, None)
        assert repr(report).endswith("stage=<SentStage.SENT: 0>, software=None, hardware=None)")
        assert report.payload.endswith(b"1")
    assert len(reports) == 1


@pytest.mark.parametrize("as_what", ["socket", "int"])
@pytest.mark.parametrize(("family", "host"), LOOPBACK)
def test_stamps_of_tcp(family: int, host: str, as_what: str) -> None:
    stages = [kinds.SentStage.SCHEDULED, kinds.SentStage.SENT, kinds.SentStage.ACKNOWLEDGED]
    with tcp_pair(family, host) as (sender, reader):
        stamp(
            sender,
            Flags.TX_SCHED | Flags.TX_SOFTWARE | Flags.TX_ACK | Flags.OPT_ID | Flags.OPT_TSONLY
            | Flags.OPT_STATS,
        )  # fmt: skip
        sock = sender if as_what == "socket" else sender.fileno()
        for total in (100, 150):
            sender.send(bytes(total if total == 100 else 50))
            reader.recv(1000)
            found: list[kinds.ErrorReport] = []
            while len(found) < 3 and is_ready(sender):
                found += cmsgx.receive_errors(sock)
            reports = [report for report in found if isinstance(report, kinds.SentTimestamp)]
            assert sorted(report.stage for report in reports) == sorted(stages)
            for report in reports:
                # The offset of the last byte.
                assert report.id == total - 1
                assert_now(report.software)
                assert type(report.stats) is kinds.TcpStats
                assert report.payload == b""
                assert report.stats.values["bytes_sent"] <= total
            [acknowledged] = [r for r in reports if r.stage is kinds.SentStage.ACKNOWLEDGED]
            assert acknowledged.stats is not None
            assert acknowledged.stats.values["bytes_sent"] == total


def test_stamps_without_statistics_have_none() -> None:
    with tcp_pair() as (sender, _):
        stamp(sender, Flags.TX_ACK | Flags.OPT_ID | Flags.OPT_TSONLY)
        sender.send(b"1234")
        report = one(sender, kinds.SentTimestamp)
    assert report.stats is None
    assert (report.id, report.stage) == (3, kinds.SentStage.ACKNOWLEDGED)


@pytest.mark.parametrize("as_what", ["socket", "int"])
def test_stamps_of_frames(as_what: str) -> None:
    with Namespace() as space, space.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("lo", ETH_P_IP))
        stamp(sock, Flags.TX_SOFTWARE | Flags.OPT_ID)
        frame = bytes(12) + b"\x88\xb5" + bytes(50)
        for i in range(2):
            sock.send(frame)
            assert is_ready(sock)
            [report] = cmsgx.receive_errors(sock if as_what == "socket" else sock.fileno())
            assert isinstance(report, kinds.SentTimestamp)
            assert report.id == i
            assert report.stage is kinds.SentStage.SENT
            assert_now(report.software)
            assert report.payload == frame
            assert report.message.address is None


@pytest.mark.parametrize("how", ["socket", "int", "Receiver", "BatchReceiver"])
def test_frames_can_be_received(how: str) -> None:
    """AF_PACKET refuses the flag that requests close-on-exec."""
    with Namespace() as space, space.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("lo", 0x88B5))
        frame = bytes(12) + b"\x88\xb5" + bytes(50)
        sock.send(frame)
        if how == "Receiver":
            message = cmsgx.Receiver(sock, 100).receive(timeout=60)
        elif how == "BatchReceiver":
            message, *_ = cmsgx.BatchReceiver(sock, 4, 100).receive(timeout=60)
        else:
            message = cmsgx.receive(sock if how == "socket" else sock.fileno(), 100, timeout=60)
        assert message.data == frame
        assert message.address is not None
        assert message.address.family == socket.AF_PACKET
        into = bytearray(100)
        for received in (
            lambda one: cmsgx.recvmsg(one, 100, 64)[0],
            lambda one: into[: cmsgx.recvmsg_into(one, [into], 64)[0]],
            lambda one: cmsgx.recv_fds(one, 100, 2)[0],
        ):
            sock.send(frame)
            assert received(sock if how == "socket" else sock.fileno()) == frame


# Zero copy ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "host"), LOOPBACK)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["TCP", "UDP"])
def test_completions(kind: int, family: int, host: str) -> None:
    memory = bytes(4096)
    with (
        tcp_pair(family, host) if kind == socket.SOCK_STREAM else udp_pair(family, host) as (
            sender,
            reader,
        )
    ):
        cmsgx.enable(sender, kinds.ExtendedError.option(errors=False, zerocopy=True))
        for _ in range(5):
            sender.send(memory, MSG_ZEROCOPY)
        received = 0
        while received < 5 * len(memory):
            received += len(reader.recv(65536))
        found: list[int] = []
        while len(found) < 5 and is_ready(sender):
            for report in cmsgx.receive_errors(sender):
                assert isinstance(report, kinds.ZeroCopyCompletion)
                assert report.payload == b""
                # Loopback always copies.
                assert report.was_copied
                assert report.count == len(list(report)) == report.last - report.first + 1
                found += report
        assert found == [0, 1, 2, 3, 4]
        # They are joined to one if nothing is read meanwhile.
        for _ in range(3):
            sender.send(memory, MSG_ZEROCOPY)
        received = 0
        while received < 3 * len(memory):
            received += len(reader.recv(65536))
        assert eventually(lambda: is_ready(sender, 0))
        assert [i for report in collect_all(sender, 8) for i in cast(Any, report)] == [5, 6, 7]


def collect_all(sock: socket.socket, end: int) -> list[kinds.ErrorReport]:
    """Completions up to this id."""
    found: list[kinds.ErrorReport] = []
    while not (found and cast(kinds.ZeroCopyCompletion, found[-1]).last == end - 1):
        assert is_ready(sock)
        found += cmsgx.receive_errors(sock)
    return found


def test_completions_are_joined() -> None:
    with udp_pair(socket.AF_INET, "127.0.0.1") as (sender, reader):
        cmsgx.enable(sender, kinds.ExtendedError.option(errors=False, zerocopy=True))
        for _ in range(5):
            sender.send(b"some bytes", MSG_ZEROCOPY)
            reader.recv(100)
        report = one(sender, kinds.ZeroCopyCompletion)
    assert (report.first, report.last, report.count) == (0, 4, 5)
    assert list(report) == [0, 1, 2, 3, 4]
    assert [i for i in range(-1, 7) if i in report] == [0, 1, 2, 3, 4]
    assert "0" not in report
    assert repr(report) == "ZeroCopyCompletion(first=0, last=4, was_copied=True)"
