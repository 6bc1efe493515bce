"""The last of all: nothing is left behind but CRDs and Tasks, and these wait for the next installation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.cluster import SYSTEM_NAMESPACE, Cluster, Object
from tests.e2e.objects import phase, shell, task
from tests.e2e.release import Release

pytestmark = pytest.mark.timeout(400)

NEWS = "A unit of work, newly described"
STAYING_KINDS = {"Task", "CustomResourceDefinition", "APIService", "Event", "Namespace"}
"""What is meant to stay; what Kubernetes makes of it; what tells of the past; what Helm did not make."""


def test_uninstalled_leaves_crds_and_tasks_which_the_next_release_runs(
    release: Release, cluster: Cluster, tmp_path: Path
) -> None:
    # An upgrade first, whose hook writes the CRDs that the next release will meet.
    release.install()
    cluster.delete("task/survivor", "task/late", "task/done")
    cluster.apply(task("done", "true"), shell("survivor", 'test "$TASK_ATTEMPT" -gt 1 || sleep 20'))
    cluster.wait("jsonpath={.status.phase}=Running", "task/survivor")
    (done,) = cluster.finished("done")
    release.uninstall()
    cluster.wait("delete", "pods", "-l", "app.kubernetes.io/name=taskmaster", seconds=120)
    cluster.wait("delete", "pods", "-l", "app.kubernetes.io/name=taskmaster", namespace=SYSTEM_NAMESPACE, seconds=120)
    with cluster.watching("leases") as watch:
        watch.until(lambda leases: not leases, 60, "the end of the workers' Leases")
    assert leftovers(cluster) == []
    assert cluster.get("task/done")["status"] == done["status"]
    cluster.apply(task("late", "true"))
    assert phase(cluster.get("task/late")) == "Pending"

    later_release(release, tmp_path / "chart").install()
    assert NEWS in cluster.kubectl("explain", "task")
    late, survivor = cluster.finished("late", "survivor", seconds=120)
    assert (phase(late), phase(survivor)) == ("Succeeded", "Succeeded")
    # Its worker had lost its rights before it could write the end.
    assert (survivor["status"].get("failures", 0), survivor["status"].get("workerLosses", 0)) == (0, 1)
    assert cluster.get("task/done")["status"] == done["status"]


def later_release(release: Release, chart: Path) -> Release:
    """The same with CRDs that are not quite the same."""
    shutil.copytree(release.chart, chart)
    crd = chart / "crds" / "tasks.yaml"
    before = crd.read_text()
    crd.write_text(before.replace("One unit of work", NEWS))
    assert crd.read_text() != before
    return replace(release, chart=chart)


def leftovers(cluster: Cluster) -> list[str]:
    """Everything in the cluster with our name in it that should not be there."""
    kinds = cluster.kubectl("api-resources", "--verbs=list", "-o", "name").split()
    found = json.loads(cluster.kubectl("get", ",".join(kinds), "-A", "-o", "json", seconds=120))["items"]
    nodes = {each["metadata"]["name"] for each in found if each["kind"] == "Node"}
    candidates = (each for each in found if each["kind"] not in STAYING_KINDS and each["metadata"]["name"] not in nodes)
    return sorted(shown(each) for each in candidates if ours(each))


def ours(obj: Object) -> bool:
    """Whether an object is of the release, or of something that the operator made."""
    metadata = obj["metadata"]
    names = (metadata["name"], metadata.get("labels", {}).get("app.kubernetes.io/name", ""))
    owners = (owner["apiVersion"] for owner in metadata.get("ownerReferences", ()))
    return any(word.startswith("taskmaster") for word in (*names, *owners))


def shown(obj: Object) -> str:
    """Name an object for a message."""
    metadata = obj["metadata"]
    return f"{obj['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"
