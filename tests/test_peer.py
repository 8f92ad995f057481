"""Who is at the other end: the process that connected, which may not be the sender of a message."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from attempts import fails
from support import Pair, abstract_name, enter_empty_root, fill_table, in_fork, open_fds, run_python

import cmsgx
from cmsgx import _cmsg

ASK = [cmsgx.peer_credentials, cmsgx.peer_pidfd, cmsgx.peer_groups, cmsgx.peer_security]


@pytest.fixture
def sockets(stream: Pair) -> Iterator[list[Any]]:
    """One socket in each form in which it can be passed."""
    fd = cmsgx.Fd(os.dup(stream[0].fileno()))
    yield [stream[0], stream[0].fileno(), fd]
    fd.close()


def test_for_a_pair_it_is_the_process_that_created_it(sockets: list[Any]) -> None:
    for sock in sockets:
        peer = cmsgx.peer_credentials(sock)
        assert type(peer) is cmsgx.PeerCredentials
        assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert cmsgx.peer_groups(sock) == tuple(os.getgroups())
        with cmsgx.peer_pidfd(sock) as pidfd:
            assert type(pidfd) is cmsgx.PidFd
            assert pidfd.pid == os.getpid()
            assert not os.get_inheritable(pidfd.fileno())
        label = cmsgx.peer_security(sock)
        assert label is None or isinstance(label, bytes)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_SEQPACKET])
def test_for_a_connection_it_is_the_process_that_connected(kind: int) -> None:
    name = f"\0cmsgx-test-peer-{os.getpid()}".encode()
    with cmsgx.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(name)
        listener.listen()
        listener.settimeout(60)
        child = os.posix_spawn(
            sys.executable,
            [
                sys.executable,
                "-c",
                "import socket, sys\n"
                f"s = socket.socket(socket.AF_UNIX, {int(kind)})\n"
                f"s.connect({name!r})\n"
                "s.recv(1)",
            ],
            os.environ,
        )
        accepted, _ = listener.accept()
        with accepted:
            assert cmsgx.peer_credentials(accepted).pid == child
            with cmsgx.peer_pidfd(accepted) as pidfd:
                assert pidfd.pid == child
                accepted.send(b"x")
                assert pidfd.wait(20) == 0
        assert not open_fds().keys() & {accepted.fileno()}


@pytest.mark.parametrize("ask", ASK, ids=lambda ask: ask.__name__)
@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_INET6, socket.SOCK_DGRAM),
        (socket.AF_NETLINK, socket.SOCK_RAW),
    ],
)
def test_not_supported_on_other_families(
    ask: Callable[[Any], object], family: int, kind: int
) -> None:
    with socket.socket(family, kind) as sock:
        for form in (sock, sock.fileno()):
            with pytest.raises(cmsgx.NotSupportedError, match=ask.__name__) as caught:
                ask(form)
            assert caught.value.errno == 95
        with pytest.raises(cmsgx.NotSupportedError, match="accept_rights"):
            cmsgx.accept_rights(sock, False)


@pytest.mark.parametrize("ask", [*ASK, lambda sock: cmsgx.accept_rights(sock, True)])
def test_for_what_is_not_a_socket(ask: Callable[[Any], object]) -> None:
    with open(os.devnull) as file:
        for form in (file, file.fileno()):
            with fails(errno.ENOTSOCK):
                ask(form)
    closed = socket.socket(socket.AF_UNIX)
    closed.close()
    with fails(errno.EBADF):
        ask(closed)
    with pytest.raises(TypeError):
        ask("socket")


def test_a_socket_without_a_peer() -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        for ask in (cmsgx.peer_credentials, cmsgx.peer_groups, cmsgx.peer_pidfd):
            with pytest.raises(OSError, match="no peer") as caught:
                ask(sock)
            assert caught.value.errno == errno.ENOTCONN


def test_many_groups() -> None:
    code = """
import cmsgx, os, socket
for count in (0, 1, 64, 65, 300, 5000):
    groups = list(range(1000, 1000 + count))
    os.setgroups(groups)
    a, b = socket.socketpair()
    assert cmsgx.peer_groups(a) == tuple(groups), count
    a.close(); b.close()
print("all")
"""
    if os.geteuid() != 0:
        pytest.skip("only root sets groups")
    assert run_python(code).strip() == "all"


def test_the_ids_are_the_effective_ones() -> None:
    code = """
import cmsgx, os, socket
os.setresgid(1, 2, 0)
os.setresuid(1, 2, 0)
a, b = socket.socketpair()
peer = cmsgx.peer_credentials(a)
assert (peer.uid, peer.gid) == (2, 2), peer
rx = cmsgx.Receiver(a, 1, want=[cmsgx.Credentials])
b.send(b"x")
with rx.receive() as msg:
    sent = msg[cmsgx.Credentials]
