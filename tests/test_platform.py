"""What replaces Linux's own calls on other systems: src/c/plain/platform.[hc], msghdr.[hc]."""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import sys

import pytest
from checkout import checkout
from native import build
from support import Pair, open_files

import cmsgx
from cmsgx import _cmsg, _peer

TYPES = 3
ROOMS = 120
COUNTS = 4


def has_pidfd() -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            cmsgx.enable(sock, cmsgx.PidFd)
        except cmsgx.NotSupportedError:
            return False
    return True


def printed_by(name: str, *flags: str) -> list[str]:
    program = build(name, "-O1", *flags, "platform.c")
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [program, *(["pidfd"] if has_pidfd() else [])],
        capture_output=True, text=True, timeout=60, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_replacements_do_the_same() -> None:
    """Truncation at each control buffer size, peeks, many messages, waiting, sockets."""
    native = printed_by("platform")
    portable = printed_by("platform-portable", "-DCMSGX_PORTABLE")
    assert [pair for pair in zip(native, portable, strict=True) if pair[0] != pair[1]] == []
    assert native[-1] == "left open 0"
    options = 4 if has_pidfd() else 2
    assert sum("descriptors, control_size" in line for line in native) == (
        TYPES * options * COUNTS * ROOMS
    )


def test_the_program_for_other_systems() -> None:
    """Runs tools/elsewhere here, which each wheel for macOS has to pass."""
    done = subprocess.run(
        [sys.executable, checkout() / "tools" / "elsewhere"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok ") == 9


def test_the_largest_message(pair: Pair) -> None:
    """253 descriptors and credentials: more control data than musl's sendmsg() accepts."""
    sender, receiver = pair
    wanted = cmsgx.Receiver(receiver, 16, fds=253, want=[cmsgx.Credentials])
    with open_files(1) as files:
        cmsgx.send(sender, b"x", fds=files * 253, control=cmsgx.Credentials())
    with wanted.receive() as message:
        assert len(message.fds) == 253
        assert message[cmsgx.Credentials].pid == os.getpid()
        assert not message.truncated


def test_the_largest_of_a_batch(pair: Pair) -> None:
    sender, receiver = pair
    wanted = cmsgx.BatchReceiver(receiver, 2, 16, fds=253, want=[cmsgx.Credentials])
    with open_files(1) as files:
        one = (b"x", files * 253, cmsgx.Credentials())
        assert cmsgx.send_batch(sender, [one, one]) == 2
    received = 0
    while received < 2:
        with wanted.receive() as batch:
            for message in batch:
                assert len(message.fds) == 253
                received += 1


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM),
        (socket.AF_INET, socket.SOCK_DGRAM),
        (socket.AF_INET6, socket.SOCK_DGRAM),
    ],
    ids=["AF_UNIX", "AF_INET", "AF_INET6"],
)
def test_the_family_is_asked_of_the_kernel(family: int, kind: int) -> None:
    with socket.socket(family, kind) as sock:
        assert _cmsg.getfamily(sock) == _cmsg.getfamily(sock.fileno()) == family


def test_the_family_of_what_is_not_a_socket() -> None:
    with open_files(1) as files, pytest.raises(OSError, match=os.strerror(errno.ENOTSOCK)):
        _cmsg.getfamily(files[0])
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        _cmsg.getfamily(files[0])


def test_the_peer_as_bytes(stream: Pair) -> None:
    mine = struct.pack("iII", os.getpid(), os.geteuid(), os.getegid())
    assert _cmsg.getpeer(stream[0]) == mine
    assert cmsgx.peer_credentials(stream[0]).pack() == mine


def test_a_system_without_an_option(stream: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and the BSDs, whose headers have none of these."""
    monkeypatch.setattr(_peer, "number", lambda name: None)
    for ask in (cmsgx.peer_pidfd, cmsgx.peer_groups, lambda sock: cmsgx.accept_rights(sock, True)):
        with pytest.raises(cmsgx.NotSupportedError, match="this system has no SO_P") as caught:
            ask(stream[0])
        assert caught.value.errno == errno.ENOPROTOOPT
    assert cmsgx.peer_security(stream[0]) is None
