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
from taskmaster.core.retry import Again, Finish, Outcome, Spent
from taskmaster.core.task import Holder, Instant, Task

Operation = dict[str, Any]

ATTEMPTS_KEPT: Final = 10
LOG_TAIL_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, as its worker (or, for a lost one, the coordinator) tells it."""

    outcome: Outcome
    reason: EndReason
    message: str
    ended: Instant
    started: Instant | None = None
    exit_code: int | None = None
    log_tail: str = ""
    result: Any = None


def assign(task: Task, worker: Worker, *, now: Instant) -> list[Operation]:
    """Give the next attempt of a Pending Task to a worker.

    Raises:
        IllegalMove: the Task is not Pending.
    """
    if task.phase is not Phase.PENDING:
        raise IllegalMove(f"a Task cannot be assigned while it is {task.phase}")
    return [
        _test("/metadata/uid", task.uid),
        _test("/metadata/generation", task.generation),
        _test("/status/phase", task.phase),
        _test("/status/attempt", task.attempt),
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
            },
        ),
        _put("conditions", [_condition("Scheduled", True, "Assigned", now)]),
        *([{"op": "remove", "path": "/status/notBeforeTime"}] if task.not_before is not None else []),
    ]


def start(uid: str, attempt: int, holder: Holder, *, started: Instant) -> list[Operation]:
    """Report that an attempt runs; only the Task's holder can, and only once."""
    return [
        *_held(uid, attempt, holder),
        _test("/status/phase", Phase.ASSIGNED),
        _put("phase", Phase.RUNNING),
        _put("startTime", to_wire(started)),
    ]


def finish(
    uid: str,
    attempt: int,
    holder: Holder,
    ended: Ended,
    decision: Finish,
    past: Sequence[Mapping[str, Any]],
    spent: Spent,
) -> list[Operation]:
    """Write the terminal record. `past` are the records of earlier attempts, `spent` the budgets before this one."""
    succeeded = decision.phase is Phase.SUCCEEDED
    conditions = [
        _condition("Scheduled", True, "Assigned", ended.ended),
        _condition("Succeeded", succeeded, decision.reason, ended.ended, ended.message),
        _condition("Finished", True, decision.reason, ended.ended, ended.message),
    ]
    if not succeeded:
        conditions.append(_condition("Stalled", True, decision.reason, ended.ended, ended.message))
    return [
        *_held(uid, attempt, holder),
        _put("phase", decision.phase),
        _put("reason", decision.reason),
        _put("message", ended.message[:1_024]),
        _put("completionTime", to_wire(ended.ended)),
        _put("conditions", conditions),
        *_record(attempt, holder, ended, past),
        *_charge(spent, decision.spent),
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
) -> list[Operation]:
    """Return a Task to Pending for another attempt."""
    waits = decision.delay > 0
    return [
        *_held(uid, attempt, holder),
        _put("phase", Phase.PENDING),
        _put("reason", PendingReason.BACKING_OFF if waits else ""),
        _put("message", f"attempt {attempt}: {ended.message}"[:1_024] if ended.message else ""),
        {"op": "remove", "path": "/status/assignment"},
        _put("conditions", [_condition("Scheduled", False, ended.reason, ended.ended, ended.message)]),
        *_record(attempt, holder, ended, past),
        *_charge(spent, decision.spent),
        *([_put("notBeforeTime", to_wire(ended.ended + decision.delay))] if waits else []),
    ]


def requeue(task: Task, ended: Ended, decision: Again | Finish) -> list[Operation]:
    """Take a Task from a lost worker: the coordinator's write, which also tests the phase it saw.

    Raises:
        ValueError: no worker holds the Task.
    """
    if task.holder is None:
        raise ValueError(f"nothing holds Task {task.namespace}/{task.name}")
    # Before Running, the start time in status is still that of an earlier attempt.
    started = task.started if task.phase is Phase.RUNNING else None
    arguments = (task.uid, task.attempt, task.holder, replace(ended, started=started))
    if isinstance(decision, Finish):
        check_move(task.phase, decision.phase)
        patch = finish(*arguments, decision, task.attempts, task.spent)
    else:
        check_move(task.phase, Phase.PENDING)
        patch = again(*arguments, decision, task.attempts, task.spent)
    return [_test("/status/phase", task.phase), *patch]


def explain(task: Task, reason: PendingReason, message: str) -> list[Operation]:
    """Say why a Pending Task waits; answers an edit of its spec, too."""
    return [
        _test("/metadata/uid", task.uid),
        _test("/metadata/generation", task.generation),
        _test("/status/phase", task.phase),
        _test("/status/attempt", task.attempt),
        _put("reason", reason),
        _put("message", message[:1_024]),
        _put("observedGeneration", task.generation),
    ]


def observe_generation(task: Task) -> list[Operation]:
    """Answer an edit of the spec that changes nothing else."""
    return [
        _test("/metadata/uid", task.uid),
        _test("/metadata/generation", task.generation),
        _put("observedGeneration", task.generation),
    ]


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
    return [*operations, _put("logTail", ended.log_tail), _put("attempts", [*past, record][-ATTEMPTS_KEPT:])]


def _charge(before: Spent, after: Spent) -> list[Operation]:
    fields = (
        ("failures", before.failures, after.failures),
        ("workerLosses", before.worker_losses, after.worker_losses),
        ("interruptions", before.interruptions, after.interruptions),
    )
    return [_put(name, new) for name, old, new in fields if new != old]


def _condition(kind: str, holds: bool, reason: str, now: Instant, message: str = "") -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": str(reason),
        "message": message[:1_024],
        "lastTransitionTime": to_wire(now),
    }


def _test(path: str, value: Any) -> Operation:
    return {"op": "test", "path": path, "value": value}


def _put(field: str, value: Any) -> Operation:
    """Set a field of status; "add" replaces a member that is there."""
    return {"op": "add", "path": f"/status/{field}", "value": value}
