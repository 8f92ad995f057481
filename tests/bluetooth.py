"""A Bluetooth controller in software, /dev/vhci: it answers only what the kernel asks."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from attempts import attempt
from families import open_socket

__all__ = ["BTPROTO_HCI", "Controller"]

COMMAND, ACL, SCO, EVENT, VENDOR = 1, 2, 3, 4, 0xFF
BTPROTO_HCI = 1
HCIDEVUP, HCIDEVDOWN = 0x400448C9, 0x400448CA

# Commands: the ten bits of the OCF after the six of the OGF.
ACCEPT, ACCEPT_SYNC, DISCONNECT = 0x0409, 0x0429, 0x0406
REMOTE_FEATURES, REMOTE_EXTENDED, REMOTE_NAME, REMOTE_VERSION = 0x041B, 0x041C, 0x0419, 0x041D
ADDRESS = bytes([1, 2, 3, 4, 5, 6])
PEER = bytes([9, 8, 7, 6, 5, 4])

# The return parameters of HCI_Command_Complete, after the status; for other commands they are
# zeros.
ANSWERS = {
    0x1001: bytes([9, 0, 0, 9, 0, 0, 0, 0]),  # version 5.0
    0x1002: bytes([0] * 9 + [4] + [0] * 54),  # commands: that there are voice settings
    0x1003: bytes([0xFF, 0xFF, 0x8F, 0xFE, 0x98, 0, 0, 0]),  # features: SCO, eSCO, no LE
    0x1005: struct.pack("<HBHH", 1021, 64, 8, 8),  # sizes of buffers
    0x1009: ADDRESS,
}
BY_STATUS = {ACCEPT, ACCEPT_SYNC, DISCONNECT, REMOTE_FEATURES, REMOTE_EXTENDED, REMOTE_NAME,
             REMOTE_VERSION}  # fmt: skip


class Controller:
    """`index` is the number of the adapter. Its only peer is PEER."""

    def __init__(self) -> None:
        with attempt("open /dev/vhci"):
            self._fd = os.open("/dev/vhci", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        self._stop, self._wake = os.pipe()
        self.sent: list[bytes] = []
        self.commands: list[int] = []
        self._handles = {ACL: 0x0B, SCO: 0x0C}
        os.write(self._fd, bytes([VENDOR, 0]))
        assert select.select([self._fd], [], [], 60)[0]
        answer = os.read(self._fd, 10)
        assert answer[0] == VENDOR
        self.index = int.from_bytes(answer[2:4], "little")
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def up(self) -> None:
        """Does what `hciconfig up` does."""
        with open_socket(socket.AF_BLUETOOTH, socket.SOCK_RAW, BTPROTO_HCI) as sock:
            try:
                fcntl.ioctl(sock, HCIDEVUP, self.index)
            except OSError as error:
                if error.strerror != "Operation already in progress":
                    raise

    def event(self, code: int, data: bytes) -> None:
        os.write(self._fd, bytes([EVENT, code, len(data)]) + data)

    def request(self, link: int) -> None:
        """The peer wants to connect: 0 SCO, 1 ACL, 2 eSCO."""
        self.event(0x04, PEER + bytes(3) + bytes([link]))

    def sco(self, data: bytes, status: int) -> None:
        """The peer sends data, with this status of how well it was received."""
        header = struct.pack("<HB", self._handles[SCO] | status << 12, len(data))
        os.write(self._fd, bytes([SCO]) + header + data)

    def complete(self, handle: int, packets: int = 1) -> None:
        """The controller has sent them."""
        self.event(0x13, struct.pack("<BHH", 1, handle, packets))

    def _run(self) -> None:
        while True:
            ready = select.select([self._fd, self._stop], [], [])[0]
            if self._stop in ready:
                return
            packet = os.read(self._fd, 2000)
            if packet[0] == COMMAND:
                self._command(int.from_bytes(packet[1:3], "little"), packet[4:])
            else:
                self.sent.append(packet)
                self.complete(int.from_bytes(packet[1:3], "little") & 0xFFF)

    def _command(self, code: int, data: bytes) -> None:
        name = struct.pack("<H", code)
        self.commands.append(code)
        if code not in BY_STATUS:
            answer = ANSWERS.get(code, bytes(248))
            self.event(0x0E, b"\1" + name + b"\0" + answer)
            return
        self.event(0x0F, b"\0\1" + name)
        acl, sco = struct.pack("<H", self._handles[ACL]), struct.pack("<H", self._handles[SCO])
        then: dict[int, Callable[[], Any]] = {
            ACCEPT: lambda: self.event(0x03, b"\0" + acl + PEER + bytes([1, 0])),
            ACCEPT_SYNC: lambda: self.event(
                0x2C,
                b"\0" + sco + PEER + bytes([2, 0, 0]) + struct.pack("<HHB", 60, 60, 2),
            ),
            DISCONNECT: lambda: self.event(0x05, b"\0" + data[:2] + b"\x16"),
            REMOTE_FEATURES: lambda: self.event(0x0B, b"\0" + acl + ANSWERS[0x1003]),
            REMOTE_EXTENDED: lambda: self.event(0x23, b"\0" + acl + bytes([1, 1]) + bytes(8)),
            REMOTE_NAME: lambda: self.event(0x07, b"\0" + PEER + bytes(248)),
            REMOTE_VERSION: lambda: self.event(0x0C, b"\0" + acl + bytes([9, 0, 0, 0, 0])),
        }
        then[code]()

    def close(self) -> None:
        os.write(self._wake, b"x")
        self._thread.join()
        for fd in (self._fd, self._stop, self._wake):
            os.close(fd)

    def __enter__(self) -> Controller:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
