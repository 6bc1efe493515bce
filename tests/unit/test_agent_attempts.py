"""Attempts on a worker, from assignment to record, with a runner played by the test."""

import asyncio
from typing import Any

import pytest
from tests.sim.memory_api import Fault
from tests.unit.agent_worker import POD, Stage, stage, until, working

from taskmaster.core.capacity import Worker
from taskmaster.kube.api import MergePatch, WatchEvent
from taskmaster.kube.errors import Unanswered
from taskmaster.kube.informer import Delta
from taskmaster.kube.resource import LEASES, TASKS
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.tombstones import Tombstones

pytestmark = pytest.mark.looptime


async def begun(on: Stage, attempt_id: str) -> None:
    await until(lambda: attempt_id in on.runner.frames)


async def test_a_short_task_costs_the_agent_one_write() -> None:
    async with working() as on:
        attempt = on.submit("a", env=[{"name": "FOO", "value": "1"}, {"name": "BAR"}], workingDir="/data")
        await begun(on, attempt)
        assert on.runner.frames[attempt] == {
            "type": "start",
            "id": attempt,
            "task": {"name": "a", "namespace": "team", "uid": attempt.split("/")[0], "attempt": 1},
            "run": {"command": ["true"]},
            "env": {"FOO": "1", "BAR": ""},
            "workingDir": "/data",
        }
        on.runner.started(attempt)
        await asyncio.sleep(0.5)
        on.runner.exit(attempt, result={"sum": 3}, tail="hello\n")
        await until(lambda: on.phase("a") == "Succeeded")
        await asyncio.sleep(5)
        status = on.status("a")
        assert (status["reason"], status["result"], status["logTail"], status["exitCode"]) == (
            "Completed",
            {"sum": 3},
            "hello\n",
            0,
        )
        assert len(on.status_writes()) == 1
        assert on.metric("taskmaster_worker_attempts_total", outcome="Succeeded", reason="Completed") == 1
        assert on.worker.attempts.empty.is_set()


async def test_a_task_is_reported_as_running_after_a_second_of_its_process() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await begun(on, attempt)
        await asyncio.sleep(3)
        assert on.phase("a") == "Assigned", "its process does not exist yet"
        on.runner.started(attempt)
        await asyncio.sleep(0.9)
        assert on.phase("a") == "Assigned"
        await asyncio.sleep(0.2)
        assert on.phase("a") == "Running"
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert len(on.status_writes()) == 2


async def test_a_failed_attempt_returns_to_pending_in_one_write_and_the_next_runs_here() -> None:
    async with working() as on:
        first = on.submit("a", retry={"backoff": {"jitter": "None"}})
        await begun(on, first)
        on.runner.exit(first, code=3)
        await until(lambda: on.phase("a") == "Pending")
        status = on.status("a")
        assert status["failures"] == 1
        assert "assignment" not in status
        assert status["reason"] == "BackingOff"
        second = on.assign("a")
        assert second.endswith("/2")
        await begun(on, second)
        on.runner.exit(second)
        await until(lambda: on.phase("a") == "Succeeded")
        assert [past["outcome"] for past in on.status("a")["attempts"]] == ["Failed", "Succeeded"]


async def test_an_attempt_without_retries_left_fails_for_good() -> None:
    async with working() as on:
        attempt = on.submit("a", retry={"limit": 0})
        await begun(on, attempt)
        on.runner.exit(attempt, code=3)
        await until(lambda: on.phase("a") == "Failed")
        assert on.status("a")["message"] == "exit code 3"


async def test_an_attempt_beyond_its_time_is_stopped_and_failed() -> None:
    async with working() as on:
        attempt = on.submit("a", timeouts={"attemptSeconds": 60, "graceSeconds": 7}, retry={"limit": 0})
        await begun(on, attempt)
        on.runner.started(attempt)
        await asyncio.sleep(59)
        assert on.runner.stops == []
        await asyncio.sleep(1.5)
        assert on.runner.stops == [(attempt, 7)]
        on.runner.exit(attempt, code=0)
        await until(lambda: on.phase("a") == "Failed")
        status = on.status("a")
        assert status["reason"] == "TimedOut"
        assert status["message"] == "ran longer than timeouts.attemptSeconds = 60 s"


async def test_more_assignments_than_slots_are_given_back() -> None:
    async with working(slots=2) as on:
        ids = [on.submit(name) for name in ("a", "b", "c")]
        await until(lambda: on.phase("c") == "Pending")
        assert set(on.runner.frames) == set(ids[:2])
        record = on.status("c")["attempts"][-1]
        assert (record["outcome"], record["message"]) == ("Released", "the worker was full")
        assert not any(on.status("c").get(name) for name in ("failures", "workerLosses", "interruptions"))


async def test_a_slot_whose_end_is_still_being_written_is_free() -> None:
    async with working(slots=1) as on:
        first = on.submit("a")
        await begun(on, first)
        on.api.latency = 2.0  # the coordinator hears of the end before the agent hears the answer
        on.runner.exit(first)
        await until(lambda: on.phase("a") == "Succeeded")
        second = on.submit("b")
        await begun(on, second)


