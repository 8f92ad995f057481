"""Pass descriptors and an identity to a second process, which uses and checks each of them.

The first process starts a second one and sends it, in one message over an AF_UNIX socket: an open
file at an offset, both ends of a pipe, a listening TCP socket, a sealed memfd and its credentials;
the kernel adds a pidfd. The second process answers with a descriptor of its own. The exit status
is 0 only if everything was verified.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import mmap
import os
import platform
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import cmsgx

from ._table import table

__all__ = ["add_arguments", "run"]

_SECONDS: Final = 20.0  # until either process gives the other one up
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NO_PIDFD: Final = "this kernel has no SO_PASSPIDFD (Linux 6.5)"

_FILE_READ: Final = b"The first process read this; "
_FILE_LEFT: Final = b"the second read on."
_PIPE_THERE: Final = b"into the pipe"
_PIPE_BACK: Final = b"back through it"
_TCP_THERE: Final = b"over TCP"
_TCP_BACK: Final = b"and back"
_MEMORY: Final = b"sealed memory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # How the first process starts the second one: the number of its socket.
    parser.add_argument("--peer", type=int, metavar="FD", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    if arguments.peer is not None:
        return _be_second(arguments.peer)
    return _be_first()


class _CheckError(Exception):
    """Something is not as it must be."""


def _expect(condition: object, text: str) -> None:
    if not condition:
        raise _CheckError(text)


class _Use(NamedTuple):
    """What became of one descriptor."""

    arrived: str
    number: int | None
    text: str
    ok: bool


class _Identity(NamedTuple):
    """One thing that the kernel said about a sender; `ok` is None where it has not got it."""

    kind: str
    says: str
    compared: str
    ok: bool | None


# Both processes -------------------------------------------------------------------------------


def _receiver(sock: cmsgx.socket, fds: int) -> tuple[cmsgx.Receiver, bool]:
    """A Receiver that asks for the sender's identity, and whether that can be a pidfd."""
    try:
        both = [cmsgx.Credentials, cmsgx.PidFd]
        return cmsgx.Receiver(sock, 65536, fds=fds, want=both), True
    except cmsgx.NotSupportedError:
        return cmsgx.Receiver(sock, 65536, fds=fds, want=[cmsgx.Credentials]), False


def _identify(message: cmsgx.Message, has_pidfd: bool) -> list[_Identity]:
    """Who sent a message, compared with what /proc says of that process."""
    who = message[cmsgx.Credentials]
    found = [_compare_credentials(who)]
    if not has_pidfd:
        return [*found, _Identity("PidFd", "-", _NO_PIDFD, None)]
    with message.take(cmsgx.PidFd) as pidfd:
        if pidfd.error is not None:
            return [*found, _Identity("PidFd", "-", os.strerror(pidfd.error), False)]
        pid = pidfd.pid
        found.append(_Identity("PidFd", f"pid {pid}", f"Credentials: pid {who.pid}", pid == who.pid))
    return found


def _compare_credentials(who: cmsgx.Credentials) -> _Identity:
    says = _person(who.pid, who.uid, who.gid)
    if who.pid is None:
        return _Identity("Credentials", says, "the sender is not visible here", False)
    status = {}
    with open(f"/proc/{who.pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, values = line.partition(":")
            status[name] = values.split()
    there = tuple(int(status[name][0]) for name in ("Pid", "Uid", "Gid"))
    return _Identity(
        "Credentials",
        says,
        f"/proc/{who.pid}/status: {_person(*there)}",
        there == (who.pid, who.uid, who.gid),
    )


def _person(pid: int | None, uid: int, gid: int) -> str:
    return f"pid {pid}, uid {uid}, gid {gid}"


def _sealed(name: str, content: bytes) -> cmsgx.Fd:
    """A memfd that nobody can change any more."""
    with cmsgx.Fd(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)) as fd:
        os.write(fd.fileno(), content)
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, _SEALS)
        return fd.dup()


