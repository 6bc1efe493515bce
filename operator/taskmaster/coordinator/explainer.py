"""Answers people: why a Task waits, and that an edit of its spec was seen.

A wait that only needs time (no free slot) is explained after 30 s, the longest wait first, only when the reason
changes, and within a budget: explanations may not slow down the work they explain. A wait that needs a person (no such
queue) is explained at once, and no longer once it is over. An edit is always answered, because `kubectl wait` hangs
until `observedGeneration` follows. What to say is decided by `core.explanation`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.writes import status_write, worth_repeating
from taskmaster.core.explanation import Surveys, explain, message
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.reason import NEEDS_A_PERSON, PendingReason
from taskmaster.core.request import may_run, open_request
from taskmaster.core.station import Place
from taskmaster.core.task import Instant, Task
from taskmaster.kube.dispatcher import Dispatcher, Outcome

SOON_SECONDS: Final = 5.0
"""How long a Task waits before it is said that its queue is paused, or that no worker fits: some may be starting."""

PATIENCE_SECONDS: Final = 30.0
"""How long a Task waits before it is said for what, if that only needs time."""

_SAID_SOON: Final = frozenset({PendingReason.NO_MATCHING_WORKER, PendingReason.QUEUE_PAUSED})

SHARE_OF_WRITES: Final = 0.05
"""Explanations per other write."""

IDLE_ALLOWANCE_PER_SECOND: Final = 2.0
"""Explanations per second while nothing else is written: a stuck system must be able to say so."""

MAX_ALLOWANCE: Final = 50.0

MAX_WAITING: Final = 256
"""Explanations handed to the dispatcher at a time: a whole backlog may name a queue that does not exist."""

LOOKS_PER_STEP: Final = 500
"""Waits looked at in a second, most of which have nothing new to say."""


class Explainer:
    """Writes `status.reason` of waiting Tasks and `status.observedGeneration` of edited ones."""

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
        self._due: KeyedHeap[float] = KeyedHeap()
        self._since: dict[str, Instant] = {}
        self._said: dict[str, str] = {}
        """The latest message for each Task that needs a person."""
        self._allowance = MAX_ALLOWANCE
        self._again: set[str] = set()
        self._last_write = clock()
        cache.task_listeners.append(self._on_task)

    async def run(self) -> None:
        """Explain once a second until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            if self._ready():
                self.step()

    def step(self) -> None:
        """Explain the waits that are due, as far as the budget goes."""
        while self._again and self._dispatcher.waiting < MAX_WAITING:
            if (task := self._cache.tasks.get(self._again.pop())) is not None:
                self._answer(task)
        now, surveys = self._clock(), Surveys()
        self._hear_news(now)
        if now - self._last_write > PATIENCE_SECONDS:
            self._allowance = min(MAX_ALLOWANCE, self._allowance + IDLE_ALLOWANCE_PER_SECOND)
        for _ in range(LOOKS_PER_STEP):
            first = self._due.first()
            if self._allowance < 1 or first is None or first[0] > now:
                return
            self._look(first[1], surveys, now)

    def _hear_news(self, now: Instant) -> None:
        """Look at Tasks for which something has changed that is not their own doing: a queue, another Task."""
        for tenant in self._cache.tenants.values():
            news, tenant.news = tenant.news, set()
            for uid in news & self._since.keys():
                if tenant.entries[uid].station in NEEDS_A_PERSON:
                    self._answer(self._cache.tasks[uid])
                else:
                    self._due.put(uid, now)

    def _look(self, uid: str, surveys: Surveys, now: Instant) -> None:
        task = self._cache.tasks.get(uid)
        tenant = self._cache.tenants[task.namespace] if task is not None else None
        entry = tenant.entries.get(uid) if tenant is not None else None
        if task is None or tenant is None or entry is None or entry.station is Place.HELD or not may_run(task):
            self._forget(uid)
            return
        patience = max(self._since[uid], task.not_before or 0.0) + PATIENCE_SECONDS
        self._due.put(uid, patience if now < patience else now + PATIENCE_SECONDS)
        reason = explain(tenant, entry, surveys, now=now)
        if reason is None or reason == task.reason:
            return
        said_too_long = task.reason in NEEDS_A_PERSON
        if now < patience and not said_too_long and reason not in _SAID_SOON | NEEDS_A_PERSON:
            return
        self._allowance -= 1
        self._write(task, patches.explain(task, reason, message(tenant, entry, reason, surveys), now=now))

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        if old is not None and (new is None or (old.phase, old.attempt) != (new.phase, new.attempt)):
            # Work is going on. What we write ourselves is none.
            self._allowance = min(MAX_ALLOWANCE, self._allowance + SHARE_OF_WRITES)
            self._last_write = self._clock()
        if new is None:
            if old is not None:
                self._forget(old.uid)
            return
        if not may_run(new):
            self._forget(new.uid)
        elif new.uid not in self._since:
            now = self._clock()
            self._since[new.uid] = now
            self._due.put(new.uid, max(now, new.not_before or now) + SOON_SECONDS)
        self._answer(new)

    def _answer(self, task: Task) -> None:
        """Write at once what cannot wait: that a person has to do something, or that an edit was seen."""
        if open_request(task) is not None:
            return  # its answer will say so
        if self._dispatcher.waiting >= MAX_WAITING:
            self._again.add(task.uid)
            return
        tenant = self._cache.tenants[task.namespace]
        entry = tenant.entries.get(task.uid)
        if entry is not None and entry.station in NEEDS_A_PERSON and may_run(task):
            reason = PendingReason(entry.station)
            text = message(tenant, entry, reason, Surveys())
            # What a coordinator before us has said under this word is taken for the same.
            news = task.edit_unanswered or task.reason != reason or self._said.get(task.uid, text) != text
            self._said[task.uid] = text
            if news:
                self._write(task, patches.explain(task, reason, text, now=self._clock()))
        elif task.edit_unanswered:
            self._write(task, patches.observe_generation(task))

    def _forget(self, uid: str) -> None:
        self._due.discard(uid)
        self._since.pop(uid, None)
        self._said.pop(uid, None)

    def _write(self, task: Task, patch: list[patches.Operation]) -> None:
        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome):
                self._again.add(task.uid)

        self._dispatcher.submit(status_write(task, patch, done))
