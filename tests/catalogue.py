"""The catalogue of control messages, data/control_messages.csv, and the bytes that C makes from its
rows."""

from __future__ import annotations

import csv
import functools
import json
import platform
import re
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from native import build

from cmsgx import _cmsg
from cmsgx.kinds import _table

CATALOGUE = Path(__file__).parent / "data" / "control_messages.csv"

# These processors have their own numbers for SOL_SOCKET and its options; the catalogue has those of
# asm-generic/socket.h.
IS_GENERIC = not platform.machine().startswith(("alpha", "mips", "parisc", "ppc", "sparc"))

_NAME = re.compile(r"\b[A-Z][A-Z0-9]*_\w+")
_NUMBERED = re.compile(r"\b([A-Z][A-Z0-9]*_\w+)(?: \((?:(SOL_\w+) )?|=)(0x[0-9A-Fa-f]+|\d+)\b")
# A list in parentheses applies to the family directly before it, or to all families before it.
_FAMILY = re.compile(r"(AF_\w+)|( ?)\(((?:[^()]|\([^()]*\))*)\)")
# Things that have two names in headers, and pairs that have one name in the catalogue.
_ALIASES = {
    "IPPROTO_IP": "SOL_IP", "IPPROTO_IPV6": "SOL_IPV6", "IPPROTO_SCTP": "SOL_SCTP",
    "IPPROTO_TCP": "SOL_TCP", "BTPROTO_HCI": "SOL_HCI",
}  # fmt: skip
_FAMILIES = {"AF_ATM": ("AF_ATMPVC", "AF_ATMSVC")}
SIZES = {
    "i8": 1, "u8": 1, "i16": 2, "u16": 2, "be16": 2, "i32": 4, "u32": 4, "be32": 4, "in_addr": 4,
    "i64": 8, "u64": 8, "in6_addr": 16, "long": struct.calcsize("l"),
    "ulong": struct.calcsize("L"),
}  # fmt: skip


class Named(NamedTuple):
    """An option whose number is in the catalogue."""

    level: str
    name: str
    value: int


@dataclass(frozen=True, repr=False)
class Entry:
    """A row of the catalogue. data/README.md describes the columns."""

    platform: str
    level_name: str
    level_value: str
    type_name: str
    type_value: str
    direction: str
    families: str
    enable: str
    payload: str
    payload_fields: str
    since: str
    semantics: str
    source: str

    def __repr__(self) -> str:
        return f"{self.level_name} {self.type_name} {self.direction}"

    @property
    def level(self) -> int:
        return int(self.level_value)

    @property
    def type(self) -> int:
        return int(self.type_value)

    @property
    def level_constant(self) -> str:
        """As cmsgx names the level."""
        return _ALIASES.get(self.level_name, self.level_name)

    @property
    def type_constant(self) -> str:
        """The macro or enumerator at the start of its name."""
        found = _NAME.match(self.type_name)
        assert found is not None, self
        return found[0]

    @property
    def sockets(self) -> dict[str, tuple[str, ...]]:
        """The socket families that have it: the name and the types of each."""
        found: dict[str, tuple[str, ...]] = {}
        waiting: list[str] = []
        # Text after a semicolon is about other families.
        for name, space, text in _FAMILY.findall(self.families.partition(";")[0]):
            if name:
                waiting.extend(_FAMILIES.get(name, (name,)))
                found.update((one, ()) for one in waiting if one not in found)
            else:
                words = re.findall(r"[A-Za-z]\w+", text)
                found.update(dict.fromkeys(waiting if space else waiting[-1:], tuple(words)))
                found.update((one, ()) for one in words if one.startswith("AF_"))
                waiting.clear()
        return found

    @property
    def options(self) -> list[Named]:
        """What switches it on, if the catalogue has its number; flags of calls too."""
        return [
            Named(level or self._level_of(name), name, int(value, 0))
            for name, level, value in _NUMBERED.findall(self.enable)
        ]

    def _level_of(self, option: str) -> str:
        is_general = option.startswith("SO_") and self.level_name in ("SOL_IP", "SOL_IPV6")
        return "SOL_SOCKET" if is_general else self.level_constant

    @property
    def sizes(self) -> set[int]:
        """The sizes of its payload in bytes on this machine; empty if it has no payload of its
        own."""
        both = re.search(r"LP64=(\d+); ILP32(?:\(i386\))?=(\d+)", self.payload)
        if both is not None:
            is_aligned = struct.calcsize("l") == 8 or (
                "(i386)" in self.payload and struct.calcsize("BQ") == 16
            )
            return {int(both[1] if is_aligned else both[2])}
        return {int(size) for size in re.findall(r"(?:;| or) (\d+)\b(?![*+.-])", self.payload)}

    @property
    def fields(self) -> dict[str, str]:
        """The members that the catalogue names: name -> type."""
        return dict(re.findall(r"([\w.\[\]]+):(\w+)\b(?!\[)", self.payload_fields))


