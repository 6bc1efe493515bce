"""What a Task says and is told: results, progress, checkpoints, logs, arguments, environment."""

import json
from collections.abc import Iterator

import pytest
from tests.e2e.cluster import Cluster
from tests.e2e.objects import call, holder, phase, shell, spent
from tests.e2e.space import Space

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    with Space.made(cluster, "words", replicas=1, slots=16) as made:
        yield made


def test_results_are_kept_or_refused_as_a_whole(space: Space) -> None:
    space.apply(
        shell("written", """echo '{"rows": [1, 2.5, null], "who": "é"}' > "$TASK_RESULT_FILE\""""),
        call("largest", "large", {"characters": 32_766}),
        call("too-large", "large", {"characters": 32_767}, retry={"limit": 0}),
        call("unheard-of", "unheard_of", retry={"limit": 0}),
        shell("half", """echo '{"rows": [1' > "$TASK_RESULT_FILE\"""", retry={"limit": 0}),
    )
    written, largest, too_large, unheard_of, half = space.finished(
        "written", "largest", "too-large", "unheard-of", "half"
    )
    assert written["status"]["result"] == {"rows": [1, 2.5, None], "who": "é"}
    assert largest["status"]["result"] == "x" * 32_766
    said = {"32768 bytes": too_large, "not JSON": unheard_of, "not valid JSON": half}
    for words, refused in said.items():
        assert (phase(refused), refused["status"]["reason"]) == ("Failed", "ResultRejected")
        assert words in refused["status"]["message"]
        assert "result" not in refused["status"]


def test_progress_and_checkpoint_are_seen_while_the_task_runs(space: Space) -> None:
    files = """
        echo '{"current": 7, "total": 9, "message": "by file"}' > "$TASK_PROGRESS_FILE"
        echo '{"row": 7}' > "$TASK_CHECKPOINT_FILE"
        until test -e /tmp/"$TASK_UID"; do sleep 0.1; done
    """
    space.apply(call("by-sdk", "row_by_row"), shell("by-file", files, timeouts={"attemptSeconds": 60}))
    space.reach("progress.message", "by file", "by-file")
    space.reach("checkpoint.data.row", 7, "by-file")
    space.reach("progress.message", "loading rows", "by-sdk")
    space.reach("checkpoint.data.row", 3, "by-sdk")
    by_sdk, by_file = space.task("by-sdk"), space.task("by-file")
    assert by_sdk["status"]["progress"] == {"current": 3, "total": 10, "message": "loading rows"}
    assert by_file["status"]["progress"] == {"current": 7, "total": 9, "message": "by file"}
    for running in (by_sdk, by_file):
        assert phase(running) == "Running"
        assert running["status"]["checkpoint"]["attempt"] == 1
    space.edit("by-sdk", cancel=True)
    space.edit("by-file", cancel=True)
    (by_sdk, _) = space.finished("by-sdk", "by-file")
    assert by_sdk["status"]["checkpoint"]["data"] == {"row": 3}


def test_the_last_progress_is_written_however_short_the_task_was(space: Space) -> None:
    source = 'for n in 1 2 3 4 5; do echo "{\\"current\\": $n}" > "$TASK_PROGRESS_FILE"; sleep 0.2; done'
    space.apply(shell("counted", source))
    with space.watching() as watch:
        (counted,) = space.finished("counted")
        watch.until(lambda seen: phase(seen["counted"]) == "Succeeded", 30, "its end")
    assert counted["status"]["progress"]["current"] == 5


def test_logs_are_json_lines_and_the_tail_is_safe(space: Space) -> None:
    source = r"printf 'plain\n\033[31mred\033[0m\033]0;title\007\nbyte \377\n'; echo err >&2"
    space.apply(call("logs", "row_by_row"), shell("colours", source))
    space.reach("checkpoint.data.row", 3, "logs")
    space.edit("logs", cancel=True)
    logs, colours = space.finished("logs", "colours")
    lines = [json.loads(line) for line in space.log(holder(logs), "runner").splitlines()]
    said = [(each["stream"], each["message"], each["attempt"]) for each in lines if each.get("task") == "logs"]
    assert ("stderr", "three rows are safe", 1) in said
    tail = colours["status"]["logTail"]
    assert sorted(tail.splitlines()) == ["byte \ufffd", "err", "plain", "red"]


def test_a_task_knows_who_it_is(space: Space) -> None:
    space.apply(shell("shell-knows", 'test "$TASK_ATTEMPT" = 2 && env', retry={"backoff": {"initialSeconds": 0}}))
    space.apply(call("python-knows", "knows"))
    by_shell, by_python = space.finished("shell-knows", "python-knows")
    lines = by_shell["status"]["logTail"].splitlines()
    identity = {"TASK_NAME": "shell-knows", "TASK_NAMESPACE": space.name, "TASK_UID": by_shell["metadata"]["uid"]}
    assert {f"{name}={value}" for name, value in {**identity, "TASK_ATTEMPT": "2"}.items()} <= set(lines)
    assert by_python["status"]["result"] == {
        "name": "python-knows",
        "namespace": space.name,
        "uid": by_python["metadata"]["uid"],
        "attempt": 1,
        "dependencies": {},
        "checkpoint": None,
        "cancelled": False,
    }


def test_arguments_are_checked_before_the_call(space: Space) -> None:
    space.apply(
        call("fits", "order", {"customer": "42", "items": ["a"], "rush": True}),
        call("does-not", "order", {"customer": "me", "items": ["a", 2], "urgent": True}, retry={"limit": 5}),
    )
    fits, does_not = space.finished("fits", "does-not")
    assert fits["status"]["result"] == {"customer": 42, "items": ["a"], "rush": True}
    status = does_not["status"]
    assert (status["phase"], status["reason"], spent(does_not)) == ("Failed", "Error", (1, 0, 0))
    for line in ("customer: Input should be a valid integer", "items.1: Input should be a valid string", "urgent: "):
        assert f"\n  {line}" in status["message"], status["message"]
