"""The scheduling cycle.

1 take deltas (done by the informers, in the cache), 2 take heads, 3 snapshot (the structures *are* the snapshot:
nothing else runs during a cycle), 4 assign, 5 assume, 6 dispatch, 7 requeue the rest (what did not fit never left its
backlog). What follows for Tasks without a worker (skipped, replaced, rejected, asked to stop) is dispatched on the way.
The cycle runs when something changed or becomes due; on an idle system it sleeps, and there is no delay of its own
between a change and the cycle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.coordinator.writes import status_write, worth_repeating
from taskmaster.core.assignment import Assignment, Ending, Stop
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.scheduling import Scheduling
from taskmaster.core.station import Place
from taskmaster.core.task import Instant
from taskmaster.kube.dispatcher import Dispatcher, Outcome
from taskmaster.kube.errors import ServerError, Unanswered

logger = logging.getLogger(__name__)

MAX_ASSUMED: Final = 256
"""Decisions that may be on their way: more would only let later, more urgent Tasks wait behind them."""

RETRY_AFTER_FAILURE: Final = 1.0
"""Seconds before a failed assignment is decided again; usually the watch brings the reason sooner."""


class Scheduler:
    """Turns free slots and waiting Tasks into assignments."""

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
        self._schedulings: dict[str, Scheduling] = {}
        self._again: KeyedHeap[float] = KeyedHeap()
        """Uids of Tasks for which something follows that could not be written, by when it is tried again."""
        self._changed = asyncio.Event()
        self.cycles = 0

    def wake(self) -> None:
        """Ask for a cycle; many calls before it runs are one."""
        self._changed.set()

    async def run(self) -> None:
        """Run cycles until cancelled."""
        while True:
            due = self.cycle()
            await changed_or_due(self._changed, due)

    def cycle(self) -> float | None:
        """Decide and dispatch all that fits now; return the seconds until a delayed Task becomes due."""
        if not self._ready():
            return None
        self.cycles += 1
        now = self._clock()
        self._repeat(now)
        due: list[float] = []
        for namespace in self._turns():
            tenant = self._cache.tenants[namespace]
            scheduling = self._schedulings.get(namespace) or self._schedulings.setdefault(namespace, Scheduling(tenant))
            room = MAX_ASSUMED - self._cache.assumed
            for decision in scheduling.decide(now=now, at_most=room):
                self._dispatch(decision, now)
            verdicts, tenant.verdicts = tenant.verdicts, []
            for verdict in verdicts:
                self._follow(verdict, now)
            if (next_due := scheduling.next_due(now=now)) is not None:
                due.append(next_due)
        if (first := self._again.first()) is not None:
            due.append(first[0])
        return max(0.0, min(due) - now) if due else None

    def _turns(self) -> list[str]:
        """Return the namespaces, another one first each time: none can keep the others from being decided."""
        names = list(self._cache.tenants)
        first = self.cycles % max(1, len(names))
        return names[first:] + names[:first]

    def _repeat(self, now: Instant) -> None:
        while (first := self._again.first()) is not None and first[0] <= now:
            self._again.discard(first[1])
            if (task := self._cache.tasks.get(first[1])) is not None:
                self._cache.tenants[task.namespace].reconsider(task.uid, now=now)

    def _dispatch(self, decision: Assignment, now: Instant) -> None:
        task = decision.task

        def done(outcome: Outcome) -> None:
            if outcome.error is not None or outcome.superseded:
                logger.debug(
                    "assignment not written",
                    extra={"task": f"{task.namespace}/{task.name}", "error": str(outcome.error)},
                )
                in_doubt = isinstance(outcome.error, Unanswered | ServerError)
                now = self._clock()
                until = Instant(now + RETRY_AFTER_FAILURE)
                self._cache.tenants[task.namespace].forget(task, until=until, in_doubt=in_doubt, now=now)
                self.wake()

        patch = patches.assign(task, decision.worker, now=now, resolved=self._cache.resolved_run(task))
        self._dispatcher.submit(status_write(task, patch, done))

    def _follow(self, verdict: Ending | Stop, now: Instant) -> None:
        task = verdict.task
        entry = self._cache.tenants[task.namespace].entries.get(task.uid)
        if entry is None or entry.task.resource_version != task.resource_version:
            return  # its newer version has had a verdict of its own
        if entry.station is not (Place.HELD if isinstance(verdict, Stop) else Place.ENDING):
            return  # what it was about has changed since

        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome):
                self._again.put(task.uid, self._clock() + RETRY_AFTER_FAILURE)
                self.wake()

        if isinstance(verdict, Stop):
            patch = patches.request_stop(task, verdict.reason, now=now)
        else:
            patch = patches.end_waiting(task, verdict.phase, verdict.reason, verdict.message, now=now)
        self._dispatcher.submit(status_write(task, patch, done))
