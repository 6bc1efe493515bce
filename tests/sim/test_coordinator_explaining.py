"""People are told why a Task waits and that their edits were seen, at a price that is bounded."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.sim.coordinator_rig import Cluster, Coordinator, Worker, fail_once, seconds, status_write, written
from tests.sim.memory_api import Call, Fault, lost_answer

from taskmaster.coordinator.explainer import MAX_WAITING
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import ServerError, Unanswered
from taskmaster.kube.resource import TASKS

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def explains(call: Call) -> bool:
    return status_write(call) and written(call).get("reason") in ("NoFreeSlot", "NoMatchingWorker", "QueueNotFound")


def answers(call: Call) -> bool:
    return status_write(call) and set(written(call)) == {"observedGeneration"}


def reasons(coordinator: Coordinator) -> list[str]:
    return [written(call)["reason"] for call in coordinator.sent("patch", "tasks") if explains(call)]


def reason(cluster: Cluster, name: str = "t") -> str:
    return str(cluster.status(name).get("reason", ""))


def observed(cluster: Cluster, name: str = "t") -> int | None:
    found = cluster.status(name).get("observedGeneration")
    return None if found is None else int(found)


async def test_unknown_queue_is_named_at_once_and_once(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w")
    async with coordinator.leading():
        cluster.submit("t", queue="media")
        await asyncio.sleep(0.1)
        status = cluster.status("t")
        assert (status["phase"], status["reason"]) == ("Pending", "QueueNotFound")
        assert '"media"' in status["message"]
        await asyncio.sleep(300)
        assert reasons(coordinator) == ["QueueNotFound"]
        assert cluster.status("t")["phase"] == "Pending"


async def test_other_unknown_queue_is_named_when_the_task_moves_there(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t", queue="media")
        await asyncio.sleep(0.1)
        cluster.edit("t", queue="movies")
        await asyncio.sleep(0.1)
        assert '"movies"' in cluster.status("t")["message"]
        assert observed(cluster) == 2
        assert reasons(coordinator) == ["QueueNotFound", "QueueNotFound"]


async def test_task_that_leaves_the_default_queue_is_no_longer_said_to_wait_for_a_slot(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    async with coordinator.leading():
        cluster.submit("blocker")
        await asyncio.sleep(1)
        cluster.submit("t")
        await asyncio.sleep(1)
        cluster.edit("t", queue="media")
        await asyncio.sleep(200)
        assert reasons(coordinator) == ["QueueNotFound"]


async def test_task_that_comes_to_the_default_queue_runs(cluster: Cluster) -> None:
    Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t", queue="media")
        await asyncio.sleep(1)
        cluster.edit("t", queue="default")
        await asyncio.sleep(0.5)
        assert (cluster.status("t")["phase"], reason(cluster), cluster.status("t")["message"]) == ("Assigned", "", "")


async def test_missing_workers_are_said_after_a_few_seconds(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(4.9)
        assert reason(cluster) == ""
        await asyncio.sleep(2)
        assert reason(cluster) == "NoMatchingWorker"
        assert "team-a" in cluster.status("t")["message"]
        await asyncio.sleep(300)
        assert reasons(coordinator) == ["NoMatchingWorker"]
        Worker(cluster, "w")
        await asyncio.sleep(0.5)
        assert (cluster.status("t")["phase"], reason(cluster)) == ("Assigned", "")


async def test_full_workers_are_said_after_thirty_seconds_and_once(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    async with coordinator.leading():
        cluster.submit("blocker")
        await asyncio.sleep(1)
        cluster.submit("t")
        await asyncio.sleep(29.9)
        assert reason(cluster) == ""
        await asyncio.sleep(10)
        assert reason(cluster) == "NoFreeSlot"
        assert "0/1 workers fit: 1 busy" in cluster.status("t")["message"]
        await asyncio.sleep(600)
        assert reasons(coordinator) == ["NoFreeSlot"]


async def test_reason_follows_when_it_changes(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w", slots=1)
    async with coordinator.leading():
        cluster.submit("blocker")
        await asyncio.sleep(1)
        cluster.submit("t")
        await asyncio.sleep(50)
        worker.set_pod(conditions=[{"type": "DisruptionTarget", "status": "True"}])
        await asyncio.sleep(40)
        assert reasons(coordinator) == ["NoFreeSlot", "NoMatchingWorker"]


async def test_short_waits_are_not_explained(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1, work=lambda name: 4)
    async with coordinator.leading():
        for number in range(7):
            cluster.submit(f"t{number}")
        await asyncio.sleep(60)
    assert set(cluster.phases().values()) == {"Succeeded"}
    assert reasons(coordinator) == []
    assert {cluster.writes_to(f"t{number}") for number in range(7)} == {4}, "create, assign, start, finish"


async def test_wait_is_counted_from_the_end_of_a_backoff(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    async with coordinator.leading():
        cluster.submit("blocker")
        await asyncio.sleep(1)
        cluster.submit("t")
        status = {"attempt": 1, "reason": "BackingOff", "notBeforeTime": seconds(200)}
        cluster.server.patch(TASKS, "team-a", "t", MergePatch({"status": status}), subresource="status")
        await asyncio.sleep(225)
        assert reason(cluster) == "BackingOff"
        await asyncio.sleep(40)
        assert reason(cluster) == "NoFreeSlot"
        assert reasons(coordinator) == ["NoFreeSlot"]


async def test_oldest_waits_are_explained_first_and_the_budget_bounds_them(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        for number in range(300):
            cluster.submit(f"t{number:03}")
            await asyncio.sleep(0.01)
        await asyncio.sleep(15)
        told = [call.name for call in coordinator.sent("patch", "tasks") if explains(call)]
        assert 50 <= len(told) <= 60, "the first allowance, and no more"
        assert told == sorted(told)


async def test_stuck_system_explains_all_waits_in_time(cluster: Cluster) -> None:
    """Nothing but explanations is written, so there is no work for them to slow down."""
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        for number in range(300):
            cluster.submit(f"t{number}")
        await asyncio.sleep(30 + 250 / 2 + 30)
        assert len(reasons(coordinator)) == 300


async def test_explanations_take_a_twentieth_of_the_writes_of_a_busy_system(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=15, work=lambda name: 1)
    async with coordinator.leading():
        for number in range(1200):
            cluster.submit(f"t{number}")
        await asyncio.sleep(70)
        explained = len(reasons(coordinator))
        others = cluster.server.writes["patch", "tasks/status"] - explained
        assert others > 2000
        assert 50 < explained <= 50 + 0.06 * others


Setup = Callable[[Cluster], Any]


async def edited_in(cluster: Cluster, phase: str) -> int:
    """Bring the Task `t` into a phase, edit it there, and return the generation of the edit."""
    if phase != "Pending":
        Worker(cluster, "w", work=lambda name: 0.5 if phase == "Succeeded" else None)
    await asyncio.sleep(0.1)
    cluster.submit("t")
    await asyncio.sleep({"Running": 2, "Succeeded": 1}.get(phase, 0.1))
    assert cluster.status("t")["phase"] == phase
    return int(cluster.edit("t", priority=7)["metadata"]["generation"])


PHASES = pytest.mark.parametrize("phase", ["Pending", "Assigned", "Running", "Succeeded"])


@PHASES
async def test_edit_is_answered_at_once_and_by_one_write(cluster: Cluster, phase: str) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        generation = await edited_in(cluster, phase)
        await asyncio.sleep(0.1)
        assert (cluster.status("t")["phase"], observed(cluster)) == (phase, generation)
        await asyncio.sleep(100)
        assert len([call for call in coordinator.sent("patch", "tasks") if answers(call)]) == 1


@PHASES
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lost_answer(), id="applied"),
        pytest.param(Fault(before=Unanswered("refused")), id="not-applied"),
        pytest.param(Fault(before=ServerError("etcd")), id="5xx"),
    ],
)
async def test_edit_is_answered_although_the_answer_to_the_write_is_lost(
    cluster: Cluster, phase: str, fault: Fault
) -> None:
    coordinator = Coordinator(cluster)
    coordinator.faults = fail_once(answers, fault)
    async with coordinator.leading():
        generation = await edited_in(cluster, phase)
        await asyncio.sleep(5)
        assert observed(cluster) == generation


async def test_edit_that_overtakes_the_answer_to_an_earlier_one_is_answered(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    coordinator.faults = fail_once(answers, Fault(delay=0.5))
    async with coordinator.leading():
        await edited_in(cluster, "Running")
        await asyncio.sleep(0.2)
        generation = cluster.edit("t", priority=8)["metadata"]["generation"]
        await asyncio.sleep(2)
        assert observed(cluster) == generation == 3


async def test_edit_made_while_nobody_led_is_answered(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        Worker(cluster, "w", work=lambda name: 0.1)
        await asyncio.sleep(0.1)
        cluster.submit("t")
        await asyncio.sleep(1)
    cluster.edit("t", priority=3)
    async with Coordinator(cluster).leading():
        await asyncio.sleep(0.1)
        assert observed(cluster) == 2


async def test_task_that_nobody_edits_costs_no_answer(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", work=lambda name: 0.1)
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(5)
        assert [call for call in coordinator.sent("patch", "tasks") if answers(call)] == []
        assert observed(cluster) == 1


async def test_nothing_is_kept_about_tasks_that_are_gone(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        for name in ("a", "b"):
            cluster.submit(name)
        await asyncio.sleep(10)
        cluster.delete("a")
        Worker(cluster, "w")
        await asyncio.sleep(1)
        assert coordinator.explainer._since == {}
        assert len(coordinator.explainer._due) == 0


async def test_a_task_that_has_to_run_alone_says_so(cluster: Cluster) -> None:
    Worker(cluster, "w", slots=9)
    async with Coordinator(cluster).leading():
        cluster.submit("other")
        await asyncio.sleep(1)
        created = cluster.submit("t", suspend=True)
        deaths = MergePatch({"status": {"runnerDeaths": 2}})
        cluster.server.patch(TASKS, created["metadata"]["namespace"], "t", deaths, subresource="status")
        cluster.edit("t", suspend=False)
        await asyncio.sleep(40)
        assert reason(cluster) == "NoFreeSlot"
        assert "died under this Task 2 times in a row" in cluster.status("t")["message"]


async def test_a_backlog_that_nobody_can_run_is_explained_without_a_pile_of_writes(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    for number in range(1_000):
        cluster.submit(f"t{number}", queue="media")
    most = 0
    async with coordinator.leading():
        for _ in range(100):
            await asyncio.sleep(0.1)
            most = max(most, coordinator.cleaner.waiting)
    assert most <= MAX_WAITING
    assert {cluster.status(f"t{number}").get("reason") for number in range(1_000)} == {"QueueNotFound"}
    assert len(reasons(coordinator)) == 1_000
