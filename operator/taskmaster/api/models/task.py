"""What is asked of a Task: the kind's spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import FreeForm, Label, Model, Name, Seconds, Time
from taskmaster.api.models.placement import ConcurrencySpec, Dependencies, Requires, ResourcesSpec
from taskmaster.api.models.policy import RetrySpec, TimeoutsSpec
from taskmaster.api.models.run import Run, TaskEnvVars


class TemplateRef(Model):
    """A TaskTemplate of the namespace."""

    name: Name
    """The name of the TaskTemplate."""


class TaskSpec(Model):
    """What should be run, and how."""

    queue: Label = "default"
    """The TaskQueue that orders this Task. The queue "default" always exists. Until another one does, the Task waits
    with the reason QueueNotFound."""

    priority: Annotated[int, Field(ge=-1_000, le=1_000)] = 0
    """Higher runs first within the queue, but what has waited for `agingSeconds` of its queue counts as one point
    higher, so that nothing waits for ever. Equal ones run in the order of their creation. May be changed at any time.
    """

    description: Annotated[str, Field(max_length=1_024)] | None = None
    """A sentence for people."""

    run: Run | None = None
    """What to run: exactly one of command, script, python and http."""

    template_ref: TemplateRef | None = None
    """A TaskTemplate that says what to run, instead of `run`."""

    args: FreeForm | None = None
    """The arguments for the template, as its schema of parameters asks for; at most 16 KiB."""

    env: TaskEnvVars | None = None
    """Environment variables of the process."""

    working_dir: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    """The directory the process starts in, which must exist on the worker. Default: that of the worker's image."""

    resources: ResourcesSpec | None = None
    """What an attempt takes of its worker."""

    requires: Requires | None = None
    """What the labels of the worker must be like: those of the WorkerPool and `pool`, the name of the pool."""

    depends_on: Dependencies | None = None
    """Tasks of the namespace that have to end before this one starts. Their results are handed to it."""

    not_before_time: Time | None = None
    """Not to be started before this time."""

    concurrency: ConcurrencySpec | None = None
    """A bound on how many Tasks with the same key run at a time."""

    fairness_key: Annotated[str, Field(max_length=128)] | None = None
    """Tasks of one queue and priority take turns by this key, such as the name of a customer, so that one who submits
    thousands does not make the others wait. Default: one key for all that name none."""

    timeouts: TimeoutsSpec | None = None
    """Bounds on the time that the Task may take."""

    retry: RetrySpec | None = None
    """How often, and how soon, the Task is tried again."""

    ttl_seconds_after_finished: Seconds | None = None
    """How long the finished Task is kept, in seconds. Default 3600 when it succeeded, 604800 when it is a dead letter,
    86400 otherwise."""

    suspend: bool = False
    """Hold the Task: before its start it waits; a running attempt is stopped with its grace, at no cost to any budget,
    and false lets the Task go on from its last checkpoint. May be changed at any time."""

    cancel: bool = False
    """End the Task: at once while it waits, with its grace while it runs. It cannot be taken back, but a cancelled Task
    can be run again by a retryRequest."""

    retry_request: Annotated[str, Field(max_length=64)] = ""
    """Change it on a finished Task, to any other text, to run the Task again with fresh budgets. The last checkpoint is
    kept unless the text begins with "fresh-"."""
