"""share() and Fd.map(): memory between processes that cannot be taken away."""

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
from attempts import may_fail
from support import close_pair, in_process, open_fds, status_of, unix_pair

import cmsgx

SHRINK, GROW, WRITE, SEAL, FUTURE_WRITE, EXEC = 2, 4, 8, 1, 0x10, 0x20
LARGE = 64 << 20


def memfd(data: bytes = b"content", seals: int = 0) -> cmsgx.Fd:
    """As a sender that does not use cmsgx may do it."""
    fd = cmsgx.Fd(os.memfd_create("other", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
    os.write(fd.fileno(), data)
    fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, seals)
    return fd


# Sharing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", [b"content", bytearray(b"content"), memoryview(b"content"), bytes(100_000)], ids=type
)
def test_memfd(data: Any) -> None:
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
        change: Any = mapping
        with pytest.raises(TypeError):
            change[0] = 1
        assert memoryview(mapping).readonly


def test_the_mapping_survives_the_fd() -> None:
    with cmsgx.share(b"content") as fd:
        mapping = fd.map()
    assert fd.closed
    with mapping:
        assert mapping[:] == b"content"


ALL = "F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_WRITE"


@pytest.mark.parametrize(
    ("has", "asked", "text"),
    [
        (0, ..., "F_SEAL_SHRINK, F_SEAL_WRITE: .* SIGBUS"),
        (0, "shrink", "F_SEAL_SHRINK: .* SIGBUS"),
        (GROW | WRITE, ..., "F_SEAL_SHRINK: .* SIGBUS"),
        (SHRINK, ..., "F_SEAL_WRITE: others .* with seals='shrink'"),
        (SHRINK, WRITE, "F_SEAL_WRITE: others .* with seals='shrink'"),
        (SHRINK, ["write"], "F_SEAL_WRITE: others .* with seals='shrink'"),
        (
            SHRINK | FUTURE_WRITE,
            ...,
            "F_SEAL_WRITE: others .* allow that with seals='future-write'",
        ),
        (
            SHRINK | FUTURE_WRITE,
            "write",
            "F_SEAL_WRITE: others .* allow that with seals='future-write'",
        ),
        (SHRINK, "future-write", "F_SEAL_FUTURE_WRITE: the sender"),
        (0, GROW | WRITE, f"{ALL}: .* SIGBUS"),
        (0, ("write", "grow"), f"{ALL}: .* SIGBUS"),
        (SHRINK | WRITE, "seal", "F_SEAL_SEAL: the sender"),
        (SHRINK, FUTURE_WRITE | EXEC, "F_SEAL_FUTURE_WRITE, F_SEAL_EXEC: the sender"),
        (SHRINK, {"future-write", "exec"}, "F_SEAL_FUTURE_WRITE, F_SEAL_EXEC: the sender"),
        (SHRINK, 1 << 20, "F_SEAL_WRITE, seal 0x100000: the sender"),
    ],
)
def test_a_missing_seal_is_named(has: int, asked: Any, text: str) -> None:
    arguments = {} if asked is ... else {"seals": asked}
    with memfd(seals=has) as fd, pytest.raises(ValueError, match=f"^map: {fd} lacks {text}"):
        fd.map(**arguments)


@pytest.mark.parametrize(
    "asked",
    ["grow", "seal", ["grow", "seal"], ["shrink", "grow"], GROW, SEAL, SHRINK | SEAL],
    ids=repr,
)
@pytest.mark.parametrize(
    ("has", "hint"), [(0, "shrink"), (FUTURE_WRITE, "future-write")], ids=["none", "future-write"]
)
def test_another_seal_is_required_in_addition_to_that_against_writing(
    asked: Any, has: int, hint: str
) -> None:
    """Only "future-write", and "shrink" alone, say that others may write."""
    with memfd() as fd, mmap.mmap(fd.fileno(), 7):
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, SHRINK | GROW | SEAL | has)
        with pytest.raises(
            ValueError, match=f"lacks F_SEAL_WRITE: .* allow that with seals='{hint}'"
        ):
            fd.map(seals=asked)


