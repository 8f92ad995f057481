"""Fd.check(): what a descriptor refers to."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt
from owners import SEALS, make, new_fd
from support import enter_empty_root, fill_table, in_fork, run_python

import cmsgx
from cmsgx import _fds

F_SEAL_FUTURE_WRITE = 0x10


# Fd.check() -------------------------------------------------------------------------------------

KINDS: dict[str, set[Any]] = {
    "file": {"file"},
    "file, to read": {"file"},
    "file, to append": {"file"},
    "directory": {"directory"},
    "socket": {"socket"},
    "pipe": {"pipe"},
    "fifo": {"pipe"},
    "/dev/null": {"character"},
    "tty": {"character"},
    "memfd": {"memfd", "file"},
    "memfd, sealed": {"memfd", "file"},
    "pidfd": {"pidfd", "anonymous"},
    "eventfd": {"eventfd", "anonymous"},
    "epoll": {"epoll", "anonymous"},
}

ALL_KINDS: tuple[Any, ...] = (
    *("file", "directory", "socket", "pipe", "character", "block", "symlink"),
    *("memfd", "pidfd", "eventfd", "epoll", "anonymous"),
)


@pytest.mark.parametrize("what", KINDS)
def test_check_distinguishes_kinds(what: str, tmp_path: Path) -> None:
    with ExitStack() as stack, make(what, tmp_path, stack) as fd:
        assert {kind for kind in ALL_KINDS if fd.check(kind=kind)} == KINDS[what]
        assert fd.check()
        assert fd.check(kind=ALL_KINDS)
        assert not fd.check(kind=set(ALL_KINDS) - KINDS[what])
        assert fd.check(device=os.fstat(fd.fileno()).st_dev)
        assert not fd.check(device=os.fstat(fd.fileno()).st_dev + 1)


def kinds_that_cannot_be_told(fd: cmsgx.Fd) -> set[Any]:
    found: set[Any] = set()
    for kind in ALL_KINDS:
        try:
            fd.check(kind=kind)
        except FileNotFoundError as error:
            if f"shows whether it is one of ['{kind}']" not in str(error):
                raise
            found.add(kind)
    return found


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_check_distinguishes_kinds_in_a_chroot_or_says_that_it_cannot(tmp_path: Path) -> None:
    with ExitStack() as stack:
        made = {}
        for what in KINDS:
            (tmp_path / what.replace("/", "-")).mkdir()
            made[what] = make(what, tmp_path / what.replace("/", "-"), stack)
            stack.enter_context(made[what])

        def child() -> None:
            enter_empty_root(tmp_path / "empty")
            for what, fd in made.items():
                unknown = kinds_that_cannot_be_told(fd)
                expected = {"eventfd", "epoll"} if what in ("eventfd", "epoll") else set()
                assert unknown == expected, (what, unknown)
                told = {k for k in ALL_KINDS if k not in unknown and fd.check(kind=k)}
                assert told == KINDS[what] - unknown, (what, told)
                assert fd.check(kind=ALL_KINDS)

        in_fork(child)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_check_with_a_full_table_says_so_only_where_it_needs_a_descriptor() -> None:
    with cmsgx.Fd(os.memfd_create("plain")) as fd:

        def child() -> None:
            _fds._device_of_memfds.cache_clear()
            fill_table()
            assert fd.check(kind="file")
            assert fd.check(kind=["memfd", "file"])
            for other in set(ALL_KINDS) - {"memfd", "file"}:
                assert not fd.check(kind=other)
            with pytest.raises(
                OSError, match="no descriptor is left to recognise a memfd"
            ) as caught:
                fd.check(kind="memfd")
            assert caught.value.errno == errno.EMFILE
            os.close(0)
            assert fd.check(kind="memfd")
            os.dup(1)
            assert fd.check(kind="memfd")

        in_fork(child)


@pytest.mark.parametrize(("what", "kind"), [("file, O_PATH", "file"), ("symlink", "symlink")])
def test_check_refuses_o_path_unless_it_is_accepted(what: str, kind: Any, tmp_path: Path) -> None:
    modes: tuple[Any, ...] = ("r", "w", "rw")
    with ExitStack() as stack, make(what, tmp_path, stack) as fd:
        assert not fd.check()
        assert not fd.check(kind=kind)
        assert fd.check(kind=kind, path=True)
        assert {k for k in ALL_KINDS if fd.check(kind=k, path=True)} == {kind}
        for access in modes:
            assert not fd.check(access=access, path=True)


@pytest.mark.parametrize(
    ("what", "allowed"),
    [
        ("file", {"r", "w", "rw"}),
        ("file, to read", {"r"}),
        ("file, to append", {"w"}),
        ("pipe", {"r"}),
        ("/dev/null", {"w"}),
        ("socket", {"r", "w", "rw"}),
    ],
)
def test_check_access(what: str, allowed: set[str], tmp_path: Path) -> None:
    modes: tuple[Any, ...] = ("r", "w", "rw")
    with ExitStack() as stack, make(what, tmp_path, stack) as fd:
        assert {access for access in modes if fd.check(access=access)} == allowed


def test_check_seals_and_size(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sealed = stack.enter_context(make("memfd, sealed", tmp_path, stack))
        assert sealed.check(kind="memfd", seals=SEALS, size=4096)
        assert sealed.check(seals=fcntl.F_SEAL_SHRINK, size=1)
        assert not sealed.check(seals=SEALS | F_SEAL_FUTURE_WRITE)
        assert not sealed.check(size=4097)
    with cmsgx.Fd(os.memfd_create("plain")) as plain:
        assert not plain.check(seals=fcntl.F_SEAL_SHRINK)
        assert not plain.check(size=1)
        assert plain.check(size=0)
    with cmsgx.Fd(os.open(tmp_path / "file", os.O_RDONLY)) as file:
        assert file.check(size=5)
        assert not file.check(size=6)
        assert not file.check(seals=fcntl.F_SEAL_SHRINK)


def test_a_file_that_is_named_like_a_memfd_is_not_one(tmp_path: Path) -> None:
    """The link in /proc shows a path; only a memfd's begins with /memfd: ."""
    (tmp_path / "memfd:x").mkdir()
    (tmp_path / "memfd:x" / "anon_inode:[pidfd]").touch()
    with cmsgx.Fd(os.open(tmp_path / "memfd:x" / "anon_inode:[pidfd]", os.O_RDWR)) as fd:
        assert not fd.check(kind="memfd")
        assert not fd.check(kind="pidfd")
        assert fd.check(kind="file")


