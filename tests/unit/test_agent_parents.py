"""Results of the Tasks that a Task depends on: what the process is given, and what becomes of reads that fail."""

import asyncio
from typing import Any

import pytest
from tests.sim.memory_api import Call, Fault
from tests.unit.agent_worker import NAMESPACE, Stage, until, working
from tests.unit.test_agent_sources import LISTED, password, secret

from taskmaster.kube.api import WatchEvent
from taskmaster.kube.errors import ApiError, Forbidden, ServerError, TooManyRequests, Unanswered, Unauthorized
from taskmaster.kube.resource import TASKS, Object
from taskmaster_worker.agent.parents import MAX_RESULTS_BYTES, Parents
from taskmaster_worker.agent.reader import CONCURRENCY, Reader, UnresolvedError
from taskmaster_worker.runner.frames import encode
from taskmaster_worker.runner.result import MAX_RESULT_BYTES

pytestmark = pytest.mark.looptime

NO_RETRY = {"retry": {"limit": 0}}


def needs(*names: str, condition: str = "Finished") -> dict[str, Any]:
    return {"dependsOn": [{"name": name, "condition": condition} for name in names]}


def parent(on: Stage, name: str, result: Any = None) -> None:
    """A Task that has ended, with a result or without."""
    on.create(name)
    operations: list[Object] = [{"op": "add", "path": "/status/phase", "value": "Succeeded"}]
    if result is not None:
        operations.append({"op": "add", "path": "/status/result", "value": result})
    on.write_status(name, operations)


def reads(on: Stage) -> list[str]:
    return [call.name for call in on.api.calls if reading(call)]


def reading(call: Call) -> bool:
    return call.verb == "get" and call.resource is TASKS


def unreadable(call: Call) -> Fault | None:
    return Fault(before=Unanswered("refused")) if reading(call) else None


async def given(on: Stage, attempt: str) -> Any:
    await until(lambda: attempt in on.runner.frames)
    return on.runner.frames[attempt].get("dependencies", {})


async def failed(on: Stage, name: str = "a") -> tuple[str, str]:
    await until(lambda: on.phase(name) in ("Failed", "Pending") and bool(on.status(name).get("attempts")))
    record = on.status(name)["attempts"][-1]
    assert record["outcome"] == "Failed"
    return record["reason"], record["message"]


async def test_the_results_of_parents_reach_the_process_by_name() -> None:
    async with working() as on:
        parent(on, "sum", {"total": 3, "of": ["ü", None]})
        parent(on, "list", [1, 2])
        parent(on, "zero", 0)
        attempt = on.submit("a", **needs("zero", "sum", "list"))
        results = await given(on, attempt)
        assert results == {"zero": 0, "sum": {"total": 3, "of": ["ü", None]}, "list": [1, 2]}
        assert list(results) == ["zero", "sum", "list"], "in the order of the Task"


async def test_one_without_a_result_is_none_and_one_that_is_gone_is_not_there() -> None:
    async with working() as on:
        parent(on, "silent")
        on.create("started-anew")
        attempt = on.submit("a", **needs("silent", "gone", "started-anew"))
        assert await given(on, attempt) == {"silent": None, "started-anew": None}


async def test_when_all_are_gone_the_task_starts_all_the_same() -> None:
    async with working() as on:
        assert await given(on, on.submit("a", **needs("gone", "gone-too"))) == {}


async def test_a_parent_that_is_named_twice_is_read_once() -> None:
    async with working() as on:
        parent(on, "sum", 3)
        assert await given(on, on.submit("a", **needs("sum", "sum"))) == {"sum": 3}
        assert reads(on) == ["sum"]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({}, id="no parents"),
        pytest.param({"dependsOn": []}, id="none of them"),
        pytest.param({"run": {"http": {"url": "http://127.0.0.1:9/"}}, **needs("sum"), **NO_RETRY}, id="a request"),
    ],
)
async def test_without_a_use_for_results_nothing_is_read(spec: dict[str, Any]) -> None:
    async with working() as on:
        parent(on, "sum", 3)
        attempt = on.submit("a", **spec)
        await until(lambda: attempt in on.runner.frames or on.phase("a") == "Failed")
        assert reads(on) == []


async def test_results_and_values_come_together() -> None:
    async with working(**LISTED) as on:
        secret(on, password=b"p4ss")
        parent(on, "sum", 3)
        attempt = on.submit("a", env=password(), **needs("sum"))
        assert await given(on, attempt) == {"sum": 3}
        assert on.runner.frames[attempt]["env"] == {"PASSWORD": "p4ss"}


async def test_they_are_read_anew_for_every_attempt() -> None:
    async with working() as on:
        parent(on, "sum", 3)
        one = on.submit("a", **needs("sum"))
        assert await given(on, one) == {"sum": 3}
        on.runner.exit(one, code=1)
        await until(lambda: on.phase("a") == "Pending")
        on.write_status("sum", [{"op": "add", "path": "/status/result", "value": 4}])
        assert await given(on, on.assign("a")) == {"sum": 4}


