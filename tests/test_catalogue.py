"""The table is complete: each row of the catalogue has a class, which packs the same bytes as C.

The bytes are made by a program in plain C, c/messages, from the kernel's headers. No class is
looked up by its name here, but by level, type, family and direction, as a received message is.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import runpy
import struct
from collections.abc import Callable, Iterator, Set
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
from catalogue import (
    CATALOGUE,
    DIRECTIONS,
    IS_GENERIC,
    SIZES,
    Entry,
    Made,
    Member,
    each,
    entries,
    family_number,
    find,
    made,
    of_linux,
    options_of,
    payloads_of,
    read_by_c,
)
from checkout import checkout
from support import unregistered

import cmsgx
from cmsgx import _cmsg, kinds, wire
from cmsgx.kinds import _table

ELSEWHERE = [entry for entry in entries() if entry.platform != "linux"]


def test_lines_of_the_catalogue_end_in_lf_alone() -> None:
    # A spreadsheet saves it with CRLF, and the next change is then a change of every line.
    assert b"\r" not in CATALOGUE.read_bytes()


# The fields of a class ----------------------------------------------------------------------------


def form_of(kind: Any, entry: Entry, family: str) -> kinds.WireFormat:
    """The form in which the class is received or sent for this row."""
    [form] = [
        form
        for form in _table.row_of(kind).formats
        if (form.level, form.type) == (entry.level, entry.type)
        and form.direction in ("both", DIRECTIONS[entry.direction])
        and (not form.families or family_number(family) in form.families)
    ]
    return form


def fields_of(kind: Any) -> dict[str, _cmsg.Field]:
    """The values that are read from the payload, by name."""
    return {name: inspect.getattr_static(kind, name) for name in kind._codec.fields}


# What a field has to be ---------------------------------------------------------------------------

# If the kind does not hold the payload but a canonical form of it: its fields in order.
UNITS = {"timeval": 1000, "timeval64": 1000, "timespec": 1, "timespec64": 1}


def decoded_numbers(encoding: str, one: Made) -> list[Any]:
    numbers = one.numbers
    if encoding == "integer":
        return list(numbers)
    if encoding == "without NUL":
        return [one.members[0].value]
    unit = UNITS[{"stamping": "timespec", "stamping64": "timespec64"}.get(encoding, encoding)]
    return [
        seconds * 10**9 + rest * unit
        for seconds, rest in zip(numbers[::2], numbers[1::2], strict=True)
    ]


def in_payload(field: _cmsg.Field, one: Made) -> Any:
    """The value that C has at the place of the field; for a socket address, and for bytes, the
    bytes."""
    start = field.offset
    end = start + field.size if field.size else len(one.payload)
    if field.format in "stS":
        return one.payload[start:end]
    [member] = [
        member for member in one.members if (member.at, member.size) == (start, end - start)
    ]
    if field.format in "aA":
        assert member.kind == "bytes"
        return kinds.IPAddress(member.value)
    assert member.kind == "number"
    return member.value


def expected(kind: Any, encoding: str, one: Made) -> dict[str, Any]:
    """The values of the fields, without optional ones that are missing."""
    fields = fields_of(kind)
    if encoding:
        return dict(zip(fields, decoded_numbers(encoding, one), strict=True))
    return {
        name: in_payload(field, one)
        for name, field in fields.items()
        if field.offset + field.size <= len(one.payload)
    }


def same(field: _cmsg.Field, value: Any, wanted: Any, one: Made) -> bool:
    """Whether a field has the value that C put there."""
    if isinstance(value, tuple) and not isinstance(value, cmsgx.Address):
        # An array: the numbers at its place.
        wanted = tuple(
            member.value
            for member in one.members
            if field.offset <= member.at < field.offset + field.size
        )
    if field.format in "PT" and wanted == 0:
        return value is None
    if field.format == "S":
        # Zeros, or an empty field, mean that there is no address.
        return not any(wanted) if value is None else bytes(value.packed) == wanted
    if isinstance(value, bool):
        return value is bool(wanted)
    return bool(value == wanted)


def uncovered(kind: Any, one: Made) -> list[Member]:
    """Members that no field covers."""
    places = [
        (field.offset, field.offset + field.size if field.size else len(one.payload))
        for field in fields_of(kind).values()
    ]
    return [
        member
        for member in one.members
        if member.kind != "pad"
        and not any(start <= member.at and member.at + member.size <= end for start, end in places)
    ]


def attributes(one: Made) -> tuple[str, dict[str, int]]:
    """The values of each struct nlattr, by name without the prefix."""
    return "values", {
        re.sub(r"^[A-Z0-9]+_NLA_", "", member.name).lower(): member.value for member in one.members
    }


def latencies(one: Made) -> tuple[str, dict[int, int]]:
    stages = [one.value(f"rx_trace_pos[{i}]") for i in range(3)]
    return "latencies", dict(
        zip(stages, [one.value(f"rx_trace[{i}]") for i in range(3)], strict=True)
    )


# Values that are read from several members together: a name, and its value.
WORKED_OUT: dict[str, Callable[[Made], tuple[str, Any]]] = {
    "SCM_TIMESTAMPING_OPT_STATS": attributes,
    "RDS_CMSG_RXPATH_LATENCY": latencies,
    "RDS_CMSG_ZCOPY_COMPLETION": lambda one: ("cookies", one.numbers[1:]),
}


# The checks ---------------------------------------------------------------------------------------


def check_received(
    entry: Entry, kind: Any, family: str, one: Made, payload: bytes | None = None
) -> None:
    """decode() makes the values that C put in from C's bytes (or from others)."""
    payload = one.payload if payload is None else payload
    message = cmsgx.decode(one.level, one.type, payload, family_number(family))
    if kind is cmsgx.PidFd:
        assert [message.number] == list(one.numbers), entry
        return
    assert type(message) is kind, entry
    if kind is cmsgx.Rights:
        assert message.fds == one.numbers, entry
        return
    form = form_of(kind, entry, family)
    fields = fields_of(kind)
    wanted = expected(kind, form.encoding, one)
    for name in fields:
        value = getattr(message, name)
        if name in wanted:
            assert same(fields[name], value, wanted[name], one), (entry, name, value, wanted[name])
        else:
            assert value is None, (entry, name, value)
    if not form.encoding:
        assert not uncovered(kind, one), entry
    if entry.type_constant in WORKED_OUT:
        name, value = WORKED_OUT[entry.type_constant](one)
        assert getattr(message, name) == value, (entry, name)


