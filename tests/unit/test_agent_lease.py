"""The worker's Lease: registering, renewing only when well, being declared dead, and leaving."""

import asyncio
from typing import Any

import pytest
from tests.sim.memory_api import Call, Fault, lost_answer
from tests.unit.agent_worker import NAMESPACE, POD, Stage, settings, stage, until, working

from taskmaster.api import decode, names
from taskmaster.kube.errors import ServerError, Unanswered
from taskmaster.kube.resource import LEASES, TASKS
from taskmaster_worker.agent import registration
from taskmaster_worker.agent.health import Health, Trouble

pytestmark = pytest.mark.looptime


def renewals(on: Stage) -> int:
    times = [
        change.after["spec"]["renewTime"]
        for change in on.server.history
        if change.resource is LEASES and change.after is not None
    ]
    return len(dict.fromkeys(times))


async def test_a_worker_registers_with_everything_the_coordinator_reads() -> None:
    async with working(slots=7) as on:
        worker = decode.worker(on.lease)
        assert (worker.name, worker.pod_uid, worker.pool, worker.node, worker.slots) == (
            POD,
            "pod-uid-1",
            "pool",
            "node-1",
            7,
        )
        assert worker.incarnation == "life-1"
        assert worker.schedulable
        assert on.lease["metadata"]["ownerReferences"] == [
            {"apiVersion": "v1", "kind": "Pod", "name": POD, "uid": "pod-uid-1"}
        ]
        assert on.lease["metadata"]["labels"]["app.kubernetes.io/component"] == "worker"
        assert on.lease["spec"]["leaseDurationSeconds"] == 45


async def test_a_worker_publishes_its_labels_with_the_name_of_its_pool_and_its_queues() -> None:
    async with working(labels={"gpu": "true", "pool": "somebody-elses"}, queues=frozenset({"media", "mail"})) as on:
        worker = decode.worker(on.lease)
        assert worker.labels == {"gpu": "true", "pool": "pool"}
        assert worker.queues == {"media", "mail"}
        annotations = on.lease["metadata"]["annotations"]
        assert annotations[names.LABELS_ANNOTATION] == '{"gpu":"true","pool":"pool"}'
        assert annotations[names.QUEUES_ANNOTATION] == '["mail","media"]'


async def test_a_worker_that_serves_all_queues_takes_back_what_an_earlier_life_said() -> None:
    def served_one(on: Stage) -> None:
        body = registration.claim(settings(queues=frozenset({"media"})), on.life.holder, "Ready", None, now=on.now())
        on.server.create(LEASES, NAMESPACE, body, client="an earlier life")

    async with stage(served_one) as on:
        await until(lambda: on.worker.lease.published == "Ready")
        assert decode.worker(on.lease).queues == frozenset()
        assert decode.worker(on.lease).labels == {"pool": "pool"}


async def test_nothing_is_published_before_the_runner_is_known_to_be_empty() -> None:
    def no_runner(on: Stage) -> None:
        on.runner.away = True

    async with stage(no_runner) as on:
        await asyncio.sleep(60)
        assert on.server.select(LEASES) == []
        on.runner.away = False
        await until(lambda: on.worker.lease.published == "Ready", seconds=2)


async def test_nothing_is_published_before_the_watch_has_listed() -> None:
    def no_tasks(on: Stage) -> None:
        on.api.faults = lambda call: Fault(before=ServerError("no")) if call.resource is TASKS else None

    async with stage(no_tasks) as on:
        await asyncio.sleep(60)
        assert on.server.select(LEASES) == []
        on.api.faults = lambda call: None
        await until(lambda: on.worker.lease.published == "Ready", seconds=60)


async def test_it_is_renewed_at_its_interval() -> None:
    async with working() as on:
        before = renewals(on)
        await asyncio.sleep(100)
        assert 9 <= renewals(on) - before <= 12


async def test_an_earlier_lifes_lease_is_taken_over() -> None:
    async with working() as on:
        lease = on.lease

    def before(on: Stage) -> None:
        lease["metadata"]["annotations"]["taskmaster.dev/incarnation"] = "life-0"
        on.server.create(LEASES, NAMESPACE, {k: v for k, v in lease.items() if k != "status"})

    async with stage(before) as on:
        await until(lambda: on.worker.lease.published == "Ready")
        assert decode.worker(on.lease).incarnation == "life-1"
        assert on.lease["spec"]["leaseTransitions"] == 1


async def test_no_renewal_without_a_runner_and_the_state_says_so_at_once() -> None:
    async with working() as on:
        on.runner.away = True
        on.runner.reset("the runner container died")
        await until(lambda: on.state == "Unavailable", seconds=1)
        before = renewals(on)
        await asyncio.sleep(100)
        assert renewals(on) == before
        on.runner.away = False
        await until(lambda: on.state == "Ready", seconds=1)
        await until(lambda: renewals(on) == before + 1, seconds=1)


