"""Deletes finished Tasks when their time is over (Kubernetes' "TTL after finished").

Each delete names the uid and the version that was judged, so that a Task which changed meanwhile (somebody raised its
TTL) is judged again. A Task that an unfinished one names in `spec.dependsOn` is kept, however old, until the last of
these has ended: the end of each looks at what it named, and nothing else does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.coordinator.writes import deletion
from taskmaster.core.dependencies import named_by
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.request import open_request
from taskmaster.core.task import Instant, Task
from taskmaster.kube.dispatcher import Dispatcher, Outcome
from taskmaster.kube.errors import NotFound

RETRY_SECONDS: Final = 5.0
"""Before a delete that failed is tried again, unless the watch shows a newer version before."""

MAX_WAITING: Final = 256
"""Deletes handed to the dispatcher at a time."""


class TtlController:
    """Holds the expiry times of finished Tasks and deletes what has expired."""

    def __init__(
        self,
        cache: Cache,
        dispatcher: Dispatcher,
        *,
        ready: Callable[[], bool],
        clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._ready = ready
        self._clock = clock
        self._expiries: KeyedHeap[float] = KeyedHeap()
        self._deleting: set[str] = set()
        self._changed = asyncio.Event()
        cache.task_listeners.append(self._on_task)

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            due = self.step()
            await changed_or_due(self._changed, due)

    def step(self) -> float | None:
        """Dispatch the deletes that are due; return the seconds until the next one."""
        if not self._ready():
            return RETRY_SECONDS
        now = self._clock()
        while (first := self._expiries.first()) is not None and len(self._deleting) < MAX_WAITING:
            expiry, uid = first
            if expiry > now:
                return expiry - now
            self._expiries.discard(uid)
            task = self._cache.tasks.get(uid)
            if task is not None and self._cache.unsettled(task):
                self._expiries.put(uid, now + RETRY_SECONDS)
            # One that is needed comes back when a Task that needs it changes.
            elif task is not None and not self._cache.needed(task):
                self._delete(task)
        return None

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        self._offer(old, new)
        if old is None or not old.depends_on:
            return
        for name in _needs(old) - _needs(new):
            parent = self._cache.task_named(old.namespace, name)
            if parent is not None and parent.uid not in self._deleting and not self._cache.needed(parent):
                self._offer(None, parent)

    def _offer(self, old: Task | None, new: Task | None) -> None:
        if new is not None and new.expires is not None and open_request(new) is None:
            self._expiries.put(new.uid, new.expires)
            self._changed.set()
        elif (task := new or old) is not None:
            self._expiries.discard(task.uid)

    def _delete(self, task: Task) -> None:
        self._deleting.add(task.uid)

        def done(outcome: Outcome) -> None:
            self._deleting.discard(task.uid)
            current = self._cache.tasks.get(task.uid)
            if outcome.error is not None and not isinstance(outcome.error, NotFound) and current is not None:
                # A version that is newer than the one judged is already in the heap under its own time.
                if current.resource_version == task.resource_version:
                    self._expiries.put(task.uid, self._clock() + RETRY_SECONDS)
                else:
                    self._offer(None, current)
            self._changed.set()

        self._dispatcher.submit(deletion(task, done))


def _needs(task: Task | None) -> set[str]:
    return set() if task is None else {each.name for each in named_by(task)}
