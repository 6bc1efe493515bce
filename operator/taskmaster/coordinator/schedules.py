"""Creates the Tasks of TaskSchedules when they are due, and says in their status what has happened.

Level-triggered: whatever happens (a schedule is edited, one of its Tasks ends, time passes), the schedule is looked at
as a whole. What to start is decided by `core.schedule`; here it is done. An occurrence is started by creating a Task
whose name it determines, and then remembered by the mark in the status, at once. Between the two an operator may die:
the next one creates the same Task again, and the API server refuses it. Finished Tasks are deleted, by us or by their
TTL, only after the mark that covers them was written, else that refusal would not come.

A Task that was just created counts as active before the watch shows it: else Forbid would start a second one meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from taskmaster.api import decode, names, schedules
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.conditions import ready_of
from taskmaster.coordinator.refusal import Refused
from taskmaster.coordinator.schedule_status import Entry, Key, Object, met, status
from taskmaster.coordinator.schedule_upkeep import Upkeep
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.core.heap import KeyedHeap
from taskmaster.core.schedule import (
    ConcurrencyPolicy,
    Schedule,
    next_due,
    occurrence_of,
    plan,
    run_now_name,
    task_name,
)
from taskmaster.core.task import Instant, Task
from taskmaster.kube.api import Api, MergePatch
from taskmaster.kube.dispatcher import Dispatcher
from taskmaster.kube.errors import AlreadyExists, ApiError, Forbidden, NotFound
from taskmaster.kube.resource import TASKS, TASKSCHEDULES

logger = logging.getLogger(__name__)

STATUS_SECONDS: Final = 5.0
"""Between two writes of a status, but for those that answer an edit or remember a start."""

RETRY_SECONDS: Final = 5.0
"""Before a create is tried again that the API server could not carry out."""

REFUSED_SECONDS: Final = 60.0
"""Before one is tried again that is forbidden: a quota may have room by then."""

TICK_SECONDS: Final = 0.001
"""Timers may end a little early: then it is slept once more, for at least so long."""

SHORTEST_SLEEP: Final = 0.1
LONGEST_SLEEP: Final = 5.0
"""The clock may be set meanwhile."""

UNHEARD_SECONDS: Final = 60.0
"""How long to wait, from the beginning of a term, for a schedule that a Task names, before there is none."""

UNSEEN_SECONDS: Final = 60.0
"""How long a Task counts as active that the watch does not show."""

CONCURRENCY: Final = 8
"""How many schedules are looked at at the same time."""


class ScheduleController:
    """Keeps all TaskSchedules."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        assigner: Dispatcher,
        cleaner: Dispatcher,
        *,
        may_write: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        self._api = api
        self._may_write = may_write
        self._clock = clock
        self._wall_clock = wall_clock
        self._entries: dict[Key, Entry] = {}
        self._tasks: dict[Key, dict[str, Task]] = defaultdict(dict)
        self._dirty: set[Key] = set()
        self._dues: KeyedHeap[float] = KeyedHeap()
        """When each schedule is to be looked at, in time of day."""
        self._looks: KeyedHeap[float] = KeyedHeap()
        """The same, on our own clock: for what is tried again, or written later."""
        self._upkeep = Upkeep(cache, assigner, cleaner, wall_clock=wall_clock, again=self._look_again)
        self._changed = asyncio.Event()
        self._deadline = clock() + UNHEARD_SECONDS
        cache.task_listeners.append(self._on_task)
        cache.unsettled = self._unsettled

    def schedule_changed(self, obj: Object, deleted: bool) -> None:
        """Take note of a TaskSchedule."""
        key = obj["metadata"]["namespace"], obj["metadata"]["name"]
        known = self._entries.get(key)
        if deleted or "deletionTimestamp" in obj["metadata"]:
            if known is not None and known.obj["metadata"]["uid"] == obj["metadata"]["uid"]:
                self._forget(key)
            return
        if known is None or known.obj["metadata"]["uid"] != obj["metadata"]["uid"]:
            self._entries[key] = known = met(obj, now=self._wall_clock())
            self._read(known)
            known.unchecked = not known.answered or ready_of(known.obj).get("reason") == "TaskRefused"
        elif _version(obj) < _version(known.obj):
            return  # an event from before our last write
        else:
            self._take(known, obj)
        self._mark(key)

    async def run(self) -> None:
        """Create, stop, delete and tell, until cancelled."""
        places = asyncio.Semaphore(CONCURRENCY)

        async def look(key: Key) -> None:
            async with places:
                await self._look(key)

        while True:
            await changed_or_due(self._changed, self._seconds_left())
            if not self._may_write():
                continue
            due = self._dirty | self._taken(self._dues, self._wall_clock()) | self._taken(self._looks, self._clock())
            self._dirty = set()
            async with asyncio.TaskGroup() as group:
                for key in due:
                    group.create_task(look(key))

    def _seconds_left(self) -> float:
        waits = [LONGEST_SLEEP]
        for heap, now in ((self._dues, float(self._wall_clock())), (self._looks, self._clock())):
            if (first := heap.first()) is not None:
                waits.append(first[0] - now)
        # Who may not write may have due ones, and can do nothing about them.
        return max(TICK_SECONDS if self._may_write() else 1.0, min(waits))

    def _taken(self, heap: KeyedHeap[float], now: float) -> set[Key]:
        taken = set()
        while (first := heap.first()) is not None and first[0] <= now:
            heap.discard(first[1])
            namespace, _, name = first[1].partition("/")
            taken.add((namespace, name))
        return taken

    def _take(self, entry: Entry, obj: Object) -> None:
        """Go on with a newer version of a schedule."""
        known, entry.obj = entry.obj, obj
        if known["metadata"]["generation"] == obj["metadata"]["generation"]:
            return
        if schedules.timing(obj["spec"]) != schedules.timing(known["spec"]):
            entry.record = replace(entry.record, mark=max(entry.record.mark, int(self._wall_clock())))
        self._read(entry)
        self._mark(entry.key)

    def _read(self, entry: Entry) -> None:
        entry.unchecked, entry.retry_at = True, 0.0
        try:
            entry.parsed, entry.trouble = schedules.schedule(entry.obj), None
        except ValueError as error:  # Unusable, or a word that only a newer version knows
            entry.parsed, entry.trouble = None, Refused("InvalidSchedule", str(error))

    def _forget(self, key: Key) -> None:
        self._entries.pop(key, None)
        for heap in (self._dues, self._looks):
            heap.discard("/".join(key))

    def _look_again(self, key: Key, seconds: float) -> None:
        self._looks.put("/".join(key), self._clock() + seconds)
        self._changed.set()

    def _mark(self, key: Key) -> None:
        self._dirty.add(key)
        self._changed.set()

    def _on_task(self, old: Task | None, new: Task | None) -> None:
        if old is not None and old.schedule and (new is None or new.schedule != old.schedule):
            key = (old.namespace, old.schedule)
            self._tasks[key].pop(old.uid, None)
            if not self._tasks[key]:
                del self._tasks[key]
            self._upkeep.forget(old)
            self._mark(key)
        if new is not None and new.schedule:
            self._tasks[new.namespace, new.schedule][new.uid] = new
            self._mark((new.namespace, new.schedule))
        task = new or old
        if task is not None and (entry := self._entries.get((task.namespace, task.schedule))) is not None:
            entry.unseen.pop(task.uid, None)

    async def _look(self, key: Key) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        if self._clock() >= entry.retry_at:
            await self._check(entry)
            await self._run_now(entry)
        if entry.parsed is not None and self._clock() >= entry.retry_at:
            await self._start(entry, entry.parsed)
        if entry.parsed is not None and self._entries.get(key) is entry:
            if entry.parsed.policy is ConcurrencyPolicy.REPLACE:
                self._upkeep.make_room(self._tasks_of(entry))
            self._trim(entry)
        await self._write_status(entry)
        self._plan_look(entry)

    def _plan_look(self, entry: Entry) -> None:
        key = entry.key
        if self._entries.get(key) is not entry:
            return
        text, now = "/".join(key), self._clock()
        due = next_due(entry.parsed, entry.record) if entry.parsed is not None else None
        self._dues.discard(text)
        if due is not None and now >= entry.retry_at:
            # One that is due already was looked at just now: whatever holds it up, there is no hurry.
            self._dues.put(text, max(float(due), self._wall_clock() + SHORTEST_SLEEP))
        later = [entry.retry_at, entry.next_write, *(until for _, until in entry.unseen.values())]
        if (soonest := min((each for each in later if each > now), default=None)) is not None:
            self._looks.put(text, soonest)

    # ---- creating

    async def _check(self, entry: Entry) -> None:
        """Ask, after an edit, whether the API server would take the Task; so nobody has to wait for the night."""
        if not entry.unchecked:
            return
        obj = entry.obj
        try:
            await self._api.create(TASKS, entry.key[0], schedules.task(obj, f"{entry.key[1]}-check"), dry_run=True)
            refusal = None
        except AlreadyExists:
            refusal = None
        except ApiError as error:
            if _passing(error):
                entry.retry_at = self._clock() + (error.retry_after or RETRY_SECONDS)
                return
            refusal = _refused(error)
        if entry.obj is obj or entry.obj["metadata"]["generation"] == obj["metadata"]["generation"]:
            entry.refusal, entry.unchecked = refusal, False

    async def _run_now(self, entry: Entry) -> None:
        metadata = entry.obj["metadata"]
        value = (metadata.get("annotations") or {}).get(names.RUN_NOW_ANNOTATION, "")
        if not value or schedules.answer(value) == entry.run_now:
            return
        name = run_now_name(metadata["name"], metadata["uid"], value)
        if await self._create(entry, name) is not None:
            entry.run_now, entry.urgent = schedules.answer(value), True

    async def _start(self, entry: Entry, schedule: Schedule) -> None:
        result = plan(schedule, entry.record, active=bool(self._active(entry)), now=self._wall_clock())
        entry.record = result.record
        for number, start in enumerate(result.starts):
            before = entry.record
            created = await self._create(entry, task_name(schedule.name, start.occurrence), start.occurrence)
            if entry.parsed is not schedule:
                # Edited meanwhile: what is left is judged by the new spec, and this one is remembered.
                mark = max(entry.record.mark, start.occurrence)
                entry.record = replace(start.record, mark=mark) if created else entry.record
                return
            if created is None:
                return
            entry.urgent = True
            if not created:
                missed = before.missed + len(result.starts) - number
                entry.record = replace(result.last, runs=before.runs, latest=before.latest, missed=missed)
                return
            entry.record = start.record

    async def _create(self, entry: Entry, name: str, occurrence: int | None = None) -> bool | None:
        """Create a Task; return whether it is there, or None if that has to be tried again."""
        namespace = entry.key[0]
        try:
            stored = await self._api.create(TASKS, namespace, schedules.task(entry.obj, name, occurrence))
        except AlreadyExists:
            return await self._found(entry, name)
        except ApiError as error:
            logger.info("Task of a schedule not created", extra={"schedule": "/".join(entry.key), "error": str(error)})
            if _passing(error):
                entry.retry_at = self._clock() + (error.retry_after or RETRY_SECONDS)
                return None
            entry.refusal = _refused(error)
            if isinstance(error, Forbidden):
                entry.retry_at = self._clock() + REFUSED_SECONDS
                return None
            return False
        entry.refusal = None
        self._believe(entry, decode.task(stored))
        return True

    async def _found(self, entry: Entry, name: str) -> bool | None:
        """Take note of a Task that was created before: by an operator that could not remember it any more."""
        try:
            self._believe(entry, decode.task(await self._api.get(TASKS, entry.key[0], name)))
        except NotFound:
            pass  # and gone already
        except ApiError:
            entry.retry_at = self._clock() + RETRY_SECONDS
            return None
        return True

    def _believe(self, entry: Entry, task: Task) -> None:
        if task.uid not in self._tasks.get(entry.key, {}) and not task.finished:
            entry.unseen[task.uid] = (task.name, self._clock() + UNSEEN_SECONDS)

    def _unsettled(self, task: Task) -> bool:
        occurrence = occurrence_of(task.schedule, task.name) if task.schedule else None
        if occurrence is None:
            return False
        entry = self._entries.get((task.namespace, task.schedule))
        return self._clock() < self._deadline if entry is None else not entry.covers(occurrence)

    def _active(self, entry: Entry) -> list[str]:
        now = self._clock()
        entry.unseen = {uid: (name, until) for uid, (name, until) in entry.unseen.items() if until > now}
        seen = [task.name for task in self._tasks_of(entry) if not task.finished]
        return seen + [name for name, _ in entry.unseen.values()]

    def _tasks_of(self, entry: Entry) -> list[Task]:
        return list(self._tasks.get(entry.key, {}).values())

    def _trim(self, entry: Entry) -> None:
        spec = entry.obj["spec"]
        self._upkeep.trim(
            self._tasks_of(entry),
            succeeded=spec.get("successfulTasksHistoryLimit", 3),
            failed=spec.get("failedTasksHistoryLimit", 1),
            covers=entry.covers,
        )

    # ---- telling

    async def _write_status(self, entry: Entry) -> None:
        obj = entry.obj
        old = obj.get("status") or {}
        new = status(entry, self._tasks_of(entry), self._active(entry), now=self._wall_clock())
        if new == old:
            entry.urgent = False
            return
        if entry.answered and not entry.urgent and self._clock() < entry.next_write:
            return
        record = entry.record
        entry.next_write = self._clock() + STATUS_SECONDS
        gone = dict.fromkeys(old.keys() - new.keys())
        patch = MergePatch({"metadata": {"uid": obj["metadata"]["uid"]}, "status": {**gone, **new}})
        try:
            stored = await self._api.patch(TASKSCHEDULES, *entry.key, patch, subresource="status")
        except ApiError as error:
            logger.info(
                "status of a schedule not written", extra={"schedule": "/".join(entry.key), "error": str(error)}
            )
            return
        entry.urgent = False
        entry.written = record
        if self._entries.get(entry.key) is entry:
            self._take(entry, stored)  # it may have been edited just before
        self._trim(entry)


def _version(obj: Object) -> int:
    """Return the version of an object, to see which of two is newer."""
    text: str = obj["metadata"]["resourceVersion"]
    return int(text) if text.isdecimal() else 0


def _passing(error: ApiError) -> bool:
    """Whether an error is not about the Task: the same request may succeed later."""
    return error.retriable or not 400 <= error.status < 500


def _refused(error: ApiError) -> Refused:
    return Refused("TaskRefused", f"the API server refused the Task: {error.message}")
