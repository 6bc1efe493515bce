"""A definition of Task with all that the contract is about and nothing more: no schema of its own, no CEL rules.

The project's own definition refuses values for reasons that are not the server's, and is tested where it is written.
"""

from typing import Any

FREE: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def text(*path: str) -> dict[str, Any]:
    """A selectable string has to be in the schema."""
    schema: dict[str, Any] = {"type": "string"}
    for name in reversed(path):
        schema = {**FREE, "properties": {name: schema}}
    return schema


def task_definition() -> dict[str, Any]:
    status = text("assignment", "worker")
    status["properties"] |= {"phase": {"type": "string"}, "attempt": {"type": "integer"}}
    status["default"] = {"phase": "Pending", "attempt": 0}
    version = {
        "name": "v1alpha1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "selectableFields": [{"jsonPath": ".status.phase"}, {"jsonPath": ".status.assignment.worker"}],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": FREE, "status": status}}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "tasks.taskmaster.dev"},
        "spec": {
            "group": "taskmaster.dev",
            "scope": "Namespaced",
            "names": {"plural": "tasks", "singular": "task", "kind": "Task", "listKind": "TaskList"},
            "versions": [version],
        },
    }
