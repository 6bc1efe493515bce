"""The validation rules that the API server checks on every write: the last word of the write protocol.

They are CEL over the old and the new object, generated from the same tables that our own code uses. A rule needs
`has()` for each optional field: the optional syntax (`?.`, `orValue`) makes the estimated cost a hundred times too
high.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from taskmaster.api.models.placement import LABEL_KEY
from taskmaster.api.models.policy import RetryRuleSpec
from taskmaster.api.models.run import Run, ValueSource
from taskmaster.api.models.task import TaskSpec
from taskmaster.api.models.taskstatus import TaskStatus
from taskmaster.core.phase import SUCCESSORS, TERMINAL, Phase
from taskmaster.core.schedule import MAX_NAME

Rule = dict[str, Any]

ALWAYS_MUTABLE_SPEC_FIELDS = ("priority", "ttlSecondsAfterFinished", "suspend", "cancel", "retryRequest")
"""What may be changed in a Task's spec after its first assignment."""

ALWAYS_MUTABLE_STATUS_FIELDS = ("observedGeneration",)
"""What may be changed in a Task's status after its end."""

FREE_FORM_STATUS_FIELDS = ("result", "checkpoint")
"""What CEL in a CRD cannot see; the admission policy of the chart keeps these (equality is deep there)."""


def field_names(model: type[BaseModel]) -> list[str]:
    """Return the names of a model's fields as they are on the wire."""
    return [field.alias or name for name, field in model.model_fields.items()]


def unchanged(path: str) -> str:
    """Return CEL saying that an optional field, such as `self.reason`, is the same as it was."""
    new, old = path, path.replace("self", "oldSelf", 1)
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"


def _quoted(phases: frozenset[Phase]) -> str:
    return ", ".join(f"'{phase}'" for phase in sorted(phases))


def run_rules() -> list[Rule]:
    """Rules of `spec.run`."""
    return [_exactly_one(field_names(Run))]


def value_source_rules() -> list[Rule]:
    """Rules of a `valueFrom`."""
    return [_exactly_one(field_names(ValueSource))]


def valued_rules() -> list[Rule]:
    """Rules of what has a value or a source of one: environment variables, headers."""
    return [{"rule": "!(has(self.value) && has(self.valueFrom))", "message": "only one of value, valueFrom may be set"}]


def retry_rule_rules() -> list[Rule]:
    """Rules of a retry rule."""
    lists = [name for name in field_names(RetryRuleSpec) if name.startswith("on")]
    some = " || ".join(f"has(self.{name})" for name in lists)
    return [{"rule": some, "message": f"a retry rule needs at least one of {', '.join(lists)}"}]


def task_spec_rules() -> list[Rule]:
    """Rules of a Task's spec that need nothing but the spec: what comes from a template comes only from there."""
    theirs = "spec.%s comes from the template; give it there, or as one of its parameters in spec.args"
    own_memory = "has(self.resources) && has(self.resources.memoryMiB)"
    return [
        _first_broken(
            {
                "has(self.run) != has(self.templateRef)": "exactly one of run, templateRef must be set",
                "has(self.templateRef) || !has(self.args)": (
                    "args are for a template: set templateRef, or give run.python.args"
                ),
                "!has(self.templateRef) || !has(self.env)": theirs % "env",
                "!has(self.templateRef) || !has(self.workingDir)": theirs % "workingDir",
                f"!has(self.templateRef) || !({own_memory})": theirs % "resources.memoryMiB",
            }
        )
    ]


def requirement_rules() -> list[Rule]:
    """Rules of an entry of `requires.matchExpressions`."""
    count = "(has(self.values) ? size(self.values) : 0)"
    return [
        {
            "rule": f"self.operator in ['In', 'NotIn'] ? {count} > 0 : "
            f"self.operator in ['Exists', 'DoesNotExist'] ? {count} == 0 : "
            f"{count} == 1 && self.values[0].matches('^[0-9]{{1,18}}$')",
            "message": "values must have at least one entry for In and NotIn, none for Exists and DoesNotExist, "
            "and exactly one whole number for Gt and Lt",
        }
    ]


def pool_label_rules() -> list[Rule]:
    """Rules of the labels of a WorkerPool."""
    return [
        {
            "rule": "!('pool' in self)",
            "message": "the label pool is reserved: it always is the name of the WorkerPool",
        },
        {
            "rule": f"self.all(key, key.matches('{LABEL_KEY}'))",
            "message": "a key must be a label key of Kubernetes, such as gpu or example.com/zone",
        },
    ]


def resolved_run_rules() -> list[Rule]:
    """Rules of `status.resolvedRun`, which cost only where there is one."""
    return [{"rule": "self == oldSelf", "message": "status.resolvedRun holds for all attempts and runs of the Task"}]


def schedule_rules() -> list[Rule]:
    """Rules at the root of a TaskSchedule."""
    return [
        {
            "rule": f"size(self.metadata.name) <= {MAX_NAME}",
            "message": f"a TaskSchedule has a name of at most {MAX_NAME} characters: its Tasks are named after it",
        }
    ]


def schedule_spec_rules() -> list[Rule]:
    """Rules of a TaskSchedule's spec."""
    return [
        {
            "rule": "has(self.schedule) || has(self.schedules) || has(self.everySeconds)",
            "message": "at least one of schedule, schedules, everySeconds must be set",
        },
        {
            "rule": "!has(self.startTime) || !has(self.endTime) || self.startTime <= self.endTime",
            "message": "endTime must not be before startTime",
        },
    ]


