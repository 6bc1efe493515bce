"""WorkerPools: scaled, edited, broken, and in a namespace of their own. Whatever rolls, no Task is lost."""

import re
from collections.abc import Mapping

import pytest
from tests.e2e.cluster import NAMESPACE, Cluster, Object
from tests.e2e.objects import attempts, condition, is_finished, phase, pool, shell, task

pytestmark = pytest.mark.timeout(300)

POOL = "wp/default"
WORKERS = "taskmaster.dev/pool=default"
SHARED = "taskmaster-worker"
"""The name of the workers' ServiceAccount and of its RoleBinding."""


def has_workers(cluster: Cluster, number: int, *, slots: int = 4, name: str = POOL, namespace: str = NAMESPACE) -> None:
    """Wait until a pool says that it has so many workers, all ready."""
    for field, value in (("readyWorkers", number), ("replicas", number), ("slots", number * slots)):
        cluster.wait(f"jsonpath={{.status.{field}}}={value}", name, namespace=namespace, seconds=90)
    cluster.wait("condition=Ready", name, namespace=namespace)


def test_scaling_hands_running_tasks_over(cluster: Cluster) -> None:
    names = [f"scaled-{number}" for number in range(20)]
    cluster.delete(*(f"task/{name}" for name in names))
    cluster.kubectl("scale", POOL, "--replicas=5")
    has_workers(cluster, 5)
    cluster.kubectl("wait", "--for=condition=Ready", "pods", "-l", WORKERS, "--timeout=60s")
    assert len(cluster.items("pods", "-l", WORKERS)) == 5
    cluster.apply(*(task(name, "sleep", "12") for name in names))
    cluster.wait("jsonpath={.status.phase}=Running", *(f"task/{name}" for name in names))
    cluster.wait("jsonpath={.status.busySlots}=20", POOL)
    cluster.wait("jsonpath={.status.busyWorkers}=5", POOL)
    cluster.kubectl("scale", POOL, "--replicas=3")
    for ended in cluster.finished(*names, seconds=90):
        assert phase(ended) == "Succeeded"
        # Twelve seconds fit into the thirty that a leaving worker has: nothing was even interrupted.
        assert ended["status"]["attempt"] == 1
    has_workers(cluster, 3)
    cluster.wait("jsonpath={.status.busySlots}=0", POOL)


def test_edited_pool_rolls_and_its_interrupted_tasks_run_again(cluster: Cluster, tenant: str) -> None:
    cluster.apply(pool("rolling", replicas=2, slots=2, drainSeconds=1), namespace=tenant)
    has_workers(cluster, 2, slots=2, name="wp/rolling", namespace=tenant)
    endless_at_first = 'echo "$COLOUR"; test "$TASK_ATTEMPT" -gt 1 || sleep 300'
    names = ["first", "second", "third"]
    cluster.apply(*(shell(name, endless_at_first, timeouts={"graceSeconds": 2}) for name in names), namespace=tenant)
    cluster.wait("jsonpath={.status.phase}=Running", *(f"task/{name}" for name in names), namespace=tenant)
    edit = '{"spec": {"slots": 3, "template": {"env": [{"name": "COLOUR", "value": "blue"}]}}}'
    cluster.kubectl("patch", "wp", "rolling", "-n", tenant, "--type=merge", "-p", edit)
    for ended in cluster.finished(*names, namespace=tenant, seconds=120):
        assert phase(ended) == "Succeeded"
        status = ended["status"]
        assert (status.get("interruptions", 0), status.get("failures", 0), status.get("workerLosses", 0)) == (1, 0, 0)
        assert [each["outcome"] for each in attempts(ended)] == ["Interrupted", "Succeeded"]
        assert status["logTail"] == "blue\n"
    has_workers(cluster, 2, slots=3, name="wp/rolling", namespace=tenant)


def test_pool_that_cannot_start_says_why(cluster: Cluster, tenant: str) -> None:
    image = "registry.invalid/no/such-image:1"
    broken = pool("broken", replicas=1, slots=1, template={"image": image, "imagePullPolicy": "Never"})
    cluster.apply(broken, namespace=tenant)
    with cluster.watching("workerpools", namespace=tenant) as watch:

        def says_why(pools: Mapping[str, Object]) -> bool:
            ready = condition(pools.get("broken", {}), "Ready")
            return ready.get("status") == "False" and image in ready.get("message", "")

        seen = watch.until(says_why, 60, "a condition that names the image")
    assert condition(seen["broken"], "Ready")["reason"] == "WorkersNotStarting"
    cluster.apply(pool("broken", replicas=1, slots=1), namespace=tenant)
    has_workers(cluster, 1, slots=1, name="wp/broken", namespace=tenant)


def test_pool_with_a_volume_that_is_ours_is_refused_by_a_condition(cluster: Cluster, tenant: str) -> None:
    greedy = {"volumes": [{"name": "taskmaster-token", "emptyDir": {}}]}
    cluster.apply(pool("greedy", replicas=1, template=greedy), namespace=tenant)
    cluster.wait("jsonpath={.status.conditions[0].reason}=InvalidSpec", "wp/greedy", namespace=tenant)
    assert "rename" in condition(cluster.get("wp/greedy", namespace=tenant), "Ready")["message"]
    assert cluster.items("deployments", namespace=tenant) == []


def test_pool_brings_what_its_namespace_needs_and_takes_it_along(cluster: Cluster, tenant: str) -> None:
    of_pool, of_release = ("WorkerPool", "own"), ("ClusterRole", "taskmaster-worker")
    owned = {
        f"serviceaccount/{SHARED}": of_release,
        f"rolebinding/{SHARED}": of_release,
        "deployment/own-worker": of_pool,
    }
    cluster.apply(pool("own", replicas=1, slots=1), namespace=tenant)
    has_workers(cluster, 1, slots=1, name="wp/own", namespace=tenant)
    for name, owner in owned.items():
        metadata = cluster.get(name, namespace=tenant)["metadata"]
        assert [(each["kind"], each["name"]) for each in metadata["ownerReferences"]] == [owner]
        assert "finalizers" not in metadata
    cluster.apply(task("local", "true"), namespace=tenant)
    (ended,) = cluster.finished("local", namespace=tenant)
    assert phase(ended) == "Succeeded"
    assert re.match(r"own-worker-", ended["status"]["assignment"]["worker"])
    cluster.delete("wp/own", namespace=tenant)
    cluster.wait("delete", "pods,leases", "-l", "taskmaster.dev/pool=own", namespace=tenant)
    cluster.wait("delete", *owned, namespace=tenant)
    # Without a pool a Task waits, and the finished one stays.
    assert is_finished(cluster.get("task/local", namespace=tenant))
