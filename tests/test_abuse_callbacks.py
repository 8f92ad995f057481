"""Misuse in code that runs in the middle of a call; and all misuse at random."""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from native import skip_where_a_child_cannot_start_threads
from support import Pair, content, lengths, open_fds, open_files, run_python

import cmsgx
from cmsgx import _cmsg

# Code that runs while arguments are read ------------------------------------------------------


class Swap:
    """Closes a socket and lets another one take its number, as soon as anything is asked of it."""

    def __init__(self, sock: socket.socket, other: socket.socket) -> None:
        self.sock, self.other = sock, other
        self.number = -1

    def now(self) -> None:
        if self.number < 0:
            self.number = self.sock.fileno()
            self.sock.close()
            os.dup2(self.other.fileno(), self.number)

    def __iter__(self) -> Iterator[bytearray]:
        self.now()
        yield bytearray(b"secret")

    def __index__(self) -> int:
        self.now()
        return 0

    def __float__(self) -> float:
        self.now()
        return 0.0

    def fileno(self) -> int:
        self.now()
        return self.other.fileno()


@pytest.mark.parametrize(
    "call",
    [
        lambda s, swap: cmsgx.sendmsg(s, swap),
        lambda s, swap: cmsgx.sendmsg(s, [b"secret"], [], swap),
        lambda s, swap: cmsgx.send(s, swap),
        lambda s, swap: cmsgx.send(s, b"secret", fds=[swap]),
        lambda s, swap: cmsgx.send(s, b"secret", timeout=swap),
        lambda s, swap: cmsgx.send_fds(s, swap, []),
        lambda s, swap: cmsgx.send_fds(s, [b"secret"], [swap]),
        lambda s, swap: cmsgx.recvmsg(s, 10, swap),
        lambda s, swap: cmsgx.recvmsg_into(s, swap),
        lambda s, swap: cmsgx.recv_fds(s, 10, swap),
        lambda s, swap: cmsgx.receive(s, 10, fds=swap),
        lambda s, swap: cmsgx.Receiver(s, 10).receive(timeout=swap),
    ],
)
def test_a_socket_closed_by_its_own_arguments_is_not_another_one(
    stream: Pair, call: Callable[[Any, Any], Any]
) -> None:
    ours, peer = socket.socketpair()
    other, stranger = socket.socketpair()
    swap = Swap(ours, other)
    try:
        stranger.send(b"for somebody else")
        stranger.setblocking(False)
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(ours, swap)
        with pytest.raises(BlockingIOError):
            stranger.recv(10)
        assert other.recv(100) == b"for somebody else"
    finally:
        if swap.number >= 0:
            os.close(swap.number)
        for sock in (ours, peer, other, stranger):
            sock.close()


class Closes:
    """Closes its number when it is freed."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number

    def __del__(self) -> None:
        os.close(self.number)


def test_what_a_generator_made_stays_open_until_it_is_sent(stream: Pair) -> None:
    with open_files(3) as numbers:
        made = (Closes(os.dup(number)) for number in numbers)
        cmsgx.send(stream[0], b"x", fds=made)
        rights = (cmsgx.Rights([Closes(os.dup(number))]) for number in numbers)
        cmsgx.send(stream[0], b"y", control=rights)
        for _ in range(2):
            with cmsgx.receive(stream[1], 1, fds=3) as message:
                assert [content(fd) for fd in message.fds] == ["0", "1", "2"]


class Clears:
    """Empties the list that it is in."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def fileno(self) -> int:
        self.items.clear()
        gc.collect()
        return 0

    def __iter__(self) -> Iterator[int]:
        self.fileno()
        return iter(())

    def __getattr__(self, name: str) -> Any:
        self.fileno()
        raise AttributeError(name)


def test_a_list_that_changes_while_it_is_read(stream: Pair) -> None:
    for call in (
        lambda items: cmsgx.send(stream[0], b"x", fds=items),
        lambda items: cmsgx.send_fds(stream[0], [b"x"], items),
        lambda items: cmsgx.sendmsg(stream[0], [b"x"], items),
        lambda items: cmsgx.send(stream[0], b"x", control=items),
        lambda items: cmsgx.sendmsg(stream[0], items),
        lambda items: cmsgx.recvmsg_into(stream[0], items),
        _cmsg.build,
    ):
        items: list[Any] = []
        items += [Clears(items), *(bytearray(3) for _ in range(20))]
        with pytest.raises((RuntimeError, TypeError, OSError)):
            cast(Any, call)(items)


