"""What stops an attempt, before and while it runs: its spec, the coordinator, its time, the runner's word."""

import asyncio
from typing import Any

import pytest
from tests.sim.memory_api import Call, Fault
from tests.unit.agent_worker import Stage, until, working

from taskmaster.core.task import StopReason
from taskmaster.kube.api import JsonPatch
from taskmaster.kube.errors import Unanswered
from taskmaster.kube.resource import TASKS
from taskmaster_worker.agent import stops

pytestmark = pytest.mark.looptime

GRACE = {"timeouts": {"graceSeconds": 7}}


async def running(on: Stage, name: str = "a", **spec: Any) -> str:
    """Submit a Task and let its process begin."""
    attempt = on.submit(name, **{**GRACE, **spec})
    await until(lambda: attempt in on.runner.frames)
    on.runner.started(attempt)
    return attempt


def last(on: Stage, name: str = "a") -> tuple[str, str, str]:
    record = on.status(name)["attempts"][-1]
    return record["outcome"], record["reason"], record["message"]


def charged(on: Stage, name: str = "a") -> dict[str, int]:
    names = ("failures", "workerLosses", "interruptions", "runnerDeaths")
    return {field: on.status(name)[field] for field in names if on.status(name).get(field)}


ASKED = [
    pytest.param({"cancel": True}, None, "Cancelled", ("Cancelled", "Cancelled", "spec.cancel was set"), id="cancel"),
    pytest.param({"suspend": True}, None, "Pending", ("Suspended", "Suspended", "spec.suspend was set"), id="suspend"),
    pytest.param(
        {},
        StopReason.CANCELLED,
        "Cancelled",
        ("Cancelled", "Replaced", "another Task took its place"),
        id="request Cancelled",
    ),
    pytest.param(
        {}, StopReason.DRAINED, "Pending", ("Interrupted", "Interrupted", "its queue is being emptied"), id="Drained"
    ),
    pytest.param(
        {},
        StopReason.TIMED_OUT,
        "Pending",
        ("Failed", "TimedOut", "the coordinator found that it runs for longer than it may"),
        id="request TimedOut",
    ),
]


@pytest.mark.parametrize(("spec", "request_", "phase", "record"), ASKED)
async def test_a_running_attempt_is_stopped_once_with_its_grace(
    spec: dict[str, Any], request_: StopReason | None, phase: str, record: tuple[str, str, str]
) -> None:
    async with working() as on:
        attempt = await running(on)
        if spec:
            on.edit("a", **spec)
        if request_ is not None:
            on.request_stop("a", request_)
        await until(lambda: on.runner.stops == [(attempt, 7)], seconds=0.1)
        on.edit("a", priority=5)  # the watch shows it again
        await asyncio.sleep(5)
        assert on.runner.stops == [(attempt, 7)]
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == phase)
        assert last(on) == record
        assert on.status("a")["attempts"][-1]["signal"] == 15
        assert on.metric("taskmaster_worker_stops_total", reason=record[1]) == 1


@pytest.mark.parametrize(("spec", "request_", "phase", "record"), ASKED)
async def test_an_attempt_that_waits_is_refused_at_once(
    spec: dict[str, Any], request_: StopReason | None, phase: str, record: tuple[str, str, str]
) -> None:
    async with working(slots=1) as on:
        first = await running(on, "other")
        on.requeue("other")
        await until(lambda: bool(on.runner.stops))
        attempt = on.submit("a", **GRACE)
        await asyncio.sleep(1)
        assert attempt not in on.runner.frames
        if spec:
            on.edit("a", **spec)
        if request_ is not None:
            on.request_stop("a", request_)
        await until(lambda: on.phase("a") == phase, seconds=0.5)
        assert last(on) == record
        on.runner.exit(first)
        await asyncio.sleep(1)
        assert attempt not in on.runner.frames


async def test_an_assignment_that_is_cancelled_when_it_is_first_seen_is_never_begun() -> None:
    async with working() as on:
        on.api.held = True
        attempt = on.submit("a")
        on.edit("a", cancel=True)
        on.api.held = False
        on.api.wake_watches()
        await until(lambda: on.phase("a") == "Cancelled")
        assert attempt not in on.runner.frames


async def test_one_that_finds_the_worker_full_as_well_is_cancelled() -> None:
    async with working(slots=1) as on:
        await running(on, "other")
        on.api.held = True
        on.submit("a")
        on.edit("a", cancel=True)
        on.server.compact()  # a new list shows both at once
        on.api.held = False
        on.api.break_watches(Unanswered("reset"))
        await until(lambda: on.phase("a") == "Cancelled")


