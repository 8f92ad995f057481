"""The kinds of IPv6 over real sockets: ipv6(7), RFC 3542."""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from contextlib import nullcontext
from typing import Any

import network
import pytest
from attempts import fails
from ipv6 import (
    HEADER,
    HOW,
    IPV6_DONTFRAG,
    IPV6_FLOWINFO,
    IPV6_HOPLIMIT,
    IPV6_MTU_DISCOVER,
    IPV6_PKTINFO,
    IPV6_RECVHOPLIMIT,
    IPV6_RECVPKTINFO,
    IPV6_RECVTCLASS,
    IPV6_TCLASS,
    send,
    with_next,
)
from namespaces import ip
from network import CABLE, PATHS, RAW, SOL_IPV6, SOL_SOCKET, V4, V6

import cmsgx
from cmsgx import kinds

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

IPV6_AUTOFLOWLABEL, IPV6_ORIGDSTADDR = 70, 74
SO_BINDTODEVICE = 25


# Numbers of the header --------------------------------------------------------------------------

NUMBERS = [
    *((kinds.HopLimit, value, IPV6_HOPLIMIT) for value in (0, 1, 64, 255)),
    *((kinds.TrafficClass, value, IPV6_TCLASS) for value in (0, 1, 3, 0xB8, 0xFF)),
]


@HOW
@pytest.mark.parametrize(("kind", "value", "number"), NUMBERS)
def test_hop_limit_and_traffic_class_are_sent_and_received(
    kind: Any, value: int, number: int, how: str
) -> None:
    path = PATHS["IPv6"]
    with network.udp(path, connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kind])
        send(how, path, sender, receiver, kind(value))
        msg = rx.receive()
        assert msg[kind] == kind(value)
        assert msg.control == (kind(value),)
        send(how, path, sender, receiver, kind(value))
        payload = struct.pack("=i", value)
        assert receiver.recvmsg(10, 100)[1] == [(SOL_IPV6, number, payload)]


def test_minus_one_is_the_hop_limit_of_the_socket() -> None:
    with network.udp("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.HopLimit])
        sender.setsockopt(SOL_IPV6, socket.IPV6_UNICAST_HOPS, 17)
        for control, expected in ((), 17), (kinds.HopLimit(5), 5), (kinds.HopLimit(-1), 17):
            cmsgx.send(sender, b"x", control=control)
            assert rx.receive()[kinds.HopLimit] == kinds.HopLimit(expected)


@pytest.mark.parametrize(
    ("wrong", "number"),
    [
        (kinds.PacketInfo6("2001:db8::99"), errno.EINVAL),
        (kinds.PacketInfo6(interface=99), errno.ENODEV),
        (kinds.DestinationOptions.unpack(b"\0\1" + bytes(6)), errno.EINVAL),
        (kinds.HopByHopOptions.unpack(b"\0\1" + bytes(6)), errno.EINVAL),
        (kinds.RoutingDestinationOptions.unpack(b"\0\1" + bytes(6)), errno.EINVAL),
        (kinds.RoutingHeader(bytes([0, 2, 0, 1]) + bytes(20)), errno.EINVAL),
        (kinds.RoutingHeader.unpack(bytes([0, 2, 4, 1]) + bytes(20)), errno.EINVAL),
    ],
    ids=repr,
)
def test_the_kernel_refuses_what_is_wrong(wrong: Any, number: int) -> None:
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        receiver.settimeout(0)
        with fails(number):
            cmsgx.send(sender, b"x", control=wrong)
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


@pytest.mark.parametrize(
    ("kind", "value", "is_sent"),
    [
        (kinds.HopLimit, -2, False),
        (kinds.HopLimit, 256, False),
        (kinds.TrafficClass, 256, False),
        # The kernel accepts it and sends 255.
        (kinds.TrafficClass, -1, True),
        (kinds.DontFragment, 2, False),
        (kinds.DontFragment, -1, False),
    ],
)
def test_what_is_out_of_range_is_not_sent(kind: Any, value: int, is_sent: bool) -> None:
    payload = struct.pack("=i", value)
    with network.udp("IPv6") as (sender, receiver):
        receiver.settimeout(0)
        with pytest.raises(ValueError, match=rf"{kind.__name__}\.\w+: {value}; must be"):
            kind(value)
        with pytest.raises(
            ValueError, match=rf"control: {kind.__name__}\(.*={value}\) is not sent"
        ):
            cmsgx.send(sender, b"x", control=kind.unpack(payload))
        with pytest.raises(BlockingIOError):
            receiver.recv(1)
        with nullcontext() if is_sent else fails(errno.EINVAL):
            cmsgx.send(sender, b"x", control=[(kind.level, kind.type, payload)])


@pytest.mark.parametrize(
    "kind",
    [
        kinds.HopByHopOptions,
        kinds.DestinationOptions,
        kinds.RoutingHeader,
        kinds.RoutingDestinationOptions,
    ],
)
@pytest.mark.parametrize("wrong", [b"", b"\0", bytes(7), bytes(9), bytes(16), b"\0\1" + bytes(6)])
def test_a_header_is_as_long_as_it_says(kind: Any, wrong: bytes) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.header: {len(wrong)} bytes"):
        kind(wrong)
    assert kind.unpack(wrong).header == wrong
    assert kind(memoryview(b"\0\1" + bytes(14))).header == b"\0\1" + bytes(14)


def test_flow_info_has_the_label_and_the_class() -> None:
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.FlowInfo])
        sender.setsockopt(SOL_IPV6, IPV6_AUTOFLOWLABEL, 0)
        cmsgx.send(sender, b"zero")
        assert kinds.FlowInfo not in rx.receive()
        # Only the label is sent: the traffic class is that of TrafficClass.
        for sent in (kinds.FlowInfo(0x54321), kinds.FlowInfo(0x0FF54321)):
            cmsgx.send(sender, b"x", control=[sent, kinds.TrafficClass(0xB9)])
            info = rx.receive()[kinds.FlowInfo]
            assert info == kinds.FlowInfo(0x0B954321)
            assert (info.label, info.traffic_class) == (0x54321, 0xB9)
        cmsgx.send(sender, b"x", control=kinds.FlowInfo(0xABCDE))
        payload = struct.pack("!I", 0xABCDE)
        assert receiver.recvmsg(10, 100)[1] == [(SOL_IPV6, IPV6_FLOWINFO, payload)]


