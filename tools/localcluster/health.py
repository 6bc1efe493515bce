"""Reading Kubernetes' own words about its health."""

import datetime
from typing import Any


def node_ready(node: dict[str, Any], since: datetime.datetime | None = None) -> bool:
    """Return whether a node is ready, and said so at or after `since`."""
    for condition in node.get("status", {}).get("conditions", []):
        if condition["type"] == "Ready":
            heard = datetime.datetime.fromisoformat(condition["lastHeartbeatTime"])
            return condition["status"] == "True" and (since is None or heard >= since)
    return False


def pods_current(pods: dict[str, Any], since: datetime.datetime) -> bool:
    """Return whether each container that is said to run was started at or after `since`."""
    for pod in pods.get("items", []):
        for container in pod.get("status", {}).get("containerStatuses", []):
            running = container.get("state", {}).get("running")
            if running and datetime.datetime.fromisoformat(running["startedAt"]) < since:
                return False
    return True
