"""The extension headers of IPv6 over real sockets: RFC 3542, RFC 2292."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any

import network
import pytest
from attempts import fails, refused
from ipv6 import (
    HEADER,
    HOW,
    IPV6_2292DSTOPTS,
    IPV6_2292HOPLIMIT,
    IPV6_2292HOPOPTS,
    IPV6_2292PKTINFO,
    IPV6_2292RTHDR,
    SKIPPED,
    send,
    with_next,
)
from network import PATHS, SOL_IPV6, V6

import cmsgx
from cmsgx import kinds

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)


# Extension headers ------------------------------------------------------------------------------


@HOW
@pytest.mark.parametrize("kind", [kinds.HopByHopOptions, kinds.DestinationOptions])
@pytest.mark.parametrize("size", [8, 16, 64])
def test_options_headers_are_sent_and_received(kind: Any, size: int, how: str) -> None:
    with network.alone():
        path = PATHS["IPv6"]
        header = network.options_header(bytes([0x1E, size - 4]) + bytes(range(size - 4)))
        assert len(header) == size
        with network.udp(path, connected=False) as (sender, receiver):
            rx = cmsgx.Receiver(receiver, 10, want=[kind])
            sender.sendto(b"none", (path.to, receiver.getsockname()[1]))
            assert rx.receive().control == ()
            send(how, path, sender, receiver, kind(header))
            msg = rx.receive()
            assert msg.data == b"data"
            # The kernel has filled in the next header: UDP.
            assert msg.control == (kind(with_next(header, 17)),)


def test_both_in_one_packet() -> None:
    other = network.options_header(bytes([0x1E, 1, 9]))
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        wanted = [kinds.HopByHopOptions, kinds.DestinationOptions]
        rx = cmsgx.Receiver(receiver, 10, want=wanted)
        sent = [kinds.DestinationOptions(HEADER), kinds.HopByHopOptions(other)]
        cmsgx.send(sender, b"x", control=sent)
        msg = rx.receive()
        assert msg[kinds.HopByHopOptions].header == with_next(other, 60)
        assert msg[kinds.DestinationOptions].header == with_next(HEADER, 17)


def test_options_before_a_routing_header_are_left_out_without_one() -> None:
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.DestinationOptions])
        cmsgx.send(sender, b"x", control=kinds.RoutingDestinationOptions(HEADER))
        msg = rx.receive()
        assert (msg.data, msg.control) == (b"x", ())


@pytest.mark.parametrize(
    ("control", "number"),
    [
        (kinds.HopByHopOptions(HEADER), errno.EPERM),
        (kinds.DestinationOptions(HEADER), errno.EPERM),
        (kinds.RoutingDestinationOptions(HEADER), errno.EPERM),
        (kinds.HopLimit(3), None),
        (kinds.PacketInfo6("::1"), None),
    ],
    ids=repr,
)
def test_what_needs_a_capability(control: Any, number: int | None) -> None:
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        with network.without_capabilities():
            if number is not None:
                with fails(number):
                    cmsgx.send(sender, b"x", control=control)
            else:
                cmsgx.send(sender, b"x", control=control)
        if number is None:
            assert receiver.recv(1) == b"x"


def crafted(
    port: int, headers: list[tuple[int, bytes]], *, data: bytes = b"data", hops: int = 64
) -> bytes:
    """A packet from outside, with these extension headers."""
    source, destination = "2001:db8::7", "2001:db8::1"
    datagram = network.udp_datagram(source, destination, port, data)
    number, payload = network.chain(headers, 17, datagram)
    return network.ipv6(source, destination, payload, next_header=number, hops=hops)


def routing(kind: int, size: int = 24) -> bytes:
    """A routing header that was followed to its end, from the second byte on."""
    return bytes([size // 8 - 1, kind, 0]) + bytes(size - 4)


@pytest.mark.parametrize("kind", [0, 2])
def test_routing_headers_come(kind: int) -> None:
    with network.alone(), network.tun() as tun, network.open_socket(V6) as sock:
        sock.bind(("::", 0))
        port = sock.getsockname()[1]
        rx = cmsgx.Receiver(sock, 100, want=[kinds.RoutingHeader, kinds.HopLimit])
        tun.write(crafted(port, [(43, routing(kind))], hops=9))
        try:
            msg = rx.receive(timeout=network.SECONDS if kind == 0 else 2)
        except TimeoutError:
            # CONFIG_IPV6_MIP6: one that is not for a mobile node here is discarded.
            assert kind == 2
            refused(errno.ETIMEDOUT, "a routing header of type 2")
        assert msg.data == b"data"
        assert msg[kinds.RoutingHeader] == kinds.RoutingHeader(b"\x11" + routing(kind))
        assert msg[kinds.HopLimit] == kinds.HopLimit(9)


def long_options(size: int) -> bytes:
    """An options header of this many bytes, from the second byte on: the kernel accepts 8
    options."""
    rest = size - 2
    options = b""
    while rest > 0:
        now = min(rest, 257)
        if rest - now == 1:
            now -= 1
        options += bytes([0x1E, now - 2]) + bytes(now - 2)
        rest -= now
    return bytes([size // 8 - 1]) + options


@pytest.mark.parametrize("forms", ["RFC 3542", "both"])
def test_there_is_space_for_the_longest_headers(forms: str) -> None:
    """Each as long as its length field allows, with destination options in both places."""
    wanted: list[Any] = [
        kinds.HopByHopOptions,
        kinds.DestinationOptions,
        kinds.RoutingHeader,
        kinds.HopLimit,
    ]
    with network.alone(), network.tun() as tun, network.open_socket(V6) as sock:
        network.set_link("tun0", mtu=60000)
        sock.bind(("::", 0))
        if forms == "both":
            for number in (IPV6_2292HOPOPTS, IPV6_2292DSTOPTS, IPV6_2292RTHDR):
                sock.setsockopt(SOL_IPV6, number, 1)
        rx = cmsgx.Receiver(sock, 100, want=wanted)
        port = sock.getsockname()[1]
        options = long_options(2048)
        headers = [(0, options), (60, options), (43, routing(0, 2040)), (60, options)]
        tun.write(crafted(port, headers))
        msg = rx.receive()
        assert not msg.truncated
        times = 2 if forms == "both" else 1
        assert [one.header for one in msg.get_all(kinds.HopByHopOptions)] == times * [
            b"\x3c" + options
        ]
        assert sorted(one.header for one in msg.get_all(kinds.DestinationOptions)) == sorted(
            times * [b"\x2b" + options, b"\x11" + options]
        )
        assert [one.header for one in msg.get_all(kinds.RoutingHeader)] == times * [
            b"\x3c" + routing(0, 2040)
        ]
        assert kinds.HopLimit in msg


# The forms of RFC 2292 --------------------------------------------------------------------------

OLD_FORMS = [
    (kinds.PacketInfo6, IPV6_2292PKTINFO),
    (kinds.HopLimit, IPV6_2292HOPLIMIT),
    (kinds.HopByHopOptions, IPV6_2292HOPOPTS),
    (kinds.DestinationOptions, IPV6_2292DSTOPTS),
    (kinds.RoutingHeader, IPV6_2292RTHDR),
]


@pytest.mark.parametrize(("kind", "number"), OLD_FORMS)
def test_what_others_switched_on_by_its_old_name_is_the_same_kind(kind: Any, number: int) -> None:
    with network.alone(), network.tun() as tun, network.open_socket(V6) as sock:
        sock.bind(("::", 0))
        port = sock.getsockname()[1]
        sock.setsockopt(SOL_IPV6, number, 1)
        options = bytes([0]) + SKIPPED
        packet = crafted(port, [(0, options), (60, options), (43, routing(0))], hops=5)
        rx = cmsgx.Receiver(sock, 100)
        tun.write(packet)
        msg = rx.receive()
        assert not msg.truncated
        (only,) = msg.control
        assert type(only) is kind
        assert msg[kind] == only
        expected: Any = {
            kinds.PacketInfo6: kinds.PacketInfo6("2001:db8::1", socket.if_nametoindex("tun0")),
            kinds.HopLimit: kinds.HopLimit(5),
            kinds.HopByHopOptions: kinds.HopByHopOptions(b"\x3c" + options),
            kinds.DestinationOptions: kinds.DestinationOptions(b"\x2b" + options),
            kinds.RoutingHeader: kinds.RoutingHeader(b"\x11" + routing(0)),
        }
        assert only == expected[kind]
        tun.write(packet)
        ((level, type_, _),) = sock.recvmsg(100, 4096)[1]
        assert (level, type_) == (SOL_IPV6, number)
        # enable() sets it under the new name, and does not change the old one.
        with cmsgx.enable(sock, kind):
            tun.write(packet)
            assert cmsgx.receive(sock, 100).get_all(kind) == (only, only)
        assert sock.getsockopt(SOL_IPV6, number) == 1


@pytest.mark.parametrize(
    ("number", "payload", "arrives"),
    [
        (IPV6_2292HOPLIMIT, struct.pack("=i", 6), kinds.HopLimit(6)),
        (IPV6_2292HOPOPTS, HEADER, kinds.HopByHopOptions(with_next(HEADER, 17))),
        (IPV6_2292DSTOPTS, HEADER, kinds.DestinationOptions(with_next(HEADER, 17))),
    ],
)
def test_the_kernel_takes_the_old_forms_too(number: int, payload: bytes, arrives: Any) -> None:
    with network.alone(), network.udp("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[type(arrives)])
        cmsgx.send(sender, b"x", control=cmsgx.Unknown(SOL_IPV6, number, payload))
        assert rx.receive().control == (arrives,)
