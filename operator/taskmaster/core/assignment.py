"""What is decided about Tasks; `coordinator` performs it."""

from __future__ import annotations

from dataclasses import dataclass

from taskmaster.core.capacity import Worker
from taskmaster.core.phase import Phase
from taskmaster.core.reason import EndReason
from taskmaster.core.task import StopReason, Task


@dataclass(frozen=True, slots=True)
class Assignment:
    """A worker runs the next attempt of a Task."""

    task: Task
    worker: Worker


@dataclass(frozen=True, slots=True)
class Ending:
    """A Task that waits ends without another attempt."""

    task: Task
    phase: Phase
    reason: EndReason
    message: str


@dataclass(frozen=True, slots=True)
class Stop:
    """The worker that holds a Task is asked to stop its attempt."""

    task: Task
    reason: StopReason
