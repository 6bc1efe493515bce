"""What people ask of a Task that no worker holds is answered at once, by one write, and survives every accident."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.builders import NAMESPACE
from tests.sim.coordinator_rig import Cluster, Coordinator, Worker, fail_once, seconds, status_write
from tests.sim.memory_api import Fault, lost_answer

from taskmaster.core.reason import EndReason
from taskmaster.core.retry import AttemptEnd, Outcome
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import ServerError, Unanswered
from taskmaster.kube.resource import TASKS

pytestmark = pytest.mark.looptime

MOMENT = 0.05
"""Long enough for a delta and a write."""


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def conditions(cluster: Cluster, name: str) -> dict[str, str]:
    return {one["type"]: one["status"] for one in cluster.status(name).get("conditions", [])}


async def test_a_waiting_task_is_cancelled_at_once_by_one_write(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("t")
        await asyncio.sleep(MOMENT)
        cluster.edit("t", cancel=True)
        await asyncio.sleep(MOMENT)
        status = cluster.status("t")
        assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
        assert status["message"] == "cancelled before its first attempt"
        assert status["observedGeneration"] == 2
        assert conditions(cluster, "t") == {"Scheduled": "False", "Succeeded": "False", "Finished": "True"}
        assert cluster.writes_to("t") == 3  # create, edit, answer


async def test_a_task_that_backs_off_is_cancelled_without_another_attempt(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", work=lambda name: 0.1, end=lambda name: AttemptEnd(Outcome.FAILED, EndReason.ERROR))
    async with Coordinator(cluster).leading():
        cluster.submit("t", retry={"backoff": {"initialSeconds": 100, "jitter": "None"}})
        await asyncio.sleep(1)
        assert cluster.status("t")["reason"] == "BackingOff"
        cluster.edit("t", cancel=True)
        await asyncio.sleep(MOMENT)
        status = cluster.status("t")
        assert (status["phase"], status["message"]) == ("Cancelled", "cancelled while it waited for its next attempt")
        assert "notBeforeTime" not in status
        await asyncio.sleep(200)
        assert len(worker.started) == 1


async def test_a_task_created_cancelled_never_runs(cluster: Cluster) -> None:
    worker = Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t", cancel=True, retryRequest="as applied")
        await asyncio.sleep(1)
        assert cluster.phases() == {"t": "Cancelled"}
        assert worker.started == []


async def test_a_cancelled_task_on_a_lost_worker_is_cancelled_not_requeued(cluster: Cluster) -> None:
    worker = Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t")
        await asyncio.sleep(2)
        worker.stop()
        cluster.edit("t", cancel=True)
        await asyncio.sleep(MOMENT)
        assert cluster.phases() == {"t": "Running"}  # its worker's to answer
        worker.delete_pod()
        await asyncio.sleep(MOMENT)
        status = cluster.status("t")
        assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
        assert [(one["outcome"], one["attempt"]) for one in status["attempts"]] == [("Cancelled", 1)]
        assert "workerLosses" not in status


async def test_a_suspended_task_is_held_and_goes_on_when_it_is_resumed(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", work=lambda name: 0.1)
    async with Coordinator(cluster).leading():
        cluster.submit("t", suspend=True)
        await asyncio.sleep(100)
        status = cluster.status("t")
        assert (status["phase"], status["reason"], worker.started) == ("Pending", "Suspended", [])
        assert conditions(cluster, "t") == {"Suspended": "True"}
        assert cluster.writes_to("t") == 2  # nothing is repeated while it waits
        cluster.edit("t", suspend=False)
        await asyncio.sleep(MOMENT)
        assert cluster.status("t")["queuedTime"] == seconds(100.001)
        await asyncio.sleep(1)
        assert cluster.phases() == {"t": "Succeeded"}


async def test_a_task_that_its_worker_suspended_goes_on_at_no_cost(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", work=lambda name: None if len(worker.started) == 1 else 0.1)
    async with Coordinator(cluster).leading():
        cluster.submit("t", retry={"limit": 0, "interruptionLimit": 0, "workerLossLimit": 0})
        await asyncio.sleep(2)
        cluster.edit("t", suspend=True)
        worker.finish("t", AttemptEnd(Outcome.SUSPENDED, EndReason.SUSPENDED))
        await asyncio.sleep(100)
        assert (cluster.status("t")["phase"], cluster.status("t")["reason"]) == ("Pending", "Suspended")
        assert cluster.status("t")["observedGeneration"] == 2
        cluster.edit("t", suspend=False)
        await asyncio.sleep(1)
        status = cluster.status("t")
        assert (status["phase"], status["attempt"]) == ("Succeeded", 2)
        assert not {"failures", "interruptions", "workerLosses"} & status.keys()


async def test_time_in_suspension_does_not_count_towards_the_total(cluster: Cluster) -> None:
    worker = Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t", timeouts={"totalSeconds": 60})
        await asyncio.sleep(10)
        cluster.edit("t", suspend=True)
        worker.finish("t", AttemptEnd(Outcome.SUSPENDED, EndReason.SUSPENDED))
        await asyncio.sleep(500)
        assert cluster.phases() == {"t": "Pending"}
        worker.delete_pod()
        cluster.edit("t", suspend=False)
        await asyncio.sleep(45)
        assert cluster.phases() == {"t": "Pending"}
        await asyncio.sleep(10)
        status = cluster.status("t")
        assert (status["phase"], status["reason"], status["deadLettered"]) == ("Failed", "TimedOut", True)


async def failed(cluster: Cluster, **spec: Any) -> Worker:
    """A Task that failed, and a worker on which it would succeed now."""
    ends = [AttemptEnd(Outcome.FAILED, EndReason.ERROR)]
    worker = Worker(
        cluster,
        "w",
        work=lambda name: 0.1,
        end=lambda name: ends.pop() if ends else AttemptEnd(Outcome.SUCCEEDED, EndReason.COMPLETED),
    )
    await asyncio.sleep(MOMENT)
    cluster.submit("t", **{"retry": {"limit": 0}, **spec})
    await asyncio.sleep(1)
    assert cluster.phases() == {"t": "Failed"}
    assert cluster.status("t")["deadLettered"] is True
    return worker


@pytest.mark.parametrize(("request_", "kept"), [("1", True), ("fresh-1", False)])
async def test_a_finished_task_runs_again_with_fresh_budgets(cluster: Cluster, request_: str, kept: bool) -> None:
    async with Coordinator(cluster).leading():
        await failed(cluster)
        saved = {"checkpoint": {"attempt": 1, "time": seconds(0), "data": {"step": 7}}}
        cluster.server.patch(TASKS, NAMESPACE, "t", MergePatch({"status": saved}), subresource="status")
        cluster.edit("t", retryRequest=request_)
        await asyncio.sleep(MOMENT)
        status = cluster.status("t")
        assert status["phase"] == "Assigned"
        assert ("checkpoint" in status) is kept
        await asyncio.sleep(1)
        status = cluster.status("t")
        assert (status["phase"], status["runNumber"], status["attempt"]) == ("Succeeded", 2, 2)
        assert (status["observedRetryRequest"], status["deadLettered"]) == (request_, False)
        assert "failures" not in status
        assert [one["attempt"] for one in status["attempts"]] == [1, 2]


async def test_a_request_is_answered_once(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        await failed(cluster)
        cluster.edit("t", retryRequest="1")
        await asyncio.sleep(1)
        writes = cluster.writes_to("t")
        cluster.edit("t", retryRequest="")
        await asyncio.sleep(1)
        assert cluster.writes_to("t") == writes + 2  # the edit, and that it was seen
        cluster.edit("t", retryRequest="1")
        await asyncio.sleep(1)
        assert cluster.status("t")["runNumber"] == 2


async def test_a_request_that_a_task_was_created_with_asks_for_nothing(cluster: Cluster) -> None:
    Worker(cluster, "w", work=lambda name: 0.1)
    async with Coordinator(cluster).leading():
        cluster.submit("t", retryRequest="as applied")
        await asyncio.sleep(1)
        status = cluster.status("t")
        assert (status["phase"], status.get("runNumber", 1)) == ("Succeeded", 1)
        assert status["observedRetryRequest"] == "as applied"
        assert cluster.writes_to("t") == 3


async def test_a_cancelled_task_can_be_run_again(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("t")
        cluster.edit("t", cancel=True)
        await asyncio.sleep(MOMENT)
        assert cluster.phases() == {"t": "Cancelled"}
        cluster.edit("t", cancel=False, retryRequest="1")
        Worker(cluster, "w", work=lambda name: 0.1)
        await asyncio.sleep(1)
        assert cluster.phases() == {"t": "Succeeded"}


async def test_a_task_that_is_to_run_again_does_not_expire(cluster: Cluster) -> None:
    """The request may be older than the expiry and its answer late."""
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        await failed(cluster, ttlSecondsAfterFinished=10)
        coordinator.faults = lambda call: Fault(before=ServerError("boom")) if status_write(call) else None
        cluster.edit("t", retryRequest="1")
        await asyncio.sleep(20)
        assert cluster.phases() == {"t": "Failed"}
        coordinator.faults = lambda call: None
        await asyncio.sleep(2)
        assert cluster.status("t")["runNumber"] == 2


@pytest.mark.parametrize(
    "fault",
    [Fault(before=Unanswered("reset")), Fault(before=ServerError("boom")), lost_answer()],
    ids=["not-sent", "503", "lost-answer"],
)
async def test_an_answer_that_is_lost_is_given_again(cluster: Cluster, fault: Fault) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t", queue="none")
        await asyncio.sleep(MOMENT)
        coordinator.faults = fail_once(status_write, fault)
        cluster.edit("t", cancel=True)
        await asyncio.sleep(3)
        assert cluster.phases() == {"t": "Cancelled"}
        assert cluster.writes_to("t") == 4  # create, QueueNotFound, edit, Cancelled


async def test_requests_that_were_made_while_nobody_led_are_answered(cluster: Cluster) -> None:
    for name in ("cancelled", "held"):
        cluster.submit(name)
    cluster.edit("cancelled", cancel=True)
    cluster.edit("held", suspend=True)
    async with Coordinator(cluster).leading():
        await asyncio.sleep(MOMENT)
        assert cluster.phases() == {"cancelled": "Cancelled", "held": "Pending"}
        assert cluster.status("held")["reason"] == "Suspended"
