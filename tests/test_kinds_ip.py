"""The kinds of IPv4 over real sockets: ip(7)."""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from typing import Any

import network
import pytest
from attempts import fails
from namespaces import ip
from network import CABLE, LOOPBACK, RAW, SOL_IP, SOL_SOCKET, V4
from support import unregistered

import cmsgx
from cmsgx import kinds

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

IP_TOS, IP_TTL, IP_OPTIONS, IP_PKTINFO, IP_MTU_DISCOVER, IP_ORIGDSTADDR = 1, 2, 4, 8, 10, 20
SO_BINDTODEVICE = 25

HOW = pytest.mark.parametrize("how", ["connected", "address", "drop-in"])


def send(how: str, sender: cmsgx.socket, receiver: cmsgx.socket, control: Any) -> None:
    """Sends one message by each call that accepts a typed control message."""
    to = (LOOPBACK[V4], receiver.getsockname()[1])
    if how == "connected":
        sender.connect(to)
        cmsgx.send(sender, b"data", control=control)
    elif how == "address":
        cmsgx.send(sender, b"data", control=control, address=to)
    else:
        cmsgx.sendmsg(sender, [b"data"], [control], 0, to)


# Ttl and Tos ------------------------------------------------------------------------------------

NUMBERS = [
    *((kinds.Ttl, value, IP_TTL, struct.pack("=i", value)) for value in (1, 7, 64, 255)),
    *((kinds.Tos, value, IP_TOS, bytes([value])) for value in (0, 1, 3, 0xB8, 0xFF)),
]


@HOW
@pytest.mark.parametrize(("kind", "value", "number", "payload"), NUMBERS)
def test_ttl_and_tos_are_sent_and_received(
    kind: Any, value: int, number: int, payload: bytes, how: str
) -> None:
    with network.udp("IPv4", connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kind])
        send(how, sender, receiver, kind(value))
        msg = rx.receive()
        assert msg[kind] == kind(value)
        assert msg.control == (kind(value),)
        assert msg.data == b"data"
        # Without cmsgx's own decoding, as the catalogue has it.
        send(how, sender, receiver, kind(value))
        assert receiver.recvmsg(10, 100)[1] == [(SOL_IP, number, payload)]


@pytest.mark.parametrize("size", range(10))
def test_bytes_of_tos(size: int) -> None:
    """As a kernel delivers it: one byte, or a whole int as a sender packs it."""
    payload = struct.pack("=i", 5).ljust(size, b"\0")[:size] if size > 1 else b"\5"[:size]
    if size in (1, 4):
        assert cmsgx.decode(SOL_IP, IP_TOS, payload) == kinds.Tos(5)
        return
    cut = r" \(truncated\)" if size < 4 else "$"
    with pytest.raises(
        cmsgx.MalformedControlError, match=f"{size} bytes received; expected 1 or 4{cut}"
    ):
        cmsgx.decode(SOL_IP, IP_TOS, payload)


def test_an_int_of_two_bytes_is_one_where_a_kind_says_so() -> None:
    kind: Any = type("Own", (kinds.StructMessage,), {"__slots__": ()})
    also = [kinds.WireFormat(7777, 2, "integer", size=2)]
    with unregistered():
        kinds.register(
            kind, level=7777, type=1, layout=(("value", 0, "i"),), size=4,
            encoding="integer", other_forms=also,
        )  # fmt: skip
        assert cmsgx.decode(7777, 2, struct.pack("=H", 5)) == kind(5)
        with pytest.raises(cmsgx.MalformedControlError, match="expected 1 or 4"):
            cmsgx.decode(7777, 1, struct.pack("=H", 5))


def test_more_options_than_a_header_has_are_refused() -> None:
    """The kernel would ignore the rest."""
    assert kinds.ReturnOptions(bytes(40)).options == bytes(40)
    with pytest.raises(ValueError, match=r"ReturnOptions\.options: 41 bytes; its size is 0 to 40"):
        kinds.ReturnOptions(bytes(41))


@pytest.mark.parametrize(("kind", "option"), [(kinds.Ttl, IP_TTL), (kinds.Tos, IP_TOS)])
def test_one_that_is_not_sent_is_that_of_the_socket(kind: Any, option: int) -> None:
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kind])
        sender.setsockopt(SOL_IP, option, 44)
        for control, expected in ((), 44), ((kind(8),), 8), ((), 44):
            cmsgx.send(sender, b"x", control=control)
            assert rx.receive()[kind] == kind(expected)


