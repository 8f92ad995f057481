"""Replays public calls with tests/c/reluctant.c in their way, and compares what comes of them.

In a process of its own: see test_reluctance.py. A row of the files reluctant_*.py makes a call,
again and again where it could not wait, until it has gone through.
"""

from __future__ import annotations

import array
import itertools
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from native import Reluctant
from support import content, open_fds, open_files

import cmsgx
from cmsgx import kinds

FILES = 4
MOST_TRIES = 300
END = b"the end"
SOL_SOCKET, SCM_RIGHTS = socket.SOL_SOCKET, socket.SCM_RIGHTS

TYPES = {
    "stream": (socket.AF_UNIX, socket.SOCK_STREAM),
    "datagrams": (socket.AF_UNIX, socket.SOCK_DGRAM),
    "packets": (socket.AF_UNIX, socket.SOCK_SEQPACKET),
    "tcp": (socket.AF_INET, socket.SOCK_STREAM),
    "udp": (socket.AF_INET, socket.SOCK_DGRAM),
}
UNIX = ("stream", "datagrams", "packets")
ANY = tuple(TYPES)
# With a timeout of the socket, with one that the call is given, and without waiting.
WAITS = ("blocking", "timeout", "timeout=", "not")
SOCKETS = ("cmsgx.socket", "socket.socket")
BY = (*SOCKETS, "Fd", "number", "object")
MODES = ("later", "little", "later,little", "later=2,ready=2,error=2,little")

Got: TypeAlias = "tuple[bytes, tuple[str, ...], tuple[tuple[int, int, bytes], ...]]"
"""The bytes of a message, the contents of its descriptors, and its other control messages."""


class How(NamedTuple):
    """On which socket a call is made, and how it may wait."""

    kind: str
    waits: str
    by: str


class Row(NamedTuple):
    name: str
    act: Callable[[Scene], Any]
    kinds: tuple[str, ...]
    by: tuple[str, ...]
    waits: tuple[str, ...]
    is_send: bool
    may_be_short: bool
    """On a stream it reports how many bytes it sent, maybe fewer than it was given."""
    moves: bool
    """Whether it moves more than one byte."""

    def ways(self, is_long: bool) -> Iterator[How]:
        """All, or each kind of socket with each way to wait, by each sort of argument in turn."""
        by = itertools.cycle(self.by)
        for kind, waits in itertools.product(self.kinds, self.waits):
            for one in self.by if is_long else [next(by)]:
                yield How(kind, waits, one)


ROWS: list[Row] = []


def row(
    *on: str,
    by: tuple[str, ...] = BY,
    waits: tuple[str, ...] = WAITS,
    may_be_short: bool = False,
    moves: bool = True,
    is_send: bool = False,
) -> Callable[[Callable[[Scene], Any]], Callable[[Scene], Any]]:
    """Registers a row for these kinds of sockets."""

    def enter(act: Callable[[Scene], Any]) -> Callable[[Scene], Any]:
        folder = act.__module__.removeprefix("reluctant_")
        name = f"{folder}.{act.__name__}"
        sends = is_send or folder == "sends"
        ROWS.append(Row(name, act, on, by, waits, sends, may_be_short, moves))
        return act

    return enter


class Number:
    """An object with only a fileno()."""

    def __init__(self, number: int) -> None:
        self._number = number

    def fileno(self) -> int:
        return self._number


def connected(kind: str, stack: ExitStack) -> tuple[cmsgx.socket, cmsgx.socket]:
    family, type = TYPES[kind]
    if family == socket.AF_UNIX:
        left, right = cmsgx.socketpair(family, type)
    elif type == socket.SOCK_STREAM:
        with cmsgx.socket(family, type) as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            left = cmsgx.socket(family, type)
            left.connect(listener.getsockname())
            right = listener.accept()[0]
        left.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    else:
        left, right = cmsgx.socket(family, type), cmsgx.socket(family, type)
        for sock in (left, right):
            sock.bind(("127.0.0.1", 0))
        left.connect(right.getsockname())
        right.connect(left.getsockname())
    stack.enter_context(left)
    stack.enter_context(right)
    if family == socket.AF_UNIX:
        cmsgx.enable(right, cmsgx.Credentials)
    elif kind == "udp":
        cmsgx.enable(right, kinds.Ttl)
    return left, right


