"""The types of the C half; its docstrings say what each object does."""

import socket as _socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from io import FileIO
from ipaddress import IPv4Address, IPv6Address
from threading import Lock
from types import EllipsisType
from typing import (
    Any,
    ClassVar,
    Concatenate,
    Final,
    Generic,
    Literal,
    ParamSpec,
    Self,
    SupportsIndex,
    TypeAlias,
    TypeVar,
    final,
    overload,
)

from _typeshed import ReadableBuffer, WriteableBuffer
from typing_extensions import Buffer, disjoint_base

from ._batch import BatchResult, OutgoingLike
from ._fds import Fd, FileDescriptorLike, FileDescriptors
from .kinds._base import ControlMessage
from .kinds._pidfd import PidFd

_P = ParamSpec("_P")
_R = TypeVar("_R")
_S = TypeVar("_S")
_T = TypeVar("_T")
_D = TypeVar("_D", bound=FdBase)
_Fd = TypeVar("_Fd", bound=Fd)
_PidFd = TypeVar("_PidFd", bound=PidFd)
_K = TypeVar("_K", bound=ControlMessage | PidFd)

# The types of the socket module, plus what only cmsgx accepts.
_Received: TypeAlias = tuple[int, int, bytes]
_Raw: TypeAlias = tuple[int, int, ReadableBuffer]
_Control: TypeAlias = ControlMessage | _Raw
_Address: TypeAlias = tuple[Any, ...] | str | ReadableBuffer | Address
_Timeout: TypeAlias = float | EllipsisType | None

# The drop-in functions -----------------------------------------------------------------------

def sendmsg(
    sock: FileDescriptorLike,
    buffers: Iterable[ReadableBuffer],
    ancdata: Iterable[_Control] = (),
    flags: int = 0,
    address: _Address | None = None,
    /,
) -> int: ...
def recvmsg(
    sock: FileDescriptorLike, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
) -> tuple[bytes, list[_Received], int, Any]: ...
def recvmsg_into(
    sock: FileDescriptorLike,
    buffers: Iterable[WriteableBuffer],
    ancbufsize: int = 0,
    flags: int = 0,
    /,
) -> tuple[int, list[_Received], int, Any]: ...
def recvmsg_inheritable(
    sock: FileDescriptorLike, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
) -> tuple[bytes, list[_Received], int, Any]: ...
def recvmsg_into_inheritable(
    sock: FileDescriptorLike,
    buffers: Iterable[WriteableBuffer],
    ancbufsize: int = 0,
    flags: int = 0,
    /,
) -> tuple[int, list[_Received], int, Any]: ...
def send_fds(
    sock: FileDescriptorLike,
    buffers: Iterable[ReadableBuffer],
    fds: FileDescriptors,
    flags: int = 0,
    address: _Address | None = None,
) -> int: ...
def recv_fds(
    sock: FileDescriptorLike,
    bufsize: int,
    maxfds: int,
    flags: int = 0,
    *,
    cloexec: bool = True,
) -> tuple[bytes, list[int], int, Any]: ...
def CMSG_ALIGN(length: int, /) -> int: ...
def CMSG_LEN(length: int, /) -> int: ...
def CMSG_SPACE(length: int, /) -> int: ...

# Typed calls ---------------------------------------------------------------------------------

def send(
    sock: FileDescriptorLike,
    data: ReadableBuffer | Iterable[ReadableBuffer],
    *,
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[_Control] = (),
    flags: int = 0,
    address: _Address | None = None,
    timeout: _Timeout = ...,
) -> int: ...
def try_send(
    sock: FileDescriptorLike,
    data: ReadableBuffer | Iterable[ReadableBuffer],
    *,
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[_Control] = (),
    address: _Address | None = None,
) -> int | None: ...
def send_or_prepare(
    sock: FileDescriptorLike,
    data: ReadableBuffer | Iterable[ReadableBuffer],
    *,
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[_Control] = (),
    flags: int = 0,
    address: _Address | None = None,
) -> int | PreparedSend: ...

@final
class PreparedSend:
    def __new__(
        cls,
        sock: FileDescriptorLike,
        data: ReadableBuffer | Iterable[ReadableBuffer],
        *,
        fds: FileDescriptors = (),
        control: ControlMessage | Iterable[_Control] = (),
        flags: int = 0,
        address: _Address | None = None,
    ) -> Self: ...
    @property
    def sent(self) -> int: ...
    @property
    def is_done(self) -> bool: ...
    def try_send(self) -> int | None: ...
    def _send(self, timeout: _Timeout, /) -> OSError | None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *exc_info: object) -> None: ...

@overload
def send_batch(
    sock: FileDescriptorLike,
    messages: Iterable[OutgoingLike],
    *,
    flags: int = 0,
    timeout: _Timeout = ...,
    on_error: Literal["raise"] = "raise",
) -> int: ...
@overload
def send_batch(
    sock: FileDescriptorLike,
    messages: Iterable[OutgoingLike],
    *,
    flags: int = 0,
    timeout: _Timeout = ...,
    on_error: Literal["skip"],
) -> BatchResult: ...
def receive(
    sock: FileDescriptorLike,
    bufsize: int,
    *,
    fds: int = 0,
    flags: int = 0,
    timeout: _Timeout = ...,
    on_truncation: Literal["raise", "keep"] = "raise",
    close: Literal["now", "background"] = "now",
) -> Message: ...

