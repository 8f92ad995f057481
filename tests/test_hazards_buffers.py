"""docs/hazards.md, part C: what is in a control buffer, and how large it is."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import resource
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hazards import SCM_RIGHTS, SOL_SOCKET, Liar, count_open
from native import Shim, under_shim
from support import HEADER, Pair, close_pair, content, open_files, run_python, unix_pair

import cmsgx
from cmsgx import _cmsg, wire


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_hazards_buffers as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


# C2: memory that was not written ----------------------------------------------------------------


def padding_is_zero(control: bytes) -> int:
    """Walks a control buffer that was sent; returns how many bytes of padding it had."""
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
        """Leaves 0xff at the place of the next call's buffers: AF_UNIX ignores messages of other
        levels."""
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
                # What it leaves in the buffer must be gone when the buffer is reused.
                liar.shim.reset()
                liar.close(liar.call("", files, function))
                liar.close(liar.call("", [], function))
                assert liar.shim.receives() == 2
                assert liar.shim.dirty() == 0
    # The same after a try that failed, in which the kernel may have written to the buffer.
    liar.right.settimeout(0.01)
    liar.shim.reset()
    with contextlib.suppress(TimeoutError):
        liar.wide.receive()
    assert liar.shim.receives() >= 1
    assert liar.shim.dirty() == 0


def test_C2_buffers_are_zero_before_the_kernel_writes() -> None:
    in_child("received_buffers", env={**under_shim(), "PYTHONMALLOC": "debug"})


def thrown_away() -> None:
    """Each call that allocates the memory for the data itself, with MSG_TRUNC over TCP."""
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
            # A reused buffer contains what was sent first.
            for flags, expected in ((0, b"s" * size), (socket.MSG_TRUNC, bytes(size))):
                left.sendall(b"s" * size)
                right.recv(size, socket.MSG_PEEK | socket.MSG_WAITALL)
                assert function(flags) == expected, (name, flags)


def test_C2_bytes_that_tcp_discards_do_not_show_old_memory() -> None:
    # The debug allocator fills memory when it is allocated and when it is freed.
    in_child("thrown_away", env={"PYTHONMALLOC": "debug"})


def touched() -> None:
    """Calls with a buffer of a quarter of a GiB, of which a few bytes are used."""
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


def test_C2_unused_buffer_space_is_not_touched() -> None:
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


# C6: options that take space --------------------------------------------------------------------

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
                # Nothing can ask whether SO_INQ is on, so a Receiver has no space for it.
                check_room(pair, files, asked, is_exact=_cmsg.SO_INQ not in chosen)
                assert count_open() == before, chosen


def check_room(pair: Pair, files: list[int], asked: int, is_exact: bool) -> None:
    """What was asked for arrives, with each way to receive."""
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
def test_C6_what_is_wanted_has_space(pair: Pair, wanted: tuple[type[Any], ...]) -> None:
    """Surplus descriptors do not displace what was asked for."""
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
