"""The options that switch each kind on: set, with space for everything that they bring, and
restored.

For every kind in the table that has an option, on every sort of socket that this kernel supports.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import network
import pytest
from attempts import attempt
from network import DGRAM, RAW, SOL_IP, SOL_IPV6, SOL_SOCKET, STREAM, V4, V6
from support import eventually, unregistered

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import _table

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

SORTS: dict[str, tuple[int, int, int]] = {
    "UDP": (V4, DGRAM, 0),
    "UDP over IPv6": (V6, DGRAM, 0),
    "TCP": (V4, STREAM, 0),
    "TCP over IPv6": (V6, STREAM, 0),
    "MPTCP": (V4, STREAM, 262),
    "raw": (V4, RAW, 253),
    "raw IPv6": (V6, RAW, 253),
    "stream": (socket.AF_UNIX, STREAM, 0),
    "dgram": (socket.AF_UNIX, DGRAM, 0),
    "seqpacket": (socket.AF_UNIX, socket.SOCK_SEQPACKET, 0),
    "packet": (socket.AF_PACKET, DGRAM, 0),
    "netlink": (socket.AF_NETLINK, RAW, 0),
}
# Without those that other tests in this process have registered.
ROWS = [row for row in _table.rows() if row.options and row.kind.__module__.startswith("cmsgx")]
BY_NAME = {row.kind.__name__: row for row in ROWS}

SO_TXTIME = 61
NOT_THERE = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
# For the values that are set here: a flag, or a type of socket, that this kernel lacks.
REFUSED = (*NOT_THERE, errno.EINVAL)


def every_option() -> list[Any]:
    return [option for row in ROWS for option in row.options]


def states(sock: cmsgx.socket) -> dict[tuple[int, int, str], bytes | int]:
    """The values of all options that any kind could set; for one that cannot be read, the errno."""
    return {
        (option.level, option.name, option.text): network.get_bytes(
            sock, option.level, option.name, 8
        )
        for option in every_option()
        # Linux cannot switch it off; meanwhile it reports only the clock.
        if option.name != SO_TXTIME or option.level != SOL_SOCKET
    }


def is_taken(sock: cmsgx.socket, option: Any) -> bool:
    """Whether this kernel has the option for this sort of socket, found without cmsgx."""
    try:
        with attempt(option.text, errno.EPERM):
            sock.setsockopt(option.level, option.name, option.on)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return False
    return True


@contextmanager
def opened(sort: str) -> Iterator[cmsgx.socket]:
    with network.open_socket(*SORTS[sort]) as sock:
        yield sock


def is_of(row: Any, family: int) -> bool:
    """Whether a socket of this family may have it, in any form."""
    return any(not form.families or family in form.families for form in row.formats)


def check_refused(sock: cmsgx.socket, kind: Any) -> None:
    was = states(sock)
    for call in (
        lambda: cmsgx.enable(sock, kind),
        lambda: cmsgx.Receiver(sock, 10, want=[kind]),
        lambda: cmsgx.BatchReceiver(sock, 2, 10, want=[kind]),
    ):
        with pytest.raises(
            cmsgx.NotSupportedError,
            match=rf"{kind.__name__}\b.* is for AF_.*; the family of this one is ",
        ) as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
    assert states(sock) == was


def sockets_of(family: int) -> Iterator[cmsgx.socket]:
    for type_, protocol in ((DGRAM, 0), (STREAM, 0), (RAW, 0), (socket.SOCK_SEQPACKET, 0), (5, 0)):
        try:
            sock = cmsgx.socket(family, type_, protocol)
        except OSError:
            continue
        with sock:
            yield sock


@pytest.mark.slow
def test_every_kind_is_refused_by_every_family_that_lacks_it() -> None:
    found: set[int] = set()
    for family in range(1, 64):
        for sock in sockets_of(family):
            found.add(family)
            for row in _table.rows():
                # Kinds that are only sent are refused for every family: see test_route.py.
                is_switched_on = row.direction != "send" or row.options
                if (
                    row.kind.__module__.startswith("cmsgx")
                    and is_switched_on
                    and not is_of(row, family)
                ):
                    check_refused(sock, row.kind)
    assert found >= {socket.AF_UNIX, V4, socket.AF_NETLINK}


def test_what_the_number_means_elsewhere_is_not_set() -> None:
    """Level 0 is also used by HCI and mISDN."""
    with opened("UDP") as sock:
        for kind in (kinds.HciDirection, kinds.MisdnTimestamp):
            with pytest.raises(cmsgx.NotSupportedError, match=r"AF_INET$"):
                cmsgx.enable(sock, kinds.Ttl, kind)
        assert sock.getsockopt(SOL_IP, 1) == 0  # IP_TOS
        assert sock.getsockopt(SOL_IP, 12) == 0  # IP_RECVTTL


@pytest.mark.parametrize("name", ["PacketInfo6", "HopLimit", "TrafficClass"])
def test_what_ipv4_has_in_another_form_is_of_ipv4_too(name: str) -> None:
    kind = getattr(kinds, name)
    with opened("UDP") as sock, cmsgx.enable(sock, kind):
        sock.bind(("127.0.0.1", 0))
        rx = cmsgx.Receiver(sock, 10, want=[kind])
        sock.sendto(b"x", sock.getsockname())
        assert rx.receive().data == b"x"
    with opened("dgram") as sock:
        check_refused(sock, kind)


class Somewhere(kinds.StructMessage):
    """A kind of any family, with an option that only one family has."""

    __slots__ = ()


@pytest.fixture
def somewhere() -> Iterator[Any]:
    option = kinds.Option(SOL_IP, 12, "IP_RECVTTL", 4, families=frozenset({V4}))
    with unregistered():  # which restores the table
        kinds.register(Somewhere, level=SOL_IP, type=0x7AAA, layout=(), size=0, option=option)
        yield Somewhere


def test_a_family_that_no_option_is_for(somewhere: Any) -> None:
    with opened("UDP") as sock, cmsgx.enable(sock, somewhere):
        assert sock.getsockopt(SOL_IP, 12) == 1
    with opened("dgram") as sock:
        check_refused(sock, somewhere)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("name", BY_NAME)
def test_a_kind_is_switched_on_and_off_again(name: str, sort: str) -> None:
    row = BY_NAME[name]
    family = SORTS[sort][0]
    options = [
        option
        for option in row.options
        if not option.is_watched_only and (not option.families or family in option.families)
    ]
    if not is_of(row, family):
        with opened(sort) as sock:
            check_refused(sock, row.kind)
        return
    with opened(sort) as other:
        there = [is_taken(other, option) for option in options]
        raw = states(other)
    with opened(sort) as sock:
        was = states(sock)
        if there and not there[0]:
            with pytest.raises(cmsgx.NotSupportedError) as caught:
                cmsgx.enable(sock, row.kind)
            assert caught.value.errno in NOT_THERE
            expected = f"{name}: this kernel or socket lacks {options[0].text}"
            assert expected in str(caught.value)
            if options[0].since:
                assert f"(Linux {options[0].since})" in str(caught.value)
            assert states(sock) == was
            return
        with cmsgx.enable(sock, row.kind) as handle:
            now = states(sock)
            missing = [
                option.text for option, is_there in zip(options, there, strict=True) if not is_there
            ]
            assert list(handle.left_out) == missing
            said = f" without {', '.join(missing)}" if missing else ""
            assert repr(handle) == f"<Enabled {name}{said}>"
            # Some are accepted without an effect: SO_RXQ_OVFL by MPTCP.
            for option in options:
                at = (option.level, option.name, option.text)
                assert now.get(at) == raw.get(at)
            with cmsgx.enable(sock, row.kind):
                assert states(sock) == now
            assert states(sock) == now
        assert states(sock) == was


# All at once ------------------------------------------------------------------------------------


def supported(sock: cmsgx.socket) -> list[Any]:
    """Every kind of the socket's family that this kernel switches on."""
    found: list[Any] = []
    for row in ROWS:
        if row.families and sock.family not in row.families:
            continue
        try:
            cmsgx.enable(sock, row.kind).restore()
        except cmsgx.NotSupportedError:
            continue
        found.append(row.kind)
    return found


