"""A UDP server that answers many requests at once, each from the address it was sent to."""

from __future__ import annotations

import socket

import cmsgx
from cmsgx.kinds import PacketInfo

UDP = (socket.AF_INET, socket.SOCK_DGRAM)


def main() -> None:
    with socket.socket(*UDP) as server, socket.socket(*UDP) as client:
        # Before bind(): a packet that arrives earlier does not say which address it was sent to.
        receiver = cmsgx.BatchReceiver(server, 64, 1500, want=[PacketInfo])
        server.bind(("", 0))
        port = server.getsockname()[1]
        cmsgx.send_batch(client, [(b"?", (), (), (f"127.0.0.{n}", port)) for n in (2, 3, 4)])
        left = 3
        while left:  # one recvmmsg(2) and one sendmmsg(2) for all requests in the queue
            answers = [(m.view, (), m[PacketInfo].reply(), m.address) for m in receiver.receive()]
            left -= cmsgx.send_batch(server, answers)
        for _ in range(3):
            print(f"answered from {client.recvfrom(1500)[1][0]}")


if __name__ == "__main__":
    main()
