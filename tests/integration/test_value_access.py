"""Which Secrets and ConfigMaps a worker may read, with a coordinator that has just the rights of the chart."""

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.conftest import INSTALLED_KINDS, REPOSITORY
from tests.integration.harness import SYSTEM_NAMESPACE, Object, World

from taskmaster.api import names
from taskmaster.kube.api import ApplyPatch, MergePatch
from taskmaster.kube.client import Client
from taskmaster.kube.errors import Forbidden
from taskmaster.kube.resource import CONFIGMAPS, DEPLOYMENTS, ROLEBINDINGS, ROLES, SECRETS, WORKERPOOLS, Resource

REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)


async def pool(world: World, name: str, **spec: Any) -> Object:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": name},
        "spec": {"replicas": 0, **spec},
    }
    return await world.api.create(WORKERPOOLS, world.namespace, body)


def ready_reason(pool: Object) -> str:
    conditions = pool.get("status", {}).get("conditions") or [{}]
    return str(conditions[0].get("reason", ""))


async def settled(world: World, name: str) -> Object:
    """Return a pool when the coordinator has answered its last edit."""

    def answered(pool: Object) -> bool:
        return bool(pool["status"].get("observedGeneration") == pool["metadata"]["generation"])

    return await world.until(name, answered, resource=WORKERPOOLS)


@asynccontextmanager
async def worker_client(world: World) -> AsyncIterator[Client]:
    pod = await world.create_worker_pod("w")
    kubeconfig = await world.account_kubeconfig(world.namespace, names.WORKER_SERVICE_ACCOUNT, pod=pod)
    async with world.client(kubeconfig) as client:
        yield client


async def may(api: Client, namespace: str, verb: str, resource: str, name: str = "") -> bool:
    """What `kubectl auth can-i` asks."""
    attributes = {"namespace": namespace, "verb": verb, "resource": resource, "name": name}
    body = {"apiVersion": REVIEWS.api_version, "kind": REVIEWS.kind, "spec": {"resourceAttributes": attributes}}
    return bool((await api.create(REVIEWS, None, body))["status"]["allowed"])


async def until_allowed(api: Client, namespace: str, resource: str, name: str) -> None:
    """The API server's authorizer learns of a new Role a moment later; nothing tells but asking again."""
    async with asyncio.timeout(10):
        while not await may(api, namespace, "get", resource, name):
            pass


async def test_a_worker_gets_exactly_what_the_pools_of_its_namespace_list(world: World) -> None:
    for secret in ("token", "other"):
        await world.create_secret(secret, key=secret)
    for settings in ("settings", "private"):
        await world.create_config_map(settings, key=settings)
    await world.start_coordinator()
    await pool(world, "first", secretNames=["token"])
    await pool(world, "second", configMapNames=["settings", "missing"])
    for name in ("first", "second"):
        assert ready_reason(await settled(world, name)) in ("WorkersReady", "WorkersStarting")
    async with worker_client(world) as mine:
        namespace = world.namespace
        await until_allowed(mine, namespace, "secrets", "token")
        await until_allowed(mine, namespace, "configmaps", "missing")
        assert (await mine.get(SECRETS, namespace, "token"))["data"]
        assert (await mine.get(CONFIGMAPS, namespace, "settings"))["data"]
        for resource, hidden in ((SECRETS, "other"), (CONFIGMAPS, "private"), (CONFIGMAPS, "kube-root-ca.crt")):
            with pytest.raises(Forbidden):
                await mine.get(resource, namespace, hidden)
        for resource in (SECRETS, CONFIGMAPS):
            with pytest.raises(Forbidden):
                await mine.list(resource, namespace=namespace)
            with pytest.raises(Forbidden):
                await mine.list(resource, namespace=namespace, field_selector="metadata.name=token")
        for verb in ("list", "watch", "update", "patch", "delete"):
            assert not await may(mine, namespace, verb, "secrets", "token")
        for where in ("default", SYSTEM_NAMESPACE):
            assert not await may(mine, where, "get", "secrets", "token")


