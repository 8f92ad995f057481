"""Batches of random messages, compared with a model that predicts what has to arrive.

CMSGX_BATCH_DATAGRAMS says how many datagrams, 10^7 for a release: tools/campaign batch.
"""

from __future__ import annotations

import errno
import gc
import os
import random
import resource
import socket
import sys
import time
import warnings
from collections import Counter, deque
from typing import Any, NamedTuple

import pytest
from support import allow_many_descriptors, lengths, open_files, run_python

import cmsgx
from cmsgx import _cmsg, kinds

# The number of datagrams after which memory is checked, because the first ones fill caches.
LONG_RUN = 5_000_000
MIB = 1 << 20

BUFSIZE = 64
SIZES = (0, 1, 5, BUFSIZE - 1, BUFSIZE, BUFSIZE + 1, 3 * BUFSIZE)
FILES = 8
COUNTS = (1, 3, 16, 100)
MOST_IN_BATCH = 40
IS_ROOT = os.geteuid() == 0


class Expected(NamedTuple):
    """A message that was sent."""

    data: bytes
    files: tuple[int, ...]
    """The indexes of the files whose descriptors were sent with it."""
    uid: int
    """The pid of its credentials; for UDP its TTL."""
    tos: int


class Refused(NamedTuple):
    """A message that cannot be sent, and the exception for it."""

    message: Any
    error: type[BaseException]
    number: int | None = None


