from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from tests.builders import EPOCH, held_task, task, worker

from taskmaster.api.times import to_wire
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.metrics import RequestMetrics, StateCollector, TaskMetrics
from taskmaster.core.task import Task
from taskmaster.kube.informer import Delta


class Rig:
    def __init__(self) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.metrics = TaskMetrics(self.registry, clock=lambda: self.now)
        self.metrics.counting = lambda: True

    def follow(self, *steps: tuple[float, Task | None]) -> None:
        old: Task | None = None
        for at, new in steps:
            self.now = at
            self.metrics.on_task(old, new)
            old = new

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(f"taskmaster_{name}", labels or {"queue": "default"}) or 0.0

    def count(self, name: str) -> float:
        return self.value(f"{name}_seconds_count")

    def sum(self, name: str) -> float:
        return self.value(f"{name}_seconds_sum")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def ended(phase: str = "Succeeded", *, attempt: int = 1, ran: float = 2.0, **status: Any) -> Task:
    record = {"startTime": to_wire(EPOCH), "completionTime": to_wire(EPOCH + ran), "reason": "Completed", **status}
    return held_task(attempt=attempt, status={"phase": phase, **record})


def test_durations_of_a_task_that_was_seen_from_the_beginning(rig: Rig) -> None:
    rig.follow((10, task()), (13, held_task()), (13.5, held_task(status={"phase": "Running"})), (15.25, ended(ran=2)))
    assert (rig.count("task_queue_wait"), rig.sum("task_queue_wait")) == (1, 3)
    assert (rig.count("task_run_duration"), rig.sum("task_run_duration")) == (1, 2)
    assert (rig.count("task_start_latency"), rig.sum("task_start_latency")) == (1, 0.25)
    assert (rig.count("task_end_to_end"), rig.sum("task_end_to_end")) == (1, 5.25)


def test_dead_letters_are_counted(rig: Rig) -> None:
    rig.follow((0, task()), (1, held_task()), (2, ended("Failed", deadLettered=True)))
    rig.follow((3, task("u")), (4, held_task("u")), (5, ended("Failed")))
    assert rig.value("task_dead_letters_total") == 1


def test_a_task_that_ends_while_it_waits_ran_for_no_time(rig: Rig) -> None:
    waiting = task(status={"attempt": 1, "startTime": to_wire(EPOCH)})
    times = {"startTime": to_wire(EPOCH), "completionTime": to_wire(EPOCH + 99)}
    rig.follow(
        (0, task()), (1, held_task()), (2, waiting), (3, task(status={"phase": "Cancelled", "attempt": 1, **times}))
    )
    assert rig.count("task_end_to_end") == 1
    assert rig.count("task_run_duration") == 0


def test_transitions_are_counted_once_each_with_their_reason(rig: Rig) -> None:
    rig.follow((0, task()), (0, task(status={"reason": "NoFreeSlot"})), (1, held_task()), (2, ended()), (3, ended()))
    for phase, reason in (("Pending", ""), ("Assigned", ""), ("Succeeded", "Completed")):
        assert rig.value("task_transitions_total", queue="default", phase=phase, reason=reason) == 1
    assert rig.value("task_transitions_total", queue="default", phase="Pending", reason="NoFreeSlot") == 0


def test_later_attempts_do_not_count_as_waiting_in_the_queue_again(rig: Rig) -> None:
    again = task(status={"attempt": 1, "reason": "BackingOff"})
    rig.follow((0, task()), (1, held_task()), (5, again), (9, held_task(attempt=2)), (12, ended(attempt=2, ran=2)))
    assert (rig.count("task_queue_wait"), rig.sum("task_queue_wait")) == (1, 1)
    assert (rig.count("task_start_latency"), rig.sum("task_start_latency")) == (1, 1)
    assert rig.sum("task_end_to_end") == 12


def test_task_found_by_the_first_list_has_no_durations_of_ours(rig: Rig) -> None:
    rig.metrics.counting = lambda: False
    rig.follow((0, task()))
    rig.metrics.counting = lambda: True
    for old, new in ((task(), held_task()), (held_task(), ended())):
        rig.metrics.on_task(old, new)
    assert rig.count("task_queue_wait") == 0
    assert rig.count("task_end_to_end") == 0
    assert rig.count("task_run_duration") == 1
    assert rig.value("task_transitions_total", queue="default", phase="Pending", reason="") == 0


