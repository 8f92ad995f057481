"""The mapping of an empty file, which mmap(2) does not make."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn, Self, SupportsIndex


class EmptyMapping(bytes):
    """What Fd.map() returns if there is nothing to map: mmap(2) cannot map 0 bytes.

    Read-only. It has the methods by which an mmap.mmap is read, and is a context manager too. Once
    closed, those raise ValueError, as in an mmap.mmap; but a memoryview of it can still be made,
    and find() and the other methods of bytes still answer as for b"".
    """

    _is_closed: bool = False

    def __new__(cls) -> Self:
        return super().__new__(cls)

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._is_closed

    def _need_open(self) -> None:
        if self._is_closed:
            raise ValueError("mmap closed or invalid")  # the words of mmap.mmap

    def close(self) -> None:
        """From now on the methods raise ValueError, as those of a closed mmap.mmap do."""
        self._is_closed = True

    def size(self) -> int:
        """The length of the file: 0."""
        self._need_open()
        return 0

    def read(self, n: int | None = None, /) -> bytes:
        """The next `n` bytes: b""."""
        self._need_open()
        return b""

    def readline(self) -> bytes:
        """The next line: b""."""
        self._need_open()
        return b""

    def read_byte(self) -> int:
        """ValueError: there is no byte."""
        self._need_open()
        raise ValueError("read byte out of range")

    def seekable(self) -> bool:
        """True, as for an mmap.mmap."""
        return True

    def tell(self) -> int:
        """The position: 0."""
        self._need_open()
        return 0

    def seek(self, pos: int, whence: int = os.SEEK_SET, /) -> None:
        """Moves the position, which can only be 0; ValueError for any other."""
        self._need_open()
        if pos != 0 or whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError("seek out of range")

    def flush(self, offset: int = 0, size: int = 0, /) -> None:
        """Does nothing: there is nothing to write."""
        self._need_open()

    def madvise(self, option: int, start: int = 0, length: int = 0, /) -> None:
        """Does nothing: there are no pages."""
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
