"""The measurements. Each returns plain numbers; what they mean together is the report's business."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from statistics import harmonic_mean, median, quantiles

from bench.cluster import Cluster, latencies, rate
from taskmaster.api import names
from taskmaster.api.times import from_wire
from taskmaster.kube.api import MergePatch
from taskmaster.kube.resource import TASKQUEUES, TASKS, Resource

JOBS = Resource("batch", "v1", "jobs", "Job")
CONCURRENCY = 32

URGENT = "urgent"
"""Label of the Tasks of high priority."""
URGENT_PRIORITY = 100
PAUSE_SECONDS = 0.1
WARM_UP_SECONDS = 2.0


@dataclass(frozen=True)
class Raw:
    """What the API server does with our CRD when nobody else is busy."""

    create_rate: float
    patch_rate: float
    delete_rate: float
    create_p50: float
    patch_p50: float

    @property
    def ideal_rate(self) -> float:
        """Tasks per second if only the four writes of a short Task cost anything: 1/(1/create + 2/PATCH + 1/delete)."""
        return 1 / (1 / self.create_rate + 2 / self.patch_rate + 1 / self.delete_rate)


async def raw(cluster: Cluster, count: int) -> Raw:
    """Measure create, status PATCH and delete of Tasks that nobody runs (there is no worker in the namespace)."""
    api, namespace = cluster.api, cluster.namespace
    many = [f"raw-{number}" for number in range(count)]
    singles = [f"single-{number}" for number in range(100)]
    create_times = await latencies(api.create(TASKS, namespace, cluster.task(name)) for name in singles)
    patch_times = await latencies(cluster.set_message(name, "measured") for name in singles)
    created = await rate((api.create(TASKS, namespace, cluster.task(name)) for name in many), concurrency=CONCURRENCY)
    patched = await rate((cluster.set_message(name, "measured") for name in many), concurrency=CONCURRENCY)
    deleted = await rate((api.delete(TASKS, namespace, name) for name in many), concurrency=CONCURRENCY)
    await rate((api.delete(TASKS, namespace, name) for name in singles), concurrency=CONCURRENCY)
    return Raw(created, patched, deleted, median(create_times), median(patch_times))


def mean(one: Raw, other: Raw) -> Raw:
    """Return what lies between two measurements: rates by their harmonic mean, latencies by the usual one."""

    def rate(name: str) -> float:
        return float(harmonic_mean([getattr(one, name), getattr(other, name)]))

    return Raw(
        rate("create_rate"),
        rate("patch_rate"),
        rate("delete_rate"),
        (one.create_p50 + other.create_p50) / 2,
        (one.patch_p50 + other.patch_p50) / 2,
    )


@dataclass(frozen=True)
class Drain:
    """A batch of Tasks from the first create to the last observed delete."""

    seconds: float
    count: int
    writes_per_task: float

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return self.count / self.seconds


async def drain(cluster: Cluster, count: int) -> Drain:
    """Run `count` Tasks with a TTL of 0 over the pool."""
    events = await cluster.watch_succeeded()

    async def all_deleted() -> None:
        left = count
        async for event in events:
            left -= event.type == "DELETED"
            if left == 0:
                return

    gone = asyncio.create_task(all_deleted())
    before = await cluster.writes()
    started = time.perf_counter()
    tasks = (cluster.task(f"drain-{number}", ttlSecondsAfterFinished=0) for number in range(count))
    await rate((cluster.api.create(TASKS, cluster.namespace, task) for task in tasks), concurrency=CONCURRENCY)
    await gone
    seconds = time.perf_counter() - started
    return Drain(seconds, count, (await cluster.writes() - before) / count)


@dataclass(frozen=True)
class Latency:
    """Seconds from just before the create to the start of the process, both read from the clock of this machine."""

    p50: float
    p99: float


async def latency(cluster: Cluster, count: int) -> Latency:
    """Submit Tasks one by one to an idle system."""
    waits = []
    for number in range(count):
        name = f"single-{number}"
        events = await cluster.watch_succeeded()
        submitted = time.time()
        await cluster.api.create(TASKS, cluster.namespace, cluster.task(name))
        async for event in events:
            waits.append(from_wire(event.object["status"]["startTime"]) - submitted)
            break
    cuts = quantiles(waits, n=100)
    return Latency(cuts[49], cuts[98])


async def urgent(cluster: Cluster, waiting: int, count: int) -> Latency:
    """Submit Tasks of high priority, one each `PAUSE_SECONDS`, to a full system in which many others wait.

    Those stand in a queue that is paused until all are there; the slots are busy with them when the first urgent one
    comes, and go on with them in between.
    """
    api, namespace = cluster.api, cluster.namespace
    metadata = {"name": "crowd"}
    queue = {"apiVersion": names.API_VERSION, "kind": "TaskQueue", "metadata": metadata, "spec": {"paused": True}}
    await api.create(TASKQUEUES, namespace, queue)
    crowd = (cluster.task(f"crowd-{number}", queue="crowd", ttlSecondsAfterFinished=0) for number in range(waiting))
    await rate((api.create(TASKS, namespace, task) for task in crowd), concurrency=CONCURRENCY)
    await api.patch(TASKQUEUES, namespace, "crowd", MergePatch({"spec": {"paused": False}}))
    await asyncio.sleep(WARM_UP_SECONDS)

    listed = await api.list(TASKS, namespace=namespace, limit=1)
    events = api.watch(
        TASKS,
        namespace=namespace,
        label_selector=URGENT,
        resource_version=listed.resource_version,
        timeout_seconds=900,
    )
    submitted: dict[str, float] = {}

    async def starts() -> list[float]:
        waits: dict[str, float] = {}
        async for event in events:
            name, started = event.object["metadata"]["name"], event.object["status"].get("startTime")
            if started:
                waits[name] = from_wire(started) - submitted[name]
            if len(waits) == count:
                break
        return list(waits.values())

    seen = asyncio.create_task(starts())
    for number in range(count):
        task = cluster.task(f"urgent-{number}", queue="crowd", priority=URGENT_PRIORITY)
        task["metadata"]["labels"] = {URGENT: "true"}
        submitted[f"urgent-{number}"] = time.time()
        await api.create(TASKS, namespace, task)
        await asyncio.sleep(PAUSE_SECONDS)
    cuts = quantiles(await seen, n=100)
    await api.patch(TASKQUEUES, namespace, "crowd", MergePatch({"spec": {"paused": True}}))
    await cluster.delete_all(TASKS)
    return Latency(cuts[49], cuts[98])


async def jobs(cluster: Cluster, count: int, image: str) -> float:
    """Run batch Jobs of the same command in the same image on the same node; return Jobs per second."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["true"],
        "securityContext": {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    template = {"spec": {"restartPolicy": "Never", "automountServiceAccountToken": False, "containers": [container]}}
    started = time.perf_counter()
    for number in range(count):
        body = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": f"job-{number}"},
            "spec": {"template": template, "backoffLimit": 0},
        }
        await cluster.api.create(JOBS, cluster.namespace, body)
    await cluster.until(JOBS, lambda job: bool(job.get("status", {}).get("succeeded")), count=count)
    return count / (time.perf_counter() - started)
