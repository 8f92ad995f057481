"""How a control message is sent: in the form that the packet needs, or refused by name and not
silently dropped."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import network
import pytest
from attempts import attempt, fails
from network import DGRAM, RAW, SOL_IP, SOL_IPV6, STREAM, V4, V6
from support import in_fork, unix_pair, unregistered

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import _sending, _table

IP_RECVTTL = 12
SENT = kinds.TimestampingFlags.TX_SOFTWARE
STREAMS = {"TCP": (V4, 0), "TCP of IPv6": (V6, 0), "MPTCP": (V4, 262)}


def zero_copy(sock: Any, control: Any) -> None:
    with cmsgx.ZeroCopySender(sock) as sender:
        sender.send(b"x", control=control)


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda sock, control: cmsgx.send(sock, b"x", control=control),
    "send of a number": lambda sock, control: cmsgx.send(sock.fileno(), b"x", control=control),
    "send_all": lambda sock, control: cmsgx.send_all(sock, b"x", control=[control]),
    "send_batch": lambda sock, control: cmsgx.send_batch(sock, [(b"x", (), [control])]),
    "sendmsg": lambda sock, control: cmsgx.sendmsg(sock, [b"x"], [control]),
    "method": lambda sock, control: sock.sendmsg([b"x"], [control]),
}
EACH_CALL = pytest.mark.parametrize("call", CALLS)


@contextmanager
def connected(what: str) -> Iterator[tuple[cmsgx.socket, cmsgx.socket]]:
    """A sender and a receiver of this sort."""
    if what == "unix":
        first, second = cmsgx.socketpair(socket.AF_UNIX, DGRAM)
        with first, second:
            yield first, second
    elif what in STREAMS:
        with network.tcp(*STREAMS[what]) as pair:
            yield pair
    else:
        with network.udp(what) as pair:
            yield pair


REFUSED: list[tuple[str, Any, str]] = [
    ("IPv6", kinds.Ttl(3), "Ttl goes with IPv4 packets.*HopLimit goes with both"),
    ("IPv6", kinds.Tos(3), "Tos goes with IPv4 packets.*TrafficClass goes with both"),
    ("IPv6", kinds.PacketInfo(1), "PacketInfo goes with IPv4 packets.*PacketInfo6 goes with both"),
    ("IPv6", kinds.ReturnOptions(b"\1\1\1\1"), "ReturnOptions goes with IPv4 packets"),
    ("IPv4", kinds.FlowInfo(1), "FlowInfo goes with IPv6 packets"),
    ("IPv4", kinds.DontFragment(1), "DontFragment goes with IPv6 packets"),
    ("mapped", kinds.FlowInfo(1), "FlowInfo goes with IPv6 packets; with this one, of IPv4"),
    ("from mapped", kinds.DontFragment(1), "DontFragment goes with IPv6 packets"),
    ("IPv4", cmsgx.Credentials(), "Credentials is sent over AF_UNIX and AF_NETLINK sockets"),
    ("IPv6", cmsgx.Credentials(), "Credentials is sent over AF_UNIX and AF_NETLINK sockets"),
    ("TCP", kinds.Mark(3), "Mark is sent by SOCK_DGRAM and SOCK_RAW sockets; by this.*setsockopt"),
    ("TCP", kinds.Priority(3), "Priority is sent by SOCK_DGRAM and SOCK_RAW sockets.*setsockopt"),
    (
        "TCP",
        kinds.SctpSendInfo(),
        "SctpSendInfo is sent by SCTP sockets; by this one, of IPPROTO_T",
    ),
    (
        "TCP",
        kinds.TlsRecordType(kinds.TlsType.ALERT),
        r'TlsRecordType is sent by sockets with kTLS \(TCP_ULP "tls", and TLS_TX\).*plain text',
    ),
    ("TCP of IPv6", kinds.Ttl(3), "Ttl is sent by SOCK_DGRAM and SOCK_RAW sockets.*setsockopt"),
    ("TCP of IPv6", kinds.PacketInfo(1), "PacketInfo is sent by SOCK_DGRAM and SOCK_RAW"),
    ("MPTCP", kinds.TimestampingRequest(SENT), "TimestampingRequest is sent over a st.*_MPTCP"),
    ("MPTCP", kinds.DevmemSend(3), "DevmemSend is sent over a stream by TCP without kTLS; by this"),
    ("MPTCP", kinds.TlsRecordType(kinds.TlsType.ALERT), "TlsRecordType .* kTLS.*_MPTCP without it"),
    ("MPTCP", kinds.Mark(3), "Mark is sent by SOCK_DGRAM and SOCK_RAW sockets"),
    ("MPTCP", kinds.TxTime(3), "TxTime is sent by SOCK_DGRAM and SOCK_RAW sockets; by this one"),
    ("MPTCP", kinds.TimestampingId(3), "TimestampingId is sent by SOCK_DGRAM and SOCK_RAW sockets"),
    ("IPv4", kinds.DevmemSend(3), "DevmemSend is sent by SOCK_STREAM sockets; by this one"),
    ("IPv4", kinds.FlowProtocol(3), "FlowProtocol is sent by SOCK_RAW sockets; by this one"),
    (
        "IPv4",
        kinds.TlsRecordType(kinds.TlsType.ALERT),
        "TlsRecordType is sent by SOCK_STREAM sockets",
    ),
    ("IPv4", kinds.SctpSendInfo(), "SctpSendInfo is sent by SOCK_STREAM and SOCK_SEQPACKET"),
    ("IPv4", kinds.RxrpcCallId(1), "RxrpcCallId is sent over AF_RXRPC sockets"),
    ("unix", kinds.Ttl(3), "Ttl is sent over AF_INET sockets; over this one, AF_UNIX"),
    ("unix", kinds.HopLimit(3), "HopLimit is sent over AF_INET and AF_INET6 sockets"),
    ("unix", kinds.UdpSegment(3), "UdpSegment is sent over AF_INET and AF_INET6 sockets"),
    ("unix", kinds.Mark(3), "Mark is sent over AF_INET and"),
    ("TCP", kinds.Ttl(3), "Ttl is sent by SOCK_DGRAM and SOCK_RAW sockets.*setsockopt"),
    ("TCP", kinds.HopLimit(3), "HopLimit is sent by SOCK_DGRAM and SOCK_RAW sockets"),
    ("TCP", kinds.UdpSegment(3), "UdpSegment is sent by SOCK_DGRAM sockets; by this one, SOCK_ST"),
]


def named(value: Any) -> str:
    return value.split()[0] if isinstance(value, str) else type(value).__name__


@EACH_CALL
@pytest.mark.parametrize(("what", "control", "text"), REFUSED, ids=named)
def test_what_the_kernel_would_drop_is_refused_by_name(
    what: str, control: Any, text: str, call: str
) -> None:
    with connected(what) as (sender, receiver):
        receiver.settimeout(0)
        with pytest.raises(cmsgx.NotSupportedError, match=f"control: {text}") as caught:
            CALLS[call](sender, control)
        assert caught.value.errno == errno.EOPNOTSUPP
        with pytest.raises(BlockingIOError):
            receiver.recv(1)


@pytest.mark.parametrize(
    ("what", "control"),
    [(what, control) for what, control, _ in REFUSED if what != "unix" or control.level != 1],
    ids=named,
)
def test_the_kernel_does_drop_it_without_an_error(what: str, control: Any) -> None:
    """Otherwise it would be refused without need."""
    with connected(what) as (sender, receiver):
        raw = (control.level, control.type, control.pack())
        with attempt(f"{control!r} is known", errno.EINVAL):
            assert cmsgx.send(sender, b"x", control=[raw]) == 1
        assert receiver.recv(10) == b"x"


def test_rights_and_segments_are_refused_too() -> None:
    with connected("IPv4") as (sender, _), connected("unix") as (left, _):
        for call in (CALLS["sendmsg"], CALLS["method"], CALLS["send"]):
            with pytest.raises(cmsgx.NotSupportedError, match="AF_UNIX"):
                call(sender, cmsgx.Rights([0]))
        with pytest.raises(cmsgx.NotSupportedError, match="Credentials"):
            cmsgx.send_segments(sender, bytes(100), 10, control=cmsgx.Credentials())
        with pytest.raises(cmsgx.NotSupportedError, match="UdpSegment"):
            CALLS["send"](left, kinds.UdpSegment(1))
        # As in socket: the kernel decides about bare descriptors and tuples.
        assert cmsgx.send_fds(sender, [b"x"], [0]) == 1
        assert cmsgx.sendmsg(sender, [b"x"], [(SOL_IPV6, 52, struct.pack("=i", 3))]) == 1


def test_a_zero_copy_sender_refuses_it() -> None:
    wrong = pytest.raises(cmsgx.NotSupportedError, match="HopLimit goes with both")
    with connected("IPv6") as (sender, _), wrong:
        zero_copy(sender, kinds.Ttl(3))


@EACH_CALL
@pytest.mark.parametrize("what", ["IPv4", "from mapped", "mapped"])
@pytest.mark.parametrize("control", [kinds.Ttl(3), kinds.HopLimit(3)], ids=repr)
def test_what_is_sent_with_an_ipv4_packet_arrives(what: str, control: Any, call: str) -> None:
    with connected(what) as (sender, receiver):
        asked = kinds.Ttl if receiver.family == V4 else kinds.HopLimit
        rx = cmsgx.Receiver(receiver, 10, want=[asked])
        CALLS[call](sender, control)
        assert rx.receive()[asked] == asked(3)


@pytest.mark.parametrize("as_number", [False, True])
def test_the_address_says_what_the_packet_is(as_number: bool) -> None:
    """For an AF_INET6 socket, whatever its peer is; one that is not connected has none."""
    with network.udp("mapped") as (_, there), network.udp("IPv6") as (sender, here):
        sock: Any = sender.fileno() if as_number else sender
        rx = cmsgx.Receiver(here, 10, want=[kinds.HopLimit])
        of_ipv6 = ("::1", here.getsockname()[1])
        of_ipv4 = ("::ffff:127.0.0.1", there.getsockname()[1])
        with network.open_socket(V6) as bare:
            for one in (sock, bare.fileno() if as_number else bare):
                with pytest.raises(cmsgx.NotSupportedError, match="Ttl goes with IPv4"):
                    cmsgx.send(one, b"x", control=kinds.Ttl(4), address=of_ipv6)
                with pytest.raises(cmsgx.NotSupportedError, match="FlowInfo goes with IPv6"):
                    cmsgx.send(one, b"x", control=kinds.FlowInfo(0), address=of_ipv4)
                assert cmsgx.send(one, b"x", control=kinds.Ttl(4), address=of_ipv4) == 1
                both = [kinds.HopLimit(5), kinds.FlowInfo(0)]
                assert cmsgx.send(one, b"x", control=both, address=of_ipv6) == 1
                assert rx.receive()[kinds.HopLimit] == kinds.HopLimit(5)
            # The form cannot be known: the kernel says what is missing.
            with fails(errno.EDESTADDRREQ, errno.ENOTCONN):
                cmsgx.send(bare, b"x", control=kinds.Ttl(4))


@pytest.mark.parametrize("how", ["sendmsg", "send"])
def test_to_a_host_name_it_is_sent_in_the_form_of_the_family(how: str) -> None:
    """It is resolved to an address of the socket's own family, by the socket or before."""
    send: Any = {
        "send": lambda *args: cmsgx.send(args[0], b"x", control=args[1], address=args[2]),
        "sendmsg": lambda *args: cmsgx.sendmsg(args[0], [b"x"], [args[1]], 0, args[2]),
    }[how]
    with network.udp("IPv4", connected=False) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=[kinds.Ttl])
        name = ("localhost", receiver.getsockname()[1])
        send(sender, kinds.HopLimit(7), name)
        assert rx.receive()[kinds.Ttl] == kinds.Ttl(7)
        with pytest.raises(cmsgx.NotSupportedError, match="FlowInfo goes with IPv6"):
            send(sender, kinds.FlowInfo(1), name)


