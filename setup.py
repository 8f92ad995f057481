"""Builds cmsgx._cmsg. Everything else is declared in pyproject.toml.

Environment variables, each 0 or 1:

CMSGX_DEBUG      assertions on, every warning an error
CMSGX_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer
CMSGX_COVERAGE   gcov instrumentation
CMSGX_PORTABLE   on Linux: what stands in elsewhere for Linux's own calls, see src/c/platform.h
"""

import os
from glob import glob

from setuptools import Extension, setup


def switched_on(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion", "-Wshadow"]
link_args = []
# For the files without Python.h, which defines it in these words on each system: others would warn.
define = [("_GNU_SOURCE", "1")]
undefine = []

if switched_on("CMSGX_DEBUG"):
    compile_args += ["-O1", "-g3", "-Werror"]
    undefine += ["NDEBUG"]
if switched_on("CMSGX_SANITIZE"):
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    compile_args += ["-O1", "-g3", "-fno-omit-frame-pointer", *sanitizers]
    link_args += sanitizers
    undefine += ["NDEBUG"]
if switched_on("CMSGX_COVERAGE"):
    compile_args += ["-O0", "-g3", "--coverage"]
    link_args += ["--coverage"]
if switched_on("CMSGX_PORTABLE"):
    define += [("CMSGX_PORTABLE", "1")]

setup(
    ext_modules=[
        Extension(
            "cmsgx._cmsg",
            sources=["src/_cmsgmodule.c", *sorted(glob("src/c/*.c"))],
            depends=sorted(glob("src/c/*.h")),
            include_dirs=["src"],
            define_macros=define,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            undef_macros=undefine,
        )
    ]
)
