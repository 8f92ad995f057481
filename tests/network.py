"""Networks that a test makes for itself, and packets of any form. Linux.

The calling thread is in the namespace for as long as the `with` lasts. Whatever it opens there
stays there, and the kernel removes all of it with the last descriptor. If the kernel or the user
may not do that, the test is skipped, and the reason contains the errno of the attempt.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import IO, Any, NamedTuple, TypeAlias

import families
from attempts import attempt, call
from namespaces import Namespace, ip
from support import eventually

import cmsgx

V4, V6 = socket.AF_INET, socket.AF_INET6
DGRAM, STREAM, RAW = socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_RAW
SOL_IP, SOL_IPV6, SOL_SOCKET = 0, 41, 1
LOOPBACK = {V4: "127.0.0.1", V6: "::1"}
SECONDS = 10.0
"""The time that a packet may take within this machine."""

Sockets: TypeAlias = "tuple[cmsgx.socket, cmsgx.socket]"


# Sockets ----------------------------------------------------------------------------------------


def open_socket(family: int, kind: int = DGRAM, protocol: int = 0) -> cmsgx.socket:
    """A socket with a timeout; skips if this kernel or this user may not create it."""
    sock = families.open_socket(family, kind, protocol)
    sock.settimeout(SECONDS)
    return sock


def bind(sock: socket.socket, host: str, port: int = 0) -> None:
    with attempt(f"bind to {host}", errno.EADDRNOTAVAIL):
        sock.bind((host, port))


class Path(NamedTuple):
    """Sends over loopback from a socket of one family to one of another."""

    name: str
    sender: int
    receiver: int
    to: str
    """The address as the sender has to write it."""

    @property
    def is_ipv4(self) -> bool:
        """Whether the packets on the wire are IPv4."""
        return self.to != "::1"


PATHS = {
    path.name: path
    for path in (
        Path("IPv4", V4, V4, "127.0.0.1"),
        Path("IPv6", V6, V6, "::1"),
        Path("from mapped", V6, V4, "::ffff:127.0.0.1"),
        Path("to mapped", V4, V6, "127.0.0.1"),
        Path("mapped", V6, V6, "::ffff:127.0.0.1"),
    )
}


@contextmanager
def udp(path: Path | str, *, connected: bool = True) -> Iterator[Sockets]:
    """A sender and a receiver on loopback, the sender connected to the receiver."""
    if isinstance(path, str):
        path = PATHS[path]
    with open_socket(path.sender) as sender, open_socket(path.receiver) as receiver:
        if path.receiver == V6:
            receiver.setsockopt(SOL_IPV6, socket.IPV6_V6ONLY, int(not path.is_ipv4))
        any_host = "::" if path.receiver == V6 else "0.0.0.0"
        bind(receiver, any_host if path.sender != path.receiver or path.is_ipv4 else "::1")
        if connected:
            with attempt(f"connect to {path.to}", errno.EADDRNOTAVAIL, errno.ENETUNREACH):
                sender.connect((path.to, receiver.getsockname()[1]))
        yield sender, receiver


@contextmanager
def tcp(family: int = V4, protocol: int = 0) -> Iterator[Sockets]:
    """A client and the accepted socket, over loopback."""
    with open_socket(family, STREAM, protocol) as listener:
        bind(listener, LOOPBACK[socket.AddressFamily(family)])
        listener.listen(1)
        with open_socket(family, STREAM, protocol) as client:
            client.connect(listener.getsockname())
            accepted = listener.accept()[0]
            accepted.settimeout(SECONDS)
            with accepted:
                yield client, accepted


def answered_from(
    server: cmsgx.socket, client: cmsgx.socket, to: tuple[Any, ...], *want: Any,
    host: tuple[Any, ...] = ("",), is_early: bool = False,
) -> str:  # fmt: skip
    """The source address, as the client sees it, of an answer that a server sends with reply().

    `to`, and `host`, which the server is bound to, have no port. The kinds of `want` are enabled
    before the bind, or, with `early`, only after the question has arrived. The first kind that came
    is used for the answer.
    """
    if not is_early:
        cmsgx.enable(server, *want)
    server.bind((host[0], 0, *host[1:]))
    client.sendto(b"?", (to[0], server.getsockname()[1], *to[1:]))
    assert select.select([server], [], [], SECONDS)[0]
    msg = cmsgx.Receiver(server, 10, want=want).receive()
    info = next(msg[kind] for kind in want if kind in msg)
    cmsgx.send(server, b"!", control=info.reply(), address=msg.address)
    data, address = client.recvfrom(10)
    assert data == b"!"
    found: str = address[0]
    return found


def get_bytes(sock: socket.socket, level: int, name: int, size: int = 64) -> bytes | int:
    """An option's value, or the errno of the attempt."""
    try:
        return sock.getsockopt(level, name, size)
    except OSError as error:
        return -(error.errno or 0)


