"""What follows a failure: rules, budgets, backoff, dead letters; and the bounds on time."""

from collections.abc import Iterator

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import attempts, call, condition, phase, shell, spent, task
from tests.e2e.space import Space
from tests.e2e.times import seconds_between

pytestmark = pytest.mark.timeout(240)

AT_ONCE = {"initialSeconds": 0}
NEVER = {"initialSeconds": 3_600, "maxSeconds": 3_600, "jitter": "None"}


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    with Space.made(cluster, "retries", replicas=2, slots=10) as made:
        yield made


def rule(name: str, action: str, **lists: object) -> Object:
    return {"name": name, "action": action, **lists}


def test_rules_decide_by_what_happened_and_are_named(space: Space) -> None:
    space.apply(
        shell("by-code", "exit 3", retry={"rules": [rule("bad-input", "Fail", onExitCodes=[3])]}),
        shell("by-signal", "kill -SEGV $$", retry={"rules": [rule("crash", "Fail", onSignals=[11])]}),
        call(
            "by-type",
            "raises",
            {"kind": "JSONDecodeError"},
            retry={"rules": [rule("bad-data", "Fail", onErrorTypes=["ValueError"])]},
        ),
        call(
            "by-full-type",
            "raises",
            {"kind": "JSONDecodeError"},
            retry={"rules": [rule("bad-json", "Fail", onErrorTypes=["json.decoder.JSONDecodeError"])]},
        ),
        task("by-reason", "/no/such", retry={"rules": [rule("not-there", "Fail", onReasons=["StartFailed"])]}),
        shell(
            "first-wins",
            'exit "$TASK_ATTEMPT"',
            retry={
                "limit": 5,
                "backoff": AT_ONCE,
                "rules": [
                    rule("retried", "Retry", onExitCodes=[1]),
                    rule("given-up", "Fail", onReasons=["ExitCode"]),
                ],
            },
        ),
    )
    named = {
        "by-code": ("bad-input", "exit code 3"),
        "by-signal": ("crash", "SIGSEGV"),
        "by-type": ("bad-data", "JSONDecodeError"),
        "by-full-type": ("bad-json", "JSONDecodeError"),
        "by-reason": ("not-there", "/no/such"),
        "first-wins": ("given-up", "exit code 2"),
    }
    for ended in space.finished(*named):
        status = ended["status"]
        assert (status["phase"], status["reason"]) == ("Failed", "RuleMatched")
        name, cause = named[ended["metadata"]["name"]]
        assert status["message"].startswith(f"retry rule {name}: ")
        assert cause in status["message"]
        assert not status.get("deadLettered")
        assert status["attempt"] == (2 if name == "given-up" else 1)


def test_code_decides_by_retry_after_and_fail(space: Space) -> None:
    space.apply(
        call("asks", "raises", {"kind": "RetryAfter"}, retry={"limit": 1, "backoff": NEVER}),
        call("gives-up", "raises", {"kind": "Fail"}, retry={"limit": 5, "backoff": AT_ONCE}),
    )
    asks, gives_up = space.finished("asks", "gives-up")
    assert (phase(asks), spent(asks)) == ("Succeeded", (1, 0, 0))
    first, second = attempts(asks)
    assert "the other side is busy" in first["message"]
    assert seconds_between(first["endTime"], second["startTime"]) >= 3
    status = gives_up["status"]
    assert (status["phase"], status["reason"], status["attempt"]) == ("Failed", "Error", 1)
    assert "no such customer" in status["message"]
    assert not status.get("deadLettered")


def test_dead_letters_are_selected_and_replayed(space: Space) -> None:
    space.apply(
        shell("dead", 'test "$TASK_ATTEMPT" -gt 2', retry={"limit": 1, "backoff": AT_ONCE}),
        call("failed-by-itself", "raises", {"kind": "Fail"}),
    )
    dead, _ = space.finished("dead", "failed-by-itself")
    assert (phase(dead), dead["status"]["reason"], spent(dead)) == ("Failed", "ExitCode", (2, 0, 0))
    assert dead["status"]["deadLettered"] is True
    assert condition(dead, "DeadLettered")["status"] == "True"
    assert "dead" in dead_letters(space)
    assert "failed-by-itself" not in dead_letters(space)
    space.edit("dead", retryRequest="the cause is gone")
    space.reach("runNumber", 2, "dead")
    (replayed,) = space.finished("dead")
    assert (phase(replayed), spent(replayed), replayed["status"]["attempt"]) == ("Succeeded", (0, 0, 0), 3)
    assert condition(replayed, "DeadLettered") == {}
    assert "dead" not in dead_letters(space)


