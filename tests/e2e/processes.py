"""kill -9 on the cluster's node, by container.

A privileged pod in the node's process namespace does it, which works alike on kind and on the local cluster.
"""

import json
from dataclasses import dataclass

from tests.e2e.cluster import Cluster, CommandFailed

NODE_NAMESPACE = "taskmaster-node"
POD = "processes"

KILL_FIRST_PROCESS = """
import os, pathlib, signal, sys

killed = []
for directory in pathlib.Path("/proc").glob("[0-9]*"):
    try:
        inside = sys.argv[1] in (directory / "cgroup").read_text()
        status = (directory / "status").read_text()
    except OSError:
        continue
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    if inside and len(numbers) > 1 and numbers[-1] == "1":
        os.kill(int(directory.name), signal.SIGKILL)
        killed.append(directory.name)
sys.exit(len(killed) != 1 and f"not one first process in {sys.argv[1]}, but {killed}")
"""


@dataclass(frozen=True)
class Node:
    """The processes of the cluster's node."""

    cluster: Cluster

    @classmethod
    def start(cls, cluster: Cluster, image: str) -> "Node":
        """Start the pod; `image` has Python."""
        container = {
            "name": "python",
            "image": image,
            "command": ["python3", "-c", "import signal; signal.pause()"],
            "securityContext": {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
        }
        spec = {"hostPID": True, "terminationGracePeriodSeconds": 0, "containers": [container]}
        cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD}, "spec": spec}, namespace=NODE_NAMESPACE
        )
        cluster.wait("condition=Ready", f"pod/{POD}", namespace=NODE_NAMESPACE)
        return cls(cluster)

    def kill(self, namespace: str, pod: str, container: str) -> None:
        """`kill -9` the first process of a container, and so all of it."""
        statuses = self.cluster.get(f"pod/{pod}", namespace=namespace)["status"]["containerStatuses"]
        status = next(each for each in statuses if each["name"] == container)
        if "running" not in status["state"]:
            raise CommandFailed(f"container {container} of {pod} does not run: {json.dumps(status['state'])}")
        identity = status["containerID"].rpartition("/")[2]
        self.cluster.kubectl("exec", "-n", NODE_NAMESPACE, POD, "--", "python3", "-c", KILL_FIRST_PROCESS, identity)
