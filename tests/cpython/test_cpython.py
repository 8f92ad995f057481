"""CPython's own tests, with cmsgx's functions in place of `socket`'s.

Each test of ids.txt and transfers.txt runs in a child process, once for each way of using cmsgx
(run_ids.py describes them) and once with `socket` as it is. It must pass, with cmsgx called, or be
skipped for the same reason as without cmsgx.
"""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import types
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cmsgx

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
MODES = ("functions", "class", "install", "inheritable")
START_METHODS = ("fork", "spawn", "forkserver")
TIMEOUT = 300

# test.test_socket's classes about sendmsg, recvmsg and their like.
SELECTED = re.compile(
    "Sendmsg|Recvmsg|CmsgMacro|SCMRights|RFC3542|SendRecvFds|Interrupted(Recv|Send)Timeout"
)


def read_list(name: str) -> dict[str, str]:
    """Test ids, each with the remark after it."""
    ids = {}
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        test_id, _, remark = line.partition("#")
        if test_id.strip():
            ids[test_id.strip()] = remark.strip()
    return ids


SOCKET_TESTS = read_list("ids.txt")
TRANSFER_TESTS = read_list("transfers.txt")


class Result(NamedTuple):
    outcome: str
    calls: dict[str, int]
    grown: int


class Run(NamedTuple):
    """The report of one child process."""

    results: dict[str, Result]
    unavailable: str
    trouble: str

    def result(self, test_id: str) -> Result:
        if self.unavailable:
            pytest.skip(self.unavailable)
        return self.results.get(test_id, Result(f"not run: {self.trouble}", {}, 0))


def child_environment(**variables: str) -> dict[str, str]:
    """The environment of a child that imports the cmsgx that is tested here, wherever it is."""
    package = str(Path(cmsgx.__file__).parents[1])
    path = [*variables.pop("PYTHONPATH", "").split(os.pathsep), package]
    if os.environ.get("PYTHONPATH"):
        path.append(os.environ["PYTHONPATH"])
    return {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, path))}


