"""Step 4 of the scheduling cycle: which waiting Task goes to which worker.

Strict order: the head of the backlog gets the least loaded worker (the one on which its last attempt failed comes
last), until one of the two runs out. Every decision is applied to `capacity` at once (step 5, assume), so the next one
already sees it.
"""

from __future__ import annotations

from dataclasses import dataclass

from taskmaster.core.backlog import Backlog
from taskmaster.core.capacity import Capacity, Worker
from taskmaster.core.task import Task


@dataclass(frozen=True, slots=True)
class Assignment:
    """The decision that a worker runs the next attempt of a Task."""

    task: Task
    worker: Worker


def assign(backlog: Backlog, loners: Backlog, capacity: Capacity, *, at_most: int) -> list[Assignment]:
    """Take up to `at_most` Tasks off the backlogs and place each on a worker.

    Args:
        backlog: Tasks that go to the least loaded worker with a free slot.
        loners: Tasks that have to run alone, one after the other: a worker is kept free for the first of them.
        capacity: The workers.
        at_most: How many decisions may be made.
    """
    decisions: list[Assignment] = []
    while len(decisions) < at_most and (task := loners.head()) is not None:
        worker = capacity.reserve(task.uid, avoid=task.failed_on)
        if worker is None:
            break
        loners.pop()
        capacity.take(task.uid, worker.pod_uid, alone=True)
        decisions.append(Assignment(task, worker))
    while len(decisions) < at_most and (task := backlog.head()) is not None:
        worker = capacity.least_loaded(avoid=task.failed_on)
        if worker is None:
            break
        backlog.pop()
        capacity.take(task.uid, worker.pod_uid)
        decisions.append(Assignment(task, worker))
    return decisions
