import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import EPOCH

from taskmaster.core.bucket import TokenBucket
from taskmaster.core.queue import RateLimit
from taskmaster.core.task import Instant


def at(seconds: float) -> Instant:
    return Instant(EPOCH + seconds)


def bucket(rate: float, burst: int) -> TokenBucket:
    return TokenBucket(RateLimit(rate, burst), now=at(0))


def spend(made: TokenBucket, seconds: float) -> int:
    """Take all that is there at a time."""
    number = 0
    while not made.wait(now=at(seconds)):
        made.take(now=at(seconds))
        number += 1
    return number


def test_the_burst_is_there_at_first_and_again_after_a_quiet_time_but_no_more() -> None:
    made = bucket(2.0, 5)
    assert [spend(made, seconds) for seconds in (0, 0, 0.5, 1.5, 100, 1000)] == [5, 0, 1, 2, 5, 5]


def test_one_who_comes_back_when_told_finds_a_token() -> None:
    made = bucket(1 / 3, 1)
    spend(made, 0)
    seconds = 0.0
    for _ in range(1_000):
        seconds += made.wait(now=at(seconds))
        assert spend(made, seconds) == 1
    assert seconds == pytest.approx(3_000)


def test_a_clock_that_is_set_back_costs_no_waiting_time() -> None:
    made = bucket(1.0, 1)
    assert spend(made, 1_000) == 1
    assert made.wait(now=at(0)) == 1.0
    assert spend(made, 1) == 1


def test_a_lower_burst_takes_what_is_saved_and_a_higher_one_gives_nothing() -> None:
    made = bucket(1.0, 10)
    made.change(RateLimit(1.0, 3), now=at(0))
    made.change(RateLimit(1.0, 10), now=at(0))
    assert spend(made, 0) == 3


def test_a_new_rate_holds_from_its_moment_on() -> None:
    made = bucket(1.0, 10)
    spend(made, 0)
    made.change(RateLimit(0.1, 10), now=at(4))
    assert spend(made, 4) == 4
    assert spend(made, 14) == 1


@given(
    st.floats(0.01, 100),
    st.integers(1, 20),
    st.lists(st.floats(0, 50), min_size=1, max_size=30),
)
def test_no_stretch_of_time_sees_more_than_the_burst_and_its_rate(rate: float, burst: int, pauses: list[float]) -> None:
    made, seconds, starts = bucket(rate, burst), 0.0, list[tuple[float, int]]()
    for pause in pauses:
        seconds += pause
        starts.append((seconds, spend(made, seconds)))
    for first, (begin, _) in enumerate(starts):
        for last in range(first, len(starts)):
            taken = sum(number for _, number in starts[first : last + 1])
            assert taken <= burst + rate * (starts[last][0] - begin) + 1e-3
