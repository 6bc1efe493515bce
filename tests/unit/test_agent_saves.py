"""Progress and checkpoints of a running attempt: which writes they cost, in which order, and what becomes of them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.sim.memory_api import Call, Fault, lost_answer
from tests.unit.agent_worker import Stage, until, working

from taskmaster.api.times import from_wire
from taskmaster.kube.api import JsonPatch
from taskmaster.kube.errors import Forbidden, Unanswered, Unprocessable
from taskmaster.kube.resource import TASKS

pytestmark = pytest.mark.looptime


async def running(on: Stage, name: str = "a", **spec: Any) -> str:
    """Submit a Task and let its process begin; the start report is due in a second."""
    attempt = on.submit(name, **spec)
    await until(lambda: attempt in on.runner.frames)
    on.runner.started(attempt)
    return attempt


async def reported(on: Stage, name: str = "a", **spec: Any) -> str:
    """The same, until it has been reported as Running."""
    attempt = await running(on, name, **spec)
    await until(lambda: on.phase(name) == "Running")
    await asyncio.sleep(0.1)
    return attempt


def written(on: Stage, *fields: str) -> list[dict[str, Any]]:
    """What each status write of the agent said about these fields of status, in order; tests left out."""
    writes: list[Any] = list(on.status_writes())
    return [
        {path: op["value"] for op in operations if (path := op["path"].removeprefix("/status/")) in fields}
        for operations in ([op for op in write if op["op"] == "add"] for write in writes)
    ]


def progress(on: Stage) -> list[int | None]:
    """The progress in each write; None where there was none."""
    return [write.get("progress", {}).get("current") for write in written(on, "progress")]


def checkpoints(on: Stage) -> list[Any]:
    """The checkpoint in each write; None where there was none."""
    return [write.get("checkpoint", {}).get("data") for write in written(on, "checkpoint")]


def phases(on: Stage) -> list[str | None]:
    return [write.get("phase") for write in written(on, "phase")]


def saves(call: Call) -> bool:
    """Whether it is a save: a status write that moves nothing."""
    return (
        call.resource is TASKS
        and isinstance(call.body, JsonPatch)
        and not any(op["op"] == "add" and op["path"] == "/status/phase" for op in call.body.ops)
    )


def first(*faults: Fault, of: Callable[[Call], bool] = saves) -> Callable[[Call], Fault | None]:
    left = list(faults)
    return lambda call: left.pop(0) if left and of(call) else None


# ---- progress


async def test_progress_before_the_start_report_goes_along_with_it() -> None:
    async with working() as on:
        attempt = await running(on)
        for step in range(3):
            on.runner.progress(attempt, current=step, total=9, message="at it")
        await asyncio.sleep(2)
        assert written(on, "phase", "progress") == [
            {"phase": "Running", "progress": {"current": 2, "total": 9, "message": "at it"}}
        ]


async def test_progress_of_a_short_task_goes_along_with_its_end() -> None:
    async with working() as on:
        attempt = await running(on)
        on.runner.progress(attempt, current=1)
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert len(on.status_writes()) == 1
        assert on.status("a")["progress"] == {"current": 1}


async def test_the_first_progress_is_written_at_once_and_more_at_most_every_five_seconds() -> None:
    async with working() as on:
        attempt = await reported(on)
        begun = on.clock()
        on.runner.progress(attempt, current=0)
        await asyncio.sleep(0.1)
        assert progress(on) == [None, 0]
        for step in range(1, 120):
            on.runner.progress(attempt, current=step)
            await asyncio.sleep(0.25)
        assert on.clock() - begun == pytest.approx(30, abs=0.5)
        assert len(progress(on)) == 2 + 5
        on.runner.progress(attempt, current=500)
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert on.status("a")["progress"]["current"] == 500
        assert len(progress(on)) == 2 + 5 + 1


async def test_nothing_is_written_when_nothing_has_changed() -> None:
    async with working() as on:
        attempt = await reported(on)
        for _ in range(100):
            on.runner.progress(attempt, current=7, message="")
            await asyncio.sleep(1)
        assert progress(on) == [None, 7]
        on.runner.progress(attempt, current=8)
        await asyncio.sleep(0.1)
        on.runner.progress(attempt, current=7)
        await asyncio.sleep(0.1)
        on.runner.progress(attempt, current=8)
        await asyncio.sleep(60)
        assert progress(on) == [None, 7, 8], "there and back within the five seconds is no change"
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert progress(on)[-1] is None


async def test_what_an_earlier_attempt_said_is_not_written_again() -> None:
    async with working() as on:
        one = await reported(on, retry={"backoff": {"jitter": "None", "initialSeconds": 0}})
        on.runner.progress(one, current=7)
        on.runner.exit(one, code=1)
        await until(lambda: on.phase("a") == "Pending")
        two = on.assign("a")
        await until(lambda: two in on.runner.frames)
        on.runner.started(two)
        on.runner.progress(two, current=7)
        await asyncio.sleep(10)
        assert progress(on) == [None, 7, None]


@pytest.mark.parametrize("value", [5, {"current": -1}, {"message": 3}, {"total": 2**53}])
async def test_what_is_no_progress_is_dropped(value: Any) -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.say({"type": "progress", "id": attempt, "progress": value})
        await asyncio.sleep(10)
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert progress(on) == [None, None]


async def test_newer_progress_waits_for_the_write_on_its_way_and_is_merged() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.faults = first(Fault(delay=20))
        on.runner.progress(attempt, current=1)
        for step in range(2, 8):
            await asyncio.sleep(2)
            on.runner.progress(attempt, current=step)
        await asyncio.sleep(5)
        assert progress(on) == [None, 1]
        await asyncio.sleep(5)
        assert progress(on) == [None, 1, 7]


async def test_refused_progress_is_not_tried_again_but_the_next_is() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.faults = first(Fault(before=Unprocessable("no")))
        on.runner.progress(attempt, current=1)
        await asyncio.sleep(30)
        assert progress(on) == [None, 1]
        on.runner.progress(attempt, current=2)
        await asyncio.sleep(1)
        assert on.status("a")["progress"]["current"] == 2


async def test_emptied_progress_is_written_once() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.progress(attempt, current=1)
        await asyncio.sleep(6)
        on.runner.progress(attempt)
        await asyncio.sleep(60)
        assert len(on.status_writes()) == 3
        assert on.status("a")["progress"] == {}


# ---- checkpoints


async def test_a_checkpoint_is_written_at_once_and_then_acknowledged() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.latency = 1.0
        now = on.now()
        on.runner.checkpoint(attempt, 1, {"step": 1})
        await asyncio.sleep(0.9)
        assert on.status("a")["checkpoint"]["data"] == {"step": 1}
        assert on.runner.answers == [], "the answer of the API server is not here yet"
        await asyncio.sleep(0.2)
        assert on.runner.answers == [(attempt, 1, None)]
        checkpoint = on.status("a")["checkpoint"]
        assert checkpoint["attempt"] == 1
        assert from_wire(checkpoint["time"]) == pytest.approx(now, abs=0.01)
        assert on.metric("taskmaster_worker_status_writes_total", kind="save", code="200") == 1


async def test_a_checkpoint_forces_the_start_report_in_one_write() -> None:
    async with working() as on:
        attempt = await running(on)
        await asyncio.sleep(0.2)
        on.runner.progress(attempt, current=1)
        on.runner.checkpoint(attempt, 1, "c")
        await asyncio.sleep(0.1)
        assert on.phase("a") == "Running"
        assert on.runner.answers == [(attempt, 1, None)]
        await asyncio.sleep(10)
        assert (phases(on), progress(on), checkpoints(on)) == (["Running"], [1], ["c"])


async def test_a_checkpoint_takes_changed_progress_along() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.progress(attempt, current=1)
        await asyncio.sleep(0.1)
        on.runner.progress(attempt, current=2)
        on.runner.checkpoint(attempt, 1, "c")
        await asyncio.sleep(10)
        assert (progress(on), checkpoints(on)) == ([None, 1, 2], [None, None, "c"])


async def test_checkpoints_are_written_in_order_and_those_that_wait_in_one() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.latency = 1.0
        on.runner.checkpoint(attempt, 1, "one")
        await asyncio.sleep(0.1)
        on.runner.checkpoint(attempt, 2, "two")
        on.runner.checkpoint(attempt, 3, "three")
        await asyncio.sleep(0.5)
        on.runner.checkpoint(attempt, 4, "four")
        await asyncio.sleep(0.5)
        assert on.runner.answers == [(attempt, 1, None)]
        await asyncio.sleep(2)
        assert checkpoints(on) == [None, "one", "four"]
        assert on.runner.answers == [(attempt, number, None) for number in (1, 2, 3, 4)]


async def test_a_checkpoint_that_comes_during_the_start_report_waits_for_it() -> None:
    async with working() as on:
        attempt = await running(on)
        on.api.faults = lambda call: Fault(delay=2) if call.verb == "patch" and call.resource is TASKS else None
        await asyncio.sleep(1.5)
        on.api.faults = lambda call: None
        on.runner.checkpoint(attempt, 1, "c")
        await asyncio.sleep(1)
        assert (phases(on), on.runner.answers) == (["Running"], [])
        await asyncio.sleep(1)
        assert (phases(on), checkpoints(on)) == (["Running", None], [None, "c"])
        assert on.runner.answers == [(attempt, 1, None)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param("x" * (16 * 1024 - 1), "16384 bytes", id="one byte too large"),
        pytest.param({"n": 2**63}, "64 bits", id="beyond 64 bits"),
        pytest.param([float("nan")], "JSON", id="not a number"),
    ],
)
async def test_a_checkpoint_that_cannot_be_stored_is_refused_without_a_write(data: Any, says: str) -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.checkpoint(attempt, 1, data)
        on.runner.checkpoint(attempt, 2, "x" * (16 * 1024 - 2))
        await asyncio.sleep(1)
        assert len(on.status_writes()) == 2
        (_, one, error), second = on.runner.answers
        assert (one, says in str(error)) == (1, True)
        assert second == (attempt, 2, None)


async def test_a_checkpoint_that_the_server_refuses_is_told_and_the_attempt_goes_on() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.faults = first(Fault(before=Unprocessable("no")))
        on.runner.checkpoint(attempt, 1, "one")
        await asyncio.sleep(30)
        assert on.runner.answers == [(attempt, 1, "the API server did not accept the checkpoint")]
        assert on.runner.stops == []
        on.runner.checkpoint(attempt, 2, "two")
        await asyncio.sleep(1)
        assert on.runner.answers[1:] == [(attempt, 2, None)]
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert on.status("a")["checkpoint"]["data"] == "two"


async def test_a_start_report_refused_with_its_checkpoint_is_tried_again_with_the_next() -> None:
    async with working() as on:
        attempt = await running(on)
        on.api.faults = first(Fault(before=Unprocessable("no")), of=lambda call: call.resource is TASKS)
        on.runner.checkpoint(attempt, 1, "one")
        await asyncio.sleep(0.5)
        assert on.phase("a") == "Assigned"
        on.runner.checkpoint(attempt, 2, "two")
        await asyncio.sleep(0.1)
        assert on.phase("a") == "Running"
        assert [error is None for _, _, error in on.runner.answers] == [False, True]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lost_answer(), id="answer lost"),
        pytest.param(Fault(before=Unanswered("refused")), id="not sent"),
        pytest.param(Fault(before=Forbidden("no role yet")), id="403 until the role is there"),
    ],
)
async def test_a_save_is_repeated_until_it_is_written_once(fault: Fault) -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.faults = first(fault)
        on.runner.progress(attempt, current=3)
        on.runner.checkpoint(attempt, 1, "c")
        await until(lambda: on.runner.answers == [(attempt, 1, None)])
        await asyncio.sleep(30)
        stored = [change for change in on.server.history if change.client == "agent" and change.resource is TASKS]
        assert len(stored) == 2, "the start report, and the save once"
        assert on.status("a")["checkpoint"]["data"] == "c"


async def test_a_second_checkpoint_in_the_same_instant_is_not_taken_for_the_first() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.checkpoint(attempt, 1, "one")
        on.api.faults = first(Fault(), Fault(before=Unanswered("refused")))
        await asyncio.sleep(0)
        on.runner.checkpoint(attempt, 2, "two")
        await until(lambda: len(on.runner.answers) == 2)
        assert on.status("a")["checkpoint"]["data"] == "two"


# ---- the end


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (1, "Pending")])
async def test_a_checkpoint_on_its_way_goes_along_with_the_end(code: int, phase: str) -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.checkpoint(attempt, 1, "one")
        await asyncio.sleep(1)
        on.api.faults = first(Fault(delay=5))
        on.runner.checkpoint(attempt, 2, "two")
        await asyncio.sleep(0.1)
        on.runner.progress(attempt, current=9)
        on.runner.exit(attempt, code=code)
        await until(lambda: on.phase("a") == phase, seconds=1)
        assert on.status("a")["checkpoint"]["data"] == "two"
        assert on.status("a")["progress"]["current"] == 9
        before = on.task("a")
        await asyncio.sleep(10)
        assert on.task("a") == before, "a late save changes nothing"
        assert on.worker.attempts.empty.is_set()


async def test_a_save_that_reaches_the_server_after_the_end_is_refused_there() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.runner.checkpoint(attempt, 1, "one")
        await asyncio.sleep(1)
        save = on.api.calls[-1].body
        assert isinstance(save, JsonPatch)
        on.runner.exit(attempt, code=1)
        await until(lambda: on.phase("a") == "Pending")
        with pytest.raises(Unprocessable):
            on.write_status("a", list(save.ops))


async def test_a_checkpoint_during_the_grace_is_written_and_offered_to_the_next_attempt() -> None:
    async with working() as on:
        one = await reported(on)
        on.edit("a", suspend=True)
        await until(lambda: bool(on.runner.stops))
        on.runner.checkpoint(one, 1, {"step": 4})
        await asyncio.sleep(1)
        assert on.runner.answers == [(one, 1, None)]
        on.runner.exit(one, code=None, signal=15)
        await until(lambda: on.phase("a") == "Pending")
        on.edit("a", suspend=False)
        two = on.assign("a")
        await until(lambda: two in on.runner.frames)
        assert on.runner.frames[two]["checkpoint"] == {"step": 4}


async def test_the_end_of_an_attempt_waits_for_no_save() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.faults = lambda call: Fault(before=Unanswered("away")) if call.resource is TASKS else None
        on.runner.checkpoint(attempt, 1, "c")
        await asyncio.sleep(60)
        assert on.runner.answers == []
        on.api.faults = lambda call: None
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded", seconds=0.1)
        assert on.status("a")["checkpoint"]["data"] == "c"


# ---- taken away


async def test_a_checkpoint_that_finds_the_task_moved_on_is_refused_and_the_process_stopped() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.held = True
        on.requeue("a")
        before = on.task("a")
        on.runner.checkpoint(attempt, 1, "c")
        await asyncio.sleep(1)
        taken = "the Task was taken from this worker, or deleted"
        assert on.runner.answers == [(attempt, 1, taken)]
        assert on.runner.stops == [(attempt, 20)]
        on.runner.checkpoint(attempt, 2, "d")
        assert on.runner.answers[1:] == [(attempt, 2, taken)]
        on.runner.progress(attempt, current=5)
        on.runner.exit(attempt)
        await asyncio.sleep(10)
        assert on.task("a") == before


async def test_checkpoints_that_wait_when_the_task_is_taken_away_are_all_answered() -> None:
    async with working() as on:
        attempt = await reported(on)
        on.api.faults = first(Fault(delay=30))
        on.runner.checkpoint(attempt, 1, "one")
        await asyncio.sleep(0.1)
        on.runner.checkpoint(attempt, 2, "two")
        await asyncio.sleep(1)
        on.server.delete(TASKS, "team", "a")
        await until(lambda: len(on.runner.answers) == 2, seconds=1)
        assert [(number, error is None) for _, number, error in on.runner.answers] == [(1, False), (2, False)]
        on.runner.exit(attempt)
        await asyncio.sleep(60)
        assert len(on.runner.answers) == 2
        assert on.worker.attempts.empty.is_set()
