"""Which attempts this worker knows: those that wait, those that hold slots, those whose end is still being written.

An attempt holds its slots in the coordinator's eyes until its end is *written*, in ours until its process is gone. The
latter is earlier, so an honest coordinator is never refused. From the moment it begins, while what it needs is still
being read, an attempt counts as having a process. So does one that was taken from us, through its grace; but it does
not count for "full", since its slots have been given to others.

What waits had room when it arrived, so all of it has room at once when the processes in their grace are gone. That is
why a small attempt may begin before an older one that needs more slots: it keeps none from it for longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from taskmaster_worker.agent import stops
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.attempt import Attempt
from taskmaster_worker.agent.stops import Stop
from taskmaster_worker.agent.tombstones import Tombstones


class Roster:
    """Attempts by their id; `newest` by the uid of the Task."""

    def __init__(self, slots: int) -> None:
        self.known: dict[str, Attempt] = {}
        """Every attempt until its end is written."""
        self.newest: dict[str, Attempt] = {}
        self.waiting: dict[str, Attempt] = {}
        self.begun: dict[str, Attempt] = {}
        """Those that hold slots."""
        self.empty = asyncio.Event()
        self.empty.set()
        self._slots = slots
        self._buried = Tombstones()

    @property
    def taken(self) -> int:
        """How many slots are held."""
        return _slots(self.begun.values())

    def objection(self, attempt: Attempt) -> Stop | None:
        """Return why an honest coordinator would not have assigned an attempt that is not yet in; None if it would."""
        if attempt.slots > self._slots:
            return stops.too_many_slots(attempt.slots, self._slots)
        promised = _slots(self.waiting.values()) + _slots(each for each in self.begun.values() if not each.abandoned)
        return stops.FULL if promised + attempt.slots > self._slots else None

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
        """Return what waits, has its slots, and has no earlier attempt of its Task beside it; the oldest first."""
        busy = {attempt.task.uid for attempt in self.begun.values()}
        free = self._slots - self.taken
        ready = []
        for attempt in self.waiting.values():
            if attempt.task.uid not in busy and attempt.slots <= free:
                free -= attempt.slots
                ready.append(attempt)
        return ready

    def begin(self, attempt: Attempt) -> None:
        """Give a waiting attempt its slots."""
        del self.waiting[attempt.task.id]
        self.begun[attempt.task.id] = attempt

    def release(self, attempt: Attempt) -> None:
        """Take back the slots, or the place among those that wait."""
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


def _slots(attempts: Iterable[Attempt]) -> int:
    return sum(attempt.slots for attempt in attempts)
