"""Which attempts have been here already.

The watch may repeat itself (a relist, a server restored from a backup), so what is over is remembered for longer than
its Task stays in the watched set: the latest ten thousand Tasks, a few hundred bytes each.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 10_000


class Tombstones:
    """The highest attempt that is over, by uid of its Task."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._highest: dict[str, int] = {}

    def bury(self, uid: str, attempt: int) -> None:
        """Remember an attempt that is over."""
        highest = max(attempt, self._highest.pop(uid, 0))
        self._highest[uid] = highest  # at the end: dicts keep the order of insertion
        if len(self._highest) > self._kept:
            del self._highest[next(iter(self._highest))]

    def covers(self, uid: str, attempt: int) -> bool:
        """Whether this attempt, or a later one of the same Task, is over."""
        return attempt <= self._highest.get(uid, 0)
