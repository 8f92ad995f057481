"""How control messages lie in memory: the macros of cmsg(3), over any buffer, without a copy.

And the types of received memory: View, Segments, Batch.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import _cmsg
from ._arguments import Buffer, as_int, as_view, needed
from ._cmsg import CMSG_ALIGN, CMSG_LEN, CMSG_SPACE, Address, Batch, Segments, View
from ._names import publish
from .errors import MalformedControlError, NotSupportedError
from .kinds import ControlMessage, StructMessage, decode
from .kinds._base import member
from .kinds._codec import bind

__all__ = [
    "CMSG_ALIGN",
    "CMSG_DATA",
    "CMSG_FIRSTHDR",
    "CMSG_LEN",
    "CMSG_NXTHDR",
    "CMSG_SPACE",
    "Batch",
    "Header",
    "Multishot",
    "Segments",
    "View",
    "build",
    "parse",
    "parse_multishot",
]


class Header:
    """A struct cmsghdr in a buffer, which it keeps alive: cmsg(3).

    `len` is cmsg_len as it stands there, which need not be true; `offset` is in bytes from the
    start of the buffer. `fits` is whether `len` is one that fits.
    """

    __slots__ = ("_control", "_end", "_next", "_start", "fits", "len", "level", "offset", "type")

    def __init__(self, control: memoryview, offset: int, found: tuple[Any, ...]) -> None:
        self._control = control
        self.offset: int = offset
        self.level: int
        self.type: int
        self.len: int
        self.fits: bool
        self.level, self.type, self.len, self._start, self._end, self._next, self.fits = found

    def __repr__(self) -> str:
        return f"<Header level={self.level} type={self.type} len={self.len} at {self.offset}>"


def _header_at(control: Any, offset: int) -> Header | None:
    view = as_view("control", control)
    found = _cmsg.read_header(view, offset)
    return None if found is None else Header(view, offset, found)


def CMSG_FIRSTHDR(control: Buffer) -> Header | None:
    """The first header of a control buffer (as long as what the kernel returned), or None."""
    return _header_at(control, 0)


def CMSG_NXTHDR(control: Buffer, header: Header) -> Header | None:
    """The header after `header`, or None.

    Also finds a last message that lacks its padding, and one that is a header only. None after a
    header whose length does not fit.
    """
    try:
        following = header._next
    except AttributeError:
        raise needed("header", "a Header", header) from None
    return _header_at(control, following)


def CMSG_DATA(header: Header) -> memoryview:
    """The payload, a slice of the buffer: writable where the buffer is.

    It ends with the buffer where the header's length reaches beyond it.
    """
    try:
        return header._control[header._start : header._end]
    except AttributeError:
        raise needed("header", "a Header", header) from None


def parse(control: Buffer, family: int = -1) -> tuple[Any, ...]:
    """Each control message of a buffer, typed as by decode(): owns no descriptor.

    Whoever wrote the buffer: recvmsg(2), io_uring, or getsockopt(2) with IP_PKTOPTIONS or
    IPV6_2292PKTOPTIONS. `family`, AF_* of the socket, tells apart what has the same numbers.

    MalformedControlError where a length does not fit, or a payload is not of its layout. Where
    several calls parse one buffer, each gives a Rights (or PidFd) with the same numbers: own() one
    of them only.
    """
    messages: list[Any] = []
    header = CMSG_FIRSTHDR(control)
    while header is not None:
        if not header.fits:
            raise MalformedControlError(
                f"the control message at byte {header.offset} has a length of {header.len}, which "
                f"does not fit in {memoryview(control).nbytes} bytes"
            )
        messages.append(decode(header.level, header.type, CMSG_DATA(header), family))
        header = CMSG_NXTHDR(control, header)
    return tuple(messages)


def build(control: ControlMessage | Iterable[ControlMessage]) -> bytes:
    """A control buffer with one control message or these, as sendmsg(2) takes it; padding zeroed.

    So does setsockopt(2) with IPV6_2292PKTOPTIONS.
    """
    return _cmsg.build(control)


# io_uring ---------------------------------------------------------------------------------------


class _RecvmsgOut(StructMessage):
    """struct io_uring_recvmsg_out, and the name after it."""

    __slots__ = ()

    namelen: int = member("namelen")
    controllen: int = member("controllen")
    payloadlen: int = member("payloadlen")
    flags: int = member("flags")
    address: Any = member("name")


if "io_uring_recvmsg_out" in _cmsg.LAYOUTS:
    bind(_RecvmsgOut, (), "io_uring_recvmsg_out")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Multishot:
    """A message in a buffer that io_uring filled, which it keeps alive: IORING_RECV_MULTISHOT.

    Owns no descriptor: numbers that are in `control` belong to nobody until own() of the Rights or
    PidFd that messages() gives.
    """

    name: bytes
    """The struct sockaddr of the sender, as far as there was room; empty for none."""
    address: Any
    """The same as the socket module gives it, as `Message.address`; None for none, or where it had
    not the room."""
    sender: Address | None
    """The same in the raw form, hashable, made without text."""
    control: memoryview
    """The control data that came."""
    payload: memoryview
    """The data, as far as there was room."""
    flags: int
    """MSG_* of the message: MSG_CTRUNC where control data was lost, MSG_TRUNC where data was."""
    namelen: int
    """Of the name in bytes, also where it was cut."""
    controllen: int
    """Of the control data that came, in bytes."""
    payloadlen: int
    """What recvmsg(2) returns: with MSG_TRUNC asked for, also what was cut."""

    def messages(self, family: int = -1) -> tuple[Any, ...]:
        """Each control message, as by parse(): owns no descriptor.

        Each call makes new ones: of those that hold the same numbers, own() one only.
        MalformedControlError also where the last was cut, for want of room (MSG_CTRUNC):
        CMSG_FIRSTHDR and CMSG_NXTHDR find what is before it.
        """
        return parse(self.control, family)

    def __repr__(self) -> str:
        return (
            f"<Multishot of {self.payload.nbytes} bytes, {self.control.nbytes} of control data, "
            f"flags={self.flags:#x}>"
        )


def parse_multishot(buffer: Buffer, name_size: int, control_size: int) -> Multishot:
    """Takes apart what a multishot recvmsg of io_uring wrote to a provided buffer, without a copy.

    buffer                   as long as `res` of the completion; the provided one may be longer
    name_size, control_size  msg_namelen and msg_controllen of the struct msghdr of the request

    There lie struct io_uring_recvmsg_out, the room for the name, the room for control data, and
    the payload. MalformedControlError where the buffer is too short for the first three, or more
    control data came than there was room for, so that the sizes are not those of the request; and
    where the name is shorter than the struct of its family.
    """
    if "io_uring_recvmsg_out" not in _cmsg.LAYOUTS:
        raise NotSupportedError(errno.EOPNOTSUPP, "parse_multishot: this system has no io_uring")
    name_size = as_int("name_size", name_size, minimum=0)
    control_size = as_int("control_size", control_size, minimum=0)
    view = as_view("buffer", buffer)
    name_at: int = _cmsg.LAYOUTS["io_uring_recvmsg_out"][0]
    control_at = name_at + name_size
    payload_at = control_at + control_size
    if view.nbytes < payload_at:
        raise MalformedControlError(
            f"{view.nbytes} bytes, which is too short for a header of {name_at} bytes, a name of "
            f"{name_size} and control data of {control_size}"
        )
    out = _RecvmsgOut.unpack(view[:name_at])
    if out.controllen > control_size:
        raise MalformedControlError(
            f"{out.controllen} bytes of control data, for which the request had no room if it was "
            f"{control_size}"
        )
    name_end = name_at + min(out.namelen, name_size)
    is_whole = out.namelen <= name_size
    return Multishot(
        view[name_at:name_end].tobytes(),
        _RecvmsgOut.unpack(view[:name_end]).address if is_whole else None,
        _cmsg.raw_address(view[name_at:name_end]) if is_whole else None,
        view[control_at : control_at + out.controllen],
        view[payload_at : payload_at + out.payloadlen],
        out.flags,
        out.namelen,
        out.controllen,
        out.payloadlen,
    )


__dir__ = publish(globals(), "cmsgx._")
