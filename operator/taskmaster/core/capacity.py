"""Workers and their slots: who can take a Task, and who has least to do.

A slot is taken by a Task from the moment the coordinator decides (`take`, kube-scheduler's "assume") until it sees that
the Task has left the worker (`free`). The least loaded worker comes from a heap, so that a decision costs O(log
workers). A Task that has to run alone reserves a worker: nothing new comes there until it has left. Invariant: no
worker ever holds more Tasks than it has slots by our own decisions; what is found on it already (`take` of an observed
Task) is counted even beyond that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from taskmaster.core.heap import KeyedHeap


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


@dataclass(slots=True)
class _Seat:
    worker: Worker
    tasks: set[str] = field(default_factory=set)
    turn: int = 0
    reserved_for: str = ""

    @property
    def open(self) -> bool:
        return self.worker.schedulable and not self.reserved_for and len(self.tasks) < self.worker.slots

    @property
    def rank(self) -> tuple[float, int]:
        """Load first; among equals the one whose last turn is longest ago, so that idle workers take turns."""
        return (len(self.tasks) / self.worker.slots, self.turn)


class Capacity:
    """The workers of one namespace and what each of them holds."""

    def __init__(self) -> None:
        self._seats: dict[str, _Seat] = {}
        self._homeless: dict[str, set[str]] = {}
        self._places: dict[str, str] = {}
        self._open: KeyedHeap[tuple[float, int]] = KeyedHeap()
        self._turns = 0
        self._reservations: dict[str, str] = {}
        """Which worker is kept for which Task: pod uids by uids of Tasks."""

    def __len__(self) -> int:
        return len(self._seats)

    def put_worker(self, worker: Worker) -> None:
        """Add a worker or take note of its newer state."""
        seat = self._seats.get(worker.pod_uid)
        if seat is None:
            seat = _Seat(worker, self._homeless.pop(worker.pod_uid, set()))
            self._seats[worker.pod_uid] = seat
        else:
            seat.worker = worker
        self._offer(seat)

    def remove_worker(self, pod_uid: str) -> None:
        """Forget a worker; Tasks it still holds stay counted, in case it returns."""
        seat = self._seats.pop(pod_uid, None)
        self._open.discard(pod_uid)
        if seat is not None:
            self._reservations.pop(seat.reserved_for, None)
            if seat.tasks:
                self._homeless[pod_uid] = seat.tasks

    def take(self, task_uid: str, pod_uid: str, *, alone: bool = False) -> None:
        """Count a Task against a worker, moving it from another one if needed; `alone` keeps others away from there."""
        if alone and self._reservations.get(task_uid) != pod_uid:
            self.release(task_uid)
            if (seat := self._seats.get(pod_uid)) is not None:
                self._reserve(task_uid, seat)
        if self._places.get(task_uid) == pod_uid:
            return
        self.free(task_uid)
        self._places[task_uid] = pod_uid
        seat = self._seats.get(pod_uid)
        if seat is None:
            self._homeless.setdefault(pod_uid, set()).add(task_uid)
            return
        seat.tasks.add(task_uid)
        self._turns += 1
        seat.turn = self._turns
        self._offer(seat)

    def free(self, task_uid: str) -> None:
        """Give the slot of a Task back, if it has one."""
        pod_uid = self._places.pop(task_uid, None)
        if pod_uid is None:
            return
        seat = self._seats.get(pod_uid)
        if seat is not None:
            seat.tasks.discard(task_uid)
            self._offer(seat)
        elif (orphans := self._homeless.get(pod_uid)) is not None:
            orphans.discard(task_uid)
            if not orphans:
                del self._homeless[pod_uid]

    def least_loaded(self, *, avoid: str | None = None) -> Worker | None:
        """Return the worker with the smallest share of its slots taken; None when no slot is free.

        The worker of the name `avoid` is returned only if no other has a free slot.
        """
        first = self._open.first()
        if first is None:
            return None
        seat = self._seats[first[1]]
        if seat.worker.name == avoid:
            self._open.discard(first[1])
            second = self._open.first()
            self._offer(seat)
            if second is not None:
                seat = self._seats[second[1]]
        return seat.worker

    def reserve(self, task_uid: str, *, avoid: str | None = None) -> Worker | None:
        """Keep a worker for a Task that has to run alone; return it as soon as it holds nothing else.

        It is the one that holds the least. The worker of the name `avoid` is kept only if no other is as good. At most
        half of the workers are kept like this (but one always may be): a runner that dies makes suspects of all Tasks
        that it had, and the others should go on meanwhile.
        """
        seat = self._seats.get(self._reservations.get(task_uid, ""))
        if seat is not None and not seat.worker.schedulable:
            self.release(task_uid)
            seat = None
        if seat is None:
            if len(self._reservations) >= max(1, len(self._seats) // 2):
                return None
            candidates = [seat for seat in self._seats.values() if seat.worker.schedulable and not seat.reserved_for]
            if not candidates:
                return None
            seat = min(candidates, key=lambda seat: (len(seat.tasks), seat.worker.name == avoid, seat.turn))
            self._reserve(task_uid, seat)
        return None if seat.tasks - {task_uid} else seat.worker

    def release(self, task_uid: str) -> None:
        """Give back the worker that was kept for a Task, if one was."""
        seat = self._seats.get(self._reservations.pop(task_uid, ""))
        if seat is not None:
            seat.reserved_for = ""
            self._offer(seat)

    def held_by(self, pod_uid: str) -> frozenset[str]:
        """Return the uids of the Tasks counted against a pod, known as a worker or not."""
        seat = self._seats.get(pod_uid)
        return frozenset(seat.tasks if seat is not None else self._homeless.get(pod_uid, ()))

    def workers(self) -> list[Worker]:
        """Return the registered workers in no particular order."""
        return [seat.worker for seat in self._seats.values()]

    def _reserve(self, task_uid: str, seat: _Seat) -> None:
        self._reservations.pop(seat.reserved_for, None)
        self._reservations[task_uid] = seat.worker.pod_uid
        seat.reserved_for = task_uid
        self._offer(seat)

    def _offer(self, seat: _Seat) -> None:
        if seat.open:
            self._open.put(seat.worker.pod_uid, seat.rank)
        else:
            self._open.discard(seat.worker.pod_uid)
