"""The scheduler's view of a Task: what decisions need, nothing more.

A cached Task must be small (a hundred thousand of them are normal), so free-form content (command, environment,
result) stays in the API server: the worker reads it from its own watch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NewType

from taskmaster.core.phase import ASSIGNED_PHASES, TERMINAL, Phase
from taskmaster.core.policy import Overrides, Policy
from taskmaster.core.requirements import Requirements
from taskmaster.core.retry import DEATHS_TO_RUN_ALONE, Outcome, Spent

Instant = NewType("Instant", float)
"""A point in time on the wall clock, in seconds since the epoch."""

DEFAULT_QUEUE = "default"
"""The queue that always exists."""


class StopReason(StrEnum):
    """Why the coordinator asks a worker to stop an attempt (`status.stopRequest`)."""

    CANCELLED = "Cancelled"
    """Another Task took its place: the attempt ends the Task."""
    DRAINED = "Drained"
    """Its queue is being emptied: the attempt is given back."""
    TIMED_OUT = "TimedOut"
    """It has run for much longer than it may, and its worker has not noticed."""


class DependencyCondition(StrEnum):
    """How another Task has to end before one that depends on it may start."""

    SUCCEEDED = "Succeeded"
    """It has Succeeded."""
    FAILED = "Failed"
    """It has Failed."""
    FINISHED = "Finished"
    """It has ended in any way."""


@dataclass(frozen=True, slots=True)
class Dependency:
    """One entry of `spec.dependsOn`."""

    name: str
    condition: DependencyCondition = DependencyCondition.SUCCEEDED


class OnConflict(StrEnum):
    """What happens when a Task would exceed the limit of its concurrency key."""

    QUEUE = "Queue"
    """It waits."""
    REJECT = "Reject"
    """It is Skipped with the reason Rejected."""
    CANCEL_RUNNING = "CancelRunning"
    """Older Tasks of the key end as Cancelled with the reason Replaced, waiting ones first, then running ones."""
    REPLACE_PENDING = "ReplacePending"
    """Older Tasks of the key that wait end as Cancelled with the reason Replaced; running ones go on."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """A bound on how many Tasks with the same key hold a worker at a time, within a namespace."""

    key: str
    limit: int = 1
    on_conflict: OnConflict = OnConflict.QUEUE


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the current attempt: a pod, and within it one life of its agent."""

    worker: str
    pod_uid: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Task:
    """One Task as the coordinator caches it."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    generation: int
    observed_generation: int | None
    queue: str
    priority: int
    cancel: bool
    suspend: bool
    retry_request: str
    observed_retry_request: str
    created: Instant
    phase: Phase
    reason: str
    run_number: int
    attempt: int
    holder: Holder | None
    queued: Instant
    """Since when it waits, if it is Pending: its creation, the end of its last attempt, a reset, a resumption."""
    suspended: Instant | None
    """Since when `status` says that it is suspended."""
    started: Instant | None
    completed: Instant | None
    not_before: Instant | None
    deadline: Instant | None
    """When `timeouts.total_seconds` are over, once the run has begun."""
    stop_requested: bool
    dead_lettered: bool
    ttl_seconds: int | None
    overrides: Overrides
    """What the Task itself says about its policy."""
    policy: Policy
    """The policy as resolved: while a worker holds the Task, the one that was pinned."""
    spent: Spent
    attempts: tuple[Mapping[str, Any], ...]
    """The records of past attempts as they stand in status, kept only while another one may be appended."""
    slots: int | None = None
    """How many slots of its worker an attempt takes, if it says so."""
    requires: Requirements = ()
    depends_on: tuple[Dependency, ...] = ()
    start_after: Instant | None = None
    """`spec.notBeforeTime`: when the first attempt may start."""
    concurrency: Concurrency | None = None
    fairness_key: str = ""
    template: str = ""
    """The TaskTemplate that it is made of, if it is."""
    args: Mapping[str, Any] | None = None
    """The arguments for the template, kept only until they are resolved."""
    resolved: bool = False
    """Whether `status.resolvedRun` says what the template and the arguments came to."""
    schedule: str = ""
    """The TaskSchedule that it belongs to, if it does."""

    @property
    def finished(self) -> bool:
        """Whether the Task has its terminal record."""
        return self.phase in TERMINAL

    @property
    def held(self) -> bool:
        """Whether a worker holds the Task, and so a slot is taken."""
        return self.phase in ASSIGNED_PHASES and self.holder is not None

    @property
    def expires(self) -> Instant | None:
        """When the finished Task may be deleted; None while it is not finished."""
        if self.completed is None or not self.finished:
            return None
        ttl, defaults = self.ttl_seconds, self.policy.ttl
        if ttl is None and self.dead_lettered:
            ttl = defaults.dead_letter_seconds
        elif ttl is None:
            ttl = defaults.succeeded_seconds if self.phase is Phase.SUCCEEDED else defaults.failed_seconds
        return Instant(self.completed + ttl)

    @property
    def expiry(self) -> Instant | None:
        """When the waiting Task is given up: it has waited for too long, or its run has taken too long."""
        if self.phase is not Phase.PENDING or self.suspended is not None:
            return None
        waiting, total = self.policy.timeouts.pending_seconds, self.deadline
        if waiting is None:
            return total
        waited_out = Instant(max(self.queued, self.due or self.queued) + waiting)
        return waited_out if total is None else min(waited_out, total)

    @property
    def due(self) -> Instant | None:
        """The time before which no attempt starts: the later of what the spec asks for and a backoff."""
        times = [time for time in (self.start_after, self.not_before) if time is not None]
        return max(times, default=None)

    @property
    def since(self) -> Instant:
        """Since when it counts among the waiting: an attempt that ends badly does not cost a Task its place."""
        begun = self.created if self.run_number == 1 else self.queued
        return begun if self.start_after is None else max(begun, self.start_after)

    def seconds_left(self, now: Instant) -> float | None:
        """Return what is left of `timeouts.total_seconds`; None if nothing bounds the run."""
        return None if self.deadline is None else self.deadline - now

    @property
    def runs_alone(self) -> bool:
        """Whether the next attempt needs a worker without other Tasks: the runner died under the last ones."""
        return self.spent.runner_deaths >= DEATHS_TO_RUN_ALONE

    @property
    def failed_on(self) -> str | None:
        """The worker on which the last attempt failed or was lost; another one may do better."""
        if self.attempts and self.attempts[-1].get("outcome") in (Outcome.FAILED, Outcome.WORKER_LOST):
            return str(self.attempts[-1].get("worker", ""))
        return None

    @property
    def edit_unanswered(self) -> bool:
        """Whether somebody changed the spec since status was last written with its generation.

        A new Task (generation 1) counts as answered: its first assignment records the generation, for free.
        """
        return self.generation > (self.observed_generation or 1)
