"""Exercises for the leak tests: control messages, their registration, and errors."""

from __future__ import annotations

import copy
import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
from exercises import exercises, pair
from public_names import of_a_family

import cmsgx
import cmsgx.errors
import cmsgx.kinds
import cmsgx.wire
from cmsgx.kinds import _table


@exercises(cmsgx.enable, cmsgx.Enabled)
def options() -> None:
    with pair() as (left, _), socket.socket() as other:
        with cmsgx.enable(left, cmsgx.Credentials, cmsgx.Rights) as enabled:
            repr(enabled)
        cmsgx.enable(left, cmsgx.SecurityLabel).restore()
        with suppress(TypeError):
            cmsgx.enable(left, int)  # type: ignore[arg-type]
        with suppress(cmsgx.NotSupportedError):
            cmsgx.enable(other, cmsgx.PidFd)


@exercises(cmsgx.Rights)
def rights() -> None:
    sent = cmsgx.Rights([0, 1])
    sent.pack(), sent[0], sent[:], list(sent), repr(sent)
    numbers = cmsgx.Rights([os.dup(0), os.dup(0)]).pack()
    unowned = cmsgx.Rights.unpack(numbers)
    for fd in unowned.own():
        fd.close()
    with suppress(ValueError):
        unowned.own()
    with suppress(cmsgx.MalformedControlError):
        cmsgx.Rights.unpack(b"123")


@exercises(cmsgx.Credentials)
def credentials() -> None:
    who = cmsgx.Credentials()
    assert who == cmsgx.Credentials.unpack(who.pack())
    assert hash(who) == hash(cmsgx.Credentials(who.pid, who.uid, who.gid))
    who.uid_mapped, repr(who), who.__reduce__()
    who.attached, who.gid, hash(who)
    with suppress(AttributeError, TypeError):
        cast(Any, who).pid = 1
    with suppress(TypeError, OverflowError):
        cmsgx.Credentials(1, 1 << 40, 0).pack()
    with suppress(cmsgx.MalformedControlError):
        cmsgx.Credentials.unpack(b"1")


@exercises(cmsgx.SecurityLabel)
def labels() -> None:
    label = cmsgx.SecurityLabel(b"label")
    assert label == cmsgx.SecurityLabel.unpack(label.pack() + b"\0")
    str(label), repr(label)


@exercises(cmsgx.Unknown)
def unknown() -> None:
    one = cmsgx.Unknown(1, 2000, b"data")
    assert one.pack() == b"data"
    repr(one), hash(one)
    with suppress(TypeError):
        cmsgx.Unknown.unpack(b"")


@exercises(cmsgx.decode)
def decoding() -> None:
    cmsgx.decode(1, 2000, b"data"), cmsgx.decode(*cmsgx_numbers(), cmsgx.Credentials().pack())
    with suppress(cmsgx.MalformedControlError):
        cmsgx.decode(*cmsgx_numbers(), b"1")


def cmsgx_numbers() -> tuple[int, int]:
    return cmsgx.Credentials.level, cmsgx.Credentials.type


@exercises(cmsgx.kinds.KindOption)
def options_with_values() -> None:
    flags = cmsgx.kinds.TimestampingFlags
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for asked in (
            cmsgx.kinds.Timestamping.option(flags.OPT_ID),
            cmsgx.kinds.ExtendedError.option(rfc4884=True),
            cmsgx.kinds.Ttl.option(),
        ):
            assert isinstance(asked, cmsgx.kinds.KindOption)
            with suppress(cmsgx.NotSupportedError), cmsgx.enable(sock, asked):
                repr(asked), hash(asked)
    with suppress(ValueError):
        cmsgx.kinds.Timestamping.option(flags.OPT_STATS)


