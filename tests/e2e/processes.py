"""Looking at processes on the cluster's node, and `kill -9`, by container.

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


COMMANDS_INSIDE = """
import pathlib, sys

def commands():
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            inside = sys.argv[1] in (directory / "cgroup").read_text()
            words = (directory / "cmdline").read_bytes().split(bytes(1))
        except OSError:
            continue
        if inside and any(words):
            yield " ".join(word.decode("utf-8", "replace").replace("\\n", " ") for word in words)
"""

COMMANDS = COMMANDS_INSIDE + "print(*commands(), sep=chr(10))"

WAIT_COUNT = (
    COMMANDS_INSIDE
    + """
import time

deadline = time.monotonic() + float(sys.argv[3])
while len(found := list(commands())) != int(sys.argv[2]) and time.monotonic() < deadline:
    time.sleep(0.05)
sys.exit(len(found) != int(sys.argv[2]) and "\\n".join(["not as many as expected:", *found]))
"""
)

WAIT_GONE = """
import os, pathlib, sys, time

def found():
    for directory in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (directory / "cmdline").read_bytes().replace(bytes(1), b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if sys.argv[1] in line and int(directory.name) != os.getpid():
            yield line

deadline = time.monotonic() + float(sys.argv[2])
while (left := list(found())) and time.monotonic() < deadline:
    time.sleep(0.05)
sys.exit(bool(left) and f"still there: {left}")
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
        self._python(KILL_FIRST_PROCESS, self._identity(namespace, pod, container))

    def commands(self, namespace: str, pod: str, container: str) -> list[str]:
        """Return the command line of every process in a container."""
        return self._python(COMMANDS, self._identity(namespace, pod, container)).splitlines()

    def wait_for_processes(self, number: int, namespace: str, pod: str, container: str, *, seconds: float) -> None:
        """Wait until a container has so many processes."""
        self._python(WAIT_COUNT, self._identity(namespace, pod, container), str(number), str(seconds))

    def wait_gone(self, text: str, *, seconds: float) -> None:
        """Wait until no process of the node has a text in its command line."""
        self._python(WAIT_GONE, text, str(seconds))

    def _identity(self, namespace: str, pod: str, container: str) -> str:
        statuses = self.cluster.get(f"pod/{pod}", namespace=namespace)["status"]["containerStatuses"]
        status = next(each for each in statuses if each["name"] == container)
        if "running" not in status["state"]:
            raise CommandFailed(f"container {container} of {pod} does not run: {json.dumps(status['state'])}")
        return str(status["containerID"].rpartition("/")[2])

    def _python(self, source: str, *arguments: str) -> str:
        command = ("exec", "-n", NODE_NAMESPACE, POD, "--", "python3", "-c", source, *arguments)
        return self.cluster.kubectl(*command)