def test_a_label_that_another_has_to_itself_is_refused() -> None:
    """IPV6_FLOWLABEL_MGR with IPV6_FL_S_EXCL: a lease."""
    with network.alone(), network.udp("IPv6") as (sender, _):
        request = socket.inet_pton(V6, "::1") + struct.pack("!I", 0x777)
        request += struct.pack("=BBHHHI", 0, 1, 1, 10, 0, 0)  # GET, EXCL, CREATE
        with network.open_socket(V6) as owner:
            owner.setsockopt(SOL_IPV6, 32, request)
            cmsgx.send(owner, b"x", control=kinds.FlowInfo(0x777), address=sender.getpeername())
            with fails(errno.EINVAL):
                cmsgx.send(sender, b"x", control=kinds.FlowInfo(0x777))


def test_the_flow_label_of_an_address_is_sent() -> None:
    """IPV6_FLOWINFO_SEND takes it from the address, once it was leased."""
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.FlowInfo])
        request = socket.inet_pton(V6, "::1") + struct.pack("!I", 0x54321)
        request += struct.pack("=BBHHHI", 0, 1, 1, 10, 0, 0)  # GET, EXCL, CREATE
        sender.setsockopt(SOL_IPV6, 32, request)
        sender.setsockopt(SOL_IPV6, 33, 1)
        host, port = receiver.getsockname()[:2]
        assert cmsgx.send(sender, b"x", address=(host, port, 0x54321, 0)) == 1
        assert rx.receive()[kinds.FlowInfo].label == 0x54321


# Packet info ------------------------------------------------------------------------------------


