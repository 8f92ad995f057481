"""Addresses of each family: as they are shown, and as they are passed back to the kernel."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import errno
import fcntl
import gc
import ipaddress
import marshal
import multiprocessing.connection
import pickle
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from addresses import Index, asked, of_unix, udp_pair
from families import open_socket
from namespaces import Namespace
from native import build, under_shim
from support import abstract_name, run_python

import cmsgx
from cmsgx import kinds

# The warning about a number that is masked; socket gives it too, from Python 3.15 on.
pytestmark = pytest.mark.filterwarnings("ignore:integer value out of range:DeprecationWarning")

NETLINK_NOOP = struct.pack("=IHHII", 16, 1, 5, 1, 0)  # NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK
ETH_P_ALL = 3
PACKET_OUTGOING = 4


# As socket gives them ---------------------------------------------------------------------------

READERS: dict[str, Callable[[cmsgx.socket], cmsgx.Message]] = {
    "receive": lambda sock: cmsgx.receive(sock, 2000),
    "receive of a number": lambda sock: cmsgx.receive(sock.fileno(), 2000),
    "Receiver": lambda sock: cmsgx.Receiver(sock, 2000).receive(),
    "BatchReceiver": lambda sock: cmsgx.BatchReceiver(sock, 1, 2000).receive()[0],
}


@contextmanager
def of_ip(family: int) -> Iterator[tuple[cmsgx.socket, Callable[[], object]]]:
    with udp_pair(family) as (server, client):
        yield server, lambda: client.sendto(b"x", server.getsockname())


@contextmanager
def of_netlink() -> Iterator[tuple[cmsgx.socket, Callable[[], object]]]:
    with cmsgx.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        sock.bind((0, 0))
        sock.settimeout(60)
        yield sock, lambda: sock.sendto(NETLINK_NOOP, (0, 0))


@contextmanager
def of_packet() -> Iterator[tuple[cmsgx.socket, Callable[[], object]]]:
    """In a separate namespace, where nobody else sends."""
    with (
        Namespace() as space,
        open_socket(socket.AF_PACKET, socket.SOCK_DGRAM, space=space) as sock,
        open_socket(socket.AF_INET, socket.SOCK_DGRAM, space=space) as sender,
    ):
        sock.bind(("lo", ETH_P_ALL))
        sock.settimeout(60)
        yield sock, lambda: sender.sendto(b"x", ("127.0.0.1", 9))


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "AF_INET": lambda _: of_ip(socket.AF_INET),
    "AF_INET6": lambda _: of_ip(socket.AF_INET6),
    "AF_UNIX, a path": lambda folder: of_unix(str(folder / "name")),
    "AF_UNIX, bytes": lambda folder: of_unix(bytes(folder / "other")),
    "AF_UNIX, abstract": lambda _: of_unix(abstract_name("address")),
    "AF_UNIX, no name": lambda _: of_unix(None),
    "AF_NETLINK": lambda _: of_netlink(),
    "AF_PACKET": lambda _: of_packet(),
}


@pytest.mark.parametrize("how", READERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_address_is_what_socket_gives(family: str, how: str, tmp_path: Path) -> None:
    with FAMILIES[family](tmp_path) as (sock, send):
        send()
        expected = sock.recvfrom(2000, socket.MSG_PEEK)[1]
        message = READERS[how](sock)
        assert message.address == expected
        assert message.address is message.address
        assert isinstance(message.address, tuple) is isinstance(expected, tuple)
        if expected is None:
            assert message.sender is None
            return
        sender = message.sender
        assert sender is not None
        assert sender.value == expected
        assert type(sender.value) is type(expected)
        assert sender.family == sock.family
        if isinstance(expected, tuple):
            assert isinstance(message.address, cmsgx.Address)
            assert message.address.packed == sender.packed
            assert message.address.value == expected
            assert type(message.address.value) is tuple
        else:
            assert type(message.address) is type(expected)


def test_a_capture_sees_which_frames_were_outgoing() -> None:
    with of_packet() as (sock, send):
        send()
        seen = {cmsgx.receive(sock, 2000).address[2] for _ in range(2)}
        assert seen == {PACKET_OUTGOING, 0}


def test_interfaces_have_the_name_of_the_sockets_namespace() -> None:
    """Here another device has this number, or none has."""
    with (
        Namespace() as space,
        open_socket(socket.AF_PACKET, socket.SOCK_DGRAM, space=space) as sock,
    ):
        number = socket.if_nametoindex("lo")
        # struct ifreq for SIOCSIFNAME, which requires the device to be down: SIOCSIFFLAGS.
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(sock, 0x8923, struct.pack("16s16s8x", b"lo", b"cmsgx-loop"))
        fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"cmsgx-loop", 1))
        sock.bind(("cmsgx-loop", ETH_P_ALL))
        sock.settimeout(60)
        with open_socket(socket.AF_INET, socket.SOCK_DGRAM, space=space) as sender:
            sender.sendto(b"x", ("127.0.0.1", 9))
            expected = sock.recvfrom(2000, socket.MSG_PEEK)[1]
            assert expected[0] == "cmsgx-loop"
            for what in (sock, sock.fileno()):
                message = cmsgx.receive(what, 2000, flags=socket.MSG_PEEK)
                assert message.address == expected
                assert message.sender is not None
                assert message.sender.value == expected
            assert cmsgx.recvmsg(sock.fileno(), 2000, 0, socket.MSG_PEEK)[3] == expected
            message = cmsgx.receive(sock, 2000)
    # The socket is closed: the names are those of the devices here.
    assert message.address[0] == socket.if_indextoname(number) == "lo"


def differences(seed: int, count: int) -> tuple[list[str], dict[str, int]]:
    library = build("any_name.so", "-O1", "-shared", "-fPIC", "any_name.c", "-ldl")
    environment = {**under_shim(), "LD_PRELOAD": str(library)}
    code = (Path(__file__).parent / "names_by_socket.py").read_text(encoding="utf-8")
    *lines, last = run_python(code, str(seed), str(count), env=environment).splitlines()
    return lines, eval(last)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of Linux, by a preload")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_names_of_each_family_are_read_and_made_as_socket_does(seed: int) -> None:
    """Also for families that this kernel lacks, if this Python was built with them."""
    found, counts = differences(seed, 700 if seed == 1 else 50000)
    assert found == []
    assert {"AF_INET 0", "AF_INET6 0", "AF_NETLINK 0", "AF_PACKET 0"} <= set(counts)
    known = {
        "AF_CAN 1": "CAN_RAW", "AF_CAN 6": "CAN_ISOTP", "AF_CAN 7": "CAN_J1939",
        "AF_TIPC 0": "AF_TIPC", "AF_ALG 0": "AF_ALG", "AF_VSOCK 0": "AF_VSOCK",
        "AF_QIPCRTR 0": "AF_QIPCRTR", "AF_BLUETOOTH 0": "BTPROTO_RFCOMM",
        "AF_BLUETOOTH 1": "BTPROTO_HCI", "AF_BLUETOOTH 2": "BTPROTO_SCO",
        "AF_BLUETOOTH 3": "BTPROTO_RFCOMM",
    }  # fmt: skip
    assert set(counts) >= {name for name, word in known.items() if hasattr(socket, word)}
    assert min(counts.values()) > 10


# The tuple --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_an_address_is_the_tuple_of_socket(family: socket.AddressFamily) -> None:
    with udp_pair(family) as (server, client):
        name = client.getsockname()
        address = asked(server, client).address
        assert isinstance(address, tuple)
        assert isinstance(address, cmsgx.Address)
        assert address == name
        assert name == address
        assert not address != name  # noqa: SIM202 (each operator is asked)
        assert address != (name[0], name[1] ^ 1, *name[2:])
        assert hash(address) == hash(name)
        assert {name: 1}[address] == 1
        assert len(address) == len(name)
        assert address[1:] == name[1:]
        assert (*address,) == name
        assert repr(address) == repr(name)
        assert address + (1,) == (*name, 1)  # noqa: RUF005
        assert address < (*name, 1)
        assert min([(*name, 1), address]) is address
        assert address.family == family
        assert address.ip == ipaddress.ip_address(name[0])
        assert address.value == name
        assert len(address.packed) == (16 if family == socket.AF_INET else 28)
        for same in (
            copy.copy(address),
            copy.deepcopy(address),
            pickle.loads(pickle.dumps(address)),
        ):
            assert type(same) is tuple
            assert same == name


@dataclasses.dataclass
class Peer:
    address: Any


def test_what_passes_data_of_any_type_accepts_the_address() -> None:
    with udp_pair() as (server, client):
        address: Any = asked(server, client).address
        plain = client.getsockname()
        assert dataclasses.asdict(Peer(address)) == {"address": plain}
        assert dataclasses.astuple(Peer(address)) == (plain,)
        assert type(dataclasses.replace(Peer(address)).address) is type(address)
        kind = type(address)
        for made in (kind(address), kind(iter(plain)), kind(list(plain))):
            assert type(made) is tuple
            assert made == plain
        assert kind() == ()
        for wrong in ((5,), (1, 2), (socket.AF_INET, plain)):
            with pytest.raises(TypeError):
                kind(*wrong)
        with pytest.raises(TypeError):
            kind(iterable=plain)
        # There is no other way to get one without its hidden name.
        makes: list[Any] = [tuple.__new__, object.__new__, cmsgx.Address.__new__]
        for make in makes:
            with pytest.raises(TypeError):
                make(kind, plain)
        # Code that checks for the exact type, as marshal does, accepts its value.
        with pytest.raises(ValueError, match="unmarshallable"):
            marshal.dumps(address)
        assert marshal.loads(marshal.dumps(address.value)) == plain
        connection: Any = multiprocessing.connection
        assert connection.address_type(address.value) == "AF_INET"


def test_sockets_own_calls_take_the_address() -> None:
    with udp_pair() as (server, client):
        address = asked(server, client).address
        assert server.sendto(b"sendto", address) == 6
        assert server.sendmsg([b"sendmsg"], [], 0, address) == 7
        assert socket.socket.sendto(server, b"plain", address) == 5

        async def by_the_loop() -> None:
            server.setblocking(False)
            await asyncio.get_running_loop().sock_sendto(server, b"loop", address)
            await asyncio.get_running_loop().sock_connect(server, address)

        asyncio.run(by_the_loop())
        assert server.getpeername() == address
        server.connect(address)
        assert [client.recv(10) for _ in range(4)] == [b"sendto", b"sendmsg", b"plain", b"loop"]
        host, port = client.getsockname()
        assert "%s:%d" % address == f"{host}:{port}"  # noqa: UP031


def test_an_address_outlives_its_message_and_owns_nothing() -> None:
    with udp_pair() as (server, client):
        address, sender = (lambda msg: (msg.address, msg.sender))(asked(server, client))
        gc.collect()
        assert address == client.getsockname()
        assert sender is not None
        assert sender.value == client.getsockname()
        assert set(gc.get_referents(address)) <= {type(address), *address}


def test_each_of_many_peers_has_its_own_address() -> None:
    """More addresses than are cached, in two rounds, so that they replace others."""
    with udp_pair() as (server, client):
        client.close()
        client = cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.bind(("0.0.0.0", 0))
            port = client.getsockname()[1]
            hosts = [f"127.{i % 5}.{i // 100}.{i % 250 + 1}" for i in range(700)]
            kept = []
            for turn in range(4):
                for host in hosts:
                    source = kinds.PacketInfo(local=host)
                    cmsgx.send(client, b"x", control=source, address=server.getsockname())
                    message = cmsgx.receive(server, 10)
                    assert message.address == (host, port)
                    assert message.sender is not None
                    assert message.sender.value == (host, port)
                    assert message.address.packed == message.sender.packed
                    assert str(message.address.ip) == host
                    if turn in (1, 2):
                        kept.append((message.address, host))
                        assert hash(message.address) == hash((host, port))
            # Addresses that somebody holds do not change.
            for address, host in kept:
                assert address == (host, port)
                assert address.packed[4:8] == socket.inet_aton(host)
                assert hash(address) == hash((host, port))


# Back to the kernel -----------------------------------------------------------------------------


def zero_copy(sock: cmsgx.socket, address: Any) -> object:
    with cmsgx.ZeroCopySender(sock) as sender:
        return sender.send(b"x", address=address)


SENDING: dict[str, Callable[[cmsgx.socket, Any], object]] = {
    "send": lambda sock, to: cmsgx.send(sock, b"x", address=to),
    "send, timeout": lambda sock, to: cmsgx.send(sock, b"x", address=to, timeout=1),
    "send, control": lambda sock, to: cmsgx.send(sock, b"x", address=to, control=kinds.Mark(0)),
    "send of a number": lambda sock, to: cmsgx.send(sock.fileno(), b"x", address=to),
    "send_batch": lambda sock, to: cmsgx.send_batch(sock, [(b"x", (), (), to)]),
    "send_batch of a number": lambda sock, to: cmsgx.send_batch(
        sock.fileno(), [(b"x", (), (), to)]
    ),
    "Outgoing": lambda sock, to: cmsgx.send_batch(sock, [cmsgx.Outgoing(b"x", address=to)]),
    "send_segments": lambda sock, to: cmsgx.send_segments(sock, b"x", 1, address=to),
    "ZeroCopySender": zero_copy,
    "sendmsg": lambda sock, to: cmsgx.sendmsg(sock, [b"x"], [], 0, to),
    "sendmsg of a number": lambda sock, to: cmsgx.sendmsg(sock.fileno(), [b"x"], [], 0, to),
    "send_fds": lambda sock, to: cmsgx.send_fds(sock, [b"x"], [], 0, to),
    "send_fds of a number": lambda sock, to: cmsgx.send_fds(sock.fileno(), [b"x"], [], 0, to),
}
FORMS: dict[str, Callable[[cmsgx.Message, Any], Any]] = {
    "address": lambda msg, name: msg.address,
    "sender": lambda msg, name: msg.sender,
    "Address()": lambda msg, name: cmsgx.Address(msg.sender.family, name),  # type: ignore[union-attr]
    "a plain tuple": lambda msg, name: name,
    "host as bytes": lambda msg, name: (name[0].encode(), *name[1:]),
    "host as bytearray": lambda msg, name: (bytearray(name[0].encode()), *name[1:]),
    "port with __index__": lambda msg, name: (name[0], Index(name[1]), *map(Index, name[2:])),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", SENDING)
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_each_call_that_sends_takes_each_form(family: int, how: str, form: str) -> None:
    with udp_pair(family) as (server, client):
        to = FORMS[form](asked(server, client), client.getsockname())
        assert SENDING[how](server, to) in (1, None, 0)
        assert client.recvfrom(10) == (b"x", server.getsockname())


@pytest.mark.parametrize("how", [name for name in SENDING if "number" not in name])
def test_each_call_on_a_socket_object_takes_the_name_of_a_host(how: str) -> None:
    with udp_pair() as (server, client):
        SENDING[how](server, ("localhost", client.getsockname()[1]))
        assert client.recvfrom(10) == (b"x", server.getsockname())


@pytest.mark.parametrize("how", [name for name in SENDING if "number" in name])
def test_a_number_does_not_accept_a_host_name(how: str) -> None:
    with udp_pair() as (server, client):
        with pytest.raises(ValueError, match=r"'localhost'.* is a host name to resolve"):
            SENDING[how](server, ("localhost", client.getsockname()[1]))
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)


def test_an_fd_takes_what_socket_takes_as_a_numeric_address() -> None:
    with udp_pair(socket.AF_INET6) as (server, client):
        port = client.getsockname()[1]
        with cmsgx.Fd(server.detach()) as fd:
            for to in ((b"::1", port), ("::1", Index(port), Index(0), 2**32)):
                assert cmsgx.send(fd, b"x", address=to) == 1
                assert client.recv(10) == b"x"


@pytest.mark.parametrize("scope", [2**31 - 1, 2**31, 2**32 - 1, 2**32 + 1])
def test_a_large_scope_is_sent_where_sockets_is_sent(scope: int) -> None:
    """To a device that does not exist, or to the device of the low bits."""
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))

        def outcome(send: Callable[[Any], object]) -> object:
            try:
                return send(("fe80::1", sock.getsockname()[1], 0, scope))
            except OSError as error:
                return error.errno

        expected = outcome(lambda to: sock.sendto(b"x", to))
        for how in ("send", "send of a number", "send_batch", "sendmsg of a number"):
            assert outcome(lambda to, send=SENDING[how]: send(sock, to)) == expected  # type: ignore[misc]


def test_packets_are_sent_by_the_name_of_an_interface() -> None:
    with of_packet() as (sock, _):
        name = ("lo", 0x1234, 0, 0, b"\1\2\3\4\5\6")
        ways = ("send", "send of a number", "send_batch", "sendmsg of a number", "send_fds")
        for how in ways:
            assert SENDING[how](sock, name) == 1
            address = sock.recvfrom(10)[1]
            assert address[:2] == ("lo", 0x1234)
        for how in ("send", "send of a number"):
            with pytest.raises(OSError, match="no such interface") as caught:
                SENDING[how](sock, ("cmsgx-none", 1))
            assert caught.value.errno == errno.ENODEV


def test_the_hardware_address_may_be_longer_than_eight_bytes() -> None:
    """As for InfiniBand, 20 bytes: the name is longer than its struct."""
    name = struct.pack("=HHiHBB", 17, 0, 0, 32, 0, 20) + bytes(range(20))
    numbers = (len(name), 0, 0, 0)
    buffer = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers) + name
    message = cmsgx.wire.parse_multishot(buffer, len(name), 0)
    assert message.address == ("", 0, 0, 32, bytes(range(20)))
    assert message.sender is not None
    assert message.sender.packed == name


EMPTY = """
import socket, sys
import cmsgx
from native import Shim

shim = Shim()
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for send in (cmsgx.send_fds, socket.send_fds):  # what the shim captured last stays
    send(left, [b"x"], [])
    print(shim.captured().hex(), right.recv(1))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="shim.c is of Linux")
def test_send_fds_of_none_sends_the_empty_message_that_socket_sends() -> None:
    of_cmsgx, of_socket = run_python(EMPTY, env=under_shim()).splitlines()
    assert of_socket == of_cmsgx
    assert (
        of_socket.startswith(struct.pack("@Nii", 16, socket.SOL_SOCKET, 1).hex())
        or len(struct.pack("@N", 0)) < 8
    )
