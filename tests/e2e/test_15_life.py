"""What people ask of a Task: cancel, suspend, delete, run again; what `kubectl wait` makes of it; what is refused."""

import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from tests.e2e.cluster import Cluster, CommandFailed, Object
from tests.e2e.objects import attempts, call, condition, holder, phase, shell, spent, task
from tests.e2e.processes import Node
from tests.e2e.space import Space

pytestmark = pytest.mark.timeout(240)

ENDLESS = ("sleep", "300")
HELD_BACK = {"limit": 1, "backoff": {"initialSeconds": 300, "jitter": "None"}}
BY_WATCH_SECONDS = 3.0
"""Far below every interval at which anything is looked at again, and enough for two calls of kubectl."""


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    with Space.made(cluster, "life", replicas=2, slots=10) as made:
        yield made


def test_waiting_tasks_are_cancelled_at_once(space: Space) -> None:
    names = ("c-suspended", "c-backing-off", "c-queue")
    space.apply(
        task("c-suspended", "true", suspend=True),
        shell("c-backing-off", "exit 1", retry=HELD_BACK),
        task("c-queue", "true", queue="nowhere"),
    )
    for name, reason in zip(names, ("Suspended", "BackingOff", "QueueNotFound"), strict=True):
        space.reach("reason", reason, name)
    with space.watching() as watch:
        watch.until(lambda seen: set(names) <= set(seen), 30, "the Tasks")
        for name in names:
            asked = time.monotonic()
            space.edit(name, cancel=True)
            watch.until(cancelled(name), BY_WATCH_SECONDS, f"the end of {name}")
            assert time.monotonic() - asked < BY_WATCH_SECONDS
    for ended in space.finished(*names):
        assert ended["status"]["reason"] == "Cancelled"
        assert condition(ended, "Finished")["status"] == "True"
        assert condition(ended, "Succeeded")["status"] == "False"
        assert not ended["status"].get("deadLettered")


def test_running_tasks_are_cancelled_through_their_grace(space: Space) -> None:
    graceful = "trap 'echo cleaning up; sleep 1; exit 0' TERM; echo waiting; while :; do sleep 0.1; done"
    stubborn = "trap '' TERM; echo waiting; while :; do sleep 0.1; done"
    python = ("r-raised", "r-async", "r-flag")
    names = ("r-prompt", "r-graceful", "r-stubborn", *python)
    space.apply(
        task("r-prompt", *ENDLESS),
        shell("r-graceful", graceful),
        shell("r-stubborn", stubborn, timeouts={"graceSeconds": 2}),
        call("r-raised", "tidies_up"),
        call("r-async", "tidies_up_async"),
        call("r-flag", "looks_up"),
    )
    space.reach("phase", "Running", *names)
    with space.watching() as watch:
        watch.until(lambda seen: set(names) <= set(seen), 30, "the Tasks")
        asked = time.monotonic()
        space.edit("r-prompt", cancel=True)
        watch.until(cancelled("r-prompt"), BY_WATCH_SECONDS, "the end of r-prompt")
        assert time.monotonic() - asked < BY_WATCH_SECONDS
    for name in names[1:]:
        space.edit(name, cancel=True)
    ends = dict(zip(names, space.finished(*names), strict=True))
    for ended in ends.values():
        (record,) = attempts(ended)
        assert (phase(ended), ended["status"]["reason"]) == ("Cancelled", "Cancelled")
        assert (record["outcome"], record["reason"]) == ("Cancelled", "Cancelled")
        assert spent(ended) == (0, 0, 0)
    assert attempts(ends["r-prompt"])[0]["signal"] == 15
    assert ends["r-graceful"]["status"]["logTail"].endswith("cleaning up\n")
    assert attempts(ends["r-stubborn"])[0]["signal"] == 9
    for name in python:
        assert "tidied up\n" in ends[name]["status"]["logTail"]
    space.is_idle()


def test_deleting_a_running_task_kills_its_process(space: Space, node: Node) -> None:
    space.apply(task("deleted", "sleep", "123454321"))
    space.reach("phase", "Running", "deleted")
    running = space.task("deleted")
    assert "finalizers" not in running["metadata"]
    assert any("123454321" in each for each in node.commands(space.name, holder(running), "runner"))
    space.cluster.delete("task/deleted", namespace=space.name, seconds=10)
    node.wait_gone("123454321", seconds=10)
    space.is_idle()


def test_suspended_before_its_start_a_task_waits(space: Space) -> None:
    space.apply(task("held", "true", suspend=True))
    space.reach("reason", "Suspended", "held")
    held = space.task("held")
    assert (phase(held), held["status"]["attempt"]) == ("Pending", 0)
    assert condition(held, "Suspended")["status"] == "True"
    space.edit("held", suspend=False)
    (ended,) = space.finished("held")
    assert (phase(ended), ended["status"]["attempt"]) == ("Succeeded", 1)


def test_suspended_while_it_runs_a_task_goes_on_from_its_checkpoint(space: Space) -> None:
    space.apply(call("rows", "row_by_row", retry={"limit": 0, "interruptionLimit": 0}))
    space.reach("checkpoint.data.row", 3, "rows")
    space.edit("rows", suspend=True)
    space.reach("reason", "Suspended", "rows")
    held = space.task("rows")
    assert phase(held) == "Pending"
    assert condition(held, "Suspended")["status"] == "True"
    assert [each["outcome"] for each in attempts(held)] == ["Suspended"]
    assert held["status"]["checkpoint"]["data"] == {"row": 3}
    assert spent(held) == (0, 0, 0)
    space.is_idle()
    space.edit("rows", suspend=False)
    (ended,) = space.finished("rows")
    assert (phase(ended), ended["status"]["result"]) == ("Succeeded", {"from": 3, "attempt": 2})
    assert ended["status"]["progress"] == {"current": 10, "total": 10, "message": "done"}
    assert spent(ended) == (0, 0, 0)


