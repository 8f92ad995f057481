"""Descriptors that an object owns."""

from __future__ import annotations

import atexit
import errno
import fcntl
import functools
import io
import mmap
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Sequence
from multiprocessing import reduction
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NoReturn,
    Protocol,
    SupportsIndex,
    TypeAlias,
    cast,
    get_args,
    runtime_checkable,
)

from . import _cmsg
from ._arguments import as_int, as_tuple, check_word, needed
from ._mapping import EmptyMapping

if TYPE_CHECKING:
    import socket as socket_module

    from ._drop_in import socket

__all__ = [
    "Fd", "FileDescriptorLike", "FileDescriptors", "close_in_background", "wait_closed",
]  # fmt: skip


@runtime_checkable
class _HasFileno(Protocol):
    def fileno(self) -> int: ...


FileDescriptorLike: TypeAlias = int | _HasFileno
"""What a descriptor can be given as: a number, or an object with fileno()."""

FileDescriptors: TypeAlias = "_HasFileno | Iterable[FileDescriptorLike]"
"""What `fds` of a call that sends can be: one object with fileno(), or an iterable."""

FdKind: TypeAlias = Literal[
    "file", "directory", "socket", "pipe", "character", "block", "symlink", "memfd", "pidfd",
    "eventfd", "epoll", "anonymous",
]  # fmt: skip

Seal: TypeAlias = Literal["seal", "shrink", "grow", "write", "future-write", "exec"]

_FORMATS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFSOCK: "socket",
    stat.S_IFIFO: "pipe",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFLNK: "symlink",
}
_KINDS = tuple(sorted(get_args(FdKind)))
_SOME_SEALS = f"one of {', '.join(map(repr, get_args(Seal)))}, several of them, or F_SEAL_* bits,"
_A_KIND = f"one of {', '.join(map(repr, _KINDS))}, or an iterable of them,"
_ANONYMOUS = {"pidfd": "pidfd", "eventfd": "eventfd", "eventpoll": "epoll"}
_O_PATH = getattr(os, "O_PATH", 0)


