"""What C takes from the Python layer: everything in one call, before which nothing works
halfway."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest
from support import run_python
from test_interpreters import OWN_GIL

import cmsgx

NAMES = tuple(inspect.signature(cmsgx._cmsg.bind).parameters)
FUNCTIONS = NAMES[NAMES.index("decode") :]
UNBOUND = "not bound to the Python layer: import cmsgx"


def bare() -> Any:
    """A module object that was not bound, as from an import of the extension alone."""
    name, path = "cmsgx._cmsg", cmsgx._cmsg.__file__
    assert path is not None
    loader = importlib.machinery.ExtensionFileLoader(name, path)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def objects_for(c: Any) -> dict[str, Any]:
    """A valid object for each name."""
    bases: dict[str, Any] = {
        "Fd": c.FdBase, "PidFd": c.FdBase, "Rights": c.Record, "Credentials": c.Struct,
        "Unknown": c.Record, "IPAddress": c.IP, "Outgoing": tuple, "BatchResult": int,
        "socket_class": socket.socket, "our_socket": socket.socket, "TooManyFdsError": ValueError,
        "MalformedControlError": ValueError, "NotSupportedError": OSError,
    }  # fmt: skip
    classes = {name: type(name, (base,), {}) for name, base in bases.items()}
    return {**classes, **dict.fromkeys(FUNCTIONS, print)}


# The call -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_out", NAMES)
def test_one_that_is_missing_is_named_and_nothing_is_taken(left_out: str) -> None:
    c = bare()
    objects = objects_for(c)
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(TypeError, match=f"^bind: missing: {left_out}$"):
            c.bind(**{name: value for name, value in objects.items() if name != left_out})
        left.send(b"x")
        with pytest.raises(RuntimeError, match=UNBOUND):
            c.receive(right, 1)
        c.bind(**objects)
        assert c.receive(right, 1).data == b"x"


def test_all_that_are_missing_are_named() -> None:
    with pytest.raises(TypeError, match=f"^bind: missing: {', '.join(NAMES)}$"):
        bare().bind()


def test_one_that_is_unknown_is_named() -> None:
    c = bare()
    with pytest.raises(TypeError, match=r"^bind: unknown argument 'Other'$"):
        c.bind(**objects_for(c), Other=1)


def test_nothing_is_given_by_position() -> None:
    with pytest.raises(TypeError, match=r"^bind: all arguments are keyword-only$"):
        bare().bind(1)


@pytest.mark.parametrize("wrong", [1, None, str, socket], ids=repr)
@pytest.mark.parametrize("name", NAMES)
def test_one_of_the_wrong_sort_is_named_and_nothing_is_taken(name: str, wrong: Any) -> None:
    c = bare()
    if (callable(wrong) and name in FUNCTIONS) or (wrong is str and name == "our_socket"):
        return  # it can be called; any class is accepted
    what = "a callable" if name in FUNCTIONS else "a subclass of [a-zA-Z_.]+"
    with pytest.raises(TypeError, match=f"^{name}: {what} is needed, not "):
        c.bind(**objects_for(c) | {name: wrong})
    with pytest.raises(RuntimeError, match=UNBOUND):
        c.memfd_create("x", 0)


def test_it_is_done_once() -> None:
    c = bare()
    c.bind(**objects_for(c))
    with pytest.raises(RuntimeError, match=r"^bind: already called; it can be called only once$"):
        c.bind(**objects_for(c))
    with pytest.raises(RuntimeError, match=r"^bind: already called"):
        cmsgx._cmsg.bind()  # type: ignore[call-arg]


# Before the call ----------------------------------------------------------------------------------


def a_kind(c: Any) -> Any:
    """A kind whose payload is an IPv4 address."""
    kind: Any = type("Kind", (c.Struct,), {"__slots__": ()})
    field = c.Field("ip", 0, "a")
    type.__setattr__(kind, "ip", field)
    type.__setattr__(kind, "_codec", c.Codec(kind, (), 4, 4, (field,)))
    return kind


class Foreign:
    """A library's socket, with its own recvmsg()."""

    def __init__(self, sock: Any) -> None:
        self.fileno = sock.fileno

    def recvmsg(self, *args: Any) -> Any:
        raise AssertionError("not reached")

    recvmsg_into = sendmsg = recvmsg


UNKNOWN_ITEM = (socket.SOL_SOCKET, 999, b"1234")