def build_of(entry: Entry, kind: Any, family: str, one: Made) -> Any:
    """An object of this class with C's values, created as a user would."""
    if kind is cmsgx.Rights:
        return kind(one.numbers)
    values = expected(kind, form_of(kind, entry, family).encoding, one)
    parameters = inspect.signature(kind.__new__).parameters.values()
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters):
        # Values that its own constructor computes are not among them.
        names = {parameter.name for parameter in parameters}
        values = {name: value for name, value in values.items() if name in names}
    if not all(
        field.bounds[0] <= values[name] <= field.bounds[1]
        for name, field in fields_of(kind).items()
        if field.bounds and field.format != "t"
    ):
        # C uses a value in which every byte differs, and no constructor accepts it.
        return kind.unpack(one.payload)
    return kind(**values)


def check_sent(entry: Entry, kind: Any, family: str, one: Made) -> None:
    """cmsgx packs the same payload as C, and C reads the values from it."""
    message = build_of(entry, kind, family, one)
    assert message.pack() == one.payload, entry
    sent = next(
        form
        for form in _table.row_of(kind).formats
        if form.direction != "receive" and not form.is_ipv4
    )
    if (sent.level, sent.type) == (entry.level, entry.type):
        control = wire.build([message])
        assert control == one.control, entry
    else:
        # A form that the kernel accepts too, under another number.
        control = _cmsg.build([(entry.level, entry.type, message.pack())])
    there = read_by_c(entry, control)
    assert there.members == one.members, entry
    assert there.payload == one.payload, entry


# Tests of each row --------------------------------------------------------------------------------


def test_the_catalogue_is_there() -> None:
    assert len(of_linux()) >= 162
    assert {entry.direction for entry in of_linux()} == {"recv", "send"}
    for entry in entries():
        assert entry.source, entry


@pytest.mark.slow
def test_c_is_of_this_abi() -> None:
    abi = made().abi
    assert abi["long"] == struct.calcsize("l")
    assert abi["pointer"] == struct.calcsize("P")
    assert abi["align64"] == struct.calcsize("BQ") - 8


def test_c_has_no_row_that_the_catalogue_lacks() -> None:
    known = {(entry.level_name, entry.type_name, entry.direction) for entry in of_linux()}
    assert set(made().messages) == known


def is_comparable(level_name: str) -> bool:
    return IS_GENERIC or level_name != "SOL_SOCKET"


@each(of_linux())
def test_numbers(entry: Entry) -> None:
    """cmsgx's numbers from the headers of its build, C's from the headers here, and the catalogue's
    agree."""
    level, type = getattr(_cmsg, entry.level_constant), getattr(_cmsg, entry.type_constant)
    for one in made().of(entry):
        assert (one.level, one.type) == (level, type), entry
    if is_comparable(entry.level_name):
        assert (level, type) == (entry.level, entry.type), entry
    for option in entry.options:
        if is_comparable(option.level):
            assert getattr(_cmsg, option.name) == option.value, (entry, option)


