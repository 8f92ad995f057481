"""The kinds of packet and netlink sockets over real ones: packet(7), netlink(7)."""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys
from contextlib import nullcontext
from typing import Any

import network
import pytest
from namespaces import ip
from network import DGRAM, RAW

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import PacketStatus

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

AF_PACKET, AF_NETLINK = 17, 16
SOL_SOCKET, SOL_PACKET, SOL_NETLINK = 1, 263, 270
PACKET_AUXDATA, NETLINK_PKTINFO, NETLINK_LISTEN_ALL_NSID = 8, 3, 8
ETHERTYPE = 0x88B5  # no real protocol: IEEE 802, for experiments
ETH_P_ALL = 3
RTMGRP_LINK, RTNLGRP_LINK = 1, 1


# What a packet's data does not show -------------------------------------------------------------


@pytest.mark.parametrize(("kind", "header"), [(RAW, 14), (DGRAM, 0)])
@pytest.mark.parametrize("size", [46, 1000])
def test_length_and_where_the_headers_are(kind: int, header: int, size: int) -> None:
    with (
        network.alone(),
        network.open_socket(AF_PACKET, kind) as receiver,
        network.open_socket(AF_PACKET, DGRAM) as sender,
    ):
        receiver.bind(("lo", ETHERTYPE))
        rx = cmsgx.Receiver(receiver, 2000, want=[kinds.PacketAuxdata])
        sender.sendto(b"x" * size, ("lo", ETHERTYPE))
        msg = rx.receive()
        assert msg.nbytes == header + size
        aux = msg[kinds.PacketAuxdata]
        assert msg.control == (aux,)
        assert (aux.length, aux.snaplen) == (header + size, header + size)
        assert (aux.mac, aux.net) == (0, header)
        assert aux.status == PacketStatus.USER
        assert (aux.vlan_id, aux.vlan_priority, aux.vlan_protocol) == (None, None, None)
        sender.sendto(b"x" * size, ("lo", ETHERTYPE))
        ((level, type_, payload),) = receiver.recvmsg(2000, 100)[1]
        assert (level, type_) == (SOL_PACKET, PACKET_AUXDATA)
        fields = struct.unpack("=IIIHHHH", payload)
        assert fields == (1, header + size, header + size, 0, header, 0, 0)


def test_what_a_filter_left_of_a_packet() -> None:
    with (
        network.alone(),
        network.open_socket(AF_PACKET, RAW) as receiver,
        network.open_socket(AF_PACKET, DGRAM) as sender,
    ):
        receiver.bind(("lo", ETHERTYPE))
        cut = struct.pack("=HBBI", 6, 0, 0, 40)  # BPF_RET: 40 bytes of each
        with network.filter_program(cut) as program:
            receiver.setsockopt(SOL_SOCKET, 26, program)  # SO_ATTACH_FILTER
        rx = cmsgx.Receiver(receiver, 2000, want=[kinds.PacketAuxdata])
        sender.sendto(b"x" * 100, ("lo", ETHERTYPE))
        msg = rx.receive()
        assert (msg.nbytes, msg.truncated) == (40, False)
        aux = msg[kinds.PacketAuxdata]
        assert (aux.length, aux.snaplen) == (114, 40)


def test_a_checksum_that_is_left_to_the_adapter() -> None:
    """Loopback has no adapter, so the checksum is never computed."""
    with (
        network.alone(),
        network.open_socket(AF_PACKET, DGRAM) as receiver,
        network.udp("IPv4") as (sender, _),
    ):
        receiver.bind(("lo", 0x0800))
        rx = cmsgx.Receiver(receiver, 2000, want=[kinds.PacketAuxdata])
        sender.send(b"x")
        assert rx.receive()[kinds.PacketAuxdata].status & PacketStatus.CSUM_NOT_READY


@pytest.mark.parametrize("protocol", [0x8100, 0x88A8])
@pytest.mark.parametrize(("vlan", "priority"), [(0, 0), (1, 0), (77, 5), (4094, 7)])
def test_a_vlan_tag_is_taken_out_of_the_data(protocol: int, vlan: int, priority: int) -> None:
    with network.cable() as net:
        with net.there.entered():
            receiver = network.open_socket(AF_PACKET, RAW)
            receiver.bind(("veth2", ETH_P_ALL))
        with receiver, network.open_socket(AF_PACKET, RAW) as sender:
            sender.bind(("veth1", 0))
            rx = cmsgx.Receiver(receiver, 2000, want=[kinds.PacketAuxdata])
            addresses = b"\xff" * 6 + bytes(6)
            tag = struct.pack("!HH", protocol, priority << 13 | vlan)
            rest = struct.pack("!H", ETHERTYPE) + b"x" * 50
            sender.send(addresses + tag + rest)
            # Neighbour discovery packets of IPv6 also arrive, without a tag.
            msg = next(msg for msg in rx if msg.data[:6] == b"\xff" * 6)
            assert msg.data == addresses + rest
            aux = msg[kinds.PacketAuxdata]
            assert aux.status == (
                PacketStatus.USER | PacketStatus.VLAN_VALID | PacketStatus.VLAN_TPID_VALID
            )
            assert (aux.vlan_id, aux.vlan_priority) == (vlan, priority)
            assert aux.vlan_protocol == protocol
            assert (aux.vlan_tci, aux.vlan_tpid) == (priority << 13 | vlan, protocol)
            assert aux.length == len(msg.data)


