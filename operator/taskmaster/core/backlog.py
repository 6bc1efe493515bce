"""Backlog of Tasks waiting for a slot, ordered as they should run.

One heap for Tasks that may run now (higher priority first, then first come first served), one for those that become
due. Nothing here reads a clock: callers pass `now`. Invariant: a Task is in exactly one of the heaps, and
`len(backlog)` counts it once.
"""

from __future__ import annotations

from taskmaster.core.heap import KeyedHeap
from taskmaster.core.task import Instant, Task


class Backlog:
    """Waiting Tasks of one namespace."""

    def __init__(self) -> None:
        self._tasks: dict[str, tuple[Task, int]] = {}
        self._ready: KeyedHeap[tuple[int, float, int]] = KeyedHeap()
        self._delayed: KeyedHeap[float] = KeyedHeap()
        self._orders = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, uid: str) -> bool:
        return uid in self._tasks

    def put(self, task: Task, *, now: Instant, until: Instant | None = None) -> None:
        """Add a Task, or take note of its newer version; its place among equals is kept.

        It is not offered before its own `not_before`, nor before `until`.
        """
        known = self._tasks.get(task.uid)
        if known is None:
            self._orders += 1
        order = self._orders if known is None else known[1]
        self._tasks[task.uid] = (task, order)
        due = max(task.not_before or now, until or now)
        if due > now:
            self._ready.discard(task.uid)
            self._delayed.put(task.uid, due)
        else:
            self._delayed.discard(task.uid)
            # Creation times have whole seconds, so ties are common: the order of first observation breaks them.
            self._ready.put(task.uid, (-task.priority, task.created, order))

    def discard(self, uid: str) -> None:
        """Forget a Task, if it is here."""
        self._tasks.pop(uid, None)
        self._ready.discard(uid)
        self._delayed.discard(uid)

    def wake(self, *, now: Instant) -> list[Task]:
        """Move the Tasks whose time has come to those that may run, and return them."""
        woken = []
        while (first := self._delayed.first()) is not None and first[0] <= now:
            task, _ = self._tasks[first[1]]
            self.put(task, now=now)
            woken.append(task)
        return woken

    def next_due(self) -> Instant | None:
        """Return when the next delayed Task may run; None when none is delayed."""
        first = self._delayed.first()
        return None if first is None else Instant(first[0])

    def head(self) -> Task | None:
        """Return the Task that should run next; None when no Task may run now."""
        first = self._ready.first()
        return None if first is None else self._tasks[first[1]][0]

    def pop(self) -> Task | None:
        """Remove and return the Task that should run next."""
        task = self.head()
        if task is not None:
            self.discard(task.uid)
        return task
