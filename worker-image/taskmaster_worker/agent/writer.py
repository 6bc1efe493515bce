"""Status writes: each is repeated until it is known what became of it.

What an answer means (the design's table):

| answer                        | then                                                                             |
|-------------------------------|----------------------------------------------------------------------------------|
| applied                       | done                                                                             |
| 422, 413, 400, not encodable  | read: still ours → it was unacceptable: write the last resort in place of an end |
| 403                           | read: still ours → a bug or a missing role: say so loudly, repeat with backoff   |
| 409                           | repeat                                                                           |
| 404                           | gone                                                                             |
| 401, 429                      | pause, repeat                                                                    |
| 5xx, none                     | pause, read, compare, repeat                                                     |

A read that finds the write applied, the Task gone, or in other hands ends it. A start report or a save that is not
acceptable is dropped: the attempt goes on, and its end will be written.

The order of a Task's writes is kept by the caller, who sends a save only when the start report is settled, and the end
only when both are settled or cancelled; even a cancelled request that is still on its way does no harm, because its
`test` operations fail once the end is written.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum, auto
from random import Random
from typing import Final, Protocol

from taskmaster.kube.api import Api, JsonPatch
from taskmaster.kube.backoff import Backoff
from taskmaster.kube.errors import ApiError, Conflict, Forbidden, NotFound, TooManyRequests, Unauthorized
from taskmaster.kube.resource import TASKS
from taskmaster_worker.agent import record
from taskmaster_worker.agent.health import Trouble
from taskmaster_worker.agent.record import Kind, StatusWrite
from taskmaster_worker.agent.standing import Standing, standing

logger = logging.getLogger(__name__)

CONCURRENCY: Final = 16
"""Requests in flight; pauses do not count."""

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 15.0


class Settled(Enum):
    """What became of a write."""

    DONE = auto()
    REJECTED = auto()
    """The API server did not accept it; in place of an end the last resort was written, else nothing."""
    SUPERSEDED = auto()
    GONE = auto()


class WriteObserver(Protocol):
    """Receives one call per answer to a status write; `code` 0 means that none came, or that nothing was sent."""

    def status_write(self, kind: str, code: int) -> None:
        """Count it."""


class StatusWriter:
    """Performs status writes."""

    def __init__(
        self,
        api: Api,
        *,
        observer: WriteObserver,
        clock: Callable[[], float],
        random: Random,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._api = api
        self._observer = observer
        self._clock = clock
        self._random = random
        self._slots = asyncio.Semaphore(concurrency)
        self.trouble: Trouble | None = None
        """Set by a refusal that is not about the Task, until the next write is settled."""

    async def write(self, write: StatusWrite) -> Settled:
        """Perform a write; return only when it is known what became of it."""
        backoff = Backoff(initial=FIRST_PAUSE_SECONDS, factor=2.0, maximum=LONGEST_PAUSE_SECONDS, random=self._random)
        settled = Settled.DONE
        while True:
            problem = await self._try(write)
            if problem is None:
                self.trouble = None
                return settled
            if isinstance(problem, NotFound):
                self.trouble = None
                return Settled.GONE
            unacceptable = not isinstance(problem, ApiError) or problem.status in (400, 413, 422)
            if not unacceptable:
                self._worry(problem)
                if not isinstance(problem, Conflict | Forbidden):
                    await asyncio.sleep(backoff.next(at_least=_retry_after(problem)))
                    if isinstance(problem, TooManyRequests | Unauthorized):
                        continue  # the server did not look at it: there is nothing to read
            match await self._look(write, backoff):
                case Standing.DONE:
                    return settled
                case Standing.GONE:
                    return Settled.GONE
                case Standing.MOVED_ON:
                    return Settled.SUPERSEDED
            if unacceptable and settled is Settled.DONE:
                self._complain("status write was not accepted", write, problem)
                settled = Settled.REJECTED
                if write.kind in (Kind.START, Kind.SAVE):
                    return settled
                write = record.last_resort(write, str(problem))
            elif unacceptable or isinstance(problem, Forbidden | Conflict):
                if not isinstance(problem, Conflict):
                    self._worry(problem)
                    self._complain("status write is refused, trying again", write, problem)
                await asyncio.sleep(backoff.next(at_least=_retry_after(problem)))

    async def _try(self, write: StatusWrite) -> Exception | None:
        task = write.task
        code = 0
        try:
            async with self._slots:
                await self._api.patch(
                    TASKS, task.namespace, task.name, JsonPatch(write.operations), subresource="status"
                )
            code = 200
        except ApiError as error:
            code = error.status
            return error
        except (TypeError, ValueError) as error:  # orjson: something in it is not JSON
            return error
        finally:
            self._observer.status_write(write.kind, code)
        return None

    async def _look(self, write: StatusWrite, backoff: Backoff) -> Standing:
        """Read the object until there is an answer, and compare."""
        while True:
            try:
                async with self._slots:
                    found = await self._api.get(TASKS, write.task.namespace, write.task.name)
            except NotFound:
                self.trouble = None
                return Standing.GONE
            except ApiError as error:
                self._worry(error)
                await asyncio.sleep(backoff.next(at_least=_retry_after(error)))
                continue
            where = standing(write, found)
            if where is not Standing.OPEN:
                self.trouble = None
            return where

    def _worry(self, problem: Exception) -> None:
        # Shedding load is not a fault of ours, and losing our Lease for it would make more load.
        if self.trouble is None and not isinstance(problem, TooManyRequests | Conflict):
            self.trouble = Trouble(self._clock(), f"status writes fail: {problem}")

    def _complain(self, text: str, write: StatusWrite, problem: Exception) -> None:
        task = write.task
        fields = {"kind": write.kind.value, "namespace": task.namespace, "task": task.name, "attempt": task.attempt}
        logger.error(text, extra={**fields, "error": str(problem)})


def _retry_after(problem: Exception) -> float | None:
    return problem.retry_after if isinstance(problem, ApiError) else None
