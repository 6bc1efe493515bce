"""Backlog of one queue: the Tasks that could run now, in the order in which they should.

Three questions, asked in this order. Which *priority*? The one whose oldest Task is first when each point of priority
counts as `aging_seconds` of waiting: all wait at the same pace, so that order never changes and needs no clock. Whose
*turn* within it? Start-time fair queueing (Goyal, Vin, Cheng 1996) over the fairness keys: each key has a tag that
grows by the slots of what it starts, the smallest tag is next, and a key that comes back does not get credit for its
absence. Which Task of the key? The oldest. Every `AGE_TURN`-th start goes to the oldest Task of the priority whatever
its key, so that a stream of ever new keys cannot starve anybody.

Tasks of one shape stand in a *lane*, and lanes whose shapes are alike to workers stand side by side. What does not fit
at the moment is known for all of these (`block`), and they are passed over without a look at their Tasks until
`unblock`. No operation sorts or scans Tasks: all are O(log n) and O(lanes that are not blocked).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from taskmaster.core.capacity import Shape
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.queue import AGING_SECONDS
from taskmaster.core.task import Instant, Task

AGE_TURN: Final = 8

_TAGS_KEPT: Final = 1_024
"""Tags remembered beyond the number of Tasks. Keys may be ever new ones, so the one whose last start is longest ago is
forgotten: by then all others have had a turn."""

Age = tuple[float, int]
"""Since when a Task waits, and the order of first observation: times of creation have whole seconds, so ties are
common."""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a Task stands."""

    task: Task
    shape: Shape
    age: Age


