"""Tries to break each rule of the CRDs on a real API server."""

from dataclasses import replace

import pytest
from tests.integration.harness import Object, World
from tests.integration.journey import (
    CHECKPOINT,
    NOW,
    RESULT,
    TRUE,
    assigned,
    brought_to,
    ended_waiting,
    finished,
    given_back,
    running,
    write,
)

from taskmaster.api import names, patches
from taskmaster.api.decode import queue as decode_queue
from taskmaster.api.decode import task as decode_task
from taskmaster.api.templates import resolve
from taskmaster.coordinator.templates import judged
from taskmaster.core.phase import Phase
from taskmaster.core.queue import Queue, RateLimit
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.retry import Finish, Outcome, Spent
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import ApiError, Conflict, Unprocessable
from taskmaster.kube.resource import TASKQUEUES, TASKS, TASKTEMPLATES, WORKERPOOLS, Resource


async def test_status_starts_as_pending_without_a_write(world: World) -> None:
    obj = await world.submit("it", TRUE)
    assert obj["status"] == {"phase": "Pending", "attempt": 0, "runNumber": 1, "deadLettered": False}
    assert (obj["spec"]["queue"], obj["spec"]["priority"]) == ("default", 0)
    assert (obj["spec"]["cancel"], obj["spec"]["suspend"], obj["spec"]["retryRequest"]) == (False, False, "")


async def test_a_task_may_go_through_several_attempts(world: World) -> None:
    obj = await given_back(world, await brought_to(world, Phase.RUNNING), delay=5.0)
    task = decode_task(obj)
    assert (task.phase, task.reason, task.not_before, task.spent.failures) == (Phase.PENDING, "BackingOff", NOW + 5, 1)
    obj = await write(world, "it", patches.explain(task, PendingReason.NO_FREE_SLOT, "wait", now=NOW))
    task = decode_task(await assigned(world, obj))
    assert (task.phase, task.attempt, task.not_before) == (Phase.ASSIGNED, 2, None)
    gone = patches.Ended(Outcome.WORKER_LOST, EndReason.WORKER_LOST, "gone", NOW)
    over = Finish(Phase.FAILED, EndReason.BUDGET_EXHAUSTED, Spent(1, 1), dead_lettered=True)
    obj = await write(world, "it", patches.requeue(task, gone, over))
    assert [record["attempt"] for record in obj["status"]["attempts"]] == [1, 2]
    obj = await world.edit("it", priority=7)
    obj = await write(world, "it", patches.observe_generation(decode_task(obj)))
    assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"] == 2


MOVES = [
    (Phase.PENDING, {"phase": "Running"}, "can only become Assigned or Cancelled or Failed or Skipped"),
    (Phase.PENDING, {"phase": "Succeeded", "completionTime": "2026-01-01T00:00:00Z"}, "can only become Assigned"),
    (Phase.PENDING, {"phase": "Skipped"}, "needs a completionTime"),
    (Phase.PENDING, {"phase": "Cancelled"}, "needs a completionTime"),
    (Phase.PENDING, {"runNumber": 2}, "begins a new run only for a new spec.retryRequest"),
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
    (
        Phase.RUNNING,
        {"phase": "Skipped", "completionTime": "2026-01-01T00:00:00Z"},
        "can only become Cancelled or Failed or Pending or Succeeded",
    ),
    (Phase.RUNNING, {"runNumber": 2}, "begins a new run only for a new spec.retryRequest"),
    (Phase.RUNNING, {"progress": {"current": -1}}, "greater than or equal to 0"),
    (Phase.RUNNING, {"progress": {"current": 2**53}}, "less than or equal to 9007199254740991"),
    (Phase.RUNNING, {"progress": {"message": "x" * 257}}, "may not be more than 256"),
    (Phase.RUNNING, {"checkpoint": {"data": 1}}, "attempt: Required value"),
    (Phase.RUNNING, {"stopRequest": {"reason": "Bored", "time": "2026-01-01T00:00:00Z"}}, "Unsupported value"),
    (Phase.SUCCEEDED, {"phase": "Failed"}, "status.phase cannot be changed"),
    (Phase.SUCCEEDED, {"phase": "Cancelled"}, "status.phase cannot be changed"),
    (Phase.SUCCEEDED, {"phase": "Running"}, "status.phase cannot be changed"),
    (
        Phase.SUCCEEDED,
        {"phase": "Pending", "assignment": None, "result": None},
        "begins a new run only for a new spec.retryRequest",
    ),
    (Phase.SUCCEEDED, {"runNumber": 2}, "status.runNumber cannot be changed"),
    (Phase.SUCCEEDED, {"deadLettered": True}, "status.deadLettered cannot be changed"),
    (Phase.SUCCEEDED, {"progress": {"current": 1}}, "status.progress cannot be changed"),
    (Phase.SUCCEEDED, {"observedRetryRequest": "x"}, "status.observedRetryRequest cannot be changed"),
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
    (Phase.FAILED, {"deadLettered": False}, "status.deadLettered cannot be changed"),
    (Phase.FAILED, {"checkpoint": CHECKPOINT}, "status.checkpoint cannot be changed"),
    (Phase.CANCELLED, {"phase": "Succeeded"}, "status.phase cannot be changed"),
    (Phase.CANCELLED, {"result": 1}, "status.result cannot be changed"),
    (Phase.SKIPPED, {"message": "other"}, "status.message cannot be changed"),
    (Phase.SKIPPED, {"checkpoint": CHECKPOINT}, "status.checkpoint cannot be changed"),
]


