"""Addresses in the raw form."""

from __future__ import annotations

import copy
import ipaddress
import pickle
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from addresses import Index, asked, of_unix, udp_pair

import cmsgx

# The warning about a number that is masked; socket gives it too, from Python 3.15 on.
pytestmark = pytest.mark.filterwarnings("ignore:integer value out of range:DeprecationWarning")


# The raw form -----------------------------------------------------------------------------------


def test_the_raw_form_is_its_bytes() -> None:
    with udp_pair() as (server, client):
        message = asked(server, client)
        sender, again = message.sender, asked(server, client).sender
        assert sender is not None
        assert not isinstance(sender, tuple)
        assert sender is not again
        assert sender == again
        assert hash(sender) == hash(again)
        assert not sender != again  # noqa: SIM202
        assert {sender: 1}[again] == 1
        assert sender == cmsgx.Address(socket.AF_INET, client.getsockname())
        assert sender == cmsgx.Address(socket.AF_INET, message.address)
        assert sender == cmsgx.Address(socket.AF_INET, sender)
        others = [message.address, sender.packed, None, 1]
        others.append(cmsgx.Address(socket.AF_INET, server.getsockname()))
        for other in others:
            assert sender != other
            assert not sender == other  # noqa: SIM201
        with pytest.raises(TypeError):
            sender < again  # type: ignore[operator]  # noqa: B015
        with pytest.raises(TypeError):
            len(sender)  # type: ignore[arg-type]
        assert repr(sender) == f"<Address {client.getsockname()!r}>"
        assert sender.ip == ipaddress.IPv4Address("127.0.0.1")
        assert (type(sender).__module__, type(sender).__name__) == ("cmsgx", "Address")
        assert type(sender)(socket.AF_INET, client.getsockname()) == sender


def test_the_raw_form_is_copied_and_pickled() -> None:
    with udp_pair() as (server, client):
        sender: Any = asked(server, client).sender
        for copied in (copy.copy, copy.deepcopy):
            assert copied(sender) is sender
        assert copy.deepcopy({sender: [sender]}) == {sender: [sender]}
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            same = pickle.loads(pickle.dumps(sender, protocol))
            assert same == sender
            assert same is not sender
            assert type(same) is type(sender)
            assert same.value == client.getsockname()
            client.sendto(b"x", server.getsockname())
            assert cmsgx.send(server, b"y", address=same) == 1
            assert (client.recv(9), server.recv(9)) == (b"y", b"x")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="families of Linux")
def test_a_pickled_address_is_read_by_the_same_protocol() -> None:
    # Without the protocol it would follow from the length: (interface,).
    for proto in (socket.CAN_RAW, socket.CAN_ISOTP, socket.CAN_J1939):
        value = {socket.CAN_RAW: ("",), socket.CAN_ISOTP: ("", 1, 2)}.get(proto, ("", 1, 2, 3))
        one = cmsgx.Address(socket.AF_CAN, value, proto=proto)
        same = pickle.loads(pickle.dumps(one))
        assert same.value == one.value
        assert same.packed == one.packed


@pytest.mark.parametrize(
    ("family", "one", "other"),
    [
        (socket.AF_INET, ("127.0.0.1", 40001), ("127.0.0.2", 40001)),
        (socket.AF_INET, ("127.0.0.1", 40001), ("127.0.0.1", 40002)),
        (socket.AF_INET6, ("::1", 40001), ("::1", 40001, 0, 1)),
        # One is a prefix of the other.
        (socket.AF_UNIX, b"\0cmsgx-test-a", b"\0cmsgx-test-ab"),
        (socket.AF_UNIX, b"\0cmsgx-test-a", b"\0cmsgx-test-a\0"),
    ],
)
def test_addresses_are_equal_where_all_of_them_is(family: int, one: Any, other: Any) -> None:
    first, second, again = [cmsgx.Address(family, name) for name in (one, other, one)]
    assert first == again
    assert hash(first) == hash(again)
    assert first != second
    assert len({first, second, again}) == 2


def test_a_sender_that_was_bound_to_a_name_is_the_address_made_of_it(tmp_path: Path) -> None:
    for name in (str(tmp_path / "name"), b"\0cmsgx-test-address", os_encoded(tmp_path / "bytes")):
        with of_unix(name) as (server, send):
            send()
            message = cmsgx.receive(server, 10)
            assert message.sender == cmsgx.Address(socket.AF_UNIX, name)
            assert message.sender == cmsgx.Address(socket.AF_UNIX, message.address)
            assert message.sender.ip is None


def os_encoded(path: Path) -> bytes:
    return bytes(path)


