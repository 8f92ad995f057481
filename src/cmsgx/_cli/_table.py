"""Plain-text tables."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest

__all__ = ["table"]

_GAP = "  "


def table(header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    """The lines of a table. `widths` are the maximum column widths: longer cells are wrapped."""
    lines = [header, *rows]
    shown = [
        min(limit, max(len(row[column]) for row in lines)) for column, limit in enumerate(widths)
    ]
    out = [
        _GAP.join(cell.ljust(width) for cell, width in zip(line, shown, strict=True)).rstrip()
        for row in lines
        for line in _wrapped(row, shown)
    ]
    out.insert(1, _GAP.join("-" * width for width in shown))
    return out


def _wrapped(row: Sequence[str], widths: Sequence[int]) -> list[tuple[str, ...]]:
    cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
    return list(zip_longest(*cells, fillvalue=""))