@pytest.mark.parametrize(("phase", "change", "message"), MOVES, ids=lambda value: str(value)[:60])
async def test_the_server_refuses_a_move_that_the_state_machine_does_not_know(
    world: World, phase: Phase, change: Object, message: str
) -> None:
    before = await brought_to(world, phase)
    with pytest.raises(ApiError) as refusal:
        await world.api.patch(TASKS, world.namespace, "it", MergePatch({"status": change}), subresource="status")
    assert message in refusal.value.message
    assert await world.task("it") == before


async def test_a_status_that_is_taken_away_as_a_whole_is_refused(world: World) -> None:
    await brought_to(world, Phase.SUCCEEDED)
    with pytest.raises(Unprocessable, match="a finished Task begins a new run only for"):
        await write(world, "it", [{"op": "remove", "path": "/status"}])


EDITS = [
    ({"run": {"command": ["false"]}}, "spec.run cannot be changed"),
    ({"env": [{"name": "A", "value": "1"}]}, "spec.env cannot be changed"),
    ({"workingDir": "/srv"}, "spec.workingDir cannot be changed"),
    ({"queue": "other"}, "spec.queue cannot be changed"),
    ({"retry": {"limit": 9}}, "spec.retry cannot be changed"),
    ({"timeouts": {"attemptSeconds": 9}}, "spec.timeouts cannot be changed"),
    ({"description": "other"}, "spec.description cannot be changed"),
    ({"resources": {"memoryMiB": 64}}, "spec.resources cannot be changed"),
    ({"resources": {"slots": 2}}, "spec.resources cannot be changed"),
    ({"requires": {"matchLabels": {"gpu": "true"}}}, "spec.requires cannot be changed"),
    ({"dependsOn": [{"name": "a"}]}, "spec.dependsOn cannot be changed"),
    ({"notBeforeTime": "2030-01-01T00:00:00Z"}, "spec.notBeforeTime cannot be changed"),
    ({"concurrency": {"key": "a"}}, "spec.concurrency cannot be changed"),
    ({"fairnessKey": "a"}, "spec.fairnessKey cannot be changed"),
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


EVER = {"priority": 5, "ttlSecondsAfterFinished": 1, "suspend": True, "cancel": True}


@pytest.mark.parametrize("phase", [Phase.ASSIGNED, Phase.SUCCEEDED, Phase.SKIPPED])
@pytest.mark.parametrize("field", EVER)
async def test_what_a_person_may_ask_for_later_can_be_edited_always(world: World, phase: Phase, field: str) -> None:
    await brought_to(world, phase)
    edited = await world.edit("it", **{field: EVER[field]})
    assert edited["spec"][field] == EVER[field]


async def test_free_form_arguments_are_fixed_to_the_last_key(world: World) -> None:
    """Equality in a CRD's rules ignores keys that the schema does not name; the admission policy does not."""
    call = {"python": {"callable": "m:f", "args": {"first": {"a": 1}}}}
    await brought_to(world, Phase.ASSIGNED, run=call)
    for args in ({"first": None, "renamed": {"a": 1}}, {"first": {"a": 2}}, {"first": {"a": None, "b": 1}}):
        with pytest.raises(Unprocessable, match=r"spec\.run cannot be changed"):
            await world.edit("it", run={"python": {"args": args}})


async def test_the_arguments_of_a_template_are_as_fixed_and_the_rest_can_be_edited(world: World) -> None:
    spec = {"templateRef": {"name": "resize"}, "args": {"first": {"a": 1}}}
    body = {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "it"}, "spec": spec}
    await assigned(world, await world.api.create(TASKS, world.namespace, body))
    for args in ({"first": None, "renamed": {"a": 1}}, {"first": {"a": 2}}, {"first": {"a": None, "b": 1}}):
        with pytest.raises(Unprocessable, match=r"spec\.args cannot be changed"):
            await world.edit("it", args=args)
    assert (await world.edit("it", cancel=True))["spec"]["cancel"] is True


