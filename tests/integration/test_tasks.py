"""The whole path on a real API server: a Task is created, a coordinator assigns it, a worker runs it and records it."""

import sys
from pathlib import Path

import pytest
from tests.integration.harness import Object, World, in_phase

PYTHON = sys.executable


async def writes_of(world: World, name: str, run: Object, **spec: object) -> dict[str, int]:
    before = await world.writes()
    await world.submit(name, run, ttlSecondsAfterFinished=0, **spec)
    await world.gone(name)
    after = await world.writes()
    return {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}


@pytest.fixture
async def running(world: World) -> World:
    await world.start_coordinator()
    await world.start_worker("w-1")
    return world


async def test_a_command_runs_and_its_record_says_how(running: World) -> None:
    await running.submit("it", {"command": ["sh", "-c", "echo hello; echo bye >&2"]})
    status = (await running.finished("it"))["status"]
    assert status["phase"] == "Succeeded"
    assert status["reason"] == "Completed"
    assert (status["attempt"], status["exitCode"], status["observedGeneration"]) == (1, 0, 1)
    assert status["assignment"]["worker"] == "w-1"
    assert status["assignment"]["node"] == "node-1"
    assert status["logTail"].split() == ["hello", "bye"]
    assert status["startTime"] <= status["completionTime"]
    (record,) = status["attempts"]
    assert (record["attempt"], record["worker"], record["outcome"], record["exitCode"]) == (1, "w-1", "Succeeded", 0)
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == {"Scheduled": "True", "Succeeded": "True", "Finished": "True"}


async def test_a_short_task_costs_four_writes(running: World) -> None:
    assert await writes_of(running, "it", {"command": ["true"]}) == {
        "POST tasks": 1,
        "PATCH tasks/status": 2,
        "DELETE tasks": 1,
    }


async def test_a_long_task_costs_five_writes_and_shows_each_phase(running: World) -> None:
    phases: list[str] = []
    before = await running.writes()
    await running.submit("it", {"command": ["sleep", "2"]}, ttlSecondsAfterFinished=0)
    async for obj in running.versions("it"):
        phases.append(obj["status"]["phase"])
        if obj["status"]["phase"] == "Succeeded":
            break
    await running.gone("it")
    after = await running.writes()
    assert phases == ["Pending", "Assigned", "Running", "Succeeded"] or phases == ["Assigned", "Running", "Succeeded"]
    assert sum(after.values()) - sum(before.values()) == 5


async def test_a_script_runs_by_its_interpreter_with_environment_and_directory(running: World, tmp_path: Path) -> None:
    source = """
import json, os
print(os.getcwd(), os.environ["SIZE"])
json.dump([1, {"a": None}], open(os.environ["TASK_RESULT_FILE"], "w"))
"""
    await running.submit(
        "it",
        {"script": {"interpreter": PYTHON, "source": source}},
        env=[{"name": "SIZE", "value": "64"}],
        workingDir=str(tmp_path),
    )
    status = (await running.finished("it"))["status"]
    assert status["phase"] == "Succeeded", status
    assert status["logTail"].strip() == f"{tmp_path} 64"
    assert status["result"] == [1, {"a": None}]


async def test_a_python_function_is_called_and_its_value_is_the_result(running: World) -> None:
    await running.submit("it", {"python": {"callable": "statistics:mean", "args": {"data": [1, 2, 6]}}})
    status = (await running.finished("it"))["status"]
    assert (status["phase"], status["result"]) == ("Succeeded", 3)


async def test_the_task_knows_who_it_is(running: World) -> None:
    obj = await running.submit(
        "it", {"command": ["sh", "-c", "echo $TASK_NAMESPACE/$TASK_NAME $TASK_UID $TASK_ATTEMPT"]}
    )
    status = (await running.finished("it"))["status"]
    assert status["logTail"].split() == [f"{running.namespace}/it", obj["metadata"]["uid"], "1"]


async def test_a_task_that_fails_twice_succeeds_at_the_third_attempt(running: World) -> None:
    await running.submit(
        "it",
        {"command": ["sh", "-c", 'test "$TASK_ATTEMPT" -ge 3 || exit 7']},
        retry={"limit": 3, "backoff": {"initialSeconds": 0}},
    )
    status = (await running.finished("it"))["status"]
    assert (status["phase"], status["attempt"], status["failures"]) == ("Succeeded", 3, 2)
    assert [(each["outcome"], each["exitCode"]) for each in status["attempts"]] == [
        ("Failed", 7),
        ("Failed", 7),
        ("Succeeded", 0),
    ]


async def test_a_failure_waits_for_its_backoff_and_says_so(running: World) -> None:
    backoff = {"initialSeconds": 2, "jitter": "None"}
    await running.submit("it", {"command": ["false"]}, retry={"limit": 1, "backoff": backoff})
    waiting = await running.until("it", lambda task: task["status"].get("reason") == "BackingOff")
    assert waiting["status"]["phase"] == "Pending"
    assert "exit code 1" in waiting["status"]["message"]
    not_before = waiting["status"]["notBeforeTime"]
    status = (await running.finished("it"))["status"]
    assert (status["phase"], status["reason"], status["failures"]) == ("Failed", "ExitCode", 2)
    assert status["attempts"][1]["startTime"] >= not_before
    assert {each["type"]: each["status"] for each in status["conditions"]}["Stalled"] == "True"


