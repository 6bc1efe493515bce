from __future__ import annotations

from dataclasses import replace

import pytest
from tests.builders import EPOCH
from tests.unit.tenant_rig import pending

from taskmaster.core.backlog import AGE_TURN, Backlog
from taskmaster.core.capacity import Shape
from taskmaster.core.task import Task

PLAIN, LARGE = Shape("default"), Shape("default", slots=4)


class Queue:
    """A backlog and the order in which its Tasks were first seen."""

    def __init__(self, *tasks: Task, aging_seconds: int = 60) -> None:
        self.backlog = Backlog(aging_seconds=aging_seconds)
        self.orders: dict[str, int] = {}
        self.put(*tasks)

    def put(self, *tasks: Task, shape: Shape = PLAIN) -> None:
        for each in tasks:
            self.backlog.put(each, shape, self.orders.setdefault(each.uid, len(self.orders)))

    def start(self, number: int = 1) -> list[str]:
        """Start so many Tasks; their names."""
        names = []
        for _ in range(number):
            head = self.backlog.head()
            if head is None:
                break
            self.backlog.start(head.uid)
            names.append(head.name)
        return names

    def drain(self) -> list[str]:
        names = []
        while (head := self.backlog.head()) is not None:
            self.backlog.discard(head.uid)
            names.append(head.name)
        return names


def many(key: str, number: int, **fields: int) -> list[Task]:
    return [pending(f"{key}{each}", fairness_key=key, **fields) for each in range(number)]


def test_higher_priority_comes_first_and_may_be_negative() -> None:
    queue = Queue(pending("low", priority=-5), pending("middle"), pending("high", priority=5))
    assert queue.start(3) == ["high", "middle", "low"]


def test_equals_come_in_the_order_of_their_creation_whatever_order_they_were_seen_in() -> None:
    queue = Queue(
        *(pending(name, created=EPOCH + after) for name, after in (("second", 1), ("third", 2), ("first", 0)))
    )
    assert queue.start(3) == ["first", "second", "third"]


def test_tasks_of_the_same_second_come_in_the_order_they_were_first_seen_in() -> None:
    assert Queue(pending("z"), pending("a"), pending("m")).start(3) == ["z", "a", "m"]


def test_newer_version_keeps_its_place_among_equals_and_is_what_is_offered() -> None:
    queue = Queue(pending("first"), pending("second"), pending("third"))
    newer = replace(pending("first"), resource_version="2000")
    queue.put(newer)
    assert queue.backlog.head() == newer
    assert queue.start(3) == ["first", "second", "third"]


def test_priority_edit_moves_a_task_and_moving_back_restores_its_place() -> None:
    queue = Queue(pending("first"), pending("second"), pending("third"))
    queue.put(pending("second", priority=1))
    assert queue.backlog.head() == pending("second", priority=1)
    queue.put(pending("second"))
    assert queue.start(3) == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("waited", "priority", "first"),
    [(60 * 10 - 1, 10, "urgent"), (60 * 10 + 1, 10, "old"), (60 * 10, 10, "urgent"), (1, 0, "old"), (0, 1, "urgent")],
)
def test_a_point_of_priority_counts_as_the_seconds_of_aging(waited: int, priority: int, first: str) -> None:
    queue = Queue(pending("old"), pending("urgent", priority=priority, created=EPOCH + waited))
    assert queue.start() == [first]


def test_another_pace_of_aging_counts_at_once() -> None:
    queue = Queue(pending("old"), pending("urgent", priority=1, created=EPOCH + 100))
    queue.backlog.age_by(200)
    assert queue.backlog.head() == pending("urgent", priority=1, created=EPOCH + 100)
    queue.backlog.age_by(60)
    assert queue.start(2) == ["old", "urgent"]


def test_a_new_run_does_not_begin_with_the_age_of_the_first_and_a_retry_keeps_it() -> None:
    again = replace(pending("again"), run_number=2, queued=pending("x", created=EPOCH + 50).queued)
    retried = replace(pending("retried"), attempt=3, queued=pending("x", created=EPOCH + 50).queued)
    assert Queue(again, retried, pending("new", created=EPOCH + 20)).start(3) == ["retried", "new", "again"]


def test_keys_take_turns_whatever_their_numbers() -> None:
    queue = Queue(*many("a", 100), *many("b", 5), *many("c", 5))
    started = queue.start(15)
    assert [sum(name[0] == key for name in started) for key in "abc"] == [5, 5, 5]
    assert {name[0] for name in started[:3]} == set("abc")


def test_a_task_with_more_slots_is_a_longer_turn() -> None:
    queue = Queue(*many("small", 100))
    queue.put(*many("large", 100), shape=LARGE)
    started = queue.start(70)
    assert sum(name.startswith("large") for name in started) == pytest.approx(14, abs=3)


