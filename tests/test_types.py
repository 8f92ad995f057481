"""The types that users see: the verdict of mypy --strict and pyright on a sample.

tools/lint runs this, where both are installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SOURCES = Path(__file__).parent.parent / "src"

GOOD = """
import ipaddress
import socket
from typing import Any, assert_type

import cmsgx
from cmsgx import BatchReceiver, BatchResult, Credentials, ErrorReceiver, Fd, Message, Outgoing
from cmsgx import OutgoingLike, PidFd, Receiver, Rights
from cmsgx.kinds import ControlMessage, ErrorReport, ExtendedError, KindOption, Timestamping
from cmsgx.kinds import PacketInfo, PacketInfo6, TimestampingFlags, TxTime, UdpGro
from cmsgx.wire import Batch, Segments, View


class OwnFd(Fd):
    pass


class OwnPidFd(PidFd):
    pass


def taking(msg: Message) -> None:
    assert_type(msg.take(0, fd_class=OwnFd), OwnFd)
    assert_type(msg.take(PidFd, fd_class=OwnPidFd), OwnPidFd)
    assert_type(msg.take_one(), Fd)
    assert_type(msg.take_one(fd_class=OwnPidFd), OwnPidFd)
    assert_type(msg.take_all(fd_class=OwnFd), list[OwnFd])
    assert_type(msg.detach_all(), list[int])


def lookups(msg: Message) -> None:
    assert_type(msg[Credentials], Credentials)
    assert_type(msg[Credentials].pid, int | None)
    assert_type(msg[Rights], Rights)
    assert_type(msg[PidFd], PidFd)
    assert_type(msg.get(Credentials), Credentials | None)
    assert_type(msg.get(PidFd, None), PidFd | None)
    assert_type(msg.get(Credentials, "none"), Credentials | str)
    assert_type(msg.get_all(Credentials), tuple[Credentials, ...])
    assert_type(msg.take(0), Fd)
    assert_type(msg.take(PidFd), PidFd)
    assert_type(msg.take_all(), list[Fd])
    assert_type(msg.control, tuple[ControlMessage | PidFd, ...])
    assert_type(PidFd in msg, bool)
    assert_type(msg.fds[0], Fd)
    assert_type(msg.fds[:1], tuple[Fd, ...])
    assert_type(msg.eof, bool | None)
    assert_type(msg.closed_fds, int | None)
    assert_type(msg.data, bytes)
    for one in msg:
        assert_type(one, ControlMessage | PidFd)
    for fd in msg.fds:
        assert_type(fd, Fd)


def sends(sock: socket.socket) -> None:
    assert_type(cmsgx.try_send(sock, [b"a", b"b"], fds=[0]), int | None)
    with cmsgx.PreparedSend(sock, b"a", fds=iter([0]), flags=0, address=None) as prepared:
        assert_type(prepared, cmsgx.PreparedSend)
        assert_type(prepared.try_send(), int | None)
        assert_type(prepared.sent, int)
        assert_type(prepared.is_done, bool)


def errors(sock: socket.socket) -> None:
    with ErrorReceiver(sock, want=[ExtendedError]) as receiver:
        assert_type(receiver, ErrorReceiver)
        assert_type(receiver.receive(timeout=None), ErrorReport)
        assert_type(receiver.try_receive(), ErrorReport | None)
        assert_type(list(receiver), list[ErrorReport])
    for report in cmsgx.receive_errors(sock, timeout=1.5):
        assert_type(report, ErrorReport)


