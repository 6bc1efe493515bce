"""Where a write stands, judged by the object as the API server has it now.

Pure. Needed whenever an answer does not say whether a write was applied: a refusal (422 is a failed `test` as well as
an unacceptable value; 403 may be the admission policy meeting a finished Task), or no answer at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from taskmaster.api.patches import Saved
from taskmaster.api.times import to_wire
from taskmaster.core.phase import ASSIGNED_PHASES, TERMINAL, Phase
from taskmaster_worker.agent.record import Kind, StatusWrite


class Standing(Enum):
    """What has become of a write."""

    OPEN = auto()
    """The attempt is still ours and the write not applied."""
    DONE = auto()
    """The write is in the object."""
    MOVED_ON = auto()
    """Somebody else has taken the attempt from us; the write is moot."""
    GONE = auto()
    """The object was deleted; another may have its name."""


def standing(write: StatusWrite, obj: Mapping[str, Any]) -> Standing:
    """Compare a write with the object."""
    task = write.task
    if obj["metadata"]["uid"] != task.uid:
        return Standing.GONE
    status = obj.get("status") or {}
    phase = status.get("phase", Phase.PENDING)
    assignment = status.get("assignment") or {}
    holds = (
        status.get("attempt") == task.attempt
        and assignment.get("podUID") == task.holder.pod_uid
        and assignment.get("incarnation") == task.holder.incarnation
    )
    if holds and phase in ASSIGNED_PHASES:
        started = write.kind is Kind.START and phase == Phase.RUNNING
        saved = write.kind is Kind.SAVE and _has_saved(write.saved, status)
        return Standing.DONE if started or saved else Standing.OPEN
    if write.kind is Kind.FINISH and holds and phase in TERMINAL:
        return Standing.DONE
    if write.kind is Kind.AGAIN and _has_record(write, status):
        return Standing.DONE
    return Standing.MOVED_ON


def _has_saved(saved: Saved, status: Mapping[str, Any]) -> bool:
    """Whether what an attempt said is there; of its checkpoints no two have the same time."""
    checkpoint = status.get("checkpoint") or {}
    return (saved.progress is None or same_progress(saved.progress, status.get("progress"))) and (
        saved.checkpoint is None
        or all(saved.checkpoint[member] == checkpoint.get(member) for member in ("attempt", "time"))
    )


def same_progress(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> bool:
    """Whether two progresses say the same; the API server fills in an empty message."""
    return one == other or {"message": "", **(one or {})} == {"message": "", **(other or {})}


def _has_record(write: StatusWrite, status: Mapping[str, Any]) -> bool:
    """Whether this very record is in the history, and not the coordinator's of the same attempt."""
    assert write.ended is not None
    mine = (write.task.attempt, to_wire(write.ended.ended), write.ended.outcome.value)
    return any(
        (past.get("attempt"), past.get("endTime"), past.get("outcome")) == mine for past in status.get("attempts") or ()
    )
