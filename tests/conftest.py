"""Every test leaves as many descriptors open as it found, and has the usual limit of open ones."""

from __future__ import annotations

import gc
import os
import resource
import socket
from collections.abc import Iterator

import pytest
from support import UNIX_TYPES, Pair, close_pair, open_fds, unix_pair

import cmsgx

# The usual soft limit; enough for a test that holds the up to 253 descriptors of a message twice.
DESCRIPTORS = 1024


def pytest_configure() -> None:
    # The programs that tests run buffer their output as they do for everybody.
    os.environ.pop("PYTHONUNBUFFERED", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < DESCRIPTORS and soft != resource.RLIM_INFINITY:
        try:
            enough = hard if hard == resource.RLIM_INFINITY else max(DESCRIPTORS, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, enough))
        except (ValueError, OSError) as error:
            raise pytest.UsageError(
                f"these tests need {DESCRIPTORS} descriptors; ulimit -n is {soft}, and cannot be "
                f"raised above {hard}: {error}"
            ) from None


def pytest_collection_finish() -> None:
    # The garbage collector does not need to look at what pytest has collected.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaked_descriptors() -> Iterator[None]:
    before = open_fds()
    yield
    after = open_fds()
    if after.keys() != before.keys():
        # Descriptors held by a cycle, or still waiting for the background closer, are not leaks. A
        # collection is not run each time: it takes longer than most tests.
        gc.collect()
        cmsgx.wait_closed(60)
        after = open_fds()
    assert after.keys() == before.keys(), {
        "leaked": {n: after[n] for n in after.keys() - before.keys()},
        "lost": {n: before[n] for n in before.keys() - after.keys()},
    }


@pytest.fixture(params=UNIX_TYPES, ids=lambda kind: kind.name)
def unix_type(request: pytest.FixtureRequest) -> socket.SocketKind:
    """Each type of AF_UNIX socket."""
    kind: socket.SocketKind = request.param
    return kind


@pytest.fixture
def pair(unix_type: socket.SocketKind) -> Iterator[Pair]:
    """A connected pair of cmsgx sockets, of each AF_UNIX type."""
    sockets = unix_pair(unix_type)
    yield sockets
    close_pair(sockets)


@pytest.fixture
def stream() -> Iterator[Pair]:
    """A connected pair of AF_UNIX stream sockets."""
    sockets = unix_pair(socket.SOCK_STREAM)
    yield sockets
    close_pair(sockets)


@pytest.fixture
def packets() -> Iterator[Pair]:
    """A connected pair of AF_UNIX seqpacket sockets."""
    sockets = unix_pair(socket.SOCK_SEQPACKET)
    yield sockets
    close_pair(sockets)
