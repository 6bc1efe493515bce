"""The coordinator's picture of the cluster: what the informers saw, plus what it has decided itself.

Deltas come in, the pure structures of `core` are kept true, and whoever must act is told by a small set of hooks. A
Task is *assumed* from the moment an assignment is decided until the informer shows that attempt (or the write failed):
it is neither in a backlog nor assigned twice meanwhile, however late the watch is (kube-scheduler's assume, confirm,
forget).
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from taskmaster.coordinator.leases import WorkerLease
from taskmaster.coordinator.pods import WorkerPod
from taskmaster.core.backlog import Backlog
from taskmaster.core.capacity import Capacity, Worker
from taskmaster.core.phase import Phase
from taskmaster.core.request import may_run
from taskmaster.core.task import DEFAULT_QUEUE, Instant, Task
from taskmaster.kube.informer import Delta


def wall_clock() -> Instant:
    """Return the time of day, in seconds since the epoch."""
    return Instant(time.time())


@dataclass(slots=True)
class Tenant:
    """A namespace: its Tasks run on its own workers only."""

    backlog: Backlog = field(default_factory=Backlog)
    loners: Backlog = field(default_factory=Backlog)
    """Tasks that have to run where no other does."""
    capacity: Capacity = field(default_factory=Capacity)


class Cache:
    """Everything that scheduling looks at, kept by deltas."""

    def __init__(self, *, wake: Callable[[], None], clock: Callable[[], Instant] = wall_clock) -> None:
        self.tenants: dict[str, Tenant] = defaultdict(Tenant)
        self.tasks: dict[str, Task] = {}
        self.pods: dict[str, WorkerPod] = {}
        self.leases: dict[str, WorkerLease] = {}
        """Leases of workers by pod uid."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Tasks by (queue, phase), for the metrics."""
        self.task_listeners: list[Callable[[Task | None, Task | None], None]] = []
        self.lease_listeners: list[Callable[[WorkerLease | None, WorkerLease | None], None]] = []
        self.pod_listeners: list[Callable[[WorkerPod | None, WorkerPod | None], None]] = []
        self.condemned: Callable[[Worker], bool] = lambda worker: False
        """Whether the reaper has declared this life of a worker dead, which the watch may not know yet."""
        self._assumed: dict[str, int] = {}
        self._wake = wake
        self._clock = clock

    @property
    def assumed(self) -> int:
        """How many assignments are decided and not yet seen."""
        return len(self._assumed)

    def on_tasks(self, deltas: Sequence[Delta[Task]]) -> None:
        """Take the deltas of the Task informer."""
        for delta in deltas:
            old, new = delta.old, delta.new
            if old is not None:
                self._count(old, -1)
            if new is not None:
                self._count(new, +1)
                self.tasks[new.uid] = new
                self._place(new)
            elif old is not None:
                self.tasks.pop(old.uid, None)
                self._assumed.pop(old.uid, None)
                self._drop(old)
            for listener in self.task_listeners:
                listener(old, new)
        self._wake()

    def on_leases(self, deltas: Sequence[Delta[WorkerLease]]) -> None:
        """Take the deltas of the Lease informer."""
        for delta in deltas:
            old, new = delta.old, delta.new
            if old is not None and new is not None and old.worker.pod_uid != new.worker.pod_uid:
                # A pod of the same name writes the Lease that its predecessor left behind.
                self._unseat(old)
            if new is not None:
                self.leases[new.worker.pod_uid] = new
                if old is None or old.worker != new.worker:
                    self._seat(new.worker)
            elif old is not None:
                self._unseat(old)
            for listener in self.lease_listeners:
                listener(old, new)

    def on_pods(self, deltas: Sequence[Delta[WorkerPod]]) -> None:
        """Take the deltas of the Pod informer."""
        for delta in deltas:
            if delta.new is not None:
                self.pods[delta.new.uid] = delta.new
            elif delta.old is not None:
                self.pods.pop(delta.old.uid, None)
            pod = delta.new or delta.old
            if pod is not None:
                self.review(pod.uid)
            for listener in self.pod_listeners:
                listener(delta.old, delta.new)

    def assume(self, task: Task) -> None:
        """Note that the next attempt of a Task has been decided (its slot is taken already)."""
        self._assumed[task.uid] = task.attempt + 1

    def forget(self, task: Task, *, retry_after: float, in_doubt: bool) -> None:
        """Note that the write of an assignment failed; the Task may be decided again `retry_after` seconds from now.

        While it is in doubt whether the write was applied, the slot stays taken: until then, or until the watch tells.
        """
        if self._assumed.get(task.uid) != task.attempt + 1:
            return
        del self._assumed[task.uid]
        current = self.tasks.get(task.uid)
        waits = current is not None and current.phase is Phase.PENDING
        if not (waits and in_doubt):
            self.tenants[task.namespace].capacity.free(task.uid)
        if current is not None and waits:
            self._queue(current, until=Instant(self._clock() + retry_after))
        self._wake()

    def review(self, pod_uid: str) -> None:
        """Judge anew whether a worker, if it is one, may be given Tasks."""
        if (lease := self.leases.get(pod_uid)) is not None:
            self._seat(lease.worker)

    def schedulable(self, worker: Worker) -> bool:
        """Whether a worker may be given Tasks: its Lease says so, and neither its Pod nor the reaper objects."""
        pod = self.pods.get(worker.pod_uid)
        fit = pod is not None and not (pod.leaving or pod.over or pod.agent_down)
        return worker.schedulable and fit and not self.condemned(worker)

    def _place(self, task: Task) -> None:
        assumed = self._assumed.get(task.uid)
        if assumed is not None:
            if task.attempt < assumed:
                return
            del self._assumed[task.uid]
        tenant = self.tenants[task.namespace]
        if task.held and task.holder is not None:
            self._unqueue(task)
            tenant.capacity.take(task.uid, task.holder.pod_uid, alone=task.runs_alone)
        elif task.phase is Phase.PENDING:
            tenant.capacity.free(task.uid)
            if not (task.runs_alone and may_run(task)):
                tenant.capacity.release(task.uid)
            self._queue(task)
        else:
            self._drop(task)

    def _queue(self, task: Task, *, until: Instant | None = None) -> None:
        tenant = self.tenants[task.namespace]
        waits = task.queue == DEFAULT_QUEUE and may_run(task)
        for backlog, fits in ((tenant.backlog, not task.runs_alone), (tenant.loners, task.runs_alone)):
            if waits and fits:
                backlog.put(task, now=self._clock(), until=until)
            else:
                backlog.discard(task.uid)

    def _unqueue(self, task: Task) -> None:
        tenant = self.tenants[task.namespace]
        tenant.backlog.discard(task.uid)
        tenant.loners.discard(task.uid)

    def _drop(self, task: Task) -> None:
        tenant = self.tenants[task.namespace]
        self._unqueue(task)
        tenant.capacity.free(task.uid)
        tenant.capacity.release(task.uid)

    def _seat(self, worker: Worker) -> None:
        seated = replace(worker, schedulable=self.schedulable(worker))
        self.tenants[worker.namespace].capacity.put_worker(seated)
        self._wake()

    def _unseat(self, lease: WorkerLease) -> None:
        # A recreated Lease of the same pod is another object: its addition may come before this deletion.
        if self.leases.get(lease.worker.pod_uid) == lease:
            del self.leases[lease.worker.pod_uid]
            self.tenants[lease.worker.namespace].capacity.remove_worker(lease.worker.pod_uid)

    def _count(self, task: Task, by: int) -> None:
        self.counts[task.queue, task.phase] += by