async def test_no_renewal_while_the_watch_is_silent() -> None:
    async with working() as on:
        on.api.held = True
        await asyncio.sleep(120)
        before = renewals(on)
        await asyncio.sleep(100)
        assert renewals(on) == before
        assert on.worker.health.parts()["watch"] is not None
        on.api.held = False
        on.api.wake_watches()
        await until(lambda: renewals(on) > before, seconds=5)


async def test_an_idle_watch_with_its_bookmarks_is_well() -> None:
    async with working() as on:
        await asyncio.sleep(3_600)
        assert renewals(on) > 350


async def test_no_renewal_while_status_writes_fail() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.api.faults = lambda call: Fault(before=ServerError("no")) if call.subresource == "status" else None
        on.runner.exit(attempt)
        await asyncio.sleep(25)
        before = renewals(on)
        await asyncio.sleep(100)
        assert renewals(on) == before
        on.api.faults = lambda call: None
        await until(lambda: renewals(on) > before)
        assert on.phase("a") == "Succeeded"


def test_trouble_speaks_against_a_renewal_once_patience_is_over() -> None:
    now = 0.0
    troubles = {"a": Trouble(0.0, "at once"), "b": Trouble(0.0, "later")}
    vital = {"a": (lambda: troubles["a"], 0.0), "b": (lambda: troubles["b"], 10.0), "c": (lambda: None, 0.0)}
    health = Health(vital, {"d": lambda: Trouble(0.0, "only unready")}, clock=lambda: now)
    assert set(health.vital_troubles()) == {"a"}
    now = 10.0
    assert set(health.vital_troubles()) == {"a", "b"}
    assert [name for name, trouble in health.parts().items() if trouble] == ["a", "b", "d"]


async def test_trouble_that_passes_costs_no_renewal() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        ends = on.clock() + 5
        on.api.faults = lambda call: (
            Fault(before=ServerError("no")) if call.subresource == "status" and on.clock() < ends else None
        )
        on.runner.exit(attempt)
        before = renewals(on)
        await asyncio.sleep(50)
        assert renewals(on) >= before + 4


@pytest.mark.parametrize("holder", ["taskmaster-coordinator:abc", "somebody", ""])
async def test_a_worker_declared_dead_kills_everything_and_comes_back_anew(holder: str) -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.edit_lease({"spec": {"holderIdentity": holder}})
        await until(lambda: on.runner.hellos == 2, seconds=12)
        await until(lambda: on.worker.lease.published == "Ready")
        assert decode.worker(on.lease).incarnation == "life-2"
        assert decode.worker(on.lease).schedulable
        assert on.phase("a") == "Assigned", "that is for the coordinator"
        assert on.status_writes() == []
        on.requeue("a")
        second = on.assign("a")
        await until(lambda: second in on.runner.frames)


async def test_the_end_of_an_attempt_of_a_dead_life_is_not_written_over_anothers() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.api.faults = lambda call: Fault(before=Unanswered("partition"))
        on.runner.exit(attempt, result="ours")
        await asyncio.sleep(60)
        on.edit_lease({"spec": {"holderIdentity": "taskmaster-coordinator:abc"}})
        on.requeue("a")
        on.api.faults = lambda call: None
        await until(lambda: on.life.incarnation == "life-2")
        await on.worker.attempts.empty.wait()
        assert on.phase("a") == "Pending"
        assert on.metric("taskmaster_worker_superseded_total") == 1


async def test_a_lost_answer_to_a_renewal_is_not_taken_for_a_takeover() -> None:
    async with working() as on:
        lost = [lost_answer(), lost_answer()]
        on.api.faults = lambda call: lost.pop() if lost and call.resource is LEASES and call.verb == "patch" else None
        await asyncio.sleep(60)
        assert lost == []
        assert on.life.incarnation == "life-1"
        assert on.runner.hellos == 1


async def test_a_deleted_lease_is_written_again() -> None:
    async with working() as on:
        on.server.delete(LEASES, NAMESPACE, POD)
        await asyncio.sleep(15)
        assert decode.worker(on.lease).incarnation == "life-1"
        assert decode.worker(on.lease).schedulable


async def test_running_work_goes_on_through_an_outage_and_renewals_come_back_quickly() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.api.faults = lambda call: Fault(before=Unanswered("refused"))
        await asyncio.sleep(600)
        assert on.runner.stops == []
        on.api.faults = lambda call: None
        before = renewals(on)
        await until(lambda: renewals(on) > before, seconds=6)
        on.runner.exit(attempt)
        await until(lambda: on.phase("a") == "Succeeded")


