"""The kinds of UDP, TCP and kTLS over real sockets: udp(7), tcp(7)."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Any

import network
import pytest
from attempts import attempt, fails
from network import PATHS, V4, V6

import cmsgx
from cmsgx import kinds

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

SOL_TCP, SOL_UDP, SOL_TLS = 6, 17, 282
UDP_SEGMENT, UDP_GRO, TCP_CM_INQ, TCP_ULP = 103, 104, 36, 31
IPPROTO_MPTCP = 262

ALL_PATHS = pytest.mark.parametrize("name", PATHS)


# Segments ---------------------------------------------------------------------------------------


@ALL_PATHS
@pytest.mark.parametrize(
    ("size", "total", "expected"),
    [
        (100, 300, [100, 100, 100]),
        (100, 301, [100, 100, 100, 1]),
        (100, 100, [100]),
        (100, 50, [50]),
        (1, 5, [1] * 5),
        (0, 300, [300]),
    ],
)
def test_data_is_cut(name: str, size: int, total: int, expected: list[int]) -> None:
    data = os.urandom(total)
    with network.udp(name) as (sender, receiver):
        assert cmsgx.send(sender, data, control=kinds.UdpSegment(size)) == total
        got = [receiver.recv(2000) for _ in expected]
        assert [len(part) for part in got] == expected
        assert b"".join(got) == data
        receiver.settimeout(0)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


def test_each_way_to_send_takes_it() -> None:
    with network.udp("IPv4", connected=False) as (sender, receiver):
        to = receiver.getsockname()
        to = ("127.0.0.1", to[1])
        control = kinds.UdpSegment(2)
        raw = (SOL_UDP, UDP_SEGMENT, struct.pack("=H", 2))
        assert cmsgx.send(sender, [b"a", b"bcd"], control=[control], address=to) == 4
        assert cmsgx.sendmsg(sender, [b"a", b"bcd"], [control], 0, to) == 4
        assert cmsgx.sendmsg(sender, [b"a", b"bcd"], [raw], 0, to) == 4
        assert [receiver.recv(10) for _ in range(6)] == [b"ab", b"cd"] * 3


def test_a_segment_has_to_fit_the_mtu() -> None:
    with network.alone():
        network.set_link("lo", mtu=1500)
        for name, headers in (("IPv4", 28), ("IPv6", 48)):
            with network.udp(name) as (sender, receiver):
                most = 1500 - headers
                cmsgx.send(sender, bytes(3000), control=kinds.UdpSegment(most))
                assert [len(receiver.recv(3000)) for _ in range(3)] == [most, most, 3000 - 2 * most]
                with fails(errno.EMSGSIZE):
                    cmsgx.send(sender, bytes(3000), control=kinds.UdpSegment(most + 1))


def test_there_is_a_limit_to_their_number_and_to_the_whole() -> None:
    with network.udp("IPv4") as (sender, receiver):
        # Since Linux 6.12 it is twice as many.
        release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        most = 128 if release >= (6, 12) else 64
        cmsgx.send(sender, bytes(most), control=kinds.UdpSegment(1))
        assert [receiver.recv(2) for _ in range(most)] == [b"\0"] * most
        with fails(errno.EINVAL):
            cmsgx.send(sender, bytes(most + 1), control=kinds.UdpSegment(1))
        cmsgx.send(sender, bytes(65507), control=kinds.UdpSegment(2000))
        with fails(errno.EMSGSIZE):
            cmsgx.send(sender, bytes(65508), control=kinds.UdpSegment(2000))
        sender.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
        with fails(errno.EINVAL):
            cmsgx.send(sender, bytes(10), control=kinds.UdpSegment(1))


@pytest.mark.parametrize("payload", [b"", b"\1", bytes(4), bytes(8)])
def test_the_kernel_refuses_another_length(payload: bytes) -> None:
    with network.udp("IPv4") as (sender, _), fails(errno.EINVAL):
        cmsgx.send(sender, b"x", control=cmsgx.Unknown(SOL_UDP, UDP_SEGMENT, payload))


def test_it_is_not_received() -> None:
    with network.udp("IPv4") as (_, receiver):
        with pytest.raises(ValueError, match="only delivers it"):
            cmsgx.send(receiver, b"x", control=kinds.UdpGro(1), address=("127.0.0.1", 9))
        assert cmsgx.decode(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 5)) == kinds.UdpSegment(5)


@ALL_PATHS
@pytest.mark.parametrize(("size", "total"), [(100, 300), (100, 350), (1200, 60000), (2, 5)])
def test_datagrams_are_joined(name: str, size: int, total: int) -> None:
    data = os.urandom(total)
    with network.udp(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 1 << 16, want=[kinds.UdpGro])
        cmsgx.send(sender, data, control=kinds.UdpSegment(size))
        msg = rx.receive()
        assert msg.data == data
        assert msg[kinds.UdpGro] == kinds.UdpGro(size)
        assert msg.control == (kinds.UdpGro(size),)
        cmsgx.send(sender, b"alone")
        msg = rx.receive()
        assert (msg.data, msg.control) == (b"alone", ())
        cmsgx.send(sender, data, control=kinds.UdpSegment(size))
        payload = struct.pack("=i", size)
        assert receiver.recvmsg(1 << 16, 100)[1] == [(SOL_UDP, UDP_GRO, payload)]


def test_of_datagrams_that_do_not_fit_the_rest_is_lost() -> None:
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 250, want=[kinds.UdpGro])
        cmsgx.send(sender, bytes(400), control=kinds.UdpSegment(100))
        with pytest.raises(cmsgx.errors.DataTruncatedError) as caught:
            rx.receive()
        assert caught.value.message.nbytes == 250
        assert caught.value.message[kinds.UdpGro] == kinds.UdpGro(100)


@pytest.mark.parametrize("room", range(4))
def test_a_short_control_buffer_for_the_size_of_segments(room: int) -> None:
    with network.udp("IPv4") as (sender, receiver), cmsgx.enable(receiver, kinds.UdpGro):
        cmsgx.send(sender, bytes(2400), control=kinds.UdpSegment(1200))
        _, ancdata, flags, _ = cmsgx.recvmsg(receiver, 1 << 16, cmsgx.CMSG_LEN(room))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, type_, len(payload)) == (SOL_UDP, UDP_GRO, room)
        with pytest.raises(cmsgx.MalformedControlError, match=r"UdpGro.*truncated"):
            cmsgx.decode(level, type_, payload)


# TCP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, IPPROTO_MPTCP])
@pytest.mark.parametrize("family", [V4, V6])
def test_what_is_left_in_the_queue(family: int, protocol: int) -> None:
    with network.tcp(family, protocol) as (client, server):
        rx = cmsgx.Receiver(server, 4, want=[kinds.TcpInq])
        client.sendall(b"0123456789")
        assert len(server.recv(10, socket.MSG_PEEK | socket.MSG_WAITALL)) == 10
        for data, left in ((b"0123", 6), (b"4567", 2), (b"89", 0)):
            msg = rx.receive()
            assert (msg.data, msg[kinds.TcpInq]) == (data, kinds.TcpInq(left))
            assert msg.control == (kinds.TcpInq(left),)


def test_at_the_end_there_is_one() -> None:
    with network.tcp() as (client, server):
        rx = cmsgx.Receiver(server, 4, want=[kinds.TcpInq])
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        # Waits until that has come too.
        assert server.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL) == b"last"
        msg = rx.receive()
        assert (msg.data, msg[kinds.TcpInq]) == (b"last", kinds.TcpInq(1))
        msg = rx.receive()
        assert (msg.data, msg.eof) == (b"", True)


@pytest.mark.parametrize("room", range(4))
def test_a_short_control_buffer_for_what_is_left(room: int) -> None:
    with network.tcp() as (client, server), cmsgx.enable(server, kinds.TcpInq):
        client.sendall(b"data")
        _, ancdata, flags, _ = cmsgx.recvmsg(server, 1, cmsgx.CMSG_LEN(room))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, type_, len(payload)) == (SOL_TCP, TCP_CM_INQ, room)
        with pytest.raises(cmsgx.MalformedControlError, match=r"TcpInq.*truncated"):
            cmsgx.decode(level, type_, payload)


# kTLS -------------------------------------------------------------------------------------------


def crypto_info() -> bytes:
    """struct tls12_crypto_info_aes_gcm_128: TLS 1.2, and the same key for both."""
    return struct.pack("=HH", 0x0303, 51) + bytes(8) + bytes(range(16)) + bytes(4) + bytes(8)


def test_records_of_each_type() -> None:
    with network.tcp() as (client, server):
        for sock, direction in ((client, 1), (server, 2)):  # TLS_TX, TLS_RX
            with attempt("TCP_ULP tls", errno.ENOENT, errno.ENOPROTOOPT, errno.EPERM):
                sock.setsockopt(SOL_TCP, TCP_ULP, b"tls")
            sock.setsockopt(SOL_TLS, direction, crypto_info())
        rx = cmsgx.Receiver(server, 100)
        sent: list[tuple[Any, bytes]] = [
            (kinds.TlsType.APPLICATION_DATA, b"data"),
            (kinds.TlsType.ALERT, b"\1\0"),
            (kinds.TlsType.HANDSHAKE, b"hello"),
            (kinds.TlsType(99), b"of the future"),
        ]
        for record, data in sent:
            cmsgx.send(client, data, control=kinds.TlsRecordType(record))
        cmsgx.send(client, b"plain")
        for record, data in [*sent, (kinds.TlsType.APPLICATION_DATA, b"plain")]:
            msg = rx.receive()
            assert not msg.truncated
            assert (msg[kinds.TlsRecordType].record, msg.data) == (record, data)
        with fails(errno.EINVAL):
            control = kinds.TlsRecordType(kinds.TlsType.ALERT)
            cmsgx.send(client, b"\1\0", control=control, flags=socket.MSG_MORE)
