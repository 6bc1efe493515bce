"""How much memory a cached Task takes: resident memory of a coordinator with many Tasks, above that of an empty one.

`python -m bench.memory COUNT` is the process that is measured: fresh, so that nothing else is in its memory. An
informer lists Tasks as the API server gives them, and whatever keeps something about each of them is wired as in a term
of leadership. The mixture is that of a busy system: most Tasks wait, some run, some have failed before, some are over.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
from prometheus_client import CollectorRegistry

from taskmaster.api import decode, names
from taskmaster.api.times import to_wire
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.deadlines import DeadlineController
from taskmaster.coordinator.explainer import Explainer
from taskmaster.coordinator.metrics import TaskMetrics
from taskmaster.coordinator.requests import RequestController
from taskmaster.coordinator.schedules import ScheduleController
from taskmaster.coordinator.ttl import TtlController
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.queue import Queue
from taskmaster.kube.api import ObjectList, Patch, WatchEvent
from taskmaster.kube.dispatcher import Dispatcher
from taskmaster.kube.informer import Informer
from taskmaster.kube.resource import TASKS, Object, Resource

EPOCH: Final = 1_800_000_000
WORKERS: Final = 100
CUSTOMERS: Final = 500
QUEUES: Final = 5


class Listing:
    """An API server (`kube.api.Api`) that has so many Tasks, and nothing ever changes."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._calm = asyncio.Event()

    async def list(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        limit: int | None = None,
        continue_token: str = "",
    ) -> ObjectList:
        first = int(continue_token or 0)
        last = min(self._count, first + (limit or self._count))
        # As text and back: what is parsed shares nothing with other objects.
        items = orjson.loads(orjson.dumps([task(number) for number in range(first, last)]))
        return ObjectList(items, str(2 * self._count + 1), str(last) if last < self._count else "")

    async def watch(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncIterator[WatchEvent]:
        await self._calm.wait()
        yield WatchEvent("BOOKMARK", {})

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._refuse()

    async def create(self, resource: Resource, namespace: str | None, body: Object, *, dry_run: bool = False) -> Object:
        self._refuse()

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Patch, *, subresource: str | None = None
    ) -> Object:
        self._refuse()

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        propagation: str | None = None,
    ) -> None:
        self._refuse()

    @staticmethod
    def _refuse() -> NoReturn:
        raise AssertionError("nothing is asked of the server but Tasks")


def task(number: int) -> Object:
    """Return a Task as the API server has it; of ten, six wait, one runs, one has failed once, and two are over."""
    created = EPOCH + number // 100
    spec: Object = {
        "queue": f"queue-{number % QUEUES}",
        "priority": number % 3,
        "run": {"command": ["convert", f"in-{number}.png", f"out-{number}.png"], "env": [{"name": "N", "value": "1"}]},
        "fairnessKey": f"customer-{number % CUSTOMERS}",
        "retry": {"limit": 5, "rules": [{"name": "bad-input", "onExitCodes": [64, 65], "action": "Fail"}]},
        "timeouts": {"attemptSeconds": 300},
    }
    if number % 7 == 0:
        spec["requires"] = {"matchLabels": {"gpu": "true"}}
    if number % 11 == 0:
        spec["concurrency"] = {"key": f"customer-{number % CUSTOMERS}", "limit": 1_000}
    if number % 13 == 0:
        spec["dependsOn"] = [{"name": f"task-{number - 10}"}]
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Task",
        "metadata": {
            "name": f"task-{number}",
            "namespace": "team-a",
            "uid": f"00000000-0000-4000-8000-{number:012d}",
            "resourceVersion": str(1_000_000 + number),
            "generation": 1,
            "creationTimestamp": to_wire(created)[:19] + "Z",
            "labels": {"app": "images", "customer": f"customer-{number % CUSTOMERS}"},
        },
        "spec": spec,
        "status": _status(number, created),
    }


