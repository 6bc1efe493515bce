"""What a Task is allowed: timeouts, retry budgets and backoff, as resolved at assignment.

The coordinator resolves a policy from the Task and the built-in defaults below and pins it in
`status.assignment.policy`; the agent reads only that. So both decide alike, whatever their versions' defaults are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

TTL_SUCCEEDED_SECONDS: Final = 3_600
"""How long a succeeded Task is kept when it does not say, in seconds."""

TTL_FAILED_SECONDS: Final = 86_400
"""How long a Task that ended otherwise is kept when it does not say, in seconds."""


TTL_DEAD_LETTER_SECONDS: Final = 604_800
"""How long a dead letter is kept when it does not say, in seconds: somebody should get to see it."""


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
class Policy:
    """Everything the worker needs to judge an attempt without asking anyone."""

    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)


BUILT_IN: Final = Policy()
"""The policy of a Task that says nothing. This is the one table of defaults."""
