"""The drop-in functions: addresses."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import abstract_name

import cmsgx


def unix_names(folder: Path) -> Iterator[tuple[str, Any, Any]]:
    path = str(folder / "socket")
    yield "path", path, path
    yield "bytes", os.fsencode(path), path
    yield "bytearray", bytearray(os.fsencode(path)), path
    yield "memoryview", memoryview(os.fsencode(path)), path
    abstract = abstract_name("drop-in")
    yield "abstract", abstract, abstract
    yield "abstract str", abstract.decode(), abstract
    yield "abstract with a NUL", b"\0cmsgx\0test", b"\0cmsgx\0test"
    yield "longest", b"\0" + b"x" * 107, b"\0" + b"x" * 107


def test_unix_addresses(tmp_path: Path) -> None:
    for what, name, expected in unix_names(tmp_path):
        (tmp_path / "socket").unlink(missing_ok=True)
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client,
        ):
            server.bind(bytes(name) if isinstance(name, bytearray | memoryview) else name)
            for sock in (client, client.fileno()):
                cmsgx.sendmsg(sock, [b"x"], [], 0, name)
                assert not cmsgx.recvmsg(server, 1)[3], what
            client.bind(abstract_name("drop-in-client"))
            cmsgx.sendmsg(client, [b"x"], [], 0, name)
            for receive in (cmsgx.recvmsg, lambda s, n: cmsgx.recv_fds(s, n, 0)):
                cmsgx.send_fds(client, [b"y"], [], 0, name)
                address = receive(server, 1)[3]
                assert address == abstract_name("drop-in-client")
            assert server.getsockname() == expected


@pytest.mark.parametrize("what", ["unnamed stream", "unnamed dgram"])
def test_unnamed_addresses_are_what_socket_gives(what: str) -> None:
    kind = socket.SOCK_STREAM if what == "unnamed stream" else socket.SOCK_DGRAM
    for pair in (socket.socketpair(socket.AF_UNIX, kind),):
        with pair[0], pair[1]:
            for _ in range(2):
                pair[0].send(b"x")
            assert cmsgx.recvmsg(pair[1], 1)[3] == pair[1].recvmsg(1)[3]


@pytest.mark.parametrize(
    ("family", "host", "more"),
    [
        (socket.AF_INET, "127.0.0.1", ()),
        (socket.AF_INET, "localhost", ()),
        (socket.AF_INET, "", ()),
        (socket.AF_INET, "<broadcast>", ()),
        (socket.AF_INET6, "::1", ()),
        (socket.AF_INET6, "::1", (0,)),
        (socket.AF_INET6, "::1", (0, 0)),
    ],
)
def test_inet_addresses(family: int, host: str, more: tuple[int, ...]) -> None:
    with (
        socket.socket(family, socket.SOCK_DGRAM) as server,
        socket.socket(family, socket.SOCK_DGRAM) as client,
    ):
        loopback = "127.0.0.1" if family == socket.AF_INET else "::1"
        server.bind((loopback, 0))
        client.bind((loopback, 0))
        address = (host, server.getsockname()[1], *more)
        if host == "<broadcast>":
            with pytest.raises(PermissionError):
                cmsgx.sendmsg(client, [b"x"], [], 0, address)
            return
        assert cmsgx.sendmsg(client, [b"x"], [], 0, address) == 1
        assert cmsgx.recvmsg(server, 1)[3] == client.getsockname()
        assert cmsgx.send_fds(client, [b"x"], [], 0, address) == 1
        assert cmsgx.recv_fds(server, 1, 0)[3] == client.getsockname()
        if host == "localhost":
            with pytest.raises(ValueError, match="localhost"):
                cmsgx.sendmsg(client.fileno(), [b"x"], [], 0, address)
            with pytest.raises(ValueError, match="localhost"):
                cmsgx.send_fds(client.fileno(), [b"x"], [], 0, address)


WRONG_ADDRESSES: list[tuple[int, Any]] = [
    (socket.AF_INET, "127.0.0.1"),
    (socket.AF_INET, ("127.0.0.1",)),
    (socket.AF_INET, ("127.0.0.1", "80")),
    (socket.AF_INET, ("127.0.0.1", -1)),
    (socket.AF_INET, ("127.0.0.1", 65536)),
    (socket.AF_INET, ("127.0.0.1", 80, 0)),
    (socket.AF_INET, (127, 80)),
    (socket.AF_INET, 3),
    (socket.AF_INET6, ("::1", 80, 2**20)),
    (socket.AF_INET6, ("::1", 80, -1)),
    (socket.AF_INET6, ("::1", 80, 0, 0, 0)),
    (socket.AF_UNIX, 3),
    (socket.AF_UNIX, ("x",)),
    (socket.AF_UNIX, "x" * 200),
    (socket.AF_UNIX, b"\0" + b"x" * 200),
    (socket.AF_UNIX, "em\0bedded"),
    (socket.AF_UNIX, b"em\0bedded"),
]


@pytest.mark.parametrize(("family", "address"), WRONG_ADDRESSES, ids=repr)
def test_a_wrong_address_is_what_socket_makes_of_it(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        with pytest.raises(Exception) as expected:  # noqa: PT011
            sock.sendmsg([b"x"], [], 0, address)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            cmsgx.sendmsg(sock, [b"x"], [], 0, address)
        assert type(caught.value) is type(expected.value)
        assert getattr(caught.value, "errno", None) == getattr(expected.value, "errno", None)


@pytest.mark.parametrize(
    ("family", "address"),
    [item for item in WRONG_ADDRESSES if "em" not in repr(item)],
    ids=repr,
)
@pytest.mark.parametrize(
    "send",
    [
        lambda sock, address: cmsgx.sendmsg(sock.fileno(), [b"x"], [], 0, address),
        lambda sock, address: cmsgx.send_fds(sock.fileno(), [b"x"], [], 0, address),
        lambda sock, address: cmsgx.send(sock.fileno(), b"x", address=address),
        lambda sock, address: cmsgx.send(sock, b"x", address=address, timeout=1),
        lambda sock, address: cmsgx.send(sock, b"x", address=address, fds=[0]),
    ],
)
def test_a_wrong_address_is_not_a_host_name_without_a_socket(
    family: int, address: Any, send: Callable[[Any, Any], Any]
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        with pytest.raises(Exception) as expected:  # noqa: PT011
            sock.sendmsg([b"x"], [], 0, address)
        with pytest.raises(Exception, match="address") as caught:
            send(sock, address)
        assert type(caught.value) is type(expected.value)
        assert getattr(caught.value, "errno", None) == getattr(expected.value, "errno", None)
        assert "host name" not in str(caught.value)


@pytest.mark.parametrize("scope", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
def test_what_is_wrong_without_a_socket_is_only_the_host_name(scope: int) -> None:
    address = ("name.invalid", 9, 0, scope)
    with (
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock,
        pytest.raises(ValueError, match="host name to resolve"),
    ):
        cmsgx.sendmsg(sock.fileno(), [b"x"], [], 0, address)


def test_a_family_that_c_leaves_to_the_sockets_own_method_and_converts_for_a_number() -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as sock:
        sock.bind((0, 0))
        noop = struct.pack("=IHHII", 16, 1, 5, 1, 0)  # NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK
        assert cmsgx.sendmsg(sock, [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recvmsg(sock, 1000)[3] == (0, 0)
        assert cmsgx.sendmsg(sock, [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recvmsg(sock.fileno(), 1000)[3] == (0, 0)
        assert cmsgx.sendmsg(sock, [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recv_fds(sock, 1000, 0)[3] == (0, 0)
        for what in (sock, sock.fileno()):
            with pytest.raises(OSError, match="Invalid argument"):
                socket.send_fds(sock, [noop], [])
            with pytest.raises(OSError, match="Invalid argument"):
                cmsgx.send_fds(what, [noop], [], 0, (0, 0))
        assert cmsgx.sendmsg(sock.fileno(), [noop], [], 0, (0, 0)) == len(noop)
        assert cmsgx.recvmsg(sock.fileno(), 1000)[3] == (0, 0)
