"""List the routers on the way to a host, without a raw socket, by their ICMP errors."""

import errno
import select
import socket
import sys

import cmsgx
from cmsgx.kinds import ExtendedError, HopLimit, IcmpError


def probe(family: int, address: tuple[object, ...], hops: int) -> IcmpError | None:
    # A new socket for each probe, so that a late error is not taken for this one.
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        cmsgx.enable(sock, ExtendedError)
        cmsgx.send(sock, b"", control=HopLimit(hops), address=address)
        select.select([sock], [], [], 1)  # an error makes it readable
        return next((one for one in cmsgx.receive_errors(sock) if isinstance(one, IcmpError)), None)


if __name__ == "__main__":
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    most = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    family, *_, address = socket.getaddrinfo(host, 33434, type=socket.SOCK_DGRAM)[0]
    for hops in range(1, most + 1):
        report = probe(family, address, hops)
        print(hops, report.offender[0] if report and report.offender else "*", flush=True)
        if report and report.errno == errno.ECONNREFUSED:  # from the host: nothing listens at 33434
            break
