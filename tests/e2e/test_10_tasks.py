"""What a user types: examples, lists, watches, explanations, logs."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from tests.e2e.cluster import Cluster
from tests.e2e.objects import attempts, config_map, holder, phase, shell, task

pytestmark = pytest.mark.timeout(300)

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
DEMO_TASKS = ("demo-command", "demo-python", "demo-retry")
MORE_TASKS = ("checkpoint", "http", "retry-rules", "secret", "sdk")
IMAGE_FILES = ("Dockerfile", "pool.yaml", "steps.py", "task.yaml")


def test_hello_finishes(cluster: Cluster) -> None:
    cluster.delete("task/hello")
    cluster.kubectl("apply", "-f", EXAMPLES / "hello.yaml")
    cluster.kubectl("wait", "--for=condition=Finished", "task/hello", "--timeout=60s", seconds=70)
    hello = cluster.get("task/hello")
    assert phase(hello) == "Succeeded"
    assert hello["status"]["logTail"] == "Hello from a warm worker.\n"


def test_demo_succeeds(cluster: Cluster) -> None:
    cluster.delete(*(f"task/{name}" for name in DEMO_TASKS))
    cluster.kubectl("apply", "-f", EXAMPLES / "demo")
    command, python, retry = cluster.finished(*DEMO_TASKS)
    assert [phase(each) for each in (command, python, retry)] == ["Succeeded"] * 3
    assert "GREETING=hello\n" in command["status"]["logTail"]
    assert "TASK_NAME=demo-command\n" in command["status"]["logTail"]
    assert python["status"]["result"] == {"pi": "3.141588"}
    assert [(each["outcome"], each.get("exitCode")) for each in attempts(retry)] == [
        ("Failed", 1),
        ("Failed", 1),
        ("Succeeded", 0),
    ]
    assert retry["status"]["failures"] == 2


def test_more_examples_do_what_they_say(cluster: Cluster) -> None:
    cluster.delete(*(f"task/{name}" for name in MORE_TASKS))
    for name in MORE_TASKS:
        cluster.kubectl("apply", "-f", EXAMPLES / (f"{name}.yaml" if name != "sdk" else name))
    checkpoint, http, retry_rules, secret, sdk = cluster.finished(*MORE_TASKS)
    assert [phase(each) for each in (checkpoint, http, retry_rules, secret, sdk)] == ["Succeeded"] * 5
    assert (checkpoint["status"]["checkpoint"]["data"], checkpoint["status"]["attempt"]) == (6, 2)
    assert checkpoint["status"]["logTail"] == "attempt 2 goes on after step 3\nstep 4\nstep 5\nstep 6\n"
    assert http["status"]["result"]["status"] == 200
    assert retry_rules["status"]["attempt"] == 2
    assert secret["status"]["logTail"] == "a password of 28 characters for mail.example.com\n"
    assert sdk["status"]["result"] == {"sum": sum(n * n for n in range(1, 5_001))}


def test_the_example_of_queues_runs_its_tasks_in_turn(cluster: Cluster) -> None:
    cluster.kubectl("delete", "-f", EXAMPLES / "queues.yaml", "--ignore-not-found")
    cluster.kubectl("apply", "-f", EXAMPLES / "queues.yaml")
    thumbnail, first, second = cluster.finished("thumbnail", "sync-first", "sync-second")
    assert [phase(each) for each in (thumbnail, first, second)] == ["Succeeded"] * 3
    assert thumbnail["status"]["assignment"]["policy"]["attemptSeconds"] == 60
    assert second["status"]["startTime"] >= first["status"]["completionTime"]
    cluster.kubectl("delete", "-f", EXAMPLES / "queues.yaml")


def test_the_example_of_a_schedule_runs_when_a_person_says_so(cluster: Cluster) -> None:
    cluster.kubectl("delete", "-f", EXAMPLES / "schedule.yaml", "--ignore-not-found")
    cluster.kubectl("apply", "-f", EXAMPLES / "schedule.yaml")
    cluster.kubectl("annotate", "taskschedule", "report", "taskmaster.dev/run-now=today")
    ours = ("tasks", "-l", "taskmaster.dev/schedule=report")
    cluster.kubectl("wait", "--for=create", *ours, "--timeout=30s")
    cluster.kubectl("wait", "--for=condition=Finished", *ours, "--timeout=60s", seconds=70)
    (ended,) = cluster.items(*ours)
    assert (phase(ended), ended["status"]["logTail"]) == ("Succeeded", "Good morning.\n")
    cluster.kubectl("delete", "-f", EXAMPLES / "schedule.yaml")


def test_the_code_of_the_example_image_runs(cluster: Cluster, tenant: str) -> None:
    pool, task = (yaml.safe_load((EXAMPLES / "worker-image" / name).read_text()) for name in ("pool.yaml", "task.yaml"))
    pool["spec"]["template"] = {
        "volumes": [{"name": "code", "configMap": {"name": "code"}}],
        "volumeMounts": [{"name": "code", "mountPath": "/app"}],
    }
    code = config_map("code", **{"steps.py": (EXAMPLES / "worker-image" / "steps.py").read_text()})
    task["spec"]["run"]["python"]["args"]["count"] = 10
    cluster.apply(code, pool, task, namespace=tenant)
    (ended,) = cluster.finished("sum-of-squares", namespace=tenant)
    assert (phase(ended), ended["status"]["result"]) == ("Succeeded", {"total": 385})
    assert ended["status"]["progress"]["current"] == 10
    assert ended["status"]["checkpoint"]["data"]["steps"] == 10


def test_every_example_is_used() -> None:
    used = {"hello.yaml", "dependencies.yaml", "demo-values.yaml", "queues.yaml", "schedule.yaml", "template.yaml"}
    used |= {*(f"demo/{name}.yaml" for name in ("code", "command", "python", "retry"))}
    used |= {"sdk/code.yaml", "sdk/task.yaml", *(f"{name}.yaml" for name in MORE_TASKS if name != "sdk")}
    used |= {f"worker-image/{name}" for name in IMAGE_FILES}
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file()} == used


def test_watching_shows_every_phase_of_a_task_of_five_seconds(cluster: Cluster) -> None:
    cluster.delete("task/five-seconds")
    cluster.apply(task("before", "true"))
    cluster.finished("before")
    with cluster.following("get", "tasks", "-w") as lines:
        # What is there already is printed first; from then on nothing is missed.
        lines.until(lambda seen: any(line.startswith("before ") for line in seen) or None, 30)
        cluster.apply(task("five-seconds", "sleep", "5"))

        def phases(seen: Sequence[str]) -> list[str] | None:
            words = [line.split()[1] for line in seen if line.startswith("five-seconds ")]
            shown = list(dict.fromkeys(words))
            return shown if shown and shown[-1] in ("Succeeded", "Failed") else None

        assert lines.until(phases, 60) == ["Pending", "Assigned", "Running", "Succeeded"]


def test_columns(cluster: Cluster) -> None:
    cluster.apply(task("before", "true"))
    cluster.finished("before")
    narrow = ["NAME", "PHASE", "QUEUE", "PRIORITY", "WORKER", "ATTEMPT", "REASON", "AGE"]
    assert cluster.kubectl("get", "tasks").splitlines()[0].split() == narrow
    wide = cluster.kubectl("get", "task", "before", "-o", "wide").splitlines()
    assert wide[0].split() == [*narrow, "NODE", "STARTED", "COMPLETED", "MESSAGE"]
    found = cluster.get("task/before")
    assert wide[1].split()[:7] == ["before", "Succeeded", "default", "0", holder(found), "1", "Completed"]


@pytest.mark.parametrize(
    "path",
    [
        "task",
        "task.spec.run.python",
        "task.spec.run.script",
        "task.spec.retry.backoff",
        "task.status.phase",
        "task.spec.requires.matchExpressions",
        "task.status.resolvedRun",
        "taskqueue.spec.rateLimit",
        "taskqueue.status",
        "tasktemplate.spec.task",
        "workerpool.spec.template",
        "workerpool.status",
    ],
)
def test_explain_has_words_for_it_and_for_all_its_fields(cluster: Cluster, path: str) -> None:
    # Of the type itself the API server says nothing in OpenAPI v3 but its description; the fields follow, indented.
    lines = cluster.kubectl("explain", path).splitlines()
    start = lines.index("DESCRIPTION:")
    assert lines[start + 1].strip(), lines
    assert "<empty>" not in lines[start + 1]
    assert "<no description>" not in "\n".join(lines)


def test_failed_tasks_are_selected_by_their_phase(cluster: Cluster) -> None:
    cluster.apply(shell("fails", "exit 3", retry={"limit": 0}), task("passes", "true"))
    cluster.finished("fails", "passes")
    selected = cluster.kubectl("get", "tasks", "--field-selector", "status.phase=Failed", "-o", "name").split()
    assert "task.taskmaster.dev/fails" in selected
    assert "task.taskmaster.dev/passes" not in selected
    assert cluster.get("task/fails")["status"]["exitCode"] == 3


def test_short_names_and_category(cluster: Cluster) -> None:
    cluster.apply(task("before", "true"))
    assert cluster.kubectl("get", "tk", "before", "-o", "name") == "task.taskmaster.dev/before\n"
    assert cluster.kubectl("get", "wp", "-o", "name") == "workerpool.taskmaster.dev/default\n"
    of_category = cluster.kubectl("get", "taskmaster", "-o", "name").split()
    assert {"task.taskmaster.dev/before", "workerpool.taskmaster.dev/default"} <= set(of_category)


def test_output_is_in_the_log_of_the_runner_as_json_lines(cluster: Cluster) -> None:
    cluster.delete("task/speaks")
    cluster.apply(shell("speaks", "echo one; echo two >&2"))
    (spoken,) = cluster.finished("speaks")
    log = cluster.kubectl("logs", holder(spoken), "-c", "runner")
    lines = [json.loads(line) for line in log.splitlines()]
    ours = [line for line in lines if line.get("uid") == spoken["metadata"]["uid"]]
    assert {(line["stream"], line["message"]) for line in ours} == {("stdout", "one"), ("stderr", "two")}
    assert {(line["task"], line["namespace"], line["attempt"]) for line in ours} == {("speaks", "default", 1)}
