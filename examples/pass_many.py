"""Pass as many descriptors as one message can carry, and more in several messages."""

from __future__ import annotations

import os
import socket

import cmsgx

LIMIT = 253  # SCM_MAX_FD: the most that one message can carry on Linux
COUNT = 600


def child(sock: cmsgx.socket) -> None:
    total = 0
    # One Receiver for all of them: each message's descriptors are closed when the next one comes.
    for message in cmsgx.Receiver(sock, 100, fds=LIMIT):
        total += sum(int(os.pread(fd.fileno(), 10, 0)) for fd in message.fds)
        print(f"child got {len(message.fds)}")
    print(f"their numbers add up to {total}, expected {sum(range(COUNT))}")


def main() -> None:
    # SOCK_SEQPACKET keeps order and message boundaries, and its reader sees the end.
    ours, theirs = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        with theirs:
            child(theirs)
        return
    theirs.close()
    with ours:
        for start in range(0, COUNT, LIMIT):
            files = []
            for number in range(start, min(start + LIMIT, COUNT)):
                files.append(cmsgx.Fd(os.memfd_create("number")))
                os.write(files[-1].fileno(), str(number).encode())
            cmsgx.send(ours, b"numbers", fds=files)
            # We still own what we sent; sending only borrows.
            for file in files:
                file.close()
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
