"""Results of the Tasks that a Task depends on (`spec.dependsOn`), read when an attempt starts.

Each is taken by name as the API server has it at that moment. A Task that is not there any more has no entry; one that
has no result, because it made none or has been started anew, has the entry None. All of them go into one frame to the
runner, which has a bound: what is beyond it is refused with a sentence, since a part of them would be a lie.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskmaster.core.reason import EndReason
from taskmaster.kube.errors import Forbidden
from taskmaster.kube.resource import TASKS
from taskmaster_worker.agent.reader import Reader, UnresolvedError
from taskmaster_worker.runner.frames import MAX_FRAME_BYTES, FrameError, encode

MAX_RESULTS_BYTES: Final = MAX_FRAME_BYTES // 2
"""Of JSON in ASCII, as in the frame; the rest is for the Task's own words."""

Results = Mapping[str, Any]
"""By the name of the Task."""


class Parents:
    """Reads results."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def read(self, names: Sequence[str]) -> Results:
        """Return the results of the Tasks of these names, however long the API server takes to answer.

        Raises:
            UnresolvedError: they may not be read, or are too large together.
        """
        found, refusal = _Found(), None
        try:
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(self._read_one(name, found))
        except* UnresolvedError as refusals:
            refusal = refusals.exceptions[0]
        if refusal is not None:
            raise refusal
        return {name: found.results[name] for name in names if name in found.results}

    async def _read_one(self, name: str, found: _Found) -> None:
        try:
            task = await self._reader.get(TASKS, name)
        except Forbidden:
            message = (
                f"the API server does not let this worker read Task {name}, which spec.dependsOn names: "
                "the ClusterRole of the workers must allow them to get tasks"
            )
            raise UnresolvedError(EndReason.START_FAILED, message) from None
        if task is not None:
            found.add(name, (task.get("status") or {}).get("result"))


class _Found:
    """What has been read so far."""

    def __init__(self) -> None:
        self.results: dict[str, Any] = {}
        self._bytes = 0

    def add(self, name: str, result: Any) -> None:
        try:
            self._bytes += len(encode({name: result}))
        except FrameError as error:
            message = f"the result of Task {name}, which spec.dependsOn names, cannot be handed on: {error}"
            raise UnresolvedError(EndReason.START_FAILED, message, final=True) from None
        if self._bytes > MAX_RESULTS_BYTES:
            message = (
                f"the results of the Tasks in spec.dependsOn are larger than {MAX_RESULTS_BYTES} bytes together: "
                "let them keep their data elsewhere and return where it is"
            )
            raise UnresolvedError(EndReason.START_FAILED, message, final=True)
        self.results[name] = result
