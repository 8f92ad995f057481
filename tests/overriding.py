"""Classes of sockets that override methods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

METHODS = ("sendmsg", "recvmsg", "recvmsg_into")


@contextmanager
def patched(cls: type, **methods: Any) -> Iterator[None]:
    """Patches as a tracer does, and undoes it: by assigning the original, or by deleting its
    own."""
    own = {name: vars(cls)[name] for name in methods if name in vars(cls)}
    for name, method in methods.items():
        setattr(cls, name, method)
    try:
        yield
    finally:
        for name in methods:
            if name in own:
                setattr(cls, name, own[name])
            else:
                delattr(cls, name)
