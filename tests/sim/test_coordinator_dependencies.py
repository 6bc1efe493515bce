"""Tasks start when those that they depend on have ended as asked for, and a graph costs nothing per edge."""

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest
from tests.sim.coordinator_rig import COMPLETED, Cluster, Coordinator, Worker
from tests.sim.memory_api import Fault

from taskmaster.core.reason import EndReason
from taskmaster.core.retry import AttemptEnd, Outcome
from taskmaster.kube.errors import Unanswered

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def submit(cluster: Cluster, name: str, *parents: str) -> None:
    cluster.submit(name, dependsOn=[{"name": parent} for parent in parents], retry={"limit": 0})


async def test_graph_runs_in_order_at_three_writes_per_task_and_a_deletion(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", slots=20, work=lambda name: 0.2)
    layers = [[f"t{layer}-{number}" for number in range(10)] for layer in range(6)]
    parents = {name: above for above, layer in zip([[], *layers], layers, strict=False) for name in layer}
    async with Coordinator(cluster).leading():
        for name in Random(1).sample(sorted(parents), len(parents)):
            submit(cluster, name, *parents[name])
        await asyncio.sleep(20)
    assert set(cluster.phases().values()) == {"Succeeded"}
    assert [name[:2] for name, _, _ in worker.started] == [f"t{layer}" for layer in range(6) for _ in range(10)]
    assert {name: cluster.writes_to(name) for name in parents} == dict.fromkeys(parents, 3)


async def test_what_depends_on_a_failed_task_is_skipped_by_one_write_each_and_the_rest_runs(cluster: Cluster) -> None:
    failure = AttemptEnd(Outcome.FAILED, EndReason.EXIT_CODE, exit_code=1)
    Worker(cluster, "w", work=lambda name: 0.2, end=lambda name: failure if name == "bad" else COMPLETED)
    async with Coordinator(cluster).leading():
        submit(cluster, "end", "left", "right")
        submit(cluster, "left", "bad")
        submit(cluster, "right", "good")
        submit(cluster, "bad")
        submit(cluster, "good")
        await asyncio.sleep(5)
    assert cluster.phases() == {
        "good": "Succeeded", "right": "Succeeded", "bad": "Failed", "left": "Skipped", "end": "Skipped",
    }  # fmt: skip
    assert [cluster.writes_to(name) for name in ("left", "end")] == [2, 2]
    assert {cluster.status(name)["reason"] for name in ("left", "end")} == {"DependencyFailed"}
    message = 'needs "left" to have succeeded, but it was Skipped because "bad" has Failed'
    assert cluster.status("end")["message"] == message


async def test_graph_that_is_asked_to_run_again_from_its_beginning_on_is_not_skipped_again(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("a", suspend=True)
        for name, parent in ("ba", "cb", "dc"):
            submit(cluster, name, parent)
        await asyncio.sleep(1)
        cluster.edit("a", cancel=True)
        await asyncio.sleep(1)
        assert cluster.phases() == {"a": "Cancelled", "b": "Skipped", "c": "Skipped", "d": "Skipped"}
        for name in "abcd":
            cluster.edit(name, cancel=False, suspend=False, retryRequest="again")
        await asyncio.sleep(1)
        Worker(cluster, "w", work=lambda name: 0.2)
        await asyncio.sleep(10)
        assert cluster.phases() == dict.fromkeys("abcd", "Succeeded")


@pytest.mark.parametrize("remedy", ["parent-runs-again", "edit"])
async def test_child_is_not_skipped_for_what_is_no_longer_so_when_the_write_gets_through(
    cluster: Cluster, remedy: str
) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("parent", suspend=True)
        submit(cluster, "child", "parent")
        await asyncio.sleep(1)
        coordinator.faults = lambda call: Fault(before=Unanswered("x")) if call.name == "child" else None
        cluster.edit("parent", cancel=True)
        await asyncio.sleep(1)
        assert cluster.phases() == {"parent": "Cancelled", "child": "Pending"}
        if remedy == "edit":
            cluster.edit("child", dependsOn=[{"name": "another"}])
        else:
            cluster.edit("parent", cancel=False, retryRequest="again")
        await asyncio.sleep(1)
        coordinator.faults = lambda call: None
        await asyncio.sleep(10)
        assert cluster.phases()["child"] == "Pending"


async def test_cycle_is_named_and_its_tasks_run_when_it_is_opened(cluster: Cluster) -> None:
    Worker(cluster, "w", work=lambda name: 0.2)
    async with Coordinator(cluster).leading():
        for name, parent in ("ab", "bc", "ca"):
            submit(cluster, name, parent)
        submit(cluster, "outside", "a")
        await asyncio.sleep(1)
        assert cluster.status("c")["reason"] == "DependencyCycle", "the one that closed it is told at once"
        await asyncio.sleep(7)
        for name in "abc":
            assert cluster.status(name)["reason"] == "DependencyCycle"
            assert cluster.status(name)["message"].startswith("depends on itself: a -> b -> c -> a;")
        assert cluster.status("outside").get("reason", "") == ""
        cluster.edit("c", dependsOn=[])
        await asyncio.sleep(5)
        assert set(cluster.phases().values()) == {"Succeeded"}
