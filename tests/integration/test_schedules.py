"""TaskSchedules on a real API server: what it refuses, what kubectl shows, and occurrences by a real coordinator."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.harness import Object, World

from taskmaster.api import names
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import ApiError, Unprocessable
from taskmaster.kube.resource import TASKS, TASKSCHEDULES, Resource

TEMPLATE: Object = {"spec": {"run": {"command": ["true"]}}}


async def create(world: World, name: str = "s", *, template: Object = TEMPLATE, **spec: Any) -> Object:
    body = {
        "apiVersion": names.API_VERSION,
        "kind": "TaskSchedule",
        "metadata": {"name": name},
        "spec": {"taskTemplate": template, **spec},
    }
    return await world.api.create(TASKSCHEDULES, world.namespace, body)


async def tasks_of(world: World, name: str = "s") -> list[Object]:
    found = await world.api.list(TASKS, namespace=world.namespace, label_selector=f"{names.SCHEDULE_LABEL}={name}")
    return found.items


def ready(reason: str) -> Any:
    def wanted(obj: Object) -> bool:
        conditions = obj.get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["reason"] == reason for each in conditions)

    return wanted


def answered(value: str) -> Callable[[Object], bool]:
    return lambda obj: bool(obj["status"].get("observedRunNow") == value)


async def test_defaults_are_those_of_a_cron_job(world: World) -> None:
    obj = await create(world, schedule="@daily")
    assert obj["status"] == {"observedGeneration": 0}
    spec = {key: value for key, value in obj["spec"].items() if key != "taskTemplate"}
    assert spec == {
        "schedule": "@daily",
        "concurrencyPolicy": "Allow",
        "suspend": False,
        "catchUp": "Latest",
        "catchUpLimit": 10,
        "jitterSeconds": 0,
        "successfulTasksHistoryLimit": 3,
        "failedTasksHistoryLimit": 1,
    }


def templated(**spec: Any) -> Object:
    return {"spec": {"run": {"command": ["true"]}, **spec}}


REFUSED = [
    ({}, "at least one of schedule, schedules, everySeconds must be set"),
    ({"schedules": []}, "should have at least 1 items"),
    ({"schedule": ""}, "should be at least 1 chars long"),
    ({"everySeconds": 0}, "greater than or equal to 1"),
    ({"everySeconds": 1, "concurrencyPolicy": "Maybe"}, "Unsupported value"),
    ({"everySeconds": 1, "catchUp": "Some"}, "Unsupported value"),
    ({"everySeconds": 1, "catchUpLimit": 101}, "less than or equal to 100"),
    ({"everySeconds": 1, "maxRuns": 0}, "greater than or equal to 1"),
    ({"everySeconds": 1, "startTime": "tomorrow"}, "date-time"),
    ({"everySeconds": 1, "startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z"},
     "endTime must not be before startTime"),
    ({"everySeconds": 1, "template": {"spec": {}}}, "exactly one of run, templateRef must be set"),
    ({"everySeconds": 1, "template": {"spec": {"run": {}}}}, "exactly one of command, script, python, http"),
    ({"everySeconds": 1, "template": templated(env=[{"name": "A", "value": "1", "valueFrom": {}}])}, "must be set"),
    ({"everySeconds": 1, "template": templated(retry={"rules": [{"name": "r", "action": "Fail"}]})},
     "a retry rule needs at least one of"),
    ({"everySeconds": 1, "template": templated(priority=1_001)}, "less than or equal to 1000"),
    ({"everySeconds": 1, "template": {"spec": {"run": {"command": ["true"]}}, "metadata": {"labels": {"a": "x" * 64}}}},
     "may not be more than 63"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[str(row[0])[:60] for row in REFUSED])
async def test_the_server_refuses_what_cannot_be_meant(world: World, fields: Object, message: str) -> None:
    with pytest.raises(Unprocessable) as refusal:
        await create(world, **fields)
    assert message in refusal.value.message


async def test_a_name_leaves_room_for_the_names_of_the_tasks(world: World) -> None:
    await create(world, "x" * 52, everySeconds=60, suspend=True)
    with pytest.raises(ApiError, match="a TaskSchedule has a name of at most 52 characters"):
        await create(world, "x" * 53, everySeconds=60)


async def test_kubectl_explains_and_prints(world: World, kubectl: Path) -> None:
    def run(*arguments: str) -> str:
        return subprocess.run(
            [kubectl, "--kubeconfig", world.plane.kubeconfig, "--namespace", world.namespace, *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout

    def explained(field: str) -> str:
        return run("explain", f"taskschedule.spec.{field}")

    await world.start_coordinator()
    await create(world, schedule="30 2 * * MON-FRI", timeZone="Europe/Berlin", schedules=["@weekly"])
    await world.until("s", ready("Scheduled"), resource=TASKSCHEDULES)
    header, row = (await asyncio.to_thread(run, "get", "tks")).splitlines()
    assert header.split() == ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE"]
    assert "30 2 * * MON-FRI; @weekly" in row
    cells = row.replace("30 2 * * MON-FRI; @weekly", "x").split()
    assert cells[:5] == ["s", "x", "Europe/Berlin", "false", "0"]
    assert cells[5].endswith(("00:30:00Z", "01:30:00Z", "22:00:00Z", "23:00:00Z"))
    wide = await asyncio.to_thread(run, "get", "tks", "-o", "wide")
    assert wide.splitlines()[0].split()[-2:] == ["STATUS", "MESSAGE"]
    for field, words in (
        ("schedule", "five fields"),
        ("concurrencyPolicy", "Enqueue lets the occurrence wait"),
        ("taskTemplate.spec.run", "exactly one of command"),
    ):
        assert words in " ".join((await asyncio.to_thread(explained, field)).split())


async def test_occurrences_become_tasks_that_run(world: World) -> None:
    await world.start_coordinator()
    await world.start_worker("w-1")
    metadata = {"labels": {"team": "red"}}
    created = await create(
        world, everySeconds=1, maxRuns=4, template={"metadata": metadata, **TEMPLATE}, successfulTasksHistoryLimit=2
    )

    def done(obj: Object) -> bool:
        status = obj.get("status", {})
        return status.get("runs") == 4 and not status["activeCount"] and ready("Completed")(obj)

    obj = await world.until("s", done, resource=TASKSCHEDULES, seconds=60)
    status = obj["status"]
    assert status["observedGeneration"] == 1
    assert status["lastSuccessfulTime"] > created["metadata"]["creationTimestamp"]
    assert "nextRunTime" not in status
    newest = status["lastScheduleTime"]
    tasks = {task["metadata"]["annotations"][names.SCHEDULED_TIME_ANNOTATION]: task for task in await tasks_of(world)}
    assert tasks[newest]["metadata"]["labels"]["team"] == "red"
    assert tasks[newest]["metadata"]["ownerReferences"][0]["uid"] == created["metadata"]["uid"]
    assert tasks[newest]["status"]["phase"] == "Succeeded"
    for task in [tasks[time] for time in sorted(tasks)[:-2]]:
        await world.gone(task["metadata"]["name"])
    assert len(await tasks_of(world)) == 2


async def test_a_restarted_coordinator_goes_on_without_a_second_task(world: World) -> None:
    first = await world.start_coordinator("first")
    await create(world, everySeconds=2, successfulTasksHistoryLimit=100)
    await world.until("s", lambda obj: obj.get("status", {}).get("runs", 0) >= 2, resource=TASKSCHEDULES)
    await first.kill()
    await world.start_coordinator("second")
    await world.until("s", lambda obj: obj["status"]["runs"] >= 6, resource=TASKSCHEDULES, seconds=60)
    status = (await world.api.get(TASKSCHEDULES, world.namespace, "s"))["status"]
    times = [task["metadata"]["annotations"][names.SCHEDULED_TIME_ANNOTATION] for task in await tasks_of(world)]
    assert len(set(times)) == len(times)
    assert abs(len(times) - status["runs"]) <= 1


async def test_run_now_and_edits_are_answered(world: World) -> None:
    await world.start_coordinator()
    await create(world, schedule="0 0 1 1 *", suspend=True)
    await world.until("s", ready("Suspended"), resource=TASKSCHEDULES)
    for value in ("first", "second"):
        annotate = MergePatch({"metadata": {"annotations": {names.RUN_NOW_ANNOTATION: value}}})
        await world.api.patch(TASKSCHEDULES, world.namespace, "s", annotate)
        await world.until("s", answered(value), resource=TASKSCHEDULES)
    assert len(await tasks_of(world)) == 2
    bad = MergePatch({"spec": {"schedule": "0 0 30 2 *", "suspend": False}})
    await world.api.patch(TASKSCHEDULES, world.namespace, "s", bad)
    obj = await world.until("s", ready("InvalidSchedule"), resource=TASKSCHEDULES)
    (condition,) = obj["status"]["conditions"]
    assert "column 5, day-of-month" in condition["message"]
    assert obj["status"]["observedGeneration"] == 2


async def test_a_task_that_the_server_refuses_is_a_condition(world: World) -> None:
    quota = {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "none"}}
    quotas = Resource("", "v1", "resourcequotas", "ResourceQuota")
    await world.api.create(quotas, world.namespace, {**quota, "spec": {"hard": {"count/tasks.taskmaster.dev": "0"}}})
    await world.start_coordinator()
    await create(world, everySeconds=1)
    obj = await world.until("s", ready("TaskRefused"), resource=TASKSCHEDULES)
    assert "quota" in obj["status"]["conditions"][0]["message"]
