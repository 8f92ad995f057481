"""A pytest plugin for another project's tests, which makes them run under install()."""

from __future__ import annotations

import socket
from types import FunctionType
from typing import Any

import cmsgx

_seen: dict[str, Any] = {"tests with blockbuster": 0}


def pytest_configure() -> None:
    cmsgx.install()
    _seen.update({name: vars(socket.socket)[name] for name in ("sendmsg", "recvmsg")})


def pytest_runtest_call() -> None:
    # It has replaced the installed function by one that calls it.
    _seen["tests with blockbuster"] += isinstance(vars(socket.socket)["recvmsg"], FunctionType)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    sent, received = (_seen[name].calls for name in ("sendmsg", "recvmsg"))
    terminalreporter.line(
        f"cmsgx: {sent} sendmsg, {received} recvmsg, "
        f"{_seen['tests with blockbuster']} tests with blockbuster"
    )
