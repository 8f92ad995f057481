"""Builds cmsgx._cmsg. Everything else is declared in pyproject.toml.

Environment variables, each 0 or 1:

CMSGX_DEBUG      assertions on, every warning an error
CMSGX_SANITIZE   AddressSanitizer and UndefinedBehaviorSanitizer
CMSGX_COVERAGE   gcov instrumentation
CMSGX_PORTABLE   on Linux: what other systems have for Linux's own calls, see src/c/plain/platform.h

With SOURCE_DATE_EPOCH the same sources give the same bytes, wherever they lie: tools/dist.
"""

import gzip
import os
import tarfile
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist


def switched_on(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


class BuildExt(build_ext):
    """Builds again, too, what was built in another way, as with sanitizers.

    setuptools asks only whether a source is newer than what was made of it, in `build` or beside
    the sources.  So the options of the build become a file, which is new when they have changed.
    """

    def build_extension(self, ext):
        options = (
            *(ext.define_macros, ext.undef_macros, ext.extra_compile_args, ext.extra_link_args),
            *(os.environ.get(name) for name in ("CC", "CFLAGS", "CPPFLAGS", "LDSHARED", "LDFLAGS")),
        )
        record = Path(self.build_temp, f"{ext.name}.options")
        if not record.is_file() or record.read_text(encoding="utf-8") != repr(options):
            record.parent.mkdir(parents=True, exist_ok=True)
            record.write_text(repr(options), encoding="utf-8")
        ext.depends = [*ext.depends, str(record)]
        super().build_extension(ext)


class Sdist(sdist):
    """An archive that says nothing of the machine and the moment that it was made at."""

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, *args, **kwargs):
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if epoch is None or format != "gztar" or root_dir is not None:
            return super().make_archive(base_name, format, root_dir, base_dir, *args, **kwargs)

        def plain(member):
            member.mtime = int(epoch)
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            return member

        path = base_name + ".tar.gz"
        with (
            open(path, "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=plain)  # which sorts
        return path


compile_args = ["-std=c11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wconversion", "-Wshadow"]
# Where it is built is not in the debugging information.
compile_args += [f"-ffile-prefix-map={os.getcwd()}=."]
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
    # Python's own flags have -fwrapv or -fno-strict-overflow, for which no overflow is an error.
    compile_args += ["-fno-wrapv", "-fstrict-overflow"]
    link_args += sanitizers
    undefine += ["NDEBUG"]
if switched_on("CMSGX_COVERAGE"):
    compile_args += ["-O0", "-g3", "--coverage"]
    link_args += ["--coverage"]
if switched_on("CMSGX_PORTABLE"):
    define += [("CMSGX_PORTABLE", "1")]

setup(
    cmdclass={"build_ext": BuildExt, "sdist": Sdist},
    ext_modules=[
        Extension(
            "cmsgx._cmsg",
            sources=["src/_cmsgmodule.c", *sorted(glob("src/c/**/*.c", recursive=True))],
            depends=sorted(glob("src/c/**/*.h", recursive=True)),
            include_dirs=["src/c"],
            define_macros=define,
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            undef_macros=undefine,
        )
    ],
)
