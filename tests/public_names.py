"""The public names, and the object of each."""

from __future__ import annotations

import inspect
import sys

import cmsgx
import cmsgx.errors
import cmsgx.kinds
import cmsgx.wire

MODULES = ("cmsgx", "cmsgx.errors", "cmsgx.kinds", "cmsgx.wire")
PUBLIC = {
    f"{module}.{name}": getattr(sys.modules[module], name)
    for module in MODULES
    for name in sys.modules[module].__all__
}

CALLABLES = {name: value for name, value in PUBLIC.items() if callable(value)}
CLASSES = {name: value for name, value in PUBLIC.items() if inspect.isclass(value)}


def of_a_family() -> set[str]:
    """The names in the families of kinds, which docs/kinds.md documents: see tools/kinds."""
    return {
        f"cmsgx.kinds.{name}"
        for module in vars(cmsgx.kinds).values()
        if getattr(module, "__name__", "").startswith("cmsgx.kinds._")
        and module.__name__ not in ("cmsgx.kinds._address", "cmsgx.kinds._base")
        for name in getattr(module, "__all__", ())
    }
