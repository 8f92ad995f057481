"""IPAddress."""

from __future__ import annotations

import ipaddress
import os
import pickle
import socket
import struct
from typing import Any, cast

import pytest
from support import run_python, unregistered
from user_kinds import SOL_SOCKET

import cmsgx
from cmsgx import kinds


@pytest.mark.parametrize("text", ["0.0.0.0", "192.0.2.1", "255.255.255.255", "::", "2001:db8::1"])
def test_an_ip_address_is_made_of_what_means_one(text: str) -> None:
    ip = ipaddress.ip_address(text)
    address = kinds.IPAddress(text)
    for same in (ip, ip.packed, bytearray(ip.packed), address):
        made = kinds.IPAddress(same)
        assert type(made) is kinds.IPAddress
        assert (made, hash(made)) == (address, hash(address))
    assert (str(address), address.ip, address.packed) == (text, ip, ip.packed)
    assert (address.version, address.is_unspecified) == (ip.version, ip.is_unspecified)
    assert repr(address) == f"IPAddress('{text}')"
    assert pickle.loads(pickle.dumps(address)) == address
    assert address != kinds.IPAddress(bytes(15) + b"\7")
    assert address != text


# Each length of the hexadecimal text that the hash is computed from, and a sign bit.
ADDRESSES = [
    "0.0.0.0", "0.0.0.1", "0.1.0.0", "10.0.0.1", "192.0.2.1", "255.255.255.255", "127.0.0.1",
    "::", "::1", "::ffff:192.0.2.1", "2001:db8::1", "fe80::1", "ff02::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
]  # fmt: skip


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_ip_address_is_formatted_like_that_of_ipaddress(text: str) -> None:
    ours, theirs = kinds.IPAddress(text), ipaddress.ip_address(text)
    for spec in ("b", "n", "x", "X", "#b", "#x", "#X", "_b", "_x", "#_n"):
        assert format(ours, spec) == format(theirs, spec)
    for spec in ("", "s", ">45s", "^45s", "*<45s", ">45", "*^45", ".4"):
        assert format(ours, spec) == format(str(ours), spec)
    assert f"{ours:>45}" == str(ours).rjust(45)
    for wrong in ("d", "08b", "f"):
        with pytest.raises((TypeError, ValueError)):
            format(ours, wrong)


def test_an_ip_address_is_not_subclassed() -> None:
    with pytest.raises(TypeError, match="Own: IPAddress cannot be subclassed"):
        type("Own", (kinds.IPAddress,), {})


@pytest.mark.parametrize("text", ADDRESSES)
def test_an_ip_address_equals_and_hashes_like_that_of_ipaddress(text: str) -> None:
    ours: Any = kinds.IPAddress(text)
    theirs: Any = ipaddress.ip_address(text)
    assert ours == theirs
    assert theirs == ours
    assert (ours != theirs, theirs != ours) == (False, False)
    assert hash(ours) == hash(theirs)
    assert {theirs: "found"}[ours] == {ours: "found"}[theirs] == "found"
    assert len({ours, theirs}) == 1
    for other in map(ipaddress.ip_address, ADDRESSES):
        assert (ours == other, ours != other) == (theirs == other, theirs != other)
        assert (other == ours, other != ours) == (other == theirs, other != theirs)


def test_an_ip_address_hashes_like_that_of_ipaddress_whatever_its_bits() -> None:
    for size in (4, 16):
        for _ in range(500):
            packed = os.urandom(size)
            theirs = ipaddress.ip_address(packed)
            assert hash(kinds.IPAddress(packed)) == hash(theirs), theirs


def test_an_ip_address_differs_from_one_with_more_to_it() -> None:
    """A scope, or a network: the `ipaddress` object for the same address also differs from them."""
    near: Any = kinds.IPAddress("fe80::1")
    local: Any = kinds.IPAddress("127.0.0.1")
    for ours, theirs in (
        (near, ipaddress.ip_address("fe80::1%1")),
        (near, ipaddress.ip_address("fe80::1%eth0")),
        (near, ipaddress.ip_interface("fe80::1/128")),
        (local, ipaddress.ip_interface("127.0.0.1/32")),
        (local, ipaddress.ip_network("127.0.0.1/32")),
        (local, ipaddress.ip_address("::ffff:127.0.0.1")),
        (local, "127.0.0.1"),
        (local, 0x7F000001),
        (local, None),
    ):
        assert ours != theirs
        assert theirs != ours
        assert len({ours, theirs}) == 2
    with pytest.raises(TypeError, match="not supported between"):
        local < ipaddress.ip_address("127.0.0.2")  # noqa: B015


