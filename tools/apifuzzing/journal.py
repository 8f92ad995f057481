"""The last operations, in a file that outlives a crash, and how a finding ends the process."""

from __future__ import annotations

import os
import sys
from typing import Any

from apifuzzing.world import WORLD

SLOTS, SLOT = 48, 160  # operations, and bytes of each
FINDING = 70  # exit status of a child that found something itself

log: Any = bytearray(SLOTS * SLOT)
noted = 0
now = 0  # the operation
is_verbose = False


def note(name: str, args: list[Any], keywords: dict[str, Any]) -> None:
    global noted
    shown = [shown_as(value) for value in args]
    shown += [f"{key}={shown_as(value)}" for key, value in keywords.items()]
    text = f"{now}: {'  ' * WORLD.depth}{name}({', '.join(shown)})"
    if is_verbose:
        print(text, flush=True)
    at = noted % SLOTS * SLOT
    noted += 1
    log[at : at + SLOT] = text.encode(errors="replace")[:SLOT].ljust(SLOT)


def shown_as(value: Any) -> str:
    """Without a call of its own repr()."""
    if type(value) in (int, float, str, bytes, bool, type(None), type(...)):
        return f"{value!r:.24}"
    if type(value) in (list, tuple):
        return f"{type(value).__name__} of {len(value)}"
    return value.__name__ if isinstance(value, type) else type(value).__name__


def finding(text: str, error: BaseException | None = None) -> None:
    import traceback

    WORLD.armed = False
    print(f"apifuzz: {text}", file=sys.stderr)
    if error is not None and error.__traceback__ is not None:
        traceback.print_tb(error.__traceback__)
    sys.stderr.flush()
    os._exit(FINDING)
