"""What several test files need."""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import cmsgx
from cmsgx.kinds import _table

TESTS = Path(__file__).parent
UNIX_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)

# What is another with 32 bits, as C has it, and not cmsgx: a struct cmsghdr, up to its data; a
# struct timeval or timespec in a control message of one of the kernel's old names, which is two
# longs, whatever the time_t of the C library.
HEADER = socket.CMSG_LEN(0)
OLD_TIME = struct.Struct("@ll")

Pair: TypeAlias = "tuple[cmsgx.socket, cmsgx.socket]"


def allow_many_descriptors() -> None:
    """For a process of its own: the soft limit, usually 1024, would bound a batch, and without
    CAP_SYS_RESOURCE and CAP_SYS_ADMIN what is in flight."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_fds() -> dict[int, str]:
    """The open descriptors of this process: number -> what /proc says it is."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the directory that was listed
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def unix_pair(kind: int = socket.SOCK_STREAM) -> Pair:
    return cmsgx.socketpair(socket.AF_UNIX, kind)


def close_pair(pair: Pair) -> None:
    for sock in pair:
        sock.close()


@contextmanager
def installed(**arguments: Any) -> Iterator[None]:
    """With cmsgx in place of socket's methods."""
    cmsgx.install(**arguments)
    try:
        yield
    finally:
        cmsgx.uninstall()


@contextmanager
def open_files(count: int) -> Iterator[list[int]]:
    """That many descriptors of files that tell themselves apart: each is a memfd that holds its
    index as text."""
    numbers: list[int] = []
    try:
        for index in range(count):
            numbers.append(os.memfd_create(f"file-{index}"))
            os.pwrite(numbers[-1], str(index).encode(), 0)
        yield numbers
    finally:
        for number in numbers:
            os.close(number)


@contextmanager
def unregistered(*kinds: Any) -> Iterator[None]:
    """Takes these kinds out of the table meanwhile: what they are arrives as Unknown."""
    tables: tuple[Any, ...] = (_table._received, _table._sent, _table._rows)
    before = [dict(table) for table in tables]
    try:
        for table in tables[:2]:
            for number, entries in list(table.items()):
                table[number] = [entry for entry in entries if entry[1] not in kinds]
        for kind in kinds:
            tables[2].pop(kind, None)
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)


def content(fd: int | cmsgx.Fd) -> str:
    """What a file of open_files() holds."""
    return os.pread(fd if isinstance(fd, int) else fd.fileno(), 64, 0).decode()


def run_python(
    code: str, *arguments: str, timeout: float = 300, env: dict[str, str] | None = None
) -> str:
    """Runs code in a process of its own, with this file's folder on its path; its output.

    AssertionError, with all that it printed, where it fails.
    """
    environment = {**os.environ, **(env or {})}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(TESTS), environment.get("PYTHONPATH")])
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, timeout=timeout, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def is_in_call(thread: int, *arguments: int | None) -> bool:
    """Whether that thread is in a system call with these arguments: proc_pid_syscall(5)"""
    call = Path(f"/proc/self/task/{thread}/syscall").read_text(encoding="ascii").split()
    return len(call) > len(arguments) and all(
        wanted is None or int(given, 16) == wanted
        for given, wanted in zip(call[1:], arguments, strict=False)
    )


@contextmanager
def thread_in(work: Callable[[], object], is_inside: Callable[[], bool]) -> Iterator[None]:
    """While a thread is in the middle of `work`; what follows has to end it."""
    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 60
    try:
        while not is_inside():
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        yield
    finally:
        thread.join(60)
    assert not thread.is_alive()


def in_process(child: Callable[[], object], seconds: int = 0) -> int:
    """Runs that in a child of fork, which has so many seconds, 0 for any number; its pid.

    What it raises is shown there.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(seconds)
            child()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_fork(child: Callable[[], object]) -> None:
    """The same, waited for: it has two minutes, and raises nothing, but may skip the test."""
    import pytest

    reader, writer = os.pipe()

    def told() -> None:
        try:
            child()
        except pytest.skip.Exception as skipped:
            os.write(writer, str(skipped).encode())

    with open(reader, encoding="utf-8") as reasons:
        with open(writer, "wb"):
            status = status_of(in_process(told, 120))
        reason = reasons.read()
    if reason:
        pytest.skip(reason)
    assert status == 0


@contextmanager
def stuck_in_close(seconds: int = 3600) -> Iterator[tuple[int, Callable[[], None]]]:
    """A TCP socket whose last close(2) blocks, as a peer can choose: its number, for the caller to
    close, and what ends that close. Nothing else does, for so many seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        reader = listener.accept()[0]
    with reader, sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
        sender.setblocking(False)
        try:
            while True:
                sender.send(bytes(1 << 16))
        except BlockingIOError:
            pass
        sender.setblocking(True)
        yield sender.detach(), reader.close


def fill(sock: socket.socket) -> None:
    """Sends until nothing more goes, also once what was under way in the kernel has arrived."""
    refused = 0
    while refused < 4:
        try:
            sock.send(bytes(1 << 16), socket.MSG_DONTWAIT)
            refused = 0
        except BlockingIOError:
            refused += 1
            time.sleep(0.02)


