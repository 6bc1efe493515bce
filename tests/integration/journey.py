"""Brings Tasks into each phase by the writes of the protocol."""

from typing import Any

from tests.integration.harness import Object, World

from taskmaster.api import patches
from taskmaster.api.decode import task as decode_task
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Again, Finish, Outcome, Spent
from taskmaster.core.task import Holder, Instant, Task
from taskmaster.kube.api import JsonPatch
from taskmaster.kube.client import Client
from taskmaster.kube.resource import TASKS

NOW = Instant(1_800_000_000.25)
TRUE = {"command": ["true"]}
RESULT = {"answer": 42}
CHECKPOINT = {"attempt": 1, "time": "2027-01-15T08:00:00Z", "data": {"step": 7, "rest": {"a": 1}}}

ENDS = {
    Phase.SUCCEEDED: patches.Ended(
        Outcome.SUCCEEDED, EndReason.COMPLETED, "done", NOW, NOW, "tail", RESULT, exit_code=0
    ),
    Phase.FAILED: patches.Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", NOW, NOW, "tail", exit_code=3),
    Phase.CANCELLED: patches.Ended(Outcome.CANCELLED, EndReason.CANCELLED, "spec.cancel was set", NOW, NOW, "tail"),
}
WAITING_ENDS = {
    Phase.FAILED: EndReason.TIMED_OUT,
    Phase.CANCELLED: EndReason.CANCELLED,
    Phase.SKIPPED: EndReason.EXPIRED,
}


def some_worker() -> Worker:
    """A worker that nobody checks: the writes of an administrator need no pod."""
    return Worker("ns", "w-1", "pod-uid-1", "default", "life-1", "node-1", 4, True)


def holder_of(task: Task) -> Holder:
    assert task.holder is not None
    return task.holder


async def write(world: World, name: str, operations: list[patches.Operation], *, api: Client | None = None) -> Object:
    patch = JsonPatch(operations)
    return await (api or world.api).patch(TASKS, world.namespace, name, patch, subresource="status")


async def assigned(world: World, obj: Object, *, worker: Worker | None = None) -> Object:
    operations = patches.assign(decode_task(obj), worker or some_worker(), now=NOW)
    return await write(world, obj["metadata"]["name"], operations)


async def running(world: World, obj: Object) -> Object:
    task = decode_task(obj)
    return await write(world, task.name, patches.start(task.uid, task.attempt, holder_of(task), started=NOW))


async def finished(world: World, obj: Object, phase: Phase, *, saved: patches.Saved = patches.NOTHING_SAVED) -> Object:
    task, ended = decode_task(obj), ENDS[phase]
    spent = Spent(failures=1) if phase is Phase.FAILED else Spent()
    decision = Finish(phase, ended.reason, spent, dead_lettered=phase is Phase.FAILED)
    operations = patches.finish(
        task.uid, task.attempt, holder_of(task), ended, decision, task.attempts, task.spent, saved
    )
    return await write(world, task.name, operations)


async def given_back(world: World, obj: Object, *, delay: float = 0.0) -> Object:
    """Let the attempt fail, to be tried again."""
    task = decode_task(obj)
    decision = Again(delay, Spent(failures=task.spent.failures + 1))
    operations = patches.again(
        task.uid, task.attempt, holder_of(task), ENDS[Phase.FAILED], decision, task.attempts, task.spent
    )
    return await write(world, task.name, operations)


async def ended_waiting(world: World, obj: Object, phase: Phase) -> Object:
    task = decode_task(obj)
    operations = patches.end_waiting(task, phase, WAITING_ENDS[phase], "it waited", now=NOW)
    return await write(world, task.name, operations)


async def brought_to(
    world: World, phase: Phase, *, name: str = "it", run: Object = TRUE, worker: Worker | None = None, **spec: Any
) -> Object:
    """Submit a Task and walk it to a phase, by an attempt where one leads there."""
    obj = await world.submit(name, run, **spec)
    if phase is Phase.PENDING:
        return obj
    if phase is Phase.SKIPPED:
        return await ended_waiting(world, obj, phase)
    obj = await assigned(world, obj, worker=worker)
    if phase is Phase.ASSIGNED:
        return obj
    obj = await running(world, obj)
    return obj if phase is Phase.RUNNING else await finished(world, obj, phase)