@final
class Message:
    @property
    def data(self) -> bytes: ...
    @property
    def view(self) -> View | bytes: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def segments(self) -> Segments: ...
    @property
    def fds(self) -> MessageFds: ...
    @property
    def control(self) -> tuple[ControlMessage | PidFd, ...]: ...
    @property
    def flags(self) -> int: ...
    @property
    def address(self) -> Any: ...
    @property
    def sender(self) -> Address | None: ...
    @property
    def truncated(self) -> bool: ...
    @property
    def eof(self) -> bool | None: ...
    @property
    def closed_fds(self) -> int | None: ...
    @property
    def closed(self) -> bool: ...
    def __getitem__(self, kind: type[_K], /) -> _K: ...
    def __contains__(self, kind: type[ControlMessage | PidFd], /) -> bool: ...
    def __iter__(self) -> Iterator[ControlMessage | PidFd]: ...
    @overload
    def get(self, kind: type[_K], default: None = None, /) -> _K | None: ...
    @overload
    def get(self, kind: type[_K], default: _T, /) -> _K | _T: ...
    def get_all(self, kind: type[_K], /) -> tuple[_K, ...]: ...
    @overload
    def take(self, which: type[PidFd], /, *, fd_class: None = None) -> PidFd: ...
    @overload
    def take(self, which: type[PidFd], /, *, fd_class: type[_PidFd]) -> _PidFd: ...
    @overload
    def take(self, which: SupportsIndex, /, *, fd_class: None = None) -> Fd: ...
    @overload
    def take(self, which: SupportsIndex, /, *, fd_class: type[_Fd]) -> _Fd: ...
    @overload
    def take_one(self, *, fd_class: None = None) -> Fd: ...
    @overload
    def take_one(self, *, fd_class: type[_Fd]) -> _Fd: ...
    @overload
    def take_all(self, *, fd_class: None = None) -> list[Fd]: ...
    @overload
    def take_all(self, *, fd_class: type[_Fd]) -> list[_Fd]: ...
    def detach_all(self) -> list[int]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@final
class MessageFds(Sequence[Fd]):
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Fd: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[Fd, ...]: ...
    def __iter__(self) -> Iterator[Fd]: ...
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]
    def index(
        self, value: object, start: SupportsIndex = 0, stop: SupportsIndex = ..., /
    ) -> int: ...
    def count(self, value: object, /) -> int: ...

@final
class View(Buffer):
    def __buffer__(self, flags: int, /) -> memoryview: ...
    @property
    def nbytes(self) -> int: ...
    def tobytes(self) -> bytes: ...
    def __bytes__(self) -> bytes: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice, /) -> View | memoryview: ...
    def __iter__(self) -> Iterator[int]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

class Address:
    def __new__(cls, family: int, value: _Address | int, /, *, proto: int = -1) -> Self: ...
    @property
    def value(self) -> Any: ...
    @property
    def family(self) -> int: ...
    @property
    def ip(self) -> IPv4Address | IPv6Address | None: ...
    @property
    def packed(self) -> bytes: ...
    @classmethod
    def _restore(cls, packed: ReadableBuffer, proto: int, /) -> RawAddress: ...

@final
class RawAddress(Address):
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: object, /) -> Self: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class AddressTuple(tuple[Any, ...], Address):
    def __new__(cls, iterable: Iterable[Any] = (), /) -> tuple[Any, ...]: ...  # type: ignore[misc]

@final
class Options:
    def __new__(
        cls,
        setting: tuple[tuple[object, int, int, bytes, bytes, bytes, bool], ...],
        watched: tuple[tuple[object, int, int, bytes, bytes, bytes, bool], ...],
        /,
    ) -> Self: ...
    @property
    def configs(self) -> dict[bytes, ReceiveConfig]: ...
    @classmethod
    def key(cls, sock: FileDescriptorLike, /) -> int: ...
    @classmethod
    def configuration(
        cls,
        sock: FileDescriptorLike,
        plans: dict[int, Options],
        noted: list[tuple[Any, bytes, bytes]],
        start: int,
        /,
    ) -> ReceiveConfig | int | tuple[int, OSError] | bytes: ...
    def set(
        self, sock: FileDescriptorLike, noted: list[tuple[Any, bytes, bytes]], start: int, /
    ) -> tuple[int, OSError] | None: ...
    def states(self, sock: FileDescriptorLike, /) -> bytes: ...

@final
class ReceiveConfig:
    def __new__(
        cls,
        *,
        fds: int,
        control_size: int,
        want: tuple[type[ControlMessage | PidFd], ...],
        family: int = -1,
        type: int = -1,
        takes_pidfd: bool = False,
        raise_truncated: bool = True,
        in_background: bool = False,
        flags: int = 0,
    ) -> Self: ...
    @property
    def fds(self) -> int: ...
    @property
    def control_size(self) -> int: ...
    @property
    def want(self) -> tuple[type[ControlMessage | PidFd], ...]: ...
    @property
    def family(self) -> int: ...
    @property
    def type(self) -> int: ...
    @property
    def takes_pidfd(self) -> bool: ...
    @property
    def raise_truncated(self) -> bool: ...
    @property
    def in_background(self) -> bool: ...
    @property
    def flags(self) -> int: ...