def test_packet_info_says_where_a_packet_came_in() -> None:
    with network.udp("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.PacketInfo6])
        sender.send(b"x")
        info = rx.receive()[kinds.PacketInfo6]
        assert info == kinds.PacketInfo6("::1", socket.if_nametoindex("lo"))
        assert info.interface_name == "lo"


@pytest.mark.parametrize("form", ["IPV6_PKTINFO", "IPV6_2292PKTINFO"])
def test_packet_info_chooses_the_source(form: str) -> None:
    with network.alone():
        network.add_address("lo", "2001:db8::5", 128)
        with network.udp("IPv6") as (sender, receiver):
            rx = cmsgx.Receiver(receiver, 10)
            info = kinds.PacketInfo6("2001:db8::5")
            number = getattr(cmsgx._cmsg, form)
            for control in (info, cmsgx.Unknown(SOL_IPV6, number, info.pack())):
                cmsgx.send(sender, b"x", control=control)
                address = rx.receive().address
                assert address is not None
                assert address[0] == "2001:db8::5"


def test_packet_info_chooses_the_interface() -> None:
    """For a link-local group, of which each interface has its own."""
    with network.cable() as net:
        with net.there.entered():
            receiver = network.open_socket(V6)
        with receiver, network.open_socket(V6) as sender:
            receiver.bind(("::", 0))
            to = ("ff02::1", receiver.getsockname()[1])
            rx = cmsgx.Receiver(receiver, 10, want=[kinds.PacketInfo6])
            index = {name: number for number, name in socket.if_nameindex()}
            with fails(errno.ENETUNREACH):
                cmsgx.send(
                    sender, b"x", control=kinds.PacketInfo6(interface=index["lo"]), address=to
                )
            info = kinds.PacketInfo6(CABLE[V6][0], index["veth1"])
            cmsgx.send(sender, b"by veth", control=info, address=to)
            msg = rx.receive()
            assert msg.data == b"by veth"
            assert msg.address is not None
            assert msg.address[0] == CABLE[V6][0]
            assert str(msg[kinds.PacketInfo6].address) == "ff02::1"
            with net.there.entered():
                assert msg[kinds.PacketInfo6].interface_name == "veth2"


REPLIES = [
    ("2001:db8::1", "2001:db8::1", 0),
    ("::1", "::1", 0),
    ("fec0::1", "fec0::1", 0),
    # Only on one link, because another may have the same.
    ("fe80::1", "fe80::1", 3),
    ("febf::1", "febf::1", 3),
    # A group cannot be a source; those of one link are asked on each.
    ("ff01::1", "::", 3),
    ("ff02::1", "::", 3),
    ("ff12::1:2", "::", 3),
    ("ff03::1", "::", 0),
    ("ff05::2", "::", 0),
    ("ff0e::101", "::", 0),
    # The same for IPv4.
    ("::ffff:192.0.2.1", "::ffff:192.0.2.1", 0),
    ("::ffff:127.0.0.1", "::ffff:127.0.0.1", 0),
    ("::ffff:169.254.1.2", "::ffff:169.254.1.2", 3),
    ("::ffff:255.255.255.255", "::", 3),
    ("::ffff:224.0.0.251", "::", 3),
    ("::ffff:224.0.1.1", "::", 0),
    ("::ffff:239.1.2.3", "::", 0),
    ("::", "::", 0),
]


@pytest.mark.parametrize(("address", "source", "interface"), REPLIES)
def test_a_reply_names_what_an_answer_has_to_be_sent_with(
    address: str, source: str, interface: int
) -> None:
    info = kinds.PacketInfo6(address, 3)
    expected = kinds.PacketInfo6(source, interface)
    assert info.reply() == kinds.PacketInfo6.unpack(info.pack()).reply() == expected
    # For IPv4, one that was queued before the option was set has no interface.
    assert kinds.PacketInfo6(address).reply() == kinds.PacketInfo6(source)


IS_EARLY = pytest.mark.parametrize(
    "is_early", [False, True], ids=["before bind()", "queued before"]
)
# Not the one that the kernel would choose, which is the one that was added last.
FIRST = CABLE[V6][0]


@pytest.mark.slow
@IS_EARLY
@pytest.mark.parametrize("host", ["::", FIRST])
def test_an_answer_comes_from_the_address_that_was_asked(host: str, is_early: bool) -> None:
    """Also a link-local one; the answer to a group comes from an address of the link."""
    group = socket.inet_pton(V6, "ff05::77")
    with network.cable() as net:
        ip("-6", "address", "flush", "dev", "veth1", "scope", "link")
        for local, length in (("fe80::1", 64), ("2001:db8::11", 64)):
            network.add_address("veth1", local, length)
        with net.there.entered():
            network.add_address("veth2", "fe80::2", 64)
            there = socket.if_nametoindex("veth2")
        here = socket.if_nametoindex("veth1")
        for asked, scope, sources in (
            (FIRST, 0, {FIRST}),
            ("fe80::1", there, {"fe80::1"}),
            ("ff02::1", there, {"fe80::1"}),
            ("ff05::77", there, {FIRST, "2001:db8::11", "fe80::1"}),
        ):
            if host not in ("::", asked):
                continue
            with net.there.entered():
                client = network.open_socket(V6)
            with client, network.open_socket(V6) as server:
                member = group + struct.pack("=i", here)
                server.setsockopt(SOL_IPV6, socket.IPV6_JOIN_GROUP, member)
                client.setsockopt(SOL_IPV6, socket.IPV6_MULTICAST_IF, there)
                found = network.answered_from(
                    server, client, (asked, 0, scope), kinds.PacketInfo6,
                    host=(host,), is_early=is_early,
                )  # fmt: skip
                assert found in sources, asked


@pytest.mark.slow
@IS_EARLY
def test_an_answer_over_a_dual_stack_socket_comes_from_the_address_that_was_asked(
    is_early: bool,
) -> None:
    """For an IPv4-mapped peer. The broadcast address of a subnet accepts both kinds."""
    first, second = CABLE[V4][0], "192.0.2.11"
    alone, both = (kinds.PacketInfo6,), (kinds.PacketInfo, kinds.PacketInfo6)
    with network.cable() as net:
        network.add_address("veth1", second, 24)
        for asked, source, want in (
            (second, second, alone),
            ("255.255.255.255", first, alone),
            (second, second, both),
            ("255.255.255.255", first, both),
            ("192.0.2.255", first, both),
        ):
            if is_early and asked == "192.0.2.255":
                continue
            with net.there.entered():
                client = network.open_socket(V4)
            with client, network.open_socket(V6) as server:
                server.setsockopt(SOL_IPV6, socket.IPV6_V6ONLY, 0)
                client.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
                client.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b"veth2")
                found = network.answered_from(
                    server, client, (asked,), *want, host=("::",), is_early=is_early
                )
                assert found == source, asked


