"""The write protocol: one JSON patch per transition, whose `test` operations name the exact state it leaves.

A patch that meets another state is refused as a whole (422), so two writers can never both succeed in leaving the same
state, whatever they believed. JSON patch has no "or": what may have been either of two phases is not tested by phase,
but by attempt, pod and incarnation, which only the holder of the attempt shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from taskmaster.api.decode import encode_policy
from taskmaster.api.times import to_wire
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import IllegalMove, Phase, check_move
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.retry import Again, AttemptEnd, Finish, Outcome, Spent
from taskmaster.core.task import Holder, Instant, StopReason, Task

Operation = dict[str, Any]

ATTEMPTS_KEPT: Final = 10
LOG_TAIL_BYTES: Final = 4_096


MESSAGE_CHARACTERS: Final = 1_024


@dataclass(frozen=True, slots=True)
class Ended(AttemptEnd):
    """How an attempt ended, as its worker (or, for a lost one, the coordinator) tells it."""

    message: str
    ended: Instant
    started: Instant | None = None
    log_tail: str = ""
    result: Any = None


@dataclass(frozen=True, slots=True)
class Saved:
    """What a running attempt has to say: how far it is, and what the next one could go on from. None: nothing new."""

    progress: Mapping[str, Any] | None = None
    checkpoint: Mapping[str, Any] | None = None
    """As in `status.checkpoint`: attempt, time and data."""


NOTHING_SAVED: Final = Saved()


def assign(task: Task, worker: Worker, *, now: Instant, resolved: Mapping[str, Any] | None = None) -> list[Operation]:
    """Give the next attempt of a Pending Task to a worker.

    Args:
        task: The Task, as its template and its queue complete it.
        worker: Who gets it.
        now: The time of day.
        resolved: What its template came to, at the first assignment of a Task that has one.

    Raises:
        IllegalMove: the Task is not Pending.
    """
    return [
        *_waiting(task),
        _put("phase", Phase.ASSIGNED),
        _put("reason", ""),
        _put("message", ""),
        _put("attempt", task.attempt + 1),
        _put("observedGeneration", task.generation),
        _put(
            "assignment",
            {
                "worker": worker.name,
                "podUID": worker.pod_uid,
                "incarnation": worker.incarnation,
                "node": worker.node,
                "assignedTime": to_wire(now),
                "policy": encode_policy(task.policy),
                **({} if task.slots in (None, 1) else {"slots": task.slots}),
            },
        ),
        *([_put("resolvedRun", resolved)] if resolved is not None else []),
        _put("conditions", [_condition("Scheduled", True, "Assigned", now)]),
        *_first_sight(task),
        *_deadline(task, now),
        *([_remove("notBeforeTime")] if task.not_before is not None else []),
        *([_remove("stopRequest")] if task.stop_requested else []),
    ]


def start(uid: str, attempt: int, holder: Holder, *, started: Instant, saved: Saved = NOTHING_SAVED) -> list[Operation]:
    """Report that an attempt runs; only the Task's holder can, and only once."""
    return [
        *_held(uid, attempt, holder),
        _test("/status/phase", Phase.ASSIGNED),
        _put("phase", Phase.RUNNING),
        _put("startTime", to_wire(started)),
        *_save(saved),
    ]


def save(uid: str, attempt: int, holder: Holder, saved: Saved) -> list[Operation]:
    """Report progress or a checkpoint of a running attempt."""
    return [*_held(uid, attempt, holder), _test("/status/phase", Phase.RUNNING), *_save(saved)]


def finish(
    uid: str,
    attempt: int,
    holder: Holder,
    ended: Ended,
    decision: Finish,
    past: Sequence[Mapping[str, Any]],
    spent: Spent,
    saved: Saved = NOTHING_SAVED,
) -> list[Operation]:
    """Write the terminal record. `past` are the records of earlier attempts, `spent` the budgets before this one."""
    message = f"{decision.note}: {ended.message}" if decision.note and ended.message else decision.note or ended.message
    return [
        *_held(uid, attempt, holder),
        *_end(decision.phase, decision.reason, message, ended.ended, dead_lettered=decision.dead_lettered),
        *_record(attempt, holder, ended, past),
        *_charge(spent, decision.spent),
        *_save(saved),
        *([_put("exitCode", ended.exit_code)] if ended.exit_code is not None else []),
        *([_put("result", ended.result)] if ended.result is not None else []),
    ]


def again(
    uid: str,
    attempt: int,
    holder: Holder,
    ended: Ended,
    decision: Again,
    past: Sequence[Mapping[str, Any]],
    spent: Spent,
    saved: Saved = NOTHING_SAVED,
) -> list[Operation]:
    """Return a Task to Pending for another attempt."""
    waits, suspended = decision.delay > 0, ended.outcome is Outcome.SUSPENDED
    reason = PendingReason.SUSPENDED if suspended else PendingReason.BACKING_OFF if waits else ""
    conditions = [_condition("Scheduled", False, ended.reason, ended.ended, ended.message)]
    if suspended:
        conditions.append(_condition("Suspended", True, ended.reason, ended.ended))
    return [
        *_held(uid, attempt, holder),
        _put("phase", Phase.PENDING),
        _put("reason", reason),
        _put("message", f"attempt {attempt}: {ended.message}"[:MESSAGE_CHARACTERS] if ended.message else ""),
        _remove("assignment"),
        _put("queuedTime", to_wire(ended.ended)),
        _put("conditions", conditions),
        *_record(attempt, holder, ended, past),
        *_charge(spent, decision.spent),
        *_save(saved),
        *([_put("notBeforeTime", to_wire(ended.ended + decision.delay))] if waits else []),
    ]


