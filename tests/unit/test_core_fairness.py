"""Who gets how much, and who has to wait how long: a namespace at work in virtual time."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from tests.builders import EPOCH
from tests.unit.tenant_rig import Site, ended, held, key, pending

from taskmaster.core.backlog import AGE_TURN
from taskmaster.core.queue import Queue
from taskmaster.core.task import Instant, Task


class Work:
    """Workers that run what they are given for as long as it takes."""

    def __init__(self, *queues: Queue, **workers: Any) -> None:
        self.site = Site(*queues, **workers)
        self.numbers = count()
        self.running: list[tuple[float, int, Task]] = []
        self.seconds: dict[str, float] = {}
        self.begun: dict[str, float] = {}
        self.slot_seconds: defaultdict[str, float] = defaultdict(float)
        self.since = EPOCH

    def put(self, queue: str, seconds: float, **fields: Any) -> str:
        name = str(fields.pop("name", f"{queue}-{next(self.numbers)}"))
        self.seconds[name] = seconds
        self.site.put(pending(name, queue=queue, created=self.site.now, **fields))
        return name

    def run(self, seconds: float, arrive: Callable[[], None] = lambda: None) -> None:
        """Go on; `arrive` is called before each decision."""
        end = self.site.now + seconds
        while True:
            arrive()
            for decision in self.site.decide():
                task = held(decision.task, decision.worker.name)
                self.site.put(task)
                self.begun[task.name] = self.site.now
                heapq.heappush(self.running, (self.site.now + self.seconds[task.name], next(self.numbers), task))
            if not self.running or self.running[0][0] > end:
                self.site.now = Instant(end)
                return
            at = self.running[0][0]
            self.site.now = Instant(at)
            while self.running and self.running[0][0] <= at:
                _, _, task = heapq.heappop(self.running)
                self.slot_seconds[task.queue] += (task.slots or 1) * (at - max(self.since, self.begun[task.name]))
                self.site.put(ended(task))
                self.site.remove(task)

    def measure(self) -> None:
        """Count slot-seconds from now on."""
        self.since = self.site.now
        self.slot_seconds.clear()

    def shares(self) -> dict[str, float]:
        total = sum(self.slot_seconds.values())
        return {queue: used / total for queue, used in self.slot_seconds.items()}


def saturated(work: Work, durations: dict[str, float], deep: int = 15) -> Callable[[], None]:
    """Keep so many Tasks waiting in each queue."""

    def arrive() -> None:
        for queue, seconds in durations.items():
            state = work.site.tenant.queues[queue]
            for _ in range(deep - len(state.backlog)):
                work.put(queue, seconds)

    return arrive


WEIGHTS = [{"a": 3, "b": 1}, {"a": 1, "b": 1, "c": 2}]
DURATIONS = [(10.0, 10.0, 10.0), (2.0, 20.0, 7.0), (30.0, 3.0, 11.0)]


def expect(shares: dict[str, float], weights: dict[str, int], **tolerance: Any) -> None:
    total = sum(weights.values())
    assert shares == {
        queue: pytest.approx(weight / total, **(tolerance or {"rel": 0.05})) for queue, weight in weights.items()
    }


@pytest.mark.parametrize("slots", [1, 4, 10])
@pytest.mark.parametrize("seconds", DURATIONS, ids=str)
@pytest.mark.parametrize("weights", WEIGHTS, ids=lambda weights: ":".join(map(str, weights.values())))
def test_shares_converge_to_the_weights(weights: dict[str, int], seconds: tuple[float, ...], slots: int) -> None:
    work = Work(*(Queue(name, weight=weight) for name, weight in weights.items()), w=slots)
    arrive = saturated(work, dict(zip(weights, seconds, strict=False)))
    work.run(200, arrive)
    work.measure()
    work.run({1: 6_000, 4: 2_000, 10: 1_000}[slots], arrive)
    # One slot is shared in pieces that are not small beside the half-life of what is remembered.
    expect(work.shares(), weights, **({"abs": 0.025} if slots == 1 else {"rel": 0.05}))


@pytest.mark.parametrize("absence", ["joins late", "was paused", "joins late, and a third fits nowhere"])
def test_a_queue_that_was_away_has_its_share_from_then_on_and_no_more(absence: str) -> None:
    work = Work(Queue("a"), Queue("b", paused=absence == "was paused"), w=4)
    both = saturated(work, {"a": 10.0, "b": 6.0})
    if "fits nowhere" in absence:
        work.site.queue("stuck")
        work.put("stuck", 1.0, slots=5)
    work.run(1_500, both if absence == "was paused" else saturated(work, {"a": 10.0}))
    work.site.queue("b")
    for _ in range(4):
        work.measure()
        work.run(300, both)
        expect(work.shares(), {"a": 1, "b": 1})


def test_what_a_queue_does_not_want_goes_to_the_others() -> None:
    work = Work(Queue("a"), Queue("b", max_running=1), w=10)
    arrive = saturated(work, {"a": 10.0, "b": 10.0})
    work.run(100, arrive)
    work.measure()
    work.run(1_000, arrive)
    expect(work.shares(), {"a": 9, "b": 1})


# Waiting


def test_a_stream_of_high_priority_delays_for_no_longer_than_its_aging() -> None:
    work = Work(Queue("default", aging_seconds=10), w=1)

    def arrive() -> None:
        while len(work.site.tenant.queues["default"].backlog) < 20:
            work.put("default", 1.0, priority=50)

    work.run(10, arrive)
    victims = [work.put("default", 1.0) for _ in range(5)]
    at = work.site.now
    work.run(700, arrive)
    # After 50 points of priority, ten seconds each, only those that came before are older; five queue for one slot.
    bound = 50 * 10 + 20 + len(victims) + 1
    assert [work.begun[name] - at <= bound for name in victims] == [True] * 5
    assert work.begun[victims[0]] - at >= 400, "it is a priority"


def test_a_stream_of_ever_new_keys_delays_by_no_more_than_its_turns() -> None:
    work = Work(w=1)

    def arrive() -> None:
        while len(work.site.tenant.queues["default"].backlog) < 20:
            work.put("default", 1.0, fairness_key=f"new-{next(work.numbers)}")

    victims = [work.put("default", 1.0, fairness_key="victim") for _ in range(10)]
    work.run(300, arrive)
    for number, name in enumerate(victims):
        assert work.begun[name] - EPOCH <= AGE_TURN * (number + 1)


@pytest.mark.parametrize("limits", [{}, {"max_running": 6}], ids=["no limit", "maxRunning"])
def test_a_stream_of_small_tasks_delays_a_large_one_by_no_more_than_what_runs(limits: Any) -> None:
    work = Work(Queue("default", **limits), Queue("other"), a=4, b=4)
    arrive = saturated(work, {"default": 10.0, "other": 7.0})
    work.run(100, arrive)
    large = work.put("default", 10.0, slots=4)
    at, before = work.site.now, len(work.site.tenant.queues["default"].backlog)
    work.run(600, arrive)
    # Those before it need two rounds or so, one worker has to become empty, and the queue has half of the slots.
    assert work.begun[large] - at <= (before / 3 + 2) * 10


def test_equal_ages_go_by_priority() -> None:
    work = Work(w=1)
    for priority in (0, 7, -3, 7, 2):
        work.put("default", 1.0, priority=priority, name=f"p{priority}-{next(work.numbers)}")
    work.run(10)
    order = sorted(work.begun, key=lambda name: work.begun[name])
    assert [int(name[1:].rsplit("-", 1)[0]) for name in order] == [7, 7, 2, 0, -3]


def test_a_key_with_a_thousand_tasks_delays_the_others_by_a_round_each() -> None:
    work = Work(w=1)
    for _ in range(1_000):
        work.put("default", 1.0, fairness_key="many")
    work.run(20)
    few = {name: [work.put("default", 1.0, fairness_key=name) for _ in range(10)] for name in "xyz"}
    at = work.site.now
    work.run(200)
    for names in few.values():
        for number, name in enumerate(names):
            # Four keys take turns, and each so many starts the oldest of all has one.
            assert work.begun[name] - at <= (number + 1) * 4 * AGE_TURN / (AGE_TURN - 1) + 2


@pytest.mark.parametrize("limit", [1, 3])
def test_a_key_is_used_as_far_as_its_limit_and_never_beyond(limit: int) -> None:
    work = Work(Queue("a"), Queue("b"), w=10)
    names = [work.put(queue, 5.0, concurrency=key(limit=limit)) for queue in "ab" for _ in range(15)]
    work.run(5.0 * 30 / limit)
    starts = Counter(work.begun[name] for name in names)
    assert set(starts.values()) == {limit}
    assert len(starts) == 30 / limit
