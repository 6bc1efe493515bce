"""What goes on in the background of attempts: writes, and reading values.

A job handles whatever the world does to it, so an exception that leaves one is a bug; it ends the process, which would
otherwise lose a record without a word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Jobs:
    """Keeps tasks of the event loop from being forgotten, and their bugs from being swallowed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = self._loop.create_future()

    async def run(self) -> None:
        """Wait until a job fails, and raise what it raised."""
        await self._failure

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a job."""
        job = self._loop.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._done)
        return job

    def _done(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)
