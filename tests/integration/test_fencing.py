"""What the API server lets a worker do, tried with the real bound tokens of two pods and the chart's own rules."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
from tests.integration.harness import Object, World

from taskmaster.api import names, patches
from taskmaster.api.decode import task as decode_task
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Again, Finish, Outcome, Spent
from taskmaster.core.task import Holder, Instant, Task
from taskmaster.kube.api import ApplyPatch, JsonPatch, MergePatch
from taskmaster.kube.client import Client
from taskmaster.kube.errors import ApiError, Forbidden
from taskmaster.kube.resource import LEASES, PODS, TASKS

NOW = Instant(1_800_000_000.5)


@dataclass
class Actor:
    """A worker pod's identity and a client with its token."""

    pod: Object
    api: Client

    @property
    def worker(self) -> Worker:
        metadata = self.pod["metadata"]
        return Worker(metadata["namespace"], metadata["name"], metadata["uid"], "default", "life-1", "node-1", 4, True)

    @property
    def holder(self) -> Holder:
        return Holder(self.worker.name, self.worker.pod_uid, self.worker.incarnation)


@dataclass
class Scene:
    world: World
    mine: Actor
    other: Actor
    unbound: Client

    async def assigned(self, name: str, actor: Actor) -> Task:
        obj = await self.world.submit(name, {"command": ["true"]})
        patch = JsonPatch(patches.assign(decode_task(obj), actor.worker, now=NOW))
        return decode_task(await self.write(self.world.api, name, patch))

    async def write(self, api: Client, name: str, patch: JsonPatch | MergePatch | ApplyPatch) -> Object:
        return await api.patch(TASKS, self.world.namespace, name, patch, subresource="status")


@pytest.fixture
async def scene(world: World) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        actors = []
        for name in ("mine", "other"):
            pod = await world.create_worker_pod(name)
            kubeconfig = await world.account_kubeconfig(world.namespace, names.WORKER_SERVICE_ACCOUNT, pod=pod)
            actors.append(Actor(pod, await stack.enter_async_context(world.client(kubeconfig))))
        unbound = await world.account_kubeconfig(world.namespace, names.WORKER_SERVICE_ACCOUNT)
        yield Scene(world, actors[0], actors[1], await stack.enter_async_context(world.client(unbound)))


def finish(task: Task, holder: Holder, **changes: object) -> list[patches.Operation]:
    ended = patches.Ended(Outcome.SUCCEEDED, EndReason.COMPLETED, "done", NOW, NOW, 0, "tail", {"answer": 42})
    decision = Finish(Phase.SUCCEEDED, EndReason.COMPLETED, Spent())
    operations = patches.finish(task.uid, task.attempt, holder, ended, decision, task.attempts, task.spent)
    return operations + [{"op": "add", "path": f"/status/{key}", "value": value} for key, value in changes.items()]


def failed() -> patches.Ended:
    return patches.Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", NOW, NOW, 3, "tail")


async def test_a_worker_may_make_every_move_of_an_agent(scene: Scene) -> None:
    task, holder = await scene.assigned("a", scene.mine), scene.mine.holder
    await scene.write(scene.mine.api, "a", JsonPatch(patches.start(task.uid, 1, holder, started=NOW)))
    await scene.write(scene.mine.api, "a", JsonPatch(finish(task, holder)))
    task = await scene.assigned("b", scene.mine)
    again = patches.again(task.uid, 1, holder, failed(), Again(2.0, Spent(failures=1)), (), task.spent)
    obj = await scene.write(scene.mine.api, "b", JsonPatch(again))
    assert obj["status"]["phase"] == "Pending"


async def test_a_worker_may_not_write_a_task_that_another_one_holds(scene: Scene) -> None:
    task = await scene.assigned("a", scene.other)
    with pytest.raises(Forbidden, match="only the worker that holds the Task may write its status"):
        await scene.write(scene.mine.api, "a", JsonPatch(finish(task, scene.other.holder)))
    with pytest.raises(Forbidden, match=r"bound to pod uid \(none\)"):
        await scene.write(scene.unbound, "a", JsonPatch(finish(task, scene.other.holder)))


async def test_a_worker_may_not_take_a_waiting_task(scene: Scene) -> None:
    task = decode_task(await scene.world.submit("a", {"command": ["true"]}))
    with pytest.raises(Forbidden, match="only the worker that holds the Task"):
        await scene.write(scene.mine.api, "a", JsonPatch(patches.assign(task, scene.mine.worker, now=NOW)))


async def test_a_worker_may_not_touch_its_own_finished_task(scene: Scene) -> None:
    task = await scene.assigned("a", scene.mine)
    await scene.write(scene.mine.api, "a", JsonPatch(finish(task, scene.mine.holder)))
    with pytest.raises(Forbidden, match="only while it holds it"):
        await scene.write(scene.mine.api, "a", MergePatch({"status": {"observedGeneration": 7}}))


FORGERIES: list[tuple[Object, str]] = [
    ({"attempt": 9}, "may not change status.attempt|attempt grows by one"),
    ({"observedGeneration": 9}, "may not change status.observedGeneration"),
    ({"failures": 2}, "at most one budget"),
    ({"failures": 1, "workerLosses": 1}, "at most one budget"),
    ({"interruptions": -1}, "at most one budget|greater than or equal to 0"),
    ({"attempts": []}, "recorded in status.attempts by the worker that held it"),
    (
        {"attempts": [{"attempt": 1, "worker": "someone", "endTime": "2027-01-15T08:00:00Z", "outcome": "Succeeded"}]},
        "recorded in status.attempts by the worker that held it",
    ),
]


