"""From objects of the API server to the values that decisions are made of.

The API server has checked them against the schema, but not with *our* version of it: unknown fields are ignored, and
an unknown word in a known field raises, so that the informer leaves that object alone and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from taskmaster.api import names
from taskmaster.api.times import from_wire
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import TERMINAL, Phase
from taskmaster.core.policy import BUILT_IN, Backoff, Jitter, Policy, RetryPolicy, RetryRule, RuleAction, Timeouts
from taskmaster.core.retry import Spent
from taskmaster.core.task import DEFAULT_QUEUE, Holder, Instant, Task

Object = dict[str, Any]


def task(obj: Object) -> Task:
    """Decode a Task.

    Raises:
        KeyError, ValueError: a field that every Task has is missing, or holds a word this version does not know.
    """
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    phase = Phase(status.get("phase", Phase.PENDING))
    assignment = status.get("assignment")
    created = from_wire(metadata["creationTimestamp"])
    return Task(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        resource_version=metadata["resourceVersion"],
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration"),
        queue=spec.get("queue", DEFAULT_QUEUE),
        priority=spec.get("priority", 0),
        cancel=spec.get("cancel", False),
        suspend=spec.get("suspend", False),
        retry_request=spec.get("retryRequest", ""),
        observed_retry_request=status.get("observedRetryRequest", ""),
        created=created,
        phase=phase,
        reason=status.get("reason") or "",
        run_number=status.get("runNumber", 1),
        attempt=status.get("attempt", 0),
        holder=_holder(assignment) if assignment else None,
        queued=_time(status, "queuedTime") or created,
        suspended=_suspended(status),
        started=_time(status, "startTime"),
        completed=_time(status, "completionTime"),
        not_before=_time(status, "notBeforeTime"),
        deadline=_time(status, "deadlineTime"),
        stop_requested="stopRequest" in status,
        dead_lettered=status.get("deadLettered", False),
        ttl_seconds=spec.get("ttlSecondsAfterFinished"),
        policy=requested_policy(spec),
        spent=spent(status),
        attempts=() if phase in TERMINAL else tuple(status.get("attempts") or ()),
    )


def spent(status: Mapping[str, Any]) -> Spent:
    """Decode the counters of a Task's status."""
    return Spent(
        failures=status.get("failures", 0),
        worker_losses=status.get("workerLosses", 0),
        interruptions=status.get("interruptions", 0),
        runner_deaths=status.get("runnerDeaths", 0),
    )


def requested_policy(spec: Object) -> Policy:
    """Resolve the policy of a Task from its spec and the built-in defaults."""
    retry, timeouts = spec.get("retry"), spec.get("timeouts")
    if not retry and not timeouts:
        return BUILT_IN
    retry, timeouts = retry or {}, timeouts or {}
    backoff = retry.get("backoff") or {}
    return _policy(
        retry.get("limit", BUILT_IN.retry.limit),
        retry.get("workerLossLimit", BUILT_IN.retry.worker_loss_limit),
        retry.get("interruptionLimit", BUILT_IN.retry.interruption_limit),
        Backoff(
            initial_seconds=backoff.get("initialSeconds", BUILT_IN.retry.backoff.initial_seconds),
            factor=backoff.get("factor", BUILT_IN.retry.backoff.factor),
            max_seconds=backoff.get("maxSeconds", BUILT_IN.retry.backoff.max_seconds),
            jitter=Jitter(backoff.get("jitter", BUILT_IN.retry.backoff.jitter)),
        ),
        _rules(retry),
        Timeouts(
            attempt_seconds=timeouts.get("attemptSeconds", BUILT_IN.timeouts.attempt_seconds),
            grace_seconds=timeouts.get("graceSeconds", BUILT_IN.timeouts.grace_seconds),
            pending_seconds=timeouts.get("pendingSeconds"),
            total_seconds=timeouts.get("totalSeconds"),
            stall_seconds=timeouts.get("stallSeconds"),
        ),
    )


@lru_cache(maxsize=4_096)
def _policy(
    limit: int,
    worker_loss_limit: int,
    interruption_limit: int,
    backoff: Backoff,
    rules: tuple[RetryRule, ...],
    timeouts: Timeouts,
) -> Policy:
    """Build a policy; Tasks are many and policies few, so equal ones are shared."""
    return Policy(RetryPolicy(limit, worker_loss_limit, interruption_limit, backoff, rules), timeouts)