def test_finished_tasks_run_again_from_their_checkpoint_or_afresh(space: Space) -> None:
    space.apply(call("a-good", "once_more"), call("a-bad", "once_more", {"fail": True}, retry={"limit": 0}))
    space.apply(task("a-ended", *ENDLESS))
    space.reach("phase", "Running", "a-ended")
    space.edit("a-ended", cancel=True)
    good, bad, ended = space.finished("a-good", "a-bad", "a-ended")
    assert (phase(good), phase(bad), phase(ended)) == ("Succeeded", "Failed", "Cancelled")
    assert "result" not in good["status"]

    for name in ("a-good", "a-bad"):
        space.edit(name, retryRequest="again")
    space.edit("a-ended", retryRequest="again", cancel=False)
    space.reach("runNumber", 2, "a-good", "a-bad", "a-ended")
    good, bad = space.finished("a-good", "a-bad")
    assert good["status"]["result"] == {"attempt": 1}
    # Budgets are fresh, or it would have had none; records and the number of the attempt go on.
    assert (phase(bad), spent(bad), bad["status"]["attempt"]) == ("Failed", (1, 0, 0), 2)
    assert [each["attempt"] for each in attempts(bad)] == [1, 2]
    space.reach("phase", "Running", "a-ended")
    space.edit("a-ended", cancel=True)

    space.edit("a-good", retryRequest="fresh-1")
    space.reach("runNumber", 3, "a-good")
    (good,) = space.finished("a-good")
    assert "result" not in good["status"]
    assert good["status"]["checkpoint"]["data"] == {"attempt": 3}
    space.finished("a-ended")


def test_waiting_for_finished_returns_for_every_end_and_after_an_edit(space: Space) -> None:
    ends = {"w-good": "Succeeded", "w-bad": "Failed", "w-ended": "Cancelled", "w-expired": "Skipped"}
    space.apply(
        task("w-good", "true"),
        task("w-bad", "false", retry={"limit": 0}),
        task("w-ended", *ENDLESS),
        task("w-expired", "true", queue="nowhere", timeouts={"pendingSeconds": 1}),
    )
    space.reach("phase", "Running", "w-ended")
    space.edit("w-ended", cancel=True)
    finished = space.finished(*ends)
    assert [phase(each) for each in finished] == list(ends.values())
    for name in ends:
        space.edit(name, ttlSecondsAfterFinished=7_200, priority=3)
        space.cluster.wait("condition=Finished", f"task/{name}", namespace=space.name, seconds=BY_WATCH_SECONDS)
    for before, after in zip(finished, map(space.task, ends), strict=True):
        assert after["status"]["observedGeneration"] == after["metadata"]["generation"]
        assert after["status"] == {**before["status"], "observedGeneration": after["metadata"]["generation"]}


def test_the_same_manifest_twice_is_one_task(space: Space) -> None:
    manifest = shell("twice", 'echo "ran as $TASK_UID"')
    space.apply(manifest)
    (first,) = space.finished("twice")
    space.apply(manifest)
    (second,) = space.finished("twice")
    assert second == first
    assert first["status"]["attempt"] == 1
    assert first["status"]["logTail"] == f"ran as {first['metadata']['uid']}\n"


def cancelled(name: str) -> Callable[[Mapping[str, Object]], bool]:
    """Return the question whether a Task is Cancelled."""
    return lambda seen: phase(seen[name]) == "Cancelled"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"env": [{"name": "A", "value": "b", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
            "only one of value, valueFrom may be set",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {}}]},
            "exactly one of secretKeyRef, configMapKeyRef must be set",
        ),
        (
            {"retry": {"rules": [{"name": "empty", "action": "Fail"}]}},
            "a retry rule needs at least one of onExitCodes, onSignals, onErrorTypes, onReasons, onHTTPStatuses",
        ),
        (
            {"retry": {"rules": [{"name": "x", "onExitCodes": [1], "action": "Explode"}]}},
            'Unsupported value: "Explode"',
        ),
        ({"resources": {"memoryMiB": 0}}, "should be greater than or equal to 1"),
        ({"timeouts": {"stallSeconds": 0}}, "should be greater than or equal to 1"),
        ({"run": {"command": ["true"], "http": {"url": "ftp://example.com"}}}, "spec.run.http.url"),
        ({"run": {"python": {"callable": "no-colon"}}}, "spec.run.python.callable"),
    ],
    ids=["two-values", "no-source", "empty-rule", "unknown-action", "no-memory", "no-stall", "scheme", "callable"],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(space: Space, spec: Object, said: str) -> None:
    with pytest.raises(CommandFailed) as caught:
        space.apply(task("wrong", "true") | {"spec": {"run": {"command": ["true"]}, **spec}})
    assert said in str(caught.value)


def test_requests_at_the_wrong_time_are_refused_with_a_sentence(space: Space) -> None:
    space.apply(task("busy", *ENDLESS))
    space.reach("phase", "Running", "busy")
    with pytest.raises(CommandFailed, match=r"spec\.retryRequest can be changed only when the Task has finished"):
        space.edit("busy", retryRequest="now")
    with pytest.raises(CommandFailed, match=r"spec\.timeouts cannot be changed after the Task was first assigned"):
        space.edit("busy", timeouts={"attemptSeconds": 1})
    space.edit("busy", cancel=True)
    with pytest.raises(CommandFailed, match=r"spec\.cancel cannot be taken back"):
        space.edit("busy", cancel=False)
    space.finished("busy")
    with pytest.raises(CommandFailed, match="to run a cancelled Task again, set"):
        space.edit("busy", retryRequest="again")
