"""The background closer: threads, fork(2), and the end of the process."""

from __future__ import annotations

import os
import time

import pytest
from closing import ALARM, STALLED
from native import skip_where_a_child_cannot_start_threads
from support import eventually, is_open, open_files, run_python, stalled_socket
from test_interpreters import OWN_GIL

import cmsgx
from cmsgx import _cmsg

# After it, the end of a pipe waits in the same row; `kept` is the other end.
QUEUED = (
    STALLED
    + """
reader, kept = os.pipe()
left, right = cmsgx.socketpair()
receiver = cmsgx.Receiver(right, 10, fds=2, close="background")
cmsgx.send(left, b"x", fds=[number, reader])
os.close(number)
os.close(reader)
with receiver.receive() as message:
    number, queued = [fd.fileno() for fd in message.fds]
assert support.eventually(lambda: not support.is_open(number))     # its close has begun
"""
)


# Threads ----------------------------------------------------------------------------------------


def test_each_peer_that_blocks_has_a_thread_of_eight_at_most() -> None:
    code = """
import contextlib
threads = len(os.listdir("/proc/self/task"))
with contextlib.ExitStack() as stack:
    stalled = [stack.enter_context(support.stalled_socket(240)) for _ in range(10)]
    for number, _ in stalled:
        left, right = cmsgx.socketpair()
        cmsgx.send(left, b"x", fds=[number])
        os.close(number)
        cmsgx.Receiver(right, 9, fds=1, close="background").receive().close()
        left.close()
        right.close()
    def begun():
        return len(os.listdir("/proc/self/task")) - threads
    assert support.eventually(lambda: begun() == 8), begun()
    null = os.open("/dev/null", os.O_RDONLY)
    cmsgx.close_in_background(null)
    assert support.is_open(null)       # all eight are taken
    assert cmsgx.wait_closed(0) == 11
    stalled[0][1]()
    assert support.eventually(lambda: cmsgx.wait_closed(0) <= 10)
    for _, release in stalled[1:]:
        release()
    assert cmsgx.wait_closed(20) == 0
    assert not support.is_open(null)
    assert begun() <= 8
print("all")
"""
    assert run_python(ALARM + code).strip() == "all"


def test_one_receiver_has_one_thread() -> None:
    code = """
threads = len(os.listdir("/proc/self/task"))
left, right = cmsgx.socketpair()
receiver = cmsgx.Receiver(right, 9, fds=3, close="background")
for _ in range(300):
    cmsgx.send(left, b"x", fds=[0] * 3)
    receiver.receive().close()
assert cmsgx.wait_closed(20) == 0
print(len(os.listdir("/proc/self/task")) - threads)
"""
    assert run_python(ALARM + code).strip() == "1"


def test_where_no_thread_can_be_made_nothing_is_lost() -> None:
    """The descriptor waits until a thread can start; a caller that waits for it closes it
    instead."""
    code = """
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
receiver = cmsgx.Receiver(right, 9, fds=1, close="background")
support.send_in_turn(left, b"x", [0])
receiver.receive().take(0).close(now=True)     # what is made once is made
with open("/proc/self/status") as status:
    size = next(int(line.split()[1]) for line in status if line.startswith("VmSize"))
before = support.open_fds()
limits = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + (4 << 20), limits[1]))
import _thread
try:
    _thread.start_new_thread(time.sleep, (0,))
except RuntimeError:
    pass
else:
    print("a thread can be made all the same")
    sys.exit()
for _ in range(2):
    cmsgx.send(left, b"x", fds=[0] * 20)
    receiver.receive().close()
assert _cmsg.closer_counts() == (40, 40)
cmsgx.send(left, b"y", fds=[0] * 20)
receiver.receive(timeout=0).close()     # 32 may wait: it made room itself
assert 20 < _cmsg.closer_counts()[0] <= 52, _cmsg.closer_counts()
assert cmsgx.wait_closed(20) == 0
assert support.open_fds() == before
cmsgx.send(left, b"x", fds=[0] * 20)
receiver.receive().close()
resource.setrlimit(resource.RLIMIT_AS, limits)
assert _cmsg.closer_counts() == (20, 20)
null = os.open("/dev/null", os.O_RDONLY)
cmsgx.close_in_background(null)         # tries again
assert support.eventually(lambda: support.open_fds() == before)
print("closed")
"""
    told = run_python(ALARM + code).strip()
    if told != "closed":
        pytest.skip(told)


