"""The words of `status.reason`: why a Task waits, and why an attempt or a Task ended.

People filter on these words (`kubectl get tasks --field-selector status.reason=…`), so a word is never renamed.
"""

from __future__ import annotations

from enum import StrEnum


class PendingReason(StrEnum):
    """Why a Task waits, the most fundamental first."""

    QUEUE_NOT_FOUND = "QueueNotFound"
    """`spec.queue` names a queue that does not exist; the Task runs as soon as it names one that does."""

    NO_MATCHING_WORKER = "NoMatchingWorker"
    """No worker of the namespace is ready: there is no WorkerPool, or none of its pods is up and taking Tasks."""

    NO_FREE_SLOT = "NoFreeSlot"
    """Workers are there, but all their slots are taken by Tasks that come first."""

    BACKING_OFF = "BackingOff"
    """The last attempt failed; the next one starts after `status.notBeforeTime`."""


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

    TIMED_OUT = "TimedOut"
    """The attempt ran longer than `timeouts.attemptSeconds`."""

    RESULT_REJECTED = "ResultRejected"
    """The result is too large or not valid JSON, or the API server refused to store it."""

    WORKER_LOST = "WorkerLost"
    """The worker pod, its agent, its runner or the attempt's supervisor died or went silent."""

    INTERRUPTED = "Interrupted"
    """The worker was drained (rollout, scale-down, node drain) before the attempt had ended."""

    BUDGET_EXHAUSTED = "BudgetExhausted"
    """The Task lost more workers, or was interrupted more often, than its budget allows."""
