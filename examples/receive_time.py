"""When a packet arrived, by the network adapter's clock if it has one, else by the kernel's."""

import socket
import time

import cmsgx
from cmsgx.kinds import Timestamp, Timestamping


def tell(message: cmsgx.Message) -> None:
    # Hardware time stamps have to be switched on: hwstamp_ctl(8), or ioctl SIOCSHWTSTAMP.
    stamps = message.get(Timestamping)
    if stamps is not None and stamps.hardware is not None:
        print(f"the adapter had it at {stamps.hardware} ns of its own clock")
    elif (came := message[Timestamp].nanoseconds) is not None:
        print(f"the kernel had it {(time.time_ns() - came) // 10**9} s ago")


if __name__ == "__main__":
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        # Before bind(): a packet queued without the option may get the time at which it is read.
        receiver = cmsgx.Receiver(server, 1500, want=[Timestamp, Timestamping])
        server.bind(("127.0.0.1", 0))
        client.sendto(b"data", server.getsockname())
        tell(receiver.receive())
