"""The leading operator goes, by request and by force, while Tasks flow: the other one goes on."""

import time
from collections.abc import Callable

import pytest
from tests.e2e.cluster import SYSTEM_NAMESPACE, Cluster
from tests.e2e.objects import is_finished, phase, task
from tests.e2e.processes import Node
from tests.e2e.release import ELECTION_LEASE, OPERATOR, Release, pod_of

pytestmark = pytest.mark.timeout(240)

LEASE_SECONDS = 15
HANDOVER_SECONDS = 10
"""A leader that is told to go gives the Lease up; the rest is for a busy machine."""

FLOWING = 30
"""More Tasks than slots, so that the new leader has to assign some of them."""


def delete(release: Release, node: Node) -> None:
    """Delete the leader's pod; return at once."""
    release.cluster.kubectl("delete", "pod", release.leader(), "-n", SYSTEM_NAMESPACE, "--wait=false")


def kill(release: Release, node: Node) -> None:
    """End the leader's process without a word."""
    node.kill(SYSTEM_NAMESPACE, release.leader(), "operator")


@pytest.mark.parametrize(
    ("remove", "seconds"),
    [(delete, HANDOVER_SECONDS), (kill, LEASE_SECONDS + HANDOVER_SECONDS)],
    ids=["delete", "kill"],
)
def test_another_operator_takes_over(
    release: Release, node: Node, remove: Callable[[Release, Node], None], seconds: float
) -> None:
    cluster = release.cluster
    cluster.kubectl("rollout", "status", OPERATOR, "-n", SYSTEM_NAMESPACE, "--timeout=90s", seconds=100)
    names = [f"flow-{number:02}" for number in range(FLOWING)]
    cluster.delete(*(f"task/{name}" for name in names))
    before = release.holder()
    lease = ELECTION_LEASE.removeprefix("lease/")
    with (
        cluster.watching("tasks") as watch,
        cluster.watching("leases", fields=f"metadata.name={lease}", namespace=SYSTEM_NAMESPACE) as leases,
    ):
        leases.until(lambda seen: lease in seen, 30, "the election's Lease")
        cluster.apply(*(task(name, "sleep", "3") for name in names))
        watch.until(lambda seen: any(phase(seen[name]) == "Running" for name in names if name in seen), 30, "a start")
        started = time.monotonic()
        remove(release, node)

        def taken_over(seen: object) -> bool:
            assert isinstance(seen, dict)
            holder = seen[lease]["spec"].get("holderIdentity", "")
            return bool(holder) and holder != before

        leases.until(taken_over, seconds, f"another holder than {before}")
        handover = time.monotonic() - started
        after = pod_of(release.holder())
        assert after != pod_of(before)
        ended = watch.until(
            lambda seen: all(name in seen and is_finished(seen[name]) for name in names), 90, "the end of all Tasks"
        )
    print(f"handed over after {handover:.1f} s")
    for name in names:
        # A leader's end is nothing to a worker: not one Task was run twice.
        assert (phase(ended[name]), ended[name]["status"]["attempt"]) == ("Succeeded", 1)
    cluster.wait("jsonpath={.status.readyReplicas}=2", OPERATOR, namespace=SYSTEM_NAMESPACE, seconds=90)


def test_a_rollout_of_the_operator_loses_no_task(release: Release, cluster: Cluster) -> None:
    names = [f"roll-{number:02}" for number in range(FLOWING)]
    cluster.delete(*(f"task/{name}" for name in names))
    cluster.apply(*(task(name, "sleep", "2") for name in names))
    cluster.kubectl("rollout", "restart", OPERATOR, "-n", SYSTEM_NAMESPACE)
    for ended in cluster.finished(*names, seconds=90):
        assert (phase(ended), ended["status"]["attempt"]) == ("Succeeded", 1)
    cluster.kubectl("rollout", "status", OPERATOR, "-n", SYSTEM_NAMESPACE, "--timeout=90s", seconds=100)
