"""What one decision costs the coordinator: processor time of the pure core, in one process, without a cluster.

A `System` is full: each slot has its Task, and a backlog waits. In one *turn* a running Task ends, is put away and
gives its slot back, a new Task arrives, the cycle decides, and the watch shows the decision. That is all that the core
does for one Task in its life, so the time of a turn is the time of a decision. Making the Tasks themselves is the
decoder's work and is not counted.

Systems of all sizes stand side by side and take turns in short rounds: a machine that changes its speed changes it for
all of them, and what is compared is the median over the rounds of the ratio within one round. Garbage is collected as
in production, with the interpreter's own thresholds; the Tasks that stand from the beginning count as old, as they do
there.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

from taskmaster.core.assignment import Assignment
from taskmaster.core.capacity import Worker
from taskmaster.core.phase import Phase
from taskmaster.core.policy import BUILT_IN, SAYS_NOTHING
from taskmaster.core.queue import Queue
from taskmaster.core.requirements import Operator, Requirement, Requirements
from taskmaster.core.retry import Spent
from taskmaster.core.scheduling import Scheduling
from taskmaster.core.task import Holder, Instant, Task
from taskmaster.core.tenant import Tenant

EPOCH: Final = 1_800_000_000
AT_MOST: Final = 256
"""Decisions of a cycle, as in the coordinator."""

UNFIT_SHAPES: Final = 100
"""Over how many shapes the Tasks are spread that no worker can take."""

PRIORITIES: Final = 5

_PLAIN: Final = Task(
    uid="",
    namespace="bench",
    name="",
    resource_version="1",
    generation=1,
    observed_generation=None,
    queue="default",
    priority=0,
    cancel=False,
    suspend=False,
    retry_request="",
    observed_retry_request="",
    created=Instant(EPOCH),
    phase=Phase.PENDING,
    reason="",
    run_number=1,
    attempt=0,
    holder=None,
    queued=Instant(EPOCH),
    suspended=None,
    started=None,
    completed=None,
    not_before=None,
    deadline=None,
    stop_requested=False,
    dead_lettered=False,
    ttl_seconds=None,
    overrides=SAYS_NOTHING,
    policy=BUILT_IN,
    spent=Spent(),
    attempts=(),
)


@dataclass(frozen=True)
class Load:
    """What a system is made of."""

    backlog: int = 10_000
    """Tasks that wait for a slot, and could have any."""
    workers: int = 100
    slots: int = 4
    queues: int = 1
    fairness_keys: int = 1
    shapes: int = 1
    unfit: int = 0
    """Tasks that come before all others and that no worker can take."""


class System:
    """One namespace, full, and the turns that it takes."""

    def __init__(self, load: Load, *, labels: Mapping[str, str] | None = None) -> None:
        self.load = load
        self.tenant = Tenant()
        self.scheduling = Scheduling(self.tenant)
        self._now = Instant(EPOCH)
        self._made = 0
        self._running: deque[Task] = deque()
        self._queues = [f"queue-{number}" for number in range(load.queues)]
        self._keys = [f"customer-{number}" if load.fairness_keys > 1 else "" for number in range(load.fairness_keys)]
        self._shapes: list[Requirements] = [()]
        self._shapes += [(Requirement(f"not-{n}", Operator.DOES_NOT_EXIST),) for n in range(1, load.shapes)]
        for name in self._queues:
            self.tenant.put_queue(Queue(name), now=self._now)
        for number in range(load.workers):
            self.tenant.capacity.put_worker(_worker(number, load.slots, labels or {}))
        for number in range(load.unfit):
            lacking = Requirement(f"has-{number % UNFIT_SHAPES}", Operator.EXISTS)
            self.tenant.put_task(replace(self._new(), requires=(lacking,), priority=1_000), now=self._now)
        for _ in range(load.backlog + load.workers * load.slots):
            self.tenant.put_task(self._new(), now=self._now)
        while decisions := self._decide():
            self._show(decisions)

    @property
    def waiting(self) -> int:
        """How many Tasks wait for a slot."""
        return sum(len(state.backlog) for state in self.tenant.queues.values())

    def turns(self, count: int) -> float:
        """Take so many turns; return the seconds of processor time that they took."""
        spent, clock = 0.0, time.process_time
        for _ in range(count):
            ended = replace(self._running.popleft(), phase=Phase.SUCCEEDED, completed=self._now)
            new = self._new()
            self._now = Instant(self._now + 0.01)
            begun = clock()
            self.tenant.put_task(ended, now=self._now)
            self.tenant.remove_task(ended, now=self._now)
            self.tenant.put_task(new, now=self._now, fresh=True)
            decisions = self._decide()
            spent += clock() - begun
            assert len(decisions) == 1, "one slot is free, and many Tasks wait"
            held = self._held(decisions[0])
            begun = clock()
            self.tenant.put_task(held, now=self._now)
            spent += clock() - begun
        return spent

    def _decide(self) -> list[Assignment]:
        return self.scheduling.decide(now=self._now, at_most=AT_MOST)

    def _show(self, decisions: list[Assignment]) -> None:
        for decision in decisions:
            self.tenant.put_task(self._held(decision), now=self._now)

    def _held(self, decision: Assignment) -> Task:
        task, worker = decision.task, decision.worker
        holder = Holder(worker.name, worker.pod_uid, worker.incarnation)
        held = replace(task, phase=Phase.ASSIGNED, attempt=task.attempt + 1, holder=holder)
        self._running.append(held)
        return held

    def _new(self) -> Task:
        number = self._made
        self._made += 1
        created = Instant(float(EPOCH + number // 100))
        return replace(
            _PLAIN,
            uid=f"00000000-0000-4000-8000-{number:012d}",
            name=f"task-{number}",
            created=created,
            queued=created,
            priority=number % PRIORITIES,
            # Each by another prime stride, so that queues, keys and shapes meet in all combinations.
            queue=self._queues[number % len(self._queues)],
            fairness_key=self._keys[number * 7 % len(self._keys)],
            requires=self._shapes[number * 13 % len(self._shapes)],
        )


def _worker(number: int, slots: int, labels: Mapping[str, str]) -> Worker:
    name = f"worker-{number}"
    return Worker(
        namespace="bench",
        name=name,
        pod_uid=f"uid-of-{name}",
        pool="bench",
        incarnation="i1",
        node=f"node-{number % 100}",
        slots=slots,
        schedulable=True,
        labels=labels,
    )


@dataclass(frozen=True)
class Plan:
    """Which systems are compared, and for how long."""

    loads: Mapping[str, Load]
    rounds: int
    turns: int
    """Turns of one system in one round."""


@dataclass(frozen=True)
class Costs:
    """Seconds of processor time per decision, by system, one figure for each round."""

    rounds: Mapping[str, list[float]]

    def microseconds(self, name: str) -> float:
        """Return the median cost of one decision."""
        return median(self.rounds[name]) * 1e6

    def ratio(self, name: str, to: str) -> float:
        """Return how many times as much a decision costs in one system as in another."""
        return median(one / other for one, other in zip(self.rounds[name], self.rounds[to], strict=True))


BASE: Final = "10 000 waiting"
"""For 100 workers, all of one shape, queue and fairness key. Each of the others differs in what it is called after."""

BOUNDS: Final = (
    ("1 000 000 waiting", "1 000 waiting", 10.0),
    ("10 000 workers", "10 workers", 3.0),
    ("100 000 that fit nowhere", BASE, 2.0),
    ("10 000 fairness keys", BASE, 2.0),
    ("100 queues", BASE, 10.0),
    ("1 000 shapes", BASE, 20.0),
)
"""Which system may cost how many times as much as which other. What is kept for each Task, worker or key is a heap or a
table; queues and shapes are looked at one by one, so their price is a bound on how long that look may take."""


def plan(*, quick: bool = False) -> Plan:
    """Return what is measured; `quick` finds out whether it works, not how fast it is."""
    scale = 100 if quick else 1
    base = Load(backlog=10_000 // scale, workers=100 // min(scale, 10))
    sizes = {"1 000": 1_000, "10 000": 10_000, "100 000": 100_000, "1 000 000": 1_000_000}
    loads = {f"{each} waiting": replace(base, backlog=sizes[each] // scale) for each in sizes}
    loads["10 workers"] = replace(base, workers=max(1, 10 // scale))
    loads |= {f"{each} workers": replace(base, workers=sizes[each] // scale) for each in ("1 000", "10 000")}
    loads["100 000 that fit nowhere"] = replace(base, unfit=100_000 // scale)
    loads["10 000 fairness keys"] = replace(base, fairness_keys=10_000 // scale)
    loads["100 queues"] = replace(base, queues=100 // min(scale, 10))
    loads["1 000 shapes"] = replace(base, shapes=1_000 // scale)
    return Plan(loads, rounds=3 if quick else 15, turns=20 if quick else 200)


def measure(plan: Plan) -> Costs:
    """Build all systems, then let them take turns."""
    gc.disable()  # nothing of what is built here is garbage, and looking for it again and again takes minutes
    try:
        systems = {name: System(load) for name, load in plan.loads.items()}
        gc.collect()
    finally:
        gc.enable()
    for system in systems.values():
        system.turns(plan.turns)  # what is remembered from now on (shapes, heaps) is there before time is taken
    rounds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(plan.rounds):
        for name, system in systems.items():
            rounds[name].append(system.turns(plan.turns) / plan.turns)
    return Costs(rounds)