async def test_a_stop_that_is_hurried_up_counts_from_the_first() -> None:
    async with working(drain_seconds=0) as on:
        attempt = await running(on)
        on.worker.terminate()
        await until(lambda: on.runner.stops == [(attempt, 7)])
        await asyncio.sleep(1)
        died = on.now()
        await asyncio.sleep(1)
        on.worker.terminate()
        assert on.runner.stops == [(attempt, 7), (attempt, 0)]
        on.runner.exit(attempt, code=None, signal=15, at=died)
        await until(lambda: on.phase("a") == "Pending")
        assert last(on)[0] == "Interrupted"
        assert on.metric("taskmaster_worker_stops_total", reason="Interrupted") == 1


async def test_a_suspended_attempt_costs_no_budget_and_holds_the_task() -> None:
    async with working() as on:
        attempt = await running(on)
        on.edit("a", suspend=True)
        await until(lambda: bool(on.runner.stops))
        on.runner.exit(attempt, code=143)
        await until(lambda: on.phase("a") == "Pending")
        status = on.status("a")
        assert status["reason"] == "Suspended"
        assert charged(on) == {}
        assert status["attempts"][-1]["exitCode"] == 143
        assert [one["status"] for one in status["conditions"] if one["type"] == "Suspended"] == ["True"]


async def test_a_stop_decides_even_if_the_process_then_ends_well() -> None:
    async with working() as on:
        attempt = await running(on)
        on.edit("a", suspend=True)
        await until(lambda: bool(on.runner.stops))
        await asyncio.sleep(1)
        on.runner.exit(attempt, code=0, result={"whole": True})
        await until(lambda: on.phase("a") == "Pending")
        assert last(on)[0] == "Suspended"
        assert "result" not in on.status("a")


async def test_what_ended_before_the_stop_was_sent_has_ended_by_itself() -> None:
    async with working() as on:
        attempt = await running(on)
        await asyncio.sleep(0.5)
        ended = on.now()
        await asyncio.sleep(0.5)
        on.edit("a", cancel=True)
        await until(lambda: bool(on.runner.stops))
        on.runner.exit(attempt, at=ended, result=3)
        await until(lambda: on.phase("a") == "Succeeded")
        assert on.status("a")["result"] == 3


@pytest.mark.parametrize(
    "first", [pytest.param({"suspend": True}, id="suspend"), pytest.param(StopReason.DRAINED, id="drain")]
)
async def test_a_cancel_overrides_an_earlier_suspend_or_drain(first: Any) -> None:
    async with working() as on:
        attempt = await running(on)
        if isinstance(first, StopReason):
            on.request_stop("a", first)
        else:
            on.edit("a", **first)
        await until(lambda: bool(on.runner.stops))
        await asyncio.sleep(2)
        died = on.now()
        await asyncio.sleep(1)
        on.edit("a", cancel=True)
        await asyncio.sleep(1)
        assert on.runner.stops == [(attempt, 7)]
        on.runner.exit(attempt, code=None, signal=15, at=died)  # of the first stop, before the cancel
        await until(lambda: on.phase("a") == "Cancelled")
        assert last(on)[:2] == ("Cancelled", "Cancelled")


async def test_a_cancel_overrides_the_drain_of_the_worker() -> None:
    async with working(drain_seconds=5) as on:
        attempt = await running(on)
        on.worker.terminate()
        await until(lambda: bool(on.runner.stops))
        on.edit("a", cancel=True)
        await asyncio.sleep(1)
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == "Cancelled")


@pytest.mark.parametrize("later", [{"suspend": True}, {"suspend": True, "cancel": False}])
async def test_of_other_stops_the_first_says_why(later: dict[str, Any]) -> None:
    async with working() as on:
        attempt = await running(on)
        on.request_stop("a", StopReason.TIMED_OUT)
        await until(lambda: bool(on.runner.stops))
        on.edit("a", **later)
        await asyncio.sleep(1)
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == "Pending")
        assert last(on)[1] == "TimedOut"


@pytest.mark.parametrize(
    ("outcome", "overridden"),
    [(stops.SUSPEND, True), (stops.DRAIN, True), (stops.out_of_attempt_time(1), False), (stops.CANCEL, False)],
)
def test_what_a_cancel_overrides(outcome: stops.Stop, overridden: bool) -> None:
    assert stops.CANCEL.overrides(outcome) is overridden
    assert not stops.SUSPEND.overrides(outcome)
    assert stops.SUSPEND.overrides(None)


