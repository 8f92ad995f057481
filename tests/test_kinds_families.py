"""What holds for every kind that is registered, by its row; and what each family has besides."""

from __future__ import annotations

import copy
import errno
import inspect
import pickle
import random
import re
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from support import OLD_TIME, unix_pair, unregistered

import cmsgx
from cmsgx import _cmsg, kinds
from cmsgx.errors import MalformedControlError
from cmsgx.kinds import _ipv6, _table

# Not those that other tests of this process have registered.
ROWS = tuple(row for row in _table.rows() if row.kind.__module__.startswith("cmsgx"))
STRUCTS = [row.kind for row in ROWS if issubclass(row.kind, kinds.StructMessage)]
EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=[row.kind.__name__ for row in ROWS])
EACH = pytest.mark.parametrize("kind", STRUCTS, ids=[kind.__name__ for kind in STRUCTS])

SIGNED = {"b": 8, "h": 16, "i": 32, "q": 64, "P": 32, "T": 64}
UNSIGNED = {"B": 8, "H": 16, "I": 32, "Q": 64, "n": 16, "N": 32}
# What lies in a payload: how many OLD_TIMEs, and the nanoseconds of the second number.
TIMES = {"timeval": (1, 1000), "timespec": (1, 1), "stamping": (3, 1)}
SIZES = {"integer": 4, "timeval": OLD_TIME.size, "timespec": OLD_TIME.size, "timeval64": 16,
         "timespec64": 16, "stamping": 3 * OLD_TIME.size, "stamping64": 48,
         "pktinfo": 12}  # fmt: skip
# Seconds on both sides of 1970, as far as a long goes.
SECONDS = min(2**32, 2 ** (8 * struct.calcsize("@l") - 1))


def own_form(kind: Any) -> Any:
    """The form that unpack() reads, and pack() writes."""
    return _table.row_of(kind).formats[0]


def fields_of(kind: Any) -> list[Any]:
    return [vars(kind)[name] for name in kind._codec.fields]


def shown(kind: Any) -> tuple[str, ...]:
    """What the constructor takes."""
    names: tuple[str, ...] = getattr(kind, "_SHOWN", kind._codec.fields)
    return names


def values(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in shown(type(record))}


def wire_size(kind: Any) -> int:
    """Bytes of the smallest payload that unpack() takes."""
    encoding = own_form(kind).encoding
    return SIZES.get(encoding, max(int(kind._codec.min_size), 0))


def is_fixed(kind: Any) -> bool:
    return own_form(kind).encoding in SIZES or kind._codec.min_size == kind._codec.max_size