async def test_a_hanging_renewal_is_given_up_before_the_next_is_due() -> None:
    async with working() as on:
        hangs = [True]

        def fault(call: Call) -> Fault | None:
            if call.resource is LEASES and hangs:
                hangs.pop()
                return Fault(delay=float("inf"))
            return None

        on.api.faults = fault
        before = renewals(on)
        await asyncio.sleep(20)
        assert renewals(on) > before


# ---- leaving


async def test_an_idle_worker_leaves_by_saying_so_and_emptying_its_lease() -> None:
    async with working() as on:
        on.worker.terminate()
        await until(lambda: on.state == "Draining", seconds=1)
        assert on.running is not None
        await asyncio.wait_for(on.running, 5)
        assert on.lease["spec"]["holderIdentity"] == ""


async def test_work_may_finish_while_the_worker_drains() -> None:
    async with working(drain_seconds=30) as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.worker.terminate()
        await asyncio.sleep(29)
        assert on.runner.stops == []
        on.runner.exit(attempt)
        assert on.running is not None
        await asyncio.wait_for(on.running, 5)
        assert on.phase("a") == "Succeeded"
        assert on.lease["spec"]["holderIdentity"] == ""


async def test_what_does_not_finish_in_time_is_interrupted_and_given_back() -> None:
    async with working(drain_seconds=30) as on:
        ids = [on.submit("a", timeouts={"graceSeconds": 5}), on.submit("b", timeouts={"graceSeconds": 900})]
        await until(lambda: set(ids) == set(on.runner.frames))
        on.worker.terminate()
        await asyncio.sleep(30.5)
        assert on.runner.stops == [(ids[0], 5), (ids[1], 20)]
        for attempt in ids:
            on.runner.exit(attempt, code=None, signal=15)
        assert on.running is not None
        await asyncio.wait_for(on.running, 5)
        status = on.status("a")
        assert (status["phase"], status["interruptions"]) == ("Pending", 1)
        assert status["attempts"][-1]["outcome"] == "Interrupted"


async def test_a_draining_worker_gives_back_what_still_arrives() -> None:
    async with working() as on:
        on.worker.terminate()
        await until(lambda: on.state == "Draining", seconds=1)
        attempt = on.submit("a")
        await until(lambda: on.phase("a") == "Pending", seconds=2)
        assert attempt not in on.runner.frames
        assert on.status("a")["attempts"][-1]["outcome"] == "Released"


async def test_told_again_it_stops_everything_at_once() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.worker.terminate()
        await asyncio.sleep(1)
        on.worker.terminate()
        assert on.runner.stops == [(attempt, 0)]


async def test_told_again_it_shortens_a_grace_under_way() -> None:
    async with working(drain_seconds=10) as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.worker.terminate()
        await asyncio.sleep(11)
        on.worker.terminate()
        assert on.runner.stops == [(attempt, 20), (attempt, 0)]


async def test_a_worker_that_cannot_announce_its_leaving_still_gives_back_what_arrives() -> None:
    async with working() as on:
        on.api.faults = lambda call: Fault(before=ServerError("no")) if call.resource is LEASES else None
        on.worker.terminate()
        on.submit("a")
        await until(lambda: on.phase("a") == "Pending", seconds=10)
        assert on.running is not None
        await asyncio.wait_for(on.running, 20)


async def test_it_does_not_leave_before_its_records_are_acknowledged() -> None:
    async with working() as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.api.faults = lambda call: Fault(before=Unanswered("refused"))
        on.worker.terminate()
        on.runner.exit(attempt)
        await asyncio.sleep(300)
        assert on.running is not None
        assert not on.running.done()
        on.api.faults = lambda call: None
        await asyncio.wait_for(on.running, 60)
        assert on.phase("a") == "Succeeded"


async def test_a_drain_request_is_followed_and_can_be_withdrawn() -> None:
    def annotate(reason: str | None) -> dict[str, Any]:
        return {"metadata": {"annotations": {"taskmaster.dev/drain-request": reason}}}

    async with working(drain_seconds=20) as on:
        attempt = on.submit("a")
        await until(lambda: attempt in on.runner.frames)
        on.edit_lease(annotate("NodeNotReady"))
        await until(lambda: on.state == "Draining", seconds=12)
        await asyncio.sleep(20.5)
        assert on.runner.stops == [(attempt, 20)]
        on.runner.exit(attempt, code=None, signal=15)
        await until(lambda: on.phase("a") == "Pending")
        assert on.running is not None
        assert not on.running.done()
        on.edit_lease(annotate(None))
        await until(lambda: on.state == "Ready", seconds=12)
        second = on.assign("a")
        await until(lambda: second in on.runner.frames)
