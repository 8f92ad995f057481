"""Which socket a call uses: replaced methods, and replaced classes."""

from __future__ import annotations

import functools
import os
import socket
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from memory import each_allocation_fails, without_other_threads
from overriding import METHODS, patched
from support import installed, run_python

import cmsgx

FUNCTIONS = ("send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE")


# install() --------------------------------------------------------------------------------------


def standing() -> list[Any]:
    return [
        *(vars(socket.socket).get(name) for name in METHODS),
        *(getattr(socket, name) for name in FUNCTIONS),
    ]


@pytest.mark.parametrize("name", METHODS)
def test_install_where_a_patch_was_undone(name: str) -> None:
    """It is socket's own method again, but now in the dictionary of the class."""
    original = getattr(socket.socket, name)
    clean = standing()
    with patched(socket.socket, **{name: original}):
        before = standing()
        with installed():
            assert getattr(socket.socket, name) is not original
        assert standing() == before
        assert getattr(socket.socket, name) is original
    assert standing() == clean


def test_install_where_a_function_was_put_back_that_was_patched_when_cmsgx_came() -> None:
    code = """
import socket
kept = socket.send_fds
socket.send_fds = lambda *args: kept(*args)
import cmsgx
try:
    cmsgx.install()
except RuntimeError as error:
    print(error)
socket.send_fds = kept
cmsgx.install()
assert socket.send_fds is not kept
cmsgx.uninstall()
assert socket.send_fds is kept
"""
    assert "socket.send_fds was patched by something else" in run_python(code)


def test_several_threads_install_and_uninstall_at_once() -> None:
    before = standing()
    errors: list[BaseException] = []

    def toggle() -> None:
        try:
            for i in range(100):
                cmsgx.install(cloexec=bool(i % 2))
                cmsgx.uninstall()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=toggle) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
        cmsgx.uninstall()
    assert errors == []
    assert standing() == before


@pytest.mark.parametrize("inner", [cmsgx.install, cmsgx.uninstall])
@pytest.mark.parametrize("outer", [cmsgx.install, cmsgx.uninstall])
def test_a_signal_handler_in_the_middle_of_either_cannot_call_either(
    inner: Callable[[], None], outer: Callable[[], None]
) -> None:
    before = standing()

    def trace(frame: Any, event: str, argument: object) -> Any:
        if frame.f_code.co_name == "_is_ours":
            sys.settrace(None)
            inner()

    cmsgx.install()
    sys.settrace(trace)
    try:
        with pytest.raises(RuntimeError, match="while one of them was running"):
            outer()
    finally:
        sys.settrace(None)
        cmsgx.uninstall()
    assert standing() == before


def test_uninstall_where_a_patch_over_it_was_undone() -> None:
    clean = standing()
    original = socket.socket.sendmsg
    for undo in ("ours", "socket's own", "deleted"):
        cmsgx.install()
        ours = socket.socket.sendmsg
        kind: Any = socket.socket
        kind.sendmsg = functools.partialmethod(ours)
        with pytest.raises(RuntimeError, match=r"socket\.sendmsg was patched"):
            cmsgx.uninstall()
        if undo == "deleted":
            del kind.sendmsg
        else:
            kind.sendmsg = ours if undo == "ours" else original
        cmsgx.uninstall()
        if undo == "socket's own":
            del kind.sendmsg  # it must not remove what it found there
        assert standing() == clean


def test_a_subclass_in_place_of_socket_socket_is_not_an_obstacle() -> None:
    """As with PySocks and pytest-socket: all classes find what is installed."""
    clean = standing()

    class Guarded(socket.socket):
        pass

    library, module = socket.socket, vars(socket)
    module["socket"] = Guarded
    try:
        cmsgx.install()
    finally:
        module["socket"] = library
    try:
        assert vars(library)["sendmsg"] is Guarded.sendmsg
        assert vars(Guarded).keys().isdisjoint(METHODS)
    finally:
        cmsgx.uninstall()
    assert standing() == clean


class Interrupted(BaseException):
    pass


@contextmanager
def interruption(line: int) -> Iterator[list[int]]:
    """Raises before the line-th executed line of the code that changes something."""
    count = [0]

    def trace(frame: Any, event: str, arg: Any) -> Any:
        if frame.f_code.co_name.lstrip("_") not in ("install", "uninstall", "change", "put"):
            return None
        if event == "line":
            count[0] += 1
            if count[0] == line:
                sys.settrace(None)
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    except Interrupted:
        pass
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("call", ["install", "switch over", "uninstall"])
def test_an_interrupted_call_leaves_all_or_nothing(call: str) -> None:
    """As a signal handler may raise between any two steps."""
    clean = standing()
    calls: dict[str, Callable[[], None]] = {
        "install": cmsgx.install,
        "switch over": functools.partial(cmsgx.install, cloexec=False),
        "uninstall": cmsgx.uninstall,
    }
    line = 0
    while True:
        line += 1
        assert line < 1000
        if call != "install":
            cmsgx.install()
        before = standing()
        with interruption(line) as count:
            calls[call]()
        after = standing()
        changed = [old is not new for old, new in zip(before, after, strict=True)]
        if call == "switch over":
            # What does not depend on it stays in any case: sendmsg, and the functions that have
            # only one form.
            changed = [changed[i] for i in (1, 2, 3, 4)]
        assert len(set(changed)) == 1, (line, changed)
        cmsgx.install()
        cmsgx.install(cloexec=False)
        cmsgx.uninstall()
        assert standing() == clean
        if count[0] < line:
            break
    assert line > 10


