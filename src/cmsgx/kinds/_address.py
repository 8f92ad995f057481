"""IP addresses in control messages."""

from __future__ import annotations

import socket as _socket
from typing import TYPE_CHECKING, Any, NoReturn

from .. import _cmsg
from .._arguments import needed

if TYPE_CHECKING:
    import ipaddress
    from typing import Self, TypeAlias

    from .._arguments import Buffer

    IPAddressLike: TypeAlias = (
        "IPAddress | ipaddress.IPv4Address | ipaddress.IPv6Address | str | Buffer"
    )

    class IPMember:
        """The type of a field that returns an IPAddress and accepts an IPAddressLike."""

        def __get__(self, record: Any, kind: Any = None, /) -> IPAddress: ...
        def __set__(self, record: Any, value: IPAddressLike, /) -> None: ...

    class AddressMember:
        """The type of a field that returns a socket address as `Message.address` does."""

        def __get__(self, record: Any, kind: Any = None, /) -> _cmsg.AddressTuple: ...
        def __set__(self, record: Any, value: _cmsg.Address | tuple[Any, ...], /) -> None: ...


__all__ = ["IPAddress"]


class IPAddress(_cmsg.IP):
    """An IPv4 or IPv6 address: 4 or 16 bytes, converted to text only on demand.

    Made from text, from the bytes, or from an address of `ipaddress`. An address with a scope
    (fe80::1%eth0) is a ValueError, because control messages have the interface in another field.
    str() is the text, `packed` the bytes in network order, and `ip` the object of `ipaddress`. It
    equals that object and has the same hash, so that either finds the other in a set or a dict.
    format() accepts what `ipaddress` accepts (`b`, `n`, `x`, `X`), and otherwise formats the text,
    also for `>40` without an `s`. It cannot be subclassed.
    """

    __slots__ = ()

    packed: bytes

    def __init_subclass__(cls) -> NoReturn:
        # Decoding would never make one, and it would equal no IPAddress.
        raise TypeError(f"{cls.__name__}: IPAddress cannot be subclassed; hold one in an attribute")

    def __new__(cls, value: IPAddressLike, /) -> Self:
        packed: Any = getattr(value, "packed", value)
        if isinstance(packed, str):
            family = _socket.AF_INET6 if ":" in packed else _socket.AF_INET
            try:
                packed = _socket.inet_pton(family, packed)
            except OSError:
                raise ValueError(f"{value!r} is not an IP address") from None
        elif scope := getattr(value, "scope_id", None):
            raise ValueError(
                f"{value!r}: control messages do not hold the scope in the address; give the "
                f"address without the scope {scope!r}, and that as the interface"
            )
        try:
            size = memoryview(packed).nbytes
        except TypeError:
            what = "a str, 4 or 16 bytes, or an address of ipaddress,"
            raise needed("IPAddress()", what, value) from None
        if size not in (4, 16):
            raise ValueError(f"{value!r}; an address has 4 or 16 bytes")
        return super().__new__(cls, packed)

    @property
    def version(self) -> int:
        """4 or 6."""
        return 4 if len(self.packed) == 4 else 6

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The same address as an object of the module `ipaddress`."""
        import ipaddress

        packed = self.packed
        make = ipaddress.IPv4Address if len(packed) == 4 else ipaddress.IPv6Address
        return make(packed)

    @property
    def is_unspecified(self) -> bool:
        """Whether all its bits are zero."""
        return not any(self.packed)

    def __str__(self) -> str:
        packed = self.packed
        family = _socket.AF_INET if len(packed) == 4 else _socket.AF_INET6
        return _socket.inet_ntop(family, packed)

    def __format__(self, spec: str, /) -> str:
        number = spec[-1:] in ("b", "n", "x", "X")
        return format(self.ip if number else str(self), spec)

    def __repr__(self) -> str:
        return f"IPAddress('{self}')"


_packed = _cmsg.Field("packed", 0, "t", doc="The 4 or 16 bytes, in network order.")
type.__setattr__(IPAddress, "packed", _packed)
type.__setattr__(IPAddress, "_codec", _cmsg.Codec(IPAddress, (), 4, 16, (_packed,), True))
