"""Answers what people ask of a Task that no worker holds: cancel, suspend, resume, run again.

At once, by the delta that shows the request: each is one conditional write. What was not written for any other reason
than that the Task has changed is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, assert_never

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.writes import status_write, worth_repeating
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.request import Request, open_request
from taskmaster.core.task import Instant, Task
from taskmaster.kube.api import Object
from taskmaster.kube.dispatcher import Dispatcher, Outcome

RETRY_SECONDS: Final = 1.0
"""Before a write that failed is tried again."""


class RequestController:
    """Writes what follows from `spec.cancel`, `spec.suspend` and `spec.retryRequest`."""

    def __init__(self, cache: Cache, dispatcher: Dispatcher, *, clock: Callable[[], Instant] = wall_clock) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._clock = clock
        self._again: set[str] = set()
        cache.task_listeners.append(self._on_task)

    async def run(self) -> None:
        """Try again what failed, until cancelled."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            self.step()

    def step(self) -> None:
        """Try again what failed."""
        again, self._again = self._again, set()
        for uid in again:
            self._on_task(None, self._cache.tasks.get(uid))

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        if new is not None and (request := open_request(new)) is not None:
            self._answer(new, request)

    def _answer(self, task: Task, request: Request) -> None:
        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome):
                self._again.add(task.uid)

        self._dispatcher.submit(status_write(task, _patch(task, request, self._clock()), done))


def _patch(task: Task, request: Request, now: Instant) -> list[patches.Operation] | Object:
    match request:
        case Request.CANCEL:
            when = "before its first attempt" if task.attempt == 0 else "while it waited for its next attempt"
            return patches.end_waiting(task, Phase.CANCELLED, EndReason.CANCELLED, f"cancelled {when}", now=now)
        case Request.HOLD:
            return patches.hold(task, now=now)
        case Request.RESUME:
            return patches.resume(task, now=now)
        case Request.RUN_AGAIN:
            return patches.run_again(task, now=now)
    assert_never(request)
