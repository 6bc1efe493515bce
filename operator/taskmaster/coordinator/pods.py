"""What the coordinator knows of a worker's Pod: the proof that it is dead, or a hint that it will be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskmaster.api.names import AGENT_CONTAINER, POOL_LABEL

_ON_ITS_WAY = ("ContainerCreating", "PodInitializing")
"""Reasons of waiting containers that are no trouble."""


@dataclass(frozen=True, slots=True)
class WorkerPod:
    """One worker Pod as cached."""

    uid: str
    namespace: str
    name: str
    leaving: bool
    """It is being deleted or about to be disrupted: give it nothing new."""
    over: bool
    """Its containers have ended for good."""
    agent_down: bool
    """Its agent container has ended and has not been started again yet."""
    pool: str = ""
    trouble: str = ""
    """Why it does not start, as the kubelet or the scheduler says; empty if it does."""


def worker_pod(obj: dict[str, Any]) -> WorkerPod:
    """Decode a Pod."""
    metadata, status = obj["metadata"], obj.get("status", {})
    disrupted = any(
        condition["type"] == "DisruptionTarget" and condition["status"] == "True"
        for condition in status.get("conditions", ())
    )
    return WorkerPod(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        leaving="deletionTimestamp" in metadata or disrupted,
        over=status.get("phase") in ("Succeeded", "Failed"),
        agent_down=any(
            container["name"] == AGENT_CONTAINER and _has_ended(container)
            for container in status.get("containerStatuses", ())
        ),
        pool=metadata.get("labels", {}).get(POOL_LABEL, ""),
        trouble=_trouble(status),
    )


def _trouble(status: dict[str, Any]) -> str:
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}"
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting")
        if waiting and waiting.get("reason", "") not in ("", *_ON_ITS_WAY):
            return f"container {container['name']}: {waiting['reason']}: {waiting.get('message', '')}"
    return ""


def _has_ended(container: dict[str, Any]) -> bool:
    state = container.get("state", {})
    # Before its first start a container waits as well, but then it has no last state and nothing to lose.
    return "terminated" in state or ("waiting" in state and "terminated" in container.get("lastState", {}))
