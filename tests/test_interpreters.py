"""Subinterpreters, the end of an interpreter, and the effects of an import."""

from __future__ import annotations

import sys
import sysconfig

import pytest
from support import run_python

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

OWN_GIL = """
import sys
def make():
    if sys.version_info >= (3, 13):
        import _interpreters
        return _interpreters.create("isolated")
    if sys.version_info >= (3, 12):
        import _xxsubinterpreters
        return _xxsubinterpreters.create(isolated=True)
    import _xxsubinterpreters
    return _xxsubinterpreters.create(isolated=False)
def run(interpreter, code):
    if sys.version_info >= (3, 13):
        import _interpreters
        error = _interpreters.exec(interpreter, code)
        if error is not None:
            raise RuntimeError(error.formatted)
    else:
        import _xxsubinterpreters
        _xxsubinterpreters.run_string(interpreter, code)
def destroy(interpreter):
    if sys.version_info >= (3, 13):
        import _interpreters
        _interpreters.destroy(interpreter)
    else:
        import _xxsubinterpreters
        _xxsubinterpreters.destroy(interpreter)
"""

MEASURED = (
    OWN_GIL
    + """
import warnings
warnings.simplefilter("ignore")
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
def once():
    interpreter = make()
    run(interpreter, USE)
    destroy(interpreter)
"""
)

USE = """
import os, socket
import cmsgx
first, second = cmsgx.socketpair()
rx = cmsgx.Receiver(second, 100, fds=2, want=[cmsgx.Credentials], close="background")
for number in range(3):
    cmsgx.send(first, b"data", fds=[0, 1])
    with rx.receive() as msg:
        assert msg.data == b"data", msg
        assert msg[cmsgx.Credentials].pid == os.getpid()
        fd = msg.take(1)
    fd.close()
cmsgx.send_fds(first, [b"x"], [0])
for number in cmsgx.recv_fds(second, 1, 1)[1]:
    os.close(number)
try:
    cmsgx.send(first, b"", fds=[0])
except ValueError:
    pass
try:
    cmsgx.receive(second, 1, timeout=0.001)
except TimeoutError:
    pass
assert cmsgx.decode(9, 9, b"x") == cmsgx.Unknown(9, 9, b"x")
first.close()
second.close()
"""


@pytest.mark.slow
def test_interpreters_are_made_used_and_destroyed() -> None:
    """With a GIL of their own from 3.12 on: neither descriptors nor memory are leaked."""
    code = (
        MEASURED
        + f"""
import support
USE = {USE!r}
for _ in range(5):
    once()
support.eventually(lambda: False, 0.1)
descriptors, memory = support.open_fds(), resident()
for _ in range(50):
    once()
assert support.eventually(lambda: support.open_fds().keys() == descriptors.keys()), (
    descriptors, support.open_fds())
print(resident() - memory)
"""
    )
    grown = int(run_python(code, timeout=300))
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        ours = 1.75 * import_size()  # free-threaded builds make modules and classes immortal
    elif sys.version_info >= (3, 12):
        ours = 0.75 * import_size()  # CPython keeps an interpreter's arenas, ours among them
    else:
        ours = 40_000
    assert grown < 50 * (baseline_growth() + ours)


LIBRARY = "import os, socket, multiprocessing.reduction, dataclasses, typing, array, select, fcntl"


def import_size() -> int:
    """The number of bytes that an import of cmsgx takes, without what it imports from the standard
    library."""
    code = "import tracemalloc; tracemalloc.start(); import cmsgx"
    return int(run_python(f"{LIBRARY}; {code}; print(tracemalloc.get_traced_memory()[0])"))


def baseline_growth() -> int:
    """What CPython itself leaks for each interpreter that imports the same modules of its
    library."""
    code = (
        MEASURED
        + f"""
USE = {LIBRARY!r}
for _ in range(3):
    once()
memory = resident()
for _ in range(10):
    once()
print(max(0, resident() - memory) // 10)
"""
    )
    return int(run_python(code, timeout=300))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the GIL is shared before 3.12")
def test_interpreters_in_threads_at_once() -> None:
    code = (
        OWN_GIL
        + f"""
import threading, warnings
warnings.simplefilter("ignore")
USE = {USE!r}
errors = []
def work():
    try:
        for _ in range(4):
            interpreter = make()
            run(interpreter, USE)
            destroy(interpreter)
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
import cmsgx
exec(USE)
print("done")
"""
    )
    assert run_python(code, timeout=300).strip() == "done"


COMPARES = """
import sys
from cmsgx.kinds import IPAddress
ours = IPAddress("192.0.2.1")
assert ours != "192.0.2.1" and "ipaddress" not in sys.modules
import ipaddress
theirs = ipaddress.ip_address("192.0.2.1")
assert ours == theirs and theirs == ours and {ours: "found"}[theirs] == "found"
"""


def test_each_interpreter_compares_with_its_own_ipaddress() -> None:
    """Even if another interpreter has imported that module, and this one has not."""
    code = (
        OWN_GIL
        + f"""
import warnings
warnings.simplefilter("ignore")
CODE = {COMPARES!r}
exec(CODE)
for _ in range(2):
    interpreter = make()
    run(interpreter, CODE)
    destroy(interpreter)
print("done")
"""
    )
    assert run_python(code).strip() == "done"


