"""What is left of a send."""

from __future__ import annotations

from typing import Any

from .._arguments import as_tuple, as_view, needed

# The kernel refuses more buffers.
_IOV_MAX = 1024


def views_of(data: Any) -> list[memoryview]:
    """The bytes of one buffer, or of each buffer of an iterable, in place."""
    items: Any = data
    if type(data) is not list and type(data) is not tuple:
        try:
            view = memoryview(data)
        except TypeError:
            what = "a bytes-like object, or an iterable of them,"
            if isinstance(data, str):
                raise needed("data", what, data) from None
            items = as_tuple("data", what, data)
        else:
            return [as_view("data", view)]
    try:
        return [memoryview(item).cast("B") for item in items]
    except TypeError:
        return [as_view(f"data[{index}]", item) for index, item in enumerate(items)]


def views_after(views: list[memoryview], sent: int) -> list[memoryview]:
    """What is left once `sent` bytes are gone: as many views as one call takes."""
    rest: list[memoryview] = []
    for view in views:
        if sent >= view.nbytes:
            sent -= view.nbytes
        else:
            rest.append(view[sent:])
            sent = 0
    return rest[:_IOV_MAX]
