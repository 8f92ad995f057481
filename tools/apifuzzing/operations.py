"""What is done to the objects of the world, one operation after the other."""

from __future__ import annotations

import array
import faulthandler
import gc
import inspect
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cmsgx
from cmsgx import errors, kinds, wire
from cmsgx.kinds import Option, WireFormat

from apifuzzing.arguments import a_dup, anything, arguments, some_kinds, wrapped
from apifuzzing.journal import finding, note
from apifuzzing.mischief import DEPTH, HostileSocket, close_something, lift_the_limit, set_a_limit
from apifuzzing.world import WORLD, Interrupt

FORK_HANG = 100

UNIX_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
CARRIERS = {getattr(cmsgx._cmsg, name) for name in ("SCM_RIGHTS", "SCM_PIDFD") if hasattr(cmsgx._cmsg, name)}

# Not called, or not as they come; why.
EXCLUDED = {
    "register": "a kind stays registered for good",
    "own": "takes over any number: only of numbers that were made for it",
    "uninstall": "done together with install()",
    "settimeout": "a child must not wait for ever",
    "setblocking": "a child must not wait for ever",
}
# Give or take plain numbers, which an exception that comes between loses, as documented; or are the
# standard library's, which loses some itself. A signal handler that raises keeps out of these.
UNARMED = {
    "recvmsg", "recvmsg_into", "recv_fds", "detach", "detach_all", "Fd", "PidFd",
    "close_in_background", "socketpair", "fromfd", "socket", "accept", "dup", "makefile",
}  # fmt: skip


FUNCTIONS: list[tuple[str, Any]] = [
    (name, value)
    for module in (cmsgx, wire, kinds, errors)
    for name in module.__all__
    if callable(value := getattr(module, name)) and name not in EXCLUDED
]
# What is called most: where descriptors and memory move.
CORE = [
    (name, value)
    for name, value in FUNCTIONS
    if any(word in name.lower() for word in ("send", "rec", "batch", "group", "zerocopy", "enable", "share", "parse"))
    and not name.endswith("Error")
]
SPECIAL_METHODS = (
    "__getitem__", "__iter__", "__len__", "__repr__", "__hash__", "__eq__", "__contains__", "__enter__", "__exit__",
    "__next__", "__init__", "__reduce_ex__", "__copy__", "__deepcopy__", "__setattr__", "__delattr__", "__bytes__",
    "__str__", "__bool__", "__lt__", "__index__", "__format__", "__dir__", "__sizeof__",
)  # fmt: skip


def call(name: str, function: Any, args: list[Any], keywords: dict[str, Any]) -> None:
    """One call: a result is kept, an exception is looked at."""
    note(name, args, keywords)
    before = WORLD.armed
    result: Any = None
    try:
        WORLD.armed = name not in UNARMED
        result = function(*args, **keywords)
    except Interrupt:
        WORLD.armed = before
        if before:  # of a call out of a call: on to the outer one
            raise
        return
    except BaseException as error:
        WORLD.armed = before
        look_at(error)
        return
    WORLD.armed = False
    if name in ("recvmsg", "recvmsg_into", "recv_fds", "detach", "detach_all"):
        close_numbers(result)
    else:
        WORLD.keep(result)
    WORLD.armed = before


def look_at(error: BaseException) -> None:
    if isinstance(error, (SystemError, NameError, AssertionError)) and not is_of_cpython(error):
        finding(f"{type(error).__name__}: {error}", error)
    message = getattr(error, "message", None)
    if message is not None:
        WORLD.keep(message)
    error.__traceback__ = None


def is_of_cpython(error: BaseException) -> bool:
    """iter() of a memoryview that was released gives an iterator, and sets an exception."""
    return "function iter> returned" in str(error) or "'__iter__' of memoryview" in str(error)


