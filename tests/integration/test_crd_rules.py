"""Tries to break each rule of the CRDs on a real API server."""

from typing import Any

import pytest
from tests.integration.harness import Object, World

from taskmaster.api import names, patches
from taskmaster.api.decode import task as decode_task
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.retry import Again, Finish, Outcome, Spent
from taskmaster.core.task import Instant
from taskmaster.kube.api import JsonPatch, MergePatch
from taskmaster.kube.errors import ApiError, Unprocessable
from taskmaster.kube.resource import TASKS, WORKERPOOLS

NOW = Instant(1_800_000_000.25)
TRUE = {"command": ["true"]}
ENDED = patches.Ended(Outcome.SUCCEEDED, EndReason.COMPLETED, "done", NOW, NOW, 0, "tail", {"answer": 42})


def worker() -> Worker:
    return Worker("ns", "w-1", "pod-uid-1", "default", "life-1", "node-1", 4, True)


async def write(world: World, name: str, operations: list[patches.Operation]) -> Object:
    return await world.api.patch(TASKS, world.namespace, name, JsonPatch(operations), subresource="status")


async def brought_to(world: World, phase: Phase, *, run: Object = TRUE, **spec: Any) -> Object:
    """Submit a Task and walk it to a phase by the writes of the protocol."""
    obj = await world.submit("it", run, **spec)
    if phase is Phase.PENDING:
        return obj
    obj = await write(world, "it", patches.assign(decode_task(obj), worker(), now=NOW))
    task = decode_task(obj)
    assert task.holder is not None
    if phase is Phase.ASSIGNED:
        return obj
    if phase is Phase.RUNNING:
        return await write(world, "it", patches.start(task.uid, task.attempt, task.holder, started=NOW))
    reason = EndReason.COMPLETED if phase is Phase.SUCCEEDED else EndReason.EXIT_CODE
    decision = Finish(phase, reason, Spent())
    return await write(
        world, "it", patches.finish(task.uid, task.attempt, task.holder, ENDED, decision, task.attempts, task.spent)
    )


async def test_status_starts_as_pending_without_a_write(world: World) -> None:
    obj = await world.submit("it", TRUE)
    assert obj["status"] == {"phase": "Pending", "attempt": 0}
    assert obj["spec"]["queue"] == "default"
    assert obj["spec"]["priority"] == 0


async def test_every_write_of_the_protocol_is_accepted(world: World) -> None:
    task = decode_task(await brought_to(world, Phase.RUNNING))
    assert task.holder is not None
    lost = patches.Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", NOW, NOW, 3, "tail")
    decision = Again(5.0, Spent(failures=1))
    obj = await write(
        world, "it", patches.again(task.uid, task.attempt, task.holder, lost, decision, task.attempts, task.spent)
    )
    task = decode_task(obj)
    assert (task.phase, task.reason, task.not_before, task.spent.failures) == (Phase.PENDING, "BackingOff", NOW + 5, 1)
    obj = await write(world, "it", patches.explain(task, PendingReason.NO_FREE_SLOT, "wait"))
    obj = await write(world, "it", patches.assign(decode_task(obj), worker(), now=NOW))
    task = decode_task(obj)
    assert (task.phase, task.attempt, task.not_before) == (Phase.ASSIGNED, 2, None)
    gone = patches.Ended(Outcome.WORKER_LOST, EndReason.WORKER_LOST, "gone", NOW)
    obj = await write(
        world, "it", patches.requeue(task, gone, Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(1, 1)))
    )
    assert [record["attempt"] for record in obj["status"]["attempts"]] == [1, 2]
    obj = await world.edit("it", priority=7)
    obj = await write(world, "it", patches.observe_generation(decode_task(obj)))
    assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"] == 2


