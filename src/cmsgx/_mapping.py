"""The mapping of an empty file, which mmap(2) does not make."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn, Self, SupportsIndex


class EmptyMapping(bytes):
    """What Fd.map() returns for an empty file: mmap(2) cannot map 0 bytes.

    Read-only. It has the methods by which an mmap.mmap is read, and is a context manager too. Once
    closed, those raise ValueError, as in an mmap.mmap; but a memoryview of it can still be made,
    and find() and the other methods of bytes still answer as for b"".
    """

    closed: bool = False

    def __new__(cls) -> Self:
        return super().__new__(cls)

    def _need_open(self) -> None:
        if self.closed:
            raise ValueError("mmap closed or invalid")  # the words of mmap.mmap

    def close(self) -> None:
        self.closed = True

    def size(self) -> int:
        self._need_open()
        return 0

    def read(self, n: int | None = None, /) -> bytes:
        self._need_open()
        return b""

    def readline(self) -> bytes:
        self._need_open()
        return b""

    def read_byte(self) -> int:
        self._need_open()
        raise ValueError("read byte out of range")

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._need_open()
        return 0

    def seek(self, pos: int, whence: int = os.SEEK_SET, /) -> None:
        self._need_open()
        if pos != 0 or whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError("seek out of range")

    def flush(self, offset: int = 0, size: int = 0, /) -> None:
        self._need_open()

    def madvise(self, option: int, start: int = 0, length: int = 0, /) -> None:
        self._need_open()

    def __len__(self) -> int:
        self._need_open()
        return 0

    if not TYPE_CHECKING:  # the types are those of bytes

        def __getitem__(self, key, /):
            self._need_open()
            return super().__getitem__(key)

    def __enter__(self) -> Self:
        self._need_open()
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: SupportsIndex, /) -> NoReturn:
        raise TypeError("an EmptyMapping cannot be copied or pickled, nor can an mmap.mmap")

    def __repr__(self) -> str:
        return f"<EmptyMapping{' closed' if self.closed else ''}>"

    __str__ = __repr__  # the __str__() of bytes warns with -b
