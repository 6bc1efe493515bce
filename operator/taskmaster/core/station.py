"""Where an unfinished Task can stand: with a worker, in the backlog of its queue, or at the reason why it waits."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from taskmaster.core.backlog import Backlog
from taskmaster.core.bucket import TokenBucket
from taskmaster.core.capacity import Capacity, Shape
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.queue import Queue
from taskmaster.core.reason import PendingReason
from taskmaster.core.task import Instant, Task


class Place(Enum):
    """Stations that are no reason to wait."""

    READY = auto()
    """In the backlog of its queue."""
    HELD = auto()
    """With a worker, or on its way there."""
    ENDING = auto()
    """It is being ended without another attempt."""
    ANSWERING = auto()
    """It is about to be cancelled or resumed, because somebody asked for it."""


Station = Place | PendingReason


@dataclass(slots=True)
class Entry:
    """One unfinished Task."""

    task: Task
    order: int
    """Its place in the order of first observation."""
    station: Station
    shape: Shape
    until: Instant | None = None
    """Not to be decided again before: the last write of an assignment failed."""
    judged: bool = False
    """Whether it has had its say about others of its concurrency key."""

    @property
    def age(self) -> tuple[float, int]:
        """By what Tasks are older and newer than each other."""
        return float(self.task.created), self.order


class QueueState:
    """One queue and what waits in it."""

    def __init__(self, queue: Queue, capacity: Capacity) -> None:
        self.queue = queue
        self.backlog = Backlog(aging_seconds=queue.aging_seconds, like=capacity.like)
        self.bucket: TokenBucket | None = None
        self.outside: KeyedHeap[tuple[float, int]] = KeyedHeap()
        """Tasks that `maxPending` keeps out, by age."""

    def change(self, queue: Queue, *, now: Instant) -> None:
        """Take note of an edit."""
        self.queue = queue
        self.backlog.age_by(queue.aging_seconds)
        if queue.rate_limit is None:
            self.bucket = None
        elif self.bucket is None:
            self.bucket = TokenBucket(queue.rate_limit, now=now)
        elif self.bucket.limit != queue.rate_limit:
            self.bucket.change(queue.rate_limit, now=now)
