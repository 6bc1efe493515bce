"""The coordinator's picture of the cluster: what the informers saw, plus what it has decided itself.

Deltas come in, the pure structures of `core` are kept true, and whoever must act is told by a small set of hooks. A
Task is *assumed* from the moment an assignment is decided until the informer shows that attempt (or the write failed):
it is neither in a backlog nor assigned twice meanwhile, however late the watch is (kube-scheduler's assume, confirm,
forget). Tasks are kept as their template and their queue complete them, so nobody else has to know about defaults.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from taskmaster.api import templates
from taskmaster.coordinator.leases import WorkerLease
from taskmaster.coordinator.pods import WorkerPod
from taskmaster.core.capacity import Worker
from taskmaster.core.explanation import pending
from taskmaster.core.queue import Queue
from taskmaster.core.task import Instant, Task
from taskmaster.core.template import Template
from taskmaster.core.tenant import Tenant
from taskmaster.kube.informer import Delta

UNKNOWN_QUEUE: Final = "(unknown)"
"""What queues are called in metrics that nobody has created: a Task's word must not make a time series."""


def wall_clock() -> Instant:
    """Return the time of day, in seconds since the epoch."""
    return Instant(time.time())


class Cache:
    """Everything that scheduling looks at, kept by deltas."""

    def __init__(
        self,
        *,
        wake: Callable[[], None],
        clock: Callable[[], Instant] = wall_clock,
        synced: Callable[[], bool] = lambda: False,
    ) -> None:
        self.tenants: dict[str, Tenant] = defaultdict(lambda: Tenant(_arguments_problem))
        self.tasks: dict[str, Task] = {}
        self.pods: dict[str, WorkerPod] = {}
        self.leases: dict[str, WorkerLease] = {}
        """Leases of workers by pod uid."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Tasks by (queue, phase), for the metrics."""
        self.task_listeners: list[Callable[[Task | None, Task | None], None]] = []
        self.lease_listeners: list[Callable[[WorkerLease | None, WorkerLease | None], None]] = []
        self.pod_listeners: list[Callable[[WorkerPod | None, WorkerPod | None], None]] = []
        self.unsettled: Callable[[Task], bool] = lambda task: False
        """Whether a schedule has not yet recorded that it started this Task: then only its presence tells."""
        self.condemned: Callable[[Worker], bool] = lambda worker: False
        """Whether the reaper has declared this life of a worker dead, which the watch may not know yet."""
        self._unfilled: dict[str, Task] = {}
        """Tasks with a template as they stand without it."""
        self._wake = wake
        self._clock = clock
        self._synced = synced

    @property
    def assumed(self) -> int:
        """How many assignments are decided and not yet seen."""
        return sum(tenant.assumed for tenant in self.tenants.values())

    def on_tasks(self, deltas: Sequence[Delta[Task]]) -> None:
        """Take the deltas of the Task informer."""
        now, fresh = self._clock(), self._synced()
        for delta in deltas:
            seen = delta.new or delta.old
            assert seen is not None, "a delta has a Task before it, after it, or both"
            old, tenant = self.tasks.get(seen.uid), self.tenants[seen.namespace]
            if delta.new is None:
                tenant.remove_task(old or seen, now=now)
                self._unfilled.pop(seen.uid, None)
                self._tell(self.tasks.pop(seen.uid, None), None)
                continue
            new = tenant.effective(delta.new)
            self.tasks[new.uid] = new
            if new.template:
                self._unfilled[new.uid] = delta.new
            tenant.put_task(new, now=now, fresh=fresh and old is None)
            self._tell(old, new)
        self._wake()

    def queue_changed(self, namespace: str, name: str, queue: Queue | None) -> None:
        """Take note of a queue; None: it is gone."""
        tenant, now = self.tenants[namespace], self._clock()
        before = tenant.defaults_of(name)
        if queue is None:
            tenant.remove_queue(name, now=now)
        else:
            tenant.put_queue(queue, now=now)
        if tenant.defaults_of(name) != before:
            self._complete_again(task for task in self._tasks_of(namespace) if task.queue == name)
        self._wake()

    def template_changed(self, namespace: str, name: str, template: Template | None) -> None:
        """Take note of a template; None: it is gone."""
        tenant, now = self.tenants[namespace], self._clock()
        if template is None:
            tenant.remove_template(name, now=now)
        else:
            tenant.put_template(template, now=now)
        self._complete_again(task for task in self._tasks_of(namespace) if task.template == name)
        self._wake()

    def resolved_run(self, task: Task) -> Mapping[str, Any] | None:
        """Return what the template of a Task that is being assigned comes to, if that is not pinned yet."""
        if not task.template or task.resolved:
            return None
        resolved = templates.resolve(self.tenants[task.namespace].templates[task.template], task.args)
        assert not isinstance(resolved, templates.Problem), "a Task whose arguments do not fit is not ready"
        return resolved

    def has_queue(self, name: str, namespace: str | None = None) -> bool:
        """Whether there is a queue of this name, in one namespace or any."""
        tenants = self.tenants.values() if namespace is None else [self.tenants[namespace]]
        return any(name in tenant.queues for tenant in tenants)

    def pending(self) -> Counter[tuple[str, str, str]]:
        """Count the Tasks that wait, by namespace, queue and reason."""
        now, counts = self._clock(), Counter[tuple[str, str, str]]()
        for namespace, tenant in self.tenants.items():
            for (queue, reason), number in pending(tenant, now=now).items():
                counts[namespace, queue if queue in tenant.queues else UNKNOWN_QUEUE, reason] += number
        return counts

    def needed(self, task: Task) -> bool:
        """Whether an unfinished Task depends on this one."""
        tenant = self.tenants.get(task.namespace)
        return tenant is not None and tenant.dependencies.needed(task.name)

    def task_named(self, namespace: str, name: str) -> Task | None:
        """Return the Task of a name, as far as the watch has shown."""
        tenant = self.tenants.get(namespace)
        return tenant.dependencies.named(name) if tenant is not None else None

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

    def review(self, pod_uid: str) -> None:
        """Judge anew whether a worker, if it is one, may be given Tasks."""
        if (lease := self.leases.get(pod_uid)) is not None:
            self._seat(lease.worker)

    def schedulable(self, worker: Worker) -> bool:
        """Whether a worker may be given Tasks: its Lease says so, and neither its Pod nor the reaper objects."""
        pod = self.pods.get(worker.pod_uid)
        fit = pod is not None and not (pod.leaving or pod.over or pod.agent_down)
        return worker.schedulable and fit and not self.condemned(worker)

    def _tell(self, old: Task | None, new: Task | None) -> None:
        for task, by in ((old, -1), (new, +1)):
            if task is not None:
                self.counts[task.queue, task.phase] += by
        for listener in self.task_listeners:
            listener(old, new)

    def _tasks_of(self, namespace: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.namespace == namespace]

    def _complete_again(self, tasks: Iterable[Task]) -> None:
        """Let Tasks have the defaults that their queue or template gives them now."""
        now = self._clock()
        for old in list(tasks):
            tenant = self.tenants[old.namespace]
            new = tenant.effective(self._unfilled.get(old.uid, old))
            if new != old:
                self.tasks[new.uid] = new
                tenant.put_task(new, now=now)
                self._tell(old, new)

    def _seat(self, worker: Worker) -> None:
        seated = replace(worker, schedulable=self.schedulable(worker))
        self.tenants[worker.namespace].capacity.put_worker(seated)
        self._wake()

    def _unseat(self, lease: WorkerLease) -> None:
        # A recreated Lease of the same pod is another object: its addition may come before this deletion.
        if self.leases.get(lease.worker.pod_uid) == lease:
            del self.leases[lease.worker.pod_uid]
            self.tenants[lease.worker.namespace].capacity.remove_worker(lease.worker.pod_uid)


def _arguments_problem(task: Task, template: Template) -> str:
    resolved = templates.resolve(template, task.args)
    return resolved.message if isinstance(resolved, templates.Problem) else ""