def send_in_turn(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    """Who is not root may have only RLIMIT_NOFILE descriptors in flight, over all processes: with a
    low limit, what other tests have sent has to arrive first. See too_many_unix_fds() in Linux."""
    for _ in range(6000):
        try:
            cmsgx.send(sock, data, fds=fds)
            return
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
        time.sleep(0.01)
    raise TimeoutError("other tests have too many descriptors in flight")


def enter_empty_root(path: Path) -> None:
    """For a child of its own: a root folder with nothing in it, so without /proc. Who is not root
    needs a user namespace for that, with oneself as root."""
    path.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        maps = {
            "setgroups": "deny",
            "uid_map": f"0 {os.geteuid()} 1",
            "gid_map": f"0 {os.getegid()} 1",
        }
        clone_newuser = 0x10000000
        import ctypes  # which 3.12 loads in no other interpreter than the first

        if ctypes.CDLL(None, use_errno=True).unshare(clone_newuser) != 0:
            import pytest

            pytest.skip(f"unshare(CLONE_NEWUSER): {os.strerror(ctypes.get_errno())}")
        for name, text in maps.items():
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    os.chroot(path)
    os.chdir("/")


def fill_table(but: int = 0) -> None:
    """For a child of its own: no descriptor more can be made, but for so many."""
    numbers = []
    with suppress(OSError):
        numbers.append(os.dup(0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (numbers[0] + 64, hard))
    with suppress(OSError):
        while True:
            numbers.append(os.dup(0))
    for number in numbers[:but]:
        os.close(number)


@contextmanager
def lingering_socket(seconds: int) -> Iterator[int]:
    """The number of one whose close(2) blocks for that long."""
    with stuck_in_close(seconds) as (number, _):
        yield number


def gives_up_the_gil(call: Callable[[], object], end: Callable[[], object]) -> bool:
    """Whether another thread runs, and calls `end`, while `call` waits for that."""
    ran_meanwhile: list[bool] = []
    is_over = False

    def other() -> None:
        time.sleep(0.05)
        ran_meanwhile.append(not is_over)
        end()

    thread = threading.Thread(target=other)
    before = sys.getswitchinterval()
    sys.setswitchinterval(600)  # Python itself lets no other thread run before `call` is over
    try:
        thread.start()
        call()
        is_over = True
    finally:
        sys.setswitchinterval(before)
        thread.join()
    return ran_meanwhile[0]


@contextmanager
def stalled_socket(seconds: int = 10) -> Iterator[tuple[int, Callable[[], None]]]:
    """A TCP socket whose last close(2) blocks until its peer reads: its number, for the caller to
    close, and a function that makes the peer read. After those seconds it blocks no more, so that
    what waits for it in the wrong place comes to an end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        reader = listener.accept()[0]

    def release() -> None:
        reader.settimeout(seconds)
        while reader.recv(1 << 20):
            pass

    with reader, sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, seconds))
        sender.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sender.send(bytes(1 << 16))
        sender.setblocking(True)
        yield sender.detach(), release


def eventually(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it became true at all; what never does is given up after so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# futex(2) by machine, as the kernel counts.
_FUTEX = {"x86_64": "202", "aarch64": "98", "s390x": "238", "riscv64": "98"}
_FUTEX_32_BITS = ("240", "422")


def until_it_waits(thread: threading.Thread) -> None:
    """Until that thread waits in a system call of its own, and not for Python's lock."""
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    number = _FUTEX.get(os.uname().machine)
    of_python = (number,) if struct.calcsize("P") == 8 else _FUTEX_32_BITS

    def waits() -> bool:
        return path.read_text().split()[0] not in ("running", "-1", *of_python)

    try:
        path.read_text()
    except OSError:
        number = None
    if number is None:  # no such file with this kernel, or no such machine in the table
        time.sleep(0.2)
    else:
        assert eventually(waits), f"it does not wait: {path.read_text()}"


def lengths(variable: str, short: int, long: int) -> list[Any]:
    """How long a random test runs, for `parametrize`: a little each time, and at length among the
    slow tests; or as an environment variable says."""
    import pytest  # not above: most of what is here is for processes that do without

    if variable in os.environ:
        return [int(os.environ[variable])]
    return [short, pytest.param(long, marks=pytest.mark.slow)]


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def write_and_close(fd: cmsgx.Fd, data: bytes) -> None:
    """For a process that multiprocessing starts."""
    with fd:
        os.write(fd.fileno(), data)


def need_classes_that_go() -> None:
    """Skips where a class that refers to itself, of anybody's, is never collected: free-threaded
    3.13 does so once there was a second thread."""
    plain: Any = type("Plain", (), {})
    plain.it = plain()
    reference = weakref.ref(plain)
    del plain
    gc.collect()
    if reference() is not None:
        import pytest  # which the processes that import this one do without

        pytest.skip("this Python does not collect classes")


def receive_with(
    pair: Pair, sent: int, *, data: bytes = b"data", want: list[Any] | None = None, **more: Any
) -> cmsgx.Message:
    """A message with that many descriptors, each with its index as content."""
    rx = cmsgx.Receiver(pair[1], 100, want=want or [], **{"fds": sent, **more})
    with open_files(sent) as files:
        cmsgx.send(pair[0], data, fds=files)
    return rx.receive()


def run_all(*targets: Callable[[], object]) -> None:
    """Runs each in a thread; the first error that one raised is raised here."""
    errors: list[BaseException] = []

    def guarded(target: Callable[[], object]) -> None:
        try:
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
