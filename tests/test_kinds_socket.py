"""The kinds that any socket may have, over real sockets: socket(7)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import network
import pytest
from attempts import attempt, fails
from network import DGRAM, RAW, SOL_SOCKET, V4, V6, Sockets

import cmsgx
from cmsgx import kinds

if sys.platform != "linux":
    pytest.skip("these kinds exist only on Linux", allow_module_level=True)

SO_PRIORITY, SO_MARK, SO_WIFI_STATUS = 12, 36, 41
ETHERTYPE = 0x88B5  # no real protocol: IEEE 802, for experiments
MSG_SOCK_DEVMEM, MSG_ZEROCOPY = 0x2000000, 0x4000000

PLACES = [*network.PATHS, "raw", "raw IPv6", "packet"]


@contextmanager
def sockets(name: str) -> Iterator[Sockets]:
    """A sender, connected if possible, and a receiver; in a network of their own."""
    with network.alone():
        if name in network.PATHS:
            with network.udp(name) as pair:
                yield pair
        elif name == "packet":
            with (
                network.open_socket(socket.AF_PACKET, DGRAM) as sender,
                network.open_socket(socket.AF_PACKET, DGRAM) as receiver,
            ):
                receiver.bind(("lo", ETHERTYPE))
                yield sender, receiver
        else:
            family = V6 if name.endswith("IPv6") else V4
            with (
                network.open_socket(family, RAW, 253) as sender,
                network.open_socket(family, RAW, 253) as receiver,
            ):
                sender.connect((network.LOOPBACK[family], 0))
                yield sender, receiver


def send(name: str, sender: cmsgx.socket, control: Any) -> None:
    address = ("lo", ETHERTYPE) if name == "packet" else None
    cmsgx.send(sender, b"x" * 20, control=control, address=address)


def receiver_of(sock: cmsgx.socket, *kinds: Any) -> cmsgx.Receiver:
    """Skips if this kernel lacks them."""
    with attempt("Receiver(want=)", errno.ENOPROTOOPT):
        return cmsgx.Receiver(sock, 100, want=kinds)


# Mark and priority ------------------------------------------------------------------------------

VALUES = [
    *((kinds.Mark, value, SO_MARK) for value in (0, 1, 0xDEAD, 2**32 - 1)),
    *((kinds.Priority, value, SO_PRIORITY) for value in (0, 6, 7, 0x10001, 2**32 - 1)),
]


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(("kind", "value", "number"), VALUES)
def test_mark_and_priority_are_sent_and_received(
    kind: Any, value: int, number: int, name: str
) -> None:
    """On loopback the receiver gets the sender's own packet."""
    with sockets(name) as (sender, receiver):
        rx = receiver_of(receiver, kind)
        send(name, sender, kind(value))
        msg = rx.receive()
        assert msg[kind] == kind(value)
        assert msg.control == (kind(value),)
        assert not msg.truncated
        send(name, sender, kind(value))
        payload = struct.pack("=I", value)
        assert receiver.recvmsg(100, 100)[1] == [(SOL_SOCKET, number, payload)]


@pytest.mark.parametrize(("kind", "option"), [(kinds.Mark, SO_MARK), (kinds.Priority, SO_PRIORITY)])
def test_one_that_is_not_sent_is_that_of_the_socket(kind: Any, option: int) -> None:
    with sockets("IPv4") as (sender, receiver):
        rx = receiver_of(receiver, kind)
        sender.setsockopt(SOL_SOCKET, option, 5)
        for control, expected in ((), 5), (kind(3), 3), ((), 5):
            send("IPv4", sender, control)
            assert rx.receive()[kind] == kind(expected)


def test_both_come_in_one_message() -> None:
    with sockets("IPv6") as (sender, receiver):
        rx = receiver_of(receiver, kinds.Priority, kinds.Mark)
        send("IPv6", sender, [kinds.Priority(4), kinds.Mark(9)])
        msg = rx.receive()
        assert msg.control == (kinds.Mark(9), kinds.Priority(4))


@pytest.mark.parametrize("name", ["IPv4", "IPv6"])
@pytest.mark.parametrize(
    ("control", "number"),
    [
        (kinds.Mark(1), errno.EPERM),
        (kinds.Priority(7), errno.EPERM),
        (kinds.Priority(6), None),
        (kinds.Priority(0), None),
    ],
    ids=repr,
)
def test_what_needs_a_capability(control: Any, number: int | None, name: str) -> None:
    with sockets(name) as (sender, receiver):
        receiver.settimeout(0)
        # Skips if the kernel does not accept the kind at all.
        with attempt(f"send({control})", errno.EINVAL):
            send(name, sender, control)
        assert receiver.recv(100)
        with network.without_capabilities():
            if number is not None:
                with fails(number):
                    send(name, sender, control)
                with pytest.raises(BlockingIOError):
                    receiver.recv(100)
            else:
                send(name, sender, control)
                assert receiver.recv(100)


