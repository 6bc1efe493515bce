"""Ends what has waited for too long, and stands behind the timers of the workers.

Two kinds of time. How long a Task may wait, and how long a run may take, are times of day in its status: they outlive
any coordinator. That a worker keeps to the bounds of an attempt is its own business; here it is only noticed when it
does not, by this coordinator's monotonic clock since it first saw the attempt: `MARGIN_SECONDS` after the end was due
the worker is asked to stop, and as long again after that the Task is taken from it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from random import Random
from typing import Final

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.coordinator.writes import status_write, worth_repeating
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome as AttemptOutcome
from taskmaster.core.retry import next_attempt
from taskmaster.core.task import Instant, StopReason, Task
from taskmaster.kube.dispatcher import Dispatcher, Outcome

RETRY_SECONDS: Final = 1.0
"""Before a write that failed is tried again."""

MARGIN_SECONDS: Final = 60.0
"""What a worker may take beyond the time of an attempt and its grace, before we step in."""


class DeadlineController:
    """Holds the times at which Tasks are given up, and acts on those that are due."""

    def __init__(
        self,
        cache: Cache,
        dispatcher: Dispatcher,
        *,
        ready: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], Instant] = wall_clock,
        random: Random | None = None,
    ) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._ready = ready
        self._clock = clock
        self._wall_clock = wall_clock
        self._random = random or Random()
        self._expiries: KeyedHeap[float] = KeyedHeap()
        """When waiting Tasks are given up, in time of day."""
        self._backstops: KeyedHeap[float] = KeyedHeap()
        """When held Tasks should long have ended, on our clock."""
        self._watched: dict[str, tuple[int, bool]] = {}
        """The attempt that a backstop is for, and whether its worker has been asked to stop."""
        self._changed = asyncio.Event()
        cache.task_listeners.append(self._on_task)

    async def run(self) -> None:
        """Act until cancelled."""
        while True:
            due = self.step()
            await changed_or_due(self._changed, due)

    def step(self) -> float | None:
        """Act on what is due; return the seconds until something else is."""
        if not self._ready():
            return RETRY_SECONDS
        waits = [self._act(self._expiries, self._wall_clock(), self._give_up)]
        waits.append(self._act(self._backstops, self._clock(), self._step_in))
        return min((wait for wait in waits if wait is not None), default=None)

    def _act(self, heap: KeyedHeap[float], now: float, act: Callable[[Task], None]) -> float | None:
        while (first := heap.first()) is not None:
            due, uid = first
            if due > now:
                return due - now
            # Until the watch shows what has become of it, or the write fails and is tried again.
            heap.put(uid, now + MARGIN_SECONDS)
            if (task := self._cache.tasks.get(uid)) is not None:
                act(task)
        return None

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        if new is None or new.expiry is None:
            if (task := new or old) is not None:
                self._expiries.discard(task.uid)
        else:
            self._expiries.put(new.uid, new.expiry)
        if new is not None and new.held:
            self._watch(new)
        elif (task := new or old) is not None:
            self._backstops.discard(task.uid)
            self._watched.pop(task.uid, None)
        self._changed.set()

    def _watch(self, task: Task) -> None:
        state = (task.attempt, task.stop_requested)
        if self._watched.get(task.uid) == state:
            return
        self._watched[task.uid] = state
        timeouts = task.policy.timeouts
        due = 0.0 if task.stop_requested else float(timeouts.attempt_seconds)
        self._backstops.put(task.uid, self._clock() + due + timeouts.grace_seconds + MARGIN_SECONDS)

    def _give_up(self, task: Task) -> None:
        now, timeouts = self._wall_clock(), task.policy.timeouts
        if task.expiry is None:
            return
        if task.deadline is not None and task.deadline <= now:
            patch = patches.end_waiting(
                task,
                Phase.FAILED,
                EndReason.TIMED_OUT,
                f"took longer than timeouts.totalSeconds = {timeouts.total_seconds} s",
                now=now,
                dead_lettered=True,
            )
        else:
            message = f"waited longer than timeouts.pendingSeconds = {timeouts.pending_seconds} s"
            patch = patches.end_waiting(task, Phase.SKIPPED, EndReason.EXPIRED, message, now=now)
        self._write(self._expiries, self._wall_clock, task, patch)

    def _step_in(self, task: Task) -> None:
        now = self._wall_clock()
        if not task.stop_requested:
            patch = patches.request_stop(task, StopReason.TIMED_OUT, now=now)
        else:
            message = "ran longer than it may, and its worker did not stop it when asked"
            ended = patches.Ended(AttemptOutcome.FAILED, EndReason.TIMED_OUT, message, now)
            decision = next_attempt(
                task.policy, task.spent, ended, seconds_left=task.seconds_left(now), random=self._random
            )
            patch = patches.requeue(task, ended, decision)
        self._write(self._backstops, self._clock, task, patch)

    def _write(
        self, heap: KeyedHeap[float], clock: Callable[[], float], task: Task, patch: list[patches.Operation]
    ) -> None:
        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome) and task.uid in heap:
                heap.put(task.uid, clock() + RETRY_SECONDS)
                self._changed.set()

        self._dispatcher.submit(status_write(task, patch, done))
