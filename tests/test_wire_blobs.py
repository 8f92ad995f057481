"""Control messages in the buffers of socket options."""

from __future__ import annotations

import functools
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from blobs import (
    IP_PKTINFO,
    IP_PKTOPTIONS,
    IP_RECVTOS,
    IP_RECVTTL,
    IP_TOS,
    IP_TTL,
    IPPROTO_IP,
    IPPROTO_IPV6,
    LOOPBACK,
    headers,
    make,
)
from support import HEADER, unregistered

import cmsgx
from cmsgx import kinds, wire

IPV6_2292PKTINFO, IPV6_2292PKTOPTIONS, IPV6_2292HOPLIMIT, IPV6_UNICAST_HOPS = 2, 6, 8, 16
IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_HOPOPTS, IPV6_DSTOPTS = 49, 51, 54, 59
IPV6_HOPLIMIT, IPV6_RECVTCLASS, IPV6_TCLASS = 52, 66, 67


# parse(family=) ---------------------------------------------------------------------------------


def test_parse_uses_the_family() -> None:
    class One(kinds.StructMessage):
        __slots__ = ()

    class Two(kinds.StructMessage):
        __slots__ = ()

    layout: Any = {"layout": (("number", 0, "i"),), "size": 4}
    control = wire.build([cmsgx.Unknown(-5, 1, bytes(4)), cmsgx.Unknown(-5, 2, b"x")])
    with unregistered():
        kinds.register(One, level=-5, type=1, families=frozenset({socket.AF_INET}), **layout)
        kinds.register(Two, level=-5, type=1, families=frozenset({socket.AF_UNIX}), **layout)
        for arguments, expected in (
            ((), One),
            ((-1,), One),
            ((socket.AF_INET,), One),
            ((socket.AF_UNIX,), Two),
            ((socket.AF_PACKET,), cmsgx.Unknown),
        ):
            multishot = wire.parse_multishot(make(b"", control, b"", 0, 99), 0, 99)
            for first, second in (
                wire.parse(control, *arguments),
                multishot.messages(*arguments),
            ):
                assert type(first) is expected
                assert first.pack() == bytes(4)
                assert second == cmsgx.Unknown(-5, 2, b"x")
        assert wire.parse(control, family=socket.AF_UNIX)[0] == Two(0)


# IP_PKTOPTIONS, IPV6_2292PKTOPTIONS -------------------------------------------------------------

Options = list[tuple[int, int]]
IPV4_ON: Options = [(IPPROTO_IP, IP_PKTINFO), (IPPROTO_IP, IP_RECVTTL), (IPPROTO_IP, IP_RECVTOS)]
IPV6_ON: Options = [
    (IPPROTO_IPV6, IPV6_RECVPKTINFO),
    (IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
    (IPPROTO_IPV6, IPV6_RECVTCLASS),
]


@contextmanager
def accepted(family: int, host: str, on: Options) -> Iterator[socket.socket]:
    """The accepted end of a TCP connection whose other end sends with a TTL of 33 and a TOS of
    0x28."""
    with socket.socket(family) as listener, socket.socket(family) as client:
        for level, name in on:
            listener.setsockopt(level, name, 1)
        listener.bind((host, 0))
        listener.listen()
        client.setsockopt(IPPROTO_IP, IP_TTL, 33)
        client.setsockopt(IPPROTO_IP, IP_TOS, 0x28)
        if family == socket.AF_INET6:
            client.setsockopt(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33)
            client.setsockopt(IPPROTO_IPV6, IPV6_TCLASS, 0x28)
        client.connect(listener.getsockname())
        sock, _ = listener.accept()
        with sock:
            client.send(b"1")
            assert sock.recv(1) == b"1"
            yield sock


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")]
)
def test_ip_pktoptions(family: int, host: str) -> None:
    with accepted(family, host, IPV4_ON) as sock:
        control = sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, 1024)
    # An int for the type of service, for which recvmsg() returns one byte.
    assert headers(control) == [(0, IP_PKTINFO, 12), (0, IP_TTL, 4), (0, IP_TOS, 4)]
    expected = (
        kinds.PacketInfo(LOOPBACK, "127.0.0.1", "127.0.0.1"),
        kinds.Ttl(33),
        kinds.Tos(0x28),
    )
    assert wire.parse(control) == wire.parse(control, family) == expected


def test_ip_pktoptions_of_part() -> None:
    with accepted(socket.AF_INET, "127.0.0.1", [(IPPROTO_IP, IP_RECVTTL)]) as sock:
        assert wire.parse(sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, 1024)) == (kinds.Ttl(33),)
        # A buffer that is too small: a truncated payload, then a message that lacks its padding.
        for room in range(4):
            cut = sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, HEADER + room)
            assert headers(cut) == [(0, IP_TTL, room)]
            with pytest.raises(cmsgx.MalformedControlError):
                wire.parse(cut)
        whole = sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, HEADER + 4)
        assert wire.parse(whole) == (kinds.Ttl(33),)
        sock.setsockopt(IPPROTO_IP, IP_RECVTTL, 0)
        assert wire.parse(sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, 1024)) == ()


# struct cmsghdr of this program, and of a 64-bit program.
OWN_HEADER, WIDE_HEADER = struct.Struct("@Nii"), struct.Struct("=Qii")