@EACH_CALL
@pytest.mark.parametrize(("family", "protocol"), [(V4, 1), (V6, 58)], ids=["IPv4", "IPv6"])
def test_a_ping_socket_cuts_nothing_in_segments(family: int, protocol: int, call: str) -> None:
    """It has the type of UDP."""
    echo = struct.pack("!BBHHH", 8 if family == V4 else 128, 0, 0, 0, 0)
    with network.alone():
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write("0 0")
        with network.open_socket(family, DGRAM, protocol) as sock:
            sock.connect((network.LOOPBACK[socket.AddressFamily(family)], 0))
            with pytest.raises(cmsgx.NotSupportedError, match="sent by UDP sockets; by this one,"):
                CALLS[call](sock, kinds.UdpSegment(4))
            # Kinds that packets of any protocol can have are sent.
            assert cmsgx.send(sock, echo, control=kinds.HopLimit(3)) == len(echo)
            raw = (socket.SOL_UDP, 103, struct.pack("=H", 4))
            assert cmsgx.send(sock, echo, control=[raw]) == len(echo), "dropped without an error"


WITH_HEADER: list[tuple[int, Any]] = [
    (V4, kinds.Ttl(3)),
    (V4, kinds.Tos(3)),
    (V4, kinds.HopLimit(3)),
    (V6, kinds.HopLimit(3)),
    (V6, kinds.TrafficClass(3)),
    (V6, kinds.DontFragment(1)),
    (V6, kinds.DestinationOptions(network.options_header())),
]


