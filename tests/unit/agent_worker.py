"""What the agent's tests are built of: a worker on the in-memory API server, with a runner that a test plays itself."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

from tests.sim.memory_api import MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.api import decode, patches
from taskmaster.api.times import to_wire
from taskmaster.core.capacity import Worker as CapacityWorker
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Again, Outcome
from taskmaster.core.task import Instant, StopReason
from taskmaster.kube.api import JsonPatch, MergePatch, Object
from taskmaster.kube.resource import LEASES, TASKS
from taskmaster_worker.agent.assigned import Assigned, assigned
from taskmaster_worker.agent.health import Trouble
from taskmaster_worker.agent.identity import Life, Settings
from taskmaster_worker.agent.metrics import AgentMetrics
from taskmaster_worker.agent.runner_link import Link, LinkListener
from taskmaster_worker.agent.worker import Worker
from taskmaster_worker.runner.messages import Exit, Start

NAMESPACE = "team"
POD = "pool-worker-1"
POD_UID = "pod-uid-1"
EPOCH = 1_800_000_000.0


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {
        "pod_name": POD,
        "pod_uid": POD_UID,
        "namespace": NAMESPACE,
        "node": "node-1",
        "pool": "pool",
        "slots": 2,
        "runner_socket": "/nowhere",
        "runner_uid": None,
        "lease_seconds": 45,
        "renew_seconds": 10,
        "drain_seconds": 30,
        "http_host": "127.0.0.1",
        "http_port": 0,
        "log_level": "DEBUG",
    }
    return Settings(**{**values, **changes})


def wall_clock() -> float:
    return EPOCH + asyncio.get_running_loop().time()


def exit_frame(attempt_id: str, *, code: int | None = 0, at: float | None = None, **members: Any) -> Exit:
    now = to_wire(wall_clock() if at is None else at)
    frame = {"type": "exit", "id": attempt_id, "exitCode": code, "signal": None, "startTime": now, "endTime": now}
    return {**frame, "tail": "", **members}  # type: ignore[typeddict-item]


class PlayedRunner(Link):
    """A link whose other end is the test. It says hello at once, and again half a second after a reset."""

    def __init__(self) -> None:
        self.listener: LinkListener | None = None
        self.frames: dict[str, Start] = {}
        self.stops: list[tuple[str, float]] = []
        self.answers: list[tuple[str, int, str | None]] = []
        self.hellos = 0
        self._there = asyncio.Event()
        self._there.set()
        self._trouble: Trouble | None = Trouble(0.0, "not connected")
        self._ended = asyncio.Event()
        self._reason = ""

    @property
    def ready(self) -> bool:
        return self._trouble is None

    @property
    def trouble(self) -> Trouble | None:
        return self._trouble

    @property
    def away(self) -> bool:
        """Whether nobody will answer the next hello."""
        return not self._there.is_set()

    @away.setter
    def away(self, away: bool) -> None:
        if away:
            self._there.clear()
        else:
            self._there.set()

    async def run(self) -> None:
        while True:
            await self._there.wait()
            self._ended.clear()
            self._trouble = None
            self.hellos += 1
            assert self.listener is not None
            self.listener.on_ready()
            await self._ended.wait()
            self.listener.on_lost(self._reason)
            await asyncio.sleep(0.5)

    def start(self, frame: Start) -> None:
        assert self.ready
        assert frame["id"] not in self.frames, "the same attempt was started twice"
        self.frames[frame["id"]] = frame

    def stop(self, attempt_id: str, grace_seconds: float) -> None:
        self.stops.append((attempt_id, grace_seconds))

    def checkpointed(self, attempt_id: str, sequence: int, error: str | None) -> None:
        self.answers.append((attempt_id, sequence, error))

    def reset(self, reason: str) -> None:
        self._reason = reason
        self._trouble = Trouble(asyncio.get_running_loop().time(), reason)
        self._ended.set()

    def say(self, frame: Any) -> None:
        assert self.listener is not None
        self.listener.on_frame(frame)

    def started(self, attempt_id: str) -> None:
        self.say({"type": "started", "id": attempt_id, "startTime": to_wire(wall_clock())})

    def progress(self, attempt_id: str, **progress: Any) -> None:
        self.say({"type": "progress", "id": attempt_id, "progress": progress})

    def checkpoint(self, attempt_id: str, sequence: int, data: Any) -> None:
        self.say({"type": "checkpoint", "id": attempt_id, "sequence": sequence, "data": data})

    def stalled(self, attempt_id: str) -> None:
        self.say({"type": "stalled", "id": attempt_id})

    def exit(self, attempt_id: str, **members: Any) -> None:
        self.say(exit_frame(attempt_id, **members))


class Stage:
    """The API server, the worker, and its runner."""

    def __init__(self, **changes: Any) -> None:
        self.settings = settings(**changes)
        self.server = MemoryServer(now=lambda: datetime.fromtimestamp(wall_clock(), UTC))
        self.api = MemoryApi(self.server, client="agent", latency=0.01)
        self.runner = PlayedRunner()
        self.clock = asyncio.get_running_loop().time
        self.now = wall_clock
        self.metrics = AgentMetrics(clock=self.clock)
        lives = count(1)
        self.life = Life(self.settings, new_incarnation=lambda: f"life-{next(lives)}")
        self.worker = Worker(
            self.settings,
            self.api,
            self.runner,
            life=self.life,
            metrics=self.metrics,
            clock=self.clock,
            wall_clock=wall_clock,
            random=Random(1),
        )
        self.running: asyncio.Task[None] | None = None

    # ---- the Lease

    @property
    def lease(self) -> Object:
        return self.server.read(LEASES, NAMESPACE, POD)

    @property
    def state(self) -> str:
        return str(self.lease["metadata"]["annotations"]["taskmaster.dev/state"])

    def edit_lease(self, body: Object) -> None:
        self.server.patch(LEASES, NAMESPACE, POD, MergePatch(body), client="coordinator")

    def registered(self) -> CapacityWorker:
        return decode.worker(self.lease)

    # ---- Tasks, as users and the coordinator write them

    def create(self, name: str, **spec: Any) -> str:
        body = {
            "apiVersion": TASKS.api_version,
            "kind": TASKS.kind,
            "metadata": {"name": name},
            "spec": {"run": {"command": ["true"]}, **spec},
        }
        created = self.server.create(TASKS, NAMESPACE, body, client="user")
        return str(created["metadata"]["uid"])

    def assign(self, name: str, **changes: str) -> str:
        """Assign a Task to the worker as registered; return the attempt's id."""
        task = decode.task(self.task(name))
        worker = self.registered()
        known = CapacityWorker(
            NAMESPACE, worker.name, worker.pod_uid, "pool", worker.incarnation, node="", slots=1, schedulable=True
        )
        given = replace(known, **changes)  # type: ignore[arg-type] # the names of fields that are texts
        operations = patches.assign(task, given, now=Instant(self.now()))
        self.write_status(name, operations)
        return f"{task.uid}/{task.attempt + 1}"

    def submit(self, name: str, **spec: Any) -> str:
        self.create(name, **spec)
        return self.assign(name)

    def edit(self, name: str, **spec: Any) -> None:
        self.server.patch(TASKS, NAMESPACE, name, MergePatch({"spec": spec}), client="user")

    def request_stop(self, name: str, reason: StopReason) -> None:
        self.write_status(name, patches.request_stop(decode.task(self.task(name)), reason, now=Instant(self.now())))

    def write_status(self, name: str, operations: list[Object]) -> None:
        self.server.patch(TASKS, NAMESPACE, name, JsonPatch(operations), subresource="status", client="coordinator")

    def requeue(self, name: str) -> None:
        task = decode.task(self.task(name))
        ended = patches.Ended(Outcome.WORKER_LOST, EndReason.WORKER_LOST, "presumed dead", Instant(self.now()))
        self.write_status(name, patches.requeue(task, ended, Again(0.0, task.spent)))

    def task(self, name: str) -> Object:
        return self.server.read(TASKS, NAMESPACE, name)

    def status(self, name: str) -> Object:
        status: Object = self.task(name)["status"]
        return status

    def phase(self, name: str) -> str:
        return str(self.status(name)["phase"])

    def assigned(self, name: str) -> Assigned:
        return assigned(self.task(name))

    def status_writes(self) -> list[Object]:
        """The operations of each status write that the agent has sent, in order."""
        return [
            [dict(op) for op in call.body.ops]  # type: ignore[misc]
            for call in self.api.calls
            if call.verb == "patch" and call.resource is TASKS and isinstance(call.body, JsonPatch)
        ]

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def working(**changes: Any) -> AsyncIterator[Stage]:
    """A registered worker."""
    async with stage(**changes) as built:
        await until(lambda: built.worker.lease.published == "Ready")
        yield built


@asynccontextmanager
async def stage(before: Callable[[Stage], None] = lambda _: None, **changes: Any) -> AsyncIterator[Stage]:
    """A worker that has just begun; `before` prepares the stage."""
    built = Stage(**changes)
    before(built)
    built.running = asyncio.create_task(built.worker.run())
    try:
        yield built
    finally:
        built.running.cancel()
        await asyncio.wait([built.running])
        if not built.running.cancelled() and (error := built.running.exception()) is not None:
            raise error


async def until(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Wait for a condition, looking every hundredth of a second."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - a test has no event for "the server shows it"
            await asyncio.sleep(0.01)