class Fd(_cmsg.FdBase):
    """Owns one file descriptor: `Fd(number)` takes it over.

    Closes it at the end of a `with`, by close(), or, with a ResourceWarning, when it is
    collected; each time in the background where it came by a receiver with close="background".
    Equal by identity; neither copied nor pickled, but multiprocessing can send one (the other
    process gets a duplicate). Raises ValueError where it owns none any more.
    """

    __slots__ = ()

    # How socket() makes one: set by _drop_in, which is above this layer.
    _make_socket: ClassVar[Callable[[Fd], socket]]

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """A file object that owns the descriptor from now on, as `open()` makes it.

        It has the same number: no second descriptor is made, so the table may be full, and locks
        that this process has on the file stay. Where it raises, the descriptor is still owned here.
        The file is not truncated, whatever the mode; "a" moves the offset to its end.
        """
        # open() closes a number that it was to own where it fails late, as for an unknown encoding.
        # So all that can fail is done by one that is not to close it, and that changes as the last
        # step.
        with self._pinned() as number:
            file: Any = open(  # noqa: SIM115
                number, mode, buffering, encoding, errors, newline, closefd=False
            )
        raw = file if isinstance(file, io.FileIO) else getattr(file, "buffer", file).raw
        self._give_to_file(raw, raw.mode)
        return cast("IO[Any]", file)

    def socket(self) -> socket:
        """A cmsgx.socket that owns the descriptor from now on.

        Changes no flag of the open file description, which the sender shares: where it is
        non-blocking, the socket has a timeout of 0. Where it raises, the descriptor is still
        owned here.
        """
        return self._make_socket()

    def check(
        self,
        *,
        kind: FdKind | Iterable[FdKind] | None = None,
        access: Literal["r", "w", "rw"] | None = None,
        seals: int | Seal | Iterable[Seal] = 0,
        size: int | None = None,
        path: bool = False,
        device: int | None = None,
    ) -> bool:
        """Whether it is what the receiver expects, before it is used: fstat(2), fcntl(2).

        kind     one of, or several of: file, directory, socket, pipe, character, block, symlink,
                 memfd, pidfd, eventfd, epoll, anonymous. A memfd is a file too.
        access   it can at least be read, written, or both
        seals    it has at least these: one of, or several of seal, shrink, grow, write,
                 future-write, exec; or fcntl.F_SEAL_* bits. (So it is a memfd, except for "seal"
                 alone, which each file of a tmpfs has.)
        size     it has at least that many bytes
        path     True: O_PATH descriptors, which can be neither read nor written, will do too. Not
                 the name of a file
        device   st_dev of the file system that it must be on

        OSError where the kind cannot be told: without /proc an eventfd and an epoll look alike, and
        the first look for a memfd takes a descriptor, to compare it with.
        """
        if access is not None:
            check_word("access", access, ("r", "w", "rw"))
        expected: set[str] | None = None
        if kind is not None:
            words = (kind,) if isinstance(kind, str) else as_tuple("kind", _A_KIND, kind)
            for word in words:
                check_word("kind", word, _KINDS)
            expected = set(words)
        bits = _seal_bits(seals)
        size = None if size is None else as_int("size", size, minimum=0)
        if not isinstance(cast("object", path), bool):
            raise needed("path", "True or False, whether O_PATH descriptors will do,", path)
        device = None if device is None else as_int("device", device)
        with self._pinned() as number:
            flags = fcntl.fcntl(number, fcntl.F_GETFL)
            status = os.fstat(number)
            if flags & _O_PATH and not path:
                return False
            if expected is not None and not expected & _kinds_of(number, status, expected):
                return False
            if access is not None and not _allows(flags, access):
                return False
            if bits and (_seals_of(number) or 0) & bits != bits:
                return False
        if size is not None and status.st_size < size:
            return False
        return device is None or status.st_dev == device

    def map(
        self, *, size: int | None = None, seals: int | Seal | Iterable[Seal] = "write"
    ) -> mmap.mmap | EmptyMapping:
        """The content of a sealed memfd, as share() makes it, read-only and in place: mmap(2)

        size   it has at least that many bytes, and those are mapped; by default all that it has
        seals  what it is sealed against, besides shrinking, which is always asked for: a sender
               that shrinks the file kills its readers with SIGBUS. As for check(). By default
               "write": nobody can change the bytes any more. What else is named ("grow", "seal",
               "exec") is asked for as well as that. What is weaker has to be named: "future-write",
               where those who mapped it before the seal can still write, and "shrink" alone, where
               everybody can; the bytes may then change between two looks at them.

        ValueError says which seal is missing, or what the size is. No bytes give an EmptyMapping,
        which reads as a mapping does, since mmap(2) has none of length 0. Of a memfd of huge pages
        whole pages are mapped, and another size is refused.
        The mapping is the caller's: it lives on when the Fd is closed, with a duplicate of the
        descriptor, for which the table needs room, until its own close() or until it and all views
        of it are collected.
        """
        bits = _seal_bits(seals)
        if not bits:
            raise ValueError(
                "map: seals names none; the weakest is 'shrink', where others may write meanwhile"
            )
        if size is not None:
            size = as_int("size", size)
        # Pinned: what is checked stays what is mapped, whoever closes this Fd meanwhile.
        with self._pinned() as number:
            if not _allows(fcntl.fcntl(number, fcntl.F_GETFL), "r"):
                raise ValueError(f"map: {self!r} cannot be read")
            # The seals first, of the descriptor itself: none can be taken off, so what is there now
            # is there while it is mapped, and sealed against shrinking the size only grows.
            _need_seals(self, number, _seals_to_map(bits))
            status = os.fstat(number)
            wanted = status.st_size if size is None else size
            if not 0 <= wanted <= status.st_size:
                raise ValueError(f"map: size {wanted}, and {self!r} has {status.st_size} bytes")
            if wanted == 0:
                return EmptyMapping()
            if wanted % status.st_blksize and _has_huge_pages(status):
                # munmap(2) takes whole ones only, so this one would never go.
                raise ValueError(
                    f"map: size {wanted}, and {self!r} has pages of {status.st_blksize} bytes, "
                    "which are mapped whole"
                )
            # Private: before Linux 6.7 a memfd sealed against writing could not be mapped shared.
            return mmap.mmap(number, wanted, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)

    def close_in_background(self) -> None:
        """Hands the descriptor to the background closer: see close_in_background()."""
        close_in_background(self)

    def __copy__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has one owner: use dup() for a second descriptor")

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__copy__()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: send it over a socket, or by multiprocessing"
        )


