"""The time to live of each packet, chosen by the sender and seen by the receiver: ip(7)."""

from __future__ import annotations

import socket

import cmsgx
from cmsgx.kinds import Ttl


def main() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        receiver = cmsgx.Receiver(server, 1500, want=[Ttl])  # before any packet comes
        server.bind(("127.0.0.1", 0))
        for data, hops in ((b"near", 1), (b"far", 200)):
            cmsgx.send(client, data, control=Ttl(hops), address=server.getsockname())
            message = receiver.receive()
            print(f"{message.data.decode()}: it had {message[Ttl].ttl} to go")


if __name__ == "__main__":
    main()
