"""All attempts of this worker: which of the assigned Tasks run, and what is written about them.

From the watch comes what is assigned; `_reconcile` answers each Task with one of: it is known (and may ask for a stop,
by `spec.cancel`, `spec.suspend` or `status.stopRequest`), it is not ours, it is refused because it asks for that or the
worker is full, or it waits. A waiting attempt begins as soon as its slots are free *and* no earlier attempt of the same
Task still has a process: one that was taken from us holds its slots through its grace.

While the worker does not take Tasks (draining, or without its runner) assignments that were on their way still arrive.
They are given back, but only once the Lease says so: until then the coordinator might return them in the same instant.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any, Protocol

from taskmaster.api.patches import Ended, Saved
from taskmaster.api.times import from_wire
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster.kube.informer import Delta
from taskmaster_worker.agent import record, stops
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.attempt import Attempt, Executor, State
from taskmaster_worker.agent.ending import natural
from taskmaster_worker.agent.identity import Life
from taskmaster_worker.agent.jobs import Jobs
from taskmaster_worker.agent.parents import Parents
from taskmaster_worker.agent.reader import UnresolvedError
from taskmaster_worker.agent.roster import Roster
from taskmaster_worker.agent.runner_link import Runner
from taskmaster_worker.agent.sources import Sources
from taskmaster_worker.agent.stops import Stop
from taskmaster_worker.agent.writer import Settled, StatusWriter
from taskmaster_worker.runner.frames import FrameError
from taskmaster_worker.runner.messages import FromRunner

logger = logging.getLogger(__name__)


class AttemptObserver(Protocol):
    """Receives what becomes of attempts; must be quick and must not raise."""

    def stopped(self, stop: Stop) -> None:
        """Report an attempt that is told to stop."""

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
        requests: Executor,
        sources: Sources,
        parents: Parents,
        writer: StatusWriter,
        advertised: Callable[[], bool],
        observer: AttemptObserver,
        wall_clock: Callable[[], float],
        random: Random,
    ) -> None:
        self.open = True
        """False while the worker drains."""
        self._life = life
        self._roster = Roster(slots)
        self._jobs = Jobs()
        self._runner = runner
        self._requests = requests
        self._sources = sources
        self._parents = parents
        self._writer = writer
        self._advertised = advertised
        self._observer = observer
        self._wall_clock = wall_clock
        self._random = random

    @property
    def running(self) -> int:
        """How many attempts have begun and are not over."""
        return len(self._roster.begun)

    @property
    def slots_taken(self) -> int:
        """How many slots they take."""
        return self._roster.taken

    @property
    def empty(self) -> asyncio.Event:
        """Set while every attempt is over and written."""
        return self._roster.empty

    async def run(self) -> None:
        """Wait for a bug in one of the writes: the process should then end, since it would have lost a record."""
        await self._jobs.run()

    # ---- what the watch says

    def on_deltas(self, deltas: Sequence[Delta[Assigned]]) -> None:
        """Follow the watch: an object that leaves the watched set is finished, taken from us, or deleted."""
        for delta in deltas:
            if delta.new is not None:
                self._reconcile(delta.new)
            elif delta.old is not None and (attempt := self._roster.known.get(delta.old.id)) is not None:
                self._abandon(attempt)
        self.advance()

    def _reconcile(self, task: Assigned) -> None:
        known = self._roster.newest.get(task.uid)
        if task.holder != self._life.holder:
            # Of another life: the coordinator takes it back. It cannot be ours any more if it was.
            if known is not None and known.task.attempt < task.attempt:
                self._abandon(known)
            return
        asked = stops.asked(task)
        if known is not None and known.task.attempt == task.attempt:
            if asked is not None:
                known.ask(asked)
            return
        if self._roster.is_old(task):
            return
        if known is not None:
            self._abandon(known)
        executor = self._requests if task.is_request else self._runner
        try:
            attempt = Attempt(task, task.policy(), self, executor, slots=task.slots, deadline=task.deadline())
        except (KeyError, TypeError, ValueError) as error:
            self._roster.add(attempt := Attempt(task, BUILT_IN, self, executor, deadline=None))
            self._cannot_start(attempt, error)
            return
        refusal = asked or self._roster.objection(attempt)
        self._roster.add(attempt)
        if refusal is not None:
            attempt.refuse(refusal)

    # ---- what runner and requests say

    def on_frame(self, frame: FromRunner) -> None:
        """Take what the runner says about an attempt.

        Raises:
            KeyError, TypeError, ValueError: the frame is not whole; the attempt is as it was.
        """
        if (attempt := self._roster.begun.get(frame["id"])) is None:
            return
        if frame["type"] == "started":
            attempt.started(from_wire(frame["startTime"]))
        elif frame["type"] == "progress":
            attempt.saves.progress(frame["progress"])
        elif frame["type"] == "checkpoint":
            attempt.saves.checkpoint(frame["sequence"], frame["data"])
        elif frame["type"] == "stalled":
            attempt.stalled()
        else:
            attempt.ended(natural(frame))

    def on_request_started(self, attempt_id: str, started: Instant) -> None:
        """Take note that a request is on its way."""
        if (attempt := self._roster.begun.get(attempt_id)) is not None:
            attempt.started(started)

    def on_request_ended(self, attempt_id: str, ended: Ended) -> None:
        """Take note that a request has been answered, or never will."""
        if (attempt := self._roster.begun.get(attempt_id)) is not None:
            attempt.ended(ended)

    def on_runner_lost(self, reason: str, *, died: bool) -> None:
        """End all attempts that the runner had: their processes died with the connection."""
        for attempt in list(self._roster.begun.values()):
            if attempt.executor is self._runner:
                attempt.lost(reason, runner_died=died)

    # ---- what the worker decides

    def advance(self) -> None:
        """Begin what can begin, or give back what cannot; call it when the runner or the Lease has changed."""
        if not self._roster.waiting:
            return
        if not (self.open and self._runner.ready):
            if not self._advertised():
                self.give_back()
            return
        for attempt in self._roster.beginnable():
            self._roster.begin(attempt)
            try:
                attempt.begin()
            except (FrameError, KeyError, TypeError, ValueError) as error:
                self._cannot_start(attempt, error)

    def give_back(self) -> None:
        """Release what has not begun."""
        for attempt in list(self._roster.waiting.values()):
            attempt.refuse(stops.RUNNER_AWAY if self.open else stops.LEAVING)

    def interrupt_all(self, *, at_most: float, hurry: bool = False) -> None:
        """Stop what runs, because the worker drains; `at_most` bounds the grace, `hurry` shortens one under way."""
        for attempt in list(self._roster.begun.values()):
            if hurry or not attempt.stopping:
                attempt.stop(stops.DRAIN, grace_seconds=min(at_most, attempt.policy.timeouts.grace_seconds))

    def abandon_all(self) -> None:
        """Give up everything that is not over: this life of the worker was declared dead."""
        for attempt in list(self._roster.known.values()):
            self._abandon(attempt)

    # ---- what attempts say (attempt.Owner)

    def now(self) -> Instant:
        """Return the wall-clock time."""
        return Instant(self._wall_clock())

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background; what it raises is a bug that ends the worker."""
        return self._jobs.spawn(work)

    def prepare(self, attempt: Attempt) -> asyncio.Task[None]:
        """Read what an attempt needs, then start or refuse it."""
        return self.spawn(self._prepare(attempt))

    def on_stop(self, stop: Stop) -> None:
        """Count it."""
        self._observer.stopped(stop)

    async def write(self, write: record.StatusWrite) -> Settled:
        """Perform a write."""
        return await self._writer.write(write)

    def on_checkpointed(self, task: Assigned, sequence: int, error: str | None) -> None:
        """Tell the task what became of its checkpoint."""
        self._runner.checkpointed(task.id, sequence, error)

    def on_superseded(self, task: Assigned) -> None:
        """Give up what was taken from us."""
        self._abandon(self._roster.known[task.id])

    def on_over(self, attempt: Attempt, ended: Ended | None) -> None:
        """Free the slots, and write the end."""
        self._roster.release(attempt)
        saved = attempt.saves.close()
        if ended is None:
            self._roster.forget(attempt)
        else:
            self._observer.ended(ended)
            self.spawn(self._record(attempt, ended, saved))
        asyncio.get_running_loop().call_soon(self.advance)

    # ---- inside

    async def _prepare(self, attempt: Attempt) -> None:
        task = attempt.task
        try:
            results = await self._parents.read(task.parents())
            values = await self._sources.read(task.references())
        except UnresolvedError as error:
            attempt.refuse(Stop(Outcome.FAILED, error.reason, str(error)), final=error.final)
            return
        if attempt.executor is self._runner and not self._runner.ready:
            attempt.refuse(stops.RUNNER_AWAY)
            return
        try:
            attempt.start(values, results)
        except (FrameError, KeyError, TypeError, ValueError) as error:
            self._cannot_start(attempt, error)

    async def _record(self, attempt: Attempt, ended: Ended, saved: Saved) -> None:
        left = None if attempt.deadline is None else attempt.deadline - ended.ended
        write = record.end(attempt.task, ended, attempt.policy, seconds_left=left, random=self._random, saved=saved)
        if await self._writer.write(write) in (Settled.SUPERSEDED, Settled.GONE):
            self._observer.superseded()
        self._roster.forget(attempt)

    def _abandon(self, attempt: Attempt) -> None:
        if attempt.state is not State.OVER and not attempt.abandoned:
            self._observer.superseded()
            attempt.abandon()

    def _cannot_start(self, attempt: Attempt, error: Exception) -> None:
        logger.error("assigned task cannot be started", extra={"task": attempt.task.name, "error": repr(error)})
        why = f"the worker cannot read the Task: {type(error).__name__}: {error}"
        attempt.refuse(Stop(Outcome.FAILED, EndReason.START_FAILED, why))
