"""docs/hazards.md, part I: who is at the other end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt
from hazards import forked, reap
from native import build
from support import (
    Pair,
    abstract_name,
    close_pair,
    content,
    open_fds,
    open_files,
    run_python,
    unix_pair,
)

import cmsgx

NOBODY = 65534

IS_ROOT = os.geteuid() == 0

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can become another user")


def in_child(function: str, *arguments: object, **more: Any) -> str:
    """Calls a function of this file in a separate process; returns what it printed."""
    code = f"import test_hazards_identity as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, **more)


# I1: who connected, who sent ----------------------------------------------------------------------


def become(uid: int) -> None:
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def received_from(
    sender: Callable[[cmsgx.socket], object],
    want: list[Any] | None = None,
) -> tuple[cmsgx.Message, int, Pair]:
    """A message that a child sent, and the pid of the child, which is reaped."""
    pair = unix_pair(socket.SOCK_SEQPACKET)
    rx = cmsgx.Receiver(pair[1], 100, want=[cmsgx.Credentials] if want is None else want)
    with forked(lambda: sender(pair[0])) as pid:
        assert reap(pid) == 0
    return rx.receive(), pid, pair


@needs_root
def test_I1_the_peer_is_who_connected_and_the_sender_is_who_wrote() -> None:
    def write(sock: cmsgx.socket) -> None:
        become(NOBODY)
        sock.send(b"x")

    msg, child, pair = received_from(write)
    sender = msg[cmsgx.Credentials]
    peer = cmsgx.peer_credentials(pair[1])
    assert (sender.pid, sender.uid, sender.gid) == (child, NOBODY, NOBODY)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert sender != peer
    close_pair(pair)


def test_I1_two_types_that_never_compare_equal(stream: Pair) -> None:
    rx = cmsgx.Receiver(stream[1], 1, want=[cmsgx.Credentials])
    stream[0].send(b"x")
    sender, peer = rx.receive()[cmsgx.Credentials], cmsgx.peer_credentials(stream[1])
    assert (sender.pid, sender.uid, sender.gid) == (peer.pid, peer.uid, peer.gid)
    assert sender != peer
    assert peer != sender
    assert not isinstance(sender, cmsgx.PeerCredentials)
    assert not isinstance(peer, cmsgx.Credentials)
    for kind in (cmsgx.Credentials, cmsgx.PeerCredentials):
        assert kind.__doc__ is not None


# I2: a privileged sender may forge ----------------------------------------------------------------


@needs_root
def test_I2_a_privileged_sender_may_forge() -> None:
    """There is no guard; the docstring says so."""
    for word in ("CAP_SYS_ADMIN", "CAP_SETUID", "asserts"):
        assert word in (cmsgx.Credentials.__doc__ or "")

    forged = cmsgx.Credentials(1, 1234, 4321)
    with attempt("credentials of another process", errno.EPERM):
        left, right = unix_pair(socket.SOCK_DGRAM)
        with left, right:
            cmsgx.send(left, b"x", control=forged)
    msg, _, pair = received_from(lambda sock: cmsgx.send(sock, b"x", control=forged))
    assert msg[cmsgx.Credentials] == forged
    close_pair(pair)

    # The pidfd is of the process that the credentials name.
    want = [cmsgx.Credentials, cmsgx.PidFd]
    msg, child, pair = received_from(lambda sock: cmsgx.send(sock, b"x", control=forged), want)
    with msg:
        assert (msg[cmsgx.Credentials], msg[cmsgx.PidFd].pid) == (forged, 1)
        with pytest.raises(TypeError, match="control"):
            cmsgx.send(pair[0], b"x", control=msg[cmsgx.PidFd])  # type: ignore[arg-type]
    close_pair(pair)

    def nobody(sock: cmsgx.socket) -> None:
        with pytest.raises(ProcessLookupError):
            cmsgx.send(sock, b"x", control=cmsgx.Credentials(pid=child))  # which was reaped
        sock.send(b"end")

    msg, _, pair = received_from(nobody)
    assert msg.data == b"end"
    close_pair(pair)

    def as_nobody(sock: cmsgx.socket) -> None:
        become(NOBODY)
        for who in (forged, cmsgx.Credentials(pid=1), cmsgx.Credentials(uid=0)):
            with pytest.raises(PermissionError):
                cmsgx.send(sock, b"forged", control=who)
        cmsgx.send(sock, b"true", control=cmsgx.Credentials())

    msg, child, pair = received_from(as_nobody)
    assert msg.data == b"true"
    assert msg[cmsgx.Credentials] == cmsgx.Credentials(child, NOBODY, NOBODY)
    close_pair(pair)


# I3: credentials that were never attached ---------------------------------------------------------


@pytest.mark.parametrize("want", [[cmsgx.Credentials], [cmsgx.Credentials, cmsgx.PidFd]])
def test_I3_what_was_queued_before_carries_none(pair: Pair, want: list[Any]) -> None:
    pair[0].send(b"early")
    rx = cmsgx.Receiver(pair[1], 100, want=want)
    with rx.receive() as msg:
        who = msg[cmsgx.Credentials]
        assert (who.pid, who.uid, who.gid) == (None, NOBODY, NOBODY)
        assert who.attached is (False if cmsgx.PidFd in want else None)
        assert cmsgx.PidFd not in msg
    pair[0].send(b"late")
    with rx.receive() as msg:
        who = msg[cmsgx.Credentials]
        assert (who.pid, who.uid) == (os.getpid(), os.getuid())
        assert who.attached is True


def test_I3_they_are_absent_unless_asked_for(pair: Pair) -> None:
    pair[0].send(b"x")
    with cmsgx.Receiver(pair[1], 10).receive() as msg:
        with pytest.raises(KeyError, match="Credentials"):
            msg[cmsgx.Credentials]
        assert cmsgx.Credentials not in msg


def test_I3_one_shot_receive_cannot_tell(pair: Pair) -> None:
    pair[0].send(b"early")
    pair[1].setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    assert cmsgx.receive(pair[1], 10)[cmsgx.Credentials].attached is None


def needs_namespaces(*flags: str) -> list[str]:
    """The command that runs a program in new namespaces."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare command")
    command = [unshare, *flags]
    done = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no namespaces here: {done.stderr}")
    return command


