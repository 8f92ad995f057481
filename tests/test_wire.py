"""The macros of cmsg(3) over any buffer, without a copy."""

from __future__ import annotations

import array
import random
import socket
import struct
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from support import Pair, open_files

import cmsgx
from cmsgx import wire
from cmsgx.kinds import _row, _table

HEADER = struct.Struct("@Nii")  # struct cmsghdr of Linux
SIZE_T = 2 ** (8 * struct.calcsize("@N"))
INT_MAX = 2**31 - 1
SOL_SOCKET = 1

pytestmark = pytest.mark.skipif(
    HEADER.size != cmsgx.CMSG_LEN(0), reason="struct cmsghdr differs here"
)


def message(level: int, number: int, data: bytes, *, pad: bool = True) -> bytes:
    """A control message as the kernel writes it."""
    raw = HEADER.pack(cmsgx.CMSG_LEN(len(data)), level, number) + data
    return raw.ljust(cmsgx.CMSG_SPACE(len(data)), b"\0") if pad else raw


def walk(control: Any) -> list[tuple[int, int, bytes]]:
    """The result of the three macros."""
    found = []
    header = wire.CMSG_FIRSTHDR(control)
    while header is not None:
        found.append((header.level, header.type, bytes(wire.CMSG_DATA(header))))
        header = wire.CMSG_NXTHDR(control, header)
    return found


# CMSG_LEN, CMSG_SPACE, CMSG_ALIGN ---------------------------------------------------------------

LENGTHS: list[Any] = [
    *range(70),
    *(2**power + offset for power in range(8, 31) for offset in (-1, 0, 1)),
    *(INT_MAX - offset for offset in range(40)),
    *(2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -1, -(2**31), -(2**63), -(2**70)),
    *(True, False, 1.0, "1", None, b"1"),
]


class Index:
    def __index__(self) -> int:
        return 13


def answer(function: Callable[[Any], int], length: Any) -> Any:
    try:
        return function(length)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("name", ["CMSG_LEN", "CMSG_SPACE"])
def test_the_same_answers_as_sockets(name: str) -> None:
    for function in (getattr(cmsgx, name), getattr(wire, name)):
        for length in [*LENGTHS, Index()]:
            expected = answer(getattr(socket, name), length)
            assert answer(function, length) == expected, (name, length)


