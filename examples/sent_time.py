"""How long each datagram took to leave: the kernel puts its time stamps on the error queue."""

import select
import socket
import time

import cmsgx
from cmsgx.kinds import SentTimestamp, Timestamping
from cmsgx.kinds import TimestampingFlags as Flags

if __name__ == "__main__":
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    # OPT_ID: ids that count from 0. OPT_TSONLY: without a copy of the datagram.
    cmsgx.enable(sock, Timestamping.option(Flags.TX_SOFTWARE | Flags.OPT_ID | Flags.OPT_TSONLY))
    sock.bind(("127.0.0.1", 0))
    sock.connect(sock.getsockname())  # to itself
    poller = select.poll()
    poller.register(sock, 0)  # a time stamp raises POLLERR, which is always reported
    for _ in range(3):
        before = time.time_ns()
        cmsgx.send(sock, b"data")
        poller.poll(1000)
        for report in cmsgx.receive_errors(sock):
            if isinstance(report, SentTimestamp) and report.software is not None:
                print(f"datagram {report.id} left after {(report.software - before) // 10**9} s")
    sock.close()
