"""One attempt on this worker: a state machine driven by the runner's frames, the agent's stops, and two timers.

::

    Waiting ──begin──▶ Running ──exit frame, or the runner is lost──▶ Over
                         │ ▲
                         └─┘ stop: SIGTERM, then SIGKILL after the grace (timed out, drained, abandoned)

Nothing here waits or writes: what follows from a transition is told to the owner, at once. An abandoned attempt has
been taken from this worker; how it ends interests nobody, but its process holds its slot until it is gone.
"""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from typing import Final, Protocol

from taskmaster.api.patches import Ended
from taskmaster.api.times import from_wire
from taskmaster.core.policy import Policy
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.ending import Stop, judge, unseen
from taskmaster_worker.runner.messages import Exit, Start

REPORT_AFTER_SECONDS: Final = 1.0
"""How long an attempt runs before that is reported: short Tasks do without the write."""


class State(Enum):
    """Where an attempt is."""

    WAITING = auto()
    RUNNING = auto()
    OVER = auto()


class Runner(Protocol):
    """What an attempt needs of the link to the runner."""

    @property
    def ready(self) -> bool:
        """Whether the runner has said hello and is still there."""

    def start(self, frame: Start) -> None:
        """Send a start frame.

        Raises:
            FrameError: it does not fit into a frame.
        """

    def stop(self, attempt_id: str, grace_seconds: float) -> None:
        """Send a stop frame."""


class Owner(Protocol):
    """Who is told what an attempt does."""

    @property
    def runner(self) -> Runner:
        """Where attempts run."""

    def now(self) -> Instant:
        """Return the wall-clock time."""

    def on_running(self, attempt: Attempt, started: Instant) -> None:
        """It has been running for a second."""

    def on_over(self, attempt: Attempt, ended: Ended | None) -> None:
        """Its process is gone; `ended` is None for an abandoned one."""


class Attempt:
    """See the module."""

    def __init__(self, task: Assigned, policy: Policy, owner: Owner) -> None:
        self.task = task
        self.policy = policy
        self.state = State.WAITING
        self.abandoned = False
        self.report: asyncio.Task[None] | None = None
        """The start report, while it is being written."""
        self._owner = owner
        self._stop: Stop | None = None
        self._started: Instant | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._loop = asyncio.get_running_loop()

    @property
    def stopping(self) -> bool:
        """Whether a stop frame has been sent."""
        return self._stop is not None or self.abandoned

    def begin(self) -> None:
        """Start it.

        Raises:
            FrameError, KeyError: the Task makes no start frame; the attempt stays Waiting.
        """
        self._expect(State.WAITING)
        self._owner.runner.start(self.task.start_frame())
        self.state = State.RUNNING
        self._timers.append(self._loop.call_later(self.policy.timeouts.attempt_seconds, self._time_out))

    def started(self, start_time: str) -> None:
        """Take note that the process exists."""
        if self.state is State.RUNNING and self._started is None:
            self._started = from_wire(start_time)
            self._timers.append(
                self._loop.call_later(REPORT_AFTER_SECONDS, self._owner.on_running, self, self._started)
            )

    def stop(self, outcome: Outcome, reason: EndReason, message: str, *, grace_seconds: float) -> None:
        """Stop it; of several stops the first says why, and each may shorten the grace."""
        self._expect(State.RUNNING)
        if self._stop is None:
            self._stop = Stop(outcome, reason, message, self._owner.now())
        self._owner.runner.stop(self.task.id, grace_seconds)

    def abandon(self) -> None:
        """Give it up: it is not ours any more. A running process is stopped with its grace."""
        if self.state is State.OVER or self.abandoned:
            return
        self.abandoned = True
        if self.state is State.RUNNING:
            self._owner.runner.stop(self.task.id, self.policy.timeouts.grace_seconds)
        else:
            self._end(None)

    def refuse(self, outcome: Outcome, reason: EndReason, message: str) -> None:
        """End it before it has begun."""
        self._expect(State.WAITING)
        self._end(unseen(outcome, reason, message, started=None, now=self._owner.now()))

    def exited(self, frame: Exit) -> None:
        """Take the runner's word that no process of it is left.

        Raises:
            KeyError, TypeError, ValueError: the frame is not whole; the attempt is still Running.
        """
        self._expect(State.RUNNING)
        self._end(None if self.abandoned else judge(frame, self._stop))

    def lost(self, reason: str) -> None:
        """The runner is gone, and every process with it."""
        self._expect(State.RUNNING)
        now = self._owner.now()
        stop = self._stop or Stop(Outcome.WORKER_LOST, EndReason.WORKER_LOST, reason, now)
        ended = unseen(stop.outcome, stop.reason, stop.message, started=self._started, now=now)
        self._end(None if self.abandoned else ended)

    def _time_out(self) -> None:
        if not self.stopping:
            seconds, grace = self.policy.timeouts.attempt_seconds, self.policy.timeouts.grace_seconds
            message = f"ran longer than timeouts.attemptSeconds = {seconds} s"
            self.stop(Outcome.FAILED, EndReason.TIMED_OUT, message, grace_seconds=grace)

    def _end(self, ended: Ended | None) -> None:
        self.state = State.OVER
        for timer in self._timers:
            timer.cancel()
        self._owner.on_over(self, ended)

    def _expect(self, state: State) -> None:
        if self.state is not state:
            raise RuntimeError(f"attempt {self.task.id} is {self.state.name}, not {state.name}")
