"""What each way through a Task's life costs: successful writes by the API server's own counters.

docs/guarantees.md has these numbers. The user's own writes (create, edits) are counted, too, and the delete.
"""

import asyncio
import sys

import pytest
from tests.integration.harness import Object, World, in_phase, is_finished

from taskmaster.api.times import from_wire
from taskmaster.coordinator.explainer import MAX_ALLOWANCE as EXPLANATIONS_AT_FIRST

PYTHON = sys.executable
AT_ONCE = {"backoff": {"initialSeconds": 0, "jitter": "None"}}


class Counter:
    """Writes to Tasks since it was made."""

    def __init__(self, world: World, before: dict[str, int]) -> None:
        self._world = world
        self._before = before

    async def counted(self) -> int:
        after = await self._world.writes()
        return sum(after.values()) - sum(self._before.values())


@pytest.fixture
async def running(world: World) -> World:
    await world.start_coordinator()
    await world.start_worker("w-1")
    return world


async def counter(world: World) -> Counter:
    return Counter(world, await world.writes())


def python(source: str) -> Object:
    return {"command": [PYTHON, "-c", source]}


def answered(task: Object) -> bool:
    """Finished, and the last edit of the spec was seen."""
    return is_finished(task) and task["status"]["observedGeneration"] == task["metadata"]["generation"]


async def test_one_retry_costs_two_more(running: World) -> None:
    writes = await counter(running)
    await running.submit(
        "it",
        {"command": ["sh", "-c", 'test "$TASK_ATTEMPT" = 2']},
        retry=AT_ONCE,
        ttlSecondsAfterFinished=0,
    )
    await running.gone("it")
    assert await writes.counted() == 6  # create, assign, again, assign, finish, delete


async def test_cancel_while_waiting_costs_one_beside_the_edit(world: World) -> None:
    await world.start_coordinator()
    writes = await counter(world)
    await world.submit("it", {"command": ["true"]}, ttlSecondsAfterFinished=0)
    await world.edit("it", cancel=True)
    await world.gone("it")
    assert await writes.counted() == 4  # create, edit, cancelled, delete


async def test_cancel_while_running_costs_two_beside_the_edit(running: World) -> None:
    await running.submit("it", {"command": ["sleep", "60"]})
    await running.until("it", in_phase("Running"))
    writes = await counter(running)
    await running.edit("it", cancel=True)
    task = await running.until("it", answered)
    assert task["status"]["phase"] == "Cancelled"
    assert await writes.counted() == 3  # edit, that it was seen, cancelled


async def test_suspension_before_the_start_costs_one_and_resumption_one(running: World) -> None:
    writes = await counter(running)
    await running.submit("it", {"command": ["true"]}, suspend=True, ttlSecondsAfterFinished=0)
    await running.until("it", lambda task: task["status"].get("reason") == "Suspended")
    await running.edit("it", suspend=False)
    await running.gone("it")
    assert await writes.counted() == 7  # create, held, edit, resumed, assign, finish, delete


async def test_suspension_while_running_costs_two_beside_the_edit(running: World) -> None:
    await running.submit("it", {"command": ["sleep", "60"]})
    await running.until("it", in_phase("Running"))
    writes = await counter(running)
    await running.edit("it", suspend=True)
    task = await running.until(
        "it",
        lambda task: (
            task["status"].get("reason") == "Suspended"
            and task["status"]["observedGeneration"] == task["metadata"]["generation"]
        ),
    )
    assert "interruptions" not in task["status"]
    assert await writes.counted() == 3  # edit, that it was seen, given back


async def test_a_new_run_costs_one_beside_the_edit(running: World) -> None:
    await running.submit("it", {"command": ["true"]})
    await running.finished("it")
    writes = await counter(running)
    await running.edit("it", retryRequest="1")
    await running.until("it", lambda task: is_finished(task) and task["status"]["runNumber"] == 2)
    assert await writes.counted() == 4  # edit, begun anew, assign, finish