def payload(kind: Any, rng: random.Random) -> bytes:
    """A random one, of which nothing is lost on the way through the kind."""
    encoding = own_form(kind).encoding
    if encoding in TIMES:
        count, unit = TIMES[encoding]
        return b"".join(
            OLD_TIME.pack(rng.randrange(-SECONDS, SECONDS), rng.randrange(10**9 // unit))
            for _ in range(count)
        )
    size = wire_size(kind)
    if not is_fixed(kind):
        most = kind._codec.max_size
        size = rng.randint(size, most if 0 <= most < 64 else size + 40)
    data = bytearray(rng.randbytes(size))
    for field in fields_of(kind):
        if field.format == "S" and size > field.offset:
            # Of the others not every length is one of an address.
            families = [b"\0\0"]
            if size - field.offset >= 16:
                families.append(struct.pack("=H", socket.AF_INET))
            data[field.offset : field.offset + 2] = rng.choice(families)
    if kind is kinds.AlgIv:
        data[:4] = struct.pack("=I", size - 4)
    if encoding == "without NUL" and data[-1:] == b"\0":
        data[-1] = 1
    return bytes(data)


def made_payloads(kind: Any, count: int) -> Iterator[bytes]:
    """Those whose values a constructor takes."""
    rng = random.Random(kind.__name__)
    for _ in range(count):
        data = bytearray(payload(kind, rng))
        for field in fields_of(kind):
            if field.bounds and field.format != "t":
                value = rng.randint(*field.bounds)
                order = "big" if field.format in "nN" else sys.byteorder
                data[field.offset : field.offset + field.size] = value.to_bytes(
                    field.size, order, signed=field.format in SIGNED
                )
            elif field.bounds:
                del data[field.offset + field.bounds[1] :]
        if issubclass(kind, _ipv6._Header):
            words = rng.randrange(4)
            data[:] = bytes([0, words]) + rng.randbytes(8 * words + 6)
        yield bytes(data)


def payloads(kind: Any, count: int = 30) -> Iterator[bytes]:
    rng = random.Random(kind.__name__)
    for _ in range(count):
        yield payload(kind, rng)


def test_all_but_the_descriptors_are_their_payload() -> None:
    assert {row.kind for row in ROWS} - set(STRUCTS) == {cmsgx.Rights, cmsgx.PidFd}
    assert len(STRUCTS) > 100


# Every row --------------------------------------------------------------------------------------


@EACH_ROW
def test_docstrings_say_what_it_is(row: Any) -> None:
    first, *rest = (row.kind.__doc__ or "").split("\n")
    assert re.match(r"[A-Z`].{20,}", first)
    assert ". " in f"{first} "
    assert not rest or rest[0] == ""
    for name, value in vars(row.kind).items():
        if isinstance(value, property):
            assert value.__doc__, name


@EACH_ROW
def test_level_0_says_whose_it_is(row: Any) -> None:
    for form in row.formats:
        assert form.families or form.level != 0, form
    for way in ("receive", "send"):
        forms = [form for form in row.formats if form.direction in ("both", way)]
        numbers = [(form.level, form.type) for form in forms]
        assert len(set(numbers)) == len(numbers)


@EACH_ROW
def test_each_form_is_found_by_its_number_and_family(row: Any) -> None:
    for form in row.formats:
        if form.is_ipv4:
            continue
        for table, other in ((_table._received, "send"), (_table._sent, "receive")):
            if form.direction == other:
                continue
            for family in form.families or {socket.AF_UNIX, socket.AF_INET}:
                found = [
                    kind for of, kind in table[form.level, form.type] if not of or family in of
                ]
                assert found == [row.kind]
        if form.direction != "send":
            family = next(iter(form.families), socket.AF_UNIX)
            assert _table.lookup(form.level, form.type, family) is row.kind


@EACH_ROW
def test_options_have_room_for_the_payload(row: Any) -> None:
    if row.direction == "send" or not issubclass(row.kind, kinds.StructMessage):
        return
    # An option may bring another form only: that of IPv4.
    least = min(wire_size(row.kind), *(SIZES.get(form.encoding, 1 << 20) for form in row.formats))
    for option in row.options:
        assert len(option.on) == option.size
        # With no room it brings nothing: what enable() sets puts it out, or it has its room always.
        brings_nothing = (
            option.is_watched_only or row.unsolicited_size
        ) and not option.control_size
        assert option.control_size >= least or brings_nothing, option
    assert row.unsolicited_size == 0 or row.unsolicited_size >= wire_size(row.kind)


# Every kind that is its payload -----------------------------------------------------------------


@EACH
def test_zeros_are_a_payload(kind: Any) -> None:
    record = kind.unpack(bytes(wire_size(kind)))
    assert type(record) is kind
    assert repr(record).startswith(f"{kind.__name__}(")
    assert repr(record).endswith(")")
    assert bool(record) is True
    for name in shown(kind):
        getattr(record, name)


@EACH
def test_nothing_is_lost(kind: Any) -> None:
    for data in payloads(kind):
        record = kind.unpack(data)
        for name in kind._codec.fields:
            getattr(record, name)
        repr(record)
        own = own_form(kind)
        if own.direction == "receive" or own.encoding in ("", "without NUL"):
            assert record.pack() == data
        assert kind.unpack(bytearray(data)) == record


@EACH
def test_equal_where_the_payload_is(kind: Any) -> None:
    for data in payloads(kind, 5):
        record, same = kind.unpack(data), kind.unpack(data)
        assert record == same
        assert hash(record) == hash(same)
        assert copy.copy(record) == copy.deepcopy(record) == record
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            loaded = pickle.loads(pickle.dumps(record, protocol))
            assert type(loaded) is kind
            assert (loaded, hash(loaded), repr(loaded)) == (record, hash(record), repr(record))
        assert record != data
    if wire_size(kind):
        records = {kind.unpack(data) for data in payloads(kind)}
        assert len(records) > 1
        assert records == {kind.unpack(data) for data in payloads(kind)}


@EACH
def test_immutable(kind: Any) -> None:
    record = kind.unpack(bytes(wire_size(kind)))
    for name in (*shown(kind), "level", "new"):
        with pytest.raises(AttributeError):
            setattr(record, name, 1)
        with pytest.raises(AttributeError):
            delattr(record, name)


@pytest.mark.parametrize(
    "kind", [kind for kind in STRUCTS if wire_size(kind)], ids=lambda kind: kind.__name__
)
def test_a_payload_that_is_too_short_is_truncated(kind: Any) -> None:
    size = wire_size(kind)
    for short in {size - 1, 0}:
        with pytest.raises(MalformedControlError, match=rf"^(\w+\.)*{kind.__name__}: .*truncated"):
            kind.unpack(bytes(short))


@pytest.mark.parametrize(
    "kind", [kind for kind in STRUCTS if is_fixed(kind)], ids=lambda kind: kind.__name__
)
def test_a_payload_that_is_too_long_is_malformed(kind: Any) -> None:
    size = wire_size(kind)
    for long in (size + 1, 2 * size + 1):
        with pytest.raises(MalformedControlError, match=kind.__name__) as caught:
            kind.unpack(bytes(long))
        assert "truncated" not in str(caught.value)


@EACH
def test_made_of_its_fields(kind: Any) -> None:
    for data in made_payloads(kind, 10):
        record = kind.unpack(data)
        given = values(record)
        if kind is kinds.RxrpcCallTimeouts and given["idle"] is None:
            del given["normal"]
        made = kind(**given)
        assert values(made) == values(record)
        assert kind(*given.values()) == made
        assert kind.unpack(made.pack()) == made
    with pytest.raises(TypeError):
        kind(**given, surplus=1)
    with pytest.raises(TypeError):
        kind(*given.values(), *[1] * 40)


# What a constructor takes for something else: one's own.
MEANT: dict[Any, set[int]] = {cmsgx.Credentials: {-1}}
INTEGERS = [
    (kind, field)
    for kind in STRUCTS
    for field in fields_of(kind)
    if field.format in {**SIGNED, **UNSIGNED} and field.__name__ in shown(kind)
]


@pytest.mark.parametrize(
    ("kind", "field"), INTEGERS, ids=[f"{kind.__name__}.{f.__name__}" for kind, f in INTEGERS]
)
def test_bounds_of_integers(kind: Any, field: Any) -> None:
    name, format = field.__name__, field.format
    bits = {**SIGNED, **UNSIGNED}[format]
    least, most = field.bounds or (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if format in SIGNED else (0, 2**bits - 1)
    )
    given = values(kind._restore(bytes(max(kind._codec.min_size, 0)), 0))
    if kind is kinds.RxrpcCallTimeouts:
        given["idle"] = 0
    for value in (least, most, 1):
        made = kind(**{**given, name: value})
        assert getattr(made, name) == (bool(value) if type(getattr(made, name)) is bool else value)
    for value in {least - 1, most + 1, 1 << 100, -(1 << 100)} - MEANT.get(kind, set()):
        error = ValueError if field.bounds else OverflowError
        with pytest.raises(error, match=rf"{kind.__name__}\.{name}"):
            kind(**{**given, name: value})
        # What arrives may be anything.
        if field.bounds and -(2**31) <= value < 2**31 and format == "i":
            kind.unpack(struct.pack("=i", value))
    is_truth = type(getattr(kind._restore(bytes(kind._codec.min_size), 0), name)) is bool
    for wrong in ("1", 1.0, b"1", *([] if is_truth else [True])):
        with pytest.raises(TypeError, match=rf"{kind.__name__}\.{name}"):
            kind(**{**given, name: wrong})


OTHERS = [
    (kind, field)
    for kind in STRUCTS
    for field in fields_of(kind)
    if field.format in "aAst" and field.__name__ in shown(kind)
]


@pytest.mark.parametrize(
    ("kind", "field"), OTHERS, ids=[f"{kind.__name__}.{f.__name__}" for kind, f in OTHERS]
)
def test_what_is_no_value_of_a_field(kind: Any, field: Any) -> None:
    name = field.__name__
    given = values(kind._restore(bytes(max(kind._codec.min_size, 0)), 0))
    for wrong in (1, None, 1.5):
        with pytest.raises(TypeError):
            kind(**{**given, name: wrong})
    if field.format == "t":
        for right in (b"", b"\0\1", bytearray(b"12345"), memoryview(b"abc")):
            if issubclass(kind, _ipv6._Header):
                continue  # has a length of its own
            assert getattr(kind(**{**given, name: right}), name) == right
        return
    for size in (0, field.size - 1, field.size + 1):
        with pytest.raises(ValueError, match=r"\d"):
            kind(**{**given, name: bytes(size)})


# The numbers, written out -----------------------------------------------------------------------

# struct rds_rdma_notify and struct rds_cmsg_rx_trace: i386 aligns their 64 bits to 4.
RDMA_NOTIFY = struct.Struct("@Qi0Q")
RX_TRACE = struct.Struct("@4B3Q")
LINUX: dict[str, tuple[int, int, str, int, str]] = {
    # Name: level, type, direction, bytes at least, family.
    "PacketAuxdata": (263, 8, "receive", 20, "AF_PACKET"),
    "NetlinkPacketInfo": (270, 3, "receive", 4, "AF_NETLINK"),
    "NetworkNamespaceId": (270, 8, "receive", 4, "AF_NETLINK"),
    "AlgIv": (279, 2, "send", 4, "AF_ALG"),
    "AlgOperation": (279, 3, "send", 4, "AF_ALG"),
    "AlgAssociatedLength": (279, 4, "send", 4, "AF_ALG"),
    "J1939DestinationAddress": (107, 1, "receive", 1, "AF_CAN"),
    "J1939DestinationName": (107, 2, "receive", 8, "AF_CAN"),
    "J1939Priority": (107, 3, "receive", 1, "AF_CAN"),
    "SctpInit": (132, 0, "send", 8, "AF_INET6"),
    "SctpSendReceiveInfo": (132, 1, "both", 32, "AF_INET6"),
    "SctpSendInfo": (132, 2, "send", 16, "AF_INET6"),
    "SctpReceiveInfo": (132, 3, "receive", 28, "AF_INET6"),
    "SctpNextInfo": (132, 4, "receive", 16, "AF_INET6"),
    "SctpPartialReliability": (132, 5, "send", 8, "AF_INET6"),
    "SctpAuthInfo": (132, 6, "send", 2, "AF_INET6"),
    "SctpDestination4": (132, 7, "send", 4, "AF_INET"),
    "SctpDestination6": (132, 8, "send", 16, "AF_INET6"),
    "DccpPriority": (269, 1, "send", 4, "AF_INET"),
    "BluetoothPacketStatus": (274, 3, "receive", 1, "AF_BLUETOOTH"),
    "BluetoothSequenceNumber": (274, 5, "receive", 2, "AF_BLUETOOTH"),
    "HciDirection": (0, 1, "receive", 4, "AF_BLUETOOTH"),
    "HciTimestamp": (0, 2, "receive", OLD_TIME.size, "AF_BLUETOOTH"),
    "RdsRdmaArgs": (276, 1, "send", 56, "AF_RDS"),
    "RdsRdmaDestination": (276, 2, "both", 8, "AF_RDS"),
    "RdsRdmaMap": (276, 3, "send", 32, "AF_RDS"),
    "RdsRdmaStatus": (276, 4, "receive", RDMA_NOTIFY.size, "AF_RDS"),
    "RdsCongestionUpdate": (276, 5, "receive", 8, "AF_RDS"),
    "RdsAtomicAdd": (276, 6, "send", 72, "AF_RDS"),
    "RdsAtomicCompareSwap": (276, 7, "send", 72, "AF_RDS"),
    "RdsMaskedAtomicAdd": (276, 8, "send", 72, "AF_RDS"),
    "RdsMaskedAtomicCompareSwap": (276, 9, "send", 72, "AF_RDS"),
    "RdsReceiveLatency": (276, 11, "receive", RX_TRACE.size, "AF_RDS"),
    "RdsZeroCopyCookie": (276, 12, "send", 4, "AF_RDS"),
    "RdsZeroCopyCompletion": (276, 13, "receive", 36, "AF_RDS"),
    "RxrpcCallId": (272, 1, "both", struct.calcsize("@L"), "AF_RXRPC"),
    "RxrpcAbort": (272, 2, "both", 4, "AF_RXRPC"),
    "RxrpcAck": (272, 3, "receive", 0, "AF_RXRPC"),
    "RxrpcNetworkError": (272, 5, "receive", 4, "AF_RXRPC"),
    "RxrpcBusy": (272, 6, "receive", 0, "AF_RXRPC"),
    "RxrpcLocalError": (272, 7, "receive", 4, "AF_RXRPC"),
    "RxrpcNewCall": (272, 8, "receive", 0, "AF_RXRPC"),
    "RxrpcExclusiveCall": (272, 10, "send", 0, "AF_RXRPC"),
    "RxrpcUpgradeService": (272, 11, "send", 0, "AF_RXRPC"),
    "RxrpcTxLength": (272, 12, "send", 8, "AF_RXRPC"),
    "RxrpcCallTimeouts": (272, 13, "send", 4, "AF_RXRPC"),
    "RxrpcChargeAccept": (272, 14, "send", 0, "AF_RXRPC"),
    "RxrpcOobId": (272, 15, "both", 8, "AF_RXRPC"),
    "RxrpcChallenged": (272, 16, "receive", 4, "AF_RXRPC"),
    "RxrpcRespond": (272, 17, "send", 0, "AF_RXRPC"),
    "RxrpcResponded": (272, 18, "receive", 0, "AF_RXRPC"),
    "RxrpcAppData": (272, 19, "send", 0, "AF_RXRPC"),
    "IucvTargetClass": (277, 1, "both", 4, "AF_IUCV"),
    "LlcPacketInfo": (268, 9, "receive", 12, "AF_LLC"),
    "LinkQuality": (0, 3, "receive", 1, "AF_IEEE802154"),
    "MisdnTimestamp": (0, 1, "receive", OLD_TIME.size, "AF_ISDN"),
    "TipcReturned": (271, 1, "receive", 8, "AF_TIPC"),
    "TipcReturnedData": (271, 2, "receive", 0, "AF_TIPC"),
    "TipcDestination": (271, 3, "receive", 12, "AF_TIPC"),
}
FAMILIES = {
    "AF_INET": 2, "AF_INET6": 10, "AF_NETLINK": 16, "AF_PACKET": 17, "AF_RDS": 21, "AF_LLC": 26,
    "AF_CAN": 29, "AF_TIPC": 30, "AF_BLUETOOTH": 31, "AF_IUCV": 32, "AF_RXRPC": 33, "AF_ISDN": 34,
    "AF_IEEE802154": 36, "AF_ALG": 38,
}  # fmt: skip


@pytest.mark.parametrize("name", LINUX)
def test_numbers_of_linux(name: str) -> None:
    level, type, direction, size, family = LINUX[name]
    kind = getattr(kinds, name)
    row = _table.row_of(kind)
    assert (kind.level, kind.type) == (level, type)
    assert (row.direction, wire_size(kind)) == (direction, size)
    assert FAMILIES[family] in row.families
    if direction != "send":
        decoded = cmsgx.decode(level, type, bytes(size), FAMILIES[family])
        assert decoded == kind.unpack(bytes(size))
    for other in set(FAMILIES.values()) - row.families:
        assert _table.lookup(level, type, other) is not kind


@pytest.mark.parametrize(
    ("family", "type", "kind"),
    [
        ("AF_INET", 1, "Tos"), ("AF_INET", 2, "Ttl"), ("AF_BLUETOOTH", 1, "HciDirection"),
        ("AF_BLUETOOTH", 2, "HciTimestamp"), ("AF_ISDN", 1, "MisdnTimestamp"),
        ("AF_IEEE802154", 3, "LinkQuality"), ("AF_INET6", 3, "SecurityLabel"),
    ],
)  # fmt: skip
def test_level_0_is_told_apart_by_the_family(family: str, type: int, kind: str) -> None:
    assert _table.lookup(0, type, FAMILIES[family]) is getattr(kinds, kind)
    assert _table.lookup(0, type, socket.AF_UNIX) is None


def test_without_a_family_level_0_is_that_of_ip() -> None:
    assert cmsgx.decode(0, 1, b"\1") == kinds.Tos(1)
    assert cmsgx.decode(0, 2, struct.pack("=i", 64)) == kinds.Ttl(64)
    assert cmsgx.decode(0, 3, b"label") == cmsgx.SecurityLabel(b"label")
    stats = cmsgx.decode(1, 54, b"", family=FAMILIES["AF_CAN"])
    assert (type(stats), type(cmsgx.decode(1, 54, b""))) == (kinds.J1939Stats, kinds.TcpStats)


# Each family ------------------------------------------------------------------------------------


def test_packet_auxdata() -> None:
    status = 0x01 | 0x10 | 0x40 | 0x80
    data = struct.pack("=IIIHHHH", status, 1500, 96, 0, 14, 0b101_0_000000101010, 0x8100)
    aux = kinds.PacketAuxdata.unpack(data)
    assert aux.status == status
    assert kinds.PacketStatus.CSUM_VALID in aux.status
    assert (aux.length, aux.snaplen, aux.mac, aux.net) == (1500, 96, 0, 14)
    assert (aux.vlan_id, aux.vlan_priority, aux.vlan_protocol) == (42, 5, 0x8100)
    assert aux == kinds.PacketAuxdata(
        status=kinds.PacketStatus(status), length=1500, snaplen=96, net=14, vlan_tci=aux.vlan_tci,
        vlan_tpid=0x8100,
    )  # fmt: skip


def test_packet_auxdata_without_a_tag() -> None:
    aux = kinds.PacketAuxdata(kinds.PacketStatus.USER, 60, 60, vlan_tci=0xFFFF, vlan_tpid=0x8100)
    assert (aux.vlan_id, aux.vlan_priority, aux.vlan_protocol) == (None, None, None)
    # Before Linux 3.14.
    old = kinds.PacketAuxdata(kinds.PacketStatus.VLAN_VALID, 60, 60, vlan_tci=7)
    assert (old.vlan_id, old.vlan_priority, old.vlan_protocol) == (7, 0, None)
    unknown = kinds.PacketAuxdata(kinds.PacketStatus(1 << 20), 60, 60)
    assert unknown.status == 1 << 20


def test_alg_iv_has_its_length_before_it() -> None:
    iv = kinds.AlgIv(b"0123456789abcdef")
    assert iv.pack() == struct.pack("=I", 16) + b"0123456789abcdef"
    assert kinds.AlgIv.unpack(iv.pack()) == iv == kinds.AlgIv(iv=bytearray(iv.iv))
    assert repr(iv) == "AlgIv(iv=b'0123456789abcdef')"
    assert kinds.AlgIv(b"").pack() == bytes(4)
    for length in range(4, 20):
        for read in (kinds.AlgIv.unpack, lambda data: cmsgx.decode(279, 2, data)):
            with pytest.raises(MalformedControlError, match="truncated"):
                read(iv.pack()[:length])
    with pytest.raises(MalformedControlError, match=r"vector of 16 bytes, and 17 came$"):
        kinds.AlgIv.unpack(iv.pack() + b"x")
    with pytest.raises(TypeError):
        kinds.AlgIv("text")  # type: ignore[arg-type]


def test_alg_operations() -> None:
    assert kinds.AlgOperation(kinds.AlgDirection.DECRYPT).pack() == struct.pack("=I", 0)
    assert kinds.AlgOperation(kinds.AlgDirection.ENCRYPT).pack() == struct.pack("=I", 1)
    assert kinds.AlgOperation(kinds.AlgDirection(7)).operation == 7
    assert kinds.AlgAssociatedLength(12).pack() == struct.pack("=I", 12)


def test_sctp_layouts() -> None:
    info = kinds.SctpSendReceiveInfo(1, 2, kinds.SctpFlags.UNORDERED, 4, 5, 6, 7, 8, -9)
    assert info.pack() == struct.pack("=HHHxxIIIIIi", 1, 2, 1, 4, 5, 6, 7, 8, -9)
    flags = kinds.SctpFlags.EOF | kinds.SctpFlags.SACK_IMMEDIATELY
    sent = kinds.SctpSendInfo(3, flags, socket.htonl(46), 0xABCD, -1)
    assert sent.pack() == struct.pack("=HH4sIi", 3, 0x208, b"\0\0\0\x2e", 0xABCD, -1)
    came = kinds.SctpReceiveInfo.unpack(
        struct.pack("=HHHxx4sIIIi", 3, 9, 1, b"\0\0\0\x2e", 7, 6, 5, 4)
    )
    assert (came.stream, came.ssn, came.flags) == (3, 9, kinds.SctpFlags.UNORDERED)
    assert socket.ntohl(came.ppid) == 46
    assert (came.tsn, came.cumulative_tsn, came.context, came.association) == (7, 6, 5, 4)
    assert kinds.SctpNextInfo(1, flags, 2, 3, 4).pack() == struct.pack("=HHIIi", 1, 0x208, 2, 3, 4)
    assert kinds.SctpInit(1, 2, 3, 4).pack() == struct.pack("=HHHH", 1, 2, 3, 4)
    assert kinds.SctpInit().pack() == bytes(8)
    policy = kinds.SctpPartialReliability(kinds.SctpPolicy.RTX, 3)
    assert policy.pack() == struct.pack("=HxxI", 0x20, 3)
    assert kinds.SctpAuthInfo(5).pack() == struct.pack("=H", 5)
    assert kinds.SctpDestination4("192.0.2.1").pack() == bytes([192, 0, 2, 1])
    assert kinds.SctpDestination6("::1").pack() == bytes(15) + b"\1"


def test_the_event_of_sctp_is_one_byte_of_its_option() -> None:
    (option,) = _table.row_of(kinds.SctpSendReceiveInfo).options
    assert (option.level, option.name, option.on, option.is_mask) == (132, 11, b"\1", True)


def test_hci() -> None:
    assert kinds.HciDirection.unpack(struct.pack("=i", 1)).incoming is True
    assert kinds.HciDirection.unpack(struct.pack("=i", 0)).incoming is False
    assert kinds.HciDirection(True).pack() == struct.pack("=i", 1)
    stamp = kinds.HciTimestamp.unpack(OLD_TIME.pack(3, 5))
    assert stamp == kinds.HciTimestamp(3_000_005_000)
    assert kinds.HciTimestamp.unpack(OLD_TIME.pack(0, 0)).nanoseconds is None
    assert kinds.MisdnTimestamp(3_000_005_999).pack() == OLD_TIME.pack(3, 5)


def test_rds_cookies_are_a_tuple() -> None:
    done = kinds.RdsZeroCopyCompletion.unpack(struct.pack("=I8I", 2, 7, 8, *range(6)))
    assert done.cookies == (7, 8)
    assert repr(done) == "RdsZeroCopyCompletion(cookies=(7, 8))"
    made = kinds.RdsZeroCopyCompletion(iter([7, 8]))
    assert made.pack() == struct.pack("=I8I", 2, 7, 8, *[0] * 6)
    assert made.cookies == done.cookies
    # As many as there can be, whatever the count says.
    assert len(kinds.RdsZeroCopyCompletion.unpack(b"\xff" * 36).cookies) == 8
    with pytest.raises(ValueError, match="8 at most"):
        kinds.RdsZeroCopyCompletion(range(9))
    with pytest.raises(OverflowError):
        kinds.RdsZeroCopyCompletion([1 << 32])
    with pytest.raises(TypeError):
        kinds.RdsZeroCopyCompletion(1)  # type: ignore[arg-type]


def test_rds_latencies_have_names() -> None:
    stage = kinds.RdsReceiveStage
    came = kinds.RdsReceiveLatency.unpack(RX_TRACE.pack(2, 2, 0, 9, 100, 200, 300))
    assert came.latencies == {stage.DGRAM_DELIVERED: 100, stage.HDR_TO_DGRAM_START: 200}
    made = kinds.RdsReceiveLatency({stage.DGRAM_DELIVERED: 100, 0: 200})
    assert made.latencies == came.latencies
    assert repr(made).startswith("RdsReceiveLatency(latencies={<RdsReceiveStage.DGRAM_DELIVERED")
    with pytest.raises(ValueError, match="3 at most"):
        kinds.RdsReceiveLatency(dict.fromkeys(range(4), 1))
    (option,) = _table.row_of(kinds.RdsReceiveLatency).options
    assert (option.level, option.name, option.on) == (276, 10, bytes([3, 0, 1, 2]))


def test_rds_atomic_operations() -> None:
    swap = kinds.RdsAtomicCompareSwap(1, 2, 3, compare=4, swap=5, user_token=7)
    assert swap.pack() == struct.pack("=3Q4Q2Q", 1, 2, 3, 4, 5, 0, 0, 0, 7)
    add = kinds.RdsAtomicAdd(1, 2, 3, 4, kinds.RdsFlags.NOTIFY_ME)
    assert add.pack() == struct.pack("=3Q4Q2Q", 1, 2, 3, 4, 0, 0, 0, 0x20, 0)
    masked = kinds.RdsMaskedAtomicCompareSwap(1, 2, 3, 4, 5, 6, 7, kinds.RdsFlags(8), 9)
    assert masked.pack() == struct.pack("=9Q", *range(1, 10))
    masked_add = kinds.RdsMaskedAtomicAdd(1, 2, 3, 4, 5)
    assert masked_add.pack() == struct.pack("=9Q", 1, 2, 3, 4, 5, 0, 0, 0, 0)
    status = kinds.RdsRdmaStatus.unpack(RDMA_NOTIFY.pack(7, 3))
    assert (status.user_token, status.status) == (7, kinds.RdsStatus.DROPPED)


def test_rxrpc_timeouts_may_be_fewer() -> None:
    timeouts = kinds.RxrpcCallTimeouts
    assert timeouts(1).pack() == struct.pack("=I", 1)
    assert timeouts(1, 2).pack() == struct.pack("=2I", 1, 2)
    assert timeouts(1, 2, 3).pack() == struct.pack("=3I", 1, 2, 3)
    assert timeouts(1, None) == timeouts(1)
    assert (timeouts(1).idle, timeouts(1, 2).normal) == (None, None)
    with pytest.raises(ValueError, match="idle"):
        timeouts(1, normal=3)
    with pytest.raises(MalformedControlError):
        timeouts.unpack(bytes(13))


def test_rxrpc_challenges_have_an_enctype_or_not() -> None:
    rxkad = kinds.RxrpcChallenged.unpack(struct.pack("=HBx", 2, 2))
    assert (rxkad.service, rxkad.security, rxkad.enctype) == (2, 2, None)
    assert rxkad == kinds.RxrpcChallenged(2, 2)
    rxgk = kinds.RxrpcChallenged.unpack(struct.pack("=HBxI", 2, 4, 17))
    assert rxgk.enctype == 17
    assert rxgk == kinds.RxrpcChallenged(2, 4, 17)


def test_rxrpc_errors_are_exceptions() -> None:
    for kind in (kinds.RxrpcNetworkError, kinds.RxrpcLocalError):
        error = kind.unpack(struct.pack("=I", 111)).error
        assert type(error) is ConnectionRefusedError
        assert error.errno == 111
    assert kinds.RxrpcAck() == kinds.RxrpcAck.unpack(b"")
    assert repr(kinds.RxrpcAck()) == "RxrpcAck()"


def test_llc_and_tipc() -> None:
    info = kinds.LlcPacketInfo.unpack(struct.pack("=iB6sx", 1, 0x42, b"\2\0\0\0\0\1"))
    assert (info.interface, info.sap, info.mac) == (1, 0x42, b"\2\0\0\0\0\1")
    assert info.interface_name == socket.if_indextoname(1)
    came_back = kinds.TipcReturned.unpack(struct.pack("=II", 2, 5))
    assert (came_back.error, came_back.length) == (kinds.TipcError.NO_PORT, 5)
    destination = kinds.TipcDestination.unpack(struct.pack("=III", 1000, 1, 3))
    assert (destination.service, destination.lower, destination.upper) == (1000, 1, 3)
    assert destination.type == 3


# Other systems ----------------------------------------------------------------------------------

ELSEWHERE = [
    value
    for name in [*kinds._bsd.__all__, *kinds._bsd_senders.__all__]
    for value in [getattr(kinds, name)]
    if issubclass(value, kinds.ControlMessage)
]


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux")
@pytest.mark.parametrize("kind", ELSEWHERE, ids=lambda kind: kind.__name__)
def test_kinds_that_linux_has_not_are_there_and_say_so(kind: Any) -> None:
    assert re.search(r"FreeBSD|NetBSD|OpenBSD|macOS", kind.__doc__)
    assert kind not in _table._rows
    left, right = unix_pair()
    with left, right:
        cmsgx.send(left, b"x", fds=[0])
        with cmsgx.receive(right, 9, fds=1) as message:
            assert message.get(kind) is None
            assert message.get(kind, "none") == "none"
            assert kind not in message
            assert message.get_all(kind) == ()
            with pytest.raises(KeyError, match="not supported on this system"):
                message[kind]
        required = 5 if kind in (kinds.Sockcred, kinds.Sockcred2) else 0
        for call in (
            lambda: kind(*range(required)),
            lambda: kind.unpack(bytes(100)),
            lambda: cmsgx.enable(left, kind),
            lambda: cmsgx.Receiver(left, 9, want=[kind]),
            lambda: cmsgx.BatchReceiver(left, 1, 9, want=[kind]),
        ):
            with pytest.raises(cmsgx.NotSupportedError, match="not supported on") as no:
                call()
            assert no.value.errno == errno.ENOPROTOOPT


# Real sockets -----------------------------------------------------------------------------------

NETLINK_ROUTE, NETLINK_KOBJECT_UEVENT = 0, 15
ETH_P_ALL = 3
AF_RDS, AF_LLC, AF_BLUETOOTH, AF_RXRPC, AF_ISDN, AF_IEEE802154 = 21, 26, 31, 33, 34, 36
SOCK_DCCP = 6
IPPROTO_SCTP, IPPROTO_DCCP = 132, 33
BTPROTO_HCI = 1

SWITCHED: list[tuple[Any, int, int, int]] = [
    (kinds.PacketAuxdata, socket.AF_PACKET, socket.SOCK_RAW, 0),
    (kinds.NetlinkPacketInfo, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE),
    (kinds.NetworkNamespaceId, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE),
    (kinds.SctpReceiveInfo, socket.AF_INET, socket.SOCK_SEQPACKET, IPPROTO_SCTP),
    (kinds.SctpNextInfo, socket.AF_INET6, socket.SOCK_SEQPACKET, IPPROTO_SCTP),
    (kinds.SctpSendReceiveInfo, socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP),
    (kinds.DccpPriority, socket.AF_INET, SOCK_DCCP, IPPROTO_DCCP),
    (kinds.HciDirection, AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI),
    (kinds.HciTimestamp, AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI),
    (kinds.RdsCongestionUpdate, AF_RDS, socket.SOCK_SEQPACKET, 0),
    (kinds.RdsReceiveLatency, AF_RDS, socket.SOCK_SEQPACKET, 0),
    (kinds.RdsZeroCopyCompletion, AF_RDS, socket.SOCK_SEQPACKET, 0),
    (kinds.RxrpcChallenged, AF_RXRPC, socket.SOCK_DGRAM, socket.AF_INET),
    (kinds.LlcPacketInfo, AF_LLC, socket.SOCK_DGRAM, 0),
    (kinds.LinkQuality, AF_IEEE802154, socket.SOCK_DGRAM, 0),
    (kinds.MisdnTimestamp, AF_ISDN, socket.SOCK_DGRAM, 0x21),
]


@contextmanager
def opened(family: int, type: int, protocol: int) -> Iterator[socket.socket]:
    try:
        sock = socket.socket(family, type, protocol)
    except OSError as error:
        pytest.skip(f"socket({family}, {type}, {protocol}): errno {error.errno}, {error.strerror}")
    with sock:
        yield sock


@pytest.mark.parametrize(
    ("kind", "family", "type", "protocol"), SWITCHED, ids=[row[0].__name__ for row in SWITCHED]
)
def test_switched_on_and_off_again(kind: Any, family: int, type: int, protocol: int) -> None:
    (option,) = _table.row_of(kind).options
    # Of HCI's the kernel writes one byte; what Python has behind it can be anything.
    told = 1 if family == AF_BLUETOOTH else option.size
    with opened(family, type, protocol) as sock:

        def now() -> bytes | None:
            try:
                return sock.getsockopt(option.level, option.name, option.size)[:told]
            except OSError:
                return None  # one that the kernel takes, and does not tell

        before = now()
        try:
            handle = cmsgx.enable(sock, kind)
        except (cmsgx.errors.NotSupportedError, PermissionError) as error:
            pytest.skip(f"{option.text}: errno {error.errno}, {error.strerror}")
        with handle:
            assert before is None or now() != before
        assert now() == before
        # What is not switched on, but comes always, has room; and no other option is in the way.
        cmsgx.Receiver(sock, 100)


def test_the_kernel_takes_an_option_that_it_tells_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As mISDN: getsockopt(2) has another size, EINVAL. As HCI: another channel, EBADFD."""
    (option,) = _table.row_of(kinds.NetlinkPacketInfo).options
    getsockopt, setsockopt = _cmsg.getsockopt, _cmsg.setsockopt
    answer = errno.EINVAL
    was_set: list[bytes] = []

    def read(sock: Any, level: int, name: int, size: int, /) -> bytes:
        if (level, name) == (option.level, option.name):
            raise OSError(answer, "refused")
        return getsockopt(sock, level, name, size)

    def write(sock: Any, level: int, name: int, value: Any, /) -> None:
        was_set.append(value)
        setsockopt(sock, level, name, value)

    monkeypatch.setattr(_cmsg, "getsockopt", read)
    monkeypatch.setattr(_cmsg, "setsockopt", write)
    with opened(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE) as sock:
        with cmsgx.enable(sock, kinds.NetlinkPacketInfo):
            assert was_set == [option.on]
        assert was_set == [option.on, bytes(4)]
        cmsgx.Receiver(sock, 100)
        answer = errno.EBADFD
        cmsgx.Receiver(sock, 100)
        with pytest.raises(OSError, match="refused") as caught:
            cmsgx.enable(sock, kinds.NetlinkPacketInfo)
        assert caught.value.errno == errno.EBADFD
        answer = errno.EBADF
        with pytest.raises(OSError, match="refused"):
            cmsgx.Receiver(sock, 100)


@pytest.mark.parametrize("room", [2048, 64])
def test_packet_auxdata_from_the_kernel(room: int) -> None:
    with opened(socket.AF_PACKET, socket.SOCK_RAW, 0) as sniffer:
        cmsgx.enable(sniffer, kinds.PacketAuxdata)
        sniffer.bind(("lo", ETH_P_ALL))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.sendto(bytes(100), sender.getsockname())
            port = struct.pack("!H", sender.getsockname()[1])
        while True:
            data, control, _, _ = sniffer.recvmsg(room, 100)
            if data[34:38] == 2 * port:
                break
        (aux,) = [cmsgx.decode(*one, family=socket.AF_PACKET) for one in control]
        assert type(aux) is kinds.PacketAuxdata
        assert (aux.length, aux.snaplen, aux.mac, aux.net) == (142, 142, 0, 14)
        assert kinds.PacketStatus.VLAN_VALID not in aux.status
        assert (aux.vlan_id, aux.vlan_priority) == (None, None)


def test_the_group_of_a_netlink_message() -> None:
    with opened(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sock:
        rx = cmsgx.Receiver(sock, 4096, want=[kinds.NetlinkPacketInfo])
        sock.bind((0, 1))
        with opened(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_KOBJECT_UEVENT) as sender:
            try:
                sender.sendto(b"to all", (0, 1))
            except OSError as error:
                pytest.skip(f"sendto a group: errno {error.errno}, {error.strerror}")
            sender.sendto(b"to one", (sock.getsockname()[0], 0))
        found = {}
        for message in rx:
            found[message.data] = message[kinds.NetlinkPacketInfo].group
            if message.data == b"to one":
                break
        assert (found[b"to all"], found[b"to one"]) == (1, 0)


# Positions ----------------------------------------------------------------------------------------

ALL_KINDS = [
    kind
    for name in (*kinds.__all__, "Rights", "Credentials", "SecurityLabel")
    for kind in [getattr(kinds, name)]
    if isinstance(kind, type)
    and issubclass(kind, kinds.ControlMessage)
    and kind not in (kinds.ControlMessage, kinds.StructMessage)
]
EACH_OF_ALL = pytest.mark.parametrize(
    "kind", dict.fromkeys(ALL_KINDS), ids=lambda kind: str(kind.__name__)
)


@EACH_OF_ALL
def test_the_signature_has_the_fields_in_order(kind: Any) -> None:
    """Of those that this system has not, too."""
    signature = inspect.signature(kind)
    assert tuple(signature.parameters) == kind.__match_args__
    assert signature.return_annotation is signature.empty
    for parameter in signature.parameters.values():
        assert parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        assert parameter.annotation is not parameter.empty, parameter


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (kinds.Ttl, "(ttl: 'int')"),
        (kinds.UdpSegment, "(size: 'int')"),
        (kinds.RxrpcAck, "()"),
        (cmsgx.Credentials, "(pid: 'int | None' = -1, uid: 'int' = -1, gid: 'int' = -1)"),
        (cmsgx.Rights, "(fds: 'FileDescriptors')"),
        (cmsgx.Unknown, "(level: 'int', type: 'int', data: 'Buffer')"),
        (
            kinds.PacketInfo6,
            "(address: 'IPMember' = IPAddress('::'), interface: 'int' = 0)",
        ),
    ],
)
def test_a_signature(kind: Any, text: str) -> None:
    assert str(inspect.signature(kind)) == text


def test_what_is_no_kind_has_no_signature_of_one() -> None:
    for other in (kinds.Ttl(1), kinds.ControlMessage, kinds.StructMessage):
        assert not hasattr(other, "__signature__")


@EACH
def test_fields_match_by_their_position(kind: Any) -> None:
    record = kind.unpack(next(made_payloads(kind, 1)))
    names = [f"v{i}" for i in range(len(kind.__match_args__))]
    scope: dict[str, Any] = {"record": record, "Kind": kind}
    source = f"match record:\n case Kind({', '.join(names)}): found = ({', '.join(names)},)"
    exec(source.replace("(,)", "()"), scope)
    assert scope["found"] == tuple(values(record).values())


def test_case_ttl() -> None:
    def told(message: Any) -> str:
        match message:
            case kinds.Ttl(ttl) if ttl > 100:
                return "near"
            case kinds.Ttl(ttl):
                return f"{ttl} hops left"
            case cmsgx.Credentials(_, uid, _):
                return f"of {uid}"
            case cmsgx.Rights((first, *_)):
                return f"descriptor {first}"
            case cmsgx.Unknown(level, _, data):
                return f"{level}: {data!r}"
            case _:
                return ""

    messages = [
        kinds.Ttl(255), kinds.Ttl(7), cmsgx.Credentials(1, 5, 6), cmsgx.Rights([3, 4]),
        cmsgx.Unknown(1, 2, b"x"), kinds.HopLimit(7),
    ]  # fmt: skip
    assert [told(one) for one in messages] == [
        "near", "7 hops left", "of 5", "descriptor 3", "1: b'x'", "",
    ]  # fmt: skip


def test_a_class_may_match_as_it_says() -> None:
    class Own(kinds.StructMessage):
        __slots__ = ()
        __match_args__ = ("second", "first")

        first: int = kinds.member()
        second: int = kinds.member()

    class Slots(kinds.ControlMessage):
        __slots__ = ("one", "two")

    with unregistered():
        layout = (("first", 0, "i"), ("second", 4, "i"))
        kinds.register(Own, level=7777, type=1, layout=layout, size=8)
        kinds.register(Slots, level=7777, type=2)
        assert Own.__match_args__ == ("second", "first")
        assert cast("Any", Slots).__match_args__ == ("one", "two")
        match Own(1, 2):
            case Own(2, 1):
                pass
            case other:
                raise AssertionError(other)
        assert str(inspect.signature(Slots)) == "(one, two)"
        assert list(inspect.signature(Own).parameters) == ["first", "second"]
