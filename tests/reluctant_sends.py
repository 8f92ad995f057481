"""The calls that send, for reluctance.py."""

from __future__ import annotations

import array
import os
import socket
from typing import Any

from reluctance import ANY, SCM_RIGHTS, SOCKETS, SOL_SOCKET, UNIX, Scene, row
from support import installed

import cmsgx

DATA: list[Any] = [b"", b"first", bytearray(b"second")]
WHOLE = b"firstsecond"
# Those that keep the boundaries of messages.
APART = ("datagrams", "packets", "udp")
# Calls of socket, and those in their place, have no timeout= and do not take an Fd or a number.
METHODS: dict[str, Any] = {"by": ("cmsgx.socket",), "waits": ("blocking", "timeout", "not")}
NO_TIMEOUT = ("blocking", "timeout", "not")


def extras(scene: Scene) -> dict[str, Any]:
    """Two descriptors and a control message, where the socket can send them."""
    fds = scene.fds(0, 1)
    return {"control": scene.control, **({"fds": fds} if fds else {})}


def raw(scene: Scene) -> list[Any]:
    """The same for the drop-in functions."""
    fds = scene.fds(0, 1)
    rights = [(SOL_SOCKET, SCM_RIGHTS, array.array("i", fds))] if fds else []
    return [*rights, scene.control] if scene.control else rights


# One message --------------------------------------------------------------------------------------


@row(*ANY, may_be_short=True)
def send(scene: Scene) -> Any:
    return scene.call("cmsgx.send", scene.sock, DATA, **extras(scene), **scene.limit)


@row(*ANY, may_be_short=True)
def send_one_buffer(scene: Scene) -> Any:
    """By send(2)."""
    return scene.call("cmsgx.send", scene.sock, WHOLE, **scene.limit)


@row("datagrams", "udp")
def send_to_an_address(scene: Scene) -> Any:
    if scene.is_unix:
        scene.right.bind("")
    address = scene.right.getsockname()
    return scene.call(
        "cmsgx.send", scene.sock, DATA, address=address, **extras(scene), **scene.limit
    )


@row(*ANY, waits=NO_TIMEOUT, may_be_short=True)
def sendmsg(scene: Scene) -> Any:
    return scene.call("cmsgx.sendmsg", scene.sock, DATA, raw(scene))


@row(*UNIX, waits=NO_TIMEOUT, may_be_short=True)
def send_fds(scene: Scene) -> Any:
    return scene.call("cmsgx.send_fds", scene.sock, DATA, scene.fds(0, 1))


@row(*ANY, **METHODS, may_be_short=True)
def method_sendmsg(scene: Scene) -> Any:
    return scene.call("cmsgx.socket.sendmsg", scene.sock, DATA, raw(scene))


@row(*UNIX, **METHODS, may_be_short=True)
def method_send_fds(scene: Scene) -> Any:
    return scene.call("cmsgx.socket.send_fds", scene.sock, DATA, scene.fds(0, 1))


@row(*ANY, by=("socket.socket",), waits=NO_TIMEOUT, may_be_short=True)
def installed_sendmsg(scene: Scene) -> Any:
    with installed():
        return scene.call_as("cmsgx.install", socket.socket.sendmsg, scene.sock, DATA, raw(scene))


@row(*UNIX, by=("socket.socket",), waits=NO_TIMEOUT, may_be_short=True)
def installed_send_fds(scene: Scene) -> Any:
    with installed(cloexec=False):
        return scene.call_as("cmsgx.install", socket.send_fds, scene.sock, DATA, scene.fds(0, 1))


# Everything ---------------------------------------------------------------------------------------


def continued(scene: Scene, name: str, of: Any, first: dict[str, Any]) -> int:
    """Sends all, and goes on with what is left where the call could not wait."""
    sent = 0
    while sent < len(WHOLE):
        call = scene.call_freely if sent else scene.call
        try:
            call(name, of, WHOLE[sent:] if sent else DATA, **({} if sent else first), **scene.limit)
            return len(WHOLE)
        except BlockingIOError as error:
            sent += error.sent  # type: ignore[attr-defined]
    return sent