def close_numbers(result: Any) -> None:
    """Of what a drop-in gave, or an owner gave away: plain numbers, which nobody owns."""
    numbers = array.array("i")
    if isinstance(result, int):
        numbers.append(result)
    elif isinstance(result, list):
        numbers.extend(result)
    elif isinstance(result, tuple) and len(result) == 4:
        for item in result[1]:
            if isinstance(item, int):
                numbers.append(item)
            elif item[0] == socket.SOL_SOCKET and item[1] in CARRIERS:
                numbers.frombytes(item[2][: len(item[2]) // 4 * 4])
    for number in numbers:
        if number >= 0:
            os.close(number)


def call_a_function() -> None:
    name, function = WORLD.chance.choice(CORE if WORLD.chance.random() < 0.6 else FUNCTIONS)
    if name == "install":
        install_and_uninstall()
        return
    args, keywords = arguments(name, function)
    call(name, function, args, keywords)


def call_a_method() -> None:
    chance = WORLD.chance
    thing = WORLD.pick(WORLD.any_pool())
    if not is_ours(thing):
        return
    if chance.random() < 0.25:
        name = chance.choice(SPECIAL_METHODS)
    else:
        names = [name for name in dir(thing) if not name.startswith("_")]
        if not names:
            return
        name = chance.choice(names)
    if name in EXCLUDED or (name == "close" and chance.random() < 0.7):
        return
    if name == "__init__" and isinstance(thing, (socket.socket, cmsgx._cmsg.FdBase, Option, WireFormat)):
        return  # an option and a wire format stay in the table of kinds, with what is put there
    if name in ("__setattr__", "__delattr__") and isinstance(thing, (int, type)):
        return  # a member of an enumeration lives on, with what is put there
    if name == "__setattr__":
        call(name, setattr, [thing, chance.choice(dir(thing)), anything()], {})
        return
    if name == "__delattr__":
        call(name, delattr, [thing, chance.choice(dir(thing))], {})
        return
    found: list[Any] = []
    call("get " + name, lambda: found.append(getattr(thing, name)), [], {})
    if not found:
        return
    function = found[0]
    if not callable(function) or inspect.isclass(function):
        WORLD.keep(function)
        return
    if name.startswith("__"):
        args = [anything() for _ in range(chance.choice((0, 0, 0, 1, 1, 1, 2, 3)))]
        if name in ("__iter__", "__len__", "__repr__", "__hash__", "__next__", "__enter__"):
            args = []
        elif name == "__getitem__":
            args = [wrapped(chance.choice((0, -1, 1, 5, slice(None), slice(0, 3), cmsgx.Credentials, cmsgx.Rights)))]
        elif name == "__init__":
            args, keywords = arguments(type(thing).__name__, type(thing))
            call(name, function, args, keywords)
            return
        call(name, function, args, {})
    else:
        args, keywords = arguments(name, function)
        call(name, function, args, keywords)


def is_ours(thing: Any) -> bool:
    """Of cmsgx, or a socket: bytearray.split() and others of CPython read what a hostile buffer frees."""
    module = type(thing).__module__ or ""
    return isinstance(thing, socket.socket) or module.startswith("cmsgx")


def iterate() -> None:
    """What yields things, some steps long."""
    chance = WORLD.chance
    thing = WORLD.pick(chance.choice(("iterator", "receiver", "message", "batch", "thing", "buffer")))
    if thing is None or isinstance(thing, memoryview):
        return  # one that was released gives an iterator and sets an exception: is_of_cpython()
    steps = chance.randrange(1, 4)

    def step() -> None:
        for index, item in enumerate(iter(thing)):
            WORLD.keep(item)
            if index >= steps:
                break

    call("iterate", step, [], {})


def traffic() -> None:
    """What is right, so that there is something to receive."""
    chance = WORLD.chance
    sock = WORLD.pick("sock")
    if sock is None:
        return
    files = [fd for fd in WORLD.pools["fd"] if not fd.closed][: chance.choice((0, 0, 1, 2, 3))]
    files *= chance.choice((1, 1, 1, 30))
    if chance.random() < 0.5:
        call("send", cmsgx.send, [sock, bytes(chance.choice((1, 10, 300)))], {"fds": files})
    elif chance.random() < 0.5:
        call("send_batch", cmsgx.send_batch, [sock, [(b"one", files), b"two", b"three"]], {})
    else:
        call("sendto", sock.send, [b"x"], {})


def receive() -> None:
    """What is right, and what can be done with what came."""
    chance = WORLD.chance
    sock = WORLD.pick("sock")
    luck = chance.random()
    if luck < 0.3:
        keywords = {"fds": chance.choice((0, 1, 3, 253)), "on_truncation": chance.choice(("keep", "raise"))}
        call("receive", cmsgx.receive, [sock, chance.choice((1, 100, 1000))], keywords)
    elif luck < 0.6:
        receiver = WORLD.pick("receiver")
        if receiver is not None:
            call("receiver.receive", receiver.receive, [], {"timeout": 0})
    elif luck < 0.7:
        call("recvmsg", cmsgx.recvmsg, [sock, 100, chance.choice((0, 24, 100, 1100))], {})
    elif luck < 0.8:
        call("recv_fds", cmsgx.recv_fds, [sock, 100, chance.choice((0, 1, 3, 253))], {})
    elif luck < 0.9:
        call("Receiver", cmsgx.Receiver, [sock, 1000], {
            "fds": chance.choice((0, 2, 253)), "want": some_kinds(), "close": chance.choice(("now", "background")),
            "on_truncation": "keep",
        })  # fmt: skip
    else:
        call("BatchReceiver", cmsgx.BatchReceiver, [sock, 8, 200], {"fds": 3, "want": some_kinds()})
    for _ in range(3):
        call_a_method()


def new_things() -> None:
    """More sockets and files, by numbers that are given over at once."""
    chance = WORLD.chance
    luck = chance.random()
    armed, WORLD.armed = WORLD.armed, False  # plain numbers are not lost here
    try:
        make_new(luck)
    finally:
        WORLD.armed = armed


def make_new(luck: float) -> None:
    if luck < 0.4:
        add_pair()
    elif luck < 0.7:
        add_file()
    elif luck < 0.8:
        call("close_in_background", cmsgx.close_in_background, [a_dup()], {})
    elif luck < 0.9:
        numbers = array.array("i", [a_dup()]).tobytes()
        unowned = cmsgx.Rights.unpack(numbers)
        WORLD.keep(unowned.own())
        call("own again", unowned.own, [], {})
    else:
        call("peer_pidfd", cmsgx.peer_pidfd, [WORLD.pick("sock")], {})


def blocked() -> None:
    """A call that waits, out of which a signal handler raises."""
    chance = WORLD.chance
    if threading.current_thread() is not threading.main_thread() or WORLD.depth or WORLD.is_forked:
        return  # other threads hear of no signal
    sock = WORLD.pick("sock")
    if sock is None or sock.fileno() < 0:
        return
    receiver = WORLD.pick("receiver")
    choices: list[tuple[str, Any, list[Any], dict[str, Any]]] = [
        ("receive", cmsgx.receive, [sock, 100], {"fds": 3, "timeout": None}),
        ("send", cmsgx.send, [sock, bytes(100_000)], {"fds": [0], "timeout": None}),
        ("send_all", cmsgx.send_all, [sock, bytes(500_000)], {"fds": [0], "timeout": None}),
        ("send_batch", cmsgx.send_batch, [sock, [b"x" * 9000] * 50], {"timeout": None}),
    ]
    if receiver is not None:
        choices.append(("receiver.receive", receiver.receive, [], {"timeout": None}))
    name, function, args, keywords = chance.choice(choices)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    try:
        call(name, function, args, keywords)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def fork() -> None:
    """A child that uses and closes what it inherited, and has to end."""
    if not WORLD.may_fork or WORLD.depth:
        return
    note("fork", [], {})
    pid = os.fork()
    if pid == 0:
        WORLD._armed = False
        WORLD.is_forked = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs
        signal.alarm(FORK_HANG)
        WORLD.may_fork = False
        try:
            for _ in range(5):
                operate()
            for pool in list(WORLD.pools.values()):
                for thing in pool[:]:
                    with suppress(Exception):
                        thing.close()
                pool.clear()
            gc.collect()
        finally:
            os._exit(0)
    armed, WORLD.armed = WORLD.armed, False
    status = os.waitpid(pid, 0)[1]
    WORLD.armed = armed
    if status:
        finding(f"a forked child ended with {os.waitstatus_to_exitcode(status)}")


def install_and_uninstall() -> None:
    note("install", [], {})
    if threading.current_thread() is not threading.main_thread():
        return
    with suppress(RuntimeError):
        cmsgx.install(cloexec=WORLD.chance.random() < 0.5)
    if WORLD.depth < DEPTH:
        WORLD.depth += 1
        try:
            operate()
        finally:
            WORLD.depth -= 1
    with suppress(RuntimeError):
        cmsgx.uninstall()


def limit() -> None:
    set_a_limit()
    try:
        for _ in range(3):
            traffic()
            receive()
    finally:
        lift_the_limit()


OPERATIONS: list[tuple[float, Callable[[], object]]] = [
    (22, traffic), (20, receive), (30, call_a_function), (25, call_a_method), (6, iterate), (4, new_things),
    (0.4, blocked), (0.12, fork), (0.5, limit), (0.3, gc.collect), (2, close_something),
]  # fmt: skip
_OP_WEIGHTS = [weight for weight, _ in OPERATIONS]
_OPERATIONS = [act for _, act in OPERATIONS]


def operate() -> None:
    try:
        WORLD.chance.choices(_OPERATIONS, _OP_WEIGHTS)[0]()
    except Interrupt:
        if WORLD.depth:
            raise
    except Exception as error:
        look_at(error)  # of making arguments


WORLD.operate = operate


def add_pair() -> None:
    chance = WORLD.chance
    luck = chance.random()
    with suppress(OSError):
        if luck < 0.6:
            pair = list(cmsgx.socketpair(socket.AF_UNIX, chance.choice(UNIX_TYPES)))
            if luck < 0.05:
                pair = [HostileSocket(fileno=sock.detach()) for sock in pair]
        else:
            pair = connected(socket.SOCK_DGRAM if luck < 0.8 else socket.SOCK_STREAM)
        for sock in pair:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        WORLD.keep(pair)


def connected(kind: int) -> list[Any]:
    """A pair over the loopback device."""
    with socket.socket(socket.AF_INET, kind) as first:
        first.bind(("127.0.0.1", 0))
        one = cmsgx.socket(socket.AF_INET, kind)
        if kind == socket.SOCK_DGRAM:
            two = cmsgx.socket(socket.AF_INET, kind)
            two.bind(("127.0.0.1", 0))
            one.connect(two.getsockname())
            cmsgx.enable(one, kinds.ExtendedError)
            return [one, two]
        first.listen()
        one.connect(first.getsockname())
        return [one, cmsgx.socket(fileno=first.accept()[0].detach())]


def add_file() -> None:
    luck = WORLD.chance.random()
    with suppress(OSError):
        if luck < 0.4:
            WORLD.keep(cmsgx.Fd(os.memfd_create("apifuzz")))
        elif luck < 0.6:
            WORLD.keep(cmsgx.share(b"shared"))
        elif luck < 0.8:
            WORLD.keep([cmsgx.Fd(number) for number in os.pipe()])
        else:
            WORLD.keep(cmsgx.PidFd(os.pidfd_open(os.getpid())))
