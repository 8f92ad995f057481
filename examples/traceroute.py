"""Which routers lead to a host, without a raw socket: their ICMP errors are on the error queue."""

from __future__ import annotations

import errno
import select
import socket
import sys

import cmsgx
from cmsgx.kinds import ExtendedError, HopLimit, IcmpError, Ttl

PORT = 33434  # where nobody listens: the host itself answers that its port is unreachable


def probe(family: int, address: tuple[object, ...], hops: int) -> IcmpError | None:
    # A socket for each, so that an answer that comes late is nobody's.
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, ExtendedError)
        limit = HopLimit(hops) if family == socket.AF_INET6 else Ttl(hops)
        cmsgx.send(sock, b"", control=limit, address=address)
        ready = select.poll()
        ready.register(sock, 0)  # for POLLERR, which comes unasked
        ready.poll(1000)
        reports = (one for one in cmsgx.receive_errors(sock) if isinstance(one, IcmpError))
        return next(reports, None)


def main(host: str = "127.0.0.1", most: str = "30") -> None:
    family, *_, address = socket.getaddrinfo(host, PORT, type=socket.SOCK_DGRAM)[0]
    for hops in range(1, int(most) + 1):
        report = probe(family, address, hops)
        print(hops, report.offender[0] if report and report.offender else "*", flush=True)
        if report and report.errno == errno.ECONNREFUSED:
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
