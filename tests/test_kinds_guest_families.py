"""The kinds of families that a kernel may lack, through the kernel if it has them."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import network
import pytest
from attempts import attempt, fails, may_fail, refused
from families import is_since, open_socket, run, set_option, switch_on
from namespaces import Namespace
from support import Pair, eventually

import cmsgx
from cmsgx import kinds
from cmsgx.kinds._reports import report_of

SOL_SOCKET = 1
LOCALHOST = "127.0.0.1"
SO_PASSSEC, SO_ZEROCOPY, SO_TXTIME, SO_TIMESTAMPING = 34, 60, 61, 37
MSG_ZEROCOPY, MSG_ERRQUEUE = 0x4000000, 0x2000
TX_SOFTWARE, SOFTWARE, OPT_ID = 1 << 1, 1 << 4, 1 << 7
TX_SCHED, TX_ACK, OPT_TSONLY, OPT_STATS = 1 << 8, 1 << 9, 1 << 11, 1 << 12


@pytest.fixture
def space() -> Iterator[Namespace]:
    with Namespace() as one:
        yield one


def has_error(sock: Any) -> bool:
    """Whether something is on the error queue."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def errors(sock: Any, count: int = 1, bufsize: int = 2048) -> list[cmsgx.Message]:
    """This many entries of the error queue."""
    found: list[cmsgx.Message] = []

    def another() -> bool:
        try:
            found.append(cmsgx.receive(sock, bufsize, flags=MSG_ERRQUEUE, timeout=0))
        except BlockingIOError:
            return False
        return len(found) == count

    assert eventually(another), found
    return found


# SCTP, DCCP -------------------------------------------------------------------------------------

IPPROTO_SCTP = 132


@pytest.fixture
def sctp() -> Iterator[Pair]:
    """A client and a server of SCTP, one-to-many."""
    client = open_socket(socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP)
    with client, cmsgx.socket(socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP) as server:
        server.bind((LOCALHOST, 0))
        server.listen()
        for sock in (client, server):
            sock.settimeout(30)
        yield client, server


def test_sctp_send_info_arrives_as_receive_info(sctp: Pair) -> None:
    client, server = sctp
    rx = cmsgx.Receiver(server, 100, want=[kinds.SctpReceiveInfo, kinds.SctpNextInfo])
    for n in range(3):
        info = kinds.SctpSendInfo(stream=n, ppid=socket.htonl(1000 + n))
        cmsgx.send(client, b"x" * (n + 1), control=info, address=server.getsockname())
    # The first one waits for the others, which it then describes.
    assert eventually(lambda: queued(server) >= 1)
    time.sleep(0.5)
    messages = [rx.receive() for _ in range(3)]
    infos = [msg[kinds.SctpReceiveInfo] for msg in messages]
    assert [(i.stream, i.ssn, socket.ntohl(i.ppid)) for i in infos] == [
        (n, 0, 1000 + n) for n in range(3)
    ]
    assert infos[1].tsn == (infos[0].tsn + 1) % 2**32
    assert infos[0].association != 0
    follows = [msg.get(kinds.SctpNextInfo) for msg in messages]
    assert [one and (one.stream, socket.ntohl(one.ppid), one.length) for one in follows] == [
        (1, 1001, 2),
        (2, 1002, 3),
        None,
    ]


def queued(sock: Any) -> int:
    """The size of the first message in the queue: SIOCINQ."""
    count: int = struct.unpack("i", fcntl.ioctl(sock, 0x541B, bytes(4)))[0]
    return count


def test_sctp_as_it_was_both_ways(sctp: Pair) -> None:
    client, server = sctp
    rx = cmsgx.Receiver(server, 100, want=[kinds.SctpSendReceiveInfo])
    sent = kinds.SctpSendReceiveInfo(stream=3, ppid=7, context=9, flags=kinds.SctpFlags.UNORDERED)
    cmsgx.send(client, b"x", control=sent, address=server.getsockname())
    info = rx.receive()[kinds.SctpSendReceiveInfo]
    assert (info.stream, info.ppid, info.flags) == (3, 7, kinds.SctpFlags.UNORDERED)
    assert info.association != 0


def test_the_streams_that_an_association_of_sctp_begins_with(sctp: Pair) -> None:
    client, server = sctp
    init = [kinds.SctpInit(streams=3), kinds.SctpSendInfo(stream=2)]
    cmsgx.send(client, b"x", control=init, address=server.getsockname())
    assert cmsgx.receive(server, 10).data == b"x"
    with fails(errno.EINVAL):
        cmsgx.send(client, b"x", control=kinds.SctpSendInfo(stream=3), address=server.getsockname())