def run(mode: str, module: str, list_name: str, **environment: str) -> Run:
    command = [sys.executable, "-X", "faulthandler", str(HERE / "run_ids.py")]
    with tempfile.TemporaryDirectory(prefix="cmsgx-") as folder:
        report, errors = Path(folder, "report"), Path(folder, "errors")
        with errors.open("wb") as stderr:
            child = subprocess.Popen(
                [*command, mode, module, str(HERE / list_name), str(report)],
                cwd=folder,
                env=child_environment(**environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            status = str(child.wait(TIMEOUT))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = f"not done after {TIMEOUT} s"
        text = report.read_text(encoding="utf-8") if report.exists() else ""
        trouble = errors.read_text(encoding="utf-8", errors="replace")[-4000:]
    results = {}
    unavailable = last = ""
    for line in text.splitlines():
        entry: dict[str, Any] = json.loads(line)
        if "outcome" in entry:
            results[entry["id"]] = Result(entry["outcome"], entry["calls"], entry["grown"])
        unavailable = entry.get("unavailable", unavailable)
        last = entry.get("start", last)
        trouble += entry.get("elsewhere", "")
    return Run(results, unavailable, f"exit status {status}, last test {last}\n{trouble}")


class Runs:
    """Each run, made by the first process of pytest-xdist that needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[str, Run] = {}

    def socket(self, mode: str) -> Run:
        return self.once(mode, mode, "test.test_socket", "ids.txt")

    def transfer(self, mode: str, start_method: str) -> Run:
        return self.once(
            f"{mode}-{start_method}",
            mode,
            "descriptor_transfer",
            "transfers.txt",
            CMSGX_TEST_MODE=mode,
            CMSGX_START_METHOD=start_method,
            PYTHONPATH=str(HERE / "site"),
        )

    def once(self, name: str, *arguments: str, **environment: str) -> Run:
        if name not in self.known:
            path = self.folder / f"cpython-{name}"
            with open(f"{path}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.exists():
                    path.write_bytes(pickle.dumps(run(*arguments, **environment)))
            self.known[name] = pickle.loads(path.read_bytes())
        return self.known[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.getbasetemp()
    return Runs(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder)


def expected_calls(test_id: str) -> tuple[str, ...]:
    """The calls of cmsgx that the test must have made."""
    class_name, _, method = test_id.partition(".")
    if class_name == "CmsgMacroTests":
        return (method.removeprefix("test"),)
    if class_name == "SendRecvFdsTests":
        return ("send_fds", "recv_fds")
    if class_name.startswith("Interrupted"):
        return (
            {
                "testInterruptedSendmsgTimeout": "sendmsg",
                "testInterruptedRecvmsgTimeout": "recvmsg",
                "testInterruptedRecvmsgIntoTimeout": "recvmsg_into",
            }[method],
        )
    if class_name.startswith("Sendmsg"):
        return ("sendmsg",)
    return ("recvmsg_into",) if class_name.startswith("RecvmsgInto") else ("recvmsg",)


def check(stock: Result, result: Result, called: tuple[str, ...]) -> None:
    if stock.outcome == "not in this Python":
        pytest.skip(stock.outcome)
    if stock.outcome.startswith("skipped: "):
        assert result.outcome == stock.outcome
        pytest.skip(f"stock CPython skips it too: {stock.outcome.removeprefix('skipped: ')}")
    if stock.outcome != "passed":
        pytest.skip(f"does not pass with stock CPython either: {stock.outcome.strip()[-300:]}")
    assert result.outcome == "passed", result.outcome
    assert result.grown <= stock.grown, "descriptors stay open"
    for name in called:
        assert result.calls.get(name), f"cmsgx's {name} was not called: {result.calls}"


# Tests that need the same run are kept together.
@pytest.mark.parametrize("test_id", SOCKET_TESTS)
@pytest.mark.parametrize("mode", MODES)
def test_socket_test(runs: Runs, test_id: str, mode: str) -> None:
    result = runs.socket(mode).result(test_id)
    stock = runs.socket("stock").result(test_id)
    if SOCKET_TESTS[test_id].startswith("no call: "):
        assert not result.calls, "the list says that it does not call cmsgx"
        check(stock, result, ())
    else:
        check(stock, result, expected_calls(test_id))


@pytest.mark.parametrize("test_id", TRANSFER_TESTS)
@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("mode", ["install", "inheritable"])
def test_descriptor_transfer(runs: Runs, test_id: str, start_method: str, mode: str) -> None:
    if TRANSFER_TESTS[test_id].startswith("forkserver only") and start_method != "forkserver":
        pytest.skip("no descriptor travels with this start method")
    result = runs.transfer(mode, start_method).result(test_id)
    stock = runs.transfer("stock", start_method).result(test_id)
    check(stock, result, ())
    assert result.calls.get("sendmsg") or result.calls.get("recvmsg")


def test_children_of_the_transfer_tests_have_cmsgx_installed() -> None:
    output = subprocess.check_output(
        [sys.executable, "-c", "import socket; print(vars(socket.socket)['recvmsg'])"],
        env=child_environment(PYTHONPATH=str(HERE / "site"), CMSGX_TEST_MODE="install"),
        text=True,
    )
    assert "method" in output


def test_counted_methods_are_c() -> None:
    for name in ("sendmsg", "recvmsg", "recvmsg_into"):
        assert isinstance(getattr(cmsgx, name), types.BuiltinFunctionType)
        method = vars(cmsgx.socket)[name]
        assert type(method).__module__ == "cmsgx._cmsg"
        assert isinstance(method.calls, int)


@pytest.mark.skipif(
    not (3, 11) <= sys.version_info < (3, 14), reason="the list is for CPython 3.11 to 3.13"
)
def test_list_is_complete() -> None:
    """No test of the chosen classes is missing from ids.txt."""
    code = f"""
import json, unittest, test.test_socket as tests
print(json.dumps([
    f"{{name}}.{{method}}"
    for name, value in vars(tests).items()
    if isinstance(value, type) and issubclass(value, unittest.TestCase)
    and __import__("re").search({SELECTED.pattern!r}, name)
    for method in unittest.TestLoader().getTestCaseNames(value)
]))
"""
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if "ModuleNotFoundError" in child.stderr:
        pytest.skip(child.stderr.strip().splitlines()[-1])
    assert child.returncode == 0, child.stderr
    assert sorted(json.loads(child.stdout)) == sorted(SOCKET_TESTS)
