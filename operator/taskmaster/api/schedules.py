"""TaskSchedules on the wire: from an object to what decisions need, and from decisions to a Task and a status."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from taskmaster.api import names
from taskmaster.api.models.taskschedule import ACTIVE_SHOWN
from taskmaster.api.times import from_wire, to_wire
from taskmaster.core import cron, zone
from taskmaster.core.schedule import CatchUp, ConcurrencyPolicy, Record, Schedule

Object = dict[str, Any]

TIMING_FIELDS: Final = (
    "schedule",
    "schedules",
    "timeZone",
    "everySeconds",
    "startTime",
    "endTime",
    "maxRuns",
    "suspend",
)
"""Whoever changes these speaks of the future: the past is settled."""

LATEST_TIME: Final = 10**10
"""Names of Tasks have room for ten digits, which is until the year 2286."""

MAX_TEXT: Final = 1_024
MAX_ANSWER: Final = 253


class Unusable(ValueError):
    """A spec that the schema lets pass and that no Task can be scheduled by; the text says where and why."""


def schedule(obj: Object) -> Schedule:
    """Decode a TaskSchedule.

    Raises:
        Unusable: an expression, the zone or a time cannot be used.
    """
    metadata, spec = obj["metadata"], obj["spec"]
    try:
        home = zone.load(spec.get("timeZone", "UTC"))
    except zone.UnknownZone as error:
        raise Unusable(f"spec.timeZone: {error}") from error
    crons = []
    for field, expression in _expressions(spec):
        try:
            crons.append(cron.parse(expression, home))
        except cron.CronError as error:
            raise Unusable(f"spec.{field} {expression[:64]!r}: {error}") from error
    if not crons and "everySeconds" not in spec:
        raise Unusable("spec: at least one of schedule, schedules, everySeconds must be set")
    return Schedule(
        uid=metadata["uid"],
        name=metadata["name"],
        created=int(from_wire(metadata["creationTimestamp"])),
        crons=tuple(crons),
        every_seconds=spec.get("everySeconds"),
        start=_bound(spec, "startTime", up=True),
        end=_bound(spec, "endTime"),
        max_runs=spec.get("maxRuns"),
        suspend=spec.get("suspend", False),
        policy=ConcurrencyPolicy(spec.get("concurrencyPolicy", ConcurrencyPolicy.ALLOW)),
        starting_deadline_seconds=spec.get("startingDeadlineSeconds"),
        catch_up=CatchUp(spec.get("catchUp", CatchUp.LATEST)),
        catch_up_limit=spec.get("catchUpLimit", 10),
        jitter_seconds=spec.get("jitterSeconds", 0),
    )


def timing(spec: Object) -> str:
    """Return a digest of everything that says when."""
    fields = json.dumps({field: spec.get(field) for field in TIMING_FIELDS}, sort_keys=True)
    return hashlib.blake2b(fields.encode(), digest_size=8).hexdigest()


def record(obj: Object) -> Record:
    """Decode what a schedule remembers."""
    status = obj.get("status") or {}
    latest = status.get("lastScheduleTime")
    return Record(
        mark=int(from_wire(status.get("highWaterTime") or obj["metadata"]["creationTimestamp"])),
        waiting=tuple(int(from_wire(each)) for each in status.get("waiting") or ()),
        runs=status.get("runs", 0),
        missed=status.get("missed", 0),
        latest=int(from_wire(latest)) if latest else None,
    )


def settled(obj: Object, memory: Record, *, now: float) -> Record:
    """Return what a schedule remembers; if somebody has changed when it occurs, all that was before now is settled."""
    wanted = timing(obj["spec"])
    if (obj.get("status") or {}).get("observedTiming", wanted) == wanted:
        return memory
    return replace(memory, mark=max(memory.mark, int(now)))


def encode_record(memory: Record) -> Object:
    """Encode what a schedule remembers, for its status."""
    encoded: Object = {"highWaterTime": whole(memory.mark), "runs": memory.runs, "missed": memory.missed}
    if memory.waiting:
        encoded["waiting"] = [whole(each) for each in memory.waiting]
    if memory.latest is not None:
        encoded["lastScheduleTime"] = whole(memory.latest)
    return encoded


def encode_active(active: Sequence[str]) -> Object:
    """Encode the names of the Tasks that have not finished."""
    return {"active": sorted(active)[:ACTIVE_SHOWN], "activeCount": len(active)}


def task(obj: Object, name: str, occurrence: int | None = None) -> Object:
    """Return a new Task of a schedule; `occurrence` is None if a person asked for it."""
    metadata, template = obj["metadata"], obj["spec"]["taskTemplate"]
    given = template.get("metadata") or {}
    annotations = dict(given.get("annotations") or {})
    if occurrence is not None:
        annotations[names.SCHEDULED_TIME_ANNOTATION] = whole(occurrence)
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Task",
        "metadata": {
            "name": name,
            "labels": {**(given.get("labels") or {}), names.SCHEDULE_LABEL: metadata["name"]},
            "annotations": annotations,
            "ownerReferences": [
                {
                    "apiVersion": names.API_VERSION,
                    "kind": "TaskSchedule",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    # True would ask for the right to set finalizers, and for nothing that anybody needs.
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": template["spec"],
    }


def summary(spec: Object) -> str:
    """Say in one line when Tasks are created."""
    said = [expression.strip() for _, expression in _expressions(spec)]
    if "everySeconds" in spec:
        said.append(f"every {spec['everySeconds']} s")
    return "; ".join(said)[:MAX_TEXT]


def answer(value: str) -> str:
    """Return how the status remembers the value of a request: itself, or a digest if it is long."""
    return value if len(value) <= MAX_ANSWER else hashlib.blake2b(value.encode(), digest_size=32).hexdigest()


def whole(instant: int) -> str:
    """Format a time of whole seconds, as people read it in the columns of kubectl."""
    return to_wire(instant)[:19] + "Z"


def _expressions(spec: Object) -> list[tuple[str, str]]:
    """Return each expression and the field it stands in."""
    one = [("schedule", spec["schedule"])] if spec.get("schedule") else []
    return one + [(f"schedules[{index}]", each) for index, each in enumerate(spec.get("schedules") or ())]


def _bound(spec: Object, field: str, *, up: bool = False) -> int | None:
    if not (text := spec.get(field)):
        return None
    try:
        instant = from_wire(text)
    except ValueError as error:
        raise Unusable(f"spec.{field}: {text!r} is not a time; write one such as 2026-11-21T09:00:00Z") from error
    if not 0 <= instant < LATEST_TIME:
        raise Unusable(f"spec.{field}: only times from 1970 to 2286 can be used")
    return -int(-instant // 1) if up else int(instant)
