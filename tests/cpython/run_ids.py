"""Runs a list of CPython's own tests in this process, with or without cmsgx instead of `socket`.

    python run_ids.py MODE MODULE LIST REPORT

MODE says what the tests use:

    stock        `socket` as it is: the measure for the others
    functions    cmsgx.sendmsg(sock, ...) and the rest, on plain sockets
    class        the methods of cmsgx.socket, and cmsgx's module functions
    install      `socket` after cmsgx.install()
    inheritable  `socket` after cmsgx.install(cloexec=False)

REPORT gets one JSON line when a test starts and one when it ends: its outcome, how often each of
cmsgx's calls ran meanwhile, and how many more descriptors are open than before.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import socket
import sys
import threading
import traceback
import types
import unittest
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

METHODS = ("sendmsg", "recvmsg", "recvmsg_into")
FUNCTIONS = ("send_fds", "recv_fds", "CMSG_LEN", "CMSG_SPACE")


class Counters:
    """Counts calls: those that C counts itself, and those of functions wrapped here."""

    def __init__(self) -> None:
        self.wrapped: Counter[str] = Counter()
        self.classes: list[type] = []
        self.lock = threading.Lock()

    def wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.lock:
                self.wrapped[name] += 1
            return function(*args, **kwargs)

        return counted

    def read(self) -> Counter[str]:
        calls = Counter(self.wrapped)
        for owner in self.classes:
            for name in METHODS:
                calls[name] += vars(owner)[name].calls
        return calls


def function_socket(counters: Counters, cmsgx: Any) -> type[socket.socket]:
    """A socket class whose instances call the drop-in functions.

    They are attributes of the instance: the type keeps socket.socket's own methods, as on the
    sockets of a program that calls cmsgx.sendmsg(sock, ...), so that the fast path is taken.
    """

    class FunctionSocket(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            for name in METHODS:
                function = functools.partial(getattr(cmsgx, name), self)
                setattr(self, name, counters.wrap(name, function))

        def accept(self) -> tuple[socket.socket, Any]:
            accepted, address = super().accept()
            timeout = accepted.gettimeout()
            again = FunctionSocket(fileno=accepted.detach())
            again.settimeout(timeout)
            return again, address

    return FunctionSocket


def pair_maker(socket_type: type[socket.socket]) -> Callable[..., Any]:
    def socketpair(*args: Any) -> tuple[socket.socket, socket.socket]:
        first, second = socket.socketpair(*args)
        return socket_type(fileno=first.detach()), socket_type(fileno=second.detach())

    return socketpair


def substitute(mode: str, module: Any) -> Counters:
    """Puts cmsgx in place as MODE says, and returns the counter of its calls."""
    counters = Counters()
    if mode == "stock":
        return counters
    cmsgx: Any = importlib.import_module("cmsgx")
    if mode in ("install", "inheritable"):
        before = {name: getattr(socket, name) for name in FUNCTIONS}
        cmsgx.install(cloexec=mode == "install")
        counters.classes.append(socket.socket)
        for name, original in before.items():
            if getattr(socket, name) is not original:
                setattr(socket, name, counters.wrap(name, getattr(socket, name)))
        return counters
    substitute = types.ModuleType("socket", "socket, with cmsgx in place of some of it")
    vars(substitute).update(vars(socket))
    for name in FUNCTIONS:
        setattr(substitute, name, counters.wrap(name, getattr(cmsgx, name)))
    replacement: dict[str, Any]
    if mode == "functions":
        socket_type = function_socket(counters, cmsgx)
        replacement = {"socket": socket_type, "socketpair": pair_maker(socket_type)}
    elif mode == "class":
        counters.classes.append(cmsgx.socket)
        replacement = {name: getattr(cmsgx, name) for name in ("socket", "socketpair", "fromfd")}
    else:
        raise SystemExit(f"no such mode: {mode}")
    vars(substitute).update(replacement)
    module.socket = substitute
    return counters


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Reporter(unittest.TestResult):
    def __init__(self, report: TextIO, counters: Counters) -> None:
        super().__init__()
        self.report = report
        self.counters = counters
        self.outcome = ""
        self.elsewhere: list[str] = []
        self.running = False

    def write(self, **line: Any) -> None:
        self.report.write(json.dumps(line) + "\n")
        self.report.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.running = True
        self.outcome = "passed"
        self.write(start=short_id(test))
        self.calls = self.counters.read()
        self.open = open_descriptors()

    def stopTest(self, test: unittest.TestCase) -> None:
        if self.running:
            calls = self.counters.read() - self.calls
            grown = open_descriptors() - self.open
            if grown > 0:
                gc.collect()  # objects held by a cycle are not a leak
                grown = open_descriptors() - self.open
            self.write(id=short_id(test), outcome=self.outcome, calls=dict(calls), grown=grown)
        self.running = False
        super().stopTest(test)

    def note(self, test: unittest.TestCase, outcome: str) -> None:
        if not self.running and isinstance(test, unittest.TestCase):  # 3.12.1: it never started
            self.write(id=short_id(test), outcome=outcome, calls={}, grown=0)
        elif not self.running:  # setUpModule, setUpClass and their like
            self.elsewhere.append(f"{test}: {outcome}")
        elif self.outcome == "passed" or not outcome.startswith("skipped"):
            self.outcome = outcome

    def fail(self, test: unittest.TestCase, error: Any) -> None:
        self.note(test, "failed: " + "".join(traceback.format_exception(*error)))

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self.fail(test, err)

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.fail(test, err)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.fail(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.note(test, f"skipped: {reason}")

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self.note(test, "expected failure")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self.note(test, "unexpected success")


def short_id(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def read_list(path: Path) -> dict[str, str]:
    """The test ids of a list, each with the remark after it."""
    ids = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, remark = line.partition("#")
        if name.strip():
            ids[name.strip()] = remark.strip()
    return ids


def main(mode: str, module_name: str, list_path: str, report_path: str) -> None:
    with open(report_path, "w", encoding="utf-8") as report:
        try:
            module: Any = importlib.import_module(module_name)
        except ImportError as error:
            report.write(json.dumps({"unavailable": f"import {module_name}: {error!r}"}) + "\n")
            return
        counters = substitute(mode, module)
        reporter = Reporter(report, counters)
        suite = unittest.TestSuite()
        ids = read_list(Path(list_path))
        for name in ids:
            class_name, _, method = name.partition(".")
            test_class: Any = getattr(module, class_name, None)
            if hasattr(test_class, method):
                suite.addTest(test_class(method))
            else:
                reporter.write(id=name, outcome="not in this Python", calls={}, grown=0)
        suite.run(reporter)
        for line in reporter.elsewhere:
            reporter.write(elsewhere=line)


if __name__ == "__main__":
    main(*sys.argv[1:])
