"""Pass credentials and descriptors in one message, and check who sent a file before using it."""

from __future__ import annotations

import os
import socket

import cmsgx


def child(sock: cmsgx.socket) -> None:
    """Asks the parent to write into its pipe."""
    reader, writer = os.pipe()
    with cmsgx.Fd(reader) as source:
        with cmsgx.Fd(writer) as sink:
            cmsgx.send(sock, b"write, please", fds=[sink], control=cmsgx.Credentials())
        print(f"child read: {os.read(source.fileno(), 100).decode()}")


def main() -> None:
    ours, theirs = cmsgx.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # Before anything can be sent: the Receiver switches the credentials on.
    receiver = cmsgx.Receiver(ours, 100, fds=1, want=[cmsgx.Credentials])
    pid = os.fork()
    if pid == 0:
        ours.close()
        with theirs:
            child(theirs)
        return
    theirs.close()
    with ours, receiver.receive() as message:
        who = message[cmsgx.Credentials]
        if who.pid != pid or who.uid != os.getuid():
            raise PermissionError(f"{who} may not ask for this")
        sink = message.fds[0]
        if not sink.check(kind="pipe", access="w"):
            raise ValueError("not a pipe that can be written")
        print("parent: my child, my user", flush=True)
        os.write(sink.fileno(), b"hello from the parent")
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
