"""Tasks that wait for too long are given up, and a worker that lets one run for too long is not trusted with it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.builders import EPOCH
from tests.sim.coordinator_rig import Cluster, Coordinator, Worker, fail_once, status_write, written
from tests.sim.memory_api import Call, Fault

from taskmaster.api.times import from_wire
from taskmaster.coordinator.deadlines import MARGIN_SECONDS
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import AttemptEnd, Outcome
from taskmaster.kube.errors import Unanswered

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def ended_at(cluster: Cluster, name: str = "t") -> float:
    return from_wire(cluster.status(name)["completionTime"]) - EPOCH


async def test_a_task_that_waits_too_long_is_skipped(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("t", timeouts={"pendingSeconds": 60})
        await asyncio.sleep(59)
        assert cluster.phases() == {"t": "Pending"}
        await asyncio.sleep(2)
        status = cluster.status("t")
        assert (status["phase"], status["reason"]) == ("Skipped", "Expired")
        assert status["message"] == "waited longer than timeouts.pendingSeconds = 60 s"
        assert status.get("deadLettered", False) is False
        assert ended_at(cluster) == pytest.approx(60, abs=0.1)


async def test_only_waiting_counts_and_each_wait_anew(cluster: Cluster) -> None:
    """It runs for longer than it may wait, fails, backs off for longer than it may wait, and only then waits again."""
    worker = Worker(cluster, "w", work=lambda name: 100, end=lambda name: AttemptEnd(Outcome.FAILED, EndReason.ERROR))
    async with Coordinator(cluster).leading():
        backoff = {"initialSeconds": 80, "maxSeconds": 80, "jitter": "None"}
        cluster.submit("t", timeouts={"pendingSeconds": 50}, retry={"backoff": backoff})
        await asyncio.sleep(101)
        assert cluster.status("t")["reason"] == "BackingOff"
        worker.delete_pod()
        await asyncio.sleep(80 + 48)
        assert cluster.phases() == {"t": "Pending"}
        await asyncio.sleep(5)
        assert cluster.phases() == {"t": "Skipped"}
        assert ended_at(cluster) == pytest.approx(100 + 80 + 50, abs=0.5)


async def test_a_task_of_an_unknown_queue_expires_too(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("t", queue="nobody-made-it", timeouts={"pendingSeconds": 5})
        await asyncio.sleep(6)
        assert cluster.phases() == {"t": "Skipped"}


async def test_the_total_time_ends_a_task_between_attempts_as_a_dead_letter(cluster: Cluster) -> None:
    interrupted = AttemptEnd(Outcome.INTERRUPTED, EndReason.INTERRUPTED)
    worker = Worker(cluster, "w", work=lambda name: 10, end=lambda name: interrupted)
    async with Coordinator(cluster).leading():
        cluster.submit("t", timeouts={"totalSeconds": 60})
        await asyncio.sleep(5)
        deadline = cluster.status("t")["deadlineTime"]
        await asyncio.sleep(10)
        assert cluster.status("t")["deadlineTime"] == deadline  # of the run, not of the attempt
        worker.finish("t", interrupted)
        worker.delete_pod()
        await asyncio.sleep(50)
        status = cluster.status("t")
        assert (status["phase"], status["reason"], status["deadLettered"]) == ("Failed", "TimedOut", True)
        assert status["message"] == "took longer than timeouts.totalSeconds = 60 s"
        assert ended_at(cluster) == pytest.approx(60, abs=0.5)
        assert {one["type"]: one["status"] for one in status["conditions"]}["DeadLettered"] == "True"


async def test_a_lost_worker_leaves_no_time_for_another_attempt(cluster: Cluster) -> None:
    worker = Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t", timeouts={"totalSeconds": 10, "attemptSeconds": 5})
        await asyncio.sleep(11)
        assert cluster.phases() == {"t": "Running"}  # the worker's to end
        worker.delete_pod()
        await asyncio.sleep(0.1)
        status = cluster.status("t")
        assert (status["phase"], status["reason"]) == ("Failed", "TimedOut")
        assert status["workerLosses"] == 1


async def test_a_worker_that_lets_a_task_run_too_long_is_asked_and_then_loses_it(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w")
    async with coordinator.leading():
        cluster.submit("t", timeouts={"attemptSeconds": 100, "graceSeconds": 10}, retry={"limit": 0})
        await asyncio.sleep(100 + 10 + MARGIN_SECONDS - 1)
        assert "stopRequest" not in cluster.status("t")
        await asyncio.sleep(2)
        assert cluster.status("t")["stopRequest"]["reason"] == "TimedOut"
        await asyncio.sleep(10 + MARGIN_SECONDS - 3)
        assert cluster.phases() == {"t": "Running"}
        await asyncio.sleep(3)
        status = cluster.status("t")
        assert (status["phase"], status["reason"], status["failures"]) == ("Failed", "TimedOut", 1)
        assert [one["outcome"] for one in status["attempts"]] == ["Failed"]
        worker.finish("t", AttemptEnd(Outcome.SUCCEEDED, EndReason.COMPLETED))
        assert worker.refused == ["t"]
        asked = [call for call in coordinator.sent("patch", "tasks") if "stopRequest" in written(call)]
        assert len(asked) == 1


async def test_a_stop_request_is_forgotten_with_the_attempt(cluster: Cluster) -> None:
    worker = Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t", timeouts={"attemptSeconds": 10, "graceSeconds": 0})
        await asyncio.sleep(10 + MARGIN_SECONDS + 1)
        assert "stopRequest" in cluster.status("t")
        worker.finish("t", AttemptEnd(Outcome.FAILED, EndReason.TIMED_OUT))
        await asyncio.sleep(10)
        status = cluster.status("t")
        assert (status["phase"], status["attempt"]) == ("Running", 2)
        assert "stopRequest" not in status
        await asyncio.sleep(10 + MARGIN_SECONDS)
        assert "stopRequest" in cluster.status("t")  # each attempt has a backstop of its own


async def test_what_could_not_be_written_is_written_later(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t", timeouts={"pendingSeconds": 10})
        await asyncio.sleep(9)
        coordinator.faults = fail_once(status_write, Fault(before=Unanswered("reset")))
        await asyncio.sleep(3)
        assert cluster.phases() == {"t": "Skipped"}


async def test_a_new_leader_takes_the_times_from_the_status(cluster: Cluster) -> None:
    async with Coordinator(cluster).leading():
        cluster.submit("t", timeouts={"pendingSeconds": 60})
        await asyncio.sleep(50)
    async with Coordinator(cluster, identity="c2").leading():
        await asyncio.sleep(11)
        assert ended_at(cluster) == pytest.approx(60, abs=0.1)


async def test_waiting_costs_no_writes_and_no_work(cluster: Cluster) -> None:
    Worker(cluster, "w")
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t", timeouts={"pendingSeconds": 10, "totalSeconds": 7200, "attemptSeconds": 7200})
        await asyncio.sleep(3600)
        assert cluster.writes_to("t") == 3  # create, assign, start
        calls: list[Call] = coordinator.sent("patch", "tasks")
        assert len(calls) == 1