async def test_only_a_few_are_read_at_a_time() -> None:
    async with working() as on:
        names = [f"parent-{number}" for number in range(5 * CONCURRENCY)]
        for number, name in enumerate(names):
            parent(on, name, number)
        on.api.faults = lambda call: Fault(delay=10.0) if reading(call) else None
        attempt = on.submit("a", **needs(*names))
        began = on.now()
        for rounds in range(1, 6):
            await until(lambda rounds=rounds: len(reads(on)) == rounds * CONCURRENCY)  # type: ignore[misc]
            await asyncio.sleep(5)
            assert len(reads(on)) == rounds * CONCURRENCY
        assert await given(on, attempt) == {name: number for number, name in enumerate(names)}
        assert on.now() - began < 60


@pytest.mark.parametrize(
    "error",
    [Unanswered("refused"), ServerError("etcd"), TooManyRequests("later"), Unauthorized("expired")],
    ids=["no answer", "5xx", "429", "401"],
)
async def test_a_server_that_does_not_answer_is_asked_until_it_does(error: ApiError) -> None:
    async with working(slots=1) as on:
        parent(on, "sum", 3)
        on.api.faults = lambda call: Fault(before=error) if reading(call) else None
        attempt = on.submit("a", **needs("sum"))
        await asyncio.sleep(600)
        assert on.phase("a") == "Assigned"
        assert 30 < len(reads(on)) < 100
        assert on.worker.attempts.slots_taken == 1
        on.api.faults = lambda call: None
        assert await given(on, attempt) == {"sum": 3}


async def test_a_worker_that_may_not_read_tasks_says_so() -> None:
    async with working() as on:
        for name in ("one", "two", "three"):
            parent(on, name, 1)
        on.api.faults = lambda call: Fault(before=Forbidden("tasks is forbidden")) if reading(call) else None
        on.submit("a", **needs("one", "two", "three"))
        reason, message = await failed(on)
        assert reason == "StartFailed"
        assert "does not let this worker read Task one, which spec.dependsOn names" in message
        assert on.phase("a") == "Pending", "it may be mended"


async def test_results_that_are_too_large_together_are_refused_with_a_word_what_to_do() -> None:
    async with working() as on:
        names = [f"parent-{number}" for number in range(MAX_RESULTS_BYTES // MAX_RESULT_BYTES + 1)]
        for name in names:
            parent(on, name, "x" * (MAX_RESULT_BYTES - 2))
        attempt = on.submit("a", **needs(*names))
        assert await failed(on) == (
            "StartFailed",
            "the results of the Tasks in spec.dependsOn are larger than 2097152 bytes together: "
            "let them keep their data elsewhere and return where it is",
        )
        assert on.phase("a") == "Failed", "another attempt would find the same"
        assert not on.status("a").get("deadLettered")
        assert attempt not in on.runner.frames
        assert on.worker.attempts.slots_taken == 0
        most = on.submit("b", **needs(*names[:-2]))
        await given(on, most)
        assert len(encode(on.runner.frames[most])) > MAX_RESULTS_BYTES * 0.9


@pytest.mark.parametrize(("ask", "phase"), [({"cancel": True}, "Cancelled"), ({"suspend": True}, "Pending")])
async def test_a_stop_ends_the_reading_at_once_and_frees_the_slots(ask: dict[str, bool], phase: str) -> None:
    async with working(slots=1) as on:
        on.api.faults = unreadable
        attempt = on.submit("a", **needs("one", "two"))
        await asyncio.sleep(30)
        on.edit("a", **ask)
        await until(lambda: on.phase("a") == phase, seconds=0.5)
        asked = len(reads(on))
        on.api.faults = lambda call: None
        second = on.submit("b")
        await until(lambda: second in on.runner.frames)
        await asyncio.sleep(60)
        assert len(reads(on)) == asked
        assert attempt not in on.runner.frames


async def test_the_time_of_the_attempt_runs_while_results_are_read() -> None:
    async with working() as on:
        on.api.faults = unreadable
        on.submit("a", timeouts={"attemptSeconds": 60}, **needs("sum"), **NO_RETRY)
        await asyncio.sleep(59)
        assert on.phase("a") == "Assigned"
        await asyncio.sleep(2)
        assert await failed(on) == ("TimedOut", "ran longer than timeouts.attemptSeconds = 60 s")


async def test_an_entry_without_a_name_ends_the_attempt_with_a_record() -> None:
    def nameless(event: WatchEvent) -> tuple[WatchEvent]:
        if event.object.get("spec"):
            event.object["spec"]["dependsOn"] = [{"condition": "Finished"}]
        return (event,)

    async with working() as on:
        on.api.events = nameless
        on.submit("a", **NO_RETRY)
        reason, message = await failed(on)
        assert (reason, "name" in message) == ("StartFailed", True)


class Nested(Reader):
    """A reader that finds a result which is nested deeper than JSON can be written."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def get(self, resource: Any, name: str) -> Object | None:
        self.asked.append(name)
        result: Any = None
        for _ in range(100_000):
            result = [result]
        return {"metadata": {"name": name, "namespace": NAMESPACE}, "status": {"result": result}}


async def test_a_result_that_makes_no_frame_is_named() -> None:
    with pytest.raises(
        UnresolvedError, match=r"the result of Task deep, which spec\.dependsOn names, cannot"
    ) as refusal:
        await Parents(Nested()).read(["deep"])
    assert refusal.value.final
