"""Helpers of several test files."""

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
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import cmsgx
from cmsgx.kinds import _table

TESTS = Path(__file__).parent
UNIX_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)

# Sizes that differ on 32 bits, from C and not from cmsgx: of a struct cmsghdr, up to its data; of a
# struct timeval or timespec in a control message with one of the kernel's old numbers, which is two
# longs whatever the time_t of the C library is.
HEADER = socket.CMSG_LEN(0)
OLD_TIME = struct.Struct("@ll")

Pair: TypeAlias = "tuple[cmsgx.socket, cmsgx.socket]"


def allow_many_descriptors() -> None:
    """For a separate process: the soft limit, usually 1024, would limit a batch, and without
    CAP_SYS_RESOURCE and CAP_SYS_ADMIN it limits the descriptors in flight."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def open_fds() -> dict[int, str]:
    """The open descriptors of this process: number -> what /proc says about it."""
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
    """Descriptors of this many files that can be distinguished: each is a memfd that holds its
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
    """Removes these kinds from the table meanwhile: they arrive as Unknown."""
    tables: tuple[Any, ...] = (_table._received, _table._sent, _table._rows)
    before = [dict(table) for table in tables]
    try:
        for table in tables[:2]:
            for number, entries in list(table.items()):
                table[number] = [entry for entry in entries if entry[1] not in kinds]
        for kind in kinds:
            tables[2].pop(kind, None)
        _table.changed()
        yield
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
        _table.changed()


def content(fd: int | cmsgx.Fd) -> str:
    """The content of a file of open_files()."""
    return os.pread(fd if isinstance(fd, int) else fd.fileno(), 64, 0).decode()


def run_python(
    code: str, *arguments: str, timeout: float = 300, env: dict[str, str] | None = None
) -> str:
    """Runs code in a separate process, with this file's folder on its path; returns its output.

    If it fails, raises AssertionError with everything that it printed.
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


def address_of(data: Any) -> int:
    """Where the bytes of a bytes-like object begin."""
    # from_buffer() does not accept a read-only buffer, so PyObject_GetBuffer is called directly.
    import ctypes  # which 3.12 can load only in the main interpreter

    raw = (ctypes.c_void_p * 32)()  # larger than a Py_buffer, which begins with the address
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(raw), 0)
    start = raw[0]
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(raw))
    assert start is not None
    return start


def is_in_call(thread: int, *arguments: int | None) -> bool:
    """Whether the thread is in a system call with these arguments: proc_pid_syscall(5)"""
    call = Path(f"/proc/self/task/{thread}/syscall").read_text(encoding="ascii").split()
    return len(call) > len(arguments) and all(
        wanted is None or int(given, 16) == wanted
        for given, wanted in zip(call[1:], arguments, strict=False)
    )


@contextmanager
def thread_in(work: Callable[[], object], is_inside: Callable[[], bool]) -> Iterator[None]:
    """Runs `work` in a thread, and yields while it is in the middle of it; the body has to end
    it."""
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
    """Runs this in a child of fork, which may take this many seconds (0: any number); returns its
    pid.

    The child prints what it raises.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may be running
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
    """The same, and waits for the child: it has two minutes, must not raise, but may skip the
    test."""
    import pytest
    from native import sanitizer

    status, reason = _tried_in_fork(child)
    if status == -signal.SIGALRM and sanitizer() == "asan":
        # The allocator of gcc 12's AddressSanitizer does not handle fork(): while another thread is
        # in it, the child waits for its lock for ever.
        status, reason = _tried_in_fork(child)
    if reason:
        pytest.skip(reason)
    assert status == 0


def _tried_in_fork(child: Callable[[], object]) -> tuple[int, str]:
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
        return status, reasons.read()


@contextmanager
def stuck_in_close(seconds: int = 3600) -> Iterator[tuple[int, Callable[[], None]]]:
    """A TCP socket whose last close(2) blocks, as a peer can arrange: its number, for the caller to
    close, and a function that ends that close. For this many seconds nothing else does."""
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
    """Sends until nothing more can be sent, even after everything in the kernel has arrived."""
    refused = 0
    while refused < 4:
        try:
            sock.send(bytes(1 << 16), socket.MSG_DONTWAIT)
            refused = 0
        except BlockingIOError:
            refused += 1
            time.sleep(0.02)


