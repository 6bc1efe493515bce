"""From objects of the API server to the values that decisions are made of.

The API server has checked them against the schema, but not with *our* version of it: unknown fields are ignored, and
an unknown word in a known field raises, so that the informer leaves that object alone and says so.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from taskmaster.api import names
from taskmaster.api.times import from_wire
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import TERMINAL, Phase
from taskmaster.core.policy import BUILT_IN, Backoff, Jitter, Policy, RetryPolicy, Timeouts
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
    return Task(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        resource_version=metadata["resourceVersion"],
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration"),
        queue=spec.get("queue", DEFAULT_QUEUE),
        priority=spec.get("priority", 0),
        created=from_wire(metadata["creationTimestamp"]),
        phase=phase,
        reason=status.get("reason") or "",
        attempt=status.get("attempt", 0),
        holder=_holder(assignment) if assignment else None,
        started=_time(status, "startTime"),
        completed=_time(status, "completionTime"),
        not_before=_time(status, "notBeforeTime"),
        ttl_seconds=spec.get("ttlSecondsAfterFinished"),
        policy=requested_policy(spec),
        spent=Spent(status.get("failures", 0), status.get("workerLosses", 0), status.get("interruptions", 0)),
        attempts=() if phase in TERMINAL else tuple(status.get("attempts") or ()),
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
        backoff.get("initialSeconds", BUILT_IN.retry.backoff.initial_seconds),
        backoff.get("factor", BUILT_IN.retry.backoff.factor),
        backoff.get("maxSeconds", BUILT_IN.retry.backoff.max_seconds),
        backoff.get("jitter", BUILT_IN.retry.backoff.jitter.value),
        timeouts.get("attemptSeconds", BUILT_IN.timeouts.attempt_seconds),
        timeouts.get("graceSeconds", BUILT_IN.timeouts.grace_seconds),
    )


@lru_cache(maxsize=4_096)
def _policy(
    limit: int,
    worker_loss_limit: int,
    interruption_limit: int,
    initial_seconds: int,
    factor: int,
    max_seconds: int,
    jitter: str,
    attempt_seconds: int,
    grace_seconds: int,
) -> Policy:
    """Build a policy; Tasks are many and policies few, so equal ones are shared."""
    backoff = Backoff(initial_seconds, factor, max_seconds, Jitter(jitter))
    retry = RetryPolicy(limit, worker_loss_limit, interruption_limit, backoff)
    return Policy(retry, Timeouts(attempt_seconds, grace_seconds))


def assigned_policy(assignment: Object) -> Policy:
    """Decode `status.assignment.policy`."""
    policy = assignment["policy"]
    backoff = policy["backoff"]
    return _policy(
        policy["retryLimit"],
        policy["workerLossLimit"],
        policy["interruptionLimit"],
        backoff["initialSeconds"],
        backoff["factor"],
        backoff["maxSeconds"],
        backoff["jitter"],
        policy["attemptSeconds"],
        policy["graceSeconds"],
    )


def encode_policy(policy: Policy) -> Object:
    """Encode a policy for `status.assignment.policy`."""
    retry, backoff = policy.retry, policy.retry.backoff
    return {
        "attemptSeconds": policy.timeouts.attempt_seconds,
        "graceSeconds": policy.timeouts.grace_seconds,
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