async def test_what_a_template_came_to_is_fixed_with_the_end_and_holds_for_the_next_run(world: World) -> None:
    def call(arguments: Object) -> Object:
        return {"run": {"python": {"callable": "m:f", "args": arguments}}}

    async def resolved(arguments: Object) -> Object:
        change = MergePatch({"status": {"resolvedRun": call(arguments)}})
        return await world.api.patch(TASKS, world.namespace, "it", change, subresource="status")

    await brought_to(world, Phase.ASSIGNED)
    await finished(world, await resolved({"first": {"a": 1}}), Phase.SUCCEEDED)
    for arguments in ({"first": None, "renamed": {"a": 1}}, {"first": {"a": 2}}):
        with pytest.raises(Unprocessable, match=r"status\.resolvedRun"):
            await resolved(arguments)
    obj = await world.edit("it", retryRequest="1")
    again = MergePatch(patches.run_again(decode_task(obj), now=NOW))
    obj = await world.api.patch(TASKS, world.namespace, "it", again, subresource="status")
    assert (obj["status"]["phase"], obj["status"]["resolvedRun"]) == ("Pending", call({"first": {"a": 1}}))


ONLY_WHEN_FINISHED = "spec.retryRequest can be changed only when the Task has finished"
ONLY_TOGETHER = "to run a cancelled Task again, set spec.cancel to false together with spec.retryRequest"
NO_WAY_BACK = "spec.cancel cannot be taken back; a new spec.retryRequest runs a Cancelled Task again"


async def refused(world: World, message: str, **spec: object) -> None:
    """Edit a spec as kubectl does, and read why it is not taken."""
    before = await world.task("it")
    with pytest.raises(Unprocessable) as refusal:
        await world.edit("it", **spec)
    assert message in refusal.value.message
    assert await world.task("it") == before


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.ASSIGNED, Phase.RUNNING])
async def test_a_task_can_be_run_again_only_when_it_has_finished(world: World, phase: Phase) -> None:
    await brought_to(world, phase)
    await refused(world, ONLY_WHEN_FINISHED, retryRequest="1")


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.RUNNING, Phase.SUCCEEDED, Phase.CANCELLED])
async def test_a_cancel_cannot_be_taken_back(world: World, phase: Phase) -> None:
    await brought_to(world, phase)
    await world.edit("it", cancel=True)
    await refused(world, NO_WAY_BACK, cancel=False)
    await refused(world, NO_WAY_BACK, cancel=None)


async def test_a_cancelled_task_is_run_again_by_one_edit_of_both_fields(world: World) -> None:
    await brought_to(world, Phase.PENDING, retryRequest="0")
    obj = await world.edit("it", cancel=True)
    await refused(world, ONLY_WHEN_FINISHED, cancel=False, retryRequest="1")
    await ended_waiting(world, obj, Phase.CANCELLED)
    await refused(world, ONLY_TOGETHER, retryRequest="1")
    await refused(world, NO_WAY_BACK, cancel=False, retryRequest="0")
    obj = await world.edit("it", cancel=False, retryRequest="1")
    assert (obj["spec"]["cancel"], obj["spec"]["retryRequest"]) == (False, "1")


async def run_again(world: World, obj: Object, **changes: object) -> Object:
    patch = patches.run_again(decode_task(obj), now=NOW)
    patch["status"] |= changes
    return await world.api.patch(TASKS, world.namespace, "it", MergePatch(patch), subresource="status")


async def with_checkpoint(world: World, phase: Phase, **spec: object) -> Object:
    obj = await running(world, await assigned(world, await world.submit("it", TRUE, **spec)))
    return await finished(world, obj, phase, saved=patches.Saved({"current": 7}, CHECKPOINT))


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED])
@pytest.mark.parametrize("request_", ["1", "fresh-1"])
async def test_a_new_run_begins_with_fresh_budgets(world: World, phase: Phase, request_: str) -> None:
    before = (await with_checkpoint(world, phase))["status"]
    assert before["checkpoint"] == CHECKPOINT
    assert before["deadLettered"] == (phase is Phase.FAILED)
    status = (await run_again(world, await world.edit("it", retryRequest=request_)))["status"]
    assert (status["phase"], status["runNumber"], status["attempt"]) == ("Pending", 2, 1)
    assert (status["deadLettered"], status["observedRetryRequest"]) == (False, request_)
    assert status["attempts"] == before["attempts"]
    assert status.get("checkpoint") == (CHECKPOINT if request_ == "1" else None)
    gone = {"assignment", "completionTime", "result", "failures", "progress", "exitCode", "startTime", "logTail"}
    assert gone.isdisjoint(status)
    obj = await finished(world, await assigned(world, await world.task("it")), Phase.SUCCEEDED)
    assert (obj["status"]["attempt"], obj["status"]["result"]) == (2, RESULT)
    assert [record["attempt"] for record in obj["status"]["attempts"]] == [1, 2]


