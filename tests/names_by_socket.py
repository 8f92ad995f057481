"""Compares how socket and cmsgx read and make addresses, in a process with tests/c/any_name.c
preloaded.

    python names_by_socket.py SEED COUNT

Prints the differences, and then how many addresses were compared for each family.
"""

from __future__ import annotations

import collections
import ctypes
import os
import random
import socket
import struct
import sys
import warnings
from collections.abc import Callable
from typing import Any

import cmsgx

# From Python 3.15 on both warn about a number that is masked.
warnings.filterwarnings("ignore", "integer value out of range", DeprecationWarning)

library = ctypes.PyDLL(None)
library.any_name_set.argtypes = [ctypes.c_char_p, ctypes.c_long]
library.any_name_get.restype = ctypes.c_long
library.any_name_family.argtypes = [ctypes.c_int, ctypes.c_int]
chance = random.Random(int(sys.argv[1]))
counts: collections.Counter[str] = collections.Counter()

FAMILIES = {"AF_QIPCRTR": 42} | {
    name: int(value) for name, value in vars(socket).items() if name.startswith("AF_")
}


def number(bits: int) -> int:
    value: int = chance.choice([0, 1, (1 << bits) - 1, 1 << (bits - 1), chance.getrandbits(bits)])
    return value


def packed(form: str, *values: int | bytes) -> bytes:
    return struct.pack(f"={form}", *values)


# Every layout of an address in memory: name of the family, protocol, bytes after sa_family.
def of_inet() -> bytes:
    return packed("H4s8x", number(16), chance.randbytes(4))


def of_inet6() -> bytes:
    return packed("HI16sI", number(16), number(32), chance.randbytes(16), number(32))


def of_packet() -> bytes:
    size = chance.choice([0, 6, 6, 6, 8])  # after more than 8, socket shows its own memory
    index = chance.choice([0, 1, 1, number(31)])
    return packed("HiHBB", number(16), index, number(16), number(8), size) + chance.randbytes(8)


def of_can() -> bytes:
    return packed("xxi", chance.choice([0, 1, number(31)])) + chance.randbytes(16)


def of_tipc() -> bytes:
    return packed("BbIII", chance.choice([1, 2, 3]), chance.randint(-128, 127), number(32),
                  number(32), number(32))  # fmt: skip


def of_alg() -> bytes:
    texts = [chance.choice([b"", b"hash", b"skcipher", b"x" * 63]) for _ in range(2)]
    return packed("14sII64s", texts[0], number(32), number(32), texts[1])


def of_hci() -> bytes:
    return packed("HH", number(16), chance.choice([0, 0, number(16)]))


def of_l2cap() -> bytes:
    return packed("H6sHBx", number(16), chance.randbytes(6), chance.choice([0, 0, number(16)]),
                  chance.choice([0, 0, 1, 2]))  # fmt: skip


NAMES: dict[tuple[str, int], Callable[[], bytes]] = {
    ("AF_INET", 0): of_inet,
    ("AF_INET6", 0): of_inet6,
    ("AF_NETLINK", 0): lambda: packed("xxII", number(32), number(32)),
    ("AF_PACKET", 0): of_packet,
    ("AF_VSOCK", 0): lambda: packed("xxII4x", number(32), number(32)),
    ("AF_QIPCRTR", 0): lambda: packed("xxII", number(32), number(32)),
    ("AF_TIPC", 0): of_tipc,
    ("AF_ALG", 0): of_alg,
    ("AF_CAN", 1): of_can,
    ("AF_CAN", 2): of_can,
    ("AF_CAN", 6): of_can,
    ("AF_CAN", 7): of_can,
    ("AF_BLUETOOTH", 0): of_l2cap,
    ("AF_BLUETOOTH", 1): of_hci,
    ("AF_BLUETOOTH", 2): lambda: packed("6s", chance.randbytes(6)),
    ("AF_BLUETOOTH", 3): lambda: packed("6sBx", chance.randbytes(6), number(8)),
}
# This family has no addresses of its own; received ones are AF_INET.
RDS = ("AF_RDS", 0)


