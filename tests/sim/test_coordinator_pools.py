"""WorkerPools: their objects are made, kept, and not written without need; their status is true and not chatty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from tests.builders import NAMESPACE, pod_object, pool_object, task, worker
from tests.sim.coordinator_rig import monotonic, wall_clock
from tests.sim.memory_api import Call, Fault, MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.api.models.workerpool import WorkerPoolStatus
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.pods import WorkerPod, worker_pod
from taskmaster.coordinator.pools import PoolController
from taskmaster.coordinator.settings import from_environment
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import Forbidden, ServerError, Unanswered, Unprocessable
from taskmaster.kube.informer import Delta
from taskmaster.kube.resource import (
    CLUSTERROLES,
    DEPLOYMENTS,
    ROLEBINDINGS,
    ROLES,
    SERVICEACCOUNTS,
    WORKERPOOLS,
    Object,
    Resource,
)

pytestmark = pytest.mark.looptime

SETTINGS = from_environment({"POD_NAME": "c", "POD_NAMESPACE": "taskmaster"})
ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": SETTINGS.worker_cluster_role},
}


class Rig:
    """A server, the controller, and the events that kopf would bring."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.server.create(CLUSTERROLES, None, ROLE)
        self.faults: Any = lambda call: None
        self.api = MemoryApi(self.server, faults=lambda call: self.faults(call))
        self.cache = Cache(wake=lambda: None, clock=wall_clock)
        self.leads = True
        self.controller = PoolController(
            self.api, self.cache, SETTINGS, may_write=lambda: self.leads, clock=monotonic, wall_clock=wall_clock
        )

    def create(self, name: str = "pool", **spec: Any) -> Object:
        body = pool_object(name, **spec)
        del body["metadata"]["uid"]
        return self.server.create(WORKERPOOLS, NAMESPACE, body)

    def edit(self, name: str = "pool", **spec: Any) -> None:
        self.server.patch(WORKERPOOLS, NAMESPACE, name, MergePatch({"spec": spec}))

    def delete(self, resource: Resource, name: str) -> None:
        self.server.delete(resource, NAMESPACE, name)

    def status(self, name: str = "pool") -> Object:
        found: Object = self.server.read(WORKERPOOLS, NAMESPACE, name)["status"]
        return found

    def ready(self, name: str = "pool") -> tuple[str, str]:
        (condition,) = self.status(name)["conditions"]
        return condition["status"], condition["reason"]

    def deployment(self, name: str = "pool") -> Object:
        return self.server.read(DEPLOYMENTS, NAMESPACE, f"{name}-worker")

    def names(self, resource: Resource) -> list[str]:
        return [each["metadata"]["name"] for each in self.server.select(resource)]

    def roll_out(self, replicas: int, name: str = "pool") -> None:
        """What the controllers of Kubernetes report."""
        status = {
            "observedGeneration": self.deployment(name)["metadata"]["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
        }
        self.server.patch(
            DEPLOYMENTS, NAMESPACE, f"{name}-worker", MergePatch({"status": status}), subresource="status"
        )

    def writes(self) -> int:
        return sum(self.server.writes.values())

    def status_writes(self) -> int:
        return self.server.writes["patch", "workerpools/status"]

    def workers(self, number: int, *, busy: int = 0, pool: str = "pool") -> None:
        """Register workers, some of them with a Task."""
        capacity = self.cache.tenants[NAMESPACE].capacity
        for index in range(number):
            one = worker(f"w{index}", slots=4)
            capacity.put_worker(one)
            if index < busy:
                capacity.take(task(f"t{index}").uid, one.pod_uid)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        parts = [asyncio.create_task(self.controller.run()), asyncio.create_task(self._tell())]
        try:
            yield
            for part in parts:
                assert not part.done(), part.exception()
        finally:
            for part in parts:
                part.cancel()
                with suppress(asyncio.CancelledError):
                    await part

    async def _tell(self) -> None:
        told = 0
        while True:
            changed = self.server.changed
            for change in self.server.history[told:]:
                obj, deleted = change.after or change.before, change.after is None
                assert obj is not None
                if change.resource is WORKERPOOLS:
                    self.controller.pool_changed(obj, deleted=deleted)
                elif change.resource is DEPLOYMENTS:
                    self.controller.deployment_changed(obj, deleted=deleted)
            told = len(self.server.history)
            await changed.wait()


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_pool_gets_its_objects_and_an_answer_at_once(rig: Rig) -> None:
    async with rig.running():
        rig.create(replicas=3)
        await asyncio.sleep(0.1)
        assert rig.deployment()["spec"]["replicas"] == 3
        assert rig.names(SERVICEACCOUNTS) == rig.names(ROLEBINDINGS) == ["taskmaster-worker"]
        status = rig.status()
        assert (status["observedGeneration"], status["replicas"], status["readyWorkers"]) == (1, 0, 0)
        assert rig.ready() == ("False", "WorkersStarting")
        WorkerPoolStatus.model_validate(status)


async def test_pool_is_ready_when_its_workers_have_registered(rig: Rig) -> None:
    async with rig.running():
        rig.create(replicas=3)
        await asyncio.sleep(1)
        rig.roll_out(3)
        rig.workers(2, busy=1)
        await asyncio.sleep(6)
        assert rig.ready() == ("False", "WorkersStarting")
        rig.workers(3, busy=1)
        await asyncio.sleep(6)
        assert rig.ready() == ("True", "WorkersReady")
        status = rig.status()
        assert (status["replicas"], status["readyWorkers"], status["busyWorkers"]) == (3, 3, 1)
        assert (status["slots"], status["busySlots"]) == (12, 1)
        assert "taskmaster.dev/pool=pool" in status["selector"]


async def test_workers_of_other_pools_do_not_count(rig: Rig) -> None:
    async with rig.running():
        rig.create("other", replicas=1)
        rig.workers(3)
        await asyncio.sleep(6)
        assert rig.status("other")["readyWorkers"] == 0


async def test_nothing_is_written_while_nothing_changes(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        rig.roll_out(3)
        rig.workers(3)
        await asyncio.sleep(20)
        assert rig.ready() == ("True", "WorkersReady")
        writes = rig.writes()
        await asyncio.sleep(600)
        assert rig.writes() == writes
        assert rig.server.writes["patch", "deployments"] == 1


async def test_restarted_operator_rewrites_nothing_that_is_right(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(20)
    applied = rig.server.writes["patch", "deployments"]
    status = rig.status_writes()
    second = Rig()
    second.server = rig.server
    second.api.server = rig.server
    async with second.running():
        await asyncio.sleep(20)
    assert rig.server.writes["patch", "deployments"] == applied
    assert rig.status_writes() == status


async def test_status_is_written_at_most_once_in_five_seconds(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        before = rig.status_writes()
        for number in range(300):
            rig.roll_out(number)
            await asyncio.sleep(0.1)
        assert 4 <= rig.status_writes() - before <= 7


async def test_edit_is_answered_without_waiting_for_the_next_look(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(6)
        rig.edit(replicas=5)
        await asyncio.sleep(0.1)
        assert rig.status()["observedGeneration"] == 2
        assert rig.deployment()["spec"]["replicas"] == 5


async def test_scaling_does_not_roll_the_workers(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        template = rig.deployment()["spec"]["template"]
        rig.edit(replicas=5)
        await asyncio.sleep(1)
        assert rig.deployment()["spec"]["template"] == template
        rig.edit(slots=9)
        await asyncio.sleep(1)
        assert rig.deployment()["spec"]["template"] != template


async def test_deployment_that_somebody_scaled_or_deleted_is_put_right(rig: Rig) -> None:
    async with rig.running():
        rig.create(replicas=3)
        await asyncio.sleep(1)
        rig.server.patch(DEPLOYMENTS, NAMESPACE, "pool-worker", MergePatch({"spec": {"replicas": 1}}))
        await asyncio.sleep(1)
        assert rig.deployment()["spec"]["replicas"] == 3
        rig.delete(DEPLOYMENTS, "pool-worker")
        await asyncio.sleep(1)
        assert rig.deployment()["spec"]["replicas"] == 3


async def test_deployment_that_somebody_edited_is_put_right_once(rig: Rig) -> None:
    """As `kubectl set image` does; the annotation with our digest stays then."""
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        template = rig.deployment()["spec"]["template"]
        for _ in range(2):
            other = {"template": {"spec": {"nodeSelector": {"a": "b"}, "serviceAccountName": "admin"}}}
            rig.server.patch(DEPLOYMENTS, NAMESPACE, "pool-worker", MergePatch({"spec": other}))
            applied = rig.server.writes["patch", "deployments"]
            await asyncio.sleep(60)
            assert rig.deployment()["spec"]["template"]["spec"]["serviceAccountName"] == "taskmaster-worker"
            assert rig.server.writes["patch", "deployments"] == applied + 1
        assert template["spec"].items() <= rig.deployment()["spec"]["template"]["spec"].items()


async def test_name_taken_by_a_stranger_is_refused_until_it_is_free(rig: Rig) -> None:
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "pool-worker"},
        "spec": {"replicas": 1, "template": {"spec": {"containers": []}}},
    }
    stranger = rig.server.create(DEPLOYMENTS, NAMESPACE, body)
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "NameTaken")
        assert "pool-worker" in rig.status()["conditions"][0]["message"]
        assert rig.deployment() == stranger
        writes = rig.writes()
        await asyncio.sleep(60)
        assert rig.writes() == writes
        rig.delete(DEPLOYMENTS, "pool-worker")
        await asyncio.sleep(20)
        assert rig.deployment()["metadata"]["ownerReferences"]
        assert rig.ready() == ("False", "WorkersStarting")


async def test_deployment_of_a_former_pool_of_that_name_is_not_ours(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        rig.delete(WORKERPOOLS, "pool")
        rig.create(replicas=1)
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "NameTaken")
        rig.delete(DEPLOYMENTS, "pool-worker")  # the garbage collector
        await asyncio.sleep(6)
        assert rig.deployment()["spec"]["replicas"] == 1
        assert rig.ready() == ("False", "WorkersStarting")


def refuses_deployments(call: Call) -> Fault | None:
    if call.verb == "patch" and call.resource is DEPLOYMENTS:
        return Fault(before=Unprocessable('spec.template.spec.containers[1].image: Invalid value: " "'))
    return None


async def test_template_that_the_api_server_refuses_is_a_condition_and_mended_by_an_edit(rig: Rig) -> None:
    rig.faults = refuses_deployments
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "DeploymentRefused")
        assert "containers[1].image" in rig.status()["conditions"][0]["message"]
        assert rig.status()["observedGeneration"] == 1
        rig.faults = lambda call: None
        rig.edit(template={"image": "good"})
        await asyncio.sleep(0.1)
        assert rig.ready() == ("False", "WorkersStarting")


async def test_refusal_that_ends_by_itself_needs_no_edit(rig: Rig) -> None:
    """A missing role, or a quota."""
    rig.faults = lambda call: Fault(before=Forbidden("quota")) if call.resource is DEPLOYMENTS else None
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "DeploymentRefused")
        await asyncio.sleep(60)
        assert rig.status_writes() <= 2
        rig.faults = lambda call: None
        await asyncio.sleep(15)
        assert rig.ready() == ("False", "WorkersStarting")
        assert rig.deployment()


@pytest.mark.parametrize("error", [Unanswered("reset"), ServerError("etcd")], ids=["unanswered", "5xx"])
async def test_weather_is_tried_again_and_is_no_refusal(rig: Rig, error: Exception) -> None:
    rig.faults = lambda call: Fault(before=error) if call.verb == "patch" else None
    async with rig.running():
        rig.create()
        for _ in range(50):
            await asyncio.sleep(0.1)
            rig.edit(replicas=int(monotonic() * 10))
        await asyncio.sleep(55)
        tries = [call for call in rig.api.calls if call.verb == "patch" and call.resource is SERVICEACCOUNTS]
        assert len(tries) <= 51 + 60 / 5 + 2, "one more per edit and per five seconds"
        rig.faults = lambda call: None
        await asyncio.sleep(11)
        assert rig.ready() == ("False", "WorkersStarting")
        assert rig.deployment()


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"slots": 0}, "greater"),
        ({"template": {"volumeMounts": [{"name": "taskmaster-token", "mountPath": "/x"}]}}, "taskmaster-token"),
    ],
)
async def test_spec_that_cannot_be_used_is_a_condition(rig: Rig, spec: dict[str, Any], word: str) -> None:
    async with rig.running():
        rig.create(**spec)
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "InvalidSpec")
        assert word in rig.status()["conditions"][0]["message"]
        assert rig.names(DEPLOYMENTS) == []