def test_partial_reliability_of_sctp(sctp: Pair) -> None:
    client, server = sctp
    # Before the peer has announced support for it, the kernel treats its time as expired.
    cmsgx.send(client, b"first", address=server.getsockname())
    assert cmsgx.receive(server, 10).data == b"first"
    send = [kinds.SctpPartialReliability(kinds.SctpPolicy.TTL, 60_000), kinds.SctpSendInfo()]
    cmsgx.send(client, b"x", control=send, address=server.getsockname())
    assert cmsgx.receive(server, 10).data == b"x"
    with fails(errno.EINVAL):
        cmsgx.send(
            client,
            b"x",
            control=kinds.SctpPartialReliability(kinds.SctpPolicy(0x80), 1),
            address=server.getsockname(),
        )


def test_the_key_that_authenticates_a_message_of_sctp(space: Namespace) -> None:
    sctp_auth_chunk, sctp_auth_key = 21, 23
    with open_socket(socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP, space=space):
        space.write("/proc/sys/net/sctp/auth_enable", "1")
    client = open_socket(socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP, space=space)
    server = open_socket(socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP, space=space)
    with client, server:
        for sock in (client, server):
            sock.settimeout(30)
            set_option(sock, IPPROTO_SCTP, sctp_auth_chunk, b"\0", "SCTP_AUTH_CHUNK")  # DATA
            # struct sctp_authkey: association, number, length, key
            key = struct.pack("=iHH", 0, 5, 4) + b"key!"
            set_option(sock, IPPROTO_SCTP, sctp_auth_key, key, "SCTP_AUTH_KEY")
        server.bind((LOCALHOST, 0))
        server.listen()
        address = server.getsockname()
        cmsgx.send(client, b"x", control=kinds.SctpAuthInfo(5), address=address)
        assert cmsgx.receive(server, 10).data == b"x"
        with fails(errno.EINVAL):
            cmsgx.send(client, b"x", control=kinds.SctpAuthInfo(6), address=address)


@pytest.mark.parametrize(
    ("family", "kind", "host", "more", "wrong"),
    [
        (socket.AF_INET, "SctpDestination4", "10.77.1.1", "10.77.1.2", "224.0.0.1"),
        (socket.AF_INET6, "SctpDestination6", "fd00::1", "fd00::2", "ff02::1"),
    ],
)
def test_more_addresses_of_the_peer_of_sctp(
    space: Namespace, family: int, kind: str, host: str, more: str, wrong: str
) -> None:
    with open_socket(family, socket.SOCK_SEQPACKET, IPPROTO_SCTP, space=space) as server:
        for address in (host, more):
            space.ip(f"addr add {address}/{32 if family == socket.AF_INET else 128} dev lo")
        # Bound to any address, so that it announces both to the client.
        server.bind(("", 0))
        server.listen()
        server.settimeout(30)
        client = space.run(lambda: cmsgx.socket(family, socket.SOCK_SEQPACKET, IPPROTO_SCTP))
        with client:
            client.settimeout(30)
            make = getattr(kinds, kind)
            name = (host, server.getsockname()[1])
            with fails(errno.EINVAL, errno.EADDRNOTAVAIL):
                cmsgx.send(client, b"x", control=make(wrong), address=name)
            cmsgx.send(client, b"x", control=make(more), address=name)
            remote = space.run(Path("/proc/thread-self/net/sctp/remaddr").read_text)
            assert cmsgx.receive(server, 10).data == b"x"
            for address in (host, more):
                assert packed(family, address) in {
                    packed(family, line.split()[0]) for line in remote.splitlines()[1:]
                }


def packed(family: int, address: str) -> bytes | None:
    try:
        return socket.inet_pton(family, address)
    except OSError:
        return None


def test_the_priority_of_a_packet_of_dccp() -> None:
    sock_dccp, ipproto_dccp, sol_dccp, service = 6, 33, 269, 2
    server = open_socket(socket.AF_INET, sock_dccp, ipproto_dccp)
    with server, open_socket(socket.AF_INET, sock_dccp, ipproto_dccp) as client:
        for sock in (server, client):
            sock.setsockopt(sol_dccp, service, struct.pack("!I", 42))
            sock.settimeout(30)
        server.bind((LOCALHOST, 0))
        server.listen()
        switch_on(client, kinds.DccpPriority)
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(30)
            cmsgx.send(client, b"x", control=kinds.DccpPriority(7))
            assert cmsgx.receive(accepted, 10).data == b"x"
            with fails(errno.EINVAL):
                cmsgx.send(accepted, b"x", control=kinds.DccpPriority(7))


