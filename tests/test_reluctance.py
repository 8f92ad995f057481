"""Public calls over sockets that are never ready at first, and that take and give one byte at a
time: what comes of each is the same."""

from __future__ import annotations

import inspect
import random
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from native import Reluctant, under_reluctance
from public_names import CALLABLES
from support import (
    close_pair,
    content,
    open_fds,
    open_files,
    run_all,
    run_python,
    unix_pair,
)

import cmsgx

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="system calls of Linux, by a preload"
)

START = "import reluctance as here, reluctant_sends, reluctant_receives, reluctant_core\n"
MODES = ["later", "little", "later=2,ready=2,error=2,little"]
# Beyond 16 rounds, or after a POLLERR, a wait has pauses.
PATIENT_MODES = ["later=18", "later,ready=18", "later,error=3"]


def run(code: str) -> list[str]:
    return run_python(START + code, env=under_reluctance()).splitlines()


@pytest.mark.parametrize(
    ("mode", "is_long"),
    [(mode, False) for mode in MODES]
    + [pytest.param(mode, True, marks=pytest.mark.slow) for mode in [*MODES, "later,little"]]
    + [pytest.param(mode, False, marks=pytest.mark.slow) for mode in PATIENT_MODES],
)
def test_what_comes_of_a_call_is_the_same(mode: str, is_long: bool) -> None:
    count, failed, *failures = run(f"here.replay_all({mode!r}, {is_long})")
    assert int(failed) == 0, "\n".join(failures)
    assert int(count) > 400


# Those of the public calls that are in no row: they neither send nor receive.
NO_MESSAGES = {
    "cmsgx.ZeroCopySender.release": "hands over what it holds",
    "cmsgx.ZeroCopySender.acknowledge": "is given what others have received",
    "cmsgx.Receiver.refresh": "asks for options",
    "cmsgx.BatchReceiver.refresh": "asks for options",
    "cmsgx.enable": "sets options",
    "cmsgx.accept_rights": "sets an option",
    "cmsgx.peer_credentials": "asks for an option",
    "cmsgx.peer_groups": "asks for an option",
    "cmsgx.peer_pidfd": "asks for an option",
    "cmsgx.peer_security": "asks for an option",
    "cmsgx.segment_support": "asks for an option; its probe has a test of its own",
    "cmsgx.close_in_background": "closes",
    "cmsgx.wait_closed": "waits for close(2)",
    "cmsgx.fromfd": "makes a socket",
    "cmsgx.socketpair": "makes sockets",
    "cmsgx.uninstall": "puts back what stood there",
    "cmsgx.decode": "reads memory",
    "cmsgx.share": "makes a file",
    "cmsgx.CMSG_ALIGN": "computes",
    "cmsgx.CMSG_LEN": "computes",
    "cmsgx.CMSG_SPACE": "computes",
}
# Objects without a socket, all of whose methods stay within this process.
NO_SOCKET = (
    "cmsgx.Fd", "cmsgx.PidFd", "cmsgx.Message", "cmsgx.MessageFds", "cmsgx.Batch", "cmsgx.View",
    "cmsgx.Enabled", "cmsgx.EmptyMapping", "cmsgx.Credentials", "cmsgx.PeerCredentials",
    "cmsgx.Rights", "cmsgx.SecurityLabel", "cmsgx.Unknown",
)  # fmt: skip


def public_calls() -> set[str]:
    """The functions at the top, and the methods of the classes there."""
    found: set[str] = set()
    for name, value in CALLABLES.items():
        if not name.startswith("cmsgx.") or name.count(".") > 1:
            continue  # wire and kinds read and write memory
        if not inspect.isclass(value):
            found.add(name)
            continue
        for base in value.__mro__:
            if base.__module__.startswith("cmsgx"):
                members = [
                    member
                    for member in vars(base)
                    if not member.startswith("_") and callable(getattr(value, member))
                ]
                found |= {f"{name}.{member}" for member in members}
    return found


def test_each_public_call_is_in_a_row() -> None:
    called = set(run("here.print_names()")[0].split())
    public = public_calls()
    local = {name for name in public if name.startswith(tuple(f"{one}." for one in NO_SOCKET))}
    assert public - called - local - NO_MESSAGES.keys() == set(), (
        "give each a row in reluctant_sends.py or reluctant_receives.py"
    )
    assert NO_MESSAGES.keys() - public == set()
    assert called & (NO_MESSAGES.keys() | local) == set()


