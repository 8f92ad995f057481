"""docs/hazards.md, part C: control data is read as if a stranger had written it."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import resource
import socket
import struct
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attempts import fails
from hazards import count_open, numbers_in
from native import Shim, under_shim
from support import (
    HEADER,
    Pair,
    close_pair,
    content,
    is_open,
    lengths,
    open_files,
    run_python,
    unix_pair,
)

import cmsgx
from cmsgx import _cmsg, wire

SCM_RIGHTS = socket.SCM_RIGHTS
SOL_SOCKET = socket.SOL_SOCKET

# Up to the last that is less than a header: with 32 bits those of 12 and more are none.
SHORT = dict.fromkeys(("0", "1", "8", str(HEADER - 4), str(HEADER - 1)))
LENGTHS = (*SHORT, "past", "huge", "max")
MALFORMED = (
    *(f"rights-len={length}" for length in LENGTHS),
    *(f"pidfd-len={length}" for length in LENGTHS),
    *(f"used={used}" for used in ("full", "more", "max")),
)
WELL_FORMED = ("split", "pairs", "twins", "bare", "odd", *(f"short-pidfd={n}" for n in range(4)))


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a process of its own."""
    code = f"import test_hazards_parsing as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


class Liar:
    """A pair of sockets under the shim, and what a call does with what it forged."""

    def __init__(self) -> None:
        self.shim = Shim()
        self.left, self.right = unix_pair(socket.SOCK_SEQPACKET)
        self.right.setsockopt(SOL_SOCKET, _cmsg.SO_PASSPIDFD, 1)
        self.wide = cmsgx.Receiver(self.right, 16, fds=4, want=[cmsgx.PidFd])
        self.narrow = cmsgx.Receiver(self.right, 16, fds=1, on_truncation="keep")

    def typed(self) -> dict[str, Callable[[], cmsgx.Message]]:
        return {
            "receive": lambda: cmsgx.receive(self.right, 16, fds=4),
            "receive, none": lambda: cmsgx.receive(self.right, 16),
            "Receiver": self.wide.receive,
            "Receiver, narrow": self.narrow.receive,
            "loop": lambda: next(self.wide),
        }

    def drop_ins(self) -> dict[str, Callable[[], Any]]:
        return {
            "recvmsg": lambda: cmsgx.recvmsg(self.right, 16, 400),
            "recvmsg, large": lambda: cmsgx.recvmsg(self.right, 16, 4000),
            "recvmsg_into": lambda: cmsgx.recvmsg_into(self.right, [bytearray(9)], 400),
            "recv_fds": lambda: cmsgx.recv_fds(self.right, 16, 4),
            "recv_fds, one": lambda: cmsgx.recv_fds(self.right, 16, 1),
        }

    def call(self, mode: str, files: list[int], function: Callable[[], Any]) -> Any:
        """The result, or the exception; closes of what was not delivered are strangers'."""
        cmsgx.send(self.left, b"data", fds=files)
        self.shim.mode(mode)
        try:
            with self.shim.guard():
                return function()
        except (cmsgx.CmsgError, RuntimeWarning) as error:
            error.__traceback__ = None
            return error
        finally:
            self.shim.mode("")

    def close(self, result: Any) -> None:
        """Closes what a call gave."""
        if isinstance(result, cmsgx.Message):
            with self.shim.guard():
                result.close()
        elif isinstance(result, tuple):
            items = result[1]
            numbers = numbers_in(items) if items and isinstance(items[0], tuple) else items
            for number in dict.fromkeys(numbers):
                if self.shim.is_delivered(number) and is_open(number):
                    os.close(number)


def each_mode(function: str, modes: tuple[str, ...], *arguments: object) -> None:
    """Calls a function of this file with each mode, prints what failed."""
    for mode in modes:
        try:
            globals()[function](mode, *arguments)
        except AssertionError:
            print("failed:", mode, traceback.format_exc())


def in_one_child(function: str, modes: tuple[str, ...], *arguments: object) -> None:
    printed = in_child("each_mode", function, modes, *arguments, env=under_shim())
    assert not printed, printed


