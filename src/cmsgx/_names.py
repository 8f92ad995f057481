"""What dir(), repr() and help() show of public modules and classes."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias, TypeVar

Dir: TypeAlias = Callable[[], list[str]]
_C = TypeVar("_C", bound=type)


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


def describe(**docs: str) -> Callable[[_C], _C]:
    """A class decorator: what help() says about fields, of a NamedTuple or a dataclass with slots.

    For slots inspect.getdoc() looks in `__slots__`, and @dataclass cannot be given a dict for that.
    """

    def described(cls: _C) -> _C:
        slots: tuple[str, ...] = vars(cls)["__slots__"]
        if slots:
            type.__setattr__(cls, "__slots__", {name: docs.get(name) for name in slots})
        else:
            for name, doc in docs.items():
                vars(cls)[name].__doc__ = doc
        return cls

    return described