async def test_a_task_taken_away_is_stopped_with_its_grace_and_its_result_dropped() -> None:
    async with working() as on:
        attempt = on.submit("a", timeouts={"graceSeconds": 9})
        await begun(on, attempt)
        on.runner.started(attempt)
        await until(lambda: on.phase("a") == "Running")
        on.requeue("a")
        await until(lambda: on.runner.stops == [(attempt, 9)])
        on.runner.exit(attempt, result=1)
        await asyncio.sleep(1)
        assert on.phase("a") == "Pending"
        assert len(on.status_writes()) == 1, "only the start report"
        assert on.metric("taskmaster_worker_superseded_total") == 1


async def test_a_deleted_task_is_stopped() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await begun(on, attempt)
        on.server.delete(TASKS, "team", "a")
        await until(lambda: on.runner.stops == [(attempt, 20)])
        on.runner.exit(attempt)
        await on.worker.attempts.empty.wait()


async def test_a_process_in_its_grace_holds_back_the_next_assignment() -> None:
    async with working(slots=1) as on:
        first = on.submit("a")
        await begun(on, first)
        on.requeue("a")
        await until(lambda: bool(on.runner.stops))
        second = on.submit("b")
        await asyncio.sleep(5)
        assert second not in on.runner.frames
        assert on.phase("b") == "Assigned"
        on.runner.exit(first)
        await begun(on, second)


async def test_the_next_attempt_of_a_task_waits_for_the_process_of_the_last() -> None:
    async with working(slots=4) as on:
        first = on.submit("a")
        await begun(on, first)
        on.requeue("a")
        second = on.assign("a")
        await asyncio.sleep(5)
        assert second not in on.runner.frames
        on.runner.exit(first)
        await begun(on, second)
        on.runner.exit(second)
        await until(lambda: on.phase("a") == "Succeeded")


async def test_an_assignment_withdrawn_while_it_waits_is_never_begun() -> None:
    async with working(slots=1) as on:
        first = on.submit("a")
        await begun(on, first)
        on.requeue("a")
        second = on.submit("b")
        await asyncio.sleep(1)
        on.requeue("b")
        await asyncio.sleep(1)
        on.runner.exit(first)
        await asyncio.sleep(1)
        assert second not in on.runner.frames


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"incarnation": "an-earlier-life"}, id="another incarnation"),
        pytest.param({"pod_uid": "another-pod"}, id="another pod of the same name"),
    ],
)
async def test_what_is_assigned_to_another_life_is_left_to_the_coordinator(changes: dict[str, str]) -> None:
    async with working() as on:
        on.create("a")
        attempt = on.assign("a", **changes)
        await asyncio.sleep(5)
        assert attempt not in on.runner.frames
        assert on.phase("a") == "Assigned"
        assert on.status_writes() == []


async def test_repeated_events_and_relists_start_nothing_twice() -> None:
    async with working() as on:
        on.api.events = lambda event: (event, event)
        attempt = on.submit("a")
        await begun(on, attempt)
        on.server.compact()
        on.api.break_watches(Unanswered("reset"))
        await asyncio.sleep(2)
        on.server.patch(TASKS, "team", "a", _edit({"priority": 5}))
        await asyncio.sleep(2)
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        assert len(on.runner.frames) == 1


async def test_an_attempt_that_is_over_is_not_begun_again_by_a_late_event() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await begun(on, attempt)
        late = on.assigned("a")
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        await asyncio.sleep(1)
        on.worker.attempts.on_deltas([_added(late)])
        await asyncio.sleep(1)
        assert len(on.runner.frames) == 1
        assert on.worker.attempts.empty.is_set()


async def test_an_older_attempt_than_a_known_one_is_never_begun() -> None:
    async with working() as on:
        on.submit("a")
        late = on.assigned("a")
        on.requeue("a")
        second = on.assign("a")
        await begun(on, second)
        on.worker.attempts.on_deltas([_added(late)])
        await asyncio.sleep(1)
        assert list(on.runner.frames) == [second]


async def test_events_that_arrive_stale_and_all_at_once_start_only_what_is_still_ours() -> None:
    async with working() as on:
        on.api.held = True
        on.submit("a")
        on.requeue("a")
        attempt = on.assign("a")
        on.api.held = False
        on.api.wake_watches()
        await begun(on, attempt)
        assert list(on.runner.frames) == [attempt]


async def test_a_lost_runner_loses_all_attempts_and_says_so_at_once() -> None:
    async with working(slots=3) as on:
        ids = [on.submit(name) for name in ("a", "b")]
        for attempt in ids:
            await begun(on, attempt)
        on.runner.away = True
        on.runner.reset("the runner container died")
        await until(lambda: on.phase("a") == on.phase("b") == "Pending", seconds=1)
        assert on.status("a")["workerLosses"] == 1
        assert on.status("a")["attempts"][-1]["message"] == "the runner container died"
        await until(lambda: on.state == "Unavailable", seconds=1)
        on.runner.away = False
        await until(lambda: on.state == "Ready")
        assert on.life.incarnation == "life-1"


