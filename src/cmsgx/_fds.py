"""Objects that own a descriptor, and the background closer."""

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
class HasFileno(Protocol):
    """An object with fileno(): a socket, a file, an Fd."""

    def fileno(self) -> int: ...


FileDescriptorLike: TypeAlias = int | HasFileno
"""A descriptor as an argument: a number, or an object with fileno()."""

FileDescriptors: TypeAlias = HasFileno | Iterable[int | HasFileno]
"""The `fds` argument of a call that sends: one object with fileno(), or an iterable."""

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

    The end of a `with` closes it, and so does close(), or, with a ResourceWarning, garbage
    collection. If it came from a receiver with close="background", all of these close it in the
    background. Equal by identity. It cannot be copied or pickled, but multiprocessing can send it:
    the other process gets a duplicate. Its methods raise ValueError once it no longer owns one.
    """

    __slots__ = ()

    # Makes the result of socket(): set by _bind, because _drop_in is above this layer.
    _make_socket: ClassVar[Callable[[Fd], socket]]

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Gives the descriptor to a file object, made as the built-in `open()` makes it.

        The file has the same number. No second descriptor is made, so the descriptor table may be
        full, and locks that this process has on the file stay. If it raises, this Fd still owns the
        descriptor. No mode truncates the file; "a" moves the offset to its end.
        """
        # The built-in open() takes ownership at once, and closes the number if it fails late, as
        # for an unknown encoding. So the file is made with closefd=False, and gets ownership last.
        with self._pinned() as number:
            file: Any = open(  # noqa: SIM115
                number, mode, buffering, encoding, errors, newline, closefd=False
            )
        raw = file if isinstance(file, io.FileIO) else getattr(file, "buffer", file).raw
        self._give_to_file(raw, raw.mode)
        return cast("IO[Any]", file)

    def socket(self) -> socket:
        """Gives the descriptor to a new cmsgx.socket.

        No flag of the open file description, which the sender shares, changes: if it is
        non-blocking, the socket has a timeout of 0. If it raises, this Fd still owns the
        descriptor.
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
        """Whether the descriptor is what the receiver expects: fstat(2), fcntl(2).

        kind     what it is, one or several of: file, directory, socket, pipe, character, block,
                 symlink, memfd, pidfd, eventfd, epoll, anonymous. A memfd is a file too.
        access   it allows at least this: "r", "w" or "rw"
        seals    it has at least these: one or several of seal, shrink, grow, write, future-write,
                 exec; or fcntl.F_SEAL_* bits. This implies a memfd, except for "seal" alone, which
                 every file on a tmpfs has.
        size     it has at least this many bytes
        path     True also accepts O_PATH descriptors, which can be neither read nor written. It is
                 not the name of a file.
        device   st_dev of the file system that it has to be on

        OSError if the kind cannot be determined: without /proc an eventfd and an epoll look alike,
        and the first check for a memfd needs a free descriptor, for one to compare it with.
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
            raise needed("path", "True or False, whether to accept O_PATH descriptors,", path)
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
        """Maps a sealed memfd, such as share() makes, read-only: mmap(2).

        size   how many bytes to map; it has to have at least that many. The default is all of them.
        seals  which seals it has to have, as for check(), besides "shrink", which is always
               required: a sender that shrinks the file would kill its readers with SIGBUS. The
               default is "write": nobody can change the bytes any more. Seals such as "grow",
               "seal" and "exec" are required in addition to that one. To accept less, name it:
               "future-write" lets those write who mapped the file before it was sealed, and
               "shrink" alone lets everybody write. The bytes may then change while you read them.

        ValueError names a missing seal, or the size. For a size of 0, which mmap(2) refuses, the
        result is an EmptyMapping, which reads like a mapping. A memfd with huge pages is mapped in
        whole pages, and any other size is refused.

        The caller owns the mapping. It outlives the Fd, because it holds a duplicate of the
        descriptor (for which the descriptor table needs a free place), until it is closed, or until
        it and all views of it are garbage collected.
        """
        bits = _seal_bits(seals)
        if not bits:
            raise ValueError(
                "map: seals names none; the weakest is 'shrink', which lets others write meanwhile"
            )
        if size is not None:
            size = as_int("size", size)
        # Pinned: what was checked is what is mapped, even if another thread closes this Fd.
        with self._pinned() as number:
            if not _allows(fcntl.fcntl(number, fcntl.F_GETFL), "r"):
                raise ValueError(f"map: {self!r} cannot be read")
            # Seals first: they cannot be removed, and with the one against shrinking the size can
            # only grow from now on.
            _need_seals(self, number, _seals_to_map(bits))
            status = os.fstat(number)
            wanted = status.st_size if size is None else size
            if not 0 <= wanted <= status.st_size:
                raise ValueError(f"map: size {wanted}, but {self!r} has {status.st_size} bytes")
            if wanted == 0:
                return EmptyMapping()
            if wanted % status.st_blksize and _has_huge_pages(status):
                # munmap(2) takes whole pages only, so this mapping could never be removed.
                raise ValueError(
                    f"map: size {wanted}, but {self!r} has pages of {status.st_blksize} bytes, "
                    "which can only be mapped whole"
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
    """Whether it matters if a file is a memfd: that check may need a free descriptor."""
    return "memfd" in expected and not expected & kinds


def _kinds_without_proc(
    number: int, status: os.stat_result, expected: set[str], kinds: set[str], error: OSError
) -> set[str]:
    """For a chroot, say. If the answer depends on /proc, this raises instead of guessing."""
    if _is_pidfd(number):
        return {"pidfd", "anonymous"}
    may_be = "file" in kinds and _asks_for_memfd(kinds, expected)
    if may_be and _is_where_memfds_are(status):
        kinds.add("memfd")
    if "anonymous" in kinds and not expected & kinds and expected & {"eventfd", "epoll"}:
        raise OSError(
            error.errno,
            f"{error.strerror}: check: only /proc/self/fd/{number} shows whether it is one of "
            f"{sorted(expected)}",
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
    """Whether it has no name, and lies in a file system where only the kernel makes files.

    The link in /proc is not proof. A process that may mount file systems can forge "/memfd:...": a
    file of that name, at the root of a file system that is unmounted while the file is open.
    """
    return status.st_nlink == 0 and (
        status.st_dev == _device_of_memfds(0) or _has_huge_pages(status)
    )


def _has_huge_pages(status: os.stat_result) -> bool:
    """Whether it was made with MFD_HUGETLB. Large blocks are not enough: other files have them."""
    # Each size of huge pages has its own file system, with blocks of that size.
    huge = _MFD_HUGETLB | (status.st_blksize.bit_length() - 1) << _MFD_HUGE_SHIFT
    return status.st_blksize > mmap.PAGESIZE and status.st_dev == _device_of_memfds(huge)


_MFD_CLOEXEC: int = getattr(os, "MFD_CLOEXEC", 1)
_MFD_HUGETLB: int = getattr(os, "MFD_HUGETLB", 0)
_MFD_HUGE_SHIFT: int = getattr(_cmsg, "MFD_HUGE_SHIFT", 0)


@functools.cache
def _device_of_memfds(flags: int) -> int | None:
    """st_dev of memfds that are made with these flags; None if the system cannot make them."""
    try:
        with _cmsg.memfd_create("cmsgx", flags | _MFD_CLOEXEC) as fd:
            return os.fstat(fd.fileno()).st_dev
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            # Raised, not returned, so that it is not cached: a later call may find a free one.
            raise OSError(
                error.errno,
                f"{error.strerror}: no descriptor is left to recognise a memfd, by comparing it "
                "with a new one",
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
    # From our own constants if the fcntl module is too old to have the seal. A system without the
    # seal gets 1 << 30, a bit that no file has, so that a check for it fails.
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
    """Its seals as bits; None if it cannot be sealed: only memfds and a few other files can."""
    command = getattr(fcntl, "F_GET_SEALS", None)
    if command is None:
        return None
    try:
        return fcntl.fcntl(number, command)
    except OSError:
        return None


def _seals_to_map(named: int) -> int:
    """The seals that map() requires: "shrink" always, "write" by default, and those that are named.

    To do without "write", a caller names a weaker seal: "future-write", or "shrink" alone. "shrink"
    beside others, as in ["shrink", "grow"], does not count: it is required anyway, and a caller who
    lists it may only want to be complete.
    """
    needed = named | _SEALS["shrink"]
    if named & _SEALS["future-write"] or named == _SEALS["shrink"]:
        return needed
    return needed | _SEALS["write"]


def _need_seals(fd: Fd, number: int, wanted: int) -> None:
    """ValueError if it lacks one of the seals in `wanted`."""
    there = _seals_of(number)
    if there is None:
        raise ValueError(f"map: {fd!r} is not a sealed memfd, such as share() makes")
    if there & _SEALS["write"]:
        there |= _SEALS["future-write"]
    missing = wanted & ~there
    if not missing:
        return
    names = {bit: _constant_of(name) for name, bit in _SEALS.items()}
    bits = [1 << i for i in range(missing.bit_length()) if missing & 1 << i]
    reason = "the sender has to add that, as share() does"
    if missing & _SEALS["shrink"]:
        reason = f"whoever shrinks it would kill this process with SIGBUS; {reason}"
    elif missing == _SEALS["write"]:
        weaker = "future-write" if there & _SEALS["future-write"] else "shrink"
        reason = f"others may still write; {reason}, or allow that with seals={weaker!r}"
    raise ValueError(
        f"map: {fd!r} lacks {', '.join(names.get(bit, f'seal {bit:#x}') for bit in bits)}: {reason}"
    )


# The background closer ------------------------------------------------------------------------


def close_in_background(*descriptors: Fd | socket_module.socket | int) -> None:
    """Hands over descriptors from untrusted peers, for background threads to close.

    The peer chose what it sent, and closing that can block: a socket that lingers, a file on a file
    system that the peer controls. Closing a socket on which descriptors are queued can block too.
    Each argument is an Fd or a socket object, which then owns nothing, or a number. The exit of the
    process waits up to two seconds for them; see also wait_closed().
    """
    for index, descriptor in enumerate(descriptors):
        try:
            _cmsg.closer_submit(descriptor)
        except Exception as error:
            error.add_note(
                f"in descriptors[{index}]" + ("; those before it were handed over" if index else "")
            )
            raise


def wait_closed(timeout: float | None = None) -> int:
    """Waits until the background threads have closed everything, at most `timeout` seconds.

    None means no limit. Returns how many descriptors are still to be closed: 0 unless the time is
    up. It does not know about those that other interpreters of this process handed over.
    """
    return _cmsg.closer_wait(timeout)


# The rest happens before any hook in Python: see process.c. No thread can be started there yet.
os.register_at_fork(after_in_child=_cmsg.closer_resume)
atexit.register(_cmsg.closer_wait, 2.0)


# multiprocessing ------------------------------------------------------------------------------


def reduce_fd(descriptor: Fd) -> tuple[Callable[..., Fd], tuple[type[Fd], Any]]:
    # DupFd duplicates the descriptor. Only for a process that is being started it does not: that
    # process inherits the number itself, so this Fd must stay open until then, as a socket must.
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

_sequence: Any = Sequence  # the types do not show that it is an ABC
_sequence.register(_cmsg.MessageFds)
