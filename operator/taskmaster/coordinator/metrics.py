"""What the coordinator counts, in Prometheus' terms.

Durations start when the coordinator first *observes* a Task (monotonic clock) and are counted once per Task and attempt
by the leader that saw both ends; what it finds in its first list is skipped, since it does not know for how long that
has been there. No metric carries a Task's name.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from taskmaster.coordinator.cache import UNKNOWN_QUEUE, Cache
from taskmaster.core.phase import Phase
from taskmaster.core.task import DEFAULT_QUEUE, Task

LATENCY_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800)
DURATION_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)


class RequestMetrics:
    """Counts requests to the API server; it is a `kube.observer.Observer`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "taskmaster_api_requests_total",
            "Requests to the API server; code 0 means that no answer came.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "taskmaster_api_request_duration_seconds",
            "Time from sending a request to its answer.",
            ["verb", "resource"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self._events = Counter(
            "taskmaster_watch_events_total", "Events received by watches.", ["resource"], registry=registry
        )
        self._relists = Counter(
            "taskmaster_relists_total", "Full lists by informers.", ["resource", "reason"], registry=registry
        )

    def request(self, verb: str, resource_plural: str, code: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(verb, resource_plural, code).inc()
        self._seconds.labels(verb, resource_plural).observe(seconds)

    def watch_event(self, resource_plural: str) -> None:
        """Count one event."""
        self._events.labels(resource_plural).inc()

    def relist(self, resource_plural: str, reason: str) -> None:
        """Count one list."""
        self._relists.labels(resource_plural, reason).inc()


@dataclass(slots=True)
class _Times:
    seen: float | None
    attempt: int = 0
    assigned: float | None = None


class TaskMetrics:
    """Follows Tasks through their phases."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: dict[str, _Times] = {}
        self.counting: Callable[[], bool] = lambda: False
        """Whether what arrives is news; False while the first list is read."""
        self.has_queue: Callable[[Task], bool] = lambda task: task.queue == DEFAULT_QUEUE
        """Whether the queue that a Task names exists."""
        self._transitions = Counter(
            "taskmaster_task_transitions_total",
            "Tasks that entered a phase, by the reason recorded with it.",
            ["queue", "phase", "reason"],
            registry=registry,
        )
        self._dead_letters = Counter(
            "taskmaster_task_dead_letters_total",
            "Tasks that failed because a budget or their time ran out.",
            ["queue"],
            registry=registry,
        )

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"taskmaster_{name}_seconds", text, ["queue"], buckets=buckets, registry=registry)

        self._queue_wait = histogram(
            "task_queue_wait", "From first observing a Task to observing its first assignment.", LATENCY_BUCKETS
        )
        self._start_latency = histogram(
            "task_start_latency",
            "From observing an assignment to the start of its process: until the end was observed, less the run time.",
            LATENCY_BUCKETS,
        )
        self._run_duration = histogram(
            "task_run_duration",
            "From the start of an attempt's process to its end, as its worker says.",
            DURATION_BUCKETS,
        )
        self._end_to_end = histogram(
            "task_end_to_end", "From first observing a Task to observing that it has finished.", DURATION_BUCKETS
        )

    def reset(self) -> None:
        """Forget what was under way: leadership has ended or begun."""
        self._tasks.clear()

    def on_task(self, old: Task | None, new: Task | None) -> None:
        """Take one delta of the Task informer."""
        if new is None:
            if old is not None:
                self._tasks.pop(old.uid, None)
            return
        if not self.counting():
            return
        now = self._clock()
        times = self._tasks.get(new.uid)
        if times is None:
            # Only a Task that was first seen waiting for its first attempt has been seen from the beginning.
            fresh = old is None and new.attempt == 0
            times = self._tasks[new.uid] = _Times(now if fresh else None)
        if new.attempt > times.attempt:
            if times.seen is not None and times.attempt == 0 and new.attempt == 1:
                self._queue_wait.labels(self._queue(new)).observe(now - times.seen)
            times.attempt = new.attempt
            times.assigned = now if new.phase is Phase.ASSIGNED else None
        if old is None or (old.phase, old.attempt) != (new.phase, new.attempt):
            self._transitions.labels(self._queue(new), new.phase, new.reason).inc()
            if new.finished and old is not None:
                self._finished(new, times, now)

    def _queue(self, task: Task) -> str:
        return task.queue if self.has_queue(task) else UNKNOWN_QUEUE

    def _finished(self, task: Task, times: _Times, now: float) -> None:
        self._tasks.pop(task.uid, None)
        if times.seen is not None:
            self._end_to_end.labels(self._queue(task)).observe(now - times.seen)
        if task.dead_lettered:
            self._dead_letters.labels(self._queue(task)).inc()
        # A Task that ended while it waited is held by nobody, and its start time is that of an earlier attempt.
        if task.holder is not None and task.started is not None and task.completed is not None:
            ran = max(0.0, task.completed - task.started)
            self._run_duration.labels(self._queue(task)).observe(ran)
            if times.assigned is not None:
                self._start_latency.labels(self._queue(task)).observe(max(0.0, now - times.assigned - ran))


class StateCollector(Collector):
    """Gauges read from the cache when somebody looks, so that nothing has to be kept in step."""

    def __init__(self) -> None:
        self.cache: Cache | None = None
        self.watch_ages: Callable[[], dict[str, float]] = dict

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; those of the cluster are there on the leader only."""
        ages = GaugeMetricFamily(
            "taskmaster_watch_age_seconds", "Since a watch last heard anything.", labels=["resource"]
        )
        for resource, age in self.watch_ages().items():
            ages.add_metric([resource], age)
        yield ages
        tasks = GaugeMetricFamily("taskmaster_tasks", "Tasks by queue and phase.", labels=["queue", "phase"])
        workers = GaugeMetricFamily("taskmaster_workers", "Registered workers.", labels=["namespace", "pool", "state"])
        slots = GaugeMetricFamily("taskmaster_slots", "Slots of workers.", labels=["namespace", "pool", "state"])
        pending_tasks = GaugeMetricFamily(
            "taskmaster_pending_tasks",
            "Tasks that wait, by what for (the words of status.reason, whether they have been written or not).",
            labels=["namespace", "queue", "reason"],
        )
        if self.cache is not None:
            for (namespace, queue, reason), count in self.cache.pending().items():
                pending_tasks.add_metric([namespace, queue, reason], count)
            by_label: Tally[tuple[str, str]] = Tally()
            for (queue, phase), count in self.cache.counts.items():
                by_label[queue if self.cache.has_queue(queue) else UNKNOWN_QUEUE, phase] += count
            for label, count in by_label.items():
                tasks.add_metric(list(label), count)
            for labels, count in _worker_counts(self.cache).items():
                workers.add_metric(list(labels), count)
            for labels, count in _slot_counts(self.cache).items():
                slots.add_metric(list(labels), count)
        yield tasks
        yield pending_tasks
        yield workers
        yield slots


def leader_gauge(registry: CollectorRegistry) -> Gauge:
    """Return the gauge that is 1 on the leader."""
    return Gauge("taskmaster_leader", "1 while this coordinator leads, else 0.", registry=registry)


def _worker_counts(cache: Cache) -> dict[tuple[str, str, str], int]:
    counts: dict[tuple[str, str, str], int] = {}
    for namespace, tenant in cache.tenants.items():
        for worker in tenant.capacity.workers():
            for state in ("ready", "unready"):
                counts.setdefault((namespace, worker.pool, state), 0)
            counts[namespace, worker.pool, "ready" if worker.schedulable else "unready"] += 1
    return counts


def _slot_counts(cache: Cache) -> dict[tuple[str, str, str], int]:
    counts: dict[tuple[str, str, str], int] = {}
    for namespace, tenant in cache.tenants.items():
        for worker in tenant.capacity.workers():
            used = tenant.capacity.used(worker.pod_uid)
            free = max(0, worker.slots - used) if worker.schedulable else 0
            for state, number in (("used", used), ("free", free)):
                labels = (namespace, worker.pool, state)
                counts[labels] = counts.get(labels, 0) + number
    return counts