@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="a list display that finds no memory crashes a free-threaded CPython 3.13 by itself",
)
@without_other_threads
def test_nor_does_a_call_that_runs_out_of_memory() -> None:
    clean = standing()

    def call() -> bool:
        try:
            cmsgx.install()
            cmsgx.uninstall()
        except AttributeError as error:
            # CPython 3.13 does this if setattr() of a class finds no memory.
            raise MemoryError from error
        return True

    for _ in each_allocation_fails(call):
        assert len({old is new for old, new in zip(clean, standing(), strict=True)}) == 1
        cmsgx.uninstall()
        assert standing() == clean
        cmsgx.install()
        assert not any(old is new for old, new in zip(clean, standing(), strict=True))
        cmsgx.uninstall()
        assert standing() == clean


# A class that holds a socket stands as socket.socket, as gevent's and eventlet's do -------------

HOLDER = """
import errno, os, socket, sys
import _socket
real = socket.socket
class Holder:
    def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
        self._sock = real(family, type, proto, fileno)
        self._sock.setblocking(False)
    def __getattr__(self, name):
        return getattr(self._sock, name)
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self._sock.close()
    def sendmsg(self, *args):
        calls.append("sendmsg")
        return self._sock.sendmsg(*args)
    def recvmsg(self, *args):
        calls.append("recvmsg")
        return self._sock.recvmsg(*args)
    def recvmsg_into(self, *args):
        calls.append("recvmsg_into")
        return self._sock.recvmsg_into(*args)
    def accept(self):
        number, address = self._sock._accept()
        return Holder(self._sock.family, self._sock.type, self._sock.proto, number), address
def socketpair(family=None, type=socket.SOCK_STREAM, proto=0):
    family = socket.AF_UNIX if family is None else family
    pair = _socket.socketpair(family, type, proto)
    return [Holder(family, type, proto, raw.detach()) for raw in pair]
def fromfd(fd, family, type, proto=0):
    return Holder(family, type, proto, os.dup(fd))
calls = []
def patch():
    socket.socket, socket.socketpair, socket.fromfd = Holder, socketpair, fromfd
def refused(error, text, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as caught:
        assert text in str(caught), caught
    else:
        raise AssertionError(f"{call} was not refused")
"""


def test_such_a_class_before_the_import_is_what_cmsgx_socket_derives_from() -> None:
    code = """
patch()
import cmsgx
assert cmsgx.socket.__mro__[1] is Holder
a, b = cmsgx.socketpair()
with a, b:
    assert type(a) is type(b) is cmsgx.socket
    # Its methods, and the functions by them.
    a.sendmsg([b"1"]); cmsgx.sendmsg(a, [b"2"])
    a.send_fds([b"3"], [0]); cmsgx.send_fds(a, [b"4"], [0])
    assert b.recvmsg(1)[0] + cmsgx.recvmsg(b, 1)[0] == b"12"
    for receive in (b.recv_fds, lambda *args: cmsgx.recv_fds(b, *args)):
        [number] = receive(1, 1)[1]
        assert not os.get_inheritable(number)
        os.close(number)
    assert calls == ["sendmsg"] * 4 + ["recvmsg"] * 4, calls
    # Typed calls take it as a number, and never wait.
    cmsgx.send(a, b"x", fds=[0])
    cmsgx.send_all(a, b"y")
    cmsgx.send_batch(a, [b"z"])
    with cmsgx.receive(b, 1, fds=1) as message:
        assert message.data == b"x" and len(message.fds) == 1
    assert [message.data for message in cmsgx.BatchReceiver(b, 2, 1).receive()] == [b"y", b"z"]
    receiver = cmsgx.Receiver(b, 1, want=[cmsgx.Credentials])
    os.set_blocking(b.fileno(), True)
    for call in (receiver.receive, lambda **more: cmsgx.receive(b, 1, **more),
                 cmsgx.BatchReceiver(b, 1, 1).receive):
        for more in ({}, {"timeout": None}, {"timeout": 100}):
            refused(BlockingIOError, "", call, **more)
    try:
        while True:
            cmsgx.send(a, bytes(1 << 16), timeout=100)
    except BlockingIOError:
        pass
    refused(ValueError, "timeout: -1", cmsgx.receive, b, 1, timeout=-1)
    with cmsgx.socket(socket.AF_INET, socket.SOCK_STREAM) as listener, \\
            cmsgx.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
        listener.bind(("127.0.0.1", 0)); listener.listen()
        client.setblocking(True)
        client.connect(listener.getsockname())
        client.setblocking(False)
        sender = cmsgx.ZeroCopySender(client)
        try:
            while True:
                sender.send(bytes(1 << 16), timeout=100)
        except BlockingIOError:
            sender.release()
    # The class below it that has a way of its own, and any other of that kind.
    class Secret(cmsgx.socket):
        def send(self, data): ...
        def recvmsg(self, *args): ...
    secret = Secret(socket.AF_UNIX)
    refused(TypeError, "Secret has a send() of its own", cmsgx.send, secret, b"x")
    refused(TypeError, "Secret has a recvmsg() of its own", cmsgx.Receiver, secret, 1)
    other = Holder(socket.AF_UNIX)
    for call in (lambda: cmsgx.send(other, b"x"), lambda: cmsgx.Receiver(other, 1)):
        refused(TypeError, ".fileno()", call)
    secret.close(); other.close()
    # All that makes sockets.
    with cmsgx.fromfd(a.fileno(), a.family, a.type) as copy:
        assert type(copy) is cmsgx.socket and copy.fileno() != a.fileno()
with cmsgx.socket(socket.AF_UNIX) as listener, cmsgx.socket(socket.AF_UNIX) as client:
    listener.bind(b"\\0cmsgx-test-holder"); listener.listen()
    client.connect(b"\\0cmsgx-test-holder")
    accepted, _ = listener.accept()
    with accepted:
        assert type(accepted) is cmsgx.socket
        fd = cmsgx.Fd(os.dup(accepted.fileno()))
        with fd.socket() as owner:
            assert type(owner) is cmsgx.socket and fd.closed
            cmsgx.send(owner, b"x")
assert cmsgx.segment_support(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) in (0, 64, 128)
before = dict(vars(socket))
refused(RuntimeError, "__main__.Holder", cmsgx.install)
cmsgx.uninstall()
assert dict(vars(socket)) == before and calls.clear() is None
"""
    run_python(HOLDER + code)


