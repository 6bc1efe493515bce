"""Status writes and every answer that the API server may give to one."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from tests.sim.memory_api import Call, Fault, lost_answer
from tests.unit.agent_worker import Stage, wall_clock

from taskmaster.api.patches import Ended, Saved
from taskmaster.core.capacity import Worker
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.reason import EndReason
from taskmaster.core.retry import Outcome
from taskmaster.core.task import Instant
from taskmaster.kube.api import JsonPatch
from taskmaster.kube.errors import (
    ApiError,
    Conflict,
    Forbidden,
    NotFound,
    ServerError,
    TooLarge,
    TooManyRequests,
    Unanswered,
    Unauthorized,
    Unprocessable,
)
from taskmaster.kube.resource import TASKS
from taskmaster_worker.agent import record
from taskmaster_worker.agent.record import StatusWrite
from taskmaster_worker.agent.standing import Standing, standing
from taskmaster_worker.agent.writer import Settled, StatusWriter

pytestmark = pytest.mark.looptime


@pytest.fixture
def on() -> Callable[[], Stage]:
    def build() -> Stage:
        built = Stage()
        built.registered = lambda: _WORKER  # type: ignore[method-assign]
        return built

    return build


_WORKER = Worker("team", "pool-worker-1", "pod-uid-1", "pool", "life-1", "", 1, True)


def writer(stage: Stage, **changes: Any) -> StatusWriter:
    return StatusWriter(stage.api, observer=stage.metrics, clock=stage.clock, random=Random(1), **changes)


def finish(stage: Stage, name: str, *, result: Any = None) -> StatusWrite:
    ended = Ended(Outcome.SUCCEEDED, EndReason.COMPLETED, "", Instant(wall_clock()), exit_code=0, result=result)
    return record.end(stage.assigned(name), ended, BUILT_IN, seconds_left=None, random=Random(1))


def again(stage: Stage, name: str) -> StatusWrite:
    ended = Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", Instant(wall_clock()), exit_code=3)
    return record.end(stage.assigned(name), ended, BUILT_IN, seconds_left=None, random=Random(1))


def start(stage: Stage, name: str) -> StatusWrite:
    return record.start(stage.assigned(name), started=Instant(wall_clock()))


def save(stage: Stage, name: str) -> StatusWrite:
    checkpoint = {"attempt": 1, "time": "2027-01-15T08:01:40.000001Z", "data": 3}
    return record.save(stage.assigned(name), Saved({"current": 1}, checkpoint))


async def run(stage: Stage, name: str) -> None:
    """Let a Task be Running."""
    stage.submit(name)
    assert await writer(stage).write(start(stage, name)) is Settled.DONE


def first_writes(*faults: Fault) -> Callable[[Call], Fault | None]:
    """Let the first status writes meet these."""
    left = list(faults)

    def fault(call: Call) -> Fault | None:
        return left.pop(0) if left and call.verb == "patch" else None

    return fault


KINDS = [pytest.param(finish, "Succeeded", id="finish"), pytest.param(again, "Pending", id="again")]
Make = Callable[[Stage, str], StatusWrite]


@pytest.mark.parametrize(("make", "phase"), [*KINDS, pytest.param(start, "Running", id="start")])
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param([], id="applied at once"),
        pytest.param([Fault(before=Conflict("changed"))], id="409"),
        pytest.param([Fault(before=TooManyRequests("later", retry_after=3))], id="429"),
        pytest.param([Fault(before=Unauthorized("expired"))], id="401"),
        pytest.param([Fault(before=ServerError("etcd"))] * 7, id="5xx, many times"),
        pytest.param([Fault(after=ServerError("etcd timed out"))], id="5xx, applied all the same"),
        pytest.param([Fault(before=Unanswered("refused"))] * 3, id="connection refused"),
        pytest.param([lost_answer()], id="answer lost"),
        pytest.param([Fault(before=Forbidden("no role yet"))] * 3, id="403 until the role is there"),
    ],
)
async def test_it_is_repeated_until_it_is_written_once(
    on: Callable[[], Stage], make: Make, phase: str, faults: list[Fault]
) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = first_writes(*faults)
    assert await writer(stage).write(make(stage, "a")) is Settled.DONE
    assert stage.phase("a") == phase
    versions = [change for change in stage.server.history if change.client == "agent"]
    assert len(versions) == 1


@pytest.mark.parametrize(("make", "phase"), KINDS)
@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(Unprocessable("status.result: too long"), id="422"),
        pytest.param(TooLarge("etcdserver: request is too large"), id="413"),
        pytest.param(ApiError("cannot decode", status=400), id="400"),
    ],
)
async def test_what_the_server_does_not_accept_becomes_a_minimal_failure(
    on: Callable[[], Stage], make: Make, phase: str, refusal: ApiError
) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = first_writes(Fault(before=refusal))
    assert await writer(stage).write(make(stage, "a")) is Settled.REJECTED
    status = stage.status("a")
    assert (status["phase"], status["reason"]) == ("Failed", "ResultRejected")
    assert refusal.message in status["message"]
    assert "result" not in status
    assert status["logTail"] == ""
    assert status["failures"] == 1


WEATHER = [
    pytest.param(Fault(), id="applied at once"),
    pytest.param(Fault(before=Conflict("changed")), id="409"),
    pytest.param(Fault(before=TooManyRequests("later", retry_after=3)), id="429"),
    pytest.param(Fault(before=ServerError("etcd")), id="5xx"),
    pytest.param(Fault(after=ServerError("etcd timed out")), id="5xx, applied all the same"),
    pytest.param(lost_answer(), id="answer lost"),
    pytest.param(Fault(before=Forbidden("no role yet")), id="403"),
]


@pytest.mark.parametrize("fault", WEATHER)
async def test_a_save_is_repeated_until_it_is_written_once(on: Callable[[], Stage], fault: Fault) -> None:
    stage = on()
    await run(stage, "a")
    stage.api.faults = first_writes(fault)
    assert await writer(stage).write(save(stage, "a")) is Settled.DONE
    assert stage.status("a")["checkpoint"]["data"] == 3
    assert len([change for change in stage.server.history if change.client == "agent"]) == 2


async def test_an_applied_save_is_recognised_after_the_server_has_filled_it_in(on: Callable[[], Stage]) -> None:
    stage = on()
    await run(stage, "a")
    stage.api.faults = first_writes(lost_answer())
    filled = [{"op": "add", "path": "/status/progress/message", "value": ""}]
    task = asyncio.create_task(writer(stage).write(save(stage, "a")))
    await asyncio.sleep(0.02)
    stage.write_status("a", filled)
    assert await task is Settled.DONE
    assert len([change for change in stage.server.history if change.client == "agent"]) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [("checkpoint/time", "2027-01-15T08:01:39.000001Z"), ("checkpoint/attempt", 0), ("progress/current", 0)],
)
async def test_another_save_is_not_taken_for_ours(on: Callable[[], Stage], path: str, value: Any) -> None:
    stage = on()
    await run(stage, "a")
    write = save(stage, "a")
    assert await writer(stage).write(write) is Settled.DONE
    stage.write_status("a", [{"op": "replace", "path": f"/status/{path}", "value": value}])
    assert standing(write, stage.task("a")) is Standing.OPEN


@pytest.mark.parametrize("refusal", [Unprocessable("no"), TooLarge("large"), TypeError("Integer exceeds 64-bit range")])
async def test_a_refused_save_is_dropped_and_the_attempt_goes_on(on: Callable[[], Stage], refusal: Exception) -> None:
    stage = on()
    await run(stage, "a")
    before = stage.task("a")
    stage.api.faults = first_writes(Fault(before=refusal))
    assert await writer(stage).write(save(stage, "a")) is Settled.REJECTED
    assert stage.task("a") == before


async def test_a_save_after_the_end_of_its_attempt_is_superseded(on: Callable[[], Stage]) -> None:
    stage = on()
    await run(stage, "a")
    write = save(stage, "a")
    assert await writer(stage).write(finish(stage, "a")) is Settled.DONE
    before = stage.task("a")
    assert await writer(stage).write(write) is Settled.SUPERSEDED
    assert stage.task("a") == before


async def test_the_last_resort_is_no_dead_letter_and_carries_nothing_of_what_was_refused(
    on: Callable[[], Stage],
) -> None:
    stage = on()
    stage.submit("a")
    ended = Ended(Outcome.FAILED, EndReason.EXIT_CODE, "exit code 3", Instant(wall_clock()), log_tail="x")
    saved = Saved({"current": 1}, {"attempt": 1, "time": "2027-01-15T08:01:40Z", "data": 3})
    write = record.end(stage.assigned("a"), ended, BUILT_IN, seconds_left=None, random=Random(1), saved=saved)
    stage.api.faults = first_writes(Fault(before=Unprocessable("no")))
    assert await writer(stage).write(write) is Settled.REJECTED
    status = stage.status("a")
    assert (status["phase"], status["reason"]) == ("Failed", "ResultRejected")
    assert not {"deadLettered", "checkpoint", "progress"} & status.keys()


async def test_what_cannot_even_be_encoded_becomes_a_minimal_failure(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = first_writes(Fault(before=TypeError("Integer exceeds 64-bit range")))
    assert await writer(stage).write(finish(stage, "a", result=2**70)) is Settled.REJECTED
    assert "64-bit" in stage.status("a")["message"]


async def test_a_minimal_record_that_is_refused_too_is_repeated_for_ever(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = first_writes(*[Fault(before=Unprocessable("no"))] * 10)
    assert await writer(stage).write(finish(stage, "a")) is Settled.REJECTED
    assert stage.phase("a") == "Failed"


async def test_a_refused_start_report_is_dropped(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = first_writes(Fault(before=Unprocessable("no")))
    assert await writer(stage).write(start(stage, "a")) is Settled.REJECTED
    assert stage.phase("a") == "Assigned"


@pytest.mark.parametrize("make", [finish, again, start, save])
async def test_a_task_that_has_moved_on_is_left_alone(on: Callable[[], Stage], make: Make) -> None:
    stage = on()
    stage.submit("a")
    write = make(stage, "a")
    stage.requeue("a")
    stage.assign("a")
    before = stage.task("a")
    assert await writer(stage).write(write) is Settled.SUPERSEDED
    assert stage.task("a") == before


async def test_the_coordinators_record_of_the_same_attempt_is_not_taken_for_ours(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    write = again(stage, "a")
    await asyncio.sleep(1)
    stage.requeue("a")
    assert await writer(stage).write(write) is Settled.SUPERSEDED


async def test_a_refusal_by_the_admission_policy_after_a_lost_answer_is_no_failure(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = first_writes(lost_answer())
    write = finish(stage, "a")
    assert await writer(stage).write(write) is Settled.DONE
    stage.api.faults = first_writes(Fault(before=Forbidden("a worker may write only while it holds the Task")))
    assert await writer(stage).write(write) is Settled.DONE


@pytest.mark.parametrize("recreated", [False, True])
async def test_a_deleted_task_is_gone(on: Callable[[], Stage], recreated: bool) -> None:
    stage = on()
    stage.submit("a")
    write = finish(stage, "a")
    stage.server.delete(TASKS, "team", "a")
    if recreated:
        stage.submit("a")
    assert await writer(stage).write(write) is Settled.GONE


async def test_a_task_deleted_between_write_and_read_is_gone(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    stage.api.faults = lambda call: Fault(before=Unanswered("x") if call.verb == "patch" else NotFound("gone"))
    assert await writer(stage).write(finish(stage, "a")) is Settled.GONE


async def test_reads_are_repeated_as_well(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    down_until = stage.clock() + 600

    def fault(call: Call) -> Fault | None:
        return Fault(before=Unanswered("refused")) if stage.clock() < down_until else None

    stage.api.faults = fault
    assert await writer(stage).write(finish(stage, "a")) is Settled.DONE
    assert stage.clock() < down_until + 20
    assert len(stage.api.calls) < 100


async def test_trouble_is_told_while_writes_fail_and_forgotten_when_one_is_settled(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    subject = writer(stage)
    stage.api.faults = lambda call: Fault(before=Forbidden("no role"))
    task = asyncio.create_task(subject.write(finish(stage, "a")))
    await asyncio.sleep(60)
    assert subject.trouble is not None
    assert subject.trouble.since < 1
    stage.api.faults = lambda call: None
    await task
    assert subject.trouble is None


async def test_a_server_that_sheds_load_is_no_trouble_of_ours(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    subject = writer(stage)
    stage.api.faults = first_writes(*[Fault(before=TooManyRequests("later", retry_after=20))] * 3)
    task = asyncio.create_task(subject.write(finish(stage, "a")))
    await asyncio.sleep(30)
    assert subject.trouble is None
    await task


async def test_no_more_requests_at_once_than_allowed(on: Callable[[], Stage]) -> None:
    stage = on()
    names = [f"t{i}" for i in range(20)]
    for name in names:
        stage.submit(name)
    stage.api.latency = 1.0
    subject = writer(stage, concurrency=4)
    await asyncio.gather(*(subject.write(finish(stage, name)) for name in names))
    assert stage.clock() == pytest.approx(5.0, abs=0.1)


async def test_the_operations_name_the_state_they_leave(on: Callable[[], Stage]) -> None:
    stage = on()
    stage.submit("a")
    await writer(stage).write(finish(stage, "a"))
    body = stage.api.calls[-1].body
    assert isinstance(body, JsonPatch)
    tested = {op["path"] for op in body.ops if op["op"] == "test"}
    assert {"/metadata/uid", "/status/attempt", "/status/assignment/podUID"} <= tested
    assert stage.metric("taskmaster_worker_status_writes_total", kind="finish", code="200") == 1
