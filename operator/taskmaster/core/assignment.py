"""Step 4 of the scheduling cycle: which waiting Task goes to which worker.

Strict order: the head of the backlog gets the least loaded worker, until one of the two runs out. Every decision is
applied to `capacity` at once (step 5, assume), so the next one already sees it.
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


def assign(backlog: Backlog, capacity: Capacity, *, at_most: int) -> list[Assignment]:
    """Take up to `at_most` Tasks off the backlog and place each on the least loaded worker with a free slot."""
    decisions: list[Assignment] = []
    while len(decisions) < at_most:
        worker = capacity.least_loaded()
        if worker is None:
            break
        task = backlog.pop()
        if task is None:
            break
        capacity.take(task.uid, worker.pod_uid)
        decisions.append(Assignment(task, worker))
    return decisions
