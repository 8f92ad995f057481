"""For reluctance.py: what stands on cmsgx._core, driven by tries alone, as asyncio and trio do.

A try that says "not now" is made again, with nothing but the same objects in between.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from typing import Any

from reluctance import ANY, MOST_TRIES, Scene, row
from reluctant_receives import receiver
from reluctant_sends import messages
from support import content

import cmsgx
from cmsgx import _cmsg
from cmsgx._core.departures import Departures, Step
from cmsgx._core.frames import Deframer, steps_of
from cmsgx._core.queues import ByteStream
from cmsgx._core.segments import SegmentedMessage, SegmentedSend
from cmsgx._core.sends import Unsent
from cmsgx.errors import BrokenError

TRIES: dict[str, Any] = {"waits": ("blocking", "timeout", "not")}

FRAMES: tuple[tuple[bytes, tuple[int, ...]], ...] = (
    (b"", ()), (b"first", (0, 1)), (bytes(range(30)), (2,)), (b"", (3, 0, 1)), (b"last", ()),
)  # fmt: skip


def departures(scene: Scene) -> Departures:
    return Departures(partial(_cmsg.send_or_prepare, scene.other), duplicate)


def duplicate(fd: Any) -> cmsgx.Fd:
    return fd.dup() if isinstance(fd, cmsgx.Fd) else cmsgx.Fd(os.dup(fd))


def advance(out: Departures) -> None:
    """To the end: a step may be one byte."""
    tries = 0
    while not out.advance():
        tries += 1
        assert tries < MOST_TRIES
    assert out.pending == 0


def send_whole(out: Departures, steps: list[Step]) -> None:
    out.begin(steps)
    advance(out)


def send_frames(scene: Scene) -> None:
    out = departures(scene)
    for data, indexes in FRAMES:
        send_whole(out, steps_of(data, scene.fds(*indexes), scene.control))


@row("stream", **TRIES)
def a_frame_whose_sender_left(scene: Scene) -> Any:
    """Once a byte went, the rest goes too, with what its sender closes and changes after that."""
    scene.try_only()
    rx = receiver(scene, fds=16)
    deframer = Deframer(rx.is_end, max_fds=3)
    data, numbers = bytearray(b"data"), [os.dup(number) for number in scene.fds(0, 1)]
    out = departures(scene)
    out.begin(steps_of(data, numbers))
    is_gone = out.advance()
    while not is_gone and not out.pending:
        is_gone = out.advance()
    assert is_gone or out.abandon()
    data[:] = b"else"
    for number in numbers:
        os.dup2(scene.files[3], number)
        os.close(number)
    advance(out)
    while (frame := deframer.next_frame()) is None:
        scene.call_as("core.try_pull", deframer.pull, rx.try_receive, is_free=True)
    deframer.close()
    with frame:
        return frame.data, [content(fd) for fd in frame.fds]


@row("stream", **TRIES)
def frames(scene: Scene) -> Any:
    """The descriptors of each frame, by their contents."""
    scene.try_only()
    rx = receiver(scene, fds=16)
    deframer = Deframer(rx.is_end, max_fds=3)
    send_frames(scene)
    scene.left.shutdown(socket.SHUT_WR)
    found: list[Any] = []
    while not deframer.is_at_end:
        frame = deframer.next_frame()
        if frame is None:
            scene.call_as("core.try_pull", deframer.pull, rx.try_receive, is_free=True)
            continue
        with frame:
            found.append((frame.data, [content(fd) for fd in frame.fds]))
    deframer.close()
    assert [data for data, _ in found] == [data for data, _ in FRAMES]
    return found


@row("stream", **TRIES)
def frames_that_end_too_early(scene: Scene) -> Any:
    """Its descriptors are closed, and the error is the same."""
    scene.try_only()
    rx = receiver(scene, fds=16)
    deframer = Deframer(rx.is_end, max_fds=3)
    [step] = steps_of(b"never whole", scene.fds(0, 1))
    whole = b"".join(step.data)
    send_whole(departures(scene), [Step([whole[:12]], step.fds, ())])
    scene.left.shutdown(socket.SHUT_WR)
    while True:
        try:
            assert deframer.next_frame() is None
            scene.call_as("core.try_pull", deframer.pull, rx.try_receive, is_free=True)
        except BrokenError as error:
            return str(error), error.partial


@row("stream", **TRIES)
def reads(scene: Scene) -> Any:
    """Bytes in whatever pieces the reader needs, and the descriptors in order."""
    scene.try_only()
    rx = receiver(scene, fds=3)
    stream = ByteStream(rx.is_end)
    out = departures(scene)
    send_whole(out, [Step([b"a line\n", b"four"], scene.fds(0), ())])
    send_whole(out, [Step([b"more, and the rest"], scene.fds(1, 2), ())])
    scene.left.shutdown(socket.SHUT_WR)

    def read(name: str, *arguments: Any) -> Any:
        while (result := getattr(stream, name)(*arguments)) is None:
            scene.call_as("core.try_pull", stream.pull, rx.try_receive, is_free=True)
        return result

    found = [read("read_until", b"\n", 64), read("read_exactly", 4)]
    for count, size in ((1, 5), (2, 13)):
        for fd in stream.take_fds(count):
            with fd:
                found.append(content(fd))
        found.append(read("read_exactly", size))
    stream.close()
    return found


@row(*ANY, is_send=True, **TRIES)
def batch(scene: Scene) -> Any:
    """What is left of a batch is what did not go, to the byte."""
    scene.try_only()
    unsent = Unsent.of(iter(messages(scene)))
    for _ in range(MOST_TRIES):
        if not (items := unsent.next()):
            break
        # False where it takes no more now, also after it took some.
        unsent.told(_cmsg.try_send_batch(unsent.progress, scene.sock, items))
    return unsent.result()


@row("udp", "datagrams", is_send=True, **TRIES)
def segments(scene: Scene) -> Any:
    """Each datagram once, in segments or not."""
    scene.try_only()
    if scene.how.waits == "not":
        scene.left.setsockopt(1, 11, 1)  # SO_NO_CHECK: then a path refuses segments
    plan = SegmentedSend(
        memoryview(b"eleven bytes"), 4, (), None,
        most=cmsgx.segment_support(scene.sock), own_size=None,
    )  # fmt: skip
    for _ in range(MOST_TRIES):
        if not (step := plan.next()):
            break
        outcome: Any
        if isinstance(step, SegmentedMessage):
            try:
                sent = scene.call_as(
                    "core.send", cmsgx.send, scene.sock, step.data, control=step.control,
                    timeout=0, is_free=True,
                )  # fmt: skip
                plan.bytes_sent[0] += sent
                outcome = None
            except OSError as error:
                outcome = error
        else:
            outcome = _cmsg.try_send_batch(plan.datagrams_sent, scene.sock, step)
        plan.told(outcome)
    return plan.result()
