from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.builders import worker

from taskmaster.core.capacity import Capacity, Shape, Worker
from taskmaster.core.queue import Placement
from taskmaster.core.requirements import Operator, Requirement

ONE = Shape("default")
ALONE = Shape("default", alone=True)
GPU = Shape("default", requires=(Requirement("gpu", Operator.EXISTS),))


def wide(slots: int) -> Shape:
    return Shape("default", slots)


def uid(name: str) -> str:
    return f"uid-of-{name}"


def special(name: str, *, labels: dict[str, str] | None = None, queues: str = "", **fields: Any) -> Worker:
    return replace(worker(name, **fields), labels=labels or {}, queues=frozenset(queues))


def capacity(*workers: Worker, **slots: int) -> Capacity:
    made = Capacity()
    for each in (*workers, *(worker(name, slots=number) for name, number in slots.items())):
        made.put_worker(each)
    return made


def offered(made: Capacity, shape: Shape = ONE, by: Placement = Placement.LEAST_LOADED, **avoid: str) -> str | None:
    found = made.place(shape, by, **avoid)
    return None if found is None else found.name


def place(made: Capacity, *tasks: str, shape: Shape = ONE, by: Placement = Placement.LEAST_LOADED) -> list[str]:
    """Place Tasks as the cycle does; the names of the workers that got them, until none takes one."""
    chosen = []
    for each in tasks:
        found = made.place(shape, by)
        if found is None:
            break
        made.take(each, found.pod_uid, slots=shape.slots)
        chosen.append(found.name)
    return chosen


def test_no_worker_gets_more_than_its_slots() -> None:
    made = capacity(a=2, b=1)
    assert sorted(place(made, *"12345")) == ["a", "a", "b"]
    assert offered(made) is None


def test_share_of_slots_decides_not_the_number_of_tasks() -> None:
    made = capacity(big=10, small=2)
    made.take("1", uid("big"))
    made.take("2", uid("big"))
    made.take("3", uid("small"))
    assert place(made, "4", "5", "6", "7") == ["big", "big", "big", "small"]


@pytest.mark.parametrize("placement", [Placement.LEAST_LOADED, Placement.ROUND_ROBIN])
def test_idle_workers_take_turns(placement: Placement) -> None:
    made = capacity(a=4, b=4, c=4)
    chosen = []
    for number in range(6):
        chosen += place(made, str(number), by=placement)
        made.free(str(number))
    assert sorted(chosen[:3]) == ["a", "b", "c"]
    assert chosen[3:] == chosen[:3]


def test_round_robin_looks_at_turns_and_not_at_the_load() -> None:
    made = capacity(a=4, b=4)
    made.take("1", uid("b"))
    for each in "234":
        made.take(each, uid("a"))
    assert offered(made, by=Placement.ROUND_ROBIN) == "b"
    made.take("5", uid("b"))
    assert offered(made, by=Placement.ROUND_ROBIN) == "a"


def test_bin_pack_fills_one_worker_after_the_other_whatever_their_sizes() -> None:
    made = capacity(a=4, b=2, c=8)
    assert place(made, *"123456", by=Placement.BIN_PACK) == ["b", "b", "a", "a", "a", "a"]
    made.free("1")
    made.free("3")
    made.free("4")
    assert offered(made, wide(2), Placement.BIN_PACK) == "a"


@pytest.mark.parametrize("placement", Placement)
def test_a_task_with_several_slots_needs_them_on_one_worker(placement: Placement) -> None:
    made = capacity(a=4, b=4, c=2)
    made.take("1", uid("a"), slots=2)
    made.take("2", uid("b"))
    assert place(made, "3", "4", shape=wide(3), by=placement) == ["b"]
    assert made.used(uid("b")) == 4
    made.free("3")
    assert made.used(uid("b")) == 1