def run_apart(flags: list[str], code: str, *passed: int, **more: Any) -> str:
    """Runs code in new namespaces; its arguments are the numbers of the descriptors in `passed`."""
    done = subprocess.run(
        [*needs_namespaces(*flags), sys.executable, "-c", code, *map(str, passed)],
        pass_fds=passed, capture_output=True, text=True, check=False, timeout=60, **more,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    output: str = done.stdout
    return output


# I4: namespaces -----------------------------------------------------------------------------------

PID_NAMESPACE = ["--pid", "--fork", "--mount-proc"]

USER_NAMESPACE = ["--user", "--map-root-user"]

SHOW = """
import cmsgx, os, sys
number = int(sys.argv[1])
want = [cmsgx.Credentials, cmsgx.PidFd]
rx = cmsgx.Receiver(number, 10, want=want)
os.write(number, b"ready")
with rx.receive() as msg:
    who = msg[cmsgx.Credentials]
    peer = cmsgx.peer_credentials(number)
    print(who.pid, who.uid, who.uid_mapped, who.gid_mapped, who.attached)
    print(peer.pid, peer.uid, peer.uid_mapped, peer.gid_mapped)
    print(msg[cmsgx.PidFd].pid)
    with cmsgx.peer_pidfd(number) as pidfd:
        print(pidfd.pid)
"""


def seen_from(flags: list[str], write: Callable[[cmsgx.socket], object]) -> list[str]:
    """What a receiver in other namespaces sees of a writer here."""
    pair = unix_pair(socket.SOCK_SEQPACKET)

    def answer() -> None:
        if pair[0].recv(10) == b"ready":
            write(pair[0])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        return run_apart(flags, SHOW, pair[1].fileno()).splitlines()
    finally:
        pair[0].shutdown(socket.SHUT_RDWR)
        thread.join()
        close_pair(pair)


@needs_root
def test_I4_a_pid_that_is_not_visible_is_none_and_never_0() -> None:
    who, peer, pidfd, peer_pidfd = seen_from(PID_NAMESPACE, lambda sock: sock.send(b"x"))
    assert who.split() == ["None", "0", "True", "True", "True"]
    assert peer.split() == ["None", "0", "True", "True"]
    assert pidfd == peer_pidfd == "None"


@needs_root
def test_I4_the_proc_of_another_pid_namespace_does_not_deceive() -> None:
    """As in a chroot, or in a new namespace before /proc is mounted again."""
    flags = ["--pid", "--fork"]
    _, _, pidfd, peer_pidfd = seen_from(flags, lambda sock: sock.send(b"x"))
    assert pidfd == peer_pidfd == "None"


@needs_root
def test_I4_an_id_that_is_not_mapped_says_so() -> None:
    def as_another(sock: cmsgx.socket) -> None:
        def child() -> None:
            become(1234)
            sock.send(b"x")

        with forked(child) as pid:
            assert reap(pid) == 0

    who, peer, *_ = seen_from(USER_NAMESPACE, as_another)
    assert who.split()[1:] == [str(NOBODY), "False", "False", "True"]
    assert peer.split() == [str(os.getpid()), "0", "True", "True"]


@needs_root
def test_I4_a_real_nobody_of_another_pid_namespace_is_distinguished_from_no_credentials() -> None:
    """Both come as (0, 65534, 65534): the pidfd distinguishes them."""

    def as_nobody(sock: cmsgx.socket) -> None:
        def child() -> None:
            become(NOBODY)
            sock.send(b"x")

        with forked(child) as pid:
            assert reap(pid) == 0

    who, *_ = seen_from(PID_NAMESPACE, as_nobody)
    assert who.split() == ["None", str(NOBODY), "None", "None", "True"]


@needs_root
def test_I4_a_sender_in_a_namespace_below_is_seen_with_its_pid_here() -> None:
    pair = unix_pair(socket.SOCK_SEQPACKET)
    with pair[0], pair[1]:
        rx = cmsgx.Receiver(pair[1], 100, want=[cmsgx.Credentials, cmsgx.PidFd])
        code = "import os, sys; os.write(int(sys.argv[1]), str(os.getpid()).encode())"
        run_apart(PID_NAMESPACE, code, pair[0].fileno())
        with rx.receive() as msg:
            assert msg.data == b"1"
            assert msg[cmsgx.Credentials].pid not in (None, 0, 1)


# I5: a pid can belong to another process ----------------------------------------------------------


def test_I5_a_reaped_sender_is_not_another_process() -> None:
    msg, child, pair = received_from(lambda sock: sock.send(b"x"), [cmsgx.Credentials, cmsgx.PidFd])
    with msg:
        who = msg[cmsgx.Credentials]
        assert who.pid == child  # the number of a process that no longer exists
        assert who.attached is True
        pidfd = msg[cmsgx.PidFd]
        if pidfd.error is None:
            assert pidfd.pid is None
            assert pidfd.wait(60) is None
            with pytest.raises(ProcessLookupError):
                pidfd.send_signal(signal.SIGKILL)
        else:  # kernels before 6.16
            assert pidfd.closed
    close_pair(pair)


def spawn_with_pid(pid: int) -> int | None:
    """A sleeping process with this pid, if possible: the pid is set as the next one."""
    for _ in range(50):
        try:
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1), encoding="ascii")
        except OSError:
            return None
        child = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
        if child == pid:
            return child
        os.kill(child, signal.SIGKILL)
        reap(child)
    return None


