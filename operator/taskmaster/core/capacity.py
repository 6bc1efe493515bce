"""Workers and their slots: who could take a Task, and who takes the next one.

Workers that look alike to Tasks (same labels, queues and number of slots) are of one *kind*, and Tasks that look alike
to workers are of one *shape*: whether a shape fits a kind is judged once. Within a kind, workers with room are kept by
the number of their free slots, so a decision costs O(kinds + slots + log workers).

A slot is taken from the moment the coordinator decides (`take`, kube-scheduler's "assume") until it sees that the Task
has left the worker (`free`). A Task that has to run alone, or that no worker has enough free slots for, reserves a
worker: nothing new comes there until it has its turn. Invariant: no worker ever holds more than its slots by our own
decisions; what is found on it already (`take` of an observed Task) is counted even beyond that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from taskmaster.core.heap import KeyedHeap
from taskmaster.core.queue import Placement
from taskmaster.core.requirements import Requirements, unmet


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker pod that has registered itself by its Lease."""

    namespace: str
    name: str
    pod_uid: str
    pool: str
    incarnation: str
    node: str
    slots: int
    schedulable: bool
    """False while it drains, its runner is away, its pod is leaving, or its Lease is in doubt."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """What `spec.requires` of Tasks is compared with."""
    queues: frozenset[str] = frozenset()
    """The queues that it serves; empty: all."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a Task asks of a worker: Tasks of one shape fit the same workers."""

    queue: str
    slots: int = 1
    requires: Requirements = ()
    alone: bool = False
    """Nothing else may run beside it."""

    @property
    def keeps(self) -> bool:
        """Whether a worker is kept for such a Task: it needs more than any slot that becomes free."""
        return self.alone or self.slots > 1

    def misfit(self, worker: Worker) -> str | None:
        """Return why a worker can never take such a Task, with words for a message; None if it can."""
        if worker.queues and self.queue not in worker.queues:
            return f"do not serve queue {self.queue}"
        if worker.slots < self.slots:
            return f"have fewer than {self.slots} slots"
        lacking = unmet(self.requires, worker.labels)
        return None if lacking is None else f"lack {lacking}"