@each(of_linux())
def test_sizes(entry: Entry) -> None:
    """The catalogue describes each payload as C has it."""
    for family in entry.sockets:
        for one in payloads_of(entry, family):
            if entry.sizes:
                assert len(one.payload) in entry.sizes, entry
            for member in one.members:
                size = SIZES.get(entry.fields.get(member.name, ""))
                assert size in (None, member.size), (entry, member)


@each(of_linux())
def test_class_and_docstring(entry: Entry) -> None:
    for family in entry.sockets:
        kind = find(entry, family)
        assert kind.__name__ in kinds.__all__ or kind.__name__ in cmsgx.__all__, kind
        text = kind.__dict__.get("__doc__")
        assert text, f"{entry}: {kind.__name__} has no docstring"
        assert len(text.split()) > 4, f"{entry}: {kind.__name__}: {text}"


@each(of_linux("recv"))
def test_received(entry: Entry) -> None:
    for family in entry.sockets:
        kind = find(entry, family)
        for one in payloads_of(entry, family):
            check_received(entry, kind, family, one)


@each(of_linux("send"))
def test_sent(entry: Entry) -> None:
    for family in entry.sockets:
        kind = find(entry, family)
        for one in payloads_of(entry, family):
            check_sent(entry, kind, family, one)


def own_kinds() -> list[Any]:
    return [row.kind for row in _table.rows() if row.kind.__module__.startswith("cmsgx")]


@pytest.mark.parametrize("kind", own_kinds(), ids=lambda kind: str(kind.__name__))
def test_no_class_is_received_or_sent_as_what_the_catalogue_lacks(kind: Any) -> None:
    known = {
        (entry.level, entry.type, DIRECTIONS[entry.direction], family_number(family))
        for entry in of_linux()
        for family in entry.sockets
    }
    row = _table.row_of(kind)
    seen: set[str] = set()
    for form in row.formats:
        ways = {"receive", "send"} if form.direction == "both" else {str(form.direction)}
        if form.is_ipv4:
            # The kinds of IPv4 on a socket that receives both: the families are those of the
            # socket.
            ways.discard("send")
        for way in ways:
            found = {family for *number, family in known if number == [form.level, form.type, way]}
            assert found, f"{kind.__name__} ({form.level}, {form.type}) {way}: in no row"
            assert not form.families or form.families & found, (kind, form)
        seen |= ways
    assert row.direction == ("both" if len(seen) == 2 else seen.pop())


# Options that make the kernel answer or report what was sent: the sender decides about these.
OF_WHAT_IS_SENT = ("SO_ZEROCOPY", "SO_WIFI_STATUS")


@each([entry for entry in of_linux("recv") if options_of(entry)])
def test_options(entry: Entry) -> None:
    """Each option that enable() sets or watches is in the catalogue."""
    named = {
        getattr(_cmsg, option.name)
        for option in options_of(entry)
        if entry.type_constant != "IP_RECVERR" or option.name not in OF_WHAT_IS_SENT
    }
    if entry.type_constant == "SO_TIMESTAMPING_NEW":
        # The kernel reports it under the old number too.
        named.add(_cmsg.SO_TIMESTAMPING_OLD)
    for family in entry.sockets:
        known = {option.name for option in _table.row_of(find(entry, family)).options}
        assert known & named or not named, (entry, known)


@each([entry for entry in of_linux() if re.fullmatch(r"[\d.]+", entry.since)])
def test_since(entry: Entry) -> None:
    """The first release that has an option, or a kind without one, agrees with the catalogue."""
    named = {option.name for option in options_of(entry)}
    for family in entry.sockets:
        row = _table.row_of(find(entry, family))
        said = {
            option.since
            for option in row.options
            if option.text in named and not option.is_watched_only
        }
        # Other kinds that the option brings came later.
        if entry.direction == "recv" and said and "[" not in entry.type_name:
            assert said == {entry.since}, entry
        is_own = (row.level, row.type) == (entry.level, entry.type)
        if is_own and row.since and row.direction == DIRECTIONS[entry.direction]:
            assert row.since == entry.since, entry


# The checks are checked ---------------------------------------------------------------------------


def damaged(one: Made, member: Member) -> bytes:
    """The payload with this member set to zero, or to nonzero if it was zero."""
    payload = bytearray(one.payload)
    place = slice(member.at, member.at + member.size)
    payload[place] = bytes(member.size) if any(payload[place]) else b"\xff" * member.size
    return bytes(payload)