# Namespaces -------------------------------------------------------------------------------------


@contextmanager
def alone() -> Iterator[None]:
    """Enters a network that has only loopback."""
    with Namespace() as namespace, namespace.entered():
        yield


class Cable(NamedTuple):
    """Two networks and a cable between them: addresses end in 1 here and in 2 there."""

    here: Namespace
    there: Namespace


CABLE = {V4: ("192.0.2.1", "192.0.2.2"), V6: ("2001:db8::1", "2001:db8::2")}


@contextmanager
def cable() -> Iterator[Cable]:
    """A veth pair: `here` is entered, and has the interface veth1; `there` has veth2."""
    with Namespace() as here, Namespace() as there, here.entered():
        here.ip(f"link add veth1 type veth peer name veth2 netns {there.path}")
        ends = (("veth1", here, 0), ("veth2", there, 1))
        for name, namespace, _ in ends:
            with namespace.entered():
                set_link(name, is_up=True)
        for name, namespace, index in ends:
            with namespace.entered():
                # Until then it drops every packet. The addresses are set after that: setting them
                # waits for the lock under which the interface is started.
                assert eventually(partial(is_running, name))
                add_address(name, CABLE[V4][index], 24)
                add_address(name, CABLE[V6][index], 64)
        yield Cable(here, there)


def set_link(name: str, *, is_up: bool | None = None, mtu: int | None = None) -> None:
    """An ioctl(2) for an interface in the namespace of the calling thread: netdevice(7)."""
    with socket.socket(V4, DGRAM) as control:
        device = name.encode()
        if mtu is not None:
            fcntl.ioctl(control, 0x8922, struct.pack("=16si20x", device, mtu))  # SIOCSIFMTU
        if is_up is not None:
            # SIOCSIFFLAGS: IFF_UP
            fcntl.ioctl(control, 0x8914, struct.pack("=16sh22x", device, int(is_up)))


def add_address(name: str, host: str, length: int) -> None:
    """An address of an interface, and the length of its prefix."""
    ip("address", "add", f"{host}/{length}", "dev", name, *(["nodad"] if ":" in host else []))
    # The kernel starts to use it a little later.
    is_of_link = host.startswith("fe80:")
    address = (host, 0, 0, socket.if_nametoindex(name)) if is_of_link else (host, 0)
    assert eventually(partial(_is_usable, address))


def _is_usable(address: tuple[Any, ...]) -> bool:
    """Whether the address can be reached from itself: it exists before the route to it."""
    with socket.socket(V6 if ":" in address[0] else V4, DGRAM) as sock:
        sock.setblocking(False)
        try:
            sock.bind(address)
            sock.sendto(b"x", sock.getsockname())
            return sock.recv(1) == b"x"
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAGAIN):
                raise
            return False


def is_running(name: str) -> bool:
    """Whether an interface is up, and its other end too."""
    with socket.socket(V4, DGRAM) as control:
        request = struct.pack("=16s24x", name.encode())
        reply = fcntl.ioctl(control, 0x8913, request)  # SIOCGIFFLAGS
        flags: int = struct.unpack_from("=H", reply, 16)[0]
    return bool(flags & 0x40)  # IFF_RUNNING


