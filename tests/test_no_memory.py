"""Each allocation that a public call makes fails in turn, and nothing is lost.

The table has every name of `cmsgx.__all__` and every public member of its classes, or a test fails.
After each failure there are as many descriptors as before, each socket has its previous options,
and the same call on the same objects finishes.
"""

from __future__ import annotations

import array
import errno
import gc
import inspect
import os
import re
import signal
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, NamedTuple

import pytest
from memory import without, without_other_threads
from prepared import (
    CREDENTIALS,
    CREDENTIALS_OWN,
    EMPTY,
    MESSAGES,
    a_batch,
    a_batch_receiver,
    a_datagram,
    a_file,
    a_full_pair,
    a_header,
    a_message,
    a_multishot,
    a_number,
    a_pair,
    a_pidfd,
    a_prepared_send,
    a_queue,
    a_receiver,
    a_report,
    a_sender,
    a_socket_fd,
    a_stream,
    a_udp_pair,
    an_address,
    installed,
    nothing,
    send_in_parts,
    unowned_rights,
)
from support import eventually, open_fds
from tries import rest_of

import cmsgx
from cmsgx import _cmsg, kinds, wire
from cmsgx.kinds._table import rows

HANGS = 60.0  # seconds

Maker = Callable[[ExitStack], Any]
"""Creates what a call needs; whatever has to be closed is put on the stack."""


class Call(NamedTuple):
    make: Maker
    act: Callable[[Any], Any]
    lost: Callable[[Any], object] | None = None
    """Closes the plain number if the call failed and so did not take it over."""


# The table: functions, and how an object of each class is created --------------------------------

