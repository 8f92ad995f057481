"""Exercises for the leak tests: each uses some public names, and is run many times."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from support import Pair

import cmsgx
import cmsgx.errors
import cmsgx.kinds
import cmsgx.wire

LEAK_TESTS: dict[Any, Callable[[], object]] = {}


@contextmanager
def pair(kind: int = socket.SOCK_STREAM) -> Iterator[Pair]:
    left, right = cmsgx.socketpair(socket.AF_UNIX, kind)
    with left, right:
        yield left, right


def exercises(*values: Any) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Registers the exercise of some public names."""

    def enter(exercise: Callable[[], object]) -> Callable[[], object]:
        for value in values:
            assert value not in LEAK_TESTS
            LEAK_TESTS[value] = exercise
        return exercise

    return enter


@exercises(cmsgx.CMSG_ALIGN, cmsgx.CMSG_LEN, cmsgx.CMSG_SPACE)
def macros() -> None:
    for macro in (cmsgx.CMSG_ALIGN, cmsgx.CMSG_LEN, cmsgx.CMSG_SPACE):
        macro(1000)
        with suppress(OverflowError):
            macro(sys.maxsize)
        with suppress(TypeError):
            macro("1")  # type: ignore[arg-type]


@exercises(cmsgx.sendmsg, cmsgx.recvmsg, cmsgx.recvmsg_into)
def drop_ins() -> None:
    with pair() as (left, right):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, sys.byteorder))
        room = cmsgx.CMSG_SPACE(4)
        memory = bytearray(100)
        for _ in range(2):
            cmsgx.sendmsg(left, [b"text", memoryview(b"more")], [rights, cmsgx.Credentials()])
        for _, ancdata, _, _ in (
            cmsgx.recvmsg(right, 100, room),
            cmsgx.recvmsg_into(right, [memory], room),
        ):
            for _, _, data in ancdata:
                for fd in memoryview(data).cast("i"):
                    os.close(fd)
        wrong: Any
        for wrong in (["text"], [b"x", 1], 1):
            with suppress(TypeError):
                cmsgx.sendmsg(left, wrong)
        with suppress(OSError):
            cmsgx.sendmsg(left, [b"x"], [(1, 2, b"too short")])
        with suppress(ValueError):
            cmsgx.recvmsg(right, -1)
        with suppress(BlockingIOError):
            cmsgx.recvmsg(right, 100, room, socket.MSG_DONTWAIT)
        with suppress(TypeError):
            cmsgx.recvmsg_into(right, [b"read-only"])


@exercises(cmsgx.send_fds, cmsgx.recv_fds)
def fds_as_numbers() -> None:
    with pair() as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        cmsgx.send_fds(left, [b"1"], [0, fd, left])
        for number in cmsgx.recv_fds(right, 10, 2)[1]:
            os.close(number)
        with suppress(OSError):
            cmsgx.send_fds(left, [b"1"], [1 << 20])
        with suppress(OverflowError):
            cmsgx.recv_fds(right, 10, -1)


@exercises(cmsgx.install, cmsgx.uninstall)
def patches() -> None:
    left, right = socket.socketpair()
    with left, right:
        try:
            cmsgx.install()
            cmsgx.install(cloexec=False)
            socket.send_fds(left, [b"1"], [0])
            for number in socket.recv_fds(right, 1, 1)[1]:
                os.close(number)
        finally:
            cmsgx.uninstall()


@exercises(cmsgx.socket, cmsgx.socketpair, cmsgx.fromfd)
def sockets() -> None:
    with cmsgx.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        with cmsgx.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            accepted = listener.accept()[0]
            with accepted:
                client.send_fds([b"1"], [0])
                for number in accepted.recv_fds(1, 1)[1]:
                    os.close(number)
            cmsgx.fromfd(client.fileno(), socket.AF_UNIX, socket.SOCK_STREAM).close()
    with pair():
        pass


class OwnFd(cmsgx.Fd):
    """A class of the caller's, with a dictionary."""