def test_a_key_that_comes_back_gets_no_credit_for_its_absence() -> None:
    queue = Queue(*many("a", 100), *many("b", 100))
    queue.start(40)
    queue.put(*many("c", 100))
    started = queue.start(30)
    assert [sum(name[0] == key for name in started) for key in "abc"] == [pytest.approx(10, abs=2)] * 3


def test_a_key_that_leaves_and_comes_back_at_once_gains_nothing() -> None:
    """Whoever puts its Tasks one at a time has no more turns than one that puts them together."""
    queue, started = Queue(*many("a", 100)), []
    for number in range(40):
        queue.put(pending(f"b{number}", fairness_key="b"))
        started += queue.start(1)
    assert sum(name[0] == "b" for name in started) <= 22


def test_turns_go_over_all_priorities_and_shapes_of_a_key() -> None:
    queue = Queue(*many("a", 20), *many("b", 20))
    queue.put(*(replace(each, name=f"a-large{each.name}", uid=f"l{each.uid}") for each in many("a", 20)), shape=LARGE)
    slots = {"a": 0, "b": 0}
    for name in queue.start(25):
        slots[name[0]] += 4 if "large" in name else 1
    assert slots["a"] == pytest.approx(slots["b"], abs=8)


def test_each_so_many_starts_the_oldest_goes_whatever_its_key() -> None:
    """A stream of ever new keys, each with the right to the next turn, starves nobody."""
    queue, started = Queue(*many("old", 3)), []
    queue.start(1)
    for number in range(3 * AGE_TURN):
        queue.put(*(pending(f"n{number}-{each}", created=EPOCH + 1, fairness_key=f"{number}-{each}") for each in "xy"))
        started += queue.start(1)
    assert {"old1", "old2"} <= set(started[: 2 * AGE_TURN])


def test_a_blocked_shape_is_passed_over_until_it_is_unblocked() -> None:
    queue = Queue(pending("small", created=EPOCH + 1))
    queue.put(pending("large"), shape=LARGE)
    queue.backlog.block(LARGE)
    assert queue.backlog.blocked() == [LARGE]
    assert queue.start(2) == ["small"]
    assert (queue.backlog.head(), len(queue.backlog)) == (None, 1)
    queue.put(pending("other"), shape=LARGE)
    assert queue.backlog.head() is None, "it does not fit either"
    queue.backlog.unblock(LARGE)
    assert queue.start(2) == ["large", "other"]


def test_a_blocked_shape_whose_tasks_are_gone_begins_anew() -> None:
    queue = Queue()
    queue.put(pending("large"), shape=LARGE)
    queue.backlog.block(LARGE)
    queue.backlog.discard(pending("large").uid)
    assert queue.backlog.blocked() == []
    queue.put(pending("large"), shape=LARGE)
    assert queue.start() == ["large"]
    queue.backlog.unblock(LARGE)
    assert queue.backlog.head() is None


def test_a_task_may_change_all_that_places_it() -> None:
    queue = Queue(pending("t", fairness_key="a"), pending("other"))
    queue.put(pending("t", fairness_key="b", priority=3, created=EPOCH + 5), shape=LARGE)
    assert dict(queue.backlog.shapes()) == {PLAIN: 1, LARGE: 1}
    assert len(queue.backlog) == 2
    assert queue.start(3) == ["t", "other"]


def test_oldest_is_since_when_the_longest_waits() -> None:
    queue = Queue(pending("a", created=EPOCH + 9), pending("b", created=EPOCH + 3, priority=7))
    queue.put(pending("c", created=EPOCH + 5), shape=LARGE)
    assert queue.backlog.oldest() == EPOCH + 3
    assert queue.start() == ["b"]
    assert queue.backlog.oldest() == EPOCH + 5
    queue.start(2)
    assert queue.backlog.oldest() is None


def test_discarded_task_is_gone_and_discarding_the_unknown_is_harmless() -> None:
    queue = Queue(pending("a", fairness_key="x"), pending("b"))
    for name in ("a", "nobody"):
        queue.backlog.discard(f"uid-of-{name}")
    assert list(queue.backlog) == ["uid-of-b"]
    assert "uid-of-a" not in queue.backlog
    assert queue.drain() == ["b"]
    assert (queue.backlog._lanes, queue.backlog._open, len(queue.backlog)) == ({}, {}, 0)


@pytest.mark.parametrize("waiting", [0, 100], ids=["one at a time", "with others waiting"])
def test_keys_that_never_come_again_are_forgotten(waiting: int) -> None:
    """A key per customer or per upload is normal: there is no end to them."""
    queue = Queue(*many("stays", waiting))
    for number in range(5_000):
        queue.put(pending(f"t{number}", fairness_key=str(number)))
        queue.start(1)
    assert len(queue.backlog._tags) <= 2_000