class _Level:
    """Tasks of one shape and one priority."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyedHeap[Age]] = {}
        """By fairness key: uids by age."""
        self.ages: KeyedHeap[Age] = KeyedHeap()
        """Fairness keys by their oldest Task."""
        self.turns: KeyedHeap[tuple[float, float, int]] = KeyedHeap()
        """Fairness keys by tag, then by their oldest Task."""

    def put(self, key: str, uid: str, age: Age, tag: float) -> None:
        """Add a Task; `tag` is for a key that has none here."""
        self.keys.setdefault(key, KeyedHeap()).put(uid, age)
        self.turn(key, self.tag_of(key, tag))

    def discard(self, key: str, uid: str) -> None:
        heap = self.keys[key]
        heap.discard(uid)
        if len(heap):
            self.turn(key, self.tag_of(key, 0.0))
        else:
            del self.keys[key]
            self.ages.discard(key)
            self.turns.discard(key)

    def tag_of(self, key: str, default: float) -> float:
        turn = self.turns.key_of(key)
        return default if turn is None else turn[0]

    def turn(self, key: str, tag: float) -> None:
        """Put a key where it belongs: its tag, or its oldest Task, has changed."""
        first = self.keys[key].first()
        assert first is not None, "a key without Tasks is dropped"
        self.ages.put(key, first[0])
        self.turns.put(key, (tag, *first[0]))

    def oldest(self) -> Age:
        first = self.ages.first()
        assert first is not None, "a level without Tasks is dropped"
        return first[0]


class _Lane:
    """Tasks of one shape."""

    def __init__(self, like: Shape) -> None:
        self.like = like
        self.levels: dict[int, _Level] = {}
        self.ranks: KeyedHeap[tuple[float, int]] = KeyedHeap()
        """Priorities (as texts) by when their oldest Task would have come, had it had priority 0; the higher first."""
        self.first = (math.inf, 0)
        """The first of the ranks, at hand: each decision looks at that of each open lane."""
        self.count = 0

    def put(self, priority: int, rank: float) -> None:
        self.ranks.put(str(priority), (rank, -priority))
        self._look()

    def discard(self, priority: int) -> None:
        del self.levels[priority]
        self.ranks.discard(str(priority))
        self._look()

    def _look(self) -> None:
        first = self.ranks.first()
        self.first = (math.inf, 0) if first is None else first[0]


class Backlog:
    """Waiting Tasks of one queue, none of which waits for anything but a worker."""

    def __init__(
        self, *, aging_seconds: int = AGING_SECONDS, like: Callable[[Shape], Shape] = lambda shape: shape
    ) -> None:
        self._aging = aging_seconds
        self._like = like
        """Gives the shape that stands for all that can be placed when and only when this one can."""
        self._places: dict[str, _Place] = {}
        self._lanes: dict[Shape, _Lane] = {}
        self._open: dict[Shape, dict[Shape, _Lane]] = {}
        """Lanes side by side, by the shape that stands for them; the others are blocked."""
        self._blocked: dict[Shape, dict[Shape, _Lane]] = {}
        self._tags: OrderedDict[str, float] = OrderedDict()
        """By key, the one that has started last at the end."""
        self._virtual_time = 0.0
        self._starts = 0

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, uid: str) -> bool:
        return uid in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def put(self, task: Task, shape: Shape, order: int) -> None:
        """Add a Task, or take note of its newer version.

        Args:
            task: The Task.
            shape: What it asks of a worker.
            order: Its place among Tasks of the same age, such as a count of first observations.
        """
        age = (float(task.since), order)
        known = self._places.get(task.uid)
        if known is not None:
            if (known.shape, known.age) == (shape, age) and _line(known.task) == _line(task):
                self._places[task.uid] = _Place(task, shape, age)
                return
            self.discard(task.uid)
        self._places[task.uid] = _Place(task, shape, age)
        lane = self._lanes.get(shape)
        if lane is None:
            lane = self._lanes[shape] = _Lane(self._like(shape))
            groups = self._blocked if lane.like in self._blocked else self._open
            groups.setdefault(lane.like, {})[shape] = lane
        level = lane.levels.get(task.priority)
        if level is None:
            level = lane.levels[task.priority] = _Level()
        level.put(task.fairness_key, task.uid, age, max(self._virtual_time, self._tags.get(task.fairness_key, 0.0)))
        lane.count += 1
        self._rank(lane, task.priority)

    def discard(self, uid: str) -> None:
        """Forget a Task, if it is here."""
        place = self._places.pop(uid, None)
        if place is None:
            return
        task, lane = place.task, self._lanes[place.shape]
        level = lane.levels[task.priority]
        level.discard(task.fairness_key, uid)
        lane.count -= 1
        if level.keys:
            self._rank(lane, task.priority)
            return
        lane.discard(task.priority)
        if not lane.count:
            del self._lanes[place.shape]
            groups = self._blocked if lane.like in self._blocked else self._open
            del groups[lane.like][place.shape]
            if not groups[lane.like]:
                del groups[lane.like]

    def head(self) -> Task | None:
        """Return the Task that should start next, of those whose lane is not blocked; None when there is none."""
        lanes = [lane for alike in self._open.values() for lane in alike.values()]
        if not lanes:
            return None
        _, negative = min([lane.first for lane in lanes])
        levels = [level for lane in lanes if (level := lane.levels.get(-negative)) is not None]
        level = min(levels, key=_Level.oldest if self._by_age else self._turn)
        first_key = level.ages.first() if self._by_age else level.turns.first()
        assert first_key is not None, "a level without Tasks is dropped"
        first_uid = level.keys[first_key[1]].first()
        assert first_uid is not None, "a key without Tasks is dropped"
        return self._places[first_uid[1]].task

    def start(self, uid: str) -> None:
        """Take off the Task that starts: it was the head, and its key has had a turn."""
        place = self._places[uid]
        key = place.task.fairness_key
        tag = self._lanes[place.shape].levels[place.task.priority].tag_of(key, 0.0)
        if not self._by_age:
            self._virtual_time = max(self._virtual_time, tag)
        self._starts += 1
        self._tags[key] = max(tag, self._tags.pop(key, 0.0)) + place.shape.slots
        self.discard(uid)
        while len(self._tags) > len(self._places) + _TAGS_KEPT:
            self._tags.popitem(last=False)

    @property
    def open(self) -> bool:
        """Whether there is a Task whose lane is not blocked."""
        return bool(self._open)

    def block(self, like: Shape) -> None:
        """Pass over the Tasks of a shape, and of all for which it stands: at the moment no worker takes one."""
        if (lanes := self._open.pop(like, None)) is not None:
            self._blocked[like] = lanes

    def unblock(self, like: Shape) -> None:
        """Consider the Tasks of a shape again, and of all for which it stands."""
        if (lanes := self._blocked.pop(like, None)) is not None:
            self._open[like] = lanes

    def blocked(self) -> list[Shape]:
        """Return the shapes that are passed over at the moment, of those that are alike one for all."""
        return list(self._blocked)

    def regroup(self) -> None:
        """Unblock everything: other shapes may be alike now."""
        self._open, self._blocked = {}, {}
        for shape, lane in self._lanes.items():
            lane.like = self._like(shape)
            self._open.setdefault(lane.like, {})[shape] = lane

    def shapes(self) -> Iterable[tuple[Shape, int]]:
        """Return each shape and how many Tasks of it wait."""
        return ((shape, lane.count) for shape, lane in self._lanes.items())

    def age_by(self, aging_seconds: int) -> None:
        """Let another number of seconds of waiting count as one point of priority."""
        if aging_seconds == self._aging:
            return
        self._aging = aging_seconds
        for lane in self._lanes.values():
            for priority in lane.levels:
                self._rank(lane, priority)

    def oldest(self) -> Instant | None:
        """Return since when the Task that has waited longest waits; None when none waits."""
        ages = [level.oldest()[0] for lane in self._lanes.values() for level in lane.levels.values()]
        return Instant(min(ages)) if ages else None

    def _rank(self, lane: _Lane, priority: int) -> None:
        since, _ = lane.levels[priority].oldest()
        lane.put(priority, since - priority * self._aging)

    @property
    def _by_age(self) -> bool:
        return self._starts % AGE_TURN == AGE_TURN - 1

    def _turn(self, level: _Level) -> tuple[float, float, int]:
        """Return whose turn it is in a level, for comparison with others.

        A key that has started Tasks of another level is put back on the way: tags only grow, so it is enough to look at
        the first.
        """
        while True:
            first = level.turns.first()
            assert first is not None, "a level without Tasks is dropped"
            turn, key = first
            tag = self._tags.get(key, 0.0)
            if tag <= turn[0]:
                return turn
            level.turn(key, tag)


def _line(task: Task) -> tuple[int, str]:
    return task.priority, task.fairness_key