@pytest.mark.parametrize("make", [kinds.IPAddress, kinds.PacketInfo6])
def test_the_scope_of_an_ip_address_is_not_lost(make: Any) -> None:
    with pytest.raises(ValueError, match="without the scope 'eth0'") as caught:
        make(ipaddress.ip_address("fe80::1%eth0"))
    assert "IPv6Address('fe80::1%eth0')" in str(caught.value)
    assert make(ipaddress.ip_address("fe80::1"))


def test_comparing_an_ip_address_imports_nothing() -> None:
    """The module ipaddress is large, and missing in a chroot."""
    code = """
import sys
import cmsgx.kinds
four, six = map(cmsgx.kinds.IPAddress, ("127.0.0.1", "::1"))
assert four != six and four != "127.0.0.1" and not four == None
assert {four: 4, six: 6}.get("127.0.0.1") is None
assert "ipaddress" not in sys.modules
sys.modules["ipaddress"] = None  # as it is where importing it is forbidden
assert four != six and four != "127.0.0.1"
"""
    run_python(code)


@pytest.mark.parametrize("wrong", ["", "localhost", "1.2.3", "::g", b"", b"12345", bytes(17)])
def test_what_is_not_an_ip_address_is_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="address") as caught:
        kinds.IPAddress(wrong)
    assert repr(wrong) in str(caught.value)
    with pytest.raises(TypeError):
        kinds.IPAddress(cast(Any, 1))


def test_a_field_takes_an_address_of_its_version_only() -> None:
    info = kinds.PacketInfo(1, "192.0.2.1")
    assert info == kinds.PacketInfo(1, ipaddress.IPv4Address("192.0.2.1"))
    assert info.local == kinds.IPAddress("192.0.2.1")
    with pytest.raises(ValueError, match=r"PacketInfo\.local: .* is not an IPv4 address"):
        kinds.PacketInfo(1, "::1")
    with pytest.raises(ValueError, match=r"PacketInfo6\.address: .* is not an IPv6 address"):
        kinds.PacketInfo6("192.0.2.1")


def test_interfaces_have_names_on_demand() -> None:
    name = socket.if_nameindex()[0]
    assert kinds.PacketInfo(name[0]).interface_name == name[1]
    assert kinds.PacketInfo(2**31 - 1).interface_name is None


@pytest.mark.parametrize("origin", range(8))
def test_only_an_icmp_error_has_an_offender(origin: int) -> None:
    left = kinds.ExtendedError(90, origin, offender=("2001:db8::7", 0, 0, 0))
    for error in (left, cmsgx.decode(41, 25, left.pack(), socket.AF_INET6)):
        assert (error.offender is not None) == (origin in (2, 3))
        assert ("2001:db8::7" in repr(error)) == (origin in (2, 3))
    assert left != kinds.ExtendedError(90, origin)


def test_open_enumerations_take_what_a_later_kernel_brings() -> None:
    error = kinds.ExtendedError.unpack(struct.pack("=IBBBBII", 1, 200, 0, 0, 0, 0, 0))
    assert error.ee_origin == 200
    assert "200" in repr(error)
    assert error.offender is None
    assert error.error is not None
    assert (kinds.Tos(0xBB).dscp, kinds.Tos(0xBB).ecn) == (0x2E, kinds.Ecn.CE)


def test_members_and_forms_declare_a_kind() -> None:
    class Declared(kinds.StructMessage):
        __slots__ = ()

        number: int = kinds.member("value", default=3, convert=abs)

    other = kinds.WireFormat(SOL_SOCKET, 0x7E11, "integer")
    with unregistered():
        kinds.register(Declared, level=SOL_SOCKET, type=0x7E10, layout="int", other_forms=[other])
        assert Declared().number == 3
        assert Declared(-4).number == 4
        assert Declared(-4).pack() == struct.pack("=i", -4)
        assert cmsgx.decode(SOL_SOCKET, 0x7E10, struct.pack("=i", 5)) == Declared(5)
        assert cmsgx.decode(SOL_SOCKET, 0x7E11, b"\5") == Declared(5)
    assert type(cmsgx.decode(SOL_SOCKET, 0x7E10, bytes(4))) is cmsgx.Unknown