def malformed_typed(mode: str) -> None:
    liar = Liar()
    with open_files(3) as files:
        for name, function in liar.typed().items():
            before = count_open()
            result = liar.call(mode, files, function)
            if liar.shim.receives() and isinstance(result, cmsgx.Message):
                # The room had no place for the message that the lie is about.
                assert name == "Receiver, narrow", (name, result)
                assert mode.startswith("pidfd"), (name, result)
            else:
                assert isinstance(result, cmsgx.MalformedControlError), (name, result)
            liar.close(result)
            assert liar.shim.leaked() == 0, name
            assert liar.shim.strangers() == 0, name
            liar.shim.forget()
            assert count_open() == before, name


def malformed_drop_in(mode: str, is_error: bool) -> None:
    liar = Liar()
    with open_files(3) as files:
        for name, function in liar.drop_ins().items():
            before = count_open()
            with warnings.catch_warnings(record=not is_error) as caught:
                warnings.simplefilter("error" if is_error else "always")
                result = liar.call(mode, files, function)
            if is_error:
                assert isinstance(result, RuntimeWarning), (name, result)
            else:
                assert caught is not None
                assert [w.category for w in caught] == [RuntimeWarning], (name, result)
                assert "malformed" in str(caught[0].message)
                assert result[0] in (b"data", 4)
            liar.close(result)
            assert liar.shim.leaked() == 0, name
            assert liar.shim.strangers() == 0, name
            liar.shim.forget()
            assert count_open() == before, name


def test_C1_typed_calls_refuse_what_is_malformed() -> None:
    in_one_child("malformed_typed", MALFORMED)


@pytest.mark.parametrize("is_error", [False, True], ids=["warning", "error"])
@pytest.mark.slow
def test_C1_drop_ins_warn_of_what_is_malformed(is_error: bool) -> None:
    in_one_child("malformed_drop_in", MALFORMED, is_error)


def random_lies(count: int) -> None:
    liar = Liar()
    shim = liar.shim
    calls = {**liar.typed(), **liar.drop_ins()}
    chance = random.Random(3)
    outcomes: dict[str, int] = {}
    warnings.simplefilter("ignore")
    with open_files(6) as files:
        before = count_open()
        for seed in range(count):
            shim.seed(seed)
            name = chance.choice(list(calls))
            result = liar.call("random", files[: chance.randrange(7)], calls[name])
            outcome = type(result).__name__
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
            liar.close(result)
            del result
            assert shim.leaked() == 0, (seed, name, outcome)
            assert shim.strangers() == 0, (seed, name, outcome)
            shim.forget()
            if name == "loop":  # which holds the message before
                liar.call("", [], calls[name]).close()
            if seed % 100 == 0:
                assert count_open() == before, (seed, name)
        assert count_open() == before
    print(f"{count} lies: {outcomes}")


@pytest.mark.parametrize("count", lengths("CMSGX_LIES", 2000, 20_000))
def test_C1_random_lies(count: int) -> None:
    print(in_child("random_lies", count, env=under_shim()))


# C2: memory that was not written ----------------------------------------------------------------


def padding_is_zero(control: bytes) -> int:
    """Walks a control buffer that was sent; how many bytes of padding it had."""
    padding = offset = 0
    while offset < len(control):
        length, _, _ = struct.unpack_from("Nii", control, offset)
        end = offset + cmsgx.CMSG_SPACE(length - HEADER)
        rest = control[offset + length : end]
        assert rest == bytes(len(rest)), control.hex()
        padding += len(rest)
        offset = end
    return padding


def sent_padding() -> None:
    shim = Shim()
    left, right = unix_pair(socket.SOCK_DGRAM)
    noise = cmsgx.Unknown(41, 99, b"\xff" * 280)
    padding = expected = 0

    def dirty_the_stack() -> None:
        """Leaves 0xff where the next call has its buffers: another level is ignored by unix."""
        cmsgx.send(left, b"x", control=[noise])

    with open_files(3) as files:
        for count, form in itertools.product((1, 2, 3, 63, 65), range(5)):
            fds = (files * 30)[:count]
            odd = cmsgx.Unknown(41, 98, b"odd" * count)
            dirty_the_stack()
            payloads = [4 * count]
            if form == 0:
                cmsgx.send(left, b"x", fds=fds)
            elif form == 1:
                cmsgx.send(left, b"x", control=[odd, cmsgx.Rights(fds), cmsgx.Credentials()])
                payloads += [len(odd.data), 12]
            elif form == 2:
                cmsgx.sendmsg(left, [b"x"], [odd, cmsgx.Credentials(), cmsgx.Rights(fds)])
                payloads += [len(odd.data), 12]
            elif form == 3:
                cmsgx.send_fds(left, [b"x"], fds)
            else:
                cmsgx.sendmsg(left, [b"x"], [(41, 97, b"7 bytes"), (SOL_SOCKET, SCM_RIGHTS, b"")])
                payloads = [7, 0]
            padding += padding_is_zero(shim.captured())
            expected += sum(socket.CMSG_SPACE(n) - socket.CMSG_LEN(n) for n in payloads)
            with contextlib.suppress(BlockingIOError):
                while True:
                    right.recv(1, socket.MSG_DONTWAIT)
    assert padding == expected > 0
    close_pair((left, right))


