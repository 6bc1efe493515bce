"""The scheduling cycle.

1 take deltas (done by the informers, in the cache), 2 take heads, 3 snapshot (the structures *are* the snapshot:
nothing else runs during a cycle), 4 assign, 5 assume, 6 dispatch, 7 requeue the rest (what did not fit never left its
backlog). The cycle runs when something changed or a delayed Task becomes due; on an idle system it sleeps, and there is
no delay of its own between a change and the cycle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.coordinator.writes import status_write
from taskmaster.core.assignment import Assignment, assign
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
        due: list[Instant] = []
        for tenant in self._cache.tenants.values():
            backlogs = (tenant.backlog, tenant.loners)
            for task in (task for backlog in backlogs for task in backlog.wake(now=now)):
                # Of a write whose fate was in doubt: the watch has not confirmed it since.
                tenant.capacity.free(task.uid)
            room = MAX_ASSUMED - self._cache.assumed
            for decision in assign(*backlogs, tenant.capacity, at_most=room):
                self._cache.assume(decision.task)
                self._dispatch(decision, now)
            due += [next_due for backlog in backlogs if (next_due := backlog.next_due()) is not None]
        return max(0.0, min(due) - now) if due else None

    def _dispatch(self, decision: Assignment, now: Instant) -> None:
        task = decision.task

        def done(outcome: Outcome) -> None:
            if outcome.error is not None or outcome.superseded:
                logger.debug(
                    "assignment not written",
                    extra={"task": f"{task.namespace}/{task.name}", "error": str(outcome.error)},
                )
                in_doubt = isinstance(outcome.error, Unanswered | ServerError)
                self._cache.forget(task, retry_after=RETRY_AFTER_FAILURE, in_doubt=in_doubt)

        self._dispatcher.submit(status_write(task, patches.assign(task, decision.worker, now=now), done))