@pytest.mark.parametrize("as_number", [False, True])
@pytest.mark.parametrize(("family", "control"), WITH_HEADER, ids=repr)
def test_a_header_that_is_there_stays_as_it_is(family: int, control: Any, as_number: bool) -> None:
    host = network.LOOPBACK[socket.AddressFamily(family)]
    packet = (network.ipv4 if family == V4 else network.ipv6)(host, host, b"")
    where: Any = (host, 0)
    for protocol, is_set in ((socket.IPPROTO_RAW, False), (253, True), (253, False)):
        with network.open_socket(family, RAW, protocol) as sock:
            if is_set:
                sock.setsockopt(*((SOL_IP, 3) if family == V4 else (SOL_IPV6, 36)), 1)
            one: Any = sock.fileno() if as_number else sock
            if protocol == 253 and not is_set:
                assert cmsgx.send(one, b"x", control=control, address=where) == 1
                continue
            with pytest.raises(cmsgx.NotSupportedError, match="if the kernel makes the IP hea"):
                cmsgx.send(one, packet, control=control, address=where)
            raw = (control.level, control.type, control.pack())
            assert cmsgx.send(one, packet, control=[raw], address=where) == len(packet), "dropped"


@pytest.mark.parametrize("protocol", [socket.IPPROTO_RAW, 253])
def test_a_flow_protocol_is_sent_with_a_header_that_is_there(protocol: int) -> None:
    packet = network.ipv4("127.0.0.1", "127.0.0.1", b"")
    with network.open_socket(V4, RAW, protocol) as sock:

        def send() -> int:
            control = kinds.FlowProtocol(253)
            return cmsgx.send(sock, packet, control=control, address=("127.0.0.1", 0))

        if protocol == socket.IPPROTO_RAW:
            with attempt("IP_PROTOCOL", errno.EINVAL):
                assert send() == len(packet)
        else:
            with pytest.raises(cmsgx.NotSupportedError, match="whose packets bring their own IP"):
                send()