@disjoint_base
class Receiver:
    def __init__(
        self,
        sock: FileDescriptorLike,
        bufsize: int,
        into: WriteableBuffer | Iterable[WriteableBuffer] | None,
    ) -> None: ...
    @property
    def sock(self) -> FileDescriptorLike: ...
    def receive(
        self, *, bufsize: int | None = None, flags: int = 0, timeout: _Timeout = ...
    ) -> Message: ...
    def try_receive(self, *, bufsize: int | None = None, flags: int = 0) -> Message | None: ...
    def is_end(self, message: Message) -> bool: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Message: ...
    def _configure(self, config: ReceiveConfig, /) -> None: ...
    def _open(
        self,
        sock: Any,
        bufsize: Any,
        into: Any,
        known: Any,
        want: Any,
        fds: Any,
        on_truncation: Any,
        close: Any,
        /,
    ) -> ReceiveConfig | int | tuple[int, OSError] | bytes | None: ...
    _asked: Any
    @property
    def _opened(self) -> bool: ...
    @property
    def _before(self) -> list[tuple[Any, bytes, bytes]]: ...
    @property
    def _generation(self) -> int: ...

@final
class Segments:
    @property
    def size(self) -> int: ...
    def __len__(self) -> int: ...
    def __getitem__(self, key: SupportsIndex, /) -> View: ...
    def __iter__(self) -> Iterator[View]: ...

@final
class SegmentIterator:
    def __iter__(self) -> Self: ...
    def __next__(self) -> View: ...

@final
class Batch:
    @property
    def closed(self) -> bool: ...
    def __len__(self) -> int: ...
    @overload
    def __getitem__(self, key: SupportsIndex, /) -> Message: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[Message, ...]: ...
    def __iter__(self) -> Iterator[Message]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

@disjoint_base
class BatchReceiver:
    def __init__(self, sock: FileDescriptorLike, count: int, bufsize: int) -> None: ...
    @property
    def sock(self) -> FileDescriptorLike: ...
    @property
    def count(self) -> int: ...
    def receive(self, *, flags: int = 0, timeout: _Timeout = ...) -> Batch: ...
    def try_receive(self, *, flags: int = 0) -> Batch | None: ...
    def is_end(self, batch: Batch) -> bool: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> Batch: ...
    def _configure(self, config: ReceiveConfig, /) -> None: ...
    def _open(
        self,
        sock: Any,
        count: Any,
        bufsize: Any,
        known: Any,
        want: Any,
        fds: Any,
        on_truncation: Any,
        close: Any,
        /,
    ) -> ReceiveConfig | int | tuple[int, OSError] | bytes | None: ...
    _asked: Any
    @property
    def _opened(self) -> bool: ...
    @property
    def _before(self) -> list[tuple[Any, bytes, bytes]]: ...
    @property
    def _generation(self) -> int: ...

# Base classes of the Python layer -------------------------------------------------------------

@final
class Pin:
    def __enter__(self) -> int: ...
    def __exit__(self, *args: object) -> None: ...

