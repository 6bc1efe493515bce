"""Ways to take a worker away from its Tasks."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.cluster import Cluster
from tests.e2e.processes import Node

Way = Callable[[str], None]


@dataclass(frozen=True)
class Victims:
    """The workers of a namespace, and the ways to end them."""

    cluster: Cluster
    node: Node
    namespace: str

    def delete_pod(self, worker: str) -> None:
        """Take the object away at once, and the processes soon."""
        self.cluster.kubectl("delete", "pod", worker, "-n", self.namespace, "--force", "--grace-period=0")

    def kill_agent(self, worker: str) -> None:
        """End the half that talks to Kubernetes."""
        self.node.kill(self.namespace, worker, "agent")

    def kill_runner(self, worker: str) -> None:
        """End the half that runs user code, with all of it."""
        self.node.kill(self.namespace, worker, "runner")

    def drain(self, worker: str) -> None:
        """Ask the pod to go, as an eviction does; return at once."""
        self.cluster.kubectl("delete", "pod", worker, "-n", self.namespace, "--wait=false")
