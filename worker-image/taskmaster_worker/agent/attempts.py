"""All attempts of this worker: which of the assigned Tasks run, and what is written about them.

From the watch comes what is assigned; `_reconcile` answers each Task with one of: it is known, it is not ours, it is
refused because the worker is full, or it waits. A waiting attempt begins as soon as a slot is free *and* no earlier
attempt of the same Task still has a process: one that was taken from us holds its slot through its grace.

The counts behind "full": an attempt holds a slot in the coordinator's eyes until its end is *written*, in ours until
its process is gone. The latter is earlier, so an honest coordinator is never refused.

While the worker does not take Tasks (draining, or without its runner) assignments that were on their way still arrive.
They are given back, but only once the Lease says so: until then the coordinator might return them in the same instant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, Final, Protocol

from taskmaster.api.patches import Ended
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster.kube.informer import Delta
from taskmaster_worker.agent import record
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.attempt import Attempt, Runner, State
from taskmaster_worker.agent.identity import Life
from taskmaster_worker.agent.tombstones import Tombstones
from taskmaster_worker.agent.writer import Settled, StatusWriter
from taskmaster_worker.runner.frames import FrameError
from taskmaster_worker.runner.messages import Exit, Started

logger = logging.getLogger(__name__)

FULL: Final = "the worker was full"
DRAINED: Final = "the worker was drained"
RUNNER_AWAY: Final = "the worker's runner was not ready"


class AttemptObserver(Protocol):
    """Receives what becomes of attempts; must be quick and must not raise."""

    def ended(self, ended: Ended) -> None:
        """Report an attempt that is over."""

    def superseded(self) -> None:
        """Report an attempt or a write that another had overtaken."""


class Attempts:
    """See the module. `advertised` tells whether the Lease, as last acknowledged, invites Tasks."""

    def __init__(
        self,
        *,
        life: Life,
        slots: int,
        runner: Runner,
        writer: StatusWriter,
        advertised: Callable[[], bool],
        observer: AttemptObserver,
        wall_clock: Callable[[], float],
        random: Random,
    ) -> None:
        self.runner = runner
        self.open = True
        """False while the worker drains."""
        self.empty = asyncio.Event()
        self.empty.set()
        self._life = life
        self._slots = slots
        self._writer = writer
        self._advertised = advertised
        self._observer = observer
        self._wall_clock = wall_clock
        self._random = random
        self._attempts: dict[str, Attempt] = {}
        self._newest: dict[str, Attempt] = {}
        self._waiting: dict[str, Attempt] = {}
        self._processes: dict[str, Attempt] = {}
        self._buried = Tombstones()
        self._writes: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def running(self) -> int:
        """How many processes there may be."""
        return len(self._processes)

    async def run(self) -> None:
        """Wait for a bug in one of the writes: the process should then end, since it would have lost a record."""
        await self._failure

    # ---- what the watch says

    def on_deltas(self, deltas: Sequence[Delta[Assigned]]) -> None:
        """Follow the watch: an object that leaves the watched set is finished, taken from us, or deleted."""
        for delta in deltas:
            if delta.new is not None:
                self._reconcile(delta.new)
            elif delta.old is not None and (attempt := self._attempts.get(delta.old.id)) is not None:
                self._abandon(attempt)
        self.advance()

    def _reconcile(self, task: Assigned) -> None:
        known = self._newest.get(task.uid)
        if task.holder != self._life.holder:
            # Of another life: the coordinator takes it back. It cannot be ours any more if it was.
            if known is not None and known.task.attempt < task.attempt:
                self._abandon(known)
            return
        if (known is not None and known.task.attempt >= task.attempt) or self._buried.covers(task.uid, task.attempt):
            return
        if known is not None:
            self._abandon(known)
        try:
            attempt = Attempt(task, task.policy(), self)
        except (KeyError, TypeError, ValueError) as error:
            self._add(attempt := Attempt(task, BUILT_IN, self))
            self._cannot_start(attempt, error)
            return
        full = len(self._waiting) + sum(not running.abandoned for running in self._processes.values()) >= self._slots
        self._add(attempt)
        if full:
            attempt.refuse(Outcome.RELEASED, EndReason.INTERRUPTED, FULL)

    # ---- what the runner says

    def on_started(self, frame: Started) -> None:
        """Pass on a `started` frame."""
        if (attempt := self._processes.get(frame["id"])) is not None:
            attempt.started(frame["startTime"])

    def on_exit(self, frame: Exit) -> None:
        """Pass on an `exit` frame."""
        if (attempt := self._processes.get(frame["id"])) is not None:
            attempt.exited(frame)
            self.advance()

    def on_runner_lost(self, reason: str) -> None:
        """End all running attempts: their processes died with the connection."""
        for attempt in list(self._processes.values()):
            attempt.lost(reason)
        self.advance()

    # ---- what the worker decides

    def advance(self) -> None:
        """Begin what can begin, or give back what cannot; call it when the runner or the Lease has changed."""
        if not self._waiting:
            return
        if not (self.open and self.runner.ready):
            if not self._advertised():
                self.give_back()
            return
        busy = {attempt.task.uid for attempt in self._processes.values()}
        for attempt in list(self._waiting.values()):
            if len(self._processes) >= self._slots:
                return
            if attempt.task.uid in busy:
                continue
            try:
                attempt.begin()
            except (FrameError, KeyError, TypeError, ValueError) as error:
                self._cannot_start(attempt, error)
            else:
                del self._waiting[attempt.task.id]
                self._processes[attempt.task.id] = attempt

    def give_back(self) -> None:
        """Release what has not begun."""
        why = RUNNER_AWAY if self.open else DRAINED
        for attempt in list(self._waiting.values()):
            attempt.refuse(Outcome.RELEASED, EndReason.INTERRUPTED, why)

    def interrupt_all(self, *, at_most: float, hurry: bool = False) -> None:
        """Stop what runs, because the worker drains; `at_most` bounds the grace, `hurry` shortens one under way."""
        for attempt in self._processes.values():
            if hurry or not attempt.stopping:
                grace = min(at_most, attempt.policy.timeouts.grace_seconds)
                attempt.stop(Outcome.INTERRUPTED, EndReason.INTERRUPTED, DRAINED, grace_seconds=grace)

    def abandon_all(self) -> None:
        """Give up everything that is not over: this life of the worker was declared dead."""
        for attempt in list(self._attempts.values()):
            self._abandon(attempt)

    # ---- what attempts say (attempt.Owner)

    def now(self) -> Instant:
        """Return the wall-clock time."""
        return Instant(self._wall_clock())

    def on_running(self, attempt: Attempt, started: Instant) -> None:
        """Report that an attempt runs."""
        if not attempt.abandoned:
            attempt.report = self._spawn(self._report(attempt, started))

    def on_over(self, attempt: Attempt, ended: Ended | None) -> None:
        """Free the slot, and write the end."""
        self._processes.pop(attempt.task.id, None)
        self._waiting.pop(attempt.task.id, None)
        if attempt.report is not None:
            attempt.report.cancel()
        if ended is None:
            self._forget(attempt)
        else:
            self._observer.ended(ended)
            self._spawn(self._record(attempt, ended))

    # ---- inside

    async def _report(self, attempt: Attempt, started: Instant) -> None:
        settled = await self._writer.write(record.start(attempt.task, started=started))
        if settled in (Settled.SUPERSEDED, Settled.GONE):
            self._abandon(attempt)

    async def _record(self, attempt: Attempt, ended: Ended) -> None:
        write = record.end(attempt.task, ended, attempt.policy.retry, random=self._random)
        if await self._writer.write(write) in (Settled.SUPERSEDED, Settled.GONE):
            self._observer.superseded()
        self._forget(attempt)

    def _add(self, attempt: Attempt) -> None:
        task = attempt.task
        self._attempts[task.id] = self._newest[task.uid] = self._waiting[task.id] = attempt
        self.empty.clear()

    def _forget(self, attempt: Attempt) -> None:
        task = attempt.task
        self._buried.bury(task.uid, task.attempt)
        del self._attempts[task.id]
        if self._newest.get(task.uid) is attempt:
            del self._newest[task.uid]
        if not self._attempts:
            self.empty.set()

    def _abandon(self, attempt: Attempt) -> None:
        if attempt.state is not State.OVER and not attempt.abandoned:
            self._observer.superseded()
            if attempt.report is not None and attempt.report is not asyncio.current_task():
                attempt.report.cancel()
            attempt.abandon()

    def _cannot_start(self, attempt: Attempt, error: Exception) -> None:
        logger.error("assigned task cannot be started", extra={"task": attempt.task.name, "error": repr(error)})
        why = f"the worker cannot read the Task: {type(error).__name__}: {error}"
        attempt.refuse(Outcome.FAILED, EndReason.START_FAILED, why)

    def _spawn(self, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(write)
        self._writes.add(task)
        task.add_done_callback(self._written)
        return task

    def _written(self, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)
