"""The table of kinds as on other systems: with their numbers and structs instead of Linux's.

Errors that would occur there are detected here: two kinds with one number, a field that the struct
lacks, a class that fails if a constant is missing. The whole package also runs without the parts of
the standard library that those systems lack: what works there works, and what cannot work says so.
"""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from support import OLD_TIME, run_python

SYSTEMS: dict[str, str] = {
    "freebsd14": """
        SOL_SCTP=132 SOL_NETLINK=270 SOL_HCI_RAW=2050 SOL_LOCAL=0 AF_BLUETOOTH=36 AF_NETLINK=38
        SCM_TIMESTAMP=2 SO_TIMESTAMP=1024 SO_TS_CLOCK=4119 SO_TS_MONOTONIC=3 SCM_BINTIME=4
        SO_BINTIME=8192 SCM_REALTIME=5 SCM_MONOTONIC=6 SCM_TIME_INFO=7 SCM_CREDS=3 LOCAL_CREDS=2
        SCM_CREDS2=8 LOCAL_CREDS_PERSISTENT=3 ST_INFO_HW=1 ST_INFO_HW_HPREC=2
        IP_RECVDSTADDR=7 IP_SENDSRCADDR=7 IP_RECVTTL=65 IP_TTL=4 IP_RECVIF=20 IP_RECVTOS=68
        IP_TOS=3 IP_RECVOPTS=5 IP_RETOPTS=8 IP_FLOWID=90 IP_RECVFLOWID=93 IP_FLOWTYPE=91
        IP_RSSBUCKETID=92 IP_RECVRSSBUCKETID=94 IP_ORIGDSTADDR=27 IP_RECVORIGDSTADDR=27
        IPV6_PKTINFO=46 IPV6_RECVPKTINFO=36 IPV6_HOPLIMIT=47 IPV6_RECVHOPLIMIT=37 IPV6_TCLASS=61
        IPV6_RECVTCLASS=57 IPV6_HOPOPTS=49 IPV6_RECVHOPOPTS=39 IPV6_DSTOPTS=50
        IPV6_RECVDSTOPTS=40 IPV6_RTHDR=51 IPV6_RECVRTHDR=38 IPV6_PATHMTU=44 IPV6_RECVPATHMTU=43
        IPV6_NEXTHOP=48 IPV6_RTHDRDSTOPTS=35 IPV6_USE_MIN_MTU=42 IPV6_DONTFRAG=62
        IPV6_PREFER_TEMPADDR=63 IPV6_2292PKTINFO=19 IPV6_2292HOPLIMIT=20 IPV6_2292HOPOPTS=22
        IPV6_2292DSTOPTS=23 IPV6_2292RTHDR=24 IPV6_FLOWID=67 IPV6_RECVFLOWID=70 IPV6_FLOWTYPE=68
        IPV6_RSSBUCKETID=69 IPV6_RECVRSSBUCKETID=71 IPV6_ORIGDSTADDR=72 IPV6_RECVORIGDSTADDR=72
        SCTP_INIT=1 SCTP_SNDRCV=2 SCTP_EXTRCV=3 SCTP_SNDINFO=4 SCTP_RCVINFO=5
        SCTP_RECVRCVINFO=31 SCTP_NXTINFO=6 SCTP_RECVNXTINFO=32 SCTP_PRINFO=7 SCTP_AUTHINFO=8
        SCTP_DSTADDRV4=9 SCTP_DSTADDRV6=10 SCTP_EVENTS=12 SCTP_USE_EXT_RCVINFO=23
        TLS_SET_RECORD_TYPE=1 TLS_GET_RECORD=2 TLS_RLTYPE_ALERT=21 TLS_RLTYPE_HANDSHAKE=22
        TLS_RLTYPE_APP=23 NETLINK_MSG_INFO=257 NLMSGINFO_ATTR_PROCESS_ID=1
        NLMSGINFO_ATTR_PORT_ID=2 SCM_HCI_RAW_DIRECTION=2 SO_HCI_RAW_DIRECTION=2
    """,
    "netbsd10": """
        SOL_LOCAL=0 LOCAL_CREDS=4 AF_BLUETOOTH=31 BTPROTO_HCI=1 SCM_HCI_DIRECTION=3
        SO_HCI_DIRECTION=3 SCM_TIMESTAMP=8 SO_TIMESTAMP=8192 SCM_CREDS=16
        IP_RECVDSTADDR=7 IP_SENDSRCADDR=7 IP_RECVIF=20 IP_RECVTTL=23 IP_TTL=4 IP_TOS=3
        IP_PKTINFO=25 IP_RECVPKTINFO=26 IP_RECVOPTS=5 IP_RETOPTS=8
        IPV6_PKTINFO=46 IPV6_RECVPKTINFO=36 IPV6_HOPLIMIT=47 IPV6_RECVHOPLIMIT=37 IPV6_TCLASS=61
        IPV6_RECVTCLASS=57 IPV6_HOPOPTS=49 IPV6_RECVHOPOPTS=39 IPV6_DSTOPTS=50
        IPV6_RECVDSTOPTS=40 IPV6_RTHDR=51 IPV6_RECVRTHDR=38 IPV6_PATHMTU=44 IPV6_RECVPATHMTU=43
        IPV6_NEXTHOP=48 IPV6_RTHDRDSTOPTS=35 IPV6_USE_MIN_MTU=42 IPV6_DONTFRAG=62
        IPV6_PREFER_TEMPADDR=63 IPV6_2292PKTINFO=19 IPV6_2292HOPLIMIT=20 IPV6_2292HOPOPTS=22
        IPV6_2292DSTOPTS=23 IPV6_2292RTHDR=24
    """,
    "openbsd7": """
        SCM_TIMESTAMP=4 SO_TIMESTAMP=2048 IP_RECVDSTADDR=7 IP_SENDSRCADDR=7 IP_RECVIF=30
        IP_RECVTTL=31 IP_TTL=4 IP_TOS=3 IP_RECVDSTPORT=33 IP_RECVRTABLE=35 IP_IPSECFLOWINFO=36
        IP_RECVOPTS=5 IP_RETOPTS=8 IPV6_PKTINFO=46 IPV6_RECVPKTINFO=36 IPV6_HOPLIMIT=47
        IPV6_RECVHOPLIMIT=37 IPV6_TCLASS=61 IPV6_RECVTCLASS=57 IPV6_HOPOPTS=49
        IPV6_RECVHOPOPTS=39 IPV6_DSTOPTS=50 IPV6_RECVDSTOPTS=40 IPV6_RTHDR=51 IPV6_RECVRTHDR=38
        IPV6_PATHMTU=44 IPV6_RECVPATHMTU=43 IPV6_NEXTHOP=48 IPV6_RTHDRDSTOPTS=35
        IPV6_USE_MIN_MTU=42 IPV6_DONTFRAG=62 IPV6_RECVDSTPORT=64
    """,
    "darwin": """
        SOL_LOCAL=0 SCM_TIMESTAMP=2 SO_TIMESTAMP=1024 SCM_CREDS=3 SCM_TIMESTAMP_MONOTONIC=4
        SO_TIMESTAMP_MONOTONIC=2048 SCM_TIMESTAMP_CONTINUOUS=7 SO_TIMESTAMP_CONTINUOUS=262144
        SO_TRAFFIC_CLASS=4230 SO_RECV_TRAFFIC_CLASS=4231 SO_NET_SERVICE_TYPE=4374
        SO_RECV_WAKE_PKT=4392 SCM_MPKL_SEND_INFO=8 SO_MPKL_SEND_INFO=4386 SCM_MPKL_RECV_INFO=9
        IP_RECVDSTADDR=7 IP_RECVIF=20 IP_RECVTTL=24 IP_TTL=4 IP_RECVTOS=27 IP_TOS=3
        IP_PKTINFO=26 IP_RECVPKTINFO=26 IP_RECVOPTS=5 IP_RETOPTS=8
        IPV6_PKTINFO=46 IPV6_RECVPKTINFO=61 IPV6_2292PKTINFO=19 IPV6_HOPLIMIT=47
        IPV6_RECVHOPLIMIT=37 IPV6_2292HOPLIMIT=20 IPV6_TCLASS=36 IPV6_RECVTCLASS=35
        IPV6_HOPOPTS=49 IPV6_RECVHOPOPTS=39 IPV6_DSTOPTS=50 IPV6_RECVDSTOPTS=40 IPV6_RTHDR=51
        IPV6_RECVRTHDR=38 IPV6_2292HOPOPTS=22 IPV6_2292DSTOPTS=23 IPV6_2292RTHDR=24
        IPV6_PATHMTU=44 IPV6_RECVPATHMTU=43 IPV6_NEXTHOP=48 IPV6_RTHDRDSTOPTS=57
        IPV6_USE_MIN_MTU=42 IPV6_DONTFRAG=62 IPV6_PREFER_TEMPADDR=63
    """,
}
# Structs that Linux lacks, or has in another form: minimum and maximum size in bytes, and the
# members with their offset, format and size.
SCTP = """sinfo_stream=0H2 sinfo_ssn=2H2 sinfo_flags=4H2 sinfo_ppid=8I4 sinfo_context=12I4
    sinfo_timetolive=16I4 sinfo_tsn=20I4 sinfo_cumtsn=24I4 sinfo_assoc_id=28I4"""