def test_align() -> None:
    unit = cmsgx.CMSG_SPACE(1) - cmsgx.CMSG_SPACE(0)
    for length in range(100):
        assert cmsgx.CMSG_ALIGN(length) == -(-length // unit) * unit
        assert cmsgx.CMSG_SPACE(length) == cmsgx.CMSG_ALIGN(length) + cmsgx.CMSG_LEN(0)
        assert cmsgx.CMSG_LEN(length) == cmsgx.CMSG_LEN(0) + length
    for length in (-1, INT_MAX, 2**63, 2**70):
        with pytest.raises(OverflowError):
            cmsgx.CMSG_ALIGN(length)
    with pytest.raises(TypeError):
        cmsgx.CMSG_ALIGN("1")  # type: ignore[arg-type]


# Walking ----------------------------------------------------------------------------------------

ONE = message(1, 99, b"data")
TWO = message(99, 8, b"12345678")
CHAINS: dict[str, tuple[bytes, list[tuple[int, int, bytes]]]] = {
    "empty": (b"", []),
    "less than a header": (ONE[: HEADER.size - 1], []),
    "one": (ONE, [(1, 99, b"data")]),
    "two": (ONE + TWO, [(1, 99, b"data"), (99, 8, b"12345678")]),
    "last without padding": (
        TWO + message(1, 98, b"abcd", pad=False),
        [(99, 8, b"12345678"), (1, 98, b"abcd")],
    ),
    "only one without padding": (message(1, 98, b"a", pad=False), [(1, 98, b"a")]),
    "header only": (message(5, 6, b""), [(5, 6, b"")]),
    "header only at the end": (ONE + message(5, 6, b""), [(1, 99, b"data"), (5, 6, b"")]),
    "header only between": (
        message(5, 6, b"") + ONE + message(7, 8, b""),
        [(5, 6, b""), (1, 99, b"data"), (7, 8, b"")],
    ),
    "less than a header behind": (ONE + bytes(HEADER.size - 1), [(1, 99, b"data")]),
    "negative numbers": (message(-1, -2, b"x"), [(-1, -2, b"x")]),
}
CHAIN = pytest.mark.parametrize(("control", "expected"), CHAINS.values(), ids=CHAINS)


@CHAIN
@pytest.mark.parametrize(
    "form",
    [
        lambda raw, at: memoryview(bytes(at) + raw + b"\xff" * 40)[at : at + len(raw)],
        lambda raw, at: memoryview(bytearray(bytes(at) + raw))[at:],
    ],
    ids=["bytes", "bytearray"],
)
def test_at_each_offset_of_memory(
    control: bytes, expected: list[Any], form: Callable[[bytes, int], Any]
) -> None:
    for offset in range(16):
        buffer = form(control, offset)
        assert walk(buffer) == expected
        assert len(wire.parse(buffer)) == len(expected)


@CHAIN
@pytest.mark.parametrize("form", [bytes, bytearray, memoryview, lambda raw: array.array("b", raw)])
def test_over_any_buffer(control: bytes, expected: list[Any], form: Callable[[bytes], Any]) -> None:
    assert walk(form(control)) == expected


def test_a_header_has_level_type_and_len() -> None:
    control = ONE + TWO
    first = wire.CMSG_FIRSTHDR(control)
    assert first is not None
    assert (first.level, first.type, first.len) == (1, 99, cmsgx.CMSG_LEN(4))
    second = wire.CMSG_NXTHDR(control, first)
    assert second is not None
    assert (second.level, second.type, second.len) == (99, 8, cmsgx.CMSG_LEN(8))
    assert second.offset == len(ONE)
    assert f"level=99 type=8 len={cmsgx.CMSG_LEN(8)}" in repr(second)
    assert wire.CMSG_NXTHDR(control, second) is None


def test_data_is_not_a_copy_and_is_writable_if_the_buffer_is() -> None:
    control = bytearray(ONE + TWO)
    header = wire.CMSG_FIRSTHDR(control)
    assert header is not None
    data = wire.CMSG_DATA(header)
    assert type(data) is memoryview
    data[:] = b"DATA"
    assert control == ONE.replace(b"data", b"DATA") + TWO
    control[HEADER.size : HEADER.size + 2] = b"--"
    assert bytes(data) == b"--TA"
    with pytest.raises(BufferError):
        control.append(0)


def test_data_of_bytes_is_read_only() -> None:
    header = wire.CMSG_FIRSTHDR(ONE)
    assert header is not None
    data = wire.CMSG_DATA(header)
    assert data.readonly
    assert data.obj is ONE


def test_the_buffer_lives_as_long_as_a_header() -> None:
    header = wire.CMSG_FIRSTHDR(bytearray(ONE))
    assert header is not None
    assert bytes(wire.CMSG_DATA(header)) == b"data"


MALFORMED = {
    "length 0": HEADER.pack(0, 1, 1) + b"1234",
    "length below the header": HEADER.pack(HEADER.size - 1, 1, 1) + b"1234",
    "length past the end": HEADER.pack(HEADER.size + 5, 1, 1) + b"1234",
    "length that wraps": HEADER.pack(SIZE_T - 1, 1, 1) + b"1234",
    "length near the wrap": HEADER.pack(SIZE_T - 8, 1, 1) + b"1234",
    "length that is negative": HEADER.pack(SIZE_T // 2, 1, 1) + b"1234",
    "second one": message(9, 9, b"fine") + HEADER.pack(3, 1, 1) + b"1234",
    "a header of zero bytes": message(9, 9, b"fine") + bytes(HEADER.size),
}


@pytest.mark.parametrize("control", MALFORMED.values(), ids=MALFORMED)
def test_malformed(control: bytes) -> None:
    for offset in range(16):
        buffer = memoryview(bytes(offset) + control + b"\xff" * 64)[offset:][: len(control)]
        headers = [wire.CMSG_FIRSTHDR(buffer)]
        while headers[-1] is not None:
            headers.append(wire.CMSG_NXTHDR(buffer, headers[-1]))
        bad = headers[-2]
        assert bad is not None
        assert not bad.fits
        assert len(headers) <= 3
        assert wire.CMSG_DATA(bad).nbytes <= len(control) - bad.offset
        with pytest.raises(cmsgx.MalformedControlError, match=f"at byte {bad.offset}"):
            wire.parse(buffer)


@pytest.mark.parametrize("wrong", [None, 3, "text", [ONE]])
def test_what_is_not_a_buffer(wrong: Any) -> None:
    with pytest.raises(TypeError):
        wire.CMSG_FIRSTHDR(wrong)
    with pytest.raises(TypeError):
        wire.parse(wrong)


def test_a_buffer_that_is_not_contiguous() -> None:
    with pytest.raises((TypeError, BufferError)):
        wire.CMSG_FIRSTHDR(memoryview(ONE * 2)[::2])


def test_every_byte_may_be_anything() -> None:
    """The macros stay within the buffer, whatever is in it."""
    rng = random.Random(1)
    for _ in range(3000):
        raw = bytearray(ONE + TWO + message(1, 1, b"12"))
        for _ in range(rng.randrange(1, 8)):
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 15, 16, 17, 0x7F, 0x80, 0xFF))
        del raw[rng.randrange(len(raw) + 1) :]
        header = wire.CMSG_FIRSTHDR(raw)
        steps = 0
        while header is not None:
            assert header.offset + wire.CMSG_DATA(header).nbytes + HEADER.size <= len(raw)
            header = wire.CMSG_NXTHDR(raw, header)
            steps += 1
        assert steps <= len(raw) // HEADER.size


