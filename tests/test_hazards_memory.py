"""docs/hazards.md, part A: memory runs out."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import socket
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hazards import (
    IN_PYTHON,
    Act,
    a_file,
    close_all,
    close_both,
    close_result,
    count_open,
    drain,
    high_number,
    numbers_in,
    queued,
    received,
)
from memory import need_testcapi
from support import Pair, allow_many_descriptors, open_files, run_python, unix_pair

import cmsgx
from cmsgx import _cmsg, _fds


def in_child(function: str, *arguments: object, env: dict[str, str] | None = None) -> str:
    """Calls a function of this file in a separate process."""
    code = f"import test_hazards_memory as here; here.{function}(*{arguments!r})"
    return run_python(code, timeout=600, env=env)


def a_memfd() -> cmsgx.Fd:
    """If nothing has asked yet on which device these are."""
    _fds._device_of_memfds.cache_clear()
    return cmsgx.share(b"x")


def close_unowned_pidfd(unowned: Any, owner: Any) -> None:
    if owner is None:
        with contextlib.suppress(ValueError):
            owner = unowned.own()
    if owner is not None:
        owner.close()


def close_number(fd: cmsgx.Fd, number: int | None) -> None:
    if number is not None:
        os.close(number)
        assert fd.closed
    fd.close()


# A4: no memory ----------------------------------------------------------------------------------


def close_owned_numbers(_: object, result: Any) -> None:
    if result is not None:
        close_all(numbers_in(result[1]))


def close_listed(_: object, result: Any) -> None:
    if result is not None:
        close_all(result[1])


def batch_received(pair: Pair, files: list[int]) -> cmsgx.Batch:
    for _ in range(3):
        queued(pair, files)
    return cmsgx.BatchReceiver(pair[1], 4, 16, fds=20, want=[cmsgx.Credentials]).receive()


def close_batch(batch: cmsgx.Batch, result: Any) -> None:
    for owner in result if isinstance(result, list) else ():
        if isinstance(owner, cmsgx.Fd):
            owner.close()
    batch.close()


def close_message(message: cmsgx.Message, result: Any) -> None:
    for owner in result if isinstance(result, list) else [result]:
        if isinstance(owner, cmsgx.Fd):
            owner.close()
    message.close()


def short_of_memory(pair: Pair, files: list[int]) -> dict[str, dict[str, Act]]:
    """Every call that handles descriptors, by group.

    Without a list literal: free-threaded CPython 3.13 crashes if it gets no memory for one.
    """
    right = pair[1]
    plain = cmsgx.Receiver(right, 16, fds=20, want=[cmsgx.Credentials, cmsgx.PidFd])
    small = cmsgx.Receiver(right, 2, fds=20, want=[cmsgx.Credentials, cmsgx.PidFd])
    owners = [cmsgx.Fd(os.dup(files[0])) for _ in range(3)]
    buffers = [b"x"] * 20
    many: list[int | cmsgx.Fd] = [*owners, *files, *([files[0]] * 60)]

    def from_queue(act: Callable[[Pair], Any], undo: Callable[[Any, Any], object]) -> Act:
        return Act(lambda: queued(pair, files), act, undo)

    def of_message(act: Callable[[Any], Any]) -> Act:
        return Act(lambda: received(pair, files), act, close_message)

    def sending(act: Callable[[Any], Any]) -> Act:
        return Act(lambda: pair, act, lambda _, __: None)

    def batch_from_queue(act: Callable[[Pair], Any]) -> Act:
        return Act(lambda: queued(queued(queued(pair, files), files), files), act, close_result)

    def of_batch(act: Callable[[Any], Any]) -> Act:
        return Act(lambda: batch_received(pair, files), act, close_batch)

    batches = cmsgx.BatchReceiver(right, 4, 16, fds=20, want=[cmsgx.Credentials])
    cut = cmsgx.BatchReceiver(right, 2, 2, fds=2)
    in_background = cmsgx.BatchReceiver(right, 4, 16, fds=2, close="background")
    messages: list[Any] = [
        (b"x", owners), b"y", (b"z", many, cmsgx.Credentials()), ([b"x"] * 20, files)
    ]  # fmt: skip
    wrong: list[Any] = [*messages, (b"bad", [-1])]

    return {
        "receive": {
            "receive": from_queue(lambda p: cmsgx.receive(p[1], 16, fds=20), close_result),
            "receive, less": from_queue(lambda p: cmsgx.receive(p[1], 16, fds=2), close_result),
            "receive, cut": from_queue(lambda p: cmsgx.receive(p[1], 2, fds=2), close_result),
            "Receiver": from_queue(lambda p: plain.receive(), close_result),
            "Receiver, cut": from_queue(lambda p: small.receive(), close_result),
            "Receiver, new": from_queue(
                lambda p: cmsgx.Receiver(p[1], 16, fds=20).receive(), close_result
            ),
            "loop": from_queue(lambda p: next(plain), close_result),
            "recv_fds": from_queue(
                lambda p: cmsgx.recv_fds(p[1], 16, 20),
                close_listed,
            ),
            "recv_fds, less": from_queue(
                lambda p: cmsgx.recv_fds(p[1], 16, 2),
                close_listed,
            ),
            "recvmsg": from_queue(lambda p: cmsgx.recvmsg(p[1], 16, 500), close_owned_numbers),
            "recvmsg, large": from_queue(
                lambda p: cmsgx.recvmsg(p[1], 2000, 5000), close_owned_numbers
            ),
            "recvmsg_into": from_queue(
                lambda p: cmsgx.recvmsg_into(p[1], (bytearray(9),) * 20, 500), close_owned_numbers
            ),
        },
        "send": {
            "send": sending(lambda p: cmsgx.send(p[0], b"x", fds=owners)),
            "send, many": sending(lambda p: cmsgx.send(p[0], buffers, fds=many)),
            "send, Rights": sending(
                lambda p: cmsgx.send(p[0], b"x", control=(cmsgx.Rights(many), cmsgx.Credentials()))
            ),
            "send_all": sending(lambda p: cmsgx.send_all(p[0], b"x", fds=many)),
            "send_fds": sending(lambda p: cmsgx.send_fds(p[0], buffers, many)),
            "sendmsg": sending(lambda p: cmsgx.sendmsg(p[0], (b"x",), (cmsgx.Rights(owners),))),
        },
        "batch": {
            "BatchReceiver": batch_from_queue(lambda _: batches.receive()),
            "BatchReceiver, cut": batch_from_queue(lambda _: cut.receive()),
            "BatchReceiver, background": batch_from_queue(lambda _: in_background.receive()),
            "BatchReceiver, new": batch_from_queue(
                lambda p: cmsgx.BatchReceiver(p[1], 4, 16, fds=20).receive()
            ),
            "batch loop": batch_from_queue(lambda _: next(batches)),
            "batch[1]": of_batch(lambda batch: batch[1]),
            "batch[:]": of_batch(lambda batch: batch[:]),
            "tuple(batch)": of_batch(lambda batch: tuple(batch)),
            "batch[0].fds[0]": of_batch(lambda batch: batch[0].fds[0]),
            "batch[-1].take_all": of_batch(lambda batch: batch[-1].take_all()),
            "repr(batch)": of_batch(lambda batch: repr(batch)),
            "batch.close": of_batch(lambda batch: batch.close()),
            "segments": of_batch(lambda batch: tuple(batch[0].segments)),
            "send_batch": sending(lambda p: cmsgx.send_batch(p[0], messages)),
            "send_batch, a bad one": sending(lambda p: cmsgx.send_batch(p[0], wrong)),
        },
        "message": {
            "fds": of_message(lambda msg: msg.fds),
            "fds[0]": of_message(lambda msg: msg.fds[0]),
            "list(fds)": of_message(lambda msg: list(msg.fds)),
            "repr(fds)": of_message(lambda msg: repr(msg.fds)),
            "take(0)": of_message(lambda msg: msg.take(0)),
            "take_all": of_message(lambda msg: msg.take_all()),
            "take(PidFd)": of_message(lambda msg: msg.take(cmsgx.PidFd)),
            "[Rights]": of_message(lambda msg: msg[cmsgx.Rights]),
            "get_all(Rights)": of_message(lambda msg: msg.get_all(cmsgx.Rights)),
            "[PidFd]": of_message(lambda msg: msg[cmsgx.PidFd]),
            "[Credentials]": of_message(lambda msg: msg[cmsgx.Credentials]),
            "control": of_message(lambda msg: msg.control),
            "iteration": of_message(lambda msg: tuple(msg)),
            "data": of_message(lambda msg: msg.data),
            "view": of_message(lambda msg: msg.view[1:]),
            "address": of_message(lambda msg: msg.address),
            "close": of_message(lambda msg: msg.close()),
        },
        "Fd": {
            # Not accept(): the one of _socket loses a descriptor if it has no memory for the
            # address.
            **{name: act for name, act in IN_PYTHON.items() if name != "accept"},
            "Fd": Act(
                high_number,
                lambda number: cmsgx.Fd(number),
                lambda number, fd: os.close(number) if fd is None else fd.close(),
            ),
            "dup": Act(a_file, lambda fd: fd.dup(), close_both),
            "detach": Act(a_file, lambda fd: fd.detach(), close_number),
            "fileno": Act(a_file, lambda fd: fd.fileno(), lambda fd, _: fd.close()),
            "close": Act(a_file, lambda fd: fd.close(), lambda fd, _: fd.close()),
            "check": Act(a_file, lambda fd: fd.check(kind="file"), lambda fd, _: fd.close()),
            "check, of a memfd": Act(
                a_memfd,
                lambda fd: fd.check(kind="memfd"),
                lambda fd, _: fd.close(),
            ),
            "PidFd.unpack.own": Act(
                lambda: cmsgx.PidFd.unpack(high_number().to_bytes(4, sys.byteorder)),
                lambda unowned: unowned.own(),
                close_unowned_pidfd,
            ),
        },
    }


# Python functions with a handler: if no memory is left at all, CPython itself loops for ever at the
# entry of one (3.11: it wants an int for the stack there) or crashes (3.13).
HANDLERS = {
    "send_all", "Receiver, new", "BatchReceiver, new", "check", "check, of a memfd", *IN_PYTHON
}  # fmt: skip

# Without the GIL, if PyList_New() of CPython 3.13 has no memory, it frees the items of an earlier
# list: str.split() alone crashes it. So everything that creates lists is left out there, in C or in
# Python.
MAKES_LISTS = {"recv_fds", "recv_fds, less", *HANDLERS}

HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


def fail_allocations(group: str) -> None:
    """Makes each allocation fail in turn, alone and with all later ones."""
    testcapi = importlib.import_module("_testcapi")
    warnings.simplefilter("ignore", ResourceWarning)
    sys.unraisablehook = lambda _: None
    allow_many_descriptors()
    low = [high_number() for _ in range(280)]
    gc.collect()
    gc.freeze()  # existing objects need not be looked at each time
    pair = unix_pair(socket.SOCK_SEQPACKET)
    failures = 0
    with open_files(10) as files:
        for name, (prepare, act, undo) in short_of_memory(pair, files)[group].items():
            # Once with memory, because filling a cache is not what is tested here.
            prepared = prepare()
            with contextlib.suppress(cmsgx.DataTruncatedError):
                undo(prepared, act(prepared))
            del prepared
            if name in MAKES_LISTS and not HAS_GIL:
                continue
            for alone in (True, False):
                if not alone and name in HANDLERS:
                    continue
                points = clean = start = 0
                while clean < 3:
                    drain(pair[1])
                    _cmsg.closer_wait(60)
                    gc.collect()
                    before = count_open()
                    prepared = prepare()
                    result = None
                    failed = False
                    testcapi.set_nomemory(start, start + 1 if alone else 0)
                    try:
                        result = act(prepared)
                    except MemoryError:
                        failed = True
                    except RuntimeError as error:
                        # CPython's own error for a buffered file.
                        if "can't allocate read lock" not in str(error):
                            raise
                        failed = True
                    except cmsgx.DataTruncatedError as error:
                        error.message = None  # type: ignore[assignment]
                    except SystemError as error:
                        # CPython's own error: pure Python code gets it too.
                        if "exception" not in str(error):
                            raise
                        failed = True
                    finally:
                        testcapi.remove_mem_hooks()
                    undo(prepared, result)
                    del prepared, result
                    gc.collect()
                    _cmsg.closer_wait(60)
                    after = count_open()
                    assert after == before, f"{name}: {after - before} after allocation {start}"
                    points += failed
                    clean = 0 if failed else clean + 1
                    start += 1
                print(f"{name}, {'alone' if alone else 'all from there'}: {points} of {start - 3}")
                failures += points
    assert failures > 0
    close_all(low)


@pytest.mark.parametrize("group", ["receive", "send", "batch", "message", "Fd"])
@pytest.mark.slow
def test_A4_each_allocation_fails_in_turn(group: str) -> None:
    need_testcapi()
    print(in_child("fail_allocations", group))
