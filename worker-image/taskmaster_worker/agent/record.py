"""What is written about an attempt: the start report, saves, the end with what follows from it, and the last resort.

Pure. Whether a failed attempt is tried again is decided here, by the function and the policy that the coordinator uses,
so that a failed attempt costs one write.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from taskmaster.api import patches
from taskmaster.api.patches import MESSAGE_CHARACTERS, NOTHING_SAVED, Ended, Operation, Saved
from taskmaster.core.phase import Phase
from taskmaster.core.policy import BUILT_IN, Policy
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Finish, Outcome, next_attempt
from taskmaster.core.task import Instant
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.ending import clean


class Kind(StrEnum):
    """The agent's rows in the table of writes."""

    START = "start"
    SAVE = "save"
    FINISH = "finish"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """One conditional write about an attempt; `ended` is None as long as it runs."""

    kind: Kind
    task: Assigned
    operations: list[Operation]
    ended: Ended | None = None
    saved: Saved = NOTHING_SAVED


def start(task: Assigned, *, started: Instant, saved: Saved = NOTHING_SAVED) -> StatusWrite:
    """Return the report that an attempt is running."""
    operations = patches.start(task.uid, task.attempt, task.holder, started=started, saved=saved)
    return StatusWrite(Kind.START, task, operations, saved=saved)


def save(task: Assigned, saved: Saved) -> StatusWrite:
    """Return the write of what an attempt has said since it was reported as running."""
    return StatusWrite(Kind.SAVE, task, patches.save(task.uid, task.attempt, task.holder, saved), saved=saved)


def end(
    task: Assigned,
    ended: Ended,
    policy: Policy,
    *,
    seconds_left: float | None,
    random: Random,
    saved: Saved = NOTHING_SAVED,
) -> StatusWrite:
    """Return the write that ends an attempt: the terminal record, or the way back to Pending.

    Args:
        task: The attempt.
        ended: How it ended.
        policy: What decides whether there is another.
        seconds_left: What is left of `timeouts.totalSeconds`; None if there is no such bound.
        random: For the backoff.
        saved: What it had said and is not written yet.
    """
    decision = next_attempt(policy, task.spent, ended, seconds_left=seconds_left, random=random)
    if isinstance(decision, Finish):
        return _finish(task, ended, decision, saved)
    operations = patches.again(task.uid, task.attempt, task.holder, ended, decision, task.past, task.spent, saved)
    return StatusWrite(Kind.AGAIN, task, operations, ended, saved)


def last_resort(refused: StatusWrite, why: str) -> StatusWrite:
    """Return the minimal terminal record, for when the API server does not accept the whole one: no result, no log."""
    was = refused.ended
    assert was is not None, "while an attempt runs nothing needs a last resort: its end will be written"
    message = clean(f"the record of the attempt was refused: {why}")[:MESSAGE_CHARACTERS]
    ended = Ended(Outcome.FAILED, EndReason.RESULT_REJECTED, message, ended=was.ended, started=was.started, final=True)
    decision = next_attempt(BUILT_IN, refused.task.spent, ended, seconds_left=None, random=Random(0))
    assert isinstance(decision, Finish)
    assert decision.phase is Phase.FAILED
    return _finish(refused.task, ended, decision, NOTHING_SAVED)


def _finish(task: Assigned, ended: Ended, decision: Finish, saved: Saved) -> StatusWrite:
    operations = patches.finish(task.uid, task.attempt, task.holder, ended, decision, task.past, task.spent, saved)
    return StatusWrite(Kind.FINISH, task, operations, ended, saved)