def test_C2_padding_that_is_sent_is_zero() -> None:
    in_child("sent_padding", env={**under_shim(), "PYTHONMALLOC": "debug"})


@pytest.mark.parametrize("payload", range(20))
def test_C2_padding_that_is_built_is_zero(payload: int) -> None:
    built = wire.build([cmsgx.Unknown(1, 99, b"\xff" * payload), cmsgx.Credentials()])
    assert padding_is_zero(built) == cmsgx.CMSG_SPACE(payload) - cmsgx.CMSG_LEN(payload) + (
        cmsgx.CMSG_SPACE(12) - cmsgx.CMSG_LEN(12)
    )


def received_buffers() -> None:
    liar = Liar()
    calls = {**liar.typed(), **liar.drop_ins()}
    with open_files(4) as files:
        for _ in range(3):
            for function in calls.values():
                # What it leaves in the buffer must be gone when that is used again.
                liar.shim.reset()
                liar.close(liar.call("", files, function))
                liar.close(liar.call("", [], function))
                assert liar.shim.receives() == 2
                assert liar.shim.dirty() == 0
    # Nor after a try that failed, which the kernel may have written to.
    liar.right.settimeout(0.01)
    liar.shim.reset()
    with contextlib.suppress(TimeoutError):
        liar.wide.receive()
    assert liar.shim.receives() >= 1
    assert liar.shim.dirty() == 0


def test_C2_buffers_are_zero_before_the_kernel_writes() -> None:
    in_child("received_buffers", env={**under_shim(), "PYTHONMALLOC": "debug"})