@needs_root
def test_I5_a_pid_that_was_reused_deceives_and_the_pidfd_does_not() -> None:
    msg, child, pair = received_from(lambda sock: sock.send(b"x"), [cmsgx.Credentials, cmsgx.PidFd])
    again = spawn_with_pid(child)
    try:
        if again is None:
            pytest.skip("the pid could not be obtained again")
        with msg:
            assert msg[cmsgx.Credentials].pid == again
            pidfd = msg[cmsgx.PidFd]
            if pidfd.error is None:
                assert pidfd.pid != again
                with pytest.raises(ProcessLookupError):
                    pidfd.send_signal(signal.SIGKILL)
        assert os.waitpid(again, os.WNOHANG) == (0, 0)  # lives on
    finally:
        msg.close()
        if again is not None:
            os.kill(again, signal.SIGKILL)
            reap(again)
        close_pair(pair)


# I7: descriptors from strangers -------------------------------------------------------------------


@pytest.fixture
def passrights(stream: Pair) -> None:
    """Skips if the kernel lacks SO_PASSRIGHTS."""
    try:
        cmsgx.accept_rights(stream[1], True)
    except cmsgx.NotSupportedError as error:
        pytest.skip(str(error))


@pytest.mark.usefixtures("passrights")
def test_I7_strangers_cannot_queue_descriptors(pair: Pair) -> None:
    sender, receiver = pair
    with open_files(1) as files:
        cmsgx.send(sender, b"before", fds=files)
        cmsgx.accept_rights(receiver, False)
        sends: tuple[Callable[[], object], ...] = (
            lambda: cmsgx.send(sender, b"x", fds=files),
            lambda: cmsgx.send_fds(sender, [b"x"], files),
            lambda: socket.send_fds(sender, [b"x"], files),
        )
        for send in sends:
            with pytest.raises(PermissionError):
                send()
        sender.send(b"plain")
        with cmsgx.receive(receiver, 6, fds=1) as msg:  # those already queued still arrive
            assert (msg.data, content(msg.fds[0])) == (b"before", "0")
        with cmsgx.receive(receiver, 10, fds=1) as msg:
            assert (msg.data, len(msg.fds)) == (b"plain", 0)
        cmsgx.accept_rights(receiver, True)
        cmsgx.send(sender, b"after", fds=files)
        with cmsgx.receive(receiver, 10, fds=1) as msg:
            assert len(msg.fds) == 1


