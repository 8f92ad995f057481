"""Control messages that do not come from recvmsg(2): the buffers of socket options, and those that
io_uring fills."""

from __future__ import annotations

import functools
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
from native import build
from support import HEADER, OLD_TIME, content, open_files, unregistered

import cmsgx
from cmsgx import kinds, wire

IPPROTO_IP, IPPROTO_IPV6 = 0, 41
IP_TOS, IP_TTL, IP_PKTINFO, IP_PKTOPTIONS, IP_RECVTTL, IP_RECVTOS = 1, 2, 8, 9, 12, 13
IPV6_2292PKTINFO, IPV6_2292PKTOPTIONS, IPV6_2292HOPLIMIT, IPV6_UNICAST_HOPS = 2, 6, 8, 16
IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_HOPOPTS, IPV6_DSTOPTS = 49, 51, 54, 59
IPV6_HOPLIMIT, IPV6_RECVTCLASS, IPV6_TCLASS = 52, 66, 67
SO_PASSCRED, SO_TIMESTAMPNS = 16, 35
MSG_CTRUNC, MSG_TRUNC, MSG_CMSG_CLOEXEC = 0x8, 0x20, 0x40000000
LOOPBACK = socket.if_nametoindex("lo")


def headers(control: bytes) -> list[tuple[int, int, int]]:
    """Level, type and bytes of payload of each."""
    found = []
    header = wire.CMSG_FIRSTHDR(control)
    while header is not None:
        found.append((header.level, header.type, wire.CMSG_DATA(header).nbytes))
        header = wire.CMSG_NXTHDR(control, header)
    return found


# parse(family=) ---------------------------------------------------------------------------------


def test_parse_is_told_the_family() -> None:
    class One(kinds.StructMessage):
        __slots__ = ()

    class Two(kinds.StructMessage):
        __slots__ = ()

    layout: Any = {"layout": (("number", 0, "i"),), "size": 4}
    control = wire.build([cmsgx.Unknown(-5, 1, bytes(4)), cmsgx.Unknown(-5, 2, b"x")])
    with unregistered():
        kinds.register(One, level=-5, type=1, families=frozenset({socket.AF_INET}), **layout)
        kinds.register(Two, level=-5, type=1, families=frozenset({socket.AF_UNIX}), **layout)
        for arguments, expected in (
            ((), One),
            ((-1,), One),
            ((socket.AF_INET,), One),
            ((socket.AF_UNIX,), Two),
            ((socket.AF_PACKET,), cmsgx.Unknown),
        ):
            multishot = wire.parse_multishot(make(b"", control, b"", 0, 99), 0, 99)
            for first, second in (
                wire.parse(control, *arguments),
                multishot.messages(*arguments),
            ):
                assert type(first) is expected
                assert first.pack() == bytes(4)
                assert second == cmsgx.Unknown(-5, 2, b"x")
        assert wire.parse(control, family=socket.AF_UNIX)[0] == Two(0)


# IP_PKTOPTIONS, IPV6_2292PKTOPTIONS -------------------------------------------------------------

Options = list[tuple[int, int]]
IPV4_ON: Options = [(IPPROTO_IP, IP_PKTINFO), (IPPROTO_IP, IP_RECVTTL), (IPPROTO_IP, IP_RECVTOS)]
IPV6_ON: Options = [
    (IPPROTO_IPV6, IPV6_RECVPKTINFO),
    (IPPROTO_IPV6, IPV6_RECVHOPLIMIT),
    (IPPROTO_IPV6, IPV6_RECVTCLASS),
]


