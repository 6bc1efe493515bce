"""TaskSchedules: by interval and by cron, with each policy, and over the death of the leading operator.

What happens at the full minute is waited for beside the other tests of this module: its schedules are made first and
looked at last.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest
from tests.e2e.cluster import SYSTEM_NAMESPACE, Cluster, Object
from tests.e2e.objects import API_VERSION, condition, is_finished, phase
from tests.e2e.processes import Node
from tests.e2e.release import OPERATOR, Release
from tests.e2e.space import Space

pytestmark = pytest.mark.timeout(240)

SCHEDULE = "taskmaster.dev/schedule"
SCHEDULED_TIME = "taskmaster.dev/scheduled-time"
RUN_NOW = "taskmaster.dev/run-now"
ENDLESS = ("sleep", "600")
POLICIES = ("Forbid", "Replace", "Enqueue")
TAKEOVER_SECONDS = 60
"""The election's Lease has to expire, and the machine may be busy."""


def schedule(name: str, *command: str, task: Object | None = None, **spec: Any) -> Object:
    """A TaskSchedule of a command."""
    template = {"spec": {"run": {"command": list(command)}, "timeouts": {"graceSeconds": 2}, **(task or {})}}
    return {
        "apiVersion": API_VERSION,
        "kind": "TaskSchedule",
        "metadata": {"name": name},
        "spec": {**spec, "taskTemplate": template},
    }


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    with Space.made(cluster, "schedules", replicas=1, slots=16) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def _minutely(space: Space) -> None:
    """Have a schedule of each policy with an active Task before the next full minute."""
    names = [policy.lower() for policy in POLICIES]
    space.apply(
        *(
            schedule(name, *ENDLESS, schedule="* * * * *", concurrencyPolicy=policy, suspend=True)
            for name, policy in zip(names, POLICIES, strict=True)
        )
    )
    for name in names:
        run_now(space, name, "first")
    for name in names:
        space.has("activeCount", 1, f"tks/{name}")
        space.edit_object(f"tks/{name}", suspend=False)


def run_now(space: Space, name: str, value: str) -> None:
    space.cluster.kubectl("annotate", "tks", name, f"{RUN_NOW}={value}", "--overwrite", "-n", space.name)


def look(space: Space, name: str) -> Object:
    """The status of a schedule."""
    found: Object = space.cluster.get(f"tks/{name}", namespace=space.name)["status"]
    return found


def tasks_of(space: Space, name: str) -> list[Object]:
    """The Tasks of a schedule, in the order of their names."""
    found = space.cluster.items("tasks", "-l", f"{SCHEDULE}={name}", namespace=space.name)
    return sorted(found, key=lambda each: str(each["metadata"]["name"]))


def occurrence(obj: Object) -> int:
    """The second since the epoch that a Task's name says."""
    return int(obj["metadata"]["name"].rpartition("-")[2])


