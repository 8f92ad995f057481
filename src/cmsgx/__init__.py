"""Ancillary data for Python: everything that a socket carries beside the bytes.

Descriptors, credentials, pidfds and every other control message, with types, and without leaking a
descriptor. sendmsg(2), recvmsg(2), cmsg(3), unix(7)
"""

from __future__ import annotations

from . import _bind as _bind
from . import errors as errors
from . import kinds as kinds
from . import wire as wire
from ._batch import BatchReceiver, BatchResult, Outgoing, OutgoingLike
from ._cmsg import (
    CMSG_ALIGN,
    CMSG_LEN,
    CMSG_SPACE,
    MAX_FDS,
    Address,
    AddressTuple,
    Batch,
    Message,
    MessageFds,
    PreparedSend,
    Segments,
    View,
    receive,
    recv_fds,
    recvmsg,
    recvmsg_into,
    send,
    send_batch,
    send_fds,
    sendmsg,
    try_send,
)
from ._drop_in import fromfd, install, socket, socketpair, uninstall
from ._errqueue import ErrorReceiver, receive_errors
from ._fds import Fd, FileDescriptorLike, FileDescriptors, close_in_background, wait_closed
from ._mapping import EmptyMapping
from ._memfd import share
from ._names import Dir, publish
from ._options import Enabled, enable
from ._peer import (
    PeerCredentials,
    accept_rights,
    peer_credentials,
    peer_groups,
    peer_pidfd,
    peer_security,
)
from ._segments import segment_support, send_segments
from ._sync import Receiver, send_all
from ._version import __version__
from ._zerocopy import Pending, ZeroCopySender
from .errors import (
    BrokenError,
    ClosedError,
    CmsgError,
    ControlTruncatedError,
    DataTruncatedError,
    FdLimitError,
    LimitError,
    MalformedControlError,
    NotSupportedError,
    TooManyFdsError,
)
from .kinds import Credentials, PidFd, Rights, SecurityLabel, Unknown, decode

__all__ = [
    "CMSG_ALIGN",
    "CMSG_LEN",
    "CMSG_SPACE",
    "MAX_FDS",
    "Address",
    "AddressTuple",
    "Batch",
    "BatchReceiver",
    "BatchResult",
    "BrokenError",
    "ClosedError",
    "CmsgError",
    "ControlTruncatedError",
    "Credentials",
    "DataTruncatedError",
    "EmptyMapping",
    "Enabled",
    "ErrorReceiver",
    "Fd",
    "FdLimitError",
    "FileDescriptorLike",
    "FileDescriptors",
    "LimitError",
    "MalformedControlError",
    "Message",
    "MessageFds",
    "NotSupportedError",
    "Outgoing",
    "OutgoingLike",
    "PeerCredentials",
    "Pending",
    "PidFd",
    "PreparedSend",
    "Receiver",
    "Rights",
    "SecurityLabel",
    "Segments",
    "TooManyFdsError",
    "Unknown",
    "View",
    "ZeroCopySender",
    "__version__",
    "accept_rights",
    "close_in_background",
    "decode",
    "enable",
    "fromfd",
    "install",
    "peer_credentials",
    "peer_groups",
    "peer_pidfd",
    "peer_security",
    "receive",
    "receive_errors",
    "recv_fds",
    "recvmsg",
    "recvmsg_into",
    "segment_support",
    "send",
    "send_all",
    "send_batch",
    "send_fds",
    "send_segments",
    "sendmsg",
    "share",
    "socket",
    "socketpair",
    "try_send",
    "uninstall",
    "wait_closed",
]

__dir__: Dir = publish(globals(), "cmsgx._")