@pytest.mark.parametrize(
    ("has", "asked"),
    [
        (SHRINK | WRITE, ...),
        (SHRINK | WRITE, "future-write"),  # which the other one includes
        (SHRINK | WRITE, "shrink"),
        (SHRINK | WRITE, WRITE),
        (SHRINK | WRITE | GROW | SEAL, ("write", "grow", "seal")),
        (SHRINK | FUTURE_WRITE, "future-write"),
        (SHRINK | FUTURE_WRITE, FUTURE_WRITE),
        (SHRINK | FUTURE_WRITE, "shrink"),
        (SHRINK | WRITE | GROW, "grow"),
        (SHRINK | FUTURE_WRITE | GROW, ("future-write", "grow")),
        (SHRINK, "shrink"),
        (SHRINK, SHRINK),
    ],
)
def test_what_is_sealed_as_asked_is_mapped(has: int, asked: Any) -> None:
    arguments = {} if asked is ... else {"seals": asked}
    with memfd(seals=has) as fd, fd.map(**arguments) as mapping:
        assert mapping[:] == b"content"


def test_by_default_nobody_can_write_what_is_mapped() -> None:
    """F_SEAL_FUTURE_WRITE does not stop a process that mapped it before from writing."""
    with memfd() as fd, mmap.mmap(fd.fileno(), 7) as older:
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, SHRINK | GROW | FUTURE_WRITE | SEAL)
        with pytest.raises(ValueError, match="lacks F_SEAL_WRITE: others may still write"):
            fd.map()
        with fd.map(seals="future-write") as mapping:
            older[:3] = b"CON"
            assert mapping[:] == b"CONtent"  # so the other one has to be refused


@pytest.mark.parametrize("seals", [0, (), []], ids=repr)
def test_no_seal_is_not_the_name_of_a_weaker_one(seals: Any) -> None:
    with cmsgx.share(b"content") as fd, pytest.raises(ValueError, match="the weakest is 'shrink'"):
        fd.map(seals=seals)


@pytest.mark.parametrize("seals", ["F_SEAL_WRITE", ["write", "hard"], [3], ""], ids=repr)
@pytest.mark.parametrize("use", ["map", "check"])
def test_seals_have_names(use: str, seals: Any) -> None:
    with (
        cmsgx.share(b"content") as fd,
        pytest.raises(ValueError, match=r"^seals: .*; must be .*'shrink', "),
    ):
        getattr(fd, use)(seals=seals)


@pytest.mark.parametrize("seals", [3.0, None], ids=repr)
@pytest.mark.parametrize("use", ["map", "check"])
def test_seals_of_another_type_are_named(use: str, seals: Any) -> None:
    with cmsgx.share(b"content") as fd, pytest.raises(TypeError, match=r"^seals: .* not "):
        getattr(fd, use)(seals=seals)


def test_check_takes_the_names_of_seals() -> None:
    with memfd(seals=SHRINK | FUTURE_WRITE) as fd:
        assert fd.check(seals="shrink")
        assert fd.check(seals=("shrink", "future-write"))
        assert fd.check(seals=())
        assert not fd.check(seals="write")
        assert not fd.check(seals=["shrink", "exec"])


@pytest.mark.parametrize("size", ["5", 5.0, b"5"], ids=repr)
def test_a_size_of_another_type_is_named(size: Any) -> None:
    with cmsgx.share(b"content") as fd, pytest.raises(TypeError, match=r"^size: .* not "):
        fd.map(size=size)


@pytest.mark.parametrize(("data", "size"), [(b"", None), (b"", 0), (b"content", 0)])
def test_no_bytes_are_mapped_as_an_empty_buffer(data: bytes, size: int | None) -> None:
    """mmap(2) does not accept a length of 0."""
    before = open_fds()
    with cmsgx.share(data) as fd, fd.map(size=size) as mapping:
        assert len(mapping) == mapping.size() == mapping.tell() == 0
        assert mapping[:] == mapping.read() == mapping.read(5) == mapping.readline() == b""
        assert mapping.find(b"x") == mapping.rfind(b"x") == -1
        with memoryview(mapping) as view:
            assert view.readonly
            assert view.nbytes == 0
        for out in (lambda: mapping[0], mapping.read_byte, lambda: mapping.seek(1)):
            with pytest.raises((IndexError, ValueError)):
                out()
        for whence in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            mapping.seek(0, whence)
        mapping.flush()
        mapping.madvise(mmap.MADV_NORMAL)
        change: Any = mapping
        with pytest.raises(TypeError):
            change[0] = 1
        assert not mapping.closed
        assert repr(mapping) == str(mapping) == "<EmptyMapping>"
    assert mapping.closed
    assert repr(mapping) == "<EmptyMapping closed>"
    assert open_fds() == before


