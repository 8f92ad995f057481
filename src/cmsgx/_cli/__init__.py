"""The command line. Each module here without an underscore is one command, of the module's name.

It has a docstring, whose first line is the help, and two functions: add_arguments(parser), and
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
    """Runs `cmsgx` with these arguments, by default those of the process; the exit status."""
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
        # Here: at exit Python could only complain.
        sys.stdout.flush()
    except OSError as error:
        return _cannot_write(error)
    return status


def _cannot_write(error: OSError) -> int:
    """As any tool: silent, with the status of SIGPIPE, where nobody reads on; else it says why."""
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())  # for what is still buffered
    if isinstance(error, BrokenPipeError):
        return 128 + signal.SIGPIPE
    print(f"cmsgx: {error}", file=sys.stderr)
    return 1


def _commands() -> Iterator[tuple[str, Any]]:
    for _, name, _ in pkgutil.iter_modules(__path__):
        if not name.startswith("_"):
            yield name, importlib.import_module(f".{name}", __name__)
