"""Pass one descriptor to another process."""

from __future__ import annotations

import os
import tempfile

import cmsgx


def child(sock: cmsgx.socket) -> None:
    with cmsgx.receive(sock, 100, fds=1) as message:
        name = message.data.decode()
        with message.take(0).open("r") as file:
            print(f"{name}: {file.read()}")


def main() -> None:
    ours, theirs = cmsgx.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        with theirs:
            child(theirs)
        return
    theirs.close()
    with ours, tempfile.TemporaryFile() as file:
        file.write(b"only the parent could open this")
        file.seek(0)
        # On a stream, at least one byte has to go with it; a name says what it is.
        cmsgx.send(ours, b"secret", fds=[file])
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