def test_task_first_seen_when_it_was_finished_has_no_durations(rig: Rig) -> None:
    rig.follow((0, ended()))
    assert rig.count("task_run_duration") == 0
    assert rig.count("task_end_to_end") == 0


def test_start_that_was_not_seen_gives_no_start_latency(rig: Rig) -> None:
    rig.follow((0, task()), (1, held_task(status={"phase": "Running"})), (9, ended()))
    assert rig.count("task_start_latency") == 0
    assert rig.count("task_end_to_end") == 1


def test_edit_of_a_finished_task_counts_nothing(rig: Rig) -> None:
    rig.follow((0, task()), (1, held_task()), (2, ended()), (50, ended(observedGeneration=2)), (60, ended(message="x")))
    assert rig.count("task_end_to_end") == 1
    assert rig.count("task_run_duration") == 1


def test_new_term_starts_afresh(rig: Rig) -> None:
    rig.follow((0, task()))
    rig.metrics.reset()
    rig.metrics.on_task(task(), held_task())
    assert rig.count("task_queue_wait") == 0


def test_deleted_tasks_are_forgotten(rig: Rig) -> None:
    rig.follow((0, task()), (1, None))
    rig.follow((2, task()), (3, held_task()), (4, ended()), (5, ended(observedGeneration=2)), (6, None))
    assert rig.metrics._tasks == {}


def test_clocks_that_disagree_never_give_negative_durations(rig: Rig) -> None:
    rig.follow((0, task()), (1, held_task()), (1.5, ended(ran=-3)))
    assert rig.sum("task_run_duration") == 0
    assert rig.sum("task_start_latency") == 0.5


def test_gauges_are_read_from_the_cache() -> None:
    registry, state = CollectorRegistry(), StateCollector()
    registry.register(state)
    assert registry.get_sample_value("taskmaster_tasks", {"queue": "default", "phase": "Pending"}) is None
    cache = Cache(wake=lambda: None)
    cache.on_tasks([Delta(None, task("a")), Delta(None, held_task("b")), Delta(None, held_task("c"))])
    capacity = cache.tenants["team-a"].capacity
    capacity.put_worker(worker("w", slots=4))
    capacity.put_worker(worker("v", slots=4, schedulable=False))
    state.cache = cache
    state.watch_ages = lambda: {"tasks": 1.5}

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"taskmaster_{name}", labels)

    where = {"namespace": "team-a", "pool": "pool"}
    assert value("tasks", queue="default", phase="Pending") == 1
    assert value("tasks", queue="default", phase="Assigned") == 2
    assert (value("workers", **where, state="ready"), value("workers", **where, state="unready")) == (1, 1)
    assert (value("slots", **where, state="used"), value("slots", **where, state="free")) == (2, 2)
    assert value("watch_age_seconds", resource="tasks") == 1.5
    cache.on_tasks([Delta(task("a"), None)])
    assert value("tasks", queue="default", phase="Pending") == 0


def test_requests_and_watches_are_counted() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry)
    metrics.request("patch", "tasks", 200, 0.25)
    metrics.request("patch", "tasks", 0, 1.0)
    metrics.watch_event("tasks")
    metrics.relist("tasks", "Expired")

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"taskmaster_{name}", labels)

    assert value("api_requests_total", verb="patch", resource="tasks", code="200") == 1
    assert value("api_requests_total", verb="patch", resource="tasks", code="0") == 1
    assert value("api_request_duration_seconds_sum", verb="patch", resource="tasks") == 1.25
    assert value("watch_events_total", resource="tasks") == 1
    assert value("relists_total", resource="tasks", reason="Expired") == 1


def test_no_metric_carries_the_name_of_a_task(rig: Rig) -> None:
    rig.follow((0, task("secret-name")), (1, held_task("secret-name")), (2, ended()))
    labels = {
        value for metric in rig.registry.collect() for sample in metric.samples for value in sample.labels.values()
    }
    assert not [value for value in labels if "secret-name" in value]