def _kinds_of(number: int, status: os.stat_result, expected: set[str]) -> set[str]:
    kinds = {_FORMATS.get(stat.S_IFMT(status.st_mode), "anonymous")}
    if sys.platform != "linux":
        return kinds
    try:
        link = os.readlink(f"/proc/self/fd/{number}")
    except OSError as error:
        return _kinds_without_proc(number, status, expected, kinds, error)
    if link.startswith("/memfd:"):
        if _asks_for_memfd(kinds, expected) and _is_where_memfds_are(status):
            kinds.add("memfd")
    elif match := re.match(r"(?:anon_inode:\[?)?(pidfd|eventfd|eventpoll)\b", link):
        kinds = {_ANONYMOUS[match[1]], "anonymous"}
    elif link.startswith("anon_inode:"):
        kinds = {"anonymous"}
    return kinds


def _asks_for_memfd(kinds: set[str], expected: set[str]) -> bool:
    """Whether the answer depends on it: the first time, telling takes a descriptor."""
    return "memfd" in expected and not expected & kinds


def _kinds_without_proc(
    number: int, status: os.stat_result, expected: set[str], kinds: set[str], error: OSError
) -> set[str]:
    """As in a chroot. What cannot be told so, and would be the answer, is an error and no guess."""
    if _is_pidfd(number):
        return {"pidfd", "anonymous"}
    may_be = "file" in kinds and _asks_for_memfd(kinds, expected)
    if may_be and _is_where_memfds_are(status):
        kinds.add("memfd")
    if "anonymous" in kinds and not expected & kinds and expected & {"eventfd", "epoll"}:
        raise OSError(
            error.errno,
            f"{error.strerror}: check: whether it is one of {sorted(expected)} only "
            f"/proc/self/fd/{number} tells",
        )
    return kinds