# CAN --------------------------------------------------------------------------------------------

CAN_J1939 = 7
FRAME = struct.pack("=IB3x8s", 0x123, 4, b"data")


@pytest.fixture
def can(space: Namespace) -> Namespace:
    """A namespace with a CAN interface, `vcan0`."""
    open_socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
    run("ip", "link", "add", "vcan0", "type", "vcan", space=space)
    space.ip("link set vcan0 up")
    return space


def can_raw(space: Namespace) -> cmsgx.socket:
    def make() -> cmsgx.socket:
        sock = cmsgx.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
        sock.bind(("vcan0",))
        sock.settimeout(30)
        return sock

    return space.run(make)


def test_when_a_can_frame_came_and_went(can: Namespace) -> None:
    with can_raw(can) as sender, can_raw(can) as receiver:
        before = time.time_ns()
        rx = cmsgx.Receiver(receiver, 100, want=[kinds.Timestamp])
        cmsgx.enable(sender, kinds.Timestamping.option(OPT_ID))
        cmsgx.send(
            sender, FRAME, control=kinds.TimestampingRequest(kinds.TimestampingFlags.TX_SOFTWARE)
        )
        msg = rx.receive()
        assert msg.data == FRAME
        assert is_since(before, msg[kinds.Timestamp].nanoseconds)
        [sent] = errors(sender)
        error = sent[kinds.ExtendedError]
        assert error.ee_errno == errno.ENOMSG
        assert error.ee_origin == kinds.ErrorOrigin.TIMESTAMPING
        assert is_since(before, sent[kinds.Timestamping].software)


def test_the_mark_and_the_priority_of_a_can_frame(can: Namespace) -> None:
    with can_raw(can) as sender, can_raw(can) as receiver:
        switch_on(receiver, kinds.Mark, kinds.Priority)
        cmsgx.send(sender, FRAME, control=[kinds.Mark(5), kinds.Priority(3)])
        msg = cmsgx.receive(receiver, 100)
        assert msg.data == FRAME
        assert (msg[kinds.Mark].mark, msg[kinds.Priority].priority) == (5, 3)


def j1939(space: Namespace, address: int, name: int = 0, pgn: int = 0x40000) -> cmsgx.socket:
    def make() -> cmsgx.socket:
        sock = open_socket(socket.AF_CAN, socket.SOCK_DGRAM, CAN_J1939)
        sock.settimeout(30)
        with attempt(f"bind to J1939 address {address}"):
            sock.bind(("vcan0", name, pgn, address))
        return sock

    return space.run(make)


def test_where_a_j1939_message_was_sent(can: Namespace) -> None:
    with j1939(can, 0x20) as sender, j1939(can, 0x40) as receiver:
        so_j1939_send_prio = 3
        want = [kinds.J1939DestinationAddress, kinds.J1939Priority]
        rx = cmsgx.Receiver(receiver, 100, want=want)
        sender.setsockopt(107, so_j1939_send_prio, 4)
        cmsgx.send(sender, b"data", address=("vcan0", 0, 0x12300, 0x40))
        msg = rx.receive()
        assert msg.data == b"data"
        assert msg[kinds.J1939DestinationAddress].address == 0x40
        assert msg[kinds.J1939Priority].priority == 4
        assert kinds.J1939DestinationName not in msg


def test_the_name_that_a_j1939_message_was_sent_to(can: Namespace) -> None:
    names = {0x20: 0x1111, 0x40: 0x2222}
    claim, broadcast = 0xEE00, 0xFF
    with j1939(can, 0x20, names[0x20]) as sender, j1939(can, 0x40, names[0x40]) as receiver:
        for sock, address in ((sender, 0x20), (receiver, 0x40)):
            sock.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
            data = struct.pack("<Q", names[address])
            cmsgx.send(sock, data, address=("vcan0", 0, claim, broadcast))
        time.sleep(0.3)  # an address is claimed once nobody has objected for 250 ms
        receiver.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                cmsgx.receive(receiver, 100)
        receiver.settimeout(30)
        cmsgx.send(sender, b"data", address=("vcan0", names[0x40], 0x12300, 0xFF))
        msg = cmsgx.receive(receiver, 100)
        assert msg.data == b"data"
        assert msg[kinds.J1939DestinationName].name == names[0x40]
        assert msg[kinds.J1939DestinationAddress].address == 0x40