@exercises(
    cmsgx.send, cmsgx.receive, cmsgx.Message, cmsgx.MessageFds, cmsgx.View, cmsgx.TooManyFdsError
)  # fmt: skip
def typed() -> None:
    with pair(socket.SOCK_SEQPACKET) as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        for _ in range(2):
            cmsgx.send(left, [b"ab", bytearray(2)], fds=[0, fd], control=cmsgx.Rights([left]))
        with cmsgx.receive(right, 100, fds=2) as message:
            message.take(0).close()
            list(message), message.control, message.get_all(cmsgx.Rights), message.flags
            message.get(cmsgx.Credentials), cmsgx.PidFd in message, message.fds[:], repr(message)
            with suppress(KeyError):
                message[cmsgx.Credentials]
            with suppress(ValueError):
                message.take(0)
            with suppress(ValueError):
                message.take_one()
            with suppress(TypeError):
                message.take_all(fd_class=int)  # type: ignore[type-var]
            part, data = message.view[1:], message.data
        with suppress(ValueError):
            message.take_all()
        assert bytes(part) == data[1:]
        message = cmsgx.receive(right, 100, fds=3)
        message.take(1, fd_class=OwnFd).close()
        for one in message.take_all():
            one.close()
        cmsgx.send(left, b"1", fds=fd)
        cmsgx.receive(right, 1, fds=1).take_one(fd_class=OwnFd).close()
        cmsgx.send(left, b"1", fds=[0, fd])
        message = cmsgx.receive(right, 1, fds=cmsgx.MAX_FDS)
        message.fds[0].dup().close()
        for number in message.detach_all():
            os.close(number)
        for wrong in ([-1], [1 << 20], [True], ["0"], [0] * 254):
            with suppress(TypeError, ValueError, OSError):
                cmsgx.send(left, b"1", fds=wrong)  # type: ignore[arg-type]
        with suppress(BlockingIOError):
            cmsgx.receive(right, 1, flags=socket.MSG_DONTWAIT)
        with suppress(TimeoutError):
            cmsgx.receive(right, 1, timeout=0.000_001)
        with suppress(ValueError):
            cmsgx.receive(right, 1, fds=1, flags=socket.MSG_PEEK)


@exercises(cmsgx.try_send, cmsgx.PreparedSend)
def tries() -> None:
    with pair() as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        cmsgx.try_send(left, [b"x"], fds=[0, fd], control=[cmsgx.Credentials()])
        cmsgx.receive(right, 20, fds=2).close()
        while cmsgx.try_send(left, bytes(4096)) is not None:
            pass
        data: list[bytes | bytearray] = [b"x", bytearray(100_000)]
        fds: list[int | cmsgx.Fd | socket.socket] = [0, fd, left]
        prepared = cmsgx.PreparedSend(left, iter(data), fds=iter(fds), control=iter([]))
        with prepared:
            assert prepared.try_send() is prepared.try_send() is None
            with suppress(BlockingIOError):
                while True:
                    right.recv(1 << 20, socket.MSG_DONTWAIT)
            prepared.try_send()
        with cmsgx.PreparedSend(left, b"x", fds=[0]) as prepared:
            repr(prepared)
        with suppress(ValueError):
            prepared.try_send()
        with suppress(TypeError):
            cmsgx.try_send(left, iter([b"x"]))
        with suppress(TypeError):
            cmsgx.PreparedSend(left, [b"x", "x"], fds=[0, left])  # type: ignore[list-item]


@exercises(cmsgx.send_all)
def whole_sends() -> None:
    with pair() as (left, right):
        cmsgx.send_all(left, [b"x" * 10, bytearray(10)], fds=[0])
        cmsgx.receive(right, 20, fds=1).close()
        with suppress(TimeoutError):
            cmsgx.send_all(left, bytes(1 << 20), fds=[0], timeout=0.000_1)


@exercises(cmsgx.Receiver)
def receivers() -> None:
    with pair(socket.SOCK_SEQPACKET) as (left, right):
        for _ in range(3):
            cmsgx.send(left, b"text", fds=[0, 0])
        receiver = cmsgx.Receiver(right, 100, fds=1, want=[cmsgx.Credentials])
        with receiver.receive() as message:
            message.data, message.fds, message[cmsgx.Credentials]
        receiver.refresh()
        view = next(receiver).view
        large = cmsgx.Receiver(right, 20_000)
        for size in (20_000, 15_000, 20_000):  # without a copy: whole, shortened, and a new block
            left.send(bytes(size))
        assert [len(large.receive().data) for _ in range(4)] == [4, 20_000, 15_000, 20_000]
        cmsgx.send(left, b"text", fds=[0, 0])
        memory = [bytearray(2), bytearray(2)]
        third = cmsgx.Receiver(right, into=memory, fds=2, close="background")
        with third.try_receive() or third.receive() as message:
            assert not third.is_end(message)
        assert third.try_receive() is receiver.try_receive(bufsize=5) is None
        for wrong_call in (lambda: third.is_end(5), lambda: third.try_receive(5)):  # type: ignore
            with suppress(TypeError):
                wrong_call()
        assert bytes(view) == b"text"
        for wrong in ({"bufsize": -1}, {"want": [int]}, {"into": b""}, {"fds": 254}):
            with suppress(TypeError, ValueError, BufferError):
                cmsgx.Receiver(right, **{"bufsize": 1, **wrong})  # type: ignore[arg-type]
        left.close()
        assert receiver.is_end(receiver.receive())
        assert list(receiver) == []


