"""Both receivers, each kind of socket pair, and what they have in common for tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pairs import new_pair
from support import Pair

import cmsgx

RECEIVERS: dict[str, Callable[..., Any]] = {
    "Receiver": lambda sock, **options: cmsgx.Receiver(sock, 100, **options),
    "BatchReceiver": lambda sock, **options: cmsgx.BatchReceiver(sock, 8, 100, **options),
}
KINDS = ["stream", "dgram", "seqpacket", "udp"]
HAS_END = ["stream", "seqpacket"]
HAS_FDS = ["stream", "dgram", "seqpacket"]

each_receiver = pytest.mark.parametrize("make", RECEIVERS.values(), ids=RECEIVERS)


@contextmanager
def two(kind: str) -> Iterator[Pair]:
    if kind != "udp":
        with new_pair(getattr(socket, f"SOCK_{kind.upper()}")) as pair:
            yield pair
        return
    with (
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        sender.connect(receiver.getsockname())
        receiver.connect(sender.getsockname())
        yield sender, receiver


def messages_of(found: cmsgx.Message | cmsgx.Batch | None) -> list[cmsgx.Message]:
    assert found is not None
    return [found] if isinstance(found, cmsgx.Message) else list(found)