CALLS: dict[str, Call] = {
    "CMSG_ALIGN": Call(nothing, lambda _: cmsgx.CMSG_ALIGN(1000)),
    "CMSG_LEN": Call(nothing, lambda _: cmsgx.CMSG_LEN(1000)),
    "CMSG_SPACE": Call(nothing, lambda _: cmsgx.CMSG_SPACE(1000)),
    "Address": Call(nothing, lambda _: cmsgx.Address(socket.AF_INET, (b"127.0.0.1", 9))),
    "AddressTuple": Call(nothing, lambda _: cmsgx.AddressTuple((b"127.0.0.1", 9))),
    "BatchReceiver": Call(
        a_queue, lambda pair: cmsgx.BatchReceiver(pair[1], 2, 16, fds=2, want=[cmsgx.PidFd])
    ),
    "BrokenError": Call(nothing, lambda _: cmsgx.BrokenError("text", b"partial")),
    "ClosedError": Call(nothing, lambda _: cmsgx.ClosedError("text")),
    "CmsgError": Call(nothing, lambda _: cmsgx.CmsgError("text")),
    "ControlTruncatedError": Call(
        a_message, lambda message: cmsgx.ControlTruncatedError(1, "text", message)
    ),
    "Credentials": Call(nothing, lambda _: cmsgx.Credentials(1000, 1000, 1000)),
    "DataTruncatedError": Call(
        a_message, lambda message: cmsgx.DataTruncatedError(1, "text", message)
    ),
    "EmptyMapping": Call(nothing, lambda _: cmsgx.EmptyMapping()),
    "Fd": Call(a_number, lambda number: cmsgx.Fd(number), os.close),
    "FdLimitError": Call(a_message, lambda message: cmsgx.FdLimitError(1, "text", message)),
    "LimitError": Call(nothing, lambda _: cmsgx.LimitError("text", b"partial")),
    "MalformedControlError": Call(nothing, lambda _: cmsgx.MalformedControlError("text")),
    "NotSupportedError": Call(nothing, lambda _: cmsgx.NotSupportedError(errno.ENOPROTOOPT, "x")),
    "BatchResult": Call(nothing, lambda _: cmsgx.BatchResult(1, [(1, OSError())])),
    "Outgoing": Call(nothing, lambda _: cmsgx.Outgoing(b"data", [0])),
    "Pending": Call(nothing, lambda _: cmsgx.Pending(1000, 2000)),
    "PeerCredentials": Call(nothing, lambda _: cmsgx.PeerCredentials(1000, 1000, 1000)),
    "PidFd": Call(a_number, lambda number: cmsgx.PidFd(number), os.close),
    "Receiver": Call(
        a_queue,
        lambda pair: cmsgx.Receiver(pair[1], 16, fds=2, want=[cmsgx.PidFd, kinds.Timestamp]),
    ),
    "Rights": Call(a_file, lambda fd: cmsgx.Rights([fd, 0])),
    "SecurityLabel": Call(nothing, lambda _: cmsgx.SecurityLabel(b"label")),
    "TooManyFdsError": Call(nothing, lambda _: cmsgx.TooManyFdsError("text")),
    "Unknown": Call(nothing, lambda _: cmsgx.Unknown(1000, 2000, b"data")),
    "ZeroCopySender": Call(a_udp_pair, lambda pair: cmsgx.ZeroCopySender(pair[0])),
    "accept_rights": Call(a_pair, lambda pair: cmsgx.accept_rights(pair[0], True)),
    "close_in_background": Call(a_file, lambda fd: cmsgx.close_in_background(fd)),
    "decode": Call(nothing, lambda _: cmsgx.decode(1, 2, CREDENTIALS.pack())),
    "enable": Call(
        a_pair,
        lambda pair: cmsgx.enable(
            pair[0], cmsgx.Credentials, cmsgx.PidFd, kinds.Timestamp, cmsgx.SecurityLabel
        ),
    ),
    "PreparedSend": Call(
        a_pair,
        lambda pair: cmsgx.PreparedSend(
            pair[0], [b"1", b"2"], fds=[0, pair[1]], control=CREDENTIALS_OWN
        ).close(),
    ),
    "fromfd": Call(
        a_pair, lambda pair: cmsgx.fromfd(pair[0].fileno(), socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ),
    "install": Call(lambda stack: stack.callback(cmsgx.uninstall), lambda _: cmsgx.install()),
    "peer_credentials": Call(a_pair, lambda pair: cmsgx.peer_credentials(pair[0])),
    "peer_groups": Call(a_pair, lambda pair: cmsgx.peer_groups(pair[0])),
    "peer_pidfd": Call(a_pair, lambda pair: cmsgx.peer_pidfd(pair[0])),
    "peer_security": Call(a_pair, lambda pair: cmsgx.peer_security(pair[0])),
    "receive": Call(a_queue, lambda pair: cmsgx.receive(pair[1], 16, fds=2)),
    "receive, cut": Call(a_queue, lambda pair: cmsgx.receive(pair[1], 1, fds=1)),
    "ErrorReceiver": Call(
        a_report,
        lambda sock: [
            *cmsgx.ErrorReceiver(sock, want=[kinds.ExtendedError]),
            cmsgx.ErrorReceiver(sock).try_receive(),
        ],
    ),
    "receive_errors": Call(a_report, lambda sock: list(cmsgx.receive_errors(sock))),
    "recv_fds": Call(a_queue, lambda pair: cmsgx.recv_fds(pair[1], 16, 2)),
    "recvmsg": Call(a_queue, lambda pair: cmsgx.recvmsg(pair[1], 16, 100)),
    "recvmsg_into": Call(a_queue, lambda pair: cmsgx.recvmsg_into(pair[1], [bytearray(9)], 100)),
    "segment_support": Call(a_udp_pair, lambda pair: cmsgx.segment_support(pair[0])),
    "send": Call(
        a_pair, lambda pair: cmsgx.send(pair[0], [b"1", b"2"], fds=[0, 0], control=CREDENTIALS_OWN)
    ),
    "send, to an address": Call(
        a_udp_pair,
        lambda pair: cmsgx.send(
            pair[0], b"data", control=[kinds.Ttl(9)], address=("127.0.0.1", 40000)
        ),
    ),
    "send_all": Call(a_stream, lambda pair: cmsgx.send_all(pair[0], [b"1", b"2"], fds=[0])),
    "send_batch": Call(a_pair, lambda pair: cmsgx.send_batch(pair[0], MESSAGES)),
    "send_batch, on_error": Call(
        a_pair,
        lambda pair: cmsgx.send_batch(
            pair[0], [bytes(10_000_000), *MESSAGES, bytes(10_000_000)], on_error="skip"
        ),
    ),
    "send_fds": Call(a_pair, lambda pair: cmsgx.send_fds(pair[0], [b"1"], [0, 0])),
    "send_segments": Call(a_udp_pair, lambda pair: cmsgx.send_segments(pair[0], bytes(500), 200)),
    "sendmsg": Call(a_pair, lambda pair: cmsgx.sendmsg(pair[0], [b"1", b"2"], [cmsgx.Rights([0])])),
    "share": Call(nothing, lambda _: cmsgx.share(b"content")),
    "socket": Call(nothing, lambda _: cmsgx.socket()),
    "socketpair": Call(nothing, lambda _: cmsgx.socketpair()),
    "try_send": Call(
        a_pair,
        lambda pair: cmsgx.try_send(pair[0], [b"1", b"2"], fds=[0, 0], control=CREDENTIALS_OWN),
    ),
    "send_or_prepare": Call(
        a_pair,
        lambda pair: _cmsg.send_or_prepare(
            pair[0], [b"1", b"2"], fds=[0, 0], control=CREDENTIALS_OWN
        ),
    ),
    "send_or_prepare, full": Call(
        a_full_pair,
        lambda pair: rest_of(
            pair[0], [b"1", b"2"], fds=[0, pair[1]], control=CREDENTIALS_OWN
        ).close(),
    ),
    "PreparedSend, in parts": Call(
        a_stream, lambda pair: send_in_parts(pair[0], pair[1], bytes(1_000_000))
    ),
    "uninstall": Call(installed, lambda _: cmsgx.uninstall()),
    "wait_closed": Call(nothing, lambda _: cmsgx.wait_closed(1)),
}

# Names that are not calls, or that allocate nothing themselves, with the reason.
NO_CALLS = {
    "Batch": "comes with a call",
    "Enabled": "comes with a call",
    "FileDescriptorLike": "a type, for annotations",
    "FileDescriptors": "a type, for annotations",
    "MAX_FDS": "a number",
    "Message": "comes with a call",
    "MessageFds": "comes with a call",
    "Segments": "comes with a call",
    "View": "comes with a call",
    "OutgoingLike": "a type, for annotations",
    "__version__": "a string",
}

OBJECTS: dict[type, Maker] = {
    cmsgx.Address: an_address,
    cmsgx.AddressTuple: lambda stack: a_datagram(stack).address,
    cmsgx.BatchReceiver: a_batch_receiver,
    cmsgx.BatchResult: lambda _: cmsgx.BatchResult(1, [(1, OSError())]),
    cmsgx.Credentials: lambda _: cmsgx.Credentials(1, 2, 3),
    cmsgx.EmptyMapping: lambda _: cmsgx.EmptyMapping(),
    cmsgx.Enabled: lambda stack: cmsgx.enable(a_queue(stack)[1], cmsgx.Credentials),
    cmsgx.ErrorReceiver: lambda stack: cmsgx.ErrorReceiver(a_report(stack)),
    cmsgx.Fd: a_file,
    cmsgx.Message: a_message,
    cmsgx.Outgoing: lambda _: cmsgx.Outgoing(b"data"),
    cmsgx.Pending: lambda _: cmsgx.Pending(1000, 2000),
    cmsgx.PeerCredentials: lambda _: cmsgx.PeerCredentials(1, 2, 3),
    cmsgx.PidFd: a_pidfd,
    cmsgx.PreparedSend: a_prepared_send,
    cmsgx.Receiver: a_receiver,
    cmsgx.Rights: unowned_rights,
    cmsgx.SecurityLabel: lambda _: cmsgx.SecurityLabel(b"label"),
    cmsgx.Unknown: lambda _: cmsgx.Unknown(1, 2, b"data"),
    cmsgx.ZeroCopySender: a_sender,
    cmsgx.socket: lambda stack: a_queue(stack)[1],
    cmsgx.Batch: a_batch,
    wire.Header: a_header,
    wire.Multishot: a_multishot,
    cmsgx.Segments: lambda stack: a_datagram(stack).segments,
    cmsgx.View: lambda stack: a_datagram(stack).view,
    cmsgx.MessageFds: lambda stack: a_message(stack).fds,
}
ERRORS = {
    value
    for name in cmsgx.__all__
    if inspect.isclass(value := getattr(cmsgx, name)) and issubclass(value, Exception)
}


class OwnFd(cmsgx.Fd):
    """Has a dictionary."""


def close_numbers(message: cmsgx.Message) -> None:
    message.fds[0]
    # Between the numbers and their close nothing needs memory.
    room = array.array("i", [-1] * 2)
    room[0], room[1] = message.detach_all()
    _cmsg.close_each(room)


def take_the_one(message: cmsgx.Message) -> cmsgx.Fd | None:
    with suppress(ValueError):
        return message.take_one()
    return None


# Members with arguments, and members that differ by the object that has them. No lambda in a
# lambda: pure Python crashes CPython 3.12 if there is no memory for the cell of a variable that the
# inner one uses.
MEMBERS: dict[tuple[type, str], Callable[[Any], Any]] = {
    (cmsgx.EmptyMapping, "__getitem__"): lambda mapping: mapping[:],
    (cmsgx.EmptyMapping, "madvise"): lambda mapping: mapping.madvise(0),
    (cmsgx.EmptyMapping, "seek"): lambda mapping: mapping.seek(0),
    (cmsgx.Fd, "check"): lambda fd: fd.check(kind="memfd", access="r", size=1, seals=1),
    (cmsgx.Fd, "detach"): lambda fd: os.close(fd.detach()),
    (cmsgx.Fd, "open"): lambda fd: fd.open("rb"),
    (cmsgx.Message, "get"): lambda message: message.get(cmsgx.Credentials),
    (cmsgx.Message, "get_all"): lambda message: message.get_all(cmsgx.Rights),
    (cmsgx.Message, "detach_all"): close_numbers,
    (cmsgx.Message, "take"): lambda message: message.take(0, fd_class=OwnFd),
    (cmsgx.Message, "take_all"): lambda message: message.take_all(fd_class=OwnFd),
    (cmsgx.Message, "take_one"): take_the_one,
    (cmsgx.Message, "__getitem__"): lambda message: message[cmsgx.PidFd],
    (cmsgx.Message, "__contains__"): lambda message: cmsgx.Rights in message,
    (cmsgx.PidFd, "detach"): lambda fd: os.close(fd.detach()),
    (cmsgx.PidFd, "open"): lambda fd: fd.open("rb"),
    (cmsgx.PidFd, "send_signal"): lambda fd: fd.send_signal(0),
    (cmsgx.PidFd, "wait"): lambda fd: fd.wait(0),
    (cmsgx.ZeroCopySender, "acknowledge"): lambda sender: sender.acknowledge(REPORT),
    (cmsgx.ZeroCopySender, "send"): lambda sender: sender.send(b"data"),
    (cmsgx.ZeroCopySender, "send_all"): lambda sender: sender.send_all([b"1", b"2"]),
    (cmsgx.socket, "recv_fds"): lambda sock: sock.recv_fds(16, 2),
    (cmsgx.socket, "recvmsg"): lambda sock: sock.recvmsg(16, 100),
    (cmsgx.socket, "recvmsg_into"): lambda sock: sock.recvmsg_into([bytearray(9)], 100),
    (cmsgx.socket, "send_fds"): lambda sock: sock.send_fds([b"1"], [0]),
    (cmsgx.socket, "sendmsg"): lambda sock: sock.sendmsg([b"1"], [cmsgx.Rights([0])]),
    (cmsgx.Receiver, "is_end"): lambda receiver: receiver.is_end(EMPTY),
    (cmsgx.BatchReceiver, "is_end"): lambda receiver: receiver.is_end(receiver.receive()),
    (cmsgx.MessageFds, "count"): lambda fds: fds.count(0),
    (cmsgx.MessageFds, "index"): lambda fds: fds.index(fds[1]),
}
REPORT = kinds.ZeroCopyCompletion
# What every class may define, and how it is called.
PROTOCOLS: dict[str, Callable[[Any], Any]] = {
    "__bytes__": bytes,
    "__copy__": lambda item: item.__copy__(),
    "__eq__": lambda item: item == item,
    "__getitem__": lambda item: item[0],
    "__hash__": hash,
    "__iter__": lambda item: next(iter(item)),
    "__len__": len,
    "__next__": next,
    "__reduce__": lambda item: item.__reduce__(),
    "__repr__": repr,
}
UNASKED = {
    (cmsgx.EmptyMapping, "read_byte"): "always raises ValueError: there is no byte",
    (
        cmsgx.ZeroCopySender,
        "acknowledge",
    ): "takes a report of zero copy, which a sender reaps itself",
    (cmsgx.socket, "accept"): "CPython loses the number where it has no memory for the address",
    (cmsgx.PidFd, "socket"): "a pidfd is no socket",
    (cmsgx.Fd, "socket"): "below, of a socket",
}


def members(kind: type) -> Iterator[str]:
    """Its public attributes and the protocols that it supports, if they are defined by cmsgx."""
    for name in dir(kind):
        if name.startswith("_") and name not in PROTOCOLS:
            continue
        owner = next(base for base in kind.__mro__ if name in vars(base))
        if owner.__module__.startswith("cmsgx") and not isinstance(vars(owner)[name], int):
            yield name


def needs_arguments(kind: type, name: str) -> bool:
    value = inspect.getattr_static(kind, name)
    if not callable(value) or isinstance(value, type):
        return False
    parameters = list(inspect.signature(value).parameters.values())[1:]
    return any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters
    )