@pytest.mark.parametrize("what", ["TCP", "TCP of IPv6"])
def test_tcp_stamps_what_is_sent(what: str) -> None:
    with connected(what) as (client, server):
        flags = kinds.TimestampingFlags.OPT_ID | kinds.TimestampingFlags.OPT_TSONLY
        cmsgx.enable(client, kinds.Timestamping.option(flags))
        for one in (client, client.fileno()):
            assert cmsgx.send(one, b"x", control=kinds.TimestampingRequest(SENT)) == 1
            assert server.recv(1) == b"x"
            [report] = cmsgx.receive_errors(client, timeout=network.SECONDS)
            assert isinstance(report, kinds.SentTimestamp)


def test_kinds_of_ktls_need_its_keys() -> None:
    """Before it has its keys, the socket sends as TCP does."""
    with connected("TCP") as (client, _):
        with attempt("TCP_ULP tls", errno.ENOENT, errno.ENOPROTOOPT, errno.EPERM):
            client.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
        with pytest.raises(cmsgx.NotSupportedError, match="sockets with kTLS"):
            cmsgx.send(client, b"x", control=kinds.TlsRecordType(kinds.TlsType.ALERT))


def test_raw_sockets_send_those_of_their_packets() -> None:
    with network.open_socket(V4, RAW, 253) as sock:
        assert cmsgx.send(sock, bytes(8), control=kinds.Ttl(9), address=("127.0.0.1", 0)) == 8
        with pytest.raises(cmsgx.NotSupportedError, match="UdpSegment is sent by SOCK_DGRAM"):
            cmsgx.send(sock, bytes(8), control=kinds.UdpSegment(4), address=("127.0.0.1", 0))


