"""send, send_all: what is refused, addresses, flags."""

from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from pairs import fill, new_pair
from support import (
    Pair,
    abstract_name,
    content,
    open_files,
    run_python,
)

import cmsgx

# What would lose descriptors is refused ---------------------------------------------------------


class Closed:
    def fileno(self) -> int:
        raise ValueError("I/O operation on closed file")


def closed_fd() -> cmsgx.Fd:
    fd = cmsgx.Fd(os.open(os.devnull, os.O_RDONLY))
    fd.close()
    return fd


BAD_DESCRIPTORS: list[tuple[Any, type[Exception]]] = [
    (True, TypeError),
    ("0", TypeError),
    (None, TypeError),
    (0.0, TypeError),
    (object(), TypeError),
    (-1, ValueError),
    (2**31, ValueError),
    (2**70, ValueError),
    (Closed(), ValueError),
    (closed_fd(), OSError),
    (1_000_000, OSError),
]


@pytest.mark.parametrize(("bad", "error"), BAD_DESCRIPTORS, ids=lambda value: repr(value)[:20])
@pytest.mark.parametrize("by", ["fds", "Rights"])
@pytest.mark.parametrize("index", [0, 2])
def test_a_bad_descriptor_is_named_by_its_index(
    stream: Pair, bad: Any, error: type[Exception], by: str, index: int
) -> None:
    with open_files(3) as files:
        fds: list[Any] = [*files[:index], bad, *files[index:]]
        arguments: dict[str, Any] = {"fds": fds} if by == "fds" else {"control": cmsgx.Rights(fds)}
        with pytest.raises(error, match=rf"fds\[{index}\]") as caught:
            cmsgx.send(stream[0], b"x", **arguments)
        if error is OSError:
            assert caught.value.errno == 9  # type: ignore[attr-defined]


def raw_rights(fds: list[int]) -> list[tuple[int, int, Any]]:
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def unknown_rights(fds: list[int]) -> list[Any]:
    return [cmsgx.Unknown(*raw_rights(fds)[0][:2], array.array("i", fds).tobytes())]


# The calls that send typed control messages, without any data.
EMPTY: dict[str, Callable[[Any, Any], object]] = {
    "send": lambda sock, control: cmsgx.send(sock, b"", control=control),
    "send of a list": lambda sock, control: cmsgx.send(sock, [b"", b""], control=control),
    "send of a number": lambda sock, control: cmsgx.send(sock.fileno(), b"", control=control),
    "send_all": lambda sock, control: cmsgx.send_all(sock, b"", control=control),
    "send_batch": lambda sock, control: cmsgx.send_batch(sock, [(b"", (), control)]),
    "sendmsg": lambda sock, control: cmsgx.sendmsg(sock, [], control),
    "sendmsg, the method": lambda sock, control: sock.sendmsg([b""], control),
}


