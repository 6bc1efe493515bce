"""One term of leadership: everything that runs only on the leader, started together and ended together.

Whatever ends the term (leadership lost, shutdown, a bug in one part) ends all of it, and the next term starts from a
fresh list. So nothing that a former leader believed survives into the next term.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from taskmaster.api import decode, names
from taskmaster.coordinator import crds, handlers
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.deadlines import DeadlineController
from taskmaster.coordinator.explainer import Explainer
from taskmaster.coordinator.health import Health
from taskmaster.coordinator.leases import WorkerLease, worker_lease
from taskmaster.coordinator.metrics import StateCollector, TaskMetrics
from taskmaster.coordinator.pods import WorkerPod, worker_pod
from taskmaster.coordinator.pools import PoolController
from taskmaster.coordinator.queues import QueueController
from taskmaster.coordinator.reaper import Reaper
from taskmaster.coordinator.requests import RequestController
from taskmaster.coordinator.scheduler import Scheduler
from taskmaster.coordinator.schedules import ScheduleController
from taskmaster.coordinator.settings import Settings
from taskmaster.coordinator.templates import TemplateController
from taskmaster.coordinator.ttl import TtlController
from taskmaster.core.task import Task
from taskmaster.kube.api import Api
from taskmaster.kube.dispatcher import Dispatcher
from taskmaster.kube.election import LeaderElector
from taskmaster.kube.informer import Delta, Informer
from taskmaster.kube.observer import Observer
from taskmaster.kube.resource import LEASES, PODS, TASKQUEUES, TASKS, TASKTEMPLATES, Object, Resource

logger = logging.getLogger(__name__)

HEALTH_SECONDS: Final = 1.0
DRAIN_SECONDS: Final = 1.0
"""How long writes under way may take to be answered when the term ends."""

ASSIGN_CONCURRENCY: Final = 16
CLEANUP_CONCURRENCY: Final = 4


AnyInformer = Informer[Task] | Informer[WorkerLease] | Informer[WorkerPod] | Informer[Object]


class Part(Protocol):
    """What a term is made of."""

    async def run(self) -> None:
        """Work until cancelled."""


class Term:
    """The parts of a leader, wired."""

    def __init__(
        self,
        api: Api,
        settings: Settings,
        elector: LeaderElector,
        health: Health,
        *,
        observer: Observer,
        task_metrics: TaskMetrics,
        state: StateCollector,
    ) -> None:
        self._api = api
        self._settings = settings
        self._health = health
        self._observer = observer
        self._state = state
        self._assigner = Dispatcher(api, concurrency=ASSIGN_CONCURRENCY, may_send=lambda: elector.is_leader)
        self._cleaner = Dispatcher(api, concurrency=CLEANUP_CONCURRENCY, may_send=lambda: elector.is_leader)
        self._cache = Cache(wake=lambda: self._scheduler.wake(), synced=self._synced)
        self._scheduler = Scheduler(self._cache, self._assigner, ready=self._synced)
        self._queues = QueueController(self._cache, self._cleaner, ready=self._synced)
        self._templates = TemplateController(api, self._cache, may_write=lambda: elector.is_leader)
        # In this order: when the first Tasks arrive, what decides about them should be known.
        self._informers: dict[str, list[AnyInformer]] = {
            "taskqueues": [self._objects_of(TASKQUEUES, each, self._queues.on_deltas) for each in self._namespaces()],
            "tasktemplates": [
                self._objects_of(TASKTEMPLATES, each, self._templates.on_deltas) for each in self._namespaces()
            ],
            "pods": [self._pods_of(namespace) for namespace in self._namespaces()],
            "leases": [self._leases_of(namespace) for namespace in self._namespaces()],
            "tasks": [self._tasks_of(namespace) for namespace in self._namespaces()],
        }
        self._reaper = Reaper(
            api,
            self._cache,
            self._assigner,
            identity=settings.identity,
            ready=self._synced,
            connected=self._hears_leases,
        )
        self._requests = RequestController(self._cache, self._assigner)
        self._deadlines = DeadlineController(self._cache, self._assigner, ready=self._synced)
        self._ttl = TtlController(self._cache, self._cleaner, ready=self._synced)
        self._explainer = Explainer(self._cache, self._cleaner, ready=self._synced)
        self._pools = PoolController(api, self._cache, settings, may_write=lambda: elector.is_leader)
        self._schedules = ScheduleController(
            api, self._cache, self._assigner, self._cleaner, may_write=lambda: elector.is_leader
        )
        task_metrics.reset()
        task_metrics.counting = self._synced
        task_metrics.has_queue = lambda task: self._cache.has_queue(task.queue, task.namespace)
        self._cache.task_listeners.append(task_metrics.on_task)
        state.cache = self._cache
        state.watch_ages = self._watch_ages

    async def run(self) -> None:
        """Lead until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_health())
                # Somebody may have replaced them while we stood by.
                await crds.wait(self._api, lambda problem: self._health.report("crds", problem))
                for informers in self._informers.values():
                    for informer in informers:
                        group.create_task(informer.run())
                for part in self._parts():
                    group.create_task(part.run())
                await self._wait_until_synced()
                logger.info("leading", extra={"tasks": len(self._cache.tasks), "workers": len(self._cache.leases)})
                group.create_task(self._scheduler.run())
                group.create_task(self._pools.run())
                group.create_task(self._schedules.run())
                self._health.report("kopf", "starting")
                group.create_task(self._host_kopf())
        finally:
            self._state.cache = None
            self._state.watch_ages = dict
            for name in ("kopf", *self._informers):
                self._health.forget(name)

    async def _host_kopf(self) -> None:
        kinds = {
            "workerpools": self._pools.pool_changed,
            "taskschedules": self._schedules.schedule_changed,
        }
        await handlers.host(
            kinds, self._pools.deployment_changed, self._settings, started=lambda: self._health.report("kopf")
        )

    async def stop(self) -> None:
        """Let the writes under way be answered, before the term is cancelled."""
        await asyncio.gather(self._assigner.drain(DRAIN_SECONDS), self._cleaner.drain(DRAIN_SECONDS))

    async def _wait_until_synced(self) -> None:
        for informers in self._informers.values():
            for informer in informers:
                await informer.synced.wait()

    async def _watch_health(self) -> None:
        while True:
            for name, informers in self._informers.items():
                errors = [informer.last_error for informer in informers if informer.last_error]
                unsynced = any(not informer.synced.is_set() for informer in informers)
                self._health.report(name, errors[0] if errors else "not listed yet" if unsynced else "")
            await asyncio.sleep(HEALTH_SECONDS)

    def _parts(self) -> tuple[Part, ...]:
        return (
            self._assigner,
            self._cleaner,
            self._reaper,
            self._requests,
            self._deadlines,
            self._ttl,
            self._explainer,
            self._queues,
            self._templates,
        )

    def _synced(self) -> bool:
        return all(informer.synced.is_set() for informers in self._informers.values() for informer in informers)

    def _hears_leases(self) -> bool:
        return all(informer.last_error is None for informer in self._informers["leases"])

    def _watch_ages(self) -> dict[str, float]:
        now = time.monotonic()
        return {name: max(now - one.last_heard for one in informers) for name, informers in self._informers.items()}

    def _namespaces(self) -> tuple[str | None, ...]:
        return self._settings.watch_namespaces or (None,)

    def _objects_of(
        self, resource: Resource, namespace: str | None, on_deltas: Callable[[Sequence[Delta[Object]]], None]
    ) -> Informer[Object]:
        return Informer(
            self._api,
            resource,
            namespace=namespace,
            transform=dict,
            on_deltas=on_deltas,
            observer=self._observer,
        )

    def _tasks_of(self, namespace: str | None) -> Informer[Task]:
        return Informer(
            self._api,
            TASKS,
            namespace=namespace,
            transform=decode.task,
            on_deltas=self._cache.on_tasks,
            observer=self._observer,
        )

    def _leases_of(self, namespace: str | None) -> Informer[WorkerLease]:
        return Informer(
            self._api,
            LEASES,
            namespace=namespace,
            label_selector=names.POOL_LABEL,
            transform=worker_lease,
            on_deltas=self._cache.on_leases,
            observer=self._observer,
        )

    def _pods_of(self, namespace: str | None) -> Informer[WorkerPod]:
        return Informer(
            self._api,
            PODS,
            namespace=namespace,
            label_selector=names.POOL_LABEL,
            transform=worker_pod,
            on_deltas=self._cache.on_pods,
            observer=self._observer,
        )
