"""Whether an ended attempt is tried again, and when.

Three budgets, none of which can loop for ever: failures of the task itself, lost workers, interruptions. At most one of
them is charged for an attempt that did not succeed. The agent and the coordinator share this function, so that a failed
attempt costs one write whoever makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Final, assert_never

from taskmaster.core.phase import Phase
from taskmaster.core.policy import Backoff, Jitter, Policy, RetryRule, RuleAction
from taskmaster.core.reason import EndReason

DEATHS_TO_RUN_ALONE: Final = 2
"""After so many deaths of the runner container in a row a Task runs where no other does; one more and it has failed."""

_KILLED_BY_US: Final = frozenset({EndReason.TIMED_OUT, EndReason.STALLED, EndReason.OUT_OF_MEMORY})
"""Reasons with which exit code and signal say how we ended the process, and nothing about the task."""


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
    """Never started (the worker was full, about to leave, or out of processes): charged to nothing."""
    SUSPENDED = "Suspended"
    """Stopped by `spec.suspend`: charged to nothing."""
    CANCELLED = "Cancelled"
    """Stopped by `spec.cancel`, or by a `stopRequest` for that reason: there is no next attempt."""


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended, as far as it matters for what follows."""

    outcome: Outcome
    reason: EndReason
    exit_code: int | None = field(default=None, kw_only=True)
    signal: int | None = field(default=None, kw_only=True)
    error_types: tuple[str, ...] = field(default=(), kw_only=True)
    """The class of the Python exception and its bases, each by its bare and its qualified name."""
    http_status: int | None = field(default=None, kw_only=True)
    retry_after: float | None = field(default=None, kw_only=True)
    """What the task itself (or the server that it asked) said: the next attempt after so many seconds."""
    final: bool = field(default=False, kw_only=True)
    """Another attempt makes no sense: the task itself said so, or what it asks for is forbidden."""
    runner_died: bool = field(default=False, kw_only=True)
    """The runner container died, perhaps of this Task. Not set when the whole pod went."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run of a Task has used of its budgets so far."""

    failures: int = 0
    worker_losses: int = 0
    interruptions: int = 0
    runner_deaths: int = 0
    """Deaths of the runner container in a row; an attempt that ends otherwise clears it."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The Task ends here."""

    phase: Phase
    reason: EndReason
    spent: Spent
    dead_lettered: bool = False
    """We gave up, rather than the task or a person saying that it is over."""
    note: str = ""
    """Why it ends, where the attempt's own reason does not say so."""


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
    policy: Policy, spent: Spent, end: AttemptEnd, *, seconds_left: float | None, random: Random
) -> RetryDecision:
    """Decide what follows an attempt.

    A first lost worker or an interruption is followed at once: it says nothing about the task. Further lost workers
    back off like failures, because a task that kills its worker looks just like that.

    Args:
        policy: The budgets, the backoff and the rules.
        spent: The budgets as they stood before this attempt.
        end: How it ended.
        seconds_left: What is left of `timeouts.total_seconds`; None if there is no such bound.
        random: For the jitter.
    """
    decision = _decide(policy, spent, end, random)
    if isinstance(decision, Finish) or seconds_left is None or end.outcome is Outcome.SUSPENDED:
        return decision
    if decision.delay >= seconds_left:
        note = f"no time is left for another attempt: timeouts.totalSeconds = {policy.timeouts.total_seconds}"
        return Finish(Phase.FAILED, EndReason.TIMED_OUT, decision.spent, dead_lettered=True, note=note)
    return decision


def matching_rule(rules: tuple[RetryRule, ...], end: AttemptEnd) -> RetryRule | None:
    """Return the first rule that matches a failure; None if there is none."""
    return next((rule for rule in rules if _matches(rule, end)), None)


def _matches(rule: RetryRule, end: AttemptEnd) -> bool:
    its_own = end.reason not in _KILLED_BY_US
    return (
        (its_own and (end.exit_code in rule.exit_codes or end.signal in rule.signals))
        or end.http_status in rule.http_statuses
        or end.reason in rule.reasons
        or any(name in rule.error_types for name in end.error_types)
    )


def _decide(policy: Policy, spent: Spent, end: AttemptEnd, random: Random) -> RetryDecision:
    deaths = spent.runner_deaths + 1 if end.runner_died else 0
    match end.outcome:
        case Outcome.SUCCEEDED:
            return Finish(Phase.SUCCEEDED, end.reason, replace(spent, runner_deaths=deaths))
        case Outcome.CANCELLED:
            return Finish(Phase.CANCELLED, end.reason, replace(spent, runner_deaths=deaths))
        case Outcome.RELEASED:
            return Again(end.retry_after or 0.0, spent)
        case Outcome.SUSPENDED:
            return Again(0.0, replace(spent, runner_deaths=deaths))
        case Outcome.FAILED:
            spent = replace(spent, failures=spent.failures + 1, runner_deaths=deaths)
            return _after_failure(policy, spent, end, random)
        case Outcome.WORKER_LOST:
            spent = replace(spent, worker_losses=spent.worker_losses + 1, runner_deaths=deaths)
            return _after_loss(policy, spent, random)
        case Outcome.INTERRUPTED:
            spent = replace(spent, interruptions=spent.interruptions + 1, runner_deaths=deaths)
            limit = policy.retry.interruption_limit
            if spent.interruptions > limit:
                return _exhausted(spent, f"retry.interruptionLimit = {limit}")
            return Again(0.0, spent)
    assert_never(end.outcome)


def _after_failure(policy: Policy, spent: Spent, end: AttemptEnd, random: Random) -> RetryDecision:
    # Code that raises RetryAfter or Fail has decided for itself; the rules are for what nobody has decided. A server
    # that says when to ask again does not decide whether to.
    if end.final:
        return Finish(Phase.FAILED, end.reason, spent)
    decided = end.retry_after is not None and end.http_status is None
    rule = None if decided else matching_rule(policy.retry.rules, end)
    if rule is not None and rule.action is RuleAction.FAIL:
        return Finish(Phase.FAILED, EndReason.RULE_MATCHED, spent, note=f"retry rule {rule.name}")
    if spent.failures > policy.retry.limit:
        return Finish(Phase.FAILED, end.reason, spent, dead_lettered=True)
    if end.retry_after is not None:
        return Again(end.retry_after, spent)
    return Again(backoff_delay(policy.retry.backoff, spent.failures, random), spent)


def _after_loss(policy: Policy, spent: Spent, random: Random) -> RetryDecision:
    if spent.runner_deaths > DEATHS_TO_RUN_ALONE:
        note = f"the runner container died under this Task {spent.runner_deaths} times in a row, at last without others"
        return Finish(Phase.FAILED, EndReason.RUNNER_KILLED, spent, dead_lettered=True, note=note)
    limit, losses = policy.retry.worker_loss_limit, spent.worker_losses
    if losses > limit:
        return _exhausted(spent, f"retry.workerLossLimit = {limit}")
    return Again(0.0 if losses == 1 else backoff_delay(policy.retry.backoff, losses - 1, random), spent)


def _exhausted(spent: Spent, budget: str) -> Finish:
    note = f"{budget} is used up"
    return Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, spent, dead_lettered=True, note=note)
