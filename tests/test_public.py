"""Each public name has what a public name needs, and does not leak; says which one lacks what."""

from __future__ import annotations

import ast
import ctypes
import errno
import gc
import inspect
import itertools
import os
import pickle
import pkgutil
import re
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType
from typing import Any, cast

import pytest
from checkout import checkout
from support import TESTS, Pair, open_fds, run_python

import cmsgx
import cmsgx.errors
import cmsgx.kinds
import cmsgx.wire
from cmsgx.kinds import _table

MODULES = ("cmsgx", "cmsgx.errors", "cmsgx.kinds", "cmsgx.wire")
PUBLIC = {
    f"{module}.{name}": getattr(sys.modules[module], name)
    for module in MODULES
    for name in sys.modules[module].__all__
}
MOST_AT_THE_TOP = 56


CALLABLES = {name: value for name, value in PUBLIC.items() if callable(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


# What there is --------------------------------------------------------------------------------


def test_the_top_is_small() -> None:
    assert len(cmsgx.__all__) <= MOST_AT_THE_TOP


@pytest.mark.parametrize("module", MODULES)
def test_all_is_sorted_and_has_no_name_twice(module: str) -> None:
    names = sys.modules[module].__all__
    assert len(set(names)) == len(names)
    private = [name for name in names if name.startswith("_") and name != "__version__"]
    assert private == []


@pytest.mark.parametrize("module", MODULES)
def test_nothing_public_is_left_out_of_all(module: str) -> None:
    found = {
        name
        for name, value in vars(sys.modules[module]).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module
    }
    assert found <= set(sys.modules[module].__all__)


def test_public_modules_come_with_the_package() -> None:
    # In a fresh process, as here everything was imported.
    run_python(f"import cmsgx; {', '.join(MODULES)}")


def test_other_modules_are_private() -> None:
    public = {"cmsgx.asyncio", "cmsgx.trio", "cmsgx.__main__", *MODULES}
    wrong = [
        module.name
        for module in pkgutil.walk_packages(cmsgx.__path__, "cmsgx.")
        if module.name not in public
        and not any(part.startswith("_") for part in module.name.split("."))
    ]
    assert wrong == []


def test_the_top_module_only_re_exports() -> None:
    source = Path(cmsgx.__file__).read_text()
    kinds = {type(node) for node in ast.walk(ast.parse(source))}
    defines = {ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda}
    assert kinds & defines == set()
    imported = {
        alias.asname or alias.name
        for node in ast.parse(source).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(cmsgx.__all__) <= imported


def test_each_object_says_where_it_is() -> None:
    wrong = {
        name: f"{value.__module__}.{value.__qualname__}"
        for name, value in CALLABLES.items()
        if value.__module__ not in MODULES
        or getattr(sys.modules[value.__module__], value.__qualname__, None) is not value
    }
    assert wrong == {}


# What each has --------------------------------------------------------------------------------


def own_docstring(value: Any) -> str:
    """Not that of its base, nor what a dataclass makes up."""
    text = inspect.cleandoc(value.__doc__ or "")
    if inspect.isclass(value) and text == inspect.cleandoc(value.__mro__[1].__doc__ or ""):
        return ""
    return "" if text.startswith(f"{value.__name__}(") else text


def test_each_has_a_docstring() -> None:
    lacking = [name for name, value in CALLABLES.items() if len(own_docstring(value).split()) < 4]
    assert lacking == []


def test_each_method_and_property_has_a_docstring() -> None:
    lacking = {
        f"{name}.{member}"
        for name, cls in CLASSES.items()
        for base in cls.__mro__
        if base.__module__.startswith("cmsgx")
        for member, value in vars(base).items()
        if not member.startswith("_")
        and (callable(value) or isinstance(value, property | classmethod | GetSetDescriptorType))
        and not (getattr(cls, member).__doc__ or "").strip()
    }
    assert lacking == set()


def is_slot(value: object) -> bool:
    return type(value) is MemberDescriptorType


def test_the_ends_of_a_with_and_the_slots_have_a_docstring() -> None:
    lacking = {
        f"{name}.{member}"
        for name, cls in CLASSES.items()
        for base in cls.__mro__
        if base.__module__.startswith("cmsgx")
        for member, value in vars(base).items()
        if (
            (member in ("__enter__", "__exit__") and type(value) is MethodDescriptorType)
            or (cls is cmsgx.ZeroCopySender and member[0] != "_" and is_slot(value))
        )
        and not (inspect.getdoc(getattr(cls, member)) or "").strip()
    }
    assert lacking == set()


def test_peer_credentials_have_a_signature() -> None:
    parameters = inspect.signature(cmsgx.PeerCredentials).parameters
    assert list(parameters) == ["pid", "uid", "gid"]


def documented() -> dict[str, str]:
    """Each heading of docs/reference.md that is a name, and the signature behind it."""
    text = (checkout() / "docs" / "reference.md").read_text()
    return dict(re.findall(r"^### `(cmsgx[\w.]*\.\w+)(\(.*\))?`\n\n[\w`]", text, re.MULTILINE))


def of_a_family() -> set[str]:
    """The names of the families of kinds, which docs/kinds.md has: see tools/kinds."""
    return {
        f"cmsgx.kinds.{name}"
        for module in vars(cmsgx.kinds).values()
        if getattr(module, "__name__", "").startswith("cmsgx.kinds._")
        and module.__name__ not in ("cmsgx.kinds._address", "cmsgx.kinds._base")
        for name in getattr(module, "__all__", ())
    }


def test_the_page_of_kinds_is_what_the_table_says() -> None:
    tool = [sys.executable, str(checkout() / "tools" / "kinds"), "--check"]
    assert subprocess.run(tool, check=False).returncode == 0, "run tools/kinds"


def in_reference(name: str) -> str | None:
    """The name under which it stands there: a name can be public in two modules."""
    same = (other for other in documented() if PUBLIC.get(other) is PUBLIC[name])
    return next(same, None)


def test_each_has_a_paragraph_in_the_reference() -> None:
    assert [name for name in PUBLIC if not in_reference(name) and name not in of_a_family()] == []


def test_the_reference_has_nothing_else_and_nothing_twice() -> None:
    names = list(documented())
    assert set(names) <= set(PUBLIC)
    objects = [id(PUBLIC[name]) for name in names]
    assert len(set(objects)) == len(objects)


# Their constructor is no part of the interface.
NOT_MADE_BY_USERS = (
    cmsgx.Message, cmsgx.wire.Batch, cmsgx.wire.Header, cmsgx.wire.Multishot,
    cmsgx.wire.Segments, cmsgx.wire.View,
)  # fmt: skip


def expected_signature(value: Any) -> str:
    if not callable(value) or value in NOT_MADE_BY_USERS or issubclass_of(value, BaseException):
        return ""
    if value in (cmsgx.kinds.ControlMessage, cmsgx.kinds.StructMessage):
        return ""
    if issubclass_of(value, cmsgx.PeerCredentials, cmsgx.SecurityLabel):
        return f"({', '.join(value._codec.fields)})"
    signature = inspect.signature(value)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return text.replace("=Ellipsis", "=...").replace(repr(socket.SOCK_STREAM), "SOCK_STREAM")


def issubclass_of(value: Any, *classes: type) -> bool:
    return inspect.isclass(value) and issubclass(value, classes)


def test_signatures_in_the_reference() -> None:
    written = documented()
    expected = {name: expected_signature(PUBLIC[name]) for name in written}
    assert written == expected


def test_some_test_mentions_each() -> None:
    tests = "\n".join(
        path.read_text() for path in TESTS.rglob("*.py") if path.name != Path(__file__).name
    )
    words = set(re.findall(r"\w+", tests))
    # Kinds are tested by their rows: test_catalogue.py, test_kinds_families.py.
    unmentioned = {name for name in PUBLIC if name.rpartition(".")[2] not in words}
    assert unmentioned - of_a_family() == set()


# Leaks ----------------------------------------------------------------------------------------

N = 200
LEAK_TESTS: dict[Any, Callable[[], object]] = {}


@contextmanager
def pair(kind: int = socket.SOCK_STREAM) -> Iterator[Pair]:
    left, right = cmsgx.socketpair(socket.AF_UNIX, kind)
    with left, right:
        yield left, right


def exercises(*values: Any) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Enters the exercise of some public names."""

    def enter(exercise: Callable[[], object]) -> Callable[[], object]:
        for value in values:
            assert value not in LEAK_TESTS
            LEAK_TESTS[value] = exercise
        return exercise

    return enter


@exercises(cmsgx.CMSG_ALIGN, cmsgx.CMSG_LEN, cmsgx.CMSG_SPACE)
def macros() -> None:
    for macro in (cmsgx.CMSG_ALIGN, cmsgx.CMSG_LEN, cmsgx.CMSG_SPACE):
        macro(1000)
        with suppress(OverflowError):
            macro(sys.maxsize)
        with suppress(TypeError):
            macro("1")  # type: ignore[arg-type]


@exercises(cmsgx.sendmsg, cmsgx.recvmsg, cmsgx.recvmsg_into)
def drop_ins() -> None:
    with pair() as (left, right):
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, (0).to_bytes(4, sys.byteorder))
        room = cmsgx.CMSG_SPACE(4)
        memory = bytearray(100)
        for _ in range(2):
            cmsgx.sendmsg(left, [b"text", memoryview(b"more")], [rights, cmsgx.Credentials()])
        for _, ancdata, _, _ in (
            cmsgx.recvmsg(right, 100, room),
            cmsgx.recvmsg_into(right, [memory], room),
        ):
            for _, _, data in ancdata:
                for fd in memoryview(data).cast("i"):
                    os.close(fd)
        wrong: Any
        for wrong in (["text"], [b"x", 1], 1):
            with suppress(TypeError):
                cmsgx.sendmsg(left, wrong)
        with suppress(OSError):
            cmsgx.sendmsg(left, [b"x"], [(1, 2, b"too short")])
        with suppress(ValueError):
            cmsgx.recvmsg(right, -1)
        with suppress(BlockingIOError):
            cmsgx.recvmsg(right, 100, room, socket.MSG_DONTWAIT)
        with suppress(TypeError):
            cmsgx.recvmsg_into(right, [b"read-only"])


@exercises(cmsgx.send_fds, cmsgx.recv_fds)
def fds_as_numbers() -> None:
    with pair() as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        cmsgx.send_fds(left, [b"1"], [0, fd, left])
        for number in cmsgx.recv_fds(right, 10, 2)[1]:
            os.close(number)
        with suppress(OSError):
            cmsgx.send_fds(left, [b"1"], [1 << 20])
        with suppress(OverflowError):
            cmsgx.recv_fds(right, 10, -1)


@exercises(cmsgx.install, cmsgx.uninstall)
def patches() -> None:
    left, right = socket.socketpair()
    with left, right:
        try:
            cmsgx.install()
            cmsgx.install(cloexec=False)
            socket.send_fds(left, [b"1"], [0])
            for number in socket.recv_fds(right, 1, 1)[1]:
                os.close(number)
        finally:
            cmsgx.uninstall()


@exercises(cmsgx.socket, cmsgx.socketpair, cmsgx.fromfd)
def sockets() -> None:
    with cmsgx.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen()
        with cmsgx.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            accepted = listener.accept()[0]
            with accepted:
                client.send_fds([b"1"], [0])
                for number in accepted.recv_fds(1, 1)[1]:
                    os.close(number)
            cmsgx.fromfd(client.fileno(), socket.AF_UNIX, socket.SOCK_STREAM).close()
    with pair():
        pass


class OwnFd(cmsgx.Fd):
    """One of the caller's classes, with a dictionary."""


@exercises(cmsgx.send, cmsgx.receive, cmsgx.Message, cmsgx.wire.View, cmsgx.TooManyFdsError)
def typed() -> None:
    with pair(socket.SOCK_SEQPACKET) as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        for _ in range(2):
            cmsgx.send(left, [b"ab", bytearray(2)], fds=[0, fd], control=cmsgx.Rights([left]))
        with cmsgx.receive(right, 100, fds=2) as message:
            message.take(0).close()
            list(message), message.control, message.get_all(cmsgx.Rights), message.flags
            message.get(cmsgx.Credentials), cmsgx.PidFd in message, message.fds[:], repr(message)
            with suppress(KeyError):
                message[cmsgx.Credentials]
            with suppress(ValueError):
                message.take(0)
            with suppress(ValueError):
                message.take_one()
            with suppress(TypeError):
                message.take_all(fd_class=int)  # type: ignore[type-var]
            part, data = message.view[1:], message.data
        with suppress(ValueError):
            message.take_all()
        assert bytes(part) == data[1:]
        message = cmsgx.receive(right, 100, fds=3)
        message.take(1, fd_class=OwnFd).close()
        for one in message.take_all():
            one.close()
        cmsgx.send(left, b"1", fds=fd)
        cmsgx.receive(right, 1, fds=1).take_one(fd_class=OwnFd).close()
        cmsgx.send(left, b"1", fds=[0, fd])
        message = cmsgx.receive(right, 1, fds=cmsgx.MAX_FDS)
        message.fds[0].dup().close()
        for number in message.detach_all():
            os.close(number)
        for wrong in ([-1], [1 << 20], [True], ["0"], [0] * 254):
            with suppress(TypeError, ValueError, OSError):
                cmsgx.send(left, b"1", fds=wrong)  # type: ignore[arg-type]
        with suppress(BlockingIOError):
            cmsgx.receive(right, 1, flags=socket.MSG_DONTWAIT)
        with suppress(TimeoutError):
            cmsgx.receive(right, 1, timeout=0.000_001)
        with suppress(ValueError):
            cmsgx.receive(right, 1, fds=1, flags=socket.MSG_PEEK)


@exercises(cmsgx.send_all)
def whole_sends() -> None:
    with pair() as (left, right):
        cmsgx.send_all(left, [b"x" * 10, bytearray(10)], fds=[0])
        cmsgx.receive(right, 20, fds=1).close()
        with suppress(TimeoutError):
            cmsgx.send_all(left, bytes(1 << 20), fds=[0], timeout=0.000_1)


@exercises(cmsgx.Receiver)
def receivers() -> None:
    with pair(socket.SOCK_SEQPACKET) as (left, right):
        for _ in range(3):
            cmsgx.send(left, b"text", fds=[0, 0])
        receiver = cmsgx.Receiver(right, 100, fds=1, want=[cmsgx.Credentials])
        with receiver.receive() as message:
            message.data, message.fds, message[cmsgx.Credentials]
        receiver.refresh()
        view = next(receiver).view
        memory = [bytearray(2), bytearray(2)]
        cmsgx.Receiver(right, into=memory, fds=2, close="background").receive().close()
        assert bytes(view) == b"text"
        for wrong in ({"bufsize": -1}, {"want": [int]}, {"into": b""}, {"fds": 254}):
            with suppress(TypeError, ValueError, BufferError):
                cmsgx.Receiver(right, **{"bufsize": 1, **wrong})  # type: ignore[arg-type]
        left.close()
        assert list(receiver) == []


@exercises(
    cmsgx.BatchReceiver, cmsgx.BatchResult, cmsgx.wire.Batch, cmsgx.send_batch, cmsgx.Outgoing
)
def batches() -> None:
    with pair(socket.SOCK_SEQPACKET) as (left, right), cmsgx.Fd(os.dup(0)) as fd:
        messages: list[Any] = [
            b"1", (b"2", [0, fd]), cmsgx.Outgoing([b"3", b"4"] * 5, [fd] * 70, cmsgx.Credentials())
        ]  # fmt: skip
        receiver = cmsgx.BatchReceiver(right, 4, 100, fds=2, want=[cmsgx.Credentials])
        wrong: Any
        for wrong in (5, (), (b"x", [-1]), (b"x", [1 << 20]), bytes(1 << 24)):
            sent = cmsgx.send_batch(left, [*messages, wrong, b"x"])
            assert sent == 3
            with suppress(TypeError, ValueError, OSError):
                cmsgx.send_batch(left, [wrong])
            with receiver.receive() as batch:
                list(batch), batch[1:], repr(batch)
                for one in batch[1].take_all():
                    one.close()
                view = batch[0].view
                batch[2][cmsgx.Credentials].pid, batch[2].fds[0]
                with suppress(IndexError):
                    batch[5]
        assert bytes(view) == b"1"
        result = cmsgx.send_batch(left, [bytes(1 << 24), bytes(1 << 24)], on_error="skip")
        assert (result.done, len(result.skipped), repr(result)[:15]) == (2, 2, "BatchResult(0, ")
        receiver.refresh()
        cmsgx.send_batch(left, messages)
        next(receiver)
        cmsgx.send_batch(left, messages)
        cmsgx.BatchReceiver(right, 4, 100, fds=2, close="background").receive().close()
        with suppress(BlockingIOError):
            receiver.receive(timeout=0)
        for arguments in ({"count": 0}, {"bufsize": -1}, {"want": [int]}, {"fds": 254}):
            with suppress(TypeError, ValueError):
                cmsgx.BatchReceiver(right, **{"count": 1, "bufsize": 1, **arguments})  # type: ignore[arg-type]
        left.close()
        assert list(receiver) == []


@exercises(cmsgx.send_segments, cmsgx.segment_support, cmsgx.wire.Segments)
def segments() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        two.bind(("127.0.0.1", 0))
        one.connect(two.getsockname())
        receiver = cmsgx.Receiver(two, 65536, want=[cmsgx.kinds.UdpGro])
        for no_checksums in (0, 1):  # without which it takes no segments
            one.setsockopt(socket.SOL_SOCKET, 11, no_checksums)
            assert cmsgx.send_segments(one, bytes(1000), 300, control=cmsgx.kinds.Ttl(9)) == 4
            got = 0
            while got < 1000:
                msg = receiver.receive()
                got += sum(map(len, msg.segments))
                msg.segments[-1], repr(msg.segments), msg.segments.size
                with suppress(IndexError):
                    msg.segments[4]
            cmsgx.segment_support(one)
        with suppress(OSError):
            cmsgx.send_segments(one, bytes(200_000), 70_000)
        with suppress(ValueError):
            cmsgx.send_segments(one, b"", 0)


@exercises(cmsgx.Address)
def addresses() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as two,
    ):
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        cmsgx.send(one, b"1", address=two.getsockname())
        message = cmsgx.receive(two, 10)
        assert message.address == one.getsockname()
        made = cmsgx.Address(socket.AF_INET, message.address)
        assert made == message.sender
        for address in (message.address, message.sender, made):
            assert isinstance(address, cmsgx.Address)
            address.value, address.packed, address.ip, repr(address), hash(address)
            cmsgx.send(two, b"1", address=address)
            cmsgx.receive(one, 10)
        pickle.dumps(message.address), message.address[:1], tuple(message.address)
        for wrong in (("127.0.0.1",), ("127.0.0.1", -1), ("127.0.0.1", "1"), (1, 1), "path"):
            with suppress(TypeError, OverflowError, OSError, ValueError):
                cmsgx.Address(socket.AF_INET, wrong)
            with suppress(TypeError, OverflowError, OSError, ValueError):
                cmsgx.send(one, b"1", address=wrong)


@exercises(cmsgx.Fd)
def owners() -> None:
    with cmsgx.Fd(os.memfd_create("x")) as fd:
        fd.check(kind="memfd", access="rw", seals=1), repr(fd)
        with fd.dup() as other, other.open("wb") as file:
            file.write(b"1")
        os.close(fd.dup().detach())
        with fd.dup() as other, suppress(LookupError):
            other.open("r", encoding="no such encoding")
        with suppress(OSError), fd.dup() as other:
            other.socket()
        with suppress(TypeError):
            fd.__reduce_ex__(4)
    with suppress(ValueError):
        fd.fileno()
    with suppress(TypeError, ValueError):
        cmsgx.Fd("0")  # type: ignore[arg-type]
    with pair() as (left, _):
        cmsgx.Fd(os.dup(left.fileno())).socket().close()


@exercises(cmsgx.share)
def shared_memory() -> None:
    with cmsgx.share(b"content") as fd:
        with fd.map() as mapping:
            assert mapping[:] == b"content"
        with suppress(ValueError):
            fd.map(size=8)
    with cmsgx.Fd(os.memfd_create("x")) as fd, suppress(ValueError):
        fd.map(seals=1)
    with suppress(TypeError):
        cmsgx.share("text")  # type: ignore[arg-type]


@exercises(cmsgx.ZeroCopySender)
def without_a_copy() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
    ):
        peer.bind(("127.0.0.1", 0))
        cmsgx.enable(sock, cmsgx.kinds.ExtendedError)
        sock.settimeout(60)
        buffer = bytearray(1000)
        with cmsgx.ZeroCopySender(sock, max_pending=2) as sender:
            for _ in range(4):
                sender.send([buffer, b"more"], address=peer.getsockname())
            peer.close()
            sock.connect(("127.0.0.1", 1))
            with suppress(ConnectionRefusedError):
                sender.send_all(buffer)
            with suppress(OSError):
                sender.send(bytes(1 << 17))
            with suppress(TypeError):
                sender.send("text")  # type: ignore[arg-type]
            sender.reap(), sender.pending, sender.copied, sender.stopped, repr(sender)
        assert sender.close() == ()
        buffer.append(0)
        sender = cmsgx.ZeroCopySender(sock, next_id=sender.next_id)
        with suppress(ConnectionRefusedError):
            sender.send(buffer)
        sender.release()
    with pair() as (left, _), suppress(cmsgx.NotSupportedError):
        cmsgx.ZeroCopySender(left)


@exercises(cmsgx.close_in_background, cmsgx.wait_closed)
def in_background() -> None:
    fd = cmsgx.Fd(os.dup(0))
    cmsgx.close_in_background(fd, os.dup(0))
    cmsgx.Fd(os.dup(0)).close_in_background()
    with suppress(TypeError):
        cmsgx.close_in_background("0")  # type: ignore[arg-type]
    left, right = cmsgx.socketpair()
    cmsgx.close_in_background(left, right)
    with suppress(ValueError):
        cmsgx.wait_closed(-1)
    assert cmsgx.wait_closed(10.0) == 0


@exercises(cmsgx.PidFd, cmsgx.peer_pidfd)
def pidfds() -> None:
    with cmsgx.PidFd(os.pidfd_open(os.getpid())) as fd:
        assert fd.pid == os.getpid()
        fd.send_signal(0)
        with suppress(TimeoutError):
            fd.wait(0)
        unowned = cmsgx.PidFd.unpack(os.dup(fd.fileno()).to_bytes(4, sys.byteorder))
        unowned.own().close()
    with pair() as (left, right), suppress(cmsgx.NotSupportedError):
        cmsgx.peer_pidfd(left).close()
        receiver = cmsgx.Receiver(right, 10, want=[cmsgx.PidFd])
        cmsgx.send(left, b"1")
        with receiver.receive() as message:
            assert message[cmsgx.PidFd].pid == os.getpid()


@exercises(cmsgx.peer_credentials, cmsgx.PeerCredentials, cmsgx.peer_groups, cmsgx.peer_security)
def peers() -> None:
    with pair() as (left, _):
        cmsgx.peer_groups(left), cmsgx.peer_security(left)
        who = cmsgx.peer_credentials(left)
        who.uid_mapped, who.gid_mapped, repr(who), hash(who)
        assert who == cmsgx.PeerCredentials(who.pid, who.uid, who.gid)
    with socket.socket() as other:
        for call in (cmsgx.peer_credentials, cmsgx.peer_groups, cmsgx.peer_security):
            with suppress(cmsgx.NotSupportedError):
                call(other)


@exercises(cmsgx.accept_rights)
def rights_refused() -> None:
    with pair() as (left, right), suppress(cmsgx.NotSupportedError):
        cmsgx.accept_rights(right, False)
        with suppress(PermissionError):
            cmsgx.send(left, b"1", fds=[0])
        cmsgx.accept_rights(right, True)


@exercises(cmsgx.enable)
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
    # There is no way back for users.
    del _table._rows[Mine], _table._received[-5, 1], _table._sent[-5, 1]


# Those of a family, of which no other exercise is.
OTHERS = {
    value
    for name in cmsgx.kinds.__all__
    for value in [getattr(cmsgx.kinds, name)]
    if f"cmsgx.kinds.{name}" in of_a_family()
}
WITH_A_NUMBER = [
    kind for kind in _table._rows if issubclass(kind, cmsgx.kinds.StructMessage)
]  # fmt: skip


# The leftover of a dataclass with slots, before 3.11.3 (gh-102069): who asks gets a TypeError.
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
                with suppress(KeyError):  # of what this message has not
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
        # Behind the back of the receiver: the credentials take the room.
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


@exercises(cmsgx.CmsgError, cmsgx.MalformedControlError, cmsgx.NotSupportedError)
def errors() -> None:
    assert str(cmsgx.NotSupportedError(errno.ENOPROTOOPT, "text")).endswith("text")
    for error in (cmsgx.MalformedControlError, cmsgx.CmsgError):
        try:
            raise error("text")
        except cmsgx.CmsgError:
            pass


# How a leak is seen -----------------------------------------------------------------------------


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
            "fordblks", "keepcost",
        )
    )  # fmt: skip


