"""Timeouts, retries and how long finished Tasks are kept: what is asked for, and what it was resolved to.

No field for which a template or a queue may give the default has a schema default: the coordinator resolves it at
assignment into `status.assignment.policy`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import ATOMIC, ExitCode, HTTPStatus, Label, Model, PositiveSeconds, Seconds, Word
from taskmaster.core.policy import Jitter, RuleAction

Budget = Annotated[int, Field(ge=0, le=10_000)]
ErrorType = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]


class TimeoutsSpec(Model):
    """Bounds on the time that a Task may take, each in seconds."""

    pending_seconds: PositiveSeconds | None = None
    """How long the Task may wait at a time, in seconds, before it is Skipped with the reason Expired. It counts from
    the creation, the end of the last attempt or its backoff, a resumption, or a retryRequest. Default: no bound."""

    attempt_seconds: PositiveSeconds | None = None
    """How long one attempt may run, in seconds, before it is stopped and counts as failed. Default 3600."""

    total_seconds: PositiveSeconds | None = None
    """How long the Task may take from its first assignment to its end, in seconds, all attempts and the waits between
    them included; time in suspension does not count. Then it has Failed with the reason TimedOut. Default: no bound."""

    stall_seconds: PositiveSeconds | None = None
    """How long an attempt may go without output, progress or checkpoint, in seconds, before it is stopped and counts as
    failed with the reason Stalled. Default: no bound."""

    grace_seconds: Seconds | None = None
    """How many seconds lie between SIGTERM and SIGKILL when an attempt is stopped. Default 20."""


class BackoffSpec(Model):
    """How long to wait between attempts: initialSeconds times factor for each failure, capped at maxSeconds."""

    initial_seconds: Seconds | None = None
    """The backoff after the first failure, in seconds. Default 2."""

    factor: Annotated[int, Field(ge=1, le=100)] | None = None
    """By what the backoff is multiplied with each further failure. Default 2."""

    max_seconds: Seconds | None = None
    """The longest backoff, in seconds. Default 300."""

    jitter: Jitter | None = None
    """Full spreads each wait evenly between nothing and the whole backoff; None waits exactly. Default Full."""


class RetryRuleSpec(Model):
    """What to do about certain failures. It matches if any of its lists contains what happened."""

    name: Label
    """The name of the rule, for the message of a Task that it ended."""

    on_exit_codes: Annotated[list[ExitCode], Field(max_length=64, json_schema_extra=ATOMIC)] | None = None
    """Exit codes of the process."""

    on_signals: (
        Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(max_length=64, json_schema_extra=ATOMIC)] | None
    ) = None
    """Numbers of signals that killed the process, such as 11 for SIGSEGV."""

    on_error_types: Annotated[list[ErrorType], Field(max_length=32, json_schema_extra=ATOMIC)] | None = None
    """Python exceptions, such as ValueError or requests.exceptions.Timeout; a base class matches, too."""

    on_reasons: Annotated[list[Word], Field(max_length=32, json_schema_extra=ATOMIC)] | None = None
    """Reasons of the attempt, such as TimedOut, Stalled or OutOfMemory."""

    on_http_statuses: Annotated[list[HTTPStatus], Field(max_length=64, json_schema_extra=ATOMIC)] | None = Field(
        default=None, alias="onHTTPStatuses"
    )
    """Statuses of the answer to run.http."""

    action: RuleAction
    """Retry (within retry.limit) or Fail (at once)."""


class RetrySpec(Model):
    """How often a Task is tried again. Each kind of failure has a budget of its own."""

    limit: Budget | None = None
    """Retries after failures of the task itself (exit code, exception, timeout). Default 3."""

    worker_loss_limit: Budget | None = None
    """Retries after the worker died or went silent under the Task. Default 5."""

    interruption_limit: Budget | None = None
    """Retries after the worker was drained before the Task had ended. Default 20."""

    backoff: BackoffSpec | None = None
    """How long to wait before the next attempt."""

    rules: Annotated[list[RetryRuleSpec], Field(max_length=16, json_schema_extra=ATOMIC)] | None = None
    """Asked in order when an attempt has failed by the task's own fault; the first that matches decides."""


class BackoffPolicy(Model):
    """A backoff with nothing left open."""

    initial_seconds: Seconds
    """The backoff after the first failure, in seconds."""
    factor: Annotated[int, Field(ge=1, le=100)]
    """By what the backoff is multiplied with each further failure."""
    max_seconds: Seconds
    """The longest backoff, in seconds."""
    jitter: Jitter
    """How waits are spread."""


class ResolvedPolicy(Model):
    """Timeouts and budgets of an attempt with nothing left open; the worker reads only this."""

    attempt_seconds: PositiveSeconds
    """How long the attempt may run, in seconds."""
    grace_seconds: Seconds
    """Seconds between SIGTERM and SIGKILL."""
    retry_limit: Budget
    """Retries after failures of the task itself."""
    worker_loss_limit: Budget
    """Retries after lost workers."""
    interruption_limit: Budget
    """Retries after interruptions."""
    backoff: BackoffPolicy
    """Backoff between attempts."""
    total_seconds: PositiveSeconds | None = None
    """How long the whole run may take, in seconds; not set: no bound."""
    stall_seconds: PositiveSeconds | None = None
    """How long the attempt may show no sign of life, in seconds; not set: no bound."""
    rules: Annotated[list[RetryRuleSpec], Field(max_length=16, json_schema_extra=ATOMIC)] | None = None
    """Retry rules."""
