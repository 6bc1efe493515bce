"""Two hundred running Tasks while their workers are killed in every way: none is lost, none ends twice."""

import itertools
from collections import Counter
from collections.abc import Mapping

import pytest
from tests.e2e.cluster import Cluster, History, Object
from tests.e2e.objects import attempts, holder, is_finished, phase, pool, shell
from tests.e2e.processes import Node
from tests.e2e.victims import Victims

pytestmark = pytest.mark.timeout(400)

WORKERS = 5
SLOTS = 40
TASKS = WORKERS * SLOTS
FIRST_SECONDS, LATER_SECONDS = 60, 12
"""How long first and later attempts run: the first ones so long that all kills find running Tasks."""

KILLS = 8
"""Of which two are of runners: a Task under which three died in a row is taken for the one that kills them."""


def test_killed_workers_lose_nothing(cluster: Cluster, node: Node, tenant: str) -> None:
    cluster.apply(pool("big", replicas=WORKERS, slots=SLOTS), namespace=tenant)
    cluster.wait(f"jsonpath={{.status.slots}}={TASKS}", "wp/big", namespace=tenant, seconds=120)
    victims = Victims(cluster, node, tenant)
    ways = itertools.cycle((victims.delete_pod, victims.kill_agent, victims.kill_runner))
    source = f'if test "$TASK_ATTEMPT" = 1; then sleep {FIRST_SECONDS}; else sleep {LATER_SECONDS}; fi; echo done'
    with cluster.watching("tasks", namespace=tenant) as watch:
        cluster.apply(*(shell(f"kill-{number:03}", source) for number in range(TASKS)), namespace=tenant)
        watch.until(lambda tasks: count(tasks, "Running") == TASKS, 90, f"{TASKS} running Tasks")
        last: set[str] = set()
        for kill in itertools.islice(ways, KILLS):
            victim, held = busiest(watch, spared=last)
            last = {victim}
            kill(victim)
            watch.until(lambda tasks, held=held: left(tasks, held), 45, f"the Tasks of {victim} leave it")  # type: ignore[misc]
        # Those whose runner died twice run alone, one per worker at a time.
        ended = watch.until(
            lambda tasks: sum(map(is_finished, tasks.values())) == TASKS, 240, f"{TASKS} finished Tasks"
        )
        watch.catch_up()
    assert [task for task in ended.values() if phase(task) != "Succeeded"] == []
    for name, task in ended.items():
        assert_one_terminal_record(watch.revisions[name])
        status = task["status"]
        assert status.get("failures", 0) == 0
        assert [each["attempt"] for each in attempts(task)] == list(range(1, status["attempt"] + 1))
        *earlier, last_outcome = (each["outcome"] for each in attempts(task))
        assert last_outcome == "Succeeded"
        # A worker whose runner was killed gives back unstarted what was on its way to it.
        assert set(earlier) <= {"WorkerLost", "Released"}
        assert status.get("workerLosses", 0) == earlier.count("WorkerLost")
        assert status["logTail"] == "done\n"
    losses = sum(task["status"].get("workerLosses", 0) for task in ended.values())
    # Each kill hit a worker with Tasks; the first ones hit full workers.
    assert losses >= 3 * SLOTS


def count(tasks: Mapping[str, Object], wanted: str) -> int:
    """Count Tasks in a phase."""
    return sum(phase(task) == wanted for task in tasks.values())


def busiest(watch: History, *, spared: set[str]) -> tuple[str, dict[str, int]]:
    """Wait for a worker that runs Tasks; return the one with most of them, and the attempts that it holds by name."""
    found: list[tuple[str, dict[str, int]]] = []

    def look(tasks: Mapping[str, Object]) -> bool:
        running = Counter(holder(task) for task in tasks.values() if phase(task) == "Running")
        candidates = [(number, worker) for worker, number in running.items() if worker not in spared]
        if not candidates:
            return False
        _, worker = max(candidates)
        held = {
            name: task["status"]["attempt"]
            for name, task in tasks.items()
            if holder(task) == worker and not is_finished(task)
        }
        found[:] = [(worker, held)]
        return True

    watch.until(look, 45, f"a running Task on a worker that is not one of {sorted(spared)}")
    return found[0]


def left(tasks: Mapping[str, Object], held: Mapping[str, int]) -> bool:
    """Whether none of these attempts is under way any more."""
    return all(
        tasks[name]["status"]["attempt"] > attempt or phase(tasks[name]) == "Pending" or is_finished(tasks[name])
        for name, attempt in held.items()
    )


def assert_one_terminal_record(revisions: list[Object | None]) -> None:
    """Once finished nothing changes but observedGeneration, and attempts are never skipped or taken back."""
    before: Object | None = None
    for revision in revisions:
        assert revision is not None, "deleted"
        if before is not None:
            step = revision["status"]["attempt"] - before["status"]["attempt"]
            assert step in (0, 1), (before["status"], revision["status"])
            if is_finished(before):
                final, now = dict(before["status"]), dict(revision["status"])
                assert {**final, "observedGeneration": 0} == {**now, "observedGeneration": 0}
        before = revision
