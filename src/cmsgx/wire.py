"""The layout of control messages in memory: the macros of cmsg(3), on any buffer, without a copy.

Also the types of received data: View, Segments, Batch.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import _cmsg
from ._arguments import Buffer, as_int, as_view, needed
from ._cmsg import CMSG_ALIGN, CMSG_LEN, CMSG_SPACE, Address, Batch, Segments, View
from ._names import Dir, describe, publish
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

    `level` and `type` are cmsg_level and cmsg_type. `len` is the raw cmsg_len, which may be wrong;
    `fits` says whether it lies within the buffer. `offset` is where the header starts.
    """

    # The values are what help() says about the public ones.
    __slots__ = {
        **dict.fromkeys(("_control", "_end", "_next", "_start")),
        "level": "`cmsg_level`: the protocol, SOL_* or IPPROTO_*.",
        "type": "`cmsg_type`: what it is at that level.",
        "len": "The raw `cmsg_len` in bytes, header included; it may be wrong: see `fits`.",
        "fits": "Whether `len` lies within the buffer, and is no shorter than a header.",
        "offset": "Where the header starts, in bytes from the start of the buffer.",
    }

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
    """The first header of `control`, cut to the length that the kernel returned; None if none."""
    return _header_at(control, 0)


def CMSG_NXTHDR(control: Buffer, header: Header) -> Header | None:
    """The header after `header`, or None.

    It also finds a last message that lacks its padding, or that is only a header. None after a
    header whose length does not fit.
    """
    try:
        following = header._next
    except AttributeError:
        raise needed("header", "a Header", header) from None
    return _header_at(control, following)


def CMSG_DATA(header: Header) -> memoryview:
    """The payload, a slice of the buffer: writable if the buffer is.

    If the header's length reaches past the buffer, the payload ends with the buffer.
    """
    try:
        return header._control[header._start : header._end]
    except AttributeError:
        raise needed("header", "a Header", header) from None


def parse(control: Buffer, family: int = -1) -> tuple[Any, ...]:
    """The control messages of a buffer, each typed as by decode(). Owns no descriptor.

    The buffer may come from recvmsg(2), io_uring, or getsockopt(2) with IP_PKTOPTIONS or
    IPV6_2292PKTOPTIONS. `family`, AF_* of the socket, distinguishes kinds with the same level and
    type.

    MalformedControlError if a length does not fit, or a payload does not match its layout. If you
    parse one buffer several times, each result has a Rights (or PidFd) with the same numbers: call
    own() on one of them only.
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
    """A control buffer with one control message, or those of an iterable; padding is zeroed.

    For sendmsg(2), or for setsockopt(2) with IPV6_2292PKTOPTIONS.
    """
    return _cmsg.build(control)


# io_uring ---------------------------------------------------------------------------------------


class _RecvmsgOut(StructMessage):
    """struct io_uring_recvmsg_out with the name that follows it."""

    __slots__ = ()

    namelen: int = member("namelen")
    controllen: int = member("controllen")
    payloadlen: int = member("payloadlen")
    flags: int = member("flags")
    address: Any = member("name")


if "io_uring_recvmsg_out" in _cmsg.LAYOUTS:
    bind(_RecvmsgOut, (), "io_uring_recvmsg_out")


@describe(
    name="The sender's struct sockaddr, as much as fitted in `name_size`; empty if there is none.",
    address="The sender as `Message.address` has it; None if absent or truncated.",
    sender="The sender in raw form: hashable, and not converted to text. None like `address`.",
    control="The control data that arrived.",
    payload="The data, as much as fitted.",
    flags="MSG_* of the message: MSG_CTRUNC if control data was lost, MSG_TRUNC if data was.",
    namelen="Full length of the name in bytes, even if truncated.",
    controllen="Length in bytes of the control data that arrived.",
    payloadlen="What recvmsg(2) returns, in bytes; with MSG_TRUNC in the request the full length.",
)
@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Multishot:
    """A message in a buffer that io_uring filled, and that it keeps alive: IORING_RECV_MULTISHOT.

    Owns no descriptor: nobody owns the numbers in `control` until you call own() on the Rights or
    PidFd from messages().
    """

    name: bytes
    address: Any
    sender: Address | None
    control: memoryview
    payload: memoryview
    flags: int
    namelen: int
    controllen: int
    payloadlen: int

    def messages(self, family: int = -1) -> tuple[Any, ...]:
        """The control messages, as parse() gives them. Owns no descriptor.

        Each call makes new objects with the same numbers: call own() on one of them only.
        MalformedControlError also if the last one was cut for lack of space (MSG_CTRUNC): use
        CMSG_FIRSTHDR and CMSG_NXTHDR to find those before it.
        """
        return parse(self.control, family)

    def __repr__(self) -> str:
        return (
            f"<Multishot of {self.payload.nbytes} bytes, {self.control.nbytes} of control data, "
            f"flags={self.flags:#x}>"
        )


def parse_multishot(buffer: Buffer, name_size: int, control_size: int) -> Multishot:
    """Splits what a multishot recvmsg of io_uring wrote to a provided buffer, without a copy.

    buffer                   the provided buffer, cut to `res` of the completion
    name_size, control_size  msg_namelen and msg_controllen in the struct msghdr of the request

    The buffer contains struct io_uring_recvmsg_out, space for the name, space for control data, and
    the payload, in that order: io_uring_prep_recvmsg_multishot(3).
    MalformedControlError if it is too short for the first three; if it has more control data than
    `control_size`, so that the sizes are not those of the request; or if the name is shorter than
    the struct of its family. NotSupportedError if the system lacks io_uring.
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
            f"{out.controllen} bytes of control data, more than the control_size of "
            f"{control_size} that the request had"
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


__dir__: Dir = publish(globals(), "cmsgx._")