def test_a_retry_goes_to_another_worker_and_backing_off_holds_no_slot(space: Space) -> None:
    names = [f"moves-{number}" for number in range(4)]
    space.apply(shell("rests", "exit 1", retry={"backoff": NEVER}))
    space.apply(*(shell(name, 'test "$TASK_ATTEMPT" -gt 1', retry={"backoff": AT_ONCE}) for name in names))
    for ended in space.finished(*names):
        first, second = attempts(ended)
        assert first["worker"] != second["worker"]
    space.reach("reason", "BackingOff", "rests")
    rests = space.task("rests")
    assert "assignment" not in rests["status"]
    assert seconds_between(attempts(rests)[0]["endTime"], rests["status"]["notBeforeTime"]) == pytest.approx(3_600)
    space.is_idle()
    space.edit("rests", cancel=True)


def test_the_last_ten_attempts_are_kept(space: Space) -> None:
    space.apply(shell("many", 'test "$TASK_ATTEMPT" -ge 12', retry={"limit": 20, "backoff": AT_ONCE}))
    (many,) = space.finished("many", seconds=90)
    records = attempts(many)
    assert [each["attempt"] for each in records] == list(range(3, 13))
    assert [(each["outcome"], each["reason"], each["exitCode"]) for each in records] == [
        *[("Failed", "ExitCode", 1)] * 9,
        ("Succeeded", "Completed", 0),
    ]
    assert all(each["worker"] and each["startTime"] <= each["endTime"] for each in records)
    assert spent(many) == (11, 0, 0)


def test_each_bound_on_time_ends_what_it_bounds(space: Space) -> None:
    chatty = "for _ in 1 2 3 4 5 6 7 8 9 10; do echo here; sleep 0.5; done"
    space.apply(
        task("waits", "true", queue="nowhere", timeouts={"pendingSeconds": 1}),
        task("long", "sleep", "300", retry={"limit": 0}, timeouts={"attemptSeconds": 1}),
        shell("total", "sleep 1; exit 1", retry={"limit": 100, "backoff": AT_ONCE}, timeouts={"totalSeconds": 5}),
        task("late", "false", retry={"backoff": NEVER}, timeouts={"totalSeconds": 60}),
        task("silent", "sleep", "300", retry={"limit": 0}, timeouts={"stallSeconds": 2}),
        shell("chatty", chatty, retry={"limit": 0}, timeouts={"stallSeconds": 3}),
    )
    waits, long, total, late, silent, chatty_one = space.finished(
        "waits", "long", "total", "late", "silent", "chatty", seconds=40
    )
    assert (phase(waits), waits["status"]["reason"], waits["status"]["attempt"]) == ("Skipped", "Expired", 0)
    assert (phase(long), long["status"]["reason"], spent(long)) == ("Failed", "TimedOut", (1, 0, 0))
    assert "attemptSeconds" in long["status"]["message"]
    assert (phase(total), total["status"]["reason"]) == ("Failed", "TimedOut")
    assert "totalSeconds" in total["status"]["message"]
    assert len(attempts(total)) > 1
    assert total["status"]["deadLettered"] is True
    # It does not even wait for an attempt that would come too late.
    assert (phase(late), late["status"]["reason"], late["status"]["attempt"]) == ("Failed", "TimedOut", 1)
    assert (phase(silent), silent["status"]["reason"], spent(silent)) == ("Failed", "Stalled", (1, 0, 0))
    assert phase(chatty_one) == "Succeeded"


def dead_letters(space: Space) -> set[str]:
    """Select dead letters as their owner would."""
    selector = ("--field-selector", "status.deadLettered=true")
    found = space.cluster.items("tasks", *selector, namespace=space.name)
    return {each["metadata"]["name"] for each in found}
