"""Receivers that are asked for the same share what was found out, but not what a socket has on."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import network
import pytest
from support import open_files, unix_pair, unregistered
from switches import OPTIONS, PASSPIDFD, PASSSEC, states

import cmsgx
from cmsgx import _asked, _cmsg, kinds
from cmsgx.kinds import _table

SO_RXQ_OVFL = 40


@pytest.fixture
def pairs() -> Iterator[list[tuple[cmsgx.socket, cmsgx.socket]]]:
    made = [unix_pair(socket.SOCK_SEQPACKET) for _ in range(3)]
    yield made
    for pair in made:
        for sock in pair:
            sock.close()


def make(sock: Any, **more: Any) -> cmsgx.Receiver:
    return cmsgx.Receiver(sock, 100, fds=1, want=[cmsgx.Credentials], **more)


def test_each_socket_is_asked(pairs: Any) -> None:
    """Whoever has switched on more has room for it, and is told so; whoever has not, not."""
    for (sender, sock), is_more in zip(pairs, (True, False, True), strict=True):
        if is_more:
            sock.setsockopt(socket.SOL_SOCKET, PASSPIDFD, 1)
        receiver = make(sock)
        assert states(sock) == [1, 0, int(is_more)]
        with open_files(1) as files:
            cmsgx.send(sender, b"x", fds=files)
        with receiver.receive() as message:
            assert not message.truncated
            assert len(message.fds) == 1
            assert message[cmsgx.Credentials].pid == os.getpid()
        assert (cmsgx.PidFd in config_of(receiver).want) == is_more
        with pytest.raises(KeyError, match="it was not enabled"):
            message[kinds.SecurityLabel]


def config_of(receiver: Any) -> Any:
    """What was found for the socket of the receiver."""
    options = receiver._asked.plans[_cmsg.Options.key(receiver.sock)]
    return options.configs[options.states(receiver.sock)]


def test_a_surplus_is_kept_out_where_nothing_is_on(pairs: Any) -> None:
    """Also if another socket, asked in the same way, needs room for more."""
    pairs[0][1].setsockopt(socket.SOL_SOCKET, PASSPIDFD, 1)
    for (sender, sock), surplus in zip(pairs, (2, None, None), strict=True):
        receiver = cmsgx.Receiver(sock, 100, fds=1, on_truncation="keep")
        with open_files(3) as files:
            cmsgx.send(sender, b"x", fds=files)
        with receiver.receive() as message:
            assert len(message.fds) == 1
            assert message.closed_fds == surplus, "None: the kernel has kept it out"


def test_those_that_answer_alike_share_one_configuration(pairs: Any) -> None:
    configs = [config_of(make(sock)) for _, sock in pairs]
    assert configs[0] is configs[1] is configs[2]


def test_arguments_that_are_equal_but_not_the_same_are_told_apart() -> None:
    left, right = unix_pair(socket.SOCK_STREAM)
    with left, right:
        cmsgx.Receiver(right, 10, fds=1)
        wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"fds": True}, TypeError, "^fds: the number of descriptors"),
            ({"fds": 1.0}, TypeError, "^fds: an int is needed"),
            ({"on_truncation": ["raise"]}, ValueError, r"^on_truncation: \['raise'\]"),
            ({"close": ["now"]}, ValueError, r"^close: \['now'\]"),
            ({"want": [[cmsgx.Credentials]]}, TypeError, "^want: .* is needed, not list"),
        ]
        for arguments, error, text in wrong:
            with pytest.raises(error, match=text) as caught:
                cmsgx.Receiver(right, 10, **arguments)
            assert caught.value.__context__ is None


class Disguised:
    """Equals a class, and is none."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __hash__(self) -> int:
        return hash(self.kind)

    def __eq__(self, other: object) -> bool:
        return other is self.kind


@pytest.mark.parametrize(
    "call",
    [
        lambda sock, kind: cmsgx.Receiver(sock, 9, want=[kind]),
        lambda sock, kind: cmsgx.BatchReceiver(sock, 2, 9, want=[kind]),
        lambda sock, kind: cmsgx.ErrorReceiver(sock, want=[kind]),
        lambda sock, kind: cmsgx.enable(sock, kind),
    ],
    ids=["Receiver", "BatchReceiver", "ErrorReceiver", "enable"],
)
def test_what_equals_a_kind_that_is_known_is_refused(call: Any) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(2):
            call(sock, kinds.Ttl)
        with pytest.raises(TypeError, match="a kind of control message is needed, not Disguised"):
            call(sock, Disguised(kinds.Ttl))


