"""The kernel's ciphers: Documentation/crypto/userspace-if.rst"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from .._arguments import Buffer, as_view
from ..errors import MalformedControlError
from ._base import StructMessage, member
from ._mixins import ShownAsMade
from ._register import register
from ._row import OpenEnum, constant, families

if TYPE_CHECKING:
    from typing import Self

__all__ = ["AlgAssociatedLength", "AlgDirection", "AlgIv", "AlgOperation"]

_ALG = families("AF_ALG")


class AlgDirection(OpenEnum):
    """ALG_OP_*: the direction of a cipher. linux/if_alg.h"""

    DECRYPT = constant("ALG_OP_DECRYPT")
    ENCRYPT = constant("ALG_OP_ENCRYPT")


@register(
    level="SOL_ALG",
    type="ALG_SET_OP",
    layout="u32",
    direction="send",
    families=_ALG,
    since="2.6.38",
    needs="one of AlgDirection, on a socket of an skcipher or aead",
)
class AlgOperation(StructMessage):
    """Whether the data is to be encrypted or decrypted: ALG_SET_OP. Linux 2.6.38.

    Sent with the first part of the data, for skcipher and aead.
    """

    __slots__ = ()

    operation: AlgDirection = member(convert=AlgDirection, doc="Whether to encrypt or decrypt.")


@register(
    level="SOL_ALG",
    type="ALG_SET_IV",
    layout="af_alg_iv",
    direction="send",
    families=_ALG,
    since="2.6.38",
    needs="as many bytes as the cipher's vector has",
)
class AlgIv(ShownAsMade, StructMessage):
    """The initialisation vector, struct af_alg_iv: ALG_SET_IV. Linux 2.6.38.

    AlgIv(iv): EINVAL unless its length is the one that the cipher needs.
    """

    __slots__ = ()

    _SHOWN = ("iv",)

    _length: ClassVar[Any] = member("ivlen", doc="Length of the initialization vector in bytes.")
    iv: bytes = member(
        "iv", doc="The initialization vector; its length has to be that of the cipher."
    )

    if TYPE_CHECKING:

        def __init__(self, iv: Buffer) -> None: ...

    def __new__(cls, iv: Buffer) -> Self:
        return super().__new__(cls, as_view("iv", iv).nbytes, iv)

    @classmethod
    def unpack(cls, data: Buffer, /) -> Self:
        """Makes an object from a payload, a bytes-like object without the header.

        MalformedControlError if its length does not match the layout, or that of the vector.
        """
        made = super().unpack(data)
        if len(made.iv) != made._length:
            cut = " (truncated)" if len(made.iv) < made._length else ""
            raise MalformedControlError(
                f"{cls.__name__}: a vector of {made._length} bytes, but {len(made.iv)} came{cut}"
            )
        return made

    @classmethod
    def _unpack_as(cls, level: int, type: int, data: Buffer, /) -> Self:
        return cls.unpack(data)


@register(
    level="SOL_ALG",
    type="ALG_SET_AEAD_ASSOCLEN",
    layout="u32",
    direction="send",
    families=_ALG,
    since="4.1",
    needs="a socket of an aead, and no more bytes than there are",
)
class AlgAssociatedLength(StructMessage):
    """How much of the data is only authenticated: ALG_SET_AEAD_ASSOCLEN. Linux 4.1.

    In bytes, from the start of the data; for aead.
    """

    __slots__ = ()

    length: int = member(doc="Bytes at the start of the data that are only authenticated.")