assert (sent.uid, sent.gid) == (1, 1), sent
a.close(); b.close()
print("differ")
"""
    if os.geteuid() != 0:
        pytest.skip("only root has other ids")
    assert run_python(code).strip() == "differ"


def test_never_equal_to_the_credentials_of_a_message(stream: Pair) -> None:
    peer, own = cmsgx.peer_credentials(stream[0]), cmsgx.Credentials()
    assert (peer.pid, peer.uid, peer.gid) == (own.pid, own.uid, own.gid)
    assert peer != own
    assert own != peer
    assert len({peer, own}) == 2
    assert peer == cmsgx.peer_credentials(stream[1])
    assert hash(peer) == hash(cmsgx.peer_credentials(stream[1]))
    assert repr(peer) == f"PeerCredentials(pid={peer.pid}, uid={peer.uid}, gid={peer.gid})"
    with pytest.raises(AttributeError):
        peer.uid = 0


@pytest.mark.parametrize(
    ("number", "mapped"), [(0, True), (1000, True), (65534, None), (2**32 - 2, True)]
)
def test_ids_are_mapped_in_the_first_user_namespace(number: int, mapped: bool | None) -> None:
    for kind in (cmsgx.Credentials, cmsgx.PeerCredentials):
        who = kind(pid=1, uid=number, gid=number)
        assert who.uid_mapped is mapped
        assert who.gid_mapped is mapped


@pytest.mark.parametrize(
    "leave", [enter_empty_root, lambda _: fill_table()], ids=["chroot", "full"]
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork() with threads
def test_who_sent_it_needs_no_proc_and_no_descriptor(
    leave: Callable[[Path], None], stream: Pair, tmp_path: Path
) -> None:
    """The overflow id may be mapped or not then; any other id is mapped, as everywhere."""
    left, right = stream
    receiver = cmsgx.Receiver(right, 100, want=[cmsgx.Credentials])
    cmsgx.send(left, b"1")
    parent = os.getpid()

    def child() -> None:
        leave(tmp_path / "empty")
        who = receiver.receive()[cmsgx.Credentials]
        peer = cmsgx.peer_credentials(right)
        assert who.pid == peer.pid == parent
        for one in (who, peer):
            assert one.uid_mapped is (None if one.uid == 65534 else True)
            assert one.gid_mapped is (None if one.gid == 65534 else True)
        for kind in (cmsgx.Credentials, cmsgx.PeerCredentials):
            assert kind(1, 65534, 1000).uid_mapped is None
            assert kind(1, 65534, 1000).gid_mapped is True
            assert kind(1, 1000, 65534).gid_mapped is None

    in_fork(child)


def test_credentials_that_were_not_attached_are_known_by_the_overflow_ids(stream: Pair) -> None:
    ids = [int(Path(f"/proc/sys/kernel/overflow{which}").read_text()) for which in ("uid", "gid")]
    for overflow, attached in (((1, ids[1]), True), ((ids[0], 1), True), (ids, None)):
        _cmsg.set_overflow_ids(*overflow)
        try:
            stream[0].send(b"x")  # before it is switched on
            with cmsgx.enable(stream[1], cmsgx.Credentials):
                who = cmsgx.receive(stream[1], 1)[cmsgx.Credentials]
            assert (who.pid, who.uid, who.gid) == (None, *ids)
            assert who.attached is attached
        finally:
            _cmsg.set_overflow_ids(*ids)


def test_an_overflow_id_outside_the_map_stands_for_another() -> None:
    """In a user namespace that does not map 65534."""
    code = """
import cmsgx
for who in (cmsgx.Credentials(1, 65534, 65534), cmsgx.PeerCredentials(1, 65534, 65534)):
    assert who.uid_mapped is False and who.gid_mapped is False, who
for who in (cmsgx.Credentials(1, 0, 0), cmsgx.PeerCredentials(1, 0, 0)):
    assert who.uid_mapped is True and who.gid_mapped is True, who
print("told apart")
"""
    assert run_in_user_namespace(code) == "told apart"


def run_in_user_namespace(code: str) -> str:
    if shutil.which("unshare") is None:
        pytest.skip("no unshare command")
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if "unshare failed" in done.stderr:
        pytest.skip(f"no user namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_peer_that_was_reaped_is_not_another_process() -> None:
    """Its pid can belong to another process by then; the pidfd says that the process is gone, or
    there is no pidfd."""
    name = abstract_name("peer-reaped")
    with cmsgx.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        child = os.fork()
        if child == 0:
            client = socket.socket(socket.AF_UNIX)
            client.connect(name)
            os._exit(0)
        accepted, _ = listener.accept()
        os.waitpid(child, 0)
        with accepted:
            assert cmsgx.peer_credentials(accepted).pid == child
            with suppress(ProcessLookupError), cmsgx.peer_pidfd(accepted) as pidfd:
                assert pidfd.pid is None
