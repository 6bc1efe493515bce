"""Upgrades under load, `helm test`, and what the release may and may not do."""

from collections.abc import Iterator

import pytest
from tests.e2e.cluster import NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.objects import is_finished, phase, task
from tests.e2e.release import NAME, OPERATOR, Release

from kubernetes import client, config

pytestmark = pytest.mark.timeout(400)

OPERATOR_ACCOUNT = f"system:serviceaccount:{SYSTEM_NAMESPACE}:taskmaster-operator"
WORKER_ACCOUNT = f"system:serviceaccount:{NAMESPACE}:taskmaster-worker"


def test_upgrade_under_load_loses_no_task_and_leaves_the_scale_alone(release: Release, cluster: Cluster) -> None:
    # For a cluster that was scaled before, so that this test can be repeated.
    names = [f"load-{number:02}" for number in range(40)]
    cluster.delete(*(f"task/{name}" for name in names))
    cluster.kubectl("scale", "wp/default", "--replicas=4")
    cluster.wait("jsonpath={.status.readyWorkers}=4", "wp/default", seconds=90)
    with cluster.watching("tasks") as watch:
        cluster.apply(*(task(name, "sleep", "6") for name in names))
        watch.until(lambda seen: sum(phase(each) == "Running" for each in seen.values()) == 16, 60, "full workers")
        release.install(logLevel="DEBUG", workerPools__default__slots=6)
        ended = watch.until(
            lambda seen: all(name in seen and is_finished(seen[name]) for name in names), 120, "the end of all Tasks"
        )
    for name in names:
        status = ended[name]["status"]
        assert (status["phase"], status.get("failures", 0), status.get("workerLosses", 0)) == ("Succeeded", 0, 0)
    environment = cluster.get(OPERATOR, namespace=SYSTEM_NAMESPACE)["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "TASKMASTER_LOG_LEVEL", "value": "DEBUG"} in environment
    assert cluster.get("wp/default")["spec"]["replicas"] == 4
    cluster.wait("jsonpath={.status.slots}=24", "wp/default", seconds=90)
    # And back: no conflict in this direction, either.
    cluster.kubectl("scale", "wp/default", "--replicas=3")
    release.install()
    cluster.wait("jsonpath={.status.slots}=12", "wp/default", seconds=120)
    assert cluster.get("wp/default")["spec"]["replicas"] == 3


def test_helm_test(release: Release) -> None:
    said = release.cluster.helm("test", NAME, "--logs", "--timeout=120s", seconds=140)
    assert "a Task was submitted, run by a worker, and succeeded" in said


@pytest.mark.parametrize("namespace", [SYSTEM_NAMESPACE, NAMESPACE])
def test_everything_of_ours_runs_where_pods_must_be_restricted(cluster: Cluster, namespace: str) -> None:
    labels = cluster.get(f"namespace/{namespace}")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = cluster.items("pods", namespace=namespace)
    assert pods
    assert all(pod["spec"]["securityContext"]["runAsNonRoot"] for pod in pods)


ALLOWED = [
    (OPERATOR_ACCOUNT, "list", "tasks.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "tasks.taskmaster.dev/status", "", NAMESPACE),
    # For TaskSchedules.
    (OPERATOR_ACCOUNT, "create", "tasks.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "delete", "tasks.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "taskqueues.taskmaster.dev/status", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "taskschedules.taskmaster.dev/status", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "tasktemplates.taskmaster.dev/status", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "create", "deployments.apps", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "leases.coordination.k8s.io", "taskmaster-coordinator", SYSTEM_NAMESPACE),
    (OPERATOR_ACCOUNT, "bind", "clusterroles.rbac.authorization.k8s.io", "taskmaster-worker", ""),
    # Nobody can grant what he may not do, so to let workers read what their pool lists it may read it, too.
    (OPERATOR_ACCOUNT, "get", "secrets", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "get", "configmaps", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "roles.rbac.authorization.k8s.io", "taskmaster-worker-default", NAMESPACE),
    (WORKER_ACCOUNT, "get", "secrets", "example-secret", NAMESPACE),
    (WORKER_ACCOUNT, "get", "configmaps", "example-settings", NAMESPACE),
    (WORKER_ACCOUNT, "watch", "tasks.taskmaster.dev", "", NAMESPACE),
    (WORKER_ACCOUNT, "patch", "tasks.taskmaster.dev/status", "", NAMESPACE),
    (WORKER_ACCOUNT, "create", "leases.coordination.k8s.io", "", NAMESPACE),
]
REFUSED = [
    (OPERATOR_ACCOUNT, "list", "secrets", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "watch", "secrets", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "secrets", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "list", "secrets", "", SYSTEM_NAMESPACE),
    (OPERATOR_ACCOUNT, "list", "configmaps", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "escalate", "roles.rbac.authorization.k8s.io", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "create", "pods", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "delete", "pods", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "create", "pods/exec", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "create", "serviceaccounts/token", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "taskqueues.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "taskschedules.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "create", "taskschedules.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "patch", "tasks.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "delete", "workerpools.taskmaster.dev", "", NAMESPACE),
    (OPERATOR_ACCOUNT, "bind", "clusterroles.rbac.authorization.k8s.io", "cluster-admin", ""),
    (OPERATOR_ACCOUNT, "escalate", "clusterroles.rbac.authorization.k8s.io", "", ""),
    (OPERATOR_ACCOUNT, "create", "clusterrolebindings.rbac.authorization.k8s.io", "", ""),
    (OPERATOR_ACCOUNT, "patch", "customresourcedefinitions.apiextensions.k8s.io", "tasks.taskmaster.dev", ""),
    (OPERATOR_ACCOUNT, "get", "customresourcedefinitions.apiextensions.k8s.io", "others.example.com", ""),
    (OPERATOR_ACCOUNT, "create", "events", "", NAMESPACE),
    (WORKER_ACCOUNT, "create", "tasks.taskmaster.dev", "", NAMESPACE),
    (WORKER_ACCOUNT, "patch", "tasks.taskmaster.dev", "", NAMESPACE),
    (WORKER_ACCOUNT, "delete", "tasks.taskmaster.dev", "", NAMESPACE),
    (WORKER_ACCOUNT, "list", "tasks.taskmaster.dev", "", SYSTEM_NAMESPACE),
    (WORKER_ACCOUNT, "delete", "leases.coordination.k8s.io", "", NAMESPACE),
    (WORKER_ACCOUNT, "patch", "leases.coordination.k8s.io", "taskmaster-coordinator", SYSTEM_NAMESPACE),
    (WORKER_ACCOUNT, "get", "secrets", "", NAMESPACE),
    (WORKER_ACCOUNT, "get", "secrets", "another", NAMESPACE),
    (WORKER_ACCOUNT, "list", "secrets", "", NAMESPACE),
    (WORKER_ACCOUNT, "watch", "secrets", "example-secret", NAMESPACE),
    (WORKER_ACCOUNT, "get", "configmaps", "another", NAMESPACE),
    (WORKER_ACCOUNT, "get", "pods", "", NAMESPACE),
    (WORKER_ACCOUNT, "get", "workerpools.taskmaster.dev", "", NAMESPACE),
    (WORKER_ACCOUNT, "get", "taskqueues.taskmaster.dev", "", NAMESPACE),
    (WORKER_ACCOUNT, "get", "tasktemplates.taskmaster.dev", "", NAMESPACE),
]


@pytest.mark.parametrize(
    ("account", "verb", "resource", "name", "namespace", "allowed"),
    [
        pytest.param(*row, allowed, id=f"{row[0].rpartition('-')[2]}-{row[1]}-{row[2].split('.')[0]}-{row[3] or 'any'}")
        for rows, allowed in ((ALLOWED, True), (REFUSED, False))
        for row in rows
    ],
)
def test_accounts_may_do_what_they_need_and_nothing_else(
    reviews: client.AuthorizationV1Api,
    account: str,
    verb: str,
    resource: str,
    name: str,
    namespace: str,
    allowed: bool,
) -> None:
    path, _, subresource = resource.partition("/")
    plural, _, group = path.partition(".")
    attributes = client.V1ResourceAttributes(
        verb=verb, group=group, resource=plural, subresource=subresource, name=name, namespace=namespace
    )
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{account.split(':')[2]}", "system:authenticated"]
    spec = client.V1SubjectAccessReviewSpec(user=account, groups=groups, resource_attributes=attributes)
    review = reviews.create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
    assert review.status
    assert review.status.allowed is allowed, review.status.reason


@pytest.fixture
def reviews(cluster: Cluster) -> Iterator[client.AuthorizationV1Api]:
    """The official client, which asks faster than `kubectl auth can-i`."""
    configuration = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
    with client.ApiClient(configuration) as api:
        yield client.AuthorizationV1Api(api)