Call = Callable[[Any, Any], Any]
REFUSED: dict[str, Call] = {
    "receive": lambda c, pair: c.receive(pair[1], 1),
    "receive, a number": lambda c, pair: c.receive(pair[1].fileno(), 1, fds=3, close="background"),
    "memfd_create": lambda c, pair: c.memfd_create("x", 0),
    "getsockopt_pidfd": lambda c, pair: c.getsockopt_pidfd(pair[0], 1, 77),
    "recvmsg, foreign": lambda c, pair: c.recvmsg(Foreign(pair[1]), 1, 100),
    "recv_fds, foreign": lambda c, pair: c.recv_fds(Foreign(pair[1]), 1, 1),
    "a field from an address": lambda c, pair: a_kind(c)("1.2.3.4"),
    "an address from a field": lambda c, pair: a_kind(c)(b"1234").ip,
}  # fmt: skip
# These raise an exception of cmsgx.errors, or call the function that words it.
RAISED: dict[str, Call] = {
    "too many descriptors": lambda c, pair: c.send(pair[0], b"x", fds=[0] * 254),
    "fds": lambda c, pair: c.receive(pair[0], 1, fds=254),
    "malformed": lambda c, pair: a_kind(c).unpack(b"1"),
    "refused by the kernel": lambda c, pair: c.send(pair[0], b"x", control=[UNKNOWN_ITEM]),
}
WORKS: dict[str, Call] = {
    "send": lambda c, pair: c.send(pair[0], b"x", fds=[0]),
    "send_batch": lambda c, pair: c.send_batch(pair[0], [b"x", b"y"]),
    "sendmsg, recvmsg": lambda c, pair: (c.sendmsg(pair[0], [b"x"]), c.recvmsg(pair[1], 1, 100)),
    "FdBase": lambda c, pair: c.FdBase(os.dup(0)).close(),
    "build": lambda c, pair: c.build([(1, 1, b"")]),
    "a kind": lambda c, pair: a_kind(c)(b"1234"),
    "close": lambda c, pair: (c.closer_submit(os.dup(0)), c.closer_wait(None)),
}


@pytest.fixture
def ends() -> Any:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED)
def test_what_needs_a_class_is_refused_before(call: Call, ends: Any) -> None:
    with pytest.raises(RuntimeError, match=UNBOUND):
        call(bare(), ends)


@pytest.mark.parametrize("call", RAISED.values(), ids=RAISED)
def test_what_raises_an_exception_of_the_package_is_a_runtime_error_before(
    call: Call, ends: Any
) -> None:
    with pytest.raises(RuntimeError):
        call(bare(), ends)


@pytest.mark.parametrize("call", WORKS.values(), ids=WORKS)
def test_what_needs_none_works_before(call: Call, ends: Any) -> None:
    call(bare(), ends)


def test_receivers_of_either_sort_are_refused_before(ends: Any) -> None:
    c = bare()
    for base in (c.Receiver, c.BatchReceiver):
        with pytest.raises((RuntimeError, TypeError, AttributeError)):
            base(ends[1], 10).receive()


def test_an_interpreter_in_which_it_is_not_bound_refuses_and_ends() -> None:
    """In the main interpreter, and in a separate one while it is bound in another."""
    code = f"""
import socket, sys
sys.path[:0] = {[*__import__("sys").path]!r}
from test_bind import REFUSED, RAISED, WORKS, bare
for calls in (REFUSED, RAISED):
    for name, call in calls.items():
        left, right = socket.socketpair()
        with left, right:
            try:
                call(bare(), (left, right))
            except RuntimeError:
                continue
        raise AssertionError(name)
for call in WORKS.values():
    left, right = socket.socketpair()
    with left, right:
        call(bare(), (left, right))
"""
    run_python(code)
    alone = f"""
import importlib.machinery, importlib.util, socket
path = {cmsgx._cmsg.__file__!r}
loader = importlib.machinery.ExtensionFileLoader("cmsgx._cmsg", path)
spec = importlib.util.spec_from_file_location("cmsgx._cmsg", path, loader=loader)
c = importlib.util.module_from_spec(spec)
loader.exec_module(c)
left, right = socket.socketpair()
for call in (lambda: c.receive(right, 1), lambda: c.memfd_create("x", 0)):
    try:
        call()
    except RuntimeError as error:
        assert {UNBOUND!r} in str(error), error
    else:
        raise AssertionError(call)
left.close(), right.close()
"""
    run_python(f"{OWN_GIL}\nimport cmsgx\nfor _ in range(2):\n"
               f"    one = make()\n    run(one, {alone!r})\n    destroy(one)\n")  # fmt: skip
