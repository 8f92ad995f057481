"""Gives lower layers what they need from upper ones: Python objects to C, sockets to Fd."""

from __future__ import annotations

import _socket
import socket as _stdlib

from . import _cmsg
from ._batch import BatchResult, Outgoing
from ._drop_in import adopt, library_class, recv_fds_through, recvmsg_foreign, socket
from ._fds import Fd
from ._truncation import raise_truncated
from .errors import (
    MalformedControlError,
    NotSupportedError,
    TooManyFdsError,
)
from .kinds._address import IPAddress
from .kinds._pidfd import PidFd
from .kinds._sending import family_name, note_needs, refusal
from .kinds._table import not_a_kind
from .kinds._unix import Credentials, Rights
from .kinds._unknown import Unknown, kind_of

Fd._make_socket = adopt

_cmsg.bind(
    Fd=Fd,
    PidFd=PidFd,
    Rights=Rights,
    Credentials=Credentials,
    Unknown=Unknown,
    IPAddress=IPAddress,
    Outgoing=Outgoing,
    BatchResult=BatchResult,
    socket_class=library_class(_stdlib.socket) or _socket.socket,
    our_socket=socket,
    TooManyFdsError=TooManyFdsError,
    MalformedControlError=MalformedControlError,
    NotSupportedError=NotSupportedError,
    decode=kind_of,
    raise_truncated=raise_truncated,
    recvmsg_foreign=recvmsg_foreign,
    recv_fds_through=recv_fds_through,
    refusal=refusal,
    family_name=family_name,
    note_needs=note_needs,
    not_a_kind=not_a_kind,
)