def thrown_away() -> None:
    """Each call that has memory of its own for the data, with MSG_TRUNC over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right = listener.accept()[0]
    size = 600
    receiver = cmsgx.Receiver(right, size)
    batches = cmsgx.BatchReceiver(right, 2, size)
    calls: dict[str, Callable[[int], bytes]] = {
        "recvmsg": lambda flags: cmsgx.recvmsg(right, size, 0, flags)[0],
        "recvmsg_inheritable": lambda flags: _cmsg.recvmsg_inheritable(right, size, 0, flags)[0],
        "recv_fds": lambda flags: cmsgx.recv_fds(right, size, 1, flags)[0],
        "receive": lambda flags: cmsgx.receive(right, size, flags=flags).data,
        "Receiver": lambda flags: receiver.receive(flags=flags).data,
        "BatchReceiver": lambda flags: batches.receive(flags=flags)[0].data,
    }
    with left, right:
        for name, function in calls.items():
            # What is sent first is what a buffer that is used again has in it.
            for flags, expected in ((0, b"s" * size), (socket.MSG_TRUNC, bytes(size))):
                left.sendall(b"s" * size)
                right.recv(size, socket.MSG_PEEK | socket.MSG_WAITALL)
                assert function(flags) == expected, (name, flags)


def test_C2_bytes_that_tcp_throws_away_do_not_show_old_memory() -> None:
    # Which fills what it hands out, and what it gets back.
    in_child("thrown_away", env={"PYTHONMALLOC": "debug"})


def touched() -> None:
    """Calls with room for a quarter of a GiB, of which a few bytes are used."""
    large = 1 << 28
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    right.setsockopt(SOL_SOCKET, socket.SO_PASSCRED, 1)
    calls: dict[str, Callable[[], Any]] = {
        "recvmsg": lambda: cmsgx.recvmsg(right, large, large),
        "recvmsg_inheritable": lambda: _cmsg.recvmsg_inheritable(right, large, large),
        "recvmsg_into": lambda: cmsgx.recvmsg_into(right, [bytearray(1)], large),
        "recvmsg, peek": lambda: cmsgx.recvmsg(right, 1, large, socket.MSG_PEEK),
        "recv_fds": lambda: cmsgx.recv_fds(right, large, 1),
        "receive": lambda: cmsgx.receive(right, large),
        "Receiver": cmsgx.Receiver(right, large).receive,
        "BatchReceiver": cmsgx.BatchReceiver(right, 2, large).receive,
    }
    for name, function in calls.items():
        cmsgx.send(left, b"x")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert function(), name
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 64 << 10, f"{name}: {grown} KiB"


def test_C2_room_that_is_not_used_is_not_touched() -> None:
    in_child("touched")


# C3: alignment ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", range(16))
def test_C3_every_offset_in_a_buffer(shift: int) -> None:
    messages = (
        cmsgx.Rights.unpack(struct.pack("3i", 1000, 1001, 1002)),
        cmsgx.Credentials(1, 2, 3),
        cmsgx.Unknown(SOL_SOCKET, 99, b"odd"),
        cmsgx.Unknown(SOL_SOCKET, 98, b""),
    )
    raw = [(SOL_SOCKET, SCM_RIGHTS, struct.pack("3i", 1000, 1001, 1002)), *messages[1:]]
    built = wire.build(raw)  # type: ignore[arg-type]
    # The last message also without its padding, and as a bare header.
    for cut in (0, cmsgx.CMSG_SPACE(0)):
        room = bytearray(b"\xff" * shift + built)
        control = memoryview(room)[shift : len(room) - cut]
        parsed = wire.parse(control)
        assert [type(item) for item in parsed] == [type(item) for item in messages][: len(parsed)]
        assert parsed[0].fds == (1000, 1001, 1002)
        assert parsed[1] == messages[1]
        assert parsed[2] == messages[2]
        assert len(parsed) == 4 - (cut > 0)
        header = wire.CMSG_FIRSTHDR(control)
        seen = []
        while header is not None:
            data = wire.CMSG_DATA(header)
            assert header.len == cmsgx.CMSG_LEN(data.nbytes)
            seen.append((header.level, header.type, bytes(data)))
            header = wire.CMSG_NXTHDR(control, header)
        assert seen[0] == raw[0]
        assert len(seen) == len(parsed)
        header = wire.CMSG_FIRSTHDR(control)
        assert header is not None
        wire.CMSG_DATA(header)[:4] = b"same"
        assert bytes(room[shift + HEADER :][:4]) == b"same"


# C4: numbers at the edges -----------------------------------------------------------------------

EDGES = (
    *(-1, 0, 1, 3, 4, 7, 8, 1012, 1013),
    *(1 << n for n in (15, 16, 31, 32, 62, 63, 64)),
    *((1 << n) - 1 for n in (31, 32, 63, 64)),
    *((1 << 31) - n for n in range(2, 40)),
    *((1 << 32) - n for n in range(2, 20)),
    -(1 << 31), -(1 << 63), -(1 << 64),
)  # fmt: skip


def answer(function: Callable[..., object], *arguments: object) -> object:
    try:
        return function(*arguments)
    except (OverflowError, ValueError, TypeError, OSError, MemoryError) as error:
        return type(error)


@pytest.mark.parametrize("edge", EDGES)
def test_C4_sizes(edge: int) -> None:
    assert answer(cmsgx.CMSG_LEN, edge) == answer(socket.CMSG_LEN, edge)
    assert answer(cmsgx.CMSG_SPACE, edge) == answer(socket.CMSG_SPACE, edge)
    aligned = answer(cmsgx.CMSG_ALIGN, edge)
    if isinstance(aligned, int):
        assert aligned - edge in range(8)
        assert aligned == cmsgx.CMSG_SPACE(edge) - HEADER if edge < 1 << 30 else True
    else:
        assert aligned is OverflowError


@pytest.mark.parametrize("edge", [edge for edge in EDGES if not 1 << 30 <= edge < 1 << 31])
def test_C4_sizes_of_buffers(stream: Pair, edge: int) -> None:
    """What cannot be is refused before anything is received."""
    left, right = stream
    left.send(b"x")
    if edge < 0 or edge >= 1 << 31:
        expected = (ValueError, OverflowError)
        assert answer(cmsgx.recvmsg, right, 1, edge) in expected
        assert answer(cmsgx.recvmsg_into, right, [bytearray(1)], edge) in expected
        assert answer(cmsgx.recv_fds, right, 1, edge) in expected
        assert answer(lambda: cmsgx.receive(right, 1, fds=edge)) in (
            *expected, cmsgx.TooManyFdsError,
        )  # fmt: skip
    else:
        data, _, _, _ = cmsgx.recvmsg(right, 1, edge)
        assert data == b"x"
    if edge < 0 or edge >= sys.maxsize:
        for function in (cmsgx.recvmsg, cmsgx.receive):
            assert answer(function, right, edge) in (ValueError, OverflowError, MemoryError)


@pytest.mark.parametrize("count", [0, 1, 252, 253, 254, 255, 256, 1000])
def test_C4_counts_of_descriptors(pair: Pair, count: int) -> None:
    left, right = pair
    right.settimeout(60)
    with open_files(1) as [file]:
        sends: tuple[Callable[[], object], ...] = (
            lambda: cmsgx.send(left, b"x", fds=[file] * count),
            lambda: cmsgx.send(left, b"x", control=cmsgx.Rights([file] * count)),
            lambda: cmsgx.send(left, b"x", fds=[file] * (count // 2),
                               control=[cmsgx.Rights([file] * (count - count // 2))]),
            lambda: cmsgx.send_all(left, b"x", fds=[file] * count),
        )  # fmt: skip
        if count > 253:
            for send in sends:
                with pytest.raises(cmsgx.TooManyFdsError, match="253"):
                    send()
            with pytest.raises(OSError, match="Invalid argument") as caught:
                cmsgx.send_fds(left, [b"x"], [file] * count)
            assert caught.value.errno == errno.EINVAL
            for make in (cmsgx.receive, cmsgx.Receiver):
                with pytest.raises(cmsgx.TooManyFdsError, match="253"):
                    make(right, 1, fds=count)
            left.send(b"x")
            assert cmsgx.recv_fds(right, 1, count)[1] == []
        else:
            for send in sends:
                send()
                with cmsgx.receive(right, 1, fds=count) as msg:
                    assert len(msg.fds) == count
    for make in (cmsgx.receive, cmsgx.Receiver):
        for negative in (-1, -(1 << 40), -(1 << 70)):
            with pytest.raises(ValueError, match=f"^fds: {negative}; it cannot be negative$"):
                make(right, 1, fds=negative)
            with pytest.raises(ValueError, match=f"^bufsize: {negative}; it cannot be negative$"):
                make(right, negative)
        for many in (1 << 31, 1 << 40, 1 << 70):
            with pytest.raises(cmsgx.TooManyFdsError, match=f"^fds: {many}; .* 253 at most$"):
                make(right, 1, fds=many)


def test_C4_too_much_control_data(pair: Pair) -> None:
    left, _ = pair
    large = cmsgx.Unknown(41, 99, bytes(1 << 20))
    # A 64-bit kernel tells a program of 32 bits another reason: net/compat.c, Linux 5.14.
    reasons = {errno.ENOBUFS} if sys.maxsize > 2**32 else {errno.ENOBUFS, errno.ENOMEM}
    with fails(*reasons):
        cmsgx.send(left, b"x", control=[large])


# C5: several control messages -------------------------------------------------------------------


def well_formed(mode: str) -> None:
    """What is odd, and yet no lie: every descriptor is found."""
    liar = Liar()
    shim = liar.shim
    numbers = list(range(4))
    warnings.simplefilter("error")
    with open_files(4) as files:
        for name, function in {**liar.typed(), **liar.drop_ins()}.items():
            before = count_open()
            result = liar.call(mode, files, function)
            asked = 4
            if name == "receive, none":
                asked = 0
            elif name in ("Receiver, narrow", "recv_fds, one"):
                asked = 1
            elif mode == "pairs" and name == "recvmsg":
                assert len(numbers_in(result[1])) == shim.delivered()
            if isinstance(result, cmsgx.Message):
                assert [content(fd) for fd in result.fds] == [str(n) for n in numbers[:asked]]
                if name in ("receive", "Receiver") and mode in ("pairs", "twins"):
                    assert result[cmsgx.PidFd].pid == os.getpid()
                if name == "receive" and mode == "bare":
                    assert result.control[-1] == cmsgx.Unknown(SOL_SOCKET, 99, b"")
                assert list(result.control) == list(result)
                shown = [item for item in result if isinstance(item, cmsgx.Rights)]
                assert [len(item) for item in shown] == [asked][: asked > 0]
            elif name.startswith("recv_fds"):
                assert [content(fd) for fd in result[1]] == [str(n) for n in numbers[:asked]]
            else:
                found = [item[2] for item in result[1] if item[1] == SCM_RIGHTS]
                fds = [n for data in found for n in numbers_in([(SOL_SOCKET, SCM_RIGHTS, data)])]
                assert [content(fd) for fd in fds] == [str(n) for n in numbers]
            liar.close(result)
            assert shim.leaked() == 0, name
            assert shim.strangers() == 0, name
            shim.forget()
            assert count_open() == before, name


def test_C5_several_messages() -> None:
    in_one_child("well_formed", WELL_FORMED)


def test_C5_the_kernel_merges(pair: Pair) -> None:
    left, right = pair
    with open_files(5) as files:
        rights = [cmsgx.Rights([file]) for file in files[2:]]
        cmsgx.send(left, b"x", fds=files[:2], control=[rights[0], cmsgx.Credentials(), *rights[1:]])
        with cmsgx.receive(right, 1, fds=5) as msg:
            assert [content(fd) for fd in msg.fds] == list("01234")
            assert list(msg[cmsgx.Rights]) == list(msg.fds)
        cmsgx.sendmsg(left, [b"x"], [*rights, cmsgx.Credentials()])
        with cmsgx.receive(right, 1, fds=5) as msg:
            assert [content(fd) for fd in msg.fds] == list("234")


# C6: options that take room ---------------------------------------------------------------------

OPTIONS = (
    "SO_PASSCRED",
    "SO_PASSPIDFD",
    "SO_TIMESTAMPNS",
    "SO_TIMESTAMPING",
    "SO_PASSSEC",
    "SO_INQ",
)


def supported(sock: socket.socket) -> Iterator[int]:
    for name in OPTIONS:
        number = getattr(_cmsg, name)
        try:
            sock.setsockopt(SOL_SOCKET, number, 0x18 if name == "SO_TIMESTAMPING" else 1)
            sock.setsockopt(SOL_SOCKET, number, 0)
        except OSError as error:
            if error.errno not in (errno.ENOPROTOOPT, errno.EOPNOTSUPP):
                raise
        else:
            yield number


def test_C6_option_matrix(pair: Pair) -> None:
    _, right = pair
    options = list(supported(right))
    with open_files(3) as files:
        for chosen in itertools.chain.from_iterable(
            itertools.combinations(options, n) for n in range(len(options) + 1)
        ):
            for number in options:
                on = 0x18 if number == _cmsg.SO_TIMESTAMPING else 1
                right.setsockopt(SOL_SOCKET, number, on if number in chosen else 0)
            before = count_open()
            for asked in (1, 2, 3):
                # Nobody can ask whether SO_INQ is on, so a Receiver has no room for it.
                check_room(pair, files, asked, is_exact=_cmsg.SO_INQ not in chosen)
                assert count_open() == before, chosen


def check_room(pair: Pair, files: list[int], asked: int, is_exact: bool) -> None:
    """What was asked for arrives, by each way."""
    left, right = pair
    expected = [str(n) for n in range(asked)]
    receiver = cmsgx.Receiver(right, 1, fds=asked)
    receives: tuple[Callable[[], cmsgx.Message], ...] = (
        receiver.receive,
        lambda: cmsgx.receive(right, 1, fds=asked),
    )
    for receive, sent in itertools.product(receives, (asked, len(files))):
        cmsgx.send(left, b"x", fds=files[:sent])
        with receive() as msg:
            assert [content(fd) for fd in msg.fds] == expected
            assert not is_exact or msg.truncated == (sent > asked)
    cmsgx.send(left, b"x", fds=files[:asked])
    numbers = cmsgx.recv_fds(right, 1, asked)[1]
    assert [content(number) for number in numbers] == expected
    for number in numbers:
        os.close(number)


@pytest.mark.parametrize("wanted", [(), (cmsgx.Credentials,), (cmsgx.PidFd,),
                                    (cmsgx.Credentials, cmsgx.PidFd)])  # fmt: skip
def test_C6_what_is_wanted_has_room(pair: Pair, wanted: tuple[type[Any], ...]) -> None:
    """Surplus descriptors do not push out what was asked for."""
    left, right = pair
    receiver = cmsgx.Receiver(right, 1, fds=1, want=wanted)
    with open_files(2) as files:
        for fds in ([], files[:1], files, files * 100):
            cmsgx.send(left, b"x", fds=fds)
            with receiver.receive() as msg:
                assert len(msg.fds) == min(1, len(fds))
                for kind in wanted:
                    assert kind in msg
                    assert msg[kind].pid == os.getpid()
