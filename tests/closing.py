"""Helpers of the tests of the background closer."""

from __future__ import annotations

# If something waits for ever, each child ends by itself and prints the stacks of its threads.
ALARM = """
import faulthandler, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)     # fork of a process with threads
faulthandler.dump_traceback_later(240, exit=True)
import cmsgx, support
from cmsgx import _cmsg
"""

# Its close(2) blocks until release().
STALLED = """
stalled = support.stalled_socket(240)
number, release = stalled.__enter__()
"""
