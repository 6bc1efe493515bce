"""Leader election against the in-memory server: never two leaders, quick hand-over, an end by the deadline."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from tests.sim.memory_api import Call, Fault, MemoryApi
from tests.sim.memory_server import MemoryServer

from taskmaster.kube.api import MergePatch
from taskmaster.kube.election import LEASE_SECONDS, RENEW_DEADLINE_SECONDS, LeaderElector, Lost
from taskmaster.kube.errors import Conflict, Forbidden, ServerError, Unanswered
from taskmaster.kube.resource import LEASES, Object

pytestmark = pytest.mark.looptime

OWNER = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "u"}


class Candidate:
    """An elector that acquires, holds, and starts over, as the coordinator's process would."""

    def __init__(self, server: MemoryServer, identity: str, *, rate: float = 1.0, skew: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self.api = MemoryApi(server, client=identity, latency=0.002)
        self.pause = 0.0
        self.elector = LeaderElector(
            self.api,
            namespace="n",
            name="l",
            identity=identity,
            owner=OWNER,
            clock=lambda: loop.time() * rate + skew + self.pause,
            random=Random(identity),
        )
        self.task: asyncio.Task[None] | None = None
        self.terms = 0
        self.ends: list[str] = []

    def start(self) -> "Candidate":
        self.task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        while True:
            await self.elector.acquire()
            self.terms += 1
            try:
                await self.elector.hold()
            except Lost as lost:
                self.ends.append(str(lost))
                assert not self.elector.is_leader

    async def stop(self) -> None:
        """Without release, as kill -9."""
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError):
                await self.task
            self.task = None

    @property
    def leads(self) -> bool:
        return self.elector.is_leader


@pytest.fixture
async def server() -> MemoryServer:
    return MemoryServer()


def lease(server: MemoryServer) -> Object:
    return server.read(LEASES, "n", "l")