def switch_on_what_is_old(sock: cmsgx.socket, wanted: list[Any]) -> None:
    """Options that others may have set, under names that cmsgx only watches."""
    for kind in wanted:
        for option in _table.row_of(kind).options:
            if option.is_watched_only and option.level == SOL_IPV6:
                sock.setsockopt(option.level, option.name, option.on)


EXPECTED: dict[str, set[str]] = {
    "IPv4": {
        "PacketInfo", "Ttl", "Tos", "OriginalDestination", "ReceivedOptions", "ReturnOptions",
        "Timestamp", "Mark", "UdpGro",
    },
    "IPv6": {
        "PacketInfo6", "HopLimit", "TrafficClass", "OriginalDestination6", "HopByHopOptions",
        "DestinationOptions", "FlowInfo", "Timestamp", "Mark",
    },
    "to mapped": {
        "PacketInfo", "Ttl", "Tos", "OriginalDestination", "ReceivedOptions", "ReturnOptions",
        "PacketInfo6", "Timestamp", "Mark", "UdpGro",
    },
}  # fmt: skip
EXPECTED["mapped"] = EXPECTED["to mapped"]


@pytest.mark.parametrize("asked", ["want=", "by others, before", "by others, refresh()"])
@pytest.mark.parametrize("name", EXPECTED)
def test_there_is_space_for_everything_at_once(name: str, asked: str) -> None:
    path = network.PATHS[name]
    with network.alone(), network.udp(name) as (sender, receiver):
        wanted = supported(receiver)
        switch_on_what_is_old(receiver, wanted)
        if asked == "want=":
            rx = cmsgx.Receiver(receiver, 1 << 16, want=wanted)
        elif asked == "by others, before":
            cmsgx.enable(receiver, *wanted)
            rx = cmsgx.Receiver(receiver, 1 << 16)
        else:
            rx = cmsgx.Receiver(receiver, 1 << 16)
            cmsgx.enable(receiver, *wanted)
            rx.refresh()
        header = network.options_header(bytes([0x1E, 4, 1, 2, 3, 4]))
        control: list[Any] = [
            kinds.HopByHopOptions(header), kinds.DestinationOptions(header), kinds.FlowInfo(7)
        ]  # fmt: skip
        if path.is_ipv4:
            # Record route, as long as possible; and several that are joined.
            sender.setsockopt(SOL_IP, 4, bytes([7, 39, 4]) + bytes(36) + b"\0")
            control = [kinds.UdpSegment(100)]
        for _ in range(3):
            cmsgx.send(sender, bytes(300), control=control)
            msg = rx.receive()
            assert not msg.truncated
            found = {type(one).__name__ for one in msg.control}
            assert found >= EXPECTED[name], EXPECTED[name] - found
            assert cmsgx.Unknown not in msg
            for one in msg.control:
                assert msg[type(one)] is not None