def _find_mallinfo() -> Callable[[], _Mallinfo] | None:
    try:
        found = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):  # not glibc 2.33 or later
        return None
    found.restype = _Mallinfo
    function: Callable[[], _Mallinfo] = found
    return function


_mallinfo = _find_mallinfo()


def holdings() -> dict[str, int]:
    """What this process has, by each measure that it has."""
    for _ in range(3):
        gc.collect()
    assert cmsgx.wait_closed(60) == 0  # what is to be closed in the background has not leaked
    found = {"descriptors": len(open_fds()), "blocks": sys.getallocatedblocks()}
    if _mallinfo is not None:
        # What C took without Python's allocator, in units that no leaked block is smaller than.
        found["malloc"] = _mallinfo().uordblks // 24
    if hasattr(sys, "gettotalrefcount"):
        found["references"] = sys.gettotalrefcount()
    return found


def growth(exercise: Callable[[], object], times: int = N) -> dict[str, int]:
    """What it leaves behind, for each measure; caches are warm."""
    for _ in range(times // 4):
        exercise()
    before = holdings()
    for _ in range(times):
        exercise()
    after = holdings()
    return {name: after[name] - before[name] for name in before}


def leaks(exercise: Callable[[], object]) -> dict[str, int]:
    """What grew with each run. Growth by chance does not repeat itself."""
    for _ in range(5):
        grown = growth(exercise)
        # A descriptor too many is one too many; of memory some comes and goes.
        found = {
            name: count
            for name, count in grown.items()
            if (count != 0 if name == "descriptors" else count >= N * 3 // 4)
        }
        if not found:
            break
    return found


def test_each_has_a_leak_test() -> None:
    assert {name for name, value in CALLABLES.items() if value not in LEAK_TESTS} == set()


def test_leak_tests_are_of_public_names() -> None:
    assert set(LEAK_TESTS) <= set(CALLABLES.values())


def is_a_class_freed() -> bool:
    class Plain:
        pass

    reference = weakref.ref(Plain)
    del Plain
    gc.collect()
    return reference() is None


@pytest.mark.parametrize("exercise", list(dict.fromkeys(LEAK_TESTS.values())))
def test_leaks_nothing(exercise: Callable[[], object]) -> None:
    if exercise is registering and not is_a_class_freed():
        pytest.skip("an empty class was made and dropped, and is still there: immortal here")
    assert leaks(exercise) == {}


# The checker, checked ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_leaked_descriptor_is_seen() -> None:
    kept: list[int] = []
    runs = itertools.count()
    try:
        assert "descriptors" in leaks(
            lambda: kept.append(os.dup(0)) if next(runs) % 100 == 0 else None
        )
    finally:
        for number in kept:
            os.close(number)


@pytest.mark.slow
def test_a_leaked_object_is_seen() -> None:
    if not sys.getallocatedblocks():
        pytest.skip("sys.getallocatedblocks() counts nothing: PYTHONMALLOC=malloc")
    kept: list[object] = []
    assert "blocks" in leaks(lambda: kept.append(object()))


def test_a_leaked_cycle_is_none() -> None:
    def cycle() -> None:
        items: list[object] = []
        items.append(items)

    assert leaks(cycle) == {}


@pytest.mark.slow
def test_memory_that_c_leaks_is_seen() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    kept: list[int] = []
    before = _mallinfo().uordblks if _mallinfo is not None else 0
    block = libc.malloc(ctypes.c_size_t(4096))
    counts = _mallinfo is not None and _mallinfo().uordblks > before
    libc.free(ctypes.c_void_p(block))
    if not counts:
        pytest.skip("mallinfo2() counts nothing: not glibc's malloc")
    try:
        assert "malloc" in leaks(lambda: kept.append(libc.malloc(ctypes.c_size_t(20))))
    finally:
        for address in kept:
            libc.free(ctypes.c_void_p(address))


def test_a_leaked_reference_is_seen() -> None:
    if not hasattr(sys, "gettotalrefcount"):
        pytest.skip("sys.gettotalrefcount: only a debug build has it")
    kept: list[object] = []
    one = object()
    assert "references" in leaks(lambda: kept.append(one))
