"""Where, when and beside what a Task may run."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from taskmaster.api.models.base import ATOMIC, Model, Name, list_by
from taskmaster.core.requirements import Operator
from taskmaster.core.task import DependencyCondition, OnConflict

LABEL_KEY: Final = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"

LabelKey = Annotated[str, Field(min_length=1, max_length=317, pattern=LABEL_KEY)]
"""The key of a label, as in Kubernetes: a name with an optional prefix."""

LabelValue = Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")]
"""The value of a label, as in Kubernetes."""

Labels = Annotated[dict[LabelKey, LabelValue], Field(max_length=32)]

Key = Annotated[str, Field(min_length=1, max_length=128)]
"""A text of the user's that Tasks are grouped by."""


class ResourcesSpec(Model):
    """What an attempt takes of its worker."""

    slots: Annotated[int, Field(ge=1, le=1_000)] | None = None
    """How many slots of its worker an attempt takes. Default 1."""

    memory_mib: Annotated[int, Field(ge=1, le=16_777_216)] | None = Field(default=None, alias="memoryMiB")
    """The memory that all processes of an attempt may use together, in MiB. Above it they are killed, the attempt fails
    with the reason OutOfMemory, and other Tasks of the worker go on. Default: whatever the runner container has."""


class RequirementSpec(Model):
    """One demand on one label of the worker."""

    key: LabelKey
    """The key of the label."""

    operator: Operator
    """In, NotIn (also holds where the label is missing), Exists, DoesNotExist, Gt or Lt (whole numbers)."""

    values: Annotated[list[LabelValue], Field(max_length=64, json_schema_extra=ATOMIC)] | None = None
    """The values: at least one for In and NotIn, exactly one whole number for Gt and Lt, none otherwise."""


class Requires(Model):
    """What the labels of a worker must be like; every demand has to be met."""

    match_labels: Labels | None = None
    """Labels that the worker must have, with these values."""

    match_expressions: Annotated[list[RequirementSpec], Field(max_length=16, json_schema_extra=ATOMIC)] | None = None
    """Further demands."""


class DependencySpec(Model):
    """Another Task of the namespace, and how it has to end first."""

    name: Name
    """The name of the Task. It may be created later."""

    condition: DependencyCondition = DependencyCondition.SUCCEEDED
    """Succeeded, Failed, or Finished for any end. When it ends in another way, this Task is Skipped with the reason
    DependencyFailed. Default Succeeded."""


class ConcurrencySpec(Model):
    """A bound on how many Tasks with the same key run at a time, over all queues of the namespace."""

    key: Key
    """What the Tasks have in common, such as the name of a customer or of a device."""

    limit: Annotated[int, Field(ge=1, le=100_000)] = 1
    """How many of them may hold a worker at a time. If they disagree, the lowest limit of an unfinished one holds.
    Default 1."""

    on_conflict: OnConflict = OnConflict.QUEUE
    """What to do when the limit is reached. Queue: wait. Reject: this Task is Skipped. ReplacePending: older Tasks of
    the key that wait are Cancelled. CancelRunning: older Tasks of the key are Cancelled, running ones included. Default
    Queue."""


Dependencies = Annotated[list[DependencySpec], Field(max_length=1_000, json_schema_extra=list_by("name"))]
