"""A namespace with one pool in it, and the verbs of kubectl on its Tasks."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster, History, Object
from tests.e2e.objects import config_map, namespace, pool

CODE = Path(__file__).with_name("jobs.py")
"""What the workers of these pools have at /app, as users mount their own code."""


@dataclass(frozen=True)
class Space:
    """Tasks of one namespace."""

    cluster: Cluster
    name: str

    @classmethod
    @contextmanager
    def made(cls, cluster: Cluster, name: str, *others: Object, replicas: int, **spec: Any) -> "Iterator[Space]":
        """Make a namespace with a pool of the same name, whose workers are ready; delete it in the end."""
        space = cls(cluster, name)
        cluster.apply(namespace(name))
        template = {
            "volumes": [{"name": "code", "configMap": {"name": "code"}}],
            "volumeMounts": [{"name": "code", "mountPath": "/app", "readOnly": True}],
            **spec.pop("template", {}),
        }
        code = config_map("code", **{CODE.name: CODE.read_text()})
        space.apply(code, *others, pool(name, replicas=replicas, template=template, **spec))
        space.has_workers(replicas)
        yield space
        cluster.kubectl("delete", "namespace", name, "--wait=false")

    def has_workers(self, number: int, *, seconds: float = 90) -> None:
        """Wait until the pool has so many ready workers."""
        self.cluster.wait(
            f"jsonpath={{.status.readyWorkers}}={number}", f"wp/{self.name}", namespace=self.name, seconds=seconds
        )

    def is_idle(self, *, seconds: float = 30) -> None:
        """Wait until every slot is free."""
        self.cluster.wait("jsonpath={.status.busySlots}=0", f"wp/{self.name}", namespace=self.name, seconds=seconds)

    def apply(self, *objects: Object) -> None:
        """Apply objects."""
        self.cluster.apply(*objects, namespace=self.name)

    def edit(self, task: str, **spec: Any) -> None:
        """`kubectl patch` fields of a Task's spec."""
        self.edit_object(f"task/{task}", **spec)

    def edit_object(self, what: str, **spec: Any) -> None:
        """`kubectl patch` fields of the spec of an object, such as `tq/media`."""
        patch = json.dumps({"spec": spec})
        self.cluster.kubectl("patch", what, "-n", self.name, "--type=merge", "-p", patch)

    def has(self, field: str, value: object, what: str, *, seconds: float = 60) -> None:
        """Wait until a field of the status of an object, such as `tq/media`, has a value."""
        self.cluster.wait(f"jsonpath={{.status.{field}}}={value}", what, namespace=self.name, seconds=seconds)

    def task(self, name: str) -> Object:
        """Return a Task."""
        return self.cluster.get(f"task/{name}", namespace=self.name)

    def finished(self, *names: str, seconds: float = 60) -> list[Object]:
        """Wait until Tasks are finished, and return them."""
        return self.cluster.finished(*names, namespace=self.name, seconds=seconds)

    def reach(self, field: str, value: object, *names: str, seconds: float = 60) -> None:
        """Wait until a field of the status of Tasks has a value."""
        tasks = (f"task/{name}" for name in names)
        self.cluster.wait(f"jsonpath={{.status.{field}}}={value}", *tasks, namespace=self.name, seconds=seconds)

    def log(self, worker: str, container: str) -> str:
        """Return what a container of a worker has printed."""
        return self.cluster.kubectl("logs", worker, "-n", self.name, "-c", container)

    def workers(self) -> list[str]:
        """Return the names of the pool's pods."""
        pods = self.cluster.items("pods", "-l", f"taskmaster.dev/pool={self.name}", namespace=self.name)
        return [pod["metadata"]["name"] for pod in pods]

    @contextmanager
    def watching(self) -> Iterator[History]:
        """Collect every revision of the Tasks from now on."""
        with self.cluster.watching("tasks", namespace=self.name) as watch:
            yield watch
