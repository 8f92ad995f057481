"""What dir() and repr() show of a public module."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

Dir: TypeAlias = Callable[[], list[str]]


def publish(module: dict[str, Any], private: str) -> Dir:
    """Sets `__module__` of the objects in `__all__` to this module; returns its `__dir__()`.

    `module` is the globals() of the public module. Only objects whose `__module__` starts with
    `private` are changed: documentation and tracebacks then name the module that users import.
    """
    for name in module["__all__"]:
        value = module[name]
        if getattr(value, "__module__", "").startswith(private):
            value.__module__ = module["__name__"]

    def listed() -> list[str]:
        """The public names and submodules, and the names that every module has."""
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
