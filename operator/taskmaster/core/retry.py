"""Whether an ended attempt is tried again, and when.

Three budgets, none of which can loop for ever: failures of the task itself, lost workers, interruptions. Exactly one of
them is charged for an attempt that did not succeed. The agent and the coordinator share this function, so that a failed
attempt costs one write whoever makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random
from typing import assert_never

from taskmaster.core.phase import Phase
from taskmaster.core.policy import Backoff, Jitter, RetryPolicy
from taskmaster.core.reason import EndReason


class Outcome(StrEnum):
    """How an attempt ended; also the word in `status.attempts[].outcome`."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """The task's own fault: charged to `retry.limit`."""
    WORKER_LOST = "WorkerLost"
    """The worker's fault: charged to `retry.workerLossLimit`."""
    INTERRUPTED = "Interrupted"
    """Nobody's fault: charged to `retry.interruptionLimit`."""
    RELEASED = "Released"
    """Never started (the worker was full or about to leave): charged to nothing."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a Task has used of its budgets so far."""

    failures: int = 0
    worker_losses: int = 0
    interruptions: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The Task ends here."""

    phase: Phase
    reason: EndReason
    spent: Spent


@dataclass(frozen=True, slots=True)
class Again:
    """The Task returns to Pending; `delay` seconds from now it may be assigned again (0: at once)."""

    delay: float
    spent: Spent


RetryDecision = Finish | Again


def backoff_delay(backoff: Backoff, failures: int, random: Random) -> float:
    """Return the seconds to wait after the given number of failures (1 = the first).

    Full jitter is uniform in [0, min(max, initial * factor**(failures-1))] (Marc Brooker, "Exponential Backoff And
    Jitter", Amazon, 2015).
    """
    # Past 64 doublings every backoff is capped; the bound keeps the integer small however many failures there were.
    ceiling = min(backoff.max_seconds, backoff.initial_seconds * backoff.factor ** min(failures - 1, 64))
    return random.uniform(0, ceiling) if backoff.jitter is Jitter.FULL else float(ceiling)


def next_attempt(
    policy: RetryPolicy, spent: Spent, outcome: Outcome, reason: EndReason, *, random: Random
) -> RetryDecision:
    """Decide what follows an attempt that ended with `outcome` for `reason`.

    A first lost worker or an interruption is followed at once: it says nothing about the task. Further lost workers
    back off like failures, because a task that kills its worker looks just like that.
    """
    match outcome:
        case Outcome.SUCCEEDED:
            return Finish(Phase.SUCCEEDED, reason, spent)
        case Outcome.RELEASED:
            return Again(0.0, spent)
        case Outcome.FAILED:
            spent = replace(spent, failures=spent.failures + 1)
            if spent.failures > policy.limit:
                return Finish(Phase.FAILED, reason, spent)
            return Again(backoff_delay(policy.backoff, spent.failures, random), spent)
        case Outcome.WORKER_LOST:
            spent = replace(spent, worker_losses=spent.worker_losses + 1)
            if spent.worker_losses > policy.worker_loss_limit:
                return Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, spent)
            losses = spent.worker_losses
            return Again(0.0 if losses == 1 else backoff_delay(policy.backoff, losses - 1, random), spent)
        case Outcome.INTERRUPTED:
            spent = replace(spent, interruptions=spent.interruptions + 1)
            if spent.interruptions > policy.interruption_limit:
                return Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, spent)
            return Again(0.0, spent)
    assert_never(outcome)
