"""The kind TaskTemplate: something to run with the arguments left open, and what these must look like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from taskmaster.api.models.base import Conditions, Count, FreeForm, Model, Seconds
from taskmaster.api.models.placement import Requires, ResourcesSpec
from taskmaster.api.models.policy import RetrySpec, TimeoutsSpec
from taskmaster.api.models.run import Run, TaskEnvVars


class TemplateTask(Model):
    """What the Tasks of a template have in common: a part of a Task's spec."""

    run: Run
    """What to run: exactly one of command, script, python and http. `$(args.NAME)` in the strings of a command, and in
    url, header values and body of a request, stands for an argument; `$$(args.NAME)` stands for that text itself. A
    Python function is given all arguments, over its own `args`. A script is never changed: pass arguments to it by
    env."""

    env: TaskEnvVars | None = None
    """Environment variables of the process; `$(args.NAME)` in a value stands for an argument."""

    working_dir: Annotated[str, Field(min_length=1, max_length=4_096)] | None = None
    """The directory the process starts in; `$(args.NAME)` stands for an argument. Default: that of the image."""

    resources: ResourcesSpec | None = None
    """What an attempt takes of its worker. A Task may ask for other slots."""

    requires: Requires | None = None
    """What the labels of the worker must be like, for Tasks that have no `requires` of their own."""

    timeouts: TimeoutsSpec | None = None
    """Defaults for `spec.timeouts` of the Tasks, field by field; they come before those of the queue."""

    retry: RetrySpec | None = None
    """Defaults for `spec.retry` of the Tasks, field by field; they come before those of the queue."""

    ttl_seconds_after_finished: Seconds | None = None
    """How long finished Tasks are kept that do not say, in seconds."""


class TaskTemplateSpec(Model):
    """What to run, and what its arguments must look like."""

    description: Annotated[str, Field(max_length=1_024)] | None = None
    """A sentence for people."""

    parameters: FreeForm | None = None
    """A JSON Schema (draft 2020-12) for `spec.args` of the Tasks, of type object, at most 16 KiB. The defaults of its
    properties are filled in. Default: any arguments will do."""

    task: TemplateTask
    """What the Tasks have in common."""


class TaskTemplateStatus(Model):
    """Whether the template can be used."""

    observed_generation: Count | None = None
    """The generation of the spec that this status speaks of."""

    conditions: Conditions | None = None
    """Ready: whether Tasks can be made of it. False with the reason InvalidSchema when `parameters` is no schema, or
    InvalidTemplate when an argument stands where none can; the message says where."""
