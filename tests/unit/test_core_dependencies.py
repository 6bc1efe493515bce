"""Dependencies between Tasks: verdicts, chains of skipped Tasks, cycles, and what a change costs."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.builders import task

from taskmaster.core.dependencies import (
    Cyclic,
    Dependencies,
    Met,
    Moot,
    Verdict,
    Waiting,
    describe,
    named_by,
)
from taskmaster.core.phase import TERMINAL, Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.task import Dependency, DependencyCondition, Task


def waits(name: str, *parents: str | tuple[str, str], uid: str = "", phase: str = "Pending", **status: Any) -> Task:
    """A Task that names others, each with or without a condition."""
    wanted = [(each, "Succeeded") if isinstance(each, str) else each for each in parents]
    depends_on = [{"name": parent, "condition": condition} for parent, condition in wanted]
    return task(name, uid=uid or f"uid-of-{name}", status={"phase": phase, **status}, dependsOn=depends_on)


def ended(name: str, phase: str = "Succeeded", *, reason: str = "", uid: str = "", **status: Any) -> Task:
    return waits(name, uid=uid, phase=phase, reason=reason, **status)


def skipped(name: str, *parents: str | tuple[str, str]) -> Task:
    return waits(name, *parents, phase="Skipped", reason=EndReason.DEPENDENCY_FAILED.value)


def known(*tasks: Task) -> Dependencies:
    dependencies = Dependencies()
    for each in tasks:
        dependencies.put(each)
    return dependencies


def judged(dependencies: Dependencies, name: str) -> Verdict:
    return dependencies.judge(f"uid-of-{name}")


def said(dependencies: Dependencies, name: str) -> str:
    return describe(judged(dependencies, name))


def uids(*names: str) -> set[str]:
    return {f"uid-of-{name}" for name in names}


@pytest.mark.parametrize(
    ("condition", "met_by"),
    [
        pytest.param("Succeeded", {"Succeeded"}, id="succeeded"),
        pytest.param("Failed", {"Failed"}, id="failed"),
        pytest.param("Finished", {"Succeeded", "Failed", "Cancelled", "Skipped"}, id="finished"),
    ],
)
def test_end_of_a_parent_meets_the_condition_or_makes_the_child_moot(condition: str, met_by: set[str]) -> None:
    dependencies = known(waits("child", ("parent", condition)))
    assert judged(dependencies, "child") == Waiting(("parent",), (), (), unmet=1, total=1)
    for phase in ("Pending", "Assigned", "Running"):
        dependencies.put(ended("parent", phase))
        assert judged(dependencies, "child") == Waiting((), ("parent",), (Phase(phase),), unmet=1, total=1)
    for end in sorted(TERMINAL):
        assert dependencies.put(ended("parent", end)) <= uids("child")
        assert isinstance(judged(dependencies, "child"), Met if end in met_by else Moot)


@pytest.mark.parametrize(
    ("condition", "phase", "message"),
    [
        ("Succeeded", "Failed", 'needs "a" to have succeeded, but it has Failed'),
        ("Succeeded", "Cancelled", 'needs "a" to have succeeded, but it was Cancelled'),
        ("Succeeded", "Skipped", 'needs "a" to have succeeded, but it was Skipped'),
        ("Failed", "Succeeded", 'needs "a" to have failed, but it has Succeeded'),
        ("Failed", "Cancelled", 'needs "a" to have failed, but it was Cancelled'),
    ],
)
def test_message_says_what_was_needed_and_what_came(condition: str, phase: str, message: str) -> None:
    assert judged(known(ended("a", phase), waits("b", ("a", condition))), "b") == Moot(message)


def test_all_parents_have_to_end_as_asked_for() -> None:
    dependencies = known(waits("child", "a", ("b", "Failed"), ("c", "Finished")))
    assert dependencies.put(ended("a")) == uids("child")
    assert dependencies.put(ended("b", "Failed")) == uids("child")
    assert judged(dependencies, "child") == Waiting(("c",), (), (), unmet=1, total=3)
    assert dependencies.put(ended("c", "Skipped")) == uids("child")
    assert isinstance(judged(dependencies, "child"), Met)


def test_one_wrong_end_is_enough_while_others_still_run() -> None:
    dependencies = known(waits("child", "a", "b"), ended("a", "Running"), ended("b", "Failed"))
    assert said(dependencies, "child") == 'needs "b" to have succeeded, but it has Failed'


@pytest.mark.parametrize(
    "child",
    [
        pytest.param(waits("child", "gone", phase="Assigned", attempt=1), id="assigned"),
        pytest.param(waits("child", "gone", phase="Running", attempt=1), id="running"),
        pytest.param(waits("child", "gone", phase="Pending", attempt=1), id="between-attempts"),
        pytest.param(waits("child", "gone", "child", phase="Pending", attempt=7), id="run-again"),
        pytest.param(skipped("child", "gone"), id="finished"),
        pytest.param(waits("child"), id="names-nobody"),
    ],
)
def test_dependencies_are_met_for_good_with_the_first_assignment(child: Task) -> None:
    dependencies = known(child)
    dependencies.put(ended("gone", "Failed"))
    assert isinstance(judged(dependencies, "child"), Met)


def test_unknown_task_waits_for_nobody() -> None:
    assert isinstance(judged(Dependencies(), "nobody"), Met)


def test_skipped_task_that_never_ran_waits_again_when_it_is_run_again() -> None:
    dependencies = known(ended("a", "Failed"), skipped("b", "a"))
    assert isinstance(judged(dependencies, "b"), Met)
    assert dependencies.put(waits("b", "a", runNumber=2)) == uids("b")
    assert isinstance(judged(dependencies, "b"), Moot)


def test_parent_that_runs_again_is_unfinished_again_from_the_request_on() -> None:
    dependencies = known(ended("a", "Failed"), waits("b", "a"))
    assert dependencies.put(replace(ended("a", "Failed"), retry_request="again")) == uids("b")
    assert said(dependencies, "b") == "waits for a (Pending)"
    again = replace(ended("a", "Pending"), retry_request="again", observed_retry_request="again", run_number=2)
    assert dependencies.put(again) == set()
    assert dependencies.put(replace(again, phase=Phase.SUCCEEDED)) == uids("b")
    assert isinstance(judged(dependencies, "b"), Met)


def test_deleted_parent_is_waited_for_whatever_it_was() -> None:
    for phase in ("Running", "Failed", "Succeeded"):
        dependencies = known(ended("a", phase), waits("b", "a"))
        assert dependencies.remove(ended("a", phase)) == uids("b")
        assert judged(dependencies, "b") == Waiting(("a",), (), (), unmet=1, total=1)


@pytest.mark.parametrize("addition_first", [False, True])
def test_parent_created_anew_counts_whichever_of_deletion_and_addition_is_seen_first(addition_first: bool) -> None:
    old, new = ended("a", "Failed", uid="old"), ended("a", "Running", uid="new")
    dependencies = known(old, waits("b", "a"))
    steps: list[Callable[[], set[str]]] = [lambda: dependencies.remove(old), lambda: dependencies.put(new)]
    for step in reversed(steps) if addition_first else steps:
        step()
    assert said(dependencies, "b") == "waits for a (Running)"
    assert dependencies.named("a") == new


def test_child_created_anew_is_judged_by_its_own_dependencies() -> None:
    dependencies = known(waits("b", "a", uid="old"), waits("b", "c", uid="new"), ended("a", "Failed"))
    assert dependencies.remove(waits("b", "a", uid="old")) == set()
    assert isinstance(dependencies.judge("old"), Met)
    assert dependencies.judge("new") == Waiting(("c",), (), (), unmet=1, total=1)
    assert not dependencies.needed("a")


def test_edit_changes_what_is_waited_for() -> None:
    dependencies = known(ended("a", "Failed"), waits("b", "a"))
    assert dependencies.put(waits("b", ("a", "Failed"))) == uids("b")
    assert isinstance(judged(dependencies, "b"), Met)
    assert dependencies.put(waits("b", "c", "d")) == uids("b")
    assert said(dependencies, "b") == "waits for 2 of 2 dependencies: c (not created yet), d (not created yet)"
    assert dependencies.put(waits("b")) == uids("b")
    assert isinstance(judged(dependencies, "b"), Met)
    assert [dependencies.needed(name) for name in "acd"] == [False] * 3


# Chains


def test_children_of_a_skipped_task_are_told_what_began_it() -> None:
    dependencies = known(ended("a", "Failed"), skipped("b", "a"), waits("c", "b"))
    assert said(dependencies, "c") == 'needs "b" to have succeeded, but it was Skipped because "a" has Failed'
    dependencies.put(skipped("c", "b"))
    dependencies.put(waits("d", ("c", "Failed")))
    assert said(dependencies, "d") == 'needs "c" to have failed, but it was Skipped because "a" has Failed'


def test_task_that_is_skipped_for_another_reason_is_itself_what_began_it() -> None:
    dependencies = known(ended("a", "Skipped", reason="Expired"), skipped("b", "a"), waits("c", "b"))
    assert said(dependencies, "c") == 'needs "b" to have succeeded, but it was Skipped because "a" was Skipped'


def test_what_began_a_chain_is_still_told_when_it_is_gone() -> None:
    dependencies = known(ended("a", "Failed"), skipped("b", "a"), waits("c", "b"))
    message = said(dependencies, "c")
    dependencies.remove(ended("a", "Failed"))
    assert said(dependencies, "c") == message


@pytest.mark.parametrize(
    ("rest", "because"),
    [
        pytest.param([], "", id="parent-only"),
        pytest.param([skipped("m", "l")], ' because "m" was Skipped', id="grandparent"),
        pytest.param([skipped("m", "n")], "", id="skipped-in-a-ring"),
        pytest.param([ended("m")], "", id="grandparent-succeeded-later"),
    ],
)
def test_chain_whose_beginning_is_gone_is_told_as_far_as_it_is_known(rest: list[Task], because: str) -> None:
    dependencies = known(skipped("n", "m"), waits("o", "n"), *rest)
    assert said(dependencies, "o") == f'needs "n" to have succeeded, but it was Skipped{because}'


def test_skipped_task_that_was_run_again_and_skipped_again_tells_the_new_beginning() -> None:
    dependencies = known(ended("a", "Failed"), skipped("b", "a", "z"), waits("c", "b"))
    assert said(dependencies, "c").endswith('because "a" has Failed')
    dependencies.put(ended("a"))
    dependencies.put(ended("z", "Cancelled"))
    dependencies.put(replace(skipped("b", "a", "z"), run_number=2))
    assert said(dependencies, "c").endswith('because "z" was Cancelled')


@pytest.mark.parametrize("seen_in_order", [True, False])
def test_deep_chain_is_skipped_link_by_link_and_each_knows_the_beginning(seen_in_order: bool) -> None:
    depth = 5_000
    dependencies = known(ended("t0", "Failed"))
    if seen_in_order:
        for number in range(1, depth):
            dependencies.put(waits(f"t{number}", f"t{number - 1}"))
            message = said(dependencies, f"t{number}")
            assert dependencies.put(skipped(f"t{number}", f"t{number - 1}")) == set()
    else:
        for number in reversed(range(1, depth)):
            dependencies.put(skipped(f"t{number}", f"t{number - 1}"))
        dependencies.put(waits("last", f"t{depth - 1}"))
        message = said(dependencies, "last")
    assert message.endswith('it was Skipped because "t0" has Failed')


# Cycles


@pytest.mark.parametrize(
    ("edges", "cycles"),
    [
        pytest.param({"a": ["a"]}, {"a": "a a"}, id="itself"),
        pytest.param({"a": ["b"], "b": ["a"]}, {"a": "a b a", "b": "a b a"}, id="two"),
        pytest.param({"c": ["a"], "a": ["b"], "b": ["c"]}, dict.fromkeys("abc", "a b c a"), id="three"),
        pytest.param({"a": ["b"], "b": ["a"], "c": ["b"]}, dict.fromkeys("ab", "a b a"), id="who-depends-on-it-waits"),
        pytest.param({"a": ["b", "c"], "b": ["a"]}, dict.fromkeys("ab", "a b a"), id="who-it-depends-on-waits"),
        pytest.param(
            {"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["c"]},
            {"a": "a b a", "b": "a b a", "c": "c d c", "d": "c d c"},
            id="one-behind-the-other",
        ),
        pytest.param({"a": ["b"], "b": ["a", "c"], "c": ["b"]}, {"a": "a b a", "b": "a b a", "c": "b c b"}, id="eight"),
        pytest.param(
            {"a": ["b", "c"], "b": ["a"], "c": ["b"]}, {"a": "a b a", "b": "a b a", "c": "a c b a"}, id="short-cut"
        ),
        pytest.param({"a": ["b", "a"], "b": ["a"]}, {"a": "a a", "b": "a b a"}, id="itself-and-another"),
    ],
)
def test_cycles_are_found_by_their_last_edge_in_any_order(edges: dict[str, list[str]], cycles: dict[str, str]) -> None:
    names = sorted(edges)
    for seed in range(24):
        order = Random(seed).sample(names, len(names))
        dependencies, told = Dependencies(), set[str]()
        for name in order:
            told |= dependencies.put(waits(name, *edges[name]))
        found = {name: judged(dependencies, name) for name in names}
        assert {name: verdict for name, verdict in found.items() if isinstance(verdict, Cyclic)} == {
            name: Cyclic(tuple(path.split())) for name, path in cycles.items()
        }
        assert told >= uids(*cycles)


def test_cycle_is_named_to_people_in_order() -> None:
    dependencies = known(waits("a", "b"), waits("b", "c"), waits("c", "a"))
    for name in "abc":
        assert said(dependencies, name) == (
            "depends on itself: a -> b -> c -> a; change spec.dependsOn of one of them, or delete one"
        )


RING = [waits("a", "b"), waits("b", "c"), waits("c", "a")]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        pytest.param(lambda ring: ring.put(waits("b", "x")), uids("a", "b", "c"), id="edit"),
        pytest.param(lambda ring: ring.remove(RING[1]), uids("a", "c"), id="deletion"),
        pytest.param(lambda ring: ring.put(ended("b", "Cancelled")), uids("a", "c"), id="end"),
        pytest.param(lambda ring: ring.put(waits("b", uid="new")), uids("a", "c"), id="creation-anew"),
        pytest.param(lambda ring: ring.put(waits("b", "c", attempt=1)), uids("a", "b", "c"), id="assigned-meanwhile"),
    ],
)
def test_what_opens_a_cycle_frees_its_members(change: Callable[[Dependencies], set[str]], left: set[str]) -> None:
    ring = known(*RING)
    assert change(ring) >= left
    assert not [name for name in "abc" if isinstance(judged(ring, name), Cyclic)]


def test_smaller_cycle_is_left_when_the_larger_is_opened() -> None:
    dependencies = known(waits("a", "b", "c"), waits("b", "a"), waits("c", "b"))
    assert uids("a", "b", "c") <= dependencies.put(waits("c"))
    assert judged(dependencies, "a") == judged(dependencies, "b") == Cyclic(("a", "b", "a"))
    assert isinstance(judged(dependencies, "c"), Met)


def test_cycle_comes_before_a_parent_that_has_failed() -> None:
    dependencies = known(waits("a", "b", "f"), waits("b", "a"), ended("f", "Failed"))
    assert isinstance(judged(dependencies, "a"), Cyclic)
    dependencies.put(waits("b"))
    assert isinstance(judged(dependencies, "a"), Moot)


def test_ring_of_thousands_is_found_named_and_opened() -> None:
    size = 5_000
    dependencies, names = Dependencies(), [f"t{number:04}" for number in range(size)]
    for number in Random(1).sample(range(size), size):
        dependencies.put(waits(names[number], names[(number + 1) % size]))
    assert {judged(dependencies, name) for name in names} == {Cyclic((*names, names[0]))}
    assert len(said(dependencies, names[77])) < 1_024
    assert said(dependencies, names[77]).startswith("depends on itself: t0000 -> t0001 -> ")
    dependencies.put(waits(names[1]))
    assert Counter(type(judged(dependencies, name)) for name in names) == {Waiting: size - 1, Met: 1}


# Messages


@pytest.mark.parametrize(
    ("verdict", "message"),
    [
        pytest.param(Met(), "", id="met"),
        pytest.param(Waiting(("a",), (), (), 1, 1), "waits for a (not created yet)", id="missing"),
        pytest.param(Waiting((), ("a",), (Phase.RUNNING,), 1, 1), "waits for a (Running)", id="unfinished"),
        pytest.param(
            Waiting(("b",), ("upload-42",), (Phase.RUNNING,), 3, 5),
            "waits for 3 of 5 dependencies: upload-42 (Running), b (not created yet), and 1 more",
            id="some-of-many",
        ),
        pytest.param(Moot("because"), "because", id="moot"),
        pytest.param(
            Cyclic(("a", "a")),
            "depends on itself: a -> a; change spec.dependsOn of one of them, or delete one",
            id="cyclic",
        ),
    ],
)
def test_verdicts_are_told_in_a_sentence(verdict: Verdict, message: str) -> None:
    assert describe(verdict) == message


def test_message_about_a_thousand_parents_with_long_names_fits() -> None:
    names = [f"{number:04}" + "n" * 240 for number in range(1_000)]
    dependencies = known(waits("child", *names))
    verdict = judged(dependencies, "child")
    assert isinstance(verdict, Waiting)
    assert (len(verdict.missing), verdict.unmet, verdict.total) == (5, 1_000, 1_000)
    message = describe(verdict)
    assert message.endswith("n (not created yet), and 997 more")
    assert len(message) < 1_024


# Who is needed


def test_task_is_needed_while_an_unfinished_one_names_it() -> None:
    dependencies = known(ended("a"), waits("b", "a"), waits("c", "a"))
    assert dependencies.needed("a")
    dependencies.put(waits("b", "a", phase="Running", attempt=1))
    dependencies.remove(waits("c", "a"))
    assert dependencies.needed("a")
    dependencies.put(waits("b", "a", phase="Succeeded", attempt=1))
    assert not dependencies.needed("a")
    dependencies.put(replace(waits("b", "a", phase="Succeeded", attempt=1), retry_request="again"))
    assert dependencies.needed("a")


def test_task_that_does_not_exist_yet_can_be_needed() -> None:
    assert known(waits("b", "a")).needed("a")


# What it costs


def chain(size: int) -> dict[int, list[int]]:
    return {number: [number - 1] if number else [] for number in range(size)}


def random_graph(size: int) -> dict[int, list[int]]:
    random = Random(7)
    return {number: sorted({random.randrange(number) for _ in range(3)}) if number else [] for number in range(size)}


def layers(size: int, width: int = 10) -> dict[int, list[int]]:
    """Each needs all of the layer before: a hundred edges per layer of ten."""
    return {
        number: list(range((number // width - 1) * width, number // width * width)) if number >= width else []
        for number in range(size)
    }


@pytest.mark.parametrize("graph", [chain, random_graph, layers])
@pytest.mark.parametrize(
    ("arrival", "visits_per_edge"),
    [
        pytest.param(lambda size: range(size), 0, id="parents-first"),
        # Each parent tells its children once that it is there.
        pytest.param(lambda size: range(size)[::-1], 1, id="children-first"),
        pytest.param(lambda size: Random(3).sample(range(size), size), 50, id="shuffled"),
        pytest.param(lambda size: [*range(0, size, 2), *range(1, size, 2)], 50, id="every-other-first"),
        pytest.param(lambda size: sorted(range(size), key=lambda n: f"{n:014b}"[::-1]), 50, id="halving"),
    ],
)
def test_thousand_tasks_in_any_order_of_arrival_cost_some_visits_per_edge(
    graph: Callable[[int], dict[int, list[int]]], arrival: Callable[[int], Sequence[int]], visits_per_edge: int
) -> None:
    edges = graph(1_000)
    dependencies = Dependencies()
    for number in arrival(1_000):
        dependencies.put(waits(f"t{number}", *(f"t{parent}" for parent in edges[number])))
    assert dependencies.visited <= visits_per_edge * sum(map(len, edges.values()))
    assert not [number for number in edges if isinstance(judged(dependencies, f"t{number}"), Cyclic)]


def test_ten_times_the_tasks_cost_about_ten_times_the_visits() -> None:
    visits = []
    for size in (400, 4_000):
        dependencies, edges = Dependencies(), random_graph(size)
        for number in Random(3).sample(range(size), size):
            names = tuple(Dependency(f"t{parent}") for parent in edges[number])
            dependencies.put(replace(SOME, uid=f"uid-of-t{number}", name=f"t{number}", depends_on=names))
        visits.append(dependencies.visited)
    assert visits[1] < 20 * visits[0]


SOME = waits("some")


def test_fan_in_and_fan_out_cost_one_look_per_edge_and_event() -> None:
    size = 1_000
    parents = [f"p{number}" for number in range(size)]
    dependencies = known(waits("child", *parents), *(waits(f"c{number}", "hub") for number in range(size)))
    before = dependencies.visited
    for name in parents[:-1]:
        assert dependencies.put(ended(name)) == uids("child")
        assert isinstance(judged(dependencies, "child"), Waiting)
    dependencies.put(ended(parents[-1]))
    assert isinstance(judged(dependencies, "child"), Met)
    assert dependencies.visited - before == size
    for phase in ("Pending", "Assigned", "Running"):
        dependencies.put(ended("hub", phase))
    assert dependencies.put(ended("hub")) == uids(*(f"c{number}" for number in range(size)))
    assert dependencies.visited - before == 3 * size
    for number in range(size):
        dependencies.put(waits(f"c{number}", "hub", phase="Assigned", attempt=1))
    assert dependencies.visited - before == 3 * size


def test_nothing_is_left_of_tasks_that_are_gone() -> None:
    dependencies = Dependencies()
    tasks = [waits(f"t{number}", f"t{(number + 1) % 20}", "x") for number in range(20)]
    tasks += [ended("x", "Failed"), skipped("y", "x"), waits("z", "y")]
    for each in tasks:
        dependencies.put(each)
    for each in tasks:
        dependencies.judge(each.uid)
    for each in tasks:
        dependencies.remove(each)
    held = (dependencies._tasks, dependencies._children, dependencies._dependents, dependencies._causes)
    assert not any(held)
    assert not dependencies._cycles._nodes


# Anything in any order, against a model that looks at all Tasks each time

NAMES = st.sampled_from("abcdef")
PICK = st.integers(0, 5)
WANTED = st.dictionaries(NAMES, st.sampled_from(DependencyCondition), max_size=4).map(
    lambda wanted: tuple(Dependency(name, condition) for name, condition in wanted.items())
)


def said_by_condition(condition: DependencyCondition) -> str:
    return "failed" if condition is DependencyCondition.FAILED else "succeeded"


class DependencyMachine(RuleBasedStateMachine):
    """What may happen to the Tasks of a namespace, in any order; the model is the Tasks themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.dependencies = Dependencies()
        self.tasks: dict[str, Task] = {}
        self.unseen_deletions: list[Task] = []
        self.number = 0
        self.before: dict[str, Any] = {}
        self.told: set[str] = set()

    # What happens

    @rule(name=NAMES, wanted=WANTED, late=st.booleans())
    def create(self, name: str, wanted: tuple[Dependency, ...], late: bool) -> None:
        old = self.tasks.get(name)
        if old is not None and late:
            self.unseen_deletions.append(old)
        elif old is not None:
            self.remove(old)
        self.number += 1
        self.put(replace(SOME, uid=f"{name}-{self.number}", name=name, depends_on=wanted))

    @precondition(lambda self: self.unseen_deletions)
    @rule()
    def see_a_deletion_late(self) -> None:
        self.told |= self.dependencies.remove(self.unseen_deletions.pop())

    @precondition(lambda self: self.tasks)
    @rule(at=PICK)
    def delete(self, at: int) -> None:
        for old in self.one(at, lambda each: True):
            del self.tasks[old.name]
            self.remove(old)

    @precondition(lambda self: self.tasks)
    @rule(at=PICK, wanted=WANTED)
    def edit(self, at: int, wanted: tuple[Dependency, ...]) -> None:
        for old in self.one(at, lambda each: each.attempt == 0):
            self.put(replace(old, depends_on=wanted))

    @precondition(lambda self: self.tasks)
    @rule(at=PICK)
    def assign_or_requeue(self, at: int) -> None:
        for old in self.one(at, lambda each: not each.finished):
            if old.phase is Phase.PENDING:
                self.put(replace(old, phase=Phase.ASSIGNED, attempt=old.attempt + 1))
            else:
                self.put(replace(old, phase=Phase.PENDING))

    @precondition(lambda self: self.tasks)
    @rule(at=PICK, phase=st.sampled_from(sorted(TERMINAL)))
    def end(self, at: int, phase: Phase) -> None:
        for old in self.one(at, lambda each: not each.finished):
            self.put(replace(old, phase=phase, reason=""))

    @precondition(lambda self: self.tasks)
    @rule(at=PICK)
    def skip_what_is_moot(self, at: int) -> None:
        for old in self.one(at, lambda each: isinstance(self.dependencies.judge(each.uid), Moot)):
            self.put(replace(old, phase=Phase.SKIPPED, reason=EndReason.DEPENDENCY_FAILED))

    @precondition(lambda self: self.tasks)
    @rule(at=PICK)
    def ask_to_run_again(self, at: int) -> None:
        for old in self.one(at, self.over):
            self.number += 1
            self.put(replace(old, retry_request=str(self.number)))

    @precondition(lambda self: self.tasks)
    @rule(at=PICK, empty=st.booleans())
    def run_again_or_think_better_of_it(self, at: int, empty: bool) -> None:
        for old in self.one(at, self.runs_again):
            if empty:
                self.put(replace(old, retry_request=""))
            else:
                again = replace(old, observed_retry_request=old.retry_request, run_number=old.run_number + 1)
                self.put(replace(again, phase=Phase.PENDING, reason=""))

    # How

    def one(self, at: int, eligible: Callable[[Task], bool]) -> list[Task]:
        """One of the Tasks that something can happen to, or none."""
        found = [self.tasks[name] for name in sorted(self.tasks) if eligible(self.tasks[name])]
        return found[at % len(found) :][:1] if found else []

    def put(self, new: Task) -> None:
        self.tasks[new.name] = new
        self.told |= self.dependencies.put(new)

    def remove(self, old: Task) -> None:
        self.told |= self.dependencies.remove(old)

    # The model

    @staticmethod
    def runs_again(each: Task) -> bool:
        return each.finished and each.retry_request not in ("", each.observed_retry_request)

    def over(self, each: Task) -> bool:
        return each.finished and not self.runs_again(each)

    def counts(self, name: str) -> bool:
        return name in self.tasks and self.tasks[name].phase is Phase.PENDING and self.tasks[name].attempt == 0

    def parents(self, name: str) -> set[str]:
        return {each.name for each in self.tasks[name].depends_on} if self.counts(name) else set()

    def needs_itself(self, name: str) -> bool:
        reached: set[str] = set()
        left = [name]
        while left:
            for parent in self.parents(left.pop()) - reached:
                reached.add(parent)
                left.append(parent)
        return name in reached

    def expected(self, name: str) -> tuple[str, Any]:
        each = self.tasks[name]
        if not self.counts(name):
            return "met", None
        if self.needs_itself(name):
            return "cyclic", None
        missing, unfinished, otherwise = set(), set(), {}
        for wanted in each.depends_on:
            parent = self.tasks.get(wanted.name)
            if parent is None:
                missing.add(wanted.name)
            elif not self.over(parent):
                unfinished.add(wanted.name)
            elif wanted.condition.value not in ("Finished", parent.phase.value):
                otherwise[wanted.name] = wanted.condition
        if otherwise:
            return "moot", otherwise
        return ("waiting", (missing, unfinished)) if missing or unfinished else ("met", None)

    @invariant()
    def verdicts_are_those_of_the_model(self) -> None:
        now: dict[str, Any] = {}
        for name, each in self.tasks.items():
            kind, details = self.expected(name)
            now[each.uid] = (kind, details)
            match self.dependencies.judge(each.uid):
                case Met():
                    assert kind == "met"
                case Waiting(missing, unfinished, phases, unmet, total):
                    assert (kind, details) == ("waiting", (set(missing), set(unfinished)))
                    assert (unmet, total) == (len(missing) + len(unfinished), len(each.depends_on))
                    for parent, phase in zip(unfinished, phases, strict=True):
                        assert phase is (Phase.PENDING if self.tasks[parent].finished else self.tasks[parent].phase)
                case Moot(message):
                    assert kind == "moot"
                    assert any(
                        message.startswith(f'needs "{parent}" to have {said_by_condition(condition)}, but it ')
                        and str(self.tasks[parent].phase) in message
                        for parent, condition in details.items()
                    )
                case Cyclic(path):
                    assert kind == "cyclic"
                    assert name in path
                    assert path[0] == path[-1] == min(path)
                    assert len(set(path)) == len(path) - 1
                    assert all(need in self.parents(who) for who, need in pairwise(path))
                    now[each.uid] = (kind, path)
        unfinished_uids = {each.uid for each in self.tasks.values() if not self.over(each)}
        assert self.told & unfinished_uids >= {
            uid for uid in unfinished_uids if now[uid] != self.before.get(uid, ("met", None))
        }
        self.before, self.told = now, set()

    @invariant()
    def needed_are_those_that_an_unfinished_task_names(self) -> None:
        named = {want.name for each in self.tasks.values() if not self.over(each) for want in each.depends_on}
        assert {name for name in "abcdef" if self.dependencies.needed(name)} == named
        for each in self.tasks.values():
            assert named_by(each) == (() if self.over(each) else each.depends_on)

    @invariant()
    def tasks_are_found_by_name(self) -> None:
        assert {name: self.dependencies.named(name) for name in self.tasks} == self.tasks


TestDependencies = DependencyMachine.TestCase
TestDependencies.settings = settings(max_examples=70, stateful_step_count=40, print_blob=True)