LINK = "8 -1 sdl_index=2H2 sdl_type=4B1 sdl_nlen=5B1 sdl_alen=6B1 sdl_data=8t0"
STRUCTS: dict[str, dict[str, str]] = {
    "freebsd14": {
        "sctp_sndrcvinfo": f"128 128 {SCTP}",
        "sctp_extrcvinfo": f"128 128 {SCTP} serinfo_next_flags=32H2 serinfo_next_stream=34H2"
        " serinfo_next_aid=36I4 serinfo_next_length=40I4 serinfo_next_ppid=44I4"
        " sinfo_keynumber=48H2 sinfo_keynumber_valid=50H2",
        "sctp_event_subscribe": "11 11 sctp_data_io_event=0B1",
        "sockaddr_dl": LINK,
        "cmsgcred": "84 84 cmcred_pid=0i4 cmcred_uid=4I4 cmcred_euid=8I4 cmcred_gid=12I4"
        " cmcred_ngroups=16h2 cmcred_groups=20s64",
        "sockcred": "20 -1 sc_uid=0I4 sc_euid=4I4 sc_gid=8I4 sc_egid=12I4 sc_ngroups=16i4"
        " sc_groups=20t0",
        "sockcred2": "28 -1 sc_version=0i4 sc_pid=4i4 sc_uid=8I4 sc_euid=12I4 sc_gid=16I4"
        " sc_egid=20I4 sc_ngroups=24i4 sc_groups=28t0",
        "sock_timestamp_info": "64 64 st_info_flags=0I4",
        "tls_get_record": "6 6 tls_type=0B1 tls_vmajor=1B1 tls_vminor=2B1 tls_length=4n2",
    },
    "netbsd10": {
        "sockaddr_dl": LINK,
        "in_pktinfo": "8 8 ipi_addr=0a4 ipi_ifindex=4I4",
        "sockcred": "24 -1 sc_pid=0i4 sc_uid=4I4 sc_euid=8I4 sc_gid=12I4 sc_egid=16I4"
        " sc_ngroups=20i4 sc_groups=24t0",
    },
    "openbsd7": {"sockaddr_dl": LINK},
    "darwin": {
        "sockaddr_dl": LINK,
        "in_pktinfo": "12 12 ipi_ifindex=0I4 ipi_spec_dst=4a4 ipi_addr=8a4",
        "so_mpkl_send_info": "17 17 mpkl_uuid=0s16 mpkl_proto=16B1",
        "so_mpkl_recv_info": "8 8 mpkl_seq=0I4 mpkl_proto=4B1",
    },
}
# Only on Linux.
GONE = (
    "ucred", "sock_extended_err", "scm_ts_pktinfo", "dmabuf_cmsg", "tpacket_auxdata", "nl_pktinfo",
    "af_alg_iv", "rds_", "rxrpc_", "llc_", "tipc_", "in_pktinfo",
)  # fmt: skip
KEPT = (
    "AF_UNSPEC", "AF_UNIX", "AF_INET", "AF_INET6", "SO_TYPE", "SCM_RIGHTS", "MSG_CTRUNC",
    "MSG_TRUNC", "MSG_CMSG_CLOEXEC", "MAX_FDS",
)  # fmt: skip