@pytest.mark.parametrize("number", [SO_MARK, SO_PRIORITY])
@pytest.mark.parametrize("size", [0, 3, 5, 8])
def test_the_kernel_refuses_another_length(number: int, size: int) -> None:
    with sockets("IPv4") as (sender, _), fails(errno.EINVAL):
        send("IPv4", sender, cmsgx.Unknown(SOL_SOCKET, number, bytes(size)))


# What was dropped -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["IPv4", "IPv6", "raw", "packet"])
def test_datagrams_that_were_dropped_are_counted(name: str) -> None:
    with sockets(name) as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 100, want=[kinds.ReceiveQueueOverflow])
        receiver.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 4096)
        send(name, sender, ())
        assert kinds.ReceiveQueueOverflow not in rx.receive()
        total = 0
        for _ in range(2):
            sent = 200
            for _ in range(sent):
                send(name, sender, ())
            received = 0
            while True:
                try:
                    msg = rx.receive(timeout=0)
                except BlockingIOError:
                    break
                received += 1
            assert 0 < received < sent
            total += sent - received
            # The next message that is queued reports it.
            send(name, sender, ())
            msg = rx.receive()
            assert msg.control == (kinds.ReceiveQueueOverflow(total),)


@pytest.mark.parametrize("want", [(), (kinds.UdpGro,)], ids=["apart", "joined"])
def test_dropped_coalesced_datagrams_are_counted_as_one(want: tuple[Any, ...]) -> None:
    each, messages = 50, 16
    with network.udp("IPv4") as (sender, receiver):
        rx = cmsgx.Receiver(receiver, 65536, want=[kinds.ReceiveQueueOverflow, *want])
        receiver.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(messages):
            cmsgx.send(sender, bytes(each), control=kinds.UdpSegment(1))
        came = queued = 0
        with suppress(BlockingIOError):
            while True:
                with rx.receive(timeout=0) as msg:
                    came += len(msg.segments)
                    queued += 1
        assert came == queued * (each if want else 1)
        lost = each * messages - came
        assert lost
        cmsgx.send(sender, b"last")  # which reports it
        drops = rx.receive()[kinds.ReceiveQueueOverflow].drops
        assert drops == (messages - queued if want else lost)


# What needs hardware ----------------------------------------------------------------------------


def test_no_wireless_frame_is_sent_over_loopback() -> None:
    """The option is accepted; the kind itself needs a wireless adapter."""
    with sockets("IPv4") as (sender, _):
        with cmsgx.enable(sender, kinds.WifiStatus):
            assert sender.getsockopt(SOL_SOCKET, SO_WIFI_STATUS) == 1
            send("IPv4", sender, ())
            with pytest.raises(BlockingIOError):
                cmsgx.receive(sender, 100, flags=socket.MSG_ERRQUEUE, timeout=0)
        assert sender.getsockopt(SOL_SOCKET, SO_WIFI_STATUS) == 0


def test_a_buffer_of_a_device_that_was_not_bound_is_refused() -> None:
    with network.tcp() as (client, server):
        cmsgx.enable(client, kinds.DevmemSend)
        with fails(errno.EINVAL):
            cmsgx.send(client, b"data", control=kinds.DevmemSend(1), flags=MSG_ZEROCOPY)
        # And data in ordinary memory arrives as usual.
        client.sendall(b"data")
        msg = cmsgx.receive(server, 10, flags=MSG_SOCK_DEVMEM)
        assert (msg.data, msg.control) == (b"data", ())
        with pytest.raises(ValueError, match="only delivers it"):
            cmsgx.send(client, b"x", control=kinds.DevmemLinear(size=1))


# Short control buffers --------------------------------------------------------------------------


@pytest.mark.parametrize("room", range(4))
@pytest.mark.parametrize("kind", [kinds.Mark, kinds.Priority, kinds.ReceiveQueueOverflow])
def test_a_short_control_buffer_is_reported(kind: Any, room: int) -> None:
    with sockets("IPv4") as (sender, receiver):
        receiver_of(receiver, kind)
        if kind is kinds.ReceiveQueueOverflow:
            receiver.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 4096)
            for _ in range(200):
                send("IPv4", sender, ())
            receiver.settimeout(0)
            with suppress(BlockingIOError):
                while receiver.recv(100):
                    pass
        send("IPv4", sender, ())
        _, ancdata, flags, _ = cmsgx.recvmsg(receiver, 100, cmsgx.CMSG_LEN(room))
        assert flags & socket.MSG_CTRUNC
        ((level, type_, payload),) = ancdata
        assert len(payload) == room
        with pytest.raises(cmsgx.MalformedControlError, match=r"\(truncated\)") as caught:
            cmsgx.decode(level, type_, payload, V4)
        assert kind.__name__ in str(caught.value)
