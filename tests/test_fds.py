"""cmsgx.Fd: one owner."""

from __future__ import annotations

import os

import cmsgx
import pytest
from support import open_files


def test_owns_and_closes() -> None:
    with open_files(1) as [number]:
        fd = cmsgx.Fd(os.dup(number))
        taken = fd.fileno()
        assert not fd.closed
        fd.close()
        fd.close()
        assert fd.closed
        with pytest.raises(ValueError, match="owns no descriptor"):
            fd.fileno()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(taken)
