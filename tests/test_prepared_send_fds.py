"""PreparedSend: what it holds between two tries, and who else may use it meanwhile."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from batches import raising
from pairs import new_pair
from support import (
    eventually,
    gives_up_the_gil,
    in_fork,
    open_fds,
    open_files,
    stalled_socket,
)
from tries import (
    Named,
    drain,
    files_after,
    full_pair,
    how_often,
    waiting,
)

import cmsgx
from cmsgx import _cmsg

# Descriptors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [int, Named], ids=["a number", "fileno()"])
@pytest.mark.parametrize("make", [cmsgx.PreparedSend, _cmsg.send_or_prepare])
@pytest.mark.parametrize("by", ["fds", "control"])
def test_a_number_that_is_reused_between_two_tries_sends_the_old_file(
    make: Callable[..., Any], wrap: Callable[[int], Any], by: str
) -> None:
    with full_pair() as (left, right), open_files(3) as files:
        number = os.dup(files[1])
        mine = wrap(number)
        fds = [files[0], mine]
        how: dict[str, Any] = {"fds": fds} if by == "fds" else {"control": cmsgx.Rights(fds)}
        with make(left, b"x", **how) as prepared:
            if make is cmsgx.PreparedSend:
                assert prepared.try_send() is None
            os.dup2(files[2], number, inheritable=False)
            assert prepared.try_send() is None
            drain(right)
            assert prepared.try_send() == 1
        assert files_after(right, 0) == (b"x", ["0", "1"])
        os.close(number)


def test_duplicates_are_close_on_exec_and_made_once() -> None:
    with full_pair() as (left, _), open_files(2) as files, cmsgx.Fd(os.dup(files[1])) as fd:
        before = open_fds()
        with cmsgx.PreparedSend(left, b"x", fds=[*files, fd, left]) as prepared:
            assert open_fds() == before
            prepared.try_send()
            new = open_fds().keys() - before.keys()
            assert len(new) == 3  # none of the Fd
            assert not any(os.get_inheritable(number) for number in new)
            prepared.try_send()
            assert open_fds().keys() - before.keys() == new
        assert open_fds() == before


ENDS: dict[str, Callable[[Any, Any], object]] = {
    "the descriptors have gone": lambda prepared, right: drain(right) and prepared.try_send(),
    "close()": lambda prepared, _: prepared.close(),
    "with": lambda prepared, _: prepared.__exit__(None, None, None),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("size", [1, 10_000_000], ids=["all", "a part"])
def test_what_is_held_is_let_go(end: str, size: int) -> None:
    with full_pair() as (left, right), open_files(1) as files:
        before = open_fds()
        data = bytearray(size)
        fd = cmsgx.Fd(os.dup(files[0]))
        held = weakref.ref(fd)
        prepared = cmsgx.PreparedSend(left, data, fds=[fd, files[0]])
        prepared.try_send()
        with pytest.raises(BufferError):
            data.append(0)
        ENDS[end](prepared, right)
        assert held() is fd
        fd.close()
        del fd
        assert held() is None
        assert open_fds() == before
        if end != "the descriptors have gone" or size == 1:
            data.append(0)
        prepared.close()
        data.append(0)


def test_collection_closes_the_duplicates_and_warns() -> None:
    with full_pair() as (left, _), open_files(1) as files:
        before = open_fds()
        prepared = cmsgx.PreparedSend(left, b"12345", fds=files)
        prepared.try_send()
        assert len(open_fds()) == len(before) + 1
        with pytest.warns(ResourceWarning, match="0 of 5 bytes sent> was neither sent nor closed"):
            del prepared
        assert open_fds() == before
        with pytest.warns(ResourceWarning, match="neither sent"):
            cmsgx.PreparedSend(left, b"")


def test_a_cycle_is_collected() -> None:
    with full_pair() as (left, _), open_files(1) as files:
        before = open_fds()
        mine: Any = Named(files[0])
        mine.send = prepared = cmsgx.PreparedSend(left, b"x", fds=[mine])
        assert gc.is_tracked(prepared)
        prepared.try_send()
        gone = weakref.ref(mine)
        del mine, prepared
        with pytest.warns(ResourceWarning, match="neither sent"):
            gc.collect()
        gc.collect()  # the warning that was caught kept it, as its source
        assert gone() is None
        assert open_fds() == before


def test_an_fd_that_was_closed_meanwhile_is_named_and_nothing_else_is_sent() -> None:
    with full_pair() as (left, right), open_files(2) as files:
        fd = cmsgx.Fd(os.dup(files[1]))
        with cmsgx.PreparedSend(left, b"x", fds=[files[0], fd]) as prepared:
            assert prepared.try_send() is None
            fd.close()
            drain(right)
            for _ in range(2):
                with pytest.raises(OSError, match=r"fds\[1\]: <Fd closed>") as caught:
                    prepared.try_send()
                assert caught.value.errno == errno.EBADF
            assert (prepared.sent, prepared.is_done) == (0, False)
        assert drain(right) == b""


def test_a_number_that_is_not_open_is_named() -> None:
    with full_pair() as (left, _), open_files(1) as files:
        with cmsgx.PreparedSend(left, b"x", fds=[files[0], 1 << 20]) as prepared:
            with pytest.raises(OSError, match=r"fds\[1\]: descriptor 1048576") as caught:
                prepared.try_send()
            assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match=r"fds\[1\]: descriptor 1048576"):
            _cmsg.send_or_prepare(left, b"x", fds=iter([files[0], 1 << 20]))


@contextmanager
def full_table() -> Iterator[None]:
    """No descriptor can be created."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Below the lowest free number.
    number = os.dup(0)
    os.close(number)
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_room_for_a_duplicate_nothing_is_lost() -> None:
    with full_pair() as (left, right), open_files(2) as files:
        with cmsgx.PreparedSend(left, b"x", fds=files) as prepared:
            with full_table():
                with pytest.raises(OSError, match=r"fds\[0\].*could not be duplicated") as caught:
                    prepared.try_send()
                assert caught.value.errno == errno.EMFILE
                with pytest.raises(OSError, match="could not be duplicated"):
                    prepared.try_send()
                with pytest.raises(OSError, match="could not be duplicated") as caught:
                    _cmsg.send_or_prepare(left, iter([b"x"]), fds=files)
                assert "data was an iterator" in caught.value.__notes__[0]
            assert prepared.sent == 0
            assert prepared.try_send() is None
            drain(right)
            assert prepared.try_send() == 1
        assert files_after(right, 0) == (b"x", ["0", "1"])


