"""Pass descriptors and an identity to a second process, which uses and checks each of them.

The first process starts a second one, and sends it one message over an AF_UNIX socket, with an open
file at an offset, both ends of a pipe, a listening TCP socket, a sealed memfd and its own
credentials; the kernel adds a pidfd. The second process answers with a descriptor of its own. The
exit status is 0 only if every check passed.
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
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import cmsgx

from ._table import table

__all__ = ["add_arguments", "run"]

_SECONDS: Final = 20.0  # until either process gives up on the other
_SEALS: Final = sum(
    getattr(fcntl, f"F_SEAL_{name}", 0) for name in ("SEAL", "SHRINK", "GROW", "WRITE")
)
_NO_PIDFD: Final = "this kernel lacks SO_PASSPIDFD (Linux 6.5)"

_FILE_READ: Final = b"The first process read this; "
_FILE_LEFT: Final = b"the second read on."
_PIPE_THERE: Final = b"into the pipe"
_PIPE_BACK: Final = b"back through it"
_TCP_THERE: Final = b"over TCP"
_TCP_BACK: Final = b"and back"
_MEMORY: Final = b"sealed memory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    # The first process passes this to the second one: the number of its socket.
    parser.add_argument("--peer", type=int, metavar="FD", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    if sys.platform != "linux":
        print(
            "cmsgx demo: needs Linux: it shows memfds, pidfds and the identity of a sender",
            file=sys.stderr,
        )
        return 2
    if arguments.peer is not None:
        return _be_second(arguments.peer)
    return _be_first()


class _CheckError(Exception):
    """A check failed."""


def _expect(condition: object, text: str) -> None:
    if not condition:
        raise _CheckError(text)


class _Use(NamedTuple):
    """How one descriptor was used."""

    arrived: str
    number: int | None
    text: str
    ok: bool


class _Identity(NamedTuple):
    """One fact that the kernel reported about a sender; `ok` is None if the kernel cannot."""

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


def _identify(message: cmsgx.Message, has_pidfd: bool, expected: int) -> list[_Identity]:
    """Checks that the `expected` process sent the message, and that /proc agrees."""
    who = message[cmsgx.Credentials]
    says = _person(who.pid, who.uid, who.gid)
    there = _person_in_proc(who.pid)
    agrees = f"/proc/{who.pid}/status" if there == says else f"/proc: {there}"
    found = [_Identity("Credentials", says, agrees, there == says and who.pid == expected)]
    if not has_pidfd:
        return [*found, _Identity("PidFd", "-", _NO_PIDFD, None)]
    with message.take(cmsgx.PidFd) as pidfd:
        if pidfd.error is not None:
            return [*found, _Identity("PidFd", "-", os.strerror(pidfd.error), False)]
        pid = pidfd.pid
    return [*found, _Identity("PidFd", f"pid {pid}", "the pid in Credentials", pid == who.pid)]


def _person_in_proc(pid: int | None) -> str:
    """The real ids, which are what the kernel attaches to a message."""
    status: dict[str, list[str]] = {}
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, values = line.partition(":")
            status[name] = values.split()
    return _person(*(int(status[name][0]) for name in ("Pid", "Uid", "Gid")))


def _person(pid: int | None, uid: int, gid: int) -> str:
    return f"pid {pid}, uid {uid}, gid {gid}"


def _sealed(name: str, content: bytes) -> cmsgx.Fd:
    """A memfd that nobody can change any more."""
    with cmsgx.Fd(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)) as fd:
        os.write(fd.fileno(), content)
        fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, _SEALS)
        return fd.dup()


def _mapped(fd: cmsgx.Fd) -> bytes:
    """The content of a memfd from the peer. Once its seals are checked, mapping it is safe."""
    _expect(
        fd.check(kind="memfd", access="r", seals=_SEALS, size=1), "not a sealed memfd with content"
    )
    # Private: before Linux 6.7 a memfd sealed against writing could not be mapped shared.
    with mmap.mmap(fd.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as memory:
        return memory[:]


def _read(number: int) -> bytes:
    """Reads from a pipe, with a time limit."""
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
        # Only messages sent from now on carry the kinds that were just switched on.
        cmsgx.send(sock, b"ready", control=cmsgx.Credentials())
        with receiver.receive() as message:
            names = json.loads(message.data)
            sender = _identify(message, has_pidfd, os.getppid())
            uses = [_use(name, fd) for name, fd in zip(names, message.take_all(), strict=True)]
        report = {"sender": sender, "uses": uses, "opened": (before, _open_descriptors())}
        with _sealed("report", json.dumps(report).encode()) as fd:
            cmsgx.send(sock, str(fd.fileno()).encode(), fds=[fd], control=cmsgx.Credentials())
    return 0


def _use(name: str, fd: cmsgx.Fd) -> _Use:
    number = fd.fileno()
    with fd:
        arrived, use = _USES[name]
        try:
            _expect(not os.get_inheritable(number), "it is not close-on-exec")
            return _Use(arrived, number, use(fd), True)
        except (_CheckError, OSError) as error:
            return _Use(arrived, number, str(error), False)


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


class _Result(NamedTuple):
    """What is printed."""

    pids: tuple[int, int]
    nbytes: int
    used: list[tuple[str, int, _Use]]  # what was sent, its number in the sender, how it was used
    senders: list[tuple[str, _Identity]]
    opened: tuple[int, int]  # descriptors in the second process, before and after


def _be_first() -> int:
    before = _open_descriptors()
    try:
        result = _talk()
    except (_CheckError, OSError, cmsgx.CmsgError, subprocess.TimeoutExpired) as error:
        print(f"cmsgx demo: {error}", file=sys.stderr)
        return 1
    after = _open_descriptors()
    checks = [use.ok for _, _, use in result.used] + [one.ok for _, one in result.senders]
    checks += [result.opened[0] == result.opened[1], before == after]
    failed, impossible = checks.count(False), checks.count(None)
    print(
        *_shown(result),
        f"Open descriptors in the first process: {before} before, {after} after.",
        "",
        f"{failed} of {len(checks)} checks FAILED."
        if failed
        else f"All {len(checks) - impossible} checks passed.",
        sep="\n",
    )
    return 1 if failed else 0


def _talk() -> _Result:
    """The whole conversation."""
    with ExitStack() as stack:
        ours, theirs = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            stack.enter_context(ours)
            ours.settimeout(_SECONDS)
            receiver, has_pidfd = _receiver(ours, fds=1)
            second = stack.enter_context(_second_process(theirs.fileno()))
        with receiver.receive() as message:
            _expect(message.data == b"ready", "the second process ended before it was ready")

        parcel = _Parcel(stack)
        nbytes = parcel.send(ours)
        connection = stack.enter_context(parcel.connect())

        with receiver.receive() as message:
            _expect(message.data, "the second process ended without an answer")
            answered = _identify(message, has_pidfd, second.pid)
            content = _mapped(message.fds[0])
            text = f"read the report, {len(content)} bytes"
            answer = _Use("memfd, sealed", message.fds[0].fileno(), text, True)
            number = int(message.data)
        maker = cmsgx.peer_credentials(ours)
        report = json.loads(content)
        used = parcel.check([_Use(*use) for use in report["uses"]], connection)
        second.wait(_SECONDS)
        _expect(second.returncode == 0, f"the second process ended with {second.returncode}")
    made = _Identity(
        "PeerCredentials", f"pid {maker.pid}", "the process that made it", maker.pid == os.getpid()
    )
    return _Result(
        (os.getpid(), second.pid),
        nbytes,
        [*used, ("answer: memfd, sealed", number, answer)],
        [
            *(("what was sent", _Identity(*one)) for one in report["sender"]),
            *(("the answer", one) for one in answered),
            ("the socket pair", made),
        ],
        (report["opened"][0], report["opened"][1]),
    )


def _shown(result: _Result) -> list[str]:
    python = f"{platform.python_implementation()} {platform.python_version()}"
    first, second = result.pids
    return [
        f"cmsgx {cmsgx.__version__}, {python}, {platform.system()} {platform.release()}",
        "",
        f"Process {first} sent {len(result.used) - 1} descriptors in one message, beside "
        f"{result.nbytes} bytes.",
        f"Process {second} found each close-on-exec, used it, and answered with one of its own.",
        "",
        *table(
            ("sent", "fd", "arrived as", "fd", "and was used", ""),
            [
                (sent, str(number), use.arrived, str(use.number), use.text, _mark(use.ok))
                for sent, number, use in result.used
            ],
            (24, 4, 14, 4, 38, 6),
        ),
        "",
        "Who sent it, as the kernel says, and what that was compared with:",
        "",
        *table(
            ("of", "kind", "says", "compared with", ""),
            [(of, one.kind, one.says, one.compared, _mark(one.ok)) for of, one in result.senders],
            (15, 15, 32, 24, 6),
        ),
        "",
        "Open descriptors in the second process: {} before, {} after.".format(*result.opened),
    ]


def _mark(ok: bool | None) -> str:
    return {True: "ok", False: "FAILED", None: "-"}[ok]


class _Parcel:
    """The descriptors that the first process sends."""

    def __init__(self, stack: ExitStack) -> None:
        self.file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        stack.enter_context(self.file)
        self.file.write(_FILE_READ + _FILE_LEFT)
        self.file.seek(0)
        self.file.read(len(_FILE_READ))
        reader, writer = os.pipe()
        self.reader = stack.enter_context(cmsgx.Fd(reader))
        self.writer = stack.enter_context(cmsgx.Fd(writer))
        os.write(writer, _PIPE_THERE)
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.memory = stack.enter_context(_sealed("demo", _MEMORY))
        self.address = self.listener.getsockname()
        self.items: dict[str, tuple[str, Any]] = {
            "file": (f"file at byte {len(_FILE_READ)}", self.file),
            "pipe reader": ("pipe, read end", self.reader),
            "pipe writer": ("pipe, write end", self.writer),
            "listener": (f"TCP listener, port {self.address[1]}", self.listener),
            "memory": ("memfd, sealed", self.memory),
        }

    def send(self, sock: cmsgx.socket) -> int:
        return cmsgx.send(
            sock,
            json.dumps(list(self.items)).encode(),
            fds=[item for _, item in self.items.values()],
            control=cmsgx.Credentials(),
        )

    def connect(self) -> socket.socket:
        """A connection to the listener, for the second process to accept."""
        connection = socket.create_connection(self.address, timeout=_SECONDS)
        connection.sendall(_TCP_THERE)
        return connection

    def check(self, uses: list[_Use], connection: socket.socket) -> list[tuple[str, int, _Use]]:
        """For each descriptor: what it is, its number here, and the report of the second process,
        compared with what can be seen here."""
        return [
            (text, item.fileno(), self._check(name, use, connection) if use.ok else use)
            for (name, (text, item)), use in zip(self.items.items(), uses, strict=True)
        ]

    def _check(self, name: str, use: _Use, connection: socket.socket) -> _Use:
        try:
            if name == "file":
                offset = self.file.tell()
                _expect(offset == len(_FILE_READ + _FILE_LEFT), f"here at byte {offset}")
                return use._replace(text=f"{use.text}; now the offset is {offset} in both")
            if name == "pipe writer":
                text = _read(self.reader.fileno())
                _expect(text == _PIPE_BACK, f"{text!r} came back")
                return use._replace(text=f"{use.text}, which came back")
            if name == "listener":
                text = connection.recv(4096)
                _expect(text == _TCP_BACK, f"{text!r} came back")
                return use._replace(text=f"{use.text}, which came back")
        except (_CheckError, OSError) as error:
            return use._replace(text=f"{use.text}; {error}", ok=False)
        return use


@contextmanager
def _second_process(number: int) -> Generator[subprocess.Popen[bytes]]:
    with _start_second(number) as second:
        try:
            yield second
        except BaseException:
            # It may be about to print what is wrong, but it gets no more answers.
            with suppress(subprocess.TimeoutExpired):
                second.wait(1)
            second.kill()
            raise


def _start_second(number: int) -> subprocess.Popen[bytes]:
    """The other process runs the same cmsgx, wherever this one was imported from."""
    folders = [str(Path(cmsgx.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "cmsgx", "demo", "--peer", str(number)],
        pass_fds=[number],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
    )
