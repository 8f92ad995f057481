"""Arguments for each parameter of the public API: right ones, wrong ones, hostile ones."""

from __future__ import annotations

import array
import inspect
import math
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cmsgx
from cmsgx import kinds, wire

from apifuzzing.mischief import (
    ODD_TIMES,
    Hostile,
    HostileArray,
    HostileBytes,
    HostileInt,
    HostileList,
    HostileTuple,
    nested,
)
from apifuzzing.world import KINDS, WORLD


def wrapped(value: Any) -> Any:
    """`value` itself, most of the time; or what behaves so, and strikes."""
    chance = WORLD.chance
    luck = chance.random()
    if luck > 0.12:
        return value
    if luck < 0.02:
        return anything()
    if isinstance(value, int) and not isinstance(value, bool) and luck < 0.06:
        return HostileInt(value)
    if isinstance(value, (bytes, bytearray)) and luck < 0.07:
        return HostileBytes(value) if luck < 0.045 else HostileArray("B", value)
    if isinstance(value, list) and luck < 0.07:
        return HostileList(value) if luck < 0.045 else HostileTuple(value)
    return Hostile(value)


INTS = (0, 1, 2, 3, 4, 7, 16, 64, 253, 254, 255, 1000, 65536, -1, -2, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 64)
SIZES = (0, 1, 2, 8, 16, 100, 100, 1000, 1000, 65536, 1 << 20, -1, 1 << 40, 1 << 62, (1 << 63) - 1, 1 << 63)
COUNTS = (0, 1, 1, 2, 3, 4, 8, 64, 253, 254, -1, 1 << 31, 1 << 62, 1 << 64)
FLAGS = [0] * 8 + [getattr(socket, name) for name in dir(socket) if name.startswith("MSG_") and name != "MSG_WAITALL"]


def anything() -> Any:
    chance = WORLD.chance
    return chance.choice((
        lambda: chance.choice(INTS), lambda: None, lambda: "text", lambda: b"bytes", lambda: 1.5, lambda: math.nan,
        lambda: Hostile(chance.choice(INTS)), list, dict, object, lambda: chance.choice(KINDS),
        lambda: WORLD.pick(WORLD.any_pool()), lambda: Hostile([1, b"x"]), lambda: True, lambda: "a\0b\udc80",
        lambda: chance.choice(KINDS)(), lambda: nested(b"x"), lambda: type, lambda: slice(chance.randrange(5), None, 2),
    ))()  # fmt: skip