# parse, build -----------------------------------------------------------------------------------


def test_build_is_what_the_kernel_takes_and_parse_takes_it_apart() -> None:
    parts = [
        cmsgx.Credentials(1, 2, 3),
        cmsgx.Unknown(9, 9, b""),
        cmsgx.Unknown(9, 8, b"odd"),
        cmsgx.SecurityLabel(b"label"),
    ]
    control = wire.build(parts)
    assert type(control) is bytes
    assert control == message(1, 2, struct.pack("=iII", 1, 2, 3)) + message(9, 9, b"") + message(
        9, 8, b"odd"
    ) + message(1, 3, b"label")
    assert list(wire.parse(control)) == parts
    assert wire.parse(wire.build([])) == ()
    for one in (cmsgx.kinds.Ttl(3), cmsgx.Rights([0, 1])):
        assert wire.build(one) == wire.build([one])
    wrong: Any
    for wrong in (5, None, cmsgx.kinds.Ttl):
        with pytest.raises(
            TypeError, match="control: a control message, or an iterable of them, is needed"
        ):
            wire.build(wrong)
    assert wire.parse(b"") == ()


def test_build_of_rights_holds_numbers(stream: Pair) -> None:
    with open_files(2) as files:
        control = wire.build([cmsgx.Rights(files)])
        assert control == message(1, 1, struct.pack("=2i", *files))
        (rights,) = wire.parse(control)
        assert rights.fds == tuple(files)


def test_what_the_kernel_wrote_is_walked_like_sockets_list(stream: Pair) -> None:
    stream[1].setsockopt(SOL_SOCKET, 16, 1)
    for fds in (0, 1, 2, 3):
        with open_files(fds) as files:
            cmsgx.send(stream[0], b"x", fds=files)
        _, ancdata, _, _ = cmsgx.recvmsg(stream[1], 1, 1000)
        control = b"".join(message(*item) for item in ancdata)
        assert walk(control) == ancdata
        for one in wire.parse(control):
            if isinstance(one, cmsgx.Rights):
                for fd in one.own():
                    fd.close()


def test_padding_is_zeroed_also_in_memory_that_was_used() -> None:
    for length in range(1, 40):
        bytearray(b"\xff" * 200)
        built = wire.build([cmsgx.Unknown(9, 9, b"\xee" * length)] * 2)
        space = cmsgx.CMSG_SPACE(length)
        for at in (0, space):
            assert not any(built[at + cmsgx.CMSG_LEN(length) : at + space])


