"""The kinds of RxRPC, between two ends of this machine: Documentation/networking/rxrpc.rst

Each test tries first, and skips with the errno of the attempt.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from attempts import attempt, fails, may_fail
from families import bind, connect, open_socket, set_option, sockaddr_in
from namespaces import Namespace

import cmsgx
from cmsgx import kinds

AF_RXRPC, SOL_RXRPC = 33, 272
SERVICE = 1234
MSG_OOB, MSG_MORE, MSG_EOR = 0x1, 0x8000, 0x80
LOCALHOST = "127.0.0.1"

# struct rxrpc_wire_header: epoch, connection and channel, call, sequence, serial, type, flags, user
# status, security index, checksum, service
WIRE = struct.Struct("!IIIIIBBBBHH")
DATA, CHALLENGE = 1, 6


def sockaddr_rxrpc(host: str, port: int, service: int = SERVICE) -> bytes:
    """struct sockaddr_rxrpc, over UDP and IPv4."""
    address = struct.pack("=HHHH", AF_RXRPC, service, socket.SOCK_DGRAM, 16)
    return (address + sockaddr_in(host, port)).ljust(36, b"\0")


def rxrpc() -> cmsgx.socket:
    sock = open_socket(AF_RXRPC, socket.SOCK_DGRAM, socket.AF_INET)
    sock.settimeout(30)
    return sock


def port_of(sock: Any) -> int:
    """The server's address. It was bound to a port that was free, because getsockname() is not
    supported."""
    libc = ctypes.CDLL(None, use_errno=True)
    name, size = ctypes.create_string_buffer(64), ctypes.c_uint(64)
    assert libc.getsockname(sock.fileno(), name, ctypes.byref(size)) == 0
    return int.from_bytes(name.raw[10:12], "big")


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((LOCALHOST, 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture
def server() -> Iterator[tuple[cmsgx.socket, bytes]]:
    """A socket that accepts calls, the first one as call 7; and its address."""
    with rxrpc() as sock:
        address = sockaddr_rxrpc(LOCALHOST, free_port())
        bind(sock, address)
        sock.listen(10)
        cmsgx.send(sock, b"", control=[kinds.RxrpcCallId(7), kinds.RxrpcChargeAccept()])
        yield sock, address


@pytest.fixture
def client(server: tuple[cmsgx.socket, bytes]) -> Iterator[cmsgx.socket]:
    with rxrpc() as sock:
        connect(sock, server[1])
        yield sock


def receive(sock: Any) -> cmsgx.Message:
    """The next message with data, with more than one control message, or at the end of a call."""
    while True:
        msg = cmsgx.receive(sock, 1000)
        if msg.data or len(msg.control) > 1 or msg.flags & MSG_EOR:
            return msg


def test_a_call_and_its_answer(server: tuple[cmsgx.socket, bytes], client: cmsgx.socket) -> None:
    taker, _ = server
    call = [kinds.RxrpcCallId(1), kinds.RxrpcTxLength(7)]
    cmsgx.send(client, b"request", control=call)
    msg = receive(taker)
    assert (msg.data, msg[kinds.RxrpcCallId].call) == (b"request", 7)
    cmsgx.send(taker, b"answer", control=kinds.RxrpcCallId(7))
    msg = receive(client)
    assert (msg.data, msg[kinds.RxrpcCallId].call) == (b"answer", 1)
    msg = receive(taker)
    assert msg[kinds.RxrpcCallId].call == 7
    assert kinds.RxrpcAck in msg
    negative = struct.pack("=q", -1)
    with pytest.raises(ValueError, match=r"RxrpcTxLength.*is not sent"):
        cmsgx.send(client, b"x", control=kinds.RxrpcTxLength.unpack(negative))
    raw = (kinds.RxrpcTxLength.level, kinds.RxrpcTxLength.type, negative)
    with fails(errno.EINVAL):
        cmsgx.send(client, b"x", control=[kinds.RxrpcCallId(2), raw])


def test_a_call_that_is_aborted(server: tuple[cmsgx.socket, bytes], client: cmsgx.socket) -> None:
    taker, _ = server
    cmsgx.send(client, b"begin", control=kinds.RxrpcCallId(1))
    assert receive(taker).data == b"begin"
    cmsgx.send(client, b"", control=[kinds.RxrpcCallId(1), kinds.RxrpcAbort(4321)])
    msg = receive(taker)
    assert (msg[kinds.RxrpcCallId].call, msg[kinds.RxrpcAbort].code) == (7, 4321)
    msg = receive(client)
    assert (msg[kinds.RxrpcCallId].call, msg[kinds.RxrpcAbort].code) == (1, 4321)


@pytest.mark.parametrize(
    "more",
    [
        kinds.RxrpcExclusiveCall(),
        kinds.RxrpcUpgradeService(),
        kinds.RxrpcCallTimeouts(hard=20),
        kinds.RxrpcCallTimeouts(60, 60_000),
        kinds.RxrpcCallTimeouts(60, 60_000, 60_000),
    ],
    ids=repr,
)
def test_how_a_call_is_made(
    server: tuple[cmsgx.socket, bytes], client: cmsgx.socket, more: Any
) -> None:
    cmsgx.send(client, b"x", control=[kinds.RxrpcCallId(1), more])
    msg = receive(server[0])
    if msg.data != b"x":
        # Linux 7.2 seems to take the third for nanoseconds: RX_CALL_TIMEOUT, at once.
        assert more.normal is not None
        assert msg[kinds.RxrpcAbort].code == 2**32 - 3


def test_timeouts_that_are_too_long(client: cmsgx.socket) -> None:
    for more in (kinds.RxrpcCallTimeouts(2**31), kinds.RxrpcCallTimeouts(1, 3600_001)):
        with fails(errno.ERANGE):
            cmsgx.send(client, b"x", control=[kinds.RxrpcCallId(1), more])


def test_nobody_is_there() -> None:
    with rxrpc() as client:
        connect(client, sockaddr_rxrpc(LOCALHOST, free_port()))
        cmsgx.send(client, b"x", control=kinds.RxrpcCallId(1))
        msg = receive(client)
        assert msg[kinds.RxrpcCallId].call == 1
        assert msg[kinds.RxrpcNetworkError].errno == errno.ECONNREFUSED


def test_there_is_no_route() -> None:
    with Namespace() as space, space.run(rxrpc) as client:
        connect(client, sockaddr_rxrpc("192.0.2.1", 9))
        with may_fail(errno.ENETUNREACH):
            cmsgx.send(client, b"x", control=kinds.RxrpcCallId(1))
        msg = receive(client)
        assert msg[kinds.RxrpcCallId].call == 1
        assert msg[kinds.RxrpcLocalError].errno == errno.ENETUNREACH


# Challenges -------------------------------------------------------------------------------------

# add_key(2)
SYS_ADD_KEY = {"x86_64": 248, "i686": 286, "s390x": 278, "armv7l": 309, "aarch64": 217}
KEY_SPEC_PROCESS_KEYRING = -2


def add_rxgk_key(name: str) -> None:
    """A key for RxGK in the form of YFS, with a ticket that nobody needs to understand."""
    aes128_cts_hmac_sha1_96 = 17
    token = struct.pack("!I", 6) + struct.pack("!QQQQQQ", 0, 0, 1, 0, 0, aes128_cts_hmac_sha1_96)
    token += struct.pack("!I", 16) + bytes(range(16)) + struct.pack("!I", 8) + b"a ticket"
    cell = b"cell"
    payload = struct.pack("!II", 0, len(cell)) + cell + struct.pack("!II", 1, len(token)) + token
    libc = ctypes.CDLL(None, use_errno=True)
    number = SYS_ADD_KEY[platform.machine()]
    with attempt(f"add_key(rxrpc, {name}), security index 6"):
        if (
            libc.syscall(
                number, b"rxrpc", name.encode(), payload, len(payload), KEY_SPEC_PROCESS_KEYRING
            )
            < 0
        ):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))


def test_a_server_that_wants_to_know_who_calls() -> None:
    """The server is a program that implements as much of the protocol as a challenge needs."""
    rxrpc_security_key, yfs_rxgk = 1, 6
    with rxrpc() as client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((LOCALHOST, 0))
        server.settimeout(30)
        name = f"cmsgx-{os.getpid()}"
        add_rxgk_key(name)
        set_option(client, SOL_RXRPC, rxrpc_security_key, name.encode(), "RXRPC_SECURITY_KEY")
        try:
            cmsgx.enable(client, kinds.RxrpcChallenged)
        except cmsgx.NotSupportedError as error:
            pytest.skip(f"[Errno {error.errno}] {error}")
        connect(client, sockaddr_rxrpc(*server.getsockname()))
        with attempt("a call with RxGK", errno.EKEYREJECTED):
            cmsgx.send(client, b"x", control=kinds.RxrpcCallId(1))
        packet, peer = server.recvfrom(2000)
        header = list(WIRE.unpack_from(packet))
        assert (header[5], header[8]) == (DATA, yfs_rxgk)
        # It belongs to the connection, not to a call: channel, call and sequence are 0.
        header[1:7] = header[1] & ~3, 0, 0, 1, CHALLENGE, 0
        server.sendto(WIRE.pack(*header) + bytes(20), peer)
        assert select.select([client], [], [], 30)[0]
        msg = cmsgx.receive(client, 100)
        challenged = msg[kinds.RxrpcChallenged]
        assert (challenged.service, challenged.security, challenged.enctype) == (
            SERVICE,
            yfs_rxgk,
            0,
        )
        answer = [msg[kinds.RxrpcOobId], kinds.RxrpcRespond(), kinds.RxrpcAppData(b"data")]
        with attempt("RXRPC_RESPOND, with MSG_OOB", errno.EOPNOTSUPP):
            cmsgx.send(client, b"", flags=MSG_OOB, control=answer)