@exercises(cmsgx.kinds.ControlMessage, cmsgx.kinds.Option, cmsgx.kinds.register)
def registering() -> None:
    class Mine(cmsgx.kinds.StructMessage):
        __slots__ = ()

    option = cmsgx.kinds.Option(1, 2, "SO_MINE", 4)
    register: Any = cmsgx.kinds.register
    with suppress(ValueError):
        register(Mine, level=1, type=1, size=4, layout=(("number", 0, "i"),), option=option)
    with suppress(ValueError):
        register(Mine, level=-5, type=1, size=4, layout=(("number", 2, "i"),))
    register(Mine, level=-5, type=1, size=4, layout=(("number", 0, "i"),))
    made: Any = Mine
    assert made.unpack(made(7).pack()) == made(7)
    assert cmsgx.decode(-5, 1, made(7).pack()) == made(7)
    # Users cannot unregister a kind.
    del _table._rows[Mine], _table._received[-5, 1], _table._sent[-5, 1]


# The kinds of a family that have no other exercise.
OTHERS = {
    value
    for name in cmsgx.kinds.__all__
    for value in [getattr(cmsgx.kinds, name)]
    if f"cmsgx.kinds.{name}" in of_a_family()
}
WITH_A_NUMBER = [
    kind for kind in _table._rows if issubclass(kind, cmsgx.kinds.StructMessage)
]  # fmt: skip

# The leftover of a dataclass with slots, before 3.11.3 (gh-102069): using it is a TypeError.
LEFT_OVER = {"__weakref__"} if sys.version_info < (3, 11, 3) else set()
REPORTS = {
    value
    for value in OTHERS
    if issubclass(value, cmsgx.kinds.ErrorReport | cmsgx.kinds.IcmpExtension)
}


@exercises(cmsgx.ErrorReceiver, cmsgx.receive_errors, *REPORTS)
def reports() -> None:
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, cmsgx.kinds.ExtendedError)
        for _ in range(2):
            sock.sendto(b"1", ("127.0.0.1", 1))
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        stopped = cmsgx.receive_errors(sock, timeout=60)
        next(stopped)
        with cmsgx.ErrorReceiver(sock, want=[cmsgx.kinds.ExtendedError]) as receiver:
            [report] = receiver
            with suppress(TimeoutError):
                receiver.receive(timeout=0.001)
            assert receiver.try_receive() is None
            assert receiver.sock is sock
            repr(receiver)
        del stopped
        for kind in REPORTS - {cmsgx.kinds.IcmpExtension}:
            one = kind(report.message, report.error)
            for name in set(dir(one)) - LEFT_OVER:
                with suppress(KeyError):  # of a kind that this message lacks
                    getattr(one, name)
            with suppress(KeyError):
                repr(one)
        repr(cmsgx.kinds.IcmpExtension(1, 2, b"data"))
        with suppress(ValueError):
            cmsgx.receive_errors(sock, limit=-1)
        with suppress(cmsgx.NotSupportedError):
            cmsgx.ErrorReceiver(sock, want=[cmsgx.Credentials])
    with pair() as (left, _), suppress(cmsgx.NotSupportedError):
        cmsgx.receive_errors(left)


@exercises(
    *(OTHERS - REPORTS - {cmsgx.Credentials, cmsgx.PidFd, cmsgx.Rights, cmsgx.SecurityLabel}),
    cmsgx.kinds.StructMessage,
)
def kinds_of_structs() -> None:
    for kind in WITH_A_NUMBER:
        record = kind._restore(bytes(max(kind._codec.min_size, 0)), 0)
        assert kind.unpack(record.pack()) == record
        repr(record), hash(record), record.__reduce__()
        for name in kind._codec.fields:
            getattr(record, name)
        with suppress(TypeError, OverflowError, ValueError):
            kind(**dict.fromkeys(kind._codec.fields, 1 << 80))
    for value in OTHERS:
        if issubclass(value, int):
            list(value), value(1)


@exercises(cmsgx.kinds.IPAddress)
def addresses_of_ip() -> None:
    for text in ("127.0.0.1", "::1"):
        one = cmsgx.kinds.IPAddress(text)
        assert one == cmsgx.kinds.IPAddress(one.ip) == cmsgx.kinds.IPAddress(one.packed)
        str(one), repr(one), hash(one), one.version, one.is_unspecified, one.__reduce__()
    with suppress(ValueError):
        cmsgx.kinds.IPAddress("nonsense")
    with suppress(ValueError):
        cmsgx.kinds.PacketInfo(1, "::1")


@exercises(cmsgx.kinds.member, cmsgx.kinds.WireFormat)
def declaring() -> None:
    cmsgx.kinds.member("name", default=1, convert=int)
    cmsgx.kinds.WireFormat(1, 2, "integer")