class Scene:
    """A pair of sockets, and the one on which the calls of a row are made."""

    def __init__(self, how: How, mode: str, reluctant: Reluctant, is_send: bool) -> None:
        self.how, self.mode = how, mode
        self._reluctant = reluctant
        self.called: set[str] = set()
        self.stack = ExitStack()
        self.files = self.stack.enter_context(open_files(FILES))
        self.left, self.right = connected(how.kind, self.stack)
        self.own = self.left if is_send else self.right
        self.sock = self.argument(self.own)
        self._other: Any = None
        self._only_tries = False
        self.limit: dict[str, Any] = {"timeout": 60.0} if how.waits == "timeout=" else {}

    def argument(self, sock: cmsgx.socket) -> Any:
        """The socket as the calls are given it, with its timeout."""
        sock.settimeout({"timeout": 60, "not": 0}.get(self.how.waits))
        match self.how.by:
            case "socket.socket":
                plain = socket.socket(fileno=os.dup(sock.fileno()))
                plain.settimeout(sock.gettimeout())
                return self.stack.enter_context(plain)
            case "Fd":
                return self.stack.enter_context(cmsgx.Fd(os.dup(sock.fileno())))
            case "number":
                return sock.fileno()
            case "object":
                return Number(sock.fileno())
        return sock

    @property
    def other(self) -> Any:
        """The left one, for a row that receives and sends by cmsgx too."""
        if self._other is None:
            self._other = self.argument(self.left)
        return self._other

    def try_only(self) -> None:
        """From here on each call is told not to wait."""
        self._only_tries = True

    @property
    def is_unix(self) -> bool:
        return self.how.kind in UNIX

    @property
    def is_stream(self) -> bool:
        return TYPES[self.how.kind][1] == socket.SOCK_STREAM

    @property
    def control(self) -> Any:
        """What can be sent over this socket."""
        if self.is_unix:
            return cmsgx.Credentials()
        return kinds.Ttl(9) if self.how.kind == "udp" else ()

    def fds(self, *indexes: int) -> list[int]:
        return [self.files[index] for index in indexes] if self.is_unix else []

    # Calls -----------------------------------------------------------------------------------

    def call(self, name: str, *arguments: Any, **more: Any) -> Any:
        """A public call by its name: a method is given its object first."""
        return self.call_as(name, attrgetter(name)(ROOT), *arguments, **more)

    def call_freely(self, name: str, *arguments: Any, **more: Any) -> Any:
        """The same for a call that may find nothing in its way, after one that did."""
        return self.call_as(name, attrgetter(name)(ROOT), *arguments, is_free=True, **more)

    def call_as(
        self,
        name: str,
        function: Callable[..., Any],
        *arguments: Any,
        is_free: bool = False,
        **more: Any,
    ) -> Any:
        """Calls it until it has gone through.

        It must not have moved anything where it says that it cannot, and only what may not wait
        may say so.
        """
        self.called.add(name)
        before = self._reluctant.count()
        for count in range(MOST_TRIES):
            if count > 40:  # what the kernel itself has not done yet
                time.sleep(0.01)
            try:
                result = function(*arguments, **more)
            except BlockingIOError as error:
                self._check_that_it_may_not_wait(name)
                if getattr(error, "sent", 0) or getattr(error, "sent_bytes", 0):
                    raise
                continue
            if (result is None or result is False) and ".try_" in name:
                continue
            is_hindered = self._reluctant.count() > before
            assert is_hindered or is_free or "later" not in self.mode, f"{name}: nothing in its way"
            return result
        raise AssertionError(f"{name}: it never went through")

    def _check_that_it_may_not_wait(self, name: str) -> None:
        may_wait = self.how.waits != "not" and (
            self.how.by in SOCKETS or self.how.waits == "timeout="
        )
        assert self._only_tries or not may_wait, f"{name}: it could have waited"

    def failure(self, name: str, *arguments: Any, **more: Any) -> Any:
        """What the call raises."""
        try:
            result = self.call(name, *arguments, **more)
        except Exception as error:
            attributes = {
                key: getattr(error, key) for key in ("sent", "sent_bytes") if hasattr(error, key)
            }
            return type(error).__name__, getattr(error, "errno", None), str(error), attributes
        return "nothing raised", result

    # The other side --------------------------------------------------------------------------

    def send_plainly(self, data: bytes, control: Iterable[Any]) -> None:
        """From the left, with nothing in the way."""
        with self.paused():
            assert cmsgx.send(self.left, data, control=control, timeout=60) == len(data)

    def paused(self) -> AbstractContextManager[None]:
        return self._reluctant.paused()

    @contextmanager
    def meanwhile(self, action: Callable[[], object]) -> Iterator[None]:
        """Does it a little later: by read() and write(), which nothing is in the way of."""
        thread = threading.Timer(0.004, action)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def fill(self) -> Callable[[], None]:
        """The left one can send nothing, until the function that this returns is called."""
        with self.paused():
            sizes = []
            with suppress(BlockingIOError):
                while True:
                    sizes.append(cmsgx.send(self.left, bytes(1000), timeout=0))
        number = self.right.fileno()

        def empty() -> None:
            for size in sizes:
                left = size
                while left:
                    left -= len(os.read(number, left))

        return empty

    @contextmanager
    def full(self) -> Iterator[None]:
        """The left one can send nothing, until a little later."""
        with self.meanwhile(self.fill()):
            yield

    def as_rights(self, numbers: list[int]) -> tuple[int, int, bytes]:
        return SOL_SOCKET, SCM_RIGHTS, array.array("i", numbers).tobytes()

    # What arrives ----------------------------------------------------------------------------

    def arrived(self) -> list[Got]:
        """All that the other side has received, by socket's own methods."""
        self.left.settimeout(60)
        self.right.settimeout(60)
        if self.is_stream:
            self.left.shutdown(socket.SHUT_WR)
        else:
            self.left.send(END)
        found: list[Got] = []
        while True:
            # Of a stream one byte, so that it is known with which one descriptors came.
            size = 1 if self.is_stream else 1 << 17
            data, ancdata, _, _ = socket.socket.recvmsg(self.right, size, 4096)
            found.append(self.got(data, ancdata))
            if data == (b"" if self.is_stream else END):
                return found[:-1]

    def got(self, data: bytes, ancdata: Iterable[tuple[int, int, bytes]]) -> Got:
        """A message as the drop-in functions give it; closes its descriptors."""
        contents, others = [], []
        for level, type, payload in ancdata:
            if (level, type) == (SOL_SOCKET, SCM_RIGHTS):
                for number in memoryview(payload).cast("i"):
                    contents.append(content(number))
                    os.close(number)
            else:
                others.append((level, type, payload))
        return data, tuple(contents), tuple(others)

    def normal(self, messages: Iterable[Got]) -> Any:
        """Messages as they are; a stream as its bytes, with what came before which of them."""
        if not self.is_stream:
            return list(messages)
        data = b""
        fds: list[tuple[int, str]] = []
        others: set[tuple[int, int, bytes]] = set()
        for part, contents, control in messages:
            fds += [(len(data), one) for one in contents]
            data += part
            others |= set(control)
        return data, fds, sorted(others)


