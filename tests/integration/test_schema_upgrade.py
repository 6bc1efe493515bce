"""Tasks that were stored under an older schema go on under the new one, without a write to convert them."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest
from tests.integration.harness import Object, World, opened_world
from tests.integration.journey import RESULT, TRUE, assigned, finished, given_back, write

from localcluster.controlplane import ControlPlane
from taskmaster.api import names, patches
from taskmaster.api.crd import task_crd
from taskmaster.api.decode import task as decode_task
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason, PendingReason
from taskmaster.core.task import Instant
from taskmaster.kube.api import ApplyPatch, JsonPatch, MergePatch
from taskmaster.kube.errors import ApiError
from taskmaster.kube.resource import CRDS, TASKS

NEW_IN_SPEC: Final = {
    2: ("cancel", "suspend", "retryRequest", "resources"),
    3: ("templateRef", "args", "requires", "dependsOn", "notBeforeTime", "concurrency", "fairnessKey"),
}
NEW_IN_STATUS: Final = {
    2: (
        *("runNumber", "observedRetryRequest", "stopRequest", "queuedTime", "deadlineTime", "runnerDeaths"),
        *("deadLettered", "progress", "checkpoint"),
    ),
    3: ("resolvedRun",),
}
"""Fields by the revision of the schema that brought them."""
OLD_REVISIONS: Final = (1, 2)
ASSIGNMENT = {
    "worker": "w-1",
    "podUID": "pod-uid-1",
    "incarnation": "life-1",
    "assignedTime": "2026-01-01T00:00:00Z",
    "policy": {
        "attemptSeconds": 3600,
        "graceSeconds": 20,
        "retryLimit": 3,
        "workerLossLimit": 5,
        "interruptionLimit": 20,
        "backoff": {"initialSeconds": 2, "factor": 2, "maxSeconds": 300, "jitter": "Full"},
    },
}
HELD: Object = {"phase": "Assigned", "attempt": 1, "observedGeneration": 1, "assignment": ASSIGNMENT}
SUCCEEDED: Object = {"phase": "Succeeded", "completionTime": "2026-01-01T00:01:00Z", "result": RESULT}

_numbers = itertools.count(1)


def newer(fields: dict[int, tuple[str, ...]], revision: int) -> list[str]:
    return [field for brought, names_ in fields.items() if brought > revision for field in names_]


def previous_schema(revision: int) -> Object:
    """The definition of Task as it was, as far as it matters: without the fields that are new, and without rules."""
    crd: Object = copy.deepcopy(task_crd())
    version = crd["spec"]["versions"][0]
    root = version["schema"]["openAPIV3Schema"]
    spec, status = root["properties"]["spec"], root["properties"]["status"]
    for half, fields in ((spec, NEW_IN_SPEC), (status, NEW_IN_STATUS)):
        for field in newer(fields, revision):
            del half["properties"][field]
        del half["x-kubernetes-validations"]
    del root["x-kubernetes-validations"], status["properties"]["assignment"]["properties"]["slots"]
    spec["properties"].get("resources", {"properties": {"slots": None}})["properties"].pop("slots")
    spec["required"] = ["run"]
    if revision < 2:
        version["selectableFields"] = [
            field for field in version["selectableFields"] if field["jsonPath"] != ".status.deadLettered"
        ]
    return crd


async def install(world: World, crd: Object) -> None:
    """Install a definition and return when the API server works with it; nothing tells but asking again."""
    await world.api.patch(CRDS, None, crd["metadata"]["name"], ApplyPatch(crd, "tests"))
    fields = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "Task",
        "metadata": {"name": "probe"},
        "spec": {"run": TRUE, "fairnessKey": "probe"},
    }
    while True:
        with suppress(ApiError):
            probe = await world.api.create(TASKS, world.namespace, body, dry_run=True)
            await world.api.list(TASKS, namespace=world.namespace, field_selector="status.phase=Pending")
            told = {"cancel", "fairnessKey"}  # the one is shown by its default, the other if it is not pruned
            if told & set(probe["spec"]) == told & set(fields):
                return
        await asyncio.sleep(0.1)


async def set_status(world: World, name: str, **status: Any) -> Object:
    return await world.api.patch(TASKS, world.namespace, name, MergePatch({"status": status}), subresource="status")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane of its own: a definition that changes is felt by everybody who uses it."""
    with ControlPlane(tmp_path_factory.mktemp("upgraded"), controller_manager=False) as plane:
        yield plane