def a_buffer(least: int = 0) -> Any:
    chance = WORLD.chance
    size = max(least, chance.choice((0, 1, 4, 16, 100, 1000, 70_000 if chance.random() < 0.05 else 20)))
    luck = chance.random()
    if luck < 0.3:
        found = WORLD.pick("buffer")
        if found is not None:
            return found
    made: Any = bytes(size) if luck < 0.6 else bytearray(chance.randbytes(size))
    if luck > 0.8:
        made = memoryview(made)
        made = made[::-1] if luck > 0.97 else made.cast("B", (1, size)) if luck > 0.94 and size else made[size // 3 :]
    elif luck > 0.75:
        made = array.array("i", made[: size - size % 4])
    if luck > 0.5:
        WORLD.keep(made)
    return made


def some_buffers() -> Any:
    chance = WORLD.chance
    return [
        wrapped(a_buffer()) for _ in range(chance.choice((0, 1, 1, 2, 3, 20, 1100 if chance.random() < 0.1 else 2)))
    ]


def writable() -> Any:
    return bytearray(WORLD.chance.choice((0, 1, 10, 100, 1000)))


def a_socket() -> Any:
    sock = WORLD.pick("sock")
    luck = WORLD.chance.random()
    if luck < 0.8 or sock is None:
        return sock
    with suppress(OSError):
        if luck < 0.9:
            return sock.fileno()
        if luck < 0.95:
            fd = cmsgx.Fd(os.dup(sock.fileno()))
            WORLD.keep(fd)
            return fd
    return WORLD.pick("fd") if luck < 0.97 else Hostile(sock)


def a_descriptor() -> Any:
    luck = WORLD.chance.random()
    return wrapped(0 if luck < 0.3 else a_socket() if luck < 0.5 else WORLD.pick("fd"))


def some_descriptors() -> Any:
    chance = WORLD.chance
    return [a_descriptor() for _ in range(chance.choice((0, 0, 1, 1, 2, 3, 70, 253, 254)))]


def a_record() -> Any:
    chance = WORLD.chance
    luck = chance.random()
    if luck < 0.3:
        found = WORLD.pick("record")
        if found is not None:
            return found
    if luck < 0.5:
        return cmsgx.Credentials() if luck < 0.4 else kinds.Ttl(chance.randrange(1, 256))
    if luck < 0.6:
        return cmsgx.Rights(some_descriptors())
    if luck < 0.7:
        return chance.choice(INTS), chance.choice(INTS), a_buffer()
    kind = chance.choice(KINDS)
    return kind.unpack(chance.randbytes(chance.choice((1, 2, 4, 8, 12, 16, 20, 28, 32)))) if luck < 0.9 else kind()


def a_control() -> Any:
    chance = WORLD.chance
    if chance.random() < 0.4:
        return a_record()
    return [wrapped(a_record()) for _ in range(chance.choice((0, 1, 1, 2, 5)))]


def an_address() -> Any:
    chance = WORLD.chance
    luck = chance.random()
    if luck < 0.6:
        return None
    if luck < 0.75:
        return WORLD.pick("address")
    if luck < 0.9:
        sock = WORLD.pick("sock")
        return sock.getsockname() if sock is not None else None
    return chance.choice((
        ("127.0.0.1", 9), ("::1", 9, 0, 0), "\0nobody", b"\0nobody", "", ("127.0.0.1",), ("127.0.0.1", -1), (1, 2),
        "x" * 200, bytearray(b"\0n"), HostileTuple(("127.0.0.1", 9)), (Hostile("127.0.0.1"), Hostile(9)), ("", 9),
        ("255.255.255.255", 9),
    ))  # fmt: skip


def a_message_to_send() -> Any:
    chance = WORLD.chance
    luck = chance.random()
    if luck < 0.3:
        return a_buffer()
    if luck < 0.6:
        return wrapped((some_buffers(), some_descriptors()))
    return cmsgx.Outgoing(a_buffer(), wrapped(some_descriptors()), wrapped(a_control()), an_address())


def some_kinds() -> Any:
    chance = WORLD.chance
    usual = (cmsgx.Credentials, cmsgx.PidFd, cmsgx.Rights, kinds.Timestamp, kinds.Ttl, kinds.UdpGro)
    return [chance.choice(usual if chance.random() < 0.7 else KINDS) for _ in range(chance.randrange(4))]


def control_data() -> Any:
    """A control buffer, maybe damaged; no descriptor of it is owned by anybody."""
    chance = WORLD.chance
    raw = bytearray()
    with suppress(Exception):
        raw += wire.build([cmsgx.Unknown(1, 2000, chance.randbytes(5)), kinds.Ttl(3), cmsgx.Credentials()])
    for _ in range(chance.choice((0, 0, 1, 3))):
        if raw:
            raw[chance.randrange(len(raw))] = chance.randrange(256)
    return raw[: chance.choice((len(raw), chance.randrange(len(raw) + 1)))]


def a_dup() -> int:
    """A number that the call takes over."""
    return os.dup(0)


MAKERS: dict[str, Callable[[], Any]] = {
    "sock": a_socket,
    "bufsize": lambda: WORLD.chance.choice(SIZES),
    "ancbufsize": lambda: WORLD.chance.choice(SIZES),
    "size": lambda: WORLD.chance.choice(SIZES),
    "count": lambda: WORLD.chance.choice(COUNTS),
    "maxfds": lambda: WORLD.chance.choice(COUNTS),
    "limit": lambda: WORLD.chance.choice(COUNTS),
    "buffers": some_buffers,
    "ancdata": a_control,
    "control": a_control,
    "flags": lambda: WORLD.chance.choice(FLAGS),
    "address": an_address,
    "messages": lambda: [wrapped(a_message_to_send()) for _ in range(WORLD.chance.choice((0, 1, 3, 10)))],
    "want": some_kinds,
    "kinds": lambda: WORLD.chance.choice(KINDS),
    "kind": lambda: WORLD.chance.choice(KINDS),
    "which": lambda: WORLD.chance.choice((0, 0, 1, -1, 300, cmsgx.PidFd, cmsgx.Rights)),
    "close": lambda: WORLD.chance.choice(("now", "background", "background", "later")),
    "on_error": lambda: WORLD.chance.choice(("raise", "skip", "skip", "no")),
    "on_truncation": lambda: WORLD.chance.choice(("raise", "keep", "keep", "no")),
    "on_copied": lambda: WORLD.chance.choice(("keep", "stop", "no")),
    "level": lambda: WORLD.chance.choice((0, 1, 1, 6, 17, 41, -1, 1 << 40)),
    "type": lambda: WORLD.chance.choice((1, 2, 5, 3, 29, 37, -1, 1 << 40)),
    "family": lambda: WORLD.chance.choice((-1, 1, 2, 10, 16, 31, 1 << 40)),
    "proto": lambda: 0,
    "fd": lambda: getattr(WORLD.pick("sock"), "fileno", lambda: -1)(),
    "message": lambda: WORLD.pick("message"),
    "report": lambda: WORLD.pick("report"),
    "header": lambda: wire.CMSG_FIRSTHDR(control_data()),
    "buffer": lambda: WORLD.chance.choice((control_data, a_buffer))(),
    "mode": lambda: WORLD.chance.choice(("r", "rb", "wb", "w", "z")),
    "name": lambda: WORLD.chance.choice(("name", "", "x" * 300, "a\0b")),
    "access": lambda: WORLD.chance.choice(("r", "w", "rw", "x")),
    "seals": lambda: WORLD.chance.choice((0, 2, 10, "write", "shrink", ["write", "grow"], "x", ())),
    "accept": lambda: True,
    "path": lambda: True,
    "name_size": lambda: WORLD.chance.choice((0, 16, 28, *SIZES)),
    "control_size": lambda: WORLD.chance.choice((0, 8, 24, *SIZES)),
    "data": lambda: (some_buffers if WORLD.chance.random() < 0.3 else a_buffer)(),
    "label": a_buffer,
}
# Where the same name means something else.
SPECIAL: dict[tuple[str, str], Callable[[], Any]] = {
    ("parse", "control"): control_data,
    ("CMSG_FIRSTHDR", "control"): control_data,
    ("CMSG_NXTHDR", "control"): control_data,
    ("Receiver", "into"): lambda: WORLD.chance.choice((writable, lambda: [writable() for _ in range(3)], a_buffer))(),
    ("recvmsg_into", "buffers"): lambda: [wrapped(writable()) for _ in range(WORLD.chance.randrange(4))],
    ("check", "kind"): lambda: WORLD.chance.choice(("file", "socket", "memfd", ["pidfd", "pipe"], "x")),
    ("send", "fds"): some_descriptors,
    ("send_all", "fds"): some_descriptors,
    ("send_fds", "fds"): some_descriptors,
    ("Rights", "fds"): some_descriptors,
    ("Outgoing", "fds"): some_descriptors,
}

# Never another number: what is taken over here is closed, and signals go to this process.
EXACT: dict[tuple[str, str], Callable[[], Any]] = {
    ("Fd", "number"): lambda: WORLD.chance.choice((-1, "1", None, 1 << 70)),
    ("PidFd", "number"): lambda: WORLD.chance.choice((-1, "1", None, 1 << 70)),
    ("close_in_background", "descriptors"): lambda: WORLD.pick("fd"),
    ("send_signal", "number"): lambda: WORLD.chance.choice((0, 0, signal.SIGUSR1, -1, 200, "1")),
    ("socket", "fileno"): lambda: WORLD.chance.choice((None, None, -1, "1")),
}


def argument(call: str, parameter: str) -> Any:
    chance = WORLD.chance
    if (call, parameter) in EXACT:
        return EXACT[call, parameter]()
    if parameter == "timeout":  # that does not wait for long
        return chance.choice((0, 0, 0.0005, 0.001, 1e-12, Hostile(), ..., *ODD_TIMES))
    maker = SPECIAL.get((call, parameter)) or MAKERS.get(parameter)
    if maker is None:
        if parameter == "fds":
            return wrapped(chance.choice(COUNTS))
        return wrapped(chance.choice(INTS)) if chance.random() < 0.4 else anything()
    return wrapped(maker())


def arguments(name: str, function: Any) -> tuple[list[Any], dict[str, Any]]:
    chance = WORLD.chance
    signature = signature_of(function)
    if signature is None:
        return [anything() for _ in range(chance.randrange(4))], {}
    args: list[Any] = []
    keywords: dict[str, Any] = {}
    is_positional = True
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            if is_positional:
                args += [argument(name, parameter.name) for _ in range(chance.randrange(3))]
            continue
        if parameter.kind is parameter.VAR_KEYWORD or parameter.name == "self":
            continue
        has_default = parameter.default is not parameter.empty
        # Without a timeout of its own PidFd.wait() waits for this process.
        if name != "wait" and chance.random() < (0.6 if has_default else 0.005):
            is_positional = False
        elif parameter.kind is parameter.POSITIONAL_ONLY or (
            is_positional and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ):
            if is_positional:
                args.append(argument(name, parameter.name))
        else:
            keywords[parameter.name] = argument(name, parameter.name)
    return args, keywords


_signatures: dict[Any, inspect.Signature | None] = {}


def signature_of(function: Any) -> inspect.Signature | None:
    key = getattr(function, "__qualname__", None), getattr(function, "__module__", None), type(function)
    if key not in _signatures:
        try:
            _signatures[key] = inspect.signature(function)
        except (ValueError, TypeError):
            _signatures[key] = None
    return _signatures[key]
