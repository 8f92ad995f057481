"""A UDP server that answers many questions at once, each from the address it was asked at."""

from __future__ import annotations

import socket

import cmsgx
from cmsgx.kinds import PacketInfo


def main() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("", 0))
        port = server.getsockname()[1]
        questions = cmsgx.BatchReceiver(server, 64, 1500, want=[PacketInfo])
        cmsgx.send_batch(client, [(b"?", (), (), (f"127.0.0.{n}", port)) for n in (2, 3, 4)])

        batch = questions.receive()  # one recvmmsg(2), and one sendmmsg(2)
        cmsgx.send_batch(server, [(m.view, (), m[PacketInfo], m.address) for m in batch])

        for answer in cmsgx.BatchReceiver(client, 64, 1500).receive():
            print(f"answered from {(answer.address or '')[0]}")


if __name__ == "__main__":
    main()
