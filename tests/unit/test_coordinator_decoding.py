"""What the coordinator reads from Pods and Leases of workers."""

from typing import Any

import pytest
from tests.builders import EPOCH, NAMESPACE, lease_object, pod_object

from taskmaster.api import names
from taskmaster.api.times import to_wire
from taskmaster.coordinator.leases import worker_lease
from taskmaster.coordinator.pods import WorkerPod, worker_pod

ENDED = {"terminated": {"exitCode": 1}}
RUNNING = {"running": {"startedAt": to_wire(EPOCH)}}


def containers(state: dict[str, Any], last: dict[str, Any] | None = None, *, name: str = "agent") -> dict[str, Any]:
    return {"containerStatuses": [{"name": name, "state": state, **({"lastState": last} if last else {})}]}


def read(status: dict[str, Any]) -> WorkerPod:
    return worker_pod(pod_object("w", status=status))


def test_healthy_pod() -> None:
    assert read(containers(RUNNING)) == WorkerPod(
        "uid-of-w", NAMESPACE, "w", leaving=False, over=False, agent_down=False, pool="pool"
    )


def test_pod_without_a_status_is_only_starting() -> None:
    stored = pod_object("w")
    del stored["status"]
    assert worker_pod(stored) == WorkerPod(
        "uid-of-w", NAMESPACE, "w", leaving=False, over=False, agent_down=False, pool="pool"
    )


def test_pod_being_deleted_is_leaving() -> None:
    stored = pod_object("w")
    stored["metadata"]["deletionTimestamp"] = to_wire(EPOCH)
    assert worker_pod(stored).leaving


@pytest.mark.parametrize(("status", "leaving"), [("True", True), ("False", False)])
def test_pod_about_to_be_disrupted_is_leaving(status: str, leaving: bool) -> None:
    conditions = [{"type": "Ready", "status": "True"}, {"type": "DisruptionTarget", "status": status}]
    assert read({"conditions": conditions}).leaving is leaving


@pytest.mark.parametrize(
    ("phase", "over"),
    [("Pending", False), ("Running", False), ("Unknown", False), ("Succeeded", True), ("Failed", True)],
)
def test_pod_is_over_when_its_containers_have_ended_for_good(phase: str, over: bool) -> None:
    assert read({"phase": phase}).over is over


@pytest.mark.parametrize(
    ("status", "down"),
    [
        pytest.param(containers(ENDED), True, id="ended"),
        pytest.param(containers({"waiting": {"reason": "CrashLoopBackOff"}}, ENDED), True, id="waits-to-be-restarted"),
        pytest.param(containers({"waiting": {"reason": "ContainerCreating"}}), False, id="waits-for-its-first-start"),
        pytest.param(containers(RUNNING, ENDED), False, id="restarted"),
        pytest.param(containers(ENDED, name="runner"), False, id="another-container"),
        pytest.param({"containerStatuses": []}, False, id="unknown"),
    ],
)
def test_agent_is_down_between_its_end_and_its_restart(status: dict[str, Any], down: bool) -> None:
    assert read(status).agent_down is down


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        pytest.param(containers(RUNNING), "", id="none"),
        pytest.param(containers({"waiting": {"reason": "ContainerCreating"}}), "", id="on-its-way"),
        pytest.param(
            containers({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}, name="runner"),
            "container runner: ErrImagePull: no such image",
            id="image",
        ),
        pytest.param(
            {"initContainerStatuses": containers({"waiting": {"reason": "CrashLoopBackOff"}})["containerStatuses"]},
            "container agent: CrashLoopBackOff: ",
            id="before-its-containers",
        ),
        pytest.param(
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes fit"}
                ]
            },
            "Unschedulable: 0/1 nodes fit",
            id="no-node",
        ),
    ],
)
def test_trouble_is_why_a_pod_does_not_start(status: dict[str, Any], trouble: str) -> None:
    assert read(status).trouble == trouble


def test_lease_of_a_living_worker() -> None:
    lease = worker_lease(lease_object("w", renewed=EPOCH + 1, duration=9))
    assert (lease.own, lease.taken_over, lease.mark, lease.duration_seconds) == (True, False, to_wire(EPOCH + 1), 9.0)
    assert (lease.worker.pod_uid, lease.worker.incarnation) == ("uid-of-w", "i1")


@pytest.mark.parametrize(
    ("holder", "taken_over"), [("", False), ("someone", False), (names.TAKEOVER_HOLDER_PREFIX + "me", True)]
)
def test_lease_that_its_worker_does_not_hold(holder: str, taken_over: bool) -> None:
    lease = worker_lease(lease_object("w", holder=holder))
    assert (lease.own, lease.taken_over) == (False, taken_over)


@pytest.mark.parametrize("field", ["renewTime", "leaseDurationSeconds"])
def test_half_a_lease_raises(field: str) -> None:
    stored = lease_object("w")
    del stored["spec"][field]
    with pytest.raises(KeyError):
        worker_lease(stored)
