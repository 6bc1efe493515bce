"""What the tests apply, and how they read what becomes of it."""

from typing import Any

from tests.e2e.cluster import Object

API_VERSION = "taskmaster.dev/v1alpha1"


def task(name: str, *command: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A Task that runs a command."""
    return {
        "apiVersion": API_VERSION,
        "kind": "Task",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"run": {"command": list(command)}, **spec},
    }


def shell(name: str, source: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A Task that runs a line of shell."""
    return task(name, "sh", "-c", source, labels=labels, **spec)


def pool(name: str, **spec: Any) -> Object:
    """A WorkerPool."""
    return {"apiVersion": API_VERSION, "kind": "WorkerPool", "metadata": {"name": name}, "spec": spec}


def namespace(name: str, *, level: str = "restricted") -> Object:
    """A namespace that refuses pods below a level of pod security."""
    labels = {"pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def phase(obj: Object) -> str:
    """The phase of a Task."""
    return str(obj.get("status", {}).get("phase", ""))


def is_finished(obj: Object) -> bool:
    """Whether a Task has ended."""
    return phase(obj) in ("Succeeded", "Failed")


def holder(obj: Object) -> str:
    """The worker that has a Task; empty if none."""
    return str(obj.get("status", {}).get("assignment", {}).get("worker", ""))


def attempts(obj: Object) -> list[Object]:
    """The records of a Task's attempts."""
    return list(obj["status"].get("attempts", ()))


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready and not on its way out."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