UNIX: list[tuple[str, Callable[[Any], bool]]] = [
    ("stream", lambda kind: kind is not kinds.Timestamp),
    ("dgram", lambda kind: True),
    ("seqpacket", lambda kind: True),
]


@pytest.mark.parametrize("fds", [0, 1, 253])
@pytest.mark.parametrize(("sort", "comes"), UNIX)
def test_there_is_space_for_everything_over_unix(
    sort: str, comes: Callable[[Any], bool], fds: int
) -> None:
    pair = cmsgx.socketpair(*SORTS[sort])
    with pair[0] as sender, pair[1] as receiver:
        wanted = supported(receiver)
        rx = cmsgx.Receiver(receiver, 100, fds=fds, want=wanted)
        cmsgx.send(sender, b"x", fds=[sender] * fds)
        with rx.receive() as msg:
            assert not msg.truncated
            assert len(msg.fds) == fds
            assert msg[cmsgx.Credentials] == cmsgx.Credentials()
            for kind in (kinds.Timestamp, kinds.Timestamping):
                assert (kind in msg) == comes(kinds.Timestamp)
            assert (cmsgx.PidFd in msg) == (cmsgx.PidFd in wanted)


def test_everything_over_tcp() -> None:
    with network.tcp() as (client, server):
        wanted = supported(server)
        assert kinds.TcpInq in wanted
        rx = cmsgx.Receiver(server, 100, want=wanted)

        def is_stamped() -> bool:
            client.sendall(b"data")
            msg = rx.receive()
            assert not msg.truncated
            assert msg[kinds.TcpInq] == kinds.TcpInq(0)
            return kinds.Timestamp in msg and msg[kinds.Timestamp].nanoseconds is not None

        # The kernel takes a while until it adds time stamps to received packets.
        assert eventually(is_stamped)