async def test_an_assignment_that_meets_no_runner_is_given_back_once_the_lease_says_so() -> None:
    async with working() as on:
        on.runner.away = True
        on.runner.reset("the runner container died")
        attempt = on.submit("a")
        await until(lambda: on.phase("a") == "Pending")
        assert on.state == "Unavailable"
        assert on.status("a")["attempts"][-1]["outcome"] == "Released"
        assert attempt not in on.runner.frames


async def test_it_is_not_given_back_while_the_lease_still_invites() -> None:
    async with working() as on:
        on.api.faults = lambda call: Fault(before=Unanswered("refused")) if call.resource is LEASES else None
        on.runner.away = True
        on.runner.reset("the runner container died")
        attempt = on.submit("a")
        await asyncio.sleep(30)
        assert on.phase("a") == "Assigned"
        on.runner.away = False
        await begun(on, attempt)


async def test_a_start_report_ends_with_its_attempt() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await begun(on, attempt)
        on.runner.started(attempt)
        on.api.faults = lambda call: _down() if call.subresource == "status" else None
        await asyncio.sleep(30)
        on.api.faults = lambda call: None
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")
        sent = len(on.api.calls)
        await asyncio.sleep(30)
        assert not [call for call in on.api.calls[sent:] if call.resource is TASKS and call.verb != "watch"]


async def test_an_attempt_that_is_being_stopped_does_not_time_out_as_well() -> None:
    async with working(drain_seconds=10) as on:
        attempt = on.submit("a", timeouts={"attemptSeconds": 15, "graceSeconds": 100})
        await begun(on, attempt)
        on.worker.terminate()
        await asyncio.sleep(20)
        assert on.runner.stops == [(attempt, 20)]
        on.runner.exit(attempt, code=0)
        await until(lambda: on.phase("a") == "Pending")
        assert on.status("a")["attempts"][-1]["reason"] == "Interrupted"


def test_tombstones_forget_the_oldest_first_and_remember_the_highest_attempt() -> None:
    tombs = Tombstones(kept=2)
    tombs.bury("a", 3)
    tombs.bury("b", 1)
    tombs.bury("a", 2)
    assert (tombs.covers("a", 3), tombs.covers("a", 4), tombs.covers("b", 1)) == (True, False, True)
    tombs.bury("c", 1)
    assert (tombs.covers("a", 3), tombs.covers("b", 1), tombs.covers("c", 1)) == (True, False, True)


async def test_a_task_that_this_version_cannot_read_fails_instead_of_hanging() -> None:
    async with working() as on:
        on.create("a", retry={"limit": 0})
        task = on.task("a")
        assert task["status"]["phase"] == "Pending"
        on.api.events = _with_unknown_jitter
        on.assign("a")
        await until(lambda: on.phase("a") in ("Failed", "Pending"))
        assert on.status("a")["attempts"][-1]["reason"] == "StartFailed"
        assert "Sideways" in on.status("a")["attempts"][-1]["message"]


async def test_a_start_report_that_finds_the_task_moved_on_kills_the_process() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await begun(on, attempt)
        on.runner.started(attempt)
        on.api.held = True
        on.requeue("a")
        await asyncio.sleep(2)
        assert on.runner.stops == [(attempt, 20)]
        assert on.phase("a") == "Pending"


async def test_the_end_is_recorded_however_long_the_api_server_is_away() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await begun(on, attempt)
        on.api.faults = lambda call: _down()
        on.runner.exit(attempt)
        await asyncio.sleep(3_600)
        assert on.phase("a") == "Assigned"
        on.api.faults = lambda call: None
        await until(lambda: on.phase("a") == "Succeeded")


async def test_a_restarted_agent_leaves_its_earlier_lifes_tasks_to_the_coordinator() -> None:
    def before(on: Stage) -> None:
        on.create("a")
        task = {"name": POD, "pod_uid": "pod-uid-1", "incarnation": "life-0"}
        on.registered = lambda: _worker(**task)  # type: ignore[method-assign]
        on.assign("a")

    async with stage(before) as on:
        await until(lambda: on.worker.lease.published == "Ready")
        await asyncio.sleep(5)
        assert on.runner.frames == {}
        assert on.phase("a") == "Assigned"


def _edit(spec: dict[str, Any]) -> MergePatch:
    return MergePatch({"spec": spec})


def _added(task: Assigned) -> Delta[Assigned]:
    return Delta(None, task)


def _worker(name: str, pod_uid: str, incarnation: str) -> Worker:
    return Worker("team", name, pod_uid, "pool", incarnation, "", 1, True)


def _down() -> Fault:
    return Fault(before=Unanswered("connection refused"))


def _with_unknown_jitter(event: WatchEvent) -> tuple[WatchEvent]:
    if "status" in event.object and "assignment" in event.object["status"]:
        event.object["status"]["assignment"]["policy"]["backoff"]["jitter"] = "Sideways"
    return (event,)
