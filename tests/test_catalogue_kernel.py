"""The rows of the catalogue on the kernel of this machine: does it have the sockets and the
options?

What it lacks was found by trying: the reason of the skip has the call and its errno.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NoReturn

import pytest
from catalogue import Entry, family_number, find, of_linux, options_of, payloads_of

import cmsgx
from cmsgx import _cmsg, kinds
from cmsgx.kinds import _table

# The arguments of socket() for the names in the catalogue; the first one if it does not say.
_IP = {
    "udp": (socket.SOCK_DGRAM, 0),
    "tcp": (socket.SOCK_STREAM, 0),
    "mptcp": (socket.SOCK_STREAM, 262),
    "raw": (socket.SOCK_RAW, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_SEQPACKET, 132),
    "dccp": (6, 33),
}
SOCKETS: dict[str, dict[str, tuple[int, int]]] = {
    "AF_UNIX": {"dgram": (socket.SOCK_DGRAM, 0), "stream": (socket.SOCK_STREAM, 0)},
    "AF_INET": _IP,
    "AF_INET6": _IP,
    "AF_PACKET": {"": (socket.SOCK_RAW, 0)},
    "AF_NETLINK": {"": (socket.SOCK_RAW, 0)},
    "AF_CAN": {"raw": (socket.SOCK_RAW, 1), "j1939": (socket.SOCK_DGRAM, 7)},
    "AF_BLUETOOTH": {
        "L2CAP": (socket.SOCK_SEQPACKET, 0),
        "HCI": (socket.SOCK_RAW, 1),
        "SCO": (socket.SOCK_SEQPACKET, 2),
        "ISO": (socket.SOCK_SEQPACKET, 8),
    },
    "AF_NFC": {"": (socket.SOCK_DGRAM, 1)},
    "AF_KEY": {"": (socket.SOCK_RAW, 2)},
    "AF_MCTP": {"": (socket.SOCK_DGRAM, 0)},
    "AF_IEEE802154": {"": (socket.SOCK_DGRAM, 0)},
    "AF_ATMPVC": {"": (socket.SOCK_DGRAM, 5)},
    "AF_ATMSVC": {"": (socket.SOCK_DGRAM, 5)},
    "AF_RXRPC": {"": (socket.SOCK_DGRAM, socket.AF_INET)},
    "AF_RDS": {"": (socket.SOCK_SEQPACKET, 0)},
    "AF_ALG": {"": (socket.SOCK_SEQPACKET, 0)},
    "AF_IUCV": {"": (socket.SOCK_STREAM, 0)},
    "AF_LLC": {"": (socket.SOCK_DGRAM, 0)},
    "AF_TIPC": {"": (socket.SOCK_RDM, 0)},
    "AF_ISDN": {"": (socket.SOCK_RAW, 0)},
    "AF_VSOCK": {"": (socket.SOCK_STREAM, 0)},
}


def refused(call: str, error: OSError, source: str) -> NoReturn:
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    source = source.replace("stated: ", "what tests/c/messages has from ")
    pytest.skip(f"{call}: {name}; the layout is checked against {source}")


def open_socket(entry: Entry, family: str, source: str) -> socket.socket:
    """A socket that has the row; skips if the kernel has none."""
    shapes = SOCKETS[family]
    word = next((word for word in entry.sockets[family] if word in shapes), next(iter(shapes)))
    kind, protocol = shapes[word]
    try:
        return socket.socket(family_number(family), kind, protocol)
    except OSError as error:
        name = kind.name if isinstance(kind, socket.SocketKind) else kind
        refused(f"socket({family}, {name}, {protocol})", error, source)


def is_on(sock: socket.socket, option: kinds.Option) -> bool:
    try:
        return any(sock.getsockopt(option.level, option.name, option.size))
    except OSError as error:
        # These can be set, but not read: SO_INQ; or are read with another size: MISDN_TIME_STAMP.
        return error.errno in (errno.ENOPROTOOPT, errno.EINVAL)


# Sending needs no option, and every kernel has these sockets: other files send over them.
EVERYWHERE = ("AF_UNIX", "AF_INET", "AF_INET6")
EACH_SOCKET = [
    (entry, family)
    for entry in of_linux()
    for family, words in entry.sockets.items()
    if entry.direction == "recv" or family not in EVERYWHERE or words in (("sctp",), ("dccp",))
]


@pytest.mark.parametrize(
    ("entry", "family"), EACH_SOCKET, ids=[f"{entry} {family}" for entry, family in EACH_SOCKET]
)
def test_the_kernel(entry: Entry, family: str) -> None:
    """A socket of the family accepts the option in the catalogue, and enable() switches it on."""
    kind = find(entry, family)
    [source, *_] = [one.source for one in payloads_of(entry, family)]
    on = {(option.level, option.name): option for option in _table.row_of(kind).options}
    with open_socket(entry, family, source) as sock:
        assert find(entry, family) is kind
        for named in options_of(entry):
            number = (getattr(_cmsg, named.level), getattr(_cmsg, named.name))
            value = on[number].on if number in on else struct.pack("=i", 1)
            try:
                sock.setsockopt(*number, value)
            except OSError as error:
                refused(f"{family}: setsockopt({named.level}, {named.name})", error, source)
    if entry.direction == "send":
        return
    with open_socket(entry, family, source) as sock:
        try:
            enabled = cmsgx.enable(sock, kind)
        except cmsgx.NotSupportedError as error:
            if options_of(entry):
                pytest.fail(f"{entry}: the kernel takes it, enable() does not: {error}")
            refused(f"{family}: enable({kind.__name__})", error, source)
        with enabled:
            for named in options_of(entry):
                number = (getattr(_cmsg, named.level), getattr(_cmsg, named.name))
                if number in on and not on[number].is_watched_only:
                    assert is_on(sock, on[number]), named


def test_the_kernel_has_tls() -> None:
    """The rows of SOL_TLS need no numbered option, only a connection with TLS."""
    entry = next(entry for entry in of_linux("recv") if entry.level_name == "SOL_TLS")
    [source, *_] = [one.source for one in payloads_of(entry, "AF_INET")]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        receiver = listener.accept()[0]
    with sender, receiver:
        try:
            receiver.setsockopt(socket.IPPROTO_TCP, _cmsg.TCP_ULP, b"tls")
        except OSError as error:
            refused('setsockopt(SOL_TCP, TCP_ULP, "tls")', error, source)
        assert receiver.getsockopt(socket.IPPROTO_TCP, _cmsg.TCP_ULP, 4) == b"tls\0"
