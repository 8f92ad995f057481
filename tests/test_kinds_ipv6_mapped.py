"""The kinds of IPv4 on a dual-stack socket, whose peer has an IPv4-mapped address."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

import network
import pytest
from ipv6 import HOW, IPV6_RECVPKTINFO, send
from network import PATHS, SOL_IP, SOL_IPV6, V4, V6

import cmsgx
from cmsgx import kinds

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

IP_TOS, IP_TTL, IP_PKTINFO = 1, 2, 8


# An IPv4-mapped peer ----------------------------------------------------------------------------

SAME = [
    (kinds.HopLimit(7), kinds.Ttl(7), IP_TTL, struct.pack("=i", 7)),
    (kinds.HopLimit(255), kinds.Ttl(255), IP_TTL, struct.pack("=i", 255)),
    (kinds.TrafficClass(0xB9), kinds.Tos(0xB9), IP_TOS, b"\xb9"),
]


@pytest.mark.parametrize("name", ["to mapped", "mapped"])
@pytest.mark.parametrize(("six", "four", "number", "payload"), SAME)
def test_the_kind_of_ipv6_is_found_in_the_form_of_ipv4(
    six: Any, four: Any, number: int, payload: bytes, name: str
) -> None:
    with network.udp(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[type(six)])
        cmsgx.send(sender, b"x", control=four)
        msg = rx.receive()
        assert type(six) in msg
        assert msg[type(six)] == six
        assert msg.get(type(six)) == six
        assert msg.get_all(type(six)) == (six,)
        # It is also the one of IPv4, and listed once.
        assert msg[type(four)] == four
        assert msg.control == (four,)
        cmsgx.send(sender, b"x", control=four)
        assert receiver.recvmsg(10, 100)[1] == [(SOL_IP, number, payload)]


@pytest.mark.parametrize("name", ["to mapped", "mapped"])
def test_packet_info_of_ipv4_is_found_too(name: str) -> None:
    with network.udp(name) as (sender, receiver):
        mapped = kinds.PacketInfo6("::ffff:127.0.0.1", socket.if_nametoindex("lo"))
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.PacketInfo6])
        cmsgx.send(sender, b"x")
        msg = rx.receive()
        assert msg[kinds.PacketInfo6] == mapped
        assert msg.get_all(kinds.PacketInfo6) == (mapped,)
        # And if only the form of IPv4 is switched on.
        receiver.setsockopt(SOL_IPV6, IPV6_RECVPKTINFO, 0)
        receiver.setsockopt(SOL_IP, IP_PKTINFO, 1)
        rx.refresh()
        cmsgx.send(sender, b"x")
        msg = rx.receive()
        assert [type(one) for one in msg] == [kinds.PacketInfo]
        assert msg[kinds.PacketInfo6] == mapped


@HOW
@pytest.mark.parametrize("name", ["IPv4", "from mapped", "mapped"])
@pytest.mark.parametrize(("six", "four", "number", "payload"), SAME)
def test_the_kind_of_ipv6_is_sent_in_the_form_of_ipv4(
    six: Any, four: Any, number: int, payload: bytes, name: str, how: str
) -> None:
    path = PATHS[name]
    with network.udp(path, connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[type(four)])
        send(how, path, sender, receiver, six)
        assert rx.receive()[type(four)] == four
        send(how, path, sender, receiver, six)
        assert receiver.recvmsg(10, 100)[1] == [(SOL_IP, number, payload)]


@HOW
@pytest.mark.parametrize("name", ["IPv4", "from mapped", "mapped"])
def test_packet_info_is_sent_in_the_form_of_ipv4(name: str, how: str) -> None:
    path = PATHS[name]
    with network.udp(path, connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10)
        send(how, path, sender, receiver, kinds.PacketInfo6("::ffff:127.0.0.9"))
        address = rx.receive().address
        assert address is not None
        assert address[0].removeprefix("::ffff:") == "127.0.0.9"
        # The unspecified address leaves the choice to the kernel, in either form.
        for any_host in ("::", "::ffff:0.0.0.0"):
            info = kinds.PacketInfo6(any_host, socket.if_nametoindex("lo"))
            send(how, path, sender, receiver, info)
            address = rx.receive().address
            assert address is not None
            assert address[0].removeprefix("::ffff:") == "127.0.0.1"


@HOW
@pytest.mark.parametrize("name", ["IPv4", "from mapped", "mapped"])
@pytest.mark.parametrize("host", ["::1", "2001:db8::7f00:5", "64:ff9b::7f00:5"])
def test_an_address_of_ipv6_is_not_a_source_for_ipv4(host: str, name: str, how: str) -> None:
    """Not the last four bytes of it."""
    path = PATHS[name]
    with network.udp(path, connected=False) as (sender, receiver):
        receiver.settimeout(0)
        with pytest.raises(ValueError, match=r"PacketInfo6\(.* goes over IPv4"):
            send(how, path, sender, receiver, kinds.PacketInfo6(host))
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


def test_each_message_is_sent_in_the_form_of_its_own_address() -> None:
    """From an unconnected socket to both in turn; and from a socket that is connected to one of
    them to the other."""
    with (
        network.open_socket(V6) as sender,
        network.open_socket(V4) as four,
        network.open_socket(V6) as six,
    ):
        network.bind(four, "127.0.0.1")
        network.bind(six, "::1")
        addresses = {
            four: ("::ffff:127.0.0.1", four.getsockname()[1]),
            six: ("::1", six.getsockname()[1]),
        }
        receivers: dict[Any, Any] = {
            four: (cmsgx.Receiver(four, 10, want=[kinds.Ttl]), kinds.Ttl),
            six: (cmsgx.Receiver(six, 10, want=[kinds.HopLimit]), kinds.HopLimit),
        }

        def check(sock: cmsgx.socket, hops: int) -> None:
            rx, kind = receivers[sock]
            assert rx.receive()[kind] == kind(hops)

        for hops, sock in enumerate([four, six, four, six], 1):
            cmsgx.send(sender, b"x", control=kinds.HopLimit(hops), address=addresses[sock])
            check(sock, hops)
        for connected in (six, four):
            sender.connect(addresses[connected])
            for hops, sock in enumerate([four, six], 10):
                cmsgx.send(sender, b"x", control=kinds.HopLimit(hops), address=addresses[sock])
                check(sock, hops)
            cmsgx.send(sender, b"x", control=kinds.HopLimit(20))
            check(connected, 20)


def test_each_message_of_a_batch_does_too() -> None:
    with (
        network.open_socket(V6) as sender,
        network.open_socket(V4) as four,
        network.open_socket(V6) as six,
    ):
        network.bind(four, "127.0.0.1")
        network.bind(six, "::1")
        fours = cmsgx.Receiver(four, 10, want=[kinds.Ttl])
        sixes = cmsgx.Receiver(six, 10, want=[kinds.HopLimit])
        to_four = ("::ffff:127.0.0.1", four.getsockname()[1])
        to_six = ("::1", six.getsockname()[1])
        batch = [
            (b"x", (), [kinds.HopLimit(hops)], address)
            for hops, address in enumerate([to_four, to_six, to_four, to_six], 1)
        ]
        assert cmsgx.send_batch(sender, batch) == 4
        assert [fours.receive()[kinds.Ttl].ttl for _ in range(2)] == [1, 3]
        assert [sixes.receive()[kinds.HopLimit].hops for _ in range(2)] == [2, 4]


@pytest.mark.parametrize("name", ["to mapped", "mapped"])
def test_the_kinds_of_ipv4_come_on_a_dual_stack_socket(name: str) -> None:
    wanted: list[Any] = [
        kinds.Ttl, kinds.Tos, kinds.PacketInfo, kinds.OriginalDestination,
        kinds.ReceivedOptions, kinds.ReturnOptions,
    ]  # fmt: skip
    with network.udp(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=wanted)
        sender.setsockopt(SOL_IP, 4, bytes([7, 7, 4]) + bytes(4) + b"\0")  # IP_OPTIONS
        cmsgx.send(sender, b"x", control=[kinds.Ttl(9), kinds.Tos(8)])
        msg = rx.receive()
        assert {type(one) for one in msg.control} == set(wanted)
        assert (msg[kinds.Ttl], msg[kinds.Tos]) == (kinds.Ttl(9), kinds.Tos(8))
        assert str(msg[kinds.PacketInfo].local) == "127.0.0.1"
        port = receiver.getsockname()[1]
        assert msg[kinds.OriginalDestination].address == ("127.0.0.1", port)


def test_a_dual_stack_socket_has_all_of_both() -> None:
    """One Receiver, peers of both families, and the same three kinds."""
    wanted = [kinds.HopLimit, kinds.TrafficClass, kinds.PacketInfo6]
    with network.open_socket(V6) as server, network.open_socket(V6) as client:
        network.bind(server, "::")
        rx = cmsgx.Receiver(server, 10, want=wanted)
        port = server.getsockname()[1]
        for host in ("::1", "::ffff:127.0.0.1", "::1", "::ffff:127.0.0.3"):
            sent = [kinds.HopLimit(33), kinds.TrafficClass(44)]
            cmsgx.send(client, b"x", control=sent, address=(host, port))
            msg = rx.receive()
            assert not msg.truncated
            assert [msg[kind] for kind in wanted[:2]] == sent
            assert str(msg[kinds.PacketInfo6].address) == host
