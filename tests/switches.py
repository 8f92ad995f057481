"""Helpers of the tests of enable()."""

from __future__ import annotations

import socket

import cmsgx

PASSCRED, PASSSEC, PASSPIDFD = 16, 34, 76

OPTIONS = {cmsgx.Credentials: PASSCRED, cmsgx.SecurityLabel: PASSSEC, cmsgx.PidFd: PASSPIDFD}


def states(sock: socket.socket) -> list[int]:
    return [sock.getsockopt(socket.SOL_SOCKET, option) for option in OPTIONS.values()]
