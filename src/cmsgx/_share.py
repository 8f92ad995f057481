"""Large payloads between processes: memory that is sent as a descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Self

from . import _cmsg
from ._arguments import as_view
from .errors import NotSupportedError

if TYPE_CHECKING:
    from ._fds import Fd
    from .kinds._base import Buffer

__all__ = ["share"]


def share(data: Buffer, name: str = "cmsgx") -> Fd:
    """A memfd that holds a copy of `data`, which nobody can change any more: memfd_create(2)

    The Fd is the caller's, and goes to another process as any descriptor does; who receives it
    reads the bytes in place with Fd.map(). Its size and its content are sealed, and so are the
    seals: fcntl(2). `name` is for people: /proc shows it.

    The memory is charged to the process that calls this, and is freed when the last descriptor and
    the last mapping of it are closed, in whichever process that is. NotSupportedError where the
    platform has no memfd_create(2) with seals.
    """
    if not hasattr(os, "memfd_create") or not hasattr(fcntl, "F_ADD_SEALS"):
        raise NotSupportedError(
            errno.EOPNOTSUPP, "share: this system has no memfd_create(2) with seals"
        )
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
    with as_view("data", data) as rest:
        fd = _cmsg.memfd_create(name, flags)
        try:
            done = 0
            # Nobody else has it yet: no other thread can close it.
            number = fd.fileno()
            # write(2) takes 2 GiB at most.
            while done < rest.nbytes:
                with rest[done:] as part:
                    done += os.write(number, part)
            os.lseek(number, 0, os.SEEK_SET)
            fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            fd.close()
            raise
    return fd


class EmptyMapping(bytes):
    """What Fd.map() gives where there is nothing to map, which mmap(2) does not: no bytes.

    Read-only, with what an mmap.mmap has for reading, and a context manager as that is.
    """

    closed: bool = False

    def __new__(cls) -> Self:
        return super().__new__(cls)

    def close(self) -> None:
        self.closed = True

    def size(self) -> int:
        return 0

    def read(self, n: int | None = None, /) -> bytes:
        return b""

    def readline(self) -> bytes:
        return b""

    def read_byte(self) -> int:
        raise ValueError("read byte out of range")

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return 0

    def seek(self, pos: int, whence: int = os.SEEK_SET, /) -> None:
        if pos != 0 or whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError("seek out of range")

    def flush(self, offset: int = 0, size: int = 0, /) -> None:
        pass

    def madvise(self, option: int, start: int = 0, length: int = 0, /) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<EmptyMapping{' closed' if self.closed else ''}>"

    __str__ = __repr__  # not that of bytes, which warns with -b
