"""The requests of `run.http`: an executor of attempts like the runner, but inside the agent.

A stop interrupts a request at once, whatever its grace: there is nobody in it to be asked. The loss of the runner does
not touch one that is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

from taskmaster.api.patches import Ended
from taskmaster.core.task import Instant
from taskmaster_worker.agent.attempt import Executor
from taskmaster_worker.agent.http_call import failed, perform
from taskmaster_worker.runner.messages import Start

logger = logging.getLogger(__name__)


class RequestListener(Protocol):
    """Who is told what becomes of requests."""

    def on_request_started(self, attempt_id: str, started: Instant) -> None:
        """A request is on its way."""

    def on_request_ended(self, attempt_id: str, ended: Ended) -> None:
        """A request has been answered, or never will."""


class HTTPCalls(Executor):
    """Performs requests, each in a task of its own."""

    def __init__(self, *, now: Callable[[], Instant]) -> None:
        self.listener: RequestListener | None = None
        self._now = now
        self._under_way: dict[str, asyncio.Task[Ended]] = {}
        self._stopped: set[str] = set()

    def start(self, frame: Start) -> None:
        """Send the request of a frame whose headers have their values."""
        attempt_id = frame["id"]
        call = cast("dict[str, Any]", frame["run"])["http"]
        task = asyncio.get_running_loop().create_task(self._perform(attempt_id, call))
        self._under_way[attempt_id] = task
        task.add_done_callback(partial(self._done, attempt_id, self._now()))

    def stop(self, attempt_id: str, grace_seconds: float) -> None:
        """Interrupt a request."""
        if (task := self._under_way.get(attempt_id)) is not None:
            self._stopped.add(attempt_id)
            task.cancel()

    async def _perform(self, attempt_id: str, call: dict[str, Any]) -> Ended:
        started = self._now()
        if self.listener is not None:
            self.listener.on_request_started(attempt_id, started)
        return await perform(call, started=started, now=self._now)

    def _done(self, attempt_id: str, begun: Instant, task: asyncio.Task[Ended]) -> None:
        del self._under_way[attempt_id]
        stopped = attempt_id in self._stopped
        self._stopped.discard(attempt_id)
        if task.cancelled():
            if not stopped:
                return  # the process ends
            ended = failed("interrupted", started=begun, now=self._now())
        elif (error := task.exception()) is not None:
            # Its text might quote a header, so that only its type is told.
            kind = type(error).__name__
            logger.error("request of a task failed in an unforeseen way", extra={"error": kind})
            ended = failed(f"the request cannot be made: {kind}", started=begun, now=self._now())
        else:
            ended = task.result()
        if self.listener is not None:
            self.listener.on_request_ended(attempt_id, ended)
