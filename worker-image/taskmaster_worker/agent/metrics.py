"""What the agent counts, in Prometheus' terms. No metric carries a Task's name.

`AgentMetrics` is every observer at once: of the requests to the API server, of status writes, of attempts, and of the
Lease. Children of labelled metrics are kept, since looking one up costs more than counting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, GCCollector, Histogram, PlatformCollector
from prometheus_client import ProcessCollector as ProcessMetrics

from taskmaster.api.patches import Ended
from taskmaster.kube.resource import TASKS
from taskmaster_worker.agent.stops import Stop

DURATION_BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 86_400)


class AgentMetrics:
    """Counters in a registry of their own."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self.watch_opened = float("-inf")
        """When the watch on Tasks was last opened, in monotonic seconds."""
        self._clock = clock
        self._requests = self._counter(
            "taskmaster_api_requests_total",
            "Requests to the API server; code 0 means that no answer came.",
            ("verb", "resource", "code"),
        )
        self._request_seconds = Counter(
            "taskmaster_api_request_seconds_total", "Time spent waiting for answers.", registry=self.registry
        )
        self._events = self._counter("taskmaster_watch_events_total", "Events received by watches.", ("resource",))
        self._relists = self._counter("taskmaster_relists_total", "Full lists by informers.", ("resource", "reason"))
        self._writes = self._counter(
            "taskmaster_worker_status_writes_total", "Answers to writes about attempts.", ("kind", "code")
        )
        self._stops = self._counter(
            "taskmaster_worker_stops_total",
            "Running attempts that were told to stop, by the first reason.",
            ("reason",),
        )
        self._attempts = self._counter(
            "taskmaster_worker_attempts_total", "Attempts that ended on this worker.", ("outcome", "reason")
        )
        self._superseded = Counter(
            "taskmaster_worker_superseded_total",
            "Attempts and records dropped because the Task had moved on.",
            registry=self.registry,
        )
        self._renewals = self._counter("taskmaster_worker_lease_renewals_total", "Renewals of the Lease.", ("result",))
        self._duration = Histogram(
            "taskmaster_worker_attempt_duration_seconds",
            "From the start of an attempt's process to its end.",
            buckets=DURATION_BUCKETS,
            registry=self.registry,
        )
        for collector in (ProcessMetrics, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._children: dict[tuple[Counter, tuple[object, ...]], Counter] = {}

    def show_slots(self, slots: int, *, running: Callable[[], int], taken: Callable[[], int]) -> None:
        """Show how many slots there are, how many of them are taken, and by how many attempts."""
        Gauge("taskmaster_worker_slots", "Slots that attempts may take.", registry=self.registry).set(slots)
        for name, text, count in (
            ("taskmaster_worker_slots_taken", "Slots that are taken by attempts with a process.", taken),
            ("taskmaster_worker_attempts_running", "Attempts with a process.", running),
        ):
            Gauge(name, text, registry=self.registry).set_function(count)

    def request(self, verb: str, resource_plural: str, code: int, seconds: float) -> None:
        """Count one request."""
        if verb == "watch":
            if code == 200 and resource_plural == TASKS.plural:
                self.watch_opened = self._clock()
        else:
            self._request_seconds.inc(seconds)
        self._count(self._requests, verb, resource_plural, code)

    def watch_event(self, resource_plural: str) -> None:
        """Count one event."""
        self._count(self._events, resource_plural)

    def relist(self, resource_plural: str, reason: str) -> None:
        """Count one list."""
        self._count(self._relists, resource_plural, reason)

    def status_write(self, kind: str, code: int) -> None:
        """Count one answer to a write."""
        self._count(self._writes, kind, code)

    def stopped(self, stop: Stop) -> None:
        """Count one attempt that is told to stop."""
        self._count(self._stops, stop.reason.value)

    def ended(self, ended: Ended) -> None:
        """Count one attempt."""
        self._count(self._attempts, ended.outcome.value, ended.reason.value)
        if ended.started is not None:
            self._duration.observe(max(0.0, ended.ended - ended.started))

    def superseded(self) -> None:
        """Count one attempt or record that was overtaken."""
        self._superseded.inc()

    def lease_renewal(self, result: str) -> None:
        """Count one renewal."""
        self._count(self._renewals, result)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _count(self, counter: Counter, *labels: object) -> None:
        key = (counter, labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = counter.labels(*labels)
        child.inc()