def requeue(task: Task, ended: Ended, decision: Again | Finish) -> list[Operation]:
    """Take a Task from a worker that is lost or does not obey: the coordinator's write, which tests the phase it saw.

    Raises:
        ValueError: no worker holds the Task.
    """
    if task.holder is None or not task.held:
        raise ValueError(f"nothing holds Task {task.namespace}/{task.name}")
    # Before Running, the start time in status is still that of an earlier attempt.
    started = task.started if task.phase is Phase.RUNNING else None
    arguments = (task.uid, task.attempt, task.holder, replace(ended, started=started))
    if isinstance(decision, Finish):
        patch = finish(*arguments, decision, task.attempts, task.spent)
    else:
        patch = again(*arguments, decision, task.attempts, task.spent)
    return [_test("/status/phase", task.phase), *patch]


def request_stop(task: Task, reason: StopReason, *, now: Instant) -> list[Operation]:
    """Ask the worker that holds a Task to stop its attempt."""
    return [
        _test("/metadata/uid", task.uid),
        _test("/status/phase", task.phase),
        _test("/status/attempt", task.attempt),
        _put("stopRequest", {"reason": reason.value, "time": to_wire(now)}),
    ]


def end_waiting(
    task: Task, phase: Phase, reason: EndReason, message: str, *, now: Instant, dead_lettered: bool = False
) -> list[Operation]:
    """End a Pending Task without another attempt: it was cancelled, has expired, or is out of time."""
    check_move(task.phase, phase)
    return [
        *_waiting(task),
        *_end(phase, reason, message, now, dead_lettered=dead_lettered, scheduled=False),
        *_first_sight(task),
        _put("observedGeneration", task.generation),
        *([_remove("notBeforeTime")] if task.not_before is not None else []),
    ]


def hold(task: Task, *, now: Instant) -> list[Operation]:
    """Say that a Pending Task is suspended."""
    return [
        *_waiting(task),
        _put("reason", PendingReason.SUSPENDED),
        _put("message", "held by spec.suspend; set it to false to let the Task go on"),
        _put("conditions", [_condition("Suspended", True, PendingReason.SUSPENDED, now)]),
        _put("observedGeneration", task.generation),
    ]


def resume(task: Task, *, now: Instant) -> list[Operation]:
    """Let a suspended Task wait for a worker again; the time of its suspension does not count."""
    operations = [
        *_waiting(task),
        _put("reason", ""),
        _put("message", ""),
        _put("queuedTime", to_wire(now)),
        _put("conditions", [_condition("Suspended", False, "Resumed", now)]),
        _put("observedGeneration", task.generation),
    ]
    if task.deadline is not None and task.suspended is not None:
        operations.append(_put("deadlineTime", to_wire(task.deadline + max(0.0, now - task.suspended))))
    return operations


FRESH_PREFIX: Final = "fresh-"
"""A retryRequest that begins so drops the checkpoint."""


def run_again(task: Task, *, now: Instant) -> dict[str, Any]:
    """Return the merge patch that begins a new run of a finished Task.

    A merge patch, because it can remove a field without knowing whether it is there. Its precondition is the version of
    the object, which says more than any `test` could.

    Raises:
        IllegalMove: the Task has not finished.
    """
    if not task.finished:
        raise IllegalMove(f"only a finished Task can be run again, not one that is {task.phase}")
    cleared: tuple[str, ...] = (
        *("assignment", "stopRequest", "notBeforeTime", "deadlineTime", "startTime", "completionTime"),
        *("failures", "workerLosses", "interruptions", "runnerDeaths"),
        *("progress", "result", "exitCode", "logTail"),
    )
    if task.retry_request.startswith(FRESH_PREFIX):
        cleared = (*cleared, "checkpoint")
    status = {
        **dict.fromkeys(cleared),
        "phase": Phase.PENDING.value,
        "reason": "",
        "message": "",
        "observedGeneration": task.generation,
        "observedRetryRequest": task.retry_request,
        "runNumber": task.run_number + 1,
        "queuedTime": to_wire(now),
        "deadLettered": False,
        "conditions": [_condition("Scheduled", False, "RunAgain", now)],
    }
    return {"metadata": {"uid": task.uid, "resourceVersion": task.resource_version}, "status": status}


STALLED: Final = frozenset({PendingReason.INVALID_SPEC, PendingReason.DEPENDENCY_CYCLE})
"""Waits that kstatus has to read as failed: what the Tasks ask for is wrong as it stands."""