@IS_EARLY
@pytest.mark.parametrize("name", [name for name, path in PATHS.items() if path.receiver == V6])
def test_an_answer_over_loopback_comes_from_the_address_that_was_asked(
    name: str, is_early: bool
) -> None:
    path = PATHS[name]
    hosts = ["127.0.0.1", "127.0.0.77"] if path.is_ipv4 else ["::1", "2001:db8::77"]
    with network.alone():
        if not path.is_ipv4:
            network.add_address("lo", hosts[1], 128)
        for host in hosts:
            mapped = f"::ffff:{host}" if path.is_ipv4 and path.sender == V6 else host
            with network.open_socket(path.sender) as client, network.open_socket(V6) as server:
                server.setsockopt(SOL_IPV6, socket.IPV6_V6ONLY, 0)
                found = network.answered_from(
                    server, client, (mapped,), kinds.PacketInfo6, host=("::",), is_early=is_early
                )
                assert found == mapped


def test_what_came_to_a_group_is_refused_as_a_source() -> None:
    """This is why it is not sent back unchanged."""
    with network.alone(), network.udp("IPv6", connected=False) as (_, server):
        with fails(errno.EINVAL):
            info = kinds.PacketInfo6("ff02::1", socket.if_nametoindex("lo"))
            cmsgx.send(server, b"!", control=info, address=("::1", 9))
        cmsgx.send(server, b"!", control=info.reply(), address=("::1", 9))


def test_the_original_destination() -> None:
    with network.alone():
        ip("-6", "route", "add", "local", "2001:db8:1::/64", "dev", "lo")
        with network.open_socket(V6) as sender, network.open_socket(V6) as receiver:
            receiver.bind(("::", 0))
            rx = cmsgx.Receiver(receiver, 10, want=[kinds.OriginalDestination6])
            to = ("2001:db8:1::77", receiver.getsockname()[1])
            sender.sendto(b"x", to)
            original = rx.receive()[kinds.OriginalDestination6]
            assert original.address.family == V6
            assert original.address == (*to, 0, 0)


# The path MTU -----------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["option", "control"])
def test_the_path_mtu_comes_alone(by: str) -> None:
    """After a datagram that was too long and must not be fragmented, from an ordinary receive;
    poll(2) does not report it."""
    with network.alone():
        network.set_link("lo", mtu=1500)
        with network.udp("IPv6") as (sender, _):
            rx = cmsgx.Receiver(sender, 10, want=[kinds.PathMtu])
            sender.setsockopt(SOL_IPV6, IPV6_DONTFRAG, int(by == "option"))
            with fails(errno.EMSGSIZE):
                control = kinds.DontFragment(1) if by == "control" else ()
                cmsgx.send(sender, bytes(2000), control=control)
            assert select.select([sender], [], [sender], 0) == ([], [], [])
            msg = rx.receive(timeout=0)
            assert (msg.data, msg.nbytes, msg.eof) == (b"", 0, False)
            found = msg[kinds.PathMtu]
            assert msg.control == (found,)
            assert found.mtu == 1500
            assert found.destination is not None
            assert found.destination[0] == "::1"
            assert len(found.destination.packed) == 28
            with pytest.raises(BlockingIOError):
                rx.receive(timeout=0)


