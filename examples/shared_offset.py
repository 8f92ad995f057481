"""Passing a descriptor shares the open file itself: both processes have one offset."""

from __future__ import annotations

import os
import tempfile

import cmsgx


def child(sock: cmsgx.socket) -> None:
    with cmsgx.receive(sock, 1, fds=1) as message:
        number = message.fds[0].fileno()
        print(f"child reads on: {os.read(number, 6).decode()!r}")
    sock.sendall(b"1")


def main() -> None:
    ours, theirs = cmsgx.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        with theirs:
            child(theirs)
        return
    theirs.close()
    with ours, tempfile.TemporaryFile(buffering=0) as file:
        file.write(b"first second third")
        file.seek(0)
        print(f"parent reads: {file.read(6)!r}", flush=True)
        cmsgx.send(ours, b"1", fds=[file])
        ours.recv(1)  # the child has read
        print(f"parent is at byte {file.tell()} now, and reads: {file.read()!r}")
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