def resident() -> int:
    """The number of bytes of memory in use."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def count_open() -> int:
    return len(os.listdir("/proc/self/fd"))


class World:
    """Two sockets, the content of the queue between them, and the receivers that read it."""

    def __init__(self, chance: random.Random, counts: Counter[str]) -> None:
        self.chance = chance
        self.counts = counts
        self.receivers: list[tuple[cmsgx.BatchReceiver, int, int]] = []
        self.in_background: set[cmsgx.BatchReceiver] = set()
        """Each with its own limits for descriptors and data."""
        self.refused: list[Refused] = []
        self.kept: deque[tuple[Any, bytes]] = deque(maxlen=50)

    def send(self) -> None:
        """One call, of which some message may be refused; the messages that were sent are then in
        the queue."""
        chance = self.chance
        messages, expected = self.make(chance.randrange(1, MOST_IN_BATCH))
        bad = None
        stop = len(messages)
        if chance.random() < 0.25:
            bad = chance.choice(self.refused)
            stop = chance.randrange(len(messages) + 1)
            messages.insert(stop, bad.message)
        failure: Any = None
        try:
            sent = cmsgx.send_batch(self.sender, messages, timeout=0)
        except (OSError, ValueError, TypeError) as error:
            failure = error
        if failure is not None:
            assert (failure.sent, failure.sent_bytes) == (0, 0)
            number = getattr(failure, "errno", None)
            if number == errno.EAGAIN:
                assert self.is_waiting()
                self.counts["full"] += 1
            else:
                assert bad is not None
                assert stop == 0
                assert isinstance(failure, bad.error)
                assert bad.number in (None, number)
                self.counts["refused"] += 1
            return
        self.counts["stopped"] += sent < len(messages)
        # If it stopped earlier, the queue was full.
        assert 0 < sent <= stop
        assert sent == stop or self.is_waiting()
        self.counts["cut"] += sent < stop
        self.note([one for some in expected[:sent] for one in some])

    def receive(self) -> bool:
        """One call; returns whether there was something to receive."""
        # A descriptor that is closed in the background occupies the table until it is closed.
        assert _cmsg.closer_wait(60) == 0
        rx, fds, bufsize = self.chance.choice(self.receivers)
        if self.chance.random() < 0.5:
            found = rx.try_receive()
        else:
            try:
                found = rx.receive(timeout=0)
            except BlockingIOError:
                found = None
        if found is None:
            return False
        batch = found
        assert not rx.is_end(batch)
        assert 0 < len(batch) <= rx.count
        for msg in batch:
            self.check(msg, fds, bufsize, rx in self.in_background)
        self.dispose(batch)
        return True

    def dispose(self, batch: cmsgx.Batch) -> None:
        """Closes or keeps a batch in one of several ways; earlier views must be unchanged."""
        choice = self.chance.random()
        if choice < 0.4:
            batch.close()
        elif choice < 0.6:
            for msg in batch:
                for fd in msg.take_all():
                    fd.close()
        elif choice < 0.8:
            msg = batch[self.chance.randrange(len(batch))]
            self.kept.append((msg.view, msg.data))
            batch.close()
        elif choice < 0.9:
            taken = [msg.take(0) for msg in batch if msg.fds]
            batch.close()
            for fd in taken:
                os.fstat(fd.fileno())
                fd.close()
        # Otherwise it is dropped without being closed.
        for view, data in self.kept:
            assert view == data

    # What differs between the kinds of sockets:
    sender: cmsgx.socket

    def make(self, count: int) -> tuple[list[Any], list[list[Expected]]]:
        """This many messages, with the expected result of each."""
        raise NotImplementedError

    def note(self, expected: list[Expected]) -> None:
        raise NotImplementedError

    def is_waiting(self) -> bool:
        raise NotImplementedError

    def check(self, msg: cmsgx.Message, fds: int, bufsize: int, is_counted: bool) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class UnixWorld(World):
    """Nothing is lost: each message comes, in order, with its descriptors and credentials."""

    def __init__(
        self, chance: random.Random, counts: Counter[str], kind: int, files: list[int]
    ) -> None:
        super().__init__(chance, counts)
        self.sender, self.receiver = cmsgx.socketpair(socket.AF_UNIX, kind)
        self.owners = [cmsgx.Fd(os.dup(number)) for number in files]
        self.index_of = {os.fstat(number).st_ino: i for i, number in enumerate(files)}
        self.queue: deque[Expected] = deque()
        for count in COUNTS:
            for fds in (0, 1, 3, FILES):
                want = [cmsgx.Credentials]
                in_background = chance.random() < 0.2
                rx = cmsgx.BatchReceiver(
                    self.receiver, count, BUFSIZE, fds=fds, want=want,
                    close="background" if in_background else "now",
                )  # fmt: skip
                self.receivers.append((rx, fds, BUFSIZE))
                if in_background:
                    self.in_background.add(rx)
        self.templates = [self.template(files) for _ in range(2000)]
        closed = cmsgx.Fd(os.dup(0))
        closed.close()
        self.refused = [
            Refused(bytes(10_000_000), OSError, errno.EMSGSIZE),
            Refused((b"bad", [0, 1 << 20]), OSError, errno.EBADF),
            Refused((b"bad", [self.owners[0], closed]), OSError, errno.EBADF),
            Refused((b"bad", [0, -1]), ValueError),
            Refused((b"bad", [0] * 254), cmsgx.TooManyFdsError),
            Refused((b"bad", (), [(1, 2, b"1")]), OSError, errno.EINVAL),
            Refused(5, TypeError),
            Refused((b"bad", (), kinds.UdpGro(1)), ValueError),
        ]

    def template(self, files: list[int]) -> tuple[Any, Expected]:
        chance = self.chance
        data = chance.randbytes(chance.choice(SIZES))
        count = chance.choice((0, 0, 0, 1, 1, 2, FILES))
        indexes = tuple(chance.randrange(FILES) for _ in range(count))
        fds = [chance.choice((files[i], self.owners[i])) for i in indexes]
        uid = chance.randrange(1000) if IS_ROOT else os.geteuid()
        control: Any = cmsgx.Credentials(os.getpid(), uid, os.getegid())
        form: Any = data
        if len(data) > 1 and chance.random() < 0.3:
            form = [data[:1], bytearray(data[1:])]
        if chance.random() < 0.1:
            control = [control, cmsgx.Rights(fds)]
            fds = []
        message = chance.choice((tuple, cmsgx.Outgoing._make))((form, fds, control, None))
        return message, Expected(data, indexes, uid, 0)

    def make(self, count: int) -> tuple[list[Any], list[list[Expected]]]:
        at = self.chance.randrange(len(self.templates) - count)
        chosen = self.templates[at : at + count]
        return [message for message, _ in chosen], [[expected] for _, expected in chosen]

    def note(self, expected: list[Expected]) -> None:
        self.queue.extend(expected)
        self.counts["datagrams"] += len(expected)

    def is_waiting(self) -> bool:
        return len(self.queue) > 0

    def check(self, msg: cmsgx.Message, fds: int, bufsize: int, is_counted: bool) -> None:
        expected = self.queue.popleft()
        data, files = expected.data, expected.files
        assert msg.data == data[:bufsize]
        assert msg.truncated == (len(data) > bufsize or len(files) > fds)
        assert len(msg.fds) == min(len(files), fds)
        surplus = max(len(files) - fds, 0)
        # The kernel does not count those that do not fit into the buffer; with background closing
        # all of them fit.
        assert msg.closed_fds == (surplus if is_counted or surplus == 0 else None)
        assert msg[cmsgx.Credentials].uid == expected.uid
        for fd, index in zip(msg.fds, files, strict=False):
            assert self.index_of[os.fstat(fd.fileno()).st_ino] == index
        self.counts["descriptors"] += len(msg.fds)
        self.counts["truncated"] += msg.truncated

    def close(self) -> None:
        for sock in (self.sender, self.receiver):
            sock.close()
        for owner in self.owners:
            owner.close()


class UdpWorld(World):
    """Datagrams are numbered. The receive queue is short: each datagram that arrives says how many
    were lost before it, which has to be how many numbers are missing."""

    def __init__(self, chance: random.Random, counts: Counter[str], family: int) -> None:
        super().__init__(chance, counts)
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self.is_ipv4 = family == socket.AF_INET
        self.sender = cmsgx.socket(family, socket.SOCK_DGRAM)
        self.receiver = cmsgx.socket(family, socket.SOCK_DGRAM)
        for sock in (self.sender, self.receiver):
            sock.bind((host, 0))
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 40_000)
        self.ttl: Any = kinds.Ttl if self.is_ipv4 else kinds.HopLimit
        self.tos: Any = kinds.Tos if self.is_ipv4 else kinds.TrafficClass
        for count in COUNTS:
            rx = cmsgx.BatchReceiver(
                self.receiver, count, BUFSIZE,
                want=[self.ttl, self.tos, kinds.ReceiveQueueOverflow],
            )  # fmt: skip
            self.receivers.append((rx, 0, BUFSIZE))
        self.source = self.sender.getsockname()
        self.target = self.receiver.getsockname()
        self.sent = 0
        """The number of the next one."""
        self.lost = 0
        self.outstanding: deque[tuple[int, Expected]] = deque()
        self.tails = [chance.randbytes(size) for size in SIZES if size < 1400]
        self.controls = [
            (ttl, tos, (self.ttl(ttl), self.tos(tos))) for ttl in (1, 9, 64) for tos in (0, 8, 184)
        ]
        self.refused = [
            Refused((bytes(70_000), (), (), self.target), OSError, errno.EMSGSIZE),
            Refused((b"bad", [0], (), self.target), cmsgx.NotSupportedError),
            Refused((b"bad", (), (), "a path"), TypeError),
            Refused((b"bad", (), [self.too_large_a_ttl()], self.target), OSError, errno.EINVAL),
            Refused(5, TypeError),
        ]
        if self.is_ipv4:
            nowhere = ("255.255.255.255", 9)  # without SO_BROADCAST
            self.refused.append(Refused((b"bad", (), (), nowhere), OSError, errno.EACCES))

    def too_large_a_ttl(self) -> tuple[int, int, bytes]:
        """As a tuple, which the kernel refuses: a kind with this value cannot be created."""
        return self.ttl.level, self.ttl.type, (1000).to_bytes(4, sys.byteorder)

    def make(self, count: int) -> tuple[list[Any], list[list[Expected]]]:
        chance = self.chance
        messages: list[Any] = []
        expected = []
        number = self.sent
        for _ in range(count):
            ttl, tos, always = chance.choice(self.controls)
            control: tuple[Any, ...] = always
            tail = chance.choice(self.tails)
            # Now and then one message is several datagrams.
            segments = chance.randrange(2, 9) if chance.random() < 0.05 else 1
            parts = [n.to_bytes(8, "big") + tail for n in range(number, number + segments)]
            if segments > 1:
                control = (*control, kinds.UdpSegment(len(parts[0])))
            messages.append((b"".join(parts), (), control, self.target))
            expected.append([Expected(data, (), ttl, tos) for data in parts])
            number += segments
        return messages, expected

    def note(self, expected: list[Expected]) -> None:
        self.outstanding.extend(enumerate(expected, self.sent))
        self.sent += len(expected)
        self.counts["datagrams"] += len(expected)

    def is_waiting(self) -> bool:
        return True

    def check(self, msg: cmsgx.Message, fds: int, bufsize: int, is_counted: bool) -> None:
        number = int.from_bytes(msg.view[:8], "big")
        while self.outstanding[0][0] != number:  # those that were lost
            self.outstanding.popleft()
            self.lost += 1
            self.counts["lost"] += 1
        expected = self.outstanding.popleft()[1]
        overflow = msg.get(kinds.ReceiveQueueOverflow)
        assert (overflow.drops if overflow else 0) == self.lost
        assert msg.data == expected.data[:bufsize]
        assert msg.truncated == (len(expected.data) > bufsize)
        assert msg[self.ttl] == self.ttl(expected.uid)
        assert msg[self.tos] == self.tos(expected.tos)
        assert msg.address == self.source
        assert msg.closed_fds == 0
        self.counts["truncated"] += msg.truncated

    def close(self) -> None:
        for sock in (self.sender, self.receiver):
            sock.close()


def run(datagrams: int, seed: int) -> None:
    """This many messages, over each kind of socket in turn; in a separate process."""
    warnings.simplefilter("ignore", ResourceWarning)  # for batches that are dropped
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    start = time.monotonic()
    with open_files(FILES) as files:
        worlds: list[World] = [
            UnixWorld(chance, counts, socket.SOCK_SEQPACKET, files),
            UnixWorld(chance, counts, socket.SOCK_DGRAM, files),
            UdpWorld(chance, counts, socket.AF_INET),
            UdpWorld(chance, counts, socket.AF_INET6),
        ]
        before = count_open()
        early: int | None = None
        while counts["datagrams"] < datagrams:
            world = chance.choice(worlds)
            # So low that it sometimes limits a batch, but never a message.
            room = chance.choice((3 * FILES, 100, 1000))
            low = before + room, limits[1]
            for _ in range(200):
                # It can also limit what is in flight.
                allow_many_descriptors()
                for _ in range(chance.randrange(4)):
                    world.send()
                resource.setrlimit(resource.RLIMIT_NOFILE, low)
                for _ in range(chance.randrange(4)):
                    world.receive()
            if chance.random() < 0.5:
                while world.receive():
                    pass
            _cmsg.closer_wait(60)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert count_open() == before
            counts["turns"] += 1
            if early is None and counts["datagrams"] >= datagrams // 10:
                gc.collect()
                early = resident()
        for world in worlds:
            while world.receive():
                pass
            world.kept.clear()
        _cmsg.closer_wait(60)
        gc.collect()
        assert count_open() == before
        assert early is not None
        growth = resident() - early
        for world in worlds:
            world.close()
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    print(f"{time.monotonic() - start:.0f} s, memory grew by {growth / MIB:.2f} MiB "
          f"over the last {datagrams - datagrams // 10:,}")  # fmt: skip
    for name in ("descriptors", "truncated", "refused", "stopped", "cut", "full", "lost"):
        assert counts[name] > 0, f"{name}: that was not tried"
    if datagrams >= LONG_RUN:
        assert growth < MIB


@pytest.mark.parametrize("datagrams", lengths("CMSGX_BATCH_DATAGRAMS", 30_000, 300_000))
@pytest.mark.slow
def test_random_batches_are_what_the_model_says(datagrams: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip(f"it needs 1000 descriptors beside its own; {hard} are allowed")
    code = "import sys, test_batch_model as here; here.run(int(sys.argv[1]), int(sys.argv[2]))"
    print(run_python(code, str(datagrams), "1", timeout=300 + datagrams / 1_000))
