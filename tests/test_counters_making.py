"""What it costs to make a receiver for a further socket: measured by counting."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from test_counters import Counter, run_counted

import cmsgx
from cmsgx import kinds
from cmsgx.kinds import _table

# How it is made; the most getsockopt(2) that it takes, one for each option that a socket of its
# family can have on, and two for family and type; the options that it sets.
RECEIVERS: dict[str, tuple[int, Callable[[], socket.socket], Callable[[Any], object], int]] = {
    "UDP": (
        socket.AF_INET,
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda sock: cmsgx.Receiver(sock, 1, want=[kinds.PacketInfo, kinds.Timestamp]),
        2,
    ),
    "UDP, many": (
        socket.AF_INET,
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        lambda sock: cmsgx.BatchReceiver(sock, 2, 1, want=[kinds.PacketInfo, kinds.Timestamp]),
        2,
    ),
    "UDP over IPv6": (
        socket.AF_INET6,
        lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
        lambda sock: cmsgx.Receiver(sock, 1, want=[kinds.PacketInfo6]),
        1,
    ),
    "seqpacket": (
        socket.AF_UNIX,
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET),
        lambda sock: cmsgx.Receiver(sock, 1, fds=4, want=[cmsgx.Credentials, cmsgx.PidFd]),
        2,
    ),
    "stream": (
        socket.AF_UNIX,
        lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
        lambda sock: cmsgx.Receiver(sock, 1, fds=4),
        0,
    ),
}


def count_receivers() -> None:
    """Prints, for each of RECEIVERS, the counts of the first for a socket and of a second."""
    counter = Counter()
    made = {}
    for name, (_, open_socket, make, _) in RECEIVERS.items():
        with open_socket() as before, open_socket() as sock:
            make(before)
            made[name] = [counter.of(lambda make=make, sock=sock: make(sock)) for _ in range(2)]  # type: ignore[misc]
    print(json.dumps(made))


def test_a_receiver_is_made_with_few_system_calls() -> None:
    """The kernel is asked about each option once, and sets none that is set already."""
    made = json.loads(run_counted("import test_counters_making as there; there.count_receivers()"))
    for name, (family, _, _, sets) in RECEIVERS.items():
        rows = [row for row in _table.rows() if not row.families or family in row.families]
        options = {(one.level, one.name) for row in rows for one in row.options}
        for number, counts in zip((sets, 0), made[name], strict=True):
            assert counts["setsockopt"] == number, name
            assert sets < counts["getsockopt"] <= len(options) + 2 + 4, name  # four are watched


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_receiver_is_made_with_few_calls(name: str) -> None:
    """Of Python functions, and of C functions from Python."""
    _, open_socket, make, _ = RECEIVERS[name]
    events: list[tuple[str, str]] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call"):
            what = frame.f_code.co_name if event == "call" else argument.__name__
            events.append((event, what))

    with open_socket() as before, open_socket() as sock:
        make(before)
        sys.setprofile(profile)
        try:
            make(sock)
        finally:
            sys.setprofile(None)
    calls = [what for event, what in events if event == "call"]
    crossings = [what for event, what in events if event == "c_call"][:-1]  # setprofile
    assert calls[:2] == ["<lambda>", "__init__"], calls
    assert len(calls) <= 4, calls
    assert len(crossings) <= 8, crossings
