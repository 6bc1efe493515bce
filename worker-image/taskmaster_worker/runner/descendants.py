"""Ending every process below this one.

Two facts of Linux make this exact. A subreaper becomes the parent of every orphan below it, so each living descendant
is, or has an ancestor that is, its direct child. And the id of a direct child cannot be reused before its parent has
reaped it. So when `waitpid` says that there is no child, there is no descendant, and until then there is something left
to kill.

Killing is not fast enough by itself against processes that keep forking: whoever is killed hands its children over
alive. So the tree is frozen first. A process that has been sent SIGSTOP forks no more (the kernel looks for signals
before it lets a fork succeed), so the list of its children, read afterwards, is whole. When no new process has turned
up, everything stands still, and SIGKILL goes to all of it, children before their parents. What slipped through is met
again in the next round.

Signals to more than direct children walk the tree: an id could end, and be reused, between being read and being
signalled. That takes a whole turn of the process ids within microseconds.

`/proc/PID/task/TID/children` lists children without reading all of /proc; where a sandbox lacks it, parent ids are read
instead.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterator

_ROUNDS = 1000


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


def walk() -> Iterator[tuple[int, int]]:
    """Go through every descendant, parents first: (pid, its parent's pid). Children are read after the yield."""
    waiting = [(pid, os.getpid()) for pid in children(os.getpid())]
    seen: set[int] = set()
    while waiting:
        pid, parent = waiting.pop()
        if pid not in seen:
            seen.add(pid)
            yield pid, parent
            waiting += [(child, pid) for child in children(pid)]


def terminate_all() -> None:
    """Send SIGTERM to every descendant; SIGCONT follows, so that a stopped process can obey.

    All are found before the first is told: the children of one that dies at once would not be found below it any more.
    """
    for pid, _ in list(walk()):
        send(pid, signal.SIGTERM)
        send(pid, signal.SIGCONT)


def kill_all(known: Container[int] = ()) -> bool:
    """Kill every descendant but the children that are known and what is below them; return whether there was any.

    Repeat, reaping, until there was none.
    """
    frozen: dict[int, None] = {}
    for _ in range(_ROUNDS):
        waiting = [pid for pid in children(os.getpid()) if pid not in known and pid not in frozen]
        if not waiting:
            break
        while waiting:
            pid = waiting.pop()
            frozen[pid] = None
            send(pid, signal.SIGSTOP)
            waiting += [child for child in children(pid) if child not in frozen]
    for pid in reversed(frozen):  # a child of a process that was killed first could be woken by SIGHUP and SIGCONT
        send(pid, signal.SIGKILL)
    return bool(frozen)


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