VALUES: list[tuple[str | int, Any, int, Any]] = [
    ("AF_INET", ("localhost", 9), -1, ("127.0.0.1", 9)),
    ("AF_INET", ("", 9), -1, ("0.0.0.0", 9)),
    ("AF_INET", ("<broadcast>", 9), -1, ("255.255.255.255", 9)),
    ("AF_INET", (b"127.0.0.1", 9), -1, ("127.0.0.1", 9)),
    ("AF_INET6", ("::1", 9), -1, ("::1", 9, 0, 0)),
    ("AF_INET6", (bytearray(b"::1"), 9, 1, 2**32 + 3), -1, ("::1", 9, 1, 3)),
    ("AF_NETLINK", (5, 6), -1, (5, 6)),
    ("AF_PACKET", ("lo", 2048), -1, ("lo", 2048, 0, 0, b"")),
    ("AF_VSOCK", (2**32 - 1, 7), -1, (2**32 - 1, 7)),
    ("AF_CAN", ("lo",), -1, ("lo",)),
    ("AF_CAN", ("lo", 1, 2), 6, ("lo", 1, 2)),
    ("AF_CAN", ("", 1, 2, 3), 7, ("", 1, 2, 3)),
    ("AF_TIPC", (2, 1, 2, 2, 3), -1, (2, 1, 2, 2, 3)),
    ("AF_ALG", ("hash", "sha1"), -1, ("hash", "sha1", 0, 0)),
    ("AF_RDS", ("127.0.0.1", 9), -1, ("127.0.0.1", 9)),
    (31, ("01:02:03:04:05:06", 7), 3, ("01:02:03:04:05:06", 7)),
    (31, ("01:02:03:04:05:06", 7), 0, ("01:02:03:04:05:06", 7)),
    (31, "01:02:03:04:05:06", 2, "01:02:03:04:05:06"),
    (31, b"01:02:03:04:05:06", 2, "01:02:03:04:05:06"),
    (31, 5, 1, 5),
    (42, (1, 2), -1, (1, 2)),
    (3, (3, b"\1\2\3"), -1, (3, b"\1\2\3")),
]


@pytest.mark.parametrize(("family", "value", "proto", "expected"), VALUES, ids=repr)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="families of Linux")
def test_an_address_is_made_of_what_socket_takes(
    family: Any, value: Any, proto: int, expected: Any
) -> None:
    number = getattr(socket, family) if isinstance(family, str) else family
    address = cmsgx.Address(number, value, proto=proto)
    assert address.value == expected
    if proto < 0 or number == 29:
        assert cmsgx.Address(number, expected, proto=proto) == address


@pytest.mark.parametrize(
    ("family", "value", "error", "text"),
    [
        (socket.AF_INET, ("127.0.0.1",), TypeError, "(host, port)"),
        (socket.AF_INET, "127.0.0.1", TypeError, "(host, port)"),
        (socket.AF_INET, ("127.0.0.1", 65536), OverflowError, "from 0 to 65535"),
        (socket.AF_INET6, ("::1", 9, 2**20), OverflowError, "1048575"),
        (socket.AF_INET6, ("<broadcast>", 9), OSError, "IPv6 has no broadcast"),
        (socket.AF_UNIX, "x" * 200, OSError, "AF_UNIX path too long"),
        (socket.AF_UNIX, 5, TypeError, "AF_UNIX"),
        (socket.AF_UNIX, None, TypeError, "AF_UNIX"),
        (3, 5, ValueError, "family: 3"),
        (-1, (1, b""), ValueError, "family: -1"),
    ],
)
def test_a_wrong_address_is_refused_with_what_would_do(
    family: int, value: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=re.escape(text)):
        cmsgx.Address(family, value)


@pytest.mark.parametrize("number", [int, lambda value: Index(value)], ids=["int", "__index__"])
def test_numbers_of_an_address_go_up_to_their_limits(number: Callable[[int], Any]) -> None:
    most = ("::1", number(65535), number(0xFFFFF), number(2**32 - 1))
    assert cmsgx.Address(socket.AF_INET6, most).value == ("::1", 65535, 0xFFFFF, 2**32 - 1)
    for at, value in ((1, 65536), (1, -1), (2, 0x100000), (2, -1)):
        wrong = (*most[:at], number(value), *most[at + 1 :])
        with pytest.raises(OverflowError):
            cmsgx.Address(socket.AF_INET6, wrong)


def test_an_address_of_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="is of the family AF_INET, not AF_INET6"):
        cmsgx.Address(socket.AF_INET6, cmsgx.Address(socket.AF_INET, ("127.0.0.1", 9)))
    with pytest.raises(OSError, match=r"give proto=") as caught:
        cmsgx.Address(31, "01:02:03:04:05:06")
    assert caught.value.errno is None


def test_nothing_derives_from_address_or_is_one_without_bytes() -> None:
    with udp_pair() as (server, client):
        message = asked(server, client)
        kinds_of: list[Any] = [type(message.address), type(message.sender)]
        for kind in kinds_of:
            with pytest.raises(TypeError):
                type("Below", (kind,), {})
        with pytest.raises(TypeError):
            kinds_of[1](("127.0.0.1", 9))
        with pytest.raises(TypeError):
            tuple.__new__(type(message.address), ("127.0.0.1", 9))
        with pytest.raises(TypeError):
            object.__new__(cmsgx.Address)
        below: Any = type("Below", (cmsgx.Address,), {})
        with pytest.raises(TypeError, match="cannot be subclassed"):
            below(socket.AF_INET, ("127.0.0.1", 9))