@contextmanager
def accepted(family: int, host: str, on: Options) -> Iterator[socket.socket]:
    """The accepted end of a TCP connection whose other end sends with a TTL of 33 and a TOS of
    0x28."""
    with socket.socket(family) as listener, socket.socket(family) as client:
        for level, name in on:
            listener.setsockopt(level, name, 1)
        listener.bind((host, 0))
        listener.listen()
        client.setsockopt(IPPROTO_IP, IP_TTL, 33)
        client.setsockopt(IPPROTO_IP, IP_TOS, 0x28)
        if family == socket.AF_INET6:
            client.setsockopt(IPPROTO_IPV6, IPV6_UNICAST_HOPS, 33)
            client.setsockopt(IPPROTO_IPV6, IPV6_TCLASS, 0x28)
        client.connect(listener.getsockname())
        sock, _ = listener.accept()
        with sock:
            client.send(b"1")
            assert sock.recv(1) == b"1"
            yield sock


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:127.0.0.1")]
)
def test_ip_pktoptions(family: int, host: str) -> None:
    with accepted(family, host, IPV4_ON) as sock:
        control = sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, 1024)
    # An int for the type of service, of which recvmsg() gives one byte.
    assert headers(control) == [(0, IP_PKTINFO, 12), (0, IP_TTL, 4), (0, IP_TOS, 4)]
    expected = (
        kinds.PacketInfo(LOOPBACK, "127.0.0.1", "127.0.0.1"),
        kinds.Ttl(33),
        kinds.Tos(0x28),
    )
    assert wire.parse(control) == wire.parse(control, family) == expected


def test_ip_pktoptions_of_part() -> None:
    with accepted(socket.AF_INET, "127.0.0.1", [(IPPROTO_IP, IP_RECVTTL)]) as sock:
        assert wire.parse(sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, 1024)) == (kinds.Ttl(33),)
        # Too little room: a payload cut short, then a message that lacks its padding.
        for room in range(4):
            cut = sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, HEADER + room)
            assert headers(cut) == [(0, IP_TTL, room)]
            with pytest.raises(cmsgx.MalformedControlError):
                wire.parse(cut)
        whole = sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, HEADER + 4)
        assert wire.parse(whole) == (kinds.Ttl(33),)
        sock.setsockopt(IPPROTO_IP, IP_RECVTTL, 0)
        assert wire.parse(sock.getsockopt(IPPROTO_IP, IP_PKTOPTIONS, 1024)) == ()


# struct cmsghdr of this program, and that of a program of 64 bits.
OWN_HEADER, WIDE_HEADER = struct.Struct("@Nii"), struct.Struct("=Qii")


@functools.cache
def has_wide_pktoptions() -> bool:
    """Whether a 64-bit kernel has IPV6_2292PKTOPTIONS in its own layout for a program of 32 bits:
    Linux 6.18 does, other than with IP_PKTOPTIONS and recvmsg()."""
    if sys.maxsize > 2**32:
        return False
    hop_limit = struct.pack("=i", 9)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        taken = []
        for header in (OWN_HEADER, WIDE_HEADER):
            control = header.pack(header.size + 4, IPPROTO_IPV6, IPV6_HOPLIMIT) + hop_limit
            try:
                sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control)
            except OSError:
                continue
            taken.append(header)
    assert len(taken) == 1, "what it takes of its own layout it cannot take of another"
    return taken == [WIDE_HEADER]


def laid_out(control: bytes, before: struct.Struct, after: struct.Struct) -> bytes:
    """The same control messages with headers of another layout."""
    result = b""
    while control:
        length, level, number = before.unpack_from(control)
        assert before.size <= length <= len(control)
        payload = control[before.size : length]
        result += after.pack(after.size + len(payload), level, number) + payload
        # To a multiple of the size of a size_t, behind which are two ints of four bytes.
        result += bytes(-len(result) % (after.size - 8))
        control = control[length + -length % (before.size - 8) :]
    return result


def given_pktoptions(control: bytes) -> bytes:
    return laid_out(control, WIDE_HEADER, OWN_HEADER) if has_wide_pktoptions() else control


def taken_pktoptions(control: bytes) -> bytes:
    return laid_out(control, OWN_HEADER, WIDE_HEADER) if has_wide_pktoptions() else control


