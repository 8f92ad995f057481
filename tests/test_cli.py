"""The command line: what `cmsgx demo` does and prints."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest
from native import build

import cmsgx
from cmsgx import _cli
from cmsgx._cli import _table, demo

WIDTH = 100


def run(
    *command: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd,
        env={**os.environ, "PYTHONWARNINGS": "error", **(environment or {})},
    )  # fmt: skip


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "cmsgx", "demo", environment=environment)


def cells(line: str) -> list[str]:
    return re.split(r"\s{2,}", line.strip())


class Report:
    """The output of a demo, split into its parts."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        assert [line for line in self.lines if len(line) > WIDTH] == []
        assert [line for line in self.lines if line != line.rstrip()] == []
        found = re.search(
            r"^Process (\d+) sent .*^Process (\d+) found", text, re.DOTALL | re.MULTILINE
        )
        assert found is not None, text
        self.first, self.second = int(found[1]), int(found[2])
        self.used, self.senders = self.tables()
        self.last = self.lines[-1]

    def tables(self) -> Iterator[list[list[str]]]:
        """The rows of each table; wrapped cells are joined again."""
        at = [number for number, line in enumerate(self.lines) if line.startswith("---")]
        for number in at:
            columns = [(m.start(), m.end()) for m in re.finditer("-+", self.lines[number])]
            rows: list[list[str]] = []
            for line in self.lines[number + 1 :]:
                if not line:
                    break
                row = [line[start:end].strip() for start, end in columns]
                if row[-1]:
                    rows.append(row)
                else:
                    rows[-1] = [f"{a} {b}".strip() for a, b in zip(rows[-1], row, strict=True)]
            yield rows


@pytest.fixture(scope="module")
def report() -> Report:
    done = run_demo()
    assert (done.returncode, done.stderr) == (0, "")
    return Report(done.stdout)


def has_passpidfd() -> bool:
    ours, theirs = cmsgx.socketpair()
    with ours, theirs:
        try:
            cmsgx.enable(ours, cmsgx.PidFd)
        except cmsgx.NotSupportedError:
            return False
    return True


# The name of each descriptor, how it arrives, and what is done with it.
USED = [
    (r"file at byte 29", "file",
     r'read on from byte 29: "the second read on."; now the offset is 48 in both'),
    (r"pipe, read end", "pipe, to read", r'read "into the pipe"'),
    (r"pipe, write end", "pipe, to write", r'wrote "back through it", which came back'),
    (r"TCP listener, port \d+", "socket",
     r'accepted port \d+, read "over TCP", wrote "and back", which came back'),
    (r"memfd, sealed", "memfd, sealed", r'checked its seals, mapped it: "sealed memory"'),
    (r"answer: memfd, sealed", "memfd, sealed", r"read the report, \d+ bytes"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(USED)), ids=[sent for sent, _, _ in USED])
def test_each_descriptor_is_sent_arrives_and_is_used(report: Report, index: int) -> None:
    sent, number, arrived, there, use, mark = report.used[index]
    expected = USED[index]
    assert re.fullmatch(expected[0], sent)
    assert arrived == expected[1]
    assert re.fullmatch(expected[2], use)
    assert int(number) > 2
    assert int(there) > 2
    assert mark == "ok"


def test_nothing_else_is_in_the_table(report: Report) -> None:
    assert len(report.used) == len(USED)


@pytest.mark.parametrize(("of", "process"), [("what was sent", "first"), ("the answer", "second")])
def test_each_sender_is_identified(report: Report, of: str, process: str) -> None:
    pid = getattr(report, process)
    person = f"pid {pid}, uid {os.getuid()}, gid {os.getgid()}"
    assert [row[1:] for row in report.senders if row[0] == of] == [
        ["Credentials", person, f"/proc/{pid}/status", "ok"],
        ["PidFd", f"pid {pid}", "the pid in Credentials", "ok"]
        if has_passpidfd()
        else ["PidFd", "-", "this kernel lacks SO_PASSPIDFD (Linux 6.5)", "-"],
    ]


def test_who_made_the_pair_is_not_who_answered(report: Report) -> None:
    made = ["PeerCredentials", f"pid {report.first}", "the process that made it", "ok"]
    assert [row[1:] for row in report.senders if row[0] == "the socket pair"] == [made]
    assert report.first != report.second


def test_the_version_is_at_the_top(report: Report) -> None:
    assert report.lines[0].startswith(f"cmsgx {cmsgx.__version__}, ")


def test_neither_process_leaks(report: Report) -> None:
    pattern = r"Open descriptors in the (\w+) process: (\d+) before, (\d+) after."
    counted = (re.fullmatch(pattern, line) for line in report.lines)
    found = [(match[1], match[2] == match[3]) for match in counted if match]
    assert found == [("second", True), ("first", True)]


def test_the_last_line_counts(report: Report) -> None:
    # Both tables, and the open descriptors of both processes.
    marks = [row[-1] for row in (*report.used, *report.senders)]
    assert report.last == f"All {marks.count('ok') + 2} checks passed."


def test_no_descriptor_stays_open_in_this_process(capfd: pytest.CaptureFixture[str]) -> None:
    # The fixture that every test has checks this.
    assert _cli.main(["demo"]) == 0
    assert Report(capfd.readouterr().out).first == os.getpid()


