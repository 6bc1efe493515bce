"""Concurrency keys: what a Task with one does to the others of its key, by each policy, and what frees a key."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import attempts, phase, queue, shell, spent, task
from tests.e2e.space import Space
from tests.e2e.times import most_at_once

pytestmark = pytest.mark.timeout(240)

ENDLESS = ("sleep", "300")
LIMIT = 2


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    # Tasks of a paused queue wait: they are what a policy finds that is about waiting ones.
    with Space.made(cluster, "concurrency", queue("keyed"), queue("paused", paused=True), replicas=1, slots=16) as made:
        yield made


def keyed(key: str, policy: str = "Queue", *, limit: int = LIMIT) -> dict[str, Any]:
    """The fields of a Task with a key."""
    return {"concurrency": {"key": key, "limit": limit, "onConflict": policy}}


def running(space: Space, *tasks: Object) -> None:
    """Create Tasks one after the other, and wait until they run."""
    for each in tasks:
        space.apply(each)
        space.reach("phase", "Running", each["metadata"]["name"])


def ended(obj: Object) -> tuple[str, str, int]:
    """How a Task has ended, and after how many attempts."""
    return phase(obj), obj["status"]["reason"], obj["status"]["attempt"]


def test_queue_lets_as_many_run_as_may_and_all_in_the_end(space: Space) -> None:
    names = [f"q-{number}" for number in range(6)]
    space.apply(*(task(name, "sleep", "1", queue="keyed", **keyed("queue")) for name in names))
    done = space.finished(*names)
    assert {ended(each) for each in done} == {("Succeeded", "Completed", 1)}
    assert most_at_once(done) == LIMIT


def test_reject_skips_what_finds_no_room(space: Space) -> None:
    running(space, task("r-runs", *ENDLESS, **keyed("reject", "Reject")))
    # The second one only waits, and counts as well.
    space.apply(task("r-waits", "true", queue="paused", **keyed("reject", "Reject")))
    space.apply(task("r-late", "true", **keyed("reject", "Reject")))
    (late,) = space.finished("r-late")
    assert ended(late) == ("Skipped", "Rejected", 0)
    assert late["status"]["message"].startswith('concurrency key "reject" has no room: 2 may run at a time')
    assert phase(space.task("r-runs")) == "Running"
    assert phase(space.task("r-waits")) == "Pending"
    space.cluster.delete("task/r-waits", namespace=space.name)
    space.apply(task("r-again", "true", **keyed("reject", "Reject")))
    (again,) = space.finished("r-again")
    assert ended(again) == ("Succeeded", "Completed", 1)
    space.edit("r-runs", cancel=True)


def test_cancel_running_ends_waiting_ones_first_and_then_the_oldest(space: Space) -> None:
    running(space, task("c-old", *ENDLESS, **keyed("cancel", "CancelRunning")))
    space.apply(task("c-waits", "true", queue="paused", **keyed("cancel", "CancelRunning")))
    running(space, task("c-new", *ENDLESS, **keyed("cancel", "CancelRunning")))
    (waiting,) = space.finished("c-waits")
    assert ended(waiting) == ("Cancelled", "Replaced", 0)
    assert waiting["status"]["message"] == 'Task c-new with the same concurrency key "cancel" took its place'
    assert phase(space.task("c-old")) == "Running"
    running(space, task("c-newest", *ENDLESS, **keyed("cancel", "CancelRunning")))
    (old,) = space.finished("c-old")
    assert ended(old) == ("Cancelled", "Replaced", 1)
    assert [(each["outcome"], each["reason"]) for each in attempts(old)] == [("Cancelled", "Replaced")]
    assert spent(old) == (0, 0, 0)
    # No more than may ran together: the newest began when the oldest had ended.
    assert attempts(old)[0]["endTime"] <= space.task("c-newest")["status"]["assignment"]["assignedTime"]
    assert phase(space.task("c-new")) == "Running"
    for name in ("c-new", "c-newest"):
        space.edit(name, cancel=True)
    assert {ended(each) for each in space.finished("c-new", "c-newest")} == {("Cancelled", "Cancelled", 1)}


def test_replace_pending_ends_those_that_wait_and_lets_running_ones_go_on(space: Space) -> None:
    running(space, *(task(f"p-{each}", *ENDLESS, **keyed("pending", "ReplacePending")) for each in (1, 2)))
    space.apply(task("p-3", "true", queue="keyed", **keyed("pending", "ReplacePending")))
    space.has("pendingByReason.ConcurrencyLimit", 1, "tq/keyed")
    space.apply(task("p-4", "true", queue="keyed", **keyed("pending", "ReplacePending")))
    (third,) = space.finished("p-3")
    assert ended(third) == ("Cancelled", "Replaced", 0)
    assert [phase(space.task(name)) for name in ("p-1", "p-2", "p-4")] == ["Running", "Running", "Pending"]
    space.edit("p-1", cancel=True)
    (fourth,) = space.finished("p-4")
    assert ended(fourth) == ("Succeeded", "Completed", 1)
    space.edit("p-2", cancel=True)


def test_a_key_is_free_during_backoff_and_after_a_deletion(space: Space) -> None:
    one = keyed("freed", limit=1)
    space.apply(shell("b-fails", "exit 1", retry={"backoff": {"initialSeconds": 300, "jitter": "None"}}, **one))
    space.reach("reason", "BackingOff", "b-fails")
    running(space, task("b-holds", *ENDLESS, **one))
    space.apply(task("b-next", "true", **one))
    space.cluster.delete("task/b-holds", namespace=space.name)
    (following,) = space.finished("b-next")
    assert ended(following) == ("Succeeded", "Completed", 1)
    assert phase(space.task("b-fails")) == "Pending"
