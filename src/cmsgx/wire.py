"""How control messages lie in memory: the macros of cmsg(3), over any buffer, without a copy.

And the types of received memory: View, Segments, Batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import _cmsg
from ._cmsg import CMSG_ALIGN, CMSG_LEN, CMSG_SPACE, Batch, Segments, View
from .errors import MalformedControlError
from .kinds import ControlMessage, decode
from .kinds._base import Buffer

__all__ = [
    "CMSG_ALIGN",
    "CMSG_DATA",
    "CMSG_FIRSTHDR",
    "CMSG_LEN",
    "CMSG_NXTHDR",
    "CMSG_SPACE",
    "Batch",
    "Header",
    "Segments",
    "View",
    "build",
    "parse",
]


class Header:
    """A struct cmsghdr in a buffer, which it keeps alive: cmsg(3).

    `len` is cmsg_len as it stands there, which need not be true; `offset` is in bytes from the
    start of the buffer. `fits` is whether `len` is one that fits.
    """

    __slots__ = ("_control", "_end", "_next", "_start", "fits", "len", "level", "offset", "type")

    def __init__(self, control: memoryview, offset: int, found: tuple[Any, ...]) -> None:
        self._control = control
        self.offset = offset
        self.level: int
        self.type: int
        self.len: int
        self.fits: bool
        self.level, self.type, self.len, self._start, self._end, self._next, self.fits = found

    def __repr__(self) -> str:
        return f"<Header level={self.level} type={self.type} len={self.len} at {self.offset}>"


def _header_at(control: Any, offset: int) -> Header | None:
    view = memoryview(control).cast("B")
    found = _cmsg.read_header(view, offset)
    return None if found is None else Header(view, offset, found)


def CMSG_FIRSTHDR(control: Buffer) -> Header | None:
    """The first header of a control buffer (as long as what the kernel returned), or None."""
    return _header_at(control, 0)


def CMSG_NXTHDR(control: Buffer, header: Header) -> Header | None:
    """The header behind `header`, or None.

    Also finds a last message that lacks its padding, and one that is a header only. None behind a
    header whose length does not fit.
    """
    return _header_at(control, header._next)


def CMSG_DATA(header: Header) -> memoryview:
    """The payload, a slice of the buffer: writable where the buffer is.

    It ends with the buffer where the header's length reaches behind it.
    """
    return header._control[header._start : header._end]


def parse(control: Buffer) -> tuple[Any, ...]:
    """Each control message of a buffer, typed as by decode(): owns no descriptor.

    MalformedControlError where a length does not fit.
    """
    messages: list[Any] = []
    header = CMSG_FIRSTHDR(control)
    while header is not None:
        if not header.fits:
            raise MalformedControlError(
                f"the control message at byte {header.offset} has a length of {header.len}, which "
                f"does not fit in {memoryview(control).nbytes} bytes"
            )
        messages.append(decode(header.level, header.type, CMSG_DATA(header)))
        header = CMSG_NXTHDR(control, header)
    return tuple(messages)


def build(control: Iterable[ControlMessage]) -> bytes:
    """A control buffer with these control messages, as sendmsg(2) takes it; padding zeroed."""
    return _cmsg.build(control)