def member_call(kind: type, name: str) -> Callable[[Any], Any] | None:
    """How it is used; None if the table does not say."""
    if (kind, name) in MEMBERS:
        return MEMBERS[kind, name]
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    value = inspect.getattr_static(kind, name)
    if name == "unpack":
        return lambda item: type(item).unpack(item.pack())
    if not callable(value) or isinstance(value, type):
        return lambda item: getattr(item, name)
    return None if needs_arguments(kind, name) else lambda item: getattr(item, name)()


MEMBER_CALLS = {
    (kind, name): act
    for kind in OBJECTS
    for name in members(kind)
    if (act := member_call(kind, name)) is not None and (kind, name) not in UNASKED
}
ALL: dict[str, Call] = {
    **CALLS,
    **{f"{k.__name__}.{name}": Call(OBJECTS[k], act) for (k, name), act in MEMBER_CALLS.items()},
    "Fd.socket": Call(a_socket_fd, lambda fd: fd.socket()),
}


# The table is complete --------------------------------------------------------------------------


def test_each_public_name_has_a_call() -> None:
    assert set(cmsgx.__all__) - CALLS.keys() - NO_CALLS.keys() == set()


def test_each_public_class_has_an_object() -> None:
    classes = {getattr(cmsgx, name) for name in cmsgx.__all__ if name in CALLS | NO_CALLS}
    classes = {value for value in classes if inspect.isclass(value)}
    assert {kind.__name__ for kind in classes - OBJECTS.keys() - ERRORS} == set()