def test_each_interpreter_has_its_own_classes() -> None:
    """A kind that one registers is not visible in the other."""
    code = (
        OWN_GIL
        + """
import warnings
warnings.simplefilter("ignore")
import cmsgx
from cmsgx import kinds
class Mine(kinds.StructMessage):
    __slots__ = ()
kinds.register(Mine, level=9, type=9, layout=(("value", 0, "i"),), size=4)
interpreter = make()
run(interpreter, '''
import cmsgx
assert type(cmsgx.decode(9, 9, b"1234")) is cmsgx.Unknown
cmsgx.install()
''')
assert type(cmsgx.decode(9, 9, b"1234")) is Mine
import socket
assert "sendmsg" not in vars(socket.socket)
destroy(interpreter)
assert type(cmsgx.decode(9, 9, b"1234")) is Mine
print("apart")
"""
    )
    assert run_python(code).strip() == "apart"


@pytest.mark.parametrize(
    "left",
    [
        "fd = cmsgx.Fd(os.open('/dev/null', 0))",
        "msg = rx.receive()",
        "msg = rx.receive(); fds = msg.fds",
        "msg = rx.receive(); fd = msg.fds[0]",
        "view = memoryview(rx.receive().view)",
        "message = next(iter(rx))",
        "cmsgx.close_in_background(os.open('/dev/null', 0))",
        "handle = cmsgx.enable(second, cmsgx.PidFd); pidfd = cmsgx.peer_pidfd(second)",
        "cmsgx.install()",
        "record = cmsgx.Credentials()",
        "sys.cycle = [cmsgx.Fd(os.dup(0))]; sys.cycle.append(sys.cycle)",
        "try: cmsgx.send(first, b'', fds=[0])\nexcept ValueError as e: error = e",
    ],
)
@pytest.mark.parametrize("where", ["main", "sub"])
@pytest.mark.slow
def test_an_interpreter_that_ends_with_something_open(left: str, where: str) -> None:
    program = f"""
import os, sys, warnings
warnings.simplefilter("ignore")
import cmsgx
first, second = cmsgx.socketpair()
rx = cmsgx.Receiver(second, 100, fds=2)
cmsgx.send(first, b"data", fds=[0, 1])
{left}
"""
    if where == "sub":
        program = f"""
{OWN_GIL}
import warnings
warnings.simplefilter("ignore")
interpreter = make()
run(interpreter, {program!r})
destroy(interpreter)
import os, support
support.eventually(lambda: len(support.open_fds()) <= 4, 60)
print("descriptors", len(support.open_fds()))
"""
    output = run_python(program)
    if where == "sub" and "cycle" not in left:
        assert int(output.split()[1]) <= 4


def test_a_daemon_thread_that_receives_at_the_end() -> None:
    code = """
import cmsgx, threading, time, warnings
warnings.simplefilter("ignore")
first, second = cmsgx.socketpair()
rx = cmsgx.Receiver(second, 10, fds=1)
def loop():
    while True:
        cmsgx.send(first, b"x", fds=[0])
        with rx.receive():
            pass
threading.Thread(target=loop, daemon=True).start()
other = cmsgx.socketpair()
threading.Thread(target=lambda: cmsgx.receive(other[1], 1), daemon=True).start()
time.sleep(0.2)
"""
    run_python(code)


def test_an_import_has_no_side_effects() -> None:
    code = """
import atexit, gc, os, signal, socket, sys, threading

def state():
    return (
        sorted(os.listdir("/proc/self/fd"))[:-1],
        threading.active_count(),
        len(os.listdir("/proc/self/task")),
        [signal.getsignal(number) for number in range(1, 32)],
        {name: id(value) for name, value in vars(socket).items()},
        dict(vars(socket.socket)),
        sys.getswitchinterval(), sys.getrecursionlimit(), gc.isenabled(), gc.get_threshold(),
        dict(os.environ), sys.path[:], os.getcwd(), sys.excepthook, sys.unraisablehook,
        signal.set_wakeup_fd(-1), sys.stdout.encoding,
    )

before = state()
import cmsgx, cmsgx.wire, cmsgx.kinds, cmsgx.errors
assert state() == before
print("none")
"""
    assert run_python(code).strip() == "none"


def test_an_import_brings_no_heavy_modules() -> None:
    code = """
import sys
import socket
before = set(sys.modules)
import cmsgx
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""
    brought = set(run_python(code).split())
    heavy = {"asyncio", "ssl", "logging", "unittest", "trio", "http", "email"}
    assert not brought & heavy


@pytest.mark.skipif(not FREE_THREADED, reason="this build of Python always has a GIL")
def test_an_import_leaves_the_gil_off() -> None:
    """Python turns it on, with a warning, for a module that does not declare that it does not need
    it."""
    code = "import sys, cmsgx, cmsgx.wire, cmsgx.kinds; print(sys._is_gil_enabled())"
    assert run_python(code).strip() == "False"


@pytest.mark.slow
def test_an_import_is_quick() -> None:
    """Processor time beyond that of its own imports: a small multiple of asyncio's."""
    code = """
import sys, time
import socket, multiprocessing.reduction, dataclasses, array, fcntl, select
start = time.process_time()
__import__(sys.argv[1])
print(time.process_time() - start)
"""
    ours, other = (
        min(float(run_python(code, name)) for _ in range(5)) for name in ("cmsgx", "asyncio")
    )
    assert ours < 6 * other