def _status(number: int, created: int) -> Object:
    record = {
        "attempt": 1,
        "worker": f"bench-{number % WORKERS}",
        "startTime": to_wire(created + 1),
        "endTime": to_wire(created + 2),
        "outcome": "Failed",
        "reason": "ExitCode",
        "exitCode": 1,
    }
    match number % 10:
        case 6:
            status = _assignment(number, created)
            return {"phase": "Running", "runNumber": 1, "attempt": 1, "observedGeneration": 1, **status}
        case 7:
            waits = {"notBeforeTime": to_wire(created + 10), "queuedTime": to_wire(created + 2), "attempts": [record]}
            return {"phase": "Pending", "runNumber": 1, "attempt": 1, "observedGeneration": 1, "failures": 1, **waits}
        case 8 | 9:
            ended = {"phase": "Succeeded", "reason": "Completed", "result": {"n": number}, "logTail": "done\n" * 20}
            times = {"completionTime": to_wire(created + 2), "attempts": [{**record, "outcome": "Succeeded"}]}
            return {**ended, **times, **_assignment(number, created), "runNumber": 1, "attempt": 1}
        case _:
            return {"phase": "Pending", "runNumber": 1, "attempt": 0}


def _assignment(number: int, created: int) -> Object:
    worker = number % WORKERS
    assignment = {
        "worker": f"bench-7d9f8c6b5-{worker}",
        "podUID": f"11111111-0000-4000-8000-{worker:012d}",
        "incarnation": f"22222222-0000-4000-8000-{worker:012d}",
        "node": f"node-{worker % 10}",
        "assignedTime": to_wire(created + 1),
        "policy": decode.encode_policy(BUILT_IN),
    }
    return {"assignment": assignment, "startTime": to_wire(created + 1)}


@dataclass(frozen=True)
class Memory:
    """Bytes of resident memory."""

    empty: int
    full: int
    tasks: int

    @property
    def megabytes(self) -> float:
        """What the Tasks take together, in units of a million bytes."""
        return (self.full - self.empty) / 1e6

    @property
    def per_task(self) -> float:
        """Bytes."""
        return (self.full - self.empty) / self.tasks


def measure(count: int) -> Memory:
    """Cache so many Tasks in a process of its own, and return what that took."""
    command = [sys.executable, "-m", "bench.memory", str(count)]
    here = Path(__file__).resolve().parents[1]
    answer = subprocess.run(command, cwd=here, check=True, stdout=subprocess.PIPE, text=True)
    return Memory(**json.loads(answer.stdout))


async def fill(count: int) -> Memory:
    """Cache so many Tasks in this process, and return what that took."""
    api = Listing(count)
    dispatcher = Dispatcher(api, concurrency=1)
    cache = Cache(wake=lambda: None)
    metrics = TaskMetrics(CollectorRegistry())
    cache.task_listeners.append(metrics.on_task)
    kept: tuple[Any, ...] = (
        RequestController(cache, dispatcher),
        DeadlineController(cache, dispatcher, ready=lambda: True),
        TtlController(cache, dispatcher, ready=lambda: True),
        Explainer(cache, dispatcher, ready=lambda: True),
        ScheduleController(api, cache, dispatcher, dispatcher, may_write=lambda: True),
    )
    for number in range(QUEUES):
        cache.queue_changed("team-a", f"queue-{number}", Queue(f"queue-{number}"))
    informer = Informer(api, TASKS, transform=decode.task, on_deltas=cache.on_tasks)
    empty = resident()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(informer.run())
        await informer.synced.wait()
        full = resident()
        running.cancel()
    assert (len(cache.tasks), informer.skipped) == (count, 0), "each Task is there"
    del kept
    return Memory(empty, full, count)


def resident() -> int:
    """Return the resident memory of this process in bytes, after all that is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    memory = asyncio.run(fill(int(sys.argv[1])))
    print(json.dumps({"empty": memory.empty, "full": memory.full, "tasks": memory.tasks}))
