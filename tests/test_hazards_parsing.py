"""docs/hazards.md, part C: control data is read as if a stranger had written it."""

from __future__ import annotations

import errno
import os
import random
import socket
import sys
import traceback
import warnings
from collections.abc import Callable

import pytest
from attempts import fails
from hazards import SCM_RIGHTS, SOL_SOCKET, Liar, count_open, numbers_in
from native import under_shim
from support import HEADER, Pair, content, lengths, open_files, run_python

import cmsgx

# Up to the last length that is less than a header: with 32 bits, 12 and more are valid.
SHORT = dict.fromkeys(("0", "1", "8", str(HEADER - 4), str(HEADER - 1)))

LENGTHS = (*SHORT, "past", "huge", "max")

MALFORMED = (
    *(f"rights-len={length}" for length in LENGTHS),
    *(f"pidfd-len={length}" for length in LENGTHS),
    *(f"used={used}" for used in ("full", "more", "max")),
)

WELL_FORMED = ("split", "pairs", "twins", "bare", "odd", *(f"short-pidfd={n}" for n in range(4)))


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_hazards_parsing as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


def each_mode(function: str, modes: tuple[str, ...], *arguments: object) -> None:
    """Calls a function of this file with each mode, and prints the failures."""
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
                # The control buffer had no space for the message that was falsified.
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
            if name == "loop":  # which keeps the previous message
                liar.call("", [], calls[name]).close()
            if seed % 100 == 0:
                assert count_open() == before, (seed, name)
        assert count_open() == before
    print(f"{count} lies: {outcomes}")


@pytest.mark.parametrize("count", lengths("CMSGX_LIES", 2000, 20_000))
def test_C1_random_falsified_lengths(count: int) -> None:
    print(in_child("random_lies", count, env=under_shim()))


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
    """Impossible sizes are refused before anything is received."""
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
    # A 64-bit kernel gives a 32-bit program another reason: net/compat.c, Linux 5.14.
    reasons = {errno.ENOBUFS} if sys.maxsize > 2**32 else {errno.ENOBUFS, errno.ENOMEM}
    with fails(*reasons):
        cmsgx.send(left, b"x", control=[large])


# C5: several control messages -------------------------------------------------------------------


def well_formed(mode: str) -> None:
    """Unusual but valid: every descriptor is found."""
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