@functools.cache
def entries() -> tuple[Entry, ...]:
    with open(CATALOGUE, encoding="utf-8", newline="") as file:
        return tuple(Entry(**line) for line in csv.DictReader(file))


def of_linux(direction: str = "") -> list[Entry]:
    return [
        entry
        for entry in entries()
        if entry.platform == "linux" and direction in ("", entry.direction)
    ]


def each(some: list[Entry]) -> pytest.MarkDecorator:
    """Parametrises a test by `entry`."""
    return pytest.mark.parametrize("entry", some, ids=str)


def family_number(name: str) -> int:
    number = getattr(_cmsg, name, None)
    value = getattr(socket, name) if number is None else number
    return int(value)


# What cmsgx has for them --------------------------------------------------------------------------

DIRECTIONS = {"recv": "receive", "send": "send"}


def find(entry: Entry, family: str) -> Any:
    """The class for a row, on a socket of this family."""
    table = _table._received if entry.direction == "recv" else _table._sent
    number = family_number(family)
    found = [
        kind
        for families, kind in table.get((entry.level, entry.type), ())
        if not families or number in families
    ]
    assert found, f"{entry}: no class on {family}"
    assert len(found) == 1, f"{entry}: {found} on {family}"
    return found[0]


def options_of(entry: Entry) -> list[Named]:
    """Those that are socket options: no flags of calls, and none that would switch it off."""
    return [
        option
        for option in entry.options
        if not option.name.startswith("MSG_") and option.name != "SO_PASSRIGHTS"
    ]


# What C makes of them -----------------------------------------------------------------------------


class Member(NamedTuple):
    """A member of a C struct, and its value."""

    name: str
    at: int
    size: int
    kind: str
    value: Any
    """An int; for "bytes" and "pad", bytes."""


class Made(NamedTuple):
    """A control message that C made."""

    level: int
    type: int
    source: str
    family: str
    payload: bytes
    control: bytes
    members: tuple[Member, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(one.value for one in self.members if one.kind == "number")

    def value(self, name: str) -> Any:
        [value] = [one.value for one in self.members if one.name == name]
        return value


def _read(line: dict[str, Any]) -> Made:
    members = [Member(**one) for one in line["members"]]
    return Made(
        line["level"], line["type"], line["source"], line["family"],
        bytes.fromhex(line["payload"]), bytes.fromhex(line.get("control", "")),
        tuple(
            one._replace(value=bytes.fromhex(one.value)) if one.kind in ("bytes", "pad") else one
            for one in members
        ),
    )  # fmt: skip


def _run(*arguments: str, control: bytes = b"") -> str:
    """The C program; skips if this machine lacks the headers for it."""
    program = build("messages", "-O1", "messages/messages.c")
    done = subprocess.run(
        [str(program), *arguments], input=control, capture_output=True, check=False, timeout=60
    )
    if done.returncode == 77:
        pytest.skip(
            f"the kernel's headers here are of Linux {done.stdout.decode()}; "
            "tests/c/messages needs those of 6.1 or later"
        )
    assert done.returncode == 0, (arguments, done.returncode, done.stderr.decode())
    return done.stdout.decode()


class All(NamedTuple):
    """All control messages that C made."""

    abi: dict[str, int]
    messages: dict[tuple[str, str, str], list[Made]]

    def of(self, entry: Entry, family: str = "") -> list[Made]:
        """What is registered for a row: in general, or for sockets of this family."""
        some = self.messages.get((entry.level_name, entry.type_name, entry.direction), [])
        return [one for one in some if not family or one.family in ("", family)]


@functools.cache
def made() -> All:
    first, *lines = map(json.loads, _run().splitlines())
    messages: dict[tuple[str, str, str], list[Made]] = {}
    for line in lines:
        key = (line["level_name"], line["name"], line["direction"])
        messages.setdefault(key, []).append(_read(line))
    return All(first, messages)


def read_by_c(entry: Entry, control: bytes) -> Made:
    """What C reads from a control buffer with one message of this row."""
    arguments = (entry.level_name, entry.type_name, entry.direction)
    return _read(json.loads(_run("read", *arguments, control=control)))


def payloads_of(entry: Entry, family: str) -> list[Made]:
    found = made().of(entry, family)
    assert found, f"{entry}: no bytes that were not made by cmsgx: add it to tests/c/messages"
    return found