@contextmanager
def tcp_pair() -> Iterator[tuple[cmsgx.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = cmsgx.socket()
        near.connect(server.getsockname())
        far, _ = server.accept()
        with near, far:
            yield near, far


@pytest.mark.parametrize("by", EMPTY)
@pytest.mark.parametrize(
    "kind",
    [cmsgx.Credentials(), cmsgx.Rights([0]), cmsgx.Unknown(1, 2, cmsgx.Credentials().pack())],
)
def test_what_a_stream_would_drop_with_no_byte_is_refused(stream: Pair, by: str, kind: Any) -> None:
    with pytest.raises(ValueError, match="at least one byte on a stream"):
        EMPTY[by](stream[0], [kind])
    assert EMPTY[by](stream[0], []) in (0, 1, None)


@pytest.mark.parametrize("by", EMPTY)
def test_what_tcp_would_drop_with_no_byte_is_refused(by: str) -> None:
    with tcp_pair() as (left, _):
        with pytest.raises(ValueError, match="at least one byte on a stream"):
            EMPTY[by](left, [cmsgx.Unknown(socket.SOL_TCP, 99, bytes(4))])
        # A control message may be the message itself, which is for the kernel to decide: this is
        # the type of a TLS record.
        with suppress(OSError):
            EMPTY[by](left, [cmsgx.Unknown(282, 1, b"\x15")])


@pytest.mark.parametrize("by", EMPTY)
@pytest.mark.parametrize("sort", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_an_empty_datagram_carries_control_messages(by: str, sort: int) -> None:
    with new_pair(sort) as (left, right):
        EMPTY[by](left, [cmsgx.Rights([0])])
        with cmsgx.receive(right, 1, fds=1) as msg:
            assert (msg.data, len(msg.fds)) == (b"", 1)


@pytest.mark.parametrize("by", ["sendmsg", "sendmsg, the method"])
def test_raw_control_data_is_sent_as_with_socket(stream: Pair, by: str) -> None:
    assert EMPTY[by](stream[0], raw_rights([0])) == 0


@pytest.mark.parametrize("make", [raw_rights, unknown_rights])
def test_raw_rights_are_looked_at_as_fds_are(
    stream: Pair, make: Callable[[list[int]], Any]
) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        cmsgx.send(stream[0], b"", control=make([0]))
    with pytest.raises(cmsgx.TooManyFdsError, match="254"):
        cmsgx.send(stream[0], b"x", fds=[0], control=make([0] * 253))
    with pytest.raises(OSError, match=r"fds\[1\]: descriptor 1000000 is not open"):
        cmsgx.send(stream[0], b"x", fds=[0], control=make([1_000_000]))
    with pytest.raises(ValueError, match="multiple"):
        cmsgx.send(stream[0], b"x", control=[(1, 1, b"123")])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as inet,
        pytest.raises(cmsgx.NotSupportedError, match="AF_UNIX"),
    ):
        cmsgx.send(inet, b"x", control=make([0]), address=("127.0.0.1", 9))
    with open_files(3) as files:
        cmsgx.send(stream[0], b"x", fds=files[:1], control=make(files[1:]))
        with cmsgx.receive(stream[1], 1, fds=3) as msg:
            assert [content(fd) for fd in msg.fds] == list("012")


def test_too_many_descriptors(pair: Pair) -> None:
    with pytest.raises(cmsgx.TooManyFdsError, match=r"254 descriptors.* 253"):
        cmsgx.send(pair[0], b"x", fds=[0] * 254)
    with pytest.raises(cmsgx.TooManyFdsError, match=r"254 descriptors.* 253"):
        cmsgx.send(pair[0], b"x", fds=[0] * 200, control=cmsgx.Rights([0] * 54))
    with pytest.raises(cmsgx.TooManyFdsError, match="253"):
        cmsgx.receive(pair[1], 1, fds=254)
    with pytest.raises(cmsgx.TooManyFdsError, match="253"):
        cmsgx.Receiver(pair[1], 1, fds=254)
    with pytest.raises(ValueError, match="fds"):
        cmsgx.receive(pair[1], 1, fds=-1)


@pytest.mark.parametrize("wrong", [cmsgx.PidFd, cmsgx.Credentials, 3, b"x", "x", [3], [None]])
def test_control_that_is_none(stream: Pair, wrong: Any) -> None:
    with pytest.raises(TypeError, match="control"):
        cmsgx.send(stream[0], b"x", control=wrong)


# Typed sends never raise SIGPIPE, addresses -----------------------------------------------------


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM])
@pytest.mark.parametrize("server_type", ["cmsgx.socket", "int"])
def test_answering_costs_no_text(kind: int, server_type: str) -> None:
    with cmsgx.socket(socket.AF_INET, kind) as server, cmsgx.socket(socket.AF_INET, kind) as client:
        server.bind(("127.0.0.1", 0))
        client.bind(("127.0.0.1", 0))
        end: Any = server if server_type == "cmsgx.socket" else server.fileno()
        cmsgx.send(client, b"question", address=server.getsockname())
        msg = cmsgx.receive(end, 100)
        assert msg.address == client.getsockname()
        assert cmsgx.send(end, b"answer", address=msg.address) == 6
        assert cmsgx.receive(client, 100).data == b"answer"