async def test_a_run_is_answered_once(world: World) -> None:
    await brought_to(world, Phase.SUCCEEDED)
    edited = await world.edit("it", retryRequest="1")
    obj = await run_again(world, edited)
    with pytest.raises(Conflict):
        await run_again(world, edited)
    obj = await finished(world, await assigned(world, obj), Phase.SUCCEEDED)
    with pytest.raises(Unprocessable, match=r"begins a new run only for a new spec\.retryRequest"):
        await run_again(world, obj)
    obj = await run_again(world, await world.edit("it", retryRequest="2"))
    assert obj["status"]["runNumber"] == 3


async def test_the_request_that_a_task_was_created_with_asks_for_no_second_run(world: World) -> None:
    obj = await brought_to(world, Phase.SUCCEEDED, retryRequest="1")
    assert obj["status"]["observedRetryRequest"] == "1"
    with pytest.raises(Unprocessable, match=r"begins a new run only for a new spec\.retryRequest"):
        await run_again(world, obj)


async def test_a_request_that_is_emptied_asks_for_nothing(world: World) -> None:
    await brought_to(world, Phase.SUCCEEDED, retryRequest="1")
    obj = await world.edit("it", retryRequest="")
    with pytest.raises(Unprocessable, match=r"begins a new run only for a new spec\.retryRequest"):
        await run_again(world, obj)


