"""One attempt on this worker: a state machine driven by what its executor says, by stops, and by timers.

::

    Waiting ──begin──▶ Preparing ──start──▶ Running ──its end, or the runner is lost──▶ Over
                           │                  │ ▲
                           └──────▶ Over      └─┘ stop: SIGTERM, then SIGKILL after the grace

What executes it is the runner or, for a request, the agent itself. Preparing is reading the values that it takes from
Secrets and ConfigMaps, and the results of the Tasks that it depends on; it holds its slots and the timers run. A stop
before Running ends the attempt at once.

Nothing here waits or writes: what follows from a transition is told to the owner, at once. An abandoned attempt has
been taken from this worker; how it ends interests nobody, but its process holds its slots until it is gone.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final, Protocol

from taskmaster.api.patches import Ended
from taskmaster.core.policy import Policy
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.agent import stops
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.ending import judge, unseen
from taskmaster_worker.agent.parents import Results
from taskmaster_worker.agent.saves import Saves, SavesOwner
from taskmaster_worker.agent.sources import Values
from taskmaster_worker.agent.stops import Stop
from taskmaster_worker.runner.messages import Start

REPORT_AFTER_SECONDS: Final = 1.0
"""How long an attempt runs before that is reported: short Tasks do without the write."""


class State(Enum):
    """Where an attempt is."""

    WAITING = auto()
    PREPARING = auto()
    RUNNING = auto()
    OVER = auto()


class Executor(Protocol):
    """What runs attempts. Each start is followed by one end, unless all are lost at once."""

    def start(self, frame: Start) -> None:
        """Start an attempt.

        Raises:
            FrameError: the frame is too large.
        """

    def stop(self, attempt_id: str, grace_seconds: float) -> None:
        """Stop an attempt; may be repeated with a shorter grace."""


class Owner(SavesOwner, Protocol):
    """Who is told what an attempt does."""

    def prepare(self, attempt: Attempt) -> asyncio.Task[None]:
        """Read what it needs, then start or refuse it."""

    def on_stop(self, stop: Stop) -> None:
        """An attempt is told to stop."""

    def on_over(self, attempt: Attempt, ended: Ended | None) -> None:
        """Its process is gone; `ended` is None for an abandoned one."""


class Attempt:
    """See the module. `deadline` is the end of `timeouts.totalSeconds`; `slots` is how many it takes."""

    def __init__(
        self,
        task: Assigned,
        policy: Policy,
        owner: Owner,
        executor: Executor,
        *,
        slots: int = 1,
        deadline: Instant | None,
    ) -> None:
        self.task = task
        self.policy = policy
        self.executor = executor
        self.slots = slots
        self.deadline = deadline
        self.state = State.WAITING
        self.abandoned = False
        self.saves = Saves(task, owner)
        self._owner = owner
        self._stop: Stop | None = None
        self._sent = Instant(0.0)
        """When the first stop was sent."""
        self._started: Instant | None = None
        self._preparation: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._loop = asyncio.get_running_loop()

    @property
    def stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self._stop is not None or self.abandoned

    def begin(self) -> None:
        """Start it, or what has to be done before.

        Raises:
            FrameError, KeyError, TypeError, ValueError: the Task makes no start frame; the attempt has not begun.
        """
        self._expect(State.WAITING)
        timeouts = self.policy.timeouts
        seconds, stop = float(timeouts.attempt_seconds), stops.out_of_attempt_time(timeouts.attempt_seconds)
        if self.deadline is not None and (left := self.deadline - self._owner.now()) < seconds:
            seconds, stop = left, stops.out_of_total_time(timeouts.total_seconds)
            if left <= 0:
                self.refuse(stop)
                return
        self.state = State.PREPARING
        self._timers.append(self._loop.call_later(seconds, self._stop_for, stop))
        if self.task.references() or self.task.parents():
            self._preparation = self._owner.prepare(self)
        else:
            self.start({}, {})

    def start(self, values: Values, results: Results) -> None:
        """Start it, with what it needs: values, and the results of the Tasks that it depends on.

        Raises:
            FrameError, KeyError, TypeError, ValueError: the Task makes no start frame; the attempt has not begun.
        """
        self._expect(State.PREPARING)
        self._preparation = None
        stall_seconds = self.policy.timeouts.stall_seconds
        self.executor.start(self.task.start_frame(values, results, stall_seconds=stall_seconds))
        self.state = State.RUNNING

    def started(self, started: Instant) -> None:
        """Take note that the process exists."""
        if self.state is State.RUNNING and self._started is None:
            self._started = started
            self.saves.started(started)
            self._timers.append(self._loop.call_later(REPORT_AFTER_SECONDS, self.saves.report))

    def stalled(self) -> None:
        """Take the runner's word that it shows no sign of life."""
        self._stop_for(stops.stalled(self.policy.timeouts.stall_seconds))

    def ask(self, stop: Stop) -> None:
        """Take note of what the Task asks for, as often as it is seen."""
        if not self.stopping:
            self._stop_for(stop)
        elif stop.overrides(self._stop):
            self._stop = stop

    def stop(self, stop: Stop, *, grace_seconds: float) -> None:
        """Stop it; which of several stops says why stands in `stops`, and each may shorten the grace."""
        if self.state in (State.WAITING, State.PREPARING):
            self.refuse(stop)
            return
        self._expect(State.RUNNING)
        if self._stop is None:
            self._sent = self._owner.now()
            self._owner.on_stop(stop)
        if stop.overrides(self._stop):
            self._stop = stop
        self.executor.stop(self.task.id, grace_seconds)

    def abandon(self) -> None:
        """Give it up: it is not ours any more. A running process is stopped with its grace."""
        if self.state is State.OVER or self.abandoned:
            return
        told = self.stopping
        self.abandoned = True
        self.saves.abandon()
        if self.state is not State.RUNNING:
            self._end(None)
        elif not told:
            self.executor.stop(self.task.id, self.policy.timeouts.grace_seconds)

    def refuse(self, why: Stop, *, final: bool = False) -> None:
        """End it before it is Running; with `final` there is no next attempt."""
        self._expect(State.WAITING, State.PREPARING)
        self._end(unseen(why, started=None, now=self._owner.now(), final=final))

    def ended(self, ended: Ended) -> None:
        """Take the executor's word that nothing of it is left."""
        self._expect(State.RUNNING)
        self._end(judge(ended, self._stop, sent=self._sent))

    def lost(self, reason: str, *, runner_died: bool) -> None:
        """The runner is gone, and every process with it."""
        if self.state is State.RUNNING:
            stop = self._stop or Stop(Outcome.WORKER_LOST, EndReason.WORKER_LOST, reason)
            self._end(unseen(stop, started=self._started, now=self._owner.now(), runner_died=runner_died))

    def _stop_for(self, stop: Stop) -> None:
        if not self.stopping and self.state is not State.OVER:
            self.stop(stop, grace_seconds=self.policy.timeouts.grace_seconds)

    def _end(self, ended: Ended | None) -> None:
        self.state = State.OVER
        for timer in self._timers:
            timer.cancel()
        if self._preparation is not None and self._preparation is not asyncio.current_task():
            self._preparation.cancel()
        self._owner.on_over(self, None if self.abandoned else ended)

    def _expect(self, *states: State) -> None:
        if self.state not in states:
            raise RuntimeError(f"attempt {self.task.id} is {self.state.name}, not {states[0].name}")
