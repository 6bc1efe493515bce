"""The validation rules that the API server checks on every write: the last word of the write protocol.

They are CEL over the old and the new object, generated from the same tables that our own code uses. A rule needs
`has()` for each optional field: the optional syntax (`?.`, `orValue`) makes the estimated cost a hundred times too
high.
"""

from __future__ import annotations

from typing import Any

from taskmaster.api.models.task import Run, TaskSpec, TaskStatus
from taskmaster.core.phase import SUCCESSORS, TERMINAL, Phase

Rule = dict[str, Any]

ALWAYS_MUTABLE_SPEC_FIELDS = ("priority", "ttlSecondsAfterFinished")
"""What may be changed in a Task's spec after its first assignment."""

ALWAYS_MUTABLE_STATUS_FIELDS = ("observedGeneration",)
"""What may be changed in a Task's status after its end."""

FREE_FORM_STATUS_FIELDS = ("result",)
"""What CEL in a CRD cannot see; the admission policy of the chart keeps these (equality is deep there)."""


def field_names(model: type[TaskSpec] | type[TaskStatus] | type[Run]) -> list[str]:
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
    members = field_names(Run)
    count = " + ".join(f"(has(self.{member}) ? 1 : 0)" for member in members)
    return [{"rule": f"{count} == 1", "message": f"exactly one of {', '.join(members)} must be set"}]


def volume_rules(sources: list[str]) -> list[Rule]:
    """Rules of a volume of a WorkerPool."""
    count = " + ".join(f"(has(self.{source}) ? 1 : 0)" for source in sources)
    return [{"rule": f"{count} == 1", "message": f"exactly one of {', '.join(sources)} must be set"}]


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
            unless=f"!(oldSelf.phase in [{terminal}])",
            message="'a finished Task is final: status.%s cannot be changed'",
        )
    )
    return rules


def task_rules() -> list[Rule]:
    """Rules at the root of a Task: they compare the spec with the status."""
    frozen = [name for name in field_names(TaskSpec) if name not in ALWAYS_MUTABLE_SPEC_FIELDS]
    return [
        _frozen(
            "self.spec",
            frozen,
            unless="!has(oldSelf.status) || oldSelf.status.attempt == 0",
            message="'spec.%s cannot be changed after the Task was first assigned; create a new Task instead'",
        )
    ]


def _frozen(path: str, fields: list[str], *, unless: str, message: str) -> Rule:
    """Return one rule for many fields, whose message names the first that was changed.

    One, because each rule at the root costs the API server about 0.1 ms of every write.
    """
    same = {field: f"({unchanged(f'{path}.{field}')})" for field in fields}
    *others, last = fields
    changed = "".join(f"!{same[field]} ? '{field}' : " for field in others) + f"'{last}'"
    before, after = message.split("%s")
    return {
        "rule": f"{unless} || ({' && '.join(same.values())})",
        "messageExpression": f"{before}' + ({changed}) + '{after}",
    }
