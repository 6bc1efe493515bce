"""Finished Tasks are deleted when their time is over, never one that is needed or has changed since it was judged."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.sim.coordinator_rig import Cluster, Coordinator, Worker, fail_once
from tests.sim.memory_api import Call, Fault, lost_answer

from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import ServerError, Unanswered
from taskmaster.kube.resource import TASKS

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def deletes(call: Call) -> bool:
    return call.verb == "delete"


async def finished(cluster: Cluster, name: str = "t", **spec: object) -> None:
    """A Task that ends half a second from now."""
    Worker(cluster, "w", work=lambda name: 0.4)
    await asyncio.sleep(0.1)
    cluster.submit(name, **spec)
    await asyncio.sleep(0.45)
    assert cluster.status(name)["phase"] == "Succeeded"


@pytest.mark.parametrize(("spec", "kept"), [({"ttlSecondsAfterFinished": 30}, 30), ({}, 3600)])
async def test_finished_task_is_deleted_when_its_time_is_over(
    cluster: Cluster, spec: dict[str, Any], kept: int
) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        await finished(cluster, **spec)
        await asyncio.sleep(kept - 0.2)
        assert "t" in cluster.phases()
        await asyncio.sleep(0.5)
        assert cluster.phases() == {}
        assert len(coordinator.sent("delete", "tasks")) == 1


async def test_ttl_of_nothing_deletes_at_once(cluster: Cluster) -> None:
    Worker(cluster, "w", work=lambda name: 0.1)
    async with Coordinator(cluster).leading():
        cluster.submit("t", ttlSecondsAfterFinished=0)
        await asyncio.sleep(0.2)
        assert cluster.phases() == {}


async def test_unfinished_tasks_are_left_alone(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    async with coordinator.leading():
        cluster.submit("running", ttlSecondsAfterFinished=0)
        cluster.submit("waiting", ttlSecondsAfterFinished=0)
        await asyncio.sleep(1_000)
        assert cluster.phases() == {"running": "Running", "waiting": "Pending"}
        assert coordinator.sent("delete", "tasks") == []


async def test_those_that_expired_before_we_led_are_deleted(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        await finished(cluster, ttlSecondsAfterFinished=100)
    await asyncio.sleep(500)
    async with Coordinator(cluster).leading():
        await asyncio.sleep(6)
        assert cluster.phases() == {}


async def test_longer_ttl_takes_effect_before_the_deletion(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        await finished(cluster, ttlSecondsAfterFinished=30)
        cluster.edit("t", ttlSecondsAfterFinished=60)
        await asyncio.sleep(50)
        assert "t" in cluster.phases()
        await asyncio.sleep(15)
        assert cluster.phases() == {}


async def test_shorter_ttl_takes_effect_at_once(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        await finished(cluster, ttlSecondsAfterFinished=1000)
        cluster.edit("t", ttlSecondsAfterFinished=1)
        await asyncio.sleep(2)
        assert cluster.phases() == {}


async def test_longer_ttl_that_crosses_the_deletion_saves_the_task(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    coordinator.faults = fail_once(deletes, Fault(delay=0.5))
    async with coordinator.leading():
        await finished(cluster, ttlSecondsAfterFinished=10)
        await asyncio.sleep(10.1)
        assert len(coordinator.sent("delete", "tasks")) == 1
        cluster.edit("t", ttlSecondsAfterFinished=100)
        await asyncio.sleep(50)
        assert "t" in cluster.phases()
        await asyncio.sleep(60)
        assert cluster.phases() == {}


async def test_namesake_of_a_deleted_task_is_not_deleted(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    coordinator.faults = fail_once(deletes, Fault(delay=0.5))
    async with coordinator.leading():
        await finished(cluster, ttlSecondsAfterFinished=10)
        await asyncio.sleep(10.1)
        cluster.delete("t")
        uid = cluster.submit("t", ttlSecondsAfterFinished=1000)["metadata"]["uid"]
        await asyncio.sleep(100)
        assert cluster.task("t")["metadata"]["uid"] == uid


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(before=ServerError("etcd")), id="5xx"),
        pytest.param(Fault(before=Unanswered("refused")), id="unanswered"),
        pytest.param(lost_answer(), id="deleted-but-unanswered"),
    ],
)
async def test_deletion_that_failed_is_tried_again(cluster: Cluster, fault: Fault) -> None:
    coordinator = Coordinator(cluster)
    coordinator.faults = fail_once(deletes, fault)
    async with coordinator.leading():
        await finished(cluster, ttlSecondsAfterFinished=10)
        await asyncio.sleep(20)
        assert cluster.phases() == {}
        await asyncio.sleep(60)
        assert len(coordinator.sent("delete", "tasks")) <= 2


async def test_edit_of_an_expired_task_whose_deletion_waits_does_not_save_it_for_ever(cluster: Cluster) -> None:
    """The answer to the edit and the deletion are writes to one object: the newer replaces the waiting one."""
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        await finished(cluster, ttlSecondsAfterFinished=10)
        coordinator.faults = lambda call: Fault(delay=1, before=Unanswered("slow")) if call.name == "t" else None
        await asyncio.sleep(9.4)
        for number in range(20):
            cluster.edit("t", priority=number)
            await asyncio.sleep(0.3)
        coordinator.faults = lambda call: None
        await asyncio.sleep(20)
        assert cluster.phases() == {}


async def test_many_expiring_at_once_are_all_deleted(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster, latency=0.01)
    Worker(cluster, "w", slots=700, work=lambda name: 1)
    async with coordinator.leading():
        for number in range(600):
            cluster.submit(f"t{number}", ttlSecondsAfterFinished=20)
        await asyncio.sleep(15)
        most = 0
        for _ in range(200):
            await asyncio.sleep(0.05)
            most = max(most, coordinator.cleaner.waiting)
        await asyncio.sleep(5)
        assert cluster.phases() == {}
        assert most <= 256
        assert cluster.server.writes["delete", "tasks"] == 600


def needing(*names: str) -> dict[str, Any]:
    return {"dependsOn": [{"name": name} for name in names], "ttlSecondsAfterFinished": 1_000}


def delete_it(cluster: Cluster) -> None:
    cluster.delete("child")


def cancel_it(cluster: Cluster) -> None:
    cluster.edit("child", cancel=True)


def let_it_need_others(cluster: Cluster) -> None:
    cluster.edit("child", **needing("later"))


def let_it_run(cluster: Cluster) -> None:
    cluster.submit("later", ttlSecondsAfterFinished=1_000)


@pytest.mark.parametrize("release", [delete_it, cancel_it, let_it_need_others, let_it_run])
async def test_finished_task_outlives_its_time_while_an_unfinished_one_depends_on_it(
    cluster: Cluster, release: Callable[[Cluster], None]
) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("child", **needing("t", "later"))
        await finished(cluster, ttlSecondsAfterFinished=10)
        await asyncio.sleep(500)
        assert "t" in cluster.phases()
        assert coordinator.sent("delete", "tasks") == []
        release(cluster)
        await asyncio.sleep(1.5)
        assert "t" not in cluster.phases()
        assert len(coordinator.sent("delete", "tasks")) == 1


async def test_needed_task_is_kept_by_who_began_to_lead_later(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("child", **needing("t", "later"))
        await finished(cluster, ttlSecondsAfterFinished=10)
    await asyncio.sleep(500)
    async with Coordinator(cluster).leading():
        await asyncio.sleep(500)
        assert "t" in cluster.phases()
        cluster.delete("child")
        await asyncio.sleep(0.5)
        assert cluster.phases() == {}


async def test_task_that_is_no_longer_needed_lives_as_long_as_any(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("child", **needing("t", "later"))
        await finished(cluster, ttlSecondsAfterFinished=30)
        cluster.delete("child")
        await asyncio.sleep(29)
        assert "t" in cluster.phases()
        await asyncio.sleep(1)
        assert cluster.phases() == {}


async def test_task_is_kept_until_the_last_that_needs_it_has_ended(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        for number in range(3):
            cluster.submit(f"child-{number}", **needing("t", "later"))
        await finished(cluster, ttlSecondsAfterFinished=10)
        await asyncio.sleep(50)
        for number in range(3):
            assert "t" in cluster.phases()
            cluster.delete(f"child-{number}")
            await asyncio.sleep(50)
        assert cluster.phases() == {}
        assert len(coordinator.sent("delete", "tasks")) == 1


async def test_task_that_failed_is_kept_while_what_it_makes_moot_is_not_ended(cluster: Cluster) -> None:
    """Each is Skipped because of the one before it; nothing is lost on the way."""
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t0", ttlSecondsAfterFinished=0, suspend=True)
        for number in range(1, 6):
            cluster.submit(f"t{number}", **needing(f"t{number - 1}"))
        await asyncio.sleep(1)
        cluster.edit("t0", cancel=True)
        await asyncio.sleep(1)
        assert cluster.phases() == {f"t{number}": "Skipped" for number in range(1, 6)}
        assert cluster.status("t5")["message"] == (
            'needs "t4" to have succeeded, but it was Skipped because "t0" was Cancelled'
        )


async def test_sleeping_until_the_next_expiry_costs_nothing(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        await finished(cluster)
        await asyncio.sleep(1)
        steps = 0
        original = coordinator.ttl.step

        def counted() -> float | None:
            nonlocal steps
            steps += 1
            return original()

        coordinator.ttl.step = counted  # type: ignore[method-assign]
        await asyncio.sleep(3000)
        assert steps == 0
        cluster.server.patch(TASKS, "team-a", "t", MergePatch({"metadata": {"labels": {"a": "b"}}}))
        await asyncio.sleep(1)
        assert steps == 1