@pytest.mark.usefixtures("passrights")
@pytest.mark.parametrize("form", [lambda sock: sock, lambda sock: sock.fileno()])
def test_I7_an_accepted_socket_inherits_it(form: Callable[[socket.socket], Any]) -> None:
    name = abstract_name("I7")
    with cmsgx.socket(socket.AF_UNIX) as listener, cmsgx.socket(socket.AF_UNIX) as client:
        listener.bind(name)
        cmsgx.accept_rights(form(listener), False)
        listener.listen()
        client.connect(name)
        with pytest.raises(PermissionError):  # before accept() already
            cmsgx.send(client, b"x", fds=[0])
        accepted, _ = listener.accept()
        with accepted:
            with pytest.raises(PermissionError):
                cmsgx.send(client, b"x", fds=[0])
            cmsgx.accept_rights(accepted, True)
            cmsgx.send(client, b"x", fds=[0])
            with cmsgx.receive(accepted, 1, fds=1) as msg:
                assert len(msg.fds) == 1


def without_passrights() -> None:
    first, second = cmsgx.socketpair()
    try:
        cmsgx.accept_rights(second, False)
    except cmsgx.NotSupportedError as error:
        print(error.errno, error)
    # What the docstring recommends in that case:
    cmsgx.send(first, b"x", fds=[0])
    before = open_fds()
    with cmsgx.Receiver(second, 10, fds=0).receive() as msg:
        assert len(msg.fds) == 0
    assert open_fds() == before
    close_pair((first, second))


def test_I7_where_the_kernel_lacks_it() -> None:
    library = build("no_passrights.so", "-shared", "-fPIC", "no_passrights.c", "-ldl")
    preload = " ".join(filter(None, [os.environ.get("LD_PRELOAD"), str(library)]))
    output = in_child("without_passrights", env={"LD_PRELOAD": preload})
    number, text = output.split(maxsplit=1)
    assert int(number) == errno.ENOPROTOOPT
    for part in ("accept_rights", "SO_PASSRIGHTS", "Linux 6.16"):
        assert part in text


def test_I7_fds_0_drops_them_where_nothing_else_helps(pair: Pair) -> None:
    """This holds until the peer has proved who it is."""
    before = open_fds()
    cmsgx.send(pair[0], b"x", fds=[0] * 253)
    rx = cmsgx.Receiver(pair[1], 10)
    with rx.receive() as msg:
        assert msg.data == b"x"
        assert len(msg.fds) == 0
        assert msg.truncated
        assert open_fds() == before
