"""share() and Fd.map(): memory between processes that nobody pulls away."""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
import signal
import socket
from typing import Any, cast

import pytest
from support import close_pair, in_process, open_fds, status_of, unix_pair

import cmsgx

SHRINK, GROW, WRITE, SEAL = 2, 4, 8, 1
LARGE = 64 << 20


def memfd(data: bytes = b"content", seals: int = 0) -> cmsgx.Fd:
    """As a sender of another make may do it."""
    fd = cmsgx.Fd(os.memfd_create("other", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.write(fd.fileno(), data)
    fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, seals)
    return fd


# Sharing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"content", bytearray(b"content"), memoryview(b"content"), bytes(100_000)], ids=type
)
def test_share(data: Any) -> None:
    with cmsgx.share(data) as fd, fd.map() as mapping:
        assert type(fd) is cmsgx.Fd
        assert mapping[:] == bytes(data)
        assert fd.check(kind="memfd", access="rw", seals=SHRINK | GROW | WRITE | SEAL)
        assert not os.get_inheritable(fd.fileno())
        assert os.read(fd.fileno(), 1 << 20) == bytes(data)


def test_the_name_is_shown() -> None:
    with cmsgx.share(b"1") as one, cmsgx.share(b"1", "picture") as two:
        assert os.readlink(f"/proc/self/fd/{one.fileno()}") == "/memfd:cmsgx (deleted)"
        assert os.readlink(f"/proc/self/fd/{two.fileno()}") == "/memfd:picture (deleted)"


def test_nobody_changes_it() -> None:
    with cmsgx.share(b"content") as fd:
        for change in (
            lambda: os.ftruncate(fd.fileno(), 0),
            lambda: os.ftruncate(fd.fileno(), 100),
            lambda: os.pwrite(fd.fileno(), b"x", 0),
            lambda: mmap.mmap(fd.fileno(), 7),
            lambda: fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, 0),
        ):
            with pytest.raises(PermissionError) as caught:
                change()
            assert caught.value.errno == errno.EPERM


def test_items_of_more_than_a_byte() -> None:
    numbers = memoryview(bytes(range(16))).cast("I")
    with cmsgx.share(numbers) as fd, fd.map() as mapping:
        assert mapping[:] == bytes(range(16))


def test_partial_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:1000]))
    data = os.urandom(10_500)
    with cmsgx.share(data) as fd, fd.map() as mapping:
        assert mapping[:] == data


def test_a_failure_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = open_fds()
    buffer = bytearray(b"content")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(OSError, match="No space left"):
            cmsgx.share(buffer)
    assert open_fds() == before
    gc.collect()
    buffer.append(0)


def test_what_cannot_be_shared() -> None:
    with pytest.raises(TypeError):
        cmsgx.share(cast(Any, "text"))
    with pytest.raises(TypeError):
        cmsgx.share(memoryview(b"abcd")[::2])