BAD_RUNS: list[tuple[Object, str]] = [
    ({"runNumber": 1}, "begins a new run only for"),
    ({"runNumber": 3}, "begins a new run only for"),
    ({"observedRetryRequest": None}, "begins a new run only for"),
    ({"observedRetryRequest": "other"}, "begins a new run only for"),
    ({"attempt": 0}, "attempt grows by one when a Task is assigned, and never otherwise"),
    ({"phase": "Assigned"}, "status.phase cannot be changed"),
    ({"result": RESULT}, "a new run begins without a result: remove status.result"),
    ({"result": None, "checkpoint": {"data": {"step": 8}}}, "a new run keeps status.checkpoint as it is, or drops it"),
    ({"checkpoint": {"data": {"rest": {"a": None, "b": 1}}}}, "a new run keeps status.checkpoint as it is"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_RUNS, ids=lambda value: str(value)[:50])
async def test_a_new_run_is_refused_unless_it_answers_the_request(world: World, changes: Object, message: str) -> None:
    await with_checkpoint(world, Phase.SUCCEEDED)
    obj = await world.edit("it", retryRequest="1")
    with pytest.raises(Unprocessable) as refusal:
        await run_again(world, obj, **changes)
    assert message in refusal.value.message
    assert await world.task("it") == obj


async def test_the_spec_stays_fixed_in_a_new_run(world: World) -> None:
    await brought_to(world, Phase.SUCCEEDED)
    await run_again(world, await world.edit("it", retryRequest="1"))
    await refused(world, "spec.queue cannot be changed after the Task was first assigned", queue="other")


async def test_dead_letters_can_be_selected(world: World) -> None:
    await brought_to(world, Phase.PENDING, name="waiting")
    await brought_to(world, Phase.SUCCEEDED, name="well")
    await brought_to(world, Phase.FAILED, name="dead")

    async def selected(selector: str) -> set[str]:
        found = await world.api.list(TASKS, namespace=world.namespace, field_selector=selector)
        return {item["metadata"]["name"] for item in found.items}

    assert await selected("status.deadLettered=true") == {"dead"}
    assert await selected("status.deadLettered=true,status.reason=ExitCode") == {"dead"}
    assert await selected("status.deadLettered=false") == {"waiting", "well"}


KEY = {"name": "n", "key": "k"}
RULE = {"name": "r", "action": "Retry", "onExitCodes": [3]}


def env(**variable: object) -> Object:
    return {"run": TRUE, "env": [{"name": "A", **variable}]}


def http(**call: object) -> Object:
    return {"run": {"http": call}}


def rule(**given: object) -> Object:
    return {"run": TRUE, "retry": {"rules": [{"name": "r", "action": "Retry", **given}]}}


def requirement(operator: str, values: list[str] | None = None, *, key: str = "gpu") -> Object:
    demand: Object = {"key": key, "operator": operator, **({} if values is None else {"values": values})}
    return {"run": TRUE, "requires": {"matchExpressions": [demand]}}


TEMPLATE: Object = {"templateRef": {"name": "t"}}
REQUIREMENT = "values must have at least one entry for In and NotIn, none for Exists and DoesNotExist, and exactly one"

BAD_SPECS: list[tuple[Object, str]] = [
    ({}, "exactly one of run, templateRef must be set"),
    ({"run": {}}, "exactly one of command, script, python, http must be set"),
    (
        {"run": {"command": ["a"], "script": {"source": "b"}}},
        "exactly one of command, script, python, http must be set",
    ),
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
    (env(valueFrom={}), "exactly one of secretKeyRef, configMapKeyRef must be set"),
    (env(valueFrom={"secretKeyRef": KEY, "configMapKeyRef": KEY}), "exactly one of secretKeyRef, configMapKeyRef"),
    (env(value="1", valueFrom={"secretKeyRef": KEY}), "only one of value, valueFrom may be set"),
    (env(valueFrom={"secretKeyRef": {"name": "s"}}), "secretKeyRef.key: Required value"),
    (env(valueFrom={"secretKeyRef": {"name": "", "key": "k"}}), "should be at least 1 chars long"),
    (env(value="x" * 32_769), "may not be more than 32768"),
    (http(), "url: Required value"),
    (http(url="ftp://host/x"), "should match"),
    (http(url="host/x"), "should match"),
    (http(url="http://h/" + "x" * 2_048), "may not be more than 2048"),
    (http(url="http://h", method="FETCH"), "Unsupported value"),
    (http(url="http://h", headers=[{"name": "a b", "value": "1"}]), "should match"),
    (http(url="http://h", headers=[{"name": "", "value": "1"}]), "at least 1 chars long"),
    (http(url="http://h", headers=[{"name": "a:", "value": "1"}]), "should match"),
    (
        http(url="http://h", headers=[{"name": "a", "value": "1", "valueFrom": {"secretKeyRef": KEY}}]),
        "only one of value, valueFrom may be set",
    ),
    (http(url="http://h", headers=[{"name": "a", "valueFrom": {}}]), "exactly one of secretKeyRef, configMapKeyRef"),
    (http(url="http://h", expectStatus=[]), "should have at least 1 items"),
    (http(url="http://h", expectStatus=[99]), "should be greater than or equal to 100"),
    (http(url="http://h", expectStatus=[600]), "should be less than or equal to 599"),
    (http(url="http://h", timeoutSeconds=0), "should be greater than or equal to 1"),
    (http(url="http://h", body="x" * 65_537), "may not be more than 65536"),
    ({"run": {"http": {"url": "http://h"}, "command": ["true"]}}, "exactly one of command, script, python, http"),
    ({"run": TRUE, "resources": {"memoryMiB": 0}}, "should be greater than or equal to 1"),
    ({"run": TRUE, "resources": {"memoryMiB": 2**24 + 1}}, "should be less than or equal to 16777216"),
    ({"run": TRUE, "resources": {"memoryMiB": "64Mi"}}, "must be of type integer"),
    ({"run": TRUE, "timeouts": {"pendingSeconds": 0}}, "should be greater than or equal to 1"),
    ({"run": TRUE, "timeouts": {"totalSeconds": 0}}, "should be greater than or equal to 1"),
    ({"run": TRUE, "timeouts": {"stallSeconds": 31_536_001}}, "should be less than or equal to 31536000"),
    (
        rule(),
        "a retry rule needs at least one of onExitCodes, onSignals, onErrorTypes, onReasons, onHTTPStatuses",
    ),
    (rule(name="Bad Name", onExitCodes=[3]), "should match"),
    (rule(onExitCodes=[3], action="Ignore"), "Unsupported value"),
    (rule(onSignals=[65]), "should be less than or equal to 64"),
    (rule(onSignals=[0]), "should be greater than or equal to 1"),
    (rule(onErrorTypes=["Value Error"]), "should match"),
    (rule(onHTTPStatuses=[42]), "should be greater than or equal to 100"),
    (rule(onReasons=["x" * 65]), "may not be more than 64"),
    ({"run": TRUE, "retry": {"rules": [RULE] * 17}}, "must have at most 16 items"),
    ({"run": TRUE, "retryRequest": "x" * 65}, "may not be more than 64"),
    ({"run": TRUE, "templateRef": {"name": "t"}}, "exactly one of run, templateRef must be set"),
    ({"run": TRUE, "args": {}}, "args are for a template: set templateRef, or give run.python.args"),
    ({"args": {}}, "exactly one of run, templateRef must be set"),
    ({"templateRef": {}}, "spec.templateRef.name: Required value"),
    ({**TEMPLATE, "args": [1]}, "spec.args in body must be of type object"),
    ({**TEMPLATE, "env": []}, "spec.env comes from the template"),
    ({**TEMPLATE, "workingDir": "/"}, "spec.workingDir comes from the template"),
    ({**TEMPLATE, "resources": {"memoryMiB": 1}}, "spec.resources.memoryMiB comes from the template"),
    ({"run": TRUE, "resources": {"slots": 0}}, "should be greater than or equal to 1"),
    ({"run": TRUE, "resources": {"slots": 1_001}}, "should be less than or equal to 1000"),
    (requirement("In"), REQUIREMENT),
    (requirement("In", []), REQUIREMENT),
    (requirement("NotIn"), REQUIREMENT),
    (requirement("Exists", ["a"]), REQUIREMENT),
    (requirement("DoesNotExist", ["a"]), REQUIREMENT),
    (requirement("Gt"), REQUIREMENT),
    (requirement("Gt", ["1", "2"]), REQUIREMENT),
    (requirement("Gt", ["a"]), REQUIREMENT),
    (requirement("Lt", ["1.5"]), REQUIREMENT),
    (requirement("Lt", ["1" * 19]), REQUIREMENT),
    (requirement("Equals", ["a"]), "Unsupported value"),
    (requirement("In", ["a b"]), "should match"),
    (requirement("In", ["a" * 64]), "may not be more than 63"),
    (requirement("In", [str(number) for number in range(65)]), "must have at most 64 items"),
    (requirement("Exists", key="a b"), "should match"),
    ({"run": TRUE, "requires": {"matchLabels": {"a": "b c"}}}, "should match"),
    ({"run": TRUE, "requires": {"matchLabels": {f"a{number}": "" for number in range(33)}}}, "at most 32 items"),
    ({"run": TRUE, "dependsOn": [{"name": "a"}, {"name": "a"}]}, "Duplicate value"),
    ({"run": TRUE, "dependsOn": [{"name": "a", "condition": "Skipped"}]}, "Unsupported value"),
    ({"run": TRUE, "dependsOn": [{"name": f"t{number}"} for number in range(1_001)]}, "must have at most 1000 items"),
    ({"run": TRUE, "notBeforeTime": "tomorrow"}, "must be of type date-time"),
    ({"run": TRUE, "concurrency": {}}, "concurrency.key: Required value"),
    ({"run": TRUE, "concurrency": {"key": ""}}, "should be at least 1 chars long"),
    ({"run": TRUE, "concurrency": {"key": "a", "limit": 0}}, "should be greater than or equal to 1"),
    ({"run": TRUE, "concurrency": {"key": "a", "limit": 100_001}}, "should be less than or equal to 100000"),
    ({"run": TRUE, "concurrency": {"key": "a", "onConflict": "Wait"}}, "Unsupported value"),
    ({"run": TRUE, "fairnessKey": "x" * 129}, "may not be more than 128"),
    ({"run": TRUE, "cancel": "yes"}, "must be of type boolean"),
    ({"run": TRUE, "suspend": 1}, "must be of type boolean"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_SPECS, ids=lambda value: str(value)[:50])
async def test_bad_input_is_refused_with_the_field_and_what_is_wrong(world: World, spec: Object, message: str) -> None:
    body = {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "bad"}, "spec": spec}
    with pytest.raises(ApiError) as refusal:
        await world.api.create(TASKS, world.namespace, body)
    assert message in refusal.value.message
    assert 400 <= refusal.value.status < 500


GOOD_SPECS: list[Object] = [
    env(),
    env(value=""),
    env(valueFrom={"configMapKeyRef": {**KEY, "optional": True}}),
    http(
        url="https://host:8443/a?b=c#d", method="PATCH", headers=[{"name": "X-A.b", "valueFrom": {"secretKeyRef": KEY}}]
    ),
    http(url="http://h", expectStatus=[200, 404], body="", timeoutSeconds=5),
    rule(onReasons=["OutOfMemory"], onErrorTypes=["requests.exceptions.Timeout"], onHTTPStatuses=[503], action="Fail"),
    rule(onExitCodes=[-1, 255]),
    {
        "run": TRUE,
        "timeouts": {"pendingSeconds": 1, "totalSeconds": 2, "stallSeconds": 3},
        "resources": {"memoryMiB": 1},
    },
    {"run": TRUE, "cancel": True, "suspend": True, "retryRequest": "from-the-start"},
    TEMPLATE,
    {**TEMPLATE, "args": {"any": [1, None, {"thing": "1.5"}]}, "resources": {"slots": 2}, "requires": {}},
    {"run": TRUE, "resources": {"slots": 1_000}, "notBeforeTime": "2030-01-01T00:00:00+02:00", "fairnessKey": ""},
    requirement("In", ["a", ""]),
    requirement("NotIn", ["a"]),
    requirement("Exists"),
    requirement("DoesNotExist", []),
    requirement("Gt", ["0"], key="example.com/memory_GiB"),
    requirement("Lt", ["9" * 18]),
    {"run": TRUE, "requires": {"matchLabels": {"gpu": "true", "example.com/zone": ""}}},
    {"run": TRUE, "dependsOn": [{"name": f"t{number}", "condition": "Finished"} for number in range(1_000)]},
    {"run": TRUE, "concurrency": {"key": "any text: \u00e9", "limit": 100_000, "onConflict": "CancelRunning"}},
]


@pytest.mark.parametrize("spec", GOOD_SPECS, ids=lambda value: str(value)[:60])
async def test_good_input_is_stored_as_it_was_given(world: World, spec: Object) -> None:
    body = {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "good"}, "spec": spec}
    stored = (await world.api.create(TASKS, world.namespace, body))["spec"]
    assert {field: stored[field] for field in spec if field not in ("run", "env")} == {
        field: value for field, value in spec.items() if field not in ("run", "env")
    }
    decode_task(await world.task("good"))


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
    ({"labels": {"pool": "mine"}}, "the label pool is reserved: it always is the name of the WorkerPool"),
    ({"labels": {"a b": "c"}}, "a key must be a label key of Kubernetes"),
    ({"labels": {"a" * 64: "c"}}, "a key must be a label key of Kubernetes"),
    ({"labels": {"a": "b c"}}, "should match"),
    ({"queues": ["Not A Label"]}, "should match"),
    ({"queues": ["a", "a"]}, "Duplicate value"),
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