@pytest.mark.parametrize("closed", [0, 1])
def test_a_duplicate_never_takes_the_place_of_a_number_that_is_closed(closed: int) -> None:
    with full_pair() as (left, right), open_files(3) as files:
        mine = [os.dup(files[0]), os.dup(files[1])]
        prepared = cmsgx.PreparedSend(left, b"x", fds=mine)
        os.close(mine[closed])  # the lowest free number, which a duplicate gets
        before = open_fds()
        with prepared:
            drain(right)
            for _ in range(2):
                with pytest.raises(OSError, match=rf"fds\[{closed}\]: descriptor {mine[closed]}"):
                    prepared.try_send()
                assert open_fds() == before
            assert os.dup(files[closed]) == mine[closed]
            assert prepared.try_send() == 1
        assert files_after(right, 0) == (b"x", ["0", "1"])
        for number in mine:
            os.close(number)


def test_a_number_closed_before_the_first_try_is_named_where_that_would_wait() -> None:
    with full_pair(socket.SOCK_STREAM) as (left, right), open_files(2) as files:
        mine = os.dup(files[1])
        with cmsgx.PreparedSend(left, b"x", fds=[files[0], mine]) as prepared:
            os.close(mine)
            with pytest.raises(OSError, match=rf"fds\[1\]: descriptor {mine}"):
                prepared.try_send()
            drain(right)
            with pytest.raises(OSError, match=rf"fds\[1\]: descriptor {mine}"):
                prepared.try_send()


def test_after_a_try_that_fails_the_numbers_are_kept_too() -> None:
    with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as left, open_files(2) as files:
        with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as right:
            right.bind("")
            name = right.getsockname()
        mine = os.dup(files[0])
        with cmsgx.PreparedSend(left, b"x", fds=[mine], address=name) as prepared:
            with full_table(), pytest.raises(ConnectionRefusedError) as caught:
                prepared.try_send()
            assert "fds[0]" in caught.value.__notes__[0]
            assert "could not be duplicated" in caught.value.__notes__[0]
            with pytest.raises(ConnectionRefusedError) as caught:
                prepared.try_send()
            assert not hasattr(caught.value, "__notes__")
            os.dup2(files[1], mine, inheritable=False)
            with cmsgx.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as right:
                right.bind(name)
                assert prepared.try_send() == 1
                assert files_after(right, 0) == (b"x", ["0"])
        os.close(mine)


