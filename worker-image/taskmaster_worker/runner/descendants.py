"""Ending every process below this one.

Two facts of Linux make this exact. A subreaper becomes the parent of every orphan below it, so each living descendant
is, or has an ancestor that is, its direct child. And the id of a direct child cannot be reused before its parent has
reaped it. So SIGKILL goes only to direct children, and what they leave behind are the direct children of the next pass;
when `waitpid` says that there is no child, there is no descendant. SIGTERM, which asks all of them at once, cannot be
as exact: it walks the tree.

`/proc/PID/task/TID/children` lists children without reading all of /proc; where a sandbox lacks it, parent ids are read
instead.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container


def children(pid: int) -> list[int]:
    """Return the direct children of a process, zombies included; empty if it is gone."""
    try:
        threads = [pid] if pid == os.getpid() else os.listdir(f"/proc/{pid}/task")
        found: list[int] = []
        for thread in threads:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found += map(int, file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        return [] if os.path.exists(f"/proc/{os.getpid()}/task/{os.getpid()}/children") else children_by_scan(pid)
    return found


def children_by_scan(pid: int) -> list[int]:
    """Return the same from the parent ids of all processes: slow, but needs nothing of the kernel's configuration."""
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    if int(file.read().rpartition(b")")[2].split()[1]) == pid:
                        found.append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    return found


def terminate_all() -> None:
    """Send SIGTERM to every descendant; SIGCONT follows, so that a stopped process can obey."""
    waiting = children(os.getpid())
    seen: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in seen:
            seen.add(pid)
            waiting += children(pid)
            send(pid, signal.SIGTERM)
            send(pid, signal.SIGCONT)


def kill_children(known: Container[int] = ()) -> list[int]:
    """Send SIGKILL to each direct child that is not known; return those. Repeat, reaping, until there are none."""
    strangers = [pid for pid in children(os.getpid()) if pid not in known]
    for pid in strangers:
        send(pid, signal.SIGKILL)
    return strangers


def reap() -> tuple[list[tuple[int, int]], bool]:
    """Collect the children that have ended: their (pid, wait status), and whether any child is left."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended, False
        if pid == 0:
            return ended, True
        ended.append((pid, status))


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone, or (a set-user-id program) not be ours to signal."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return
