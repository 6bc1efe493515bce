"""What people ask of a Task by its spec, and the coordinator has to answer by a write.

Cancel and suspend of a Task that a worker holds are the worker's to answer: it sees the spec by its own watch.
"""

from __future__ import annotations

from enum import Enum, auto

from taskmaster.core.phase import Phase
from taskmaster.core.task import Task


class Request(Enum):
    """What is to be written next because somebody asked for it."""

    CANCEL = auto()
    """End a waiting Task: `spec.cancel`."""
    HOLD = auto()
    """Say that a waiting Task is suspended: `spec.suspend`."""
    RESUME = auto()
    """Let a suspended Task wait for a worker again."""
    RUN_AGAIN = auto()
    """Begin a new run of a finished Task: a new `spec.retryRequest`."""


def open_request(task: Task) -> Request | None:
    """Return what somebody asks for and the coordinator has not answered yet."""
    if task.finished:
        # An emptied request asks for nothing: a manifest that never had one may be applied again.
        asked = task.retry_request != "" and task.retry_request != task.observed_retry_request
        return Request.RUN_AGAIN if asked else None
    if task.phase is not Phase.PENDING:
        return None
    if task.cancel:
        return Request.CANCEL
    if task.suspend and task.suspended is None:
        return Request.HOLD
    if not task.suspend and task.suspended is not None:
        return Request.RESUME
    return None


def may_run(task: Task) -> bool:
    """Whether a Task may be given to a worker, as far as people have asked for."""
    return task.phase is Phase.PENDING and not task.suspend and open_request(task) is None