def calls(sock: socket.socket, fd: Fd) -> None:
    assert_type(cmsgx.send(sock, b"x", fds=[fd, 0, sock]), int)
    assert_type(cmsgx.send(sock, b"x", fds=fd, control=Rights(sock)), int)
    assert_type(cmsgx.receive(sock, 10, fds=cmsgx.MAX_FDS), Message)
    assert_type(cmsgx.send(fd, [b"x", bytearray(1)], control=Credentials(), timeout=None), int)
    assert_type(cmsgx.receive(sock, 10, fds=1, timeout=1.5, on_truncation="keep"), Message)
    with Receiver(sock, 10, want=[Credentials]) as receiver, BatchReceiver(sock, 2, 10) as batches:
        assert_type(receiver, Receiver)
        assert_type(receiver.receive(bufsize=4, timeout=None), Message)
        assert_type(batches, BatchReceiver)
        assert_type(receiver.try_receive(bufsize=4, flags=1), Message | None)
        assert_type(batches.try_receive(), Batch | None)
        assert_type(receiver.is_end(receiver.receive()), bool)
        assert_type(batches.is_end(batches.receive()), bool)
    with Receiver(sock, 10, want=[Credentials, PidFd]).receive() as msg:
        assert_type(msg, Message)
        assert_type(cmsgx.sendmsg(sock, [msg.data], [Credentials(), (1, 1, b"")]), int)
        if isinstance(msg.view, View):
            assert_type(cmsgx.decode(1, 2, msg.view), Any)
        assert_type(msg[PacketInfo].reply(), PacketInfo)
        assert_type(msg[PacketInfo6].reply(), PacketInfo6)
        assert_type(cmsgx.send(sock, b"x", control=[msg[PacketInfo].reply()]), int)
        assert_type(msg[PacketInfo].local == ipaddress.ip_address("::1"), bool)
    for msg in Receiver(sock, into=bytearray(10), fds=3):
        assert_type(msg.address, Any)
        assert_type(msg.sender, cmsgx.Address | None)
        cmsgx.send(sock, b"answer", address=msg.address)
        cmsgx.send(sock, b"answer", address=msg.sender)
        sock.sendto(b"answer", msg.address)
        if isinstance(msg.address, cmsgx.Address):
            assert_type(msg.address.family, int)
        assert_type(cmsgx.Address(2, ("127.0.0.1", 9)), cmsgx.Address)
    assert_type(
        cmsgx.recvmsg(sock, 10, 20), tuple[bytes, list[tuple[int, int, bytes]], int, Any]
    )
    assert_type(cmsgx.recv_fds(sock, 10, 2, cloexec=False), tuple[bytes, list[int], int, Any])
    with fd as same:
        assert_type(same, Fd)
    assert_type(fd.dup(), Fd)
    assert_type(fd.socket(), cmsgx.socket)
    assert_type(fd.check(seals=["write", "grow"]) and fd.check(seals="seal"), bool)
    with fd.map(size=5, seals="future-write") as content, memoryview(content) as view:
        assert_type(content[:5], bytes)
        assert_type(view, memoryview[int])


def batches(sock: socket.socket, fd: Fd) -> None:
    rx = BatchReceiver(sock, 64, 2048, fds=1, want=[Credentials, UdpGro], close="background")
    with rx.receive(flags=0, timeout=None) as batch:
        assert_type(batch, Batch)
        assert_type(batch[0], Message)
        assert_type(batch[1:], tuple[Message, ...])
        assert_type(len(batch), int)
        assert_type(batch.closed, bool)
    for batch in rx:
        for msg in batch:
            assert_type(msg, Message)
            assert_type(msg.segments, Segments)
            assert_type(msg.segments[0], View)
            for segment in msg.segments:
                assert_type(segment, View)
            cmsgx.send_batch(sock, [(segment, (), (), msg.address) for segment in msg.segments])
    assert_type(rx.count, int)
    assert_type(cmsgx.send_batch(sock, [b"x", bytearray(1), (b"x", [fd]), Outgoing(b"x")]), int)
    assert_type(cmsgx.send_batch(fd, (Outgoing([b"x"], [0], Credentials()),), timeout=1), int)
    assert_type(cmsgx.send_batch(fd, [b"x"], on_error="raise"), int)
    skipped = cmsgx.send_batch(fd, [b"x"], on_error="skip")
    assert_type(skipped, BatchResult)
    assert_type(skipped.done, int)
    for index, error in skipped.skipped:
        assert_type(index, int)
        assert_type(error, OSError)
    mixed: list[OutgoingLike] = [
        b"x", (b"x",), ([b"x"], fd), (b"x", [0, fd]), (b"x", (), [Credentials(), (1, 2, b"")]),
        (bytearray(1), (), Credentials(), ("127.0.0.1", 9)), Outgoing(b"x", control=[(1, 2, b"")]),
    ]
    assert_type(cmsgx.send_batch(sock, mixed), int)
    assert_type(cmsgx.segment_support(sock), int)
    assert_type(cmsgx.send_segments(sock, bytearray(9), 3, control=[Credentials()]), int)


def options(sock: socket.socket) -> None:
    stamps = Timestamping.option(TimestampingFlags.TX_SOFTWARE | TimestampingFlags.OPT_ID)
    assert_type(stamps, KindOption)
    assert_type(UdpGro.option(), KindOption)
    Receiver(sock, 10, want=Credentials)
    Receiver(sock, 10, want=stamps)
    Receiver(sock, 10, want=[Credentials, PidFd, TxTime.option(1, report_errors=True)])
    BatchReceiver(sock, 2, 10, want=PidFd)
    BatchReceiver(sock, 2, 10, want={stamps, UdpGro})
    with cmsgx.enable(sock, UdpGro, stamps) as handle:
        handle.restore()


