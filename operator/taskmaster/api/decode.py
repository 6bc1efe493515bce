"""From objects of the API server to the values that decisions are made of.

The API server has checked them against the schema, but not with *our* version of it: unknown fields are ignored, and
an unknown word in a known field raises, so that the informer leaves that object alone and says so.

Each object comes with strings and numbers of its own, and the coordinator keeps many objects. What is the same in many
of them (queues, workers, policies) is therefore kept once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from typing import Any

import orjson

from taskmaster.api import names
from taskmaster.api.times import from_wire
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import ASSIGNED_PHASES, TERMINAL, Phase
from taskmaster.core.policy import SAYS_NOTHING, Jitter, Overrides, Policy, RetryRule, RuleAction, resolve
from taskmaster.core.queue import AGING_SECONDS, Placement, Queue, RateLimit, WhenFull
from taskmaster.core.requirements import Operator, Requirement, Requirements
from taskmaster.core.retry import Spent
from taskmaster.core.task import (
    DEFAULT_QUEUE,
    Concurrency,
    Dependency,
    DependencyCondition,
    Holder,
    Instant,
    OnConflict,
    Task,
)
from taskmaster.core.template import Template

Object = dict[str, Any]


def task(obj: Object) -> Task:
    """Decode a Task.

    Raises:
        KeyError, ValueError: a field that every Task has is missing, or holds a word this version does not know.
    """
    metadata, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    phase, said = Phase(status.get("phase", Phase.PENDING)), overrides(spec)
    assignment = status.get("assignment")
    created = from_wire(metadata["creationTimestamp"])
    return Task(
        uid=metadata["uid"],
        namespace=intern(metadata["namespace"]),
        name=metadata["name"],
        resource_version=metadata["resourceVersion"],
        generation=metadata["generation"],
        observed_generation=status.get("observedGeneration"),
        queue=intern(spec.get("queue", DEFAULT_QUEUE)),
        priority=spec.get("priority", 0),
        cancel=spec.get("cancel", False),
        suspend=spec.get("suspend", False),
        retry_request=spec.get("retryRequest", ""),
        observed_retry_request=status.get("observedRetryRequest", ""),
        created=created,
        phase=phase,
        reason=intern(status.get("reason") or ""),
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
        overrides=said,
        policy=assigned_policy(assignment) if assignment and phase in ASSIGNED_PHASES else resolve(said),
        spent=spent(status),
        attempts=() if phase in TERMINAL else tuple(status.get("attempts") or ()),
        slots=_slots(spec, assignment, phase),
        requires=requirements(spec.get("requires")),
        depends_on=_dependencies(spec),
        start_after=_time(spec, "notBeforeTime"),
        concurrency=_concurrency(spec),
        fairness_key=intern(spec.get("fairnessKey", "")),
        template=intern((spec.get("templateRef") or {}).get("name", "")),
        args=None if "resolvedRun" in status or phase in TERMINAL else spec.get("args"),
        resolved="resolvedRun" in status,
        schedule=intern(metadata.get("labels", {}).get(names.SCHEDULE_LABEL, "")),
    )


def spent(status: Mapping[str, Any]) -> Spent:
    """Decode the counters of a Task's status."""
    return _shared_spent(
        status.get("failures", 0),
        status.get("workerLosses", 0),
        status.get("interruptions", 0),
        status.get("runnerDeaths", 0),
    )


@lru_cache(maxsize=1_024)
def _shared_spent(failures: int, worker_losses: int, interruptions: int, runner_deaths: int) -> Spent:
    return Spent(failures, worker_losses, interruptions, runner_deaths)


def overrides(spec: Object) -> Overrides:
    """Decode what a Task, a template or a queue says about a policy."""
    retry, timeouts, ttl = spec.get("retry"), spec.get("timeouts"), spec.get("ttl")
    dead_letter = spec.get("deadLetter")
    if not (retry or timeouts or ttl or dead_letter):
        return SAYS_NOTHING
    retry, timeouts, ttl = retry or {}, timeouts or {}, ttl or {}
    backoff = retry.get("backoff") or {}
    return _shared(
        limit=retry.get("limit"),
        worker_loss_limit=retry.get("workerLossLimit"),
        interruption_limit=retry.get("interruptionLimit"),
        initial_seconds=backoff.get("initialSeconds"),
        factor=backoff.get("factor"),
        max_seconds=backoff.get("maxSeconds"),
        jitter=Jitter(backoff["jitter"]) if "jitter" in backoff else None,
        rules=_rules(retry) if "rules" in retry else None,
        attempt_seconds=timeouts.get("attemptSeconds"),
        grace_seconds=timeouts.get("graceSeconds"),
        pending_seconds=timeouts.get("pendingSeconds"),
        total_seconds=timeouts.get("totalSeconds"),
        stall_seconds=timeouts.get("stallSeconds"),
        succeeded_seconds=ttl.get("succeededSeconds"),
        failed_seconds=ttl.get("failedSeconds"),
        dead_letter_seconds=(dead_letter or {}).get("ttlSeconds"),
    )


@lru_cache(maxsize=4_096)
def _shared(**said: Any) -> Overrides:
    """Build overrides; Tasks are many and policies few, so equal ones are shared."""
    return Overrides(**said)


