"""What holds for every registered kind, by its row; and what is special in each family."""

from __future__ import annotations

import copy
import errno
import pickle
import random
import re
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from families import (
    EACH,
    RDMA_NOTIFY,
    ROWS,
    RX_TRACE,
    SIGNED,
    SIZES,
    STRUCTS,
    fields_of,
    is_fixed,
    made_payloads,
    own_form,
    payload,
    shown,
    values,
    wire_size,
)
from support import OLD_TIME, unix_pair

import cmsgx
from cmsgx import kinds
from cmsgx.errors import MalformedControlError
from cmsgx.kinds import _ipv6, _table

EACH_ROW = pytest.mark.parametrize("row", ROWS, ids=[row.kind.__name__ for row in ROWS])
UNSIGNED = {"B": 8, "H": 16, "I": 32, "Q": 64, "n": 16, "N": 32}


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
def test_options_have_space_for_the_payload(row: Any) -> None:
    if row.direction == "send" or not issubclass(row.kind, kinds.StructMessage):
        return
    # An option may bring only another form: the one of IPv4.
    least = min(wire_size(row.kind), *(SIZES.get(form.encoding, 1 << 20) for form in row.formats))
    for option in row.options:
        assert len(option.on) == option.size
        # With a size of 0 it brings nothing: what enable() sets switches it off, or its space is
        # always there.
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


# Values that have a special meaning for a constructor: one's own id.
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
        # A received value may be anything.
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
def test_what_is_not_a_value_of_a_field(kind: Any, field: Any) -> None:
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
    with pytest.raises(MalformedControlError, match=r"vector of 16 bytes, but 17 came$"):
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
    # As many as possible, whatever the count says.
    assert len(kinds.RdsZeroCopyCompletion.unpack(b"\xff" * 36).cookies) == 8
    with pytest.raises(ValueError, match="at most 8"):
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
    with pytest.raises(ValueError, match="at most 3"):
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
def test_kinds_that_linux_lacks_are_there_and_say_so(kind: Any) -> None:
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
