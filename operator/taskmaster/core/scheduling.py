"""Step 4 of the scheduling cycle: which waiting Tasks go to which workers.

Slots go to the queue that is furthest behind its share (`shares`); it gives the Task that should start next
(`backlog`); that one gets a worker by the queue's placement (`capacity`). A Task that no worker has room for now blocks
its shape, not its queue: others go on. What has to run alone or needs several slots keeps a worker for itself
meanwhile, or smaller ones would always come first. Every decision is applied at once (step 5, assume), so the next one
already sees it.
"""

from __future__ import annotations

from collections.abc import Mapping

from taskmaster.core.assignment import Assignment
from taskmaster.core.capacity import Shape, Worker
from taskmaster.core.queue import Placement
from taskmaster.core.station import Place, QueueState
from taskmaster.core.task import Instant, Task
from taskmaster.core.tenant import Tenant


class Scheduling:
    """Decides for one namespace."""

    def __init__(self, tenant: Tenant) -> None:
        self._tenant = tenant
        self._kept: dict[Shape, str] = {}
        """For which Task of a shape a worker is being kept, if one is."""
        self._kinds_changed = 0

    def decide(self, *, now: Instant, at_most: int) -> list[Assignment]:
        """Take up to `at_most` Tasks off the backlogs and count each with a worker."""
        self._tenant.wake(now=now)
        self._give_back_unwanted()
        decisions = self._start(now=now, at_most=at_most)
        if self._tenant.capacity.has_news:
            # A worker that was kept has been given back on the way, after somebody else had been refused it.
            decisions += self._start(now=now, at_most=at_most - len(decisions))
        return decisions

    def _start(self, *, now: Instant, at_most: int) -> list[Assignment]:
        tenant = self._tenant
        self._unblock()
        competing = {name: state for name, state in tenant.queues.items() if self._starts(state, now=now)}
        tenant.shares.compete({name: state.queue.weight for name, state in competing.items()}, now=now)
        competing = _open(competing)
        decisions: list[Assignment] = []
        while competing and len(decisions) < at_most:
            state = competing[tenant.shares.next(competing, now=now)]
            decision = self._next(state)
            if decision is None:
                competing = _open(competing)
                continue
            decisions.append(decision)
            state.backlog.start(decision.task.uid)
            tenant.assume(decision, now=now)
            if state.bucket is not None:
                state.bucket.take(now=now)
            tenant.judge_newcomers(now=now)  # in a queue with maxPending, another one may enter
            if not self._starts(state, now=now):
                del competing[state.queue.name]
        return decisions

    def next_due(self, *, now: Instant) -> Instant | None:
        """Return when there is something to decide although nothing happens; None when there is not."""
        due = self._tenant.next_due()
        for state in self._tenant.queues.values():
            if state.bucket is not None and len(state.backlog) and (wait := state.bucket.wait(now=now)):
                due = Instant(min(now + wait, due if due is not None else now + wait))
        return due

    def _starts(self, state: QueueState, *, now: Instant) -> bool:
        """Whether a queue has something to start and may."""
        queue = state.queue
        if not len(state.backlog) or queue.closed:
            return False
        if queue.max_running is not None and self._tenant.running(queue.name) >= queue.max_running:
            return False
        return state.bucket is None or not state.bucket.wait(now=now)

    def _next(self, state: QueueState) -> Assignment | None:
        """Return what a queue starts next; None when nothing of it can start now."""
        while (task := state.backlog.head()) is not None:
            entry = self._tenant.entries[task.uid]
            if task.concurrency is not None and not self._tenant.keys.room(task.uid):
                self._tenant.park(entry)
                continue
            worker = self._worker(task, entry.shape, state.queue.placement)
            if worker is not None:
                if self._kept.get(entry.shape) == task.uid:
                    del self._kept[entry.shape]
                return Assignment(task, worker)
            self._block(entry.shape)
        return None

    def _block(self, shape: Shape) -> None:
        """Pass over a shape that no worker takes now, and all that are alike, in whatever queue."""
        like = self._tenant.capacity.like(shape)
        for state in self._tenant.queues.values():
            state.backlog.block(like)

    def _worker(self, task: Task, shape: Shape, placement: Placement) -> Worker | None:
        capacity = self._tenant.capacity
        if not shape.alone and (worker := capacity.place(shape, placement, avoid=task.failed_on)) is not None:
            return worker
        if not shape.keeps:
            return None
        if self._kept.get(shape, task.uid) != task.uid:
            self._give_back(shape)
        worker = capacity.reserve(task.uid, shape, avoid=task.failed_on)
        self._kept[shape] = task.uid
        return worker

    def _give_back_unwanted(self) -> None:
        """Keep no worker for a Task that has gone elsewhere or whose queue is closed.

        A queue that is only at its limit keeps its worker: else each of its small Tasks, by reaching the limit, would
        take it from the large one.
        """
        for shape, uid in list(self._kept.items()):
            state = self._tenant.queues.get(shape.queue)
            if state is None or state.queue.closed or uid not in state.backlog:
                self._give_back(shape)

    def _give_back(self, shape: Shape) -> None:
        uid = self._kept.pop(shape)
        entry = self._tenant.entries.get(uid)
        if entry is not None and entry.station is Place.READY and entry.shape == shape:
            self._tenant.capacity.release(uid)

    def _unblock(self) -> None:
        """Consider again what did not fit, where workers have got room since."""
        capacity = self._tenant.capacity
        freed = capacity.newly_free()
        if self._kinds_changed != capacity.kinds_changed:
            self._kinds_changed = capacity.kinds_changed
            for state in self._tenant.queues.values():
                state.backlog.regroup()
        elif freed:
            for state in self._tenant.queues.values():
                for like in state.backlog.blocked():
                    if capacity.fits(like, freed):
                        state.backlog.unblock(like)


def _open(queues: Mapping[str, QueueState]) -> dict[str, QueueState]:
    """Return the queues that have a Task whose shape is not blocked."""
    return {name: state for name, state in queues.items() if state.backlog.open}
