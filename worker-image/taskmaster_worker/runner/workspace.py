"""The directory for scripts and result files: private, on whatever is writable, gone when the runner is."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Mapping

_PREFIX = "taskmaster-runner-"


def create_workspace(environment: Mapping[str, str]) -> str:
    """Make a directory under TMPDIR, /tmp or, where the root file system is read-only, a memory-backed one.

    Process 1 owns its container, so what an earlier process 1 left on the same volume is removed.

    Raises:
        OSError: none of them is writable.
    """
    refusals = []
    for place in filter(None, (environment.get("TMPDIR"), "/tmp", "/dev/shm")):
        try:
            _remove_stale(place)
            return tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=place)
        except OSError as error:
            refusals.append(f"{place}: {error.strerror}")
    raise OSError(f"no writable directory for scripts and results: {'; '.join(refusals)}: mount one and set TMPDIR")


def remove_workspace(path: str) -> None:
    """Remove the directory and everything in it, as far as possible."""
    shutil.rmtree(path, ignore_errors=True)


def _remove_stale(place: str) -> None:
    if os.getpid() == 1:
        with contextlib.suppress(OSError):
            for entry in os.scandir(place):
                if entry.name.startswith(f"{_PREFIX}1-") and entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    remove_workspace(entry.path)
