import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import EPOCH

from taskmaster.core.shares import AHEAD_SECONDS, HALF_LIFE_SECONDS, Shares
from taskmaster.core.task import Instant


def at(seconds: float) -> Instant:
    return Instant(EPOCH + seconds)


def test_the_queue_that_has_used_less_is_next_and_ties_go_by_name() -> None:
    shares = Shares()
    shares.compete({"a": 1, "b": 1}, now=at(0))
    assert shares.next(["b", "a"], now=at(0)) == "a"
    shares.hold("a", 1, now=at(0))
    assert shares.next(["b", "a"], now=at(0)) == "b"
    shares.hold("a", -1, now=at(10))
    assert shares.next(["b", "a"], now=at(10)) == "b", "it has had ten slot-seconds"


def test_decisions_of_one_moment_spread_by_weight() -> None:
    shares, taken = Shares(), {"a": 0, "b": 0, "c": 0}
    shares.compete({"a": 1, "b": 1, "c": 2}, now=at(0))
    for _ in range(40):
        queue = shares.next(taken, now=at(0))
        shares.hold(queue, 1, now=at(0))
        taken[queue] += 1
    assert taken == {"a": 10, "b": 10, "c": 20}


def test_a_task_with_more_slots_counts_for_more() -> None:
    shares, taken = Shares(), {"big": 0, "small": 0}
    shares.compete({"big": 1, "small": 1}, now=at(0))
    for _ in range(50):
        queue = shares.next(taken, now=at(0))
        shares.hold(queue, 4 if queue == "big" else 1, now=at(0))
        taken[queue] += 1
    assert taken == {"big": 10, "small": 40}


def test_what_was_used_is_forgotten_by_half_in_each_half_life() -> None:
    shares = Shares()
    shares.compete({"a": 1}, now=at(0))
    shares.hold("a", 4, now=at(0))
    shares.hold("a", -4, now=at(100))
    used = shares.rank("a", now=at(100))
    assert used == pytest.approx(400, rel=0.15)
    assert shares.rank("a", now=at(100 + HALF_LIFE_SECONDS)) == pytest.approx(used / 2)


def test_a_queue_that_begins_to_compete_gets_no_credit_for_its_absence() -> None:
    shares = Shares()
    shares.compete({"old": 1}, now=at(0))
    shares.hold("old", 1, now=at(0))
    shares.compete({"old": 1, "new": 1}, now=at(200))
    shares.hold("old", -1, now=at(200))
    assert shares.rank("new", now=at(200)) == pytest.approx(shares.rank("old", now=at(200)))


@pytest.mark.parametrize("seconds", [0.01, 0.1, 1.0, 20.0])
def test_a_queue_that_begins_to_compete_has_its_share_from_the_first_free_slots(seconds: float) -> None:
    shares, slots = Shares(), 8
    shares.compete({"light": 1}, now=at(0))
    shares.hold("light", slots, now=at(0))
    ends = [(seconds * (1 + slot / slots), "light") for slot in range(slots)]
    weights = {"light": 1, "heavy": 3}
    taken = dict.fromkeys(weights, 0)
    for _ in range(10 * slots):
        (now, ended), *ends = sorted(ends)
        shares.hold(ended, -1, now=at(now))
        shares.compete(weights, now=at(now))
        queue = shares.next(weights, now=at(now))
        shares.hold(queue, 1, now=at(now))
        taken[queue] += 1
        ends.append((now + seconds, queue))
    assert taken["heavy"] / sum(taken.values()) == pytest.approx(0.75, abs=0.1)


def test_a_queue_that_comes_back_soon_keeps_what_it_owes() -> None:
    shares = Shares()
    shares.compete({"a": 1, "b": 1}, now=at(0))
    shares.hold("a", 10, now=at(0))
    shares.hold("a", -10, now=at(60))
    shares.compete({"b": 1}, now=at(60))
    shares.compete({"a": 1, "b": 1}, now=at(61))
    assert shares.next(["a", "b"], now=at(61)) == "b"


def test_a_clock_that_is_set_back_neither_gives_nor_takes() -> None:
    shares = Shares()
    shares.compete({"a": 1}, now=at(0))
    shares.hold("a", 1, now=at(0))
    before = shares.rank("a", now=at(100))
    assert shares.rank("a", now=at(50)) == before
    shares.hold("a", -1, now=at(50))
    assert shares.rank("a", now=at(60)) == before - AHEAD_SECONDS


def test_queues_that_are_gone_and_have_nothing_left_are_forgotten() -> None:
    shares = Shares()
    for number in range(100):
        shares.compete({f"q{number}": 1, "stays": 1}, now=at(number))
        shares.hold(f"q{number}", 1, now=at(number))
        shares.hold(f"q{number}", -1, now=at(number + 1))
    shares.compete({"stays": 1}, now=at(100_000))
    assert set(shares._usages) == {"stays"}


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 1000), min_size=1),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 100), st.floats(0, 1e4)), max_size=30),
)
def test_ranks_are_never_negative_and_bounded(weights: dict[str, int], uses: list[tuple[str, int, float]]) -> None:
    shares, seconds = Shares(), 0.0
    for queue, slots, duration in uses:
        shares.compete(weights, now=at(seconds))
        shares.hold(queue, slots, now=at(seconds))
        seconds += duration
        shares.hold(queue, -slots, now=at(seconds))
    bound = 100 * (HALF_LIFE_SECONDS * 2 + AHEAD_SECONDS) * 1000
    assert all(-1e-6 <= shares.rank(queue, now=at(seconds)) <= bound for queue in weights)
