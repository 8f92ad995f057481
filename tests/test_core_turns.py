"""The row of those who wait to send or to receive."""

from __future__ import annotations

from cmsgx._core.turns import Turns


class Waiter:
    def __init__(self, name: str) -> None:
        self.name = name
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def row(*names: str) -> tuple[Turns[Waiter], list[Waiter]]:
    turns: Turns[Waiter] = Turns(Waiter.wake)
    waiters = [Waiter(name) for name in names]
    assert [turns.enter(waiter) for waiter in waiters] == [True] + [False] * (len(names) - 1)
    return turns, waiters


def woken(waiters: list[Waiter]) -> str:
    return "".join([waiter.name * waiter.woken for waiter in waiters])


def test_who_comes_first_is_served_first() -> None:
    turns, waiters = row("a", "b", "c")
    for done, now in ("a", "b"), ("ab", "bc"), ("abc", "bc"):
        assert turns.first is waiters[len(done) - 1]
        turns.leave(waiters[len(done) - 1])
        assert woken(waiters) == now
    assert turns.first is None
    assert len(turns) == 0
    turns.wake()
    turns.wake_all()


def test_one_that_is_cancelled_while_it_waits_wakes_nobody() -> None:
    turns, waiters = row("a", "b", "c")
    turns.leave(waiters[1])
    assert woken(waiters) == ""
    turns.leave(waiters[0])
    assert woken(waiters) == "c"


def test_one_that_was_woken_and_then_cancelled_wakes_the_next() -> None:
    turns, waiters = row("a", "b")
    turns.wake()
    assert woken(waiters) == "a"
    turns.leave(waiters[0])
    assert woken(waiters) == "ab"
    turns.leave(waiters[0])  # its task runs at last
    assert woken(waiters) == "ab"


def test_the_connection_finishes_in_the_place_of_one_that_left() -> None:
    turns, waiters = row("a", "b", "c")
    heir = Waiter("h")
    turns.hand_over(waiters[0], heir)
    turns.leave(waiters[0])
    assert turns.first is heir
    assert woken(waiters) == ""
    turns.leave(heir)
    assert woken(waiters) == "b"
    turns.hand_over(Waiter("unknown"), heir)
    assert len(turns) == 2
    turns.wake_all()
    assert woken(waiters) == "bbc"