def test_each_public_member_has_a_call() -> None:
    lacking = {
        f"{kind.__name__}.{name}"
        for kind in OBJECTS
        for name in members(kind)
        if (kind, name) not in MEMBER_CALLS and (kind, name) not in UNASKED
    }
    assert lacking == set()


# Each allocation --------------------------------------------------------------------------------

OPTIONS = sorted({
    (option.level, option.name, option.size)
    for row in rows()
    for option in row.options
    if option.level == socket.SOL_SOCKET
})  # fmt: skip


def options_of(sock: Any) -> list[bytes | int | None]:
    """The options that kinds switch on."""
    found: list[bytes | int | None] = []
    for level, name, size in OPTIONS:
        try:
            found.append(_cmsg.getsockopt(sock, level, name, size))
        except OSError as error:
            found.append(error.errno)
    return found


def sockets_in(prepared: Any) -> list[Any]:
    items = prepared if isinstance(prepared, tuple) else (prepared,)
    return [item for item in items if isinstance(item, socket.socket)]


def close_result(result: Any) -> None:
    """What the caller owns: descriptors, messages and sockets, and the numbers of a drop-in."""
    if isinstance(result, cmsgx.Outgoing):
        return
    if isinstance(result, tuple) and len(result) == 4 and isinstance(result[1], list):
        for item in result[1]:
            numbers = array.array("i", [item] if isinstance(item, int) else [])
            if isinstance(item, tuple) and item[1] == _cmsg.SCM_RIGHTS:
                numbers.frombytes(item[2])
            for number in numbers:
                os.close(number)
    elif isinstance(result, (list, tuple)):
        for item in result:
            close_result(item)
    elif isinstance(result, cmsgx.ZeroCopySender):
        result.release()
    elif isinstance(result, (cmsgx.Fd, cmsgx.Message, cmsgx.Batch, socket.socket)) or (
        hasattr(result, "read") and hasattr(result, "close")
    ):
        result.close()
    elif hasattr(result, "restore"):
        result.restore()