@exercises(cmsgx.BatchReceiver, cmsgx.BatchResult, cmsgx.Batch, cmsgx.send_batch, cmsgx.Outgoing)
def batches() -> None:
    with pair(socket.SOCK_SEQPACKET) as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        messages: list[Any] = [
            b"1", (b"2", [0, fd]), cmsgx.Outgoing([b"3", b"4"] * 5, [fd] * 70, cmsgx.Credentials())
        ]  # fmt: skip
        receiver = cmsgx.BatchReceiver(right, 4, 100, fds=2, want=[cmsgx.Credentials])
        wrong: Any
        for wrong in (5, (), (b"x", [-1]), (b"x", [1 << 20]), bytes(1 << 24)):
            sent = cmsgx.send_batch(left, [*messages, wrong, b"x"])
            assert sent == 3
            with suppress(TypeError, ValueError, OSError):
                cmsgx.send_batch(left, [wrong])
            with receiver.receive() as batch:
                list(batch), batch[1:], repr(batch)
                for one in batch[1].take_all():
                    one.close()
                view = batch[0].view
                batch[2][cmsgx.Credentials].pid, batch[2].fds[0]
                with suppress(IndexError):
                    batch[5]
        assert bytes(view) == b"1"
        result = cmsgx.send_batch(left, [bytes(1 << 24), bytes(1 << 24)], on_error="skip")
        assert (result.done, len(result.skipped), repr(result)[:15]) == (2, 2, "BatchResult(0, ")
        receiver.refresh()
        cmsgx.send_batch(left, messages)
        next(receiver)
        cmsgx.send_batch(left, messages)
        cmsgx.BatchReceiver(right, 4, 100, fds=2, close="background").receive().close()
        with suppress(BlockingIOError):
            receiver.receive(timeout=0)
        assert receiver.try_receive() is receiver.try_receive(flags=0) is None
        cmsgx.send_batch(left, messages)
        with receiver.try_receive() or receiver.receive() as batch:
            assert not receiver.is_end(batch)
        with suppress(TypeError):
            receiver.is_end(batch[0])  # type: ignore[arg-type]
        for arguments in ({"count": 0}, {"bufsize": -1}, {"want": [int]}, {"fds": 254}):
            with suppress(TypeError, ValueError):
                cmsgx.BatchReceiver(right, **{"count": 1, "bufsize": 1, **arguments})  # type: ignore[arg-type]
        left.close()
        assert receiver.is_end(receiver.receive())
        assert list(receiver) == []


@exercises(cmsgx.send_segments, cmsgx.segment_support, cmsgx.Segments)
def segments() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        two.bind(("127.0.0.1", 0))
        one.connect(two.getsockname())
        receiver = cmsgx.Receiver(two, 65536, want=[cmsgx.kinds.UdpGro])
        for no_checksums in (0, 1):  # without which it accepts no segments
            one.setsockopt(socket.SOL_SOCKET, 11, no_checksums)
            assert cmsgx.send_segments(one, bytes(1000), 300, control=cmsgx.kinds.Ttl(9)) == 4
            got = 0
            while got < 1000:
                msg = receiver.receive()
                got += sum(map(len, msg.segments))
                msg.segments[-1], repr(msg.segments), msg.segments.size
                with suppress(IndexError):
                    msg.segments[4]
            cmsgx.segment_support(one)
        with suppress(OSError):
            cmsgx.send_segments(one, bytes(200_000), 70_000)
        with suppress(ValueError):
            cmsgx.send_segments(one, b"", 0)


@exercises(cmsgx.Address, cmsgx.AddressTuple)
def addresses() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        cmsgx.send(one, b"1", address=two.getsockname())
        message = cmsgx.receive(two, 10)
        assert message.address == one.getsockname()
        made = cmsgx.Address(socket.AF_INET, message.address)
        assert made == message.sender
        for address in (message.address, message.sender, made):
            assert isinstance(address, cmsgx.Address)
            address.value, address.packed, address.ip, repr(address), hash(address)
            cmsgx.send(two, b"1", address=address)
            cmsgx.receive(one, 10)
        pickle.dumps(message.address), message.address[:1], tuple(message.address)
        for wrong in (("127.0.0.1",), ("127.0.0.1", -1), ("127.0.0.1", "1"), (1, 1), "path"):
            with suppress(TypeError, OverflowError, OSError, ValueError):
                cmsgx.Address(socket.AF_INET, wrong)
            with suppress(TypeError, OverflowError, OSError, ValueError):
                cmsgx.send(one, b"1", address=wrong)