@pytest.mark.parametrize(
    ("kind", "value"),
    [(kinds.Ttl, 0), (kinds.Ttl, 256), (kinds.Ttl, -1), (kinds.Tos, 256), (kinds.Tos, -1)],
)
def test_what_is_out_of_range_is_not_sent(kind: Any, value: int) -> None:
    """A decoded value may be anything: it is refused before the call, as the kernel would refuse
    it."""
    payload = struct.pack("=i", value)
    with network.udp("IPv4") as (sender, receiver):
        receiver.settimeout(0)
        with pytest.raises(
            ValueError, match=rf"control: {kind.__name__}\(.*={value}\) is not sent"
        ):
            cmsgx.send(sender, b"x", control=kind.unpack(payload))
        with fails(errno.EINVAL):
            cmsgx.send(sender, b"x", control=[(kind.level, kind.type, payload)])
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


@pytest.mark.parametrize("ecn", kinds.Ecn)
def test_ecn_and_dscp_of_a_packet(ecn: kinds.Ecn) -> None:
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.Tos])
        cmsgx.send(sender, b"x", control=kinds.Tos(46 << 2 | ecn))
        tos = rx.receive()[kinds.Tos]
        assert (tos.dscp, tos.ecn) == (46, ecn)


# Packet info ------------------------------------------------------------------------------------


def test_packet_info_says_where_a_packet_came_in() -> None:
    with network.udp("IPv4", connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.PacketInfo])
        for host in ("127.0.0.1", "127.1.2.3"):
            sender.sendto(b"x", (host, receiver.getsockname()[1]))
            info = rx.receive()[kinds.PacketInfo]
            address = kinds.IPAddress(host)
            assert info == kinds.PacketInfo(socket.if_nametoindex("lo"), address, address)
            assert info.interface_name == "lo"


def test_a_broadcast_has_another_address_to_answer_from() -> None:
    with network.udp("IPv4", connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.PacketInfo])
        sender.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(b"x", ("127.255.255.255", receiver.getsockname()[1]))
        info = rx.receive()[kinds.PacketInfo]
        assert (str(info.destination), str(info.local)) == ("127.255.255.255", "127.0.0.1")


@HOW
@pytest.mark.parametrize("host", ["127.0.0.2", "127.9.8.7"])
def test_packet_info_chooses_the_source(host: str, how: str) -> None:
    with network.udp("IPv4", connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10)
        # The destination is ignored when sending: `destination` may stay as it was received.
        send(how, sender, receiver, kinds.PacketInfo(local=host, destination="192.0.2.9"))
        address = rx.receive().address
        assert address is not None
        assert address[0] == host


def test_a_source_that_is_not_ours_is_refused() -> None:
    with network.alone(), network.udp("IPv4") as (sender, _), fails(errno.ENETUNREACH):
        cmsgx.send(sender, b"x", control=kinds.PacketInfo(local="192.0.2.200"))


@pytest.mark.slow
def test_packet_info_chooses_the_interface() -> None:
    """A multicast is sent through the interface that it names, and no other."""
    with network.cable() as net:
        with net.there.entered():
            receiver = network.open_socket(V4)
        with receiver, network.open_socket(V4) as sender:
            receiver.bind(("", 0))
            group = socket.inet_aton("239.1.2.3") + socket.inet_aton(CABLE[V4][1])
            receiver.setsockopt(SOL_IP, socket.IP_ADD_MEMBERSHIP, group)
            rx = cmsgx.Receiver(receiver, 10, want=[kinds.PacketInfo])
            to = ("239.1.2.3", receiver.getsockname()[1])
            index = {name: number for number, name in socket.if_nameindex()}
            with fails(errno.ENODEV):
                cmsgx.send(sender, b"x", control=kinds.PacketInfo(99), address=to)
            lo = kinds.PacketInfo(index["lo"])
            cmsgx.send(sender, b"by lo", control=lo, address=to)
            cmsgx.send(sender, b"by veth", control=kinds.PacketInfo(index["veth1"]), address=to)
            msg = rx.receive()
            assert msg.data == b"by veth"
            assert msg.address is not None
            assert msg.address[0] == CABLE[V4][0]
            info = msg[kinds.PacketInfo]
            with net.there.entered():
                assert info.interface_name == "veth2"
            assert (str(info.destination), str(info.local)) == ("239.1.2.3", CABLE[V4][1])


