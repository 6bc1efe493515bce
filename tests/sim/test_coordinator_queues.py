"""Queues on the simulated cluster: what people edit takes effect, what they read is true, and it costs few writes."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.builders import NAMESPACE
from tests.sim.coordinator_rig import Cluster, Coordinator, Worker

from taskmaster.kube.api import MergePatch
from taskmaster.kube.resource import TASKQUEUES, TASKTEMPLATES

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def told(cluster: Cluster, name: str) -> tuple[str, str]:
    status = cluster.status(name)
    return status["phase"], status.get("reason", "")


def phases(cluster: Cluster, *names: str) -> list[str]:
    return [cluster.status(name)["phase"] for name in names]


async def test_task_of_a_missing_queue_runs_as_soon_as_the_queue_exists(cluster: Cluster) -> None:
    Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("t", queue="media")
        await asyncio.sleep(1)
        assert told(cluster, "t") == ("Pending", "QueueNotFound")
        assert "create a TaskQueue" in cluster.status("t")["message"]
        cluster.queue("media")
        await asyncio.sleep(0.1)
        assert told(cluster, "t") == ("Assigned", "")


async def test_paused_queue_of_the_default_name_starts_nothing_from_the_first_decision_on(cluster: Cluster) -> None:
    Worker(cluster, "w")
    cluster.queue("default", paused=True)
    cluster.submit("t")
    async with Coordinator(cluster).leading():
        await asyncio.sleep(10)
        assert told(cluster, "t") == ("Pending", "QueuePaused")
        assert "spec.paused" in cluster.status("t")["message"]
        cluster.edit_queue("default", paused=False)
        await asyncio.sleep(0.1)
        assert told(cluster, "t") == ("Assigned", "")


async def test_deleting_the_object_of_the_default_queue_restores_what_it_is_without_one(cluster: Cluster) -> None:
    Worker(cluster, "w")
    cluster.queue("default", paused=True)
    async with Coordinator(cluster).leading():
        cluster.submit("t")
        await asyncio.sleep(1)
        cluster.server.delete(TASKQUEUES, NAMESPACE, "default")
        await asyncio.sleep(0.1)
        assert told(cluster, "t") == ("Assigned", "")


async def test_people_hear_soon_that_a_queue_was_deleted_and_that_it_is_back(cluster: Cluster) -> None:
    Worker(cluster, "w", slots=1)
    cluster.queue("media")
    async with Coordinator(cluster).leading():
        cluster.submit("blocker")
        await asyncio.sleep(0.1)
        cluster.submit("t", queue="media")
        await asyncio.sleep(1)
        cluster.server.delete(TASKQUEUES, NAMESPACE, "media")
        await asyncio.sleep(1.5)
        assert told(cluster, "t") == ("Pending", "QueueNotFound")
        cluster.queue("media")
        await asyncio.sleep(1.5)
        assert told(cluster, "t") == ("Pending", "NoFreeSlot")


async def test_draining_a_queue_asks_its_workers_to_give_back_what_they_hold(cluster: Cluster) -> None:
    Worker(cluster, "w")
    cluster.queue("media")
    async with Coordinator(cluster).leading():
        cluster.submit("t", queue="media")
        cluster.submit("other")
        await asyncio.sleep(1)
        cluster.edit_queue("media", drain=True)
        await asyncio.sleep(0.1)
        assert cluster.status("t")["stopRequest"]["reason"] == "Drained"
        assert "stopRequest" not in cluster.status("other")


async def test_a_new_leader_drains_what_its_predecessor_did_not(cluster: Cluster) -> None:
    Worker(cluster, "w")
    cluster.queue("media")
    async with Coordinator(cluster).leading():
        cluster.submit("t", queue="media")
        await asyncio.sleep(1)
    cluster.edit_queue("media", drain=True)
    async with Coordinator(cluster, identity="c2").leading():
        await asyncio.sleep(0.1)
        assert cluster.status("t")["stopRequest"]["reason"] == "Drained"


async def test_what_a_queue_says_about_policies_is_pinned_at_assignment(cluster: Cluster) -> None:
    Worker(cluster, "w", work=lambda name: 0.2)
    cluster.queue("media", retry={"limit": 7}, timeouts={"attemptSeconds": 11}, ttl={"succeededSeconds": 60})
    async with Coordinator(cluster).leading():
        cluster.submit("t", queue="media", timeouts={"attemptSeconds": 5})
        await asyncio.sleep(0.1)
        policy = cluster.status("t")["assignment"]["policy"]
        assert (policy["retryLimit"], policy["attemptSeconds"], policy["graceSeconds"]) == (7, 5, 20)
        await asyncio.sleep(50)
        assert phases(cluster, "t") == ["Succeeded"]
        await asyncio.sleep(15)
        assert cluster.phases() == {}


async def test_an_edit_of_the_queues_defaults_reaches_tasks_that_wait_and_tasks_that_have_ended(
    cluster: Cluster,
) -> None:
    Worker(cluster, "w", slots=1, work=lambda name: 0.2)
    cluster.queue("media", timeouts={"pendingSeconds": 1_000})
    cluster.queue("closed", paused=True)
    async with Coordinator(cluster).leading():
        cluster.submit("waits", queue="closed")
        cluster.submit("ended", queue="media")
        await asyncio.sleep(5)
        cluster.edit_queue("closed", timeouts={"pendingSeconds": 20})
        cluster.edit_queue("media", ttl={"succeededSeconds": 10})
        await asyncio.sleep(30)
        assert cluster.phases() == {"waits": "Skipped"}
        assert cluster.status("waits")["reason"] == "Expired"


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"maxRunning": 1}, "QueueLimit"),
        ({"rateLimit": {"tasks": 1, "perSeconds": 600}}, "RateLimited"),
    ],
    ids=["maxRunning", "rateLimit"],
)
async def test_a_limit_of_the_queue_is_said_after_thirty_seconds(
    cluster: Cluster, spec: dict[str, Any], reason: str
) -> None:
    Worker(cluster, "w")
    cluster.queue("media", **spec)
    async with Coordinator(cluster).leading():
        cluster.submit("first", queue="media")
        await asyncio.sleep(0.1)
        cluster.submit("t", queue="media")
        await asyncio.sleep(25)
        assert told(cluster, "t") == ("Pending", "")
        await asyncio.sleep(10)
        assert told(cluster, "t") == ("Pending", reason)
        assert phases(cluster, "first") == ["Running"]


async def test_rate_limit_starts_the_next_task_when_its_token_is_there(cluster: Cluster) -> None:
    Worker(cluster, "w", slots=9)
    cluster.queue("media", rateLimit={"tasks": 2, "perSeconds": 10})
    async with Coordinator(cluster).leading():
        for number in range(6):
            cluster.submit(f"t{number}", queue="media")
        started = []
        for _ in range(4):
            await asyncio.sleep(0.1)
            started.append(len(cluster.placed()))
            await asyncio.sleep(4.9)
        assert started == [2, 3, 4, 5]


async def test_queue_that_is_full_rejects_new_tasks_or_lets_them_wait_outside(cluster: Cluster) -> None:
    cluster.queue("strict", maxPending=2, whenFull="Reject")
    cluster.queue("patient", maxPending=2)
    async with Coordinator(cluster).leading():
        for queue in ("strict", "patient"):
            for number in range(3):
                cluster.submit(f"{queue}-{number}", queue=queue)
                await asyncio.sleep(0.01)
        await asyncio.sleep(40)
        assert told(cluster, "strict-2") == ("Skipped", "Rejected")
        assert "maxPending" in cluster.status("strict-2")["message"]
        assert told(cluster, "patient-2") == ("Pending", "QueueLimit")
        cluster.delete("patient-0")
        Worker(cluster, "w", slots=9)
        await asyncio.sleep(1)
        assert phases(cluster, "strict-0", "strict-1", "patient-1", "patient-2") == ["Assigned"] * 4


async def test_status_counts_who_waits_for_what_and_is_written_at_most_each_five_seconds(cluster: Cluster) -> None:
    Worker(cluster, "w", slots=1)
    cluster.queue("media")
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        await asyncio.sleep(0.1)
        assert cluster.queue_status("media")["observedGeneration"] == 1
        assert cluster.queue_status("media")["conditions"][0]["reason"] == "Open"
        for number in range(3):
            cluster.submit(f"t{number}", queue="media")
        cluster.submit("later", queue="media", notBeforeTime="2099-01-01T00:00:00Z")
        await asyncio.sleep(12)
        status = cluster.queue_status("media")
        assert status["pendingByReason"] == {"NoFreeSlot": 2, "WaitingForStartTime": 1}
        assert (status["pending"], status["running"]) == (3, 1)
        assert 5 <= status["oldestPendingSeconds"] <= 12
        assert status["blockers"] == "2 Tasks: 0/1 workers fit: 1 busy"
        await asyncio.sleep(60)
        assert len(coordinator.sent("patch", "taskqueues")) <= 1 + 72 / 5
        for number in range(3):
            cluster.delete(f"t{number}")
        await asyncio.sleep(6)
        assert cluster.queue_status("media")["pendingByReason"] == {"WaitingForStartTime": 1}


async def test_status_of_an_idle_queue_is_not_written_again(cluster: Cluster) -> None:
    cluster.queue("media", paused=True)
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        await asyncio.sleep(60)
        assert len(coordinator.sent("patch", "taskqueues")) == 1
        assert cluster.queue_status("media")["conditions"][0]["reason"] == "Paused"


async def test_a_queue_that_cannot_be_read_keeps_what_it_was(cluster: Cluster) -> None:
    Worker(cluster, "w")
    cluster.queue("media")
    async with Coordinator(cluster).leading():
        await asyncio.sleep(0.1)
        cluster.edit_queue("media", placement="Astrology")
        cluster.submit("t", queue="media")
        await asyncio.sleep(1)
        assert phases(cluster, "t") == ["Assigned"]


async def test_conflicts_of_a_concurrency_key_end_as_their_policy_says(cluster: Cluster) -> None:
    Worker(cluster, "w", slots=9)
    async with Coordinator(cluster).leading():
        for name, policy in (("queue", "Queue"), ("reject", "Reject"), ("pending", "ReplacePending")):
            for number in range(3):
                key = {"key": name, "onConflict": policy}
                cluster.submit(f"{name}-{number}", concurrency=key)
                await asyncio.sleep(0.1)
        cluster.submit("run-0", concurrency={"key": "run"})
        await asyncio.sleep(0.1)
        cluster.submit("run-1", concurrency={"key": "run", "onConflict": "CancelRunning"})
        await asyncio.sleep(0.1)
        assert told(cluster, "reject-1") == ("Skipped", "Rejected")
        assert told(cluster, "pending-1") == ("Cancelled", "Replaced")
        assert cluster.status("run-0")["stopRequest"]["reason"] == "Cancelled"
        await asyncio.sleep(40)
        assert told(cluster, "queue-1") == ("Pending", "ConcurrencyLimit")
        assert told(cluster, "pending-2") == ("Pending", "ConcurrencyLimit")


async def test_a_template_fills_what_the_task_leaves_open_and_is_pinned(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", slots=4)
    async with Coordinator(cluster).leading():
        cluster.submit("t", run=None, templateRef={"name": "resize"}, args={"size": 64})
        await asyncio.sleep(1)
        assert told(cluster, "t") == ("Pending", "TemplateNotFound")
        cluster.template(
            "resize",
            {"run": {"command": ["convert", "$(args.size)"]}, "resources": {"slots": 2}, "retry": {"limit": 1}},
            parameters={"properties": {"size": {"type": "integer"}}},
        )
        await asyncio.sleep(0.1)
        status = cluster.status("t")
        assert status["resolvedRun"]["run"] == {"command": ["convert", "64"]}
        assert (status["assignment"]["slots"], status["assignment"]["policy"]["retryLimit"]) == (2, 1)
        assert worker.slots == 4


async def test_arguments_that_do_not_fit_are_said_and_the_task_waits_for_a_better_template(cluster: Cluster) -> None:
    Worker(cluster, "w")
    cluster.template(
        "resize",
        {"run": {"command": ["convert", "$(args.size)"]}},
        parameters={"properties": {"size": {"type": "integer"}}},
    )
    async with Coordinator(cluster).leading():
        cluster.submit("t", run=None, templateRef={"name": "resize"}, args={"size": "big"})
        await asyncio.sleep(1)
        assert told(cluster, "t") == ("Pending", "InvalidSpec")
        assert "args.size" in cluster.status("t")["message"]
        worse = {"spec": {"parameters": {"properties": {"size": {"type": "boolean"}}}}}
        cluster.server.patch(TASKTEMPLATES, NAMESPACE, "resize", MergePatch(worse))
        await asyncio.sleep(2)
        assert "boolean" in cluster.status("t")["message"]
        await asyncio.sleep(60)
        assert cluster.writes_to("t") == 3, "created, and told twice"
        better = {"spec": {"parameters": {"properties": {"size": {"type": "string"}}}}}
        cluster.server.patch(TASKTEMPLATES, NAMESPACE, "resize", MergePatch(better))
        await asyncio.sleep(0.1)
        assert told(cluster, "t") == ("Assigned", "")
