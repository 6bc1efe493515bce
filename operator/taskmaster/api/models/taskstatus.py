"""What became of a Task: the kind's status, written by the coordinator and the worker that holds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import ATOMIC, AnyJson, Conditions, Count, ExitCode, Model, Name, Time, Word
from taskmaster.api.models.policy import ResolvedPolicy
from taskmaster.api.models.run import Run, TaskEnvVars
from taskmaster.core.phase import Phase
from taskmaster.core.retry import Outcome
from taskmaster.core.task import StopReason


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
    slots: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """How many slots of the worker the attempt takes; not set: 1."""
    policy: ResolvedPolicy
    """Timeouts and budgets as resolved from the Task, its template, its queue and the defaults."""


class ResolvedRun(Model):
    """What a Task with a template runs, with the arguments in their places."""

    run: Run
    """What to run."""
    env: TaskEnvVars | None = None
    """Environment variables of the process."""
    working_dir: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    """The directory the process starts in."""
    memory_mib: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(default=None, alias="memoryMiB")
    """The memory that an attempt may use, in MiB."""


class StopRequest(Model):
    """What the coordinator asks of the worker that holds the Task, beyond what the spec says."""

    reason: StopReason
    """Cancelled, Drained or TimedOut."""
    time: Time
    """When it was asked."""


class Progress(Model):
    """How far an attempt has come, as the task itself reports it."""

    current: Annotated[int, Field(ge=0, le=9_007_199_254_740_991)] | None = None
    """How many steps are done."""
    total: Annotated[int, Field(ge=0, le=9_007_199_254_740_991)] | None = None
    """How many steps there are."""
    message: Annotated[str, Field(max_length=256)] = ""
    """What is being done, for people."""


class Checkpoint(Model):
    """What an attempt has saved for the next one."""

    attempt: Count
    """The attempt that saved it."""
    time: Time
    """When it was saved."""
    data: AnyJson = None
    """Any JSON of at most 16 KiB."""


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
    """Succeeded, Failed (the task's fault), WorkerLost, Interrupted, Suspended, Cancelled, or Released (never
    started)."""
    reason: Word = ""
    """Why, as one typed word."""
    message: Annotated[str, Field(max_length=256)] = ""
    """Why, for people."""
    exit_code: ExitCode | None = None
    """The exit code of the process, if it had one."""
    signal: Count | None = None
    """The signal that killed the process, if one did."""


class TaskStatus(Model):
    """What became of the Task. Written by the coordinator and by the worker that holds the Task, never by users."""

    phase: Phase = Phase.PENDING
    """Pending, Assigned, Running, or a final one: Succeeded, Failed, Cancelled, Skipped."""

    reason: Word | None = None
    """Why the Task is in this phase, as one typed word; empty when there is nothing to say yet."""

    message: Annotated[str, Field(max_length=1_024)] | None = None
    """Why the Task is in this phase, for people."""

    observed_generation: Count | None = None
    """The generation of the spec that this status speaks of."""

    observed_retry_request: Annotated[str, Field(max_length=64)] | None = None
    """The spec.retryRequest that the current run answers."""

    run_number: Count = 1
    """How often the Task has been run from the start: one more for each retryRequest."""

    attempt: Count = 0
    """The number of the current or latest attempt. It only grows: with the uid it is a fencing token."""

    assignment: AssignmentStatus | None = None
    """The worker that holds the current attempt; after the end, the one that held the last."""

    resolved_run: ResolvedRun | None = None
    """What the template and the arguments came to, as of the first assignment. It holds for all attempts and runs."""

    stop_request: StopRequest | None = None
    """What the coordinator asks of the worker that holds the current attempt."""

    queued_time: Time | None = None
    """Since when the Task has been waiting, if it is Pending; not set: since its creation."""

    not_before_time: Time | None = None
    """While Pending: no attempt starts before this time."""

    deadline_time: Time | None = None
    """When timeouts.totalSeconds are over."""

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

    runner_deaths: Count | None = None
    """How many of the latest attempts, in a row, ended because the runner container died. After two the Task runs alone
    on a worker; after three it has failed."""

    dead_lettered: bool = False
    """Whether the Task failed because a budget or its time ran out, rather than by its own or a rule's decision."""

    progress: Progress | None = None
    """How far the Task has come, as the latest attempt that said anything says."""

    checkpoint: Checkpoint | None = None
    """What the next attempt may go on from."""

    result: AnyJson = None
    """What the Task returned, or wrote to $TASK_RESULT_FILE: any JSON value of at most 32 KiB."""

    exit_code: ExitCode | None = None
    """The exit code of the last attempt's process, once the Task has finished; that of others is in `attempts`."""

    log_tail: Annotated[str, Field(max_length=4_096)] | None = None
    """The last 4 KiB that the last attempt wrote to stdout and stderr, made safe to print."""

    attempts: Annotated[list[AttemptRecord], Field(max_length=10, json_schema_extra=ATOMIC)] | None = None
    """The last ten ended attempts, oldest first."""

    conditions: Conditions | None = None
    """Scheduled, Succeeded, Finished (True on any end), Stalled when the Task failed or cannot run as it stands,
    DeadLettered when a budget ran out, Suspended while it is held."""