def assigned_policy(assignment: Object) -> Policy:
    """Decode `status.assignment.policy`."""
    policy = assignment["policy"]
    backoff = policy["backoff"]
    return _policy(
        policy["retryLimit"],
        policy["workerLossLimit"],
        policy["interruptionLimit"],
        Backoff(backoff["initialSeconds"], backoff["factor"], backoff["maxSeconds"], Jitter(backoff["jitter"])),
        _rules(policy),
        Timeouts(
            attempt_seconds=policy["attemptSeconds"],
            grace_seconds=policy["graceSeconds"],
            total_seconds=policy.get("totalSeconds"),
            stall_seconds=policy.get("stallSeconds"),
        ),
    )


def encode_policy(policy: Policy) -> Object:
    """Encode a policy for `status.assignment.policy`; how long a Task may wait is not a worker's business."""
    retry, backoff, timeouts = policy.retry, policy.retry.backoff, policy.timeouts
    encoded: Object = {
        "attemptSeconds": timeouts.attempt_seconds,
        "graceSeconds": timeouts.grace_seconds,
        "retryLimit": retry.limit,
        "workerLossLimit": retry.worker_loss_limit,
        "interruptionLimit": retry.interruption_limit,
        "backoff": {
            "initialSeconds": backoff.initial_seconds,
            "factor": backoff.factor,
            "maxSeconds": backoff.max_seconds,
            "jitter": backoff.jitter.value,
        },
    }
    if timeouts.total_seconds is not None:
        encoded["totalSeconds"] = timeouts.total_seconds
    if timeouts.stall_seconds is not None:
        encoded["stallSeconds"] = timeouts.stall_seconds
    if retry.rules:
        encoded["rules"] = [_encode_rule(rule) for rule in retry.rules]
    return encoded


_RULE_LISTS = {
    "onExitCodes": "exit_codes",
    "onSignals": "signals",
    "onErrorTypes": "error_types",
    "onReasons": "reasons",
    "onHTTPStatuses": "http_statuses",
}


def _rules(source: Object) -> tuple[RetryRule, ...]:
    return tuple(
        RetryRule(
            rule["name"],
            RuleAction(rule["action"]),
            **{attribute: tuple(rule.get(field) or ()) for field, attribute in _RULE_LISTS.items()},
        )
        for rule in source.get("rules") or ()
    )


def _encode_rule(rule: RetryRule) -> Object:
    lists = {field: list(getattr(rule, attribute)) for field, attribute in _RULE_LISTS.items()}
    return {
        "name": rule.name,
        "action": rule.action.value,
        **{field: values for field, values in lists.items() if values},
    }


def worker(lease: Object) -> Worker:
    """Decode the Lease by which a worker registers.

    Raises:
        KeyError, ValueError: it is not the Lease of a worker, or not a whole one.
    """
    metadata = lease["metadata"]
    annotations = metadata["annotations"]
    slots = int(annotations[names.SLOTS_ANNOTATION])
    if slots < 1:
        raise ValueError(f"a worker needs at least one slot, not {slots}")
    holder = lease.get("spec", {}).get("holderIdentity")
    return Worker(
        namespace=metadata["namespace"],
        name=metadata["name"],
        pod_uid=annotations[names.POD_UID_ANNOTATION],
        pool=metadata["labels"][names.POOL_LABEL],
        incarnation=annotations[names.INCARNATION_ANNOTATION],
        node=annotations.get(names.NODE_ANNOTATION, ""),
        slots=slots,
        schedulable=annotations.get(names.STATE_ANNOTATION) == names.READY_STATE and holder == metadata["name"],
    )


def _holder(assignment: Object) -> Holder:
    return Holder(assignment["worker"], assignment["podUID"], assignment["incarnation"])


def _time(source: Object, key: str) -> Instant | None:
    text = source.get(key)
    return from_wire(text) if text else None


def _suspended(status: Object) -> Instant | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == "Suspended" and condition["status"] == "True":
            return from_wire(condition["lastTransitionTime"])
    return None
