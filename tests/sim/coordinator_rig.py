"""A coordinator and its workers on the in-memory server, in virtual time.

`Coordinator` wires the parts as `coordinator/term.py` does, without kopf and the election. `Worker` is what the
coordinator sees of a worker: a Pod, a Lease that it renews, and status writes about its Tasks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random
from typing import Any

from tests.builders import EPOCH, NAMESPACE, lease_object, pod_object
from tests.sim.memory_api import Call, Fault, MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.api import decode, names, patches
from taskmaster.api.times import to_wire
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.deadlines import DeadlineController
from taskmaster.coordinator.explainer import Explainer
from taskmaster.coordinator.leases import worker_lease
from taskmaster.coordinator.pods import worker_pod
from taskmaster.coordinator.queues import QueueController
from taskmaster.coordinator.reaper import Reaper
from taskmaster.coordinator.requests import RequestController
from taskmaster.coordinator.scheduler import Scheduler
from taskmaster.coordinator.templates import TemplateController
from taskmaster.coordinator.ttl import TtlController
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import AttemptEnd, Finish, Outcome, next_attempt
from taskmaster.core.task import Holder, Instant
from taskmaster.kube.api import JsonPatch, MergePatch
from taskmaster.kube.dispatcher import Dispatcher
from taskmaster.kube.errors import ApiError, Unanswered, Unprocessable
from taskmaster.kube.informer import Informer
from taskmaster.kube.resource import LEASES, PODS, TASKQUEUES, TASKS, TASKTEMPLATES, Object, Resource


def wall_clock() -> Instant:
    """Virtual time as a time of day."""
    return Instant(EPOCH + asyncio.get_running_loop().time())


def monotonic() -> float:
    return asyncio.get_running_loop().time()


COMPLETED = AttemptEnd(Outcome.SUCCEEDED, EndReason.COMPLETED)


class Cluster:
    """The server, and what a person does to it."""

    def __init__(self) -> None:
        self.server = MemoryServer(now=lambda: datetime.fromtimestamp(wall_clock(), UTC))
        self._spawned: list[asyncio.Task[Any]] = []

    def submit(self, name: str, **spec: Any) -> Object:
        body = {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"name": name},
            "spec": {"run": {"command": ["true"]}, **spec},
        }
        return self.server.create(TASKS, NAMESPACE, body)

    def edit(self, name: str, **spec: Any) -> Object:
        return self.server.patch(TASKS, NAMESPACE, name, MergePatch({"spec": spec}))

    def delete(self, name: str) -> None:
        self.server.delete(TASKS, NAMESPACE, name)

    def queue(self, name: str, **spec: Any) -> Object:
        return self._create(TASKQUEUES, "TaskQueue", name, spec)

    def edit_queue(self, name: str, **spec: Any) -> None:
        self.server.patch(TASKQUEUES, NAMESPACE, name, MergePatch({"spec": spec}))

    def queue_status(self, name: str) -> Object:
        status: Object = self.server.read(TASKQUEUES, NAMESPACE, name)["status"]
        return status

    def template(self, name: str, task: Object, **spec: Any) -> Object:
        return self._create(TASKTEMPLATES, "TaskTemplate", name, {"task": task, **spec})

    def _create(self, resource: Resource, kind: str, name: str, spec: Object) -> Object:
        metadata = {"name": name, "namespace": NAMESPACE}
        body = {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
        return self.server.create(resource, NAMESPACE, body)

    def task(self, name: str) -> Object:
        return self.server.read(TASKS, NAMESPACE, name)

    def status(self, name: str) -> Object:
        status: Object = self.task(name)["status"]
        return status

    def phases(self) -> dict[str, str]:
        return {each["metadata"]["name"]: each["status"]["phase"] for each in self.server.select(TASKS)}

    def placed(self) -> dict[str, str]:
        """Worker by Task, of those that are held."""
        return {
            each["metadata"]["name"]: each["status"]["assignment"]["worker"]
            for each in self.server.select(TASKS)
            if each["status"]["phase"] in ("Assigned", "Running")
        }

    def writes_to(self, name: str) -> int:
        """How often a Task was changed, its creation and deletion included."""
        return sum(1 for _ in self.changes_of(name))

    def changes_of(self, name: str) -> Iterator[tuple[Object | None, Object | None]]:
        for change in self.server.history:
            one = change.after or change.before
            if change.resource is TASKS and one is not None and one["metadata"]["name"] == name:
                yield change.before, change.after

    def most_held(self) -> Counter[str]:
        """The most Tasks that each worker (by pod uid) ever held at the same time."""
        held: dict[str, str] = {}
        most: Counter[str] = Counter()
        for change in self.server.history:
            one = change.after or change.before
            if change.resource is not TASKS or one is None:
                continue
            uid, status = one["metadata"]["uid"], one.get("status", {})
            if change.after is not None and status.get("phase") in ("Assigned", "Running"):
                held[uid] = status["assignment"]["podUID"]
            else:
                held.pop(uid, None)
            for pod, number in Counter(held.values()).items():
                most[pod] = max(most[pod], number)
        return most

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._spawned.append(task)
        return task

    async def close(self) -> None:
        for task in self._spawned:
            task.cancel()
        results = await asyncio.gather(*self._spawned, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result


class Coordinator:
    """One leader."""

    def __init__(self, cluster: Cluster, *, identity: str = "c1", latency: float = 0.001, seed: int = 1) -> None:
        self.cluster = cluster
        self.down = False
        self.faults: Callable[[Call], Fault | None] = lambda call: None
        self.api = MemoryApi(cluster.server, client=identity, latency=latency, faults=self._fault)
        clocks = {"clock": monotonic, "random": Random(seed)}
        self.assigner = Dispatcher(self.api, concurrency=16, **clocks)  # type: ignore[arg-type]
        self.cleaner = Dispatcher(self.api, concurrency=4, **clocks)  # type: ignore[arg-type]
        self.cache = Cache(wake=lambda: self.scheduler.wake(), clock=wall_clock, synced=self.synced)
        self.scheduler = Scheduler(self.cache, self.assigner, ready=self.synced, clock=wall_clock)
        self.queues = QueueController(
            self.cache, self.cleaner, ready=self.synced, clock=monotonic, wall_clock=wall_clock
        )
        self.templates = TemplateController(self.api, self.cache, may_write=lambda: True, wall_clock=wall_clock)
        selector = names.POOL_LABEL
        self.informers: dict[str, Informer[Any]] = {
            "taskqueues": Informer(
                self.api, TASKQUEUES, transform=dict, on_deltas=self.queues.on_deltas,
                **clocks,  # type: ignore[arg-type]
            ),
            "tasktemplates": Informer(
                self.api, TASKTEMPLATES, transform=dict, on_deltas=self.templates.on_deltas,
                **clocks,  # type: ignore[arg-type]
            ),
            "pods": Informer(
                self.api, PODS, label_selector=selector, transform=worker_pod, on_deltas=self.cache.on_pods,
                **clocks,  # type: ignore[arg-type]
            ),
            "leases": Informer(
                self.api, LEASES, label_selector=selector, transform=worker_lease, on_deltas=self.cache.on_leases,
                **clocks,  # type: ignore[arg-type]
            ),
            "tasks": Informer(
                self.api, TASKS, transform=decode.task, on_deltas=self.cache.on_tasks,
                **clocks,  # type: ignore[arg-type]
            ),
        }  # fmt: skip
        self.reaper = Reaper(
            self.api,
            self.cache,
            self.assigner,
            identity=identity,
            ready=self.synced,
            connected=lambda: self.informers["leases"].last_error is None,
            clock=monotonic,
            wall_clock=wall_clock,
            random=Random(seed),
        )
        self.requests = RequestController(self.cache, self.assigner, clock=wall_clock)
        self.deadlines = DeadlineController(
            self.cache,
            self.assigner,
            ready=self.synced,
            clock=monotonic,
            wall_clock=wall_clock,
            random=Random(seed),
        )
        self.ttl = TtlController(self.cache, self.cleaner, ready=self.synced, clock=wall_clock)
        self.explainer = Explainer(self.cache, self.cleaner, ready=self.synced, clock=wall_clock)

    def _fault(self, call: Call) -> Fault | None:
        if self.down:
            return Fault(before=Unanswered("connection refused"))
        return self.faults(call)

    def disconnect(self) -> None:
        """The API server cannot be reached from here."""
        self.down = True
        self.api.break_watches(Unanswered("connection reset"))

    def reconnect(self) -> None:
        self.down = False

    def synced(self) -> bool:
        return all(informer.synced.is_set() for informer in self.informers.values())

    def sent(self, verb: str, plural: str) -> list[Call]:
        return [call for call in self.api.calls if (call.verb, call.resource.plural) == (verb, plural)]

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for informer in self.informers.values():
                group.create_task(informer.run())
            for part in (
                self.assigner, self.cleaner, self.reaper, self.requests, self.deadlines, self.ttl, self.explainer,
                self.queues, self.templates,
            ):  # fmt: skip
                group.create_task(part.run())
            for informer in self.informers.values():
                await informer.synced.wait()
            group.create_task(self.scheduler.run())

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[Coordinator]:
        task = asyncio.create_task(self.run())
        try:
            for informer in self.informers.values():
                await informer.synced.wait()
            yield self
            assert not task.done(), task.exception()
        finally:
            task.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            if isinstance(results[0], Exception | BaseExceptionGroup):
                raise results[0]


class Worker:
    """A worker pod; `work` says how many seconds a Task takes (None: it never ends), `end` how its attempts end."""

    def __init__(
        self,
        cluster: Cluster,
        name: str,
        *,
        slots: int = 4,
        work: Callable[[str], float | None] = lambda name: None,
        end: Callable[[str], AttemptEnd] = lambda name: COMPLETED,
        duration: int = 45,
    ) -> None:
        self.cluster = cluster
        self.server = cluster.server
        self.name = name
        self.slots = slots
        self.work = work
        self.end = end
        self.duration = duration
        self.incarnation = ""
        self.lives = 0
        self.started: list[tuple[str, int, str]] = []
        """(task, attempt, incarnation) of everything this worker ran."""
        self.refused: list[str] = []
        """Tasks whose status writes were refused."""
        self._life: asyncio.Task[Any] | None = None
        pod = pod_object(name)
        del pod["metadata"]["uid"]
        self.pod_uid: str = self.server.create(PODS, NAMESPACE, pod)["metadata"]["uid"]
        self.set_pod(containerStatuses=[{"name": "agent", "state": {"running": {}}}])
        self.start()

    def start(self) -> None:
        """Begin a new life of the agent."""
        self.stop()
        self.lives += 1
        self.incarnation = f"{self.name}-life-{self.lives}"
        self.renew()
        self._life = self.cluster.spawn(self._live())

    def stop(self) -> None:
        """End abruptly: nothing is written any more."""
        if self._life is not None:
            self._life.cancel()

    def renew(self, **changes: Any) -> None:
        lease = lease_object(
            self.name,
            pod_uid=self.pod_uid,
            slots=self.slots,
            incarnation=self.incarnation,
            renewed=wall_clock(),
            duration=self.duration,
            **changes,
        )
        if any(each["metadata"]["name"] == self.name for each in self.server.select(LEASES)):
            self.server.patch(LEASES, NAMESPACE, self.name, MergePatch(lease), client=self.name)
        else:
            self.server.create(LEASES, NAMESPACE, lease, client=self.name)

    def lease(self) -> Object:
        return self.server.read(LEASES, NAMESPACE, self.name)

    def set_pod(self, **status: Any) -> None:
        self.server.patch(PODS, NAMESPACE, self.name, MergePatch({"status": status}), subresource="status")

    def delete_pod(self) -> None:
        self.stop()
        self.server.delete(PODS, NAMESPACE, self.name)

    async def _live(self) -> None:
        renewal = asyncio.create_task(self._keep_renewing())
        attempts: dict[tuple[str, int], asyncio.Task[None]] = {}
        try:
            while True:
                changed = self.server.changed
                if self.lease()["spec"]["holderIdentity"] != self.name:
                    return  # declared dead
                for each in self._mine():
                    key = (each["metadata"]["uid"], each["status"]["attempt"])
                    if key not in attempts:
                        attempts[key] = asyncio.create_task(self._attempt(each))
                await changed.wait()
        finally:
            for task in (renewal, *attempts.values()):
                task.cancel()

    def _mine(self) -> list[Object]:
        return [
            each
            for each in self.server.select(TASKS)
            if each["status"]["phase"] in ("Assigned", "Running")
            and each["status"]["assignment"]["incarnation"] == self.incarnation
        ]

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self.duration * 10 / 45)
            if self.lease()["spec"]["holderIdentity"] != self.name:
                return
            self.renew()

    async def _attempt(self, task: Object) -> None:
        uid, name, attempt = task["metadata"]["uid"], task["metadata"]["name"], task["status"]["attempt"]
        self.started.append((name, attempt, self.incarnation))
        holder = Holder(self.name, self.pod_uid, self.incarnation)
        began = wall_clock()
        seconds = self.work(name)
        if seconds is None or seconds > 1:
            await asyncio.sleep(1)
            self._write(name, patches.start(uid, attempt, holder, started=began))
        if seconds is None:
            return
        await asyncio.sleep(began + seconds - wall_clock())
        self.finish(name, self.end(name), began=began)

    def finish(self, name: str, end: AttemptEnd, *, began: Instant | None = None) -> None:
        """Write the end of the attempt that this worker holds."""
        known = decode.task(self.cluster.task(name))
        if not known.held or known.holder != Holder(self.name, self.pod_uid, self.incarnation):
            self.refused.append(name)
            return
        ended = patches.Ended(end.outcome, end.reason, "", wall_clock(), began, runner_died=end.runner_died)
        decision = next_attempt(known.policy, known.spent, ended, seconds_left=None, random=Random(1))
        before = (known.uid, known.attempt, known.holder, ended)
        if isinstance(decision, Finish):
            self._write(name, patches.finish(*before, decision, known.attempts, known.spent))
        else:
            self._write(name, patches.again(*before, decision, known.attempts, known.spent))

    def _write(self, name: str, ops: list[patches.Operation]) -> None:
        try:
            self.server.patch(TASKS, NAMESPACE, name, JsonPatch(ops), subresource="status", client=self.name)
        except (Unprocessable, ApiError):
            self.refused.append(name)


def fail_once(matches: Callable[[Call], bool], fault: Fault) -> Callable[[Call], Fault | None]:
    """The fault for the first call that matches."""
    left = [fault]
    return lambda call: left.pop() if left and matches(call) else None


def status_write(call: Call) -> bool:
    return call.verb == "patch" and call.resource is TASKS and call.subresource == "status"


def written(call: Call) -> dict[str, Any]:
    """What a status patch sets, by field."""
    assert isinstance(call.body, JsonPatch)
    return {op["path"].removeprefix("/status/"): op["value"] for op in call.body.ops if op["op"] == "add"}


def seconds(time: float) -> str:
    return to_wire(EPOCH + time)
