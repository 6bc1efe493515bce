"""What a Task is allowed: timeouts, retry budgets and backoff, as resolved at assignment.

The coordinator resolves a policy from the Task, its template, its queue and the built-in defaults below, field by field
in this order, and pins it in `status.assignment.policy`; the agent reads only that. So both decide alike, whatever
their versions' defaults are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final


class Jitter(StrEnum):
    """How a backoff is spread, so that Tasks which failed together do not return together."""

    FULL = "Full"
    """Uniform between nothing and the whole backoff (Amazon's "full jitter")."""

    NONE = "None"
    """The exact backoff."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff between the failures of a Task: `initial * factor**n`, capped at `max`, in seconds."""

    initial_seconds: int = 2
    factor: int = 2
    max_seconds: int = 300
    jitter: Jitter = Jitter.FULL


class RuleAction(StrEnum):
    """What follows a failure that a rule matches."""

    RETRY = "Retry"
    """Another attempt, if `retry.limit` allows."""

    FAIL = "Fail"
    """The Task fails, whatever is left of its budget."""


@dataclass(frozen=True, slots=True)
class RetryRule:
    """Matches a failure if any of its lists contains what happened."""

    name: str
    action: RuleAction
    exit_codes: tuple[int, ...] = ()
    signals: tuple[int, ...] = ()
    error_types: tuple[str, ...] = ()
    """Names of Python exceptions, bare or with their module; a base class matches, as in `except`."""
    reasons: tuple[str, ...] = ()
    http_statuses: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The three budgets of a Task: its own failures, lost workers, interruptions. Each counts retries, not attempts."""

    limit: int = 3
    worker_loss_limit: int = 5
    interruption_limit: int = 20
    backoff: Backoff = field(default_factory=Backoff)
    rules: tuple[RetryRule, ...] = ()
    """Asked in order about each failure of the task itself; the first that matches decides."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Bounds in seconds; None is no bound. Those of an attempt are measured on the worker's monotonic clock."""

    attempt_seconds: int = 3_600
    grace_seconds: int = 20
    pending_seconds: int | None = None
    """How long a Task may wait at a time."""
    total_seconds: int | None = None
    """From the first assignment of a run to its end, waiting and backoff included."""
    stall_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Ttl:
    """How long a finished Task is kept, in seconds."""

    succeeded_seconds: int = 3_600
    failed_seconds: int = 86_400
    """When it ended otherwise."""
    dead_letter_seconds: int = 604_800
    """Longer: somebody should get to see it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that is needed to judge an attempt, and a finished Task, without asking anyone."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    ttl: Ttl = field(default_factory=Ttl)


BUILT_IN: Final = Policy()
"""The policy of a Task that says nothing. This is the one table of defaults."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What one place (a Task, a template, a queue) says about a policy: only what it names, the rest is None."""

    limit: int | None = None
    worker_loss_limit: int | None = None
    interruption_limit: int | None = None
    initial_seconds: int | None = None
    factor: int | None = None
    max_seconds: int | None = None
    jitter: Jitter | None = None
    rules: tuple[RetryRule, ...] | None = None
    attempt_seconds: int | None = None
    grace_seconds: int | None = None
    pending_seconds: int | None = None
    total_seconds: int | None = None
    stall_seconds: int | None = None
    succeeded_seconds: int | None = None
    failed_seconds: int | None = None
    dead_letter_seconds: int | None = None


SAYS_NOTHING: Final = Overrides()


@lru_cache(maxsize=4_096)
def resolve(*places: Overrides) -> Policy:
    """Return the policy that follows from several places, the most specific first.

    Tasks are many and policies few, so equal ones are shared.
    """
    said: dict[str, Any] = {}
    for place in reversed(places):
        said |= {each.name: value for each in fields(place) if (value := getattr(place, each.name)) is not None}
    backoff = _built(Backoff, said)
    return Policy(_built(RetryPolicy, {**said, "backoff": backoff}), _built(Timeouts, said), _built(Ttl, said))


def _built(kind: type[Any], said: Mapping[str, Any]) -> Any:
    return kind(**{each.name: said[each.name] for each in fields(kind) if each.name in said})