@functools.cache
def has_wide_pktoptions() -> bool:
    """Whether a 64-bit kernel uses its own layout of IPV6_2292PKTOPTIONS for a 32-bit program:
    Linux 6.18 does, unlike for IP_PKTOPTIONS and recvmsg()."""
    if sys.maxsize > 2**32:
        return False
    hop_limit = struct.pack("=i", 9)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        taken = []
        for header in (OWN_HEADER, WIDE_HEADER):
            control = header.pack(header.size + 4, IPPROTO_IPV6, IPV6_HOPLIMIT) + hop_limit
            try:
                sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control)
            except OSError:
                continue
            taken.append(header)
    assert len(taken) == 1, "only one layout may be accepted"
    return taken == [WIDE_HEADER]


def laid_out(control: bytes, before: struct.Struct, after: struct.Struct) -> bytes:
    """The same control messages with headers of another layout."""
    result = b""
    while control:
        length, level, number = before.unpack_from(control)
        assert before.size <= length <= len(control)
        payload = control[before.size : length]
        result += after.pack(after.size + len(payload), level, number) + payload
        # To a multiple of the size of a size_t, which is followed by two ints of four bytes.
        result += bytes(-len(result) % (after.size - 8))
        control = control[length + -length % (before.size - 8) :]
    return result


def given_pktoptions(control: bytes) -> bytes:
    return laid_out(control, WIDE_HEADER, OWN_HEADER) if has_wide_pktoptions() else control


def taken_pktoptions(control: bytes) -> bytes:
    return laid_out(control, OWN_HEADER, WIDE_HEADER) if has_wide_pktoptions() else control


@pytest.mark.parametrize(
    ("on", "types"),
    [
        (IPV6_ON, {50: 20, 52: 4, 67: 4}),
        (
            [
                (IPPROTO_IPV6, IPV6_2292PKTINFO),
                (IPPROTO_IPV6, IPV6_2292HOPLIMIT),
                (IPPROTO_IPV6, IPV6_RECVTCLASS),
            ],
            {IPV6_2292PKTINFO: 20, IPV6_2292HOPLIMIT: 4, 67: 4},
        ),
    ],
    ids=["RFC 3542", "RFC 2292"],
)
@pytest.mark.parametrize("family", [-1, socket.AF_INET6])
def test_ipv6_2292pktoptions(on: Options, types: dict[int, int], family: int) -> None:
    with accepted(socket.AF_INET6, "::1", on) as sock:
        control = given_pktoptions(sock.getsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, 1024))
    assert {number: size for _, number, size in headers(control)} == types
    assert set(wire.parse(control, family)) == {
        kinds.PacketInfo6("::1", LOOPBACK),
        kinds.HopLimit(33),
        kinds.TrafficClass(0x28),
    }


def header_of_options(*, fill: int) -> bytes:
    """An options header of 8 bytes: a PadN that contains only `fill` zero bytes."""
    return bytes([0, 0, 1, fill]).ljust(8, b"\0")


@contextmanager
def udp6() -> Iterator[cmsgx.socket]:
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        yield sock


def set_pktoptions(sock: socket.socket, control: bytes) -> None:
    """Skips if options headers need CAP_NET_RAW and this process lacks it."""
    try:
        sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, taken_pktoptions(control))
    except PermissionError as error:
        pytest.skip(f"setsockopt(IPV6_2292PKTOPTIONS): {error}")


def test_the_kernel_takes_what_build_makes() -> None:
    """IPV6_2292PKTOPTIONS sets headers for every packet from then on: RFC 2292."""
    options = kinds.DestinationOptions(header_of_options(fill=4))
    with udp6() as sender, udp6() as receiver, cmsgx.enable(receiver, kinds.DestinationOptions):
        set_pktoptions(sender, wire.build([options]))
        assert sender.getsockopt(IPPROTO_IPV6, IPV6_DSTOPTS, 100) == options.header
        cmsgx.send(sender, b"with", address=receiver.getsockname())
        # The kernel fills in the next header, UDP.
        arrived = kinds.DestinationOptions(bytes([socket.IPPROTO_UDP]) + options.header[1:])
        assert cmsgx.receive(receiver, 10)[kinds.DestinationOptions] == arrived
        # None of them: the headers are gone.
        set_pktoptions(sender, wire.build([]))
        assert sender.getsockopt(IPPROTO_IPV6, IPV6_DSTOPTS, 100) == b""
        cmsgx.send(sender, b"without", address=receiver.getsockname())
        assert kinds.DestinationOptions not in cmsgx.receive(receiver, 10)


def test_the_kernel_takes_several() -> None:
    options = kinds.DestinationOptions(header_of_options(fill=4))
    hops = kinds.HopByHopOptions(header_of_options(fill=4))
    with udp6() as sock:
        set_pktoptions(sock, wire.build([kinds.HopLimit(9), options, hops]))
        assert sock.getsockopt(IPPROTO_IPV6, IPV6_DSTOPTS, 100) == options.header
        assert sock.getsockopt(IPPROTO_IPV6, IPV6_HOPOPTS, 100) == hops.header


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        (kinds.HopLimit(9), kinds.HopLimit.unpack(struct.pack("=i", 256))),
        (kinds.TrafficClass(0x28), kinds.TrafficClass.unpack(struct.pack("=i", 256))),
        (kinds.PacketInfo6("::1", LOOPBACK), kinds.PacketInfo6("2001:db8::1", LOOPBACK)),
        (kinds.DontFragment(1), kinds.DontFragment.unpack(struct.pack("=i", 2))),
    ],
)
def test_the_kernel_reads_what_build_makes(good: Any, wrong: Any) -> None:
    """It keeps only headers; for the rest it only checks whether it would be accepted, without a
    capability."""
    with udp6() as sock:
        for several in ([], [good], [good, good]):
            control = taken_pktoptions(wire.build(several))
            sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control)
        control = taken_pktoptions(wire.build([good, wrong]))
        with pytest.raises(OSError, match="Invalid argument"):
            sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control)
