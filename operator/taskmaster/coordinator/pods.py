"""What the coordinator knows of a worker's Pod: the proof that it is dead, or a hint that it will be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from taskmaster.api.names import AGENT_CONTAINER


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
    )


def _has_ended(container: dict[str, Any]) -> bool:
    state = container.get("state", {})
    # Before its first start a container waits as well, but then it has no last state and nothing to lose.
    return "terminated" in state or ("waiting" in state and "terminated" in container.get("lastState", {}))