@contextmanager
def tun(name: str = "tun0") -> Iterator[IO[bytes]]:
    """An interface whose other end is the file: each write to the file arrives as a packet.

    In the namespace of the calling thread; it has the addresses 192.0.2.1 and 2001:db8::1.
    """
    with ExitStack() as stack:
        with attempt("/dev/net/tun", errno.ENOENT, errno.EPERM, errno.EACCES, errno.ENODEV):
            file = stack.enter_context(open("/dev/net/tun", "r+b", buffering=0))
            # TUNSETIFF: IFF_TUN | IFF_NO_PI
            fcntl.ioctl(file, 0x400454CA, struct.pack("=16sh22x", name.encode(), 0x1001))
        set_link(name, is_up=True)
        add_address(name, CABLE[V4][0], 24)
        add_address(name, CABLE[V6][0], 64)
        yield file


# Packets ----------------------------------------------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum: RFC 1071."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def udp_datagram(source: str, destination: str, port: int, data: bytes, *, sport: int = 9) -> bytes:
    """RFC 768, with its checksum."""
    family = V6 if ":" in source else V4
    size = 8 + len(data)
    addresses = socket.inet_pton(family, source) + socket.inet_pton(family, destination)
    pseudo = addresses + struct.pack("!II" if family == V6 else "!HH", size, 17)
    header = struct.pack("!HHH", sport, port, size)
    total = checksum(pseudo + header + bytes(2) + data)
    return header + struct.pack("!H", total or 0xFFFF) + data


def ipv4(
    source: str, destination: str, payload: bytes, *, protocol: int = 17, ttl: int = 64,
    tos: int = 0, options: bytes = b"",
) -> bytes:  # fmt: skip
    """RFC 791, with its checksum; `options` is a multiple of 4 bytes."""
    size = 20 + len(options)
    head = struct.pack("!BBHHHBB", 0x40 | size // 4, tos, size + len(payload), 1, 0, ttl, protocol)
    rest = socket.inet_pton(V4, source) + socket.inet_pton(V4, destination) + options
    return head + struct.pack("!H", checksum(head + bytes(2) + rest)) + rest + payload


def ipv6(
    source: str, destination: str, payload: bytes, *, next_header: int = 17, hops: int = 64,
    traffic_class: int = 0, label: int = 0,
) -> bytes:  # fmt: skip
    """RFC 8200."""
    first = 6 << 28 | traffic_class << 20 | label
    return (
        struct.pack("!IHBB", first, len(payload), next_header, hops)
        + socket.inet_pton(V6, source)
        + socket.inet_pton(V6, destination)
        + payload
    )


def chain(headers: list[tuple[int, bytes]], last: int, payload: bytes) -> tuple[int, bytes]:
    """IPv6 extension headers before a payload: (next_header, all of it).

    Each header is given as its number and its bytes from the second on: RFC 8200 section 4.
    """
    numbers = [number for number, _ in headers] + [last]
    return numbers[0], b"".join(
        bytes([numbers[i + 1]]) + rest for i, (_, rest) in enumerate(headers)
    ) + payload


def options_header(*options: bytes) -> bytes:
    """Hop-by-hop or destination options to send, padded; the kernel fills in the next header."""
    body = b"".join(options)
    rest = -(len(body) + 2) % 8
    if rest == 1:
        body += b"\0"
    elif rest:
        body += bytes([1, rest - 2]) + bytes(rest - 2)
    return bytes([0, (len(body) + 2) // 8 - 1]) + body


@contextmanager
def filter_program(code: bytes) -> Iterator[bytes]:
    """A struct sock_fprog for SO_ATTACH_FILTER: socket(7)."""
    held = ctypes.create_string_buffer(code, len(code))
    yield struct.pack("@HP", len(code) // 8, ctypes.addressof(held))


# Capabilities -----------------------------------------------------------------------------------


@contextmanager
def without_capabilities() -> Iterator[None]:
    """The calling thread has no effective capabilities meanwhile: capset(2)."""
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    before = ctypes.create_string_buffer(24)
    call("capget", header, before)
    effective = struct.unpack("=6I", before.raw)
    call("capset", header, struct.pack("=6I", 0, *effective[1:3], 0, *effective[4:]))
    try:
        yield
    finally:
        call("capset", header, before.raw)