@pytest.mark.parametrize("error", [OSError, KeyError])
def test_after_a_try_whose_socket_has_no_number_the_numbers_are_kept_too(error: Any) -> None:
    with new_pair(socket.SOCK_SEQPACKET) as (left, right), open_files(2) as files:
        sock = Named(left.fileno())
        mine = os.dup(files[0])
        with cmsgx.PreparedSend(sock, b"x", fds=[mine]) as prepared:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Named, "fileno", raising(error("not now")))
                with pytest.raises(error, match="not now"):
                    prepared.try_send()
            os.dup2(files[1], mine, inheritable=False)
            assert prepared.try_send() == 1
            assert files_after(right, 0) == (b"x", ["0"])
        os.close(mine)


# Other threads, forks, code in between ------------------------------------------------------------


@pytest.mark.parametrize("use", ["try_send", "close", "_send"])
def test_two_at_once_are_refused(use: str) -> None:
    with full_pair() as (left, right), cmsgx.PreparedSend(left, b"x") as prepared:
        with waiting(prepared, right), pytest.raises(RuntimeError) as caught:
            getattr(prepared, use)(*([0] if use == "_send" else []))
        assert "this PreparedSend is in use by another thread" in str(caught.value)
        assert prepared.is_done


@pytest.mark.parametrize("use", ["try_send", "close"])
def test_code_that_is_called_meanwhile_cannot_use_it(use: str) -> None:
    """A fileno() of the socket, and a __del__() of what is let go."""
    with new_pair() as (left, right):
        refused: list[str] = []

        def reenter() -> None:
            try:
                getattr(prepared, use)()
            except RuntimeError as error:
                refused.append(str(error))

        class Sock:
            is_on = False

            def fileno(self) -> int:
                if self.is_on:
                    reenter()
                return left.fileno()

        class Last(Named):
            def __del__(self) -> None:
                reenter()

        with open_files(1) as files:
            sock = Sock()
            prepared = cmsgx.PreparedSend(sock, b"x", fds=[Last(files[0])])
            sock.is_on = True
            assert prepared.try_send() == 1
            assert len(refused) == 2
            assert all("is in use" in text for text in refused)
            assert files_after(right, 0) == (b"x", ["0"])


def test_a_buffer_that_is_released_cannot_use_it() -> None:
    with new_pair() as (left, right):
        refused: list[str] = []

        class Data(bytearray):
            def __del__(self) -> None:
                try:
                    prepared.close()
                except RuntimeError as error:
                    refused.append(str(error))

        prepared = cmsgx.PreparedSend(left, [Data(b"x")])
        prepared.try_send()
        assert len(refused) == 1
        assert "is in use" in refused[0]
        assert drain(right) == b"x"


def test_a_child_can_try_it_and_closes_its_duplicates() -> None:
    with (
        full_pair() as (left, right),
        open_files(1) as files,
        cmsgx.PreparedSend(left, b"x", fds=files) as prepared,
    ):
        prepared.try_send()
        assert how_often("file-0") == 2

        def child() -> None:
            assert how_often("file-0") == 2
            drain(right)
            assert prepared.try_send() == 1
            assert how_often("file-0") == 1

        in_fork(child)
        assert files_after(right, 0) == (b"x", ["0"])
        assert not prepared.is_done


def test_a_child_can_use_what_a_thread_of_its_parent_is_using() -> None:
    with full_pair() as (left, right), open_files(1) as files:
        prepared = cmsgx.PreparedSend(left, b"x" * 100_000, fds=files)
        prepared.try_send()

        def child() -> None:
            assert how_often("file-0") == 2
            assert prepared.try_send() is None
            prepared.close()
            assert how_often("file-0") == 1

        with prepared:
            with waiting(prepared, right):
                in_fork(child)
            assert prepared.sent > 0
            assert how_often("file-0") == 1


def test_duplicates_are_closed_without_the_gil() -> None:
    with stalled_socket() as (number, release), full_pair() as (left, _):
        prepared = cmsgx.PreparedSend(left, b"x", fds=[number])
        prepared.try_send()
        os.close(number)
        assert gives_up_the_gil(prepared.close, release)


def test_while_one_duplicate_is_closed_a_child_closes_the_others() -> None:
    with stalled_socket() as (number, release), full_pair() as (left, _), open_files(1) as files:
        prepared = cmsgx.PreparedSend(left, b"x", fds=[number, *files])
        prepared.try_send()
        stalled = open_fds()[number]
        os.close(number)
        thread = threading.Thread(target=prepared.close)
        thread.start()
        # Not only busy: a child that has a copy of it, too, would be the one that waits.
        assert eventually(lambda: stalled not in open_fds().values())
        assert how_often("file-0") == 2

        def child() -> None:
            assert how_often("file-0") == 2
            prepared.close()
            assert how_often("file-0") == 1

        in_fork(child)
        release()
        thread.join()
        assert how_often("file-0") == 1