def methods(sock: cmsgx.socket) -> None:
    assert_type(sock.sendmsg([b"x"], [Credentials()]), int)
    assert_type(sock.recvmsg(10, 20), tuple[bytes, list[tuple[int, int, bytes]], int, Any])
    assert_type(sock.recv_fds(10, maxfds=2), tuple[bytes, list[int], int, Any])
    plain: socket.socket = sock
    assert_type(plain.recvmsg(10)[0], bytes)
"""
# Each line is an error of its own: mypy's message must contain the comment after it.
BAD = """
import cmsgx
msg = cmsgx.receive(0, 1)
msg[int]  # type-var
msg.take("0")  # call-overload
msg.get(cmsgx.Credentials).pid  # union-attr
cmsgx.receive(0, 1, on_truncation="ignore")  # arg-type
cmsgx.send(0, "text")  # arg-type
cmsgx.sendmsg(0, buffers=[b""])  # call-arg
cmsgx.Fd("0")  # arg-type
cmsgx.Fd(0).map(seals="hard")  # arg-type
msg.flags = 1  # misc
cmsgx.Receiver(0, 1, want=[cmsgx.Fd])  # list-item
cmsgx.Receiver(0, 1, want=cmsgx.Credentials())  # arg-type
cmsgx.Receiver(0, 1, want=[cmsgx.Credentials()])  # list-item
cmsgx.enable(0, cmsgx.kinds.Ttl(3))  # arg-type
cmsgx.kinds.Timestamping.option("OPT_ID")  # arg-type
cmsgx.install(True)  # call-arg
cmsgx.BatchReceiver(0, 1)  # call-arg
cmsgx.BatchReceiver(0, 1, 1, close="never")  # arg-type
cmsgx.BatchReceiver(0, 1, 1).receive()["0"]  # call-overload
cmsgx.send_batch(0, [5])  # list-item
cmsgx.send_batch(0, [("text", [0])])  # list-item
cmsgx.send_batch(0, [()])  # list-item
cmsgx.Outgoing(b"x", ["0"])  # list-item
cmsgx.Outgoing(b"x", (), [0])  # list-item
cmsgx.Outgoing("text")  # arg-type
cmsgx.send_segments(0, [b""], 1)  # arg-type
"""


def run_mypy(path: Path, text: str) -> list[str]:
    api = pytest.importorskip("mypy.api")
    path.write_text(text)
    out, errors, _ = api.run(
        [
            "--strict", "--no-incremental", "--hide-error-context", "--no-error-summary",
            "--no-pretty", "--config-file=", str(path),
        ]
    )  # fmt: skip
    assert not errors, errors
    return [line for line in str(out).splitlines() if ": note: " not in line]


def run_pyright(folder: Path, text: str) -> list[dict[str, Any]]:
    """The errors, with pyright in strict mode."""
    pytest.importorskip("pyright")
    (folder / "sample.py").write_text(text)
    # No stubs other than for the C part: its types are in _cmsg.pyi.
    config = {
        "include": ["sample.py"], "extraPaths": [str(SOURCES)], "typeCheckingMode": "strict",
        "pythonVersion": "3.11", "reportMissingModuleSource": False,
    }  # fmt: skip
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "-p", folder],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [one for one in found if one["severity"] == "error"]


@pytest.fixture(autouse=True)
def checked_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", str(SOURCES))


def test_kinds_and_calls_are_typed_precisely(tmp_path: Path) -> None:
    assert run_mypy(tmp_path / "sample.py", GOOD) == []


def test_misuse_is_a_type_error(tmp_path: Path) -> None:
    expected = {
        number: line.partition("#")[2].strip()
        for number, line in enumerate(BAD.splitlines(), 1)
        if "#" in line
    }
    found = {}
    for line in run_mypy(tmp_path / "sample.py", BAD):
        number, code = int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]")
        found[number] = code
    assert found == expected


def test_pyright_understands_the_same(tmp_path: Path) -> None:
    assert run_pyright(tmp_path, GOOD) == []


def test_pyright_refuses_the_same(tmp_path: Path) -> None:
    expected = {number for number, line in enumerate(BAD.splitlines(), 1) if "#" in line}
    found = {one["range"]["start"]["line"] + 1 for one in run_pyright(tmp_path, BAD)}
    assert found == expected