def volume_rules(sources: list[str]) -> list[Rule]:
    """Rules of a volume of a WorkerPool."""
    return [_exactly_one(sources)]


def _exactly_one(members: list[str]) -> Rule:
    count = " + ".join(f"(has(self.{member}) ? 1 : 0)" for member in members)
    return {"rule": f"{count} == 1", "message": f"exactly one of {', '.join(members)} must be set"}


def status_rules() -> list[Rule]:
    """Rules of a Task's status: which states there are, and which moves between them."""
    terminal = _quoted(TERMINAL)
    rules: list[Rule] = [
        {
            "rule": f"!(self.phase in [{terminal}]) || has(self.completionTime)",
            "message": "a finished Task needs a completionTime",
        },
        {
            "rule": "!(self.phase in ['Assigned', 'Running']) || has(self.assignment)",
            "message": "an Assigned or Running Task needs an assignment",
        },
        {
            "rule": "self.phase != 'Pending' || !has(self.assignment)",
            "message": "a Pending Task has no assignment",
        },
        {
            "rule": "self.attempt == oldSelf.attempt || (oldSelf.phase == 'Pending' && "
            "self.phase == 'Assigned' && self.attempt == oldSelf.attempt + 1)",
            "message": "attempt grows by one when a Task is assigned, and never otherwise",
        },
        {
            "rule": "self.attempt > oldSelf.attempt || self.phase != 'Assigned' || oldSelf.phase == 'Assigned'",
            "message": "every assignment is a new attempt",
        },
        {
            "rule": "!has(oldSelf.resolvedRun) || has(self.resolvedRun)",
            "message": "status.resolvedRun holds for all attempts and runs of the Task",
        },
        *(
            {
                "rule": f"oldSelf.phase != '{phase}' || self.phase in [{_quoted(successors)}]",
                "message": f"a {phase} Task can only become {' or '.join(sorted(successors - {phase}))}",
            }
            for phase, successors in SUCCESSORS.items()
            if phase not in TERMINAL
        ),
    ]
    frozen = [
        name for name in field_names(TaskStatus) if name not in ALWAYS_MUTABLE_STATUS_FIELDS + FREE_FORM_STATUS_FIELDS
    ]
    rules.append(
        _frozen(
            "self",
            frozen,
            unless=f"!(oldSelf.phase in [{terminal}]) || self.phase == 'Pending'",
            message="'a finished Task is final: status.%s cannot be changed'",
        )
    )
    return rules


def task_rules() -> list[Rule]:
    """Rules at the root of a Task: they compare the spec with the status."""
    frozen = [name for name in field_names(TaskSpec) if name not in ALWAYS_MUTABLE_SPEC_FIELDS]
    finished = f"oldSelf.status.phase in [{_quoted(TERMINAL)}]"
    same_request = "oldSelf.spec.retryRequest == self.spec.retryRequest"
    same_run = "self.status.runNumber == oldSelf.status.runNumber"
    runs_again = f"{finished} && self.status.phase == 'Pending'"
    answers_a_new_request = (
        "self.status.runNumber == oldSelf.status.runNumber + 1"
        " && self.spec.retryRequest != ''"
        " && has(self.status.observedRetryRequest)"
        " && self.status.observedRetryRequest == self.spec.retryRequest"
        " && !(has(oldSelf.status.observedRetryRequest)"
        " && oldSelf.status.observedRetryRequest == self.status.observedRetryRequest)"
    )
    return [
        _frozen(
            "self.spec",
            frozen,
            # Most writes leave the spec alone: one comparison of the whole instead of one of each field.
            unless="!has(oldSelf.status) || oldSelf.status.attempt == 0 || self.spec == oldSelf.spec",
            message="'spec.%s cannot be changed after the Task was first assigned; create a new Task instead'",
        ),
        _first_broken(
            {
                f"{same_request} || has(oldSelf.status) && {finished}": (
                    "spec.retryRequest can be changed only when the Task has finished"
                ),
                f"{same_request} || !self.spec.cancel": (
                    "to run a cancelled Task again, set spec.cancel to false together with spec.retryRequest"
                ),
                f"!oldSelf.spec.cancel || self.spec.cancel || !({same_request})": (
                    "spec.cancel cannot be taken back; a new spec.retryRequest runs a Cancelled Task again"
                ),
                f"!has(oldSelf.status) || !has(self.status) || ({runs_again} ? {answers_a_new_request} : {same_run})": (
                    "a finished Task begins a new run only for a new spec.retryRequest"
                ),
            }
        ),
    ]


def _first_broken(demands: dict[str, str]) -> Rule:
    """Return one rule for several demands, whose message is that of the first that is not met.

    One, because each rule at the root costs the API server about 0.1 ms of every write.
    """
    last = list(demands.values())[-1]
    choice = "".join(f"!({rule}) ? '{message}' : " for rule, message in list(demands.items())[:-1])
    return {"rule": " && ".join(f"({rule})" for rule in demands), "messageExpression": f"{choice}'{last}'"}


def _frozen(path: str, fields: list[str], *, unless: str, message: str) -> Rule:
    """Return one rule for many fields, whose message names the first that was changed (see `_first_broken`)."""
    same = {field: f"({unchanged(f'{path}.{field}')})" for field in fields}
    *others, last = fields
    changed = "".join(f"!{same[field]} ? '{field}' : " for field in others) + f"'{last}'"
    before, after = message.split("%s")
    return {
        "rule": f"{unless} || ({' && '.join(same.values())})",
        "messageExpression": f"{before}' + ({changed}) + '{after}",
    }