HOSTS = ["", "<broadcast>", "255.255.255.255", "127.1", "0x7f.1", "017.0.0.1", "127.0.0.1", "::1"]
HOSTS += ["fe80::1%lo", "fe80::1%1", "::ffff:1.2.3.4", "::", "1.2.3.4", "１２７.0.0.1"]  # noqa: RUF001


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value})"


def odd(item: Any, *, is_host: bool = False) -> Any:
    """Something else, or something similar; never a host that could be looked up."""
    if is_host:
        host: str = chance.choice(HOSTS)
        return chance.choice([host, host.encode(), bytearray(host.encode()), host + "\0", None, 5])
    others: list[Any] = [None, 1.5, "", b"", "\0", "x" * 300, -1, 2**15, 2**16, 2**20, 2**31]
    others += [2**32 - 1, 2**32, 2**64, Index(7), Index(-1), True, bytearray(b"1"), [], "lo", "é"]
    if isinstance(item, int):
        others += [Index(item)] * 10
    if isinstance(item, str):
        others += [item.encode(), bytearray(item.encode()), item + "\0", item + "x"] * 2
    return chance.choice(others)


def spoiled(value: Any, *, has_host: bool) -> Any:
    """The same address, or one with something wrong or unusual in it."""
    how = chance.randrange(6)
    if not isinstance(value, tuple) or how == 0:
        return odd(value) if how < 3 else value
    if how == 1:
        return value[: chance.randrange(len(value) + 1)]
    if how == 2:
        return (*value, chance.choice([0, 1, b"", "x"]))
    if how == 3:
        return list(value)
    at = chance.randrange(len(value))
    return (*value[:at], odd(value[at], is_host=has_host and at == 0), *value[at + 1 :])


def outcome(call: Callable[[], Any]) -> tuple[Any, ...]:
    try:
        return ("value", call())
    except Exception as error:
        kind = type(error)
        return ("error", kind.__name__, kind.__mro__, getattr(error, "errno", None), str(error))


# Which bytes of each struct mean something. The others are padding, which older versions of socket
# do not initialise.
MEANT = {
    ("AF_NETLINK", 0): ((0, 2), (4, 12)),
    ("AF_BLUETOOTH", 0): ((0, 13),),
    ("AF_BLUETOOTH", 3): ((0, 9),),
    ("AF_QIPCRTR", 0): ((0, 2), (4, 12)),
    ("AF_CAN", 1): ((0, 2), (4, 8)),
    ("AF_CAN", 2): ((0, 2), (4, 8)),
    ("AF_CAN", 6): ((0, 2), (4, 16)),
    ("AF_CAN", 7): ((0, 2), (4, 21)),
}


def sent(key: tuple[str, int], call: Callable[[Any], Any], value: Any) -> tuple[Any, ...]:
    library.any_name_set(b"", 0)
    result = outcome(lambda: call(value))
    if result[0] == "error":
        return result
    room = ctypes.create_string_buffer(256)
    size = library.any_name_get(room)
    whole = room.raw[:size]
    parts = MEANT.get(key, ((0, size),))
    if key[0] == "AF_PACKET" and size > 11:
        parts = ((0, 12 + whole[11]),)
    return ("bytes", size, b"".join([whole[start:end] for start, end in parts]))


def agree(first: tuple[Any, ...], second: tuple[Any, ...], *, is_number: bool) -> bool:
    if first[0] != "error" or second[0] != "error":
        return first == second
    if first == second:
        return True
    if first[1] == "SystemError":
        return bool(second[1] == "TypeError")  # how it treats anything that is not a tuple
    if first[1] == "gaierror" and second[1] == "OverflowError":
        return True  # socket checks the numbers after it has resolved the host
    if first[1] == "gaierror" and is_number:
        return bool(second[1] == "ValueError")
    return bool(first[1:4] == second[1:4])


def show(*what: object) -> None:
    print("DIFFERS", *what, flush=True)