def test_an_override_gets_what_it_is_given() -> None:
    """It decides itself what to do with a control message; it gets the form for the socket."""
    got: list[Any] = []

    class Tunnel(socket.socket):
        def sendmsg(self, *args: Any) -> int:
            got.append(list(args[1]))
            return 1

    with Tunnel(V4, STREAM) as sock:
        cmsgx.sendmsg(sock, [b"x"], [cmsgx.Rights([0])])
    with Tunnel(V4, DGRAM) as sock:
        cmsgx.sendmsg(sock, [b"x"], [kinds.HopLimit(3)])
    assert got == [
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("=i", 0))],
        [(SOL_IP, socket.IP_TTL, struct.pack("=i", 3))],
    ]


# User-defined kinds ------------------------------------------------------------------------------


def made(name: str, **row: Any) -> Any:
    kind = type(name, (kinds.StructMessage,), {"__slots__": ()})
    return kinds.register(kind, layout=(("value", 0, "i"),), size=4, **row)


class _Packs(kinds.ControlMessage):
    __slots__ = ("value",)

    value: int

    def pack(self) -> bytes:
        return struct.pack("=i", self.value)


def packs(name: str, **row: Any) -> Any:
    kind = type(name, (_Packs,), {"__slots__": ("value",)})
    return kinds.register(kind, **row)


@pytest.mark.parametrize("make", [made, packs])
@pytest.mark.parametrize("what", ["IPv6", "unix", "mapped"])
def test_one_that_names_no_families_is_sent_anywhere(make: Any, what: str) -> None:
    with unregistered(), connected(what) as (sender, _):
        own = make("Own", level=7777, type=1)
        assert cmsgx.send(sender, b"x", control=own(3)) == 1
        assert cmsgx.sendmsg(sender, [b"x"], [own(3), cmsgx.Unknown(7777, 2, b"1234")]) == 1


@pytest.mark.parametrize("make", [made, packs])
def test_one_that_names_families_is_sent_over_those(make: Any) -> None:
    """It may be a kind that packs itself."""
    with unregistered(), connected("mapped") as (mapped, _), connected("IPv4") as (ipv4, _):
        # Its level does not depend on the version of IP, so the socket's family counts.
        own = make("Own", level=7777, type=1, families=[V6])
        assert cmsgx.send(mapped, b"x", control=own(3)) == 1
        with pytest.raises(cmsgx.NotSupportedError, match="Own is sent over AF_INET6 sockets"):
            cmsgx.send(ipv4, b"x", control=own(3))
        of_ip = make("OfIp", level=SOL_IPV6, type=7777, families=[V6])
        with pytest.raises(cmsgx.NotSupportedError, match="OfIp goes with IPv6 packets"):
            cmsgx.send(mapped, b"x", control=of_ip(3))


def test_a_subclass_of_one_that_packs_itself_is_sent_by_its_row() -> None:
    with unregistered(), connected("IPv4") as (sender, _):
        own = packs("Own", level=7777, type=1, families=[V6])
        below: Any = type("Below", (own,), {"__slots__": ()})
        with pytest.raises(TypeError, match="not a registered kind"):
            below(3)
        odd = own(3)
        with pytest.raises(cmsgx.NotSupportedError, match="Own is sent over AF_INET6"):
            cmsgx.sendmsg(sender, [b"x"], [odd])


