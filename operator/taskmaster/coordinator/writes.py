"""The coordinator's writes of Tasks, as the dispatcher takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskmaster.core.task import Task
from taskmaster.kube.api import JsonPatch, Object
from taskmaster.kube.dispatcher import Outcome, Write
from taskmaster.kube.resource import TASKS


def status_write(task: Task, operations: Sequence[Object], done: Callable[[Outcome], None]) -> Write:
    """Return the write of one row of the protocol (`api.patches`); `done` hears what became of it."""
    return Write(
        key=task.uid,
        resource=TASKS,
        namespace=task.namespace,
        name=task.name,
        patch=JsonPatch(operations),
        subresource="status",
        done=done,
    )
