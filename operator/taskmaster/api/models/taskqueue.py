"""The kind TaskQueue: order, fairness, limits and defaults for the Tasks that name it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import Conditions, Count, Model, PositiveSeconds, Seconds, Word
from taskmaster.api.models.policy import RetrySpec, TimeoutsSpec
from taskmaster.core.queue import Placement, WhenFull

Limit = Annotated[int, Field(ge=0, le=10_000_000)]


class RateLimit(Model):
    """A token bucket: so many attempts may start, on average, in so much time."""

    tasks: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many attempts may start in `perSeconds`."""

    per_seconds: Annotated[int, Field(ge=1, le=86_400)] = 1
    """The time in which they may, in seconds. Default 1."""

    burst: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many may start at once after a quiet time. Default: `tasks`."""


class QueueTtl(Model):
    """How long finished Tasks of the queue are kept when they do not say."""

    succeeded_seconds: Seconds | None = None
    """How long a succeeded Task is kept, in seconds. Default 3600."""

    failed_seconds: Seconds | None = None
    """How long a Task is kept that ended otherwise, in seconds. Default 86400."""


class DeadLetter(Model):
    """What becomes of dead letters: Tasks that failed because a budget or their time ran out."""

    ttl_seconds: Seconds | None = None
    """How long a dead letter is kept when it does not say, in seconds. Default 604800."""


class TaskQueueSpec(Model):
    """How the Tasks of the queue are ordered, limited and treated."""

    weight: Annotated[int, Field(ge=1, le=1_000)] = 1
    """The queue's share of the slots when queues compete: one of weight 3 gets three times the slot-seconds of one of
    weight 1. What was used is forgotten with a half-life of five minutes. Default 1."""

    max_running: Limit | None = None
    """How many Tasks of the queue may hold a worker at a time. Default: no bound."""

    max_pending: Limit | None = None
    """How many Tasks of the queue may wait. Default: no bound."""

    when_full: WhenFull = WhenFull.WAIT
    """What becomes of a Task that finds `maxPending` others waiting. Wait: it waits outside, with the reason
    QueueLimit, and enters in the order of creation. Reject: it is Skipped with the reason Rejected. Default Wait."""

    rate_limit: RateLimit | None = None
    """How many attempts may start in a time. Default: no bound."""

    paused: bool = False
    """Start nothing; what runs goes on."""

    drain: bool = False
    """Start nothing, and stop what runs, with its grace: it goes back to Pending, charged as an interruption."""

    placement: Placement = Placement.LEAST_LOADED
    """Which of the fitting workers gets a Task. LeastLoaded: the one with the smallest share of its slots taken.
    RoundRobin: the one whose last turn is longest ago. BinPack: the fullest that has room. Default LeastLoaded."""

    aging_seconds: PositiveSeconds = 60
    """So many seconds of waiting count as one point of priority. A large number makes priorities strict. Default 60."""

    retry: RetrySpec | None = None
    """Defaults for `spec.retry` of the queue's Tasks, field by field."""

    timeouts: TimeoutsSpec | None = None
    """Defaults for `spec.timeouts` of the queue's Tasks, field by field."""

    ttl: QueueTtl | None = None
    """How long finished Tasks are kept when they do not say."""

    dead_letter: DeadLetter | None = None
    """What becomes of dead letters."""


class TaskQueueStatus(Model):
    """How the queue is doing; written at most once in 5 seconds."""

    observed_generation: Count | None = None
    """The generation of the spec that this status speaks of."""

    pending: Count | None = None
    """Tasks that wait."""

    pending_by_reason: Annotated[dict[Word, Count], Field(max_length=32)] | None = None
    """How many wait for what, by the words of a Task's status.reason."""

    running: Count | None = None
    """Tasks that hold a worker."""

    oldest_pending_seconds: Count | None = None
    """How long the Task that has waited longest, of those that could run, has waited, in seconds."""

    blockers: Annotated[str, Field(max_length=1_024)] | None = None
    """Why the next Tasks do not run, with counts of workers."""

    conditions: Conditions | None = None
    """Ready: whether the queue starts Tasks; False with the reason Paused or Draining."""