@pytest.mark.parametrize("data", [b"", b"content"])
def test_a_closed_mapping_refuses_to_be_used_empty_or_not(data: bytes) -> None:
    with cmsgx.share(data) as fd, fd.map() as mapping:
        pass
    uses: list[Any] = [
        mapping.read, mapping.readline, mapping.read_byte, mapping.size, mapping.tell,
        mapping.flush, mapping.__enter__, lambda: mapping[:], lambda: len(mapping),
        lambda: mapping.seek(0), lambda: mapping.madvise(mmap.MADV_NORMAL),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ValueError, match=r"^mmap closed or invalid$"):
            use()
    mapping.close()


@pytest.mark.parametrize("size", [249, 250])
def test_a_name_has_249_bytes_at_most(size: int) -> None:
    if size <= 249:
        with cmsgx.share(b"x", name="x" * size) as fd:
            assert ("x" * size) in os.readlink(f"/proc/self/fd/{fd.fileno()}")
    else:
        with pytest.raises(ValueError, match="name: 250 bytes; at most 249 are allowed"):
            cmsgx.share(b"x", name="x" * size)


def test_an_empty_mapping_has_what_one_has_for_reading() -> None:
    with cmsgx.share(b"") as fd, fd.map() as mapping:
        lacking = {name for name in dir(mmap.mmap) if not hasattr(mapping, name)}
    changing = {"move", "resize", "write", "write_byte", "set_name"}
    assert lacking <= {*changing, "__delitem__", "__setitem__", "__release_buffer__"}


def test_an_empty_memfd_without_seals_is_refused() -> None:
    with memfd(b"") as fd, pytest.raises(ValueError, match="lacks F_SEAL_SHRINK"):
        fd.map()


def test_of_huge_pages_whole_ones_are_mapped() -> None:
    """munmap(2) refuses a part of a huge page, so it would never be unmapped."""
    try:
        number = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | os.MFD_HUGETLB)
    except OSError as error:
        pytest.skip(f"memfd_create(MFD_HUGETLB): {error.strerror}")
    with cmsgx.Fd(number) as fd:
        page = os.fstat(number).st_blksize
        os.ftruncate(number, 2 * page)
        fcntl.fcntl(number, fcntl.F_ADD_SEALS, SHRINK | WRITE)
        for size in (1, mmap.PAGESIZE, page + 1):
            with pytest.raises(ValueError, match=f"size {size}, but .* pages of {page} bytes"):
                fd.map(size=size)
        with fd.map(size=0) as nothing:
            assert len(nothing) == 0
        # No huge pages are reserved on this system.
        with may_fail(errno.ENOMEM), fd.map(size=page) as mapping:
            assert len(mapping) == page


def test_size() -> None:
    with cmsgx.share(b"content") as fd:
        for size in (1, 7):
            with fd.map(size=size) as mapping:
                assert mapping[:] == b"content"[:size]
        for size in (-1, 8, LARGE):
            with pytest.raises(ValueError, match=f"size {size}, but <.*> has 7 bytes"):
                fd.map(size=size)


def test_what_cannot_be_mapped() -> None:
    left, right = unix_pair()
    for number in (os.open(__file__, os.O_RDONLY), os.dup(left.fileno()), os.dup(0)):
        with cmsgx.Fd(number) as fd, pytest.raises(ValueError, match="is not a sealed memfd"):
            fd.map()
    left.close()
    right.close()
    with cmsgx.share(b"content") as fd:
        path = f"/proc/self/fd/{fd.fileno()}"
        with (
            cmsgx.Fd(os.open(path, os.O_PATH)) as other,
            pytest.raises(ValueError, match="cannot be read"),
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
def test_F4_a_sender_that_shrinks_the_file() -> None:
    """docs/hazards.md, F4: without a seal SIGBUS kills the reader of a mapping, with one it does
    not."""
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
            # Shows that the hazard is real, in a process that may die of it.
            victim = in_process(
                lambda: (signal.signal(signal.SIGBUS, signal.SIG_DFL), carelessly[0])
            )
            assert status_of(victim) == -signal.SIGBUS
    assert status_of(pid) == 0
    close_pair((left, right))