def requirements(requires: Object | None) -> Requirements:
    """Decode `spec.requires`."""
    if not requires:
        return ()
    labels = sorted((requires.get("matchLabels") or {}).items())
    expressions = requires.get("matchExpressions") or ()
    return _shared_requirements(
        tuple(labels),
        tuple((each["key"], each["operator"], tuple(each.get("values") or ())) for each in expressions),
    )


@lru_cache(maxsize=4_096)
def _shared_requirements(
    labels: tuple[tuple[str, str], ...], expressions: tuple[tuple[str, str, tuple[str, ...]], ...]
) -> Requirements:
    """Build requirements in an order of their own, so that those which ask for the same are equal."""
    demanded = {Requirement(key, Operator.IN, (value,)) for key, value in labels}
    demanded |= {Requirement(key, Operator(operator), tuple(sorted(values))) for key, operator, values in expressions}
    return tuple(sorted(demanded))


def _dependencies(spec: Object) -> tuple[Dependency, ...]:
    return tuple(
        Dependency(each["name"], DependencyCondition(each.get("condition", DependencyCondition.SUCCEEDED)))
        for each in spec.get("dependsOn") or ()
    )


def _concurrency(spec: Object) -> Concurrency | None:
    asked = spec.get("concurrency")
    if not asked:
        return None
    return _shared_concurrency(asked["key"], asked.get("limit", 1), asked.get("onConflict", OnConflict.QUEUE))


@lru_cache(maxsize=4_096)
def _shared_concurrency(key: str, limit: int, on_conflict: str) -> Concurrency:
    return Concurrency(key, limit, OnConflict(on_conflict))


def _slots(spec: Object, assignment: Object | None, phase: Phase) -> int | None:
    if assignment and phase in ASSIGNED_PHASES:
        return int(assignment.get("slots", 1))
    slots: int | None = (spec.get("resources") or {}).get("slots")
    return slots


def assigned_policy(assignment: Object) -> Policy:
    """Decode `status.assignment.policy`."""
    policy = assignment["policy"]
    backoff = policy["backoff"]
    return resolve(
        _shared(
            limit=policy["retryLimit"],
            worker_loss_limit=policy["workerLossLimit"],
            interruption_limit=policy["interruptionLimit"],
            initial_seconds=backoff["initialSeconds"],
            factor=backoff["factor"],
            max_seconds=backoff["maxSeconds"],
            jitter=Jitter(backoff["jitter"]),
            rules=_rules(policy),
            attempt_seconds=policy["attemptSeconds"],
            grace_seconds=policy["graceSeconds"],
            total_seconds=policy.get("totalSeconds"),
            stall_seconds=policy.get("stallSeconds"),
        )
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
        labels=_labels(annotations.get(names.LABELS_ANNOTATION, "")),
        queues=_queues(annotations.get(names.QUEUES_ANNOTATION, "")),
    )


@lru_cache(maxsize=1_024)
def _labels(text: str) -> Mapping[str, str]:
    """Decode a worker's labels; workers of a pool have the same, so they share them."""
    return {str(key): str(value) for key, value in orjson.loads(text).items()} if text else {}


@lru_cache(maxsize=1_024)
def _queues(text: str) -> frozenset[str]:
    return frozenset(map(str, orjson.loads(text))) if text else frozenset()


def _holder(assignment: Object) -> Holder:
    return _shared_holder(assignment["worker"], assignment["podUID"], assignment["incarnation"])


@lru_cache(maxsize=4_096)
def _shared_holder(worker: str, pod_uid: str, incarnation: str) -> Holder:
    return Holder(worker, pod_uid, incarnation)


def _time(source: Object, key: str) -> Instant | None:
    text = source.get(key)
    return from_wire(text) if text else None


def _suspended(status: Object) -> Instant | None:
    for condition in status.get("conditions") or ():
        if condition["type"] == "Suspended" and condition["status"] == "True":
            return from_wire(condition["lastTransitionTime"])
    return None


def queue(obj: Object) -> Queue:
    """Decode a TaskQueue.

    Raises:
        KeyError, ValueError: a field that every TaskQueue has is missing, or holds a word this version does not know.
    """
    spec = obj["spec"]
    rate = spec.get("rateLimit")
    return Queue(
        name=obj["metadata"]["name"],
        weight=spec.get("weight", 1),
        max_running=spec.get("maxRunning"),
        max_pending=spec.get("maxPending"),
        when_full=WhenFull(spec.get("whenFull", WhenFull.WAIT)),
        rate_limit=_rate_limit(rate) if rate else None,
        paused=spec.get("paused", False),
        drain=spec.get("drain", False),
        placement=Placement(spec.get("placement", Placement.LEAST_LOADED)),
        aging_seconds=spec.get("agingSeconds", AGING_SECONDS),
        overrides=overrides(spec),
    )


def _rate_limit(rate: Object) -> RateLimit:
    tasks: int = rate["tasks"]
    return RateLimit(tasks / rate.get("perSeconds", 1), int(rate.get("burst", tasks)))


def template(obj: Object) -> Template:
    """Decode a TaskTemplate; whether Tasks can be made of it is said by `taskmaster.api.templates`.

    Raises:
        KeyError, ValueError: a field that every template has is missing, or holds a word this version does not know.
    """
    spec = obj["spec"]
    task = spec["task"]
    return Template(
        name=obj["metadata"]["name"],
        overrides=overrides(task),
        slots=(task.get("resources") or {}).get("slots"),
        requires=requirements(task["requires"]) if "requires" in task else None,
        ttl_seconds=task.get("ttlSecondsAfterFinished"),
        spec=spec,
    )