@each(of_linux("recv"))
def test_a_wrong_byte_in_any_member_is_noticed(entry: Entry) -> None:
    for family in entry.sockets:
        kind = find(entry, family)
        for one in payloads_of(entry, family):
            for member in one.members:
                if member.kind != "pad":
                    with pytest.raises((AssertionError, cmsgx.MalformedControlError)):
                        check_received(entry, kind, family, one, damaged(one, member))


@each(of_linux("send"))
def test_a_wrong_value_of_any_member_is_noticed(entry: Entry) -> None:
    """C reads a different value from a payload that was changed at the place of this member."""
    for one in payloads_of(entry, next(iter(entry.sockets))):
        for member in one.members:
            control = _cmsg.build([(one.level, one.type, damaged(one, member))])
            assert read_by_c(entry, control).members != one.members


def row_named(text: str) -> Entry:
    [entry] = [entry for entry in of_linux() if str(entry) == text]
    return entry


def test_a_row_without_a_class_is_named() -> None:
    entry = row_named("SOL_IP IP_TTL recv")
    find(entry, "AF_INET")
    with unregistered(kinds.Ttl), pytest.raises(AssertionError, match="SOL_IP IP_TTL recv: no cl"):
        find(entry, "AF_INET")


def test_a_wrong_direction_is_named() -> None:
    entry = replace(row_named("SOL_IP IP_RECVOPTS recv"), direction="send")
    with pytest.raises(AssertionError, match="SOL_IP IP_RECVOPTS send: no class"):
        find(entry, "AF_INET")


def test_a_row_without_bytes_is_named() -> None:
    entry = replace(row_named("SOL_IP IP_TTL recv"), type_name="IP_NEW")
    with pytest.raises(AssertionError, match="SOL_IP IP_NEW recv: no bytes"):
        payloads_of(entry, "AF_INET")


def test_a_reason_for_what_was_seen_after_all_is_noticed() -> None:
    """tools/delivered says why a row was never seen."""
    needless = runpy.run_path(str(checkout() / "tools" / "delivered"))["needless_reasons"]
    needless.__globals__["records"] = dict
    assert needless() == []
    entry = row_named("SOL_IUCV SCM_IUCV_TRGCLS recv")
    record = ("recv", family_number("AF_IUCV"), entry.level, entry.type, 0, 0, 0)
    needless.__globals__["records"] = lambda: {"host": {record}}
    assert needless() == [("SCM_IUCV_TRGCLS", "recv")]


# Other systems ------------------------------------------------------------------------------------


def calls_of_register(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """The class and the call, for decorators and for calls with a class."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            found = [(node.name, call) for call in node.decorator_list]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name):
            found = [(node.args[0].id, node)]
        else:
            continue
        for name, call in found:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "register":
                yield name, call


def words_of(node: ast.AST, values: Set[str] = frozenset()) -> set[str]:
    """The strings in it; an f-string is filled in with each of `values`."""
    words: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            words.add(part.value)
        elif isinstance(part, ast.JoinedStr):
            for value in values:
                pieces = [
                    piece.value if isinstance(piece, ast.Constant) else value
                    for piece in part.values
                ]
                words.add("".join(map(str, pieces)))
    return words


def declared() -> dict[tuple[str, str], set[str]]:
    """Each level and type, by name, under which a class is registered on any system. It is read
    from the source, because Linux lacks the numbers of the other systems."""
    found: dict[tuple[str, str], set[str]] = {}
    for module in vars(kinds).values():
        if not isinstance(module, ModuleType) or not module.__name__.startswith("cmsgx.kinds."):
            continue
        tree = ast.parse(inspect.getsource(module))
        functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for name, call in calls_of_register(tree):
            words = words_of(call)
            # register(**function(...))
            for part in ast.walk(call):
                if isinstance(part, ast.Name) and part.id in functions:
                    words |= words_of(functions[part.id], words)
            for level, type in itertools.product(words, words):
                found.setdefault((level, type), set()).add(name)
    return found


@pytest.fixture(scope="module")
def registered() -> dict[tuple[str, str], set[str]]:
    return declared()


@pytest.mark.parametrize("entry", ELSEWHERE, ids=lambda entry: f"{entry.platform} {entry}")
def test_another_system(entry: Entry, registered: dict[tuple[str, str], set[str]]) -> None:
    """A class is registered under the names that the row has in the headers of that system."""
    names = registered.get((entry.level_constant, entry.type_constant), set())
    assert names, f"{entry.platform} {entry}: no class"
    for name in names:
        assert getattr(kinds, name, None) or getattr(cmsgx, name, None), name