@disjoint_base
class FdBase:
    def __new__(cls, number: int) -> Self: ...
    @property
    def closed(self) -> bool: ...
    @property
    def _error(self) -> int: ...
    def fileno(self) -> int: ...
    def close(self, *, now: bool = False) -> None: ...
    def detach(self) -> int: ...
    def dup(self) -> Self: ...
    @classmethod
    def _own_all(cls, numbers: tuple[int, ...], tickets: list[bool], /) -> tuple[Self, ...]: ...
    @classmethod
    def _move_each(cls, fds: tuple[FdBase, ...], /) -> list[Self]: ...
    @classmethod
    def _detach_each(cls, fds: tuple[FdBase, ...], /) -> list[int]: ...
    def _pinned(self) -> Pin: ...
    def _detach_to_socket(self) -> int: ...
    def _give_to_file(self, raw: FileIO, mode: str, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(self, *args: object) -> None: ...

class Record:
    _codec: ClassVar[Codec]
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __copy__(self) -> Self: ...
    def __deepcopy__(self, memo: object, /) -> Self: ...
    def __setattr__(self, name: str, value: Any, /) -> None: ...
    def __delattr__(self, name: str, /) -> None: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@disjoint_base
class Struct(Record):
    @property
    def _attached_state(self) -> int: ...
    def pack(self) -> bytes: ...
    @classmethod
    def unpack(cls, data: ReadableBuffer, /) -> Self: ...
    @classmethod
    def _unpack_as(cls, level: int, type: int, data: ReadableBuffer, /) -> Self: ...
    @classmethod
    def _restore(cls, payload: ReadableBuffer, attached_state: int, /) -> Self: ...

class IP(Struct): ...

@final
class Field:
    __name__: str
    def __new__(
        cls,
        name: str,
        offset: int,
        format: str,
        size: int = 0,
        default: Any = ...,
        convert: Callable[[Any], Any] | None = None,
        bounds: tuple[int, int] | None = None,
        doc: str | None = None,
    ) -> Self: ...
    @property
    def bounds(self) -> tuple[int, int] | None: ...
    @property
    def offset(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def format(self) -> str: ...
    @property
    def default(self) -> Any: ...
    def __get__(self, object: Any, type: Any = None, /) -> Any: ...

@final
class Codec:
    def __new__(
        cls,
        kind: type[Record],
        formats: tuple[tuple[int, ...], ...],
        min_size: int,
        max_size: int,
        fields: tuple[Field, ...],
        is_lasting: bool = False,
    ) -> Self: ...
    @property
    def kind(self) -> type[Record]: ...
    @property
    def min_size(self) -> int: ...
    @property
    def max_size(self) -> int: ...
    @property
    def fields(self) -> tuple[str, ...]: ...

@final
class method(Generic[_S, _P, _R]):
    def __new__(cls, function: Callable[Concatenate[_S, _P], _R], /) -> Self: ...
    @property
    def __name__(self) -> str: ...
    @property
    def __qualname__(self) -> str: ...
    @property
    def __wrapped__(self) -> Callable[Concatenate[_S, _P], _R]: ...
    @property
    def calls(self) -> int: ...
    def __call__(self, sock: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R: ...
    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Callable[_P, _R]: ...

# Private functions ---------------------------------------------------------------------------

def send_tracked(
    progress: list[int],
    sock: FileDescriptorLike,
    data: ReadableBuffer | Iterable[ReadableBuffer],
    /,
    *,
    fds: FileDescriptors = (),
    control: ControlMessage | Iterable[_Control] = (),
    flags: int = 0,
    address: _Address | None = None,
    timeout: _Timeout = ...,
) -> OSError | None: ...
def send_batch_tracked(
    progress: list[int],
    sock: FileDescriptorLike,
    messages: Iterable[OutgoingLike],
    /,
    *,
    flags: int = 0,
    timeout: _Timeout = ...,
) -> OSError | None: ...
def try_send_batch(
    progress: list[int],
    sock: FileDescriptorLike,
    messages: Iterable[OutgoingLike],
    /,
    *,
    flags: int = 0,
) -> OSError | bool: ...
def build(control: ControlMessage | Iterable[_Control], /) -> bytes: ...
def read_header(
    buffer: ReadableBuffer, offset: int, /
) -> tuple[int, int, int, int, int, int, bool] | None: ...
def getsockopt(sock: FileDescriptorLike, level: int, name: int, size: int, /) -> bytes: ...
def setsockopt(
    sock: FileDescriptorLike, level: int, name: int, value: ReadableBuffer, /
) -> None: ...
def getsockopt_pidfd(sock: FileDescriptorLike, level: int, name: int, /) -> PidFd: ...
def memfd_create(name: str, flags: int, /) -> Fd: ...
def close_each(numbers: ReadableBuffer, /) -> None: ...
def own_result(type: type[_D], function: Callable[[], _R], /) -> tuple[_D, _R]: ...
def getfamily(sock: FileDescriptorLike, /) -> int: ...
def getpeer(sock: FileDescriptorLike, /) -> bytes: ...
def closer_submit(descriptor: FdBase | _socket.socket | int, /) -> None: ...
def give_to_socket(
    fd: FdBase,
    sock: _socket.socket,
    family: int,
    type: int,
    proto: int,
    is_blocking: bool,
    /,
) -> None: ...
def closer_wait(seconds: float | None, /) -> int: ...
def closer_counts() -> tuple[int, int]: ...
def closer_resume() -> None: ...
def wait_for(
    sock: FileDescriptorLike, events: int, timeout: float | None, rounds: int, /
) -> tuple[int, int]: ...
def pidfd_pid(number: int, /) -> int | None: ...
def raw_address(name: ReadableBuffer, /) -> RawAddress | None: ...
def borrow(sock: FileDescriptorLike, /) -> Pin: ...
def generation() -> int: ...
def note_used_up(error: BaseException, /, **arguments: object) -> None: ...
def as_messages(messages: Iterable[OutgoingLike], /) -> tuple[OutgoingLike, ...]: ...
def listed_fds(fds: FileDescriptors, /) -> tuple[FileDescriptorLike, ...]: ...
def with_lock(lock: Lock, function: Callable[[], _R], /) -> _R: ...
def call_foreign(name: str, sock: Any, /, *args: Any) -> Any: ...
def check_socket(sock: FileDescriptorLike, /) -> bool: ...
def set_overflow_ids(uid: int, gid: int, /) -> None: ...
def bind(
    *,
    Fd: type[Fd],
    PidFd: type[PidFd],
    Rights: type[ControlMessage],
    Credentials: type[ControlMessage],
    Unknown: type[ControlMessage],
    IPAddress: type[IP],
    Outgoing: type[tuple[Any, ...]],
    BatchResult: type[int],
    socket_class: type[Any],
    our_socket: type[_socket.socket],
    TooManyFdsError: type[ValueError],
    MalformedControlError: type[ValueError],
    NotSupportedError: type[OSError],
    decode: Callable[[int, int, int], Any],
    raise_truncated: Callable[[Message, int, int, int, int, int], None],
    recvmsg_foreign: Callable[..., Any],
    recv_fds_through: Callable[..., Any],
    refusal: Callable[[Any, int, int, int, int, int], Exception],
    family_name: Callable[[int], str],
    note_needs: Callable[[OSError, list[tuple[int, int, bytes]], int], None],
    not_a_kind: Callable[[Any], str],
) -> None: ...

# Constants of the C headers; one that the platform lacks is absent ----------------------------

AF_ALG: Final[int]
AF_ATMPVC: Final[int]
AF_ATMSVC: Final[int]
AF_BLUETOOTH: Final[int]
AF_CAN: Final[int]
AF_IEEE802154: Final[int]
AF_INET: Final[int]
AF_INET6: Final[int]
AF_ISDN: Final[int]
AF_IUCV: Final[int]
AF_KEY: Final[int]
AF_LLC: Final[int]
AF_MCTP: Final[int]
AF_NETLINK: Final[int]
AF_NFC: Final[int]
AF_PACKET: Final[int]
AF_RDS: Final[int]
AF_RXRPC: Final[int]
AF_SMC: Final[int]
AF_TIPC: Final[int]
AF_UNIX: Final[int]
AF_UNSPEC: Final[int]
AF_VSOCK: Final[int]
AF_XDP: Final[int]
ALG_OP_DECRYPT: Final[int]
ALG_OP_ENCRYPT: Final[int]
ALG_SET_AEAD_ASSOCLEN: Final[int]
ALG_SET_AEAD_AUTHSIZE: Final[int]
ALG_SET_IV: Final[int]
ALG_SET_KEY: Final[int]
ALG_SET_OP: Final[int]
BT_PKT_SEQNUM: Final[int]
BT_PKT_STATUS: Final[int]
BT_SCM_ERROR: Final[int]
BT_SCM_PKT_SEQNUM: Final[int]
BT_SCM_PKT_STATUS: Final[int]
DCCPQ_POLICY_PRIO: Final[int]
DCCPQ_POLICY_SIMPLE: Final[int]
DCCP_SCM_PRIORITY: Final[int]
DCCP_SOCKOPT_QPOLICY_ID: Final[int]
ENOTSUPP: Final[int]
F_SEAL_EXEC: Final[int]
F_SEAL_FUTURE_WRITE: Final[int]
HCI_CMSG_DIR: Final[int]
HCI_CMSG_TSTAMP: Final[int]
HCI_DATA_DIR: Final[int]
HCI_TIME_STAMP: Final[int]
IPV6_2292DSTOPTS: Final[int]
IPV6_2292HOPLIMIT: Final[int]
IPV6_2292HOPOPTS: Final[int]
IPV6_2292PKTINFO: Final[int]
IPV6_2292RTHDR: Final[int]
IPV6_DONTFRAG: Final[int]
IPV6_DSTOPTS: Final[int]
IPV6_FLOWINFO: Final[int]
IPV6_HOPLIMIT: Final[int]
IPV6_HOPOPTS: Final[int]
IPV6_NEXTHOP: Final[int]
IPV6_ORIGDSTADDR: Final[int]
IPV6_PATHMTU: Final[int]
IPV6_PKTINFO: Final[int]
IPV6_RECVDSTOPTS: Final[int]
IPV6_RECVERR: Final[int]
IPV6_RECVERR_RFC4884: Final[int]
IPV6_RECVFRAGSIZE: Final[int]
IPV6_RECVHOPLIMIT: Final[int]
IPV6_RECVHOPOPTS: Final[int]
IPV6_RECVORIGDSTADDR: Final[int]
IPV6_RECVPATHMTU: Final[int]
IPV6_RECVPKTINFO: Final[int]
IPV6_RECVRTHDR: Final[int]
IPV6_RECVTCLASS: Final[int]
IPV6_RTHDR: Final[int]
IPV6_RTHDRDSTOPTS: Final[int]
IPV6_TCLASS: Final[int]
IP_CHECKSUM: Final[int]
IP_ORIGDSTADDR: Final[int]
IP_PASSSEC: Final[int]
IP_PKTINFO: Final[int]
IP_PROTOCOL: Final[int]
IP_RECVERR: Final[int]
IP_RECVERR_RFC4884: Final[int]
IP_RECVFRAGSIZE: Final[int]
IP_RECVOPTS: Final[int]
IP_RECVORIGDSTADDR: Final[int]
IP_RECVTOS: Final[int]
IP_RECVTTL: Final[int]
IP_RETOPTS: Final[int]
IP_TOS: Final[int]
IP_TTL: Final[int]
J1939_EE_INFO_NONE: Final[int]
J1939_EE_INFO_RX_ABORT: Final[int]
J1939_EE_INFO_RX_DPO: Final[int]
J1939_EE_INFO_RX_RTS: Final[int]
J1939_EE_INFO_TX_ABORT: Final[int]
J1939_NLA_BYTES_ACKED: Final[int]
J1939_NLA_DEST_ADDR: Final[int]
J1939_NLA_DEST_NAME: Final[int]
J1939_NLA_PAD: Final[int]
J1939_NLA_PGN: Final[int]
J1939_NLA_SRC_ADDR: Final[int]
J1939_NLA_SRC_NAME: Final[int]
J1939_NLA_TOTAL_SIZE: Final[int]
LLC_OPT_PKTINFO: Final[int]
MAX_CLOCKS: Final[int]
MFD_HUGE_SHIFT: Final[int]
MISDN_TIME_STAMP: Final[int]
MSG_CMSG_CLOEXEC: Final[int]
MSG_CTRUNC: Final[int]
MSG_ERRQUEUE: Final[int]
MSG_SOCK_DEVMEM: Final[int]
MSG_TRUNC: Final[int]
MSG_ZEROCOPY: Final[int]
NETLINK_LISTEN_ALL_NSID: Final[int]
NETLINK_PKTINFO: Final[int]
PACKET_AUXDATA: Final[int]
PACKET_TX_TIMESTAMP: Final[int]
RDS_CMSG_ATOMIC_CSWP: Final[int]
RDS_CMSG_ATOMIC_FADD: Final[int]
RDS_CMSG_CONG_UPDATE: Final[int]
RDS_CMSG_MASKED_ATOMIC_CSWP: Final[int]
RDS_CMSG_MASKED_ATOMIC_FADD: Final[int]
RDS_CMSG_RDMA_ARGS: Final[int]
RDS_CMSG_RDMA_DEST: Final[int]
RDS_CMSG_RDMA_MAP: Final[int]
RDS_CMSG_RDMA_STATUS: Final[int]
RDS_CMSG_RXPATH_LATENCY: Final[int]
RDS_CMSG_ZCOPY_COMPLETION: Final[int]
RDS_CMSG_ZCOPY_COOKIE: Final[int]
RDS_CONG_MONITOR: Final[int]
RDS_MSG_RX_DGRAM_DELIVERED: Final[int]
RDS_MSG_RX_DGRAM_REASSEMBLE: Final[int]
RDS_MSG_RX_HDR_TO_DGRAM_START: Final[int]
RDS_RDMA_CANCELED: Final[int]
RDS_RDMA_DONTWAIT: Final[int]
RDS_RDMA_DROPPED: Final[int]
RDS_RDMA_FENCE: Final[int]
RDS_RDMA_INVALIDATE: Final[int]
RDS_RDMA_NOTIFY_ME: Final[int]
RDS_RDMA_OTHER_ERROR: Final[int]
RDS_RDMA_READWRITE: Final[int]
RDS_RDMA_REMOTE_ERROR: Final[int]
RDS_RDMA_SILENT: Final[int]
RDS_RDMA_SUCCESS: Final[int]
RDS_RDMA_USE_ONCE: Final[int]
RDS_RECVERR: Final[int]
RXRPC_ABORT: Final[int]
RXRPC_ACK: Final[int]
RXRPC_BUSY: Final[int]
RXRPC_CHALLENGED: Final[int]
RXRPC_CHARGE_ACCEPT: Final[int]
RXRPC_EXCLUSIVE_CALL: Final[int]
RXRPC_LOCAL_ERROR: Final[int]
RXRPC_MANAGE_RESPONSE: Final[int]
RXRPC_NET_ERROR: Final[int]
RXRPC_NEW_CALL: Final[int]
RXRPC_OOB_ID: Final[int]
RXRPC_RESPOND: Final[int]
RXRPC_RESPONDED: Final[int]
RXRPC_RESP_RXGK_APPDATA: Final[int]
RXRPC_SET_CALL_TIMEOUT: Final[int]
RXRPC_TX_LENGTH: Final[int]
RXRPC_UPGRADE_SERVICE: Final[int]
RXRPC_USER_CALL_ID: Final[int]
SCM_CAN_RAW_ERRQUEUE: Final[int]
SCM_CREDENTIALS: Final[int]
SCM_DEVMEM_DMABUF: Final[int]
SCM_DEVMEM_LINEAR: Final[int]
SCM_INQ: Final[int]
SCM_IUCV_TRGCLS: Final[int]
SCM_J1939_DEST_ADDR: Final[int]
SCM_J1939_DEST_NAME: Final[int]
SCM_J1939_ERRQUEUE: Final[int]
SCM_J1939_PRIO: Final[int]
SCM_PIDFD: Final[int]
SCM_RIGHTS: Final[int]
SCM_SECURITY: Final[int]
SCM_TIMESTAMP: Final[int]
SCM_TIMESTAMPING: Final[int]
SCM_TIMESTAMPING_OPT_STATS: Final[int]
SCM_TIMESTAMPING_PKTINFO: Final[int]
SCM_TIMESTAMPNS: Final[int]
SCM_TSTAMP_ACK: Final[int]
SCM_TSTAMP_COMPLETION: Final[int]
SCM_TSTAMP_SCHED: Final[int]
SCM_TSTAMP_SND: Final[int]
SCM_TS_OPT_ID: Final[int]
SCM_TXTIME: Final[int]
SCM_WIFI_STATUS: Final[int]
SCTP_ABORT: Final[int]
SCTP_ADDR_OVER: Final[int]
SCTP_AUTHINFO: Final[int]
SCTP_DSTADDRV4: Final[int]
SCTP_DSTADDRV6: Final[int]
SCTP_EOF: Final[int]
SCTP_EVENTS: Final[int]
SCTP_INIT: Final[int]
SCTP_NOTIFICATION: Final[int]
SCTP_NXTINFO: Final[int]
SCTP_PRINFO: Final[int]
SCTP_PR_SCTP_ALL: Final[int]
SCTP_PR_SCTP_NONE: Final[int]
SCTP_PR_SCTP_PRIO: Final[int]
SCTP_PR_SCTP_RTX: Final[int]
SCTP_PR_SCTP_TTL: Final[int]
SCTP_RCVINFO: Final[int]
SCTP_RECVNXTINFO: Final[int]
SCTP_RECVRCVINFO: Final[int]
SCTP_SACK_IMMEDIATELY: Final[int]
SCTP_SENDALL: Final[int]
SCTP_SNDINFO: Final[int]
SCTP_SNDRCV: Final[int]
SCTP_UNORDERED: Final[int]
SOF_TIMESTAMPING_BIND_PHC: Final[int]
SOF_TIMESTAMPING_OPT_CMSG: Final[int]
SOF_TIMESTAMPING_OPT_ID: Final[int]
SOF_TIMESTAMPING_OPT_ID_TCP: Final[int]
SOF_TIMESTAMPING_OPT_PKTINFO: Final[int]
SOF_TIMESTAMPING_OPT_RX_FILTER: Final[int]
SOF_TIMESTAMPING_OPT_STATS: Final[int]
SOF_TIMESTAMPING_OPT_TSONLY: Final[int]
SOF_TIMESTAMPING_OPT_TX_SWHW: Final[int]
SOF_TIMESTAMPING_RAW_HARDWARE: Final[int]
SOF_TIMESTAMPING_RX_HARDWARE: Final[int]
SOF_TIMESTAMPING_RX_SOFTWARE: Final[int]
SOF_TIMESTAMPING_SOFTWARE: Final[int]
SOF_TIMESTAMPING_SYS_HARDWARE: Final[int]
SOF_TIMESTAMPING_TX_ACK: Final[int]
SOF_TIMESTAMPING_TX_COMPLETION: Final[int]
SOF_TIMESTAMPING_TX_HARDWARE: Final[int]
SOF_TIMESTAMPING_TX_SCHED: Final[int]
SOF_TIMESTAMPING_TX_SOFTWARE: Final[int]
SOF_TXTIME_DEADLINE_MODE: Final[int]
SOF_TXTIME_REPORT_ERRORS: Final[int]
SOL_ALG: Final[int]
SOL_BLUETOOTH: Final[int]
SOL_CAN_J1939: Final[int]
SOL_CAN_RAW: Final[int]
SOL_DCCP: Final[int]
SOL_HCI: Final[int]
SOL_IEEE802154: Final[int]
SOL_IP: Final[int]
SOL_IPV6: Final[int]
SOL_IUCV: Final[int]
SOL_LLC: Final[int]
SOL_MISDN: Final[int]
SOL_NETLINK: Final[int]
SOL_PACKET: Final[int]
SOL_RDS: Final[int]
SOL_RXRPC: Final[int]
SOL_SCTP: Final[int]
SOL_SOCKET: Final[int]
SOL_TCP: Final[int]
SOL_TIPC: Final[int]
SOL_TLS: Final[int]
SOL_UDP: Final[int]
SOL_VSOCK: Final[int]
SO_DEVMEM_DMABUF: Final[int]
SO_DEVMEM_DONTNEED: Final[int]
SO_DEVMEM_LINEAR: Final[int]
SO_DOMAIN: Final[int]
SO_EE_CODE_TXTIME_INVALID_PARAM: Final[int]
SO_EE_CODE_TXTIME_MISSED: Final[int]
SO_EE_CODE_ZEROCOPY_COPIED: Final[int]
SO_EE_ORIGIN_ICMP: Final[int]
SO_EE_ORIGIN_ICMP6: Final[int]
SO_EE_ORIGIN_LOCAL: Final[int]
SO_EE_ORIGIN_NONE: Final[int]
SO_EE_ORIGIN_TIMESTAMPING: Final[int]
SO_EE_ORIGIN_TXSTATUS: Final[int]
SO_EE_ORIGIN_TXTIME: Final[int]
SO_EE_ORIGIN_ZEROCOPY: Final[int]
SO_EE_RFC4884_FLAG_INVALID: Final[int]
SO_INQ: Final[int]
SO_J1939_ERRQUEUE: Final[int]
SO_MARK: Final[int]
SO_PASSCRED: Final[int]
SO_PASSPIDFD: Final[int]
SO_PASSRIGHTS: Final[int]
SO_PASSSEC: Final[int]
SO_PEERCRED: Final[int]
SO_PEERGROUPS: Final[int]
SO_PEERPIDFD: Final[int]
SO_PEERSEC: Final[int]
SO_PRIORITY: Final[int]
SO_RCVMARK: Final[int]
SO_RCVPRIORITY: Final[int]
SO_RDS_MSG_RXPATH_LATENCY: Final[int]
SO_RXQ_OVFL: Final[int]
SO_SELECT_ERR_QUEUE: Final[int]
SO_TIMESTAMP: Final[int]
SO_TIMESTAMPING: Final[int]
SO_TIMESTAMPING_NEW: Final[int]
SO_TIMESTAMPING_OLD: Final[int]
SO_TIMESTAMPNS: Final[int]
SO_TIMESTAMPNS_NEW: Final[int]
SO_TIMESTAMPNS_OLD: Final[int]
SO_TIMESTAMP_NEW: Final[int]
SO_TIMESTAMP_OLD: Final[int]
SO_TXTIME: Final[int]
SO_TYPE: Final[int]
SO_WIFI_STATUS: Final[int]
SO_ZEROCOPY: Final[int]
TCP_CM_INQ: Final[int]
TCP_INQ: Final[int]
TCP_NLA_BUSY: Final[int]
TCP_NLA_BYTES_NOTSENT: Final[int]
TCP_NLA_BYTES_RETRANS: Final[int]
TCP_NLA_BYTES_SENT: Final[int]
TCP_NLA_CA_STATE: Final[int]
TCP_NLA_DATA_SEGS_OUT: Final[int]
TCP_NLA_DELIVERED: Final[int]
TCP_NLA_DELIVERED_CE: Final[int]
TCP_NLA_DELIVERY_RATE: Final[int]
TCP_NLA_DELIVERY_RATE_APP_LMT: Final[int]
TCP_NLA_DSACK_DUPS: Final[int]
TCP_NLA_EDT: Final[int]
TCP_NLA_MIN_RTT: Final[int]
TCP_NLA_PACING_RATE: Final[int]
TCP_NLA_PAD: Final[int]
TCP_NLA_RECUR_RETRANS: Final[int]
TCP_NLA_REHASH: Final[int]
TCP_NLA_REORDERING: Final[int]
TCP_NLA_REORD_SEEN: Final[int]
TCP_NLA_RWND_LIMITED: Final[int]
TCP_NLA_SNDBUF_LIMITED: Final[int]
TCP_NLA_SNDQ_SIZE: Final[int]
TCP_NLA_SND_CWND: Final[int]
TCP_NLA_SND_SSTHRESH: Final[int]
TCP_NLA_SRTT: Final[int]
TCP_NLA_TIMEOUT_REHASH: Final[int]
TCP_NLA_TOTAL_RETRANS: Final[int]
TCP_NLA_TTL: Final[int]
TCP_ULP: Final[int]
TIPC_CONN_SHUTDOWN: Final[int]
TIPC_DESTNAME: Final[int]
TIPC_DEST_DROPPABLE: Final[int]
TIPC_ERRINFO: Final[int]
TIPC_ERR_NO_NAME: Final[int]
TIPC_ERR_NO_NODE: Final[int]
TIPC_ERR_NO_PORT: Final[int]
TIPC_ERR_OVERLOAD: Final[int]
TIPC_OK: Final[int]
TIPC_RETDATA: Final[int]
TLS_GET_RECORD_TYPE: Final[int]
TLS_RECORD_TYPE_ACK: Final[int]
TLS_RECORD_TYPE_ALERT: Final[int]
TLS_RECORD_TYPE_CHANGE_CIPHER_SPEC: Final[int]
TLS_RECORD_TYPE_DATA: Final[int]
TLS_RECORD_TYPE_HANDSHAKE: Final[int]
TLS_RECORD_TYPE_HEARTBEAT: Final[int]
TLS_RECORD_TYPE_TLS12_CID: Final[int]
TLS_RX: Final[int]
TLS_SET_RECORD_TYPE: Final[int]
TLS_TX: Final[int]
TP_STATUS_BLK_TMO: Final[int]
TP_STATUS_COPY: Final[int]
TP_STATUS_CSUMNOTREADY: Final[int]
TP_STATUS_CSUM_VALID: Final[int]
TP_STATUS_GSO_TCP: Final[int]
TP_STATUS_KERNEL: Final[int]
TP_STATUS_LOSING: Final[int]
TP_STATUS_TS_RAW_HARDWARE: Final[int]
TP_STATUS_TS_SOFTWARE: Final[int]
TP_STATUS_TS_SYS_HARDWARE: Final[int]
TP_STATUS_USER: Final[int]
TP_STATUS_VLAN_TPID_VALID: Final[int]
TP_STATUS_VLAN_VALID: Final[int]
UDP_GRO: Final[int]
UDP_MAX_SEGMENTS: Final[int]
UDP_SEGMENT: Final[int]
VSOCK_RECVERR: Final[int]
WPAN_WANTLQI: Final[int]
MAX_FDS: Final = 253

LAYOUTS: Final[dict[str, tuple[int, int, dict[str, tuple[int, str, int]]]]]
"""For each payload in the C headers: its minimum and maximum size in bytes, and for each member
(offset, format, size)."""