RUN = """
import importlib.util, json, re, sys, types

system, constants, structs, gone, kept, code = json.loads(sys.argv[1])
# The package, without what its __init__ draws in.
package = types.ModuleType("cmsgx")
package.__path__ = importlib.util.find_spec("cmsgx").submodule_search_locations
sys.modules["cmsgx"] = package
from cmsgx import _cmsg

sys.platform = system
for name, value in list(vars(_cmsg).items()):
    if re.fullmatch("[A-Z][A-Z0-9_]+", name) and isinstance(value, int) and name not in kept:
        delattr(_cmsg, name)
for name, value in constants.items():
    setattr(_cmsg, name, value)
layouts = {
    name: layout for name, layout in _cmsg.LAYOUTS.items() if not name.startswith(tuple(gone))
}
for name, text in structs.items():
    least, most, *members = text.split()
    layouts[name] = (int(least), int(most), {
        word: (int(offset), format, int(size))
        for word, offset, format, size in re.findall(r"(\\w+)=(\\d+)([a-zA-Z])(\\d+)", text)
    })
_cmsg.LAYOUTS = layouts

exec(code)
"""
KINDS = """
from cmsgx import _bind, kinds
from cmsgx.kinds import _table

names = sorted(row.kind.__name__ for row in _table.rows())
"""
# Parts of the standard library that exist only on Linux. Modules that look for them are imported
# first.
PACKAGE = """
import errno, fcntl, multiprocessing.reduction, os, select, signal, socket, subprocess, tempfile

for module, gone in (
    (os, "memfd_create|MFD_.*|O_PATH|P_PIDFD|pidfd_open|eventfd|pipe2"),
    (socket, "SO_DOMAIN|SO_PROTOCOL|SOCK_NONBLOCK|SOCK_CLOEXEC"),
    (fcntl, "F_.*SEAL.*"),
    (select, "epoll|EPOLL.*|POLLRDHUP"),
    (signal, "pidfd_send_signal"),
):
    for name in dir(module):
        if re.fullmatch(gone, name):
            delattr(module, name)
del sys.modules["cmsgx"]
import cmsgx
from cmsgx import kinds
"""