def compare(key: tuple[str, int], fd: int) -> None:
    family, proto = key
    number_of = FAMILIES[family]
    with socket.socket(number_of, socket.SOCK_DGRAM, proto, fileno=os.dup(fd)) as sock:
        library.any_name_family(number_of, proto)
        maker = NAMES.get(key, of_inet)
        held = socket.AF_INET if key == RDS else number_of
        name = struct.pack("=H", held) + maker()
        library.any_name_set(name, len(name))
        expected = outcome(lambda: sock.recvmsg(10)[3])
        if "bad family" in str(expected):
            return  # this Python was built without it
        message = cmsgx.receive(sock, 10)
        if (got := outcome(lambda: message.address)) != expected:
            show(key, name, "address", got, expected)
        if (got := outcome(lambda: message.sender.value)) != expected:  # type: ignore[union-attr]
            show(key, name, "sender", got, expected)
        if (got := outcome(lambda: cmsgx.recvmsg(sock, 10)[3])) != expected:
            show(key, name, "recvmsg", got, expected)
        assert expected[0] == "value"
        address, sender = message.address, message.sender
        assert sender is not None
        assert sender.packed == name
        assert isinstance(address, cmsgx.Address) is isinstance(address, tuple)
        for form in (address, sender):
            if isinstance(form, cmsgx.Address):
                got = sent(("", 0), lambda to: cmsgx.send(sock, b"x", address=to), form)
                if got != ("bytes", len(name), name):
                    show(key, name, "goes back as", got)
        compare_sending(key, sock, expected[1])
        counts[f"{family} {proto}"] += 1


# Values that older versions of socket return but do not accept; cmsgx accepts them.
OTHERWISE: dict[tuple[str, int], type] = {}
if sys.version_info < (3, 14):
    OTHERWISE["AF_BLUETOOTH", 1] = tuple
if sys.version_info < (3, 12):
    OTHERWISE["AF_BLUETOOTH", 2] = bytes


def is_beyond_int(value: Any) -> bool:
    return isinstance(value, tuple) and any(
        isinstance(item, int) and not -(2**31) <= item < 2**31 for item in value
    )


def compare_sending(key: tuple[str, int], sock: socket.socket, address: Any) -> None:
    has_host = key[0] in ("AF_INET", "AF_INET6", "AF_RDS")
    if has_host and chance.random() < 0.5:
        address = (chance.choice(HOSTS), *address[1:])
    value = spoiled(address, has_host=has_host)
    if value is None or (key in OTHERWISE and not isinstance(value, OTHERWISE[key])):
        return
    if key[0] == "AF_BLUETOOTH" and sys.version_info < (3, 13) and is_beyond_int(value):
        return  # refused there, masked in later versions
    expected = sent(key, lambda to: sock.sendmsg([b"x"], [], 0, to), value)
    ways: dict[str, Callable[[Any], Any]] = {
        "sendmsg": lambda to: cmsgx.sendmsg(sock, [b"x"], [], 0, to),
        "send": lambda to: cmsgx.send(sock, b"x", address=to),
        "send, timeout": lambda to: cmsgx.send(sock, b"x", address=to, timeout=1),
        "send of a number": lambda to: cmsgx.send(sock.fileno(), b"x", address=to),
        "sendmsg of a number": lambda to: cmsgx.sendmsg(sock.fileno(), [b"x"], [], 0, to),
        "Address": lambda to: cmsgx.send(
            sock, b"x", address=cmsgx.Address(sock.family, to, proto=key[1])
        ),
    }
    for name, way in ways.items():
        if not agree(expected, got := sent(key, way, value), is_number="number" in name):
            show(key, repr(value), name, got, expected)


def main() -> None:
    one, two = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    keys = [*NAMES, RDS]
    with one, two:
        for _ in range(int(sys.argv[2])):
            key = chance.choice(keys)
            if key[0] in FAMILIES:
                compare(key, one.fileno())
    print(dict(counts))


main()
