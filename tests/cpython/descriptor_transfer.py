"""CPython's own multiprocessing tests, for one start method.

A module of our own, because some distributions leave out test.test_multiprocessing_spawn and its
like, which are no more than this.  Its name must be importable in a spawned child too: hence the
environment variable.
"""

import importlib
import os
from typing import Any

_tests: Any = importlib.import_module("test._test_multiprocessing")
_tests.install_tests_in_module_dict(globals(), os.environ["CMSGX_START_METHOD"])
