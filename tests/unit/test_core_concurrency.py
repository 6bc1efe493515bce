from __future__ import annotations

import pytest

from taskmaster.core.capacity import Shape
from taskmaster.core.concurrency import ConcurrencyKeys, Conflict
from taskmaster.core.task import Concurrency, OnConflict

PLAIN = Shape("default")


def keys(*uids: str, limit: int = 1) -> ConcurrencyKeys:
    """Tasks that live, each with the key k."""
    made = ConcurrencyKeys()
    for uid in uids:
        made.put(uid, Concurrency("k", limit))
    return made


def conflict(waiting: str, holding: str, policy: OnConflict, limit: int) -> Conflict:
    """What the Task "n" does; the others came in alphabetical order, n after m and before o."""
    made = keys(*waiting, *holding, "n", limit=limit)
    for uid in waiting:
        made.wait(uid, (float(ord(uid)), 0))
    for uid in holding:
        made.hold(uid, (float(ord(uid)), 0))
    made.wait("n", (float(ord("n")), 0))
    return made.conflict("n", (float(ord("n")), 0), policy)


@pytest.mark.parametrize(
    ("waiting", "holding", "limit", "rejected"),
    [
        ("", "", 1, False),
        ("", "a", 1, True),
        ("a", "", 1, True),
        ("z", "", 1, False),
        ("", "z", 1, True),
        ("a", "b", 3, False),
        ("ab", "c", 3, True),
        ("", "abc", 3, True),
    ],
)
def test_reject_refuses_where_the_older_ones_leave_no_room(
    waiting: str, holding: str, limit: int, rejected: bool
) -> None:
    assert conflict(waiting, holding, OnConflict.REJECT, limit) == Conflict(rejected=rejected)


@pytest.mark.parametrize(
    ("waiting", "holding", "limit", "ended", "stopped"),
    [
        ("", "", 1, "", ""),
        ("", "a", 1, "", "a"),
        ("a", "b", 1, "a", "b"),
        ("bca", "", 1, "abc", ""),
        ("az", "", 1, "a", ""),
        ("", "abc", 3, "", "a"),
        ("d", "abc", 3, "d", "a"),
        ("de", "ab", 3, "de", ""),
        ("d", "a", 3, "", ""),
    ],
)
def test_cancel_running_makes_room_with_waiting_ones_first_and_the_oldest_first(
    waiting: str, holding: str, limit: int, ended: str, stopped: str
) -> None:
    found = conflict(waiting, holding, OnConflict.CANCEL_RUNNING, limit)
    assert found == Conflict(ended=tuple(ended), stopped=tuple(stopped))


@pytest.mark.parametrize(
    ("waiting", "holding", "limit", "ended"),
    [("", "a", 1, ""), ("b", "a", 1, "b"), ("bcd", "a", 1, "bcd"), ("de", "ab", 3, "de"), ("d", "a", 3, "")],
)
def test_replace_pending_lets_running_ones_go_on(waiting: str, holding: str, limit: int, ended: str) -> None:
    assert conflict(waiting, holding, OnConflict.REPLACE_PENDING, limit) == Conflict(ended=tuple(ended))


def test_queue_leaves_all_others_alone() -> None:
    assert conflict("abc", "de", OnConflict.QUEUE, 1) == Conflict()


def test_the_lowest_limit_of_those_that_live_holds() -> None:
    made = keys("a", limit=3)
    made.put("b", Concurrency("k", 2))
    assert made.standing("a") == ("k", 0, 2)
    assert made.put("b", None) == {"k"}
    assert made.standing("a") == ("k", 0, 3)
    made.put("a", Concurrency("k", 5))
    assert made.standing("a") == ("k", 0, 5)


def test_one_who_rests_frees_the_key() -> None:
    made = keys("a", "b")
    made.hold("a", (0.0, 0))
    assert not made.room("b")
    made.rest("a")
    assert made.room("b")


def parked(made: ConcurrencyKeys, uid: str, rank: float, shape: Shape = PLAIN) -> None:
    made.wait(uid, (rank, 0))
    made.park(uid, (rank, 0), shape)


def test_as_many_go_on_as_there_is_room_the_first_in_rank_first() -> None:
    made = keys("a", "b", "c", "d", limit=2)
    for rank, uid in enumerate("dcba"):
        parked(made, uid, float(rank))
    assert made.unpark("k") == ["d", "c"]
    made.hold("d", (0.0, 0))
    assert made.unpark("k") == ["b"]
    made.hold("c", (0.0, 0))
    assert made.unpark("k") == []
    assert made.unpark("unknown") == []


def test_those_that_ask_for_another_worker_do_not_wait_for_one_another() -> None:
    """The first in rank may not be able to use the room: its queue is paused, or no worker fits."""
    made = keys("a", "b", "c")
    parked(made, "a", 0.0, Shape("paused"))
    parked(made, "b", 1.0, Shape("other"))
    parked(made, "c", 2.0, Shape("other"))
    assert made.unpark("k") == ["a", "b"]


def test_a_parked_task_may_come_to_ask_for_another_worker() -> None:
    made = keys("a")
    parked(made, "a", 0.0, Shape("one"))
    parked(made, "a", 0.0, Shape("two"))
    assert made.unpark("k") == ["a"]
    assert made.unpark("k") == []


@pytest.mark.parametrize("leave", ["end", "rest", "hold", "other key"])
def test_one_who_leaves_is_not_found_parked(leave: str) -> None:
    made = keys("a", "b", limit=2)
    parked(made, "a", 0.0)
    match leave:
        case "end":
            made.put("a", None)
        case "rest":
            made.rest("a")
        case "hold":
            made.hold("a", (0.0, 0))
        case _:
            assert made.put("a", Concurrency("other")) == {"k"}
    assert made.unpark("k") == []


def test_nothing_is_left_of_a_key_without_tasks() -> None:
    made = keys("a", "b", "c")
    made.hold("a", (0.0, 0))
    parked(made, "b", 1.0)
    for uid in "abc":
        made.put(uid, None)
    assert (made._keys, made._key_of) == ({}, {})


class CountedAge(tuple[float, int]):
    """An age that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: object) -> bool:
        CountedAge.compared += 1
        return tuple.__lt__(self, other)  # type: ignore[operator]


def test_a_task_that_only_waits_is_not_compared_with_all_others() -> None:
    """A thousand Tasks with one key are put without a look at the others each time."""
    made = keys("n", *(str(number) for number in range(1_000)))
    for number in range(1_000):
        made.wait(str(number), CountedAge((float(number), 0)))
    CountedAge.compared = 0
    assert made.conflict("n", CountedAge((2_000.0, 0)), OnConflict.QUEUE) == Conflict()
    assert CountedAge.compared == 0