def test_a_least_value_needs_bounds() -> None:
    kind: Any = type("Own", (kinds.StructMessage,), {"__slots__": ()})
    with unregistered(), pytest.raises(ValueError, match="min_value: 1; no member"):
        kinds.register(kind, level=7777, type=1, layout=(("value", 0, "i"),), size=4, min_value=1)


@pytest.mark.parametrize(
    ("format", "bounds"), [("i", (2, 1)), ("B", (0, 1)), ("A", (0, 1)), ("q", (0, 1 << 64))]
)
def test_bounds_that_no_field_has_are_refused(format: str, bounds: tuple[int, int]) -> None:
    with pytest.raises((ValueError, OverflowError)):
        cmsgx._cmsg.Field("value", 0, format, bounds=bounds)


# What the kernel refuses ------------------------------------------------------------------------


@EACH_CALL
def test_a_note_says_what_was_sent_and_what_it_needs(call: str) -> None:
    with connected("IPv4") as (sender, _):
        with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is looked at)
            CALLS[call](sender, kinds.TxTime(1))
        assert caught.value.errno == errno.EINVAL
        assert "sent with TxTime needs SO_TXTIME" in caught.value.__notes__[0]


def note_of(sock: Any, control: Any, number: int) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011 (the errno is looked at)
        cmsgx.send(sock, b"x", control=control)
    assert caught.value.errno == number
    [note] = caught.value.__notes__
    return note


def test_a_note_names_each_once() -> None:
    with connected("IPv6") as (sender, _):
        elsewhere = kinds.PacketInfo6("2001:db8::99")
        note = note_of(sender, [kinds.HopLimit(3), kinds.HopLimit(4), elsewhere], errno.EINVAL)
        assert note.startswith("sent with HopLimit; PacketInfo6 needs an `address` that is one of")
    with connected("IPv4") as (sender, _):
        note = note_of(sender, [(SOL_IP, 9999, b""), kinds.Tos(1)], errno.EINVAL)
        assert (
            note == "sent with (0, 9999); Tos (or TrafficClass, which is sent as that in an "
            "IPv4 packet) needs 0 to 255"
        )
        # Without control messages there is no note about them.
        with pytest.raises(OSError) as caught:  # noqa: PT011
            cmsgx.sendmsg(sender, [b"x"], [], socket.MSG_OOB)
        assert not getattr(caught.value, "__notes__", [])


def test_a_note_says_what_another_errno_is_about() -> None:
    with connected("IPv4") as (sender, _):
        needs = "needs a `local` that is an address of this host"
        assert needs in note_of(sender, [kinds.Ttl(3), kinds.PacketInfo(9999)], errno.ENODEV)
        elsewhere = kinds.PacketInfo(0, "192.0.2.77")
        with pytest.raises(OSError) as caught:  # noqa: PT011 (it depends on the routes)
            cmsgx.send(sender, b"x", control=[kinds.Ttl(3), elsewhere])
        assert caught.value.errno in (errno.ENETUNREACH, errno.EINVAL)
        assert needs in caught.value.__notes__[0]
        wrong = (SOL_IP, socket.IP_TTL, struct.pack("=i", 300))
        assert "in an IPv4 packet) needs 1 to 255" in note_of(sender, [wrong], errno.EINVAL)
    with network.open_socket(V4, DGRAM, 136) as lite:
        lite.connect(("127.0.0.1", 9))
        note = note_of(lite, [kinds.Ttl(3), kinds.UdpSegment(1)], errno.EIO)
        assert note.startswith("sent with UdpSegment needs UDP, not UDP-Lite")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_eperm_says_what_is_missing() -> None:
    def child() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        with connected("unix") as (left, _):
            note = note_of(left, cmsgx.Credentials(uid=0), errno.EPERM)
            assert "Credentials needs one's own pid, uid and gid; CAP_SYS_ADMIN" in note
        with connected("IPv4") as (sender, _):
            assert "Mark needs CAP_NET_ADMIN" in note_of(sender, kinds.Mark(1), errno.EPERM)

    if os.getuid() != 0:
        pytest.skip(f"setuid(): EPERM for user {os.getuid()}")
    in_fork(child)


