"""The command line. Each module here whose name has no underscore is a command of that name.

The first line of its docstring is its help. It has two functions: add_arguments(parser), and
run(arguments), which returns the exit status.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .._version import __version__

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `cmsgx` with these arguments, or those of the process; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="cmsgx", description="Ancillary data: descriptors, credentials, control messages."
    )
    parser.add_argument("--version", action="version", version=f"cmsgx {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, module in _commands():
        text = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0].replace("%", "%%"),
            description=text.replace("%", "%%"),
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        # Flush here: at exit Python could only print that it failed.
        sys.stdout.flush()
    except OSError as error:
        return _cannot_write(error)
    return status


def _cannot_write(error: OSError) -> int:
    """If the reader has gone, exits silently with the status of SIGPIPE; else prints the error."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())  # swallows what is still buffered
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    print(f"cmsgx: {error}", file=sys.stderr)
    return 1


def _commands() -> Iterator[tuple[str, Any]]:
    for _, name, _ in pkgutil.iter_modules(__path__):
        if not name.startswith("_"):
            yield name, importlib.import_module(f".{name}", __name__)