async def until(condition: Callable[[], bool], limit: float) -> float:
    """Seconds until it holds."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not condition():
        assert loop.time() - started < limit, "it did not come to pass"
        await asyncio.sleep(0.01)
    return loop.time() - started


async def test_first_candidate_leads_at_once_and_owns_the_lease(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    assert await until(lambda: one.leads, 1) < 0.1
    spec = lease(server)["spec"]
    assert spec["holderIdentity"] == "one"
    assert spec["leaseDurationSeconds"] == LEASE_SECONDS
    assert spec["leaseTransitions"] == 0
    assert len(spec["renewTime"]) == len("2026-11-21T09:00:00.123456Z")
    assert lease(server)["metadata"]["ownerReferences"] == [OWNER]
    await asyncio.sleep(3600)
    assert one.leads
    assert one.terms == 1
    await one.stop()


async def test_standby_waits_and_writes_nothing(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    two = Candidate(server, "two").start()
    await asyncio.sleep(600)
    assert one.leads
    assert not two.leads
    assert two.elector.holder == "one"
    assert {call.verb for call in two.api.calls} == {"get", "list", "watch"}
    await one.stop()
    await two.stop()


async def test_release_hands_over_at_once(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    two = Candidate(server, "two").start()
    await asyncio.sleep(5)
    await one.stop()
    await one.elector.release()
    assert not one.leads
    assert await until(lambda: two.leads, 5) < 0.1
    assert lease(server)["spec"]["leaseTransitions"] == 1
    assert lease(server)["spec"]["leaseDurationSeconds"] == LEASE_SECONDS
    await two.stop()


async def test_release_hands_over_within_two_seconds_when_the_standbys_watch_does_not_work(
    server: MemoryServer,
) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    two = Candidate(server, "two")
    two.api.faults = lambda call: Fault(before=Forbidden("no watch")) if call.verb in ("list", "watch") else None
    two.start()
    await asyncio.sleep(5)
    await one.stop()
    await one.elector.release()
    assert await until(lambda: two.leads, 5) < 2
    await two.stop()


async def test_killed_leader_is_followed_within_the_lease_time(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    two = Candidate(server, "two").start()
    await asyncio.sleep(30)
    await one.stop()
    assert LEASE_SECONDS - 3 <= await until(lambda: two.leads, 30) <= LEASE_SECONDS + 1
    await two.stop()


async def test_leader_that_cannot_renew_stops_before_another_may_take_over(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    two = Candidate(server, "two").start()
    await asyncio.sleep(30)
    one.api.faults = lambda call: Fault(before=Unanswered("partition"))
    assert await until(lambda: not one.leads, 30) <= RENEW_DEADLINE_SECONDS
    assert not two.leads
    assert await until(lambda: two.leads, 30) >= 2
    assert one.ends
    await one.stop()
    await two.stop()


async def test_leadership_ends_by_the_deadline_when_the_server_hangs(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    one.api.faults = lambda call: Fault(delay=1e9)
    await until(lambda: not one.leads, RENEW_DEADLINE_SECONDS + 0.1)
    await until(lambda: bool(one.ends), 0.1)
    await one.stop()


async def test_leader_that_was_paused_knows_it_at_once(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    one.pause += RENEW_DEADLINE_SECONDS + 1  # the clock went on, the program did not
    assert not one.leads
    await one.stop()


async def test_hiccups_shorter_than_the_deadline_do_not_end_a_term(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    for fault in (Fault(before=ServerError("boom")), Fault(after=Unanswered("reset")), Fault(before=Conflict("x"))):
        one.api.faults = lambda call, fault=fault: fault  # type: ignore[misc]
        await asyncio.sleep(6)
        one.api.faults = lambda call: None
        await asyncio.sleep(6)
    assert one.leads
    assert one.terms == 1
    await one.stop()


async def test_lost_answers_of_renewals_are_recognised_as_ones_own(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    random = Random(1)
    one.api.faults = lambda call: (
        Fault(after=Unanswered("reset")) if call.verb == "patch" and random.random() < 0.5 else None
    )
    await asyncio.sleep(600)
    assert one.terms == 1
    await one.stop()


async def test_lost_answer_of_the_creation_is_recognised_as_ones_own(server: MemoryServer) -> None:
    one = Candidate(server, "one")
    one.api.faults = lambda call: Fault(after=Unanswered("reset")) if call.verb == "create" else None
    one.start()
    assert await until(lambda: one.leads, 5) < 2
    await one.stop()


async def test_takeover_by_force_ends_the_term_at_the_next_renewal(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    server.patch(LEASES, "n", "l", MergePatch({"spec": {"holderIdentity": "usurper"}}))
    assert await until(lambda: not one.leads, 10) < 2.1
    await until(lambda: bool(one.ends), 0.1)
    assert "usurper" in one.ends[0]
    await one.stop()


async def test_deleted_lease_is_made_again(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    server.delete(LEASES, "n", "l")
    await asyncio.sleep(5)
    assert one.leads
    assert one.terms == 1
    assert lease(server)["spec"]["holderIdentity"] == "one"
    await one.stop()


async def test_release_by_one_who_does_not_lead_touches_nothing(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    two = Candidate(server, "two")
    await two.elector.release()
    assert lease(server)["spec"]["holderIdentity"] == "one"
    await one.stop()


async def test_release_survives_a_server_that_is_away(server: MemoryServer) -> None:
    one = Candidate(server, "one").start()
    await until(lambda: one.leads, 1)
    await one.stop()
    one.api.faults = lambda call: Fault(delay=1e9)
    await one.elector.release()
    assert not one.leads


async def test_wall_clocks_do_not_matter(server: MemoryServer) -> None:
    """A Lease written with a time in the far past or future is judged by how long it has not changed."""
    for renewed in ("1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"):
        spec = {"holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": renewed}
        body = {"apiVersion": LEASES.api_version, "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}
        server.create(LEASES, "n", body)
        one = Candidate(server, "one").start()
        assert 15 <= await until(lambda: one.leads, 20) <= 16.5  # noqa: B023 - called at once
        await one.stop()
        server.delete(LEASES, "n", "l")


@pytest.mark.parametrize("seed", range(20))
async def test_never_two_leaders_in_any_weather(seed: int, server: MemoryServer) -> None:
    """Clocks run at rates that the safety margin covers: 10 s of the slowest are less than 15 s of the quickest."""
    random = Random(seed)
    candidates = [
        Candidate(server, name, rate=random.uniform(0.9, 1.2), skew=random.uniform(-1e6, 1e6)).start()
        for name in ("one", "two", "three")
    ]

    def weather(call: Call) -> Fault | None:
        roll = random.random()
        if roll < 0.1:
            return Fault(before=random.choice([Unanswered("x"), ServerError("x"), Conflict("x")]))
        return Fault(after=Unanswered("x")) if roll < 0.2 else Fault(delay=random.choice([0, 0, 0.5, 3]))

    for candidate in candidates:
        candidate.api.faults = weather
    led = 0
    for _ in range(600):
        await asyncio.sleep(random.uniform(0, 1))
        leaders = [candidate for candidate in candidates if candidate.leads]
        assert len(leaders) <= 1
        led += len(leaders)
        if leaders and random.random() < 0.02:
            await leaders[0].stop()
            if random.random() < 0.5:
                await leaders[0].elector.release()
            leaders[0].start()
    assert led > 200
    for candidate in candidates:
        await candidate.stop()
