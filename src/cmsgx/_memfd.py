"""Large payloads between processes: memory that is sent as a descriptor."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from . import _cmsg
from ._arguments import as_view, needed
from .errors import NotSupportedError

if TYPE_CHECKING:
    from ._arguments import Buffer
    from ._fds import Fd

__all__ = ["share"]

# NAME_MAX without what the kernel puts before it, "memfd:".
_LONGEST_NAME = 249


def share(data: Buffer, name: str = "cmsgx") -> Fd:
    """A memfd that holds a copy of `data`, which nobody can change any more: memfd_create(2)

    The Fd is the caller's, and goes to another process as any descriptor does; who receives it
    reads the bytes in place with Fd.map(). Its size and its content are sealed, and so are the
    seals: fcntl(2). `name` is for people: /proc shows it; 249 bytes at most.

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
    try:
        encoded = os.fsencode(name)
    except TypeError:
        raise needed("name", "a str", name) from None
    if len(encoded) > _LONGEST_NAME:
        raise ValueError(f"name: {len(encoded)} bytes; it has {_LONGEST_NAME} at most")
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