@dataclass(frozen=True, slots=True)
class Survey:
    """Why no worker takes a Task of some shape: how many workers there are, and how many for each reason."""

    workers: int
    fitting: int
    """Those that could take it, had they room."""
    blockers: Mapping[str, int]

    def __str__(self) -> str:
        counts = sorted(self.blockers.items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{number} {blocker}" for blocker, number in counts)
        return f"0/{self.workers} workers fit" + (f": {reasons}" if reasons else "")


LEAVING: Final = "draining or not ready"
BUSY: Final = "busy"
KEPT: Final = "kept for a larger Task"


SHAPES_KEPT: Final = 10_000
"""Judgements remembered: users can make up more shapes than that, one after the other."""


@dataclass(slots=True)
class _Seat:
    worker: Worker
    kind: _Kind
    tasks: dict[str, int] = field(default_factory=dict)
    """Slots by uid."""
    used: int = 0
    turn: int = 0
    reserved_for: str = ""
    offered: int = 0
    """Under how many free slots it is on offer; 0: it is not."""

    @property
    def free(self) -> int:
        return self.worker.slots - self.used


class _Kind:
    """Workers that look alike to Tasks."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.seats: set[str] = set()
        self.open: dict[int, KeyedHeap[int]] = {}
        """By the number of their free slots: those on offer, by their last turn."""

    def best(self, slots: int, placement: Placement) -> tuple[tuple[float, int], str] | None:
        """Return the rank of the best worker with so many free slots, the smallest being best, and its pod."""
        enough = [free for free in self.open if free >= slots]
        if not enough:
            return None
        match placement:
            case Placement.ROUND_ROBIN:
                turn, pod = min(self._first(free) for free in enough)
                return (0.0, turn), pod
            case Placement.BIN_PACK:
                free = min(enough)
                turn, pod = self._first(free)
                return (float(free), turn), pod
            case Placement.LEAST_LOADED:
                free = max(enough)
                turn, pod = self._first(free)
                return (1 - free / self.slots, turn), pod

    def _first(self, free: int) -> tuple[int, str]:
        first = self.open[free].first()
        assert first is not None, "an empty heap is dropped"
        return first

    def offer(self, seat: _Seat, free: int) -> None:
        """Offer a worker under so many free slots; 0 takes it away."""
        pod = seat.worker.pod_uid
        if seat.offered and seat.offered != free:
            heap = self.open[seat.offered]
            heap.discard(pod)
            if not len(heap):
                del self.open[seat.offered]
        seat.offered = free
        if free:
            self.open.setdefault(free, KeyedHeap()).put(pod, seat.turn)


class Capacity:
    """The workers of one namespace and what each of them holds."""

    def __init__(self) -> None:
        self._seats: dict[str, _Seat] = {}
        self._names: dict[str, str] = {}
        """Pods by the names of workers."""
        self._kinds: dict[tuple[frozenset[tuple[str, str]], frozenset[str], int], _Kind] = {}
        self._fitting: dict[Shape, tuple[_Kind, ...]] = {}
        """What has been judged; forgotten when a kind comes or goes."""
        self._alike: dict[tuple[_Kind, ...], Shape] = {}
        self.kinds_changed = 0
        """How often a kind of workers has come or gone."""
        self._homeless: dict[str, dict[str, int]] = {}
        self._places: dict[str, str] = {}
        self._turns = 0
        self._reservations: dict[str, str] = {}
        """Which worker is kept for which Task: pods by uids of Tasks."""
        self._freed: set[_Kind] = set()

    def __len__(self) -> int:
        return len(self._seats)

    def put_worker(self, worker: Worker) -> None:
        """Add a worker or take note of its newer state."""
        seat, kind = self._seats.get(worker.pod_uid), self._kind_of(worker)
        if seat is None:
            tasks = self._homeless.pop(worker.pod_uid, {})
            seat = _Seat(worker, kind, tasks, sum(tasks.values()))
            seat.reserved_for = next((uid for uid in tasks if uid in self._reservations), "")
            self._seats[worker.pod_uid] = seat
        elif seat.kind is not kind:
            self._leave_kind(seat)
            seat.kind = kind
        kind.seats.add(worker.pod_uid)
        seat.worker = worker
        self._names[worker.name] = worker.pod_uid
        self._offer(seat)
        if self._reservations:
            # How many may be kept depends on how many there are; and a Task may have to look for another one.
            self._freed.update(self._kinds.values())

    def remove_worker(self, pod_uid: str) -> None:
        """Forget a worker; Tasks it still holds stay counted, in case it returns."""
        seat = self._seats.pop(pod_uid, None)
        if seat is None:
            return
        self._leave_kind(seat)
        if self._names.get(seat.worker.name) == pod_uid:
            del self._names[seat.worker.name]
        if seat.reserved_for and seat.reserved_for not in seat.tasks:
            del self._reservations[seat.reserved_for]
            self._freed.update(self._kinds.values())
        if seat.tasks:
            self._homeless[pod_uid] = seat.tasks

    def take(self, task_uid: str, pod_uid: str, *, slots: int = 1, alone: bool = False) -> None:
        """Count a Task against a worker, moving it from another one if needed; `alone` keeps others away from there."""
        if alone and self._reservations.get(task_uid) != pod_uid:
            self.release(task_uid)
            self._reserve(task_uid, pod_uid)
        elif not alone:
            self.release(task_uid)
        if self._places.get(task_uid) == pod_uid:
            return
        self.free(task_uid)
        self._places[task_uid] = pod_uid
        seat = self._seats.get(pod_uid)
        if seat is None:
            self._homeless.setdefault(pod_uid, {})[task_uid] = slots
            return
        seat.tasks[task_uid] = slots
        seat.used += slots
        self._turns += 1
        seat.turn = self._turns
        self._offer(seat)

    def free(self, task_uid: str) -> None:
        """Give the slots of a Task back, if it has any."""
        pod_uid = self._places.pop(task_uid, None)
        if pod_uid is None:
            return
        seat = self._seats.get(pod_uid)
        if seat is not None:
            seat.used -= seat.tasks.pop(task_uid)
            self._offer(seat)
            self._freed.add(seat.kind)
        elif (orphans := self._homeless.get(pod_uid)) is not None:
            orphans.pop(task_uid)
            if not orphans:
                del self._homeless[pod_uid]

    def place(self, shape: Shape, placement: Placement, *, avoid: str | None = None) -> Worker | None:
        """Return the worker that takes the next Task of a shape; None when none has room.

        The worker of the name `avoid` is returned only if no other has room.
        """
        avoided = self._seats.get(self._names.get(avoid, "")) if avoid else None
        if avoided is not None and avoided.offered:
            free = avoided.offered
            avoided.kind.offer(avoided, 0)
            found = self._best(shape, placement)
            avoided.kind.offer(avoided, free)
            if found is not None:
                return found
        return self._best(shape, placement)

    def reserve(self, task_uid: str, shape: Shape, *, avoid: str | None = None) -> Worker | None:
        """Keep a worker for a Task that has to run alone, or needs several slots; return it when it has room.

        It is the one that has least to finish before. The worker of the name `avoid` is kept only if no other is as
        good. At most half of the workers are kept like this (but one always may be), so that others can go on: a runner
        that dies, for example, makes suspects of all Tasks that it had.
        """
        seat = self._seats.get(self._reservations.get(task_uid, ""))
        if seat is not None and (not seat.worker.schedulable or seat.kind not in self._kinds_for(shape)):
            self.release(task_uid)
            seat = None
        if seat is None:
            if len(self._reservations) >= max(1, len(self._seats) // 2):
                return None
            candidates = [
                each
                for kind in self._kinds_for(shape)
                for each in map(self._seats.__getitem__, kind.seats)
                if each.worker.schedulable and not each.reserved_for
            ]
            if not candidates:
                return None
            seat = min(
                candidates,
                key=lambda each: (self._excess(each, shape), each.worker.name == avoid, each.turn, each.worker.name),
            )
            self._reserve(task_uid, seat.worker.pod_uid)
        return seat.worker if self._excess(seat, shape) <= 0 else None

    def release(self, task_uid: str) -> None:
        """Give back the worker that was kept for a Task, if one was."""
        pod_uid = self._reservations.pop(task_uid, None)
        if pod_uid is None:
            return
        self._freed.update(self._kinds.values())  # another Task may keep a worker instead, of whatever kind
        seat = self._seats.get(pod_uid)
        if seat is not None:
            seat.reserved_for = ""
            self._offer(seat)

    def held_by(self, pod_uid: str) -> frozenset[str]:
        """Return the uids of the Tasks counted against a pod, known as a worker or not."""
        seat = self._seats.get(pod_uid)
        return frozenset(seat.tasks if seat is not None else self._homeless.get(pod_uid, ()))

    def used(self, pod_uid: str) -> int:
        """Return how many slots of a worker are taken."""
        seat = self._seats.get(pod_uid)
        return 0 if seat is None else seat.used

    def workers(self) -> list[Worker]:
        """Return the registered workers in no particular order."""
        return [seat.worker for seat in self._seats.values()]

    @property
    def has_news(self) -> bool:
        """Whether `newly_free` has something to tell."""
        return bool(self._freed)

    def newly_free(self) -> frozenset[_Kind]:
        """Return the kinds of workers that have got room since this was last asked: what waited for them may fit."""
        freed = frozenset(self._freed)
        self._freed.clear()
        return freed

    def fits(self, shape: Shape, kinds: frozenset[_Kind]) -> bool:
        """Whether a shape fits one of these kinds of workers."""
        return not kinds.isdisjoint(self._kinds_for(shape))

    def like(self, shape: Shape) -> Shape:
        """Return the shape that stands for all that fit the same workers and find room together, until kinds change.

        What may keep a worker for itself stands for itself.
        """
        return shape if shape.keeps else self._alike.setdefault(self._kinds_for(shape), shape)

    def survey(self, shape: Shape) -> Survey:
        """Count why no worker takes a Task of this shape now; O(workers), so not for each Task."""
        blockers: Counter[str] = Counter()
        fitting = 0
        for seat in self._seats.values():
            misfit = shape.misfit(seat.worker)
            if misfit is not None:
                blockers[misfit] += 1
            elif not seat.worker.schedulable:
                blockers[LEAVING] += 1
            else:
                fitting += 1
                blockers[KEPT if seat.reserved_for and self._excess(seat, shape) <= 0 else BUSY] += 1
        return Survey(len(self._seats), fitting, blockers)

    @staticmethod
    def _excess(seat: _Seat, shape: Shape) -> int:
        """How many slots have to be given back before a seat can take such a Task."""
        return seat.used if shape.alone else seat.used + shape.slots - seat.worker.slots

    def _best(self, shape: Shape, placement: Placement) -> Worker | None:
        offers = [offer for kind in self._kinds_for(shape) if (offer := kind.best(shape.slots, placement)) is not None]
        return self._seats[min(offers)[1]].worker if offers else None

    def _kind_of(self, worker: Worker) -> _Kind:
        key = (frozenset(worker.labels.items()), worker.queues, worker.slots)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = _Kind(worker.slots)
            self._judge_anew()
        return kind

    def _leave_kind(self, seat: _Seat) -> None:
        kind, pod_uid = seat.kind, seat.worker.pod_uid
        kind.offer(seat, 0)
        kind.seats.discard(pod_uid)
        if not kind.seats:
            self._kinds = {key: each for key, each in self._kinds.items() if each is not kind}
            self._judge_anew()
            self._freed.discard(kind)

    def _judge_anew(self) -> None:
        self._fitting.clear()
        self._alike.clear()
        self.kinds_changed += 1

    def _kinds_for(self, shape: Shape) -> tuple[_Kind, ...]:
        known = self._fitting.get(shape)
        if known is None:
            examples = [
                (kind, self._seats[next(iter(kind.seats))].worker) for kind in self._kinds.values() if kind.seats
            ]
            known = tuple(kind for kind, worker in examples if shape.misfit(worker) is None)
            if len(self._fitting) >= SHAPES_KEPT:
                self._fitting.clear()
            self._fitting[shape] = known
        return known

    def _reserve(self, task_uid: str, pod_uid: str) -> None:
        self._reservations[task_uid] = pod_uid
        seat = self._seats.get(pod_uid)
        if seat is not None:
            self._reservations.pop(seat.reserved_for, None)
            seat.reserved_for = task_uid
            self._offer(seat)

    def _offer(self, seat: _Seat) -> None:
        is_open = seat.worker.schedulable and not seat.reserved_for and seat.free > 0
        before, now = seat.offered, seat.free if is_open else 0
        seat.kind.offer(seat, now)
        if now > before:
            self._freed.add(seat.kind)
