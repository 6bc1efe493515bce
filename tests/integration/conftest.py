"""One control plane for the whole tier, with the CRDs and the chart's rights installed; a namespace for each test."""

import asyncio
import itertools
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from tests.integration.harness import SYSTEM_NAMESPACE, World, opened_world

from localcluster import tools
from localcluster.controlplane import ControlPlane
from taskmaster.api.crd import all_crds
from taskmaster.kube.api import ApplyPatch
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import load_credentials
from taskmaster.kube.errors import ApiError
from taskmaster.kube.resource import CRDS, NAMESPACES, TASKS, WORKERPOOLS, Resource

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLED_KINDS = {
    "ServiceAccount": Resource("", "v1", "serviceaccounts", "ServiceAccount"),
    "ClusterRole": Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    "ClusterRoleBinding": Resource(
        "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
    ),
    "Role": Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    "RoleBinding": Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    "ValidatingAdmissionPolicy": Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        namespaced=False,
    ),
    "ValidatingAdmissionPolicyBinding": Resource(
        "admissionregistration.k8s.io",
        "v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        namespaced=False,
    ),
}

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def helm() -> Path:
    return tools.build(["helm"]) / "helm"


@pytest.fixture(scope="session")
def kubectl() -> Path:
    return tools.build(["kubectl"]) / "kubectl"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory, helm: Path) -> Iterator[ControlPlane]:
    rendered = subprocess.run(
        [helm, "template", "taskmaster", REPOSITORY / "charts/taskmaster", "--namespace", SYSTEM_NAMESPACE],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    objects = [each for each in yaml.safe_load_all(rendered) if each and each["kind"] in INSTALLED_KINDS]
    with ControlPlane(tmp_path_factory.mktemp("plane")) as plane:
        asyncio.run(install(plane, [each for each in objects if "helm.sh/hook" not in str(each["metadata"])]))
        yield plane


async def install(plane: ControlPlane, objects: list[dict]) -> None:  # type: ignore[type-arg]
    async with Client(load_credentials(plane.kubeconfig), component="tests") as api, asyncio.timeout(60):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM_NAMESPACE}}
        await api.create(NAMESPACES, None, namespace)
        for crd in all_crds():
            await api.patch(CRDS, None, crd["metadata"]["name"], ApplyPatch(crd, "tests"))
        for each in objects:
            resource = INSTALLED_KINDS[each["kind"]]
            where = each["metadata"].get("namespace", SYSTEM_NAMESPACE) if resource.namespaced else None
            await api.patch(resource, where, each["metadata"]["name"], ApplyPatch(each, "tests"))
        for resource in (TASKS, WORKERPOOLS):
            await until_served(api, resource)


async def until_served(api: Client, resource: Resource) -> None:
    """Return when a resource of a new CRD answers; the server offers nothing to wait on but asking again."""
    while True:
        try:
            await api.list(resource, limit=1)
            return
        except ApiError:
            await asyncio.sleep(0.1)


@pytest.fixture
async def world(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    async with opened_world(control_plane, f"test-{next(_numbers)}", tmp_path) as world:
        yield world