@pytest.mark.parametrize("name", ["abstract", "path", b"path"])
def test_unix_addresses(name: Any, tmp_path: Any) -> None:
    if name == "abstract":
        name = abstract_name("sync")
    else:
        path = str(tmp_path / "socket")
        name = path if name == "path" else os.fsencode(path)
    with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name)
        with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, open_files(1) as files:
            cmsgx.send(client, b"x", fds=files, address=name)
            with cmsgx.receive(server, 10, fds=1) as msg:
                assert content(msg.fds[0]) == "0"
                assert msg.address is None or msg.address == ""
            client.bind(abstract_name("sync-client"))
            cmsgx.send(client, b"x", address=server.getsockname())
            msg = cmsgx.receive(server, 10)
            assert msg.address == abstract_name("sync-client")
            cmsgx.send(server, b"back", address=msg.address)
            assert cmsgx.receive(client, 10).data == b"back"


@pytest.mark.parametrize("label", [0, 1, 0xFFFFF])
def test_each_flow_label_is_an_address_of_c(label: int) -> None:
    """Also for a number, which has no method that could accept it instead."""
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        address = ("::1", sock.getsockname()[1], label, 0)
        for end in (sock, sock.fileno()):
            assert cmsgx.send(end, b"x", address=address) == 1
            assert cmsgx.sendmsg(end, [b"y"], (), 0, address) == 1
        for wrong in (-1, 0x100000):
            with pytest.raises(OverflowError):
                cmsgx.send(sock.fileno(), b"x", address=(*address[:2], wrong, 0))


