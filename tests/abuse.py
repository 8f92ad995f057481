"""A kind that the tests of misuse share."""

from __future__ import annotations

from cmsgx import kinds

# (level, type) pairs that no kernel delivers, because a kind cannot be unregistered.
LEVEL = 0x7FFF


class Small(kinds.StructMessage):
    __slots__ = ()


kinds.register(Small, level=LEVEL, type=1, layout=(("x", 0, "i"),), size=4)