def test_a_cmsgx_socket_made_before_such_a_patch_stays_the_standard_librarys() -> None:
    code = """
import cmsgx
assert issubclass(cmsgx.socket, real)
patch()
a, b = cmsgx.socketpair()
fd = cmsgx.Fd(os.dup(a.fileno()))
with a, b, cmsgx.fromfd(a.fileno(), a.family, a.type) as copy, fd.socket() as owner:
    assert {type(sock) for sock in (a, b, copy, owner)} == {cmsgx.socket}
    assert a.gettimeout() is None and os.get_blocking(a.fileno())
    b.settimeout(0.01)
    for sock in (a, copy, owner):
        sock.sendmsg([b"x"])
        cmsgx.send(sock, b"x")
        assert b.recv(2) == b"xx"
    try:
        cmsgx.receive(b, 1)
    except TimeoutError:
        pass
    else:
        raise AssertionError
with real(socket.AF_UNIX) as listener, real(socket.AF_UNIX) as client:
    listener.bind(b"\\0cmsgx-test-holder-2"); listener.listen()
    client.connect(b"\\0cmsgx-test-holder-2")
    with cmsgx.socket(fileno=listener.detach()) as ours, ours.accept()[0] as accepted:
        assert type(accepted) is cmsgx.socket
holder = Holder(socket.AF_UNIX)
refused(TypeError, ".fileno()", cmsgx.send, holder, b"x")
refused(TypeError, ".fileno()", cmsgx.Receiver, holder, 1)
holder.close()
before = dict(vars(socket)), dict(vars(real))
refused(RuntimeError, "__main__.Holder", cmsgx.install)
assert (dict(vars(socket)), dict(vars(real))) == before
assert calls == []
"""
    run_python(HOLDER + code)


def test_what_was_installed_before_such_a_patch_comes_out_again() -> None:
    code = """
before = dict(vars(socket)), dict(vars(real))
import cmsgx
cmsgx.install()
patch()
refused(RuntimeError, "__main__.Holder", cmsgx.install)
a, b = socket.socketpair()
with a, b:
    socket.send_fds(a, [b"x"], [0])
    os.close(socket.recv_fds(b, 1, 1)[1][0])
    assert calls == ["sendmsg", "recvmsg"]
cmsgx.uninstall()
for name in ("socket", "socketpair", "fromfd"):
    setattr(socket, name, before[0][name])
assert (dict(vars(socket)), dict(vars(real))) == before
"""
    run_python(HOLDER + code)


def test_threads_may_look_at_classes_while_they_change() -> None:
    """The answers are cached for each class, in one place for all threads."""

    class Changing(socket.socket):
        pass

    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            with patched(Changing, sendmsg=lambda *args: -1):
                pass

    thread = threading.Thread(target=change)
    first, second = socket.socketpair()
    with first, second, closing(Changing(fileno=os.dup(first.fileno()))) as sock:
        thread.start()
        try:
            for _ in range(2000):
                if cmsgx.sendmsg(sock, [b"x"]) == 1:
                    assert second.recv(2) == b"x"
        finally:
            done.set()
            thread.join()