def test_the_command_is_installed() -> None:
    # By its name if the environment has a folder for commands, and otherwise as it is declared.
    [entry] = (e for e in distribution("cmsgx").entry_points if e.group == "console_scripts")
    assert (entry.name, entry.value) == ("cmsgx", "cmsgx.__main__:main")
    assert entry.load() is _cli.main
    command = Path(sys.executable).with_name("cmsgx")
    if not command.exists():
        pytest.skip(f"no command: there is no {command}")
    done = run(str(command), "demo")
    assert (done.returncode, done.stderr) == (0, "")
    assert Report(done.stdout).last.startswith("All ")


def test_the_second_process_runs_the_same_package_from_any_folder(tmp_path: Path) -> None:
    # A folder with the same name in the current directory must not interfere.
    (tmp_path / "cmsgx").mkdir()
    code = (
        "import os, sys, cmsgx.__main__ as program\n"
        "os.chdir(sys.argv[1])\n"
        "sys.exit(program.main(['demo']))\n"
    )
    done = run(sys.executable, "-c", code, str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_kernel_without_passpidfd_is_reported() -> None:
    library = build("no_passpidfd.so", "-shared", "-fPIC", "no_passpidfd.c", "-ldl")
    others = os.environ.get("LD_PRELOAD", "")
    done = run_demo(
        LD_PRELOAD=f"{others} {library}".strip(),
        ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0",
    )
    assert (done.returncode, done.stderr) == (0, "")
    report = Report(done.stdout)
    pidfds = [row[2:] for row in report.senders if row[1] == "PidFd"]
    assert pidfds == [["-", "this kernel lacks SO_PASSPIDFD (Linux 6.5)", "-"]] * 2
    marks = [row[-1] for row in (*report.used, *report.senders)]
    assert set(marks) == {"ok", "-"}
    assert report.last == f"All {marks.count('ok') + 2} checks passed."


def test_what_does_not_hold_is_shown_and_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This process sends other bytes than the second one expects, through the pipe and over TCP.
    monkeypatch.setattr(demo, "_PIPE_THERE", b"something else")
    monkeypatch.setattr(demo, "_TCP_BACK", b"another answer")
    assert _cli.main(["demo"]) == 1
    report = Report(capfd.readouterr().out)
    failed = {row[0].partition(",")[0]: row[4] for row in report.used if row[-1] == "FAILED"}
    assert failed == {
        "pipe": "b'something else'",
        "TCP listener": failed["TCP listener"],
    }
    assert failed["TCP listener"].endswith("b'and back' came back")
    assert report.last == f"2 of {len(report.used) + len(report.senders) + 2} checks FAILED."


def test_a_wrong_identity_fails(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_person_in_proc", lambda pid: "pid 1, uid 2, gid 3")
    assert _cli.main(["demo"]) == 1
    report = Report(capfd.readouterr().out)
    [row] = (row for row in report.senders if row[-1] == "FAILED")
    assert row[3] == "/proc: pid 1, uid 2, gid 3"


@pytest.mark.parametrize("where", ["before it is ready", "before its answer"])
def test_a_second_process_that_ends_early(
    where: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys" if "ready" in where else (
        "import cmsgx, sys\n"
        "with cmsgx.Fd(int(sys.argv[1])).socket() as sock:\n"
        "    sock.send(b'ready'); sock.recv(100)\n"
    )  # fmt: skip

    def start(number: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", code, str(number)], pass_fds=[number])

    monkeypatch.setattr(demo, "_start_second", start)
    assert _cli.main(["demo"]) == 1
    out, errors = capfd.readouterr()
    assert out == ""
    expected = "was ready" if "ready" in where else "without an answer"
    assert errors.startswith("cmsgx demo: the second process ended")
    assert errors.endswith(f"{expected}\n")


@pytest.mark.slow
def test_a_failure_here_does_not_wait_for_the_second_process(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(parcel: object) -> None:
        raise OSError(errno.ENETUNREACH, "no network")

    monkeypatch.setattr(demo._Parcel, "connect", connect)
    monkeypatch.setattr(demo, "_SECONDS", 3600)
    assert _cli.main(["demo"]) == 1
    assert capfd.readouterr().err == f"cmsgx demo: [Errno {errno.ENETUNREACH}] no network\n"


# The rest of the command line -------------------------------------------------------------------


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.slow
def test_an_output_that_nobody_reads_ends_it_silently(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "cmsgx", "demo"], stdout=writer, stderr=subprocess.PIPE, text=True,
        timeout=60, check=False, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.slow
def test_an_output_that_is_full_is_reported() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cmsgx", "demo"], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"cmsgx: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        _cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"cmsgx {cmsgx.__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["demo", "surplus"]])
def test_wrong_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        _cli.main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("usage: cmsgx")


def test_help_describes_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        _cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "demo" in text
    assert "--version" in text


def test_a_command_is_a_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "frobnicate.py").write_text(
        '"""Frobnicate 100 % of it.\n\nAll."""\n'
        "def add_arguments(parser): parser.add_argument('n', type=int)\n"
        "def run(arguments): return arguments.n\n"
    )
    (tmp_path / "_helper.py").write_text("raise AssertionError('private')\n")
    monkeypatch.setattr(_cli, "__path__", [*_cli.__path__, str(tmp_path)])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert _cli.main(["frobnicate", "7"]) == 7
    sys.modules.pop("cmsgx._cli.frobnicate")


def test_the_peer_option_is_not_in_the_help() -> None:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    assert "--peer" not in parser.format_help()


def test_a_table_wraps_what_is_too_wide() -> None:
    rows = [("a", "one two three four"), ("bc", "")]
    assert _table.table(("x", "words"), rows, (5, 9)) == [
        "x   words",
        "--  ---------",
        "a   one two",
        "    three",
        "    four",
        "bc",
    ]