def _mapped(fd: cmsgx.Fd) -> bytes:
    """What a memfd of the peer's holds: once its seals are checked, it can be mapped safely."""
    _expect(
        fd.check(kind="memfd", access="r", seals=_SEALS, size=1), "not a sealed memfd with content"
    )
    # Private: before Linux 6.7 a memfd sealed against writing could not be mapped shared.
    with mmap.mmap(fd.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as memory:
        return memory[:]


def _read(number: int) -> bytes:
    """Reads a pipe, and does not wait for ever."""
    poll = select.poll()
    poll.register(number, select.POLLIN)
    if not poll.poll(_SECONDS * 1000):
        raise TimeoutError("nothing came through the pipe")
    return os.read(number, 4096)


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# The second process ---------------------------------------------------------------------------


def _be_second(number: int) -> int:
    before = _open_descriptors()
    with cmsgx.Fd(number).socket() as sock:
        sock.settimeout(_SECONDS)
        receiver, has_pidfd = _receiver(sock, fds=len(_USES))
        # Only what is sent from now on carries all that was just switched on.
        cmsgx.send(sock, b"ready", control=cmsgx.Credentials())
        with receiver.receive() as message:
            names = json.loads(message.data)
            sender = _identify(message, has_pidfd)
            uses = [
                _use(name, fd) for name, fd in zip(names, message.take_all(), strict=True)
            ]
        report = {
            "sender": sender, "uses": uses, "open before": before, "open": _open_descriptors()
        }  # fmt: skip
        with _sealed("report", json.dumps(report).encode()) as fd:
            cmsgx.send(sock, str(fd.fileno()).encode(), fds=[fd], control=cmsgx.Credentials())
    return 0


def _use(name: str, fd: cmsgx.Fd) -> _Use:
    number = fd.fileno()
    with fd:
        arrived, use = _USES[name]
        try:
            _expect(not os.get_inheritable(number), "inheritable")
            return _Use(f"{arrived}, close-on-exec", number, use(fd), True)
        except (_CheckError, OSError) as error:
            return _Use(arrived, number, f"{type(error).__name__}: {error}", False)


def _use_file(fd: cmsgx.Fd) -> str:
    _expect(fd.check(kind="file", access="r"), "not a file that can be read")
    offset = os.lseek(fd.fileno(), 0, os.SEEK_CUR)
    text = os.read(fd.fileno(), 4096)
    _expect((offset, text) == (len(_FILE_READ), _FILE_LEFT), f"byte {offset}: {text!r}")
    return f'read on from byte {offset}: "{text.decode()}"'


def _use_pipe_reader(fd: cmsgx.Fd) -> str:
    _expect(fd.check(kind="pipe", access="r"), "not a pipe that can be read")
    text = _read(fd.fileno())
    _expect(text == _PIPE_THERE, repr(text))
    return f'read "{text.decode()}"'


def _use_pipe_writer(fd: cmsgx.Fd) -> str:
    _expect(fd.check(kind="pipe", access="w"), "not a pipe that can be written")
    os.write(fd.fileno(), _PIPE_BACK)
    return f'wrote "{_PIPE_BACK.decode()}"'


def _use_listener(fd: cmsgx.Fd) -> str:
    _expect(fd.check(kind="socket"), "not a socket")
    with fd.socket() as listener:
        _expect(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), "not listening")
        listener.settimeout(_SECONDS)
        connection, address = listener.accept()
        with connection:
            connection.settimeout(_SECONDS)
            text = connection.recv(4096)
            _expect(text == _TCP_THERE, repr(text))
            connection.sendall(_TCP_BACK)
    return f'accepted port {address[1]}, read "{text.decode()}", wrote "{_TCP_BACK.decode()}"'


def _use_memory(fd: cmsgx.Fd) -> str:
    text = _mapped(fd)
    _expect(text == _MEMORY, repr(text))
    return f'checked its seals, mapped it: "{text.decode()}"'


_USES: Final[dict[str, tuple[str, Callable[[cmsgx.Fd], str]]]] = {
    "file": ("file", _use_file),
    "pipe reader": ("pipe, to read", _use_pipe_reader),
    "pipe writer": ("pipe, to write", _use_pipe_writer),
    "listener": ("socket", _use_listener),
    "memory": ("memfd, sealed", _use_memory),
}


# The first process ----------------------------------------------------------------------------


def _be_first() -> int:
    before = _open_descriptors()
    try:
        lines, checks = _talk()
    except (_CheckError, OSError, cmsgx.CmsgError) as error:
        print(f"cmsgx demo: {error}", file=sys.stderr)
        return 1
    after = _open_descriptors()
    checks.append(before == after)
    failed = checks.count(False)
    print(*lines, f"Open descriptors in the first process: {before} before, {after} after.", "",
          f"{failed} of {len(checks)} checks FAILED." if failed
          else f"All {len(checks)} checks passed.", sep="\n")  # fmt: skip
    return 1 if failed else 0


class _Parcel:
    """What the first process sends."""

    def __init__(self, stack: ExitStack) -> None:
        self.file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
        self.file.write(_FILE_READ + _FILE_LEFT)
        self.file.seek(0)
        self.file.read(len(_FILE_READ))
        self.reader, self.writer = (stack.enter_context(cmsgx.Fd(end)) for end in os.pipe())
        os.write(self.writer.fileno(), _PIPE_THERE)
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.memory = stack.enter_context(_sealed("demo", _MEMORY))
        port = self.listener.getsockname()[1]
        self.items: dict[str, tuple[str, Any]] = {
            "file": (f"file at byte {len(_FILE_READ)}", self.file),
            "pipe reader": ("pipe, read end", self.reader),
            "pipe writer": ("pipe, write end", self.writer),
            "listener": (f"TCP listener, port {port}", self.listener),
            "memory": ("memfd, sealed", self.memory),
        }

    def check(self, name: str, connection: socket.socket) -> str | None:
        """What can be seen of the other's use from here, where there is anything to see."""
        if name == "file":
            offset = self.file.tell()
            _expect(offset == len(_FILE_READ + _FILE_LEFT), f"the offset here is {offset}")
            return f"here it is at byte {offset} now"
        if name == "pipe writer":
            text = _read(self.reader.fileno())
            _expect(text == _PIPE_BACK, f"{text!r} came back")
            return "read here"
        if name == "listener":
            text = connection.recv(4096)
            _expect(text == _TCP_BACK, f"{text!r} came back")
            return "read here"
        return None