def on_alarm(number: int, frame: object) -> None:
    raise AssertionError("it hangs: a lock is held")


@contextmanager
def ending() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, HANGS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fail_in_turn(call: Call) -> int:
    """Makes each allocation fail, each time with new objects, and checks everything that has to
    hold then; returns how many failed."""
    usual: tuple[type[BaseException], ...] = (MemoryError,)
    failed = enough = 0
    at: int | None = None  # first with memory, to fill caches
    with ending(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while enough < 3:
            before = open_fds()
            with ExitStack() as stack:
                prepared = call.make(stack)
                options = [options_of(sock) for sock in sockets_in(prepared)]
                result, error = without(at, lambda made: call.act(made), prepared)
                if error is not None:
                    if call.lost is not None:
                        call.lost(prepared)
                    assert isinstance(error, usual) or at is None or is_of_cpython(error), error
                    error.__traceback__ = None
                if at is None:
                    usual += () if error is None else (type(error),)
                elif error is not None:
                    assert [options_of(sock) for sock in sockets_in(prepared)] == options
                    if call.lost is None:
                        again(call, prepared)
                close_result(result)
                del result, prepared
            if open_fds() != before:
                gc.collect()  # there may be a cycle, and the background closer needs a moment
                assert eventually(partial(has_open, before), 60), (at, open_fds(), before)
            if at is not None:
                is_short = isinstance(error, MemoryError) or is_of_cpython(error)
                failed += is_short
                enough = 0 if is_short else enough + 1
            at = 0 if at is None else at + 1
    return failed


def has_open(expected: dict[int, str]) -> bool:
    return open_fds() == expected


def is_of_cpython(error: BaseException | None) -> bool:
    """The error of code that is not ours if it has no memory for a lock, or for an exception.

    Also if the dictionary of a class has to grow: from 3.13 on setattr() then says that the class
    has no such attribute.
    """
    text = str(error)
    if isinstance(error, AttributeError):
        return re.fullmatch(r"type object 'socket' has no attribute '\w+'", text) is not None
    if not isinstance(error, SystemError):
        # The second is the one of a buffered file.
        locks = ("can't allocate lock", "can't allocate read lock")
        return isinstance(error, RuntimeError) and text in locks
    ours = [f"function {name}>" for name in vars(_cmsg)] + ["cmsgx"]
    return "exception" in text and not any(name in text for name in ours)


def again(call: Call, prepared: Any) -> None:
    """The same once more, with memory: if a lock or a mark was left set, it would wait or
    refuse."""
    try:
        close_result(call.act(prepared))
    except RuntimeError as error:
        raise AssertionError(f"left in use: {error}") from error
    except Exception:
        return  # it was half done: taken or closed before


@pytest.mark.parametrize("name", ALL)
@without_other_threads
def test_a_failed_allocation_loses_nothing(name: str) -> None:
    print(f"{name}: {fail_in_turn(ALL[name])} allocations failed, one by one", flush=True)
