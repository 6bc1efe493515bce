"""Answers people: why a Task waits, and that an edit of its spec was seen.

A wait that only needs time (no free slot) is explained after 30 s, the longest wait first, only when the reason
changes, and within a budget: explanations may not slow down the work they explain. A wait that needs a person (no such
queue) is explained at once. An edit is always answered, because `kubectl wait` hangs until `observedGeneration`
follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.writes import status_write, worth_repeating
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.phase import Phase
from taskmaster.core.reason import PendingReason
from taskmaster.core.request import may_run, open_request
from taskmaster.core.task import DEFAULT_QUEUE, Instant, Task
from taskmaster.kube.dispatcher import Dispatcher, Outcome

NO_WORKER_SECONDS: Final = 5.0
"""How long a Task waits before it is said that no worker is there: workers may just be starting."""

NO_SLOT_SECONDS: Final = 30.0
"""How long a Task waits before it is said that all slots are taken."""

SHARE_OF_WRITES: Final = 0.05
"""Explanations per other write."""

IDLE_ALLOWANCE_PER_SECOND: Final = 2.0
"""Explanations per second while nothing else is written: a stuck system must be able to say so."""

MAX_ALLOWANCE: Final = 50.0

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
        again, self._again = self._again, set()
        for uid in again:
            if (task := self._cache.tasks.get(uid)) is not None:
                self._answer(task)
        now = self._clock()
        if now - self._last_write > NO_SLOT_SECONDS:
            self._allowance = min(MAX_ALLOWANCE, self._allowance + IDLE_ALLOWANCE_PER_SECOND)
        for _ in range(LOOKS_PER_STEP):
            first = self._due.first()
            if self._allowance < 1 or first is None or first[0] > now:
                return
            uid = first[1]
            task = self._cache.tasks.get(uid)
            if task is None or task.phase is not Phase.PENDING:
                self._forget(uid)
                continue
            patience = max(self._since[uid], task.not_before or 0.0) + NO_SLOT_SECONDS
            self._due.put(uid, patience if now < patience else now + NO_SLOT_SECONDS)
            explanation = self._explain(task, now)
            if explanation is not None and explanation[0] != task.reason:
                self._allowance -= 1
                self._write(task, patches.explain(task, *explanation))

    def _explain(self, task: Task, now: Instant) -> tuple[PendingReason, str] | None:
        if task.not_before is not None and task.not_before > now:
            return None
        workers = self._cache.tenants[task.namespace].capacity.workers()
        ready = [worker for worker in workers if worker.schedulable]
        if not ready:
            return (
                PendingReason.NO_MATCHING_WORKER,
                f"no worker is ready in namespace {task.namespace}: create a WorkerPool there, or see "
                f"`kubectl get workerpools -n {task.namespace} -o wide` for what keeps it from being ready",
            )
        if now - max(self._since[task.uid], task.not_before or 0.0) < NO_SLOT_SECONDS:
            return None
        if task.runs_alone:
            return (
                PendingReason.NO_FREE_SLOT,
                f"the runner container died under this Task {task.spent.runner_deaths} times in a row: it waits until "
                "one of the workers holds no other Task",
            )
        slots = sum(worker.slots for worker in ready)
        return (
            PendingReason.NO_FREE_SLOT,
            f"all {slots} slots of {len(ready)} ready workers are taken by Tasks that come first; "
            "scale a WorkerPool up to run more at a time",
        )

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        if old is not None and (new is None or (old.phase, old.attempt) != (new.phase, new.attempt)):
            # Work is going on. What we write ourselves is none.
            self._allowance = min(MAX_ALLOWANCE, self._allowance + SHARE_OF_WRITES)
            self._last_write = self._clock()
        if new is None:
            if old is not None:
                self._forget(old.uid)
            return
        if new.queue != DEFAULT_QUEUE or not may_run(new):
            self._forget(new.uid)
        elif new.uid not in self._since:
            now = self._clock()
            self._since[new.uid] = now
            self._due.put(new.uid, max(now, new.not_before or now) + NO_WORKER_SECONDS)
        self._answer(new)

    def _answer(self, task: Task) -> None:
        """Write at once what cannot wait: that there is no such queue, or that an edit was seen."""
        if open_request(task) is not None:
            return  # its answer will say so
        lost = may_run(task) and task.queue != DEFAULT_QUEUE
        if lost and (task.edit_unanswered or task.reason != PendingReason.QUEUE_NOT_FOUND):
            self._write(task, patches.explain(task, PendingReason.QUEUE_NOT_FOUND, _no_queue(task.queue)))
        elif task.edit_unanswered:
            self._write(task, patches.observe_generation(task))

    def _forget(self, uid: str) -> None:
        self._due.discard(uid)
        self._since.pop(uid, None)

    def _write(self, task: Task, patch: list[patches.Operation]) -> None:
        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome):
                self._again.add(task.uid)

        self._dispatcher.submit(status_write(task, patch, done))


def _no_queue(queue: str) -> str:
    return f'there is no queue "{queue}": use the queue "default", which always exists'
