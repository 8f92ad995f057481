"""gevent and eventlet, imported before cmsgx and after it."""

from __future__ import annotations

import pytest
from support import run_python

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}

# The functions of both to spawn a greenlet, to wait for it, and to wait until a descriptor is
# readable.
HUBS = {
    "gevent": """
import gevent
from gevent.socket import wait_read
spawn, pause = gevent.spawn, gevent.sleep
def finish(greenlet):
    return greenlet.get()
""",
    "eventlet": """
import eventlet
from eventlet.hubs import trampoline
spawn, pause = eventlet.spawn, eventlet.sleep
def wait_read(number):
    trampoline(number, read=True)
def finish(greenlet):
    return greenlet.wait()
""",
}

ALWAYS = """
import os
def refused(error, text, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as caught:
        assert text in str(caught), caught
    else:
        raise AssertionError(f"{call} was not refused")
def numbers_of(received):
    assert received[0] == b"x" and len(received[1]) == 1, received
    return received[1][0]
green = socket.socket
name = f"{green.__module__}.{green.__qualname__}"
before = dict(vars(socket)), dict(vars(real)), dict(vars(green))
refused(RuntimeError, name, cmsgx.install)
cmsgx.uninstall()
assert (dict(vars(socket)), dict(vars(real)), dict(vars(green))) == before

# Green sockets: the drop-ins call their methods, which wait in the hub; typed calls refuse them.
a, b = socket.socketpair()
assert isinstance(a, green)
turns = []
def turn():
    for _ in range(5):
        turns.append(len(turns))
        pause(0)
    cmsgx.sendmsg(a, [b"x"])
    cmsgx.send_fds(a, [b"x"], [0])
sender = spawn(turn)
if "gevent" in name:  # eventlet's has no recvmsg() that waits
    assert cmsgx.recvmsg(b, 1)[0] == b"x"
else:
    finish(sender)
    assert cmsgx.recvmsg(b, 1)[0] == b"x"
os.close(numbers_of(cmsgx.recv_fds(b, 1, 1)))
finish(sender)
assert turns == [0, 1, 2, 3, 4]
for call in (lambda: cmsgx.send(a, b"x"), lambda: cmsgx.receive(b, 1), lambda: cmsgx.Receiver(b, 1),
             lambda: cmsgx.BatchReceiver(b, 1, 1), lambda: cmsgx.send_batch(a, [b"x"])):
    refused(TypeError, ".fileno()", call)
cmsgx.send(a.fileno(), b"x", fds=[0])
with cmsgx.receive(b.fileno(), 1, fds=1) as message:
    assert message.data == b"x" and len(message.fds) == 1
assert cmsgx.enable(b, cmsgx.Credentials).restore() is None
socket.send_fds(a, [b"x"], [0])
os.close(numbers_of(socket.recv_fds(b, 1, 1)))
a.close(); b.close()
"""

BEFORE = """
import socket, sys
real = socket.socket
import cmsgx
assert issubclass(cmsgx.socket, real)
exec(sys.argv[1]); exec(sys.argv[2]); exec(sys.argv[3])
# Stays the standard library's.
assert cmsgx.socket.__mro__[1] is real and not issubclass(cmsgx.socket, socket.socket)
a, b = cmsgx.socketpair()
copy = cmsgx.Fd(os.dup(a.fileno()))
with a, b, cmsgx.fromfd(a.fileno(), a.family, a.type) as c, copy.socket() as d:
    assert {type(sock) for sock in (a, b, c, d)} == {cmsgx.socket}
    assert a.gettimeout() is None and os.get_blocking(a.fileno())
    b.settimeout(0.01)
    for sock in (a, c, d):
        sock.sendmsg([b"x"])
        sock.send_fds([b"x"], [0])
        cmsgx.send(sock, b"x", fds=[0])
        assert b.recvmsg(1)[0] == b"x"
        os.close(numbers_of(b.recv_fds(1, 1)))
        with cmsgx.receive(b, 1, fds=1) as message:
            assert len(message.fds) == 1
    refused(TimeoutError, "timed out", cmsgx.receive, b, 1)
print("done")
"""