async def test_bad_edit_leaves_the_workers_as_they_are(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        before = rig.deployment()
        rig.edit(template={"volumeMounts": [{"name": "nobody", "mountPath": "/x"}]})
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "InvalidSpec")
        assert rig.status()["observedGeneration"] == 2
        assert rig.deployment() == before


async def test_problem_of_the_deployment_is_passed_on(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
        rig.server.patch(
            DEPLOYMENTS,
            NAMESPACE,
            "pool-worker",
            MergePatch({"status": {"conditions": [failure]}}),
            subresource="status",
        )
        await asyncio.sleep(6)
        assert rig.ready() == ("False", "WorkersNotCreated")
        assert "exceeded quota" in rig.status()["conditions"][0]["message"]


async def test_pod_that_does_not_start_is_named_with_its_reason(rig: Rig) -> None:
    waiting = {"name": "runner", "state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}}
    stuck = worker_pod(pod_object("w0", status={"phase": "Pending", "containerStatuses": [waiting]}))
    async with rig.running():
        rig.create()
        rig.create("other")
        rig.cache.on_pods([Delta(None, stuck)])
        await asyncio.sleep(6)
        assert rig.ready() == ("False", "WorkersNotStarting")
        assert "pod w0: container runner: ErrImagePull: no such image" in rig.status()["conditions"][0]["message"]
        assert rig.ready("other") == ("False", "WorkersStarting")


async def test_transition_time_moves_only_with_the_status(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        since = rig.status()["conditions"][0]["lastTransitionTime"]
        rig.workers(2)
        await asyncio.sleep(6)
        (condition,) = rig.status()["conditions"]
        assert condition["message"] == "2 of 3 workers are ready"
        assert condition["lastTransitionTime"] == since
        rig.roll_out(3)
        rig.workers(3)
        await asyncio.sleep(6)
        assert rig.status()["conditions"][0]["lastTransitionTime"] > since


async def test_deleted_pool_is_left_to_the_garbage_collector(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        rig.delete(WORKERPOOLS, "pool")
        writes, calls = rig.writes(), len(rig.api.calls)
        rig.delete(DEPLOYMENTS, "pool-worker")
        await asyncio.sleep(60)
        assert rig.writes() == writes + 3, (
            "the Deployment by us, and the identity of workers that nobody needs any more"
        )
        assert [call.verb for call in rig.api.calls[calls:]] == ["delete", "delete"]
        assert rig.names(DEPLOYMENTS) == []


async def test_pool_that_is_being_deleted_gets_nothing_new(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        going = MergePatch({"metadata": {"deletionTimestamp": "2027-01-15T08:00:00Z"}})
        rig.server.patch(WORKERPOOLS, NAMESPACE, "pool", going)
        rig.delete(DEPLOYMENTS, "pool-worker")
        await asyncio.sleep(20)
        assert rig.names(DEPLOYMENTS) == []


async def test_who_does_not_lead_writes_nothing_and_catches_up_later(rig: Rig) -> None:
    rig.leads = False
    async with rig.running():
        rig.create()
        await asyncio.sleep(20)
        assert rig.api.calls == []
        rig.leads = True
        await asyncio.sleep(6)
        assert rig.deployment()
        assert rig.ready() == ("False", "WorkersStarting")


async def test_deployments_of_others_are_not_ours(rig: Rig) -> None:
    async with rig.running():
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {"replicas": 1}}
        rig.server.create(DEPLOYMENTS, NAMESPACE, body)
        await asyncio.sleep(6)
        assert rig.api.calls == []


async def test_identity_of_workers_stays_until_the_last_of_them_has_gone(rig: Rig) -> None:
    async with rig.running():
        rig.create()
        rig.create("other")
        await asyncio.sleep(1)
        rig.cache.pods["p"] = WorkerPod("p", NAMESPACE, "p", leaving=True, over=False, agent_down=False)
        rig.delete(WORKERPOOLS, "pool")
        await asyncio.sleep(11)
        assert rig.names(SERVICEACCOUNTS) == ["taskmaster-worker"], "another pool is there"
        rig.delete(WORKERPOOLS, "other")
        await asyncio.sleep(11)
        assert rig.names(SERVICEACCOUNTS) == ["taskmaster-worker"], "a worker still drains"
        rig.cache.pods.clear()
        await asyncio.sleep(11)
        assert rig.names(SERVICEACCOUNTS) == rig.names(ROLEBINDINGS) == []
        rig.create()
        await asyncio.sleep(1)
        assert rig.names(SERVICEACCOUNTS) == rig.names(ROLEBINDINGS) == ["taskmaster-worker"]


async def test_pool_without_the_charts_role_says_so_and_recovers(rig: Rig) -> None:
    rig.server.delete(CLUSTERROLES, None, SETTINGS.worker_cluster_role)
    async with rig.running():
        rig.create()
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "RoleNotFound")
        rig.server.create(CLUSTERROLES, None, ROLE)
        await asyncio.sleep(11)
        assert rig.ready() == ("False", "WorkersStarting")


def granted(rig: Rig, name: str = "pool") -> dict[str, list[str]]:
    """The names that the workers of a pool may get, by resource; nothing without a binding."""
    assert rig.names(ROLES) == [each for each in rig.names(ROLEBINDINGS) if each != "taskmaster-worker"]
    if f"taskmaster-worker-{name}" not in rig.names(ROLES):
        return {}
    role = rig.server.read(ROLES, NAMESPACE, f"taskmaster-worker-{name}")
    return {rule["resources"][0]: rule["resourceNames"] for rule in role["rules"]}


async def test_what_a_pool_offers_may_be_read_until_it_does_so_no_longer(rig: Rig) -> None:
    async with rig.running():
        rig.create(secretNames=["token"])
        rig.create("other", configMapNames=["settings"])
        await asyncio.sleep(1)
        assert granted(rig) == {"secrets": ["token"]}
        assert granted(rig, "other") == {"configmaps": ["settings"]}
        rig.edit(secretNames=["password", "token"], configMapNames=["settings"])
        await asyncio.sleep(1)
        assert granted(rig) == {"secrets": ["password", "token"], "configmaps": ["settings"]}
        rig.edit(secretNames=None)
        await asyncio.sleep(1)
        assert granted(rig) == {"configmaps": ["settings"]}
        rig.edit(configMapNames=[])
        await asyncio.sleep(1)
        assert granted(rig) == {}
        assert granted(rig, "other") == {"configmaps": ["settings"]}
        assert rig.ready() == ("False", "WorkersStarting")


async def test_what_may_be_read_is_written_once(rig: Rig) -> None:
    async with rig.running():
        rig.create(secretNames=["token"])
        await asyncio.sleep(1)
        for replicas in range(5):
            rig.edit(replicas=replicas)
            await asyncio.sleep(60)
        assert (rig.server.writes["patch", "roles"], rig.server.writes["patch", "rolebindings"]) == (1, 2)
        asked = [call for call in rig.api.calls if call.resource is ROLES and call.verb == "get"]
        assert len(asked) == 1


async def test_what_was_offered_before_the_operator_restarted_is_taken_back(rig: Rig) -> None:
    async with rig.running():
        rig.create(secretNames=["token"])
        await asyncio.sleep(1)
    rig.edit(secretNames=None)
    second = Rig()
    second.server = rig.server
    second.api.server = rig.server
    async with second.running():
        await asyncio.sleep(1)
        assert granted(rig) == {}


async def test_new_pool_of_an_old_name_owns_what_it_offers(rig: Rig) -> None:
    async with rig.running():
        rig.create(secretNames=["token"])
        await asyncio.sleep(1)
        rig.delete(WORKERPOOLS, "pool")
        rig.delete(DEPLOYMENTS, "pool-worker")
        pool = rig.create(secretNames=["token"])
        await asyncio.sleep(1)
        for resource in (ROLES, ROLEBINDINGS):
            (owner,) = rig.server.read(resource, NAMESPACE, "taskmaster-worker-pool")["metadata"]["ownerReferences"]
            assert owner["uid"] == pool["metadata"]["uid"]


@pytest.mark.parametrize("resource", [ROLES, ROLEBINDINGS], ids=lambda resource: str(resource.kind))
async def test_roles_of_strangers_are_neither_changed_nor_deleted(rig: Rig, resource: Resource) -> None:
    body = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": "taskmaster-worker-pool", "labels": {"app.kubernetes.io/name": "taskmaster"}},
    }
    stranger = rig.server.create(resource, NAMESPACE, body)
    async with rig.running():
        rig.create(secretNames=["token"])
        await asyncio.sleep(6)
        assert rig.ready() == ("False", "NameTaken")
        assert "taskmaster-worker-pool that is not ours" in rig.status()["conditions"][0]["message"]
        assert rig.deployment(), "Tasks that read nothing can run"
        rig.edit(secretNames=None)
        await asyncio.sleep(6)
        assert rig.ready() == ("False", "WorkersStarting")
        assert rig.server.read(resource, NAMESPACE, "taskmaster-worker-pool") == stranger


ESCALATION = Forbidden("attempting to grant RBAC permissions not currently held")


async def test_operator_that_may_not_grant_says_so_and_runs_the_workers(rig: Rig) -> None:
    rig.faults = lambda call: Fault(before=ESCALATION) if call.resource is ROLES and call.verb == "patch" else None
    async with rig.running():
        rig.create(secretNames=["token"])
        await asyncio.sleep(1)
        assert rig.ready() == ("False", "ValueFromForbidden")
        message = rig.status()["conditions"][0]["message"]
        assert "valueFrom.enabled=true" in message
        assert "attempting to grant RBAC permissions not currently held" in message
        assert rig.deployment()
        status = rig.status_writes()
        await asyncio.sleep(60)
        assert rig.status_writes() == status
        rig.faults = lambda call: None
        await asyncio.sleep(11)
        assert rig.ready() == ("False", "WorkersStarting")
        assert granted(rig) == {"secrets": ["token"]}


async def test_operator_without_rights_on_roles_is_no_trouble_for_pools_that_offer_nothing(rig: Rig) -> None:
    rig.faults = lambda call: Fault(before=Forbidden("roles")) if call.resource is ROLES else None
    async with rig.running():
        rig.create()
        rig.create("other", secretNames=["token"])
        await asyncio.sleep(6)
        assert rig.ready() == ("False", "WorkersStarting")
        assert rig.ready("other") == ("False", "ValueFromForbidden")
        rig.edit("other", secretNames=None)
        await asyncio.sleep(6)
        assert rig.ready("other") == ("False", "WorkersStarting")


async def test_weather_while_a_right_is_taken_back_is_tried_again(rig: Rig) -> None:
    async with rig.running():
        rig.create(secretNames=["token"])
        await asyncio.sleep(1)
        rig.faults = lambda call: Fault(before=ServerError("etcd")) if call.verb == "delete" else None
        rig.edit(secretNames=None)
        await asyncio.sleep(20)
        assert granted(rig) == {"secrets": ["token"]}
        rig.faults = lambda call: None
        await asyncio.sleep(11)
        assert granted(rig) == {}