def _talk() -> tuple[list[str], list[bool | None]]:
    """The whole conversation: the lines to print, and what was verified (None: cannot be here)."""
    with ExitStack() as stack:
        ours, theirs = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        with theirs:
            ours.settimeout(_SECONDS)
            receiver, has_pidfd = _receiver(ours, fds=1)
            second = stack.enter_context(_start_second(theirs.fileno()))
        # In case of an error: the other one sees the end of the socket, and ends, too.
        stack.callback(ours.close)
        with receiver.receive() as message:
            _expect(message.data == b"ready", "the second process ended before it was ready")

        parcel = _Parcel(stack)
        numbers = [item.fileno() for _, item in parcel.items.values()]
        nbytes = cmsgx.send(
            ours,
            json.dumps(list(parcel.items)).encode(),
            fds=[item for _, item in parcel.items.values()],
            control=cmsgx.Credentials(),
        )
        address = parcel.listener.getsockname()
        connection = stack.enter_context(socket.create_connection(address, timeout=_SECONDS))
        connection.sendall(_TCP_THERE)

        with receiver.receive() as message:
            _expect(message.data, "the second process ended without an answer")
            answered = _identify(message, has_pidfd)
            arrived = message.fds[0].fileno()
            content = _mapped(message.fds[0])
        report = json.loads(content)
        uses = [_Use(*use) for use in report["uses"]]
        seen = [_Identity(*one) for one in report["sender"]]

        items: list[tuple[str, ...]] = []
        checks: list[bool | None] = []
        for (name, (text, _)), number, use in zip(
            parcel.items.items(), numbers, uses, strict=True
        ):
            what, ok = use.text, use.ok
            try:
                here = parcel.check(name, connection) if ok else None
            except (_CheckError, OSError) as error:
                here, ok = str(error), False
            checks.append(ok)
            what = f"{what}; {here}" if here else what
            items.append((text, str(number), use.arrived, str(use.number), what, _mark(ok)))
        back = f"read the report, {len(content)} bytes"
        items.append(
            ("answer: memfd, sealed", message.data.decode(), "memfd, sealed", str(arrived), back,
             _mark(True))
        )  # fmt: skip
        checks.append(True)

        mine = _person(os.getpid(), os.getuid(), os.getgid())
        seen = [one._replace(ok=one.ok and one.says == _said_of(one.kind, os.getpid(), mine))
                if one.ok else one for one in seen]  # fmt: skip
        theirs_is = _person(second.pid, os.getuid(), os.getgid())
        answered = [one._replace(ok=one.ok and one.says == _said_of(one.kind, second.pid, theirs_is))
                    if one.ok else one for one in answered]  # fmt: skip
        maker = cmsgx.peer_credentials(ours)
        answered.append(
            _Identity(
                "peer_credentials()",
                f"pid {maker.pid}",
                "the process that made the socket pair, and not the sender",
                maker.pid == os.getpid(),
            )
        )
        senders = [
            *(("to the second", *one[:3], _mark(one.ok)) for one in seen),
            *(("the answer", *one[:3], _mark(one.ok)) for one in answered),
        ]
        checks += [one.ok for one in (*seen, *answered)]
        checks.append(report["open before"] == report["open"])
        second.wait(_SECONDS)
        _expect(second.returncode == 0, f"the second process ended with {second.returncode}")
    return [
        f"cmsgx {cmsgx.__version__}, {platform.python_implementation()} "
        f"{platform.python_version()}, {platform.system()} {platform.release()}",
        f"first process: pid {os.getpid()}; second process: pid {second.pid}",
        "",
        f"Descriptors: {len(numbers)} in one message beside {nbytes} bytes, 1 in the answer",
        "",
        *table(
            ("sent", "fd", "arrived as", "fd", "and was used", ""), items, (25, 4, 16, 4, 35, 6)
        ),
        "",
        "Who sent it: what the kernel said of the sender, and what it was compared with",
        "",
        *table(("message", "by", "says", "compared with", ""), senders, (13, 18, 28, 27, 6)),
        "",
        f"Open descriptors in the second process: {report['open before']} before, "
        f"{report['open']} after.",
    ], checks


def _said_of(kind: str, pid: int, person: str) -> str:
    return f"pid {pid}" if kind == "PidFd" else person


def _mark(ok: bool | None) -> str:
    return {True: "ok", False: "FAILED", None: "-"}[ok]


def _start_second(number: int) -> subprocess.Popen[bytes]:
    """The other process runs the same cmsgx, wherever this one was imported from."""
    folders = [str(Path(cmsgx.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cmsgx", "demo", "--peer", str(number)],
        pass_fds=[number],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
    )