@pytest.mark.parametrize(("module", "name"), [(os, "memfd_create"), (fcntl, "F_ADD_SEALS")])
def test_not_supported(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    monkeypatch.delattr(module, name)
    with pytest.raises(cmsgx.NotSupportedError, match="memfd_create"):
        cmsgx.share(b"1")


# Mapping ----------------------------------------------------------------------------------------


def test_the_mapping_is_read_only() -> None:
    with cmsgx.share(b"content") as fd, fd.map() as mapping:
        with pytest.raises(TypeError):
            mapping[0] = 1
        assert memoryview(mapping).readonly


def test_the_mapping_survives_the_fd() -> None:
    with cmsgx.share(b"content") as fd:
        mapping = fd.map()
    assert fd.closed
    with mapping:
        assert mapping[:] == b"content"


@pytest.mark.parametrize(
    ("has", "asked", "text"),
    [
        (0, 0, "F_SEAL_SHRINK"),
        (GROW | WRITE, 0, "F_SEAL_SHRINK"),
        (SHRINK, WRITE, "F_SEAL_WRITE"),
        (0, GROW | WRITE, "F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE"),
        (SHRINK, 0x10 | 0x20, "F_SEAL_FUTURE_WRITE, F_SEAL_EXEC"),
        (SHRINK, 1 << 20, "seal 0x100000"),
    ],
)
def test_a_missing_seal_is_named(has: int, asked: int, text: str) -> None:
    with memfd(seals=has) as fd, pytest.raises(ValueError, match=f"has no {text}$"):
        fd.map(seals=asked)


def test_shrink_is_enough() -> None:
    with memfd(seals=SHRINK) as fd, fd.map() as mapping:
        assert mapping[:] == b"content"
    with memfd(seals=SHRINK | WRITE) as fd, fd.map(seals=WRITE) as mapping:
        assert mapping[:] == b"content"


def test_size() -> None:
    with cmsgx.share(b"content") as fd:
        for size in (1, 7):
            with fd.map(size=size) as mapping:
                assert mapping[:] == b"content"[:size]
        for size in (0, -1, 8, LARGE):
            with pytest.raises(ValueError, match=f"size {size}, and <.*> has 7 bytes"):
                fd.map(size=size)
    with cmsgx.share(b"") as fd, pytest.raises(ValueError, match="has 0 bytes"):
        fd.map()


def test_what_cannot_be_mapped() -> None:
    left, right = unix_pair()
    with cmsgx.Fd(os.open(__file__, os.O_RDONLY)) as fd, pytest.raises(ValueError, match="SHRINK"):
        fd.map()
    with cmsgx.Fd(left.detach()) as fd, pytest.raises(ValueError, match="SHRINK"):
        fd.map()
    right.close()
    with cmsgx.share(b"content") as fd:
        path = f"/proc/self/fd/{fd.fileno()}"
        with (
            cmsgx.Fd(os.open(path, os.O_PATH)) as other,
            pytest.raises(ValueError, match="SHRINK"),
        ):
            other.map()
    with memfd(seals=SHRINK) as fd:
        path = f"/proc/self/fd/{fd.fileno()}"
        with (
            cmsgx.Fd(os.open(path, os.O_WRONLY)) as other,
            pytest.raises(ValueError, match="cannot be read"),
        ):
            other.map()
    with pytest.raises(ValueError, match="closed"):
        fd.map()


def test_no_descriptor_is_left() -> None:
    before = open_fds()
    with cmsgx.share(b"content") as fd:
        mapping = fd.map()
    mapping.close()
    assert open_fds() == before


# Two processes ----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_between_processes() -> None:
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    part = os.urandom(1 << 20)
    count = LARGE // len(part)

    def sender() -> None:
        with cmsgx.share(part * count) as fd:
            cmsgx.send(left, b"1", fds=[fd])

    pid = in_process(sender)
    with cmsgx.receive(right, 1, fds=1, timeout=60) as message:
        mapping = message.fds[0].map(size=LARGE, seals=WRITE)
    with mapping, memoryview(mapping) as view:
        assert len(mapping) == LARGE
        assert all(view[i << 20 : (i + 1) << 20] == part for i in range(count))
    assert status_of(pid) == 0
    close_pair((left, right))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_f4_a_sender_that_shrinks_the_file() -> None:
    """HAZARDS F4: without a seal the reader of a mapping dies of SIGBUS. Here it cannot."""
    left, right = unix_pair(socket.SOCK_SEQPACKET)
    data = bytes(1 << 16)

    def sender() -> None:
        with memfd(data) as unsealed, cmsgx.share(data) as sealed:
            cmsgx.send(left, b"1", fds=[unsealed, sealed])
            left.recv(1)  # it is mapped there
            os.ftruncate(unsealed.fileno(), 0)
            with pytest.raises(PermissionError):
                os.ftruncate(sealed.fileno(), 0)
            left.send(b"2")

    pid = in_process(sender)
    with cmsgx.receive(right, 1, fds=2, timeout=60) as message:
        unsealed, sealed = message.take_all()
    with unsealed, sealed:
        with pytest.raises(ValueError, match="F_SEAL_SHRINK"):
            unsealed.map()
        carelessly = mmap.mmap(unsealed.fileno(), len(data), prot=mmap.PROT_READ)
        with carelessly, sealed.map() as mapping:
            right.send(b"1")
            assert right.recv(1) == b"2"
            assert mapping[:] == data
            # That the hazard is one, in a process that may die of it.
            victim = in_process(
                lambda: (signal.signal(signal.SIGBUS, signal.SIG_DFL), carelessly[0])
            )
            assert status_of(victim) == -signal.SIGBUS
    assert status_of(pid) == 0
    close_pair((left, right))
