"""The Helm release of a test run."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster import SYSTEM_NAMESPACE, Cluster, Object

NAME = "taskmaster"
OPERATOR = "deployment/taskmaster-operator"
OPERATOR_PODS = "app.kubernetes.io/component=coordinator"
ELECTION_LEASE = "lease/taskmaster-coordinator"


@dataclass(frozen=True)
class Release:
    """Taskmaster in a cluster, with the images of this run."""

    cluster: Cluster
    chart: Path
    values: Path
    operator_image: str
    worker_image: str

    def install(self, **settings: object) -> None:
        """Install or upgrade, and wait until operator and workers are ready. `__` in a setting's name is a dot."""
        options = [f"--values={self.values}"]
        for prefix, reference in (("image", self.operator_image), ("worker.image", self.worker_image)):
            repository, _, tag = reference.rpartition(":")
            options += [f"--set={prefix}.repository={repository}", f"--set={prefix}.tag={tag}"]
        for key, value in settings.items():
            options.append(f"--set-json={key.replace('__', '.')}={json.dumps(value)}")
        self.cluster.helm("upgrade", "--install", NAME, self.chart, *options, "--wait", "--timeout=150s", seconds=180)

    def uninstall(self) -> None:
        """Uninstall, and wait until what Helm knows of is gone."""
        self.cluster.helm("uninstall", NAME, "--wait", "--timeout=150s", seconds=180)

    def operators(self) -> list[Object]:
        """The operator's pods."""
        return self.cluster.items("pods", "-l", OPERATOR_PODS, namespace=SYSTEM_NAMESPACE)

    def holder(self) -> str:
        """Who holds the election's Lease."""
        lease = self.cluster.get(ELECTION_LEASE, namespace=SYSTEM_NAMESPACE)
        return str(lease["spec"].get("holderIdentity", ""))

    def leader(self) -> str:
        """The name of the leading pod."""
        return pod_of(self.holder())


def pod_of(holder: str) -> str:
    """Take the pod's name out of a holder identity, which is made unique for each process."""
    return holder.rpartition("_")[0]
