"""Large payloads between processes: memory that is passed as a descriptor."""

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

# NAME_MAX minus the length of "memfd:", which the kernel puts before the name.
_LONGEST_NAME = 249


def share(data: Buffer, name: str = "cmsgx") -> Fd:
    """Returns a sealed memfd with a copy of `data`, which nobody can change: memfd_create(2).

    The caller owns the Fd, and can send it like any descriptor; the receiver reads the bytes in
    place with Fd.map(). Size and content are sealed, and no seal can be added: fcntl(2). `name`, at
    most 249 bytes, is what /proc shows.

    The memory is charged to the calling process. It is freed once every process has closed its
    descriptors and mappings of it. NotSupportedError if the system lacks memfd_create(2) or seals.
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
        raise ValueError(f"name: {len(encoded)} bytes; at most {_LONGEST_NAME} are allowed")
    with as_view("data", data) as rest:
        fd = _cmsg.memfd_create(name, flags)
        try:
            done = 0
            # No other thread can close it yet.
            number = fd.fileno()
            # write(2) takes at most 2 GiB.
            while done < rest.nbytes:
                with rest[done:] as part:
                    done += os.write(number, part)
            os.lseek(number, 0, os.SEEK_SET)
            fcntl.fcntl(number, fcntl.F_ADD_SEALS, seals)
        except BaseException:
            fd.close()
            raise
    return fd
