"""The kind Task: one unit of work.

No field for which a queue may give the default has a schema default: the coordinator resolves it at assignment into
`status.assignment.policy`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import (
    ATOMIC,
    AnyJson,
    Conditions,
    Count,
    EnvName,
    FreeForm,
    Label,
    Model,
    Name,
    Time,
    Word,
    list_by,
)
from taskmaster.core.phase import Phase
from taskmaster.core.policy import Jitter, RuleAction
from taskmaster.core.retry import Outcome
from taskmaster.core.task import StopReason

Seconds = Annotated[int, Field(ge=0, le=31_536_000)]
PositiveSeconds = Annotated[int, Field(ge=1, le=31_536_000)]
Budget = Annotated[int, Field(ge=0, le=10_000)]
ExitCode = Annotated[int, Field(ge=-2_147_483_648, le=2_147_483_647)]
HTTPStatus = Annotated[int, Field(ge=100, le=599)]
ErrorType = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]


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


class KeySelector(Model):
    """One key of a Secret or ConfigMap of the Task's namespace."""

    name: Name
    """The name of the Secret or ConfigMap; the WorkerPool has to list it."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The key in its data."""

    optional: bool = False
    """Whether to go on without it when it does not exist. Default false."""


class ValueSource(Model):
    """Where a value comes from; exactly one member is set. The worker reads it when the attempt starts."""

    secret_key_ref: KeySelector | None = None
    """A key of a Secret that the WorkerPool lists in secretNames."""

    config_map_key_ref: KeySelector | None = None
    """A key of a ConfigMap that the WorkerPool lists in configMapNames."""


class TaskEnvVar(Model):
    """One environment variable of a Task."""

    name: EnvName
    """The name of the variable."""

    value: Annotated[str, Field(max_length=32_768)] | None = None
    """The value of the variable; references to other variables are not expanded."""

    value_from: ValueSource | None = None
    """Where to take the value from instead. It never appears in the Task's status or in our logs."""


TaskEnvVars = Annotated[list[TaskEnvVar], Field(max_length=128, json_schema_extra=list_by("name"))]


class HTTPMethod(StrEnum):
    """Methods of HTTP (RFC 9110, and PATCH of RFC 5789)."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    DELETE = "DELETE"
    OPTIONS = "OPTIONS"


class HTTPHeader(Model):
    """One header of a request."""

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
    """The name of the header."""

    value: Annotated[str, Field(max_length=8_192)] | None = None
    """The value of the header."""

    value_from: ValueSource | None = None
    """Where to take the value from instead, such as a token. It never appears in the Task's status or in our logs."""


class HTTPCall(Model):
    """One HTTP request, made by the worker's agent; redirects are not followed."""

    method: HTTPMethod = HTTPMethod.GET
    """The method. Default GET."""

    url: Annotated[str, Field(max_length=2_048, pattern=r"^https?://.+$")]
    """Where to."""

    headers: Annotated[list[HTTPHeader], Field(max_length=64, json_schema_extra=ATOMIC)] | None = None
    """The headers of the request."""

    body: Annotated[str, Field(max_length=65_536)] | None = None
    """The body of the request. Name its type in a content-type header."""

    expect_status: Annotated[list[HTTPStatus], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)] | None = (
        None
    )
    """The statuses that count as success. Default: 200 to 299."""

    timeout_seconds: PositiveSeconds | None = None
    """How long to wait for the whole answer, in seconds. Default: until timeouts.attemptSeconds."""


class Run(Model):
    """What a Task runs; exactly one member is set."""

    command: (
        Annotated[
            list[Annotated[str, Field(max_length=131_072)]],
            Field(min_length=1, max_length=128, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """A program and its arguments, run without a shell. A name without a slash is looked up in PATH."""

    script: Script | None = None
    """A script, run by its interpreter."""

    python: PythonCall | None = None
    """A Python function, called in a process forked from one that has already imported the pool's `preload` modules."""

    http: HTTPCall | None = None
    """An HTTP request; the answer's status and body become the result."""


class ResourcesSpec(Model):
    """What an attempt may use of its worker."""

    memory_mib: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(default=None, alias="memoryMiB")
    """The memory that all processes of an attempt may use together, in MiB. Above it they are killed, the attempt fails
    with the reason OutOfMemory, and other Tasks of the worker go on. Default: whatever the runner container has."""


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


class TaskSpec(Model):
    """What should be run, and how."""

    queue: Label = "default"
    """The queue that orders this Task. The queue "default" always exists."""

    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    """Higher runs first; Tasks of equal priority run in the order of their creation. May be changed at any time."""

    description: Annotated[str, Field(max_length=1_024)] | None = None
    """A sentence for people."""

    run: Run
    """What to run: exactly one of command, script, python and http."""

    env: TaskEnvVars | None = None
    """Environment variables of the process."""

    working_dir: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    """The directory the process starts in, which must exist on the worker. Default: that of the worker's image."""

    resources: ResourcesSpec | None = None
    """What an attempt may use of its worker."""

    timeouts: TimeoutsSpec | None = None
    """Bounds on the time that the Task may take."""

    retry: RetrySpec | None = None
    """How often, and how soon, the Task is tried again."""

    ttl_seconds_after_finished: Seconds | None = None
    """How long the finished Task is kept, in seconds. Default 3600 when it succeeded, 604800 when it is a dead letter,
    86400 otherwise."""

    suspend: bool = False
    """Hold the Task: before its start it waits; a running attempt is stopped with its grace, at no cost to any budget,
    and false lets the Task go on from its last checkpoint. May be changed at any time."""

    cancel: bool = False
    """End the Task: at once while it waits, with its grace while it runs. It cannot be taken back, but a cancelled Task
    can be run again by a retryRequest."""

    retry_request: Annotated[str, Field(max_length=64)] = ""
    """Change it on a finished Task, to any other text, to run the Task again with fresh budgets. The last checkpoint is
    kept unless the text begins with "fresh-"."""


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
    """Scheduled, Succeeded, Finished (True on any end), Stalled when the Task failed, DeadLettered when a budget ran
    out, Suspended while it is held."""