async def test_a_pool_may_have_labels_and_serve_certain_queues(world: World) -> None:
    said: Object = {"labels": {"gpu": "true", "example.com/Zone_1": "", "pools": "x"}, "queues": ["a", "default"]}
    stored = (await pool(world, said))["spec"]
    assert {field: stored[field] for field in said} == said


async def created(world: World, resource: Resource, spec: Object) -> Object:
    body = {"apiVersion": names.API_VERSION, "kind": resource.kind, "metadata": {"name": "it"}, "spec": spec}
    return await world.api.create(resource, world.namespace, body)


async def test_a_queue_that_says_nothing_is_as_the_one_that_always_exists(world: World) -> None:
    obj = await created(world, TASKQUEUES, {})
    assert obj["status"] == {"observedGeneration": 0}
    assert replace(decode_queue(obj), name="default") == Queue("default")
    assert obj["spec"] == {
        **{"weight": 1, "whenFull": "Wait", "placement": "LeastLoaded", "agingSeconds": 60},
        **{"paused": False, "drain": False},
    }


async def test_everything_that_a_queue_says_is_stored(world: World) -> None:
    said: Object = {
        "weight": 1_000,
        "maxRunning": 0,
        "maxPending": 10_000_000,
        "whenFull": "Reject",
        "rateLimit": {"tasks": 5, "perSeconds": 60, "burst": 1},
        "paused": True,
        "drain": True,
        "placement": "BinPack",
        "agingSeconds": 31_536_000,
        "retry": {"limit": 0, "rules": [RULE]},
        "timeouts": {"pendingSeconds": 5},
        "ttl": {"succeededSeconds": 0, "failedSeconds": 5},
        "deadLetter": {"ttlSeconds": 7},
    }
    obj = await created(world, TASKQUEUES, said)
    assert obj["spec"] == said
    queue = decode_queue(obj)
    assert (queue.rate_limit, queue.closed) == (RateLimit(5 / 60, 1), True)
    assert (queue.overrides.failed_seconds, queue.overrides.dead_letter_seconds) == (5, 7)