def test_how_far_a_j1939_transfer_came(can: Namespace) -> None:
    with j1939(can, 0x20) as sender, j1939(can, 0x40) as receiver:
        flags = OPT_ID | TX_ACK | TX_SCHED | OPT_STATS | OPT_TSONLY
        cmsgx.enable(sender, kinds.ExtendedError, kinds.Timestamping.option(flags))
        cmsgx.send(sender, bytes(100), address=("vcan0", 0, 0x12300, 0x40))
        assert cmsgx.receive(receiver, 200).nbytes == 100
        [msg] = errors(sender, 1)
        stats = msg[kinds.J1939Stats].values
        assert msg[kinds.ExtendedError].ee_origin == kinds.ErrorOrigin.TIMESTAMPING
        assert msg[kinds.ExtendedError].ee_info == kinds.SentStage.ACKNOWLEDGED, (msg, stats)
        assert stats["bytes_acked"] >= 100
        # To an address that nobody has claimed.
        cmsgx.send(sender, bytes(100), address=("vcan0", 0, 0x12300, 0x41))
        failed = errors(sender, 1)[0][kinds.ExtendedError]
        assert failed.ee_origin == kinds.ErrorOrigin.LOCAL
        assert failed.ee_errno == errno.EHOSTUNREACH


# Others -----------------------------------------------------------------------------------------


def test_a_vsock_reports_when_memory_is_free_again() -> None:
    with open_socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        with attempt("bind to the CID of the own machine"):
            listener.bind((1, socket.VMADDR_PORT_ANY))
        listener.listen()
        with cmsgx.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as client:
            client.settimeout(30)
            with attempt("connect to the own machine"):
                client.connect((1, listener.getsockname()[1]))
            server, _ = listener.accept()
            with server:
                set_option(client, SOL_SOCKET, SO_ZEROCOPY, 1, "SO_ZEROCOPY")
                data = bytes(100_000)
                cmsgx.send(client, data, flags=MSG_ZEROCOPY)
                server.settimeout(30)
                got = 0
                while got < len(data):
                    got += cmsgx.receive(server, len(data)).nbytes
                if os.uname().machine == "s390x" and not eventually(lambda: has_error(client)):
                    refused(errno.ETIMEDOUT, "a completion of vsock_loopback on s390x")
                [msg] = errors(client)
                error = msg[kinds.ExtendedError]
                assert error.ee_origin == kinds.ErrorOrigin.ZEROCOPY
                assert (error.ee_errno, error.ee_info, error.ee_data) == (0, 0, 0)


def test_what_tipc_reports_about_a_message() -> None:
    service = 4711
    client = open_socket(socket.AF_TIPC, socket.SOCK_RDM)
    with client, cmsgx.socket(socket.AF_TIPC, socket.SOCK_RDM) as server:
        scope = socket.TIPC_NODE_SCOPE
        server.bind((socket.TIPC_ADDR_NAMESEQ, service, 10, 20, scope))
        for sock in (client, server):
            sock.settimeout(30)
        to = (socket.TIPC_ADDR_NAME, service, 15, 0)
        rx = cmsgx.Receiver(server, 100, want=[kinds.TipcDestination])
        cmsgx.send(client, b"first", address=to)
        msg = rx.receive()
        destination = msg[kinds.TipcDestination]
        assert (destination.service, destination.lower, destination.upper) == (service, 15, 15)
        # A message that nobody takes comes back.
        cmsgx.enable(client, kinds.TipcReturned)
        cmsgx.send(client, b"second", address=to)
        server.close()
        back = cmsgx.Receiver(client, 100, want=[kinds.TipcReturned, kinds.TipcReturnedData])
        returned = back.receive()
        assert returned[kinds.TipcReturned].error == kinds.TipcError.NO_PORT
        assert returned[kinds.TipcReturned].length == 6
        assert returned[kinds.TipcReturnedData].data == b"second"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_packet_that_missed_its_time(space: Namespace, family: int) -> None:
    clock_tai = 11
    run(
        *[
            "tc",
            "qdisc",
            "add",
            "dev",
            "lo",
            "root",
            "etf",
            "clockid",
            "CLOCK_TAI",
            "delta",
            "500000",
        ],
        space=space,
    )
    host = LOCALHOST if family == socket.AF_INET else "::1"
    with space.run(lambda: cmsgx.socket(family, socket.SOCK_DGRAM)) as sock:
        cmsgx.enable(sock, kinds.TxTime.option(clock_tai, report_errors=True))
        past = time.clock_gettime_ns(clock_tai) - 10**9
        with may_fail(errno.ENOBUFS):  # the qdisc drops it during the send
            cmsgx.send(sock, b"late", control=kinds.TxTime(past), address=(host, 9))
        [msg] = errors(sock)
        error = msg[kinds.ExtendedError]
        assert error.ee_origin == kinds.ErrorOrigin.TXTIME
        assert (error.ee_errno, error.ee_code) == (errno.EINVAL, 1)  # TXTIME_INVALID_PARAM
        assert error.ee_data << 32 | error.ee_info == past
        report = report_of(msg)
        assert isinstance(report, kinds.TxTimeError)
        assert report.reason is kinds.TxTimeFailure.INVALID_PARAMETER
        assert (report.errno, report.txtime) == (errno.EINVAL, past)


