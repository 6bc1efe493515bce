"""A namespace under anything that may happen to it, compared with a model that scans everything.

The API server has the truth, the watch tells it late, and writes fail or stay in doubt. The model knows what the watch
has told and what has been decided; from that it says what may start, what has to, and why the rest waits.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.builders import worker
from tests.unit.tenant_rig import Site, after, ended, given_back, held, pending

from taskmaster.core.assignment import Assignment, Ending
from taskmaster.core.capacity import Worker
from taskmaster.core.explanation import Surveys, explain
from taskmaster.core.explanation import pending as waiting
from taskmaster.core.phase import Phase
from taskmaster.core.queue import Placement, Queue, RateLimit
from taskmaster.core.reason import PendingReason
from taskmaster.core.request import may_run
from taskmaster.core.requirements import Operator, Requirement
from taskmaster.core.retry import Spent
from taskmaster.core.station import Entry, Place
from taskmaster.core.task import Concurrency, Instant, Task

WORKERS = st.sampled_from("abc")
QUEUES = st.sampled_from(["default", "q", "r"])
GPU = (Requirement("gpu", Operator.EXISTS),)
PICK = st.integers(0, 100)
NUMBERS = st.integers(0, 9)
SPECS = st.fixed_dictionaries(
    {
        "number": NUMBERS,
        "queue": QUEUES,
        "priority": st.integers(-1, 2),
        "slots": st.sampled_from([None, None, 1, 2, 4]),
        "requires": st.sampled_from([(), (), GPU]),
        "concurrency": st.one_of(
            st.none(), st.none(), st.builds(Concurrency, st.sampled_from("kl"), st.integers(1, 3))
        ),
        "fairness_key": st.sampled_from(["", "x", "y"]),
        "parents": st.sets(st.integers(1, 4), max_size=1),
        "delay": st.sampled_from([None, None, None, 5, 20]),
        "alone": st.sampled_from([False, False, False, True]),
    }
)


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.site = Site(Queue("q"), Queue("r"), a=4, b=2)
        self.tenant = self.site.tenant
        self.server: dict[str, Task] = {}
        self.stream: list[tuple[Task, bool]] = []
        """Events that the watch has not told yet: a version, and whether it is the last."""
        self.flights: list[Assignment] = []
        self.made = 0
        self.latest = self.site.now
        """The latest time of day that it has been."""
        self.elapsed = 0.0
        self.starts: dict[str, list[float]] = {}
        # What the model knows, by uid.
        self.known: dict[str, Task] = {}
        self.late: dict[str, Task] = {}
        self.assumed: dict[str, Assignment] = {}
        self.doubts: dict[str, float] = {}
        self.later: dict[str, float] = {}

    # What people do

    @rule(specs=st.lists(SPECS, min_size=1, max_size=5))
    def create(self, specs: list[dict[str, Any]]) -> None:
        for spec in specs:
            number, parents, delay = spec["number"], spec["parents"], spec["delay"]
            name = f"t{number}"
            if name in self.server:
                continue
            self.made += 1
            made = pending(
                name,
                created=float(int(self.site.now)),
                depends_on=after(*(f"t{number - parent}" for parent in parents if parent <= number)),
                start_after=None if delay is None else Instant(self.site.now + delay),
                spent=Spent(runner_deaths=2 if spec["alone"] else 0),
                **{
                    field: spec[field]
                    for field in ("queue", "priority", "slots", "requires", "concurrency", "fairness_key")
                },
            )
            self.write(replace(made, uid=f"uid-{self.made}"))

    @rule(pick=PICK)
    def delete(self, pick: int) -> None:
        if self.server:
            gone = self.server.pop(sorted(self.server)[pick % len(self.server)])
            self.stream.append((gone, True))

    @rule(
        pick=PICK,
        edit=st.sampled_from(
            [
                {"priority": 1},
                {"suspend": True},
                {"suspend": False},
                {"cancel": True},
                {"queue": "q"},
                {"queue": "r"},
                {"slots": 2},
                {"requires": GPU},
                {"requires": ()},
                {"fairness_key": "z"},
                {"concurrency": None},
            ]
        ),
    )
    def edit(self, pick: int, edit: dict[str, Any]) -> None:
        waiting = sorted(name for name, task in self.server.items() if task.phase is Phase.PENDING)
        if waiting:
            old = self.server[waiting[pick % len(waiting)]]
            if old.attempt == 0 or "priority" in edit or "suspend" in edit or "cancel" in edit:
                self.write(replace(old, generation=old.generation + 1, **edit))

    @rule(
        name=QUEUES,
        max_running=st.sampled_from([None, None, 0, 1, 2, 5]),
        max_pending=st.sampled_from([None, None, 0, 1, 2]),
        rate=st.sampled_from([None, None, RateLimit(0.5, 1), RateLimit(2.0, 3)]),
        paused=st.sampled_from([False, False, False, True]),
        placement=st.sampled_from(Placement),
        weight=st.integers(1, 3),
        aging=st.sampled_from([1, 60]),
    )
    def put_queue(self, name: str, rate: RateLimit | None, aging: int, **fields: Any) -> None:
        state = self.tenant.queues.get(name)
        if state is None or state.queue.rate_limit != rate:
            self.starts[name] = []
        queue = Queue(name, rate_limit=rate, aging_seconds=aging, **fields)
        self.tenant.put_queue(queue, now=self.site.now)

    @rule(name=QUEUES)
    def remove_queue(self, name: str) -> None:
        self.tenant.remove_queue(name, now=self.site.now)
        self.starts.pop(name, None)

    # What workers do

    @rule(
        name=WORKERS,
        slots=st.integers(1, 4),
        gpu=st.booleans(),
        only=st.sampled_from(["", "", "q"]),
        schedulable=st.sampled_from([True, True, True, False]),
    )
    def put_worker(self, name: str, slots: int, gpu: bool, only: str, schedulable: bool) -> None:
        queues = frozenset([only] if only else [])
        made = replace(
            worker(name, slots=slots, schedulable=schedulable), labels={"gpu": ""} if gpu else {}, queues=queues
        )
        self.tenant.capacity.put_worker(made)

    @rule(name=WORKERS)
    def remove_worker(self, name: str) -> None:
        self.tenant.capacity.remove_worker(f"uid-of-{name}")

    @rule(pick=PICK, how=st.sampled_from(["end", "end", "fail", "back off", "give back", "die"]))
    def end_an_attempt(self, pick: int, how: str) -> None:
        running = sorted(name for name, task in self.server.items() if task.held)
        if not running:
            return
        task = self.server[running[pick % len(running)]]
        match how:
            case "end":
                self.write(ended(task))
            case "fail":
                self.write(ended(task, Phase.FAILED))
            case "back off":
                self.write(given_back(task, until=self.site.now + 10))
            case "give back":
                self.write(given_back(task))
            case _:
                self.write(given_back(task, spent=Spent(runner_deaths=2)))

    # What the API server and the network do

    def write(self, task: Task) -> None:
        self.server[task.name] = task
        self.stream.append((task, False))

    @rule(number=st.sampled_from([1, 2, 5, 100]))
    def watch(self, number: int) -> None:
        told, self.stream = self.stream[:number], self.stream[number:]
        for task, last in told:
            if last:
                self.site.remove(task)
                for memory in (self.known, self.late, self.assumed, self.doubts, self.later):
                    memory.pop(task.uid, None)
                continue
            self.site.put(task)
            decision = self.assumed.get(task.uid)
            if decision is not None and task.phase is Phase.PENDING and task.attempt <= decision.task.attempt:
                self.late[task.uid] = task
            else:
                self.learn(task)

    def learn(self, task: Task) -> None:
        self.known[task.uid] = task
        for memory in (self.late, self.assumed, self.doubts, self.later):
            memory.pop(task.uid, None)

    def take_back(self, uid: str, until: float | None) -> None:
        del self.assumed[uid]
        late = self.late.pop(uid, None)
        if late is not None:
            self.learn(late)
        elif until is not None:
            self.later[uid] = until

    @precondition(lambda self: self.flights)
    @rule(pick=PICK, fate=st.sampled_from(["applied"] * 4 + ["refused", "lost", "lost but applied"]))
    def answer(self, pick: int, fate: str) -> None:
        decision = self.flights.pop(pick % len(self.flights))
        task, current = decision.task, self.server.get(decision.task.name)
        same = current is not None and (current.uid, current.generation) == (task.uid, task.generation)
        same = same and current is not None and (current.phase, current.attempt) == (Phase.PENDING, task.attempt)
        if fate in ("applied", "lost but applied") and same and current is not None:
            self.write(held(current, decision.worker.name, slots=task.slots or 1))
        if fate == "applied" and same:
            return
        until, in_doubt = self.site.now + 1, fate.startswith("lost")
        self.site.fail(decision, until=until, in_doubt=in_doubt)
        if self.assumed.get(task.uid) is decision:
            if in_doubt:
                self.doubts[task.uid] = until
            else:
                self.take_back(task.uid, until)

    @rule()
    def follow_verdicts(self) -> None:
        verdicts, self.tenant.verdicts = self.tenant.verdicts, []
        for verdict in verdicts:
            current = self.server.get(verdict.task.name)
            if isinstance(verdict, Ending) and current == verdict.task:
                self.write(ended(current, verdict.phase, reason=verdict.reason.value))

    @rule(seconds=st.sampled_from([0.3, 1, 2, 5, 30]))
    def time_passes(self, seconds: float) -> None:
        self.site.passes(seconds)
        self.elapsed += seconds
        self.latest = max(self.latest, self.site.now)

    @rule()
    def clock_is_set_back(self) -> None:
        self.site.passes(-7)

    # What is decided

    @rule(at_most=st.sampled_from([0, 1, 2, 1000, 1000, 1000]))
    def decide(self, at_most: int) -> None:
        now = self.site.now
        for uid, until in sorted(self.doubts.items()):
            if until <= now:
                del self.doubts[uid]
                self.take_back(uid, None)
        decisions = self.site.decide(at_most)
        for decision in decisions:
            self.may_start(decision)
            self.assumed[decision.task.uid] = decision
            self.flights.append(decision)
            queue = decision.task.queue
            self.starts.setdefault(queue, []).append(self.elapsed)
        if len(decisions) < at_most:
            self.nothing_is_left_that_could_start()
        if at_most:
            self.words_are_right()

    @rule(ends=st.integers(0, 3))
    def all_goes_well(self, ends: int) -> None:
        """Everybody is told everything at once, and some Tasks end."""
        for number in range(ends):
            self.end_an_attempt(number, "end")
        self.watch(1_000)
        self.decide(1_000)
        while self.flights:
            self.answer(0, "applied")
        self.watch(1_000)
        self.decide(1_000)

    def holders(self) -> dict[str, tuple[Task, str]]:
        """Who has a worker, as far as the coordinator may know: Tasks and pods by uid."""
        found = {task.uid: (task, task.holder.pod_uid) for task in self.known.values() if task.held and task.holder}
        return found | {uid: (each.task, each.worker.pod_uid) for uid, each in self.assumed.items()}

    def on(self, pod: str) -> list[Task]:
        return [task for task, place in self.holders().values() if place == pod]

    def takes(self, made: Worker, task: Task) -> bool:
        """Whether a worker could ever take a Task."""
        labels = not task.requires or "gpu" in made.labels
        serves = not made.queues or task.queue in made.queues
        return made.schedulable and labels and serves and made.slots >= (task.slots or 1)

    def has_room(self, made: Worker, task: Task) -> bool:
        there = self.on(made.pod_uid)
        if task.runs_alone or any(each.runs_alone for each in there):
            return not there
        return sum(each.slots or 1 for each in there) + (task.slots or 1) <= made.slots

    def key_has_room(self, task: Task) -> bool:
        if task.concurrency is None:
            return True
        name = task.concurrency.key
        live = [each.concurrency for each in self.known.values() if not each.finished and each.concurrency]
        limit = min(each.limit for each in live if each.key == name)
        using = [each for each, _ in self.holders().values() if each.concurrency and each.concurrency.key == name]
        return len(using) < limit

    def queue_has_room(self, queue: Queue) -> bool:
        running = sum(task.queue == queue.name for task, _ in self.holders().values())
        return queue.max_running is None or running < queue.max_running

    def missing_parents(self, task: Task) -> list[Task | None]:
        if task.attempt:
            return []
        by_name = {each.name: each for each in self.known.values()}
        parents = [by_name.get(each.name) for each in task.depends_on]
        return [each for each in parents if each is None or each.phase is not Phase.SUCCEEDED]

    def may_start(self, decision: Assignment) -> None:
        task, made = decision.task, decision.worker
        assert task is self.known[task.uid]
        assert task.uid not in self.holders()
        assert may_run(task)
        queue = self.tenant.queues[task.queue].queue
        assert not queue.closed
        assert self.queue_has_room(queue)
        assert not self.missing_parents(task)
        assert max(task.start_after or 0.0, task.not_before or 0.0, self.later.get(task.uid, 0.0)) <= self.latest
        assert self.key_has_room(task)
        assert made in self.tenant.capacity.workers()
        assert self.takes(made, task)
        assert self.has_room(made, task)
        if queue.rate_limit is not None:
            limit, starts = queue.rate_limit, [*self.starts.get(task.queue, []), self.elapsed]
            for number, begin in enumerate(starts):
                assert len(starts) - number <= limit.burst + limit.rate * (self.elapsed - begin) + 1e-3

    def nothing_is_left_that_could_start(self) -> None:
        kept = {pod: uid for uid, pod in self.tenant.capacity._reservations.items()}
        workers = self.tenant.capacity.workers()
        assert len(kept) <= max(1, len(workers) // 2) + sum(task.runs_alone for task, _ in self.holders().values())
        for uid, entry in self.tenant.entries.items():
            if entry.station not in (Place.READY, PendingReason.CONCURRENCY_LIMIT):
                continue
            task, state = entry.task, self.tenant.queues[entry.task.queue]
            tokens = state.bucket is None or not state.bucket.wait(now=self.site.now)
            if state.queue.closed or not tokens or not self.queue_has_room(state.queue) or not self.key_has_room(task):
                continue
            # Only so many workers are kept, and who runs alone needs one that is.
            room = [
                made.name
                for made in workers
                if self.takes(made, task) and self.has_room(made, task) and kept.get(made.pod_uid, uid) == uid
            ]
            assert not room or (task.runs_alone and kept), (task.name, room)

    def words_are_right(self) -> None:
        surveys, now = Surveys(), self.site.now
        for uid, task in self.known.items():
            if not task.finished:
                entry = self.tenant.entries[uid]
                word = explain(self.tenant, entry, surveys, now=now)
                assert word in self.expected(task, entry.station), (task, entry.station)
        numbers = Counter[tuple[str, str]]()
        for (queue, _), number in waiting(self.tenant, now=now).items():
            numbers[queue, ""] += number
        idle = (Place.HELD, Place.ENDING, Place.ANSWERING)
        assert numbers == Counter(
            (each.task.queue, "") for each in self.tenant.entries.values() if each.station not in idle
        )

    def expected(self, task: Task, station: Any) -> set[PendingReason | None]:
        """The word for why a Task waits; more than one where two things of one rank hold."""
        now, uid = self.site.now, task.uid
        if uid in self.holders() or not may_run(task):
            return {None}
        if task.queue not in self.tenant.queues:
            return {PendingReason.QUEUE_NOT_FOUND}
        state, parents = self.tenant.queues[task.queue], self.missing_parents(task)
        if any(each is not None and each.finished for each in parents):
            return {PendingReason.QUEUE_PAUSED, None} if state.queue.closed else {None}
        if state.queue.closed:
            return {PendingReason.QUEUE_PAUSED}
        times = (task.start_after or 0.0, max(task.not_before or 0.0, self.later.get(uid, 0.0)))
        if any(now < time <= self.latest for time in times):
            return {*PendingReason}  # the clock was set back: that it was time once is enough
        if times[0] > now:
            return {PendingReason.WAITING_FOR_START_TIME}
        if parents:
            return {PendingReason.WAITING_FOR_DEPENDENCY}
        if times[1] > now:
            return {PendingReason.BACKING_OFF}
        if station is PendingReason.QUEUE_LIMIT:
            limit = state.queue.max_pending
            assert limit is not None
            assert self.tenant.inside(task.queue) >= limit
            return {PendingReason.QUEUE_LIMIT}
        parked = set() if self.key_has_room(task) else {PendingReason.CONCURRENCY_LIMIT}
        if station is PendingReason.CONCURRENCY_LIMIT:
            # It waits behind one that may use the key, and needs just such a worker and waits for that.
            assert parked or any(self.goes_before(entry, task) for entry in self.tenant.entries.values())
            return {PendingReason.CONCURRENCY_LIMIT}
        if state.bucket is not None and state.bucket.wait(now=now):
            return {*parked, PendingReason.RATE_LIMITED}
        if not self.queue_has_room(state.queue):
            return {*parked, PendingReason.QUEUE_LIMIT}
        fits = any(self.takes(made, task) for made in self.tenant.capacity.workers())
        return {*parked, PendingReason.NO_FREE_SLOT if fits else PendingReason.NO_MATCHING_WORKER}

    def goes_before(self, entry: Entry, task: Task) -> bool:
        same_key = entry.task.concurrency is not None and entry.task.concurrency.key == task.concurrency.key  # type: ignore[union-attr]
        return entry.station is Place.READY and same_key and entry.shape == self.tenant.entries[task.uid].shape

    # What always holds

    @invariant()
    def numbers_are_what_a_recount_gives(self) -> None:
        entries = self.tenant.entries.values()
        assert self.tenant.counts == Counter((each.task.queue, each.station) for each in entries)
        assert set(self.tenant.entries) == {uid for uid, task in self.known.items() if not task.finished}
        for name, state in self.tenant.queues.items():
            ready = {each.task.uid for each in entries if (each.task.queue, each.station) == (name, Place.READY)}
            assert set(state.backlog) == ready

    @invariant()
    def slots_are_counted_as_the_model_counts_them(self) -> None:
        holders = self.holders()
        for name in "abc":
            pod = f"uid-of-{name}"
            assert self.tenant.capacity.held_by(pod) == {uid for uid, (_, place) in holders.items() if place == pod}
        slots = Counter[str]()
        for task, _ in holders.values():
            slots[task.queue] += task.slots or 1
        held_slots = {name: usage.held for name, usage in self.tenant.shares._usages.items() if usage.held}
        assert held_slots == dict(slots)

    def teardown(self) -> None:
        """Let everything end: nothing may be left."""
        self.watch(1_000_000)
        while self.flights:
            self.answer(0, "refused")
        for task in list(self.server.values()):
            self.write(ended(task))
        self.watch(1_000_000)
        self.site.passes(100)
        self.site.decide()
        self.site.assert_nothing_is_left()


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=50)


@pytest.mark.parametrize("seed", range(40))
def test_a_busy_namespace_holds_to_the_model(seed: int) -> None:
    """The same, with more Tasks and mostly good luck: the machine above tries everything, but seldom fills workers."""
    random, machine = Random(seed), Machine()
    policies = [None, None, Concurrency("k", 1), Concurrency("k", 3), Concurrency("l", 2)]

    def spec() -> dict[str, Any]:
        return {
            "number": random.randrange(25),
            "queue": random.choice(["default", "q", "r"]),
            "priority": random.choice([-1, 0, 0, 1]),
            "slots": random.choice([None, None, None, 1, 2, 3, 4]),
            "requires": random.choice([(), (), (), GPU]),
            "concurrency": random.choice(policies),
            "fairness_key": random.choice(["", "x", "y"]),
            "parents": {random.randrange(1, 9)} if random.random() < 0.2 else set(),
            "delay": random.choice([None] * 6 + [5, 20]),
            "alone": random.random() < 0.08,
        }

    def queue() -> None:
        machine.put_queue(
            name=random.choice(["default", "q", "r"]),
            max_running=random.choice([None, None, 1, 3]),
            max_pending=random.choice([None, None, None, 2, 4]),
            rate=random.choice([None, None, RateLimit(0.5, 1), RateLimit(2.0, 3)]),
            paused=random.random() < 0.15,
            placement=random.choice(list(Placement)),
            weight=random.randint(1, 3),
            aging=random.choice([1, 60]),
        )

    def a_worker() -> None:
        machine.put_worker(
            name=random.choice("abc"),
            slots=random.randint(1, 4),
            gpu=random.random() < 0.5,
            only=random.choice(["", "", "", "q"]),
            schedulable=random.random() < 0.85,
        )

    def pick() -> int:
        return random.randrange(100)

    fates = ["applied"] * 6 + ["refused", "lost", "lost but applied"]
    edits = [
        {"priority": 5},
        {"slots": 2},
        {"queue": "q"},
        {"suspend": True},
        {"suspend": False},
        {"concurrency": None},
    ]
    steps: list[tuple[int, Any]] = [
        (12, lambda: machine.create([spec() for _ in range(4)])),
        (14, lambda: machine.watch(random.choice([1, 3, 100]))),
        (14, lambda: machine.decide(random.choice([1, 3, 1000, 1000]))),
        (10, lambda: machine.flights and machine.answer(pick(), random.choice(fates))),
        (
            12,
            lambda: machine.end_an_attempt(
                pick(), random.choice(["end", "end", "fail", "back off", "give back", "die"])
            ),
        ),
        (6, lambda: machine.all_goes_well(random.randrange(3))),
        (6, lambda: machine.time_passes(random.choice([0.3, 1, 2, 5, 30]))),
        (4, lambda: machine.edit(pick(), random.choice(edits))),
        (3, queue),
        (3, a_worker),
        (2, machine.follow_verdicts),
        (1, lambda: machine.delete(pick())),
        (1, lambda: machine.remove_queue(random.choice(["q", "r"]))),
        (1, lambda: machine.remove_worker(random.choice("abc"))),
        (1, machine.clock_is_set_back),
    ]
    weights = [weight for weight, _ in steps]
    for _, step in random.choices(steps, weights, k=120):
        step()
        machine.numbers_are_what_a_recount_gives()
        machine.slots_are_counted_as_the_model_counts_them()
    assert machine.made > 5
    machine.teardown()
