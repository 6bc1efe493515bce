"""The operator does not work against CRDs that are older than it needs, and never makes newer ones older."""

import asyncio
from pathlib import Path

import pytest
from tests.sim.memory_api import Fault, MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.api import names
from taskmaster.api.crd import all_crds, files
from taskmaster.coordinator import crds
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import Forbidden, Unanswered
from taskmaster.kube.resource import CRDS

pytestmark = pytest.mark.looptime


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


def install(server: MemoryServer, *, revision: str | None = None) -> None:
    for crd in all_crds():
        server.create(CRDS, None, crd)
        if revision is not None:
            annotate(server, crd["metadata"]["name"], revision)


def annotate(server: MemoryServer, name: str, revision: str | None) -> None:
    annotations = {names.SCHEMA_REVISION_ANNOTATION: revision}
    server.patch(CRDS, None, name, MergePatch({"metadata": {"annotations": annotations}}))


async def test_installed_crds_of_our_revision_will_do(server: MemoryServer) -> None:
    install(server)
    assert await crds.trouble(MemoryApi(server)) == ""


async def test_newer_crds_will_do(server: MemoryServer) -> None:
    install(server, revision=str(names.SCHEMA_REVISION + 1))
    assert await crds.trouble(MemoryApi(server)) == ""


@pytest.mark.parametrize("revision", ["0", None, "latest"])
async def test_older_crd_is_named_with_the_command_that_mends_it(server: MemoryServer, revision: str | None) -> None:
    install(server)
    annotate(server, "workerpools.taskmaster.dev", revision)
    problem = await crds.trouble(MemoryApi(server))
    assert "workerpools.taskmaster.dev" in problem
    assert "kubectl apply --server-side" in problem


async def test_missing_crd_is_named(server: MemoryServer) -> None:
    problem = await crds.trouble(MemoryApi(server))
    assert "tasks.taskmaster.dev is not installed" in problem


async def test_not_being_allowed_to_look_is_no_trouble(server: MemoryServer) -> None:
    assert await crds.trouble(MemoryApi(server, faults=lambda call: Fault(before=Forbidden("no")))) == ""


async def test_no_answer_is_not_taken_for_one(server: MemoryServer) -> None:
    with pytest.raises(Unanswered):
        await crds.trouble(MemoryApi(server, faults=lambda call: Fault(before=Unanswered("reset"))))


async def test_packaged_crds_are_installed_upgraded_and_never_made_older(server: MemoryServer, tmp_path: Path) -> None:
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    packaged = crds.read(tmp_path)
    api = MemoryApi(server)
    ours = [crd["metadata"]["name"] for crd in packaged]
    assert sorted(ours) == sorted(f"{plural}.taskmaster.dev" for plural in crds.PLURALS)
    assert await crds.apply(api, packaged) == ours
    assert await crds.trouble(api) == ""
    annotate(server, "tasks.taskmaster.dev", "0")
    annotate(server, "workerpools.taskmaster.dev", "99")
    assert await crds.apply(api, packaged) == [name for name in ours if name != "workerpools.taskmaster.dev"]
    assert await crds.trouble(api) == ""
    newer = server.read(CRDS, None, "workerpools.taskmaster.dev")
    assert newer["metadata"]["annotations"][names.SCHEMA_REVISION_ANNOTATION] == "99"


async def test_waiting_reports_the_problem_until_somebody_mends_it(server: MemoryServer) -> None:
    said: list[str] = []
    api = MemoryApi(server, faults=lambda call: None if said else Fault(before=Unanswered("reset")))
    waiting = asyncio.create_task(crds.wait(api, said.append))
    await asyncio.sleep(6)
    assert "cannot read the CRDs" in said[0]
    assert "not installed" in said[1]
    install(server)
    await asyncio.sleep(6)
    assert waiting.done()
    assert said[-1] == ""
