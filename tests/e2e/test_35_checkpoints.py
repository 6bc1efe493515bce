"""A computation in a hundred steps whose worker is killed ten times: right in the end, and nothing saved is done again.

`TASKMASTER_TEST_SEED` repeats the random choices of an earlier run, which prints its seed.
"""

import itertools
import json
import os
import random
import secrets
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import reduce

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.jobs import advance
from tests.e2e.objects import attempts, call, holder, is_finished, phase
from tests.e2e.processes import Node
from tests.e2e.space import Space
from tests.e2e.victims import Victims

pytestmark = pytest.mark.timeout(400)

STEPS, STEP_SECONDS = 100, 0.2
KILLS = 10
MOST_STEPS_BETWEEN_KILLS = 7
HUNTED, OTHERS = "hunted", ("bystander-0", "bystander-1")
RETRY = {"limit": 0, "workerLossLimit": 30, "interruptionLimit": 30, "backoff": {"initialSeconds": 0}}

Printed = defaultdict[str, defaultdict[int, list[int]]]
"""Of each Task, by attempt: the steps that it has begun, as the runners' logs tell."""


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    with Space.made(cluster, "checkpoints", replicas=3, slots=2, drainSeconds=0) as made:
        yield made


def test_a_computation_survives_ten_kills_and_repeats_nothing_that_was_saved(space: Space, node: Node) -> None:
    seed = int(os.environ.get("TASKMASTER_TEST_SEED") or secrets.randbits(32))
    print(f"TASKMASTER_TEST_SEED={seed}")
    chance = random.Random(seed)
    victims = Victims(space.cluster, node, space.name)
    ways = itertools.cycle((victims.delete_pod, victims.kill_runner, victims.kill_agent, victims.drain))
    names = (HUNTED, *OTHERS)
    printed: Printed = defaultdict(lambda: defaultdict(list))
    with space.watching() as watch:
        arguments = {"count": STEPS, "seconds": STEP_SECONDS}
        bounds = {"graceSeconds": 1}
        space.apply(*(call(name, "steps", arguments, retry=RETRY, timeouts=bounds) for name in names))
        killed = 0
        for way in itertools.islice(ways, KILLS):
            steps = chance.randint(1, MOST_STEPS_BETWEEN_KILLS)

            def advanced(seen: dict[str, Object], killed: int = killed, steps: int = steps) -> bool:
                task = seen.get(HUNTED, {})
                return saved_by_attempt(task) > killed and steps_of_attempt(task) >= steps

            seen = watch.until(advanced, 60, f"{steps} steps of an attempt after {killed}")  # type: ignore[arg-type]
            victim, killed = holder(seen[HUNTED]), seen[HUNTED]["status"]["attempt"]
            assert phase(seen[HUNTED]) == "Running"
            read(space.log(victim, "runner"), printed)
            step = seen[HUNTED]["status"]["checkpoint"]["data"]["step"]
            print(f"attempt {killed}, step {step}: {way.__name__} {victim}")
            way(victim)
        ended = watch.until(lambda seen: all(is_finished(seen[name]) for name in names), 120, "the end of all")
        watch.catch_up()
    space.has_workers(3)
    for worker in space.workers():
        read(space.log(worker, "runner"), printed)
    right = reduce(advance, range(STEPS), 1)
    for name in names:
        status = ended[name]["status"]
        assert (status["phase"], status["result"]["value"], status["result"]["step"]) == ("Succeeded", right, STEPS)
        assert status.get("failures", 0) == 0
        assert_nothing_saved_is_repeated(watch.revisions[name], printed[name], status["result"]["began"])
    hunted = ended[HUNTED]["status"]
    assert hunted.get("workerLosses", 0) + hunted.get("interruptions", 0) >= KILLS
    # At least one of each kind, and the last ten records are all there is room for.
    assert {each["outcome"] for each in attempts(ended[HUNTED])} >= {"WorkerLost", "Interrupted", "Succeeded"}


def assert_nothing_saved_is_repeated(
    revisions: Sequence[Object | None], printed: dict[int, list[int]], began: dict[str, int]
) -> None:
    """Every attempt began with the step after the last one that the API server had when the attempt was assigned."""
    saved = 0
    first: dict[int, int] = {}
    for revision in revisions:
        assert revision is not None, "deleted"
        status = revision["status"]
        first.setdefault(status["attempt"], saved)
        step = status.get("checkpoint", {}).get("data", {}).get("step", 0)
        assert step >= saved, "a checkpoint went back"
        saved = step
    assert {int(attempt): step for attempt, step in began.items()}.items() <= first.items()
    assert printed
    for attempt, steps in printed.items():
        assert steps == list(range(first[attempt], first[attempt] + len(steps)))


def saved_by_attempt(task: Object) -> int:
    """The attempt that has saved the current checkpoint."""
    return int(task.get("status", {}).get("checkpoint", {}).get("attempt", 0))


def steps_of_attempt(task: Object) -> int:
    """How many steps the attempt that saved the checkpoint has saved."""
    data = task["status"]["checkpoint"]["data"]
    return int(data["step"] - data["began"][str(saved_by_attempt(task))])


def read(log: str, printed: Printed) -> None:
    """Take the begun steps out of a runner's log; what was read before is replaced."""
    found: Printed = defaultdict(lambda: defaultdict(list))
    for line in map(json.loads, log.splitlines()):
        if line.get("stream") == "stdout":
            found[line["task"]][line["attempt"]].append(int(line["message"].removeprefix("step ")))
    for name, by_attempt in found.items():
        printed[name].update(by_attempt)