# Short control buffers, in typed calls ----------------------------------------------------------


@pytest.mark.parametrize("on_truncation", ["raise", "keep"])
def test_what_was_switched_on_meanwhile_is_reported_as_truncated(on_truncation: Any) -> None:
    """The control buffer is sized for what was on when the Receiver was created; refresh() enlarges
    it."""
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=[kinds.Tos], on_truncation=on_truncation)
        # Of the messages before it, a whole one, and the header of another.
        receiver.setsockopt(SOL_IP, 8, 1)  # IP_PKTINFO
        receiver.setsockopt(SOL_IP, 12, 1)  # IP_RECVTTL
        cmsgx.send(sender, b"data")
        msg = rx.receive()
        assert msg.truncated
        assert msg.flags & socket.MSG_CTRUNC
        assert msg.data == b"data"
        assert str(msg[kinds.PacketInfo].local) == "127.0.0.1"
        # With 32 bits not even its header fits.
        is_seen = sys.maxsize > 2**32
        with (
            pytest.raises(cmsgx.MalformedControlError, match=r"Ttl: 0 bytes .*\(truncated\)")
            if is_seen
            else pytest.raises(KeyError, match="Ttl")
        ):
            msg[kinds.Ttl]
        with pytest.raises(KeyError, match="Tos"):
            msg[kinds.Tos]
        # The truncated one does not hide another.
        assert [type(one) for one in msg] == [kinds.PacketInfo, *([cmsgx.Unknown] * is_seen)]
        rx.refresh()
        cmsgx.send(sender, b"data")
        msg = rx.receive()
        assert not msg.truncated
        assert [type(one) for one in msg] == [kinds.PacketInfo, kinds.Ttl, kinds.Tos]


def test_each_kind_in_turn_is_the_one_that_is_cut() -> None:
    with network.udp("IPv4") as (sender, receiver):
        for number in (8, 12, 13, 20):  # PKTINFO, TTL, TOS, ORIGDSTADDR: they come in this order
            receiver.setsockopt(SOL_IP, number, 1)
        cmsgx.send(sender, b"data")
        whole = list(cmsgx.recvmsg(receiver, 10, 200)[1])
        assert [type_ for _, type_, _ in whole] == [8, 2, 1, 20]
        for index, (level, type_, payload) in enumerate(whole):
            # All before it, and half of its own.
            room = sum(cmsgx.CMSG_SPACE(len(one[2])) for one in whole[:index])
            cmsgx.send(sender, b"data")
            _, ancdata, flags, _ = cmsgx.recvmsg(
                receiver, 10, room + cmsgx.CMSG_LEN(len(payload) // 2)
            )
            assert flags & socket.MSG_CTRUNC
            assert ancdata == [*whole[:index], (level, type_, payload[: len(payload) // 2])]
            with pytest.raises(cmsgx.MalformedControlError, match="truncated"):
                cmsgx.decode(*ancdata[index], V4)
