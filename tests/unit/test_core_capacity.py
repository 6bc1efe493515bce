from tests.builders import worker

from taskmaster.core.capacity import Capacity


def uid(name: str) -> str:
    return f"uid-of-{name}"


def capacity(**slots: int) -> Capacity:
    made = Capacity()
    for name, number in slots.items():
        made.put_worker(worker(name, slots=number))
    return made


def place(made: Capacity, *tasks: str) -> list[str]:
    """Place Tasks as step 4 does; the names of the workers that got them, until no slot is free."""
    chosen = []
    for each in tasks:
        found = made.least_loaded()
        if found is None:
            break
        made.take(each, found.pod_uid)
        chosen.append(found.name)
    return chosen


def test_no_worker_gets_more_than_its_slots() -> None:
    made = capacity(a=2, b=1)
    assert sorted(place(made, *"12345")) == ["a", "a", "b"]
    assert made.least_loaded() is None


def test_share_of_slots_decides_not_the_number_of_tasks() -> None:
    made = capacity(big=10, small=2)
    made.take("1", uid("big"))
    made.take("2", uid("big"))
    made.take("3", uid("small"))
    assert place(made, "4", "5", "6", "7") == ["big", "big", "big", "small"]


def test_idle_workers_take_turns() -> None:
    made = capacity(a=4, b=4, c=4)
    chosen = []
    for number in range(6):
        chosen += place(made, str(number))
        made.free(str(number))
    assert sorted(chosen[:3]) == ["a", "b", "c"]
    assert chosen[3:] == chosen[:3]


def test_observed_tasks_are_counted_even_beyond_the_slots() -> None:
    made = capacity(a=1)
    for each in "123":
        made.take(each, uid("a"))
    assert made.held_by(uid("a")) == {"1", "2", "3"}
    assert made.least_loaded() is None
    made.free("1")
    made.free("2")
    assert made.least_loaded() is None
    made.free("3")
    assert made.least_loaded() == worker("a", slots=1)


def test_unschedulable_worker_is_not_offered_and_keeps_what_it_holds() -> None:
    made = capacity(a=2)
    made.take("1", uid("a"))
    made.put_worker(worker("a", slots=2, schedulable=False))
    assert made.least_loaded() is None
    assert made.held_by(uid("a")) == {"1"}
    made.put_worker(worker("a", slots=2))
    assert place(made, "2", "3") == ["a"]


def test_task_of_an_unknown_worker_is_counted_when_the_worker_appears() -> None:
    made = Capacity()
    made.take("1", uid("a"))
    assert made.held_by(uid("a")) == {"1"}
    made.put_worker(worker("a", slots=1))
    assert made.least_loaded() is None
    made.free("1")
    assert made.least_loaded() is not None


def test_task_may_be_freed_while_its_worker_is_unknown() -> None:
    made = Capacity()
    made.take("1", uid("a"))
    made.take("2", uid("a"))
    made.free("1")
    assert made.held_by(uid("a")) == {"2"}
    made.free("2")
    made.put_worker(worker("a", slots=1))
    assert made.least_loaded() is not None


def test_returning_worker_still_has_its_tasks() -> None:
    made = capacity(a=2)
    made.take("1", uid("a"))
    made.remove_worker(uid("a"))
    assert (len(made), made.least_loaded(), made.held_by(uid("a"))) == (0, None, {"1"})
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
    assert made.least_loaded() is None


def test_a_worker_that_runs_a_suspect_is_known_by_it_alone() -> None:
    """A new leader sees only the Task."""
    made = capacity(a=4)
    made.take("s", uid("a"), alone=True)
    assert made.least_loaded() is None
    made.free("s")
    made.release("s")
    assert made.least_loaded() is not None


def test_a_reservation_goes_with_its_worker() -> None:
    made = capacity(a=1)
    made.take("1", uid("a"))
    assert made.reserve("s") is None
    made.remove_worker(uid("a"))
    made.free("1")
    made.put_worker(worker("a", slots=1))
    assert made.least_loaded() is not None
    assert made.reserve("s") is not None
    assert made.least_loaded() is None


def test_freeing_or_removing_the_unknown_is_harmless() -> None:
    made = capacity(a=1)
    made.free("nobody")
    made.remove_worker(uid("nobody"))
    assert [each.name for each in made.workers()] == ["a"]
