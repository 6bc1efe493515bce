"""What this operator remembers of a TaskSchedule beyond its spec, and the status that is made of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from taskmaster.api import schedules
from taskmaster.api.times import from_wire, to_wire
from taskmaster.coordinator import conditions
from taskmaster.coordinator.refusal import Refused
from taskmaster.core.phase import Phase
from taskmaster.core.schedule import Record, Schedule, done, next_due
from taskmaster.core.task import Instant, Task

Key = tuple[str, str]
Object = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """One TaskSchedule, and what this operator remembers of it beyond its status."""

    obj: Object
    record: Record
    written: Record
    """What the status is known to remember."""
    run_now: str
    """The request that was answered last."""
    succeeded: Instant | None
    parsed: Schedule | None = None
    trouble: Refused | None = None
    """Why the spec cannot be used."""
    refusal: Refused | None = None
    """Why the API server did not take the Task."""
    unchecked: bool = False
    """Whether it is to be asked if it would."""
    urgent: bool = False
    """Whether the status has to remember something at once."""
    retry_at: float = 0.0
    next_write: float = 0.0
    unseen: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Tasks that were created and not yet seen: uid, name, until when to believe in it."""

    @property
    def key(self) -> Key:
        """Namespace and name."""
        return self.obj["metadata"]["namespace"], self.obj["metadata"]["name"]

    def covers(self, occurrence: int) -> bool:
        """Whether the status remembers that an occurrence was dealt with, so that its Task need not any more."""
        return occurrence <= self.written.mark and occurrence not in self.written.waiting

    @property
    def answered(self) -> bool:
        """Whether the status speaks of the spec as it is."""
        status = self.obj.get("status") or {}
        return bool(status.get("observedGeneration") == self.obj["metadata"]["generation"])


def met(obj: Object, *, now: float) -> Entry:
    """Return the entry of a schedule that this operator has not known; its spec is not read yet."""
    succeeded = (obj.get("status") or {}).get("lastSuccessfulTime")
    record = schedules.record(obj)
    return Entry(
        obj,
        schedules.settled(obj, record, now=now),
        record,
        run_now=(obj.get("status") or {}).get("observedRunNow", ""),
        succeeded=from_wire(succeeded) if succeeded else None,
    )


def status(entry: Entry, tasks: Collection[Task], active: Sequence[str], *, now: Instant) -> Object:
    """Return the whole status of a schedule."""
    for task in tasks:
        if task.phase is Phase.SUCCEEDED and task.completed is not None:
            entry.succeeded = max(entry.succeeded or task.completed, task.completed)
    due = next_due(entry.parsed, entry.record) if entry.parsed is not None else None
    told = {
        "observedGeneration": entry.obj["metadata"]["generation"],
        "schedule": schedules.summary(entry.obj["spec"]),
        **schedules.encode_active(active),
        **schedules.encode_record(entry.record),
        "observedTiming": schedules.timing(entry.obj["spec"]),
    }
    if entry.succeeded is not None:
        told["lastSuccessfulTime"] = to_wire(entry.succeeded)
    if due is not None:
        told["nextRunTime"] = schedules.whole(due)
    if entry.run_now:
        told["observedRunNow"] = entry.run_now
    told["conditions"] = [_condition(entry, due, now)]
    return told


def _condition(entry: Entry, due: int | None, now: Instant) -> Object:
    refusal = entry.trouble or entry.refusal
    if refusal is not None:
        reason, message = refusal.reason, str(refusal)
    else:
        reason, message = _state(entry.parsed, entry.record, due)
    return conditions.ready(entry.obj, holds=refusal is None, reason=reason, message=message, now=now)


def _state(schedule: Schedule | None, record: Record, due: int | None) -> tuple[str, str]:
    if schedule is None or due is not None:
        return "Scheduled", "Tasks are created when they are due"
    if schedule.suspend:
        return "Suspended", "nothing is started as long as spec.suspend is true"
    if done(schedule, record):
        return "Completed", f"all {schedule.max_runs} runs have been started"
    return "Ended", "there is no further occurrence"