async def test_expiry_costs_one(world: World) -> None:
    await world.start_coordinator()
    writes = await counter(world)
    await world.submit("it", {"command": ["true"]}, queue="nobody-made-it", timeouts={"pendingSeconds": 2})
    task = await world.finished("it")
    assert (task["status"]["phase"], task["status"]["reason"]) == ("Skipped", "Expired")
    assert await writes.counted() == 3  # create, QueueNotFound, skipped


async def test_progress_is_written_at_most_every_five_seconds_and_the_last_value_always(running: World) -> None:
    source = """
import time
from taskmaster_worker import context
for step in range(1, 71):
    context.progress(step, 70)
    time.sleep(0.1)
"""
    writes = await counter(running)
    await running.submit("it", python(source))
    status = (await running.finished("it"))["status"]
    assert status["phase"] == "Succeeded", status
    assert status["progress"] == {"current": 70, "total": 70, "message": ""}
    seconds = from_wire(status["completionTime"]) - from_wire(status["startTime"])
    # create, assign, start (with the first value), one per whole five seconds, finish (with the last value)
    assert 4 <= await writes.counted() <= 4 + int(seconds / 5)


async def test_short_tasks_report_progress_for_nothing(running: World) -> None:
    writes = await counter(running)
    await running.submit("it", python("from taskmaster_worker import context; context.progress(1, 1, 'done')"))
    status = (await running.finished("it"))["status"]
    assert status["progress"] == {"current": 1, "total": 1, "message": "done"}
    assert await writes.counted() == 3  # create, assign, finish


async def test_each_checkpoint_is_one_write_and_the_first_brings_the_start_along(running: World) -> None:
    source = "from taskmaster_worker import context\nfor step in range(5): context.checkpoint({'step': step})"
    writes = await counter(running)
    await running.submit("it", python(source))
    status = (await running.finished("it"))["status"]
    assert status["phase"] == "Succeeded", status
    assert status["checkpoint"]["data"] == {"step": 4}
    assert await writes.counted() == 8  # create, assign, five checkpoints, finish


async def test_an_idle_waiting_task_costs_nothing(world: World) -> None:
    """It waits for a worker, and its wait is explained once."""
    await world.start_coordinator()
    await world.submit("it", {"command": ["true"]}, timeouts={"pendingSeconds": 3600, "totalSeconds": 3600})
    await world.until("it", lambda task: task["status"].get("reason") == "NoMatchingWorker")
    writes = await counter(world)
    other = asyncio.create_task(world.until("it", lambda task: task["status"]["phase"] == "Assigned"))
    await world.start_worker("w-1")
    await other
    await world.finished("it")
    assert await writes.counted() == 2  # assign, finish


@pytest.mark.timeout(400)
async def test_a_graph_of_a_thousand_tasks_costs_nothing_per_edge(world: World) -> None:
    layers, width, edges = 20, 50, 8
    await world.start_coordinator()
    await world.start_worker("w-1", slots=20)
    writes = await counter(world)
    names = [[f"t{layer}-{number}" for number in range(width)] for layer in range(layers)]
    # The last layer first: parents are created after their children, and what waits knows nothing yet.
    for layer in reversed(range(layers)):
        for number, name in enumerate(names[layer]):
            above = [names[layer - 1][(number + step) % width] for step in range(edges)] if layer else []
            await world.submit(name, {"command": ["true"]}, dependsOn=[{"name": each} for each in above])
    for name in names[-1]:
        status = (await world.finished(name, seconds=240))["status"]
        assert status["phase"] == "Succeeded", status
    tasks = layers * width
    # Create, assign, finish; and who has waited for more than 30 s may have been told, at most one write in twenty.
    assert 3 * tasks <= await writes.counted() <= 3 * tasks * 1.05 + EXPLANATIONS_AT_FIRST