# What is switched on -----------------------------------------------------------------------------

ONLY_SENT = [row.kind for row in _table.rows() if row.direction == "send" and not row.options]


def test_there_are_kinds_that_are_only_sent() -> None:
    assert {kinds.UdpSegment, kinds.AlgIv, kinds.SctpInit, kinds.DontFragment} < set(ONLY_SENT)


@pytest.mark.parametrize("kind", ONLY_SENT, ids=lambda kind: str(kind.__name__))
def test_what_is_only_sent_is_not_switched_on(kind: Any) -> None:
    fields = ", ".join(kind.__match_args__)
    with connected("IPv4") as (sock, _):
        calls: list[Callable[[], object]] = [
            lambda: cmsgx.enable(sock, kinds.Ttl, kind),
            lambda: cmsgx.Receiver(sock, 10, want=[kinds.Ttl, kind]),
            lambda: cmsgx.BatchReceiver(sock, 1, 10, want=[kinds.Ttl, kind]),
        ]
        for call in calls:
            with pytest.raises(TypeError) as caught:
                call()
            assert f"{kind.__name__} is only sent" in str(caught.value)
            assert f"control={kind.__name__}({fields})" in str(caught.value)
        assert sock.getsockopt(SOL_IP, IP_RECVTTL) == 0


def test_what_a_send_needs_an_option_for_is_switched_on() -> None:
    with connected("IPv4") as (sock, _), attempt("SO_TXTIME"):
        cmsgx.enable(sock, kinds.TxTime)


def test_what_comes_unasked_may_be_asked_for() -> None:
    first, second = unix_pair()
    with first, second:
        receiver = cmsgx.Receiver(second, 10, fds=1, want=[cmsgx.Rights])
        cmsgx.send(first, b"x", fds=[0])
        with receiver.receive() as message:
            assert len(message.fds) == 1


@pytest.mark.parametrize("kind", [kinds.HopLimit, kinds.TrafficClass, kinds.PacketInfo6])
def test_a_kind_of_ipv6_is_not_on_by_the_option_of_ipv4(kind: Any) -> None:
    ipv4 = [kinds.Ttl, kinds.Tos, kinds.PacketInfo]
    with connected("IPv6") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 10, want=ipv4)
        sender.send(b"x")
        with pytest.raises(KeyError, match=rf"not enabled; Receiver\(want=\[{kind.__name__}"):
            rx.receive()[kind]
        rx = cmsgx.Receiver(receiver, 10, want=[*ipv4, kind])
        sender.send(b"x")
        assert kind in rx.receive()


@pytest.mark.parametrize("as_number", [False, True])
def test_descriptors_are_asked_of_unix_sockets_only(as_number: bool) -> None:
    with connected("IPv4") as (sender, receiver):
        sock: Any = receiver.fileno() if as_number else receiver
        for make in (
            lambda fds: cmsgx.Receiver(sock, 10, fds=fds),
            lambda fds: cmsgx.BatchReceiver(sock, 1, 10, fds=fds),
        ):
            with pytest.raises(cmsgx.NotSupportedError, match=r"fds=1: .*AF_UNIX.*AF_INET"):
                make(1)
            # As many as can come, which is none.
            make(cmsgx.MAX_FDS)
            make(0)
        if not as_number:
            with pytest.raises(cmsgx.NotSupportedError, match=r"fds=1: .*AF_UNIX"):
                cmsgx.receive(sock, 10, fds=1)
        sender.send(b"x")
        assert cmsgx.receive(sock, 10, fds=cmsgx.MAX_FDS).data == b"x"


@pytest.mark.parametrize("call", ["send", "send_batch", "sendmsg"])
def test_what_a_signal_handler_raises_while_a_note_is_made_is_raised(
    call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_sending, "lookup_sent", interrupted)  # which note_needs() calls
    with connected("IPv4") as (sender, _), pytest.raises(KeyboardInterrupt) as caught:
        CALLS[call](sender, kinds.TxTime(1))
    assert isinstance(caught.value.__context__, OSError)