@row(*ANY)
def send_all(scene: Scene) -> Any:
    return continued(scene, "cmsgx.send_all", scene.sock, extras(scene))


@row("tcp", "udp", may_be_short=True)
def zero_copy(scene: Scene) -> Any:
    with cmsgx.ZeroCopySender(scene.sock) as sender:
        sent = scene.call(
            "cmsgx.ZeroCopySender.send", sender, DATA, control=scene.control, **scene.limit
        )
        scene.call_freely("cmsgx.ZeroCopySender.reap", sender)
        scene.call_freely("cmsgx.ZeroCopySender.wait", sender, **scene.limit)
        assert sender.pending == (0, 0)
        assert scene.call_freely("cmsgx.ZeroCopySender.close", sender, **scene.limit) == ()
    return sent


@row("tcp", "udp")
def zero_copy_of_all(scene: Scene) -> Any:
    with cmsgx.ZeroCopySender(scene.sock, max_pending=4) as sender:
        more = {"control": scene.control}
        sent = continued(scene, "cmsgx.ZeroCopySender.send_all", sender, more)
        scene.call_freely("cmsgx.ZeroCopySender.wait", sender, **scene.limit)
        assert sender.pending == (0, 0)
    return sent


# Tries --------------------------------------------------------------------------------------------


@row(*ANY, waits=NO_TIMEOUT, may_be_short=True)
def try_send(scene: Scene) -> Any:
    return scene.call("cmsgx.try_send", scene.sock, DATA, **extras(scene))


@row(*ANY, waits=NO_TIMEOUT)
def prepared(scene: Scene) -> Any:
    """All that its tries say went, went."""
    with cmsgx.PreparedSend(scene.sock, iter(DATA), **extras(scene)) as rest:
        sent = scene.call("cmsgx.PreparedSend.try_send", rest)
        while not rest.is_done:
            assert rest.sent == sent
            sent += scene.call_freely("cmsgx.PreparedSend.try_send", rest)
        assert rest.sent == sent
        scene.call_freely("cmsgx.PreparedSend.close", rest)
    return sent


@row(*UNIX, waits=NO_TIMEOUT)
def prepared_with_numbers_that_are_reused(scene: Scene) -> Any:
    """From the first try on it has descriptors of its own."""
    numbers = [os.dup(number) for number in scene.fds(0, 1)]
    with cmsgx.PreparedSend(scene.sock, DATA, fds=numbers) as rest:
        rest.try_send()
        for number in numbers:
            os.dup2(scene.files[3], number)
            os.close(number)
        while not rest.is_done:
            scene.call_freely("cmsgx.PreparedSend.try_send", rest)
        return rest.sent


@row(*UNIX, waits=NO_TIMEOUT, moves=False)
def nothing_prepared_that_is_given_up(scene: Scene) -> Any:
    """If no byte went, no descriptor did; and none that it duplicated is left open."""
    rest = cmsgx.PreparedSend(scene.sock, b"x", fds=scene.fds(0, 1))
    empty = scene.fill()
    assert rest.try_send() is None
    scene.call_freely("cmsgx.PreparedSend.close", rest)
    assert rest.sent == 0
    empty()
    return scene.failure("cmsgx.PreparedSend.try_send", rest)


# Many messages ------------------------------------------------------------------------------------


def messages(scene: Scene) -> list[Any]:
    return [
        (b"one", scene.fds(0)),
        b"two!",
        (b"three", scene.fds(1, 2), scene.control),
    ]


def batched(scene: Scene, items: list[Any], **more: Any) -> list[Any]:
    """Sends all, and goes on where the call stopped: what was skipped."""
    done = 0
    skipped: list[Any] = []
    while items:
        # What the last call was refused is let through now.
        call = scene.call_freely if done else scene.call
        try:
            result = call("cmsgx.send_batch", scene.sock, items, **more, **scene.limit)
            sent, part = getattr(result, "done", result), 0
            found = getattr(result, "skipped", ())
            assert sent > 0
        except BlockingIOError as error:
            sent, part = error.sent, error.sent_bytes  # type: ignore[attr-defined]
            found = getattr(error, "skipped", ())
            sent += len(found)
        skipped += [(done + index, error.errno) for index, error in found]
        done += sent
        items = items[sent:]
        if part:
            data, *_ = items[0] if isinstance(items[0], tuple) else (items[0],)
            items[0] = data[part:]
    return skipped


