"""Workers and coordinators die in every way that local processes can; no Task is lost."""

import asyncio
import signal

import pytest
from tests.integration.harness import Object, World, in_phase

from taskmaster.kube.resource import LEASES, PODS, TASKS

LONG = {"command": ["sleep", "600"]}
ONCE = {"command": ["sh", "-c", 'test "$TASK_ATTEMPT" -ge 2 || sleep 600']}
"""Hangs at its first attempt, so that it ends only when that one is lost."""


@pytest.fixture
async def held(world: World) -> World:
    """A Task runs on w-1, and w-2 is there to take over."""
    await world.start_coordinator()
    world.workers = {"w-1": await world.start_worker("w-1")}
    await world.submit("it", ONCE)
    await world.until("it", in_phase("Running"))
    world.workers["w-2"] = await world.start_worker("w-2")
    return world


def lost_once(status: Object) -> None:
    assert status["phase"] == "Succeeded", status
    assert (status["attempt"], status["workerLosses"]) == (2, 1)
    assert "failures" not in status
    first, second = status["attempts"]
    assert (first["outcome"], first["reason"], first["worker"]) == ("WorkerLost", "WorkerLost", "w-1")
    assert second["outcome"] == "Succeeded"


async def test_a_deleted_worker_pod_gives_its_tasks_to_another_at_once(held: World) -> None:
    worker = held.workers["w-1"]
    await worker.agent.kill()
    await worker.runner.kill()
    await held.api.delete(PODS, held.namespace, "w-1")
    status = (await held.finished("it", seconds=8))["status"]
    lost_once(status)
    assert "deleted" in status["attempts"][0]["message"]
    assert status["assignment"]["worker"] == "w-2"


async def test_a_runner_that_dies_is_reported_by_its_agent(held: World) -> None:
    worker = held.workers["w-1"]
    await worker.runner.kill()
    status = (await held.finished("it", seconds=8))["status"]
    lost_once(status)
    assert "runner" in status["attempts"][0]["message"]
    worker.runner = await held.start_runner(worker.name, worker.environment)
    await held.until(
        "w-1", lambda lease: lease["metadata"]["annotations"]["taskmaster.dev/state"] == "Ready", resource=LEASES
    )


async def test_an_agent_that_dies_comes_back_as_another_incarnation(held: World) -> None:
    worker = held.workers["w-1"]
    await worker.agent.kill()
    worker.agent = await held.start_agent(worker.name, worker.environment)
    status = (await held.finished("it", seconds=8))["status"]
    lost_once(status)
    assert "restarted" in status["attempts"][0]["message"]


async def test_a_worker_that_falls_silent_is_given_up_after_its_lease(held: World) -> None:
    worker = held.workers["w-1"]
    worker.agent.send(signal.SIGSTOP)
    worker.runner.send(signal.SIGSTOP)
    status = (await held.finished("it", seconds=30))["status"]
    lost_once(status)
    assert "not renewed its Lease" in status["attempts"][0]["message"]
    before = await held.task("it")
    worker.agent.send(signal.SIGCONT)
    worker.runner.send(signal.SIGCONT)
    # It finds its Lease taken over, and returns under another name; the record stays as it is.
    old = before["status"]["attempts"][0]
    await held.until("w-1", lambda lease: lease["spec"].get("holderIdentity") == "w-1", resource=LEASES)
    assert (await held.task("it"))["status"]["attempts"][0] == old


async def test_a_drained_worker_hands_its_tasks_over_and_leaves(held: World) -> None:
    assert await held.workers["w-1"].agent.stop() == 0
    status = (await held.finished("it", seconds=20))["status"]
    assert (status["phase"], status["attempt"], status["interruptions"]) == ("Succeeded", 2, 1)
    assert status["attempts"][0]["outcome"] == "Interrupted"
    assert not (await held.api.get(LEASES, held.namespace, "w-1"))["spec"].get("holderIdentity")


async def test_a_task_that_loses_every_worker_fails_when_its_budget_is_out(world: World) -> None:
    await world.start_coordinator()
    worker = await world.start_worker("w-1")
    await world.submit("it", LONG, retry={"workerLossLimit": 0})
    await world.until("it", in_phase("Running"))
    await worker.runner.kill()
    status = (await world.finished("it"))["status"]
    assert (status["phase"], status["reason"], status["workerLosses"]) == ("Failed", "BudgetExhausted", 1)


async def test_deleting_a_running_task_frees_its_slot(world: World) -> None:
    await world.start_coordinator()
    await world.start_worker("w-1", slots=1)
    await world.submit("it", LONG, timeouts={"graceSeconds": 1})
    await world.until("it", in_phase("Running"))
    await world.api.delete(TASKS, world.namespace, "it")
    await world.submit("next", {"command": ["true"]})
    assert (await world.finished("next", seconds=10))["status"]["phase"] == "Succeeded"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_another_coordinator_takes_over(world: World, how: str) -> None:
    leader = await world.start_coordinator("c-1", TASKMASTER_ELECTION_LEASE_SECONDS="6")
    await world.start_worker("w-1")
    await world.submit("first", {"command": ["true"]})
    await world.finished("first")
    await world.start_coordinator("c-2", TASKMASTER_ELECTION_LEASE_SECONDS="6")
    await world.submit("across", {"command": ["sleep", "3"]})
    await world.until("across", lambda task: task["status"]["phase"] in ("Assigned", "Running"))
    leader.send(signal.Signals[how])
    await world.submit("second", {"command": ["true"]})
    assert (await world.finished("second", seconds=20))["status"]["phase"] == "Succeeded"
    status = (await world.finished("across"))["status"]
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
    async with asyncio.timeout(10):
        assert await leader.process.wait() == (0 if how == "SIGTERM" else -9)


async def test_work_goes_on_while_the_api_server_is_away(held: World) -> None:
    await held.submit("meanwhile", {"command": ["sh", "-c", "sleep 3; echo done"]})
    await held.until("meanwhile", in_phase("Running"))
    await asyncio.to_thread(held.plane.restart_apiserver)
    status = (await held.finished("meanwhile", seconds=40))["status"]
    assert (status["phase"], status["attempt"]) == ("Succeeded", 1)