@pytest.mark.parametrize("dont", [0, 1])
def test_dont_fragment(dont: int) -> None:
    with network.alone():
        network.set_link("lo", mtu=1500)
        with network.udp("IPv6") as (sender, receiver):
            rx = cmsgx.Receiver(receiver, 4000, want=[kinds.FragmentSize])
            # The opposite of the socket's setting, whichever that is.
            sender.setsockopt(SOL_IPV6, IPV6_DONTFRAG, 1 - dont)
            sender.setsockopt(SOL_IPV6, IPV6_MTU_DISCOVER, 0)
            control = kinds.DontFragment(dont)
            if dont:
                with fails(errno.EMSGSIZE):
                    cmsgx.send(sender, bytes(2000), control=control)
            else:
                cmsgx.send(sender, bytes(2000), control=control)
                msg = rx.receive()
                assert msg.nbytes == 2000
                assert msg[kinds.FragmentSize].size <= 1500
            cmsgx.send(sender, bytes(1000), control=control)
            assert rx.receive().nbytes == 1000


# Other sockets of IPv6 --------------------------------------------------------------------------


def test_raw_sockets_have_them_too() -> None:
    wanted = [kinds.PacketInfo6, kinds.HopLimit, kinds.TrafficClass, kinds.DestinationOptions]
    with network.alone(), network.open_socket(V6, RAW, 253) as sock:
        rx = cmsgx.Receiver(sock, 100, want=wanted)
        sent = [kinds.HopLimit(9), kinds.TrafficClass(8), kinds.DestinationOptions(HEADER)]
        cmsgx.send(sock, b"raw", control=sent, address=("::1", 0))
        msg = rx.receive()
        assert msg.data == b"raw"
        assert [msg[kinds.HopLimit], msg[kinds.TrafficClass]] == sent[:2]
        assert msg[kinds.DestinationOptions].header == with_next(HEADER, 253)
        assert str(msg[kinds.PacketInfo6].address) == "::1"


def test_a_tcp_socket_delivers_none_of_them() -> None:
    wanted = [kinds.PacketInfo6, kinds.HopLimit, kinds.TrafficClass]
    with network.tcp(V6) as (client, server):
        rx = cmsgx.Receiver(server, 10, want=wanted)
        client.sendall(b"x")
        msg = rx.receive()
        assert msg.control == ()
        with pytest.raises(KeyError, match="although it is enabled"):
            msg[kinds.HopLimit]


# Short control buffers --------------------------------------------------------------------------

SHORT = [
    (kinds.PacketInfo6, IPV6_RECVPKTINFO, IPV6_PKTINFO, 20),
    (kinds.HopLimit, IPV6_RECVHOPLIMIT, IPV6_HOPLIMIT, 4),
    (kinds.TrafficClass, IPV6_RECVTCLASS, IPV6_TCLASS, 4),
    (kinds.FlowInfo, IPV6_FLOWINFO, IPV6_FLOWINFO, 4),
    (kinds.OriginalDestination6, IPV6_ORIGDSTADDR, IPV6_ORIGDSTADDR, 28),
]


@pytest.mark.parametrize(
    ("kind", "option", "number", "came"),
    [(*row, came) for *row, size in SHORT for came in range(size)],
)
def test_a_short_control_buffer_is_reported(kind: Any, option: int, number: int, came: int) -> None:
    with network.udp("IPv6") as (sender, receiver):
        receiver.setsockopt(SOL_IPV6, option, 1)
        control = kinds.FlowInfo(5) if kind is kinds.FlowInfo else ()
        cmsgx.send(sender, b"x", control=control)
        _, ancdata, flags, _ = cmsgx.recvmsg(receiver, 10, cmsgx.CMSG_LEN(came))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, type_, len(payload)) == (SOL_IPV6, number, came)
        with pytest.raises(cmsgx.MalformedControlError, match="truncated") as caught:
            cmsgx.decode(level, type_, payload, V6)
        assert kind.__name__ in str(caught.value)