async def test_a_request_of_a_later_version_stops_nothing() -> None:
    async with working() as on:
        attempt = await running(on)
        patch: list[dict[str, Any]] = [
            {"op": "add", "path": "/status/stopRequest", "value": {"reason": "Eaten", "time": "2027-01-01T00:00:00Z"}}
        ]
        on.write_status("a", patch)
        await asyncio.sleep(1)
        assert on.runner.stops == []
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")


async def test_a_stop_request_for_an_attempt_that_was_taken_away_changes_nothing() -> None:
    async with working() as on:
        attempt = await running(on)
        on.api.held = True
        on.edit("a", cancel=True)
        on.requeue("a")
        on.api.held = False
        on.api.wake_watches()
        await until(lambda: on.runner.stops == [(attempt, 7)])
        on.runner.exit(attempt)
        await on.worker.attempts.empty.wait()
        assert on.phase("a") == "Pending"


async def test_a_cancel_while_the_start_report_is_on_its_way() -> None:
    async with working() as on:
        attempt = await running(on)
        on.api.faults = lambda call: Fault(delay=3.0) if _is_start(call) else None
        await asyncio.sleep(1.5)
        assert on.phase("a") == "Assigned"
        on.edit("a", cancel=True)
        await until(lambda: bool(on.runner.stops), seconds=0.1)
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == "Cancelled", seconds=1)
        await asyncio.sleep(10)
        assert on.phase("a") == "Cancelled", "the late start report changes nothing"
        assert on.worker.attempts.empty.is_set()


async def test_a_cancel_while_the_end_is_being_written_is_left_to_the_coordinator() -> None:
    async with working() as on:
        attempt = await running(on)
        on.api.faults = lambda call: Fault(before=Unanswered("away")) if call.verb == "patch" else None
        on.runner.exit(attempt, code=3)
        on.edit("a", cancel=True)
        await asyncio.sleep(1)
        on.api.faults = lambda call: None
        await until(lambda: on.phase("a") == "Pending")
        assert on.runner.stops == []


# ---- time


async def test_the_attempts_own_time_counts_when_it_is_the_shorter() -> None:
    async with working() as on:
        attempt = await running(on, timeouts={"attemptSeconds": 20, "totalSeconds": 50}, retry={"limit": 9})
        await asyncio.sleep(19)
        assert on.runner.stops == []
        await asyncio.sleep(2)
        assert on.runner.stops == [(attempt, 20)]
        on.runner.exit(attempt, code=143)
        await until(lambda: on.phase("a") == "Pending")
        assert last(on) == ("Failed", "TimedOut", "ran longer than timeouts.attemptSeconds = 20 s")


async def test_the_time_of_the_whole_run_ends_an_attempt_and_the_task() -> None:
    spec: dict[str, Any] = {"timeouts": {"totalSeconds": 60, "graceSeconds": 1}, "retry": {"limit": 9}}
    spec["retry"]["backoff"] = {"initialSeconds": 10, "jitter": "None"}
    async with working() as on:
        first = await running(on, **spec)
        await asyncio.sleep(15)
        on.runner.exit(first, code=1)
        await until(lambda: on.phase("a") == "Pending")
        await asyncio.sleep(10)
        second = on.assign("a")
        await until(lambda: second in on.runner.frames)
        on.runner.started(second)
        await asyncio.sleep(32)
        assert on.runner.stops == []
        await asyncio.sleep(3)
        assert on.runner.stops == [(second, 1)]
        on.runner.exit(second, code=143)
        await until(lambda: on.phase("a") == "Failed")
        status = on.status("a")
        assert (status["reason"], status["deadLettered"]) == ("TimedOut", True)
        assert "timeouts.totalSeconds = 60" in last(on)[2]


async def test_a_failure_with_no_time_left_for_its_backoff_is_the_last() -> None:
    spec: dict[str, Any] = {"timeouts": {"totalSeconds": 60}, "retry": {"backoff": {"initialSeconds": 50}}}
    spec["retry"]["backoff"]["jitter"] = "None"
    async with working() as on:
        attempt = await running(on, **spec)
        await asyncio.sleep(20)
        on.runner.exit(attempt, code=1)
        await until(lambda: on.phase("a") == "Failed")
        status = on.status("a")
        assert (status["reason"], status["deadLettered"]) == ("TimedOut", True)
        assert last(on)[1] == "ExitCode"


