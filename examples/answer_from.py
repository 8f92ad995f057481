"""A UDP server on every address of this machine, which answers from the one it was asked at."""

import socket

import cmsgx
from cmsgx.kinds import PacketInfo6

ASKED = [(socket.AF_INET, "127.0.0.2"), (socket.AF_INET, "127.0.0.3"), (socket.AF_INET6, "::1")]


def answer(receiver: cmsgx.Receiver) -> None:
    question = receiver.receive()
    # Otherwise the kernel chooses the source by route, and the client drops an answer that comes
    # from another address than it asked.
    source = question[PacketInfo6].reply()
    cmsgx.send(receiver.sock, question.data, control=source, address=question.address)


if __name__ == "__main__":
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
        server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 too
        everywhere = cmsgx.Receiver(server, 1500, want=[PacketInfo6])  # before any packet comes
        server.bind(("::", 0))
        for family, host in ASKED:
            with socket.socket(family, socket.SOCK_DGRAM) as client:
                client.sendto(b"where?", (host, server.getsockname()[1]))
                answer(everywhere)
                print(f"asked {host}, answered from {client.recvfrom(1500)[1][0]}")
