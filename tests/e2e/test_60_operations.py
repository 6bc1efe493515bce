"""What the people who run it look at: health, metrics, and an operator that is newer than its CRDs."""

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.cluster import SYSTEM_NAMESPACE, Cluster, Object
from tests.e2e.objects import is_ready, phase, task
from tests.e2e.release import OPERATOR, OPERATOR_PODS, Release

from taskmaster.api.names import SCHEMA_REVISION

pytestmark = pytest.mark.timeout(300)

CRD = "crd/tasks.taskmaster.dev"
REVISION = "taskmaster.dev/schema-revision"


def test_new_operator_with_old_crds_is_not_ready_and_the_old_one_goes_on(release: Release, cluster: Cluster) -> None:
    cluster.kubectl("annotate", CRD, f"{REVISION}=0", "--overwrite")
    known = {pod["metadata"]["name"] for pod in release.operators()}
    try:
        with cluster.watching("pods", labels=OPERATOR_PODS, namespace=SYSTEM_NAMESPACE) as watch:
            cluster.kubectl("rollout", "restart", OPERATOR, "-n", SYSTEM_NAMESPACE)
            pods = watch.until(lambda seen: bool(started(seen, known)), 60, "a new operator that runs")
            newcomer = started(pods, known)[0]
            problem = crd_problem(cluster, newcomer)
            assert "tasks.taskmaster.dev" in problem
            assert "kubectl apply --server-side --force-conflicts --field-manager=helm -f crds/" in problem
            # The rollout stands still, so the old operators are there and lead.
            cluster.delete("task/meanwhile")
            cluster.apply(task("meanwhile", "true"))
            (ended,) = cluster.finished("meanwhile")
            assert phase(ended) == "Succeeded"
            watch.catch_up()
            current = watch.latest()
            assert {name for name, pod in current.items() if is_ready(pod)} == known
            assert release.leader() in known
        # The upgrade's hook brings the CRDs up to date.
        release.install()
    finally:
        cluster.kubectl("annotate", CRD, f"{REVISION}={SCHEMA_REVISION}", "--overwrite")
    cluster.kubectl("rollout", "status", OPERATOR, "-n", SYSTEM_NAMESPACE, "--timeout=90s", seconds=100)


def test_upgrade_hook_applies_the_crds(release: Release, cluster: Cluster) -> None:
    cluster.kubectl("annotate", CRD, f"{REVISION}=0", "--overwrite")
    release.install()
    metadata = cluster.get(CRD, "--show-managed-fields")["metadata"]
    assert metadata["annotations"][REVISION] == str(SCHEMA_REVISION)
    assert {each["manager"] for each in metadata["managedFields"] if each["operation"] == "Apply"} == {"helm"}


def test_health_says_which_parts_are_well(release: Release, cluster: Cluster) -> None:
    with cluster.forwarding(f"pod/{release.leader()}", 8080) as url:
        code, body = fetch(f"{url}/readyz")
        assert code == 200
        assert fetch(f"{url}/livez") == (200, "ok\n")
    parts = json.loads(body)["parts"]
    assert {"election", "crds", "tasks", "leases", "pods", "kopf"} <= set(parts)
    assert all(part["ready"] and part["since"] for part in parts.values())


OPERATOR_FAMILIES = {
    "taskmaster_tasks",
    "taskmaster_task_queue_wait_seconds",
    "taskmaster_task_start_latency_seconds",
    "taskmaster_task_run_duration_seconds",
    "taskmaster_task_end_to_end_seconds",
    "taskmaster_task_transitions",
    "taskmaster_workers",
    "taskmaster_slots",
    "taskmaster_api_requests",
    "taskmaster_watch_age_seconds",
    "taskmaster_leader",
}
WORKER_FAMILIES = {
    "taskmaster_api_requests",
    "taskmaster_worker_attempts",
    "taskmaster_worker_attempts_running",
    "taskmaster_worker_attempt_duration_seconds",
    "taskmaster_worker_lease_renewals",
    "taskmaster_worker_slots",
    "taskmaster_worker_status_writes",
}


def test_metrics_of_the_leader(release: Release, cluster: Cluster) -> None:
    cluster.delete("task/measured")
    cluster.apply(task("measured", "true"))
    cluster.finished("measured")
    found = metrics(cluster, SYSTEM_NAMESPACE, release.leader(), 8080)
    assert set(found) >= OPERATOR_FAMILIES
    assert value(found, "taskmaster_leader") == 1
    assert value(found, "taskmaster_workers", namespace="default", pool="default", state="ready") == 3
    assert value(found, "taskmaster_slots", namespace="default", pool="default", state="free") == 12
    assert value(found, "taskmaster_tasks", queue="default", phase="Succeeded") >= 1
    standby = next(pod for pod in release.operators() if pod["metadata"]["name"] != release.leader())
    assert value(metrics(cluster, SYSTEM_NAMESPACE, standby["metadata"]["name"], 8080), "taskmaster_leader") == 0


def test_metrics_of_a_worker(cluster: Cluster) -> None:
    worker = cluster.items("pods", "-l", "taskmaster.dev/pool=default")[0]["metadata"]["name"]
    found = metrics(cluster, "default", worker, 8081)
    assert set(found) >= WORKER_FAMILIES
    assert value(found, "taskmaster_worker_slots") == 4


def started(pods: Mapping[str, Object], known: set[str]) -> list[str]:
    """The new pods whose container runs, though it may not be ready."""
    return [
        name
        for name, pod in pods.items()
        if name not in known
        and any("running" in each.get("state", {}) and each.get("started") for each in statuses(pod))
    ]


def statuses(pod: Object) -> list[Object]:
    """Of a pod's containers."""
    return list(pod.get("status", {}).get("containerStatuses", ()))


def crd_problem(cluster: Cluster, pod: str) -> str:
    """What an operator says of the CRDs in its `/readyz`."""
    with cluster.forwarding(f"pod/{pod}", 8080) as url:
        code, body = fetch(f"{url}/readyz")
    assert code == 503, body
    return str(json.loads(body)["parts"]["crds"]["message"])


def fetch(url: str) -> tuple[int, str]:
    """GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def metrics(cluster: Cluster, namespace: str, pod: str, port: int) -> dict[str, Any]:
    """Return metric families by name, through the API server's proxy."""
    text = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/metrics")
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: Mapping[str, Any], name: str, **labels: str) -> float:
    """Return the one sample with these labels."""
    (sample,) = (each for each in families[name].samples if each.labels == labels)
    return float(sample.value)
