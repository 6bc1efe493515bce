"""A worker on a real API server, with its own token and a test in the place of the coordinator."""

from typing import Any

import pytest
from tests.integration.harness import Object, World, in_phase

from taskmaster.api import decode, names, patches
from taskmaster.core.capacity import Worker
from taskmaster.core.task import Instant, StopReason
from taskmaster.kube.api import JsonPatch
from taskmaster.kube.resource import LEASES, TASKS

NOW = Instant(1_800_000_000.5)
QUICK = {"timeouts": {"graceSeconds": 1}}


@pytest.fixture
async def worker(world: World) -> Worker:
    labels = '{"example.com/gpu":"a100","zone":""}'
    await world.start_worker("w-1", slots=2, TASKMASTER_LABELS=labels, TASKMASTER_QUEUES='["media","default"]')
    return decode.worker(await world.api.get(LEASES, world.namespace, "w-1"))


async def assign(world: World, worker: Worker, name: str, **status: Any) -> Object:
    """Assign a Task, with more in its status."""
    operations = patches.assign(decode.task(await world.task(name)), worker, now=NOW)
    operations += [{"op": "add", "path": f"/status/{path}", "value": value} for path, value in status.items()]
    return await write(world, name, operations)


async def write(world: World, name: str, operations: list[patches.Operation]) -> Object:
    return await world.api.patch(TASKS, world.namespace, name, JsonPatch(operations), subresource="status")


async def test_its_lease_says_what_it_is_like(worker: Worker) -> None:
    assert worker.labels == {"example.com/gpu": "a100", "zone": "", "pool": "default"}
    assert worker.queues == {"media", "default"}
    assert worker.slots == 2


async def test_a_task_is_given_the_results_of_those_it_depends_on(world: World, worker: Worker) -> None:
    for name, source in {"some": "echo '{\"ü\": [1, 2]}' > $TASK_RESULT_FILE", "none": "true"}.items():
        await world.submit(name, {"command": ["sh", "-c", source]})
        await assign(world, worker, name)
        await world.until(name, in_phase("Succeeded"))
    copy = {"command": ["sh", "-c", "cat $TASK_DEPENDENCIES_FILE > $TASK_RESULT_FILE"]}
    await world.submit("it", copy, dependsOn=[{"name": name} for name in ("some", "none", "gone")])
    await assign(world, worker, "it")
    status = (await world.until("it", in_phase("Succeeded")))["status"]
    assert status["result"] == {"some": {"ü": [1, 2]}, "none": None}


async def test_a_task_with_a_template_runs_what_it_came_to(world: World, worker: Worker) -> None:
    spec = {"templateRef": {"name": "greeting"}, "args": {"name": "world"}}
    body = {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "it"}, "spec": spec}
    await world.api.create(TASKS, world.namespace, body)
    run = {"command": ["sh", "-c", 'echo "$GREETING from $PWD"']}
    resolved = {"run": run, "env": [{"name": "GREETING", "value": "hello, world"}], "workingDir": "/"}
    await assign(world, worker, "it", resolvedRun=resolved)
    status = (await world.until("it", in_phase("Succeeded")))["status"]
    assert (status["logTail"], status["resolvedRun"]) == ("hello, world from /\n", resolved)


async def test_a_task_whose_place_another_took_ends_as_replaced(world: World, worker: Worker) -> None:
    await world.submit("it", {"command": ["sleep", "60"]}, **QUICK)
    await assign(world, worker, "it")
    running = await world.until("it", in_phase("Running"))
    await write(world, "it", patches.request_stop(decode.task(running), StopReason.CANCELLED, now=NOW))
    status = (await world.until("it", in_phase("Cancelled")))["status"]
    assert (status["reason"], status["message"]) == ("Replaced", "another Task took its place")


async def test_a_task_that_takes_more_slots_than_there_are_is_given_back(world: World, worker: Worker) -> None:
    await world.submit("it", {"command": ["true"]}, resources={"slots": 3})
    await assign(world, worker, "it")
    status = (await world.until("it", in_phase("Pending")))["status"]
    (record,) = status["attempts"]
    assert (record["outcome"], record["message"]) == ("Released", "it takes 3 slots, and the worker has 2")
