"""Helpers of the tests of the kinds of IPv6."""

from __future__ import annotations

from typing import Any

import network
import pytest
from network import Path

import cmsgx

IPV6_2292PKTINFO, IPV6_2292HOPOPTS, IPV6_2292DSTOPTS, IPV6_2292RTHDR = 2, 3, 4, 5
IPV6_2292HOPLIMIT, IPV6_FLOWINFO, IPV6_MTU_DISCOVER, IPV6_PKTINFO, IPV6_HOPLIMIT = 8, 11, 23, 50, 52
IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_DONTFRAG, IPV6_RECVTCLASS, IPV6_TCLASS = (
    49,
    51,
    62,
    66,
    67,
)

HOW = pytest.mark.parametrize("how", ["connected", "address", "drop-in"])
# An option type that every node has to skip: RFC 8200 section 4.2.
SKIPPED = bytes([0x1E, 4, 1, 2, 3, 4])
HEADER = network.options_header(SKIPPED)


def send(how: str, path: Path, sender: cmsgx.socket, receiver: cmsgx.socket, control: Any) -> None:
    """Sends one message by each call that accepts a typed control message."""
    to = (path.to, receiver.getsockname()[1])
    if how == "connected":
        sender.connect(to)
        cmsgx.send(sender, b"data", control=control)
    elif how == "address":
        cmsgx.send(sender, b"data", control=control, address=to)
    else:
        cmsgx.sendmsg(sender, [b"data"], [control], 0, to)


def with_next(header: bytes, number: int) -> bytes:
    return bytes([number]) + header[1:]