@pytest.mark.parametrize(
    ("shape", "takes"),
    [
        (ONE, "abc"),
        (wide(3), "bc"),
        (wide(9), ""),
        (GPU, "b"),
        (Shape("y"), "ab"),
        (Shape("x"), "abc"),
        (Shape("y", requires=(Requirement("gpu", Operator.DOES_NOT_EXIST),)), "a"),
    ],
    ids=["any", "large", "too large", "label", "a queue", "another queue", "both"],
)
def test_a_task_goes_only_where_labels_queues_and_size_fit(shape: Shape, takes: str) -> None:
    shape = replace(shape, queue="x") if shape.queue == "default" else shape
    made = capacity(worker("a", slots=2), special("b", labels={"gpu": "a100"}, slots=4), special("c", queues="xz"))
    chosen = set(place(made, *map(str, range(20)), shape=replace(shape, slots=1) if shape.slots < 3 else shape))
    assert chosen == set(takes)


def test_observed_tasks_are_counted_even_beyond_the_slots() -> None:
    made = capacity(a=1)
    for each in "123":
        made.take(each, uid("a"))
    assert made.held_by(uid("a")) == {"1", "2", "3"}
    assert offered(made) is None
    made.free("1")
    made.free("2")
    assert offered(made) is None
    made.free("3")
    assert made.place(ONE, Placement.LEAST_LOADED) == worker("a", slots=1)


def test_unschedulable_worker_is_not_offered_and_keeps_what_it_holds() -> None:
    made = capacity(a=2)
    made.take("1", uid("a"))
    made.put_worker(worker("a", slots=2, schedulable=False))
    assert (offered(made), made.reserve("s", ALONE)) == (None, None)
    assert made.held_by(uid("a")) == {"1"}
    made.put_worker(worker("a", slots=2))
    assert place(made, "2", "3") == ["a"]


def test_task_of_an_unknown_worker_is_counted_when_the_worker_appears() -> None:
    made = Capacity()
    made.take("1", uid("a"), slots=3)
    assert made.held_by(uid("a")) == {"1"}
    made.put_worker(worker("a", slots=4))
    assert (offered(made, wide(2)), offered(made), made.used(uid("a"))) == (None, "a", 3)
    made.free("1")
    assert offered(made, wide(4)) == "a"


def test_task_may_be_freed_while_its_worker_is_unknown() -> None:
    made = Capacity()
    made.take("1", uid("a"))
    made.take("2", uid("a"))
    made.free("1")
    assert made.held_by(uid("a")) == {"2"}
    made.free("2")
    made.put_worker(worker("a", slots=1))
    assert offered(made) == "a"


def test_returning_worker_still_has_its_tasks() -> None:
    made = capacity(a=2)
    made.take("1", uid("a"))
    made.remove_worker(uid("a"))
    assert (len(made), offered(made), made.held_by(uid("a"))) == (0, None, {"1"})
    made.put_worker(worker("a", slots=2))
    assert place(made, "2", "3") == ["a"]


def test_taking_again_changes_nothing_and_taking_elsewhere_moves() -> None:
    made = capacity(a=1, b=1)
    made.take("1", uid("a"))
    made.take("1", uid("a"))
    assert made.held_by(uid("a")) == {"1"}
    made.take("1", uid("b"))
    assert (made.held_by(uid("a")), made.held_by(uid("b"))) == (set(), {"1"})
    assert place(made, "2", "3") == ["a"]


def test_change_of_slots_counts_at_once() -> None:
    made = capacity(a=1)
    made.take("1", uid("a"))
    made.put_worker(worker("a", slots=2))
    assert place(made, "2", "3") == ["a"]
    made.put_worker(worker("a", slots=1))
    made.free("1")
    assert offered(made) is None


def test_change_of_labels_counts_at_once() -> None:
    made = capacity(a=1)
    assert offered(made, GPU) is None
    made.put_worker(special("a", labels={"gpu": ""}, slots=1))
    assert offered(made, GPU) == "a"
    made.put_worker(worker("a", slots=1))
    assert offered(made, GPU) is None


