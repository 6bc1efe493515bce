"""One cluster and one release for the tier. Modules run in the order of their numbers; the last one uninstalls.

All namespaces with pods of ours refuse what is not `restricted`, so that the whole tier is a test of that, too.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_kind import KindCluster  # type: ignore[import-untyped]
from tests.e2e.cluster import CALL_SECONDS, NAMESPACE, SYSTEM_NAMESPACE, Cluster, CommandFailed
from tests.e2e.objects import namespace
from tests.e2e.processes import NODE_NAMESPACE, Node
from tests.e2e.release import Release

REPOSITORY = Path(__file__).resolve().parents[2]

_cluster = pytest.StashKey[Cluster]()


@pytest.fixture(scope="session")
def empty_cluster(kind_cluster: KindCluster, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """The cluster, with our images on its node."""
    for variable in ("TASKMASTER_OPERATOR_IMAGE", "TASKMASTER_WORKER_IMAGE"):
        kind_cluster.load_docker_image(os.environ[variable])
    running = Cluster(Path(os.environ["TASKMASTER_BIN"]), Path(kind_cluster.kubeconfig_path).resolve())
    request.config.stash[_cluster] = running
    # The default account of a new namespace comes a moment after it, and pods are refused before.
    running.wait("create", "serviceaccount/default")
    yield running
    # pykube's connections, which pytest-kind never closes, would be reported as warnings.
    kind_cluster.api.session.close()


@pytest.fixture(scope="session")
def release(empty_cluster: Cluster) -> Release:
    """Taskmaster, installed as `make demo` does it."""
    cluster = empty_cluster
    cluster.apply(namespace(SYSTEM_NAMESPACE), namespace(NAMESPACE))
    installed = Release(
        cluster,
        chart=REPOSITORY / "charts" / "taskmaster",
        values=REPOSITORY / "examples" / "demo-values.yaml",
        operator_image=os.environ["TASKMASTER_OPERATOR_IMAGE"],
        worker_image=os.environ["TASKMASTER_WORKER_IMAGE"],
    )
    for example in ("demo", "sdk"):
        cluster.kubectl("apply", "-n", NAMESPACE, "-f", REPOSITORY / "examples" / example / "code.yaml")
    installed.install()
    return installed


@pytest.fixture(scope="session")
def cluster(release: Release) -> Cluster:
    """The cluster with Taskmaster in it."""
    return release.cluster


@pytest.fixture(scope="session")
def node(empty_cluster: Cluster) -> Iterator[Node]:
    """Power over the processes of the cluster's node."""
    cluster = empty_cluster
    cluster.apply(namespace(NODE_NAMESPACE, level="privileged"))
    cluster.wait("create", "serviceaccount/default", namespace=NODE_NAMESPACE)
    yield Node.start(cluster, os.environ["TASKMASTER_WORKER_IMAGE"])
    cluster.delete(f"namespace/{NODE_NAMESPACE}")


@pytest.fixture
def tenant(release: Release, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test."""
    words = request.node.name.removeprefix("test_").replace("_", "-")
    name = words[:50].rstrip("-")
    release.cluster.apply(namespace(name))
    yield name
    release.cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Add to the report of a failed test what a person would look at first."""
    report = yield
    cluster = item.config.stash.get(_cluster, None)
    if report.failed and cluster is not None:
        report.sections.append(("the cluster", picture(cluster)))
    return report


def picture(cluster: Cluster) -> str:
    """Show the cluster as it is now."""
    text = []
    operators = ("-n", SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/component=coordinator")
    for arguments in (
        ("get", "pods,workerpools", "-A", "-o", "wide"),
        ("get", "tasks", "-A", "-o", "wide"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        ("logs", *operators, "--tail=40", "--prefix"),
        ("logs", "-n", NAMESPACE, "-l", "taskmaster.dev/pool", "-c", "agent", "--tail=8", "--prefix"),
    ):
        try:
            shown = cluster.kubectl(*arguments, seconds=CALL_SECONDS)
        except CommandFailed as error:
            shown = str(error)
        text.append(f"--- kubectl {' '.join(arguments)}\n" + "\n".join(shown.splitlines()[-60:]))
    return "\n".join(text)