@exercises(
    cmsgx.wire.CMSG_FIRSTHDR, cmsgx.wire.CMSG_NXTHDR, cmsgx.wire.CMSG_DATA, cmsgx.wire.Header,
    cmsgx.wire.parse, cmsgx.wire.build,
)  # fmt: skip
def wire() -> None:
    control = cmsgx.wire.build([cmsgx.Credentials(), cmsgx.Unknown(1, 2000, b"data")])
    header = cmsgx.wire.CMSG_FIRSTHDR(control)
    while header is not None:
        bytes(cmsgx.wire.CMSG_DATA(header)), repr(header)
        header = cmsgx.wire.CMSG_NXTHDR(control, header)
    assert len(cmsgx.wire.parse(control)) == 2
    with suppress(cmsgx.MalformedControlError):
        cmsgx.wire.parse(control[:20])
    with suppress(TypeError):
        cmsgx.wire.build([1])  # type: ignore[list-item]


@exercises(cmsgx.wire.parse_multishot, cmsgx.wire.Multishot)
def multishots() -> None:
    control = cmsgx.wire.build([cmsgx.Credentials(), cmsgx.kinds.Ttl(7)])
    for family in (socket.AF_INET, socket.AF_UNIX, 999):
        name = family.to_bytes(2, sys.byteorder).ljust(16, b"\0")
        numbers = (16, len(control), 4, 0)
        header = b"".join(number.to_bytes(4, sys.byteorder) for number in numbers)
        buffer = bytearray(header + name + control + b"data")
        message = cmsgx.wire.parse_multishot(buffer, 16, len(control))
        assert message.address is not None
        assert message.sender is not None
        message.sender.value, bytes(message.payload), repr(message)
        assert message.messages()[0] == cmsgx.Credentials()
        message.messages(family)
        for sizes in ((8, 0), (16, len(control) + 5), (-1, 0), (16, 8)):
            with suppress(cmsgx.MalformedControlError, ValueError):
                cmsgx.wire.parse_multishot(buffer, *sizes)
        with suppress(TypeError):
            cmsgx.wire.parse_multishot("text", 0, 0)  # type: ignore[arg-type]
        with suppress(AttributeError):
            cast(Any, message).flags = 1


@exercises(cmsgx.ControlTruncatedError, cmsgx.FdLimitError, cmsgx.DataTruncatedError)
def truncations() -> None:
    with pair(socket.SOCK_DGRAM) as (left, right), open_null() as null:
        cmsgx.send(left, b"too long", fds=[null])
        with suppress(cmsgx.DataTruncatedError):
            cmsgx.receive(right, 1, fds=1)
        cmsgx.send(left, b"too long", fds=[null, null])
        cmsgx.receive(right, 1, fds=1, on_truncation="keep").close()
        receiver = cmsgx.Receiver(right, 10, fds=1)
        # Without the receiver's knowledge: the credentials take the space.
        right.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        cmsgx.send(left, b"1", fds=[null])
        with pytest.raises(cmsgx.ControlTruncatedError) as caught:
            receiver.receive()
        assert caught.value.message.data == b"1"
        with suppress(cmsgx.MalformedControlError):
            list(caught.value.message)


@contextmanager
def open_null() -> Iterator[int]:
    number = os.open(os.devnull, os.O_RDWR)
    try:
        yield number
    finally:
        os.close(number)


@exercises(
    cmsgx.CmsgError, cmsgx.MalformedControlError, cmsgx.NotSupportedError, cmsgx.ClosedError,
    cmsgx.BrokenError, cmsgx.LimitError,
)  # fmt: skip
def errors() -> None:
    assert str(cmsgx.NotSupportedError(errno.ENOPROTOOPT, "text")).endswith("text")
    assert copy.copy(cmsgx.ClosedError("text")).errno == errno.EBADF
    for broken in (cmsgx.BrokenError, cmsgx.LimitError):
        assert copy.copy(broken("text", b"partial")).partial == b"partial"
    for error in (cmsgx.MalformedControlError, cmsgx.CmsgError):
        try:
            raise error("text")
        except cmsgx.CmsgError:
            pass