class _Root:
    cmsgx = cmsgx


ROOT = _Root()


# The comparison -----------------------------------------------------------------------------------


def replay(row: Row, how: How, mode: str, reluctant: Reluctant) -> tuple[Any, set[str]]:
    """What came of it, and the public names that were called."""
    before = open_fds()
    scene = Scene(how, mode, reluctant, row.is_send)
    with scene.stack:
        with reluctant.mode(mode):
            result = row.act(scene)
            assert "later" not in mode or reluctant.count("again", "interrupted") > 0, (
                "nothing was refused"
            )
            if "little" in mode and scene.is_stream and row.moves:
                assert reluctant.count("shortened") > 0, "nothing was shortened"
        outcome = (result, scene.normal(scene.arrived())) if row.is_send else result
    cmsgx.wait_closed(60)
    after = open_fds()
    assert after.keys() == before.keys(), {n: after[n] for n in after.keys() - before.keys()}
    return outcome, scene.called


def compare(row: Row, how: How, expected: Any, found: Any) -> None:
    if row.may_be_short and TYPES[how.kind][1] == socket.SOCK_STREAM and found != expected:
        # What arrived is what was reported: that many bytes, and all that goes with the first.
        count, (data, fds, control) = found
        whole, all_fds, all_control = expected[1]
        expected = count, (whole[:count], all_fds, all_control)
        assert 0 < count < len(whole), found
        found = count, (data, fds, control)
    assert found == expected, f"\n    {found}\ninstead of\n    {expected}"


def replay_all(mode: str, is_long: bool, pattern: str = "") -> None:
    """Prints how many comparisons there were, and then each that failed."""
    reluctant = Reluctant()
    failures: list[str] = []
    count = 0
    for row in ROWS:
        for how in row.ways(is_long) if pattern in row.name else ():
            count += 1
            try:
                expected = replay(row, how, "", reluctant)[0]
                compare(row, how, expected, replay(row, how, mode, reluctant)[0])
            except Exception:
                failures.append(f"{row.name} {how} {mode}\n{traceback.format_exc()}")
    print(count, len(failures), *failures, sep="\n")


def print_names() -> None:
    """Each public name that a row calls."""
    reluctant = Reluctant()
    names: set[str] = set()
    for row in ROWS:
        names |= replay(row, next(row.ways(False)), "", reluctant)[1]
    print(*sorted(names))