async def test_an_attempt_that_takes_too_long_is_stopped(running: World) -> None:
    await running.submit(
        "it",
        {"command": ["sh", "-c", "trap '' TERM; echo on; while :; do sleep 0.1; done"]},
        timeouts={"attemptSeconds": 1, "graceSeconds": 1},
        retry={"limit": 0},
    )
    status = (await running.finished("it"))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", "TimedOut")
    assert "attemptSeconds" in status["message"]


BAD_RUNS: list[tuple[Object, Object, str, str]] = [
    ({"command": ["no-such-command"]}, {}, "StartFailed", "no-such-command"),
    ({"command": ["true"]}, {"workingDir": "/no/such/directory"}, "StartFailed", "/no/such/directory"),
    ({"python": {"callable": "no_such_module:f"}}, {}, "Error", "no_such_module"),
    ({"python": {"callable": "math:no_such_function"}}, {}, "Error", "no_such_function"),
    ({"python": {"callable": "math:sqrt", "args": {"z": 1}}}, {}, "Error", "TypeError"),
    ({"script": {"interpreter": "/no/such/interpreter", "source": "x"}}, {}, "StartFailed", "/no/such/interpreter"),
    ({"command": ["sh", "-c", "kill -9 $$"]}, {}, "Signal", "SIGKILL"),
    ({"command": ["sh", "-c", "echo '{' > $TASK_RESULT_FILE"]}, {}, "ResultRejected", "JSON"),
    ({"command": ["sh", "-c", "seq 1 20000 | tr '\\n' ' ' > $TASK_RESULT_FILE"]}, {}, "ResultRejected", "32"),
]


@pytest.mark.parametrize(("run", "spec", "reason", "words"), BAD_RUNS, ids=lambda value: str(value)[:40])
async def test_what_cannot_run_is_answered_with_a_reason_and_a_message(
    running: World, run: Object, spec: Object, reason: str, words: str
) -> None:
    await running.submit("it", run, retry={"limit": 0}, **spec)
    status = (await running.finished("it"))["status"]
    assert (status["phase"], status["reason"]) == ("Failed", reason), status
    assert words in status["message"]


async def test_output_that_is_binary_or_endless_neither_harms_nor_blocks(running: World) -> None:
    await running.submit("binary", {"command": ["sh", "-c", "head -c 100000 /dev/urandom; printf '\\033[31mred'"]})
    await running.submit("long", {"command": ["sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end"]})
    for name in ("binary", "long"):
        status = (await running.finished(name, seconds=60))["status"]
        assert status["phase"] == "Succeeded", status
        assert len(status["logTail"].encode()) <= 4_096
        assert "\x1b" not in status["logTail"]
    assert status["logTail"].rstrip().endswith("end")


async def test_an_unknown_queue_is_explained_and_does_not_block_others(running: World) -> None:
    await running.submit("lost", {"command": ["true"]}, queue="nowhere")
    obj = await running.until("lost", lambda task: task["status"].get("reason") == "QueueNotFound")
    assert obj["status"]["phase"] == "Pending"
    assert '"nowhere"' in obj["status"]["message"]
    await running.submit("it", {"command": ["true"]})
    assert (await running.finished("it"))["status"]["phase"] == "Succeeded"
    await running.edit("lost", queue="default")
    assert (await running.finished("lost"))["status"]["phase"] == "Succeeded"


async def test_priority_goes_first_then_age(world: World) -> None:
    await world.start_coordinator()
    for name, priority in (("low", -5), ("first", 0), ("second", 0), ("high", 5)):
        await world.submit(name, {"command": ["true"]}, priority=priority)
    await world.start_worker("w-1", slots=1)
    started = {}
    for name in ("low", "first", "second", "high"):
        started[(await world.finished(name))["status"]["assignment"]["assignedTime"]] = name
    assert [started[time] for time in sorted(started)] == ["high", "first", "second", "low"]


async def test_a_worker_never_holds_more_than_its_slots(world: World) -> None:
    await world.start_coordinator()
    await world.start_worker("w-1", slots=2)
    for number in range(6):
        await world.submit(f"t-{number}", {"command": ["sleep", "1.5"]})
    await world.until("t-0", in_phase("Running"))
    spans = []
    for number in range(6):
        status = (await world.finished(f"t-{number}"))["status"]
        spans.append((status["assignment"]["assignedTime"], status["completionTime"]))
    for start, _ in spans:
        assert sum(1 for other, end in spans if other <= start < end) <= 2


async def test_an_edit_of_a_finished_task_is_answered(running: World) -> None:
    await running.submit("it", {"command": ["true"]})
    await running.finished("it")
    edited = await running.edit("it", priority=3)
    generation = edited["metadata"]["generation"]
    assert generation == 2
    await running.until("it", lambda task: task["status"].get("observedGeneration") == generation)
