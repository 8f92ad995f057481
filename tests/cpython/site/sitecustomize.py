"""Runs at the start of each interpreter of the multiprocessing tests, spawned children included."""

import os

if os.environ.get("CMSGX_TEST_MODE") in ("install", "inheritable"):
    import cmsgx

    cmsgx.install(cloexec=os.environ["CMSGX_TEST_MODE"] == "install")
