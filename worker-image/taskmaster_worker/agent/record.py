"""What is written about an attempt: the start report, the end with what follows from it, and the last resort.

Pure. Whether a failed attempt is tried again is decided here, by the function and the policy that the coordinator uses,
so that a failed attempt costs one write.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random

from taskmaster.api import patches
from taskmaster.api.patches import Ended, Operation
from taskmaster.core.phase import Phase
from taskmaster.core.policy import RetryPolicy
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Finish, Outcome, next_attempt
from taskmaster.core.task import Instant
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.ending import MESSAGE_CHARACTERS, clean


class Kind(StrEnum):
    """The agent's rows in the table of writes."""

    START = "start"
    FINISH = "finish"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class StatusWrite:
    """One conditional write about an attempt; `ended` is None for a start report."""

    kind: Kind
    task: Assigned
    operations: list[Operation]
    ended: Ended | None = None


def start(task: Assigned, *, started: Instant) -> StatusWrite:
    """Return the report that an attempt is running."""
    return StatusWrite(Kind.START, task, patches.start(task.uid, task.attempt, task.holder, started=started))


def end(task: Assigned, ended: Ended, policy: RetryPolicy, *, random: Random) -> StatusWrite:
    """Return the write that ends an attempt: the terminal record, or the way back to Pending."""
    decision = next_attempt(policy, task.spent, ended.outcome, ended.reason, random=random)
    if isinstance(decision, Finish):
        return _finish(task, ended, decision)
    operations = patches.again(task.uid, task.attempt, task.holder, ended, decision, task.past, task.spent)
    return StatusWrite(Kind.AGAIN, task, operations, ended)


def last_resort(refused: StatusWrite, why: str) -> StatusWrite:
    """Return the minimal terminal record, for when the API server does not accept the whole one: no result, no log."""
    was = refused.ended
    assert was is not None, "a start report needs no last resort: the end of the attempt will be written"
    message = clean(f"the record of the attempt was refused: {why}")[:MESSAGE_CHARACTERS]
    ended = Ended(Outcome.FAILED, EndReason.RESULT_REJECTED, message, ended=was.ended, started=was.started)
    decision = next_attempt(RetryPolicy(limit=0), refused.task.spent, ended.outcome, ended.reason, random=Random(0))
    assert isinstance(decision, Finish)
    assert decision.phase is Phase.FAILED
    return _finish(refused.task, ended, decision)


def _finish(task: Assigned, ended: Ended, decision: Finish) -> StatusWrite:
    operations = patches.finish(task.uid, task.attempt, task.holder, ended, decision, task.past, task.spent)
    return StatusWrite(Kind.FINISH, task, operations, ended)
