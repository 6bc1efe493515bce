"""The kind Task: one unit of work.

No field for which a queue may give the default has a schema default: the coordinator resolves it at assignment into
`status.assignment.policy`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import AnyJson, Conditions, Count, EnvVars, FreeForm, Label, Model, Name, Time, Word
from taskmaster.core.phase import Phase
from taskmaster.core.policy import Jitter
from taskmaster.core.retry import Outcome

Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
PositiveSeconds = Annotated[int, Field(ge=1, le=31_536_000)]
Budget = Annotated[int, Field(ge=0, le=10_000)]


class Script(Model):
    """A script and what interprets it."""

    interpreter: Annotated[str, Field(min_length=1, max_length=4_096)] = "/bin/sh"
    """The program that runs the script; it is given the path of a file with the source. Default /bin/sh."""

    source: Annotated[str, Field(min_length=1, max_length=65_536)]
    """The text of the script."""


class PythonCall(Model):
    """A call of a Python function of the worker's image, of /app, or of a ConfigMap mounted there."""

    callable: Annotated[
        str,
        Field(min_length=3, max_length=512, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"),
    ]
    """What to call, as module:function. Coroutine functions are awaited. The module is imported on the worker."""

    args: FreeForm | None = None
    """Keyword arguments of the call, any JSON."""


class Run(Model):
    """What a Task runs; exactly one member is set."""

    command: (
        Annotated[
            list[Annotated[str, Field(max_length=131_072)]],
            Field(min_length=1, max_length=128, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """A program and its arguments, run without a shell. A name without a slash is looked up in PATH."""

    script: Script | None = None
    """A script, run by its interpreter."""

    python: PythonCall | None = None
    """A Python function, called in a process forked from one that has already imported the pool's `preload` modules."""


class TimeoutsSpec(Model):
    """Bounds on the time an attempt may take."""

    attempt_seconds: PositiveSeconds | None = None
    """How long one attempt may run, in seconds, before it is stopped and counts as failed. Default 3600."""

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


class TaskSpec(Model):
    """What should be run, and how."""

    queue: Label = "default"
    """The queue that orders this Task. The queue "default" always exists."""

    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    """Higher runs first; Tasks of equal priority run in the order of their creation. May be changed at any time."""

    description: Annotated[str, Field(max_length=1_024)] | None = None
    """A sentence for people."""

    run: Run
    """What to run: exactly one of command, script and python."""

    env: EnvVars | None = None
    """Environment variables of the process."""

    working_dir: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    """The directory the process starts in, which must exist on the worker. Default: that of the worker's image."""

    timeouts: TimeoutsSpec | None = None
    """Bounds on the time an attempt may take."""

    retry: RetrySpec | None = None
    """How often, and how soon, the Task is tried again."""

    ttl_seconds_after_finished: Seconds | None = None
    """How long the finished Task is kept, in seconds. Default 3600 when it succeeded, 86400 otherwise."""


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


class AssignmentStatus(Model):
    """Which worker holds the current attempt, and under which rules."""

    worker: Name
    """The name of the worker pod."""
    pod_uid: Annotated[str, Field(alias="podUID", max_length=64)]
    """The uid of the worker pod."""
    incarnation: Annotated[str, Field(max_length=64)]
    """The life of the worker's agent that the attempt was given to; a restarted agent has another one."""
    node: Annotated[str, Field(max_length=253)] = ""
    """The node of the worker pod."""
    assigned_time: Time
    """When the coordinator decided."""
    policy: ResolvedPolicy
    """Timeouts and budgets as resolved from the Task and the defaults."""


class AttemptRecord(Model):
    """How one attempt ended."""

    attempt: Count
    """The number of the attempt."""
    worker: Annotated[str, Field(max_length=253)] = ""
    """The worker pod that held it."""
    start_time: Time | None = None
    """When its process started; not set when it never did or nobody can tell."""
    end_time: Time | None = None
    """When it ended, or was found to be lost."""
    outcome: Outcome
    """Succeeded, Failed (the task's fault), WorkerLost, Interrupted, or Released (never started)."""
    reason: Word = ""
    """Why, as one typed word."""
    message: Annotated[str, Field(max_length=256)] = ""
    """Why, for people."""
    exit_code: Annotated[int, Field(ge=-2_147_483_648, le=2_147_483_647)] | None = None
    """The exit code of the process, if it had one."""


class TaskStatus(Model):
    """What became of the Task. Written by the coordinator and by the worker that holds the Task, never by users."""

    phase: Phase = Phase.PENDING
    """Pending, Assigned, Running, Succeeded or Failed."""

    reason: Word | None = None
    """Why the Task is in this phase, as one typed word; empty when there is nothing to say yet."""

    message: Annotated[str, Field(max_length=1_024)] | None = None
    """Why the Task is in this phase, for people."""

    observed_generation: Count | None = None
    """The generation of the spec that this status speaks of."""

    attempt: Count = 0
    """The number of the current or latest attempt. It only grows: with the uid it is a fencing token."""

    assignment: AssignmentStatus | None = None
    """The worker that holds the current attempt; after the end, the one that held the last."""

    not_before_time: Time | None = None
    """While Pending: no attempt starts before this time."""

    start_time: Time | None = None
    """When the latest attempt started."""

    completion_time: Time | None = None
    """When the Task reached its final phase."""

    failures: Count | None = None
    """Attempts that failed by the task's own fault."""

    worker_losses: Count | None = None
    """Attempts that ended because the worker died or went silent."""

    interruptions: Count | None = None
    """Attempts that ended because the worker was drained."""

    result: AnyJson = None
    """What the Task returned, or wrote to $TASK_RESULT_FILE: any JSON value of at most 32 KiB."""

    exit_code: Annotated[int, Field(ge=-2_147_483_648, le=2_147_483_647)] | None = None
    """The exit code of the last attempt's process, once the Task has finished; that of others is in `attempts`."""

    log_tail: Annotated[str, Field(max_length=4_096)] | None = None
    """The last 4 KiB that the last attempt wrote to stdout and stderr, made safe to print."""

    attempts: (
        Annotated[list[AttemptRecord], Field(max_length=10, json_schema_extra={"x-kubernetes-list-type": "atomic"})]
        | None
    ) = None
    """The last ten ended attempts, oldest first."""

    conditions: Conditions | None = None
    """Scheduled, Succeeded, Finished (True on any end), and Stalled when the Task failed."""
