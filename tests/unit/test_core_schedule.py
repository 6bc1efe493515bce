"""What a schedule starts, lets wait, or misses: policies, outages, clocks that jump; and what holds whatever comes."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskmaster.core.cron import parse
from taskmaster.core.schedule import (
    EXAMINED,
    MAX_WAITING,
    CatchUp,
    ConcurrencyPolicy,
    Plan,
    Record,
    Schedule,
    next_due,
    occurrence_of,
    plan,
    run_now_name,
    task_name,
)
from taskmaster.core.task import Instant

T0 = 1_800_000_000
"""A whole hour in UTC."""

UTC = ZoneInfo("UTC")
EVERY_MINUTE = parse("* * * * *", UTC)
POLICIES = list(ConcurrencyPolicy)


def schedule(**fields: object) -> Schedule:
    given: dict[str, object] = {"uid": "u", "name": "s", "created": T0, "every_seconds": 60, **fields}
    return Schedule(**given)  # type: ignore[arg-type]


def planned(of: Schedule, record: Record | None = None, *, at: float, active: bool = False, mark: int = T0) -> Plan:
    return plan(of, record or Record(mark), active=active, now=Instant(T0 + at))


def started(result: Plan) -> list[int]:
    """Occurrences started, in seconds from the beginning."""
    return [start.occurrence - T0 for start in result.starts]


def test_nothing_happens_before_the_first_occurrence() -> None:
    assert planned(schedule(), at=59) == Plan(Record(T0))
    assert next_due(schedule(), Record(T0)) == T0 + 60


def test_an_occurrence_is_started_once_and_remembered() -> None:
    result = planned(schedule(), at=60)
    assert started(result) == [60]
    assert result.last == Record(T0 + 60, runs=1, latest=T0 + 60)
    assert planned(schedule(), result.last, at=60.5).starts == ()
    assert next_due(schedule(), result.last) == T0 + 120


def test_an_occurrence_that_could_not_be_started_is_due_again() -> None:
    result = planned(schedule(), at=60)
    assert result.record == Record(T0 + 59)
    assert started(planned(schedule(), result.record, at=65)) == [60]


def test_a_clock_set_back_an_hour_starts_nothing_twice() -> None:
    record, fired = Record(T0), []
    clock = [*range(0, 7_200, 30), *range(3_600, 10_800, 30)]
    for at in clock:
        result = planned(schedule(), record, at=at)
        record = result.last
        fired += started(result)
    assert fired == list(range(60, 10_800, 60))


LATE = [
    (CatchUp.NONE, {}, [], 5),
    (CatchUp.LATEST, {}, [300], 4),
    (CatchUp.ALL, {}, [60, 120, 180, 240, 300], 0),
    (CatchUp.ALL, {"catch_up_limit": 2}, [240, 300], 3),
    (CatchUp.LATEST, {"starting_deadline_seconds": 30}, [], 5),
    (CatchUp.LATEST, {"starting_deadline_seconds": 40}, [300], 4),
    (CatchUp.ALL, {"starting_deadline_seconds": 100}, [240, 300], 3),
    (CatchUp.ALL, {"policy": ConcurrencyPolicy.FORBID}, [300], 4),
    (CatchUp.ALL, {"policy": ConcurrencyPolicy.REPLACE}, [300], 4),
    (CatchUp.ALL, {"max_runs": 2}, [60, 120], 0),
    (CatchUp.ALL, {"end": T0 + 150}, [60, 120], 0),
    (CatchUp.ALL, {"start": T0 + 200}, [200, 260, 320], 0),
]


@pytest.mark.parametrize(("catch_up", "fields", "starts", "missed"), LATE, ids=lambda value: str(value)[:50])
def test_after_an_outage_catch_up_decides(
    catch_up: CatchUp, fields: dict[str, object], starts: list[int], missed: int
) -> None:
    result = planned(schedule(catch_up=catch_up, **fields), at=335)
    assert started(result) == starts
    assert result.last.missed == missed
    assert planned(schedule(catch_up=catch_up, **fields), result.last, at=336).starts == ()


def test_what_is_on_time_is_started_whatever_was_late() -> None:
    assert started(planned(schedule(catch_up=CatchUp.NONE), at=303)) == [300]
    assert started(planned(schedule(catch_up=CatchUp.LATEST), at=303)) == [300]
    for catch_up in CatchUp:
        busy = schedule(every_seconds=1, catch_up=catch_up, catch_up_limit=1)
        assert started(planned(busy, at=3.5)) == [1, 2, 3]


def test_forbid_misses_what_comes_while_a_task_is_active() -> None:
    forbid = schedule(policy=ConcurrencyPolicy.FORBID)
    result = planned(forbid, at=60, active=True)
    assert (started(result), result.last) == ([], Record(T0 + 60, missed=1))
    assert started(planned(forbid, result.last, at=119)) == []
    assert started(planned(forbid, result.last, at=120)) == [120]


def test_replace_starts_beside_what_is_active() -> None:
    assert started(planned(schedule(policy=ConcurrencyPolicy.REPLACE), at=60, active=True)) == [60]


def test_enqueued_occurrences_are_started_one_after_the_other() -> None:
    enqueue = schedule(policy=ConcurrencyPolicy.ENQUEUE)
    record, fired = Record(T0), []
    for at, active in ((60, False), (120, True), (180, True), (200, False), (201, True), (230, False), (235, False)):
        result = planned(enqueue, record, at=at, active=active)
        fired.append(started(result))
        record = result.last
    assert fired == [[60], [], [], [120], [], [180], []]
    assert record == Record(T0 + 180, runs=3, latest=T0 + 180)


def test_an_enqueued_occurrence_that_could_not_be_started_waits_on() -> None:
    enqueue = schedule(policy=ConcurrencyPolicy.ENQUEUE)
    record = Record(T0 + 120, waiting=(T0 + 60, T0 + 120))
    result = planned(enqueue, record, at=130)
    assert result.record == record
    assert result.last.waiting == (T0 + 120,)


def test_the_queue_is_bounded_and_counts_what_it_does_not_take() -> None:
    enqueue = schedule(policy=ConcurrencyPolicy.ENQUEUE, every_seconds=1)
    record = Record(T0)
    for at in range(1, MAX_WAITING + 6):
        record = planned(enqueue, record, at=at, active=True).last
    assert record.waiting == tuple(range(T0 + 1, T0 + MAX_WAITING + 1))
    assert record.missed == 5


def test_a_starting_deadline_ends_the_wait() -> None:
    enqueue = schedule(policy=ConcurrencyPolicy.ENQUEUE, starting_deadline_seconds=100)
    record = Record(T0 + 120, waiting=(T0 + 60, T0 + 120))
    result = planned(enqueue, record, at=165, active=True)
    assert (result.last.waiting, result.last.missed) == ((T0 + 120,), 1)


def test_a_suspended_schedule_starts_nothing_and_empties_its_queue() -> None:
    enqueue = schedule(policy=ConcurrencyPolicy.ENQUEUE, suspend=True)
    result = planned(enqueue, Record(T0 + 60, waiting=(T0 + 60,)), at=130)
    assert result == Plan(Record(T0 + 60, missed=1))
    assert next_due(enqueue, result.last) is None


def test_max_runs_ends_the_schedule() -> None:
    thrice = schedule(max_runs=3)
    record = Record(T0 + 120, runs=2)
    result = planned(thrice, record, at=180)
    assert started(result) == [180]
    assert next_due(thrice, result.last) is None
    assert planned(thrice, result.last, at=240) == Plan(result.last)


def test_an_end_time_ends_the_schedule_and_includes_its_own_second() -> None:
    ends = schedule(end=T0 + 120)
    assert next_due(ends, Record(T0 + 60)) == T0 + 120
    assert next_due(ends, Record(T0 + 120)) is None


def test_intervals_are_anchored_at_the_start_time_and_do_not_drift() -> None:
    anchored = schedule(every_seconds=7, start=T0 + 5)
    assert [each - T0 for each in islice(anchored.after(T0), 4)] == [5, 12, 19, 26]
    far = T0 + 5 + 7 * 10**9
    assert next(anchored.after(far - 1)) == far
    assert next(anchored.after(far)) == far + 7
    assert next(anchored.before(far)) == far - 7


def test_a_start_time_in_the_past_is_an_anchor_and_not_a_debt() -> None:
    anchored = schedule(every_seconds=600, start=T0 - 86_400 - 100)
    assert started(planned(anchored, at=499)) == []
    assert started(planned(anchored, at=500)) == [500]


def test_several_schedules_occur_together_once() -> None:
    both = schedule(every_seconds=None, crons=(parse("*/10 * * * *", UTC), parse("*/15 * * * *", UTC)))
    assert [(each - T0) // 60 for each in islice(both.after(T0), 5)] == [10, 15, 20, 30, 40]
    assert [(each - T0) // 60 for each in islice(both.before(T0 + 2_401), 5)] == [40, 30, 20, 15, 10]


JITTERED = schedule(every_seconds=60, jitter_seconds=45)


def test_jitter_is_the_same_each_time_and_differs_between_schedules_and_occurrences() -> None:
    delays = [JITTERED.due(occurrence) - occurrence for occurrence in islice(JITTERED.after(T0), 50)]
    assert delays == [JITTERED.due(occurrence) - occurrence for occurrence in islice(JITTERED.after(T0), 50)]
    assert all(0 <= delay <= 45 for delay in delays)
    assert len(set(delays)) > 10
    other = replace(JITTERED, uid="v")
    assert delays != [other.due(occurrence) - occurrence for occurrence in islice(other.after(T0), 50)]


def test_jitter_never_passes_the_next_occurrence() -> None:
    wide = schedule(every_seconds=10, jitter_seconds=3_600)
    dues = [wide.due(occurrence) for occurrence in islice(wide.after(T0), 100)]
    assert dues == sorted(set(dues))


def test_an_occurrence_waits_for_its_jitter() -> None:
    due = next_due(JITTERED, Record(T0))
    assert due is not None
    assert due > T0 + 60
    assert started(planned(JITTERED, at=due - T0 - 1)) == []
    assert started(planned(JITTERED, at=due - T0)) == [60]


@pytest.mark.parametrize("catch_up", list(CatchUp))
@pytest.mark.parametrize("policy", POLICIES)
def test_a_year_of_seconds_that_nobody_looked_costs_milliseconds_and_is_counted(
    policy: ConcurrencyPolicy, catch_up: CatchUp
) -> None:
    year = 365 * 86_400
    busy = schedule(every_seconds=1, policy=policy, catch_up=catch_up, catch_up_limit=5)
    before = time.process_time()
    result = planned(busy, at=year)
    assert time.process_time() - before < 1.0
    last = result.last
    assert last.runs + last.missed + len(last.waiting) == year
    assert last.mark == T0 + year


def test_a_year_of_minutes_that_nobody_looked_is_bounded() -> None:
    result = planned(schedule(every_seconds=None, crons=(EVERY_MINUTE,)), at=365 * 86_400)
    assert started(result) == [365 * 86_400]
    assert result.last.missed == EXAMINED - 1


def test_a_schedule_that_does_not_occur_any_more_is_quiet() -> None:
    leap = schedule(every_seconds=None, crons=(parse("0 0 29 2 *", UTC),), end=T0 + 3_600)
    assert next_due(leap, Record(T0)) is None
    assert planned(leap, at=10**9) == Plan(Record(T0))


def test_names_tell_the_occurrence() -> None:
    assert task_name("a-b", T0) == "a-b-1800000000"
    assert occurrence_of("a-b", "a-b-1800000000") == T0
    assert occurrence_of("a", "a-b-1800000000") is None
    assert occurrence_of("a-b", "a-b-c") is None
    assert occurrence_of("a-b", run_now_name("a-b", "u", "x")) is None
    assert len(task_name("x" * 52, T0)) == 63


def test_a_run_asked_for_has_a_name_of_its_own_per_value() -> None:
    longest = run_now_name("x" * 52, "u", "y" * 10_000)
    assert len(longest) == 63
    assert run_now_name("s", "u", "1") == run_now_name("s", "u", "1")
    assert len({run_now_name("s", uid, value) for uid in "uv" for value in "12"}) == 4


SCHEDULES = st.builds(
    schedule,
    every_seconds=st.sampled_from([None, 7, 60, 3_600]),
    crons=st.sampled_from([(EVERY_MINUTE,), (parse("*/5 * * * *", UTC), parse("3 * * * *", UTC))]),
    policy=st.sampled_from(POLICIES),
    catch_up=st.sampled_from(CatchUp),
    catch_up_limit=st.integers(1, 100),
    jitter_seconds=st.sampled_from([0, 5, 100]),
    starting_deadline_seconds=st.sampled_from([None, 5, 200]),
    max_runs=st.sampled_from([None, 3]),
)
"""Anything may happen between two looks: time passes or the clock is set back, a create fails, the operator restarts
with the status as it was last written, Tasks end."""

STEPS = st.lists(
    st.tuples(
        st.integers(-4_000, 4_000),
        st.booleans(),
        st.sampled_from(["fine", "create fails", "crash before the status", "crash after the status"]),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=100)
@given(SCHEDULES, STEPS)
def test_no_occurrence_is_started_twice_or_early_and_the_record_only_grows(
    of: Schedule, steps: list[tuple[int, bool, str]]
) -> None:
    record = Record(T0)
    created: set[int] = set()
    forgotten: set[int] = set()  # what was created just before a crash: its name stops a second one
    now = latest = float(T0)
    for shift, active, event in steps:
        now += shift
        latest = max(latest, now)
        result = plan(of, record, active=active, now=Instant(now))
        assert len(result.last.waiting) <= MAX_WAITING
        assert of.policy is ConcurrencyPolicy.ALLOW or len(result.starts) <= 1
        after = result.record
        for start in result.starts:
            if event == "create fails":
                break
            assert start.occurrence not in created - forgotten
            assert of.due(start.occurrence) <= latest
            created.add(start.occurrence)
            after = start.record
        if event == "crash before the status":
            forgotten |= {start.occurrence for start in result.starts}
            continue
        assert after.mark >= record.mark
        assert after.missed >= record.missed
        record = after


@settings(max_examples=100)
@given(st.sampled_from([7, 60, 3_600]), STEPS)
def test_catching_up_with_all_loses_none_within_the_limit(every: int, steps: list[tuple[int, bool, str]]) -> None:
    of = schedule(every_seconds=every, catch_up=CatchUp.ALL, catch_up_limit=100)
    written = remembered = Record(T0)
    created: set[int] = set()
    now = latest = float(T0)
    for shift, active, event in steps:
        now = min(now + shift, (remembered.mark // every + 100) * every)  # no more than the limit at a time
        latest = max(latest, now)
        result = plan(of, remembered, active=active, now=Instant(now))
        remembered = result.record
        for start in result.starts:
            if event == "create fails" and start.occurrence % 2:
                break
            created.add(start.occurrence)
            remembered = start.record
        if event == "crash before the status":
            remembered = written
        written = remembered
    while True:
        result = plan(of, remembered, active=False, now=Instant(latest))
        created |= {start.occurrence for start in result.starts}
        remembered = result.last
        if not result.starts:
            break
    assert created == set(range(T0 + every, int(latest) + 1, every))
    assert remembered.missed == 0


@settings(max_examples=80)
@given(STEPS)
def test_enqueue_starts_all_in_order_and_never_beside_another(steps: list[tuple[int, bool, str]]) -> None:
    of = schedule(policy=ConcurrencyPolicy.ENQUEUE, catch_up=CatchUp.ALL, catch_up_limit=100)
    record, order = Record(T0), []
    now = float(T0)
    for shift, active, _ in steps:
        now += shift
        result = plan(of, record, active=active, now=Instant(now))
        assert not (active and result.starts)
        order += [start.occurrence for start in result.starts]
        record = result.last
    assert order == sorted(set(order))
