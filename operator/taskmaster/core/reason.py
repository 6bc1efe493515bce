"""The words of `status.reason`: why a Task waits, and why an attempt or a Task ended.

People filter on these words (`kubectl get tasks --field-selector status.reason=…`), so a word is never renamed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class PendingReason(StrEnum):
    """Why a Task waits, the most fundamental first."""

    QUEUE_NOT_FOUND = "QueueNotFound"
    """`spec.queue` names a TaskQueue that does not exist; the Task goes on as soon as it does."""

    TEMPLATE_NOT_FOUND = "TemplateNotFound"
    """`spec.templateRef` names a TaskTemplate that does not exist; the Task goes on as soon as it does."""

    INVALID_SPEC = "InvalidSpec"
    """What the Task asks for cannot be run as it stands: its args do not fit the schema of its template."""

    DEPENDENCY_CYCLE = "DependencyCycle"
    """The Task depends on itself, through the Tasks that the message names."""

    SUSPENDED = "Suspended"
    """`spec.suspend` holds the Task; it goes on when that is false again."""

    QUEUE_PAUSED = "QueuePaused"
    """The queue starts nothing: its `spec.paused` or `spec.drain` is true."""

    WAITING_FOR_START_TIME = "WaitingForStartTime"
    """It is not yet `spec.notBeforeTime`."""

    WAITING_FOR_DEPENDENCY = "WaitingForDependency"
    """A Task of `spec.dependsOn` has not finished, or does not exist yet."""

    CONCURRENCY_LIMIT = "ConcurrencyLimit"
    """As many Tasks with the same `spec.concurrency.key` hold a worker as may."""

    RATE_LIMITED = "RateLimited"
    """The queue has started as many attempts as its `spec.rateLimit` allows for now."""

    QUEUE_LIMIT = "QueueLimit"
    """The queue runs `spec.maxRunning` Tasks, or has `spec.maxPending` waiting before this one."""

    NO_MATCHING_WORKER = "NoMatchingWorker"
    """No worker of the namespace is ready that could ever take the Task: none is there, none has the labels of
    `spec.requires`, serves its queue, or has as many slots."""

    NO_FREE_SLOT = "NoFreeSlot"
    """Workers are there, but all their slots are taken by Tasks that come first."""

    BACKING_OFF = "BackingOff"
    """The last attempt failed; the next one starts after `status.notBeforeTime`."""


NEEDS_A_PERSON: Final = frozenset(
    {
        PendingReason.QUEUE_NOT_FOUND,
        PendingReason.TEMPLATE_NOT_FOUND,
        PendingReason.INVALID_SPEC,
        PendingReason.DEPENDENCY_CYCLE,
    }
)
"""Waits that do not end by themselves: they are explained at once."""


class EndReason(StrEnum):
    """Why an attempt, and with the last attempt the Task, ended."""

    COMPLETED = "Completed"
    """It did what it should."""

    EXIT_CODE = "ExitCode"
    """The process ended with an exit code other than 0."""

    SIGNAL = "Signal"
    """The process was killed by a signal that was not ours."""

    ERROR = "Error"
    """The Python callable raised an exception, or could not be imported."""

    START_FAILED = "StartFailed"
    """The process could not be started: no such command, no such working directory."""

    OUT_OF_MEMORY = "OutOfMemory"
    """The attempt's processes used more than `resources.memoryMiB` and were killed."""

    TIMED_OUT = "TimedOut"
    """The attempt ran longer than `timeouts.attemptSeconds`, or the whole run longer than `timeouts.totalSeconds`."""

    STALLED = "Stalled"
    """The attempt showed no sign of life (output, progress, checkpoint) for `timeouts.stallSeconds`."""

    HTTP_STATUS = "HTTPStatus"
    """The answer to the request of `run.http` has a status that is not expected."""

    REQUEST_FAILED = "RequestFailed"
    """The request of `run.http` got no answer: no connection, no valid certificate, not in time."""

    SECRET_NOT_FOUND = "SecretNotFound"
    """A Secret or ConfigMap, or the key of one, that `valueFrom` names does not exist."""

    SECRET_FORBIDDEN = "SecretForbidden"
    """`valueFrom` names a Secret or ConfigMap that the WorkerPool does not list; not tried again."""

    RESULT_REJECTED = "ResultRejected"
    """The result is too large or not valid JSON, or the API server refused to store it."""

    WORKER_LOST = "WorkerLost"
    """The worker pod, its agent, its runner or the attempt's supervisor died or went silent."""

    INTERRUPTED = "Interrupted"
    """The worker was drained (rollout, scale-down, node drain) before the attempt had ended."""

    SUSPENDED = "Suspended"
    """`spec.suspend` was set while the attempt ran."""

    CANCELLED = "Cancelled"
    """`spec.cancel` was set."""

    EXPIRED = "Expired"
    """The Task waited longer than `timeouts.pendingSeconds`."""

    DEPENDENCY_FAILED = "DependencyFailed"
    """A Task of `spec.dependsOn` ended in another way than asked for, so this one makes no sense any more."""

    REJECTED = "Rejected"
    """There was no room: its `spec.concurrency` says Reject, or its queue is full and says so."""

    REPLACED = "Replaced"
    """Another Task took its place: a newer one with the same concurrency key, or the next run of its schedule."""

    RULE_MATCHED = "RuleMatched"
    """A rule of `retry.rules` with the action Fail matched; the message begins with its name."""

    RUNNER_KILLED = "RunnerKilled"
    """The runner container died under the Task three times in a row, the last time while no other Task was there."""

    BUDGET_EXHAUSTED = "BudgetExhausted"
    """The Task lost more workers, or was interrupted more often, than its budget allows."""
