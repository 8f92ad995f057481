"""What is measured: one `Row` for each kind of work, with the bar it must reach.

A row names its function in floor.c, says how to make its sockets, and gives for each
implementation a function that takes them (a `World`) and returns a loop: a plain function of
the number of rounds, with everything bound to locals.  Each round sends and then receives on
one thread.
"""

import socket
from collections.abc import Callable

from large_messages import large_rows
from many_messages import batch_rows, udp_world
from one_message import (
    credentials_world,
    datagram_row,
    descriptors,
    for_credentials,
    for_errors,
    plain,
    socket_errors,
    tuple_credentials,
    with_credentials,
    with_errors,
)
from receivers import receiver_rows
from tries import try_rows
from try_sends import try_send_rows
from worlds import DROPIN, FOR, SOCKET, WITH, Row, cmsgx


def all_rows(constant: Callable[[str], int]) -> list[Row]:
    """The rows in the order of the table; `constant` gives numbers of the C headers."""
    return [
        descriptors(1, {DROPIN: 1.30, WITH: 1.32, FOR: 1.24}, faster=1.30),
        descriptors(4, {DROPIN: 1.30, WITH: 1.18, FOR: 1.18}, faster=1.22),
        descriptors(64, {DROPIN: 1.25, WITH: 0.80, FOR: 0.80}),
        descriptors(253),
        Row(
            name="credentials",
            floor="credentials",
            world=credentials_world,
            runners={
                SOCKET: tuple_credentials(socket.socket),
                DROPIN: tuple_credentials(cmsgx),
                WITH: with_credentials,
                FOR: for_credentials,
            },
            at_most={WITH: 1.37, FOR: 1.27},
        ),
        plain(1024, into=False, faster=1.07),
        plain(1024, into=True, faster=1.07),
        plain(65536, into=False, faster=None),
        plain(65536, into=True, faster=None),
        plain(1024, into=False, timeout=5, faster=1.55),
        plain(1024, into=True, timeout=5, faster=1.55),
        plain(65536, into=False, timeout=5, faster=None),
        plain(65536, into=True, timeout=5, faster=None),
        datagram_row(constant),
        Row(
            name="error queue, empty",
            floor="errors",
            world=udp_world(constant),
            runners={SOCKET: socket_errors, WITH: with_errors, FOR: for_errors},
            is_there=lambda: hasattr(cmsgx, "ErrorReceiver"),
        ),
        *receiver_rows(),
        *try_rows(),
        *try_send_rows(),
        *batch_rows(constant),
        *large_rows(),
    ]
