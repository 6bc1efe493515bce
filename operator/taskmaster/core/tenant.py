"""A namespace: its queues, Tasks and workers, and where each Task stands.

Every unfinished Task is at exactly one *station*: with a worker, in the backlog of its queue, or waiting for something
that has a word of its own (`PendingReason`). What moves it is an event: a newer version of it, a queue, a template, the
end of another Task, the time. Each event touches the Tasks that it is about and no others.

What people pass over in silence is what is most fundamental: a Task is where the first thing is that keeps it from
running, in the order of `PendingReason`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Final

from taskmaster.core.assignment import Assignment, Ending, Stop
from taskmaster.core.capacity import Capacity, Shape
from taskmaster.core.concurrency import ConcurrencyKeys
from taskmaster.core.dependencies import Cyclic, Dependencies, Moot, Waiting
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.phase import Phase
from taskmaster.core.policy import SAYS_NOTHING, Overrides, resolve
from taskmaster.core.queue import Queue, WhenFull
from taskmaster.core.reason import NEEDS_A_PERSON, EndReason, PendingReason
from taskmaster.core.request import may_run
from taskmaster.core.requirements import Requirements
from taskmaster.core.shares import Shares
from taskmaster.core.station import Entry, Place, QueueState, Station
from taskmaster.core.task import DEFAULT_QUEUE, Instant, OnConflict, StopReason, Task
from taskmaster.core.template import Template

_INSIDE: Final = (Place.READY, PendingReason.CONCURRENCY_LIMIT)
"""Stations that count for `maxPending`: a Task there could run, if there were room."""


def _age(entry: Entry) -> tuple[float, int]:
    return entry.age


@lru_cache(maxsize=4_096)
def _shape(queue: str, slots: int, requires: Requirements, alone: bool) -> Shape:
    """Build a shape; Tasks are many and shapes few, so equal ones are shared."""
    return Shape(queue, slots, requires, alone)


class Tenant:
    """The Tasks, queues and workers of one namespace."""

    def __init__(self, arguments_problem: Callable[[Task, Template], str] = lambda task, template: "") -> None:
        self.capacity = Capacity()
        self.shares = Shares()
        self.keys = ConcurrencyKeys()
        self.dependencies = Dependencies()
        self.queues: dict[str, QueueState] = {DEFAULT_QUEUE: QueueState(Queue(DEFAULT_QUEUE), self.capacity)}
        self.templates: dict[str, Template] = {}
        self.entries: dict[str, Entry] = {}
        self.counts: Counter[tuple[str, Station]] = Counter()
        """Unfinished Tasks by queue and station."""
        self.verdicts: list[Ending | Stop] = []
        """What follows for Tasks without a decision about workers; whoever performs it takes it out."""
        self.news: set[str] = set()
        """Uids of Tasks that need a person, perhaps for another cause than before, or do so no more; whoever tells
        people takes it out."""
        self._arguments_problem = arguments_problem
        self._assumed: dict[str, int] = {}
        self._held: dict[str, tuple[str, int]] = {}
        """Queue and slots of each Task that a worker holds, as they were counted."""
        self._delayed: KeyedHeap[float] = KeyedHeap()
        self._condemned: dict[str, tuple[int, Ending]] = {}
        """Tasks whose end is decided, with the run that it was decided for."""
        self._late: dict[str, Task] = {}
        """Versions that the watch has shown while an assignment was on its way."""
        self._newcomers: set[str] = set()
        """Tasks that may change the lot of others of their concurrency key, and have not been judged."""
        self._rooms: set[str] = set()
        """Concurrency keys that may let another Task run."""
        self._fills: set[str] = set()
        """Queues that may let another Task in."""
        self._orders = 0

    @property
    def assumed(self) -> int:
        """How many assignments are decided and not yet seen."""
        return len(self._assumed)

    # Queues, templates and workers

    def put_queue(self, queue: Queue, *, now: Instant) -> None:
        """Take note of a queue, new or edited."""
        state = self.queues.get(queue.name)
        draining = state is not None and state.queue.drain
        if state is None:
            state = self.queues[queue.name] = QueueState(queue, self.capacity)
        state.change(queue, now=now)
        waiting = sorted((each for each in self.entries.values() if each.task.queue == queue.name), key=_age)
        self._reconsider(waiting, now=now)
        if queue.drain and not draining:
            for entry in self.entries.values():
                if entry.station is Place.HELD and entry.task.queue == queue.name:
                    self._stop_if_asked(entry)
        self._fills.add(queue.name)
        self.settle(now=now)

    def remove_queue(self, name: str, *, now: Instant) -> None:
        """Forget a queue; what waits in it waits until there is one of this name again."""
        if name == DEFAULT_QUEUE:
            self.put_queue(Queue(DEFAULT_QUEUE), now=now)
        elif self.queues.pop(name, None) is not None:
            self._reconsider((each for each in self.entries.values() if each.task.queue == name), now=now)
            self.settle(now=now)

    def put_template(self, template: Template, *, now: Instant) -> None:
        """Take note of a template, new or edited."""
        self.templates[template.name] = template
        self._reconsider((each for each in self.entries.values() if each.task.template == template.name), now=now)
        self.settle(now=now)

    def remove_template(self, name: str, *, now: Instant) -> None:
        """Forget a template."""
        if self.templates.pop(name, None) is not None:
            self._reconsider((each for each in self.entries.values() if each.task.template == name), now=now)
            self.settle(now=now)

    def defaults_of(self, queue: str) -> Overrides:
        """Return what a queue says about the policies of its Tasks."""
        state = self.queues.get(queue)
        return state.queue.overrides if state is not None else SAYS_NOTHING

    def effective(self, task: Task) -> Task:
        """Return a Task as its template and its queue complete it.

        While a worker holds it, its policy is the one that was pinned; what its template says about its run is pinned
        for good.
        """
        if task.held:
            return task
        template = self.templates.get(task.template) if task.template else None
        queue_says = self.defaults_of(task.queue)
        if template is None and queue_says is SAYS_NOTHING:
            return task
        if template is None:
            return replace(task, policy=resolve(task.overrides, queue_says))
        return replace(
            task,
            policy=resolve(task.overrides, template.overrides, queue_says),
            slots=template.slots if task.slots is None else task.slots,
            requires=task.requires or template.requires or (),
            ttl_seconds=template.ttl_seconds if task.ttl_seconds is None else task.ttl_seconds,
        )

    # Tasks

    def put_task(self, task: Task, *, now: Instant, fresh: bool = False) -> None:
        """Take note of a Task, new or in a newer version; `fresh` if it has just been created."""
        if task.phase is Phase.PENDING and task.attempt < self._assumed.get(task.uid, 0):
            self._late[task.uid] = task
            return
        self._assumed.pop(task.uid, None)
        self._late.pop(task.uid, None)
        affected = self.dependencies.put(task)
        if task.finished:
            self._forget(task.uid, now=now)
        else:
            entry = self.entries.get(task.uid)
            if entry is None:
                self._orders += 1
                entry = Entry(task, self._orders, Place.ANSWERING, self._shape_of(task))
                self.entries[task.uid] = entry
                self._count(task.queue, entry.station, +1)
                if fresh:
                    self._reject_if_full(entry)
            self._renew(entry, task, now=now)
        self._reconsider((self.entries[uid] for uid in affected & self.entries.keys() if uid != task.uid), now=now)
        self.settle(now=now)

    def remove_task(self, task: Task, *, now: Instant) -> None:
        """Forget a Task that has been deleted."""
        self._assumed.pop(task.uid, None)
        self._late.pop(task.uid, None)
        affected = self.dependencies.remove(task)
        self._forget(task.uid, now=now)
        self._reconsider((self.entries[uid] for uid in affected & self.entries.keys() if uid != task.uid), now=now)
        self.settle(now=now)

    def reconsider(self, uid: str, *, now: Instant) -> None:
        """Judge a Task once more: what followed for it could not be written."""
        if (entry := self.entries.get(uid)) is not None:
            if entry.station is Place.HELD:
                self._stop_if_asked(entry)
            else:
                self._admit(entry, now=now)
            self.settle(now=now)

    def assume(self, decision: Assignment, *, now: Instant) -> None:
        """Count a Task with its worker from now on, until the watch shows it there or `forget` is called."""
        entry = self.entries[decision.task.uid]
        self._assumed[entry.task.uid] = entry.task.attempt + 1
        self._move(entry, Place.HELD)
        self._count_held(entry, decision.worker.pod_uid, now=now)

    def forget(self, task: Task, *, until: Instant, in_doubt: bool, now: Instant) -> None:
        """Note that the write of an assignment failed; the Task may be decided again at `until`.

        While it is in doubt whether the write was applied, the slot stays taken: until then, or until the watch tells.
        """
        if self._assumed.get(task.uid) != task.attempt + 1:
            return
        entry = self.entries[task.uid]
        entry.until = until
        if in_doubt:
            self._delayed.put(task.uid, until)
        else:
            self._consider_again(entry, now=now)

    def wake(self, *, now: Instant) -> None:
        """Consider the Tasks whose time has come."""
        while (first := self._delayed.first()) is not None and first[0] <= now:
            self._delayed.discard(first[1])
            entry = self.entries[first[1]]
            entry.until = None
            # Held still: the fate of a write was in doubt, and the watch has not told since.
            self._consider_again(entry, now=now)
        self.judge_newcomers(now=now)

    def _consider_again(self, entry: Entry, *, now: Instant) -> None:
        """Put a Task back where it belongs, by the newest version that the watch has shown."""
        uid = entry.task.uid
        self._assumed.pop(uid, None)
        late = self._late.pop(uid, None)
        if late is not None:
            self.put_task(late, now=now)
        else:
            self._renew(entry, entry.task, now=now)
            self.settle(now=now)

    def next_due(self) -> Instant | None:
        """Return when the next Task becomes due; None when none does."""
        first = self._delayed.first()
        return None if first is None else Instant(first[0])

    def condemn(self, ending: Ending) -> None:
        """Decide that a Task ends: now if it waits, else as soon as its worker has stopped."""
        task = ending.task
        entry = self.entries[task.uid]
        self._condemned[task.uid] = (task.run_number, ending)
        if entry.station is Place.HELD:
            self._stop_if_asked(entry)
        else:
            self._move(entry, Place.ENDING)
            self._rest(entry)
            self.verdicts.append(ending)

    def running(self, queue: str) -> int:
        """Return how many Tasks of a queue hold a worker."""
        return self.counts[queue, Place.HELD]

    def inside(self, queue: str) -> int:
        """Return how many Tasks of a queue count for its `maxPending`."""
        return sum(self.counts[queue, station] for station in _INSIDE)

    def park(self, entry: Entry) -> None:
        """Let a Task that is ready wait for its concurrency key."""
        state = self.queues[entry.task.queue]
        rank = float(entry.task.since) - entry.task.priority * state.queue.aging_seconds
        self._move(entry, PendingReason.CONCURRENCY_LIMIT)
        self.keys.park(entry.task.uid, (rank, entry.order), entry.shape)

    # Where a Task stands

    def _renew(self, entry: Entry, task: Task, *, now: Instant) -> None:
        if entry.task.queue != task.queue:
            self._count(entry.task.queue, entry.station, -1)
            self._take_out(entry)
            left, entry.station = entry.task.queue, Place.ANSWERING
            self._count(task.queue, entry.station, +1)
            self._fills.add(left)
        if task is not entry.task:
            entry.task, entry.until = task, None
        shape = self._shape_of(task)
        self._rooms |= self.keys.put(task.uid, task.concurrency)
        condemned = self._condemned.get(task.uid)
        if condemned is not None and condemned[0] != task.run_number:
            del self._condemned[task.uid]
        if task.held and task.holder is not None:
            entry.shape = shape
            self._delayed.discard(task.uid)
            self._move(entry, Place.HELD)
            self._count_held(entry, task.holder.pod_uid, now=now)
            self._stop_if_asked(entry)
            return
        self._free(task.uid, now=now)
        if entry.shape is not shape:
            self.capacity.release(task.uid)
        entry.shape = shape
        self._admit(entry, now=now)

    def _admit(self, entry: Entry, *, now: Instant) -> None:
        """Put a Task that no worker holds where it belongs."""
        task = entry.task
        station = self._station(entry, now=now)
        if station is Place.READY:
            self._ready(entry, now=now)
            return
        self._move(entry, station)
        uid = task.uid
        if station in NEEDS_A_PERSON:
            self.news.add(uid)
        elif station is PendingReason.WAITING_FOR_START_TIME:
            self._delayed.put(uid, task.start_after or now)
        elif station is PendingReason.BACKING_OFF:
            self._delayed.put(uid, max(task.due or now, entry.until or now))
        elif station is PendingReason.QUEUE_LIMIT:
            self.queues[task.queue].outside.put(uid, entry.age)
        elif station is Place.ENDING:
            self.verdicts.append(self._ending_of(task))
        self._rest(entry)

    def _ending_of(self, task: Task) -> Ending:
        if (condemned := self._condemned.get(task.uid)) is not None:
            return replace(condemned[1], task=task)
        verdict = self.dependencies.judge(task.uid)
        assert isinstance(verdict, Moot), "only a decided end, or that of another Task, ends a Task that waits"
        return Ending(task, Phase.SKIPPED, EndReason.DEPENDENCY_FAILED, verdict.message)

    def _rest(self, entry: Entry) -> None:
        """Note that a Task neither holds its concurrency key nor waits for it."""
        if (asked := entry.task.concurrency) is not None:
            self.keys.rest(entry.task.uid)
            self._rooms.add(asked.key)

    def _station(self, entry: Entry, *, now: Instant) -> Station:
        task = entry.task
        if not may_run(task):
            return PendingReason.SUSPENDED if task.suspend else Place.ANSWERING
        if task.uid in self._condemned:
            return Place.ENDING
        state = self.queues.get(task.queue)
        if state is None:
            return PendingReason.QUEUE_NOT_FOUND
        if task.template and not task.resolved:
            template = self.templates.get(task.template)
            if template is None:
                return PendingReason.TEMPLATE_NOT_FOUND
            if self.arguments_problem(task):
                return PendingReason.INVALID_SPEC
        verdict = self.dependencies.judge(task.uid) if task.depends_on else None
        if isinstance(verdict, Cyclic):
            return PendingReason.DEPENDENCY_CYCLE
        if isinstance(verdict, Moot):
            return Place.ENDING
        if task.start_after is not None and task.start_after > now:
            return PendingReason.WAITING_FOR_START_TIME
        if isinstance(verdict, Waiting):
            return PendingReason.WAITING_FOR_DEPENDENCY
        if max(task.due or now, entry.until or now) > now:
            return PendingReason.BACKING_OFF
        limit = state.queue.max_pending
        arrives = task.attempt == 0 and entry.station not in _INSIDE
        if limit is not None and arrives and self.inside(task.queue) >= limit:
            return PendingReason.QUEUE_LIMIT
        return Place.READY

    def arguments_problem(self, task: Task) -> str:
        """Return why the template of a Task, or its arguments, cannot be used; empty if they can."""
        template = self.templates[task.template]
        return template.refusal or self._arguments_problem(task, template)

    def _ready(self, entry: Entry, *, now: Instant) -> None:
        task = entry.task
        if task.concurrency is not None:
            self.keys.wait(task.uid, entry.age)
            if task.attempt == 0 and not entry.judged and task.concurrency.on_conflict is not OnConflict.QUEUE:
                self._newcomers.add(task.uid)
            if not self.keys.room(task.uid):
                self.park(entry)
                return
        self._move(entry, Place.READY)
        self.queues[task.queue].backlog.put(task, entry.shape, entry.order)

    def judge_newcomers(self, *, now: Instant) -> None:
        """Let Tasks that could run for the first time have their say about others of their concurrency key.

        That waits until decisions are made: a new coordinator sees Tasks in no particular order, and has to know those
        that hold a worker, or are older.
        """
        self.settle(now=now)
        while self._newcomers:
            newcomers = sorted((self.entries[uid] for uid in self._newcomers & self.entries.keys()), key=_age)
            self._newcomers.clear()
            for entry in newcomers:
                if entry.station in _INSIDE and entry.task.concurrency is not None:
                    entry.judged = True
                    self._judge_conflict(entry)
            self.settle(now=now)

    def _judge_conflict(self, entry: Entry) -> None:
        task = entry.task
        assert task.concurrency is not None
        conflict = self.keys.conflict(task.uid, entry.age, task.concurrency.on_conflict)
        if conflict.rejected:
            key, holders, limit = self.keys.standing(task.uid)
            message = (
                f'concurrency key "{key}" has no room: {limit} may run at a time, and as many run or wait before this '
                f"Task ({holders} running)"
            )
            self.condemn(Ending(task, Phase.SKIPPED, EndReason.REJECTED, message))
        for uid in (*conflict.ended, *conflict.stopped):
            message = f'Task {task.name} with the same concurrency key "{task.concurrency.key}" took its place'
            self.condemn(Ending(self.entries[uid].task, Phase.CANCELLED, EndReason.REPLACED, message))

    def _reject_if_full(self, entry: Entry) -> None:
        task = entry.task
        state = self.queues.get(task.queue)
        if state is None or task.attempt or not may_run(task) or state.queue.when_full is not WhenFull.REJECT:
            return
        limit = state.queue.max_pending
        if limit is not None and self.inside(task.queue) >= limit:
            message = f"queue {task.queue} is full: {limit} Tasks wait in it (maxPending), and it says whenFull: Reject"
            ending = Ending(task, Phase.SKIPPED, EndReason.REJECTED, message)
            self._condemned[task.uid] = (task.run_number, ending)

    def _move(self, entry: Entry, station: Station) -> None:
        """Take a Task out of where it waits, and count it elsewhere."""
        if entry.station is not station:
            self._take_out(entry)
            self._count(entry.task.queue, entry.station, -1)
            self._count(entry.task.queue, station, +1)
            if entry.station in NEEDS_A_PERSON:
                self.news.add(entry.task.uid)
            if entry.station in _INSIDE and station not in _INSIDE:
                self._fills.add(entry.task.queue)
            entry.station = station

    def _count(self, queue: str, station: Station, by: int) -> None:
        self.counts[queue, station] += by
        if not self.counts[queue, station]:
            del self.counts[queue, station]

    def _take_out(self, entry: Entry) -> None:
        uid, state = entry.task.uid, self.queues.get(entry.task.queue)
        self._delayed.discard(uid)
        if state is not None:
            state.backlog.discard(uid)
            state.outside.discard(uid)
        if uid not in self._assumed:
            self.capacity.release(uid)

    def _count_held(self, entry: Entry, pod_uid: str, *, now: Instant) -> None:
        task, slots = entry.task, entry.shape.slots
        self.capacity.take(task.uid, pod_uid, slots=slots, alone=entry.shape.alone)
        if task.concurrency is not None:
            self.keys.hold(task.uid, entry.age)
        if self._held.get(task.uid) != (task.queue, slots):
            self._free_share(task.uid, now=now)
            self._held[task.uid] = (task.queue, slots)
            self.shares.hold(task.queue, slots, now=now)

    def _free(self, uid: str, *, now: Instant) -> None:
        self.capacity.free(uid)
        self._free_share(uid, now=now)

    def _free_share(self, uid: str, *, now: Instant) -> None:
        if (held := self._held.pop(uid, None)) is not None:
            self.shares.hold(held[0], -held[1], now=now)

    def _forget(self, uid: str, *, now: Instant) -> None:
        self._condemned.pop(uid, None)
        entry = self.entries.get(uid)
        if entry is None:
            return
        self._take_out(entry)
        self._free(uid, now=now)
        del self.entries[uid]
        self._count(entry.task.queue, entry.station, -1)
        self._rooms |= self.keys.put(uid, None)
        self._fills.add(entry.task.queue)

    def _stop_if_asked(self, entry: Entry) -> None:
        task = entry.task
        if not task.held or task.stop_requested:
            return
        state = self.queues.get(task.queue)
        if task.uid in self._condemned:
            self.verdicts.append(Stop(task, StopReason.CANCELLED))
        elif state is not None and state.queue.drain:
            self.verdicts.append(Stop(task, StopReason.DRAINED))

    def _reconsider(self, entries: Iterable[Entry], *, now: Instant) -> None:
        for entry in list(entries):
            if entry.station is not Place.HELD:
                self._admit(entry, now=now)

    def settle(self, *, now: Instant) -> None:
        """Let Tasks go on for which there has become room: in their queue, or under their key."""
        while self._rooms or self._fills:
            while self._rooms:
                for uid in self.keys.unpark(self._rooms.pop()):
                    self._admit(self.entries[uid], now=now)
            while self._fills:
                self._fill(self._fills.pop(), now=now)

    def _fill(self, queue: str, *, now: Instant) -> None:
        state = self.queues.get(queue)
        while state is not None and (first := state.outside.first()) is not None:
            entry = self.entries[first[1]]
            self._admit(entry, now=now)
            if entry.station is PendingReason.QUEUE_LIMIT:
                return

    def _shape_of(self, task: Task) -> Shape:
        return _shape(task.queue, task.slots or 1, task.requires, task.runs_alone)
