"""CPython's own multiprocessing tests, for one start method.

A module of our own, because some distributions omit test.test_multiprocessing_spawn and its like,
which contain no more than this. A spawned child must be able to import its name too: hence the
environment variable.
"""

import importlib
import os
from typing import Any

_tests: Any = importlib.import_module("test._test_multiprocessing")
_tests.install_tests_in_module_dict(globals(), os.environ["CMSGX_START_METHOD"])