@pytest.mark.parametrize(
    ("on", "types"),
    [
        (IPV6_ON, {50: 20, 52: 4, 67: 4}),
        (
            [
                (IPPROTO_IPV6, IPV6_2292PKTINFO),
                (IPPROTO_IPV6, IPV6_2292HOPLIMIT),
                (IPPROTO_IPV6, IPV6_RECVTCLASS),
            ],
            {IPV6_2292PKTINFO: 20, IPV6_2292HOPLIMIT: 4, 67: 4},
        ),
    ],
    ids=["RFC 3542", "RFC 2292"],
)
@pytest.mark.parametrize("family", [-1, socket.AF_INET6])
def test_ipv6_2292pktoptions(on: Options, types: dict[int, int], family: int) -> None:
    with accepted(socket.AF_INET6, "::1", on) as sock:
        control = given_pktoptions(sock.getsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, 1024))
    assert {number: size for _, number, size in headers(control)} == types
    assert set(wire.parse(control, family)) == {
        kinds.PacketInfo6("::1", LOOPBACK),
        kinds.HopLimit(33),
        kinds.TrafficClass(0x28),
    }


def header_of_options(*, fill: int) -> bytes:
    """A header of options, of 8 bytes: a PadN that holds nothing but `fill` zero bytes."""
    return bytes([0, 0, 1, fill]).ljust(8, b"\0")


@contextmanager
def udp6() -> Iterator[cmsgx.socket]:
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        yield sock


def set_pktoptions(sock: socket.socket, control: bytes) -> None:
    """Skips where headers of options need CAP_NET_RAW and this process has it not."""
    try:
        sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, taken_pktoptions(control))
    except PermissionError as error:
        pytest.skip(f"setsockopt(IPV6_2292PKTOPTIONS): {error}")


def test_the_kernel_takes_what_build_makes() -> None:
    """IPV6_2292PKTOPTIONS sets headers for each packet from then on: RFC 2292."""
    options = kinds.DestinationOptions(header_of_options(fill=4))
    with udp6() as sender, udp6() as receiver, cmsgx.enable(receiver, kinds.DestinationOptions):
        set_pktoptions(sender, wire.build([options]))
        assert sender.getsockopt(IPPROTO_IPV6, IPV6_DSTOPTS, 100) == options.header
        cmsgx.send(sender, b"with", address=receiver.getsockname())
        # The kernel says in it what follows, UDP.
        arrived = kinds.DestinationOptions(bytes([socket.IPPROTO_UDP]) + options.header[1:])
        assert cmsgx.receive(receiver, 10)[kinds.DestinationOptions] == arrived
        # None of them: the headers are gone.
        set_pktoptions(sender, wire.build([]))
        assert sender.getsockopt(IPPROTO_IPV6, IPV6_DSTOPTS, 100) == b""
        cmsgx.send(sender, b"without", address=receiver.getsockname())
        assert kinds.DestinationOptions not in cmsgx.receive(receiver, 10)


def test_the_kernel_takes_several() -> None:
    options = kinds.DestinationOptions(header_of_options(fill=4))
    hops = kinds.HopByHopOptions(header_of_options(fill=4))
    with udp6() as sock:
        set_pktoptions(sock, wire.build([kinds.HopLimit(9), options, hops]))
        assert sock.getsockopt(IPPROTO_IPV6, IPV6_DSTOPTS, 100) == options.header
        assert sock.getsockopt(IPPROTO_IPV6, IPV6_HOPOPTS, 100) == hops.header


@pytest.mark.parametrize(
    ("good", "wrong"),
    [
        (kinds.HopLimit(9), kinds.HopLimit.unpack(struct.pack("=i", 256))),
        (kinds.TrafficClass(0x28), kinds.TrafficClass.unpack(struct.pack("=i", 256))),
        (kinds.PacketInfo6("::1", LOOPBACK), kinds.PacketInfo6("2001:db8::1", LOOPBACK)),
        (kinds.DontFragment(1), kinds.DontFragment.unpack(struct.pack("=i", 2))),
    ],
)
def test_the_kernel_reads_what_build_makes(good: Any, wrong: Any) -> None:
    """It keeps only headers; of the rest it says whether it would do, without a capability."""
    with udp6() as sock:
        for several in ([], [good], [good, good]):
            control = taken_pktoptions(wire.build(several))
            sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control)
        control = taken_pktoptions(wire.build([good, wrong]))
        with pytest.raises(OSError, match="Invalid argument"):
            sock.setsockopt(IPPROTO_IPV6, IPV6_2292PKTOPTIONS, control)