def explain(task: Task, reason: PendingReason, message: str, *, now: Instant) -> list[Operation]:
    """Say why a Pending Task waits; answers an edit of its spec, too."""
    stalled = reason in STALLED
    changed = stalled or task.reason in STALLED
    return [
        *_waiting(task),
        _put("reason", reason),
        _put("message", message[:MESSAGE_CHARACTERS]),
        _put("observedGeneration", task.generation),
        *([_put("conditions", [_condition("Stalled", stalled, reason, now, message)])] if changed else []),
    ]


def observe_generation(task: Task) -> list[Operation]:
    """Answer an edit of the spec that changes nothing else, unless another write has answered it meanwhile."""
    observed = task.observed_generation
    return [
        _test("/metadata/uid", task.uid),
        _test("/metadata/generation", task.generation),
        *([_test("/status/observedGeneration", observed)] if observed is not None else []),
        _put("observedGeneration", task.generation),
    ]


def _waiting(task: Task) -> list[Operation]:
    """The tests of a write to a waiting Task: the generation as well, so that a cancel just before is not missed."""
    if task.phase is not Phase.PENDING:
        raise IllegalMove(f"only a Pending Task can be written to like this, not one that is {task.phase}")
    return [
        _test("/metadata/uid", task.uid),
        _test("/metadata/generation", task.generation),
        _test("/status/phase", task.phase),
        _test("/status/attempt", task.attempt),
    ]


def _first_sight(task: Task) -> list[Operation]:
    """Record a retryRequest that the Task was created with, so that it does not ask for a second run."""
    if task.retry_request in ("", task.observed_retry_request):
        return []
    return [_put("observedRetryRequest", task.retry_request)]


def _deadline(task: Task, now: Instant) -> list[Operation]:
    total = task.policy.timeouts.total_seconds
    return [] if total is None or task.deadline is not None else [_put("deadlineTime", to_wire(now + total))]


def _end(
    phase: Phase, reason: EndReason, message: str, now: Instant, *, dead_lettered: bool, scheduled: bool = True
) -> list[Operation]:
    """What every terminal record says, whoever writes it."""
    message = message[:MESSAGE_CHARACTERS]
    conditions = [
        _condition("Scheduled", True, "Assigned", now) if scheduled else _condition("Scheduled", False, reason, now),
        _condition("Succeeded", phase is Phase.SUCCEEDED, reason, now, message),
        _condition("Finished", True, reason, now, message),
    ]
    if phase is Phase.FAILED:
        conditions.append(_condition("Stalled", True, reason, now, message))
    if dead_lettered:
        conditions.append(_condition("DeadLettered", True, reason, now, message))
    return [
        _put("phase", phase),
        _put("reason", reason),
        _put("message", message),
        _put("completionTime", to_wire(now)),
        _put("conditions", conditions),
        *([_put("deadLettered", True)] if dead_lettered else []),
    ]


def _save(saved: Saved) -> list[Operation]:
    fields = (("progress", saved.progress), ("checkpoint", saved.checkpoint))
    return [_put(name, value) for name, value in fields if value is not None]


def _held(uid: str, attempt: int, holder: Holder) -> list[Operation]:
    return [
        _test("/metadata/uid", uid),
        _test("/status/attempt", attempt),
        _test("/status/assignment/podUID", holder.pod_uid),
        _test("/status/assignment/incarnation", holder.incarnation),
    ]


def _record(attempt: int, holder: Holder, ended: Ended, past: Sequence[Mapping[str, Any]]) -> list[Operation]:
    """What every end of an attempt leaves behind, final or not."""
    record: dict[str, Any] = {
        "attempt": attempt,
        "worker": holder.worker,
        "endTime": to_wire(ended.ended),
        "outcome": ended.outcome.value,
        "reason": ended.reason.value,
    }
    operations: list[Operation] = []
    if ended.message:
        record["message"] = ended.message[:256]
    if ended.started is not None:
        record["startTime"] = to_wire(ended.started)
        operations.append(_put("startTime", record["startTime"]))
    if ended.exit_code is not None:
        record["exitCode"] = ended.exit_code
    if ended.signal is not None:
        record["signal"] = ended.signal
    return [*operations, _put("logTail", ended.log_tail), _put("attempts", [*past, record][-ATTEMPTS_KEPT:])]


def _charge(before: Spent, after: Spent) -> list[Operation]:
    fields = (
        ("failures", before.failures, after.failures),
        ("workerLosses", before.worker_losses, after.worker_losses),
        ("interruptions", before.interruptions, after.interruptions),
        ("runnerDeaths", before.runner_deaths, after.runner_deaths),
    )
    return [_put(name, new) for name, old, new in fields if new != old]


def _condition(kind: str, holds: bool, reason: str, now: Instant, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": str(reason),
        "message": message[:MESSAGE_CHARACTERS],
        "lastTransitionTime": to_wire(now),
    }


def _test(path: str, value: Any) -> Operation:
    return {"op": "test", "path": path, "value": value}


def _remove(field: str) -> Operation:
    return {"op": "remove", "path": f"/status/{field}"}


def _put(field: str, value: Any) -> Operation:
    """Set a field of status; "add" replaces a member that is there."""
    return {"op": "add", "path": f"/status/{field}", "value": value}