def test_an_interval_makes_one_task_per_occurrence_until_it_is_done(space: Space) -> None:
    space.apply(schedule("beat", "echo", "tick", everySeconds=2, maxRuns=3))
    space.has("conditions[0].reason", "Completed", "tks/beat")
    tasks = tasks_of(space, "beat")
    (created,) = (space.cluster.get("tks/beat", namespace=space.name)["metadata"],)
    began = int(datetime.fromisoformat(created["creationTimestamp"]).timestamp())
    assert [occurrence(each) - began for each in tasks] == [2, 4, 6]
    for each in tasks:
        at = datetime.fromisoformat(each["metadata"]["annotations"][SCHEDULED_TIME])
        assert int(at.timestamp()) == occurrence(each)
        (owner,) = each["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("TaskSchedule", "beat")
    ended = space.finished(*(each["metadata"]["name"] for each in tasks))
    assert {phase(each) for each in ended} == {"Succeeded"}
    space.has("activeCount", 0, "tks/beat")
    status = look(space, "beat")
    assert (status["runs"], status["missed"]) == (3, 0)
    assert "nextRunTime" not in status
    space.cluster.delete("tks/beat", namespace=space.name)
    space.cluster.wait("delete", "tasks", "-l", f"{SCHEDULE}=beat", namespace=space.name)


def test_history_limits_keep_the_latest(space: Space) -> None:
    space.apply(
        schedule("good", "true", everySeconds=1, maxRuns=5, successfulTasksHistoryLimit=2),
        schedule("bad", "false", everySeconds=1, maxRuns=5, failedTasksHistoryLimit=1, task={"retry": {"limit": 0}}),
    )
    with space.watching() as watch:

        def kept(seen: Mapping[str, Object]) -> dict[str, list[Object]]:
            return {name: [obj for key, obj in seen.items() if key.startswith(f"{name}-")] for name in ("good", "bad")}

        def trimmed(seen: Mapping[str, Object]) -> bool:
            left = kept(seen)
            done = all(is_finished(each) for each in (*left["good"], *left["bad"]))
            return done and (len(left["good"]), len(left["bad"])) == (2, 1) and len(made()) == 10

        def made() -> set[str]:
            return {name for name in watch.revisions if name.startswith(("good-", "bad-"))}

        left = kept(watch.until(trimmed, 60, "two succeeded Tasks and a failed one, of five each"))
    for name in ("good", "bad"):
        of_it = sorted(each for each in made() if each.startswith(f"{name}-"))
        assert sorted(each["metadata"]["name"] for each in left[name]) == of_it[-len(left[name]) :]


def test_suspended_it_starts_only_what_a_person_asks_for(space: Space) -> None:
    space.apply(schedule("held", "true", everySeconds=1, suspend=True))
    space.has("conditions[0].reason", "Suspended", "tks/held")
    assert "nextRunTime" not in look(space, "held")
    run_now(space, "held", "please")
    space.has("observedRunNow", "please", "tks/held")
    (asked,) = tasks_of(space, "held")
    (ended,) = space.finished(asked["metadata"]["name"])
    assert phase(ended) == "Succeeded"
    # The same value asks for nothing.
    run_now(space, "held", "please")
    space.edit_object("tks/held", suspend=False, maxRuns=1)
    space.has("conditions[0].reason", "Completed", "tks/held")
    resumed = datetime.fromisoformat(look(space, "held")["lastScheduleTime"])
    assert resumed > datetime.fromisoformat(ended["status"]["completionTime"]).replace(microsecond=0)
    assert len(tasks_of(space, "held")) == 2


def test_what_is_wrong_with_an_expression_is_said_with_its_place(space: Space) -> None:
    space.apply(schedule("wrong", "true", schedule="0 25 * * *"))
    space.cluster.wait("condition=Ready=false", "tks/wrong", namespace=space.name)
    ready = condition(space.cluster.get("tks/wrong", namespace=space.name), "Ready")
    assert ready["reason"] == "InvalidSchedule"
    assert ready["message"] == "spec.schedule '0 25 * * *': column 3, hour: '25' is not one of 0-23"
    space.edit_object("tks/wrong", schedule="0 23 * * *", timeZone="Europe/Nowhere")
    space.has("observedGeneration", 2, "tks/wrong")
    ready = condition(space.cluster.get("tks/wrong", namespace=space.name), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "InvalidSchedule")
    assert "Europe/Nowhere" in ready["message"]
    space.edit_object("tks/wrong", timeZone="Europe/Berlin")
    space.cluster.wait("condition=Ready", "tks/wrong", namespace=space.name)
    rows = [re.split(r"\s{2,}", line) for line in space.cluster.kubectl("get", "tks", "-n", space.name).splitlines()]
    assert rows[0] == ["NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST", "NEXT", "AGE"]
    shown = next(row for row in rows if row[0] == "wrong")
    assert shown[1:5] == ["0 23 * * *", "Europe/Berlin", "false", "0"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT2[12]:00:00Z", shown[5]), shown


def test_a_schedule_may_take_a_template(space: Space) -> None:
    greeting = {"kind": "TaskTemplate", "apiVersion": API_VERSION, "metadata": {"name": "greeting"}}
    made = schedule("greets", schedule="@yearly")
    made["spec"]["taskTemplate"]["spec"] = {"templateRef": {"name": "greeting"}, "args": {"whom": "you"}}
    space.apply({**greeting, "spec": {"task": {"run": {"command": ["echo", "hello $(args.whom)"]}}}}, made)
    space.cluster.wait("condition=Ready", "tks/greets", namespace=space.name)
    run_now(space, "greets", "1")
    space.has("observedRunNow", "1", "tks/greets")
    (ended,) = space.finished(tasks_of(space, "greets")[0]["metadata"]["name"])
    assert (phase(ended), ended["status"]["logTail"]) == ("Succeeded", "hello you\n")


def test_the_death_of_the_leader_neither_doubles_nor_drops_an_occurrence(
    space: Space, release: Release, node: Node
) -> None:
    every, runs = 2, 14
    space.apply(
        schedule(
            "steady",
            "true",
            everySeconds=every,
            maxRuns=runs,
            catchUp="All",
            catchUpLimit=20,
            successfulTasksHistoryLimit=100,
        )
    )
    space.has("runs", 2, "tks/steady")
    before = release.leader()
    node.kill(SYSTEM_NAMESPACE, before, "operator")
    space.has("conditions[0].reason", "Completed", "tks/steady", seconds=runs * every + TAKEOVER_SECONDS)
    assert release.leader() != before
    tasks = tasks_of(space, "steady")
    first = occurrence(tasks[0])
    assert [occurrence(each) for each in tasks] == [first + every * number for number in range(runs)]
    ended = space.finished(*(each["metadata"]["name"] for each in tasks))
    assert {(phase(each), each["status"]["attempt"]) for each in ended} == {("Succeeded", 1)}
    status = look(space, "steady")
    assert (status["runs"], status["missed"]) == (runs, 0)
    space.cluster.wait("jsonpath={.status.readyReplicas}=2", OPERATOR, namespace=SYSTEM_NAMESPACE, seconds=90)


def test_at_the_full_minute_each_policy_does_what_it_says(space: Space) -> None:
    with space.cluster.watching("taskschedules", namespace=space.name) as watch:

        def happened(seen: Mapping[str, Object]) -> bool:
            forbid, replace, enqueue = (seen.get(policy.lower(), {}).get("status", {}) for policy in POLICIES)
            return bool(forbid.get("missed") and replace.get("runs") and enqueue.get("waiting"))

        watch.until(happened, 90, "the full minute")
    forbidden, replaced, enqueued = (tasks_of(space, policy.lower()) for policy in POLICIES)
    assert [phase(each) for each in forbidden] == ["Running"]
    assert look(space, "forbid").get("runs", 0) == 0

    *older, newest = sorted(replaced, key=lambda each: str(each["metadata"]["creationTimestamp"]))
    for each in space.finished(*(each["metadata"]["name"] for each in older)):
        assert (phase(each), each["status"]["reason"]) == ("Cancelled", "Replaced")
    assert occurrence(newest) % 60 == 0
    space.reach("phase", "Running", newest["metadata"]["name"])

    (active,) = enqueued
    assert phase(active) == "Running"
    waiting = look(space, "enqueue")["waiting"]
    space.edit(active["metadata"]["name"], cancel=True)
    first = int(datetime.fromisoformat(waiting[0]).timestamp())
    space.cluster.wait("create", f"task/enqueue-{first}", namespace=space.name)
    space.reach("phase", "Running", f"enqueue-{first}")
    assert [phase(each) for each in tasks_of(space, "enqueue")].count("Running") == 1
