"""What a running attempt has written before its end: that it runs, how far it is, and its checkpoints.

At most one of these writes is on its way; what comes meanwhile waits for it, and a newer value takes the place of an
older one that waits. The start report comes first: a checkpoint forces it, progress waits for it. A checkpoint is then
written at once, together with progress that has changed. Progress alone is written at most every five seconds, and only
if it has changed.

A checkpoint is acknowledged when the API server has it, or a later one of the same attempt. What is not known to be
written when the attempt ends goes along with the end, so it may be written twice, but is never lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, Final, Protocol

from taskmaster.api.patches import Saved
from taskmaster.api.times import to_wire
from taskmaster.core.task import Instant
from taskmaster_worker.agent import record
from taskmaster_worker.agent.assigned import Assigned
from taskmaster_worker.agent.record import StatusWrite
from taskmaster_worker.agent.standing import same_progress
from taskmaster_worker.agent.writer import Settled
from taskmaster_worker.runner.progress import parse_progress
from taskmaster_worker.runner.result import ResultError, checked
from taskmaster_worker.sdk.wire import MAX_CHECKPOINT_BYTES

PROGRESS_SECONDS: Final = 5.0
"""Shortest time between two writes of progress."""

REFUSED: Final = "the API server did not accept the checkpoint"
TAKEN: Final = "the Task was taken from this worker, or deleted"

_TICK_SECONDS: Final = 2e-6
"""What two checkpoints of an attempt are apart at least: a time on the wire has microseconds."""


class SavesOwner(Protocol):
    """Who writes, and who is told."""

    def now(self) -> Instant:
        """Return the wall-clock time."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run in the background; what it raises is a bug that ends the worker."""

    async def write(self, write: StatusWrite) -> Settled:
        """Perform a write; return only when it is known what became of it."""

    def on_checkpointed(self, task: Assigned, sequence: int, error: str | None) -> None:
        """The API server has a checkpoint or, with an error, never will."""

    def on_superseded(self, task: Assigned) -> None:
        """A write has found that the attempt is not ours any more."""


class Saves:
    """See the module."""

    def __init__(self, task: Assigned, owner: SavesOwner) -> None:
        self._task = task
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._started: Instant | None = None
        self._due = False
        """Whether the start report is to be written now."""
        self._reported = False
        self._progress: Mapping[str, Any] | None = task.status.get("progress")
        self._written = self._progress
        self._open = 0.0
        """When progress may be written again, by the event loop's clock."""
        self._checkpoint: Mapping[str, Any] | None = None
        self._latest = 0.0
        self._sequences: list[int] = []
        """Checkpoints that wait for a write."""
        self._in_flight: list[int] = []
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def started(self, started: Instant) -> None:
        """Take note that the process exists, for the start report."""
        self._started = started

    def report(self) -> None:
        """Write the start report."""
        self._due = True
        self._advance()

    def progress(self, value: Any) -> None:
        """Take the latest progress; what is none is dropped, for the runner has checked it already."""
        try:
            self._progress = parse_progress(value)
        except ValueError:
            return
        self._advance()

    def checkpoint(self, sequence: int, data: Any) -> None:
        """Take a checkpoint; what becomes of it is told to the owner."""
        if self._closed:
            self._owner.on_checkpointed(self._task, sequence, TAKEN)
            return
        try:
            data = checked(data, limit=MAX_CHECKPOINT_BYTES)
        except ResultError as error:
            self._owner.on_checkpointed(self._task, sequence, str(error))
            return
        self._latest = max(self._owner.now(), self._latest + _TICK_SECONDS)
        self._checkpoint = {"attempt": self._task.attempt, "time": to_wire(self._latest), "data": data}
        self._sequences.append(sequence)
        self._due = True
        self._advance()

    def close(self) -> Saved:
        """Write nothing more; return what the write of the end has to carry."""
        self._stop_writing()
        return Saved(self._news(), self._checkpoint)

    def abandon(self) -> None:
        """Write nothing more: the attempt is not ours any more."""
        waiting = [*self._in_flight, *self._sequences]
        self._stop_writing()
        for sequence in waiting:
            self._owner.on_checkpointed(self._task, sequence, TAKEN)

    def _stop_writing(self) -> None:
        self._closed = True
        self._in_flight, self._sequences = [], []
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            self._writing.cancel()

    def _news(self) -> Mapping[str, Any] | None:
        return None if same_progress(self._progress, self._written) else self._progress

    def _advance(self) -> None:
        """Begin the next write, or wait until it is time for it."""
        if self._closed or self._writing is not None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._reported and self._checkpoint is None:
            if self._news() is None:
                return
            if self._loop.time() < self._open:
                self._timer = self._loop.call_at(self._open, self._advance)
                return
        elif not self._reported and not self._due:
            return
        self._writing = self._owner.spawn(self._write())

    async def _write(self) -> None:
        saved = Saved(self._news(), self._checkpoint)
        self._in_flight, self._sequences = self._sequences, []
        self._due = False
        if saved.progress is not None:
            self._open = self._loop.time() + PROGRESS_SECONDS
        if self._reported:
            write = record.save(self._task, saved)
        else:
            started = self._owner.now() if self._started is None else self._started
            write = record.start(self._task, started=started, saved=saved)
        settled = await self._owner.write(write)
        self._writing = None
        if settled in (Settled.SUPERSEDED, Settled.GONE):
            self._owner.on_superseded(self._task)
            return
        if settled is Settled.DONE:
            self._reported = True
        # What was refused would be refused again.
        if saved.progress is not None:
            self._written = saved.progress
        if self._checkpoint is saved.checkpoint:
            self._checkpoint = None
        answered, self._in_flight = self._in_flight, []
        for sequence in answered:
            self._owner.on_checkpointed(self._task, sequence, None if settled is Settled.DONE else REFUSED)
        self._advance()