def send_in_turn(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    """Unless it is root, a user may have only RLIMIT_NOFILE descriptors in flight, over all
    processes. With a low limit, those that other tests have sent have to arrive first. See
    too_many_unix_fds() in Linux."""
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
    """For a separate child: an empty root folder, and therefore no /proc. Unless it is root, it
    needs a user namespace for that, in which it is root."""
    path.mkdir(exist_ok=True)
    if os.geteuid() != 0:
        maps = {
            "setgroups": "deny",
            "uid_map": f"0 {os.geteuid()} 1",
            "gid_map": f"0 {os.getegid()} 1",
        }
        clone_newuser = 0x10000000
        import ctypes  # which 3.12 can load only in the main interpreter

        if ctypes.CDLL(None, use_errno=True).unshare(clone_newuser) != 0:
            import pytest

            pytest.skip(f"unshare(CLONE_NEWUSER): {os.strerror(ctypes.get_errno())}")
        for name, text in maps.items():
            Path(f"/proc/self/{name}").write_text(text, encoding="ascii")
    os.chroot(path)
    os.chdir("/")


def fill_table(but: int = 0) -> None:
    """For a separate child: only this many more descriptors can be created."""
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
    """The number of a descriptor whose close(2) blocks for this long."""
    with stuck_in_close(seconds) as (number, _):
        yield number


def gives_up_the_gil(call: Callable[[], object], end: Callable[[], object]) -> bool:
    """Whether another thread can run, and call `end`, while `call` waits for that."""
    ran_meanwhile: list[bool] = []
    is_over = False

    def other() -> None:
        time.sleep(0.05)
        ran_meanwhile.append(not is_over)
        end()

    thread = threading.Thread(target=other)
    before = sys.getswitchinterval()
    sys.setswitchinterval(600)  # Python itself lets no other thread run before `call` has finished
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
    close, and a function that makes the peer read. After this many seconds it blocks no longer, so
    that a test that waits for it in the wrong place comes to an end."""
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
    """Whether the condition became true; gives up after this many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# The system call number of futex(2), by machine.
_FUTEX = {"x86_64": "202", "aarch64": "98", "s390x": "238", "riscv64": "98"}
_FUTEX_32_BITS = ("240", "422")


def until_it_waits(thread: threading.Thread) -> None:
    """Waits until the thread is in a system call of its own, and not waiting for Python's lock."""
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    number = _FUTEX.get(os.uname().machine)
    of_python = (number,) if struct.calcsize("P") == 8 else _FUTEX_32_BITS

    def waits() -> bool:
        return path.read_text().split()[0] not in ("running", "-1", *of_python)

    try:
        path.read_text()
    except OSError:
        number = None
    if number is None:  # this kernel lacks the file, or the table lacks this machine
        time.sleep(0.2)
    else:
        assert eventually(waits), f"the thread does not wait: {path.read_text()}"


def lengths(variable: str, short: int, long: int) -> list[Any]:
    """How long a random test runs, for `parametrize`: briefly in each run, and for long among the
    slow tests; or as an environment variable says."""
    import pytest  # not above: most processes that import this file do not need it

    if variable in os.environ:
        return [int(os.environ[variable])]
    return [short, pytest.param(long, marks=pytest.mark.slow)]


def abstract_name(name: str) -> bytes:
    """An abstract AF_UNIX name that no other process of the tests uses."""
    return f"\0cmsgx-test-{name}-{os.getpid()}".encode()


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
    """Skips if a class that refers to itself is never collected, even one of other code:
    free-threaded 3.13 does not once there has been a second thread."""
    plain: Any = type("Plain", (), {})
    plain.it = plain()
    reference = weakref.ref(plain)
    del plain
    gc.collect()
    if reference() is not None:
        import pytest  # which most processes that import this file do not need

        pytest.skip("this Python does not collect classes")


def receive_with(
    pair: Pair, sent: int, *, data: bytes = b"data", want: list[Any] | None = None, **more: Any
) -> cmsgx.Message:
    """A message with this many descriptors, each of a file with its index as content."""
    rx = cmsgx.Receiver(pair[1], 100, want=want or [], **{"fds": sent, **more})
    with open_files(sent) as files:
        cmsgx.send(pair[0], data, fds=files)
    return rx.receive()


def run_all(*targets: Callable[[], object]) -> None:
    """Runs each in a thread; raises the first error that one of them raised."""
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
