"""Control messages in the buffers of io_uring's multishot receive."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from blobs import IP_PKTINFO, IP_RECVTTL, IP_TTL, IPPROTO_IP, LOOPBACK, headers, make, multishot
from support import HEADER, OLD_TIME, content, open_files

import cmsgx
from cmsgx import kinds, wire

SO_PASSCRED, SO_TIMESTAMPNS = 16, 35
MSG_CTRUNC, MSG_TRUNC, MSG_CMSG_CLOEXEC = 0x8, 0x20, 0x40000000


# parse_multishot() of what the kernel wrote -----------------------------------------------------


def sockaddr_in(address: tuple[str, int]) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack(
        "!H4s8x", address[1], socket.inet_aton(address[0])
    )


@contextmanager
def udp() -> Iterator[tuple[cmsgx.socket, cmsgx.socket]]:
    """Two sockets; the second gets the interface, the TTL and the time of each datagram."""
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        sender.bind(("127.0.0.1", 0))
        sender.setsockopt(IPPROTO_IP, IP_TTL, 33)
        receiver.bind(("127.0.0.1", 0))
        receiver.setsockopt(IPPROTO_IP, IP_PKTINFO, 1)
        receiver.setsockopt(IPPROTO_IP, IP_RECVTTL, 1)
        receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sender.connect(receiver.getsockname())
        yield sender, receiver


CONTROL = sum(map(socket.CMSG_SPACE, (OLD_TIME.size, 12, 4)))
# The same without the padding of the last message, which is optional.
BARE_CONTROL = CONTROL - socket.CMSG_SPACE(4) + socket.CMSG_LEN(4)
# Including those that put control data at each alignment.
NAMES = [0, 16, *range(17, 24), 28, 128, 200]


@pytest.mark.parametrize("name_size", NAMES)
@pytest.mark.parametrize("control_size", sorted({BARE_CONTROL, CONTROL, 1000}))
def test_multishot_of_udp(name_size: int, control_size: int) -> None:
    data = [b"one", b"number two", b"3" * 100, b"\0", b""]
    room = 16 + name_size + control_size + 128
    with udp() as (sender, receiver):
        before = time.time_ns()
        for one in data:
            sender.send(one)
        with multishot(receiver, name_size, control_size, room, len(data)) as (_, filled):
            after = time.time_ns()
        for sent, (res, memory) in zip(data, filled, strict=True):
            assert len(memory) == room
            assert res == 16 + name_size + control_size + len(sent)
            for buffer in (memory, memory[:res], memoryview(bytearray(memory))):
                message = wire.parse_multishot(buffer, name_size, control_size)
                assert type(message) is wire.Multishot
                assert bytes(message.payload) == sent
                assert message.flags & ~MSG_CMSG_CLOEXEC == 0
                # With a name size of 0 the kernel is not asked for a name.
                name = sockaddr_in(sender.getsockname()) if name_size else b""
                assert (message.name, message.namelen) == (name, len(name))
                if name_size:
                    assert message.address == sender.getsockname()
                else:
                    assert message.address is None
                assert message.payloadlen == len(sent)
                assert message.controllen == len(message.control) == min(CONTROL, control_size)
                for family in (-1, socket.AF_INET):
                    stamp, info, ttl = message.messages(family)
                    assert before <= stamp.nanoseconds <= after
                    assert info == kinds.PacketInfo(LOOPBACK, "127.0.0.1", "127.0.0.1")
                    assert ttl == kinds.Ttl(33)


def test_what_came_answers() -> None:
    """The address can be passed back to the kernel unchanged."""
    with udp() as (sender, receiver):
        sender.send(b"question")
        with multishot(receiver, 28, 100, 200) as (_, [(res, memory)]):
            pass
        message = wire.parse_multishot(memory[:res], 28, 100)
        assert message.address is not None
        cmsgx.send(receiver, b"answer", address=message.address)
        assert sender.recv(10) == b"answer"


def test_no_copy() -> None:
    with udp() as (sender, receiver):
        sender.send(b"data")
        with multishot(receiver, 16, 200, 300) as (_, [(_, memory)]):
            pass
    buffer = bytearray(memory)
    message = wire.parse_multishot(buffer, 16, 200)
    buffer[16 + 16 + 200] = ord("D")
    assert bytes(message.payload) == b"Data"
    assert message.messages()[2] == kinds.Ttl(33)
    # The level, type and payload of the last one.
    at = 16 + 16 + message.controllen - socket.CMSG_SPACE(4) + HEADER
    assert buffer[at : at + 4] == struct.pack("=i", 33)
    buffer[at : at + 4] = struct.pack("=i", 34)
    assert message.messages()[2] == kinds.Ttl(34)
    with pytest.raises(BufferError):
        buffer.clear()


@pytest.mark.parametrize("name_size", range(1, 16))
def test_a_name_that_was_cut(name_size: int) -> None:
    with udp() as (sender, receiver):
        sender.send(b"data")
        with multishot(receiver, name_size, 200, 300) as (_, [(res, memory)]):
            pass
        message = wire.parse_multishot(memory[:res], name_size, 200)
        assert message.name == sockaddr_in(sender.getsockname())[:name_size]
        assert message.namelen == 16
        assert message.address is None
        assert bytes(message.payload) == b"data"
        assert len(message.messages()) == 3


def test_data_that_was_cut() -> None:
    with udp() as (sender, receiver):
        sender.send(b"too long")
        with multishot(receiver, 16, CONTROL, 16 + 16 + CONTROL + 3) as (_, [(res, memory)]):
            pass
    message = wire.parse_multishot(memory, 16, CONTROL)
    assert res == len(memory)
    assert bytes(message.payload) == b"too"
    assert message.flags & MSG_TRUNC
    assert not message.flags & MSG_CTRUNC
    assert len(message.messages()) == 3


@pytest.mark.parametrize(
    ("control_size", "whole", "is_cut"),
    [
        (0, 0, False),
        (HEADER - 1, 0, False),
        (CONTROL - socket.CMSG_SPACE(4), 2, False),
        # A header and less than its payload.
        (HEADER, 0, True),
        (HEADER + OLD_TIME.size - 1, 0, True),
        (BARE_CONTROL - 1, 2, True),
    ],
)
def test_control_data_that_was_cut(control_size: int, whole: int, is_cut: bool) -> None:
    with udp() as (sender, receiver):
        sender.send(b"data")
        with multishot(receiver, 16, control_size, 300) as (_, [(res, memory)]):
            pass
    message = wire.parse_multishot(memory[:res], 16, control_size)
    assert message.flags & MSG_CTRUNC
    assert bytes(message.payload) == b"data"
    assert message.controllen == len(message.control) <= control_size
    assert len(headers(message.control.tobytes())) == whole + is_cut
    if is_cut:
        with pytest.raises(cmsgx.MalformedControlError):
            message.messages()
    # The message before it is complete.
    found: list[Any] = []
    header = wire.CMSG_FIRSTHDR(message.control)
    while header is not None and len(found) < whole:
        found.append(cmsgx.decode(header.level, header.type, wire.CMSG_DATA(header)))
        header = wire.CMSG_NXTHDR(message.control, header)
    assert [type(one) for one in found] == [kinds.Timestamp, kinds.PacketInfo, kinds.Ttl][:whole]
    if not is_cut:
        assert message.messages() == tuple(found)


@contextmanager
def unix() -> Iterator[tuple[cmsgx.socket, cmsgx.socket]]:
    """Two datagram sockets; the second gets credentials, and the first has a name."""
    with (
        cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.setsockopt(socket.SOL_SOCKET, SO_PASSCRED, 1)
        sender.bind(f"\0cmsgx-{os.getpid()}")
        receiver.bind("")
        sender.connect(receiver.getsockname())
        yield sender, receiver


MINE = cmsgx.Credentials(os.getpid(), os.getuid(), os.getgid())


@pytest.mark.parametrize("name_size", [5, 110, 113])
def test_multishot_of_unix(name_size: int) -> None:
    with unix() as (sender, receiver):
        for data in (b"one", b"two"):
            sender.send(data)
        sockaddr = struct.pack("=H", socket.AF_UNIX) + sender.getsockname()
        with multishot(receiver, name_size, 64, 256, 2) as (_, filled):
            pass
        for data, (res, memory) in zip((b"one", b"two"), filled, strict=True):
            message = wire.parse_multishot(memory[:res], name_size, 64)
            assert bytes(message.payload) == data
            assert message.name == sockaddr[:name_size]
            assert message.namelen == len(sockaddr)
            if name_size > 100:
                assert message.address == sender.getsockname()
            assert message.messages() == message.messages(socket.AF_UNIX) == (MINE,)


def test_a_sender_without_a_name() -> None:
    left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        left.send(b"data")
        with multishot(right, 110, 64, 256) as (_, [(res, memory)]):
            pass
    message = wire.parse_multishot(memory[:res], 110, 64)
    assert (message.name, message.namelen, message.address) == (b"", 0, None)
    assert message.messages() == ()
    assert bytes(message.payload) == b"data"


@pytest.mark.parametrize("count", [1, 3, 253])
def test_descriptors_in_a_multishot(count: int) -> None:
    """The numbers are those of the receiving process, which here is another one."""
    size = cmsgx.CMSG_SPACE(12) + cmsgx.CMSG_SPACE(4 * count)
    with unix() as (sender, receiver), open_files(count) as files:
        cmsgx.send(sender, b"files", fds=files)
        with multishot(receiver, 110, size, 2048) as (pid, [(res, memory)]):
            message = wire.parse_multishot(memory[:res], 110, size)
            who, rights = message.messages()
            assert who == MINE
            assert isinstance(rights, cmsgx.Rights)
            for index, number in enumerate(rights):
                with open(f"/proc/{pid}/fd/{number}", encoding="ascii") as file:
                    assert file.read() == str(index)
        assert message.flags & ~MSG_CMSG_CLOEXEC == 0
        assert bytes(message.payload) == b"files"


# parse_multishot() of buffers made here ---------------------------------------------------------


def test_descriptors_are_owned_once() -> None:
    """Descriptors of this process, as its own ring would put them there."""
    with open_files(2) as files:
        numbers = [os.dup(number) for number in files]
        pidfd = os.pidfd_open(os.getpid())
        control = wire.build([cmsgx.Rights(numbers), cmsgx.Unknown(1, 4, struct.pack("=i", pidfd))])
        message = wire.parse_multishot(make(b"", control, b"x", 0, 100), 0, 100)
        rights, identity = message.messages()
        del message
        owned = rights.own()
        with owned[0], owned[1]:
            assert [content(fd) for fd in owned] == ["0", "1"]
            assert [fd.fileno() for fd in owned] == numbers
            with pytest.raises(ValueError, match="already called"):
                rights.own()
        with identity.own() as fd:
            assert fd.pid == os.getpid()


def test_fields_and_repr() -> None:
    control = wire.build([kinds.Ttl(7)])
    name = struct.pack("=H", socket.AF_UNIX) + b"/path\0"
    message = wire.parse_multishot(
        make(name, control, b"data", 20, 40, flags=0x28, payloadlen=1000), 20, 40
    )
    assert message.name == name
    assert message.address == "/path"
    assert bytes(message.control) == control
    assert bytes(message.payload) == b"data"
    assert (message.flags, message.namelen, message.controllen) == (0x28, len(name), len(control))
    assert message.payloadlen == 1000
    assert repr(message) == f"<Multishot of 4 bytes, {len(control)} of control data, flags=0x28>"
    for field in wire.Multishot.__slots__:
        with pytest.raises(AttributeError):
            setattr(message, field, 1)


def test_the_payload_ends_where_the_message_does() -> None:
    """The rest of the provided buffer."""
    buffer = make(b"", b"", b"data" + b"\xaa" * 50, 4, 4, payloadlen=4)
    assert bytes(wire.parse_multishot(buffer, 4, 4).payload) == b"data"


@pytest.mark.parametrize(
    "form", [bytes, bytearray, memoryview, lambda raw: memoryview(raw[:100]).cast("i")]
)
def test_over_any_buffer(form: Any) -> None:
    raw = make(b"", wire.build([kinds.Ttl(7)]), b"data", 0, 80, payloadlen=4)
    assert len(raw) == 100
    message = wire.parse_multishot(form(raw), 0, 80)
    assert message.messages() == (kinds.Ttl(7),)
    assert bytes(message.payload) == b"data"


@pytest.mark.parametrize("offset", range(16))
def test_at_each_offset_of_memory(offset: int) -> None:
    raw = make(struct.pack("=H14x", socket.AF_INET), wire.build([kinds.Ttl(7)]), b"data", 16, 24)
    buffer = memoryview(bytes(offset) + raw + b"\xff" * 40)[offset:]
    message = wire.parse_multishot(buffer, 16, 24)
    assert message.messages() == (kinds.Ttl(7),)
    assert message.address == ("0.0.0.0", 0)
    assert bytes(message.payload) == b"data"


def test_a_multishot_that_is_too_short() -> None:
    raw = make(b"", b"", b"", 28, 40)
    assert bytes(wire.parse_multishot(raw, 28, 40).payload) == b""
    for length in range(len(raw)):
        with pytest.raises(cmsgx.MalformedControlError, match=f"^{length} bytes"):
            wire.parse_multishot(raw[:length], 28, 40)


@pytest.mark.parametrize("length", [41, 1000, 2**31, 2**32 - 1])
def test_more_control_data_than_fits(length: int) -> None:
    raw = make(b"", b"", bytes(2000), 0, 40, controllen=length)
    with pytest.raises(cmsgx.MalformedControlError, match=f"^{length} bytes of control data"):
        wire.parse_multishot(raw, 0, 40)


@pytest.mark.parametrize("namelen", [29, 128, 2**31, 2**32 - 1])
def test_a_name_longer_than_its_space(namelen: int) -> None:
    raw = make(b"", b"", b"data", 28, 0, namelen=namelen)
    message = wire.parse_multishot(raw, 28, 0)
    assert (message.name, message.address) == (b"\xaa" * 28, None)
    assert message.namelen == namelen
    assert bytes(message.payload) == b"data"


def test_a_name_longer_than_any() -> None:
    raw = make(struct.pack("=H", 999) + bytes(998), b"", b"data", 1000, 0)
    message = wire.parse_multishot(raw, 1000, 0)
    assert len(message.name) == 1000
    assert message.address is not None
    assert message.address.family == 999
    assert bytes(message.payload) == b"data"


@pytest.mark.parametrize(("family", "length"), [(socket.AF_INET, 16), (socket.AF_INET6, 28)])
def test_a_name_that_is_too_short_for_its_family(family: int, length: int) -> None:
    name = struct.pack("=H", family) + bytes(length - 2)
    message = wire.parse_multishot(make(name, b"", b"", 28, 0), 28, 0)
    assert message.address is not None
    assert message.address.family == family
    for namelen in range(1, length):
        raw = make(name[:namelen], b"", b"", 28, 0)
        with pytest.raises(cmsgx.MalformedControlError, match="truncated"):
            wire.parse_multishot(raw, 28, 0)


def test_nothing_after_a_short_address_is_read() -> None:
    raw = make(struct.pack("=HH", socket.AF_NETLINK, 0), b"", b"", 28, 0)
    for _ in range(50):
        # The earlier content of memory of this size.
        poison = [b"\xff" * size for size in range(80, 180, 8)]
        del poison
        address = wire.parse_multishot(raw, 28, 0).address
        assert address is not None
        assert address.value == (0, 0)
        assert len(address.packed) == 4


def test_malformed_control_in_a_multishot() -> None:
    control = bytearray(wire.build([kinds.Ttl(7)]))
    control[0] = 255
    message = wire.parse_multishot(make(b"", bytes(control), b"data", 0, 40), 0, 40)
    with pytest.raises(cmsgx.MalformedControlError, match="at byte 0"):
        message.messages()


def test_wrong_arguments() -> None:
    wrong: Any
    for wrong in (-1, -(2**70)):
        with pytest.raises(ValueError, match="negative"):
            wire.parse_multishot(bytes(100), wrong, 0)
        with pytest.raises(ValueError, match="negative"):
            wire.parse_multishot(bytes(100), 0, wrong)
    with pytest.raises(cmsgx.MalformedControlError):
        wire.parse_multishot(bytes(100), 2**70, 0)
    for wrong in (None, "1"):
        with pytest.raises(TypeError):
            wire.parse_multishot(bytes(100), wrong, 0)
    for wrong in (None, 3, "text"):
        with pytest.raises(TypeError):
            wire.parse_multishot(wrong, 0, 0)
    with pytest.raises(TypeError):
        wire.parse_multishot(memoryview(bytes(200))[::2], 0, 0)
