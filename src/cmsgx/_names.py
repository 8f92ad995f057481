"""What a public module shows of itself."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any


def publish(module: dict[str, Any], private: str) -> Callable[[], list[str]]:
    """Makes each object of `__all__` say that it is in this module; returns its `__dir__()`.

    `module` is its globals(). What says that it is in a module that begins with `private` is told
    where the documentation has it, and where a traceback should send its reader.
    """
    for name in module["__all__"]:
        value = module[name]
        if getattr(value, "__module__", "").startswith(private):
            value.__module__ = module["__name__"]

    def listed() -> list[str]:
        """The public names, the public modules among them, and what each module has."""
        modules = [
            name
            for name, value in module.items()
            if isinstance(value, ModuleType)
            and value.__name__ == f"{module['__name__']}.{name}"
            and not name.startswith("_")
        ]
        dunders = [name for name in module if name.startswith("__") and name.endswith("__")]
        return sorted({*module["__all__"], *modules, *dunders})

    return listed
