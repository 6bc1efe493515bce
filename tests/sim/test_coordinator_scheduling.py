"""Assignments: from a Task's creation to the worker that holds it, whatever happens to the writes in between."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise
from random import Random

import pytest
from tests.builders import NAMESPACE
from tests.sim.coordinator_rig import (
    COMPLETED,
    Cluster,
    Coordinator,
    Worker,
    fail_once,
    seconds,
    status_write,
    wall_clock,
    written,
)
from tests.sim.memory_api import Call, Fault, lost_answer

from taskmaster.core.reason import EndReason
from taskmaster.core.retry import AttemptEnd
from taskmaster.core.retry import Outcome as AttemptOutcome
from taskmaster.kube.api import MergePatch
from taskmaster.kube.errors import ServerError, Unanswered, Unprocessable
from taskmaster.kube.resource import PODS, TASKS

pytestmark = pytest.mark.looptime


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = Cluster()
    yield made
    await made.close()


def assigns(call: Call) -> bool:
    return status_write(call) and written(call).get("phase") == "Assigned"


async def test_short_task_costs_four_writes_and_a_long_one_five(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w", work=lambda name: 0.2 if name == "short" else 3)
    async with coordinator.leading():
        cluster.submit("short", ttlSecondsAfterFinished=1)
        cluster.submit("long", ttlSecondsAfterFinished=1)
        await asyncio.sleep(10)
    assert cluster.phases() == {}
    assert [cluster.writes_to("short"), cluster.writes_to("long")] == [4, 5]
    assert cluster.server.writes["patch", "tasks/status"] == 2 + 3
    assert worker.refused == []
    last = next(before for before, after in cluster.changes_of("long") if after is None)
    assert last is not None
    assert last["status"]["phase"] == "Succeeded"
    assert last["status"]["attempt"] == 1


async def test_task_is_assigned_without_a_delay_of_ours(cluster: Cluster) -> None:
    Worker(cluster, "w")
    async with Coordinator(cluster, latency=0.002).leading():
        await asyncio.sleep(5)
        cluster.submit("t")
        await asyncio.sleep(0.01)
        assert cluster.status("t")["phase"] == "Assigned"
        assert cluster.status("t")["assignment"]["worker"] == "w"


async def test_idle_system_runs_no_cycles_and_sends_nothing(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w")
    async with coordinator.leading():
        await asyncio.sleep(30)
        cycles, calls = coordinator.scheduler.cycles, len(coordinator.api.calls)
        await asyncio.sleep(120)
        assert coordinator.scheduler.cycles == cycles, "renewals of Leases are no reason for a cycle"
        assert len(coordinator.api.calls) == calls


async def test_burst_of_tasks_is_few_cycles(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=100)
    async with coordinator.leading():
        await asyncio.sleep(1)
        before = coordinator.scheduler.cycles
        for number in range(100):
            cluster.submit(f"t{number}")
        await asyncio.sleep(1)
        assert len(cluster.placed()) == 100
        assert coordinator.scheduler.cycles - before < 60


async def test_slots_are_never_exceeded_and_everything_ends(cluster: Cluster) -> None:
    random = Random(5)
    workers = [Worker(cluster, f"w{n}", slots=2 + n, work=lambda name: random.uniform(0.1, 3)) for n in range(3)]
    async with Coordinator(cluster).leading():
        for number in range(120):
            cluster.submit(f"t{number}")
            await asyncio.sleep(random.choice([0, 0, 0.1]))
        await asyncio.sleep(120)
    assert Counter(cluster.phases().values()) == {"Succeeded": 120}
    most = cluster.most_held()
    assert {each.pod_uid: each.slots for each in workers} == dict(most), "all slots were used, and no more"
    assert sum(len(each.started) for each in workers) == 120


async def test_least_loaded_worker_gets_the_next_task(cluster: Cluster) -> None:
    for name in "abc":
        Worker(cluster, name, slots=4)
    async with Coordinator(cluster).leading():
        for number in range(6):
            cluster.submit(f"t{number}")
            await asyncio.sleep(0.1)
        assert Counter(cluster.placed().values()) == {"a": 2, "b": 2, "c": 2}


async def test_higher_priority_first_then_in_order_of_creation(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", slots=1, work=lambda name: 0.5)
    async with Coordinator(cluster).leading():
        cluster.submit("blocker")
        await asyncio.sleep(0.1)
        for name, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 10), ("raised", -5)):
            cluster.submit(name, priority=priority)
        cluster.edit("raised", priority=11)
        await asyncio.sleep(10)
    assert [name for name, *_ in worker.started] == ["blocker", "raised", "high", "first", "second", "low"]


async def test_delayed_task_is_assigned_at_its_time_and_without_polling(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w")
    cluster.submit("t")
    status = {"notBeforeTime": seconds(100), "attempt": 3, "reason": "BackingOff"}
    cluster.server.patch(TASKS, "team-a", "t", MergePatch({"status": status}), subresource="status")
    async with coordinator.leading():
        await asyncio.sleep(1)
        cycles = coordinator.scheduler.cycles
        await asyncio.sleep(100 - wall_clock() + 1_800_000_000 - 0.5)
        assert cluster.status("t")["phase"] == "Pending"
        assert coordinator.scheduler.cycles == cycles
        await asyncio.sleep(0.6)
        assert cluster.status("t")["phase"] == "Assigned"
        assert cluster.status("t")["attempt"] == 4
        assert "notBeforeTime" not in cluster.status("t")
        assigned = cluster.status("t")["assignment"]["assignedTime"]
        assert seconds(100) <= assigned < seconds(100.1)


async def test_nearest_of_several_delays_is_waited_for(cluster: Cluster) -> None:
    Worker(cluster, "w")
    for name, time in (("later", 50), ("soon", 20)):
        cluster.submit(name)
        status = {"notBeforeTime": seconds(time)}
        cluster.server.patch(TASKS, "team-a", name, MergePatch({"status": status}), subresource="status")
    async with Coordinator(cluster).leading():
        await asyncio.sleep(20.5)
        assert cluster.phases() == {"soon": "Assigned", "later": "Pending"}
        await asyncio.sleep(30)
        assert cluster.phases() == {"soon": "Running", "later": "Assigned"}


async def test_tasks_of_a_namespace_run_on_its_own_workers_only(cluster: Cluster) -> None:
    Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        body = {"apiVersion": "taskmaster.dev/v1alpha1", "kind": "Task", "metadata": {"name": "t"}, "spec": {"run": {}}}
        cluster.server.create(TASKS, "team-b", body)
        await asyncio.sleep(5)
        assert cluster.server.read(TASKS, "team-b", "t")["status"]["phase"] == "Pending"


async def test_task_edited_while_its_assignment_is_on_its_way_is_decided_again(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w")
    coordinator.faults = fail_once(assigns, Fault(delay=0.5))
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(0.2)
        cluster.edit("t", retry={"limit": 9})
        await asyncio.sleep(0.2)
        assert cluster.status("t")["phase"] == "Pending"
        await asyncio.sleep(3)
        status = cluster.status("t")
        assert (status["phase"], status["attempt"], status["observedGeneration"]) == ("Running", 1, 2)
        assert status["assignment"]["policy"]["retryLimit"] == 9


async def test_refused_assignment_is_tried_again_after_a_pause_and_gives_its_slot_back(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    refused: list[float] = []

    def refuse(call: Call) -> Fault | None:
        if assigns(call) and call.name == "cursed":
            refused.append(wall_clock())
            return Fault(before=Unprocessable("no"))
        return None

    coordinator.faults = refuse
    async with coordinator.leading():
        cluster.submit("cursed", priority=100)
        await asyncio.sleep(0.05)
        cluster.submit("other")
        await asyncio.sleep(10)
        assert cluster.phases() == {"cursed": "Pending", "other": "Running"}
        pauses = [later - earlier for earlier, later in pairwise(refused)]
        assert all(pause > 0.9 for pause in pauses)


@pytest.mark.parametrize("error", [Unanswered("reset"), ServerError("etcd")], ids=["unanswered", "5xx"])
@pytest.mark.parametrize("applied", [True, False], ids=["applied", "not-applied"])
async def test_assignment_whose_fate_is_unknown_happens_once(cluster: Cluster, error: Exception, applied: bool) -> None:
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w", slots=1, work=lambda name: 0.5)
    coordinator.faults = fail_once(assigns, Fault(after=error) if applied else Fault(before=error))
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(10)
    assert worker.started == [("t", 1, "w-life-1")]
    assert cluster.phases() == {"t": "Succeeded"}
    assert cluster.writes_to("t") == 3


async def test_slot_of_an_assignment_in_doubt_is_not_given_away(cluster: Cluster) -> None:
    """The answer is lost and the watch is a little late: only the server knows that the slot is taken."""
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w", slots=1)
    coordinator.faults = fail_once(assigns, lost_answer())
    async with coordinator.leading():
        coordinator.api.held = False
        await asyncio.sleep(1)
        cluster.submit("t")
        cluster.submit("other")
        await asyncio.sleep(0.0021)  # the watch has told of both; the assignment is on its way
        coordinator.api.held = True
        await asyncio.sleep(0.5)
        coordinator.api.held = False
        coordinator.api.wake_watches()
        await asyncio.sleep(5)
    assert cluster.most_held() == {worker.pod_uid: 1}
    assert cluster.phases() == {"t": "Running", "other": "Pending"}


async def test_task_in_doubt_on_the_only_slot_is_not_locked_out_by_itself(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    coordinator.faults = fail_once(assigns, Fault(before=Unanswered("refused")))
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(3)
        assert cluster.phases() == {"t": "Running"}


async def test_late_failure_of_an_older_assignment_does_not_touch_the_newer_one(cluster: Cluster) -> None:
    """Attempt 1 is over and attempt 2 decided when the answer about assigning attempt 1 finally fails to come."""
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w", slots=2)
    coordinator.faults = fail_once(assigns, Fault(after=Unanswered("timed out"), delay_answer=5))
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(2)
        assert cluster.status("t")["phase"] == "Running"
        worker.start()  # the agent was restarted: attempt 1 is lost
        await asyncio.sleep(2)
        await asyncio.sleep(10)
        assert cluster.status("t")["attempt"] == 2
        assert coordinator.cache.assumed == 0
        assert len(coordinator.cache.tenants["team-a"].queues["default"].backlog) == 0
        assert [call for call in coordinator.sent("patch", "tasks") if assigns(call)][2:] == []


async def test_deleted_while_its_assignment_is_on_its_way(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    worker = Worker(cluster, "w", slots=1)
    coordinator.faults = fail_once(assigns, Fault(delay=0.5))
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(0.1)
        cluster.delete("t")
        await asyncio.sleep(0.1)
        cluster.submit("next")
        await asyncio.sleep(5)
        assert cluster.phases() == {"next": "Running"}
        assert coordinator.cache.assumed == 0
        assert coordinator.cache.tenants["team-a"].capacity.held_by(worker.pod_uid) == {
            cluster.task("next")["metadata"]["uid"]
        }


async def test_deleted_tasks_leave_nothing_behind(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    async with coordinator.leading():
        for name in ("running", "waiting", "next"):
            cluster.submit(name)
            await asyncio.sleep(0.1)
        cluster.delete("waiting")
        cluster.delete("running")
        await asyncio.sleep(0.1)
        assert cluster.phases() == {"next": "Assigned"}
        cluster.delete("next")
        await asyncio.sleep(0.1)
        cache = coordinator.cache
        assert (cache.tasks, cache.assumed, +cache.counts) == ({}, 0, {})
        assert cache.tenants["team-a"].entries == {}


async def test_recreated_under_its_name_is_another_task(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1)
    coordinator.faults = fail_once(assigns, Fault(delay=0.5))
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(0.1)
        cluster.delete("t")
        again = cluster.submit("t")["metadata"]["uid"]
        await asyncio.sleep(5)
        assert cluster.task("t")["metadata"]["uid"] == again
        assert cluster.status("t")["attempt"] == 1


async def test_whole_life_between_two_looks_of_the_watch(cluster: Cluster) -> None:
    """The watch breaks; what it missed arrives as one change by a list."""
    coordinator = Coordinator(cluster)
    Worker(cluster, "w", slots=1, work=lambda name: 0.1)
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(0.0025)
        coordinator.api.held = True
        await asyncio.sleep(2)
        assert cluster.phases() == {"t": "Succeeded"}
        cluster.submit("next")
        cluster.server.compact()
        coordinator.api.held = False
        coordinator.api.break_watches()
        await asyncio.sleep(5)
        assert cluster.phases() == {"t": "Succeeded", "next": "Succeeded"}
        assert coordinator.cache.assumed == 0


async def test_task_moved_to_another_queue_leaves_the_backlog(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    async with coordinator.leading():
        cluster.submit("t")
        await asyncio.sleep(0.1)
        cluster.edit("t", queue="elsewhere")
        await asyncio.sleep(0.1)
        Worker(cluster, "w")
        await asyncio.sleep(5)
        assert cluster.status("t")["phase"] == "Pending"
        assert [call for call in coordinator.sent("patch", "tasks") if assigns(call)] == []
        cluster.edit("t", queue="default")
        await asyncio.sleep(1)
        assert cluster.status("t")["phase"] == "Assigned"


@pytest.mark.parametrize("hint", ["draining", "pod-leaving", "disrupted"])
async def test_worker_that_is_about_to_leave_gets_nothing_new_and_keeps_what_it_has(
    cluster: Cluster, hint: str
) -> None:
    worker = Worker(cluster, "w")
    async with Coordinator(cluster).leading():
        cluster.submit("running")
        await asyncio.sleep(1.5)
        match hint:
            case "draining":
                worker.renew(state="Draining")
                worker.renew = lambda **_: None  # type: ignore[method-assign]
            case "disrupted":
                worker.set_pod(conditions=[{"type": "DisruptionTarget", "status": "True"}])
            case "pod-leaving":
                pod = MergePatch({"metadata": {"deletionTimestamp": seconds(1)}})
                cluster.server.patch(PODS, "team-a", "w", pod)
        await asyncio.sleep(0.1)
        cluster.submit("waiting")
        await asyncio.sleep(5)
        assert cluster.phases() == {"running": "Running", "waiting": "Pending"}


async def test_worker_whose_pod_is_not_known_gets_nothing(cluster: Cluster) -> None:
    worker = Worker(cluster, "w")
    worker.delete_pod()
    async with Coordinator(cluster).leading():
        cluster.submit("t")
        await asyncio.sleep(5)
        assert cluster.status("t")["phase"] == "Pending"


async def test_tasks_found_on_workers_at_the_start_take_their_slots(cluster: Cluster) -> None:
    worker = Worker(cluster, "w", slots=2)
    async with Coordinator(cluster, identity="c1").leading():
        cluster.submit("a")
        cluster.submit("b")
        await asyncio.sleep(2)
    async with Coordinator(cluster, identity="c2").leading():
        cluster.submit("c")
        await asyncio.sleep(5)
    assert cluster.phases() == {"a": "Running", "b": "Running", "c": "Pending"}
    assert cluster.most_held() == {worker.pod_uid: 2}


async def test_two_coordinators_by_mistake_assign_each_attempt_once(cluster: Cluster) -> None:
    random = Random(3)
    workers = [Worker(cluster, f"w{number}", slots=5, work=lambda name: 0.3) for number in range(3)]
    one, other = Coordinator(cluster, identity="c1", seed=1), Coordinator(cluster, identity="c2", seed=2)
    one.faults = lambda call: Fault(delay=random.uniform(0, 0.01))
    other.faults = lambda call: Fault(delay=random.uniform(0, 0.01))
    async with one.leading(), other.leading():
        for number in range(60):
            cluster.submit(f"t{number}")
            await asyncio.sleep(0.02)
        await asyncio.sleep(30)
    assert Counter(cluster.phases().values()) == {"Succeeded": 60}
    assert {cluster.status(f"t{number}")["attempt"] for number in range(60)} == {1}
    assert Counter(len(cluster.status(f"t{number}")["attempts"]) for number in range(60)) == {1: 60}
    assert sorted(name for worker in workers for name, *_ in worker.started) == sorted(cluster.phases())


async def test_outage_loses_nothing(cluster: Cluster) -> None:
    coordinator = Coordinator(cluster)
    workers = [Worker(cluster, f"w{number}", slots=3, work=lambda name: 0.5) for number in range(2)]
    async with coordinator.leading():
        for number in range(30):
            cluster.submit(f"t{number}")
        await asyncio.sleep(1)
        coordinator.disconnect()
        await asyncio.sleep(300)
        coordinator.reconnect()
        await asyncio.sleep(60)
    assert Counter(cluster.phases().values()) == {"Succeeded": 30}
    assert sum(len(worker.started) for worker in workers) == 30
    assert all(most <= 3 for most in cluster.most_held().values())


RUNNER_DIED = AttemptEnd(AttemptOutcome.WORKER_LOST, EndReason.WORKER_LOST, runner_died=True)


def died(cluster: Cluster, worker: Worker) -> None:
    """The runner of a worker dies under all that it holds."""
    for name in [name for name, place in cluster.placed().items() if place == worker.name]:
        worker.finish(name, RUNNER_DIED)


async def test_a_task_that_kills_its_runner_is_found_out_and_its_neighbours_are_not_blamed(cluster: Cluster) -> None:
    """Three innocents share a worker with a Task that kills the runner whenever it runs."""
    worker = Worker(cluster, "w", slots=4)
    together: list[set[str]] = []
    async with Coordinator(cluster).leading():
        exact = {"backoff": {"initialSeconds": 1, "maxSeconds": 1, "jitter": "None"}}
        for name in ("poison", "a", "b", "c"):
            cluster.submit(name, retry=exact)
        for _ in range(20):
            await asyncio.sleep(5)
            held = set(cluster.placed())
            if not held:
                break
            together.append(held)
            if "poison" in held:
                died(cluster, worker)
            else:
                for name in held:
                    worker.finish(name, COMPLETED)
        assert cluster.phases() == {"poison": "Failed", "a": "Succeeded", "b": "Succeeded", "c": "Succeeded"}
        assert [len(held) for held in together] == [4, 4, 1, 1, 1, 1]
        status = cluster.status("poison")
        assert (status["reason"], status["deadLettered"], status["workerLosses"]) == ("RunnerKilled", True, 3)
        assert "failures" not in cluster.status("a")
        # The worker is everybody's again.
        for number in range(4):
            cluster.submit(f"later-{number}")
        await asyncio.sleep(1)
        assert len(cluster.placed()) == 4


async def test_a_worker_kept_for_a_suspect_is_given_back_when_the_suspect_is_cancelled(cluster: Cluster) -> None:
    Worker(cluster, "w", slots=2)
    async with Coordinator(cluster).leading():
        cluster.submit("old")
        await asyncio.sleep(1)
        cluster.submit("suspect", suspend=True)
        await asyncio.sleep(1)
        deaths = MergePatch({"status": {"runnerDeaths": 2}})
        cluster.server.patch(TASKS, NAMESPACE, "suspect", deaths, subresource="status")
        cluster.edit("suspect", suspend=False)
        await asyncio.sleep(1)
        cluster.submit("new")
        await asyncio.sleep(1)
        assert set(cluster.placed()) == {"old"}
        cluster.edit("suspect", cancel=True)
        await asyncio.sleep(1)
        assert set(cluster.placed()) == {"old", "new"}
