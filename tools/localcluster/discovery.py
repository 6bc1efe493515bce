"""Finding a cluster's processes without having been told: the truth is in /proc, not in a file of process ids.

A file of process ids can be missing (its writer was killed) or wrong (ids are used again). The first process of a node
is instead recognised by what it is: process 1 of a pid namespace, running `localcluster.node` for this directory.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

MODULE = "localcluster.node"
MARK = "TASKMASTER_LOCAL_CLUSTER"


def first_process(state: Path) -> int | None:
    """Return the id of the cluster's first process, if it runs."""
    return next((pid for pid in launched(state) if _is_first(pid)), None)


def launched(state: Path) -> list[int]:
    """Return all processes that run, or are about to run, the cluster's first process."""
    return [pid for pid in _processes() if _arguments(pid)[-2:] == [MODULE, str(state)]]


def marked(state: Path) -> set[int]:
    """Return all processes that inherited the mark of the cluster, which is every one but those in containers."""
    wanted = f"{MARK}={state}".encode()
    found = set()
    for pid in _processes():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.add(pid)
    return found


def kill(pids: set[int]) -> None:
    """Kill processes; those that have gone meanwhile do not matter."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def arguments(pid: int) -> str:
    """Return a process's command line for people to read."""
    return " ".join(_arguments(pid)) or "(no command line)"


def _processes() -> Iterator[int]:
    # The asking process may itself carry a cluster's name on its command line or in its environment.
    ids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return (pid for pid in ids if pid != os.getpid())


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    except OSError:
        return []


def _is_first(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                ids = line.split()[1:]
                return len(ids) > 1 and ids[-1] == "1"
    return False