@pytest.mark.parametrize(("forgery", "message"), FORGERIES, ids=lambda value: str(value)[:50])
async def test_a_worker_may_not_forge_a_record(scene: Scene, forgery: Object, message: str) -> None:
    task = await scene.assigned("a", scene.mine)
    with pytest.raises(ApiError, match=message):
        await scene.write(scene.mine.api, "a", JsonPatch(finish(task, scene.mine.holder, **forgery)))
    assert (await scene.world.task("a"))["status"]["phase"] == "Assigned"


RUNNING_FORGERIES: list[tuple[Object, str]] = [
    ({"assignment": {"podUID": "someone"}}, "may not change status.assignment"),
    ({"failures": 1}, "at most one budget"),
    ({"result": {"early": True}}, "only a finished Task has a result"),
    ({"attempts": [{"attempt": 1, "outcome": "Failed"}]}, "recorded in status.attempts"),
]


@pytest.mark.parametrize(("forgery", "message"), RUNNING_FORGERIES, ids=lambda value: str(value)[:50])
async def test_a_worker_may_not_slip_more_into_a_start(scene: Scene, forgery: Object, message: str) -> None:
    await scene.assigned("a", scene.mine)
    change = {"phase": "Running", "startTime": "2027-01-15T08:00:00Z", **forgery}
    with pytest.raises(Forbidden, match=message):
        await scene.write(scene.mine.api, "a", MergePatch({"status": change}))


async def test_a_worker_has_no_other_verbs_on_tasks(scene: Scene) -> None:
    await scene.assigned("a", scene.mine)
    api, namespace = scene.mine.api, scene.world.namespace
    with pytest.raises(Forbidden, match="cannot delete resource"):
        await api.delete(TASKS, namespace, "a")
    with pytest.raises(Forbidden, match="cannot patch resource"):
        await api.patch(TASKS, namespace, "a", MergePatch({"spec": {"priority": 1}}))
    with pytest.raises(Forbidden, match="cannot create resource"):
        await api.create(TASKS, namespace, {"apiVersion": names.API_VERSION, "kind": "Task", "metadata": {"name": "b"}})
    with pytest.raises(Forbidden, match="cannot list resource"):
        await api.list(TASKS, namespace="default")
    with pytest.raises(Forbidden, match="cannot"):
        await api.list(PODS, namespace=namespace)


def lease(actor: Actor, **changes: object) -> Object:
    worker = actor.worker
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": worker.name,
            "labels": {names.POOL_LABEL: worker.pool},
            "annotations": {names.POD_UID_ANNOTATION: worker.pod_uid},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": worker.name, "uid": worker.pod_uid}],
        },
        "spec": {"holderIdentity": worker.name, "leaseDurationSeconds": 45, **changes},
    }


async def test_a_worker_writes_its_own_lease_and_no_other(scene: Scene) -> None:
    namespace, mine = scene.world.namespace, scene.mine
    await mine.api.create(LEASES, namespace, lease(mine))
    await mine.api.patch(LEASES, namespace, "mine", MergePatch({"spec": {"holderIdentity": ""}}))
    with pytest.raises(Forbidden, match="only the Lease of its own pod"):
        await mine.api.create(LEASES, namespace, lease(scene.other))
    with pytest.raises(Forbidden, match="only the Lease of its own pod"):
        await mine.api.create(LEASES, namespace, lease(scene.other), dry_run=True)
    await scene.other.api.create(LEASES, namespace, lease(scene.other))
    with pytest.raises(Forbidden, match="only the Lease of its own pod"):
        await mine.api.patch(LEASES, namespace, "other", MergePatch({"spec": {"holderIdentity": ""}}))
    with pytest.raises(Forbidden, match=r"bound to pod \(none\)"):
        await scene.unbound.patch(LEASES, namespace, "mine", MergePatch({"spec": {"holderIdentity": ""}}))


async def test_a_worker_may_not_register_under_another_pods_uid_or_name(scene: Scene) -> None:
    namespace, mine = scene.world.namespace, scene.mine
    disguised = replace(mine, pod={"metadata": {**mine.pod["metadata"], "uid": scene.other.worker.pod_uid}})
    with pytest.raises(Forbidden, match="names the uid of its own pod"):
        await mine.api.create(LEASES, namespace, lease(disguised))
    with pytest.raises(Forbidden, match="in its own name only"):
        await mine.api.create(LEASES, namespace, lease(mine, holderIdentity="other"))


async def test_a_worker_cannot_reach_the_coordinators_lease_or_delete_any(scene: Scene) -> None:
    mine = scene.mine
    with pytest.raises(Forbidden):
        await mine.api.get(LEASES, "taskmaster-system", "taskmaster-coordinator")
    election = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "taskmaster-coordinator"}}
    with pytest.raises(Forbidden, match="only the Lease of its own pod"):
        await mine.api.create(LEASES, scene.world.namespace, election)
    await mine.api.create(LEASES, scene.world.namespace, lease(mine))
    with pytest.raises(Forbidden, match="cannot delete resource"):
        await mine.api.delete(LEASES, scene.world.namespace, "mine")