def probe() -> None:
    with cmsgx.socket(cmsgx._cmsg.AF_INET, 2) as sock:
        print(cmsgx.segment_support(sock))


def test_the_probe_for_segments_finds_the_same() -> None:
    code = "import test_reluctance; test_reluctance.probe()"
    assert run_python(code) == run_python(code, env=under_reluctance("later,little"))


# All at once --------------------------------------------------------------------------------------


def soak(count: int) -> None:
    """Senders and receivers in threads, which close in the background, now, or not at all."""
    before = open_fds()
    chance = random.Random(count)
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]
    reluctant = Reluctant()
    with ExitStack() as stack, reluctant.mode("later,little,ready"):
        files = stack.enter_context(open_files(8))
        targets: list[Callable[[], object]] = []
        for index, kind in enumerate([*kinds, *kinds]):
            pair = left, right = unix_pair(kind)
            stack.callback(close_pair, pair)
            for sock in pair:
                sock.settimeout(60)
            sent = [chance.choices(range(8), k=chance.randint(0, 3)) for _ in range(count)]
            close: Any = "background" if index % 2 else "now"
            rx = (
                cmsgx.BatchReceiver(right, 4, 8, fds=3, close=close)
                if index < 3
                else cmsgx.Receiver(right, 8, fds=3, close=close)
            )
            targets += [partial(send_each, left, sent, files), partial(receive_each, rx, sent)]
        run_all(*targets)
        assert reluctant.count("again") >= 9 * count  # each send, each receive of one message
    assert cmsgx.wait_closed(60) == 0
    assert open_fds().keys() == before.keys()
    print("done")


def send_each(sock: cmsgx.socket, sent: list[list[int]], files: list[int]) -> None:
    for number, indexes in enumerate(sent):
        fds = [files[index] for index in indexes]
        assert cmsgx.send(sock, bytes([number % 251]), fds=fds) == 1


def receive_each(rx: Any, sent: list[list[int]]) -> None:
    number = 0
    while number < len(sent):
        found: Any = rx.receive()
        for message in [found] if isinstance(found, cmsgx.Message) else found:
            with message:
                assert message.data == bytes([number % 251])
                taken = [message.take(at) for at in range(0, len(message.fds), 2)]
                assert [content(fd) for fd in message.fds] == [str(one) for one in sent[number]]
                for fd in taken:
                    fd.close()
            number += 1


@pytest.mark.parametrize("count", [50, pytest.param(3000, marks=pytest.mark.slow)])
def test_many_at_once_lose_nothing(count: int) -> None:
    code = f"import test_reluctance; test_reluctance.soak({count})"
    assert run_python(code, env=under_reluctance()) == "done\n"


# The library itself -------------------------------------------------------------------------------


def in_the_way() -> None:
    """Of the calls of socket, and of nothing while it is paused or has no mode."""
    reluctant = Reluctant()
    left, right = unix_pair()
    with left, right, open_files(1) as files:
        with reluctant.mode("later=2,little"):
            right.setblocking(False)
            assert left.send(b"data") == 1  # after EINTR
            assert left.sendmsg([b"", b"ata"], [(1, 1, files[0].to_bytes(4, sys.byteorder))]) == 1
            assert reluctant.count("interrupted") == 4
            calls: list[Any] = [
                lambda: right.recv(10),
                lambda: right.recv_into(bytearray(10)),
                lambda: right.recvmsg(10),
            ]
            for call in calls:
                for _ in range(2):
                    with pytest.raises(BlockingIOError):
                        call()
                if call is not calls[2]:
                    call()
            assert reluctant.count("again") == 6
            assert reluctant.count("shortened") == 4
            with reluctant.paused():
                assert left.send(b"more") == 4
                assert right.recv(10) == b"more"
        assert left.send(b"more") == 4
        right.settimeout(0)
        assert right.recv(10) == b"more"
        with reluctant.mode("ready=3"):
            right.settimeout(0.05)
            with pytest.raises(TimeoutError):
                right.recv(10)
            assert reluctant.count("lies") == 3
    print("done")


def test_the_library_is_in_the_way_of_all_calls() -> None:
    code = "import test_reluctance; test_reluctance.in_the_way()"
    assert run_python(code, env=under_reluctance()) == "done\n"
