"""Concurrency keys: how many Tasks with the same key may hold a worker at a time.

Derived from the Tasks that live, never counted up and down: a Task is known with its key until it ends or is deleted,
and holds it exactly while it holds a worker. So nothing can leak, backoff frees the key, and a new coordinator knows
all by listing. If Tasks of a key disagree about its limit, the lowest one of those that live holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from taskmaster.core.capacity import Shape
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.task import Concurrency, OnConflict

Order = tuple[float, int]
"""Creation, and the order of first observation."""

Rank = tuple[float, int]
"""When a Task would have come, had it had priority 0, and the order of first observation."""


@dataclass(slots=True)
class _Key:
    limits: KeyedHeap[int] = field(default_factory=KeyedHeap)
    """Uids of all Tasks that live, by limit."""
    holders: dict[str, Order] = field(default_factory=dict)
    """Uids of those that hold a worker."""
    waiting: dict[str, Order] = field(default_factory=dict)
    """Uids of those that wait for nothing but a worker or this key."""
    parked: dict[Shape, KeyedHeap[Rank]] = field(default_factory=dict)
    """Of these, the ones that wait for this key, in the order in which they should run.

    Those of one shape (and queue) can start or cannot alike. Another shape does not wait for them: what is first in
    rank may be unable to use the room, because its queue is paused or no worker fits.
    """
    lanes: dict[str, Shape] = field(default_factory=dict)
    """Where each of them is parked."""

    @property
    def limit(self) -> int:
        first = self.limits.first()
        return first[0] if first is not None else 1

    def park(self, uid: str, rank: Rank, shape: Shape) -> None:
        self.unpark(uid)
        self.parked.setdefault(shape, KeyedHeap()).put(uid, rank)
        self.lanes[uid] = shape

    def unpark(self, uid: str) -> None:
        shape = self.lanes.pop(uid, None)
        if shape is not None:
            self.parked[shape].discard(uid)
            if not len(self.parked[shape]):
                del self.parked[shape]


@dataclass(frozen=True, slots=True)
class Conflict:
    """What a new Task does to others of its key, or they to it."""

    rejected: bool = False
    ended: tuple[str, ...] = ()
    """Uids of waiting Tasks that it replaces."""
    stopped: tuple[str, ...] = ()
    """Uids of Tasks that hold a worker and have to give way."""


class ConcurrencyKeys:
    """The keys of one namespace."""

    def __init__(self) -> None:
        self._keys: dict[str, _Key] = {}
        self._key_of: dict[str, str] = {}

    def put(self, uid: str, asked: Concurrency | None) -> set[str]:
        """Take note of what a Task that lives asks for; None if nothing, or if it has ended or is gone.

        Returns:
            The keys that may let others run because of it.
        """
        touched = set()
        left = self._key_of.get(uid)
        if left is not None:
            touched.add(left)
            if asked is None or asked.key != left:
                self._remove(uid, left)
        if asked is not None:
            self._key_of[uid] = asked.key
            self._keys.setdefault(asked.key, _Key()).limits.put(uid, asked.limit)
        return touched

    def _remove(self, uid: str, name: str) -> None:
        del self._key_of[uid]
        key = self._keys[name]
        key.limits.discard(uid)
        key.holders.pop(uid, None)
        key.waiting.pop(uid, None)
        key.unpark(uid)
        if not len(key.limits):
            del self._keys[name]

    def hold(self, uid: str, order: Order) -> None:
        """Note that a Task that is known holds a worker."""
        key = self._keys[self._key_of[uid]]
        key.waiting.pop(uid, None)
        key.unpark(uid)
        key.holders[uid] = order

    def wait(self, uid: str, order: Order) -> None:
        """Note that a Task that is known waits for nothing but a worker or its key."""
        key = self._keys[self._key_of[uid]]
        key.holders.pop(uid, None)
        key.waiting[uid] = order

    def park(self, uid: str, rank: Rank, shape: Shape) -> None:
        """Let a Task that waits wait for its key; of one shape the smallest rank goes first."""
        self._keys[self._key_of[uid]].park(uid, rank, shape)

    def rest(self, uid: str) -> None:
        """Note that a Task neither holds a worker nor could: it backs off, is suspended, waits for another Task."""
        key = self._keys[self._key_of[uid]]
        key.holders.pop(uid, None)
        key.waiting.pop(uid, None)
        key.unpark(uid)

    def room(self, uid: str) -> bool:
        """Whether the key of a Task lets one more hold a worker."""
        key = self._keys[self._key_of[uid]]
        return len(key.holders) < key.limit

    def unpark(self, name: str) -> list[str]:
        """Return the parked Tasks that may be considered now, and park them no longer: of each shape as many as fit."""
        key = self._keys.get(name)
        if key is None:
            return []
        freed: list[str] = []
        for heap in list(key.parked.values()):
            for _ in range(key.limit - len(key.holders)):
                if (first := heap.first()) is None:
                    break
                key.unpark(first[1])
                freed.append(first[1])
        return freed

    def standing(self, uid: str) -> tuple[str, int, int]:
        """Return the key of a Task, how many hold it, and its limit."""
        name = self._key_of[uid]
        key = self._keys[name]
        return name, len(key.holders), key.limit

    def conflict(self, uid: str, order: Order, policy: OnConflict) -> Conflict:
        """Return what a Task that begins to wait does to older ones of its key.

        Those that hold a worker count whatever their age. To make room, waiting Tasks go before running ones, for they
        have done nothing yet, and the oldest first.
        """
        if policy is OnConflict.QUEUE:
            return Conflict()
        key = self._keys[self._key_of[uid]]
        waiting = sorted((each, other) for other, each in key.waiting.items() if each < order and other != uid)
        holders = sorted((each, other) for other, each in key.holders.items() if other != uid)
        excess = len(waiting) + len(holders) - (key.limit - 1)
        if excess <= 0:
            return Conflict()
        if policy is OnConflict.REJECT:
            return Conflict(rejected=True)
        ended = tuple(other for _, other in waiting[:excess])
        if policy is OnConflict.REPLACE_PENDING:
            return Conflict(ended=ended)
        return Conflict(ended=ended, stopped=tuple(other for _, other in holders[: excess - len(ended)]))
