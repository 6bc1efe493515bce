"""Generates `crds/` from the models: `python -m taskmaster.api.crd [--check] DIRECTORY`.

The files are written for people and reviewed like code; a test compares them with what the models say.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from taskmaster.api.models.task import TaskSpec
from taskmaster.api.models.taskqueue import TaskQueueSpec, TaskQueueStatus
from taskmaster.api.models.taskschedule import TaskScheduleSpec, TaskScheduleStatus
from taskmaster.api.models.taskstatus import TaskStatus
from taskmaster.api.models.tasktemplate import TaskTemplateSpec, TaskTemplateStatus
from taskmaster.api.models.workerpool import WorkerPoolSpec, WorkerPoolStatus
from taskmaster.api.names import GROUP, SCHEMA_REVISION, SCHEMA_REVISION_ANNOTATION, VERSION
from taskmaster.api.rules import (
    pool_label_rules,
    requirement_rules,
    resolved_run_rules,
    retry_rule_rules,
    run_rules,
    schedule_rules,
    schedule_spec_rules,
    status_rules,
    task_rules,
    task_spec_rules,
    value_source_rules,
    valued_rules,
    volume_rules,
)
from taskmaster.api.schema import Schema, structural_schema

Column = dict[str, Any]


def column(name: str, path: str, *, kind: str = "string", wide: bool = False, description: str = "") -> Column:
    """Return a printer column; wide ones show with `-o wide` only."""
    shown: Column = {"name": name, "type": kind, "jsonPath": path, "priority": 1 if wide else 0}
    return {**shown, "description": description} if description else shown


def task_spec_schema() -> Schema:
    """Return the schema of a Task's spec with all rules that need nothing but the spec."""
    spec = structural_schema(TaskSpec)
    _guard_work(spec)
    spec["x-kubernetes-validations"] = task_spec_rules()
    return spec


def _guard_work(spec: Schema) -> None:
    """Add their rules to those fields that Task and TaskTemplate have in common."""
    fields = spec["properties"]
    run = fields["run"]
    run["x-kubernetes-validations"] = run_rules()
    for valued in (fields["env"]["items"], run["properties"]["http"]["properties"]["headers"]["items"]):
        valued["x-kubernetes-validations"] = valued_rules()
        valued["properties"]["valueFrom"]["x-kubernetes-validations"] = value_source_rules()
    _guard_retry(spec)
    requirements = fields["requires"]["properties"]["matchExpressions"]
    requirements["items"]["x-kubernetes-validations"] = requirement_rules()


def _guard_retry(spec: Schema) -> None:
    rules = spec["properties"]["retry"]["properties"]["rules"]
    rules["items"]["x-kubernetes-validations"] = retry_rule_rules()