def run(system: str, code: str, sol_socket: int = 0xFFFF, before: str = KINDS) -> str:
    constants = {
        "SOL_SOCKET": sol_socket, "SOL_IP": 0, "SOL_IPV6": 41, "SOL_TCP": 6, "SOL_UDP": 17,
        **{name: int(value) for name, value in (w.split("=") for w in SYSTEMS[system].split())},
    }  # fmt: skip
    given = json.dumps([system, constants, STRUCTS[system], GONE, KEPT, before + code])
    return run_python(RUN, given)


# The kinds that all of them have, and those that each has in addition.
COMMON = """
    DestinationAddress DestinationOptions DontFragment HopByHopOptions HopLimit PacketInfo6
    NextHop PathMtu ReceiveInterface ReceivedOptions ReturnOptions Rights
    RoutingDestinationOptions RoutingHeader Timestamp TrafficClass Ttl UseMinimumMtu
"""
BESIDES: dict[str, str] = {
    "freebsd14": """
        Cmsgcred FlowId FlowType HciDirection MonotonicTimestamp NetlinkSender
        OriginalDestination OriginalDestination6 PreferTemporaryAddress RssBucketId SctpAuthInfo
        SctpDestination4 SctpDestination6 SctpExtendedReceiveInfo SctpInit SctpNextInfo
        SctpPartialReliability SctpReceiveInfo SctpSendInfo SctpSendReceiveInfo Sockcred2
        TimestampInfo TlsRecordHeader TlsRecordType Tos
    """,
    "netbsd10": "HciDirection PacketInfo PreferTemporaryAddress Sockcred SourcePacketInfo",
    "openbsd7": "DestinationPort IpsecFlowInfo RoutingTable",
    "darwin": """
        ContinuousTicks MonotonicTicks NetServiceType PacketInfo PacketLogReceive PacketLogSend
        PreferTemporaryAddress SocketTrafficClass Tos WakePacket
    """,
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_kinds_of_a_system(system: str) -> None:
    found = json.loads(run(system, "print(json.dumps(names))"))
    assert found == sorted(COMMON.split() + BESIDES[system].split())


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_is_its_payload(system: str) -> None:
    code = """
for row in _table.rows():
    if issubclass(row.kind, kinds.StructMessage):
        size = 8 if row.kind._codec.fields == ("header",) else row.kind._codec.min_size
        record = row.kind._restore(bytes(size), 0)
        assert repr(record).startswith(row.kind.__name__)
        assert row.kind.unpack(record.pack()) == record or row.direction == "both", row
        shown = getattr(row.kind, "_SHOWN", row.kind._codec.fields)
        made = row.kind(**{name: getattr(record, name) for name in shown})
        assert made == record, (made, record)
        for form in row.formats:
            assert form.families or form.level
print(len(names))
"""
    assert int(run(system, code)) > 20


ROWS: list[tuple[str, int, int, int, str, Any]] = [
    # level, type, AF_*, the payload in hexadecimal, the decoded object. A struct timespec is read
    # as on the system that the code was compiled for.
    ("freebsd14", 0xFFFF, 6, 1, OLD_TIME.pack(5, 7).hex(),
     "MonotonicTimestamp(nanoseconds=5000000007)"),
    ("freebsd14", 0xFFFF, 8, 1, "00000000 09000000 01000000 02000000 03000000 04000000 02000000"
     " 03000000 05000000",
     "Sockcred2(pid=9, uid=1, euid=2, gid=3, egid=4, groups=(3, 5), version=0)"),
    ("freebsd14", 0xFFFF, 3, 1, "09000000 01000000 02000000 03000000 0200 0000 03000000 05000000"
     + " 00" * 56, "Cmsgcred(pid=9, uid=1, euid=2, gid=3, groups=(3, 5))"),
    ("freebsd14", 0, 90, 2, "2a000000", "FlowId(id=42)"),
    ("freebsd14", 41, 67, 10, "2a000000", "FlowId(id=42)"),
    ("freebsd14", 6, 2, 2, "17 03 03 00 00 2a",
     "TlsRecordHeader(record=<TlsType.APPLICATION_DATA: 23>, major=3, minor=3, length=42)"),
    ("freebsd14", 270, 257, 38, "0800 0100 09000000 0800 0200 07000000",
     "NetlinkSender({'process_id': 9, 'port_id': 7})"),
    ("freebsd14", 2050, 2, 36, "01000000", "HciDirection(incoming=True)"),
    ("freebsd14", 0, 65, 2, "40", "Ttl(ttl=64)"),
    ("netbsd10", 1, 3, 31, "01000000", "HciDirection(incoming=True)"),
    ("netbsd10", 0xFFFF, 16, 1, "09000000 01000000 02000000 03000000 04000000 01000000 03000000",
     "Sockcred(pid=9, uid=1, euid=2, gid=3, egid=4, groups=(3,))"),
    ("netbsd10", 0, 25, 2, "7f000001 01000000",
     "PacketInfo(interface=1, destination=IPAddress('127.0.0.1'))"),
    ("netbsd10", 0, 26, 2, "7f000001 01000000",
     "SourcePacketInfo(interface=1, source=IPAddress('127.0.0.1'))"),
    ("openbsd7", 0, 33, 2, "0050", "DestinationPort(port=80)"),
    ("openbsd7", 41, 64, 24, "0050", "DestinationPort(port=80)"),
    ("openbsd7", 0, 35, 2, "07000000", "RoutingTable(table=7)"),
    ("darwin", 0xFFFF, 4, 2, "0700000000000000", "MonotonicTicks(ticks=7)"),
    ("darwin", 0, 26, 2, "01000000 7f000002 7f000001",
     "PacketInfo(interface=1, local=IPAddress('127.0.0.2'), destination=IPAddress('127.0.0.1'))"),
]  # fmt: skip


@pytest.mark.skipif("__import__('sys').byteorder == 'big'", reason="the payloads are little-endian")
@pytest.mark.parametrize("system", SYSTEMS)
def test_payloads_of_a_system(system: str) -> None:
    mine = [row[1:] for row in ROWS if row[0] == system]
    code = f"""
for level, type, family, payload, text in {mine!r}:
    if family == 24:
        family = _cmsg.AF_INET6
    found = kinds.decode(level, type, bytes.fromhex(payload), family)
    assert repr(found) == text, found
    print(text)
"""
    assert run(system, code).splitlines() == [row[-1] for row in mine]


# NetBSD has one address in the struct, and macOS fills in only one of its two.
REPLIES = [
    ("netbsd10", 25, "c0000207 01000000", "interface=0, destination=IPAddress('192.0.2.7')"),
    ("netbsd10", 25, "a9fe0102 03000000", "interface=3, destination=IPAddress('169.254.1.2')"),
    ("netbsd10", 25, "e0000001 01000000", "interface=0, destination=IPAddress('0.0.0.0')"),
    ("darwin", 26, "01000000 00000000 c0000207",
     "interface=0, local=IPAddress('192.0.2.7'), destination=IPAddress('0.0.0.0')"),
    ("darwin", 26, "01000000 00000000 e0000001",
     "interface=0, local=IPAddress('0.0.0.0'), destination=IPAddress('0.0.0.0')"),
]  # fmt: skip


@pytest.mark.skipif("__import__('sys').byteorder == 'big'", reason="the payloads are little-endian")
@pytest.mark.parametrize("system", ["netbsd10", "darwin"])
def test_a_reply_where_packet_info_has_one_address(system: str) -> None:
    mine = [row[1:] for row in REPLIES if row[0] == system]
    code = f"""
for type, payload, text in {mine!r}:
    found = kinds.decode(0, type, bytes.fromhex(payload), _cmsg.AF_INET).reply()
    assert repr(found) == f"PacketInfo({{text}})", found
    print(text)
"""
    assert run(system, code).splitlines() == [row[-1] for row in mine]


def test_the_interface_of_a_packet() -> None:
    code = """
import struct
payload = struct.pack("=BBHBBBB", 20, 18, 3, 6, 3, 6, 0) + b"em0\\1\\2\\3\\4\\5\\6"
came = kinds.decode(0, 30, payload, _cmsg.AF_INET)
assert (came.interface, came.link, came.name) == (3, 6, "em0"), came
assert came.address == bytes([1, 2, 3, 4, 5, 6])
nothing = kinds.decode(0, 30, bytes([8, 18, 0, 0, 0, 0, 0, 0]), _cmsg.AF_INET)
assert (nothing.interface, nothing.name, nothing.address) == (0, "", b"")
print("ok")
"""
    assert run("openbsd7", code).strip() == "ok"


@pytest.mark.parametrize(("system", "size"), [("freebsd14", 1), ("darwin", 4)])
@pytest.mark.slow
def test_the_type_of_service_that_is_sent(system: str, size: int) -> None:
    assert run(system, "print(len(kinds.Tos(1).pack()))").strip() == str(size)


# What runs on this kernel, with every constant that the package itself uses.
WORKS = """
assert kinds.ExtendedError not in [row.kind for row in kinds._table.rows()]
left, right = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
with left, right, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
    reader, writer = map(cmsgx.Fd, os.pipe())
    cmsgx.send(left, b"one", fds=[reader, writer])
    with cmsgx.receive(right, 9, fds=2) as message:
        assert (message.data, len(message.fds)) == (b"one", 2), message
        assert [os.get_inheritable(fd.fileno()) for fd in message.fds] == [False, False]
        assert message[cmsgx.Rights].fds == tuple(message.fds)
    cmsgx.send_all(left, b"two", fds=[reader])
    with cmsgx.Receiver(right, 9, fds=1).receive() as message:
        assert (message.data, len(message.fds)) == (b"two", 1), message
        assert message.fds[0].check(kind="pipe", access="r")
        for kind in (cmsgx.Credentials, cmsgx.SecurityLabel, cmsgx.PidFd):
            assert kind not in message
            assert message.get(kind) is None
            assert message.get_all(kind) == ()
            try:
                message[kind]
            except KeyError:
                pass
    assert cmsgx.send_batch(left, [b"three", (b"four", [writer])]) == 2
    with cmsgx.BatchReceiver(right, 4, 9, fds=1).receive() as batch:
        assert [message.data for message in batch] == [b"three", b"four"]
    assert cmsgx.peer_credentials(left).uid == os.getuid()
    assert cmsgx.peer_security(left) is None
    assert cmsgx.segment_support(udp) == 0
    udp.bind(("127.0.0.1", 0))
    assert cmsgx.send_segments(udp, b"abcd", 2, address=udp.getsockname()) == 2
    left_again = cmsgx.Fd(os.dup(left.fileno())).socket()
    assert (left_again.family, left_again.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left_again.close()
    with tempfile.TemporaryFile() as file:
        file.write(b"text")
        file.flush()
        with cmsgx.Fd(os.dup(file.fileno())) as fd:
            assert fd.check(kind="file", access="rw", size=4)
            assert not fd.check(seals=1)
            try:
                fd.map()
            except ValueError:
                pass
            else:
                raise AssertionError("nothing is sealed there")
    cmsgx.install()
    try:
        socket.send_fds(left, [b"five"], [reader.fileno()])
        data, fds, flags, address = socket.recv_fds(right, 9, 1)
    finally:
        cmsgx.uninstall()
    assert (data, len(fds)) == (b"five", 1)
    reader.close(), writer.close(), os.close(fds[0])

from cmsgx._cli import main
assert main(["demo"]) == 2
print("ok")
"""


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.slow
def test_the_package_works(system: str) -> None:
    assert run(system, WORKS, socket.SOL_SOCKET, PACKAGE).strip() == "ok"


# Something that a system lacks says so, instead of raising AttributeError or TypeError.
CANNOT = """
left, right = cmsgx.socketpair()
udp, tcp = (socket.socket(socket.AF_INET, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
for call in (
    lambda: cmsgx.peer_pidfd(left),
    lambda: cmsgx.peer_groups(left),
    lambda: cmsgx.accept_rights(left, False),
    lambda: cmsgx.share(b"x"),
    lambda: list(cmsgx.receive_errors(udp)),
    lambda: cmsgx.ZeroCopySender(tcp),
    lambda: cmsgx.Credentials(),
    lambda: cmsgx.enable(left, cmsgx.SecurityLabel),
    lambda: cmsgx.Receiver(left, 9, want=[cmsgx.PidFd]),
    lambda: cmsgx.BatchReceiver(udp, 9, 9, want=[kinds.UdpGro]),
):
    try:
        call()
    except cmsgx.NotSupportedError as error:
        print(error)
    else:
        raise AssertionError("it worked")
for sock in (left, right, udp, tcp):
    sock.close()
"""


@pytest.mark.parametrize("system", SYSTEMS)
def test_what_is_linuxs_says_so(system: str) -> None:
    said = run(system, CANNOT, socket.SOL_SOCKET, PACKAGE).splitlines()
    asked = (
        "SO_PEERPIDFD", "SO_PEERGROUPS", "SO_PASSRIGHTS", "memfd_create", "error queue",
        "SO_ZEROCOPY", "Credentials", "SecurityLabel", "PidFd", "UdpGro",
    )  # fmt: skip
    for text, line in zip(asked, said, strict=True):
        assert text in line
