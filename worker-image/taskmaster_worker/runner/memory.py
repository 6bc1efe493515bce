"""How much memory the tree of an attempt has, against its limit.

The sum of resident sizes is cheap but counts shared pages once per process, so it only raises the suspicion; the sum of
proportional sizes decides. Between `vfork` and `exec` (how most programs start another) parent and child have one
memory, which both sums count twice. Such a child is left out: its figures are exactly those of its parent, which stands
still, and its pages are not shared, as those of an equal copy would be.

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
_CONFIRMATIONS = 2
_TRIES = 3
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
        measured = sum(resident(pid) for pid, _ in descendants.walk())
        for _ in range(_CONFIRMATIONS):
            if measured > self._limit:
                measured = sum(proportional(pid, parent) for pid, parent in descendants.walk())
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


def proportional(pid: int, parent: int) -> int:
    """Return the proportional size of a process in bytes; 0 if it is gone, or has the memory of its parent."""
    for _ in range(_TRIES):
        rollup = _rollup(pid)
        if not rollup:
            return resident(pid)
        if rollup == _rollup(parent) and 2 * rollup["Private_Dirty:"] > rollup["Anonymous:"]:
            return 0  # the pages of a mere copy would be shared
        if rollup == _rollup(pid):
            break
    return rollup["Pss:"]


def _rollup(pid: int) -> dict[str, int]:
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            file.readline()
            return {name: int(size) * 1024 for name, size, _ in map(str.split, file)}
    except OSError:  # another user's, or a kernel without it
        return {}
