"""What each error says: which argument it was, what its value was, and what would be accepted."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import ExitStack

import pytest
from messages import all_messages
from rows_of_arguments import ARGUMENTS
from rows_of_sources import OTHERS
from scenes import Scene, told
from support import TESTS

import cmsgx

MESSAGES = [*ARGUMENTS, *OTHERS]


@pytest.mark.parametrize(("call", "error", "text"), MESSAGES, ids=[row[0] for row in MESSAGES])
def test_an_error_says_which_argument_what_it_was_and_what_would_do(
    call: str, error: type[BaseException], text: str
) -> None:
    with ExitStack() as stack:
        scene = Scene(stack)
        # The names first, because creating them may fail.
        code = compile(call, call, "eval")
        for name in code.co_names:
            if hasattr(scene, f"_make_{name}"):
                scene[name]
        with pytest.raises(error) as caught:
            eval(code, scene)
        assert type(caught.value) is error
        assert told(caught.value) == text


# Messages that take more than a call to provoke: the test file that does it, and some words of the
# message that a test there looks for.
ELSEWHERE = {
    "Enabled is what enable(sock, *kinds) returns: call that":
        ("test_public_names.py", "Enabled is what enable"),
    "cmsgx._cmsg is not bound to the Python layer: import cmsgx, which binds it":
        ("test_bind.py", "not bound to the Python layer"),
    "bind: unknown argument {}": ("test_bind.py", "unknown argument"),
    "bind: missing: {}": ("test_bind.py", "bind: missing"),
    "bind: all arguments are keyword-only": ("test_bind.py", "all arguments are keyword-only"),
    "bind: already called; it can be called only once":
        ("test_bind.py", "already called; it can be called"),
    "bufsize: there is no memory for {} bytes": ("test_messages.py", "there is no memory for"),
    "this {} is in use by another thread, or by code that a signal handler interrupted; make one "
    "for each thread":
        ("test_messages.py", "make one for each"),
    "this {} is in use by another thread, or by code that a signal handler interrupted; use it in "
    "one thread at a time": ("test_threads.py", "is in use"),
    "{} descriptors are waiting for the background closer, too many to receive more":
        ("test_closer.py", "waiting for the background closer"),
    "timed out: {} descriptors are waiting for the background closer":
        ("test_closer.py", "waiting for the background closer"),
    "{}.{}: its length changed while it was read, from {} to {}":
        ("test_abuse_records.py", "its length changed"),
    "min_value: {}; no member() of {} has bounds": ("test_route.py", "no member"),
    "sent with {}": ("test_route.py", "sent with"),
    "this {} was created as {}: its class was changed": ("test_abuse_records.py", "was created as"),
    "{}: Address cannot be subclassed": ("test_address_raw.py", "cannot be subclassed"),
    "{}[{}]: too many system calls use {}": ("test_fork.py", "too many system calls"),
    "{}: too many system calls use {}": ("test_fork.py", "too many system calls"),
    "this PreparedSend is done: all of its {} bytes were sent":
        ("test_prepared_send.py", "is done: all of its"),
    "this PreparedSend was closed, when {} of {} bytes were sent":
        ("test_prepared_send.py", "was closed, when"),
    "fds[{}]: descriptor {} could not be duplicated for the next try; nothing was sent":
        ("test_prepared_send_fds.py", "could not be duplicated"),
    "fds[{}]: descriptor {} could not be duplicated for the next try; nothing was sent: {}":
        ("test_prepared_send_fds.py", "could not be duplicated"),
    "take_one: {} {}, and the kernel dropped an unknown number of others":
        ("test_message_fds.py", "unknown number of others"),
    "messages was an iterator, which is used up now, with all that was not sent; give a list or a "
    "tuple": ("test_send_batch_stopped.py", "messages was an iterator"),
    "messages[{}]{} had an iterator, which is used up now: the same message again would go without "
    "what was in it; give a list or a tuple": ("test_send_batch_stopped.py", "had an iterator"),
    "a signal handler called install() or uninstall() while one of them was running: call it "
    "after that has returned": ("test_which_socket_installed.py", "while one of them was running"),
    "{}.{} was patched by something else: {}; undo that first":
        ("test_which_socket_installed.py", "patched by something"),
    "map: size {}, but {} has pages of {} bytes, which can only be mapped whole":
        ("test_memfd.py", "pages of"),
    "{} could not be restored": ("test_options.py", "could not be restored"),
    "{} could not be restored: {}": ("test_options.py", "could not be restored"),
    "and {}": ("test_options.py", "could not be restored"),
    "fds{}: a tuple of Fds is needed, not {}": ("test_core_parcels.py", "tuple of Fds"),
    "fds{}: an Fd is needed, not {}": ("test_core_parcels.py", " is needed, not"),
    "the message before is not sent yet":
        ("test_core_departures.py", "the message before is not sent yet"),
    "send: a message was sent only in part, so nothing can follow it: {}":
        ("test_core_departures.py", "send: a message was sent only in part, "),
    "the connection is closed":
        ("test_core_frames.py", "the connection is closed"),
    "data: {} bytes; a frame has at most {}":
        ("test_core_frames.py", "at most"),
    "fds: {} descriptors; a frame has at most {}":
        ("test_core_frames.py", "descriptors; a frame has at most"),
    "frame: its header announces {} descriptors, and {} came with it":
        ("test_core_frames.py", "frame: its header announces"),
    "max_fds: {}; must be 0 to {}":
        ("test_core_frames.py", "; must be 0 to"),
    "frame: its header ends with {}, and not with 0x0000":
        ("test_core_frames.py", "frame: its header ends with"),
    "frame: {} bytes; the limit is {}":
        ("test_core_frames.py", "bytes; the limit is"),
    "frame: {} descriptors; max_fds is {}":
        ("test_core_frames.py", "descriptors; max_fds is"),
    "frame: one read brought more than {} descriptors; max_fds is {}":
        ("test_core_frames.py", "descriptors; max_fds is"),
    "frame: {} descriptors came with its header; max_fds is {}":
        ("test_core_frames.py", "descriptors came with its header; max_fds is"),
    "frame: {} after {}":
        ("test_core_frames.py", " after "),
    "frame: {}":
        ("test_core_frames.py", "frame: "),
    "n: an int is needed, not {}":
        ("test_core_queues.py", "n: an int is needed, not"),
    "{}, and the stream ended after {}":
        ("test_core_queues.py", ", and the stream ended after "),
    "separator: it is empty; at least 1 byte is needed":
        ("test_core_queues.py", "separator: it is empty; at least 1 byte is needed"),
    "take_fds: {} are needed, and {} came with the bytes that were read":
        ("test_core_queues.py", "are needed, and"),
    "stream: {} descriptors wait to be taken; max_queued is {}":
        ("test_core_queues.py", "descriptors wait to be taken; max_queued is"),
    "stream: {}":
        ("test_core_queues.py", "stream: "),
    "separator: a bytes-like object is needed, not {}":
        ("test_core_queues.py", "separator: a bytes-like object is needed, not"),
    "read_until: {} is not in the next {} bytes, the limit":
        ("test_core_queues.py", " is not in the next "),
    "stream: a message was longer than the buffer":
        ("test_core_queues.py", "longer than the buffer"),
    "stream: one read brought more than {} descriptors":
        ("test_core_queues.py", "stream: one read brought more than"),
}  # fmt: skip

# Messages that no test can provoke, with the reason.
_PRIVATE = "a function or an argument that no public one gets wrong"
_OTHER_SYSTEM = "on another system only"
_RACE = "another thread has to act between two machine instructions"
_KERNEL = "the kernel has to do what this one does not"
UNMET = {
    "name: a str is needed, not {}": _PRIVATE,
    "doc: a str or None is needed, not {}": _PRIVATE,
    "bounds: (min_value, max_value) is needed, not {}": _PRIVATE,
    "field {}: bounds {} are not (min_value, max_value) of a format that has them": _PRIVATE,
    "__signature__": _PRIVATE,
    "field {} does not belong to {}": _PRIVATE,
    "{}: field {} must be one of its __slots__": _PRIVATE,
    "{} is not a Field": _PRIVATE,
    "{}: {} is not a wire format": _PRIVATE,
    "min_size: {}; it is more than max_size: {}": _PRIVATE,
    "numbers: an int is needed, not {}": _PRIVATE,
    "numbers{}: a {}bytes-like object is needed, not {}": _PRIVATE,
    "fds{}: a {}bytes-like object is needed, not {}": _PRIVATE,
    "method() takes no keyword arguments": _PRIVATE,
    "method(): {} is not a method of a socket": _PRIVATE,
    "type: a subclass of FdBase is needed, not {}": _PRIVATE,
    "{} returned {}, which is not a descriptor": _PRIVATE,
    "control_size: {}; must be 0 to {}": _PRIVATE,
    "config{}: a ReceiveConfig is needed, not {}": _PRIVATE,
    "ReceiveConfig() requires fds=, control_size= and want=": _PRIVATE,
    "want{}: a tuple of kinds is needed, not {}": _PRIVATE,
    "type: an int is needed, not {}": _PRIVATE,
    "noted{}: a list is needed, not {}": _PRIVATE,
    "start: an int is needed, not {}": _PRIVATE,
    "start: {}; it cannot be negative": _PRIVATE,
    "set() takes 3 arguments, not {}": _PRIVATE,
    "plans{}: a dict of Options is needed, not {}": _PRIVATE,
    "configuration() takes 4 arguments, not {}": _PRIVATE,
    "an option{}: a tuple is needed, not {}": _PRIVATE,
    "{}: its values must have the same size": _PRIVATE,
    "_open() takes 8 arguments, not {}": _PRIVATE,
    "known{}: a dict is needed, not {}": _PRIVATE,
    "known{}: a dict of (asked, plans, key) is needed, not {}": _PRIVATE,
    "IPAddress has no codec of its own": _PRIVATE,
    "attached_state: {}; must be 0 to {}": _PRIVATE,
    "{}(): the first argument is a list of {}": _PRIVATE,
    "value: {} bytes; {} at most": _PRIVATE,
    "call_foreign() takes a name and a socket": _PRIVATE,
    "read_header() takes a buffer and an offset": _PRIVATE,
    "offset: an int is needed, not {}": _PRIVATE,
    "offset: it cannot be negative": _PRIVATE,
    "seals: an int is needed, not {}": "what has no __index__() is told otherwise before",
    "take(): an int is needed, not {}": "only with an __index__() that raises, which is shown",
    "encoding: '{}'; not available on this system": _OTHER_SYSTEM,
    "control: this system accepts no other control message along with descriptors; send it in a "
    "message of its own": _OTHER_SYSTEM,
    "{}: this system has no {}": _OTHER_SYSTEM,
    "share: this system has no memfd_create(2) with seals": _OTHER_SYSTEM,
    "parse_multishot: this system has no io_uring": _OTHER_SYSTEM,
    "cannot read the bytes of this {}; is another thread changing it?": _RACE,
    "the list of buffers changed while it was read": _RACE,
    "the list of fds changed while it was read": _RACE,
    "{}: descriptor {} is gone": _RACE,
    "{} owns no descriptor: the kernel could not create one: {}": "takes a table that is full",
    "memfd_create(2) of {}": "takes a table that is full",
    "detach_all: the kernel did not deliver descriptor {}": "takes a table that is full",
    "{}: no descriptor is left to recognise a memfd, by comparing it with a new one":
        "takes a table that is full",
    "{}: check: only /proc/self/fd/{} shows whether it is one of {}": "takes no /proc",
    "close of descriptor {}": _KERNEL,
    "dup of descriptor {}": _KERNEL,
    "poll(2) failed, so an empty message cannot be told from the end; receive() returns it as it "
    "is": _KERNEL,
    "the received control data is malformed: it contains an invalid length; its descriptors were "
    "closed": _KERNEL,
    "{}: this kind of socket has no error queue": _KERNEL,
    "peer_pidfd: the process is gone": "Linux before 6.15",
    "_socket.socket.{} is not the expected method": "another _socket than CPython's",
    "_socket.socket.{} is not the expected member": "another _socket than CPython's",
    "{}: {} buffers; that is too many": "takes 2**31 buffers",
    "buffers: {}; that is too many": "takes 2**31 buffers",
    "{}: an item of {} bytes is too large": "takes 2 GiB of control data",
    "{}: the items are too large together": "takes 2 GiB of control data",
    "socket.socket is {}, which is not derived from the standard library's class: nothing was "
    "installed; the functions of cmsgx accept its sockets without it":
        "with gevent or eventlet: tests/interop/test_green.py",
    "control{}: Rights with its descriptors is needed, not {}": "a Rights that cannot be iterated",
    "{}: {} bytes; {} at most": _PRIVATE,
    "address: {} was resolved to {}": "what getaddrinfo() does not do",
    "address: only the socket's own sendmsg() can convert {}, and that takes neither fds= nor "
    "timeout=": "of a family that neither the socket module nor cmsgx knows",
    "Unknown error {}": "a text that stands for an errno",
}  # fmt: skip


def rows() -> list[str]:
    """The texts of the rows, line by line, without the errno."""
    texts = [text.partition("] ")[2] if text[:2] == "[E" else text for _, _, text in MESSAGES]
    return [line for text in texts for line in text.split("\n")]


def test_each_message_of_the_sources_has_a_row() -> None:
    """Or a test elsewhere, or a reason why there cannot be one."""
    told_of = rows()
    lacking = [
        f"{message.place}: {message.text}"
        for message in all_messages()
        if not any(message.says(text) for text in told_of)
        and message.text not in ELSEWHERE
        and message.text not in UNMET
    ]
    assert lacking == []


def test_what_has_no_row_is_in_the_sources() -> None:
    there = {message.text for message in all_messages()}
    assert [text for text in [*ELSEWHERE, *UNMET] if text not in there] == []


@pytest.mark.parametrize(("text", "place"), ELSEWHERE.items())
def test_what_is_tested_elsewhere_is_looked_for_there(text: str, place: tuple[str, str]) -> None:
    file, words = place
    assert words in text or text == "and {}"
    assert words in (TESTS / file).read_text(encoding="utf-8")


def test_no_memory_for_the_data_is_reported_with_its_size() -> None:
    size = sys.maxsize - 100
    left, right = cmsgx.socketpair()
    with left, right, pytest.raises(MemoryError) as caught:
        cmsgx.recvmsg(right, size)
    assert told(caught.value) == f"bufsize: there is no memory for {size} bytes"


def test_in_use_says_by_whom_and_what_would_do() -> None:
    left, right = cmsgx.socketpair()
    refused: list[str] = []

    def handler(*_: object) -> None:
        with pytest.raises(RuntimeError) as caught:
            receiver.receive()
        refused.append(told(caught.value))
        left.send(b"x")

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with left, right:
            receiver = cmsgx.Receiver(right, 5)
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
            timer.start()
            receiver.receive(timeout=60).close()
            timer.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert refused == [
        "this Receiver is in use by another thread, or by code that a signal handler interrupted; "
        "make one for each thread"
    ]
