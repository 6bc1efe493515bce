"""Reads of what an attempt needs before it can start: one object at a time, asked for until the API server answers.

All attempts share a few requests in flight, so that a Task with a thousand parents does not crowd out the renewals of
the Lease; pauses do not count.
"""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Final

from taskmaster.core.reason import EndReason
from taskmaster.kube.api import Api
from taskmaster.kube.backoff import Backoff
from taskmaster.kube.errors import ApiError, Forbidden, NotFound
from taskmaster.kube.resource import Object, Resource

logger = logging.getLogger(__name__)

CONCURRENCY: Final = 8
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 15.0


class UnresolvedError(Exception):
    """What an attempt needs cannot be had; the message says what, and never a value that comes from a Secret."""

    def __init__(self, reason: EndReason, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.final = final


class Reader:
    """Gets objects of the worker's namespace."""

    def __init__(self, api: Api, namespace: str, *, random: Random, concurrency: int = CONCURRENCY) -> None:
        self._api = api
        self._namespace = namespace
        self._random = random
        self._slots = asyncio.Semaphore(concurrency)

    async def get(self, resource: Resource, name: str) -> Object | None:
        """Return an object as it is now, however long that takes; None if there is none.

        Raises:
            Forbidden: the worker may not read it.
        """
        backoff = Backoff(initial=FIRST_PAUSE_SECONDS, factor=2.0, maximum=LONGEST_PAUSE_SECONDS, random=self._random)
        while True:
            try:
                async with self._slots:
                    return await self._api.get(resource, self._namespace, name)
            except NotFound:
                return None
            except Forbidden:
                raise
            except ApiError as error:
                fields = {"object": f"{resource.kind} {name}", "status": error.status, "reason": error.reason}
                logger.warning("what a task needs cannot be read, trying again", extra=fields)
                await asyncio.sleep(backoff.next(at_least=error.retry_after))
