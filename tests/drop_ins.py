"""Helpers of the tests of the drop-in functions."""

from __future__ import annotations

import socket
import sys
from typing import Any

MSG_CMSG_CLOEXEC = 0x40000000

SCM_RIGHTS = socket.SCM_RIGHTS


class Overriding(socket.socket):
    """Overrides all of them, and counts their calls."""

    calls = 0

    def sendmsg(self, *args: Any) -> int:
        self.calls += 1
        return super().sendmsg(*args)

    def recvmsg(self, *args: Any) -> Any:
        self.calls += 1
        return super().recvmsg(*args)

    def recvmsg_into(self, *args: Any) -> Any:
        self.calls += 1
        return super().recvmsg_into(*args)


def received(answer: Any) -> int:
    """The one descriptor in what a call returned."""
    if isinstance(answer[1][0], int):
        number: int = answer[1][0]
        return number
    return int.from_bytes(answer[1][0][2][:4], sys.byteorder)
