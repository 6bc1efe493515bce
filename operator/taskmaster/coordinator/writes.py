"""The coordinator's writes of Tasks, as the dispatcher takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from taskmaster.core.task import Task
from taskmaster.kube.api import JsonPatch, MergePatch, Object
from taskmaster.kube.dispatcher import Outcome, Write
from taskmaster.kube.errors import Conflict, NotFound, Unprocessable
from taskmaster.kube.resource import TASKS


def worth_repeating(outcome: Outcome) -> bool:
    """Whether a write failed, and not because the Task has changed since it was decided: the watch will tell that."""
    return outcome.error is not None and not isinstance(outcome.error, Unprocessable | NotFound | Conflict)


def status_write(task: Task, patch: Sequence[Object] | Object, done: Callable[[Outcome], None]) -> Write:
    """Return the write of one row of the protocol (`api.patches`); `done` hears what became of it."""
    return Write(
        key=task.uid,
        resource=TASKS,
        namespace=task.namespace,
        name=task.name,
        patch=MergePatch(patch) if isinstance(patch, dict) else JsonPatch(patch),
        subresource="status",
        done=done,
    )


def deletion(task: Task, done: Callable[[Outcome], None]) -> Write:
    """Return the deletion of a Task as it was judged (a newer version stays); `done` hears what became of it."""
    return Write(
        key=task.uid,
        resource=TASKS,
        namespace=task.namespace,
        name=task.name,
        patch=None,
        uid=task.uid,
        resource_version=task.resource_version,
        done=done,
    )