async def test_a_right_ends_when_the_pool_no_longer_lists_the_name(world: World) -> None:
    await world.create_secret("token", key="value")
    await world.start_coordinator()
    owner = await pool(world, "p", secretNames=["token"], configMapNames=["settings"])
    for resource in (ROLES, ROLEBINDINGS):
        made = await world.until("taskmaster-worker-p", lambda _: True, resource=resource)
        (reference,) = made["metadata"]["ownerReferences"]
        assert (reference["kind"], reference["uid"]) == ("WorkerPool", owner["metadata"]["uid"])
    await world.api.patch(WORKERPOOLS, world.namespace, "p", MergePatch({"spec": {"secretNames": ["a"]}}))
    role = await world.until(
        "taskmaster-worker-p", lambda role: role["rules"][0]["resourceNames"] == ["a"], resource=ROLES
    )
    assert [rule["resources"] for rule in role["rules"]] == [["secrets"], ["configmaps"]]
    nothing = MergePatch({"spec": {"secretNames": [], "configMapNames": None}})
    await world.api.patch(WORKERPOOLS, world.namespace, "p", nothing)
    for resource in (ROLES, ROLEBINDINGS):
        await world.gone("taskmaster-worker-p", resource=resource)


@pytest.fixture(scope="module")
def frugal_rights(helm: Path) -> list[Object]:
    """The rights of another release, with valueFrom.enabled=false."""
    command = [
        str(helm),
        "template",
        "frugal",
        str(REPOSITORY / "charts/taskmaster"),
        f"--namespace={SYSTEM_NAMESPACE}",
    ]
    options = ["--set=valueFrom.enabled=false", "--set=fullnameOverride=frugal", "--set=admissionPolicy.enabled=false"]
    rendered = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=True).stdout
    objects = [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in INSTALLED_KINDS]
    return [each for each in objects if "helm.sh/hook" not in str(each["metadata"])]


@pytest.fixture
async def frugal(world: World, frugal_rights: list[Object]) -> dict[str, str]:
    """The environment of that release's operator."""
    for each in frugal_rights:
        resource = INSTALLED_KINDS[each["kind"]]
        where = each["metadata"].get("namespace", SYSTEM_NAMESPACE) if resource.namespaced else None
        await world.api.patch(resource, where, each["metadata"]["name"], ApplyPatch(each, "tests"))
    return {
        "KUBECONFIG": str(await world.account_kubeconfig(SYSTEM_NAMESPACE, "frugal-operator")),
        "TASKMASTER_WORKER_CLUSTERROLE": "frugal-worker",
        "TASKMASTER_LEASE_NAME": "frugal-coordinator",
    }


async def test_an_operator_that_may_not_grant_says_so_at_the_pool(world: World, frugal: dict[str, str]) -> None:
    coordinator = await world.start_coordinator(**frugal)
    await pool(world, "p", secretNames=["token"])
    await pool(world, "plain")
    condition = (await settled(world, "p"))["status"]["conditions"][0]
    assert (condition["status"], condition["reason"]) == ("False", "ValueFromForbidden")
    assert "install the chart with valueFrom.enabled=true, or empty both lists" in condition["message"]
    assert ready_reason(await settled(world, "plain")) in ("WorkersReady", "WorkersStarting")
    await world.until("p-worker", lambda _: True, resource=DEPLOYMENTS)
    await world.api.patch(WORKERPOOLS, world.namespace, "p", MergePatch({"spec": {"secretNames": []}}))
    assert ready_reason(await settled(world, "p")) in ("WorkersReady", "WorkersStarting")
    assert coordinator.process.returncode is None


async def test_the_right_to_manage_roles_is_not_enough_to_grant(world: World, frugal: dict[str, str]) -> None:
    """What `valueFrom.enabled` also gives is needed: nobody grants what he may not do himself."""
    roles = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["get", "create", "patch"]}
    await give(world, "frugal-operator", [roles])
    await world.start_coordinator(**frugal)
    await pool(world, "p", secretNames=["token"])
    condition = (await settled(world, "p"))["status"]["conditions"][0]
    assert condition["reason"] == "ValueFromForbidden"
    assert "attempting to grant RBAC permissions not currently held" in condition["message"]


async def give(world: World, account: str, rules: list[Object]) -> None:
    metadata = {"name": account}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": SYSTEM_NAMESPACE}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
    role = {"apiVersion": ROLES.api_version, "kind": "Role", "metadata": metadata, "rules": rules}
    binding = {
        "apiVersion": ROLEBINDINGS.api_version,
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": reference,
        "subjects": [subject],
    }
    for resource, body in ((ROLES, role), (ROLEBINDINGS, binding)):
        await world.api.create(resource, world.namespace, body)