def test_a_receiver_that_is_used_by_its_own_socket(stream: Pair) -> None:
    class Calls:
        receiver: cmsgx.Receiver | None = None

        def fileno(self) -> int:
            if self.receiver is not None:
                self.receiver.receive()
            return stream[1].fileno()

    sock = Calls()
    sock.receiver = cmsgx.Receiver(sock, 10)
    with pytest.raises(RuntimeError, match="in use"):
        sock.receiver.receive()


# Destructors ----------------------------------------------------------------------------------


def test_a_subclass_with_a_destructor_still_closes() -> None:
    calls = []

    class Noted(cmsgx.Fd):
        def __del__(self) -> None:
            calls.append(self.closed)

    before = open_fds()
    fd: Noted | None = Noted(os.open("/dev/null", os.O_RDONLY))
    assert not calls
    del fd
    gc.collect()
    assert open_fds() == before
    assert calls[0] is False


HANDLER = """
import gc, os, sys, warnings
import cmsgx
from support import open_fds

kept, unraisable = [], []
sys.unraisablehook = lambda args: unraisable.append(args.exc_type.__name__)
warnings.simplefilter("always")

def fd():
    return cmsgx.Fd(os.open("/dev/null", os.O_RDONLY))

def dropped(handler):
    warnings._showwarnmsg = handler
    before = open_fds()
    one = fd()
    del one
    gc.collect()
    return open_fds().keys() - before.keys()
"""


def test_a_warning_handler_that_raises() -> None:
    run_python(
        HANDLER
        + """
for kind in (KeyboardInterrupt, RuntimeError, ResourceWarning):
    def handler(message):
        raise kind("of the handler")
    assert not dropped(handler)
    assert len(list(map(str, range(3)))) == 3
assert unraisable == ["KeyboardInterrupt", "RuntimeError", "ResourceWarning"], unraisable
try:
    one = fd()
    raise LookupError("first")
except LookupError as error:
    del one
    assert str(error) == "first"
"""
    )


def test_a_warning_handler_that_keeps_closes_or_detaches() -> None:
    run_python(
        HANDLER
        + """
assert not dropped(lambda message: kept.append(message.source))
assert kept[0].closed
kept.clear()
assert not dropped(lambda message: message.source.close())
[number] = dropped(lambda message: kept.append(message.source.detach()))
assert kept == [number]
os.close(number)
assert not unraisable
"""
    )


def test_a_message_dropped_while_its_receiver_works() -> None:
    run_python(
        HANDLER
        + """
import socket
first, second = cmsgx.socketpair()
receiver = cmsgx.Receiver(second, 1, fds=2)
caught = []
def handler(message):
    try:
        receiver.receive()
    except BaseException as error:
        caught.append(type(error).__name__)
warnings._showwarnmsg = handler
before = open_fds()
for _ in range(3):
    cmsgx.send(first, b"x", fds=[0, 1])
second.settimeout(0)
next(receiver).take(0)      # nobody holds it: collected with the message, inside of the next step
next(receiver).take(1)
receiver.receive()
gc.collect()
del receiver
gc.collect()
assert open_fds().keys() == before.keys()
assert caught[0] == "RuntimeError", caught
"""
    )


def test_a_fork_hook_that_hands_over_descriptors() -> None:
    skip_where_a_child_cannot_start_threads()
    run_python(
        """
import gc, os
def hook():     # registered before those of cmsgx, so it runs behind their lock
    gc.collect()
    cmsgx.close_in_background(os.open("/dev/null", os.O_RDONLY))
os.register_at_fork(before=hook, after_in_parent=hook)
import cmsgx
from support import open_fds
import warnings
warnings.simplefilter("ignore")
first, second = cmsgx.socketpair()
receiver = cmsgx.Receiver(second, 1, fds=1, close="background")
before = open_fds()
cmsgx.send(first, b"x", fds=[0])
cycle = [receiver.receive()]
cycle.append(cycle)
del cycle
child = os.fork()
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert cmsgx._cmsg.closer_wait(60) == 0
assert open_fds().keys() == before.keys()
""",
        timeout=60,
    )


# Signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["drop-in", "typed", "receiver"])
def test_a_signal_handler_that_closes_the_socket(stream: Pair, kind: str) -> None:
    sock = stream[1]
    sock.settimeout(60)
    receiver = cmsgx.Receiver(sock, 1)
    calls: dict[str, Callable[[], Any]] = {
        "drop-in": lambda: cmsgx.recvmsg(sock, 1),
        "typed": lambda: cmsgx.receive(sock, 1),
        "receiver": receiver.receive,
    }
    before = signal.signal(signal.SIGALRM, lambda number, frame: sock.close())
    try:
        # Repeated, in case it comes just before the wait.
        signal.setitimer(signal.ITIMER_REAL, 0.05, 5)
        with pytest.raises(OSError, match="Bad file descriptor"):
            calls[kind]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# Everything, at random ------------------------------------------------------------------------

FUZZ = '''
"""Calls at random with arguments at random, some of which do mischief while they are read."""
import faulthandler, gc, os, random, socket, sys, warnings
import cmsgx
from cmsgx import _cmsg, kinds, wire
from support import open_fds

faulthandler.dump_traceback_later(60, exit=True)
warnings.simplefilter("ignore")
sys.unraisablehook = lambda *args: None
socket.setdefaulttimeout(0)
R = random.Random(int(sys.argv[1]))
TYPES = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
depth = 0
pool = []


def mischief():
    global depth
    if depth > 2:
        return
    depth += 1
    try:
        what = R.randrange(8)
        if what == 0:
            gc.collect(0)
        elif what == 1 and pool:
            pool.pop(R.randrange(len(pool)))
        elif what == 2:
            raise R.choice([ValueError, KeyboardInterrupt, MemoryError, OSError])("mischief")
        elif what == 3:
            one = pick()
            if isinstance(one, (socket.socket, cmsgx.Fd, cmsgx.Message)):
                one.close()
        elif what == 4:
            step()
        elif what == 5:
            shared[:] = [] if shared else [pick(), pick()]
    finally:
        depth -= 1


class Evil:
    def __index__(self): mischief(); return R.choice([0, 1, 5, -1, 2**40])
    def __float__(self): mischief(); return R.choice([0.0, -1.0, float("nan")])
    def __bool__(self): mischief(); return R.choice([True, False])
    def __eq__(self, other): mischief(); return R.choice([True, False])
    def __hash__(self): mischief(); return 1
    def __repr__(self): mischief(); return "evil"
    def __iter__(self): mischief(); return iter([pick()])
    def fileno(self): mischief(); return R.choice([0, -1, 9999, "x"])


class Noisy(cmsgx.Fd):
    def __repr__(self): mischief(); return "noisy"
    def __del__(self): mischief()


class Whole(kinds.ControlMessage):
    __slots__ = ("x",)
    @classmethod
    def unpack(cls, data): mischief(); return cls(bytes(data))
    def pack(self): mischief(); return R.choice([b"abcd", b"", None])


for numbers in (1, 29), (1, 35):
    kinds._table._received.pop(numbers, None)
kinds.register(Whole, level=1, type=29)
shared = []
KINDS = [cmsgx.Credentials, cmsgx.PidFd, cmsgx.Rights, cmsgx.SecurityLabel, cmsgx.Unknown, Whole]
PLAIN = [0, 1, -1, 2**31, 2**70, True, None, ..., "raise", "keep", b"data", b"", 1.5, int,
         slice(0, 2), shared, socket.MSG_PEEK, socket.MSG_TRUNC, ("127.0.0.1", 9), "\\0name"]
FUNCTIONS = [cmsgx.sendmsg, cmsgx.send_fds, cmsgx.send, cmsgx.receive, cmsgx.send_all, wire.build,
             wire.parse, cmsgx.CMSG_LEN, cmsgx.decode, cmsgx.enable, cmsgx.peer_pidfd,
             _cmsg.read_header]
SKIP = {"detach", "detach_all", "open", "wait", "send_signal", "_give_to_file",
        "_detach_to_socket", "makefile", "sendfile", "accept", "_accept", "__class__",
        "__reduce__", "__reduce_ex__", "__init__", "__setattr__", "dup", "setblocking",
        "settimeout", "__delattr__", "sendmsg_afalg"}


def pair():
    sockets = R.choice([cmsgx.socketpair, socket.socketpair])(socket.AF_UNIX, R.choice(TYPES))
    keep(sockets[0])
    for option in (16, 29, 76):
        sockets[1].setsockopt(1, option, R.randrange(2))
    return sockets[1]


def make():
    sock = lambda: next((one for one in R.sample(pool, len(pool))
                         if isinstance(one, socket.socket)), None) or pair()
    return R.choice([
        pair, Evil, Evil,
        lambda: R.choice([cmsgx.Fd, Noisy])(os.open("/dev/null", os.O_RDONLY)),
        lambda: cmsgx.Rights([pick() for _ in range(R.randrange(4))]),
        cmsgx.Credentials,
        lambda: Whole(pick()),
        lambda: cmsgx.Unknown(R.randrange(300), R.randrange(50), os.urandom(R.randrange(9))),
        lambda: cmsgx.Receiver(sock(), R.randrange(99), fds=R.randrange(8),
                               want=R.sample(KINDS[:3], R.randrange(3)),
                               on_truncation=R.choice(["raise", "keep"]),
                               close=R.choice(["now", "background"])),
        lambda: cmsgx.Receiver(sock(), into=[bytearray(3), bytearray(7)], fds=R.randrange(8)),
        lambda: cmsgx.Receiver.__new__(cmsgx.Receiver),
        lambda: bytearray(R.randrange(99)),
        lambda: [pick() for _ in range(R.randrange(4))],
        lambda: (pick() for _ in range(R.randrange(4))),
        lambda: (R.randrange(3), R.randrange(3), os.urandom(R.randrange(9))),
    ])()


def keep(one):
    if len(pool) > 50:
        pool.pop(R.randrange(len(pool)))
    pool.append(one)


def pick():
    if pool and R.randrange(2):
        return R.choice(pool)
    if R.randrange(3) == 0:
        return R.choice(PLAIN + KINDS)
    one = make()
    keep(one)
    return one


def likely():
    """What often works, so that there are messages to look at."""
    one = pick()
    if isinstance(one, socket.socket):
        if R.randrange(2):
            fds = [R.choice([0, 0, 0, pick()]) for _ in range(R.randrange(5))]
            cmsgx.send(one, os.urandom(R.randrange(30)), fds=fds)
        else:
            keep(cmsgx.receive(one, 20, fds=R.randrange(6), on_truncation="keep"))
    elif isinstance(one, cmsgx.Receiver):
        keep(R.choice([one.receive, lambda: next(one)])())


def step():
    what = R.randrange(10)
    if what < 4:
        likely()
    elif what < 7:
        arguments = [pick() for _ in range(R.randrange(6))]
        if arguments and not isinstance(arguments[0], int):
            function = R.choice(FUNCTIONS)
            names = [R.choice(["flags", "fds", "control", "address", "on_truncation"])]
            keywords = {name: pick() for name in names if R.randrange(3) == 0}
            if function in (cmsgx.send, cmsgx.receive, cmsgx.send_all):
                keywords["timeout"] = 0
            keep(function(*arguments, **keywords))
    else:
        one = pick()
        if type(one).__module__.partition(".")[0] in ("cmsgx", "__main__"):
            name = R.choice([name for name in dir(type(one)) if name not in SKIP])
            found = getattr(one, name)
            if callable(found):
                if name == "receive":
                    found = found(timeout=0)
                elif name == "recv_fds":
                    numbers = found(10, R.randrange(3))[1]
                    found = [cmsgx.Fd(number) for number in numbers]
                elif isinstance(one, socket.socket) and name.startswith("recvmsg"):
                    return
                else:
                    found = found(*[pick() for _ in range(R.choice([0, 0, 1, 1, 2]))])
            keep(found)


os.chdir(sys.argv[3])  # where bind("keep") makes a socket
before = open_fds()
outcomes = {}
for _ in range(int(sys.argv[2])):
    try:
        step()
    except (RecursionError, StopIteration):
        pass
    except SystemError:
        raise
    except BaseException as error:
        outcomes[type(error).__name__] = outcomes.get(type(error).__name__, 0) + 1
depth = 99  # no more mischief
pool.clear()
shared.clear()
gc.collect()
gc.collect()
_cmsg.closer_wait(60)
after = open_fds()
assert after.keys() == before.keys(), sorted(after.items())
print(len(outcomes))
'''


@pytest.mark.parametrize("calls", lengths("CMSGX_FUZZ_CALLS", 8000, 80_000))
@pytest.mark.slow
def test_random_calls_neither_crash_nor_leak(calls: int, tmp_path: Path) -> None:
    timeout = 60 + calls / 100
    assert int(run_python(FUZZ, "1", str(calls), str(tmp_path), timeout=timeout)) > 5