# fork(2) ----------------------------------------------------------------------------------------


@pytest.fixture
def a_child_can_start_threads() -> None:
    skip_where_a_child_cannot_start_threads()


USES = {
    "never used": "",
    "used and idle": """
cmsgx.close_in_background(os.open("/dev/null", os.O_RDONLY))
assert _cmsg.closer_wait(60) == 0
""",
    "at work": STALLED + "cmsgx.close_in_background(number)\n",
}


@pytest.mark.usefixtures("a_child_can_start_threads")
@pytest.mark.parametrize("use", USES)
def test_threads_that_fork_at_once_do_not_hang(use: str) -> None:
    code = """
sys.setswitchinterval(1e-5)
def fork_often():
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
threads = [threading.Thread(target=fork_often) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("done")
os._exit(0)
"""
    told = run_python(ALARM + USES[use] + "sys.stdout.reconfigure(line_buffering=True)" + code)
    assert told.strip() == "done"


@pytest.mark.usefixtures("a_child_can_start_threads")
@pytest.mark.parametrize("when", ["before", "after_in_parent", "after_in_child"])
def test_a_fork_hook_may_join_a_thread_that_closes_in_the_background(when: str) -> None:
    """It may run at a moment when another design would hold a lock of the closer's."""
    code = f"""
import os, threading
go = threading.Event()
work = None
def hook():     # registered before cmsgx is imported: of the hooks before a fork it is the last
    go.set()
    if {when!r} == "after_in_child":    # its threads did not come along
        work()
    else:
        worker.join()
os.register_at_fork({when}=hook)
{ALARM}
left, right = cmsgx.socketpair()
cmsgx.send(left, b"x", fds=[0])
message = cmsgx.Receiver(right, 10, fds=1, close="background").receive()
def work():
    go.wait()
    message.close()
worker = threading.Thread(target=work, daemon=True)
worker.start()
while not go._cond._waiters:
    time.sleep(0.001)
with go._cond:   # now its lock is free, in a child too
    pass
pid = os.fork()
if pid == 0:
    assert _cmsg.closer_wait(60) == 0
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_python(code).strip() == "7"


@pytest.mark.usefixtures("a_child_can_start_threads")
def test_a_forked_child_closes_what_was_queued_and_continues() -> None:
    """Also if the fork happens below Python, so that no hook of Python's runs."""
    code = """
import ctypes
fork = os.fork if sys.argv[1] == "os" else ctypes.CDLL(None).fork
child = fork()
if child == 0:
    if sys.argv[1] == "C":
        cmsgx.close_in_background(os.dup(kept))
    assert support.eventually(lambda: not support.is_open(queued), 60)
    again = os.dup(kept)
    cmsgx.close_in_background(again)
    assert support.eventually(lambda: not support.is_open(again), 60)
    assert _cmsg.closer_wait(60) == 0
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert support.is_open(queued)      # here it waits for the one in front of it
release()
assert _cmsg.closer_wait(60) == 0
assert not support.is_open(queued)
print("both")
"""
    for how in ("os", "C"):
        assert run_python(ALARM + QUEUED + code, how).strip() == "both"