def task_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of Task."""
    status = structural_schema(TaskStatus)
    status["properties"]["resolvedRun"]["x-kubernetes-validations"] = resolved_run_rules()
    status["default"] = {"phase": "Pending", "attempt": 0}  # those of its fields add to it
    status["x-kubernetes-validations"] = status_rules()
    # Only we write it, so nobody needs to know who owns which part: that account would cost a quarter of each write.
    status["x-kubernetes-map-type"] = "atomic"
    return _crd(
        kind="Task",
        plural="tasks",
        short="tk",
        description="One unit of work, run by a warm worker pod.",
        spec=task_spec_schema(),
        status=status,
        rules=task_rules(),
        columns=[
            column("Phase", ".status.phase"),
            column("Queue", ".spec.queue"),
            column("Priority", ".spec.priority", kind="integer"),
            column("Worker", ".status.assignment.worker"),
            column("Attempt", ".status.attempt", kind="integer"),
            column("Reason", ".status.reason"),
            column("Age", ".metadata.creationTimestamp", kind="date"),
            column("Node", ".status.assignment.node", wide=True),
            column("Started", ".status.startTime", kind="date", wide=True),
            column("Completed", ".status.completionTime", kind="date", wide=True),
            column("Message", ".status.message", wide=True),
        ],
        selectable=[
            ".status.phase",
            ".status.reason",
            ".status.assignment.worker",
            ".status.deadLettered",
            ".spec.queue",
        ],
    )


def workerpool_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of WorkerPool."""
    spec = structural_schema(WorkerPoolSpec)
    volume = spec["properties"]["template"]["properties"]["volumes"]["items"]
    volume["x-kubernetes-validations"] = volume_rules([name for name in volume["properties"] if name != "name"])
    spec["properties"]["labels"]["x-kubernetes-validations"] = pool_label_rules()
    status = _long_lived(WorkerPoolStatus)
    return _crd(
        kind="WorkerPool",
        plural="workerpools",
        short="wp",
        description="A Deployment of warm workers that run the Tasks of its namespace.",
        spec=spec,
        status=status,
        rules=[],
        columns=[
            column("Desired", ".spec.replicas", kind="integer"),
            column("Ready", ".status.readyWorkers", kind="integer"),
            column("Busy", ".status.busyWorkers", kind="integer"),
            column("Slots", ".status.slots", kind="integer"),
            column("Used", ".status.busySlots", kind="integer"),
            column("Age", ".metadata.creationTimestamp", kind="date"),
            column("Status", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ],
        selectable=[],
        scale={
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    )


def taskqueue_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of TaskQueue."""
    spec = structural_schema(TaskQueueSpec)
    _guard_retry(spec)
    status = _long_lived(TaskQueueStatus)
    return _crd(
        kind="TaskQueue",
        plural="taskqueues",
        short="tq",
        description="Order, fairness, limits and defaults for the Tasks that name it.",
        spec=spec,
        status=status,
        rules=[],
        columns=[
            column("Weight", ".spec.weight", kind="integer"),
            column("Pending", ".status.pending", kind="integer"),
            column("Running", ".status.running", kind="integer"),
            column("Oldest", ".status.oldestPendingSeconds", kind="integer", description="In seconds."),
            column("Paused", ".spec.paused", kind="boolean"),
            column("Status", '.status.conditions[?(@.type=="Ready")].reason'),
            column("Age", ".metadata.creationTimestamp", kind="date"),
            column("Max-Running", ".spec.maxRunning", kind="integer", wide=True),
            column("Rate", ".spec.rateLimit.tasks", kind="integer", wide=True),
            column("Per-Seconds", ".spec.rateLimit.perSeconds", kind="integer", wide=True),
            column("Blockers", ".status.blockers", wide=True),
        ],
        selectable=[],
    )


def tasktemplate_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of TaskTemplate."""
    spec = structural_schema(TaskTemplateSpec)
    task = spec["properties"]["task"]
    _guard_work(task)
    # What the whole of it becomes is looked at when it is known.
    task["properties"]["run"]["properties"]["http"]["properties"]["url"]["pattern"] = r"^(https?://.+|\$\(args\..+)$"
    status = _long_lived(TaskTemplateStatus)
    return _crd(
        kind="TaskTemplate",
        plural="tasktemplates",
        short="tkt",
        description="Something to run whose arguments are left open, for Tasks that name it.",
        spec=spec,
        status=status,
        rules=[],
        columns=[
            column("Description", ".spec.description"),
            column("Status", '.status.conditions[?(@.type=="Ready")].reason'),
            column("Age", ".metadata.creationTimestamp", kind="date"),
            column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ],
        selectable=[],
    )


def taskschedule_crd() -> dict[str, Any]:
    """Return the CustomResourceDefinition of TaskSchedule."""
    spec = structural_schema(TaskScheduleSpec)
    template = spec["properties"]["taskTemplate"]["properties"]
    template["spec"] = {**task_spec_schema(), "description": template["spec"]["description"]}
    spec["x-kubernetes-validations"] = schedule_spec_rules()
    status = _long_lived(TaskScheduleStatus)
    return _crd(
        kind="TaskSchedule",
        plural="taskschedules",
        short="tks",
        description="Creates Tasks by cron expressions or at an interval.",
        spec=spec,
        status=status,
        rules=schedule_rules(),
        columns=[
            column("Schedule", ".status.schedule"),
            column("Timezone", ".spec.timeZone"),
            column("Suspend", ".spec.suspend", kind="boolean"),
            column("Active", ".status.activeCount", kind="integer"),
            column("Last", ".status.lastScheduleTime", kind="date"),
            column("Next", ".status.nextRunTime", description="In UTC."),
            column("Age", ".metadata.creationTimestamp", kind="date"),
            column("Status", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
            column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ],
        selectable=[],
    )


def _long_lived(status: type[BaseModel]) -> Schema:
    """Return the schema of a status that says from the beginning that nothing has been observed: helm waits for it."""
    return {**structural_schema(status), "default": {"observedGeneration": 0}}


def _crd(
    *,
    kind: str,
    plural: str,
    short: str,
    description: str,
    spec: Schema,
    status: Schema,
    rules: list[dict[str, Any]],
    columns: list[Column],
    selectable: list[str],
    scale: dict[str, str] | None = None,
) -> dict[str, Any]:
    root: Schema = {
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}."},
            "kind": {"type": "string", "description": f"{kind}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
    }
    if rules:
        root["x-kubernetes-validations"] = rules
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": root},
        "subresources": {"status": {}, **({"scale": scale} if scale else {})},
        "additionalPrinterColumns": columns,
    }
    if selectable:
        version["selectableFields"] = [{"jsonPath": path} for path in selectable]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{GROUP}",
            "annotations": {SCHEMA_REVISION_ANNOTATION: str(SCHEMA_REVISION)},
            "labels": {"app.kubernetes.io/name": "taskmaster"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": ["taskmaster"],
            },
            "versions": [version],
        },
    }


def all_crds() -> list[dict[str, Any]]:
    """Return all our CustomResourceDefinitions."""
    return [task_crd(), taskqueue_crd(), taskschedule_crd(), tasktemplate_crd(), workerpool_crd()]


def files() -> dict[str, str]:
    """Return the file name and the text of each CRD."""
    header = "# Generated from operator/taskmaster/api/models by `make crds`; do not edit.\n"
    return {
        f"{crd['spec']['names']['plural']}.yaml": header + yaml.safe_dump(crd, sort_keys=False, width=120)
        for crd in all_crds()
    }


def main() -> int:
    """Write the files, or with --check say which of them are out of date (exit code 1)."""
    parser = argparse.ArgumentParser(prog="taskmaster.api.crd", description="Generate the CRDs from the models.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    stale = {name: text for name, text in files().items() if _text(arguments.directory / name) != text}
    if arguments.check:
        for name in stale:
            print(f"{arguments.directory / name} is out of date: run `make crds`", file=sys.stderr)
        return 1 if stale else 0
    arguments.directory.mkdir(parents=True, exist_ok=True)
    for name, text in stale.items():
        (arguments.directory / name).write_text(text)
    return 0


def _text(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
