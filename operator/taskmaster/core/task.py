"""The scheduler's view of a Task: what decisions need, nothing more.

A cached Task must be small (a hundred thousand of them are normal), so free-form content (command, environment,
result) stays in the API server: the worker reads it from its own watch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NewType

from taskmaster.core.phase import ASSIGNED_PHASES, TERMINAL, Phase
from taskmaster.core.policy import TTL_FAILED_SECONDS, TTL_SUCCEEDED_SECONDS, Policy
from taskmaster.core.retry import Spent

Instant = NewType("Instant", float)
"""A point in time on the wall clock, in seconds since the epoch."""

DEFAULT_QUEUE = "default"
"""The queue that always exists."""


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
    created: Instant
    phase: Phase
    reason: str
    attempt: int
    holder: Holder | None
    started: Instant | None
    completed: Instant | None
    not_before: Instant | None
    ttl_seconds: int | None
    policy: Policy
    spent: Spent
    attempts: tuple[Mapping[str, Any], ...]
    """The records of past attempts as they stand in status, kept only while another one may be appended."""

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
        ttl = self.ttl_seconds
        if ttl is None:
            ttl = TTL_SUCCEEDED_SECONDS if self.phase is Phase.SUCCEEDED else TTL_FAILED_SECONDS
        return Instant(self.completed + ttl)

    @property
    def edit_unanswered(self) -> bool:
        """Whether somebody changed the spec since status was last written with its generation.

        A new Task (generation 1) counts as answered: its first assignment records the generation, for free.
        """
        return self.generation > (self.observed_generation or 1)