def test_a_file_of_an_unmounted_file_system_is_not_a_memfd(tmp_path: Path) -> None:
    """Its path is only the one within its own file system, as for a memfd."""
    code = """
import ctypes, os, sys
import cmsgx
libc = ctypes.CDLL(None, use_errno=True)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        print("refused:", name, os.strerror(ctypes.get_errno()))
        sys.exit()

CLONE_NEWNS, CLONE_NEWUSER, MS_REC_PRIVATE, MNT_DETACH = 0x20000, 0x10000000, 0x44000, 2
user, group = os.geteuid(), os.getegid()
call("unshare", CLONE_NEWNS | (CLONE_NEWUSER if user else 0))
if user:
    # A tmpfs has no files of users that its namespace does not know.
    maps = {"setgroups": "deny", "uid_map": f"0 {user} 1", "gid_map": f"0 {group} 1"}
    for name, text in maps.items():
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)
call("mount", None, b"/", None, MS_REC_PRIVATE, None)
there = sys.argv[1].encode()
for name in ("memfd:x", "gone"):
    call("mount", b"none", there, b"tmpfs", 0, None)
    fd = cmsgx.Fd(os.open(there + b"/memfd:x", os.O_RDWR | os.O_CREAT))
    if name == "gone":
        os.unlink(there + b"/memfd:x")
    call("umount2", there, MNT_DETACH)
    link = os.readlink(f"/proc/self/fd/{fd.fileno()}")
    print(link.startswith("/memfd:x"), fd.check(kind="memfd"), fd.check(kind="file"))
    fd.close()
"""
    told = run_python(code, str(tmp_path))
    if told.startswith("refused"):
        pytest.skip(told)
    assert told.splitlines() == ["True False True"] * 2


@pytest.mark.parametrize("shift", [0, 21, 30])
def test_a_memfd_of_huge_pages_is_one(shift: int) -> None:
    with attempt("huge pages"):
        number = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | shift << 26)
    with cmsgx.Fd(number) as fd:
        assert fd.check(kind="memfd")


@pytest.mark.parametrize("arguments", [{"kind": "bogus"}, {"access": "x"}], ids=str)
def test_check_refuses_a_word_that_it_does_not_know(arguments: dict[str, Any]) -> None:
    with new_fd() as fd, pytest.raises(ValueError, match=next(iter(arguments))):
        fd.check(**arguments)
