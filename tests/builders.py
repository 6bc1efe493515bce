"""Builders of the values and objects that tests talk about; each names only what its test is about."""

from __future__ import annotations

from typing import Any

from taskmaster.api import decode, names
from taskmaster.api.times import to_wire
from taskmaster.core.capacity import Worker
from taskmaster.core.policy import BUILT_IN
from taskmaster.core.task import Task

Object = dict[str, Any]

EPOCH = 1_800_000_000.0
"""When tests take place, in seconds since the epoch."""

NAMESPACE = "team-a"


def task_object(name: str = "t", *, uid: str = "", created: float = EPOCH, **spec: Any) -> Object:
    """A Task as stored, fresh from its creation."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "Task",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid or f"uid-of-{name}",
            "resourceVersion": "1001",
            "generation": 1,
            "creationTimestamp": to_wire(created)[:19] + "Z",
        },
        "spec": {"run": {"command": ["true"]}, **spec},
        "status": {"phase": "Pending", "attempt": 0},
    }


def assignment(worker: str = "w", *, incarnation: str = "i1", assigned: float = EPOCH) -> Object:
    return {
        "worker": worker,
        "podUID": f"uid-of-{worker}",
        "incarnation": incarnation,
        "node": "n1",
        "assignedTime": to_wire(assigned),
        "policy": decode.encode_policy(BUILT_IN),
    }


def task(name: str = "t", *, status: Object | None = None, generation: int = 1, **spec: Any) -> Task:
    """A Task as decoded; `status` adds to that of a new one."""
    stored = task_object(name, **spec)
    stored["metadata"]["generation"] = generation
    stored["status"] |= status or {}
    return decode.task(stored)


def held_task(name: str = "t", worker: str = "w", *, attempt: int = 1, status: Object | None = None) -> Task:
    given = {"phase": "Assigned", "attempt": attempt, "assignment": assignment(worker), **(status or {})}
    return task(name, status=given)


def worker(name: str = "w", *, slots: int = 4, schedulable: bool = True, incarnation: str = "i1") -> Worker:
    return Worker(NAMESPACE, name, f"uid-of-{name}", "pool", incarnation, "n1", slots, schedulable)


def lease_object(
    name: str = "w",
    *,
    pod_uid: str = "",
    slots: int = 4,
    incarnation: str = "i1",
    state: str = names.READY_STATE,
    holder: str | None = None,
    renewed: float = EPOCH,
    duration: int = 45,
) -> Object:
    """A worker's Lease as its agent writes it."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {**names.MANAGED_LABELS, names.POOL_LABEL: "pool"},
            "annotations": {
                names.SLOTS_ANNOTATION: str(slots),
                names.POD_UID_ANNOTATION: pod_uid or f"uid-of-{name}",
                names.INCARNATION_ANNOTATION: incarnation,
                names.NODE_ANNOTATION: "n1",
                names.STATE_ANNOTATION: state,
            },
        },
        "spec": {
            "holderIdentity": name if holder is None else holder,
            "leaseDurationSeconds": duration,
            "renewTime": to_wire(renewed),
        },
    }


def pod_object(name: str = "w", *, uid: str = "", status: Object | None = None) -> Object:
    """A worker's Pod."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "uid": uid or f"uid-of-{name}",
            "labels": {**names.MANAGED_LABELS, names.POOL_LABEL: "pool"},
        },
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", **(status or {})},
    }


def pool_object(name: str = "pool", *, uid: str = "", generation: int = 1, **spec: Any) -> Object:
    """A WorkerPool as stored."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "WorkerPool",
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": uid or f"uid-of-{name}", "generation": generation},
        "spec": {"replicas": 3, "slots": 4, "drainSeconds": 30, **spec},
        "status": {"observedGeneration": 0},
    }