ANY = "0.0.0.0"


@pytest.mark.parametrize(
    ("interface", "local", "destination", "expected"),
    [
        (3, "192.0.2.1", "192.0.2.1", (0, "192.0.2.1")),
        (1, "127.0.0.5", "127.0.0.5", (0, "127.0.0.5")),
        # For a broadcast or a group, `local` is what the kernel would choose.
        (3, "192.0.2.1", "192.0.2.255", (0, "192.0.2.1")),
        (3, "192.0.2.1", "255.255.255.255", (0, "192.0.2.1")),
        (3, "192.0.2.1", "224.0.0.1", (0, "192.0.2.1")),
        # The same address may exist on another link too.
        (3, "169.254.1.2", "169.254.1.2", (3, "169.254.1.2")),
        (3, "169.254.1.2", "255.255.255.255", (3, "169.254.1.2")),
        # Queued before the option was set.
        (0, ANY, "192.0.2.1", (0, "192.0.2.1")),
        (0, ANY, "169.254.1.2", (0, "169.254.1.2")),
        (0, ANY, "255.255.255.255", (0, ANY)),
        (0, ANY, "224.0.0.1", (0, ANY)),
        (0, ANY, "239.255.255.255", (0, ANY)),
        (0, ANY, "223.255.255.255", (0, "223.255.255.255")),
        (0, ANY, "240.0.0.1", (0, "240.0.0.1")),
        # As on macOS, which reports no local address.
        (3, ANY, "255.255.255.255", (0, ANY)),
        (3, ANY, "192.0.2.1", (0, "192.0.2.1")),
    ],
)
def test_a_reply_names_what_an_answer_has_to_be_sent_with(
    interface: int, local: str, destination: str, expected: tuple[int, str]
) -> None:
    info = kinds.PacketInfo(interface, local, destination)
    assert info.reply() == kinds.PacketInfo(*expected)
    assert kinds.PacketInfo.unpack(info.pack()).reply() == kinds.PacketInfo(*expected)


IS_EARLY = pytest.mark.parametrize(
    "is_early", [False, True], ids=["before bind()", "queued before"]
)


@IS_EARLY
@pytest.mark.parametrize("host", ["", "127.0.0.77"])
@pytest.mark.parametrize("kind", [kinds.PacketInfo, kinds.PacketInfo6])
def test_an_answer_over_loopback_comes_from_the_address_that_was_asked(
    kind: Any, host: str, is_early: bool
) -> None:
    """Also for a server that is bound to it: packet info of zeros would override that."""
    for asked in ("127.0.0.77", "127.0.0.78"):
        if asked.startswith(host):
            with network.open_socket(V4) as client, network.open_socket(V4) as server:
                found = network.answered_from(
                    server, client, (asked,), kind, host=(host,), is_early=is_early
                )
                assert found == asked


def test_an_answer_to_a_broadcast_comes_from_an_address_of_the_subnet() -> None:
    with network.open_socket(V4) as client, network.open_socket(V4) as server:
        client.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
        found = network.answered_from(server, client, ("127.255.255.255",), kinds.PacketInfo)
        assert found == "127.0.0.1"


# The address that was asked, and the address of the client: the kernel would choose 192.0.2.1, the
# first.
SECOND = "192.0.2.11"
ASKED = {SECOND: SECOND, "192.0.2.255": CABLE[V4][0], "255.255.255.255": CABLE[V4][0],
         "224.7.7.7": CABLE[V4][0]}  # fmt: skip


@pytest.mark.slow
@IS_EARLY
@pytest.mark.parametrize("host", ["", SECOND])
def test_an_answer_comes_from_the_address_that_was_asked(host: str, is_early: bool) -> None:
    """If the server has several addresses, as seen by the client, with the option set in time or
    too late."""
    group = socket.inet_aton("224.7.7.7")
    with network.cable() as net:
        network.add_address("veth1", SECOND, 24)
        for asked, source in ASKED.items():
            if (host and asked != host) or (is_early and asked == "192.0.2.255"):
                continue
            with net.there.entered():
                client = network.open_socket(V4)
            with client, network.open_socket(V4) as server:
                server.setsockopt(
                    SOL_IP, socket.IP_ADD_MEMBERSHIP, group + socket.inet_aton(SECOND)
                )
                client.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
                client.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, b"veth2")
                found = network.answered_from(
                    server, client, (asked,), kinds.PacketInfo, host=(host,), is_early=is_early
                )
                assert found == source, asked