MOVES = [
    (Phase.PENDING, {"phase": "Running"}, "Pending Task can only become Assigned"),
    (Phase.PENDING, {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}, "can only become Assigned"),
    (Phase.PENDING, {"phase": "Assigned", "attempt": 1}, "needs an assignment"),
    (Phase.PENDING, {"attempt": 1}, "attempt grows by one when a Task is assigned"),
    (Phase.PENDING, {"phase": "Waiting"}, "Unsupported value"),
    (Phase.ASSIGNED, {"attempt": 2}, "attempt grows by one when a Task is assigned"),
    (Phase.ASSIGNED, {"attempt": 0}, "attempt grows by one when a Task is assigned"),
    (Phase.ASSIGNED, {"assignment": None}, "needs an assignment"),
    (Phase.ASSIGNED, {"phase": "Pending"}, "a Pending Task has no assignment"),
    (Phase.ASSIGNED, {"phase": "Succeeded"}, "needs a completionTime"),
    (Phase.RUNNING, {"phase": "Assigned"}, "a Running Task can only become"),
    (Phase.RUNNING, {"attempt": 5}, "attempt grows by one"),
    (Phase.SUCCEEDED, {"phase": "Failed"}, "status.phase cannot be changed"),
    (Phase.SUCCEEDED, {"phase": "Pending", "assignment": None}, "status.phase cannot be changed"),
    (Phase.SUCCEEDED, {"attempt": 2}, "status.attempt cannot be changed"),
    (Phase.SUCCEEDED, {"message": "other"}, "status.message cannot be changed"),
    (Phase.SUCCEEDED, {"exitCode": None}, "status.exitCode cannot be changed"),
    (Phase.SUCCEEDED, {"logTail": "other"}, "status.logTail cannot be changed"),
    (Phase.SUCCEEDED, {"attempts": []}, "status.attempts cannot be changed"),
    (Phase.SUCCEEDED, {"conditions": []}, "status.conditions cannot be changed"),
    (Phase.SUCCEEDED, {"completionTime": "2026-01-01T00:00:00Z"}, "status.completionTime cannot be changed"),
    (Phase.SUCCEEDED, {"result": {"answer": 43}}, "status.result cannot be changed"),
    (Phase.SUCCEEDED, {"result": {"answer": None, "renamed": 42}}, "status.result cannot be changed"),
    (Phase.SUCCEEDED, {"result": None}, "status.result cannot be changed"),
    (Phase.FAILED, {"failures": 9}, "status.failures cannot be changed"),
    (Phase.FAILED, {"reason": "Completed"}, "status.reason cannot be changed"),
]


@pytest.mark.parametrize(("phase", "change", "message"), MOVES, ids=lambda value: str(value)[:60])
async def test_the_server_refuses_a_move_that_the_state_machine_does_not_know(
    world: World, phase: Phase, change: Object, message: str
) -> None:
    before = await brought_to(world, phase)
    with pytest.raises(ApiError) as refused:
        await world.api.patch(TASKS, world.namespace, "it", MergePatch({"status": change}), subresource="status")
    assert message in refused.value.message
    assert await world.task("it") == before


async def test_a_status_that_is_taken_away_as_a_whole_is_refused(world: World) -> None:
    await brought_to(world, Phase.SUCCEEDED)
    with pytest.raises(Unprocessable, match="cannot be changed"):
        await write(world, "it", [{"op": "remove", "path": "/status"}])


EDITS = [
    ({"run": {"command": ["false"]}}, "spec.run cannot be changed"),
    ({"env": [{"name": "A", "value": "1"}]}, "spec.env cannot be changed"),
    ({"workingDir": "/srv"}, "spec.workingDir cannot be changed"),
    ({"queue": "other"}, "spec.queue cannot be changed"),
    ({"retry": {"limit": 9}}, "spec.retry cannot be changed"),
    ({"timeouts": {"attemptSeconds": 9}}, "spec.timeouts cannot be changed"),
    ({"description": "other"}, "spec.description cannot be changed"),
]


@pytest.mark.parametrize(("change", "message"), EDITS, ids=lambda value: str(value)[:40])
async def test_the_spec_is_fixed_once_the_task_was_assigned(world: World, change: Object, message: str) -> None:
    await brought_to(world, Phase.ASSIGNED)
    with pytest.raises(Unprocessable, match=message):
        await world.edit("it", **change)


@pytest.mark.parametrize("change", [change for change, _ in EDITS], ids=str)
async def test_the_spec_can_be_edited_before_the_first_assignment(world: World, change: Object) -> None:
    await brought_to(world, Phase.PENDING)
    assert (await world.edit("it", **change))["metadata"]["generation"] == 2


@pytest.mark.parametrize("phase", [Phase.ASSIGNED, Phase.SUCCEEDED])
async def test_priority_and_ttl_can_be_edited_always(world: World, phase: Phase) -> None:
    await brought_to(world, phase)
    edited = await world.edit("it", priority=5, ttlSecondsAfterFinished=1)
    assert (edited["spec"]["priority"], edited["spec"]["ttlSecondsAfterFinished"]) == (5, 1)