def test_a_routing_header_is_sent(space: Namespace) -> None:
    """Type 2 (RFC 6275), with one address; a kernel without Mobile IPv6 refuses it."""
    with space.run(lambda: cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM)) as sock:
        sock.connect(("::1", 9))
        header = bytes([0, 2, 2, 1, 0, 0, 0, 0]) + socket.inet_pton(socket.AF_INET6, "::1")
        # IPV6_RTHDR, and IPV6_2292RTHDR, which no kind sends
        for control in (kinds.RoutingHeader(header), cmsgx.Unknown(41, 5, header)):
            with attempt(f"{control} of type 2", errno.EINVAL):
                cmsgx.send(sock, b"x", control=control)


def test_the_label_of_a_sender_by_the_security_module(pair: Pair) -> None:
    sender, receiver = pair
    set_option(receiver, SOL_SOCKET, SO_PASSSEC, 1, "SO_PASSSEC")
    rx = cmsgx.Receiver(receiver, 10, want=[kinds.SecurityLabel])
    cmsgx.send(sender, b"x")
    label = rx.receive().get(kinds.SecurityLabel)
    active = Path("/sys/kernel/security/lsm")
    modules = active.read_text().split(",") if active.exists() else []
    if label is None:
        # AppArmor has a label only for SO_PEERSEC; SELinux has none for a stream before it has a
        # policy.
        is_stream = receiver.type == socket.SOCK_STREAM
        assert "smack" not in modules
        assert "selinux" not in modules or is_stream
        refused(errno.ENODATA, f"a label with a message, by {modules}")
    assert label.label == Path("/proc/self/attr/current").read_bytes().rstrip(b"\0\n")
    assert str(label) == label.label.decode()


def labelled_socket(label: str) -> cmsgx.socket:
    """Sockets whose packets have this label: each IPsec state has only one label."""
    with open("/proc/thread-self/attr/sockcreate", "wb", buffering=0) as attribute:
        attribute.write(label.encode())
        try:
            return network.open_socket(socket.AF_INET)
        finally:
            attribute.write(b"\0")


def test_the_label_of_a_packet_by_ipsec() -> None:
    """IP_PASSSEC. Before a policy is loaded SELinux knows its initial labels, as `kernel`."""
    active = Path("/sys/kernel/security/lsm")
    if not active.exists() or "selinux" not in active.read_text().split(","):
        refused(errno.EOPNOTSUPP, "labels of packets, without SELinux")
    key = "0x" + 20 * "5a"
    ends = ("src", "192.0.2.1", "dst", "192.0.2.2")
    with network.cable() as net:
        for namespace in (net.here, net.there):
            with namespace.entered():
                run(
                    "ip", "xfrm", "state", "add", *ends, "proto", "esp", "spi", "256", "reqid", "1",
                    "mode", "transport", "aead", "rfc4106(gcm(aes))", key, "128", "ctx", "kernel",
                )  # fmt: skip
        run(
            "ip", "xfrm", "policy", "add", *ends, "dir", "out", "ctx", "kernel",
            "tmpl", *ends, "proto", "esp", "reqid", "1", "mode", "transport",
        )  # fmt: skip
        with net.there.entered():
            receiver = network.open_socket(socket.AF_INET)
        with receiver, labelled_socket("kernel") as sender:
            receiver.bind(("192.0.2.2", 0))
            rx = cmsgx.Receiver(receiver, 10, want=[kinds.SecurityLabel])
            sender.sendto(b"x", receiver.getsockname())
            msg = rx.receive()
            assert msg.data == b"x"
            assert str(msg[kinds.SecurityLabel]) == "kernel"