def test_an_early_broadcast_to_a_subnet_is_refused_rather_than_answered_from_elsewhere() -> None:
    with network.alone(), network.udp("IPv4", connected=False) as (client, server):
        client.setsockopt(SOL_SOCKET, socket.SO_BROADCAST, 1)
        client.sendto(b"?", ("127.255.255.255", server.getsockname()[1]))
        assert select.select([server], [], [], network.SECONDS)[0]
        msg = cmsgx.Receiver(server, 10, want=[kinds.PacketInfo]).receive()
        info = msg[kinds.PacketInfo]
        assert info == kinds.PacketInfo(0, ANY, "127.255.255.255")
        with fails(errno.ENETUNREACH):
            cmsgx.send(server, b"!", control=info.reply(), address=msg.address)


@pytest.mark.slow
def test_an_answer_over_link_local_addresses_is_sent_where_the_question_came_in() -> None:
    """The routes lead to another interface that has such an address too."""
    with network.cable() as net:
        ip("link", "add", "veth3", "type", "veth", "peer", "name", "veth4")
        for name in ("veth3", "veth4"):
            network.set_link(name, is_up=True)
        network.add_address("veth3", "169.254.3.1", 16)
        network.add_address("veth1", "169.254.1.1", 16)
        with net.there.entered():
            network.add_address("veth2", "169.254.1.2", 16)
            client = network.open_socket(V4)
        with client, network.open_socket(V4) as server:
            found = network.answered_from(server, client, ("169.254.1.1",), kinds.PacketInfo)
            assert found == "169.254.1.1"


def test_a_reply_is_sent_with_other_control_messages_and_in_a_batch() -> None:
    with network.udp("IPv4", connected=False) as (client, server):
        rx = cmsgx.BatchReceiver(server, 8, 10, want=[kinds.PacketInfo])
        seen = cmsgx.Receiver(client, 10, want=[kinds.Ttl])
        hosts = ["127.0.0.1", "127.0.0.77", "127.0.0.78"]
        for host in hosts:
            client.sendto(b"?", (host, server.getsockname()[1]))
        answers = [
            (b"!", (), (msg[kinds.PacketInfo].reply(), kinds.Ttl(9)), msg.address)
            for msg in rx.receive()
        ]
        assert cmsgx.send_batch(server, answers) == len(hosts)
        for host in hosts:
            msg = seen.receive()
            assert msg.address is not None
            assert (msg.data, msg.address[0]) == (b"!", host)
            assert msg[kinds.Ttl].ttl == 9


# Options of the header --------------------------------------------------------------------------

# Record route with space for 3 addresses, and one byte to make it a multiple of 4.
RECORD_ROUTE = bytes([7, 15, 4]) + bytes(12) + b"\0"


@pytest.mark.parametrize("by", ["control", "option"])
def test_the_route_is_recorded(by: str) -> None:
    wanted = [kinds.ReceivedOptions, kinds.ReturnOptions]
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=wanted)
        cmsgx.send(sender, b"none")
        assert rx.receive().control == ()
        if by == "option":
            sender.setsockopt(SOL_IP, IP_OPTIONS, RECORD_ROUTE)
        control = kinds.ReturnOptions(RECORD_ROUTE) if by == "control" else ()
        cmsgx.send(sender, b"x", control=control)
        msg = rx.receive()
        # The address where it left, and the address where it arrived; space for one more.
        recorded = bytes([7, 15, 12]) + 2 * socket.inet_aton("127.0.0.1") + bytes(5)
        assert msg[kinds.ReceivedOptions] == kinds.ReceivedOptions(recorded)
        assert msg[kinds.ReturnOptions] == kinds.ReturnOptions(recorded)


