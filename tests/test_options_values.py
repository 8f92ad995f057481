"""enable(): options with a value."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import select
import socket
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import network
import pytest
from network import V4
from support import Pair
from switches import run_with_a_fake_option, states

import cmsgx
from cmsgx import _asked, _cmsg, _options, _plan, kinds
from cmsgx.kinds import TimestampingFlags as Flags

IP_RECVTTL = 12


# A value ------------------------------------------------------------------------------------------

SO_TIMESTAMPING, SO_TXTIME = 37, 61
untyped: Any = kinds
RX = Flags.RX_SOFTWARE | Flags.RX_HARDWARE | Flags.SOFTWARE | Flags.RAW_HARDWARE

each_way_to_ask = pytest.mark.parametrize(
    "ask",
    [
        lambda sock, want: cmsgx.enable(
            sock, *(want if isinstance(want, (list, tuple)) else [want])
        ),
        lambda sock, want: cmsgx.Receiver(sock, 10, want=want),
        lambda sock, want: cmsgx.BatchReceiver(sock, 2, 10, want=want),
    ],
    ids=["enable", "Receiver", "BatchReceiver"],
)


@pytest.fixture
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


def stamping(sock: socket.socket) -> int:
    return sock.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING)


@each_way_to_ask
def test_one_kind_need_not_be_in_a_list(stream: Pair, ask: Any) -> None:
    made = ask(stream[1], cmsgx.Credentials)
    assert states(stream[1]) == [1, 0, 0]
    if not isinstance(made, _options.Enabled):
        cmsgx.send(stream[0], b"x")
        message = made.receive()
        first = message if isinstance(message, cmsgx.Message) else message[0]
        assert first[cmsgx.Credentials].pid == os.getpid()


@each_way_to_ask
def test_one_option_need_not_be_in_a_list(udp: socket.socket, ask: Any) -> None:
    ask(udp, kinds.Timestamping.option(Flags.TX_SOFTWARE))
    assert stamping(udp) == Flags.TX_SOFTWARE | Flags.SOFTWARE


@each_way_to_ask
@pytest.mark.parametrize("wrong", [kinds.Ttl(3), [kinds.Ttl(3)], [kinds.Tos, kinds.Ttl(3)]])
def test_an_instance_instead_of_a_class_is_a_type_error(
    udp: socket.socket, ask: Any, wrong: Any
) -> None:
    with pytest.raises(TypeError, match=r"Ttl\(ttl=3\).*pass its class, Ttl, or Ttl\.option\("):
        ask(udp, wrong)
    assert udp.getsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS) == 0


def test_a_pidfd_instead_of_its_class_is_a_type_error(udp: socket.socket) -> None:
    with cmsgx.PidFd(os.dup(0)) as pidfd, pytest.raises(TypeError, match=r"class, PidFd$"):
        cmsgx.Receiver(udp, 10, want=cast("Any", pidfd))


@pytest.mark.parametrize("wrong", [None, 5, "Ttl", b"Ttl", [None], ["Ttl"], [[kinds.Ttl]], int])
@pytest.mark.parametrize("receiver", [cmsgx.Receiver, partial(cmsgx.BatchReceiver, count=2)])
def test_what_is_wanted_but_not_a_kind_is_a_type_error(
    udp: socket.socket, receiver: Any, wrong: Any
) -> None:
    with pytest.raises(TypeError, match=r"is not a kind|want: a kind of control message"):
        receiver(udp, bufsize=10, want=wrong)


def test_an_error_of_the_iterable_is_its_own(udp: socket.socket) -> None:
    def broken() -> Iterator[Any]:
        raise TypeError("of its own")
        yield

    with pytest.raises(TypeError, match=r"^of its own$"):
        cmsgx.Receiver(udp, 10, want=broken())


def test_flags_are_added_and_taken_away_again(udp: socket.socket) -> None:
    other = Flags.OPT_CMSG | Flags.RX_SOFTWARE
    udp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, int(other))
    asked = kinds.Timestamping.option(Flags.TX_SOFTWARE | Flags.OPT_ID)
    with cmsgx.enable(udp, asked) as handle:
        assert stamping(udp) == other | Flags.TX_SOFTWARE | Flags.OPT_ID | Flags.SOFTWARE
        assert handle.kinds == (asked,)
        assert repr(handle) == "<Enabled Timestamping.option(TX_SOFTWARE|OPT_ID)>"
    assert stamping(udp) == other


@pytest.mark.parametrize("order", [1, -1], ids=["last first", "first first"])
def test_two_handles_share_a_word_of_flags(udp: socket.socket, order: int) -> None:
    first = cmsgx.enable(udp, kinds.Timestamping)
    second = cmsgx.enable(udp, kinds.Timestamping.option(Flags.TX_SOFTWARE | Flags.OPT_ID))
    assert stamping(udp) == RX | Flags.TX_SOFTWARE | Flags.OPT_ID
    one, other = (second, first)[::order]
    one.restore()
    left = RX if one is second else Flags.TX_SOFTWARE | Flags.OPT_ID
    assert stamping(udp) == left
    one.restore()
    assert stamping(udp) == left
    other.restore()
    assert stamping(udp) == 0


def test_flags_that_others_add_meanwhile_stay(udp: socket.socket) -> None:
    with cmsgx.enable(udp, kinds.Timestamping):
        now = stamping(udp) | int(Flags.TX_SCHED)
        udp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, now)
    assert stamping(udp) == Flags.TX_SCHED


@pytest.mark.parametrize("order", [1, -1])
def test_a_class_beside_its_own_option(udp: socket.socket, order: int) -> None:
    asked: list[Any] = [kinds.Timestamping, kinds.Timestamping.option(Flags.TX_SOFTWARE)]
    with cmsgx.enable(udp, *asked[::order]):
        assert stamping(udp) == RX | Flags.TX_SOFTWARE
    asked = [kinds.TxTime, kinds.TxTime.option(report_errors=True)]
    with cmsgx.enable(udp, *asked[::order]):
        assert udp.getsockopt(socket.SOL_SOCKET, SO_TXTIME, 8) == struct.pack("iI", 1, 2)


@each_way_to_ask
def test_two_values_for_one_option_are_a_value_error(udp: socket.socket, ask: Any) -> None:
    one, other = kinds.TxTime.option(report_errors=True), kinds.TxTime.option(deadline_mode=True)
    with pytest.raises(ValueError, match=r"report_errors=True\).*deadline_mode=True\); SO_TXTIME"):
        ask(udp, [one, other])
    assert udp.getsockopt(socket.SOL_SOCKET, SO_TXTIME, 8) == bytes(8)
    ask(udp, [one, kinds.TxTime.option(report_errors=True)])
    clocks = [kinds.Timestamping.option(phc=number) for number in (1, 2)]
    with pytest.raises(ValueError, match=r"phc=1\).*phc=2\); SO_TIMESTAMPING can have only one"):
        ask(udp, clocks)
    assert stamping(udp) == 0


def test_the_value_that_another_handle_set_comes_back(udp: socket.socket) -> None:
    def value() -> tuple[Any, ...]:
        return struct.unpack("iI", udp.getsockopt(socket.SOL_SOCKET, SO_TXTIME, 8))

    with cmsgx.enable(udp, kinds.TxTime.option(report_errors=True)):
        with cmsgx.enable(udp, kinds.TxTime.option(deadline_mode=True)):
            assert value() == (time.CLOCK_MONOTONIC, 1)
        assert value() == (time.CLOCK_MONOTONIC, 2)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: kinds.Ttl.option(), "Ttl.option()"),
        (lambda: cmsgx.PidFd.option(), "PidFd.option()"),
        (lambda: kinds.Timestamping.option(), "Timestamping.option()"),
        (
            lambda: kinds.Timestamping.option(Flags.TX_SOFTWARE | Flags.OPT_ID),
            "Timestamping.option(TX_SOFTWARE|OPT_ID)",
        ),
        (lambda: kinds.Timestamping.option(phc=3), "Timestamping.option(phc=3)"),
        (lambda: kinds.Timestamping.option(1 << 31), "Timestamping.option(2147483648)"),
        (lambda: kinds.TxTime.option(), "TxTime.option()"),
        (
            lambda: kinds.TxTime.option(11, deadline_mode=True, report_errors=True),
            "TxTime.option(CLOCK_TAI, deadline_mode=True, report_errors=True)",
        ),
        (lambda: kinds.ExtendedError.option(), "ExtendedError.option()"),
        (
            lambda: kinds.ExtendedError.option(errors=False, rfc4884=False, zerocopy=True),
            "ExtendedError.option(errors=False, rfc4884=False, zerocopy=True)",
        ),
        (lambda: kinds.RdsReceiveLatency.option([2, 0]),
         "RdsReceiveLatency.option([DGRAM_DELIVERED, HDR_TO_DGRAM_START])"),
    ],
)  # fmt: skip
def test_an_option_is_a_value_of_its_own(make: Callable[[], Any], text: str) -> None:
    option = make()
    assert isinstance(option, kinds.KindOption)
    assert repr(option) == text
    assert option == make()
    assert hash(option) == hash(make())
    assert pickle.loads(pickle.dumps(option)) == copy.deepcopy(option) == option
    assert option != kinds.Tos.option()
    with pytest.raises(AttributeError):
        setattr(option, "kind", kinds.Tos)  # noqa: B010 (mypy knows that it cannot be set)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: untyped.Timestamping.option(0), ValueError, "flags: 0"),
        (lambda: untyped.Timestamping.option(-1), ValueError, "flags: -1"),
        (lambda: untyped.Timestamping.option(1 << 32), ValueError, "flags: 4294967296"),
        (lambda: untyped.Timestamping.option("TX"), TypeError, "flags: an int"),
        (lambda: untyped.Timestamping.option(Flags.OPT_ID_TCP), ValueError, "TCP needs OPT_ID"),
        (lambda: untyped.Timestamping.option(Flags.OPT_STATS), ValueError, "needs OPT_TSONLY"),
        (lambda: untyped.Timestamping.option(Flags.BIND_PHC), ValueError, "BIND_PHC needs phc="),
        (lambda: untyped.Timestamping.option(phc=-1), ValueError, "phc: -1"),
        (lambda: untyped.Timestamping.option(phc="0"), TypeError, "phc: an int"),
        (lambda: untyped.TxTime.option(-1), ValueError, "clock: -1"),
        (lambda: untyped.TxTime.option(99), ValueError, "clock: 99"),
        (lambda: untyped.TxTime.option("TAI"), TypeError, "clock: an int"),
        (lambda: untyped.TxTime.option(deadline_mode=1), TypeError, "deadline_mode: True or"),
        (lambda: untyped.TxTime.option(report_errors=None), TypeError, "report_errors: True or"),
        (lambda: untyped.ExtendedError.option(rfc4884=1), TypeError, "rfc4884: True or"),
        (lambda: untyped.ExtendedError.option(zerocopy="yes"), TypeError, "zerocopy: True or"),
        (lambda: untyped.ExtendedError.option(errors=False), ValueError, "errors: False"),
        (lambda: untyped.RdsReceiveLatency.option([]), ValueError, r"stages: \[\]"),
        (lambda: untyped.RdsReceiveLatency.option([0, 0]), ValueError, r"stages: \[0, 0\]"),
        (lambda: untyped.RdsReceiveLatency.option([7]), ValueError, "stages: 7"),
    ],
)  # fmt: skip
def test_a_wrong_value_of_an_option_is_named(
    make: Callable[[], Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        make()


def test_ids_on_tcp_before_it_is_connected_say_why() -> None:
    with socket.socket() as sock:
        with pytest.raises(OSError, match="Invalid argument") as caught:
            cmsgx.enable(sock, kinds.Timestamping.option(Flags.TX_SOFTWARE | Flags.OPT_ID))
        assert caught.value.errno == errno.EINVAL
        [note] = caught.value.__notes__
        assert "OPT_ID on TCP needs a connected socket" in note
        assert stamping(sock) == 0


def test_a_clock_of_no_device_says_why(udp: socket.socket) -> None:
    with pytest.raises(OSError, match=r"not supported|Invalid") as caught:
        cmsgx.enable(udp, kinds.Timestamping.option(Flags.RX_HARDWARE, phc=0))
    assert "bound to a device" in caught.value.__notes__[0]
    assert stamping(udp) == 0


def test_another_clock_without_a_capability_says_why(udp: socket.socket) -> None:
    with network.without_capabilities():
        with pytest.raises(PermissionError) as caught:
            cmsgx.enable(udp, kinds.TxTime.option(time.CLOCK_TAI))
        assert "CAP_NET_ADMIN" in caught.value.__notes__[0]
        cmsgx.enable(udp, kinds.TxTime.option(time.CLOCK_MONOTONIC, deadline_mode=True))


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        (kinds.ExtendedError.option(rfc4884=True), "IP_RECVERR_RFC4884"),
        (kinds.ExtendedError.option(errors=False, zerocopy=True), "SO_ZEROCOPY"),
    ],
)
def test_a_value_that_the_family_lacks_is_refused(asked: Any, name: str) -> None:
    """Even though it has the kind, and needs no option for it."""
    with (
        pytest.raises(cmsgx.NotSupportedError) as caught,
        network.open_socket(socket.AF_PACKET, socket.SOCK_RAW) as sock,
    ):
        cmsgx.enable(sock, asked)
    assert repr(asked) in str(caught.value)
    assert name.removeprefix("IP") in str(caught.value)


def test_a_family_without_time_stamps_for_sent_data_says_so(pair: Pair) -> None:
    """The kernel accepts the flags there, but nothing ever comes."""
    for flag in (Flags.TX_SOFTWARE, Flags.TX_HARDWARE | Flags.RX_SOFTWARE, Flags.TX_ACK):
        with pytest.raises(cmsgx.NotSupportedError, match=r"option\(.*TX_.*AF_INET .*is AF_UNIX"):
            cmsgx.enable(pair[0], kinds.Timestamping.option(flag))
    assert stamping(pair[0]) == 0
    with cmsgx.enable(pair[0], kinds.Timestamping.option(Flags.RX_SOFTWARE)):
        assert stamping(pair[0]) == Flags.RX_SOFTWARE | Flags.SOFTWARE


def test_a_socket_without_zero_copy_says_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as sock:
        with pytest.raises(cmsgx.NotSupportedError, match="SO_ZEROCOPY"):
            cmsgx.enable(sock, kinds.ExtendedError.option(zerocopy=True))
        assert sock.getsockopt(socket.IPPROTO_IP, 11) == 0  # IP_RECVERR


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_extensions_of_icmp_errors_are_of_both_versions(family: int, value: bool) -> None:
    numbers = [(socket.IPPROTO_IP, 26)]
    numbers += [(socket.IPPROTO_IPV6, 31)] * (family == socket.AF_INET6)

    def now() -> list[int]:
        return [sock.getsockopt(*number) for number in numbers]

    with network.open_socket(family) as sock:
        for number in numbers:
            sock.setsockopt(*number, 1 - value)
        with cmsgx.enable(sock, kinds.ExtendedError.option(rfc4884=value)):
            assert now() == [value] * len(numbers)
            assert sock.getsockopt(socket.IPPROTO_IP, 11) == 1  # IP_RECVERR
        assert now() == [1 - value] * len(numbers)
        assert sock.getsockopt(socket.IPPROTO_IP, 11) == 0


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("is_tcp", [False, True], ids=["UDP", "TCP"])
def test_what_an_option_queues_has_its_space(family: int, is_tcp: bool) -> None:
    """The entry of the error queue that comes with the time stamp, and the statistics or the
    address."""
    flags = Flags.TX_SOFTWARE | Flags.OPT_ID
    flags |= Flags.OPT_STATS | Flags.OPT_TSONLY if is_tcp else Flags.OPT_CMSG
    info: Any = kinds.PacketInfo if family == socket.AF_INET else kinds.PacketInfo6
    want = [kinds.Timestamping.option(flags)] + [info] * (not is_tcp)
    pair = network.tcp(family) if is_tcp else network.udp("IPv4" if family == V4 else "IPv6")
    with pair as (sender, _):
        receiver = cmsgx.Receiver(sender, 1000, want=want)
        sender.send(b"data")
        poller = select.poll()
        poller.register(sender, 0)
        assert poller.poll(10_000)
        message = receiver.receive(flags=socket.MSG_ERRQUEUE)
        assert not message.truncated
        assert message[kinds.ExtendedError].ee_data == (3 if is_tcp else 0)
        assert message[kinds.Timestamping].software is not None
        assert (kinds.TcpStats if is_tcp else info) in message


def test_ids_of_datagrams_count_on_where_others_began(udp: socket.socket) -> None:
    to = udp.getsockname()
    asked = kinds.Timestamping.option(Flags.TX_SOFTWARE | Flags.OPT_ID | Flags.OPT_TSONLY)
    found: list[Any] = []
    with cmsgx.enable(udp, asked):
        for _ in range(2):
            with cmsgx.enable(udp, asked):
                cmsgx.send(udp, b"x", address=to)
                found += cmsgx.receive_errors(udp)
    assert [report.id for report in found] == [0, 1]
    assert all(isinstance(report.software, int) for report in found)
    assert f"software={found[0].software}, hardware=None" in repr(found[0])


def test_what_was_not_asked_for_is_not_reported_as_switched_on(udp: socket.socket) -> None:
    """The kinds that use one word of flags share some flags, but do not bring each other."""
    receiver = cmsgx.Receiver(udp, 10, want=kinds.Timestamping)
    udp.sendto(b"x", udp.getsockname())
    message = receiver.receive()
    for kind in (kinds.TcpStats, kinds.TimestampingPacketInfo):
        with pytest.raises(KeyError, match="it was not enabled"):
            message[kind]
    plan = _plan.plan_for(_asked.ask((), "want"), _cmsg.Options.key(udp))
    known = plan.kinds(plan.options.states(udp))
    assert set(known) - {kinds.TlsRecordType} == {kinds.Timestamping}
    known = {kinds.Timestamping: known[kinds.Timestamping]}
    room = cmsgx.CMSG_SPACE(48) + cmsgx.CMSG_SPACE(44)  # together with the one of the error queue
    assert _plan.control_size_for(udp.family, 0, known) == room


@pytest.mark.parametrize("receiver", [cmsgx.Receiver, partial(cmsgx.BatchReceiver, count=2)])
def test_the_end_of_a_receiver_gives_its_value_back(udp: socket.socket, receiver: Any) -> None:
    udp.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, int(Flags.OPT_CMSG))
    want = [kinds.Timestamping.option(Flags.TX_SOFTWARE), kinds.ExtendedError.option(rfc4884=True)]
    with receiver(udp, bufsize=10, want=want):
        assert stamping(udp) == Flags.OPT_CMSG | Flags.TX_SOFTWARE | Flags.SOFTWARE
        assert udp.getsockopt(socket.IPPROTO_IP, 26) == 1  # IP_RECVERR_RFC4884
    assert stamping(udp) == Flags.OPT_CMSG
    assert udp.getsockopt(socket.IPPROTO_IP, 26) == 0


CLOCK = """
import socket, struct, sys
import cmsgx, switches
from cmsgx import kinds
from cmsgx.kinds import TimestampingFlags as Flags

