"""Ends and deletes the Tasks of a schedule whose time is over: replaced ones, and those beyond the history."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from taskmaster.api import patches
from taskmaster.coordinator.cache import Cache
from taskmaster.coordinator.writes import deletion, status_write, worth_repeating
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.request import open_request
from taskmaster.core.schedule import occurrence_of
from taskmaster.core.task import Instant, StopReason, Task
from taskmaster.kube.dispatcher import Dispatcher, Outcome
from taskmaster.kube.errors import NotFound

RETRY_SECONDS: Final = 5.0
"""Before a write that failed is tried again."""


class Upkeep:
    """Writes about Tasks that schedules have created; `again` is told whose Tasks to look at once more, and when."""

    def __init__(
        self,
        cache: Cache,
        assigner: Dispatcher,
        cleaner: Dispatcher,
        *,
        wall_clock: Callable[[], Instant],
        again: Callable[[tuple[str, str], float], None],
    ) -> None:
        self._cache = cache
        self._assigner = assigner
        self._cleaner = cleaner
        self._wall_clock = wall_clock
        self._again = again
        self._stopping: dict[str, str] = {}
        """Versions of Tasks that were asked to make room for a newer one."""
        self._deleting: set[str] = set()

    def forget(self, task: Task) -> None:
        """Drop what is remembered of a Task that is gone."""
        self._stopping.pop(task.uid, None)

    def make_room(self, tasks: Collection[Task]) -> None:
        """End what is older than the newest Task that was created by time."""
        dated = [(occurrence, task) for task in tasks if (occurrence := _occurrence(task)) is not None]
        if not dated:
            return
        newest, newcomer = max(dated, key=lambda pair: pair[0])
        for task in tasks:
            occurrence = _occurrence(task)
            if occurrence is not None and task.run_number == 1:
                older = occurrence < newest
            else:  # a person wanted it, then
                older = max(task.created, task.queued) < newcomer.created
            asked = task.stop_requested or self._stopping.get(task.uid) == task.resource_version
            if older and not task.finished and not asked:
                self._stop(task, newcomer)

    def trim(self, tasks: Collection[Task], *, succeeded: int, failed: int, covers: Callable[[int], bool]) -> None:
        """Delete the oldest finished Tasks beyond the limits, but none whose occurrence is not remembered otherwise."""
        over = [task for task in tasks if task.finished and open_request(task) is None]
        for good, limit in ((True, succeeded), (False, failed)):
            some = [task for task in over if (task.phase is Phase.SUCCEEDED) == good]
            some.sort(key=lambda task: (task.completed or task.created, task.name))
            for task in some[: max(0, len(some) - limit)]:
                occurrence = _occurrence(task)
                if (occurrence is None or covers(occurrence)) and not self._cache.needed(task):
                    self._delete(task)

    def _stop(self, task: Task, newcomer: Task) -> None:
        now = self._wall_clock()
        if task.held:
            patch = patches.request_stop(task, StopReason.CANCELLED, now=now)
        elif task.phase is Phase.PENDING:
            message = f"replaced by {newcomer.name}, the next Task of its schedule"
            patch = patches.end_waiting(task, Phase.CANCELLED, EndReason.REPLACED, message, now=now)
        else:
            return
        self._stopping[task.uid] = task.resource_version

        def done(outcome: Outcome) -> None:
            if worth_repeating(outcome) and self._stopping.pop(task.uid, None) is not None:
                self._again((task.namespace, task.schedule), RETRY_SECONDS)

        self._assigner.submit(status_write(task, patch, done))

    def _delete(self, task: Task) -> None:
        if task.uid in self._deleting:
            return
        self._deleting.add(task.uid)

        def done(outcome: Outcome) -> None:
            self._deleting.discard(task.uid)
            if outcome.error is not None and not isinstance(outcome.error, NotFound):
                self._again((task.namespace, task.schedule), RETRY_SECONDS)

        self._cleaner.submit(deletion(task, done))


def _occurrence(task: Task) -> int | None:
    return occurrence_of(task.schedule, task.name)