async def test_a_queue_may_start_as_many_at_once_as_in_its_time_unless_it_says(world: World) -> None:
    obj = await created(world, TASKQUEUES, {"rateLimit": {"tasks": 5}})
    assert obj["spec"]["rateLimit"] == {"tasks": 5, "perSeconds": 1}
    assert decode_queue(obj).rate_limit == RateLimit(5.0, 5)


BAD_QUEUES: list[tuple[Object, str]] = [
    ({"weight": 0}, "should be greater than or equal to 1"),
    ({"weight": 1_001}, "should be less than or equal to 1000"),
    ({"maxRunning": -1}, "should be greater than or equal to 0"),
    ({"maxPending": 10_000_001}, "should be less than or equal to 10000000"),
    ({"whenFull": "Drop"}, "Unsupported value"),
    ({"placement": "Random"}, "Unsupported value"),
    ({"agingSeconds": 0}, "should be greater than or equal to 1"),
    ({"rateLimit": {}}, "rateLimit.tasks: Required value"),
    ({"rateLimit": {"tasks": 0}}, "should be greater than or equal to 1"),
    ({"rateLimit": {"tasks": 1, "perSeconds": 0}}, "should be greater than or equal to 1"),
    ({"rateLimit": {"tasks": 1, "perSeconds": 86_401}}, "should be less than or equal to 86400"),
    ({"rateLimit": {"tasks": 1, "burst": 0}}, "should be greater than or equal to 1"),
    ({"rateLimit": {"tasks": 1, "burst": 1_000_001}}, "should be less than or equal to 1000000"),
    ({"retry": {"rules": [{"name": "r", "action": "Fail"}]}}, "a retry rule needs at least one of"),
    ({"retry": {"limit": -1}}, "should be greater than or equal to 0"),
    ({"timeouts": {"attemptSeconds": 0}}, "should be greater than or equal to 1"),
    ({"ttl": {"failedSeconds": -1}}, "should be greater than or equal to 0"),
    ({"deadLetter": {"ttlSeconds": 31_536_001}}, "should be less than or equal to 31536000"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_QUEUES, ids=lambda value: str(value)[:50])
async def test_a_bad_queue_is_refused(world: World, spec: Object, message: str) -> None:
    with pytest.raises(Unprocessable, match=message):
        await created(world, TASKQUEUES, spec)


async def test_a_template_is_stored_as_it_was_given_and_can_be_used(world: World) -> None:
    parameters = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"x": {"$ref": "#/$defs/x", "default": None}},
        "$defs": {"x": {"type": ["string", "null"]}},
    }
    task = {
        "run": {"http": {"method": "PUT", "url": "$(args.x)", "headers": [{"name": "a", "value": "$$(args.x)"}]}},
        "env": [{"name": "A", "value": "$(args.x)"}],
        "workingDir": "$(args.x)",
        "resources": {"slots": 2, "memoryMiB": 5},
        "requires": {"matchLabels": {"gpu": "true"}},
        "timeouts": {"attemptSeconds": 5},
        "retry": {"limit": 0},
        "ttlSecondsAfterFinished": 5,
    }
    spec: Object = {"description": "send it", "parameters": parameters, "task": task}
    obj = await created(world, TASKTEMPLATES, spec)
    assert (obj["spec"], obj["status"]) == (spec, {"observedGeneration": 0})
    (reason, resolved) = (judged(obj)[1], resolve(judged(obj)[0], {"x": "http://host/"}))
    assert (reason, isinstance(resolved, dict)) == ("Valid", True)
    # What it comes to is something that the API server takes as the status of a Task, and keeps as it is.
    await brought_to(world, Phase.ASSIGNED, name="task")
    stored = await write(world, "task", [{"op": "add", "path": "/status/resolvedRun", "value": resolved}])
    assert stored["status"]["resolvedRun"] == resolved