def _is_pidfd(number: int) -> bool:
    try:
        os.waitid(os.P_PIDFD, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    except OSError:
        return False
    return True


def _is_where_memfds_are(status: os.stat_result) -> bool:
    """Whether it has no name, and is in a file system where only the kernel makes files.

    The link alone can be forged by whoever may mount: it shows a path in the root of a file system
    that was unmounted while the file was open.
    """
    return status.st_nlink == 0 and (
        status.st_dev == _device_of_memfds(0) or _has_huge_pages(status)
    )


def _has_huge_pages(status: os.stat_result) -> bool:
    """Whether it is of MFD_HUGETLB; blocks of that size other files have too."""
    # Huge pages of each size have a file system of their own, with blocks of that size.
    huge = _MFD_HUGETLB | (status.st_blksize.bit_length() - 1) << _MFD_HUGE_SHIFT
    return status.st_blksize > mmap.PAGESIZE and status.st_dev == _device_of_memfds(huge)


_MFD_CLOEXEC: int = getattr(os, "MFD_CLOEXEC", 1)
_MFD_HUGETLB: int = getattr(os, "MFD_HUGETLB", 0)
_MFD_HUGE_SHIFT = 26


@functools.cache
def _device_of_memfds(flags: int) -> int | None:
    """st_dev of memfds that are made with these flags; None where the system makes none."""
    try:
        with _cmsg.memfd_create("cmsgx", flags | _MFD_CLOEXEC) as fd:
            return os.fstat(fd.fileno()).st_dev
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            # Not for good: it would be another time.
            raise OSError(
                error.errno,
                f"{error.strerror}: a memfd is told by comparing it with a new one, for "
                "which there is no room",
            ) from None
        return None


def _allows(flags: int, access: str) -> bool:
    mode = flags & os.O_ACCMODE
    allowed = {
        "r": mode in (os.O_RDONLY, os.O_RDWR),
        "w": mode in (os.O_WRONLY, os.O_RDWR),
        "rw": mode == os.O_RDWR,
    }[access]
    return allowed and not flags & _O_PATH


def _constant_of(seal: str) -> str:
    return "F_SEAL_" + seal.upper().replace("-", "_")


_SEALS: dict[str, int] = {
    # Some are younger than the fcntl of older Pythons. Of what a system lacks no file has the bit.
    name: getattr(fcntl, constant, getattr(_cmsg, constant, 1 << 30))
    for name, constant in ((name, _constant_of(name)) for name in get_args(Seal))
}


def _seal_bits(seals: int | Seal | Iterable[Seal]) -> int:
    if hasattr(type(seals), "__index__"):
        return as_int("seals", seals, minimum=0)
    if isinstance(seals, bytes | bytearray):
        raise needed("seals", _SOME_SEALS, seals)
    words = (seals,) if isinstance(seals, str) else as_tuple("seals", _SOME_SEALS, seals)
    bits = 0
    for word in words:
        check_word("seals", word, _SEALS)
        bits |= _SEALS[word]
    return bits


def _seals_of(number: int) -> int | None:
    """None where it cannot be sealed: each memfd can, and little else."""
    command = getattr(fcntl, "F_GET_SEALS", None)
    if command is None:
        return None
    try:
        return fcntl.fcntl(number, command)
    except OSError:
        return None


def _seals_to_map(named: int) -> int:
    """What a memfd that is mapped needs. The names of what is weaker than F_SEAL_WRITE take the
    place of that; all others come on top. "shrink" is no such name beside others: it is always
    asked for, so who writes ["shrink", "grow"] may just be complete."""
    needed = named | _SEALS["shrink"]
    if named & _SEALS["future-write"] or named == _SEALS["shrink"]:
        return needed
    return needed | _SEALS["write"]


def _need_seals(fd: Fd, number: int, wanted: int) -> None:
    """ValueError where it lacks one of `wanted`."""
    there = _seals_of(number)
    if there is None:
        raise ValueError(f"map: {fd!r} is not a memfd with seals, as share() makes it")
    if there & _SEALS["write"]:
        there |= _SEALS["future-write"]
    missing = wanted & ~there
    if not missing:
        return
    names = {bit: _constant_of(name) for name, bit in _SEALS.items()}
    bits = [1 << i for i in range(missing.bit_length()) if missing & 1 << i]
    reason = "the sender has to add that, as share() does"
    if missing & _SEALS["shrink"]:
        reason = f"one that shrinks it would end this process by SIGBUS; {reason}"
    elif missing == _SEALS["write"]:
        weaker = "future-write" if there & _SEALS["future-write"] else "shrink"
        reason = f"others may still write; {reason}, or seals={weaker!r} says that they may"
    raise ValueError(
        f"map: {fd!r} has no {', '.join(names.get(bit, f'seal {bit:#x}') for bit in bits)}: "
        f"{reason}"
    )


# The background closer ------------------------------------------------------------------------


def close_in_background(*descriptors: Fd | socket_module.socket | int) -> None:
    """Hands descriptors of peers that are not trusted to threads in the background that close them.

    The peer chose what it sent, and closing it can block: a socket that lingers, a file on a file
    system of the peer's. So can closing a socket on which descriptors are queued. Takes Fds and
    socket objects, which own nothing afterwards, and numbers. Waited for at exit, two seconds at
    most; see wait_closed().
    """
    for index, descriptor in enumerate(descriptors):
        try:
            _cmsg.closer_submit(descriptor)
        except Exception as error:
            error.add_note(
                f"in descriptors[{index}]" + (": those before it were handed over" if index else "")
            )
            raise


def wait_closed(timeout: float | None = None) -> int:
    """Waits until all that was handed to the background is closed, `timeout` seconds at most.

    Returns how many descriptors are still to be closed: 0 unless the time is up. Of those that
    other interpreters of this process handed over it knows nothing.
    """
    return _cmsg.closer_wait(timeout)


# The rest runs before any hook in Python: see process.c. No thread can be started there yet.
os.register_at_fork(after_in_child=_cmsg.closer_resume)
atexit.register(_cmsg.closer_wait, 2.0)


# multiprocessing ------------------------------------------------------------------------------


def reduce_fd(descriptor: Fd) -> tuple[Callable[..., Fd], tuple[type[Fd], Any]]:
    # It duplicates the number, but for a process that is being started: then it is passed on later,
    # as that of a socket is, and nobody may close it before.
    with descriptor._pinned() as number:
        return _rebuild, (type(descriptor), reduction.DupFd(number))


def _rebuild(cls: type[Fd], duplicate: Any) -> Fd:
    fd = _cmsg.own_result(cls, duplicate.detach)[0]
    try:
        os.set_inheritable(fd.fileno(), False)
    except BaseException:
        fd.close()
        raise
    return fd


reduction.register(Fd, reduce_fd)

_sequence: Any = Sequence  # that it is an ABC the types do not tell
_sequence.register(_cmsg.MessageFds)