@pytest.mark.usefixtures("a_child_can_start_threads")
def test_processes_of_multiprocessing_are_forked_while_the_closer_works() -> None:
    code = """
import multiprocessing
def child(results):
    for _ in range(3):
        cmsgx.close_in_background(os.open("/dev/null", os.O_RDONLY))
    results.put(_cmsg.closer_wait(60))
cmsgx.close_in_background(number)
# Its close has begun: or a child has it, too, and closes it last.
assert support.eventually(lambda: not support.is_open(number))
context = multiprocessing.get_context("fork")
results = context.SimpleQueue()
processes = [context.Process(target=child, args=(results,)) for _ in range(3)]
for process in processes:
    process.start()
print([results.get() for _ in processes])
for process in processes:
    process.join()
    assert process.exitcode == 0
assert _cmsg.closer_wait(0) == 1
release()
assert _cmsg.closer_wait(60) == 0
"""
    assert run_python(ALARM + STALLED + code).strip() == "[0, 0, 0]"


@pytest.mark.usefixtures("a_child_can_start_threads")
def test_a_child_of_a_child_closes_its_copies() -> None:
    code = """
def fork(depth):
    pid = os.fork()
    if pid == 0:
        if depth:
            fork(depth - 1)
        assert _cmsg.closer_wait(60) == 0
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
fork(2)
assert _cmsg.closer_wait(0) == 2
release()
os.set_blocking(kept, False)
assert _cmsg.closer_wait(60) == 0
try:
    os.write(kept, b"x")
except BrokenPipeError:
    print("no process has it")
"""
    assert run_python(ALARM + QUEUED + code).strip() == "no process has it"


@pytest.mark.usefixtures("a_child_can_start_threads")
def test_the_closers_of_all_interpreters_continue_in_a_child() -> None:
    """With C's fork: up to 3.13, CPython does not survive its own with a second interpreter."""
    code = """
reader, kept = os.pipe()
other = make()
run(other, f'''
import os
import cmsgx, support
left, right = cmsgx.socketpair()
cmsgx.send(left, b"x", fds=[{number}, {reader}])
os.close({number})
os.close({reader})
with cmsgx.Receiver(right, 10, fds=2, close="background").receive() as message:
    begun = message.fds[0].fileno()
assert support.eventually(lambda: not support.is_open(begun))
''')
assert _cmsg.closer_wait(0) == 0        # it is the other's
import ctypes
pid = ctypes.PyDLL(None).fork()
if pid == 0:
    _cmsg.closer_resume()       # what the hook does
    os.set_blocking(kept, False)
    def is_closed():
        try:
            return os.write(kept, b"x") < 0
        except BrokenPipeError:
            return True
    release()       # in the parent it is closed, too
    os._exit(7 if support.eventually(is_closed, 60) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
destroy(other)
print("closed")
"""
    assert run_python(OWN_GIL + ALARM + STALLED + code).strip() == "closed"


# The end ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_released", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_exit_waits_for_it_and_not_for_ever(is_released: bool) -> None:
    """After two seconds, whatever the peer still blocks is left to the kernel."""
    code = """
import atexit
cmsgx.close_in_background(number)
queued = os.dup(0)
@atexit.register        # runs before that of cmsgx
def later():
    if sys.argv[1] == "True":
        threading.Timer(0.2, release).start()
print("at its end")
"""
    start = time.monotonic()
    assert run_python(ALARM + STALLED + code, str(is_released)).strip() == "at its end"
    assert is_released or time.monotonic() - start > 1.5


def test_what_is_handed_over_is_closed() -> None:
    with open_files(3) as files:
        numbers = [os.dup(file) for file in files]
        cmsgx.close_in_background(*numbers)
        assert _cmsg.closer_wait(30) == 0
        assert not any(map(is_open, numbers))


def test_one_that_blocks_holds_up_no_other() -> None:
    with stalled_socket() as (number, release), open_files(20) as files:
        others = [os.dup(file) for file in files]
        cmsgx.close_in_background(number)
        cmsgx.close_in_background(*(other for other in others if (other - number) % 64))
        assert eventually(lambda: not any(is_open(n) for n in others if (n - number) % 64))
        cmsgx.close_in_background(*(other for other in others if not (other - number) % 64))
        assert _cmsg.closer_wait(0) >= 1
        release()
        assert _cmsg.closer_wait(30) == 0