@pytest.mark.parametrize("room", range(20))
def test_a_short_control_buffer_is_reported(room: int) -> None:
    with (
        network.alone(),
        network.open_socket(AF_PACKET, DGRAM) as receiver,
        network.open_socket(AF_PACKET, DGRAM) as sender,
        cmsgx.enable(receiver, kinds.PacketAuxdata),
    ):
        receiver.bind(("lo", ETHERTYPE))
        sender.sendto(b"x", ("lo", ETHERTYPE))
        _, ancdata, flags, _ = receiver.recvmsg(2000, cmsgx.CMSG_LEN(room))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, type_, len(payload)) == (SOL_PACKET, PACKET_AUXDATA, room)
        with pytest.raises(cmsgx.MalformedControlError, match=r"PacketAuxdata.*truncated"):
            cmsgx.decode(level, type_, payload, AF_PACKET)


def test_everything_that_a_packet_socket_has() -> None:
    wanted: list[Any] = [
        kinds.PacketAuxdata, kinds.Timestamp, kinds.Timestamping, kinds.ReceiveQueueOverflow,
        kinds.WifiStatus, kinds.TimestampingPacketInfo,
    ]  # fmt: skip
    with (
        network.alone(),
        network.open_socket(AF_PACKET, DGRAM) as receiver,
        network.open_socket(AF_PACKET, DGRAM) as sender,
    ):
        receiver.bind(("lo", ETHERTYPE))
        rx = cmsgx.Receiver(receiver, 2000, want=wanted)
        sender.sendto(b"x", ("lo", ETHERTYPE))
        msg = rx.receive()
        assert not msg.truncated
        assert {kinds.PacketAuxdata, kinds.Timestamp} <= {type(one) for one in msg}


# Netlink ----------------------------------------------------------------------------------------


def dump_links(sequence: int) -> bytes:
    """RTM_GETLINK with NLM_F_REQUEST and NLM_F_DUMP: rtnetlink(7)."""
    return struct.pack("=IHHII", 20, 18, 0x301, sequence, 0) + bytes(4)


def sequence_of(msg: cmsgx.Message) -> int:
    number: int = struct.unpack_from("=I", msg.data, 8)[0]
    return number


def test_the_group_that_a_message_was_sent_to() -> None:
    with network.alone(), network.open_socket(AF_NETLINK, RAW, 0) as sock:
        sock.bind((0, RTMGRP_LINK))
        rx = cmsgx.Receiver(sock, 1 << 16, want=[kinds.NetlinkPacketInfo])
        network.set_link("lo", mtu=1400)
        msg = rx.receive()
        assert msg.control == (kinds.NetlinkPacketInfo(RTNLGRP_LINK),)
        # An answer is only for this socket.
        sock.send(dump_links(7))
        msg = rx.receive()
        assert sequence_of(msg) == 7
        assert msg[kinds.NetlinkPacketInfo] == kinds.NetlinkPacketInfo(0)


def test_the_namespace_that_an_event_is_of() -> None:
    with network.cable() as net, network.open_socket(AF_NETLINK, RAW, 0) as sock:
        sock.bind((0, RTMGRP_LINK))
        wanted = [kinds.NetworkNamespaceId, kinds.NetlinkPacketInfo]
        rx = cmsgx.Receiver(sock, 1 << 16, want=wanted)
        # The other end of the cable refers to it by the id that it has here.
        (link,) = json.loads(ip("-json", "link", "show", "veth1"))
        with net.there.entered():
            network.set_link("lo", mtu=1400)
        msg = rx.receive()
        assert msg[kinds.NetworkNamespaceId] == kinds.NetworkNamespaceId(link["link_netnsid"])
        assert msg[kinds.NetlinkPacketInfo] == kinds.NetlinkPacketInfo(RTNLGRP_LINK)
        network.set_link("lo", mtu=1400)
        msg = rx.receive()
        assert kinds.NetworkNamespaceId not in msg
        assert kinds.NetlinkPacketInfo in msg


def test_events_of_others_are_not_for_everybody() -> None:
    with network.alone(), network.open_socket(AF_NETLINK, RAW, 0) as sock:
        with (
            network.without_capabilities(),
            pytest.raises(PermissionError) as caught,
        ):
            cmsgx.enable(sock, kinds.NetlinkPacketInfo, kinds.NetworkNamespaceId)
        assert not isinstance(caught.value, cmsgx.CmsgError)
        assert caught.value.errno == errno.EPERM
        assert sock.getsockopt(SOL_NETLINK, NETLINK_PKTINFO) == 0
        assert sock.getsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID) == 0


def test_the_kernel_has_no_pid() -> None:
    with network.alone(), network.open_socket(AF_NETLINK, RAW, 0) as sock:
        sock.bind((0, RTMGRP_LINK))
        rx = cmsgx.Receiver(sock, 1 << 16, want=[cmsgx.Credentials])
        network.set_link("lo", mtu=1400)
        who = rx.receive()[cmsgx.Credentials]
        assert (who.pid, who.uid, who.gid) == (None, 0, 0)


@pytest.mark.parametrize("room", range(4))
@pytest.mark.parametrize("kind", [kinds.NetlinkPacketInfo, kinds.NetworkNamespaceId])
def test_a_short_control_buffer_for_what_netlink_reports(kind: Any, room: int) -> None:
    with network.cable() as net, network.open_socket(AF_NETLINK, RAW, 0) as sock:
        sock.bind((0, RTMGRP_LINK))
        cmsgx.enable(sock, kind)
        with net.there.entered() if kind is kinds.NetworkNamespaceId else nullcontext():
            network.set_link("lo", mtu=1400)
        _, ancdata, flags, _ = sock.recvmsg(1 << 16, cmsgx.CMSG_LEN(room))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, len(payload)) == (SOL_NETLINK, room)
        with pytest.raises(cmsgx.MalformedControlError, match=f"{kind.__name__}.*truncated"):
            cmsgx.decode(level, type_, payload, AF_NETLINK)
