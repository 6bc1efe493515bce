"""What a TaskSchedule does next: which occurrences are started, which wait, which are missed.

An occurrence is known by its nominal time, in whole seconds since the epoch. The mark is the latest one that has been
dealt with in whatever way; none at or before it is ever looked at again. So a clock that is set back starts nothing
twice, and neither does a restart: the mark is part of the status, and until it is written there, the name of a Task,
which its occurrence determines, stops a second one.

Work is bounded: at most `EXAMINED` occurrences of the expressions are looked at, however long nobody looked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from heapq import merge
from itertools import groupby, takewhile
from typing import Final

from taskmaster.core.cron import Cron
from taskmaster.core.task import Instant

ON_TIME_SECONDS: Final = 10
"""How late a start may be without being a late one; an operator that is busy does not make occurrences missed."""

EXAMINED: Final = 1_000
"""How many occurrences one look goes back; of expressions, what lies before is not even counted as missed."""

MAX_WAITING: Final = 100
"""How many occurrences wait under Enqueue; further ones are missed."""

MAX_NAME: Final = 52
"""Characters of a schedule's name: eleven more, for the occurrence, and a Task's name is still a DNS label."""


class ConcurrencyPolicy(StrEnum):
    """What an occurrence does that comes while Tasks of its schedule are active."""

    ALLOW = "Allow"
    """It starts beside them."""
    FORBID = "Forbid"
    """It is missed."""
    REPLACE = "Replace"
    """It starts, and they end as Cancelled with the reason Replaced."""
    ENQUEUE = "Enqueue"
    """It waits until they have ended; one after the other, in order."""


class CatchUp(StrEnum):
    """Which occurrences are started that come to light late, for example after an outage of the operator."""

    NONE = "None"
    """None of them."""
    LATEST = "Latest"
    """The latest, unless a newer one is on time."""
    ALL = "All"
    """All, up to a limit."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A TaskSchedule as decisions need it. Times in seconds since the epoch."""

    uid: str
    name: str
    created: int
    crons: tuple[Cron, ...] = ()
    every_seconds: int | None = None
    start: int | None = None
    end: int | None = None
    max_runs: int | None = None
    suspend: bool = False
    policy: ConcurrencyPolicy = ConcurrencyPolicy.ALLOW
    starting_deadline_seconds: int | None = None
    catch_up: CatchUp = CatchUp.LATEST
    catch_up_limit: int = 10
    jitter_seconds: int = 0

    def after(self, instant: int) -> Iterator[int]:
        """Yield the occurrences after an instant, in order."""
        instant = max(instant, self._first - 1)
        walks = [cron.after(instant) for cron in self.crons]
        if self.every_seconds is not None:
            walks.append(self._beats_after(instant))
        for occurrence, _ in groupby(merge(*walks)):
            if self.end is not None and occurrence > self.end:
                return
            yield occurrence

    def before(self, instant: int) -> Iterator[int]:
        """Yield the occurrences before an instant, the latest first."""
        instant = instant if self.end is None else min(instant, self.end + 1)
        walks = [cron.before(instant) for cron in self.crons]
        if self.every_seconds is not None:
            walks.append(self._beats_before(instant))
        for occurrence, _ in groupby(merge(*walks, reverse=True)):
            if occurrence < self._first:
                return
            yield occurrence

    def due(self, occurrence: int) -> int:
        """Return when an occurrence is started: its nominal time and its jitter, always before the next one."""
        if not self.jitter_seconds:
            return occurrence
        following = next_occurrence(self, occurrence)
        room = self.jitter_seconds + 1 if following is None else min(self.jitter_seconds + 1, following - occurrence)
        return occurrence + _hash(f"{self.uid}/{occurrence}") % room

    @property
    def _first(self) -> int:
        return self.created if self.start is None else self.start

    def _beats_after(self, instant: int) -> Iterator[int]:
        every = self.every_seconds or 1
        beat = self._first + max(0, (instant - self._first) // every + 1) * every
        while True:
            yield beat
            beat += every

    def _beats_before(self, instant: int) -> Iterator[int]:
        every = self.every_seconds or 1
        beat = self._first + (instant - 1 - self._first) // every * every
        while beat >= self._first:
            yield beat
            beat -= every


@dataclass(frozen=True, slots=True)
class Record:
    """What a schedule remembers of its past."""

    mark: int
    waiting: tuple[int, ...] = ()
    """Occurrences that wait for the active Tasks to end, the oldest first; all at or before the mark."""
    runs: int = 0
    missed: int = 0
    latest: int | None = None
    """The latest occurrence that was started."""


@dataclass(frozen=True, slots=True)
class Start:
    """An occurrence to start now, and what to remember once that has happened."""

    occurrence: int
    record: Record


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now."""

    record: Record
    """What to remember before anything is started."""
    starts: tuple[Start, ...] = ()
    """To be carried out in order; after one that fails, the rest is planned anew."""

    @property
    def last(self) -> Record:
        """What to remember when everything has been started."""
        return self.starts[-1].record if self.starts else self.record


def plan(schedule: Schedule, record: Record, *, active: bool, now: Instant) -> Plan:
    """Decide which occurrences start now. `active` says whether a Task of the schedule has not finished."""
    if done(schedule, record):
        return Plan(replace(record, waiting=()))
    if schedule.suspend:
        return Plan(replace(record, waiting=(), missed=record.missed + len(record.waiting)))
    due, missed, mark = _arrived(schedule, record.mark, now)
    waiting = tuple(each for each in record.waiting if _in_time(schedule, each, now))
    missed += len(record.waiting) - len(waiting)
    match schedule.policy:
        case ConcurrencyPolicy.ALLOW:
            chosen: tuple[int, ...] = (*waiting, *due)
            waiting = ()
        case ConcurrencyPolicy.FORBID | ConcurrencyPolicy.REPLACE:
            refused = active and schedule.policy is ConcurrencyPolicy.FORBID
            chosen = () if refused else (*waiting, *due)[-1:]
            missed += len(waiting) + len(due) - len(chosen)
            waiting = ()
        case ConcurrencyPolicy.ENQUEUE:
            queue = (*waiting, *due)
            chosen, waiting = ((), queue) if active else (queue[:1], queue[1:])
            missed += max(0, len(waiting) - MAX_WAITING)
            waiting = waiting[:MAX_WAITING]
    if schedule.max_runs is not None:
        chosen = chosen[: max(0, schedule.max_runs - record.runs)]
        waiting = waiting if record.runs + len(chosen) < schedule.max_runs else ()
    counted = replace(record, missed=record.missed + missed)
    return _started(counted, chosen, waiting, mark, enqueued=schedule.policy is ConcurrencyPolicy.ENQUEUE)


def next_due(schedule: Schedule, record: Record) -> int | None:
    """Return when the next occurrence is due; None if there is none, or the schedule is suspended or done."""
    if schedule.suspend or done(schedule, record):
        return None
    occurrence = next_occurrence(schedule, record.mark)
    return None if occurrence is None else schedule.due(occurrence)


def done(schedule: Schedule, record: Record) -> bool:
    """Whether the schedule has had all the runs that it may have."""
    return schedule.max_runs is not None and record.runs >= schedule.max_runs


@lru_cache(maxsize=4_096)
def next_occurrence(schedule: Schedule, instant: int) -> int | None:
    """Return the first occurrence after an instant; None if there is none within 50 years."""
    return next(schedule.after(instant), None)


def task_name(schedule: str, occurrence: int) -> str:
    """Return the name of the Task of an occurrence: a second one would have the same, and be refused."""
    return f"{schedule}-{occurrence}"


def occurrence_of(schedule: str, task: str) -> int | None:
    """Return the occurrence that a Task was created for; None if it is another one."""
    prefix, _, number = task.rpartition("-")
    return int(number) if prefix == schedule and number.isdecimal() and len(number) == 10 else None


def run_now_name(schedule: str, uid: str, value: str) -> str:
    """Return the name of the Task that a person asked for by a value."""
    return f"{schedule}-r{_hash(f'{uid}/now/{value}') % 10**9:09d}"


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


def _in_time(schedule: Schedule, occurrence: int, now: float) -> bool:
    deadline = schedule.starting_deadline_seconds
    return deadline is None or now - schedule.due(occurrence) <= deadline


def _arrived(schedule: Schedule, mark: int, now: float) -> tuple[tuple[int, ...], int, int]:
    """Return the occurrences to be started, how many others have become due since the mark, and the new mark."""
    first = next_occurrence(schedule, mark)
    if first is None or schedule.due(first) > now:
        return (), 0, mark
    found: list[int] = []
    for occurrence in schedule.before(int(now) + 1):
        if occurrence <= mark or len(found) >= EXAMINED:
            break
        if found or schedule.due(occurrence) <= now:  # only the last one can still be before its jitter
            found.append(occurrence)
    if not found:
        return (), 0, mark
    uncounted = _beats_between(schedule, mark, found[-1])
    # The latest is first, and the earlier an occurrence, the earlier it was due.
    in_time = list(takewhile(lambda each: _in_time(schedule, each, now), found))
    on_time = list(takewhile(lambda each: now - schedule.due(each) <= ON_TIME_SECONDS, in_time))
    match schedule.catch_up:
        case CatchUp.NONE:
            chosen = on_time
        case CatchUp.LATEST:
            chosen = on_time or in_time[:1]
        case CatchUp.ALL:
            chosen = in_time[: max(schedule.catch_up_limit, len(on_time))]
    return tuple(reversed(chosen)), len(found) - len(chosen) + uncounted, found[0]


def _beats_between(schedule: Schedule, low: int, high: int) -> int:
    """Return how many multiples of the interval lie strictly between two instants."""
    every, first = schedule.every_seconds, schedule.created if schedule.start is None else schedule.start
    if every is None:
        return 0
    low = max(low, first - 1)
    return max(0, (high - 1 - first) // every - (low - first) // every)


def _started(record: Record, chosen: tuple[int, ...], waiting: tuple[int, ...], mark: int, *, enqueued: bool) -> Plan:
    """Return the plan that starts `chosen` in order.

    As long as one has not been started it waits, if it is enqueued, or else stays beyond the mark: it is judged anew.
    """
    states = []
    for index in range(len(chosen) + 1):
        rest = chosen[index:]
        fresh = () if enqueued else tuple(each for each in rest if each > record.mark)
        state = replace(
            record,
            mark=fresh[0] - 1 if fresh else max(mark, record.mark),
            waiting=(*(each for each in rest if each not in fresh), *waiting),
            runs=record.runs + index,
        )
        if index:
            state = replace(state, latest=max(chosen[:index] + ((record.latest,) if record.latest else ())))
        states.append(state)
    return Plan(states[0], tuple(map(Start, chosen, states[1:])))