async def test_an_attempt_that_comes_too_late_is_not_begun() -> None:
    async with working() as on:
        on.api.held = True
        attempt = on.submit("a", timeouts={"totalSeconds": 10})
        await asyncio.sleep(11)
        on.api.held = False
        on.api.wake_watches()
        await until(lambda: on.phase("a") == "Failed")
        assert on.status("a")["reason"] == "TimedOut"
        assert attempt not in on.runner.frames


async def test_an_attempt_that_shows_no_sign_of_life_is_stopped() -> None:
    async with working() as on:
        attempt = await running(on, timeouts={"stallSeconds": 30, "graceSeconds": 7}, retry={"limit": 0})
        assert on.runner.frames[attempt]["stallSeconds"] == 30
        on.runner.stalled(attempt)
        assert on.runner.stops == [(attempt, 7)]
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == "Failed")
        message = "no output, progress or checkpoint for timeouts.stallSeconds = 30 s"
        assert last(on) == ("Failed", "Stalled", message)


async def test_what_is_being_stopped_cannot_stall_as_well() -> None:
    async with working() as on:
        attempt = await running(on, timeouts={"stallSeconds": 30, "graceSeconds": 7})
        on.edit("a", suspend=True)
        await until(lambda: bool(on.runner.stops))
        on.runner.stalled(attempt)
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == "Pending")
        assert len(on.runner.stops) == 1
        assert last(on)[1] == "Suspended"


# ---- the runner


async def test_the_death_of_the_runner_is_counted_against_its_tasks() -> None:
    async with working() as on:
        await running(on)
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("a") == "Pending")
        assert charged(on) == {"workerLosses": 1, "runnerDeaths": 1}


async def test_but_not_while_the_worker_is_being_terminated() -> None:
    async with working() as on:
        await running(on)
        on.worker.terminate()
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("a") == "Pending")
        assert charged(on) == {"workerLosses": 1}


async def test_it_is_while_the_worker_only_drains() -> None:
    async with working() as on:
        await running(on)
        on.worker.on_drain_request("node")
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("a") == "Pending")
        assert charged(on) == {"workerLosses": 1, "runnerDeaths": 1}


async def test_an_attempt_that_is_being_stopped_ends_as_intended_when_the_runner_dies() -> None:
    async with working() as on:
        await running(on)
        on.edit("a", cancel=True)
        await until(lambda: bool(on.runner.stops))
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("a") == "Cancelled")


async def test_an_attempt_for_which_there_was_no_process_is_given_back_for_a_while() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.runner.exit(attempt, code=None, supervisorLost=True, exhausted=True)
        await until(lambda: on.phase("a") == "Pending")
        status = on.status("a")
        assert last(on) == ("Released", "Interrupted", "the worker had no process left for it")
        assert charged(on) == {}
        assert status["reason"] == "BackingOff"
        assert "startTime" not in status


# ---- what the runner is told, and what is watched


async def test_the_runner_is_told_memory_and_the_last_checkpoint() -> None:
    async with working() as on:
        on.create("a", resources={"memoryMiB": 64})
        checkpoint = {"attempt": 1, "time": "2027-01-01T00:00:00Z", "data": {"step": 3}}
        on.write_status("a", [{"op": "add", "path": "/status/checkpoint", "value": checkpoint}])
        attempt = on.assign("a")
        await until(lambda: attempt in on.runner.frames)
        frame = on.runner.frames[attempt]
        assert (frame["memoryBytes"], frame["checkpoint"]) == (64 * 1024 * 1024, {"step": 3})
        assert "stallSeconds" not in frame


@pytest.mark.parametrize("phase", ["Succeeded", "Failed", "Cancelled", "Skipped"])
async def test_finished_tasks_are_not_watched(phase: str) -> None:
    async with working() as on:
        attempt = await running(on)
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        on.write_status("a", [{"op": "replace", "path": "/status/phase", "value": phase}])
        await asyncio.sleep(1)
        assert on.status("a")["assignment"]["worker"] == "pool-worker-1"
        assert on.worker.informer.store == {}


def _is_start(call: Call) -> bool:
    return (
        call.resource is TASKS
        and isinstance(call.body, JsonPatch)
        and any(op["path"] == "/status/phase" and op["value"] == "Running" for op in call.body.ops)
    )


def test_every_request_of_the_coordinator_is_known() -> None:
    assert set(stops.REQUESTED) == set(StopReason)
