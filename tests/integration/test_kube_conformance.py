"""The contract of an API server, on a real one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from uuid import uuid4

import pytest
from tests.conformance.api_contract import ApiContract
from tests.conformance.definition import task_definition

from localcluster.controlplane import ControlPlane
from taskmaster.kube.api import Api, ApplyPatch
from taskmaster.kube.client import Client
from taskmaster.kube.credentials import load_credentials
from taskmaster.kube.errors import NotFound, TooManyRequests
from taskmaster.kube.resource import CRDS, NAMESPACES, TASKS


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane(tmp_path_factory.mktemp("plane"), controller_manager=False) as plane:
        asyncio.run(install(plane))
        yield plane


async def install(plane: ControlPlane) -> None:
    definition = task_definition()
    async with Client(load_credentials(plane.kubeconfig), component="tests") as client, asyncio.timeout(30):
        name = definition["metadata"]["name"]
        await client.patch(CRDS, None, name, ApplyPatch(definition, "tests"))
        while True:
            # Served a little after it is Established: 404 first, then 429 while its storage starts.
            with suppress(NotFound, TooManyRequests):
                await client.list(TASKS)
                return
            await asyncio.sleep(0.05)


@pytest.fixture
async def api(plane: ControlPlane) -> AsyncIterator[Api]:
    async with Client(load_credentials(plane.kubeconfig), component="tests") as client:
        yield client


@pytest.fixture
async def namespace(api: Api) -> str:
    name = f"contract-{uuid4().hex[:8]}"
    await api.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


class TestRealServer(ApiContract):
    pass