def test_return_options_of_a_question_are_sent_with_the_answer() -> None:
    with network.udp("IPv4") as (client, server):
        rx = cmsgx.Receiver(server, 10, want=[kinds.ReturnOptions])
        answers = cmsgx.Receiver(client, 10, want=[kinds.ReceivedOptions])
        cmsgx.send(client, b"?", control=kinds.ReturnOptions(RECORD_ROUTE))
        msg = rx.receive()
        cmsgx.send(server, b"!", control=msg[kinds.ReturnOptions], address=msg.address)
        route = answers.receive()[kinds.ReceivedOptions].options
        assert route[:3] == bytes([7, 15, 16])
        assert route[3:15] == 3 * socket.inet_aton("127.0.0.1")


def test_the_most_options_that_a_header_has() -> None:
    """40 bytes, in a control buffer that was sized for both kinds."""
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.ReceivedOptions, kinds.ReturnOptions])
        most = bytes([7, 39, 4]) + bytes(36) + b"\0"
        cmsgx.send(sender, b"x", control=kinds.ReturnOptions(most))
        msg = rx.receive()
        assert not msg.truncated
        assert len(msg[kinds.ReceivedOptions].options) == 40
        assert len(msg[kinds.ReturnOptions].options) == 40


# What else the kernel knows about a packet ------------------------------------------------------


def test_the_original_destination() -> None:
    """For a socket that receives packets for other addresses: ip(7), IP_TRANSPARENT."""
    with network.alone():
        ip("route", "add", "local", "192.0.2.0/24", "dev", "lo")
        with network.udp("IPv4", connected=False) as (sender, receiver):
            rx = cmsgx.Receiver(receiver, 10, want=[kinds.OriginalDestination])
            to = ("192.0.2.77", receiver.getsockname()[1])
            sender.sendto(b"x", to)
            original = rx.receive()[kinds.OriginalDestination]
            assert original.address.family == V4
            assert original.address == to


@pytest.mark.parametrize("path", ["IPv4", "to mapped"])
def test_the_checksum_of_a_packet_from_outside(path: str) -> None:
    """None was computed if sender and receiver are on the same machine."""
    with network.alone(), network.tun() as outside, network.udp(path) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.Checksum])
        cmsgx.send(sender, b"inside")
        assert kinds.Checksum not in rx.receive()
        data = struct.pack("!HHH", 0x1234, 0x00FF, 0xF000)
        datagram = network.udp_datagram("192.0.2.7", "192.0.2.1", receiver.getsockname()[1], data)
        outside.write(network.ipv4("192.0.2.7", "192.0.2.1", datagram))
        msg = rx.receive()
        assert msg.data == data
        value = msg[kinds.Checksum].checksum
        folded = (value & 0xFFFF) + (value >> 16)
        folded = (folded & 0xFFFF) + (folded >> 16)
        # The kernel has it in network order, as it is in memory.
        assert socket.ntohs(folded) == network.checksum(data) ^ 0xFFFF


@pytest.mark.parametrize("path", network.PATHS)
def test_the_largest_fragment(path: str) -> None:
    with network.alone():
        network.set_link("lo", mtu=1500)
        with network.udp(path) as (sender, receiver):
            rx = cmsgx.Receiver(receiver, 5000, want=[kinds.FragmentSize])
            cmsgx.send(sender, bytes(1000))
            assert kinds.FragmentSize not in rx.receive()
            sender.setsockopt(SOL_IP, IP_MTU_DISCOVER, 0)  # IP_PMTUDISC_DONT
            cmsgx.send(sender, bytes(4000))
            msg = rx.receive()
            assert msg.nbytes == 4000
            # In IPv6 a fragment carries a multiple of 8 bytes, after headers of 48.
            expected = 1500 if network.PATHS[path].is_ipv4 else 1496
            assert msg[kinds.FragmentSize] == kinds.FragmentSize(expected)
            assert len(msg.control) == 1


