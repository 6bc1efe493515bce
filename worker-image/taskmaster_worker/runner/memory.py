"""How much memory the tree of an attempt has, against its limit.

The sum of resident sizes is cheap but counts shared pages once per process, so it only raises the suspicion; the sum of
proportional sizes decides. Between `vfork` and `exec` (how most programs start another) parent and child have the same
memory, which both sums count twice: such a child is left out.

Measuring costs at most a twentieth of one processor: where it takes longer than usual, it is done less often.
"""

from __future__ import annotations

import math
import os
import time

from taskmaster_worker.runner import descendants

INTERVAL_SECONDS = 0.05
_LONGEST_SECONDS = 1.0
_SHARE = 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class MemoryWatch:
    """Looks from time to time whether the tree of this process is above `limit` bytes; never without a limit."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self.due = math.inf if limit is None else time.monotonic() + INTERVAL_SECONDS

    def excess(self, now: float) -> int:
        """Return what the tree has, in bytes, if that is above the limit; 0 if it is not, or it is not time to look."""
        if self._limit is None or now < self.due:
            return 0
        tree = dict(descendants.walk())
        measured = sum(map(resident, tree))
        if measured > self._limit:
            measured = _proportional(tree)
        end = time.monotonic()
        self.due = end + min(max(INTERVAL_SECONDS, (end - now) * _SHARE), _LONGEST_SECONDS)
        return measured if measured > self._limit else 0


def resident(pid: int) -> int:
    """Return the resident size of a process in bytes; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError):
        return 0


def _proportional(tree: dict[int, int]) -> int:
    maps = {pid: _rollup(pid) for pid in tree}
    total = 0
    for pid, parent in tree.items():
        text = maps[pid]
        if not text:
            total += resident(pid)
        elif text != maps.get(parent) or not _waits_for_vfork(parent):
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(b"Pss:")) * 1024
    return total


def _rollup(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            return file.read()
    except OSError:  # another user's, or a kernel without it
        return b""


def _waits_for_vfork(pid: int) -> bool:
    """Return whether a thread is in uninterruptible sleep, as in `vfork`: that is all the kernel shows of it."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", "rb") as file:
                if file.read().rpartition(b")")[2].split()[0] == b"D":
                    return True
    except OSError:
        return False
    return False