size = int(sys.argv[1])
was = struct.pack("=II", Flags.BIND_PHC | Flags.RX_HARDWARE, 7)[:size]
switches.fake_option(socket.SOL_SOCKET, 37, value=was)
flags = Flags.TX_HARDWARE | Flags.RX_HARDWARE
on = flags | Flags.BIND_PHC | Flags.RAW_HARDWARE
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    with cmsgx.enable(udp, kinds.Timestamping.option(flags, phc=3)):
        assert switches.fake_value() == struct.pack("=II", on, 3)[:size]
        with cmsgx.Receiver(udp, 1, want=kinds.Timestamping.option(Flags.OPT_ID)):
            assert switches.fake_value()[4:] == struct.pack("=I", 3)[: size - 4], "another clock"
        assert switches.fake_value() == struct.pack("=II", on, 3)[:size]
    assert switches.fake_value() == was
"""


@pytest.mark.parametrize(
    "size", [8, 4], ids=["struct so_timestamping", "an int, before Linux 5.14"]
)
def test_the_clock_that_another_had_bound_comes_back(size: int) -> None:
    """No device here has virtual clocks: a kernel that has them accepts any value."""
    run_with_a_fake_option(CLOCK, str(size))


def error_receiver_of(sock: cmsgx.socket) -> cmsgx.ErrorReceiver:
    return cmsgx.ErrorReceiver(sock, want=[kinds.Ttl])


def ttl_receiver_of(sock: cmsgx.socket) -> cmsgx.Receiver:
    return cmsgx.Receiver(sock, 10, want=[kinds.Ttl])


def ttl_batch_receiver_of(sock: cmsgx.socket) -> cmsgx.BatchReceiver:
    return cmsgx.BatchReceiver(sock, 2, 10, want=[kinds.Ttl])


def ttl_enabled_for(sock: cmsgx.socket) -> Any:
    return cmsgx.enable(sock, kinds.Ttl)


each_that_restores = pytest.mark.parametrize(
    "make", [ttl_enabled_for, ttl_receiver_of, ttl_batch_receiver_of, error_receiver_of]
)


@each_that_restores
def test_another_with_of_what_was_restored_is_refused(udp: socket.socket, make: Any) -> None:
    thing = make(udp)
    with thing:
        assert udp.getsockopt(socket.IPPROTO_IP, IP_RECVTTL) == 1
    refused = pytest.raises(RuntimeError, match=r"^Ttl: the options were restored, .* enable\(\)")
    with refused, thing:
        pass
    assert udp.getsockopt(socket.IPPROTO_IP, IP_RECVTTL) == 0


def test_another_with_of_what_switches_nothing_on_is_not_refused(udp: socket.socket) -> None:
    for thing in (cmsgx.enable(udp), cmsgx.Receiver(udp, 10)):
        for _ in range(2):
            with thing:
                pass


@each_that_restores
def test_a_child_of_fork_restores_nothing(udp: socket.socket, make: Any) -> None:
    thing = make(udp)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            with thing:
                pass
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert udp.getsockopt(socket.IPPROTO_IP, IP_RECVTTL) == 1
    with thing:
        pass
    assert udp.getsockopt(socket.IPPROTO_IP, IP_RECVTTL) == 0


def test_restore_of_a_closed_socket_says_so_and_the_end_of_a_with_does_not() -> None:
    for ends in (False, True):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            handle = cmsgx.enable(sock, kinds.Ttl)
        if ends:
            with handle:
                pass
        else:
            with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
                handle.restore()


@pytest.mark.parametrize(
    "make",
    [ttl_receiver_of, ttl_batch_receiver_of, error_receiver_of],
    ids=lambda make: make.__name__,
)
def test_the_repr_of_a_receiver_says_what_it_receives_from(udp: socket.socket, make: Any) -> None:
    receiver = make(udp)
    assert repr(receiver) == f"<{type(receiver).__name__} of {udp!r}>"


def test_the_repr_of_a_handle_that_enabled_nothing(udp: socket.socket) -> None:
    assert repr(cmsgx.enable(udp)) == "<Enabled nothing>"
