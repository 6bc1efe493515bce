"""What the API server lets a worker do, tried with the real bound tokens of two pods and the chart's own rules."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest
from tests.integration.harness import Object, World
from tests.integration.journey import ENDS

from taskmaster.api import names, patches
from taskmaster.api.decode import task as decode_task
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Again, Finish, Outcome, Spent
from taskmaster.core.task import Holder, Instant, StopReason, Task
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


def finish(
    task: Task, holder: Holder, by: Phase = Phase.SUCCEEDED, spent: Spent | None = None, **changes: Any
) -> list[patches.Operation]:
    """The end of an attempt, with changes that no agent would make (None removes)."""
    decision = Finish(by, ENDS[by].reason, spent or task.spent, dead_lettered=by is Phase.FAILED)
    operations = patches.finish(task.uid, task.attempt, holder, ENDS[by], decision, task.attempts, task.spent)
    return operations + changed(**changes)


def again(task: Task, holder: Holder, outcome: Outcome, spent: Spent, **changes: Any) -> list[patches.Operation]:
    ended = patches.Ended(outcome, EndReason.INTERRUPTED, "over", NOW, NOW, "tail")
    operations = patches.again(task.uid, task.attempt, holder, ended, Again(2.0, spent), task.attempts, task.spent)
    return operations + changed(**changes)


def changed(**changes: Any) -> list[patches.Operation]:
    return [
        {"op": "remove", "path": f"/status/{key}"}
        if value is None
        else {"op": "add", "path": f"/status/{key}", "value": value}
        for key, value in changes.items()
    ]


def checkpoint(attempt: int) -> Object:
    return {"attempt": attempt, "time": "2027-01-15T08:00:00Z", "data": {"step": attempt}}


@pytest.mark.parametrize(
    ("phase", "spent"),
    [
        (Phase.SUCCEEDED, Spent()),
        (Phase.FAILED, Spent(failures=1)),
        (Phase.FAILED, Spent(failures=1, runner_deaths=1)),
        (Phase.CANCELLED, Spent()),
    ],
    ids=str,
)
async def test_a_worker_may_make_every_move_of_an_agent(scene: Scene, phase: Phase, spent: Spent) -> None:
    task, holder = await scene.assigned("a", scene.mine), scene.mine.holder
    moves = [
        patches.start(task.uid, 1, holder, started=NOW),
        patches.save(task.uid, 1, holder, patches.Saved({"current": 1}, checkpoint(1))),
        patches.save(task.uid, 1, holder, patches.Saved({"current": 2, "total": 3, "message": "on"}, checkpoint(1))),
        finish(task, holder, phase, spent),
    ]
    for move in moves:
        obj = await scene.write(scene.mine.api, "a", JsonPatch(move))
    assert obj["status"]["phase"] == phase


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (Outcome.FAILED, Spent(failures=1)),
        (Outcome.WORKER_LOST, Spent(worker_losses=1, runner_deaths=1)),
        (Outcome.INTERRUPTED, Spent(interruptions=1)),
        (Outcome.RELEASED, Spent()),
        (Outcome.SUSPENDED, Spent()),
    ],
    ids=str,
)
async def test_a_worker_may_give_a_task_back(scene: Scene, outcome: Outcome, spent: Spent) -> None:
    task = await scene.assigned("a", scene.mine)
    obj = await scene.write(scene.mine.api, "a", JsonPatch(again(task, scene.mine.holder, outcome, spent)))
    assert (obj["status"]["phase"], obj["status"]["attempts"][0]["outcome"]) == ("Pending", outcome)


async def test_a_death_of_the_runner_is_counted_up_by_one_and_cleared(scene: Scene) -> None:
    holder = scene.mine.holder
    task = await scene.assigned("a", scene.mine)
    for deaths in (1, 2, 0):
        spent = replace(task.spent, worker_losses=task.spent.worker_losses + 1, runner_deaths=deaths)
        for wrong in {3, 4, 5} - {task.spent.runner_deaths, task.spent.runner_deaths + 1}:
            forged = again(task, holder, Outcome.WORKER_LOST, spent, runnerDeaths=wrong)
            with pytest.raises(Forbidden, match=r"add one to status\.runnerDeaths or clear it"):
                await scene.write(scene.mine.api, "a", JsonPatch(forged))
        obj = await scene.write(scene.mine.api, "a", JsonPatch(again(task, holder, Outcome.WORKER_LOST, spent)))
        assert obj["status"]["runnerDeaths"] == deaths
        obj = await scene.write(
            scene.world.api, "a", JsonPatch(patches.assign(decode_task(obj), scene.mine.worker, now=NOW))
        )
        task = decode_task(obj)


async def test_the_checkpoint_of_an_earlier_attempt_stays_until_there_is_a_new_one(scene: Scene) -> None:
    holder, saved = scene.mine.holder, patches.Saved(checkpoint=checkpoint(1))
    task = await scene.assigned("a", scene.mine)
    for changes in (checkpoint(2), checkpoint(0)):
        with pytest.raises(Forbidden, match=r"status\.checkpoint only by one of the attempt that it holds"):
            await scene.write(scene.mine.api, "a", JsonPatch(finish(task, holder, checkpoint=changes)))
    await scene.write(scene.mine.api, "a", JsonPatch(patches.start(task.uid, 1, holder, started=NOW, saved=saved)))
    give_back = again(task, holder, Outcome.INTERRUPTED, Spent(interruptions=1))
    obj = await scene.write(scene.mine.api, "a", JsonPatch(give_back))
    obj = await scene.write(
        scene.world.api, "a", JsonPatch(patches.assign(decode_task(obj), scene.mine.worker, now=NOW))
    )
    task = decode_task(obj)
    assert obj["status"]["checkpoint"] == checkpoint(1)
    forgeries: list[Object | None] = [{**checkpoint(1), "data": {"step": 9}}, {**checkpoint(1), "data": {}}, None]
    for forgery in forgeries:
        with pytest.raises(Forbidden, match=r"status\.checkpoint only by one of the attempt that it holds"):
            await scene.write(scene.mine.api, "a", JsonPatch(finish(task, holder, checkpoint=forgery)))
    obj = await scene.write(scene.mine.api, "a", JsonPatch(finish(task, holder, checkpoint=checkpoint(2))))
    assert obj["status"]["checkpoint"] == checkpoint(2)


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


STOP = {"reason": "Drained", "time": "2027-01-15T08:00:00Z"}
FORGERIES: list[tuple[Object, str]] = [
    ({"attempt": 9}, "attempt grows by one"),
    ({"observedGeneration": 9}, "may not change status.observedGeneration"),
    ({"observedGeneration": None}, "may not change status.observedGeneration"),
    ({"runNumber": 2}, "begins a new run only for"),
    ({"observedRetryRequest": "1"}, "may not change status.observedRetryRequest"),
    ({"stopRequest": STOP}, "may not change status.stopRequest"),
    ({"deadlineTime": "2028-01-15T08:00:00Z"}, "may not change status.deadlineTime"),
    ({"resolvedRun": {"run": {"command": ["reboot"]}}}, "may not change status.resolvedRun"),
    ({"deadLettered": True}, "only a Task that has failed is a dead letter"),
    ({"failures": 1}, "at most one budget, once, and only if it failed"),
    ({"workerLosses": 1}, "at most one budget, once, and only if it failed"),
    ({"interruptions": -1}, "greater than or equal to 0"),
    ({"runnerDeaths": 2}, "add one to status.runnerDeaths or clear it"),
    ({"phase": "Skipped"}, "can only become Cancelled or Failed or Pending"),
    ({"phase": "Cancelled"}, "only a Task that has succeeded or failed has a result"),
    ({"attempts": []}, "recorded in status.attempts by the worker that held it"),
    (
        {"attempts": [{"attempt": 1, "worker": "someone", "endTime": "2027-01-15T08:00:00Z", "outcome": "Succeeded"}]},
        "recorded in status.attempts by the worker that held it",
    ),
]


@pytest.mark.parametrize(("forgery", "message"), FORGERIES, ids=lambda value: str(value)[:50])
async def test_a_worker_may_not_forge_a_record(scene: Scene, forgery: Object, message: str) -> None:
    task = await scene.assigned("a", scene.mine)
    with pytest.raises(ApiError) as refusal:
        await scene.write(scene.mine.api, "a", JsonPatch(finish(task, scene.mine.holder, **forgery)))
    assert message in refusal.value.message
    assert (await scene.world.task("a"))["status"]["phase"] == "Assigned"


CHARGES: list[tuple[Outcome, Object]] = [
    (Outcome.FAILED, {"failures": 2}),
    (Outcome.FAILED, {"workerLosses": 1}),
    (Outcome.INTERRUPTED, {"failures": 1}),
    *(
        (outcome, {budget: 1})
        for outcome in (Outcome.SUSPENDED, Outcome.RELEASED)
        for budget in ("failures", "workerLosses", "interruptions")
    ),
]


@pytest.mark.parametrize(("outcome", "charge"), CHARGES, ids=str)
async def test_an_attempt_is_charged_to_at_most_one_budget_and_some_to_none(
    scene: Scene, outcome: Outcome, charge: Object
) -> None:
    task = await scene.assigned("a", scene.mine)
    charged = {Outcome.FAILED: Spent(failures=1), Outcome.INTERRUPTED: Spent(interruptions=1)}.get(outcome, Spent())
    with pytest.raises(Forbidden, match="at most one budget, once, and only if it failed, was lost or interrupted"):
        await scene.write(scene.mine.api, "a", JsonPatch(again(task, scene.mine.holder, outcome, charged, **charge)))


@pytest.mark.parametrize("budget", ["failures", "workerLosses", "interruptions"])
async def test_a_cancelled_attempt_is_charged_to_no_budget(scene: Scene, budget: str) -> None:
    task = await scene.assigned("a", scene.mine)
    forged = finish(task, scene.mine.holder, Phase.CANCELLED) + changed(**{budget: 1})
    with pytest.raises(Forbidden, match="at most one budget, once, and only if it failed, was lost or interrupted"):
        await scene.write(scene.mine.api, "a", JsonPatch(forged))


async def test_a_worker_may_not_answer_for_the_coordinator(scene: Scene) -> None:
    """What the coordinator asked stays, also when the attempt is given back."""
    task = await scene.assigned("a", scene.mine)
    await scene.write(scene.world.api, "a", MergePatch({"status": {"stopRequest": STOP, "deadlineTime": STOP["time"]}}))
    for field in ("stopRequest", "deadlineTime"):
        forged = again(task, scene.mine.holder, Outcome.INTERRUPTED, Spent(interruptions=1), **{field: None})
        with pytest.raises(Forbidden, match=f"may not change status.{field}"):
            await scene.write(scene.mine.api, "a", JsonPatch(forged))
    obj = await scene.write(
        scene.mine.api, "a", JsonPatch(again(task, scene.mine.holder, Outcome.INTERRUPTED, Spent(interruptions=1)))
    )
    assert obj["status"]["stopRequest"] == STOP


async def test_a_worker_may_not_begin_a_new_run(scene: Scene) -> None:
    task = await scene.assigned("a", scene.mine)
    await scene.write(scene.mine.api, "a", JsonPatch(finish(task, scene.mine.holder)))
    obj = await scene.world.edit("a", retryRequest="1")
    with pytest.raises(Forbidden, match="only while it holds it"):
        await scene.write(scene.mine.api, "a", MergePatch(patches.run_again(decode_task(obj), now=NOW)))


RUNNING_FORGERIES: list[tuple[Object, str]] = [
    ({"assignment": {"podUID": "someone"}}, "may not change status.assignment"),
    ({"failures": 1}, "at most one budget"),
    ({"runnerDeaths": 1}, "add one to status.runnerDeaths or clear it, and only at the end"),
    ({"result": {"early": True}}, "only a Task that has succeeded or failed has a result"),
    ({"attempts": [{"attempt": 1, "outcome": "Failed"}]}, "recorded in status.attempts"),
    ({"deadLettered": True}, "only a Task that has failed is a dead letter"),
    ({"checkpoint": checkpoint(7)}, "only by one of the attempt that it holds"),
    ({"stopRequest": STOP}, "may not change status.stopRequest"),
    ({"assignment": {"slots": 1000}}, "may not change status.assignment"),
    ({"assignment": {"policy": {"retryLimit": 99}}}, "may not change status.assignment"),
    ({"resolvedRun": {"run": {"command": ["reboot"]}}}, "may not change status.resolvedRun"),
]


@pytest.mark.parametrize(("forgery", "message"), RUNNING_FORGERIES, ids=lambda value: str(value)[:50])
async def test_a_worker_may_not_slip_more_into_a_start(scene: Scene, forgery: Object, message: str) -> None:
    await scene.assigned("a", scene.mine)
    change = {"phase": "Running", "startTime": "2027-01-15T08:00:00Z", **forgery}
    with pytest.raises(Forbidden, match=message):
        await scene.write(scene.mine.api, "a", MergePatch({"status": change}))


async def test_a_worker_may_not_change_what_a_template_came_to(scene: Scene) -> None:
    """Not even where the difference is in free-form arguments: the next worker runs what stands there."""

    def run(arguments: Object) -> Object:
        return {"run": {"python": {"callable": "m:f", "args": arguments}}, "env": [{"name": "A", "value": "1"}]}

    task, holder = await scene.assigned("a", scene.mine), scene.mine.holder
    await scene.write(scene.world.api, "a", MergePatch({"status": {"resolvedRun": run({"first": {"a": 1}})}}))
    give_back = again(task, holder, Outcome.INTERRUPTED, Spent(interruptions=1))
    with pytest.raises(Forbidden, match=r"may not change status\.resolvedRun"):
        await scene.write(scene.mine.api, "a", JsonPatch(give_back + changed(resolvedRun=run({"renamed": {"a": 1}}))))
    for forgery in (run({"first": {"a": 2}}), {**run({"first": {"a": 1}}), "env": []}, None):
        with pytest.raises(ApiError, match=r"status\.resolvedRun"):
            await scene.write(scene.mine.api, "a", JsonPatch(give_back + changed(resolvedRun=forgery)))
    obj = await scene.write(scene.mine.api, "a", JsonPatch(give_back))
    assert obj["status"]["resolvedRun"] == run({"first": {"a": 1}})


async def test_a_worker_cannot_give_itself_more_slots_with_the_end_of_an_attempt(scene: Scene) -> None:
    task, holder = await scene.assigned("a", scene.mine), scene.mine.holder
    assignment = {**(await scene.world.task("a"))["status"]["assignment"], "slots": 9}
    with pytest.raises(Forbidden, match=r"may not change status\.assignment"):
        await scene.write(scene.mine.api, "a", JsonPatch(finish(task, holder, assignment=assignment)))
    forged = again(task, holder, Outcome.INTERRUPTED, Spent(interruptions=1), assignment=assignment)
    with pytest.raises(ApiError, match="a Pending Task has no assignment"):
        await scene.write(scene.mine.api, "a", JsonPatch(forged))


async def test_a_worker_may_end_a_task_whose_place_another_took(scene: Scene) -> None:
    task = await scene.assigned("a", scene.mine)
    stop = patches.request_stop(task, StopReason.CANCELLED, now=NOW)
    await scene.write(scene.world.api, "a", JsonPatch(stop))
    ended = patches.Ended(Outcome.CANCELLED, EndReason.REPLACED, "another Task took its place", NOW, NOW, "tail")
    decision = Finish(Phase.CANCELLED, EndReason.REPLACED, task.spent)
    operations = patches.finish(task.uid, 1, scene.mine.holder, ended, decision, task.attempts, task.spent)
    obj = await scene.write(scene.mine.api, "a", JsonPatch(operations))
    assert (obj["status"]["phase"], obj["status"]["reason"]) == ("Cancelled", "Replaced")
    assert obj["status"]["attempts"][-1]["reason"] == "Replaced"


async def test_a_worker_may_read_the_tasks_that_another_depends_on(scene: Scene) -> None:
    task = await scene.assigned("parent", scene.other)
    await scene.write(scene.other.api, "parent", JsonPatch(finish(task, scene.other.holder, result={"sum": 3})))
    assert (await scene.mine.api.get(TASKS, scene.world.namespace, "parent"))["status"]["result"] == {"sum": 3}
    with pytest.raises(Forbidden, match="cannot get resource"):
        await scene.mine.api.get(TASKS, "default", "parent")


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
            "annotations": {
                names.POD_UID_ANNOTATION: worker.pod_uid,
                names.LABELS_ANNOTATION: '{"gpu":"true","pool":"default"}',
                names.QUEUES_ANNOTATION: '["media"]',
            },
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
