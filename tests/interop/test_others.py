"""blockbuster, trio, uvloop, and anyio's own tests of UNIX sockets under install()."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Pair

import cmsgx

HERE = Path(__file__).parent


def test_blockbuster_sees_what_is_installed(stream: Pair) -> None:
    """It puts its own functions on socket.socket, which call the previous ones."""
    import blockbuster

    async def use(first: socket.socket, second: socket.socket) -> None:
        with pytest.raises(blockbuster.BlockingError):
            second.recvmsg(1)
        for sock in (first, second):
            sock.setblocking(False)
        assert cmsgx.sendmsg(first, [b"x"]) == 1
        assert cmsgx.recvmsg(second, 1)[0] == b"x"
        assert cmsgx.send(first, b"y") == 1
        with cmsgx.Receiver(second, 1).receive() as message:
            assert message.data == b"y"
        assert second.sendmsg([b"z"]) == 1
        assert first.recvmsg_into([bytearray(1)])[0] == 1

    cmsgx.install()
    try:
        first, second = socket.socketpair()
        with first, second, blockbuster.blockbuster_ctx():
            asyncio.run(use(first, second))
    finally:
        cmsgx.uninstall()


CALLS: dict[str, Callable[[Any], object]] = {
    "sendmsg": lambda sock: cmsgx.sendmsg(sock, [b"x"]),
    "send_fds": lambda sock: cmsgx.send_fds(sock, [b"x"], [0]),
    "recvmsg": lambda sock: cmsgx.recvmsg(sock, 1),
    "recvmsg with room": lambda sock: cmsgx.recvmsg(sock, 1, 100),
    "recvmsg_into": lambda sock: cmsgx.recvmsg_into(sock, [bytearray(1)]),
    "recv_fds": lambda sock: cmsgx.recv_fds(sock, 1, 1),
    "send": lambda sock: cmsgx.send(sock, b"x"),
    "receive": lambda sock: cmsgx.receive(sock, 1),
    "Receiver": lambda sock: cmsgx.Receiver(sock, 1),
}


@pytest.mark.parametrize("call", CALLS)
def test_trios_sockets_are_refused_by_name(call: str) -> None:
    import trio

    async def use() -> None:
        first, second = trio.socket.socketpair()
        with first, second:
            with pytest.raises(TypeError, match=r"trio\._socket\._SocketType.*\.fileno\(\)"):
                CALLS[call](first)
            cmsgx.send(first.fileno(), b"x")
            assert cmsgx.receive(second.fileno(), 1).data == b"x"

    trio.run(use)


@pytest.fixture(scope="session")
def kept_by_uvloop() -> None:
    """The first loop opens a pipe for signals, which stays open for the process."""
    import uvloop

    uvloop.new_event_loop().close()


@pytest.mark.parametrize("call", ["send", "receive", "Receiver"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.usefixtures("kept_by_uvloop")
def test_the_socket_of_a_transport_is_refused(loop: str, call: str) -> None:
    async def use() -> None:
        left, right = socket.socketpair()
        with right:
            _, writer = await asyncio.open_unix_connection(sock=left)
            with pytest.raises(TypeError, match=r"^sock: .*fileno\(\)"):
                CALLS[call](writer.get_extra_info("socket"))
            writer.close()
            await writer.wait_closed()

    factory: Any = None
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(use())


def test_anyios_tests_of_unix_sockets_pass_under_install() -> None:
    """With blockbuster active, as in anyio's own suite, on each of its event loops."""
    sources = os.environ.get("CMSGX_ANYIO")
    if not sources:
        pytest.fail("CMSGX_ANYIO does not name anyio's sources: run this with tools/interop")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "under_install", "-p", "no:cacheprovider",
         "-k", "UNIX", "tests/test_sockets.py"],
        cwd=sources, env={**os.environ, "PYTHONPATH": str(HERE)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    print(text.splitlines()[-1])
    # TestUNIXStream alone had 268 when this was written.
    assert int(re.search(r"(\d+) passed", text)[1]) >= 268, text  # type: ignore[index]
    assert "failed" not in text
    assert "error" not in text.splitlines()[-1]
    # The functions under test were in place, and were called.
    [counts] = re.findall(
        r"cmsgx: (\d+) sendmsg, (\d+) recvmsg, (\d+) tests with blockbuster", text
    )
    assert all(int(count) > 100 for count in counts), counts
