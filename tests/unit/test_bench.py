"""What `make bench` measures of the core: that it runs, and by counts what it can only show by times."""

from __future__ import annotations

import math
import sys
from statistics import median
from types import FrameType
from typing import Any

import pytest
from bench import decisions, memory
from bench.decisions import Load, System

SMALL = Load(backlog=50, workers=5, slots=2)


def test_the_quick_bench_has_a_figure_for_each_bound() -> None:
    plan = decisions.plan(quick=True)
    costs = decisions.measure(plan)
    assert set(costs.rounds) == set(plan.loads)
    for one, other, _ in decisions.BOUNDS:
        assert 0 < costs.ratio(one, other) < math.inf, (one, other)
    for name in plan.loads:
        assert 0 < costs.microseconds(name) < math.inf, name


def test_memory_is_measured_in_a_process_of_its_own() -> None:
    measured = memory.measure(2_000)
    assert measured.tasks == 2_000
    assert 500 < measured.per_task < 20_000
    assert measured.empty > 10_000_000, "there is an interpreter, too"


def test_the_plan_is_of_the_sizes_that_it_names() -> None:
    loads = decisions.plan().loads
    assert [loads[f"{size} waiting"].backlog for size in ("1 000", "100 000", "1 000 000")] == [1_000, 10**5, 10**6]
    assert [loads[f"{size} workers"].workers for size in ("10", "1 000", "10 000")] == [10, 1_000, 10_000]
    assert (loads["100 000 that fit nowhere"].unfit, loads["10 000 fairness keys"].fairness_keys) == (10**5, 10**4)
    assert (loads["100 queues"].queues, loads["1 000 shapes"].shapes) == (100, 1_000)


@pytest.mark.parametrize(
    "load",
    [SMALL, Load(backlog=30, workers=3, slots=2, queues=3, fairness_keys=4, shapes=5, unfit=7)],
    ids=["plain", "of everything"],
)
def test_a_system_stays_as_full_as_it_was(load: Load) -> None:
    system = System(load)
    before = system.waiting
    assert before == load.backlog + load.unfit
    system.turns(50)
    assert system.waiting == before
    assert sum(system.tenant.capacity.used(each.pod_uid) for each in system.tenant.capacity.workers()) == (
        load.workers * load.slots
    )


def instructions(system: System) -> float:
    """How many instructions of Python one turn takes, whatever the machine: the median over some turns."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    system.turns(10)
    counts, before = [], sys.gettrace()
    for _ in range(15):
        count = 0
        sys.settrace(trace)
        try:
            system.turns(1)
        finally:
            sys.settrace(before)
        counts.append(count)
    return median(counts)


@pytest.mark.parametrize(
    ("load", "times"),
    [
        (Load(backlog=5_000, workers=5, slots=2), 1.1),
        (Load(backlog=50, workers=500, slots=2), 1.1),
        (Load(backlog=50, workers=5, slots=2, unfit=5_000), 1.1),
        (Load(backlog=5_000, workers=5, slots=2, fairness_keys=2_500), 1.1),
        (Load(backlog=1_000, workers=5, slots=2, queues=100), 10),
        (Load(backlog=1_000, workers=5, slots=2, shapes=100), 4),
    ],
    ids=["100 times the backlog", "100 times the workers", "many that fit nowhere", "keys", "queues", "shapes"],
)
def test_the_work_of_a_decision_hardly_grows(load: Load, times: float) -> None:
    assert instructions(System(load)) <= times * instructions(System(SMALL))


class Labels(dict[str, str]):
    """Labels of workers that know how often they were compared."""

    compared = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.compared += 1
        return super().get(key, default)


def test_each_shape_is_judged_once_while_the_workers_are_the_same() -> None:
    labels = Labels(pool="bench")
    system = System(Load(backlog=200, workers=20, slots=2, shapes=10, unfit=100), labels=labels)
    judged = labels.compared
    assert judged == 9 + decisions.UNFIT_SHAPES, "one shape asks for nothing"
    system.turns(100)
    assert labels.compared == judged