@exercises(cmsgx.Fd)
def owners() -> None:
    with cmsgx.Fd(os.memfd_create("x")) as fd:
        fd.check(kind="memfd", access="rw", seals=1), repr(fd)
        with fd.dup() as other, other.open("wb") as file:
            file.write(b"1")
        os.close(fd.dup().detach())
        with fd.dup() as other, suppress(LookupError):
            other.open("r", encoding="no such encoding")
        with suppress(OSError), fd.dup() as other:
            other.socket()
        with suppress(TypeError):
            fd.__reduce_ex__(4)
    with suppress(ValueError):
        fd.fileno()
    with suppress(TypeError, ValueError):
        cmsgx.Fd("0")  # type: ignore[arg-type]
    with pair() as (left, _):
        cmsgx.Fd(os.dup(left.fileno())).socket().close()


@exercises(cmsgx.share, cmsgx.EmptyMapping)
def shared_memory() -> None:
    with cmsgx.share(b"content") as fd:
        with fd.map() as mapping:
            assert mapping[:] == b"content"
        with suppress(ValueError):
            fd.map(size=8)
        with fd.map(size=0) as mapping:
            assert mapping.read() == b""
    with cmsgx.Fd(os.memfd_create("x")) as fd, suppress(ValueError):
        fd.map(seals=1)
    with suppress(TypeError):
        cmsgx.share("text")  # type: ignore[arg-type]


@exercises(cmsgx.ZeroCopySender, cmsgx.Pending)
def without_a_copy() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind(("127.0.0.1", 0))
        cmsgx.enable(sock, cmsgx.kinds.ExtendedError)
        sock.settimeout(60)
        buffer = bytearray(1000)
        with cmsgx.ZeroCopySender(sock, max_pending=2) as sender:
            for _ in range(4):
                sender.send([buffer, b"more"], address=peer.getsockname())
            peer.close()
            sock.connect(("127.0.0.1", 1))
            with suppress(ConnectionRefusedError):
                sender.send_all(buffer)
            with suppress(OSError):
                sender.send(bytes(1 << 17))
            with suppress(TypeError):
                sender.send("text")  # type: ignore[arg-type]
            sender.reap(), sender.pending, sender.copied, sender.stopped, repr(sender)
        assert sender.close() == ()
        buffer.append(0)
        sender = cmsgx.ZeroCopySender(sock, next_id=sender.next_id)
        with suppress(ConnectionRefusedError):
            sender.send(buffer)
        sender.release()
    with pair() as (left, _), suppress(cmsgx.NotSupportedError):
        cmsgx.ZeroCopySender(left)


@exercises(cmsgx.close_in_background, cmsgx.wait_closed)
def in_background() -> None:
    fd = cmsgx.Fd(os.dup(0))
    cmsgx.close_in_background(fd, os.dup(0))
    cmsgx.Fd(os.dup(0)).close_in_background()
    with suppress(TypeError):
        cmsgx.close_in_background("0")  # type: ignore[arg-type]
    left, right = cmsgx.socketpair()
    cmsgx.close_in_background(left, right)
    with suppress(ValueError):
        cmsgx.wait_closed(-1)
    assert cmsgx.wait_closed(10.0) == 0


@exercises(cmsgx.PidFd, cmsgx.kinds.UnownedPidFd, cmsgx.peer_pidfd)
def pidfds() -> None:
    with cmsgx.PidFd(os.pidfd_open(os.getpid())) as fd:
        assert fd.pid == os.getpid()
        fd.send_signal(0)
        with suppress(TimeoutError):
            fd.wait(0)
        unowned = cmsgx.PidFd.unpack(os.dup(fd.fileno()).to_bytes(4, sys.byteorder))
        unowned.own().close()
    with pair() as (left, right), suppress(cmsgx.NotSupportedError):
        cmsgx.peer_pidfd(left).close()
        receiver = cmsgx.Receiver(right, 10, want=[cmsgx.PidFd])
        cmsgx.send(left, b"1")
        with receiver.receive() as message:
            assert message[cmsgx.PidFd].pid == os.getpid()


@exercises(cmsgx.peer_credentials, cmsgx.PeerCredentials, cmsgx.peer_groups, cmsgx.peer_security)
def peers() -> None:
    with pair() as (left, _):
        cmsgx.peer_groups(left), cmsgx.peer_security(left)
        who = cmsgx.peer_credentials(left)
        who.uid_mapped, who.gid_mapped, repr(who), hash(who)
        assert who == cmsgx.PeerCredentials(who.pid, who.uid, who.gid)
    with socket.socket() as other:
        for call in (cmsgx.peer_credentials, cmsgx.peer_groups, cmsgx.peer_security):
            with suppress(cmsgx.NotSupportedError):
                call(other)


@exercises(cmsgx.accept_rights)
def rights_refused() -> None:
    with pair() as (left, right), suppress(cmsgx.NotSupportedError):
        cmsgx.accept_rights(right, False)
        with suppress(PermissionError):
            cmsgx.send(left, b"1", fds=[0])
        cmsgx.accept_rights(right, True)