@row(*ANY)
def send_batch(scene: Scene) -> Any:
    return batched(scene, messages(scene))


def with_one_that_is_refused(scene: Scene) -> Any:
    items = messages(scene)
    items[1:1] = [bytes(1 << 20)]
    return batched(scene, items, on_error="skip")


@row("datagrams", "packets")
def send_batch_past_an_error(scene: Scene) -> Any:
    return with_one_that_is_refused(scene)


# Both make several tries, of which the first ones fail. A call that may not wait begins anew each
# time, and a kernel that says EAGAIN after each of those would never let it through.
SEVERAL_TRIES: dict[str, Any] = {"by": SOCKETS, "waits": ("blocking", "timeout", "timeout=")}


@row("udp", **SEVERAL_TRIES)
def send_batch_past_an_error_of_udp(scene: Scene) -> Any:
    return with_one_that_is_refused(scene)


def segmented(scene: Scene) -> int:
    size, sent = 4, 0
    while sent * size < len(WHOLE):
        control = scene.control if scene.how.kind == "udp" else ()
        call = scene.call_freely if sent else scene.call
        sent += call(
            "cmsgx.send_segments", scene.sock, WHOLE[sent * size :], size, control=control,
            **scene.limit,
        )  # fmt: skip
    return sent


@row("datagrams", "packets", "udp")
def send_segments(scene: Scene) -> Any:
    return segmented(scene)


@row("udp", **SEVERAL_TRIES)
def send_segments_that_are_refused(scene: Scene) -> Any:
    scene.left.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
    return segmented(scene)


# Waiting until there is room ----------------------------------------------------------------------

WAITING = ("blocking", "timeout", "timeout=")


@row(*UNIX, by=SOCKETS, waits=WAITING, may_be_short=True)
def send_that_waits(scene: Scene) -> Any:
    with scene.full():
        return scene.call("cmsgx.send", scene.sock, DATA, **extras(scene), **scene.limit)


@row(*UNIX, by=SOCKETS, waits=WAITING)
def send_all_that_waits(scene: Scene) -> Any:
    with scene.full():
        return scene.call("cmsgx.send_all", scene.sock, DATA, **extras(scene), **scene.limit)


@row(*UNIX, by=SOCKETS, waits=WAITING)
def send_batch_that_waits(scene: Scene) -> Any:
    with scene.full():
        return scene.call("cmsgx.send_batch", scene.sock, messages(scene), **scene.limit)


@row(*UNIX, by=SOCKETS, waits=("blocking", "timeout"), may_be_short=True)
def sendmsg_that_waits(scene: Scene) -> Any:
    with scene.full():
        return scene.call("cmsgx.sendmsg", scene.sock, DATA, raw(scene))


# What fails ---------------------------------------------------------------------------------------


@row(*APART, moves=False)
def nothing_that_is_too_long(scene: Scene) -> Any:
    return scene.failure("cmsgx.send", scene.sock, bytes(1 << 20), **scene.limit)


@row(*UNIX, moves=False)
def nothing_with_a_number_that_is_not_open(scene: Scene) -> Any:
    """The error is that of the call, whatever the tries before it said."""
    found = scene.failure("cmsgx.send", scene.sock, b"x", fds=[0, 99_999], **scene.limit)
    return found, scene.failure("cmsgx.send_all", scene.sock, b"x", fds=[99_999], **scene.limit)


@row("stream", "tcp", moves=False)
def nothing_after_the_end(scene: Scene) -> Any:
    scene.left.shutdown(socket.SHUT_WR)
    names = ("cmsgx.send", "cmsgx.send_all")
    return [scene.failure(name, scene.sock, b"x", **scene.limit) for name in names]
