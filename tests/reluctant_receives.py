"""The calls that receive, for reluctance.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from errqueue import refused
from reluctance import ANY, SOCKETS, UNIX, Got, Scene, row
from support import content, installed

import cmsgx

ROOM = 64
METHODS: dict[str, Any] = {"by": ("cmsgx.socket",), "waits": ("blocking", "timeout", "not")}
NO_TIMEOUT = ("blocking", "timeout", "not")
# Those whose end can be seen.
ENDING = ("stream", "packets", "tcp")


def send_some(scene: Scene, *, ends: bool = False) -> None:
    """What there is to receive: two messages with descriptors, and one without."""
    for data, *indexes in ((b"first", 0, 1), (b"second message", 2), (b"3",)):
        fds = scene.fds(*indexes)
        rights = cmsgx.Rights(fds)
        control = [item for item in (rights if fds else None, scene.control or None) if item]
        scene.send_plainly(data, control)
    if ends:
        scene.left.close()


def gathered(scene: Scene, receive: Callable[[], list[Got]]) -> Any:
    """Receives until all has come."""
    found: list[Got] = []
    while not is_all(scene, found):
        found += receive()
    return scene.normal(found)


def is_all(scene: Scene, found: list[Got]) -> bool:
    return sum([len(data) for data, _, _ in found]) >= 20 if scene.is_stream else len(found) >= 3


def of_message(message: cmsgx.Message) -> Got:
    """Closes what it holds."""
    with message:
        assert not message.truncated
        others = tuple([
            (item.level, item.type, item.pack())
            for item in message.control
            if not isinstance(item, cmsgx.Rights | cmsgx.PidFd)
        ])  # fmt: skip
        return message.data, tuple([content(fd) for fd in message.fds]), others


def room_for(scene: Scene) -> int:
    return cmsgx.CMSG_SPACE(12) * 2 if scene.is_unix else cmsgx.CMSG_SPACE(4)


# One message --------------------------------------------------------------------------------------


@row(*ANY)
def receive(scene: Scene) -> Any:
    send_some(scene)
    fds = 3 if scene.is_unix else 0
    return gathered(
        scene,
        lambda: [of_message(scene.call("cmsgx.receive", scene.sock, ROOM, fds=fds, **scene.limit))],
    )


@row(*ANY, waits=NO_TIMEOUT)
def recvmsg(scene: Scene) -> Any:
    send_some(scene)
    size = room_for(scene)
    return gathered(
        scene, lambda: [scene.got(*scene.call("cmsgx.recvmsg", scene.sock, ROOM, size)[:2])]
    )


def into(scene: Scene, name: str, function: Callable[..., Any] | None = None) -> Any:
    send_some(scene)
    rooms = [bytearray(2), bytearray(ROOM)]

    def call() -> list[Got]:
        more = () if function is None else (function,)
        how = scene.call if function is None else scene.call_as
        nbytes, ancdata, _, _ = how(name, *more, scene.sock, rooms, room_for(scene))
        return [scene.got(b"".join(rooms)[:nbytes], ancdata)]

    return gathered(scene, call)


@row(*ANY, waits=NO_TIMEOUT)
def recvmsg_into(scene: Scene) -> Any:
    return into(scene, "cmsgx.recvmsg_into")


@row(*ANY, **METHODS)
def method_recvmsg_into(scene: Scene) -> Any:
    return into(scene, "cmsgx.socket.recvmsg_into")


@row(*ANY, by=("socket.socket",), waits=NO_TIMEOUT)
def installed_recvmsg_into(scene: Scene) -> Any:
    with installed():
        return into(scene, "cmsgx.install", socket.socket.recvmsg_into)


@row(*ANY, **METHODS)
def method_recvmsg(scene: Scene) -> Any:
    send_some(scene)
    size = room_for(scene)
    return gathered(
        scene, lambda: [scene.got(*scene.call("cmsgx.socket.recvmsg", scene.sock, ROOM, size)[:2])]
    )


def numbers(scene: Scene, call: Callable[[], Any]) -> Any:
    """What recv_fds() gives: no other control messages."""
    send_some(scene)

    def one() -> list[Got]:
        data, fds, _, _ = call()
        return [scene.got(data, [scene.as_rights(fds)])]

    return gathered(scene, one)


@row(*UNIX, waits=NO_TIMEOUT)
def recv_fds(scene: Scene) -> Any:
    return numbers(scene, lambda: scene.call("cmsgx.recv_fds", scene.sock, ROOM, 3))


@row(*UNIX, **METHODS)
def method_recv_fds(scene: Scene) -> Any:
    return numbers(scene, lambda: scene.call("cmsgx.socket.recv_fds", scene.sock, ROOM, 3))


@row(*UNIX, by=("socket.socket",), waits=NO_TIMEOUT)
def installed_recv_fds(scene: Scene) -> Any:
    with installed(cloexec=False):
        return numbers(
            scene, lambda: scene.call_as("cmsgx.install", socket.recv_fds, scene.sock, ROOM, 3)
        )


# Receivers ----------------------------------------------------------------------------------------


def receiver(scene: Scene, **more: Any) -> cmsgx.Receiver:
    room: dict[str, Any] = {} if "into" in more else {"bufsize": ROOM}
    return cmsgx.Receiver(scene.sock, **room, **{"fds": 3 if scene.is_unix else 0, **more})


def batch_receiver(scene: Scene, **more: Any) -> cmsgx.BatchReceiver:
    return cmsgx.BatchReceiver(scene.sock, 2, ROOM, fds=3 if scene.is_unix else 0, **more)


@row(*ANY)
def receiver_receive(scene: Scene) -> Any:
    send_some(scene)
    rx = receiver(scene)
    return gathered(
        scene, lambda: [of_message(scene.call("cmsgx.Receiver.receive", rx, **scene.limit))]
    )


@row(*ANY)
def receiver_receive_less(scene: Scene) -> Any:
    send_some(scene)
    rx = receiver(scene)
    return gathered(
        scene,
        lambda: [of_message(scene.call("cmsgx.Receiver.receive", rx, bufsize=20, **scene.limit))],
    )


@row(*UNIX)
def receiver_into(scene: Scene) -> Any:
    send_some(scene)
    rx = receiver(scene, into=[bytearray(1), bytearray(ROOM)], close="background")
    return gathered(
        scene, lambda: [of_message(scene.call("cmsgx.Receiver.receive", rx, **scene.limit))]
    )


@row(*ANY)
def batch_receive(scene: Scene) -> Any:
    send_some(scene)
    rx = batch_receiver(scene)
    return gathered(
        scene,
        lambda: [
            of_message(one) for one in scene.call("cmsgx.BatchReceiver.receive", rx, **scene.limit)
        ],
    )


@row(*ANY, waits=NO_TIMEOUT)
def receiver_try(scene: Scene) -> Any:
    send_some(scene)
    rx = receiver(scene)
    return gathered(scene, lambda: [of_message(scene.call("cmsgx.Receiver.try_receive", rx))])


@row(*ANY, waits=NO_TIMEOUT)
def batch_try(scene: Scene) -> Any:
    send_some(scene)
    rx = batch_receiver(scene)
    return gathered(
        scene, lambda: list(map(of_message, scene.call("cmsgx.BatchReceiver.try_receive", rx)))
    )


def tried_to_the_end(scene: Scene, rx: Any, name: str) -> Any:
    """Each item that a try gives, up to the one that is only the end."""
    send_some(scene, ends=True)
    found: list[Got] = []
    while True:
        item = scene.call(f"{name}.try_receive", rx)
        if scene.call_freely(f"{name}.is_end", rx, item):
            item.close()
            return scene.normal(found)
        found += map(of_message, [item] if isinstance(item, cmsgx.Message) else item)


@row(*ENDING, waits=NO_TIMEOUT)
def receiver_tries_to_the_end(scene: Scene) -> Any:
    return tried_to_the_end(scene, receiver(scene), "cmsgx.Receiver")


@row(*ENDING, waits=NO_TIMEOUT)
def batch_tries_to_the_end(scene: Scene) -> Any:
    return tried_to_the_end(scene, batch_receiver(scene), "cmsgx.BatchReceiver")


def looped(scene: Scene, rx: Any) -> Any:
    """Each item of the loop, up to its end."""
    send_some(scene, ends=True)
    found: list[Got] = []
    with suppress(StopIteration):
        while True:
            item = scene.call_as(type(rx).__qualname__, next, rx)
            found += map(of_message, [item] if isinstance(item, cmsgx.Message) else item)
    return scene.normal(found)


@row(*ENDING, waits=NO_TIMEOUT)
def receiver_loop(scene: Scene) -> Any:
    return looped(scene, receiver(scene))


@row(*ENDING, waits=NO_TIMEOUT)
def batch_loop(scene: Scene) -> Any:
    return looped(scene, batch_receiver(scene))


# Waiting until something comes --------------------------------------------------------------------


@row(*ANY, by=SOCKETS, waits=("blocking", "timeout", "timeout="), moves=False)
def receive_what_comes_later(scene: Scene) -> Any:
    number = scene.left.fileno()
    rx, batches = receiver(scene), batch_receiver(scene)
    found: list[Got] = []
    for name, of, *more in (
        ("cmsgx.receive", scene.sock, ROOM),
        ("cmsgx.Receiver.receive", rx),
        ("cmsgx.BatchReceiver.receive", batches),
    ):
        with scene.meanwhile(lambda: os.write(number, b"x")):
            item = scene.call(name, of, *more, **scene.limit)
        found += map(of_message, [item] if isinstance(item, cmsgx.Message) else item)
    if scene.limit:
        return scene.normal(found)
    for each in (rx, batches):
        with scene.meanwhile(lambda: os.write(number, b"x")):
            item = scene.call_as(type(each).__qualname__, next, each)
        found += map(of_message, [item] if isinstance(item, cmsgx.Message) else item)
    with scene.meanwhile(lambda: os.write(number, b"x")):
        found.append(scene.got(*scene.call("cmsgx.recvmsg", scene.sock, ROOM, 99)[:2]))
    return scene.normal(found)


# Connections and the error queue ------------------------------------------------------------------


@row("stream", **METHODS, moves=False)
def accept(scene: Scene) -> Any:
    with cmsgx.socket(socket.AF_UNIX) as listener, cmsgx.socket(socket.AF_UNIX) as client:
        listener.bind("")
        listener.listen()
        client.connect(listener.getsockname())
        client.settimeout(60)
        accepted, address = scene.call("cmsgx.socket.accept", scene.argument(listener))
        with accepted:
            client.send_fds([b"x"], scene.fds(1))
            accepted.settimeout(60)
            found = of_message(cmsgx.receive(accepted, 1, fds=1))
        return address, type(accepted).__qualname__, found


def reports(scene: Scene, call: Callable[[Any], list[Any]]) -> Any:
    """What is on the error queue of a socket with three errors."""
    with scene.paused():
        stack = scene.stack
        sock: Any = stack.enter_context(refused(3))
        sock = stack.enter_context(cmsgx.fromfd(sock.fileno(), sock.family, sock.type))
    given = scene.argument(sock)
    found: list[Any] = []
    while len(found) < 3:
        found += call(given)
    return [(type(one).__qualname__, one.errno, one.message.data) for one in found]


@row("udp")
def error_receiver(scene: Scene) -> Any:
    def call(sock: Any) -> list[Any]:
        rx = cmsgx.ErrorReceiver(sock)
        return [scene.call("cmsgx.ErrorReceiver.receive", rx, **scene.limit)]

    return reports(scene, call)


@row("udp", waits=NO_TIMEOUT)
def error_receiver_tries(scene: Scene) -> Any:
    def call(sock: Any) -> list[Any]:
        rx = cmsgx.ErrorReceiver(sock)
        first = scene.call_freely("cmsgx.ErrorReceiver.try_receive", rx)
        return [first, *rx]

    return reports(scene, call)


@row("udp")
def receive_errors(scene: Scene) -> Any:
    def call(sock: Any) -> list[Any]:
        found: list[Any] = scene.call_as(
            "cmsgx.receive_errors", lambda: list(cmsgx.receive_errors(sock, **scene.limit))
        )
        return found

    return reports(scene, call)


# Nothing ------------------------------------------------------------------------------------------


@row("stream", "udp", by=SOCKETS, waits=("timeout",), moves=False)
def nothing_there(scene: Scene) -> Any:
    for sock in {scene.own, scene.sock}:
        sock.settimeout(0.005)
    return [
        scene.failure("cmsgx.receive", scene.sock, ROOM),
        scene.failure("cmsgx.Receiver.receive", receiver(scene)),
        scene.failure("cmsgx.BatchReceiver.receive", batch_receiver(scene)),
        scene.failure("cmsgx.recvmsg", scene.sock, ROOM),
    ]


@row(*ENDING, waits=NO_TIMEOUT, moves=False)
def nothing_but_the_end(scene: Scene) -> Any:
    scene.left.close()
    message = scene.call("cmsgx.receive", scene.sock, ROOM)
    for rx in (receiver(scene), batch_receiver(scene)):
        with suppress(StopIteration):
            scene.call_as(type(rx).__qualname__, next, rx)
            raise AssertionError("it did not end")
    return message.data, message.eof
