"""Kinds of a user over real sockets."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import content, open_fds, open_files, unix_pair, unregistered
from user_kinds import IP_TTL, SOL_SOCKET, Stamp, TimeToLive, register_all

import cmsgx
from cmsgx import kinds

# User-defined kinds, registered for the tests of this file --------------------------------------


class Picky(kinds.ControlMessage):
    """A kind whose decoder fails."""

    __slots__ = ("value",)

    def pack(self) -> bytes:
        raise ZeroDivisionError("pack")

    @classmethod
    def unpack(cls, data: Any, /) -> Picky:
        raise ZeroDivisionError("unpack")


@pytest.fixture(autouse=True)
def user_kinds() -> Iterator[None]:
    """Registers them in place of the kinds that have their numbers; unregisters them at the end."""
    with unregistered(kinds.Timestamp, kinds.Ttl, kinds.Tos):
        register_all()
        yield


# User kinds over real sockets -------------------------------------------------------------------


@pytest.mark.parametrize("by", ["receive", "Receiver"])
def test_a_kind_of_a_user_is_received(by: str) -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender, receiver:
        rx = cmsgx.Receiver(receiver, 10, fds=1, want=[Stamp, cmsgx.Credentials])
        with open_files(1) as files:
            cmsgx.send(sender, b"x", fds=files)
        with rx.receive() if by == "Receiver" else cmsgx.receive(receiver, 10, fds=1) as msg:
            assert Stamp in msg
            stamp: Any = msg[Stamp]
            assert type(stamp) is Stamp
            assert stamp.seconds > 1_600_000_000
            assert stamp in msg.control
            assert msg.get_all(Stamp) == (stamp,)
            assert cmsgx.Unknown not in msg
            assert content(msg.fds[0]) == "0"


def test_a_kind_of_a_user_is_sent_and_received() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        rx = cmsgx.Receiver(server, 10, want=[TimeToLive])
        sends: tuple[Callable[[], int], ...] = (
            lambda: cmsgx.send(client, b"x", control=TimeToLive(7), address=server.getsockname()),
            lambda: cmsgx.sendmsg(client, [b"x"], [TimeToLive(7)], 0, server.getsockname()),
            lambda: cmsgx.sendmsg(
                client, [b"x"], [(0, IP_TTL, struct.pack("=i", 7))], 0, server.getsockname()
            ),
        )
        for send in sends:
            send()
            assert rx.receive()[TimeToLive] == TimeToLive(7)
        with pytest.raises(OSError, match="Invalid argument"):
            cmsgx.send(client, b"x", control=TimeToLive(300), address=server.getsockname())


def test_a_decoder_that_fails_raises_at_look_up_and_loses_nothing() -> None:
    sender, receiver = unix_pair(socket.SOCK_DGRAM)
    with sender, receiver:
        before = open_fds()
        unpack = Stamp.__dict__.get("unpack")
        assert unpack is None
        rx = cmsgx.Receiver(receiver, 10, fds=1, want=[Stamp, cmsgx.Credentials])
        with open_files(1) as files:
            cmsgx.send(sender, b"data", fds=files)
        with rx.receive() as msg:
            with pytest.raises(ZeroDivisionError):
                cmsgx.send(sender, b"y", control=failing(Picky))
            assert msg.data == b"data"
            assert msg[cmsgx.Credentials] == cmsgx.Credentials()
            assert content(msg.fds[0]) == "0"
        assert open_fds() == before


def failing(kind: type[Picky]) -> Picky:
    """Registers it late: a message that came earlier is decoded by it from then on."""
    kinds.register(kind, level=SOL_SOCKET, type=0x7E03)
    return kind(1)


def test_a_failing_decoder_of_a_received_message() -> None:
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.IPPROTO_IP, 13, 1)  # IP_RECVTOS

        class Tos(kinds.ControlMessage):
            __slots__ = ("value",)

            @classmethod
            def unpack(cls, data: Any, /) -> Any:
                raise ZeroDivisionError

        kinds.register(Tos, level=socket.IPPROTO_IP, type=1, families=frozenset({socket.AF_INET}))
        rx = cmsgx.Receiver(server, 10, want=[TimeToLive])
        cmsgx.send(client, b"data", address=server.getsockname())
        msg = rx.receive()
        assert Tos in msg
        for look_up in (
            lambda: msg[Tos],
            lambda: msg.get(Tos),
            lambda: msg.get_all(Tos),
            lambda: msg.control,
            lambda: list(msg),
        ):
            with pytest.raises(ZeroDivisionError):
                look_up()
        assert msg[TimeToLive].hops > 0
        assert msg.data == b"data"


def test_unknown_can_be_sent_on() -> None:
    """Nothing is dropped: an unknown control message can be passed through."""
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        rx = cmsgx.Receiver(server, 10, want=[TimeToLive])
        ttl = cmsgx.Unknown(0, IP_TTL, (9).to_bytes(4, sys.byteorder))
        cmsgx.send(client, b"x", control=[ttl], address=server.getsockname())
        assert rx.receive()[TimeToLive] == TimeToLive(9)
        with pytest.raises(OSError, match="Invalid argument"):
            cmsgx.send(
                client, b"x", control=cmsgx.Unknown(0, 9999, b""), address=server.getsockname()
            )


def test_names_of_kinds_say_where_they_are_documented() -> None:
    for name in set(kinds.__all__) - {"Kind"}:  # which is a union of types
        assert getattr(kinds, name).__module__ in ("cmsgx", "cmsgx.kinds")