def test_the_worker_that_failed_a_task_takes_it_only_if_no_other_has_room() -> None:
    made = capacity(a=9, b=1)
    assert offered(made, avoid="a") == "b"
    made.take("1", uid("b"))
    assert offered(made, avoid="a") == "a"
    assert offered(made) == "a", "others are not kept from it"
    assert offered(made, avoid="nobody") == "a"


def test_a_kept_worker_gets_nothing_new_and_goes_when_it_is_empty() -> None:
    made = capacity(a=2, b=2)
    made.take("1", uid("a"))
    made.take("2", uid("b"))
    made.take("3", uid("b"))
    assert made.reserve("s", ALONE) is None
    assert offered(made) is None, "a is kept, b is full"
    made.free("1")
    assert offered(made) is None
    assert made.reserve("s", ALONE) == worker("a", slots=2)


def test_the_worker_with_the_least_to_finish_is_kept_and_rather_not_the_avoided_one() -> None:
    made = capacity(a=4, b=4, c=2)
    made.take("1", uid("a"))
    made.take("2", uid("b"))
    made.take("3", uid("c"), slots=2)
    made.reserve("s", wide(4), avoid="a")
    assert {offered(made), offered(made, avoid="a")} == {"a"}


@pytest.mark.parametrize(("workers", "kept"), [(1, 1), (2, 1), (3, 1), (5, 2)])
def test_at_most_half_of_the_workers_are_kept_but_one_always_may_be(workers: int, kept: int) -> None:
    made = capacity(**{f"w{number}": 1 for number in range(workers)})
    assert [made.reserve(str(number), ALONE) is not None for number in range(5)].count(True) == kept
    assert len(place(made, *map(str, range(10, 20)))) == workers - kept


def test_a_task_that_wanted_to_be_alone_keeps_others_away_until_it_is_released() -> None:
    made = capacity(a=4)
    found = made.reserve("s", ALONE)
    assert found is not None
    made.take("s", found.pod_uid, alone=True)
    assert offered(made) is None
    made.free("s")
    assert offered(made) is None
    made.release("s")
    assert offered(made) == "a"


def test_a_task_with_several_slots_lets_others_beside_it() -> None:
    made = capacity(a=4)
    made.take("1", uid("a"), slots=2)
    assert made.reserve("s", wide(3)) is None
    made.free("1")
    assert made.reserve("s", wide(3)) is not None
    made.take("s", uid("a"), slots=3)
    assert offered(made) == "a"


def seen_before(made: Capacity) -> None:
    made.put_worker(worker("a"))
    made.take("s", uid("a"), alone=True)


def seen_after(made: Capacity) -> None:
    made.take("s", uid("a"), alone=True)
    made.put_worker(worker("a"))


def gone_and_back(made: Capacity) -> None:
    seen_before(made)
    made.remove_worker(uid("a"))
    made.put_worker(worker("a"))


@pytest.mark.parametrize("see", [seen_before, seen_after, gone_and_back])
def test_a_worker_that_runs_a_suspect_is_known_by_it_alone(see: Any) -> None:
    """A new leader sees only the Task, and the Lease of the worker before or after it."""
    made = Capacity()
    see(made)
    assert offered(made) is None
    made.free("s")
    made.release("s")
    assert offered(made) == "a"
    assert made._reservations == {}


def test_a_reservation_goes_with_its_worker() -> None:
    made = capacity(a=1)
    made.take("1", uid("a"))
    assert made.reserve("s", ALONE) is None
    made.remove_worker(uid("a"))
    made.free("1")
    made.put_worker(worker("a", slots=1))
    assert offered(made) == "a"
    assert made.reserve("s", ALONE) is not None
    assert offered(made) is None


def news(made: Capacity, shape: Shape) -> bool:
    return made.fits(shape, made.newly_free())


def free(made: Capacity) -> None:
    made.free("1")


def grow(made: Capacity) -> None:
    made.put_worker(special("a", labels={"gpu": ""}, slots=2))


def drain_and_return(made: Capacity) -> None:
    made.free("1")
    made.put_worker(special("a", labels={"gpu": ""}, slots=1, schedulable=False))
    made.newly_free()
    made.put_worker(special("a", labels={"gpu": ""}, slots=1))


