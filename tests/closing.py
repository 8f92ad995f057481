"""What the tests of the background closer have in common."""

from __future__ import annotations

# Each child ends by itself, with the stacks of its threads, where something waits for ever.
ALARM = """
import faulthandler, os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)     # fork of a process with threads
faulthandler.dump_traceback_later(240, exit=True)
import cmsgx, support
from cmsgx import _cmsg
"""

# Its close(2) goes on until release().
STALLED = """
stalled = support.stalled_socket(240)
number, release = stalled.__enter__()
"""
