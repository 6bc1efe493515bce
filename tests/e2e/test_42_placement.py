"""Which worker takes a Task: labels, queues of pools, slots, and the ways of choosing among those that fit."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from tests.e2e.cluster import Cluster, Object
from tests.e2e.objects import holder, phase, pool, queue, task
from tests.e2e.space import Space
from tests.e2e.times import most_at_once

pytestmark = pytest.mark.timeout(240)

SLOTS = 4
ENDLESS = ("sleep", "300")
PLACEMENTS = ("BinPack", "LeastLoaded", "RoundRobin")


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    queues = (queue(each.lower(), placement=each) for each in PLACEMENTS)
    with Space.made(cluster, "placement", *queues, replicas=2, slots=SLOTS) as made:
        yield made


def labelled(**labels: str) -> Object:
    """What a Task requires that is particular about labels."""
    return {"matchLabels": labels}


def pool_of(obj: Object) -> str:
    """The pool of the worker that had a Task last."""
    return holder(obj).partition("-worker-")[0]


def beside(space: Space, *pools: Object) -> None:
    """Add pools of one worker each to the namespace, and wait for them."""
    space.apply(*pools)
    for each in pools:
        space.has("readyWorkers", 1, f"wp/{each['metadata']['name']}", seconds=90)


def workers_of(space: Space, *names: str) -> list[str]:
    """Wait until Tasks have workers, and return these."""
    space.reach("phase", "Running", *names)
    return [holder(space.task(name)) for name in names]


def test_placements_choose_different_workers(space: Space) -> None:
    packed = workers_of(space, *sleepers(space, "binpack", 3))
    assert len(set(packed)) == 1
    spread = workers_of(space, *sleepers(space, "leastloaded", 3))
    # Three on one worker and none on the other: what comes evens that out.
    assert set(spread) == set(space.workers()) - set(packed)
    space.cluster.delete("tasks", "--all", namespace=space.name)
    space.is_idle()
    one = workers_of(space, *sleepers(space, "binpack", 2))
    # In turn, whatever the others hold.
    turns = Counter(workers_of(space, *sleepers(space, "roundrobin", 4)))
    assert sorted(turns.values()) == [2, 2]
    assert len(set(one)) == 1
    space.cluster.delete("tasks", "--all", namespace=space.name)
    space.is_idle()


def sleepers(space: Space, kind: str, number: int) -> list[str]:
    """Create Tasks that hold their slots, one after the other."""
    names = [f"{kind}-{each}" for each in range(number)]
    for name in names:
        space.apply(task(name, *ENDLESS, queue=kind))
    return names


def test_tasks_wait_for_workers_that_fit_and_go_there(space: Space) -> None:
    larger = {"matchExpressions": [{"key": "memory", "operator": "Gt", "values": ["16"]}]}
    elsewhere = {"matchExpressions": [{"key": "gpu", "operator": "DoesNotExist"}]}
    queues = (queue("special"),)
    waiting: dict[str, dict[str, Any]] = {
        "needs-gpu": {"requires": labelled(gpu="true")},
        "needs-memory": {"requires": larger},
        "needs-pool": {"requires": labelled(pool="special"), "queue": "special"},
        "needs-slots": {"resources": {"slots": SLOTS + 1}},
    }
    space.apply(*queues, *(task(name, "true", **spec) for name, spec in waiting.items()))
    space.reach("reason", "NoMatchingWorker", *waiting)
    said = {name: space.task(name)["status"]["message"].partition(";")[0] for name in waiting}
    assert said == {
        "needs-gpu": "0/2 workers fit: 2 lack gpu=true",
        "needs-memory": "0/2 workers fit: 2 lack memory>16",
        "needs-pool": "0/2 workers fit: 2 lack pool=special",
        "needs-slots": f"0/2 workers fit: 2 have fewer than {SLOTS + 1} slots",
    }
    beside(
        space,
        pool("gpu", replicas=1, slots=SLOTS, labels={"gpu": "true", "memory": "32"}),
        pool("special", replicas=1, slots=SLOTS + 1, queues=["special"]),
    )
    ended = space.finished("needs-gpu", "needs-memory", "needs-pool")
    assert [(phase(each), pool_of(each)) for each in ended] == [
        ("Succeeded", "gpu"),
        ("Succeeded", "gpu"),
        ("Succeeded", "special"),
    ]
    # The pool of larger workers takes Tasks of its queue only.
    assert phase(space.task("needs-slots")) == "Pending"
    space.apply(
        task("not-served", "true", requires=labelled(pool="special")),
        task("without-gpu", "true", requires=elsewhere),
    )
    (without,) = space.finished("without-gpu")
    assert pool_of(without) == space.name
    space.reach("reason", "NoMatchingWorker", "not-served")
    message = space.task("not-served")["status"]["message"]
    assert message.startswith("0/4 workers fit: 3 lack pool=special, 1 do not serve queue default")
    space.edit("needs-slots", queue="special")
    space.edit("not-served", queue="special")
    for each in space.finished("needs-slots", "not-served"):
        assert (phase(each), pool_of(each)) == ("Succeeded", "special")


def test_tasks_take_as_many_slots_as_they_say(space: Space) -> None:
    beside(space, pool("wide", replicas=1, slots=SLOTS))
    here = labelled(pool="wide")
    pairs = [task(f"pair-{each}", "sleep", "1", requires=here, resources={"slots": 2}) for each in range(4)]
    mixed = [task(f"mixed-{each}", "sleep", "1", requires=here, resources={"slots": each % 4 + 1}) for each in range(6)]
    space.apply(*pairs)
    ended = space.finished(*(each["metadata"]["name"] for each in pairs))
    assert {(phase(each), pool_of(each)) for each in ended} == {("Succeeded", "wide")}
    assert most_at_once(ended) == SLOTS
    space.apply(*mixed)
    ended = space.finished(*(each["metadata"]["name"] for each in mixed))
    assert {(phase(each), pool_of(each)) for each in ended} == {("Succeeded", "wide")}
    assert most_at_once(ended) == SLOTS
    space.has("busySlots", 0, "wp/wide", seconds=30)
