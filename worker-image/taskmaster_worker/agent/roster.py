"""Which attempts this worker knows: those that wait, those that hold a slot, those whose end is still being written.

An attempt holds a slot in the coordinator's eyes until its end is *written*, in ours until its process is gone. The
latter is earlier, so an honest coordinator is never refused. From the moment it begins, while its values are still
being read, an attempt counts as having a process. So does one that was taken from us, through its grace; but it does
not count for "full", since its slot has been given to another.
"""

from __future__ import annotations

import asyncio

from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.attempt import Attempt
from taskmaster_worker.agent.tombstones import Tombstones


class Roster:
    """Attempts by their id; `newest` by the uid of the Task."""

    def __init__(self, slots: int) -> None:
        self.known: dict[str, Attempt] = {}
        """Every attempt until its end is written."""
        self.newest: dict[str, Attempt] = {}
        self.waiting: dict[str, Attempt] = {}
        self.begun: dict[str, Attempt] = {}
        """Those that hold a slot."""
        self.empty = asyncio.Event()
        self.empty.set()
        self._slots = slots
        self._buried = Tombstones()

    @property
    def full(self) -> bool:
        """Whether an honest coordinator would assign nothing more."""
        return len(self.waiting) + sum(not attempt.abandoned for attempt in self.begun.values()) >= self._slots

    def is_old(self, task: Assigned) -> bool:
        """Whether this attempt is over, or has been overtaken by another of its Task."""
        newest = self.newest.get(task.uid)
        overtaken = newest is not None and newest.task.attempt > task.attempt
        return overtaken or self._buried.covers(task.uid, task.attempt)

    def add(self, attempt: Attempt) -> None:
        """Take in an attempt; it waits."""
        task = attempt.task
        self.known[task.id] = self.newest[task.uid] = self.waiting[task.id] = attempt
        self.empty.clear()

    def beginnable(self) -> list[Attempt]:
        """Return what waits, has a slot, and has no earlier attempt of its Task beside it; the oldest first."""
        busy = {attempt.task.uid for attempt in self.begun.values()}
        free = self._slots - len(self.begun)
        ready = [attempt for attempt in self.waiting.values() if attempt.task.uid not in busy]
        return ready[: max(free, 0)]

    def begin(self, attempt: Attempt) -> None:
        """Give a waiting attempt a slot."""
        del self.waiting[attempt.task.id]
        self.begun[attempt.task.id] = attempt

    def release(self, attempt: Attempt) -> None:
        """Take back the slot, or the place among those that wait."""
        self.begun.pop(attempt.task.id, None)
        self.waiting.pop(attempt.task.id, None)

    def forget(self, attempt: Attempt) -> None:
        """Remember of an attempt only that it is over."""
        task = attempt.task
        self._buried.bury(task.uid, task.attempt)
        del self.known[task.id]
        if self.newest.get(task.uid) is attempt:
            del self.newest[task.uid]
        if not self.known:
            self.empty.set()