BAD_TEMPLATES: list[tuple[Object, str]] = [
    ({}, "spec.task: Required value"),
    ({"task": {}}, "spec.task.run: Required value"),
    ({"task": {"run": {}}}, "exactly one of command, script, python, http must be set"),
    ({"task": {"run": TRUE}, "parameters": []}, "spec.parameters in body must be of type object"),
    ({"task": {"run": TRUE}, "description": "x" * 1_025}, "may not be more than 1024"),
    ({"task": {"run": {"http": {"url": "host"}}}}, "should match"),
    ({"task": {"run": TRUE, "env": [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": KEY}}]}}, "only one of"),
    ({"task": {"run": TRUE, "retry": {"rules": [{"name": "r", "action": "Fail"}]}}}, "a retry rule needs at least one"),
    ({"task": requirement("Exists", ["a"])}, REQUIREMENT),
    ({"task": {"run": TRUE, "resources": {"slots": 0}}}, "should be greater than or equal to 1"),
]


@pytest.mark.parametrize(("spec", "message"), BAD_TEMPLATES, ids=lambda value: str(value)[:50])
async def test_a_bad_template_is_refused(world: World, spec: Object, message: str) -> None:
    with pytest.raises(Unprocessable, match=message):
        await created(world, TASKTEMPLATES, spec)


async def test_the_template_of_a_task_and_its_arguments_are_fixed_together(world: World) -> None:
    await created(world, TASKTEMPLATES, {"task": {"run": TRUE}})
    obj = await world.api.create(
        TASKS,
        world.namespace,
        {
            "apiVersion": names.API_VERSION,
            "kind": "Task",
            "metadata": {"name": "of-it"},
            "spec": {**TEMPLATE, "args": {"x": {"a": 1}}},
        },
    )
    assert (await world.edit("of-it", args={"y": 2}))["spec"]["args"] == {"x": {"a": 1}, "y": 2}
    await assigned(world, await world.task("of-it"))
    for change in ({"templateRef": {"name": "other"}}, {"templateRef": None, "args": None, "run": TRUE}):
        with pytest.raises(Unprocessable, match=r"spec\.(templateRef|run) cannot be changed"):
            await world.edit("of-it", **change)
    for args in ({"x": None, "renamed": {"a": 1}}, {"x": {"a": 2}}, {"y": None}, {"z": 1}):
        with pytest.raises(Unprocessable, match=r"spec\.args cannot be changed"):
            await world.edit("of-it", args=args)
    assert obj["spec"]["args"] == {"x": {"a": 1}}