AFTER = """
import socket, sys
real = socket.socket
exec(sys.argv[1])
import cmsgx
exec(sys.argv[2]); exec(sys.argv[3])
assert cmsgx.socket.__mro__[1] is green
a, b = cmsgx.socketpair()
assert type(a) is type(b) is cmsgx.socket
# Its methods are the green ones.
assert "sendmsg" not in vars(cmsgx.socket) and "recvmsg" not in vars(cmsgx.socket)
a.sendmsg([b"x"])
assert b.recvmsg(1)[0] == b"x"
a.send_fds([b"x"], [0])
os.close(numbers_of(b.recv_fds(1, 1)))
# Typed calls try once, whatever the timeout, and the hub waits.
receiver = cmsgx.Receiver(b, 1, fds=1, want=[cmsgx.Credentials])
for timeout in ({}, {"timeout": None}, {"timeout": 100}):
    refused(BlockingIOError, "", receiver.receive, **timeout)
batches = cmsgx.BatchReceiver(b, 4, 1, fds=1)
assert receiver.try_receive() is batches.try_receive() is None
turns = []
def turn():
    for _ in range(5):
        turns.append(len(turns))
        pause(0)
    cmsgx.send(a, b"x", fds=[0], control=cmsgx.Credentials())
sender = spawn(turn)
while (message := receiver.try_receive()) is None:
    wait_read(b.fileno())
with message:
    assert message.data == b"x" and len(message.fds) == 1
    assert not receiver.is_end(message)
    assert message[cmsgx.Credentials].pid == os.getpid()
finish(sender)
assert turns == [0, 1, 2, 3, 4]
class Secret(cmsgx.socket):
    def send(self, data): ...
secret = Secret(socket.AF_UNIX, socket.SOCK_STREAM)
refused(TypeError, "Secret has a send() of its own", cmsgx.send, secret, b"x")
secret.close()
# All that makes sockets.
listener = cmsgx.socket(socket.AF_UNIX, socket.SOCK_STREAM)
listener.bind(b"\\0cmsgx-test-interop-" + str(os.getpid()).encode())
listener.listen()
def connect():
    client = cmsgx.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(listener.getsockname())
    return client
client = spawn(connect)
accepted, _ = listener.accept()
client = finish(client)
copy = cmsgx.fromfd(client.fileno(), client.family, client.type)
fd = cmsgx.Fd(os.dup(client.fileno()))
owner = fd.socket()
assert repr(fd) == "<Fd made a socket>"
assert {type(sock) for sock in (accepted, client, copy, owner)} == {cmsgx.socket}
for sock in (client, copy, owner):
    sock.sendall(b"x")
    assert accepted.recv(1) == b"x"
assert cmsgx.segment_support(cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM)) in (0, 64, 128)
for sock in (a, b, listener, accepted, client, copy, owner):
    sock.close()
print("done")
"""


@pytest.mark.parametrize("library", PATCHES)
@pytest.mark.parametrize("order", ["cmsgx first", "patch first"])
def test_both_import_orders(library: str, order: str) -> None:
    # Their own warnings are ignored: eventlet says that it is no longer developed.
    code = "import warnings; warnings.simplefilter('ignore')\n"
    code += BEFORE if order == "cmsgx first" else AFTER
    assert run_python(code, PATCHES[library], HUBS[library], ALWAYS).strip() == "done"


@pytest.mark.parametrize("library", PATCHES)
def test_what_was_installed_before_the_patch_comes_out_again(library: str) -> None:
    code = """
import warnings; warnings.simplefilter('ignore')
import os, socket, sys
real = socket.socket
names = "send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE"
functions = {name: getattr(socket, name) for name in names}
methods = dict(vars(real))
import cmsgx
cmsgx.install()
exec(sys.argv[1])
a, b = socket.socketpair()
socket.send_fds(a, [b"x"], [0])
[number] = socket.recv_fds(b, 1, 1)[1]
assert not os.get_inheritable(number)
cmsgx.uninstall()
assert dict(vars(real)) == methods
assert {name: getattr(socket, name) for name in functions} == functions
print("done")
"""
    assert run_python(code, PATCHES[library]).strip() == "done"
