"""Network namespaces for a single test. They disappear with the last socket in them, whatever
happens."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import pytest
from attempts import attempt, call, refused
from support import eventually

T = TypeVar("T")

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFMTU = 0x8913, 0x8914, 0x8922
IFF_UP = 1


def _why_no_ipv6() -> str:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        return f"IPv6: {error}"
    return ""


NO_IPV6 = _why_no_ipv6()
"""Why this machine cannot make one, or an empty string."""
needs_ipv6 = pytest.mark.skipif(bool(NO_IPV6), reason=NO_IPV6 or "-")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Runs a program of iproute2 in the namespace of the calling thread; skips if it is not
    installed."""
    with attempt(command[0], errno.ENOENT, errno.EACCES):
        return subprocess.run(command, capture_output=True, text=True, check=False)


def ip(*arguments: str) -> str:
    """Runs ip(8) in the namespace of the calling thread; skips if the kernel or the user may not do
    that."""
    done = run("ip", *arguments)
    what = f"ip {' '.join(arguments)}: {done.stderr.strip()}"
    for number in (errno.EPERM, errno.EOPNOTSUPP):
        if os.strerror(number) in done.stderr:
            refused(number, what)
    if "Unknown device type" in done.stderr:
        refused(errno.EOPNOTSUPP, what)
    assert done.returncode == 0, what
    return done.stdout


class Namespace:
    """Each has a loopback interface that is up, with the requested MTU."""

    def __init__(self, mtu: int = 65536) -> None:
        self._fd = -1
        self._in_thread(self._make)
        self.run(lambda: self._loopback(mtu))

    def _make(self) -> None:
        with attempt(
            "unshare(CLONE_NEWNET)", errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOSPC
        ):
            call("unshare", CLONE_NEWNET)
        self._fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def _loopback(self, mtu: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            request = struct.pack("16si20x", b"lo", mtu)
            fcntl.ioctl(sock, SIOCSIFMTU, request)
            flags = struct.unpack_from("16sh", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))

    @staticmethod
    def _in_thread(function: Callable[[], T]) -> T:
        """A namespace is a property of a thread, and this thread ends with the call."""
        result: list[T] = []
        raised: list[BaseException] = []

        def body() -> None:
            try:
                result.append(function())
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if raised:
            raise raised[0]
        return result[0]

    def run(self, function: Callable[[], T]) -> T:
        """Calls `function` in the namespace. A socket that it creates, or a process that it starts,
        stays there."""

        def inside() -> T:
            call("setns", self._fd, CLONE_NEWNET)
            return function()

        return self._in_thread(inside)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in the namespace meanwhile, and what it creates stays there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            call("setns", self._fd, CLONE_NEWNET)
            try:
                yield
            finally:
                call("setns", before, CLONE_NEWNET)
        finally:
            os.close(before)

    def socket(self, *arguments: int) -> socket.socket:
        """socket.socket() in the namespace."""
        return self.run(lambda: socket.socket(*arguments))

    def reaches(self, family: int, host: str) -> bool:
        """Whether this address answers that the port is closed."""
        with self.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.1)
            try:
                sock.connect((host, 1))
                sock.send(b"")
                sock.recv(1)
            except OSError as error:
                return isinstance(error, ConnectionRefusedError)
        return False

    def ip(self, text: str) -> str:
        """Runs ip(8) in the namespace."""
        return self.run(lambda: ip(*text.split()))

    @property
    def path(self) -> str:
        """Its name for other processes."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def write(self, path: str, text: str) -> None:
        """Writes to a file of /proc/sys/net."""

        def write() -> None:
            with open(path, "w") as file:
                file.write(text)

        self.run(write)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Namespace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Chain:
    """Namespaces in a row, all of them routers except the first and the last.

    From the first, `spaces[0]`, the last is at 10.9.N.2 and fd09:N::2, N its number; the router
    before it at 10.9.N-1.2, and so on. `mtu` is that of the last link.
    """

    def __init__(self, links: int, mtu: int = 1500) -> None:
        self.links = links
        self.spaces: list[Namespace] = []
        try:
            self._make(mtu)
        except BaseException:
            self.close()
            raise

    def _make(self, mtu: int) -> None:
        for _ in range(self.links + 1):
            self.spaces.append(Namespace())
        for space in self.spaces:
            space.write("/proc/sys/net/ipv4/ip_forward", "1")
            # Tests trigger more ICMP errors than one a second.
            space.write("/proc/sys/net/ipv4/icmp_ratelimit", "0")
            if not NO_IPV6:
                space.write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
                space.write("/proc/sys/net/ipv6/conf/default/accept_dad", "0")
                space.write("/proc/sys/net/ipv6/icmp/ratelimit", "0")
        for n in range(1, self.links + 1):
            left, right = self.spaces[n - 1], self.spaces[n]
            left.ip(f"link add right type veth peer name left netns {right.path}")
            size = mtu if n == self.links else 1500
            for space, name, host in ((left, "right", 1), (right, "left", 2)):
                space.ip(f"addr add 10.9.{n}.{host}/24 dev {name}")
                if not NO_IPV6:
                    space.ip(f"-6 addr add fd09:{n}::{host}/64 dev {name} nodad")
                space.ip(f"link set {name} mtu {size} up")
        families = [socket.AF_INET] if NO_IPV6 else [socket.AF_INET, socket.AF_INET6]
        for family in families:
            self._route(family)
        # A link is usable only some time after it was set up.
        for family in families:
            last = self.address(family, self.links)
            assert eventually(partial(self.spaces[0].reaches, family, last)), "no way through"

    def _route(self, family: int) -> None:
        """Everything that is not directly connected is to the right, except what is to the left."""
        ip, net, host = (
            ("", "10.9.{}.0/24", "10.9.{}.{}") if family == socket.AF_INET
            else ("-6 ", "fd09:{}::/64", "fd09:{}::{}")
        )  # fmt: skip
        for n in range(1, self.links + 1):
            self.spaces[n - 1].ip(f"{ip}route add default via {host.format(n, 2)}")
            for m in range(1, n):
                self.spaces[n].ip(f"{ip}route add {net.format(m)} via {host.format(n, 1)}")

    def address(self, family: Any, n: int) -> str:
        """The address of the namespace with this number, as seen from the one before it."""
        return f"10.9.{n}.2" if family == socket.AF_INET else f"fd09:{n}::2"

    def close(self) -> None:
        for space in self.spaces:
            space.close()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