# parse_multishot() of what the kernel wrote -----------------------------------------------------


class Filled(NamedTuple):
    """A buffer that io_uring filled."""

    res: int
    memory: bytes


@contextmanager
def multishot(
    sock: socket.socket, name_size: int, control_size: int, size: int, count: int = 1
) -> Iterator[tuple[int, list[Filled]]]:
    """Receives so many messages with c/multishot.c, and holds its descriptors open: its pid, and
    what was filled."""
    program = subprocess.Popen(
        [str(build("multishot", "-O1", "-g", "multishot.c"))]
        + [str(word) for word in (sock.fileno(), name_size, control_size, size, count)],
        pass_fds=[sock.fileno()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with program:
        assert program.stdin is not None
        assert program.stdout is not None
        lines = [program.stdout.readline() for _ in range(count)]
        if lines[0].startswith("refused: "):
            pytest.skip(lines[0].strip())
        found = [line.split() for line in lines if line]
        assert len(found) == count, "see its stderr"
        yield program.pid, [Filled(int(res), bytes.fromhex(text)) for res, text in found]
        program.stdin.close()
        assert program.wait(30) == 0


def sockaddr_in(address: tuple[str, int]) -> bytes:
    return struct.pack("=H", socket.AF_INET) + struct.pack(
        "!H4s8x", address[1], socket.inet_aton(address[0])
    )


@contextmanager
def udp() -> Iterator[tuple[cmsgx.socket, cmsgx.socket]]:
    """Two sockets, of which the second is told where a datagram came in, its TTL and its time."""
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
# The same without the padding of the last, which there need not be any.
BARE_CONTROL = CONTROL - socket.CMSG_SPACE(4) + socket.CMSG_LEN(4)
# Also those that leave control data at each alignment.
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
                # Without room for a name the kernel is not asked for one.
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
    """The address goes back to the kernel as it is."""
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
    # Level, type and payload of the last one.
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
    # What is before it is whole.
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
    """Two datagram sockets, of which the second is told who sent; the first has a name."""
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
    """The numbers are those of the process that received, here another one."""
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


# parse_multishot() of what is made here ---------------------------------------------------------


def make(
    name: bytes, control: bytes, payload: bytes, name_size: int, control_size: int, **header: int
) -> bytes:
    """A buffer as the kernel fills it; what it does not write is 0xaa."""
    values = {"namelen": len(name), "controllen": len(control), "payloadlen": len(payload)}
    values.update({"flags": 0}, **header)
    return (
        struct.pack("=4I", *values.values())
        + name[:name_size].ljust(name_size, b"\xaa")
        + control.ljust(control_size, b"\xaa")
        + payload
    )


def test_descriptors_are_owned_once() -> None:
    """Descriptors of this process, as a ring of its own would put them there."""
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
            with pytest.raises(ValueError, match="before"):
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
    """Where the provided buffer goes on."""
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
def test_more_control_data_than_room(length: int) -> None:
    raw = make(b"", b"", bytes(2000), 0, 40, controllen=length)
    with pytest.raises(cmsgx.MalformedControlError, match=f"^{length} bytes of control data"):
        wire.parse_multishot(raw, 0, 40)


@pytest.mark.parametrize("namelen", [29, 128, 2**31, 2**32 - 1])
def test_a_name_longer_than_its_room(namelen: int) -> None:
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


def test_nothing_behind_a_short_address_is_read() -> None:
    raw = make(struct.pack("=HH", socket.AF_NETLINK, 0), b"", b"", 28, 0)
    for _ in range(50):
        # What memory of that size held before.
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