def test_the_flow_protocol_chooses_the_route() -> None:
    """A rule that blocks TCP blocks packets for which this says TCP, whatever the header says."""
    with network.cable() as net:
        # TCP by its number, because not every system has /etc/protocols.
        ip("rule", "add", "priority", "1", "ipproto", "6", "prohibit")
        with net.there.entered():
            receiver = network.open_socket(V4)
        with receiver, network.open_socket(V4, RAW, socket.IPPROTO_RAW) as sender:
            receiver.bind(("", 0))
            here, there = CABLE[V4]
            datagram = network.udp_datagram(here, there, receiver.getsockname()[1], b"data")
            packet = network.ipv4(here, there, datagram)
            for protocol in (None, 17, 1):
                control = () if protocol is None else kinds.FlowProtocol(protocol)
                cmsgx.send(sender, packet, control=control, address=(there, 0))
                assert receiver.recv(10) == b"data"
            with fails(errno.EACCES):
                cmsgx.send(sender, packet, control=kinds.FlowProtocol(6), address=(there, 0))
            for wrong in (0, 256):
                with pytest.raises(ValueError, match=r"FlowProtocol\.protocol: .*1 to 255"):
                    kinds.FlowProtocol(wrong)
                raw = (SOL_IP, kinds.FlowProtocol.type, struct.pack("=i", wrong))
                with fails(errno.EINVAL):
                    cmsgx.send(sender, packet, control=[raw], address=(there, 0))


# Other sockets of IPv4 --------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [1, 99, 253])
def test_raw_sockets_have_them_too(protocol: int) -> None:
    with network.alone(), network.open_socket(V4, RAW, protocol) as sock:
        rx = cmsgx.Receiver(sock, 100, want=[kinds.PacketInfo, kinds.Ttl, kinds.Tos])
        sent = (kinds.Ttl(9), kinds.Tos(8), kinds.PacketInfo(local="127.0.0.5"))
        cmsgx.send(sock, bytes(8), control=sent, address=("127.0.0.6", 0))
        msg = rx.receive()
        assert msg[kinds.Ttl] == kinds.Ttl(9)
        assert msg[kinds.Tos] == kinds.Tos(8)
        assert str(msg[kinds.PacketInfo].destination) == "127.0.0.6"
        assert msg.address is not None
        assert msg.address[0] == "127.0.0.5"


def test_ping_sockets_have_them_too() -> None:
    with network.alone():
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write("0 0")
        with network.open_socket(V4, socket.SOCK_DGRAM, 1) as sock:
            rx = cmsgx.Receiver(sock, 100, want=[kinds.PacketInfo, kinds.Ttl, kinds.Tos])
            echo = struct.pack("!BBHHH", 8, 0, 0, 0, 1) + b"ping"
            cmsgx.send(sock, echo, control=[kinds.Tos(8)], address=("127.0.0.1", 0))
            msg = rx.receive()
            assert msg.data.endswith(b"ping")
            assert msg[kinds.Tos] == kinds.Tos(8)
            assert msg[kinds.Ttl].ttl > 0
            assert str(msg[kinds.PacketInfo].destination) == "127.0.0.1"


def test_a_tcp_socket_delivers_none_of_them() -> None:
    """tcp(7) has them only through getsockopt(IP_PKTOPTIONS)."""
    wanted = [kinds.PacketInfo, kinds.Ttl, kinds.Tos]
    with network.tcp() as (client, server):
        rx = cmsgx.Receiver(server, 10, want=wanted)
        client.sendall(b"x")
        msg = rx.receive()
        assert msg.control == ()
        for kind in wanted:
            with pytest.raises(KeyError, match="although it is enabled"):
                msg[kind]


# What was received, kind by kind, in its form ---------------------------------------------------

SHORT = [
    (kinds.PacketInfo, IP_PKTINFO, 12),
    (kinds.Ttl, IP_TTL, 4),
    (kinds.Tos, IP_TOS, 1),
    (kinds.OriginalDestination, IP_ORIGDSTADDR, 16),
]


@pytest.mark.parametrize(
    ("kind", "number", "size", "came"),
    [(kind, number, size, came) for kind, number, size in SHORT for came in range(size)],
)
def test_a_short_control_buffer_is_reported(kind: Any, number: int, size: int, came: int) -> None:
    with network.udp("IPv4") as (sender, receiver), cmsgx.enable(receiver, kind):
        sender.send(b"x")
        _, ancdata, flags, _ = cmsgx.recvmsg(receiver, 10, cmsgx.CMSG_LEN(came))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert (level, type_, len(payload)) == (SOL_IP, number, came)
        with pytest.raises(cmsgx.MalformedControlError, match=r"truncated") as caught:
            cmsgx.decode(level, type_, payload)
        assert kind.__name__ in str(caught.value)
        sender.send(b"x")
        assert type(cmsgx.receive(receiver, 10)[kind]) is kind
