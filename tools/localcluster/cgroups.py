"""The cgroup below which a cluster's pods live, in every hierarchy of the machine.

Kubernetes' default is a `kubepods` at the root. A parent of its own tells several clusters apart, and lets a tear-down
find everything by name. Under cgroup v1 each controller is a hierarchy with a directory tree of its own.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
REMOVAL_TIMEOUT = 10.0


def name(cluster: str) -> str:
    """Return the name of a cluster's top cgroup."""
    return f"taskmaster-{cluster}"


def hierarchies(mountinfo: str) -> list[Path]:
    """Return the mount points of all cgroup hierarchies, given the text of a mountinfo file."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ", 1)[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split()[4]))
    return found


def create(cluster: str) -> None:
    """Make the cluster's cgroup; the kubelet does not start without it."""
    for root in hierarchies(MOUNTS.read_text()):
        directory = root / name(cluster)
        directory.mkdir(exist_ok=True)
        # A new cpuset (v1) has no processors, and nothing can run in it.
        for setting in ("cpuset.cpus", "cpuset.mems"):
            source = root / setting
            if source.exists() and not (directory / setting).read_text().strip():
                (directory / setting).write_text(source.read_text())
        # v2 passes a controller on only where the parent says so.
        if (root / "cgroup.controllers").exists():
            for controller in (root / "cgroup.controllers").read_text().split():
                with contextlib.suppress(OSError):
                    (root / "cgroup.subtree_control").write_text(f"+{controller}")


def directories(cluster: str) -> list[Path]:
    """Return the cluster's top cgroup in each hierarchy that has one."""
    tops = (root / name(cluster) for root in hierarchies(MOUNTS.read_text()))
    return [top for top in tops if top.exists()]


def members(cluster: str) -> set[int]:
    """Return the processes in any of the cluster's cgroups."""
    found: set[int] = set()
    for directory in _all(cluster):
        with contextlib.suppress(OSError):
            found.update(int(pid) for pid in (directory / "cgroup.procs").read_text().split())
    return found


def remove(cluster: str) -> None:
    """Remove the cluster's cgroups, children first; what still has processes in it stays."""
    deadline = time.monotonic() + REMOVAL_TIMEOUT
    while True:
        for directory in _all(cluster):
            with contextlib.suppress(OSError):
                directory.rmdir()
        # The kernel lets go of a cgroup a moment after its last process has gone.
        if not directories(cluster) or time.monotonic() > deadline:
            return
        time.sleep(0.05)


def _all(cluster: str) -> Iterator[Path]:
    for top in directories(cluster):
        for path, _, _ in os.walk(top, topdown=False):
            yield Path(path)