@pytest.mark.parametrize("name", ["Receiver", "BatchReceiver"])
def test_a_second_init_is_refused_and_changes_no_option(pairs: Any, name: str) -> None:
    sock = pairs[0][1]
    sizes = (100,) if name == "Receiver" else (2, 100)
    receiver: Any = getattr(cmsgx, name)(sock, *sizes, want=[cmsgx.Credentials])
    for want in ([cmsgx.Credentials], [cmsgx.PidFd]):
        with pytest.raises(TypeError, match="can be initialised only once"):
            receiver.__init__(sock, *sizes, want=want)
        assert states(sock) == [1, 0, 0]
    with receiver:
        pass
    assert states(sock) == [0, 0, 0]


class Later(kinds.StructMessage):
    """A kind that is registered once a configuration exists."""

    __slots__ = ()


def test_a_kind_that_is_registered_later_is_found() -> None:
    with network.udp("IPv4") as (_, sock):
        sock.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        option = kinds.Option(socket.SOL_SOCKET, SO_RXQ_OVFL, "SO_RXQ_OVFL", 4000)
        before = cmsgx.Receiver(sock, 10)
        plans = before._asked.plans
        with unregistered():  # which restores the table
            kinds.register(
                Later, level=socket.SOL_SOCKET, type=0x7AAC, layout=(), size=0, option=option
            )
            before.refresh()
            after = cmsgx.Receiver(sock, 10)
            (options,) = after._asked.plans.values()
            (config,) = options.configs.values()
            assert Later in config.want
            assert config.control_size > 4000
            assert after._asked.plans is not plans
        last = cmsgx.Receiver(sock, 10)
        (options,) = last._asked.plans.values()
        (config,) = options.configs.values()
        assert Later not in config.want


def test_what_is_kept_is_limited() -> None:
    left, right = unix_pair(socket.SOCK_STREAM)
    with left, right:
        for fds in range(254):
            cmsgx.Receiver(right, 10, fds=fds)
        assert len(_table.derived) <= _asked._MOST
        numbers = (16, 34, 76, 35, 29, 37)  # SO_TIMESTAMPING is a word of flags
        seen: set[bytes] = set()
        receiver = cmsgx.Receiver(right, 10, fds=7)
        (options,) = receiver._asked.plans.values()
        for bits in range(1 << len(numbers)):
            for number in numbers:  # first, as SO_TIMESTAMP and SO_TIMESTAMPNS share what is off
                right.setsockopt(socket.SOL_SOCKET, number, 0)
            for i, number in enumerate(numbers):
                if bits >> i & 1:
                    right.setsockopt(socket.SOL_SOCKET, number, 8 if number == 37 else 1)
            receiver.refresh()
            seen.add(options.states(right))
            assert len(options.configs) <= 32
        assert len(seen) > 32
        assert receiver._asked.plans[_cmsg.Options.key(right)] is options


def test_receivers_that_are_made_by_many_threads_at_once(pairs: Any) -> None:
    """While the caches are filled, and emptied."""
    errors: list[BaseException] = []

    def work(sock: cmsgx.socket, first: int) -> None:
        try:
            for i in range(150):
                number = (first * 80 + i) % 254
                with cmsgx.Receiver(sock, 10, fds=number, want=[cmsgx.Credentials]):
                    assert states(sock)[0] == 1
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(pair[1], i), daemon=True)
        for i, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert [states(sock) for _, sock in pairs] == [[0, 0, 0]] * len(pairs)


def test_what_an_accepted_socket_inherits_comes_back() -> None:
    """It is not set again, but the end brings back what was found: on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")
        cmsgx.enable(listener, cmsgx.Credentials, cmsgx.SecurityLabel)
        listener.listen()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(listener.getsockname())
            sock = listener.accept()[0]
        with sock:
            with cmsgx.Receiver(sock, 10, want=list(OPTIONS)):
                assert states(sock) == [1, 1, 1]
                sock.setsockopt(socket.SOL_SOCKET, PASSSEC, 0)
            assert states(sock) == [1, 1, 0]


def test_an_option_that_fails_at_the_first_socket_is_tried_at_the_next() -> None:
    """A failure is not remembered."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as other:
        for _ in range(2):
            with pytest.raises(cmsgx.NotSupportedError, match="PidFd"):
                cmsgx.Receiver(other, 10, want=[cmsgx.PidFd])
    left, right = unix_pair(socket.SOCK_STREAM)
    with left, right, cmsgx.Receiver(right, 10, want=[cmsgx.PidFd]):
        assert states(right) == [0, 0, 1]
    for _ in range(2):
        with pytest.raises(OSError, match="sock: it is closed") as caught:
            cmsgx.Receiver(right, 10, want=[cmsgx.PidFd])
        assert caught.value.errno == errno.EBADF