def come(made: Capacity) -> None:
    made.put_worker(special("new", labels={"gpu": ""}))


def move(made: Capacity) -> None:
    made.take("1", uid("b"))


def learn_labels(made: Capacity) -> None:
    made.put_worker(special("b", labels={"gpu": ""}, slots=2))


@pytest.mark.parametrize("change", [free, grow, drain_and_return, come, move, learn_labels])
def test_what_waits_for_room_hears_of_it(change: Any) -> None:
    made = capacity(special("a", labels={"gpu": ""}, slots=1), b=2)
    made.take("1", uid("a"))
    made.newly_free()
    change(made)
    assert news(made, GPU)
    assert not news(made, GPU), "once"


def test_what_fits_elsewhere_is_not_disturbed() -> None:
    made = capacity(special("a", labels={"gpu": ""}, slots=1), b=1)
    made.take("1", uid("b"))
    made.newly_free()
    made.free("1")
    assert not news(made, GPU)


def end_the_reservation(made: Capacity) -> None:
    made.release("s")


def lose_the_worker(made: Capacity) -> None:
    made.remove_worker(uid("a"))


def drain_the_worker(made: Capacity) -> None:
    made.put_worker(worker("a", slots=1, schedulable=False))


def have_more_workers(made: Capacity) -> None:
    made.put_worker(worker("c", slots=1))
    made.put_worker(worker("d", slots=1))


@pytest.mark.parametrize("change", [end_the_reservation, lose_the_worker, drain_the_worker, have_more_workers])
def test_who_may_not_keep_a_worker_yet_hears_when_that_changes(change: Any) -> None:
    """Only half of the workers are kept, so it is not the worker that one waits for."""
    made = capacity(worker("a", slots=1), special("b", labels={"gpu": ""}, slots=1))
    made.take("1", uid("a"))
    made.reserve("s", replace(ALONE, requires=(Requirement("gpu", Operator.DOES_NOT_EXIST),)))
    alone_there = replace(GPU, alone=True)
    assert made.reserve("t", alone_there) is None
    made.newly_free()
    change(made)
    assert news(made, alone_there)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        (
            ONE,
            "0/5 workers fit: 2 busy, 1 do not serve queue default, 1 draining or not ready, 1 kept for a larger Task",
        ),
        (GPU, "0/5 workers fit: 3 lack gpu, 1 busy, 1 do not serve queue default"),
        (wide(5), "0/5 workers fit: 4 have fewer than 5 slots, 1 do not serve queue default"),
    ],
)
def test_a_survey_counts_each_worker_under_what_keeps_it(shape: Shape, text: str) -> None:
    made = capacity(
        worker("busy", slots=1),
        special("gpu", labels={"gpu": ""}, slots=1),
        worker("leaving", schedulable=False),
        worker("kept", slots=4),
        special("other", queues="x"),
    )
    made.take("1", uid("busy"))
    made.take("2", uid("gpu"))
    made.take("3", uid("kept"))
    made.reserve("big", wide(4))
    survey = made.survey(shape)
    assert str(survey) == text
    assert survey.workers == sum(survey.blockers.values()) == 5


def test_a_survey_of_nothing() -> None:
    assert str(Capacity().survey(ONE)) == "0/0 workers fit"


def test_freeing_or_removing_the_unknown_is_harmless() -> None:
    made = capacity(a=1)
    made.free("nobody")
    made.release("nobody")
    made.remove_worker(uid("nobody"))
    assert [each.name for each in made.workers()] == ["a"]


def test_nothing_is_kept_of_workers_that_are_gone() -> None:
    made = Capacity()
    for number in range(100):
        made.put_worker(special(f"w{number}", labels={"host": str(number)}))
        made.reserve("s", ALONE)
        made.remove_worker(uid(f"w{number}"))
    assert (made._kinds, made._seats, made._names, made._reservations) == ({}, {}, {}, {})
