"""What goes out over a connection: one message after another, each of them whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import BrokenError
from .arrivals import append_result, close_each
from .ending import Ending
from .sends import views_after, views_of

if TYPE_CHECKING:
    from .._fds import Fd, FileDescriptorLike
    from ..kinds import ControlMessage


class Step(NamedTuple):
    """What one sendmsg(2) is given. What it leaves of the bytes goes before the next step."""

    data: Sequence[Any]
    fds: Sequence[FileDescriptorLike]
    control: tuple[ControlMessage, ...]


class Prepared(Protocol):
    """What a send needs of a PreparedSend."""

    @property
    def sent(self) -> int: ...
    @property
    def is_done(self) -> bool: ...
    def try_send(self) -> int | None: ...
    def close(self) -> None: ...


def _try(prepared: Prepared) -> object:
    return prepared.try_send()


class _Message(NamedTuple):
    steps: list[Step]
    # Of each step that was begun: how many bytes went, or what is left of it.
    outcomes: list[Any]
    has_begun: bool  # before the first of these steps
    owned: list[Fd]  # those that it closes


class Departures(Ending):
    """The message that is being sent, and what broke sending.

    send        a try, with the arguments `data, fds=, control=`: returns a number of bytes if all
                of them went, else a PreparedSend
    duplicate   returns an Fd of its own for a descriptor

    As for Arrivals, an exception of a signal handler leaves nothing torn. For one thread at a time.
    """

    __slots__ = ("_duplicate", "_message", "_send")

    def __init__(
        self, send: Callable[..., Any], duplicate: Callable[[FileDescriptorLike], Fd]
    ) -> None:
        super().__init__()
        self._send = send
        self._duplicate = duplicate
        self._message: _Message | None = None

    @property
    def pending(self) -> int:
        """How many bytes are left of a message whose first byte went."""
        if self._message is None or not self._has_begun(self._message):
            return 0
        return sum([len(view) for step in self._left(self._message) for view in step.data])

    def begin(self, steps: list[Step]) -> None:
        """Takes the next message, once the one before it is gone."""
        self.check()
        if self._message is not None:
            raise RuntimeError("the message before is not sent yet")
        self._message = _Message(steps, [], False, [])

    def advance(self, go_on: Callable[[Any], object] = _try) -> bool:
        """Sends what can be sent now. True once all is gone; else this is called again, when more
        can be sent.

        go_on   called with what is left of a step, where that is to be tried in another way than
                by try_send()

        After TimeoutError, BlockingIOError and MemoryError it can be called again; after any other
        error the message is dropped. If a part of it went, sending is broken for good: whatever
        followed would be taken for the rest.
        """
        self.check()
        message = self._message
        if message is None:
            return True
        steps, outcomes, _, owned = message
        try:
            last: Any = outcomes[-1] if outcomes else 0
            if type(last) is not int and not last.is_done:
                go_on(last)
                if not last.is_done:
                    return False
            while len(outcomes) < len(steps):
                data, fds, control = steps[len(outcomes)]
                append_result(outcomes, partial(self._send, data, fds=fds, control=control))
                if type(outcomes[-1]) is not int:
                    return False
        except (TimeoutError, BlockingIOError, MemoryError):
            raise
        except Exception as error:
            if self._has_begun(message):
                self._break(error)
            self._drop()
            raise
        close_each(owned)
        self._message = None
        return True

    def abandon(self) -> bool:
        """For a sender that does not wait for the rest: it was cancelled, or its time is up.

        If nothing went, nothing will. Else what is left is copied, descriptors too, and the
        connection has to send it: True, and advance() goes on with that.
        """
        message = self._message
        if message is None:
            return False
        if not self._has_begun(message):
            self._drop()
            return False
        owned: list[Fd] = []
        try:
            steps: list[Step] = []
            for step in self._left(message):
                first = len(owned)
                for fd in step.fds:
                    append_result(owned, partial(self._duplicate, fd))
                steps.append(Step([b"".join(step.data)], owned[first:], step.control))
            rest = _Message(steps, [], True, owned)
        except BaseException as error:
            close_each(owned)
            if isinstance(error, Exception):
                # It cannot be finished: no memory, or no free descriptor.
                self._break(error)
                self._drop()
            raise
        self._message = rest
        self._release(message)
        return True

    def _has_begun(self, message: _Message) -> bool:
        outcomes = message.outcomes
        return message.has_begun or (
            bool(outcomes)
            and (len(outcomes) > 1 or type(outcomes[0]) is int or outcomes[0].sent > 0)
        )

    def _left(self, message: _Message) -> list[Step]:
        """What is still to be sent: of a step of which bytes went, the rest of its bytes."""
        steps, outcomes, _, _ = message
        left = list(steps[len(outcomes) :])
        last: Any = outcomes[-1] if outcomes else 0
        if type(last) is not int and not last.is_done:
            step = steps[len(outcomes) - 1]
            if last.sent:
                step = Step(views_after(views_of(step.data), last.sent), (), ())
            left.insert(0, step)
        return left

    def _break(self, error: Exception) -> None:
        self._failure = (
            lambda: BrokenError(
                f"send: a message was sent only in part, so nothing can follow it: {error}"
            ),
            error,
        )

    def _drop(self) -> None:
        message = self._message
        self._message = None
        if message is not None:
            self._release(message)

    def _release(self, message: _Message) -> None:
        for outcome in message.outcomes:
            if type(outcome) is not int:
                outcome.close()
        close_each(message.owned)