@pytest.mark.parametrize("call", ["send", "sendmsg", "send_fds"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_what_is_not_an_ip_address_is_not_sent(family: int, call: str) -> None:
    """A port that would wrap, and a host that would end at its NUL."""
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with cmsgx.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        port = sock.getsockname()[1]
        calls: dict[str, Callable[[Any], int]] = {
            "send": lambda address: cmsgx.send(sock.fileno(), b"x", address=address),
            "sendmsg": lambda address: cmsgx.sendmsg(sock.fileno(), [b"x"], (), 0, address),
            "send_fds": lambda address: cmsgx.send_fds(sock.fileno(), [b"x"], [], 0, address),
        }
        assert calls[call]((host, port)) == 1
        assert sock.recv(1) == b"x"
        for wrong in ((host, port + 65536), (host, -1), (f"{host}\0x", port), (f"{host}\0", port)):
            with pytest.raises((OverflowError, TypeError)):
                calls[call](wrong)
        with pytest.raises(BlockingIOError):
            sock.recv(1, socket.MSG_DONTWAIT)


def test_the_scope_of_an_address_is_passed_on() -> None:
    """Through a device that does not exist, the result is the same as with socket."""
    with cmsgx.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::", 0))

        def outcome(send: Callable[[Any], object], scope: int) -> object:
            try:
                return send(("fe80::1", sock.getsockname()[1], 0, scope))
            except OSError as error:
                return error.errno

        for scope in (0, socket.if_nametoindex("lo"), 2**31 - 1):
            expected = outcome(partial(sock.sendto, b"x"), scope)
            assert outcome(lambda to: cmsgx.send(sock, b"x", address=to), scope) == expected


@pytest.mark.parametrize("name", ["send", "receive", "Receiver", "BatchReceiver", "send_batch"])
def test_flags_are_an_int_of_c(pair: Pair, name: str) -> None:
    rx, batches = cmsgx.Receiver(pair[1], 1), cmsgx.BatchReceiver(pair[1], 2, 1)
    calls: dict[str, Callable[[int], object]] = {
        "send": lambda flags: cmsgx.send(pair[0], b"x", flags=flags),
        "send_batch": lambda flags: cmsgx.send_batch(pair[0], [b"x"], flags=flags),
        "receive": lambda flags: cmsgx.receive(pair[1], 1, flags=flags),
        "Receiver": lambda flags: rx.receive(flags=flags),
        "BatchReceiver": lambda flags: batches.receive(flags=flags),
    }
    cmsgx.send(pair[0], b"x")
    for wrong in (2**31, 2**32, -(2**31) - 1, 2**70):
        with pytest.raises(OverflowError):
            calls[name](wrong)
    assert pair[1].recv(2, socket.MSG_DONTWAIT) == b"x"
    with pytest.raises(BlockingIOError):
        pair[1].recv(1, socket.MSG_DONTWAIT)


def test_an_argument_that_is_given_twice(stream: Pair) -> None:
    call: Any = cmsgx.send
    with pytest.raises(TypeError, match="multiple values for argument 'data'"):
        call(stream[0], b"x", data=b"y")
    with pytest.raises(TypeError, match="multiple values for argument 'sock'"):
        call(stream[0], b"x", sock=stream[0])
    with pytest.raises(BlockingIOError):
        stream[1].recv(1, socket.MSG_DONTWAIT)


def test_a_host_name_is_resolved_by_the_socket() -> None:
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            address = ("localhost", server.getsockname()[1])
            assert cmsgx.send(client, b"x", address=address) == 1
            assert cmsgx.receive(server, 10).data == b"x"
            with pytest.raises(ValueError, match="localhost"):
                cmsgx.send(client.fileno(), b"x", address=address)


def test_a_peer_that_is_gone_stays_a_plain_error(stream: Pair) -> None:
    stream[1].close()
    for call in (cmsgx.send, cmsgx.send_all):
        with pytest.raises(BrokenPipeError) as caught:
            call(stream[0], b"x")
        assert type(caught.value) is BrokenPipeError


def test_flags_are_passed_on(stream: Pair) -> None:
    fill(stream[0])
    with pytest.raises(BlockingIOError):
        cmsgx.send(stream[0], b"x", flags=socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        cmsgx.receive(stream[0], 1, flags=socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        cmsgx.Receiver(stream[0], 1).receive(flags=socket.MSG_DONTWAIT)


def test_a_listener_hands_its_options_to_what_it_accepts() -> None:
    """A message that is queued between accept() and Receiver carries credentials, if enabled in
    time."""
    with cmsgx.socket(socket.AF_UNIX) as listener:
        listener.bind(abstract_name("sync-listener"))
        cmsgx.enable(listener, cmsgx.Credentials)
        listener.listen()
        with cmsgx.socket(socket.AF_UNIX) as client:
            client.connect(listener.getsockname())
            client.send(b"early")
            accepted, _ = listener.accept()
            with accepted, cmsgx.receive(accepted, 10) as msg:
                assert msg[cmsgx.Credentials] == cmsgx.Credentials()


def test_nothing_is_left_behind_in_a_new_process() -> None:
    code = """
import cmsgx, socket, os
a, b = cmsgx.socketpair()
rx = cmsgx.Receiver(b, 10, fds=1)
cmsgx.send(a, b"x", fds=[0])
with rx.receive() as msg:
    print(msg.data.decode(), len(msg.fds))
a.close(); b.close()
"""
    assert run_python(code).split() == ["x", "1"]


def test_close_on_exec_is_set(pair: Pair) -> None:
    with open_files(1) as files:
        os.set_inheritable(files[0], True)
        cmsgx.send(pair[0], b"x", fds=files)
        with cmsgx.Receiver(pair[1], 1, fds=1).receive() as msg:
            assert fcntl.fcntl(msg.fds[0].fileno(), fcntl.F_GETFD) & fcntl.FD_CLOEXEC
            assert not msg.flags & 0x40000000
