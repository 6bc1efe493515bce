"""TaskQueues: shares of the slots, limits, pauses, defaults, and what is said about Tasks that wait in them."""

import itertools
from collections.abc import Iterator, Mapping

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import attempts, condition, holder, is_finished, phase, queue, shell, spent, task
from tests.e2e.space import Space
from tests.e2e.times import most_at_once, seconds_between

pytestmark = pytest.mark.timeout(240)

SLOTS = 8
TASKS = 90
"""Of each of the two queues that share the slots."""

TOLERANCE = 0.05
"""How far the share of starts may be from what the weights say."""

LATENCY_SECONDS = 2.0
"""Between an assignment and the start of its process, on a busy machine."""

QUEUES = (
    queue("closed", paused=True),
    queue("narrow", maxRunning=0, maxPending=1),
    queue("trickle", rateLimit={"tasks": 1, "perSeconds": 600}),
)
WAITING = {
    "w-paused": ("QueuePaused", "queue closed is paused: it starts Tasks again when its spec.paused is false"),
    "w-first": ("QueueLimit", "queue narrow runs 0 of 0 Tasks (maxRunning)"),
    "w-second": ("QueueLimit", "queue narrow is full for this one: maxPending is 1"),
    "w-limited": ("RateLimited", "queue trickle starts one Task per 600 s on average (rateLimit), and 1 are ready"),
    "w-later": ("WaitingForStartTime", "not to be started before spec.notBeforeTime"),
    "w-parent": ("WaitingForDependency", "waits for nobody (not created yet)"),
}
"""Tasks that wait all through this module, and what is said of them in the end: that takes half a minute."""


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    with Space.made(cluster, "queues", *QUEUES, replicas=2, slots=SLOTS // 2) as made:
        made.apply(task("spends-the-token", "true", queue="trickle"))
        made.finished("spends-the-token")
        made.apply(
            task("w-paused", "true", queue="closed"),
            task("w-first", "true", queue="narrow"),
            task("w-limited", "true", queue="trickle"),
            task("w-later", "true", notBeforeTime="2099-01-01T00:00:00Z"),
            task("w-parent", "true", dependsOn=[{"name": "nobody"}]),
        )
        made.apply(task("w-second", "true", queue="narrow"))
        yield made


def assigned(obj: Object) -> str:
    """When a Task was given to its worker."""
    return str(obj["status"]["assignment"]["assignedTime"])


def test_two_queues_share_the_slots_by_weight(space: Space) -> None:
    heavy, light = queue("heavy", weight=3, paused=True), queue("light", weight=1, paused=True)
    names = {kind: [f"{kind}-{number:02}" for number in range(TASKS)] for kind in ("heavy", "light")}
    tasks = [
        task(name, "sleep", "1", queue=kind, labels={"share": kind}) for kind, each in names.items() for name in each
    ]
    space.apply(heavy, light, *tasks)
    for kind in names:
        space.has("pending", TASKS, f"tq/{kind}")
        space.has("pendingByReason.QueuePaused", TASKS, f"tq/{kind}")
    with space.watching() as watch:
        # The lighter one is let go first: a head start of all the slots is made up for.
        for kind in ("light", "heavy"):
            space.edit_object(f"tq/{kind}", paused=False)

        def heavy_ones_done(seen: Mapping[str, Object]) -> bool:
            return all(name in seen and is_finished(seen[name]) for name in names["heavy"])

        seen = watch.until(heavy_ones_done, 120, "the end of the heavy queue")
    last = max(assigned(seen[name]) for name in names["heavy"])
    begun = [name for name in names["light"] if holder(seen[name]) and assigned(seen[name]) <= last]
    assert len(begun) < TASKS, "the light queue ran out of Tasks: nobody competed any more"
    share = TASKS / (TASKS + len(begun))
    print(f"{TASKS} : {len(begun)} starts while both had Tasks waiting, a share of {share:.3f}")
    assert abs(share - 0.75) <= TOLERANCE
    assert {phase(seen[name]) for name in names["heavy"]} == {"Succeeded"}
    space.cluster.delete("tasks", "-l", "share", namespace=space.name)


def test_a_paused_queue_starts_nothing_and_lets_what_runs_go_on(space: Space) -> None:
    space.apply(queue("gate"), task("g-before", "sleep", "3", queue="gate"))
    space.reach("phase", "Running", "g-before")
    space.edit_object("tq/gate", paused=True)
    space.has("observedGeneration", 2, "tq/gate")
    space.apply(task("g-after", "true", queue="gate"))
    (before,) = space.finished("g-before")
    assert (phase(before), before["status"]["attempt"]) == ("Succeeded", 1)
    space.has("pendingByReason.QueuePaused", 1, "tq/gate")
    space.has("running", 0, "tq/gate")  # the status may be of a moment before the end
    after, gate = space.task("g-after"), space.cluster.get("tq/gate", namespace=space.name)
    assert (phase(after), after["status"]["attempt"]) == ("Pending", 0)
    ready = condition(gate, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Paused")
    space.edit_object("tq/gate", paused=False)
    (after,) = space.finished("g-after")
    assert (phase(after), after["status"]["attempt"]) == ("Succeeded", 1)
    space.cluster.wait("condition=Ready", "tq/gate", namespace=space.name)


def test_a_drained_queue_hands_back_what_runs_until_it_is_open_again(space: Space) -> None:
    endless_at_first = 'test "$TASK_ATTEMPT" -gt 1 || sleep 300'
    no_failure = {"limit": 0, "workerLossLimit": 0, "interruptionLimit": 1}
    names = ("d-one", "d-two")
    tasks = (shell(name, endless_at_first, queue="drained", retry=no_failure) for name in names)
    space.apply(queue("drained"), *tasks, shell("d-other", endless_at_first))
    space.reach("phase", "Running", *names, "d-other")
    space.edit_object("tq/drained", drain=True)
    space.reach("phase", "Pending", *names)
    for name in names:
        handed_back = space.task(name)
        assert spent(handed_back) == (0, 0, 1)
        assert "assignment" not in handed_back["status"]
        (record,) = attempts(handed_back)
        assert (record["outcome"], record["message"]) == ("Interrupted", "its queue is being emptied")
    space.has("pendingByReason.QueuePaused", 2, "tq/drained")
    ready = condition(space.cluster.get("tq/drained", namespace=space.name), "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "Draining")
    other = space.task("d-other")
    assert (phase(other), other["status"]["attempt"]) == ("Running", 1)
    space.cluster.delete("task/d-other", namespace=space.name)
    space.edit_object("tq/drained", drain=False)
    for ended in space.finished(*names):
        assert (phase(ended), ended["status"]["attempt"], spent(ended)) == ("Succeeded", 2, (0, 0, 1))


def test_a_rate_limit_spaces_starts_and_lets_a_burst_through(space: Space) -> None:
    burst, rate, number = 3, 2, 13
    names = [f"r-{each:02}" for each in range(number)]
    space.apply(queue("steady", rateLimit={"tasks": 4, "perSeconds": 2, "burst": burst}, paused=True))
    space.apply(*(task(name, "true", queue="steady") for name in names))
    space.edit_object("tq/steady", paused=False)
    ended = space.finished(*names)
    given = sorted(assigned(each) for each in ended)
    for (i, first), (j, second) in itertools.combinations(enumerate(given), 2):
        # Times are written with six digits.
        assert j - i + 1 <= burst + rate * seconds_between(first, second) + 0.001, given
    assert all(seconds_between(first, second) < 0.4 for first, second in itertools.pairwise(given[:burst]))
    began = sorted(attempts(each)[0]["startTime"] for each in ended)
    assert seconds_between(began[0], began[-1]) >= (number - burst) / rate - LATENCY_SECONDS


def test_a_queue_runs_as_many_as_it_may(space: Space) -> None:
    names = [f"m-{number}" for number in range(6)]
    space.apply(queue("pair", maxRunning=2), *(task(name, "sleep", "1", queue="pair") for name in names))
    ended = space.finished(*names)
    assert {phase(each) for each in ended} == {"Succeeded"}
    assert most_at_once(ended) == 2


def test_a_full_queue_rejects_what_comes(space: Space) -> None:
    space.apply(queue("full", maxRunning=0, maxPending=2, whenFull="Reject"))
    space.apply(*(task(name, "true", queue="full") for name in ("f-1", "f-2")))
    space.has("pending", 2, "tq/full")
    space.apply(task("f-3", "true", queue="full"))
    (rejected,) = space.finished("f-3")
    assert (phase(rejected), rejected["status"]["reason"]) == ("Skipped", "Rejected")
    assert rejected["status"]["message"].startswith("queue full is full: 2 Tasks wait in it (maxPending)")
    space.edit_object("tq/full", maxRunning=2)
    first, second = space.finished("f-1", "f-2")
    assert [phase(each) for each in (first, second)] == ["Succeeded"] * 2


def test_a_queue_says_what_its_tasks_leave_open(space: Space) -> None:
    defaults: Object = {
        "retry": {"limit": 1, "interruptionLimit": 7, "backoff": {"initialSeconds": 0, "jitter": "None"}},
        "timeouts": {"attemptSeconds": 45, "totalSeconds": 90, "graceSeconds": 4},
        "ttl": {"succeededSeconds": 2},
    }
    space.apply(
        queue("defaults", **defaults),
        task("s-silent", "true", queue="defaults", ttlSecondsAfterFinished=600),
        shell("s-own", "exit 1", queue="defaults", retry={"limit": 2}, timeouts={"attemptSeconds": 30}),
        task("s-brief", "true", queue="defaults"),
    )
    silent, own = space.finished("s-silent", "s-own")
    expected = {"attemptSeconds": 45, "totalSeconds": 90, "graceSeconds": 4, "retryLimit": 1, "interruptionLimit": 7}
    policy = silent["status"]["assignment"]["policy"]
    assert {field: policy[field] for field in expected} == expected
    assert policy["backoff"] == {"initialSeconds": 0, "factor": 2, "maxSeconds": 300, "jitter": "None"}
    policy = own["status"]["assignment"]["policy"]
    # Field by field: what the Task says is the Task's, all else the queue's.
    assert {**expected, "attemptSeconds": 30, "retryLimit": 2} == {field: policy[field] for field in expected}
    assert (phase(own), spent(own)) == ("Failed", (3, 0, 0))
    space.cluster.wait("delete", "task/s-brief", namespace=space.name)
    assert phase(space.task("s-silent")) == "Succeeded"


def test_a_task_of_a_queue_that_is_not_there_runs_as_soon_as_it_is(space: Space) -> None:
    space.apply(task("early", "true", queue="comes-later"))
    space.reach("reason", "QueueNotFound", "early")
    assert 'there is no queue "comes-later"' in space.task("early")["status"]["message"]
    space.apply(queue("comes-later"))
    (ended,) = space.finished("early")
    assert (phase(ended), ended["status"]["attempt"]) == ("Succeeded", 1)


def test_tasks_and_queues_say_for_what_is_waited(space: Space) -> None:
    for name, (reason, said) in WAITING.items():
        space.reach("reason", reason, name)
        assert space.task(name)["status"]["message"].startswith(said)
    counts = {"closed": {"QueuePaused": 1}, "narrow": {"QueueLimit": 2}, "trickle": {"RateLimited": 1}}
    for name, expected in counts.items():
        status = space.cluster.get(f"tq/{name}", namespace=space.name)["status"]
        assert status["pendingByReason"] == expected
        assert status["oldestPendingSeconds"] >= 20
    rows = [line.split() for line in space.cluster.kubectl("get", "tq", "-n", space.name).splitlines()]
    assert rows[0] == ["NAME", "WEIGHT", "PENDING", "RUNNING", "OLDEST", "PAUSED", "STATUS", "AGE"]
    shown = {row[0]: row[1:7] for row in rows[1:]}
    assert shown["heavy"] == ["3", "0", "0", "0", "false", "Open"]
    assert [*shown["closed"][:3], *shown["closed"][4:]] == ["1", "1", "0", "true", "Paused"]
    assert shown["narrow"][1] == "2"
    space.edit_object("tq/closed", paused=False)
    space.edit_object("tq/narrow", maxRunning=1)
    first, second, paused = space.finished("w-first", "w-second", "w-paused")
    assert [phase(each) for each in (first, second, paused)] == ["Succeeded"] * 3
    assert assigned(first) < assigned(second)