def test_a_header_shows_what_is_there() -> None:
    """The fields of wire.Header are those of struct cmsghdr, and its repr shows them."""
    control = wire.build([cmsgx.Rights([0])])
    header = wire.CMSG_FIRSTHDR(control)
    assert isinstance(header, wire.Header)
    assert (header.level, header.type) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    assert (header.len, header.offset, header.fits) == (wire.CMSG_LEN(4), 0, True)
    assert repr(header) == f"<Header level=1 type=1 len={wire.CMSG_LEN(4)} at 0>"


# Each kind, built and parsed --------------------------------------------------------------------

# Without those that other tests in this process have registered.
ROWS = tuple(row for row in _table.rows() if row.kind.__module__.startswith("cmsgx"))
# An Fd, which is never sent.
BUILT = [row for row in ROWS if row.kind is not cmsgx.PidFd]


def families(row: _row.Row) -> frozenset[int]:
    """The families in which it has the number that it is built with."""
    return row.formats[0].families


FAMILIES = sorted({family for row in BUILT for family in families(row)} | {socket.AF_UNIX})


@cache
def sizes(kind: Any) -> list[int]:
    """The sizes that its payload may have, up to a limit."""
    found = []
    for size in range(300):
        try:
            kind.unpack(bytes(size))
        except cmsgx.MalformedControlError:
            continue
        found.append(size)
    return found


def anything(rng: random.Random, kind: Any) -> Any:
    """An object of this kind, from a random payload."""
    if kind is cmsgx.Rights:
        # Numbers that descriptors may have; no control message is built for an empty list.
        return kind.unpack(
            array.array("i", [rng.randrange(1 << 31) for _ in range(rng.randint(1, 9))])
        )
    if kind is cmsgx.kinds.AlgIv:
        return kind(rng.randbytes(rng.randrange(40)))  # which begins with its length
    while True:
        try:
            one = kind.unpack(rng.randbytes(rng.choice(sizes(kind))))
            return kind.unpack(one.pack())  # a second has only a million microseconds
        except cmsgx.MalformedControlError:  # not every number is a time
            continue


def assert_built_and_parsed(messages: list[Any], family: int) -> None:
    control = wire.build(messages)
    for offset in range(16):
        memory = bytes(offset) + control + b"\xff" * 40
        found = wire.parse(memoryview(memory)[offset : offset + len(control)], family)
        assert list(found) == messages
        assert [type(one) for one in found] == [type(one) for one in messages]


def found_as(row: _row.Row, family: int) -> Any:
    """The kind for which its number is registered."""
    header = wire.CMSG_FIRSTHDR(wire.build([row.kind.unpack(bytes(sizes(row.kind)[-1]))]))
    assert header is not None
    return _table.lookup(header.level, header.type, family)


@pytest.mark.parametrize("row", BUILT, ids=lambda row: row.kind.__name__)
def test_each_kind_is_built_and_parsed(row: _row.Row) -> None:
    rng = random.Random(row.kind.__name__)
    for family in sorted(families(row)) or FAMILIES:
        taken_for = found_as(row, family)
        if taken_for is row.kind:
            for _ in range(20):
                assert_built_and_parsed([anything(rng, row.kind)], family)
        else:
            # The kernel delivers a different one with this number; only senders use it in this way.
            assert row.direction == "send"
            assert _table.row_of(taken_for).direction != "send"


@pytest.mark.parametrize("family", FAMILIES)
def test_many_kinds_are_built_and_parsed(family: int) -> None:
    rng = random.Random(family)
    here = [row for row in BUILT if not families(row) or family in families(row)]
    kinds = [row.kind for row in here if found_as(row, family) is row.kind]
    for _ in range(50):
        messages = [anything(rng, rng.choice(kinds)) for _ in range(rng.randrange(12))]
        messages.append(cmsgx.Unknown(-9, -9, rng.randbytes(rng.randrange(30))))
        rng.shuffle(messages)
        assert_built_and_parsed(messages, family)
