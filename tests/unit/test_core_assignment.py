"""Backlog, Capacity and the assignment over both, each step compared with a model that is too simple to be wrong."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from tests.builders import EPOCH, task, worker

from taskmaster.api.times import to_wire
from taskmaster.core.assignment import assign
from taskmaster.core.backlog import Backlog
from taskmaster.core.capacity import Capacity
from taskmaster.core.task import Instant, Task

NOW = Instant(EPOCH)
NAMES = st.sampled_from([f"t{number}" for number in range(8)])
WORKERS = st.sampled_from(["a", "b", "c"])


def rig(*tasks: Task, **slots: int) -> tuple[Backlog, Backlog, Capacity]:
    backlog, loners, capacity = Backlog(), Backlog(), Capacity()
    for each in tasks:
        (loners if each.runs_alone else backlog).put(each, now=NOW)
    for name, number in slots.items():
        capacity.put_worker(worker(name, slots=number))
    return backlog, loners, capacity


def pairs(backlog: Backlog, loners: Backlog, capacity: Capacity, *, at_most: int = 100) -> list[tuple[str, str]]:
    return [(each.task.name, each.worker.name) for each in assign(backlog, loners, capacity, at_most=at_most)]


def test_most_urgent_tasks_get_the_slots_and_the_rest_stays() -> None:
    backlog, loners, capacity = rig(task("low"), task("high", priority=9), task("middle", priority=5), a=1, b=1)
    assert pairs(backlog, loners, capacity) == [("high", "a"), ("middle", "b")]
    assert "uid-of-low" in backlog
    assert len(backlog) == 1


def test_load_is_spread() -> None:
    backlog, loners, capacity = rig(*(task(f"t{number}") for number in range(6)), a=4, b=4, c=4)
    assert sorted(name for _, name in pairs(backlog, loners, capacity)) == ["a", "a", "b", "b", "c", "c"]


def test_at_most_bounds_the_decisions_and_nothing_is_lost() -> None:
    backlog, loners, capacity = rig(task("1"), task("2"), task("3"), a=9)
    assert len(pairs(backlog, loners, capacity, at_most=2)) == 2
    assert pairs(backlog, loners, capacity, at_most=0) == []
    assert pairs(backlog, loners, capacity, at_most=-1) == []
    assert pairs(backlog, loners, capacity) == [("3", "a")]


def test_without_a_free_slot_the_backlog_is_left_alone() -> None:
    backlog, loners, capacity = rig(task("1"))
    assert pairs(backlog, loners, capacity) == []
    assert len(backlog) == 1


def failed_on(name: str, worker: str, **spec: Any) -> Task:
    record = {"attempt": 1, "worker": worker, "endTime": to_wire(EPOCH), "outcome": "Failed", "reason": "Error"}
    return task(name, status={"attempt": 1, "attempts": [record]}, **spec)


def suspect(name: str, **spec: Any) -> Task:
    """A Task under which the runner died twice."""
    return task(name, status={"runnerDeaths": 2}, **spec)


def test_a_retry_avoids_the_worker_that_failed_it_where_another_fits() -> None:
    assert pairs(*rig(failed_on("t", "a"), a=9, b=1)) == [("t", "b")]
    assert pairs(*rig(failed_on("t", "a"), a=9)) == [("t", "a")]


def test_avoiding_a_worker_costs_the_others_nothing() -> None:
    backlog, loners, capacity = rig(failed_on("retry", "a", priority=9), task("new"), a=1, b=1)
    assert pairs(backlog, loners, capacity) == [("retry", "b"), ("new", "a")]


def test_a_suspect_gets_a_worker_of_its_own() -> None:
    backlog, loners, capacity = rig(suspect("s"), task("1"), task("2"), a=4, b=4)
    assert sorted(pairs(backlog, loners, capacity)) == [("1", "b"), ("2", "b"), ("s", "a")]


def test_a_suspect_waits_until_its_worker_is_empty_and_nothing_new_comes_there() -> None:
    backlog, loners, capacity = rig(suspect("s"), task("new"), a=4, b=4)
    capacity.take("old-1", "uid-of-a")
    for old in ("old-2", "old-3"):
        capacity.take(old, "uid-of-b")
    assert pairs(backlog, loners, capacity) == [("new", "b")]
    for number in range(9):
        backlog.put(task(f"more-{number}"), now=NOW)
    assert {worker for _, worker in pairs(backlog, loners, capacity)} == {"b"}
    capacity.free("old-1")
    assert pairs(backlog, loners, capacity) == [("s", "a")]
    capacity.free("uid-of-s")
    capacity.release("uid-of-s")
    assert {worker for _, worker in pairs(backlog, loners, capacity)} == {"a"}


def test_a_suspect_takes_another_worker_when_the_kept_one_leaves() -> None:
    backlog, loners, capacity = rig(suspect("s"), a=1, b=1)
    for name in "ab":
        capacity.take(f"old-{name}", f"uid-of-{name}")
    assert pairs(backlog, loners, capacity) == []
    capacity.put_worker(worker("a", slots=1, schedulable=False))
    assert pairs(backlog, loners, capacity) == []
    capacity.free("old-b")
    assert pairs(backlog, loners, capacity) == [("s", "b")]


def test_suspects_leave_half_of_the_workers_to_the_others() -> None:
    suspects = [suspect(f"s{number}", priority=9) for number in range(5)]
    backlog, loners, capacity = rig(*suspects, *(task(f"{number}") for number in range(9)), a=2, b=2, c=2, d=2, e=2)
    placed = pairs(backlog, loners, capacity)
    assert [name for name, _ in placed if name.startswith("s")] == ["s0", "s1"]
    assert len({worker for name, worker in placed if not name.startswith("s")}) == 3
    capacity.free("uid-of-s0")
    capacity.release("uid-of-s0")
    assert [name for name, _ in pairs(backlog, loners, capacity) if name.startswith("s")] == ["s2"]


def test_suspects_run_one_after_the_other_where_there_is_one_worker() -> None:
    backlog, loners, capacity = rig(suspect("s1", priority=1), suspect("s2"), a=4)
    assert pairs(backlog, loners, capacity) == [("s1", "a")]
    assert pairs(backlog, loners, capacity) == []
    capacity.free("uid-of-s1")
    capacity.release("uid-of-s1")
    assert pairs(backlog, loners, capacity) == [("s2", "a")]


class SchedulingMachine(RuleBasedStateMachine):
    """What may happen to a tenant, in any order; the model is four dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.now = EPOCH
        self.backlog, self.capacity = Backlog(), Capacity()
        self.waiting: dict[str, tuple[Task, int]] = {}
        self.orders = 0
        self.places: dict[str, str] = {}
        self.slots: dict[str, tuple[int, bool]] = {}

    @rule(name=NAMES, priority=st.integers(-1, 1), created=st.integers(0, 2), delay=st.sampled_from([None, 0, 5, 10]))
    def observe_pending(self, name: str, priority: int, created: int, delay: int | None) -> None:
        status = {} if delay is None else {"notBeforeTime": to_wire(self.now + delay)}
        seen = task(name, status=status, priority=priority, created=EPOCH + created)
        self.capacity.free(seen.uid)
        self.backlog.put(seen, now=Instant(self.now))
        self.places.pop(seen.uid, None)
        if seen.uid not in self.waiting:
            self.orders += 1
        self.waiting[seen.uid] = (seen, self.waiting.get(seen.uid, (seen, self.orders))[1])

    @rule(name=NAMES, on=WORKERS)
    def observe_held(self, name: str, on: str) -> None:
        uid = f"uid-of-{name}"
        self.backlog.discard(uid)
        self.capacity.take(uid, f"uid-of-{on}")
        self.waiting.pop(uid, None)
        self.places[uid] = f"uid-of-{on}"

    @rule(name=NAMES)
    def observe_gone(self, name: str) -> None:
        uid = f"uid-of-{name}"
        self.backlog.discard(uid)
        self.capacity.free(uid)
        self.waiting.pop(uid, None)
        self.places.pop(uid, None)

    @rule(name=WORKERS, slots=st.integers(1, 3), schedulable=st.booleans())
    def observe_worker(self, name: str, slots: int, schedulable: bool) -> None:
        self.capacity.put_worker(worker(name, slots=slots, schedulable=schedulable))
        self.slots[f"uid-of-{name}"] = (slots, schedulable)

    @rule(name=WORKERS)
    def lose_worker(self, name: str) -> None:
        self.capacity.remove_worker(f"uid-of-{name}")
        self.slots.pop(f"uid-of-{name}", None)

    @rule(seconds=st.integers(0, 10))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.backlog.wake(now=Instant(self.now))

    @rule(at_most=st.integers(0, 4))
    def cycle(self, at_most: int) -> None:
        self.backlog.wake(now=Instant(self.now))
        decisions = assign(self.backlog, Backlog(), self.capacity, at_most=at_most)
        for decision in decisions:
            assert decision.task == self.runnable()[0]
            pod = decision.worker.pod_uid
            assert self.load(pod) == min(self.load(each) for each in self.open())
            del self.waiting[decision.task.uid]
            self.places[decision.task.uid] = pod
        assert len(decisions) == at_most or not self.runnable() or not self.open()

    def runnable(self) -> list[Task]:
        """The waiting Tasks whose time has come, in the order they should run."""
        ready = [
            (-each.priority, each.created, order, each)
            for each, order in self.waiting.values()
            if each.not_before is None or each.not_before <= self.now
        ]
        return [each for *_, each in sorted(ready, key=lambda entry: entry[:3])]

    def held(self, pod: str) -> set[str]:
        return {uid for uid, place in self.places.items() if place == pod}

    def load(self, pod: str) -> float:
        return len(self.held(pod)) / self.slots[pod][0]

    def open(self) -> list[str]:
        return [pod for pod, (slots, schedulable) in self.slots.items() if schedulable and len(self.held(pod)) < slots]

    @invariant()
    def each_task_waits_once_or_is_placed_once(self) -> None:
        assert all(uid in self.backlog for uid in self.waiting)
        assert len(self.backlog) == len(self.waiting)
        assert not set(self.waiting) & set(self.places)

    @invariant()
    def slots_are_counted_as_the_model_counts_them(self) -> None:
        for name in "abc":
            assert self.capacity.held_by(f"uid-of-{name}") == self.held(f"uid-of-{name}")
        offered = self.capacity.least_loaded()
        assert (offered is None) == (not self.open())
        if offered is not None:
            assert self.load(offered.pod_uid) == min(map(self.load, self.open()))

    @invariant()
    def next_due_is_the_earliest_time_to_come(self) -> None:
        self.backlog.wake(now=Instant(self.now))
        times = [each.not_before for each, _ in self.waiting.values() if each.not_before is not None]
        assert self.backlog.next_due() == min((time for time in times if time > self.now), default=None)
        head = self.runnable()
        assert self.backlog.head() == (head[0] if head else None)


TestScheduling = SchedulingMachine.TestCase
TestScheduling.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
