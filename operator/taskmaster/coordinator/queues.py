"""Tells the cache about TaskQueues, and people how each of them is doing.

Queues are listed before the first decision of a term, or a paused one would start Tasks whenever the leader changes.
Status is written when it differs: at once to answer an edit of the spec, else at most once in five seconds per queue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from taskmaster.api import decode
from taskmaster.coordinator import conditions
from taskmaster.coordinator.cache import Cache, wall_clock
from taskmaster.coordinator.waiting import changed_or_due
from taskmaster.core.explanation import Surveys, pending
from taskmaster.core.queue import Queue
from taskmaster.core.task import Instant
from taskmaster.core.tenant import Tenant
from taskmaster.kube.api import MergePatch
from taskmaster.kube.dispatcher import Dispatcher, Outcome, Write
from taskmaster.kube.informer import Delta
from taskmaster.kube.resource import TASKQUEUES

logger = logging.getLogger(__name__)

STATUS_SECONDS: Final = 5.0
"""Between two looks at a queue's status, and so between two writes of it."""

SHAPES_NAMED: Final = 3
"""Shapes of Tasks whose blockers the status names, those of most Tasks first."""

Key = tuple[str, str]
Object = dict[str, Any]


class QueueController:
    """Keeps the cache's queues and the status of all TaskQueues."""

    def __init__(
        self,
        cache: Cache,
        dispatcher: Dispatcher,
        *,
        ready: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], Instant] = wall_clock,
    ) -> None:
        self._cache = cache
        self._dispatcher = dispatcher
        self._ready = ready
        self._clock = clock
        self._wall_clock = wall_clock
        self._queues: dict[Key, Object] = {}
        self._edited: set[Key] = set()
        self._writing: set[Key] = set()
        self._changed = asyncio.Event()

    def on_deltas(self, deltas: Sequence[Delta[Object]]) -> None:
        """Take the deltas of the TaskQueue informer."""
        for delta in deltas:
            obj = delta.new or delta.old
            assert obj is not None, "a delta has an object before it, after it, or both"
            key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            if delta.new is None:
                self._queues.pop(key, None)
                self._cache.queue_changed(*key, None)
                continue
            self._queues[key] = delta.new
            if delta.old is None or delta.old["spec"] != delta.new["spec"]:
                self._tell(key, delta.new)
            if delta.new.get("status", {}).get("observedGeneration") != delta.new["metadata"]["generation"]:
                self._edited.add(key)
                self._changed.set()

    async def run(self) -> None:
        """Write what differs until cancelled."""
        next_look = self._clock() + STATUS_SECONDS
        while True:
            await changed_or_due(self._changed, max(0.0, next_look - self._clock()))
            if not self._ready():
                next_look = self._clock() + STATUS_SECONDS
                continue
            self.step(all_queues=self._clock() >= next_look)
            if self._clock() >= next_look:
                next_look = self._clock() + STATUS_SECONDS

    def step(self, *, all_queues: bool) -> None:
        """Write the status of the queues that were edited, or of all, where it differs."""
        edited, self._edited = self._edited, set()
        now = self._wall_clock()
        for namespace in {key[0] for key in (self._queues if all_queues else edited)}:
            tenant = self._cache.tenants[namespace]
            counts = pending(tenant, now=now)
            for key in [key for key in (self._queues if all_queues else edited) if key[0] == namespace]:
                if key in self._queues and key[1] in tenant.queues and key not in self._writing:
                    reasons = {reason: number for (queue, reason), number in counts.items() if queue == key[1]}
                    self._write(key, _status(self._queues[key], tenant, reasons, now=now))

    def _tell(self, key: Key, obj: Object) -> None:
        try:
            self._cache.queue_changed(*key, decode.queue(obj))
        except (KeyError, ValueError) as error:
            # Of a newer schema: what the queue was before goes on.
            logger.warning("queue cannot be read", extra={"queue": "/".join(key), "error": repr(error)})

    def _write(self, key: Key, status: Object) -> None:
        old = self._queues[key].get("status", {})
        if status == old:
            return
        self._writing.add(key)

        def done(outcome: Outcome) -> None:
            self._writing.discard(key)
            if outcome.error is not None:
                self._edited.add(key)  # for the next look

        gone = old.get("pendingByReason", {}).keys() - status["pendingByReason"].keys()
        change = {**status, "pendingByReason": {**dict.fromkeys(gone), **status["pendingByReason"]}}
        self._dispatcher.submit(
            Write(
                key=f"taskqueue/{key[0]}/{key[1]}",
                resource=TASKQUEUES,
                namespace=key[0],
                name=key[1],
                patch=MergePatch({"status": change}),
                subresource="status",
                done=done,
            )
        )


def _status(obj: Object, tenant: Tenant, reasons: dict[str, int], *, now: Instant) -> Object:
    state = tenant.queues[obj["metadata"]["name"]]
    since = state.backlog.oldest()
    surveys = Surveys()
    shapes = sorted(state.backlog.shapes(), key=lambda each: -each[1])[:SHAPES_NAMED]
    blockers = [f"{number} Tasks: {surveys.of(tenant, shape)}" for shape, number in shapes]
    return {
        "observedGeneration": obj["metadata"]["generation"],
        "pending": sum(reasons.values()),
        "pendingByReason": dict(sorted(reasons.items())),
        "running": tenant.running(state.queue.name),
        "oldestPendingSeconds": 0 if since is None else max(0, int(now - since)),
        "blockers": "; ".join(blockers)[:1_024],
        "conditions": [_ready(obj, state.queue, now=now)],
    }


def _ready(obj: Object, queue: Queue, *, now: Instant) -> Object:
    if queue.drain:
        reason, message = "Draining", "spec.drain is true: nothing starts, and what runs is handed back"
    elif queue.paused:
        reason, message = "Paused", "spec.paused is true: nothing starts"
    else:
        reason, message = "Open", "Tasks are started"
    return conditions.ready(obj, holds=not queue.closed, reason=reason, message=message, now=now)
