"""What the tests apply, and how they read what becomes of it."""

from typing import Any

from tests.e2e.cluster import Object

API_VERSION = "taskmaster.dev/v1alpha1"
FINAL = ("Succeeded", "Failed", "Cancelled", "Skipped")


def task(name: str, *command: str, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A Task that runs a command."""
    return _of({"command": list(command)}, name, labels or {}, spec)


def shell(name: str, source: str, *, labels: dict[str, str] | None = None, **spec: Any) -> Object:
    """A Task that runs a line of shell."""
    return task(name, "sh", "-c", source, labels=labels, **spec)


def call(name: str, function: str, args: Object | None = None, **spec: Any) -> Object:
    """A Task that calls a function of `jobs.py`."""
    return _of({"python": {"callable": f"jobs:{function}", "args": args or {}}}, name, {}, spec)


def request(name: str, url: str, *, http: Object | None = None, **spec: Any) -> Object:
    """A Task that makes an HTTP request."""
    return _of({"http": {"url": url, **(http or {})}}, name, {}, spec)


def pool(name: str, **spec: Any) -> Object:
    """A WorkerPool."""
    return {"apiVersion": API_VERSION, "kind": "WorkerPool", "metadata": {"name": name}, "spec": spec}


def queue(name: str, **spec: Any) -> Object:
    """A TaskQueue."""
    return {"apiVersion": API_VERSION, "kind": "TaskQueue", "metadata": {"name": name}, "spec": spec}


def config_map(name: str, **data: str) -> Object:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def secret(name: str, **data: str) -> Object:
    """A Secret."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def namespace(name: str, *, level: str = "restricted") -> Object:
    """A namespace that refuses pods below a level of pod security."""
    labels = {"pod-security.kubernetes.io/enforce": level}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def phase(obj: Object) -> str:
    """The phase of a Task."""
    return str(obj.get("status", {}).get("phase", ""))


def is_finished(obj: Object) -> bool:
    """Whether a Task has ended."""
    return phase(obj) in FINAL


def holder(obj: Object) -> str:
    """The worker that has a Task; empty if none."""
    return str(obj.get("status", {}).get("assignment", {}).get("worker", ""))


def attempts(obj: Object) -> list[Object]:
    """The records of a Task's attempts."""
    return list(obj["status"].get("attempts", ()))


def spent(obj: Object) -> tuple[int, int, int]:
    """What a Task has used of its budgets: failures, lost workers, interruptions."""
    status = obj["status"]
    return (status.get("failures", 0), status.get("workerLosses", 0), status.get("interruptions", 0))


def condition(obj: Object, kind: str) -> Object:
    """A condition of an object; empty if it is not there."""
    conditions = obj.get("status", {}).get("conditions", ())
    return next((each for each in conditions if each["type"] == kind), {})


def is_ready(pod: Object) -> bool:
    """Whether a pod is ready and not on its way out."""
    conditions = pod.get("status", {}).get("conditions", ())
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]


def _of(run: Object, name: str, labels: dict[str, str], spec: Object) -> Object:
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": API_VERSION, "kind": "Task", "metadata": metadata, "spec": {"run": run, **spec}}
