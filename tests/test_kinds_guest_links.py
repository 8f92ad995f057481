"""The kinds of links other than Ethernet: Bluetooth, wireless, 802.15.4, LLC, ISDN.

Each test tries first, and skips with the errno of the attempt.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import attempt, fails, refused
from bluetooth import ADDRESS, BTPROTO_HCI, Controller
from families import bind, connect, is_since, open_socket, run, set_option, switch_on
from support import eventually

import cmsgx
from cmsgx import kinds

SOL_SOCKET, SO_TIMESTAMPING = 1, 37
MSG_ERRQUEUE = 0x2000
AF_LLC, AF_BLUETOOTH, AF_IUCV, AF_ISDN, AF_IEEE802154 = 26, 31, 32, 34, 36
TX_SOFTWARE, SOFTWARE, OPT_ID, OPT_TSONLY, TX_COMPLETION = 1 << 1, 1 << 4, 1 << 7, 1 << 11, 1 << 18


def errors(sock: Any, count: int) -> list[cmsgx.Message]:
    found: list[cmsgx.Message] = []

    def another() -> bool:
        try:
            found.append(cmsgx.receive(sock, 2048, flags=MSG_ERRQUEUE, timeout=0))
        except BlockingIOError:
            return False
        return len(found) == count

    assert eventually(another, 60), found
    return found


# Bluetooth --------------------------------------------------------------------------------------


@pytest.fixture
def controller() -> Iterator[Controller]:
    open_socket(AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI).close()
    with Controller() as one:
        one.up()
        yield one


def test_what_a_raw_hci_socket_sees(controller: Controller) -> None:
    hci_filter = 2
    with cmsgx.socket(AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI) as sock:
        # struct sockaddr_hci; struct hci_filter: of each type of packet, each event
        bind(sock, struct.pack("=HHH", AF_BLUETOOTH, controller.index, 0))
        sock.setsockopt(0, hci_filter, struct.pack("=IIIH2x", 2**32 - 1, 2**32 - 1, 2**32 - 1, 0))
        sock.settimeout(30)
        rx = cmsgx.Receiver(sock, 300, want=[kinds.HciDirection, kinds.HciTimestamp])
        before = time.time_ns() // 1000 * 1000
        controller.event(0xFF, b"vendor")
        msg = next(m for m in iter(rx.receive, None) if m.data.endswith(b"vendor"))
        assert msg[kinds.HciDirection].incoming is True
        assert is_since(before, msg[kinds.HciTimestamp].nanoseconds)
        # The socket also sees its own command on its way out.
        with cmsgx.socket(AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI) as other:
            bind(other, struct.pack("=HHH", AF_BLUETOOTH, controller.index, 0))
            other.send(bytes([1, 0x09, 0x10, 0]))
            msg = next(m for m in iter(rx.receive, None) if m.data[:3] == bytes([1, 0x09, 0x10]))
        assert msg[kinds.HciDirection].incoming is False


BTPROTO_L2CAP, BTPROTO_SCO = 0, 2


@pytest.fixture
def sco(controller: Controller) -> Iterator[cmsgx.socket]:
    """A connection for voice, which the peer initiated."""
    psm = 0x1001
    listener = cmsgx.socket(AF_BLUETOOTH, socket.SOCK_SEQPACKET, BTPROTO_L2CAP)
    voice = cmsgx.socket(AF_BLUETOOTH, socket.SOCK_SEQPACKET, BTPROTO_SCO)
    with listener, voice:
        bind(listener, struct.pack("=HH6sHBx", AF_BLUETOOTH, psm, ADDRESS, 0, 0))
        listener.listen()
        bind(voice, struct.pack("=H6s", AF_BLUETOOTH, ADDRESS))
        voice.listen()
        voice.settimeout(30)
        controller.request(1)
        time.sleep(1)
        controller.request(2)
        try:
            accepted, _ = voice.accept()
        except TimeoutError:
            pytest.fail(f"no connection; commands: {[hex(one) for one in controller.commands]}")
        with accepted:
            accepted.settimeout(30)
            yield accepted


def test_how_well_a_packet_of_voice_was_received(controller: Controller, sco: cmsgx.socket) -> None:
    rx = cmsgx.Receiver(sco, 100, want=[kinds.BluetoothPacketStatus])
    for status in (0, 1, 3):
        controller.sco(b"voice", status)
        msg = rx.receive()
        assert (msg.data, msg[kinds.BluetoothPacketStatus].status) == (b"voice", status)


def test_when_a_packet_of_voice_was_sent(controller: Controller, sco: cmsgx.socket) -> None:
    # Linux 6.15, which also brings TX_COMPLETION, adds time stamps to what it sends over Bluetooth.
    set_option(
        sco, SOL_SOCKET, SO_TIMESTAMPING, SOFTWARE | TX_COMPLETION, "SO_TIMESTAMPING TX_COMPLETION"
    )
    cmsgx.enable(sco, kinds.Timestamping.option(OPT_ID | OPT_TSONLY | TX_SOFTWARE))
    before = time.time_ns()
    cmsgx.send(sco, b"voice")
    [msg] = errors(sco, 1)
    error = msg[kinds.ExtendedError]
    assert (error.ee_origin, error.ee_info) == (
        kinds.ErrorOrigin.TIMESTAMPING,
        kinds.SentStage.SENT,
    )
    assert is_since(before, msg[kinds.Timestamping].software)
    assert eventually(lambda: any(packet.endswith(b"voice") for packet in controller.sent))


# Wireless ---------------------------------------------------------------------------------------


@pytest.fixture
def wireless() -> Iterator[tuple[str, str, str]]:
    """Two radios of mac80211_hwsim in one network: the name of the first, and both MAC
    addresses."""
    with attempt("the radios of mac80211_hwsim"):
        names = sorted(
            path.name
            for path in Path("/sys/class/net").iterdir()
            if "hwsim" in os.path.realpath(path) and path.name.startswith("wl")
        )
        if len(names) < 2:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    for name in names[:2]:
        run("iw", "dev", name, "set", "type", "ibss")
        run("ip", "link", "set", name, "up")
        run("iw", "dev", name, "ibss", "join", "cmsgx", "2412", "fixed-freq", "02:11:22:33:44:55")
    addresses = [Path(f"/sys/class/net/{name}/address").read_text().strip() for name in names[:2]]
    try:
        # A new network takes a while to come up.
        carrier = [Path(f"/sys/class/net/{name}/carrier") for name in names[:2]]
        assert eventually(lambda: all(path.read_text().strip() == "1" for path in carrier), 60)
        yield names[0], addresses[0], addresses[1]
    finally:
        for name in names[:2]:
            run("iw", "dev", name, "ibss", "leave")
            run("ip", "link", "set", name, "down")
            run("iw", "dev", name, "set", "type", "managed")


def test_whether_a_wireless_frame_was_acknowledged(wireless: tuple[str, str, str]) -> None:
    name, own, other = wireless
    with cmsgx.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        sock.bind((name, 0))
        switch_on(sock, kinds.WifiStatus)
        macs = [bytes.fromhex(mac.replace(":", "")) for mac in (other, own)]
        frame = macs[0] + macs[1] + struct.pack("!H", 0x88B5) + b"data".ljust(50, b"\0")
        deadline = time.monotonic() + 60
        while True:
            # Nothing is delivered before the radios know each other.
            sock.send(frame)
            time.sleep(0.5)
            try:
                msg = cmsgx.receive(sock, 2048, flags=MSG_ERRQUEUE, timeout=0)
                break
            except BlockingIOError:
                assert time.monotonic() < deadline
        assert msg[kinds.WifiStatus].acked is True
        error = msg[kinds.ExtendedError]
        assert (error.ee_errno, error.ee_origin) == (errno.ENOMSG, 4)


def test_whether_a_datagram_was_acknowledged(wireless: tuple[str, str, str]) -> None:
    name, _, other = wireless
    run("ip", "addr", "add", "10.79.0.1/24", "dev", name)
    run("ip", "neigh", "add", "10.79.0.2", "lladdr", other, "dev", name)
    with cmsgx.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        switch_on(sock, kinds.WifiStatus)
        cmsgx.send(sock, b"data", address=("10.79.0.2", 9))
        [msg] = errors(sock, 1)
        assert msg[kinds.WifiStatus].acked is True
        assert msg[kinds.ExtendedError].ee_origin == 4


# Hardware time stamps ---------------------------------------------------------------------------


def adapters(driver: str) -> list[str]:
    """The names of the network interfaces that have it."""
    found = [
        path.name
        for path in Path("/sys/class/net").iterdir()
        if os.path.basename(os.path.realpath(path / "device" / "driver")) == driver
    ]
    if len(found) < 2:
        pytest.skip(f"[Errno {errno.ENODEV}] two adapters of the driver {driver}: {found}")
    return sorted(found)


def test_where_a_packet_with_a_hardware_time_stamp_came_in() -> None:
    """Two adapters in one network; they add time stamps to PTP packets (IEEE 1588)."""
    siocshwtstamp, ptp_v2_l2_event, eth_p_1588 = 0x89B0, 9, 0x88F7
    sender_name, receiver_name = adapters("igb")[:2]
    macs = []
    for name in (sender_name, receiver_name):
        run("ip", "link", "set", name, "up")
        text = Path(f"/sys/class/net/{name}/address").read_text().strip()
        macs.append(bytes.fromhex(text.replace(":", "")))
    carrier = Path(f"/sys/class/net/{receiver_name}/carrier")
    assert eventually(lambda: carrier.read_text().strip() == "1", 60)
    with (
        cmsgx.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender,
        cmsgx.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(eth_p_1588)) as receiver,
    ):
        # struct hwtstamp_config: flags, tx_type, rx_filter; struct ifreq points to it
        config = ctypes.create_string_buffer(struct.pack("iii", 0, 1, ptp_v2_l2_event))
        request = struct.pack("16sP16x", receiver_name.encode(), ctypes.addressof(config))
        with attempt("SIOCSHWTSTAMP"):
            fcntl.ioctl(receiver, siocshwtstamp, request)
        sender.bind((sender_name, 0))
        receiver.bind((receiver_name, eth_p_1588))
        receiver.settimeout(30)
        want = [kinds.TimestampingPacketInfo, kinds.Timestamping]
        rx = cmsgx.Receiver(receiver, 2000, want=want)
        # A Sync of version 2: the kind of message, the version, the length
        frame = macs[1] + macs[0] + struct.pack("!HBBH", eth_p_1588, 0, 2, 44) + bytes(60)
        sender.send(frame)
        msg = rx.receive()
        info = msg.get(kinds.TimestampingPacketInfo)
        if info is None:
            pytest.skip(f"[Errno {errno.ENODATA}] no hardware time stamp came: {msg.control}")
        assert info.interface_name == receiver_name
        assert info.length >= len(frame)
        assert msg[kinds.Timestamping].hardware


# 802.15.4, LLC, ISDN ----------------------------------------------------------------------------


def test_how_well_a_frame_of_802_15_4_was_received() -> None:
    pan = 0xBEEF
    open_socket(AF_IEEE802154, socket.SOCK_DGRAM).close()
    for n in (0, 1):
        name = f"wpan{n}"
        run("iwpan", "dev", name, "set", "pan_id", hex(pan))
        run("iwpan", "dev", name, "set", "short_addr", hex(n + 1))
        run("ip", "link", "set", name, "up")
    # struct sockaddr_ieee802154: the kind of address (2: short), the PAN, the address
    addresses = [struct.pack("=HxxiHH6x", AF_IEEE802154, 2, pan, n + 1) for n in (0, 1)]
    with (
        cmsgx.socket(AF_IEEE802154, socket.SOCK_DGRAM) as sender,
        cmsgx.socket(AF_IEEE802154, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.settimeout(30)
        bind(sender, addresses[0])
        bind(receiver, addresses[1])
        connect(sender, addresses[1])
        rx = cmsgx.Receiver(receiver, 100, want=[kinds.LinkQuality])
        cmsgx.send(sender, b"data")
        msg = rx.receive()
        assert msg.data == b"data"
        assert 0 <= msg[kinds.LinkQuality].lqi <= 255


def test_where_a_packet_of_llc_came_in() -> None:
    ethernet, saps = 1, (0x40, 0x42)
    open_socket(AF_LLC, socket.SOCK_DGRAM).close()
    run("ip", "link", "add", "llc-a", "type", "veth", "peer", "name", "llc-b")
    try:
        macs = []
        for name in ("llc-a", "llc-b"):
            run("ip", "link", "set", name, "up")
            text = Path(f"/sys/class/net/{name}/address").read_text().strip()
            macs.append(bytes.fromhex(text.replace(":", "")))
        # struct sockaddr_llc
        addresses = [
            struct.pack("=HHBBBB6s2x", AF_LLC, ethernet, 0, 0, 0, sap, mac)
            for sap, mac in zip(saps, macs, strict=True)
        ]
        with (
            cmsgx.socket(AF_LLC, socket.SOCK_DGRAM) as sender,
            cmsgx.socket(AF_LLC, socket.SOCK_DGRAM) as receiver,
        ):
            receiver.settimeout(30)
            bind(sender, addresses[0])
            bind(receiver, addresses[1])
            rx = cmsgx.Receiver(receiver, 100, want=[kinds.LlcPacketInfo])
            libc = ctypes.CDLL(None, use_errno=True)
            sent = libc.sendto(sender.fileno(), b"data", 4, 0, addresses[1], len(addresses[1]))
            assert sent == 4, os.strerror(ctypes.get_errno())
            msg = rx.receive()
            info = msg[kinds.LlcPacketInfo]
            assert msg.data == b"data"
            assert (info.sap, info.mac, info.interface_name) == (saps[1], macs[1], "llc-b")
    finally:
        run("ip", "link", "del", "llc-a")


def test_when_a_message_of_isdn_came() -> None:
    isdn_p_te_s0, ph_activate_req = 1, 0x0101
    imgetcount = 0x80044943
    with open_socket(AF_ISDN, socket.SOCK_RAW, 0) as base, attempt("an ISDN card"):
        if not struct.unpack("i", fcntl.ioctl(base, imgetcount, bytes(4)))[0]:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    with cmsgx.socket(AF_ISDN, socket.SOCK_DGRAM, isdn_p_te_s0) as sock:
        # struct sockaddr_mISDN: device, channel, sapi, tei
        with attempt("bind to the D channel"):
            bind(sock, struct.pack("=HBBBB", AF_ISDN, 0, 0, 0, 0))
        sock.settimeout(30)
        rx = cmsgx.Receiver(sock, 300, want=[kinds.MisdnTimestamp])
        # By a clock that the kernel advances only with each tick.
        before = time.time_ns() - 10**7
        sock.send(struct.pack("=II", ph_activate_req, 0))
        stamp = rx.receive()[kinds.MisdnTimestamp]
        assert is_since(before, stamp.nanoseconds)


def iucv_address(user: str, name: str) -> bytes:
    """struct sockaddr_iucv: the id of a guest, and the name of a program there."""
    return struct.pack("=HHI8s8s8s", AF_IUCV, 0, 0, b"", user.encode(), name.ljust(8).encode())


def test_the_target_class_of_a_message_of_iucv() -> None:
    """As over HiperSockets: the id of a guest is the MAC address of an adapter, in EBCDIC."""
    users = {"c2:e4:c5:e2:e3:f1": "BUEST1", "c2:e4:c5:e2:e3:f2": "BUEST2"}
    open_socket(AF_IUCV, socket.SOCK_STREAM).close()
    # Linux 7.2 crashes when a socket is closed that tried to connect and has neither.
    has_hypervisor = "z/VM" in Path("/proc/sysinfo").read_text()
    if not has_hypervisor and not list(Path("/sys").glob("bus/ccwgroup/drivers/qeth/*.*.*")):
        refused(errno.ENODEV, "z/VM, or HiperSockets")
    found = {}
    for path in Path("/sys/class/net").iterdir():
        mac = (path / "address").read_text().strip()
        if mac in users:
            found[users[mac]] = path.name
    if len(found) < 2:
        pytest.skip(f"[Errno {errno.ENODEV}] two adapters with {list(users)}: {found}")
    for name in found.values():
        # The frames go to no address.
        run("ip", "link", "set", name, "arp", "off", "promisc", "on", "up")
    carriers = [Path(f"/sys/class/net/{name}/carrier") for name in found.values()]
    assert eventually(lambda: all(path.read_text().strip() == "1" for path in carriers), 60)
    with (
        cmsgx.socket(AF_IUCV, socket.SOCK_STREAM) as listener,
        cmsgx.socket(AF_IUCV, socket.SOCK_STREAM) as client,
    ):
        bind(listener, iucv_address("BUEST2", "SERVER"))
        listener.listen()
        bind(client, iucv_address("BUEST1", "CLIENT"))
        with attempt("connect to the other adapter"):
            connect(client, iucv_address("BUEST2", "SERVER"))
        listener.settimeout(30)
        server, _ = listener.accept()
        with server:
            server.settimeout(30)
            cmsgx.send(client, b"data", control=kinds.IucvTargetClass(0x01020304))
            msg = cmsgx.receive(server, 100)
            assert msg.data == b"data"
            assert msg[kinds.IucvTargetClass].target_class == 0x01020304
            two = [kinds.IucvTargetClass(1), kinds.IucvTargetClass(2)]
            with fails(errno.EINVAL):
                cmsgx.send(client, b"x", control=two)
