"""One namespace in virtual time: what the tests of scheduling have in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tests.builders import EPOCH, task, worker

from taskmaster.core.assignment import Assignment, Ending, Stop
from taskmaster.core.explanation import Surveys, explain, message
from taskmaster.core.phase import Phase
from taskmaster.core.queue import Queue
from taskmaster.core.scheduling import Scheduling
from taskmaster.core.station import Place, Station
from taskmaster.core.task import Concurrency, Dependency, DependencyCondition, Holder, Instant, OnConflict, Task
from taskmaster.core.tenant import Tenant

_PLAIN = task()


def pending(name: str, *, created: float = EPOCH, **fields: Any) -> Task:
    """A new Task; fields are those of the core's Task."""
    at = Instant(created)
    return replace(_PLAIN, uid=f"uid-of-{name}", name=name, created=at, queued=at, **fields)


def held(each: Task, worker_name: str = "w", **fields: Any) -> Task:
    """A Task as the watch shows it once a worker has its next attempt."""
    holder = Holder(worker_name, f"uid-of-{worker_name}", "i1")
    return replace(each, phase=Phase.ASSIGNED, attempt=each.attempt + 1, holder=holder, **fields)


def given_back(each: Task, *, until: float | None = None, **fields: Any) -> Task:
    """A Task whose attempt is over and which waits for the next one."""
    not_before = None if until is None else Instant(until)
    return replace(each, phase=Phase.PENDING, holder=None, not_before=not_before, stop_requested=False, **fields)


def ended(each: Task, phase: Phase = Phase.SUCCEEDED, **fields: Any) -> Task:
    return replace(each, phase=phase, completed=Instant(EPOCH), **fields)


def key(name: str = "k", limit: int = 1, on_conflict: OnConflict = OnConflict.QUEUE) -> Concurrency:
    return Concurrency(name, limit, on_conflict)


def after(*names: str, condition: DependencyCondition = DependencyCondition.SUCCEEDED) -> tuple[Dependency, ...]:
    return tuple(Dependency(name, condition) for name in names)


class Site:
    """A namespace, its clock, and what a coordinator and its workers do about it."""

    def __init__(self, *queues: Queue, tenant: Tenant | None = None, **workers: int) -> None:
        self.now = Instant(EPOCH)
        self.tenant = Tenant() if tenant is None else tenant
        self.scheduling = Scheduling(self.tenant)
        for queue in queues:
            self.tenant.put_queue(queue, now=self.now)
        for name, slots in workers.items():
            self.tenant.capacity.put_worker(worker(name, slots=slots))

    def put(self, *tasks: Task, fresh: bool = False) -> None:
        for each in tasks:
            self.tenant.put_task(each, now=self.now, fresh=fresh)

    def queue(self, name: str, **fields: Any) -> None:
        self.tenant.put_queue(Queue(name, **fields), now=self.now)

    def remove(self, *tasks: Task) -> None:
        for each in tasks:
            self.tenant.remove_task(each, now=self.now)

    def passes(self, seconds: float) -> None:
        self.now = Instant(self.now + seconds)

    def decide(self, at_most: int = 1_000) -> list[Assignment]:
        return self.scheduling.decide(now=self.now, at_most=at_most)

    def cycle(self, at_most: int = 1_000) -> list[str]:
        """Decide, and let the watch show it at once; the names of what has begun."""
        decisions = self.decide(at_most)
        self.put(*(held(each.task, each.worker.name) for each in decisions))
        return [each.task.name for each in decisions]

    def fail(self, decision: Assignment, *, until: float, in_doubt: bool = False) -> None:
        """Let the write of an assignment fail."""
        self.tenant.forget(decision.task, until=Instant(until), in_doubt=in_doubt, now=self.now)

    def end(self, *names: str, phase: Phase = Phase.SUCCEEDED) -> None:
        self.put(*(ended(self.task(name), phase) for name in names))

    def task(self, name: str) -> Task:
        return self.tenant.entries[f"uid-of-{name}"].task

    def station(self, name: str) -> Station:
        return self.tenant.entries[f"uid-of-{name}"].station

    def stations(self, names: Iterable[str]) -> list[Station]:
        return [self.station(each) for each in names]

    def word(self, name: str) -> str | None:
        """Why a Task waits, as people are told."""
        return explain(self.tenant, self.tenant.entries[f"uid-of-{name}"], Surveys(), now=self.now)

    def says(self, name: str) -> str:
        entry, surveys = self.tenant.entries[f"uid-of-{name}"], Surveys()
        reason = explain(self.tenant, entry, surveys, now=self.now)
        return message(self.tenant, entry, reason, surveys) if reason is not None else ""

    def verdicts(self) -> list[tuple[str, str]]:
        """What follows without a decision about workers, taken out: names, and how they end or why they are stopped."""
        found, self.tenant.verdicts = self.tenant.verdicts, []
        return [(each.task.name, _word(each)) for each in found]

    def running(self) -> list[str]:
        return sorted(each.task.name for each in self.tenant.entries.values() if each.station is Place.HELD)

    def assert_nothing_is_left(self) -> None:
        """After all Tasks have ended or are deleted."""
        tenant = self.tenant
        assert (tenant.entries, dict(tenant.counts), tenant.assumed, tenant.next_due()) == ({}, {}, 0, None)
        assert (tenant._held, tenant._late, tenant._condemned) == ({}, {}, {})
        assert (tenant.keys._keys, tenant.keys._key_of) == ({}, {})
        for name, state in tenant.queues.items():
            assert (name, len(state.backlog), len(state.outside), list(state.backlog.shapes())) == (name, 0, 0, [])
        assert not any(usage.held for usage in tenant.shares._usages.values())
        capacity = tenant.capacity
        assert (capacity._reservations, capacity._places, capacity._homeless) == ({}, {}, {})
        for worker_ in capacity.workers():
            assert (worker_.name, capacity.used(worker_.pod_uid)) == (worker_.name, 0)


def _word(verdict: Ending | Stop) -> str:
    return f"Stop({verdict.reason})" if isinstance(verdict, Stop) else f"{verdict.phase}({verdict.reason})"
