"""What is left of a send."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from .. import _cmsg
from .._arguments import as_kinds, as_tuple, as_view, needed
from .._cmsg import note_used_up

if TYPE_CHECKING:
    from typing import Self

# The most buffers of one call, on each supported system.
IOV_MAX = 1024


def views_of(data: Any) -> list[memoryview]:
    """The bytes of one buffer, or of each buffer of an iterable, in place."""
    items: Any = data
    if type(data) is not list and type(data) is not tuple:
        try:
            view = memoryview(data)
        except TypeError:
            what = "a bytes-like object, or an iterable of them,"
            if isinstance(data, str):
                raise needed("data", what, data) from None
            items = as_tuple("data", what, data)
        else:
            return [as_view("data", view)]
    try:
        return [memoryview(item).cast("B") for item in items]
    except TypeError:
        return [as_view(f"data[{index}]", item) for index, item in enumerate(items)]


def views_after(views: list[memoryview], sent: int) -> list[memoryview]:
    """What is left once `sent` bytes are gone: as many views as one call takes."""
    rest: list[memoryview] = []
    for view in views:
        if sent >= view.nbytes:
            sent -= view.nbytes
        else:
            rest.append(view[sent:])
            sent = 0
    return rest[:IOV_MAX]


def _parts_of(message: Any) -> list[Any]:
    return [*message] if isinstance(message, tuple) else [message]


def rest_of(message: Any, sent: int) -> tuple[Any, ...]:
    """What is left of a message as send_batch() takes it, once `sent` bytes of it, at least one,
    are gone: the descriptors and control messages went with the first."""
    parts = _parts_of(message)
    return (views_after(views_of(parts[0]), sent), (), (), *parts[3:])


# As many messages as the kernel takes at once; more of them would be copied for nothing.
_MOST_MESSAGES = 1024
# What reads an iterator that is the data, the descriptors or the control messages.
_READERS: tuple[Callable[[Any], Any], ...] = (views_of, _cmsg.listed_fds, as_kinds)


def is_iterator(value: object, place: int | None = None) -> bool:
    """Whether it can be read only once. A file in place of the descriptors, the second part of a
    message, is one of them, and is not read."""
    return hasattr(type(value), "__next__") and not (place == 1 and hasattr(value, "fileno"))


def _without_iterators(message: Any) -> Any:
    """The message itself; if an iterator is in it, one with what that gave."""
    parts = _parts_of(message)
    places = [place for place, part in enumerate(parts[:3]) if is_iterator(part, place)]
    if not places:
        return message
    for place in places:
        parts[place] = _READERS[place](parts[place])
    return tuple(parts)


class Sliceable(Protocol):
    """Messages of which some at a time are looked at: a list, or what makes them then."""

    def __getitem__(self, which: slice, /) -> Sequence[Any]: ...


class Unsent:
    """Messages that go in order over one socket, as send_batch() takes them: what is left of them.

    next() says what to send; the call that does it counts in `progress`, and told() hears what it
    returned. When next() is empty, result() is the number of messages that went. Nothing is copied
    and no descriptor is duplicated: both stay the caller's, and must not change until the end.

    used_up  (index, name) of what the caller cannot give a second time, because it was an iterator;
             it matters until the message of that index went
    before   messages that went by other means
    """

    __slots__ = ("_before", "_error", "_is_over", "_messages", "_shown", "_used_up", "progress")

    def __init__(
        self,
        messages: Sliceable,
        *,
        used_up: Iterable[tuple[int, str]] = (),
        before: int = 0,
        progress: list[int] | None = None,
    ) -> None:
        self._messages = messages
        self._used_up = tuple(used_up)
        self._before = before
        self.progress = [0, 0] if progress is None else progress
        """How many messages went, and how many bytes of the next one."""
        self._shown = 0  # the messages that next() gave
        self._error: OSError | None = None
        self._is_over = False

    @classmethod
    def of(cls, messages: Iterable[Any]) -> Self:
        """The argument of send_batch(). Each iterator is read once, and here."""
        kept: list[Any] = []
        used_up: list[tuple[int, str]] = []
        for index, message in enumerate(_cmsg.as_messages(messages)):
            kept.append(_without_iterators(message))
            if kept[-1] is not message:
                used_up.append((index, f"messages[{index}]"))
        if is_iterator(messages):
            used_up.append((len(kept), "messages"))
        return cls(kept, used_up=used_up)

    @property
    def sent(self) -> int:
        """How many messages went whole."""
        return self._before + self.progress[0]

    @property
    def sent_bytes(self) -> int:
        """How many bytes of the next one went."""
        return self.progress[1]

    def next(self) -> list[Any]:
        """What to send now, the first of it perhaps what is left of a message; [] at the end."""
        done, part = self.progress
        if self._is_over:
            return []
        messages = list(self._messages[done : done + _MOST_MESSAGES])
        self._shown = done + len(messages)
        if part and messages:
            messages[0] = rest_of(messages[0], part)
        return messages

    def told(self, outcome: OSError | bool | None) -> None:
        """After a call with all of next(): None or True, or the error of the message that is next.

        False, if the socket takes no more now: that changes nothing, and the caller waits.
        """
        if isinstance(outcome, OSError):
            self._error = outcome
            self._is_over = True
        elif outcome is not False and self.progress[0] < self._shown:
            # The next message is wrong in itself, and a call that begins with it says how.
            self._is_over = not self._must_raise()

    def _must_raise(self) -> bool:
        """Whether a number is not enough to go on with: for then the rest is a call of its own."""
        done, part = self.progress
        is_used_up = bool(self._used_up) and self._used_up[-1][0] >= done
        return not self.sent or part > 0 or is_used_up

    def result(self) -> int:
        """How many messages went. Raises the error that ended it if that number is not enough: if
        it is 0, or if the caller cannot send the rest, because a part of a message went, or an
        iterator was read."""
        error, self._error = self._error, None
        if error is None or not self._must_raise():
            return self.sent
        for index, name in self._used_up:
            if index >= self.progress[0]:
                note_used_up(error, **{name: iter(())})
                break
        self.tell(error)
        try:
            raise error
        finally:
            del error  # its traceback has this frame: a cycle, which would hold the messages

    def tell(self, error: BaseException) -> None:
        """Gives an exception that ends it the attributes that send_batch() gives it."""
        error.sent, error.sent_bytes = self.sent, self.sent_bytes  # type: ignore[attr-defined]