@pytest.fixture(params=OLD_REVISIONS, ids=lambda revision: f"from revision {revision}")
async def old(plane: ControlPlane, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """A namespace with a waiting, a held and a finished Task of before the upgrade."""
    revision: int = request.param
    async with opened_world(plane, f"old-{next(_numbers)}", tmp_path) as world:
        await install(world, previous_schema(revision))
        for name in ("waiting", "held", "over"):
            await world.submit(name, TRUE)
        for name in ("held", "over"):
            await set_status(world, name, **HELD)
        stored = await set_status(world, "over", **SUCCEEDED)
        assert set(newer(NEW_IN_STATUS, revision)).isdisjoint(stored["status"])
        assert set(newer(NEW_IN_SPEC, revision)).isdisjoint(stored["spec"])
        await install(world, task_crd())
        yield world


async def test_stored_tasks_show_the_defaults_of_new_fields(old: World) -> None:
    for name in ("waiting", "held", "over"):
        task = decode_task(await old.task(name))
        assert (task.run_number, task.cancel, task.suspend, task.retry_request) == (1, False, False, "")
        assert not task.dead_lettered
    found = await old.api.list(TASKS, namespace=old.namespace, field_selector="status.deadLettered=false")
    assert {item["metadata"]["name"] for item in found.items} == {"waiting", "held", "over"}


async def test_the_revision_that_the_schemas_have_now_is_tried(old: World) -> None:
    stored = await old.api.get(CRDS, None, "tasks.taskmaster.dev")
    assert stored["metadata"]["annotations"][names.SCHEMA_REVISION_ANNOTATION] == str(OLD_REVISIONS[-1] + 1)
    assert set(NEW_IN_SPEC) == set(NEW_IN_STATUS) == {revision + 1 for revision in OLD_REVISIONS}


async def test_a_waiting_one_can_be_given_what_is_new(old: World) -> None:
    obj = await old.edit("waiting", fairnessKey="a", resources={"slots": 2}, dependsOn=[{"name": "over"}])
    assert obj["spec"]["dependsOn"] == [{"name": "over", "condition": "Succeeded"}]
    with pytest.raises(ApiError, match=r"spec\.fairnessKey cannot be changed"):
        await old.edit("held", fairnessKey="a")


async def test_a_waiting_one_is_explained_assigned_and_cancelled(old: World) -> None:
    task = decode_task(await old.task("waiting"))
    obj = await write(old, "waiting", patches.explain(task, PendingReason.NO_FREE_SLOT, "wait", now=Instant(0.0)))
    obj = await given_back(old, await assigned(old, obj))
    task = decode_task(await old.edit("waiting", cancel=True))
    ended = patches.end_waiting(task, Phase.CANCELLED, EndReason.CANCELLED, "spec.cancel was set", now=Instant(0.0))
    assert (await write(old, "waiting", ended))["status"]["phase"] == "Cancelled"


async def test_a_held_one_ends_as_its_older_worker_writes_it(old: World) -> None:
    obj = await finished(old, await old.task("held"), Phase.SUCCEEDED)
    assert (obj["status"]["phase"], obj["status"]["runNumber"]) == ("Succeeded", 1)


async def test_a_finished_one_is_final_and_can_be_run_again(old: World) -> None:
    with pytest.raises(ApiError, match=r"status\.message cannot be changed"):
        await set_status(old, "over", message="other")
    with pytest.raises(ApiError, match=r"status\.runNumber cannot be changed"):
        await set_status(old, "over", runNumber=2)
    answered = await write(old, "over", patches.observe_generation(decode_task(await old.edit("over", priority=3))))
    assert answered["status"]["observedGeneration"] == 2
    obj = await old.edit("over", retryRequest="1")
    patch = MergePatch(patches.run_again(decode_task(obj), now=Instant(0.0)))
    obj = await old.api.patch(TASKS, old.namespace, "over", patch, subresource="status")
    assert (obj["status"]["phase"], obj["status"]["runNumber"], obj["status"]["attempt"]) == ("Pending", 2, 1)
    assert (await assigned(old, obj))["status"]["attempt"] == 2


async def test_a_patch_that_tests_for_a_new_field_sees_its_default(old: World) -> None:
    """What the server hands out is what it applies patches to."""
    operations: list[Object] = [
        {"op": "test", "path": "/status/runNumber", "value": 1},
        {"op": "add", "path": "/status/reason", "value": "NoFreeSlot"},
    ]
    obj = await old.api.patch(TASKS, old.namespace, "waiting", JsonPatch(operations), subresource="status")
    assert obj["status"]["reason"] == "NoFreeSlot"