async def test_free_form_arguments_are_fixed_to_the_last_key(world: World) -> None:
    """Equality in a CRD's rules ignores keys that the schema does not name; the admission policy does not."""
    call = {"python": {"callable": "m:f", "args": {"first": {"a": 1}}}}
    await brought_to(world, Phase.ASSIGNED, run=call)
    for args in ({"first": None, "renamed": {"a": 1}}, {"first": {"a": 2}}, {"first": {"a": None, "b": 1}}):
        with pytest.raises(Unprocessable, match=r"spec\.run cannot be changed"):
            await world.edit("it", run={"python": {"args": args}})


BAD_SPECS: list[tuple[Object, str]] = [
    ({}, "spec.run: Required value"),
    ({"run": {}}, "exactly one of command, script, python must be set"),
    ({"run": {"command": ["a"], "script": {"source": "b"}}}, "exactly one of command, script, python must be set"),
    ({"run": {"command": []}}, "should have at least 1 items"),
    ({"run": {"command": ["x" * 1_048_576]}}, "may not be more than 131072"),
    ({"run": {"command": ["true"] * 129}}, "must have at most 128 items"),
    ({"run": {"python": {"callable": "no_colon"}}}, "should match"),
    ({"run": {"script": {"source": ""}}}, "should be at least 1 chars long"),
    ({"run": TRUE, "priority": 1_001}, "should be less than or equal to 1000"),
    ({"run": TRUE, "priority": -1_001}, "should be greater than or equal to -1000"),
    ({"run": TRUE, "priority": 1.5}, "must be of type integer"),
    ({"run": TRUE, "priority": 2**62}, "should be less than or equal to 1000"),
    ({"run": TRUE, "retry": {"limit": -1}}, "should be greater than or equal to 0"),
    ({"run": TRUE, "retry": {"limit": 2**40}}, "should be less than or equal to 10000"),
    ({"run": TRUE, "retry": {"backoff": {"jitter": "Some"}}}, "Unsupported value"),
    ({"run": TRUE, "timeouts": {"attemptSeconds": 0}}, "should be greater than or equal to 1"),
    ({"run": TRUE, "ttlSecondsAfterFinished": -1}, "should be greater than or equal to 0"),
    ({"run": TRUE, "queue": "Not A Label"}, "should match"),
    ({"run": TRUE, "env": [{"name": "1A"}]}, "should match"),
    ({"run": TRUE, "env": [{"name": "A"}, {"name": "A"}]}, "Duplicate value"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS, ids=lambda value: str(value)[:50])
async def test_bad_input_is_refused_with_the_field_and_what_is_wrong(world: World, spec: Object, message: str) -> None:
    body = {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "bad"}, "spec": spec}
    with pytest.raises(ApiError, match=message) as refused:
        await world.api.create(TASKS, world.namespace, body)
    assert 400 <= refused.value.status < 500


async def pool(world: World, spec: Object) -> Object:
    body = {"apiVersion": names.API_VERSION, "kind": "WorkerPool", "metadata": {"name": "p"}, "spec": spec}
    return await world.api.create(WORKERPOOLS, world.namespace, body)


async def test_a_pool_that_says_nothing_has_three_workers_with_four_slots(world: World) -> None:
    obj = await pool(world, {})
    assert obj["spec"] == {"replicas": 3, "slots": 4, "drainSeconds": 30}
    assert obj["status"] == {"observedGeneration": 0}


BAD_POOLS: list[tuple[Object, str]] = [
    ({"slots": 0}, "should be greater than or equal to 1"),
    ({"replicas": -1}, "should be greater than or equal to 0"),
    ({"preload": ["not a module"]}, "should match"),
    ({"template": {"volumes": [{"name": "v"}]}}, "exactly one of configMap, secret"),
    (
        {"template": {"volumes": [{"name": "v", "emptyDir": {}, "configMap": {"name": "c"}}]}},
        "exactly one of configMap, secret",
    ),
]


@pytest.mark.parametrize(("spec", "message"), BAD_POOLS, ids=lambda value: str(value)[:50])
async def test_a_bad_pool_is_refused(world: World, spec: Object, message: str) -> None:
    with pytest.raises(Unprocessable, match=message):
        await pool(world, spec)


async def test_a_pool_cannot_name_a_service_account_or_mount_a_token(world: World) -> None:
    template = {"serviceAccountName": "admin", "volumes": [{"name": "v", "emptyDir": {}, "projected": {"sources": []}}]}
    obj = await pool(world, {"template": template})
    assert obj["spec"]["template"] == {"volumes": [{"name": "v", "emptyDir": {}}]}
