"""What kinds of several families have in common."""

from __future__ import annotations

import enum
import socket as _socket

__all__ = ["Ecn"]


class Ecn(enum.IntEnum):
    """Explicit congestion notification, the low two bits of a traffic class: RFC 3168."""

    NOT_ECT = 0
    ECT_1 = 1
    ECT_0 = 2
    CE = 3


class WithTrafficClass:
    """For what has a `value` that is a traffic class: RFC 2474, RFC 3168."""

    __slots__ = ()

    value: int

    @property
    def dscp(self) -> int:
        """The differentiated services code point, the high six bits."""
        return self.value >> 2

    @property
    def ecn(self) -> Ecn:
        """The low two bits: whether a router on the way was congested."""
        return Ecn(self.value & 3)


class OnInterface:
    """For what has the index of an `interface`: netdevice(7)."""

    __slots__ = ()

    interface: int

    @property
    def interface_name(self) -> str | None:
        """Its name, as it is now; None where there is no such interface any more."""
        try:
            return _socket.if_indextoname(self.interface)
        except (OSError, OverflowError):
            return None
